// Package postgres keeps everything that must not be lost: connections, runs, customers, contacts, roles and history. It
// is the only importer of sqlx, pq and goose, and the only place with SQL.
package postgres

import (
	"context"
	"crypto/x509"
	"database/sql"
	"errors"
	"fmt"
	"net"
	"strconv"
	"time"

	"github.com/jmoiron/sqlx"
	"github.com/lib/pq"
	"github.com/lib/pq/pqerror"

	"github.com/centime/contactsync/internal/tracing"
)

// Store is a pool of connections to one database. Its methods own their transactions.
type Store struct {
	db *sqlx.DB
}

// Open connects lazily, with at most size connections; 0 is the driver's choice.
func Open(dsn string, size int) (*Store, error) {
	db, err := open(dsn, true)
	if err != nil {
		return nil, err
	}
	db.SetMaxOpenConns(size)
	db.SetMaxIdleConns(max(size, 2))
	db.SetConnMaxIdleTime(5 * time.Minute)
	return &Store{db: sqlx.NewDb(db, "postgres")}, nil
}

// WorkerConnections is how many connections a worker with so many slots may open: a step writes on one while its heartbeat and its token may
// each need another.
func WorkerConnections(slots int) int { return 2*slots + 2 }

// SchedulerConnections is how many connections a scheduler may open.
const SchedulerConnections = 4

// Close ends the pool.
func (s *Store) Close() error { return s.db.Close() }

// Stats are those of the pool.
func (s *Store) Stats() sql.DBStats { return s.db.Stats() }

// Ping says whether the database answers.
func (s *Store) Ping(ctx context.Context) error {
	if err := s.db.PingContext(ctx); err != nil {
		return fmt.Errorf("postgres: %w", reachable(err))
	}
	return nil
}

// networkPatience bounds one read or write of the wire. It is longer than statementPatience, so that only a dead
// network meets it: a context cannot free a pq call from one (https://github.com/lib/pq/issues/620).
const (
	statementPatience = 40 * time.Second
	networkPatience   = 60 * time.Second
	// idlePatience is when Postgres ends a transaction in which nothing comes: whoever began it stands still, or the network
	// has lost him, and the rows he locked are wanted.
	idlePatience = 10 * time.Second
)

func open(dsn string, deadlines bool) (*sql.DB, error) {
	cfg, err := pq.NewConfig(dsn)
	if err != nil {
		return nil, errors.New("DATABASE_URL cannot be read: use postgres://user:password@host:5432/name?sslmode=verify-full")
	}
	if cfg.ConnectTimeout == 0 {
		cfg.ConnectTimeout = 10 * time.Second
	}
	cfg.BinaryParameters = true // a statement with arguments takes one round trip, not two; texts relies on it too
	c, err := pq.NewConnectorConfig(cfg)
	if err != nil {
		return nil, fmt.Errorf("postgres: %w", err)
	}
	if deadlines {
		c.Dialer(patientDialer{})
	}
	return tracing.DB(c), nil
}

// patientDialer makes connections whose every read and write has a deadline.
type patientDialer struct{ d net.Dialer }

func (p patientDialer) Dial(network, address string) (net.Conn, error) {
	return p.DialContext(context.Background(), network, address)
}

func (p patientDialer) DialTimeout(network, address string, timeout time.Duration) (net.Conn, error) {
	ctx, cancel := context.WithTimeout(context.Background(), timeout)
	defer cancel()
	return p.DialContext(ctx, network, address)
}

func (p patientDialer) DialContext(ctx context.Context, network, address string) (net.Conn, error) {
	c, err := p.d.DialContext(ctx, network, address)
	if err != nil {
		return nil, err
	}
	return patientConn{c}, nil
}

type patientConn struct{ net.Conn }

func (c patientConn) Read(b []byte) (int, error) {
	if err := c.SetReadDeadline(time.Now().Add(networkPatience)); err != nil {
		return 0, err
	}
	return c.Conn.Read(b)
}

func (c patientConn) Write(b []byte) (int, error) {
	if err := c.SetWriteDeadline(time.Now().Add(networkPatience)); err != nil {
		return 0, err
	}
	return c.Conn.Write(b)
}

// An actor is the database role a transaction takes; 00002_rights.sql says what each may do.
type actor string

const (
	asSync actor = "contactsync_sync"
	asApp  actor = "contactsync_app"
	asOps  actor = "contactsync_ops"
)

// anyTenant is for ops only: every other actor sees no row with it.
const anyTenant = int64(0)

// in runs f in a transaction as an actor, for one tenant. All access to rows of ours is through it, still or once: role and tenant are
// local to the transaction, so PgBouncer's transaction mode cannot carry them over. (Examine takes no role, and reads no row of ours.) A
// transaction that was undone is tried again, so f may run more than once; see undone.
func (s *Store) in(ctx context.Context, as actor, tenant int64, f func(tx *sqlx.Tx) error) error {
	return again(ctx, func() error { return s.once(ctx, as, tenant, f) })
}

// still is in on one view of the database: what others commit meanwhile is not seen, and a row that they changed is not
// changed as well, but all of it is tried again.
func (s *Store) still(ctx context.Context, as actor, tenant int64, f func(tx *sqlx.Tx) error) error {
	return again(ctx, func() error { return s.at(ctx, sql.LevelRepeatableRead, as, tenant, f) })
}

func again(ctx context.Context, once func() error) error {
	const tries = 3
	for try := 1; ; try++ {
		err := once()
		if err == nil || try == tries || ctx.Err() != nil || !undone(err) {
			return err
		}
	}
}

// once is in for what must not be repeated by itself: f asks an ERP, or is part of a larger whole that is tried again.
func (s *Store) once(ctx context.Context, as actor, tenant int64, f func(tx *sqlx.Tx) error) error {
	return s.at(ctx, sql.LevelDefault, as, tenant, f)
}

func (s *Store) at(ctx context.Context, isolation sql.IsolationLevel, as actor, tenant int64, f func(tx *sqlx.Tx) error) (err error) {
	tx, err := s.db.BeginTxx(ctx, &sql.TxOptions{Isolation: isolation})
	if err != nil {
		return fmt.Errorf("postgres: %w", reachable(err))
	}
	defer func() {
		if err != nil {
			_ = tx.Rollback() // the error that led here says more
		}
	}()
	scope := ""
	if tenant != anyTenant {
		scope = strconv.FormatInt(tenant, 10)
	}
	// Postgres would compile what reads a large connection, for seconds that are never won back. Times are read in the session's zone, and
	// documents say UTC.
	begin := fmt.Sprintf(`SELECT set_config('search_path', 'contactsync, public', true), set_config('statement_timeout', '%d', true),
		set_config('idle_in_transaction_session_timeout', '%d', true), set_config('jit', 'off', true), set_config('timezone', 'UTC', true),
		set_config('contactsync.tenant_id', '%s', true), set_config('role', '%s', true)`, statementPatience.Milliseconds(), idlePatience.Milliseconds(), scope, as)
	if _, err = tx.ExecContext(ctx, begin); err != nil {
		return fmt.Errorf("postgres: take role %s: %w", as, err)
	}
	if err = f(tx); err != nil {
		return err
	}
	if err = tx.Commit(); err != nil {
		return fmt.Errorf("postgres: commit: %w", err)
	}
	return nil
}

// undone reports that Postgres undid a transaction (deadlock, serialisation), or that we did because somebody was erased meanwhile, so that
// trying again is safe. A lost connection is not among them: an answer to COMMIT may have been lost with it.
func undone(err error) bool {
	if errors.Is(err, errLost) {
		return false
	}
	return errors.Is(err, errErased) || pq.As(err, pqerror.TRSerializationFailure, pqerror.TRDeadlockDetected) != nil
}

// reachable turns a failure to reach the server into one sentence. pq's own text may hold the address, never the password.
func reachable(err error) error {
	advice := ""
	if netErr, ok := errors.AsType[*net.OpError](err); ok && netErr.Op == "dial" {
		advice = "check DATABASE_URL and that the server runs"
	}
	if _, ok := errors.AsType[x509.UnknownAuthorityError](err); ok {
		advice = "add sslrootcert=FILE to DATABASE_URL, the file of the authority that signed the server's certificate"
	}
	if _, ok := errors.AsType[x509.HostnameError](err); ok {
		advice = "use the host name in DATABASE_URL that the server's certificate is for"
	}
	if errors.Is(err, pq.ErrSSLNotSupported) {
		advice = "turn TLS on at the server, or say sslmode=disable on a private network"
	}
	if advice == "" {
		return err
	}
	return fmt.Errorf("cannot be reached (%w): %s", err, advice)
}

func isUndefinedTable(err error) bool { return pq.As(err, pqerror.UndefinedTable) != nil }

func isUniqueViolation(err error, constraint string) bool {
	e := pq.As(err, pqerror.UniqueViolation)
	return e != nil && e.Constraint == constraint
}

// ErrNotFound says that no such row exists, or none that the caller may see.
var ErrNotFound = errors.New("not found")

func notFound(err error, what string) error {
	if errors.Is(err, sql.ErrNoRows) {
		return fmt.Errorf("%s: %w", what, ErrNotFound)
	}
	return err
}

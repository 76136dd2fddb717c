// Package pgtest gives each test a Postgres database of its own with the schema in it.
package pgtest

import (
	"context"
	"crypto/rand"
	"database/sql"
	"errors"
	"fmt"
	"net/url"
	"os"
	"strconv"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/lib/pq"
	"github.com/lib/pq/pqerror"

	"github.com/centime/contactsync/internal/postgres"
)

// patience bounds the making and the dropping of a database, others' included that are waited for.
const patience = 3 * time.Minute

// stale is the age from which databases of tests and templates of other migrations are taken for left behind.
const stale = time.Hour

// lock is the advisory lock of those who build a template or drop what was left behind.
const lock = 7305711914

// New returns the DSN of a database of this test's own, migrated and empty, on the server of DATABASE_URL. It is
// dropped at the end of the test, also when connections to it are still open.
//
// It is cloned from a template which the first test of all on that server builds for these migrations. The user of
// DATABASE_URL must be allowed to create databases and whatever the migrations need.
func New(t testing.TB) string {
	t.Helper()
	given := os.Getenv("DATABASE_URL")
	if given == "" {
		t.Fatal("pgtest: DATABASE_URL is not set: run `make test`, or eval \"$(scripts/services start test)\" first")
	}
	server, err := parse(given)
	if err != nil {
		t.Fatal(err)
	}

	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	name := newName(server.tests())
	err = server.do(ctx, func(c *sql.Conn) error {
		if swept.CompareAndSwap(false, true) {
			if err := locked(ctx, c, func() error { return server.sweep(ctx, c) }); err != nil {
				return err
			}
		}
		return server.clone(ctx, c, name)
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		// The test's own context has ended by now.
		ctx, cancel := context.WithTimeout(context.Background(), patience)
		defer cancel()
		if err := server.do(ctx, func(c *sql.Conn) error { return drop(ctx, c, name, " WITH (FORCE)") }); err != nil {
			t.Error(err)
		}
	})
	return server.dsn(name)
}

// server is where the databases are made.
type server struct {
	url  url.URL // of the database to connect to for that
	hash string  // of the migrations
	// migrate makes the schema in an empty database.
	migrate func(ctx context.Context, dsn string) error
	// prefix of all names. Whatever has it and ends like one of newName is dropped when it is stale.
	prefix string
}

func (s *server) tests() string     { return s.prefix + "test_" }
func (s *server) templates() string { return s.prefix + "template_" + s.hash + "_" }
func (s *server) buildings() string { return s.prefix + "building_" }

func parse(dsn string) (*server, error) {
	u, err := url.Parse(dsn)
	if err != nil || (u.Scheme != "postgres" && u.Scheme != "postgresql") {
		// The error of url.Parse repeats the URL, password included.
		return nil, errors.New(
			"pgtest: DATABASE_URL is not of the form postgres://USER:PASSWORD@HOST:PORT/DATABASE?sslmode=disable")
	}
	return &server{url: *u, hash: postgres.MigrationsHash(), migrate: postgres.Migrate, prefix: "contactsync_pgtest_"}, nil
}

func (s *server) dsn(database string) string {
	u := s.url
	u.Path, u.RawPath = "/"+database, ""
	return u.String()
}

// do runs f on a connection that is closed afterwards: a pool kept for the next test would be a leak to tests which
// look for leaked goroutines.
func (s *server) do(ctx context.Context, f func(*sql.Conn) error) error {
	connector, err := pq.NewConnector(s.url.String())
	if err != nil {
		return errors.New("pgtest: DATABASE_URL cannot be understood") // the cause may repeat its password
	}
	db := sql.OpenDB(connector)
	conn, err := db.Conn(ctx)
	if err == nil {
		err = errors.Join(f(conn), conn.Close())
	} else {
		err = fmt.Errorf("no Postgres at DATABASE_URL: run `make test`, or eval \"$(scripts/services start test)\": %w", err)
	}
	if err := errors.Join(err, db.Close()); err != nil {
		return fmt.Errorf("pgtest: %w", err)
	}
	return nil
}

// clone makes the database, and the template first where there is none. Another working copy on the same server may
// drop a template as stale just before it is cloned, hence the second try.
func (s *server) clone(ctx context.Context, c *sql.Conn, name string) error {
	for try := 1; ; try++ {
		template, err := s.template(ctx, c)
		if err != nil {
			return err
		}
		_, err = c.ExecContext(ctx, "CREATE DATABASE "+name+" TEMPLATE "+template)
		switch {
		case err == nil:
			return nil
		case try == 1 && pq.As(err, pqerror.InvalidCatalogName) != nil:
		default:
			return fmt.Errorf("clone template: %w", err)
		}
	}
}

// template returns the name of the template for these migrations.
func (s *server) template(ctx context.Context, c *sql.Conn) (name string, err error) {
	if name, err = s.find(ctx, c); err != nil || name != "" {
		return name, err
	}
	err = locked(ctx, c, func() error {
		if name, err = s.find(ctx, c); err != nil || name != "" {
			return err
		}
		name, err = s.build(ctx, c)
		return err
	})
	return name, err
}

func locked(ctx context.Context, c *sql.Conn, f func() error) error {
	if _, err := c.ExecContext(ctx, "SELECT pg_advisory_lock($1)", lock); err != nil {
		return fmt.Errorf("wait for another test to build the template: %w", err)
	}
	err := f()
	if _, unlock := c.ExecContext(ctx, "SELECT pg_advisory_unlock($1)", lock); unlock != nil {
		err = errors.Join(err, fmt.Errorf("unlock: %w", unlock))
	}
	return err
}

func (s *server) find(ctx context.Context, c *sql.Conn) (string, error) {
	var name string
	err := c.QueryRowContext(ctx,
		"SELECT datname FROM pg_database WHERE datname ^@ $1 LIMIT 1", s.templates()).Scan(&name)
	if err != nil && !errors.Is(err, sql.ErrNoRows) {
		return "", fmt.Errorf("look for the template: %w", err)
	}
	return name, nil
}

// build makes the template under another name, so that one half made, by a test that was killed, is never used.
func (s *server) build(ctx context.Context, c *sql.Conn) (string, error) {
	building, template := newName(s.buildings()), newName(s.templates())
	if _, err := c.ExecContext(ctx, "CREATE DATABASE "+building+" TEMPLATE template0"); err != nil {
		return "", fmt.Errorf("build template: %w", err)
	}
	if err := s.migrate(ctx, s.dsn(building)); err != nil {
		return "", errors.Join(fmt.Errorf("build template: %w", err), drop(ctx, c, building, " WITH (FORCE)"))
	}
	for _, stmt := range []string{
		"ALTER DATABASE " + building + " ALLOW_CONNECTIONS false", // a database in use cannot be cloned
		"ALTER DATABASE " + building + " RENAME TO " + template,
	} {
		if _, err := c.ExecContext(ctx, stmt); err != nil {
			return "", fmt.Errorf("build template: %w", err)
		}
	}
	return template, nil
}

// swept says that this test binary has swept: once is enough.
var swept atomic.Bool

// sweep drops what killed tests and older migrations left. What is in use stays.
func (s *server) sweep(ctx context.Context, c *sql.Conn) error {
	var names []string
	err := c.QueryRowContext(ctx, `
		SELECT coalesce(array_agg(datname::text), '{}') FROM pg_database
		WHERE datname ^@ $1 AND NOT datname ^@ $2
		  AND NOT EXISTS (SELECT FROM pg_stat_activity a WHERE a.datname = pg_database.datname)`,
		s.prefix, s.templates()).Scan(pq.Array(&names))
	if err != nil {
		return fmt.Errorf("look for databases left behind: %w", err)
	}
	for _, name := range names {
		if at, ok := birth(name); !ok || time.Since(at) < stale {
			continue
		}
		if err := drop(ctx, c, name, ""); err != nil && pq.As(err, pqerror.ObjectInUse) == nil {
			return err
		}
	}
	return nil
}

func drop(ctx context.Context, c *sql.Conn, name, option string) error {
	if _, err := c.ExecContext(ctx, "DROP DATABASE IF EXISTS "+name+option); err != nil {
		return fmt.Errorf("drop database: %w", err)
	}
	return nil
}

// newName needs no quoting in SQL.
func newName(prefix string) string {
	return fmt.Sprintf("%s%d_%s", prefix, time.Now().Unix(), strings.ToLower(rand.Text()[:6]))
}

// birth is when newName made the name.
func birth(name string) (time.Time, bool) {
	parts := strings.Split(name, "_")
	if len(parts) < 2 {
		return time.Time{}, false
	}
	seconds, err := strconv.ParseInt(parts[len(parts)-2], 10, 64)
	return time.Unix(seconds, 0), err == nil
}

package doctor_test

import (
	"context"
	"crypto/rand"
	"database/sql"
	"fmt"
	"log/slog"
	"net/url"
	"strings"
	"testing"
	"time"

	"github.com/centime/contactsync/internal/connector"
	"github.com/centime/contactsync/internal/credentials"
	"github.com/centime/contactsync/internal/doctor"
	"github.com/centime/contactsync/internal/postgres"
	"github.com/centime/contactsync/internal/postgres/pgtest"
	"github.com/centime/contactsync/internal/queue"
	"github.com/centime/contactsync/internal/queue/redistest"
)

// installation is one where all is well: a login of its own, a connection, a Redis of its own and a worker with eight slots.
type installation struct {
	t      *testing.T
	is     doctor.Installation
	owner  *sql.DB
	login  string
	dsn    string // of the login
	owned  string // of the owner, a superuser
	key    string
	server *redistest.Private
	worker *queue.Server
}

func install(t *testing.T) *installation {
	t.Helper()
	dsn := pgtest.New(t)
	i := &installation{t: t, owned: dsn, login: "doctor_" + strings.ToLower(rand.Text()[:8]), key: credentials.NewKey(), server: redistest.Own(t)}
	var err error
	if i.owner, err = sql.Open("postgres", dsn); err != nil {
		t.Fatal(err)
	}
	i.exec(`CREATE ROLE ` + i.login + ` LOGIN PASSWORD 'x' IN ROLE contactsync_sync, contactsync_app, contactsync_ops`)
	t.Cleanup(func() {
		if _, err := i.owner.ExecContext(context.WithoutCancel(t.Context()), `DROP ROLE `+i.login); err != nil {
			t.Error(err)
		}
		_ = i.owner.Close()
	})
	u, err := url.Parse(dsn)
	if err != nil {
		t.Fatal(err)
	}
	u.User = url.UserPassword(i.login, "x")
	i.dsn = u.String()
	i.is = doctor.Installation{Store: i.store(i.dsn), Redis: i.redis(i.server.URL), Ring: i.ring(i.key), LongTransaction: time.Millisecond}

	tenant, err := i.is.Store.AddTenant(t.Context(), "Kelp", "UTC", postgres.By{User: "ops"})
	if err != nil {
		t.Fatal(err)
	}
	_, err = i.is.Store.AddConnection(t.Context(), postgres.NewConnection{
		Tenant: tenant, ERP: "memory", Account: "a", Name: "Kelp books", Schedule: "@every 1h",
		Seal: func(id int64) (credentials.Stored, error) {
			return i.is.Ring.Pack(connector.Credentials{RefreshToken: "r"}, credentials.Place{Table: "credentials", Tenant: tenant, Connection: id})
		},
	}, postgres.By{User: "tester"})
	if err != nil {
		t.Fatal(err)
	}
	i.exec(`DELETE FROM contactsync.run_requests; DELETE FROM contactsync.runs`) // the first load
	i.config("appendonly", "yes")
	i.serve()
	t.Cleanup(func() { i.worker.Shutdown(10 * time.Second) })
	return i
}

func (i *installation) exec(statement string) {
	i.t.Helper()
	if _, err := i.owner.ExecContext(i.t.Context(), statement); err != nil {
		i.t.Fatalf("%s: %v", statement, err)
	}
}

func (i *installation) store(dsn string) *postgres.Store {
	i.t.Helper()
	s, err := postgres.Open(dsn, 2)
	if err != nil {
		i.t.Fatal(err)
	}
	i.t.Cleanup(func() { _ = s.Close() })
	return s
}

func (i *installation) redis(address string) *queue.Redis {
	i.t.Helper()
	r, err := queue.Open(address)
	if err != nil {
		i.t.Fatal(err)
	}
	i.t.Cleanup(func() { _ = r.Close() })
	return r
}

func (i *installation) ring(keys string) *credentials.Ring {
	i.t.Helper()
	r, err := credentials.ParseRing(keys)
	if err != nil {
		i.t.Fatal(err)
	}
	return r
}

func (i *installation) config(name, value string) {
	i.t.Helper()
	if err := i.is.Redis.Client().ConfigSet(i.t.Context(), name, value).Err(); err != nil {
		i.t.Fatal(err)
	}
}

func (i *installation) do(args ...any) {
	i.t.Helper()
	if err := i.is.Redis.Client().Do(i.t.Context(), args...).Err(); err != nil {
		i.t.Fatal(err)
	}
}

// serve starts a worker and waits until it has told Redis.
func (i *installation) serve() {
	i.t.Helper()
	var err error
	quiet, nothing := slog.New(slog.DiscardHandler), func(context.Context, queue.Task) {}
	i.worker, err = i.is.Redis.Serve(i.t.Context(), nothing, make(chan struct{}), 8, time.Minute, quiet)
	if err != nil {
		i.t.Fatal(err)
	}
	for began := time.Now(); time.Since(began) < 30*time.Second; {
		e, err := i.is.Redis.Examine(i.t.Context())
		if err != nil {
			i.t.Fatal(err)
		}
		if len(e.Workers) == 1 && e.Workers[0].Slots == 8 && !e.Workers[0].Stopping {
			return
		}
	}
	i.t.Fatal("the worker does not come")
}

// TestBrokenThingsAreFound breaks each thing that can be broken for one database and one Redis, and guards that it is found, with what to
// do, and that nothing is found once it is mended. What belongs to the whole server is broken in the tests of postgres.
func TestBrokenThingsAreFound(t *testing.T) {
	t.Parallel()
	i := install(t)
	well := i.is
	mended := func() {
		t.Helper()
		found, works := i.is.Examine(t.Context())
		checks := map[string]bool{}
		for _, f := range found {
			checks[f.Check] = true
			if f.Level != doctor.OK || f.Do != "" {
				t.Errorf("all is well, and yet: %+v", f)
			}
		}
		if !works || len(checks) != 16 {
			t.Errorf("works %v, checks %v", works, checks)
		}
	}
	mended()

	var open *sql.Tx
	const version = `(SELECT max(version_id) FROM contactsync_migrations)`
	const run = `INSERT INTO contactsync.runs (tenant_id, connection_id, mode, trigger, status, queued_at, handed_out_at, lease_until, fencing, delivery)
		VALUES (1, 1, 'full', 'manual', 'running', now() - interval '9 h', now() - interval '40 min', now() - interval '40 min', 1, 1)`
	for _, c := range []struct {
		name, check string
		level       doctor.Level
		text, do    string // parts
		broken      func()
		mended      func() // beside the installation's own fields
	}{
		{
			"Superuser", "login", doctor.Problem, "is a superuser", "name another login in DATABASE_URL",
			func() { i.is.Store = i.store(i.owned) }, nil,
		},
		{
			"MissingRole", "login", doctor.Problem, "cannot work as contactsync_app", "GRANT contactsync_app TO " + i.login,
			func() { i.exec(`REVOKE contactsync_app FROM ` + i.login) }, func() { i.exec(`GRANT contactsync_app TO ` + i.login) },
		},
		{
			"MissingOps", "keys", doctor.Problem, "contactsync_ops", "see login and rights",
			func() { i.exec(`REVOKE contactsync_ops FROM ` + i.login); i.is.Store = i.store(i.dsn) }, func() { i.exec(`GRANT contactsync_ops TO ` + i.login) },
		},
		{
			"NotForced", "rights", doctor.Problem, "not forced on contactsync.contacts", "ALTER TABLE contactsync.contacts",
			func() { i.exec(`ALTER TABLE contactsync.contacts NO FORCE ROW LEVEL SECURITY`) },
			func() { i.exec(`ALTER TABLE contactsync.contacts FORCE ROW LEVEL SECURITY`) },
		},
		{
			"Pending", "schema", doctor.Problem, "run `syncctl migrate`", "syncctl migrate",
			func() { i.exec(`UPDATE contactsync_migrations SET is_applied = false WHERE version_id = ` + version) },
			func() { i.exec(`UPDATE contactsync_migrations SET is_applied = true`) },
		},
		{
			"Newer", "schema", doctor.Problem, "start the newer program", "the programs of the database's version",
			func() {
				i.exec(`INSERT INTO contactsync_migrations (version_id, is_applied) SELECT ` + version + ` + 1000, true`)
			},
			func() { i.exec(`DELETE FROM contactsync_migrations WHERE version_id = ` + version) },
		},
		{
			"OtherKey", "keys", doctor.Problem, "do not open: 1, the first of connection 1: ", "syncctl connection credentials 1 FILE",
			func() { i.is.Ring = i.ring(credentials.NewKey()) }, nil,
		},
		{
			"WrongKey", "keys", doctor.Problem, "does not open them", "CREDENTIALS_KEY",
			func() {
				id, _, _ := strings.Cut(i.key, ":")
				_, key, _ := strings.Cut(credentials.NewKey(), ":")
				i.is.Ring = i.ring(id + ":" + key)
			}, nil,
		},
		{
			"OlderKey", "keys", doctor.Warning, "that an older key than", "syncctl key reseal",
			func() { i.is.Ring = i.ring(credentials.NewKey() + "," + i.key) }, nil,
		},
		{"NoKey", "keys", doctor.Unchecked, "CREDENTIALS_KEY is not set", "", func() { i.is.Ring = nil }, nil},
		{
			"SlowClock", "clocks", doctor.Problem, "that of postgres is 1m0s ahead of this machine's", "timedatectl",
			func() { i.is.Now = func() time.Time { return time.Now().Add(-time.Minute) } }, nil,
		},
		{
			"FastClock", "clocks", doctor.Problem, "that of redis is 1m0s behind this machine's", "timedatectl",
			func() { i.is.Now = func() time.Time { return time.Now().Add(time.Minute) } }, nil,
		},
		{
			"StuckRun", "runs", doctor.Problem, "run 2 of Kelp books has been ready for 40 min, and nobody works it", "syncctl run show 2",
			func() { i.exec(run) }, func() { i.exec(`DELETE FROM contactsync.runs`) },
		},
		{
			"NoWorkerClaims", "workers", doctor.Problem, "no worker claims", "syncctl run list --status queued",
			func() { i.exec(run) }, func() { i.exec(`DELETE FROM contactsync.runs`) },
		},
		{
			"NobodyQueues", "scheduler", doctor.Problem, "no scheduler queues the connections that are due: 1", "syncctl connection list",
			func() { i.exec(`UPDATE contactsync.connections SET next_due_at = now() - interval '1 h'`) },
			func() { i.exec(`UPDATE contactsync.connections SET next_due_at = now() + interval '1 h'`) },
		},
		{
			"MonthIsUsedUp", "scheduler", doctor.OK, "", "",
			func() {
				i.is.Allowances = map[string]int64{"memory": 1}
				i.exec(`INSERT INTO contactsync.call_counts (tenant_id, connection_id, month, calls)
					SELECT tenant_id, id, date_trunc('month', now() AT TIME ZONE 'UTC'), 1 FROM contactsync.connections;
					UPDATE contactsync.connections SET next_due_at = now() - interval '1 h'`)
			},
			func() {
				i.is.Allowances = nil
				i.exec(`DELETE FROM contactsync.call_counts; UPDATE contactsync.connections SET next_due_at = now() + interval '1 h'`)
			},
		},
		{
			"PausedERP", "erps", doctor.Problem, "memory refuses this installation", "syncctl run list --status failed",
			func() {
				i.exec(`INSERT INTO contactsync.erp_pauses (erp, cause, next_trial_at) VALUES ('memory', 'invalid_client', now())`)
			},
			func() { i.exec(`DELETE FROM contactsync.erp_pauses`) },
		},
		{
			"LongTransaction", "vacuum", doctor.Warning, "has been open for", "SELECT pg_terminate_backend(",
			func() {
				db, err := sql.Open("postgres", i.dsn)
				if err != nil {
					t.Fatal(err)
				}
				t.Cleanup(func() { _ = db.Close() })
				if open, err = db.BeginTx(t.Context(), nil); err != nil {
					t.Fatal(err)
				}
			},
			func() { _ = open.Rollback() },
		},
		{
			"FewConnections", "connections", doctor.Warning, "may open 22 connections, and Postgres allows " + i.login + " 10", "lower WORKER_CONCURRENCY",
			func() { i.exec(`ALTER ROLE ` + i.login + ` CONNECTION LIMIT 10`) }, func() { i.exec(`ALTER ROLE ` + i.login + ` CONNECTION LIMIT -1`) },
		},
		{"NoRedisURL", "redis", doctor.Unchecked, "REDIS_URL is not set", "", func() { i.is.Redis = nil }, nil},
		{
			"NoRedis", "redis", doctor.Problem, "redis cannot be asked", "start an empty one",
			func() { i.is.Redis = i.redis("redis://127.0.0.1:1/0") }, nil,
		},
		{
			"Evicts", "redis", doctor.Problem, "maxmemory-policy allkeys-lru", "CONFIG SET maxmemory-policy noeviction",
			func() { i.config("maxmemory-policy", "allkeys-lru") }, func() { i.config("maxmemory-policy", "noeviction") },
		},
		{
			"Full", "redis", doctor.Warning, "of its memory is used", "raise maxmemory",
			func() { i.config("maxmemory", "1mb") }, func() { i.config("maxmemory", "0") },
		},
		{
			"Forgets", "redis", doctor.Warning, "appendonly no", "CONFIG SET appendonly yes",
			func() { i.config("appendonly", "no") }, func() { i.config("appendonly", "yes") },
		},
		{
			"Replica", "redis", doctor.Problem, "it is a replica", "name the primary",
			func() { i.do("REPLICAOF", "127.0.0.1", "1") }, func() { i.do("REPLICAOF", "NO", "ONE") },
		},
		{
			"StrangeKey", "shared", doctor.Warning, "keys of other programs: 1 of ", "a Redis of its own",
			func() { i.do("SET", "session:ada@kelp.example", "1") }, func() { i.do("DEL", "session:ada@kelp.example") },
		},
		{
			"OtherDatabase", "shared", doctor.Warning, "other databases of it are used: 3", "a Redis of its own",
			func() { i.do("SET", "x", "1"); i.do("MOVE", "x", "3") }, func() { i.elsewhere("3") },
		},
		{
			"OtherQueue", "shared", doctor.Warning, "queues of other programs: mailer", "a Redis of its own",
			func() { i.do("SADD", "asynq:queues", "mailer") }, func() { i.do("SREM", "asynq:queues", "mailer") },
		},
		{
			"PausedQueue", "workers", doctor.Problem, "somebody paused the queue urgent", "redis-cli DEL 'asynq:{urgent}:paused'",
			func() { i.do("SADD", "asynq:queues", "urgent"); i.do("SET", "asynq:{urgent}:paused", "1") },
			func() { i.do("DEL", "asynq:{urgent}:paused") },
		},
		{
			"NoWorker", "workers", doctor.Problem, "no worker takes tasks", "start one with this REDIS_URL",
			func() { i.worker.Shutdown(10 * time.Second) }, i.serve,
		},
	} {
		c.broken()
		found, works := i.is.Examine(t.Context())
		ok := false
		for _, f := range found {
			ok = ok || f.Check == c.check && f.Level == c.level && strings.Contains(f.Text, c.text) &&
				strings.Contains(f.Do, c.do) && (f.Do == "") == (c.do == "")
			if strings.Contains(fmt.Sprint(f), "kelp.example") {
				t.Errorf("%s: another program's key is shown: %+v", c.name, f)
			}
		}
		if !ok || !works {
			t.Errorf("%s: not found: %+v", c.name, found)
		}
		i.is = well
		if c.mended != nil {
			c.mended()
		}
		mended()
	}
}

func (i *installation) elsewhere(database string) {
	i.t.Helper()
	r := i.redis(strings.TrimSuffix(i.server.URL, "0") + database)
	if err := r.Client().FlushDB(i.t.Context()).Err(); err != nil {
		i.t.Fatal(err)
	}
}

// TestNothingToStandOn guards that a Postgres which is away, and one without our schema, are told as such and not as a hundred things
// that follow from it.
func TestNothingToStandOn(t *testing.T) {
	t.Parallel()
	i := install(t)
	away := i.is
	away.Store = i.store("postgres://x:y@127.0.0.1:1/x?sslmode=disable")
	found, works := away.Examine(t.Context())
	if works || found[0].Check != "postgres" || found[0].Level != doctor.Problem || !strings.Contains(found[0].Text, "check DATABASE_URL") {
		t.Errorf("works %v: %+v", works, found)
	}
	if strings.Contains(fmt.Sprint(found), "x:y") {
		t.Errorf("a password is shown: %+v", found)
	}
	if last := found[len(found)-1]; last.Check != "workers" || last.Level != doctor.OK {
		t.Errorf("Redis is not looked at: %+v", found)
	}

	i.exec(`DROP SCHEMA contactsync CASCADE; DROP TABLE contactsync_migrations`)
	found, works = i.is.Examine(t.Context())
	var bad []doctor.Finding
	for _, f := range found {
		if f.Level != doctor.OK {
			bad = append(bad, f)
		}
	}
	if !works || len(bad) != 1 || bad[0].Check != "schema" || !strings.Contains(bad[0].Text, "no contactsync schema yet") {
		t.Errorf("works %v: %+v", works, bad)
	}
	if doctor.Worst(found) != doctor.Problem {
		t.Error(doctor.Worst(found))
	}
}

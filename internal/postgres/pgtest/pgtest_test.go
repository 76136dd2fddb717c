package pgtest

import (
	"context"
	"crypto/rand"
	"database/sql"
	"errors"
	"fmt"
	"os"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/lib/pq"
	"go.uber.org/goleak"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func open(t *testing.T, dsn string) *sql.DB {
	t.Helper()
	connector, err := pq.NewConnector(dsn)
	if err != nil {
		t.Fatal(err)
	}
	db := sql.OpenDB(connector)
	t.Cleanup(func() {
		if err := db.Close(); err != nil {
			t.Error(err)
		}
	})
	return db
}

func exec(t *testing.T, db *sql.DB, stmt string) {
	t.Helper()
	if _, err := db.ExecContext(t.Context(), stmt); err != nil {
		t.Fatalf("%s: %v", stmt, err)
	}
}

func random() string { return strings.ToLower(rand.Text()[:6]) }

func databases(t *testing.T, db *sql.DB, prefix string) []string {
	t.Helper()
	var names []string
	err := db.QueryRowContext(context.WithoutCancel(t.Context()), // cleanups ask too
		"SELECT coalesce(array_agg(datname::text), '{}') FROM pg_database WHERE datname ^@ $1", prefix).Scan(pq.Array(&names))
	if err != nil {
		t.Fatal(err)
	}
	return names
}

// fixture is a server as another set of migrations would see it, with a count of the templates it built.
func fixture(t *testing.T) (s *server, admin *sql.DB, built *atomic.Int64) {
	t.Helper()
	given := os.Getenv("DATABASE_URL")
	if given == "" {
		t.Fatal("DATABASE_URL is not set: run `make test`")
	}
	s, err := parse(given)
	if err != nil {
		t.Fatal(err)
	}
	built = new(atomic.Int64)
	s.prefix = "pgtest_self_" + random() + "_"
	s.hash = "feed"
	s.migrate = func(ctx context.Context, dsn string) error {
		built.Add(1)
		db := open(t, dsn)
		_, err := db.ExecContext(ctx, "CREATE TABLE made (i int)")
		return errors.Join(err, db.Close())
	}
	admin = open(t, given)
	t.Cleanup(func() {
		for _, name := range databases(t, admin, s.prefix) {
			ctx := context.WithoutCancel(t.Context())
			if _, err := admin.ExecContext(ctx, "DROP DATABASE "+name+" WITH (FORCE)"); err != nil {
				t.Error(err)
			}
		}
	})
	return s, admin, built
}

// clone is New with the server s.
func clone(t *testing.T, s *server) string {
	t.Helper()
	name := newName(s.tests())
	ctx := t.Context()
	if err := s.do(ctx, func(c *sql.Conn) error { return s.clone(ctx, c, name) }); err != nil {
		t.Error(err)
		return name
	}
	t.Cleanup(func() {
		ctx := context.WithoutCancel(t.Context())
		if err := s.do(ctx, func(c *sql.Conn) error { return drop(ctx, c, name, " WITH (FORCE)") }); err != nil {
			t.Error(err)
		}
	})
	return name
}

// A test's database has the schema, is nobody else's, and is gone after the test although a connection was left open.
func TestNew(t *testing.T) {
	t.Parallel()
	var name string
	t.Run("database", func(t *testing.T) {
		a, b := open(t, New(t)), open(t, New(t))
		var tables int
		err := a.QueryRowContext(t.Context(), "SELECT count(*) FROM pg_tables WHERE schemaname = 'contactsync'").Scan(&tables)
		if err != nil || tables == 0 {
			t.Errorf("%d tables of ours (%v)", tables, err)
		}
		exec(t, a, "CREATE TABLE mine (i int)")
		exec(t, b, "CREATE TABLE mine (i int)")
		if err := a.QueryRowContext(t.Context(), "SELECT current_database()").Scan(&name); err != nil {
			t.Fatal(err)
		}
	})
	admin := open(t, os.Getenv("DATABASE_URL"))
	if left := databases(t, admin, name); name == "" || len(left) != 0 {
		t.Errorf("%v is left after its test", left)
	}
}

// However many tests begin at once, the template is built once.
func TestTemplateIsBuiltOnce(t *testing.T) {
	t.Parallel()
	s, admin, built := fixture(t)
	var tests sync.WaitGroup
	for range 8 {
		tests.Go(func() { clone(t, s) })
	}
	tests.Wait()
	if n := built.Load(); n != 1 {
		t.Errorf("the template was built %d times", n)
	}
	if found := databases(t, admin, s.templates()); len(found) != 1 {
		t.Errorf("templates: %v, want one", found)
	}
	begin := time.Now()
	name := clone(t, s)
	t.Logf("a clone took %v", time.Since(begin))
	exec(t, open(t, s.dsn(name)), "INSERT INTO made VALUES (1)")
}

// Migrations that fail leave no template, half-made or whole, and the error says what failed.
func TestMigrationsFail(t *testing.T) {
	t.Parallel()
	s, admin, _ := fixture(t)
	broken := errors.New("migration 7 is broken")
	var building string
	s.migrate = func(ctx context.Context, dsn string) error {
		db := open(t, dsn)
		return errors.Join(broken, db.QueryRowContext(ctx, "SELECT current_database()").Scan(&building))
	}
	ctx := t.Context()
	err := s.do(ctx, func(c *sql.Conn) error { return s.clone(ctx, c, newName(s.tests())) })
	if !errors.Is(err, broken) {
		t.Errorf("the error is %v", err)
	}
	if left := append(databases(t, admin, building), databases(t, admin, s.templates())...); len(left) != 0 {
		t.Errorf("left: %v", left)
	}
}

// A template that another working copy dropped is built again.
func TestTemplateIsDroppedMeanwhile(t *testing.T) {
	t.Parallel()
	s, admin, built := fixture(t)
	clone(t, s)
	exec(t, admin, "DROP DATABASE "+databases(t, admin, s.templates())[0])
	clone(t, s)
	if n := built.Load(); n != 2 {
		t.Errorf("the template was built %d times, want 2", n)
	}
}

// What killed tests and older migrations left is dropped when it is old; what is young, in use, of these migrations or
// not ours stays.
func TestSweep(t *testing.T) {
	t.Parallel()
	s, admin, _ := fixture(t)
	old := time.Now().Add(-stale - time.Minute).Unix()
	names := map[string]bool{ // stays
		fmt.Sprintf("%s%d_killed", s.tests(), old):            false,
		fmt.Sprintf("%s%d_used", s.tests(), old):              true,
		fmt.Sprintf("%s%d_new", s.tests(), time.Now().Unix()): true,
		fmt.Sprintf("%stemplate_other_%d_a", s.prefix, old):   false,
		fmt.Sprintf("%s%d_a", s.templates(), old):             true,
		fmt.Sprintf("%s%d_a", s.buildings(), old):             false,
		fmt.Sprintf("%sof_a_person", s.prefix):                true,
		fmt.Sprintf("other_%s_test_%d_a", random(), old):      true,
	}
	for name := range names {
		exec(t, admin, "CREATE DATABASE "+name)
		t.Cleanup(func() {
			if _, err := admin.ExecContext(context.WithoutCancel(t.Context()),
				"DROP DATABASE IF EXISTS "+name+" WITH (FORCE)"); err != nil {
				t.Error(err)
			}
		})
	}
	user := open(t, s.dsn(fmt.Sprintf("%s%d_used", s.tests(), old)))
	exec(t, user, "SELECT")

	ctx := t.Context()
	if err := s.do(ctx, func(c *sql.Conn) error { return s.sweep(ctx, c) }); err != nil {
		t.Fatal(err)
	}
	for name, stays := range names {
		if left := databases(t, admin, name); (len(left) == 1) != stays {
			t.Errorf("%s: left %v, want it to stay: %t", name, left, stays)
		}
	}
}

// An unusable DATABASE_URL is refused without its password in the message.
func TestParse(t *testing.T) {
	t.Parallel()
	for _, dsn := range []string{"host=h password=hush", "mysql://u:hush@h/d", "postgres://u:hush@h:port/d", "://hush"} {
		if _, err := parse(dsn); err == nil || strings.Contains(err.Error(), "hush") {
			t.Errorf("parse: %v", err)
		}
	}
}

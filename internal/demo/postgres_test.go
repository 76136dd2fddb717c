//go:build surroundings

package demo

import (
	"database/sql"
	"fmt"
	"net/url"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/centime/contactsync/internal/erpsim"
	"github.com/centime/contactsync/internal/erpsim/qbo"
	"github.com/centime/contactsync/internal/postgres/pgtest"
)

// install does what docs/operations.md says: an owner, a login for the programs that is neither owner nor superuser, and the
// schema. It returns their URLs.
func install(t *testing.T, s *server) (owner, login *url.URL) {
	t.Helper()
	super := s.dsn("postgres")
	for _, statement := range []string{
		"CREATE ROLE contactsync_owner LOGIN CREATEROLE PASSWORD '" + serverPassword + "'",
		"CREATE ROLE contactsync_programs LOGIN PASSWORD '" + serverPassword + "'",
		"CREATE DATABASE contactsync OWNER contactsync_owner ENCODING 'UTF8' TEMPLATE template0",
	} {
		pgtest.Exec(t, super, statement)
	}
	as := func(name string) *url.URL {
		return &url.URL{
			Scheme: "postgres", User: url.UserPassword(name, serverPassword), Host: s.address(), Path: "/contactsync", RawQuery: "sslmode=disable",
		}
	}
	owner, login = as("contactsync_owner"), as("contactsync_programs")
	bin, err := programs()
	if err != nil {
		t.Fatal(err)
	}
	only := &system{t: t, bin: bin, env: []string{"MIGRATIONS_DATABASE_URL=" + owner.String(), "DATABASE_URL=" + login.String()}}
	only.ctl(nil, 0, "migrate")
	pgtest.Exec(t, super, "GRANT contactsync_sync, contactsync_app, contactsync_ops TO contactsync_programs")
	return owner, login
}

// TestPgBouncer: a pooler in transaction mode, whose few connections all programs share, stands before Postgres. A worker is
// killed in the middle of it, and the pooler started again. No statement is prepared on one connection and meant for another, and
// no role or tenant is left behind on one: the next who gets it would see no rows, or those of another.
func TestPgBouncer(t *testing.T) {
	t.Parallel()
	postgres := newPostgres(t, nil, "")
	owner, login := install(t, postgres)
	s := newSystemIn(t, postgres.dsn("contactsync"), 4500, qbo.Options{})
	bouncer := newServer(t, map[string]string{
		"pgbouncer.ini": fmt.Sprintf(`
[databases]
contactsync = host=127.0.0.1 port=%d dbname=contactsync
[pgbouncer]
listen_addr = 127.0.0.1
listen_port = PORT
unix_socket_dir =
auth_type = scram-sha-256
auth_file = DIR/users
pool_mode = transaction
default_pool_size = 3
max_client_conn = 500
`, postgres.port),
		"users": fmt.Sprintf("\"contactsync_programs\" %[1]q\n\"contactsync_owner\" %[1]q\n", serverPassword),
	}, "/usr/sbin/pgbouncer", "DIR/pgbouncer.ini")
	pooled := *login
	pooled.Host = bouncer.address()
	s.refuses("unsupported startup parameter: statement_timeout", "DATABASE_URL="+pooled.String()+"&statement_timeout=1000")
	s.with("DATABASE_URL="+pooled.String(), "MIGRATIONS_DATABASE_URL="+owner.String())
	s.ctl(nil, 0, "migrate") // direct, beside the pooler: there is nothing left to do

	var once sync.Once
	reached := make(chan struct{})
	s.sim.Before(func(r erpsim.Request) {
		if r.Op == qbo.Query && r.N == 3 && r.Company == realm {
			once.Do(func() { close(reached) })
		}
	})
	companies := []*qbo.Company{s.company}
	for i := range 6 {
		companies = append(companies, s.connect(fmt.Sprint(9130350000001000+i), 700+100*i))
	}
	s.ctl(nil, 0, "tenant", "add", "Harbor")
	s.connectAs("Harbor", realm, s.company)
	var said lines
	s.launch("scheduler", said.follow)
	s.launch("scheduler", said.follow)
	killed := s.launch("worker", said.follow)
	s.launch("worker", said.follow)
	<-reached
	_ = killed.Process.Kill()
	_ = killed.Wait()
	bouncer.kill()
	bouncer.start()
	s.becomes("8", `SELECT count(*) FROM contactsync.runs WHERE status = 'succeeded'`)
	for _, c := range companies[1:] {
		c.ExpireAccess()
		c.BulkLoad(50, 3)
	}
	s.company.ExpireAccess()
	s.ctl(nil, 0, "resync", "--all", "--wait")
	s.ctl(nil, 0, "resync", "--all", "--full", "--wait")
	s.ctl(nil, 0, "status")
	for _, c := range companies[1:] {
		s.equalTo(c)
	}
	s.equal()

	// Each open transaction keeps one of the pooler's three connections, so these are all of them.
	db, err := sql.Open("postgres", pooled.String())
	if err != nil {
		t.Fatal(err)
	}
	defer db.Close()
	for range 3 {
		tx, err := db.BeginTx(t.Context(), nil)
		if err != nil {
			t.Fatal(err)
		}
		defer func() { _ = tx.Rollback() }()
		var left string
		if err := tx.QueryRowContext(t.Context(), `SELECT concat_ws(' ', current_user, current_setting('contactsync.tenant_id', true),
			current_setting('search_path'), current_setting('statement_timeout'))`).Scan(&left); err != nil {
			t.Fatal(err)
		}
		if left != `contactsync_programs  "$user", public 0` {
			t.Errorf("a transaction left this behind for the next: %s", left)
		}
	}

	for _, trap := range []string{"prepared statement", "does not exist", "permission denied"} {
		if said.count(trap) != 0 {
			t.Errorf("a program met %q", trap)
		}
	}
}

// TestPostgresOverTLS: sslmode=verify-full with an authority of one's own. Whoever else signed is refused, and a server under
// another name than its certificate's, and one without TLS; each in a sentence that says what to do.
func TestPostgresOverTLS(t *testing.T) {
	t.Parallel()
	ours, theirs := newAuthority(t, "ours"), newAuthority(t, "theirs")
	postgres := newPostgres(t, ours.serves("127.0.0.1"), "ssl = on\n")
	plain := newPostgres(t, nil, "")
	_, login := install(t, postgres)
	s := newSystemIn(t, postgres.dsn("contactsync"), 300, qbo.Options{})
	as := func(change func(*url.URL), sslrootcert string) string {
		u := *login
		q := url.Values{"sslmode": {"verify-full"}}
		if sslrootcert != "" {
			q.Set("sslrootcert", sslrootcert)
		}
		u.RawQuery = q.Encode()
		if change != nil {
			change(&u)
		}
		return "DATABASE_URL=" + u.String()
	}
	for _, wrong := range []struct{ name, env, want string }{
		{"no authority", as(nil, ""), "add sslrootcert=FILE to DATABASE_URL"},
		{"another authority", as(nil, theirs.file()), "add sslrootcert=FILE to DATABASE_URL"},
		{"no such file", as(nil, "/nonexistent.pem"), "/nonexistent.pem"},
		{"another name", as(func(u *url.URL) { u.Host = strings.Replace(u.Host, "127.0.0.1", "localhost", 1) }, ours.file()),
			"that the server's certificate is for"},
		{"no TLS", as(func(u *url.URL) { u.Host = plain.address() }, ours.file()), "turn TLS on at the server"},
	} {
		t.Log(wrong.name)
		s.refuses(wrong.want, wrong.env)
		ops := *s
		ops.env = append(slices.Clone(s.env), wrong.env)
		if out := ops.ctl(nil, 1, "tenant", "list"); !strings.Contains(out, wrong.want) || strings.Contains(out, serverPassword) {
			t.Errorf("syncctl with %s: %s", wrong.name, out)
		}
	}

	s.with(as(nil, ours.file()))
	s.launch("scheduler")
	s.launch("worker")
	s.ctl(nil, 0, "run", "watch", "1")
	s.equal()
	s.with(as(nil, ""), "SSL_CERT_FILE="+ours.file()) // the machine's own authorities count where none is named
	s.ctl(nil, 0, "resync", "1", "--wait")
	if got := pgtest.Value(t, s.dsn, `SELECT bool_and(s.ssl)::text FROM pg_stat_ssl s JOIN pg_stat_activity a USING (pid)
		WHERE a.usename = 'contactsync_programs'`); got != "true" {
		t.Errorf("all of the programs' connections use TLS: %s", got)
	}
}

package pgtest

import (
	"bufio"
	"database/sql"
	"errors"
	"fmt"
	"net"
	"net/url"
	"os"
	osexec "os/exec"
	"strings"
	"syscall"
	"testing"
	"time"
)

func refused(t *testing.T, dsn string) bool {
	t.Helper()
	u, err := url.Parse(dsn)
	if err != nil {
		t.Fatal(err)
	}
	c, err := new(net.Dialer).DialContext(t.Context(), "tcp", u.Host)
	if err == nil {
		err = c.Close()
	}
	return errors.Is(err, syscall.ECONNREFUSED)
}

// A stop is a crash: what was committed is there after the next start, a transaction under way is not, and meanwhile
// nobody gets a connection.
func TestOwnStopAndStart(t *testing.T) {
	t.Parallel()
	p := Own(t)
	db := open(t, p.DSN)
	exec(t, db, "CREATE TABLE kept (i int)")
	for i := range 3 {
		exec(t, db, "INSERT INTO kept VALUES (1)")
		tx, err := db.BeginTx(t.Context(), nil)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := tx.ExecContext(t.Context(), "INSERT INTO kept VALUES (2)"); err != nil {
			t.Fatal(err)
		}
		p.Stop()
		if !refused(t, p.DSN) {
			t.Fatal("a stopped server accepts connections")
		}
		if err := tx.Commit(); err == nil {
			t.Error("a transaction outlived its server")
		}
		p.Start()
		if got, want := Value(t, p.DSN, "SELECT string_agg(i::text, '') FROM kept"), strings.Repeat("1", i+1); got != want {
			t.Errorf("%s is left, want %s", got, want)
		}
	}
	if n := Value(t, p.DSN, "SELECT count(*) FROM pg_tables WHERE schemaname = 'contactsync'"); n == "0" {
		t.Error("it is not migrated")
	}
	p.Stop() // and the end of the test does not mind
}

// No other user of the machine gets in, and the server says what it is.
func TestOwnSettings(t *testing.T) {
	t.Parallel()
	p := Own(t)
	for query, want := range map[string]string{
		"SELECT datcollate FROM pg_database WHERE datname = 'postgres'": "C.UTF-8",
		"SHOW server_encoding":    "UTF8",
		"SHOW listen_addresses":   "127.0.0.1",
		"SHOW synchronous_commit": "on",
	} {
		if got := Value(t, p.DSN, query); got != want {
			t.Errorf("%s: %s, want %s", query, got, want)
		}
	}
	u, err := url.Parse(p.DSN)
	if err != nil {
		t.Fatal(err)
	}
	u.User = url.UserPassword("postgres", "guessed")
	stranger := open(t, u.String())
	if err := stranger.PingContext(t.Context()); err == nil || !strings.Contains(err.Error(), "password") {
		t.Errorf("a stranger is answered: %v", err)
	}
}

// A test binary that is killed takes its server with it.
func TestOwnKilledTestBinary(t *testing.T) {
	t.Parallel()
	if os.Getenv("PGTEST_CHILD") != "" {
		_, _ = fmt.Println("DSN " + Own(t).DSN)
		select {} // until killed
	}

	child := osexec.CommandContext(t.Context(), os.Args[0], "-test.run=^TestOwnKilledTestBinary$")
	child.Env = append(os.Environ(), "PGTEST_CHILD=1")
	out, err := child.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := child.Start(); err != nil {
		t.Fatal(err)
	}
	dsn := ""
	for lines := bufio.NewScanner(out); dsn == "" && lines.Scan(); {
		dsn, _ = strings.CutPrefix(lines.Text(), "DSN ")
		if !strings.HasPrefix(dsn, "postgres://") {
			dsn = ""
		}
	}
	if dsn == "" {
		_ = child.Wait()
		t.Skip("no Postgres is installed here that a test could start")
	}
	db, err := sql.Open("postgres", dsn)
	if err != nil {
		t.Fatal(err)
	}
	defer db.Close()
	if err := db.PingContext(t.Context()); err != nil {
		t.Fatalf("the child's Postgres: %v", err)
	}
	folder := Value(t, dsn, "SHOW data_directory")
	t.Cleanup(func() { _ = os.RemoveAll(strings.TrimSuffix(folder, "/data")) }) // the next test but one hour would
	if err := child.Process.Kill(); err != nil {
		t.Fatal(err)
	}
	_ = child.Wait() // it was killed
	for begin := time.Now(); !refused(t, dsn); {
		if time.Since(begin) > 10*time.Second {
			t.Fatal("the server outlived the test binary")
		}
	}
}

package cli_test

import (
	"bytes"
	"encoding/json"
	"net/url"
	"strings"
	"testing"
	"unicode/utf8"

	"github.com/centime/contactsync/internal/cli"
	"github.com/centime/contactsync/internal/credentials"
	"github.com/centime/contactsync/internal/postgres/pgtest"
)

// TestDoctor guards what ops and programs read from `syncctl doctor`: a line for each finding with what to do whole below it, one JSON
// document, and an exit status that says whether something is to be done, and whether anything could be asked at all. What is not
// given is not checked, which alone is no reason to do something.
func TestDoctor(t *testing.T) {
	t.Parallel()
	owner := pgtest.New(t)
	const login = "cli_doctor"
	pgtest.Exec(t, owner, `DROP ROLE IF EXISTS `+login)
	pgtest.Exec(t, owner, `CREATE ROLE `+login+` LOGIN PASSWORD 'x' IN ROLE contactsync_sync, contactsync_app, contactsync_ops`)
	u, err := url.Parse(owner)
	if err != nil {
		t.Fatal(err)
	}
	u.User = url.UserPassword(login, "x")
	doctor := func(dsn string, args ...string) (string, int) {
		t.Helper()
		var out, errs bytes.Buffer
		exit := cli.Run(t.Context(), cli.Setup{
			DatabaseURL: func() (string, error) { return dsn, nil }, RingIfSet: func() (*credentials.Ring, error) { return nil, nil },
			Allowances:    func() (map[string]int64, error) { return nil, nil },
			RedisURLIfSet: func() (string, error) { return "", nil },
			Stdout:        &out, Stderr: &errs, LoginName: "tester", TerminalColumns: 100,
		}, append([]string{"doctor"}, args...))
		if errs.Len() > 0 {
			t.Fatalf("doctor %v: %s", args, &errs)
		}
		return out.String(), exit
	}

	out, exit := doctor(u.String())
	if exit != 0 || strings.Contains(out, "→") || !strings.Contains(out, "\nunchecked  redis ") || !strings.Contains(out, "\nok         login ") {
		t.Errorf("all is well: exit status %d\n%s", exit, out)
	}

	out, exit = doctor(owner)
	if exit != 3 || !strings.Contains(out, "\nproblem    login ") || !strings.Contains(out, "→ name another login in DATABASE_URL: CREATE ROLE") {
		t.Errorf("as a superuser: exit status %d\n%s", exit, out)
	}
	for line := range strings.Lines(out) {
		if n := utf8.RuneCountInString(strings.TrimRight(line, "\n")); n > 100 && !strings.Contains(line, "→") {
			t.Errorf("a line of %d columns: %s", n, line)
		}
	}

	var document struct {
		Findings []map[string]string
	}
	out, exit = doctor("postgres://x:secret@127.0.0.1:1/x?sslmode=disable", "--json")
	if err := json.Unmarshal([]byte(out), &document); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	first := document.Findings[0]
	if exit != 1 || first["check"] != "postgres" || first["level"] != "problem" || first["text"] == "" || first["do"] == "" ||
		strings.Contains(out, "secret") {
		t.Errorf("without a Postgres: exit status %d: %s", exit, out)
	}
}

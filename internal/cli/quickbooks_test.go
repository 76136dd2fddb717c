package cli_test

import (
	"bytes"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/centime/contactsync/connectors/quickbooks"
	"github.com/centime/contactsync/internal/cli"
	"github.com/centime/contactsync/internal/connector"
	"github.com/centime/contactsync/internal/credentials"
	"github.com/centime/contactsync/internal/erpsim"
	"github.com/centime/contactsync/internal/erpsim/qbo"
	"github.com/centime/contactsync/internal/postgres/pgtest"
)

// TestLoginThatWorksIsKept: credentials that the ERP does not take for a company, such as those of another one, never take the place of a login
// that works, also where the try has renewed their token. Once there is none that works, a renewed token is kept. What people set of a
// connection is told when it is added again.
func TestLoginThatWorksIsKept(t *testing.T) {
	t.Parallel()
	dsn := pgtest.New(t)
	ring, err := credentials.ParseRing(credentials.NewKey())
	if err != nil {
		t.Fatal(err)
	}
	far := qbo.New(qbo.Options{RotateAfter: -1})
	server := httptest.NewServer(far)
	t.Cleanup(server.Close)
	kelp, other := far.AddCompany("9130357", "Kelp"), far.AddCompany("9130358", "Other")
	run := func(args ...string) (string, int) {
		t.Helper()
		var out, errs bytes.Buffer
		exit := cli.Run(t.Context(), cli.Setup{
			DatabaseURL: func() (string, error) { return dsn, nil }, Ring: func() (*credentials.Ring, error) { return ring, nil },
			Connectors: func() (map[string]connector.Connector, error) {
				return map[string]connector.Connector{quickbooks.OnlineName: quickbooks.Online(quickbooks.App{ClientID: "client", ClientSecret: "secret"})}, nil
			},
			Stdout: &out, Stderr: &errs, LoginName: "tester", TerminalColumns: 100,
		}, args)
		return out.String() + errs.String(), exit
	}
	file := func(of *qbo.Company) string {
		t.Helper()
		name := filepath.Join(t.TempDir(), "login.json")
		if err := os.WriteFile(name, []byte(`{"refresh_token":"`+of.Connect().RefreshToken+`"}`), 0o600); err != nil {
			t.Fatal(err)
		}
		return name
	}
	add := func(login string, more ...string) (string, int) {
		t.Helper()
		return run(append([]string{"connection", "add", "--tenant", "Kelp", "--erp", quickbooks.OnlineName, "--account", kelp.Realm, "--credentials", login,
			"--set", "api_url=" + server.URL, "--set", "token_url=" + server.URL + "/oauth2/v1/tokens/bearer"}, more...)...)
	}
	stored := func() string {
		return pgtest.Value(t, dsn, `SELECT state || ' ' || schedule || ' ' || encode(box, 'hex') FROM contactsync.connections n
			JOIN contactsync.credentials c ON c.connection_id = n.id`)
	}
	want := func(out string, exit, status int, says string) {
		t.Helper()
		if exit != status || !strings.Contains(out, says) {
			t.Errorf("exit status %d, want %d with %q\n%s", exit, status, says, out)
		}
	}
	if out, exit := run("tenant", "add", "Kelp"); exit != 0 {
		t.Fatal(out)
	}
	misspelt := file(kelp)
	out, exit := add(misspelt, "--schedule", "@hourli")
	want(out, exit, 2, "hourli")
	if n := kelp.Tokens().Refreshes; n != 0 {
		t.Errorf("a token was renewed %d times before the schedule was looked at", n)
	}
	if out, exit := add(misspelt); exit != 0 {
		t.Fatal(out)
	}

	works := stored()
	out, exit = add(file(other), "--schedule", "@every 3h")
	want(out, exit, 1, "nothing was changed: the connection keeps the login it has")
	out, exit = run("connection", "credentials", "1", file(other))
	want(out, exit, 1, "nothing was changed: the connection keeps the login it has")
	if stored() != works {
		t.Error("the login of another company took the place of one that works")
	}
	out, exit = run("connection", "check", "1")
	want(out, exit, 0, "Kelp")

	// The company cannot be reached while its new login is tried.
	far.Fail(erpsim.Rule{}, qbo.Fault{Kind: qbo.HTML503})
	out, exit = run("connection", "credentials", "1", file(kelp))
	want(out, exit, 1, "nothing was changed")
	far.ClearFaults("")
	out, exit = run("connection", "check", "1")
	want(out, exit, 0, "Kelp")

	pgtest.Exec(t, dsn, `UPDATE contactsync.connections SET state = 'needs_attention'`)
	works = stored()
	out, exit = run("connection", "credentials", "1", file(other))
	want(out, exit, 1, "the credentials are stored, since their token was renewed and must not be lost")
	if stored() == works {
		t.Error("a token was renewed and is lost, though there is no login that works")
	}
	out, exit = run("connection", "credentials", "1", file(kelp))
	want(out, exit, 0, "the credentials open Kelp")
	if got := pgtest.Value(t, dsn, `SELECT state FROM contactsync.connections`); got != "active" {
		t.Errorf("by new credentials the connection is %s", got)
	}

	if out, exit := run("connection", "set", "1", "brake_percent=1", "auto_sync=false"); exit != 0 {
		t.Fatal(out)
	}
	if out, exit := run("connection", "remove", "1", "--reason", "moved", "--yes"); exit != 0 {
		t.Fatal(out)
	}
	out, exit = add(file(kelp), "--schedule", "@every 2h")
	want(out, exit, 0, "known from before")
	got := pgtest.Value(t, dsn, `SELECT string_agg(field || ' ' || coalesce(was, '-') || ' ' || coalesce(became, '-'), ', ' ORDER BY field) FROM contactsync.history
		WHERE entity = 'connection' AND at = (SELECT max(at) FROM contactsync.history)`)
	if want := "auto_sync false true, brake_percent 1 -, schedule @every 1h @every 2h, state removed active"; got != want {
		t.Errorf("added again, the history says %q, want %q", got, want)
	}
	if got := pgtest.Value(t, dsn, `SELECT next_due_at IS NOT NULL FROM contactsync.connections`); got != "true" {
		t.Error("added again, it is never due")
	}
}

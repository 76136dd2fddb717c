package cli_test

import (
	"bytes"
	"encoding/hex"
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

// desk is where an operator gives logins of two simulated companies.
type desk struct {
	t           *testing.T
	dsn, url    string
	ring        *credentials.Ring
	far         *qbo.Sim
	kelp, other *qbo.Company
}

func newDesk(t *testing.T, o qbo.Options) *desk {
	t.Helper()
	ring, err := credentials.ParseRing(credentials.NewKey())
	if err != nil {
		t.Fatal(err)
	}
	far := qbo.New(o)
	server := httptest.NewServer(far)
	t.Cleanup(server.Close)
	d := &desk{
		t: t, dsn: pgtest.New(t), url: server.URL, ring: ring, far: far, kelp: far.AddCompany("9130357", "Kelp"), other: far.AddCompany("9130358", "Other"),
	}
	if out, exit := d.run("tenant", "add", "Kelp"); exit != 0 {
		t.Fatal(out)
	}
	return d
}

func (d *desk) run(args ...string) (string, int) {
	d.t.Helper()
	var out, errs bytes.Buffer
	exit := cli.Run(d.t.Context(), cli.Setup{
		DatabaseURL: func() (string, error) { return d.dsn, nil }, Ring: func() (*credentials.Ring, error) { return d.ring, nil },
		Connectors: func() (map[string]connector.Connector, error) {
			return map[string]connector.Connector{quickbooks.OnlineName: quickbooks.Online(quickbooks.App{ClientID: "client", ClientSecret: "secret"})}, nil
		},
		Stdout: &out, Stderr: &errs, LoginName: "tester", TerminalColumns: 100,
	}, args)
	return out.String() + errs.String(), exit
}

// file is a new login of a company.
func (d *desk) file(of *qbo.Company) string {
	d.t.Helper()
	return d.write(of.Connect().RefreshToken)
}

func (d *desk) write(refreshToken string) string {
	d.t.Helper()
	name := filepath.Join(d.t.TempDir(), "login.json")
	if err := os.WriteFile(name, []byte(`{"refresh_token":"`+refreshToken+`"}`), 0o600); err != nil {
		d.t.Fatal(err)
	}
	return name
}

func (d *desk) add(login, realm string, more ...string) (string, int) {
	d.t.Helper()
	return d.run(append([]string{"connection", "add", "--tenant", "Kelp", "--erp", quickbooks.OnlineName, "--account", realm, "--credentials", login,
		"--set", "api_url=" + d.url, "--set", "token_url=" + d.url + "/oauth2/v1/tokens/bearer"}, more...)...)
}

func (d *desk) want(out string, exit, status int, says string) {
	d.t.Helper()
	if exit != status || !strings.Contains(out, says) {
		d.t.Errorf("exit status %d, want %d with %q\n%s", exit, status, says, out)
	}
}

// TestWrongRealmTakesNoToken: a refresh shortly after the grant gives the same token again. A connection that does not answer, such as one of
// a mistyped realm, then keeps none of it: of two holders of one token the first that is given another ends the other's login.
func TestWrongRealmTakesNoToken(t *testing.T) {
	t.Parallel()
	d := newDesk(t, qbo.Options{})
	login := d.file(d.kelp)
	out, exit := d.add(login, d.other.Realm)
	d.want(out, exit, 1, "nothing was added")
	if n := pgtest.Value(t, d.dsn, `SELECT count(*) FROM contactsync.connections`); n != "0" {
		t.Errorf("%s connections hold the token", n)
	}
	out, exit = d.add(login, d.kelp.Realm)
	d.want(out, exit, 0, "Connection")

	// A second try of the same file is told to be one, not to need another grant.
	again := d.file(d.kelp)
	d.far.Fail(erpsim.Rule{Op: qbo.CompanyInfo}, qbo.Fault{Kind: qbo.HTML503})
	out, exit = d.run("connection", "credentials", "1", again)
	d.want(out, exit, 1, "nothing was changed")
	if strings.Contains(out, "of no more use") {
		t.Errorf("a login that still works is told to be spent:\n%s", out)
	}
	d.far.ClearFaults("")
	out, exit = d.run("connection", "credentials", "1", again)
	d.want(out, exit, 0, "Kelp")
}

// TestLoginThatWorksIsKept: credentials that the ERP does not take for a company, such as those of another one, never take the place of a login
// that works, also where the try has renewed their token. Once there is none that works, a renewed token is kept. What people set of a
// connection is told when it is added again.
func TestLoginThatWorksIsKept(t *testing.T) {
	t.Parallel()
	d := newDesk(t, qbo.Options{RotateAfter: -1})
	dsn, far, kelp, other, run, file, want := d.dsn, d.far, d.kelp, d.other, d.run, d.file, d.want
	add := func(login string, more ...string) (string, int) {
		t.Helper()
		return d.add(login, kelp.Realm, more...)
	}
	stored := func() string {
		return pgtest.Value(t, dsn, `SELECT state || ' ' || schedule || ' ' || encode(box, 'hex') FROM contactsync.connections n
			JOIN contactsync.credentials c ON c.connection_id = n.id`)
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

// TestStoredLoginGivenAgainIsNotLost: who gives the login that is stored already has it checked through the vault, so that what QuickBooks
// renews by it is kept, also where the company does not answer then.
func TestStoredLoginGivenAgainIsNotLost(t *testing.T) {
	t.Parallel()
	d := newDesk(t, qbo.Options{RotateAfter: -1})
	const keepsIt = "This is the login that is stored already"
	stored := func() connector.Credentials {
		t.Helper()
		box, err := hex.DecodeString(pgtest.Value(t, d.dsn, `SELECT encode(box, 'hex') FROM contactsync.credentials`))
		if err != nil {
			t.Fatal(err)
		}
		c, err := d.ring.Unpack(credentials.Stored{KeyID: d.ring.Primary(), Box: box}, credentials.Place{Table: "credentials", Tenant: 1, Connection: 1})
		if err != nil {
			t.Fatal(err)
		}
		return c
	}
	again := func() string {
		t.Helper()
		d.kelp.ExpireAccess() // so that the check renews, and the stored token is another one after it
		return d.write(stored().RefreshToken)
	}
	add := func(login string, more ...string) (string, int) {
		t.Helper()
		return d.add(login, d.kelp.Realm, more...)
	}
	works := func(what, was string) {
		t.Helper()
		if stored().RefreshToken == was {
			t.Errorf("%s: the token was not renewed, so this proves nothing", what)
		}
		if n := d.kelp.Tokens().Spent; n != 0 {
			t.Errorf("%s: a spent token was sent %d times", what, n)
		}
		d.kelp.ExpireAccess()
		out, exit := d.run("connection", "check", "1")
		d.want(out, exit, 0, "Kelp")
	}
	if out, exit := add(d.file(d.kelp)); exit != 0 {
		t.Fatal(out)
	}

	was := stored().RefreshToken
	out, exit := d.run("connection", "credentials", "1", again())
	d.want(out, exit, 0, keepsIt)
	d.want(out, exit, 0, "The credentials open Kelp")
	works("credentials", was)

	// 401 first, so that the token is renewed, and then no answer.
	unreachable := func() {
		t.Helper()
		d.far.Fail(erpsim.Rule{Op: qbo.CompanyInfo, Skip: 1, Times: erpsim.Forever}, qbo.Fault{Kind: qbo.HTML503})
	}
	was = stored().RefreshToken
	file := again()
	unreachable()
	out, exit = d.run("connection", "credentials", "1", file)
	d.want(out, exit, 1, keepsIt)
	d.far.ClearFaults("")
	works("credentials of a company that does not answer", was)

	was = stored().RefreshToken
	file = again()
	unreachable()
	out, exit = add(file, "--schedule", "@every 3h")
	d.want(out, exit, 1, "nothing was changed. This is the login that connection 1 has already")
	d.far.ClearFaults("")
	works("add of a company that does not answer", was)
	if got := pgtest.Value(t, d.dsn, `SELECT schedule FROM contactsync.connections`); got != "@every 1h" {
		t.Errorf("not added, the schedule is %s", got)
	}

	was = stored().RefreshToken
	out, exit = add(again(), "--schedule", "@every 2h", "--set", "brake_percent=7")
	d.want(out, exit, 0, keepsIt)
	works("add", was)
	if got := pgtest.Value(t, d.dsn, `SELECT schedule || ' ' || (settings->>'brake_percent') FROM contactsync.connections`); got != "@every 2h 7" {
		t.Errorf("added again, schedule and brake are %s", got)
	}

	// One that needs attention is not left without a word of what ends that.
	pgtest.Exec(t, d.dsn, `UPDATE contactsync.connections SET state = 'needs_attention'`)
	out, exit = d.run("connection", "credentials", "1", again())
	d.want(out, exit, 0, "syncctl connection resume 1")

	// With a removed connection its login went: the file is as good as any.
	file = again()
	if out, exit := d.run("connection", "remove", "1", "--reason", "moved", "--yes"); exit != 0 {
		t.Fatal(out)
	}
	out, exit = add(file)
	d.want(out, exit, 0, "known from before")
}

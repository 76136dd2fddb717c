package cli_test

import (
	"bytes"
	"encoding/json"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/centime/contactsync/connectors/netsuite"
	"github.com/centime/contactsync/internal/cli"
	"github.com/centime/contactsync/internal/connector"
	"github.com/centime/contactsync/internal/credentials"
	"github.com/centime/contactsync/internal/erpsim"
	sim "github.com/centime/contactsync/internal/erpsim/netsuite"
	"github.com/centime/contactsync/internal/postgres/pgtest"
)

// TestNetSuiteConnection guards what ops read when they connect a NetSuite company: a wrong account id, a wrong certificate id, a
// missing permission each say what they are, nothing half is added, and `check` and `show` tell what the role may read.
func TestNetSuiteConnection(t *testing.T) {
	t.Parallel()
	dsn := pgtest.New(t)
	ring, err := credentials.ParseRing(credentials.NewKey())
	if err != nil {
		t.Fatal(err)
	}
	far := sim.New(sim.Options{})
	server := httptest.NewServer(far)
	t.Cleanup(server.Close)
	account := far.AddAccount("1234567_SB1", "Kelp")
	far.AddAccount("7654321", "Other")
	run := func(args ...string) (string, int) {
		t.Helper()
		var out, errs bytes.Buffer
		exit := cli.Run(t.Context(), cli.Setup{
			DatabaseURL: func() (string, error) { return dsn, nil }, Ring: func() (*credentials.Ring, error) { return ring, nil },
			Connectors: func() (map[string]connector.Connector, error) {
				return map[string]connector.Connector{netsuite.Name: netsuite.New()}, nil
			},
			Stdout: &out, Stderr: &errs, LoginName: "tester", TerminalColumns: 100,
		}, args)
		return out.String() + errs.String(), exit
	}
	file := func(change func(map[string]string)) string {
		t.Helper()
		text, err := json.Marshal(account.Connect())
		if err != nil {
			t.Fatal(err)
		}
		var c map[string]string
		if err := json.Unmarshal(text, &c); err != nil {
			t.Fatal(err)
		}
		if change != nil {
			change(c)
		}
		if text, err = json.Marshal(c); err != nil {
			t.Fatal(err)
		}
		name := filepath.Join(t.TempDir(), "kelp.json")
		if err := os.WriteFile(name, text, 0o600); err != nil {
			t.Fatal(err)
		}
		return name
	}
	add := func(id, file string) (string, int) {
		t.Helper()
		host := sim.HostLabel(id)
		return run("connection", "add", "--tenant", "Kelp", "--erp", "netsuite", "--account", id, "--credentials", file,
			"--set", "api_url="+server.URL+"/"+host)
	}
	if out, exit := run("tenant", "add", "Kelp"); exit != 0 {
		t.Fatal(out)
	}
	for name, c := range map[string]struct {
		account string
		change  func(map[string]string)
		deny    string
		exit    int
		says    string
	}{
		"WrongForm":     {account: "1234567-sb1", exit: 2, says: "account id is capital letters and digits"},
		"WrongAccount":  {account: "1111111", exit: 1, says: "Check the account id"},
		"OtherAccount":  {account: "7654321", exit: 1, says: "client_id is not that of an enabled integration record of this account"},
		"CertificateID": {account: "1234567_SB1", change: func(c map[string]string) { c["certificate_id"] = "x" }, exit: 1, says: "certificate_id is wrong"},
		"TokenBased":    {account: "1234567_SB1", change: func(c map[string]string) { c["token_id"] = "x" }, exit: 2, says: "OAuth 2.0 Client Credentials (M2M) Setup"},
		"Permission":    {account: "1234567_SB1", deny: "contact", exit: 1, says: "permission Contacts (tab Lists, level View)"},
		"Rest":          {account: "1234567_SB1", deny: "rest", exit: 1, says: "REST Web Services (tab Setup, level Full)"},
	} {
		if c.deny != "" {
			account.Deny(c.deny)
		}
		out, exit := add(c.account, file(c.change))
		if exit != c.exit || !strings.Contains(out, c.says) || strings.Contains(out, "PRIVATE KEY") {
			t.Errorf("%s: exit status %d, want %d with %q\n%s", name, exit, c.exit, c.says, out)
		}
		if n := pgtest.Value(t, dsn, `SELECT count(*) FROM contactsync.connections`); n != "0" {
			t.Fatalf("%s: a connection was added", name)
		}
		if c.deny != "" {
			account.Allow(c.deny)
		}
	}

	if out, exit := add("1234567_SB1", file(nil)); exit != 0 || !strings.Contains(out, "NetSuite account 1234567_SB1") {
		t.Fatalf("exit status %d\n%s", exit, out)
	}
	if got := pgtest.Value(t, dsn, `SELECT (ends_at > now() + interval '700 days') || ' ' || notice_days FROM contactsync.credentials`); got != "true 60" {
		t.Errorf("the certificate's end is stored as %q", got)
	}
	out, exit := run("connection", "check", "1")
	if exit != 0 || !strings.Contains(out, "It may read customers, contacts, the contacts' places at customers, deleted records.") {
		t.Errorf("exit status %d\n%s", exit, out)
	}
	account.Deny("deletedrecord", "customer.fax")
	out, exit = run("connection", "check", "1")
	for _, want := range []string{"Deleted Records (tab Setup, level View)", "may not read the field customer.fax"} {
		if exit != 0 || !strings.Contains(out, want) {
			t.Errorf("exit status %d without %q\n%s", exit, want, out)
		}
	}
	account.Deny("contact")
	if out, exit := run("connection", "check", "1"); exit != 3 || !strings.Contains(out, "nothing can be synced without") {
		t.Errorf("exit status %d\n%s", exit, out)
	}
	pgtest.Value(t, dsn, `UPDATE contactsync.connections SET rights = '{"v":1,"lacks":["customer.fax"]}' RETURNING id`)
	if out, _ := run("connection", "show", "1"); !strings.Contains(out, "When everything was last listed:") || !strings.Contains(out, "customer.fax") {
		t.Errorf("shown is\n%s", out)
	}
	var document struct {
		Rights []struct{ Name string }
	}
	if out, _ := run("connection", "show", "1", "--json"); json.Unmarshal([]byte(out), &document) != nil || len(document.Rights) != 5 {
		t.Errorf("shown is\n%s", out)
	}

	// A refused login is remembered: asked again, nobody logs in. Where NetSuite gives a token and does not take it, that is two.
	account.Allow("contact")
	far.Fail(erpsim.Rule{Op: sim.ServerTime, Times: erpsim.Forever}, sim.Fault{Kind: sim.InvalidLogin})
	far.Log().Reset()
	for range 3 {
		if out, exit := run("connection", "check", "1"); exit != 1 || !strings.Contains(out, "INVALID_LOGIN") {
			t.Errorf("exit status %d\n%s", exit, out)
		}
	}
	if n := far.Log().Count("", sim.ServerTime); n != 2 {
		t.Errorf("%d refused requests of three checks", n)
	}
	if out, exit := run("connection", "resume", "1"); exit != 0 {
		t.Fatal(out)
	}
	// A login that takes its place meanwhile is not the one that was refused.
	far.Log().Reset()
	far.Before(func(r erpsim.Request) {
		if r.Op == sim.ServerTime && r.N == 2 {
			pgtest.Exec(t, dsn, `UPDATE contactsync.credentials SET version = version + 1`)
		}
	})
	if out, exit := run("connection", "check", "1"); exit != 1 || !strings.Contains(out, "INVALID_LOGIN") {
		t.Errorf("exit status %d\n%s", exit, out)
	}
	far.Before(nil)
	far.ClearFaults("")
	if out, exit := run("connection", "check", "1"); exit != 0 {
		t.Errorf("after resume: exit status %d\n%s", exit, out)
	}
	account.Revoke()
	before := account.Logins().Failed
	for range 3 {
		if out, exit := run("connection", "check", "1"); exit != 1 || !strings.Contains(out, "invalid_grant") {
			t.Errorf("exit status %d\n%s", exit, out)
		}
	}
	if n := account.Logins().Failed - before; n != 1 {
		t.Errorf("%d failed logins of three checks", n)
	}
}

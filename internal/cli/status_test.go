package cli_test

import (
	"bytes"
	"encoding/json"
	"fmt"
	"strings"
	"testing"
	"unicode/utf8"

	"github.com/centime/contactsync/internal/cli"
	"github.com/centime/contactsync/internal/credentials"
	"github.com/centime/contactsync/internal/postgres"
	"github.com/centime/contactsync/internal/postgres/pgtest"
)

// TestStatus guards what ops and programs read from `syncctl status`: exit status 3 only if a person must act, every text whole,
// commands in a column of their own, and one JSON document with ids as strings.
func TestStatus(t *testing.T) {
	t.Parallel()
	dsn := pgtest.New(t)
	store, err := postgres.Open(dsn, 2)
	if err != nil {
		t.Fatal(err)
	}
	defer store.Close()
	status := func(args ...string) (string, int) {
		t.Helper()
		var out, errs bytes.Buffer
		exit := cli.Run(t.Context(), cli.Setup{
			DatabaseURL: func() (string, error) { return dsn, nil }, Allowances: func() (map[string]int64, error) { return nil, nil },
			Stdout: &out, Stderr: &errs, LoginName: "tester", TerminalColumns: 100,
		}, append([]string{"status"}, args...))
		if errs.Len() > 0 {
			t.Fatalf("status %v: %s", args, &errs)
		}
		return out.String(), exit
	}

	tenant, err := store.AddTenant(t.Context(), "Kelp", "UTC", postgres.By{User: "ops"})
	if err != nil {
		t.Fatal(err)
	}
	added, err := store.AddConnection(t.Context(), postgres.NewConnection{
		Tenant: tenant, ERP: "memory", Account: "a", Name: "Kelp\x1b[2J books", Schedule: "@every 1h", Paused: true,
		Seal: func(int64) (credentials.Stored, error) { return credentials.Stored{KeyID: "k", Box: []byte("x")}, nil },
	}, postgres.By{User: "tester"})
	if err != nil {
		t.Fatal(err)
	}
	out, exit := status()
	if exit != 0 || !strings.Contains(out, "All is well") || !strings.Contains(out, "1 paused") || strings.Contains(out, "syncctl") {
		t.Errorf("with nothing to do: exit status %d\n%s", exit, out)
	}

	reason := strings.Repeat("the login was refused and ", 10) + "at last revoked"
	pgtest.Value(t, dsn, `UPDATE contactsync.connections SET state = 'needs_attention', state_reason = $1 RETURNING id`, reason)
	out, exit = status()
	command := fmt.Sprintf("syncctl connection credentials %d FILE", added.Connection)
	if exit != 3 || strings.Contains(out, "All is well") || strings.Count(out, command) != 1 {
		t.Errorf("with something to do: exit status %d\n%s", exit, out)
	}
	if flat := strings.Join(strings.Fields(strings.Replace(out, command, "", 1)), " "); !strings.Contains(flat, reason) {
		t.Errorf("the reason is cut:\n%s", out)
	}
	for line := range strings.Lines(out) {
		if n := utf8.RuneCountInString(strings.TrimSpace(line)); n > 100 {
			t.Errorf("a line of %d columns: %s", n, line)
		}
	}
	if strings.Contains(out, "\x1b") {
		t.Errorf("a name moves the reader's cursor: %q", out)
	}

	var document struct {
		Summary struct {
			Tenants     int
			Connections map[string]int
		}
		Items []map[string]any
	}
	out, exit = status("--json")
	if err := json.Unmarshal([]byte(out), &document); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	if exit != 3 || document.Summary.Tenants != 1 || document.Summary.Connections["needs_attention"] != 1 || len(document.Items) != 1 {
		t.Fatalf("exit status %d: %s", exit, out)
	}
	item := document.Items[0]
	for key, want := range map[string]any{
		"severity": "warning", "kind": "needs_attention", "tenant_id": fmt.Sprint(tenant), "connection_id": fmt.Sprint(added.Connection),
		"command": command,
	} {
		if item[key] != want {
			t.Errorf("%s is %v, want %v", key, item[key], want)
		}
	}
}

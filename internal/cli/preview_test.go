package cli_test

import (
	"bytes"
	"encoding/json"
	"fmt"
	"log/slog"
	"strings"
	"testing"
	"time"

	"github.com/centime/contactsync/internal/cli"
	"github.com/centime/contactsync/internal/connector"
	"github.com/centime/contactsync/internal/connector/memory"
	"github.com/centime/contactsync/internal/credentials"
	"github.com/centime/contactsync/internal/postgres"
	"github.com/centime/contactsync/internal/postgres/pgtest"
	"github.com/centime/contactsync/internal/syncing"
)

// TestPreviewReport guards what ops read of a preview: that nothing would change, or counts first, then who is affected and how;
// exit status 3 if something would be held; one whole JSON document; and that nothing of it is taken for a run that changed
// something.
func TestPreviewReport(t *testing.T) {
	t.Parallel()
	dsn := pgtest.New(t)
	store, err := postgres.Open(dsn, 6)
	if err != nil {
		t.Fatal(err)
	}
	defer store.Close()
	ring, err := credentials.ParseRing(credentials.NewKey())
	if err != nil {
		t.Fatal(err)
	}
	erp := memory.New("acct-1", memory.QuickBooks)
	worker := &syncing.Worker{
		Store: store, Connectors: map[string]connector.Connector{"memory": memory.NewConnector("memory", erp)}, Ring: ring,
		Log: slog.New(slog.NewTextHandler(t.Output(), nil)), Lease: time.Minute, Step: time.Minute, Draining: make(chan struct{}),
	}
	tenant, err := store.AddTenant(t.Context(), "Kelp", "UTC", postgres.By{User: "ops"})
	if err != nil {
		t.Fatal(err)
	}
	_, err = store.AddConnection(t.Context(), postgres.NewConnection{
		Tenant: tenant, ERP: "memory", Account: "acct-1", Name: "Kelp books", Schedule: "@every 1h",
		Seal: func(id int64) (credentials.Stored, error) {
			return ring.Pack(erp.Credentials(), credentials.Place{Table: "credentials", Tenant: tenant, Connection: id})
		},
	}, postgres.By{User: "tester"})
	if err != nil {
		t.Fatal(err)
	}
	work := func() {
		t.Helper()
		for {
			out, err := store.HandOutNew(t.Context(), 10)
			if err != nil {
				t.Fatal(err)
			}
			if len(out) == 0 {
				return
			}
			for _, h := range out {
				worker.Work(t.Context(), h.Run, h.Delivery)
			}
		}
	}
	ctl := func(exit int, args ...string) string {
		t.Helper()
		var out, errs bytes.Buffer
		got := cli.Run(t.Context(), cli.Setup{
			DatabaseURL: func() (string, error) { return dsn, nil }, Stdout: &out, Stderr: &errs, LoginName: "tester", TerminalColumns: 100,
		}, args)
		if got != exit {
			t.Fatalf("syncctl %v: exit status %d, want %d\n%s%s", args, got, exit, &out, &errs)
		}
		return out.String()
	}
	preview := func(exit int) (run, text string) {
		t.Helper()
		text = ctl(0, "resync", "Kelp books", "--preview", "--full")
		if _, err := fmt.Sscanf(text, "Run %s of", &run); err != nil {
			t.Fatalf("%v: %s", err, text)
		}
		work()
		return run, ctl(exit, "run", "show", run)
	}
	var ids []string
	for i := range 40 {
		ids = append(ids, erp.AddCustomer(connector.Customer{Name: fmt.Sprintf("Customer %02d\x1b[2J", i)}, memory.Mail(fmt.Sprintf("c%d@kelp.example", i))))
	}
	work()
	if _, text := preview(0); !strings.Contains(text, "Nothing would change.") || strings.Contains(text, "Changes:") {
		t.Errorf("of an unchanged account:\n%s", text)
	}

	erp.EditCustomer(ids[3], func(c *connector.Customer, own *connector.Contact) {
		c.Name, own.Channels = "Renamed", []connector.Channel{memory.Mail("new@kelp.example")}
	})
	for _, id := range ids[10:20] {
		erp.Delete(connector.Key{Kind: connector.Customers, ID: id})
	}
	run, text := preview(3)
	for _, part := range []string{
		"Held, and still active afterwards: 10 customer contacts, because 10 of 40 active customer contacts are missing",
		"new@kelp.example", "c3@kelp.example", "Renamed", "erp_absent",
	} {
		if !strings.Contains(text, part) {
			t.Errorf("%q is missing in:\n%s", part, text)
		}
	}
	if strings.Contains(text, "\x1b") {
		t.Errorf("a name moves the reader's cursor: %q", text)
	}
	if first := ctl(3, "run", "show", run, "--limit", "2"); !strings.Contains(first, "syncctl run show "+run+" --offset 2") {
		t.Errorf("nothing says that there is more:\n%s", first)
	}
	for limit := 1; limit < 8; limit++ {
		whole, _, _ := strings.Cut(ctl(3, "run", "show", run, "--limit", fmt.Sprint(limit)), "Changes:")
		if strings.Contains(whole, "There are more") {
			t.Errorf("with --limit %d counts are said to go on:\n%s", limit, whole)
		}
	}
	var document struct {
		Preview bool
		Held    int
		Records []any `json:"held_records"`
		Report  struct {
			Nothing bool   `json:"nothing_would_change"`
			Cause   string `json:"hold_cause"`
			Changes []map[string]any
			Mail    []map[string]any
			Counts  []map[string]any
		}
	}
	if err := json.Unmarshal([]byte(ctl(3, "run", "show", run, "--json")), &document); err != nil {
		t.Fatal(err)
	}
	r := document.Report
	if !document.Preview || document.Held != 10 || len(document.Records) != 0 || r.Nothing || r.Cause == "" || len(r.Changes) != 12 || len(r.Mail) != 2 {
		t.Errorf("%+v", document)
	}
	if held := pgtest.Value(t, dsn, `SELECT held FROM connection_status`); held != "0" {
		t.Errorf("%s are held by a preview", held)
	}

	ctl(2, "resync", "Kelp books", "--customer", ids[4], "--full")
	ctl(2, "resync", "--all", "--tenant", "Kelp", "--customer", ids[4])
	first := ctl(0, "resync", "Kelp books", "--customer", ids[4])
	if again := ctl(0, "resync", "Kelp books", "--customer", ids[4]); !strings.Contains(again, "joined it") || strings.Fields(again)[1] != strings.Fields(first)[1] {
		t.Errorf("%s%s", first, again)
	}
}

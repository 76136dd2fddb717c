package cli_test

import (
	"bytes"
	"encoding/json"
	"strings"
	"testing"

	"github.com/centime/contactsync/internal/cli"
	"github.com/centime/contactsync/internal/postgres/pgtest"
)

// decisions is a database with an open hold of a customer that gets mail, and syncctl on it.
func decisions(t *testing.T) (dsn string, syncctl func(args ...string) (out, errs string, exit int)) {
	t.Helper()
	dsn = pgtest.New(t)
	pgtest.Exec(t, dsn, `SET search_path = contactsync;
		INSERT INTO tenants (name) VALUES ('Kelp');
		INSERT INTO connections (tenant_id, erp, account, name, schedule, stale_at) VALUES (1, 'memory', 'a', 'books', 'off', now());
		INSERT INTO runs (tenant_id, connection_id, mode, trigger, status, held) VALUES (1, 1, 'full', 'manual', 'succeeded', 2);
		INSERT INTO customers (tenant_id, connection_id, erp_id, name, kind, active) SELECT 1, 1, i, 'Customer ' || i, 'customer', true FROM generate_series(1, 3) i;
		INSERT INTO roles (tenant_id, name, communication_contact) VALUES (1, 'Company Contact', true);
		INSERT INTO role_mappings VALUES (1, 1, 'company', 'Company Contact', 1);
		INSERT INTO contacts (tenant_id, connection_id, origin, erp_id, name, active) SELECT 1, 1, 'erp', 'customer:' || i, 'Ingrid ' || i, true FROM generate_series(1, 3) i;
		INSERT INTO contact_points SELECT 1, id, origin, 'mail', 1, 'email', 'i' || id || '@kelp.example', 'i' || id || '@kelp.example', true, true, true FROM contacts;
		INSERT INTO customer_contacts (tenant_id, connection_id, customer_id, contact_id, origin, stated_by, record_role_key, active)
			SELECT 1, 1, id, id, origin, '{customer:1}', 'company', true FROM contacts;
		INSERT INTO holds (tenant_id, connection_id, cause, opened_by_run) VALUES (1, 1, '2 of 3 are missing', 1);
		INSERT INTO hold_items (tenant_id, hold_id, kind, entity_id, reason, evidence, added_by_run)
			SELECT 1, 1, 'customer', i, 'erp_absent', 'not in a complete listing', 1 FROM generate_series(1, 2) i`)
	return dsn, func(args ...string) (string, string, int) {
		t.Helper()
		var out, errs bytes.Buffer
		exit := cli.Run(t.Context(), cli.Setup{
			DatabaseURL: func() (string, error) { return dsn, nil }, Stdin: strings.NewReader(""), Stdout: &out, Stderr: &errs, LoginName: "tester",
		}, args)
		return out.String(), errs.String(), exit
	}
}

func want(t *testing.T, text string, parts ...string) {
	t.Helper()
	for _, p := range parts {
		if !strings.Contains(text, p) {
			t.Errorf("%q is missing in:\n%s", p, text)
		}
	}
}

// TestRunTellsOfContactsItHolds: a run that held nothing but contacts at no customer, which count as no customer contact, says so and
// ends with what an operator's script waits for.
func TestRunTellsOfContactsItHolds(t *testing.T) {
	t.Parallel()
	dsn, syncctl := decisions(t)
	pgtest.Exec(t, dsn, `UPDATE contactsync.runs SET held = 0, listing_began_at = now(), started_at = now(), finished_at = now();
		UPDATE contactsync.hold_items SET kind = 'contact'`)
	out, errs, exit := syncctl("run", "show", "1")
	want(t, out, "Held, and still active here: 2 of 3 are missing", "Ingrid 1", "syncctl hold show 1")
	if exit != 3 {
		t.Errorf("shown: exit status %d\n%s", exit, errs)
	}
	out, errs, exit = syncctl("run", "watch", "1")
	want(t, out, "Held, and still active: contacts at no customer. See what: syncctl hold list --connection 1")
	if exit != 3 {
		t.Errorf("watched: exit status %d\n%s", exit, errs)
	}
	pgtest.Exec(t, dsn, `UPDATE contactsync.hold_items SET added_by_run = 2`)
	if _, errs, exit := syncctl("run", "show", "1"); exit != 0 {
		t.Errorf("of a run that held nothing: exit status %d\n%s", exit, errs)
	}
}

// TestDecidingAHold guards what an operator sees: each contact with its customer, why it is to go and which mail it gets, counts first;
// and that a second decision is told of the first.
func TestDecidingAHold(t *testing.T) {
	t.Parallel()
	dsn, syncctl := decisions(t)
	out, _, _ := syncctl("hold", "list")
	want(t, out, "books", "open", "2 of 3 are missing")
	out, errs, exit := syncctl("hold", "show", "1", "--limit", "1")
	want(t, out, "held  customer", "communication_contact", "Customer 1", "Ingrid 1", "not in a complete listing", "i1@kelp.example",
		"There are more: --offset 1", "syncctl hold approve 1 --as-of 1. If not: syncctl hold reject 1 --as-of 1")
	if exit != 3 || strings.Contains(out, "Ingrid 2") || strings.Contains(out, "Ingrid 3") {
		t.Errorf("exit status %d\n%s%s", exit, out, errs)
	}
	for _, decide := range []string{"approve", "reject"} {
		if _, errs, exit := syncctl("hold", decide, "1", "--as-of", "0"); exit != 1 || !strings.Contains(errs, "look again with `syncctl hold show 1`") {
			t.Errorf("%s what was not shown: exit status %d\n%s", decide, exit, errs)
		}
	}
	out, errs, _ = syncctl("hold", "show", "1", "--json")
	var shown struct {
		Counts   []struct{ Records int }
		Stopping []struct {
			Addresses int
			Bare      int `json:"left_without_recipient"`
		}
		Items []struct {
			Customer string `json:"customer_id"`
			Mail     string
		}
	}
	if err := json.Unmarshal([]byte(out), &shown); err != nil || len(shown.Counts) != 1 || shown.Counts[0].Records != 2 || len(shown.Stopping) != 1 ||
		shown.Stopping[0].Addresses != 2 || shown.Stopping[0].Bare != 2 || len(shown.Items) != 2 || shown.Items[0].Customer != "1" {
		t.Errorf("%v %+v\n%s%s", err, shown, out, errs)
	}

	out, errs, exit = syncctl("hold", "approve", "1", "--as", "ann", "--reason", "branch closed")
	want(t, out, "Run 2 looks up 2 customer contacts again", "syncctl run watch 2")
	if exit != 0 {
		t.Errorf("exit status %d: %s", exit, errs)
	}
	_, errs, exit = syncctl("hold", "approve", "1", "--as", "bea")
	want(t, errs, "approved by ann at ", "run 2 carries it out")
	if exit != 1 {
		t.Errorf("exit status %d of the second approval", exit)
	}
	out, _, exit = syncctl("hold", "reject", "1", "--as", "bea", "--reason", "an accident")
	want(t, out, "2 records stay active")
	if exit != 0 {
		t.Errorf("exit status %d", exit)
	}
	_, errs, _ = syncctl("hold", "reject", "1")
	want(t, errs, "rejected by bea at ")
	out, _, exit = syncctl("hold", "show", "1")
	want(t, out, "kept", "bea", "an accident")
	if exit != 0 {
		t.Errorf("exit status %d of a hold that is decided", exit)
	}
	if kept := pgtest.Value(t, dsn, `SELECT held || ' ' || kept FROM connection_status`); kept != "0 2" {
		t.Errorf("held and kept: %s", kept)
	}
}

// TestLeavingAsksFirst: whose mail stops is shown before anything is done, nothing is done without --yes or a terminal, and erasing
// needs a reason.
func TestLeavingAsksFirst(t *testing.T) {
	t.Parallel()
	dsn, syncctl := decisions(t)
	_, errs, exit := syncctl("contact", "erase", "i3@kelp.example", "--tenant", "Kelp", "--yes")
	want(t, errs, "--reason")
	if exit != 2 {
		t.Errorf("exit status %d without a reason", exit)
	}
	for _, command := range [][]string{
		{"contact", "erase", "i3@kelp.example", "--tenant", "Kelp", "--reason", "asked"}, {"connection", "remove", "books"}, {"tenant", "remove", "Kelp", "--purge"},
	} {
		_, errs, exit := syncctl(command...)
		want(t, errs, "i3@kelp.example stops getting communication contact of Customer 3", "say --yes")
		if n := pgtest.Value(t, dsn, `SELECT count(*) FROM recipients`); exit != 2 || n != "3" {
			t.Errorf("%v without --yes: exit status %d, %s recipients", command, exit, n)
		}
	}
	out, errs, exit := syncctl("contact", "erase", "i3@kelp.example", "--tenant", "Kelp", "--reason", "asked", "--yes")
	want(t, out, "Contact 3 is erased", "communication contact: 1 addresses at 1 customers", "The customer and its name stay")
	if exit != 0 {
		t.Errorf("exit status %d: %s", exit, errs)
	}
	out, errs, exit = syncctl("tenant", "remove", "Kelp", "--purge", "--yes", "--json")
	var done struct {
		State  string
		Erased map[string]int
	}
	if err := json.Unmarshal([]byte(out), &done); err != nil || exit != 0 || done.State != "purged" || done.Erased["contacts"] != 3 {
		t.Errorf("exit status %d, %v, %+v\n%s", exit, err, done, errs)
	}
	if n := pgtest.Value(t, dsn, `SELECT concat_ws(' ', count(*), (SELECT string_agg(name, ' ') FROM contactsync.tenants),
		(SELECT string_agg(name, ' ') FROM contactsync.connections)) FROM contactsync.contacts`); n != "0 purged 1 purged" {
		t.Errorf("left: %s", n)
	}
}

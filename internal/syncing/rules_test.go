package syncing_test

import (
	"database/sql"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/centime/contactsync/internal/connector"
	"github.com/centime/contactsync/internal/connector/memory"
	"github.com/centime/contactsync/internal/contact"
	"github.com/centime/contactsync/internal/postgres"
	"github.com/centime/contactsync/internal/postgres/pgtest"
	"github.com/centime/contactsync/internal/reconcile"
)

// exec changes the database as its owner, as a person's program would.
func (w *world) exec(statement string, args ...any) {
	w.t.Helper()
	db, err := sql.Open("postgres", w.dsn)
	if err != nil {
		w.t.Fatal(err)
	}
	defer db.Close()
	if _, err := db.ExecContext(w.ctx, "SET search_path = contactsync, public; "+statement, args...); err != nil {
		w.t.Fatalf("%s: %v", statement, err)
	}
}

// TestChoicesSurviveEverySync guards rule 2: the role a person chose, and the contacts made in Centime, stay as they are.
func TestChoicesSurviveEverySync(t *testing.T) {
	w := setup(t, memory.QuickBooks)
	ids := w.customers(30)
	w.mustSync(postgres.Full)
	w.exec(`INSERT INTO roles (tenant_id, name, invoice_presentment) VALUES (1, 'Payer', true);
		INSERT INTO role_choices (tenant_id, customer_contact_id, role_id, chosen_by) SELECT 1, cc.id, (SELECT max(id) FROM roles), 'ann'
			FROM customer_contacts cc JOIN customers cu ON cu.id = cc.customer_id WHERE cu.erp_id = '` + ids[0] + `';
		INSERT INTO contacts (tenant_id, connection_id, origin, name, active) VALUES (1, 1, 'centime', 'Ours', true);
		INSERT INTO contact_points SELECT 1, id, origin, 'email', 1, 'email', 'ours@kelp.example', 'ours@kelp.example', true, true, true
			FROM contacts WHERE origin = 'centime';
		INSERT INTO customer_contacts (tenant_id, connection_id, customer_id, contact_id, origin, active)
			SELECT 1, 1, cu.id, co.id, 'centime', true FROM customers cu, contacts co WHERE cu.erp_id = '` + ids[0] + `' AND co.origin = 'centime'`)
	state := func() string {
		return pgtest.Value(t, w.dsn, `SELECT concat((SELECT string_agg(c::text, ' ') FROM contactsync.role_choices c),
			(SELECT string_agg(c::text, ' ') FROM contactsync.contacts c WHERE origin = 'centime'),
			(SELECT string_agg(c::text, ' ') FROM contactsync.contact_points c WHERE origin = 'centime'),
			(SELECT string_agg(c::text, ' ') FROM contactsync.customer_contacts c WHERE origin = 'centime'))`)
	}
	before := state()
	w.erp.EditCustomer(ids[0], func(c *connector.Customer, own *connector.Contact) {
		c.Name, own.Channels = "Renamed", []connector.Channel{memory.Mail("new@kelp.example")}
	})
	w.mustSync(postgres.Incremental)
	w.mustSync(postgres.Full)
	invoices := w.list(postgres.Recipients, postgres.Filter{Column: "communication_type", Value: "invoice_presentment"})
	if len(invoices) != 1 || invoices[0]["email"] != "new@kelp.example" || invoices[0]["role"] != "Payer" {
		t.Errorf("invoices go to %v", invoices)
	}
	w.erp.Delete(customer(ids[0]))
	w.mustSync(postgres.Full)
	if len(w.list(postgres.Recipients, postgres.Filter{Column: "communication_type", Value: "invoice_presentment"})) != 0 {
		t.Error("mail for a customer that is gone")
	}
	issues := w.list(postgres.Issues, postgres.Filter{Column: "reason", Value: "customer_vanished"})
	if len(issues) != 1 || issues[0]["count"] != "1" {
		t.Errorf("nobody is told of the contact at the customer that vanished: %v", issues)
	}
	if after := state(); after != before {
		t.Errorf("a sync changed what people made:\nbefore %s\nafter  %s", before, after)
	}
}

// TestVanishedCustomersTellWhoIsAtThem guards rule 7: contacts made in Centime at a customer that vanished are one issue for as long as they
// are there. One may be made while the customer goes, when the run that lets it go cannot see it.
func TestVanishedCustomersTellWhoIsAtThem(t *testing.T) {
	w := setup(t, memory.QuickBooks)
	ids := w.customers(2)
	w.mustSync(postgres.Full)
	w.erp.Delete(customer(ids[0]))
	w.mustSync(postgres.Full)
	told := func() string {
		issues := w.list(postgres.Issues, postgres.Filter{Column: "reason", Value: "customer_vanished"})
		if len(issues) == 0 {
			return "nobody"
		}
		return fmt.Sprint(len(issues), " of ", issues[0]["record_erp_id"], ": ", issues[0]["count"])
	}
	make := func(name, customer string) string {
		return `WITH c AS (INSERT INTO contacts (tenant_id, connection_id, origin, name, active) VALUES (1, 1, 'centime', '` + name + `', true) RETURNING id)
			INSERT INTO customer_contacts (tenant_id, connection_id, customer_id, contact_id, origin, active)
			SELECT 1, 1, cu.id, c.id, 'centime', true FROM customers cu, c WHERE cu.erp_id = '` + customer + `';`
	}
	for _, step := range []struct{ what, sql, want string }{
		{"nobody of ours was there", ``, "nobody"},
		{"one was made at it", make("Ours", ids[0]), "1 of " + ids[0] + ": 1"},
		{"and another", make("Second", ids[0]), "1 of " + ids[0] + ": 2"},
		{"nothing happened", ``, "1 of " + ids[0] + ": 2"},
		{"both were moved", `UPDATE customer_contacts SET customer_id = (SELECT id FROM customers WHERE erp_id = '` + ids[1] + `') WHERE origin = 'centime'`, "nobody"},
	} {
		if step.sql != "" {
			w.exec(step.sql)
		}
		w.mustSync(postgres.Incremental)
		if got := told(); got != step.want {
			t.Errorf("%s: the issue is %s, want %s", step.what, got, step.want)
		}
	}
}

// TestNoGuessingWhoGetsMail guards rule 14: a role met first starts no mail, and the 31st is no role.
func TestNoGuessingWhoGetsMail(t *testing.T) {
	w := setup(t, memory.NetSuite)
	ids := w.customers(3)
	attach := func(n int) {
		k := w.erp.AddContact(connector.Contact{Name: fmt.Sprint("Person ", n), Active: true,
			Channels: []connector.Channel{memory.Mail(fmt.Sprintf("p%d@kelp.example", n))}}, "")
		w.erp.Attach(ids[0], k, connector.ERPRole{Key: fmt.Sprint(n), Name: fmt.Sprint("Role ", n)})
	}
	for n := range 33 {
		attach(n)
	}
	w.mustSync(postgres.Full)
	for _, r := range w.list(postgres.Recipients) {
		if strings.HasPrefix(r["email"], "p") {
			t.Errorf("%s gets %s by a role nobody decided about", r["email"], r["communication_type"])
		}
	}
	roles := w.list(postgres.Roles)
	if len(roles) != contact.RoleMax {
		t.Errorf("%d roles, want %d", len(roles), contact.RoleMax)
	}
	if n := len(w.list(postgres.Issues, postgres.Filter{Column: "reason", Value: "no_room_for_role"})); n != 4 {
		t.Errorf("%d issues about roles without room, want 4", n)
	}
	if n := len(w.list(postgres.Contacts, postgres.Filter{Column: "name", Value: "Person 32"})); n != 1 {
		t.Error("a contact whose role had no room was not stored")
	}
	w.exec(`UPDATE role_mappings SET role_id = NULL WHERE erp_role_key = '0';
		DELETE FROM roles r WHERE r.name LIKE 'Role 0 %'`)
	w.mustSync(postgres.Incremental)
	if n := len(w.list(postgres.Roles)); n != contact.RoleMax {
		t.Errorf("%d roles after there was room for one", n)
	}
}

// TestLinksFollowWhoStatesThem: attached while anyone states it, and the link's own role speaks first.
func TestLinksFollowWhoStatesThem(t *testing.T) {
	w := setup(t, memory.NetSuite)
	ids := w.customers(30)
	ann := w.erp.AddContact(connector.Contact{Name: "Ann", Active: true}, ids[0])
	bob := w.erp.AddContact(connector.Contact{Name: "Bob", Active: true}, "")
	w.erp.Attach(ids[1], bob, connector.ERPRole{Key: "7", Name: "Buyer"}) // a listing of links that is empty would be held
	place := func() map[string]string {
		t.Helper()
		rows := w.list(postgres.Contacts, postgres.Filter{Column: "name", Value: "Ann"}, postgres.Filter{Column: "customer_erp_id", Value: ids[0]})
		if len(rows) != 1 {
			t.Fatalf("%v", rows)
		}
		return rows[0]
	}
	w.mustSync(postgres.Full)
	if p := place(); p["active"] != "true" || p["erp_role"] != "<nil>" {
		t.Errorf("stated by the contact: %v", p)
	}
	w.erp.Attach(ids[0], ann, connector.ERPRole{Key: "7", Name: "Buyer"})
	w.mustSync(postgres.Incremental)
	if p := place(); p["erp_role"] != "Buyer" {
		t.Errorf("attached with a role: %v", p)
	}
	w.erp.SetCompany(ann, "")
	w.mustSync(postgres.Incremental)
	if p := place(); p["active"] != "true" || p["erp_role"] != "Buyer" {
		t.Errorf("still stated by the link: %v", p)
	}
	w.erp.Detach(ids[0], ann)
	if r := w.mustSync(postgres.Incremental); r.Gone != 1 {
		t.Errorf("deactivated %d, want 1", r.Gone)
	}
	if p := place(); p["active"] != "false" || p["inactive_reason"] != "detached" {
		t.Errorf("stated by nobody: %v", p)
	}
	w.erp.Attach(ids[0], ann, connector.ERPRole{Key: "8", Name: "Payer"})
	w.mustSync(postgres.Incremental)
	if p := place(); p["active"] != "true" || p["erp_role"] != "Payer" {
		t.Errorf("attached again: %v", p)
	}
}

// TestHistoryTellsChangesAndNotCreations guards rule 13.
func TestHistoryTellsChangesAndNotCreations(t *testing.T) {
	w := setup(t, memory.QuickBooks)
	ids := w.customers(10)
	w.mustSync(postgres.Full)
	if n := pgtest.Value(t, w.dsn, `SELECT count(*) FROM contactsync.history WHERE run_id IS NOT NULL`); n != "0" {
		t.Errorf("%s rows about creations", n)
	}
	w.erp.EditCustomer(ids[0], func(c *connector.Customer, own *connector.Contact) {
		c.Name, own.Channels = "Renamed", []connector.Channel{memory.Mail("new@kelp.example")}
	})
	w.erp.Inactivate(customer(ids[1]))
	run := w.mustSync(postgres.Incremental)
	got := pgtest.Value(t, w.dsn, `SELECT string_agg(concat_ws(' ', entity, field, was, became, reason), '; ' ORDER BY entity, entity_id, field)
		FROM contactsync.history WHERE run_id = $1`, run.ID)
	for _, part := range []string{"customer name Customer 0 Renamed", "c0@kelp.example new@kelp.example", "customer active true false erp_inactive", "contact active true false erp_inactive"} {
		if !strings.Contains(got, part) {
			t.Errorf("%q is missing in:\n%s", part, got)
		}
	}
}

// TestPlaceMadeInPartsIsNoChange: what NetSuite says of a place by a contact's record and then by a row of its own, in the run that
// makes the place, is its creation, and counts as one.
func TestPlaceMadeInPartsIsNoChange(t *testing.T) {
	w := setup(t, memory.NetSuite)
	ids := w.customers(2)
	ann := w.erp.AddContact(connector.Contact{Name: "Ann", Active: true}, ids[0])
	w.erp.Attach(ids[0], ann, connector.ERPRole{Key: "7", Name: "Buyer"})
	r := w.mustSync(postgres.Full)
	if got := pgtest.Value(t, w.dsn, `SELECT count(*) FROM contactsync.history WHERE run_id IS NOT NULL`); got != "0" || r.Created != 4 || r.Updated != 0 {
		t.Errorf("%s rows of history, %d created, %d updated; want none, 4 and none", got, r.Created, r.Updated)
	}
	if at := w.at(ids[0]); at != "Ann as Buyer" {
		t.Errorf("at the customer is %s", at)
	}
	w.erp.Attach(ids[0], ann, connector.ERPRole{Key: "8", Name: "Payer"})
	r = w.mustSync(postgres.Incremental)
	if got := pgtest.Value(t, w.dsn, `SELECT string_agg(field || ' ' || was || ' ' || became, ', ') FROM contactsync.history`); got != "erp_role 7 8" || r.Updated != 1 {
		t.Errorf("the history of another role is %q, %d updated", got, r.Updated)
	}
}

// TestHistoryTellsARoleThatWentWithItsLink guards rule 13: a role goes with the link's own row, also when the contact keeps its place
// by its main company, and is back when a person takes the going back.
func TestHistoryTellsARoleThatWentWithItsLink(t *testing.T) {
	w := setup(t, memory.NetSuite)
	ids := w.customers(10)
	role := connector.ERPRole{Key: "7", Name: "Buyer"}
	var people []string
	for i := range 20 {
		main := ""
		if i == 0 {
			main = ids[0]
		}
		people = append(people, w.erp.AddContact(connector.Contact{Name: fmt.Sprint("Person ", i)}, main))
		w.erp.Attach(ids[i%10], people[i], role)
	}
	w.mustSync(postgres.Full)
	told := func(run int64) string {
		return pgtest.Value(t, w.dsn, `SELECT string_agg(concat_ws(' ', l.active, h.was || '>' || h.became, h.reason), '; ' ORDER BY h.id) FROM contactsync.history h
			JOIN contactsync.customer_contacts l ON l.id = h.entity_id WHERE h.entity = 'customer_contact' AND h.field = 'erp_role' AND h.run_id IS NOT DISTINCT FROM nullif($1, 0)`, run)
	}
	w.erp.Detach(ids[0], people[0])
	if got := told(w.mustSync(postgres.Incremental).ID); got != "t 7> detached" {
		t.Errorf("it kept its place and lost its role: %q", got)
	}
	w.erp.Detach(ids[1], people[1])
	if got := told(w.mustSync(postgres.Incremental).ID); got != "f 7> detached" {
		t.Errorf("it lost its place: %q", got)
	}
	w.erp.Hide(connector.Key{Kind: connector.Links})
	w.wantRun(postgres.Incremental, "no links at all", 0, 18)
	w.approve()
	w.reject()
	if got := told(0); strings.Count(got, "t >7 rejected hold") != 18 {
		t.Errorf("brought back: %q", got)
	}
}

// TestBadTextIsStoredAndTold guards rule 8: NUL and lone surrogates are cut out, the rest is stored, an issue says so and
// closes when the record is read without them.
func TestBadTextIsStoredAndTold(t *testing.T) {
	w := setup(t, memory.QuickBooks)
	ids := w.customers(5)
	w.erp.EditCustomer(ids[0], func(c *connector.Customer, own *connector.Contact) {
		c.Name = "Nul\x00 and \xed\xa0\x80 half"
		own.Channels = []connector.Channel{memory.Mail("not an address")}
	})
	w.erp.EditCustomer(ids[1], func(c *connector.Customer, _ *connector.Contact) { c.Name = strings.Repeat("é", 500) })
	w.erp.EditCustomer(ids[2], func(c *connector.Customer, own *connector.Contact) { c.Name, own.Name = "", "" })
	r := w.mustSync(postgres.Full)
	if r.Read != 5 || r.Created != 5 || r.WithIssue != 2 {
		t.Errorf("read %d, created %d, with issue %d", r.Read, r.Created, r.WithIssue)
	}
	var names []string
	for _, c := range w.list(postgres.Customers) {
		names = append(names, c["name"])
	}
	if !slices.Contains(names, "Nul and  half") || !slices.Contains(names, strings.Repeat("é", 500)) {
		t.Errorf("%q", names)
	}
	for _, p := range w.list(postgres.Points, postgres.Filter{Column: "value", Value: "not an address"}) {
		if p["usable"] != "false" {
			t.Errorf("usable: %v", p)
		}
	}
	reasons := map[string]bool{}
	for _, i := range w.list(postgres.Issues) {
		reasons[i["reason"]] = true
	}
	if !reasons["unstorable_characters_removed"] || !reasons["not_an_address"] || !reasons["no_name"] {
		t.Errorf("issues: %v", reasons)
	}
	for _, id := range ids[:3] {
		w.erp.EditCustomer(id, func(c *connector.Customer, own *connector.Contact) {
			c.Name, own.Name, own.Channels = "Fine", "Fine", nil
		})
	}
	w.mustSync(postgres.Incremental)
	if left := w.list(postgres.Issues); len(left) != 0 {
		t.Errorf("still open: %v", left)
	}
}

// TestRunOutOfTriesHandsOn: what a failed run had read is not read again, and absence is still judged over all of it.
func TestRunOutOfTriesHandsOn(t *testing.T) {
	w := setup(t, memory.QuickBooks)
	ids := w.customers(30)
	w.mustSync(postgres.Full)
	w.erp.Delete(customer(ids[29]))
	for range 12 {
		w.erp.FailNext(&connector.Error{Kind: connector.Transient, Step: "list", Message: "503"})
	}
	w.erp.FailPage(1, nil)
	failed := w.sync(postgres.Full)
	if failed.Status != "failed" {
		t.Fatalf("%s", failed.Status)
	}
	w.erp.Refuse(nil)
	if r := w.mustSync(postgres.Full); r.Gone != 1 {
		t.Errorf("deactivated %d, want 1", r.Gone)
	}
	w.wantMirror()
}

// TestOldWordIsNoEvidence guards "what would go is looked up first": a run that goes on where another failed, or where it was itself a while
// ago, lets nobody go by what was read then and is otherwise now.
func TestOldWordIsNoEvidence(t *testing.T) {
	t.Parallel()
	// failed is a world in which a full run failed that read of one customer, and his contact, that he was inactive.
	failed := func(t *testing.T) (w *world, ids []string) {
		t.Helper()
		w = setup(t, memory.QuickBooks)
		ids = w.customers(10)
		w.mustSync(postgres.Full)
		w.erp.SetPageSize(1)
		w.erp.Inactivate(customer(ids[2]))
		w.erp.FailPage(6, &connector.Error{Kind: connector.Rejected, Step: "list", Message: "400"})
		if r := w.sync(postgres.Full); r.Status != "failed" || r.Read < 3 {
			t.Fatalf("%s, read %d", r.Status, r.Read)
		}
		return w, ids
	}
	t.Run("StatedInactive", func(t *testing.T) {
		w, ids := failed(t)
		w.erp.Reactivate(customer(ids[2]))
		if r := w.mustSync(postgres.Full); r.Gone != 0 || r.Read > 7 {
			t.Errorf("deactivated %d by the word of a run before, read %d", r.Gone, r.Read)
		}
		w.wantMirror()
	})
	t.Run("StatedInactiveBeforeAWait", func(t *testing.T) {
		w := setup(t, memory.QuickBooks)
		ids := w.customers(5)
		w.mustSync(postgres.Full)
		w.erp.SetPageSize(1)
		w.erp.Inactivate(customer(ids[0]))
		run, next := w.underWay(3)
		w.exec(`UPDATE runs SET checkpoint_at = checkpoint_at - interval '2 hours' WHERE status = 'running'`)
		w.erp.Reactivate(customer(ids[0]))
		for next != nil {
			next = w.worker.Work(w.ctx, run, next.Delivery)
		}
		if r := w.state(run); r.Status != "succeeded" || r.Gone != 0 {
			t.Errorf("%s, deactivated %d by what was read hours ago", r.Status, r.Gone)
		}
		w.wantMirror()
	})
	t.Run("LookedUp", func(t *testing.T) {
		w := setup(t, memory.QuickBooks)
		ids := w.customers(5)
		w.mustSync(postgres.Full)
		w.erp.Hide(customer(ids[0]))
		run, next := w.underWay(1)
		const asked = `SELECT EXISTS (SELECT FROM contactsync.run_pages WHERE missing_customer_ids <> '{}')`
		for next != nil && pgtest.Value(t, w.dsn, asked) != "true" {
			next = w.worker.Work(w.ctx, run, next.Delivery)
		}
		w.exec(`UPDATE runs SET status = 'failed', finished_at = now() WHERE status = 'running'`)
		w.erp.Show(customer(ids[0]))
		if r := w.mustSync(postgres.Full); r.Gone != 0 || r.Read != 1 {
			t.Errorf("deactivated %d, since it was looked up by a run before, read %d, want what is looked up again", r.Gone, r.Read)
		}
		w.wantMirror()
	})
	t.Run("ReadActiveByAnApproval", func(t *testing.T) {
		w, _, missing := holding(t)
		w.erp.SetPageSize(4)
		w.erp.Show(customer(missing[0]))
		w.erp.Inactivate(customer(missing[0]))
		w.erp.FailPage(3, &connector.Error{Kind: connector.Rejected, Step: "list", Message: "400"})
		if r := w.sync(postgres.Full); r.Status != "failed" || r.Read != 8 {
			t.Fatalf("%s, read %d", r.Status, r.Read)
		}
		w.erp.Reactivate(customer(missing[0]))
		if r := w.approve(); r.Status != "succeeded" || r.Gone != 7 {
			t.Fatalf("the approval %s, deactivated %d", r.Status, r.Gone)
		}
		before := len(w.erp.Requests())
		w.wantRun(postgres.Full, "after the approval", 0, 0)
		for _, r := range w.erp.Requests()[before:] {
			if r.Op == memory.OpLookup {
				t.Errorf("what the approval was answered is asked again: %v", r.Keys)
			}
		}
		w.wantMirror()
	})
	t.Run("StillInactive", func(t *testing.T) {
		w, _ := failed(t)
		if r := w.mustSync(postgres.Full); r.Gone != 1 {
			t.Errorf("deactivated %d, want 1", r.Gone)
		}
		w.wantMirror()
	})
}

func TestExpiredCursorBeginsAgain(t *testing.T) {
	w := setup(t, memory.QuickBooks)
	w.customers(10)
	w.mustSync(postgres.Full)
	w.erp.ExpireCursors()
	w.customers(2)
	if r := w.mustSync(postgres.Incremental); r.Mode != postgres.Full || r.Read != 12 {
		t.Errorf("%s run read %d", r.Mode, r.Read)
	}
	w.wantMirror()
}

// TestDeadlockIsNoExpiredCursor: a transaction that Postgres undid and that was made again counts as one expired cursor, of two that a run may have.
func TestDeadlockIsNoExpiredCursor(t *testing.T) {
	w := setup(t, memory.QuickBooks)
	run := w.queue(postgres.Full)
	out, err := w.store.HandOutNew(w.ctx, 1)
	if err != nil {
		t.Fatal(err)
	}
	c, err := w.store.Claim(w.ctx, run, out[0].Delivery, time.Minute)
	if err != nil {
		t.Fatal(err)
	}
	pgtest.Exec(t, w.dsn, `CREATE SEQUENCE contactsync.tried; -- it counts on when a transaction is undone
		CREATE FUNCTION contactsync.undo_once() RETURNS trigger LANGUAGE plpgsql SECURITY DEFINER AS $$
			BEGIN IF nextval('contactsync.tried') = 1 THEN RAISE 'undone' USING ERRCODE = 'deadlock_detected'; END IF; RETURN NULL; END $$;
		CREATE TRIGGER undo_once AFTER UPDATE OF mode ON contactsync.runs FOR EACH ROW EXECUTE FUNCTION contactsync.undo_once()`)
	if err := w.store.ListAgain(w.ctx, c); err != nil {
		t.Fatal(err)
	}
	tried := pgtest.Value(t, w.dsn, `SELECT last_value FROM contactsync.tried`)
	stored := pgtest.Value(t, w.dsn, `SELECT began_again FROM contactsync.runs`)
	if tried != "2" || stored != "1" || c.BeganAgain != 1 {
		t.Errorf("tried %s times: the run has begun again %s times, the step takes it for %d; want 2, 1 and 1", tried, stored, c.BeganAgain)
	}
}

// TestRequestsJoin: a second request joins the queued run, makes it full if it asks for that, and is kept.
func TestRequestsJoin(t *testing.T) {
	w := setup(t, memory.QuickBooks)
	w.work()
	first := w.queue(postgres.Incremental)
	second, joined, err := w.store.QueueRun(w.ctx, postgres.Request{Tenant: w.tenant, Connection: w.connection, Mode: postgres.Full,
		Trigger: postgres.Manual, By: "bea", Reason: "asked by phone"})
	if err != nil || !joined || first != second {
		t.Fatalf("%d %v %v", second, joined, err)
	}
	r, err := w.store.Run(w.ctx, first)
	if err != nil || r.Mode != postgres.Full {
		t.Errorf("%s %v", r.Mode, err)
	}
	if asked := w.list(postgres.Requests, postgres.Filter{Column: "run_id", Value: first}); len(asked) != 2 || asked[1]["requested_by"] != "bea" {
		t.Errorf("%v", asked)
	}
}

// TestPauseStopsAtTheNextPageAndGoesOn, and a cancelled run deactivates nobody.
func TestPauseStopsAtTheNextPageAndGoesOn(t *testing.T) {
	w := setup(t, memory.QuickBooks)
	ids := w.customers(12)
	w.mustSync(postgres.Full)
	w.erp.Delete(customer(ids[0]))
	run := w.queue(postgres.Full)
	c, err := w.store.FindConnection(w.ctx, "Kelp books")
	if err != nil {
		t.Fatal(err)
	}
	if err := w.store.SetState(w.ctx, c, "paused", ops); err != nil {
		t.Fatal(err)
	}
	w.work()
	if r, _ := w.store.Run(w.ctx, run); r.Status != "queued" {
		t.Fatalf("a paused connection's run is %s", r.Status)
	}
	if err := w.store.SetState(w.ctx, c, "active", ops); err != nil {
		t.Fatal(err)
	}
	w.work()
	if r, _ := w.store.Run(w.ctx, run); r.Status != "succeeded" || r.Gone != 1 {
		t.Errorf("after the pause: %s, deactivated %d", r.Status, r.Gone)
	}
	w.erp.Delete(customer(ids[1]))
	run = w.queue(postgres.Full)
	if status, err := w.store.CancelRun(w.ctx, run, postgres.By{User: "ann", Reason: "ticket 4711"}); err != nil || status != "cancelled" {
		t.Errorf("%s %v", status, err)
	}
	if by, err := w.store.CancelledBy(w.ctx, w.state(run)); err != nil || by != (postgres.By{User: "ann", Reason: "ticket 4711"}) {
		t.Errorf("run %d was cancelled by %+v, %v", run, by, err)
	}
	w.work()
	if n := len(w.list(postgres.Customers, postgres.Filter{Column: "active", Value: true})); n != 11 {
		t.Errorf("%d active, want 11", n)
	}
}

// TestErrorKinds: what each does to run and connection.
func TestErrorKinds(t *testing.T) {
	t.Parallel()
	for kind, want := range map[connector.ErrorKind]struct{ status, state string }{
		connector.Transient: {"waiting", "active"}, connector.Throttled: {"waiting", "active"}, connector.Denied: {"failed", "needs_attention"},
		connector.Rejected: {"failed", "active"}, connector.Misconfigured: {"failed", "active"},
	} {
		t.Run(string(kind), func(t *testing.T) {
			w := setup(t, memory.QuickBooks)
			w.customers(5)
			w.mustSync(postgres.Full)
			w.worker.Backoff = func(int) time.Duration { return time.Hour }
			w.erp.Refuse(&connector.Error{Kind: kind, Step: "list", Message: "no", Hint: "do this", RetryAfter: 10 * time.Minute})
			run := w.queue(postgres.Incremental)
			w.work()
			r, err := w.store.Run(w.ctx, run)
			if err != nil || r.Status != want.status || r.State != want.state || r.ErrorKind == nil || *r.ErrorKind != string(kind) {
				t.Errorf("run %s, connection %s, kind %v, %v", r.Status, r.State, r.ErrorKind, err)
			}
			if n := len(w.list(postgres.Contacts, postgres.Filter{Column: "active", Value: true})); n != 5 {
				t.Errorf("%d active, want 5", n)
			}
			if kind != connector.Denied {
				return
			}
			w.erp.Refuse(nil)
			w.mustSync(postgres.Incremental)
			if c := w.list(postgres.Connections)[0]; c["state"] != "active" {
				t.Errorf("not healed: %v", c)
			}
		})
	}
}

// TestRightsHoldUntilDecided: what was held because the login may read less is not applied by the next run.
func TestRightsHoldUntilDecided(t *testing.T) {
	w := setup(t, memory.QuickBooks)
	ids := w.customers(30)
	w.erp.SetRights("all")
	w.mustSync(postgres.Full)
	w.erp.SetRights("some")
	w.mustSync(postgres.Incremental) // lists nothing, so it proves nothing about what is hidden
	w.erp.Hide(customer(ids[0]))
	for range 3 {
		if r := w.mustSync(postgres.Full); r.Held != 1 || r.Gone != 0 {
			t.Fatalf("held %d, deactivated %d; want 1 and 0", r.Held, r.Gone)
		}
		w.mustSync(postgres.Incremental)
	}
}

// widenBrake lets half of the customer contacts go unasked.
func (w *world) widenBrake() {
	w.t.Helper()
	c, err := w.store.FindConnection(w.ctx, "Kelp books")
	if err != nil {
		w.t.Fatal(err)
	}
	if err := w.store.Set(w.ctx, c, postgres.Settable{Settings: []string{"brake_percent=50"}}, ops); err != nil {
		w.t.Fatal(err)
	}
}

// TestWiderBrakeEmptiesTheHold: once what was held has gone, nothing is said to be held.
func TestWiderBrakeEmptiesTheHold(t *testing.T) {
	w := setup(t, memory.QuickBooks)
	ids := w.customers(30)
	w.mustSync(postgres.Full)
	for _, id := range ids[:8] {
		w.erp.Delete(customer(id))
	}
	if r := w.mustSync(postgres.Full); r.Held != 8 {
		t.Fatalf("held %d, want 8", r.Held)
	}
	w.widenBrake()
	if r := w.mustSync(postgres.Full); r.Gone != 8 || r.Held != 0 {
		t.Errorf("deactivated %d, held %d; want 8 and 0", r.Gone, r.Held)
	}
	if left := w.list(postgres.Held); len(left) != 0 {
		t.Errorf("still held: %v", left)
	}
}

// TestDeadWorkersDoNotBlockAConnection: a cancelled run whose worker died ends, and a run that ends its workers fails.
func TestDeadWorkersDoNotBlockAConnection(t *testing.T) {
	w := setup(t, memory.QuickBooks)
	w.customers(5)
	w.work()
	die := func() {
		t.Helper()
		out, err := w.store.HandOutNew(w.ctx, 10)
		if err != nil || len(out) != 1 {
			t.Fatalf("%v %v", out, err)
		}
		if _, err := w.store.Claim(w.ctx, out[0].Run, out[0].Delivery, time.Microsecond); err != nil {
			t.Fatal(err)
		}
	}
	run := w.queue(postgres.Full)
	die()
	w.exec(`UPDATE runs SET cancel_requested = true WHERE status = 'running'`)
	w.work()
	if r, _ := w.store.Run(w.ctx, run); r.Status != "cancelled" {
		t.Errorf("the cancelled run is %s", r.Status)
	}
	run = w.queue(postgres.Full)
	for range 10 {
		die()
		if err := w.store.HandOutAgain(w.ctx, []postgres.HandOut{{Run: run, Delivery: w.delivery(run)}}); err != nil {
			t.Fatal(err)
		}
	}
	w.work()
	if r, _ := w.store.Run(w.ctx, run); r.Status != "failed" || r.Hint == nil {
		t.Errorf("the run that ends its workers is %s", r.Status)
	}
	w.mustSync(postgres.Full)
	w.wantMirror()
}

func (w *world) delivery(run int64) (n int) {
	w.t.Helper()
	if _, err := fmt.Sscan(pgtest.Value(w.t, w.dsn, `SELECT delivery FROM contactsync.runs WHERE id = $1`, run), &n); err != nil {
		w.t.Fatal(err)
	}
	return n
}

// TestOneBadIdNeverFailsARun: an id that Postgres cannot take is refused, and the rest of its page is stored.
func TestOneBadIdNeverFailsARun(t *testing.T) {
	w := setup(t, memory.QuickBooks)
	w.customers(2)
	w.work()
	run := w.queue(postgres.Full)
	out, err := w.store.HandOutNew(w.ctx, 1)
	if err != nil {
		t.Fatal(err)
	}
	c, err := w.store.Claim(w.ctx, run, out[0].Delivery, time.Minute)
	if err != nil {
		t.Fatal(err)
	}
	page := connector.Page{Next: "x"}
	for _, id := range []string{"a\x00b", "\xed\xa0\x80", strings.Repeat("9", 5000), "77"} {
		page.Customers = append(page.Customers, connector.Customer{ID: id, Name: "N", Kind: contact.Customer, Active: true})
		page.Contacts = append(page.Contacts, connector.Contact{ID: contact.OwnID(id), Name: "N", Active: true})
		page.Links = append(page.Links, connector.Link{Customer: id, Contact: contact.OwnID(id), StatedBy: customer(id)})
		page.Bad = append(page.Bad, connector.Bad{Key: connector.Key{Kind: connector.Links, ID: id + "/" + id}, Field: "x", Reason: "y"})
	}
	counts, err := w.store.SavePage(w.ctx, c.Step, reconcile.Read(page), 0)
	if err != nil || counts.Created != 1 || counts.Refused < 3 {
		t.Errorf("%+v, %v", counts, err)
	}
}

// TestThrottledRunsWaitForAWhile: a run that is refused for being too fast waits, a quarter of an hour in all, by the database's clock. Once the
// next wait would end later it fails and frees its place, with the first refusal if the ERP asks for a day.
func TestThrottledRunsWaitForAWhile(t *testing.T) {
	w := setup(t, memory.QuickBooks)
	w.customers(3)
	for _, c := range []struct {
		since string
		after time.Duration
		want  string
	}{
		{"NULL", 15 * time.Minute, "waiting"},
		{"NULL", 16 * time.Minute, "failed"},
		{"NULL", 24 * time.Hour, "failed"},
		{"now() - interval '13 minutes'", time.Minute, "waiting"},
		{"now() - interval '13 minutes'", 3 * time.Minute, "failed"},
		{"now() - interval '16 minutes'", 0, "failed"},
	} {
		w.erp.Refuse(&connector.Error{Kind: connector.Throttled, Step: "list", Message: "429", RetryAfter: c.after})
		run := w.queue(postgres.Full) // the one that waits, if there is one
		pgtest.Exec(t, w.dsn, `UPDATE contactsync.runs SET not_before = NULL, handed_out_at = NULL, throttled_since = `+c.since)
		w.work()
		if r, err := w.store.Run(w.ctx, run); err != nil || r.Status != c.want {
			t.Errorf("throttled since %s and for %s more, the run is %s, %v; want %s", c.since, c.after, r.Status, err, c.want)
		}
	}
}

// TestEmptyListingOfThoseAtNoPlaceIsHeld guards rule 7 for contacts at no customer, such as vendors': nobody's mail changes with them,
// and yet a listing that has lost them all, or rights that have changed, say nothing of them.
func TestEmptyListingOfThoseAtNoPlaceIsHeld(t *testing.T) {
	for _, rights := range []string{"all", "some"} {
		t.Run(rights+" is readable", func(t *testing.T) {
			w := setup(t, memory.NetSuite)
			w.customers(3)
			var people []connector.Key
			for _, name := range []string{"Ann", "Bob"} {
				people = append(people, connector.Key{Kind: connector.Contacts, ID: w.erp.AddContact(connector.Contact{Name: name, Active: true}, "")})
			}
			w.erp.SetRights("all")
			w.mustSync(postgres.Full)
			w.erp.SetRights(rights)
			if rights == "some" {
				people = people[:1] // the listing is not empty then
			}
			w.erp.Hide(people...)
			if r := w.mustSync(postgres.Full); !r.Holds {
				t.Error("the run does not say that it holds something")
			}
			active := func() string {
				return pgtest.Value(t, w.dsn, `SELECT string_agg(name || ' ' || active, ', ' ORDER BY name) FROM contactsync.contacts WHERE erp_id NOT LIKE 'customer:%'`)
			}
			if got := active(); got != "Ann true, Bob true" {
				t.Fatalf("after it: %s", got)
			}
			if got := pgtest.Value(t, w.dsn, `SELECT count(*) FROM contactsync.hold_items`); got != fmt.Sprint(len(people)) {
				t.Errorf("%s items are held, want %d", got, len(people))
			}
			w.approve()
			if got := active(); !strings.HasPrefix(got, "Ann false") {
				t.Errorf("approved: %s", got)
			}
		})
	}
}

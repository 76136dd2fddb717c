package syncing_test

import (
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"

	"github.com/centime/contactsync/internal/connector"
	"github.com/centime/contactsync/internal/connector/memory"
	"github.com/centime/contactsync/internal/contact"
	"github.com/centime/contactsync/internal/postgres"
	"github.com/centime/contactsync/internal/postgres/pgtest"
)

var (
	buyer = connector.ERPRole{Key: "7", Name: "Buyer"}
	payer = connector.ERPRole{Key: "8", Name: "Payer"}
	ann   = postgres.By{User: "ann", Reason: "asked by phone"}
)

// person adds a contact to the ERP, with a role at customers.
func (w *world) person(name string, role connector.ERPRole, customers ...string) string {
	k := w.erp.AddContact(connector.Contact{Name: name, Active: true, Channels: []connector.Channel{memory.Mail(strings.ToLower(name) + "@kelp.example")}}, "")
	for _, c := range customers {
		w.erp.Attach(c, k, role)
	}
	return k
}

// place is a contact's row of the directory at a customer of the ERP.
func (w *world) place(name, customer string) map[string]string {
	w.t.Helper()
	rows := w.list(postgres.Contacts, postgres.Filter{Column: "name", Value: name}, postgres.Filter{Column: "customer_erp_id", Value: customer})
	if len(rows) != 1 {
		w.t.Fatalf("%s at %s: %v", name, customer, rows)
	}
	return rows[0]
}

func (w *world) role(name string, invoice bool) {
	w.t.Helper()
	if _, err := w.store.AddRole(w.ctx, w.tenant, contact.Role{Name: name, InvoicePresentment: invoice}, ann); err != nil {
		w.t.Fatal(err)
	}
}

func (w *world) assign(a postgres.Assignment) {
	w.t.Helper()
	if _, _, err := w.store.AssignRole(w.ctx, w.tenant, a, postgres.Weigh{}, ann); err != nil {
		w.t.Fatal(err)
	}
}

// TestChoiceSurvivesWhateverTheERPSays guards rule 2 through the command that makes the choice: incremental and full, another
// role in the ERP, gone and back; the ERP's own role is followed beside it, and counts again when the choice is given back.
func TestChoiceSurvivesWhateverTheERPSays(t *testing.T) {
	w := setup(t, memory.NetSuite)
	ids := w.customers(30)
	k := w.person("Ann", buyer, ids[0], ids[1])
	bob := w.person("Bob", buyer, ids[2])
	w.mustSync(postgres.Full)
	w.role("Chosen", true)
	w.assign(postgres.Assignment{Contact: "ann@kelp.example", Customer: "erp:" + ids[0], Role: "Chosen"})
	want := func(when, erpRole string, active bool) {
		t.Helper()
		p := w.place("Ann", ids[0])
		if p["role"] != "Chosen" || p["role_source"] != "user" || p["erp_role"] != erpRole || p["active"] != fmt.Sprint(active) {
			t.Errorf("%s: %v", when, p)
		}
		gets := w.list(postgres.Recipients, postgres.Filter{Column: "email", Value: "ann@kelp.example"})
		if n := len(gets); active && (n != 1 || gets[0]["communication_type"] != "invoice_presentment") || !active && n != 0 {
			t.Errorf("%s: mail %v", when, gets)
		}
	}
	want("at once", "Buyer", true)
	w.mustSync(postgres.Incremental)
	w.mustSync(postgres.Full)
	want("after resyncs", "Buyer", true)
	w.erp.Attach(ids[0], k, payer)
	w.mustSync(postgres.Full)
	want("with another role in the ERP, after a full resync", "Payer", true)
	w.erp.Attach(ids[0], k, connector.ERPRole{})
	w.mustSync(postgres.Incremental)
	want("without a role in the ERP", "<nil>", true)
	w.erp.Detach(ids[0], k)
	w.mustSync(postgres.Full)
	want("detached", "<nil>", false)
	renamed := connector.ERPRole{Key: buyer.Key, Name: "Purchaser"}
	w.erp.Attach(ids[0], k, renamed)
	w.erp.Attach(ids[1], k, renamed)
	w.erp.Attach(ids[2], bob, renamed)
	w.mustSync(postgres.Full)
	want("attached again, with a role renamed in the ERP", "Purchaser", true)
	if p := w.place("Ann", ids[1]); p["role_source"] != "erp" || p["erp_role"] != "Purchaser" {
		t.Errorf("nobody chose for her other customer: %v", p)
	}
	w.assign(postgres.Assignment{Contact: "ann@kelp.example", Customer: "erp:" + ids[0]})
	if p := w.place("Ann", ids[0]); p["role_source"] != "erp" || p["role"] != "Buyer (memory)" {
		t.Errorf("the choice given back: %v", p)
	}
}

// TestMappingAnERPRoleWithoutRoomClosesItsIssue: a person may give it a role that exists; the next run sees that it has one.
func TestMappingAnERPRoleWithoutRoomClosesItsIssue(t *testing.T) {
	w := setup(t, memory.NetSuite)
	ids := w.customers(3)
	for n := range 30 {
		w.person(fmt.Sprint("P", n), connector.ERPRole{Key: fmt.Sprint(n), Name: fmt.Sprint("Role ", n)}, ids[0])
	}
	w.mustSync(postgres.Full)
	noRoom := postgres.Filter{Column: "reason", Value: "no_room_for_role"}
	found := w.list(postgres.Issues, noRoom)
	if len(found) != 1 {
		t.Fatalf("%v", found)
	}
	key := found[0]["record_erp_id"]
	p := w.place("P"+key, ids[0])
	e, err := w.store.Explain(w.ctx, w.tenant, p["contact_id"])
	if err != nil || !strings.Contains(fmt.Sprint(e.Contacts[0].Places[0].Mail), "no room for another one") {
		t.Errorf("%+v, %v", e, err)
	}
	c, err := w.store.FindConnection(w.ctx, "Kelp books")
	if err != nil {
		t.Fatal(err)
	}
	if _, err := w.store.MapRole(w.ctx, c, key, "Company Contact", postgres.Weigh{}, ann); err != nil {
		t.Fatal(err)
	}
	w.mustSync(postgres.Incremental)
	if left := w.list(postgres.Issues, noRoom); len(left) != 0 {
		t.Errorf("still open: %v", left)
	}
	if p := w.place("P"+key, ids[0]); p["role"] != "Company Contact" || p["communication_contact"] != "true" {
		t.Errorf("%v", p)
	}
}

// TestExplainSaysWhatMailDoes: whatever the state of contacts, customers, links, points and roles, an explanation says yes to
// exactly the mail that is sent, and gives a reason for each no.
func TestExplainSaysWhatMailDoes(t *testing.T) {
	w := setup(t, memory.NetSuite)
	ids := w.customers(12)
	random := rand.New(rand.NewPCG(1, 2))
	for n := range 40 {
		k := w.erp.AddContact(connector.Contact{Name: fmt.Sprint("P", n), Active: true, Channels: []connector.Channel{
			memory.Mail(fmt.Sprintf("p%d@kelp.example; not an address; shared%d@kelp.example", n, n%5)),
			{Kind: contact.Email, Field: "altemail", Value: fmt.Sprintf("alt%d@kelp.example", n)},
		}}, "")
		if n%7 == 0 {
			w.erp.EditContact(k, func(c *connector.Contact) { c.Channels = nil })
		}
		for range 1 + random.IntN(2) {
			role := []connector.ERPRole{buyer, payer, {}}[random.IntN(3)]
			w.erp.Attach(ids[random.IntN(len(ids))], k, role)
		}
	}
	w.mustSync(postgres.Full)
	w.role("Chosen", true)
	yes := true
	if _, err := w.store.SetRole(w.ctx, w.tenant, "Payer (memory)", &yes, &yes, postgres.Weigh{}, ann); err != nil {
		t.Fatal(err)
	}
	for n := range 6 {
		_, err := w.store.CreateContact(w.ctx, w.tenant, postgres.NewContact{
			Person: contact.Person{Name: fmt.Sprint("Own ", n)}, Customers: []string{"erp:" + ids[n], "erp:" + ids[n+1]}, Role: []string{"Chosen", ""}[n%2],
			Points: contact.PointEdits{Add: []contact.NewPoint{{Kind: contact.Email, Value: fmt.Sprintf("Shared%d@kelp.example", n%5)}},
				Days: []contact.PointDays{{Value: fmt.Sprintf("shared%d@kelp.example", n%5),
					Days: []contact.Days{{}, {First: "2999-01-01"}, {Last: "2000-01-01"}}[n%3]}}},
		}, postgres.Weigh{}, ann)
		if err != nil {
			t.Fatal(err)
		}
	}
	w.exec(`INSERT INTO role_choices (tenant_id, customer_contact_id, role_id, chosen_by) SELECT 1, id, (SELECT id FROM roles WHERE name = 'Chosen'), 'ann'
			FROM customer_contacts WHERE origin = 'erp' AND id % 4 = 0;
		UPDATE customer_contacts SET active = false, inactive_reason = 'detached' WHERE origin = 'erp' AND id % 9 = 0;
		UPDATE contacts SET active = false, inactive_reason = 'erp_inactive' WHERE origin = 'erp' AND id % 11 = 0;
		UPDATE customers SET active = false, inactive_reason = 'erp_absent' WHERE id % 6 = 0;
		UPDATE role_mappings SET role_id = NULL WHERE erp_role_key = '7'`)
	compare := func() (yes, no int, reasons map[string]bool) {
		t.Helper()
		gets := map[string]bool{}
		for _, r := range w.list(postgres.Recipients) {
			gets[strings.Join([]string{r["customer_id"], r["communication_type"], strings.ToLower(r["email"]), r["contact_id"]}, " ")] = true
		}
		reasons = map[string]bool{}
		told := map[string]bool{}
		for _, c := range w.list(postgres.Contacts) {
			e, err := w.store.Explain(w.ctx, w.tenant, c["contact_id"])
			if err != nil || len(e.Contacts) != 1 {
				t.Fatalf("%+v, %v", e, err)
			}
			for _, p := range e.Contacts[0].Places {
				for _, v := range p.Mail {
					if len(v.Because) == 0 {
						t.Errorf("%+v: no reason", v)
					}
					for _, b := range v.Because {
						reasons[strings.Fields(b)[0]+" "+strings.Fields(b)[1]] = true
					}
					key := fmt.Sprintf("%d %s %s %d", p.Customer, v.Type, strings.ToLower(v.Email), v.As)
					if v.Gets != gets[key] {
						t.Errorf("contact %s says %t of %s: %v", c["contact_id"], v.Gets, key, v.Because)
					}
					if v.Gets {
						yes++
						told[key] = true
					} else {
						no++
					}
				}
			}
		}
		if len(told) != len(gets) {
			t.Errorf("%d of %d recipients are explained", len(told), len(gets))
		}
		return yes, no, reasons
	}
	yesses, noes, reasons := compare()
	if yesses < 20 || noes < 100 {
		t.Errorf("only %d yes and %d no: that proves little", yesses, noes)
	}
	for _, want := range []string{"the role", "the customer", "the contact", "detached: the", "the ERP", "no role:",
		"it stands", "it is", "its first", "its last", "an address", "but the"} {
		if !reasons[want] {
			t.Errorf("no reason begins with %q: %v", want, reasons)
		}
	}
	w.exec(`UPDATE connections SET state = 'removed'`)
	if yesses, _, reasons := compare(); yesses != 0 || !reasons["the connection"] {
		t.Errorf("of a removed connection: %d yes, %v", yesses, reasons)
	}
}

// TestExplainOfWhatIsNowhere: an address that nobody has is told of all the same.
func TestExplainOfWhatIsNowhere(t *testing.T) {
	w := setup(t, memory.QuickBooks)
	ids := w.customers(30)
	explain := func(address string) postgres.Explanation {
		t.Helper()
		e, err := w.store.Explain(w.ctx, w.tenant, address)
		if err != nil {
			t.Fatal(err)
		}
		return e
	}
	if e := explain("c0@kelp.example"); len(e.Contacts) != 0 || len(e.Read) != 1 || e.Read[0].LastFull != nil {
		t.Errorf("before the first run: %+v", e)
	}
	w.mustSync(postgres.Full)
	if e := explain("nobody@kelp.example"); len(e.Contacts)+len(e.Earlier) != 0 || len(e.Read) != 1 || e.Read[0].LastFull == nil {
		t.Errorf("no record: %+v", e)
	}
	w.erp.EditCustomer(ids[0], func(_ *connector.Customer, own *connector.Contact) {
		own.Channels = []connector.Channel{memory.Mail("new@kelp.example")}
	})
	run := w.mustSync(postgres.Incremental)
	e := explain("C0@kelp.example")
	if len(e.Earlier) != 1 || e.Earlier[0].Run != run.ID || e.Earlier[0].Became != "new@kelp.example" || !e.Earlier[0].Exists || len(e.Read) != 1 {
		t.Errorf("replaced in run %d: %+v", run.ID, e)
	}
	if e := explain("0@kelp.example"); len(e.Earlier) != 0 {
		t.Errorf("a part of an address is taken for it: %+v", e)
	}
	w.erp.EditCustomer(ids[1], func(_ *connector.Customer, own *connector.Contact) {
		own.Channels = []connector.Channel{memory.Mail("c1 at kelp.example")}
	})
	w.mustSync(postgres.Incremental)
	e = explain("c1 at kelp.example")
	if len(e.Contacts) != 1 || len(e.Contacts[0].Issues) != 1 || !strings.Contains(e.Contacts[0].Issues[0], "not_an_address") ||
		!slices.Contains(e.Contacts[0].Places[0].Mail[1].Because, "it is no address that mail can go to") {
		t.Errorf("what is no address: %+v", e.Contacts)
	}
	for _, id := range ids[2:12] {
		w.erp.Delete(customer(id))
	}
	if r := w.mustSync(postgres.Full); r.Held != 10 {
		t.Fatalf("held %d", r.Held)
	}
	if e := explain("c5@kelp.example"); len(e.Contacts) != 1 || e.Contacts[0].Places[0].Hold == 0 || !e.Contacts[0].Places[0].Mail[1].Gets {
		t.Errorf("held: %+v", e.Contacts)
	}
	if _, err := w.store.Explain(w.ctx, w.tenant, "99999"); err == nil {
		t.Error("a contact that is not there is explained")
	}
}

// TestHistoryOfAContact: each change with run or user and why, and of role and mapping what happened while the contact had them.
func TestHistoryOfAContact(t *testing.T) {
	w := setup(t, memory.NetSuite)
	ids := w.customers(30)
	k := w.person("Ann", buyer, ids[0])
	w.person("Bob", payer, ids[1])
	first := w.mustSync(postgres.Full)
	w.role("Chosen", false)
	w.role("Next", false)
	c, err := w.store.FindConnection(w.ctx, "Kelp books")
	if err != nil {
		t.Fatal(err)
	}
	on, off := true, false
	set := func(role string, invoice *bool) {
		t.Helper()
		if _, err := w.store.SetRole(w.ctx, w.tenant, role, invoice, nil, postgres.Weigh{}, ann); err != nil {
			t.Fatal(err)
		}
	}
	mapped := func(key, role string) {
		t.Helper()
		if _, err := w.store.MapRole(w.ctx, c, key, role, postgres.Weigh{}, ann); err != nil {
			t.Fatal(err)
		}
	}
	set("Next", &on) // hers later: not yet
	set("Buyer (memory)", &on)
	mapped("8", "Next") // Bob's
	mapped("7", "Next")
	set("Buyer (memory)", &off) // no longer hers
	set("Next", &off)
	w.assign(postgres.Assignment{Contact: "ann@kelp.example", Role: "Chosen"})
	set("Next", &on) // overridden by the choice
	set("Chosen", &on)
	w.erp.Attach(ids[0], k, payer)
	w.erp.EditContact(k, func(c *connector.Contact) { c.Name = "Ann Solheim" })
	second := w.mustSync(postgres.Incremental)
	w.erp.Inactivate(customer(ids[0]))
	third := w.mustSync(postgres.Incremental)

	events, err := w.store.History(w.ctx, w.tenant, "ann@kelp.example")
	if err != nil {
		t.Fatal(err)
	}
	var got []string
	for i, e := range events {
		by := e.By
		if e.Run != 0 {
			by = fmt.Sprint(e.Run)
		} else if e.Why != ann.Reason {
			t.Errorf("%+v does not say why", e)
		}
		id := ""
		if e.Entity == "role" {
			id = pgtest.Value(t, w.dsn, `SELECT name FROM contactsync.roles WHERE id = $1`, e.EntityID) + " "
		}
		name := func(s string) string { name, _, _ := strings.Cut(s, " ("); return name }
		got = append(got, fmt.Sprintf("%s %s%s %s>%s %s", e.Entity, id, e.Field, name(e.Was), name(e.Became), by))
		if i > 0 && e.At.Before(events[i-1].At) {
			t.Errorf("%+v comes after a later one", e)
		}
	}
	want := []string{
		fmt.Sprintf("contact created >Ann %d", first.ID),
		fmt.Sprintf("customer_contact created >Customer 0 %d", first.ID),
		"role Buyer (memory) invoice_presentment false>true ann",
		"role_mapping role of ERP role 7 Buyer>Next ann",
		"role Next invoice_presentment true>false ann",
		"customer_contact role choice >Chosen ann",
		"role Chosen invoice_presentment false>true ann",
		fmt.Sprintf("contact name Ann>Ann Solheim %d", second.ID),
		fmt.Sprintf("customer_contact erp_role 7>8 %d", second.ID),
		fmt.Sprintf("customer active true>false %d", third.ID),
	}
	if !slices.Equal(got, want) {
		t.Errorf("got\n%s\nwant\n%s", strings.Join(got, "\n"), strings.Join(want, "\n"))
	}
}

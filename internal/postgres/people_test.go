package postgres_test

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/centime/contactsync/internal/connector"
	"github.com/centime/contactsync/internal/contact"
	"github.com/centime/contactsync/internal/postgres"
	"github.com/centime/contactsync/internal/postgres/pgtest"
	"github.com/centime/contactsync/internal/reconcile"
)

// A small company: customers 1 to 3 with their own contacts 1 to 3 (ERP role company, role Reminded), and Ann, contact 4, who is
// a Buyer (role Silent) at customers 1 and 2.
const company = `
	INSERT INTO tenants (name, time_zone) VALUES ('Kelp', 'Pacific/Auckland'), ('Other', 'UTC');
	INSERT INTO connections (tenant_id, erp, account, name, schedule, stale_at) VALUES (1, 'netsuite', 'a', 'Kelp books', 'off', now()),
		(2, 'netsuite', 'b', 'Other books', 'off', now()), (1, 'quickbooks-online', 'c', 'Kelp stores', 'off', now());
	INSERT INTO roles (tenant_id, name, communication_contact, invoice_presentment) VALUES (1, 'Reminded', true, false), (1, 'Silent', false, false),
		(1, 'Payer', false, true), (2, 'Payer', true, true);
	INSERT INTO role_mappings VALUES (1, 1, 'company', 'Company Contact', 1), (1, 1, '7', 'Buyer', 2), (1, 1, '8', 'Spare', 2), (1, 1, '9', 'Spare', 2);
	INSERT INTO customers (tenant_id, connection_id, erp_id, name, kind, active)
		SELECT 1, 1, (100 + n)::text, 'Customer ' || n, 'customer', true FROM generate_series(1, 3) n;
	INSERT INTO customers (tenant_id, connection_id, erp_id, name, kind, active) 
		VALUES (1, 3, '2', 'Store', 'customer', true), (1, 3, '3', 'Store', 'customer', true);
	INSERT INTO contacts (tenant_id, connection_id, origin, erp_id, name, active)
		SELECT 1, 1, 'erp', 'customer:' || 100 + n, 'Customer ' || n, true FROM generate_series(1, 3) n;
	INSERT INTO contacts (tenant_id, connection_id, origin, erp_id, name, active) VALUES (1, 1, 'erp', '14', 'Ann', true);
	INSERT INTO contact_points SELECT 1, id, origin, 'email', 1, 'email', v, v, true, true, true
		FROM contacts, LATERAL (SELECT CASE erp_id WHEN '14' THEN 'ann@kelp.example' ELSE 'c' || id || '@kelp.example' END) AS e (v);
	INSERT INTO customer_contacts (tenant_id, connection_id, customer_id, contact_id, origin, stated_by, record_role_key, active)
		SELECT 1, 1, n, n, 'erp', ARRAY['customer:' || 100 + n], 'company', true FROM generate_series(1, 3) n;
	INSERT INTO customer_contacts (tenant_id, connection_id, customer_id, contact_id, origin, stated_by, link_role_key, active)
		VALUES (1, 1, 1, 4, 'erp', '{link}', '7', true), (1, 1, 2, 4, 'erp', '{link}', '7', true);
`

type kelp struct {
	t     *testing.T
	dsn   string
	store *postgres.Store
	db    *sql.DB
}

var ann = postgres.By{User: "ann", Reason: "asked by phone"}

func people(t *testing.T) kelp {
	t.Helper()
	t.Parallel()
	k := kelp{t: t, dsn: pgtest.New(t)}
	var err error
	if k.store, err = postgres.Open(k.dsn, 4); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = k.store.Close() })
	k.db = open(t, k.dsn)
	statements(t, k.db, company)
	return k
}

func (k kelp) value(query string) string {
	k.t.Helper()
	return pgtest.Value(k.t, k.dsn, "SELECT ("+query+")::text")
}

// recipients are customer, type and address, in order.
func (k kelp) recipients() string {
	k.t.Helper()
	return k.value(`SELECT coalesce(string_agg(concat_ws(' ', customer_id, left(communication_type, 1), email), ', '
		ORDER BY customer_id, communication_type, email), '') FROM public.recipients WHERE tenant_id = 1`)
}

const reminders = "1 c c1@kelp.example, 2 c c2@kelp.example, 3 c c3@kelp.example"

func (k kelp) wantRecipients(want string) {
	k.t.Helper()
	if got := k.recipients(); got != want {
		k.t.Errorf("mail goes to %s\nwant         %s", got, want)
	}
}

// told is what the history says, without times.
func (k kelp) told() string {
	k.t.Helper()
	return k.value(`SELECT coalesce(string_agg(concat_ws(' ', entity, entity_id, field, was, '>', became, by_user, reason), '; ' ORDER BY id), '')
		FROM contactsync.history WHERE tenant_id = 1`)
}

func difference(d postgres.MailDifference) string {
	var out []string
	for _, c := range d.Changes {
		sign := "-"
		if c.Starts {
			sign = "+"
		}
		out = append(out, fmt.Sprintf("%s%d %c %s", sign, c.CustomerID, c.CommunicationType[0], c.Email))
	}
	for _, c := range d.Counts {
		out = append(out, fmt.Sprintf("%v %c %d at %d", c.Starts, c.CommunicationType[0], c.Addresses, c.Customers))
	}
	for _, b := range d.Bare {
		out = append(out, fmt.Sprintf("bare %d %c", b.CustomerID, b.CommunicationType[0]))
	}
	return strings.Join(out, ", ")
}

var yes, no = true, false

// TestRehearsalIsWhatHappens guards "shows before it writes": a rehearsal writes nothing, and the change does what it said.
func TestRehearsalIsWhatHappens(t *testing.T) {
	k := people(t)
	for _, c := range []struct {
		name, want, after string
		change            func(how postgres.Weigh) (postgres.MailDifference, error)
	}{
		{"set", "+1 i c1@kelp.example, +2 i c2@kelp.example, +3 i c3@kelp.example, true i 3 at 3",
			"1 c c1@kelp.example, 1 i c1@kelp.example, 2 c c2@kelp.example, 2 i c2@kelp.example, 3 c c3@kelp.example, 3 i c3@kelp.example",
			func(how postgres.Weigh) (postgres.MailDifference, error) {
				return k.store.SetRole(t.Context(), 1, "reminded", &yes, nil, how, ann)
			}},
		{"set back", "-1 i c1@kelp.example, -2 i c2@kelp.example, -3 i c3@kelp.example, false i 3 at 3, bare 1 i, bare 2 i, bare 3 i", reminders,
			func(how postgres.Weigh) (postgres.MailDifference, error) {
				return k.store.SetRole(t.Context(), 1, "1", &no, &yes, how, ann)
			}},
		{"map", "+1 i ann@kelp.example, +2 i ann@kelp.example, true i 2 at 2",
			"1 c c1@kelp.example, 1 i ann@kelp.example, 2 c c2@kelp.example, 2 i ann@kelp.example, 3 c c3@kelp.example",
			func(how postgres.Weigh) (postgres.MailDifference, error) {
				return k.store.MapRole(t.Context(), postgres.Connection{Tenant: 1, ID: 1}, "buyer", "payer", how, ann)
			}},
		{"delete", "-1 i ann@kelp.example, -2 i ann@kelp.example, false i 2 at 2, bare 1 i, bare 2 i", reminders,
			func(how postgres.Weigh) (postgres.MailDifference, error) {
				_, d, err := k.store.DeleteRole(t.Context(), 1, "Payer", "Silent", how, ann)
				return d, err
			}},
		{"assign", "+2 c ann@kelp.example, true c 1 at 1", "1 c c1@kelp.example, 2 c ann@kelp.example, 2 c c2@kelp.example, 3 c c3@kelp.example",
			func(how postgres.Weigh) (postgres.MailDifference, error) {
				_, d, err := k.store.AssignRole(t.Context(), 1, postgres.Assignment{Contact: "Ann@kelp.example", Customer: "erp:102", Role: "Reminded"}, how, ann)
				return d, err
			}},
	} {
		before, history := k.recipients(), k.told()
		shown, err := c.change(postgres.Weigh{Rehearse: true})
		if err != nil || difference(shown) != c.want {
			t.Errorf("%s would do %s, %v\nwant %s", c.name, difference(shown), err, c.want)
		}
		if k.recipients() != before || k.told() != history {
			t.Errorf("the rehearsal of %s wrote something", c.name)
		}
		d, err := c.change(postgres.Weigh{Shown: &shown})
		if err != nil || difference(d) != c.want {
			t.Errorf("%s does %s, %v", c.name, difference(d), err)
		}
		k.wantRecipients(c.after)
	}
	want := "role 1 invoice_presentment false > true ann asked by phone; role 1 invoice_presentment true > false ann asked by phone; " +
		"role_mapping 3 role of ERP role 7 Silent (2) > Payer (3) ann asked by phone; " +
		"role_mapping 2 role of ERP role 7 Payer (3) > Silent (2) ann asked by phone; role 3 deleted Payer > ann asked by phone; " +
		"customer_contact 5 role choice > Reminded (1) ann asked by phone"
	if got := k.told(); got != want {
		t.Errorf("history %s\nwant    %s", got, want)
	}
	if d, err := k.store.SetRole(t.Context(), 1, "1", &no, nil, postgres.Weigh{}, ann); err != nil || difference(d) != "" || k.told() != want {
		t.Errorf("what is so already is a change: %s, %v", difference(d), err)
	}
}

// TestRolesAreRefusedClearly: the 31st, a name twice, a role in use, and what is not there, each with what to do.
func TestRolesAreRefusedClearly(t *testing.T) {
	k := people(t)
	ctx := t.Context()
	id, err := k.store.AddRole(ctx, 1, contact.Role{Name: " Spare role ", InvoicePresentment: true}, ann)
	if err != nil || !strings.Contains(k.told(), fmt.Sprintf("role %d created > Spare role ann", id)) {
		t.Fatalf("%v, %s", err, k.told())
	}
	if err := k.store.RenameRole(ctx, 1, "Spare role", "Other role", ann); err != nil {
		t.Fatal(err)
	}
	statements(t, k.db, `INSERT INTO roles (tenant_id, name) SELECT 1, 'Role ' || n FROM generate_series(5, 30) n`)
	if _, _, err := k.store.AssignRole(ctx, 1, postgres.Assignment{Contact: "4", AllCustomers: true, Role: "Payer"}, postgres.Weigh{}, ann); err != nil {
		t.Fatal(err)
	}
	c := postgres.Connection{Tenant: 1, ID: 1}
	for want, refused := range map[string]func() error{
		"has 30 roles":                func() error { _, err := k.store.AddRole(ctx, 1, contact.Role{Name: "x"}, ann); return err },
		`a role "reminded" already`:   func() error { return k.store.RenameRole(ctx, 1, "Payer", "reminded", ann) },
		"needs a name":                func() error { return k.store.RenameRole(ctx, 1, "Payer", " ", ann) },
		"--move-to ROLE":              func() error { _, _, err := k.store.DeleteRole(ctx, 1, "Payer", "", postgres.Weigh{}, ann); return err },
		"given to 2 contacts, and 0":  func() error { _, _, err := k.store.DeleteRole(ctx, 1, "Payer", "", postgres.Weigh{}, ann); return err },
		"to itself":                   func() error { _, _, err := k.store.DeleteRole(ctx, 1, "Payer", "3", postgres.Weigh{}, ann); return err },
		`role "Nobody": not found`:    func() error { _, err := k.store.MapRole(ctx, c, "7", "Nobody", postgres.Weigh{}, ann); return err },
		"use the key, one of 8, 9":    func() error { _, err := k.store.MapRole(ctx, c, "spare", "Payer", postgres.Weigh{}, ann); return err },
		"has met 7 (Buyer), 8 (Spare": func() error { _, err := k.store.MapRole(ctx, c, "Boss", "Payer", postgres.Weigh{}, ann); return err },
		`role "4": not found`:         func() error { _, err := k.store.SetRole(ctx, 1, "4", &yes, nil, postgres.Weigh{}, ann); return err }, // tenant 2's
	} {
		before, history := k.recipients(), k.told()
		if err := refused(); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("want %q: %v", want, err)
		}
		if k.recipients() != before || k.told() != history {
			t.Errorf("%s: something was written", want)
		}
	}
	use, _, err := k.store.DeleteRole(ctx, 1, "Payer", "Reminded", postgres.Weigh{}, ann)
	choices := k.value(`SELECT string_agg(role_id || chosen_by, ' ') FROM contactsync.role_choices`)
	if err != nil || use != (postgres.RoleUse{Choices: 2}) || choices != "1ann 1ann" {
		t.Errorf("%+v, %s, %v", use, choices, err)
	}
}

// TestAssignmentNamesItsPlaces: at several customers none is guessed, and the same words twice are never ours and the ERP's.
func TestAssignmentNamesItsPlaces(t *testing.T) {
	k := people(t)
	for want, a := range map[string]postgres.Assignment{
		"at 2 customers: name one":    {Contact: "4", Role: "Payer"},
		"not at customer 3":           {Contact: "4", Role: "Payer", Customer: "Customer 3"},
		"more than one has this name": {Contact: "4", Role: "Payer", Customer: "Store"},
		`customer "erp:2"`:            {Contact: "4", Role: "Payer", Customer: "erp:2000"},
		"contact: not found":          {Contact: "nobody@kelp.example", Role: "Payer"},
	} {
		_, _, err := k.store.AssignRole(t.Context(), 1, a, postgres.Weigh{}, ann)
		if err == nil || !strings.Contains(err.Error(), strings.TrimSuffix(want, `"`)) {
			t.Errorf("want %q: %v", want, err)
		}
	}
	for _, a := range []postgres.Assignment{
		{Contact: "4", Role: "Payer", Customer: "2"}, {Contact: "4", Role: "Payer", Customer: "erp:102"}, {Contact: "4", Role: "Payer", Customer: "customer 2"},
	} {
		places, _, err := k.store.AssignRole(t.Context(), 1, a, postgres.Weigh{Rehearse: true}, ann)
		if err != nil || len(places) != 1 || places[0].Customer != 2 || places[0].ERPRole != "Buyer" || places[0].Mapped != "Silent" {
			t.Errorf("%+v: %+v, %v", a, places, err)
		}
	}
	statements(t, k.db, `UPDATE customer_contacts SET active = false, inactive_reason = 'detached' WHERE id = 4`)
	places, _, err := k.store.AssignRole(t.Context(), 1, postgres.Assignment{Contact: "4", Role: "Payer"}, postgres.Weigh{}, ann)
	if err != nil || len(places) != 1 || places[0].Customer != 2 {
		t.Errorf("at the one customer it is attached to: %+v, %v", places, err)
	}
}

// TestOwnContacts guards Centime's own contacts: made, changed and deleted by people alone, each with who and why, and what the
// ERP's refuse.
func TestOwnContacts(t *testing.T) {
	k := people(t)
	ctx := t.Context()
	n := postgres.NewContact{
		Person: contact.Person{Name: "Bea", JobTitle: "Payables"}, Customers: []string{"Customer 1", "erp:103"}, Role: "Payer",
		Points: contact.PointEdits{Add: []contact.NewPoint{{Kind: contact.Email, Value: "bea@kelp.example"}, {Kind: contact.Email, Value: "bea2@kelp.example"},
			{Kind: contact.Mobile, Value: "218 555 0142"}}},
	}
	shown, err := k.store.CreateContact(ctx, 1, n, postgres.Weigh{Rehearse: true}, ann)
	if err != nil || shown.Contact != 0 || shown.Mail.Changes[0].ContactID != 0 || k.value(`SELECT count(*) FROM contactsync.contacts`) != "4" {
		t.Fatalf("rehearsed: %+v, %v", shown, err)
	}
	made, err := k.store.CreateContact(ctx, 1, n, postgres.Weigh{Shown: &shown.Mail}, ann)
	if err != nil || made.Contact == 0 {
		t.Fatalf("%+v, %v", made, err)
	}
	id := fmt.Sprint(made.Contact)
	invoices := func(at ...string) string {
		all := append(strings.Split(reminders, ", "), at...)
		slices.Sort(all)
		return strings.Join(all, ", ")
	}
	k.wantRecipients(invoices("1 i bea@kelp.example", "1 i bea2@kelp.example", "3 i bea@kelp.example", "3 i bea2@kelp.example"))

	today := k.value(`SELECT (now() AT TIME ZONE 'Pacific/Auckland')::date`)
	title := "Lead"
	edit := postgres.ContactEdit{
		Contact: id, JobTitle: &title, Join: []string{"2"}, Leave: []string{"Customer 1"}, Role: "Reminded",
		Points: contact.PointEdits{
			Drop: []string{"bea2@kelp.example"}, Add: []contact.NewPoint{{Kind: contact.Email, Value: "new@kelp.example"}}, Primary: []string{"new@kelp.example"},
			Days: []contact.PointDays{{Value: "bea@kelp.example", Days: contact.Days{First: today, Last: today}}},
		},
	}
	changed, err := k.store.UpdateContact(ctx, 1, edit, postgres.Weigh{}, ann)
	if err != nil || !changed.Changed {
		t.Fatalf("%+v, %v", changed, err)
	}
	// Whole days in the tenant's time zone: today is its last, and it is still mailed.
	k.wantRecipients(invoices("2 c bea@kelp.example", "2 c new@kelp.example", "3 i bea@kelp.example", "3 i new@kelp.example"))
	edit.Points = contact.PointEdits{Days: []contact.PointDays{{Value: "bea@kelp.example", Days: contact.Days{Last: "2020-01-01"}}}}
	edit.Leave, edit.Join, edit.Role = nil, nil, ""
	if _, err := k.store.UpdateContact(ctx, 1, edit, postgres.Weigh{}, ann); err != nil {
		t.Fatal(err)
	}
	k.wantRecipients(invoices("2 c new@kelp.example", "3 i new@kelp.example"))
	if again, err := k.store.UpdateContact(ctx, 1, edit, postgres.Weigh{}, ann); err != nil || again.Changed {
		t.Errorf("the same edit again changes something: %v", err)
	}
	if _, err := k.store.UpdateContact(ctx, 1, postgres.ContactEdit{Contact: id, Leave: []string{"2", "3"}}, postgres.Weigh{}, ann); err == nil ||
		!strings.Contains(err.Error(), "contact delete") {
		t.Errorf("a contact at no customer: %v", err)
	}

	before := k.value(`SELECT count(*) FROM contactsync.history`)
	gone, err := k.store.DeleteContact(ctx, 1, id, postgres.Weigh{}, ann)
	if err != nil || difference(gone.Mail) != "-2 c new@kelp.example, -3 i new@kelp.example, false c 1 at 1, false i 1 at 1, bare 3 i" {
		t.Errorf("%s, %v", difference(gone.Mail), err)
	}
	k.wantRecipients(reminders)
	if left := k.value(`SELECT (SELECT count(*) FROM contactsync.contacts WHERE origin = 'centime')
		+ (SELECT count(*) FROM contactsync.contact_points WHERE origin = 'centime')
		+ (SELECT count(*) FROM contactsync.customer_contacts WHERE origin = 'centime')`); left != "0" {
		t.Errorf("%s rows are left of it", left)
	}
	if after := k.value(`SELECT count(*) FROM contactsync.history`); after <= before {
		t.Error("its history is not told on")
	}
	events, err := k.store.History(ctx, 1, id)
	if err != nil {
		t.Fatal(err)
	}
	var story []string
	for _, e := range events {
		story = append(story, strings.TrimSpace(strings.Join([]string{e.Entity, e.Field, e.Was, ">", e.Became}, " ")))
		if e.By != "ann" || e.Why != ann.Reason {
			t.Errorf("%+v does not say who and why", e)
		}
	}
	for _, part := range []string{
		"contact created  > Bea", "contact job_title Payables > Lead", "contact point:email:2 bea2@kelp.example > new@kelp.example",
		"customer_contact role choice  > Payer (3)", "customer_contact role choice Reminded (1) >",
		"contact point:email:1:days  > " + today + ".." + today, "contact point:email:2 new@kelp.example >", "contact deleted Bea >",
	} {
		if !slices.Contains(story, part) {
			t.Errorf("the history does not tell %q:\n%s", part, strings.Join(story, "\n"))
		}
	}

	for want, refused := range map[string]func() error{
		"netsuite's (connection 1)": func() error {
			_, err := k.store.UpdateContact(ctx, 1, postgres.ContactEdit{Contact: "4", Name: &title}, postgres.Weigh{}, ann)
			return err
		},
		"contact assign-role 4 ROLE --tenant 1": func() error { _, err := k.store.DeleteContact(ctx, 1, "4", postgres.Weigh{}, ann); return err },
		"connection 3, and the contact": func() error {
			two := n
			two.Customers = []string{"1", "erp:2"}
			_, err := k.store.CreateContact(ctx, 1, two, postgres.Weigh{}, ann)
			return err
		},
		"not found": func() error { _, err := k.store.DeleteContact(ctx, 2, "4", postgres.Weigh{}, ann); return err },
	} {
		if err := refused(); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("want %q: %v", want, err)
		}
	}
	if k.value(`SELECT name FROM contactsync.contacts WHERE id = 4`) != "Ann" {
		t.Error("a contact of the ERP was changed")
	}
}

// TestWhoMayHaveLeft guards the warning: an address that the ERP has only in contacts which are not active any more, and that a
// contact made in Centime is still mailed at.
func TestWhoMayHaveLeft(t *testing.T) {
	k := people(t)
	n := postgres.NewContact{
		Person: contact.Person{Name: "Ann"}, Customers: []string{"3"}, Role: "Payer",
		Points: contact.PointEdits{Add: []contact.NewPoint{{Kind: contact.Email, Value: "ANN@kelp.example"}}},
	}
	made, err := k.store.CreateContact(t.Context(), 1, n, postgres.Weigh{}, ann)
	if err != nil || len(made.Left) != 0 {
		t.Fatalf("she is active in the ERP: %+v, %v", made, err)
	}
	find := func() []postgres.Left {
		t.Helper()
		found, err := k.store.LeftButMailed(t.Context(), 0)
		if err != nil {
			t.Fatal(err)
		}
		return found
	}
	for _, c := range []struct {
		given  string
		reason string // empty: no warning
	}{
		{`UPDATE customer_contacts SET active = false, inactive_reason = 'detached' WHERE id = 4`, ""}, // still at customer 2
		{`UPDATE customer_contacts SET active = false, inactive_reason = 'detached' WHERE id = 5`, "detached"},
		{`UPDATE customer_contacts SET active = true, inactive_reason = NULL WHERE contact_id = 4`, ""},
		{`UPDATE contacts SET active = false, inactive_reason = 'erp_absent' WHERE id = 4`, "erp_absent"},
		{`UPDATE roles SET invoice_presentment = false WHERE id = 3`, ""}, // gets no mail
		{`UPDATE roles SET invoice_presentment = true WHERE id = 3;
			UPDATE contact_points SET normalised = 'ann@KELP.example' WHERE contact_id = 1`, ""}, // another has it
	} {
		statements(t, k.db, c.given)
		found := find()
		var want []postgres.Left
		if c.reason != "" {
			want = []postgres.Left{{Tenant: 1, Connection: 1, Contact: made.Contact, Email: "ANN@kelp.example", ERPContact: 4, Reason: c.reason}}
		}
		if !slices.Equal(found, want) {
			t.Errorf("%s: %+v, want %+v", c.given, found, want)
		}
	}
	statements(t, k.db, `UPDATE contact_points SET normalised = 'c1@kelp.example' WHERE contact_id = 1`)
	attention, err := k.store.Attention(t.Context(), nil)
	if err != nil {
		t.Fatal(err)
	}
	at := slices.IndexFunc(attention.Items, func(i postgres.Item) bool { return i.Kind == "may_have_left" })
	command := fmt.Sprintf("syncctl contact explain %d --tenant 1", made.Contact)
	if at < 0 || attention.Items[at].Severity != postgres.Info || attention.Items[at].Command != command {
		t.Errorf("status does not tell: %+v", attention.Items)
	}
	n.Customers = []string{"1"}
	if made, err := k.store.CreateContact(t.Context(), 1, n, postgres.Weigh{}, ann); err != nil || len(made.Left) != 1 {
		t.Errorf("another contact with the address: %+v, %v", made, err)
	}
}

// another is a transaction of somebody else as a role of the database; commit ends it.
func (k kelp) another(role, statement string) (commit func()) {
	k.t.Helper()
	tx, err := k.db.BeginTx(k.t.Context(), nil)
	if err != nil {
		k.t.Fatal(err)
	}
	k.t.Cleanup(func() { _ = tx.Rollback() })
	if _, err := tx.ExecContext(k.t.Context(), `SELECT set_config('contactsync.tenant_id', '1', true), set_config('role', $1, true),
		set_config('search_path', 'contactsync, public', true)`, role); err != nil {
		k.t.Fatal(err)
	}
	if _, err := tx.ExecContext(k.t.Context(), statement); err != nil {
		k.t.Fatalf("%s: %v", statement, err)
	}
	return func() {
		if err := tx.Commit(); err != nil {
			k.t.Error(err)
		}
	}
}

// meanwhile runs f, waits until it waits for a lock, then lets end happen.
func (k kelp) meanwhile(end func(), f func() error) error {
	k.t.Helper()
	done := make(chan error, 1)
	go func() { done <- f() }()
	ctx, cancel := context.WithTimeout(k.t.Context(), 20*time.Second)
	defer cancel()
	for {
		var waits bool
		err := k.db.QueryRowContext(ctx, `SELECT EXISTS (SELECT FROM pg_stat_activity
			WHERE datname = current_database() AND wait_event_type = 'Lock')`).Scan(&waits)
		if err != nil {
			k.t.Fatalf("it never waited: %v", err)
		}
		if waits {
			break
		}
		select {
		case err := <-done:
			k.t.Error("it did not wait")
			end()
			return err
		default:
		}
	}
	end()
	return <-done
}

// TestTwoAtOnceHaveOneOutcome: whatever two people, or a person and a sync, do at once, both changes hold or one is refused and
// says so; none is lost.
func TestTwoAtOnceHaveOneOutcome(t *testing.T) {
	t.Parallel()
	t.Run("ChoiceWhileASyncSaves", func(t *testing.T) {
		k := people(t)
		commit := k.another("contactsync_sync", `UPDATE contacts SET name = 'Ann Solheim' WHERE id = 4;
			UPDATE contact_points SET value = 'new@kelp.example', normalised = 'new@kelp.example' WHERE contact_id = 4;
			UPDATE customer_contacts SET link_role_key = '8' WHERE contact_id = 4`)
		_, _, err := k.store.AssignRole(t.Context(), 1, postgres.Assignment{Contact: "4", AllCustomers: true, Role: "Payer"}, postgres.Weigh{}, ann)
		if err != nil {
			t.Fatal(err)
		}
		commit()
		k.wantRecipients("1 c c1@kelp.example, 1 i new@kelp.example, 2 c c2@kelp.example, 2 i new@kelp.example, 3 c c3@kelp.example")
	})
	t.Run("SameRole", func(t *testing.T) {
		k := people(t)
		commit := k.another("contactsync_app", `UPDATE roles SET invoice_presentment = true WHERE id = 1`)
		var d postgres.MailDifference
		err := k.meanwhile(commit, func() (err error) {
			d, err = k.store.SetRole(t.Context(), 1, "1", nil, &no, postgres.Weigh{}, ann)
			return err
		})
		if err != nil || k.recipients() != "1 i c1@kelp.example, 2 i c2@kelp.example, 3 i c3@kelp.example" {
			t.Errorf("%v, mail goes to %s", err, k.recipients())
		}
		if got := difference(d); strings.Contains(got, " i ") {
			t.Errorf("it says of another's change that it is its own: %s", got)
		}
	})
	t.Run("ShownAndChanged", func(t *testing.T) {
		k := people(t)
		shown, err := k.store.SetRole(t.Context(), 1, "Silent", &yes, nil, postgres.Weigh{Rehearse: true}, ann)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := k.store.MapRole(t.Context(), postgres.Connection{Tenant: 1, ID: 1}, "7", "Payer", postgres.Weigh{}, ann); err != nil {
			t.Fatal(err)
		}
		before := k.recipients()
		if _, err := k.store.SetRole(t.Context(), 1, "Silent", &yes, nil, postgres.Weigh{Shown: &shown}, ann); !errors.Is(err, postgres.ErrMeanwhile) {
			t.Errorf("what was shown is not what it does: %v", err)
		}
		k.wantRecipients(before)
	})
	t.Run("NotItsDoing", func(t *testing.T) {
		k := people(t)
		// Somebody holds the role's row while a customer goes: the difference begins before that and ends after it.
		commit := k.another("contactsync_sync", `SELECT FROM tenants WHERE tenant_id = 1 FOR UPDATE;
			UPDATE customers SET active = false, inactive_reason = 'erp_inactive' WHERE id = 3`)
		var d postgres.MailDifference
		err := k.meanwhile(commit, func() (err error) {
			_, d, err = k.store.DeleteRole(t.Context(), 1, "Payer", "", postgres.Weigh{}, ann)
			return err
		})
		if err != nil || difference(d) != "" {
			t.Errorf("%s, %v: it says of a sync's change that it is its own", difference(d), err)
		}
	})
	t.Run("DeletedWhileASyncMaps", func(t *testing.T) {
		k := people(t)
		commit := k.another("contactsync_sync", `SELECT FROM tenants WHERE tenant_id = 1 FOR UPDATE;
			UPDATE role_mappings SET erp_role_name = 'Purchaser' WHERE erp_role_key = '7';
			INSERT INTO roles (tenant_id, name) VALUES (1, 'New'); INSERT INTO role_mappings VALUES (1, 1, '99', 'Silent', 2)`)
		var use postgres.RoleUse
		err := k.meanwhile(commit, func() (err error) {
			use, _, err = k.store.DeleteRole(t.Context(), 1, "Silent", "Payer", postgres.Weigh{}, ann)
			return err
		})
		if err != nil || use.Mappings != 4 || k.value(`SELECT count(*) FROM contactsync.role_mappings WHERE role_id = 3`) != "4" {
			t.Errorf("%+v, %v", use, err)
		}
	})
	t.Run("DeletedWhileASyncJoins", func(t *testing.T) {
		k := people(t)
		commit := k.another("contactsync_sync", `SELECT FROM tenants WHERE tenant_id = 1 FOR UPDATE; INSERT INTO role_mappings VALUES (1, 1, '99', 'Silent', 2)`)
		var use postgres.RoleUse
		err := k.meanwhile(commit, func() (err error) {
			use, _, err = k.store.DeleteRole(t.Context(), 1, "Silent", "Payer", postgres.Weigh{}, ann)
			return err
		})
		if err != nil || use.Mappings != 4 || k.value(`SELECT count(*) FROM contactsync.role_mappings WHERE role_id = 3`) != "4" {
			t.Errorf("what joined it does not move with it: %+v, %v", use, err)
		}
	})
	t.Run("DeletedWhileItIsChosen", func(t *testing.T) {
		k := people(t)
		commit := k.another("contactsync_app", `INSERT INTO role_choices (tenant_id, customer_contact_id, role_id, chosen_by) VALUES (1, 4, 2, 'bea')`)
		err := k.meanwhile(commit, func() error {
			_, _, err := k.store.DeleteRole(t.Context(), 1, "Silent", "Payer", postgres.Weigh{}, ann)
			return err
		})
		if !errors.Is(err, postgres.ErrMeanwhile) || k.value(`SELECT count(*) FROM contactsync.role_mappings WHERE role_id = 2`) != "3" {
			t.Errorf("%v", err)
		}
	})
	t.Run("TwoEdits", func(t *testing.T) {
		k := people(t)
		made, err := k.store.CreateContact(t.Context(), 1, postgres.NewContact{Person: contact.Person{Name: "Bea"}, Customers: []string{"1"}, Role: "Payer",
			Points: contact.PointEdits{Add: []contact.NewPoint{{Kind: contact.Email, Value: "bea@kelp.example"}}}}, postgres.Weigh{}, ann)
		if err != nil {
			t.Fatal(err)
		}
		edit := postgres.ContactEdit{Contact: fmt.Sprint(made.Contact), Seen: made.Seen,
			Points: contact.PointEdits{Add: []contact.NewPoint{{Kind: contact.Email, Value: "two@kelp.example"}}}}
		other := fmt.Sprintf(`UPDATE contacts SET updated_at = now() WHERE id = %d;
			INSERT INTO contact_points VALUES (1, %[1]d, 'centime', 'email', 2, 'email', 'one@kelp.example', 'one@kelp.example', true, false, true)`, made.Contact)
		update := func() error {
			_, err := k.store.UpdateContact(t.Context(), 1, edit, postgres.Weigh{}, ann)
			return err
		}
		if err := k.meanwhile(k.another("contactsync_app", other), update); !errors.Is(err, postgres.ErrMeanwhile) {
			t.Errorf("of a contact seen before another's edit: %v", err)
		}
		edit.Seen = time.Time{}
		if err := update(); err != nil {
			t.Error(err)
		}
		got := k.value(`SELECT string_agg(value, ' ' ORDER BY place) FROM contactsync.contact_points WHERE origin = 'centime'`)
		if got != "bea@kelp.example one@kelp.example two@kelp.example" {
			t.Errorf("an edit is lost: %s", got)
		}
	})
	t.Run("TwoChoices", func(t *testing.T) {
		k := people(t)
		commit := k.another("contactsync_app", `INSERT INTO role_choices (tenant_id, customer_contact_id, role_id, chosen_by) VALUES (1, 4, 1, 'bea')`)
		var places []postgres.Place
		err := k.meanwhile(commit, func() (err error) {
			places, _, err = k.store.AssignRole(t.Context(), 1, postgres.Assignment{Contact: "4", Customer: "1", Role: "Payer"}, postgres.Weigh{}, ann)
			return err
		})
		if err != nil || len(places) != 1 || places[0].Chosen != "Reminded" || !strings.Contains(k.told(), "Reminded (1) > Payer (3)") {
			t.Errorf("the choice before it is not told: %+v, %v, %s", places, err, k.told())
		}
	})
}

// TestNoRoleIsJoinedWhileItsMailIsDecided guards "no guessing who gets mail" between a person who switches on what a role gets and whoever
// lets an ERP role stand for it meanwhile, a sync or another person: the mail is in what was shown, or nothing is changed.
func TestNoRoleIsJoinedWhileItsMailIsDecided(t *testing.T) {
	t.Parallel()
	const switchOn = `UPDATE roles SET invoice_presentment = true WHERE id = 2`
	t.Run("SwitchedOnFirst", func(t *testing.T) {
		k := people(t)
		commit := k.another("contactsync_app", switchOn)
		err := k.meanwhile(commit, func() (err error) {
			as(t, k.db, "contactsync_sync", 1, func(tx *sql.Tx) {
				_, err = tx.ExecContext(t.Context(), `INSERT INTO role_mappings VALUES (1, 1, '99', 'Silent', 2)`)
			})
			return err
		})
		if err == nil || !strings.Contains(err.Error(), "a role that gets mail") {
			t.Errorf("a sync joined a role whose mail was being switched on: %v", err)
		}
	})
	t.Run("APageMeetsTheRoleThen", func(t *testing.T) {
		k := people(t)
		statements(t, k.db, `INSERT INTO runs (tenant_id, connection_id, mode, trigger, status, fencing, lease_until, started_at, listing_began_at)
			VALUES (1, 1, 'incremental', 'manual', 'running', 1, now() + interval '1 hour', now(), now())`)
		link := connector.Link{Customer: "103", Contact: "14", Roles: []connector.ERPRole{{Key: "99", Name: "Silent"}}}
		step := postgres.Step{Tenant: 1, Run: 1, Connection: 1, Fencing: 1, Lease: time.Hour, ERPLabel: "NetSuite"}
		commit := k.another("contactsync_app", `SELECT FROM tenants WHERE tenant_id = 1 FOR NO KEY UPDATE; `+switchOn)
		err := k.meanwhile(commit, func() error {
			_, err := k.store.SavePage(t.Context(), step, reconcile.Read(connector.Page{Links: []connector.Link{link}, Next: "1"}), 1)
			return err
		})
		role := k.value(`SELECT r.name FROM contactsync.role_mappings m JOIN contactsync.roles r ON r.id = m.role_id WHERE m.erp_role_key = '99'`)
		if err != nil || role != "Silent (NetSuite)" {
			t.Errorf("the ERP role stands for %s, %v", role, err)
		}
	})
	for name, join := range map[string]struct{ as, statement string }{
		"ASyncJoinedFirst": {"contactsync_sync", `INSERT INTO role_mappings VALUES (1, 1, '99', 'Silent', 2);
			UPDATE customer_contacts SET link_role_key = '99', stated_by = stated_by || '{link}' WHERE id = 3`},
		"SomebodyMappedFirst": {"contactsync_app", `UPDATE role_mappings SET role_id = 2 WHERE erp_role_key = 'company'`},
	} {
		t.Run(name, func(t *testing.T) {
			k := people(t)
			set := func(how postgres.Weigh) (d postgres.MailDifference, err error) {
				return k.store.SetRole(t.Context(), 1, "Silent", &yes, nil, how, ann)
			}
			shown, err := set(postgres.Weigh{Rehearse: true})
			if err != nil {
				t.Fatal(err)
			}
			err = k.meanwhile(k.another(join.as, join.statement), func() error {
				_, err := set(postgres.Weigh{Shown: &shown})
				return err
			})
			if !errors.Is(err, postgres.ErrMeanwhile) || strings.Contains(k.recipients(), " i ") {
				t.Errorf("%v, mail goes to %s", err, k.recipients())
			}
			if d, err := set(postgres.Weigh{}); err != nil || !strings.Contains(difference(d), "+3 i c3@kelp.example") {
				t.Errorf("%v, shown %s", err, difference(d))
			}
		})
	}
	t.Run("MappedWhileItIsSwitchedOn", func(t *testing.T) {
		k := people(t)
		var d postgres.MailDifference
		err := k.meanwhile(k.another("contactsync_app", switchOn), func() (err error) {
			d, err = k.store.MapRole(t.Context(), postgres.Connection{Tenant: 1, ID: 1}, "company", "Silent", postgres.Weigh{}, ann)
			return err
		})
		if err != nil || !strings.Contains(difference(d), "+3 i c3@kelp.example") {
			t.Errorf("%v, shown %s", err, difference(d))
		}
	})
}

// TestPeopleCannotTouchWhatIsTheERPs guards "nothing else of it can be edited" in SQL, for people of a tenant and for ops: the
// policies hide rows silently, so rows are compared.
func TestPeopleCannotTouchWhatIsTheERPs(t *testing.T) {
	k := people(t)
	const state = `SELECT md5(string_agg(r, '|' ORDER BY r)) FROM (SELECT c::text AS r FROM contactsync.contacts c WHERE origin = 'erp'
		UNION ALL SELECT p::text FROM contactsync.contact_points p WHERE origin = 'erp'
		UNION ALL SELECT l::text FROM contactsync.customer_contacts l WHERE origin = 'erp'
		UNION ALL SELECT c::text FROM contactsync.customers c) AS rows`
	before := k.value(state)
	for _, role := range []string{"contactsync_app", "contactsync_ops"} {
		for _, statement := range []string{
			`UPDATE contacts SET name = 'stolen'`, `UPDATE contacts SET active = false, inactive_reason = 'erp_absent'`,
			`UPDATE contact_points SET value = 'thief@t.example', normalised = 'thief@t.example'`, `DELETE FROM contact_points`,
			`UPDATE customer_contacts SET active = false, inactive_reason = 'detached'`, `UPDATE customer_contacts SET link_role_key = '8'`,
			`DELETE FROM customer_contacts`, `DELETE FROM contacts`, `DELETE FROM customers`,
			`INSERT INTO contacts (tenant_id, connection_id, origin, erp_id, name, active) VALUES (1, 1, 'erp', '77', 'Planted', true)`,
			`INSERT INTO contact_points VALUES (1, 4, 'erp', 'email', 2, 'email', 'thief@t.example', 'thief@t.example', true, false, true)`,
			`INSERT INTO contact_points VALUES (1, 4, 'centime', 'email', 2, 'email', 'thief@t.example', 'thief@t.example', true, false, true)`,
			`INSERT INTO customer_contacts (tenant_id, connection_id, customer_id, contact_id, origin, active) VALUES (1, 1, 3, 4, 'centime', true)`,
		} {
			as(t, k.db, role, 1, func(tx *sql.Tx) {
				if _, err := tx.ExecContext(t.Context(), statement); err != nil {
					return // loudly
				}
				if err := tx.Commit(); err != nil {
					t.Fatal(err)
				}
			})
			if k.value(state) != before {
				t.Fatalf("%s may %s", role, statement)
			}
		}
	}
}

// TestOldChoicesFindTheirConnection: what people chose before their history had a connection is found by a later purge, at a place that is there and
// at one that is not any more.
func TestOldChoicesFindTheirConnection(t *testing.T) {
	k := people(t)
	statements(t, k.db, `INSERT INTO history (tenant_id, connection_id, entity, entity_id, field, became, by_user, reason) VALUES
		(1, NULL, 'customer_contact', 4, 'chosen_role', 'Payer', 'ann', 'Ann asked'), (1, NULL, 'customer_contact', 999, 'chosen_role', 'Payer', 'ann', 'she left'),
		(1, 1, 'contact', 4, 'place:999', 'gone', 'ann', '')`)
	text, err := os.ReadFile(filepath.Join("migrations", "00019_choices_history.sql"))
	if err != nil {
		t.Fatal(err)
	}
	_, up, _ := strings.Cut(string(text), "-- +goose Up")
	up, _, _ = strings.Cut(up, "-- +goose Down")
	statements(t, k.db, up)
	if got := k.value(`SELECT string_agg(entity_id || ' ' || coalesce(connection_id::text, 'none'), ', ' ORDER BY entity_id) FROM contactsync.history
		WHERE entity = 'customer_contact'`); got != "4 1, 999 1" {
		t.Errorf("choices and their connections: %s", got)
	}
	if got := k.value(`SELECT count(*) FROM pg_class WHERE oid IN ('contactsync.history'::regclass, 'contactsync.customer_contacts'::regclass) AND relforcerowsecurity`); got != "2" {
		t.Errorf("%s of two tables force row-level security", got)
	}
}

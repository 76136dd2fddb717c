package syncing_test

import (
	"context"
	"database/sql"
	"encoding/hex"
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/centime/contactsync/internal/connector"
	"github.com/centime/contactsync/internal/connector/memory"
	"github.com/centime/contactsync/internal/postgres"
	"github.com/centime/contactsync/internal/postgres/pgtest"
	"github.com/centime/contactsync/internal/reconcile"
)

// found looks for texts in every column of every table, whatever its type, and says where it met them. The tables are the
// database's own list, so that a new one is looked through as well.
func (w *world) found(texts ...string) []string {
	w.t.Helper()
	db, err := sql.Open("postgres", w.dsn)
	if err != nil {
		w.t.Fatal(err)
	}
	defer db.Close()
	rows, err := db.QueryContext(w.ctx, `SELECT format('%I.%I', table_schema, table_name) FROM information_schema.tables
		WHERE table_type = 'BASE TABLE' AND table_schema NOT IN ('pg_catalog', 'information_schema') ORDER BY 1`)
	if err != nil {
		w.t.Fatal(err)
	}
	defer rows.Close()
	var tables []string
	for rows.Next() {
		var table string
		if err := rows.Scan(&table); err != nil {
			w.t.Fatal(err)
		}
		tables = append(tables, table)
	}
	if err := rows.Err(); err != nil || len(tables) < 18 {
		w.t.Fatalf("%d tables, %v", len(tables), err)
	}
	var met, bytes []string
	for _, text := range texts {
		bytes = append(bytes, hex.EncodeToString([]byte(text)))
	}
	for _, table := range tables {
		where := pgtest.Value(w.t, w.dsn, `SELECT string_agg(DISTINCT s.text, ' and ') FROM `+table+` t, unnest($1::text[], $2::text[]) AS s (text, bytes)
			WHERE position(lower(s.text) IN lower(t::text)) > 0 OR position(s.bytes IN t::text) > 0`, texts, bytes)
		if where != "" {
			met = append(met, where+" in "+table)
		}
	}
	return met
}

// rows counts the rows of each of a tenant's tables.
func (w *world) rows(tenant int64) string {
	w.t.Helper()
	return pgtest.Value(w.t, w.dsn, `SELECT string_agg(format('%s %s', c.relname, (xpath('/row/n/text()', query_to_xml(
			format('SELECT count(*) AS n FROM %s WHERE tenant_id = %s', c.oid::regclass, $1::text), false, true, '')))[1]), '; ' ORDER BY c.relname)
		FROM pg_class c JOIN pg_attribute a ON a.attrelid = c.oid AND a.attname = 'tenant_id'
		WHERE c.relnamespace = 'contactsync'::regnamespace AND c.relkind = 'r'`, tenant)
}

// lived is a connection with something in every table: names, addresses and ids that are found nowhere else.
func lived(t *testing.T) (w *world, secrets []string) {
	w = setup(t, memory.NetSuite)
	for i := range 12 {
		w.erp.AddCustomer(connector.Customer{ID: fmt.Sprintf("cuqx%d", i), Name: fmt.Sprintf("Zyxlabs %d", i), Number: fmt.Sprintf("nrqx%d", i)},
			memory.Mail(fmt.Sprintf("billing%d@zyxmail.example", i)), memory.Phone("+1 555 0107733"))
		k := w.erp.AddContact(connector.Contact{ID: fmt.Sprintf("peqx%d", i), Name: fmt.Sprintf("Ingridqx %d", i), GivenName: "Ingridqx", FamilyName: "Vossqx",
			JobTitle: "Payerqx", Channels: []connector.Channel{memory.Mail(fmt.Sprintf("ingrid%d@zyxmail.example", i))}}, fmt.Sprintf("cuqx%d", i))
		w.erp.Attach(fmt.Sprintf("cuqx%d", i), k, connector.ERPRole{Key: "rkqx", Name: "Buyerqx"})
	}
	w.mustSync(postgres.Full)
	w.erp.EditCustomer("cuqx0", func(c *connector.Customer, own *connector.Contact) {
		c.Name, own.Name, own.Channels = "Zyxlabs renamed", "Zyxlabs renamed", []connector.Channel{memory.Mail("not an address zyxmail")}
	})
	w.erp.EditContact("peqx1", func(c *connector.Contact) {
		c.Name, c.Channels = "Married Ingridqx", []connector.Channel{memory.Mail("ingrid-zyxmail")}
	})
	w.erp.Inactivate(connector.Key{Kind: connector.Contacts, ID: "peqx2"})
	_, _, err := w.store.AssignRole(w.ctx, w.tenant, postgres.Assignment{
		Contact: pgtest.Value(t, w.dsn, `SELECT id FROM contactsync.contacts WHERE erp_id = 'peqx1'`),
		Role:    pgtest.Value(t, w.dsn, `SELECT min(id) FROM contactsync.roles`),
	}, postgres.Weigh{}, postgres.By{User: "ann", Reason: "Ingridqx asked"})
	if err != nil {
		t.Fatal(err)
	}
	w.exec(`INSERT INTO contacts (tenant_id, connection_id, origin, name, active) VALUES (1, 1, 'centime', 'Ownqx Person', true);
		INSERT INTO contact_points SELECT 1, id, origin, 'email', 1, 'email', 'own@zyxmail.example', 'own@zyxmail.example', true, true, true
			FROM contacts WHERE origin = 'centime';
		INSERT INTO customer_contacts (tenant_id, connection_id, customer_id, contact_id, origin, active)
			SELECT 1, 1, min(cu.id), co.id, 'centime', true FROM customers cu, contacts co WHERE co.origin = 'centime' GROUP BY co.id;
		INSERT INTO readers VALUES (1, 'kelpqx_bi')`)
	w.mustSync(postgres.Incremental)
	for i := 3; i < 11; i++ {
		w.erp.Detach(fmt.Sprintf("cuqx%d", i), fmt.Sprintf("peqx%d", i))
		w.erp.SetCompany(fmt.Sprintf("peqx%d", i), "")
	}
	w.preview(postgres.Full)
	if r := w.mustSync(postgres.Incremental); r.Held == 0 {
		t.Fatal("nothing is held: the hold's texts would not be looked for")
	}
	return w, []string{"zyx", "cuqx", "nrqx", "peqx", "ingrid", "vossqx", "payerqx", "0107733", "ownqx"}
}

// TestPurgeLeavesNothing: after a connection, or a tenant, is purged no table holds a name, address or id of it, in any column; a
// purge that was stopped goes on; a worker that still runs cannot write anything back; and another tenant keeps all it has.
func TestPurgeLeavesNothing(t *testing.T) {
	t.Parallel()
	for _, whole := range []bool{false, true} {
		t.Run(map[bool]string{false: "Connection", true: "Tenant"}[whole], func(t *testing.T) {
			w, secrets := lived(t)
			if len(w.found(secrets...)) < 9 {
				t.Fatalf("the texts were to be in many tables: %v", w.found(secrets...))
			}
			w.exec(`INSERT INTO tenants (name) VALUES ('Other'); INSERT INTO roles (tenant_id, name) VALUES (2, 'Theirs');
				INSERT INTO connections (tenant_id, erp, account, name, schedule, stale_at) VALUES (2, 'memory', 'a', 'books', 'off', now());
				INSERT INTO customers (tenant_id, connection_id, erp_id, name, kind, active) VALUES (2, 2, '1', 'Theirs', 'customer', true)`)
			other := w.rows(2)
			c, err := w.store.FindConnection(w.ctx, "Kelp books")
			if err != nil {
				t.Fatal(err)
			}
			run := w.queue(postgres.Full)
			out, err := w.store.HandOutNew(w.ctx, 1)
			if err != nil {
				t.Fatal(err)
			}
			claimed, err := w.store.Claim(w.ctx, run, out[0].Delivery, time.Minute)
			if err != nil {
				t.Fatal(err)
			}
			connection := c.ID
			if whole {
				connection = 0
			}
			ignore := func(string, int64) {}
			if err := w.store.Purge(w.ctx, w.tenant, connection, ops, ignore); err == nil || len(w.found("zyx")) == 0 {
				t.Fatalf("what was not removed is purged: %v", err)
			}
			if _, err := w.store.RemoveConnections(w.ctx, w.tenant, []postgres.Connection{c}, ops, false); err != nil {
				t.Fatal(err)
			}
			stopping, stop := context.WithCancel(w.ctx)
			if err := w.store.Purge(stopping, w.tenant, connection, ops, func(string, int64) { stop() }); err == nil {
				t.Fatal("a purge that was stopped says it is done")
			}
			if err := w.store.Purge(w.ctx, w.tenant, connection, ops, ignore); err != nil {
				t.Fatal(err)
			}
			page := connector.Page{Customers: []connector.Customer{{ID: "cuqx0", Name: "Zyxlabs"}}, Next: "x"}
			if _, err := w.store.SavePage(w.ctx, claimed.Step, reconcile.Read(page), 0); !errors.Is(err, postgres.ErrLeaseLost) {
				t.Errorf("a worker wrote after the purge: %v", err)
			}
			if whole {
				secrets = append(secrets, "buyerqx", "kelp", "acct-1") // the tenant's roles and the account's name are the tenant's
			}
			if met := w.found(secrets...); len(met) != 0 {
				t.Errorf("still there: %s", strings.Join(met, "; "))
			}
			if after := w.rows(2); after != other {
				t.Errorf("another tenant's rows changed\nbefore %s\nafter  %s", other, after)
			}
			if n := pgtest.Value(t, w.dsn, `SELECT count(*) FROM contactsync.history WHERE field = 'purged' AND by_user = 'tester'`); n != "1" {
				t.Errorf("%s rows say who purged", n)
			}
			if whole {
				return
			}
			// The account may come back as a new connection.
			if again := w.connect("Kelp again"); again == c.ID {
				t.Errorf("connecting the account again found the purged connection")
			}
			w.work()
			w.wantMirror()
		})
	}
}

// TestErasedPersonStaysAway: nothing of the person is left in any table, mail stops, and no sync brings anything back: it passes over
// the record and counts it as ignored, in a new connection of the same account too.
func TestErasedPersonStaysAway(t *testing.T) {
	w, _ := lived(t)
	gone := []string{"married ingridqx", "ingrid-zyxmail", "ingridqx 1\"", "ingrid1@zyxmail", "ingridqx asked", "peqx1\"", "peqx1,", "peqx1}"}
	if len(w.found(gone...)) < 3 {
		t.Fatalf("the texts were to be in several tables: %v", w.found(gone...))
	}
	found, err := w.store.FindErasable(w.ctx, w.tenant, "Ingrid-zyxmail")
	if err != nil || found.Own || found.Customers != "Zyxlabs 1" {
		t.Fatalf("%+v, %v", found, err)
	}
	before := w.versions()
	if _, err := w.store.EraseContact(w.ctx, w.tenant, found.ID, ops, true); err != nil || w.versions()["contacts"] != before["contacts"] {
		t.Fatalf("a rehearsal erased, or failed: %v", err)
	}
	if _, err := w.store.EraseContact(w.ctx, w.tenant, found.ID, ops, false); err != nil {
		t.Fatal(err)
	}
	check := func(when string) {
		t.Helper()
		if met := w.found(gone...); len(met) != 0 {
			t.Errorf("%s there is still %s", when, strings.Join(met, "; "))
		}
	}
	check("at once")
	w.erp.EditContact("peqx1", func(c *connector.Contact) { c.JobTitle = "Boss" })
	if r := w.mustSync(postgres.Incremental); r.Ignored == 0 {
		t.Error("the erased record was not counted as ignored")
	}
	w.erp.Spoil(connector.Key{Kind: connector.Contacts, ID: "peqx1"}, memory.Unreadable)
	w.mustSync(postgres.Full)
	check("after syncs")
	w.erp.Spoil(connector.Key{Kind: connector.Contacts, ID: "peqx1"}, memory.None)
	c, err := w.store.FindConnection(w.ctx, "Kelp books")
	if err != nil {
		t.Fatal(err)
	}
	if _, err := w.store.RemoveConnections(w.ctx, w.tenant, []postgres.Connection{c}, ops, false); err != nil {
		t.Fatal(err)
	}
	if err := w.store.Purge(w.ctx, w.tenant, c.ID, ops, func(string, int64) {}); err != nil {
		t.Fatal(err)
	}
	w.connection = w.connect("Kelp again")
	w.work()
	if n := len(w.list(postgres.Contacts)); n == 0 {
		t.Fatal("nothing was read")
	}
	check("in a new connection")
}

// TestErasedOwnContactLeavesTheCustomer: of a customer's own record only the contact is emptied; the customer, its name and its going
// and coming stay the ERP's.
func TestErasedOwnContactLeavesTheCustomer(t *testing.T) {
	w := setup(t, memory.QuickBooks)
	ids := w.customers(30)
	w.mustSync(postgres.Full)
	found, err := w.store.FindErasable(w.ctx, w.tenant, "c3@kelp.example")
	if err != nil || !found.Own {
		t.Fatalf("%+v, %v", found, err)
	}
	d, err := w.store.EraseContact(w.ctx, w.tenant, found.ID, ops, false)
	if err != nil || len(d.Counts) != 1 || d.Counts[0].Addresses != 1 || len(d.Bare) != 1 {
		t.Errorf("%+v, %v", d, err)
	}
	w.erp.EditCustomer(ids[3], func(c *connector.Customer, own *connector.Contact) {
		c.Number, own.Channels = "77", []connector.Channel{memory.Mail("new3@kelp.example, nonsense three")}
	})
	w.mustSync(postgres.Incremental)
	w.erp.Inactivate(customer(ids[3]))
	w.wantRun(postgres.Incremental, "the customer is inactive", 1, 0)
	w.erp.Reactivate(customer(ids[3]))
	w.mustSync(postgres.Full)
	of := w.list(postgres.Contacts, postgres.Filter{Column: "customer_erp_id", Value: ids[3]})
	if len(of) != 1 || of[0]["customer_name"] != "Customer 3" || of[0]["name"] != "" || of[0]["active"] != "true" || of[0]["email"] != "<nil>" {
		t.Errorf("%v", of)
	}
	if met := w.found("c3@kelp.example", "new3@kelp", "nonsense three"); len(met) != 0 {
		t.Errorf("still there: %s", strings.Join(met, "; "))
	}
	before := w.versions()
	w.mustSync(postgres.Full)
	if got := w.versions(); got["contacts"] != before["contacts"] || got["history"] != before["history"] {
		t.Error("an unchanged resync wrote the erased contact")
	}
}

// TestErasingWhileASyncSaves: a page that was read before is saved without the person.
func TestErasingWhileASyncSaves(t *testing.T) {
	w, _ := lived(t)
	found, err := w.store.FindErasable(w.ctx, w.tenant, "ingrid-zyxmail")
	if err != nil {
		t.Fatal(err)
	}
	w.erp.EditContact("peqx1", func(c *connector.Contact) { c.Channels = []connector.Channel{memory.Mail("late@zyxmail.example")} })
	erased := false
	w.erp.Before(func(_ context.Context, r memory.Request) error {
		if r.Op == memory.OpPage && r.Pull.Resume != "" && !erased { // the page before this one is on its way to be saved
			erased = true
			_, err = w.store.EraseContact(w.ctx, w.tenant, found.ID, ops, false)
		}
		return err
	})
	w.mustSync(postgres.Full)
	if !erased || err != nil {
		t.Fatal(erased, err)
	}
	if met := w.found("late@zyxmail", "ingrid-zyxmail"); len(met) != 0 {
		t.Errorf("still there: %s", strings.Join(met, "; "))
	}
}

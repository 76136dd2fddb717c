package syncing_test

import (
	"context"
	"errors"
	"fmt"
	"testing"
	"time"

	"github.com/centime/contactsync/internal/connector"
	"github.com/centime/contactsync/internal/connector/memory"
	"github.com/centime/contactsync/internal/postgres"
	"github.com/centime/contactsync/internal/postgres/pgtest"
)

// payers is a world of 20 customers with one contact each, who is at it by its own record, and gets its invoices by the role that only
// the place's own row states.
func payers(t *testing.T) (w *world, customers, people []string) {
	w = setup(t, memory.NetSuite)
	customers = w.customers(20)
	for i, id := range customers {
		k := w.erp.AddContact(connector.Contact{Name: fmt.Sprint("Person ", i), Channels: []connector.Channel{memory.Mail(fmt.Sprintf("p%d@kelp.example", i))}}, id)
		w.erp.Attach(id, k, connector.ERPRole{Key: "7", Name: "Payer"})
		people = append(people, k)
	}
	w.mustSync(postgres.Full)
	w.exec(`UPDATE roles SET invoice_presentment = true WHERE name LIKE 'Payer%'`)
	if n := w.invoices(); n != 20 {
		t.Fatalf("%d get invoices before anything happens", n)
	}
	return w, customers, people
}

// invoices counts the addresses of people that invoices go to.
func (w *world) invoices() (n int) {
	for _, r := range w.list(postgres.Recipients, postgres.Filter{Column: "communication_type", Value: "invoice_presentment"}) {
		if r["role"] != "Company Contact" {
			n++
		}
	}
	return n
}

func (w *world) wantInvoices(what string, want int) {
	w.t.Helper()
	if got := w.invoices(); got != want {
		w.t.Errorf("%s: %d get invoices, want %d", what, got, want)
	}
}

// TestRolesAreAskedAbout guards rule 7 for roles (decision 22): who stays attached and loses the role by which it gets mail is as missing from
// the mail as who is gone.
func TestRolesAreAskedAbout(t *testing.T) {
	rows := connector.Key{Kind: connector.Links}
	role := `SELECT string_agg(concat_ws(' ', l.id, active, array_to_string(stated_by, '+'), erp_role_key), '; ' ORDER BY l.id) FROM contactsync.customer_contacts l`
	t.Run("Few", func(t *testing.T) {
		w, customers, people := payers(t)
		for i := range 5 {
			w.erp.Detach(customers[i], people[i])
		}
		w.wantRun(postgres.Incremental, "five roles went", 0, 0)
		w.wantInvoices("five roles went", 15)
		w.erp.Detach(customers[5], people[5])
		w.wantRun(postgres.Incremental, "another one within 24 hours", 0, 1)
		w.wantInvoices("another one within 24 hours", 15)
	})
	t.Run("NoRows", func(t *testing.T) {
		w, _, _ := payers(t)
		before := pgtest.Value(t, w.dsn, role)
		w.erp.Hide(rows)
		w.wantRun(postgres.Incremental, "no rows at all", 0, 20)
		w.wantRun(postgres.Full, "read again with all contacts", 0, 20)
		w.wantInvoices("held", 20)
		if mail := pgtest.Value(t, w.dsn, `SELECT concat_ws(' ', min(reason), count(*), count(left_at)) FROM contactsync.hold_items`); mail != "role_gone 20 0" {
			t.Errorf("the hold has %q", mail)
		}
		stops, err := w.store.HoldMail(w.ctx, w.hold())
		if want := "[[communication_contact 0 0 0] [invoice_presentment 20 20 20]]"; err != nil || fmt.Sprint(stops.Values) != want {
			t.Errorf("the mail that stops is %v (%v), want %s", stops.Values, err, want)
		}
		if done := w.reject(); done.Kept != 20 {
			t.Errorf("%+v", done)
		}
		w.wantRun(postgres.Incremental, "the same evidence", 0, 0)
		w.wantRun(postgres.Full, "the same evidence in full", 0, 0)
		w.wantInvoices("kept", 20)
		if after := pgtest.Value(t, w.dsn, role); after != before {
			t.Errorf("kept, and not as it was\nbefore %s\nafter  %s", before, after)
		}
		w.erp.Show(rows)
		w.wantRun(postgres.Incremental, "the rows are back", 0, 0)
		w.erp.Hide(rows)
		w.wantRun(postgres.Incremental, "gone again after they came back", 0, 20)
	})
	t.Run("Approved", func(t *testing.T) {
		w, _, _ := payers(t)
		before := pgtest.Value(t, w.dsn, role)
		w.erp.Hide(rows)
		w.wantRun(postgres.Full, "no rows at all", 0, 20)
		if r := w.approve(); r.Status != "succeeded" || r.Gone != 0 || r.LeftBare != 20 {
			t.Errorf("the approval's run %s: deactivated %d, left bare %d; want 0 and 20", r.Status, r.Gone, r.LeftBare)
		}
		w.wantInvoices("approved", 0)
		w.wantRun(postgres.Full, "after the approval", 0, 0)
		if done := w.reject(); done.Back != 20 || done.Changed != 0 {
			t.Errorf("%+v", done)
		}
		w.wantInvoices("brought back", 20)
		if after := pgtest.Value(t, w.dsn, role); after != before {
			t.Errorf("not brought back as it was\nbefore %s\nafter  %s", before, after)
		}
		w.wantRun(postgres.Full, "the same evidence", 0, 0)
		w.wantInvoices("kept after it was brought back", 20)
	})
	t.Run("BackBeforeAnybodyDecides", func(t *testing.T) {
		w, _, _ := payers(t)
		w.erp.Hide(rows)
		w.wantRun(postgres.Incremental, "no rows at all", 0, 20)
		w.erp.Show(rows)
		w.wantRun(postgres.Incremental, "the rows are back", 0, 0)
		if h := w.hold(); h.State != "emptied" {
			t.Errorf("the hold is %s", h.State)
		}
		w.wantInvoices("back", 20)
	})
	t.Run("ThenThePlaceGoes", func(t *testing.T) {
		w, _, people := payers(t)
		w.erp.Hide(rows)
		w.wantRun(postgres.Incremental, "no rows at all", 0, 20)
		w.erp.SetCompany(people[0], "")
		w.wantRun(postgres.Incremental, "one is at its customer by nothing now", 0, 20)
		if got := pgtest.Value(t, w.dsn, `SELECT string_agg(reason || ' ' || n, ', ' ORDER BY reason) FROM (
			SELECT reason, count(*) AS n FROM contactsync.hold_items WHERE left_at IS NULL GROUP BY 1) i`); got != "detached 1, role_gone 19" {
			t.Errorf("the hold has %q", got)
		}
		w.wantRun(postgres.Incremental, "that contact is not read again", 0, 20)
		if got := pgtest.Value(t, w.dsn, `SELECT count(*) FROM contactsync.hold_items WHERE left_at IS NULL AND reason = 'detached'`); got != "1" {
			t.Error("a run that did not read the contact forgot that its place goes")
		}
		if r := w.approve(); r.Gone != 1 {
			t.Errorf("deactivated %d", r.Gone)
		}
		w.wantInvoices("approved", 0)
	})
	t.Run("OnlyTheRecordIsBack", func(t *testing.T) {
		w, customers, people := payers(t)
		w.erp.Hide(rows)
		for i := range 6 {
			w.erp.SetCompany(people[i], "")
		}
		w.wantRun(postgres.Incremental, "six places and fourteen roles", 0, 20)
		w.reject()
		w.erp.SetCompany(people[0], customers[0])
		w.wantRun(postgres.Incremental, "one is there by its record again", 0, 0)
		w.wantRun(postgres.Full, "which says nothing of its role", 0, 0)
		w.wantInvoices("kept", 20)
	})
	t.Run("KeptRolesKeepNoPlace", func(t *testing.T) {
		w, customers, people := payers(t)
		w.erp.Hide(rows)
		w.wantRun(postgres.Incremental, "no rows at all", 0, 20)
		w.reject()
		w.erp.SetCompany(people[0], customers[1])
		w.refresh(customers[1]) // learns that the record has left the other one, too
		w.wantRun(postgres.Incremental, "a place goes whose role was kept", 0, 1)
	})
	t.Run("OthersGoWhileRolesAreKept", func(t *testing.T) {
		w, customers, _ := payers(t)
		w.erp.Hide(rows)
		w.wantRun(postgres.Incremental, "no rows at all", 0, 20)
		w.reject()
		w.erp.Inactivate(customer(customers[0]))
		w.wantRun(postgres.Incremental, "one customer is inactive", 2, 0)
	})
	t.Run("Preview", func(t *testing.T) {
		w, customers, people := payers(t)
		w.erp.Hide(rows)
		run := w.preview(postgres.Full)
		n := len(w.list(postgres.PreviewChanges, postgres.Filter{Column: "run_id", Value: run.ID}, postgres.Filter{Column: "reason", Value: "role_gone"}))
		if n != 20 {
			t.Errorf("the preview names %d roles that would be held", n)
		}
		w.erp.Show(rows)
		for i := range 6 {
			w.erp.Detach(customers[i], people[i])
		}
		w.wantRun(postgres.Incremental, "six roles went", 0, 6)
		w.widenBrake()
		run = w.preview(postgres.Full)
		if said := w.list(postgres.PreviewChanges, postgres.Filter{Column: "run_id", Value: run.ID}); len(said) != 6 || said[0]["what"] != "changed" {
			t.Errorf("the preview of the wider brake says %v, want six changed roles", said)
		}
	})
}

// TestRowsAreLookedUp guards rule 7 for places: what is to go for having no row of its own is asked for by its ids first, where it was held
// when that is approved. Who is back stays, and the next run finds nothing to bring back.
func TestRowsAreLookedUp(t *testing.T) {
	payer := connector.ERPRole{Key: "7", Name: "Payer"}
	leave := func(w *world, customers, people []string, n int) {
		for i := range n {
			w.erp.Detach(customers[i], people[i])
			w.erp.SetCompany(people[i], "")
		}
	}
	nothingToBringBack := func(w *world) {
		w.t.Helper()
		if r := w.mustSync(postgres.Incremental); r.Updated != 0 || r.Gone != 0 || r.Held != 0 {
			w.t.Errorf("the next run updated %d, deactivated %d, held %d", r.Updated, r.Gone, r.Held)
		}
	}
	t.Run("PlacesApproved", func(t *testing.T) {
		w, customers, people := payers(t)
		leave(w, customers, people, 8)
		w.wantRun(postgres.Incremental, "eight places", 0, 8)
		for i := range 5 {
			w.erp.Attach(customers[i], people[i], payer)
		}
		if r := w.approve(); r.Gone != 3 || r.LeftBare != 3 {
			t.Errorf("deactivated %d, left bare %d; want 3 and 3", r.Gone, r.LeftBare)
		}
		w.wantInvoices("five came back before the approval", 17)
		if got := pgtest.Value(t, w.dsn, `SELECT concat_ws(' ', count(left_at), count(applied_by_run)) FROM contactsync.hold_items`); got != "5 3" {
			t.Errorf("left and went: %s", got)
		}
		nothingToBringBack(w)
	})
	t.Run("PlacesWithoutARowApproved", func(t *testing.T) {
		w := setup(t, memory.NetSuite)
		customers := w.customers(8)
		var people []string
		for i, id := range customers {
			people = append(people, w.erp.AddContact(connector.Contact{Name: fmt.Sprint("Person ", i)}, id))
		}
		w.mustSync(postgres.Full)
		for _, k := range people {
			w.erp.SetCompany(k, "")
		}
		w.wantRun(postgres.Incremental, "eight places that only records stated", 0, 8)
		w.erp.Attach(customers[0], people[0], payer)
		w.erp.SetCompany(people[1], customers[1])
		w.erp.Spoil(connector.Key{Kind: connector.Contacts, ID: people[2]}, memory.Unreadable) // who knows where it is
		if r := w.approve(); r.Gone != 5 {
			t.Errorf("deactivated %d, want 5", r.Gone)
		}
		nothingToBringBack(w)
	})
	t.Run("RolesApproved", func(t *testing.T) {
		w, customers, people := payers(t)
		rows := connector.Key{Kind: connector.Links}
		w.erp.Hide(rows)
		w.wantRun(postgres.Incremental, "no rows at all", 0, 20)
		w.erp.Show(rows)
		w.erp.Detach(customers[0], people[0])
		if r := w.approve(); r.Gone != 0 || r.LeftBare != 1 {
			t.Errorf("deactivated %d, left bare %d; want 0 and 1", r.Gone, r.LeftBare)
		}
		w.wantInvoices("all but one came back before the approval", 19)
		nothingToBringBack(w)
	})
	t.Run("BeforeTheyGo", func(t *testing.T) {
		w, customers, people := payers(t)
		leave(w, customers, people, 3)
		w.erp.Detach(customers[3], people[3])
		w.erp.Detach(customers[4], people[4])
		w.erp.Before(func(_ context.Context, r memory.Request) error {
			if r.Op == memory.OpLookup { // behind the listing's back
				for i := range 4 {
					w.erp.Attach(customers[i], people[i], payer)
				}
			}
			return nil
		})
		w.wantRun(postgres.Incremental, "back while the run ended, but for one role", 0, 0)
		w.wantInvoices("back while the run ended, but for one role", 19)
		nothingToBringBack(w)
	})
	t.Run("WhoseRecordSaysNoMore", func(t *testing.T) {
		w, customers, people := payers(t)
		leave(w, customers, people, 8)
		w.wantRun(postgres.Incremental, "eight places", 0, 8)
		w.erp.Attach(customers[0], people[0], payer)
		w.wantRun(postgres.Incremental, "one has its row again", 0, 7)
		w.erp.Detach(customers[0], people[0])
		w.reject()
		if r := w.mustSync(postgres.Incremental); r.Gone != 1 || r.Held != 0 {
			t.Errorf("the row is gone again: deactivated %d, held %d; want the place to go with it", r.Gone, r.Held)
		}
	})
	t.Run("Unreadable", func(t *testing.T) {
		w, customers, people := payers(t)
		join := func(name string) string {
			return w.erp.AddContact(connector.Contact{Name: name, Channels: []connector.Channel{memory.Mail(name + "@kelp.example")}}, customers[0])
		}
		ann, bea := join("ann"), join("bea")
		w.mustSync(postgres.Incremental)
		attach := func(who string) { // by a row that cannot be read
			w.erp.Attach(customers[0], who, payer)
			w.erp.Spoil(connector.Key{Kind: connector.Links, ID: connector.LinkID(customers[0], who)}, memory.Unreadable)
		}
		looks, behind := 0, false
		w.erp.Before(func(_ context.Context, r memory.Request) error {
			if r.Op == memory.OpLookup {
				looks++
				if behind {
					attach(bea)
				}
			}
			if looks > 5 {
				return errors.New("asked for ever")
			}
			return nil
		})
		attach(ann)
		w.erp.SetCompany(ann, "")
		w.wantRun(postgres.Incremental, "listed, and its record states it no more", 0, 0)
		w.erp.SetCompany(bea, "")
		behind = true
		w.wantRun(postgres.Incremental, "found behind the listing", 0, 0)
		w.erp.Before(nil)
		for _, who := range []string{ann, bea} {
			w.erp.Spoil(connector.Key{Kind: connector.Links, ID: connector.LinkID(customers[0], who)}, memory.None)
		}
		w.wantRun(postgres.Incremental, "readable", 0, 0)
		w.wantInvoices("readable", 22)
		leave(w, customers, people, 1)
		w.wantRun(postgres.Incremental, "another one left", 1, 0)
	})
	t.Run("ElsewhereByARefresh", func(t *testing.T) {
		w, customers, _ := payers(t)
		ann := w.erp.AddContact(connector.Contact{Name: "Ann"}, customers[1])
		w.mustSync(postgres.Incremental)
		w.erp.Attach(customers[1], ann, payer)
		w.erp.SetCompany(ann, customers[0])
		if r := w.refresh(customers[0]); r.Gone != 0 {
			t.Errorf("the refresh of another customer deactivated %d", r.Gone)
		}
		nothingToBringBack(w)
	})
	t.Run("WhereNothingCanBeAsked", func(t *testing.T) {
		w, customers, people := payers(t)
		asked := 0
		w.erp.Before(func(_ context.Context, r memory.Request) error {
			if r.Op != memory.OpLookup {
				return nil
			}
			if asked++; asked > 5 {
				return errors.New("asked for ever")
			}
			return errors.ErrUnsupported
		})
		leave(w, customers, people, 1)
		w.worker.Step = time.Nanosecond
		w.wantRun(postgres.Incremental, "an ERP without look-ups, in steps that yield all the time", 1, 0)
	})
	t.Run("RefreshReadsThemOnce", func(t *testing.T) {
		w, customers, people := payers(t)
		leave(w, customers, people, 1)
		before := len(w.erp.Requests())
		if r := w.refresh(customers[0]); r.Gone != 1 {
			t.Errorf("deactivated %d", r.Gone)
		}
		for _, r := range w.erp.Requests()[before:] {
			for _, k := range r.Keys {
				if k.Kind == connector.Links {
					t.Errorf("the row %s was looked up, and the customer's rows had just been read", k.ID)
				}
			}
		}
	})
	t.Run("BeforeTheyGoInAPreview", func(t *testing.T) {
		w, customers, people := payers(t)
		leave(w, customers, people, 3)
		w.erp.Before(func(_ context.Context, r memory.Request) error {
			if r.Op == memory.OpLookup {
				w.erp.Attach(customers[0], people[0], payer)
			}
			return nil
		})
		if r := w.preview(postgres.Incremental); r.Status != "succeeded" || r.Gone != 2 {
			t.Errorf("the preview %s and would deactivate %d, want 2", r.Status, r.Gone)
		}
	})
}

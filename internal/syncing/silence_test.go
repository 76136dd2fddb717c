package syncing_test

import (
	"context"
	"slices"
	"testing"

	"github.com/centime/contactsync/internal/connector"
	"github.com/centime/contactsync/internal/connector/memory"
	"github.com/centime/contactsync/internal/postgres"
)

// told says whether status names something of this kind.
func (w *world) told(kind string) bool {
	w.t.Helper()
	a, err := w.store.Attention(w.ctx, nil)
	if err != nil {
		w.t.Fatal(err)
	}
	return slices.ContainsFunc(a.Items, func(i postgres.Item) bool { return i.Kind == kind })
}

// fleet is what the metrics show.
func (w *world) fleet() postgres.FleetERP {
	w.t.Helper()
	f, err := w.store.Fleet(w.ctx)
	if err != nil || len(f) != 1 {
		w.t.Fatalf("%v: %v", f, err)
	}
	return f[0]
}

// TestGreenRunsThatReadNothing guards that a company out of sight is told after its hold was decided too, since its runs succeed;
// and that a company which never had anything, and one where nothing is new, are not.
func TestGreenRunsThatReadNothing(t *testing.T) {
	w := setup(t, memory.QuickBooks)
	wants := func(when string, want bool) {
		t.Helper()
		if got := w.told("reads_nothing"); got != want || (w.fleet().ReadNothing == 1) != want {
			t.Errorf("%s: told %v, counted %d", when, got, w.fleet().ReadNothing)
		}
	}
	w.mustSync(postgres.Full)
	wants("an empty company", false)

	var keys []connector.Key
	for _, id := range w.customers(8) {
		keys = append(keys, customer(id))
	}
	w.mustSync(postgres.Full)
	w.mustSync(postgres.Incremental)
	wants("nothing new", false)

	w.erp.Hide(keys...)
	if r := w.mustSync(postgres.Full); r.Held == 0 {
		t.Fatal("nothing is held")
	}
	wants("held, which is told as such", false)
	w.exec(`UPDATE contactsync.holds SET state = 'rejected'`)
	wants("kept by a person, and still out of sight", true)
	w.mustSync(postgres.Incremental)
	wants("incremental runs prove nothing", true)

	w.erp.Show(keys...)
	w.mustSync(postgres.Full)
	wants("in sight again", false)
}

// TestTakenOverPagesWereRead guards that a run which only finishes what a failed one had read is not taken for one that read
// nothing: its counts are 0.
func TestTakenOverPagesWereRead(t *testing.T) {
	w := setup(t, memory.QuickBooks)
	ids := w.customers(8)
	w.mustSync(postgres.Full)
	w.erp.Delete(customer(ids[0]))
	w.erp.Before(func(_ context.Context, r memory.Request) error {
		if r.Op == memory.OpLookup {
			return &connector.Error{Kind: connector.Rejected, Step: "look up", Message: "400"}
		}
		return nil
	})
	if r := w.sync(postgres.Full); r.Status != "failed" || r.Read == 0 {
		t.Fatalf("%s, read %d", r.Status, r.Read)
	}
	w.erp.Before(nil)
	if r := w.mustSync(postgres.Full); r.Read != 0 || r.Gone != 1 {
		t.Fatalf("read %d, deactivated %d", r.Read, r.Gone)
	}
	if w.told("reads_nothing") {
		t.Error("what was taken over does not count as read")
	}
}

// TestIncrementalRunsThatMissChanges guards that incremental runs which read nothing are told once full runs find changes again
// and again, and not before; and that one which reads something ends it. Links, which NetSuite lists in every run, are no such thing.
func TestIncrementalRunsThatMissChanges(t *testing.T) {
	for _, style := range styles {
		t.Run(string(style), func(t *testing.T) {
			w := setup(t, style)
			ids := w.customers(2)
			if style == memory.NetSuite {
				w.erp.Attach(ids[0], w.erp.AddContact(connector.Contact{Name: "Ada", Active: true}, ""), connector.ERPRole{Key: "-10", Name: "Primary"})
			}
			w.mustSync(postgres.Full)
			edit := func() {
				w.erp.EditCustomer(ids[0], func(c *connector.Customer, _ *connector.Contact) { c.Name += "x" })
			}
			wants := func(when string, want bool) {
				t.Helper()
				if got := w.told("misses_changes"); got != want || (w.fleet().MissChanges == 1) != want {
					t.Errorf("%s: told %v, counted %d", when, got, w.fleet().MissChanges)
				}
			}
			for range 20 {
				w.mustSync(postgres.Incremental)
			}
			w.mustSync(postgres.Full)
			wants("idle", false)
			for range 2 {
				edit()
				w.mustSync(postgres.Full)
			}
			wants("found twice by full runs", false)
			edit()
			w.mustSync(postgres.Full)
			wants("found by full runs only", true)

			edit()
			w.mustSync(postgres.Incremental)
			wants("an incremental run reads again", false)
		})
	}
}

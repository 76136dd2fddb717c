package syncing_test

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/centime/contactsync/internal/connector"
	"github.com/centime/contactsync/internal/connector/memory"
	"github.com/centime/contactsync/internal/contact"
	"github.com/centime/contactsync/internal/postgres"
	"github.com/centime/contactsync/internal/postgres/pgtest"
)

var (
	approver = postgres.By{User: "ann", Reason: "branch closed"}
	bea      = postgres.By{User: "bea", Reason: "an accident"}
)

// hold is the connection's last hold.
func (w *world) hold() postgres.Hold {
	w.t.Helper()
	var id int64
	if _, err := fmt.Sscan(pgtest.Value(w.t, w.dsn, `SELECT max(id) FROM contactsync.holds`), &id); err != nil {
		w.t.Fatal(err)
	}
	h, err := w.store.Hold(w.ctx, id)
	if err != nil {
		w.t.Fatal(err)
	}
	return h
}

// approve approves the last hold and works its run to the end.
func (w *world) approve() postgres.RunState {
	w.t.Helper()
	run, err := w.store.ApproveHold(w.ctx, w.hold(), approver)
	if err != nil {
		w.t.Fatal(err)
	}
	w.work()
	r, err := w.store.Run(w.ctx, run)
	if err != nil {
		w.t.Fatal(err)
	}
	return r
}

func (w *world) reject() postgres.Rejected {
	w.t.Helper()
	done, err := w.store.RejectHold(w.ctx, w.hold(), bea)
	if err != nil {
		w.t.Fatal(err)
	}
	return done
}

// wantRun syncs and compares what went and what was held.
func (w *world) wantRun(mode postgres.Mode, what string, gone, held int64) {
	w.t.Helper()
	if r := w.mustSync(mode); r.Gone != gone || r.Held != held {
		w.t.Errorf("%s: deactivated %d, held %d; want %d and %d", what, r.Gone, r.Held, gone, held)
	}
}

// active are the ERP's ids of the active customers among these.
func (w *world) active(ids []string) []string {
	w.t.Helper()
	var out []string
	for _, c := range w.list(postgres.Customers, postgres.Filter{Column: "active", Value: true}) {
		if slices.Contains(ids, c["customer_erp_id"]) {
			out = append(out, c["customer_erp_id"])
		}
	}
	return out
}

func customerKeys(ids []string) []connector.Key {
	var keys []connector.Key
	for _, id := range ids {
		keys = append(keys, customer(id))
	}
	return keys
}

// holding is a world of 40 customers, 8 of which a full run did not find and held.
func holding(t *testing.T) (w *world, all, missing []string) {
	w = setup(t, memory.QuickBooks)
	all = w.customers(40)
	w.mustSync(postgres.Full)
	missing = all[:8]
	w.erp.Hide(customerKeys(missing)...)
	w.wantRun(postgres.Full, "8 of 40 missing", 0, 8)
	return w, all, missing
}

// TestApprovingLooksUpAgain guards rule 7: what is still so goes, what came back stays, and the history says who decided and why.
func TestApprovingLooksUpAgain(t *testing.T) {
	w, _, missing := holding(t)
	w.erp.Show(customer(missing[0]))
	w.erp.Show(customer(missing[1]))
	w.erp.Inactivate(customer(missing[1]))
	w.worker.Step = time.Nanosecond // what is never looked up is asked for again by each step, not for ever by one
	r := w.approve()
	if r.Status != "succeeded" || r.Gone != 7 || r.LeftBare != 7 {
		t.Errorf("the approval's run %s: deactivated %d, left bare %d; want 7 and 7", r.Status, r.Gone, r.LeftBare)
	}
	if got := w.active(missing); !slices.Equal(got, missing[:1]) {
		t.Errorf("active: %v, want the one that was found again", got)
	}
	got := pgtest.Value(t, w.dsn, `SELECT string_agg(DISTINCT reason, '; ' ORDER BY reason) FROM contactsync.history WHERE run_id = $1 AND field = 'active'`, r.ID)
	if want := "erp_absent, approved by ann: branch closed; erp_inactive, approved by ann: branch closed"; got != want {
		t.Errorf("history says %q, want %q", got, want)
	}
	if n := len(w.list(postgres.LeftBare, postgres.Filter{Column: "run_id", Value: r.ID})); n != 7 {
		t.Errorf("%d customers without a recipient are listed, want 7", n)
	}
	if c := w.list(postgres.Connections)[0]; c["held"] != "0" || c["kept"] != "0" {
		t.Errorf("held %s, kept %s", c["held"], c["kept"])
	}
	w.wantRun(postgres.Full, "after the approval", 0, 0)
	w.erp.Delete(customer(w.list(postgres.Customers, postgres.Filter{Column: "active", Value: true})[5]["customer_erp_id"]))
	w.wantRun(postgres.Full, "what was approved does not count as an accident", 1, 0)
}

// TestKilledApprovalGoesOn: a worker that dies in the middle has saved its look-ups, and nothing went yet; another goes on.
func TestKilledApprovalGoesOn(t *testing.T) {
	goesOn := func(w *world) postgres.RunState {
		w.t.Helper()
		asked := 0
		w.erp.Before(func(_ context.Context, r memory.Request) error {
			if r.Op == memory.OpLookup {
				asked++
			}
			if asked == 2 || asked > 10 {
				asked++
				return errors.New("killed")
			}
			return nil
		})
		w.worker.Step = time.Nanosecond // and its steps yield all the time
		before := len(w.erp.Requests())
		r := w.approve()
		if r.Status != "succeeded" || r.Claims < 3 {
			t.Errorf("%s after %d claims", r.Status, r.Claims)
		}
		if n := len(w.erp.Requests()) - before; n != 4 {
			t.Errorf("%d requests for three look-ups, one of which failed: saved ones were repeated", n)
		}
		return r
	}
	t.Run("Customers", func(t *testing.T) {
		w := setup(t, memory.QuickBooks)
		w.erp.SetPageSize(500)
		ids := w.customers(1200)
		w.mustSync(postgres.Full)
		w.erp.Hide(customerKeys(ids[:1100])...)
		w.wantRun(postgres.Full, "most are missing", 0, 1100)
		if r := goesOn(w); r.Gone != 1100 {
			t.Errorf("deactivated %d", r.Gone)
		}
	})
	t.Run("Rows", func(t *testing.T) {
		w := setup(t, memory.NetSuite)
		w.erp.SetPageSize(500)
		ids := w.customers(1100)
		for i, id := range ids {
			w.erp.Attach(id, w.erp.AddContact(connector.Contact{Name: fmt.Sprint("Person ", i)}, id), connector.ERPRole{Key: "7", Name: "Payer"})
		}
		w.mustSync(postgres.Full)
		w.erp.Hide(connector.Key{Kind: connector.Links})
		w.wantRun(postgres.Incremental, "no rows at all", 0, 1100)
		goesOn(w)
		if n := pgtest.Value(t, w.dsn, `SELECT count(*) FROM contactsync.customer_contacts WHERE erp_role_key = '7'`); n != "0" {
			t.Errorf("%s roles stayed", n)
		}
	})
}

// TestOneDecidesAHold: of operators deciding at once one wins, and the others are told who and when.
func TestOneDecidesAHold(t *testing.T) {
	w, _, missing := holding(t)
	h := w.hold()
	var wait sync.WaitGroup
	errs := make([]error, 6)
	for i := range errs {
		wait.Go(func() { _, errs[i] = w.store.ApproveHold(w.ctx, h, postgres.By{User: fmt.Sprint("op", i)}) })
	}
	wait.Wait()
	won := 0
	for _, err := range errs {
		switch {
		case err == nil:
			won++
		case !errors.Is(err, postgres.ErrDecided) || !strings.Contains(err.Error(), "approved by op") || !strings.Contains(err.Error(), "UTC"):
			t.Errorf("the loser is told %v", err)
		}
	}
	if won != 1 {
		t.Errorf("%d approvals, want 1", won)
	}
	w.work()
	if got := w.active(missing); len(got) != 0 {
		t.Errorf("active: %v", got)
	}
}

// TestApprovalAndSyncAtOnce: what is approved goes by its own run only, whatever is read before that.
func TestApprovalAndSyncAtOnce(t *testing.T) {
	w, all, missing := holding(t)
	run := w.queue(postgres.Full) // is handed out before the approval
	w.erp.Delete(customer(all[20]))
	approval, err := w.store.ApproveHold(w.ctx, w.hold(), approver)
	if err != nil {
		t.Fatal(err)
	}
	w.work()
	r, err := w.store.Run(w.ctx, run)
	if err != nil || r.Gone != 1 || r.Held != 0 {
		t.Errorf("the sync: deactivated %d, held %d, %v; want 1 and 0", r.Gone, r.Held, err)
	}
	if a, err := w.store.Run(w.ctx, approval); err != nil || a.Gone != 8 {
		t.Errorf("the approval: deactivated %d, %v", a.Gone, err)
	}
	if got := w.active(missing); len(got) != 0 {
		t.Errorf("active: %v", got)
	}
}

// TestRunSeesADecisionAsAWhole guards rule 7: a run weighs what goes and then lets it go. Left to an approval when it weighed, and let go
// after the approval was taken back, records would go that nobody was asked about.
func TestRunSeesADecisionAsAWhole(t *testing.T) {
	for name, takeBack := range map[string]func(w *world, hold postgres.Hold, approval int64) error{
		"Rejected": func(w *world, hold postgres.Hold, _ int64) error {
			_, err := w.store.RejectHold(w.ctx, hold, bea)
			return err
		},
		"Cancelled": func(w *world, _ postgres.Hold, approval int64) error {
			_, err := w.store.CancelRun(w.ctx, approval, postgres.By{User: "ops"})
			return err
		},
	} {
		t.Run(name, func(t *testing.T) {
			w := setup(t, memory.QuickBooks)
			all := w.customers(40)
			w.mustSync(postgres.Full)
			for _, id := range all[:20] {
				w.erp.Inactivate(customer(id))
			}
			w.wantRun(postgres.Incremental, "half are inactive", 0, 20)
			for range 20 { // ten changes of the ERP in memory share a second
				w.erp.SetPageSize(3)
			}
			for _, id := range all[:20] {
				w.erp.EditCustomer(id, func(c *connector.Customer, _ *connector.Contact) { c.Number = "7" }) // evidence that no rejection remembers
			}
			w.erp.Delete(customer(all[30]))
			run := w.queue(postgres.Full)
			hold := w.hold()
			approval, err := w.store.ApproveHold(w.ctx, hold, approver)
			if err != nil {
				t.Fatal(err)
			}
			out, err := w.store.HandOutNew(w.ctx, 1)
			if err != nil || len(out) != 1 || out[0].Run != run {
				t.Fatal(out, err)
			}
			w.whileItEnds(out[0], func() error { return takeBack(w, hold, approval) })
			if r, err := w.store.Run(w.ctx, run); err != nil || r.Status != "succeeded" || r.Gone != 0 || r.Held != 21 {
				t.Errorf("the run %s, deactivated %d and held %d, %v; want 0 and 21: it weighs anew", r.Status, r.Gone, r.Held, err)
			}
			if got := w.active(all); len(got) != 40 {
				t.Errorf("%d active, want 40", len(got))
			}
		})
	}
}

// TestChangedRightsStayAChangeWhileAnApprovalMayBeTakenBack guards rule 7: a full run that ends while the hold they caused is approved, and not
// carried out yet, does not take them for known: else the next full run would let go, unasked, what they hide.
func TestChangedRightsStayAChangeWhileAnApprovalMayBeTakenBack(t *testing.T) {
	w := setup(t, memory.QuickBooks)
	w.erp.SetRights("all")
	all := w.customers(40)
	w.mustSync(postgres.Full)
	w.erp.SetRights("some")
	w.erp.Hide(customer(all[0]))
	w.wantRun(postgres.Full, "one is hidden by other rights", 0, 1)
	run := w.queue(postgres.Full)
	approval, err := w.store.ApproveHold(w.ctx, w.hold(), approver)
	if err != nil {
		t.Fatal(err)
	}
	out, err := w.store.HandOutNew(w.ctx, 1)
	if err != nil || len(out) != 1 || out[0].Run != run {
		t.Fatal(out, err)
	}
	for next := &out[0]; next != nil; {
		next = w.worker.Work(w.ctx, next.Run, next.Delivery)
	}
	if r, err := w.store.Run(w.ctx, run); err != nil || r.Status != "succeeded" {
		t.Fatalf("%+v, %v", r, err)
	}
	if _, err := w.store.CancelRun(w.ctx, approval, postgres.By{User: "ops"}); err != nil {
		t.Fatal(err)
	}
	w.wantRun(postgres.Full, "the approval was taken back", 0, 1)
	if got := w.active(all); len(got) != 40 {
		t.Errorf("%d are active, want all 40", len(got))
	}
}

// TestChangedRightsStayAChangeUntilAllWasListed guards rule 7: a full run that met a row without an id did not list all, be it that a run
// before it, whose pages it took over, met the row: to take the rights for known would have the next one let go, unasked, what they hide.
func TestChangedRightsStayAChangeUntilAllWasListed(t *testing.T) {
	for _, fails := range []bool{false, true} {
		t.Run(fmt.Sprint("taken over: ", fails), func(t *testing.T) {
			w := setup(t, memory.NetSuite)
			w.erp.SetPageSize(10)
			w.erp.SetRights("all")
			at := w.customers(2)
			var people []string
			for n := range 40 {
				people = append(people, w.person(fmt.Sprint("Ada ", n), connector.ERPRole{Key: "-10", Name: "Primary"}, at[min(n, 1)]))
			}
			w.mustSync(postgres.Full)
			w.erp.SetRights("some")
			hidden, unreadable := connector.Key{Kind: connector.Contacts, ID: people[0]}, connector.Key{Kind: connector.Contacts, ID: people[1]}
			w.erp.Hide(hidden)
			w.erp.Spoil(unreadable, memory.NoID)
			if fails {
				w.erp.FailPage(5, &connector.Error{Kind: connector.Rejected, Step: "page", Message: "400"})
				if r := w.sync(postgres.Full); r.Status != "failed" || r.Read == 0 {
					t.Fatalf("%+v", r)
				}
				w.refresh(at[1]) // it meets the row too, and is not the run that lists
			}
			w.wantRun(postgres.Full, "contacts were not listed", 0, 0)
			if got := w.list(postgres.Issues, postgres.Filter{Column: "field", Value: "id"}); len(got) != 1 {
				t.Errorf("%v: the row without an id is told until it was read", got)
			}
			w.erp.Spoil(unreadable, memory.None)
			w.wantRun(postgres.Full, "one is hidden by other rights", 0, 1)
		})
	}
}

// whileItEnds works a run, and does something when the run has weighed what goes and lets it go next: it stops there, where it notes who has
// a recipient.
func (w *world) whileItEnds(out postgres.HandOut, do func() error) {
	w.t.Helper()
	db, err := sql.Open("postgres", w.dsn)
	if err != nil {
		w.t.Fatal(err)
	}
	defer db.Close()
	between, err := db.BeginTx(w.ctx, nil)
	if err != nil {
		w.t.Fatal(err)
	}
	defer func() { _ = between.Rollback() }()
	if _, err := between.ExecContext(w.ctx, `LOCK TABLE contactsync.left_bare IN EXCLUSIVE MODE`); err != nil {
		w.t.Fatal(err)
	}
	var working sync.WaitGroup
	working.Go(func() { w.worker.Work(w.ctx, out.Run, out.Delivery) })
	for w.ctx.Err() == nil && pgtest.Value(w.t, w.dsn, `SELECT count(*) FROM pg_stat_activity
		WHERE datname = current_database() AND wait_event_type = 'Lock'`) == "0" { // it comes there in some milliseconds
	}
	if err := do(); err != nil {
		w.t.Error(err)
	}
	if err := between.Commit(); err != nil {
		w.t.Fatal(err)
	}
	working.Wait()
}

// TestPauseIsHeardWhileAHoldIsCarriedOut: who pauses a connection just then is told that everything of it stops.
func TestPauseIsHeardWhileAHoldIsCarriedOut(t *testing.T) {
	w, all, _ := holding(t)
	c, err := w.store.FindConnection(w.ctx, "Kelp books")
	if err != nil {
		t.Fatal(err)
	}
	approval, err := w.store.ApproveHold(w.ctx, w.hold(), approver)
	if err != nil {
		t.Fatal(err)
	}
	out, err := w.store.HandOutNew(w.ctx, 1)
	if err != nil || len(out) != 1 || out[0].Run != approval {
		t.Fatal(out, err)
	}
	w.whileItEnds(out[0], func() error { return w.store.SetState(w.ctx, c, "paused", ops) })
	if r, err := w.store.Run(w.ctx, approval); err != nil || r.Status != "waiting" || r.Gone != 0 || len(w.active(all)) != 40 {
		t.Errorf("the approval is %s, deactivated %d, %v; want waiting and none", r.Status, r.Gone, err)
	}
}

// TestRejectionIsHeardWhileARunEnds guards rule 7: whoever rejects is told that all of it stays, so nothing of it may go with a run or a
// refresh that weighed it before.
func TestRejectionIsHeardWhileARunEnds(t *testing.T) {
	for name, queue := range map[string]func(w *world, id string) int64{
		"Sync":    func(w *world, _ string) int64 { return w.queue(postgres.Incremental) },
		"Refresh": func(w *world, id string) int64 { return w.queueCustomer(id) },
	} {
		t.Run(name, func(t *testing.T) {
			w := setup(t, memory.QuickBooks)
			all := w.customers(40)
			w.mustSync(postgres.Full)
			held := all[:20]
			for _, id := range held {
				w.erp.Inactivate(customer(id))
			}
			w.wantRun(postgres.Incremental, "half are inactive", 0, 20)
			w.erp.EditCustomer(held[0], func(c *connector.Customer, _ *connector.Contact) { c.Number = "7" }) // one alone is no accident
			run := queue(w, held[0])
			out, err := w.store.HandOutNew(w.ctx, 1)
			if err != nil || len(out) != 1 || out[0].Run != run {
				t.Fatal(out, err)
			}
			w.whileItEnds(out[0], func() error {
				_, err := w.store.RejectHold(w.ctx, w.hold(), bea)
				return err
			})
			if r, err := w.store.Run(w.ctx, run); err != nil || r.Status != "succeeded" || r.Gone != 0 {
				t.Errorf("the run %s and deactivated %d, %v; want nothing of what was rejected", r.Status, r.Gone, err)
			}
			if got := w.active(held); len(got) != 20 {
				t.Errorf("%d of 20 are active that were rejected", len(got))
			}
		})
	}
}

// TestFailedApprovalIsOpenAgain: what was approved and did not go is held as before, with what was held meanwhile.
func TestFailedApprovalIsOpenAgain(t *testing.T) {
	w, all, _ := holding(t)
	w.erp.Hide(customerKeys(all[8:12])...)
	w.queue(postgres.Full)
	w.erp.Before(func(_ context.Context, r memory.Request) error {
		if r.Op == memory.OpLookup {
			return &connector.Error{Kind: connector.Rejected, Step: "look up", Message: "no"}
		}
		return nil
	})
	run, err := w.store.ApproveHold(w.ctx, w.hold(), approver)
	if err != nil {
		t.Fatal(err)
	}
	w.work()
	if r, err := w.store.Run(w.ctx, run); err != nil || r.Status != "failed" || r.Gone != 0 {
		t.Errorf("%s, deactivated %d, %v", r.Status, r.Gone, err)
	}
	w.erp.Before(nil)
	open := w.hold()
	if open.State != "open" || open.Contacts < 8 {
		t.Fatalf("hold %+v", open)
	}
	if r := w.approve(); r.Gone != open.Contacts {
		t.Errorf("deactivated %d, want %d", r.Gone, open.Contacts)
	}
}

// TestRejectionIsRememberedUntilNewEvidence guards rule 7: the same evidence again neither holds nor lets go, nor counts; being
// read active ends the memory; other evidence is held again, however little it is.
func TestRejectionIsRememberedUntilNewEvidence(t *testing.T) {
	t.Run("Missing", func(t *testing.T) {
		w, all, missing := holding(t)
		if done := w.reject(); done.Kept != 8 || done.Back != 0 {
			t.Errorf("%+v", done)
		}
		w.wantRun(postgres.Full, "the same evidence", 0, 0)
		if c := w.list(postgres.Connections)[0]; c["held"] != "0" || c["kept"] != "8" {
			t.Errorf("held %s, kept %s; want 0 and 8", c["held"], c["kept"])
		}
		w.erp.Delete(customer(all[20]))
		w.wantRun(postgres.Full, "another one beside those kept", 1, 0)
		w.erp.Show(customer(missing[0]))
		w.erp.Inactivate(customer(missing[0]))
		w.wantRun(postgres.Full, "another reason", 0, 1)
		w.erp.Hide(customer(missing[0]))
		w.wantRun(postgres.Full, "the first reason again, before anybody decided on the other", 0, 1)
		if got := w.active(missing); len(got) != 8 {
			t.Errorf("active: %v", got)
		}
		if c := w.list(postgres.Connections)[0]; c["held"] != "1" {
			t.Errorf("held %s, want the one that is asked about anew", c["held"])
		}
		w.erp.Reactivate(customer(missing[0]))
		w.erp.Show(customerKeys(missing)...)
		w.wantRun(postgres.Full, "all are back", 0, 0)
		if c := w.list(postgres.Connections)[0]; c["held"] != "0" || c["kept"] != "0" {
			t.Errorf("held %s, kept %s after all were read active", c["held"], c["kept"])
		}
		w.erp.Hide(customerKeys(missing)...)
		w.wantRun(postgres.Full, "gone again after they came back", 0, 8)
	})
	t.Run("Inactive", func(t *testing.T) {
		w := setup(t, memory.QuickBooks)
		ids := w.customers(40)
		w.mustSync(postgres.Full)
		for _, id := range ids[:20] {
			w.erp.Inactivate(customer(id))
		}
		w.wantRun(postgres.Incremental, "half are inactive", 0, 20)
		w.reject()
		w.wantRun(postgres.Full, "the same evidence", 0, 0)
		w.erp.EditCustomer(ids[0], func(c *connector.Customer, _ *connector.Contact) { c.Name = "Renamed" })
		for range 20 { // ten changes of the ERP in memory share a second
			w.erp.SetPageSize(3)
		}
		w.erp.EditCustomer(ids[0], func(c *connector.Customer, _ *connector.Contact) { c.Number = "7" })
		w.wantRun(postgres.Incremental, "changed later, and inactive still", 0, 1)
		if got := w.active(ids[:20]); len(got) != 20 {
			t.Errorf("active: %v", got)
		}
	})
	t.Run("InactiveByEditions", func(t *testing.T) { // the ERP's time moves with each payment too, its count of edits does not
		w := setup(t, memory.QuickBooks)
		ids := w.customers(40)
		edit := func(id, edition string) {
			w.erp.EditCustomer(id, func(c *connector.Customer, own *connector.Contact) { c.Edition, own.Edition = edition, edition })
		}
		w.mustSync(postgres.Full)
		for _, id := range ids[:20] {
			w.erp.Inactivate(customer(id))
			edit(id, "in edit 3")
		}
		w.wantRun(postgres.Incremental, "half are inactive", 0, 20)
		w.reject()
		for range 20 { // ten changes of the ERP in memory share a second
			w.erp.SetPageSize(3)
		}
		edit(ids[0], "in edit 3")
		w.wantRun(postgres.Incremental, "a payment moved the time", 0, 0)
		edit(ids[0], "in edit 4")
		w.wantRun(postgres.Incremental, "edited, and inactive still", 0, 1)
		if held := pgtest.Value(t, w.dsn, `SELECT string_agg(DISTINCT evidence, '; ') FROM contactsync.hold_items i
			JOIN contactsync.holds h ON h.id = i.hold_id AND h.state = 'open'`); held != "stated inactive, changed in edit 4" {
			t.Errorf("held by %q", held)
		}
	})
	t.Run("Links", func(t *testing.T) {
		w := setup(t, memory.NetSuite)
		ids := w.customers(10)
		var people []string
		for i := range 20 {
			k := w.erp.AddContact(connector.Contact{Name: fmt.Sprint("Person ", i), Channels: []connector.Channel{memory.Mail(fmt.Sprintf("p%d@kelp.example", i))}}, "")
			w.erp.Attach(ids[i%10], k, connector.ERPRole{Key: "7", Name: "Buyer"})
			people = append(people, k)
		}
		w.mustSync(postgres.Full)
		for i := range 10 {
			w.erp.Detach(ids[i], people[i])
		}
		w.wantRun(postgres.Incremental, "half of the links are gone", 0, 10)
		w.reject()
		w.wantRun(postgres.Incremental, "the same evidence", 0, 0)
		w.wantRun(postgres.Full, "the same evidence in full", 0, 0)
		w.erp.EditContact(people[0], func(c *connector.Contact) { c.JobTitle = "Buyer" })
		w.wantRun(postgres.Incremental, "its contact is read, which says nothing of the link", 0, 0)
		w.erp.Attach(ids[0], people[0], connector.ERPRole{Key: "7", Name: "Buyer"})
		w.wantRun(postgres.Incremental, "stated again", 0, 0)
		w.erp.Detach(ids[0], people[0])
		w.wantRun(postgres.Incremental, "gone again", 1, 0)
	})
	t.Run("WithoutAPlace", func(t *testing.T) {
		w := setup(t, memory.NetSuite)
		ids := w.customers(20)
		var people []connector.Key
		for i := range 10 {
			k := w.erp.AddContact(connector.Contact{Name: fmt.Sprint("Person ", i), Channels: []connector.Channel{memory.Mail(fmt.Sprintf("p%d@kelp.example", i))}}, "")
			w.erp.Attach(ids[i], k, connector.ERPRole{Key: "7", Name: "Buyer"})
			people = append(people, connector.Key{Kind: connector.Contacts, ID: k})
		}
		w.mustSync(postgres.Full)
		w.erp.Detach(ids[0], people[0].ID)
		w.wantRun(postgres.Incremental, "one is detached", 1, 0)
		w.erp.Hide(people...)
		w.wantRun(postgres.Full, "all people are missing", 0, 9)
		w.reject()
		w.erp.Show(people[0])
		w.erp.Inactivate(people[0])
		w.wantRun(postgres.Full, "another reason, and nobody's mail", 0, 0)
		if got := pgtest.Value(t, w.dsn, `SELECT active FROM contactsync.contacts WHERE erp_id = '`+people[0].ID+`'`); got != "true" {
			t.Error("what a person kept went without being asked about")
		}
	})
}

// TestRejectingAfterApprovingBringsBack: customers, contacts and links that the approval took are active again, but for what has
// changed since; and the evidence is remembered.
func TestRejectingAfterApprovingBringsBack(t *testing.T) {
	t.Run("Customers", func(t *testing.T) {
		w, _, missing := holding(t)
		recipients := len(w.list(postgres.Recipients))
		w.approve()
		w.erp.Show(customer(missing[0])) // came back by itself
		w.wantRun(postgres.Full, "one came back", 0, 0)
		w.erp.Hide(customer(missing[0]))
		w.wantRun(postgres.Full, "and went again", 1, 0)
		if done := w.reject(); done.Back != 7 || done.Changed != 1 || done.Kept != 7 {
			t.Errorf("%+v", done)
		}
		if got := w.active(missing); !slices.Equal(got, missing[1:]) {
			t.Errorf("active: %v", got)
		}
		if n := len(w.list(postgres.Recipients)); n != recipients-1 {
			t.Errorf("%d recipients, want %d", n, recipients-1)
		}
		got := pgtest.Value(t, w.dsn, `SELECT string_agg(DISTINCT concat_ws(' ', by_user, reason), '; ') FROM contactsync.history
			WHERE by_user = 'bea' AND field = 'active' AND became = 'true'`)
		if want := fmt.Sprintf("bea rejected hold %d: an accident", w.hold().ID); got != want {
			t.Errorf("history says %q, want %q", got, want)
		}
		w.wantRun(postgres.Full, "the same evidence", 0, 0)
	})
	t.Run("Links", func(t *testing.T) {
		w := setup(t, memory.NetSuite)
		ids := w.customers(10)
		for i := range 20 {
			k := w.erp.AddContact(connector.Contact{Name: fmt.Sprint("Person ", i)}, "")
			w.erp.Attach(ids[i%10], k, connector.ERPRole{Key: "7", Name: "Buyer"})
		}
		w.mustSync(postgres.Full)
		state := `SELECT string_agg(concat_ws(' ', id, active, stated_by, erp_role_key), ';' ORDER BY id) FROM contactsync.customer_contacts`
		before := pgtest.Value(t, w.dsn, state)
		w.erp.Hide(connector.Key{Kind: connector.Links})
		w.wantRun(postgres.Incremental, "no links at all", 0, 20)
		if r := w.approve(); r.Gone != 20 {
			t.Errorf("deactivated %d", r.Gone)
		}
		w.reject()
		if after := pgtest.Value(t, w.dsn, state); after != before {
			t.Errorf("links were not brought back as they were\nbefore %s\nafter  %s", before, after)
		}
		w.wantRun(postgres.Incremental, "the same evidence", 0, 0)
	})
	t.Run("BeforeItWasCarriedOut", func(t *testing.T) {
		w, _, missing := holding(t)
		run, err := w.store.ApproveHold(w.ctx, w.hold(), approver)
		if err != nil {
			t.Fatal(err)
		}
		if done := w.reject(); done.Kept != 8 {
			t.Errorf("%+v", done)
		}
		w.work()
		if r, err := w.store.Run(w.ctx, run); err != nil || r.Status != "cancelled" || r.Gone != 0 {
			t.Errorf("%s %v", r.Status, err)
		}
		if h := w.hold(); h.State != "rejected" || len(w.active(missing)) != 8 {
			t.Errorf("%+v, active %v", h, w.active(missing))
		}
	})
	t.Run("WhileItIsCarriedOut", func(t *testing.T) {
		w, _, missing := holding(t)
		var once sync.Once
		w.erp.Before(func(_ context.Context, r memory.Request) error {
			if r.Op == memory.OpLookup {
				once.Do(func() { w.reject() })
			}
			return nil
		})
		if r := w.approve(); r.Status != "cancelled" || r.Gone != 0 || len(w.active(missing)) != 8 {
			t.Errorf("%s: deactivated %d, active %v", r.Status, r.Gone, w.active(missing))
		}
	})
}

// TestLeftWithoutARecipient: customers that a run leaves without one which they had are counted and listed; what still has another
// recipient is not, and a person's own contact counts.
func TestLeftWithoutARecipient(t *testing.T) {
	w := setup(t, memory.NetSuite)
	ids := w.customers(20)
	bare := w.erp.AddCustomer(connector.Customer{Name: "Only Ann", Kind: contact.Customer})
	for _, c := range []string{bare, ids[0]} {
		k := w.erp.AddContact(connector.Contact{Name: "Ann of " + c, Channels: []connector.Channel{memory.Mail("ann" + c + "@kelp.example")}}, "")
		w.erp.Attach(c, k, connector.ERPRole{Key: "-10", Name: "Primary Contact"})
	}
	w.mustSync(postgres.Full)
	w.exec(`UPDATE roles SET communication_contact = true WHERE id IN (SELECT role_id FROM role_mappings WHERE erp_role_key = '-10')`)
	for _, c := range w.list(postgres.Contacts) {
		if strings.HasPrefix(c["name"], "Ann of ") {
			w.erp.Inactivate(connector.Key{Kind: connector.Contacts, ID: c["contact_erp_id"]})
		}
	}
	r := w.mustSync(postgres.Incremental)
	left := w.list(postgres.LeftBare, postgres.Filter{Column: "run_id", Value: r.ID})
	if r.Gone != 2 || r.LeftBare != 1 || len(left) != 1 || left[0]["customer_name"] != "Only Ann" || left[0]["communication_type"] != "communication_contact" {
		t.Errorf("deactivated %d, left bare %d: %v", r.Gone, r.LeftBare, left)
	}
}

// TestMailOfAHoldStopsWhereItDoes: duplicates were merged, and those that are left have the same addresses. Who decides is told of the mail
// that would stop, not of the contacts that would.
func TestMailOfAHoldStopsWhereItDoes(t *testing.T) {
	w, customers, people := payers(t)
	for i, id := range customers[:15] { // the last one's twin gets no invoices
		twin := w.erp.AddContact(connector.Contact{Name: fmt.Sprint("Twin ", i), Channels: []connector.Channel{memory.Mail(fmt.Sprintf("P%d@kelp.example", i))}}, id)
		role := connector.ERPRole{Key: "7", Name: "Payer"}
		if i == 14 {
			role = connector.ERPRole{Key: "8", Name: "Friend"}
		}
		w.erp.Attach(id, twin, role)
	}
	w.mustSync(postgres.Full)
	for _, person := range people[:16] {
		w.erp.Delete(connector.Key{Kind: connector.Contacts, ID: person})
	}
	w.wantRun(postgres.Full, "sixteen were merged", 0, 16)
	stops, err := w.store.HoldMail(w.ctx, w.hold())
	if want := "[[communication_contact 0 0 0] [invoice_presentment 2 2 2]]"; err != nil || fmt.Sprint(stops.Values) != want {
		t.Errorf("the mail that stops is %v (%v), want %s", stops.Values, err, want)
	}
	w.approve()
	w.wantInvoices("approved", 18)
}

// TestOldApprovalIsNotBroughtBack: once its run and history are removed nobody knows what it took, and a rejection says so and changes nothing.
func TestOldApprovalIsNotBroughtBack(t *testing.T) {
	w, _, _ := holding(t)
	w.approve()
	w.exec(`DELETE FROM run_requests WHERE run_id = (SELECT max(id) FROM runs);
		DELETE FROM left_bare; DELETE FROM run_pages; DELETE FROM runs WHERE hold_id IS NOT NULL; DELETE FROM history`)
	if _, err := w.store.RejectHold(w.ctx, w.hold(), bea); err == nil || !strings.Contains(err.Error(), "longer ago than runs and history are kept") {
		t.Errorf("rejected: %v", err)
	}
	if _, err := w.store.ApproveHold(w.ctx, w.hold(), bea); !errors.Is(err, postgres.ErrDecided) || strings.Contains(err.Error(), "run 0") {
		t.Errorf("approved again: %v", err)
	}
	if state := w.hold().State; state != "approved" {
		t.Errorf("the hold is %s", state)
	}
}

// TestHeldAreActive: what a hold counts is what would go, as its run counted it: not a place that was detached long ago.
func TestHeldAreActive(t *testing.T) {
	w := setup(t, memory.NetSuite)
	for i := range 10 {
		id := fmt.Sprintf("c%d", i)
		w.erp.AddCustomer(connector.Customer{ID: id, Name: id}, memory.Mail(id+"@kelp.example"))
	}
	k := w.erp.AddContact(connector.Contact{Name: "Ann", Channels: []connector.Channel{memory.Mail("ann@kelp.example")}}, "")
	for i := range 10 {
		w.erp.Attach(fmt.Sprintf("c%d", i), k, connector.ERPRole{Key: "7", Name: "Buyer"})
	}
	w.mustSync(postgres.Full)
	w.erp.Detach("c0", k)
	if r := w.mustSync(postgres.Full); r.Gone != 1 {
		t.Fatalf("%d went", r.Gone)
	}
	w.erp.Delete(connector.Key{Kind: connector.Contacts, ID: k})
	r := w.mustSync(postgres.Full)
	if got := pgtest.Value(t, w.dsn, `SELECT held FROM connection_status`); r.Held != 9 || got != "9" {
		t.Errorf("the run counted %d held, the status %s", r.Held, got)
	}
	if hold, fleet := w.hold().Contacts, w.fleet().Held; hold != 9 || fleet != 9 {
		t.Errorf("the hold has %d, the fleet %d", hold, fleet)
	}
}

// TestOnlyWhatWasShownIsDecided: a decision on a hold that has grown since it was shown is refused, and decides nothing.
func TestOnlyWhatWasShownIsDecided(t *testing.T) {
	w, all, _ := holding(t)
	shown := w.hold()
	w.erp.Hide(customerKeys(all[8:28])...)
	w.wantRun(postgres.Full, "twenty more", 0, 28)
	// A run that was queued before may add after.
	w.exec(`UPDATE hold_items SET added_by_run = 1 WHERE added_by_run = (SELECT max(id) FROM runs)`)
	_, approved := w.store.ApproveHold(w.ctx, shown, approver)
	_, rejected := w.store.RejectHold(w.ctx, shown, bea)
	for what, err := range map[string]error{"approve": approved, "reject": rejected} {
		if !errors.Is(err, postgres.ErrMore) {
			t.Errorf("%s: %v", what, err)
		}
	}
	if h := w.hold(); h.State != "open" || h.ID != shown.ID || len(w.active(all)) != 40 {
		t.Errorf("hold %d is %s, %d are active", h.ID, h.State, len(w.active(all)))
	}
	w.wantRun(postgres.Full, "nothing new", 0, 28)
	if r := w.approve(); r.Gone != 28 {
		t.Errorf("%d went", r.Gone)
	}
}

// TestOnlyTheEvidenceThatWasShownIsDecided: a customer that was hidden by an accident, and is really gone since, is no part of what whoever
// rejects the accident was shown; rejected with it, it would stay and get mail, and nobody would be asked again.
func TestOnlyTheEvidenceThatWasShownIsDecided(t *testing.T) {
	w, _, missing := holding(t)
	shown := w.hold()
	w.erp.Show(customer(missing[0]))
	w.erp.Inactivate(customer(missing[0]))
	w.wantRun(postgres.Full, "the same ones, one of them stated inactive", 0, 8)
	if _, err := w.store.RejectHold(w.ctx, shown, bea); !errors.Is(err, postgres.ErrMore) {
		t.Errorf("it is rejected by evidence that nobody was shown: %v", err)
	}
	shown = w.hold()
	w.wantRun(postgres.Full, "nothing new", 0, 8)
	if _, err := w.store.RejectHold(w.ctx, shown, bea); err != nil {
		t.Error(err)
	}
}

// TestWhatJoinsAHoldIsShownFirst: what an approval that was cancelled leaves joins what was held meanwhile, and is no part of a decision on that.
func TestWhatJoinsAHoldIsShownFirst(t *testing.T) {
	w, _, _ := holding(t)
	approval, err := w.store.ApproveHold(w.ctx, w.hold(), approver)
	if err != nil {
		t.Fatal(err)
	}
	w.exec(`INSERT INTO holds (tenant_id, connection_id, opened_by_run, cause) VALUES (1, 1, 2, 'meanwhile')`)
	w.exec(`INSERT INTO hold_items (tenant_id, hold_id, kind, entity_id, reason, added_by_run) SELECT 1, max(id), 'customer', 30, 'erp_absent', 2 FROM holds`)
	shown := w.hold()
	if _, err := w.store.CancelRun(w.ctx, approval, ops); err != nil {
		t.Fatal(err)
	}
	if n := pgtest.Value(t, w.dsn, `SELECT count(*) > 8 FROM contactsync.hold_items WHERE left_at IS NULL AND hold_id = `+fmt.Sprint(shown.ID)); n != "true" {
		t.Fatal("nothing joined it")
	}
	if _, err := w.store.RejectHold(w.ctx, shown, bea); !errors.Is(err, postgres.ErrMore) {
		t.Errorf("it is decided with what joined it: %v", err)
	}
}

// TestRightsAreDecidedWithTheirHold: once a person decided what changed rights hide, who leaves later meets the brake as ever, also where somebody
// leaves between any two full runs. A decision before a full run under those rights decides nothing about them.
func TestRightsAreDecidedWithTheirHold(t *testing.T) {
	t.Parallel()
	for name, decide := range map[string]func(*world){
		"Approved": func(w *world) { w.approve() },
		"Rejected": func(w *world) { w.reject() },
	} {
		t.Run(name, func(t *testing.T) {
			w := setup(t, memory.QuickBooks)
			ids := w.customers(60)
			w.erp.SetRights("all")
			w.mustSync(postgres.Full)
			w.erp.SetRights("some")
			w.erp.Inactivate(customer(ids[0]))
			w.wantRun(postgres.Incremental, "before any full run", 0, 1)
			decide(w)
			w.erp.Hide(customer(ids[1]))
			w.wantRun(postgres.Full, "hidden", 0, 1)
			decide(w)
			for i := 2; i < 5; i++ {
				w.erp.Hide(customer(ids[i]))
				w.wantRun(postgres.Full, "leaves later", 1, 0)
			}
		})
	}
}

// TestRightsAreNotDecidedByWhatWasReadAgain: what left its hold undecided since the full run may have been read under wider rights, so the
// narrow ones are still a change after the decision about the rest.
func TestRightsAreNotDecidedByWhatWasReadAgain(t *testing.T) {
	w := setup(t, memory.QuickBooks)
	ids := w.customers(60)
	w.erp.SetRights("all")
	w.mustSync(postgres.Full)
	w.erp.SetRights("some")
	w.erp.Hide(customerKeys(ids[:2])...)
	w.wantRun(postgres.Full, "two hidden", 0, 2)
	w.erp.Show(customer(ids[1]))
	w.erp.Inactivate(customer(ids[1]))
	w.wantRun(postgres.Incremental, "one of them is stated inactive", 0, 1)
	w.erp.Reactivate(customer(ids[1]))
	w.wantRun(postgres.Incremental, "and active", 0, 0)
	w.approve()
	w.erp.Hide(customer(ids[2]))
	w.wantRun(postgres.Full, "hidden later", 0, 1)
}

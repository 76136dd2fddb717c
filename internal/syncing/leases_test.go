package syncing_test

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"sync"
	"testing"
	"time"

	"github.com/centime/contactsync/internal/connector"
	"github.com/centime/contactsync/internal/connector/memory"
	"github.com/centime/contactsync/internal/contact"
	"github.com/centime/contactsync/internal/credentials"
	"github.com/centime/contactsync/internal/postgres"
	"github.com/centime/contactsync/internal/postgres/pgtest"
	"github.com/centime/contactsync/internal/reconcile"
)

// claimed queues a full run and takes its lease.
func (w *world) claimed(lease time.Duration) *postgres.Claimed {
	w.t.Helper()
	run := w.queue(postgres.Full)
	out, err := w.store.HandOutNew(w.ctx, 1)
	if err != nil || len(out) != 1 {
		w.t.Fatal(out, err)
	}
	c, err := w.store.Claim(w.ctx, run, out[0].Delivery, lease)
	if err != nil {
		w.t.Fatal(err)
	}
	return c
}

func pageOf(ids ...string) connector.Page {
	page := connector.Page{Next: connector.Cursor("after " + ids[len(ids)-1])}
	for _, id := range ids {
		page.Customers = append(page.Customers, connector.Customer{ID: id, Name: "N", Kind: contact.Customer, Active: true})
		page.Contacts = append(page.Contacts, connector.Contact{ID: contact.OwnID(id), Name: "N", Active: true})
		page.Links = append(page.Links, connector.Link{
			Customer: id, Contact: contact.OwnID(id), StatedBy: customer(id), Roles: []connector.ERPRole{connector.CompanyRole},
		})
	}
	return page
}

// TestEndedLeaseCannotWrite guards rule 5 where nobody else has claimed the run yet: somebody may at any moment.
func TestEndedLeaseCannotWrite(t *testing.T) {
	w := setup(t, memory.QuickBooks)
	late := w.claimed(time.Microsecond)
	if _, err := w.store.SavePage(w.ctx, late.Step, reconcile.Read(pageOf("1")), 0); !errors.Is(err, postgres.ErrLeaseLost) {
		t.Errorf("a page after the lease's end: %v", err)
	}
}

// TestOldDeliveryIsNotWorked guards rule 5: a task that the queue kept after its run was handed out again ends at once.
func TestOldDeliveryIsNotWorked(t *testing.T) {
	w := setup(t, memory.QuickBooks)
	run := w.queue(postgres.Full)
	old, err := w.store.HandOutNew(w.ctx, 1)
	if err != nil {
		t.Fatal(err)
	}
	if err := w.store.HandOutAgain(w.ctx, old); err != nil {
		t.Fatal(err)
	}
	if _, err := w.store.HandOutNew(w.ctx, 1); err != nil {
		t.Fatal(err)
	}
	if _, err := w.store.Claim(w.ctx, run, old[0].Delivery, time.Minute); !errors.Is(err, postgres.ErrNotYours) {
		t.Errorf("claimed with an old delivery: %v", err)
	}
}

// TestCursorMovesWithTheOutcome guards rules 4 and 6: a run that was read to its end and did not finish has decided nothing,
// so the next one must begin where the last finished one ended.
func TestCursorMovesWithTheOutcome(t *testing.T) {
	w := setup(t, memory.QuickBooks)
	c := w.claimed(time.Minute)
	page := pageOf("1")
	page.End = &connector.End{Cursor: "next"}
	if _, err := w.store.SavePage(w.ctx, c.Step, reconcile.Read(page), 0); err != nil {
		t.Fatal(err)
	}
	cursor := func() string { return pgtest.Value(t, w.dsn, `SELECT cursor FROM contactsync.connections`) }
	if got := cursor(); got != "" {
		t.Errorf("before the finish the cursor is %q", got)
	}
	if _, err := w.store.Finish(w.ctx, c.Step, c.Settings, true, 0); err != nil {
		t.Fatal(err)
	}
	if got := cursor(); got != "next" {
		t.Errorf("after the finish the cursor is %q", got)
	}
}

// TestLostPagesMakeNobodyAbsent guards rule 6: where the notes of a page are missing, who stood on it is unknown, not gone.
func TestLostPagesMakeNobodyAbsent(t *testing.T) {
	w := setup(t, memory.QuickBooks)
	w.customers(3)
	w.mustSync(postgres.Full)
	ids := w.list(postgres.Customers)
	c := w.claimed(time.Minute)
	last := pageOf(ids[1]["customer_erp_id"], ids[2]["customer_erp_id"])
	last.End = &connector.End{Cursor: "next", Listed: []connector.Kind{connector.Customers}}
	for _, page := range []connector.Page{pageOf(ids[0]["customer_erp_id"]), last} {
		if _, err := w.store.SavePage(w.ctx, c.Step, reconcile.Read(page), 0); err != nil {
			t.Fatal(err)
		}
	}
	w.exec(`DELETE FROM run_pages WHERE page = 1 AND run_id = (SELECT max(id) FROM runs)`)
	end, err := w.store.Finish(w.ctx, c.Step, c.Settings, false, 0)
	if err != nil || end.Went != (postgres.Went{}) {
		t.Errorf("%+v, %v; want nobody gone or held", end, err)
	}
}

// TestMissingIsLookedUpFirst guards rule 6: who is missing from the listing and found by a look-up stays.
func TestMissingIsLookedUpFirst(t *testing.T) {
	w := setup(t, memory.QuickBooks)
	ids := w.customers(8)
	w.mustSync(postgres.Full)
	w.erp.Hide(customer(ids[0]))
	w.erp.Before(func(_ context.Context, r memory.Request) error {
		if r.Op == memory.OpLookup {
			w.erp.Show(customer(ids[0]))
		}
		return nil
	})
	if r := w.mustSync(postgres.Full); r.Gone != 0 {
		t.Errorf("deactivated %d, want nobody: the look-up finds it", r.Gone)
	}
}

// midway works a full run up to its second page, does something, and lets it go on when the lease was renewed twice since, so
// that a renewal saw it.
func (w *world) midway(do func(run int64)) int64 {
	w.t.Helper()
	w.worker.Lease = 400 * time.Millisecond
	run := w.queue(postgres.Full)
	page := 0
	w.erp.Before(func(ctx context.Context, r memory.Request) error {
		if page++; page != 2 {
			return nil
		}
		do(run)
		for range 2 {
			if err := w.renewed(ctx, run); err != nil {
				return err
			}
		}
		return nil
	})
	w.work()
	w.erp.Before(nil)
	return run
}

// renewed waits until the lease of a run is renewed.
func (w *world) renewed(ctx context.Context, run int64) error {
	until := func() string {
		return pgtest.Value(w.t, w.dsn, `SELECT coalesce(lease_until::text, '') FROM contactsync.runs WHERE id = $1`, run)
	}
	before := until()
	poll := time.NewTicker(10 * time.Millisecond)
	defer poll.Stop()
	for range 2000 {
		if now := until(); now != before && now != "" {
			return nil
		}
		select {
		case <-poll.C:
		case <-ctx.Done():
			return errors.New("the step ended: its lease was not renewed")
		}
	}
	return errors.New("the lease was not renewed")
}

// TestSlowPageKeepsTheLease guards rule 5: an ERP that takes longer than a lease costs nobody the lease.
func TestSlowPageKeepsTheLease(t *testing.T) {
	w := setup(t, memory.QuickBooks)
	w.customers(9)
	w.worker.Backoff = func(int) time.Duration { return time.Hour }
	run := w.midway(func(int64) {})
	if r, err := w.store.Run(w.ctx, run); err != nil || r.Status != "succeeded" || r.Claims != 1 {
		t.Errorf("%s after %d claims, %v", r.Status, r.Claims, err)
	}
}

// TestPeopleStopARunThatIsWorked: a pause keeps what was read and goes on later, a cancelled run ends; neither reads on.
func TestPeopleStopARunThatIsWorked(t *testing.T) {
	t.Parallel()
	t.Run("Pause", func(t *testing.T) {
		w := setup(t, memory.QuickBooks)
		w.customers(12)
		c, err := w.store.FindConnection(w.ctx, "Kelp books")
		if err != nil {
			t.Fatal(err)
		}
		run := w.midway(func(int64) {
			if err := w.store.SetState(w.ctx, c, "paused", ops); err != nil {
				t.Error(err)
			}
		})
		if r, err := w.store.Run(w.ctx, run); err != nil || r.Status != "waiting" || r.Read >= 12 {
			t.Errorf("paused: %s, read %d, %v", r.Status, r.Read, err)
		}
		if err := w.store.SetState(w.ctx, c, "active", ops); err != nil {
			t.Fatal(err)
		}
		w.work()
		if r, err := w.store.Run(w.ctx, run); err != nil || r.Status != "succeeded" || r.Read != 12 {
			t.Errorf("resumed: %s, read %d, %v", r.Status, r.Read, err)
		}
	})
	t.Run("Cancel", func(t *testing.T) {
		w := setup(t, memory.QuickBooks)
		w.customers(12)
		run := w.midway(func(run int64) {
			if _, err := w.store.CancelRun(w.ctx, run, postgres.By{User: "ops"}); err != nil {
				t.Error(err)
			}
		})
		if r, err := w.store.Run(w.ctx, run); err != nil || r.Status != "cancelled" || r.Read >= 12 {
			t.Errorf("cancelled: %s, read %d, %v", r.Status, r.Read, err)
		}
	})
}

// TestPeopleStopARunAtItsEnd guards rule 6: whoever cancels a run or pauses its connection while the last page is on its way keeps the run from
// letting anybody go. Most companies are one page.
func TestPeopleStopARunAtItsEnd(t *testing.T) {
	t.Parallel()
	stop := map[string]func(w *world, run int64) error{
		"cancelled": func(w *world, run int64) error {
			_, err := w.store.CancelRun(w.ctx, run, postgres.By{User: "ops"})
			return err
		},
		"waiting": func(w *world, _ int64) error {
			c, err := w.store.FindConnection(w.ctx, "Kelp books")
			if err != nil {
				return err
			}
			return w.store.SetState(w.ctx, c, "paused", ops)
		},
	}
	// atRequest stops the run when it asks the ERP, after which it goes on to its end.
	atRequest := func(w *world, run int64, stop func(*world, int64) error) {
		var once sync.Once
		w.erp.Before(func(context.Context, memory.Request) error {
			once.Do(func() {
				if err := stop(w, run); err != nil {
					w.t.Error(err)
				}
			})
			return nil
		})
		w.work()
	}
	for status, stop := range stop {
		t.Run("Sync/"+status, func(t *testing.T) {
			w := setup(t, memory.QuickBooks)
			ids := w.customers(2)
			w.mustSync(postgres.Full)
			w.erp.Inactivate(customer(ids[0]))
			run := w.queue(postgres.Full)
			atRequest(w, run, stop)
			if r, err := w.store.Run(w.ctx, run); err != nil || r.Status != status || r.Gone != 0 || len(w.active(ids)) != 2 {
				t.Errorf("the run is %s, deactivated %d, %v; want %s and none", r.Status, r.Gone, err, status)
			}
			if status != "waiting" {
				return
			}
			c, err := w.store.FindConnection(w.ctx, "Kelp books")
			if err != nil {
				t.Fatal(err)
			}
			if err := w.store.SetState(w.ctx, c, "active", ops); err != nil {
				t.Fatal(err)
			}
			w.work()
			if r, err := w.store.Run(w.ctx, run); err != nil || r.Status != "succeeded" || r.Gone != 1 {
				t.Errorf("resumed, the run %s, deactivated %d, %v", r.Status, r.Gone, err)
			}
		})
		t.Run("Approval/"+status, func(t *testing.T) {
			w, all, _ := holding(t)
			hold := w.hold()
			approval, err := w.store.ApproveHold(w.ctx, hold, approver)
			if err != nil {
				t.Fatal(err)
			}
			atRequest(w, approval, stop)
			if r, err := w.store.Run(w.ctx, approval); err != nil || r.Status != status || r.Gone != 0 || len(w.active(all)) != 40 {
				t.Errorf("the approval is %s, deactivated %d, %v; want %s and none", r.Status, r.Gone, err, status)
			}
			if want := map[string]string{"cancelled": "open", "waiting": "approved"}[status]; w.hold().State != want {
				t.Errorf("the hold is %s, want %s", w.hold().State, want)
			}
		})
	}
}

// TestWhoGetsNoMail guards rule 14's other half: text that is no address gets none, nor anybody of a removed connection.
func TestWhoGetsNoMail(t *testing.T) {
	w := setup(t, memory.QuickBooks)
	w.erp.AddCustomer(connector.Customer{Name: "A", Kind: contact.Customer, Active: true}, memory.Mail("see notes, a@kelp.example"))
	w.mustSync(postgres.Full)
	if got := w.list(postgres.Recipients); len(got) != 1 || got[0]["email"] != "a@kelp.example" {
		t.Errorf("recipients: %v", got)
	}
	c, err := w.store.FindConnection(w.ctx, "Kelp books")
	if err != nil {
		t.Fatal(err)
	}
	if err := w.store.SetState(w.ctx, c, "removed", ops); err != nil {
		t.Fatal(err)
	}
	if got := w.list(postgres.Recipients); len(got) != 0 {
		t.Errorf("recipients of a removed connection: %v", got)
	}
}

// TestNULAloneIsCutOut guards rule 8: a NUL in text that is otherwise right is no reason to fail a page.
func TestNULAloneIsCutOut(t *testing.T) {
	w := setup(t, memory.QuickBooks)
	c := w.claimed(time.Minute)
	page := pageOf("1")
	page.Customers[0].Name = "Kelp\x00 Ltd"
	if _, err := w.store.SavePage(w.ctx, c.Step, reconcile.Read(page), 0); err != nil {
		t.Fatal(err)
	}
	if got := w.list(postgres.Customers)[0]["name"]; got != "Kelp Ltd" {
		t.Errorf("stored %q", got)
	}
}

// TestRecordCountsOnceARun guards rule 8: what a later page names again was counted.
func TestRecordCountsOnceARun(t *testing.T) {
	w := setup(t, memory.QuickBooks)
	c := w.claimed(time.Minute)
	for _, page := range []connector.Page{pageOf("1", "2"), pageOf("2", "3")} {
		if _, err := w.store.SavePage(w.ctx, c.Step, reconcile.Read(page), 0); err != nil {
			t.Fatal(err)
		}
	}
	if r, err := w.store.Run(w.ctx, c.Run); err != nil || r.Read != 3 || r.Created != 3 {
		t.Errorf("read %d, created %d, %v; want 3 and 3", r.Read, r.Created, err)
	}
}

// TestStepSaysThatItGaveWay: the delivery after a step that gave way stands back, and no other does.
func TestStepSaysThatItGaveWay(t *testing.T) {
	w := setup(t, memory.QuickBooks)
	w.customers(7) // three pages
	run := w.queue(postgres.Full)
	out, err := w.store.HandOutNew(w.ctx, 1)
	if err != nil || len(out) != 1 {
		t.Fatal(out, err)
	}
	var once sync.Once
	w.erp.Before(func(context.Context, memory.Request) error {
		once.Do(func() { <-time.After(1100 * time.Millisecond) }) // an ERP that takes its time: no step gives way in its first second
		return nil
	})
	w.worker.GiveWay = func(context.Context, postgres.Trigger) bool { return true }
	next := w.worker.Work(w.ctx, run, out[0].Delivery)
	if next == nil || !next.GaveWay || w.state(run).Read != 3 {
		t.Fatalf("%+v after %d records, want one that gave way after the first page", next, w.state(run).Read)
	}
	w.worker.Step = time.Nanosecond
	if next = w.worker.Work(w.ctx, run, next.Delivery); next == nil || next.GaveWay {
		t.Errorf("%+v, want one that gave no way", next)
	}
}

// TestPauseHoldsForAClaimThatWaits: a claim that waits for the run's row meanwhile does not work what was paused.
func TestPauseHoldsForAClaimThatWaits(t *testing.T) {
	w := setup(t, memory.QuickBooks)
	run := w.queue(postgres.Full)
	out, err := w.store.HandOutNew(w.ctx, 1)
	if err != nil || len(out) != 1 {
		t.Fatal(out, err)
	}
	db, err := sql.Open("postgres", w.dsn)
	if err != nil {
		t.Fatal(err)
	}
	defer db.Close()
	other, err := db.BeginTx(w.ctx, nil)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := other.ExecContext(w.ctx, `SELECT FROM contactsync.runs WHERE id = $1 FOR UPDATE`, run); err != nil {
		t.Fatal(err)
	}
	claimed := make(chan error)
	go func() {
		_, err := w.store.Claim(w.ctx, run, out[0].Delivery, time.Minute)
		claimed <- err
	}()
	for pgtest.Value(t, w.dsn, `SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND wait_event_type = 'Lock'`) != "1" {
		if err := w.ctx.Err(); err != nil {
			t.Fatal(err)
		}
	}
	w.exec(`UPDATE contactsync.connections SET state = 'paused'`)
	if err := other.Commit(); err != nil {
		t.Fatal(err)
	}
	if err := <-claimed; !errors.Is(err, postgres.ErrNotYours) {
		t.Errorf("claimed: %v", err)
	}
}

// TestCallsOfAPageThatCouldNotBeSavedCount: metered calls are paid for, whatever becomes of their answers.
func TestCallsOfAPageThatCouldNotBeSavedCount(t *testing.T) {
	w := setup(t, memory.QuickBooks)
	w.customers(3)
	w.exec(`ALTER TABLE contactsync.customers ADD CHECK (name <> 'Customer 1')`)
	r := w.sync(postgres.Full)
	if asked := int64(len(w.erp.Requests())); r.Status != "failed" || asked == 0 || r.Calls != asked {
		t.Errorf("the run %s, with %d calls; the ERP was asked %d times", r.Status, r.Calls, asked)
	}
}

// TestRefusalOfAReplacedLogin: a run that ends refused though a person gave another login since it began says nothing about that one, whether
// the ERP forbids another try or not.
func TestRefusalOfAReplacedLogin(t *testing.T) {
	t.Parallel()
	for _, replaced := range []bool{true, false} {
		for _, final := range []bool{true, false} {
			t.Run(fmt.Sprintf("Replaced=%t/Final=%t", replaced, final), func(t *testing.T) {
				w := setup(t, memory.QuickBooks)
				w.customers(1)
				w.mustSync(postgres.Full)
				c, err := w.store.FindConnection(w.ctx, "Kelp books")
				if err != nil {
					t.Fatal(err)
				}
				claimed := w.claimed(time.Minute)
				if replaced {
					if _, err := w.store.SetCredentials(w.ctx, c, credentials.Stored{KeyID: "k", Box: []byte("new")}, true, ops); err != nil {
						t.Fatal(err)
					}
				}
				if err := w.store.Fail(w.ctx, claimed.Step, &connector.Error{Kind: connector.Denied, Message: "refused", NoTrial: final}, 1); err != nil {
					t.Fatal(err)
				}
				got := pgtest.Value(t, w.dsn, `SELECT n.state || ' ' || (k.refused_at IS NOT NULL) || ' ' || (n.next_due_at IS NOT NULL)
					FROM contactsync.connections n JOIN contactsync.credentials k ON k.connection_id = n.id`)
				want := "active false true"
				if !replaced {
					want = fmt.Sprintf("needs_attention %t %t", final, !final)
				}
				if got != want {
					t.Errorf("it is %s, want %s", got, want)
				}
			})
		}
	}
}

// TestPanicGivesTheLeaseUp: a step that panics, be it a preview's, which no context of the queue ends, renews its lease no more, so that the
// next claim is let in.
func TestPanicGivesTheLeaseUp(t *testing.T) {
	w := setup(t, memory.QuickBooks)
	w.worker.Lease = 400 * time.Millisecond
	ids := w.customers(3)
	w.mustSync(postgres.Full)
	w.erp.Hide(customer(ids[0]))
	w.erp.Before(func(_ context.Context, r memory.Request) error {
		if r.Op == memory.OpLookup {
			panic("an answer that nobody thought of")
		}
		return nil
	})
	run := w.queuePreview(postgres.Full)
	out, err := w.store.HandOutNew(w.ctx, 1)
	if err != nil || len(out) != 1 {
		t.Fatal(out, err)
	}
	func() {
		defer func() {
			if recover() == nil {
				t.Fatal("it did not panic")
			}
		}()
		w.worker.Work(w.ctx, run, out[0].Delivery)
	}()
	w.erp.Before(nil)
	poll := time.NewTicker(10 * time.Millisecond)
	defer poll.Stop()
	for range 1000 {
		if pgtest.Value(t, w.dsn, `SELECT lease_until < now() FROM contactsync.runs WHERE id = $1`, run) == "true" {
			return
		}
		<-poll.C
	}
	t.Error("the lease is renewed although the step is over: nothing of the connection is worked any more")
}

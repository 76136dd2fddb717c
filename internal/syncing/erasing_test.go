package syncing_test

import (
	"context"
	"database/sql"
	"fmt"
	"log/slog"
	"strings"
	"sync"
	"testing"

	"github.com/centime/contactsync/internal/connector"
	"github.com/centime/contactsync/internal/connector/memory"
	"github.com/centime/contactsync/internal/postgres"
	"github.com/centime/contactsync/internal/postgres/pgtest"
)

// ingrids attaches a person to each of ten customers, and syncs.
func ingrids(t *testing.T) (w *world, customers, people []string) {
	w = setup(t, memory.NetSuite)
	w.erp.SetPageSize(10) // first the customers, then all people
	customers = w.customers(10)
	for i, id := range customers {
		people = append(people, w.erp.AddContact(connector.Contact{Name: fmt.Sprintf("Ingridqx-%d", i),
			Channels: []connector.Channel{memory.Mail(fmt.Sprintf("p%d@zyxmail.example", i))}}, ""))
		w.erp.Attach(id, people[i], connector.ERPRole{})
	}
	w.mustSync(postgres.Full)
	return w, customers, people
}

// erase erases who has an address.
func (w *world) erase(address string) {
	w.t.Helper()
	found, err := w.store.FindErasable(w.ctx, w.tenant, address)
	if err == nil {
		_, err = w.store.EraseContact(w.ctx, w.tenant, found.ID, ops, false)
	}
	if err != nil {
		w.t.Error(err)
	}
}

// erasing begins an erasure that has done all but to compare who gets mail, and waits. Once n more wait as well, it goes on to its end.
func (w *world) erasing(address string, n int) (ended *sync.WaitGroup) {
	w.t.Helper()
	ended = &sync.WaitGroup{}
	db, err := sql.Open("postgres", w.dsn)
	if err != nil {
		w.t.Error(err)
		return ended
	}
	w.t.Cleanup(func() { _ = db.Close() })
	between, err := db.BeginTx(w.ctx, nil)
	if err != nil {
		w.t.Error(err)
		return ended
	}
	if _, err := between.ExecContext(w.ctx, `LOCK TABLE contactsync.preview_mail IN SHARE MODE`); err != nil { // where erasing comes last
		w.t.Error(err)
	}
	ended.Go(func() { w.erase(address) })
	w.waiting(1)
	ended.Go(func() {
		w.waiting(1 + n)
		if err := between.Commit(); err != nil {
			w.t.Error(err)
		}
	})
	return ended
}

// waiting returns when so many sessions wait for locks.
func (w *world) waiting(n int) {
	for w.ctx.Err() == nil && pgtest.Value(w.t, w.dsn, `SELECT count(*) FROM pg_stat_activity
		WHERE datname = current_database() AND wait_event_type = 'Lock'`) != fmt.Sprint(n) {
	}
}

// atPage does something when a page of the latest run is saved, the last one or any.
func (w *world) atPage(last bool, do func()) {
	var once sync.Once
	w.worker.Log = slog.New(heard{slog.NewTextHandler(w.t.Output(), &slog.HandlerOptions{Level: slog.LevelDebug}), "page saved", func() {
		if !last || pgtest.Value(w.t, w.dsn, `SELECT pulled FROM contactsync.runs ORDER BY id DESC LIMIT 1`) == "true" {
			once.Do(do)
		}
	}})
}

// TestErasingWhileARunWaits: what a run saves or holds once it has waited for an erasure to end is without whom that erased. Nothing could take
// them out of a hold again; and that the tenant had nobody erased before was the page's view from before it waited.
func TestErasingWhileARunWaits(t *testing.T) {
	wantHeld := func(t *testing.T, w *world, r postgres.RunState) {
		t.Helper()
		if n := pgtest.Value(t, w.dsn, `SELECT count(*) FROM contactsync.hold_items WHERE kind = 'contact'`); r.Held != 9 || n != "9" {
			t.Errorf("held %d, of %s contacts; want the 9 that are there", r.Held, n)
		}
	}
	t.Run("ToSaveAPage", func(t *testing.T) {
		w, _, _ := ingrids(t)
		var erased *sync.WaitGroup
		w.atPage(false, func() { erased = w.erasing("p0@zyxmail.example", 1) })
		w.mustSync(postgres.Full)
		erased.Wait()
		if met := w.found("p0@zyxmail", "ingridqx-0"); len(met) != 0 {
			t.Errorf("still there: %s", strings.Join(met, "; "))
		}
	})
	t.Run("ToHold", func(t *testing.T) {
		w, _, _ := ingrids(t)
		var erased *sync.WaitGroup
		w.atPage(true, func() { erased = w.erasing("p0@zyxmail.example", 1) })
		w.erp.Hide(connector.Key{Kind: connector.Contacts})
		r := w.mustSync(postgres.Full)
		erased.Wait()
		wantHeld(t, w, r)
	})
	t.Run("ToBeClaimed", func(t *testing.T) {
		w, _, _ := ingrids(t)
		w.erp.Hide(connector.Key{Kind: connector.Contacts})
		run := w.queue(postgres.Full)
		out, err := w.store.HandOutNew(w.ctx, 1)
		if err != nil || len(out) != 1 {
			t.Fatal(out, err)
		}
		erased := w.erasing("p0@zyxmail.example", 1)
		w.worker.Work(w.ctx, run, out[0].Delivery)
		erased.Wait()
		wantHeld(t, w, w.state(run))
	})
}

// TestErasingWhileARunIsQueued: a run that is asked for while an erasure is under way waits for it, and the schedulers pass over the
// connection. Else it would read the person as held, and write the ERP's change of them.
func TestErasingWhileARunIsQueued(t *testing.T) {
	w := setup(t, memory.QuickBooks)
	ids := w.customers(9)
	w.mustSync(postgres.Full)
	w.erase("c7@kelp.example") // the tenant's first: whether it had somebody erased is no question then
	w.erp.EditCustomer(ids[3], func(_ *connector.Customer, own *connector.Contact) {
		own.GivenName, own.Channels = "Ingridqx", []connector.Channel{memory.Mail("late3@kelp.example")}
	})
	w.exec(`UPDATE connections SET next_due_at = now(), auto_sync = true`)
	erased := w.erasing("c3@kelp.example", 1)
	if n, err := w.store.QueueDue(w.ctx, 10, postgres.Savings{}); n != 0 || err != nil {
		t.Errorf("a scheduler queued %d runs: %v", n, err)
	}
	run := w.queue(postgres.Full)
	w.work()
	erased.Wait()
	if r := w.state(run); r.Status != "succeeded" {
		t.Errorf("%+v", r)
	}
	if met := w.found("c3@kelp", "late3@kelp", "ingridqx"); len(met) != 0 {
		t.Errorf("still there: %s", strings.Join(met, "; "))
	}
}

// TestErasingWhileAPreviewRehearses: a preview whose view is from before an erasure reports nothing, since it may name the person; and the
// erasure does not wait for a rehearsal that waits for it.
func TestErasingWhileAPreviewRehearses(t *testing.T) {
	for _, wrote := range []bool{false, true} {
		t.Run(map[bool]string{false: "NamesThem", true: "WroteOfThem"}[wrote], func(t *testing.T) {
			w, customers, people := ingrids(t)
			if wrote {
				w.erp.Attach(customers[1], people[0], connector.ERPRole{})
			} else {
				w.customers(1) // where it stands still
				w.erp.Hide(connector.Key{Kind: connector.Contacts})
			}
			run := w.queuePreview(postgres.Full)
			release := w.standStill()
			var going sync.WaitGroup
			going.Go(w.work)
			w.stands()
			erased := make(chan struct{})
			go func() {
				w.erase("p0@zyxmail.example")
				close(erased)
			}()
			if wrote {
				w.waiting(2) // the rehearsal to go on, the erasure for the rehearsal
			} else {
				<-erased
			}
			release()
			going.Wait()
			<-erased
			w.work()
			if r := w.state(run); r.Status != "cancelled" {
				t.Errorf("the preview is %s", r.Status)
			}
			if met := w.found("p0@zyxmail", "ingridqx-0"); len(met) != 0 {
				t.Errorf("still there: %s", strings.Join(met, "; "))
			}
		})
	}
}

// heard does something when a line is logged.
type heard struct {
	slog.Handler
	line string
	do   func()
}

func (h heard) Handle(ctx context.Context, r slog.Record) error {
	if r.Message == h.line {
		h.do()
	}
	return h.Handler.Handle(ctx, r)
}

func (h heard) WithAttrs(attrs []slog.Attr) slog.Handler {
	return heard{h.Handler.WithAttrs(attrs), h.line, h.do}
}

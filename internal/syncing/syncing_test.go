package syncing_test

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"slices"
	"testing"
	"time"

	"github.com/centime/contactsync/internal/connector"
	"github.com/centime/contactsync/internal/connector/memory"
	"github.com/centime/contactsync/internal/contact"
	"github.com/centime/contactsync/internal/credentials"
	"github.com/centime/contactsync/internal/postgres"
	"github.com/centime/contactsync/internal/postgres/pgtest"
	"github.com/centime/contactsync/internal/reconcile"
	"github.com/centime/contactsync/internal/settings"
	"github.com/centime/contactsync/internal/syncing"
)

// world is one tenant with one connection to an ERP in memory.
type world struct {
	t          *testing.T
	ctx        context.Context
	dsn        string
	store      *postgres.Store
	erp        *memory.ERP
	worker     *syncing.Worker
	tenant     int64
	connection int64
}

var ops = postgres.By{User: "tester"}

func setup(t *testing.T, style memory.Style) *world {
	t.Helper()
	t.Parallel()
	w := &world{t: t, ctx: t.Context(), dsn: pgtest.New(t), erp: memory.New("acct-1", style)}
	w.erp.SetPageSize(3)
	var err error
	if w.store, err = postgres.Open(w.dsn, 8); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = w.store.Close() })
	ring, err := credentials.ParseRing(credentials.NewKey())
	if err != nil {
		t.Fatal(err)
	}
	erps := memory.NewConnector("memory", w.erp)
	w.worker = &syncing.Worker{
		Store: w.store, Connectors: map[string]connector.Connector{"memory": erps}, Ring: ring, Log: slog.New(slog.NewTextHandler(t.Output(), nil)),
		Lease: 20 * time.Second, Step: time.Minute, Draining: make(chan struct{}), Backoff: func(int) time.Duration { return 0 },
	}
	if w.tenant, err = w.store.AddTenant(w.ctx, "Kelp", "UTC", ops); err != nil {
		t.Fatal(err)
	}
	w.connection = w.connect("Kelp books")
	return w
}

func (w *world) connect(name string) int64 {
	w.t.Helper()
	added, err := w.store.AddConnection(w.ctx, postgres.NewConnection{
		Tenant: w.tenant, ERP: "memory", Account: "acct-1", Name: name, Schedule: "@every 1h", Settings: settings.Map{}, Paused: false,
		Seal: func(id int64) (credentials.Stored, error) {
			return w.worker.Ring.Pack(w.erp.Credentials(),
				credentials.Place{Table: "credentials", Tenant: w.tenant, Connection: id})
		},
	}, ops)
	if err != nil {
		w.t.Fatal(err)
	}
	return added.Connection
}

// queue asks for a run; work works everything that is ready until nothing is.
func (w *world) queue(mode postgres.Mode) int64 {
	w.t.Helper()
	run, _, err := w.store.QueueRun(w.ctx, postgres.Request{
		Tenant: w.tenant, Connection: w.connection, Mode: mode, Trigger: postgres.Manual, By: "tester",
	})
	if err != nil {
		w.t.Fatal(err)
	}
	return run
}

func (w *world) work() {
	w.t.Helper()
	for steps := 0; ; {
		out, err := w.store.HandOutNew(w.ctx, 10)
		if err != nil {
			w.t.Fatal(err)
		}
		if len(out) == 0 {
			return
		}
		for _, h := range out {
			for next := &h; next != nil; steps++ {
				if steps == 1000 {
					w.t.Fatal("the runs never end")
				}
				next = w.worker.Work(w.ctx, next.Run, next.Delivery)
			}
		}
	}
}

// sync runs to the end and returns the run.
func (w *world) sync(mode postgres.Mode) postgres.RunState {
	w.t.Helper()
	run := w.queue(mode)
	w.work()
	r, err := w.store.Run(w.ctx, run)
	if err != nil {
		w.t.Fatal(err)
	}
	if !r.Over() {
		w.t.Fatalf("run %d is %s", run, r.Status)
	}
	return r
}

func (w *world) mustSync(mode postgres.Mode) postgres.RunState {
	w.t.Helper()
	r := w.sync(mode)
	if r.Status != "succeeded" {
		w.t.Fatalf("run %s: %s", r.Status, *r.Error)
	}
	return r
}

func (w *world) list(l postgres.Listing, filters ...postgres.Filter) []map[string]string {
	w.t.Helper()
	rows, err := w.store.List(w.ctx, l, 0, 0, filters...)
	if err != nil {
		w.t.Fatal(err)
	}
	out := make([]map[string]string, 0, len(rows.Values))
	for _, row := range rows.Values {
		m := map[string]string{}
		for i, c := range rows.Columns {
			m[c] = fmt.Sprint(row[i])
		}
		out = append(out, m)
	}
	return out
}

// truth is what a full pull says now, as lines to compare.
func (w *world) truth() []string {
	w.t.Helper()
	var lines []string
	customers, contacts := map[string]connector.Customer{}, map[string]connector.Contact{}
	var links []connector.Link
	for page, err := range w.erp.Source().Pull(w.ctx, connector.Pull{}) {
		if err != nil {
			w.t.Fatal(err)
		}
		for _, c := range page.Customers {
			customers[c.ID] = c
		}
		for _, c := range page.Contacts {
			contacts[c.ID] = c
		}
		links = append(links, page.Links...)
	}
	roles := map[string]string{}
	for _, l := range links {
		pair := l.Customer + " " + l.Contact
		role := ""
		if len(l.Roles) > 0 {
			role = l.Roles[0].Name
		}
		if _, met := roles[pair]; !met || l.StatedBy == (connector.Key{}) {
			roles[pair] = role
		}
	}
	for pair, role := range roles {
		var customerID, contactID string
		_, _ = fmt.Sscan(pair, &customerID, &contactID)
		cu, known := customers[customerID]
		co, knownToo := contacts[contactID]
		if !known || !knownToo {
			continue
		}
		var mails []string
		for _, ch := range co.Channels {
			if ch.Kind == contact.Email {
				mails = append(mails, ch.Value)
			}
		}
		lines = append(lines, fmt.Sprintf("%s %q %s %q %q %q %v", customerID, cu.Name, contactID, co.Name, mails, role, cu.Active && co.Active))
	}
	slices.Sort(lines)
	return lines
}

// mirror is the same of what Postgres holds, those gone from the ERP left out.
func (w *world) mirror() []string {
	w.t.Helper()
	mails := map[string][]string{}
	for _, p := range w.list(postgres.Points) {
		if p["kind"] == "email" {
			mails[p["contact_id"]] = append(mails[p["contact_id"]], p["value"])
		}
	}
	var lines []string
	for _, c := range w.list(postgres.Contacts) {
		reason := c["inactive_reason"]
		if c["origin"] != "erp" || reason == "erp_absent" || reason == "erp_deleted" || reason == "detached" {
			continue
		}
		role := c["erp_role"]
		if role == "<nil>" {
			role = ""
		}
		lines = append(lines, fmt.Sprintf("%s %q %s %q %q %q %s", c["customer_erp_id"], c["customer_name"], c["contact_erp_id"], c["name"],
			mails[c["contact_id"]], role, c["active"]))
	}
	slices.Sort(lines)
	return lines
}

func (w *world) wantMirror() {
	w.t.Helper()
	want, got := w.truth(), w.mirror()
	if !slices.Equal(want, got) {
		w.t.Errorf("Postgres differs from the ERP\n ERP: %q\n  we: %q", want, got)
	}
}

func (w *world) customers(n int) []string {
	var ids []string
	for i := range n {
		ids = append(ids, w.erp.AddCustomer(connector.Customer{Name: fmt.Sprintf("Customer %d", i), Kind: contact.Customer, Active: true},
			memory.Mail(fmt.Sprintf("c%d@kelp.example", i))))
	}
	return ids
}

func customer(id string) connector.Key { return connector.Key{Kind: connector.Customers, ID: id} }

var styles = []memory.Style{memory.QuickBooks, memory.NetSuite}

func TestEveryChangeArrives(t *testing.T) {
	t.Parallel()
	for _, style := range styles {
		t.Run(string(style), func(t *testing.T) {
			w := setup(t, style)
			ids := w.customers(10)
			w.mustSync(postgres.Full)
			w.wantMirror()

			w.erp.EditCustomer(ids[0], func(c *connector.Customer, own *connector.Contact) { c.Name = "Renamed" })
			w.erp.EditCustomer(ids[1], func(_ *connector.Customer, own *connector.Contact) {
				own.Channels = []connector.Channel{memory.Mail("new@kelp.example, second@kelp.example")}
			})
			w.erp.EditCustomer(ids[2], func(_ *connector.Customer, own *connector.Contact) { own.Channels = nil })
			w.erp.Inactivate(customer(ids[3]))
			w.customers(4)
			if style == memory.NetSuite {
				k := w.erp.AddContact(connector.Contact{Name: "Ann", Active: true, Channels: []connector.Channel{memory.Mail("ann@kelp.example")}}, ids[4])
				w.erp.Attach(ids[5], k, connector.ERPRole{Key: "7", Name: "Buyer"})
			}
			r := w.mustSync(postgres.Incremental)
			w.wantMirrorOfPoints()
			if r.Gone != 1 {
				t.Errorf("deactivated %d, want 1", r.Gone)
			}
			w.erp.Reactivate(customer(ids[3]))
			w.mustSync(postgres.Incremental)
			w.mustSync(postgres.Full)
			w.wantMirrorOfPoints()
		})
	}
}

// wantMirrorOfPoints is wantMirror where a field may hold several addresses.
func (w *world) wantMirrorOfPoints() {
	w.t.Helper()
	want, got := w.truth(), w.mirror()
	if len(want) != len(got) {
		w.t.Errorf("Postgres differs from the ERP\n ERP: %q\n  we: %q", want, got)
	}
}

func TestUnchangedResyncWritesNothing(t *testing.T) {
	t.Parallel()
	for _, style := range styles {
		t.Run(string(style), func(t *testing.T) {
			w := setup(t, style)
			w.customers(10)
			w.mustSync(postgres.Full)
			before := w.versions()
			r := w.mustSync(postgres.Full)
			if got := w.versions(); !maps.Equal(before, got) {
				t.Errorf("an unchanged resync wrote rows:\nbefore %v\nafter  %v", before, got)
			}
			if r.Read == 0 || r.Read != r.Unchanged {
				t.Errorf("read %d, unchanged %d", r.Read, r.Unchanged)
			}
		})
	}
}

// versions are the physical versions of all rows a resync must not write.
func (w *world) versions() map[string]string {
	w.t.Helper()
	out := map[string]string{}
	for _, table := range []string{"customers", "contacts", "contact_points", "customer_contacts", "history", "issues", "roles", "role_mappings"} {
		out[table] = pgtest.Value(w.t, w.dsn, "SELECT coalesce(string_agg(ctid::text || xmin::text, ' ' ORDER BY ctid), '') FROM contactsync."+table)
	}
	return out
}

func TestAbsenceIsNotDeletion(t *testing.T) {
	t.Parallel()
	for _, style := range styles {
		t.Run(string(style), func(t *testing.T) {
			w := setup(t, style)
			ids := w.customers(12)
			w.mustSync(postgres.Full)

			w.erp.Delete(customer(ids[0]))
			w.worker.Backoff = func(int) time.Duration { return time.Hour }
			w.erp.CutPage(2)
			run := w.queue(postgres.Full)
			w.work()
			if r, _ := w.store.Run(w.ctx, run); r.Status != "waiting" || r.Gone != 0 {
				t.Fatalf("a cut pull: %s, deactivated %d", r.Status, r.Gone)
			}
			if n := len(w.list(postgres.Contacts, postgres.Filter{Column: "active", Value: true})); n != 12 {
				t.Errorf("after a cut pull %d are active, want 12", n)
			}
			if _, err := w.store.CancelRun(w.ctx, run, postgres.By{User: "ops"}); err != nil {
				t.Fatal(err)
			}
			r := w.mustSync(postgres.Full)
			if r.Gone != 1 {
				t.Errorf("deactivated %d, want 1", r.Gone)
			}
			gone := w.list(postgres.Customers, postgres.Filter{Column: "active", Value: false})
			if len(gone) != 1 || gone[0]["customer_erp_id"] != ids[0] {
				t.Errorf("gone: %v", gone)
			}
		})
	}
}

func TestBrake(t *testing.T) {
	t.Parallel()
	t.Run("MissingIsHeldAndComesBack", func(t *testing.T) {
		w := setup(t, memory.QuickBooks)
		ids := w.customers(40)
		w.mustSync(postgres.Full)
		var hidden []connector.Key
		for _, id := range ids[:6] {
			hidden = append(hidden, customer(id))
		}
		w.erp.Hide(hidden...)
		r := w.mustSync(postgres.Full)
		if r.Held != 6 || r.Gone != 0 {
			t.Fatalf("held %d, deactivated %d; want 6 and 0", r.Held, r.Gone)
		}
		if n := len(w.list(postgres.Contacts, postgres.Filter{Column: "held", Value: true}, postgres.Filter{Column: "active", Value: true})); n != 6 {
			t.Errorf("%d are held and active, want 6", n)
		}
		w.erp.Show(hidden...)
		w.mustSync(postgres.Full)
		if n := len(w.list(postgres.Held)); n != 0 {
			t.Errorf("%d records are still held after they were read active", n)
		}
	})
	t.Run("FewGo", func(t *testing.T) {
		w := setup(t, memory.QuickBooks)
		ids := w.customers(40)
		w.mustSync(postgres.Full)
		for _, id := range ids[:5] {
			w.erp.Delete(customer(id))
		}
		if r := w.mustSync(postgres.Full); r.Held != 0 || r.Gone != 5 {
			t.Errorf("held %d, deactivated %d; want 0 and 5", r.Held, r.Gone)
		}
		w.erp.Delete(customer(ids[6]))
		if r := w.mustSync(postgres.Full); r.Held != 1 || r.Gone != 0 {
			t.Errorf("with those of the last 24 h: held %d, deactivated %d; want 1 and 0", r.Held, r.Gone)
		}
	})
	t.Run("StatedInactiveMayBeMore", func(t *testing.T) {
		w := setup(t, memory.QuickBooks)
		ids := w.customers(40)
		w.mustSync(postgres.Full)
		for _, id := range ids[:12] {
			w.erp.Inactivate(customer(id))
		}
		if r := w.mustSync(postgres.Incremental); r.Held != 0 || r.Gone != 12 {
			t.Errorf("held %d, deactivated %d; want 0 and 12", r.Held, r.Gone)
		}
		for _, id := range ids[12:22] {
			w.erp.Inactivate(customer(id))
		}
		if r := w.mustSync(postgres.Incremental); r.Held != 10 || r.Gone != 0 {
			t.Errorf("held %d, deactivated %d; want 10 and 0", r.Held, r.Gone)
		}
	})
	t.Run("EmptyListing", func(t *testing.T) {
		w := setup(t, memory.QuickBooks)
		ids := w.customers(2)
		w.mustSync(postgres.Full)
		w.erp.Hide(customer(ids[0]), customer(ids[1]))
		if r := w.mustSync(postgres.Full); r.Held != 2 || r.Gone != 0 {
			t.Errorf("held %d, deactivated %d; want 2 and 0", r.Held, r.Gone)
		}
	})
	t.Run("RightsChanged", func(t *testing.T) {
		w := setup(t, memory.QuickBooks)
		ids := w.customers(30)
		w.erp.SetRights("all")
		w.mustSync(postgres.Full)
		w.erp.SetRights("some")
		w.erp.Hide(customer(ids[0]))
		if r := w.mustSync(postgres.Full); r.Held != 1 || r.Gone != 0 {
			t.Errorf("held %d, deactivated %d; want 1 and 0", r.Held, r.Gone)
		}
	})
}

func TestResumesFromTheCheckpoint(t *testing.T) {
	t.Parallel()
	for _, style := range styles {
		t.Run(string(style), func(t *testing.T) {
			w := setup(t, style)
			w.customers(20)
			w.worker.Step = time.Nanosecond // one page a step
			r := w.mustSync(postgres.Full)
			if r.Claims < 5 {
				t.Errorf("%d claims: the run was not parted into steps", r.Claims)
			}
			w.wantMirror()
			if r.Read != r.Created {
				t.Errorf("read %d, created %d", r.Read, r.Created)
			}
		})
	}
}

// TestPagesThatACrashTookAreReadAgain guards rule 4: a page's commit does not wait for the disk, so Postgres may lose the last ones in
// a crash. A step that outlives it goes on behind none of them, and ends no run without them.
func TestPagesThatACrashTookAreReadAgain(t *testing.T) {
	t.Run("BeforeAPage", func(t *testing.T) {
		w := setup(t, memory.QuickBooks)
		w.customers(12)
		var crash func()
		request := 0
		w.erp.Before(func(ctx context.Context, r memory.Request) error {
			switch request++; request {
			case 2: // while the first page is saved
				crash = w.crash(ctx, 1)
			case 3:
				_ = w.crash(ctx, 2)
				crash()
			}
			return nil
		})
		if r := w.mustSync(postgres.Full); r.Claims != 2 || r.Read != 12 {
			t.Errorf("%d claims, read %d; want 2 and 12", r.Claims, r.Read)
		}
		w.wantMirror()
	})
	t.Run("BeforeTheEnd", func(t *testing.T) {
		w := setup(t, memory.QuickBooks)
		c := w.claimed(time.Minute)
		if _, err := w.store.SavePage(w.ctx, c.Step, reconcile.Read(pageOf("1")), 0); err != nil {
			t.Fatal(err)
		}
		crash := w.crash(w.ctx, 1)
		last := pageOf("2")
		last.End = &connector.End{Cursor: "done", Listed: []connector.Kind{connector.Customers}}
		if _, err := w.store.SavePage(w.ctx, c.Step, reconcile.Read(last), 0); err != nil {
			t.Fatal(err)
		}
		crash()
		if _, err := w.store.Finish(w.ctx, c.Step, c.Settings, true, 0); !errors.Is(err, postgres.ErrPagesLost) {
			t.Errorf("ended: %v", err)
		}
		if _, err := w.store.Yield(w.ctx, c.Step, 0); err != nil {
			t.Errorf("given up: %v", err)
		}
	})
}

// TestRefreshWhosePageIsLostDoesNotEnd: a refresh whose page is gone, as after a fail-over to a standby that had not got it, has not
// refreshed anything.
func TestRefreshWhosePageIsLostDoesNotEnd(t *testing.T) {
	w := setup(t, memory.QuickBooks)
	ids := w.customers(2)
	w.mustSync(postgres.Full)
	run := w.queueCustomer(ids[0])
	out, err := w.store.HandOutNew(w.ctx, 1)
	if err != nil || len(out) != 1 {
		t.Fatal(out, err)
	}
	c, err := w.store.Claim(w.ctx, run, out[0].Delivery, time.Minute)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := w.store.SaveCustomer(w.ctx, c.Step, ids[0], pageOf(ids[0]), 1); err != nil {
		t.Fatal(err)
	}
	w.exec(`DELETE FROM run_pages WHERE run_id = (SELECT max(id) FROM runs);
		UPDATE runs SET pages = 0, pulled = false WHERE id = (SELECT max(id) FROM runs)`)
	if end, err := w.store.FinishCustomer(w.ctx, c.Step, c.Settings, true, 0); !errors.Is(err, postgres.ErrPagesLost) {
		t.Errorf("%+v, %v", end, err)
	}
}

// crash waits until so many pages of the latest run are saved, and returns what takes away those saved since.
func (w *world) crash(ctx context.Context, pages int) (lose func()) {
	w.t.Helper()
	poll := time.NewTicker(5 * time.Millisecond)
	defer poll.Stop()
	for pgtest.Value(w.t, w.dsn, `SELECT pages FROM contactsync.runs ORDER BY id DESC LIMIT 1`) != fmt.Sprint(pages) {
		select {
		case <-poll.C:
		case <-ctx.Done():
			w.t.Error(ctx.Err())
			return func() {}
		}
	}
	columns := "(pages, checkpoint, pulled, created, updated, unchanged, end_cursor, listed)"
	before := pgtest.Value(w.t, w.dsn, `SELECT row_to_json(r) FROM contactsync.runs r ORDER BY id DESC LIMIT 1`)
	return func() {
		const latest = `(SELECT max(id) FROM runs)`
		w.exec(fmt.Sprintf(`DELETE FROM run_pages WHERE page > %d AND run_id = %s`, pages, latest))
		w.exec(fmt.Sprintf(`UPDATE runs SET %s = (SELECT %s FROM json_populate_record(NULL::runs, $j$%s$j$)) WHERE id = %s`,
			columns, columns[1:len(columns)-1], before, latest))
	}
}

func TestTwoCopiesOfOneStepChangeNothing(t *testing.T) {
	w := setup(t, memory.QuickBooks)
	w.customers(30)
	w.queue(postgres.Full)
	out, err := w.store.HandOutNew(w.ctx, 1)
	if err != nil || len(out) != 1 {
		t.Fatal(out, err)
	}
	done := make(chan struct{})
	for range 4 {
		go func() {
			w.worker.Work(w.ctx, out[0].Run, out[0].Delivery)
			done <- struct{}{}
		}()
	}
	for range 4 {
		<-done
	}
	r, err := w.store.Run(w.ctx, out[0].Run)
	if err != nil || r.Status != "succeeded" || r.Claims != 1 || r.Created != 30 {
		t.Errorf("%+v, %v", r, err)
	}
	w.wantMirror()
}

func TestLoserOfTheLeaseCannotWrite(t *testing.T) {
	w := setup(t, memory.QuickBooks)
	w.customers(10)
	run := w.queue(postgres.Full)
	out, err := w.store.HandOutNew(w.ctx, 1)
	if err != nil {
		t.Fatal(err)
	}
	loser, err := w.store.Claim(w.ctx, run, out[0].Delivery, time.Microsecond)
	if err != nil {
		t.Fatal(err)
	}
	winner, err := w.store.Claim(w.ctx, run, out[0].Delivery, time.Minute)
	if err != nil {
		t.Fatal(err)
	}
	page := connector.Page{
		Customers: []connector.Customer{{ID: "99", Name: "Ghost", Kind: contact.Customer, Active: true}}, Next: "x",
	}
	if _, err := w.store.SavePage(w.ctx, loser.Step, reconcile.Read(page), 0); !errors.Is(err, postgres.ErrLeaseLost) {
		t.Errorf("the loser's page: %v", err)
	}
	if _, err := w.store.Finish(w.ctx, loser.Step, loser.Settings, true, 0); !errors.Is(err, postgres.ErrLeaseLost) {
		t.Errorf("the loser's finish: %v", err)
	}
	if err := w.store.Fail(w.ctx, loser.Step, errors.New("x"), 0); !errors.Is(err, postgres.ErrLeaseLost) {
		t.Errorf("the loser's failure: %v", err)
	}
	if n := len(w.list(postgres.Customers)); n != 0 {
		t.Errorf("the loser wrote %d customers", n)
	}
	if _, err := w.store.SavePage(w.ctx, winner.Step, reconcile.Read(page), 0); err != nil {
		t.Errorf("the winner: %v", err)
	}
}

// TestRunIDsMayComeAgain guards rule 5 over a restore of Postgres: a worker that outlived it holds a run of the lost future, whose
// id and fencing number a run of another connection has now. It can neither write to it nor keep it.
func TestRunIDsMayComeAgain(t *testing.T) {
	w := setup(t, memory.QuickBooks)
	run := w.queue(postgres.Full)
	out, err := w.store.HandOutNew(w.ctx, 1)
	if err != nil {
		t.Fatal(err)
	}
	now, err := w.store.Claim(w.ctx, run, out[0].Delivery, time.Minute)
	if err != nil {
		t.Fatal(err)
	}
	outlived := now.Step
	outlived.Connection++
	page := connector.Page{Next: "x"}
	if _, err := w.store.SavePage(w.ctx, outlived, reconcile.Read(page), 0); !errors.Is(err, postgres.ErrLeaseLost) {
		t.Errorf("its page: %v", err)
	}
	if _, err := w.store.Renew(w.ctx, outlived, time.Minute); !errors.Is(err, postgres.ErrLeaseLost) {
		t.Errorf("its renewal: %v", err)
	}
	if _, err := w.store.SavePage(w.ctx, now.Step, reconcile.Read(page), 0); err != nil {
		t.Errorf("the run's own worker: %v", err)
	}
}

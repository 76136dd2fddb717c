package syncing_test

import (
	"context"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/centime/contactsync/internal/connector"
	"github.com/centime/contactsync/internal/connector/memory"
	"github.com/centime/contactsync/internal/postgres"
	"github.com/centime/contactsync/internal/postgres/pgtest"
)

// refresh refreshes one customer to the end of the run.
func (w *world) refresh(id string) postgres.RunState {
	w.t.Helper()
	run := w.queueCustomer(id)
	w.work()
	return w.state(run)
}

func (w *world) queueCustomer(id string) int64 {
	w.t.Helper()
	run, _, err := w.store.QueueCustomer(w.ctx, postgres.Request{
		Tenant: w.tenant, Connection: w.connection, Trigger: postgres.Manual, By: "tester",
	}, id)
	if err != nil {
		w.t.Fatal(err)
	}
	return run
}

func (w *world) state(run int64) postgres.RunState {
	w.t.Helper()
	r, err := w.store.Run(w.ctx, run)
	if err != nil {
		w.t.Fatal(err)
	}
	return r
}

// at is the active contacts at a customer, by name and ERP role.
func (w *world) at(customer string) string {
	return pgtest.Value(w.t, w.dsn, `SELECT coalesce(string_agg(name || coalesce(' as ' || erp_role, ''), ', ' ORDER BY name), '')
		FROM contact_directory WHERE customer_erp_id = $1 AND active AND contact_erp_id NOT LIKE 'customer:%'`, customer)
}

// TestRefreshTakesOutOfTheHold guards rule 7: what a refresh reads active is held no longer.
func TestRefreshTakesOutOfTheHold(t *testing.T) {
	w, _, missing := holding(t)
	w.erp.Show(customer(missing[0]))
	if r := w.refresh(missing[0]); r.Status != "succeeded" {
		t.Fatal(r.Status)
	}
	if h := w.hold(); h.State != "open" || h.Contacts != 7 {
		t.Errorf("the hold is %s and has %d; want 7 of 8", h.State, h.Contacts)
	}
}

// TestOneCustomerNow: a refresh brings everything at one customer up to date and touches nothing else, neither what else
// changed in the ERP nor what the connection's syncs go by.
func TestOneCustomerNow(t *testing.T) {
	w := setup(t, memory.NetSuite)
	ids := w.customers(20)
	north, south := ids[0], ids[1]
	buyer, payer := connector.ERPRole{Key: "7", Name: "Buyer"}, connector.ERPRole{Key: "8", Name: "Payer"}
	person := func(name, company string) string {
		return w.erp.AddContact(connector.Contact{Name: name, Channels: []connector.Channel{memory.Mail(name + "@kelp.example")}}, company)
	}
	ann, bob, cleo, dora, emil := person("Ann", north), person("Bob", ""), person("Cleo", north), person("Dora", north), person("Emil", "")
	for _, id := range []string{bob, dora, emil} {
		w.erp.Attach(north, id, buyer)
	}
	w.erp.Attach(south, dora, buyer)
	w.mustSync(postgres.Full)
	if got, want := w.at(north), "Ann, Bob as Buyer, Cleo, Dora as Buyer, Emil as Buyer"; got != want {
		t.Fatalf("at first: %s", got)
	}
	connection := `SELECT (c.cursor, c.rights, c.last_attempt_at, c.last_success_at, c.last_full_at, c.stale_at, c.next_due_at)::text FROM contactsync.connections c`
	before := pgtest.Value(t, w.dsn, connection)

	w.erp.EditContact(ann, func(c *connector.Contact) { c.Channels = []connector.Channel{memory.Mail("ann.new@kelp.example")} })
	w.erp.Attach(north, bob, payer)
	w.erp.SetCompany(cleo, south) // moved
	w.erp.SetCompany(dora, "")
	w.erp.Detach(north, dora) // stays at south
	w.erp.Delete(connector.Key{Kind: connector.Contacts, ID: emil})
	person("Fay", north)
	w.erp.Inactivate(customer(ids[2]))
	w.erp.EditCustomer(ids[3], func(c *connector.Customer, _ *connector.Contact) { c.Name = "Renamed" })
	r := w.refresh(north)
	if r.Status != "succeeded" || r.Gone != 3 {
		t.Errorf("%s, deactivated %d, want 3", r.Status, r.Gone)
	}
	if got, want := w.at(north), "Ann, Bob as Payer, Fay"; got != want {
		t.Errorf("at the customer: %s, want %s", got, want)
	}
	if got := w.at(south); got != "Cleo, Dora as Buyer" {
		t.Errorf("at another customer: %s", got)
	}
	if mail := w.list(postgres.Points, postgres.Filter{Column: "value", Value: "ann.new@kelp.example"}); len(mail) != 1 {
		t.Error("a new address did not arrive")
	}
	for _, c := range w.list(postgres.Customers) {
		if c["name"] == "Renamed" || c["active"] != "true" {
			t.Errorf("another customer was touched: %v", c)
		}
	}
	if after := pgtest.Value(t, w.dsn, connection); after != before {
		t.Errorf("the connection was touched:\nbefore %s\nafter  %s", before, after)
	}
	versions := w.versions()
	if r := w.refresh(north); r.Gone+r.Created+r.Updated != 0 || fmt.Sprint(w.versions()) != fmt.Sprint(versions) {
		t.Errorf("a second refresh wrote rows: %+v", r)
	}
	w.mustSync(postgres.Incremental)
	w.mustSync(postgres.Full)
	w.wantMirror()
}

// TestCustomerThatComesAndGoes: a customer never seen is read and created, one that is gone goes when a look-up did not find it
// either, and one that nobody knows is an error that says so.
func TestCustomerThatComesAndGoes(t *testing.T) {
	t.Parallel()
	for _, style := range styles {
		t.Run(string(style), func(t *testing.T) {
			w := setup(t, style)
			ids := w.customers(8)
			w.mustSync(postgres.Full)
			late := w.customers(2)
			if r := w.refresh(late[0]); r.Status != "succeeded" || r.Created != 1 || r.Read != 1 {
				t.Errorf("a new customer: %+v", r)
			}
			w.erp.Inactivate(customer(ids[0]))
			w.erp.Delete(customer(ids[1]))
			if r := w.refresh(ids[0]); r.Gone != 1 {
				t.Errorf("made inactive: %+v", r)
			}
			if r := w.refresh(ids[1]); r.Gone != 1 || r.Status != "succeeded" {
				t.Errorf("gone: %+v", r)
			}
			asked := w.erp.Requests()
			if last := asked[len(asked)-1]; last.Op != memory.OpLookup {
				t.Errorf("it went without a look-up: %s", last.Op)
			}
			r := w.refresh("no-such")
			if r.Status != "failed" || r.ErrorKind == nil || *r.ErrorKind != "rejected" || r.Hint == nil {
				t.Errorf("nobody's: %+v", r)
			}
			if state := w.list(postgres.Connections)[0]; state["last_attempt_outcome"] != "succeeded" {
				t.Errorf("a wrong id is told as the connection's last attempt: %v", state)
			}
			w.erp.Hide(customer(ids[2]))
			w.refresh(ids[2])
			w.erp.Show(customer(ids[2]))
			if r := w.refresh(ids[2]); r.Updated != 1 {
				t.Errorf("in sight again: %+v", r)
			}
		})
	}
}

// TestRefreshesOfOneCustomerJoin: who asks while it is asked already waits for the same run, and is kept as a requester.
func TestRefreshesOfOneCustomerJoin(t *testing.T) {
	w := setup(t, memory.QuickBooks)
	ids := w.customers(2)
	w.mustSync(postgres.Full)
	first := w.queueCustomer(ids[0])
	second, joined, err := w.store.QueueCustomer(w.ctx, postgres.Request{
		Tenant: w.tenant, Connection: w.connection, Trigger: postgres.Manual, By: "bea", Reason: "before mailing",
	}, ids[0])
	if err != nil || !joined || first != second {
		t.Errorf("%d and %d, joined: %t, %v", first, second, joined, err)
	}
	if other := w.queueCustomer(ids[1]); other == first {
		t.Error("another customer joined")
	}
	if sync := w.queue(postgres.Full); sync == first {
		t.Error("a sync joined")
	}
	if asked := w.list(postgres.Requests, postgres.Filter{Column: "run_id", Value: first}); len(asked) != 2 || asked[1]["requested_by"] != "bea" {
		t.Errorf("%v", asked)
	}
	w.work()
	w.wantMirror()
	if _, _, err := w.store.QueueCustomer(w.ctx, postgres.Request{Tenant: w.tenant, Connection: w.connection}, strings.Repeat("x", 1000)); err == nil {
		t.Error("an id that cannot be stored was queued")
	}
}

// TestRefreshGoesFirst: a sync under way, even a first load, ends its step at its next page for a refresh, and the page that it
// had fetched ahead is not saved after it: it is fetched anew.
func TestRefreshGoesFirst(t *testing.T) {
	w := setup(t, memory.NetSuite)
	ids := w.customers(30)
	w.erp.SetPageSize(2)
	w.work()
	run := w.queue(postgres.Full)
	var refresh int64
	asked := map[connector.Cursor]int{}
	var second connector.Cursor
	w.erp.Before(func(_ context.Context, r memory.Request) error {
		if r.Op != memory.OpPage {
			return nil
		}
		asked[r.Pull.Resume]++
		switch len(asked) {
		case 1:
			refresh = w.queueCustomer(ids[3])
		case 2:
			second = r.Pull.Resume // the page of ids[2] and ids[3], fetched while the first is saved
		}
		return nil
	})
	out, err := w.store.HandOutNew(w.ctx, 10)
	if err != nil || len(out) != 1 {
		t.Fatal(out, err)
	}
	if next := w.worker.Work(w.ctx, run, out[0].Delivery); next != nil {
		t.Error("the sync's next step was handed out before the refresh")
	}
	if r := w.state(run); r.Status != "waiting" || r.Read != 2 {
		t.Fatalf("the sync did not step aside at its first page: %s, %d read", r.Status, r.Read)
	}
	w.erp.EditCustomer(ids[3], func(c *connector.Customer, _ *connector.Contact) { c.Name = "Newest" })
	out, err = w.store.HandOutNew(w.ctx, 10)
	if err != nil || len(out) != 1 || out[0].Run != refresh {
		t.Fatalf("handed out: %v, %v; want the refresh %d alone", out, err, refresh)
	}
	ahead := asked[second]
	w.worker.Work(w.ctx, out[0].Run, out[0].Delivery)
	w.work()
	if r := w.state(run); r.Status != "succeeded" {
		t.Errorf("the sync is %s", r.Status)
	}
	if asked[second] != ahead+1 {
		t.Error("the page fetched ahead was not fetched anew")
	}
	if told := pgtest.Value(t, w.dsn, `SELECT count(*) FROM contactsync.history WHERE run_id IS NOT NULL AND became <> 'Newest'`); told != "0" {
		t.Error("an older page was saved over the refresh")
	}
	w.wantMirror()
}

// underWay begins a full sync and works so many pages of it.
func (w *world) underWay(pages int) (run int64, next *postgres.HandOut) {
	w.t.Helper()
	run = w.queue(postgres.Full)
	w.worker.Step = time.Nanosecond // a page a step
	out, err := w.store.HandOutNew(w.ctx, 1)
	if err != nil || len(out) != 1 {
		w.t.Fatal(out, err)
	}
	next = &out[0]
	for range pages {
		if next = w.worker.Work(w.ctx, run, next.Delivery); next == nil {
			w.t.Fatal("the sync is over too soon")
		}
	}
	return run, next
}

// refreshAmid refreshes one customer while a sync is under way.
func (w *world) refreshAmid(id string) (run int64) {
	w.t.Helper()
	run = w.queueCustomer(id)
	handed, err := w.store.HandOutNew(w.ctx, 1)
	if err != nil || len(handed) != 1 || handed[0].Run != run {
		w.t.Fatal(handed, err)
	}
	w.worker.Work(w.ctx, run, handed[0].Delivery)
	return run
}

// TestSyncUnderWayLearnsOfTheRefresh: what a sync read earlier does not undo at its end what a refresh read since. It read a
// customer as inactive, and its listing of links is past the place of a link that is made since.
func TestSyncUnderWayLearnsOfTheRefresh(t *testing.T) {
	w := setup(t, memory.NetSuite)
	ids := w.customers(6)
	for _, name := range []string{"Ann", "Zoe"} {
		w.erp.Attach(ids[5], w.erp.AddContact(connector.Contact{Name: name}, ""), connector.ERPRole{})
	}
	w.mustSync(postgres.Full)
	w.erp.Inactivate(customer(ids[0]))
	run, next := w.underWay(3) // six customers, the contacts and the first link
	w.erp.Reactivate(customer(ids[0]))
	bob := w.erp.AddContact(connector.Contact{Name: "Bob"}, "")
	w.erp.Attach(ids[0], bob, connector.ERPRole{Key: "7", Name: "Buyer"})
	refresh := w.refreshAmid(ids[0])
	if got := w.at(ids[0]); got != "Bob as Buyer" {
		t.Fatalf("refreshed: %q, %+v", got, w.state(refresh))
	}
	for next != nil {
		next = w.worker.Work(w.ctx, run, next.Delivery)
	}
	if r := w.state(run); r.Status != "succeeded" || r.Gone != 0 || r.Read != 10 {
		t.Errorf("the sync: %s, deactivated %d, read %d, want 0 and 10", r.Status, r.Gone, r.Read)
	}
	if got := w.at(ids[0]); got != "Bob as Buyer" {
		t.Errorf("after the sync's end: %q", got)
	}
	w.mustSync(postgres.Incremental)
	w.wantMirror()
}

// TestRefreshIsNoListing: an ERP that lists none of a kind where there were some is an accident, also for a company too small for the brake's
// share, and also if a refresh has read one of the kind while the run went on.
func TestRefreshIsNoListing(t *testing.T) {
	t.Parallel()
	for kind, hide := range map[string]func(w *world, ids, people []string){
		"customers": func(w *world, ids, _ []string) { w.erp.Hide(customerKeys(ids)...) },
		"contacts": func(w *world, _, people []string) {
			for _, id := range people {
				w.erp.Hide(connector.Key{Kind: connector.Contacts, ID: id})
			}
		},
		"links": func(w *world, ids, people []string) {
			for i, id := range people {
				w.erp.Detach(ids[i], id)
			}
		},
	} {
		t.Run(kind, func(t *testing.T) {
			w := setup(t, memory.NetSuite)
			ids := w.customers(3)
			var people []string
			for i, name := range []string{"Ann", "Zoe"} {
				people = append(people, w.erp.AddContact(connector.Contact{Name: name}, ""))
				w.erp.Attach(ids[i], people[i], connector.ERPRole{})
			}
			w.mustSync(postgres.Full)
			hide(w, ids, people)
			run, next := w.underWay(1)
			w.erp.Show(customer(ids[0]), connector.Key{Kind: connector.Contacts, ID: people[0]})
			w.erp.Attach(ids[0], people[0], connector.ERPRole{})
			if r := w.state(w.refreshAmid(ids[0])); r.Status != "succeeded" {
				t.Fatalf("the refresh: %+v", r)
			}
			hide(w, ids, people[:1])
			w.worker.Step = time.Nanosecond
			for steps := 0; next != nil && steps < 100; steps++ {
				next = w.worker.Work(w.ctx, run, next.Delivery)
			}
			if r := w.state(run); r.Status != "succeeded" || r.Gone != 0 || r.Held == 0 {
				t.Errorf("the sync: %s, deactivated %d, held %d", r.Status, r.Gone, r.Held)
			}
		})
	}
}

// TestPlaceThatIsBackAfterARefreshStays: a refresh met a place gone, and tells the sync under way; the sync's listing meets it again later.
func TestPlaceThatIsBackAfterARefreshStays(t *testing.T) {
	w := setup(t, memory.NetSuite)
	ids := w.customers(6)
	var zoe string
	for _, name := range []string{"Ann", "Zoe"} {
		zoe = w.erp.AddContact(connector.Contact{Name: name}, "")
		w.erp.Attach(ids[5], zoe, connector.ERPRole{})
	}
	w.mustSync(postgres.Full)
	run, next := w.underWay(3) // six customers, the contacts and the first link
	w.erp.Detach(ids[5], zoe)
	refresh := w.refreshAmid(ids[5])
	if got := w.at(ids[5]); strings.Contains(got, "Zoe") {
		t.Fatalf("refreshed: %q, %+v", got, w.state(refresh))
	}
	w.erp.Attach(ids[5], zoe, connector.ERPRole{})
	w.worker.Step = time.Nanosecond
	for steps := 0; next != nil && steps < 100; steps++ {
		next = w.worker.Work(w.ctx, run, next.Delivery)
	}
	if r := w.state(run); r.Status != "succeeded" || r.Gone != 0 || !strings.Contains(w.at(ids[5]), "Zoe") {
		t.Errorf("the sync: %s, deactivated %d, and at the customer are %q", r.Status, r.Gone, w.at(ids[5]))
	}
}

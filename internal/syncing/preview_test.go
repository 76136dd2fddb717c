package syncing_test

import (
	"context"
	"database/sql"
	"encoding/json"
	"fmt"
	"maps"
	"math/rand/v2"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/centime/contactsync/internal/connector"
	"github.com/centime/contactsync/internal/connector/memory"
	"github.com/centime/contactsync/internal/postgres"
	"github.com/centime/contactsync/internal/postgres/pgtest"
)

func (w *world) queuePreview(mode postgres.Mode) int64 {
	w.t.Helper()
	run, err := w.store.QueuePreview(w.ctx, postgres.Request{
		Tenant: w.tenant, Connection: w.connection, Mode: mode, Trigger: postgres.Manual, By: "tester",
	})
	if err != nil {
		w.t.Fatal(err)
	}
	return run
}

// preview previews to the end.
func (w *world) preview(mode postgres.Mode) postgres.RunState {
	w.t.Helper()
	run := w.queuePreview(mode)
	w.work()
	r := w.state(run)
	if r.Status != "succeeded" {
		w.t.Fatalf("the preview is %s: %v", r.Status, r.Error)
	}
	return r
}

// lines are the rows of a query as sorted text.
func (w *world) lines(query string, args ...any) []string {
	w.t.Helper()
	text := pgtest.Value(w.t, w.dsn, `SELECT coalesce(string_agg(line, E'\n'), '') FROM (SELECT q::text AS line FROM (`+query+`) q ORDER BY 1) AS l`, args...)
	if text == "" {
		return nil
	}
	return strings.Split(text, "\n")
}

// said is what a preview reported, and did what a run changed, in the same form.
func (w *world) said(run int64) []string {
	return w.lines(`SELECT what, entity, CASE WHEN entity <> 'contact' THEN customer_erp_id END, contact_erp_id, field, was, became, reason
		FROM contactsync.preview_changes WHERE run_id = $1 AND what <> 'held' AND NOT (entity = 'role_mapping' AND what = 'created')`, run)
}

func (w *world) did(run int64) []string {
	return w.lines(`
		SELECT 'created', 'customer', erp_id, NULL, NULL, NULL, NULL, NULL FROM contactsync.customers WHERE created_by_run = $1
		UNION ALL
		SELECT 'created', 'contact', NULL, erp_id, NULL, NULL, NULL, NULL FROM contactsync.contacts WHERE created_by_run = $1 AND erp_id NOT LIKE 'customer:%'
		UNION ALL
		SELECT 'created', 'customer_contact', customer_erp_id, contact_erp_id, NULL, NULL, erp_role, NULL FROM contact_directory d
		JOIN contactsync.customer_contacts l ON l.id = d.customer_contact_id WHERE l.created_by_run = $1 AND contact_erp_id NOT LIKE 'customer:%'
		UNION ALL
		SELECT CASE WHEN field = 'active' AND became = 'false' THEN 'deactivated' ELSE 'changed' END, h.entity, coalesce(cu.erp_id, lcu.erp_id),
			coalesce(co.erp_id, lco.erp_id), h.field, h.was, h.became, nullif(h.reason, '')
		FROM contactsync.history h
		LEFT JOIN contactsync.customers cu ON h.entity = 'customer' AND cu.id = h.entity_id
		LEFT JOIN contactsync.contacts co ON h.entity = 'contact' AND co.id = h.entity_id
		LEFT JOIN contactsync.customer_contacts l ON h.entity = 'customer_contact' AND l.id = h.entity_id
		LEFT JOIN contactsync.customers lcu ON lcu.id = l.customer_id LEFT JOIN contactsync.contacts lco ON lco.id = l.contact_id
		WHERE h.run_id = $1 AND NOT (h.entity = 'contact' AND h.field = 'active' AND co.erp_id LIKE 'customer:%')
		UNION ALL
		SELECT 'released', CASE i.kind WHEN 'link' THEN 'customer_contact' ELSE i.kind END, coalesce(cu.erp_id, lcu.erp_id), coalesce(co.erp_id, lco.erp_id),
			NULL, NULL, NULL, i.reason
		FROM contactsync.hold_items i
		LEFT JOIN contactsync.customers cu ON i.kind = 'customer' AND cu.id = i.entity_id
		LEFT JOIN contactsync.contacts co ON i.kind = 'contact' AND co.id = i.entity_id
		LEFT JOIN contactsync.customer_contacts l ON i.kind = 'link' AND l.id = i.entity_id
		LEFT JOIN contactsync.customers lcu ON lcu.id = l.customer_id LEFT JOIN contactsync.contacts lco ON lco.id = l.contact_id
		WHERE i.left_by_run = $1 AND coalesce(cu.active, co.active, l.active)`, run)
}

const heldNow = `SELECT i.kind, coalesce(cu.erp_id, lcu.erp_id), coalesce(co.erp_id, lco.erp_id), i.reason
	FROM contactsync.holds h JOIN contactsync.hold_items i ON i.hold_id = h.id AND i.left_at IS NULL
	LEFT JOIN contactsync.customers cu ON i.kind = 'customer' AND cu.id = i.entity_id
	LEFT JOIN contactsync.contacts co ON i.kind = 'contact' AND co.id = i.entity_id
	LEFT JOIN contactsync.customer_contacts l ON i.kind = 'link' AND l.id = i.entity_id
	LEFT JOIN contactsync.customers lcu ON lcu.id = l.customer_id LEFT JOIN contactsync.contacts lco ON lco.id = l.contact_id
	WHERE h.state = 'open'`

func (w *world) mail() map[string]bool {
	mail := map[string]bool{}
	for _, line := range w.lines(`SELECT communication_type, c.erp_id, lower(email) FROM recipients r JOIN contactsync.customers c ON c.id = r.customer_id`) {
		mail[line] = true
	}
	return mail
}

// roles are the ERP roles that have become known, with the role each has.
func (w *world) roles() map[string]bool {
	out := map[string]bool{}
	for _, line := range w.lines(`SELECT 'role of ERP role ' || m.erp_role_name, r.name, CASE WHEN r.id IS NULL THEN 'no_room_for_role' END
		FROM contactsync.role_mappings m LEFT JOIN contactsync.roles r ON r.id = m.role_id`) {
		out[line] = true
	}
	return out
}

// others is every row of every table that a preview has no business in: all but its own, the cost in calls, and the login.
func (w *world) others() map[string]string {
	w.t.Helper()
	tables := w.lines(`SELECT table_name FROM information_schema.tables WHERE table_schema = 'contactsync' AND table_type = 'BASE TABLE'
		AND table_name NOT LIKE 'preview%' AND table_name NOT IN ('credentials', 'call_counts')`)
	if len(tables) < 15 {
		w.t.Fatalf("only %d tables", len(tables))
	}
	var all []string
	for _, table := range tables {
		table = strings.Trim(table, "()")
		mine := map[string]string{"runs": "WHERE NOT preview", "run_requests": "WHERE run_id NOT IN (SELECT id FROM contactsync.runs WHERE preview)"}[table]
		all = append(all, fmt.Sprintf(`SELECT '%s' AS name, string_agg(t::text, E'\n' ORDER BY t::text) AS rows FROM contactsync.%[1]s t %s`, table, mine))
	}
	out := map[string]string{}
	text := pgtest.Value(w.t, w.dsn, `SELECT json_object_agg(name, coalesce(rows, '')) FROM (`+strings.Join(all, " UNION ALL ")+`) a`)
	if err := json.Unmarshal([]byte(text), &out); err != nil {
		w.t.Fatal(err)
	}
	return out
}

// TestPreviewSaysWhatTheRunDoes: for random histories of an ERP and of what people decide, a preview writes nothing but its
// report, and the run after it does exactly what the report says: what it creates, changes, deactivates, holds and lets out of
// the hold, which roles it makes, and who starts and stops getting which mail.
func TestPreviewSaysWhatTheRunDoes(t *testing.T) {
	t.Parallel()
	base := rand.Uint64()
	for n := range uint64(8) {
		style := styles[n%2]
		t.Run(fmt.Sprint(style, n), func(t *testing.T) {
			w := setup(t, style)
			t.Logf("seed %d", base+n)
			chance := &chance{rand.New(rand.NewPCG(base+n, 7)), w.erp, style, map[connector.Kind][]string{}}
			for range 12 {
				chance.change()
			}
			for _, first := range w.list(postgres.Runs) { // which connecting queued: else it comes before the first preview
				w.exec(`UPDATE runs SET status = 'cancelled', finished_at = now() WHERE id = ` + first["run_id"])
			}
			for round := range 4 {
				mode := []postgres.Mode{postgres.Full, postgres.Incremental}[chance.IntN(2)]
				before := w.others()
				w.worker.Step = []time.Duration{time.Nanosecond, time.Minute}[chance.IntN(2)] // a page a step
				preview := w.preview(mode)
				if after := w.others(); !maps.Equal(before, after) {
					for table := range before {
						if before[table] != after[table] {
							t.Fatalf("the preview changed %s:\nbefore %s\nafter  %s", table, before[table], after[table])
						}
					}
				}
				w.worker.Step = time.Minute
				mail, roles, held := w.mail(), w.roles(), w.lines(heldNow)
				run := w.mustSync(mode)
				w.compare(preview, run, mail, roles, held)
				if t.Failed() {
					t.FailNow()
				}
				for range chance.IntN(12) {
					chance.change()
				}
				chance.hideAndShow(round)
				if chance.IntN(2) == 0 {
					yes := chance.IntN(2) == 0
					_, _ = w.store.SetRole(w.ctx, w.tenant, "Company Contact", &yes, nil, postgres.Weigh{}, ops)
				}
			}
		})
	}
}

func (w *world) compare(preview, run postgres.RunState, mail, roles map[string]bool, held []string) {
	t := w.t
	t.Helper()
	if said, did := w.said(preview.ID), w.did(run.ID); !slices.Equal(said, did) {
		t.Errorf("changes:\nthe preview said %s\nthe run did      %s", strings.Join(said, "; "), strings.Join(did, "; "))
	}
	counts := func(r postgres.RunState) []int64 {
		return []int64{r.Read, r.Created, r.Updated, r.Unchanged, r.Ignored, r.Refused, r.WithIssue, r.Gone, r.Held}
	}
	if a, b := counts(preview), counts(run); !slices.Equal(a, b) {
		t.Errorf("counts: the preview said %v, the run did %v", a, b)
	}
	would := w.lines(`SELECT CASE entity WHEN 'customer_contact' THEN 'link' ELSE entity END, CASE WHEN entity <> 'contact' THEN customer_erp_id END,
		contact_erp_id, reason FROM contactsync.preview_changes WHERE run_id = $1 AND what = 'held'`, preview.ID)
	now := w.lines(heldNow)
	for _, line := range would {
		if !slices.Contains(now, line) {
			t.Errorf("it would be held, the preview said, and is not: %s", line)
		}
	}
	for _, line := range now {
		if !slices.Contains(held, line) && !slices.Contains(would, line) {
			t.Errorf("it is held, and the preview did not say so: %s", line)
		}
	}
	var changed []string
	after := w.mail()
	for line := range after {
		if !mail[line] {
			changed = append(changed, "t"+line)
		}
	}
	for line := range mail {
		if !after[line] {
			changed = append(changed, "f"+line)
		}
	}
	slices.Sort(changed)
	var told []string
	for _, line := range w.lines(`SELECT starts, (communication_type, customer_erp_id, lower(email))::text AS line FROM contactsync.preview_mail WHERE run_id = $1`, preview.ID) {
		told = append(told, line[1:2]+strings.ReplaceAll(strings.ReplaceAll(strings.Trim(line[3:len(line)-1], `"`), `""`, `"`), `\\`, `\`))
	}
	slices.Sort(told)
	if !slices.Equal(told, changed) {
		t.Errorf("mail:\nthe preview said %v\nthe run did      %v", told, changed)
	}
	for line := range w.roles() {
		if !roles[line] {
			roles[line] = true
			n := pgtest.Value(t, w.dsn, `SELECT count(*) FROM (SELECT (field, became, reason)::text AS line FROM contactsync.preview_changes
				WHERE run_id = $1 AND entity = 'role_mapping' AND what = 'created') c WHERE line = $2`, preview.ID, line)
			if n != "1" && !strings.Contains(strings.Join(w.did(run.ID), " "), "role_mapping") { // renamed or given room later
				t.Errorf("an ERP role became %s, and the preview did not say so: %v", line,
					w.lines(`SELECT * FROM contactsync.preview_changes WHERE run_id = $1 AND entity = 'role_mapping'`, preview.ID))
			}
		}
	}
}

// chance changes an ERP at random.
type chance struct {
	*rand.Rand
	erp   *memory.ERP
	style memory.Style
	ids   map[connector.Kind][]string
}

func (c *chance) pick(kind connector.Kind) connector.Key {
	ids := c.ids[kind]
	return connector.Key{Kind: kind, ID: ids[c.IntN(len(ids))]}
}

func (c *chance) forget(k connector.Key) {
	c.ids[k.Kind] = slices.DeleteFunc(c.ids[k.Kind], func(id string) bool { return id == k.ID })
}

func (c *chance) mails() []connector.Channel {
	return []connector.Channel{memory.Mail([]string{"", "odd\x00@kelp.example", "no address", fmt.Sprintf("a%d@kelp.example, B%d@kelp.example", c.IntN(30), c.IntN(30))}[c.IntN(4)]),
		memory.Phone([]string{"", "218 555 0100"}[c.IntN(2)])}
}

func (c *chance) name() string { return fmt.Sprintf("Name%d \xed\xa0\x80", c.IntN(50)) }

func (c *chance) change() {
	kind := connector.Customers
	if c.style == memory.NetSuite && c.IntN(2) == 0 {
		kind = connector.Contacts
	}
	what := c.IntN(14)
	if len(c.ids[connector.Customers]) < 8 {
		kind, what = connector.Customers, 0
	} else if len(c.ids[kind]) < 6 {
		what = 0
	}
	switch what {
	case 0, 1:
		var id string
		if kind == connector.Customers {
			id = c.erp.AddCustomer(connector.Customer{Name: c.name(), Number: fmt.Sprint(c.IntN(9))}, c.mails()...)
		} else {
			id = c.erp.AddContact(connector.Contact{Name: c.name(), Channels: c.mails()}, []string{"", c.pick(connector.Customers).ID}[c.IntN(2)])
		}
		c.ids[kind] = append(c.ids[kind], id)
	case 2, 3:
		if k := c.pick(kind); kind == connector.Customers {
			c.erp.EditCustomer(k.ID, func(r *connector.Customer, own *connector.Contact) {
				r.Name, r.ParentID, own.Channels = c.name(), []string{"", "1", r.ParentID}[c.IntN(3)], c.mails()
			})
		} else {
			c.erp.EditContact(k.ID, func(r *connector.Contact) {
				r.Name, r.JobTitle, r.Channels = c.name(), fmt.Sprint(c.IntN(3)), c.mails()
			})
		}
	case 4, 5:
		c.erp.Inactivate(c.pick(kind))
	case 6:
		c.erp.Reactivate(c.pick(kind))
	case 7:
		for range 1 + c.IntN(2)*c.IntN(7) {
			if k := c.pick(kind); len(c.ids[kind]) > 2 {
				c.erp.Delete(k)
				c.forget(k)
			}
		}
	case 8:
		c.erp.Hide(c.pick(kind))
	case 9:
		for _, id := range c.ids[kind] {
			c.erp.Show(connector.Key{Kind: kind, ID: id})
		}
	case 10:
		c.erp.Spoil(c.pick(kind), []memory.Damage{memory.NotText, memory.Unreadable, memory.NoID, memory.None}[c.IntN(4)])
	case 11:
		if c.style == memory.NetSuite && c.IntN(4) == 0 {
			c.erp.SetRights(fmt.Sprint(c.IntN(2)))
		}
	default:
		if len(c.ids[connector.Contacts]) == 0 {
			return
		}
		at, person := c.pick(connector.Customers), c.pick(connector.Contacts)
		if c.IntN(4) == 0 {
			c.erp.SetCompany(person.ID, []string{"", at.ID}[c.IntN(2)])
			return
		}
		for range 1 + c.IntN(6) {
			key := c.IntN(40)
			c.erp.Attach(at.ID, person.ID, connector.ERPRole{Key: fmt.Sprint(key), Name: fmt.Sprint("Role ", key%20, " ", c.IntN(8)/7)})
			at, person = c.pick(connector.Customers), c.pick(connector.Contacts)
		}
	}
}

// hideAndShow makes a hold likely, and then what leaves it.
func (c *chance) hideAndShow(round int) {
	for _, id := range c.ids[connector.Customers] {
		switch round {
		case 1:
			c.erp.Hide(customer(id))
		case 2:
			c.erp.Show(customer(id))
		}
	}
}

// TestPreviewOfAnUnchangedAccountIsEmpty, and one of a first load says that everything is created.
func TestPreviewOfAnUnchangedAccountIsEmpty(t *testing.T) {
	w := setup(t, memory.NetSuite)
	w.customers(7)
	w.mustSync(postgres.Full)
	for _, mode := range []postgres.Mode{postgres.Full, postgres.Incremental} {
		r := w.preview(mode)
		if said := w.said(r.ID); len(said) > 0 || r.Created+r.Updated+r.Gone+r.Held != 0 {
			t.Errorf("%s: %v, %+v", mode, said, r)
		}
	}
	if left := pgtest.Value(t, w.dsn, `SELECT count(*) FROM contactsync.preview_pages`); left != "0" {
		t.Errorf("%s pages are left after the previews' ends", left)
	}
}

// TestPreviewSurvivesWorkers: a preview is a run with steps. Killed in the middle it goes on from its checkpoint, throttled it
// waits, and a scheduled run waits for it; cancelled, it leaves no page behind.
func TestPreviewSurvivesWorkers(t *testing.T) {
	w := setup(t, memory.QuickBooks)
	ids := w.customers(20)
	w.mustSync(postgres.Full)
	w.erp.EditCustomer(ids[4], func(c *connector.Customer, _ *connector.Contact) { c.Name = "Renamed" })
	w.erp.Delete(customer(ids[5]))
	run := w.queuePreview(postgres.Full)
	out, err := w.store.HandOutNew(w.ctx, 1)
	if err != nil || len(out) != 1 {
		t.Fatal(out, err)
	}
	dying, kill := context.WithCancel(w.ctx)
	pages := 0
	w.erp.Before(func(_ context.Context, r memory.Request) error {
		if r.Op == memory.OpPage {
			if pages++; pages == 4 {
				kill()
				<-dying.Done()
				return &connector.Error{Kind: connector.Throttled, Step: "list", Message: "429", RetryAfter: time.Nanosecond}
			}
		}
		return nil
	})
	w.worker.Work(dying, run, out[0].Delivery)
	sync := w.queue(postgres.Full)
	w.work()
	if pages != 7+1+7 { // the preview's seven, one of them twice, and the sync's
		t.Errorf("%d pages were read", pages)
	}
	r := w.state(run)
	if r.Status != "succeeded" || r.Updated != 1 || r.Gone != 1 {
		t.Errorf("%+v", r)
	}
	if s := w.state(sync); s.Updated != 1 || s.Gone != 1 || s.StartedAt.Before(*r.FinishedAt) {
		t.Errorf("the sync did not wait for the preview: %+v", s)
	}

	w.worker.Step = time.Nanosecond
	run = w.queuePreview(postgres.Full)
	if out, err = w.store.HandOutNew(w.ctx, 1); err != nil || len(out) != 1 {
		t.Fatal(out, err)
	}
	if next := w.worker.Work(w.ctx, run, out[0].Delivery); next == nil {
		t.Fatal("the preview is over too soon")
	}
	kept := func() string { return pgtest.Value(t, w.dsn, `SELECT count(*) FROM contactsync.preview_pages`) }
	if kept() != "1" {
		t.Errorf("%s pages are kept, want 1", kept())
	}
	if _, err := w.store.CancelRun(w.ctx, run, postgres.By{User: "ops"}); err != nil {
		t.Fatal(err)
	}
	if kept() != "0" {
		t.Errorf("%s pages are left after the preview was cancelled", kept())
	}
}

// TestPreviewTakesNothingOver: what a failed sync had read is the next sync's to go on with, whatever was previewed in between.
func TestPreviewTakesNothingOver(t *testing.T) {
	w := setup(t, memory.QuickBooks)
	w.customers(12)
	w.mustSync(postgres.Full)
	w.erp.FailPage(3, &connector.Error{Kind: connector.Rejected, Step: "list", Message: "400"})
	if r := w.sync(postgres.Full); r.Status != "failed" || r.Pages != 2 {
		t.Fatalf("%+v", r)
	}
	w.preview(postgres.Full)
	read := len(w.erp.Requests())
	w.mustSync(postgres.Full)
	if n := len(w.erp.Requests()) - read; n != 2 {
		t.Errorf("the sync read %d pages, want the 2 that the failed one had not", n)
	}
}

// TestRehearsalIsInNobodysWay: while a rehearsal goes on, the lease is renewed, people change roles and ask for runs, and what
// they change is in neither side of the comparison.
func TestRehearsalIsInNobodysWay(t *testing.T) {
	w := setup(t, memory.NetSuite)
	ids := w.customers(9)
	w.mustSync(postgres.Full)
	ann := w.erp.AddContact(connector.Contact{Name: "Ann"}, "")
	w.erp.Attach(ids[0], ann, connector.ERPRole{Key: "7", Name: "Buyer"})
	w.erp.Delete(customer(ids[1]))
	run := w.queuePreview(postgres.Full)
	out, err := w.store.HandOutNew(w.ctx, 1)
	if err != nil || len(out) != 1 {
		t.Fatal(out, err)
	}
	c, err := w.store.Claim(w.ctx, run, out[0].Delivery, time.Minute)
	if err != nil {
		t.Fatal(err)
	}
	for page, err := range w.erp.Source().Pull(w.ctx, connector.Pull{}) {
		if err != nil {
			t.Fatal(err)
		}
		if err := w.store.SavePreviewPage(w.ctx, c.Step, page, 0); err != nil {
			t.Fatal(err)
		}
	}
	release := w.standStill()
	var waiting sync.WaitGroup
	var done postgres.End
	waiting.Go(func() { done, err = w.store.Rehearse(w.ctx, c.Step, c.Settings, false, 0) })
	w.stands()
	if _, renewal := w.store.Renew(w.ctx, c.Step, time.Minute); renewal != nil {
		t.Errorf("the lease cannot be renewed: %v", renewal)
	}
	yes := true
	if _, err := w.store.SetRole(w.ctx, w.tenant, "Company Contact", &yes, nil, postgres.Weigh{}, ops); err != nil {
		t.Errorf("nobody can change a role: %v", err)
	}
	w.exec(`INSERT INTO roles (tenant_id, name) SELECT tenant_id, 'Made meanwhile' FROM tenants`)
	w.queue(postgres.Incremental)
	release()
	waiting.Wait()
	if err != nil || done.Deactivated != 1 {
		t.Errorf("%+v, %v", done, err)
	}
	if n := pgtest.Value(t, w.dsn, `SELECT count(*) FROM contactsync.preview_mail WHERE starts AND communication_type = 'invoice_presentment'`); n != "0" {
		t.Errorf("%s changes of mail are a person's and not the run's", n)
	}
	if n := pgtest.Value(t, w.dsn, `SELECT count(*) FROM contactsync.runs WHERE purpose = 'rehearsal'`); n != "0" {
		t.Error("the run that stood in for the preview is left")
	}
}

// standStill makes whoever writes the first customer contact stand still until released; stands waits for that.
func (w *world) standStill() (release func()) {
	w.t.Helper()
	w.exec(`CREATE FUNCTION stand_still() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN PERFORM pg_advisory_xact_lock_shared(77); RETURN NULL; END';
		CREATE TRIGGER stand_still AFTER INSERT ON customer_contacts EXECUTE FUNCTION stand_still()`)
	db, err := sql.Open("postgres", w.dsn)
	if err != nil {
		w.t.Fatal(err)
	}
	w.t.Cleanup(func() { _ = db.Close() })
	lock, err := db.BeginTx(w.ctx, nil)
	if err != nil {
		w.t.Fatal(err)
	}
	if _, err := lock.ExecContext(w.ctx, `SELECT pg_advisory_xact_lock(77)`); err != nil {
		w.t.Fatal(err)
	}
	return func() { _ = lock.Rollback() }
}

func (w *world) stands() {
	w.t.Helper()
	for pgtest.Value(w.t, w.dsn, `SELECT count(*) FROM pg_locks WHERE locktype = 'advisory' AND NOT granted AND objid = 77
		AND database = (SELECT oid FROM pg_database WHERE datname = current_database())`) == "0" {
	}
}

// TestStoppingEndsARehearsal: a worker that is to stop does not wait for the end of a rehearsal, and another begins it anew.
func TestStoppingEndsARehearsal(t *testing.T) {
	w := setup(t, memory.QuickBooks)
	w.mustSync(postgres.Full)
	w.customers(5)
	run := w.queuePreview(postgres.Full)
	out, err := w.store.HandOutNew(w.ctx, 1)
	if err != nil || len(out) != 1 {
		t.Fatal(out, err)
	}
	release := w.standStill()
	stopping := *w.worker
	draining := make(chan struct{})
	stopping.Draining = draining
	ended := make(chan *postgres.HandOut)
	go func() { ended <- stopping.Work(w.ctx, run, out[0].Delivery) }()
	w.stands()
	close(draining)
	next := <-ended
	release()
	if next == nil || w.state(run).Status != "running" {
		t.Fatalf("%v, %s", next, w.state(run).Status)
	}
	w.worker.Work(w.ctx, run, next.Delivery)
	if r := w.state(run); r.Status != "succeeded" || r.Created != 5 || len(w.list(postgres.Customers)) != 0 {
		t.Errorf("%+v", r)
	}
}

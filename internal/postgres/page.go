package postgres

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/jmoiron/sqlx"
	"github.com/lib/pq"
	"github.com/lib/pq/pqerror"

	"github.com/centime/contactsync/internal/connector"
	"github.com/centime/contactsync/internal/contact"
	"github.com/centime/contactsync/internal/reconcile"
)

// Step is a worker's hold on a run. Each of its writes checks the fencing number and the lease, and whose run it is: after
// Postgres was restored from a backup, ids and fencing numbers of runs come again.
type Step struct {
	Tenant, Run, Connection int64
	Fencing                 int64
	Given                   int64         // which of the logins that people gave the step began with; 0: unknown
	Lease                   time.Duration // each saved page renews it too: a long transaction keeps the heartbeat waiting
	ERPLabel                string        // names the roles made for ERP roles met first

	progress *progress // nil: unknown
}

// ErrLeaseLost says that another worker has the run now, or that it is no longer running: nothing was written.
var ErrLeaseLost = errors.New("the lease of this run is lost")

// ErrPagesLost says that Postgres has lost what the step had saved, as in a crash (unhurried says why). What is left is whole, and the
// run goes on from it by another step: this one would leave out what was lost.
var ErrPagesLost = errors.New("saved pages were lost, as when Postgres crashes: they are read again")

// errErased undoes a page that waited for the erasure of a person, or met one under way: it was planned by what was known before. It is saved
// again.
var errErased = errors.New("somebody was erased meanwhile")

// errLost keeps again from repeating what must not be repeated.
var errLost = ErrLeaseLost

// SavePage writes what a page says, what it named and signalled, the run's counts and its checkpoint, in one transaction. calls is
// the number of data requests since the last write.
func (s *Store) SavePage(ctx context.Context, step Step, said reconcile.Reading, calls int) (reconcile.Counts, error) {
	var w *pageWriter
	save := func() error {
		return s.in(ctx, asSync, step.Tenant, func(tx *sqlx.Tx) error {
			w = &pageWriter{tx: tx, step: step, unhurried: true, allNew: step.progress != nil && step.progress.allNew}
			return w.savePage(ctx, said, calls)
		})
	}
	err := save()
	if pq.As(err, pqerror.UniqueViolation) != nil && step.surprised() {
		err = save()
	}
	if err != nil {
		return reconcile.Counts{}, fmt.Errorf("save page: %w", err)
	}
	step.saved(said.Page)
	step.savedNamed(w)
	return w.plan.Counts, nil
}

// Lookup is a record that is missing, by our id.
type Lookup struct {
	Key connector.Key
	ID  int64
}

// SaveLookup writes what a look-up of missing records found, like a page, and notes those it did not find. If it is not a sync that asks,
// a sync is told of what was found: an approval may have read active whom a failed one read inactive.
func (s *Store) SaveLookup(ctx context.Context, step Step, asked []Lookup, found connector.Page, calls int) error {
	err := s.in(ctx, asSync, step.Tenant, func(tx *sqlx.Tx) error {
		w := pageWriter{tx: tx, step: step}
		if err := w.saveLookup(ctx, asked, found, calls); err != nil || w.purpose == Sync {
			return err
		}
		return w.tellSync(ctx)
	})
	if err != nil {
		return fmt.Errorf("save look-up: %w", err)
	}
	return nil
}

// pageWriter writes one page within a transaction.
type pageWriter struct {
	tx   *sqlx.Tx
	step Step

	// unhurried commits do not wait for the disk. Should Postgres crash just then, the page is lost with the checkpoint that says
	// it was saved, and is read again (goOn sees to that); the run's end, which waits, makes all of its pages durable.
	unhurried bool

	// allNew takes customers and contacts of the page for new without looking them up. One that is not is refused by its table's unique
	// constraint: whoever sets this saves the page anew then. What a look-up finds is never new.
	allNew bool

	page       int    // of this page
	checkpoint string // before it
	pulled     bool
	purpose    Purpose
	hasIssues  bool      // the connection has open ones
	others     bool      // a customer of the connection once stated the place of a contact that is not its own
	hasHold    bool      // it holds, or a rejection remembers, something
	erased     int       // people of the tenant
	began      time.Time // of the run's listing

	incoming connector.Page

	held reconcile.Held
	plan reconcile.Plan

	customerIDs, contactIDs map[string]int64
	linkIDs                 map[reconcile.Pair]int64

	named map[connector.Kind][]int64 // by our ids

	missingCustomers, missingContacts, missingLinks []int64 // asked for and not found

	// later takes, in a rehearsal, the ERP roles met first, whose roles are given at its end: that locks the tenant. Nil: at once.
	later *[]connector.ERPRole
}

func (w *pageWriter) savePage(ctx context.Context, said reconcile.Reading, calls int) error {
	if err := w.goOn(ctx); err != nil {
		return err
	}
	if w.allNew && w.page > 1 && w.page <= growing {
		if _, err := w.tx.ExecContext(ctx, `DISCARD PLANS`); err != nil {
			return err
		}
	}
	if err := w.save(ctx, said); err != nil {
		return err
	}
	return w.advance(ctx, said.Page, calls)
}

// growing are the pages of a first load before which plans are made anew. Postgres keeps those by which it checks foreign keys for as long as
// a session has them, or until a table is analysed: made while a table was a page or two, they read all of it for each row, and of thousands
// of rows a page took seconds, up to a minute long. Several pages, since a worker's sessions take turns.
const growing = 16

func (w *pageWriter) saveLookup(ctx context.Context, asked []Lookup, found connector.Page, calls int) error {
	if err := w.goOn(ctx); err != nil {
		return err
	}
	if err := w.save(ctx, reconcile.Read(found)); err != nil {
		return err
	}
	seen := map[connector.Key]bool{}
	for _, k := range w.plan.Read {
		seen[k] = true
	}
	for _, a := range asked {
		switch {
		case seen[a.Key]:
		case a.Key.Kind == connector.Customers:
			w.missingCustomers = append(w.missingCustomers, a.ID)
		case a.Key.Kind == connector.Contacts:
			w.missingContacts = append(w.missingContacts, a.ID)
		case a.Key.Kind == connector.Links:
			w.missingLinks = append(w.missingLinks, a.ID)
		}
	}
	return w.advance(ctx, connector.Page{}, calls)
}

// lock takes the run's row and checks that the step still holds it. From then on Postgres ends the transaction when nothing
// comes for as long as the lease (idlePatience says why). work_mem holds the ids of the largest connections (going says why).
func (w *pageWriter) lock(ctx context.Context) error {
	var run struct {
		Pages      int     `db:"pages"`
		Checkpoint string  `db:"checkpoint"`
		Pulled     bool    `db:"pulled"`
		HasIssues  bool    `db:"has_issues"`
		Others     bool    `db:"states_others"`
		HasHold    bool    `db:"has_hold"`
		Erased     int     `db:"erased"`
		Settings   string  `db:"settings"`
		Purpose    Purpose `db:"purpose"`

		Began time.Time `db:"listing_began_at"`
	}
	err := w.tx.GetContext(ctx, &run, `
		SELECT r.pages, r.checkpoint, r.pulled, r.purpose, r.listing_began_at,
			EXISTS (SELECT FROM issues i WHERE i.tenant_id = r.tenant_id AND i.connection_id = r.connection_id AND i.closed_at IS NULL)
				AS has_issues,
			(SELECT n.states_others FROM connections n WHERE n.tenant_id = r.tenant_id AND n.id = r.connection_id) AS states_others,
			EXISTS (SELECT FROM holds h JOIN hold_items i ON i.tenant_id = h.tenant_id AND i.hold_id = h.id AND i.left_at IS NULL
				AND i.applied_by_run IS NULL WHERE h.tenant_id = r.tenant_id AND h.connection_id = r.connection_id) AS has_hold,
			(SELECT count(*) FROM erased e WHERE e.tenant_id = r.tenant_id) AS erased,
			set_config('idle_in_transaction_session_timeout', $4, true) || set_config('work_mem', '32MB', true)
				|| CASE WHEN $6 THEN set_config('synchronous_commit', 'off', true) ELSE '' END AS settings
		FROM runs r
		WHERE r.tenant_id = $1 AND r.id = $2 AND r.connection_id = $5 AND r.fencing = $3 AND r.status = 'running'
			AND r.lease_until > clock_timestamp()
		FOR UPDATE`, w.step.Tenant, w.step.Run, w.step.Fencing, strconv.FormatInt(min(w.step.Lease, idlePatience).Milliseconds(), 10), w.step.Connection, w.unhurried)
	if err = notFound(err, "run"); errors.Is(err, ErrNotFound) {
		return ErrLeaseLost
	}
	w.page, w.hasIssues, w.hasHold, w.erased, w.began = run.Pages+1, run.HasIssues, run.HasHold, run.Erased, run.Began
	w.checkpoint, w.pulled, w.purpose = run.Checkpoint, run.Pulled, run.Purpose
	w.others = run.Others || w.later != nil
	return err
}

// goOn is lock for what relies on all that the step saved before.
func (w *pageWriter) goOn(ctx context.Context) error {
	if err := w.lock(ctx); err != nil {
		return err
	}
	if p := w.step.progress; p != nil && (p.checkpoint != w.checkpoint || p.pulled != w.pulled) {
		return ErrPagesLost
	}
	return nil
}

// save plans the page against what is held and writes what changed.
func (w *pageWriter) save(ctx context.Context, said reconcile.Reading) error {
	if err := w.decide(ctx, said); err != nil {
		return err
	}
	return w.write(ctx)
}

// decide plans the page.
func (w *pageWriter) decide(ctx context.Context, said reconcile.Reading) error {
	if err := w.read(ctx, said.Page); err != nil {
		return fmt.Errorf("read what is held: %w", err)
	}
	w.incoming, w.plan = said.Page, said.Plan(w.held)
	return nil
}

// write writes what the plan changes.
func (w *pageWriter) write(ctx context.Context) error {
	for _, part := range []struct {
		name  string
		write func(context.Context) error
	}{
		{"roles", w.roles}, {"customers", w.customers}, {"contacts", w.contacts}, {"points", w.points},
		{"links", w.links}, {"history", w.history}, {"issues", w.issues}, {"holds", w.leaveHold},
	} {
		if err := part.write(ctx); err != nil {
			return fmt.Errorf("write %s: %w", part.name, err)
		}
	}
	return nil
}

// read reads what is held of what the page names. Its queries look each key up by itself, which OFFSET 0 keeps the planner
// from undoing: without statistics, as on a first load, it takes x = ANY (keys) for a filter over all that is held, and with
// them it prefers reading a whole table of some ten thousand rows to a thousand keys of it.
func (w *pageWriter) read(ctx context.Context, page connector.Page) error {
	customers, contacts := newKeys(len(page.Customers)), newKeys(len(page.Contacts))
	for _, c := range page.Customers {
		customers.add(c.ID)
	}
	for _, c := range page.Contacts {
		contacts.add(c.ID)
	}
	customersRead, contactsRead := customers.list, contacts.list
	for _, id := range contactsRead {
		if owner, own := contact.OwnerOf(id); own {
			customers.add(owner)
		}
	}
	customersAt, contactsAt := newKeys(0), newKeys(0) // that only links refer to
	refer := func(customer, person string) {
		if !customers.has[customer] {
			customersAt.add(customer)
		}
		if !contacts.has[person] {
			contactsAt.add(person)
		}
	}
	bad := badKeys(page.Bad)
	for _, k := range slices.Concat(page.Deleted, bad) {
		switch k.Kind {
		case connector.Customers:
			customers.add(k.ID)
		case connector.Contacts:
			contacts.add(k.ID)
		}
	}
	for _, l := range page.Links {
		refer(l.Customer, l.Contact)
	}
	for _, k := range bad {
		if customer, person, ok := strings.Cut(k.ID, "/"); ok && k.Kind == connector.Links {
			refer(customer, person)
		}
	}
	w.held = reconcile.Held{
		Customers: map[string]reconcile.HeldCustomer{}, Contacts: map[string]reconcile.HeldContact{},
		Links: map[reconcile.Pair]reconcile.HeldLink{}, Roles: map[string]string{}, Counted: map[connector.Key]bool{},
	}
	w.customerIDs, w.contactIDs, w.linkIDs = map[string]int64{}, map[string]int64{}, map[reconcile.Pair]int64{}
	if len(customers.list)+len(contacts.list)+len(customersAt.list)+len(contactsAt.list) == 0 {
		return nil
	}
	if w.erased > 0 {
		erasable := slices.Concat(contacts.list, contactsAt.list)
		if err := w.readErased(ctx, slices.Concat(customers.list, customersAt.list), erasable); err != nil {
			return err
		}
	}
	// Whatever the page names beside its own records, as one that cannot be read, is looked for with them.
	if !w.allNew || len(customers.list) != len(page.Customers) || len(contacts.list) != len(page.Contacts) {
		if err := w.readCustomers(ctx, customers.list); err != nil {
			return err
		}
		held := slices.DeleteFunc(slices.Clone(contacts.list), func(id string) bool { // a customer's own contact came with it: of a new one there is none
			owner, own := contact.OwnerOf(id)
			return own && w.customerIDs[owner] == 0
		})
		if err := w.readContacts(ctx, held); err != nil {
			return err
		}
	}
	if err := w.readPoints(ctx, idsOf(w.contactIDs, contactsRead)); err != nil {
		return err
	}
	if p := w.step.progress; p != nil {
		if err := p.customers.find(ctx, w.tx, w.step, customersAt.list, w.customerIDs); err != nil {
			return err
		}
	}
	if err := w.readLinks(ctx, idsOf(w.customerIDs, customersRead), idsOf(w.contactIDs, contactsRead)); err != nil {
		return err
	}
	if err := w.readReferred(ctx, customersAt.list, contactsAt.list); err != nil {
		return err
	}
	if err := w.readPlaces(ctx, contactsRead, page); err != nil {
		return err
	}
	if len(page.Links) > 0 {
		if err := w.readRoles(ctx); err != nil {
			return err
		}
	}
	return w.readCounted(ctx, page)
}

// keys are the ERP's ids in the order in which they were met, each once. One that is no proper id is left out: it would fail the
// whole query.
type keys struct {
	has  map[string]bool
	list []string
}

func newKeys(room int) keys { return keys{make(map[string]bool, room), make([]string, 0, room)} }

func (k *keys) add(id string) {
	if !k.has[id] && reconcile.ProperID(id) {
		k.has[id] = true
		k.list = append(k.list, id)
	}
}

func badKeys(bad []connector.Bad) []connector.Key {
	keys := make([]connector.Key, 0, len(bad))
	for _, b := range bad {
		if b.Key.ID != "" {
			keys = append(keys, b.Key)
		}
	}
	return keys
}

func idsOf(ids map[string]int64, erpIDs []string) []int64 {
	out := make([]int64, 0, len(erpIDs))
	for _, e := range erpIDs {
		if id, ok := ids[e]; ok {
			out = append(out, id)
		}
	}
	return out
}

// readErased finds which of the page's records are of people who were erased.
func (w *pageWriter) readErased(ctx context.Context, customers, contacts []string) error {
	var erased []struct {
		Kind connector.Kind `db:"kind"`
		ID   string         `db:"id"`
	}
	err := w.tx.SelectContext(ctx, &erased, `
		SELECT k.kind, k.id FROM connections n CROSS JOIN (
			SELECT 'customer' AS kind, id FROM unnest($3::text[]) AS id UNION ALL SELECT 'contact', id FROM unnest($4::text[]) AS id) k
		JOIN erased e ON e.tenant_id = $1 AND e.record = erased_record(n.erp, n.account, k.kind, k.id)
		WHERE n.tenant_id = $1 AND n.id = $2`, w.step.Tenant, w.step.Connection, pq.Array(customers), pq.Array(contacts))
	w.held.Erased = map[connector.Key]bool{}
	for _, e := range erased {
		w.held.Erased[connector.Key(e)] = true
	}
	return err
}

func (w *pageWriter) readCustomers(ctx context.Context, erpIDs []string) error {
	if len(erpIDs) == 0 {
		return nil
	}
	rows, err := w.tx.QueryContext(ctx, `
		SELECT c.id, c.erp_id, c.number, c.name, c.parent_erp_id, c.bill_with_parent, c.kind, c.active, coalesce(c.inactive_reason, '')
		FROM unnest($3::text[]) AS k (erp_id), LATERAL (
			SELECT * FROM customers c WHERE c.tenant_id = $1 AND c.connection_id = $2 AND c.erp_id = k.erp_id OFFSET 0) AS c`,
		w.step.Tenant, w.step.Connection, texts(erpIDs))
	if err != nil {
		return err
	}
	defer rows.Close()
	for rows.Next() {
		var c reconcile.HeldCustomer
		var erpID string
		if err := rows.Scan(&c.ID, &erpID, &c.Facts.Number, &c.Facts.Name, &c.Facts.ParentID, &c.Facts.BillWithParent,
			&c.Facts.Kind, &c.Active, &c.Reason); err != nil {
			return err
		}
		w.held.Customers[erpID], w.customerIDs[erpID] = c, c.ID
	}
	return rows.Err()
}

func (w *pageWriter) readContacts(ctx context.Context, erpIDs []string) error {
	if len(erpIDs) == 0 {
		return nil
	}
	rows, err := w.tx.QueryContext(ctx, `
		SELECT c.id, c.erp_id, c.name, c.given_name, c.family_name, c.job_title, c.active, coalesce(c.inactive_reason, '')
		FROM unnest($3::text[]) AS k (erp_id), LATERAL (
			SELECT * FROM contacts c WHERE c.tenant_id = $1 AND c.connection_id = $2 AND c.erp_id = k.erp_id OFFSET 0) AS c`,
		w.step.Tenant, w.step.Connection, texts(erpIDs))
	if err != nil {
		return err
	}
	defer rows.Close()
	for rows.Next() {
		var c reconcile.HeldContact
		var erpID string
		if err := rows.Scan(&c.ID, &erpID, &c.Facts.Name, &c.Facts.GivenName, &c.Facts.FamilyName, &c.Facts.JobTitle, &c.Active,
			&c.Reason); err != nil {
			return err
		}
		w.held.Contacts[erpID], w.contactIDs[erpID] = c, c.ID
	}
	return rows.Err()
}

// readReferred reads our ids of customers and contacts that links refer to, but of those that are known.
func (w *pageWriter) readReferred(ctx context.Context, customers, contacts []string) error {
	for _, of := range []struct {
		table  string
		erpIDs []string
		ids    map[string]int64
	}{{"customers", customers, w.customerIDs}, {"contacts", contacts, w.contactIDs}} {
		unknown := slices.DeleteFunc(slices.Clone(of.erpIDs), func(erpID string) bool { return of.ids[erpID] != 0 })
		if len(unknown) == 0 {
			continue
		}
		err := w.returning(ctx, of.ids, `
			SELECT c.id, c.erp_id FROM unnest($3::text[]) AS k (erp_id), LATERAL (
				SELECT id, erp_id FROM `+of.table+` c WHERE c.tenant_id = $1 AND c.connection_id = $2 AND c.erp_id = k.erp_id OFFSET 0) AS c`,
			w.step.Tenant, w.step.Connection, texts(unknown))
		if err != nil {
			return err
		}
	}
	for _, erpID := range customers {
		if id, ok := w.customerIDs[erpID]; ok {
			w.held.Customers[erpID] = reconcile.HeldCustomer{ID: id}
		}
	}
	for _, erpID := range contacts {
		if id, ok := w.contactIDs[erpID]; ok {
			w.held.Contacts[erpID] = reconcile.HeldContact{ID: id}
		}
	}
	return nil
}

// readPoints reads the points of the contacts whose records the page has: a link says nothing of them.
func (w *pageWriter) readPoints(ctx context.Context, ids []int64) error {
	if len(ids) == 0 {
		return nil
	}
	contacts := reverse(w.contactIDs)
	rows, err := w.tx.QueryContext(ctx, `
		SELECT p.contact_id, p.kind, p.field, p.place, p.value, p.normalised, p.main, p.is_primary, p.usable
		FROM unnest($2::bigint[]) AS k (id), LATERAL (
			SELECT * FROM contact_points p WHERE p.tenant_id = $1 AND p.contact_id = k.id ORDER BY p.field, p.place OFFSET 0) AS p`,
		w.step.Tenant, pq.Array(ids))
	if err != nil {
		return err
	}
	defer rows.Close()
	for rows.Next() {
		var id int64
		var p contact.Point
		if err := rows.Scan(&id, &p.Kind, &p.Field, &p.Place, &p.Value, &p.Normalised, &p.Main, &p.Primary, &p.Usable); err != nil {
			return err
		}
		c := w.held.Contacts[contacts[id]]
		c.Points = append(c.Points, p)
		w.held.Contacts[contacts[id]] = c
	}
	return rows.Err()
}

// heldLink are the columns that scanLinks reads, of links of the ERP; $2 is when the run's listing began.
const heldLink = `SELECT id, customer_id, contact_id, created_at >= $2, active, stated_by, coalesce(link_role_key, ''), coalesce(record_role_key, '')
	FROM customer_contacts WHERE tenant_id = $1 AND origin = 'erp'`

// readLinks reads the links of the contacts whose records the page has, and those that its customers stated before. A customer's own contact is
// on the page with it; only where a customer ever stated another are the links at all of them looked through. Most of the customers that the
// contacts are at are those that the page's links refer to, and are found faster by our id than by the ERP's.
func (w *pageWriter) readLinks(ctx context.Context, customers, contacts []int64) error {
	if len(customers)+len(contacts) == 0 {
		return nil
	}
	const ofContacts = `SELECT l.* FROM unnest($3::bigint[]) AS k (id), LATERAL (` + heldLink + ` AND contact_id = k.id OFFSET 0) AS l`
	if !w.others {
		return w.scanLinks(ctx, ofContacts, some(contacts))
	}
	return w.scanLinks(ctx, ofContacts+`
		UNION ALL
		SELECT l.* FROM unnest($4::bigint[]) AS k (id), LATERAL (`+heldLink+` AND customer_id = k.id AND contact_id <> ALL ($3)
			AND EXISTS (SELECT FROM unnest(stated_by) AS s WHERE s LIKE 'customer:%') OFFSET 0) AS l`, some(contacts), some(customers))
}

// readPlaces reads the page's links of contacts whose records it does not have.
func (w *pageWriter) readPlaces(ctx context.Context, contactsRead []string, page connector.Page) error {
	read := newKeys(len(contactsRead))
	for _, id := range contactsRead {
		read.add(id)
	}
	var customers, contacts []int64
	pair := func(customer, person string) {
		c, k := w.customerIDs[customer], w.contactIDs[person]
		if c != 0 && k != 0 && !read.has[person] {
			customers, contacts = append(customers, c), append(contacts, k)
		}
	}
	for _, l := range page.Links {
		pair(l.Customer, l.Contact)
	}
	for _, k := range badKeys(page.Bad) {
		if customer, person, ok := strings.Cut(k.ID, "/"); ok && k.Kind == connector.Links {
			pair(customer, person)
		}
	}
	if len(customers) == 0 {
		return nil
	}
	return w.scanLinks(ctx, `
		SELECT l.* FROM unnest($3::bigint[], $4::bigint[]) AS k (customer, contact),
			LATERAL (`+heldLink+` AND customer_id = k.customer AND contact_id = k.contact OFFSET 0) AS l`, customers, contacts)
}

// scanLinks reads links, and the ERP's ids of what they join.
func (w *pageWriter) scanLinks(ctx context.Context, query string, ids ...any) error {
	rows, err := w.tx.QueryContext(ctx, query, append([]any{w.step.Tenant, w.began}, ids...)...)
	if err != nil {
		return err
	}
	defer rows.Close()
	type link struct {
		reconcile.HeldLink
		customer, contact int64
	}
	var links []link
	for rows.Next() {
		var l link
		if err := rows.Scan(&l.ID, &l.customer, &l.contact, &l.New, &l.Active, pq.Array(&l.StatedBy), &l.LinkRoleKey, &l.RecordRoleKey); err != nil {
			return err
		}
		links = append(links, l)
	}
	if err := rows.Err(); err != nil {
		return err
	}
	customerOf, contactOf := reverse(w.customerIDs), reverse(w.contactIDs)
	customersElsewhere, contactsElsewhere := map[int64]bool{}, map[int64]bool{}
	for _, l := range links {
		if customerOf[l.customer] == "" {
			customersElsewhere[l.customer] = true
		}
		if contactOf[l.contact] == "" {
			contactsElsewhere[l.contact] = true
		}
	}
	for _, of := range []struct {
		table  string
		ids    map[int64]bool
		known  map[string]int64
		erpIDs map[int64]string
	}{{"customers", customersElsewhere, w.customerIDs, customerOf}, {"contacts", contactsElsewhere, w.contactIDs, contactOf}} {
		if len(of.ids) == 0 {
			continue
		}
		err := w.returning(ctx, of.known, `SELECT c.id, c.erp_id FROM unnest($2::bigint[]) AS k (id),
			LATERAL (SELECT id, erp_id FROM `+of.table+` WHERE tenant_id = $1 AND id = k.id OFFSET 0) AS c`,
			w.step.Tenant, slices.Collect(maps.Keys(of.ids)))
		if err != nil {
			return err
		}
		for erpID, id := range of.known {
			of.erpIDs[id] = erpID
		}
	}
	for _, l := range links {
		pair := reconcile.Pair{Customer: customerOf[l.customer], Contact: contactOf[l.contact]}
		w.held.Links[pair], w.linkIDs[pair] = l.HeldLink, l.ID
	}
	return nil
}

func (w *pageWriter) readRoles(ctx context.Context) error {
	rows, err := w.tx.QueryContext(ctx, `SELECT erp_role_key, erp_role_name FROM role_mappings WHERE tenant_id = $1 AND connection_id = $2`,
		w.step.Tenant, w.step.Connection)
	if err != nil {
		return err
	}
	defer rows.Close()
	for rows.Next() {
		var key, name string
		if err := rows.Scan(&key, &name); err != nil {
			return err
		}
		w.held.Roles[key] = name
	}
	return rows.Err()
}

// readCounted finds which of the page's records were named by an earlier page of this run: a record counts once. What a link's row
// only refers to is no record of the page.
func (w *pageWriter) readCounted(ctx context.Context, page connector.Page) error {
	earlier := &namedIDs{}
	if w.step.progress != nil {
		earlier = &w.step.progress.named
	}
	if err := earlier.upTo(ctx, w.tx, w.step, w.page-1); err != nil {
		return err
	}
	keys := badKeys(page.Bad)
	for _, c := range page.Customers {
		keys = append(keys, connector.Key{Kind: connector.Customers, ID: c.ID})
	}
	for _, c := range page.Contacts {
		keys = append(keys, connector.Key{Kind: connector.Contacts, ID: c.ID})
	}
	for _, l := range page.Links {
		if l.StatedBy == (connector.Key{}) {
			keys = append(keys, connector.Key{Kind: connector.Links, ID: connector.LinkID(l.Customer, l.Contact)})
		}
	}
	for _, k := range keys {
		var id int64
		switch k.Kind {
		case connector.Customers:
			id = w.customerIDs[k.ID]
		case connector.Contacts:
			id = w.contactIDs[k.ID]
		case connector.Links:
			customer, person, _ := strings.Cut(k.ID, "/")
			id = w.linkIDs[reconcile.Pair{Customer: customer, Contact: person}]
		}
		if earlier.has(k.Kind, id) {
			w.held.Counted[k] = true
		}
	}
	return nil
}

func (w *pageWriter) customers(ctx context.Context) error {
	var added, changed customerColumns
	for _, c := range w.plan.Customers {
		if c.ID == 0 {
			added.add(c)
		} else {
			changed.add(c)
		}
	}
	if len(added.erpID) > 0 {
		err := w.returning(ctx, w.customerIDs, `
			INSERT INTO customers (tenant_id, connection_id, created_by_run, erp_id, number, name, parent_erp_id, bill_with_parent,
				kind, active, inactive_reason, erp_modified_at)
			SELECT $1, $2, $3, p.erp_id, p.number, p.name, p.parent, p.bill, p.kind, p.active, nullif(p.reason, ''), p.modified
			FROM unnest($4::text[], $5::text[], $6::text[], $7::text[], $8::bool[], $9::text[], $10::bool[], $11::text[], $12::timestamptz[])
				AS p (erp_id, number, name, parent, bill, kind, active, reason, modified)
			RETURNING id, erp_id`,
			w.step.Tenant, w.step.Connection, w.step.Run, added.erpID, added.number, added.name, added.parent, added.bill,
			added.kind, added.active, added.reason, added.modified)
		if err != nil {
			return err
		}
	}
	if len(changed.id) == 0 {
		return nil
	}
	_, err := w.tx.ExecContext(ctx, `
		UPDATE customers c SET number = p.number, name = p.name, parent_erp_id = p.parent, bill_with_parent = p.bill, kind = p.kind,
			active = p.active, inactive_reason = nullif(p.reason, ''), erp_modified_at = p.modified, updated_at = now()
		FROM `+few(2, "bigint", "text", "text", "text", "bool", "text", "bool", "text", "timestamptz")+`
			AS p (id, number, name, parent, bill, kind, active, reason, modified)
		WHERE c.tenant_id = $1 AND c.id = p.id`,
		w.step.Tenant, changed.id, changed.number, changed.name, changed.parent, changed.bill, changed.kind, changed.active,
		changed.reason, changed.modified)
	return err
}

// customerColumns are customers as the columns of an unnest.
type customerColumns struct {
	id                                        []int64
	erpID, number, name, parent, kind, reason texts
	bill, active                              []bool
	modified                                  []*time.Time
}

func (k *customerColumns) add(c reconcile.CustomerChange) {
	k.id, k.erpID = append(k.id, c.ID), append(k.erpID, c.ERPID)
	k.number, k.name, k.parent = append(k.number, c.Facts.Number), append(k.name, c.Facts.Name), append(k.parent, c.Facts.ParentID)
	k.bill, k.kind = append(k.bill, c.Facts.BillWithParent), append(k.kind, string(c.Facts.Kind))
	k.active, k.reason = append(k.active, c.Active), append(k.reason, string(c.Reason))
	k.modified = append(k.modified, reconcile.ModifiedAt(c.ModifiedAt))
}

func (w *pageWriter) contacts(ctx context.Context) error {
	var added, changed contactColumns
	for _, c := range w.plan.Contacts {
		if c.ID == 0 {
			added.add(c)
		} else {
			changed.add(c)
		}
	}
	if len(added.erpID) > 0 {
		err := w.returning(ctx, w.contactIDs, `
			INSERT INTO contacts (tenant_id, connection_id, created_by_run, origin, erp_id, name, given_name, family_name, job_title,
				active, inactive_reason, erp_modified_at)
			SELECT $1, $2, $3, 'erp', p.erp_id, p.name, p.given, p.family, p.title, p.active, nullif(p.reason, ''), p.modified
			FROM unnest($4::text[], $5::text[], $6::text[], $7::text[], $8::text[], $9::bool[], $10::text[], $11::timestamptz[])
				AS p (erp_id, name, given, family, title, active, reason, modified)
			RETURNING id, erp_id`,
			w.step.Tenant, w.step.Connection, w.step.Run, added.erpID, added.name, added.given, added.family, added.title,
			added.active, added.reason, added.modified)
		if err != nil {
			return err
		}
	}
	if len(changed.id) == 0 {
		return nil
	}
	_, err := w.tx.ExecContext(ctx, `
		UPDATE contacts c SET name = p.name, given_name = p.given, family_name = p.family, job_title = p.title, active = p.active,
			inactive_reason = nullif(p.reason, ''), erp_modified_at = p.modified, updated_at = now()
		FROM `+few(2, "bigint", "text", "text", "text", "text", "bool", "text", "timestamptz")+`
			AS p (id, name, given, family, title, active, reason, modified)
		WHERE c.tenant_id = $1 AND c.id = p.id AND c.origin = 'erp'`,
		w.step.Tenant, changed.id, changed.name, changed.given, changed.family, changed.title, changed.active, changed.reason,
		changed.modified)
	return err
}

type contactColumns struct {
	id                                        []int64
	erpID, name, given, family, title, reason texts
	active                                    []bool
	modified                                  []*time.Time
}

func (k *contactColumns) add(c reconcile.ContactChange) {
	k.id, k.erpID = append(k.id, c.ID), append(k.erpID, c.ERPID)
	k.name, k.given = append(k.name, c.Facts.Name), append(k.given, c.Facts.GivenName)
	k.family, k.title = append(k.family, c.Facts.FamilyName), append(k.title, c.Facts.JobTitle)
	k.active, k.reason = append(k.active, c.Active), append(k.reason, string(c.Reason))
	k.modified = append(k.modified, reconcile.ModifiedAt(c.ModifiedAt))
}

// points removes before it writes, so that a value may move to another place. Those of new contacts meet no other: looking for
// one is a sixth of what they cost.
func (w *pageWriter) points(ctx context.Context) error {
	var added, put, drop pointColumns
	for _, c := range w.plan.Contacts {
		id := w.contactIDs[c.ERPID]
		k := &put
		if c.ID == 0 {
			k = &added
		}
		for _, p := range c.Put {
			k.add(id, p)
		}
		for _, p := range c.Drop {
			drop.add(id, p)
		}
	}
	if len(drop.contact) > 0 {
		_, err := w.tx.ExecContext(ctx, `
			DELETE FROM contact_points c USING `+few(2, "bigint", "text", "smallint")+` AS p (contact_id, field, place)
			WHERE c.tenant_id = $1 AND c.contact_id = p.contact_id AND c.field = p.field AND c.place = p.place AND c.origin = 'erp'`,
			w.step.Tenant, drop.contact, drop.field, drop.place)
		if err != nil {
			return err
		}
	}
	if err := w.insertPoints(ctx, added, ""); err != nil {
		return err
	}
	return w.insertPoints(ctx, put, `
		ON CONFLICT (tenant_id, contact_id, field, place) DO UPDATE SET kind = excluded.kind, value = excluded.value,
			normalised = excluded.normalised, main = excluded.main, is_primary = excluded.is_primary, usable = excluded.usable`)
}

func (w *pageWriter) insertPoints(ctx context.Context, k pointColumns, met string) error {
	if len(k.contact) == 0 {
		return nil
	}
	_, err := w.tx.ExecContext(ctx, `
		INSERT INTO contact_points (tenant_id, origin, contact_id, field, place, kind, value, normalised, main, is_primary, usable)
		SELECT $1, 'erp', p.* FROM unnest($2::bigint[], $3::text[], $4::smallint[], $5::text[], $6::text[], $7::text[], $8::bool[], $9::bool[],
			$10::bool[]) AS p`+met,
		w.step.Tenant, k.contact, k.field, k.place, k.kind, k.value, k.normalised, k.main, k.primary, k.usable)
	return err
}

type pointColumns struct {
	contact                        []int64
	place                          []int32
	field, kind, value, normalised texts
	main, primary, usable          []bool
}

func (k *pointColumns) add(id int64, p contact.Point) {
	k.contact, k.field, k.place = append(k.contact, id), append(k.field, p.Field), append(k.place, int32(min(p.Place, 32767))) //nolint:gosec // bounded
	k.kind, k.value, k.normalised = append(k.kind, string(p.Kind)), append(k.value, p.Value), append(k.normalised, p.Normalised)
	k.main, k.primary, k.usable = append(k.main, p.Main), append(k.primary, p.Primary), append(k.usable, p.Usable)
}

func (w *pageWriter) links(ctx context.Context) error {
	var added, changed linkColumns
	others := false // and it is not known yet
	for _, l := range w.plan.Links {
		k := &changed
		if l.ID == 0 {
			k = &added
		}
		k.id = append(k.id, l.ID)
		k.customer, k.contact = append(k.customer, w.customerIDs[l.Pair.Customer]), append(k.contact, w.contactIDs[l.Pair.Contact])
		k.statedBy = append(k.statedBy, strings.Join(l.StatedBy, "\n"))
		k.linkRole, k.recordRole = append(k.linkRole, l.LinkRoleKey), append(k.recordRole, l.RecordRoleKey)
		others = others || !w.others && l.StatesAnother()
	}
	if others {
		if _, err := w.tx.ExecContext(ctx, `UPDATE connections SET states_others = true WHERE tenant_id = $1 AND id = $2`, w.step.Tenant, w.step.Connection); err != nil {
			return err
		}
	}
	if len(added.id) > 0 {
		var ids, customerIDs, contactIDs []int64
		err := w.tx.QueryRowContext(ctx, `
			WITH added AS (INSERT INTO customer_contacts (tenant_id, connection_id, created_by_run, origin, customer_id, contact_id, active, stated_by,
				link_role_key, record_role_key)
			SELECT $1, $2, $3, 'erp', p.customer, p.contact, true, string_to_array(p.stated_by, E'\n'), nullif(p.link_role, ''),
				nullif(p.record_role, '')
			FROM unnest($4::bigint[], $5::bigint[], $6::text[], $7::text[], $8::text[]) AS p (customer, contact, stated_by, link_role, record_role)
			RETURNING id, customer_id, contact_id)
			SELECT array_agg(id), array_agg(customer_id), array_agg(contact_id) FROM added`,
			w.step.Tenant, w.step.Connection, w.step.Run, added.customer, added.contact, added.statedBy, added.linkRole, added.recordRole).
			Scan(pq.Array(&ids), pq.Array(&customerIDs), pq.Array(&contactIDs))
		if err != nil {
			return err
		}
		customers, contacts := reverse(w.customerIDs), reverse(w.contactIDs)
		for i, id := range ids {
			w.linkIDs[reconcile.Pair{Customer: customers[customerIDs[i]], Contact: contacts[contactIDs[i]]}] = id
		}
	}
	if len(changed.id) == 0 {
		return nil
	}
	_, err := w.tx.ExecContext(ctx, `
		UPDATE customer_contacts l SET active = true, inactive_reason = NULL, stated_by = string_to_array(p.stated_by, E'\n'),
			link_role_key = nullif(p.link_role, ''), record_role_key = nullif(p.record_role, ''), updated_at = now()
		FROM `+few(2, "bigint", "text", "text", "text")+` AS p (id, stated_by, link_role, record_role)
		WHERE l.tenant_id = $1 AND l.id = p.id AND l.origin = 'erp'`,
		w.step.Tenant, changed.id, changed.statedBy, changed.linkRole, changed.recordRole)
	return err
}

type linkColumns struct {
	id, customer, contact          []int64
	statedBy, linkRole, recordRole texts
}

func (w *pageWriter) history(ctx context.Context) error {
	var h historyColumns
	for _, c := range w.plan.Customers {
		h.add("customer", c.ID, c.Changes)
	}
	for _, c := range w.plan.Contacts {
		h.add("contact", c.ID, c.Changes)
	}
	for _, l := range w.plan.Links {
		h.add("customer_contact", l.ID, l.Changes)
	}
	return h.write(ctx, w.tx, w.step)
}

// historyColumns are history rows of a run as the columns of an unnest.
type historyColumns struct {
	entity, field, was, became []string
	id                         []int64
}

func (h *historyColumns) add(entity string, id int64, changes []reconcile.Change) {
	for _, c := range changes {
		h.entity, h.id, h.field = append(h.entity, entity), append(h.id, id), append(h.field, c.Field)
		h.was, h.became = append(h.was, c.Was), append(h.became, c.Became)
	}
}

func (h *historyColumns) write(ctx context.Context, tx *sqlx.Tx, step Step) error {
	if len(h.id) == 0 {
		return nil
	}
	_, err := tx.ExecContext(ctx, `
		INSERT INTO history (tenant_id, connection_id, run_id, entity, entity_id, field, was, became)
		SELECT $1, $2, $3, p.entity, p.id, p.field, nullif(p.was, ''), nullif(p.became, '')
		FROM unnest($4::text[], $5::bigint[], $6::text[], $7::text[], $8::text[]) AS p (entity, id, field, was, became)`,
		step.Tenant, step.Connection, step.Run, h.entity, h.id, h.field, h.was, h.became)
	return err
}

// issues opens what is wrong now and closes what no longer is. It writes only what differs.
func (w *pageWriter) issues(ctx context.Context) error {
	if len(w.plan.Issues) == 0 && !w.hasIssues {
		return nil
	}
	var kind, record, field, reason []string
	var count []int64
	for _, i := range w.plan.Issues {
		kind, record = append(kind, string(i.Key.Kind)), append(record, i.Key.ID)
		field, reason, count = append(field, i.Field), append(reason, i.Reason), append(count, int64(i.Count))
	}
	read := w.plan.Read
	if p := w.step.progress; p != nil {
		var err error
		if read, err = p.issues.among(ctx, w.tx, w.step, read); err != nil {
			return err
		}
		p.issues.add(w.plan.Issues)
	}
	if w.hasIssues && len(read) > 0 {
		var readKind, readID []string
		for _, k := range read {
			readKind, readID = append(readKind, string(k.Kind)), append(readID, k.ID)
		}
		_, err := w.tx.ExecContext(ctx, `
			UPDATE issues SET closed_at = now(), closed_by_run = $3
			WHERE tenant_id = $1 AND id = ANY (ARRAY(
				SELECT i.id FROM unnest($4::text[], $5::text[]) AS r (kind, id), LATERAL (
					SELECT * FROM issues i WHERE i.tenant_id = $1 AND i.connection_id = $2 AND i.closed_at IS NULL
						AND i.record_kind = r.kind AND i.record_id = r.id OFFSET 0) AS i
				WHERE i.reason <> `+customerVanished+` AND (i.record_kind, i.record_id, i.field, i.reason) NOT IN
					(SELECT * FROM unnest($6::text[], $7::text[], $8::text[], $9::text[]))))`,
			w.step.Tenant, w.step.Connection, w.step.Run, readKind, readID, kind, record, field, reason)
		if err != nil {
			return err
		}
	}
	if len(w.plan.Issues) == 0 {
		return nil
	}
	// An issue without a record counts what the run met so far; another run counts anew. What asks for single records, perhaps amid the run
	// that met all, leaves it.
	_, err := w.tx.ExecContext(ctx, `
		WITH met AS (
			SELECT m.*, i.id AS issue
			FROM `+few(4, "text", "text", "text", "text", "bigint")+` AS m (kind, id, field, reason, count) LEFT JOIN LATERAL (
				SELECT i.id FROM issues i WHERE i.tenant_id = $1 AND i.connection_id = $2 AND i.closed_at IS NULL AND i.record_kind = m.kind
					AND i.record_id = m.id AND i.field = m.field AND i.reason = m.reason OFFSET 0) AS i ON true
		), same AS (
			UPDATE issues i SET count = CASE WHEN m.id = '' AND i.met_by_run = $3 THEN i.count + m.count ELSE m.count END, met_by_run = $3
			FROM met m
			WHERE i.tenant_id = $1 AND i.id = m.issue AND CASE WHEN m.id <> '' THEN i.count <> m.count
				ELSE (SELECT r.purpose FROM runs r WHERE r.tenant_id = $1 AND r.id = $3) = 'sync' END
		)
		INSERT INTO issues (tenant_id, connection_id, opened_by_run, met_by_run, record_kind, record_id, field, reason, count)
		SELECT $1, $2, $3, $3, m.kind, m.id, m.field, m.reason, m.count FROM met m WHERE m.issue IS NULL`,
		w.step.Tenant, w.step.Connection, w.step.Run, kind, record, field, reason, count)
	return err
}

// leaveHold takes out of the connection's holds what the page read active: of an open one, of an approved one that is not carried
// out yet, and of what a rejection remembers. A place that only a record states again stays in it for the role, which leaves with the row
// that states it.
func (w *pageWriter) leaveHold(ctx context.Context) error {
	if !w.hasHold {
		return nil
	}
	var customers, contacts, links, rows []int64
	for _, c := range w.incoming.Customers {
		if id, ok := w.customerIDs[c.ID]; ok && c.Active {
			customers = append(customers, id)
		}
	}
	for _, c := range w.incoming.Contacts {
		if id, ok := w.contactIDs[c.ID]; ok && c.Active {
			contacts = append(contacts, id)
		}
	}
	for _, pair := range w.plan.Stated {
		links = append(links, w.linkIDs[pair])
	}
	for _, pair := range w.plan.Named.Links {
		rows = append(rows, w.linkIDs[pair])
	}
	_, err := w.tx.ExecContext(ctx, `
		UPDATE hold_items i SET reason = `+roleGone+`, evidence = `+roleEvidence+`, stated_by = '{link}'
		FROM holds h, customer_contacts l
		WHERE h.tenant_id = $1 AND h.connection_id = $2 AND i.tenant_id = $1 AND i.hold_id = h.id AND i.left_at IS NULL AND i.applied_by_run IS NULL
			AND l.tenant_id = $1 AND l.id = i.entity_id AND l.link_role_key IS DISTINCT FROM l.record_role_key
			AND i.kind = 'link' AND i.reason <> `+roleGone+` AND 'link' = ANY (i.stated_by) AND i.entity_id = ANY ($3) AND NOT i.entity_id = ANY ($4)`,
		w.step.Tenant, w.step.Connection, pq.Array(links), pq.Array(some(rows)))
	if err != nil {
		return err
	}
	_, err = w.tx.ExecContext(ctx, `
		UPDATE hold_items i SET left_at = now(), left_by_run = $3
		FROM holds h
		WHERE h.tenant_id = $1 AND h.connection_id = $2 AND i.tenant_id = $1 AND i.hold_id = h.id AND i.left_at IS NULL AND i.applied_by_run IS NULL
			AND (i.kind = 'customer' AND i.entity_id = ANY ($4) OR i.kind = 'contact' AND i.entity_id = ANY ($5)
				OR i.kind = 'link' AND i.entity_id = ANY (CASE WHEN i.reason = `+roleGone+` THEN $7::bigint[] ELSE $6 END))`,
		w.step.Tenant, w.step.Connection, w.step.Run, pq.Array(customers), pq.Array(contacts), pq.Array(links), pq.Array(rows))
	return err
}

// inactiveAt are the edits by which the page states records inactive, by the ERP's time or by what else tells them apart; empty where it does
// not say.
func inactiveAt[R any](ids []int64, known map[string]int64, records []R, of func(R) (erpID, edition string, at time.Time)) []string {
	at := make(map[int64]string, len(records))
	for _, r := range records {
		switch erpID, edition, t := of(r); {
		case edition != "":
			at[known[erpID]] = edition
		case !t.IsZero():
			at[known[erpID]] = t.UTC().Format(time.RFC3339Nano)
		}
	}
	out := make([]string, 0, len(ids))
	for _, id := range ids {
		out = append(out, at[id])
	}
	return out
}

// advance records what the page named and signalled, and moves the run's counts and checkpoint.
func (w *pageWriter) advance(ctx context.Context, page connector.Page, calls int) error {
	customers, contacts := idsOf(w.customerIDs, w.plan.Named.Customers), idsOf(w.contactIDs, w.plan.Named.Contacts)
	links := make([]int64, 0, len(w.plan.Named.Links))
	var deletedCustomers, deletedContacts, unstated []int64
	for _, pair := range w.plan.Named.Links {
		links = append(links, w.linkIDs[pair])
	}
	w.named = map[connector.Kind][]int64{connector.Customers: customers, connector.Contacts: contacts, connector.Links: links}
	for _, k := range w.plan.Going.Deleted {
		if k.Kind == connector.Customers {
			deletedCustomers = append(deletedCustomers, w.customerIDs[k.ID])
		} else {
			deletedContacts = append(deletedContacts, w.contactIDs[k.ID])
		}
	}
	var unstatedBy []string
	for _, u := range w.plan.Going.Unstated {
		unstated, unstatedBy = append(unstated, u.Link), append(unstatedBy, u.By)
	}
	customersAt := inactiveAt(w.plan.Going.Customers, w.customerIDs, w.incoming.Customers,
		func(c connector.Customer) (string, string, time.Time) { return c.ID, c.Edition, c.ModifiedAt })
	contactsAt := inactiveAt(w.plan.Going.Contacts, w.contactIDs, w.incoming.Contacts,
		func(c connector.Contact) (string, string, time.Time) { return c.ID, c.Edition, c.ModifiedAt })
	_, err := w.tx.ExecContext(ctx, `
		INSERT INTO run_pages (tenant_id, run_id, page, customer_ids, contact_ids, link_ids, inactive_customer_ids, inactive_contact_ids,
			unstated_link_ids, unstated_by, deleted_customer_ids, deleted_contact_ids, missing_customer_ids,
			missing_contact_ids, inactive_customer_at, inactive_contact_at, unread_contact_ids, missing_link_ids)
		VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14, $15, $16, $17, $18)`,
		w.step.Tenant, w.step.Run, w.page, customers, contacts, links, some(w.plan.Going.Customers),
		some(w.plan.Going.Contacts), some(unstated), some(unstatedBy), some(deletedCustomers), some(deletedContacts),
		some(w.missingCustomers), some(w.missingContacts), customersAt, contactsAt, idsOf(w.contactIDs, w.plan.Named.Unread), some(w.missingLinks))
	if err != nil {
		return fmt.Errorf("note page: %w", err)
	}
	c := w.plan.Counts
	end := page.End
	if end == nil {
		end = &connector.End{}
	}
	listed := make([]string, 0, len(end.Listed))
	for _, k := range end.Listed {
		listed = append(listed, string(k))
	}
	var erased int
	err = w.tx.GetContext(ctx, &erased, `
		UPDATE runs SET pages = $3, created = created + $4, updated = updated + $5, unchanged = unchanged + $6, ignored = ignored + $7,
			refused = refused + $8, with_issue = with_issue + $9, erp_calls = erp_calls + $10, attempts = 0, throttled_since = NULL,
			error_kind = NULL, error = NULL, hint = NULL,
			checkpoint = CASE WHEN $11 = '' THEN checkpoint ELSE $11 END, checkpoint_at = now(),
			lease_until = clock_timestamp() + $16 * interval '1 microsecond',
			pulled = pulled OR $12, end_cursor = CASE WHEN $12 THEN $13 ELSE end_cursor END,
			end_rights = CASE WHEN $12 THEN $14 ELSE end_rights END, listed = CASE WHEN $12 THEN $15 ELSE listed END
		WHERE tenant_id = $1 AND id = $2 RETURNING (SELECT count(*) FROM erased e WHERE e.tenant_id = $1)`,
		w.step.Tenant, w.step.Run, w.page, c.Created, c.Updated, c.Unchanged, c.Ignored, c.Refused, c.WithIssue, calls, string(page.Next),
		page.End != nil, string(end.Cursor), end.Rights, listed, w.step.Lease.Microseconds())
	if err != nil {
		return fmt.Errorf("move checkpoint: %w", err)
	}
	if erased != w.erased {
		return errErased
	}
	return nil
}

// returning runs a query for ids and ERP ids and adds what it returns to ids. One row of a thousand ids is read faster than a
// thousand rows.
func (w *pageWriter) returning(ctx context.Context, ids map[string]int64, query string, args ...any) error {
	var added []int64
	var erpIDs []string
	err := w.tx.QueryRowContext(ctx, `WITH added AS (`+query+`) SELECT array_agg(id), array_agg(erp_id) FROM added`, args...).
		Scan(pq.Array(&added), pq.Array(&erpIDs))
	if err != nil {
		return err
	}
	for i, id := range added {
		ids[erpIDs[i]] = id
	}
	return nil
}

// few are the rows of array parameters, from $first on, that a statement looks for by key. It has the planner believe that there is one
// of them: told of a thousand, and without statistics, as on a first load, it compares each with all that is held.
func few(first int, types ...string) string {
	arrays := make([]string, 0, len(types))
	for i, t := range types {
		arrays = append(arrays, fmt.Sprintf("(SELECT $%d::%s[])", first+i, t))
	}
	return "(SELECT * FROM unnest(" + strings.Join(arrays, ", ") + ") LIMIT (SELECT NULL::bigint))"
}

// some turns nil into an empty array, which pq would send as NULL.
func some[T any](s []T) []T {
	if s == nil {
		return []T{}
	}
	return s
}

func reverse[K comparable](m map[K]int64) map[int64]K {
	out := make(map[int64]K, len(m))
	for k, id := range m {
		out[id] = k
	}
	return out
}

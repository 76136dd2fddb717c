package postgres

import (
	"cmp"
	"context"
	"fmt"
	"hash/maphash"
	"math"
	"math/bits"
	"slices"
	"strconv"

	"github.com/jmoiron/sqlx"
	"github.com/lib/pq"

	"github.com/centime/contactsync/internal/connector"
	"github.com/centime/contactsync/internal/reconcile"
)

// progress is how far a step knows that its run has come, by what it read and saved itself.
type progress struct {
	checkpoint string
	pulled     bool
	named      namedIDs
	customers  customerIDs
	issues     withIssues

	// allNew: on a first load nearly all records are new, until one is not, as of a page that is read again (pageWriter.allNew).
	allNew bool
}

// saved notes a page whose transaction was committed.
func (s Step) saved(page connector.Page) {
	if s.progress == nil {
		return
	}
	if page.Next != "" {
		s.progress.checkpoint = string(page.Next)
	}
	s.progress.pulled = s.progress.pulled || page.End != nil
}

// savedNamed notes what a page named whose transaction was committed, so that it need not be read back.
func (s Step) savedNamed(w *pageWriter) {
	if s.progress == nil || s.progress.named.pages != w.page-1 {
		return
	}
	for kind, of := range w.named {
		s.progress.named.add(kind, of)
	}
	for _, erpID := range w.plan.Named.Customers {
		s.progress.customers.add(erpID, w.customerIDs[erpID])
	}
	s.progress.named.pages = w.page
}

// surprised says whether a page met a record that was taken for new, and has the step look from now on.
func (s Step) surprised() bool {
	if s.progress == nil || !s.progress.allNew {
		return false
	}
	s.progress.allNew = false
	return true
}

// namedIDs are the records that a run's pages named so far, as a step read it from run_pages, or saved it itself. They are looked at once each: to ask
// Postgres which of a page's records the earlier pages named costs, with every page, as much more as there are pages. It takes
// little memory, since our ids of one connection lie close together, and blocks of which all were named are one and the same.
type namedIDs struct {
	pages int                                 // looked at
	ids   map[connector.Kind]map[int64]*block // by id divided by 1024
}

// A block is a bit for each of 1024 ids.
type block [16]uint64

var allNamed = func() *block {
	all := new(block)
	for i := range all {
		all[i] = math.MaxUint64
	}
	return all
}()

// upTo reads what pages up to that one named. What the refresh of a customer told a run counts for its own run.
func (n *namedIDs) upTo(ctx context.Context, tx *sqlx.Tx, step Step, page int) error {
	if page <= n.pages {
		return nil
	}
	rows, err := tx.QueryContext(ctx, `
		SELECT customer_ids, contact_ids, link_ids FROM run_pages
		WHERE tenant_id = $1 AND run_id = $2 AND page > $3 AND page <= $4 AND NOT told`, step.Tenant, step.Run, n.pages, page)
	if err != nil {
		return err
	}
	defer rows.Close()
	for rows.Next() {
		var customers, contacts, links pq.Int64Array
		if err := rows.Scan(&customers, &contacts, &links); err != nil {
			return err
		}
		n.add(connector.Customers, customers)
		n.add(connector.Contacts, contacts)
		n.add(connector.Links, links)
	}
	if err := rows.Err(); err != nil {
		return err // some may be noted already, which is true of them all the same
	}
	n.pages = page
	return nil
}

func (n *namedIDs) add(kind connector.Kind, ids []int64) {
	if n.ids == nil {
		n.ids = map[connector.Kind]map[int64]*block{}
	}
	if n.ids[kind] == nil {
		n.ids[kind] = map[int64]*block{}
	}
	for _, id := range ids {
		b := n.ids[kind][id>>10]
		switch {
		case b == allNamed:
			continue
		case b == nil:
			b = new(block)
			n.ids[kind][id>>10] = b
		}
		word := &b[id>>6&15]
		if *word |= 1 << (id & 63); *word == math.MaxUint64 && *b == *allNamed {
			n.ids[kind][id>>10] = allNamed
		}
	}
}

func (n *namedIDs) has(kind connector.Kind, id int64) bool {
	b := n.ids[kind][id>>10]
	return b != nil && b[id>>6&15]&(1<<(id&63)) != 0
}

// customerIDs are our ids of customers, by the ERP's: of those that the step's own pages named and, once it has looked up many others, of all
// that the connection holds. The places on later pages are at them, and to look those up one by one was a tenth of a run. Where the ERP's ids
// are numbers, and ours followed each other as theirs did, which they do for nearly all of a listing in the order of its ids, a customer takes
// a few bits. The others are not kept.
type customerIDs struct {
	blocks   []customerBlock // in the order of at
	lookedUp int
	loaded   bool
}

type customerBlock struct {
	at    uint64 // the ERP's ids divided by 64
	known uint64 // a bit for each of the 64
	first int64  // our id of the lowest that is known; the next one's follows it
}

const (
	// manyCustomers are looked up one by one, of 15 to 20 µs each in a large table, before all are loaded, of 1 to 2 µs each.
	manyCustomers = 20_000
	// mostCustomers are loaded, so that it takes seconds and not the 40 that Postgres gives a statement.
	mostCustomers = 5_000_000
	// customerBlocks are kept at most, in 2.4 MB, of customers whose ids lie far apart.
	customerBlocks = 100_000
	// farAhead are the blocks that may have come before their turn, as of single customers whom somebody asked for before the first load.
	farAhead = 1000
)

// find adds those customers to ids that it knows.
func (c *customerIDs) find(ctx context.Context, tx *sqlx.Tx, step Step, erpIDs []string, ids map[string]int64) error {
	unknown := 0
	for _, erpID := range erpIDs {
		if id := c.id(erpID); id != 0 {
			ids[erpID] = id
		} else {
			unknown++
		}
	}
	if c.lookedUp += unknown; c.lookedUp < manyCustomers || c.loaded {
		return nil
	}
	if err := c.load(ctx, tx, step); err != nil {
		return fmt.Errorf("load ids of customers: %w", err)
	}
	return c.find(ctx, tx, step, erpIDs, ids)
}

// load begins anew, since what is kept out of order keeps others out.
func (c *customerIDs) load(ctx context.Context, tx *sqlx.Tx, step Step) error {
	rows, err := tx.QueryContext(ctx, `SELECT id, erp_id FROM customers WHERE tenant_id = $1 AND connection_id = $2 ORDER BY id LIMIT $3`,
		step.Tenant, step.Connection, mostCustomers)
	if err != nil {
		return err
	}
	defer rows.Close()
	c.blocks, c.loaded = nil, true
	for rows.Next() && len(c.blocks) < customerBlocks {
		var id int64
		var erpID string
		if err := rows.Scan(&id, &erpID); err != nil {
			return err
		}
		c.add(erpID, id)
	}
	return rows.Err()
}

func (c *customerIDs) add(erpID string, id int64) {
	n, ok := number(erpID)
	if !ok || id == 0 {
		return
	}
	i, found := c.block(n)
	switch bit := uint64(1) << (n & 63); {
	case found:
		if b := &c.blocks[i]; b.known < bit && b.first+int64(bits.OnesCount64(b.known)) == id {
			b.known |= bit
		}
	case len(c.blocks) < customerBlocks && len(c.blocks)-i <= farAhead:
		c.blocks = slices.Insert(c.blocks, i, customerBlock{n >> 6, bit, id})
	}
}

// id is 0 of a customer that is not kept.
func (c *customerIDs) id(erpID string) int64 {
	n, ok := number(erpID)
	i, found := c.block(n)
	if !ok || !found {
		return 0
	}
	block, bit := c.blocks[i], uint64(1)<<(n&63)
	if block.known&bit == 0 {
		return 0
	}
	return block.first + int64(bits.OnesCount64(block.known&(bit-1)))
}

// block is where the block of an id is, or would be.
func (c *customerIDs) block(n uint64) (int, bool) {
	return slices.BinarySearchFunc(c.blocks, n>>6, func(b customerBlock, at uint64) int { return cmp.Compare(b.at, at) })
}

// number reads an id that is a number, written as numbers are.
func number(erpID string) (uint64, bool) {
	n, err := strconv.ParseUint(erpID, 10, 64)
	return n, err == nil && strconv.FormatUint(n, 10) == erpID
}

// withIssues are the records that issues of a connection are open about, and a few others: a page of a thousand records, of which
// nearly none has an issue, need not look each up. No other writer opens any while the step has its lease.
type withIssues struct {
	loaded bool
	seed   maphash.Seed
	of     *[issueBits / 64]uint64 // three bits for each: a record that shares all of its own is looked up for nothing, which does no harm
}

const (
	// fewRecords are looked up while no issues were loaded: a small run need not know them all.
	fewRecords = 100
	// issueBits are a quarter of a megabyte, however many issues there are. With 60,000 one record in a thousand shares its bits, with
	// half a million, as a company of a million customers may have, one in seven.
	issueBits = 1 << 21
)

func (w *withIssues) load(ctx context.Context, tx *sqlx.Tx, step Step) error {
	rows, err := tx.QueryContext(ctx, `
		SELECT record_kind, record_id FROM issues
		WHERE tenant_id = $1 AND connection_id = $2 AND closed_at IS NULL AND record_id <> ''`, step.Tenant, step.Connection)
	if err != nil {
		return err
	}
	defer rows.Close()
	w.seed, w.of = maphash.MakeSeed(), new([issueBits / 64]uint64)
	for rows.Next() {
		var k connector.Key
		if err := rows.Scan(&k.Kind, &k.ID); err != nil {
			return err
		}
		w.note(k)
	}
	w.loaded = rows.Err() == nil
	return rows.Err()
}

func (w *withIssues) add(met []reconcile.Issue) {
	for _, i := range met {
		w.note(i.Key)
	}
}

func (w *withIssues) note(k connector.Key) {
	if w.of != nil { // else they will be loaded, with this one
		for _, at := range w.bits(k) {
			w.of[at/64] |= 1 << (at % 64)
		}
	}
}

func (w *withIssues) bits(k connector.Key) [3]uint64 {
	hash := maphash.Comparable(w.seed, k)
	return [3]uint64{hash % issueBits, hash >> 21 % issueBits, hash >> 42 % issueBits}
}

// among are those of the records that an issue may be open about.
func (w *withIssues) among(ctx context.Context, tx *sqlx.Tx, step Step, records []connector.Key) ([]connector.Key, error) {
	if !w.loaded && len(records) > fewRecords {
		if err := w.load(ctx, tx, step); err != nil {
			return nil, err
		}
	}
	if !w.loaded {
		return records, nil
	}
	var open []connector.Key
	for _, k := range records {
		at := w.bits(k)
		if !slices.ContainsFunc(at[:], func(bit uint64) bool { return w.of[bit/64]&(1<<(bit%64)) == 0 }) {
			open = append(open, k)
		}
	}
	return open, nil
}

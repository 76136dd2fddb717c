package postgres

import (
	"context"

	"github.com/jmoiron/sqlx"
	"github.com/lib/pq"

	"github.com/centime/contactsync/internal/connector"
)

// progress is how far a step knows that its run has come, by what it read and saved itself.
type progress struct {
	checkpoint string
	pulled     bool
	named      namedIDs
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

// namedIDs are the records that a run's pages named so far, as a step read it from run_pages. They are looked at once each: to ask
// Postgres which of a page's records the earlier pages named costs, with every page, as much more as there are pages. It takes
// little memory, since our ids of one connection lie close together.
type namedIDs struct {
	pages int // looked at
	ids   map[connector.Kind]map[int64]uint64
}

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
		n.ids = map[connector.Kind]map[int64]uint64{}
	}
	if n.ids[kind] == nil {
		n.ids[kind] = map[int64]uint64{}
	}
	for _, id := range ids {
		n.ids[kind][id>>6] |= 1 << (id & 63)
	}
}

func (n *namedIDs) has(kind connector.Kind, id int64) bool {
	return n.ids[kind][id>>6]&(1<<(id&63)) != 0
}

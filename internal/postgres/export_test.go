package postgres

import (
	"context"
	"time"

	"github.com/jmoiron/sqlx"

	"github.com/centime/contactsync/internal/connector"
)

// ExamineIn is Examine in a transaction of the test's own.
func ExamineIn(ctx context.Context, tx *sqlx.Tx, patience time.Duration) (Examination, error) {
	return examine(ctx, tx, patience)
}

// CustomerIDs are what a step keeps of our ids of customers.
type CustomerIDs struct{ customerIDs }

func (c *CustomerIDs) Add(erpID string, id int64) { c.add(erpID, id) }
func (c *CustomerIDs) ID(erpID string) int64      { return c.id(erpID) }

// NamedIDs are what a step keeps of the records that a run's pages named.
type NamedIDs struct{ namedIDs }

func (n *NamedIDs) Add(kind connector.Kind, ids ...int64)  { n.add(kind, ids) }
func (n *NamedIDs) Has(kind connector.Kind, id int64) bool { return n.has(kind, id) }

// FullNow is what decides whether a due run is a full one.
func FullNow(last time.Time, every time.Duration, now time.Time, following *time.Time) bool {
	return fullNow(last, every, now, following)
}

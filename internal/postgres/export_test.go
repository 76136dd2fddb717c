package postgres

import (
	"context"
	"time"

	"github.com/jmoiron/sqlx"
)

// ExamineIn is Examine in a transaction of the test's own.
func ExamineIn(ctx context.Context, tx *sqlx.Tx, patience time.Duration) (Examination, error) {
	return examine(ctx, tx, patience)
}

// CustomerIDs are what a step keeps of our ids of customers.
type CustomerIDs struct{ customerIDs }

func (c *CustomerIDs) Add(erpID string, id int64) { c.add(erpID, id) }
func (c *CustomerIDs) ID(erpID string) int64      { return c.id(erpID) }

// FullNow is what decides whether a due run is a full one.
func FullNow(last time.Time, every time.Duration, now time.Time, following *time.Time) bool {
	return fullNow(last, every, now, following)
}

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

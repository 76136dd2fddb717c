package postgres

import (
	"context"
	"fmt"

	"github.com/jmoiron/sqlx"

	"github.com/centime/contactsync/internal/connector"
)

// Quiet says whether a page ends an incremental run that found nothing, and lists nothing that could be absent.
func (c *Claimed) Quiet(page connector.Page) bool {
	return c.Purpose == Sync && !c.Preview && c.Mode == Incremental && c.Resume == "" && page.End != nil && len(page.End.Listed) == 0 &&
		len(page.Customers)+len(page.Contacts)+len(page.Links)+len(page.Deleted)+len(page.Bad) == 0
}

// FinishQuiet ends a run whose only page is Quiet, in one statement: most runs of a fleet are such. It is false, and nothing is
// written, where there is more to do than to move the cursor, or another step may have the run: the page is to be saved then.
func (s *Store) FinishQuiet(ctx context.Context, c *Claimed, end connector.End, calls int) (done bool, err error) {
	began := c.seen.began // a moment ago, and by the one clock that all workers share
	err = s.in(ctx, asSync, c.Tenant, func(tx *sqlx.Tx) error {
		result, err := tx.ExecContext(ctx, `
			WITH ended AS (
				UPDATE runs r SET status = 'succeeded', lease_until = NULL, finished_at = now(), erp_calls = r.erp_calls + $3, pulled = true,
					end_cursor = $6, end_rights = $7, attempts = 0, throttled_since = NULL, error_kind = NULL, error = NULL, hint = NULL
				FROM connections n
				WHERE r.tenant_id = $1 AND r.id = $2 AND r.connection_id = $8 AND r.fencing = $9 AND r.status = 'running'
					AND r.lease_until > clock_timestamp() AND r.pages = 0 AND NOT r.cancel_requested
					AND n.tenant_id = r.tenant_id AND n.id = r.connection_id AND (n.schedule, n.auto_sync, n.state) = ($10, $11, $12)
					AND NOT EXISTS (SELECT FROM holds h WHERE h.tenant_id = $1 AND h.connection_id = r.connection_id AND h.state = 'open')
					AND NOT EXISTS (SELECT FROM role_mappings m WHERE m.tenant_id = $1 AND m.connection_id = r.connection_id AND m.role_id IS NULL)
					AND NOT EXISTS (`+vanished(`r.connection_id`)+`)
					AND NOT EXISTS (SELECT FROM issues i WHERE i.tenant_id = $1 AND i.connection_id = r.connection_id AND i.reason = `+customerVanished+` AND i.closed_at IS NULL)
				RETURNING r.*, true AS nothing
			)`+succeeded,
			c.Tenant, c.Run, calls, staleAt(c.seen.schedule, c.seen.autoSync, began, c.Connection), nextDue(c.seen.schedule, began, c.Connection, "active"),
			string(end.Cursor), end.Rights, c.Connection, c.Fencing, c.seen.schedule, c.seen.autoSync, c.seen.state)
		if err != nil {
			return err
		}
		n, err := result.RowsAffected()
		done = n == 1
		return err
	})
	if err != nil {
		return false, fmt.Errorf("finish quiet run: %w", err)
	}
	return done, nil
}

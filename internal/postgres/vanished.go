package postgres

import (
	"context"
	"fmt"

	"github.com/jmoiron/sqlx"
)

// customerVanished is the reason of the issue that tellOfVanished alone opens and closes.
const customerVanished = `'customer_vanished'`

// vanished are the customers of a connection of tenant $1 that the ERP no longer has, at which contacts made in Centime are: these get no
// mail, and a person has to move them.
func vanished(connection string) string {
	return `
	SELECT cu.erp_id, count(*) AS contacts FROM customer_contacts l JOIN customers cu ON cu.tenant_id = $1 AND cu.id = l.customer_id
	WHERE l.tenant_id = $1 AND l.connection_id = ` + connection + ` AND l.origin = 'centime' AND l.active AND NOT cu.active
		AND cu.inactive_reason <> 'erp_inactive'
	GROUP BY cu.erp_id`
}

// tellOfVanished keeps one open issue for each vanished customer. It goes by what is, not by what the run let go: a contact may be made
// at a customer while that goes, or later, and may be moved.
func tellOfVanished(ctx context.Context, tx *sqlx.Tx, step Step) error {
	_, err := tx.ExecContext(ctx, `
		WITH vanished AS (`+vanished(`$3`)+`), closed AS (
			UPDATE issues SET closed_at = now(), closed_by_run = $2
			WHERE tenant_id = $1 AND connection_id = $3 AND reason = `+customerVanished+` AND closed_at IS NULL
				AND record_id NOT IN (SELECT erp_id FROM vanished)
		)
		INSERT INTO issues (tenant_id, connection_id, opened_by_run, met_by_run, record_kind, record_id, field, reason, count)
		SELECT $1, $3, $2, $2, 'customer', erp_id, 'centime contacts', `+customerVanished+`, contacts FROM vanished v
		WHERE NOT EXISTS (SELECT FROM issues o WHERE o.tenant_id = $1 AND o.connection_id = $3 AND o.record_kind = 'customer'
			AND o.record_id = v.erp_id AND o.reason = `+customerVanished+` AND o.closed_at IS NULL AND o.count = v.contacts)
		ON CONFLICT (tenant_id, connection_id, record_kind, record_id, field, reason) WHERE closed_at IS NULL DO UPDATE SET count = excluded.count`,
		step.Tenant, step.Run, step.Connection)
	if err != nil {
		return fmt.Errorf("contacts at vanished customers: %w", err)
	}
	return nil
}

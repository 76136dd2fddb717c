package postgres

import (
	"context"
	"fmt"

	"github.com/jmoiron/sqlx"
)

// Left is an address that the ERP has only in contacts that are no longer active, and that still gets mail by a contact which
// was created in Centime: whoever it is may have left.
type Left struct {
	Tenant     int64  `db:"tenant_id"`
	Connection int64  `db:"connection_id"`
	Contact    int64  `db:"contact_id"` // of Centime
	Email      string `db:"email"`
	ERPContact int64  `db:"erp_contact_id"`
	Reason     string `db:"reason"` // why that one is not active
}

// leftButMailed are rows of Left, of those contacts c that are wanted. An ERP contact is active while it is at any customer.
func leftButMailed(wanted string) string {
	return `
	WITH own AS (
		SELECT c.tenant_id, c.connection_id, c.id, p.normalised AS email, lower(p.normalised) AS address
		FROM contacts c JOIN contact_points p ON p.tenant_id = c.tenant_id AND p.contact_id = c.id AND p.kind = 'email' AND p.main AND p.usable
		WHERE c.origin = 'centime' AND c.active AND ` + wanted + `
	), known AS (
		SELECT o.tenant_id, o.id, o.address, min(e.id) AS erp_contact_id, bool_or(e.active AND EXISTS (
			SELECT FROM customer_contacts l WHERE l.tenant_id = e.tenant_id AND l.contact_id = e.id AND l.active)) AS active
		FROM own o
		JOIN contact_points p ON p.tenant_id = o.tenant_id AND p.origin = 'erp' AND p.kind = 'email' AND lower(p.normalised) = o.address
		JOIN contacts e ON e.tenant_id = p.tenant_id AND e.id = p.contact_id
		GROUP BY o.tenant_id, o.id, o.address
	)
	SELECT o.tenant_id, o.connection_id, o.id AS contact_id, o.email, k.erp_contact_id, coalesce(e.inactive_reason, 'detached') AS reason
	FROM own o
	JOIN known k ON k.tenant_id = o.tenant_id AND k.id = o.id AND k.address = o.address AND NOT k.active
	JOIN contacts e ON e.tenant_id = k.tenant_id AND e.id = k.erp_contact_id
	WHERE EXISTS (
		SELECT FROM customer_contacts l JOIN recipients r ON r.tenant_id = l.tenant_id AND r.customer_id = l.customer_id
			AND r.contact_id = l.contact_id AND lower(r.email) = o.address
		WHERE l.tenant_id = o.tenant_id AND l.contact_id = o.id)`
}

// left are those of a tenant (0: of all), and of one contact (0: of all).
func left(ctx context.Context, tx *sqlx.Tx, tenant, id int64) ([]Left, error) {
	var found []Left
	query := leftButMailed(`($1::bigint = 0 OR c.tenant_id = $1) AND ($2::bigint = 0 OR c.id = $2)`) + ` ORDER BY o.tenant_id, o.id, o.email`
	if err := tx.SelectContext(ctx, &found, query, tenant, id); err != nil {
		return nil, fmt.Errorf("addresses of people who may have left: %w", err)
	}
	return found, nil
}

// LeftButMailed finds such addresses, of a tenant (0: of all).
func (s *Store) LeftButMailed(ctx context.Context, tenant int64) ([]Left, error) {
	var found []Left
	err := s.in(ctx, asOps, anyTenant, func(tx *sqlx.Tx) (err error) {
		found, err = left(ctx, tx, tenant, 0)
		return err
	})
	return found, err
}

// mayHaveLeft tells `syncctl status` of them: nobody must act at once, but somebody should look.
var mayHaveLeft = kind{"may_have_left", Info, `
	SELECT w.tenant_id, w.connection_id, n.name, 0 AS run_id, NULL::timestamptz AS at, count(*) AS n, min(w.contact_id)::text AS what
	FROM (` + leftButMailed(`true`) + `) w JOIN connections n ON n.tenant_id = w.tenant_id AND n.id = w.connection_id
	GROUP BY w.tenant_id, w.connection_id, n.name`,
	"syncctl contact list --origin centime",
	func(_ *look, f found) (string, string) {
		return fmt.Sprintf("contacts made in Centime that are still mailed at an address whose contacts in the ERP are not active any more: %d. "+
			"Did these people leave?", f.Count), fmt.Sprintf("syncctl contact explain %s --tenant %d", f.What, f.Tenant)
	}}

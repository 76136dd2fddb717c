package postgres

import (
	"context"

	"github.com/jmoiron/sqlx"

	"github.com/centime/contactsync/internal/connector"
	"github.com/centime/contactsync/internal/contact"
)

// Issues about ERP roles belong to the connection: their record is the role's key.
const (
	kindRole         = "erp_role"
	reasonNoRoleRoom = "no_room_for_role"
)

// Fields of a mapping in the history, before the key of the ERP role.
const (
	fieldMapped  = "role of ERP role "
	fieldERPName = "name of ERP role "
)

// roles gives each ERP role met for the first time a role that gets no mail, and follows renames.
func (w *pageWriter) roles(ctx context.Context) error {
	for _, r := range w.plan.Roles {
		if err := w.mapRole(ctx, r); err != nil {
			return err
		}
	}
	return nil
}

func (w *pageWriter) mapRole(ctx context.Context, r connector.ERPRole) error {
	if was, known := w.held.Roles[r.Key]; known {
		_, err := w.tx.ExecContext(ctx, `
			WITH renamed AS (
				UPDATE role_mappings SET erp_role_name = $4, updated_at = now()
				WHERE tenant_id = $1 AND connection_id = $2 AND erp_role_key = $3
				RETURNING coalesce(role_id, 0) AS role_id
			)
			INSERT INTO history (tenant_id, connection_id, run_id, entity, entity_id, field, was, became)
			SELECT $1, $2, $5, 'role_mapping', role_id, $7 || $3, $6, $4 FROM renamed`,
			w.step.Tenant, w.step.Connection, r.Key, r.Name, w.step.Run, was, fieldERPName)
		return err
	}
	var role *int64
	var err error
	if w.later != nil {
		*w.later = append(*w.later, r)
	} else if role, err = roleForNewKey(ctx, w.tx, w.step, r); err != nil {
		return err
	}
	_, err = w.tx.ExecContext(ctx, `
		INSERT INTO role_mappings (tenant_id, connection_id, erp_role_key, erp_role_name, role_id) VALUES ($1, $2, $3, $4, $5)`,
		w.step.Tenant, w.step.Connection, r.Key, r.Name, role)
	if err != nil {
		return err
	}
	w.held.Roles[r.Key] = r.Name
	return nil
}

// roleForNewKey finds or makes the role, under a lock of the tenant's row. It is nil where there is no room for one, and
// one issue says so.
func roleForNewKey(ctx context.Context, tx *sqlx.Tx, step Step, r connector.ERPRole) (*int64, error) {
	if err := lockRoles(ctx, tx, step.Tenant); err != nil {
		return nil, err
	}
	existing, err := tenantRoles(ctx, tx, step.Tenant)
	if err != nil {
		return nil, err
	}
	join, create, full := contact.RoleForNewKey(r.Name, step.ERPLabel, existing)
	switch {
	case full:
		_, err := tx.ExecContext(ctx, `
			INSERT INTO issues (tenant_id, connection_id, opened_by_run, record_kind, record_id, field, reason)
			SELECT $1, $2, $3, $4, $5, 'role', $6
			WHERE NOT EXISTS (SELECT FROM issues WHERE tenant_id = $1 AND connection_id = $2 AND record_kind = $4 AND record_id = $5
				AND closed_at IS NULL)`,
			step.Tenant, step.Connection, step.Run, kindRole, r.Key, reasonNoRoleRoom)
		return nil, err
	case join != nil:
		return &join.ID, nil
	}
	var id int64
	err = tx.GetContext(ctx, &id, `INSERT INTO roles (tenant_id, name) VALUES ($1, $2) RETURNING id`, step.Tenant, create)
	return &id, err
}

func tenantRoles(ctx context.Context, tx *sqlx.Tx, tenant int64) ([]contact.Role, error) {
	var rows []struct {
		ID            int64  `db:"id"`
		Name          string `db:"name"`
		Invoice       bool   `db:"invoice_presentment"`
		Communication bool   `db:"communication_contact"`
	}
	err := tx.SelectContext(ctx, &rows, `
		SELECT id, name, invoice_presentment, communication_contact FROM roles WHERE tenant_id = $1 ORDER BY lower(name)`, tenant)
	roles := make([]contact.Role, 0, len(rows))
	for _, r := range rows {
		roles = append(roles, contact.Role{ID: r.ID, Name: r.Name, InvoicePresentment: r.Invoice, CommunicationContact: r.Communication})
	}
	return roles, err
}

// fillRoles gives a role to ERP roles that had none for want of room, where there is room now. Those that a person gave a
// role meanwhile are no issue any more.
func fillRoles(ctx context.Context, tx *sqlx.Tx, step Step) error {
	_, err := tx.ExecContext(ctx, `
		UPDATE issues i SET closed_at = now(), closed_by_run = $3 FROM role_mappings m
		WHERE i.tenant_id = $1 AND i.connection_id = $2 AND i.record_kind = $4 AND i.reason = $5 AND i.closed_at IS NULL
			AND m.tenant_id = $1 AND m.connection_id = $2 AND m.erp_role_key = i.record_id AND m.role_id IS NOT NULL`,
		step.Tenant, step.Connection, step.Run, kindRole, reasonNoRoleRoom)
	if err != nil {
		return err
	}
	var waiting []struct {
		Key  string `db:"erp_role_key"`
		Name string `db:"erp_role_name"`
	}
	err = tx.SelectContext(ctx, &waiting, `
		SELECT erp_role_key, erp_role_name FROM role_mappings WHERE tenant_id = $1 AND connection_id = $2 AND role_id IS NULL
		ORDER BY erp_role_key`, step.Tenant, step.Connection)
	if err != nil {
		return err
	}
	for _, m := range waiting {
		role, err := roleForNewKey(ctx, tx, step, connector.ERPRole{Key: m.Key, Name: m.Name})
		if err != nil {
			return err
		}
		if role == nil {
			return nil
		}
		_, err = tx.ExecContext(ctx, `
			WITH mapped AS (
				UPDATE role_mappings SET role_id = $4, updated_at = now()
				WHERE tenant_id = $1 AND connection_id = $2 AND erp_role_key = $3 AND role_id IS NULL
			), closed AS (
				UPDATE issues SET closed_at = now(), closed_by_run = $5
				WHERE tenant_id = $1 AND connection_id = $2 AND record_kind = $6 AND record_id = $3 AND closed_at IS NULL
			)
			INSERT INTO history (tenant_id, connection_id, run_id, entity, entity_id, field, became, reason)
			SELECT $1, $2, $5, 'role_mapping', $4, $7 || $3, r.name || ' (' || r.id || ')', 'there is room for a role now'
			FROM roles r WHERE r.tenant_id = $1 AND r.id = $4`,
			step.Tenant, step.Connection, m.Key, *role, step.Run, kindRole, fieldMapped)
		if err != nil {
			return err
		}
	}
	return nil
}

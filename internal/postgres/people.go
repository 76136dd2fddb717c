package postgres

import (
	"context"
	"errors"
	"fmt"
	"strings"

	"github.com/jmoiron/sqlx"
	"github.com/lib/pq"
	"github.com/lib/pq/pqerror"

	"github.com/centime/contactsync/internal/contact"
)

// What people change of roles. Each change that moves mail says whose before it is written (Weigh).

// ErrNoRoom says that a tenant has as many roles as it may have.
var ErrNoRoom = fmt.Errorf("the tenant has %d roles, the most there may be: delete one first, `syncctl role list --tenant T` shows which are used least "+
	"(`syncctl role delete ROLE --move-to ROLE --tenant T`)", contact.RoleMax)

// nameOf names a role in the history: by its name then, and by the id that outlives a renaming.
func nameOf(r contact.Role) string {
	if r.ID == 0 {
		return ""
	}
	return fmt.Sprintf("%s (%d)", r.Name, r.ID)
}

// lockRoles comes first in a change of what mail a role gets or of what stands for it. In one view (decided) it begins again when that was
// changed since the view began: each such change, a sync's too, moves the tenant's row (00020_meanwhile.sql). In the order of a page, that
// locks the tenant before a role.
func lockRoles(ctx context.Context, tx *sqlx.Tx, tenant int64) error {
	_, err := tx.ExecContext(ctx, `SELECT FROM tenants WHERE tenant_id = $1 FOR NO KEY UPDATE`, tenant)
	return err
}

// findRole takes an id or a name, and locks the role.
func findRole(ctx context.Context, tx *sqlx.Tx, tenant int64, idOrName string) (contact.Role, error) {
	var r struct {
		ID            int64  `db:"id"`
		Name          string `db:"name"`
		Invoice       bool   `db:"invoice_presentment"`
		Communication bool   `db:"communication_contact"`
	}
	err := tx.GetContext(ctx, &r, `SELECT id, name, invoice_presentment, communication_contact FROM roles
		WHERE tenant_id = $1 AND (id::text = $2 OR lower(name) = lower($2)) ORDER BY id::text = $2 DESC LIMIT 1 FOR UPDATE`, tenant, idOrName)
	if err != nil {
		return contact.Role{}, notFound(err, fmt.Sprintf("role %q", idOrName))
	}
	return contact.Role{ID: r.ID, Name: r.Name, InvoicePresentment: r.Invoice, CommunicationContact: r.Communication}, nil
}

// AddRole makes a role.
func (s *Store) AddRole(ctx context.Context, tenant int64, r contact.Role, by By) (int64, error) {
	r.Name = strings.TrimSpace(r.Name)
	if err := contact.CheckName("role", r.Name); err != nil {
		return 0, err
	}
	err := s.in(ctx, asApp, tenant, func(tx *sqlx.Tx) error {
		err := tx.GetContext(ctx, &r.ID, `INSERT INTO roles (tenant_id, name, invoice_presentment, communication_contact) VALUES ($1, $2, $3, $4)
			RETURNING id`, tenant, r.Name, r.InvoicePresentment, r.CommunicationContact)
		if err != nil {
			return err
		}
		return tell(ctx, tx, tenant, nil, "role", r.ID, []change{{fieldCreated, "", r.Name}}, by)
	})
	if err != nil {
		return 0, fmt.Errorf("add role: %w", roleTrouble(err, r.Name))
	}
	return r.ID, nil
}

// roleTrouble turns what the database refuses about a role into what to do.
func roleTrouble(err error, name string) error {
	if isUniqueViolation(err, "roles_name") {
		return fmt.Errorf("there is a role %q already", name)
	}
	if e := pq.As(err, pqerror.CheckViolation); e != nil && e.Constraint == "tenants_role_max" {
		return ErrNoRoom
	}
	return err
}

// RenameRole changes a role's name, and nothing about who gets mail.
func (s *Store) RenameRole(ctx context.Context, tenant int64, role, name string, by By) error {
	name = strings.TrimSpace(name)
	if err := contact.CheckName("role", name); err != nil {
		return err
	}
	err := s.in(ctx, asApp, tenant, func(tx *sqlx.Tx) error {
		was, err := findRole(ctx, tx, tenant, role)
		if err != nil || was.Name == name {
			return err
		}
		if _, err := tx.ExecContext(ctx, `UPDATE roles SET name = $3 WHERE tenant_id = $1 AND id = $2`, tenant, was.ID, name); err != nil {
			return err
		}
		return tell(ctx, tx, tenant, nil, "role", was.ID, []change{{"name", was.Name, name}}, by)
	})
	if err != nil {
		return fmt.Errorf("rename role: %w", roleTrouble(err, name))
	}
	return nil
}

// SetRole changes which mail a role gets; it holds at once. Nil leaves a type as it is.
func (s *Store) SetRole(ctx context.Context, tenant int64, role string, invoice, communication *bool, how Weigh, by By) (MailDifference, error) {
	d, err := s.decided(ctx, asApp, tenant, how, nil, func(tx *sqlx.Tx) error {
		if err := lockRoles(ctx, tx, tenant); err != nil {
			return err
		}
		was, err := findRole(ctx, tx, tenant, role)
		if err != nil {
			return err
		}
		var changes []change
		note := func(field string, now *bool, to *bool) {
			if to != nil && *to != *now {
				changes = append(changes, change{field, fmt.Sprint(*now), fmt.Sprint(*to)})
				*now = *to
			}
		}
		note("invoice_presentment", &was.InvoicePresentment, invoice)
		note("communication_contact", &was.CommunicationContact, communication)
		if len(changes) == 0 {
			return nil
		}
		_, err = tx.ExecContext(ctx, `UPDATE roles SET invoice_presentment = $3, communication_contact = $4 WHERE tenant_id = $1 AND id = $2`,
			tenant, was.ID, was.InvoicePresentment, was.CommunicationContact)
		if err != nil {
			return err
		}
		return tell(ctx, tx, tenant, nil, "role", was.ID, changes, by)
	})
	if err != nil {
		return d, fmt.Errorf("set role: %w", err)
	}
	return d, nil
}

// MapRole lets an ERP role, named by its key or its name, stand for a role. It holds at once, for everybody who has the ERP role
// and no choice; the history has one row for it.
func (s *Store) MapRole(ctx context.Context, c Connection, erpRole, role string, how Weigh, by By) (MailDifference, error) {
	d, err := s.decided(ctx, asApp, c.Tenant, how, nil, func(tx *sqlx.Tx) error {
		if err := lockRoles(ctx, tx, c.Tenant); err != nil {
			return err
		}
		to, err := findRole(ctx, tx, c.Tenant, role)
		if err != nil {
			return err
		}
		key, err := findERPRole(ctx, tx, c, erpRole)
		if err != nil {
			return err
		}
		var was contact.Role
		err = tx.QueryRowxContext(ctx, `SELECT coalesce(r.id, 0), coalesce(r.name, '') FROM role_mappings m
			LEFT JOIN roles r ON r.tenant_id = m.tenant_id AND r.id = m.role_id
			WHERE m.tenant_id = $1 AND m.connection_id = $2 AND m.erp_role_key = $3 FOR UPDATE OF m`, c.Tenant, c.ID, key).Scan(&was.ID, &was.Name)
		if err != nil || was.ID == to.ID {
			return err
		}
		_, err = tx.ExecContext(ctx, `UPDATE role_mappings SET role_id = $4, updated_at = now()
			WHERE tenant_id = $1 AND connection_id = $2 AND erp_role_key = $3`, c.Tenant, c.ID, key, to.ID)
		if err != nil {
			return err
		}
		return tell(ctx, tx, c.Tenant, &c.ID, "role_mapping", to.ID, []change{{fieldMapped + key, nameOf(was), nameOf(to)}}, by)
	})
	if err != nil {
		return d, fmt.Errorf("map ERP role: %w", err)
	}
	return d, nil
}

// findERPRole finds the key of an ERP role that the connection has met.
func findERPRole(ctx context.Context, tx *sqlx.Tx, c Connection, keyOrName string) (string, error) {
	var met []struct {
		Key  string `db:"erp_role_key"`
		Name string `db:"erp_role_name"`
	}
	err := tx.SelectContext(ctx, &met, `SELECT erp_role_key, erp_role_name FROM role_mappings WHERE tenant_id = $1 AND connection_id = $2
		ORDER BY erp_role_key`, c.Tenant, c.ID)
	if err != nil {
		return "", err
	}
	var named, all []string
	for _, m := range met {
		if m.Key == keyOrName {
			return m.Key, nil
		}
		if strings.EqualFold(m.Name, keyOrName) {
			named = append(named, m.Key)
		}
		all = append(all, fmt.Sprintf("%s (%s)", m.Key, m.Name))
	}
	switch {
	case len(named) == 1:
		return named[0], nil
	case len(named) > 1:
		return "", fmt.Errorf("several ERP roles have the name %q: use the key, one of %s", keyOrName, strings.Join(named, ", "))
	}
	return "", fmt.Errorf("ERP role %q: %w; connection %d has met %s", keyOrName, ErrNotFound, c.ID, strings.Join(all, ", "))
}

// ErrRoleInUse says that a role cannot be deleted before it is said where its contacts go.
var ErrRoleInUse = errors.New("the role is in use")

// RoleUse counts what a role is used for.
type RoleUse struct {
	Choices  int64 `db:"choices"`  // customer contacts that people gave it
	Mappings int64 `db:"mappings"` // ERP roles that stand for it
}

// DeleteRole removes a role. What uses it moves to another role in the same transaction; without one a role in use stays.
func (s *Store) DeleteRole(ctx context.Context, tenant int64, role, moveTo string, how Weigh, by By) (RoleUse, MailDifference, error) {
	var use RoleUse
	d, err := s.decided(ctx, asApp, tenant, how, nil, func(tx *sqlx.Tx) error {
		// As whoever makes roles does: so no sync maps an ERP role to this one meanwhile.
		if _, err := tx.ExecContext(ctx, `SELECT FROM tenants WHERE tenant_id = $1 FOR UPDATE`, tenant); err != nil {
			return err
		}
		gone, err := findRole(ctx, tx, tenant, role)
		if err != nil {
			return err
		}
		err = tx.GetContext(ctx, &use, `SELECT (SELECT count(*) FROM role_choices WHERE tenant_id = $1 AND role_id = $2) AS choices,
			(SELECT count(*) FROM role_mappings WHERE tenant_id = $1 AND role_id = $2) AS mappings`, tenant, gone.ID)
		if err != nil {
			return err
		}
		if use != (RoleUse{}) {
			if moveTo == "" {
				return fmt.Errorf("%w: %s was given to %d contacts, and %d ERP roles stand for it. Say where they go: "+
					"syncctl role delete --tenant %d %d --move-to ROLE", ErrRoleInUse, nameOf(gone), use.Choices, use.Mappings, tenant, gone.ID)
			}
			if err := moveRole(ctx, tx, tenant, gone, moveTo, by); err != nil {
				return err
			}
		}
		if _, err := tx.ExecContext(ctx, `DELETE FROM roles WHERE tenant_id = $1 AND id = $2`, tenant, gone.ID); err != nil {
			if pq.As(err, pqerror.ForeignKeyViolation) != nil {
				return ErrMeanwhile // it was given to somebody since this transaction began to look
			}
			return err
		}
		return tell(ctx, tx, tenant, nil, "role", gone.ID, []change{{fieldDeleted, gone.Name, ""}}, by)
	})
	if err != nil {
		return RoleUse{}, d, fmt.Errorf("delete role: %w", err)
	}
	return use, d, nil
}

// moveRole moves choices and mappings of one role to another: a history row for each choice, and for each ERP role.
func moveRole(ctx context.Context, tx *sqlx.Tx, tenant int64, from contact.Role, moveTo string, by By) error {
	to, err := findRole(ctx, tx, tenant, moveTo)
	if err != nil {
		return err
	}
	if to.ID == from.ID {
		return fmt.Errorf("role %s cannot move to itself: name another one", nameOf(from))
	}
	_, err = tx.ExecContext(ctx, `
		WITH chosen AS (
			UPDATE role_choices SET role_id = $3, chosen_by = $6, reason = $7, chosen_at = now() WHERE tenant_id = $1 AND role_id = $2
			RETURNING customer_contact_id
		), mapped AS (
			UPDATE role_mappings SET role_id = $3, updated_at = now() WHERE tenant_id = $1 AND role_id = $2
			RETURNING connection_id, erp_role_key
		)
		INSERT INTO history (tenant_id, connection_id, entity, entity_id, field, was, became, by_user, reason)
		SELECT $1, l.connection_id, 'customer_contact', l.id, $8, $4, $5, $6, $7
		FROM chosen c JOIN customer_contacts l ON l.tenant_id = $1 AND l.id = c.customer_contact_id
		UNION ALL SELECT $1, connection_id, 'role_mapping', $3, $9 || erp_role_key, $4, $5, $6, $7 FROM mapped`,
		tenant, from.ID, to.ID, nameOf(from), nameOf(to), by.User, by.Reason, fieldChoice, fieldMapped)
	return err
}

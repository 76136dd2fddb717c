package postgres

import (
	"context"
	"fmt"
	"strconv"
	"strings"

	"github.com/jmoiron/sqlx"
	"github.com/lib/pq"
	"github.com/lib/pq/pqerror"
)

// RemoveConnections ends access and mail of connections of one tenant and destroys their credentials; rows stay. It says who stops
// getting mail; a rehearsal only says so.
func (s *Store) RemoveConnections(ctx context.Context, tenant int64, connections []Connection, by By, rehearsal bool) (MailDifference, error) {
	d, err := s.weighed(ctx, asOps, tenant, rehearsal, func(tx *sqlx.Tx) error {
		for _, c := range connections {
			if err := setState(ctx, tx, c, "removed", by); err != nil {
				return fmt.Errorf("connection %d: %w", c.ID, err)
			}
		}
		return nil
	})
	if err != nil {
		return MailDifference{}, fmt.Errorf("remove: %w", err)
	}
	return d, nil
}

// ConnectionsOf lists a tenant's connections that were not removed.
func (s *Store) ConnectionsOf(ctx context.Context, tenant int64) ([]Connection, error) {
	var ids []int64
	err := s.in(ctx, asOps, tenant, func(tx *sqlx.Tx) error {
		ids = nil
		return tx.SelectContext(ctx, &ids, `SELECT id FROM connections WHERE tenant_id = $1 AND state <> 'removed' ORDER BY id`, tenant)
	})
	if err != nil {
		return nil, fmt.Errorf("connections of tenant %d: %w", tenant, err)
	}
	found := make([]Connection, 0, len(ids))
	for _, id := range ids {
		c, err := s.connection(ctx, id)
		if err != nil {
			return nil, err
		}
		found = append(found, c)
	}
	return found, nil
}

// purgeBatch is how many rows one transaction of a purge erases: about a second's work.
const purgeBatch = 20_000

// Purge erases all data of a removed connection, or with connection 0 of a tenant whose connections are removed, history included.
// It goes on where one that was stopped has ended. gone is told what each of its transactions erased.
func (s *Store) Purge(ctx context.Context, tenant, connection int64, by By, gone func(what string, rows int64)) error {
	for {
		var batch []struct {
			What    string `db:"what"`
			Removed int64  `db:"removed"`
		}
		err := s.in(ctx, asOps, tenant, func(tx *sqlx.Tx) error {
			batch = nil
			return tx.SelectContext(ctx, &batch, `SELECT what, removed FROM purge(nullif($1, 0), $2, $3, $4)`, connection, purgeBatch, by.User, by.Reason)
		})
		switch {
		case pq.As(err, pqerror.InsufficientPrivilege) != nil:
			return fmt.Errorf("purge: only what was removed can be purged, and somebody connected it again or added to it: remove it first")
		case err != nil:
			return fmt.Errorf("purge: %w", err)
		case len(batch) == 0:
			return nil
		}
		for _, b := range batch {
			gone(b.What, b.Removed)
		}
	}
}

// Erasable is a contact as a person must recognise it before it is erased.
type Erasable struct {
	ID         int64  `db:"id"`
	Connection int64  `db:"connection_id"`
	Name       string `db:"name"`
	Origin     string `db:"origin"`
	Own        bool   `db:"own"`       // a customer's own record
	Customers  string `db:"customers"` // where it has a place
}

// FindErasable takes an id, or an address that only one contact of the tenant has.
func (s *Store) FindErasable(ctx context.Context, tenant int64, idOrAddress string) (Erasable, error) {
	id, _ := strconv.ParseInt(idOrAddress, 10, 64)
	var found []Erasable
	err := s.in(ctx, asOps, tenant, func(tx *sqlx.Tx) error {
		found = nil
		return tx.SelectContext(ctx, &found, `
			SELECT c.id, c.connection_id, c.name, c.origin, coalesce(c.erp_id LIKE 'customer:%', false) AS own,
				coalesce((SELECT string_agg(DISTINCT u.name, ', ') FROM customer_contacts l JOIN customers u ON u.tenant_id = l.tenant_id AND u.id = l.customer_id
					WHERE l.tenant_id = c.tenant_id AND l.contact_id = c.id), '') AS customers
			FROM contacts c WHERE c.tenant_id = $1 AND (c.id = $2 OR EXISTS (SELECT FROM contact_points p
				WHERE p.tenant_id = c.tenant_id AND p.contact_id = c.id AND lower($3) IN (lower(p.value), lower(p.normalised))))
			ORDER BY c.id = $2 DESC, c.id LIMIT 20`, tenant, id, idOrAddress)
	})
	switch {
	case err != nil:
		return Erasable{}, fmt.Errorf("find contact: %w", err)
	case len(found) == 0:
		return Erasable{}, fmt.Errorf("contact %q: %w", idOrAddress, ErrNotFound)
	case len(found) > 1 && found[0].ID != id:
		var ids []string
		for _, c := range found {
			ids = append(ids, fmt.Sprint(c.ID))
		}
		return Erasable{}, fmt.Errorf("more than one contact has this address: erase each by its id, of %s", strings.Join(ids, ", "))
	}
	return found[0], nil
}

// EraseContact erases one person: name, points, and what issues, holds and history tell of them. A sync does not bring them back. It
// says who stops getting mail; a rehearsal only says so.
func (s *Store) EraseContact(ctx context.Context, tenant, contact int64, by By, rehearsal bool) (MailDifference, error) {
	d, err := s.weighed(ctx, asOps, tenant, rehearsal, func(tx *sqlx.Tx) error {
		if !rehearsal {
			if err := haltRuns(ctx, tx, tenant, contact); err != nil {
				return fmt.Errorf("halt runs: %w", err)
			}
		}
		_, err := tx.ExecContext(ctx, `SELECT erase_contact($1, $2, $3)`, contact, by.User, by.Reason)
		return err
	})
	if pq.As(err, pqerror.NoDataFound) != nil {
		err = ErrNotFound
	}
	if err != nil {
		return MailDifference{}, fmt.Errorf("erase contact %d: %w", contact, err)
	}
	return d, nil
}

// haltRuns keeps the runs of a contact's connection from going by what they read of it before this transaction ends. It locks in the order
// of a run's end. What is being saved, ended or reported is waited for first, while nothing is locked that it needs.
func haltRuns(ctx context.Context, tx *sqlx.Tx, tenant, contact int64) error {
	const connection = `(SELECT connection_id FROM contacts WHERE tenant_id = $1 AND id = $2)`
	for _, lock := range []string{
		`SELECT FROM runs WHERE tenant_id = $1 AND connection_id = ` + connection + ` AND status IN ('running', 'waiting')
			ORDER BY purpose <> 'customer', id FOR UPDATE`, // a refresh writes to the sync that waits for it
		// No run is queued meanwhile: people wait, and schedulers pass over the connection.
		`SELECT FROM connections WHERE tenant_id = $1 AND id = ` + connection + ` FOR NO KEY UPDATE`,
		// No queued one is claimed; and a run that ends then has a view of before (still), and is undone since its row has changed.
		`UPDATE runs SET fencing = fencing WHERE tenant_id = $1 AND connection_id = ` + connection + ` AND status IN ('queued', 'running', 'waiting')`,
	} {
		if _, err := tx.ExecContext(ctx, lock, tenant, contact); err != nil {
			return err
		}
	}
	return nil
}

package postgres

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"slices"

	"github.com/jmoiron/sqlx"
	"github.com/lib/pq"

	"github.com/centime/contactsync/internal/connector"
	"github.com/centime/contactsync/internal/reconcile"
	"github.com/centime/contactsync/internal/settings"
)

// QueueCustomer queues the refresh of one customer, by the ERP's id, or joins the one that is under way. A customer that we
// do not know may be new.
func (s *Store) QueueCustomer(ctx context.Context, q Request, id string) (run int64, joined bool, err error) {
	if !reconcile.ProperID(id) {
		return 0, false, fmt.Errorf("customer: no ERP has such an id: %w", ErrNotFound)
	}
	q.Mode = Incremental
	err = s.in(ctx, asOps, q.Tenant, func(tx *sqlx.Tx) error {
		if err := lockForQueue(ctx, tx, q); err != nil {
			return err
		}
		err := tx.GetContext(ctx, &run, `
			SELECT id FROM runs WHERE tenant_id = $1 AND connection_id = $2 AND purpose = 'customer' AND customer_erp_id = $3
				AND status IN ('queued', 'running', 'waiting')`, q.Tenant, q.Connection, id)
		joined = err == nil
		if errors.Is(err, sql.ErrNoRows) {
			err = tx.GetContext(ctx, &run, `
				INSERT INTO runs (tenant_id, connection_id, mode, trigger, requested_by, reason, purpose, customer_erp_id)
				VALUES ($1, $2, $3, $4, $5, $6, 'customer', $7) RETURNING id`, q.Tenant, q.Connection, q.Mode, q.Trigger, q.By, q.Reason, id)
		}
		if err != nil {
			return err
		}
		return keepRequest(ctx, tx, run, q)
	})
	if err != nil {
		return 0, false, fmt.Errorf("queue refresh of a customer of connection %d: %w", q.Connection, err)
	}
	return run, joined, nil
}

// RefreshWaits says whether a customer of the connection is to be refreshed before anything else of it goes on.
func (s *Store) RefreshWaits(ctx context.Context, step Step) (waits bool, err error) {
	err = s.in(ctx, asSync, step.Tenant, func(tx *sqlx.Tx) error {
		return tx.GetContext(ctx, &waits, `SELECT EXISTS (SELECT FROM runs o WHERE o.connection_id = $1 AND `+refreshWaits+`)`, step.Connection)
	})
	if err != nil {
		return false, fmt.Errorf("look for a refresh: %w", err)
	}
	return waits, nil
}

// HeldCustomer is what we hold at one customer before it is refreshed.
type HeldCustomer struct {
	Known    bool
	Contacts []connector.Key // active at it, its own record aside
}

// CustomerHeld reads what we hold at a customer.
func (s *Store) CustomerHeld(ctx context.Context, step Step, id string) (HeldCustomer, error) {
	var held HeldCustomer
	err := s.in(ctx, asSync, step.Tenant, func(tx *sqlx.Tx) error {
		var contacts []string
		held = HeldCustomer{}
		err := tx.SelectContext(ctx, &contacts, `
			SELECT co.erp_id FROM customers c
			JOIN customer_contacts l ON l.tenant_id = c.tenant_id AND l.customer_id = c.id AND l.active AND l.origin = 'erp'
			JOIN contacts co ON co.tenant_id = l.tenant_id AND co.id = l.contact_id AND co.active AND co.erp_id NOT LIKE 'customer:%'
			WHERE c.tenant_id = $1 AND c.connection_id = $2 AND c.erp_id = $3 ORDER BY co.id`, step.Tenant, step.Connection, id)
		if err != nil {
			return err
		}
		for _, contact := range contacts {
			held.Contacts = append(held.Contacts, connector.Key{Kind: connector.Contacts, ID: contact})
		}
		return tx.GetContext(ctx, &held.Known, `SELECT EXISTS (SELECT FROM customers WHERE tenant_id = $1 AND connection_id = $2 AND erp_id = $3)`,
			step.Tenant, step.Connection, id)
	})
	if err != nil {
		return HeldCustomer{}, fmt.Errorf("read customer: %w", err)
	}
	return held, nil
}

// SaveCustomer writes what the ERP says of one customer now. Links at it that are rows of their own and are not on the page
// are no longer stated; everything else is saved as from any page.
//
// A sync under way is told (tellSync).
func (s *Store) SaveCustomer(ctx context.Context, step Step, id string, page connector.Page, calls int) (reconcile.Counts, error) {
	var counts reconcile.Counts
	err := s.in(ctx, asSync, step.Tenant, func(tx *sqlx.Tx) error {
		w := pageWriter{tx: tx, step: step}
		if err := w.goOn(ctx); err != nil {
			return err
		}
		if err := w.decide(ctx, reconcile.Read(page)); err != nil {
			return err
		}
		if err := w.unstatedRows(ctx, id); err != nil {
			return fmt.Errorf("find links that went: %w", err)
		}
		if err := w.write(ctx); err != nil {
			return err
		}
		counts = w.plan.Counts
		if err := w.advance(ctx, page, calls); err != nil {
			return err
		}
		if err := w.tellSync(ctx); err != nil {
			return err
		}
		// Rights are compared by those who list; this run has nothing to say about them.
		_, err := tx.ExecContext(ctx, `UPDATE runs r SET pulled = true, end_rights = coalesce(n.rights, '') FROM connections n
			WHERE r.tenant_id = $1 AND r.id = $2 AND n.tenant_id = $1 AND n.id = $3`, step.Tenant, step.Run, step.Connection)
		return err
	})
	if err != nil {
		return counts, fmt.Errorf("save customer: %w", err)
	}
	if page.End == nil {
		page.End = &connector.End{} // it is all that the run reads
	}
	step.saved(page)
	return counts, nil
}

// tellSync tells a sync under way, or a failed one that the next may go on with, what the page named and signalled, as by a page of its own
// that came last: so its end does not go by what it read earlier. A link made since, say, is not absent.
func (w *pageWriter) tellSync(ctx context.Context) error {
	_, err := w.tx.ExecContext(ctx, `
		WITH told AS (
			INSERT INTO run_pages (tenant_id, run_id, page, told, customer_ids, contact_ids, link_ids, inactive_customer_ids, inactive_contact_ids,
				inactive_customer_at, inactive_contact_at, unstated_link_ids, unstated_by, deleted_customer_ids, deleted_contact_ids,
				unread_contact_ids)
			SELECT $1, r.id, r.pages + 1, true, g.customer_ids, g.contact_ids, g.link_ids, g.inactive_customer_ids, g.inactive_contact_ids,
				g.inactive_customer_at, g.inactive_contact_at, g.unstated_link_ids, g.unstated_by, g.deleted_customer_ids, g.deleted_contact_ids,
				g.unread_contact_ids
			FROM runs r, run_pages g
			WHERE g.tenant_id = $1 AND g.run_id = $2 AND g.page = $3 AND r.tenant_id = $1 AND r.connection_id = $4 AND r.purpose = 'sync'
				AND NOT r.preview AND r.pages > 0 AND (r.status IN ('running', 'waiting') OR r.status = 'failed' AND r.checkpoint <> ''
					AND r.checkpoint_at > now() - interval '24 hours')
			RETURNING run_id
		)
		UPDATE runs r SET pages = pages + 1 FROM told t WHERE r.tenant_id = $1 AND r.id = t.run_id`,
		w.step.Tenant, w.step.Run, w.page, w.step.Connection)
	return err
}

// unstatedRows notes the links at a customer that are rows of their own and are not on its page. With a customer that could not be
// read come none of them, and a row whose ids could not be read may be any of them.
func (w *pageWriter) unstatedRows(ctx context.Context, id string) error {
	if !slices.ContainsFunc(w.incoming.Customers, func(c connector.Customer) bool { return c.ID == id }) ||
		slices.ContainsFunc(w.incoming.Bad, func(b connector.Bad) bool { return b.Key == connector.Key{Kind: connector.Links} }) {
		return nil
	}
	stated := make([]int64, 0, len(w.plan.Named.Links))
	for _, pair := range w.plan.Named.Links {
		stated = append(stated, w.linkIDs[pair]) // 0 of a new one
	}
	var gone []int64
	err := w.tx.SelectContext(ctx, &gone, `
		SELECT l.id FROM customers c JOIN customer_contacts l ON l.tenant_id = c.tenant_id AND l.customer_id = c.id AND l.origin = 'erp'
		WHERE c.tenant_id = $1 AND c.connection_id = $2 AND c.erp_id = $3 AND 'link' = ANY (l.stated_by) AND NOT l.id = ANY ($4)
		ORDER BY l.id`, w.step.Tenant, w.step.Connection, id, pq.Array(stated))
	for _, link := range gone {
		w.plan.Going.Unstated = append(w.plan.Going.Unstated, reconcile.Unstated{Link: link, By: reconcile.StatedByLink})
	}
	return err
}

// FinishCustomer ends the refresh of a customer: what goes with it is applied or held. The connection is left as it is, since
// nothing was learnt about the rest of it. It has one view, as Finish.
func (s *Store) FinishCustomer(ctx context.Context, step Step, limits settings.Settings, lookups bool, calls int) (End, error) {
	var end End
	err := s.still(ctx, asSync, step.Tenant, func(tx *sqlx.Tx) (err error) {
		if err = goOn(ctx, tx, step); err != nil {
			return err
		}
		if end, err = settle(ctx, tx, step, limits, lookups, calls); err != nil || len(end.Missing) > 0 {
			return err
		}
		return tx.GetContext(ctx, &end.Went, `
			UPDATE runs SET status = 'succeeded', lease_until = NULL, finished_at = now(), erp_calls = erp_calls + $3, error_kind = NULL, error = NULL,
				hint = NULL WHERE tenant_id = $1 AND id = $2 RETURNING deactivated, held`, step.Tenant, step.Run, calls)
	})
	if err != nil {
		return End{}, fmt.Errorf("finish refresh: %w", err)
	}
	return end, nil
}

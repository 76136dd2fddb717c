package postgres

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/jmoiron/sqlx"

	"github.com/centime/contactsync/internal/connector"
)

// Hold is a connection's list of what would go and stays until a person decides.
type Hold struct {
	ID         int64      `db:"id"`
	Tenant     int64      `db:"tenant_id"`
	Connection int64      `db:"connection_id"`
	Name       string     `db:"name"`             // of the connection
	Connected  string     `db:"connection_state"` // state of the connection
	State      string     `db:"state"`
	DecidedBy  *string    `db:"decided_by"`
	DecidedAt  *time.Time `db:"decided_at"`
	Run        int64      `db:"run_id"`            // the last one that carries, or carried, it out; 0: none
	RunStatus  string     `db:"run_status"`        // of that
	Contacts   int64      `db:"customer_contacts"` // that wait, or that a rejection keeps
	// AsOf is the run that added last to what waits for a decision, 0 if nothing waits; a decision is refused if more was added since (ErrMore).
	AsOf int64 `db:"as_of"`
}

// decision names who decided a hold and when.
func (h Hold) decision() string {
	text := h.State
	if h.DecidedBy != nil {
		text += " by " + *h.DecidedBy
	}
	if h.DecidedAt != nil {
		text += " at " + h.DecidedAt.UTC().Format("2006-01-02 15:04:05") + " UTC"
	}
	return text
}

// carriedOut says whether the approval's run is over; that of an old approval is removed.
func (h Hold) carriedOut() bool { return h.RunStatus == "succeeded" || h.Run == 0 }

// ErrMore says that more is held than the person who decides was shown.
var ErrMore = errors.New("more is held than was shown")

// more refuses a decision about what was not shown: added later, be it by a run that was queued before.
func (h Hold) more(ctx context.Context, tx *sqlx.Tx, now Hold) error {
	var more bool
	err := tx.GetContext(ctx, &more, `
		WITH item AS (SELECT * FROM hold_items WHERE tenant_id = $1 AND hold_id = $2)
		SELECT EXISTS (SELECT FROM item WHERE left_at IS NULL AND applied_by_run IS NULL
			AND added_at > coalesce((SELECT max(added_at) FROM item WHERE added_by_run = $3), '-infinity'))`, h.Tenant, h.ID, h.AsOf)
	if !more || err != nil {
		return err
	}
	return fmt.Errorf("%w: run %d added to it since run %d; nothing was decided: look again with `syncctl hold show %d`", ErrMore, now.AsOf, h.AsOf, h.ID)
}

// ErrDecided says that a hold was decided already, by whom and when.
var ErrDecided = errors.New("the hold is decided already")

const readHold = `
	SELECT h.id, h.tenant_id, h.connection_id, n.name, n.state AS connection_state, h.state, h.decided_by, h.decided_at,
		coalesce(r.id, 0) AS run_id, coalesce(r.status, '') AS run_status,
		(SELECT count(*) FROM hold_customer_contacts c WHERE c.tenant_id = h.tenant_id AND c.hold_id = h.id) AS customer_contacts,
		coalesce((SELECT i.added_by_run FROM hold_items i WHERE i.tenant_id = h.tenant_id AND i.hold_id = h.id AND i.left_at IS NULL
			AND i.applied_by_run IS NULL ORDER BY i.added_at DESC LIMIT 1), 0) AS as_of
	FROM holds h JOIN connections n ON n.tenant_id = h.tenant_id AND n.id = h.connection_id
	LEFT JOIN LATERAL (SELECT id, status FROM runs WHERE tenant_id = h.tenant_id AND hold_id = h.id ORDER BY id DESC LIMIT 1) r ON true
	WHERE h.id = $1`

// Hold reads one.
func (s *Store) Hold(ctx context.Context, id int64) (Hold, error) {
	var h Hold
	err := s.in(ctx, asOps, anyTenant, func(tx *sqlx.Tx) error { return tx.GetContext(ctx, &h, readHold, id) })
	if err != nil {
		return Hold{}, fmt.Errorf("hold %d: %w", id, notFound(err, "hold"))
	}
	return h, nil
}

// lockHold locks connection and hold, in this order like every other decision on runs, so that of two operators one sees what the
// other did.
func lockHold(ctx context.Context, tx *sqlx.Tx, h Hold) (Hold, error) {
	_, err := tx.ExecContext(ctx, `SELECT FROM connections WHERE tenant_id = $1 AND id = $2 FOR NO KEY UPDATE`, h.Tenant, h.Connection)
	if err != nil {
		return Hold{}, err
	}
	if _, err := tx.ExecContext(ctx, `SELECT FROM holds WHERE tenant_id = $1 AND id = $2 FOR UPDATE`, h.Tenant, h.ID); err != nil {
		return Hold{}, err
	}
	return h, tx.GetContext(ctx, &h, readHold, h.ID)
}

// ApproveHold records the decision and queues the run that carries it out: it looks up again and lets go what is still so.
func (s *Store) ApproveHold(ctx context.Context, h Hold, by By) (run int64, err error) {
	err = s.in(ctx, asOps, h.Tenant, func(tx *sqlx.Tx) error {
		now, err := lockHold(ctx, tx, h)
		switch {
		case err != nil:
			return err
		case now.Connected == "removed":
			return fmt.Errorf("its connection %d was removed", h.Connection)
		case now.State == "approved" && !now.carriedOut():
			return fmt.Errorf("%w: %s, and run %d carries it out", ErrDecided, now.decision(), now.Run)
		case now.State != "open":
			return fmt.Errorf("%w: %s", ErrDecided, now.decision())
		}
		if err := h.more(ctx, tx, now); err != nil {
			return err
		}
		_, err = tx.ExecContext(ctx, `UPDATE holds SET state = 'approved', decided_by = $3, decided_at = now(), decision_reason = $4
			WHERE tenant_id = $1 AND id = $2`, h.Tenant, h.ID, by.User, by.Reason)
		if err != nil {
			return err
		}
		err = tx.GetContext(ctx, &run, `
			INSERT INTO runs (tenant_id, connection_id, mode, trigger, purpose, hold_id, requested_by, reason)
			VALUES ($1, $2, 'incremental', 'manual', 'approval', $3, $4, $5) RETURNING id`, h.Tenant, h.Connection, h.ID, by.User, by.Reason)
		if err != nil {
			return err
		}
		_, err = tx.ExecContext(ctx, `INSERT INTO run_requests (tenant_id, run_id, mode, trigger, requested_by, reason)
			VALUES ($1, $2, 'incremental', 'manual', $3, $4)`, h.Tenant, run, by.User, by.Reason)
		return err
	})
	if err != nil {
		return 0, fmt.Errorf("approve hold %d: %w", h.ID, err)
	}
	return run, nil
}

// Rejected says what a rejection did.
type Rejected struct {
	Kept    int64 // records that are remembered: none of them goes without new evidence
	Back    int64 // of those, the ones that an approval had let go, and that are active again
	Changed int64 // records that the approval had let go and something else has changed since: they stay as they are
}

// RejectHold keeps what a hold holds, and remembers by what evidence it was to go. After an approval it brings back what that took
// and nothing has changed since. It acts as the sync, which alone may write what is the ERP's.
func (s *Store) RejectHold(ctx context.Context, h Hold, by By) (Rejected, error) {
	var done Rejected
	err := s.in(ctx, asSync, h.Tenant, func(tx *sqlx.Tx) error {
		done = Rejected{}
		now, err := lockHold(ctx, tx, h)
		switch {
		case err != nil:
			return err
		case now.State != "open" && now.State != "approved":
			return fmt.Errorf("%w: %s", ErrDecided, now.decision())
		case now.State == "approved" && now.Run == 0:
			return fmt.Errorf("it was %s, longer ago than runs and history are kept: what went then can be brought back in the ERP only", now.decision())
		}
		if err := h.more(ctx, tx, now); err != nil {
			return err
		}
		if now.State == "approved" {
			// Its run, if it is still under way, finds the hold rejected and ends.
			_, err := tx.ExecContext(ctx, `UPDATE runs SET cancel_requested = true
				WHERE tenant_id = $1 AND hold_id = $2 AND status IN ('queued', 'running', 'waiting')`, h.Tenant, h.ID)
			if err != nil {
				return err
			}
			if err := bringBack(ctx, tx, h, by, &done); err != nil {
				return fmt.Errorf("bring back: %w", err)
			}
		}
		_, err = tx.ExecContext(ctx, `UPDATE holds SET state = 'rejected', decided_by = $3, decided_at = now(), decision_reason = $4
			WHERE tenant_id = $1 AND id = $2`, h.Tenant, h.ID, by.User, by.Reason)
		if err != nil {
			return err
		}
		if err := rightsDecided(ctx, tx, h.Tenant, h.ID); err != nil {
			return err
		}
		return tx.GetContext(ctx, &done.Kept, `SELECT count(*) FROM hold_items WHERE tenant_id = $1 AND hold_id = $2 AND left_at IS NULL`, h.Tenant, h.ID)
	})
	if err != nil {
		return Rejected{}, fmt.Errorf("reject hold %d: %w", h.ID, err)
	}
	return done, nil
}

// bringBack makes active again what the hold's approval let go, and gives back the roles that it took, unless that changed again since.
// The contact that a customer's own record is comes back with it.
func bringBack(ctx context.Context, tx *sqlx.Tx, h Hold, by By, done *Rejected) error {
	return tx.QueryRowContext(ctx, `
		WITH took AS (
			SELECT DISTINCT t.entity, t.entity_id AS id FROM (
				SELECT t.* FROM runs r JOIN history t ON t.tenant_id = $1 AND t.run_id = r.id AND t.field = 'active' AND t.became = 'false'
				WHERE r.tenant_id = $1 AND r.hold_id = $2
				UNION ALL
				SELECT t.* FROM hold_items i JOIN history t ON t.tenant_id = $1 AND t.entity = 'customer_contact' AND t.entity_id = i.entity_id
					AND t.run_id = i.applied_by_run AND t.field = 'erp_role'
				WHERE i.tenant_id = $1 AND i.hold_id = $2 AND i.reason = `+roleGone+`
			) t WHERE NOT EXISTS (SELECT FROM history later WHERE later.tenant_id = $1
				AND later.entity = t.entity AND later.entity_id = t.entity_id AND later.id > t.id AND later.run_id IS DISTINCT FROM t.run_id
				AND later.field IN ('active', 'inactive_reason', 'erp_role'))
		), stated AS (
			SELECT l.id, ARRAY(SELECT unnest(l.stated_by) UNION SELECT unnest(i.stated_by) ORDER BY 1) AS stated_by
			FROM took t JOIN hold_items i ON i.tenant_id = $1 AND i.hold_id = $2 AND i.kind = 'link' AND i.entity_id = t.id AND i.applied_by_run IS NOT NULL
			JOIN customer_contacts l ON l.tenant_id = $1 AND l.id = t.id WHERE t.entity = 'customer_contact'
		), customer AS (
			UPDATE customers c SET active = true, inactive_reason = NULL, updated_at = now() FROM took t
			WHERE t.entity = 'customer' AND c.tenant_id = $1 AND c.id = t.id AND NOT c.active RETURNING 'customer' AS kind, 'customer' AS entity, c.id
		), contact AS (
			UPDATE contacts c SET active = true, inactive_reason = NULL, updated_at = now() FROM took t
			WHERE t.entity = 'contact' AND c.tenant_id = $1 AND c.id = t.id AND NOT c.active AND c.origin = 'erp'
			RETURNING 'contact' AS kind, 'contact' AS entity, c.id
		), link AS (
			UPDATE customer_contacts c SET active = true, inactive_reason = NULL, stated_by = s.stated_by, updated_at = now() FROM stated s
			WHERE c.tenant_id = $1 AND c.id = s.id AND c.origin = 'erp'
			RETURNING 'link' AS kind, 'customer_contact' AS entity, c.id
		), back AS (
			SELECT * FROM customer UNION ALL SELECT * FROM contact UNION ALL SELECT * FROM link
		), told AS (
			INSERT INTO history (tenant_id, connection_id, entity, entity_id, field, was, became, by_user, reason)
			SELECT $1, $3, g.entity, g.id, g.field, g.was, g.became, $4, concat_ws(': ', 'rejected hold ' || $2::bigint, nullif($5, '')) FROM (
				SELECT entity, id, 'active' AS field, 'false' AS was, 'true' AS became FROM back b
				WHERE b.kind <> 'link' OR NOT (SELECT l.active FROM customer_contacts l WHERE l.tenant_id = $1 AND l.id = b.id)
				UNION ALL SELECT b.entity, b.id, 'erp_role', coalesce(l.erp_role_key, ''), coalesce(`+roleBy+`, '')
				FROM back b JOIN stated s ON s.id = b.id
				JOIN customer_contacts l ON l.tenant_id = $1 AND l.id = b.id WHERE b.kind = 'link' AND `+roleBy+` IS DISTINCT FROM l.erp_role_key) g
		), item AS (
			UPDATE hold_items i SET applied_by_run = NULL,
				left_at = CASE WHEN EXISTS (SELECT FROM back b WHERE b.kind = i.kind AND b.id = i.entity_id) THEN NULL ELSE now() END
			WHERE i.tenant_id = $1 AND i.hold_id = $2 AND i.applied_by_run IS NOT NULL RETURNING i.left_at
		)
		SELECT count(*) FILTER (WHERE left_at IS NULL), count(*) FILTER (WHERE left_at IS NOT NULL) FROM item`,
		h.Tenant, h.ID, h.Connection, by.User, by.Reason).Scan(&done.Back, &done.Changed)
}

// approving is going for an approval's run $2: what its hold holds, as far as the look-ups left it so. Where the ERP cannot be asked it
// goes as of the evidence; whatever was read active since has left the hold.
const approving = `
run AS (
	SELECT r.*, concat_ws(': ', 'approved by ' || h.decided_by, nullif(h.decision_reason, '')) AS why
	FROM runs r JOIN holds h ON h.tenant_id = $1 AND h.id = r.hold_id AND h.state = 'approved' WHERE r.tenant_id = $1 AND r.id = $2
),
page AS (SELECT * FROM run_pages WHERE tenant_id = $1 AND run_id = $2 AND NOT old),
stated AS (
	SELECT 'customer' AS kind, n.id, (array_agg(n.at ORDER BY p.page DESC))[1] AS at
	FROM page p, unnest(p.inactive_customer_ids, p.inactive_customer_at) AS n (id, at) GROUP BY n.id
	UNION ALL SELECT 'contact', n.id, (array_agg(n.at ORDER BY p.page DESC))[1]
	FROM page p, unnest(p.inactive_contact_ids, p.inactive_contact_at) AS n (id, at) GROUP BY n.id
),
item AS (
	SELECT i.kind, i.entity_id AS id, i.reason AS was, i.evidence AS said, i.stated_by AS by, s.id IS NOT NULL AS inactive, s.at,
		CASE i.kind WHEN 'customer' THEN i.entity_id IN (SELECT unnest(missing_customer_ids) FROM page)
			WHEN 'contact' THEN i.entity_id IN (SELECT unnest(missing_contact_ids) FROM page) ELSE false END AS missing,
		CASE i.kind WHEN 'customer' THEN i.entity_id IN (SELECT unnest(customer_ids) FROM page)
			WHEN 'contact' THEN i.entity_id IN (SELECT unnest(contact_ids) FROM page)
			ELSE i.entity_id IN (SELECT unnest(link_ids) FROM page) -- or perhaps stated by a record that could not be read
				OR (SELECT l.contact_id FROM customer_contacts l WHERE l.tenant_id = $1 AND l.id = i.entity_id)
					IN (SELECT unnest(unread_contact_ids) FROM page) END AS found
	FROM run r JOIN hold_items i ON i.tenant_id = $1 AND i.hold_id = r.hold_id AND i.left_at IS NULL AND i.applied_by_run IS NULL
	LEFT JOIN stated s ON s.kind = i.kind AND s.id = i.entity_id
),
settled AS (
	SELECT kind, id, reason, said, by, CASE WHEN reason = was AND at IS NULL THEN said ELSE ` + evidence + ` END AS evidence
	FROM (SELECT *, CASE WHEN inactive THEN 'erp_inactive' WHEN missing AND was = 'erp_inactive' THEN 'erp_absent' ELSE was END AS reason FROM item) i
	WHERE inactive OR missing OR NOT found
),
going_customer AS (
	SELECT c.id, c.erp_id, c.connection_id, s.reason, s.reason <> 'erp_inactive' AS missing
	FROM settled s JOIN customers c ON c.tenant_id = $1 AND c.id = s.id AND c.active WHERE s.kind = 'customer'
),
going_contact AS (
	SELECT c.id, c.erp_id, g.reason, g.reason <> 'erp_inactive' AS missing
	FROM (
		SELECT DISTINCT ON (id) id, reason FROM (
			SELECT id, reason, 1 AS first FROM settled WHERE kind = 'contact'
			UNION ALL SELECT o.id, c.reason, 0 FROM going_customer c
				JOIN contacts o ON o.tenant_id = $1 AND o.connection_id = c.connection_id AND o.erp_id = 'customer:' || c.erp_id
		) AS why ORDER BY id, first
	) g JOIN contacts c ON c.tenant_id = $1 AND c.id = g.id AND c.active AND c.origin = 'erp'
),
restated AS (
	SELECT l.id, CASE WHEN s.reason = ` + roleGone + ` THEN ARRAY(SELECT unnest(l.stated_by) EXCEPT SELECT unnest(s.by) ORDER BY 1) ELSE '{}' END AS stated_by
	FROM settled s JOIN customer_contacts l ON l.tenant_id = $1 AND l.id = s.id AND l.active AND l.origin = 'erp' WHERE s.kind = 'link'
),
going_link AS (SELECT id FROM restated WHERE stated_by = '{}'),
going_role AS (SELECT id FROM restated WHERE stated_by <> '{}'),
affected AS (` + affected + `)`

// unaskedMost bounds what Unasked returns: a hold may have millions of rows.
const unaskedMost = 20 * connector.LookupMax

// Unasked are records and links of the approved hold, and contacts who may say where they are now, that its run has not looked up yet:
// the first of them, none once all are.
func (s *Store) Unasked(ctx context.Context, step Step) ([]Lookup, error) {
	var unasked []Lookup
	err := s.in(ctx, asSync, step.Tenant, func(tx *sqlx.Tx) error {
		if err := lockRun(ctx, tx, step); err != nil {
			return err
		}
		unasked = nil
		var rows []struct {
			Kind  connector.Kind `db:"kind"`
			ID    int64          `db:"id"`
			ERPID string         `db:"erp_id"`
		}
		err := tx.SelectContext(ctx, &rows, `
			WITH page AS (SELECT * FROM run_pages WHERE tenant_id = $1 AND run_id = $2 AND NOT old), item AS (
				SELECT i.kind, i.entity_id AS id, i.reason FROM runs r JOIN holds h ON h.tenant_id = $1 AND h.id = r.hold_id AND h.state = 'approved'
				JOIN hold_items i ON i.tenant_id = $1 AND i.hold_id = h.id AND i.left_at IS NULL AND i.applied_by_run IS NULL
				WHERE r.tenant_id = $1 AND r.id = $2
			), wanted AS (
				SELECT 'customer' AS kind, c.id FROM item i JOIN customers c ON c.tenant_id = $1 AND c.id = i.id AND c.active
				WHERE i.kind = 'customer' AND c.id NOT IN (SELECT unnest(customer_ids || missing_customer_ids) FROM page)
				UNION ALL
				SELECT 'contact', c.id FROM (
					SELECT id FROM item WHERE kind = 'contact'
					UNION -- as in going, whose place is to go and who states one at a missing customer
					SELECT l.contact_id FROM item i JOIN customer_contacts l ON l.tenant_id = $1 AND l.id = i.id AND l.active
						WHERE i.kind = 'link' AND i.reason <> `+roleGone+`
					UNION SELECT l.contact_id FROM item i JOIN customer_contacts l ON l.tenant_id = $1 AND l.customer_id = i.id AND l.active
						WHERE i.kind = 'customer' AND i.reason <> 'erp_inactive' AND `+statedByContact+`
				) s JOIN contacts c ON c.tenant_id = $1 AND c.id = s.id AND c.active AND c.erp_id NOT LIKE 'customer:%'
				WHERE c.id NOT IN (SELECT unnest(contact_ids || missing_contact_ids) FROM page)
				UNION ALL
				SELECT 'link', l.id FROM item i JOIN customer_contacts l ON l.tenant_id = $1 AND l.id = i.id AND l.active
				WHERE i.kind = 'link' AND l.id NOT IN (SELECT unnest(link_ids || missing_link_ids) FROM page)
				ORDER BY 1, 2 LIMIT $3
			)
			SELECT w.*, CASE w.kind WHEN 'customer' THEN (SELECT erp_id FROM customers WHERE tenant_id = $1 AND id = w.id)
				WHEN 'contact' THEN (SELECT erp_id FROM contacts WHERE tenant_id = $1 AND id = w.id)
				ELSE (SELECT `+rowKey+` FROM customer_contacts l WHERE l.tenant_id = $1 AND l.id = w.id) END AS erp_id
			FROM wanted w ORDER BY 1, 2`, step.Tenant, step.Run, unaskedMost)
		if err != nil {
			return err
		}
		for _, r := range rows {
			unasked = append(unasked, Lookup{Key: connector.Key{Kind: r.Kind, ID: r.ERPID}, ID: r.ID})
		}
		return extend(ctx, tx, step, 0)
	})
	if err != nil {
		return nil, fmt.Errorf("what to look up: %w", err)
	}
	return unasked, nil
}

// CarryOut ends an approval's run: what is still so goes, in one transaction with the outcome. If the hold was rejected meanwhile
// nothing goes, and the run is cancelled. It has one view, as Finish.
func (s *Store) CarryOut(ctx context.Context, step Step, calls int) (Went, error) {
	var went Went
	err := s.still(ctx, asSync, step.Tenant, func(tx *sqlx.Tx) error {
		if err := goOn(ctx, tx, step); err != nil {
			return err
		}
		status := "succeeded"
		var approved bool
		var hold int64
		err := tx.QueryRowxContext(ctx, `SELECT h.state = 'approved', h.id FROM runs r JOIN holds h ON h.tenant_id = $1 AND h.id = r.hold_id
			WHERE r.tenant_id = $1 AND r.id = $2 FOR UPDATE OF h`, step.Tenant, step.Run).Scan(&approved, &hold)
		switch {
		case err != nil:
			return err
		case !approved:
			status = "cancelled"
		default:
			if err := carryOut(ctx, tx, step); err != nil {
				return err
			}
			if err := rightsDecided(ctx, tx, step.Tenant, hold); err != nil {
				return err
			}
		}
		_, err = tx.ExecContext(ctx, `UPDATE runs SET status = $3, lease_until = NULL, finished_at = now(), erp_calls = erp_calls + $4,
			error_kind = NULL, error = NULL, hint = NULL WHERE tenant_id = $1 AND id = $2`, step.Tenant, step.Run, status, calls)
		if err != nil {
			return err
		}
		return tx.GetContext(ctx, &went, `SELECT deactivated, held FROM runs WHERE tenant_id = $1 AND id = $2`, step.Tenant, step.Run)
	})
	if err != nil {
		return Went{}, fmt.Errorf("carry out hold: %w", err)
	}
	return went, nil
}

// rightsDecided takes changed rights for known, once a person has decided on a hold: all that they hide was found by the last full run
// before the decision, and held. So what goes afterwards meets the brake as ever, though each full run finds somebody to hold. It waits for
// a run that listed as much as any before it, while something is undecided elsewhere, and if something left its hold undecided since that
// run: it was read again, perhaps under other rights.
func rightsDecided(ctx context.Context, tx *sqlx.Tx, tenant, hold int64) error {
	_, err := tx.ExecContext(ctx, `
		WITH full_run AS (
			SELECT r.* FROM holds h JOIN runs r ON r.tenant_id = $1 AND r.connection_id = h.connection_id
			WHERE h.tenant_id = $1 AND h.id = $2 AND r.purpose = 'sync' AND r.mode = 'full' AND NOT r.preview AND r.status = 'succeeded'
				AND r.finished_at <= h.decided_at
			ORDER BY r.id DESC LIMIT 1
		)
		UPDATE connections n SET rights = e.end_rights FROM full_run e
		WHERE n.tenant_id = $1 AND n.id = e.connection_id AND n.rights <> e.end_rights AND e.listed <> '{}' AND NOT `+listedMore+`
			AND NOT EXISTS (SELECT FROM holds h JOIN hold_items i ON i.tenant_id = $1 AND i.hold_id = h.id AND i.left_at > e.finished_at
				WHERE h.tenant_id = $1 AND h.connection_id = n.id)
			AND NOT EXISTS (SELECT FROM holds h JOIN hold_items i ON i.tenant_id = $1 AND i.hold_id = h.id AND i.left_at IS NULL
					AND i.applied_by_run IS NULL
				WHERE h.tenant_id = $1 AND h.connection_id = n.id AND h.id <> $2 AND (h.state = 'open' OR h.state = 'approved'
					AND EXISTS (SELECT FROM runs a WHERE a.tenant_id = $1 AND a.connection_id = n.id AND a.hold_id = h.id
						AND a.status IN ('queued', 'running', 'waiting'))))`, tenant, hold)
	if err != nil {
		return fmt.Errorf("rights: %w", err)
	}
	return nil
}

func carryOut(ctx context.Context, tx *sqlx.Tx, step Step) error {
	// What is remembered, should the approval be taken back, is what the look-ups said.
	var said struct{ kind, reason, evidence []string }
	var ids []int64
	rows, err := tx.QueryContext(ctx, `WITH `+approving+` SELECT kind, id, reason, evidence FROM settled WHERE evidence <> said`, step.Tenant, step.Run)
	if err != nil {
		return fmt.Errorf("evidence: %w", err)
	}
	defer rows.Close()
	for rows.Next() {
		var kind, reason, evidence string
		var id int64
		if err := rows.Scan(&kind, &id, &reason, &evidence); err != nil {
			return fmt.Errorf("evidence: %w", err)
		}
		said.kind, said.reason, said.evidence, ids = append(said.kind, kind), append(said.reason, reason), append(said.evidence, evidence), append(ids, id)
	}
	if err := rows.Err(); err != nil {
		return fmt.Errorf("evidence: %w", err)
	}
	_, err = tx.ExecContext(ctx, `
		UPDATE hold_items i SET reason = s.reason, evidence = s.evidence
		FROM runs r, unnest($3::text[], $4::bigint[], $5::text[], $6::text[]) AS s (kind, id, reason, evidence)
		WHERE r.tenant_id = $1 AND r.id = $2 AND i.tenant_id = $1 AND i.hold_id = r.hold_id AND i.kind = s.kind AND i.entity_id = s.id`,
		step.Tenant, step.Run, said.kind, ids, said.reason, said.evidence)
	if err != nil {
		return fmt.Errorf("note evidence: %w", err)
	}
	if err := deactivate(ctx, tx, step, approving); err != nil {
		return err
	}
	if err := tellOfVanished(ctx, tx, step); err != nil {
		return err
	}
	// What did not go is settled as well: it came back, or could not be read, and a later run finds it again if it is still to go.
	_, err = tx.ExecContext(ctx, `
		UPDATE hold_items i SET applied_by_run = CASE WHEN `+isGone+` THEN $2::bigint END,
			left_at = CASE WHEN NOT `+isGone+` THEN now() END, left_by_run = CASE WHEN NOT `+isGone+` THEN $2::bigint END
		FROM runs r WHERE r.tenant_id = $1 AND r.id = $2 AND i.tenant_id = $1 AND i.hold_id = r.hold_id AND i.left_at IS NULL AND i.applied_by_run IS NULL`,
		step.Tenant, step.Run)
	if err != nil {
		return fmt.Errorf("settle items: %w", err)
	}
	return closeEmptied(ctx, tx, step)
}

// HoldItems are what a hold holds or held, a row for each customer contact: record, reason and evidence, what became of it, and which
// mail it gets now. Of thousands of rows only those asked for are worked out.
func (s *Store) HoldItems(ctx context.Context, h Hold, limit, offset int) (Rows, error) {
	var rows Rows
	err := s.in(ctx, asOps, h.Tenant, func(tx *sqlx.Tx) (err error) {
		rows, err = readRows(ctx, tx, `
			WITH item AS (SELECT * FROM hold_items WHERE tenant_id = $1 AND hold_id = $2), place AS ( -- by kind, each by its own index
				SELECT i.*, l.id, l.customer_id, l.contact_id FROM item i
				LEFT JOIN customer_contacts l ON l.tenant_id = $1 AND l.customer_id = i.entity_id AND l.origin = 'erp' WHERE i.kind = 'customer'
				UNION ALL SELECT i.*, l.id, l.customer_id, l.contact_id FROM item i
				LEFT JOIN customer_contacts l ON l.tenant_id = $1 AND l.contact_id = i.entity_id AND l.origin = 'erp' WHERE i.kind = 'contact'
				UNION ALL SELECT i.*, l.id, l.customer_id, l.contact_id FROM item i
				LEFT JOIN customer_contacts l ON l.tenant_id = $1 AND l.id = i.entity_id WHERE i.kind = 'link'
			), shown AS (
				SELECT p.*, cu.name AS customer_name, cu.erp_id AS customer_erp_id, co.name AS contact_name, co.erp_id AS contact_erp_id
				FROM place p
				LEFT JOIN customers cu ON cu.tenant_id = $1 AND cu.id = coalesce(p.customer_id, CASE p.kind WHEN 'customer' THEN p.entity_id END)
				LEFT JOIN contacts co ON co.tenant_id = $1 AND co.id = coalesce(p.contact_id, CASE p.kind WHEN 'contact' THEN p.entity_id END)
				ORDER BY p.left_at IS NOT NULL, cu.name, cu.id, co.name, p.id, p.kind LIMIT nullif($3, 0) OFFSET $4
			)
			SELECT s.customer_id, s.customer_erp_id, s.customer_name, s.contact_id, s.contact_erp_id, s.contact_name, s.id AS customer_contact_id,
				s.kind AS record_kind, CASE s.kind WHEN 'customer' THEN s.customer_erp_id WHEN 'contact' THEN s.contact_erp_id
					ELSE s.customer_erp_id || '/' || s.contact_erp_id END AS record_erp_id,
				s.reason, s.evidence, s.added_by_run AS added_by_run_id, s.added_at,
				CASE WHEN s.left_at IS NOT NULL THEN 'left' WHEN s.applied_by_run IS NOT NULL THEN 'let go'
					WHEN h.state = 'rejected' THEN 'kept' ELSE 'held' END AS now,
				coalesce(s.left_by_run, s.applied_by_run) AS settled_by_run_id, s.left_at,
				(SELECT string_agg(r.communication_type || ': ' || r.email, ', ' ORDER BY r.communication_type, r.email) FROM recipients r
					WHERE r.tenant_id = $1 AND r.customer_id = s.customer_id AND r.contact_id = s.contact_id) AS mail
			FROM shown s JOIN holds h ON h.tenant_id = $1 AND h.id = $2
			ORDER BY s.left_at IS NOT NULL, s.customer_name, s.customer_id, s.contact_name, s.id, s.kind`, h.Tenant, h.ID, limit, offset)
		return err
	})
	if err != nil {
		return Rows{}, fmt.Errorf("hold %d: %w", h.ID, err)
	}
	return rows, nil
}

// HoldCounts counts what a hold holds by what it is, why it is to go, and what became of it.
func (s *Store) HoldCounts(ctx context.Context, h Hold) (Rows, error) {
	return s.ofHold(ctx, h, `
		SELECT i.kind AS record_kind, i.reason, CASE WHEN i.left_at IS NOT NULL THEN 'left' WHEN i.applied_by_run IS NOT NULL THEN 'let go'
			WHEN h.state = 'rejected' THEN 'kept' ELSE 'held' END AS now, count(*) AS records
		FROM holds h JOIN hold_items i ON i.tenant_id = h.tenant_id AND i.hold_id = h.id WHERE h.tenant_id = $1 AND h.id = $2
		GROUP BY 1, 2, 3 ORDER BY 3, 1, 2`)
}

// HoldMail counts the mail that stops if all that a hold holds goes: addresses, customers, and the customers left without a recipient.
func (s *Store) HoldMail(ctx context.Context, h Hold) (Rows, error) {
	return s.ofHold(ctx, h, `
		WITH item AS (SELECT kind, entity_id, reason FROM hold_items WHERE tenant_id = $1 AND hold_id = $2 AND left_at IS NULL AND applied_by_run IS NULL),
		going AS (
			SELECT l.customer_id, l.contact_id FROM item i JOIN customer_contacts l ON l.tenant_id = $1 AND l.customer_id = i.entity_id
				WHERE i.kind = 'customer'
			UNION SELECT l.customer_id, l.contact_id FROM item i JOIN customer_contacts l ON l.tenant_id = $1 AND l.contact_id = i.entity_id
				WHERE i.kind = 'contact' AND l.origin = 'erp'
			UNION SELECT l.customer_id, l.contact_id FROM item i JOIN customer_contacts l ON l.tenant_id = $1 AND l.id = i.entity_id
				WHERE i.kind = 'link' AND (i.reason <> `+roleGone+` OR NOT EXISTS (SELECT FROM role_choices c WHERE c.tenant_id = $1 AND c.customer_contact_id = l.id))
		), mail AS (
			SELECT r.communication_type, r.customer_id, r.email, g.customer_id IS NOT NULL AND NOT EXISTS (
				-- Somebody who stays at the customer has the same address, as where duplicates were merged: recipients names one of the two.
				SELECT FROM customer_contacts l
				JOIN contacts k ON k.tenant_id = $1 AND k.id = l.contact_id AND k.active
				JOIN effective_roles e ON e.tenant_id = $1 AND e.customer_contact_id = l.id
					AND CASE r.communication_type WHEN 'invoice_presentment' THEN e.invoice_presentment ELSE e.communication_contact END
				JOIN contact_points p ON p.tenant_id = $1 AND p.contact_id = k.id AND p.kind = 'email' AND p.main AND p.usable
					AND lower(p.normalised) = lower(r.email) AND t.today BETWEEN coalesce(p.first_day, '-infinity') AND coalesce(p.last_day, 'infinity')
				WHERE l.tenant_id = $1 AND l.customer_id = r.customer_id AND l.active
					AND (l.customer_id, l.contact_id) NOT IN (SELECT customer_id, contact_id FROM going)) AS stops
			FROM (SELECT (now() AT TIME ZONE time_zone)::date AS today FROM tenants WHERE tenant_id = $1) t
			CROSS JOIN recipients r LEFT JOIN going g ON g.customer_id = r.customer_id AND g.contact_id = r.contact_id
			WHERE r.tenant_id = $1 AND r.customer_id IN (SELECT customer_id FROM going)
		)
		SELECT communication_type, count(*) FILTER (WHERE stops) AS addresses, count(DISTINCT customer_id) FILTER (WHERE stops) AS customers,
			count(DISTINCT customer_id) - count(DISTINCT customer_id) FILTER (WHERE NOT stops) AS left_without_recipient
		FROM mail GROUP BY 1 ORDER BY 1`)
}

func (s *Store) ofHold(ctx context.Context, h Hold, query string) (Rows, error) {
	var rows Rows
	err := s.in(ctx, asOps, h.Tenant, func(tx *sqlx.Tx) (err error) {
		rows, err = readRows(ctx, tx, query, h.Tenant, h.ID)
		return err
	})
	if err != nil {
		return Rows{}, fmt.Errorf("hold %d: %w", h.ID, err)
	}
	return rows, nil
}

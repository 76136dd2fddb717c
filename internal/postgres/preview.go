package postgres

import (
	"bytes"
	"context"
	"database/sql"
	"encoding/gob"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/jmoiron/sqlx"
	"github.com/lib/pq"

	"github.com/centime/contactsync/internal/connector"
	"github.com/centime/contactsync/internal/reconcile"
	"github.com/centime/contactsync/internal/settings"
)

// The report of a preview, as listings to be filtered by tenant and run.
var (
	Previews      = Listing{`SELECT tenant_id, run_id, compared_at, hold_cause FROM previews`, "run_id"}
	PreviewCounts = Listing{`
		SELECT tenant_id, run_id, what, entity, count(*) AS records, count(DISTINCT customer_erp_id) AS customers FROM preview_changes
		GROUP BY tenant_id, run_id, what, entity`, "what, entity"}
	PreviewMailCounts = Listing{`
		SELECT tenant_id, run_id, starts, communication_type, count(*) AS addresses, count(DISTINCT customer_erp_id) AS customers,
			count(DISTINCT customer_erp_id) FILTER (WHERE last) AS left_without FROM preview_mail
		GROUP BY tenant_id, run_id, starts, communication_type`, "starts, communication_type"}
	PreviewChanges = Listing{`
		SELECT tenant_id, run_id, place, what, entity, customer_erp_id, customer_name, contact_erp_id, contact_name, field, was, became, reason
		FROM preview_changes`, "place"}
	PreviewMail = Listing{`
		SELECT tenant_id, run_id, place, starts, communication_type, customer_erp_id, customer_name, contact_name, email, last FROM preview_mail`, "place"}
)

// QueuePreview queues a preview. It is a run of its own: it joins nothing and nothing joins it.
func (s *Store) QueuePreview(ctx context.Context, q Request) (run int64, err error) {
	err = s.in(ctx, asOps, q.Tenant, func(tx *sqlx.Tx) error {
		if err := lockForQueue(ctx, tx, q); err != nil {
			return err
		}
		err := tx.GetContext(ctx, &run, `
			INSERT INTO runs (tenant_id, connection_id, mode, trigger, requested_by, reason, preview) VALUES ($1, $2, $3, $4, $5, $6, true) RETURNING id`,
			q.Tenant, q.Connection, q.Mode, q.Trigger, q.By, q.Reason)
		if err != nil {
			return err
		}
		return keepRequest(ctx, tx, run, q)
	})
	if err != nil {
		return 0, fmt.Errorf("queue preview of connection %d: %w", q.Connection, err)
	}
	return run, nil
}

// SavePreviewPage keeps a page as it was read, with the checkpoint, and touches nothing else.
func (s *Store) SavePreviewPage(ctx context.Context, step Step, page connector.Page, calls int) error {
	return s.keepPage(ctx, step, page, nil, calls)
}

// SavePreviewLookup keeps what a look-up of missing records found.
func (s *Store) SavePreviewLookup(ctx context.Context, step Step, asked []Lookup, found connector.Page, calls int) error {
	keys := []string{}
	for _, a := range asked {
		keys = append(keys, string(a.Key.Kind)+":"+a.Key.ID)
	}
	return s.keepPage(ctx, step, found, keys, calls)
}

func (s *Store) keepPage(ctx context.Context, step Step, page connector.Page, asked []string, calls int) error {
	var body bytes.Buffer
	if err := gob.NewEncoder(&body).Encode(page); err != nil {
		return fmt.Errorf("keep page: %w", err)
	}
	err := s.in(ctx, asSync, step.Tenant, func(tx *sqlx.Tx) error {
		w := pageWriter{tx: tx, step: step}
		if err := w.goOn(ctx); err != nil {
			return err
		}
		_, err := tx.ExecContext(ctx, `INSERT INTO preview_pages (tenant_id, run_id, page, body, asked) VALUES ($1, $2, $3, $4, $5)`,
			step.Tenant, step.Run, w.page, body.Bytes(), some(asked))
		if err != nil {
			return err
		}
		_, err = tx.ExecContext(ctx, `
			UPDATE runs SET pages = $3, erp_calls = erp_calls + $4, attempts = 0, throttled_since = NULL, error_kind = NULL, error = NULL, hint = NULL,
				checkpoint = CASE WHEN $5 = '' THEN checkpoint ELSE $5 END, checkpoint_at = now(), pulled = pulled OR $6,
				lease_until = clock_timestamp() + $7 * interval '1 microsecond'
			WHERE tenant_id = $1 AND id = $2`, step.Tenant, step.Run, w.page, calls, string(page.Next), page.End != nil, step.Lease.Microseconds())
		return err
	})
	if err != nil {
		return fmt.Errorf("keep page: %w", err)
	}
	step.saved(page)
	return nil
}

// Rehearse carries out what a preview has read, by the code of a run and in one transaction that is undone, and reports what
// that did. If something is to be looked up first, nothing is reported yet.
//
// Before and after are compared in one snapshot: what people change meanwhile, such as a mapping, is in neither. The preview's
// own row stays unlocked, so that its heartbeat goes on; the report and the end of the run are one other transaction.
func (s *Store) Rehearse(ctx context.Context, step Step, limits settings.Settings, lookups bool, calls int) (End, error) {
	var done End
	err := s.still(ctx, asApp, step.Tenant, func(tx *sqlx.Tx) error {
		r := rehearsal{tx: tx, step: step}
		if err := r.begin(ctx); err != nil {
			return err
		}
		missing, err := r.replay(ctx, limits, lookups)
		if err != nil {
			return fmt.Errorf("page %d: %w", r.page, err)
		}
		done = End{Missing: missing, Cause: r.cause}
		if len(missing) == 0 {
			if err := s.once(ctx, asSync, step.Tenant, func(out *sqlx.Tx) error { return r.report(ctx, out, calls) }); err != nil {
				return fmt.Errorf("report: %w", err)
			}
			done.Went = r.outcome.Went
		}
		return errRehearsed
	})
	if err != nil && !errors.Is(err, errRehearsed) {
		return End{}, fmt.Errorf("rehearse: %w", err)
	}
	return done, nil
}

// rehearsal is one transaction that is undone.
type rehearsal struct {
	tx    *sqlx.Tx
	step  Step // of the preview
	stage Step // of the run that stands in for it
	page  int  // that is replayed

	at      time.Time
	cause   string // why what goes is held
	met     []connector.ERPRole
	outcome struct {
		Created   int `db:"created"`
		Updated   int `db:"updated"`
		Unchanged int `db:"unchanged"`
		Ignored   int `db:"ignored"`
		Refused   int `db:"refused"`
		WithIssue int `db:"with_issue"`
		Went
	}
}

// become takes another database role: recipients depend on role choices, which the sync may not read.
func (r *rehearsal) become(ctx context.Context, as actor) error {
	_, err := r.tx.ExecContext(ctx, `SELECT set_config('role', $1, true)`, string(as))
	return err
}

// begin makes the run that stands in for the preview, and keeps the recipients as they are before.
func (r *rehearsal) begin(ctx context.Context) error {
	r.stage = r.step
	r.stage.Fencing, r.stage.Lease, r.stage.progress = 1, 24*time.Hour, &progress{}
	err := r.tx.GetContext(ctx, &r.stage.Run, `
		INSERT INTO runs (tenant_id, connection_id, mode, trigger, purpose, status, fencing, lease_until, since_cursor, listing_began_at,
			started_at)
		SELECT tenant_id, connection_id, mode, trigger, 'rehearsal', 'running', 1, 'infinity', since_cursor, listing_began_at, started_at
		FROM runs WHERE tenant_id = $1 AND id = $2 AND fencing = $3 AND status = 'running' RETURNING id`, r.step.Tenant, r.step.Run, r.step.Fencing)
	if errors.Is(err, sql.ErrNoRows) {
		return ErrLeaseLost
	}
	if err != nil {
		return err
	}
	if err := r.tx.GetContext(ctx, &r.at, `SELECT now()`); err != nil {
		return err
	}
	return r.snapshot(ctx, "before")
}

func (r *rehearsal) snapshot(ctx context.Context, when string) error {
	if err := nestedLoops(ctx, r.tx, "off"); err != nil {
		return err
	}
	if _, err := r.tx.ExecContext(ctx, mailSnapshot(when, "AND connection_id = $2"), r.step.Tenant, r.step.Connection); err != nil {
		return fmt.Errorf("recipients %s: %w", when, err)
	}
	return nestedLoops(ctx, r.tx, "on")
}

// replay saves all pages and finishes, as the sync.
func (r *rehearsal) replay(ctx context.Context, limits settings.Settings, lookups bool) (missing []Lookup, err error) {
	if err := r.become(ctx, asSync); err != nil {
		return nil, err
	}
	for r.page = 1; ; r.page++ {
		more, err := r.replayPage(ctx)
		if err != nil {
			return nil, err
		}
		if !more {
			break
		}
	}
	v, err := weigh(ctx, r.tx, r.stage, limits, lookups)
	if err != nil || len(v.missing) > 0 {
		return v.missing, err
	}
	r.cause = v.cause
	for _, role := range r.met {
		id, err := roleForNewKey(ctx, r.tx, r.stage, role)
		if err != nil {
			return nil, err
		}
		_, err = r.tx.ExecContext(ctx, `UPDATE role_mappings SET role_id = $4 WHERE tenant_id = $1 AND connection_id = $2 AND erp_role_key = $3`,
			r.step.Tenant, r.step.Connection, role.Key, id)
		if err != nil {
			return nil, err
		}
	}
	if err := conclude(ctx, r.tx, r.stage, v); err != nil {
		return nil, err
	}
	return nil, r.tx.GetContext(ctx, &r.outcome, `SELECT created, updated, unchanged, ignored, refused, with_issue, deactivated, held FROM runs
		WHERE tenant_id = $1 AND id = $2`, r.step.Tenant, r.stage.Run)
}

func (r *rehearsal) replayPage(ctx context.Context) (more bool, err error) {
	var kept struct {
		Body  []byte         `db:"body"`
		Asked pq.StringArray `db:"asked"`
	}
	err = r.tx.GetContext(ctx, &kept, `SELECT body, asked FROM preview_pages WHERE tenant_id = $1 AND run_id = $2 AND page = $3`,
		r.step.Tenant, r.step.Run, r.page)
	if errors.Is(err, sql.ErrNoRows) {
		return false, nil
	}
	if err != nil {
		return false, err
	}
	var page connector.Page
	if err := gob.NewDecoder(bytes.NewReader(kept.Body)).Decode(&page); err != nil {
		return false, err
	}
	w := pageWriter{tx: r.tx, step: r.stage, later: &r.met}
	if len(kept.Asked) == 0 {
		err := w.savePage(ctx, reconcile.Read(page), 0)
		r.stage.saved(page)
		r.stage.savedNamed(&w)
		return true, err
	}
	asked, err := r.asked(ctx, kept.Asked)
	if err != nil {
		return false, err
	}
	return true, w.saveLookup(ctx, asked, page, 0)
}

// asked finds our ids of what was looked up.
func (r *rehearsal) asked(ctx context.Context, keys []string) ([]Lookup, error) {
	n := len(keys)
	asked := make([]Lookup, 0, n)
	kinds, customers, contacts := make([]string, n), make([]string, n), make([]string, n)
	for i, key := range keys {
		kind, id, _ := strings.Cut(key, ":")
		switch kinds[i] = kind; connector.Kind(kind) {
		case connector.Customers:
			customers[i] = id
		case connector.Contacts:
			contacts[i] = id
		case connector.Links:
			customers[i], contacts[i], _ = strings.Cut(id, "/")
		}
	}
	var rows []struct {
		At int   `db:"at"`
		ID int64 `db:"id"`
	}
	err := r.tx.SelectContext(ctx, &rows, `
		SELECT k.at, coalesce(l.id, cu.id, co.id) AS id
		FROM unnest($3::text[], $4::text[], $5::text[]) WITH ORDINALITY AS k (kind, customer, contact, at)
		LEFT JOIN LATERAL (SELECT id FROM customers c WHERE c.tenant_id = $1 AND c.connection_id = $2 AND c.erp_id = k.customer OFFSET 0) cu ON true
		LEFT JOIN LATERAL (SELECT id FROM contacts c WHERE c.tenant_id = $1 AND c.connection_id = $2 AND c.erp_id = k.contact OFFSET 0) co ON true
		LEFT JOIN LATERAL (SELECT id FROM customer_contacts c
			WHERE c.tenant_id = $1 AND c.customer_id = cu.id AND c.contact_id = co.id OFFSET 0) l ON true
		WHERE CASE k.kind WHEN 'customer' THEN cu.id WHEN 'contact' THEN co.id ELSE l.id END IS NOT NULL`,
		r.step.Tenant, r.step.Connection, pq.Array(kinds), pq.Array(customers), pq.Array(contacts))
	for _, row := range rows {
		kind, id, _ := strings.Cut(keys[row.At-1], ":")
		asked = append(asked, Lookup{Key: connector.Key{Kind: connector.Kind(kind), ID: id}, ID: row.ID})
	}
	return asked, err
}

// did is what the rehearsed run changed, from $1 tenant, $2 run, $3 connection: what it created bears its number, and the rest
// is in the history of this moment. What a customer's own record is comes and goes with the customer, and is not told twice.
const did = `
	SELECT 'customer' AS entity, id AS customer_id, NULL::bigint AS contact_id, 'created' AS what, NULL::text AS field, NULL::text AS was,
		NULL::text AS became, NULL::text AS reason
	FROM customers WHERE tenant_id = $1 AND connection_id = $3 AND created_by_run = $2
	UNION ALL
	SELECT 'contact', NULL, id, 'created', NULL, NULL, NULL, NULL
	FROM contacts WHERE tenant_id = $1 AND connection_id = $3 AND created_by_run = $2 AND erp_id NOT LIKE 'customer:%'
	UNION ALL
	SELECT 'customer_contact', l.customer_id, l.contact_id, 'created', NULL, NULL, m.erp_role_name, NULL
	FROM customer_contacts l JOIN contacts o ON o.tenant_id = $1 AND o.id = l.contact_id AND o.erp_id NOT LIKE 'customer:%'
	LEFT JOIN role_mappings m ON m.tenant_id = $1 AND m.connection_id = $3 AND m.erp_role_key = l.erp_role_key
	WHERE l.tenant_id = $1 AND l.connection_id = $3 AND l.created_by_run = $2
	UNION ALL
	SELECT h.entity, coalesce(l.customer_id, CASE h.entity WHEN 'customer' THEN h.entity_id END),
		coalesce(l.contact_id, CASE h.entity WHEN 'contact' THEN h.entity_id END),
		CASE WHEN h.field = 'active' AND h.became = 'false' THEN 'deactivated' ELSE 'changed' END, h.field, h.was, h.became, nullif(h.reason, '')
	FROM history h LEFT JOIN customer_contacts l ON h.entity = 'customer_contact' AND l.tenant_id = $1 AND l.id = h.entity_id
	WHERE h.tenant_id = $1 AND h.at = now() AND h.run_id = $2 AND NOT (h.entity = 'contact' AND h.field = 'active'
		AND EXISTS (SELECT FROM contacts o WHERE o.tenant_id = $1 AND o.id = h.entity_id AND o.erp_id LIKE 'customer:%'))
	UNION ALL
	SELECT CASE i.kind WHEN 'link' THEN 'customer_contact' ELSE i.kind END, coalesce(l.customer_id, cu.id), coalesce(l.contact_id, co.id),
		'released', NULL, NULL, NULL, i.reason
	FROM holds h JOIN hold_items i ON i.tenant_id = $1 AND i.hold_id = h.id AND i.left_by_run = $2
	LEFT JOIN customers cu ON i.kind = 'customer' AND cu.tenant_id = $1 AND cu.id = i.entity_id
	LEFT JOIN contacts co ON i.kind = 'contact' AND co.tenant_id = $1 AND co.id = i.entity_id
	LEFT JOIN customer_contacts l ON i.kind = 'link' AND l.tenant_id = $1 AND l.id = i.entity_id
	WHERE h.tenant_id = $1 AND h.connection_id = $3 AND coalesce(cu.active, co.active, l.active)
		AND NOT (i.reason = ` + roleGone + ` AND NOT 'link' = ANY (l.stated_by))`

// keeps is what the rehearsed run would hold.
const keeps = `
	UNION ALL SELECT 'customer', id, NULL, 'held', NULL, NULL, NULL, reason FROM going_customer
	UNION ALL SELECT 'contact', NULL, id, 'held', NULL, NULL, NULL, reason FROM going_contact WHERE NOT own
	UNION ALL SELECT 'customer_contact', l.customer_id, l.contact_id, 'held', NULL, NULL, NULL, 'detached'
	FROM going_link g JOIN customer_contacts l ON l.tenant_id = $1 AND l.id = g.id
	UNION ALL SELECT 'customer_contact', l.customer_id, l.contact_id, 'held', 'erp_role', l.erp_role_key, NULL, ` + roleGone + `
	FROM going_role g JOIN customer_contacts l ON l.tenant_id = $1 AND l.id = g.id`

// report writes what the rehearsal did, and ends the preview. Rows go from one transaction to the other a batch at a time, since
// a first load's are as many as the company's customers.
func (r *rehearsal) report(ctx context.Context, out *sqlx.Tx, calls int) error {
	// An erasure that has the preview's row may wait for what this rehearsal has written.
	if _, err := out.ExecContext(ctx, `SET LOCAL lock_timeout = '2s'`); err != nil {
		return err
	}
	_, err := out.ExecContext(ctx, `INSERT INTO previews (tenant_id, run_id, compared_at, hold_cause) VALUES ($1, $2, $3, nullif($4, ''))`,
		r.step.Tenant, r.step.Run, r.at, r.cause)
	if err != nil {
		return err
	}
	if _, err := out.ExecContext(ctx, `SET LOCAL lock_timeout = 0`); err != nil { // one that comes now waits for the report
		return err
	}
	place, err := r.roles(ctx, out)
	if err != nil {
		return err
	}
	with, rows := "", did
	if r.cause != "" {
		with, rows = going+",", did+keeps
	}
	columns := []string{"entity", "what", "customer_erp_id", "customer_name", "contact_erp_id", "contact_name", "field", "was", "became", "reason"}
	err = r.copyOut(ctx, out, "preview_changes", columns, place, `WITH `+with+` did AS (`+rows+`)
		SELECT d.entity, d.what, cu.erp_id, cu.name, co.erp_id, co.name, d.field, d.was, d.became, d.reason
		FROM did d LEFT JOIN contacts co ON co.tenant_id = $1 AND co.id = d.contact_id
		LEFT JOIN customers cu ON cu.tenant_id = $1 AND cu.id = CASE WHEN d.entity <> 'contact' THEN d.customer_id ELSE (
			SELECT min(l.customer_id) FROM customer_contacts l WHERE l.tenant_id = $1 AND l.contact_id = d.contact_id) END
		ORDER BY cu.name, cu.erp_id, co.erp_id NULLS FIRST, d.entity, d.field, d.was`, r.step.Tenant, r.stage.Run, r.step.Connection)
	if err != nil {
		return fmt.Errorf("changes: %w", err)
	}
	if err := r.become(ctx, asApp); err != nil {
		return err
	}
	if err := r.snapshot(ctx, "after"); err != nil {
		return err
	}
	if err := nestedLoops(ctx, r.tx, "off"); err != nil {
		return err
	}
	columns = []string{"starts", "communication_type", "customer_erp_id", "customer_name", "contact_name", "email", "last"}
	err = r.copyOut(ctx, out, "preview_mail", columns, 0, compared+`
		SELECT d.starts, d.communication_type, cu.erp_id, cu.name, co.name, d.email, NOT d.starts AND NOT EXISTS (SELECT FROM mail_after a
			WHERE a.customer_id = d.customer_id AND a.communication_type = d.communication_type)
		FROM differs d JOIN customers cu ON cu.tenant_id = $1 AND cu.id = d.customer_id JOIN contacts co ON co.tenant_id = $1 AND co.id = d.contact_id
		ORDER BY d.starts, cu.name, cu.erp_id, d.communication_type, d.email`, r.step.Tenant)
	if err != nil {
		return fmt.Errorf("mail: %w", err)
	}
	if err := lockRun(ctx, out, r.step); err != nil {
		return err
	}
	o := r.outcome
	ended, err := out.ExecContext(ctx, `
		UPDATE runs SET status = 'succeeded', lease_until = NULL, finished_at = now(), erp_calls = erp_calls + $3, error_kind = NULL, error = NULL,
			hint = NULL, created = $4, updated = $5, unchanged = $6, ignored = $7, refused = $8, with_issue = $9, deactivated = $10, held = $11
		WHERE tenant_id = $1 AND id = $2 AND NOT cancel_requested`, r.step.Tenant, r.step.Run, calls, o.Created, o.Updated, o.Unchanged, o.Ignored,
		o.Refused, o.WithIssue, o.Deactivated, o.Held)
	if err != nil {
		return err
	}
	if n, err := ended.RowsAffected(); n == 0 || err != nil {
		return errors.Join(ErrCancelled, err) // perhaps since a person was erased whom the report may name
	}
	return nil
}

// roles reports the ERP roles met first, and what each would become.
func (r *rehearsal) roles(ctx context.Context, out *sqlx.Tx) (place int, err error) {
	for _, role := range r.met {
		var name sql.NullString
		err := r.tx.GetContext(ctx, &name, `
			SELECT r.name FROM role_mappings m LEFT JOIN roles r ON r.tenant_id = m.tenant_id AND r.id = m.role_id
			WHERE m.tenant_id = $1 AND m.connection_id = $2 AND m.erp_role_key = $3`, r.step.Tenant, r.step.Connection, role.Key)
		if err != nil {
			return place, err
		}
		reason := sql.NullString{String: reasonNoRoleRoom, Valid: !name.Valid}
		place++
		_, err = out.ExecContext(ctx, `
			INSERT INTO preview_changes (tenant_id, run_id, place, entity, what, field, became, reason) VALUES ($1, $2, $3, 'role_mapping', 'created', $4, $5, $6)`,
			r.step.Tenant, r.step.Run, place, "role of ERP role "+role.Name, name, reason)
		if err != nil {
			return place, err
		}
	}
	return place, nil
}

// copyOut writes the rows of a query to a table of the report, numbered from place on.
func (r *rehearsal) copyOut(ctx context.Context, out *sqlx.Tx, table string, columns []string, place int, query string, args ...any) error {
	if _, err := r.tx.ExecContext(ctx, `DECLARE report NO SCROLL CURSOR FOR `+query, args...); err != nil {
		return err
	}
	for {
		values, n, err := fetch(ctx, r.tx, len(columns))
		if err != nil {
			return err
		}
		if n == 0 {
			_, err := r.tx.ExecContext(ctx, `CLOSE report`)
			return err
		}
		if err := insertRows(ctx, out, table, columns, r.step, place, values); err != nil {
			return err
		}
		place += n
	}
}

// fetch reads the next batch of the report, column by column.
func fetch(ctx context.Context, tx *sqlx.Tx, columns int) (values [][]sql.NullString, n int, err error) {
	rows, err := tx.QueryContext(ctx, `FETCH 1000 FROM report`)
	if err != nil {
		return nil, 0, err
	}
	defer rows.Close()
	values = make([][]sql.NullString, columns)
	for ; rows.Next(); n++ {
		row := make([]any, columns)
		for i := range values {
			values[i] = append(values[i], sql.NullString{})
			row[i] = &values[i][n]
		}
		if err := rows.Scan(row...); err != nil {
			return nil, 0, err
		}
	}
	return values, n, rows.Err()
}

func insertRows(ctx context.Context, out *sqlx.Tx, table string, columns []string, step Step, place int, values [][]sql.NullString) error {
	args := []any{step.Tenant, step.Run, place}
	arrays, fields := make([]string, len(columns)), make([]string, len(columns))
	for i, column := range columns {
		args = append(args, pq.Array(values[i]))
		arrays[i], fields[i] = fmt.Sprintf("$%d::text[]", i+4), "p."+column
		if column == "starts" || column == "last" {
			fields[i] += "::boolean"
		}
	}
	_, err := out.ExecContext(ctx, fmt.Sprintf(`
		INSERT INTO %s (tenant_id, run_id, place, %s) SELECT $1, $2, $3 + p.n, %s FROM unnest(%s) WITH ORDINALITY AS p (%s, n)`, table,
		strings.Join(columns, ", "), strings.Join(fields, ", "), strings.Join(arrays, ", "), strings.Join(columns, ", ")), args...)
	return err
}

package postgres

import (
	"context"
	"fmt"
	"strings"
	"time"

	"github.com/jmoiron/sqlx"

	"github.com/centime/contactsync/internal/connector"
)

// Rows are rows of a view, for people: columns in the view's order.
type Rows struct {
	Columns []string
	Values  [][]any // string, bool, int64, time.Time or nil
}

// A Listing is a view that can be listed, with the filters it takes.
type Listing struct {
	query string
	order string
}

// What can be listed. Ids are bigint and end in _id.
var (
	Tenants     = Listing{`SELECT tenant_id, name, time_zone, role_count AS roles, created_at FROM tenants`, "tenant_id"}
	Connections = Listing{`SELECT * FROM connection_status`, "tenant_id, connection_id"}
	Runs        = Listing{`SELECT * FROM run_history`, "run_id DESC"}
	Customers   = Listing{`SELECT * FROM customer_directory`, "tenant_id, name, customer_id"}
	Contacts    = Listing{`SELECT * FROM contact_directory`, "tenant_id, customer_name, name, customer_contact_id"}
	Recipients  = Listing{`SELECT * FROM recipients`, "tenant_id, customer_id, communication_type, email"}
	Roles       = Listing{`
		SELECT r.tenant_id, r.id AS role_id, r.name AS role, r.invoice_presentment, r.communication_contact,
			(SELECT string_agg(DISTINCT n.erp || ': ' || m.erp_role_name, ', ') FROM role_mappings m
				JOIN connections n ON n.tenant_id = m.tenant_id AND n.id = m.connection_id
				WHERE m.tenant_id = r.tenant_id AND m.role_id = r.id) AS erp_roles,
			(SELECT count(*) FROM effective_roles e WHERE e.tenant_id = r.tenant_id AND e.role_id = r.id) AS customer_contacts
		FROM roles r`, "tenant_id, role"}
	Issues = Listing{`
		SELECT i.tenant_id, i.id AS issue_id, i.connection_id, i.record_kind, i.record_id AS record_erp_id, i.field, i.reason, i.count, i.opened_at,
			i.opened_by_run AS opened_by_run_id FROM issues i WHERE i.closed_at IS NULL`, "connection_id, issue_id"}
	Held = Listing{`
		SELECT h.tenant_id, h.id AS hold_id, h.connection_id, h.cause, h.opened_at, h.opened_by_run AS opened_by_run_id, i.kind, i.reason, i.added_at,
			coalesce(cu.erp_id, co.erp_id, lc.erp_id) AS record_erp_id, coalesce(cu.name, co.name, lc.name) AS name
		FROM holds h JOIN hold_items i ON i.tenant_id = h.tenant_id AND i.hold_id = h.id AND i.left_at IS NULL
		LEFT JOIN customers cu ON i.kind = 'customer' AND cu.tenant_id = i.tenant_id AND cu.id = i.entity_id
		LEFT JOIN contacts co ON i.kind = 'contact' AND co.tenant_id = i.tenant_id AND co.id = i.entity_id
		LEFT JOIN customer_contacts cc ON i.kind = 'link' AND cc.tenant_id = i.tenant_id AND cc.id = i.entity_id
		LEFT JOIN contacts lc ON lc.tenant_id = cc.tenant_id AND lc.id = cc.contact_id
		WHERE h.state = 'open'`, "hold_id, kind, name"}
	// Holds are all there were; records are those that wait, or that a rejection remembers.
	Holds = Listing{`
		SELECT h.tenant_id, h.id AS hold_id, h.connection_id, n.name AS connection, h.state, i.records, h.opened_at, h.opened_by_run AS opened_by_run_id,
			h.cause, h.decided_by, h.decided_at, h.decision_reason, r.id AS approval_run_id, r.status AS approval_status
		FROM holds h JOIN connections n ON n.tenant_id = h.tenant_id AND n.id = h.connection_id
		CROSS JOIN LATERAL (SELECT count(*) AS records FROM hold_items i WHERE i.tenant_id = h.tenant_id AND i.hold_id = h.id
			AND i.left_at IS NULL AND i.applied_by_run IS NULL) i
		LEFT JOIN LATERAL (SELECT id, status FROM runs WHERE tenant_id = h.tenant_id AND hold_id = h.id ORDER BY id DESC LIMIT 1) r ON true`,
		"state <> 'open', hold_id DESC"}
	// LeftBare are the customers that a run left without a recipient, those that are active first; why is as it is now.
	LeftBare = Listing{`
		SELECT b.tenant_id, b.run_id, b.customer_id, c.erp_id AS customer_erp_id, c.name AS customer_name, b.communication_type, c.active,
			coalesce(w.why, 'has a recipient again') AS why
		FROM left_bare b JOIN customers c ON c.tenant_id = b.tenant_id AND c.id = b.customer_id
		LEFT JOIN customers_without_recipient w ON w.tenant_id = b.tenant_id AND w.customer_id = b.customer_id
			AND w.communication_type = b.communication_type`, "run_id, active DESC, customer_name, customer_id, communication_type"}
	Points = Listing{`
		SELECT tenant_id, contact_id, kind, field, place, value, normalised, main, is_primary, usable, first_day::text, last_day::text
		FROM contact_points`,
		"contact_id, kind, field, place"}
	Requests = Listing{`SELECT tenant_id, run_id, requested_at, mode, trigger, requested_by, reason FROM run_requests`, "run_id, requested_at"}
)

// Filter keeps rows whose column has a value; Contains compares text without case.
type Filter struct {
	Column   string
	Value    any
	Contains bool
}

// List reads a listing with all its filters. Limit 0 means all rows.
func (s *Store) List(ctx context.Context, l Listing, limit, offset int, filters ...Filter) (Rows, error) {
	query, args := "SELECT * FROM ("+l.query+") AS l", []any{}
	var where []string
	for _, f := range filters {
		args = append(args, f.Value)
		if f.Contains {
			where = append(where, fmt.Sprintf(`position(lower($%d) in lower(l.%s)) > 0`, len(args), f.Column))
		} else {
			where = append(where, fmt.Sprintf(`l.%s = $%d`, f.Column, len(args)))
		}
	}
	if len(where) > 0 {
		query += " WHERE " + strings.Join(where, " AND ")
	}
	query += " ORDER BY " + l.order
	if limit > 0 {
		query += fmt.Sprintf(" LIMIT %d OFFSET %d", limit, offset)
	}
	var out Rows
	err := s.in(ctx, asOps, anyTenant, func(tx *sqlx.Tx) (err error) {
		out, err = readRows(ctx, tx, query, args...)
		return err
	})
	if err != nil {
		return Rows{}, fmt.Errorf("list: %w", err)
	}
	return out, nil
}

func readRows(ctx context.Context, tx *sqlx.Tx, query string, args ...any) (Rows, error) {
	rows, err := tx.QueryxContext(ctx, query, args...)
	if err != nil {
		return Rows{}, err
	}
	defer rows.Close()
	var out Rows
	if out.Columns, err = rows.Columns(); err != nil {
		return Rows{}, err
	}
	for rows.Next() {
		values, err := rows.SliceScan()
		if err != nil {
			return Rows{}, err
		}
		for i, v := range values {
			switch v := v.(type) {
			case []byte:
				values[i] = string(v)
			case time.Time:
				values[i] = v.UTC()
			}
		}
		out.Values = append(out.Values, values)
	}
	return out, rows.Err()
}

// RunState is a run as it goes on, for whoever waits for it.
type RunState struct {
	ID         int64      `db:"id"`
	Tenant     int64      `db:"tenant_id"`
	Connection int64      `db:"connection_id"`
	Name       string     `db:"name"`
	ERP        string     `db:"erp"`
	Mode       Mode       `db:"mode"`
	Purpose    Purpose    `db:"purpose"`
	Preview    bool       `db:"preview"`
	Pages      int64      `db:"pages"`
	Status     string     `db:"status"`
	Read       int64      `db:"read"`
	Created    int64      `db:"created"`
	Updated    int64      `db:"updated"`
	Unchanged  int64      `db:"unchanged"`
	Ignored    int64      `db:"ignored"`
	Refused    int64      `db:"refused"`
	WithIssue  int64      `db:"with_issue"`
	Gone       int64      `db:"deactivated"`
	Held       int64      `db:"held"`  // customer contacts
	Holds      bool       `db:"holds"` // it held something, be it a contact at no customer
	LeftBare   int64      `db:"left_bare"`
	Calls      int64      `db:"erp_calls"`
	Claims     int64      `db:"fencing"`
	ErrorKind  *string    `db:"error_kind"`
	Error      *string    `db:"error"`
	Hint       *string    `db:"hint"`
	NotBefore  *time.Time `db:"not_before"`
	QueuedAt   time.Time  `db:"queued_at"`
	StartedAt  *time.Time `db:"started_at"`
	FinishedAt *time.Time `db:"finished_at"`
	Now        time.Time  `db:"now"`
	State      string     `db:"state"`
}

// Over says whether the run has ended, one way or another.
func (r RunState) Over() bool {
	return r.Status == "succeeded" || r.Status == "failed" || r.Status == "cancelled"
}

// Denied says whether the run ended because a person must act on the connection.
func (r RunState) Denied() bool {
	return r.ErrorKind != nil && *r.ErrorKind == string(connector.Denied)
}

// Run reads one run.
func (s *Store) Run(ctx context.Context, id int64) (RunState, error) {
	var r RunState
	err := s.in(ctx, asOps, anyTenant, func(tx *sqlx.Tx) error {
		return notFound(tx.GetContext(ctx, &r, `
			SELECT r.id, r.tenant_id, r.connection_id, n.name, n.erp, r.mode, r.purpose, r.preview, r.pages, r.status, r.read, r.created, r.updated,
				r.unchanged, r.ignored, r.refused, r.with_issue, r.deactivated, r.held, r.left_bare, r.erp_calls, r.fencing, r.error_kind, r.error,
				r.hint, r.not_before, r.queued_at, r.started_at, r.finished_at,
				now() AS now, n.state, r.held > 0 OR EXISTS (SELECT FROM holds h JOIN hold_items i ON i.tenant_id = h.tenant_id AND i.hold_id = h.id
					AND i.left_at IS NULL AND i.added_by_run = r.id
					WHERE h.tenant_id = r.tenant_id AND h.connection_id = r.connection_id AND h.state = 'open') AS holds
			FROM runs r JOIN connections n ON n.tenant_id = r.tenant_id AND n.id = r.connection_id WHERE r.id = $1`, id), "run")
	})
	if err != nil {
		return RunState{}, fmt.Errorf("read run %d: %w", id, err)
	}
	return r, nil
}

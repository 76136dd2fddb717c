package postgres

import (
	"context"
	"fmt"
	"time"

	"github.com/jmoiron/sqlx"
)

// keepPages is how long the pages of a finished run stay. While the run is unfinished they say what was seen; after it failed
// the next run may take them over for 24 h (takeOver). Then nobody reads them.
const keepPages = 48 * time.Hour

// Keep says how long what is over stays. Neither may be shorter than 48 hours: the brake counts the runs of a day, and the
// next run may continue a failed one.
type Keep struct {
	Quiet time.Duration // runs that succeeded and changed nothing
	Runs  time.Duration // other finished runs, history, closed issues, and the calls of past months
}

// Removed counts rows by what they were: runs, pages, history, issues, call_counts.
type Removed map[string]int

// Any says whether a row was removed, so that there may be more.
func (r Removed) Any() bool { return len(r) > 0 }

// quiet is a run that changed nothing and met nothing that a person may ask about.
const quiet = `r.status = 'succeeded' AND r.created = 0 AND r.updated = 0 AND r.refused = 0 AND r.with_issue = 0 AND r.deactivated = 0
	AND r.held = 0 AND r.roles_lost = 0`

// removeRuns removes finished runs older than $1, with who asked for them and what pages are left of them. What stays at any
// age: the last finished run of a connection, and one that an open hold or an open issue names.
func removeRuns(which string) string {
	return `
		WITH picked AS (
			SELECT r.tenant_id, r.id FROM runs r
			WHERE r.finished_at < now() - $1 * interval '1 microsecond' AND ` + which + `
				AND r.id < (SELECT l.id FROM runs l WHERE l.connection_id = r.connection_id AND l.finished_at >= r.finished_at AND NOT l.preview
					ORDER BY l.id DESC LIMIT 1)
				AND r.id NOT IN (SELECT opened_by_run FROM issues WHERE closed_at IS NULL AND opened_by_run IS NOT NULL
					UNION SELECT opened_by_run FROM holds WHERE state = 'open')
				AND NOT (r.preview AND (EXISTS (SELECT FROM preview_changes c WHERE c.tenant_id = r.tenant_id AND c.run_id = r.id)
					OR EXISTS (SELECT FROM preview_mail m WHERE m.tenant_id = r.tenant_id AND m.run_id = r.id)))
			ORDER BY r.finished_at LIMIT $2 FOR UPDATE OF r SKIP LOCKED
		), requests AS (
			DELETE FROM run_requests q USING picked p WHERE q.tenant_id = p.tenant_id AND q.run_id = p.id
		), bare AS (
			DELETE FROM left_bare b USING picked p WHERE b.tenant_id = p.tenant_id AND b.run_id = p.id
		), pages AS (
			DELETE FROM run_pages g USING picked p WHERE g.tenant_id = p.tenant_id AND g.run_id = p.id
		), previews AS (
			DELETE FROM previews v USING picked p WHERE v.tenant_id = p.tenant_id AND v.run_id = p.id
		)
		DELETE FROM runs r USING picked p WHERE r.tenant_id = p.tenant_id AND r.id = p.id`
}

// oldReport removes rows of the reports of previews that ended before $1.
func oldReport(table string) string {
	return `
		WITH picked AS (
			SELECT g.tenant_id, g.run_id, g.place FROM runs r JOIN ` + table + ` g ON g.tenant_id = r.tenant_id AND g.run_id = r.id
			WHERE r.preview AND r.finished_at < now() - $1 * interval '1 microsecond' LIMIT $2 FOR UPDATE OF g SKIP LOCKED
		)
		DELETE FROM ` + table + ` g USING picked p WHERE g.tenant_id = p.tenant_id AND g.run_id = p.run_id AND g.place = p.place`
}

// removals are the kinds of what is removed. Each query takes the age in microseconds and how many rows at most, and passes
// over rows that another scheduler is removing.
var removals = []struct {
	what  string
	age   func(Keep) time.Duration
	query string
}{
	// Ids rise with time: pages of runs above the last thousand that are old enough are not looked at, which else would be most.
	{"pages", func(Keep) time.Duration { return keepPages }, `
		WITH picked AS (
			SELECT g.tenant_id, g.run_id, g.page FROM run_pages g
			WHERE g.run_id <= (SELECT max(id) FROM (
					SELECT id FROM runs WHERE finished_at < now() - $1 * interval '1 microsecond' ORDER BY finished_at DESC LIMIT 1000) AS latest)
				AND (SELECT r.finished_at FROM runs r WHERE r.tenant_id = g.tenant_id AND r.id = g.run_id) < now() - $1 * interval '1 microsecond'
			LIMIT $2 FOR UPDATE OF g SKIP LOCKED
		)
		DELETE FROM run_pages g USING picked p WHERE g.tenant_id = p.tenant_id AND g.run_id = p.run_id AND g.page = p.page`},
	// A preview changed nothing, whatever it counted. Its report goes before it, since it may be large.
	{"previews", func(k Keep) time.Duration { return k.Quiet }, oldReport("preview_changes")},
	{"previews", func(k Keep) time.Duration { return k.Quiet }, oldReport("preview_mail")},
	{"runs", func(k Keep) time.Duration { return k.Quiet }, removeRuns("r.preview")},
	{"runs", func(k Keep) time.Duration { return k.Quiet }, removeRuns(quiet)},
	{"runs", func(k Keep) time.Duration { return k.Runs }, removeRuns("true")},
	{"history", func(k Keep) time.Duration { return k.Runs }, `
		WITH picked AS (
			SELECT tenant_id, id FROM history WHERE at < now() - $1 * interval '1 microsecond'
			ORDER BY at LIMIT $2 FOR UPDATE SKIP LOCKED
		)
		DELETE FROM history h USING picked p WHERE h.tenant_id = p.tenant_id AND h.id = p.id`},
	{"issues", func(k Keep) time.Duration { return k.Runs }, `
		WITH picked AS (
			SELECT tenant_id, id FROM issues WHERE closed_at < now() - $1 * interval '1 microsecond'
			ORDER BY closed_at LIMIT $2 FOR UPDATE SKIP LOCKED
		)
		DELETE FROM issues i USING picked p WHERE i.tenant_id = p.tenant_id AND i.id = p.id`},
	{"call_counts", func(k Keep) time.Duration { return k.Runs }, `
		WITH picked AS (
			SELECT tenant_id, connection_id, month FROM call_counts
			WHERE month < date_trunc('month', (now() - $1 * interval '1 microsecond') AT TIME ZONE 'UTC')::date
			ORDER BY month LIMIT $2 FOR UPDATE SKIP LOCKED
		)
		DELETE FROM call_counts c USING picked p WHERE c.tenant_id = p.tenant_id AND c.connection_id = p.connection_id AND c.month = p.month`},
}

// RemoveOld removes what is older than keep says, of each kind at most limit rows in a transaction of its own; runs take who
// asked for them along. Call it until nothing is removed. Any number of schedulers may call it at once. After an error what it
// counted is removed all the same.
func (s *Store) RemoveOld(ctx context.Context, keep Keep, limit int) (Removed, error) {
	if keep.Quiet < keepPages || keep.Runs < keepPages {
		return nil, fmt.Errorf("remove old rows: they are to be kept %v and %v, which is less than %v", keep.Quiet, keep.Runs, keepPages)
	}
	removed := Removed{}
	for _, r := range removals {
		var n int64
		err := s.in(ctx, asOps, anyTenant, func(tx *sqlx.Tx) error {
			result, err := tx.ExecContext(ctx, r.query, r.age(keep).Microseconds(), limit)
			if err != nil {
				return err
			}
			n, err = result.RowsAffected()
			return err
		})
		if err != nil {
			return removed, fmt.Errorf("remove old %s: %w", r.what, err)
		}
		if n > 0 {
			removed[r.what] += int(n)
		}
	}
	return removed, nil
}

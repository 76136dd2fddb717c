package postgres

import (
	"context"
	"fmt"
	"time"

	"github.com/jmoiron/sqlx"
)

// Fleet is what is to be watched from outside, one entry for each ERP that has connections or is paused, sorted by ERP.
type Fleet []FleetERP

// FleetERP counts over all connections of an ERP, in all tenants. Removed connections are left out, but not what they called.
// An age is 0 where there is nothing to be old.
type FleetERP struct {
	ERP string `db:"erp"`

	Active         int64 `db:"active"` // connections by state
	Paused         int64 `db:"paused"`
	NeedsAttention int64 `db:"needs_attention"`

	StaleLate           int64 `db:"stale_late"`   // active, and the schedule asks for runs
	StaleManual         int64 `db:"stale_manual"` // active, and only people ask for runs
	StalePaused         int64 `db:"stale_paused"`
	StaleNeedsAttention int64 `db:"stale_needs_attention"`

	// Green and yet not right: full runs read nothing although we have something, incremental runs miss what full runs find.
	ReadNothing   int64 `db:"read_nothing"`
	MissChanges   int64 `db:"miss_changes"`
	IssuesGrowing int64 `db:"issues_growing"` // connections whose open issues grew by ten and by half within a day

	// LastFailed are active connections whose last run failed.
	LastFailed int64 `db:"last_failed"`
	// OldestSuccess is the age of the oldest last success among active connections that the schedule asks to run; one that was
	// never read counts from its creation.
	OldestSuccess time.Duration `db:"oldest_success"`

	Queued  int64 `db:"queued"` // unfinished runs by status
	Running int64 `db:"running"`
	Waiting int64 `db:"waiting"`
	// OldestUnclaimed is how long the run that is ready the longest has waited for a worker.
	OldestUnclaimed time.Duration `db:"oldest_unclaimed"`

	Holds      int64         `db:"holds"` // open ones
	Held       int64         `db:"held"`  // customer contacts they keep from going
	OldestHold time.Duration `db:"oldest_hold"`
	Issues     int64         `db:"issues"` // open ones

	// Logins whose end is known, of active and paused connections; the others need a new one anyway. Ended ones count too.
	LoginsNoticed  int64          `db:"logins_noticed"` // within their own notice: 60 days for an end that only the customer can move, else 14
	LoginsIn14Days int64          `db:"logins_14_days"`
	LoginsIn3Days  int64          `db:"logins_3_days"`
	LoginLeft      *time.Duration `db:"login_left"` // of the one that ends first; nil: no end is known

	// MeteredCalls are the data requests of this calendar month (UTC).
	MeteredCalls int64 `db:"metered_calls"`
	// PausedFor is how long the ERP's schedule has waited because the ERP refuses this installation; 0: it does not wait.
	PausedFor time.Duration `db:"paused_for"`
}

const fleet = `
	WITH counted AS (
		SELECT erp, count(*) FILTER (WHERE state = 'active') AS active, count(*) FILTER (WHERE state = 'paused') AS paused,
			count(*) FILTER (WHERE state = 'needs_attention') AS needs_attention,
			count(*) FILTER (WHERE ` + scheduledLate + `) AS stale_late,
			count(*) FILTER (WHERE ` + readsNothing + `) AS read_nothing, count(*) FILTER (WHERE ` + missesChanges + `) AS miss_changes,
			count(*) FILTER (WHERE stale_at <= now() AND state = 'active' AND NOT (auto_sync AND schedule <> 'off')) AS stale_manual,
			count(*) FILTER (WHERE stale_at <= now() AND state = 'paused') AS stale_paused,
			count(*) FILTER (WHERE stale_at <= now() AND state = 'needs_attention') AS stale_needs_attention,
			count(*) FILTER (WHERE state = 'active' AND last_attempt_outcome = 'failed') AS last_failed,
			min(coalesce(last_success_at, created_at)) FILTER (WHERE state = 'active' AND auto_sync AND schedule <> 'off') AS oldest_success
		FROM connections n GROUP BY erp
	), unfinished AS (
		SELECT erp, count(*) FILTER (WHERE status = 'queued') AS queued, count(*) FILTER (WHERE status = 'running') AS running,
			count(*) FILTER (WHERE status = 'waiting') AS waiting, min(ready_at) AS oldest_unclaimed
		FROM (
			SELECT n.erp, r.status, CASE WHEN ` + ready + ` THEN
				-- Once it was claimed, the wait begins with the last hand-out or the end of a wait or a lease; before that, with the
				-- request or the end of the run before it.
				CASE WHEN r.fencing > 0 THEN greatest(r.handed_out_at, r.not_before, r.lease_until)
				ELSE greatest(r.queued_at, r.not_before, (SELECT o.finished_at FROM runs o
					WHERE o.connection_id = r.connection_id AND o.id < r.id ORDER BY o.id DESC LIMIT 1)) END
				END AS ready_at
			FROM runs r JOIN connections n ON n.tenant_id = r.tenant_id AND n.id = r.connection_id
			WHERE r.status IN ('queued', 'running', 'waiting') AND n.state <> 'removed'
		) AS r GROUP BY erp
	), open_holds AS (
		SELECT n.erp, h.tenant_id, h.id, h.opened_at FROM holds h JOIN connections n ON n.tenant_id = h.tenant_id AND n.id = h.connection_id
		WHERE h.state = 'open' AND n.state <> 'removed'
	), held AS (
		SELECT n.erp, count(*) AS held FROM held_customer_contacts h JOIN connections n ON n.tenant_id = h.tenant_id AND n.id = h.connection_id
		WHERE n.state <> 'removed' GROUP BY n.erp
	), holding AS (
		SELECT erp, count(*) AS holds, min(opened_at) AS oldest_hold FROM open_holds GROUP BY erp
	), wrong AS (
		SELECT n.erp, sum(i.n)::bigint AS issues, count(*) FILTER (WHERE ` + issuesGrow + `) AS issues_growing
		FROM (` + openIssues + `) i JOIN connections n ON n.tenant_id = i.tenant_id AND n.id = i.connection_id
		WHERE n.state <> 'removed' GROUP BY n.erp
	), logins AS (
		SELECT n.erp, count(*) FILTER (WHERE c.ends_at < now() + c.notice_days * interval '1 day') AS logins_noticed,
			count(*) FILTER (WHERE c.ends_at < now() + interval '14 days') AS logins_14_days,
			count(*) FILTER (WHERE c.ends_at < now() + interval '3 days') AS logins_3_days, min(c.ends_at) AS first_end
		FROM credentials c JOIN connections n ON n.tenant_id = c.tenant_id AND n.id = c.connection_id
		WHERE n.state IN ('active', 'paused') GROUP BY n.erp
	), called AS (
		SELECT n.erp, sum(c.calls)::bigint AS metered_calls
		FROM call_counts c JOIN connections n ON n.tenant_id = c.tenant_id AND n.id = c.connection_id
		WHERE c.month = date_trunc('month', now() AT TIME ZONE 'UTC')::date GROUP BY n.erp
	), refused AS (
		SELECT erp, since FROM erp_pauses WHERE ended_at IS NULL
	)
	SELECT erp, coalesce(active, 0) AS active, coalesce(paused, 0) AS paused, coalesce(needs_attention, 0) AS needs_attention,
		coalesce(stale_late, 0) AS stale_late, coalesce(stale_manual, 0) AS stale_manual, coalesce(stale_paused, 0) AS stale_paused,
		coalesce(stale_needs_attention, 0) AS stale_needs_attention, coalesce(last_failed, 0) AS last_failed,
		coalesce(read_nothing, 0) AS read_nothing, coalesce(miss_changes, 0) AS miss_changes, coalesce(issues_growing, 0) AS issues_growing,
		coalesce(extract(epoch FROM now() - oldest_success) * 1e9, 0)::bigint AS oldest_success,
		coalesce(queued, 0) AS queued, coalesce(running, 0) AS running, coalesce(waiting, 0) AS waiting,
		coalesce(extract(epoch FROM now() - oldest_unclaimed) * 1e9, 0)::bigint AS oldest_unclaimed,
		coalesce(holds, 0) AS holds, coalesce(held, 0) AS held, coalesce(extract(epoch FROM now() - oldest_hold) * 1e9, 0)::bigint AS oldest_hold,
		coalesce(issues, 0) AS issues, coalesce(logins_noticed, 0) AS logins_noticed, coalesce(logins_14_days, 0) AS logins_14_days, coalesce(logins_3_days, 0) AS logins_3_days,
		(extract(epoch FROM first_end - now()) * 1e9)::bigint AS login_left, coalesce(metered_calls, 0) AS metered_calls,
		coalesce(extract(epoch FROM now() - since) * 1e9, 0)::bigint AS paused_for
	FROM counted FULL JOIN refused USING (erp) LEFT JOIN unfinished USING (erp) LEFT JOIN held USING (erp) LEFT JOIN holding USING (erp)
		LEFT JOIN wrong USING (erp) LEFT JOIN logins USING (erp) LEFT JOIN called USING (erp)
	ORDER BY erp`

// Fleet reads the state of all connections of all tenants, in one query.
func (s *Store) Fleet(ctx context.Context) (Fleet, error) {
	var f Fleet
	err := s.in(ctx, asOps, anyTenant, func(tx *sqlx.Tx) error {
		f = nil
		return tx.SelectContext(ctx, &f, fleet)
	})
	if err != nil {
		return nil, fmt.Errorf("read the fleet: %w", err)
	}
	return f, nil
}

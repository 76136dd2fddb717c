package postgres

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"time"

	"github.com/jmoiron/sqlx"
)

const (
	// misconfiguredInARow is how many of an ERP's connections must have ended as misconfigured, the last ones that were tried,
	// or all if fewer were: a single connection whose credentials no key opens does not stop the others.
	misconfiguredInARow = 3
	// refusedAtLeast is how many accounts must be refused before that can be the installation's fault and not theirs.
	refusedAtLeast = 5
)

// Pause is an ERP whose schedule waits, because it refuses this installation and not one company.
type Pause struct {
	ERP   string `db:"erp"`
	Cause string `db:"cause"`
}

// WatchERPs pauses the schedule of each ERP that refuses this installation, ends the pauses of those that work again, and
// queues a trial, one run of one connection, for each pause whose time has come; the next is due trialEvery later. It returns
// the pauses it opened and those it ended. Any number of schedulers may call it.
//
// An ERP refuses the installation when the connections tried last all ended as misconfigured, or when most of the accounts that were
// tried in the last hour were denied, or throttled until their runs failed. Connections that became needs_attention by such
// a denial are active again. A refused login that is not to be tried again is a company's own, and counts for none of it.
//
// A pause ends when a run that started after it succeeds, whoever asked for that run. That shows that the installation is
// accepted: a connection that has not worked since the pause began, and is denied after its end, is denied for its own sake,
// and does not count for another pause. A pause for being misconfigured also ends when the connections tried last, by runs that
// started after it, were all denied: who is told that a login is refused was let in, and else a lost login would never be said.
// And it ends when nobody is left whom a trial could try. What failed before a pause ended says nothing of what comes after.
func (s *Store) WatchERPs(ctx context.Context, trialEvery time.Duration) (opened, ended []Pause, err error) {
	err = s.in(ctx, asOps, anyTenant, func(tx *sqlx.Tx) error {
		opened, ended = nil, nil
		err := tx.SelectContext(ctx, &ended, `
			UPDATE erp_pauses p SET ended_at = now()
			WHERE p.ended_at IS NULL AND (
				EXISTS (SELECT FROM runs r JOIN connections n ON n.tenant_id = r.tenant_id AND n.id = r.connection_id
					WHERE n.erp = p.erp AND r.finished_at > p.since AND r.started_at > p.since AND r.status = 'succeeded')
				OR NOT EXISTS (SELECT FROM connections n WHERE n.erp = p.erp AND `+tried+`)
				OR p.cause LIKE 'misconfigured: %' AND greatest(1, least($1, (
						SELECT count(*) FROM connections n CROSS JOIN LATERAL `+lastRun+`
						WHERE n.erp = p.erp AND `+tried+` AND r.finished_at > p.since - interval '1 day'))) = (
					SELECT count(*) FILTER (WHERE error_kind = 'denied') FROM (
						SELECT r.error_kind FROM connections n CROSS JOIN LATERAL `+lastRun+`
						WHERE n.erp = p.erp AND `+tried+` AND r.started_at > p.since ORDER BY r.finished_at DESC LIMIT $1) AS lately)
			) RETURNING p.erp, p.cause`, misconfiguredInARow)
		if err != nil {
			return fmt.Errorf("end pauses: %w", err)
		}
		if opened, err = openPauses(ctx, tx); err != nil {
			return fmt.Errorf("open pauses: %w", err)
		}
		if err := queueTrials(ctx, tx, trialEvery); err != nil {
			return fmt.Errorf("queue trials: %w", err)
		}
		return nil
	})
	if err != nil {
		return nil, nil, fmt.Errorf("watch ERPs: %w", err)
	}
	return opened, ended, nil
}

// loginRefused: connection n has a login that is not tried by itself.
const loginRefused = `EXISTS (SELECT FROM credentials c WHERE c.tenant_id = n.tenant_id AND c.connection_id = n.id AND c.refused_at IS NOT NULL)`

// tried: connection n counts for whether its ERP refuses the installation. lastRun r is its last one that ended by itself.
const (
	tried   = `n.state IN ('active', 'needs_attention') AND n.auto_sync AND NOT ` + loginRefused
	lastRun = `(SELECT status, error_kind, error, started_at, finished_at FROM runs r
		WHERE r.connection_id = n.id AND NOT r.preview AND r.status IN ('succeeded', 'failed') ORDER BY r.id DESC LIMIT 1) r`
)

func openPauses(ctx context.Context, tx *sqlx.Tx) (opened []Pause, err error) {
	err = tx.SelectContext(ctx, &opened, `
		WITH tried AS (
			SELECT n.erp, r.*, row_number() OVER (PARTITION BY n.erp ORDER BY r.finished_at DESC) AS place,
				coalesce(n.last_success_at, '-infinity') < coalesce((SELECT max(p.since) FROM erp_pauses p WHERE p.erp = n.erp), '-infinity')
					AS out_since_a_pause,
				r.finished_at > coalesce((SELECT max(p.ended_at) FROM erp_pauses p WHERE p.erp = n.erp), '-infinity') AS since_pauses
			FROM connections n CROSS JOIN LATERAL `+lastRun+`
			WHERE `+tried+` AND r.finished_at > now() - interval '1 day'
		), misconfigured AS (
			SELECT erp, 'misconfigured: ' || regexp_replace(min(error), ' \(trace [^)]*\)', '') AS cause FROM tried WHERE place <= $1
			GROUP BY erp HAVING bool_and(coalesce(error_kind, '') = 'misconfigured' AND since_pauses)
		), refused AS (
			SELECT erp, format('%s of %s accounts tried in the last hour were refused or throttled', count(*) FILTER (WHERE refused), count(*)) AS cause
			FROM (SELECT erp, status = 'failed' AND error_kind IN ('denied', 'throttled') AS refused FROM tried
				WHERE finished_at > now() - interval '1 hour' AND since_pauses AND NOT (out_since_a_pause AND coalesce(error_kind, '') = 'denied')) AS lately
			GROUP BY erp HAVING count(*) FILTER (WHERE refused) >= $2 AND count(*) FILTER (WHERE refused) * 2 > count(*)
		)
		INSERT INTO erp_pauses (erp, cause, next_trial_at)
		SELECT DISTINCT ON (erp) erp, cause, now() FROM (SELECT * FROM misconfigured UNION ALL SELECT * FROM refused) AS found ORDER BY erp, cause DESC
		ON CONFLICT (erp) WHERE ended_at IS NULL DO NOTHING RETURNING erp, cause`, misconfiguredInARow, refusedAtLeast)
	if err != nil || len(opened) == 0 {
		return opened, err
	}
	// They were denied for the installation's sake.
	_, err = tx.ExecContext(ctx, `
		UPDATE connections n SET state = 'active', state_reason = '', next_due_at = CASE WHEN n.next_due_at IS NOT NULL THEN now() END
		FROM erp_pauses p
		WHERE p.erp = n.erp AND p.ended_at IS NULL AND n.state = 'needs_attention' AND NOT `+loginRefused+` AND 'denied' = (
			SELECT r.error_kind FROM runs r WHERE r.connection_id = n.id AND r.status = 'failed' AND r.finished_at > now() - interval '1 hour'
			ORDER BY r.id DESC LIMIT 1)`)
	return opened, err
}

func queueTrials(ctx context.Context, tx *sqlx.Tx, every time.Duration) error {
	var due []Pause
	err := tx.SelectContext(ctx, &due, `
		UPDATE erp_pauses p SET next_trial_at = now() + $1 * interval '1 microsecond' FROM (
			SELECT id FROM erp_pauses WHERE ended_at IS NULL AND next_trial_at <= now() FOR UPDATE SKIP LOCKED
		) AS d WHERE p.id = d.id RETURNING p.erp, p.cause`, every.Microseconds())
	if err != nil {
		return err
	}
	for _, p := range due {
		var trial struct {
			Tenant int64 `db:"tenant_id"`
			ID     int64 `db:"id"`
		}
		// The one tried longest ago: its token has ended too, and a company that is refused for its own sake is not asked twice.
		err := tx.GetContext(ctx, &trial, `
			SELECT n.tenant_id, n.id FROM connections n
			WHERE n.erp = $1 AND `+tried+`
				AND NOT EXISTS (SELECT FROM runs r WHERE r.connection_id = n.id AND r.status IN ('queued', 'running', 'waiting'))
			ORDER BY n.state = 'active' DESC, n.last_attempt_at NULLS FIRST LIMIT 1 FOR NO KEY UPDATE OF n SKIP LOCKED`, p.ERP)
		if errors.Is(err, sql.ErrNoRows) {
			continue
		}
		if err != nil {
			return err
		}
		_, _, err = queueRun(ctx, tx, Request{
			Tenant: trial.Tenant, Connection: trial.ID, Mode: Incremental, Trigger: BySchedule, By: "schedule", Reason: "trial: " + p.Cause,
		})
		if err != nil {
			return err
		}
	}
	return nil
}

// Shares of a month's metered calls, in percent: from AlarmAt on somebody is told, from StretchAt on the schedule leaves out
// every other due time, from StopAt on only what people asked for is worked. QuickBooks refuses every call of every company
// for the rest of the month once the allowance is used up:
// https://blogs.intuit.com/2026/01/08/understanding-builder-tier-api-limits-for-you-and-your-customers
const (
	AlarmAt   = 80
	StretchAt = 90
	StopAt    = 97
)

// Savings are what a budget for all connections together asks of the schedule, by ERP.
type Savings struct {
	Stretch []string // every other due time is left out
	Stop    []string // nothing is queued by the schedule: its connections stay due
}

// MeteredCalls are the data requests of this calendar month (UTC), by ERP.
func (s *Store) MeteredCalls(ctx context.Context) (map[string]int64, error) {
	calls := map[string]int64{}
	err := s.in(ctx, asOps, anyTenant, func(tx *sqlx.Tx) error {
		var rows []struct {
			ERP   string `db:"erp"`
			Calls int64  `db:"calls"`
		}
		err := tx.SelectContext(ctx, &rows, `
			SELECT n.erp, sum(c.calls)::bigint AS calls FROM call_counts c JOIN connections n ON n.tenant_id = c.tenant_id AND n.id = c.connection_id
			WHERE c.month = date_trunc('month', now() AT TIME ZONE 'UTC')::date GROUP BY n.erp`)
		for _, r := range rows {
			calls[r.ERP] = r.Calls
		}
		return err
	})
	if err != nil {
		return nil, fmt.Errorf("count metered calls: %w", err)
	}
	return calls, nil
}

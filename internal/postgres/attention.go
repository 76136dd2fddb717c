package postgres

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/jmoiron/sqlx"
)

// Severity of an Item.
type Severity string

// The severities, the worst first.
const (
	Critical Severity = "critical" // many companies are not synced, or soon will not be
	Warning  Severity = "warning"  // a person must act on one connection, or on many before long
	Info     Severity = "info"     // nobody must act
)

// Item is something that a person should see. Kind is what it is, for programs.
type Item struct {
	Severity   Severity
	Kind       string
	Tenant     int64 // 0: of no tenant
	Connection int64 // 0: of no connection
	Text       string
	Command    string // what to type
}

// Summary counts what there is, and what happened in the last 24 hours.
type Summary struct {
	Tenants     int64
	Connections map[string]int64 // by state
	Unfinished  map[string]int64 // runs, by status
	Ended       map[string]int64 // runs of the last 24 h, by status
	Records     map[string]int64 // of those: read, created, updated, deactivated, held
}

// Attention is what there is to know of the whole installation on one screen.
type Attention struct {
	Summary Summary
	Items   []Item // the worst first
}

// Needed says whether a person must act.
func (a Attention) Needed() bool {
	return slices.ContainsFunc(a.Items, func(i Item) bool { return i.Severity != Info })
}

const (
	itemsOfAKind = 5                // the rest of a kind is counted
	worriesAfter = time.Minute      // a run that is ready, or a connection that is due, and nobody takes it
	backlogLasts = 10 * time.Minute // a wait for a free worker after which more of them are needed
)

// Attention finds what needs a person. allowances are the metered calls a month by ERP, of all connections together; an ERP without
// one has no limit.
func (s *Store) Attention(ctx context.Context, allowances map[string]int64) (Attention, error) {
	var a Attention
	err := s.in(ctx, asOps, anyTenant, func(tx *sqlx.Tx) (err error) {
		a = Attention{}
		if a.Summary, err = summary(ctx, tx); err != nil {
			return fmt.Errorf("summary: %w", err)
		}
		l := look{ctx: ctx, tx: tx}
		if err := tx.GetContext(ctx, &l.now, `SELECT now()`); err != nil {
			return err
		}
		for _, part := range []struct {
			name string
			find func() error
		}{
			{"paused ERPs", l.pauses},
			{"metered calls", func() error { return l.calls(allowances) }},
			{"unclaimed runs", l.unclaimed},
			{"due connections", l.due},
			{"connections", l.connections},
		} {
			if err := part.find(); err != nil {
				return fmt.Errorf("%s: %w", part.name, err)
			}
		}
		a.Items = l.items
		worst := []Severity{Critical, Warning, Info}
		slices.SortStableFunc(a.Items, func(x, y Item) int { return slices.Index(worst, x.Severity) - slices.Index(worst, y.Severity) })
		return nil
	})
	if err != nil {
		return Attention{}, fmt.Errorf("find what needs attention: %w", err)
	}
	return a, nil
}

func summary(ctx context.Context, tx *sqlx.Tx) (Summary, error) {
	s := Summary{Connections: map[string]int64{}, Unfinished: map[string]int64{}, Ended: map[string]int64{}}
	if err := tx.GetContext(ctx, &s.Tenants, `SELECT count(*) FROM tenants`); err != nil {
		return s, err
	}
	for _, c := range []struct {
		into  map[string]int64
		query string
	}{
		{s.Connections, `SELECT state AS name, count(*) FROM connections GROUP BY state`},
		{s.Unfinished, `SELECT status AS name, count(*) FROM runs WHERE status IN ('queued', 'running', 'waiting') GROUP BY status`},
		{s.Ended, `SELECT status AS name, count(*) FROM runs WHERE finished_at > now() - interval '24 hours' GROUP BY status`},
	} {
		var rows []struct {
			Name  string `db:"name"`
			Count int64  `db:"count"`
		}
		if err := tx.SelectContext(ctx, &rows, c.query); err != nil {
			return s, err
		}
		for _, r := range rows {
			c.into[r.Name] = r.Count
		}
	}
	var n struct{ Read, Created, Updated, Deactivated, Held int64 }
	err := tx.GetContext(ctx, &n, `
		SELECT coalesce(sum(read), 0)::bigint AS read, coalesce(sum(created), 0)::bigint AS created, coalesce(sum(updated), 0)::bigint AS updated,
			coalesce(sum(deactivated), 0)::bigint AS deactivated, coalesce(sum(held), 0)::bigint AS held
		FROM runs WHERE finished_at > now() - interval '24 hours' AND NOT preview`)
	s.Records = map[string]int64{"read": n.Read, "created": n.Created, "updated": n.Updated, "deactivated": n.Deactivated, "held": n.Held}
	return s, err
}

// look gathers items in a transaction.
type look struct {
	ctx   context.Context //nolint:containedctx // one transaction, one context
	tx    *sqlx.Tx
	now   time.Time
	items []Item
	// ERPs whose schedule is held back on purpose: what that makes late is said once, and not for each connection.
	paused, saving, stopped []string
}

func (l *look) add(severity Severity, kind, command, text string, args ...any) {
	l.items = append(l.items, Item{Severity: severity, Kind: kind, Text: fmt.Sprintf(text, args...), Command: command})
}

// ago is how long something has lasted.
func (l *look) ago(since time.Time) string { return lasting(l.now.Sub(since)) }

func lasting(d time.Duration) string {
	switch {
	case d < time.Minute:
		return fmt.Sprintf("%d s", int(d.Seconds()))
	case d < 2*time.Hour:
		return fmt.Sprintf("%d min", int(d.Minutes()))
	case d < 48*time.Hour:
		return fmt.Sprintf("%d h", int(d.Hours()))
	}
	return fmt.Sprintf("%d days", int(d.Hours()/24))
}

func (l *look) pauses() error {
	var pauses []struct {
		ERP   string    `db:"erp"`
		Cause string    `db:"cause"`
		Since time.Time `db:"since"`
	}
	err := l.tx.SelectContext(l.ctx, &pauses, `SELECT erp, cause, since FROM erp_pauses WHERE ended_at IS NULL ORDER BY since`)
	for _, p := range pauses {
		l.paused = append(l.paused, p.ERP)
		todo := "The app is blocked, an allowance is used up, or a restore brought back dead logins: then have one company connect again. " +
			"A run that succeeds ends it"
		if strings.HasPrefix(p.Cause, "misconfigured: ") {
			todo = "Correct the environment and start the workers again"
		}
		l.add(Critical, "erp_paused", "syncctl run list --status failed", "%s refuses this installation for %s, and its schedule waits: %s. %s",
			p.ERP, l.ago(p.Since), strings.TrimRight(p.Cause, ". "), todo)
	}
	return err
}

func (l *look) calls(allowances map[string]int64) error {
	var used []struct {
		ERP   string    `db:"erp"`
		Calls int64     `db:"calls"`
		Most  int64     `db:"most"`
		Until time.Time `db:"until"`
	}
	err := l.tx.SelectContext(l.ctx, &used, `
		SELECT n.erp, sum(c.calls)::bigint AS calls, (array_agg(n.id ORDER BY c.calls DESC, n.id))[1] AS most,
			(c.month + interval '1 month') AT TIME ZONE 'UTC' AS until
		FROM call_counts c JOIN connections n ON n.tenant_id = c.tenant_id AND n.id = c.connection_id
		WHERE c.month = date_trunc('month', now() AT TIME ZONE 'UTC')::date GROUP BY n.erp, c.month ORDER BY n.erp`)
	for _, u := range used {
		allowed := allowances[u.ERP]
		reached := func(percent int64) bool { return allowed > 0 && u.Calls*100 >= allowed*percent }
		severity, effect := Warning, ""
		switch {
		case reached(StopAt):
			severity, effect = Critical, "; only what people ask for runs"
			l.saving, l.stopped = append(l.saving, u.ERP), append(l.stopped, u.ERP)
		case reached(StretchAt):
			effect = "; the schedule leaves out every other due time"
			l.saving = append(l.saving, u.ERP)
		case reached(AlarmAt):
			effect = "; from 90 % on the schedule is stretched"
		default:
			continue
		}
		l.add(severity, "metered_calls", fmt.Sprintf("syncctl connection show %d", u.Most),
			"%s: %d of %d calls of this month are used (%d %%)%s, until %s UTC. Connection %d used the most",
			u.ERP, u.Calls, allowed, u.Calls*100/allowed, effect, u.Until.UTC().Format("2006-01-02 15:04"), u.Most)
	}
	return err
}

// unclaimed runs are those that nobody works although nothing keeps them: no scheduler handed them out, or no worker took them.
func (l *look) unclaimed() error {
	var waits []struct {
		HandedOut bool      `db:"handed_out"`
		Runs      int64     `db:"runs"`
		Since     time.Time `db:"since"`
		Works     bool      `db:"works"`
	}
	// The run before it kept its connection's place until it ended.
	err := l.tx.SelectContext(l.ctx, &waits, `
		SELECT handed_out, count(*) AS runs, min(since) AS since,
			EXISTS (SELECT FROM runs WHERE status IN ('queued', 'running', 'waiting') AND lease_until > now())
				OR EXISTS (SELECT FROM runs WHERE finished_at > now() - $1 * interval '1 microsecond') AS works
		FROM (
			SELECT r.handed_out_at IS NOT NULL AS handed_out,
				greatest(r.queued_at, r.not_before, r.lease_until, r.handed_out_at, before.finished_at) AS since
			FROM runs r JOIN connections n ON n.tenant_id = r.tenant_id AND n.id = r.connection_id
			LEFT JOIN LATERAL (
				SELECT finished_at FROM runs o WHERE o.connection_id = r.connection_id AND o.id < r.id ORDER BY o.id DESC LIMIT 1) before ON true
			WHERE `+ready+`
		) w WHERE since < now() - $1 * interval '1 microsecond' GROUP BY handed_out ORDER BY handed_out`, worriesAfter.Microseconds())
	for _, w := range waits {
		const command = "syncctl run list --status queued"
		switch {
		case !w.HandedOut:
			l.add(Critical, "runs_not_handed_out", command,
				"no scheduler hands out the runs that are ready: %d, the oldest for %s. Does a scheduler run?", w.Runs, l.ago(w.Since))
		case !w.Works:
			l.add(Critical, "runs_not_claimed", command,
				"no worker claims the runs that are handed out: %d, the oldest for %s. Does a worker run, and with the scheduler's REDIS_URL?",
				w.Runs, l.ago(w.Since))
		case l.now.Sub(w.Since) > backlogLasts:
			l.add(Warning, "runs_not_claimed", command,
				"runs that wait for a free worker: %d, the oldest for %s. Start more workers", w.Runs, l.ago(w.Since))
		default:
			l.add(Info, "runs_not_claimed", command, "runs that wait for a free worker: %d, the oldest for %s", w.Runs, l.ago(w.Since))
		}
	}
	return err
}

func (l *look) due() error {
	var due struct {
		Connections int64      `db:"connections"`
		Since       *time.Time `db:"since"`
	}
	err := l.tx.GetContext(l.ctx, &due, `
		SELECT count(*) AS connections, min(next_due_at) AS since FROM connections
		WHERE auto_sync AND state IN ('active', 'needs_attention') AND next_due_at < now() - $1 * interval '1 microsecond'
			AND NOT erp = ANY ($2)`,
		worriesAfter.Microseconds(), some(slices.Concat(l.paused, l.stopped)))
	if due.Since != nil {
		l.add(Critical, "connections_not_queued", "syncctl connection list --state active",
			"no scheduler queues the connections that are due: %d, the first for %s. Does a scheduler run?", due.Connections, l.ago(*due.Since))
	}
	return err
}

// found is a row of a kind.
type found struct {
	Tenant     int64      `db:"tenant_id"`
	Connection int64      `db:"connection_id"`
	Name       string     `db:"name"`
	Run        int64      `db:"run_id"` // or the hold; 0: none
	At         *time.Time `db:"at"`     // since when
	Count      int64      `db:"n"`
	What       string     `db:"what"`
	Total      int64      `db:"total"` // rows of the kind
}

// kind is one sort of thing that connections need a person for. The worst is what lasts longest, then what is most.
type kind struct {
	name     string
	severity Severity
	query    string
	all      string // the command that shows the rest
	tell     func(l *look, f found) (text, command string)
}

// failedTwice: the last two finished runs of connection n failed.
const failedTwice = `(n.last_attempt_outcome IS NOT DISTINCT FROM 'failed' AND 2 = (SELECT count(*) FROM (
	SELECT status FROM runs WHERE connection_id = n.id AND finished_at IS NOT NULL AND NOT preview AND purpose <> 'customer' ORDER BY id DESC LIMIT 2) AS two
	WHERE status = 'failed'))`

// What is green and yet not right, of a connection n. The fleet counts by the same conditions.
const (
	// readsNothing: its full runs succeed and read nothing, although we have something. Nobody goes by that, and what is held is
	// told as a hold.
	readsNothing = `(n.empty_since IS NOT NULL AND n.state = 'active'
		AND EXISTS (SELECT FROM customer_contacts c WHERE c.tenant_id = n.tenant_id AND c.connection_id = n.id AND c.active AND c.origin = 'erp')
		AND NOT EXISTS (SELECT FROM holds h WHERE h.tenant_id = n.tenant_id AND h.connection_id = n.id AND h.state = 'open'))`
	// missesChanges: its incremental runs read nothing, which is nothing by itself, but its full runs find changes. A change in
	// the hour before a full run may always be that run's to find; in the hours before three of them, and in no others, hardly.
	missesChanges = `(n.idle_runs >= 20 AND n.idle_finds >= 3 AND n.state = 'active')`
	// issuesGrow, of the open issues counted in i (n: all, new: of the last day): by ten and by half of what there was. A first load
	// meets all there is at once.
	issuesGrow = `(i.new >= 10 AND i.new * 2 >= i.n - i.new AND n.created_at < now() - interval '2 days' AND n.state <> 'removed')`
	openIssues = `SELECT tenant_id, connection_id, count(*) AS n, count(*) FILTER (WHERE opened_at > now() - interval '24 hours') AS new
		FROM issues WHERE closed_at IS NULL GROUP BY tenant_id, connection_id`
	// scheduledLate: the schedule should have read it twice since.
	scheduledLate = `(n.state = 'active' AND n.auto_sync AND n.schedule <> 'off' AND n.stale_at <= now())`
)

var kinds = []kind{
	{"needs_attention", Warning, `
		SELECT n.tenant_id, n.id AS connection_id, n.name, 0 AS run_id, n.last_success_at AS at, 0 AS n, n.state_reason AS what
		FROM connections n WHERE n.state = 'needs_attention'`,
		"syncctl connection list --state needs_attention",
		func(l *look, f found) (string, string) {
			return fmt.Sprintf("needs attention, %s: %s. If it was mended in the ERP itself: syncctl connection resume %d",
				l.dataOf(f.At), strings.TrimRight(f.What, ". "), f.Connection), fmt.Sprintf("syncctl connection credentials %d FILE", f.Connection)
		}},
	{"failing", Warning, `
		SELECT n.tenant_id, n.id AS connection_id, n.name, r.id AS run_id, n.last_success_at AS at, 0 AS n,
			coalesce(r.error_kind || ': ' || r.error, 'failed') AS what
		FROM connections n CROSS JOIN LATERAL (
			SELECT id, error_kind, error FROM runs WHERE connection_id = n.id AND finished_at IS NOT NULL AND NOT preview AND purpose <> 'customer' ORDER BY id DESC LIMIT 1) r
		WHERE n.state = 'active' AND NOT n.erp = ANY ($1) AND ` + failedTwice + ``,
		"syncctl run list --status failed",
		func(l *look, f found) (string, string) {
			return fmt.Sprintf("the last two runs failed, %s: %s", l.dataOf(f.At), f.What), fmt.Sprintf("syncctl run show %d", f.Run)
		}},
	{"stale", Warning, `
		SELECT n.tenant_id, n.id AS connection_id, n.name, coalesce(r.id, 0) AS run_id, n.last_success_at AS at, 0 AS n,
			CASE WHEN n.next_due_at IS NULL THEN 'its schedule names no time to come: set another'
				WHEN r.id IS NULL THEN 'no run is under way, and its last ' || coalesce(n.last_attempt_outcome, 'never began')
				WHEN r.status = 'queued' THEN 'its next run has been queued since ' || to_char(r.queued_at AT TIME ZONE 'UTC', 'YYYY-MM-DD HH24:MI') || ' UTC'
				ELSE 'its run began ' || to_char(r.started_at AT TIME ZONE 'UTC', 'YYYY-MM-DD HH24:MI') || ' UTC and has not ended: a rarer schedule may fit'
			END AS what
		FROM connections n LEFT JOIN LATERAL (
			SELECT id, status, queued_at, started_at FROM runs WHERE connection_id = n.id AND status IN ('queued', 'running', 'waiting') AND NOT preview
			ORDER BY status = 'queued', id LIMIT 1) r ON true
		WHERE ` + scheduledLate + ` AND NOT n.erp = ANY ($1::text[] || $2) AND NOT ` + failedTwice + ``,
		"syncctl connection list --state active",
		func(l *look, f found) (string, string) {
			command := fmt.Sprintf("syncctl run list --connection %d", f.Connection)
			if f.Run != 0 {
				command = fmt.Sprintf("syncctl run show %d", f.Run)
			}
			return fmt.Sprintf("two due times have passed, %s: %s", l.dataOf(f.At), f.What), command
		}},
	{"reads_nothing", Warning, `
		SELECT n.tenant_id, n.id AS connection_id, n.name, 0 AS run_id, n.empty_since AS at, c.n, '' AS what
		FROM connections n CROSS JOIN LATERAL (SELECT count(*) AS n FROM customer_contacts c
			WHERE c.tenant_id = n.tenant_id AND c.connection_id = n.id AND c.active AND c.origin = 'erp') c
		WHERE ` + readsNothing + ``,
		"syncctl connection list --state active",
		func(l *look, f found) (string, string) {
			return fmt.Sprintf("its full runs succeed and have read nothing for %s, although we have contacts: %d. They stay and get mail. "+
				"Ask the tenant what its login may read", l.ago(*f.At), f.Count), fmt.Sprintf("syncctl connection check %d", f.Connection)
		}},
	{"misses_changes", Warning, `
		SELECT n.tenant_id, n.id AS connection_id, n.name, 0 AS run_id, n.idle_since AS at, n.idle_finds AS n, n.idle_runs::text AS what
		FROM connections n WHERE ` + missesChanges + ``,
		"syncctl connection list --state active",
		func(l *look, f found) (string, string) {
			return fmt.Sprintf("its incremental runs have read nothing for %s (%s runs), but full runs found changes meanwhile: %d. "+
					"Changes come late and none is lost. Have it listed in full more often, and report it", l.ago(*f.At), f.What, f.Count),
				fmt.Sprintf("syncctl connection set %d full_every=1h", f.Connection)
		}},
	{"hold", Warning, `
		SELECT h.tenant_id, h.connection_id, n.name, h.id AS run_id, h.opened_at AS at, i.n, h.cause AS what
		FROM holds h JOIN connections n ON n.tenant_id = h.tenant_id AND n.id = h.connection_id
		CROSS JOIN LATERAL (SELECT count(*) AS n FROM hold_items i WHERE i.tenant_id = h.tenant_id AND i.hold_id = h.id AND i.left_at IS NULL) i
		WHERE h.state = 'open' AND n.state <> 'removed' AND i.n > 0`,
		"syncctl hold list --state open",
		func(l *look, f found) (string, string) {
			return fmt.Sprintf("%d held for %s: %s", f.Count, l.ago(*f.At), f.What), fmt.Sprintf("syncctl hold show %d", f.Run)
		}},
	{"login_ends", Warning, `
		SELECT n.tenant_id, n.id AS connection_id, n.name, 0 AS run_id, c.ends_at AS at, 0 AS n, '' AS what
		FROM credentials c JOIN connections n ON n.tenant_id = c.tenant_id AND n.id = c.connection_id
		WHERE c.ends_at < now() + c.notice_days * interval '1 day' AND n.state IN ('active', 'paused')`,
		"syncctl connection list",
		func(l *look, f found) (string, string) {
			when := "ends in " + lasting(f.At.Sub(l.now))
			if f.At.Before(l.now) {
				when = "ended"
			}
			return fmt.Sprintf("its login %s (%s): have the customer connect again", when, f.At.UTC().Format("2006-01-02")),
				fmt.Sprintf("syncctl connection credentials %d FILE", f.Connection)
		}},
	mayHaveLeft,
	{"throttled", Info, `
		SELECT n.tenant_id, n.id AS connection_id, n.name, r.id AS run_id, r.throttled_since AS at, 0 AS n, '' AS what
		FROM runs r JOIN connections n ON n.tenant_id = r.tenant_id AND n.id = r.connection_id
		WHERE r.status IN ('queued', 'running', 'waiting') AND r.throttled_since < now() - interval '5 minutes'`,
		"syncctl run list --status waiting",
		func(l *look, f found) (string, string) {
			return fmt.Sprintf("throttled for %s: look for another program that uses the account, or choose a rarer schedule", l.ago(*f.At)),
				fmt.Sprintf("syncctl run show %d", f.Run)
		}},
	{"issues_grow", Warning, `
		SELECT n.tenant_id, n.id AS connection_id, n.name, 0 AS run_id, NULL::timestamptz AS at, i.n, i.new::text AS what
		FROM (` + openIssues + `) i JOIN connections n ON n.tenant_id = i.tenant_id AND n.id = i.connection_id WHERE ` + issuesGrow + ``,
		"syncctl issue list",
		func(_ *look, f found) (string, string) {
			return fmt.Sprintf("open issues: %d, and they grow: new in the last 24 h: %s. One cause is likely, in the ERP or in how it is read",
				f.Count, f.What), fmt.Sprintf("syncctl issue list --connection %d", f.Connection)
		}},
	{"issues", Info, `
		SELECT n.tenant_id, n.id AS connection_id, n.name, 0 AS run_id, NULL::timestamptz AS at, i.n, i.new::text AS what
		FROM (` + openIssues + `) i JOIN connections n ON n.tenant_id = i.tenant_id AND n.id = i.connection_id
		WHERE i.new > 0 AND n.state <> 'removed' AND NOT ` + issuesGrow + ``,
		"syncctl issue list",
		func(_ *look, f found) (string, string) {
			return fmt.Sprintf("open issues: %d, of them new in the last 24 h: %s", f.Count, f.What),
				fmt.Sprintf("syncctl issue list --connection %d", f.Connection)
		}},
}

// dataOf says how old the data of a connection is.
func (l *look) dataOf(success *time.Time) string {
	if success == nil {
		return "never read"
	}
	return "data " + l.ago(*success) + " old"
}

func (l *look) connections() error {
	for _, k := range kinds {
		// Every query may name both lists, and Postgres must know the type of those it does not name.
		query := fmt.Sprintf(`SELECT k.*, count(*) OVER () AS total FROM (%s) AS k WHERE $1::text[] IS NOT NULL AND $2::text[] IS NOT NULL
			ORDER BY at NULLS FIRST, n DESC, connection_id LIMIT %d`, k.query, itemsOfAKind)
		var rows []found
		if err := l.tx.SelectContext(l.ctx, &rows, query, some(l.paused), some(l.saving)); err != nil {
			return fmt.Errorf("%s: %w", k.name, err)
		}
		for _, f := range rows {
			text, command := k.tell(l, f)
			l.items = append(l.items, Item{
				Severity: k.severity, Kind: k.name, Tenant: f.Tenant, Connection: f.Connection, Command: command,
				Text: fmt.Sprintf("%s (%d): %s", f.Name, f.Connection, text),
			})
		}
		if len(rows) > 0 && rows[0].Total > int64(len(rows)) {
			l.add(k.severity, k.name, k.all, "… and %d more", rows[0].Total-int64(len(rows)))
		}
	}
	return nil
}

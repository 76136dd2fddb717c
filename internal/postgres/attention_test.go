package postgres_test

import (
	"database/sql"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/centime/contactsync/internal/postgres"
	"github.com/centime/contactsync/internal/postgres/pgtest"
)

// calm makes one tenant with one connection that is as it should be, and returns its database.
func calm(t *testing.T) (*postgres.Store, *sql.DB) {
	t.Helper()
	dsn := pgtest.New(t)
	store, err := postgres.Open(dsn, 4)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = store.Close() })
	db := open(t, dsn)
	statements(t, db, `
		INSERT INTO tenants (name) VALUES ('Kelp');
		INSERT INTO connections (tenant_id, erp, account, name, schedule, next_due_at, stale_at, last_attempt_outcome, last_success_at)
			VALUES (1, 'memory', 'a', 'Kelp books', '@every 1h', now() + interval '30 min', now() + interval '90 min', 'succeeded', now() - interval '3 h');
		INSERT INTO credentials (tenant_id, connection_id, key_id, box, ends_at) VALUES (1, 1, 'k', 'x', now() + interval '90 days')`)
	return store, db
}

// statements runs SQL as the owner.
func statements(t *testing.T, db *sql.DB, text string) {
	t.Helper()
	if _, err := db.ExecContext(t.Context(), "SET search_path = contactsync, public;"+text); err != nil {
		t.Fatal(err)
	}
}

const (
	newRun    = `INSERT INTO runs (tenant_id, connection_id, mode, trigger, `
	failedRun = newRun + `status, started_at, finished_at, error_kind, error)
		VALUES (1, 1, 'full', 'schedule', 'failed', now() - interval '2 h', now() - interval '1 h', 'transient', '503');`
	goodRun = newRun + `status, started_at, finished_at)
		VALUES (1, 1, 'full', 'schedule', 'succeeded', now() - interval '2 h', now() - interval '1 h');`
	// another connection whose worker lives
	workedRun = `INSERT INTO connections (tenant_id, erp, account, name, schedule, stale_at)
		VALUES (1, 'memory', 'b', 'Other', 'off', now() + interval '1 h');` +
		newRun + `status, lease_until, handed_out_at) VALUES (1, 2, 'full', 'manual', 'running', now() + interval '20 s', now() - interval '1 h');`
)

// one customer with its own contact
const oneContact = `INSERT INTO customers (tenant_id, connection_id, erp_id, name, kind, active) VALUES (1, 1, '1', 'C', 'customer', true);
	INSERT INTO contacts (tenant_id, connection_id, origin, erp_id, name, active) VALUES (1, 1, 'erp', 'customer:1', 'C', true);
	INSERT INTO customer_contacts (tenant_id, connection_id, customer_id, contact_id, origin, active) VALUES (1, 1, 1, 1, 'erp', true);`

// manyIssues are so many open ones from the day before, and so many of the last day.
func manyIssues(before, since int) string {
	return fmt.Sprintf(`INSERT INTO issues (tenant_id, connection_id, record_kind, record_id, field, reason, opened_at)
		SELECT 1, 1, 'customer', n, 'name', 'x', now() - CASE WHEN n > %d THEN interval '23 h' ELSE interval '25 h' END
		FROM generate_series(1, %d) n;`, before, before+since)
}

// TestAttention guards what `syncctl status` promises: whatever needs a person is named with what to type, what does not is
// not, and a cause that concerns all connections is told once.
func TestAttention(t *testing.T) {
	t.Parallel()
	hundred := map[string]int64{"memory": 100}
	calls := func(n int) string {
		return fmt.Sprintf(`INSERT INTO call_counts VALUES (1, 1, date_trunc('month', now() AT TIME ZONE 'UTC')::date, %d),
			(1, 1, '2020-01-01', 1000)`, n)
	}
	for name, c := range map[string]struct {
		given string
		calls map[string]int64
		want  []string // severity, kind, connection, command: part of the text
	}{
		"Calm": {},
		"Paused": {
			`INSERT INTO erp_pauses (erp, cause, since, next_trial_at) VALUES ('memory', 'invalid_client', now() - interval '3 h', now()),
				('other', 'over', now(), now()); UPDATE erp_pauses SET ended_at = now() WHERE erp = 'other';
			UPDATE connections SET next_due_at = now() - interval '5 h', stale_at = now() - interval '3 h'`, nil,
			[]string{"critical erp_paused 0 syncctl run list --status failed: memory refuses this installation for 3 h, " +
				"and its schedule waits: invalid_client. The app is blocked, an allowance is used up, or a restore brought back dead logins: " +
				"then have one company connect again. A run that succeeds ends it"},
		},
		"PausedByItsKeys": {
			`INSERT INTO erp_pauses (erp, cause, since, next_trial_at) VALUES ('memory', 'misconfigured: invalid_client', now() - interval '3 h', now())`, nil,
			[]string{"critical erp_paused 0 syncctl run list --status failed: invalid_client. Correct the environment and start the workers again"},
		},
		"Calls79": {calls(79), hundred, nil},
		"Calls80": {calls(80), hundred, []string{"warning metered_calls 0 syncctl connection show 1: 80 of 100 calls of this month are used (80 %)"}},
		"Calls90": {
			calls(96) + `; UPDATE connections SET stale_at = now() - interval '1 h'`, hundred,
			[]string{"warning metered_calls 0 syncctl connection show 1: every other due time, until "},
		},
		"Calls97": {
			calls(97) + `; UPDATE connections SET stale_at = now() - interval '1 h', next_due_at = now() - interval '3 h'`, hundred,
			[]string{"critical metered_calls 0 syncctl connection show 1: only what people ask for runs, until "},
		},
		"CallsWithoutAllowance": {calls(1000000), nil, nil},
		"NotHandedOut": {
			newRun + `queued_at) VALUES (1, 1, 'full', 'manual', now() - interval '61 s')`, nil,
			[]string{"critical runs_not_handed_out 0 syncctl run list --status queued: the runs that are ready: 1, the oldest for 1 min."},
		},
		"JustQueued": {newRun + `queued_at) VALUES (1, 1, 'full', 'manual', now() - interval '50 s')`, nil, nil},
		"SpreadAfterDowntime": {
			newRun + `queued_at, not_before) VALUES (1, 1, 'full', 'schedule', now() - interval '9 min', now() - interval '30 s')`, nil, nil,
		},
		"BehindAnotherRun": {
			newRun + `status, finished_at) VALUES (1, 1, 'full', 'manual', 'succeeded', now() - interval '2 s');` +
				newRun + `queued_at) VALUES (1, 1, 'full', 'manual', now() - interval '1 h')`, nil, nil,
		},
		"PausedConnection": {
			`UPDATE connections SET state = 'paused', next_due_at = now() - interval '5 h';` +
				newRun + `queued_at) VALUES (1, 1, 'full', 'manual', now() - interval '1 h')`, nil, nil,
		},
		"NotClaimed": {
			newRun + `queued_at, handed_out_at) VALUES (1, 1, 'full', 'manual', now() - interval '1 h', now() - interval '5 min')`, nil,
			[]string{"critical runs_not_claimed 0 syncctl run list --status queued: that are handed out: 1, the oldest for 5 min."},
		},
		"WorkerDied": {
			newRun + `status, queued_at, handed_out_at, lease_until)
				VALUES (1, 1, 'full', 'manual', 'running', now() - interval '1 h', now() - interval '1 h', now() - interval '2 min')`, nil,
			[]string{"critical runs_not_claimed 0 syncctl run list --status queued: the oldest for 2 min."},
		},
		"Backlog": {
			workedRun + newRun + `queued_at, handed_out_at) VALUES (1, 1, 'full', 'manual', now() - interval '1 h', now() - interval '9 min')`, nil,
			[]string{"info runs_not_claimed 0 syncctl run list --status queued: runs that wait for a free worker: 1"},
		},
		"LongBacklog": {
			workedRun + newRun + `queued_at, handed_out_at) VALUES (1, 1, 'full', 'manual', now() - interval '1 h', now() - interval '11 min')`, nil,
			[]string{"warning runs_not_claimed 0 syncctl run list --status queued: Start more workers"},
		},
		"NotQueued": {
			`UPDATE connections SET next_due_at = now() - interval '61 s'`, nil,
			[]string{"critical connections_not_queued 0 syncctl connection list --state active: no scheduler queues the connections that are due: 1"},
		},
		"JustDue":    {`UPDATE connections SET next_due_at = now() - interval '50 s'`, nil, nil},
		"DueButOff":  {`UPDATE connections SET next_due_at = now() - interval '1 h', stale_at = now() - interval '1 h', auto_sync = false`, nil, nil},
		"NoSchedule": {`UPDATE connections SET schedule = 'off', next_due_at = NULL, stale_at = now() - interval '1 h'`, nil, nil},
		"NoDueTime": {
			`UPDATE connections SET next_due_at = NULL, stale_at = now() - interval '1 h'`, nil,
			[]string{"warning stale 1 syncctl run list --connection 1: data 3 h old: its schedule names no time to come"},
		},
		"StaleButOff": {`UPDATE connections SET stale_at = now() - interval '1 h', state = 'paused'`, nil, nil},
		"NeedsAttention": {
			`UPDATE connections SET state = 'needs_attention', state_reason = 'the login was refused', stale_at = now() - interval '1 h'`, nil,
			[]string{"warning needs_attention 1 syncctl connection credentials 1 FILE: needs attention, data 3 h old: the login was refused. " +
				"If it was mended in the ERP itself: syncctl connection resume 1"},
		},
		"Stale": {
			`UPDATE connections SET stale_at = now() - interval '1 s', last_success_at = NULL`, nil,
			[]string{"warning stale 1 syncctl run list --connection 1: " +
				"Kelp books (1): two due times have passed, never read: no run is under way, and its last succeeded"},
		},
		"StaleAndQueued": {
			newRun + `queued_at) VALUES (1, 1, 'full', 'schedule', now() - interval '20 s'); UPDATE connections SET stale_at = now() - interval '1 s'`, nil,
			[]string{"warning stale 1 syncctl run show 1: data 3 h old: its next run has been queued since 2"},
		},
		"StaleAndSlow": {
			newRun + `status, started_at, handed_out_at, lease_until)
				VALUES (1, 1, 'full', 'schedule', 'running', now() - interval '3 h', now() - interval '10 s', now() + interval '20 s');
			UPDATE connections SET stale_at = now() - interval '1 s'`, nil,
			[]string{"warning stale 1 syncctl run show 1: and has not ended: a rarer schedule may fit"},
		},
		"ReadsNothing": {
			oneContact + `UPDATE connections SET empty_since = now() - interval '3 h'`, nil,
			[]string{"warning reads_nothing 1 syncctl connection check 1: read nothing for 3 h, although we have contacts: 1."},
		},
		"ReadsNothingAndHolds": {
			oneContact + `UPDATE connections SET empty_since = now() - interval '3 h';
			INSERT INTO holds (tenant_id, connection_id, cause, opened_by_run) VALUES (1, 1, 'left by all', 17)`, nil, nil,
		},
		"HasNothing":       {`UPDATE connections SET empty_since = now() - interval '3 h'`, nil, nil},
		"ReadNothingStops": {oneContact + `UPDATE connections SET empty_since = now() - interval '3 h', state = 'paused'`, nil, nil},
		"MissesChanges": {
			`UPDATE connections SET idle_since = now() - interval '3 days', idle_runs = 20, idle_finds = 3`, nil,
			[]string{"warning misses_changes 1 syncctl connection set 1 full_every=1h: " +
				"its incremental runs have read nothing for 3 days (20 runs), but full runs found changes meanwhile: 3."},
		},
		"Idle":          {`UPDATE connections SET idle_since = now() - interval '1 year', idle_runs = 8000, idle_finds = 2`, nil, nil},
		"IdleForAWhile": {`UPDATE connections SET idle_since = now() - interval '19 h', idle_runs = 19, idle_finds = 3`, nil, nil},
		"FailedTwice": {
			goodRun + failedRun + failedRun + `UPDATE connections SET last_attempt_outcome = 'failed', stale_at = now() - interval '1 h'`, nil,
			[]string{"warning failing 1 syncctl run show 3: Kelp books (1): the last two runs failed, data 3 h old: transient: 503"},
		},
		"FailedOnce":  {failedRun + goodRun + failedRun + `UPDATE connections SET last_attempt_outcome = 'failed'`, nil, nil},
		"FailedFirst": {failedRun + `UPDATE connections SET last_attempt_outcome = 'failed'`, nil, nil},
		"Hold": {
			`INSERT INTO holds (tenant_id, connection_id, cause, opened_by_run, opened_at)
				VALUES (1, 1, '40 of 200 are missing', 17, now() - interval '3 days');
			INSERT INTO hold_items (tenant_id, hold_id, kind, entity_id, reason, added_by_run, left_at) VALUES
				(1, 1, 'customer', 1, 'erp_absent', 17, NULL), (1, 1, 'customer', 2, 'erp_absent', 17, NULL),
				(1, 1, 'customer', 3, 'erp_absent', 17, now())`, nil,
			[]string{"warning hold 1 syncctl hold show 1: Kelp books (1): 2 held for 3 days: 40 of 200 are missing"},
		},
		"HoldOver": {
			`INSERT INTO holds (tenant_id, connection_id, cause, opened_by_run, state)
				VALUES (1, 1, 'x', 17, 'rejected'), (1, 1, 'left by all', 18, 'open');
			INSERT INTO hold_items (tenant_id, hold_id, kind, entity_id, reason, added_by_run)
				VALUES (1, 1, 'customer', 1, 'erp_absent', 17)`, nil, nil,
		},
		"LoginEnds": {
			`UPDATE credentials SET ends_at = now() + interval '13 days 23 h'; UPDATE connections SET state = 'paused'`, nil,
			[]string{"warning login_ends 1 syncctl connection credentials 1 FILE: Kelp books (1): its login ends in 13 days ("},
		},
		"LoginEnded": {
			`UPDATE credentials SET ends_at = now() - interval '1 s'`, nil,
			[]string{"warning login_ends 1 syncctl connection credentials 1 FILE: its login ended ("},
		},
		"LoginLasts": {`UPDATE credentials SET ends_at = now() + interval '14 days 1 min'`, nil, nil},
		"CertificateEnds": {
			`UPDATE credentials SET ends_at = now() + interval '59 days 23 h', notice_days = 60`, nil,
			[]string{"warning login_ends 1 syncctl connection credentials 1 FILE: Kelp books (1): its login ends in 59 days ("},
		},
		"CertificateLasts": {`UPDATE credentials SET ends_at = now() + interval '60 days 1 min', notice_days = 60`, nil, nil},
		"Throttled": {
			newRun + `status, not_before, throttled_since)
				VALUES (1, 1, 'full', 'manual', 'waiting', now() + interval '1 min', now() - interval '6 min')`, nil,
			[]string{"info throttled 1 syncctl run show 1: Kelp books (1): throttled for 6 min"},
		},
		"ThrottledJustNow": {
			newRun + `status, not_before, throttled_since)
				VALUES (1, 1, 'full', 'manual', 'waiting', now() + interval '1 min', now() - interval '4 min')`, nil, nil,
		},
		"NewIssues": {
			`INSERT INTO issues (tenant_id, connection_id, record_kind, record_id, field, reason, opened_at, closed_at) VALUES
				(1, 1, 'customer', '1', 'name', 'x', now() - interval '23 h', NULL), (1, 1, 'customer', '2', 'name', 'x', now() - interval '25 h', NULL),
				(1, 1, 'customer', '3', 'name', 'x', now(), now())`, nil,
			[]string{"info issues 1 syncctl issue list --connection 1: Kelp books (1): open issues: 2, of them new in the last 24 h: 1"},
		},
		"IssuesGrow": {
			manyIssues(20, 10) + `UPDATE connections SET created_at = now() - interval '49 h'`, nil,
			[]string{"warning issues_grow 1 syncctl issue list --connection 1: open issues: 30, and they grow: new in the last 24 h: 10."},
		},
		"IssuesGrowLittle": {
			manyIssues(21, 10) + `UPDATE connections SET created_at = now() - interval '49 h'`, nil,
			[]string{"info issues 1 syncctl issue list --connection 1: open issues: 31, of them new in the last 24 h: 10"},
		},
		"IssuesAreFew": {
			manyIssues(0, 9) + `UPDATE connections SET created_at = now() - interval '49 h'`, nil,
			[]string{"info issues 1 syncctl issue list --connection 1: open issues: 9"},
		},
		"IssuesOfAFirstLoad": {manyIssues(0, 100), nil, []string{"info issues 1 syncctl issue list --connection 1: open issues: 100"}},
		"OldIssues": {
			`INSERT INTO issues (tenant_id, connection_id, record_kind, record_id, field, reason, opened_at)
				VALUES (1, 1, 'customer', '2', 'name', 'x', now() - interval '25 h')`, nil, nil,
		},
		"WorstFirst": {
			`UPDATE connections SET state = 'needs_attention', next_due_at = now() - interval '1 h';
			INSERT INTO issues (tenant_id, connection_id, record_kind, record_id, field, reason) VALUES (1, 1, 'customer', '1', 'name', 'x');` +
				workedRun + newRun + `queued_at, handed_out_at) VALUES (1, 1, 'full', 'manual', now() - interval '1 h', now() - interval '9 min')`, nil,
			[]string{
				"critical connections_not_queued 0 syncctl connection list --state active: ",
				"warning needs_attention 1 syncctl connection credentials 1 FILE: ",
				"info runs_not_claimed 0 syncctl run list --status queued: ", "info issues 1 syncctl issue list --connection 1: ",
			},
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			store, db := calm(t)
			statements(t, db, c.given)
			a, err := store.Attention(t.Context(), c.calls)
			if err != nil {
				t.Fatal(err)
			}
			if len(a.Items) != len(c.want) {
				t.Fatalf("got %d items, want %d: %+v", len(a.Items), len(c.want), a.Items)
			}
			for i, item := range a.Items {
				head, text, _ := strings.Cut(c.want[i], ": ")
				got := fmt.Sprintf("%s %s %d %s", item.Severity, item.Kind, item.Connection, item.Command)
				if got != head || !strings.Contains(item.Text, text) {
					t.Errorf("got  %s: %s\nwant %s: …%s…", got, item.Text, head, text)
				}
				if (item.Connection != 0) != (item.Tenant == 1) {
					t.Errorf("%s is of tenant %d and connection %d", item.Kind, item.Tenant, item.Connection)
				}
			}
			needed := slices.ContainsFunc(c.want, func(w string) bool { return !strings.HasPrefix(w, "info") })
			if a.Needed() != needed {
				t.Errorf("a person is needed: %v, want %v", a.Needed(), needed)
			}
		})
	}
}

// TestAttentionFitsOneScreen guards that thousands of companies with one cause are a few lines and a number.
func TestAttentionFitsOneScreen(t *testing.T) {
	t.Parallel()
	store, db := calm(t)
	statements(t, db, `
		INSERT INTO connections (tenant_id, erp, account, name, schedule, next_due_at, stale_at, state, last_success_at)
		SELECT 1, 'memory', 'n' || n, 'Company ' || n, '@every 1h', now() + interval '1 h', now(), 'needs_attention', now() - n * interval '1 h'
		FROM generate_series(1, 42) n`)
	a, err := store.Attention(t.Context(), nil)
	if err != nil {
		t.Fatal(err)
	}
	if len(a.Items) != 6 {
		t.Fatalf("%d items", len(a.Items))
	}
	if first := a.Items[0].Text; !strings.HasPrefix(first, "Company 42 ") {
		t.Errorf("the one with the oldest data is not the first: %s", first)
	}
	if last := a.Items[5]; last.Text != "… and 37 more" ||
		last.Command != "syncctl connection list --state needs_attention" || last.Connection != 0 {
		t.Errorf("the last is %+v", last)
	}
}

// TestAttentionCounts guards the summary.
func TestAttentionCounts(t *testing.T) {
	t.Parallel()
	store, db := calm(t)
	statements(t, db, `
		INSERT INTO tenants (name) VALUES ('Other');
		INSERT INTO connections (tenant_id, erp, account, name, schedule, stale_at, state)
			VALUES (2, 'memory', 'b', 'Other', 'off', now() + interval '1 h', 'paused');
		INSERT INTO runs (tenant_id, connection_id, mode, trigger, status, finished_at, created, updated, unchanged, deactivated, held) VALUES
			(1, 1, 'full', 'manual', 'succeeded', now() - interval '23 h', 1, 2, 3, 4, 5),
			(2, 2, 'full', 'manual', 'succeeded', now(), 10, 20, 30, 40, 50),
			(2, 2, 'full', 'manual', 'failed', now(), 0, 0, 1, 0, 0),
			(1, 1, 'full', 'manual', 'succeeded', now() - interval '25 h', 1000, 0, 0, 0, 0),
			(1, 1, 'full', 'manual', 'queued', NULL, 0, 0, 0, 0, 0);
		-- A preview changed nothing.
		INSERT INTO runs (tenant_id, connection_id, mode, trigger, status, finished_at, created, preview)
			VALUES (1, 1, 'full', 'manual', 'succeeded', now(), 5000, true)`)
	a, err := store.Attention(t.Context(), nil)
	if err != nil {
		t.Fatal(err)
	}
	want := "{2 map[active:1 paused:1] map[queued:1] map[failed:1 succeeded:3] map[created:11 deactivated:44 held:55 read:67 updated:22]}"
	if got := fmt.Sprint(a.Summary); got != want {
		t.Errorf("got  %s\nwant %s", got, want)
	}
}

// TestTimesAreUTC: documents promise it, and a server may live in another zone.
func TestTimesAreUTC(t *testing.T) {
	t.Parallel()
	store, db := calm(t)
	statements(t, db, goodRun+`DO $$ BEGIN EXECUTE format('ALTER DATABASE %I SET timezone = ''Asia/Kolkata''', current_database()); END $$`)
	db.SetMaxIdleConns(0) // the next connection begins in that zone
	var zone string
	if err := db.QueryRowContext(t.Context(), `SHOW timezone`).Scan(&zone); err != nil || zone != "Asia/Kolkata" {
		t.Fatal(zone, err)
	}
	r, err := store.Run(t.Context(), 1)
	if err != nil {
		t.Fatal(err)
	}
	if at := r.FinishedAt.Format(time.RFC3339); !strings.HasSuffix(at, "Z") {
		t.Errorf("%s is not UTC", at)
	}
}

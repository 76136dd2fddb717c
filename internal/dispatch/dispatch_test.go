package dispatch_test

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/centime/contactsync/internal/connector"
	"github.com/centime/contactsync/internal/dispatch"
	"github.com/centime/contactsync/internal/postgres"
	"github.com/centime/contactsync/internal/postgres/pgtest"
	"github.com/centime/contactsync/internal/queue"
	"github.com/centime/contactsync/internal/queue/redistest"
)

var denied = &connector.Error{Kind: connector.Denied, Step: "query customers", Message: "403"}

// fleet is a tenant with many connections of one ERP, none of them worked by anybody but the test.
type fleet struct {
	t     *testing.T
	db    *sql.DB
	store *postgres.Store
	redis *queue.Redis
}

func newFleet(t *testing.T, connections int) *fleet {
	t.Helper()
	t.Parallel()
	dsn := pgtest.New(t)
	db, err := sql.Open("postgres", dsn)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = db.Close() })
	f := &fleet{t: t, db: db}
	if f.store, err = postgres.Open(dsn, 8); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = f.store.Close() })
	if f.redis, err = queue.Open(redistest.New(t).URL); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = f.redis.Close() })
	f.do(`INSERT INTO contactsync.tenants (name) VALUES ('Kelp')`)
	f.do(`INSERT INTO contactsync.connections (tenant_id, erp, account, name, schedule, next_due_at, stale_at, last_full_at)
		SELECT 1, 'quickbooks-online', g::text, 'books ' || g, '@every 1h', now() + interval '30 minutes', now(), now() FROM generate_series(1, $1::int) AS g`,
		connections)
	return f
}

func (f *fleet) do(statement string, args ...any) {
	f.t.Helper()
	if _, err := f.db.ExecContext(f.t.Context(), statement, args...); err != nil {
		f.t.Fatalf("%s: %v", statement, err)
	}
}

func (f *fleet) value(query string, args ...any) string {
	f.t.Helper()
	var out sql.NullString
	if err := f.db.QueryRowContext(f.t.Context(), query, args...).Scan(&out); err != nil {
		f.t.Fatalf("%s: %v", query, err)
	}
	return out.String
}

func (f *fleet) want(what, want, query string, args ...any) {
	f.t.Helper()
	if got := f.value(query, args...); got != want {
		f.t.Errorf("%s: %s, want %s", what, got, want)
	}
}

// scheduler is a new one, which has watched nothing yet.
func (f *fleet) scheduler() *dispatch.Scheduler {
	return &dispatch.Scheduler{
		Store: f.store, Queue: f.redis, Log: slog.New(slog.NewTextHandler(f.t.Output(), nil)), Tick: time.Second, Lease: 2 * time.Second,
		Keep: postgres.Keep{Quiet: 720 * time.Hour, Runs: 9600 * time.Hour},
	}
}

func (f *fleet) tick(s *dispatch.Scheduler) {
	f.t.Helper()
	if err := s.Once(f.t.Context()); err != nil {
		f.t.Fatal(err)
	}
}

// finish ends the latest run of each of the connections from first to last, as a worker does.
func (f *fleet) finish(first, last int, status, kind string) {
	f.t.Helper()
	f.do(`INSERT INTO contactsync.runs (tenant_id, connection_id, mode, trigger, status, started_at, finished_at, error_kind, error)
		SELECT 1, g, 'incremental', 'schedule', $3, clock_timestamp(), clock_timestamp(), nullif($4, ''), nullif($4, '') FROM generate_series($1::int, $2::int) AS g`,
		first, last, status, kind)
}

// TestDueConnectionsAreQueuedOnce: whatever number of schedulers look at the same moment, each due connection gets one run
// and one delivery, and its next due time lies within its interval.
func TestDueConnectionsAreQueuedOnce(t *testing.T) {
	f := newFleet(t, 1200)
	f.do(`UPDATE contactsync.connections SET next_due_at = now() - interval '1 second'`)
	var all sync.WaitGroup
	for range 6 {
		s := f.scheduler()
		all.Go(func() {
			for range 3 {
				if err := s.Once(t.Context()); err != nil {
					t.Error(err)
				}
			}
		})
	}
	all.Wait()
	f.want("runs", "1200", `SELECT count(*) FROM contactsync.runs`)
	f.want("connections with one run", "1200", `SELECT count(DISTINCT connection_id) FROM contactsync.runs WHERE delivery = 1 AND handed_out_at IS NOT NULL`)
	f.want("due within the hour", "1200", `SELECT count(*) FROM contactsync.connections WHERE next_due_at > now() AND next_due_at <= now() + interval '1 hour'`)
	depths, err := f.redis.Depths(t.Context())
	if err != nil || depths["scheduled"].Waiting != 1200 {
		t.Errorf("the queue holds %+v, %v", depths, err)
	}
}

// TestDueTimesAreSpread: connections of one interval do not meet.
func TestDueTimesAreSpread(t *testing.T) {
	f := newFleet(t, 1200)
	f.do(`UPDATE contactsync.connections SET next_due_at = now() - interval '1 second'`)
	f.tick(f.scheduler())
	f.want("minutes of the hour that are used", "60", `SELECT count(DISTINCT floor(extract(epoch FROM next_due_at) / 60) % 60) FROM contactsync.connections`)
	if most := f.value(`SELECT max(n)::int FROM (SELECT count(*) AS n FROM contactsync.connections GROUP BY date_trunc('minute', next_due_at)) AS m`); most > "60" || len(most) > 2 {
		t.Errorf("%s of 1200 connections are due in the same minute", most)
	}
}

// TestCatchUpIsNoStorm: after hours without a scheduler each connection runs once, not once for each due time it missed, and
// all of them together are spread over ten minutes; what is on time starts at once.
func TestCatchUpIsNoStorm(t *testing.T) {
	f := newFleet(t, 600)
	f.do(`UPDATE contactsync.connections SET next_due_at = now() - CASE WHEN id <= 500 THEN interval '6 hours' ELSE interval '10 seconds' END`)
	s := f.scheduler()
	f.tick(s)
	f.tick(s)
	f.want("runs", "600", `SELECT count(*) FROM contactsync.runs`)
	f.want("on time and handed out", "100", `SELECT count(*) FROM contactsync.runs WHERE connection_id > 500 AND handed_out_at IS NOT NULL AND not_before IS NULL`)
	f.want("late and spread", "500", `SELECT count(*) FROM contactsync.runs WHERE connection_id <= 500 AND not_before < now() + interval '10 minutes'`)
	f.want("minutes they are spread over", "10", `SELECT count(DISTINCT floor(extract(epoch FROM not_before - queued_at) / 60)) FROM contactsync.runs WHERE connection_id <= 500`)

	// A person does not wait for it, and is not behind the scheduled ones in the queue.
	late := f.value(`SELECT connection_id FROM contactsync.runs WHERE not_before > now() + interval '5 minutes' LIMIT 1`)
	var id int64
	_, _ = fmt.Sscan(late, &id)
	run, joined, err := f.store.QueueRun(t.Context(), postgres.Request{Tenant: 1, Connection: id, Mode: postgres.Full, Trigger: postgres.Manual, By: "ops"})
	if err != nil || !joined {
		t.Fatalf("joined %v, %v", joined, err)
	}
	f.tick(s)
	f.want("handed out", "true", `SELECT handed_out_at IS NOT NULL AND not_before IS NULL AND mode = 'full' FROM contactsync.runs WHERE id = $1`, run)
	if waiting, err := f.redis.Waiting(t.Context(), queue.Task{Run: run, Delivery: 1, Queue: queue.Urgent}); !waiting || err != nil {
		t.Errorf("not in the urgent queue: %v", err)
	}
}

// TestJoinedRunBecomesUrgent: a resync that joins a run which waits among the scheduled ones is handed out anew.
func TestJoinedRunBecomesUrgent(t *testing.T) {
	f := newFleet(t, 1)
	f.do(`UPDATE contactsync.connections SET next_due_at = now()`)
	s := f.scheduler()
	f.tick(s)
	run, joined, err := f.store.QueueRun(t.Context(), postgres.Request{Tenant: 1, Connection: 1, Mode: postgres.Incremental, Trigger: postgres.Manual, By: "ops"})
	if err != nil || !joined {
		t.Fatalf("joined %v, %v", joined, err)
	}
	f.tick(s)
	if waiting, err := f.redis.Waiting(t.Context(), queue.Task{Run: run, Delivery: 2, Queue: queue.Urgent}); !waiting || err != nil {
		t.Errorf("not in the urgent queue: %v", err)
	}
	if _, err := f.store.Claim(t.Context(), run, 1, time.Minute); err == nil {
		t.Error("the delivery in the scheduled queue can still be claimed")
	}
}

// TestScheduleChangeHoldsAtOnce: a changed schedule moves the next due time with it, also while due connections are queued.
func TestScheduleChangeHoldsAtOnce(t *testing.T) {
	f := newFleet(t, 1)
	c, err := f.store.FindConnection(t.Context(), "1")
	if err != nil {
		t.Fatal(err)
	}
	daily, often, off := "CRON_TZ=America/New_York 30 6 * * *", "@every 1m", "off"
	stop := make(chan struct{})
	var ticking sync.WaitGroup
	ticking.Go(func() {
		s := f.scheduler()
		for {
			select {
			case <-stop:
				return
			default:
				if err := s.Once(t.Context()); err != nil {
					t.Error(err)
					return
				}
			}
		}
	})
	for range 10 {
		for _, change := range [][2]string{
			{daily, `SELECT (next_due_at AT TIME ZONE 'America/New_York')::time = '06:30' FROM contactsync.connections`},
			{often, `SELECT next_due_at <= now() + interval '1 minute' FROM contactsync.connections`},
			{off, `SELECT next_due_at IS NULL FROM contactsync.connections`},
		} {
			schedule, want := change[0], change[1]
			f.do(`UPDATE contactsync.connections SET next_due_at = now() WHERE next_due_at IS NOT NULL`) // so that a scheduler is busy with it
			if err := f.store.Set(t.Context(), c, postgres.Settable{Schedule: &schedule}, postgres.By{User: "ops"}); err != nil {
				t.Fatal(err)
			}
			c.Schedule = schedule
			f.want(schedule, "true", want)
		}
	}
	close(stop)
	ticking.Wait()
}

// TestOneBrokenConnectionStopsNobody: misconfigured once, among others that work, is no reason to stop the schedule.
func TestOneBrokenConnectionStopsNobody(t *testing.T) {
	f := newFleet(t, 50)
	f.finish(1, 48, "succeeded", "")
	f.finish(49, 50, "failed", "misconfigured")
	f.tick(f.scheduler())
	f.want("pauses", "0", `SELECT count(*) FROM contactsync.erp_pauses`)
}

// TestPausedERP walks through a pause: what is due waits, one trial goes out, people's resyncs are worked, a denial blames
// nobody, another ERP goes on, and after a success what was due is caught up with.
func TestPausedERP(t *testing.T) {
	f := newFleet(t, 50)
	f.do(`UPDATE contactsync.connections SET erp = 'netsuite' WHERE id > 40`)
	f.finish(1, 3, "failed", "misconfigured")
	f.do(`UPDATE contactsync.connections SET next_due_at = now() - interval '2 minutes'`)
	s := f.scheduler()
	f.tick(s)
	f.want("pause", "quickbooks-online", `SELECT erp FROM contactsync.erp_pauses WHERE ended_at IS NULL`)
	f.want("queued", "quickbooks-online 1, netsuite 10", `SELECT string_agg(erp || ' ' || n, ', ' ORDER BY n) FROM (
		SELECT n.erp, count(*) AS n FROM contactsync.runs r JOIN contactsync.connections n ON n.id = r.connection_id WHERE r.status = 'queued' GROUP BY n.erp) AS q`)
	f.want("not active", "0", `SELECT count(*) FROM contactsync.connections WHERE state <> 'active'`)

	trial := f.value(`SELECT r.id FROM contactsync.runs r WHERE r.reason LIKE 'trial: %'`)
	var id int64
	_, _ = fmt.Sscan(trial, &id)
	claimed, err := f.store.Claim(t.Context(), id, 1, time.Minute)
	if err != nil || !claimed.ERPPaused {
		t.Fatalf("claimed %+v, %v", claimed, err)
	}
	f.tick(f.scheduler())
	f.want("trials at once", "1", `SELECT count(*) FROM contactsync.runs r WHERE r.reason LIKE 'trial: %'`)
	if err := f.store.Fail(t.Context(), claimed.Step, denied, 1); err != nil {
		t.Fatal(err)
	}
	f.want("state after a denied trial", "active", `SELECT state FROM contactsync.connections WHERE id = $1`, claimed.Connection)

	f.do(`UPDATE contactsync.erp_pauses SET next_trial_at = now()`)
	f.tick(f.scheduler())
	f.want("another connection is tried", "2", `SELECT count(DISTINCT connection_id) FROM contactsync.runs r WHERE r.reason LIKE 'trial: %'`)
	f.do(`UPDATE contactsync.runs SET status = 'succeeded', started_at = clock_timestamp(), finished_at = clock_timestamp() WHERE reason LIKE 'trial: %' AND status = 'queued'`)
	f.tick(f.scheduler())
	f.want("pauses", "0", `SELECT count(*) FROM contactsync.erp_pauses WHERE ended_at IS NULL`)
	f.want("caught up, spread", "true", `SELECT count(*) >= 38 AND bool_and(not_before < now() + interval '4 minutes') FROM contactsync.runs r
		JOIN contactsync.connections n ON n.id = r.connection_id WHERE r.status = 'queued' AND n.erp = 'quickbooks-online' AND r.not_before IS NOT NULL`)
}

// TestMisconfiguredThenDenied: a company whose login is lost while the installation was refused is told so once the installation
// is let in again, though nothing succeeds: else the pause of an only company would have no end, and nobody would ask for its login.
func TestMisconfiguredThenDenied(t *testing.T) {
	for _, c := range []struct{ connections, denied int }{{1, 1}, {2, 2}, {5, 1}, {50, 3}} { // the others are idle
		t.Run(fmt.Sprint(c.denied, " of ", c.connections), func(t *testing.T) {
			f := newFleet(t, c.connections)
			f.finish(1, c.denied, "failed", "misconfigured")
			f.tick(f.scheduler())
			f.finish(1, c.denied-1, "failed", "denied")
			f.tick(f.scheduler())
			f.want("pauses before as many are denied as were misconfigured", "1", `SELECT count(*) FROM contactsync.erp_pauses WHERE ended_at IS NULL`)
			f.finish(c.denied, c.denied, "failed", "denied")
			f.tick(f.scheduler())
			f.want("pauses once they are", "0", `SELECT count(*) FROM contactsync.erp_pauses WHERE ended_at IS NULL`)
		})
	}
}

// TestMostAccountsRefused: a cap or a block that hits most accounts is the installation's, and those that were blamed for it
// are active again; a few refused accounts are their own.
func TestMostAccountsRefused(t *testing.T) {
	f := newFleet(t, 20)
	f.finish(1, 20, "succeeded", "")
	f.finish(1, 9, "failed", "denied")
	f.do(`UPDATE contactsync.connections SET state = 'needs_attention', state_reason = 'refused', next_due_at = now() + interval '1 day' WHERE id <= 9`)
	f.tick(f.scheduler())
	f.want("pauses, nine of twenty", "0", `SELECT count(*) FROM contactsync.erp_pauses`)
	f.finish(10, 12, "failed", "throttled")
	f.tick(f.scheduler())
	f.want("pauses, twelve of twenty", "1", `SELECT count(*) FROM contactsync.erp_pauses WHERE cause LIKE '12 of 20 %'`)
	f.want("needing attention", "0", `SELECT count(*) FROM contactsync.connections WHERE state <> 'active' OR state_reason <> ''`)
	f.want("due again", "9", `SELECT count(*) FROM contactsync.connections WHERE next_due_at <= now()`)
}

// TestRefusedAfterAPauseIsTheirOwn: once an account works again the installation is accepted. Those that were refused before, and
// are still, need attention each by itself, however many; else each company that connects again would have all others tried
// again in vain, as after a restore of Postgres, whose refresh tokens are dead. Those that worked meanwhile count again.
func TestRefusedAfterAPauseIsTheirOwn(t *testing.T) {
	f := newFleet(t, 20)
	f.do(`UPDATE contactsync.connections SET last_success_at = now() - interval '1 hour'`)
	f.finish(1, 20, "failed", "denied")
	f.tick(f.scheduler())
	f.want("pauses", "1", `SELECT count(*) FROM contactsync.erp_pauses WHERE ended_at IS NULL`)
	f.finish(1, 1, "succeeded", "")
	f.do(`UPDATE contactsync.connections SET last_success_at = clock_timestamp() WHERE id = 1`)
	f.tick(f.scheduler())
	f.finish(2, 20, "failed", "denied")
	f.do(`UPDATE contactsync.connections SET state = 'needs_attention' WHERE id > 1`)
	f.tick(f.scheduler())
	f.want("pauses after one works", "0", `SELECT count(*) FROM contactsync.erp_pauses WHERE ended_at IS NULL`)
	f.want("needing attention", "19", `SELECT count(*) FROM contactsync.connections WHERE state = 'needs_attention'`)

	f.do(`UPDATE contactsync.connections SET last_success_at = clock_timestamp(), state = 'active' WHERE id <= 5`)
	f.finish(1, 5, "failed", "denied")
	f.tick(f.scheduler())
	f.want("pauses after those that worked are refused", "5 of 5 accounts tried in the last hour were refused or throttled",
		`SELECT cause FROM contactsync.erp_pauses WHERE ended_at IS NULL`)
}

// TestEndedPausesStayEnded: what was throttled before the trial that succeeded says nothing of what comes after it. It would pause the ERP again
// at once, and each trial would end that pause, until the last failure is an hour old.
func TestEndedPausesStayEnded(t *testing.T) {
	f := newFleet(t, 20)
	f.finish(1, 20, "failed", "throttled")
	f.tick(f.scheduler())
	f.want("pauses", "1", `SELECT count(*) FROM contactsync.erp_pauses WHERE ended_at IS NULL`)
	f.finish(1, 1, "succeeded", "")
	for range 2 {
		f.tick(f.scheduler())
		f.want("pauses after a trial that succeeded", "0", `SELECT count(*) FROM contactsync.erp_pauses WHERE ended_at IS NULL`)
	}
	f.finish(2, 20, "failed", "throttled")
	f.tick(f.scheduler())
	f.want("pauses after they were throttled again", "1", `SELECT count(*) FROM contactsync.erp_pauses WHERE ended_at IS NULL`)
}

// TestPausesOfNobodyEnd: once all whom a trial could try are removed, paused or off the schedule, no run could end the pause. Where those that are
// left need attention, one of them is tried.
func TestPausesOfNobodyEnd(t *testing.T) {
	f := newFleet(t, 3)
	f.finish(1, 3, "failed", "misconfigured")
	f.tick(f.scheduler())
	f.do(`UPDATE contactsync.connections SET state = 'removed' WHERE id = 1; UPDATE contactsync.connections SET state = 'needs_attention' WHERE id > 1;
		UPDATE contactsync.runs SET status = 'cancelled' WHERE status = 'queued'; UPDATE contactsync.erp_pauses SET next_trial_at = now()`)
	f.tick(f.scheduler())
	f.want("trials of those that need attention", "1", `SELECT count(*) FROM contactsync.runs WHERE status = 'queued' AND reason LIKE 'trial: %'`)
	f.do(`UPDATE contactsync.connections SET state = 'paused' WHERE id = 2; UPDATE contactsync.connections SET auto_sync = false WHERE id = 3`)
	for range 2 {
		f.tick(f.scheduler())
		f.want("pauses that nobody can end", "0", `SELECT count(*) FROM contactsync.erp_pauses WHERE ended_at IS NULL`)
	}
}

// TestFewAccountsAreTheirOwn: with four connections, all refused, each needs attention by itself.
func TestFewAccountsAreTheirOwn(t *testing.T) {
	f := newFleet(t, 4)
	f.finish(1, 4, "failed", "denied")
	f.tick(f.scheduler())
	f.want("pauses", "0", `SELECT count(*) FROM contactsync.erp_pauses`)
}

// TestBudgetOfMeteredCalls: at 80 % nothing changes, at 90 % every other due time is left out, at 97 % the schedule asks for
// nothing while people still may, and next month it goes on.
func TestBudgetOfMeteredCalls(t *testing.T) {
	for _, c := range []struct {
		calls                 int
		queued, doubled       string
		afterwards, nextMonth string
	}{
		{799, "10", "0", "0", "0"}, {800, "10", "0", "0", "0"}, {900, "10", "10", "0", "0"}, {969, "10", "10", "0", "0"}, {970, "0", "0", "10", "10"}, {2000, "0", "0", "10", "10"},
	} {
		t.Run(fmt.Sprint(c.calls), func(t *testing.T) {
			f := newFleet(t, 20)
			f.do(`UPDATE contactsync.connections SET erp = 'netsuite' WHERE id > 10`)
			f.do(`UPDATE contactsync.connections SET next_due_at = now()`)
			f.do(`INSERT INTO contactsync.call_counts SELECT 1, 1, date_trunc('month', now() AT TIME ZONE 'UTC')::date, $1 - 5`, c.calls)
			f.do(`INSERT INTO contactsync.call_counts SELECT 1, 2, date_trunc('month', now() AT TIME ZONE 'UTC')::date, 5`)
			f.do(`INSERT INTO contactsync.call_counts SELECT 1, 2, date_trunc('month', now() AT TIME ZONE 'UTC' - interval '32 days')::date, 5000`)
			s := f.scheduler()
			s.Allowances = map[string]int64{"quickbooks-online": 1000}
			f.tick(s)
			const ours = `SELECT count(*) FROM contactsync.runs WHERE connection_id <= 10 AND trigger = 'schedule'`
			f.want("queued", c.queued, ours)
			f.want("without a budget of theirs", "10", `SELECT count(*) FROM contactsync.runs WHERE connection_id > 10`)
			f.want("next due time left out", c.doubled, `SELECT count(*) FROM contactsync.connections WHERE id <= 10 AND next_due_at > now() + interval '1 hour'`)
			f.want("still due", c.afterwards, `SELECT count(*) FROM contactsync.connections WHERE id <= 10 AND next_due_at <= now()`)
			if _, _, err := f.store.QueueRun(t.Context(), postgres.Request{Tenant: 1, Connection: 1, Mode: postgres.Full, Trigger: postgres.Manual, By: "ops"}); err != nil {
				t.Fatal(err)
			}
			f.tick(s)
			f.want("a person's", "1", `SELECT count(*) FROM contactsync.runs WHERE trigger = 'manual' AND handed_out_at IS NOT NULL`)

			if c.nextMonth != "0" {
				f.do(`DELETE FROM contactsync.call_counts WHERE month >= date_trunc('month', now() AT TIME ZONE 'UTC')::date`)
				s := f.scheduler()
				s.Allowances = map[string]int64{"quickbooks-online": 1000}
				f.tick(s)
				f.want("next month", c.nextMonth, `SELECT count(DISTINCT connection_id) FROM contactsync.runs WHERE connection_id <= 10`)
			}
		})
	}
}

// TestCallsAreCountedByMonth: whatever raises a run's calls raises the month's.
func TestCallsAreCountedByMonth(t *testing.T) {
	f := newFleet(t, 2)
	f.finish(1, 2, "succeeded", "")
	f.do(`UPDATE contactsync.runs SET erp_calls = erp_calls + 3 WHERE connection_id = 1`)
	f.do(`UPDATE contactsync.runs SET erp_calls = erp_calls + 4`)
	f.do(`UPDATE contactsync.runs SET status = 'succeeded'`)
	calls, err := f.store.MeteredCalls(t.Context())
	if err != nil || calls["quickbooks-online"] != 11 {
		t.Errorf("%v, %v; want 11", calls, err)
	}
}

// TestLostTasksAreHandedOutAgain: what Redis lost, archived, or left active for ever is handed out anew once its delivery is a
// lease old, and not before.
func TestLostTasksAreHandedOutAgain(t *testing.T) {
	f := newFleet(t, 3)
	f.do(`UPDATE contactsync.connections SET next_due_at = now()`)
	s := f.scheduler()
	f.tick(s)
	if err := f.redis.Forget(t.Context()); err != nil {
		t.Fatal(err)
	}
	f.tick(s)
	f.want("handed out anew too early", "0", `SELECT count(*) FROM contactsync.runs WHERE delivery <> 1`)
	f.do(`UPDATE contactsync.runs SET handed_out_at = now() - interval '2.1 seconds' WHERE connection_id <= 2`)
	f.tick(s)
	f.want("handed out anew", "2", `SELECT count(*) FROM contactsync.runs WHERE delivery = 2`)
	depths, err := f.redis.Depths(t.Context())
	if err != nil || depths["scheduled"].Waiting != 2 {
		t.Errorf("the queue holds %+v, %v", depths, err)
	}
}

// TestFailingFullRunsLeaveRoomForOthers: where full runs fail again and again, every fourth due run reads what has changed: else somebody whom
// the ERP states inactive would get mail for as long as the listing fails.
func TestFailingFullRunsLeaveRoomForOthers(t *testing.T) {
	f := newFleet(t, 1)
	f.do(`UPDATE contactsync.connections SET last_full_at = now() - interval '2 days', cursor = '{"v":1}'`)
	s := f.scheduler()
	for n, want := range []string{"full", "full", "full", "incremental", "full"} {
		f.do(`UPDATE contactsync.connections SET next_due_at = now()`)
		f.tick(s)
		f.want(fmt.Sprintf("mode of run %d", n+1), want, `SELECT mode FROM contactsync.runs ORDER BY id DESC LIMIT 1`)
		f.do(`UPDATE contactsync.runs SET status = CASE mode WHEN 'full' THEN 'failed' ELSE 'succeeded' END, finished_at = now(), started_at = now()
			WHERE status = 'queued'`)
	}
}

// TestLostTasksBehindABacklog: however many deliveries wait in the queue rightly, as first loads of hundreds of companies do, one that is lost
// is found within a few ticks.
func TestLostTasksBehindABacklog(t *testing.T) {
	f := newFleet(t, 510)
	f.do(`UPDATE contactsync.connections SET next_due_at = now()`)
	s := f.scheduler()
	f.tick(s)
	f.do(`UPDATE contactsync.runs SET handed_out_at = now() - interval '1 hour'`)
	f.do(`UPDATE contactsync.runs SET handed_out_at = now() - interval '1 minute', delivery = 7 WHERE id = (SELECT max(id) FROM contactsync.runs)`)
	f.tick(s)
	f.tick(s)
	f.want("handed out anew", "8 of 1", `SELECT max(delivery) || ' of ' || count(*) FILTER (WHERE delivery > 1) FROM contactsync.runs`)
}

// deaf is a queue that stops confirming.
type deaf struct {
	*queue.Redis
	confirms int
	asked    int
}

func (d *deaf) Enqueue(ctx context.Context, t queue.Task) error {
	d.asked++
	if d.asked > d.confirms {
		return errors.New("no answer")
	}
	return d.Redis.Enqueue(ctx, t)
}

// TestQueueThatDoesNotConfirm: the scheduler asks once and goes on; when Redis is back everything is handed out at once, not
// only after a lease.
func TestQueueThatDoesNotConfirm(t *testing.T) {
	f := newFleet(t, 10)
	f.do(`UPDATE contactsync.connections SET next_due_at = now()`)
	s := f.scheduler()
	q := &deaf{Redis: f.redis, confirms: 3}
	s.Queue = q
	if err := s.Once(t.Context()); err == nil || q.asked != 4 {
		t.Errorf("asked %d times, %v", q.asked, err)
	}
	f.want("handed out", "3", `SELECT count(*) FROM contactsync.runs WHERE handed_out_at IS NOT NULL`)
	f.tick(f.scheduler())
	f.want("handed out", "10", `SELECT count(*) FROM contactsync.runs WHERE handed_out_at IS NOT NULL`)
	depths, err := f.redis.Depths(t.Context())
	if err != nil || depths["scheduled"].Waiting != 10 {
		t.Errorf("the queue holds %+v, %v", depths, err)
	}
}

// Tasks go to the queue of their trigger.
func TestQueueOfATrigger(t *testing.T) {
	t.Parallel()
	got := []queue.Name{dispatch.QueueOf(postgres.Manual), dispatch.QueueOf(postgres.BySchedule), dispatch.QueueOf(postgres.FirstLoad)}
	if want := []queue.Name{queue.Urgent, queue.Scheduled, queue.FirstLoad}; !slices.Equal(got, want) {
		t.Errorf("%v, want %v", got, want)
	}
	for _, gave := range []bool{true, false} {
		if task := dispatch.Task(postgres.HandOut{Run: 1, Delivery: 2, Trigger: postgres.FirstLoad, GaveWay: gave}); task.StandBack != gave {
			t.Errorf("after a step that gave way (%v): %+v", gave, task)
		}
	}
}

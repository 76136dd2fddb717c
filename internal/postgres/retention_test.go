package postgres_test

import (
	"context"
	"database/sql"
	"fmt"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/centime/contactsync/internal/postgres"
)

const day = 24 * time.Hour

var keep = postgres.Keep{Quiet: 30 * day, Runs: 400 * day}

// removeAll calls RemoveOld until nothing is left, and sums up.
func removeAll(t *testing.T, store *postgres.Store, limit int) postgres.Removed {
	t.Helper()
	sum := postgres.Removed{}
	for range 1000 {
		removed, err := store.RemoveOld(t.Context(), keep, limit)
		if err != nil {
			t.Fatal(err)
		}
		if !removed.Any() {
			return sum
		}
		for what, n := range removed {
			sum[what] += n
		}
	}
	t.Fatal("there is always something to remove")
	return nil
}

// TestOldRunsAreRemoved guards which runs go and at what age: those that changed nothing after 30 days, others after 400, and
// never one that still says something about now.
func TestOldRunsAreRemoved(t *testing.T) {
	t.Parallel()
	// Every case is a run, and its connection has a run of yesterday besides unless the case is about the last one.
	for name, c := range map[string]struct {
		age   time.Duration
		set   string // what makes it another than a quiet one
		also  string
		alone bool
		stays bool
	}{
		"QuietBefore":  {age: 30*day - time.Minute, stays: true},
		"QuietAfter":   {age: 30*day + time.Minute},
		"Created":      {age: 399 * day, set: "created = 1", stays: true},
		"Updated":      {age: 399 * day, set: "updated = 1", stays: true},
		"Refused":      {age: 399 * day, set: "refused = 1", stays: true},
		"WithIssue":    {age: 399 * day, set: "with_issue = 1", stays: true},
		"Deactivated":  {age: 399 * day, set: "deactivated = 1", stays: true},
		"Held":         {age: 399 * day, set: "held = 1", stays: true},
		"TookRoles":    {age: 399 * day, set: "roles_lost = 1", stays: true}, // rejecting may bring them back
		"Failed":       {age: 399 * day, set: "status = 'failed'", stays: true},
		"Cancelled":    {age: 399 * day, set: "status = 'cancelled'", stays: true},
		"ChangedAfter": {age: 400*day + time.Minute, set: "created = 1, updated = 1, deactivated = 1, held = 1"},
		"FailedAfter":  {age: 400*day + time.Minute, set: "status = 'failed'"},
		"PreviewBefore": {
			age: 30*day - time.Minute, set: "preview = true, created = 2, held = 1", stays: true, also: reported,
		},
		"PreviewAfter": {age: 30*day + time.Minute, set: "preview = true, created = 2, held = 1", also: reported},
		"Last":         {age: 1000 * day, alone: true, stays: true},
		"LastButAPreview": {
			age: 1000 * day, alone: true, stays: true, also: afterIt("preview, status, finished_at", "true, 'succeeded', now()"),
		},
		"LastButUnfinished": {age: 1000 * day, alone: true, stays: true, also: afterIt("status", "'waiting'")},
		"LastToEnd": {
			age: 1000 * day, alone: true, stays: true, also: afterIt("status, finished_at", "'cancelled', now() - interval '1001 days'"),
		},
		"Unfinished": {age: 1000 * day, set: "status = 'waiting', finished_at = NULL, queued_at = now() - interval '999 days'", stays: true},
		"OpenHold": {
			age: 1000 * day, stays: true,
			also: `INSERT INTO holds (tenant_id, connection_id, cause, opened_by_run) VALUES (1, 1, 'x', 1)`,
		},
		"DecidedHold": {
			age: 1000 * day, also: `INSERT INTO holds (tenant_id, connection_id, cause, opened_by_run, state) VALUES (1, 1, 'x', 1, 'approved')`,
		},
		"LeftBare": {
			age: 1000 * day, set: "deactivated = 1, left_bare = 1",
			also: `INSERT INTO customers (tenant_id, connection_id, erp_id, name, kind, active) VALUES (1, 1, '1', 'x', 'customer', true);
				INSERT INTO left_bare VALUES (1, 1, 1, 'communication_contact')`,
		},
		"OpenIssue": {
			age: 1000 * day, stays: true,
			also: `INSERT INTO issues (tenant_id, connection_id, record_kind, record_id, field, reason, opened_by_run)
				VALUES (1, 1, 'customer', '1', 'name', 'x', 1)`,
		},
		"OfAnotherRun": {
			age: 1000 * day,
			also: `INSERT INTO holds (tenant_id, connection_id, cause, opened_by_run) VALUES (1, 1, 'x', 2);
				INSERT INTO issues (tenant_id, connection_id, record_kind, record_id, field, reason, opened_by_run)
				VALUES (1, 1, 'customer', '1', 'name', 'x', 2);`,
		},
		"ClosedIssue": {
			age: 1000 * day,
			also: `INSERT INTO issues (tenant_id, connection_id, record_kind, record_id, field, reason, opened_by_run, closed_at)
				VALUES (1, 1, 'customer', '1', 'name', 'x', 1, now())`,
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			store, db := calm(t)
			if c.set == "" {
				c.set = "status = 'succeeded'"
			}
			// Run 1 is the case's. It has a request and a page, whatever it is.
			statements(t, db, fmt.Sprintf(`
				INSERT INTO runs (tenant_id, connection_id, mode, trigger, status, finished_at, unchanged)
					VALUES (1, 1, 'full', 'manual', 'succeeded', now() - %d * interval '1 second', 9);
				UPDATE runs SET %s;
				INSERT INTO run_requests (tenant_id, run_id, mode, trigger, requested_by, reason) VALUES (1, 1, 'full', 'manual', 'x', '');
				INSERT INTO run_pages (tenant_id, run_id, page) VALUES (1, 1, 1);`, int(c.age.Seconds()), c.set)+c.also)
			if !c.alone {
				statements(t, db, newRun+`status, finished_at) VALUES (1, 1, 'full', 'manual', 'failed', now() - interval '1 day')`)
			}
			removed := removeAll(t, store, 100)
			if want := map[bool]int{true: 0, false: 1}[c.stays]; removed["runs"] != want {
				t.Errorf("removed %v, want %d runs", removed, want)
			}
			left := strs(t, db, `SELECT 'run' FROM contactsync.runs WHERE id = 1 UNION ALL SELECT 'request' FROM contactsync.run_requests ORDER BY 1`)
			if stays := slices.Equal(left, []string{"request", "run"}); stays != c.stays || !stays && len(left) > 0 {
				t.Errorf("left are %v", left)
			}
		})
	}
}

// reported is the report of a preview.
const reported = `INSERT INTO previews (tenant_id, run_id, compared_at) VALUES (1, 1, now());
	INSERT INTO preview_changes (tenant_id, run_id, place, entity, what) SELECT 1, 1, n, 'customer', 'created' FROM generate_series(1, 250) AS n;
	INSERT INTO preview_mail SELECT 1, 1, n, true, 'invoice_presentment', '1', 'Customer', 'Person', 'a@t.example', false FROM generate_series(1, 250) AS n;`

// afterIt is a later run of the case's connection.
func afterIt(columns, values string) string {
	return fmt.Sprintf(`INSERT INTO runs (tenant_id, connection_id, mode, trigger, %s) VALUES (1, 1, 'full', 'manual', %s)`, columns, values)
}

// TestOldPagesAreRemoved guards that pages stay as long as anybody can read them: those of an unfinished run at any age, those
// of a failed run for more than the day in which the next run may take them over.
func TestOldPagesAreRemoved(t *testing.T) {
	t.Parallel()
	store, db := calm(t)
	statements(t, db, `
		INSERT INTO runs (tenant_id, connection_id, mode, trigger, status, started_at, finished_at, updated) VALUES
			(1, 1, 'full', 'manual', 'failed', now(), now() - interval '48 hours 1 minute', 1),
			(1, 1, 'full', 'manual', 'succeeded', now(), now() - interval '48 hours 1 minute', 1),
			(1, 1, 'full', 'manual', 'failed', now(), now() - interval '47 hours 59 minutes', 1),
			(1, 1, 'full', 'manual', 'waiting', now() - interval '300 days', NULL, 1);
		INSERT INTO run_pages (tenant_id, run_id, page) SELECT 1, r, p FROM generate_series(1, 4) r, generate_series(1, 5) p`)
	removed, err := store.RemoveOld(t.Context(), keep, 7)
	if err != nil {
		t.Fatal(err)
	}
	if removed["pages"] != 7 {
		t.Errorf("removed %v, want as many pages as were allowed", removed)
	}
	if removed := removeAll(t, store, 7); removed["pages"] != 3 || len(removed) != 1 {
		t.Errorf("then removed %v", removed)
	}
	if left := strs(t, db, `SELECT DISTINCT run_id::text FROM contactsync.run_pages ORDER BY 1`); !slices.Equal(left, []string{"3", "4"}) {
		t.Errorf("pages of runs %v are left", left)
	}
}

// TestFailedRunIsTakenOverAfterTidying guards that the next run finds what a failed one had read.
func TestFailedRunIsTakenOverAfterTidying(t *testing.T) {
	t.Parallel()
	store, db := calm(t)
	statements(t, db, `
		INSERT INTO runs (tenant_id, connection_id, mode, trigger, status, queued_at, started_at, finished_at, listing_began_at, checkpoint,
			checkpoint_at, pages)
		SELECT 1, 1, 'full', 'manual', 'failed', at, at, at, at, 'page 2', at, 2 FROM (SELECT now() - interval '23 hours' AS at) a;
		INSERT INTO run_pages (tenant_id, run_id, page) VALUES (1, 1, 1), (1, 1, 2)`)
	removeAll(t, store, 10)
	run, _, err := store.QueueRun(t.Context(), postgres.Request{Tenant: 1, Connection: 1, Mode: postgres.Full, Trigger: postgres.Manual})
	if err != nil {
		t.Fatal(err)
	}
	out, err := store.HandOutNew(t.Context(), 1)
	if err != nil || len(out) != 1 {
		t.Fatalf("%v, %v", out, err)
	}
	claimed, err := store.Claim(t.Context(), run, out[0].Delivery, time.Minute)
	if err != nil {
		t.Fatal(err)
	}
	if claimed.Resume != "page 2" {
		t.Errorf("the run begins at %q", claimed.Resume)
	}
	if pages := strs(t, db, `SELECT count(*)::text FROM contactsync.run_pages WHERE run_id = 2`); pages[0] != "2" {
		t.Errorf("it has %s pages", pages[0])
	}
}

// TestOldHistoryIsRemoved guards the ages of what is kept beside runs: an open issue, what is held and what was read stay.
func TestOldHistoryIsRemoved(t *testing.T) {
	t.Parallel()
	store, db := calm(t)
	statements(t, db, `
		INSERT INTO history (tenant_id, entity, entity_id, field, run_id, at) VALUES
			(1, 'contact', 1, 'before', 1, now() - interval '400 days' + interval '1 minute'),
			(1, 'contact', 1, 'after', 1, now() - interval '400 days' - interval '1 minute');
		INSERT INTO issues (tenant_id, connection_id, record_kind, record_id, field, reason, opened_at, closed_at) VALUES
			(1, 1, 'customer', '1', 'before', 'x', now() - interval '900 days', now() - interval '400 days' + interval '1 minute'),
			(1, 1, 'customer', '1', 'after', 'x', now() - interval '900 days', now() - interval '400 days' - interval '1 minute'),
			(1, 1, 'customer', '1', 'open', 'x', now() - interval '900 days', NULL);
		INSERT INTO holds (tenant_id, connection_id, cause, opened_by_run, opened_at, state, decided_at) VALUES
			(1, 1, 'x', 1, now() - interval '900 days', 'rejected', now() - interval '900 days');
		INSERT INTO hold_items (tenant_id, hold_id, kind, entity_id, reason, added_by_run, added_at) VALUES
			(1, 1, 'customer', 1, 'erp_absent', 1, now() - interval '900 days');
		INSERT INTO call_counts SELECT 1, 1, month - n * interval '1 month', n FROM generate_series(-1, 2) n,
			(SELECT date_trunc('month', (now() - interval '400 days') AT TIME ZONE 'UTC')::date AS month) m`)
	removed := removeAll(t, store, 100)
	if got := fmt.Sprint(removed); got != "map[call_counts:2 history:1 issues:1]" {
		t.Errorf("removed %s", got)
	}
	left := strs(t, db, `SELECT field FROM contactsync.history UNION ALL SELECT 'issue ' || field FROM contactsync.issues
		UNION ALL SELECT 'month ' || calls FROM contactsync.call_counts UNION ALL SELECT 'hold of ' || kind
		FROM contactsync.holds h JOIN contactsync.hold_items i ON i.hold_id = h.id ORDER BY 1`)
	if want := []string{"before", "hold of customer", "issue before", "issue open", "month -1", "month 0"}; !slices.Equal(left, want) {
		t.Errorf("left are  %q\nwant     %q", left, want)
	}
}

// manyOld makes a connection with 200 old runs, each with a request and a page, and a last one.
func manyOld(t *testing.T) (*postgres.Store, *sql.DB, func() []string) {
	t.Helper()
	store, db := calm(t)
	statements(t, db, `
		INSERT INTO runs (tenant_id, connection_id, mode, trigger, status, finished_at)
			SELECT 1, 1, 'full', 'schedule', 'succeeded', now() - interval '500 days' + n * interval '1 minute' FROM generate_series(1, 201) n;
		INSERT INTO run_requests (tenant_id, run_id, mode, trigger, requested_by, reason) SELECT 1, id, mode, trigger, 'schedule', '' FROM runs;
		INSERT INTO run_pages (tenant_id, run_id, page) SELECT 1, id, 1 FROM runs;
		INSERT INTO history (tenant_id, entity, entity_id, field, run_id, at)
			SELECT 1, 'contact', 1, 'name', id, finished_at FROM runs;
		INSERT INTO issues (tenant_id, connection_id, record_kind, record_id, field, reason) VALUES (1, 1, 'customer', '1', 'of no run', 'x')`)
	return store, db, func() []string {
		return strs(t, db, `SELECT concat('run ', id, ' pages ', (SELECT count(*) FROM contactsync.run_pages),
			' requests ', (SELECT count(*) FROM contactsync.run_requests), ' history ', (SELECT count(*) FROM contactsync.history))
			FROM contactsync.runs`)
	}
}

// TestRemovingTakesSmallBites guards that one call removes no more than it was told to, the oldest first.
func TestRemovingTakesSmallBites(t *testing.T) {
	t.Parallel()
	store, _, left := manyOld(t)
	removed, err := store.RemoveOld(t.Context(), keep, 3)
	if err != nil {
		t.Fatal(err)
	}
	if got := fmt.Sprint(removed); got != "map[history:3 pages:3 runs:6]" { // quiet ones, and those old enough for any
		t.Errorf("removed %s", got)
	}
	if runs := left(); len(runs) != 195 || !slices.ContainsFunc(runs, func(r string) bool { return strings.HasPrefix(r, "run 7 ") }) {
		t.Errorf("%d runs are left", len(runs))
	}
}

// TestRemovingWaitsForNobody guards that rows which another scheduler is removing are passed over.
func TestRemovingWaitsForNobody(t *testing.T) {
	t.Parallel()
	store, db, left := manyOld(t)
	as(t, db, "contactsync_ops", 0, func(tx *sql.Tx) {
		for _, table := range []string{"runs", "run_pages", "history"} {
			if locked := strs(t, tx, `SELECT 'x' FROM `+table+` ORDER BY `+table+` LIMIT 5 FOR UPDATE`); len(locked) != 5 {
				t.Fatalf("locked %d rows of %s", len(locked), table)
			}
		}
		ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
		defer cancel()
		removed, err := store.RemoveOld(ctx, keep, 3)
		if err != nil || fmt.Sprint(removed) != "map[history:3 pages:3 runs:6]" {
			t.Errorf("removed %v, error %v", removed, err)
		}
	})
	if runs := left(); len(runs) != 195 || !slices.ContainsFunc(runs, func(r string) bool { return strings.HasPrefix(r, "run 5 ") }) {
		t.Errorf("%d runs are left", len(runs))
	}
}

// TestSchedulersRemoveTogether guards that several schedulers at once remove each row once and do not fail each other.
func TestSchedulersRemoveTogether(t *testing.T) {
	t.Parallel()
	store, _, left := manyOld(t)
	var mu sync.Mutex
	sum := postgres.Removed{}
	var wait sync.WaitGroup
	for range 4 {
		wait.Go(func() {
			for range 200 {
				removed, err := store.RemoveOld(t.Context(), keep, 5)
				if err != nil {
					t.Error(err)
				}
				if !removed.Any() {
					return
				}
				mu.Lock()
				for what, n := range removed {
					sum[what] += n
				}
				mu.Unlock()
			}
		})
	}
	wait.Wait()
	for what, n := range removeAll(t, store, 5) { // what one passed over because another had it
		sum[what] += n
	}
	if sum["runs"] != 200 || sum["history"] != 201 {
		t.Errorf("removed %v", sum)
	}
	if got := left(); len(got) != 1 || got[0] != "run 201 pages 0 requests 1 history 0" {
		t.Errorf("left are %v", got)
	}
}

// TestRemovedRunsAreNotMissed guards that contacts made by a run outlive it, and that commands and the next run work without it.
func TestRemovedRunsAreNotMissed(t *testing.T) {
	t.Parallel()
	store, db := calm(t)
	statements(t, db, newRun+`status, finished_at, created) VALUES (1, 1, 'full', 'first_load', 'succeeded', now() - interval '500 days', 1),
			(1, 1, 'full', 'schedule', 'succeeded', now() - interval '1 h', 0);
		INSERT INTO customers (tenant_id, connection_id, erp_id, name, kind, active, created_by_run)
			VALUES (1, 1, '1', 'Customer', 'customer', true, 1);
		INSERT INTO contacts (tenant_id, connection_id, origin, erp_id, name, active, created_by_run)
			VALUES (1, 1, 'erp', 'customer:1', 'From ERP', true, 1);
		INSERT INTO customer_contacts (tenant_id, connection_id, customer_id, contact_id, origin, stated_by, active, created_by_run)
			VALUES (1, 1, 1, 1, 'erp', '{customer:1}', true, 1);
		INSERT INTO issues (tenant_id, connection_id, record_kind, record_id, field, reason, opened_at, opened_by_run, met_by_run, closed_at)
			VALUES (1, 1, 'customer', '1', 'name', 'x', now() - interval '500 days', 1, 1, now())`)
	if removed := removeAll(t, store, 10); removed["runs"] != 1 {
		t.Fatalf("removed %v", removed)
	}
	for listing, want := range map[*postgres.Listing]int{
		&postgres.Runs: 1, &postgres.Connections: 1, &postgres.Contacts: 1, &postgres.Customers: 1, &postgres.Requests: 0, &postgres.Held: 0,
	} {
		rows, err := store.List(t.Context(), *listing, 0, 0)
		if err != nil {
			t.Error(err)
		}
		if len(rows.Values) != want {
			t.Errorf("%d rows %v, want %d", len(rows.Values), rows.Columns, want)
		}
	}
	if _, err := store.Attention(t.Context(), nil); err != nil {
		t.Error(err)
	}
	request := postgres.Request{Tenant: 1, Connection: 1, Mode: postgres.Full, Trigger: postgres.Manual}
	if _, _, err := store.QueueRun(t.Context(), request); err != nil {
		t.Error(err)
	}
}

// TestNothingIsKeptTooShort guards that a scheduler without settings removes nothing.
func TestNothingIsKeptTooShort(t *testing.T) {
	t.Parallel()
	store, _, left := manyOld(t)
	for _, short := range []postgres.Keep{{}, {Quiet: 47 * time.Hour, Runs: 400 * day}, {Quiet: 30 * day, Runs: 47 * time.Hour}} {
		if removed, err := store.RemoveOld(t.Context(), short, 10); err == nil || removed.Any() {
			t.Errorf("%+v: removed %v, error %v", short, removed, err)
		}
	}
	if n := len(left()); n != 201 {
		t.Errorf("%d runs are left", n)
	}
}

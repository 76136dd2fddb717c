package postgres_test

import (
	"database/sql"
	"strings"
	"testing"
	"time"

	"github.com/centime/contactsync/internal/postgres"
	"github.com/centime/contactsync/internal/postgres/pgtest"
)

// TestFleet guards what is alarmed on: each number, over two tenants and two ERPs, with a row beside it that does not count.
func TestFleet(t *testing.T) {
	t.Parallel()
	dsn := pgtest.New(t)
	db := open(t, dsn)
	store, err := postgres.Open(dsn, 2)
	if err != nil {
		t.Fatal(err)
	}
	defer store.Close()
	if empty, err := store.Fleet(t.Context()); err != nil || len(empty) != 0 {
		t.Errorf("without connections: %v (%v)", empty, err)
	}

	for _, statement := range strings.Split(`
		INSERT INTO tenants (name) VALUES ('Kelp'), ('Moss');

		-- Connections 1 to 4 of Kelp and 5 to 8 of Moss are of the ERP one; 9 is of two; 10 of gone.
		INSERT INTO connections (tenant_id, erp, account, name, schedule, state, auto_sync, last_attempt_outcome, stale_at,
			last_success_at, created_at)
			SELECT tenant, erp, account, 'n', schedule, state, auto, outcome, now() + stale, now() - success, now() - interval '9 days' FROM (VALUES
				(1, 'one', 1, '@every 1h', 'active', true, 'failed', interval '-1 hour', interval '3 hours'),
				(1, 'one', 2, '@every 1h', 'active', true, NULL, '1 hour', NULL),
				(1, 'one', 3, '@every 1h', 'active', false, 'succeeded', '0', '30 days'),
				(1, 'one', 4, '@every 1h', 'needs_attention', true, 'failed', '0', '30 days'),
				(2, 'one', 5, 'off', 'active', true, 'succeeded', '-1 day', '30 days'),
				(2, 'one', 6, '@every 1h', 'paused', true, 'failed', '-1 day', '30 days'),
				(2, 'one', 7, '@every 1h', 'paused', true, NULL, '1 day', NULL),
				(2, 'one', 8, '@every 1h', 'removed', true, 'failed', '-1 day', '30 days'),
				(2, 'two', 9, '@every 1h', 'active', true, 'succeeded', '1 hour', '1 minute'),
				(2, 'gone', 10, '@every 1h', 'removed', true, NULL, '0', NULL)
			) AS v (tenant, erp, account, schedule, state, auto, outcome, stale, success) ORDER BY account;

		INSERT INTO runs (tenant_id, connection_id, mode, trigger, status, queued_at, handed_out_at, not_before, lease_until,
			fencing, finished_at)
			SELECT n.tenant_id, n.id, 'full', 'manual', status, now() - interval '5 hours', now() - handed_out, now() + not_before, now() + lease,
				fencing, now() - finished
			FROM (VALUES
				-- Claimed long ago, its next step handed out 40 s ago; the one queued behind it is not ready.
				(1, 1, 'running', interval '40 seconds', NULL::interval, NULL::interval, 7, NULL::interval),
				(2, 1, 'queued', NULL, NULL, NULL, 0, NULL),
				-- A worker has it.
				(3, 2, 'running', '1 hour', NULL, '1 minute', 7, NULL),
				-- Its time has not come, or came 70 s ago.
				(4, 3, 'waiting', NULL, '1 minute', NULL, 2, NULL),
				(5, 4, 'waiting', NULL, '-70 seconds', NULL, 2, NULL),
				-- Queued long ago behind a run that ended 90 s ago.
				(6, 5, 'failed', NULL, NULL, NULL, 2, '90 seconds'),
				(7, 5, 'queued', '5 seconds', NULL, NULL, 0, NULL),
				-- Of a paused and of a removed connection.
				(8, 6, 'queued', NULL, NULL, NULL, 0, NULL),
				(9, 8, 'queued', NULL, NULL, NULL, 0, NULL),
				-- Lost by its worker 20 s ago.
				(10, 9, 'running', '1 minute', NULL, '-20 seconds', 3, NULL)
			) AS v (place, connection, status, handed_out, not_before, lease, fencing, finished)
			JOIN connections n ON n.id = v.connection ORDER BY place;

		-- Two customers of connection 1, each with its own contact and both with one more from the ERP and one of Centime's.
		INSERT INTO customers (tenant_id, connection_id, erp_id, name, kind, active) VALUES
			(1, 1, '1', 'C', 'customer', true), (1, 1, '2', 'C', 'customer', true);
		INSERT INTO contacts (tenant_id, connection_id, origin, erp_id, name, active) VALUES
			(1, 1, 'erp', '1', 'C', true), (1, 1, 'erp', '2', 'C', true), (1, 1, 'erp', '3', 'C', true), (1, 1, 'centime', NULL, 'C', true);
		INSERT INTO customer_contacts (tenant_id, connection_id, customer_id, contact_id, origin, active) VALUES
			(1, 1, 1, 1, 'erp', true), (1, 1, 2, 2, 'erp', true), (1, 1, 1, 3, 'erp', true), (1, 1, 2, 3, 'erp', true),
			(1, 1, 1, 4, 'centime', true);
		-- Held: customer 1 (customer contacts 1 and 3), contact 3 (3 and 4); link 2 has left again. The approved hold does not count.
		INSERT INTO holds (tenant_id, connection_id, state, cause, opened_by_run, opened_at) VALUES
			(1, 1, 'open', 'x', 1, now() - interval '2 days'), (1, 1, 'approved', 'x', 1, now() - interval '5 days'),
			(2, 9, 'open', 'x', 1, now() - interval '1 hour'), (2, 8, 'open', 'x', 1, now() - interval '9 days');
		INSERT INTO hold_items (tenant_id, hold_id, kind, entity_id, reason, added_by_run, left_at) VALUES
			(1, 1, 'customer', 1, 'erp_absent', 1, NULL), (1, 1, 'contact', 3, 'erp_absent', 1, NULL), (1, 1, 'link', 3, 'detached', 1, NULL),
			(1, 1, 'link', 2, 'detached', 1, now()), (1, 2, 'customer', 2, 'erp_absent', 1, NULL);

		-- Read nothing: 2 has a contact, 3 has none, 1 holds what it has. Connection 9 misses changes, 5 is idle.
		INSERT INTO customer_contacts (tenant_id, connection_id, customer_id, contact_id, origin, active) VALUES (1, 2, 2, 1, 'erp', true);
		UPDATE connections SET empty_since = now() WHERE id <= 3;
		UPDATE connections SET idle_since = now(), idle_runs = 20, idle_finds = CASE id WHEN 9 THEN 3 ELSE 2 END WHERE id IN (5, 9);
		-- Ten new issues at each of 4 and 6, which have twenty and thirty of the day before.
		INSERT INTO issues (tenant_id, connection_id, record_kind, record_id, field, reason, opened_at)
			SELECT CASE c WHEN 4 THEN 1 ELSE 2 END, c, 'customer', 'old' || m, 'name', 'x', now() - CASE WHEN m <= 10 THEN interval '1 h' ELSE interval '2 days' END
			FROM (VALUES (4, 30), (6, 40)) AS v (c, n), generate_series(1, n) m;
		INSERT INTO issues (tenant_id, connection_id, record_kind, record_id, field, reason, closed_at) VALUES
			(1, 1, 'customer', '1', 'name', 'x', NULL), (1, 2, 'customer', '1', 'name', 'x', NULL), (1, 2, 'customer', '2', 'name', 'x', now()),
			(2, 8, 'customer', '1', 'name', 'x', NULL), (2, 9, 'customer', '1', 'name', 'x', NULL);

		-- Ended yesterday, in 2, 10 and 20 days, never; that of connection 4 is refused already.
		INSERT INTO credentials (tenant_id, connection_id, key_id, box, ends_at) VALUES
			(1, 1, 'k', 'x', now() + interval '2 days'), (1, 2, 'k', 'x', now() + interval '10 days'), (1, 3, 'k', 'x', now() + interval '20 days'),
			(1, 4, 'k', 'x', now() - interval '30 days'), (2, 6, 'k', 'x', now() - interval '1 day'), (2, 9, 'k', 'x', NULL);

		INSERT INTO call_counts (tenant_id, connection_id, month, calls)
			SELECT n.tenant_id, n.id, (date_trunc('month', now() AT TIME ZONE 'UTC') - m * interval '1 month')::date, n.id * 10
			FROM connections n, generate_series(0, 1) m WHERE n.id IN (1, 5, 8, 9);

		INSERT INTO erp_pauses (erp, cause, since, next_trial_at, ended_at) VALUES
			('two', 'x', now() - interval '9 hours', now(), now()), ('two', 'x', now() - interval '1 hour', now(), NULL),
			('unconnected', 'x', now() - interval '2 hours', now(), NULL)`, ";\n") {
		if _, err := db.ExecContext(t.Context(), "SET search_path = contactsync, public;"+statement); err != nil {
			t.Fatalf("%s: %v", statement, err)
		}
	}

	got, err := store.Fleet(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	day := 24 * time.Hour
	left := -day
	want := postgres.Fleet{
		{ERP: "gone"},
		{
			ERP: "one", Active: 4, Paused: 2, NeedsAttention: 1, StaleLate: 1, StaleManual: 2, StalePaused: 1, StaleNeedsAttention: 1,
			LastFailed: 1, OldestSuccess: 9 * day, Queued: 3, Running: 2, Waiting: 2, OldestUnclaimed: 90 * time.Second,
			Holds: 1, Held: 3, OldestHold: 2 * day, Issues: 72, ReadNothing: 1, IssuesGrowing: 1, LoginsNoticed: 3, LoginsIn14Days: 3, LoginsIn3Days: 2,
			LoginLeft:    &left,
			MeteredCalls: 10 + 50 + 80,
		},
		{
			ERP: "two", Active: 1, OldestSuccess: time.Minute, Running: 1, OldestUnclaimed: 20 * time.Second, Holds: 1, OldestHold: time.Hour,
			Issues: 1, MissChanges: 1, MeteredCalls: 90, PausedFor: time.Hour,
		},
		{ERP: "unconnected", PausedFor: 2 * time.Hour},
	}
	if len(got) != len(want) {
		t.Fatalf("ERPs: %+v", got)
	}
	for i := range got {
		// The rows were written a moment ago, and are as much older now.
		for _, age := range []*time.Duration{&got[i].OldestSuccess, &got[i].OldestUnclaimed, &got[i].OldestHold, &got[i].PausedFor} {
			*age = age.Truncate(10 * time.Second)
		}
		if (got[i].LoginLeft == nil) != (want[i].LoginLeft == nil) {
			t.Errorf("%s: a login ends in %v, want %v", got[i].ERP, got[i].LoginLeft, want[i].LoginLeft)
		} else if l := got[i].LoginLeft; l != nil && l.Round(time.Minute) != *want[i].LoginLeft {
			t.Errorf("%s: a login ends in %v, want %v", got[i].ERP, l, want[i].LoginLeft)
		}
		got[i].LoginLeft, want[i].LoginLeft = nil, nil
		if got[i] != want[i] {
			t.Errorf("got\n%+v, want\n%+v", got[i], want[i])
		}
	}
	// ops see the same in the view.
	if held := pgtest.Value(t, dsn, `SELECT sum(held) FROM connection_status WHERE erp = 'one'`); held != "3" {
		t.Errorf("the view counts %s held customer contacts", held)
	}
}

// BenchmarkFleet reads a fleet of 10,000 connections: schedulers do so all day.
func BenchmarkFleet(b *testing.B) {
	dsn := pgtest.New(b)
	store, err := postgres.Open(dsn, 2)
	if err != nil {
		b.Fatal(err)
	}
	defer store.Close()
	db, err := sql.Open("postgres", dsn)
	if err != nil {
		b.Fatal(err)
	}
	defer db.Close()
	for _, statement := range []string{
		`INSERT INTO contactsync.tenants (name) SELECT 'T' || n FROM generate_series(1, 10000) n`,
		`INSERT INTO contactsync.connections (tenant_id, erp, account, name, schedule, stale_at, last_success_at)
			SELECT n, 'erp', 'a', 'n', '@every 1h', now(), now() FROM generate_series(1, 10000) n`,
		`INSERT INTO contactsync.credentials (tenant_id, connection_id, key_id, box, ends_at)
			SELECT n, n, 'k', 'x', now() + n * interval '1 hour' FROM generate_series(1, 10000) n`,
		`INSERT INTO contactsync.runs (tenant_id, connection_id, mode, trigger, status, finished_at)
			SELECT n, n, 'full', 'manual', 'succeeded', now() FROM generate_series(1, 10000) n, generate_series(1, 20)`,
		`INSERT INTO contactsync.runs (tenant_id, connection_id, mode, trigger) SELECT n, n, 'full', 'manual' FROM generate_series(1, 2000) n`,
		`INSERT INTO contactsync.call_counts SELECT n, n, date_trunc('month', now() AT TIME ZONE 'UTC')::date - m * interval '1 month', 700
			FROM generate_series(1, 10000) n, generate_series(0, 11) m`,
		`INSERT INTO contactsync.issues (tenant_id, connection_id, record_kind, record_id, field, reason, closed_at)
			SELECT n, n, 'customer', m, 'name', 'x', CASE WHEN m % 2 = 0 THEN now() END FROM generate_series(1, 10000) n, generate_series(1, 20) m`,
		`INSERT INTO contactsync.customers (tenant_id, connection_id, erp_id, name, kind, active)
			SELECT 1, 1, n, 'C', 'customer', true FROM generate_series(1, 50000) n`,
		`INSERT INTO contactsync.contacts (tenant_id, connection_id, origin, erp_id, name, active)
			SELECT 1, 1, 'erp', n, 'C', true FROM generate_series(1, 50000) n`,
		`INSERT INTO contactsync.customer_contacts (tenant_id, connection_id, customer_id, contact_id, origin, active)
			SELECT 1, 1, n, n, 'erp', true FROM generate_series(1, 50000) n`,
		`INSERT INTO contactsync.holds (tenant_id, connection_id, cause, opened_by_run) VALUES (1, 1, 'x', 1)`,
		`INSERT INTO contactsync.hold_items (tenant_id, hold_id, kind, entity_id, reason, added_by_run)
			SELECT 1, 1, 'customer', n, 'erp_absent', 1 FROM generate_series(1, 5000) n`,
		`ANALYZE`,
	} {
		if _, err := db.ExecContext(b.Context(), statement); err != nil {
			b.Fatalf("%s: %v", statement, err)
		}
	}
	for b.Loop() {
		if _, err := store.Fleet(b.Context()); err != nil {
			b.Fatal(err)
		}
	}
}

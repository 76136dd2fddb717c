package syncing_test

import (
	"fmt"
	"testing"
	"time"

	"github.com/centime/contactsync/internal/connector"
	"github.com/centime/contactsync/internal/connector/memory"
	"github.com/centime/contactsync/internal/postgres"
	"github.com/centime/contactsync/internal/postgres/pgtest"
)

// TestQuietRunCostsLittle: an incremental run that finds nothing is nine in ten runs of a fleet. It takes one call, under ten
// statements however large the company is, and moves cursor and freshness as any other.
func TestQuietRunCostsLittle(t *testing.T) {
	w := setup(t, memory.QuickBooks)
	w.customers(7)
	w.mustSync(postgres.Full)
	w.mustSync(postgres.Incremental)
	statements := w.statements()
	was := pgtest.Value(t, w.dsn, `SELECT last_success_at FROM contactsync.connections`)
	var run int64
	for {
		run = w.queue(postgres.Incremental)
		out, err := w.store.HandOutNew(w.ctx, 1)
		if err != nil {
			t.Fatal(err)
		}
		before, forgotten := statements()
		if next := w.worker.Work(w.ctx, run, out[0].Delivery); next != nil {
			t.Fatal("the run goes on")
		}
		after, now := statements()
		if now != forgotten {
			continue // Postgres had to forget some of what it counted, for the statements of other tests
		}
		if n := after - before; n < 2 || n > 9 {
			t.Errorf("%d statements", n)
		}
		break
	}
	r, err := w.store.Run(w.ctx, run)
	if err != nil || r.Status != "succeeded" || r.Read != 0 || r.Calls != 1 {
		t.Errorf("%+v %v", r, err)
	}
	if now := pgtest.Value(t, w.dsn, `SELECT last_success_at FROM contactsync.connections WHERE last_attempt_outcome = 'succeeded'
		AND cursor = (SELECT end_cursor FROM contactsync.runs ORDER BY id DESC LIMIT 1)`); now == "" || now == was {
		t.Errorf("last success %q, before it %q", now, was)
	}
	w.erp.EditCustomer("1", func(c *connector.Customer, _ *connector.Contact) { c.Name = "Renamed" })
	if r := w.mustSync(postgres.Incremental); r.Updated != 1 {
		t.Errorf("the change after it: %+v", r)
	}
	w.wantMirror()
}

// TestQuietRunKeepsWhatIsOpen: where a hold is open, or an ERP role waits for room, the end of a run has more to do.
func TestQuietRunKeepsWhatIsOpen(t *testing.T) {
	w := setup(t, memory.QuickBooks)
	w.customers(4)
	w.mustSync(postgres.Full)
	w.exec(`INSERT INTO holds (tenant_id, connection_id, cause, opened_by_run) VALUES (1, 1, 'test', 1)`)
	w.mustSync(postgres.Incremental)
	if got := pgtest.Value(t, w.dsn, `SELECT state FROM contactsync.holds`); got != "emptied" {
		t.Errorf("an empty hold is %s after a quiet run", got)
	}
}

// statements counts what programs asked of the test's database, transactions' beginnings and ends aside, and how often the server
// forgot some of all that it had counted.
func (w *world) statements() func() (n, forgotten int) {
	w.t.Helper()
	if pgtest.Value(w.t, w.dsn, `SELECT 'pg_stat_statements' = ANY (string_to_array(current_setting('shared_preload_libraries'), ','))`) != "true" {
		w.t.Skip("the server does not preload pg_stat_statements, which counts statements; the private servers do")
	}
	pgtest.Exec(w.t, w.dsn, `CREATE EXTENSION pg_stat_statements`)
	return func() (n, forgotten int) {
		counts := pgtest.Value(w.t, w.dsn, `SELECT coalesce(sum(s.calls), 0)::int || ' ' || (SELECT dealloc FROM pg_stat_statements_info)
			FROM pg_stat_statements s JOIN pg_database d ON d.oid = s.dbid AND d.datname = current_database()
			JOIN pg_roles r ON r.oid = s.userid WHERE (r.rolname LIKE 'contactsync%' OR s.query LIKE 'SELECT set_config($1, $2%')
				AND s.query !~* '^(begin|commit|rollback)'`)
		if _, err := fmt.Sscan(counts, &n, &forgotten); err != nil {
			w.t.Fatal(err)
		}
		return n, forgotten
	}
}

// TestDeadWorkersLeaseIsInNobodysWay: a sync waits for the refresh of a customer, and the refresh must not wait for the ended lease of
// the sync's dead worker.
func TestDeadWorkersLeaseIsInNobodysWay(t *testing.T) {
	w := setup(t, memory.QuickBooks)
	w.customers(5)
	w.mustSync(postgres.Full)
	run := w.queue(postgres.Full)
	out, err := w.store.HandOutNew(w.ctx, 1)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := w.store.Claim(w.ctx, run, out[0].Delivery, time.Microsecond); err != nil { // and dies
		t.Fatal(err)
	}
	refresh := w.queueCustomer("1")
	w.work()
	if r := w.state(refresh); r.Status != "succeeded" {
		t.Errorf("the refresh is %s", r.Status)
	}
	if err := w.store.HandOutAgain(w.ctx, []postgres.HandOut{{Run: run, Delivery: w.delivery(run)}}); err != nil {
		t.Fatal(err)
	}
	w.work()
	if r := w.state(run); r.Status != "succeeded" {
		t.Errorf("the sync is %s", r.Status)
	}
}

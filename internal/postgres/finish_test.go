package postgres_test

import (
	"strconv"
	"testing"
	"time"

	"github.com/centime/contactsync/internal/postgres"
	"github.com/centime/contactsync/internal/postgres/pgtest"
	"github.com/centime/contactsync/internal/settings"
)

// TestGoingIsFoundInOneReading: what goes is found at a cost of what is held plus what goes, not of the one times the other, which
// at a million customers is hours, and Postgres ends a statement after 40 s. In tables of a few hundred rows, which have no
// statistics, Postgres may compare pairs; it compared triples, and deciding outlived the lease.
func TestGoingIsFoundInOneReading(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		name       string
		held, gone int
		places     bool
		atMost     int // rows read
	}{
		{"many without places", 20_000, 400, false, 20 * 20_000},
		{"few at places", 400, 120, true, 20 * 400 * 120},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			dsn := pgtest.New(t)
			held := strconv.Itoa(c.held)
			pgtest.Exec(t, dsn, benchConnection+`;
				ALTER TABLE contactsync.customers SET (autovacuum_enabled = off);
				ALTER TABLE contactsync.contacts SET (autovacuum_enabled = off);
				ALTER TABLE contactsync.customer_contacts SET (autovacuum_enabled = off);
				INSERT INTO contactsync.customers (tenant_id, connection_id, erp_id, name, kind, active)
					SELECT 1, 1, i::text, 'Kelp', 'customer', true FROM generate_series(1, `+held+`) AS i;
				INSERT INTO contactsync.contacts (tenant_id, connection_id, origin, erp_id, name, active)
					SELECT 1, 1, 'erp', 'customer:' || i, 'Kelp', true FROM generate_series(1, `+held+`) AS i;
				INSERT INTO contactsync.run_pages (tenant_id, run_id, page, customer_ids)
					SELECT 1, 1, id / 1000, array_agg(id) FROM contactsync.customers WHERE id > `+strconv.Itoa(c.gone)+` GROUP BY id / 1000;
				UPDATE contactsync.runs SET listed = '{customer}', pages = (SELECT count(*) FROM contactsync.run_pages), active_at_start = `+held)
			if c.places {
				pgtest.Exec(t, dsn, `
					INSERT INTO contactsync.customer_contacts (tenant_id, connection_id, customer_id, contact_id, origin, active, stated_by, created_at)
						SELECT 1, 1, c.id, o.id, 'erp', true, ARRAY['customer:' || c.erp_id], now() - interval '1 day'
						FROM contactsync.customers c JOIN contactsync.contacts o ON o.erp_id = 'customer:' || c.erp_id`)
			}
			before := rowsRead(t, dsn)
			store, err := postgres.Open(dsn, 1)
			if err != nil {
				t.Fatal(err)
			}
			limits := settings.Settings{BrakeMin: c.held, BrakePercent: 5, BrakeInactivePercent: 30}
			end, err := store.Finish(t.Context(), postgres.Step{Tenant: 1, Run: 1, Connection: 1, Lease: time.Hour}, limits, true, 0)
			_ = store.Close()
			if err != nil || end.Cause != "" || len(end.Missing) != c.gone {
				t.Fatalf("%d missing, %q, %v", len(end.Missing), end.Cause, err)
			}
			if n := rowsRead(t, dsn) - before; n < c.held || n > c.atMost {
				t.Errorf("to find %d gone of %d customers %d rows were read", c.gone, c.held, n)
			}
		})
	}
}

// TestLookingUpFirstLeavesAFreshLease guards rule 5: deciding what is to be looked up may take as long as the lease, which nobody can renew
// meanwhile. Then ten workers in a row lost the run before they could end it. It guards as well that nothing ended, and that the calls count.
func TestLookingUpFirstLeavesAFreshLease(t *testing.T) {
	t.Parallel()
	dsn := pgtest.New(t)
	pgtest.Exec(t, dsn, benchConnection+`;
		INSERT INTO contactsync.customers (tenant_id, connection_id, erp_id, name, kind, active)
			SELECT 1, 1, i::text, 'Kelp', 'customer', true FROM generate_series(1, 9) AS i;
		INSERT INTO contactsync.run_pages (tenant_id, run_id, page, customer_ids) VALUES (1, 1, 1, '{1,2,3,4,5,6,7,8}');
		UPDATE contactsync.runs SET listed = '{customer}', pages = 1, erp_calls = 2`)
	store, err := postgres.Open(dsn, 1)
	if err != nil {
		t.Fatal(err)
	}
	defer store.Close()
	end, err := store.Finish(t.Context(), postgres.Step{Tenant: 1, Run: 1, Connection: 1, Lease: 48 * time.Hour}, settings.Settings{BrakeMin: 5}, true, 3)
	if err != nil || len(end.Missing) != 1 {
		t.Fatalf("%+v, %v; want one customer to look up", end, err)
	}
	if got := pgtest.Value(t, dsn, `SELECT concat_ws(' ', status, erp_calls, lease_until > now() + interval '47 hours') FROM contactsync.runs`); got != "running 5 t" {
		t.Errorf("status, calls, fresh lease: %s", got)
	}
}

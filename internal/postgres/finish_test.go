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
// at a million customers is hours, and Postgres ends a statement after 40 s.
func TestGoingIsFoundInOneReading(t *testing.T) {
	t.Parallel()
	dsn := pgtest.New(t)
	pgtest.Exec(t, dsn, benchConnection)
	const held, gone = 20_000, 400
	pgtest.Exec(t, dsn, `
		INSERT INTO contactsync.customers (tenant_id, connection_id, erp_id, name, kind, active)
			SELECT 1, 1, i::text, 'Kelp', 'customer', true FROM generate_series(1, `+strconv.Itoa(held)+`) AS i;
		INSERT INTO contactsync.contacts (tenant_id, connection_id, origin, erp_id, name, active)
			SELECT 1, 1, 'erp', 'customer:' || i, 'Kelp', true FROM generate_series(1, `+strconv.Itoa(held)+`) AS i;
		INSERT INTO contactsync.run_pages (tenant_id, run_id, page, customer_ids)
			SELECT 1, 1, id / 1000, array_agg(id) FROM contactsync.customers WHERE id > `+strconv.Itoa(gone)+` GROUP BY id / 1000;
		UPDATE contactsync.runs SET listed = '{customer}', pages = (SELECT count(*) FROM contactsync.run_pages), active_at_start = `+strconv.Itoa(held))
	before := rowsRead(t, dsn)
	store, err := postgres.Open(dsn, 1)
	if err != nil {
		t.Fatal(err)
	}
	limits := settings.Settings{BrakeMin: 5, BrakePercent: 5, BrakeInactivePercent: 30}
	brake, err := store.Brake(t.Context(), postgres.Step{Tenant: 1, Run: 1, Connection: 1, Lease: time.Hour}, limits)
	_ = store.Close()
	if err != nil || brake.Cause != "" || len(brake.Missing) != gone {
		t.Fatalf("%d missing, %q, %v", len(brake.Missing), brake.Cause, err)
	}
	if n := rowsRead(t, dsn) - before; n < held || n > 20*held {
		t.Errorf("to find %d gone of %d customers %d rows were read", gone, held, n)
	}
}

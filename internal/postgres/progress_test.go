package postgres_test

import (
	"fmt"
	"math/rand/v2"
	"runtime"
	"slices"
	"strconv"
	"testing"
	"time"

	"github.com/centime/contactsync/internal/connector"
	"github.com/centime/contactsync/internal/postgres"
	"github.com/centime/contactsync/internal/postgres/pgtest"
	"github.com/centime/contactsync/internal/reconcile"
)

// TestKeptCustomerIDsAreTrue: whatever customers a step meets, and in whatever order, what it keeps of one is our id of that one; and what
// comes in order is kept, whatever gaps the ERP's ids have.
func TestKeptCustomerIDsAreTrue(t *testing.T) {
	t.Parallel()
	for seed := range uint64(200) {
		random := rand.New(rand.NewPCG(seed, 1))
		var kept postgres.CustomerIDs
		ids := map[string]int64{"": 0, "007": 0, "+7": 0, "7a": 0, "18446744073709551616": 0} // customers that are met with no id of ours are none
		erp, id := uint64(random.IntN(1000)+1), int64(random.IntN(1000)+1)
		for range 300 {
			ids[strconv.FormatUint(erp, 10)] = id
			erp += uint64(1 + random.IntN(9))
			if id++; seed%2 == 0 && random.IntN(10) == 0 {
				id += int64(random.IntN(5)) // another tenant's
			}
		}
		ids["18446744073709551615"], ids["0012"] = id+1, id+2
		if seed < 100 {
			for erpID := range ids { // in no order
				kept.Add(erpID, ids[erpID])
			}
		} else {
			for n := range erp {
				if id, ok := ids[strconv.FormatUint(n, 10)]; ok {
					kept.Add(strconv.FormatUint(n, 10), id)
				}
			}
		}
		missed := 0
		for erpID, want := range ids {
			switch got := kept.ID(erpID); {
			case got == 0 && want != 0:
				missed++
			case got != want:
				t.Fatalf("seed %d: customer %q is %d, want %d", seed, erpID, got, want)
			}
		}
		for n := range erp + 100 {
			if erpID := strconv.FormatUint(n, 10); ids[erpID] == 0 && kept.ID(erpID) != 0 {
				t.Fatalf("seed %d: customer %s was never met", seed, erpID)
			}
		}
		if seed > 100 && seed%2 == 1 && missed != 2 { // the last two
			t.Fatalf("seed %d: %d customers were not kept", seed, missed)
		}
	}
}

// TestCustomersThatCameEarlyKeepNobodyOut: as one that was resynced by itself before the first load.
func TestCustomersThatCameEarlyKeepNobodyOut(t *testing.T) {
	t.Parallel()
	var kept postgres.CustomerIDs
	kept.Add("999999", 1)
	kept.Add("5", 2)
	for n := range int64(2000) {
		kept.Add(strconv.FormatInt(1000+n, 10), 3+n)
	}
	for erpID, want := range map[string]int64{"999999": 1, "5": 2, "1000": 3, "2999": 2002, "3000": 0} {
		if got := kept.ID(erpID); got != want {
			t.Errorf("customer %s is %d, want %d", erpID, got, want)
		}
	}
}

// TestKeptCustomerIDsTakeBoundedRoom: also where the ERP's ids lie so far apart that each takes a block of its own.
func TestKeptCustomerIDsTakeBoundedRoom(t *testing.T) {
	t.Parallel()
	var kept postgres.CustomerIDs
	const n = 300_000
	for i := range int64(n) {
		kept.Add(strconv.FormatInt(i*64, 10), i+1)
	}
	known := 0
	for i := range int64(n) {
		if kept.ID(strconv.FormatInt(i*64, 10)) != 0 {
			known++
		}
	}
	if known < n/10 || known > n/3 {
		t.Errorf("%d of %d customers are kept", known, n)
	}
}

// TestNamedIDsAreThoseThatWereNamed: in whatever order and however often, of each kind for itself, also where all of a block were named.
func TestNamedIDsAreThoseThatWereNamed(t *testing.T) {
	t.Parallel()
	for seed := range uint64(50) {
		random := rand.New(rand.NewPCG(seed, 2))
		kinds := []connector.Kind{connector.Customers, connector.Contacts, connector.Links}
		var named postgres.NamedIDs
		want := map[connector.Kind]map[int64]bool{}
		for _, kind := range kinds {
			want[kind] = map[int64]bool{}
		}
		const first, last = 3_000_000_000, 3_000_000_000 + 5000
		for range 20 {
			kind := kinds[random.IntN(len(kinds))]
			from := first + random.Int64N(last-first)
			var ids []int64
			for id := from; id < min(from+2500, last); id++ {
				ids = append(ids, id)
				want[kind][id] = true
			}
			random.Shuffle(len(ids), func(i, j int) { ids[i], ids[j] = ids[j], ids[i] })
			named.Add(kind, ids...)
		}
		for _, kind := range kinds {
			for id := int64(first - 2000); id < last+2000; id++ {
				if got := named.Has(kind, id); got != want[kind][id] {
					t.Fatalf("seed %d: %s %d named: %t, want %t", seed, kind, id, got, want[kind][id])
				}
			}
		}
	}
}

// BenchmarkKeptOfALargeCompany is the room that a step's memory of 1,000,000 customers takes, of their 2,000,000 contacts and 2,500,000 places.
func BenchmarkKeptOfALargeCompany(b *testing.B) {
	for b.Loop() {
		before := live()
		var named postgres.NamedIDs
		var customers postgres.CustomerIDs
		for kind, n := range map[connector.Kind]int64{connector.Customers: 1_000_000, connector.Contacts: 2_000_000, connector.Links: 2_500_000} {
			for id := range n {
				named.Add(kind, id)
			}
		}
		for id := range int64(1_000_000) {
			customers.Add(strconv.FormatInt(1000+id+id/50, 10), id+1)
		}
		b.ReportMetric(float64(live()-before)/1e6, "MB-live")
		runtime.KeepAlive(&named)
		runtime.KeepAlive(&customers)
	}
}

func live() int64 {
	runtime.GC()
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return int64(m.HeapAlloc)
}

// TestPlacesNeedNoLookUpOfTheirCustomers: a page's places are mostly at customers that the step's own pages named before, which are not
// looked for, be the places new or known. A step that did not see them looks, until it has looked for so many that it reads them all, in
// the order of our ids; those of another connection, where the ERP's ids are the same, are none of them.
func TestPlacesNeedNoLookUpOfTheirCustomers(t *testing.T) {
	t.Parallel()
	dsn := pgtest.New(t)
	pgtest.Exec(t, dsn, benchConnection+`;
		INSERT INTO contactsync.connections (tenant_id, erp, account, name, schedule, stale_at) VALUES (1, 'one', '2', 'Kelp Two', 'off', now());
		INSERT INTO contactsync.customers (tenant_id, connection_id, erp_id, name, kind, active)
			SELECT 1, 2, n, 'Kelp Two ' || n, 'customer', true FROM generate_series(0, 999) AS n`)
	for n, k := range []struct {
		pages  []connector.Page
		looked int // customers by the ERP's id
	}{
		{[]connector.Page{benchPage(0), benchPeople(0)}, 0},
		{[]connector.Page{benchPage(0), benchPeople(0)}, 1000}, // those of the first page
		{[]connector.Page{benchPlaces(0)}, 500},
		{slices.Repeat([]connector.Page{benchPlaces(0)}, 45), 19_500},
	} {
		pgtest.Exec(t, dsn, `UPDATE contactsync.customers SET updated_at = now() WHERE id % 3 = 0; -- their rows come last now
			UPDATE contactsync.runs SET lease_until = NULL, delivery = `+fmt.Sprint(n+1))
		store, err := postgres.Open(dsn, 1)
		if err != nil {
			t.Fatal(err)
		}
		claim, err := store.Claim(t.Context(), 1, n+1, time.Hour)
		if err != nil {
			t.Fatal(err)
		}
		claim.ERPLabel = "One"
		before := customersLookedFor(t, dsn)
		for i, page := range k.pages {
			if _, err := store.SavePage(t.Context(), claim.Step, reconcile.Read(page), 1); err != nil {
				t.Fatalf("step %d, page %d: %v", n, i, err)
			}
		}
		store.Close()
		rowsRead(t, dsn) // once the store's counters are there
		// To read them all may take the same index, once.
		if got := customersLookedFor(t, dsn) - before; got != k.looked && got != k.looked+1 {
			t.Errorf("step %d: %d customers were looked for, want %d", n, got, k.looked)
		}
		if got := pgtest.Value(t, dsn, `SELECT count(*) FILTER (WHERE c.erp_id::int = (p.erp_id::int - 100000000) / 2 AND c.connection_id = 1) || ' of ' || count(*)
			FROM contactsync.customer_contacts l JOIN contactsync.customers c ON c.id = l.customer_id
			JOIN contactsync.contacts p ON p.id = l.contact_id AND p.erp_id NOT LIKE 'customer:%'`); got != "1000 of 1000" {
			t.Errorf("step %d: %s places are at their customers, want all 1000", n, got)
		}
	}
}

func customersLookedFor(t *testing.T, dsn string) int {
	t.Helper()
	n, err := strconv.Atoi(pgtest.Value(t, dsn, `SELECT sum(idx_scan) FROM pg_stat_user_indexes WHERE indexrelname = 'customers_tenant_id_connection_id_erp_id_key'`))
	if err != nil {
		t.Fatal(err)
	}
	return n
}

package postgres_test

import (
	"strconv"
	"testing"
	"time"

	"github.com/centime/contactsync/internal/connector"
	"github.com/centime/contactsync/internal/contact"
	"github.com/centime/contactsync/internal/postgres"
	"github.com/centime/contactsync/internal/postgres/pgtest"
	"github.com/centime/contactsync/internal/reconcile"
)

// TestPageReadsWhatItNames: a page costs what it names and not what is held, also on a first load, when the planner knows no
// statistics. Otherwise each page costs more than the last.
func TestPageReadsWhatItNames(t *testing.T) {
	t.Parallel()
	dsn := pgtest.New(t)
	pgtest.Exec(t, dsn, benchConnection)
	for _, table := range []string{"customers", "contacts", "contact_points", "customer_contacts", "issues"} {
		pgtest.Exec(t, dsn, `ALTER TABLE contactsync.`+table+` SET (autovacuum_enabled = false)`)
	}
	save := func(page connector.Page) (unchanged, updated int) {
		store, err := postgres.Open(dsn, 1)
		if err != nil {
			t.Fatal(err)
		}
		defer store.Close()
		counts, err := store.SavePage(t.Context(), postgres.Step{Tenant: 1, Run: 1, Connection: 1, Lease: time.Hour}, reconcile.Read(page), 1)
		if err != nil || counts.Read() != 1000 {
			t.Fatalf("%+v, %v", counts, err)
		}
		return counts.Unchanged, counts.Updated
	}
	for n := range 10 {
		save(benchPage(n))
	}
	pgtest.Exec(t, dsn, `INSERT INTO contactsync.issues (tenant_id, connection_id, record_kind, record_id, field, reason)
		SELECT 1, 1, 'customer', erp_id, 'name', 'no_name' FROM contactsync.customers WHERE erp_id::int >= 1000`) // of the other pages
	again := func() { // as a run of its own would
		pgtest.Exec(t, dsn, `DELETE FROM contactsync.run_pages; UPDATE contactsync.runs SET pages = 0`)
	}
	page := benchPage(0)
	for _, statistics := range []string{"without", "with"} {
		if statistics == "with" {
			pgtest.Exec(t, dsn, `VACUUM (ANALYZE)`)
		}
		again()
		before := rowsRead(t, dsn)
		if n, _ := save(page); n != 1000 {
			t.Fatalf("%d unchanged", n)
		}
		// 1000 customers, their contacts and links, and 2250 points.
		if n := rowsRead(t, dsn) - before; n < 4000 || n > 6000 {
			t.Errorf("%s statistics: saving 1000 of 10000 customers again read %d rows", statistics, n)
		}
		again()
		for i := range page.Customers {
			page.Customers[i].Name += statistics
			page.Contacts[i].GivenName += statistics
			if channels := page.Contacts[i].Channels; len(channels) > 0 {
				page.Contacts[i].Channels = channels[1:]
			}
			page.Links[i].Roles = []connector.ERPRole{{Key: statistics, Name: statistics}}
		}
		before = rowsRead(t, dsn)
		if _, n := save(page); n != 1000 {
			t.Fatalf("%d updated", n)
		}
		// And once more to write them.
		if n := rowsRead(t, dsn) - before; n < 8000 || n > 12000 {
			t.Errorf("%s statistics: changing 1000 of 10000 customers read %d rows", statistics, n)
		}
	}
}

// firstLoad is the first run of a connection, claimed by way of a store with one session.
func firstLoad(t *testing.T) (dsn string, store *postgres.Store, claim *postgres.Claimed, save func(connector.Page) reconcile.Counts) {
	t.Helper()
	dsn = pgtest.New(t)
	pgtest.Exec(t, dsn, benchConnection+`; UPDATE contactsync.runs SET lease_until = NULL`)
	store, err := postgres.Open(dsn, 1)
	if err != nil {
		t.Fatal(err)
	}
	claim, err = store.Claim(t.Context(), 1, 1, time.Hour)
	if err != nil {
		t.Fatal(err)
	}
	claim.ERPLabel = "One"
	return dsn, store, claim, func(page connector.Page) reconcile.Counts {
		t.Helper()
		counts, err := store.SavePage(t.Context(), claim.Step, reconcile.Read(page), 1)
		if err != nil {
			t.Fatal(err)
		}
		return counts
	}
}

// TestFirstLoadTakesRecordsForNew: what nearly always is new is not looked for; a record that is there all the same, as of a page that is
// read again, is met once, counted once and changed where it changed. What a look-up finds is never new.
func TestFirstLoadTakesRecordsForNew(t *testing.T) {
	t.Parallel()
	dsn, store, claim, save := firstLoad(t)
	for n := range 2 {
		if counts := save(benchPage(n)); counts != (reconcile.Counts{Created: 1000}) {
			t.Errorf("page %d: %+v", n, counts)
		}
	}
	known := benchPage(0)
	found := connector.Page{Customers: known.Customers[7:8], Contacts: known.Contacts[7:8], Links: known.Links[7:8]}
	if err := store.SaveLookup(t.Context(), claim.Step, []postgres.Lookup{{Key: connector.Key{Kind: connector.Customers, ID: "7"}, ID: 8}}, found, 1); err != nil {
		t.Fatal(err)
	}
	half := benchPage(2)
	known.Customers[3].Name = "Kelp & Daughters"
	half.Customers = append(half.Customers[:500], known.Customers[:500]...)
	half.Contacts = append(half.Contacts[:500], known.Contacts[:500]...)
	half.Links = append(half.Links[:500], known.Links[:500]...)
	if counts := save(half); counts != (reconcile.Counts{Created: 500}) { // the others were counted before
		t.Errorf("new and known records: %+v", counts)
	}
	if counts := save(benchPage(3)); counts != (reconcile.Counts{Created: 1000}) {
		t.Errorf("after them: %+v", counts)
	}
	got := pgtest.Value(t, dsn, `SELECT (SELECT count(*) FROM contactsync.customers) || ' customers, ' || (SELECT count(*) FROM contactsync.contacts)
		|| ' contacts, ' || (SELECT count(*) FROM contactsync.customer_contacts) || ' links, ' || (SELECT pages FROM contactsync.runs) || ' pages, number 3 is '
		|| (SELECT name FROM contactsync.customers WHERE erp_id = '3')`)
	if want := "3500 customers, 3500 contacts, 3500 links, 5 pages, number 3 is Kelp & Daughters"; got != want {
		t.Errorf("held are %s, want %s", got, want)
	}
	store.Close()
	rowsRead(t, dsn) // once the store's counters are there
	if n := pgtest.Value(t, dsn, `SELECT sum(idx_scan) FROM pg_stat_user_indexes WHERE indexrelname = 'customers_tenant_id_connection_id_erp_id_key'`); n != "2001" {
		t.Errorf("%s customers were looked for, want those of the last two pages, and the one that was looked up", n)
	}
}

// TestFirstLoadOfAGrowingDatabase: the plans that a session made for foreign keys while the tables were nearly empty do not last: read by
// them, each row of a large first load would read whole tables.
func TestFirstLoadOfAGrowingDatabase(t *testing.T) {
	t.Parallel()
	dsn, store, _, save := firstLoad(t)
	for n := range 4 {
		page := benchPage(n)
		if n == 0 {
			page.Customers, page.Contacts, page.Links = page.Customers[:20], page.Contacts[:20], page.Links[:20]
		}
		save(page)
	}
	store.Close()
	if n := rowsRead(t, dsn); n > 100_000 {
		t.Errorf("saving 3020 new customers read %d rows", n)
	}
}

// TestCustomersMayStateOthers: a customer's record that stated the place of a contact which is not its own, and no longer does, lets it go,
// though nothing else on its page names that contact.
func TestCustomersMayStateOthers(t *testing.T) {
	t.Parallel()
	dsn, store, _, save := firstLoad(t)
	defer store.Close()
	customer := func(id string, others ...string) connector.Page {
		key := connector.Key{Kind: connector.Customers, ID: id}
		page := connector.Page{Next: `{"v":1}`, Customers: []connector.Customer{{ID: id, Name: "Kelp", Kind: contact.Customer, Active: true}}}
		for _, c := range append(others, contact.OwnID(id)) {
			page.Contacts = append(page.Contacts, connector.Contact{ID: c, Name: "Ingrid Solheim", Active: true})
			page.Links = append(page.Links, connector.Link{Customer: id, Contact: c, StatedBy: key})
		}
		return page
	}
	state := func() string {
		return pgtest.Value(t, dsn, `SELECT (SELECT states_others FROM contactsync.connections) || ' ' || count(*)
			FROM contactsync.run_pages p, unnest(p.unstated_link_ids) AS u JOIN contactsync.customer_contacts l ON l.id = u
			JOIN contactsync.contacts c ON c.id = l.contact_id AND c.erp_id = '7'`)
	}
	for _, step := range []struct {
		page connector.Page
		want string
	}{{customer("1"), "false 0"}, {customer("2", "7"), "true 0"}, {customer("2", "7"), "true 0"}, {customer("2"), "true 1"}} {
		save(step.page)
		if got := state(); got != step.want {
			t.Errorf("stating others and letting go is %s, want %s", got, step.want)
		}
	}
}

// rowsRead is how many rows and index entries of what a connection holds have been read so far, by backends that have ended.
func rowsRead(t *testing.T, dsn string) int {
	t.Helper()
	// A backend publishes its counters when it ends, which is a little after its client left.
	for pgtest.Value(t, dsn, `SELECT count(*) FROM pg_stat_activity
		WHERE datname = current_database() AND backend_type = 'client backend' AND pid <> pg_backend_pid()`) != "0" {
		if err := t.Context().Err(); err != nil {
			t.Fatal(err)
		}
	}
	const tables = `('customers', 'contacts', 'contact_points', 'customer_contacts', 'issues')`
	n, err := strconv.Atoi(pgtest.Value(t, dsn, `
		SELECT (SELECT sum(seq_tup_read) FROM pg_stat_user_tables WHERE relname IN `+tables+`)
			+ (SELECT sum(idx_tup_read) FROM pg_stat_user_indexes WHERE relname IN `+tables+`)`))
	if err != nil {
		t.Fatal(err)
	}
	return n
}

// TestIssueClosesWhenItsRecordIsReadAgain: also one that the step itself opened, and however many others are open.
func TestIssueClosesWhenItsRecordIsReadAgain(t *testing.T) {
	t.Parallel()
	for _, others := range []int{3, 100_001} {
		t.Run(strconv.Itoa(others)+" others open", func(t *testing.T) {
			t.Parallel()
			dsn := pgtest.New(t)
			pgtest.Exec(t, dsn, benchConnection+`; UPDATE contactsync.runs SET lease_until = NULL;
				INSERT INTO contactsync.issues (tenant_id, connection_id, record_kind, record_id, field, reason)
				SELECT 1, 1, 'contact', 'other ' || n, 'name', 'empty_name' FROM generate_series(1, `+strconv.Itoa(others)+`) AS n
				UNION ALL SELECT 1, 1, 'customer', '5', 'name', 'empty_name'`)
			store, err := postgres.Open(dsn, 1)
			if err != nil {
				t.Fatal(err)
			}
			defer store.Close()
			claim, err := store.Claim(t.Context(), 1, 1, time.Hour)
			if err != nil {
				t.Fatal(err)
			}
			claim.ERPLabel = "One"
			open := func() string {
				return pgtest.Value(t, dsn, `SELECT count(*) FILTER (WHERE record_id LIKE 'other %') || ' others, '
					|| coalesce(string_agg(record_id, ' ' ORDER BY record_id) FILTER (WHERE record_id NOT LIKE 'other %'), 'none of its')
					FROM contactsync.issues WHERE closed_at IS NULL`)
			}
			page := benchPage(0)
			page.Bad = []connector.Bad{{Key: connector.Key{Kind: connector.Customers, ID: "7"}, Field: "Active", Reason: "not_a_boolean"}}
			for _, step := range []struct {
				page connector.Page
				want string
			}{{page, " others, 7"}, {benchPage(0), " others, none of its"}} {
				if _, err := store.SavePage(t.Context(), claim.Step, reconcile.Read(step.page), 1); err != nil {
					t.Fatal(err)
				}
				if got, want := open(), strconv.Itoa(others)+step.want; got != want {
					t.Errorf("open are %s, want %s", got, want)
				}
			}
		})
	}
}

// TestTextsReachPostgresAsTheyAre: whatever a name holds, and however many there are.
func TestTextsReachPostgresAsTheyAre(t *testing.T) {
	t.Parallel()
	dsn := pgtest.New(t)
	pgtest.Exec(t, dsn, benchConnection)
	store, err := postgres.Open(dsn, 1)
	if err != nil {
		t.Fatal(err)
	}
	defer store.Close()
	names := []string{`"quoted"`, `{a,b}`, `back\slash`, "NULL", "two\nlines", "Łódź 東京 🙂", "it's", "  inner   spaces", `\x00`, "100 %", "a,b;c"}
	page := connector.Page{Next: `{"v":1}`}
	for i, name := range names {
		page.Customers = append(page.Customers, connector.Customer{ID: strconv.Itoa(i), Name: "n " + name, Kind: contact.Customer, Active: true})
	}
	if _, err := store.SavePage(t.Context(), postgres.Step{Tenant: 1, Run: 1, Connection: 1, Lease: time.Hour}, reconcile.Read(page), 1); err != nil {
		t.Fatal(err)
	}
	for i, name := range names {
		if got := pgtest.Value(t, dsn, `SELECT name FROM contactsync.customers WHERE erp_id = '`+strconv.Itoa(i)+`'`); got != "n "+name {
			t.Errorf("%q became %q", name, got)
		}
	}
}

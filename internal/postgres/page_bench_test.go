package postgres_test

import (
	"database/sql"
	"fmt"
	"os"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/centime/contactsync/internal/connector"
	"github.com/centime/contactsync/internal/contact"
	"github.com/centime/contactsync/internal/postgres"
	"github.com/centime/contactsync/internal/postgres/pgtest"
	"github.com/centime/contactsync/internal/reconcile"
)

// BenchmarkSavePage saves pages of 1000 records: customers of QuickBooks, each with its own contact and mostly two or three points;
// contacts of NetSuite with their places, of which three of four contacts state theirs themselves too; and such places alone, as an
// incremental run reads them; new ones, and the same again. server-ms and client-ms are processor time a page, which other work on the
// machine changes less than the time that passes; only private servers of this machine have the first.
//
//	eval "$(scripts/services start test)"; go test ./internal/postgres -run '^$' -bench SavePage -benchtime 50x
func BenchmarkSavePage(b *testing.B) {
	const held = 20 // pages
	for _, k := range []struct {
		name      string
		before    []func(int) connector.Page // that come before all pages
		page      func(int) connector.Page
		unchanged bool
	}{
		{"new", nil, benchPage, false},
		{"unchanged", nil, benchPage, true},
		{"people/new", []func(int) connector.Page{benchPage}, benchPeople, false},
		{"people/unchanged", []func(int) connector.Page{benchPage}, benchPeople, true},
		{"places/unchanged", []func(int) connector.Page{benchPage, benchPeople}, benchPlaces, true},
	} {
		b.Run(k.name, func(b *testing.B) {
			dsn := pgtest.New(b)
			store, err := postgres.Open(dsn+"&application_name=saves", 1) // one backend, whose time can be told
			if err != nil {
				b.Fatal(err)
			}
			defer store.Close()
			if err := store.Ping(b.Context()); err != nil {
				b.Fatal(err)
			}
			db, err := sql.Open("postgres", dsn)
			if err != nil {
				b.Fatal(err)
			}
			defer db.Close()
			if _, err := db.ExecContext(b.Context(), benchConnection+`; UPDATE contactsync.runs SET lease_until = NULL`); err != nil {
				b.Fatal(err)
			}
			claim := func() postgres.Step {
				c, err := store.Claim(b.Context(), 1, 1, time.Hour)
				if err != nil {
					b.Fatal(err)
				}
				c.ERPLabel = "One"
				return c.Step
			}
			step := claim()
			save := func(n int, page connector.Page) {
				counts, err := store.SavePage(b.Context(), step, reconcile.Read(page), 1)
				if err != nil || counts.Read()%1000 != 0 {
					b.Fatalf("page %d: %+v, %v", n, counts, err)
				}
			}
			again := func() { // as a run of its own would
				if _, err := db.ExecContext(b.Context(), `DELETE FROM contactsync.run_pages; UPDATE contactsync.runs SET pages = 0, lease_until = NULL`); err != nil {
					b.Fatal(err)
				}
				step = claim()
			}
			earlier, pages := k.before, b.N
			if k.unchanged {
				earlier, pages = append(earlier, k.page), held
			}
			for _, page := range earlier {
				for n := range pages {
					save(n, page(n))
				}
			}
			if _, err := db.ExecContext(b.Context(), `VACUUM ANALYZE`); err != nil {
				b.Fatal(err)
			}
			server, client := serverTime(b, dsn), clientTime(b)
			b.ResetTimer()
			for n := range b.N {
				switch {
				case !k.unchanged:
					save(n, k.page(n))
				case n%held == 0:
					again()
					fallthrough
				default:
					save(n%held, k.page(n%held))
				}
			}
			b.StopTimer()
			if server > 0 {
				b.ReportMetric((serverTime(b, dsn)-server).Seconds()*1000/float64(b.N), "server-ms/op")
			}
			b.ReportMetric((clientTime(b)-client).Seconds()*1000/float64(b.N), "client-ms/op")
		})
	}
}

// benchConnection is a connection of a tenant, both 1, with a run on its way.
const benchConnection = `
	INSERT INTO contactsync.tenants (name) VALUES ('Kelp');
	INSERT INTO contactsync.connections (tenant_id, erp, account, name, schedule, stale_at) VALUES (1, 'one', '1', 'Kelp', 'off', now());
	INSERT INTO contactsync.roles (tenant_id, name) VALUES (1, 'Company Contact');
	INSERT INTO contactsync.role_mappings (tenant_id, connection_id, erp_role_key, erp_role_name, role_id)
		VALUES (1, 1, 'company', 'Company Contact', 1);
	INSERT INTO contactsync.runs (tenant_id, connection_id, mode, trigger, status, delivery, lease_until, listing_began_at)
		VALUES (1, 1, 'full', 'manual', 'running', 1, now() + interval '1 day', now())`

func benchPage(n int) connector.Page {
	page := connector.Page{Next: connector.Cursor(fmt.Sprintf(`{"v":1,"page":%d}`, n))}
	for i := range 1000 {
		id := fmt.Sprint(n*1000 + i)
		own := contact.OwnID(id)
		at := time.Date(2026, 3, 1, 12, 0, i, 0, time.UTC)
		page.Customers = append(page.Customers, connector.Customer{
			ID: id, Name: "Northwind Kelp & Sons " + id, Kind: contact.Customer, Active: true, ModifiedAt: at,
		})
		c := connector.Contact{ID: own, Name: "Ingrid Solheim", GivenName: "Ingrid", FamilyName: "Solheim", Active: true, ModifiedAt: at}
		for k, ch := range []connector.Channel{
			{Kind: contact.Email, Field: "PrimaryEmailAddr", Value: "accounts." + id + "@northwind-kelp.example", Main: true},
			{Kind: contact.Phone, Field: "PrimaryPhone", Value: "(218) 555-0142 x9"},
			{Kind: contact.Mobile, Field: "Mobile", Value: "+1 218 555 0177"},
		} {
			if k <= i%4 {
				c.Channels = append(c.Channels, ch)
			}
		}
		page.Contacts = append(page.Contacts, c)
		page.Links = append(page.Links, connector.Link{
			Customer: id, Contact: own, StatedBy: connector.Key{Kind: connector.Customers, ID: id}, Roles: []connector.ERPRole{connector.CompanyRole},
		})
	}
	return page
}

func benchPeople(n int) connector.Page {
	page := benchPlaces(n)
	for i := range 1000 {
		id := fmt.Sprint(100_000_000 + n*1000 + i)
		page.Contacts = append(page.Contacts, connector.Contact{
			ID: id, Name: "Ingrid Solheim", GivenName: "Ingrid", FamilyName: "Solheim", JobTitle: "Controller", Active: true,
			ModifiedAt: time.Date(2026, 3, 1, 12, 0, i, 0, time.UTC), Channels: []connector.Channel{
				{Kind: contact.Email, Field: "email", Value: "ingrid." + id + "@northwind-kelp.example", Main: true},
				{Kind: contact.Phone, Field: "phone", Value: "(218) 555-0142 x9"},
			},
		})
		if i%4 > 0 {
			page.Links = append(page.Links, connector.Link{
				Customer: fmt.Sprint(n*1000 + i/2), Contact: id, StatedBy: connector.Key{Kind: connector.Contacts, ID: id},
			})
		}
	}
	return page
}

func benchPlaces(n int) connector.Page {
	page := connector.Page{Next: connector.Cursor(fmt.Sprintf(`{"v":1,"places":%d}`, n))}
	for i := range 1000 {
		l := connector.Link{Customer: fmt.Sprint(n*1000 + i/2), Contact: fmt.Sprint(100_000_000 + n*1000 + i)}
		if i%2 == 0 {
			l.Roles = []connector.ERPRole{connector.CompanyRole}
		}
		page.Links = append(page.Links, l)
	}
	return page
}

// serverTime is the processor time of the store's one backend; 0 where it cannot be told.
func serverTime(b *testing.B, dsn string) time.Duration {
	b.Helper()
	pid := pgtest.Value(b, dsn, `SELECT max(pid) FROM pg_stat_activity WHERE datname = current_database() AND application_name = 'saves'`)
	text, err := os.ReadFile("/proc/" + pid + "/schedstat")
	if err != nil {
		return 0
	}
	ns, _, _ := strings.Cut(string(text), " ")
	d, err := time.ParseDuration(ns + "ns")
	if err != nil {
		b.Fatal(err)
	}
	return d
}

func clientTime(b *testing.B) time.Duration {
	b.Helper()
	var u syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &u); err != nil {
		b.Fatal(err)
	}
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}

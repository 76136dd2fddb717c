package netsuite_test

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"runtime"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/centime/contactsync/internal/connector"
	"github.com/centime/contactsync/internal/contact"
	"github.com/centime/contactsync/internal/erpsim"
	sim "github.com/centime/contactsync/internal/erpsim/netsuite"
)

// pulled is what a pull said.
type pulled struct {
	pages     int
	customers map[string]connector.Customer
	contacts  map[string]connector.Contact
	links     map[string]connector.Link // without StatedBy, by connector.LinkID
	stated    map[string]connector.Link // the others
	bad       []connector.Bad
	deleted   []connector.Key
	end       connector.End
	last      connector.Cursor // Next of the last page that was read
}

// pull reads to the end or to an error, and calls between after each page.
func (f *far) pull(p connector.Pull, between func(page int)) (got pulled, err error) {
	f.Helper()
	got = pulled{customers: map[string]connector.Customer{}, contacts: map[string]connector.Contact{},
		links: map[string]connector.Link{}, stated: map[string]connector.Link{}, last: p.Resume}
	for page, err := range f.Open(nil).Pull(f.Context(), p) {
		if err != nil {
			return got, err
		}
		got.pages++
		got.last = page.Next
		for _, c := range page.Customers {
			got.customers[c.ID] = c
		}
		for _, c := range page.Contacts {
			got.contacts[c.ID] = c
		}
		for _, l := range page.Links {
			id := connector.LinkID(l.Customer, l.Contact)
			if l.StatedBy == (connector.Key{}) {
				got.links[id] = l
			} else {
				got.stated[id] = l
			}
		}
		got.bad, got.deleted = append(got.bad, page.Bad...), append(got.deleted, page.Deleted...)
		if page.End != nil {
			got.end = *page.End
			return got, nil
		}
		if between != nil {
			between(got.pages)
		}
	}
	return got, errors.New("the pull has no end")
}

func (f *far) mustPull(p connector.Pull) pulled {
	f.Helper()
	got, err := f.pull(p, nil)
	f.do(err)
	return got
}

func (f *far) since(c connector.Cursor) pulled {
	f.Helper()
	return f.mustPull(connector.Pull{Since: c})
}

// statements are what was asked since the log was last emptied.
func (f *far) statements() []string {
	var all []string
	for _, r := range f.sim.Log().Requests(func(r erpsim.Request) bool { return r.Op != sim.Token }) {
		all = append(all, r.Statement)
	}
	return all
}

func (f *far) customer(c sim.Customer) string {
	f.Helper()
	id, err := f.account.JoinCustomer(c)
	f.do(err)
	return id
}

func (f *far) contact(c sim.Contact) string {
	f.Helper()
	id, err := f.account.JoinContact(c)
	f.do(err)
	return id
}

// TestStatements shows each statement that goes out, in its order: nothing but SELECT, by key, and one request to a
// page but for contacts and their places, which come on one.
func TestStatements(t *testing.T) {
	t.Parallel()
	f := newFar(t, sim.Options{}, 2)
	for i := range 3 {
		f.customer(sim.Customer{ID: fmt.Sprint(10 + i), CompanyName: "Kelp", ModifiedAt: f.now.Add(-72 * time.Hour)})
	}
	f.contact(sim.Contact{ID: "21", FirstName: "Ann", Company: "10", ModifiedAt: f.now.Add(-72 * time.Hour)})
	f.do(f.account.Attach("10", "21", sim.Primary))
	full := f.mustPull(connector.Pull{})
	const (
		customers = `SELECT c.id, c.entityid, c.email, c.isinactive, c.altname, c.companyname, c.isperson, c.firstname, ` +
			`c.middlename, c.lastname, c.title, c.altemail, c.phone, c.altphone, c.mobilephone, c.homephone, c.fax, c.url, ` +
			`c.parent, c.searchstage, TO_CHAR(SYS_EXTRACT_UTC(c.lastmodifieddate), 'YYYY-MM-DD"T"HH24:MI:SS"Z"') AS modified_utc ` +
			`FROM customer c WHERE %sc.id > %d ORDER BY c.id`
		contacts = `SELECT k.id, k.entityid, k.email, k.company, k.isinactive, k.firstname, k.middlename, k.lastname, k.title, ` +
			`k.altemail, k.phone, k.officephone, k.mobilephone, k.homephone, k.fax, ` +
			`TO_CHAR(SYS_EXTRACT_UTC(k.lastmodifieddate), 'YYYY-MM-DD"T"HH24:MI:SS"Z"') AS modified_utc ` +
			`FROM contact k WHERE %sk.id > %d ORDER BY k.id`
		relations = `SELECT r.company, r.contact, r.role, BUILTIN.DF(r.role) AS role_name, c.contact AS primary_contact, ` +
			`(SELECT MIN(p.contact) FROM companycontactrelationship p WHERE p.company = r.company AND p.role = -10) AS first_primary ` +
			`FROM companycontactrelationship r, customer c WHERE r.company = c.id(+) AND ` +
			`(r.contact > 0 OR (r.contact = 0 AND r.company > 0)) ORDER BY r.contact, r.company`
		changed = `%[1]s.lastmodifieddate >= TO_DATE('%[2]s', 'YYYY-MM-DD HH24:MI:SS') AND ` +
			`SYS_EXTRACT_UTC(%[1]s.lastmodifieddate) >= TO_TIMESTAMP('%[3]s', 'YYYY-MM-DD HH24:MI:SS') AND `
		deleted = `SELECT d.recordid, d.type FROM deletedrecord d WHERE UPPER(d.type) IN ('CONTACT', 'CUSTOMER', 'LEAD', 'PROSPECT') ` +
			`AND d.deleteddate >= TO_DATE('%s', 'YYYY-MM-DD HH24:MI:SS') AND d.recordid > 0 ORDER BY d.recordid`
	)
	probe := func(alias string) string {
		return fmt.Sprintf(changed, alias, "2026-10-30 06:30:00", "2026-10-31 08:30:00")
	}
	want := []string{
		"", fmt.Sprintf(customers, probe("c"), 0), fmt.Sprintf(contacts, probe("k"), 0), relations,
		fmt.Sprintf(deleted, "2026-10-30 06:30:00"),
		fmt.Sprintf(customers, "", 0), fmt.Sprintf(customers, "", 11), fmt.Sprintf(contacts, "", 0), relations,
	}
	if got := f.statements(); !slices.Equal(got, want) {
		t.Errorf("a full pull asks\n%s\nwant\n%s", strings.Join(got, "\n"), strings.Join(want, "\n"))
	}
	if full.pages != len(want)-1 {
		t.Errorf("%d pages, %d requests", full.pages, len(want))
	}
	f.sim.Log().Reset()
	f.Pass(50 * time.Minute)
	f.since(full.end.Cursor)
	since := func(alias string) string {
		return fmt.Sprintf(changed, alias, "2026-10-31 06:00:00", "2026-11-01 08:00:00")
	}
	want = []string{
		"", fmt.Sprintf(customers, since("c"), 0), fmt.Sprintf(contacts, since("k"), 0), relations, fmt.Sprintf(deleted, "2026-10-31 06:00:00"),
	}
	if got := f.statements(); !slices.Equal(got, want) {
		t.Errorf("an incremental pull asks\n%s\nwant\n%s", strings.Join(got, "\n"), strings.Join(want, "\n"))
	}
	if v := f.sim.Violations(); len(v) > 0 {
		t.Errorf("%d requests would have written", len(v))
	}
}

// TestContactsComeWithTheirPlaces: a contact and its places are on one page, so that a place is written once, and no place
// comes before its contact, at no request more than the rows demand. Where a few contacts fill two answers with places, the
// last ones come a page later.
func TestContactsComeWithTheirPlaces(t *testing.T) {
	t.Parallel()
	for _, pageSize := range []int{1, 2, 7, 40, 1000} {
		t.Run(fmt.Sprint(pageSize), func(t *testing.T) {
			t.Parallel()
			f := newFar(t, sim.Options{}, pageSize)
			rng := rand.New(rand.NewPCG(uint64(pageSize), 0))
			var companies []string
			for range 10 {
				companies = append(companies, f.customer(sim.Customer{CompanyName: "Kelp"}))
			}
			places := 0
			for range 150 {
				person := f.contact(sim.Contact{FirstName: "Ann"})
				for _, c := range companies[:max(0, rng.IntN(6)-2)] {
					f.do(f.account.Attach(c, person, ""))
					places++
				}
			}
			before := f.mustPull(connector.Pull{}) // which finds out what can be read
			f.Pass(2 * time.Hour)
			for name, p := range map[string]connector.Pull{"full": {}, "incremental": {Since: before.end.Cursor}} {
				page, late := 0, 0
				on, seen := map[string]int{}, map[string]bool{}
				f.sim.Log().Reset()
				for next, err := range f.Open(nil).Pull(f.Context(), p) {
					f.do(err)
					page++
					for _, c := range next.Contacts {
						on[c.ID] = page
					}
					for _, l := range next.Links {
						if l.StatedBy != (connector.Key{}) {
							continue
						}
						id := connector.LinkID(l.Customer, l.Contact)
						if seen[id] || name == "full" && on[l.Contact] == 0 {
							t.Errorf("%s: the place %s comes twice or before its contact", name, id)
						}
						seen[id] = true
						if on[l.Contact] < page && name == "full" {
							late++
						}
					}
				}
				if len(seen) != places || late > 0 && pageSize >= 40 {
					t.Errorf("%s: %d of %d places come, %d after their contact", name, len(seen), places, late)
				}
				asked := strings.Join(f.statements(), "\n")
				want := (places + pageSize - 1) / pageSize
				if n := strings.Count(asked, "BUILTIN.DF(r.role)"); name == "incremental" && n != want || n < want || n > want+1 {
					t.Errorf("%s: %d requests for places, %d are enough", name, n, want)
				}
			}
		})
	}
}

// TestContactsGoOnWithoutTheirPlaces: what was read before a request fails is on a page, so that an account that answers one
// request at a time gets on, and the rest is read from there.
func TestContactsGoOnWithoutTheirPlaces(t *testing.T) {
	t.Parallel()
	f := newFar(t, sim.Options{}, 2)
	company := f.customer(sim.Customer{CompanyName: "Kelp"})
	for range 5 {
		f.do(f.account.Attach(company, f.contact(sim.Contact{FirstName: "Ann", Company: company}), sim.Primary))
	}
	var got pulled
	for page, err := range f.Open(nil).Pull(f.Context(), connector.Pull{}) {
		f.do(err)
		if got.last = page.Next; len(page.Customers) > 0 {
			break
		}
	}
	f.sim.Fail(erpsim.Rule{Op: sim.Query, Match: "ORDER BY r.contact", Times: 3}, sim.Fault{Kind: sim.Throttle})
	named := map[string]bool{}
	for _, want := range []int{2, 4, 5, 5} {
		var err error
		if got, err = f.pull(connector.Pull{Resume: got.last}, nil); want == 5 && len(named) == 5 {
			f.do(err)
		} else if connector.KindOf(err) != connector.Throttled {
			t.Fatalf("the pull answers %v", err)
		}
		for id := range got.stated {
			if !strings.Contains(id, "customer:") {
				named[id] = true
			}
		}
		if len(named) != want {
			t.Fatalf("%d contacts are read, want %d", len(named), want)
		}
	}
	if len(got.links) != 5 || len(got.end.Listed) != 3 {
		t.Errorf("%d places are read, listed %v", len(got.links), got.end.Listed)
	}
}

// TestPlacesAtNoCompany: a place at a system entity is nobody's, and keeps nothing from being a complete listing.
func TestPlacesAtNoCompany(t *testing.T) {
	t.Parallel()
	f := newFar(t, sim.Options{}, 2)
	none := f.customer(sim.Customer{ID: "-2", CompanyName: "-No Company-"})
	kelp := f.customer(sim.Customer{CompanyName: "Kelp"})
	for range 5 {
		ann := f.contact(sim.Contact{FirstName: "Ann", Company: none})
		f.do(f.account.Attach(none, ann, ""))
		f.do(f.account.Attach(kelp, ann, sim.Primary))
	}
	got := f.mustPull(connector.Pull{})
	at := 0
	for _, l := range got.links {
		if l.Customer == kelp {
			at++
		}
	}
	if at != 5 || len(got.end.Listed) != 3 || len(got.customers) != 1 {
		t.Errorf("%d places, listed %v, %d customers", at, got.end.Listed, len(got.customers))
	}
}

// TestNothingButPlacesGoesOn: that no contact changed is got on with as well, where one request at a time is answered.
func TestNothingButPlacesGoesOn(t *testing.T) {
	t.Parallel()
	f := newFar(t, sim.Options{}, 2)
	f.do(f.account.Attach(f.customer(sim.Customer{CompanyName: "Kelp"}), f.contact(sim.Contact{FirstName: "Ann"}), sim.Primary))
	f.Pass(72 * time.Hour)
	before := f.mustPull(connector.Pull{})
	f.Pass(2 * time.Hour)
	f.sim.Fail(erpsim.Rule{Op: sim.Query, Match: "ORDER BY r.contact", Times: 1}, sim.Fault{Kind: sim.Throttle})
	got, err := f.pull(connector.Pull{Since: before.end.Cursor}, nil)
	if connector.KindOf(err) != connector.Throttled {
		t.Fatalf("the pull answers %v", err)
	}
	f.sim.Log().Reset()
	if got = f.mustPull(connector.Pull{Resume: got.last}); len(got.links) != 1 {
		t.Errorf("%d places are read", len(got.links))
	}
	if asked := f.statements(); strings.Contains(strings.Join(asked, " "), "FROM contact k") {
		t.Errorf("contacts are asked for again: %q", asked)
	}
}

// TestPlacesGoOnWithoutWhatIsTooMuch: where NetSuite fails with a statement within the statement as soon as there are many rows,
// though one row is no trouble, places are read without it.
func TestPlacesGoOnWithoutWhatIsTooMuch(t *testing.T) {
	t.Parallel()
	f := newFar(t, sim.Options{}, 2)
	f.do(f.account.Attach(f.customer(sim.Customer{CompanyName: "Kelp"}), f.contact(sim.Contact{FirstName: "Ann"}), sim.Primary))
	for _, skip := range []int{1, 2} { // the listing fails, and not the search before it for what cannot be read
		f.sim.Fail(erpsim.Rule{Op: sim.Query, Match: "first_primary FROM", Skip: skip}, sim.Fault{Kind: sim.Unexpected})
	}
	got := f.mustPull(connector.Pull{})
	if len(got.links) != 1 || len(got.end.Listed) != 3 {
		t.Errorf("%d places are read, listed %v", len(got.links), got.end.Listed)
	}
	asked := f.statements()
	if n := strings.Count(strings.Join(asked, " "), "first_primary"); n != 4 || strings.Contains(asked[len(asked)-1], "first_primary") {
		t.Errorf("asked with it %d times: %q", n, asked)
	}

	// It is tried again with the next search for what can be read, a day later, and not because something else fails once: nor is it a
	// permission that has changed.
	f.Pass(2 * time.Hour)
	f.sim.Log().Reset()
	f.sim.Fail(erpsim.Rule{Op: sim.Query, Match: "FROM contact k"}, sim.Fault{Kind: sim.Unexpected})
	if next := f.since(got.end.Cursor); len(next.links) != 1 || next.end.Rights != got.end.Rights {
		t.Errorf("%d places are read, rights %s", len(next.links), next.end.Rights)
	}
	asked = f.statements()
	if strings.Contains(asked[len(asked)-2], "first_primary") {
		t.Errorf("asked with it again: %q", asked)
	}
}

// TestSlowPagesAreSaved: a page whose requests take long goes without the places of its contacts, which come on the next; and a
// listing that takes a minute to fail goes on without the statement within the statement.
func TestSlowPagesAreSaved(t *testing.T) {
	t.Parallel()
	f := newFar(t, sim.Options{}, 2)
	f.do(f.account.Attach(f.customer(sim.Customer{CompanyName: "Kelp"}), f.contact(sim.Contact{FirstName: "Ann"}), sim.Primary))
	f.Pass(72 * time.Hour)
	before := f.mustPull(connector.Pull{})
	f.Pass(2 * time.Hour)
	slow := time.Duration(0)
	f.sim.Before(func(r erpsim.Request) {
		if r.Op == sim.Query {
			f.Pass(slow)
		}
	})
	quick := f.mustPull(connector.Pull{}).pages
	slow = 11 * time.Second
	got := f.mustPull(connector.Pull{})
	if late := got.pages - quick; late != 1 || len(got.links) != 1 {
		t.Errorf("%d pages more, %d places", late, len(got.links))
	}
	slow = time.Minute
	f.sim.Fail(erpsim.Rule{Op: sim.Query, Match: "first_primary FROM"}, sim.Fault{Kind: sim.HTML503})
	got, err := f.pull(connector.Pull{Since: before.end.Cursor}, nil)
	if connector.KindOf(err) != connector.Transient {
		t.Fatalf("the pull answers %v", err)
	}
	f.sim.Log().Reset()
	got = f.mustPull(connector.Pull{Resume: got.last})
	if asked := strings.Join(f.statements(), " "); len(got.links) != 1 || strings.Contains(asked, "first_primary") {
		t.Errorf("%d places, asked %s", len(got.links), asked)
	}
}

// TestPagesWithoutAnAnswerInTimeGetSmaller: a page that takes NetSuite too long takes it too long the next time too. Half as many rows are
// asked for then, of customers and of contacts, and more again once answers come soon: NetSuite may just have been unwell.
func TestPagesWithoutAnAnswerInTimeGetSmaller(t *testing.T) {
	t.Parallel()
	for _, table := range []string{"FROM customer c WHERE", "FROM contact k"} {
		f := newFar(t, sim.Options{}, 40)
		before := f.mustPull(connector.Pull{})
		f.Pass(2 * time.Hour)
		for range 40 {
			f.do(f.account.Attach(f.customer(sim.Customer{CompanyName: "Kelp"}), f.contact(sim.Contact{FirstName: "Ann"}), sim.Primary))
		}
		f.Pass(time.Hour)
		slow := 2
		f.sim.Before(func(r erpsim.Request) {
			if slow > 0 && strings.Contains(r.Statement, table) {
				slow--
				f.Pass(70 * time.Second)
			}
		})
		f.sim.Fail(erpsim.Rule{Op: sim.Query, Match: table, Times: slow}, sim.Fault{Kind: sim.HTML503})
		f.sim.Log().Reset()
		customers, contacts, resume := 0, 0, connector.Cursor("")
		for tries := 1; ; tries++ {
			got, err := f.pull(connector.Pull{Since: before.end.Cursor, Resume: resume}, nil)
			customers, contacts = customers+len(got.customers), contacts+len(got.contacts)
			if resume = got.last; err == nil {
				break
			}
			if connector.KindOf(err) != connector.Transient || tries > 2 {
				t.Fatalf("%s: %v", table, err)
			}
		}
		asked := 0
		for _, s := range f.statements() {
			if strings.Contains(s, table) {
				asked++
			}
		}
		if customers != 40 || contacts != 80 || asked != 5 {
			t.Errorf("%s: %d customers, %d contacts, asked %d times, want 40 and 80 (each customer is one too), 10, 20 and the rest after two failures", table, customers, contacts, asked)
		}
	}
}

// TestRefusedLoginIsNotKeptBack: a second 401 amid a page is told at once. Told only with the next page it would be lost where a step ends on
// this one, and the next step would log in again: five refused logins lock the user.
func TestRefusedLoginIsNotKeptBack(t *testing.T) {
	t.Parallel()
	f := newFar(t, sim.Options{}, 10)
	f.do(f.account.Attach(f.customer(sim.Customer{CompanyName: "Kelp"}), f.contact(sim.Contact{FirstName: "Ann"}), sim.Primary))
	before := f.mustPull(connector.Pull{})
	f.Pass(2 * time.Hour)
	f.sim.Fail(erpsim.Rule{Op: sim.Query, Match: "FROM companycontactrelationship r", Times: erpsim.Forever}, sim.Fault{Kind: sim.InvalidLogin})
	for page, err := range f.Open(nil).Pull(f.Context(), connector.Pull{Since: before.end.Cursor}) {
		if err != nil {
			if connector.KindOf(err) != connector.Denied {
				t.Errorf("%v", err)
			}
			return
		}
		if len(page.Customers) == 0 && len(page.Contacts) > 0 {
			t.Fatal("a page comes before the refusal that followed it")
		}
	}
	t.Error("nothing was refused")
}

// TestOthersFailuresLeaveTheColumn: what fails twice that is no listing of places takes nothing from it.
func TestOthersFailuresLeaveTheColumn(t *testing.T) {
	t.Parallel()
	f := newFar(t, sim.Options{}, 2)
	f.do(f.account.Attach(f.customer(sim.Customer{CompanyName: "Kelp"}), f.contact(sim.Contact{FirstName: "Ann"}), sim.Primary))
	for _, skip := range []int{1, 2} {
		f.sim.Fail(erpsim.Rule{Op: sim.Query, Match: "FROM contact k", Skip: skip}, sim.Fault{Kind: sim.Unexpected})
	}
	got, err := f.pull(connector.Pull{}, nil)
	if connector.KindOf(err) == "" {
		t.Fatalf("a second failure is no error: %v", err)
	}
	f.sim.Log().Reset()
	f.mustPull(connector.Pull{Resume: got.last})
	if !strings.Contains(strings.Join(f.statements(), " "), "first_primary") {
		t.Errorf("places are read without: %q", f.statements())
	}
}

// TestEachPlaceHasItsRole: one contact at three customers with three roles is one contact and three links, whatever the
// roles are called, and without any record's date moving a change of one arrives.
func TestEachPlaceHasItsRole(t *testing.T) {
	t.Parallel()
	f := newFar(t, sim.Options{}, 50)
	var at []string
	for range 4 {
		at = append(at, f.customer(sim.Customer{CompanyName: "Kelp"}))
	}
	vendor := f.account.JoinOther("Rope & Co")
	ann := f.contact(sim.Contact{FirstName: "Ann", LastName: "Thorne", Company: at[3], Email: "ann@kelp.example", AltEmail: "a@home.example"})
	cleo := f.contact(sim.Contact{FirstName: "Cleo", Company: vendor})
	custom := f.account.AddRole("Bookkeeping")
	for i, role := range []string{sim.Primary, custom, ""} {
		f.do(f.account.Attach(at[i], ann, role))
	}
	f.do(f.account.Attach(vendor, cleo, custom))
	f.Pass(72 * time.Hour)
	got := f.mustPull(connector.Pull{})
	roles := func(got pulled) string {
		var all []string
		for _, c := range at {
			l, ok := got.links[connector.LinkID(c, ann)]
			switch {
			case !ok:
				all = append(all, "none")
			case len(l.Roles) == 0:
				all = append(all, "without")
			default:
				all = append(all, l.Roles[0].Key+" "+l.Roles[0].Name)
			}
		}
		return strings.Join(all, ", ")
	}
	if s, want := roles(got), fmt.Sprintf("-10 Primary Contact, %s Bookkeeping, without, none", custom); s != want {
		t.Errorf("roles are %q, want %q", s, want)
	}
	main := got.stated[connector.LinkID(at[3], ann)]
	if main.StatedBy != (connector.Key{Kind: connector.Contacts, ID: ann}) || len(main.Roles) != 0 {
		t.Errorf("the main company is stated as %+v", main)
	}
	if len(got.contacts) != 6 || len(got.bad) != 0 {
		t.Errorf("%d contacts, %d of them the customers' own; bad: %v", len(got.contacts), 4, got.bad)
	}
	for _, ch := range got.contacts[ann].Channels {
		if ch.Main != (ch.Field == "email") {
			t.Errorf("mail goes to %s: %t", ch.Field, ch.Main)
		}
	}

	f.do(f.account.EditRole(sim.Primary, func(r *sim.Role) { r.Name = "Hauptkontakt" }))
	f.do(f.account.Attach(at[1], ann, ""))
	f.do(f.account.Detach(at[2], ann))
	next := f.since(got.end.Cursor)
	if s, want := roles(next), "-10 Hauptkontakt, without, none, none"; s != want {
		t.Errorf("roles are then %q, want %q", s, want)
	}
	if len(next.contacts) != 0 || !slices.Equal(next.end.Listed, []connector.Kind{connector.Links}) {
		t.Errorf("%d contacts were read again, listed %v", len(next.contacts), next.end.Listed)
	}
}

// TestDisagreementsAreIssues: two primary contacts, and a customer that names another one, are told and not decided.
func TestDisagreementsAreIssues(t *testing.T) {
	t.Parallel()
	f := newFar(t, sim.Options{}, 2) // a page ends between the two
	two, other, fine := f.customer(sim.Customer{CompanyName: "Two"}), f.customer(sim.Customer{CompanyName: "Other"}), f.customer(sim.Customer{CompanyName: "Fine"})
	var people []string
	for _, name := range []string{"Ann", "Bea", "Cleo", "Dora"} {
		people = append(people, f.contact(sim.Contact{FirstName: name}))
	}
	for _, p := range people[:3] {
		f.do(f.account.Attach(two, p, sim.Primary))
	}
	f.do(f.account.Attach(other, people[0], sim.Primary))
	f.do(f.account.Attach(other, people[3], ""))
	f.do(f.account.Attach(fine, people[3], sim.Primary))
	f.do(f.account.EditCustomer(other, func(c *sim.Customer) { c.Contact = people[3] }))
	f.do(f.account.EditCustomer(fine, func(c *sim.Customer) { c.Contact = people[3] }))
	got := f.mustPull(connector.Pull{})
	var told []string
	for _, b := range got.bad {
		told = append(told, b.Key.ID+" "+b.Field+" "+b.Reason)
	}
	slices.Sort(told)
	want := []string{
		two + "/" + people[1] + " role two_primary_contacts", two + "/" + people[2] + " role two_primary_contacts",
		other + "/" + people[0] + " role customer_names_another_primary_contact",
	}
	slices.Sort(want)
	if !slices.Equal(told, want) {
		t.Errorf("told is %q, want %q", told, want)
	}
	if len(got.links) != 6 || len(got.end.Listed) != 3 {
		t.Errorf("%d links are there, listed %v: nothing may be lost by it", len(got.links), got.end.Listed)
	}
}

// TestCutsAreNoEnd: what NetSuite leaves out without a word, or sends twice, is an error and never the end of a pull.
func TestCutsAreNoEnd(t *testing.T) {
	t.Parallel()
	for _, fault := range []sim.FaultKind{sim.SilentCut, sim.Repeat, sim.Truncated, sim.NotJSON, sim.HTML503, sim.Empty502, sim.Redirect, sim.Drop} {
		t.Run(string(fault), func(t *testing.T) {
			t.Parallel()
			f := newFar(t, sim.Options{}, 3)
			for range 10 {
				f.customer(sim.Customer{CompanyName: "Kelp"})
			}
			first := f.account.Customers()[2].ID
			f.sim.Fail(erpsim.Rule{Op: sim.Query, Match: "c.id > " + first + " ", Times: 1}, sim.Fault{Kind: fault})
			got, err := f.pull(connector.Pull{}, nil)
			if connector.KindOf(err) != connector.Transient {
				t.Fatalf("the pull answers %v", err)
			}
			rest := f.mustPull(connector.Pull{Resume: got.last})
			if n := len(got.customers) + len(rest.customers); n != 10 {
				t.Errorf("%d of 10 customers came", n)
			}
		})
	}
}

// TestCeilingIsNotReached: past the row at which NetSuite silently stops, a walk by key goes on.
func TestCeilingIsNotReached(t *testing.T) {
	t.Parallel()
	f := newFar(t, sim.Options{Ceiling: 7}, 3)
	for range 20 {
		f.customer(sim.Customer{CompanyName: "Kelp"})
	}
	got, err := f.pull(connector.Pull{}, nil)
	if err != nil || len(got.customers) != 20 {
		t.Errorf("%d of 20 customers came: %v", len(got.customers), err)
	}
}

// TestChangesAreNotMissed: a change that is committed later than it says, one behind the key of a pull on its way, and
// one in the hour that the session's clock repeats.
func TestChangesAreNotMissed(t *testing.T) {
	t.Parallel()
	for name, o := range map[string]sim.Options{"UTC": {}, "SessionTime": {NoUTC: true}, "Far": {NoUTC: true, Zone: time.FixedZone("", 14*3600)},
		"FarBehind": {NoUTC: true, Zone: time.FixedZone("", -12*3600)}} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			f := newFar(t, o, 2)
			var ids []string
			for range 5 {
				ids = append(ids, f.customer(sim.Customer{CompanyName: "Kelp"}))
			}
			got, err := f.pull(connector.Pull{}, func(page int) {
				if page == 6 { // the first two are read
					f.do(f.account.EditCustomer(ids[0], func(c *sim.Customer) { c.Email = "behind@kelp.example" }))
				}
			})
			f.do(err)
			f.Pass(time.Hour)
			f.do(f.account.EditCustomer(ids[1], func(c *sim.Customer) {
				c.Email, c.ModifiedAt = "late@kelp.example", f.clock().Add(-80*time.Minute)
			}))
			next := f.since(got.end.Cursor)
			for i, want := range []string{"behind@kelp.example", "late@kelp.example"} {
				own := next.contacts[contact.OwnID(ids[i])]
				if len(own.Channels) != 1 || own.Channels[0].Value != want {
					t.Errorf("customer %d has %v, want %s", i, own.Channels, want)
				}
			}
		})
	}
}

// TestDeletionsAreClaims: what deletedrecord says is claimed and not decided; what it does not say, the full listing
// shows.
func TestDeletionsAreClaims(t *testing.T) {
	t.Parallel()
	f := newFar(t, sim.Options{}, 50)
	gone, silent := f.customer(sim.Customer{CompanyName: "Gone"}), f.customer(sim.Customer{CompanyName: "Silent"})
	left := f.contact(sim.Contact{FirstName: "Ann"})
	f.customer(sim.Customer{CompanyName: "Stays"})
	got := f.mustPull(connector.Pull{})
	f.Pass(2 * time.Hour)
	f.do(f.account.DeleteCustomer(gone))
	f.do(f.account.VanishCustomer(silent))
	f.do(f.account.DeleteContact(left))
	next := f.since(got.end.Cursor)
	slices.SortFunc(next.deleted, func(a, b connector.Key) int { return strings.Compare(a.ID, b.ID) })
	want := []connector.Key{{Kind: connector.Customers, ID: gone}, {Kind: connector.Contacts, ID: left}}
	slices.SortFunc(want, func(a, b connector.Key) int { return strings.Compare(a.ID, b.ID) })
	if !slices.Equal(next.deleted, want) {
		t.Errorf("claimed are %v, want %v", next.deleted, want)
	}
	full := f.mustPull(connector.Pull{})
	if len(full.customers) != 1 || len(full.end.Listed) != 3 || len(full.deleted) != 0 {
		t.Errorf("a full pull names %d customers, lists %v and claims %v", len(full.customers), full.end.Listed, full.deleted)
	}
}

// TestLostPermissionStopsThePull: a table that the role may no longer read ends the pull with what to do, and no End
// could take what it hides for gone.
func TestLostPermissionStopsThePull(t *testing.T) {
	t.Parallel()
	for table, words := range map[string]string{
		"customer": "permission Customers (tab Lists, level View)", "contact": "permission Contacts (tab Lists, level View)",
		"companycontactrelationship": "permissions Contacts and Customers", "rest": "REST Web Services (tab Setup, level Full)",
	} {
		t.Run(table, func(t *testing.T) {
			t.Parallel()
			f := newFar(t, sim.Options{}, 50)
			f.customer(sim.Customer{CompanyName: "Kelp"})
			before := f.mustPull(connector.Pull{})
			f.account.Deny(table)
			for _, p := range []connector.Pull{{}, {Since: before.end.Cursor}} {
				got, err := f.pull(p, nil)
				e, _ := errors.AsType[*connector.Error](err)
				if e == nil || e.Kind != connector.Denied || e.NoTrial || !strings.Contains(e.Hint, words) {
					t.Errorf("the pull answers %v (%+v), want %q in its hint", err, e, words)
				}
				if p.Since == "" && len(got.customers) > 0 {
					t.Error("records came before the error")
				}
			}
			check, err := f.Open(nil).Check(t.Context())
			told := slices.ContainsFunc(check.Rights, func(r connector.Right) bool {
				return r.Needed && !r.Readable && strings.Contains(r.Fix, words)
			})
			if e, ok := errors.AsType[*connector.Error](err); ok {
				told = strings.Contains(e.Hint, words)
			}
			if !told {
				t.Errorf("a check answers %v, %+v", err, check.Rights)
			}
		})
	}
}

// TestRightsAreKnown: what the role may read is found out by asking, stored, told in words and found out again daily.
func TestRightsAreKnown(t *testing.T) {
	t.Parallel()
	for _, as := range []sim.ColumnFault{sim.FieldNotFound, sim.UnknownIdentifier, sim.ColumnUnexpected} {
		t.Run(string(as), func(t *testing.T) {
			t.Parallel()
			f := newFar(t, sim.Options{ColumnFault: as}, 50)
			f.customer(sim.Customer{CompanyName: "Kelp", Fax: "1", Email: "k@kelp.example"})
			whole := f.mustPull(connector.Pull{})
			f.account.Deny("customer.fax", "deletedrecord")
			f.sim.Log().Reset()
			narrow := f.mustPull(connector.Pull{})
			if narrow.end.Rights == whole.end.Rights || narrow.end.Rights == "" {
				t.Errorf("rights are %q, before %q", narrow.end.Rights, whole.end.Rights)
			}
			if n := len(f.statements()); n > 40 {
				t.Errorf("%d requests to find out", n)
			}
			var lost []string
			for _, r := range f.erp.Rights(narrow.end.Rights) {
				if !r.Readable {
					lost = append(lost, r.Name)
				}
				if r.Needed && !r.Readable || r.Fix == "" {
					t.Errorf("%+v", r)
				}
			}
			if !slices.Equal(lost, []string{"the field customer.fax", "deleted records"}) {
				t.Errorf("lost is %q", lost)
			}
			if len(f.erp.Rights("{}"))+len(f.erp.Rights("")) > 0 {
				t.Error("rights of another version are put into words")
			}

			// Given back, an incremental pull within the day does not ask, one after it does.
			f.account.Allow("customer.fax", "deletedrecord")
			soon := f.since(narrow.end.Cursor)
			f.Pass(25 * time.Hour)
			later := f.since(soon.end.Cursor)
			if soon.end.Rights != narrow.end.Rights || later.end.Rights != whole.end.Rights {
				t.Errorf("rights are %q soon and %q a day later", soon.end.Rights, later.end.Rights)
			}
		})
	}
}

// TestAccidentHidesNoColumn: a failure of NetSuite's own while a column is asked for alone does not clear that column's values.
func TestAccidentHidesNoColumn(t *testing.T) {
	t.Parallel()
	f := newFar(t, sim.Options{}, 50)
	id := f.customer(sim.Customer{CompanyName: "Kelp", AltPhone: "218 555 0100"})
	f.account.Deny("customer.fax")
	f.sim.Fail(erpsim.Rule{Op: sim.Query, Match: "c.isinactive, c.altphone FROM"}, sim.Fault{Kind: sim.Unexpected})
	got := f.mustPull(connector.Pull{})
	met := slices.ContainsFunc(f.sim.Log().Requests(nil), func(r erpsim.Request) bool { return r.Fault != "" })
	if len(got.contacts[contact.OwnID(id)].Channels) != 1 || !met {
		t.Errorf("met %t, rights are %s", met, got.end.Rights)
	}
}

// TestTableThatGoesDuringTheSearchHidesNoColumn: while it is found out which columns are hidden, a permission that is taken away
// and given back again clears nobody's name.
func TestTableThatGoesDuringTheSearchHidesNoColumn(t *testing.T) {
	t.Parallel()
	const alone = "k.isinactive, k.lastname FROM"
	for name, back := range map[string]func(asked int) bool{
		"WhileColumnsAreTried": func(asked int) bool { return asked == 2 },
		"AtOnce":               func(asked int) bool { return asked == 1 },
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			f := newFar(t, sim.Options{}, 50)
			id := f.contact(sim.Contact{FirstName: "Ann", LastName: "Thorne", Title: "Controller", Fax: "218 555 0100"})
			f.account.Deny("contact.fax")
			asked := 0 // since it was taken away
			f.sim.Before(func(r erpsim.Request) {
				switch {
				case r.Op != sim.Query:
				case asked > 0:
					if back(asked) {
						f.account.Allow("contact")
					}
					asked++
				case strings.Contains(r.Statement, alone):
					f.account.Deny("contact")
					asked = 1
				}
			})
			got := f.mustPull(connector.Pull{})
			if c := got.contacts[id]; c.FamilyName != "Thorne" || c.JobTitle != "Controller" || asked == 0 {
				t.Errorf("the contact is %q, %q; rights are %s", c.FamilyName, c.JobTitle, got.end.Rights)
			}
		})
	}
}

// TestUnexplainedRefusals: a statement that worked and is refused is a reason to find out once more what may be read.
// Changed rights begin the listing again, the same rights make it the statement's fault, and nothing goes round for
// ever.
func TestUnexplainedRefusals(t *testing.T) {
	t.Parallel()
	setup := func(t *testing.T) (*far, connector.Cursor) {
		f := newFar(t, sim.Options{}, 50)
		f.customer(sim.Customer{CompanyName: "Kelp"})
		return f, f.mustPull(connector.Pull{}).end.Cursor
	}
	t.Run("Changed", func(t *testing.T) {
		t.Parallel()
		f, since := setup(t)
		f.account.Deny("customer.fax")
		if _, err := f.pull(connector.Pull{Since: since}, nil); connector.KindOf(err) != connector.Expired {
			t.Errorf("%v", err)
		}
		f.mustPull(connector.Pull{})
	})
	t.Run("Once", func(t *testing.T) {
		t.Parallel()
		for _, kind := range []sim.FaultKind{sim.BadQuery, sim.Unexpected} {
			f, since := setup(t)
			f.sim.Fail(erpsim.Rule{Op: sim.Query, Match: "FROM contact k"}, sim.Fault{Kind: kind})
			f.since(since)
		}
	})
	for kind, want := range map[sim.FaultKind]connector.ErrorKind{sim.BadQuery: connector.Rejected, sim.Unexpected: connector.Transient} {
		t.Run(string(kind), func(t *testing.T) {
			t.Parallel()
			f, since := setup(t)
			f.sim.Log().Reset()
			f.sim.Fail(erpsim.Rule{Op: sim.Query, Match: "c.id > 0 ORDER BY c.id", Times: 1}, sim.Fault{Kind: kind})
			f.sim.Fail(erpsim.Rule{Op: sim.Query, Match: "c.id > 0 ORDER BY c.id", Skip: 1, Times: erpsim.Forever}, sim.Fault{Kind: kind})
			_, err := f.pull(connector.Pull{Since: since}, nil)
			if got := connector.KindOf(err); got != want || len(f.statements()) > 12 {
				t.Errorf("%v after %d requests, want %s", err, len(f.statements()), want)
			}
		})
	}
}

// TestTokenEndsOnTheWay: a token that NetSuite takes back in the middle of a pull is replaced unnoticed.
func TestTokenEndsOnTheWay(t *testing.T) {
	t.Parallel()
	f := newFar(t, sim.Options{}, 2)
	for range 7 {
		f.customer(sim.Customer{CompanyName: "Kelp"})
	}
	got, err := f.pull(connector.Pull{}, func(page int) {
		if page == 6 {
			f.account.ExpireAccess()
		}
	})
	if err != nil || len(got.customers) != 7 || f.account.Logins().Failed != 0 {
		t.Errorf("%d customers, %+v: %v", len(got.customers), f.account.Logins(), err)
	}
}

// TestThrottledWaits: told or not, a refusal for being too many says how long to wait, also without a body.
func TestThrottledWaits(t *testing.T) {
	t.Parallel()
	for _, kind := range []sim.FaultKind{sim.Throttle, sim.ThrottleBroken, sim.ThrottleEmpty} {
		for _, told := range []string{"", "11"} {
			f := newFar(t, sim.Options{}, 50)
			f.sim.Fail(erpsim.Rule{}, sim.Fault{Kind: kind, RetryAfter: told})
			_, err := f.pull(connector.Pull{}, nil)
			e, _ := errors.AsType[*connector.Error](err)
			if e == nil || e.Kind != connector.Throttled || told != "" && e.RetryAfter != 11*time.Second || e.RetryAfter < 10*time.Second {
				t.Errorf("%s: %+v", kind, err)
			}
		}
	}
}

// TestCustomerNow reads one customer as it is now, with everybody at it.
func TestCustomerNow(t *testing.T) {
	t.Parallel()
	f := newFar(t, sim.Options{}, 50)
	kelp, other := f.customer(sim.Customer{CompanyName: "Kelp", Email: "office@kelp.example"}), f.customer(sim.Customer{CompanyName: "Other"})
	ann, bea, cleo := f.contact(sim.Contact{FirstName: "Ann"}), f.contact(sim.Contact{FirstName: "Bea", Company: kelp}),
		f.contact(sim.Contact{FirstName: "Cleo", Company: other})
	f.do(f.account.Attach(kelp, ann, sim.Primary))
	f.do(f.account.Attach(other, ann, ""))
	source, ok := f.Open(nil).(interface {
		Customer(ctx context.Context, id string) (connector.Page, error)
	})
	if !ok {
		t.Fatal("a customer cannot be read alone")
	}
	page, err := source.Customer(t.Context(), kelp)
	f.do(err)
	var people, links []string
	for _, c := range page.Contacts {
		people = append(people, c.ID)
	}
	for _, l := range page.Links {
		links = append(links, connector.LinkID(l.Customer, l.Contact))
	}
	slices.Sort(people)
	slices.Sort(links)
	wantPeople := []string{ann, bea, contact.OwnID(kelp)}
	wantLinks := []string{kelp + "/" + ann, kelp + "/" + bea, kelp + "/" + contact.OwnID(kelp)}
	slices.Sort(wantPeople)
	slices.Sort(wantLinks)
	if len(page.Customers) != 1 || !slices.Equal(people, wantPeople) || !slices.Equal(links, wantLinks) || slices.Contains(people, cleo) {
		t.Errorf("%d customers, contacts %q, links %q", len(page.Customers), people, links)
	}
	f.do(f.account.DeleteCustomer(other))
	for _, gone := range []string{other, "999999", "no'such", "-4"} {
		if page, err := source.Customer(t.Context(), gone); err != nil || len(page.Customers)+len(page.Links) > 0 {
			t.Errorf("customer %q is %+v, %v", gone, page, err)
		}
	}
}

// TestNamelessRowIsNotGone: a look-up in which a row has no readable id says of none it asked for that it is gone.
func TestNamelessRowIsNotGone(t *testing.T) {
	t.Parallel()
	f := newFar(t, sim.Options{}, 50)
	var keys []connector.Key
	for range 3 {
		keys = append(keys, connector.Key{Kind: connector.Customers, ID: f.customer(sim.Customer{CompanyName: "Kelp"})})
	}
	f.do(f.account.Spoil("customer", keys[1].ID, "id", ""))
	page, err := f.Open(nil).Lookup(t.Context(), keys)
	f.do(err)
	if len(page.Customers) != 2 || len(page.Bad) != 1 || page.Bad[0].Key != keys[1] {
		t.Errorf("%d found, bad %v", len(page.Customers), page.Bad)
	}
}

// TestLookupOfRelations: of places at one customer and of one contact those that were asked for are found, in however many answers
// they come, and a row whose ids cannot be read says of none that it is gone.
func TestLookupOfRelations(t *testing.T) {
	t.Parallel()
	f := newFar(t, sim.Options{}, 50)
	var customers, people []string
	for range 34 {
		customers, people = append(customers, f.customer(sim.Customer{CompanyName: "Kelp"})), append(people, f.contact(sim.Contact{FirstName: "Ann"}))
	}
	var keys []connector.Key
	for i, c := range customers {
		for j, p := range people { // 1,156 rows: more than an answer holds
			if f.do(f.account.Attach(c, p, "")); i == j {
				keys = append(keys, connector.Key{Kind: connector.Links, ID: connector.LinkID(c, p)})
			}
		}
	}
	source, asked := f.Open(nil), len(f.statements())
	page, err := source.Lookup(t.Context(), keys)
	f.do(err)
	if len(page.Links) != 34 || len(page.Contacts)+len(page.Bad) > 0 || len(f.statements()) != asked+2 {
		t.Errorf("%d places in %d requests, bad %v", len(page.Links), len(f.statements())-asked, page.Bad)
	}
	f.do(f.account.Detach(customers[0], people[0]))
	f.do(f.account.Spoil("companycontactrelationship", connector.LinkID(customers[1], people[1]), "contact", `"x"`))
	page, err = source.Lookup(t.Context(), keys)
	f.do(err)
	var bad []connector.Key
	for _, b := range page.Bad {
		bad = append(bad, b.Key)
	}
	slices.SortFunc(bad, func(a, b connector.Key) int { return slices.Index(keys, a) - slices.Index(keys, b) })
	if len(page.Links) != 32 || !slices.Equal(bad, keys[:2]) {
		t.Errorf("%d places, bad %v, want %v", len(page.Links), bad, keys[:2])
	}
}

// TestLookupGoesOnWithoutWhatIsTooMuch: where NetSuite fails with a statement within the statement, places are looked up without it,
// and from then on at once.
func TestLookupGoesOnWithoutWhatIsTooMuch(t *testing.T) {
	t.Parallel()
	for name, fault := range map[string]sim.Fault{"Refused": {Kind: sim.Unexpected}, "Slow": {Kind: sim.HTML503}} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			f := newFar(t, sim.Options{}, 2)
			kelp, ann := f.customer(sim.Customer{CompanyName: "Kelp"}), f.contact(sim.Contact{FirstName: "Ann"})
			f.do(f.account.Attach(kelp, ann, sim.Primary))
			f.sim.Fail(erpsim.Rule{Op: sim.Query, Match: "first_primary FROM"}, fault)
			if name == "Slow" {
				f.sim.Before(func(r erpsim.Request) { f.Pass(time.Minute) })
			}
			source := f.Open(nil)
			for want := 2; want > 0; want-- {
				before := len(f.statements())
				page, err := source.Lookup(t.Context(), []connector.Key{{Kind: connector.Links, ID: connector.LinkID(kelp, ann)}})
				if asked := len(f.statements()) - before; err != nil || len(page.Links) != 1 || asked != want {
					t.Errorf("%d places in %d requests, want %d: %v", len(page.Links), asked, want, err)
				}
			}
		})
	}
}

// TestLookupLeavesOutWhatIsHidden: a look-up in an account that hides columns finds its records, asks for the missing ones
// once, and takes nothing hidden for bad.
func TestLookupLeavesOutWhatIsHidden(t *testing.T) {
	t.Parallel()
	f := newFar(t, sim.Options{NoUTC: true, ColumnFault: sim.ColumnUnexpected}, 50)
	f.account.Deny("customer.fax", "contact.title")
	keys := []connector.Key{
		{Kind: connector.Customers, ID: f.customer(sim.Customer{CompanyName: "Kelp"})},
		{Kind: connector.Contacts, ID: f.contact(sim.Contact{FirstName: "Ann"})},
	}
	source := f.Open(nil)
	for range 2 {
		page, err := source.Lookup(t.Context(), keys)
		if err != nil || len(page.Customers) != 1 || len(page.Contacts) != 2 || len(page.Bad) > 0 {
			t.Errorf("%+v, %v", page, err)
		}
	}
	asked := len(f.statements())
	if _, err := source.Lookup(t.Context(), keys); err != nil || len(f.statements()) != asked+2 {
		t.Errorf("%d requests for the third look-up: %v", len(f.statements())-asked, err)
	}
}

// TestCallsArePages: a company is read with as many requests as it has pages, and the few that find out what can be
// read.
func TestCallsArePages(t *testing.T) {
	t.Parallel()
	f := newFar(t, sim.Options{}, 100)
	f.account.BulkLoad(950, 1730, 7)
	got := f.mustPull(connector.Pull{})
	f.calls(got, 100)
	if f.sim.Peak() != 1 || f.erp.Limits().AtOnce != 1 {
		t.Errorf("%d requests at once, %d allowed: other integrations of the account need room", f.sim.Peak(), f.erp.Limits().AtOnce)
	}
}

// calls compares the requests of a full pull with what its rows demand.
func (f *far) calls(got pulled, pageSize int) {
	f.Helper()
	relations := len(f.account.Links())
	pages := func(rows int) int { return max(1, (rows+pageSize-1)/pageSize) }
	own := len(got.customers)
	want := 1 + 4 + pages(own) + pages(len(got.contacts)-own) + pages(relations)
	if asked := len(f.statements()); asked > want+1 { // a private contact's relation may be hidden or not
		f.Errorf("%d requests for %d customers, %d contacts and %d relations, want %d", asked, own, len(got.contacts)-own, relations, want)
	}
}

// BenchmarkLargeCompany reads 100,000 customers and 200,000 contacts page by page, and keeps none of it.
func BenchmarkLargeCompany(b *testing.B) {
	f := newFar(b, sim.Options{}, 1000)
	f.account.BulkLoad(100_000, 200_000, 1)
	for b.Loop() {
		f.sim.Log().Reset()
		rows, calls, peak := 0, 0, uint64(0)
		var m runtime.MemStats
		runtime.GC()
		runtime.ReadMemStats(&m)
		before := m.HeapAlloc
		for page, err := range f.Open(func(context.Context) (func(), error) { calls++; return func() {}, nil }).Pull(b.Context(), connector.Pull{}) {
			if err != nil {
				b.Fatal(err)
			}
			rows += len(page.Customers) + len(page.Contacts) + len(page.Links)
			if calls%50 == 0 {
				runtime.GC()
				runtime.ReadMemStats(&m)
				peak = max(peak, m.HeapAlloc-min(before, m.HeapAlloc))
			}
		}
		b.ReportMetric(float64(calls), "calls/op")
		b.ReportMetric(float64(rows), "records/op")
		b.ReportMetric(float64(peak)/(1<<20), "MB-live")
		b.ReportMetric(float64(len(f.account.Links())), "relations")
	}
}

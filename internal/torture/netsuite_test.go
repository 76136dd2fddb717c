package torture

import (
	"fmt"
	"math/rand/v2"
	"net/http/httptest"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/centime/contactsync/internal/connector"
	"github.com/centime/contactsync/internal/erpsim"
	"github.com/centime/contactsync/internal/erpsim/netsuite"
	"github.com/centime/contactsync/internal/settings"
)

// netSuite is a company in a simulated NetSuite: contacts at several customers, with a role at each.
type netSuite struct {
	door
	sim     *netsuite.Sim
	server  *httptest.Server
	id      string
	account *netsuite.Account
	clock   atomic.Int64 // how far the ERP's clock is ahead
	times   *timeline
	people  erpsim.People

	mu       sync.Mutex // one change at a time
	n        int        // of names and mailboxes made up
	roles    []string
	vendors  []string
	spoilt   map[string]bool   // "contact 7 fax": that cell cannot be read, and is empty here
	refused  map[string]string // the table of records that cannot be read, by table and id
	hides    bool              // the places of what the login does not see are hidden too
	noted    truth             // as the timeline knows it
	away     []string          // customers deactivated by an accident
	names    map[string]bool
	seen     string // the only subsidiary that the login sees; empty: all
	denied   string // what it may not read; empty: nothing
	narrowed bool   // either was ever so
	met      func(string)
}

func newNetSuite(rng *rand.Rand, id string, customers int) *netSuite {
	q := &netSuite{
		id: id, times: newTimeline(), people: erpsim.NewPeople(rng.Uint64()), names: map[string]bool{}, door: door{waiting: map[int][]func(){}},
		spoilt: map[string]bool{}, refused: map[string]string{}, hides: rng.IntN(2) == 0,
	}
	o := netsuite.Options{
		Now:    q.now,
		Casing: []netsuite.Casing{netsuite.LowerKeys, netsuite.UpperKeys, netsuite.WrittenKeys}[rng.IntN(3)], NativeCells: rng.IntN(2) == 0,
		EmptyNulls: rng.IntN(2) == 0, NoUTC: rng.IntN(4) == 0, MainLinks: rng.IntN(2) == 0, HideLinks: q.hides, TextExpiry: rng.IntN(2) == 0,
	}
	o.NoSubqueries = o.NoUTC // one that takes less of SQL than others
	q.sim = netsuite.New(o)
	q.account = q.sim.AddAccount(id, "Torture "+id)
	q.roles = []string{"", "", netsuite.Primary, netsuite.Primary, "-20", q.account.AddRole("Bookkeeping")}
	q.vendors = []string{q.account.JoinOther("Tortured Vendor"), q.account.JoinOther("Tortured Partner")}
	began := time.Now()
	for range customers {
		must2(q.account.JoinCustomer(q.customer(rng, time.Duration(1+rng.IntN(9000))*time.Hour)))
	}
	for range rng.IntN(2 * customers) {
		q.joinContact(rng, time.Duration(1+rng.IntN(9000))*time.Hour)
	}
	q.note(began)
	q.sim.Before(func(r erpsim.Request) {
		if r.Op == netsuite.Query || r.Op == netsuite.ServerTime || r.Op == netsuite.Token {
			q.came(r.Op != netsuite.Token)
		}
	})
	q.server = httptest.NewServer(q.sim)
	return q
}

// now is the ERP's time: what joins with an older stamp than the last run's is not read before the next full one.
func (q *netSuite) now() time.Time { return time.Now().Add(time.Duration(q.clock.Load())) }

func must2(id string, err error) string {
	must(err)
	return id
}

func (q *netSuite) ERP() string     { return "netsuite" }
func (q *netSuite) Account() string { return q.id }
func (q *netSuite) URL() string     { return q.server.URL }
func (q *netSuite) Close()          { q.server.Close() }
func (q *netSuite) Rotations() int  { return 0 } // it has no refresh token
func (q *netSuite) Settings() settings.Map {
	return settings.Map{"api_url": q.server.URL, "token_url": q.server.URL + "/services/rest/auth/oauth2/v1/token"}
}

func (q *netSuite) Login() connector.Credentials {
	c := q.account.Connect()
	return connector.Credentials{ClientID: c.ClientID, CertificateID: c.CertificateID, PrivateKey: c.PrivateKey}
}

func (q *netSuite) Later(d time.Duration) { q.clock.Add(int64(d)) }
func (q *netSuite) Timeline() *timeline   { return q.times }

func (q *netSuite) Narrowed() bool {
	q.mu.Lock()
	defer q.mu.Unlock()
	return q.narrowed
}

func (q *netSuite) Names() []string {
	q.mu.Lock()
	defer q.mu.Unlock()
	return sorted(q.names)
}

// customer makes one up, of some age.
func (q *netSuite) customer(rng *rand.Rand, age time.Duration) netsuite.Customer {
	q.n++
	at := q.now().Add(-age)
	c := netsuite.Customer{
		CompanyName: fmt.Sprintf("Tortured Customer %d", q.n), Email: q.people.Mailbox(q.n), Phone: q.people.Phone(), CreatedAt: at, ModifiedAt: at,
		Subsidiary: []string{"1", "1", "1", "2"}[rng.IntN(4)], Stage: []string{"Customer", "Customer", "Customer", "Lead", "Prospect"}[rng.IntN(5)],
	}
	if rng.IntN(5) == 0 {
		c.Person, c.CompanyName, c.FirstName, c.LastName = true, "", "Tortured", fmt.Sprintf("Individual %d", q.n)
	}
	if all := q.account.Customers(); len(all) > 0 && rng.IntN(6) == 0 {
		c.Parent = all[rng.IntN(len(all))].ID
	}
	return c
}

// joinContact makes a contact up, at no, one or several customers.
func (q *netSuite) joinContact(rng *rand.Rand, age time.Duration) {
	q.n++
	at := q.now().Add(-age)
	c := netsuite.Contact{
		FirstName: "Tortured", LastName: fmt.Sprintf("Contact %d", q.n), Email: q.people.Mailbox(q.n), Phone: q.people.Phone(), Title: "Controller",
		CreatedAt: at, ModifiedAt: at, Subsidiary: []string{"1", "1", "1", "2"}[rng.IntN(4)],
	}
	all := q.account.Customers()
	if len(all) > 0 && rng.IntN(3) > 0 {
		c.Company = all[rng.IntN(len(all))].ID
	}
	if rng.IntN(8) == 0 {
		c.Company = q.vendors[0]
	}
	c.Private = rng.IntN(12) == 0
	id := must2(q.account.JoinContact(c))
	if rng.IntN(8) == 0 {
		must(q.account.Attach(q.vendors[rng.IntN(2)], id, q.roles[rng.IntN(len(q.roles))]))
	}
	for range rng.IntN(3) {
		if len(all) > 0 {
			company := all[rng.IntN(len(all))].ID
			if c.Company != "" && rng.IntN(2) == 0 {
				company = c.Company // mostly the role is at the main company, which the record states too
			}
			must(q.account.Attach(company, id, q.roles[rng.IntN(len(q.roles))]))
		}
	}
}

func (q *netSuite) visible(subsidiary string) bool { return q.seen == "" || q.seen == subsidiary }

func (q *netSuite) Truth() truth {
	q.mu.Lock()
	defer q.mu.Unlock()
	return q.truth()
}

func (q *netSuite) truth() truth {
	t := truth{customers: map[string]customerFacts{}, contacts: map[string]contactFacts{}, links: map[[2]string]string{}}
	for _, c := range q.account.Customers() {
		if !q.visible(c.Subsidiary) {
			continue
		}
		if c.Parent == c.ID { // its parent was merged into it
			c.Parent = ""
		}
		kind := "customer"
		if c.Parent != "" {
			kind = "sub_customer"
		}
		if c.Stage != "Customer" {
			kind = strings.ToLower(c.Stage)
		}
		own := contactFacts{active: !c.Inactive, facts: map[string]string{"name": c.CompanyName, "given_name": "", "family_name": "", "job_title": ""},
			points: points(
				fieldOf{"email", "email", c.Email, true}, fieldOf{"email", "altemail", c.AltEmail, false}, fieldOf{"phone", "phone", c.Phone, false},
				fieldOf{"mobile", "mobilephone", c.MobilePhone, false}, fieldOf{"fax", "fax", q.cell("customer", c.ID, "fax", c.Fax), false},
				fieldOf{"web", "url", c.URL, false},
			)}
		if c.Person {
			own.facts["name"], own.facts["given_name"], own.facts["family_name"] = c.FirstName+" "+c.LastName, c.FirstName, c.LastName
		}
		t.customers[c.ID] = customerFacts{active: !c.Inactive, facts: map[string]string{
			"name": own.facts["name"], "number": c.EntityID, "parent": c.Parent, "bill_with_parent": "false", "kind": kind,
		}}
		t.contacts["customer:"+c.ID] = own
		t.links[[2]string{c.ID, "customer:" + c.ID}] = "company"
		t.records++
	}
	bare := true
	for _, c := range q.account.Contacts() {
		if c.Private || !q.visible(c.Subsidiary) {
			continue
		}
		t.contacts[c.ID] = contactFacts{active: !c.Inactive, facts: map[string]string{
			"name": c.FirstName + " " + c.LastName, "given_name": c.FirstName, "family_name": c.LastName,
			"job_title": q.cell("contact", c.ID, "title", c.Title),
		}, points: points(
			fieldOf{"email", "email", c.Email, true}, fieldOf{"email", "altemail", c.AltEmail, false}, fieldOf{"phone", "phone", c.Phone, false},
			fieldOf{"mobile", "mobilephone", c.MobilePhone, false}, fieldOf{"fax", "fax", q.cell("contact", c.ID, "fax", c.Fax), false},
		)}
		if _, there := t.customers[c.Company]; there {
			t.links[[2]string{c.Company, c.ID}] = ""
		}
		t.records++
		bare = false
	}
	t.bare = bare
	places := 0
	for _, l := range q.account.Links() {
		_, customer := t.customers[l.Company]
		_, contact := t.contacts[l.Contact]
		if customer && contact {
			t.links[[2]string{l.Company, l.Contact}] = l.Role
			t.records++
			places++
		} else if contact || !q.hides {
			t.ignored++
		}
	}
	t.bare = t.bare || places == 0
	return t
}

// cell is a column's text as it can be read.
func (q *netSuite) cell(table, id, column, text string) string {
	if q.spoilt[table+" "+id+" "+column] {
		return ""
	}
	return text
}

// spoil makes one cell of a record unreadable, and with it the whole record where it says who is active or whose contact it is.
func (q *netSuite) spoil(rng *rand.Rand, customer, contact string) string {
	table, id := "contact", contact
	if rng.IntN(3) == 0 {
		table, id = "customer", customer
	}
	spoilt := func(column, value string) { must(q.account.Spoil(table, id, column, value)) }
	switch rng.IntN(4) {
	case 0:
		spoilt("fax", `["no text"]`)
		q.spoilt[table+" "+id+" fax"] = true
		return "bad field"
	case 1:
		if table == "customer" {
			return "nothing"
		}
		spoilt("title", `{"no": "text"}`)
		q.spoilt["contact "+id+" title"] = true
		return "bad field"
	case 2:
		if table == "contact" {
			spoilt("company", `"7x"`)
			q.refused["contact "+id] = "contact"
			return "bad record"
		}
	}
	spoilt("isinactive", `"perhaps"`)
	q.refused[table+" "+id] = table
	return "bad record"
}

// spoilRow makes the role of a place unreadable, and with it the row.
func (q *netSuite) spoilRow(id string) string {
	const table = "companycontactrelationship"
	must(q.account.Spoil(table, id, "role", `"7x"`))
	q.refused[table+" "+id] = table
	return "bad row"
}

// heal makes the records readable again that could not be read: what they were meanwhile is not known to the model.
func (q *netSuite) heal() {
	for what, table := range q.refused {
		id := strings.TrimPrefix(what, table+" ")
		_ = q.account.Heal(table, id) // or it is gone
		q.times.note(time.Now(), unreadable+table, id, false, nil)
		for cell := range q.spoilt {
			if strings.HasPrefix(cell, what+" ") {
				delete(q.spoilt, cell)
			}
		}
	}
	clear(q.refused)
}

// note tells the timeline what a change that began at from made different.
func (q *netSuite) note(from time.Time) {
	now := q.truth()
	for id, c := range now.customers {
		q.times.note(from, "customer", id, c.active, c.facts)
		q.names[c.facts["name"]] = true
	}
	for id, c := range now.contacts {
		q.times.note(from, "contact", id, c.active, c.flat())
		q.names[c.facts["name"]] = true
	}
	for what, table := range q.refused {
		q.times.note(from, unreadable+table, strings.TrimPrefix(what, table+" "), true, nil)
	}
	for pair, role := range now.links {
		q.times.note(from, "customer_contact", pair[0]+"/"+pair[1], true, nil)
		q.times.note(from, roleOf, pair[0]+"/"+pair[1], role != "", nil)
	}
	for id := range q.noted.customers {
		if _, there := now.customers[id]; !there {
			q.times.note(from, "customer", id, false, nil)
		}
	}
	for id := range q.noted.contacts {
		if _, there := now.contacts[id]; !there {
			q.times.note(from, "contact", id, false, nil)
		}
	}
	for pair := range q.noted.links {
		if _, there := now.links[pair]; !there {
			q.times.note(from, "customer_contact", pair[0]+"/"+pair[1], false, nil)
			q.times.note(from, roleOf, pair[0]+"/"+pair[1], false, nil)
		}
	}
	q.noted = now
}

func (q *netSuite) Change(rng *rand.Rand) string {
	q.mu.Lock()
	defer q.mu.Unlock()
	began := time.Now()
	what := q.change(rng)
	q.note(began)
	return what
}

func (q *netSuite) change(rng *rand.Rand) string {
	customers, contacts, links := q.account.Customers(), q.account.Contacts(), q.account.Links()
	q.n++
	if len(customers) == 0 || rng.IntN(8) == 0 {
		must2(q.account.JoinCustomer(q.customer(rng, 0)))
		return "join"
	}
	customer := customers[rng.IntN(len(customers))]
	if len(contacts) == 0 || rng.IntN(8) == 0 {
		q.joinContact(rng, 0)
		return "contact joins"
	}
	contact := contacts[rng.IntN(len(contacts))]
	mail := []string{"", q.people.Mailbox(q.n) + ", " + strings.ToUpper(q.people.Mailbox(q.n+1)), "ask at the desk", q.people.Mailbox(q.n)}[rng.IntN(4)]
	switch rng.IntN(23) {
	case 0:
		must(q.account.EditCustomer(customer.ID, func(c *netsuite.Customer) { c.Email = mail }))
		return "edit address"
	case 1, 2:
		must(q.account.EditContact(contact.ID, func(c *netsuite.Contact) { c.Email = mail }))
		return "edit address of a contact"
	case 3:
		must(q.account.EditCustomer(customer.ID, func(c *netsuite.Customer) { c.Phone, c.Fax = q.people.Phone(), q.people.Phone() }))
		return "edit phones"
	case 4:
		must(q.account.EditContact(contact.ID, func(c *netsuite.Contact) { c.LastName, c.Title = fmt.Sprintf("Renamed %d", q.n), "CFO" }))
		return "rename of a contact"
	case 5:
		must(q.account.EditCustomer(customer.ID, func(c *netsuite.Customer) { c.Inactive = !c.Inactive }))
		return "inactivate or reactivate"
	case 6, 7:
		must(q.account.EditContact(contact.ID, func(c *netsuite.Contact) { c.Inactive = !c.Inactive }))
		return "inactivate or reactivate a contact"
	case 8, 9, 10:
		must(q.account.Attach(customer.ID, contact.ID, q.roles[rng.IntN(len(q.roles))]))
		return "attach"
	case 11, 12:
		if len(links) == 0 {
			return "nothing"
		}
		l := links[rng.IntN(len(links))]
		must(q.account.Detach(l.Company, l.Contact))
		return "detach"
	case 13, 14:
		if len(links) == 0 {
			return "nothing"
		}
		l := links[rng.IntN(len(links))]
		must(q.account.Attach(l.Company, l.Contact, q.roles[rng.IntN(len(q.roles))]))
		return "role changes"
	case 15:
		must(q.account.EditContact(contact.ID, func(c *netsuite.Contact) { c.Company = customer.ID }))
		return "contact moves"
	case 16:
		must([]func(string) error{q.account.DeleteContact, q.account.VanishContact}[rng.IntN(2)](contact.ID))
		return "contact deleted"
	case 17:
		if len(customers) == 1 || q.account.MergeCustomers(customer.ID, customers[rng.IntN(len(customers))].ID, rng.IntN(2) == 0) != nil {
			return "nothing"
		}
		return "merge"
	case 18:
		if q.account.MergeContacts(contact.ID, contacts[rng.IntN(len(contacts))].ID, rng.IntN(2) == 0) != nil {
			return "nothing"
		}
		return "merge of contacts"
	case 19:
		must(q.account.EditContact(contact.ID, func(c *netsuite.Contact) { c.Private = !c.Private }))
		return "contact made private or shared"
	case 20:
		vendor := q.vendors[rng.IntN(2)]
		if rng.IntN(2) == 0 {
			must(q.account.EditContact(contact.ID, func(c *netsuite.Contact) { c.Company = vendor }))
			return "contact moves to a vendor"
		}
		must(q.account.Attach(vendor, contact.ID, q.roles[rng.IntN(len(q.roles))]))
		return "attach to a vendor"
	case 21:
		if len(links) > 0 && rng.IntN(4) == 0 {
			l := links[rng.IntN(len(links))]
			return q.spoilRow(connector.LinkID(l.Company, l.Contact))
		}
		return q.spoil(rng, customer.ID, contact.ID)
	}
	return q.narrow(rng)
}

// narrow changes what the login may read, or takes that back.
func (q *netSuite) narrow(rng *rand.Rand) string {
	if q.seen != "" || q.denied != "" {
		q.widen()
		return "permissions given back"
	}
	if q.narrowed = true; rng.IntN(2) == 0 {
		q.seen = "1"
		q.account.Restrict(q.seen)
		return "permissions restricted to a subsidiary"
	}
	q.denied = []string{
		"contact", "companycontactrelationship", "deletedrecord", "deletedrecord", "customer.phone", "contact.phone", "contact.altemail", "contact.fax",
	}[rng.IntN(8)]
	q.account.Deny(q.denied)
	if strings.Contains(q.denied, ".") {
		return "field hidden"
	}
	return "permission taken away"
}

func (q *netSuite) widen() {
	q.account.Restrict()
	q.account.Allow(q.denied)
	q.seen, q.denied = "", ""
}

func (q *netSuite) Accident(rng *rand.Rand) string {
	q.mu.Lock()
	defer q.mu.Unlock()
	began := time.Now()
	defer func() { q.note(began) }()
	if len(q.away) > 0 && rng.IntN(2) == 0 {
		for _, id := range q.away {
			_ = q.account.EditCustomer(id, func(c *netsuite.Customer) { c.Inactive = false }) // or it is gone since
		}
		q.away = nil
		return "accident undone"
	}
	share := 20 + rng.IntN(80)
	switch rng.IntN(3) {
	case 0:
		for _, c := range q.account.Customers() {
			if !c.Inactive && rng.IntN(100) < share {
				must(q.account.EditCustomer(c.ID, func(c *netsuite.Customer) { c.Inactive = true }))
				q.away = append(q.away, c.ID)
			}
		}
		return "accident, many inactivated"
	case 1:
		for _, c := range q.account.Contacts() {
			if rng.IntN(100) < share {
				must(q.account.VanishContact(c.ID))
			}
		}
		return "accident, many contacts vanished"
	}
	for _, l := range q.account.Links() {
		if rng.IntN(100) < share {
			must(q.account.Detach(l.Company, l.Contact))
		}
	}
	return "accident, many detached"
}

// Fault lets some of the next requests fail.
func (q *netSuite) Fault(rng *rand.Rand, met func(string)) {
	q.mu.Lock()
	q.met = met
	q.mu.Unlock()
	at := erpsim.Rule{Skip: rng.IntN(8), Times: 1 + rng.IntN(3)}
	switch rng.IntN(10) {
	case 0, 1:
		kind := []netsuite.FaultKind{netsuite.Throttle, netsuite.ThrottleBroken, netsuite.ThrottleEmpty}[rng.IntN(3)]
		q.account.Fail(at, netsuite.Fault{Kind: kind, RetryAfter: "1"})
	case 2:
		q.account.Fail(at, netsuite.Fault{Kind: netsuite.Slow, Delay: time.Duration(50+rng.IntN(900)) * time.Millisecond})
	case 3: // once: five refused logins in a row lock the user
		q.account.ExpireAccess()
		kind := []netsuite.FaultKind{netsuite.InvalidGrant, netsuite.LoseReply, netsuite.HTML503, netsuite.Truncated, netsuite.Drop}[rng.IntN(5)]
		q.account.Fail(erpsim.Rule{Op: netsuite.Token}, netsuite.Fault{Kind: kind})
	case 4:
		q.account.ExpireAccess()
	case 5: // NetSuite says that there is nobody
		q.account.Fail(erpsim.Rule{Match: []string{"WHERE c.id > 0 ORDER", "WHERE k.id > 0 ORDER"}[rng.IntN(2)], Times: 1 + rng.IntN(2)},
			netsuite.Fault{Kind: netsuite.Custom, Body: `{"links":[],"count":0,"hasMore":false,"items":[],"offset":0,"totalResults":0}`})
	case 6, 7:
		q.account.Fail(at, netsuite.Fault{Kind: []netsuite.FaultKind{netsuite.SilentCut, netsuite.Repeat}[rng.IntN(2)]})
	default:
		q.account.Fail(at, netsuite.Fault{Kind: []netsuite.FaultKind{
			netsuite.Drop, netsuite.HTML503, netsuite.Empty502, netsuite.NotJSON, netsuite.Truncated, netsuite.Redirect, netsuite.InvalidLogin,
			netsuite.Forbidden, netsuite.LoseReply,
		}[rng.IntN(9)]})
	}
}

// Calm also gives back what the login may read, and lets the day pass after which it is looked at anew.
func (q *netSuite) Calm() {
	q.sim.ClearFaults("")
	q.quiet()
	q.mu.Lock()
	defer q.mu.Unlock()
	began := time.Now()
	q.widen()
	q.heal()
	q.note(began)
	q.Later(25 * time.Hour)
}

func (q *netSuite) Judge(perSecond float64, emptied int) (requests, windows int, wrong []string) {
	all := q.sim.Log().Requests(nil)
	var data []time.Time
	for _, r := range all {
		if r.Fault != "" && q.met != nil {
			q.met("NetSuite: " + r.Fault)
		}
		if r.Op != netsuite.Token {
			data = append(data, r.Time)
		}
		reads := r.Method == "GET" || r.Op == netsuite.Token || r.Op == netsuite.Query && strings.HasPrefix(r.Statement, "SELECT ")
		if !reads || r.Violation != "" {
			wrong = append(wrong, fmt.Sprintf("request %d: %s of a %s", r.ID, r.Method, r.Op))
		}
	}
	if peak := q.sim.Peak(); peak > 5 {
		wrong = append(wrong, fmt.Sprintf("%d requests at a time, the account has 5 places", peak))
	}
	if perSecond == 0 {
		return len(all), 0, wrong
	}
	windows, crowd := crowded(data, perSecond*float64(2+emptied))
	return len(all), windows, append(wrong, crowd...)
}

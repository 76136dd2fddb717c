package torture

import (
	"fmt"
	"math/rand/v2"
	"net/http/httptest"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/centime/contactsync/internal/connector"
	"github.com/centime/contactsync/internal/erpsim"
	"github.com/centime/contactsync/internal/erpsim/qbo"
	"github.com/centime/contactsync/internal/settings"
)

// A company is a company in a simulated ERP, with people who work in it. This is where an ERP joins the campaign.
type company interface {
	ERP() string
	Account() string
	URL() string
	Settings() settings.Map
	Login() connector.Credentials

	// Change does one thing that a person in the ERP does, and says what kind of thing it was.
	Change(rng *rand.Rand) string
	// Accident takes many records away at once, or takes that back.
	Accident(rng *rand.Rand) string
	// Later moves the ERP's clock on.
	Later(d time.Duration)
	// Fault makes some of the next requests fail, and says how.
	Fault(rng *rand.Rand, met func(string))
	// AtRequest does something while the n-th data request from now waits.
	AtRequest(n int, do func())
	// Calm ends all faults and takes back what would keep a full listing from being complete.
	Calm()

	Truth() truth
	Timeline() *timeline
	// Narrowed says whether what the login may read ever changed.
	Narrowed() bool
	// Names are people's and companies' names, which stay out of logs.
	Names() []string
	// Judge looks at the requests that came: none may write, none may be too many at a time or in a second.
	Judge(perSecond float64, emptied int) (requests, windows int, faults []string)
	// Rotations is how often a new refresh token was given out.
	Rotations() int
	Close()
}

// A door counts the data requests that come to a company, and lets something happen while one of them waits.
type door struct {
	hooks   sync.Mutex
	asked   int
	waiting map[int][]func()
	busy    sync.RWMutex // read-locked while one of them is done
}

// came is called with each request before it is answered.
func (d *door) came(data bool) {
	d.hooks.Lock()
	if data {
		d.asked++
	}
	do := d.waiting[d.asked]
	delete(d.waiting, d.asked)
	d.busy.RLock()
	d.hooks.Unlock()
	defer d.busy.RUnlock()
	for _, f := range do {
		f()
	}
}

func (d *door) AtRequest(n int, do func()) {
	d.hooks.Lock()
	defer d.hooks.Unlock()
	d.waiting[d.asked+n] = append(d.waiting[d.asked+n], do)
}

// quiet forgets what was to happen, and waits for what has begun.
func (d *door) quiet() {
	d.hooks.Lock()
	clear(d.waiting)
	d.hooks.Unlock()
	d.busy.Lock()
	d.busy.Unlock() //nolint:staticcheck // to have waited is all
}

const clientSecret = "torture-client-secret-0c7e"

// quickBooks is a company in a simulated QuickBooks Online.
type quickBooks struct {
	door
	sim     *qbo.Sim
	server  *httptest.Server
	realm   string
	company *qbo.Company
	clock   atomic.Int64 // how far the ERP's clock is ahead
	times   *timeline
	people  erpsim.People
	n       int // of mailboxes made up

	mu      sync.Mutex // one change at a time
	spoilt  map[string]qbo.Spoil
	removed map[string]qbo.Customer
	away    []string // deactivated by an accident
	names   map[string]bool
	met     func(string) // counts a fault that a request met
}

func newQuickBooks(rng *rand.Rand, realm string, customers int) *quickBooks {
	q := &quickBooks{
		realm: realm, times: newTimeline(), people: erpsim.NewPeople(rng.Uint64()), spoilt: map[string]qbo.Spoil{},
		removed: map[string]qbo.Customer{}, names: map[string]bool{}, door: door{waiting: map[int][]func(){}},
	}
	options := qbo.Options{
		ClientSecret: clientSecret, Now: func() time.Time { return time.Now().Add(time.Duration(q.clock.Load())) },
		RotateAfter: []time.Duration{-1, 0, time.Hour}[rng.IntN(3)], OldTokenLives: []time.Duration{0, 24 * time.Hour}[rng.IntN(2)],
		AuthXML: rng.IntN(2) == 0, TextIDs: rng.IntN(4) == 0, NaiveUTC: rng.IntN(2) == 0, Gzip: rng.IntN(2) == 0,
		ThrottleJSON: rng.IntN(2) == 0,
	}
	q.sim = qbo.New(options)
	q.company = q.sim.AddCompany(realm, "Torture "+realm)
	q.company.BulkLoad(customers, rng.Uint64())
	began := time.Now()
	for _, c := range q.company.Customers() {
		q.noted(began, c)
	}
	q.sim.Before(q.request)
	q.server = httptest.NewServer(q.sim)
	return q
}

func (q *quickBooks) ERP() string     { return "quickbooks-online" }
func (q *quickBooks) Account() string { return q.realm }
func (q *quickBooks) URL() string     { return q.server.URL }
func (q *quickBooks) Close()          { q.server.Close() }
func (q *quickBooks) Rotations() int  { return q.company.Tokens().Rotations }
func (q *quickBooks) Settings() settings.Map {
	return settings.Map{"api_url": q.server.URL, "token_url": q.server.URL + "/oauth2/v1/tokens/bearer"}
}

func (q *quickBooks) Login() connector.Credentials {
	return connector.Credentials{RefreshToken: q.company.Connect().RefreshToken}
}

func (q *quickBooks) Later(d time.Duration) { q.clock.Add(int64(d)) }
func (q *quickBooks) Timeline() *timeline   { return q.times }
func (q *quickBooks) Narrowed() bool        { return false }

func (q *quickBooks) Names() []string {
	q.mu.Lock()
	defer q.mu.Unlock()
	return sorted(q.names)
}

// request is called with each request before it is answered.
func (q *quickBooks) request(r erpsim.Request) {
	if r.Op != qbo.Query && r.Op != qbo.Count && r.Op != qbo.Token {
		return
	}
	q.came(r.Op != qbo.Token)
}

// noted records a customer as it is now.
func (q *quickBooks) noted(from time.Time, c qbo.Customer) {
	customer, own := q.facts(c)
	q.times.note(from, "customer", c.ID, customer.active, customer.facts)
	q.times.note(from, "contact", "customer:"+c.ID, own.active, own.flat())
	for _, name := range []string{c.DisplayName, c.CompanyName} {
		if len(name) > 8 {
			q.names[name] = true
		}
	}
}

// facts are what Centime must hold of a customer.
func (q *quickBooks) facts(c qbo.Customer) (customerFacts, contactFacts) {
	name, given := c.DisplayName, c.GivenName
	switch q.spoilt[c.ID] {
	case qbo.NULName: // what cannot be stored is cut out of the text
		name, given = "Nul Name", "Nul"
	}
	if c.Inactive {
		name = strings.TrimSuffix(name, " (deleted)")
	}
	name = strings.TrimSpace(name)
	kind := "customer"
	if c.Parent != "" {
		kind = "sub_customer"
	}
	if c.Project {
		kind = "project"
	}
	person := strings.Join(strings.Fields(given+" "+c.MiddleName+" "+c.FamilyName), " ")
	if person == "" {
		person = name
	}
	return customerFacts{active: !c.Inactive, facts: map[string]string{
			"name": name, "number": "", "parent": c.Parent, "bill_with_parent": strconv.FormatBool(c.BillWithParent), "kind": kind,
		}}, contactFacts{active: !c.Inactive, facts: map[string]string{
			"name": person, "given_name": strings.TrimSpace(given), "family_name": strings.TrimSpace(c.FamilyName), "job_title": "",
		}, points: points(
			fieldOf{"email", "PrimaryEmailAddr", c.Email, true}, fieldOf{"phone", "PrimaryPhone", c.Phone, false},
			fieldOf{"phone", "AlternatePhone", c.AlternatePhone, false}, fieldOf{"mobile", "Mobile", c.Mobile, false},
			fieldOf{"fax", "Fax", c.Fax, false}, fieldOf{"web", "WebAddr", c.Web, false},
		)}
}

func (q *quickBooks) Truth() truth {
	q.mu.Lock()
	defer q.mu.Unlock()
	t := truth{customers: map[string]customerFacts{}, contacts: map[string]contactFacts{}, links: map[[2]string]string{}}
	for _, c := range q.company.Customers() {
		own := "customer:" + c.ID
		t.customers[c.ID], t.contacts[own] = q.facts(c)
		t.links[[2]string{c.ID, own}] = "company"
		t.records++
	}
	return t
}

// done notes the customers that a change touched.
func (q *quickBooks) done(from time.Time, ids ...string) {
	for _, id := range ids {
		c, err := q.company.Customer(id)
		if err != nil {
			q.times.note(from, "customer", id, false, nil)
			q.times.note(from, "contact", "customer:"+id, false, nil)
			continue
		}
		q.noted(from, c)
	}
}

func (q *quickBooks) Change(rng *rand.Rand) string {
	q.mu.Lock()
	defer q.mu.Unlock()
	all := q.company.Customers()
	pick := func(inactive bool) (qbo.Customer, bool) {
		for range 20 {
			if c := all[rng.IntN(len(all))]; c.Inactive == inactive {
				return c, true
			}
		}
		return qbo.Customer{}, false
	}
	began := time.Now()
	edit := func(what string, change func(*qbo.Customer)) string {
		c, ok := pick(rng.IntN(8) == 0)
		if !ok {
			return "nothing"
		}
		must(q.company.Edit(c.ID, change))
		q.done(began, c.ID)
		return what
	}
	q.n++
	switch rng.IntN(20) {
	case 0, 1, 2:
		new := qbo.Customer{
			DisplayName: fmt.Sprintf("Joined Torture %d", q.n), GivenName: "Joined", FamilyName: fmt.Sprintf("Newcomer %d", q.n),
			Email: q.people.Mailbox(q.n), Phone: q.people.Phone(),
		}
		if parent, ok := pick(false); ok && rng.IntN(3) == 0 && parent.Parent == "" {
			new.Parent, new.BillWithParent, new.Project = parent.ID, rng.IntN(2) == 0, rng.IntN(3) == 0
		}
		id, err := q.company.Join(new)
		must(err)
		q.done(began, id)
		return "join"
	case 3, 4, 5:
		return edit("edit address", func(c *qbo.Customer) {
			switch rng.IntN(5) {
			case 0:
				c.Email = ""
			case 1:
				c.Email = q.people.Mailbox(q.n) + ", " + strings.ToUpper(q.people.Mailbox(q.n+1))
			case 2:
				c.Email = "ask at the desk"
			default:
				c.Email = q.people.Mailbox(q.n)
			}
		})
	case 6:
		return edit("edit phones", func(c *qbo.Customer) { c.Phone, c.Mobile, c.Fax = q.people.Phone(), "", q.people.Phone() })
	case 7:
		return edit("edit person", func(c *qbo.Customer) { p := q.people.Person(); c.GivenName, c.FamilyName = p.Given, p.Family })
	case 8:
		return edit("rename", func(c *qbo.Customer) {
			c.DisplayName = fmt.Sprintf("Renamed Torture %d", q.n)
			if c.Inactive {
				c.DisplayName += " (deleted)"
			}
		})
	case 9, 10, 11:
		c, ok := pick(false)
		if !ok {
			return "nothing"
		}
		must(q.company.Deactivate(c.ID))
		q.done(began, c.ID)
		return "inactivate"
	case 12, 13:
		c, ok := pick(true)
		if !ok {
			return "nothing"
		}
		must(q.company.Reactivate(c.ID))
		q.done(began, c.ID)
		return "reactivate"
	case 14, 15, 16:
		lost, ok := pick(false)
		survivor, too := pick(false)
		if !ok || !too {
			return "nothing"
		}
		return q.merge(began, lost, survivor, []qbo.MergeMode{qbo.MergeAbsent, qbo.MergeInactive}[rng.IntN(2)])
	case 17:
		if len(q.removed) == 0 {
			return "nothing"
		}
		id := sorted(q.removed)[rng.IntN(len(q.removed))]
		q.bringBack(began, id)
		return "bring back"
	case 18:
		c, ok := pick(false)
		if !ok {
			return "nothing"
		}
		must(q.company.BumpBalance(c.ID, 100))
		return "pay a bill"
	}
	c, ok := pick(false)
	how := []qbo.Spoil{qbo.NULName, qbo.UnknownFields, qbo.NullJob, qbo.MissingID, qbo.AddressOnlyID}[rng.IntN(5)]
	if !ok || q.spoilt[c.ID] != "" {
		return "nothing"
	}
	q.spoilt[c.ID] = how
	must(q.company.Spoil(c.ID, how))
	q.done(began, c.ID)
	return "bad record"
}

func (q *quickBooks) merge(began time.Time, lost, survivor qbo.Customer, mode qbo.MergeMode) string {
	touched := []string{lost.ID, survivor.ID}
	for _, c := range q.company.Customers() {
		if c.Parent == lost.ID {
			touched = append(touched, c.ID)
		}
	}
	if q.company.Merge(lost.ID, survivor.ID, mode) != nil {
		return "nothing" // into itself, or into one below it
	}
	if mode == qbo.MergeAbsent {
		q.removed[lost.ID] = lost
		delete(q.spoilt, lost.ID)
	}
	q.done(began, touched...)
	return "merge, " + string(mode)
}

// bringBack undoes a merge: the customer is there again under its id.
func (q *quickBooks) bringBack(began time.Time, id string) {
	c := q.removed[id]
	delete(q.removed, id)
	if _, err := q.company.Customer(c.Parent); err != nil {
		c.Parent, c.Project = "", false
	}
	c.UpdatedAt = time.Time{}
	_, err := q.company.Join(c)
	must(err)
	must(q.company.Edit(id, func(*qbo.Customer) {}))
	q.done(began, id)
}

func (q *quickBooks) Accident(rng *rand.Rand) string {
	q.mu.Lock()
	defer q.mu.Unlock()
	began := time.Now()
	if len(q.away) > 0 && rng.IntN(2) == 0 {
		for _, id := range q.away {
			if _, err := q.company.Customer(id); err == nil {
				must(q.company.Reactivate(id))
				q.done(began, id)
			}
		}
		q.away = nil
		for _, id := range sorted(q.removed) {
			q.bringBack(began, id)
		}
		return "accident undone"
	}
	share, absent := 20+rng.IntN(80), rng.IntN(2) == 0
	all := q.company.Customers()
	survivor := all[rng.IntN(len(all))]
	for _, c := range all {
		if c.ID == survivor.ID || c.Inactive || rng.IntN(100) >= share {
			continue
		}
		now, err := q.company.Customer(c.ID)
		if err != nil {
			continue
		}
		if absent {
			q.merge(time.Now(), now, survivor, qbo.MergeAbsent)
			continue
		}
		from := time.Now()
		must(q.company.Deactivate(c.ID))
		q.done(from, c.ID)
		q.away = append(q.away, c.ID)
	}
	if absent {
		return "accident, many merged away"
	}
	return "accident, many inactivated"
}

// Fault lets some of the next requests fail.
func (q *quickBooks) Fault(rng *rand.Rand, met func(string)) {
	q.hooks.Lock()
	q.met = met
	q.hooks.Unlock()
	data := []qbo.FaultKind{
		qbo.Drop, qbo.RootFault, qbo.QueryFault, qbo.XMLFault, qbo.InternalError, qbo.HTML503, qbo.Empty502, qbo.Truncated, qbo.NotJSON,
		qbo.ExpiredToken, qbo.ExpiredTokenXML, qbo.UserLost, qbo.Forbidden, qbo.Suspended, qbo.BadData, qbo.LoseReply,
	}
	at := erpsim.Rule{Skip: rng.IntN(8), Times: 1 + rng.IntN(3)}
	switch rng.IntN(12) {
	case 0, 1:
		kind := []qbo.FaultKind{qbo.ThrottleXML, qbo.ThrottleJSON, qbo.ThrottleGateway}[rng.IntN(3)]
		q.company.Fail(at, qbo.Fault{Kind: kind, RetryAfter: "1"})
	case 2:
		q.company.Fail(at, qbo.Fault{Kind: qbo.Slow, Delay: time.Duration(50+rng.IntN(900)) * time.Millisecond})
	case 3, 4:
		kind := []qbo.FaultKind{qbo.InvalidGrant, qbo.InvalidClient, qbo.LoseReply, qbo.LoseReply, qbo.HTML503, qbo.Truncated, qbo.Drop}[rng.IntN(7)]
		q.company.ExpireAccess() // so that a token is asked for
		at.Op, at.Skip = qbo.Token, 0
		at.Times = 1
		q.company.Fail(at, qbo.Fault{Kind: kind})
	case 5:
		q.company.ExpireAccess()
	case 6:
		// The ERP says that there is nobody: a listing that is complete and empty, and a count that agrees.
		times := 1 + rng.IntN(3)
		q.company.Fail(erpsim.Rule{Op: qbo.Query, Match: "ORDERBY", Times: times}, qbo.Fault{Kind: qbo.Custom, Body: `{"QueryResponse":{},"time":"` +
			time.Now().Add(time.Duration(q.clock.Load())).UTC().Format(time.RFC3339) + `"}`})
		q.company.Fail(erpsim.Rule{Op: qbo.Count, Times: times}, qbo.Fault{Kind: qbo.Custom, Body: `{"QueryResponse":{"totalCount":0}}`})
	default:
		q.company.Fail(at, qbo.Fault{Kind: data[rng.IntN(len(data))]})
	}
}

func (q *quickBooks) Calm() {
	q.sim.ClearFaults("")
	q.quiet()
	q.mu.Lock()
	defer q.mu.Unlock()
	for _, id := range sorted(q.spoilt) {
		if q.spoilt[id] != qbo.MissingID {
			continue
		}
		delete(q.spoilt, id)
		if _, err := q.company.Customer(id); err == nil {
			began := time.Now()
			must(q.company.Heal(id))
			q.done(began, id)
		}
	}
}

func (q *quickBooks) Judge(perSecond float64, emptied int) (requests, windows int, wrong []string) {
	all := q.sim.Log().Requests(func(r erpsim.Request) bool { return r.Company == q.realm })
	var data []time.Time
	for _, r := range all {
		if r.Fault != "" && q.met != nil {
			q.met("ERP: " + r.Fault)
		}
		if r.Op != qbo.Token {
			data = append(data, r.Time)
		}
		if r.Method != "GET" && (r.Method != "POST" || r.Op != qbo.Token && !strings.HasPrefix(strings.ToLower(r.Statement), "select ")) {
			wrong = append(wrong, fmt.Sprintf("request %d: %s of a %s", r.ID, r.Method, r.Op))
		}
	}
	for _, v := range q.sim.Violations() {
		wrong = append(wrong, fmt.Sprintf("request %d tried to write: %s %s", v.ID, v.Method, v.Path))
	}
	if peak := q.sim.Peak(); perSecond == 0 && peak > 10 {
		wrong = append(wrong, fmt.Sprintf("%d requests at a time, QuickBooks allows 10", peak))
	}
	// Requests that left in time may arrive together, where the network was slow in between: twice the limit is too much.
	// After Redis was emptied the count begins anew.
	limit := perSecond
	if limit == 0 {
		limit = 10
	}
	windows, crowd := crowded(data, limit*float64(2+emptied))
	return len(all), windows, append(wrong, crowd...)
}

// crowded looks for a second in which more came than may.
func crowded(at []time.Time, most float64) (windows int, wrong []string) {
	slices.SortFunc(at, time.Time.Compare)
	for i := range at {
		n := 0
		for _, later := range at[i:] {
			if later.Sub(at[i]) >= time.Second {
				break
			}
			n++
		}
		windows++
		if float64(n) > most {
			return windows, []string{fmt.Sprintf("%d requests within a second, at most %g were to be expected", n, most)}
		}
	}
	return windows, nil
}

func must(err error) {
	if err != nil {
		panic(err)
	}
}

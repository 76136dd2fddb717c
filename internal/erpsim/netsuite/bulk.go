package netsuite

import (
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/centime/contactsync/internal/erpsim"
)

// BulkLoad adds made-up customers and contacts: the same ones for the same seed and day of the clock. They are what an
// account of some years has: companies, individuals, leads and sub-customers, contacts at several customers with a role
// at each, without a role, without a company or at a vendor, private ones, two primary contacts at one customer, names in
// many scripts. As in a real account, all entities share one series of ids.
func (a *Account) BulkLoad(customerCount, contactCount int, seed uint64) {
	vendor, custom := a.JoinOther("Vendor & Co"), a.AddRole("Collections "+strconv.FormatUint(seed, 10))
	a.mu.Lock()
	defer a.mu.Unlock()
	m := maker{
		People: erpsim.NewPeople(seed), a: a, today: a.o.Now().UTC().Truncate(24 * time.Hour).Add(-time.Hour), vendor: vendor,
		roles: []string{"", "", "", Primary, Primary, Primary, "-20", "-30", "-40", custom},
	}
	for range customerCount {
		m.customer()
	}
	for range contactCount {
		m.contact()
	}
	a.tables[relations].merge(m.links)
}

// merge adds many records at once; of those with one key the first stays.
func (r *rows) merge(more []record) {
	r.changed()
	r.all = append(r.all, more...)
	slices.SortStableFunc(r.all, func(a, b record) int { return compareKeys(a.key(), b.key()) })
	r.all = slices.CompactFunc(r.all, func(a, b record) bool { return a.key() == b.key() })
}

type maker struct {
	erpsim.People
	a         *Account
	today     time.Time // an hour before it began: else an incremental run just after midnight would read some records again
	customers []string
	links     []record
	vendor    string
	roles     []string
}

const years = 7 // that the company has been in business

// times makes those of a record. One in fifty is of the last import, all in one second.
func (m *maker) times() (created, modified time.Time) {
	if m.Chance(2) {
		imported := m.today.Add(-36 * time.Hour)
		return imported, imported
	}
	created = m.today.Add(-time.Duration(m.Int64N(years*365*24*3600)+1) * time.Second)
	modified = created
	if m.Chance(70) {
		modified = created.Add(time.Duration(m.Int64N(int64(m.today.Sub(created)))))
	}
	return created, modified
}

func (m *maker) some(percent int, make func() string) string {
	if m.Chance(percent) {
		return make()
	}
	return ""
}

func (m *maker) mail() string {
	n := int(m.a.last + 1)
	switch m.IntN(60) {
	case 0:
		return strings.ToUpper(m.Mailbox(n))
	case 1:
		return "see notes"
	case 2:
		return strings.Repeat("x", 60) + "@" + strings.Repeat("long-label.", 15) + m.Domain()
	}
	return m.Mailbox(n)
}

func (m *maker) customer() {
	c := Customer{
		Email: m.some(85, m.mail), Phone: m.some(70, m.Phone), AltPhone: m.some(8, m.Phone), MobilePhone: m.some(10, m.Phone),
		Fax: m.some(8, m.Phone), AltEmail: m.some(5, m.mail), URL: m.some(25, func() string { return "https://" + m.Domain() }),
		Inactive: m.Chance(6), Category: []string{"", "1", "2", "3"}[m.IntN(4)],
		Stage: []string{"Customer", "Customer", "Customer", "Customer", "Customer", "Customer", "Prospect", "Lead"}[m.IntN(8)],
	}
	c.CreatedAt, c.ModifiedAt = m.times()
	if m.Chance(15) {
		p := m.Person()
		c.Person, c.Salutation, c.FirstName, c.MiddleName, c.LastName = true, p.Title, p.Given, p.Middle, p.Family
		c.HomePhone = m.some(20, m.Phone)
	} else {
		c.CompanyName = m.Company()
	}
	if len(m.customers) > 10 && m.Chance(10) {
		c.Parent = m.customers[m.IntN(10)]
	}
	id, err := m.a.joinCustomer(c)
	if err != nil {
		panic(err) // ids are made here
	}
	m.customers = append(m.customers, id)
}

func (m *maker) contact() {
	p := m.Person()
	c := Contact{
		Salutation: p.Title, FirstName: p.Given, MiddleName: p.Middle, LastName: p.Family,
		Title: m.some(60, func() string { return []string{"AP Clerk", "Controller", "CFO", "Buyer", "Owner & Founder"}[m.IntN(5)] }),
		Email: m.some(90, m.mail), Phone: m.some(60, m.Phone), OfficePhone: m.some(10, m.Phone), MobilePhone: m.some(30, m.Phone),
		Fax: m.some(4, m.Phone), AltEmail: m.some(6, m.mail), Inactive: m.Chance(5), Private: m.IntN(400) == 0,
	}
	c.CreatedAt, c.ModifiedAt = m.times()
	var at []string // companies it is attached to
	switch n := m.IntN(20); {
	case len(m.customers) == 0 || n == 0: // of no company
	case n == 1:
		c.Company = m.vendor
		at = []string{m.vendor}
	default:
		c.Company = m.customers[m.IntN(len(m.customers))]
		if n > 2 || m.a.o.MainLinks { // else it is linked by its main company alone
			at = []string{c.Company}
		}
		for m.Chance(30) && len(at) < 4 {
			at = append(at, m.customers[m.IntN(len(m.customers))])
		}
	}
	id, err := m.a.joinContact(c)
	if err != nil {
		panic(err) // ids are made here
	}
	for _, company := range at {
		m.attach(company, id)
	}
}

func (m *maker) attach(company, contact string) {
	l := &Link{Company: company, Contact: contact, Role: m.roles[m.IntN(len(m.roles))]}
	l.company, _ = number(company)
	l.contact, _ = number(contact)
	m.links = append(m.links, l)
	c, _ := m.a.tables[customers].find(l.company, 0).(*Customer)
	switch {
	case c == nil:
	case c.Contact != "" && l.Role == Primary && !m.Chance(3): // now and then there are two
		l.Role = ""
	case c.Contact == "" && (l.Role == Primary || m.Chance(2)): // and the form names another than the role
		changed := *c
		changed.Contact = contact
		m.a.tables[customers].put(&changed)
	}
}

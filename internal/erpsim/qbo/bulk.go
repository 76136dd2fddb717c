package qbo

import (
	"strconv"
	"strings"
	"time"

	"github.com/centime/contactsync/internal/erpsim"
)

// BulkLoad adds n made-up customers: the same ones for the same seed and day of the clock. They are what a company
// of some years has: persons and companies, sub-customers and projects, several addresses in a field or none, inactive
// ones, names in many scripts and names of 500 letters.
func (c *Company) BulkLoad(n int, seed uint64) {
	c.mu.Lock()
	defer c.mu.Unlock()
	m := maker{
		People: erpsim.NewPeople(seed), company: c, today: c.now().UTC().Truncate(24 * time.Hour),
		rows: make([]*row, 0, n), next: c.last,
	}
	for range n {
		m.next++
		r := c.prepare(m.customer())
		if m.IntN(500) == 0 {
			r.spoilt = spoils[[]Spoil{NullJob, AddressOnlyID}[m.IntN(2)]]
		}
		m.rows = append(m.rows, r)
	}
	c.add(m.rows...)
}

type maker struct {
	erpsim.People
	company *Company
	today   time.Time
	rows    []*row
	next    int64 // the id of the one being made
}

const years = 7 // that the company has been in business

func (m *maker) customer() Customer {
	created := m.today.Add(-time.Duration(m.Int64N(years*365*24*3600)+1) * time.Second)
	made := Customer{
		ID: strconv.FormatInt(m.next, 10), CreatedAt: created, UpdatedAt: created,
		Delivery: []string{"Email", "Email", "Print", "None"}[m.IntN(4)],
		Currency: []string{"USD", "USD", "USD", "CAD", "EUR"}[m.IntN(5)],
	}
	if m.Chance(70) {
		made.UpdatedAt = created.Add(time.Duration(m.Int64N(int64(m.today.Sub(created)))))
		made.SyncToken = m.IntN(8) // may be 0: the balance alone moved the time
		made.Balance = m.Int64N(5_000_00)
	}
	switch {
	case len(m.rows) > 10 && m.Chance(18):
		m.nested(&made)
	case m.Chance(45):
		m.person(&made)
	default:
		m.firm(&made)
	}
	m.channels(&made)
	made.BillAddr = m.address()
	if m.Chance(40) {
		made.ShipAddr = m.address()
	}
	if m.Chance(6) {
		made.Inactive = true
		made.DisplayName += deleted
	}
	return made
}

// own makes a name that no other customer of this load has.
func (m *maker) own(name string) string { return name + " " + strconv.FormatInt(m.next, 10) }

func (m *maker) person(made *Customer) {
	p := m.Person()
	made.Title, made.GivenName, made.MiddleName = p.Title, p.Given, p.Middle
	made.FamilyName, made.Suffix = p.Family, p.Suffix
	made.DisplayName = m.own(p.Given + " " + p.Family)
}

func (m *maker) firm(made *Customer) {
	made.CompanyName = m.Company()
	made.DisplayName = m.own(made.CompanyName)
	if m.IntN(1000) == 0 {
		tail := m.own("")
		made.DisplayName = m.LongName(500-len(tail)) + tail
	}
	if m.Chance(60) {
		p := m.Person()
		made.GivenName, made.FamilyName = p.Given, p.Family
	}
	if m.Chance(5) { // the company name stands in the display name only
		made.CompanyName, made.GivenName, made.FamilyName = "", "", ""
	}
}

// nested makes a sub-customer, job or project of one made before; at most five levels are allowed in all.
func (m *maker) nested(made *Customer) {
	above := m.rows[m.IntN(len(m.rows))]
	for level := m.level(above); level >= 4; level-- {
		above = m.rows[m.index(above.Parent)]
	}
	made.Parent = above.ID
	made.Project = m.Chance(30)
	made.BillWithParent = m.Chance(40)
	made.CompanyName = above.CompanyName
	made.DisplayName = m.own([]string{"Phase", "Lab & Research", "Warehouse", "Store", "Site"}[m.IntN(5)])
	if m.Chance(50) { // QuickBooks copies these when a sub-customer is made
		made.Email, made.Phone = above.Email, above.Phone
	}
}

func (m *maker) index(id string) int {
	n, _ := strconv.ParseInt(id, 10, 64)
	return int(n - m.rows[0].number)
}

func (m *maker) level(r *row) int {
	level := 0
	for ; r.Parent != ""; level++ {
		r = m.rows[m.index(r.Parent)]
	}
	return level
}

func (m *maker) channels(made *Customer) {
	if made.Email == "" && m.Chance(85) {
		made.Email = m.mail()
	}
	if made.Phone == "" && m.Chance(70) {
		made.Phone = m.Phone()
	}
	if m.Chance(10) {
		made.AlternatePhone = m.Phone()
	}
	if m.Chance(30) {
		made.Mobile = m.Phone()
	}
	if m.Chance(8) {
		made.Fax = m.Phone()
	}
	if m.Chance(25) {
		made.Web = []string{"http://", "https://www.", ""}[m.IntN(3)] + m.Domain()
	}
	if m.Chance(10) {
		made.Notes = "Prefers invoices on Fridays"
	}
}

// mail makes what stands in a mail field: mostly one address, sometimes several, now and then none at all.
func (m *maker) mail() string {
	n := int(m.next)
	switch m.IntN(40) {
	case 0, 1, 2:
		return m.Mailbox(n) + ", " + m.Mailbox(n+1)
	case 3:
		return m.Mailbox(n) + "," + m.Mailbox(n+1) + "," + m.Mailbox(n+2)
	case 4:
		return m.Mailbox(n) + "; " + m.Mailbox(n+1)
	case 5:
		return "see notes"
	case 6:
		return strings.ToUpper(m.Mailbox(n))
	}
	return m.Mailbox(n)
}

func (m *maker) address() *Address {
	if m.Chance(35) {
		return nil
	}
	place := m.Place()
	a := &Address{
		ID: strconv.FormatInt(m.next*2, 10), Line1: place.Street, City: place.City, State: place.State,
		PostalCode: place.Postcode,
	}
	if m.Chance(20) {
		a.Lat, a.Long = "INVALID", "INVALID"
	}
	return a
}

// Package memory is a small ERP that lives in memory, with the connector that reads it: the far side in other packages'
// tests.
package memory

import (
	"context"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/centime/contactsync/internal/connector"
	"github.com/centime/contactsync/internal/contact"
)

// Style says which ERP the one in memory is like.
type Style string

// The styles.
const (
	// QuickBooks has customers with their own contacts and nothing else. A full pull lists customers, an incremental one
	// lists nothing. What is deleted or merged away is simply no longer there.
	QuickBooks Style = "quickbooks"
	// NetSuite has customers, contacts and links too. A contact with a main company states a link to it; every other
	// link is a row of its own, and every pull lists those in full. A full pull lists all three kinds, an incremental one
	// claims what was deleted.
	NetSuite Style = "netsuite"
)

// An ERP is one company's. Its clock counts changes, so a cursor is exact: no change is missed and none comes twice.
// It is safe for concurrent use. A method that changes a record which is not there panics: the test is wrong.
type ERP struct {
	account string
	style   Style

	mu        sync.Mutex
	clock     int64 // the number of the last change
	serial    int   // of the last id given out
	pageSize  int
	rights    string
	epoch     int // cursors of another one are expired
	customers map[string]*customer
	contacts  map[string]*person
	links     map[string]connector.Link // rows of their own, by LinkID
	gone      map[connector.Key]int64   // when what was deleted went
	hidden    map[connector.Key]bool
	damage    map[connector.Key]Damage

	// faults.go
	refusal  error
	failures []error
	pages    int
	atPage   map[int]error
	before   func(ctx context.Context, r Request) error
	requests []Request

	// tokens.go
	access, refresh int
	expired         bool
	revoked         error
	spent           int
}

type customer struct {
	connector.Customer
	own     connector.Contact
	changed int64
}

type person struct {
	connector.Contact
	company string
	changed int64
}

// New returns an empty ERP with 100 records to a page. The account is the company's own identity.
func New(account string, style Style) *ERP {
	e := &ERP{
		account: account, style: style, pageSize: 100, access: 1, refresh: 1,
		customers: map[string]*customer{}, contacts: map[string]*person{}, links: map[string]connector.Link{},
		gone: map[connector.Key]int64{}, hidden: map[connector.Key]bool{}, damage: map[connector.Key]Damage{},
		atPage: map[int]error{},
	}
	if style == NetSuite {
		e.rights = "contact customer link"
	}
	return e
}

// Account is the company's own identity.
func (e *ERP) Account() string { return e.account }

// SetPageSize says how many records a page holds, at least 1.
func (e *ERP) SetPageSize(n int) { e.change(func() { e.pageSize = max(1, n) }) }

// SetRights says what End.Rights is from now on.
func (e *ERP) SetRights(rights string) { e.change(func() { e.rights = rights }) }

// ExpireCursors makes every cursor given out so far too old.
func (e *ERP) ExpireCursors() { e.change(func() { e.epoch++ }) }

// Mail is a channel of the main mail field. Without a value the field is cleared.
func Mail(value string) connector.Channel {
	return connector.Channel{Kind: contact.Email, Field: "email", Value: value, Main: true}
}

// Phone is a channel of the phone field.
func Phone(value string) connector.Channel {
	return connector.Channel{Kind: contact.Phone, Field: "phone", Value: value}
}

// AddCustomer adds an active customer, whose own contact has its name and these channels, and returns its id: the one
// given, or a new number.
func (e *ERP) AddCustomer(c connector.Customer, own ...connector.Channel) string {
	e.change(func() {
		c.ID, c.Active = e.newID(c.ID), true
		if c.Kind == "" {
			c.Kind = contact.Customer
		}
		delete(e.gone, connector.Key{Kind: connector.Customers, ID: c.ID})
		e.customers[c.ID] = &customer{Customer: c, own: connector.Contact{Name: c.Name, Channels: own}, changed: e.clock}
	})
	return c.ID
}

// AddContact adds an active contact and returns its id: the one given, or a new number. Company is the customer that it
// states a link to; it may be empty.
func (e *ERP) AddContact(c connector.Contact, company string) string {
	e.change(func() {
		e.only(NetSuite, "add contact")
		c.ID, c.Active = e.newID(c.ID), true
		delete(e.gone, connector.Key{Kind: connector.Contacts, ID: c.ID})
		e.contacts[c.ID] = &person{Contact: c, company: company, changed: e.clock}
	})
	return c.ID
}

// EditCustomer lets edit change a customer and its own contact. A new name of the customer is not its contact's.
func (e *ERP) EditCustomer(id string, edit func(c *connector.Customer, own *connector.Contact)) {
	e.change(func() {
		c := e.customer(id)
		c.own.Channels = slices.Clone(c.own.Channels)
		edit(&c.Customer, &c.own)
		c.ID, c.changed = id, e.clock
	})
}

// EditContact lets edit change a contact.
func (e *ERP) EditContact(id string, edit func(*connector.Contact)) {
	e.change(func() {
		p := e.person(id)
		p.Channels = slices.Clone(p.Channels)
		edit(&p.Contact)
		p.ID, p.changed = id, e.clock
	})
}

// SetCompany changes the customer that a contact states a link to; empty: none.
func (e *ERP) SetCompany(contactID, customerID string) {
	e.change(func() {
		p := e.person(contactID)
		p.company, p.changed = customerID, e.clock
	})
}

// Inactivate makes a customer or contact inactive.
func (e *ERP) Inactivate(k connector.Key) { e.setActive(k, false) }

// Reactivate makes a customer or contact active again.
func (e *ERP) Reactivate(k connector.Key) { e.setActive(k, true) }

func (e *ERP) setActive(k connector.Key, active bool) {
	e.change(func() {
		if k.Kind == connector.Contacts {
			p := e.person(k.ID)
			p.Active, p.changed = active, e.clock
			return
		}
		c := e.customer(k.ID)
		c.Active, c.changed = active, e.clock
	})
}

// Delete removes a customer or contact with the links to it. In the NetSuite style later incremental pulls claim it.
func (e *ERP) Delete(k connector.Key) { e.change(func() { e.remove(k) }) }

// Merge removes one customer or contact in favour of another of the same kind, which takes over the links.
func (e *ERP) Merge(lost, survivor connector.Key) {
	e.change(func() {
		switch lost.Kind {
		case connector.Customers:
			e.customer(survivor.ID).changed = e.clock
			for _, p := range e.contacts {
				if p.company == lost.ID {
					p.company, p.changed = survivor.ID, e.clock
				}
			}
		case connector.Contacts:
			e.person(survivor.ID).changed = e.clock
		}
		for _, l := range e.links {
			switch {
			case lost.Kind == connector.Customers && l.Customer == lost.ID:
				l.Customer = survivor.ID
			case lost.Kind == connector.Contacts && l.Contact == lost.ID:
				l.Contact = survivor.ID
			default:
				continue
			}
			if id := connector.LinkID(l.Customer, l.Contact); len(e.links[id].Customer) == 0 {
				e.links[id] = l
			}
		}
		e.remove(lost)
	})
}

// Attach gives a contact a place at a customer, or another role there. The zero role is none.
func (e *ERP) Attach(customerID, contactID string, role connector.ERPRole) {
	e.change(func() {
		e.customer(customerID)
		e.person(contactID)
		l := connector.Link{Customer: customerID, Contact: contactID}
		if role != (connector.ERPRole{}) {
			l.Roles = []connector.ERPRole{role}
		}
		e.links[connector.LinkID(customerID, contactID)] = l
	})
}

// Detach takes a contact's place at a customer away; a main company is left as it is, see SetCompany.
func (e *ERP) Detach(customerID, contactID string) {
	e.change(func() {
		id := connector.LinkID(customerID, contactID)
		if _, ok := e.links[id]; !ok {
			panic("memory: detach " + id + ": no such link")
		}
		delete(e.links, id)
	})
}

// Hide takes records out of this login's sight, as a narrowed permission does; a key without an ID stands for its whole
// kind. Nothing of the records changes, and End.Rights does not either: see SetRights.
func (e *ERP) Hide(keys ...connector.Key) {
	e.change(func() {
		for _, k := range keys {
			e.hidden[k] = true
		}
	})
}

// Show ends Hide. Nothing of the records changes, so only a full pull finds them again.
func (e *ERP) Show(keys ...connector.Key) {
	e.change(func() {
		for _, k := range keys {
			delete(e.hidden, k)
		}
	})
}

// change counts one change and makes it.
func (e *ERP) change(f func()) {
	e.mu.Lock()
	defer e.mu.Unlock()
	e.clock++
	f()
}

func (e *ERP) newID(id string) string {
	if id != "" {
		return id
	}
	for {
		e.serial++
		id = strconv.Itoa(e.serial)
		if e.customers[id] == nil && e.contacts[id] == nil {
			return id
		}
	}
}

func (e *ERP) only(s Style, step string) {
	if e.style != s {
		panic(fmt.Sprintf("memory: %s: not in the %s style", step, e.style))
	}
}

func (e *ERP) customer(id string) *customer {
	if c, ok := e.customers[id]; ok {
		return c
	}
	panic("memory: customer " + id + ": no such record")
}

func (e *ERP) person(id string) *person {
	if p, ok := e.contacts[id]; ok {
		return p
	}
	panic("memory: contact " + id + ": no such record")
}

func (e *ERP) remove(k connector.Key) {
	switch k.Kind {
	case connector.Customers:
		e.customer(k.ID)
		delete(e.customers, k.ID)
		for _, p := range e.contacts {
			if p.company == k.ID {
				p.company, p.changed = "", e.clock
			}
		}
	case connector.Contacts:
		e.person(k.ID)
		delete(e.contacts, k.ID)
	default:
		panic("memory: delete: neither a customer nor a contact")
	}
	for id, l := range e.links {
		if k.Kind == connector.Customers && l.Customer == k.ID || k.Kind == connector.Contacts && l.Contact == k.ID {
			delete(e.links, id)
		}
	}
	delete(e.damage, k)
	e.gone[k] = e.clock
}

func (e *ERP) visible(k connector.Key) bool {
	return !e.hidden[k] && !e.hidden[connector.Key{Kind: k.Kind}]
}

// modified is the time of a change. Ten changes share a second, as they do where one import makes them.
func modified(change int64) time.Time {
	return time.Date(2026, 3, 2, 9, 0, 0, 0, time.UTC).Add(time.Duration(change/10) * time.Second)
}

// put adds a record, with what comes with it, to a page. It reports whether there is one to see.
func (e *ERP) put(page *connector.Page, k connector.Key) bool {
	if !e.visible(k) {
		return false
	}
	switch k.Kind {
	case connector.Customers:
		c, ok := e.customers[k.ID]
		if !ok {
			return false
		}
		if bad, whole := e.spoilt(k); bad != nil {
			page.Bad = append(page.Bad, *bad)
			if whole {
				return true
			}
		}
		record, own := c.Customer, c.own
		own.ID, own.Active = contact.OwnID(c.ID), c.Active
		own.Channels = e.filled(k, own.Channels)
		record.ModifiedAt, own.ModifiedAt = modified(c.changed), modified(c.changed)
		page.Customers = append(page.Customers, record)
		page.Contacts = append(page.Contacts, own)
		page.Links = append(page.Links, connector.Link{
			Customer: c.ID, Contact: own.ID, StatedBy: k, Roles: []connector.ERPRole{connector.CompanyRole}})
	case connector.Contacts:
		p, ok := e.contacts[k.ID]
		if !ok {
			return false
		}
		if bad, whole := e.spoilt(k); bad != nil {
			page.Bad = append(page.Bad, *bad)
			if whole {
				return true
			}
		}
		record := p.Contact
		record.Channels = e.filled(k, record.Channels)
		record.ModifiedAt = modified(p.changed)
		page.Contacts = append(page.Contacts, record)
		if p.company != "" {
			page.Links = append(page.Links, connector.Link{Customer: p.company, Contact: p.ID, StatedBy: k})
		}
	case connector.Links:
		l, ok := e.links[k.ID]
		if !ok {
			return false
		}
		if bad, whole := e.spoilt(k); whole {
			page.Bad = append(page.Bad, *bad)
			return true
		}
		l.Roles = slices.Clone(l.Roles)
		page.Links = append(page.Links, l)
	}
	return true
}

// filled is the channels that have a value and can be read.
func (e *ERP) filled(k connector.Key, channels []connector.Channel) []connector.Channel {
	var out []connector.Channel
	for _, c := range channels {
		if c.Value != "" && (e.damage[k] != NotText || !c.Main) {
			out = append(out, c)
		}
	}
	return out
}

// A row is a record's place in a pull: kinds in turn, in a kind by id. An id never changes, so no row moves.
type row struct {
	phase int
	key   connector.Key
}

// The phases of a pull. What was deleted comes last.
var phases = []connector.Kind{connector.Customers, connector.Contacts, connector.Links}

// compareRows has numbers in their order: "9" before "10".
func compareRows(a, b row) int {
	if a.phase != b.phase {
		return a.phase - b.phase
	}
	if len(a.key.ID) != len(b.key.ID) {
		return len(a.key.ID) - len(b.key.ID)
	}
	if a.key.Kind != b.key.Kind {
		return strings.Compare(string(a.key.Kind), string(b.key.Kind))
	}
	return strings.Compare(a.key.ID, b.key.ID)
}

// rows is what a pull still has to name, in order.
func (e *ERP) rows(at place) []row {
	var out []row
	add := func(r row, changed int64) {
		if (at.Full || changed > at.Since) && e.visible(r.key) && (at.After == nil || compareRows(r, at.After.row()) > 0) {
			out = append(out, r)
		}
	}
	for id, c := range e.customers {
		add(row{0, connector.Key{Kind: connector.Customers, ID: id}}, c.changed)
	}
	for id, p := range e.contacts {
		add(row{1, connector.Key{Kind: connector.Contacts, ID: id}}, p.changed)
	}
	for id := range e.links {
		add(row{2, connector.Key{Kind: connector.Links, ID: id}}, e.clock+1)
	}
	if e.style == NetSuite && !at.Full {
		for k, changed := range e.gone {
			add(row{len(phases), k}, changed)
		}
	}
	slices.SortFunc(out, compareRows)
	return out
}

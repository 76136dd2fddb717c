package connectortest

import (
	"maps"

	"github.com/centime/contactsync/internal/connector"
	"github.com/centime/contactsync/internal/contact"
)

// A mirror is what a caller makes of pages that it believes: the contract's reading of a page and an End, without a
// caution of the caller's own.
type mirror struct {
	customers map[string]connector.Customer
	contacts  map[string]connector.Contact
	links     map[link][]connector.ERPRole

	// Of the pull under way.
	before map[connector.Key]bool // held when it began
	named  map[connector.Key]int  // how often each record came
	rows   map[link]bool          // links without StatedBy that came
	bad    []connector.Bad
	claims []connector.Key // Deleted
	pages  int
}

type link struct {
	customer, contact string
	statedBy          connector.Key
}

func newMirror() *mirror {
	m := &mirror{customers: map[string]connector.Customer{}, contacts: map[string]connector.Contact{},
		links: map[link][]connector.ERPRole{}}
	m.begin()
	return m
}

// keys is the records held; a customer's own contact is none.
func (m *mirror) keys() map[connector.Key]bool {
	keys := map[connector.Key]bool{}
	for id := range m.customers {
		keys[connector.Key{Kind: connector.Customers, ID: id}] = true
	}
	for id := range m.contacts {
		if _, own := contact.OwnerOf(id); !own {
			keys[connector.Key{Kind: connector.Contacts, ID: id}] = true
		}
	}
	return keys
}

func (m *mirror) begin() {
	m.before, m.named, m.rows, m.bad, m.claims, m.pages =
		m.keys(), map[connector.Key]int{}, map[link]bool{}, nil, nil, 0
}

func (m *mirror) save(p connector.Page) {
	m.pages++
	for _, c := range p.Customers {
		m.customers[c.ID] = c
		m.name(connector.Key{Kind: connector.Customers, ID: c.ID})
	}
	for _, c := range p.Contacts {
		m.contacts[c.ID] = c
		if _, own := contact.OwnerOf(c.ID); !own {
			m.name(connector.Key{Kind: connector.Contacts, ID: c.ID})
		}
	}
	for _, l := range p.Links {
		key := link{l.Customer, l.Contact, l.StatedBy}
		m.links[key] = l.Roles
		if l.StatedBy == (connector.Key{}) {
			m.rows[key] = true
		}
	}
	for _, b := range p.Bad {
		if b.Key.ID != "" && m.named[b.Key] == 0 {
			m.named[b.Key]++ // seen, though refused
		}
	}
	m.bad = append(m.bad, p.Bad...)
	m.claims = append(m.claims, p.Deleted...)
}

// name counts a record, and forgets the links that it stated before.
func (m *mirror) name(k connector.Key) {
	m.named[k]++
	maps.DeleteFunc(m.links, func(l link, _ []connector.ERPRole) bool { return l.statedBy == k })
}

func (m *mirror) finish(e connector.End) {
	for _, kind := range e.Listed {
		if kind == connector.Links {
			maps.DeleteFunc(m.links, func(l link, _ []connector.ERPRole) bool {
				return l.statedBy == (connector.Key{}) && !m.rows[l]
			})
			continue
		}
		for k := range m.before {
			if k.Kind == kind && m.named[k] == 0 {
				m.forget(k)
			}
		}
	}
}

func (m *mirror) forget(k connector.Key) {
	switch k.Kind {
	case connector.Customers:
		delete(m.customers, k.ID)
		delete(m.contacts, contact.OwnID(k.ID))
	case connector.Contacts:
		delete(m.contacts, k.ID)
	}
	maps.DeleteFunc(m.links, func(l link, _ []connector.ERPRole) bool {
		return k.Kind == connector.Customers && l.customer == k.ID || k.Kind == connector.Contacts && l.contact == k.ID
	})
}

// role is that of the link with no StatedBy where there is one.
func (m *mirror) role(p place) (role connector.ERPRole, attached bool) {
	first := func(roles []connector.ERPRole) (r connector.ERPRole) {
		if len(roles) > 0 {
			r = roles[0]
		}
		return r
	}
	if roles, ok := m.links[link{customer: p.customer, contact: p.contact}]; ok {
		return first(roles), true
	}
	for l, roles := range m.links {
		if l.customer == p.customer && l.contact == p.contact {
			role, attached = first(roles), true
		}
	}
	return role, attached
}

package netsuite_test

import (
	"fmt"
	"strings"
	"sync"
	"testing"
	"unicode/utf8"

	"github.com/centime/contactsync/internal/connector"
	"github.com/centime/contactsync/internal/connector/connectortest"
	"github.com/centime/contactsync/internal/erpsim"
	sim "github.com/centime/contactsync/internal/erpsim/netsuite"
)

// TestConformance holds the contract of package connector against a simulated NetSuite, which behaves both ways where
// it is not known how NetSuite does.
func TestConformance(t *testing.T) {
	t.Parallel()
	for name, v := range map[string]struct {
		o        sim.Options
		deny     []string
		pageSize int
	}{
		"Plain":         {pageSize: 40},
		"NativeCells":   {o: sim.Options{NativeCells: true, Casing: sim.UpperKeys, EmptyNulls: true, TextExpiry: true}, pageSize: 40},
		"NoUTC":         {o: sim.Options{NoUTC: true, NoSubqueries: true, NoParams: true, Casing: sim.WrittenKeys, MainLinks: false}, pageSize: 40},
		"MinimalRole":   {deny: []string{"contactrole", "deletedrecord", "customer.contact", "contact.homephone"}, pageSize: 40},
		"HiddenColumns": {o: sim.Options{ColumnFault: sim.ColumnUnexpected, HideLinks: true}, deny: []string{"customer.fax", "contact.title"}, pageSize: 40},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			connectortest.Run(t, func(t *testing.T) connectortest.Harness {
				t.Helper()
				s := &simulated{far: newFar(t, v.o, v.pageSize), pageSize: v.pageSize}
				s.account.Deny(v.deny...)
				s.role = s.account.AddRole("Bookkeeping")
				return s
			})
		})
	}
}

// simulated is NetSuite as a connectortest.Harness.
type simulated struct {
	*far
	pageSize int
	role     string // of the account's own
}

func (s *simulated) Features() connectortest.Features {
	return connectortest.Features{
		Account: account, PageSize: s.pageSize, Lists: []connector.Kind{connector.Customers, connector.Contacts, connector.Links},
		Contacts: true, Roles: []connector.ERPRole{{Key: sim.Primary, Name: "Primary Contact"}, {Key: s.role, Name: "Bookkeeping"}},
		Parents: true, Lookup: true, Removes: true, RawText: true, Calls: true, Waits: true,
		// No installation's mistake: each company has an integration record of its own.
		Faults: []connectortest.Fault{
			connectortest.Throttle, connectortest.Revoke, connectortest.Reject, connectortest.Break, connectortest.Cut,
		},
		Damages: []connectortest.Damage{connectortest.NotText, connectortest.Unreadable, connectortest.NoID},
	}
}

func table(kind connector.Kind) string { return string(kind) } // NetSuite calls them the same

func (s *simulated) Add(r connectortest.Record) string {
	s.Helper()
	if r.Kind == connector.Customers {
		id, err := s.account.JoinCustomer(sim.Customer{CompanyName: r.Name, Email: r.Mail, Phone: r.Phone, Parent: r.Parent})
		s.do(err)
		s.odd(r, id, "companyname", r.Name)
		return id
	}
	first, last, _ := strings.Cut(r.Name, " ")
	id, err := s.account.JoinContact(sim.Contact{FirstName: first, LastName: last, Email: r.Mail, Phone: r.Phone, Company: r.Company})
	s.do(err)
	s.odd(r, id, "lastname", last)
	return id
}

// odd sends text as it is that encoding/json would mend.
func (s *simulated) odd(r connectortest.Record, id, column, text string) {
	s.Helper()
	if !utf8.ValidString(text) {
		s.do(s.account.Spoil(table(r.Kind), id, column, escape(text)))
	}
}

// escape is a JSON string in which the three bytes of a lone surrogate are its escape.
func escape(text string) string {
	var b strings.Builder
	for i := 0; i < len(text); i++ {
		if text[i] == 0xED && i+2 < len(text) && text[i+1] >= 0xA0 {
			fmt.Fprintf(&b, `\u%04x`, 0xD000|int(text[i+1]&0x3F)<<6|int(text[i+2]&0x3F))
			i += 2
			continue
		}
		b.WriteByte(text[i])
	}
	return `"` + b.String() + `"`
}

func (s *simulated) Edit(k connector.Key, r connectortest.Record) {
	s.Helper()
	if k.Kind == connector.Customers {
		s.do(s.account.EditCustomer(k.ID, func(c *sim.Customer) { c.CompanyName, c.Email, c.Phone = r.Name, r.Mail, r.Phone }))
		return
	}
	s.do(s.account.EditContact(k.ID, func(c *sim.Contact) {
		c.FirstName, c.LastName, _ = strings.Cut(r.Name, " ")
		c.Email, c.Phone = r.Mail, r.Phone
	}))
}

func (s *simulated) Inactivate(k connector.Key) { s.setInactive(k, true) }
func (s *simulated) Reactivate(k connector.Key) { s.setInactive(k, false) }

func (s *simulated) setInactive(k connector.Key, inactive bool) {
	s.Helper()
	if k.Kind == connector.Customers {
		s.do(s.account.EditCustomer(k.ID, func(c *sim.Customer) { c.Inactive = inactive }))
		return
	}
	s.do(s.account.EditContact(k.ID, func(c *sim.Contact) { c.Inactive = inactive }))
}

func (s *simulated) Remove(k connector.Key) {
	s.Helper()
	if k.Kind == connector.Customers {
		s.do(s.account.DeleteCustomer(k.ID))
		return
	}
	s.do(s.account.DeleteContact(k.ID))
}

func (s *simulated) Attach(customer, contact string, role connector.ERPRole) {
	s.Helper()
	s.do(s.account.Attach(customer, contact, role.Key))
}

func (s *simulated) Detach(customer, contact string) {
	s.Helper()
	s.do(s.account.Detach(customer, contact))
}

func (s *simulated) Spoil(k connector.Key, d connectortest.Damage) {
	s.Helper()
	spoil := map[string]string{}
	switch d {
	case connectortest.NotText:
		spoil["email"] = `{"address":"x"}`
	case connectortest.NoID:
		spoil["id"] = ""
	case connectortest.Unreadable:
		for _, column := range []string{"entityid", "altname", "companyname", "firstname", "lastname", "email", "phone", "isinactive"} {
			if k.Kind == connector.Customers || column != "altname" && column != "companyname" {
				spoil[column] = `[]`
			}
		}
	}
	for column, value := range spoil {
		s.do(s.account.Spoil(table(k.Kind), k.ID, column, value))
	}
}

func (s *simulated) Fail(f connectortest.Fault) {
	switch f {
	case connectortest.Throttle:
		s.sim.Fail(erpsim.Rule{}, sim.Fault{Kind: sim.Throttle, RetryAfter: fmt.Sprint(int(connectortest.Wait.Seconds()))})
	case connectortest.Revoke:
		s.account.Revoke()
	case connectortest.Reject:
		s.sim.Fail(erpsim.Rule{}, sim.Fault{Kind: sim.Custom, Status: 400, Body: `{"title":"Bad Request","status":400,"o:errorDetails":[` +
			`{"detail":"The request could not be understood: ` + connectortest.Quote + `","o:errorCode":"INVALID_REQUEST"}]}`})
	case connectortest.Break:
		s.sim.Fail(erpsim.Rule{}, sim.Fault{Kind: sim.HTML503})
	case connectortest.Cut:
		// Half of the short answer with the time would not leave the server, and be asked for again unnoticed.
		s.sim.Fail(erpsim.Rule{Op: sim.Query}, sim.Fault{Kind: sim.Truncated})
	case connectortest.Misconfigure:
		s.Fatal("no mistake in an installation makes NetSuite refuse it")
	}
}

func (s *simulated) Hang() <-chan struct{} {
	arrived := make(chan struct{})
	var once sync.Once
	s.sim.Before(func(r erpsim.Request) {
		if r.Op != sim.Token {
			once.Do(func() { close(arrived) })
		}
	})
	s.sim.Fail(erpsim.Rule{}, sim.Fault{Kind: sim.Hang})
	return arrived
}

func (s *simulated) Requests() []connectortest.Request {
	var all []connectortest.Request
	for _, r := range s.sim.Log().Requests(func(r erpsim.Request) bool { return r.Op != sim.Token }) {
		all = append(all, connectortest.Request{
			What: strings.TrimSpace(r.Method + " " + r.Path + " " + r.Statement), Write: r.Violation != "",
		})
	}
	return all
}

func (s *simulated) Secrets() []string { return s.tokens.given() }

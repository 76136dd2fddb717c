package quickbooks_test

import (
	"fmt"
	"strings"
	"sync"
	"testing"
	"time"
	"unicode/utf8"

	"github.com/centime/contactsync/internal/connector"
	"github.com/centime/contactsync/internal/connector/connectortest"
	"github.com/centime/contactsync/internal/erpsim"
	"github.com/centime/contactsync/internal/erpsim/qbo"
)

// TestConformance holds the contract of package connector against a simulated QuickBooks Online.
func TestConformance(t *testing.T) {
	t.Parallel()
	connectortest.Run(t, func(t *testing.T) connectortest.Harness {
		t.Helper()
		s := &simulated{T: t, now: time.Date(2026, 11, 1, 8, 30, 0, 0, time.UTC)} // the hour that Pacific time repeats
		s.far = newFar(t, qbo.Options{Now: s.clock})
		return s
	})
}

// simulated is QuickBooks Online as a connectortest.Harness.
type simulated struct {
	*testing.T
	far *far

	mu  sync.Mutex
	now time.Time
}

func (s *simulated) clock() time.Time {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.now
}

func (s *simulated) Pass(d time.Duration) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.now = s.now.Add(d)
}

func (s *simulated) Features() connectortest.Features {
	return connectortest.Features{
		Account: realm, PageSize: 1000, Lists: []connector.Kind{connector.Customers},
		Parents: true, Lookup: true, Removes: true, RawText: true, Calls: true, Waits: true,
		Faults: []connectortest.Fault{
			connectortest.Throttle, connectortest.Revoke, connectortest.Misconfigure, connectortest.Reject, connectortest.Break,
			connectortest.Cut,
		},
		Damages: []connectortest.Damage{connectortest.NotText, connectortest.Unreadable, connectortest.NoID},
	}
}

func (s *simulated) Open(called connector.Called) connector.Source {
	return online("secret").Open(connector.Account{ID: realm, APIURL: s.far.url, Tokens: s.far.tokens, Called: called})
}

func (s *simulated) do(err error) {
	s.Helper()
	if err != nil {
		s.Fatal(err)
	}
}

func (s *simulated) Add(r connectortest.Record) string {
	s.Helper()
	id, err := s.far.company.Join(qbo.Customer{DisplayName: r.Name, Email: r.Mail, Phone: r.Phone, Parent: r.Parent})
	s.do(err)
	if !utf8.ValidString(r.Name) { // which encoding/json would mend
		s.do(s.far.company.SpoilField(id, "DisplayName", escape(r.Name)))
	}
	return id
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
	s.do(s.far.company.Edit(k.ID, func(c *qbo.Customer) {
		c.DisplayName, c.Email, c.Phone = r.Name, r.Mail, r.Phone
		if c.Inactive {
			c.DisplayName += " (deleted)"
		}
	}))
}

func (s *simulated) Inactivate(k connector.Key) { s.do(s.far.company.Deactivate(k.ID)) }
func (s *simulated) Reactivate(k connector.Key) { s.do(s.far.company.Reactivate(k.ID)) }

// Remove merges a customer into another, of which no more than the balance changes.
func (s *simulated) Remove(k connector.Key) {
	s.Helper()
	for _, other := range s.far.company.Customers() {
		if other.ID != k.ID && other.Parent == "" {
			s.do(s.far.company.Merge(k.ID, other.ID, qbo.MergeAbsent))
			return
		}
	}
	s.Fatal("there is nobody to merge with")
}

func (s *simulated) Attach(string, string, connector.ERPRole) {
	s.Fatal("QuickBooks has no contacts of their own")
}
func (s *simulated) Detach(string, string) { s.Fatal("QuickBooks has no contacts of their own") }

func (s *simulated) Spoil(k connector.Key, d connectortest.Damage) {
	s.Helper()
	spoil := map[string]string{}
	switch d {
	case connectortest.NotText:
		spoil["PrimaryEmailAddr"] = `{"Address":7}`
	case connectortest.NoID:
		spoil["Id"] = `null`
	case connectortest.Unreadable:
		for _, field := range []string{
			"DisplayName", "CompanyName", "GivenName", "MiddleName", "FamilyName", "PrimaryEmailAddr", "PrimaryPhone",
			"AlternatePhone", "Mobile", "Fax", "WebAddr", "ParentRef", "Active", "MetaData",
		} {
			spoil[field] = `7`
		}
	}
	for field, value := range spoil {
		s.do(s.far.company.SpoilField(k.ID, field, value))
	}
}

func (s *simulated) Fail(f connectortest.Fault) {
	fault := func(f qbo.Fault) { s.far.sim.Fail(erpsim.Rule{}, f) }
	switch f {
	case connectortest.Throttle:
		fault(qbo.Fault{Kind: qbo.ThrottleXML, RetryAfter: fmt.Sprint(int(connectortest.Wait.Seconds()))})
	case connectortest.Revoke:
		s.far.company.Revoke()
	case connectortest.Misconfigure:
		s.far.company.ExpireAccess()
		s.far.sim.Fail(erpsim.Rule{Op: qbo.Token, Times: erpsim.Forever}, qbo.Fault{Kind: qbo.InvalidClient})
	case connectortest.Reject:
		fault(qbo.Fault{Kind: qbo.Custom, Status: 400, Body: `{"Fault":{"Error":[{"Message":"Invalid query","Detail":"near ` +
			connectortest.Quote + `","code":"4001","element":""}],"type":"ValidationFault"}}`})
	case connectortest.Break:
		fault(qbo.Fault{Kind: qbo.HTML503})
	case connectortest.Cut:
		fault(qbo.Fault{Kind: qbo.Truncated})
	}
}

func (s *simulated) Hang() <-chan struct{} {
	arrived := make(chan struct{})
	var once sync.Once
	s.far.sim.Before(func(r erpsim.Request) {
		if r.Op != qbo.Token {
			once.Do(func() { close(arrived) })
		}
	})
	s.far.sim.Fail(erpsim.Rule{}, qbo.Fault{Kind: qbo.Hang})
	return arrived
}

func (s *simulated) Requests() []connectortest.Request {
	var all []connectortest.Request
	for _, r := range s.far.sim.Log().Requests(func(r erpsim.Request) bool { return r.Op != qbo.Token }) {
		all = append(all, connectortest.Request{
			What: strings.TrimSpace(r.Method + " " + r.Path + " " + r.Statement), Write: r.Violation != "",
		})
	}
	return all
}

func (s *simulated) Secrets() []string { return append([]string{"secret"}, s.far.tokens.given()...) }

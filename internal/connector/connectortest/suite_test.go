package connectortest

import (
	"context"
	"fmt"
	"sync"
	"testing"
	"time"

	"pgregory.net/rapid"

	"github.com/centime/contactsync/internal/connector"
	"github.com/centime/contactsync/internal/connector/memory"
)

// Both styles of the ERP in memory keep every promise.
func TestMemory(t *testing.T) {
	t.Parallel()
	for _, style := range []memory.Style{memory.QuickBooks, memory.NetSuite} {
		t.Run(string(style), func(t *testing.T) {
			t.Parallel()
			Run(t, func(*testing.T) Harness { return newMemoryHarness(style) })
		})
	}
}

// Whatever happens in the ERP between the pages of pulls, and wherever they are interrupted, nothing is lost.
func TestHistories(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(rt *rapid.T) {
		style := rapid.SampledFrom([]memory.Style{memory.QuickBooks, memory.NetSuite}).Draw(rt, "style")
		history(newSide(rt, newMemoryHarness(style)), rt)
	})
}

func history(s *side, rt *rapid.T) {
	pick := func(kind connector.Kind) (connector.Key, bool) {
		keys := s.held(kind)
		if len(keys) == 0 {
			return connector.Key{}, false
		}
		return keys[rapid.IntRange(0, len(keys)-1).Draw(rt, "record")], true
	}
	change := func() {
		kind := rapid.SampledFrom(s.kinds()).Draw(rt, "kind")
		k, ok := pick(kind)
		c, _ := pick(connector.Customers)
		what := rapid.SampledFrom([]string{"add", "add", "touch", "rename", "toggle", "remove", "attach", "detach"}).
			Draw(rt, "change")
		_, linked := s.links[place{c.ID, k.ID}]
		switch {
		case !ok || what == "add":
			s.add(kind)
		case what == "touch":
			s.touch(k)
		case what == "rename":
			s.rename(k)
		case what == "toggle":
			s.toggle(k)
		case what == "remove":
			s.remove(k)
		case kind == connector.Contacts && c.ID != "" && what == "attach":
			s.attach(c, k, rapid.IntRange(0, 1).Draw(rt, "role"))
		case kind == connector.Contacts && linked:
			s.detach(c, k)
		}
	}
	changes := func() {
		for range rapid.IntRange(0, 8).Draw(rt, "changes") {
			change()
		}
	}
	m := newMirror()
	var since connector.Cursor
	for range rapid.IntRange(1, 5).Draw(rt, "pulls") {
		changes()
		if rapid.IntRange(0, 3).Draw(rt, "full") == 0 {
			since = ""
		}
		since = s.pull(m, connector.Pull{Since: since}, func(int) bool {
			changes()
			return rapid.Bool().Draw(rt, "resume")
		}).Cursor
	}
	s.since(m, since)
	s.agree(m, false)
	s.full(m)
	s.agree(m, true)
}

// memoryHarness plays an ERP in memory. Its clock counts changes, so there is no time to pass.
type memoryHarness struct {
	style memory.Style
	erp   *memory.ERP
	conn  *memory.Connector

	mu      sync.Mutex
	secrets []string
}

var _ Harness = (*memoryHarness)(nil)

func newMemoryHarness(style memory.Style) *memoryHarness {
	h := &memoryHarness{style: style, erp: memory.New("company-1", style)}
	h.erp.SetPageSize(4)
	h.conn = memory.NewConnector("memory", h.erp)
	return h
}

func (h *memoryHarness) Features() Features {
	f := Features{
		Account: "company-1", PageSize: 4, Lists: []connector.Kind{connector.Customers},
		Parents: true, Lookup: true, Removes: true, RawText: true, Calls: true, Waits: true,
		Faults:  []Fault{Throttle, Revoke, Misconfigure, Reject, Break, Cut},
		Damages: []Damage{NotText, Unreadable, NoID},
	}
	if h.style == memory.NetSuite {
		f.Contacts = true
		f.Lists = append(f.Lists, connector.Contacts, connector.Links)
		f.Roles = []connector.ERPRole{{Key: "-10", Name: "Primary Contact"}, {Key: "5", Name: "Bookkeeper"}}
	}
	return f
}

func (h *memoryHarness) Open(called connector.Called) connector.Source {
	return h.conn.Open(connector.Account{ID: h.erp.Account(), Tokens: h.login(), Called: called})
}

func (h *memoryHarness) Pass(time.Duration) {}

func (h *memoryHarness) Add(r Record) string {
	if r.Kind == connector.Contacts {
		return h.erp.AddContact(connector.Contact{Name: r.Name, Channels: channels(r)}, r.Company)
	}
	return h.erp.AddCustomer(connector.Customer{Name: r.Name, ParentID: r.Parent}, channels(r)...)
}

func (h *memoryHarness) Edit(k connector.Key, r Record) {
	if k.Kind == connector.Contacts {
		h.erp.EditContact(k.ID, func(c *connector.Contact) { c.Name, c.Channels = r.Name, channels(r) })
		return
	}
	h.erp.EditCustomer(k.ID, func(c *connector.Customer, own *connector.Contact) {
		c.Name, own.Channels = r.Name, channels(r)
	})
}

func channels(r Record) []connector.Channel {
	return []connector.Channel{memory.Mail(r.Mail), memory.Phone(r.Phone)}
}

func (h *memoryHarness) Inactivate(k connector.Key) { h.erp.Inactivate(k) }
func (h *memoryHarness) Reactivate(k connector.Key) { h.erp.Reactivate(k) }
func (h *memoryHarness) Remove(k connector.Key)     { h.erp.Delete(k) }

func (h *memoryHarness) Attach(customer, contact string, role connector.ERPRole) {
	h.erp.Attach(customer, contact, role)
}

func (h *memoryHarness) Detach(customer, contact string) { h.erp.Detach(customer, contact) }

func (h *memoryHarness) Spoil(k connector.Key, d Damage) {
	h.erp.Spoil(k, map[Damage]memory.Damage{
		NotText: memory.NotText, Unreadable: memory.Unreadable, NoID: memory.NoID}[d])
}

func (h *memoryHarness) Fail(f Fault) {
	fail := func(kind connector.ErrorKind, message, hint string, wait time.Duration) error {
		return &connector.Error{Kind: kind, Step: "memory", Message: message, Hint: hint, RetryAfter: wait}
	}
	switch f {
	case Throttle:
		h.erp.FailNext(fail(connector.Throttled, "429 too many requests", "", Wait))
	case Revoke:
		h.erp.RefuseRenewal(fail(connector.Denied, "invalid_grant", "connect the company again", 0))
	case Misconfigure:
		h.erp.RefuseRenewal(fail(connector.Misconfigured, "invalid_client", "correct the client id", 0))
	case Reject:
		h.erp.FailNext(fail(connector.Rejected, "400 no such column", "", 0))
	case Break:
		h.erp.FailNext(fail(connector.Transient, "503", "", 0))
	case Cut:
		h.erp.FailNext(fail(connector.Transient, "unexpected EOF", "", 0))
	}
}

func (h *memoryHarness) Hang() <-chan struct{} {
	arrived := make(chan struct{})
	h.erp.Before(func(ctx context.Context, _ memory.Request) error {
		h.erp.Before(nil)
		close(arrived)
		<-ctx.Done()
		return ctx.Err()
	})
	return arrived
}

func (h *memoryHarness) Requests() []Request {
	var out []Request
	for _, r := range h.erp.Requests() {
		out = append(out, Request{What: fmt.Sprintf("%s %v", r.Op, r.Pull)})
	}
	return out
}

func (h *memoryHarness) Secrets() []string {
	h.mu.Lock()
	defer h.mu.Unlock()
	return append([]string(nil), h.secrets...)
}

// login is a fresh login: tokens that are renewed when there is none or it was refused.
func (h *memoryHarness) login() connector.Tokens {
	return &tokens{harness: h, creds: h.erp.Credentials()}
}

type tokens struct {
	harness *memoryHarness
	mu      sync.Mutex
	creds   connector.Credentials
}

func (t *tokens) Token(ctx context.Context) (string, error) { return t.Renewed(ctx, "") }

func (t *tokens) Renewed(ctx context.Context, refused string) (string, error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.creds.AccessToken != refused {
		return t.creds.AccessToken, nil
	}
	t.creds.RefreshToken = t.harness.erp.Credentials().RefreshToken // what another process has saved
	creds, err := t.harness.conn.Renew(ctx, connector.Account{}, t.creds)
	if err != nil {
		return "", err
	}
	t.creds = creds
	t.harness.mu.Lock()
	defer t.harness.mu.Unlock()
	t.harness.secrets = append(t.harness.secrets, creds.RefreshToken, creds.AccessToken)
	return creds.AccessToken, nil
}

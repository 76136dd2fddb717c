package connectortest

import (
	"context"
	"errors"
	"fmt"
	"iter"
	"runtime"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/centime/contactsync/internal/connector"
	"github.com/centime/contactsync/internal/connector/memory"
	"github.com/centime/contactsync/internal/contact"
)

// The suite can fail: each Source that breaks a promise is found by the cases named beside it, and by their reason.
func TestBrokenSources(t *testing.T) {
	t.Parallel()
	for _, b := range brokenSources {
		for _, style := range b.styles {
			t.Run(b.name+"/"+string(style), func(t *testing.T) {
				t.Parallel()
				for _, name := range b.found {
					h := &brokenHarness{memoryHarness: newMemoryHarness(style), breaks: b.breaks}
					reports := fate(t, name, h)
					if len(reports) == 0 {
						t.Errorf("case %s does not find it", name)
					} else if last := reports[len(reports)-1]; !strings.HasPrefix(last, "the broken promise: ") {
						t.Errorf("case %s does not say which promise is broken: %s", name, last)
					}
				}
			})
		}
	}
}

// No case is there that nothing can fail.
func TestEachCaseCanFail(t *testing.T) {
	t.Parallel()
	for _, c := range cases {
		fails := slices.ContainsFunc(brokenSources, func(b brokenSource) bool { return slices.Contains(b.found, c.name) })
		if !fails && c.name != "ReadOnly" && c.name != "Called" { // see TestBrokenRequests
			t.Errorf("no broken Source is there for case %s to find", c.name)
		}
	}
}

type brokenSource struct {
	name   string
	styles []memory.Style
	breaks func(connector.Source) *broken
	found  []string // by these cases; others may find it too
}

var (
	quickBooks = []memory.Style{memory.QuickBooks}
	netSuite   = []memory.Style{memory.NetSuite}
	both       = []memory.Style{memory.QuickBooks, memory.NetSuite}
)

var brokenSources = []brokenSource{
	{"skips a row after resume", both, pages(func(r *run) {
		if r.pull.Resume != "" && r.n == 1 {
			dropFirst(&r.page)
		}
	}), []string{"Resume", "ResumeLater"}},
	{"skips the last row of a pull", both, pages(func(r *run) {
		if r.page.End != nil {
			dropFirst(&r.page)
		}
	}), []string{"Complete", "SameSecond", "Incremental"}},
	{"pages by offset", quickBooks, offset(false), []string{"ResumeLater", "Vanishing"}},
	{"pages by name up to the number there was at first", quickBooks, offset(true), []string{"Joining"}},
	{"leaves inactive records out", both, pages(func(r *run) { dropInactive(&r.page) }),
		[]string{"Complete", "Inactive"}},
	{"says that everything is active", both, pages(func(r *run) {
		for i := range r.page.Customers {
			r.page.Customers[i].Active = true
		}
	}), []string{"Complete", "Inactive"}},
	{"names a record on two pages", both, pages(func(r *run) {
		if first := r.first; r.n > 1 && len(first.Customers) > 0 {
			id := first.Customers[0].ID
			r.page.Customers = append(r.page.Customers, first.Customers[0])
			r.page.Contacts = append(r.page.Contacts, first.Contacts[0])
			r.page.Links = append(r.page.Links, ownLink(id))
		}
	}), []string{"Complete"}},
	{"names a record twice on a page", both, pages(func(r *run) {
		r.page.Customers = append(r.page.Customers, r.page.Customers[:min(1, len(r.page.Customers))]...)
	}), []string{"Complete", "OwnContact"}},
	{"lists nothing", both, pages(func(r *run) {
		if r.page.End != nil {
			r.page.End.Listed = nil
		}
	}), []string{"Complete"}},
	{"lists everything, always", both, pages(func(r *run) {
		if r.page.End != nil {
			r.page.End.Listed = []connector.Kind{connector.Customers}
		}
	}), []string{"Incremental", "Idle", "BadID", "ResumeIncremental"}},
	{"lists after a resume what it did not name before", both, pages(func(r *run) {
		if r.page.End != nil && r.pull.Resume != "" && !slices.Contains(r.page.End.Listed, connector.Customers) {
			r.page.End.Listed = append(r.page.End.Listed, connector.Customers)
		}
	}), []string{"BadID", "ResumeIncremental"}},
	{"reads no links in an incremental pull", netSuite, pages(func(r *run) {
		if r.pull.Since != "" {
			r.page.Links = slices.DeleteFunc(r.page.Links, func(l connector.Link) bool {
				return l.StatedBy == connector.Key{}
			})
		}
	}), []string{"Attached"}},
	{"does not list links in an incremental pull", netSuite, pages(func(r *run) {
		if r.page.End != nil && r.pull.Since != "" {
			r.page.End.Listed = nil
		}
	}), []string{"Attached"}},
	{"swallows a bad record without an id", both, pages(func(r *run) { r.page.Bad = nil }),
		[]string{"BadID", "BadRecord", "BadField"}},
	{"brings no own contact without an address", both, pages(dropBare), []string{"OwnContact"}},
	{"gives the own contact no role", both, pages(func(r *run) {
		for i := range r.page.Links {
			r.page.Links[i].Roles = nil
		}
	}), []string{"OwnContact"}},
	{"takes its cursor at the end of a pull", both, lateCursor, []string{"DuringPull", "ResumeLater"}},
	{"forgets what changed", both, since(func(connector.Pull) connector.Pull {
		return connector.Pull{}
	}), []string{"Idle"}},
	{"keeps its place in the process", both, inProcess, []string{"Resume"}},
	{"takes a foreign cursor for the start", both, anyCursor, []string{"ForeignCursor"}},
	{"leaves cleared fields as they were", both, keepCleared, []string{"Cleared"}},
	{"reports a cleared field as empty", both, pages(func(r *run) {
		for i := range r.page.Contacts {
			r.page.Contacts[i].Channels = append(r.page.Contacts[i].Channels,
				connector.Channel{Kind: contact.Fax, Field: "fax"})
		}
	}), []string{"Cleared", "Complete"}},
	{"takes the first of several addresses", both, pages(mails(func(s string) string {
		return strings.FieldsFunc(s, func(r rune) bool { return r == ',' || r == ';' })[0]
	})), []string{"SeveralAddresses"}},
	{"replaces odd text", both, pages(mails(func(s string) string { return strings.ReplaceAll(s, "\x00", "\ufffd") })),
		[]string{"RawText"}},
	{"drops a parent", both, pages(func(r *run) {
		for i := range r.page.Customers {
			r.page.Customers[i].ParentID = ""
		}
	}), []string{"Parent"}},
	{"claims a deletion that was none", both, pages(func(r *run) {
		if r.page.End != nil {
			r.page.Deleted = append(r.page.Deleted, connector.Key{Kind: connector.Customers, ID: "2"})
		}
	}), []string{"Complete"}},

	{"stops silently at an error", both, errs(func(error) error { return nil }),
		[]string{"Throttled", "Denied", "Misconfigured", "Rejected", "Broken", "Cut", "ForeignCursor", "Cancelled"}},
	{"ends a pull at an error", both, endAtError, []string{"Cut", "Broken", "Throttled", "Denied"}},
	{"calls every error wrong", both, errs(func(error) error {
		return &connector.Error{Kind: connector.Rejected, Step: "pull"}
	}), []string{"Throttled", "Denied", "Misconfigured", "Broken", "Cut", "ForeignCursor", "Cancelled"}},
	{"loses an error's kind", both, errs(func(err error) error { return errors.New(err.Error()) }),
		[]string{"Throttled", "Denied", "Misconfigured", "Rejected", "Cancelled"}},
	{"loses the wait", both, edits(func(e *connector.Error) { e.RetryAfter = 0 }), []string{"Throttled"}},
	{"tells nobody what to do", both, edits(func(e *connector.Error) { e.Hint = "" }),
		[]string{"Denied", "Misconfigured"}},
	{"quotes a record", both, edits(func(e *connector.Error) { e.Message += " near " + Quote }), []string{"Rejected"}},
	{"quotes a record in the hint", both, edits(func(e *connector.Error) { e.Hint += Quote }), []string{"Rejected"}},
	{"tries again by itself", both, retries, []string{"Throttled", "Rejected", "Broken", "Cut"}},

	{"is not to be cancelled", both, uncancelled, []string{"Cancelled", "CancelledInFlight"}},
	{"blames the ERP for a shutdown", both, errs(func(err error) error {
		if errors.Is(err, context.Canceled) {
			return &connector.Error{Kind: connector.Transient, Step: "pull", Message: "no answer"}
		}
		return err
	}), []string{"Cancelled", "CancelledInFlight"}},
	{"fetches ahead", both, ahead, []string{"Left"}},
	{"goes on when left", both, goesOn, []string{"Left"}},

	{"looks up active records only", both, lookups(func(_ []connector.Key, p *connector.Page) { dropInactive(p) }),
		[]string{"Lookup", "Inactive"}},
	{"finds what is gone", both, lookups(func(keys []connector.Key, p *connector.Page) {
		for _, k := range keys {
			if k.Kind == connector.Customers && !slices.ContainsFunc(p.Customers, named(k.ID)) {
				own := connector.Contact{ID: contact.OwnID(k.ID)}
				p.Customers = append(p.Customers, connector.Customer{ID: k.ID})
				p.Contacts, p.Links = append(p.Contacts, own), append(p.Links, ownLink(k.ID))
			}
		}
	}), []string{"Lookup", "Removed"}},
	{"looks up one page only", both, lookups(func(_ []connector.Key, p *connector.Page) {
		p.Customers, p.Contacts, p.Links = p.Customers[:min(4, len(p.Customers))], nil, nil
	}), []string{"Lookup"}},
	{"does not look up places", netSuite, lookups(func(_ []connector.Key, p *connector.Page) {
		p.Links = slices.DeleteFunc(p.Links, func(l connector.Link) bool { return l.StatedBy == connector.Key{} })
	}), []string{"Lookup"}},
	{"looks up all places of a contact", netSuite, lookups(func(_ []connector.Key, p *connector.Page) {
		for _, l := range slices.Clone(p.Links) {
			p.Links = append(p.Links, connector.Link{Customer: "9", Contact: l.Contact, Roles: l.Roles})
		}
	}), []string{"Lookup"}},
	{"looks up customers without their own contacts", both, lookups(func(_ []connector.Key, p *connector.Page) {
		p.Contacts, p.Links = nil, nil
	}), []string{"Lookup"}},
	{"finds one customer only while it is active", both, customers(func(_ string, p *connector.Page) { dropInactive(p) }),
		[]string{"OneCustomer"}},
	{"finds a customer that is not there", both, customers(func(id string, p *connector.Page) {
		if id != "" && len(p.Customers) == 0 {
			p.Customers = append(p.Customers, connector.Customer{ID: id})
			p.Contacts, p.Links = append(p.Contacts, connector.Contact{ID: contact.OwnID(id)}), append(p.Links, ownLink(id))
		}
	}), []string{"OneCustomer"}},
	{"reads one customer without the contacts at it", netSuite, customers(func(_ string, p *connector.Page) {
		own := func(id string) bool { _, own := contact.OwnerOf(id); return own }
		p.Contacts = slices.DeleteFunc(p.Contacts, func(c connector.Contact) bool { return !own(c.ID) })
		p.Links = slices.DeleteFunc(p.Links, func(l connector.Link) bool { return !own(l.Contact) })
	}), []string{"OneCustomer"}},
	{"reads one customer without the contacts that state it themselves", netSuite, customers(func(_ string, p *connector.Page) {
		rows := map[string]bool{}
		for _, l := range p.Links {
			rows[l.Contact] = rows[l.Contact] || l.StatedBy == connector.Key{} || l.StatedBy.Kind == connector.Customers
		}
		p.Contacts = slices.DeleteFunc(p.Contacts, func(c connector.Contact) bool { return !rows[c.ID] })
		p.Links = slices.DeleteFunc(p.Links, func(l connector.Link) bool { return !rows[l.Contact] })
	}), []string{"OneCustomer"}},
	{"brings a customer's contacts with their other customers", netSuite, func(inner connector.Source) *broken {
		b := &broken{Source: inner}
		b.customer = func(ctx context.Context, id string) (connector.Page, error) {
			page, err := inner.Customer(ctx, id)
			for other, err := range inner.Pull(ctx, connector.Pull{}) {
				if err != nil {
					return page, err
				}
				for _, l := range other.Links {
					if l.Customer != id && l.StatedBy == (connector.Key{}) {
						page.Links = append(page.Links, l)
					}
				}
			}
			return page, err
		}
		return b
	}, []string{"OneCustomer"}},
	{"answers one customer as it was before", both, remembers, []string{"OneCustomer"}},
	{"swallows an error about one customer", both, func(inner connector.Source) *broken {
		b := &broken{Source: inner}
		b.customer = func(ctx context.Context, id string) (connector.Page, error) {
			page, _ := inner.Customer(ctx, id)
			return page, nil
		}
		return b
	}, []string{"Throttled", "Denied", "Cut", "Cancelled", "Called"}},
	{"opens another account", both, func(inner connector.Source) *broken {
		b := &broken{Source: inner}
		b.check = func(ctx context.Context) (connector.Check, error) {
			c, err := inner.Check(ctx)
			c.Account = "company-2"
			return c, err
		}
		return b
	}, []string{"Check"}},
}

// Any case fails if a request writes, or if one is sent that is not counted.
func TestBrokenRequests(t *testing.T) {
	t.Parallel()
	for _, c := range cases {
		h := &writingHarness{newMemoryHarness(memory.NetSuite)}
		if len(fate(t, c.name, h)) == 0 && c.name != "ForeignCursor" {
			t.Errorf("case %s does not mind a request that writes", c.name)
		}
	}
	uncounted := &uncountedHarness{newMemoryHarness(memory.QuickBooks)}
	if len(fate(t, "Called", uncounted)) == 0 {
		t.Error("case Called does not mind requests that are not counted")
	}
	endless := &endlessHarness{newMemoryHarness(memory.QuickBooks)}
	if len(fate(t, "Called", endless)) == 0 {
		t.Error("case Called does not mind requests that are never over")
	}
}

// fate runs one case by itself and returns what it reports, empty if it passes.
func fate(t *testing.T, name string, h Harness) []string {
	t.Helper()
	i := slices.IndexFunc(cases, func(c testCase) bool { return c.name == name })
	if i < 0 {
		t.Fatalf("there is no case %s", name)
	}
	r := &recorder{TB: t}
	var done sync.WaitGroup
	done.Go(func() { cases[i].run(r, h) }) // Fatal ends the goroutine
	done.Wait()
	if !r.failed {
		return nil
	}
	return r.reports
}

// A recorder stands in for the test that a failing case would end.
type recorder struct {
	testing.TB
	failed  bool
	reports []string
}

func (r *recorder) Helper()      {}
func (r *recorder) Failed() bool { return r.failed }

func (r *recorder) Logf(format string, args ...any) {
	r.reports = append(r.reports, fmt.Sprintf(format, args...))
}

func (r *recorder) Errorf(format string, args ...any) {
	r.Logf(format, args...)
	r.failed = true
}

func (r *recorder) Fatalf(format string, args ...any) {
	r.Errorf(format, args...)
	runtime.Goexit()
}

func (r *recorder) Skip(args ...any) {
	r.Logf("skipped: %s", fmt.Sprint(args...))
	runtime.Goexit()
}

type brokenHarness struct {
	*memoryHarness
	breaks func(connector.Source) *broken
}

func (h *brokenHarness) Open(called connector.Called) connector.Source {
	return h.breaks(h.memoryHarness.Open(called))
}

type writingHarness struct{ *memoryHarness }

func (h *writingHarness) Requests() []Request {
	out := h.memoryHarness.Requests()
	for i := range out {
		out[i].Write = true
	}
	return out
}

type uncountedHarness struct{ *memoryHarness }

func (h *uncountedHarness) Open(connector.Called) connector.Source {
	return h.memoryHarness.Open(nil)
}

type endlessHarness struct{ *memoryHarness }

func (h *endlessHarness) Open(called connector.Called) connector.Source {
	if called == nil {
		return h.memoryHarness.Open(nil)
	}
	return h.memoryHarness.Open(func(ctx context.Context) (func(), error) {
		_, err := called(ctx)
		return func() {}, err
	})
}

// A broken Source does what its functions say, and the rest as the Source in it.
type broken struct {
	connector.Source
	check  func(context.Context) (connector.Check, error)
	pull   func(context.Context, connector.Pull) iter.Seq2[connector.Page, error]
	lookup func(context.Context, []connector.Key) (connector.Page, error)

	customer func(context.Context, string) (connector.Page, error)
}

func (b *broken) Check(ctx context.Context) (connector.Check, error) {
	if b.check == nil {
		return b.Source.Check(ctx)
	}
	return b.check(ctx)
}

func (b *broken) Pull(ctx context.Context, p connector.Pull) iter.Seq2[connector.Page, error] {
	if b.pull == nil {
		return b.Source.Pull(ctx, p)
	}
	return b.pull(ctx, p)
}

func (b *broken) Lookup(ctx context.Context, keys []connector.Key) (connector.Page, error) {
	if b.lookup == nil {
		return b.Source.Lookup(ctx, keys)
	}
	return b.lookup(ctx, keys)
}

func (b *broken) Customer(ctx context.Context, id string) (connector.Page, error) {
	if b.customer == nil {
		return b.Source.Customer(ctx, id)
	}
	return b.customer(ctx, id)
}

// run is a page on its way through a broken Source.
type run struct {
	pull  connector.Pull
	n     int             // its number since Pull was called
	first *connector.Page // as it left
	page  connector.Page
}

// pages breaks every page.
func pages(breaks func(*run)) func(connector.Source) *broken {
	return func(inner connector.Source) *broken {
		b := &broken{Source: inner}
		b.pull = func(ctx context.Context, p connector.Pull) iter.Seq2[connector.Page, error] {
			return func(yield func(connector.Page, error) bool) {
				r := run{pull: p, first: &connector.Page{}}
				for page, err := range inner.Pull(ctx, p) {
					if err == nil {
						r.n++
						r.page = page
						breaks(&r)
						page = r.page
						if r.n == 1 {
							first := page
							r.first = &first
						}
					}
					if !yield(page, err) {
						return
					}
				}
			}
		}
		return b
	}
}

// since breaks what a pull is asked for.
func since(breaks func(connector.Pull) connector.Pull) func(connector.Source) *broken {
	return func(inner connector.Source) *broken {
		b := &broken{Source: inner}
		b.pull = func(ctx context.Context, p connector.Pull) iter.Seq2[connector.Page, error] {
			if p.Resume == "" {
				p = breaks(p)
			}
			return inner.Pull(ctx, p)
		}
		return b
	}
}

// errs breaks every error of a pull; nil drops it.
func errs(breaks func(error) error) func(connector.Source) *broken {
	return func(inner connector.Source) *broken {
		b := &broken{Source: inner}
		b.pull = func(ctx context.Context, p connector.Pull) iter.Seq2[connector.Page, error] {
			return func(yield func(connector.Page, error) bool) {
				for page, err := range inner.Pull(ctx, p) {
					if err != nil {
						if err = breaks(err); err == nil {
							return
						}
					}
					if !yield(page, err) {
						return
					}
				}
			}
		}
		return b
	}
}

// edits breaks every connector.Error of a pull.
func edits(breaks func(*connector.Error)) func(connector.Source) *broken {
	return errs(func(err error) error {
		if e, ok := errors.AsType[*connector.Error](err); ok {
			edited := *e
			breaks(&edited)
			return &edited
		}
		return err
	})
}

// lookups breaks the answer of every lookup.
func lookups(breaks func([]connector.Key, *connector.Page)) func(connector.Source) *broken {
	return func(inner connector.Source) *broken {
		b := &broken{Source: inner}
		b.lookup = func(ctx context.Context, keys []connector.Key) (connector.Page, error) {
			page, err := inner.Lookup(ctx, keys)
			if err == nil {
				breaks(keys, &page)
			}
			return page, err
		}
		return b
	}
}

// customers breaks the answer about one customer.
func customers(breaks func(string, *connector.Page)) func(connector.Source) *broken {
	return func(inner connector.Source) *broken {
		b := &broken{Source: inner}
		b.customer = func(ctx context.Context, id string) (connector.Page, error) {
			page, err := inner.Customer(ctx, id)
			if err == nil {
				breaks(id, &page)
			}
			return page, err
		}
		return b
	}
}

func named(id string) func(connector.Customer) bool {
	return func(c connector.Customer) bool { return c.ID == id }
}

func ownLink(id string) connector.Link {
	return connector.Link{Customer: id, Contact: contact.OwnID(id),
		StatedBy: connector.Key{Kind: connector.Customers, ID: id}, Roles: []connector.ERPRole{connector.CompanyRole}}
}

// dropCustomers takes customers off a page with all that came with them.
func dropCustomers(p *connector.Page, drop func(connector.Customer) bool) {
	gone := map[string]bool{}
	for _, c := range p.Customers {
		if drop(c) {
			gone[contact.OwnID(c.ID)] = true
		}
	}
	p.Customers = slices.DeleteFunc(p.Customers, drop)
	p.Contacts = slices.DeleteFunc(p.Contacts, func(c connector.Contact) bool { return gone[c.ID] })
	p.Links = slices.DeleteFunc(p.Links, func(l connector.Link) bool { return gone[l.Contact] })
}

func dropInactive(p *connector.Page) {
	dropCustomers(p, func(c connector.Customer) bool { return !c.Active })
}

// dropFirst takes the first customer off a page, or the first contact with what it states.
func dropFirst(p *connector.Page) {
	switch {
	case len(p.Customers) > 0:
		dropCustomers(p, named(p.Customers[0].ID))
	case len(p.Contacts) > 0:
		id := p.Contacts[0].ID
		p.Contacts = p.Contacts[1:]
		p.Links = slices.DeleteFunc(p.Links, func(l connector.Link) bool { return l.StatedBy.ID == id })
	case len(p.Links) > 0:
		p.Links = p.Links[1:]
	}
}

func dropBare(r *run) {
	bare := map[string]bool{}
	for _, c := range r.page.Contacts {
		bare[c.ID] = len(c.Channels) == 0
	}
	r.page.Contacts = slices.DeleteFunc(r.page.Contacts, func(c connector.Contact) bool { return bare[c.ID] })
	r.page.Links = slices.DeleteFunc(r.page.Links, func(l connector.Link) bool { return bare[l.Contact] })
}

func mails(change func(string) string) func(*run) {
	return func(r *run) {
		for _, c := range r.page.Contacts {
			for i := range c.Channels {
				c.Channels[i].Value = change(c.Channels[i].Value)
			}
		}
	}
}

// keepCleared merges what a record has now into what it had: a process that reads absent as unknown.
func keepCleared(inner connector.Source) *broken {
	return pages(func(r *run) {
		for i, c := range r.page.Contacts {
			if len(c.Channels) == 1 {
				missing := memory.Mail("kept@kelp.example")
				if c.Channels[0].Main {
					missing = memory.Phone("218 555 0100")
				}
				r.page.Contacts[i].Channels = append(c.Channels, missing)
			}
		}
	})(inner)
}

// offset reads everything each time and counts rows, as STARTPOSITION does; if so asked in the order of names and up to
// the number of rows there was at first.
func offset(byName bool) func(connector.Source) *broken {
	return func(inner connector.Source) *broken { return offsetOf(inner, byName) }
}

func offsetOf(inner connector.Source, byName bool) *broken {
	const size = 4
	total := 0
	b := &broken{Source: inner}
	b.pull = func(ctx context.Context, p connector.Pull) iter.Seq2[connector.Page, error] {
		if p.Since != "" {
			return inner.Pull(ctx, p)
		}
		return func(yield func(connector.Page, error) bool) {
			start := 0
			if _, err := fmt.Sscanf(string(p.Resume), "offset %d", &start); err != nil && p.Resume != "" {
				yield(connector.Page{}, &connector.Error{Kind: connector.Expired})
				return
			}
			for ; ; start += size {
				var rows []connector.Customer
				own := map[string]connector.Contact{}
				var end *connector.End
				for page, err := range inner.Pull(ctx, connector.Pull{}) {
					if err != nil {
						yield(connector.Page{}, err)
						return
					}
					rows = append(rows, page.Customers...)
					for _, c := range page.Contacts {
						own[c.ID] = c
					}
					end = page.End
				}
				if total == 0 {
					total = len(rows)
				}
				if byName {
					slices.SortFunc(rows, func(a, b connector.Customer) int { return strings.Compare(a.Name, b.Name) })
					rows = rows[:min(total, len(rows))]
				}
				page := connector.Page{Next: connector.Cursor(fmt.Sprintf("offset %d", start+size))}
				for _, c := range rows[min(start, len(rows)):min(start+size, len(rows))] {
					page.Customers = append(page.Customers, c)
					page.Contacts = append(page.Contacts, own[contact.OwnID(c.ID)])
					page.Links = append(page.Links, ownLink(c.ID))
				}
				if start+size >= len(rows) {
					page.End = end
				}
				if !yield(page, nil) || page.End != nil {
					return
				}
			}
		}
	}
	return b
}

// lateCursor ends with the cursor of a pull that begins when this one ends.
func lateCursor(inner connector.Source) *broken {
	return pages(func(r *run) {
		if r.page.End == nil {
			return
		}
		for page, err := range inner.Pull(context.Background(), connector.Pull{Since: r.page.End.Cursor}) {
			if err == nil && page.End != nil {
				end := *r.page.End
				end.Cursor = page.End.Cursor
				r.page.End = &end
			}
		}
	})(inner)
}

// inProcess keeps the real cursors to itself, so that another process does not understand its own.
func inProcess(inner connector.Source) *broken {
	kept := map[connector.Cursor]connector.Cursor{}
	b := &broken{Source: inner}
	b.pull = func(ctx context.Context, p connector.Pull) iter.Seq2[connector.Page, error] {
		return func(yield func(connector.Page, error) bool) {
			p.Resume = kept[p.Resume]
			for page, err := range inner.Pull(ctx, p) {
				mine := connector.Cursor(fmt.Sprintf("page %d", len(kept)+1))
				kept[mine] = page.Next
				page.Next = mine
				if !yield(page, err) {
					return
				}
			}
		}
	}
	return b
}

// anyCursor begins from the start where it understands nothing.
func anyCursor(inner connector.Source) *broken {
	b := &broken{Source: inner}
	b.pull = func(ctx context.Context, p connector.Pull) iter.Seq2[connector.Page, error] {
		return func(yield func(connector.Page, error) bool) {
			for page, err := range inner.Pull(ctx, p) {
				if connector.KindOf(err) == connector.Expired {
					inner.Pull(ctx, connector.Pull{})(yield)
					return
				}
				if !yield(page, err) {
					return
				}
			}
		}
	}
	return b
}

// endAtError takes an error for the end of what there is.
func endAtError(inner connector.Source) *broken {
	b := &broken{Source: inner}
	b.pull = func(ctx context.Context, p connector.Pull) iter.Seq2[connector.Page, error] {
		return func(yield func(connector.Page, error) bool) {
			for page, err := range inner.Pull(ctx, p) {
				if err != nil {
					page, err = connector.Page{End: &connector.End{Cursor: "1"}}, nil
				}
				if !yield(page, err) || page.End != nil {
					return
				}
			}
		}
	}
	return b
}

// retries asks again after every error.
func retries(inner connector.Source) *broken {
	b := &broken{Source: inner}
	b.pull = func(ctx context.Context, p connector.Pull) iter.Seq2[connector.Page, error] {
		return func(yield func(connector.Page, error) bool) {
			for tries := 0; ; tries++ {
				again := false
				for page, err := range inner.Pull(ctx, p) {
					if err != nil && tries < 3 {
						again = true
						break
					}
					if !yield(page, err) {
						return
					}
					p.Resume = page.Next
				}
				if !again {
					return
				}
			}
		}
	}
	return b
}

// uncancelled goes on whatever its context says. The request without an answer is given up, so that the test ends.
func uncancelled(inner connector.Source) *broken {
	b := &broken{Source: inner}
	b.pull = func(ctx context.Context, p connector.Pull) iter.Seq2[connector.Page, error] {
		return func(yield func(connector.Page, error) bool) {
			for page, err := range inner.Pull(ctx, p) {
				if errors.Is(err, context.Canceled) {
					inner.Pull(context.WithoutCancel(ctx), p)(yield)
					return
				}
				if !yield(page, err) {
					return
				}
				p.Resume = page.Next
			}
		}
	}
	return b
}

// ahead has asked for the next page when it hands one out.
func ahead(inner connector.Source) *broken {
	b := &broken{Source: inner}
	b.pull = func(ctx context.Context, p connector.Pull) iter.Seq2[connector.Page, error] {
		return func(yield func(connector.Page, error) bool) {
			next, stop := iter.Pull2(inner.Pull(ctx, p))
			defer stop()
			page, err, ok := next()
			for ok {
				var waiting connector.Page
				var problem error
				var more bool
				var fetched sync.WaitGroup
				fetched.Go(func() { waiting, problem, more = next() })
				fetched.Wait()
				if !yield(page, err) {
					return
				}
				page, err, ok = waiting, problem, more
			}
		}
	}
	return b
}

// goesOn reads to the end though nobody listens.
func goesOn(inner connector.Source) *broken {
	b := &broken{Source: inner}
	b.pull = func(ctx context.Context, p connector.Pull) iter.Seq2[connector.Page, error] {
		return func(yield func(connector.Page, error) bool) {
			wanted := true
			for page, err := range inner.Pull(ctx, p) {
				wanted = wanted && yield(page, err)
			}
		}
	}
	return b
}

// remembers answers one customer with the addresses of an earlier day.
func remembers(inner connector.Source) *broken {
	return customers(func(_ string, p *connector.Page) {
		for i := range p.Contacts {
			for j := range p.Contacts[i].Channels {
				p.Contacts[i].Channels[j].Value = "before." + p.Contacts[i].Channels[j].Value
			}
		}
	})(inner)
}

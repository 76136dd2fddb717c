package connectortest

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/centime/contactsync/internal/connector"
)

// old is longer than any connector reads again to be sure.
const old = 72 * time.Hour

func checks(s *side) {
	c, err := s.open().Check(context.Background())
	if err != nil {
		s.Fatalf("check: %v", err)
	}
	if c.Account != s.features.Account || c.Company == "" {
		s.Errorf("check answers account %q of company %q, want account %q", c.Account, c.Company, s.features.Account)
	}
	for _, r := range c.Rights {
		if r.Name == "" || !r.Readable && r.Needed && r.Fix == "" {
			s.Errorf("a right has no name, or is missing and nothing says what to do: %+v", r)
		}
	}
}

func complete(s *side) {
	s.fill(false)
	s.completeNow()
}

func (s *side) completeNow() connector.End {
	s.Helper()
	m := newMirror()
	end := s.full(m)
	s.agree(m, true)
	if m.pages < 3 {
		s.Fatalf("the records fill %d pages, so the suite shows little: correct Features.PageSize", m.pages)
	}
	for k, n := range m.named {
		if n != 1 {
			s.Errorf("the %s %s was named %d times", k.Kind, k.ID, n)
		}
	}
	s.lists(end, s.features.Lists)
	if len(m.bad) > 0 || len(m.claims) > 0 {
		s.Errorf("%d records are said to be bad and %d deleted, which are not", len(m.bad), len(m.claims))
	}
	return end
}

func (s *side) lists(end connector.End, want []connector.Kind) {
	s.Helper()
	got, want := slices.Sorted(slices.Values(end.Listed)), slices.Sorted(slices.Values(want))
	if !slices.Equal(got, want) {
		s.Errorf("Listed is %v, want %v", got, want)
	}
}

func sameSecond(s *side) {
	s.fill(true)
	end := s.completeNow()
	m := newMirror()
	s.full(m)
	s.harness.Pass(old)
	s.touchMost()
	s.pull(m, connector.Pull{Since: end.Cursor}, func(int) bool { return true })
	s.agree(m, true)
}

func ownContact(s *side) {
	bare := s.put(Record{Kind: connector.Customers, Name: "Bare Quarry"})
	s.put(Record{Kind: connector.Customers, Name: "Phone Quarry", Phone: "218 555 0100"})
	s.inactivate(s.put(Record{Kind: connector.Customers, Name: "Closed Quarry"}))
	m := newMirror()
	end := s.full(m)
	s.agree(m, true)
	s.edit(bare, func(r *Record) { r.Mail = "office@quarry.example" })
	s.since(m, end.Cursor)
	s.agree(m, true)
}

func parent(s *side) {
	top := s.add(connector.Customers)
	r := s.invent(connector.Customers)
	r.Parent = top.ID
	s.put(r)
	m := newMirror()
	s.full(m)
	s.agree(m, true)
}

func cleared(s *side) {
	m := newMirror()
	var keys []connector.Key
	for _, kind := range s.kinds() {
		keys = append(keys, s.add(kind), s.add(kind))
	}
	end := s.full(m)
	for i, k := range keys {
		s.edit(k, func(r *Record) {
			if i%2 == 0 {
				r.Mail = ""
			} else {
				r.Phone = ""
			}
		})
	}
	s.since(m, end.Cursor)
	s.agree(m, true)
}

func severalAddresses(s *side) {
	for _, kind := range s.kinds() {
		for _, mail := range []string{"a@kelp.example, b@kelp.example", "c@kelp.example;d@kelp.example", "see notes"} {
			r := s.invent(kind)
			r.Mail = mail
			s.put(r)
		}
	}
	m := newMirror()
	s.full(m)
	s.agree(m, true)
}

func rawText(s *side) {
	for _, kind := range s.kinds() {
		r := s.invent(kind)
		r.Name = string(kind) + " Vale\xed\xa0\xbd" // half of an emoji
		r.Mail = "vale\x00@kelp.example"
		s.put(r)
	}
	m := newMirror()
	s.full(m)
	s.agree(m, true)
}

func resume(s *side) {
	s.fill(false)
	var pages []connector.Page
	var all int
	s.read(connector.Pull{}, func(p connector.Page) bool {
		pages = append(pages, p)
		all += len(p.Customers) + len(p.Contacts)
		return true
	})
	for k := range pages[:len(pages)-1] {
		m := newMirror()
		for _, p := range pages[:k+1] {
			m.save(p)
		}
		read := len(m.named) > 0 // the first pages may only find out what can be read
		rest := 0
		s.read(connector.Pull{Resume: pages[k].Next}, func(p connector.Page) bool {
			m.save(p)
			rest += len(p.Customers) + len(p.Contacts)
			if p.End != nil {
				s.lists(*p.End, s.features.Lists)
				m.finish(*p.End)
			}
			return true
		})
		s.agree(m, true)
		if read && rest >= all {
			s.Errorf("resumed after page %d, the pull begins from the start", k+1)
		}
	}
}

func resumeLater(s *side) {
	s.fill(false)
	m := newMirror()
	s.full(m)
	for k, pages := 1, m.pages; k < pages; k++ {
		end := s.pull(m, connector.Pull{}, func(page int) bool {
			if page == k {
				s.harness.Pass(6 * time.Hour)
				s.disturb()
				s.harness.Pass(time.Hour)
			}
			return page == k
		})
		s.since(m, end.Cursor)
		s.agree(m, false)
	}
}

func resumeIncremental(s *side) {
	s.fill(false)
	m := newMirror()
	end := s.full(m)
	for k, pages := 1, m.pages; k < pages; k++ {
		s.harness.Pass(old)
		s.touchMost()
		end = s.pull(m, connector.Pull{Since: end.Cursor}, func(page int) bool {
			if page == k {
				s.harness.Pass(6 * time.Hour)
				s.disturb()
			}
			return page == k
		})
		end = s.since(m, end.Cursor)
		s.agree(m, false)
	}
}

func duringPull(s *side) {
	s.fill(false)
	s.harness.Pass(old)
	m := newMirror()
	disturb := func(page int) bool {
		if page <= 2 {
			s.disturb()
		}
		return false
	}
	end := s.pull(m, connector.Pull{}, disturb)
	end = s.since(m, end.Cursor)
	s.agree(m, false)

	s.harness.Pass(old)
	s.touchMost()
	end = s.pull(m, connector.Pull{Since: end.Cursor}, disturb)
	s.since(m, end.Cursor)
	s.agree(m, false)
}

func incremental(s *side) {
	for _, kind := range s.kinds() {
		for range 3 {
			s.add(kind)
		}
	}
	m := newMirror()
	end := s.full(m)
	for _, kind := range s.kinds() {
		k := s.held(kind)[1]
		for _, change := range []func(connector.Key){
			s.touch, s.rename, s.inactivate, s.reactivate, func(connector.Key) { s.add(kind) },
		} {
			change(k)
			end = s.since(m, end.Cursor)
			s.agree(m, false)
			s.harness.Pass(time.Second)
		}
	}
}

func idle(s *side) {
	s.fill(false)
	m := newMirror()
	s.harness.Pass(old)
	end := s.full(m)
	for range 3 {
		end = s.since(m, end.Cursor)
		if len(m.named) > 0 {
			s.Errorf("an incremental pull names %d records of which none changed", len(m.named))
		}
		s.agree(m, true)
		s.harness.Pass(time.Hour)
	}
}

func attached(s *side) {
	north, south := s.add(connector.Customers), s.add(connector.Customers)
	ann, bea := s.add(connector.Contacts), s.add(connector.Contacts)
	r := s.invent(connector.Contacts)
	r.Company = north.ID
	cleo := s.put(r)
	s.attach(north, ann, 0)
	s.attach(south, ann, 1)
	m := newMirror()
	end := s.full(m)
	s.agree(m, true)
	for _, change := range []func(){
		func() { s.attach(north, bea, 1) },
		func() { s.attach(north, ann, 1) },
		func() { s.attach(north, cleo, 0) }, // the link's role holds, whatever cleo's record states
		func() { s.detach(south, ann) },
		func() { s.detach(north, bea) },
	} {
		change()
		end = s.since(m, end.Cursor)
		s.agree(m, true)
		s.harness.Pass(time.Second)
	}
	s.full(m)
	s.agree(m, true)
}

func removed(s *side) {
	s.fill(false)
	m := newMirror()
	end := s.full(m)
	var gone []connector.Key
	for _, kind := range s.kinds() {
		keys := s.held(kind)
		gone = append(gone, keys[0], keys[len(keys)/2], keys[len(keys)-1])
	}
	for _, k := range gone {
		s.remove(k)
	}
	s.since(m, end.Cursor)
	s.agree(m, false)
	for _, k := range m.claims {
		if s.records[k] != nil {
			s.Errorf("the %s %s is claimed to be deleted, and is not", k.Kind, k.ID)
		}
	}
	end = s.full(m)
	s.lists(end, s.features.Lists)
	for _, k := range gone {
		if m.named[k] > 0 {
			s.Errorf("the %s %s is still named, and it is gone", k.Kind, k.ID)
		}
		if !slices.Contains(end.Listed, k.Kind) && !s.features.Lookup {
			s.Errorf("nothing tells that a %s is gone", k.Kind)
		}
	}
	if !s.features.Lookup {
		return
	}
	page, err := s.open().Lookup(context.Background(), gone)
	if err != nil {
		s.Fatalf("lookup: %v", err)
	}
	if len(page.Customers)+len(page.Contacts)+len(page.Links) > 0 {
		s.Errorf("a lookup finds %d customers and %d contacts that are gone", len(page.Customers), len(page.Contacts))
	}
}

func vanishing(s *side) {
	s.fill(false)
	m := newMirror()
	s.full(m)
	end := s.pull(m, connector.Pull{}, func(page int) bool {
		for _, kind := range s.kinds() {
			if keys := s.held(kind); page <= 3 {
				s.remove(keys[0])
				s.remove(keys[len(keys)-1])
			}
		}
		return false
	})
	s.since(m, end.Cursor)
	s.agree(m, false)
}

func joining(s *side) {
	s.fill(false)
	m := newMirror()
	s.full(m)
	end := s.pull(m, connector.Pull{}, func(page int) bool {
		for _, kind := range s.kinds() {
			if page <= 3 {
				k := s.add(kind)
				s.rename(k) // in front of all the others, where names make the order
			}
		}
		return false
	})
	s.since(m, end.Cursor)
	s.agree(m, true)
}

func inactive(s *side) {
	s.fill(false)
	s.harness.Pass(old)
	m := newMirror()
	end := s.full(m)
	var keys []connector.Key
	for _, kind := range s.kinds() {
		keys = append(keys, s.held(kind)[0])
	}
	for _, k := range keys {
		s.inactivate(k)
	}
	s.since(m, end.Cursor)
	s.agree(m, true)
	s.full(m)
	s.agree(m, true)
	if s.features.Lookup {
		s.look(keys)
	}
}

// look looks up records that are there, and compares them.
func (s *side) look(keys []connector.Key) *mirror {
	s.Helper()
	page, err := s.open().Lookup(context.Background(), keys)
	if err != nil {
		s.Fatalf("lookup: %v", err)
	}
	s.inspect(page)
	if page.End != nil || page.Next != "" {
		s.Errorf("a lookup answers with an End or Next")
	}
	m := newMirror()
	m.save(page)
	for _, k := range keys {
		if want := s.records[k]; want != nil {
			s.same(m, k, want)
		}
	}
	for k := range m.named {
		if !slices.Contains(keys, k) || s.records[k] == nil {
			s.Errorf("a lookup answers the %s %s, which was not asked for or is not there", k.Kind, k.ID)
		}
	}
	return m
}

// spoil damages the first record of each kind.
func (s *side) spoil(d Damage) []connector.Key {
	var keys []connector.Key
	for _, kind := range s.kinds() {
		k := s.held(kind)[0]
		s.harness.Spoil(k, d)
		keys = append(keys, k)
	}
	return keys
}

func badField(s *side) {
	s.fill(false)
	m := newMirror()
	s.full(m)
	keys := s.spoil(NotText)
	for _, k := range keys {
		s.records[k].Mail = ""
	}
	end := s.full(m)
	s.lists(end, s.features.Lists)
	s.agree(m, true)
	for _, k := range keys {
		if !slices.ContainsFunc(m.bad, func(b connector.Bad) bool { return b.Key == k }) {
			s.Errorf("the main address of the %s %s is no text, and nothing reports it", k.Kind, k.ID)
		}
	}
}

func badRecord(s *side) {
	s.fill(false)
	m := newMirror()
	s.full(m)
	keys := s.spoil(Unreadable)
	end := s.full(m)
	s.lists(end, s.features.Lists)
	s.agree(m, true)
	for _, k := range keys {
		if !slices.ContainsFunc(m.bad, func(b connector.Bad) bool { return b.Key == k }) {
			s.Errorf("the %s %s cannot be read, and nothing reports it", k.Kind, k.ID)
		}
	}
}

func badID(s *side) {
	s.fill(false)
	m := newMirror()
	s.full(m)
	keys := s.spoil(NoID)
	for _, resumed := range []bool{false, true} {
		end := s.pull(m, connector.Pull{}, func(int) bool { return resumed })
		s.agree(m, true)
		for _, k := range keys {
			if slices.Contains(end.Listed, k.Kind) {
				s.Errorf("a %s had no id, and the pull (resumed: %t) claims to have named them all", k.Kind, resumed)
			}
			if !slices.ContainsFunc(m.bad, func(b connector.Bad) bool { return b.Key == connector.Key{Kind: k.Kind} }) {
				s.Errorf("a %s has no id, and nothing reports it", k.Kind)
			}
		}
	}
}

func lookup(s *side) {
	s.fill(false)
	var keys []connector.Key
	for _, kind := range s.kinds() {
		held := s.held(kind)
		keys = append(keys, held[:min(len(held), connector.LookupMax/4)]...)
		for _, id := range []string{"no'such", `\`, "%", "1 OR 1=1", "Ünknown"} {
			keys = append(keys, connector.Key{Kind: kind, ID: id})
		}
	}
	if !s.features.Lookup {
		if _, err := s.open().Lookup(context.Background(), keys[:1]); !errors.Is(err, errors.ErrUnsupported) {
			s.Errorf("a lookup, which this ERP has not, answers %v", err)
		}
		return
	}
	s.look(keys[:1])
	for i := 0; len(keys) < connector.LookupMax; i++ {
		keys = append(keys, connector.Key{Kind: connector.Customers, ID: fmt.Sprintf("98765432%04d", i)})
	}
	s.look(keys)
	if s.features.Contacts {
		s.lookAtRows()
	}
}

// lookAtRows looks up contacts' places by both of their ids: who has several, several at one, one that went, one that never was.
func (s *side) lookAtRows() {
	s.Helper()
	customers, people := s.held(connector.Customers), s.held(connector.Contacts)
	wanted := map[string]connector.ERPRole{}
	at := func(customer, person connector.Key, role int) {
		s.attach(customer, person, role)
		wanted[connector.LinkID(customer.ID, person.ID)] = s.features.Roles[role]
	}
	for i := range 4 {
		at(customers[i], people[1], i%2)
		at(customers[0], people[i+2], i%2)
	}
	keys := []connector.Key{{Kind: connector.Links, ID: connector.LinkID(customers[1].ID, people[2].ID)}, customers[2]}
	for id := range wanted {
		keys = append(keys, connector.Key{Kind: connector.Links, ID: id})
	}
	s.detach(customers[3], people[1])
	delete(wanted, connector.LinkID(customers[3].ID, people[1].ID))
	for _, id := range []string{"", "/", "1 OR 1=1/1", customers[0].ID + "/", "/" + people[1].ID, people[1].ID} {
		keys = append(keys, connector.Key{Kind: connector.Links, ID: id})
	}
	page, err := s.open().Lookup(context.Background(), keys)
	if err != nil {
		s.Fatalf("lookup of places: %v", err)
	}
	s.inspect(page)
	for _, l := range page.Links {
		if l.StatedBy != (connector.Key{}) {
			continue
		}
		id := connector.LinkID(l.Customer, l.Contact)
		role, ok := wanted[id]
		if !ok || len(l.Roles) != 1 || l.Roles[0].Key != role.Key {
			s.Errorf("a lookup answers the place %s with the roles %v, want %q (asked for: %t)", id, l.Roles, role.Key, ok)
		}
		delete(wanted, id)
	}
	if len(wanted) > 0 {
		s.Errorf("a lookup misses the places %v", slices.Sorted(maps.Keys(wanted)))
	}
	if len(page.Customers) != 1 || len(page.Contacts) != 1 {
		s.Errorf("a lookup of one customer and of places answers %d customers and %d contacts", len(page.Customers), len(page.Contacts))
	}
}

func oneCustomer(s *side) {
	s.fill(false)
	customers := s.held(connector.Customers)
	if !s.features.Lookup {
		if _, err := s.open().Customer(context.Background(), customers[0].ID); !errors.Is(err, errors.ErrUnsupported) {
			s.Errorf("one customer, which this ERP cannot be asked for, answers %v", err)
		}
		return
	}
	whole := s.wholeCustomer
	active, last := customers[0], customers[len(customers)-1]
	whole(active)
	whole(customers[3]) // an inactive one
	whole(last)
	s.touch(active) // in the second of what was read before
	whole(active)
	if s.features.Contacts {
		ann, bea := s.add(connector.Contacts), s.add(connector.Contacts)
		r := s.invent(connector.Contacts)
		r.Company = active.ID
		cleo := s.put(r)
		s.attach(active, ann, 0)
		s.attach(active, bea, 1)
		s.attach(last, bea, 0)
		s.inactivate(bea)
		whole(active)
		s.attach(active, ann, 1)
		s.attach(active, cleo, 0)
		s.touch(cleo)
		whole(active)
		s.detach(active, bea)
		whole(active)
		whole(last)
	}
	s.inactivate(active)
	whole(active)
	for _, id := range []string{"987654321", "", "no'such", `\`, "%", "1 OR 1=1", "Ünknown"} {
		page, err := s.open().Customer(context.Background(), id)
		if err != nil || len(page.Customers)+len(page.Contacts)+len(page.Links)+len(page.Bad) > 0 {
			s.Errorf("the customer %q, who is not there, answers %d customers, %v", id, len(page.Customers), err)
		}
	}
	if s.features.Removes {
		s.remove(last)
		if page, err := s.open().Customer(context.Background(), last.ID); err != nil || len(page.Customers) > 0 {
			s.Errorf("the customer %s, who is gone, answers %d customers, %v", last.ID, len(page.Customers), err)
		}
	}
}

// wholeCustomer asks for one customer and compares it with all that is at it.
func (s *side) wholeCustomer(k connector.Key) {
	s.Helper()
	page, err := s.open().Customer(context.Background(), k.ID)
	if err != nil {
		s.Fatalf("customer: %v", err)
	}
	s.inspect(page)
	if page.End != nil || page.Next != "" || len(page.Deleted) > 0 {
		s.Errorf("one customer comes with an End, a Next or deletions")
	}
	m := newMirror()
	m.save(page)
	s.same(m, k, s.records[k])
	for p, role := range s.links {
		if p.customer != k.ID {
			continue
		}
		person := connector.Key{Kind: connector.Contacts, ID: p.contact}
		s.same(m, person, s.records[person])
		if got, ok := m.role(p); !ok || got.Key != role.Key {
			s.Errorf("contact %s has at customer %s the role %q (attached: %t), want %q", p.contact, p.customer, got.Key, ok, role.Key)
		}
	}
	for named := range m.named {
		_, here := s.links[place{k.ID, named.ID}]
		if named.Kind == connector.Links { // something is wrong with it; where it is, is looked at below
			_, here = m.rows[link{customer: k.ID, contact: strings.TrimPrefix(named.ID, connector.LinkID(k.ID, ""))}]
		}
		if named != k && !here {
			s.Errorf("the %s %s comes with customer %s and is not at it", named.Kind, named.ID, k.ID)
		}
	}
	for l := range m.rows {
		if _, here := s.links[place{l.customer, l.contact}]; !here || l.customer != k.ID {
			s.Errorf("the link %s/%s comes with customer %s", l.customer, l.contact, k.ID)
		}
	}
}

func foreignCursor(s *side) {
	s.fill(false)
	for _, c := range []connector.Cursor{"x", "{}", "[]", "null", "7", `{"v":99999}`, `{"version":99999}`, "\x00"} {
		for _, p := range []connector.Pull{{Since: c}, {Resume: c}} {
			err := s.readFrom(context.Background(), s.open(), p, nil)
			if err == nil || connector.KindOf(err) != connector.Expired {
				s.Errorf("pull %+v answers %v, want an expired error", p, err)
			}
		}
	}
}

// fails plays a fault in the middle of a pull, at its start, in a lookup and in a check. A fault that does not stay
// leaves a pull that can be resumed.
func fails(fault Fault, kind connector.ErrorKind) func(*side) {
	stays := fault == Revoke || fault == Misconfigure
	return func(s *side) {
		ctx := context.Background()
		s.fill(false)
		m := newMirror()
		var p connector.Pull
		expect := func(step string, err error) {
			s.Helper()
			if err == nil {
				s.Errorf("%s: the fault %q is swallowed", step, fault)
				return
			}
			s.classified(step, err, kind)
		}

		broken := false
		err := s.readFrom(ctx, s.open(), p, func(page connector.Page) bool {
			m.save(page)
			p.Resume = page.Next
			if page.End != nil {
				s.Errorf("a pull ends in spite of the fault %q", fault)
			}
			if !broken {
				broken = true
				s.harness.Fail(fault)
			}
			return true
		})
		expect("second page", err)
		if !stays {
			s.read(p, func(page connector.Page) bool {
				m.save(page)
				return true
			})
			s.agree(m, true)
		}

		s.harness.Fail(fault)
		expect("first page", s.readFrom(ctx, s.open(), connector.Pull{}, func(connector.Page) bool { return true }))
		if s.features.Lookup {
			s.harness.Fail(fault)
			_, err := s.open().Lookup(ctx, s.held(connector.Customers)[:1])
			expect("lookup", err)
			s.harness.Fail(fault)
			_, err = s.open().Customer(ctx, s.held(connector.Customers)[0].ID)
			expect("one customer", err)
		}
		if s.features.Calls {
			s.harness.Fail(fault)
			_, err := s.open().Check(ctx)
			expect("check", err)
		}
	}
}

// classified checks an error as a caller and a reader need it.
func (s *side) classified(step string, err error, kind connector.ErrorKind) {
	s.Helper()
	if got := connector.KindOf(err); got != kind {
		s.Errorf("%s: the error is %s, want %s: %v", step, got, kind, err)
	}
	s.discreet(err)
	e, ok := errors.AsType[*connector.Error](err)
	switch {
	case !ok && kind != connector.Transient:
		s.Errorf("%s: the error is no connector.Error: %v", step, err)
	case kind == connector.Throttled && (e.RetryAfter <= 0 || s.features.Waits && e.RetryAfter < Wait):
		s.Errorf("%s: RetryAfter is %s", step, e.RetryAfter)
	case (kind == connector.Denied || kind == connector.Misconfigured) && e.Hint == "":
		s.Errorf("%s: a person must act, and no Hint says how", step)
	}
}

func cancelled(s *side) {
	s.fill(false)
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	sent := 0
	stopped := func(step string, err error) {
		s.Helper()
		if !errors.Is(err, context.Canceled) || connector.KindOf(err) != "" {
			s.Errorf("%s: cancelled, it answers %v", step, err)
		}
		if n := len(s.harness.Requests()); n != sent {
			s.Errorf("%s: cancelled, it sends %d more requests", step, n-sent)
		}
	}
	stopped("second page", s.readFrom(ctx, s.open(), connector.Pull{}, func(connector.Page) bool {
		cancel()
		sent = len(s.harness.Requests())
		return true
	}))
	stopped("first page", s.readFrom(ctx, s.open(), connector.Pull{}, nil))
	if s.features.Lookup {
		_, err := s.open().Lookup(ctx, s.held(connector.Customers)[:1])
		stopped("lookup", err)
		_, err = s.open().Customer(ctx, s.held(connector.Customers)[0].ID)
		stopped("one customer", err)
	}
	if s.features.Calls {
		_, err := s.open().Check(ctx)
		stopped("check", err)
	}
}

func cancelledInFlight(s *side) {
	s.fill(false)
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	arrived, done := s.harness.Hang(), make(chan error, 1)
	source := s.open()
	go func() {
		for _, err := range source.Pull(ctx, connector.Pull{}) {
			done <- err
			return
		}
		done <- nil
	}()
	limit := time.After(time.Minute) // reached by a Source that is broken only
	select {
	case <-arrived:
	case err := <-done:
		s.Fatalf("the pull ends without the request that gets no answer: %v", err)
	case <-limit:
		s.Fatalf("no request arrives")
	}
	cancel()
	select {
	case err := <-done:
		if !errors.Is(err, context.Canceled) || connector.KindOf(err) != "" {
			s.Errorf("cancelled, the pull answers %v", err)
		}
	case <-limit:
		s.Fatalf("cancelled, the pull goes on waiting for its answer")
	}
}

func left(s *side) {
	s.fill(false)
	before := 0
	s.read(connector.Pull{}, func(connector.Page) bool {
		n := len(s.harness.Requests())
		if n == before {
			s.Errorf("a page comes without a request of its own: it was fetched ahead")
		}
		before = n
		return true
	})

	// A round trip tells what has been sent by then: of those who fetch ahead, more than itself.
	round := func() int {
		s.Helper()
		before := len(s.harness.Requests())
		if _, err := s.open().Check(context.Background()); err != nil {
			s.Fatalf("check: %v", err)
		}
		return len(s.harness.Requests()) - before
	}
	alone := round()
	var arrived int
	s.read(connector.Pull{}, func(connector.Page) bool {
		if n := round(); n != alone {
			s.Errorf("a pull fetches ahead: %d requests during the first page", n-alone)
		}
		arrived = len(s.harness.Requests())
		return false
	})
	if n := len(s.harness.Requests()) - arrived; n != 0 {
		s.Errorf("a pull whose loop was left sends %d more requests", n)
	}
	if n := round(); n != alone {
		s.Errorf("a pull whose loop was left sends %d more requests", n-alone)
	}
}

func called(s *side) {
	s.fill(false)
	ctx := context.Background()
	var count, over int
	var refusal error
	source := s.harness.Open(func(context.Context) (func(), error) {
		count++
		return func() { over++ }, refusal
	})
	before := len(s.harness.Requests())
	ask := func() (errs []error) {
		errs = append(errs, s.readFrom(ctx, source, connector.Pull{}, nil))
		_, err := source.Check(ctx)
		errs = append(errs, err)
		if s.features.Lookup {
			_, err = source.Lookup(ctx, s.held(connector.Customers)[:1])
			errs = append(errs, err)
			_, err = source.Customer(ctx, s.held(connector.Customers)[0].ID)
			errs = append(errs, err)
		}
		return errs
	}
	if err := errors.Join(ask()...); err != nil {
		s.Fatalf("pull, check, lookup and one customer: %v", err)
	}
	sent := len(s.harness.Requests())
	if sent-before != count {
		s.Errorf("%d requests were sent, %d were counted", sent-before, count)
	}
	if over != count {
		s.Errorf("of %d requests %d were said to be over", count, over)
	}
	refusal = errors.New("the budget is spent")
	for _, err := range ask() {
		if !errors.Is(err, refusal) {
			s.Errorf("a refused request answers %v", err)
		}
	}
	if n := len(s.harness.Requests()); n != sent {
		s.Errorf("%d requests were sent that were refused", n-sent)
	}
}

// readOnly does everything once; what every case looks for is in testCase.run.
func readOnly(s *side) {
	s.fill(false)
	if _, err := s.open().Check(context.Background()); err != nil {
		s.Fatalf("check: %v", err)
	}
	m := newMirror()
	end := s.full(m)
	s.touchMost()
	s.since(m, end.Cursor)
	if s.features.Lookup {
		s.look(s.held(connector.Customers)[:1])
		s.wholeCustomer(s.held(connector.Customers)[0])
	}
	if len(s.harness.Requests()) == 0 {
		s.Errorf("the harness logged no request, so it would not have logged a write")
	}
}

package connectortest

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/centime/contactsync/internal/connector"
	"github.com/centime/contactsync/internal/contact"
)

// A side is the far side as a case sees it: the harness, and what it was told to hold.
type side struct {
	reporter
	harness  Harness
	features Features
	records  map[connector.Key]*held
	links    map[place]connector.ERPRole
	serial   int
}

// A reporter is what a side needs of a testing.TB, or of a property's test.
type reporter interface {
	Helper()
	Errorf(format string, args ...any)
	Fatalf(format string, args ...any)
}

// held is a record as the ERP holds it now.
type held struct {
	Record
	serial   int // in order of adding
	inactive bool
}

// place is a contact's place at a customer.
type place struct{ customer, contact string }

func newSide(r reporter, h Harness) *side {
	return &side{reporter: r, harness: h, features: h.Features(),
		records: map[connector.Key]*held{}, links: map[place]connector.ERPRole{}}
}

// kinds is the kinds of record that can be added.
func (s *side) kinds() []connector.Kind {
	if s.features.Contacts {
		return []connector.Kind{connector.Customers, connector.Contacts}
	}
	return []connector.Kind{connector.Customers}
}

// invent makes up a record unlike any other.
func (s *side) invent(kind connector.Kind) Record {
	s.serial++
	return Record{Kind: kind, Name: fmt.Sprintf("Odile Thorne%d", s.serial),
		Mail:  fmt.Sprintf("odile%d@thorne.example", s.serial),
		Phone: fmt.Sprintf("+1 218 555 %04d", s.serial)}
}

func (s *side) put(r Record) connector.Key {
	k := connector.Key{Kind: r.Kind, ID: s.harness.Add(r)}
	if k.ID == "" || s.records[k] != nil {
		s.Fatalf("the harness gave a new %s no id of its own", r.Kind)
	}
	s.serial++
	s.records[k] = &held{Record: r, serial: s.serial}
	if r.Company != "" {
		s.links[place{r.Company, k.ID}] = connector.ERPRole{}
	}
	return k
}

func (s *side) add(kind connector.Kind) connector.Key { return s.put(s.invent(kind)) }

func (s *side) edit(k connector.Key, edit func(*Record)) {
	r := &s.records[k].Record
	edit(r)
	s.harness.Edit(k, *r)
}

// touch gives a record another address; rename another name, which moves it in an ERP that sorts by name.
func (s *side) touch(k connector.Key) { s.edit(k, func(r *Record) { r.Mail = s.invent(k.Kind).Mail }) }
func (s *side) rename(k connector.Key) {
	s.edit(k, func(r *Record) { r.Name = "A" + s.invent(k.Kind).Name })
}

func (s *side) inactivate(k connector.Key) {
	s.records[k].inactive = true
	s.harness.Inactivate(k)
}

func (s *side) reactivate(k connector.Key) {
	s.records[k].inactive = false
	s.harness.Reactivate(k)
}

func (s *side) toggle(k connector.Key) {
	if s.records[k].inactive {
		s.reactivate(k)
	} else {
		s.inactivate(k)
	}
}

// remove is inactivate where the ERP keeps every record.
func (s *side) remove(k connector.Key) {
	if !s.features.Removes {
		s.inactivate(k)
		return
	}
	delete(s.records, k)
	for p := range s.links {
		if k.Kind == connector.Customers && p.customer == k.ID || k.Kind == connector.Contacts && p.contact == k.ID {
			delete(s.links, p)
		}
	}
	s.harness.Remove(k)
}

func (s *side) attach(customer, contact connector.Key, role int) {
	s.links[place{customer.ID, contact.ID}] = s.features.Roles[role]
	s.harness.Attach(customer.ID, contact.ID, s.features.Roles[role])
}

func (s *side) detach(customer, contact connector.Key) {
	delete(s.links, place{customer.ID, contact.ID})
	s.harness.Detach(customer.ID, contact.ID)
}

// fill adds what takes more than two pages of each kind, some of it inactive. A second has a few records, not a page
// full; with oneSecond all share it.
func (s *side) fill(oneSecond bool) {
	keys := map[connector.Kind][]connector.Key{}
	size := s.features.PageSize
	for i := range 2*size + size/2 + 1 {
		for _, kind := range s.kinds() {
			k := s.add(kind)
			if keys[kind] = append(keys[kind], k); i%5 == 3 {
				s.inactivate(k)
			}
			if kind == connector.Contacts && i%3 == 0 {
				s.attach(keys[connector.Customers][i/2], k, i%2)
			}
		}
		if !oneSecond && i%3 == 2 {
			s.harness.Pass(time.Second)
		}
	}
}

// held is the records of a kind in order of adding.
func (s *side) held(kind connector.Kind) []connector.Key {
	var keys []connector.Key
	for k := range s.records {
		if k.Kind == kind {
			keys = append(keys, k)
		}
	}
	slices.SortFunc(keys, func(a, b connector.Key) int { return s.records[a].serial - s.records[b].serial })
	return keys
}

// touchMost changes four records of five, which still fill more than a page.
func (s *side) touchMost() {
	for _, kind := range s.kinds() {
		for i, k := range s.held(kind) {
			if i%5 != 4 {
				s.touch(k)
			}
		}
	}
}

// disturb changes records near both ends, those that a pull has read and those it has not: it edits, renames,
// deactivates, reactivates, removes, adds and attaches.
func (s *side) disturb() {
	for _, kind := range s.kinds() {
		keys := s.held(kind)
		last := len(keys) - 1
		for _, i := range []int{0, last} {
			s.touch(keys[i])
		}
		for _, i := range []int{1, last - 1} {
			s.rename(keys[i])
		}
		for _, i := range []int{2, last - 2} {
			s.toggle(keys[i])
		}
		for _, i := range []int{3, last - 3} {
			s.remove(keys[i])
		}
		for range 2 {
			k := s.add(kind)
			if kind == connector.Contacts {
				s.attach(s.held(connector.Customers)[0], k, 0)
			}
		}
	}
}

func (s *side) open() connector.Source { return s.harness.Open(nil) }

// read pulls with a Source of its own and hands each page to each, until the end or each says no. Each page is checked.
func (s *side) read(p connector.Pull, each func(page connector.Page) bool) {
	s.Helper()
	if err := s.readFrom(context.Background(), s.open(), p, each); err != nil {
		s.Fatalf("pull: %v", err)
	}
}

func (s *side) readFrom(
	ctx context.Context, source connector.Source, p connector.Pull, each func(page connector.Page) bool,
) error {
	s.Helper()
	ended, left := false, false
	for page, err := range source.Pull(ctx, p) {
		if ended {
			s.Fatalf("the pull goes on after its End or its error")
		}
		if err != nil {
			if page.End != nil {
				s.Errorf("an End comes with the error %q", err)
			}
			return err
		}
		s.inspect(page)
		if page.End == nil && page.Next == "" {
			s.Errorf("a page has neither Next nor End: nobody can go on from it")
		}
		ended = page.End != nil
		if each != nil && !each(page) {
			left = true
			break
		}
	}
	if !ended && !left {
		s.Fatalf("the pull stops with neither an error nor an End: a cut pull that nobody notices")
	}
	return nil
}

// full and since pull everything, or what changed, into a mirror.
func (s *side) full(m *mirror) connector.End { return s.pull(m, connector.Pull{}, nil) }

func (s *side) since(m *mirror, c connector.Cursor) connector.End {
	return s.pull(m, connector.Pull{Since: c}, nil)
}

// pull saves all pages into a mirror. After each page but the last, between is called with its number, if it is not
// nil: the ERP changes under the pull's feet. If it answers true, the pull is left there and resumed by a fresh Source.
func (s *side) pull(m *mirror, p connector.Pull, between func(page int) (resume bool)) connector.End {
	s.Helper()
	m.begin()
	var end *connector.End
	for n := 0; end == nil; {
		if n > 10*len(s.records)+100 {
			s.Fatalf("the pull does not end")
		}
		s.read(p, func(page connector.Page) bool {
			n++
			m.save(page)
			p.Resume, end = page.Next, page.End
			return end != nil || between == nil || !between(n)
		})
	}
	s.inspectEnd(*end)
	m.finish(*end)
	return *end
}

func (s *side) inspectEnd(e connector.End) {
	s.Helper()
	for i, k := range e.Listed {
		known := k == connector.Customers || s.features.Contacts && (k == connector.Contacts || k == connector.Links)
		if !known || slices.Contains(e.Listed[:i], k) {
			s.Errorf("Listed is %v: a kind twice, or one that this ERP has no records of", e.Listed)
		}
	}
	if e.Cursor == "" {
		s.Errorf("End has no Cursor: the next run would begin from the start")
	}
}

// inspect checks what holds of every page by itself.
func (s *side) inspect(page connector.Page) {
	s.Helper()
	onPage := map[connector.Key]bool{}
	once := func(k connector.Key) {
		s.Helper()
		if k.ID == "" {
			s.Errorf("a %s without an id is on a page", k.Kind)
		}
		if onPage[k] {
			s.Errorf("a page names the %s %s twice", k.Kind, k.ID)
		}
		onPage[k] = true
	}
	for _, c := range page.Customers {
		once(connector.Key{Kind: connector.Customers, ID: c.ID})
	}
	for _, c := range page.Contacts {
		once(connector.Key{Kind: connector.Contacts, ID: c.ID})
		mains := 0
		for _, ch := range c.Channels {
			if ch.Value == "" || ch.Field == "" || ch.Kind == "" {
				s.Errorf("a channel of contact %s has no value, field or kind: absent means cleared", c.ID)
			}
			if ch.Main {
				mains++
			}
		}
		if mains > 1 {
			s.Errorf("contact %s has %d main fields", c.ID, mains)
		}
	}
	met := map[link]bool{}
	own := map[string]bool{}
	for _, l := range page.Links {
		key := link{l.Customer, l.Contact, l.StatedBy}
		if l.Customer == "" || l.Contact == "" || met[key] {
			s.Errorf("a page has the link %s/%s twice, or without an end", l.Customer, l.Contact)
		}
		met[key] = true
		if l.StatedBy != (connector.Key{}) && !onPage[l.StatedBy] {
			s.Errorf("link %s/%s is stated by a record that is not on its page", l.Customer, l.Contact)
		}
		for _, r := range l.Roles {
			if r.Key == "" {
				s.Errorf("link %s/%s has a role without a key", l.Customer, l.Contact)
			}
		}
		if owner, ok := contact.OwnerOf(l.Contact); ok {
			good := owner == l.Customer && l.StatedBy == connector.Key{Kind: connector.Customers, ID: owner} &&
				slices.Equal(l.Roles, []connector.ERPRole{connector.CompanyRole})
			if !good {
				s.Errorf("the own contact of customer %s has another link than the one its customer states", owner)
			}
			own[owner] = true
		}
	}
	for _, c := range page.Customers {
		if !onPage[connector.Key{Kind: connector.Contacts, ID: contact.OwnID(c.ID)}] || !own[c.ID] {
			s.Errorf("customer %s comes without its own contact or without the link of the two", c.ID)
		}
	}
	for _, b := range page.Bad {
		snake := b.Reason != "" && strings.Trim(b.Reason, "abcdefghijklmnopqrstuvwxyz_") == ""
		if b.Key.Kind == "" || b.Field == "" || !snake {
			s.Errorf("a Bad lacks its kind or field, or its reason is not in snake case: %+v", b)
		}
	}
	for _, k := range page.Deleted {
		if k.ID == "" || k.Kind == "" {
			s.Errorf("a deletion is claimed of no record: %+v", k)
		}
	}
}

// agree compares a mirror with the ERP. Exactly: the mirror holds nothing that the ERP does not; otherwise it may still
// hold records that went.
func (s *side) agree(m *mirror, exactly bool) {
	s.Helper()
	for k, want := range s.records {
		s.same(m, k, want)
	}
	for p, role := range s.links {
		got, ok := m.role(p)
		switch {
		case !ok:
			s.Errorf("contact %s is not attached to customer %s", p.contact, p.customer)
		case got.Key != role.Key:
			s.Errorf("contact %s has at customer %s the role %q, want %q", p.contact, p.customer, got.Key, role.Key)
		}
	}
	for l := range m.links {
		p := place{l.customer, l.contact}
		_, want := s.links[p]
		_, own := contact.OwnerOf(p.contact)
		here := s.records[connector.Key{Kind: connector.Customers, ID: p.customer}] != nil &&
			s.records[connector.Key{Kind: connector.Contacts, ID: p.contact}] != nil
		if !want && !own && (here || exactly) {
			s.Errorf("contact %s is still attached to customer %s", p.contact, p.customer)
		}
	}
	if !exactly {
		return
	}
	for k := range m.keys() {
		if s.records[k] == nil {
			s.Errorf("the %s %s is still there", k.Kind, k.ID)
		}
	}
}

// same compares one record.
func (s *side) same(m *mirror, k connector.Key, want *held) {
	s.Helper()
	personID := k.ID
	if k.Kind == connector.Customers {
		c, ok := m.customers[k.ID]
		if !ok {
			s.Errorf("customer %s was never named", k.ID)
			return
		}
		if c.Name != want.Name || c.Active == want.inactive || c.ParentID != want.Parent {
			s.Errorf("customer %s is %q, active %t, parent %q; want %q, %t, %q",
				k.ID, c.Name, c.Active, c.ParentID, want.Name, !want.inactive, want.Parent)
		}
		personID = contact.OwnID(k.ID)
	}
	p, ok := m.contacts[personID]
	if !ok {
		s.Errorf("contact %s was never named", personID)
		return
	}
	if k.Kind == connector.Contacts && (p.Name != want.Name || p.Active == want.inactive) {
		s.Errorf("contact %s is %q, active %t; want %q, %t", k.ID, p.Name, p.Active, want.Name, !want.inactive)
	}
	var mail, phone string
	for _, c := range p.Channels {
		switch {
		case c.Main && c.Kind == contact.Email:
			mail = c.Value
		case c.Kind == contact.Phone && phone == "":
			phone = c.Value
		}
	}
	if mail != want.Mail || phone != want.Phone {
		s.Errorf("contact %s has the main address %q and the phone %q, want %q and %q",
			personID, mail, phone, want.Mail, want.Phone)
	}
}

// discreet fails if an error's text tells what reports must not hold: secrets, names, addresses.
func (s *side) discreet(err error) {
	s.Helper()
	text := err.Error()
	if e, ok := errors.AsType[*connector.Error](err); ok {
		text += " " + e.Hint
	}
	private := append(s.harness.Secrets(), Quote)
	for _, r := range s.records {
		private = append(private, r.Name, r.Mail, r.Phone)
	}
	for _, p := range private {
		if p != "" && strings.Contains(text, p) {
			s.Errorf("an error's text tells a secret or something of a record: %q", text)
			return
		}
	}
}

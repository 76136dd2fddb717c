package reconcile

import (
	"cmp"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/centime/contactsync/internal/connector"
	"github.com/centime/contactsync/internal/contact"
)

// Reasons of issues that this package opens; a connector's Bad brings its own.
const (
	ReasonTextCut      = "unstorable_characters_removed"
	ReasonNoAddress    = "not_an_address"
	ReasonTwoRoles     = "more_than_one_role"
	ReasonEmptyName    = "no_name"
	ReasonBadID        = "unusable_id"
	reasonUnknownField = "unreadable"
)

// Page plans one page. Neither argument is changed.
func Page(held Held, page connector.Page) Plan { return Read(page).Plan(held) }

// Plan plans the page against what is held.
func (r Reading) Plan(held Held) Plan {
	rows := 0 // links that are records of their own
	for _, l := range r.proper.Links {
		if l.StatedBy == (connector.Key{}) {
			rows++
		}
	}
	records := max(len(r.customers), len(r.contacts)) + rows
	p := planner{held: held, outcomes: make(map[connector.Key]outcome, records), issues: map[issueKey]int{}, lost: r.lost}
	p.plan.Read = make([]connector.Key, 0, records)
	p.issue(r.issues...)
	r = p.withoutErased(r)
	p.makeRoom(r)
	for _, c := range r.customers {
		p.customer(c)
	}
	for _, c := range r.contacts {
		p.contact(c)
	}
	p.links(r)
	for _, k := range r.proper.Deleted {
		p.deleted(k)
	}
	for _, b := range r.proper.Bad {
		p.bad(b)
	}
	return p.finish()
}

// makeRoom makes it for what is new: on a first load that is everything.
func (p *planner) makeRoom(r Reading) {
	p.plan.Named.Customers = make([]string, 0, len(r.customers))
	p.plan.Named.Links = make([]Pair, 0, len(r.proper.Links))
	p.plan.Customers = make([]CustomerChange, 0, max(0, len(r.customers)-len(p.held.Customers)))
	p.plan.Contacts = make([]ContactChange, 0, max(0, len(r.contacts)-len(p.held.Contacts)))
	p.plan.Links = make([]LinkChange, 0, max(0, len(r.proper.Links)-len(p.held.Links)))
}

// outcome of a record, in order of precedence: a record with a new part and a changed part is created.
type outcome int

const (
	unchanged outcome = iota + 1
	updated
	created
	ignored
	refused
)

// statement is who states a link.
type statement struct {
	pair Pair
	by   string
}

type planner struct {
	held     Held
	plan     Plan
	outcomes map[connector.Key]outcome
	lost     int // refused records without a key
	issues   map[issueKey]int
}

func (p *planner) is(k connector.Key, o outcome) {
	before, met := p.outcomes[k]
	if !met {
		p.plan.Read = append(p.plan.Read, k)
	}
	if o > before {
		p.outcomes[k] = o
	}
}

func (p *planner) issue(met ...issueKey) {
	for _, k := range met {
		p.issues[k]++
	}
}

// withoutErased passes over the records of people who were erased: nothing of them is stored again, and no issue names them. A
// customer stays, and its own contact has neither name nor address.
func (p *planner) withoutErased(r Reading) Reading {
	if len(p.held.Erased) == 0 {
		return r
	}
	erased := func(kind connector.Kind, id string) bool { return p.held.Erased[connector.Key{Kind: kind, ID: id}] }
	pass := func(k connector.Key) bool {
		p.is(k, ignored)
		return true
	}
	r.contacts = slices.DeleteFunc(slices.Clone(r.contacts), func(c saidOfContact) bool {
		return erased(connector.Contacts, c.ID) && pass(connector.Key{Kind: connector.Contacts, ID: c.ID})
	})
	for i, c := range r.contacts {
		if owner, own := contact.OwnerOf(c.ID); own && erased(connector.Customers, owner) {
			r.contacts[i] = saidOfContact{Contact: connector.Contact{ID: c.ID, Active: c.Active, ModifiedAt: c.ModifiedAt}}
		}
	}
	r.proper.Links = slices.DeleteFunc(slices.Clone(r.proper.Links), func(l connector.Link) bool {
		return erased(connector.Contacts, l.Contact) &&
			(l.StatedBy != (connector.Key{}) || pass(connector.Key{Kind: connector.Links, ID: connector.LinkID(l.Customer, l.Contact)}))
	})
	r.proper.Bad = slices.DeleteFunc(slices.Clone(r.proper.Bad), func(b connector.Bad) bool {
		_, person, _ := strings.Cut(b.Key.ID, "/")
		return (b.Key.Kind == connector.Contacts && erased(connector.Contacts, b.Key.ID) ||
			b.Key.Kind == connector.Links && erased(connector.Contacts, person)) && pass(b.Key)
	})
	return r
}

// clean is cleaned, and notes what was cut.
func (p *planner) clean(k connector.Key, field, s string) string {
	text, cut := cleaned(s)
	if cut {
		p.issue(issueKey{k, field, ReasonTextCut})
	}
	return text
}

func (p *planner) customer(c saidOfCustomer) {
	key := connector.Key{Kind: connector.Customers, ID: c.ID}
	p.plan.Named.Customers = append(p.plan.Named.Customers, c.ID)
	p.issue(c.issues...)
	change := CustomerChange{ERPID: c.ID, Facts: c.facts, Active: c.Active, Reason: statedReason(c.Active), ModifiedAt: c.ModifiedAt}
	held, known := p.held.Customers[c.ID]
	if !known {
		p.is(key, created)
		p.plan.Customers = append(p.plan.Customers, change)
		return
	}
	change.ID = held.ID
	changes := customerChanges(held.Facts, c.facts)
	if goes := held.Active && !c.Active; goes {
		p.plan.Going.Customers = append(p.plan.Going.Customers, held.ID)
		change.Active, change.Reason = true, ""
	} else {
		changes = append(changes, activeChanges(held.Active, held.Reason, c.Active)...)
	}
	change.Changes = changes
	if len(changes) == 0 {
		p.is(key, unchanged)
		return
	}
	p.is(key, updated)
	p.plan.Customers = append(p.plan.Customers, change)
}

// recordOf is the record a contact came with: the customer whose own record it is, or its own.
func recordOf(contactID string) connector.Key {
	if owner, ok := contact.OwnerOf(contactID); ok {
		return connector.Key{Kind: connector.Customers, ID: owner}
	}
	return connector.Key{Kind: connector.Contacts, ID: contactID}
}

func (p *planner) contact(c saidOfContact) {
	key := recordOf(c.ID)
	own := key.Kind == connector.Customers
	if !own {
		p.plan.Named.Contacts = append(p.plan.Named.Contacts, c.ID)
	}
	p.issue(c.issues...)
	change := ContactChange{ERPID: c.ID, Facts: c.facts, Active: c.Active, Reason: statedReason(c.Active), ModifiedAt: c.ModifiedAt}
	held, known := p.held.Contacts[c.ID]
	if !known {
		p.is(key, created)
		change.Put = c.points
		p.plan.Contacts = append(p.plan.Contacts, change)
		return
	}
	change.ID = held.ID
	changes := contactChanges(held.Facts, c.facts)
	switch goes := held.Active && !c.Active; {
	case goes && own:
		// It goes with its customer.
		change.Active, change.Reason = true, ""
	case goes:
		p.plan.Going.Contacts = append(p.plan.Going.Contacts, held.ID)
		change.Active, change.Reason = true, ""
	default:
		changes = append(changes, activeChanges(held.Active, held.Reason, c.Active)...)
	}
	var pointed []Change
	change.Put, change.Drop, pointed = comparePoints(held.Points, c.points)
	changes = append(changes, pointed...)
	change.Changes = changes
	if len(changes) == 0 && len(change.Put) == 0 && len(change.Drop) == 0 {
		p.is(key, unchanged)
		return
	}
	p.is(key, updated)
	p.plan.Contacts = append(p.plan.Contacts, change)
}

func (p *planner) links(r Reading) {
	customers, contacts := make(map[string]bool, len(r.customers)), make(map[string]bool, len(r.contacts))
	for _, c := range r.customers {
		customers[c.ID] = true
	}
	for _, c := range r.contacts {
		contacts[c.ID] = true
	}
	stated := make(map[statement]bool, len(r.proper.Links))
	merged := make(map[Pair]*LinkChange, len(r.proper.Links))
	order := make([]Pair, 0, len(r.proper.Links))
	for _, l := range r.proper.Links {
		pair := Pair{l.Customer, l.Contact}
		by := Stater(l.StatedBy)
		record := l.StatedBy
		if by == StatedByLink {
			record = connector.Key{Kind: connector.Links, ID: connector.LinkID(l.Customer, l.Contact)}
		}
		_, heldCustomer := p.held.Customers[l.Customer]
		_, heldContact := p.held.Contacts[l.Contact]
		if !(heldCustomer || customers[l.Customer]) || !(heldContact || contacts[l.Contact]) {
			if by == StatedByLink {
				p.is(record, ignored) // not ours, or not readable by this login, or newer than the contacts just read
			}
			continue
		}
		if by == StatedByLink {
			p.plan.Named.Links = append(p.plan.Named.Links, pair)
		}
		stated[statement{pair, by}] = true
		change, met := merged[pair]
		if !met {
			change = p.startLink(pair)
			merged[pair] = change
			order = append(order, pair)
		}
		p.state(change, l, by, record)
	}
	for _, pair := range order {
		p.endLink(merged[pair])
	}
	p.plan.Stated = order
	p.unstated(r, stated)
}

// startLink begins with what we hold of a link.
func (p *planner) startLink(pair Pair) *LinkChange {
	held := p.held.Links[pair]
	return &LinkChange{
		ID: held.ID, Pair: pair, Active: true, StatedBy: slices.Clone(held.StatedBy),
		LinkRoleKey: held.LinkRoleKey, RecordRoleKey: held.RecordRoleKey,
	}
}

// state adds what one row says of a link.
func (p *planner) state(change *LinkChange, l connector.Link, by string, record connector.Key) {
	role := ""
	if len(l.Roles) > 0 {
		stated := slices.MinFunc(l.Roles, func(a, b connector.ERPRole) int { return cmp.Compare(a.Key, b.Key) })
		role = p.clean(record, "role", stated.Key)
		p.role(connector.ERPRole{Key: role, Name: p.clean(record, "role", stated.Name)})
	}
	if len(l.Roles) > 1 {
		p.issue(issueKey{record, "role", ReasonTwoRoles})
	}
	if by == StatedByLink {
		change.LinkRoleKey = role
	} else {
		change.RecordRoleKey = role
	}
	if !slices.Contains(change.StatedBy, by) {
		change.StatedBy = append(change.StatedBy, by)
		slices.Sort(change.StatedBy)
	}
	p.is(record, unchanged)
}

func (p *planner) role(r connector.ERPRole) {
	if r.Key == "" {
		return
	}
	if name, known := p.held.Roles[r.Key]; known && name == r.Name {
		return
	}
	if !slices.Contains(p.plan.Roles, r) {
		p.plan.Roles = append(p.plan.Roles, r)
	}
}

// roleKey is the role that counts: the link's own row speaks before a record.
func roleKey(statedBy []string, link, record string) string {
	if slices.Contains(statedBy, StatedByLink) {
		return link
	}
	return record
}

func (p *planner) endLink(change *LinkChange) {
	held, known := p.held.Links[change.Pair]
	if !known {
		for _, by := range change.StatedBy {
			p.said(change.Pair, by, created)
		}
		p.plan.Links = append(p.plan.Links, *change)
		return
	}
	if !held.Active {
		change.Changes = append(change.Changes, Change{"active", "false", "true"})
	}
	was, became := roleKey(held.StatedBy, held.LinkRoleKey, held.RecordRoleKey), roleKey(change.StatedBy, change.LinkRoleKey, change.RecordRoleKey)
	// A place that the run made by what a record states, and that its own row says more of: that is no change.
	first := held.New && held.Active && held.LinkRoleKey == "" &&
		!slices.Contains(held.StatedBy, StatedByLink) && slices.Contains(change.StatedBy, StatedByLink)
	if was != became && !first {
		change.Changes = append(change.Changes, Change{"erp_role", was, became})
	}
	differs := false
	for _, by := range change.StatedBy {
		role := held.RecordRoleKey != change.RecordRoleKey
		if by == StatedByLink {
			role = held.LinkRoleKey != change.LinkRoleKey
		}
		switch {
		case by == StatedByLink && first:
			p.said(change.Pair, by, created)
		case !held.Active || role || !slices.Contains(held.StatedBy, by):
			p.said(change.Pair, by, updated)
		default:
			continue
		}
		differs = true
	}
	if differs {
		p.plan.Links = append(p.plan.Links, *change)
	}
}

// said counts what a row or a record of the page said anew of a link.
func (p *planner) said(pair Pair, by string, o outcome) {
	key := connector.Key{Kind: connector.Links, ID: connector.LinkID(pair.Customer, pair.Contact)}
	if by != StatedByLink {
		kind, id, _ := strings.Cut(by, ":")
		key = connector.Key{Kind: connector.Kind(kind), ID: id}
	}
	before, onPage := p.outcomes[key]
	if !onPage {
		return
	}
	if by != StatedByLink {
		o = updatedUnlessNew(before, o)
	}
	p.is(key, o)
}

// updatedUnlessNew: a record that was there and states a new link is updated, not created.
func updatedUnlessNew(record, part outcome) outcome {
	if part == created && record != created {
		return updated
	}
	return part
}

// unstated finds the links that the page's records stated before and do not now.
func (p *planner) unstated(r Reading, stated map[statement]bool) {
	if len(p.held.Links) == 0 {
		return
	}
	read := make(map[string]bool, len(r.customers)+len(r.contacts))
	for _, c := range r.customers {
		read[Stater(connector.Key{Kind: connector.Customers, ID: c.ID})] = true
	}
	for _, c := range r.contacts {
		if _, own := contact.OwnerOf(c.ID); !own {
			read[Stater(connector.Key{Kind: connector.Contacts, ID: c.ID})] = true
		}
	}
	for pair, held := range p.held.Links {
		for _, by := range held.StatedBy {
			if read[by] && !stated[statement{pair, by}] {
				p.plan.Going.Unstated = append(p.plan.Going.Unstated, Unstated{Link: held.ID, By: by})
			}
		}
	}
	slices.SortFunc(p.plan.Going.Unstated, func(a, b Unstated) int {
		return cmp.Or(cmp.Compare(a.Link, b.Link), cmp.Compare(a.By, b.By))
	})
}

// deleted notes a deletion that the ERP claims, of a record that we hold active. A claim is no record that was read.
func (p *planner) deleted(k connector.Key) {
	active := false
	switch k.Kind {
	case connector.Customers:
		active = p.held.Customers[k.ID].Active
	case connector.Contacts:
		active = p.held.Contacts[k.ID].Active
	case connector.Links: // a link's going is seen in the listing of links
	}
	if active {
		p.plan.Going.Deleted = append(p.plan.Going.Deleted, k)
	}
}

func (p *planner) bad(b connector.Bad) {
	if o, onPage := p.outcomes[b.Key]; onPage && o == ignored {
		return // what is wrong with a record that is not ours is nobody's issue
	}
	p.issue(issueKey{b.Key, cmp.Or(b.Field, "record"), cmp.Or(b.Reason, reasonUnknownField)})
	if b.Key.ID == "" {
		p.lost++
		return
	}
	if _, onPage := p.outcomes[b.Key]; onPage {
		return
	}
	p.is(b.Key, refused)
	// Refused, but seen: it is not absent.
	if b.Key.Kind == connector.Links {
		for pair := range p.held.Links {
			if connector.LinkID(pair.Customer, pair.Contact) == b.Key.ID {
				p.plan.Named.Links = append(p.plan.Named.Links, pair)
			}
		}
	}
	switch _, held := p.held.Customers[b.Key.ID]; {
	case b.Key.Kind == connector.Customers && held:
		p.plan.Named.Customers = append(p.plan.Named.Customers, b.Key.ID)
	case b.Key.Kind == connector.Contacts:
		if _, held := p.held.Contacts[b.Key.ID]; held {
			p.plan.Named.Contacts = append(p.plan.Named.Contacts, b.Key.ID)
			p.plan.Named.Unread = append(p.plan.Named.Unread, b.Key.ID)
		}
	}
}

func (p *planner) finish() Plan {
	troubled := map[connector.Key]bool{}
	for k, n := range p.issues {
		p.plan.Issues = append(p.plan.Issues, Issue{Key: k.key, Field: k.field, Reason: k.reason, Count: n})
		if k.key.ID != "" {
			troubled[k.key] = true
		}
	}
	slices.SortFunc(p.plan.Issues, func(a, b Issue) int {
		return cmp.Or(cmp.Compare(a.Key.Kind, b.Key.Kind), cmp.Compare(a.Key.ID, b.Key.ID), cmp.Compare(a.Field, b.Field), cmp.Compare(a.Reason, b.Reason))
	})
	c := &p.plan.Counts
	for _, key := range p.plan.Read {
		if p.held.Counted[key] {
			continue
		}
		if troubled[key] {
			c.WithIssue++
		}
		switch p.outcomes[key] {
		case created:
			c.Created++
		case updated:
			c.Updated++
		case unchanged:
			c.Unchanged++
		case ignored:
			c.Ignored++
		case refused:
			c.Refused++
		}
	}
	c.Refused += p.lost
	c.WithIssue += p.lost
	return p.plan
}

func statedReason(active bool) contact.InactiveReason {
	if active {
		return ""
	}
	return contact.ERPInactive
}

// activeChanges of a record that does not go: it comes back, or is inactive for another reason than we thought.
func activeChanges(heldActive bool, heldReason contact.InactiveReason, active bool) []Change {
	switch {
	case !heldActive && active:
		return []Change{{"active", "false", "true"}}
	case !heldActive && heldReason != contact.ERPInactive:
		return []Change{{"inactive_reason", string(heldReason), string(contact.ERPInactive)}}
	}
	return nil
}

func customerChanges(was, now CustomerFacts) []Change {
	if was == now {
		return nil
	}
	return differences(
		Change{"number", was.Number, now.Number}, Change{"name", was.Name, now.Name}, Change{"parent", was.ParentID, now.ParentID},
		Change{"bill_with_parent", strconv.FormatBool(was.BillWithParent), strconv.FormatBool(now.BillWithParent)},
		Change{"kind", string(was.Kind), string(now.Kind)},
	)
}

func contactChanges(was, now ContactFacts) []Change {
	if was == now {
		return nil
	}
	return differences(
		Change{"name", was.Name, now.Name}, Change{"given_name", was.GivenName, now.GivenName},
		Change{"family_name", was.FamilyName, now.FamilyName}, Change{"job_title", was.JobTitle, now.JobTitle},
	)
}

func differences(all ...Change) []Change {
	return slices.DeleteFunc(all, func(c Change) bool { return c.Was == c.Became })
}

// comparePoints says which points to write and which to remove; only a changed value is history.
func comparePoints(held, now []contact.Point) (put, drop []contact.Point, changes []Change) {
	type place struct {
		field string
		place int
	}
	was := make(map[place]contact.Point, len(held))
	for _, p := range held {
		was[place{p.Field, p.Place}] = p
	}
	for _, p := range now {
		at := place{p.Field, p.Place}
		before, known := was[at]
		delete(was, at)
		if known && before == p {
			continue
		}
		put = append(put, p)
		if before.Value != p.Value {
			changes = append(changes, Change{pointField(p), before.Value, p.Value})
		}
	}
	for _, p := range held {
		if _, left := was[place{p.Field, p.Place}]; left {
			drop = append(drop, p)
			changes = append(changes, Change{pointField(p), p.Value, ""})
		}
	}
	return put, drop, changes
}

func pointField(p contact.Point) string { return fmt.Sprintf("point:%s:%d", p.Field, p.Place) }

// ModifiedAt is a time as Postgres keeps it.
func ModifiedAt(t time.Time) *time.Time {
	if t.IsZero() {
		return nil
	}
	t = t.UTC().Truncate(time.Microsecond)
	return &t
}

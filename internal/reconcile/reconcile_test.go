package reconcile_test

import (
	"fmt"
	"slices"
	"testing"
	"time"

	"pgregory.net/rapid"

	"github.com/centime/contactsync/internal/connector"
	"github.com/centime/contactsync/internal/contact"
	"github.com/centime/contactsync/internal/reconcile"
)

// apply does to what is held what the store does with a plan.
func apply(held reconcile.Held, plan reconcile.Plan, next *int64) {
	id := func(was int64) int64 {
		if was != 0 {
			return was
		}
		*next++
		return *next
	}
	for _, c := range plan.Customers {
		held.Customers[c.ERPID] = reconcile.HeldCustomer{ID: id(c.ID), Active: c.Active, Reason: c.Reason, Facts: c.Facts}
	}
	for _, c := range plan.Contacts {
		was := held.Contacts[c.ERPID]
		points := slices.DeleteFunc(slices.Clone(was.Points), func(p contact.Point) bool {
			return slices.ContainsFunc(slices.Concat(c.Put, c.Drop), func(q contact.Point) bool { return q.Field == p.Field && q.Place == p.Place })
		})
		held.Contacts[c.ERPID] = reconcile.HeldContact{ID: id(c.ID), Active: c.Active, Reason: c.Reason, Facts: c.Facts, Points: append(points, c.Put...)}
	}
	for _, l := range plan.Links {
		held.Links[l.Pair] = reconcile.HeldLink{ID: id(l.ID), Active: l.Active, StatedBy: l.StatedBy, LinkRoleKey: l.LinkRoleKey, RecordRoleKey: l.RecordRoleKey}
	}
	for _, r := range plan.Roles {
		held.Roles[r.Key] = r.Name
	}
}

func nothing() reconcile.Held {
	return reconcile.Held{
		Customers: map[string]reconcile.HeldCustomer{}, Contacts: map[string]reconcile.HeldContact{},
		Links: map[reconcile.Pair]reconcile.HeldLink{}, Roles: map[string]string{}, Counted: map[connector.Key]bool{},
	}
}

func drawPage(t *rapid.T) connector.Page {
	var page connector.Page
	text := rapid.SampledFrom([]string{"", "Kelp", " Kelp ", "K\x00lp", "\xed\xa0\x80", "a@kelp.example", "a@kelp.example; b@kelp.example,c", "é"})
	for i := range rapid.IntRange(0, 4).Draw(t, "customers") {
		id := fmt.Sprint(i)
		if rapid.IntRange(0, 9).Draw(t, "odd id") == 0 {
			id = rapid.SampledFrom([]string{"", "\x00", "a\nb"}).Draw(t, "id")
		}
		active := rapid.Bool().Draw(t, "active")
		page.Customers = append(page.Customers, connector.Customer{ID: id, Name: text.Draw(t, "name"), Kind: contact.Customer, Active: active})
		own := connector.Contact{ID: contact.OwnID(id), Name: text.Draw(t, "own"), Active: active}
		for range rapid.IntRange(0, 2).Draw(t, "channels") {
			own.Channels = append(own.Channels, connector.Channel{Kind: contact.Email, Field: "mail", Value: text.Draw(t, "mail"), Main: true})
		}
		page.Contacts = append(page.Contacts, own)
		page.Links = append(page.Links, connector.Link{Customer: id, Contact: own.ID,
			StatedBy: connector.Key{Kind: connector.Customers, ID: id}, Roles: []connector.ERPRole{connector.CompanyRole}})
	}
	for i := range rapid.IntRange(0, 3).Draw(t, "contacts") {
		id := fmt.Sprint("p", i)
		page.Contacts = append(page.Contacts, connector.Contact{ID: id, Name: text.Draw(t, "name"), Active: rapid.Bool().Draw(t, "active")})
		if rapid.Bool().Draw(t, "company") {
			page.Links = append(page.Links, connector.Link{Customer: "0", Contact: id, StatedBy: connector.Key{Kind: connector.Contacts, ID: id}})
		}
		if rapid.Bool().Draw(t, "attached") {
			page.Links = append(page.Links, connector.Link{Customer: "1", Contact: id, Roles: []connector.ERPRole{{Key: "7", Name: "Buyer"}}})
		}
	}
	for range rapid.IntRange(0, 2).Draw(t, "bad") {
		page.Bad = append(page.Bad, connector.Bad{Key: connector.Key{Kind: connector.Customers,
			ID: rapid.SampledFrom([]string{"", "0", "77"}).Draw(t, "bad id")}, Field: "mail", Reason: "not_text"})
	}
	return page
}

// TestPagesInAnyOrder: every record is one of five things; planning a page again changes nothing; and no page takes an active
// record away, since going is only noted.
func TestPagesInAnyOrder(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(t *rapid.T) {
		held, next := nothing(), int64(0)
		for range rapid.IntRange(1, 5).Draw(t, "pages") {
			page := drawPage(t)
			active := map[string]bool{}
			for id, c := range held.Customers {
				active[id] = c.Active
			}
			links := map[reconcile.Pair]bool{}
			for pair, l := range held.Links {
				links[pair] = l.Active
			}
			plan := reconcile.Page(held, page)
			records := map[connector.Key]bool{}
			lost := 0
			for _, c := range page.Customers {
				if c.ID == "" || c.ID == "\x00" || c.ID == "a\nb" {
					lost++
				} else {
					records[connector.Key{Kind: connector.Customers, ID: c.ID}] = true
				}
			}
			for _, c := range page.Contacts {
				if _, own := contact.OwnerOf(c.ID); !own {
					records[connector.Key{Kind: connector.Contacts, ID: c.ID}] = true
				}
			}
			for _, l := range page.Links {
				if l.StatedBy == (connector.Key{}) {
					records[connector.Key{Kind: connector.Links, ID: connector.LinkID(l.Customer, l.Contact)}] = true
				}
			}
			for _, b := range page.Bad {
				if b.Key.ID == "" {
					lost++
				} else {
					records[b.Key] = true
				}
			}
			if plan.Counts.Read() != len(records)+lost {
				t.Fatalf("%d records and %d without an id, accounted for %+v", len(records), lost, plan.Counts)
			}
			apply(held, plan, &next)
			for id, was := range active {
				if was && !held.Customers[id].Active {
					t.Fatalf("customer %s was taken away by a page", id)
				}
			}
			for pair, was := range links {
				if was && !held.Links[pair].Active {
					t.Fatalf("link %v was taken away by a page", pair)
				}
			}
			again := reconcile.Page(held, page)
			if again.Counts.Created+again.Counts.Updated > 0 || len(again.Customers)+len(again.Contacts)+len(again.Links)+len(again.Roles) > 0 {
				t.Fatalf("the same page again: %+v", again)
			}
		}
	})
}

// TestGoingIsOnlyNoted: each way to go is a signal, and each way to come back is done at once.
func TestGoingIsOnlyNoted(t *testing.T) {
	t.Parallel()
	held, next := nothing(), int64(0)
	page := func(active, linked bool) connector.Page {
		p := connector.Page{
			Customers: []connector.Customer{{ID: "1", Name: "A", Active: active}},
			Contacts:  []connector.Contact{{ID: "customer:1", Name: "A", Active: active}, {ID: "p", Name: "P", Active: active}},
			Links:     []connector.Link{{Customer: "1", Contact: "customer:1", StatedBy: connector.Key{Kind: connector.Customers, ID: "1"}}},
		}
		if linked {
			p.Links = append(p.Links, connector.Link{Customer: "1", Contact: "p", StatedBy: connector.Key{Kind: connector.Contacts, ID: "p"}})
		}
		return p
	}
	apply(held, reconcile.Page(held, page(true, true)), &next)
	plan := reconcile.Page(held, page(false, false))
	if len(plan.Going.Customers) != 1 || len(plan.Going.Contacts) != 1 || len(plan.Going.Unstated) != 1 || len(plan.Customers)+len(plan.Contacts)+len(plan.Links) != 0 {
		t.Errorf("%+v", plan)
	}
	if plan.Counts.Unchanged != 2 {
		t.Errorf("%+v", plan.Counts)
	}
	gone := held.Customers["1"]
	gone.Active, gone.Reason = false, contact.ERPAbsent
	held.Customers["1"] = gone
	plan = reconcile.Page(held, page(true, true))
	if len(plan.Customers) != 1 || !plan.Customers[0].Active || plan.Customers[0].Changes[0] != (reconcile.Change{Field: "active", Was: "false", Became: "true"}) {
		t.Errorf("%+v", plan.Customers)
	}
}

// TestRoleOfANewPlace: the role that its own row gives a place which the run made by what a record states is part of its creation.
// All else is a change, also of a place that is as new, such as what a refresh did meanwhile.
func TestRoleOfANewPlace(t *testing.T) {
	t.Parallel()
	ann := connector.Key{Kind: connector.Contacts, ID: "1"}
	for name, c := range map[string]struct {
		held    reconcile.HeldLink
		changes []reconcile.Change
		by      connector.Key // who says now that the role is 7; zero: the place's own row
	}{
		"Made": {held: reconcile.HeldLink{New: true, Active: true, StatedBy: []string{reconcile.Stater(ann)}}},
		"Old": {
			held:    reconcile.HeldLink{Active: true, StatedBy: []string{reconcile.Stater(ann)}},
			changes: []reconcile.Change{{Field: "erp_role", Became: "7"}},
		},
		"RecordReadAgain": {
			held:    reconcile.HeldLink{New: true, Active: true, StatedBy: []string{reconcile.Stater(ann)}, RecordRoleKey: "8"},
			changes: []reconcile.Change{{Field: "erp_role", Was: "8", Became: "7"}}, by: ann,
		},
		"RowRead": {
			held:    reconcile.HeldLink{New: true, Active: true, StatedBy: []string{reconcile.StatedByLink}, LinkRoleKey: "8"},
			changes: []reconcile.Change{{Field: "erp_role", Was: "8", Became: "7"}},
		},
		"RowReadAndGone": {
			held:    reconcile.HeldLink{New: true, Active: true, StatedBy: []string{reconcile.Stater(ann)}, LinkRoleKey: "7"},
			changes: []reconcile.Change{{Field: "erp_role", Became: "7"}},
		},
		"Detached": {
			held:    reconcile.HeldLink{New: true, LinkRoleKey: "7"},
			changes: []reconcile.Change{{Field: "active", Was: "false", Became: "true"}, {Field: "erp_role", Became: "7"}},
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			c.held.ID = 3
			plan := reconcile.Page(reconcile.Held{
				Customers: map[string]reconcile.HeldCustomer{"5": {ID: 1}}, Contacts: map[string]reconcile.HeldContact{"1": {ID: 2}},
				Links: map[reconcile.Pair]reconcile.HeldLink{{Customer: "5", Contact: "1"}: c.held},
			}, connector.Page{Links: []connector.Link{{Customer: "5", Contact: "1", StatedBy: c.by, Roles: []connector.ERPRole{{Key: "7"}}}}})
			if len(plan.Links) != 1 || !slices.Equal(plan.Links[0].Changes, c.changes) || (plan.Counts.Created == 1) != (c.changes == nil) {
				t.Errorf("%+v; %+v", plan.Links, plan.Counts)
			}
		})
	}
}

// TestWhoSaysMoreIsUpdated: of a contact and the row of its own place on one page, that one is counted as updated which says something
// new.
func TestWhoSaysMoreIsUpdated(t *testing.T) {
	t.Parallel()
	ann := connector.Key{Kind: connector.Contacts, ID: "1"}
	both := []string{reconcile.Stater(ann), reconcile.StatedByLink}
	for name, c := range map[string]struct {
		held *reconcile.HeldLink
		want reconcile.Counts
	}{
		"Nobody":     {&reconcile.HeldLink{ID: 3, Active: true, StatedBy: both, LinkRoleKey: "7"}, reconcile.Counts{Unchanged: 2}},
		"TheRow":     {&reconcile.HeldLink{ID: 3, Active: true, StatedBy: both, LinkRoleKey: "8"}, reconcile.Counts{Unchanged: 1, Updated: 1}},
		"TheContact": {&reconcile.HeldLink{ID: 3, Active: true, StatedBy: both[1:], LinkRoleKey: "7"}, reconcile.Counts{Unchanged: 1, Updated: 1}},
		"Both":       {&reconcile.HeldLink{ID: 3, StatedBy: both, LinkRoleKey: "7"}, reconcile.Counts{Updated: 2}},
		"New":        {nil, reconcile.Counts{Updated: 1, Created: 1}},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			held := reconcile.Held{
				Customers: map[string]reconcile.HeldCustomer{"5": {ID: 1}}, Contacts: map[string]reconcile.HeldContact{"1": {ID: 2, Active: true}},
				Links: map[reconcile.Pair]reconcile.HeldLink{},
			}
			if c.held != nil {
				held.Links[reconcile.Pair{Customer: "5", Contact: "1"}] = *c.held
			}
			plan := reconcile.Page(held, connector.Page{
				Contacts: []connector.Contact{{ID: "1", Active: true}},
				Links:    []connector.Link{{Customer: "5", Contact: "1", StatedBy: ann}, {Customer: "5", Contact: "1", Roles: []connector.ERPRole{{Key: "7"}}}},
			})
			if plan.Counts != c.want {
				t.Errorf("%+v, want %+v", plan.Counts, c.want)
			}
		})
	}
}

// TestBalanceIsNoChange: a newer time alone writes nothing.
func TestBalanceIsNoChange(t *testing.T) {
	t.Parallel()
	held, next := nothing(), int64(0)
	page := connector.Page{Customers: []connector.Customer{{ID: "1", Name: "A", Active: true, ModifiedAt: time.Unix(1, 0)}}}
	apply(held, reconcile.Page(held, page), &next)
	page.Customers[0].ModifiedAt = time.Unix(99, 0)
	if plan := reconcile.Page(held, page); len(plan.Customers) != 0 || plan.Counts.Unchanged != 1 {
		t.Errorf("%+v", plan)
	}
}

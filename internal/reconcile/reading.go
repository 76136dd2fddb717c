package reconcile

import (
	"slices"
	"strings"
	"unicode"
	"unicode/utf8"

	"github.com/centime/contactsync/internal/connector"
	"github.com/centime/contactsync/internal/contact"
)

// A Reading is what a page says: ids that can be stored, texts that are cleaned, channels taken apart. It needs nothing that is held, and
// so can be made before it is that page's turn.
type Reading struct {
	Page      connector.Page // as it came
	proper    connector.Page // of it: its links, deletions and bad records, those with a proper id
	customers []saidOfCustomer
	contacts  []saidOfContact
	issues    []issueKey // of what has no id
	lost      int        // refused records without a key
}

type saidOfCustomer struct {
	connector.Customer
	facts  CustomerFacts
	issues []issueKey
}

type saidOfContact struct {
	connector.Contact
	facts  ContactFacts
	points []contact.Point
	issues []issueKey
}

type issueKey struct {
	key           connector.Key
	field, reason string
}

// Read reads a page, which is not changed. What has no id that can be stored is left out: nothing of it could be found again, so it is
// refused.
func Read(page connector.Page) Reading {
	r := Reading{Page: page, customers: make([]saidOfCustomer, 0, len(page.Customers)), contacts: make([]saidOfContact, 0, len(page.Contacts))}
	refuse := func(kind connector.Kind) bool {
		r.issues = append(r.issues, issueKey{connector.Key{Kind: kind}, "id", ReasonBadID})
		r.lost++
		return true
	}
	for _, c := range page.Customers {
		if !ProperID(c.ID) {
			refuse(connector.Customers)
			continue
		}
		r.customers = append(r.customers, readCustomer(c))
	}
	for _, c := range page.Contacts {
		owner, own := contact.OwnerOf(c.ID)
		switch {
		case own && !ProperID(owner): // its customer is refused
		case !ProperID(c.ID):
			refuse(connector.Contacts)
		default:
			r.contacts = append(r.contacts, readContact(c))
		}
	}
	r.proper.Links = without(page.Links, func(l connector.Link) bool {
		if ProperID(l.Customer) && ProperID(l.Contact) {
			return false
		}
		return l.StatedBy != (connector.Key{}) || refuse(connector.Links)
	})
	r.proper.Deleted = without(page.Deleted, func(k connector.Key) bool { return !ProperID(k.ID) })
	r.proper.Bad = slices.Clone(page.Bad)
	for i, b := range r.proper.Bad {
		if !ProperID(b.Key.ID) {
			r.proper.Bad[i].Key.ID = ""
		}
	}
	return r
}

// without is the list without what is dropped: the same list if that is nothing, which is nearly always so and saves a copy.
func without[T any](list []T, drop func(T) bool) []T {
	first := slices.IndexFunc(list, drop)
	if first < 0 {
		return list
	}
	kept := slices.Clone(list[:first])
	for _, one := range list[first+1:] {
		if !drop(one) {
			kept = append(kept, one)
		}
	}
	return kept
}

// ProperID says whether an ERP's id can be stored: it is short and printable. What has no such id is refused.
func ProperID(id string) bool {
	return id != "" && len(id) <= 200 && utf8.ValidString(id) && !strings.ContainsFunc(id, unicode.IsControl)
}

// cleaned trims a text and cuts out the only two things Postgres cannot store: NUL and invalid UTF-8 (which is how a lone
// surrogate arrives).
func cleaned(s string) (text string, cut bool) {
	if !utf8.ValidString(s) || strings.ContainsRune(s, 0) {
		cut = true
		s = strings.ReplaceAll(strings.ToValidUTF8(s, ""), "\x00", "")
	}
	return strings.TrimSpace(s), cut
}

// notes are the issues of one record.
type notes struct {
	of  connector.Key
	met []issueKey
}

func (n *notes) add(field, reason string) { n.met = append(n.met, issueKey{n.of, field, reason}) }

func (n *notes) clean(field, s string) string {
	text, cut := cleaned(s)
	if cut {
		n.add(field, ReasonTextCut)
	}
	return text
}

func readCustomer(c connector.Customer) saidOfCustomer {
	n := notes{of: connector.Key{Kind: connector.Customers, ID: c.ID}}
	facts := CustomerFacts{
		Number: n.clean("number", c.Number), Name: n.clean("name", c.Name),
		ParentID: n.clean("parent", c.ParentID), BillWithParent: c.BillWithParent, Kind: c.Kind,
	}
	if facts.Name == "" {
		n.add("name", ReasonEmptyName)
	}
	return saidOfCustomer{c, facts, n.met}
}

func readContact(c connector.Contact) saidOfContact {
	n := notes{of: recordOf(c.ID)}
	facts := ContactFacts{
		Name: n.clean("contact name", c.Name), GivenName: n.clean("given name", c.GivenName),
		FamilyName: n.clean("family name", c.FamilyName), JobTitle: n.clean("job title", c.JobTitle),
	}
	points := n.points(c.Channels)
	return saidOfContact{c, facts, points, n.met}
}

// points reads a contact's channels. A field met twice goes on counting its places, so that no value is lost.
func (n *notes) points(channels []connector.Channel) []contact.Point {
	points := make([]contact.Point, 0, len(channels))
	for _, ch := range channels {
		value := n.clean(ch.Field, ch.Value)
		place := 0
		for _, before := range slices.Backward(points) {
			if before.Field == ch.Field {
				place = before.Place
				break
			}
		}
		for _, point := range contact.Points(ch.Kind, ch.Field, value, ch.Main) {
			place++
			point.Place = place
			if !point.Usable {
				n.add(ch.Field, ReasonNoAddress)
			}
			points = append(points, point)
		}
	}
	contact.MarkPrimary(points)
	return points
}

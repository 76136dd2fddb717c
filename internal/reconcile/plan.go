// Package reconcile decides what a page of an ERP changes: what we hold and what the ERP says become a Plan. It is pure,
// so that a preview and the run itself cannot differ.
//
// Three rules stand behind every line of it. Additions and updates are planned at once. Going (inactive, detached,
// absent) is only noted, since at the end of the run the brake decides over all of it. And what Centime created is not
// even looked at: the database hides it from the sync's writes.
package reconcile

import (
	"slices"
	"strings"
	"time"

	"github.com/centime/contactsync/internal/connector"
	"github.com/centime/contactsync/internal/contact"
)

// Held is what we hold of the records that a page names; of a customer or contact that only its links refer to, the ID alone.
// Everything in it has origin erp.
type Held struct {
	Customers map[string]HeldCustomer // by the ERP's id
	Contacts  map[string]HeldContact  // by the ERP's id
	Links     map[Pair]HeldLink       // of the page's contacts, and those that its customers stated
	Roles     map[string]string       // ERP role key -> name, as last stated
	Counted   map[connector.Key]bool  // records that an earlier page of this run named, and counted
	Erased    map[connector.Key]bool  // records of people who were erased: passed over; of a customer, its own contact
}

// Pair names a link by the ERP's ids.
type Pair struct{ Customer, Contact string }

// HeldCustomer is a stored customer.
type HeldCustomer struct {
	ID     int64
	Active bool
	Reason contact.InactiveReason
	Facts  CustomerFacts
}

// CustomerFacts is what an ERP states of a customer and a change of which is a change.
type CustomerFacts struct {
	Number         string
	Name           string
	ParentID       string
	BillWithParent bool
	Kind           contact.CustomerKind
}

// HeldContact is a stored contact of an ERP.
type HeldContact struct {
	ID     int64
	Active bool
	Reason contact.InactiveReason
	Facts  ContactFacts
	Points []contact.Point
}

// ContactFacts is what an ERP states of a contact, its points aside.
type ContactFacts struct {
	Name, GivenName, FamilyName, JobTitle string
}

// HeldLink is a stored customer contact of an ERP.
type HeldLink struct {
	ID            int64
	New           bool // made since the run's listing began
	Active        bool
	StatedBy      []string // Stater values
	LinkRoleKey   string   // what the link's own row states; empty: no role
	RecordRoleKey string   // what the record that states it says
}

// A Plan is what a page changes.
type Plan struct {
	Customers []CustomerChange
	Contacts  []ContactChange
	Links     []LinkChange
	Roles     []connector.ERPRole // met for the first time, or renamed
	Going     Going
	Named     Named
	Stated    []Pair          // links that the page states, by any record
	Issues    []Issue         // all that is wrong with the page's records now
	Read      []connector.Key // the records an open issue of which closes unless it is in Issues
	Counts    Counts
}

// A Change is one fact that is different now. Values are as people read them in the history.
type Change struct {
	Field       string
	Was, Became string
}

// CustomerChange creates (ID 0) or updates a customer.
type CustomerChange struct {
	ID         int64
	ERPID      string
	Facts      CustomerFacts
	Active     bool
	Reason     contact.InactiveReason
	ModifiedAt time.Time
	Changes    []Change // empty for a new one
}

// ContactChange creates (ID 0) or updates a contact, its points included.
type ContactChange struct {
	ID         int64
	ERPID      string
	Facts      ContactFacts
	Active     bool
	Reason     contact.InactiveReason
	ModifiedAt time.Time
	Put        []contact.Point // new or different
	Drop       []contact.Point // no longer there
	Changes    []Change
}

// LinkChange creates (ID 0) or updates a customer contact.
type LinkChange struct {
	ID            int64
	Pair          Pair
	Active        bool
	StatedBy      []string
	LinkRoleKey   string
	RecordRoleKey string
	Changes       []Change
}

// Going is what the page says goes, noted until the end of the run. A customer's own contact goes with the customer and
// is not listed.
type Going struct {
	Customers []int64 // stated inactive while we hold them active
	Contacts  []int64
	Unstated  []Unstated
	Deleted   []connector.Key // of those we hold active
}

// Unstated is a link that a record stated before and does not now.
type Unstated struct {
	Link int64
	By   string // Stater
}

// Named is what the page named, by the ERP's ids: seen, whatever became of it.
type Named struct {
	Customers []string
	Contacts  []string // a customer's own contact is not a record of its own
	Links     []Pair   // links that are rows of their own
	Unread    []string // of the contacts, those of which nothing could be read
}

// Issue is something wrong with a record: a state, opened and closed by what is read.
type Issue struct {
	Key    connector.Key
	Field  string
	Reason string
	Count  int
}

// Counts of a page. Read is the sum of the first five; WithIssue counts beside them.
type Counts struct {
	Created, Updated, Unchanged, Ignored, Refused int
	WithIssue                                     int
}

// Read is how many records the page accounts for.
func (c Counts) Read() int { return c.Created + c.Updated + c.Unchanged + c.Ignored + c.Refused }

// StatedByLink is the Stater of a link that is a row of its own in the ERP.
const StatedByLink = "link"

// Stater is who states a link, as it is stored.
func Stater(by connector.Key) string {
	if by == (connector.Key{}) {
		return StatedByLink
	}
	return string(by.Kind) + ":" + by.ID
}

// StatesAnother says whether a customer's record states the place of a contact that is not its own.
func (l LinkChange) StatesAnother() bool {
	return slices.ContainsFunc(l.StatedBy, func(by string) bool {
		customer, ok := strings.CutPrefix(by, Stater(connector.Key{Kind: connector.Customers}))
		return ok && l.Pair.Contact != contact.OwnID(customer)
	})
}

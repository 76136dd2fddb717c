// Package connector is the contract between the sync and an ERP: what a connector reports, in which order, and how it
// fails. Package connectortest holds its promises as a suite that every connector passes.
package connector

import (
	"context"
	"iter"
	"net/http"
	"time"

	"github.com/centime/contactsync/internal/contact"
)

// A Source reads the customers and contacts of one ERP account.
//
// It reports what the ERP says and nothing else: it does not retry, map, decide or store, and it has no way to write.
// Text is reported as the ERP sent it; it may hold NUL and invalid UTF-8 (a lone surrogate arrives as its three WTF-8
// bytes), which package reconcile cuts out and opens an issue for.
type Source interface {
	// Check says whose company the credentials open, and what they may read.
	Check(ctx context.Context) (Check, error)

	// Pull yields what changed since the last finished run, or everything. It ends with its first error or after the
	// page that has an End; a sequence that stops without either is a cut pull. A page names a record once. A record may
	// come again on a later page if it changed meanwhile; none is skipped, whatever changes in the ERP during the pull.
	// Pull fetches a page only when asked for it, and stops at once when the loop over it is left.
	Pull(ctx context.Context, p Pull) iter.Seq2[Page, error]

	// Lookup reads these records now, inactive ones too, and links that are rows of their own, at most LookupMax at a time.
	// A key missing from the answer is gone or hidden. It is errors.ErrUnsupported where the ERP cannot be asked
	// (QuickBooks Desktop).
	Lookup(ctx context.Context, keys []Key) (Page, error)

	// Customer reads one customer as it is now, active or not, with all that is at it: its own contact, every link that
	// is a row of its own, and the contacts attached to it, whoever states that. The page names no other customer and has
	// neither Next nor End; if it does not name the customer, that is gone or hidden. It is errors.ErrUnsupported where
	// the ERP cannot be asked.
	Customer(ctx context.Context, id string) (Page, error)
}

// LookupMax is the largest number of keys that one Lookup is asked for.
const LookupMax = 500

// A Cursor is what a connector needs to continue: opaque to everybody else, versioned by the connector, which answers
// one it does not understand with an Expired error. Empty means from the start.
type Cursor string

// Pull says where a pull begins.
type Pull struct {
	Since  Cursor // End.Cursor of the last finished run; empty: list everything
	Resume Cursor // Next of the last saved page of this run; empty: from the start
}

// A Page is what one answer of the ERP held, or a few that belong together.
type Page struct {
	Customers []Customer
	Contacts  []Contact
	Links     []Link
	Deleted   []Key // the ERP says so: a claim, looked up before it counts
	Bad       []Bad
	Next      Cursor // Pull.Resume that continues right after this page
	End       *End   // on the last page only
}

// End closes a pull.
type End struct {
	Cursor Cursor // Since of the next run
	Listed []Kind // kinds of which this pull, from its first page on, named every record the login may see
	Rights string // what the login may read, in a form to compare; empty where the ERP has no such notion
}

// Kind is a kind of record.
type Kind string

// The kinds of record. Links in End.Listed speaks of links with no StatedBy only.
const (
	Customers Kind = "customer"
	Contacts  Kind = "contact"
	Links     Kind = "link"
)

// Key names a record of an ERP account. A customer's own contact has no key: it is the customer's record.
type Key struct {
	Kind Kind
	ID   string // of a link: LinkID
}

// LinkID is the Key.ID of a link.
func LinkID(customer, contact string) string { return customer + "/" + contact }

// A Customer is a company or person the tenant invoices. With it comes, on the same page, the contact that its own
// record is: a Contact with ID contact.OwnID(ID), and a Link of the two with StatedBy the customer and the ERP role
// CompanyRole, also when it has no address.
type Customer struct {
	ID             string
	Number         string // the ERP's human number or code, where it has one
	Name           string
	ParentID       string // empty at the top
	BillWithParent bool
	Kind           contact.CustomerKind
	Active         bool
	ModifiedAt     time.Time // the ERP's, zero if it does not say
	Edition        string    // what else tells one edit from the next, where ModifiedAt also moves without an edit; empty: ModifiedAt does
}

// A Contact is a person or mailbox.
type Contact struct {
	ID         string
	Name       string
	GivenName  string
	FamilyName string
	JobTitle   string
	Active     bool
	Channels   []Channel // only those with a value; absent means cleared
	ModifiedAt time.Time
	Edition    string // as a Customer's
}

// A Channel is one field of a contact's record by which it can be reached, raw: a mail field may hold several addresses.
type Channel struct {
	Kind  contact.PointKind
	Field string // the ERP's name of the field
	Value string
	Main  bool // the field that mail goes to
}

// A Link is a contact's place at one customer. A record brings all the links it states: those it stated before and
// does not now are detached. A contact is attached while anyone states it.
type Link struct {
	Customer string
	Contact  string
	StatedBy Key       // the record it came with; zero: a row of its own
	Roles    []ERPRole // at most one from today's ERPs
}

// ERPRole is a role as the ERP states it, known by its key and never by its name.
type ERPRole struct {
	Key  string
	Name string
}

// CompanyRole is the ERP role of a customer's own record.
var CompanyRole = ERPRole{Key: contact.CompanyRoleKey, Name: "Company Contact"}

// Bad is a record or field of a record that could not be understood. A record that is also on the page was stored
// without the field; one that is not was refused. Never the value: reports are read by people who may not see it.
type Bad struct {
	Key    Key // ID empty if unreadable, which keeps the kind out of End.Listed
	Field  string
	Reason string // a few words in snake case, such as missing_id
}

// Check is what a login opens.
type Check struct {
	Account string // the ERP's own identity of the company
	Company string // its name, for people
	Rights  []Right
	Notes   []string // what a person should know or do, a sentence each
}

// A Right is something a login may or may not read.
type Right struct {
	Name     string
	Readable bool
	Needed   bool
	Fix      string // what an administrator of the ERP does about it
}

// A Connector knows one ERP: how to log in, and how to open a Source.
type Connector interface {
	// Name is the ERP in the database and on the command line, such as quickbooks-online.
	Name() string
	// Label is the ERP for people, such as QuickBooks Online.
	Label() string
	// Validate checks an account id and a credentials file, as given to `syncctl connection add`, without a request.
	// The error says what is wrong with which key and never repeats a value.
	Validate(account string, c Credentials) error
	// Renew asks the ERP for a new access token; of the account it needs no more than ID, APIURL and TokenURL. It returns
	// what is to be stored from now on: the caller saves it before anybody uses it. Denied: the ERP refused these
	// credentials. Misconfigured: it refused this installation. Any other error leaves open whether the ERP has acted, and
	// the stored credentials stand.
	Renew(ctx context.Context, a Account, c Credentials) (Credentials, error)
	// Open returns the Source of one account. It makes no request.
	Open(a Account) Source
	// LongestRequest bounds what a page may take: one request of the Source, a fresh token and its repetition after a 401 included,
	// and quick ones before it.
	LongestRequest() time.Duration
	// Limits are what the ERP allows one account.
	Limits() Limits
	// Rights puts End.Rights, as it was stored, into words: what the login may and may not read. Nil where the ERP has no
	// such notion, and for a text that another version stored.
	Rights(stored string) []Right
}

// Limits are what an ERP allows one account, whoever asks. Zero is no limit.
type Limits struct {
	PerSecond float64
	PerMinute int
	AtOnce    int // requests without an answer yet
}

// Called is asked before a data request is sent; its error stops the request. Otherwise answered, which is not nil, is
// called once when the request is over, answered or not.
type Called func(ctx context.Context) (answered func(), err error)

// An Account is what a Source is opened with.
type Account struct {
	ID       string // the ERP's own identity of the company
	APIURL   string // empty: the ERP's production host
	TokenURL string // the same of tokens
	Tokens   Tokens
	// Called is asked for each data request, not for token requests; nil: none is refused or counted.
	Called Called
	// Transport carries the requests; nil: one with time-outs, shared by the process.
	Transport http.RoundTripper
}

// Tokens hands out access tokens. Both methods return only tokens that are saved.
type Tokens interface {
	Token(ctx context.Context) (string, error)
	// Renewed is asked after the ERP refused a token: it returns another one, renewed only if the stored one is still the
	// refused one.
	Renewed(ctx context.Context, refused string) (string, error)
}

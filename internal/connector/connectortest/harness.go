// Package connectortest is the contract of package connector as a suite that every Source passes against a simulation
// of its ERP.
//
// A connector's test is one call of Run with a Harness, which plays the ERP. A case is a few lines that change what the
// ERP holds, pull it with fresh Sources into a mirror, and compare; when it fails it prints the promise that is broken.
package connectortest

import (
	"time"

	"github.com/centime/contactsync/internal/connector"
)

// A Harness plays the ERP on the far side of a Source: what it holds, and how it fails. Each has an account of its own.
//
// The ERP's clock stands still unless Pass moves it, so that changes share the second with each other and with a pull.
// A Harness is used by one goroutine, while its Source may be in another.
type Harness interface {
	Features() Features

	// Open opens the account as another process would: two Sources share nothing but the cursors the suite carries from
	// one to the other. Called is Account.Called; it may be nil.
	Open(called connector.Called) connector.Source

	// Pass lets the ERP's clock go on.
	Pass(d time.Duration)

	// Add adds an active record and returns its id.
	Add(r Record) (id string)
	// Edit makes a record's name, mail and phone what r says. An empty one is cleared.
	Edit(k connector.Key, r Record)
	Inactivate(k connector.Key)
	Reactivate(k connector.Key)
	// Remove deletes a record or merges it away, so that the ERP no longer knows its id.
	Remove(k connector.Key)
	// Attach gives a contact a place at a customer, or another of Features.Roles there.
	Attach(customer, contact string, role connector.ERPRole)
	Detach(customer, contact string)
	// Spoil damages a record in one of the ways in Features.Damages.
	Spoil(k connector.Key, d Damage)

	// Fail plays one of Features.Faults.
	Fail(f Fault)
	// Hang leaves the next data request without an answer until the Source gives it up. The channel is closed when that
	// request has arrived.
	Hang() (arrived <-chan struct{})

	// Requests is every data request that reached the ERP, in order. Requests for tokens are none.
	Requests() []Request
	// Secrets is every secret that the Source was given so far: tokens, keys.
	Secrets() []string
}

// Features is what a far side and its Source can do. The suite skips what they cannot.
type Features struct {
	Account  string              // what Check answers
	PageSize int                 // the number of records that fills a page of a pull, at least 4
	Lists    []connector.Kind    // End.Listed of a full pull that nothing disturbs
	Contacts bool                // contacts of their own, attached to customers
	Roles    []connector.ERPRole // at least two that a contact can have at a customer, if Contacts
	Parents  bool                // customers have parents
	Lookup   bool                // the ERP can be asked for records by key
	Removes  bool                // a record can go altogether
	RawText  bool                // the wire can carry NUL and lone surrogates
	Calls    bool                // the Source sends requests itself, and does not wait to be called
	Waits    bool                // a throttled answer says how long to wait
	Faults   []Fault
	Damages  []Damage
}

// A Record is a customer or contact for the far side to hold.
type Record struct {
	Kind    connector.Kind // Customers or Contacts
	Name    string         // of the company or, of a contact, the given and family name; unlike any other record's
	Mail    string         // the text of the main mail field, raw; empty: none
	Phone   string         // the text of the phone field; empty: none
	Parent  string         // of a customer: its parent's id
	Company string         // of a contact: its main customer, which it is attached to without a role
}

// A Fault is a way in which an ERP fails. One that is not said to stay ends with the next data request.
type Fault string

// The faults.
const (
	Throttle     Fault = "throttle"     // too many requests; an ERP that can say how long to wait says Wait
	Revoke       Fault = "revoke"       // the login is withdrawn; this stays
	Misconfigure Fault = "misconfigure" // this installation is refused, such as its client id; this stays
	Reject       Fault = "reject"       // the request is said to be wrong; a text that comes with it quotes Quote
	Break        Fault = "break"        // the ERP's own failure, such as a 503
	Cut          Fault = "cut"          // the answer ends in its middle
)

// Wait is how long Throttle asks to wait.
const Wait = 7 * time.Second

// Quote is what the ERP's text of a rejection quotes from a record.
const Quote = "quoted.person@quoted.example"

// A Damage is a way in which a record cannot be understood.
type Damage string

// The damages.
const (
	NotText    Damage = "not_text"   // the main mail field holds something that is no text
	Unreadable Damage = "unreadable" // no more than the id of the record can be read
	NoID       Damage = "no_id"      // the id of the record is missing or cannot be read
)

// A Request is what a Source asked of the ERP.
type Request struct {
	What  string // for people: method and path, or the statement
	Write bool   // if the ERP had obeyed, it would have changed something
}

package memory

import (
	"context"
	"slices"

	"github.com/centime/contactsync/internal/connector"
)

// Damage is a way in which a record cannot be understood.
type Damage string

// The ways.
const (
	NotText    Damage = "not_text"    // its main mail field is no text: it comes without, and a Bad beside it
	Unreadable Damage = "unreadable"  // only its id is readable: a Bad comes in its place
	NoID       Damage = "missing_id"  // it has no id: a Bad without one comes in its place
	None       Damage = "none at all" // it is whole again
)

// Spoil damages a record, which is a change of a customer or contact. A link can be Unreadable.
func (e *ERP) Spoil(k connector.Key, d Damage) {
	e.change(func() {
		switch k.Kind {
		case connector.Customers:
			e.customer(k.ID).changed = e.clock
		case connector.Contacts:
			e.person(k.ID).changed = e.clock
		case connector.Links: // all of them are in each pull
		}
		if d == None {
			delete(e.damage, k)
		} else {
			e.damage[k] = d
		}
	})
}

// spoilt is what to report of a damaged record, and whether that is all there is of it.
func (e *ERP) spoilt(k connector.Key) (bad *connector.Bad, whole bool) {
	switch e.damage[k] {
	case NotText:
		return &connector.Bad{Key: k, Field: "email", Reason: string(NotText)}, false
	case Unreadable:
		return &connector.Bad{Key: k, Field: "name", Reason: string(Unreadable)}, true
	case NoID:
		return &connector.Bad{Key: connector.Key{Kind: k.Kind}, Field: "id", Reason: string(NoID)}, true
	}
	return nil, false
}

// Op is what a request asks for.
type Op string

// The requests there are: all of them read.
const (
	OpCheck    Op = "check"
	OpPage     Op = "page"
	OpLookup   Op = "lookup"
	OpCustomer Op = "customer"
)

// A Request is one that reached the ERP.
type Request struct {
	Op   Op
	Pull connector.Pull  // of OpPage: what would ask for this page anew
	Keys []connector.Key // of OpLookup and OpCustomer
}

// Requests is every request so far.
func (e *ERP) Requests() []Request {
	e.mu.Lock()
	defer e.mu.Unlock()
	return slices.Clone(e.requests)
}

// Before sets what is called with each request before it is answered; nil ends it. It may change the ERP, and block
// until ctx ends. An error is the answer.
func (e *ERP) Before(f func(ctx context.Context, r Request) error) {
	e.mu.Lock()
	defer e.mu.Unlock()
	e.before = f
}

// Refuse answers every request with err until Refuse(nil).
func (e *ERP) Refuse(err error) {
	e.mu.Lock()
	defer e.mu.Unlock()
	e.refusal = err
}

// FailNext answers one request with err: the next one, or the one after those failing already.
func (e *ERP) FailNext(err error) {
	e.mu.Lock()
	defer e.mu.Unlock()
	e.failures = append(e.failures, err)
}

// FailPage answers the k-th page asked for from now on with err; 1 is the next.
func (e *ERP) FailPage(k int, err error) {
	e.mu.Lock()
	defer e.mu.Unlock()
	e.atPage[e.pages+k] = err
}

// CutPage ends the pull in place of the k-th page asked for from now on, with neither an error nor an End: the cut pull
// that a caller must not take for a whole one. 1 is the next page.
func (e *ERP) CutPage(k int) { e.FailPage(k, errCut) }

// arrive logs a request, and returns the fault that answers it.
func (e *ERP) arrive(ctx context.Context, r Request) error {
	e.mu.Lock()
	e.requests = append(e.requests, r)
	before := e.before
	e.mu.Unlock()
	if before != nil {
		if err := before(ctx, r); err != nil {
			return err
		}
	}
	if err := ctx.Err(); err != nil {
		return err
	}
	e.mu.Lock()
	defer e.mu.Unlock()
	if e.refusal != nil {
		return e.refusal
	}
	if len(e.failures) > 0 {
		err := e.failures[0]
		e.failures = e.failures[1:]
		return err
	}
	if r.Op == OpPage {
		e.pages++
		err := e.atPage[e.pages]
		delete(e.atPage, e.pages)
		return err
	}
	return nil
}

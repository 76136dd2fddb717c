package memory

import (
	"context"
	"encoding/json"
	"errors"
	"iter"
	"maps"
	"slices"

	"github.com/centime/contactsync/internal/connector"
)

// errCut ends a sequence silently.
var errCut = errors.New("memory: the pull is cut")

// cursorVersion changes whenever an older cursor would be misread.
const cursorVersion = 1

// A cursor is End.Cursor without a place, Next with one.
type cursor struct {
	Version int    `json:"v"`
	Epoch   int    `json:"epoch,omitempty"`
	Since   int64  `json:"since,omitempty"`
	Place   *place `json:"place,omitempty"`
}

// A place is where a pull under way is, with what its pages so far have to say about its End.
type place struct {
	Full  bool             `json:"full,omitempty"`
	Since int64            `json:"since,omitempty"`
	Began int64            `json:"began"`           // the clock when its first page was read
	After *position        `json:"after,omitempty"` // the last row named
	NoID  []connector.Kind `json:"no_id,omitempty"` // kinds that a row without an id was of
}

type position struct {
	Phase int            `json:"phase"`
	Kind  connector.Kind `json:"kind"`
	ID    string         `json:"id"`
}

func (p position) row() row { return row{p.Phase, connector.Key{Kind: p.Kind, ID: p.ID}} }

func (c cursor) text() connector.Cursor {
	c.Version = cursorVersion
	b, err := json.Marshal(c)
	if err != nil {
		panic(err) // numbers and strings only
	}
	return connector.Cursor(b)
}

// parseCursor answers what this version did not write with an Expired error.
func parseCursor(text connector.Cursor) (cursor, error) {
	var c cursor
	if err := json.Unmarshal([]byte(text), &c); err != nil || c.Version != cursorVersion {
		return cursor{}, expired("written by another version")
	}
	return c, nil
}

func expired(message string) error {
	return &connector.Error{Kind: connector.Expired, Step: "read cursor", Message: message}
}

// A Source reads an ERP in memory.
type Source struct {
	erp     *ERP // nil: no such account
	account connector.Account
}

var _ connector.Source = (*Source)(nil)

// Source opens the ERP without a login.
func (e *ERP) Source() *Source {
	return &Source{erp: e, account: connector.Account{ID: e.account}}
}

// Check says whose company it is. In the NetSuite style a kind hidden as a whole is a right that is missing.
func (s *Source) Check(ctx context.Context) (connector.Check, error) {
	if err := s.send(ctx, Request{Op: OpCheck}); err != nil {
		return connector.Check{}, err
	}
	e := s.erp
	e.mu.Lock()
	defer e.mu.Unlock()
	check := connector.Check{Account: e.account, Company: "Company " + e.account}
	if e.style == NetSuite {
		for _, k := range phases {
			check.Rights = append(check.Rights, connector.Right{
				Name: string(k), Readable: e.visible(connector.Key{Kind: k}), Needed: true,
				Fix: "give the role the permission to view every " + string(k),
			})
		}
	}
	return check, nil
}

// Pull yields pages by id, see connector.Source.
func (s *Source) Pull(ctx context.Context, p connector.Pull) iter.Seq2[connector.Page, error] {
	return func(yield func(connector.Page, error) bool) {
		for {
			if err := s.send(ctx, Request{Op: OpPage, Pull: p}); err != nil {
				if !errors.Is(err, errCut) {
					yield(connector.Page{}, err)
				}
				return
			}
			page, err := s.erp.page(p)
			if err != nil {
				yield(connector.Page{}, err)
				return
			}
			if !yield(page, nil) || page.End != nil {
				return
			}
			p.Resume = page.Next
		}
	}
}

// Lookup reads records by key, links that are rows of their own too. See connector.Source.
func (s *Source) Lookup(ctx context.Context, keys []connector.Key) (connector.Page, error) {
	if len(keys) > connector.LookupMax {
		return connector.Page{}, &connector.Error{Kind: connector.Rejected, Step: "look up", Message: "too many keys"}
	}
	if err := s.send(ctx, Request{Op: OpLookup, Keys: slices.Clone(keys)}); err != nil {
		return connector.Page{}, err
	}
	e := s.erp
	e.mu.Lock()
	defer e.mu.Unlock()
	var page connector.Page
	met := map[connector.Key]bool{}
	for _, k := range keys {
		if !met[k] {
			e.put(&page, k)
		}
		met[k] = true
	}
	return page, nil
}

// Customer reads one customer with the links and contacts at it, see connector.Source.
func (s *Source) Customer(ctx context.Context, id string) (connector.Page, error) {
	key := connector.Key{Kind: connector.Customers, ID: id}
	if err := s.send(ctx, Request{Op: OpCustomer, Keys: []connector.Key{key}}); err != nil {
		return connector.Page{}, err
	}
	e := s.erp
	e.mu.Lock()
	defer e.mu.Unlock()
	var page connector.Page
	if !e.put(&page, key) {
		return page, nil
	}
	at := map[string]bool{}
	for _, link := range slices.Sorted(maps.Keys(e.links)) {
		if l := e.links[link]; l.Customer == id {
			e.put(&page, connector.Key{Kind: connector.Links, ID: link})
			at[l.Contact] = true
		}
	}
	for contactID, p := range e.contacts {
		if p.company == id {
			at[contactID] = true
		}
	}
	for _, contactID := range slices.Sorted(maps.Keys(at)) {
		e.put(&page, connector.Key{Kind: connector.Contacts, ID: contactID})
	}
	return page, nil
}

// begin reads a Pull's cursors.
func (e *ERP) begin(p connector.Pull) (place, error) {
	at := place{Full: p.Since == "", Began: e.clock}
	text := p.Since
	if p.Resume != "" {
		text = p.Resume
	}
	if text == "" {
		return at, nil
	}
	c, err := parseCursor(text)
	if err != nil {
		return at, err
	}
	if (c.Place != nil) != (p.Resume != "") {
		return at, expired("of another use")
	}
	if c.Place != nil {
		at = *c.Place
	} else {
		at.Since = c.Since
	}
	if c.Epoch != e.epoch || at.Since > e.clock || at.Began > e.clock {
		return at, expired("too old")
	}
	return at, nil
}

// page reads the next page of a pull.
func (e *ERP) page(p connector.Pull) (connector.Page, error) {
	e.mu.Lock()
	defer e.mu.Unlock()
	at, err := e.begin(p)
	if err != nil {
		return connector.Page{}, err
	}
	rows := e.rows(at)
	more := len(rows) > e.pageSize
	if more {
		rows = rows[:e.pageSize]
	}
	var page connector.Page
	at.NoID = slices.Clone(at.NoID)
	for _, r := range rows {
		if r.phase == len(phases) {
			page.Deleted = append(page.Deleted, r.key)
		} else {
			e.put(&page, r.key)
		}
		if e.damage[r.key] == NoID && !slices.Contains(at.NoID, r.key.Kind) {
			at.NoID = append(at.NoID, r.key.Kind)
		}
		at.After = &position{r.phase, r.key.Kind, r.key.ID}
	}
	page.Next = cursor{Epoch: e.epoch, Place: &at}.text()
	if !more {
		page.End = &connector.End{
			Cursor: cursor{Epoch: e.epoch, Since: at.Began}.text(), Listed: e.listed(at), Rights: e.rights}
	}
	return page, nil
}

// listed is the kinds of which a pull has named every record.
func (e *ERP) listed(at place) []connector.Kind {
	var kinds []connector.Kind
	switch {
	case e.style == NetSuite && at.Full:
		kinds = slices.Clone(phases)
	case e.style == NetSuite:
		kinds = []connector.Kind{connector.Links}
	case at.Full:
		kinds = []connector.Kind{connector.Customers}
	}
	return slices.DeleteFunc(kinds, func(k connector.Kind) bool { return slices.Contains(at.NoID, k) })
}

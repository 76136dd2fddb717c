package suiteql

import (
	"cmp"
	"context"
	"math"
	"slices"
	"time"

	"github.com/centime/contactsync/internal/connector"
)

// A listing is rows of a table that were fetched and are on no page yet.
type listing struct {
	t       *table
	rows    []row
	keys    []place  // of the rows; of one that cannot be read, that of the next one in its answer, or the last
	fetched progress // behind the rows
}

// fetch asks for the rows behind those it has.
func (l *listing) fetch(ctx context.Context, s *Source, c *cursor) error {
	at := l.fetched.At
	a, err := s.query(ctx, "list "+l.t.what, l.t.statement(c.Lacks, l.t.next(c.Lacks, at, c.Since)), cmp.Or(c.of(l.t).Size, s.pageSize))
	if err != nil {
		return err
	}
	if err := l.t.advance(&at, a.rows); err != nil {
		return err
	}
	if a.hasMore && at == l.fetched.At {
		return outOfOrder(l.t.what)
	}
	keys, key := make([]place, len(a.rows)), at
	for i, r := range slices.Backward(a.rows) {
		if own, ok := l.t.keyOf(r); ok {
			key = own
		}
		keys[i] = key
	}
	l.rows, l.keys = append(l.rows, a.rows...), append(l.keys, keys...)
	l.fetched = progress{At: at, All: !a.hasMore}
	return nil
}

// upTo is how many of the rows are of a record up to this one.
func (l *listing) upTo(last int64) int {
	n, _ := slices.BinarySearchFunc(l.keys, last, func(k place, last int64) int {
		if k.Last <= last {
			return -1
		}
		return 1
	})
	return n
}

// fill puts the first n rows on a page and moves the cursor behind them.
func (l *listing) fill(page *connector.Page, c *cursor, n int) {
	l.t.fill(page, l.rows[:n], c.Lacks)
	if n > 0 {
		c.of(l.t).At = l.keys[n-1]
	}
	l.rows, l.keys = slices.Clone(l.rows[n:]), slices.Clone(l.keys[n:]) // what is on the page is not kept in memory
	c.of(l.t).All = l.fetched.All && len(l.rows) == 0
}

// people are contacts and their places, which are listed side by side and both by contact, so that a page has contacts
// with the places they have: saved together, a place is written once, and not again when its own row comes.
type people struct {
	contacts, places listing
	failed           error // the request after what is on the last page
}

func newPeople(c *cursor) *people {
	return &people{
		contacts: listing{t: contactTable, fetched: *c.of(contactTable)}, places: listing{t: relationTable, fetched: *c.of(relationTable)},
	}
}

// Patience is how long the requests of a page may take before it goes without the places of its last contacts: a page that
// takes longer than a step would never be saved.
const Patience = 10 * time.Second

// people puts the next contacts and places on a page. No place comes before its contact.
func (s *Source) people(ctx context.Context, c *cursor, p *people, page *connector.Page) error {
	if p.failed != nil {
		return p.failed
	}
	began, before, hurried := s.clock.Now(), *c, false
	for next := p.next(s.pageSize); next != nil && !hurried; next = p.next(s.pageSize) {
		asked := s.clock.Now()
		p.failed = next.fetch(ctx, s, c)
		if ctx.Err() != nil || aboutStatement(p.failed) && !c.Again {
			return cmp.Or(p.failed, ctx.Err())
		}
		if connector.KindOf(p.failed) == connector.Denied {
			return p.failed // kept for the next page, a step that ends on this one would lose it, and the next step log in again
		}
		took := s.clock.Now().Sub(asked)
		if next == &p.places && tooMuch(c.Lacks, p.failed, took) {
			c.Lacks = c.Lacks.with(relationTable.of(firstPrimary))
			if aboutStatement(p.failed) {
				p.failed = nil
			}
		} else if p.failed != nil {
			c.of(next.t).shrink(s.pageSize, p.failed, took)
		} else {
			c.of(next.t).grow(s.pageSize, took)
		}
		// What was fetched before a failure is saved, so that a connection with room for one request at a time gets on.
		hurried = p.failed != nil || s.clock.Now().Sub(began) >= Patience
	}
	last := int64(math.MaxInt64)
	if !p.places.fetched.All && !hurried {
		last = p.places.fetched.At.Last
	}
	contacts := p.contacts.upTo(last)
	switch {
	case contacts < len(p.contacts.rows):
		last = p.contacts.keys[contacts].Last - 1
	case p.contacts.fetched.All:
		last = math.MaxInt64
	default:
		last = p.contacts.fetched.At.Last
	}
	p.places.fill(page, c, p.places.upTo(last))
	p.contacts.fill(page, c, contacts)
	if c.Read == before.Read && slices.Equal(c.Lacks, before.Lacks) {
		return p.failed
	}
	return nil
}

// next is what to fetch before there is a page; nil: there is one. It has the places of the contacts in hand, or two answers
// of places.
func (p *people) next(pageSize int) *listing {
	inHand := len(p.contacts.rows)
	switch {
	case inHand == 0 && !p.contacts.fetched.All:
		return &p.contacts
	case p.places.fetched.All || len(p.places.rows) >= 2*pageSize:
		return nil
	case inHand > 0 && !p.contacts.fetched.All && p.places.fetched.At.Last > p.contacts.fetched.At.Last:
		return nil
	}
	return &p.places
}

// tooMuch says whether relations are to be asked for without firstPrimary from now on, after a request that may have failed and took so
// long: one row with a statement within the statement was no trouble to NetSuite, and perhaps a thousand are.
func tooMuch(l lacks, err error, took time.Duration) bool {
	return !l.has(relationTable.of(firstPrimary)) && err != nil && (aboutStatement(err) || took >= RequestTimeout/2)
}

package suiteql

import (
	"cmp"
	"context"
	"encoding/json"
	"iter"
	"slices"
	"time"

	"github.com/centime/contactsync/internal/connector"
)

const (
	cursorVersion = 2
	// probeEvery is how old a profile may be: permissions change without a word.
	probeEvery = 24 * time.Hour
)

// cursor is both of connector.Pull's cursors: of a finished run it has Since, Lacks and ProbedAt only.
type cursor struct {
	Version  int        `json:"v"`
	Since    *time.Time `json:"since,omitempty"` // changes since then, by NetSuite's clock; nil: everything
	Lacks    lacks      `json:"lacks,omitempty"` // what cannot be read
	ProbedAt *time.Time `json:"probed,omitempty"`

	// Of a pull on its way:
	Began *time.Time       `json:"began,omitempty"` // NetSuite's time before its first row was read
	Probe *probing         `json:"probe,omitempty"` // being found out: what cannot be read
	Again bool             `json:"again,omitempty"` // a statement that had worked failed, so it was found out once more
	Was   lacks            `json:"was,omitempty"`   // Lacks before that
	Read  [4]progress      `json:"read,omitzero"`   // of each of tables
	Lost  []connector.Kind `json:"lost,omitempty"`  // kinds that a row without an id was of
}

// fewest is how few rows a listing asks for, however long they take.
const fewest = 10

// grow has twice as many rows of a table asked for again after an answer that came soon: what took too long may have been NetSuite or
// the network, and not the rows.
func (p *progress) grow(usual int, took time.Duration) {
	if took < RequestTimeout/8 {
		if p.Size *= 2; p.Size >= usual {
			p.Size = 0
		}
	}
}

// shrink has half as many rows of a table asked for after a request that may have failed: one that got no answer in time may get none
// the next time either.
func (p *progress) shrink(usual int, err error, took time.Duration) (shrunk bool) {
	size := cmp.Or(p.Size, usual)
	if took < RequestTimeout/2 || connector.KindOf(err) != connector.Transient || size <= fewest {
		return false
	}
	p.Size = max(size/2, fewest)
	return true
}

// progress is how much of a table is on pages.
type progress struct {
	At   place `json:"at,omitzero"` // the key of the last row
	All  bool  `json:"all,omitempty"`
	Size int   `json:"size,omitempty"` // rows to ask for, since more got no answer in time; 0: the usual
}

// done says whether everything is on pages. A full listing needs no claims of deletions.
func (c *cursor) done() bool {
	return c.of(customerTable).All && c.of(contactTable).All && c.of(relationTable).All &&
		(c.of(deletedTable).All || c.Since == nil || c.Lacks.has(deletedTable.name))
}

// of is the progress in a table.
func (c *cursor) of(t *table) *progress { return &c.Read[slices.Index(tables, t)] }

func (c *cursor) text() connector.Cursor {
	b, err := json.Marshal(c)
	if err != nil {
		panic(err) // strings, numbers and times always marshal
	}
	return connector.Cursor(b)
}

func expired(message string) error {
	return &connector.Error{Kind: connector.Expired, Step: "read cursor", Message: message}
}

// begin says where a pull starts.
func begin(p connector.Pull) (cursor, error) {
	text := cmp.Or(p.Resume, p.Since)
	if text == "" {
		return cursor{Version: cursorVersion}, nil
	}
	var c cursor
	err := json.Unmarshal([]byte(text), &c)
	sound := !slices.ContainsFunc(c.Read[:], func(p progress) bool {
		return p.At.Last < 0 || p.Size != 0 && (p.Size < fewest || p.Size > PageSize)
	}) &&
		(c.Probe == nil || c.Probe.Table >= 0 && c.Probe.Table < len(tables) && c.Probe.Column >= 0 &&
			c.Probe.Column-2 < max(1, len(tables[c.Probe.Table].optional())))
	if err != nil || c.Version != cursorVersion || !sound {
		return cursor{}, expired("it is of another version")
	}
	underWay, finished := c.Began != nil, c.Since != nil && c.ProbedAt != nil
	if p.Resume != "" && !underWay || p.Resume == "" && (underWay || !finished) {
		return cursor{}, expired("it is of another kind")
	}
	c.Lacks = c.Lacks.with()
	return c, nil
}

// Pull lists customers, then contacts with their places at customers, by key: what changed by the ERP's clock, or
// everything; places in any case, since nothing dates them. Offsets are not used: rows move under them, and beyond 100,000
// they are cut off silently. The first requests ask for the time and for what the login may read, and hold no row.
func (s *Source) Pull(ctx context.Context, p connector.Pull) iter.Seq2[connector.Page, error] {
	return func(yield func(connector.Page, error) bool) {
		c, err := begin(p)
		if err != nil {
			yield(connector.Page{}, err)
			return
		}
		var ahead *people
		for {
			page, err := s.page(ctx, &c, &ahead)
			if err != nil {
				yield(connector.Page{}, err)
				return
			}
			page.Next = c.text()
			if !yield(page, nil) || page.End != nil {
				return
			}
		}
	}
}

// page makes the requests of the next page, one or a few, and moves the cursor behind it.
func (s *Source) page(ctx context.Context, c *cursor, ahead **people) (page connector.Page, err error) {
	switch {
	case c.Began == nil:
		return page, s.start(ctx, c)
	case c.Probe != nil:
		return page, s.search(ctx, c)
	}
	s.remember(c.Lacks)
	switch {
	case c.done():
	case !c.of(customerTable).All:
		err = s.list(ctx, c, customerTable, &page)
	case !c.of(contactTable).All || !c.of(relationTable).All:
		if *ahead == nil {
			*ahead = newPeople(c)
		}
		err = s.people(ctx, c, *ahead, &page)
	default:
		err = s.list(ctx, c, deletedTable, &page)
	}
	switch {
	case aboutStatement(err) && !c.Again:
		// It worked before: a permission went, a field was hidden, or NetSuite is unwell.
		c.Again, c.Was, c.Lacks, c.Probe, *ahead = true, c.Lacks, lacks{}, &probing{}, nil
		return connector.Page{}, nil
	case err != nil:
		return connector.Page{}, err
	}
	for _, b := range page.Bad {
		if b.Key.ID == "" && !slices.Contains(c.Lost, b.Key.Kind) {
			c.Lost = append(c.Lost, b.Key.Kind)
		}
	}
	if c.done() {
		page.End = c.end()
	}
	return page, nil
}

// list puts the next rows of a table on a page.
func (s *Source) list(ctx context.Context, c *cursor, t *table, page *connector.Page) error {
	l, asked := listing{t: t, fetched: *c.of(t)}, s.clock.Now()
	if err := l.fetch(ctx, s, c); err != nil {
		if ctx.Err() == nil && c.of(t).shrink(s.pageSize, err, s.clock.Now().Sub(asked)) {
			return nil // a page without rows, which says where to go on
		}
		return err
	}
	c.of(t).grow(s.pageSize, s.clock.Now().Sub(asked))
	l.fill(page, c, len(l.rows))
	return nil
}

// start reads the clock. The watermark is NetSuite's own time before the first row was read, and never the highest
// stamp seen: a row edited behind the key would be lost.
func (s *Source) start(ctx context.Context, c *cursor) error {
	now, err := s.serverTime(ctx)
	if err != nil {
		return err
	}
	c.Began = &now
	if c.ProbedAt == nil || now.Sub(*c.ProbedAt) >= probeEvery {
		c.Probe, c.Lacks = &probing{}, lacks{}
	}
	return nil
}

// search makes the next request of a search for what cannot be read.
func (s *Source) search(ctx context.Context, c *cursor) error {
	p := *c.Probe
	l, err := s.probe(ctx, &p, c.Lacks, *c.Began)
	if err == nil {
		err = l.denied() // before it could mistake "may not see" for "gone"
	}
	if err != nil {
		return err
	}
	c.Probe, c.Lacks = &p, l
	if p.Table < len(tables) {
		return nil
	}
	if first := relationTable.of(firstPrimary); c.Was.has(first) || c.Lacks.has(first) {
		c.Was, c.Lacks = c.Was.with(first), c.Lacks.with(first) // given up, and no right
	}
	if c.Again && !slices.Equal(c.Lacks, c.Was.with()) {
		return expired("what the login may read changed during the listing")
	}
	c.Probe, c.Was, c.ProbedAt = nil, nil, c.Began
	return nil
}

// end closes a pull.
func (c *cursor) end() *connector.End {
	since := c.Began.Add(-overlap)
	next := cursor{Version: cursorVersion, Since: &since, Lacks: c.Lacks, ProbedAt: c.ProbedAt}
	end := &connector.End{Cursor: next.text(), Listed: []connector.Kind{connector.Links}, Rights: c.Lacks.text()}
	if c.Since == nil {
		end.Listed = []connector.Kind{connector.Customers, connector.Contacts, connector.Links}
	}
	end.Listed = slices.DeleteFunc(end.Listed, func(k connector.Kind) bool { return slices.Contains(c.Lost, k) })
	return end
}

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
	cursorVersion = 1
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
	Began   *time.Time       `json:"began,omitempty"` // NetSuite's time before its first row was read
	Probe   *probing         `json:"probe,omitempty"` // being found out: what cannot be read
	Again   bool             `json:"again,omitempty"` // a statement that had worked failed, so it was found out once more
	Was     lacks            `json:"was,omitempty"`   // Lacks before that
	Table   int              `json:"table,omitempty"` // of tables, that is being listed
	Last    int64            `json:"last,omitempty"`  // the key of the last row
	Contact int64            `json:"contact,omitempty"`
	Primary int64            `json:"primary,omitempty"`
	Lost    []connector.Kind `json:"lost,omitempty"` // kinds that a row without an id was of
}

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
	sound := c.Table >= 0 && c.Table < len(tables) && c.Last >= 0 && c.Contact >= 0 &&
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

// Pull lists customers, contacts and relations by key: what changed by the ERP's clock, or everything; relations in any
// case, since nothing dates them. Offsets are not used: rows move under them, and beyond 100,000 they are cut off
// silently. A page is one request, or a few about a hidden column. The first ones ask for the time and for what the login
// may read, and hold no row.
func (s *Source) Pull(ctx context.Context, p connector.Pull) iter.Seq2[connector.Page, error] {
	return func(yield func(connector.Page, error) bool) {
		c, err := begin(p)
		if err != nil {
			yield(connector.Page{}, err)
			return
		}
		for {
			page, err := s.page(ctx, &c)
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

// page makes the next request and moves the cursor behind it.
func (s *Source) page(ctx context.Context, c *cursor) (connector.Page, error) {
	switch {
	case c.Began == nil:
		return connector.Page{}, s.start(ctx, c)
	case c.Probe != nil:
		return connector.Page{}, s.search(ctx, c)
	}
	s.remember(c.Lacks)
	t := tables[c.Table]
	at := place{c.Last, c.Contact, c.Primary}
	a, err := s.query(ctx, "list "+t.what, t.statement(c.Lacks, t.next(c.Lacks, at, c.Since)), s.pageSize)
	if aboutStatement(err) && !c.Again {
		// It worked before: a permission went, a field was hidden, or NetSuite is unwell.
		c.Again, c.Was, c.Lacks, c.Probe = true, c.Lacks, lacks{}, &probing{}
		return connector.Page{}, nil
	}
	if err != nil {
		return connector.Page{}, err
	}
	page, err := c.read(t, a, at)
	if err != nil {
		return connector.Page{}, err
	}
	return page, nil
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
	if c.Again && !slices.Equal(c.Lacks, c.Was.with()) {
		return expired("what the login may read changed during the listing")
	}
	c.Probe, c.Was, c.ProbedAt = nil, nil, c.Began
	return nil
}

// read makes a page of an answer.
func (c *cursor) read(t *table, a answer, at place) (page connector.Page, err error) {
	was := at
	switch t {
	case relationTable:
		err = relations(&page, a.rows, &at)
	case deletedTable:
		err = at.advance(a)
		deleted(&page, a.rows)
	default:
		err = at.advance(a)
		t.fill(&page, a.rows, c.Lacks)
	}
	if err != nil {
		return page, err
	}
	for _, b := range page.Bad {
		if b.Key.ID == "" && !slices.Contains(c.Lost, b.Key.Kind) {
			c.Lost = append(c.Lost, b.Key.Kind)
		}
	}
	if a.hasMore {
		if at.last == was.last && at.contact == was.contact {
			return page, outOfOrder(t.what)
		}
		c.Last, c.Contact, c.Primary = at.last, at.contact, at.primary
		return page, nil
	}
	c.Table, c.Last, c.Contact, c.Primary = c.Table+1, 0, 0, 0
	if c.Table == len(tables) || tables[c.Table] == deletedTable && (c.Since == nil || c.Lacks.has(deletedTable.name)) {
		c.Table = 0
		page.End = c.end()
	}
	return page, nil
}

// advance moves a place behind rows with one key each. A row without a readable key moves nothing; it comes again if no
// other row is behind it on its page.
func (p *place) advance(a answer) error {
	for _, r := range a.rows {
		id, ok := parseID(cmp.Or(r.text("id"), r.text("recordid")))
		if !ok {
			continue
		}
		// A deleted record may be there once for each of its types.
		if again := r.cells["recordid"].Set && id == p.last; id <= p.last && !again {
			return outOfOrder("records")
		}
		p.last = id
	}
	return nil
}

func outOfOrder(what string) error {
	return &connector.Error{
		Kind: connector.Transient, Step: "list " + what, Message: "the rows are not in the order that was asked for",
	}
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

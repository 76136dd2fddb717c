package online

import (
	"context"
	"encoding/json"
	"fmt"
	"iter"
	"slices"
	"time"

	"github.com/centime/contactsync/internal/connector"
)

const (
	cursorVersion = 1
	// overlap covers the unknown delay between a change and its showing in queries.
	overlap = 5 * time.Minute
	// maxShifts is how often the rows of one second may shift while it is read.
	maxShifts = 20
)

// cursor is both of connector.Pull's cursors: of a finished run it has From only.
type cursor struct {
	Version int        `json:"v"`
	From    *time.Time `json:"from,omitempty"` // changes since then; nil: everything
	// Of a pull on its way:
	Began *time.Time `json:"began,omitempty"` // server time of its first reply
	Bound *time.Time `json:"bound,omitempty"` // lower bound of the next query, a whole second
	Seen  []string   `json:"seen,omitempty"`  // ids already read of the bound's second
	Start int        `json:"start,omitempty"` // STARTPOSITION, above 1 only within one second that fills a page
	Last  string     `json:"last,omitempty"`  // the id that stood at Start
	Count int64      `json:"count,omitempty"` // ids read so far
	Lost  bool       `json:"lost,omitempty"`  // a row had no id
}

func (c cursor) text() connector.Cursor {
	b, err := json.Marshal(c)
	if err != nil {
		panic(err) // strings, numbers and times always marshal
	}
	return connector.Cursor(b)
}

func parseCursor(text connector.Cursor) (cursor, error) {
	var c cursor
	if err := json.Unmarshal([]byte(text), &c); err != nil || c.Version != cursorVersion || c.Start < 0 || c.Start > 1<<30 {
		return cursor{}, &connector.Error{Kind: connector.Expired, Step: "read cursor", Message: "it is of another version"}
	}
	return c, nil
}

// begin says where a pull starts.
func begin(p connector.Pull) (cursor, error) {
	text := p.Resume
	if text == "" {
		text = p.Since
	}
	if text == "" {
		return cursor{Version: cursorVersion}, nil
	}
	c, err := parseCursor(text)
	switch {
	case err != nil:
		return cursor{}, err
	case p.Resume != "" && c.Began == nil, p.Resume == "" && c.From == nil:
		return cursor{}, &connector.Error{Kind: connector.Expired, Step: "read cursor", Message: "it is of another kind"}
	case p.Resume == "":
		bound := c.From.UTC().Truncate(time.Second)
		c = cursor{Version: cursorVersion, From: c.From, Bound: &bound}
	}
	return c, nil
}

// Pull reads customers in the order of a time of theirs: everything by MetaData.CreateTime, changes by
// MetaData.LastUpdatedTime. It moves the lower bound to the last time read instead of using an offset, so that nothing
// which moves rows (an edit, a rename, the suffix of a deactivation, a merge) shifts an unread row. Keyset paging by id is
// not to be had: Id takes = and IN only.
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
			if !yield(page, nil) || page.End != nil {
				return
			}
		}
	}
}

// page reads the next page and moves the cursor behind it.
func (s *Source) page(ctx context.Context, c *cursor) (connector.Page, error) {
	a, err := s.rows(ctx, c)
	if err != nil {
		return connector.Page{}, err
	}
	if c.Began == nil {
		if a.time.IsZero() {
			return connector.Page{}, &connector.Error{Kind: connector.Transient, Step: "query customers", Message: "the answer has no time"}
		}
		c.Began = &a.time
	}
	whole := len(a.rows)+a.odd < pageSize
	read := a.rows
	a.rows = c.unread(a.rows)
	var page connector.Page
	a.fill(&page)
	c.Count += int64(len(page.Customers))
	c.Lost = c.Lost || slices.ContainsFunc(page.Bad, func(b connector.Bad) bool { return b.Key.ID == "" })
	if !whole {
		if err := c.move(read); err != nil {
			return connector.Page{}, err
		}
		page.Next = c.text()
		return page, nil
	}
	page.Next = c.text()
	page.End, err = s.end(ctx, c)
	return page, err
}

// rows queries once, or again from the start of a second whose rows have shifted: then the row at Start is no longer the
// one that stood there.
func (s *Source) rows(ctx context.Context, c *cursor) (answer, error) {
	for range maxShifts {
		a, err := s.query(ctx, "query customers", c.statement())
		if err != nil {
			return answer{}, err
		}
		if c.Start <= 1 || len(a.rows) > 0 && a.rows[0].ID.Value == c.Last {
			return a, nil
		}
		c.Start, c.Last = 0, ""
	}
	return answer{}, &connector.Error{Kind: connector.Transient, Step: "query customers", Message: "the rows of one second keep shifting"}
}

func (c *cursor) property() string {
	if c.From == nil {
		return "MetaData.CreateTime"
	}
	return "MetaData.LastUpdatedTime"
}

func (c *cursor) statement() string {
	where := "Active IN (true, false)" // without this, inactive rows are left out
	if c.Bound != nil {
		where += fmt.Sprintf(" and %s >= '%s'", c.property(), c.Bound.UTC().Format("2006-01-02T15:04:05Z"))
	}
	return fmt.Sprintf("select * from Customer where %s ORDERBY %s, Id STARTPOSITION %d MAXRESULTS %d", where, c.property(), max(c.Start, 1), pageSize)
}

func (c *cursor) timeOf(r *row) (time.Time, bool) {
	if c.From == nil {
		return parseTime(r.MetaData.CreateTime.Value)
	}
	return parseTime(r.MetaData.LastUpdatedTime.Value)
}

// unread drops the rows of the bound's second that were read before. One that was edited since is later, and stays.
func (c *cursor) unread(rows []row) []row {
	if len(c.Seen) == 0 {
		return rows
	}
	seen := make(map[string]bool, len(c.Seen))
	for _, id := range c.Seen {
		seen[id] = true
	}
	return slices.DeleteFunc(slices.Clone(rows), func(r row) bool {
		at, readable := c.timeOf(&r)
		return seen[r.ID.Value] && readable && c.Bound != nil && at.Truncate(time.Second).Equal(*c.Bound)
	})
}

// move puts the cursor behind a full page.
func (c *cursor) move(rows []row) error {
	var last time.Time
	for i := range rows {
		if at, readable := c.timeOf(&rows[i]); readable && at.After(last) {
			last = at
		}
	}
	last = last.Truncate(time.Second)
	if last.IsZero() || c.Bound != nil && last.Before(*c.Bound) {
		return &connector.Error{
			Kind: connector.Rejected, Step: "query customers", Message: "a full page has no time that could be continued from",
			Hint: "This is a fault of the program or of QuickBooks: report it with the time of the run.",
		}
	}
	if c.Bound == nil || last.After(*c.Bound) {
		c.Bound, c.Seen, c.Start, c.Last = &last, nil, 0, ""
	} else {
		c.Start = max(c.Start, 1) + len(rows) - 1
		c.Last = rows[len(rows)-1].ID.Value
	}
	for i := range rows {
		at, readable := c.timeOf(&rows[i])
		if id := rows[i].ID.Value; readable && at.Truncate(time.Second).Equal(last) && !slices.Contains(c.Seen, id) {
			c.Seen = append(c.Seen, id)
		}
	}
	return nil
}

// end closes a pull. One COUNT closes a full one: if there are more customers than were read, not all were listed.
func (s *Source) end(ctx context.Context, c *cursor) (*connector.End, error) {
	from := c.Began.Add(-overlap)
	end := &connector.End{Cursor: cursor{Version: cursorVersion, From: &from}.text()}
	if c.From != nil {
		return end, nil
	}
	a, err := s.query(ctx, "count customers", "select count(*) from Customer where Active IN (true, false)")
	if err != nil {
		return nil, err
	}
	if a.total == nil {
		return nil, &connector.Error{Kind: connector.Transient, Step: "count customers", Message: "the answer has no count"}
	}
	if *a.total <= c.Count && !c.Lost {
		end.Listed = []connector.Kind{connector.Customers}
	}
	return end, nil
}

package online

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
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
	// maxRestarts is how often one second may be begun again without a row that is new.
	maxRestarts = 20
	// maxPassed is how many rows in a row may be ones that cannot be had, before it is the company or the service of which that is true.
	maxPassed = 100
)

const (
	queryStep = "query customers"
	countStep = "count customers"

	countStatement = "select count(*) from Customer where Active IN (true, false)"
)

// cursor is both of connector.Pull's cursors: of a finished run it has From only.
type cursor struct {
	Version int        `json:"v"`
	From    *time.Time `json:"from,omitempty"` // changes since then; nil: everything

	// Of a pull on its way:
	Began    *time.Time `json:"began,omitempty"`    // server time of its first reply
	Bound    *time.Time `json:"bound,omitempty"`    // lower bound of the next query, a whole second
	Seen     []string   `json:"seen,omitempty"`     // ids already read of the bound's second
	Timeless []string   `json:"timeless,omitempty"` // ids already read whose time cannot be
	Start    int        `json:"start,omitempty"`    // STARTPOSITION, above 1 only within a second that fills a page
	Last     string     `json:"last,omitempty"`     // the id that stood at Start; empty: unknown
	Restarts int        `json:"restarts,omitempty"` // of the bound's second, since a row that was new
	Size     int        `json:"size,omitempty"`     // MAXRESULTS while a row is searched that cannot be had; 0: the usual
	Doubt    int        `json:"doubt,omitempty"`    // of a single row that was refused: 1, whether another query is answered comes next; 2, it was
	Passed   int        `json:"passed,omitempty"`   // rows that could not be had, since one that could
	First    int        `json:"first,omitempty"`    // where the first of them stood; 0: none
	Asked    bool       `json:"asked,omitempty"`    // they are asked for once more, since a row could be had
	Count    int64      `json:"count,omitempty"`    // ids read so far
	Lost     bool       `json:"lost,omitempty"`     // a row came without an id, or not at all
	Read     bool       `json:"read,omitempty"`     // all rows are read, and not yet counted
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

func parseCursor(text connector.Cursor) (cursor, error) {
	var c cursor
	err := json.Unmarshal([]byte(text), &c)
	sound := c.Start >= 0 && c.Start <= 1<<30 && c.Size >= 0 && c.Size <= pageSize && c.Restarts >= 0 && c.Passed >= 0 && c.Count >= 0 &&
		c.Doubt >= 0 && c.Doubt <= 2 && c.First >= 0
	if err != nil || c.Version != cursorVersion || !sound {
		return cursor{}, expired("it is of another version")
	}
	return c, nil
}

// begin says where a pull starts.
func begin(p connector.Pull) (cursor, error) {
	text := cmp.Or(p.Resume, p.Since)
	if text == "" {
		return cursor{Version: cursorVersion}, nil
	}
	c, err := parseCursor(text)
	if err != nil {
		return cursor{}, err
	}
	// A pull that has met nothing but a row that cannot be had does not know the server's time yet.
	underWay := c.Began != nil || c.Size > 0 || c.Start > 1
	switch {
	case p.Resume != "" && !underWay, p.Resume == "" && (c.From == nil || underWay), c.Read && c.Began == nil:
		return cursor{}, expired("it is of another kind")
	case p.Resume == "":
		bound := c.From.UTC().Truncate(time.Second)
		c = cursor{Version: cursorVersion, From: c.From, Bound: &bound}
	}
	return c, nil
}

// Pull reads customers in the order of a time of theirs: everything by MetaData.CreateTime, changes by
// MetaData.LastUpdatedTime. It moves the lower bound to the last time read instead of using an offset, so that nothing
// which moves rows (an edit, a rename, the suffix of a deactivation, a merge) shifts an unread row. Keyset paging by id
// is not to be had: Id takes = and IN only.
//
// A page is one request, so some pages hold no row: those that only say where to go on.
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

// page reads the next page and moves the cursor behind it.
func (s *Source) page(ctx context.Context, c *cursor) (page connector.Page, err error) {
	if c.Read {
		page.End, err = s.count(ctx, c)
		return page, err
	}
	if c.Doubt == 1 {
		err = s.answers(ctx, queryStep)
		if err == nil {
			c.Doubt = 2
		}
		return page, err
	}
	size := cmp.Or(c.Size, s.pageSize)
	a, err := s.query(ctx, queryStep, c.statement(size))
	if errors.Is(err, errUnreadableRow) {
		return c.narrow(size, err)
	}
	if err != nil {
		return page, err
	}
	if c.First > 0 && !c.Asked {
		c.Start, c.Last, c.Size, c.Doubt, c.Passed, c.Asked = c.First, "", 1, 0, 0, true
		return page, nil
	}
	c.Doubt, c.Passed, c.First, c.Asked = 0, 0, 0, false
	if c.Began == nil {
		if a.time.IsZero() {
			return page, &connector.Error{Kind: connector.Transient, Step: queryStep, Message: "the answer has no time"}
		}
		c.Began = &a.time
	}
	if c.shifted(a.rows) {
		return page, c.restart()
	}
	unread := c.unread(a.rows)
	c.note(unread)
	fill(&page, unread)
	switch {
	case len(a.rows) >= size:
		err = c.move(a.rows, s.pageSize)
	case c.From == nil:
		c.Read = true
	default:
		page.End = c.end()
	}
	return page, err
}

// narrow goes for a page of half the size after the service could not render one, until the row that it cannot render
// is alone, and passes over that row (decision 26):
//   - only after another query was answered, since a service that answers none refuses places behind the last row too;
//   - for the time being: once a row can be had, those passed over are asked for again, and only what is refused then too is
//     left out. Without its id nothing can be said to be gone;
//   - after a second one the next is tried by itself at once, up to a bound: calls are metered for the app, at the cost of all
//     companies.
//
// https://github.com/intuit/QuickBooks-V3-DotNET-SDK/issues/111
func (c *cursor) narrow(size int, refusal error) (page connector.Page, err error) {
	switch {
	case size > 1:
		c.Size = size / 2
		return page, nil
	case c.Passed == 0 && c.Doubt == 0:
		c.Size, c.Doubt = 1, 1
		return page, nil
	case c.Passed >= maxPassed:
		return page, refused(queryStep, fmt.Sprintf("QuickBooks can give none of %d records in a row", maxPassed), refusal)
	}
	start := max(c.Start, 1)
	c.First = cmp.Or(c.First, start)
	c.Size, c.Doubt = 0, 0
	if c.Passed++; c.Passed > 1 {
		c.Size = 1
	}
	c.Start, c.Last = start+1, ""
	if c.Asked {
		c.Lost = true
		page.Bad = []connector.Bad{{Key: connector.Key{Kind: connector.Customers}, Field: "record", Reason: unreadableReason}}
	}
	return page, nil
}

// answers is an error if the service answers no query of the company.
func (s *Source) answers(ctx context.Context, step string) error {
	_, err := s.query(ctx, countStep, countStatement)
	if errors.Is(err, errUnreadableRow) {
		err = refused(step, "QuickBooks can process no query of this company", err)
	}
	return err
}

// refused is what ends a pull or look-up where more than single rows cannot be had; the next one goes on from there.
func refused(step, message string, refusal error) error {
	e := &connector.Error{
		Kind: connector.Transient, Step: step, Message: message,
		Hint: "The company's data, such as e-mail addresses, may be at fault, or QuickBooks itself: if it lasts, tell Intuit's support the trace.",
	}
	if cause, ok := errors.AsType[*connector.Error](refusal); ok {
		e.Trace = cause.Trace
	}
	return e
}

// shifted tells that rows of the bound's second have gone since its last page: then the row at Start is no longer the
// one that stood there, and an unread one may have taken the place of a read one. The same id in another second is no
// proof: that row was edited, and stands there by chance.
func (c *cursor) shifted(rows []row) bool {
	if c.Start <= 1 || c.Last == "" {
		return false
	}
	if len(rows) == 0 || rows[0].ID.Value != c.Last {
		return true
	}
	at, readable := c.timeOf(&rows[0])
	return readable && c.Bound != nil && !at.Truncate(time.Second).Equal(*c.Bound)
}

// restart begins the bound's second again. Ids seen are dropped on the way.
func (c *cursor) restart() error {
	if c.Restarts >= maxRestarts {
		return &connector.Error{
			Kind: connector.Transient, Step: queryStep, Message: "the rows of one second keep shifting",
		}
	}
	c.Restarts++
	c.Start, c.Last = 0, ""
	return nil
}

func (c *cursor) property() string {
	if c.From == nil {
		return "MetaData.CreateTime"
	}
	return "MetaData.LastUpdatedTime"
}

func (c *cursor) statement(size int) string {
	where := "Active IN (true, false)" // without this, inactive rows are left out
	if c.Bound != nil {
		where += fmt.Sprintf(" and %s >= '%s'", c.property(), c.Bound.UTC().Format("2006-01-02T15:04:05Z"))
	}
	return fmt.Sprintf("select * from Customer where %s ORDERBY %s, Id STARTPOSITION %d MAXRESULTS %d",
		where, c.property(), max(c.Start, 1), size)
}

func (c *cursor) timeOf(r *row) (time.Time, bool) {
	if c.From == nil {
		return parseTime(r.MetaData.CreateTime.Value)
	}
	return parseTime(r.MetaData.LastUpdatedTime.Value)
}

// unread drops the rows of the bound's second that were read before. One that was edited since is later, and stays.
func (c *cursor) unread(rows []row) []row {
	seen, timeless := set(c.Seen), set(c.Timeless)
	read := func(r row) bool {
		at, readable := c.timeOf(&r)
		if !readable {
			return timeless[r.ID.Value]
		}
		return c.Bound != nil && seen[r.ID.Value] && at.Truncate(time.Second).Equal(*c.Bound)
	}
	if !slices.ContainsFunc(rows, read) {
		return rows
	}
	return slices.DeleteFunc(slices.Clone(rows), read)
}

// note counts the ids among rows not read before. A row from before the bound was counted then.
func (c *cursor) note(unread []row) {
	met := make(map[string]bool, len(unread))
	for i := range unread {
		id := unread[i].ID.Value
		at, readable := c.timeOf(&unread[i])
		switch {
		case id == "":
			c.Lost = true
		case met[id], readable && c.Bound != nil && at.Before(*c.Bound):
		default:
			met[id] = true
			c.Count++
			c.Restarts = 0
			if !readable {
				c.Timeless = append(c.Timeless, id)
			}
		}
	}
}

// move puts the cursor behind a full page.
func (c *cursor) move(rows []row, usual int) error {
	var last time.Time
	for i := range rows {
		if at, readable := c.timeOf(&rows[i]); readable && at.After(last) {
			last = at
		}
	}
	last = last.Truncate(time.Second)
	switch {
	case !last.IsZero() && (c.Bound == nil || last.After(*c.Bound)):
		c.Bound, c.Seen, c.Start, c.Last, c.Restarts = &last, nil, 0, "", 0
	case !last.IsZero() && last.Before(*c.Bound):
		return noProgress()
	default:
		if err := c.advance(rows); err != nil {
			return err
		}
	}
	if c.Size *= 2; c.Size >= usual {
		c.Size = 0
	}
	seen := set(c.Seen)
	for i := range rows {
		at, readable := c.timeOf(&rows[i])
		if id := rows[i].ID.Value; id != "" && readable && at.Truncate(time.Second).Equal(last) && !seen[id] {
			seen[id] = true
			c.Seen = append(c.Seen, id)
		}
	}
	return nil
}

// advance goes on within the bound's second: the next page begins with the last row of this one, by which a shift
// shows. Only a narrowed page may have no row to spare for that.
func (c *cursor) advance(rows []row) error {
	start := max(c.Start, 1)
	for i := len(rows) - 1; i > 0; i-- {
		if id := rows[i].ID.Value; id != "" {
			c.Start, c.Last = start+i, id
			return nil
		}
	}
	if c.Size == 0 {
		return noProgress()
	}
	c.Start, c.Last = start+len(rows), ""
	return nil
}

func noProgress() error {
	return &connector.Error{
		Kind: connector.Rejected, Step: queryStep, Message: "a full page has nothing that could be continued from",
		Hint: "This is a fault of the program or of QuickBooks: report it with the time of the run.",
	}
}

// end closes a pull of changes.
func (c *cursor) end() *connector.End {
	from := c.Began.Add(-overlap)
	next := cursor{Version: cursorVersion, From: &from}
	return &connector.End{Cursor: next.text()}
}

// count closes a full pull: if there are more customers than were read, not all were listed. One who joined after the
// last page may make up for one merged away: nobody holds a copy of him yet, so he cannot be taken for gone.
func (s *Source) count(ctx context.Context, c *cursor) (*connector.End, error) {
	a, err := s.query(ctx, countStep, countStatement)
	if err != nil {
		return nil, err
	}
	if a.total == nil {
		return nil, &connector.Error{Kind: connector.Transient, Step: countStep, Message: "the answer has no count"}
	}
	end := c.end()
	if *a.total <= c.Count && !c.Lost {
		end.Listed = []connector.Kind{connector.Customers}
	}
	return end, nil
}

func set(ids []string) map[string]bool {
	m := make(map[string]bool, len(ids))
	for _, id := range ids {
		m[id] = true
	}
	return m
}

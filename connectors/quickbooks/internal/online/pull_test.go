package online

import (
	"bytes"
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"maps"
	"net/http"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"pgregory.net/rapid"

	"github.com/centime/contactsync/internal/connector"
)

// small is a company in memory whose pages hold a few rows, behind http.RoundTripper.
type small struct {
	now   int // in seconds after epoch
	next  int // id
	rows  map[int]*smallRow
	shift bool // the first row of the newest second goes and comes between any two requests
	calls []string
}

type smallRow struct {
	id, created, updated, version    int
	timeless, nameless, cannotBeRead bool
	hours                            int // of its offset from UTC
}

var epoch = time.Date(2026, 11, 1, 8, 30, 0, 0, time.UTC) // within the hour that Pacific time repeats

const smallPage = 3

var (
	pullForm = regexp.MustCompile(`^select \* from Customer where Active IN \(true, false\)` +
		`(?: and MetaData\.(CreateTime|LastUpdatedTime) >= '([^']+Z)')?` +
		` ORDERBY MetaData\.(CreateTime|LastUpdatedTime), Id STARTPOSITION (\d+) MAXRESULTS (\d+)$`)
	lookupForm = regexp.MustCompile(`^select \* from Customer where Id IN \(([0-9', ]+)\)` +
		` and Active IN \(true, false\) MAXRESULTS 1000$`)
	countForm = `select count(*) from Customer where Active IN (true, false)`
)

func (f *small) add(created, updated int) *smallRow {
	f.next++
	r := &smallRow{id: f.next, created: created, updated: updated, hours: -7 - f.next%2}
	f.rows[r.id] = r
	return r
}

func (r *smallRow) json() string {
	zone := time.FixedZone("", r.hours*3600)
	at := func(s int) string {
		if r.timeless {
			return "yesterday"
		}
		return epoch.Add(time.Duration(s) * time.Second).In(zone).Format(time.RFC3339)
	}
	id := fmt.Sprintf(`"Id":"%d",`, r.id)
	if r.nameless {
		id = ""
	}
	return fmt.Sprintf(`{%s"DisplayName":"%d","Active":true,"MetaData":{"CreateTime":"%s","LastUpdatedTime":"%s"}}`,
		id, r.version, at(r.created), at(r.updated))
}

func (f *small) RoundTrip(req *http.Request) (*http.Response, error) {
	statement := req.URL.Query().Get("query")
	if req.Method == http.MethodPost {
		body, err := io.ReadAll(req.Body)
		if err != nil {
			return nil, err
		}
		statement = string(body)
	}
	f.calls = append(f.calls, statement)
	status, body := f.answer(statement)
	return &http.Response{
		StatusCode: status, Header: http.Header{}, Body: io.NopCloser(bytes.NewReader([]byte(body))), Request: req,
	}, nil
}

const cannotBeRead = `{"Fault":{"Error":[{"Message":"Error processing query","code":"4002"}],"type":"ValidationFault"}}`

func (f *small) answer(statement string) (status int, body string) {
	clock := epoch.Add(time.Duration(f.now) * time.Second).Format(time.RFC3339Nano)
	if statement == countForm {
		return 200, fmt.Sprintf(`{"QueryResponse":{"totalCount":%d},"time":%q}`, len(f.rows), clock)
	}
	var found []*smallRow
	if m := lookupForm.FindStringSubmatch(statement); m != nil {
		for id := range strings.SplitSeq(m[1], ", ") {
			if n, err := strconv.Atoi(strings.Trim(id, "'")); err == nil && f.rows[n] != nil {
				found = append(found, f.rows[n])
			}
		}
	} else if found = f.find(statement); found == nil {
		return 400, `{"Fault":{"Error":[{"Message":"Invalid query","code":"4001"}]}}`
	}
	var rows []string
	for _, r := range found {
		if r.cannotBeRead {
			return 400, cannotBeRead
		}
		rows = append(rows, r.json())
	}
	if f.shift {
		f.shiftNewest()
	}
	return 200, fmt.Sprintf(`{"QueryResponse":{"Customer":[%s]},"time":%q}`, strings.Join(rows, ","), clock)
}

// find is nil for a statement that is not understood.
func (f *small) find(statement string) []*smallRow {
	m := pullForm.FindStringSubmatch(statement)
	if m == nil || m[1] != "" && m[1] != m[3] {
		return nil
	}
	of := func(r *smallRow) int {
		if m[3] == "CreateTime" {
			return r.created
		}
		return r.updated
	}
	all := slices.SortedFunc(maps.Values(f.rows), func(a, b *smallRow) int {
		return cmp.Or(cmp.Compare(of(a), of(b)), cmp.Compare(a.id, b.id))
	})
	if m[2] != "" {
		bound, err := time.Parse(time.RFC3339, m[2])
		if err != nil {
			return nil
		}
		all = slices.DeleteFunc(all, func(r *smallRow) bool {
			return epoch.Add(time.Duration(of(r)) * time.Second).Before(bound)
		})
	}
	start, err1 := strconv.Atoi(m[4])
	size, err2 := strconv.Atoi(m[5])
	if err1 != nil || err2 != nil || start < 1 {
		return nil
	}
	all = all[min(start-1, len(all)):]
	return append([]*smallRow{}, all[:min(size, len(all))]...)
}

// shiftNewest has the first row of the last second go if it is there, and come back if it is not.
func (f *small) shiftNewest() {
	if f.rows[1] != nil {
		delete(f.rows, 1)
	} else {
		f.rows[1] = &smallRow{id: 1, version: 1}
	}
}

type fixed struct{}

func (fixed) Token(context.Context) (string, error)           { return "t", nil }
func (fixed) Renewed(context.Context, string) (string, error) { return "t2", nil }

func (f *small) source() *Source {
	s := Open(connector.Account{ID: "77", APIURL: "http://small.example", Tokens: fixed{}, Transport: f})
	s.pageSize = smallPage
	return s
}

// read pulls to the end, each page in another process. between is called after each page but the last.
func (f *small) read(t interface{ Fatalf(string, ...any) }, since connector.Cursor, between func()) *mirror {
	m := &mirror{version: map[string]string{}, times: map[string]int{}}
	resume := connector.Cursor("")
	for range 2000 {
		calls := len(f.calls)
		for page, err := range f.source().Pull(context.Background(), connector.Pull{Since: since, Resume: resume}) {
			if err != nil {
				m.err = err
				return m
			}
			if n := len(f.calls) - calls; n != 1 {
				t.Fatalf("a page took %d requests", n)
			}
			for _, c := range page.Customers {
				m.version[c.ID] = c.Name
				m.times[c.ID]++
			}
			m.bad = append(m.bad, page.Bad...)
			if resume = page.Next; page.End != nil {
				m.end = page.End
				return m
			}
			break
		}
		if between != nil {
			between()
		}
	}
	t.Fatalf("the pull never ends: %s", f.calls[len(f.calls)-1])
	return m
}

type mirror struct {
	version map[string]string
	times   map[string]int
	bad     []connector.Bad
	end     *connector.End
	err     error
}

// company draws one in which many rows share a second.
func company(t *rapid.T) *small {
	f := &small{now: 5, rows: map[int]*smallRow{}}
	for range rapid.IntRange(0, 16).Draw(t, "rows") {
		created := rapid.IntRange(0, 3).Draw(t, "created")
		f.add(created, rapid.IntRange(created, 4).Draw(t, "updated"))
	}
	return f
}

// happen lets something happen as people do it. kept loses the ids that go, edited gains those that move.
func (f *small) happen(t *rapid.T, kept map[int]bool, edited map[int]bool) {
	for range rapid.IntRange(0, 3).Draw(t, "events") {
		f.now += rapid.IntRange(0, 1).Draw(t, "pass")
		ids := slices.Sorted(maps.Keys(f.rows))
		what := rapid.SampledFrom([]string{"edit", "merge", "add"}).Draw(t, "what")
		if len(ids) == 0 || what == "add" {
			f.add(f.now, f.now)
			continue
		}
		id := rapid.SampledFrom(ids).Draw(t, "id")
		if what == "merge" {
			delete(f.rows, id)
			delete(kept, id)
			continue
		}
		f.rows[id].version++
		f.rows[id].updated = f.now
		edited[id] = true
	}
}

func (f *small) ids() map[int]bool {
	ids := map[int]bool{}
	for id := range f.rows {
		ids[id] = true
	}
	return ids
}

// TestNoChangeHidesARow: whatever is edited, merged away or added between any two pages, a full pull names each
// customer that was there all the time, and with the next incremental pull everything is as in the ERP.
func TestNoChangeHidesARow(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(t *rapid.T) {
		f := company(t)
		kept, edited := f.ids(), map[int]bool{}
		budget := 12
		m := f.read(t, "", func() {
			if budget--; budget > 0 {
				f.happen(t, kept, edited)
			}
		})
		if m.err != nil {
			t.Fatalf("%v", m.err)
		}
		for id := range kept {
			if m.times[strconv.Itoa(id)] == 0 {
				t.Fatalf("customer %d was skipped", id)
			}
		}
		f.now++
		after := f.read(t, m.end.Cursor, nil)
		maps.Copy(m.version, after.version)
		for id, r := range f.rows {
			if m.version[strconv.Itoa(id)] != strconv.Itoa(r.version) {
				t.Fatalf("customer %d is known in state %q, and is in %d", id, m.version[strconv.Itoa(id)], r.version)
			}
		}
		if len(after.end.Listed) != 0 {
			t.Fatalf("an incremental pull listed %v", after.end.Listed)
		}
	})
}

// TestNoChangeHidesAChange is the same of an incremental pull: a row that was changed before it and not since is named
// by it, not by luck of a later overlap.
func TestNoChangeHidesAChange(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(t *rapid.T) {
		f := company(t)
		kept, edited := f.ids(), map[int]bool{}
		since := rapid.IntRange(0, 4).Draw(t, "since")
		for id, r := range f.rows {
			if r.updated < since {
				delete(kept, id)
			}
		}
		from := epoch.Add(time.Duration(since) * time.Second)
		budget := 12
		m := f.read(t, (&cursor{Version: cursorVersion, From: &from}).text(), func() {
			if budget--; budget > 0 {
				f.happen(t, kept, edited)
			}
		})
		if m.err != nil {
			t.Fatalf("%v", m.err)
		}
		for id := range kept {
			if !edited[id] && m.times[strconv.Itoa(id)] != 1 {
				t.Fatalf("the change of customer %d was named %d times", id, m.times[strconv.Itoa(id)])
			}
		}
		maps.Copy(m.version, f.read(t, m.end.Cursor, nil).version)
		for id := range kept {
			if m.version[strconv.Itoa(id)] != strconv.Itoa(f.rows[id].version) {
				t.Fatalf("the last change of customer %d was missed", id)
			}
		}
	})
}

// TestSameRowInAnotherSecond: the row by which a shift shows was edited itself and stands at its old place by chance,
// since another has gone. It must not pass for proof that nothing shifted.
func TestSameRowInAnotherSecond(t *testing.T) {
	t.Parallel()
	f := &small{now: 5, rows: map[int]*smallRow{}}
	f.add(0, 0)
	for range 4 {
		f.add(0, 4)
	}
	page := 0
	m := f.read(t, (&cursor{Version: cursorVersion, From: &epoch}).text(), func() {
		if page++; page == 2 {
			delete(f.rows, 2)
			f.rows[4].updated = 5
		}
	})
	if m.err != nil || m.times["5"] != 1 {
		t.Errorf("customer 5 was named %d times, %v", m.times["5"], m.err)
	}
}

// TestOddRowsHideNoOther: rows that the ERP cannot render, without an id or without a time cost no other row its place.
// Each readable one is named once, and customers are listed if and only if each row has an id.
func TestOddRowsHideNoOther(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(t *rapid.T) {
		f := company(t)
		lost := 0
		for _, id := range slices.Sorted(maps.Keys(f.rows)) {
			r := f.rows[id]
			switch rapid.IntRange(0, 9).Draw(t, "odd") {
			case 0:
				r.cannotBeRead = true
				lost++
			case 1:
				r.timeless = true
			}
		}
		if len(f.rows) > 0 && rapid.Bool().Draw(t, "nameless") {
			r := f.rows[rapid.IntRange(1, len(f.rows)).Draw(t, "which")]
			if !r.cannotBeRead {
				r.nameless = true
				lost++
			}
		}
		m := f.read(t, "", nil)
		if m.err != nil {
			t.Fatalf("%v", m.err)
		}
		for id, r := range f.rows {
			if n := m.times[strconv.Itoa(id)]; n != 1 && !r.cannotBeRead && !r.nameless {
				t.Fatalf("customer %d was named %d times", id, n)
			}
		}
		if (len(m.end.Listed) == 1) != (lost == 0) {
			t.Fatalf("%d rows without an id, and %v is listed", lost, m.end.Listed)
		}
		if lacksID(connector.Page{Bad: m.bad}) != (lost > 0) {
			t.Fatalf("%d rows without an id, reported: %v", lost, m.bad)
		}
	})
}

// TestShiftingForEverIsAnError: a second whose rows never stand still ends the pull with an error, not in a loop.
func TestShiftingForEverIsAnError(t *testing.T) {
	t.Parallel()
	f := &small{rows: map[int]*smallRow{}, shift: true}
	for range 8 {
		f.add(0, 0)
	}
	m := f.read(t, "", nil)
	if connector.KindOf(m.err) != connector.Transient || !strings.Contains(m.err.Error(), "keep shifting") {
		t.Errorf("%v", m.err)
	}
	f.shift = false
	if m := f.read(t, "", nil); m.err != nil || len(m.end.Listed) != 1 {
		t.Errorf("after that: %v", m.err)
	}
}

// deaf answers every query with the same full page.
type deaf struct{ small }

func (d *deaf) RoundTrip(*http.Request) (*http.Response, error) {
	_, body := d.answer("select * from Customer where Active IN (true, false)" +
		" ORDERBY MetaData.CreateTime, Id STARTPOSITION 1 MAXRESULTS 3")
	return &http.Response{StatusCode: 200, Header: http.Header{}, Body: io.NopCloser(strings.NewReader(body))}, nil
}

// TestNoProgressIsAnError: an ERP that answers every page with the same one is no endless pull.
func TestNoProgressIsAnError(t *testing.T) {
	t.Parallel()
	for name, odd := range map[string]func(*smallRow){
		"SameRows": func(*smallRow) {}, "NoIDs": func(r *smallRow) { r.nameless = true },
		"NoTimes": func(r *smallRow) { r.timeless = true },
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			d := &deaf{small{rows: map[int]*smallRow{}}}
			for range 5 {
				odd(d.add(0, 0))
			}
			s := Open(connector.Account{ID: "77", APIURL: "http://small.example", Tokens: fixed{}, Transport: d})
			s.pageSize = smallPage
			pages := 0
			for _, err := range s.Pull(t.Context(), connector.Pull{}) {
				if err != nil {
					return
				}
				if pages++; pages > 200 {
					t.Fatal("the pull never ends")
				}
			}
			t.Error("the pull ends as if everything had been read")
		})
	}
}

// TestLookupFindsWhoCannotBeRead: a customer whose row cannot be had, or comes without its id, is there and not gone.
func TestLookupFindsWhoCannotBeRead(t *testing.T) {
	t.Parallel()
	f := &small{rows: map[int]*smallRow{}}
	var keys []connector.Key
	for range 20 {
		keys = append(keys, connector.Key{Kind: connector.Customers, ID: strconv.Itoa(f.add(0, 0).id)})
	}
	f.rows[7].cannotBeRead, f.rows[8].nameless = true, true
	delete(f.rows, 9)
	p, err := f.source().Lookup(t.Context(), keys)
	if err != nil {
		t.Fatal(err)
	}
	answered := map[string]bool{}
	for _, c := range p.Customers {
		answered[c.ID] = true
	}
	for _, b := range p.Bad {
		answered[b.Key.ID] = true
	}
	if len(p.Customers) != 17 || len(p.Bad) != 2 || !answered["7"] || !answered["8"] || answered["9"] {
		t.Errorf("%d customers, %+v", len(p.Customers), p.Bad)
	}
}

// TestWatermarkIsOfTheFirstReply: what changes during a pull is read by the next one, also if the pull took hours.
func TestWatermarkIsOfTheFirstReply(t *testing.T) {
	t.Parallel()
	f := &small{now: 100, rows: map[int]*smallRow{}}
	for n := range 10 {
		f.add(n, n)
	}
	m := f.read(t, "", func() { f.now += 6 * 3600 })
	c, err := parseCursor(m.end.Cursor)
	if err != nil || !c.From.Equal(epoch.Add(100*time.Second-overlap)) {
		t.Errorf("%s: %v", m.end.Cursor, err)
	}
}

// TestLateShowingIsRead: a change that queries show minutes after its time is read by the next pull all the same.
func TestLateShowingIsRead(t *testing.T) {
	t.Parallel()
	f := &small{now: 1000, rows: map[int]*smallRow{}}
	f.add(1, 1)
	m := f.read(t, "", nil)
	late := f.add(1, 1000-4*60)
	if m := f.read(t, m.end.Cursor, nil); m.times[strconv.Itoa(late.id)] != 1 || len(m.times) != 1 {
		t.Errorf("named %v, want the late one", m.times)
	}
}

// TestRefused: after a 401 another token is tried once, and a person must act after a second. Where the user himself
// lost access a new token cannot help, and none is asked for.
func TestRefused(t *testing.T) {
	t.Parallel()
	for file, want := range map[string][]string{
		"gateway_token_malformed.json": {"Bearer t", "Bearer t2"},
		"fault_authentication.xml":     {"Bearer t", "Bearer t2"},
		"fault_user_lost_access.xml":   {"Bearer t"},
	} {
		var used []string
		refuse := roundTrip(func(r *http.Request) (*http.Response, error) {
			used = append(used, r.Header.Get("Authorization"))
			body := io.NopCloser(bytes.NewReader(recorded(t, file)))
			return &http.Response{StatusCode: 401, Header: http.Header{}, Body: body}, nil
		})
		_, err := Open(connector.Account{ID: "77", Tokens: fixed{}, Transport: refuse}).Check(t.Context())
		if connector.KindOf(err) != connector.Denied || !slices.Equal(used, want) {
			t.Errorf("%s: %v after %q", file, err, used)
		}
		if e, ok := errors.AsType[*connector.Error](err); !ok || e.Hint == "" {
			t.Errorf("%s: nothing says what to do: %v", file, err)
		}
	}
}

type roundTrip func(*http.Request) (*http.Response, error)

func (f roundTrip) RoundTrip(r *http.Request) (*http.Response, error) { return f(r) }

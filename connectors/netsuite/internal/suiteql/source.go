// Package suiteql is the wire of NetSuite: its login, its statements, its answers and errors.
//
// OH/x in a comment is https://docs.oracle.com/en/cloud/saas/netsuite/ns-online-help/x.html.
package suiteql

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/centime/contactsync/internal/connector"
	"github.com/centime/contactsync/internal/erphttp"
)

const (
	// RequestTimeout bounds a request: NetSuite itself gives one 15 minutes (OH/subsect_1559222360), and a page takes
	// seconds.
	RequestTimeout = 120 * time.Second
	// PageSize is the most rows that an answer holds.
	PageSize = 1000

	services  = "/services/rest/"
	queryPath = services + "query/v1/suiteql"
	timePath  = services + "system/v1/serverTime"

	timeStep   = "read server time"
	lookupStep = "look up records"
)

// Source reads the customers and contacts of one NetSuite account.
type Source struct {
	account  connector.Account
	base     string
	http     *erphttp.Client
	clock    *Clock
	pageSize int

	mu    sync.Mutex
	known *lacks // what was last found to be missing; nil: nobody asked yet
}

var _ connector.Source = (*Source)(nil)

// Open returns the Source of an account, whose pages have so many rows. It makes no request.
func Open(a connector.Account, clock *Clock, pageSize int) *Source {
	ends := func(path string) func(string) bool {
		return func(p string) bool { return strings.HasSuffix(p, path) }
	}
	return &Source{account: a, base: base(a), clock: clock, pageSize: pageSize, http: erphttp.New(a, RequestTimeout,
		// Without the header a statement is refused: OH/section_157909186990.
		erphttp.Read{
			Method: http.MethodPost, Path: ends(queryPath), Body: selects, Header: map[string]string{"Prefer": "transient"},
		},
		erphttp.Read{Method: http.MethodGet, Path: ends(timePath)},
	)}
}

// base is the address of an account's services. The host names the account, so no request can reach another company:
// OH/section_1546938065.
func base(a connector.Account) string {
	if api := strings.TrimRight(a.APIURL, "/"); api != "" {
		return api
	}
	return "https://" + strings.ReplaceAll(strings.ToLower(a.ID), "_", "-") + ".suitetalk.api.netsuite.com"
}

// selects says whether a body is one statement that reads, and nothing else.
func selects(body []byte) bool {
	d := json.NewDecoder(bytes.NewReader(body))
	d.DisallowUnknownFields()
	var b struct {
		Q string `json:"q"`
	}
	return d.Decode(&b) == nil && strings.HasPrefix(b.Q, "SELECT ") && !strings.Contains(b.Q, ";")
}

// Check probes what the login may read, and compares the clocks. No table that a role may be expected to read says the
// company's name, so it is called by its account.
func (s *Source) Check(ctx context.Context) (connector.Check, error) {
	now, err := s.serverTime(ctx)
	if err != nil {
		return connector.Check{}, err
	}
	check := connector.Check{Account: s.account.ID, Company: "NetSuite account " + s.account.ID}
	if off := s.clock.Now().Sub(now).Round(time.Second); off.Abs() >= skewed {
		check.Notes = append(check.Notes, fmt.Sprintf("This machine's clock and NetSuite's are %s apart: "+
			"correct this machine's, "+
			"since logins depend on it.", off.Abs()))
	}
	l, err := s.probeAll(ctx, now)
	if err != nil {
		return connector.Check{}, err
	}
	check.Rights = l.rights()
	return check, nil
}

// serverTime is NetSuite's clock: OH/article_0528010158.
func (s *Source) serverTime(ctx context.Context) (time.Time, error) {
	reply, err := s.send(ctx, timeStep, http.MethodGet, s.base+timePath, nil)
	if err != nil {
		return time.Time{}, err
	}
	var answer struct {
		ServerTime erphttp.Text `json:"serverTime"`
	}
	_ = json.Unmarshal(reply.Body, &answer)
	at, err := time.Parse(time.RFC3339Nano, answer.ServerTime.Value)
	if err != nil || at.Year() < 1990 || at.Year() > 2200 {
		return time.Time{}, unreadable(timeStep)
	}
	return at.UTC(), nil
}

// Lookup reads customers and contacts by id. A relation is seen in every pull and needs no look-up.
func (s *Source) Lookup(ctx context.Context, keys []connector.Key) (connector.Page, error) {
	if len(keys) > connector.LookupMax {
		return connector.Page{}, &connector.Error{
			Kind: connector.Rejected, Step: lookupStep, Message: fmt.Sprintf("%d keys are too many", len(keys)),
			Hint: "This is a fault of the program: report it.",
		}
	}
	var page connector.Page
	for _, t := range []*table{customerTable, contactTable} {
		var ids []int64
		for _, k := range keys {
			if id, ok := parseID(k.ID); ok && k.Kind == t.kind {
				ids = append(ids, id)
			}
		}
		if err := s.byIDs(ctx, t, ids, &page); err != nil {
			return connector.Page{}, err
		}
	}
	return page, nil
}

// Customer reads one customer now, with its relations and the contacts at it. A page without the customer: it is gone
// or hidden.
func (s *Source) Customer(ctx context.Context, id string) (connector.Page, error) {
	var page connector.Page
	number, ok := parseID(id)
	if !ok {
		return page, nil
	}
	if err := s.byIDs(ctx, customerTable, []int64{number}, &page); err != nil || len(page.Customers) == 0 {
		return page, err
	}
	var at place
	for more := true; more; {
		a, l, err := s.ask(ctx, relationTable, fmt.Sprintf("r.company = %d AND r.contact > %d", number, at.Last))
		if err == nil {
			err = relationTable.advance(&at, a.rows)
		}
		if err != nil {
			return connector.Page{}, err
		}
		relationTable.fill(&page, a.rows, l)
		more = a.hasMore
	}
	var ids []int64
	for _, l := range page.Links {
		if n, ok := parseID(l.Contact); ok && l.StatedBy == (connector.Key{}) {
			ids = append(ids, n)
		}
	}
	for chunk := range slices.Chunk(ids, connector.LookupMax) {
		if err := s.byIDs(ctx, contactTable, chunk, &page); err != nil {
			return connector.Page{}, err
		}
	}
	return page, s.mainContacts(ctx, number, &page)
}

// mainContacts adds the contacts that have the customer as their main company and are not on the page.
func (s *Source) mainContacts(ctx context.Context, customer int64, page *connector.Page) error {
	there := map[string]bool{}
	for _, c := range page.Contacts {
		there[c.ID] = true
	}
	at := place{}
	for more := true; more; {
		a, l, err := s.ask(ctx, contactTable, fmt.Sprintf("k.company = %d AND k.id > %d", customer, at.Last))
		if err == nil {
			err = contactTable.advance(&at, a.rows)
		}
		if err != nil {
			return err
		}
		a.rows = slices.DeleteFunc(a.rows, func(r row) bool { return there[r.text("id")] })
		contactTable.fill(page, a.rows, l)
		more = a.hasMore
	}
	return nil
}

// byIDs puts records on a page by their ids, at most LookupMax.
func (s *Source) byIDs(ctx context.Context, t *table, ids []int64, page *connector.Page) error {
	if len(ids) == 0 {
		return nil
	}
	slices.Sort(ids)
	ids = slices.Compact(ids)
	var list strings.Builder
	for i, id := range ids {
		if i > 0 {
			list.WriteString(", ")
		}
		list.WriteString(strconv.FormatInt(id, 10))
	}
	a, l, err := s.ask(ctx, t, t.alias+".id IN ("+list.String()+")")
	if err != nil {
		return err
	}
	if a.hasMore {
		return unreadable(lookupStep)
	}
	nameless := false
	named := map[int64]bool{}
	for _, r := range a.rows {
		id, ok := parseID(r.text("id"))
		nameless = nameless || !ok
		named[id] = true
	}
	a.rows = slices.DeleteFunc(a.rows, func(r row) bool { _, ok := parseID(r.text("id")); return !ok })
	t.fill(page, a.rows, l)
	for _, id := range ids {
		// A row without its id is one of these: none of them may be taken for gone.
		if nameless && !named[id] {
			page.Bad = append(page.Bad, connector.Bad{
				Key: connector.Key{Kind: t.kind, ID: strconv.FormatInt(id, 10)}, Field: "id", Reason: "missing_id",
			})
		}
	}
	return nil
}

// ask sends a statement outside a pull, and says what it had to leave out. It believes that the login may read all there
// is, until NetSuite says otherwise.
func (s *Source) ask(ctx context.Context, t *table, where string) (answer, lacks, error) {
	s.mu.Lock()
	known := s.known
	s.mu.Unlock()
	l := lacks{}
	if known != nil {
		l = *known
	}
	a, err := s.query(ctx, lookupStep, t.statement(l, where), PageSize)
	if known != nil || !aboutStatement(err) {
		return a, l, err
	}
	if l, err = s.probeAll(ctx, s.clock.Now()); err != nil {
		return answer{}, l, err
	}
	if err := l.denied(); err != nil {
		return answer{}, l, err
	}
	a, err = s.query(ctx, lookupStep, t.statement(l, where), PageSize)
	return a, l, err
}

func (s *Source) remember(l lacks) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.known = &l
}

// query sends a statement and reads the answer.
func (s *Source) query(ctx context.Context, step, statement string, limit int) (answer, error) {
	var body bytes.Buffer
	e := json.NewEncoder(&body)
	e.SetEscapeHTML(false)
	if err := e.Encode(map[string]string{"q": statement}); err != nil {
		panic(err) // a string always encodes
	}
	address := s.base + queryPath + "?limit=" + strconv.Itoa(limit)
	reply, err := s.send(ctx, step, http.MethodPost, address, bytes.TrimSpace(body.Bytes()))
	if err != nil {
		return answer{}, err
	}
	return parseAnswer(step, reply.Body)
}

// send sends a request. After a 401 it is sent once more with another token; a second one is a refused login.
func (s *Source) send(ctx context.Context, step, method, address string, body []byte) (erphttp.Reply, error) {
	token, err := s.account.Tokens.Token(ctx)
	if err != nil {
		return erphttp.Reply{}, err
	}
	contentType := ""
	if body != nil {
		contentType = "application/json"
	}
	for try := 1; ; try++ {
		reply, err := s.http.Do(ctx, step, method, address, contentType, body, token)
		if err != nil {
			return erphttp.Reply{}, err
		}
		err = judge(step, reply)
		if err == nil {
			return reply, nil
		}
		if try > 1 || reply.Status != http.StatusUnauthorized {
			return erphttp.Reply{}, err
		}
		if token, err = s.account.Tokens.Renewed(ctx, token); err != nil {
			return erphttp.Reply{}, err
		}
	}
}

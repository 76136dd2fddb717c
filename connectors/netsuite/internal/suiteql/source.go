// Package suiteql is the wire of NetSuite: its login, its statements, its answers and errors.
//
// OH/x in a comment is https://docs.oracle.com/en/cloud/saas/netsuite/ns-online-help/x.html.
package suiteql

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"maps"
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

	mu     sync.Mutex
	known  *lacks // what was last found to be missing; nil: nobody asked yet
	spared lacks  // what look-ups go without beside that
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

// Lookup reads customers and contacts by id, and relations by both of theirs.
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
	var customers, contacts []int64
	wanted := map[string]bool{}
	for _, k := range keys {
		customer, contact, _ := strings.Cut(k.ID, "/")
		at, okAt := parseID(customer)
		who, okWho := parseID(contact)
		if okAt && okWho && k.Kind == connector.Links {
			customers, contacts, wanted[k.ID] = append(customers, at), append(contacts, who), true
		}
	}
	if len(wanted) == 0 {
		return page, nil
	}
	// Pairs cannot be listed: the answer has all rows of these contacts at these customers.
	where := "r.contact IN (" + list(contacts) + ") AND r.company IN (" + list(customers) + ")"
	if err := s.byKeys(ctx, relationTable, wanted, where, &page); err != nil {
		return connector.Page{}, err
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
	err := s.every(ctx, relationTable, fmt.Sprintf("r.company = %d", number), func(rows []row, l lacks) {
		relationTable.fill(&page, rows, l)
	})
	if err != nil {
		return connector.Page{}, err
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
	return s.every(ctx, contactTable, fmt.Sprintf("k.company = %d", customer), func(rows []row, l lacks) {
		contactTable.fill(page, slices.DeleteFunc(rows, func(r row) bool { return there[r.text("id")] }), l)
	})
}

// byIDs puts customers or contacts on a page by their ids, at most LookupMax.
func (s *Source) byIDs(ctx context.Context, t *table, ids []int64, page *connector.Page) error {
	if len(ids) == 0 {
		return nil
	}
	wanted := make(map[string]bool, len(ids))
	for _, id := range ids {
		wanted[strconv.FormatInt(id, 10)] = true
	}
	return s.byKeys(ctx, t, wanted, t.alias+".id IN ("+list(ids)+")", page)
}

// byKeys puts those of a table's records on a page whose Key.ID is wanted; where finds them, and may find others.
func (s *Source) byKeys(ctx context.Context, t *table, wanted map[string]bool, where string, page *connector.Page) error {
	nameless, named := false, map[string]bool{}
	err := s.every(ctx, t, where, func(rows []row, l lacks) {
		t.fill(page, slices.DeleteFunc(rows, func(r row) bool {
			id, ok := t.idOf(r)
			nameless, named[id] = nameless || !ok, true
			return !ok || !wanted[id]
		}), l)
	})
	if err != nil || !nameless {
		return err
	}
	for _, id := range slices.Sorted(maps.Keys(wanted)) {
		// A row without its id is one of these: none of them may be taken for gone.
		if !named[id] {
			page.Bad = append(page.Bad, connector.Bad{Key: connector.Key{Kind: t.kind, ID: id}, Field: "id", Reason: "missing_id"})
		}
	}
	return nil
}

// list is ids as a statement lists them, each once.
func list(ids []int64) string {
	slices.Sort(ids)
	var text []string
	for _, id := range slices.Compact(ids) {
		text = append(text, strconv.FormatInt(id, 10))
	}
	return strings.Join(text, ", ")
}

// every asks for the rows of a table where the condition holds, outside a pull, answer by answer.
func (s *Source) every(ctx context.Context, t *table, where string, fill func([]row, lacks)) error {
	var at place
	for {
		before := at
		a, l, err := s.ask(ctx, t, where+" AND "+t.next(lacks{}, at, nil))
		if err == nil {
			err = t.advance(&at, a.rows)
		}
		if err != nil {
			return err
		}
		if a.hasMore && at == before {
			return unreadable(lookupStep)
		}
		fill(a.rows, l)
		if !a.hasMore {
			return nil
		}
	}
}

// ask sends a statement outside a pull, and says what it had to leave out. It believes that the login may read all there
// is, until NetSuite says otherwise.
func (s *Source) ask(ctx context.Context, t *table, where string) (answer, lacks, error) {
	s.mu.Lock()
	known, spared := s.known, s.spared
	s.mu.Unlock()
	l := spared
	if known != nil {
		l = known.with(spared...)
	}
	asked := s.clock.Now()
	a, err := s.query(ctx, lookupStep, t.statement(l, where), PageSize)
	if t == relationTable && tooMuch(l, err, s.clock.Now().Sub(asked)) {
		spared = lacks{t.of(firstPrimary)}
		s.mu.Lock()
		s.spared = spared
		s.mu.Unlock()
		l = l.with(spared...)
		a, err = s.query(ctx, lookupStep, t.statement(l, where), PageSize)
	}
	if known != nil || !aboutStatement(err) {
		return a, l, err
	}
	if l, err = s.probeAll(ctx, s.clock.Now()); err != nil {
		return answer{}, l, err
	}
	if err := l.denied(); err != nil {
		return answer{}, l, err
	}
	l = l.with(spared...)
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

// Package netsuite is a simulated NetSuite: the token endpoint for client credentials with a signed assertion, and
// SuiteQL over REST, for any number of accounts, with the ways in which the real one fails. It evaluates the statements
// it is sent. Nothing can be written over the wire: an attempt is refused and stands in the log as a violation. Where it
// is not known how NetSuite behaves, an option chooses.
//
// The record service, SOAP, RESTlets, token-based authentication and the authorization code flow are not simulated.
//
// OH/x in a comment is https://docs.oracle.com/en/cloud/saas/netsuite/ns-online-help/x.html.
package netsuite

import (
	"cmp"
	"context"
	"crypto/rand"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/centime/contactsync/internal/erpsim"
)

// The kinds of request, in erpsim.Request.Op and erpsim.Rule.Op.
const (
	Token      = "token"
	Query      = "query" // SuiteQL
	ServerTime = "servertime"
	Governance = "governance"
	Record     = "record" // of the record service, which is not simulated
	Other      = "other"
)

// Options say how a simulator behaves. The zero Options are a NetSuite in America/Los_Angeles that writes 3/2/2026.
type Options struct {
	Now        func() time.Time // the server's clock; nil: time.Now
	Zone       *time.Location   // of sessions; nil: America/Los_Angeles
	DateFormat string           // a layout of package time for bare dates; empty: "1/2/2006"
	Ceiling    int              // most rows that one statement yields; 0: 100,000
	InFlight   int              // most requests of an account at a time; 0: 5; negative: no cap

	Casing       Casing      // of the keys of cells
	NativeCells  bool        // numbers and check boxes are JSON numbers and booleans, not strings
	EmptyNulls   bool        // a column without a value comes as "", not left out
	NoUTC        bool        // SYS_EXTRACT_UTC is refused
	NoSubqueries bool        // a statement within a statement is refused
	NoParams     bool        // bound values are refused
	ColumnFault  ColumnFault // what a column that may not be read is answered with
	MainLinks    bool        // a contact's main company is a relation too
	HideLinks    bool        // a relation to a record that the role may not see is hidden too
	TextExpiry   bool        // expires_in is a string
}

// A Casing is how keys of cells are written. Oracle warns that it may change between releases: OH/section_156257796125.
type Casing string

// The casings.
const (
	LowerKeys   Casing = ""
	UpperKeys   Casing = "upper"
	WrittenKeys Casing = "written" // as in the statement
)

// A ColumnFault is one of the answers to a statement with a column that may not be read or is not known.
type ColumnFault string

// The answers: https://github.com/hotgluexyz/tap-netsuite-rest reads the first two.
const (
	FieldNotFound     ColumnFault = ""           // 400 Field 'x' for record 'y' was not found
	UnknownIdentifier ColumnFault = "identifier" // 400 Unknown identifier 'x'
	ColumnUnexpected  ColumnFault = "unexpected" // 500
)

// A Sim is a simulated NetSuite. An account is found by the host or by the first part of the path, both in the form that
// hosts have: 1234567-sb1 for 1234567_SB1. A simulator with one account needs neither.
type Sim struct {
	o      Options
	limits limits
	log    erpsim.Log
	script erpsim.Script[Fault]

	mu       sync.Mutex
	accounts map[string]*Account // by HostLabel
	before   func(erpsim.Request)
}

// New returns a simulator without accounts.
func New(o Options) *Sim {
	if o.Now == nil {
		o.Now = time.Now
	}
	if o.Zone == nil {
		o.Zone = losAngeles
	}
	o.DateFormat = cmp.Or(o.DateFormat, "1/2/2006")
	o.Ceiling = cmp.Or(o.Ceiling, 100_000)
	o.InFlight = cmp.Or(o.InFlight, 5)
	return &Sim{o: o, accounts: map[string]*Account{}, limits: limits{most: o.InFlight, now: map[string]int{}}}
}

// HostLabel is an account id as it stands in a host name: https://github.com/jacobsvante/netsuite config.py.
func HostLabel(account string) string { return strings.ReplaceAll(strings.ToLower(account), "_", "-") }

// AddAccount adds an empty account, or returns the one of that id.
func (s *Sim) AddAccount(id, name string) *Account {
	s.mu.Lock()
	defer s.mu.Unlock()
	label := HostLabel(id)
	if s.accounts[label] == nil {
		s.accounts[label] = newAccount(id, name, s.o)
		s.accounts[label].script = &s.script
	}
	return s.accounts[label]
}

// Account is the account of an id; nil if there is none.
func (s *Sim) Account(id string) *Account {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.accounts[HostLabel(id)]
}

// Accounts are all accounts, by id.
func (s *Sim) Accounts() []*Account {
	s.mu.Lock()
	defer s.mu.Unlock()
	all := make([]*Account, 0, len(s.accounts))
	for _, a := range s.accounts {
		all = append(all, a)
	}
	slices.SortFunc(all, func(a, b *Account) int { return strings.Compare(a.ID, b.ID) })
	return all
}

// Before has f called with each request before it is looked at, so that f can change data between two pages. A nil f
// ends that. f is called by several requests at once.
func (s *Sim) Before(f func(erpsim.Request)) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.before = f
}

// Log is the log of all requests. Its statements may hold names and addresses.
func (s *Sim) Log() *erpsim.Log { return &s.log }

// Violations are the requests that tried to write.
func (s *Sim) Violations() []erpsim.Request {
	return s.log.Requests(func(r erpsim.Request) bool { return r.Violation != "" })
}

// Peak is the largest number of requests that were under way at one account at a time, those for tokens not counted.
func (s *Sim) Peak() int {
	s.limits.mu.Lock()
	defer s.limits.mu.Unlock()
	return s.limits.peak
}

// services is what the path of every request has, after the account where the path names it.
const services = "/services/rest/"

// Serves says whether a path is one of NetSuite, so that one address can serve several ERPs.
func Serves(path string) bool { return strings.Contains(path, services) }

// A call is a request, read and sorted.
type call struct {
	erpsim.Request
	at      time.Time // the server's time of its arrival
	account *Account  // nil if there is no such account
	base    string    // scheme, host and account as the client wrote them
	header  http.Header
	query   url.Values
	form    url.Values // of a token request
	params  []string   // bound values of a statement
	badBody bool       // no statement can be found in it
}

// ServeHTTP answers one request.
func (s *Sim) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	body, err := io.ReadAll(http.MaxBytesReader(w, r.Body, 1<<20))
	if err != nil {
		http.Error(w, "request body cannot be read", http.StatusBadRequest)
		return
	}
	c := s.sort(r, body)
	entry := s.log.Begin(c.Request)
	c.Request = entry.Request()
	data := c.Op != Token && c.Op != Other
	admitted := true
	if data {
		admitted = s.limits.enter(c.Company)
		defer s.limits.leave(c.Company)
	}
	s.mu.Lock()
	before := s.before
	s.mu.Unlock()
	if before != nil {
		before(c.Request)
	}
	rep := s.answer(c, entry, data, admitted)
	entry.Note(func(r *erpsim.Request) { r.Status = rep.status })
	rep.send(w, r, c.at)
}

// sort finds out what a request is.
func (s *Sim) sort(r *http.Request, body []byte) call {
	c := call{at: s.o.Now(), header: r.Header, query: r.URL.Query()}
	c.Request = erpsim.Request{Time: c.at, Op: Other, Method: r.Method, Path: r.URL.Path}
	label, rest, found := strings.Cut(r.URL.Path, services)
	c.base = "http://" + r.Host + label
	if r.TLS != nil {
		c.base = "https://" + r.Host + label
	}
	c.account = s.find(strings.TrimPrefix(label, "/"), r.Host)
	if c.account != nil {
		c.Company = c.account.ID
	}
	post := r.Method == http.MethodPost
	switch {
	case found && post && rest == "auth/oauth2/v1/token":
		c.Op, c.form = Token, tokenForm(r.Header, body)
		return c
	case found && post && rest == "query/v1/suiteql":
		c.Op = Query
		c.readStatement(body)
		return c
	case r.Method != http.MethodGet:
		c.Violation = "write"
	}
	switch {
	case found && rest == "system/v1/serverTime":
		c.Op = ServerTime
	case found && rest == "system/v1/governanceLimits":
		c.Op = Governance
	case found && strings.HasPrefix(rest, "record/v1/"):
		c.Op = Record
	}
	return c
}

// find is the account that a request names in its path or host. Without a name it is the only one there is.
func (s *Sim) find(label, host string) *Account {
	s.mu.Lock()
	defer s.mu.Unlock()
	if label == "" {
		label, _ = strings.CutSuffix(host, ".suitetalk.api.netsuite.com")
		if label == host && len(s.accounts) == 1 {
			for _, only := range s.accounts {
				return only
			}
		}
	}
	return s.accounts[label]
}

func (c *call) readStatement(body []byte) {
	in := struct {
		Q      string   `json:"q"`
		Params []string `json:"params"`
	}{}
	if err := json.Unmarshal(body, &in); err != nil || in.Q == "" {
		c.badBody = true
	}
	c.Statement, c.params = in.Q, in.Params
	if words := strings.Fields(in.Q); len(words) > 0 && !strings.EqualFold(words[0], "select") {
		c.Violation = "write"
	}
}

// answer finds the answer: what the limit says, then the script, then the right one.
func (s *Sim) answer(c call, entry *erpsim.Entry, data, admitted bool) reply {
	if !admitted {
		return tooMany.reply()
	}
	if f, met := s.script.Next(c.Request, data); met {
		entry.Note(func(r *erpsim.Request) { r.Fault = string(f.Kind) })
		return f.spoilt(c, func() reply { return s.right(c) })
	}
	return s.right(c)
}

// right is the answer without a scripted fault.
func (s *Sim) right(c call) reply {
	a := c.account
	switch {
	case a == nil: // the host of an account that is not there has no address; this is the nearest to it
		return reply{status: http.StatusNotFound, kind: htmlType, body: []byte("<html><body>Not Found</body></html>")}
	case c.Op == Token:
		return a.answerToken(c)
	case c.Op == Other:
		return nothingHere.reply()
	}
	bearer, _ := strings.CutPrefix(c.header.Get("Authorization"), "Bearer ")
	if !a.logins.admit(bearer, c.at) {
		return invalidLogin(a)
	}
	if a.mayNot(restService) {
		return insufficient("REST Web Services").reply()
	}
	switch {
	case c.Op == ServerTime:
		return ok(fmt.Appendf(nil, `{"serverTime":"%s"}`, c.at.UTC().Format("2006-01-02T15:04:05.000Z")))
	case c.Op == Query:
		body, f := a.suiteQL(c)
		if f != nil {
			return f.reply()
		}
		return ok(body)
	case c.Op == Governance:
		return insufficient("Integration Management").reply() // administrators only: OH/article_0625010817
	}
	return insufficient("the record service").reply()
}

// suiteQL answers a statement.
func (a *Account) suiteQL(c call) ([]byte, *fault) {
	if !strings.EqualFold(c.header.Get("Prefer"), "transient") { // OH/section_157909186990
		return nil, &fault{status: 400, code: "INVALID_HEADER", at: `"o:errorHeader":"Prefer"`,
			detail: "The required request header 'Prefer' is missing or invalid. It must be 'transient'."}
	}
	if c.badBody {
		return nil, &fault{status: 400, code: "INVALID_REQUEST",
			detail: "The request could not be understood by the server due to malformed syntax."}
	}
	limit, offset := 1000, 0
	for _, p := range []struct {
		name        string
		into        *int
		least, most int
	}{{"limit", &limit, 1, 1000}, {"offset", &offset, 0, 1 << 40}} {
		if !c.query.Has(p.name) {
			continue
		}
		n, err := strconv.Atoi(c.query.Get(p.name))
		if err != nil || n < p.least || n > p.most {
			return nil, &fault{status: 400, code: "INVALID_PARAMETER", at: `"o:errorQueryParam":"` + p.name + `"`,
				detail: "Invalid value for the query parameter " + p.name + "."}
		}
		*p.into = n
	}
	if c.params != nil && a.o.NoParams {
		return nil, &fault{status: 400, code: "INVALID_CONTENT", at: `"o:errorPath":"params"`,
			detail: "Invalid content in the request line. The following JSON property is not allowed: params."}
	}
	q, f := parse(c.Statement)
	if f != nil {
		return nil, f
	}
	a.mu.RLock()
	defer a.mu.RUnlock()
	p, f := a.prepare(q, c.params)
	if f != nil {
		return nil, f
	}
	return p.page(limit, offset, c.base+services+"query/v1/suiteql"), nil
}

const (
	jsonType  = "application/vnd.oracle.resource+json; type=collection"
	errorType = "application/vnd.oracle.resource+json; type=error"
	plainJSON = "application/json"
	htmlType  = "text/html"
)

// A reply is what is sent back, or how nothing is.
type reply struct {
	status     int
	kind       string // the Content-Type
	challenge  string // the WWW-Authenticate header
	retryAfter string
	location   string
	body       []byte
	delay      time.Duration // before anything is sent
	cut        bool          // the body ends in the middle
	hang, drop bool          // nothing is sent: until the client leaves, or at once
}

func ok(body []byte) reply { return reply{status: http.StatusOK, kind: jsonType, body: body} }

func (p reply) send(w http.ResponseWriter, r *http.Request, at time.Time) {
	if p.hang {
		<-r.Context().Done()
	}
	if p.delay > 0 && !wait(r.Context(), p.delay) || p.hang || p.drop {
		panic(http.ErrAbortHandler) // closes the connection without a word
	}
	h := w.Header()
	h.Set("Date", at.UTC().Format(http.TimeFormat))
	h.Set("NS_RTIMER_COMPOSITE", strings.ToLower(rand.Text()))
	for name, value := range map[string]string{
		"Content-Type": p.kind, "WWW-Authenticate": p.challenge, "Retry-After": p.retryAfter, "Location": p.location,
		"Content-Length": strconv.Itoa(len(p.body)),
	} {
		if value != "" {
			h.Set(name, value)
		}
	}
	w.WriteHeader(p.status)
	if p.cut {
		_, _ = w.Write(p.body[:len(p.body)/2])
		_ = http.NewResponseController(w).Flush() // what was written arrives before the end
		panic(http.ErrAbortHandler)
	}
	_, _ = w.Write(p.body) // a client that left is none of our business
}

func wait(ctx context.Context, d time.Duration) (whole bool) {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
		return true
	case <-ctx.Done():
		return false
	}
}

// limits count the requests that an account has under way, whoever sends them: OH/bridgehead_1500275603.
type limits struct {
	most int
	mu   sync.Mutex
	now  map[string]int // by account
	peak int
}

// enter admits a request, or not. Each entered one leaves, admitted or not.
func (l *limits) enter(account string) (admitted bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.now[account]++
	l.peak = max(l.peak, l.now[account])
	return l.most < 0 || l.now[account] <= l.most
}

func (l *limits) leave(account string) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.now[account]--
}

// Package qbo is a simulated QuickBooks Online: the token endpoint and the reading half of the Accounting API, for any
// number of companies, with the ways in which the real one fails. Nothing can be written over the wire: an attempt is
// refused and stands in the log as a violation. Where it is not known how QuickBooks behaves, an option chooses.
//
// Batch, change data capture, webhooks and revoking over the wire are not simulated, nor are rows in XML.
package qbo

import (
	"bytes"
	"compress/gzip"
	"context"
	"crypto/rand"
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
	Token       = "token"
	Query       = "query"       // of customers
	Count       = "count"       // a query for COUNT(*)
	Read        = "read"        // of one customer
	CompanyInfo = "companyinfo" // single read or query
	Other       = "other"
)

// Options say how a simulator behaves. The zero Options are a QuickBooks without limits of rate.
type Options struct {
	ClientID     string           // of the app; empty: "client"
	ClientSecret string           // of the app; empty: "secret"
	Now          func() time.Time // the server's clock; nil: time.Now

	RotateAfter   time.Duration // age from which a refresh gives a new refresh token; 0: 24 h; negative: any
	OldTokenLives time.Duration // how long a replaced refresh token still works; 0: it dies at once

	AuthXML   bool // a bad or expired access token is refused in XML (form C), not by the gateway (form B)
	TextIDs   bool // ids sort as text, not as numbers
	ClampRows bool // MAXRESULTS over 1000 gives 1000 rows, not an error
	NaiveUTC  bool // a datetime literal without an offset is in UTC, not in Pacific time
	Gzip      bool // answers are compressed for a client that accepts it

	ThrottleJSON bool // the caps below refuse in JSON, not in XML
	PerSecond    int  // requests for data of a company; 0: no cap, as for the next two
	PerMinute    int  // requests for data of a company
	PerMonth     int  // requests for data of all companies, in a calendar month of UTC
	InFlight     int  // requests for data of a company at a time; 0: 10; negative: no cap
}

// A Sim is a simulated QuickBooks Online. It serves both hosts: that of tokens and that of data.
type Sim struct {
	o      Options
	tokens *tokens
	limits limits
	log    erpsim.Log
	script erpsim.Script[Fault]

	mu        sync.Mutex
	companies map[string]*Company
	before    func(erpsim.Request)
}

// New returns a simulator without companies.
func New(o Options) *Sim {
	if o.Now == nil {
		o.Now = time.Now
	}
	if o.ClientID == "" {
		o.ClientID = "client"
	}
	if o.ClientSecret == "" {
		o.ClientSecret = "secret"
	}
	if o.RotateAfter == 0 {
		o.RotateAfter = 24 * time.Hour
	}
	return &Sim{
		o: o, tokens: newTokens(o), companies: map[string]*Company{},
		limits: limits{o: o, admitted: map[string][]time.Time{}, inFlight: map[string]int{}},
	}
}

// AddCompany adds an empty company, or returns the one of that realm id.
func (s *Sim) AddCompany(realm, name string) *Company {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.companies[realm] == nil {
		s.companies[realm] = newCompany(realm, name, s.o, s.tokens)
		s.companies[realm].script = &s.script
	}
	return s.companies[realm]
}

// Company is the company of a realm id; nil if there is none.
func (s *Sim) Company(realm string) *Company {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.companies[realm]
}

// Companies are all companies, by realm id.
func (s *Sim) Companies() []*Company {
	s.mu.Lock()
	defer s.mu.Unlock()
	all := make([]*Company, 0, len(s.companies))
	for _, c := range s.companies {
		all = append(all, c)
	}
	slices.SortFunc(all, func(a, b *Company) int { return strings.Compare(a.Realm, b.Realm) })
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

// Peak is the largest number of requests that were under way at one company at a time.
func (s *Sim) Peak() int {
	s.limits.mu.Lock()
	defer s.limits.mu.Unlock()
	return s.limits.peak
}

// A call is a request, read and sorted.
type call struct {
	erpsim.Request
	at     time.Time // the server's time of its arrival
	header http.Header
	form   url.Values // of a token request
	what   string     // the part of the path after the company: query, customer, ...
	id     string     // and the part after that
	query  query      // of a statement, if fault is nil
	fault  *fault     // of the statement
	badURL bool
}

const tokenPath = "/oauth2/v1/tokens/bearer" //nolint:gosec // no credential

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
	s.mu.Lock()
	before := s.before
	s.mu.Unlock()
	if before != nil {
		before(c.Request)
	}
	data := c.Op != Token && c.Op != Other
	admitted := true
	if data {
		admitted = s.limits.enter(c.Company, c.at)
		defer s.limits.leave(c.Company)
	}
	rep := s.answer(c, entry, data, admitted)
	entry.Note(func(r *erpsim.Request) { r.Status = rep.status })
	rep.send(w, r, s.o.Gzip && c.Op != Token)
}

// sort finds out what a request is.
func (s *Sim) sort(r *http.Request, body []byte) call {
	c := call{at: s.o.Now(), header: r.Header}
	c.Request = erpsim.Request{Time: c.at, Op: Other, Method: r.Method, Path: r.URL.Path}
	if r.URL.Path == tokenPath {
		c.Op, c.form = Token, tokenForm(body)
		c.Company = s.tokens.realmOf(c.form.Get("refresh_token"))
		return c
	}
	rest, ok := strings.CutPrefix(r.URL.Path, "/v3/company/")
	if !ok {
		if r.Method != http.MethodGet {
			c.Violation = "write"
		}
		return c
	}
	parts := strings.SplitN(rest, "/", 3)
	c.Company = parts[0]
	if len(parts) > 1 {
		c.what = parts[1]
	}
	if len(parts) > 2 {
		c.id = parts[2]
	}
	if r.Method != http.MethodGet && (r.Method != http.MethodPost || c.what != "query" || c.id != "") {
		c.Violation = "write"
		return c
	}
	switch {
	case c.what == "query" && c.id == "":
		s.sortQuery(&c, r, body)
	case c.what == "customer" && c.id != "":
		c.Op = Read
	case c.what == "companyinfo" && c.id != "":
		c.Op = CompanyInfo
	}
	return c
}

func (s *Sim) sortQuery(c *call, r *http.Request, body []byte) {
	c.Op = Query
	params, err := url.ParseQuery(r.URL.RawQuery)
	switch {
	case err != nil:
		c.badURL = true // https://github.com/intuit/oauth-jsclient/issues/129
		return
	case r.Method == http.MethodPost:
		if !strings.HasPrefix(r.Header.Get("Content-Type"), "application/text") {
			c.fault = unsupported
			return
		}
		c.Statement = string(body)
	case !params.Has("query"): // answered so: https://github.com/Servosity/msp-skills/pull/90
		c.fault = &fault{http.StatusOK, internalError.kind, internalError.code, internalError.message, internalError.detail}
		return
	default:
		c.Statement = params.Get("query")
	}
	c.query, c.fault = parse(c.Statement)
	switch {
	case c.fault != nil:
	case strings.EqualFold(c.query.entity, "companyinfo"):
		c.Op = CompanyInfo
	case c.query.count:
		c.Op = Count
	}
}

// answer finds the answer: what the limits say, then the script, then the right one.
func (s *Sim) answer(c call, entry *erpsim.Entry, data, admitted bool) reply {
	if !admitted {
		if s.o.ThrottleJSON {
			return throttled.json(c.at)
		}
		return throttled.xml(c.at)
	}
	if f, met := s.script.Next(c.Request, data); met {
		entry.Note(func(r *erpsim.Request) { r.Fault = string(f.Kind) })
		return f.spoilt(c.at, func() reply { return s.right(c) })
	}
	return s.right(c)
}

// right is the answer without a scripted fault.
func (s *Sim) right(c call) reply {
	switch {
	case c.Op == Token:
		return s.answerToken(c)
	case c.badURL:
		return reply{status: http.StatusBadRequest, kind: htmlType, body: []byte("<html><body>Bad Request</body></html>")}
	case !strings.HasPrefix(c.Path, "/v3/company/"):
		return reply{status: http.StatusNotFound}
	}
	bearer, _ := strings.CutPrefix(c.header.Get("Authorization"), "Bearer ")
	f := s.tokens.admit(c.Company, bearer)
	company := s.Company(c.Company)
	switch {
	case f != nil && (s.o.AuthXML || f == wrongAuth):
		return wrongAuth.xml(c.at)
	case f != nil:
		return f.gateway(c.at)
	case company == nil:
		return wrongAuth.xml(c.at)
	}
	body, f := company.answer(c, s.o)
	asked := strings.Contains(c.header.Get("Accept"), "json")
	switch {
	case f != nil && asked:
		return f.json(c.at)
	case f != nil:
		return f.xml(c.at)
	case !asked: // rows in XML are not simulated
		return reply{status: http.StatusOK, kind: xmlType, body: fmt.Appendf(nil, `<?xml version="1.0" encoding="UTF-8" `+
			`standalone="yes"?><IntuitResponse xmlns="http://schema.intuit.com/finance/v3" time="%s"/>`, millis(c.at))}
	}
	return reply{status: http.StatusOK, kind: jsonType, body: body}
}

// answer is the JSON that a company gives to a request that may ask.
func (c *Company) answer(q call, o Options) ([]byte, *fault) {
	if q.fault != nil {
		return nil, q.fault
	}
	var b bytes.Buffer
	switch {
	case q.Op == Read:
		c.mu.RLock()
		defer c.mu.RUnlock()
		r := c.byID[q.id]
		if r == nil {
			return nil, notFound
		}
		b.WriteString(`{"Customer":`)
		b.Write(c.wire(r))
	case q.Op == CompanyInfo && q.what == "query":
		b.WriteString(`{"QueryResponse":{"CompanyInfo":[`)
		b.Write(c.info())
		b.WriteString(`],"startPosition":1,"maxResults":1}`)
	case q.Op == CompanyInfo:
		if q.id != c.Realm && q.id != "1" {
			return nil, notFound
		}
		b.WriteString(`{"CompanyInfo":`)
		b.Write(c.info())
	case q.Op == Query || q.Op == Count:
		if !strings.EqualFold(q.query.entity, "customer") {
			return nil, invalidQuery("Invalid context declaration: %s", q.query.entity)
		}
		p, f := o.prepare(q.query)
		if f != nil {
			return nil, f
		}
		c.writeFound(&b, p)
	default:
		return nil, unsupported
	}
	fmt.Fprintf(&b, `,"time":"%s"}`, millis(q.at))
	return b.Bytes(), nil
}

func (c *Company) writeFound(b *bytes.Buffer, p plan) {
	c.mu.RLock()
	defer c.mu.RUnlock()
	rows, count := c.find(p)
	switch {
	case p.count:
		fmt.Fprintf(b, `{"QueryResponse":{"totalCount":%d}`, count)
	case len(rows) == 0:
		b.WriteString(`{"QueryResponse":{}`)
	default:
		b.WriteString(`{"QueryResponse":{"Customer":[`)
		for i, r := range rows {
			if i > 0 {
				b.WriteByte(',')
			}
			b.Write(c.wire(r))
		}
		fmt.Fprintf(b, `],"startPosition":%d,"maxResults":%d}`, p.start, len(rows))
	}
}

// info is the company on the wire. Its Id is never the realm id: https://github.com/ruckus/quickbooks-ruby
// spec/fixtures/company_info_query.xml.
func (c *Company) info() []byte {
	name := encode(c.Name)
	return fmt.Appendf(nil, `{"CompanyName":%s,"LegalName":%s,"CompanyAddr":{"Id":"1","Line1":"1 Pier Rd",`+
		`"City":"Duluth","Country":"USA","CountrySubDivisionCode":"MN","PostalCode":"55802"},"Country":"US",`+
		`"CompanyStartDate":"2019-04-01","FiscalYearStartMonth":"January","Email":{"Address":"office@kelp.example"},`+
		`"WebAddr":{},"SupportedLanguages":"en","NameValue":[{"Name":"NeoEnabled","Value":"true"}],"domain":"QBO",`+
		`"sparse":false,"Id":"1","SyncToken":"4","MetaData":{"CreateTime":"2019-04-01T09:00:00-07:00",`+
		`"LastUpdatedTime":"2026-02-11T08:12:40-08:00"}}`, name, name)
}

const (
	jsonType = "application/json;charset=UTF-8"
	xmlType  = "application/xml;charset=UTF-8"
	htmlType = "text/html"
	formType = "application/x-www-form-urlencoded"
)

// A reply is what is sent back, or how nothing is.
type reply struct {
	status     int
	kind       string // the Content-Type
	retryAfter string
	body       []byte
	delay      time.Duration // before anything is sent
	cut        bool          // the body ends in the middle
	hang, drop bool          // nothing is sent: until the client leaves, or at once
}

func (f *fault) json(at time.Time) reply {
	return reply{status: f.status, kind: jsonType, body: f.formA(at)}
}
func (f *fault) gateway(at time.Time) reply {
	return reply{status: f.status, kind: jsonType, body: f.formB(at)}
}
func (f *fault) xml(at time.Time) reply {
	return reply{status: f.status, kind: xmlType, body: f.formC(at)}
}

func (p reply) send(w http.ResponseWriter, r *http.Request, compress bool) {
	if p.hang {
		<-r.Context().Done()
	}
	if p.delay > 0 && !wait(r.Context(), p.delay) || p.hang || p.drop {
		panic(http.ErrAbortHandler) // closes the connection without a word
	}
	h := w.Header()
	h.Set("intuit_tid", "1-"+strings.ToLower(rand.Text()))
	h.Set("QBO-Version", "1975.130")
	h.Set("Service-Time", "total=12, db=4")
	h.Set("Cache-Control", "no-cache, no-store")
	if p.kind != "" {
		h.Set("Content-Type", p.kind)
	}
	if p.retryAfter != "" {
		h.Set("Retry-After", p.retryAfter)
	}
	body := p.body
	if compress && strings.Contains(r.Header.Get("Accept-Encoding"), "gzip") && len(body) > 0 {
		h.Set("Content-Encoding", "gzip")
		body = compressed(body)
	}
	h.Set("Content-Length", strconv.Itoa(len(body)))
	w.WriteHeader(p.status)
	if p.cut {
		_, _ = w.Write(body[:len(body)/2])
		panic(http.ErrAbortHandler)
	}
	_, _ = w.Write(body) // a client that left is none of our business
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

func compressed(body []byte) []byte {
	var b bytes.Buffer
	z, _ := gzip.NewWriterLevel(&b, gzip.BestSpeed) // the level is one there is
	_, _ = z.Write(body)                            // a Buffer takes everything
	_ = z.Close()
	return b.Bytes()
}

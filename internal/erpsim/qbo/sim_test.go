package qbo_test

import (
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"net/url"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/centime/contactsync/internal/erpsim/qbo"
)

const realm = "9130350000000001"

// clock is a server clock that stands still until it is told to move.
type clock struct {
	mu sync.Mutex
	at time.Time
}

func (c *clock) now() time.Time {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.at
}

func (c *clock) forward(d time.Duration) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.at = c.at.Add(d)
}

// far is a client's view of a simulator with one company.
type far struct {
	t       testing.TB
	clock   *clock
	sim     *qbo.Sim
	company *qbo.Company
	url     string
	refresh string
	access  string
}

// setup connects a client to a company of a new simulator; its clock starts at 2026-03-02 18:05:00.412 UTC.
func setup(t testing.TB, o qbo.Options) *far {
	t.Helper()
	c := &clock{at: time.Date(2026, 3, 2, 18, 5, 0, 412e6, time.UTC)}
	o.Now = c.now
	sim := qbo.New(o)
	server := httptest.NewServer(sim)
	t.Cleanup(server.Close)
	f := &far{t: t, clock: c, sim: sim, company: sim.AddCompany(realm, "Northwind Kelp LLC"), url: server.URL}
	f.refresh = f.company.Connect().RefreshToken
	if status, body := f.renew(f.refresh); status != 200 {
		t.Fatalf("first refresh: %d %s", status, body)
	}
	return f
}

// answer is what came back; err is set if no whole answer did.
type answer struct {
	status int
	header http.Header
	body   string
	err    error
}

func (f *far) do(method, path, body string, header ...string) answer {
	f.t.Helper()
	r, err := http.NewRequestWithContext(f.t.Context(), method, f.url+path, strings.NewReader(body))
	if err != nil {
		f.t.Fatal(err)
	}
	r.Header.Set("Accept", "application/json")
	r.Header.Set("Authorization", "Bearer "+f.access)
	for i := 0; i < len(header); i += 2 {
		r.Header.Set(header[i], header[i+1])
	}
	resp, err := http.DefaultClient.Do(r)
	if err != nil {
		return answer{err: err}
	}
	defer func() { _ = resp.Body.Close() }()
	got, err := io.ReadAll(resp.Body)
	return answer{resp.StatusCode, resp.Header, string(got), err}
}

func (f *far) get(path string) answer {
	f.t.Helper()
	return f.do("GET", "/v3/company/"+realm+path, "")
}

func (f *far) query(statement string) answer {
	f.t.Helper()
	return f.get("/query?query=" + url.QueryEscape(statement) + "&minorversion=75")
}

// renew asks the token endpoint, and uses the access token it gives from now on.
func (f *far) renew(refresh string, header ...string) (status int, body string) {
	f.t.Helper()
	a := f.renewRaw(refresh, header...)
	var granted struct {
		AccessToken  string `json:"access_token"`
		RefreshToken string `json:"refresh_token"`
	}
	if a.status == http.StatusOK && json.Unmarshal([]byte(a.body), &granted) == nil {
		f.access, f.refresh = granted.AccessToken, granted.RefreshToken
	}
	return a.status, a.body
}

func (f *far) renewRaw(refresh string, header ...string) answer {
	f.t.Helper()
	r, _ := http.NewRequestWithContext(f.t.Context(), "POST", "http://x", nil)
	r.SetBasicAuth("client", "secret")
	form := url.Values{"grant_type": {"refresh_token"}, "refresh_token": {refresh}}
	return f.do("POST", "/oauth2/v1/tokens/bearer", form.Encode(), append([]string{
		"Content-Type", "application/x-www-form-urlencoded", "Authorization", r.Header.Get("Authorization"),
	}, header...)...)
}

// wireRow is what tests look at in a row.
type wireRow struct {
	ID                 string `json:"Id"`
	SyncToken          string
	DisplayName        string
	FullyQualifiedName string
	Active             bool
	MetaData           struct{ CreateTime, LastUpdatedTime string }
}

// rows asks for customers and fails the test if that is refused.
func (f *far) rows(statement string) []wireRow {
	f.t.Helper()
	a := f.query(statement)
	if a.err != nil || a.status != 200 {
		f.t.Fatalf("%s: %d %s %v", statement, a.status, a.body, a.err)
	}
	var page struct {
		QueryResponse struct{ Customer []wireRow }
	}
	if err := json.Unmarshal([]byte(a.body), &page); err != nil {
		f.t.Fatal(err)
	}
	return page.QueryResponse.Customer
}

// ids are the ids of the rows a statement finds, in order.
func (f *far) ids(statement string) string {
	f.t.Helper()
	var ids []string
	for _, r := range f.rows(statement) {
		ids = append(ids, r.ID)
	}
	return strings.Join(ids, " ")
}

// join adds customers of these names, ids 1, 2 and so on, each a second after the other.
func (f *far) join(names ...string) {
	f.t.Helper()
	for _, name := range names {
		f.clock.forward(time.Second)
		if _, err := f.company.Join(qbo.Customer{DisplayName: name}); err != nil {
			f.t.Fatal(err)
		}
	}
}

func must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func same(t testing.TB, what string, got, want any) {
	t.Helper()
	if fmt.Sprint(got) != fmt.Sprint(want) {
		t.Errorf("%s:\n got %v\nwant %v", what, got, want)
	}
}

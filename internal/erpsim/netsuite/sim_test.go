package netsuite_test

import (
	"bytes"
	"crypto/rand"
	"crypto/x509"
	"encoding/json"
	"encoding/pem"
	"fmt"
	"io"
	"maps"
	"net/http"
	"net/http/httptest"
	"net/url"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/golang-jwt/jwt/v5"

	"github.com/centime/contactsync/internal/erpsim/netsuite"
)

const accountID = "1234567_SB1"

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

// far is a client's view of a simulator with one account.
type far struct {
	t       testing.TB
	clock   *clock
	sim     *netsuite.Sim
	account *netsuite.Account
	url     string // with the account
	login   netsuite.Credentials
	access  string
}

// setup connects a client to an account of a new simulator; its clock starts at 2026-03-02 18:05:00.412 UTC.
func setup(t testing.TB, o netsuite.Options) *far {
	t.Helper()
	c := &clock{at: time.Date(2026, 3, 2, 18, 5, 0, 412e6, time.UTC)}
	o.Now = c.now
	sim := netsuite.New(o)
	server := httptest.NewServer(sim)
	t.Cleanup(server.Close)
	f := &far{t: t, clock: c, sim: sim, account: sim.AddAccount(accountID, "Northwind Kelp"), url: server.URL + "/1234567-sb1"}
	f.login = f.account.Connect()
	f.renew()
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
	for i := 0; i < len(header); i += 2 {
		switch name, value := header[i], header[i+1]; {
		case name == "Host":
			r.Host = value
		case value == "":
			r.Header.Del(name)
		default:
			r.Header.Set(name, value)
		}
	}
	client := http.Client{CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }}
	resp, err := client.Do(r)
	if err != nil {
		return answer{err: err}
	}
	defer func() { _ = resp.Body.Close() }()
	got, err := io.ReadAll(resp.Body)
	return answer{resp.StatusCode, resp.Header, string(got), err}
}

const tokenPath = "/services/rest/auth/oauth2/v1/token"

// claims are those of a good assertion.
func (f *far) claims() jwt.MapClaims {
	now := f.clock.now().Unix()
	return jwt.MapClaims{
		"iss": f.login.ClientID, "scope": []string{"rest_webservices"}, "aud": f.url + tokenPath, "iat": now, "exp": now + 300,
		"jti": rand.Text(),
	}
}

// sign makes an assertion with the key of the credentials.
func (f *far) sign(method jwt.SigningMethod, claims jwt.MapClaims) string {
	f.t.Helper()
	block, _ := pem.Decode([]byte(f.login.PrivateKey))
	key, err := x509.ParsePKCS8PrivateKey(block.Bytes)
	must(f.t, err)
	token := jwt.NewWithClaims(method, claims)
	token.Header["kid"] = f.login.CertificateID
	text, err := token.SignedString(key)
	must(f.t, err)
	return text
}

func form(assertion string) url.Values {
	return url.Values{
		"grant_type": {"client_credentials"}, "client_assertion": {assertion},
		"client_assertion_type": {"urn:ietf:params:oauth:client-assertion-type:jwt-bearer"},
	}
}

func (f *far) ask(form url.Values, header ...string) answer {
	f.t.Helper()
	return f.do("POST", tokenPath, form.Encode(), append([]string{"Content-Type", "application/x-www-form-urlencoded"}, header...)...)
}

// renew logs in and uses the token from now on.
func (f *far) renew() {
	f.t.Helper()
	a := f.ask(form(f.sign(jwt.SigningMethodES256, f.claims())))
	var granted struct {
		AccessToken string `json:"access_token"`
	}
	if a.status != 200 || json.Unmarshal([]byte(a.body), &granted) != nil {
		f.t.Fatalf("token: %d %s %v", a.status, a.body, a.err)
	}
	f.access = granted.AccessToken
}

func (f *far) query(statement, parameters string, header ...string) answer {
	f.t.Helper()
	body, _ := json.Marshal(map[string]any{"q": statement})
	return f.send(string(body), parameters, header...)
}

func (f *far) send(body, parameters string, header ...string) answer {
	f.t.Helper()
	return f.do("POST", "/services/rest/query/v1/suiteql"+parameters, body, append([]string{
		"Authorization", "Bearer " + f.access, "Prefer", "transient", "Content-Type", "application/json",
	}, header...)...)
}

func (f *far) get(path string, header ...string) answer {
	f.t.Helper()
	return f.do("GET", path, "", append([]string{"Authorization", "Bearer " + f.access}, header...)...)
}

// page is an answer with rows.
type page struct {
	Links        []struct{ Rel, Href string }
	Count        int
	HasMore      bool
	Items        []map[string]any
	Offset       int
	TotalResults int
}

// page asks for rows and fails the test if that is refused. The links of its items are taken out.
func (f *far) page(statement, parameters string) page {
	f.t.Helper()
	a := f.query(statement, parameters)
	if a.err != nil || a.status != 200 {
		f.t.Fatalf("%s: %d %s %v", statement, a.status, a.body, a.err)
	}
	var p page
	must(f.t, json.Unmarshal([]byte(a.body), &p))
	for _, item := range p.Items {
		if fmt.Sprint(item["links"]) != "[]" {
			f.t.Errorf("an item has links %v", item["links"])
		}
		delete(item, "links")
	}
	return p
}

// rows are the rows a statement finds, each as JSON, joined by a space.
func (f *far) rows(statement string) string {
	f.t.Helper()
	var b bytes.Buffer
	for _, item := range f.page(statement, "").Items {
		text, _ := json.Marshal(item)
		b.Write(text)
		b.WriteByte(' ')
	}
	return strings.TrimSpace(b.String())
}

// column is one cell of each row a statement finds, joined by a space.
func (f *far) column(statement, key string) string {
	f.t.Helper()
	var cells []string
	for _, item := range f.page(statement, "").Items {
		cells = append(cells, fmt.Sprint(item[key]))
	}
	return strings.Join(cells, " ")
}

// refused is the detail of a refusal.
func (f *far) refused(statement string) string {
	f.t.Helper()
	a := f.query(statement, "")
	var e struct {
		Status  int
		Details []struct {
			Detail string
			Code   string `json:"o:errorCode"`
		} `json:"o:errorDetails"`
	}
	if a.status == 200 || json.Unmarshal([]byte(a.body), &e) != nil || len(e.Details) != 1 || e.Status != a.status {
		f.t.Fatalf("%s: want a refusal, got %d %s %v", statement, a.status, a.body, a.err)
	}
	return fmt.Sprintf("%d %s %s", e.Status, e.Details[0].Code, e.Details[0].Detail)
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

func id(t testing.TB) func(string, error) string {
	t.Helper()
	return func(id string, err error) string {
		t.Helper()
		must(t, err)
		return id
	}
}

// without is form values, some of them changed or, where the new one is empty, left out.
func without(form url.Values, key, value string) url.Values {
	changed := maps.Clone(form)
	delete(changed, key)
	if value != "" {
		changed[key] = []string{value}
	}
	return changed
}

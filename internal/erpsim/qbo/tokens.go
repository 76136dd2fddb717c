package qbo

import (
	"crypto/rand"
	"crypto/subtle"
	"maps"
	"net/http"
	"net/url"
	"strings"
	"sync"
	"time"
)

// How long tokens live: https://github.com/intuit/oauth-jsclient (README and test/mocks), and, for the absolute end,
// https://blogs.intuit.com/2025/11/12/important-changes-to-refresh-token-policy.
const (
	accessLives  = time.Hour
	refreshIdle  = 8_726_400 * time.Second // 101 days without use
	refreshYears = 5
)

// tokens are all grants of an app: who may read which company, and with what.
type tokens struct {
	now    func() time.Time
	app    Options
	mu     sync.Mutex
	grants map[string][]*grant // by realm
	tokens map[string]*grant   // by refresh token, spent ones included, and by access token
}

func newTokens(o Options) *tokens {
	return &tokens{now: o.Now, app: o, grants: map[string][]*grant{}, tokens: map[string]*grant{}}
}

// A grant is what one connect of one company gave.
type grant struct {
	realm   string
	current string               // the refresh token to use
	born    time.Time            // of current
	spent   map[string]time.Time // the refresh tokens before it, and when they were replaced
	used    time.Time            // of any of them
	ends    time.Time            // the absolute end
	access  map[string]time.Time // access tokens, and when each expires
	revoked bool
	counts  TokenCounts
}

// TokenCounts say what happened at the token endpoint.
type TokenCounts struct {
	Refreshes int `json:"refreshes"` // answered with an access token
	Rotations int `json:"rotations"` // of these, with a new refresh token
	Spent     int `json:"spent"`     // requests that used a replaced refresh token, whatever the answer was
	Refused   int `json:"refused"`   // requests refused with invalid_grant, of a company that is known
}

// Credentials are what a connection to a company is made with.
type Credentials struct {
	RefreshToken string `json:"refresh_token"`
}

// Connect gives a new grant of the company, as the consent page does. Earlier ones stay as they are.
func (c *Company) Connect() Credentials {
	t := c.tokens
	t.mu.Lock()
	defer t.mu.Unlock()
	now := t.now()
	g := &grant{
		realm: c.Realm, current: refreshToken(), born: now, used: now, ends: now.AddDate(refreshYears, 0, 0),
		spent: map[string]time.Time{}, access: map[string]time.Time{},
	}
	t.grants[c.Realm] = append(t.grants[c.Realm], g)
	t.tokens[g.current] = g
	return Credentials{g.current}
}

// Revoke ends every grant of the company, as a user does who disconnects the app inside QuickBooks.
func (c *Company) Revoke() { c.eachGrant(func(g *grant) { g.revoked = true }) }

// ExpireAccess ends all access tokens of the company now. Refresh tokens stay.
func (c *Company) ExpireAccess() {
	now := c.now()
	c.eachGrant(func(g *grant) {
		for token := range g.access {
			g.access[token] = now
		}
	})
}

// Tokens says what happened at the token endpoint for this company.
func (c *Company) Tokens() TokenCounts {
	var sum TokenCounts
	c.eachGrant(func(g *grant) {
		sum.Refreshes += g.counts.Refreshes
		sum.Rotations += g.counts.Rotations
		sum.Spent += g.counts.Spent
		sum.Refused += g.counts.Refused
	})
	return sum
}

func (c *Company) eachGrant(do func(*grant)) {
	c.tokens.mu.Lock()
	defer c.tokens.mu.Unlock()
	for _, g := range c.tokens.grants[c.Realm] {
		do(g)
	}
}

func refreshToken() string { return "RT1-" + rand.Text() + "-H0-" + rand.Text() }

// accessToken is as long as real ones, which are encrypted JWTs.
func accessToken() string {
	var b strings.Builder
	b.WriteString("eyJlbmMiOiJBMTI4Q0JDLUhTMjU2IiwiYWxnIjoiZGlyIn0..")
	for range 30 {
		b.WriteString(rand.Text())
	}
	return b.String()
}

// byRefresh is the grant of a refresh token, spent ones included; nil if there is none. t.mu is held.
func (t *tokens) byRefresh(token string) *grant {
	g := t.tokens[token]
	if g == nil || !g.access[token].IsZero() {
		return nil
	}
	return g
}

// realmOf is the company that a refresh token is for, spent ones included; empty if it is for none.
func (t *tokens) realmOf(refresh string) string {
	t.mu.Lock()
	defer t.mu.Unlock()
	if g := t.byRefresh(refresh); g != nil {
		return g.realm
	}
	return ""
}

// tokenReply is what the token endpoint answers with, its members in the order of Intuit.
type tokenReply struct {
	Type        string `json:"token_type"`
	ExpiresIn   int    `json:"expires_in"`
	Access      string `json:"access_token"`
	Refresh     string `json:"refresh_token"`
	RefreshIdle int    `json:"x_refresh_token_expires_in"`
	RefreshEnds *int   `json:"x_refresh_token_hard_expires_in,omitempty"`
}

// refresh renews an access token. ok is false where the refresh token is refused.
func (t *tokens) refresh(token string) (reply tokenReply, ok bool) {
	t.mu.Lock()
	defer t.mu.Unlock()
	g, now := t.byRefresh(token), t.now()
	if g == nil {
		return reply, false
	}
	replaced, spent := g.spent[token]
	if spent {
		g.counts.Spent++
	}
	dead := spent && !now.Before(replaced.Add(t.app.OldTokenLives))
	if g.revoked || dead || now.After(g.ends) || now.After(g.used.Add(refreshIdle)) {
		g.counts.Refused++
		return reply, false
	}
	if !spent && now.Sub(g.born) >= t.app.RotateAfter {
		g.spent[g.current] = now
		g.current, g.born = refreshToken(), now
		t.tokens[g.current] = g
		g.counts.Rotations++
	}
	g.counts.Refreshes++
	g.used = now
	maps.DeleteFunc(g.access, func(token string, end time.Time) bool {
		old := now.Sub(end) > 24*time.Hour
		if old {
			delete(t.tokens, token)
		}
		return old
	})
	access, ends := accessToken(), int(g.ends.Sub(now).Seconds())
	g.access[access], t.tokens[access] = now.Add(accessLives), g
	return tokenReply{
		"bearer", int(accessLives.Seconds()), access, g.current, int(refreshIdle.Seconds()), &ends,
	}, true
}

// admit checks the bearer token of a request for a company's data.
func (t *tokens) admit(realm, bearer string) *fault {
	t.mu.Lock()
	defer t.mu.Unlock()
	g := t.tokens[bearer]
	switch {
	case g == nil || g.access[bearer].IsZero():
		return refusedToken("Malformed bearer token: too short or too long")
	case g.revoked:
		return refusedToken("Token revoked")
	case !t.now().Before(g.access[bearer]):
		return refusedToken("Token expired")
	case g.realm != realm:
		return wrongAuth
	}
	return nil
}

// The bodies of the token endpoint's errors: https://github.com/intuit/oauth-jsclient (test/mocks/errorResponse.json)
// and its issue 128.
const (
	bareGrantError    = `{"error":"invalid_grant"}`
	mockGrantError    = `{"error_description":"Token invalid","error":"invalid_grant"}`
	longGrantError    = `{"error_description":"Incorrect or invalid refresh token","error":"invalid_grant"}`
	clientError       = `{"error":"invalid_client"}`
	requestError      = `{"error":"invalid_request"}`
	grantTypeError    = `{"error":"unsupported_grant_type"}`
	hardExpiresHeader = "x-include-refresh-token-hard-expires-in"
)

// answerToken answers a request to the token endpoint.
func (s *Sim) answerToken(c call) reply {
	bad := func(status int, body string) reply {
		return reply{status: status, kind: jsonType, body: []byte(body)}
	}
	if c.Method != http.MethodPost || !strings.HasPrefix(c.header.Get("Content-Type"), formType) {
		return bad(http.StatusBadRequest, requestError)
	}
	if !s.knowsClient(c) {
		return bad(http.StatusUnauthorized, clientError)
	}
	switch c.form.Get("grant_type") {
	case "refresh_token":
	case "authorization_code":
		return bad(http.StatusBadRequest, bareGrantError) // no code was ever given out
	default:
		return bad(http.StatusBadRequest, grantTypeError)
	}
	if c.form.Get("refresh_token") == "" {
		return bad(http.StatusBadRequest, requestError)
	}
	granted, ok := s.tokens.refresh(c.form.Get("refresh_token"))
	if !ok {
		return bad(http.StatusBadRequest, bareGrantError)
	}
	if !strings.EqualFold(c.header.Get(hardExpiresHeader), "true") {
		granted.RefreshEnds = nil
	}
	return reply{status: http.StatusOK, kind: jsonType, body: encode(granted)}
}

// knowsClient says whether a token request names the app, in the header or, as the discovery document allows, the body.
func (s *Sim) knowsClient(c call) bool {
	id, secret, basic := c.basic()
	if !basic {
		id, secret = c.form.Get("client_id"), c.form.Get("client_secret")
	}
	return subtle.ConstantTimeCompare([]byte(id), []byte(s.o.ClientID)) == 1 &&
		subtle.ConstantTimeCompare([]byte(secret), []byte(s.o.ClientSecret)) == 1
}

func (c call) basic() (id, secret string, ok bool) {
	return (&http.Request{Header: c.header}).BasicAuth()
}

// tokenForm is the form of a token request; nil if the body is none.
func tokenForm(body []byte) url.Values {
	form, err := url.ParseQuery(string(body))
	if err != nil {
		return nil
	}
	return form
}

package netsuite

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/sha256"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/base64"
	"encoding/hex"
	"encoding/pem"
	"fmt"
	"maps"
	"math/big"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/golang-jwt/jwt/v5"
)

const (
	accessLives   = time.Hour
	assertionMost = time.Hour       // exp must be less than this after iat: OH/section_162790605110
	skew          = 5 * time.Minute // that a client's clock may be off; how much NetSuite allows is not known
	validity      = 2               // years that a certificate lives: OH/subsect_162755332391
	lockAfter     = 5               // failed logins in a row
	lockFor       = 30 * time.Minute
)

// algorithms are those an assertion may be signed with; PKCS#1 v1.5 (RS256 and its like) is none of them any more.
var algorithms = []string{"PS256", "PS384", "PS512", "ES256", "ES384", "ES512"}

// logins are the ways into one account.
type logins struct {
	now func() time.Time

	mu           sync.Mutex
	certificates map[string]*certificate // by id
	disabled     map[string]bool         // integration records, by client id
	clients      map[string]bool
	seen         map[string]time.Time // assertions, and their ids, until they expire
	access       map[string]time.Time // tokens, and when each expires
	inARow       int                  // failed logins
	lockedUntil  time.Time
	counts       LoginCounts
}

// A certificate lets whoever has its key log in as one integration, role and user.
type certificate struct {
	client  string
	key     crypto.PublicKey
	ends    time.Time
	revoked bool
}

// LoginCounts say what happened at the token endpoint of an account.
type LoginCounts struct {
	Granted   int `json:"granted"`
	Failed    int `json:"failed"`     // refused, whatever for; five in a row lock the user for 30 minutes
	Locks     int `json:"locks"`      // times that happened
	Replayed  int `json:"replayed"`   // of the failed, with an assertion used before
	BadTokens int `json:"bad_tokens"` // requests for data with an access token that is not valid
}

// Credentials are what a connection to an account is made with.
type Credentials struct {
	ClientID      string `json:"client_id"`
	CertificateID string `json:"certificate_id"`
	PrivateKey    string `json:"private_key"` // PKCS #8 in PEM
	Certificate   string `json:"certificate"` // X.509 in PEM
}

// Connect makes an integration record and a certificate with a P-256 key, as an administrator does on the page OAuth 2.0
// Client Credentials (M2M) Setup.
func (a *Account) Connect() Credentials {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		panic(fmt.Errorf("make a key: %w", err)) // randomness never fails
	}
	made, err := a.ConnectWith(key)
	if err != nil {
		panic(err) // a P-256 key of ours can be used
	}
	return made
}

// ConnectWith does as Connect does, with a key of the caller: RSA, or of the curves P-256, P-384 and P-521.
func (a *Account) ConnectWith(key crypto.Signer) (Credentials, error) {
	now := a.o.Now()
	ends := now.AddDate(validity, 0, 0)
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "contactsync"}, NotBefore: now.Add(-time.Hour), NotAfter: ends,
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	if err != nil {
		return Credentials{}, fmt.Errorf("make certificate: %w", err)
	}
	private, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		return Credentials{}, fmt.Errorf("write private key: %w", err)
	}
	id := sha256.Sum256(der)
	client := make([]byte, 32)
	_, _ = rand.Read(client) // never fails
	made := Credentials{
		ClientID: hex.EncodeToString(client), CertificateID: base64.RawURLEncoding.EncodeToString(id[:]),
		PrivateKey:  string(pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: private})),
		Certificate: string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der})),
	}
	l := a.logins
	l.mu.Lock()
	defer l.mu.Unlock()
	l.clients[made.ClientID] = true
	l.certificates[made.CertificateID] = &certificate{client: made.ClientID, key: key.Public(), ends: ends}
	return made, nil
}

// Revoke revokes all certificates and ends all access tokens, as an administrator does.
func (a *Account) Revoke() {
	a.ExpireAccess()
	a.eachCertificate(func(c *certificate) { c.revoked = true })
}

// EndCertificates has all certificates expire now. Access tokens live on.
func (a *Account) EndCertificates() {
	now := a.o.Now()
	a.eachCertificate(func(c *certificate) { c.ends = now })
}

func (a *Account) eachCertificate(do func(*certificate)) {
	a.logins.mu.Lock()
	defer a.logins.mu.Unlock()
	for _, c := range a.logins.certificates {
		do(c)
	}
}

// Disable disables all integration records, or enables them again. A disabled one ends its access tokens.
func (a *Account) Disable(disabled bool) {
	a.logins.mu.Lock()
	defer a.logins.mu.Unlock()
	for client := range a.logins.clients {
		a.logins.disabled[client] = disabled
	}
	if disabled {
		clear(a.logins.access)
	}
}

// ExpireAccess ends all access tokens of the account now.
func (a *Account) ExpireAccess() {
	a.logins.mu.Lock()
	defer a.logins.mu.Unlock()
	clear(a.logins.access)
}

// Logins says what happened at the token endpoint.
func (a *Account) Logins() LoginCounts {
	a.logins.mu.Lock()
	defer a.logins.mu.Unlock()
	return a.logins.counts
}

// Locked says whether too many failed logins have locked the user.
func (a *Account) Locked() bool {
	a.logins.mu.Lock()
	defer a.logins.mu.Unlock()
	return a.o.Now().Before(a.logins.lockedUntil)
}

func newLogins(now func() time.Time) *logins {
	return &logins{
		now: now, certificates: map[string]*certificate{}, disabled: map[string]bool{}, clients: map[string]bool{},
		seen: map[string]time.Time{}, access: map[string]time.Time{},
	}
}

// admit says whether an access token is valid.
func (l *logins) admit(token string, now time.Time) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	if now.Before(l.access[token]) {
		return true
	}
	l.counts.BadTokens++
	return false
}

// The errors of the token endpoint: OH/subsect_158521832417.
const (
	invalidRequest  = "invalid_request"
	invalidClient   = "invalid_client"
	invalidGrant    = "invalid_grant"
	invalidScope    = "invalid_scope"
	unauthorized    = "unauthorized_client"
	unsupportedType = "unsupported_grant_type"

	assertionType = "urn:ietf:params:oauth:client-assertion-type:jwt-bearer"
)

// tokenForm is the form of a token request; nil if the body is none.
func tokenForm(h http.Header, body []byte) url.Values {
	form, err := url.ParseQuery(string(body))
	if err != nil || !strings.HasPrefix(h.Get("Content-Type"), "application/x-www-form-urlencoded") {
		return nil
	}
	return form
}

// answerToken answers a request to the token endpoint.
func (a *Account) answerToken(c call) reply {
	l := a.logins
	l.mu.Lock()
	defer l.mu.Unlock()
	if now := l.now(); !now.Before(l.lockedUntil) && !l.lockedUntil.IsZero() {
		l.lockedUntil, l.inARow = time.Time{}, 0
	}
	if refused := l.check(c, a.ID); refused != "" {
		l.fail()
		return tokenError(a, refused)
	}
	l.counts.Granted++
	l.inARow = 0
	now := l.now()
	maps.DeleteFunc(l.access, func(_ string, ends time.Time) bool { return !now.Before(ends) })
	token := accessToken()
	l.access[token] = now.Add(accessLives)
	expires := "3600" // documented as always that
	if a.o.TextExpiry {
		expires = `"3600"`
	}
	body := fmt.Appendf(nil, `{"access_token":"%s","expires_in":%s,"token_type":"Bearer"}`, token, expires)
	return reply{status: http.StatusOK, kind: plainJSON, body: body}
}

// fail counts a failed login, with l.mu held.
func (l *logins) fail() {
	l.counts.Failed++
	if l.inARow++; l.inARow == lockAfter {
		l.counts.Locks++
		l.lockedUntil = l.now().Add(lockFor)
	}
}

// tokenError is a refusal. Only the one of the client has a challenge.
func tokenError(a *Account, name string) reply {
	r := reply{status: http.StatusBadRequest, kind: plainJSON, body: []byte(`{"error":"` + name + `"}`)}
	if name == invalidClient {
		r.status, r.challenge = http.StatusUnauthorized, fmt.Sprintf(`Basic realm="%s"`, a.ID)
	}
	return r
}

// check says with which error a token request is refused; empty if it is not. l.mu is held.
func (l *logins) check(c call, account string) string {
	grant, assertion := c.form.Get("grant_type"), c.form.Get("client_assertion")
	if grant != "" && grant != "client_credentials" {
		return unsupportedType
	}
	if grant == "" || assertion == "" || c.form.Get("client_assertion_type") != assertionType || len(c.form) != 3 ||
		c.header.Get("Authorization") != "" {
		return invalidRequest
	}
	for _, values := range c.form {
		if len(values) != 1 {
			return invalidRequest
		}
	}
	claims := jwt.MapClaims{}
	token, _, err := jwt.NewParser().ParseUnverified(assertion, claims)
	if err != nil {
		return invalidRequest
	}
	client, _ := claims["iss"].(string)
	if !l.clients[client] || l.disabled[client] {
		return invalidClient
	}
	id, _ := token.Header["kid"].(string)
	known := l.certificates[id]
	now := l.now()
	if known == nil || known.client != client || known.revoked || !now.Before(known.ends) || now.Before(l.lockedUntil) ||
		token.Header["typ"] != "JWT" {
		return invalidGrant
	}
	parser := jwt.NewParser(jwt.WithValidMethods(algorithms), jwt.WithTimeFunc(l.now), jwt.WithLeeway(skew), jwt.WithIssuedAt(),
		jwt.WithExpirationRequired(), jwt.WithAudience(audiences(c, account)...))
	if _, err := parser.Parse(assertion, func(*jwt.Token) (any, error) { return known.key, nil }); err != nil {
		return invalidGrant
	}
	issued, err := claims.GetIssuedAt()
	if err != nil || issued == nil {
		return invalidGrant
	}
	expires, _ := claims.GetExpirationTime() // the parser has required it
	if expires.Sub(issued.Time) >= assertionMost || now.Sub(issued.Time) >= assertionMost {
		return invalidGrant
	}
	if !scoped(claims["scope"]) {
		return invalidScope
	}
	return l.once(assertion, claims, expires.Time)
}

// audiences are the token URLs that an assertion may be for: the one it was sent to, the account's own, and the same on
// the host of RESTlets, which Oracle's sample has.
func audiences(c call, account string) []string {
	const path = services + "auth/oauth2/v1/token"
	all := []string{c.base + path}
	for _, service := range []string{"suitetalk", "restlets"} {
		all = append(all, "https://"+HostLabel(account)+"."+service+".api.netsuite.com"+path)
	}
	return all
}

// scoped says whether a scope claim has rest_webservices. Oracle's table says text separated by commas, its sample and
// the connectors that work send an array.
func scoped(scope any) bool {
	switch s := scope.(type) {
	case string:
		return slices.Contains(strings.Split(strings.ReplaceAll(s, " ", ""), ","), "rest_webservices")
	case []any:
		return slices.Contains(s, any("rest_webservices"))
	}
	return false
}

// once refuses an assertion, or an id of one, that was used before.
func (l *logins) once(assertion string, claims jwt.MapClaims, expires time.Time) string {
	now := l.now()
	maps.DeleteFunc(l.seen, func(_ string, ends time.Time) bool { return now.After(ends) })
	names := []string{"assertion " + assertion}
	if id, ok := claims["jti"].(string); ok {
		names = append(names, "id "+id)
	}
	for _, name := range names {
		if !l.seen[name].IsZero() {
			l.counts.Replayed++
			return invalidGrant
		}
	}
	for _, name := range names {
		l.seen[name] = expires.Add(skew)
	}
	return ""
}

// accessToken looks like the JWT that a real one is.
func accessToken() string {
	part := func(n int) string {
		raw := make([]byte, n)
		_, _ = rand.Read(raw) // never fails
		return base64.RawURLEncoding.EncodeToString(raw)
	}
	return "eyJraWQiOiJzLlNZU1RFTS4yMDIwXzEiLCJ0eXAiOiJKV1QiLCJhbGciOiJSUzI1NiJ9." + part(240) + "." + part(384)
}

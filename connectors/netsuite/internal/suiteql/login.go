package suiteql

import (
	"bytes"
	"cmp"
	"context"
	"crypto"
	"crypto/ecdsa"
	"crypto/rand"
	"crypto/rsa"
	"crypto/x509"
	"encoding/json"
	"encoding/pem"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/golang-jwt/jwt/v5"

	"github.com/centime/contactsync/internal/connector"
	"github.com/centime/contactsync/internal/erphttp"
)

const (
	// TokenTimeout bounds a token request.
	TokenTimeout = 20 * time.Second

	tokenPath     = services + "auth/oauth2/v1/token"
	tokenStep     = "log in"
	formType      = "application/x-www-form-urlencoded"
	assertionType = "urn:ietf:params:oauth:client-assertion-type:jwt-bearer"
	// assertionLives is far below the hour that NetSuite allows: OH/section_162790605110.
	assertionLives = 5 * time.Minute
	// skewed is how far apart clocks are that are worth a word; a Date header has whole seconds.
	skewed = time.Minute
)

// A Clock is this machine's, set right by what NetSuite's turned out to be: an assertion of another time is refused.
type Clock struct {
	now func() time.Time
	mu  sync.Mutex
	off time.Duration // NetSuite's time is so much later
}

// NewClock returns a clock that believes now.
func NewClock(now func() time.Time) *Clock { return &Clock{now: now} }

// Now is this machine's time.
func (c *Clock) Now() time.Time { return c.now() }

// theirs is NetSuite's time, as far as it is known.
func (c *Clock) theirs() time.Time {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.now().Add(c.off)
}

// correct takes a Date header's time, and says whether that changes much.
func (c *Clock) correct(date string) bool {
	at, err := http.ParseTime(date)
	if err != nil {
		return false
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	off := at.Sub(c.now())
	if (off - c.off).Abs() < skewed {
		return false
	}
	c.off = off
	return true
}

// A Key signs assertions.
type Key struct {
	signer crypto.Signer
	method jwt.SigningMethod
}

// ParseKey reads a private key in PEM: PKCS#8, PKCS#1 or SEC1. The algorithm follows from the key, of those that
// NetSuite takes: RSA signs with PSS, a curve with its own hash. The error repeats nothing of the text.
func ParseKey(text string) (Key, error) {
	var parsed any
	for rest := []byte(text); parsed == nil; {
		block, following := pem.Decode(rest)
		if block == nil {
			return Key{}, errors.New("is no private key in PEM, such as -----BEGIN PRIVATE KEY-----")
		}
		rest = following
		var err error
		switch {
		case strings.Contains(block.Type, "ENCRYPTED"), block.Headers["DEK-Info"] != "":
			return Key{}, errors.New("is encrypted: give it without its passphrase, as `openssl pkey` writes it")
		case block.Type == "PRIVATE KEY":
			parsed, err = x509.ParsePKCS8PrivateKey(block.Bytes)
		case block.Type == "RSA PRIVATE KEY":
			parsed, err = x509.ParsePKCS1PrivateKey(block.Bytes)
		case block.Type == "EC PRIVATE KEY":
			parsed, err = x509.ParseECPrivateKey(block.Bytes)
		}
		if err != nil {
			return Key{}, errors.New("is damaged: it cannot be read")
		}
	}
	switch k := parsed.(type) {
	case *rsa.PrivateKey:
		key := Key{k, jwt.SigningMethodPS256}
		if _, err := key.sign(jwt.NewWithClaims(key.method, jwt.MapClaims{})); err != nil {
			return Key{}, errors.New("is an RSA key too short to sign with: NetSuite takes 3072 or 4096 bits")
		}
		return key, nil
	case *ecdsa.PrivateKey:
		methods := map[int]jwt.SigningMethod{
			256: jwt.SigningMethodES256, 384: jwt.SigningMethodES384, 521: jwt.SigningMethodES512,
		}
		if method := methods[k.Curve.Params().BitSize]; method != nil {
			return Key{k, method}, nil
		}
	}
	return Key{}, errors.New("is of a kind that NetSuite does not take: use RSA of 3072 or 4096 bits, or EC P-256, " +
		"P-384 or P-521")
}

func (k Key) sign(token *jwt.Token) (string, error) { return token.SignedString(k.signer) }

// CertificateEnds reads when a certificate in PEM ends, and whether it is of the key. NetSuite cuts what is longer than
// two years: OH/subsect_162755332391.
func (k Key) CertificateEnds(text string) (time.Time, error) {
	block, _ := pem.Decode([]byte(text))
	if block == nil || block.Type != "CERTIFICATE" {
		return time.Time{}, errors.New("is no certificate in PEM, such as -----BEGIN CERTIFICATE-----")
	}
	c, err := x509.ParseCertificate(block.Bytes)
	if err != nil {
		return time.Time{}, errors.New("is damaged: it cannot be read")
	}
	public, ok := k.signer.Public().(interface{ Equal(crypto.PublicKey) bool })
	if !ok || !public.Equal(c.PublicKey) {
		return time.Time{}, errors.New("belongs to another private key")
	}
	if longest := c.NotBefore.AddDate(2, 0, 0); longest.Before(c.NotAfter) {
		return longest.UTC(), nil
	}
	return c.NotAfter.UTC(), nil
}

// Renew logs in with a signed assertion, a fresh one each time. There is no refresh token.
func Renew(
	ctx context.Context, a connector.Account, c connector.Credentials, clock *Clock,
) (connector.Credentials, error) {
	key, err := ParseKey(c.PrivateKey)
	if err != nil {
		return connector.Credentials{}, denied("the private key "+err.Error(), setUpAgain)
	}
	if c.Certificate != "" {
		ends, err := key.CertificateEnds(c.Certificate)
		if err != nil {
			return connector.Credentials{}, denied("the certificate "+err.Error(), setUpAgain)
		}
		c.CertificateEndsAt = &ends
	}
	if ends := c.CertificateEndsAt; ends != nil && ends.Before(clock.theirs()) {
		return connector.Credentials{}, denied("its certificate ended on "+ends.UTC().Format(time.DateOnly), setUpAgain)
	}
	address := cmp.Or(a.TokenURL, base(a)+tokenPath)
	client := erphttp.New(connector.Account{Transport: a.Transport}, TokenTimeout, erphttp.Read{
		Method: http.MethodPost, Path: func(string) bool { return true },
		Body: func(b []byte) bool { return bytes.HasPrefix(b, []byte("client_assertion=")) },
	})
	for try := 1; ; try++ {
		form, err := assertion(key, address, c, clock.theirs())
		if err != nil {
			return connector.Credentials{}, err
		}
		reply, err := client.Do(ctx, tokenStep, http.MethodPost, address, formType, []byte(form), "")
		if errors.Is(err, erphttp.ErrNoHost) && a.APIURL == "" && a.TokenURL == "" {
			return connector.Credentials{}, hostUnknown(err)
		}
		if err != nil {
			return connector.Credentials{}, err
		}
		refusal := refused(reply)
		// Once more, by NetSuite's own clock: of all that is refused so, this alone mends itself.
		if refusal == invalidGrant && clock.correct(reply.Header.Get("Date")) && try == 1 {
			continue
		}
		if reply.Status != http.StatusOK {
			return connector.Credentials{}, tokenError(a, c, reply, refusal, clock)
		}
		return granted(c, reply, clock)
	}
}

// assertion is the form of a token request.
func assertion(key Key, address string, c connector.Credentials, now time.Time) (string, error) {
	token := jwt.NewWithClaims(key.method, jwt.MapClaims{
		"iss": c.ClientID, "aud": address, "scope": []string{"rest_webservices"}, "jti": rand.Text(),
		"iat": now.Unix(), "exp": now.Add(assertionLives).Unix(),
	})
	token.Header["kid"] = c.CertificateID
	signed, err := key.sign(token)
	if err != nil {
		return "", denied("the private key does not sign", setUpAgain)
	}
	return url.Values{
		"grant_type": {"client_credentials"}, "client_assertion_type": {assertionType}, "client_assertion": {signed},
	}.Encode(), nil
}

func granted(c connector.Credentials, reply erphttp.Reply, clock *Clock) (connector.Credentials, error) {
	var answer struct {
		Token   erphttp.Text `json:"access_token"`
		Expires cell         `json:"expires_in"` // seen as text too
	}
	err := json.Unmarshal(reply.Body, &answer)
	seconds, _ := strconv.ParseFloat(answer.Expires.Value, 64)
	if err != nil || answer.Token.Value == "" || !(seconds > 0 && seconds < 1e9) {
		return connector.Credentials{}, &connector.Error{
			Kind: connector.Transient, Step: tokenStep, Message: "200 with no usable token",
		}
	}
	ends := clock.Now().Add(time.Duration(seconds) * time.Second).UTC()
	c.AccessToken, c.ExpiresAt = answer.Token.Value, &ends
	return c, nil
}

const (
	invalidGrant  = "invalid_grant"
	invalidClient = "invalid_client"

	setUpAgain = "Make a new certificate for the integration in NetSuite under Setup > Integration > OAuth 2.0 " +
		"Client Credentials (M2M) Setup, then store it: syncctl connection credentials."
)

// refused is the error's name of a refused token request, one that is known; else empty.
func refused(r erphttp.Reply) string {
	var body struct {
		Error erphttp.Text `json:"error"`
	}
	if r.Status == http.StatusOK || json.Unmarshal(r.Body, &body) != nil {
		return ""
	}
	switch body.Error.Value {
	case "invalid_request", invalidClient, invalidGrant, "unauthorized_client", "unsupported_grant_type", "invalid_scope":
		return body.Error.Value
	}
	return ""
}

func denied(message, hint string) error {
	return &connector.Error{Kind: connector.Denied, Step: tokenStep, Message: message, Hint: hint}
}

func hostUnknown(err error) error {
	e, ok := errors.AsType[*connector.Error](err)
	if !ok {
		return err
	}
	told := *e
	told.Hint = "If this account was never reached, its id is wrong. " + checkAccount + " Else look at this machine's DNS."
	return &told
}

// tokenError says what a refused token request means: OH/subsect_158521832417. NetSuite gives one answer for several
// causes, so the hint says which can be left out. Five refusals lock the user for half an hour, so none is tried again
// by itself.
func tokenError(a connector.Account, c connector.Credentials, r erphttp.Reply, refusal string, clock *Clock) error {
	message := strings.TrimSpace(fmt.Sprintf("%d %s", r.Status, refusal))
	e := &connector.Error{Kind: connector.Denied, Step: tokenStep, Message: message}
	switch {
	case r.Status == http.StatusTooManyRequests:
		e.Kind, e.RetryAfter = connector.Throttled, throttleWait(r)
		return e
	case r.Status == http.StatusNotFound:
		e.Hint = checkAccount
		return e
	case r.Status >= http.StatusInternalServerError, r.Status < http.StatusBadRequest,
		r.Status == http.StatusRequestTimeout:
		e.Kind = connector.Transient
		return e
	}
	e.NoTrial = refusal != "" // else it may not be NetSuite's word about the login, such as the page of a firewall
	switch refusal {
	case invalidClient:
		e.Hint = "client_id is not that of an enabled integration record of this account: compare it in Setup > " +
			"Integration > Manage Integrations."
	case "unauthorized_client":
		e.Hint = "The integration record does not allow it: tick Client Credentials (Machine to Machine) Grant in " +
			"Setup > Integration > Manage Integrations."
	case "invalid_scope":
		e.Hint = "The integration record lacks the scope REST Web Services: tick it in Setup > Integration > Manage " +
			"Integrations."
	case invalidGrant:
		e.Hint = grantHint(c, clock)
	default:
		e.Hint = "The request itself was refused: check the setting token_url, else report it with the time."
	}
	if _, environment, _ := strings.Cut(a.ID, "_"); strings.HasPrefix(environment, "SB") && refusal != "" {
		e.Hint += " A refresh of a sandbox removes the set-up: then make it again."
	}
	return e
}

// grantHint tells what was found right here, and so what is left.
func grantHint(c connector.Credentials, clock *Clock) string {
	end := "the certificate's end is not known here"
	if c.CertificateEndsAt != nil {
		end = "the certificate lasts until " + c.CertificateEndsAt.UTC().Format(time.DateOnly)
	}
	ours := "the clock is right"
	clock.mu.Lock()
	if clock.off.Abs() >= skewed {
		ours = "the clock was corrected"
	}
	clock.mu.Unlock()
	left := "certificate_id is wrong, the certificate was revoked or is that of another key"
	if c.CertificateEndsAt == nil {
		left = "certificate_id is wrong, the certificate has ended, was revoked or is that of another key"
	}
	return fmt.Sprintf("The private key can be read, %s and %s, so it is one of: %s, or its user or role is inactive. "+
		"Compare with Setup > Integration > OAuth 2.0 Client Credentials (M2M) Setup, then syncctl connection "+
		"credentials.", end, ours, left)
}

package netsuite_test

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/golang-jwt/jwt/v5"

	"github.com/centime/contactsync/internal/erpsim"
	"github.com/centime/contactsync/internal/erpsim/netsuite"
)

// Every algorithm that NetSuite takes is verified for real, and RS256 with the right key is refused.
func TestAssertionsByAlgorithm(t *testing.T) {
	t.Parallel()
	f := setup(t, netsuite.Options{})
	rsaKey, err := rsa.GenerateKey(rand.Reader, 2048)
	must(t, err)
	for _, c := range []struct {
		method jwt.SigningMethod
		key    crypto.Signer
		want   int
	}{
		{jwt.SigningMethodPS256, rsaKey, 200}, {jwt.SigningMethodPS384, rsaKey, 200}, {jwt.SigningMethodPS512, rsaKey, 200},
		{jwt.SigningMethodRS256, rsaKey, 400}, {jwt.SigningMethodRS512, rsaKey, 400},
		{jwt.SigningMethodES256, curve(t, elliptic.P256()), 200}, {jwt.SigningMethodES384, curve(t, elliptic.P384()), 200},
		{jwt.SigningMethodES512, curve(t, elliptic.P521()), 200},
	} {
		f.login, err = f.account.ConnectWith(c.key)
		must(t, err)
		a := f.ask(form(f.sign(c.method, f.claims())))
		if a.status != c.want || c.want == 400 && a.body != `{"error":"invalid_grant"}` {
			t.Errorf("%s: %d %s", c.method.Alg(), a.status, a.body)
		}
	}
}

func curve(t *testing.T, c elliptic.Curve) crypto.Signer {
	t.Helper()
	key, err := ecdsa.GenerateKey(c, rand.Reader)
	must(t, err)
	return key
}

// One thing wrong with a token request is answered with the error that OH/subsect_158521832417 names for it.
func TestTokenRequestsThatAreRefused(t *testing.T) {
	t.Parallel()
	with := func(f *far, key string, value any) string {
		claims := f.claims()
		claims[key] = value
		return f.sign(jwt.SigningMethodES256, claims)
	}
	for name, c := range map[string]struct {
		ask  func(f *far) answer
		want string
	}{
		"good": {func(f *far) answer { return f.ask(form(f.sign(jwt.SigningMethodES256, f.claims()))) }, ""},
		"scope as text": {func(f *far) answer {
			return f.ask(form(with(f, "scope", "restlets,rest_webservices")))
		}, ""},
		"the account's own URL": {func(f *far) answer {
			return f.ask(form(with(f, "aud", "https://1234567-sb1.suitetalk.api.netsuite.com"+tokenPath)))
		}, ""},
		"an hour less a second": {func(f *far) answer { return f.ask(form(with(f, "exp", f.clock.now().Unix()+3599))) }, ""},

		"an hour":       {func(f *far) answer { return f.ask(form(with(f, "exp", f.clock.now().Unix()+3600))) }, "400 invalid_grant"},
		"expired":       {func(f *far) answer { return f.ask(form(with(f, "exp", f.clock.now().Unix()-301))) }, "400 invalid_grant"},
		"of the future": {func(f *far) answer { return f.ask(form(with(f, "iat", f.clock.now().Unix()+301))) }, "400 invalid_grant"},
		"no iat":        {func(f *far) answer { return f.ask(form(with(f, "iat", nil))) }, "400 invalid_grant"},
		"audience":      {func(f *far) answer { return f.ask(form(with(f, "aud", "https://other.example"))) }, "400 invalid_grant"},
		"scope":         {func(f *far) answer { return f.ask(form(with(f, "scope", []string{"restlets"}))) }, "400 invalid_scope"},
		"client":        {func(f *far) answer { return f.ask(form(with(f, "iss", strings.Repeat("0", 64)))) }, "401 invalid_client"},
		"certificate id": {func(f *far) answer {
			f.login.CertificateID = "x"
			return f.ask(form(f.sign(jwt.SigningMethodES256, f.claims())))
		}, "400 invalid_grant"},
		"another's key": {func(f *far) answer {
			f.login.PrivateKey = f.account.Connect().PrivateKey
			return f.ask(form(f.sign(jwt.SigningMethodES256, f.claims())))
		}, "400 invalid_grant"},
		"another account's login": {func(f *far) answer {
			f.login = f.sim.AddAccount("7654321", "Other").Connect()
			return f.ask(form(f.sign(jwt.SigningMethodES256, f.claims())))
		}, "401 invalid_client"},
		"revoked": {func(f *far) answer {
			f.account.Revoke()
			return f.ask(form(f.sign(jwt.SigningMethodES256, f.claims())))
		}, "400 invalid_grant"},
		"certificate at its end": {func(f *far) answer {
			f.account.EndCertificates()
			return f.ask(form(f.sign(jwt.SigningMethodES256, f.claims())))
		}, "400 invalid_grant"},
		"disabled": {func(f *far) answer {
			f.account.Disable(true)
			return f.ask(form(f.sign(jwt.SigningMethodES256, f.claims())))
		}, "401 invalid_client"},
		"enabled again": {func(f *far) answer {
			f.account.Disable(true)
			f.account.Disable(false)
			return f.ask(form(f.sign(jwt.SigningMethodES256, f.claims())))
		}, ""},
		"used twice": {func(f *far) answer {
			assertion := f.sign(jwt.SigningMethodES256, f.claims())
			f.ask(form(assertion))
			return f.ask(form(assertion))
		}, "400 invalid_grant"},
		"id used twice": {func(f *far) answer {
			f.ask(form(with(f, "jti", "same")))
			return f.ask(form(with(f, "jti", "same")))
		}, "400 invalid_grant"},
		"no assertion": {func(f *far) answer { return f.ask(without(form("x"), "client_assertion", "")) }, "400 invalid_request"},
		"no JWT":       {func(f *far) answer { return f.ask(form("x")) }, "400 invalid_request"},
		"a secret too": {func(f *far) answer {
			return f.ask(without(form(f.sign(jwt.SigningMethodES256, f.claims())), "client_secret", "s"))
		}, "400 invalid_request"},
		"authorization": {func(f *far) answer {
			return f.ask(form(f.sign(jwt.SigningMethodES256, f.claims())), "Authorization", "Basic eDp5")
		}, "400 invalid_request"},
		"as JSON": {func(f *far) answer {
			return f.ask(form(f.sign(jwt.SigningMethodES256, f.claims())), "Content-Type", "application/json")
		}, "400 invalid_request"},
		"grant type": {func(f *far) answer { return f.ask(without(form("x"), "grant_type", "refresh_token")) }, "400 unsupported_grant_type"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			f := setup(t, netsuite.Options{})
			a := c.ask(f)
			got := strings.TrimSuffix(strings.Replace(a.body, `{"error":"`, fmt.Sprint(a.status, " "), 1), `"}`)
			if a.status == 200 {
				got = ""
			}
			same(t, "answer", got, c.want)
			challenge := ""
			if a.status == 401 {
				challenge = `Basic realm="1234567_SB1"`
			}
			same(t, "challenge", a.header.Get("WWW-Authenticate"), challenge)
			same(t, "failed logins", f.account.Logins().Failed, map[bool]int{true: 0, false: 1}[c.want == ""])
		})
	}
}

// Five failed logins in a row lock the user for half an hour, so that a storm shows; a good one starts the count again.
func TestFiveFailedLoginsLock(t *testing.T) {
	t.Parallel()
	f := setup(t, netsuite.Options{})
	good := func() int { return f.ask(form(f.sign(jwt.SigningMethodES256, f.claims()))).status }
	fail := func(n int) {
		for range n {
			claims := f.claims()
			claims["aud"] = "elsewhere"
			f.ask(form(f.sign(jwt.SigningMethodES256, claims)))
		}
	}
	fail(4)
	same(t, "after four", fmt.Sprint(good(), f.account.Locked()), "200 false")
	fail(4)
	f.sim.Fail(erpsim.Rule{Op: netsuite.Token}, netsuite.Fault{Kind: netsuite.InvalidGrant}) // a scripted one counts too
	good()
	same(t, "after five", fmt.Sprint(good(), f.account.Locked()), "400 true")
	same(t, "a token lives on", f.query("SELECT id FROM contact", "").status, 200)
	f.clock.forward(29 * time.Minute)
	same(t, "29 minutes later", good(), 400)
	f.clock.forward(time.Minute)
	same(t, "30 minutes later", fmt.Sprint(good(), f.account.Locked()), "200 false")
	same(t, "counts", f.account.Logins(), netsuite.LoginCounts{Granted: 3, Failed: 11, Locks: 1})
}

// Access tokens end after an hour, or early, and are good for one account only.
func TestAccessTokens(t *testing.T) {
	t.Parallel()
	f := setup(t, netsuite.Options{TextExpiry: true})
	if a := f.ask(form(f.sign(jwt.SigningMethodES256, f.claims()))); !strings.Contains(a.body, `"expires_in":"3600","token_type":"Bearer"}`) {
		t.Error(a.body)
	}
	status := func() int { return f.query("SELECT id FROM contact", "").status }
	same(t, "good", status(), 200)
	f.clock.forward(time.Hour)
	a := f.query("SELECT id FROM contact", "")
	same(t, "after an hour", fmt.Sprint(a.status, " ", a.header.Get("WWW-Authenticate")), `401 Bearer realm="1234567_SB1", `+
		`error="invalid_token", error_description="Invalid login attempt."`)
	if !strings.Contains(a.body, `"o:errorCode":"INVALID_LOGIN"`) {
		t.Error(a.body)
	}
	f.renew()
	f.account.ExpireAccess()
	same(t, "ended early", status(), 401)
	f.renew()
	f.sim.AddAccount("7654321", "Other")
	f.url = strings.Replace(f.url, "1234567-sb1", "7654321", 1)
	same(t, "elsewhere", status(), 401)
	same(t, "bad tokens", fmt.Sprint(f.account.Logins().BadTokens, f.sim.Account("7654321").Logins().BadTokens), "2 1")
}

// A request finds its account by path or host; one that there is not has no address.
func TestAccountsByHost(t *testing.T) {
	t.Parallel()
	f := setup(t, netsuite.Options{})
	path := "/services/rest/system/v1/serverTime"
	base := f.url
	f.url = strings.TrimSuffix(base, "/1234567-sb1")
	same(t, "the only one", f.get(path).status, 200)
	f.sim.AddAccount("7654321", "Other")
	same(t, "two", f.get(path).status, 404)
	same(t, "by host", f.get(path, "Host", "1234567-sb1.suitetalk.api.netsuite.com").status, 200)
	same(t, "another host", f.get(path, "Host", "1234567.suitetalk.api.netsuite.com").status, 404)
	f.url = strings.Replace(base, "1234567-sb1", "1234567", 1)
	same(t, "not there", f.get(path).status, 404)
	same(t, "accounts", fmt.Sprint(f.sim.Account("1234567_sb1") == f.account, f.sim.Account("nobody") == nil, len(f.sim.Accounts())), "true true 2")
}

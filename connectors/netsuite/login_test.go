package netsuite_test

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"errors"
	"net"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/centime/contactsync/connectors/netsuite"
	"github.com/centime/contactsync/internal/connector"
	"github.com/centime/contactsync/internal/erpsim"
	sim "github.com/centime/contactsync/internal/erpsim/netsuite"
)

// nowhere is a network in which no host has an address.
type nowhere struct{}

func (nowhere) RoundTrip(r *http.Request) (*http.Response, error) {
	return nil, &net.OpError{Op: "dial", Err: &net.DNSError{Err: "no such host", Name: r.URL.Host, IsNotFound: true}}
}

func (f *far) renew(a connector.Account, change func(*connector.Credentials)) (connector.Credentials, error) {
	c := f.tokens.login
	if change != nil {
		change(&c)
	}
	return f.erp.Renew(f.Context(), a, c)
}

// TestKeysLogIn: RSA and each curve log in at a NetSuite that verifies the signature, each time with a fresh assertion.
func TestKeysLogIn(t *testing.T) {
	t.Parallel()
	f := newFar(t, sim.Options{}, 50)
	rsaKey, err := rsa.GenerateKey(rand.Reader, 3072)
	f.do(err)
	given, err := f.account.ConnectWith(rsaKey)
	f.do(err)
	all := []sim.Credentials{given}
	for _, c := range []elliptic.Curve{elliptic.P256(), elliptic.P384(), elliptic.P521()} {
		key, err := ecdsa.GenerateKey(c, rand.Reader)
		f.do(err)
		given, err := f.account.ConnectWith(key)
		f.do(err)
		all = append(all, given)
	}
	for _, g := range all {
		c := connector.Credentials{
			ClientID: g.ClientID, CertificateID: g.CertificateID, PrivateKey: g.PrivateKey, Certificate: g.Certificate,
		}
		if err := f.erp.Validate(account, c); err != nil {
			t.Error(err)
		}
		for range 3 {
			renewed, err := f.erp.Renew(t.Context(), f.tokens.account, c)
			if err != nil || renewed.AccessToken == "" || renewed.CertificateEndsAt == nil ||
				!renewed.ExpiresAt.Equal(f.now.Add(time.Hour)) {
				t.Errorf("%v", err)
			}
		}
	}
	if n := f.account.Logins(); n.Failed != 0 || n.Granted != 12 {
		t.Errorf("%+v", n)
	}
}

// TestRefusedLoginsSayWhy: each cause that can be told from the others is, and a refusal is not to be tried again by
// itself.
func TestRefusedLoginsSayWhy(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		account connector.Account // empty: the right one
		before  func(f *far)
		change  func(*connector.Credentials)
		kind    connector.ErrorKind
		noTrial bool
		says    string // part of the error or its hint
		logins  int    // failed ones
	}{
		"WrongAccount": {account: connector.Account{ID: "7654321", APIURL: "other"}, kind: connector.Denied, says: "Check the account id"},
		"NoHost": {account: connector.Account{ID: "NOSUCHACCOUNT", Transport: nowhere{}}, kind: connector.Transient,
			says: "its id is wrong. Check the account id"},
		"CertificateID": {change: func(c *connector.Credentials) { c.CertificateID = "other" }, kind: connector.Denied, noTrial: true,
			says: "certificate_id is wrong", logins: 1},
		"ClientID": {change: func(c *connector.Credentials) { c.ClientID = "other" }, kind: connector.Denied, noTrial: true,
			says: "client_id is not that of an enabled integration", logins: 1},
		"Disabled": {before: func(f *far) { f.account.Disable(true) }, kind: connector.Denied, noTrial: true,
			says: "client_id is not that of an enabled integration", logins: 1},
		"Ended": {before: func(f *far) { f.Pass(3 * 365 * 24 * time.Hour) }, kind: connector.Denied, says: "certificate ended on 2028-"},
		"EndedUnknown": {before: func(f *far) { f.account.EndCertificates() }, change: func(c *connector.Credentials) { c.Certificate = "" },
			kind: connector.Denied, noTrial: true, says: "the certificate's end is not known here and the clock is right", logins: 1},
		"Revoked": {before: func(f *far) { f.account.Revoke() }, kind: connector.Denied, noTrial: true,
			says: "the certificate lasts until 2028-", logins: 1},
		"Sandbox": {before: func(f *far) { f.account.Revoke() }, kind: connector.Denied, noTrial: true,
			says: "A refresh of a sandbox removes the set-up", logins: 1},
		"Grant": {before: func(f *far) {
			f.account.Fail(erpsim.Rule{Op: sim.Token}, sim.Fault{Kind: sim.UnauthorizedClient})
		}, kind: connector.Denied, noTrial: true, says: "Client Credentials (Machine to Machine) Grant", logins: 1},
		"Scope": {before: func(f *far) { f.account.Fail(erpsim.Rule{Op: sim.Token}, sim.Fault{Kind: sim.InvalidScope}) },
			kind: connector.Denied, noTrial: true, says: "scope REST Web Services", logins: 1},
		"Request": {before: func(f *far) { f.account.Fail(erpsim.Rule{Op: sim.Token}, sim.Fault{Kind: sim.InvalidRequest}) },
			kind: connector.Denied, noTrial: true, says: "token_url", logins: 1},
		"Maintenance": {before: func(f *far) { f.account.Fail(erpsim.Rule{Op: sim.Token}, sim.Fault{Kind: sim.HTML503}) },
			kind: connector.Transient, says: "503"},
		"Firewall": {before: func(f *far) {
			f.account.Fail(erpsim.Rule{Op: sim.Token}, sim.Fault{Kind: sim.Custom, Status: 403, ContentType: "text/html", Body: "<html>Access denied"})
		}, kind: connector.Denied, says: "403"},
		"NotJSON": {before: func(f *far) { f.account.Fail(erpsim.Rule{Op: sim.Token}, sim.Fault{Kind: sim.NotJSON}) },
			kind: connector.Transient, says: "no usable token"},
		"Redirect": {before: func(f *far) { f.account.Fail(erpsim.Rule{Op: sim.Token}, sim.Fault{Kind: sim.Redirect}) },
			kind: connector.Transient, says: "302"},
		"TooMany": {before: func(f *far) { f.account.Fail(erpsim.Rule{Op: sim.Token}, sim.Fault{Kind: sim.Throttle}) },
			kind: connector.Throttled, says: "429"},
		"Lost": {before: func(f *far) { f.account.Fail(erpsim.Rule{Op: sim.Token}, sim.Fault{Kind: sim.LoseReply}) },
			kind: connector.Transient, says: "cut off"},
		"DamagedKey": {change: func(c *connector.Credentials) { c.PrivateKey = "s3cret" }, kind: connector.Denied, says: "no private key"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			f := newFar(t, sim.Options{}, 50)
			f.sim.AddAccount("9999999", "Another") // so that the account must be named
			a := c.account
			switch {
			case a.ID == "":
				a = f.tokens.account
			case a.APIURL != "":
				a.APIURL = strings.Replace(f.url, "1234567-sb1", "7654321", 1)
			}
			if c.before != nil {
				c.before(f)
			}
			_, err := f.renew(a, c.change)
			e, _ := errors.AsType[*connector.Error](err)
			if e == nil || e.Kind != c.kind || e.NoTrial != c.noTrial || !strings.Contains(err.Error()+" "+e.Hint, c.says) {
				t.Fatalf("%v %+v, want %s with %q", err, e, c.kind, c.says)
			}
			if e.Kind == connector.Denied && e.Hint == "" {
				t.Error("nothing says what to do")
			}
			for _, secret := range []string{f.tokens.login.PrivateKey, f.tokens.login.ClientID, "s3cret"} {
				if strings.Contains(err.Error()+e.Hint, secret) {
					t.Errorf("a secret is told: %v", err)
				}
			}
			if n := f.account.Logins().Failed; n != c.logins {
				t.Errorf("%d failed logins, want %d", n, c.logins)
			}
		})
	}
}

// TestWrongClockMendsItself: an assertion of another time is refused once, then NetSuite's own clock is used, and a
// check says that this machine's is wrong.
func TestWrongClockMendsItself(t *testing.T) {
	t.Parallel()
	f := newFar(t, sim.Options{}, 50)
	f.erp = netsuite.Open(func() time.Time { return f.clock().Add(-47 * time.Minute) }, 50)
	f.tokens.erp = f.erp
	for range 3 {
		_, err := f.renew(f.tokens.account, nil)
		f.do(err)
	}
	if n := f.account.Logins(); n.Failed != 1 || n.Granted != 3 {
		t.Errorf("%+v", n)
	}
	check, err := f.Open(nil).Check(t.Context())
	if err != nil || len(check.Notes) != 1 || !strings.Contains(check.Notes[0], "47m0s apart") {
		t.Errorf("%v %q", err, check.Notes)
	}
}

// TestRefusedTokenEndsTheRequest: a token that NetSuite gave and does not take is replaced once, and no third is asked
// for.
func TestRefusedTokenEndsTheRequest(t *testing.T) {
	t.Parallel()
	f := newFar(t, sim.Options{}, 50)
	f.account.Fail(erpsim.Rule{Times: erpsim.Forever}, sim.Fault{Kind: sim.InvalidLogin})
	_, err := f.pull(connector.Pull{}, nil)
	e, _ := errors.AsType[*connector.Error](err)
	if e == nil || !e.NoTrial || e.Kind != connector.Denied || len(f.statements()) != 2 {
		t.Errorf("%v after %d requests", err, len(f.statements()))
	}
}

// TestValidate: what cannot log in is refused before anything is asked, with the set-up that can.
func TestValidate(t *testing.T) {
	t.Parallel()
	f := newFar(t, sim.Options{Now: time.Now}, 50)
	good := f.tokens.login
	for _, id := range []string{"1234567", "1234567_SB1", "1234567_RP", "TSTDRV1234567"} {
		if err := f.erp.Validate(id, good); err != nil {
			t.Errorf("%s: %v", id, err)
		}
	}
	for _, id := range []string{"", "1234567-sb1", "1234567_sb1", " 1234567", "https://1234567.app.netsuite.com", "1234567.app", "1_2_3", "a b"} {
		if err := f.erp.Validate(id, good); err == nil || !strings.HasPrefix(err.Error(), "account: ") {
			t.Errorf("%q: %v", id, err)
		}
	}
	other := f.account.Connect()
	for name, c := range map[string]struct {
		change func(*connector.Credentials)
		says   string
	}{
		"NoClient":      {func(c *connector.Credentials) { c.ClientID = "" }, "client_id is missing"},
		"NoCertificate": {func(c *connector.Credentials) { c.CertificateID = " " }, "certificate_id is missing"},
		"NoKey":         {func(c *connector.Credentials) { c.PrivateKey = "" }, "private_key is missing"},
		"BadKey":        {func(c *connector.Credentials) { c.PrivateKey = "s3cret" }, "private_key is no private key"},
		"OtherKey":      {func(c *connector.Credentials) { c.Certificate = other.Certificate }, "belongs to another private key"},
		"Ended": {func(c *connector.Credentials) {
			at := time.Now().Add(-time.Hour)
			c.Certificate, c.CertificateEndsAt = "", &at
		}, "has ended"},
		"Refresh": {func(c *connector.Credentials) { c.RefreshToken = "s3cret" }, "Client Credentials (M2M)"},
	} {
		login := good
		c.change(&login)
		if err := f.erp.Validate(account, login); err == nil || !strings.Contains(err.Error(), c.says) || strings.Contains(err.Error(), "s3cret") {
			t.Errorf("%s: %v, want %q", name, err, c.says)
		}
	}
	for document, says := range map[string]string{
		`{"consumer_key":"s3cret","consumer_secret":"s3cret","token_id":"s3cret","token_secret":"s3cret"}`: "token-based authentication",
		`{"tokenId":"s3cret"}`:       "OAuth 2.0 Client Credentials (M2M) Setup",
		`{"client_secret":"s3cret"}`: "client_secret is of a login",
		`{"alg":"RS256"}`:            "no longer takes RS256",
		`{"algorithm":"PS256"}`:      "cannot be chosen",
	} {
		c, err := connector.ParseCredentials([]byte(document))
		f.do(err)
		if err := f.erp.Validate(account, c); err == nil || !strings.Contains(err.Error(), says) || strings.Contains(err.Error(), "s3cret") {
			t.Errorf("%s: %v, want %q", document, err, says)
		}
	}
}

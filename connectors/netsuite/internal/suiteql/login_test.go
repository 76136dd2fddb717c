package suiteql

import (
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"math/big"
	"strings"
	"testing"
	"time"

	"github.com/golang-jwt/jwt/v5"

	"github.com/centime/contactsync/internal/connector"
)

func block(t *testing.T, kind string, der []byte, err error) string {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
	return string(pem.EncodeToMemory(&pem.Block{Type: kind, Bytes: der}))
}

// TestKeys: the algorithm is the key's, PSS or a curve's, and what cannot sign so is refused with a reason that repeats
// none of it.
func TestKeys(t *testing.T) {
	t.Parallel()
	rsaKey, err := rsa.GenerateKey(rand.Reader, 2048)
	if err != nil {
		t.Fatal(err)
	}
	curve := func(c elliptic.Curve) *ecdsa.PrivateKey {
		k, err := ecdsa.GenerateKey(c, rand.Reader)
		if err != nil {
			t.Fatal(err)
		}
		return k
	}
	pkcs8 := func(key any) string {
		der, err := x509.MarshalPKCS8PrivateKey(key)
		return block(t, "PRIVATE KEY", der, err)
	}
	sec1, err := x509.MarshalECPrivateKey(curve(elliptic.P256()))
	_, ed, _ := ed25519.GenerateKey(rand.Reader)
	for name, c := range map[string]struct{ text, alg, refused string }{
		"PKCS8":     {pkcs8(rsaKey), "PS256", ""},
		"PKCS1":     {block(t, "RSA PRIVATE KEY", x509.MarshalPKCS1PrivateKey(rsaKey), nil), "PS256", ""},
		"SEC1":      {block(t, "EC PRIVATE KEY", sec1, err), "ES256", ""},
		"P256":      {pkcs8(curve(elliptic.P256())), "ES256", ""},
		"P384":      {pkcs8(curve(elliptic.P384())), "ES384", ""},
		"P521":      {"a certificate may stand before it\n" + block(t, "CERTIFICATE", []byte{1}, nil) + pkcs8(curve(elliptic.P521())), "ES512", ""},
		"P224":      {pkcs8(curve(elliptic.P224())), "", "of a kind"},
		"Ed25519":   {pkcs8(ed), "", "of a kind"},
		"Encrypted": {block(t, "ENCRYPTED PRIVATE KEY", []byte{1}, nil), "", "encrypted"},
		"Damaged":   {block(t, "PRIVATE KEY", []byte{1}, nil), "", "damaged"},
		"Public":    {block(t, "PUBLIC KEY", []byte{1}, nil), "", "no private key"},
		"Empty":     {"", "", "no private key"},
		"Text":      {"s3cret", "", "no private key"},
	} {
		key, err := ParseKey(c.text)
		switch {
		case c.refused != "":
			if err == nil || !strings.Contains(err.Error(), c.refused) || strings.Contains(err.Error(), "s3cret") {
				t.Errorf("%s: %v", name, err)
			}
		case err != nil:
			t.Errorf("%s: %v", name, err)
		case key.method.Alg() != c.alg:
			t.Errorf("%s signs with %s", name, key.method.Alg())
		}
	}
}

// TestAssertions: each is another one, verifies with the public key, and is short-lived.
func TestAssertions(t *testing.T) {
	t.Parallel()
	private, err := ecdsa.GenerateKey(elliptic.P384(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	key := Key{private, jwt.SigningMethodES384}
	c := connector.Credentials{ClientID: "client", CertificateID: "certificate"}
	now := time.Now().Truncate(time.Second)
	met := map[string]bool{}
	for range 3 {
		form, err := assertion(key, "https://1.example/token", c, now)
		if err != nil {
			t.Fatal(err)
		}
		_, signed, _ := strings.Cut(form, "client_assertion=")
		signed, _, _ = strings.Cut(signed, "&")
		claims := jwt.MapClaims{}
		token, err := jwt.ParseWithClaims(signed, claims, func(*jwt.Token) (any, error) { return private.Public(), nil },
			jwt.WithAudience("https://1.example/token"), jwt.WithIssuer("client"))
		if err != nil {
			t.Fatal(err)
		}
		issued, _ := claims.GetIssuedAt()
		expires, _ := claims.GetExpirationTime()
		scope, isList := claims["scope"].([]any)
		if token.Header["kid"] != "certificate" || token.Header["typ"] != "JWT" || !issued.Equal(now) || expires.Sub(issued.Time) != 5*time.Minute ||
			!isList || len(scope) != 1 || scope[0] != "rest_webservices" {
			t.Errorf("%v %v", token.Header, claims)
		}
		met[claims["jti"].(string)] = true
	}
	if len(met) != 3 {
		t.Errorf("ids are used again: %v", met)
	}
}

// TestCertificates: when it ends is read from the certificate, two years after its beginning at most.
func TestCertificates(t *testing.T) {
	t.Parallel()
	private, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	other, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	begins := time.Date(2026, 3, 1, 0, 0, 0, 0, time.UTC)
	key := Key{private, jwt.SigningMethodES256}
	certificate := func(of *ecdsa.PrivateKey, years int) string {
		template := &x509.Certificate{SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "x"}, NotBefore: begins, NotAfter: begins.AddDate(years, 0, 0)}
		der, err := x509.CreateCertificate(rand.Reader, template, template, of.Public(), of)
		return block(t, "CERTIFICATE", der, err)
	}
	for years, want := range map[int]time.Time{1: begins.AddDate(1, 0, 0), 2: begins.AddDate(2, 0, 0), 10: begins.AddDate(2, 0, 0)} {
		if got, err := key.CertificateEnds(certificate(private, years)); err != nil || !got.Equal(want) {
			t.Errorf("of %d years it ends %s, %v", years, got, err)
		}
	}
	for _, bad := range []string{certificate(other, 1), "", "x", block(t, "CERTIFICATE", []byte{1}, nil)} {
		if _, err := key.CertificateEnds(bad); err == nil {
			t.Errorf("%.30q is taken", bad)
		}
	}
}

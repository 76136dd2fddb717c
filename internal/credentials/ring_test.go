package credentials

import (
	"bytes"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"log/slog"
	"strings"
	"testing"
	"time"

	"pgregory.net/rapid"

	"github.com/centime/contactsync/internal/connector"
)

var place = Place{Table: "credentials", Tenant: 1, Connection: 42}

func key(fill byte) string {
	return base64.StdEncoding.EncodeToString(bytes.Repeat([]byte{fill}, keyBytes))
}

func ring(t testing.TB, text string) *Ring {
	t.Helper()
	r, err := ParseRing(text)
	if err != nil {
		t.Fatal(err)
	}
	return r
}

func TestRingOpensWhatItSealed(t *testing.T) {
	t.Parallel()
	r := ring(t, NewKey())
	rapid.Check(t, func(t *rapid.T) {
		plain := rapid.SliceOf(rapid.Byte()).Draw(t, "plain")
		id, box := r.Seal(plain, place)
		if id != r.Primary() {
			t.Fatalf("sealed with %q, want the primary key %q", id, r.Primary())
		}
		if len(plain) > 8 && bytes.Contains(box, plain) {
			t.Fatal("the box shows what it holds")
		}
		if got, err := r.Open(id, box, place); err != nil || !bytes.Equal(got, plain) {
			t.Fatalf("opened %x, %v; want %x", got, err, plain)
		}
		if _, again := r.Seal(plain, place); bytes.Equal(again, box) {
			t.Fatal("two boxes are the same")
		}
	})
}

// A box copied to another row, or changed by a bit, opens nowhere.
func TestRowsCannotBeSwapped(t *testing.T) {
	t.Parallel()
	r := ring(t, "new:"+key(1))
	id, box := r.Seal([]byte("secret"), place)
	for _, other := range []Place{
		{Table: "credentials", Tenant: 1, Connection: 43},
		{Table: "credentials", Tenant: 2, Connection: 42},
		{Table: "tokens", Tenant: 1, Connection: 42},
		{Table: "credentials", Tenant: 14, Connection: 2},
	} {
		if _, err := r.Open(id, box, other); err == nil {
			t.Errorf("a box of %v opened at %v", place, other)
		}
	}
	for i := range box {
		changed := bytes.Clone(box)
		changed[i] ^= 1
		if _, err := r.Open(id, changed, place); err == nil {
			t.Errorf("a box with byte %d changed opened", i)
		}
	}
	for _, cut := range [][]byte{nil, {}, box[:5], box[:len(box)-1]} {
		if _, err := r.Open(id, cut, place); connector.KindOf(err) != connector.Misconfigured {
			t.Errorf("a box cut to %d bytes: %v", len(cut), err)
		}
	}
}

// The newest key seals, older ones still open, and a key taken away too early is named.
func TestRingRotates(t *testing.T) {
	t.Parallel()
	id, box := ring(t, "old:"+key(1)).Seal([]byte("secret"), place)

	both := ring(t, "new:"+key(2)+" , old:"+key(1))
	if got, err := both.Open(id, box, place); err != nil || string(got) != "secret" {
		t.Errorf("the old key opened %q, %v", got, err)
	}
	if both.Primary() != "new" {
		t.Errorf("%q seals, want the newest key", both.Primary())
	}

	_, err := ring(t, "new:"+key(2)).Open(id, box, place)
	if connector.KindOf(err) != connector.Misconfigured ||
		!strings.Contains(err.Error(), `key "old" is missing from CREDENTIALS_KEY`) {
		t.Errorf("without the old key: %v", err)
	}
	_, err = ring(t, "old:"+key(3)).Open(id, box, place)
	if connector.KindOf(err) != connector.Misconfigured {
		t.Errorf("with another key of the same id: %v", err)
	}
}

// Secrets stay secret: an entry that cannot be read is named by its place.
func TestParseRingRepeatsNoKey(t *testing.T) {
	t.Parallel()
	secret := key('s')
	for text, want := range map[string]string{
		"":                                     "entry 1 is not",
		secret:                                 "entry 1 is not",
		"a:" + secret + ",":                    "entry 2 is not",
		"a:" + secret + ",b":                   "entry 2 is not",
		"a b:" + secret:                        "entry 1 is not",
		":" + secret:                           "entry 1 is not",
		strings.Repeat("a", 41) + ":" + secret: "entry 1 is not",
		"a:" + secret[1:]:                      "key of entry 1",
		"a:" + secret[4:]:                      "key of entry 1",
		"a:" + strings.TrimRight(secret, "="):  "key of entry 1",
		"a:" + secret + ",a:" + key(1):         "entry 2 has the id of an earlier one",
	} {
		_, err := ParseRing(text)
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%d bytes: %v, want an error with %q", len(text), err, want)
			continue
		}
		if strings.Contains(err.Error(), secret[4:12]) {
			t.Errorf("the error repeats the key: %v", err)
		}
	}
}

func TestNewKey(t *testing.T) {
	t.Parallel()
	a, b := NewKey(), NewKey()
	if a == b {
		t.Error("two new keys are the same")
	}
	if r := ring(t, a+","+b); !strings.HasPrefix(a, r.Primary()+":") {
		t.Errorf("the primary key is %q", r.Primary())
	}
}

func TestRingIsNotPrinted(t *testing.T) {
	t.Parallel()
	r := ring(t, "new:"+key('s')+",old:"+key('t'))
	var out bytes.Buffer
	for _, verb := range []string{"%v", "%+v", "%#v", "%s", "%q", "%x", "%d"} {
		fmt.Fprintf(&out, verb+verb+verb+"\n", r, *r, struct{ R *Ring }{r})
	}
	slog.New(slog.NewTextHandler(&out, nil)).Info("text", "ring", r, "in", struct{ R *Ring }{r})
	slog.New(slog.NewJSONHandler(&out, nil)).Info("json", "ring", r, "in", struct{ R *Ring }{r})
	if err := json.NewEncoder(&out).Encode(r); err != nil {
		t.Fatal(err)
	}
	text := out.String()
	for _, secret := range []string{key('s'), "sssss", "115 115", "73737373", "0x73"} {
		if strings.Contains(text, secret) {
			t.Errorf("printing shows %q:\n%s", secret, text)
		}
	}
	if !strings.Contains(text, "[keys new, old]") {
		t.Errorf("printing does not name the keys:\n%s", text)
	}
}

func TestPack(t *testing.T) {
	t.Parallel()
	r := ring(t, NewKey())
	end := time.Date(2026, 11, 24, 8, 0, 0, 123, time.UTC)
	c := connector.Credentials{RefreshToken: "R", AccessToken: "A", ExpiresAt: &end, PrivateKey: "PEM"}
	s, err := r.Pack(c, place)
	if err != nil {
		t.Fatal(err)
	}
	got, err := r.Unpack(s, place)
	if err != nil || got.RefreshToken != "R" || got.AccessToken != "A" ||
		got.PrivateKey != "PEM" || !got.ExpiresAt.Equal(end) {
		t.Errorf("unpacked something else, %v", err)
	}

	id, box := r.Seal([]byte(`{"refresh_token":"R-secret","expires_at":"R-secret"}`), place)
	_, err = r.Unpack(Stored{KeyID: id, Box: box}, place)
	if connector.KindOf(err) != connector.Misconfigured || strings.Contains(err.Error(), "secret") {
		t.Errorf("what cannot be read: %v", err)
	}
}

// Any text is a ring or an error, and a ring's every key opens what it sealed.
func FuzzParseRing(f *testing.F) {
	for _, s := range []string{
		"", "a:", ":", ",", "a:" + key(1), "b:" + key(2) + ", a:" + key(1), NewKey(), "a:" + key(1) + "\n",
	} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, text string) {
		r, err := ParseRing(text)
		if err != nil {
			return
		}
		id, box := r.Seal([]byte("secret"), place)
		if got, err := r.Open(id, box, place); err != nil || string(got) != "secret" {
			t.Fatalf("opened %q, %v", got, err)
		}
	})
}

// Whatever bytes a row holds, nothing but an error comes of them.
func FuzzUnpack(f *testing.F) {
	r := ring(f, "a:"+key(1))
	s, err := r.Pack(connector.Credentials{RefreshToken: "R"}, place)
	if err != nil {
		f.Fatal(err)
	}
	f.Add("a", s.Box[:len(s.Box)-1])
	f.Add("b", s.Box)
	f.Add("", []byte{})
	f.Fuzz(func(t *testing.T, id string, box []byte) {
		if _, err := r.Unpack(Stored{KeyID: id, Box: box}, place); err == nil && !bytes.Equal(box, s.Box) {
			t.Fatal("opened what was never sealed")
		}
	})
}

// TestEndOfALogin: what is stored beside the box is the soonest end, with as much notice as it takes to replace it.
func TestEndOfALogin(t *testing.T) {
	t.Parallel()
	soon, late := time.Now().Add(time.Hour), time.Now().Add(9000*time.Hour)
	asLate := late
	for name, c := range map[string]struct {
		login  connector.Credentials
		want   *time.Time
		notice int
	}{
		"Unknown":     {connector.Credentials{}, nil, 14},
		"Rolling":     {connector.Credentials{RefreshExpiresAt: &soon, RefreshEndsAt: &late}, &soon, 14},
		"Absolute":    {connector.Credentials{RefreshExpiresAt: &late, RefreshEndsAt: &soon}, &soon, 60},
		"Both":        {connector.Credentials{RefreshExpiresAt: &asLate, RefreshEndsAt: &late}, &late, 60},
		"Certificate": {connector.Credentials{CertificateEndsAt: &soon}, &soon, 60},
	} {
		stored, err := ring(t, "a:"+key(1)).Pack(c.login, place)
		if err != nil || stored.EndsAt != c.want || stored.NoticeDays != c.notice {
			t.Errorf("%s: ends %v with %d days' notice, %v", name, stored.EndsAt, stored.NoticeDays, err)
		}
	}
}

// Package credentials holds sealed credentials, and token sources that save what they rotate.
package credentials

import (
	"crypto/aes"
	"crypto/cipher"
	"crypto/rand"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"regexp"
	"strings"
	"time"

	"github.com/centime/contactsync/internal/connector"
)

const keyBytes = 32 // AES-256

var keyID = regexp.MustCompile(`^[A-Za-z0-9._-]{1,40}$`)

// A Ring is the keys of CREDENTIALS_KEY: the first seals, each opens what it sealed. Printing or logging it shows the
// ids only. It is safe for concurrent use.
type Ring struct {
	primary string
	ids     []string
	ciphers map[string]cipher.AEAD
}

// A Place is where a box is stored. A box opens only where it was sealed: no row can be given another's secrets.
type Place struct {
	Table      string // credentials
	Tenant     int64
	Connection int64
}

func (p Place) data() []byte { return fmt.Appendf(nil, "%s/%d/%d", p.Table, p.Tenant, p.Connection) }

// ParseRing reads CREDENTIALS_KEY: one or more `id:base64 of 32 bytes`, comma separated, newest first. The error names
// entries by their place and never repeats what may be a key.
func ParseRing(text string) (*Ring, error) {
	r := &Ring{ciphers: map[string]cipher.AEAD{}}
	for i, entry := range strings.Split(text, ",") {
		id, encoded, found := strings.Cut(strings.TrimSpace(entry), ":")
		if !found || !keyID.MatchString(id) {
			return nil, fmt.Errorf("entry %d is not `id:base64 of 32 bytes`, the id of 1 to 40 letters, digits and ._-", i+1)
		}
		key, err := base64.StdEncoding.DecodeString(encoded)
		if err != nil || len(key) != keyBytes {
			return nil, fmt.Errorf("the key of entry %d is not the base64 of %d bytes", i+1, keyBytes)
		}
		if r.ciphers[id] != nil {
			return nil, fmt.Errorf("entry %d has the id of an earlier one", i+1)
		}
		block, err := aes.NewCipher(key)
		if err != nil {
			return nil, fmt.Errorf("entry %d: %w", i+1, err)
		}
		if r.ciphers[id], err = cipher.NewGCMWithRandomNonce(block); err != nil {
			return nil, fmt.Errorf("entry %d: %w", i+1, err)
		}
		r.ids = append(r.ids, id)
	}
	r.primary = r.ids[0]
	return r, nil
}

// NewKey makes an entry for CREDENTIALS_KEY, of a random key and an id with today's date.
func NewKey() string {
	key := make([]byte, keyBytes)
	_, _ = rand.Read(key) // never fails
	id := time.Now().UTC().Format("2006-01-02") + "-" + strings.ToLower(rand.Text()[:4])
	return id + ":" + base64.StdEncoding.EncodeToString(key)
}

// Primary is the id of the key that seals: a box of another key is due for `syncctl key reseal`.
func (r *Ring) Primary() string { return r.primary }

// Seal encrypts for one place with the primary key.
func (r *Ring) Seal(plain []byte, about Place) (keyID string, box []byte) {
	return r.primary, r.ciphers[r.primary].Seal(nil, nil, plain, about.data()) //nolint:gosec // it draws a nonce itself and takes none
}

// Open decrypts what Seal sealed for the same place. Its error is a Misconfigured connector.Error: it concerns the keys
// of this installation, not one connection's login.
func (r *Ring) Open(keyID string, box []byte, about Place) ([]byte, error) {
	c, ok := r.ciphers[keyID]
	if !ok {
		return nil, &connector.Error{
			Kind: connector.Misconfigured, Step: "open credentials",
			Message: fmt.Sprintf("key %q is missing from CREDENTIALS_KEY", keyID),
			Hint: "Put the key back into CREDENTIALS_KEY, behind the newest; " +
				"if it is lost, give the login again with `syncctl connection credentials`.",
		}
	}
	plain, err := c.Open(nil, nil, box, about.data())
	if err != nil {
		return nil, &connector.Error{
			Kind: connector.Misconfigured, Step: "open credentials",
			Message: fmt.Sprintf("key %q does not open them", keyID),
			Hint: "Compare this key in CREDENTIALS_KEY with the one that sealed them; " +
				"if it is the same, the row was changed or copied: give the login again with `syncctl connection credentials`.",
		}
	}
	return plain, nil
}

// Pack seals a connection's credentials for storage. Version and RenewingSince of the result are left to the Vault.
func (r *Ring) Pack(c connector.Credentials, about Place) (Stored, error) {
	type document connector.Credentials     // without the methods that hide it
	plain, err := json.Marshal(document(c)) //nolint:gosec // to be sealed
	if err != nil {
		return Stored{}, errors.New("pack credentials: a time in them cannot be written") // the cause may repeat values
	}
	id, box := r.Seal(plain, about)
	stored := Stored{KeyID: id, Box: box, NoticeDays: rollingNotice}
	for _, end := range []*time.Time{c.RefreshEndsAt, c.RefreshExpiresAt, c.CertificateEndsAt} {
		if end != nil && (stored.EndsAt == nil || end.Before(*stored.EndsAt)) {
			stored.EndsAt = end
		}
	}
	if stored.EndsAt != nil && stored.EndsAt != c.RefreshExpiresAt {
		stored.NoticeDays = fixedNotice
	}
	return stored, nil
}

// How many days before its end people are told of a login: of an end that each renewal moves, and of one that only the customer can move, such as
// that of a certificate (NetSuite itself writes to administrators two months ahead) or a QuickBooks token's five years.
const (
	rollingNotice = 14
	fixedNotice   = 60
)

// Unpack opens what Pack sealed for the same place; errors are those of Open.
func (r *Ring) Unpack(s Stored, about Place) (connector.Credentials, error) {
	plain, err := r.Open(s.KeyID, s.Box, about)
	if err != nil {
		return connector.Credentials{}, err
	}
	var c connector.Credentials
	if err := json.Unmarshal(plain, &c); err != nil { // the cause may repeat values
		return connector.Credentials{}, &connector.Error{
			Kind: connector.Misconfigured, Step: "open credentials", Message: "they are not what this version stores",
			Hint: "Run the version that stored them, or give the login again with `syncctl connection credentials`.",
		}
	}
	return c, nil
}

// String names the keys and shows none.
func (r Ring) String() string {
	return "[keys " + strings.Join(r.ids, ", ") + "]"
}

// Format hides the keys from every fmt verb.
func (r Ring) Format(f fmt.State, _ rune) { _, _ = fmt.Fprint(f, r.String()) }

// LogValue hides the keys from slog.
func (r Ring) LogValue() slog.Value { return slog.StringValue(r.String()) }

// MarshalText hides the keys from encoders.
func (r Ring) MarshalText() ([]byte, error) { return []byte(r.String()), nil }

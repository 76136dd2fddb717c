package connector

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"maps"
	"reflect"
	"slices"
	"strings"
	"time"
)

// Credentials are what a connection logs in with: the JSON document of `--credentials FILE`, and what is sealed and
// stored of it. A connector uses the fields of its ERP. Printing or logging it shows nothing.
type Credentials struct {
	// QuickBooks Online.
	RefreshToken     string     `json:"refresh_token,omitempty"`
	RefreshExpiresAt *time.Time `json:"refresh_expires_at,omitempty"` // rolling, 100 days
	RefreshEndsAt    *time.Time `json:"refresh_ends_at,omitempty"`    // absolute, five years

	// NetSuite.
	ClientID      string `json:"client_id,omitempty"`
	CertificateID string `json:"certificate_id,omitempty"`
	PrivateKey    string `json:"private_key,omitempty"` // PEM
	Certificate   string `json:"certificate,omitempty"` // PEM; only to know when it ends
	// CertificateEndsAt is when the certificate of PrivateKey ends; nil: not known here.
	CertificateEndsAt *time.Time `json:"certificate_expires_at,omitempty"`

	// Of any ERP: the token last handed out.
	AccessToken string     `json:"access_token,omitempty"`
	ExpiresAt   *time.Time `json:"expires_at,omitempty"` // of AccessToken

	// Unknown are the names in the document that no field has, for Connector.Validate to judge. They are not stored.
	Unknown []string `json:"-"`
}

// ParseCredentials reads a credentials file. Its error says nothing of what is in it.
func ParseCredentials(text []byte) (Credentials, error) {
	var c Credentials
	var names map[string]json.RawMessage
	if json.Unmarshal(text, &names) != nil || json.Unmarshal(text, &c) != nil {
		return Credentials{}, errors.New("the credentials are not the JSON they should be, such as {\"refresh_token\": \"…\"}")
	}
	fields := reflect.TypeFor[Credentials]()
	for i := range fields.NumField() {
		name, _, _ := strings.Cut(fields.Field(i).Tag.Get("json"), ",")
		delete(names, name)
	}
	c.Unknown = slices.Sorted(maps.Keys(names))
	return c, nil
}

// Format hides the secrets from every fmt verb, wrong ones too.
func (Credentials) Format(f fmt.State, _ rune) { _, _ = io.WriteString(f, "[credentials]") }

// String hides the secrets.
func (Credentials) String() string { return "[credentials]" }

// MarshalJSON hides the secrets from encoders, such as slog's. Who seals them converts to a type of its own.
func (Credentials) MarshalJSON() ([]byte, error) { return []byte(`"[credentials]"`), nil }

// LogValue hides the secrets from slog.
func (Credentials) LogValue() slog.Value { return slog.StringValue("[credentials]") }

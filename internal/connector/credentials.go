package connector

import (
	"fmt"
	"io"
	"log/slog"
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

	// Of any ERP: the token last handed out.
	AccessToken string     `json:"access_token,omitempty"`
	ExpiresAt   *time.Time `json:"expires_at,omitempty"` // of AccessToken
}

// Format hides the secrets from every fmt verb, wrong ones too.
func (Credentials) Format(f fmt.State, _ rune) { _, _ = io.WriteString(f, "[credentials]") }

// String hides the secrets.
func (Credentials) String() string { return "[credentials]" }

// MarshalJSON hides the secrets from encoders, such as slog's. Who seals them converts to a type of its own.
func (Credentials) MarshalJSON() ([]byte, error) { return []byte(`"[credentials]"`), nil }

// LogValue hides the secrets from slog.
func (Credentials) LogValue() slog.Value { return slog.StringValue("[credentials]") }

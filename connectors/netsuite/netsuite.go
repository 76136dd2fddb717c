// Package netsuite reads NetSuite as connector.Source.
package netsuite

import (
	"context"
	"errors"
	"fmt"
	"regexp"
	"strings"
	"time"

	"github.com/centime/contactsync/connectors/netsuite/internal/suiteql"
	"github.com/centime/contactsync/internal/connector"
)

// Name is NetSuite in the database and on the command line.
const Name = "netsuite"

type netSuite struct {
	clock    *suiteql.Clock
	pageSize int
}

// New is the connector for NetSuite. It needs nothing of the installation: each company has an integration record of
// its own.
func New() connector.Connector { return Paged(suiteql.PageSize) }

// Paged is New with pages of so many rows, so that small companies have many pages.
func Paged(rows int) connector.Connector { return open(time.Now, rows) }

func open(now func() time.Time, pageSize int) connector.Connector {
	return netSuite{suiteql.NewClock(now), pageSize}
}

func (netSuite) Name() string  { return Name }
func (netSuite) Label() string { return "NetSuite" }

// LongestRequest: a token, a request, a new token, the request again; and before it the quick ones of the same page.
func (netSuite) LongestRequest() time.Duration {
	return 2*(suiteql.TokenTimeout+suiteql.RequestTimeout) + suiteql.Patience
}

// Limits: an account has five places or a few more for all its integrations together, and the others need room.
func (netSuite) Limits() connector.Limits { return connector.Limits{AtOnce: 1} }

var properAccount = regexp.MustCompile(`^[A-Z0-9]+(_[A-Z0-9]+)?$`)

func (netSuite) Validate(account string, c connector.Credentials) error {
	if !properAccount.MatchString(account) {
		return errors.New("account: a NetSuite account id is capital letters and digits, with an underscore before " +
			"what follows it in a sandbox, such as 1234567 or 1234567_SB1; it is no address")
	}
	if err := foreign(c); err != nil {
		return fmt.Errorf("credentials: %w", err)
	}
	for _, f := range []struct{ name, value string }{
		{"client_id", c.ClientID}, {"certificate_id", c.CertificateID}, {"private_key", c.PrivateKey},
	} {
		if strings.TrimSpace(f.value) == "" {
			return fmt.Errorf("credentials: %s is missing", f.name)
		}
	}
	key, err := suiteql.ParseKey(c.PrivateKey)
	if err != nil {
		return fmt.Errorf("credentials: private_key %w", err)
	}
	ends := c.CertificateEndsAt
	if c.Certificate != "" {
		end, err := key.CertificateEnds(c.Certificate)
		if err != nil {
			return fmt.Errorf("credentials: certificate %w", err)
		}
		ends = &end
	}
	if ends != nil && ends.Before(time.Now()) {
		return errors.New("credentials: the certificate has ended: make a new one, two years long at most")
	}
	return nil
}

// foreign refuses what belongs to another way of logging in, with the reason.
func foreign(c connector.Credentials) error {
	const setUp = "set up a certificate in NetSuite under Setup > Integration > OAuth 2.0 Client Credentials (M2M) " +
		"Setup, and give client_id, certificate_id and private_key"
	if c.RefreshToken != "" {
		return errors.New("refresh_token is of a login that a person renews every few days: " + setUp)
	}
	for _, name := range c.Unknown {
		switch plain := strings.ToLower(strings.NewReplacer("_", "", "-", "").Replace(name)); {
		case strings.HasPrefix(plain, "consumer"), strings.HasPrefix(plain, "oauth"), strings.HasPrefix(plain, "token"):
			return errors.New("token-based authentication, which NetSuite is ending, is not supported: " + setUp)
		case plain == "clientsecret":
			return errors.New("client_secret is of a login in which a person takes part: " + setUp)
		case plain == "alg", plain == "algorithm":
			return errors.New("the algorithm cannot be chosen: it is PS256 for an RSA key and ES256, ES384 or ES512 for " +
				"an EC key, since NetSuite no longer takes RS256, RS384 and RS512 (RSA with PKCS#1 v1.5)")
		}
	}
	return nil
}

func (n netSuite) Renew(
	ctx context.Context, a connector.Account, c connector.Credentials,
) (connector.Credentials, error) {
	renewed, err := suiteql.Renew(ctx, a, c, n.clock)
	if err != nil {
		return connector.Credentials{}, fmt.Errorf("netsuite: %w", err)
	}
	return renewed, nil
}

func (n netSuite) Open(a connector.Account) connector.Source {
	return suiteql.Open(a, n.clock, n.pageSize)
}

func (netSuite) Rights(stored string) []connector.Right { return suiteql.Rights(stored) }

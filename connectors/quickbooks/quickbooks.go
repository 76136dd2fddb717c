// Package quickbooks reads QuickBooks as connector.Source.
//
// Facts about QuickBooks Online in this package and below are Intuit's documentation unless a comment names another
// source: https://developer.intuit.com/app/developer/qbo/docs/api/accounting/all-entities/customer
package quickbooks

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"strings"
	"time"

	"github.com/centime/contactsync/connectors/quickbooks/internal/online"
	"github.com/centime/contactsync/internal/connector"
)

// OnlineName is QuickBooks Online in the database and on the command line.
const OnlineName = "quickbooks-online"

// App is Centime's registration with Intuit: QUICKBOOKS_CLIENT_ID and QUICKBOOKS_CLIENT_SECRET.
type App struct {
	ClientID     string
	ClientSecret Secret
	// PageSize is how many customers a page has; 0: the 1000 that QuickBooks allows. With fewer, tests read a small
	// company in many pages.
	PageSize int
}

// Secret does not print.
type Secret string

// Format hides the secret from every verb of fmt.
func (Secret) Format(f fmt.State, _ rune) { _, _ = io.WriteString(f, hidden) }

// LogValue hides the secret from slog.
func (Secret) LogValue() slog.Value { return slog.StringValue(hidden) }

// MarshalText hides the secret from encoding/json, and so from a logged struct.
func (Secret) MarshalText() ([]byte, error) { return []byte(hidden), nil }

const hidden = "[secret]"

// onlineConnector holds its app in a function, since fmt looks into unexported fields past the methods of what is
// there.
type onlineConnector struct{ app func() App }

// Online is the connector for QuickBooks Online.
func Online(app App) connector.Connector { return onlineConnector{func() App { return app }} }

func (onlineConnector) Name() string  { return OnlineName }
func (onlineConnector) Label() string { return "QuickBooks Online" }

// LongestRequest: a token, a request, a new token, the request again.
func (onlineConnector) LongestRequest() time.Duration {
	return 2 * (online.TokenTimeout + online.RequestTimeout)
}

// Limits of a company and app: https://developer.intuit.com/app/developer/qbo/docs/learn/limits-and-throttles. Of ten a
// second the page once said ten at once, so both are kept.
func (onlineConnector) Limits() connector.Limits {
	return connector.Limits{PerSecond: 10, PerMinute: 500, AtOnce: 10}
}

func (onlineConnector) Validate(account string, c connector.Credentials) error {
	if account == "" || strings.Trim(account, "0123456789") != "" {
		return errors.New("account: a QuickBooks realm id is digits only, such as 9130350000000001")
	}
	if c.RefreshToken == "" {
		return errors.New("credentials: refresh_token is missing")
	}
	return nil
}

// Rights: QuickBooks Online has one right for all it holds.
func (onlineConnector) Rights(string) []connector.Right { return nil }

func (o onlineConnector) Renew(
	ctx context.Context, a connector.Account, c connector.Credentials,
) (connector.Credentials, error) {
	app := o.app()
	if app.ClientID == "" || app.ClientSecret == "" {
		return connector.Credentials{}, &connector.Error{
			Kind: connector.Misconfigured, Step: "renew QuickBooks token", Message: "this process has no QuickBooks app",
			Hint: "Set QUICKBOOKS_CLIENT_ID and QUICKBOOKS_CLIENT_SECRET and start it again.",
		}
	}
	renewed, err := online.Renew(ctx, a, app.ClientID, string(app.ClientSecret), c)
	if err != nil {
		return connector.Credentials{}, fmt.Errorf("quickbooks online: %w", err)
	}
	return renewed, nil
}

func (o onlineConnector) Open(a connector.Account) connector.Source {
	return online.Open(a).InPagesOf(o.app().PageSize)
}

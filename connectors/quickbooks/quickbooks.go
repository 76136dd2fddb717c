// Package quickbooks reads QuickBooks as connector.Source.
//
// Facts about QuickBooks Online in this package and below are Intuit's documentation unless a comment names another
// source: https://developer.intuit.com/app/developer/qbo/docs/api/accounting/all-entities/customer
package quickbooks

import (
	"context"
	"errors"
	"fmt"
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
}

// Secret does not print.
type Secret string

// String hides the secret.
func (Secret) String() string { return "[secret]" }

// GoString hides the secret from %#v.
func (Secret) GoString() string { return "[secret]" }

// LogValue hides the secret from slog.
func (Secret) LogValue() slog.Value { return slog.StringValue("[secret]") }

type onlineConnector struct{ app App }

// Online is the connector for QuickBooks Online.
func Online(app App) connector.Connector { return onlineConnector{app} }

func (onlineConnector) Name() string  { return OnlineName }
func (onlineConnector) Label() string { return "QuickBooks Online" }

// LongestRequest: a request, a new token, the request again.
func (onlineConnector) LongestRequest() time.Duration {
	return 2*online.RequestTimeout + online.TokenTimeout
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

func (o onlineConnector) Renew(ctx context.Context, tokenURL string, c connector.Credentials) (connector.Credentials, error) {
	if o.app.ClientID == "" || o.app.ClientSecret == "" {
		return connector.Credentials{}, &connector.Error{
			Kind: connector.Misconfigured, Step: "renew QuickBooks token", Message: "this process has no QuickBooks app",
			Hint: "Set QUICKBOOKS_CLIENT_ID and QUICKBOOKS_CLIENT_SECRET and start it again.",
		}
	}
	renewed, err := online.Renew(ctx, tokenURL, o.app.ClientID, string(o.app.ClientSecret), c)
	if err != nil {
		return connector.Credentials{}, fmt.Errorf("quickbooks online: %w", err)
	}
	return renewed, nil
}

func (onlineConnector) Open(a connector.Account) connector.Source { return online.Open(a) }

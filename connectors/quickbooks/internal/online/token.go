package online

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"net/http"
	"slices"
	"strconv"
	"time"

	"golang.org/x/oauth2"

	"github.com/centime/contactsync/internal/connector"
	"github.com/centime/contactsync/internal/erphttp"
)

// TokenTimeout bounds a token request.
const TokenTimeout = 20 * time.Second

const (
	tokenStep    = "renew token"
	tokenURLProd = "https://oauth.platform.intuit.com/oauth2/v1/tokens/bearer" //nolint:gosec // an address, no secret
)

// Renew exchanges the refresh token. Intuit returns the same refresh token for about a day and then another one, which
// ends the one before at once or within 24 hours (sources disagree), so whatever it returns is to be stored:
// https://github.com/intuit/oauth-jsclient (README on refresh),
// https://github.com/intuit/QuickBooks-V3-PHP-SDK/issues/324
func Renew(
	ctx context.Context, a connector.Account, clientID, clientSecret string, c connector.Credentials,
) (connector.Credentials, error) {
	if c.RefreshToken == "" {
		return connector.Credentials{}, &connector.Error{
			Kind: connector.Denied, Step: tokenStep, Message: "there is no refresh token", Hint: reconnect,
		}
	}
	config := oauth2.Config{
		ClientID: clientID, ClientSecret: clientSecret,
		// Detecting the style would send a refused refresh token twice.
		Endpoint: oauth2.Endpoint{TokenURL: cmp.Or(a.TokenURL, tokenURLProd), AuthStyle: oauth2.AuthStyleInHeader},
	}
	transport := a.Transport
	if transport == nil {
		transport = erphttp.Transport()
	}
	asking := context.WithValue(ctx, oauth2.HTTPClient, &http.Client{
		Timeout: TokenTimeout, Transport: hardExpiry{transport},
		// A refresh token goes to the address it is meant for and nowhere else.
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
	})
	token, err := config.TokenSource(asking, &oauth2.Token{RefreshToken: c.RefreshToken}).Token()
	switch {
	case err != nil && ctx.Err() != nil:
		return connector.Credentials{}, fmt.Errorf("%s: %w", tokenStep, ctx.Err())
	case err != nil:
		return connector.Credentials{}, tokenError(err)
	}
	c.AccessToken, c.RefreshToken = token.AccessToken, token.RefreshToken
	c.ExpiresAt, c.RefreshExpiresAt = instant(token.Expiry), in(token.Extra("x_refresh_token_expires_in"))
	if ends := in(token.Extra("x_refresh_token_hard_expires_in")); ends != nil {
		c.RefreshEndsAt = ends
	}
	return c, nil
}

// hardExpiry asks for the absolute end of the refresh token, which Intuit tells only if asked.
type hardExpiry struct{ by http.RoundTripper }

func (h hardExpiry) RoundTrip(r *http.Request) (*http.Response, error) {
	r = r.Clone(r.Context())
	r.Header.Set("x-include-refresh-token-hard-expires-in", "true")
	r.Header.Set("Accept", "application/json")
	return h.by.RoundTrip(r)
}

func instant(t time.Time) *time.Time {
	if t.IsZero() {
		return nil
	}
	t = t.UTC()
	return &t
}

// in is the moment a number of seconds from now.
func in(extra any) *time.Time {
	var seconds float64
	switch v := extra.(type) {
	case float64:
		seconds = v
	case int64:
		seconds = float64(v)
	case string:
		seconds, _ = strconv.ParseFloat(v, 64)
	}
	if !(seconds > 0 && seconds < 1e10) {
		return nil
	}
	return instant(time.Now().Add(time.Duration(seconds) * time.Second))
}

// tokenError says what a failed renewal means. Only `error` is matched: descriptions vary. The body may hold secrets
// and is not repeated.
func tokenError(err error) error {
	e := &connector.Error{Kind: connector.Transient, Step: tokenStep, Message: "no usable answer from Intuit"}
	refused, ok := errors.AsType[*oauth2.RetrieveError](err)
	if !ok {
		return e
	}
	reply := erphttp.Reply{}
	if refused.Response != nil {
		reply = erphttp.Reply{Status: refused.Response.StatusCode, Header: refused.Response.Header}
		e.Trace = trace(reply)
		e.Message = strconv.Itoa(reply.Status) + " from Intuit"
	}
	switch {
	case reply.Status == http.StatusTooManyRequests:
		e.Kind, e.RetryAfter = connector.Throttled, throttleWait(reply)
	case reply.Status >= http.StatusInternalServerError:
	case refused.ErrorCode == "invalid_grant":
		e.Kind, e.Message = connector.Denied, "Intuit refused the refresh token (invalid_grant)"
		e.Hint = reconnect
	case refused.ErrorCode == "invalid_client", refused.ErrorCode == "unauthorized_client":
		e.Kind, e.Message = connector.Misconfigured, "Intuit refused this app ("+refused.ErrorCode+")"
		e.Hint = "Check QUICKBOOKS_CLIENT_ID and QUICKBOOKS_CLIENT_SECRET; no customer has to connect again."
	case slices.Contains([]string{"invalid_request", "unsupported_grant_type", "invalid_scope"}, refused.ErrorCode):
		e.Kind, e.Message = connector.Rejected, "Intuit rejected the token request ("+refused.ErrorCode+")"
		e.Hint = "This is a fault of the program or of the setting token_url: report it with the trace."
	}
	return e
}

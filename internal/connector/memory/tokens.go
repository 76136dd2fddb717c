package memory

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/centime/contactsync/internal/connector"
)

// A Connector knows ERPs in memory by their accounts.
type Connector struct {
	name string
	mu   sync.Mutex
	erps []*ERP
}

var _ connector.Connector = (*Connector)(nil)

// NewConnector returns a connector of this name, such as netsuite.
func NewConnector(name string, erps ...*ERP) *Connector {
	return &Connector{name: name, erps: erps}
}

// Add makes another company known.
func (c *Connector) Add(e *ERP) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.erps = append(c.erps, e)
}

// Name is the name it was made with.
func (c *Connector) Name() string { return c.name }

// Label is its name too.
func (c *Connector) Label() string { return c.name }

// Validate wants an account and a refresh token.
func (c *Connector) Validate(account string, creds connector.Credentials) error {
	if account == "" {
		return errors.New("account: is empty")
	}
	if creds.RefreshToken == "" {
		return errors.New("credentials: refresh_token is missing")
	}
	return nil
}

// Renew spends a refresh token of one of the ERPs for an access token and another refresh token, as ERPs do that rotate
// them. A spent one is denied.
func (c *Connector) Renew(
	ctx context.Context, _ connector.Account, creds connector.Credentials,
) (connector.Credentials, error) {
	if err := ctx.Err(); err != nil {
		return connector.Credentials{}, err
	}
	for _, e := range c.known() {
		if renewed, mine, err := e.renew(creds); mine {
			return renewed, err
		}
	}
	return connector.Credentials{}, denied("renew token", "invalid_grant")
}

// Open returns the Source of an account. That of an unknown one is denied every request.
func (c *Connector) Open(a connector.Account) connector.Source {
	known := c.known()
	if i := slices.IndexFunc(known, func(e *ERP) bool { return e.account == a.ID }); i >= 0 {
		return &Source{erp: known[i], account: a}
	}
	return &Source{account: a}
}

// LongestRequest is a second.
func (c *Connector) LongestRequest() time.Duration { return time.Second }

// Limits are none.
func (c *Connector) Limits() connector.Limits { return connector.Limits{} }

// Rights are the kinds that the stored text names.
func (c *Connector) Rights(stored string) []connector.Right {
	var rights []connector.Right
	for kind := range strings.FieldsSeq(stored) {
		rights = append(rights, connector.Right{Name: kind, Readable: true, Needed: true})
	}
	return rights
}

func (c *Connector) known() []*ERP {
	c.mu.Lock()
	defer c.mu.Unlock()
	return slices.Clone(c.erps)
}

// Credentials log in to the ERP: a refresh token that was not spent, and no access token.
func (e *ERP) Credentials() connector.Credentials {
	e.mu.Lock()
	defer e.mu.Unlock()
	return connector.Credentials{RefreshToken: e.refreshToken()}
}

// ExpireAccess makes the ERP refuse the access tokens given out so far.
func (e *ERP) ExpireAccess() {
	e.mu.Lock()
	defer e.mu.Unlock()
	e.expired = true
}

// RefuseRenewal answers every Renew with err and refuses the access tokens given out so far, until RefuseRenewal(nil).
func (e *ERP) RefuseRenewal(err error) {
	e.mu.Lock()
	defer e.mu.Unlock()
	e.revoked, e.expired = err, true
}

// SpentTwice is how often a refresh token came that was spent before: a rotated one was not saved, or two processes
// renewed at once.
func (e *ERP) SpentTwice() int {
	e.mu.Lock()
	defer e.mu.Unlock()
	return e.spent
}

func (e *ERP) refreshToken() string { return fmt.Sprintf("refresh-%d-of-%s", e.refresh, e.account) }

func (e *ERP) accessToken() string { return fmt.Sprintf("access-%d-of-%s", e.access, e.account) }

func (e *ERP) renew(creds connector.Credentials) (renewed connector.Credentials, mine bool, err error) {
	e.mu.Lock()
	defer e.mu.Unlock()
	var number int
	var account string
	n, _ := fmt.Sscanf(creds.RefreshToken, "refresh-%d-of-%s", &number, &account)
	switch {
	case n != 2 || account != e.account:
		return connector.Credentials{}, false, nil
	case e.revoked != nil:
		return connector.Credentials{}, true, e.revoked
	case number != e.refresh:
		e.spent++
		return connector.Credentials{}, true, denied("renew token", "invalid_grant")
	}
	e.refresh++
	e.access++
	e.expired = false
	expires := time.Now().Add(time.Hour)
	creds.RefreshToken, creds.AccessToken, creds.ExpiresAt = e.refreshToken(), e.accessToken(), &expires
	return creds, true, nil
}

func denied(step, message string) error {
	return &connector.Error{Kind: connector.Denied, Step: step, Message: message,
		Hint: "connect the company again with fresh credentials"}
}

// errToken is the ERP's answer to an access token it does not know.
var errToken = errors.New("memory: the access token is refused")

// send is one request as the contract has it: counted before it is sent, and repeated once with a renewed token.
func (s *Source) send(ctx context.Context, r Request) error {
	if s.account.Tokens == nil {
		return s.sendWith(ctx, r, nil)
	}
	token, err := s.account.Tokens.Token(ctx)
	if err != nil {
		return fmt.Errorf("memory: token: %w", err)
	}
	err = s.sendWith(ctx, r, &token)
	if !errors.Is(err, errToken) {
		return err
	}
	if token, err = s.account.Tokens.Renewed(ctx, token); err != nil {
		return fmt.Errorf("memory: renewed token: %w", err)
	}
	if err = s.sendWith(ctx, r, &token); errors.Is(err, errToken) {
		return denied("memory", "a renewed token is refused")
	}
	return err
}

func (s *Source) sendWith(ctx context.Context, r Request, token *string) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	if s.account.Called != nil {
		answered, err := s.account.Called(ctx)
		if err != nil {
			return err
		}
		defer answered()
	}
	if s.erp == nil || s.account.ID != s.erp.account {
		return denied("memory", "no such account")
	}
	if token != nil && !s.erp.accepts(*token) {
		return errToken
	}
	return s.erp.arrive(ctx, r)
}

func (e *ERP) accepts(token string) bool {
	e.mu.Lock()
	defer e.mu.Unlock()
	return token == e.accessToken() && !e.expired
}

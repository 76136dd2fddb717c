package credentials

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/centime/contactsync/internal/connector"
)

const (
	// early is how long before its end a token is renewed, so that none ends on its way to the ERP.
	early = 5 * time.Minute
	// cached is how long a token is handed out without a look at what is stored: long enough for the requests of a step,
	// short enough that credentials given anew or removed are noticed.
	cached = time.Minute
	// renewal bounds a renewal, from waiting for the connection's row to the commit; reply, the ERP's part of it, so that
	// after a slow reply there is time to save it.
	renewal = 30 * time.Second
	reply   = 20 * time.Second
	// again is how long the first wait is before saving once more; each next one is twice as long.
	again = 250 * time.Millisecond
)

// ErrNone is what a Vault answers for a connection that has no credentials.
var ErrNone = errors.New("no credentials are stored")

// ErrUnanswered is in the chain of an error after which it is open whether the ERP has renewed the token.
var ErrUnanswered = errors.New("renewal without an answer")

// unanswered marks an error and leaves its text alone.
type unanswered struct{ error }

func (u unanswered) Unwrap() error { return u.error }

func (u unanswered) Is(target error) bool { return target == ErrUnanswered }

// errBusy keeps a refresh token from being sent that another process has just spent: its commit failed, and it may hold
// the ERP's reply and be trying to save it.
var errBusy = &connector.Error{
	Kind: connector.Transient, Step: "renew token", Message: "another worker renewed it and has not saved it yet",
}

// Stored is a connection's credentials as they are stored.
type Stored struct {
	KeyID   string // of the Ring
	Box     []byte
	Version int64 // rises with every change
	// RenewingSince tells of an earlier renewal that had begun and whose end no process recorded: a worker may have died
	// between the ERP's reply and the commit, and a new refresh token with it; or it is still trying to save it.
	RenewingSince *time.Time
	// RenewingFor is how long ago that was by the vault's clock, since this machine's may be wrong.
	RenewingFor time.Duration
	// UnansweredSince is the first renewal after the last good one whose answer did not arrive or could not be read: the ERP
	// may have replaced the refresh token with it.
	UnansweredSince *time.Time
	// EndsAt is when the login ends unless it is used or given anew; nil: unknown or never. It is stored beside the box, so
	// that whoever has no key can warn.
	EndsAt *time.Time
	// NoticeDays is how many days before EndsAt people are told.
	NoticeDays int
	// Refused: the ERP refused this login, and it is not tried again by itself; nil: it was not.
	Refused *Refusal
}

// A Refusal is what an ERP answered that must not be asked again and again: a connector.Error with NoTrial.
type Refusal struct {
	At         time.Time
	Text, Hint string
}

func (r Refusal) err() error {
	return &connector.Error{
		Kind: connector.Denied, NoTrial: true, Step: "log in",
		Message: fmt.Sprintf("refused at %s, and not tried again by itself: %s", r.At.UTC().Format("2006-01-02 15:04 UTC"), r.Text),
		Hint:    r.Hint + " `syncctl connection resume` tries it once more.",
	}
}

// A Vault stores the credentials of one connection.
type Vault interface {
	// Read returns what is stored: one statement.
	Read(ctx context.Context) (Stored, error)
	// Renew locks the connection's credentials across all processes, calls the function with what is stored at that
	// moment, saves KeyID and Box of what it returns, and returns only after the commit. The function is called at most
	// once. Before that it is noted durably that a renewal has begun; the function is told of an earlier such note, not
	// of this one. The commit clears the notes; where it fails, they stay. A Box that is still the same need not be
	// written. An error of the function, which is wrapped with %w, leaves everything as it was, an earlier note included;
	// only of one that is ErrUnanswered UnansweredSince is kept, and one with NoTrial is kept as Refused before the lock is
	// given up.
	Renew(ctx context.Context, renew func(context.Context, Stored) (Stored, error)) (Stored, error)
}

// A Renewer asks the ERP for a new access token; every connector.Connector is one, and promises more there.
type Renewer interface {
	Renew(ctx context.Context, a connector.Account, c connector.Credentials) (connector.Credentials, error)
}

// A TokenSource hands out the access token of one connection. It renews a token that ends soon or was refused, and
// hands out the new one only after it is saved; of all processes that want to, one renews and the others find its token
// stored.
//
// In one process, callers who come while the token is being read or renewed share the outcome, a refusal too. They
// leave when their context ends. The one who renews does not: a cancelled renewal would lose the only refresh token
// that the ERP still accepts, so it goes on, for 30 s at most, and its caller waits for it.
type TokenSource struct {
	ring    *Ring
	vault   Vault
	place   Place
	renewer Renewer
	account connector.Account

	mu      sync.Mutex
	held    connector.Credentials // what was last seen saved
	heldAt  time.Time
	current *flight
}

var _ connector.Tokens = (*TokenSource)(nil)

// A flight is one reading or renewing that callers share. The fields are set before done is closed.
type flight struct {
	done      chan struct{}
	token     string
	err       error
	abandoned bool // its own caller left: the error says nothing to the others
}

// NewTokenSource returns the token source of the connection whose credentials the vault stores and the place names. The
// account is what the renewer is to renew at: its ID, APIURL and TokenURL.
func NewTokenSource(ring *Ring, vault Vault, about Place, renewer Renewer, account connector.Account) *TokenSource {
	return &TokenSource{ring: ring, vault: vault, place: about, renewer: renewer, account: account}
}

// Saw gives a source what somebody has just read from the vault, and spares it reading that again.
func (s *TokenSource) Saw(stored Stored) {
	c, err := s.open(stored)
	if err != nil {
		return // whoever asks for a token is told
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.held, s.heldAt = c, time.Now()
}

// Token returns an access token that is saved and, unless the ERP's tokens are shorter, valid for five more minutes.
// Errors are the connector's, with their kind; Denied where there are no credentials, and Misconfigured where the key
// ring does not open them.
func (s *TokenSource) Token(ctx context.Context) (string, error) { return s.get(ctx, "") }

// Renewed returns another token than the one the ERP refused, renewed only if the stored one is still that one. Should
// the ERP answer a renewal with the refused token, that is returned.
func (s *TokenSource) Renewed(ctx context.Context, refused string) (string, error) {
	return s.get(ctx, refused)
}

func (s *TokenSource) get(ctx context.Context, refused string) (string, error) {
	for {
		if err := ctx.Err(); err != nil {
			return "", err
		}
		s.mu.Lock()
		if time.Since(s.heldAt) < cached && usable(s.held, refused) {
			token := s.held.AccessToken
			s.mu.Unlock()
			return token, nil
		}
		f := s.current
		if f == nil {
			f = &flight{done: make(chan struct{})}
			s.current = f
			s.mu.Unlock()
			s.fly(ctx, f, refused)
			return f.token, f.err
		}
		s.mu.Unlock()

		select {
		case <-ctx.Done():
			return "", ctx.Err()
		case <-f.done:
		}
		if f.abandoned || f.err == nil && f.token == refused {
			continue
		}
		return f.token, f.err
	}
}

// fly reads, and renews if that is needed. A panic of the connector must not leave others waiting.
func (s *TokenSource) fly(ctx context.Context, f *flight, refused string) {
	var c connector.Credentials
	err := errors.New("renew token: stopped by a panic")
	defer func() {
		s.mu.Lock()
		defer s.mu.Unlock()
		s.current, s.held, s.heldAt = nil, c, time.Now()
		f.token, f.err = c.AccessToken, err
		close(f.done)
	}()

	s.mu.Lock()
	ended := s.held.AccessToken != "" && time.Since(s.heldAt) < cached && s.held.AccessToken != refused
	s.mu.Unlock()
	if ended { // what was seen a moment ago is of no use any more; the renewal looks again, under the lock
		c, err = s.renew(ctx, refused)
		return
	}
	read, readErr := s.read(ctx)
	switch {
	case readErr != nil:
		f.abandoned, err = ctx.Err() != nil, readErr
	case usable(read, refused):
		c, err = read, nil
	default:
		c, err = s.renew(ctx, refused)
	}
}

func (s *TokenSource) read(ctx context.Context) (connector.Credentials, error) {
	stored, err := s.vault.Read(ctx)
	if err != nil {
		return connector.Credentials{}, vaultError("read credentials", err)
	}
	return s.open(stored)
}

// open unpacks credentials that may be used.
func (s *TokenSource) open(stored Stored) (connector.Credentials, error) {
	if stored.Refused != nil {
		return connector.Credentials{}, stored.Refused.err()
	}
	return s.ring.Unpack(stored, s.place)
}

// renew has the credentials renewed and saved, unless another process did so in the meantime.
func (s *TokenSource) renew(ctx context.Context, refused string) (connector.Credentials, error) {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), renewal)
	defer cancel()

	var sent connector.Credentials
	var got *connector.Credentials // the ERP's reply to sent, until it is saved
	retried := false
	for wait := again; ; wait *= 2 {
		saved, err := s.vault.Renew(ctx, func(ctx context.Context, old Stored) (Stored, error) {
			c, err := s.open(old)
			if err != nil {
				return Stored{}, err
			}
			if usable(c, refused) {
				return old, nil
			}
			if got == nil || !sameLogin(c, sent) {
				if got == nil && old.RenewingSince != nil && old.RenewingFor < renewal {
					return Stored{}, errBusy
				}
				sent, got = c, nil
				fresh, err := s.ask(ctx, c, cmp.Or(old.RenewingSince, old.UnansweredSince))
				if err != nil {
					return Stored{}, err
				}
				got = &fresh
			}
			return s.ring.Pack(*got, s.place)
		})
		switch {
		case err == nil:
			return s.ring.Unpack(saved, s.place)
		case got != nil:
			err = fmt.Errorf("save renewed token: %w", err)
		case errors.Is(err, errBusy):
		case connector.KindOf(err) == connector.Denied && !retried && s.loginChanged(ctx, sent):
			retried = true // somebody gave new credentials while the old ones were refused
			continue
		default:
			return connector.Credentials{}, vaultError("renew token", err)
		}
		select {
		case <-ctx.Done():
			return connector.Credentials{}, err
		case <-time.After(wait):
		}
	}
}

// ask sends the credentials to the ERP once, and sees to it that no reply takes away what is stored.
func (s *TokenSource) ask(
	ctx context.Context, c connector.Credentials, earlier *time.Time,
) (connector.Credentials, error) {
	ctx, cancel := context.WithTimeout(ctx, reply)
	defer cancel()
	fresh, err := s.renewer.Renew(ctx, s.account, c)
	if kind := connector.KindOf(err); err != nil && kind != connector.Denied && kind != connector.Misconfigured {
		return connector.Credentials{}, unanswered{err}
	}
	if err != nil {
		return connector.Credentials{}, explain(err, c, earlier)
	}
	if fresh.AccessToken == "" {
		return connector.Credentials{}, unanswered{&connector.Error{
			Kind: connector.Transient, Step: "renew token", Message: "the reply has no access token",
		}}
	}
	if fresh.RefreshToken == "" {
		fresh.RefreshToken = c.RefreshToken
	}
	return fresh, nil
}

// explain adds to a refusal what only we know: that an earlier renewal was not seen to its end.
func explain(err error, sent connector.Credentials, earlier *time.Time) error {
	denied, ok := errors.AsType[*connector.Error](err)
	if !ok || denied.Kind != connector.Denied || earlier == nil || sent.RefreshToken == "" {
		return err
	}
	explained := *denied
	explained.Hint = fmt.Sprintf("A reply with a new refresh token was lost at %s: none arrived, or a worker died before it saved it. "+
		"Reconnect the company and give its new login with `syncctl connection credentials`.",
		earlier.UTC().Format(time.RFC3339))
	return &explained
}

func (s *TokenSource) loginChanged(ctx context.Context, sent connector.Credentials) bool {
	c, err := s.read(ctx)
	return err == nil && !sameLogin(c, sent)
}

func sameLogin(a, b connector.Credentials) bool {
	return a.RefreshToken == b.RefreshToken && a.ClientID == b.ClientID &&
		a.CertificateID == b.CertificateID && a.PrivateKey == b.PrivateKey
}

// usable: a token of unknown end may have ended.
func usable(c connector.Credentials, refused string) bool {
	return c.AccessToken != "" && c.AccessToken != refused &&
		c.ExpiresAt != nil && time.Until(*c.ExpiresAt) > early
}

// vaultError names the step, unless the error is a connector's and names its own.
func vaultError(step string, err error) error {
	if errors.Is(err, ErrNone) {
		return &connector.Error{
			Kind: connector.Denied, Step: step, Message: ErrNone.Error(),
			Hint: "Give the connection a login with `syncctl connection credentials`.",
		}
	}
	if _, ok := errors.AsType[*connector.Error](err); ok {
		return err
	}
	return fmt.Errorf("%s: %w", step, err)
}

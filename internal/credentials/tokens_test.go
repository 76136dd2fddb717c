package credentials

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"go.uber.org/goleak"
	"pgregory.net/rapid"

	"github.com/centime/contactsync/internal/connector"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// A shelf is a Vault in memory, of one connection, as several processes share it.
type shelf struct {
	lock   chan struct{}
	mu     sync.Mutex
	stored Stored
	began  *time.Time    // the note of a renewal that has begun
	ahead  time.Duration // of its clock
	reads  int
	saves  int
	failed int        // saves that failed
	fail   int        // saves that are to fail
	lost   bool       // a failing save is done nevertheless
	onRead func()     // before each Read
	slow   chan error // if set, Read waits for it
}

func newShelf(s Stored) *shelf { return &shelf{lock: make(chan struct{}, 1), stored: s} }

func (v *shelf) now() Stored {
	v.mu.Lock()
	defer v.mu.Unlock()
	return v.stored
}

func (v *shelf) put(s Stored) {
	v.mu.Lock()
	defer v.mu.Unlock()
	s.Version = v.stored.Version + 1
	v.stored = s
}

func (v *shelf) Read(ctx context.Context) (Stored, error) {
	if v.onRead != nil {
		v.onRead()
	}
	if v.slow != nil {
		select {
		case <-ctx.Done():
			return Stored{}, ctx.Err()
		case err := <-v.slow:
			if err != nil {
				return Stored{}, err
			}
		}
	}
	v.mu.Lock()
	v.reads++
	v.mu.Unlock()
	return v.now(), ctx.Err()
}

func (v *shelf) Renew(ctx context.Context, renew func(context.Context, Stored) (Stored, error)) (Stored, error) {
	select {
	case <-ctx.Done():
		return Stored{}, ctx.Err()
	case v.lock <- struct{}{}:
	}
	defer func() { <-v.lock }()

	old, now := v.now(), time.Now()
	began := now.Add(v.ahead)
	old.RenewingSince, v.began = v.began, &began
	if old.RenewingSince != nil {
		old.RenewingFor = began.Sub(*old.RenewingSince)
	}
	fresh, err := renew(ctx, old)
	if err != nil {
		v.began = old.RenewingSince
		return Stored{}, fmt.Errorf("renew credentials of connection 42: %w", err)
	}
	if ctx.Err() != nil {
		return Stored{}, ctx.Err()
	}
	v.mu.Lock()
	defer v.mu.Unlock()
	if bytes.Equal(fresh.Box, v.stored.Box) {
		v.began = old.RenewingSince
		return v.stored, nil
	}
	if v.fail > 0 {
		v.fail, v.failed = v.fail-1, v.failed+1
		if v.lost {
			v.began = nil
			v.stored = Stored{KeyID: fresh.KeyID, Box: fresh.Box, Version: v.stored.Version + 1}
		}
		return Stored{}, errors.New("commit: connection reset")
	}
	v.saves++
	v.began = nil
	v.stored = Stored{KeyID: fresh.KeyID, Box: fresh.Box, Version: v.stored.Version + 1}
	return v.stored, nil
}

// An office is an ERP's token endpoint that spends each refresh token it is sent and counts those sent twice.
type office struct {
	mu       sync.Mutex
	calls    int
	reuses   int
	live     string        // the only refresh token it accepts
	rotate   bool          // answer with another refresh token
	takes    time.Duration // to answer
	life     time.Duration // of an access token
	err      error         // the answer, if set
	hang     bool          // answer only when the caller leaves
	answer   func(connector.Credentials) connector.Credentials
	tokenURL string
}

func (o *office) Renew(ctx context.Context, a connector.Account, c connector.Credentials) (connector.Credentials, error) {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.calls++
	o.tokenURL = a.TokenURL
	if o.hang {
		<-ctx.Done()
		return connector.Credentials{}, &connector.Error{Kind: connector.Transient, Step: "renew token", Err: ctx.Err()}
	}
	select {
	case <-ctx.Done():
		return connector.Credentials{}, ctx.Err()
	case <-time.After(o.takes):
	}
	if o.err != nil {
		return connector.Credentials{}, o.err
	}
	if c.RefreshToken != o.live {
		o.reuses++
		return connector.Credentials{}, refusal()
	}
	if o.rotate {
		o.live = fmt.Sprintf("refresh-secret-%d", o.calls)
	}
	end := time.Now().Add(o.life)
	fresh := connector.Credentials{
		RefreshToken: o.live, AccessToken: fmt.Sprintf("access-secret-%d", o.calls), ExpiresAt: &end,
	}
	if o.answer != nil {
		fresh = o.answer(fresh)
	}
	return fresh, nil
}

func refusal() error {
	return &connector.Error{
		Kind: connector.Denied, Step: "renew token", Message: "invalid_grant", Hint: "Reconnect the company.",
	}
}

type world struct {
	*shelf
	*office
	ring *Ring
}

// setup stores a refresh token and an access token that ends after the given time.
func setup(t testing.TB, left time.Duration) *world {
	t.Helper()
	w := &world{ring: ring(t, "a:"+key(1)), office: &office{live: "refresh-secret-0", rotate: true, life: time.Hour}}
	w.shelf = newShelf(Stored{})
	w.store(t, "refresh-secret-0", "access-secret-0", left)
	return w
}

func (w *world) store(t testing.TB, refresh, access string, left time.Duration) {
	t.Helper()
	end := time.Now().Add(left)
	s, err := w.ring.Pack(connector.Credentials{RefreshToken: refresh, AccessToken: access, ExpiresAt: &end}, place)
	if err != nil {
		t.Fatal(err)
	}
	w.put(s)
}

func (w *world) source() *TokenSource {
	return NewTokenSource(w.ring, w.shelf, place, w.office, connector.Account{TokenURL: "https://tokens.example"})
}

func (w *world) saved(t testing.TB) connector.Credentials {
	t.Helper()
	c, err := w.ring.Unpack(w.now(), place)
	if err != nil {
		t.Fatal(err)
	}
	return c
}

func want(t testing.TB, got string, err error, token string) {
	t.Helper()
	if err != nil || got != token {
		t.Errorf("got %q, %v; want %q", got, err, token)
	}
}

// An idle run costs one read, and no renewal while the token lasts.
func TestTokenIsReadOnce(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		w := setup(t, time.Hour)
		s := w.source()
		for range 5 {
			got, err := s.Token(t.Context())
			want(t, got, err, "access-secret-0")
		}
		if w.reads != 1 || w.calls != 0 {
			t.Errorf("%d reads and %d renewals, want 1 and 0", w.reads, w.calls)
		}

		// What another process stores is noticed within a minute.
		w.store(t, "refresh-secret-0", "access-secret-new", time.Hour)
		time.Sleep(cached)
		got, err := s.Token(t.Context())
		want(t, got, err, "access-secret-new")
	})
}

// A token is renewed five minutes before its end, also one held in memory, and one of unknown end at once.
func TestTokenIsRenewedEarly(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		w := setup(t, early+10*time.Second)
		s := w.source()
		got, err := s.Token(t.Context())
		want(t, got, err, "access-secret-0")
		time.Sleep(11 * time.Second)
		got, err = s.Token(t.Context())
		want(t, got, err, "access-secret-1")
		if c := w.saved(t); c.RefreshToken != "refresh-secret-1" || c.AccessToken != "access-secret-1" {
			t.Error("what was handed out is not what is stored")
		}
		if w.tokenURL != "https://tokens.example" {
			t.Errorf("asked %q", w.tokenURL)
		}

		stored, err := w.ring.Pack(connector.Credentials{RefreshToken: "refresh-secret-1", AccessToken: "old"}, place)
		if err != nil {
			t.Fatal(err)
		}
		w.put(stored)
		got, err = w.source().Token(t.Context())
		want(t, got, err, "access-secret-2")
	})
}

// One refresher per connection across all processes: a rotated refresh token is never sent twice.
func TestOneRenewalForAll(t *testing.T) {
	t.Parallel()
	for name, refused := range map[string]string{"ended": "", "refused": "access-secret-0"} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				w := setup(t, time.Minute)
				if refused != "" {
					w.store(t, "refresh-secret-0", refused, time.Hour)
				}
				w.takes = time.Second
				var wg sync.WaitGroup
				for range 4 { // processes
					s := w.source()
					for range 20 {
						wg.Go(func() {
							got, err := s.Renewed(t.Context(), refused)
							want(t, got, err, "access-secret-1")
						})
					}
				}
				wg.Wait()
				if w.calls != 1 || w.reuses != 0 || w.saves != 1 {
					t.Errorf("%d renewals, %d with a spent token, %d saved; want 1, 0, 1", w.calls, w.reuses, w.saves)
				}
				if w.reads > 4 {
					t.Errorf("%d reads for 4 processes", w.reads)
				}
			})
		})
	}
}

// Renewed renews only if the stored token is still the refused one.
func TestRenewedTakesWhatIsStored(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		w := setup(t, time.Hour)
		s := w.source()
		got, err := s.Token(t.Context())
		want(t, got, err, "access-secret-0")
		w.store(t, "refresh-secret-0", "access-secret-other", time.Hour)
		got, err = s.Renewed(t.Context(), "access-secret-0")
		want(t, got, err, "access-secret-other")
		if w.calls != 0 {
			t.Error("renewed although another process had")
		}
		got, err = s.Renewed(t.Context(), "access-secret-other")
		want(t, got, err, "access-secret-1")
		got, err = s.Token(t.Context())
		want(t, got, err, "access-secret-1")
	})
}

// An ERP may answer a renewal with the refresh token that was sent, or with none: both keep it.
func TestSameRefreshToken(t *testing.T) {
	t.Parallel()
	for name, answer := range map[string]func(connector.Credentials) connector.Credentials{
		"same": func(c connector.Credentials) connector.Credentials { return c },
		"none": func(c connector.Credentials) connector.Credentials { c.RefreshToken = ""; return c },
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			w := setup(t, 0)
			w.rotate, w.answer = false, answer
			got, err := w.source().Token(t.Context())
			want(t, got, err, "access-secret-1")
			if c := w.saved(t); c.RefreshToken != "refresh-secret-0" || c.AccessToken != "access-secret-1" {
				t.Errorf("stored refresh token %q", c.RefreshToken)
			}
		})
	}
}

// The ERP may answer with the access token it refused: it is handed out, once, and nobody turns in circles.
func TestSameAccessToken(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		w := setup(t, time.Hour)
		w.rotate, w.takes = false, time.Second
		w.answer = func(c connector.Credentials) connector.Credentials { c.AccessToken = "access-secret-0"; return c }
		s := w.source()
		var wg sync.WaitGroup
		for range 3 {
			wg.Go(func() {
				got, err := s.Renewed(t.Context(), "access-secret-0")
				want(t, got, err, "access-secret-0")
			})
		}
		wg.Wait()
		if w.calls > 3 {
			t.Errorf("%d renewals for 3 refused requests", w.calls)
		}
	})
}

// A rotated refresh token is saved although the caller that had it renewed is gone.
func TestCancelDuringRenewalStillSaves(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		w := setup(t, 0)
		w.takes = 2 * time.Second
		s := w.source()
		ctx, cancel := context.WithCancel(t.Context())
		go func() {
			time.Sleep(time.Second) // the request is on its way
			cancel()
		}()
		_, _ = s.Token(ctx)
		if c := w.saved(t); c.RefreshToken != "refresh-secret-1" {
			t.Errorf("stored refresh token %q, want the rotated one", c.RefreshToken)
		}
	})
}

// Whoever waits for another's renewal leaves when its own context ends.
func TestWaitingHonoursContext(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		w := setup(t, 0)
		w.takes = 10 * time.Second
		s := w.source()
		var wg sync.WaitGroup
		wg.Go(func() {
			got, err := s.Token(t.Context())
			want(t, got, err, "access-secret-1")
		})
		synctest.Wait()
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		start := time.Now()
		if _, err := s.Token(ctx); !errors.Is(err, context.DeadlineExceeded) || time.Since(start) != time.Second {
			t.Errorf("left after %v with %v", time.Since(start), err)
		}
		wg.Wait()
	})
}

// A caller that leaves while it reads does not take the others with it.
func TestLeavingWhileReadingHarmsNobody(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		w := setup(t, time.Hour)
		w.slow = make(chan error)
		s := w.source()
		ctx, cancel := context.WithCancel(t.Context())
		var wg sync.WaitGroup
		wg.Go(func() {
			if _, err := s.Token(ctx); !errors.Is(err, context.Canceled) || connector.KindOf(err) != "" {
				t.Errorf("left with %v", err)
			}
		})
		synctest.Wait()
		wg.Go(func() {
			got, err := s.Token(t.Context())
			want(t, got, err, "access-secret-0")
		})
		synctest.Wait()
		cancel()
		w.slow <- nil
		wg.Wait()
	})
}

// A token that could not be saved is not handed out.
func TestUnsavedTokenIsNotHandedOut(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		w := setup(t, 0)
		w.fail = 1000
		got, err := w.source().Token(t.Context())
		if got != "" || connector.KindOf(err) != connector.Transient {
			t.Errorf("got %q, %v", got, err)
		}
		if w.calls != 1 {
			t.Errorf("%d renewals for one reply that is not saved", w.calls)
		}
	})
}

// A reply whose saving failed is saved by a later try: the old refresh token may be spent.
func TestSavingIsTriedAgain(t *testing.T) {
	t.Parallel()
	for name, lost := range map[string]bool{"not committed": false, "committed, answer lost": true} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				w := setup(t, 0)
				w.fail, w.lost = 3, lost
				got, err := w.source().Token(t.Context())
				want(t, got, err, "access-secret-1")
				if c := w.saved(t); c.RefreshToken != "refresh-secret-1" || w.calls != 1 || w.reuses != 0 {
					t.Errorf("stored %q after %d renewals, %d reuses", c.RefreshToken, w.calls, w.reuses)
				}
			})
		})
	}
}

// A lost reply, a 5xx or garbage never throws the old refresh token away.
func TestNoAnswerKeepsTheOldToken(t *testing.T) {
	t.Parallel()
	for name, fault := range map[string]func(*office){
		"503":             func(o *office) { o.err = &connector.Error{Kind: connector.Transient, Message: "503"} },
		"429":             func(o *office) { o.err = &connector.Error{Kind: connector.Throttled, RetryAfter: time.Minute} },
		"unknown origin":  func(o *office) { o.err = errors.New("reset by peer") },
		"no reply at all": func(o *office) { o.hang = true },
		"no access token": func(o *office) {
			o.answer = func(connector.Credentials) connector.Credentials { return connector.Credentials{RefreshToken: "junk"} }
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				w := setup(t, 0)
				fault(w.office)
				start := time.Now()
				_, err := w.source().Token(t.Context())
				if kind := connector.KindOf(err); kind != connector.Transient && kind != connector.Throttled {
					t.Errorf("kind %q: %v", kind, err)
				}
				if time.Since(start) > renewal {
					t.Errorf("took %v", time.Since(start))
				}
				if c := w.saved(t); c.RefreshToken != "refresh-secret-0" || w.calls != 1 {
					t.Errorf("stored refresh token %q after %d calls", c.RefreshToken, w.calls)
				}
			})
		})
	}
}

// A refusal is final and shared by all who wait for it: five refused logins lock a NetSuite account.
func TestRefusal(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		w := setup(t, 0)
		w.live, w.takes = "another", time.Second
		s := w.source()
		var wg sync.WaitGroup
		for range 20 {
			wg.Go(func() {
				_, err := s.Token(t.Context())
				denied, ok := errors.AsType[*connector.Error](err)
				if !ok || denied.Kind != connector.Denied || denied.Hint != "Reconnect the company." {
					t.Errorf("got %v", err)
				}
			})
		}
		wg.Wait()
		if w.calls != 1 {
			t.Errorf("%d logins were refused, want 1", w.calls)
		}
	})
}

// Credentials given anew while the old ones are refused are tried, once.
func TestRefusalOfReplacedCredentials(t *testing.T) {
	t.Parallel()
	for name, alsoRefused := range map[string]bool{"good": false, "refused too": true} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				w := setup(t, 0)
				w.live = "refresh-secret-new"
				if alsoRefused {
					w.live = "another"
				}
				n := 0
				w.onRead = func() {
					if n++; n == 2 { // the reading after the refusal
						w.store(t, "refresh-secret-new", "", 0)
					}
				}
				got, err := w.source().Token(t.Context())
				if alsoRefused {
					if connector.KindOf(err) != connector.Denied {
						t.Errorf("got %v", err)
					}
				} else {
					want(t, got, err, "access-secret-2")
				}
				if w.calls != 2 {
					t.Errorf("asked %d times, want 2", w.calls)
				}
			})
		})
	}
}

// A refusal after a worker died in a renewal says so, and what to do.
func TestRefusalAfterALostReply(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		w := setup(t, 0)
		since := time.Now().Add(-time.Hour)
		w.live, w.began = "lost-secret", &since
		_, err := w.source().Token(t.Context())
		denied, ok := errors.AsType[*connector.Error](err)
		if !ok || denied.Kind != connector.Denied {
			t.Fatalf("got %v", err)
		}
		when := since.UTC().Format(time.RFC3339)
		for _, part := range []string{"worker died", when, "Reconnect", "syncctl connection credentials"} {
			if !strings.Contains(denied.Hint, part) {
				t.Errorf("hint %q lacks %q", denied.Hint, part)
			}
		}
		// The refresh token that is stored may still be good: then nothing was lost.
		w.live = "refresh-secret-0"
		got, err := w.source().Token(t.Context())
		want(t, got, err, "access-secret-2")
		if w.began != nil {
			t.Error("the note outlived a renewal that was saved")
		}
	})
}

// A spent refresh token is not sent again while the process that spent it may still be saving the reply.
func TestUnsavedReplyElsewhere(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		w := setup(t, 0)
		w.fail = 3
		a, b := w.source(), w.source()
		var wg sync.WaitGroup
		wg.Go(func() {
			got, err := a.Token(t.Context())
			want(t, got, err, "access-secret-1")
		})
		synctest.Wait() // a's first try to save has failed
		got, err := b.Token(t.Context())
		want(t, got, err, "access-secret-1")
		wg.Wait()
		if w.calls != 1 {
			t.Errorf("asked %d times", w.calls)
		}

		// A worker that never saves is waited for, but not for ever.
		w.store(t, "refresh-secret-1", "", 0)
		now := time.Now()
		w.began = &now
		start := time.Now()
		if _, err := w.source().Token(t.Context()); !errors.Is(err, errBusy) || connector.KindOf(err) != connector.Transient {
			t.Errorf("got %v", err)
		}
		if time.Since(start) > renewal {
			t.Errorf("waited %v", time.Since(start))
		}
		got, err = w.source().Token(t.Context())
		want(t, got, err, "access-secret-2")

		// Nor for an hour where this machine's clock is an hour behind the vault's.
		w.ahead = time.Hour
		w.store(t, "refresh-secret-2", "", 0)
		noted := time.Now().Add(w.ahead - renewal)
		w.began = &noted
		start = time.Now()
		got, err = w.source().Token(t.Context())
		want(t, got, err, "access-secret-3")
		if waited := time.Since(start); waited > again {
			t.Errorf("waited %v", waited)
		}
	})
}

func TestNoCredentials(t *testing.T) {
	t.Parallel()
	w := setup(t, 0)
	w.slow = make(chan error, 1)
	w.slow <- fmt.Errorf("connection 42: %w", ErrNone)
	_, err := w.source().Token(t.Context())
	denied, ok := errors.AsType[*connector.Error](err)
	if !ok || denied.Kind != connector.Denied || !strings.Contains(denied.Hint, "syncctl connection credentials") {
		t.Errorf("got %v", err)
	}
}

// A key missing from the ring concerns the installation: no connection is marked for it, and the ERP is not asked.
func TestMissingKey(t *testing.T) {
	t.Parallel()
	w := setup(t, 0)
	s := NewTokenSource(ring(t, "b:"+key(2)), w.shelf, place, w.office, connector.Account{})
	_, err := s.Token(t.Context())
	if connector.KindOf(err) != connector.Misconfigured || w.calls != 0 {
		t.Errorf("got %v after %d calls", err, w.calls)
	}
}

// A panic of a connector leaves nobody waiting.
func TestPanicFreesTheOthers(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		w := setup(t, 0)
		w.answer = func(connector.Credentials) connector.Credentials { time.Sleep(time.Second); panic("bug") }
		s := w.source()
		var wg sync.WaitGroup
		wg.Go(func() {
			defer func() { _ = recover() }()
			_, _ = s.Token(t.Context())
		})
		synctest.Wait()
		if _, err := s.Token(t.Context()); err == nil {
			t.Error("a token came of a panic")
		}
		wg.Wait()
	})
}

// Secrets stay secret: in no error of any outcome, however it is printed or logged.
func TestErrorsHoldNoSecret(t *testing.T) {
	t.Parallel()
	var out bytes.Buffer
	synctest.Test(t, func(t *testing.T) {
		for _, fault := range []func(*world){
			func(w *world) { w.live = "another" },
			func(w *world) { w.live = "another"; now := time.Now(); w.began = &now },
			func(w *world) { w.err = errors.New("reset by peer") },
			func(w *world) { w.fail = 1000 },
			func(w *world) { w.hang = true },
			func(w *world) {
				w.answer = func(c connector.Credentials) connector.Credentials { c.AccessToken = ""; return c }
			},
			func(w *world) {
				far := time.Date(10000, 1, 1, 0, 0, 0, 0, time.UTC)
				w.answer = func(c connector.Credentials) connector.Credentials { c.ExpiresAt = &far; return c }
			},
		} {
			w := setup(t, 0)
			fault(w)
			_, err := w.source().Token(t.Context())
			if err == nil {
				t.Error("no error")
			}
			fmt.Fprintf(&out, "%v %+v\n", err, err)
			slog.New(slog.NewJSONHandler(&out, nil)).Error("run failed", "error", err)
		}
	})
	if strings.Contains(out.String(), "secret") {
		t.Errorf("an error shows a secret:\n%s", out.String())
	}
}

// Whatever goes wrong in whatever order, a spent refresh token is never sent again and what is stored stays good, as
// long as saving works in the end.
func TestAnyOrderOfFaults(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(rt *rapid.T) {
		seq := rapid.SliceOfN(rapid.IntRange(0, 5), 1, 12).Draw(rt, "faults")
		rotate := rapid.Bool().Draw(rt, "rotate")
		synctest.Test(t, func(t *testing.T) {
			w := setup(t, 0)
			w.rotate, w.takes = rotate, time.Second
			a, b := w.source(), w.source()
			for _, fault := range seq {
				ctx, cancel := context.WithTimeout(t.Context(), time.Hour)
				w.err, w.fail, w.lost = nil, 0, false
				switch fault {
				case 1:
					w.err = errors.New("reset by peer")
				case 2:
					w.fail = 3
				case 3:
					w.fail, w.lost = 1, true
				case 4:
					ctx, cancel = context.WithTimeout(ctx, 500*time.Millisecond)
				case 5:
					time.Sleep(2 * time.Hour)
				}
				var wg sync.WaitGroup
				for _, s := range []*TokenSource{a, b} {
					wg.Go(func() {
						if token, err := s.Token(ctx); err == nil && token != w.saved(t).AccessToken {
							t.Errorf("%v: handed out what is not stored", seq)
						}
					})
				}
				wg.Wait()
				cancel()
				if stored := w.saved(t).RefreshToken; stored != w.live || w.reuses > 0 {
					t.Errorf("%v: stored %q, the ERP accepts %q, %d reuses", seq, stored, w.live, w.reuses)
				}
			}
		})
	})
}

// TestRefusedLoginIsNotAsked: a login that was refused and must not be tried again is not sent, nor is a token of it handed out that
// may still work.
func TestRefusedLoginIsNotAsked(t *testing.T) {
	t.Parallel()
	for _, left := range []time.Duration{0, time.Hour} {
		w := setup(t, left)
		w.shelf.stored.Refused = &Refusal{At: time.Now(), Text: "400 invalid_grant", Hint: "Make a new certificate."}
		_, err := w.source().Token(t.Context())
		e, _ := errors.AsType[*connector.Error](err)
		if e == nil || !e.NoTrial || e.Kind != connector.Denied || w.calls != 0 {
			t.Fatalf("%v after %d requests", err, w.calls)
		}
		for _, want := range []string{"refused at", "400 invalid_grant", "Make a new certificate.", "syncctl connection resume"} {
			if !strings.Contains(err.Error()+e.Hint, want) {
				t.Errorf("%v (%s) does not say %q", err, e.Hint, want)
			}
		}
	}
}

package pace_test

import (
	"context"
	"errors"
	"sync"
	"testing"
	"time"

	"github.com/redis/go-redis/v9"

	"github.com/centime/contactsync/internal/connector"
	"github.com/centime/contactsync/internal/pace"
	"github.com/centime/contactsync/internal/queue/redistest"
)

var kelp = pace.Account{ERP: "quickbooks-online", ID: "9130350000000001"}

func open(t testing.TB, url string) *pace.Budgets {
	t.Helper()
	o, err := redis.ParseURL(url)
	if err != nil {
		t.Fatal(err)
	}
	o.ContextTimeoutEnabled = true
	o.DialTimeout, o.ReadTimeout, o.WriteTimeout, o.MaxRetries = time.Second, time.Second, time.Second, -1
	client := redis.NewClient(o)
	t.Cleanup(func() { _ = client.Close() })
	return pace.New(client)
}

func get(t testing.TB, b *pace.Budgets, a pace.Account, l connector.Limits) func() {
	t.Helper()
	answered, err := b.Acquire(t.Context(), a, l, time.Minute)
	if err != nil {
		t.Fatal(err)
	}
	return answered
}

// refused wants our own refusal, and returns the wait it tells.
func refused(t *testing.T, b *pace.Budgets, a pace.Account, l connector.Limits) time.Duration {
	t.Helper()
	_, err := b.Acquire(t.Context(), a, l, time.Minute)
	var e *connector.Error
	if !errors.As(err, &e) || e.Kind != connector.Throttled || !errors.Is(err, pace.ErrBudget) {
		t.Fatalf("%v, want our own refusal", err)
	}
	return e.RetryAfter
}

// TestLimitsAreKept: whatever number of workers asks at once, no window has more requests than it may. What counts is when
// Redis granted them; all cases have a limit a minute, so that the grants of the whole test are still there to be read.
func TestLimitsAreKept(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		limits  connector.Limits
		window  time.Duration
		allowed int
	}{
		"ten a second":        {connector.Limits{PerSecond: 10, PerMinute: 500, AtOnce: 10}, time.Second, 10},
		"two and a half":      {connector.Limits{PerSecond: 2.5, PerMinute: 500}, 800 * time.Millisecond, 2},
		"one in two seconds":  {connector.Limits{PerSecond: 0.5, PerMinute: 500}, 2 * time.Second, 1},
		"seven in any minute": {connector.Limits{PerMinute: 7}, time.Minute, 7},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			server := redistest.New(t)
			ctx, cancel := context.WithTimeout(t.Context(), 3500*time.Millisecond)
			defer cancel()
			var workers sync.WaitGroup
			for range 5 {
				b := open(t, server.URL)
				for range 4 {
					workers.Go(func() {
						for ctx.Err() == nil {
							answered, err := b.Acquire(ctx, kelp, c.limits, time.Minute)
							switch {
							case err == nil:
								answered()
							case errors.Is(err, pace.ErrBudget):
								<-ctx.Done()
							}
						}
					})
				}
			}
			workers.Wait()
			granted := grants(t, server.URL)
			if len(granted) < c.allowed {
				t.Fatalf("%d requests went out, fewer than one window allows", len(granted))
			}
			for i := range granted {
				if j := i + c.allowed; j < len(granted) && granted[j]-granted[i] < c.window {
					t.Errorf("requests %d to %d went out within %s", i, j, granted[j]-granted[i])
				}
			}
		})
	}
}

// grants are the moments of the only account's requests, by the clock of Redis.
func grants(t *testing.T, url string) (at []time.Duration) {
	t.Helper()
	o, err := redis.ParseURL(url)
	if err != nil {
		t.Fatal(err)
	}
	client := redis.NewClient(o)
	defer client.Close()
	key := client.Keys(t.Context(), "contactsync:pace:*:grants").Val()
	if len(key) != 1 {
		t.Fatalf("the log of grants is not there: %v", key)
	}
	for _, z := range client.ZRangeWithScores(t.Context(), key[0], 0, -1).Val() {
		at = append(at, time.Duration(z.Score)*time.Microsecond)
	}
	return at
}

// TestAccountsAreApart: one company's load is not another's.
func TestAccountsAreApart(t *testing.T) {
	t.Parallel()
	b := open(t, redistest.New(t).URL)
	limits := connector.Limits{PerMinute: 1}
	get(t, b, kelp, limits)
	get(t, b, pace.Account{ERP: kelp.ERP, ID: "2"}, limits)
	get(t, b, pace.Account{ERP: "netsuite", ID: kelp.ID}, limits)
	if wait := refused(t, b, kelp, limits); wait < 30*time.Second || wait > 61*time.Second {
		t.Errorf("told to wait %s", wait)
	}
}

// TestAtOnce: requests at a time are limited across workers, the place of a worker that died comes back, and giving one back
// twice, or after Redis was emptied, does no harm.
func TestAtOnce(t *testing.T) {
	t.Parallel()
	server := redistest.Own(t)
	one, other := open(t, server.URL), open(t, server.URL)
	limits := connector.Limits{AtOnce: 1}
	first := get(t, one, kelp, limits)
	second := make(chan func())
	go func() {
		answered, err := other.Acquire(t.Context(), kelp, limits, time.Minute)
		if err != nil {
			t.Error(err)
		}
		second <- answered
	}()
	select {
	case <-second:
		t.Fatal("two requests at once")
	case <-time.After(300 * time.Millisecond): // long enough for one that would not wait
	}
	first()
	answered := <-second
	first() // not the other's place
	if refused(t, one, kelp, limits) <= 0 {
		t.Error("not told to wait")
	}
	server.Flush()
	answered()

	if _, err := one.Acquire(t.Context(), kelp, limits, 200*time.Millisecond); err != nil { // and dies
		t.Fatal(err)
	}
	get(t, other, kelp, limits)()
}

// TestSlowHoldsForAll: a 429 of one worker keeps all of them from asking, a shorter one does not end it, and no other account
// is meant.
func TestSlowHoldsForAll(t *testing.T) {
	t.Parallel()
	url := redistest.New(t).URL
	one, other := open(t, url), open(t, url)
	for _, d := range []time.Duration{time.Minute, time.Second} {
		if err := one.Slow(t.Context(), kelp, d); err != nil {
			t.Fatal(err)
		}
	}
	for _, limits := range []connector.Limits{{}, {PerSecond: 10}} {
		if wait := refused(t, other, kelp, limits); wait < 30*time.Second || wait > time.Minute {
			t.Errorf("told to wait %s", wait)
		}
	}
	get(t, other, pace.Account{ERP: kelp.ERP, ID: "2"}, connector.Limits{PerSecond: 10})
	if err := one.Slow(t.Context(), pace.Account{ERP: "memory", ID: "3"}, 200*time.Millisecond); err != nil {
		t.Fatal(err)
	}
	get(t, other, pace.Account{ERP: "memory", ID: "3"}, connector.Limits{}) // waits in place
}

// TestFailsClosed: without Redis no request goes out, and the error says what to do; a caller that left is nobody's fault.
func TestFailsClosed(t *testing.T) {
	t.Parallel()
	server := redistest.Own(t)
	b := open(t, server.URL)
	limits := connector.Limits{PerSecond: 10}
	away := func() {
		t.Helper()
		_, err := b.Acquire(t.Context(), kelp, limits, time.Minute)
		var e *connector.Error
		if !errors.Is(err, pace.ErrAway) || !errors.As(err, &e) || e.Kind != connector.Transient || e.Hint == "" {
			t.Errorf("%v", err)
		}
	}
	get(t, b, kelp, limits)
	server.Pause()
	away()
	server.Resume()
	get(t, b, kelp, limits)
	server.Stop()
	away()
	server.Start() // emptied: its scripts are gone too
	get(t, b, kelp, limits)

	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := b.Acquire(ctx, kelp, limits, time.Minute); !errors.Is(err, context.Canceled) || errors.Is(err, pace.ErrAway) {
		t.Errorf("%v, want the caller's own", err)
	}
}

// BenchmarkAcquire is one request let through, a round trip, and its place given back, another.
func BenchmarkAcquire(b *testing.B) {
	budgets := open(b, redistest.New(b).URL)
	limits := connector.Limits{PerSecond: 1e6, AtOnce: 10}
	for b.Loop() {
		get(b, budgets, kelp, limits)()
	}
}

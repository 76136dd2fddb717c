package pace_test

import (
	"context"
	"errors"
	"net"
	"strings"
	"sync"
	"sync/atomic"
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
		"two and a half":      {connector.Limits{PerSecond: 2.5, PerMinute: 500}, time.Second, 2},
		"one in two seconds":  {connector.Limits{PerSecond: 0.5, PerMinute: 500}, 2 * time.Second, 1},
		"seven in any minute": {connector.Limits{PerMinute: 7}, time.Minute, 7},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			server := redistest.New(t)
			ctx, cancel := context.WithTimeout(t.Context(), 3500*time.Millisecond)
			defer cancel()
			var workers sync.WaitGroup
			var let atomic.Int64
			for range 5 {
				b := open(t, server.URL)
				for range 4 {
					workers.Go(func() {
						for ctx.Err() == nil {
							answered, err := b.Acquire(ctx, kelp, c.limits, time.Minute)
							switch {
							case err == nil:
								let.Add(1)
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
			if n := int(let.Load()); n > len(granted) {
				t.Errorf("%d requests were let through, and %d of them counted", n, len(granted))
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
	if wait := refused(t, one, kelp, limits); wait < pace.Patience {
		t.Errorf("told to wait %s, and would do nothing but wait here", wait)
	}
	server.Flush()
	answered()

	// A long request keeps its place, however short a dead one's is kept.
	const life = 300 * time.Millisecond
	dying, die := mortal(t, server.URL)
	answered, err := dying.Acquire(t.Context(), kelp, limits, life)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(answered)
	if wait := refused(t, other, kelp, limits); wait < pace.Patience { // after many lives
		t.Errorf("told to wait %s", wait)
	}
	die()
	get(t, other, kelp, limits)()
}

// mortal is open for a process that can die.
func mortal(t testing.TB, url string) (b *pace.Budgets, die func()) {
	t.Helper()
	o, err := redis.ParseURL(url)
	if err != nil {
		t.Fatal(err)
	}
	client := redis.NewClient(o)
	t.Cleanup(func() { _ = client.Close() })
	return pace.New(client), func() { _ = client.Close() }
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

// asWorker opens budgets as a worker does: its client asks a second time.
func asWorker(t *testing.T, url string, change func(*redis.Options)) *redis.Client {
	t.Helper()
	o, err := redis.ParseURL(url)
	if err != nil {
		t.Fatal(err)
	}
	o.ContextTimeoutEnabled, o.DisableIdentity = true, true
	o.DialTimeout, o.ReadTimeout, o.WriteTimeout, o.MaxRetries = 3*time.Second, 3*time.Second, 3*time.Second, 1
	change(o)
	client := redis.NewClient(o)
	t.Cleanup(func() { _ = client.Close() })
	return client
}

// lossy ends the connection instead of delivering an answer, once for each time it is armed.
type lossy struct {
	net.Conn
	armed *atomic.Bool
	lost  bool
}

func (c *lossy) Write(p []byte) (int, error) {
	c.lost = strings.Contains(strings.ToLower(string(p)), "evalsha") && c.armed.CompareAndSwap(true, false)
	return c.Conn.Write(p)
}

func (c *lossy) Read(p []byte) (int, error) {
	n, err := c.Conn.Read(p)
	if c.lost && err == nil {
		_ = c.Conn.Close()
		return 0, net.ErrClosed
	}
	return n, err
}

// TestLostAnswer: Redis lets a request through and the answer is lost. The client asks again, and the request neither waits
// for its own place nor keeps it afterwards.
func TestLostAnswer(t *testing.T) {
	t.Parallel()
	var armed atomic.Bool
	b := pace.New(asWorker(t, redistest.New(t).URL, func(o *redis.Options) {
		o.Dialer = func(ctx context.Context, network, addr string) (net.Conn, error) {
			c, err := new(net.Dialer).DialContext(ctx, network, addr)
			return &lossy{Conn: c, armed: &armed}, err
		}
	}))
	limits := connector.Limits{AtOnce: 1}
	get(t, b, kelp, limits)() // Redis knows the script from now on
	armed.Store(true)
	get(t, b, kelp, limits)()
	if armed.Load() {
		t.Fatal("no answer was lost")
	}
	get(t, b, kelp, limits)()
}

// TestCallerLeaves: whoever leaves while Redis works on the request leaves no place taken.
func TestCallerLeaves(t *testing.T) {
	t.Parallel()
	url := redistest.New(t).URL
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	var leave atomic.Bool
	leaving := asWorker(t, url, func(*redis.Options) {})
	leaving.AddHook(afterwards(func() {
		if leave.Load() {
			cancel()
		}
	}))
	b, limits := pace.New(leaving), connector.Limits{AtOnce: 1}
	get(t, b, kelp, limits)()
	leave.Store(true)
	if _, err := b.Acquire(ctx, kelp, limits, time.Minute); !errors.Is(err, context.Canceled) {
		t.Fatalf("%v, want the caller's own", err)
	}
	get(t, open(t, url), kelp, limits)()
}

// afterwards makes a hook: it is called after Redis has worked on a script, and the answer does not reach the caller if that
// ended the context.
type afterwards func()

func (f afterwards) DialHook(next redis.DialHook) redis.DialHook { return next }

func (f afterwards) ProcessPipelineHook(next redis.ProcessPipelineHook) redis.ProcessPipelineHook {
	return next
}

func (f afterwards) ProcessHook(next redis.ProcessHook) redis.ProcessHook {
	return func(ctx context.Context, cmd redis.Cmder) error {
		err := next(ctx, cmd)
		if cmd.Name() == "evalsha" {
			f()
			if ctx.Err() != nil {
				cmd.SetErr(ctx.Err())
				return ctx.Err()
			}
		}
		return err
	}
}

// TestClockSetBack: after a failover to a server whose clock is an hour behind, nobody waits for an hour.
func TestClockSetBack(t *testing.T) {
	t.Parallel()
	client := asWorker(t, redistest.New(t).URL, func(*redis.Options) {})
	b, limits := pace.New(client), connector.Limits{PerSecond: 1, PerMinute: 500}
	get(t, b, kelp, limits)
	key := "contactsync:pace:{" + kelp.ERP + "/" + kelp.ID + "}:grants"
	ahead := client.Time(t.Context()).Val().Add(time.Hour)
	if n, err := client.ZAdd(t.Context(), key, redis.Z{Score: float64(ahead.UnixMicro()), Member: "before"}).Result(); n != 1 || err != nil {
		t.Fatal(n, err)
	}
	get(t, b, kelp, limits)
	begin := time.Now()
	get(t, b, kelp, limits)
	if took := time.Since(begin); took < 500*time.Millisecond {
		t.Errorf("the next request went out after %s: the limit is gone", took)
	}
}

// TestAwayIsToldSoon: a Redis that hangs keeps a worker for a few seconds at most, also one that tells of a 429, and the error
// says what Redis answered if it did.
func TestAwayIsToldSoon(t *testing.T) {
	t.Parallel()
	server := redistest.Own(t)
	b := pace.New(asWorker(t, server.URL, func(*redis.Options) {}))
	limits := connector.Limits{AtOnce: 1}
	get(t, b, kelp, limits)()
	server.Pause()
	begin := time.Now()
	_, err := b.Acquire(t.Context(), kelp, limits, time.Minute)
	if !errors.Is(err, pace.ErrAway) || errors.Is(err, context.DeadlineExceeded) { // which would be the end of the step
		t.Errorf("%v, want %v", err, pace.ErrAway)
	}
	if err := b.Slow(t.Context(), kelp, time.Minute); !errors.Is(err, pace.ErrAway) {
		t.Errorf("%v, want %v", err, pace.ErrAway)
	}
	if took := time.Since(begin); took > 8500*time.Millisecond { // 3 s and 1 s, and 3 s; with a second try it was 6 s and more for one
		t.Errorf("took %s", took)
	}
	server.Resume()

	stranger := pace.New(asWorker(t, server.URL, func(o *redis.Options) { o.Password = "wrong" }))
	if _, err := stranger.Acquire(t.Context(), kelp, limits, time.Minute); err == nil || !strings.Contains(err.Error(), "WRONGPASS") {
		t.Errorf("%v, want what Redis says", err)
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

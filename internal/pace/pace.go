// Package pace keeps the request budgets of ERP accounts, which all workers share through Redis.
package pace

import (
	"context"
	"crypto/rand"
	_ "embed"
	"errors"
	"fmt"
	"math"
	mrand "math/rand/v2"
	"sync"
	"time"

	"github.com/redis/go-redis/v9"

	"github.com/centime/contactsync/internal/connector"
)

// Patience is how long a request waits in place. Whoever must wait longer gives its slot away meanwhile.
const Patience = 5 * time.Second

const (
	// secondMargin and minute stretch the windows in which requests are counted, since what left here evenly may arrive
	// closer together.
	secondMargin = 1.1
	minute       = 61 * time.Second
	// prompt is when a Redis that does not answer counts as away, however often the client would try again.
	prompt = 3 * time.Second
	// returning bounds giving a slot back; a slot that stays taken comes back by itself.
	returning = time.Second
)

// ErrBudget marks a refusal of our own: the ERP was not asked.
var ErrBudget = errors.New("request budget")

// ErrAway marks what could not be done because Redis could not be asked.
var ErrAway = errors.New("redis cannot be asked")

// Account is one company at an ERP, whoever is connected to it.
type Account struct{ ERP, ID string }

// Budgets lets requests through as the limits of their account allow. After Redis was emptied the count begins anew: a burst
// that the ERP refuses is possible once, and slows the account.
type Budgets struct{ client redis.UniversalClient }

// New uses a client whose calls end in time.
func New(client redis.UniversalClient) *Budgets { return &Budgets{client} }

//go:embed acquire.lua
var acquireText string

//go:embed slow.lua
var slowText string

//go:embed keep.lua
var keepText string

var acquire, slow, keep = redis.NewScript(acquireText), redis.NewScript(slowText), redis.NewScript(keepText)

// keys of an account lie in one slot of a cluster.
func (a Account) keys() (grants, pause, slots string) {
	prefix := fmt.Sprintf("contactsync:pace:{%s/%s}:", a.ERP, a.ID)
	return prefix + "grants", prefix + "pause", prefix + "slots"
}

// Acquire lets one request through, after a wait of at most Patience. answered gives its place among the requests at once
// back; calling it again does nothing. Until then the place is kept for life, and again for life: the place of a process that
// died, or stands still, comes back after that.
//
// An account without room for longer is Throttled with the wait in RetryAfter, and errors.Is(err, ErrBudget). One that had
// none after the wait in place is to be left alone for Patience again, so that nobody spends all its time here. Where Redis
// does not answer no request goes out: the error is Transient and errors.Is(err, ErrAway).
func (b *Budgets) Acquire(ctx context.Context, a Account, l connector.Limits, life time.Duration) (answered func(), err error) {
	if l == (connector.Limits{}) {
		l.PerSecond = math.MaxInt32 // nothing but a pause can refuse it
	}
	id, until := rand.Text(), time.Now().Add(Patience)
	for {
		wait, err := b.try(ctx, a, l, id, life)
		switch {
		case err != nil:
			b.answered(ctx, a, l, id, life)() // it may have been let through
			return nil, away(ctx, "wait for the request budget", err)
		case wait == 0:
			return b.answered(ctx, a, l, id, life), nil
		case time.Now().Add(wait).After(until):
			return nil, &connector.Error{
				Kind: connector.Throttled, Step: "wait for the request budget", Message: "the account allows no more requests now",
				RetryAfter: max(wait, Patience), Err: ErrBudget,
			}
		}
		select {
		case <-ctx.Done():
		case <-time.After(wait + mrand.N(wait/8+time.Millisecond)): //nolint:gosec // so that not all waiters ask at once
		}
	}
}

func (b *Budgets) try(ctx context.Context, a Account, l connector.Limits, id string, life time.Duration) (time.Duration, error) {
	ctx, cancel := context.WithTimeout(ctx, prompt)
	defer cancel()
	grants, pause, slots := a.keys()
	count, window := perWindow(l.PerSecond)
	us, err := acquire.Run(ctx, b.client, []string{grants, pause, slots}, id, count, window.Microseconds(),
		l.PerMinute, minute.Microseconds(), l.AtOnce, life.Microseconds()).Int64()
	return time.Duration(us) * time.Microsecond, err
}

// away tells a Redis that failed from a caller that left. The cause is told and not wrapped: its time-out is not the caller's.
func away(ctx context.Context, step string, err error) error {
	if ctx.Err() != nil {
		return fmt.Errorf("%s: %w", step, ctx.Err())
	}
	return &connector.Error{
		Kind: connector.Transient, Step: step, Err: fmt.Errorf("%w: %s", ErrAway, err.Error()),
		Hint: "Look whether Redis runs, has memory left, and REDIS_URL is right: without it no ERP is asked.",
	}
}

// perWindow turns a rate into a whole number of requests in a window of a second, or longer: 0.2 is one in five seconds. Of
// 2.5 only two fit into every second. A rate of 0 is no limit.
func perWindow(perSecond float64) (count int, window time.Duration) {
	if perSecond <= 0 {
		return 0, 0
	}
	count = int(max(1, min(perSecond, math.MaxInt32)))
	return count, time.Duration(max(1, float64(count)/perSecond) * secondMargin * float64(time.Second))
}

// answered keeps the request's place until it is called.
func (b *Budgets) answered(ctx context.Context, a Account, l connector.Limits, id string, life time.Duration) func() {
	if l.AtOnce == 0 {
		return func() {}
	}
	ctx = context.WithoutCancel(ctx)
	_, _, slots := a.keys()
	over := make(chan struct{})
	go func() {
		again := time.NewTicker(life / 3)
		defer again.Stop()
		for {
			select {
			case <-over:
				return
			case <-again.C:
			}
			bound, cancel := context.WithTimeout(ctx, returning)
			_ = keep.Run(bound, b.client, []string{slots}, id, life.Microseconds()).Err() // the next may reach Redis
			cancel()
		}
	}()
	return sync.OnceFunc(func() {
		close(over)
		bound, cancel := context.WithTimeout(ctx, returning)
		defer cancel()
		b.client.ZRem(bound, slots, id)
	})
}

// Slow keeps everybody from asking an account for d, because the ERP refused a request for being too fast. Of two such
// pauses the one that ends later holds.
func (b *Budgets) Slow(ctx context.Context, a Account, d time.Duration) error {
	bound, cancel := context.WithTimeout(ctx, prompt)
	defer cancel()
	_, pause, _ := a.keys()
	if err := slow.Run(bound, b.client, []string{pause}, max(1, d.Milliseconds())).Err(); err != nil {
		return away(ctx, "slow account down", err)
	}
	return nil
}

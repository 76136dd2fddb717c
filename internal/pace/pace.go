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
	// returning bounds giving a slot back; a slot that stays taken comes back by itself.
	returning = time.Second
)

// ErrBudget marks a refusal of our own: the ERP was not asked.
var ErrBudget = errors.New("request budget")

// ErrAway marks a request that was not sent because Redis could not be asked.
var ErrAway = errors.New("the request budget cannot be read")

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

var acquire, slow = redis.NewScript(acquireText), redis.NewScript(slowText)

// keys of an account lie in one slot of a cluster.
func (a Account) keys() (grants, pause, slots string) {
	prefix := fmt.Sprintf("contactsync:pace:{%s/%s}:", a.ERP, a.ID)
	return prefix + "grants", prefix + "pause", prefix + "slots"
}

// Acquire lets one request through, after a wait of at most Patience. answered gives its place among the requests at once
// back; after longest it comes back by itself. Calling it again does nothing.
//
// An account without room for longer is Throttled with the wait in RetryAfter, and errors.Is(err, ErrBudget). Where Redis
// does not answer no request goes out: the error is Transient and errors.Is(err, ErrAway).
func (b *Budgets) Acquire(ctx context.Context, a Account, l connector.Limits, longest time.Duration) (answered func(), err error) {
	if l == (connector.Limits{}) {
		l.PerSecond = math.MaxInt32 // nothing but a pause can refuse it
	}
	id, until := rand.Text(), time.Now().Add(Patience)
	for {
		wait, err := b.try(ctx, a, l, id, longest)
		switch {
		case err != nil && ctx.Err() != nil:
			return nil, fmt.Errorf("wait for the request budget: %w", ctx.Err())
		case err != nil:
			return nil, &connector.Error{
				Kind: connector.Transient, Step: "wait for the request budget", Message: "Redis does not answer", Err: ErrAway,
				Hint: "Look whether Redis runs and REDIS_URL is right: without it no ERP is asked.",
			}
		case wait == 0:
			return b.answered(ctx, a, l, id), nil
		case time.Now().Add(wait).After(until):
			return nil, &connector.Error{
				Kind: connector.Throttled, Step: "wait for the request budget", Message: "the account allows no more requests now",
				RetryAfter: wait, Err: ErrBudget,
			}
		}
		select {
		case <-ctx.Done():
		case <-time.After(wait + mrand.N(wait/8+time.Millisecond)): //nolint:gosec // so that not all waiters ask at once
		}
	}
}

func (b *Budgets) try(ctx context.Context, a Account, l connector.Limits, id string, longest time.Duration) (time.Duration, error) {
	grants, pause, slots := a.keys()
	count, window := perWindow(l.PerSecond)
	us, err := acquire.Run(ctx, b.client, []string{grants, pause, slots}, id, count, window.Microseconds(),
		l.PerMinute, minute.Microseconds(), l.AtOnce, longest.Microseconds()).Int64()
	return time.Duration(us) * time.Microsecond, err
}

// perWindow turns a rate into a whole number of requests in a window, of a second where that fits: 0.2 is one in five
// seconds, 2.5 is two in 0.8 s. A rate of 0 is no limit.
func perWindow(perSecond float64) (count int, window time.Duration) {
	if perSecond <= 0 {
		return 0, 0
	}
	count = int(max(1, min(perSecond, math.MaxInt32)))
	return count, time.Duration(float64(count) / perSecond * secondMargin * float64(time.Second))
}

func (b *Budgets) answered(ctx context.Context, a Account, l connector.Limits, id string) func() {
	if l.AtOnce == 0 {
		return func() {}
	}
	ctx = context.WithoutCancel(ctx)
	return sync.OnceFunc(func() {
		ctx, cancel := context.WithTimeout(ctx, returning)
		defer cancel()
		_, _, slots := a.keys()
		b.client.ZRem(ctx, slots, id)
	})
}

// Slow keeps everybody from asking an account for d, because the ERP refused a request for being too fast. Of two such
// pauses the one that ends later holds.
func (b *Budgets) Slow(ctx context.Context, a Account, d time.Duration) error {
	_, pause, _ := a.keys()
	if err := slow.Run(ctx, b.client, []string{pause}, max(1, d.Milliseconds())).Err(); err != nil {
		return fmt.Errorf("slow account down: %w", err)
	}
	return nil
}

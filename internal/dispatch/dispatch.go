// Package dispatch is the scheduler: it turns due connections into queued runs, hands runs to the queue, hands out again
// those that the queue lost or whose worker died, watches over what concerns all connections of an ERP, and removes what is
// old. Any number may run at once, and none calls an ERP.
package dispatch

import (
	"context"
	"errors"
	"log/slog"
	"sync"
	"time"

	"github.com/centime/contactsync/internal/metrics"
	"github.com/centime/contactsync/internal/postgres"
	"github.com/centime/contactsync/internal/queue"
	"github.com/centime/contactsync/internal/tracing"
)

const (
	// batch is how much one turn of the loop takes on; the next turn follows at once while there is more.
	batch = 500
	// watchEvery is after how many ticks the ERPs as a whole and their budgets are looked at.
	watchEvery = 5
	// trialEvery is how long the trials of an ERP that refuses this installation are apart.
	trialEvery = 5 * time.Minute
	// tidyEvery is how often old rows and dead tasks are removed.
	tidyEvery = time.Hour
)

// Queue is where deliveries go: *queue.Redis.
type Queue interface {
	Enqueue(ctx context.Context, t queue.Task) error
	Waiting(ctx context.Context, t queue.Task) (bool, error)
	Sweep(ctx context.Context) (int, error)
}

// Task is a delivery as the queue carries it: what people asked for comes first, first loads last.
func Task(h postgres.HandOut) queue.Task {
	return queue.Task{Run: h.Run, Delivery: h.Delivery, Queue: QueueOf(h.Trigger), StandBack: h.GaveWay}
}

// QueueOf is the queue of the runs of a trigger.
func QueueOf(t postgres.Trigger) queue.Name {
	switch t {
	case postgres.Manual:
		return queue.Urgent
	case postgres.FirstLoad:
		return queue.FirstLoad
	case postgres.BySchedule:
	}
	return queue.Scheduled
}

// HandOut puts a delivery into the queue.
func HandOut(ctx context.Context, q Queue, h postgres.HandOut) error {
	ctx, end := tracing.Span(ctx, "hand out", slog.Int64("run_id", h.Run), slog.Int("delivery", h.Delivery))
	t := Task(h)
	t.Headers = tracing.Headers(ctx)
	err := q.Enqueue(ctx, t)
	end(err)
	return err
}

// Scheduler decides what is due. Metrics may be nil; all other fields are needed.
type Scheduler struct {
	Store *postgres.Store
	Queue Queue
	Log   *slog.Logger
	Tick  time.Duration
	Lease time.Duration
	// Allowances are the metered calls a month, of all connections of an ERP together; an ERP without one has no limit.
	Allowances map[string]int64
	Keep       postgres.Keep
	Metrics    *metrics.Metrics

	ticks    int
	lookedAt int64 // the last run whose delivery was looked for; 0: begin anew
	save     postgres.Savings
	told     map[string]int // which thresholds of a budget were told
}

// Run ticks until ctx ends. An error of a tick is logged: the next one tries again, and nothing is lost meanwhile.
func (s *Scheduler) Run(ctx context.Context) {
	var tidying sync.WaitGroup
	tidying.Go(func() { every(ctx, tidyEvery, s.tidy) })
	defer tidying.Wait()
	every(ctx, s.Tick, func(ctx context.Context) {
		began := time.Now()
		err := s.Once(ctx)
		if ctx.Err() != nil {
			return
		}
		s.Metrics.TickEnded(time.Since(began), err)
		if err != nil {
			s.Log.ErrorContext(ctx, "tick failed; trying again at the next", "error", err)
		}
	})
}

// every does something at once and then each d, until ctx ends.
func every(ctx context.Context, d time.Duration, do func(context.Context)) {
	tick := time.NewTicker(d)
	defer tick.Stop()
	for {
		do(ctx)
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
	}
}

// Once does one tick: ERPs as a whole, due connections, lost deliveries, new deliveries.
func (s *Scheduler) Once(ctx context.Context) error {
	if s.ticks%watchEvery == 0 {
		if err := s.watch(ctx); err != nil {
			return err
		}
	}
	s.ticks++
	for {
		n, err := s.Store.QueueDue(ctx, batch, s.save)
		if err != nil {
			return err
		}
		if n > 0 {
			s.Log.InfoContext(ctx, "queued due connections", "runs", n)
			s.Metrics.Queued(n)
		}
		if n < batch {
			break
		}
	}
	if err := s.recover(ctx); err != nil {
		return err
	}
	for {
		out, err := s.Store.HandOutNew(ctx, batch)
		if err != nil {
			return err
		}
		for i, h := range out {
			if err := HandOut(ctx, s.Queue, h); err != nil {
				// It may be queued all the same: its next delivery makes this one worthless. To ask a Redis that does not answer
				// for each of the others would keep the scheduler from everything else.
				return errors.Join(err, s.Store.HandOutAgain(context.WithoutCancel(ctx), out[i:]))
			}
		}
		s.Metrics.HandedOut(len(out))
		if len(out) < batch {
			return nil
		}
	}
}

// recover finds deliveries that nobody works although they were made a lease ago, and that do not wait in the queue. Behind a backlog, which
// waits there rightly, it looks at the next ones with each tick, and begins again after the last.
func (s *Scheduler) recover(ctx context.Context) error {
	old, err := s.Store.HandedOutLongAgo(ctx, s.Lease, s.lookedAt, batch)
	if err != nil {
		return err
	}
	var lost []postgres.HandOut
	for _, h := range old {
		waiting, err := s.Queue.Waiting(ctx, Task(h))
		if err != nil {
			return err
		}
		if !waiting {
			s.Log.WarnContext(ctx, "delivery lost: handing the run out again", "run_id", h.Run, "delivery", h.Delivery)
			lost = append(lost, h)
		}
	}
	s.lookedAt = 0
	if len(old) == batch {
		s.lookedAt = old[batch-1].Run
	}
	if len(lost) == 0 {
		return nil
	}
	s.Metrics.DeliveriesLost(len(lost))
	return s.Store.HandOutAgain(ctx, lost)
}

// tidy removes old rows in small batches, and tasks that nobody would work.
func (s *Scheduler) tidy(ctx context.Context) {
	removed, err := s.Store.RemoveOld(ctx, s.Keep, batch)
	for err == nil && removed.Any() && ctx.Err() == nil {
		for what, n := range removed {
			s.Metrics.Removed(what, n)
		}
		removed, err = s.Store.RemoveOld(ctx, s.Keep, batch)
	}
	if err == nil {
		_, err = s.Queue.Sweep(ctx)
	}
	if err != nil && ctx.Err() == nil {
		s.Log.WarnContext(ctx, "old rows or tasks stay, which harms nothing; trying again in an hour", "error", err)
	}
}

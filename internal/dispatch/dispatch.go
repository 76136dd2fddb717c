// Package dispatch is the scheduler: it turns due connections into queued runs, hands runs to the queue, and hands out again
// those that the queue lost or whose worker died. Any number may run at once, and none calls an ERP.
package dispatch

import (
	"context"
	"log/slog"
	"time"

	"github.com/centime/contactsync/internal/postgres"
	"github.com/centime/contactsync/internal/queue"
)

// batch is how much one turn of the loop takes on; the next turn follows at once while there is more.
const batch = 500

// Queue is where deliveries go: *queue.Redis.
type Queue interface {
	Enqueue(ctx context.Context, t queue.Task) error
	Waiting(ctx context.Context, t queue.Task) (bool, error)
}

// Task is a delivery as the queue carries it: what people asked for comes first, first loads last.
func Task(h postgres.HandOut) queue.Task {
	t := queue.Task{Run: h.Run, Delivery: h.Delivery, Queue: queue.Scheduled}
	switch h.Trigger {
	case postgres.Manual:
		t.Queue = queue.Urgent
	case postgres.FirstLoad:
		t.Queue = queue.FirstLoad
	case postgres.BySchedule:
	}
	return t
}

// Scheduler decides what is due. All fields are needed.
type Scheduler struct {
	Store *postgres.Store
	Queue Queue
	Log   *slog.Logger
	Tick  time.Duration
	Lease time.Duration
}

// Run ticks until ctx ends. An error of a tick is logged: the next one tries again, and nothing is lost meanwhile.
func (s *Scheduler) Run(ctx context.Context) {
	tick := time.NewTicker(s.Tick)
	defer tick.Stop()
	for {
		if err := s.Once(ctx); err != nil && ctx.Err() == nil {
			s.Log.ErrorContext(ctx, "tick failed; trying again at the next", "error", err)
		}
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
	}
}

// Once does one tick: due connections, lost deliveries, new deliveries.
func (s *Scheduler) Once(ctx context.Context) error {
	for {
		n, err := s.Store.QueueDue(ctx, batch)
		if err != nil {
			return err
		}
		if n > 0 {
			s.Log.InfoContext(ctx, "queued due connections", "runs", n)
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
		for _, h := range out {
			if err := s.Queue.Enqueue(ctx, Task(h)); err != nil {
				// It may be queued all the same; if not, it is found lost within two leases.
				s.Log.WarnContext(ctx, "queue did not confirm a delivery", "run_id", h.Run, "delivery", h.Delivery, "error", err)
			}
		}
		if len(out) < batch {
			return nil
		}
	}
}

// recover finds deliveries that nobody works although they were made a lease ago, and that do not wait in the queue.
func (s *Scheduler) recover(ctx context.Context) error {
	old, err := s.Store.HandedOutLongAgo(ctx, s.Lease, batch)
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
	if len(lost) == 0 {
		return nil
	}
	return s.Store.HandOutAgain(ctx, lost)
}

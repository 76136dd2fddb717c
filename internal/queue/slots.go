package queue

import (
	"context"
	"sync"
	"time"
)

// slots parts a worker's slots so that no class of work can keep all of them: first loads get at most half, and of four or
// more some are kept for what people ask for, which then begins at once even if an ERP leaves every other slot hanging.
func slots(concurrency int) (mixed, noFirstLoads, urgentOnly int) {
	mixed = max(1, concurrency/2)
	if concurrency >= 4 {
		urgentOnly = max(1, concurrency/8)
	}
	return mixed, concurrency - mixed - urgentOnly, urgentOnly
}

// pressureAge is how old the count of waiting tasks may be when a step asks whether to give way.
const pressureAge = 500 * time.Millisecond

// pressure is how many tasks wait in each queue, read when asked for.
type pressure struct {
	mu      sync.Mutex
	readAt  time.Time
	waiting map[Name]int64
}

// urgency lists the queues, most urgent first.
var urgency = []Name{Urgent, Scheduled, FirstLoad}

// GiveWay says whether a step of this queue should end because something more urgent waits for a slot. For each waiting task
// only one step of this process gives way. While Redis does not answer, nobody does.
func (r *Redis) GiveWay(ctx context.Context, of Name) bool {
	p := &r.pressure
	p.mu.Lock()
	defer p.mu.Unlock()
	if time.Since(p.readAt) > pressureAge {
		p.waiting, p.readAt = r.waiting(ctx), time.Now()
	}
	for _, name := range urgency {
		if name == of {
			return false
		}
		if p.waiting[name] > 0 {
			p.waiting[name]--
			return true
		}
	}
	return false
}

func (r *Redis) waiting(ctx context.Context) map[Name]int64 {
	ctx, cancel := context.WithTimeout(ctx, time.Second)
	defer cancel()
	waiting := map[Name]int64{}
	for _, name := range urgency {
		n, err := r.client.LLen(ctx, "asynq:{"+string(name)+"}:pending").Result()
		if err != nil {
			return nil
		}
		waiting[name] = n
	}
	return waiting
}

// Depth is what a queue holds.
type Depth struct {
	Waiting int           // no worker has taken them
	Active  int           // with a worker
	Oldest  time.Duration // how long the oldest of those waiting has waited
}

// Depths of our queues by name.
func (r *Redis) Depths(context.Context) (map[string]Depth, error) {
	depths := map[string]Depth{}
	for _, name := range urgency {
		depths[string(name)] = Depth{}
	}
	known, err := r.inspector.Queues()
	if err != nil {
		return nil, err
	}
	for _, name := range known {
		if _, ours := depths[name]; !ours {
			continue
		}
		info, err := r.inspector.GetQueueInfo(name)
		if err != nil {
			return nil, err
		}
		depths[name] = Depth{Waiting: info.Pending + info.Scheduled + info.Retry, Active: info.Active, Oldest: info.Latency}
	}
	return depths, nil
}

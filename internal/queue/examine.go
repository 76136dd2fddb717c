package queue

import (
	"context"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"
)

// Examination is what a Redis says about itself.
type Examination struct {
	Version     string
	Policy      string // maxmemory-policy
	AppendOnly  bool
	Replica     bool
	Used, Limit int64 // bytes; a limit of 0 is none
	Now         time.Time
	// Strange keys are neither asynq's nor ours, of those Scanned; Databases are other logical ones with something in them, and Queues
	// those of another program.
	Strange, Scanned  int
	Databases, Queues []string
	Paused            []string // of our queues
	Workers           []Worker
}

// Worker is a program that takes tasks from our queues.
type Worker struct {
	Host     string
	PID      int
	Slots    int
	Busy     int
	Stopping bool
}

// scanMost bounds the look for strange keys: an installation of ours has a few thousand.
const scanMost = 200_000

// Examine asks Redis about itself and who works for it. It changes nothing, and asks for no setting, which hosted ones refuse.
func (r *Redis) Examine(ctx context.Context) (Examination, error) {
	var e Examination
	info, err := r.client.Info(ctx).Result()
	if err != nil {
		return e, fmt.Errorf("redis cannot be asked (%w): check REDIS_URL, that the server runs and that its user may call INFO", err)
	}
	var databases []string
	for line := range strings.Lines(info) {
		name, value, _ := strings.Cut(strings.TrimSpace(line), ":")
		switch {
		case name == "redis_version":
			e.Version = value
		case name == "maxmemory_policy":
			e.Policy = value
		case name == "aof_enabled":
			e.AppendOnly = value == "1"
		case name == "role":
			e.Replica = value != "master"
		case name == "used_memory":
			e.Used, _ = strconv.ParseInt(value, 10, 64)
		case name == "maxmemory":
			e.Limit, _ = strconv.ParseInt(value, 10, 64)
		case strings.HasPrefix(name, "db") && strings.HasPrefix(value, "keys="):
			databases = append(databases, strings.TrimPrefix(name, "db"))
		}
	}
	e.Databases = slices.DeleteFunc(databases, func(d string) bool { return d == strconv.Itoa(r.client.Options().DB) })
	if e.Now, err = r.client.Time(ctx).Result(); err != nil {
		return e, fmt.Errorf("redis: ask for the time: %w", err)
	}
	if e.Replica {
		return e, nil // the rest needs scripts, which a replica refuses
	}
	for cursor := uint64(0); ; {
		keys, next, err := r.client.Scan(ctx, cursor, "", 1000).Result()
		if err != nil {
			return e, fmt.Errorf("redis: look at its keys: %w", err)
		}
		e.Scanned += len(keys)
		for _, key := range keys {
			if !strings.HasPrefix(key, "asynq:") && !strings.HasPrefix(key, "contactsync:") {
				e.Strange++
			}
		}
		if cursor = next; cursor == 0 || e.Scanned >= scanMost {
			break
		}
	}
	if err := r.examineQueues(&e); err != nil {
		return e, fmt.Errorf("redis: look at the queues: %w", err)
	}
	return e, nil
}

func (r *Redis) examineQueues(e *Examination) error {
	queues, err := r.inspector.Queues()
	if err != nil {
		return err
	}
	for _, name := range queues {
		if weights[name] == 0 {
			e.Queues = append(e.Queues, name)
			continue
		}
		info, err := r.inspector.GetQueueInfo(name)
		if err != nil {
			return err
		}
		if info.Paused {
			e.Paused = append(e.Paused, name)
		}
	}
	servers, err := r.inspector.Servers()
	if err != nil {
		return err
	}
	for _, s := range servers {
		if s.Queues[string(Urgent)] == 0 { // each part of a worker takes what people asked for
			continue
		}
		i := slices.IndexFunc(e.Workers, func(w Worker) bool { return w.Host == s.Host && w.PID == s.PID })
		if i < 0 {
			i = len(e.Workers)
			e.Workers = append(e.Workers, Worker{Host: s.Host, PID: s.PID})
		}
		w := &e.Workers[i]
		w.Slots, w.Busy, w.Stopping = w.Slots+s.Concurrency, w.Busy+len(s.ActiveWorkers), w.Stopping || s.Status != "active"
	}
	return nil
}

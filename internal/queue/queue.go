// Package queue carries deliveries of runs from the scheduler to the workers. It is the only importer of asynq, and a mere
// wake-up: what is due, done or lost is decided from Postgres, so a task that Redis loses, doubles or keeps does no harm.
package queue

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/hibiken/asynq"
	"github.com/redis/go-redis/v9"
)

// Name of a queue.
type Name string

// The queues, most urgent first: what people asked for, what the schedule asks for, first loads.
const (
	Urgent    Name = "urgent"
	Scheduled Name = "scheduled"
	FirstLoad Name = "first_load"
)

// weights let every queue move while the more urgent ones are served more often.
var weights = map[string]int{string(Urgent): 12, string(Scheduled): 5, string(FirstLoad): 1}

const (
	// taskType has no other type as a prefix; the server matches it whole.
	taskType = "run:step"
	// retries is never reached: the handler always succeeds, and crashes count as tries.
	retries = 1 << 20
)

// A Task is a delivery of a run.
type Task struct {
	Run      int64
	Delivery int
	Queue    Name
}

func (t Task) id() string { return fmt.Sprintf("run:%d:%d", t.Run, t.Delivery) }

// Redis is a connection to the server that holds the queues.
type Redis struct {
	client    *redis.Client
	tasks     *asynq.Client
	inspector *asynq.Inspector
}

// Open reads a redis:// or rediss:// URL. It connects when first used.
func Open(url string) (*Redis, error) {
	// Not asynq.ParseRedisURI, which drops the user name.
	o, err := redis.ParseURL(url)
	if err != nil {
		return nil, errors.New("REDIS_URL cannot be read: use redis://user:password@host:6379/0, or rediss:// for TLS")
	}
	o.ContextTimeoutEnabled = true // otherwise a deadline is ignored while Redis hangs
	o.DialTimeout, o.ReadTimeout, o.WriteTimeout, o.MaxRetries = 3*time.Second, 3*time.Second, 3*time.Second, 1
	o.DisableIdentity = true
	client := redis.NewClient(o)
	return &Redis{client: client, tasks: asynq.NewClientFromRedisClient(client), inspector: asynq.NewInspectorFromRedisClient(client)}, nil
}

// Close ends the connection.
func (r *Redis) Close() error { return r.client.Close() }

// Ping says whether Redis answers.
func (r *Redis) Ping(ctx context.Context) error {
	if err := r.client.Ping(ctx).Err(); err != nil {
		return fmt.Errorf("redis cannot be reached (%w): check REDIS_URL and that the server runs", err)
	}
	return nil
}

// Forget empties our queues, whatever is in them: for a database that begins anew, whose run ids come again.
func (r *Redis) Forget(ctx context.Context) error {
	for name := range weights {
		keys := r.client.Scan(ctx, 0, "asynq:{"+name+"}:*", 1000).Iterator()
		for keys.Next(ctx) {
			if err := r.client.Del(ctx, keys.Val()).Err(); err != nil {
				return fmt.Errorf("empty queue %s: %w", name, err)
			}
		}
		if err := keys.Err(); err != nil {
			return fmt.Errorf("empty queue %s: %w", name, err)
		}
	}
	return nil
}

// Enqueue hands a task out. One that is there already is success; after another error it is unknown whether it is.
func (r *Redis) Enqueue(ctx context.Context, t Task) error {
	payload := strconv.FormatInt(t.Run, 10)
	_, err := r.tasks.EnqueueContext(ctx, asynq.NewTask(taskType, []byte(payload)),
		asynq.TaskID(t.id()), asynq.Queue(string(t.Queue)), asynq.MaxRetry(retries), asynq.Timeout(24*time.Hour))
	if err != nil && !errors.Is(err, asynq.ErrTaskIDConflict) {
		return fmt.Errorf("enqueue run %d: %w", t.Run, err)
	}
	return nil
}

// Waiting says whether a task is in the queue and no worker has taken it. One that a worker took, that was archived, lost or
// never arrived is not.
func (r *Redis) Waiting(_ context.Context, t Task) (bool, error) {
	info, err := r.inspector.GetTaskInfo(string(t.Queue), t.id())
	switch {
	case errors.Is(err, asynq.ErrTaskNotFound), errors.Is(err, asynq.ErrQueueNotFound):
		return false, nil
	case err != nil:
		return false, fmt.Errorf("ask the queue for run %d: %w", t.Run, err)
	}
	switch info.State {
	case asynq.TaskStatePending, asynq.TaskStateScheduled, asynq.TaskStateRetry:
		return true, nil
	case asynq.TaskStateArchived, asynq.TaskStateCompleted:
		// It would block its id for up to 90 days, and nobody needs it.
		_ = r.inspector.DeleteTask(string(t.Queue), t.id())
	}
	return false, nil
}

// Handler works a task; what became of it is in Postgres when it returns.
type Handler func(ctx context.Context, run int64, delivery int)

// Server takes tasks from the queues.
type Server struct {
	asynq    *asynq.Server
	draining chan struct{}
	working  sync.WaitGroup
	log      *slog.Logger
}

// Serve starts to work tasks, at most concurrency at a time. longest bounds one task: then its context ends. Shutdown closes
// draining, upon which handlers are to end soon.
func (r *Redis) Serve(handler Handler, draining chan struct{}, concurrency int, longest time.Duration, log *slog.Logger) (*Server, error) {
	s := &Server{draining: draining, log: log}
	s.asynq = asynq.NewServerFromRedisClient(r.client, asynq.Config{
		Concurrency: concurrency, Queues: weights, TaskCheckInterval: 200 * time.Millisecond, DelayedTaskCheckInterval: time.Second,
		ShutdownTimeout: 5 * time.Second, Logger: logger{log}, LogLevel: asynq.DebugLevel,
		// Only crashes and a Redis that was away too long lead here; the redelivery is Postgres' business.
		RetryDelayFunc: func(int, error, *asynq.Task) time.Duration { return time.Second },
	})
	work := func(ctx context.Context, t *asynq.Task) error {
		s.working.Add(1)
		defer s.working.Done()
		id, _ := asynq.GetTaskID(ctx)
		run, delivery, ok := parseID(id)
		if t.Type() != taskType || !ok {
			log.ErrorContext(ctx, "task of another program in our queue: dropped", "type", t.Type())
			return nil
		}
		ctx, cancel := context.WithTimeout(ctx, longest)
		defer cancel()
		defer func() {
			if p := recover(); p != nil {
				log.ErrorContext(ctx, "step panicked; the scheduler hands the run out again", "run_id", run, "panic", p)
			}
		}()
		handler(ctx, run, delivery)
		return nil
	}
	if err := s.asynq.Start(asynq.HandlerFunc(work)); err != nil {
		return nil, fmt.Errorf("start queue server: %w", err)
	}
	return s, nil
}

func parseID(id string) (run int64, delivery int, ok bool) {
	rest, ours := strings.CutPrefix(id, "run:")
	first, second, two := strings.Cut(rest, ":")
	run, err := strconv.ParseInt(first, 10, 64)
	delivery, err2 := strconv.Atoi(second)
	return run, delivery, ours && two && err == nil && err2 == nil
}

// Shutdown takes no more tasks, lets steps end at their next page, and returns within patience and a little, also if Redis
// hangs. Whatever is unfinished then is found by its lease.
func (s *Server) Shutdown(patience time.Duration) {
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		s.asynq.Stop()
		close(s.draining)
		s.working.Wait()
		s.asynq.Shutdown()
	}()
	select {
	case <-ended:
	case <-time.After(patience):
		s.log.Warn("not everything ended in time; it is handed out again when its lease ends")
	}
}

// logger hands asynq's lines to slog.
type logger struct{ log *slog.Logger }

func (l logger) Debug(args ...any) { l.write(slog.LevelDebug, args) }
func (l logger) Info(args ...any)  { l.write(slog.LevelDebug, args) } // its start and stop are ours to tell
func (l logger) Warn(args ...any)  { l.write(slog.LevelWarn, args) }
func (l logger) Error(args ...any) { l.write(slog.LevelError, args) }
func (l logger) Fatal(args ...any) {
	l.write(slog.LevelError, args)
	os.Exit(1)
}

func (l logger) write(level slog.Level, args []any) {
	l.log.Log(context.Background(), level, "queue server", "says", fmt.Sprint(args...))
}

package queue_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/hibiken/asynq"
	"go.uber.org/goleak"

	"github.com/centime/contactsync/internal/queue"
	"github.com/centime/contactsync/internal/queue/redistest"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// patience bounds what must not take for ever; nothing here waits for its end.
const patience = 30 * time.Second

var quiet = slog.New(slog.DiscardHandler)

func open(t *testing.T, url string) *queue.Redis {
	t.Helper()
	r, err := queue.Open(url)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = r.Close() })
	return r
}

func enqueue(t *testing.T, r *queue.Redis, task queue.Task) {
	t.Helper()
	if err := r.Enqueue(t.Context(), task); err != nil {
		t.Fatal(err)
	}
}

func waits(t *testing.T, r *queue.Redis, task queue.Task, want bool) {
	t.Helper()
	if waiting, err := r.Waiting(t.Context(), task); waiting != want || err != nil {
		t.Errorf("waiting %v, %v; want %v", waiting, err, want)
	}
}

func serve(
	t *testing.T, r *queue.Redis, h queue.Handler, draining chan struct{}, concurrency int, log *slog.Logger,
) *queue.Server {
	t.Helper()
	s, err := r.Serve(t.Context(), h, draining, concurrency, time.Minute, log)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func within(t *testing.T, c <-chan struct{}, what string) {
	t.Helper()
	select {
	case <-c:
	case <-time.After(patience):
		t.Fatalf("%s did not happen", what)
	}
}

// A task arrives once, as it was handed out, and leaves nothing behind.
func TestATaskArrivesOnceAndIsGone(t *testing.T) {
	t.Parallel()
	r := open(t, redistest.New(t).URL)
	task := queue.Task{Run: 7, Delivery: 3, Queue: queue.Urgent}
	enqueue(t, r, task)
	enqueue(t, r, task) // is the same task
	waits(t, r, task, true)

	got := make(chan [2]int64, 10)
	s := serve(t, r, func(_ context.Context, task queue.Task) {
		run, delivery := task.Run, task.Delivery
		got <- [2]int64{run, int64(delivery)}
	}, make(chan struct{}), 2, quiet)
	if g := <-got; g != [2]int64{7, 3} {
		t.Errorf("got %v", g)
	}
	s.Shutdown(patience)
	if len(got) != 0 {
		t.Error("the task came twice")
	}
	waits(t, r, task, false)
	keys, err := r.Client().Keys(t.Context(), "asynq:{urgent}:t:*").Result()
	if err != nil || len(keys) > 0 {
		t.Errorf("left behind %v, %v", keys, err)
	}
}

// All three queues are served, and whoever can read Redis reads ids and nothing else.
func TestPayloadIsAnID(t *testing.T) {
	t.Parallel()
	r := open(t, redistest.New(t).URL)
	for i, name := range []queue.Name{queue.FirstLoad, queue.Scheduled, queue.Urgent} {
		enqueue(t, r, queue.Task{Run: int64(100 + i), Delivery: 1, Queue: name})
		inspector := asynq.NewInspectorFromRedisClient(r.Client())
		info, err := inspector.GetTaskInfo(string(name), fmt.Sprintf("run:%d:1", 100+i))
		if err != nil || string(info.Payload) != fmt.Sprint(100+i) || info.Type != "run:step" || info.Retention != 0 {
			t.Errorf("task %+v, %v", info, err)
		}
	}
	var mu sync.Mutex
	seen := map[int64]bool{}
	all := make(chan struct{})
	s := serve(t, r, func(_ context.Context, task queue.Task) {
		run := task.Run
		mu.Lock()
		defer mu.Unlock()
		if seen[run] = true; len(seen) == 3 {
			close(all)
		}
	}, make(chan struct{}), 1, quiet)
	within(t, all, "serving every queue")
	s.Shutdown(patience)
}

// Postgres is the truth (rule 3): the scheduler can tell a lost task from one that waits, and from not knowing.
func TestWhatRedisLostIsNotWaiting(t *testing.T) {
	t.Parallel()
	server := redistest.Own(t)
	r := open(t, server.URL)
	task := queue.Task{Run: 7, Delivery: 3, Queue: queue.FirstLoad}
	enqueue(t, r, task)
	server.Flush()
	waits(t, r, task, false)

	// A scheduler that lives on hands it out again, and knows that it did.
	task.Delivery++
	enqueue(t, r, task)
	waits(t, r, task, true)

	server.Stop()
	if err := r.Enqueue(t.Context(), task); err == nil {
		t.Error("no error although Redis is away")
	}
	if _, err := r.Waiting(t.Context(), task); err == nil {
		t.Error("Redis is away, and the task is said not to wait: the scheduler would hand everything out again")
	}
	if err := r.Ping(t.Context()); err == nil || !strings.Contains(err.Error(), "REDIS_URL") {
		t.Errorf("ping: %v", err)
	}
}

// A caller's deadline holds while Redis hangs.
func TestDeadlineHoldsWhileRedisHangs(t *testing.T) {
	t.Parallel()
	server := redistest.Own(t)
	r := open(t, server.URL)
	if err := r.Ping(t.Context()); err != nil {
		t.Fatal(err)
	}
	server.Pause()
	defer server.Resume()
	ctx, cancel := context.WithTimeout(t.Context(), 100*time.Millisecond)
	defer cancel()
	start := time.Now()
	err := r.Enqueue(ctx, queue.Task{Run: 7, Delivery: 3, Queue: queue.Urgent})
	if !errors.Is(err, context.DeadlineExceeded) || time.Since(start) > 2*time.Second {
		t.Errorf("after %v: %v", time.Since(start), err)
	}
}

// A step is told of a shutdown, the server waits for it, and takes nothing new.
func TestShutdownEndsSteps(t *testing.T) {
	t.Parallel()
	r := open(t, redistest.New(t).URL)
	started, ended, draining := make(chan struct{}), make(chan struct{}), make(chan struct{})
	next := queue.Task{Run: 1, Delivery: 2, Queue: queue.Urgent}
	s := serve(t, r, func(ctx context.Context, _ queue.Task) {
		close(started) // panics if the next delivery is taken
		<-draining
		if ctx.Err() != nil {
			t.Error("the step's context ended before its page was saved")
		}
		if err := r.Enqueue(ctx, next); err != nil {
			t.Error(err)
		}
		close(ended)
	}, draining, 2, quiet)
	enqueue(t, r, queue.Task{Run: 1, Delivery: 1, Queue: queue.Urgent})
	within(t, started, "the step's start")
	s.Shutdown(patience)
	select {
	case <-ended:
	default:
		t.Error("the server ended before its step")
	}
	waits(t, r, next, true)
}

// Shutdown ends in time, and tells the steps early, while Redis hangs.
func TestShutdownIsBoundedWhenRedisHangs(t *testing.T) {
	t.Parallel()
	server := redistest.Own(t)
	r := open(t, server.URL)
	started, told, draining := make(chan struct{}), make(chan struct{}), make(chan struct{})
	s := serve(t, r, func(context.Context, queue.Task) {
		close(started)
		<-draining
		close(told)
	}, draining, 2, quiet)
	enqueue(t, r, queue.Task{Run: 1, Delivery: 1, Queue: queue.Urgent})
	within(t, started, "the step's start")
	server.Pause()
	start := time.Now()
	s.Shutdown(2 * time.Second)
	if took := time.Since(start); took > 10*time.Second {
		t.Errorf("took %v", took)
	}
	select {
	case <-told:
	default:
		t.Error("the step was not told although there was time")
	}
	// Closing harms nobody who still uses the connection.
	if err := r.Close(); err != nil {
		t.Error(err)
	}
	server.Resume()
	within(t, queue.Ended(s), "the end of a server whose Redis answers again")
}

// A step that is over its time sees its context end.
func TestStepsAreBounded(t *testing.T) {
	t.Parallel()
	r := open(t, redistest.New(t).URL)
	ended := make(chan struct{})
	s, err := r.Serve(t.Context(), func(ctx context.Context, _ queue.Task) {
		<-ctx.Done()
		close(ended)
	}, make(chan struct{}), 1, 20*time.Millisecond, quiet)
	if err != nil {
		t.Fatal(err)
	}
	enqueue(t, r, queue.Task{Run: 1, Delivery: 1, Queue: queue.Urgent})
	within(t, ended, "the end of the step's context")
	s.Shutdown(patience)
}

// A step that panics costs the worker nothing and is not tried again here; its data stay out of the log and of Redis.
func TestPanicIsContained(t *testing.T) {
	t.Parallel()
	r := open(t, redistest.New(t).URL)
	var mu sync.Mutex
	var out bytes.Buffer
	log := slog.New(slog.NewTextHandler(&locked{mu: &mu, to: &out}, &slog.HandlerOptions{Level: slog.LevelDebug}))
	after := make(chan struct{})
	s := serve(t, r, func(_ context.Context, task queue.Task) {
		run := task.Run
		switch run {
		case 1:
			panic("ann@customer.example is no address")
		case 2:
			var none []int
			_ = none[run]
		default:
			close(after)
		}
	}, make(chan struct{}), 1, log)
	for run := range int64(3) {
		task := queue.Task{Run: run + 1, Delivery: 1, Queue: queue.Urgent}
		enqueue(t, r, task)
	}
	within(t, after, "work after a panic")
	s.Shutdown(patience)
	mu.Lock()
	defer mu.Unlock()
	for _, want := range []string{"run_id=1 panic=string", "run_id=2", "index out of range", "queue_test.go"} {
		if !strings.Contains(out.String(), want) {
			t.Errorf("the log lacks %q", want)
		}
	}
	if strings.Contains(out.String(), "customer.example") {
		t.Errorf("the log repeats what the step panicked with:\n%s", out.String())
	}
	keys, err := r.Client().Keys(t.Context(), "asynq:{urgent}:t:*").Result()
	if err != nil || len(keys) > 0 {
		t.Errorf("left behind %v, %v", keys, err)
	}
}

type locked struct {
	mu *sync.Mutex
	to *bytes.Buffer
}

func (l *locked) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.to.Write(p)
}

// Only our own type of task reaches the handler, not one whose name begins with it; strange ones are dropped.
func TestStrangeTasks(t *testing.T) {
	t.Parallel()
	r := open(t, redistest.New(t).URL)
	client := asynq.NewClientFromRedisClient(r.Client())
	for id, kind := range map[string]string{
		"run:1:1": "run:stepping", "mail:1:1": "run:step", "run:x:1": "run:step", "run:2": "run:step",
	} {
		_, err := client.EnqueueContext(t.Context(), asynq.NewTask(kind, nil), asynq.TaskID(id), asynq.Queue("urgent"))
		if err != nil {
			t.Fatal(err)
		}
	}
	enqueue(t, r, queue.Task{Run: 9, Delivery: 1, Queue: queue.Urgent})
	ours := make(chan struct{})
	s := serve(t, r, func(_ context.Context, task queue.Task) {
		run := task.Run
		if run != 9 {
			t.Errorf("run %d was taken for ours", run)
			return
		}
		close(ours)
	}, make(chan struct{}), 1, quiet)
	within(t, ours, "our task behind the strange ones")
	s.Shutdown(patience)
}

// Tasks that nobody will work are found: archived ones, and those whose lease got lost. Others stay.
func TestSweep(t *testing.T) {
	t.Parallel()
	r := open(t, redistest.New(t).URL)
	client := r.Client()
	waiting := queue.Task{Run: 1, Delivery: 1, Queue: queue.Scheduled}
	archived := queue.Task{Run: 2, Delivery: 1, Queue: queue.Scheduled}
	stuck := queue.Task{Run: 3, Delivery: 1, Queue: queue.Urgent}
	leased := queue.Task{Run: 4, Delivery: 1, Queue: queue.Urgent}
	for _, task := range []queue.Task{waiting, archived, stuck, leased} {
		enqueue(t, r, task)
	}
	if err := asynq.NewInspectorFromRedisClient(client).ArchiveTask("scheduled", "run:2:1"); err != nil {
		t.Fatal(err)
	}
	for range 2 { // what asynq does when a worker takes a task
		id, err := client.LMove(t.Context(), "asynq:{urgent}:pending", "asynq:{urgent}:active", "RIGHT", "LEFT").Result()
		if err != nil {
			t.Fatal(err)
		}
		client.HSet(t.Context(), "asynq:{urgent}:t:"+id, "state", "active")
	}
	client.ZAdd(t.Context(), "asynq:{urgent}:lease", queue.Lease("run:4:1", time.Now().Add(time.Minute)))

	for _, want := range []int{2, 0} {
		if n, err := r.Sweep(t.Context()); n != want || err != nil {
			t.Errorf("swept %d, %v; want %d", n, err, want)
		}
	}
	waits(t, r, waiting, true)
	left, err := client.Keys(t.Context(), "asynq:*:t:*").Result()
	if err != nil || len(left) != 2 {
		t.Errorf("left %v, %v; want runs 1 and 4", left, err)
	}
	// Their ids are free again.
	enqueue(t, r, archived)
	waits(t, r, archived, true)
}

func TestURLsAreChecked(t *testing.T) {
	t.Parallel()
	for _, url := range []string{
		"", "postgres://x", "redis://:hunter2@h:port", "redis://:hunter2@h/first", "localhost:6379",
	} {
		_, err := queue.Open(url)
		if err == nil || !strings.Contains(err.Error(), "REDIS_URL") || strings.Contains(err.Error(), "hunter2") {
			t.Errorf("%q: %v", url, err)
		}
	}
	r := open(t, "rediss://worker:hunter2@h:6380/3")
	o := r.Client().Options()
	if o.Username != "worker" || o.TLSConfig == nil || o.DB != 3 || !o.ContextTimeoutEnabled {
		t.Errorf("user %q, TLS %v, database %d", o.Username, o.TLSConfig != nil, o.DB)
	}
}

// An id is ours or not, and reads back as it was written.
func FuzzParseID(f *testing.F) {
	for _, id := range []string{
		"run:1:1", "run::", "run:1", "run:1:1:1", "mail:1:1", "run:-1:9223372036854775807", "run:+1:01",
	} {
		f.Add(id)
	}
	f.Fuzz(func(t *testing.T, id string) {
		if run, delivery, ok := queue.ParseID(id); ok && id != fmt.Sprintf("run:%d:%d", run, delivery) {
			t.Errorf("%q was read as run %d, delivery %d", id, run, delivery)
		}
	})
}

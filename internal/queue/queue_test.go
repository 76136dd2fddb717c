package queue_test

import (
	"context"
	"log/slog"
	"testing"
	"time"

	"github.com/centime/contactsync/internal/queue"
	"github.com/centime/contactsync/internal/queue/redistest"
)

func open(t *testing.T, url string) *queue.Redis {
	t.Helper()
	r, err := queue.Open(url)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = r.Close() })
	return r
}

func TestATaskArrivesOnceAndIsGone(t *testing.T) {
	t.Parallel()
	r := open(t, redistest.New(t).URL)
	task := queue.Task{Run: 7, Delivery: 3, Queue: queue.Urgent}
	for range 2 { // the second is the same task
		if err := r.Enqueue(t.Context(), task); err != nil {
			t.Fatal(err)
		}
	}
	if waiting, err := r.Waiting(t.Context(), task); !waiting || err != nil {
		t.Errorf("waiting %v, %v", waiting, err)
	}
	got := make(chan [2]int64, 10)
	s, err := r.Serve(func(_ context.Context, run int64, delivery int) { got <- [2]int64{run, int64(delivery)} }, make(chan struct{}), 2, time.Minute, slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	if g := <-got; g != [2]int64{7, 3} {
		t.Errorf("got %v", g)
	}
	s.Shutdown(10 * time.Second)
	if len(got) != 0 {
		t.Error("the task came twice")
	}
	if waiting, err := r.Waiting(t.Context(), task); waiting || err != nil {
		t.Errorf("after the work: waiting %v, %v", waiting, err)
	}
}

// TestWhatRedisLostIsNotWaiting guards rule 3: the scheduler can tell a lost task from one that waits.
func TestWhatRedisLostIsNotWaiting(t *testing.T) {
	t.Parallel()
	server := redistest.Own(t)
	r := open(t, server.URL)
	task := queue.Task{Run: 7, Delivery: 3, Queue: queue.FirstLoad}
	if err := r.Enqueue(t.Context(), task); err != nil {
		t.Fatal(err)
	}
	server.Flush()
	if waiting, err := r.Waiting(t.Context(), task); waiting || err != nil {
		t.Errorf("waiting %v, %v", waiting, err)
	}
	server.Stop()
	if err := r.Enqueue(t.Context(), task); err == nil {
		t.Error("no error although Redis is away")
	}
	if _, err := r.Waiting(t.Context(), task); err == nil {
		t.Error("Redis is away, and the task is said not to wait: the scheduler would hand everything out again")
	}
}

// TestShutdownEndsSteps: a step is told, and the server waits for it.
func TestShutdownEndsSteps(t *testing.T) {
	t.Parallel()
	r := open(t, redistest.New(t).URL)
	started, ended := make(chan struct{}), make(chan struct{})
	draining := make(chan struct{})
	s, err := r.Serve(func(context.Context, int64, int) {
		close(started)
		<-draining
		close(ended)
	}, draining, 1, time.Minute, slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	if err := r.Enqueue(t.Context(), queue.Task{Run: 1, Delivery: 1, Queue: queue.Urgent}); err != nil {
		t.Fatal(err)
	}
	<-started
	s.Shutdown(20 * time.Second)
	select {
	case <-ended:
	default:
		t.Error("the server ended before its step")
	}
}

func TestShutdownIsBoundedWhenRedisHangs(t *testing.T) {
	t.Parallel()
	server := redistest.Own(t)
	r := open(t, server.URL)
	s, err := r.Serve(func(context.Context, int64, int) {}, make(chan struct{}), 1, time.Minute, slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	server.Pause()
	done := make(chan struct{})
	go func() { s.Shutdown(time.Second); close(done) }()
	select {
	case <-done:
	case <-time.After(30 * time.Second):
		t.Error("still not ended")
	}
	server.Resume()
}

func TestURLsAreChecked(t *testing.T) {
	t.Parallel()
	if _, err := queue.Open("postgres://x"); err == nil {
		t.Error("taken")
	}
}

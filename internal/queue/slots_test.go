package queue_test

import (
	"context"
	"sync"
	"testing"
	"time"

	"github.com/centime/contactsync/internal/queue"
	"github.com/centime/contactsync/internal/queue/redistest"
)

// However many slots a worker has, first loads get at most half of them, all are used, and with four or more people never
// wait for one.
func TestSlots(t *testing.T) {
	t.Parallel()
	for n := 1; n <= 1000; n++ {
		mixed, noFirstLoads, urgentOnly := queue.Slots(n)
		switch {
		case mixed+noFirstLoads+urgentOnly != n, mixed < 1, noFirstLoads < 0:
			t.Errorf("%d slots are parted into %d, %d, %d", n, mixed, noFirstLoads, urgentOnly)
		case n > 1 && mixed > n/2:
			t.Errorf("first loads get %d of %d slots", mixed, n)
		case n >= 4 && urgentOnly < 1:
			t.Errorf("none of %d slots is kept for what is urgent", n)
		}
	}
}

// crowd works tasks that go on until the test lets them, and counts who works.
type crowd struct {
	mu      sync.Mutex
	working map[queue.Name]int
	most    int // first loads at once
	leave   chan struct{}
	began   chan queue.Task
}

func (c *crowd) work(_ context.Context, t queue.Task) {
	c.mu.Lock()
	c.working[t.Queue]++
	c.most = max(c.most, c.working[queue.FirstLoad])
	c.mu.Unlock()
	c.began <- t
	<-c.leave
	c.mu.Lock()
	c.working[t.Queue]--
	c.mu.Unlock()
}

// With 100 first loads waiting, the schedule still gets its share; with every other slot busy for good, a person's task begins.
func TestFirstLoadsLeaveRoom(t *testing.T) {
	t.Parallel()
	r := open(t, redistest.New(t).URL)
	for run := range int64(100) {
		enqueue(t, r, queue.Task{Run: run + 1, Delivery: 1, Queue: queue.FirstLoad})
	}
	c := &crowd{working: map[queue.Name]int{}, leave: make(chan struct{}), began: make(chan queue.Task, 200)}
	s := serve(t, r, c.work, make(chan struct{}), 8, quiet)
	next := func(want queue.Name) {
		t.Helper()
		select {
		case task := <-c.began:
			if task.Queue != want {
				t.Fatalf("a task of %s began, want one of %s", task.Queue, want)
			}
		case <-time.After(patience):
			t.Fatalf("no task of %s began", want)
		}
	}
	for range 4 {
		next(queue.FirstLoad)
	}
	for run := range int64(20) {
		enqueue(t, r, queue.Task{Run: 200 + run, Delivery: 1, Queue: queue.Scheduled})
	}
	for range 3 {
		next(queue.Scheduled)
	}
	enqueue(t, r, queue.Task{Run: 300, Delivery: 1, Queue: queue.Urgent})
	next(queue.Urgent)
	if c.most != 4 {
		t.Errorf("%d first loads were worked at once in 8 slots, want 4", c.most)
	}
	close(c.leave)
	s.Shutdown(patience)
}

// A step gives way to what is more urgent, once for each task that waits, and never to what is less.
func TestGiveWay(t *testing.T) {
	t.Parallel()
	r := open(t, redistest.New(t).URL)
	ask := func(of queue.Name, want bool) {
		t.Helper()
		if got := r.GiveWay(t.Context(), of); got != want {
			t.Errorf("a step of %s gives way: %v, want %v", of, got, want)
		}
	}
	enqueue(t, r, queue.Task{Run: 1, Delivery: 1, Queue: queue.Scheduled})
	enqueue(t, r, queue.Task{Run: 2, Delivery: 1, Queue: queue.Urgent})
	enqueue(t, r, queue.Task{Run: 3, Delivery: 1, Queue: queue.FirstLoad})
	ask(queue.Urgent, false)
	ask(queue.Scheduled, true)
	ask(queue.Scheduled, false)
	ask(queue.FirstLoad, true)
	ask(queue.FirstLoad, false)

	depths, err := r.Depths(t.Context())
	if err != nil || depths["urgent"].Waiting != 1 || depths["first_load"].Waiting != 1 || len(depths) != 3 {
		t.Errorf("depths are %+v, %v", depths, err)
	}
}

// While Redis does not answer, steps go on.
func TestNobodyGivesWayToAHungRedis(t *testing.T) {
	t.Parallel()
	server := redistest.Own(t)
	r := open(t, server.URL)
	enqueue(t, r, queue.Task{Run: 1, Delivery: 1, Queue: queue.Urgent})
	server.Pause()
	if r.GiveWay(t.Context(), queue.FirstLoad) {
		t.Error("a step gave way to it knows not what")
	}
}

// The delivery of a run whose step gave way is not there to be drawn while the freed slot looks for what it was freed for.
func TestWhoGaveWayStandsBack(t *testing.T) {
	t.Parallel()
	r := open(t, redistest.New(t).URL)
	load := queue.Task{Run: 1, Delivery: 2, Queue: queue.FirstLoad, StandBack: true}
	enqueue(t, r, load)
	if n, err := r.Client().LLen(t.Context(), "asynq:{first_load}:pending").Result(); n != 0 || err != nil {
		t.Errorf("%d tasks can be taken, %v", n, err)
	}
	waits(t, r, load, true) // so that the scheduler does not take it for lost
	came := make(chan int64)
	s := serve(t, r, func(_ context.Context, task queue.Task) { came <- task.Run }, make(chan struct{}), 1, quiet)
	if run := <-came; run != 1 {
		t.Errorf("run %d came", run)
	}
	s.Shutdown(patience)
}

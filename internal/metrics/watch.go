package metrics

import (
	"context"
	"database/sql"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/centime/contactsync/internal/postgres"
	"github.com/centime/contactsync/internal/queue"
)

const (
	// freshness is how old what is shown may be: scraping more often costs no more.
	freshness = 10 * time.Second
	// patience is how long a scrape waits for a reading; the reading itself is told to end by then, and may not obey.
	patience = 4 * time.Second
)

// reading is a value that is read when it is asked for, at most once a freshness and one at a time: a read that hangs costs
// one goroutine, however often it is asked for.
type reading[T any] struct {
	read      func(context.Context) (T, error)
	freshness time.Duration

	mu      sync.Mutex
	value   T
	err     error
	ended   time.Time     // the last read; a failed one counts
	running chan struct{} // closed when the read under way ends; nil: none is
}

// get returns the value, or the error of reading it. It takes at most patience; then the error is errSlow.
func (r *reading[T]) get() (T, error) {
	r.mu.Lock()
	if r.running == nil && (r.ended.IsZero() || time.Since(r.ended) >= r.freshness) {
		r.running = make(chan struct{})
		go r.readNow(r.running)
	}
	running := r.running
	r.mu.Unlock()
	if running != nil {
		timeout := time.NewTimer(patience)
		defer timeout.Stop()
		select {
		case <-running:
		case <-timeout.C:
			var none T
			return none, errSlow
		}
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.value, r.err
}

func (r *reading[T]) readNow(running chan struct{}) {
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	value, err := r.read(ctx)
	r.mu.Lock()
	defer r.mu.Unlock()
	r.value, r.err, r.ended, r.running = value, err, time.Now(), nil
	close(running)
}

func describe(name, help string, labels ...string) *prometheus.Desc {
	return prometheus.NewDesc("contactsync_"+name, help, labels, nil)
}

// watched shows what is read when scraped, and up: 1 if it could be read, else 0 and nothing else.
type watched[T any] struct {
	reading *reading[T]
	up      *prometheus.Desc
	descs   []*prometheus.Desc
	show    func(value T, send func(desc *prometheus.Desc, v float64, labels ...string))
}

func (w *watched[T]) Describe(out chan<- *prometheus.Desc) {
	out <- w.up
	for _, d := range w.descs {
		out <- d
	}
}

func (w *watched[T]) Collect(out chan<- prometheus.Metric) {
	send := func(desc *prometheus.Desc, v float64, labels ...string) {
		out <- prometheus.MustNewConstMetric(desc, prometheus.GaugeValue, v, labels...)
	}
	value, err := w.reading.get()
	if err != nil {
		send(w.up, 0)
		return
	}
	send(w.up, 1)
	w.show(value, send)
}

// What the fleet shows.
var (
	fleetUp = describe("fleet_up",
		"1: the state of all connections could be read from Postgres. 0: look at Postgres; nothing else of the fleet is shown.")
	connections = describe("connections",
		"Connections by state. needs_attention: a person must act, see syncctl status.", "erp", "state")
	stale = describe("connections_stale",
		"Connections not read for two due times, by why: late (the schedule should have), manual, paused, needs_attention.", "erp", "why")
	suspect = describe("connections_suspect",
		"Connections whose runs succeed and are not right, by why: reads_nothing, misses_changes, issues_grow. See syncctl status.", "erp", "why")
	lastFailed = describe("connections_last_failed",
		"Active connections whose last run failed. If most are, look at the ERP and the environment.", "erp")
	oldestSuccess = describe("oldest_success_age_seconds",
		"How long ago the connection that was read the longest ago was read, of active ones with a schedule.", "erp")
	unfinished = describe("runs_unfinished", "Runs that have not ended, by status.", "erp", "status")
	unclaimed  = describe("oldest_unclaimed_run_age_seconds",
		"How long a run that is ready has waited for a worker. If it grows, no worker works.", "erp")
	holds = describe("holds_open", "Holds that wait for a person: what would go looks like an accident.", "erp")
	held  = describe("held_customer_contacts",
		"Customer contacts that open holds keep from going; they still get mail.", "erp")
	oldestHold = describe("oldest_hold_age_seconds",
		"How long the oldest open hold has waited; 0: none is open.", "erp")
	issues       = describe("issues_open", "What is wrong with records now, see syncctl issue list.", "erp")
	loginsEnding = describe("logins_ending",
		"Logins of active and paused connections that end soon: those customers must connect again. notice: 60 days for a certificate or a token's five years, 14 for a token that is not renewed.",
		"erp", "within")
	loginLeft = describe("login_left_seconds",
		"How long the login that ends first still works; below 0: it has ended.", "erp")
	meteredCalls = describe("metered_calls_month",
		"Data requests of this calendar month (UTC), of all connections together.", "erp")
	pauseAge = describe("erp_pause_age_seconds",
		"How long the ERP's schedule has waited because the ERP refuses this installation; 0: it goes on.", "erp")
	queuesUp = describe("queues_up",
		"1: the queues could be read from Redis. 0: look at Redis; runs wait in Postgres meanwhile.")
	queueTasks = describe("queue_tasks",
		"Tasks by queue: waiting for a worker, or active with one. If the waiting ones grow, start more workers.", "queue", "state")
	queueOldestAge = describe("queue_oldest_waiting_age_seconds",
		"How long the oldest waiting task has waited; 0: none waits.", "queue")
)

// WatchFleet shows what read returns, at most 10 s old. To be called once, and by schedulers only.
func (m *Metrics) WatchFleet(read func(ctx context.Context) (postgres.Fleet, error)) {
	if m == nil {
		return
	}
	m.registry.MustRegister(&watched[postgres.Fleet]{
		reading: &reading[postgres.Fleet]{read: read, freshness: freshness},
		up:      fleetUp,
		descs: []*prometheus.Desc{
			connections, stale, suspect, lastFailed, oldestSuccess, unfinished, unclaimed, holds, held, oldestHold, issues, loginsEnding, loginLeft,
			meteredCalls, pauseAge,
		},
		show: func(fleet postgres.Fleet, send func(*prometheus.Desc, float64, ...string)) {
			for _, f := range fleet {
				send(connections, float64(f.Active), f.ERP, "active")
				send(connections, float64(f.Paused), f.ERP, "paused")
				send(connections, float64(f.NeedsAttention), f.ERP, "needs_attention")
				send(stale, float64(f.StaleLate), f.ERP, "late")
				send(stale, float64(f.StaleManual), f.ERP, "manual")
				send(stale, float64(f.StalePaused), f.ERP, "paused")
				send(stale, float64(f.StaleNeedsAttention), f.ERP, "needs_attention")
				send(suspect, float64(f.ReadNothing), f.ERP, "reads_nothing")
				send(suspect, float64(f.MissChanges), f.ERP, "misses_changes")
				send(suspect, float64(f.IssuesGrowing), f.ERP, "issues_grow")
				send(lastFailed, float64(f.LastFailed), f.ERP)
				send(oldestSuccess, f.OldestSuccess.Seconds(), f.ERP)
				send(unfinished, float64(f.Queued), f.ERP, "queued")
				send(unfinished, float64(f.Running), f.ERP, "running")
				send(unfinished, float64(f.Waiting), f.ERP, "waiting")
				send(unclaimed, f.OldestUnclaimed.Seconds(), f.ERP)
				send(holds, float64(f.Holds), f.ERP)
				send(held, float64(f.Held), f.ERP)
				send(oldestHold, f.OldestHold.Seconds(), f.ERP)
				send(issues, float64(f.Issues), f.ERP)
				send(loginsEnding, float64(f.LoginsNoticed), f.ERP, "notice")
				send(loginsEnding, float64(f.LoginsIn14Days), f.ERP, "14d")
				send(loginsEnding, float64(f.LoginsIn3Days), f.ERP, "3d")
				if f.LoginLeft != nil {
					send(loginLeft, f.LoginLeft.Seconds(), f.ERP)
				}
				send(meteredCalls, float64(f.MeteredCalls), f.ERP)
				send(pauseAge, f.PausedFor.Seconds(), f.ERP)
			}
		},
	})
}

// WatchQueues shows what read returns by queue, at most 10 s old. To be called once.
func (m *Metrics) WatchQueues(read func(ctx context.Context) (map[string]queue.Depth, error)) {
	if m == nil {
		return
	}
	m.registry.MustRegister(&watched[map[string]queue.Depth]{
		reading: &reading[map[string]queue.Depth]{read: read, freshness: freshness},
		up:      queuesUp,
		descs:   []*prometheus.Desc{queueTasks, queueOldestAge},
		show: func(depths map[string]queue.Depth, send func(*prometheus.Desc, float64, ...string)) {
			for name, d := range depths {
				send(queueTasks, float64(d.Waiting), name, "waiting")
				send(queueTasks, float64(d.Active), name, "active")
				send(queueOldestAge, d.Oldest.Seconds(), name)
			}
		},
	})
}

// DB is a pool of connections, such as a *sql.DB.
type DB interface{ Stats() sql.DBStats }

// WatchDB shows a pool of connections. To be called once for each name.
func (m *Metrics) WatchDB(name string, db DB) {
	if m == nil {
		return
	}
	label := prometheus.Labels{"db": name}
	desc := func(name, help string, labels ...string) *prometheus.Desc {
		return prometheus.NewDesc("contactsync_db_"+name, help, labels, label)
	}
	m.registry.MustRegister(&pool{
		db:    db,
		open:  desc("connections", "Connections to Postgres, in use and idle.", "state"),
		limit: desc("connections_max", "How many connections to Postgres there may be; 0: no limit."),
		waits: desc("connection_waits_total",
			"How often one had to wait for a connection. If it grows, the pool is too small or Postgres is slow."),
		waited: desc("connection_wait_seconds_total", "How long that took."),
	})
}

type pool struct {
	db                         DB
	open, limit, waits, waited *prometheus.Desc
}

func (p *pool) Describe(out chan<- *prometheus.Desc) {
	for _, d := range []*prometheus.Desc{p.open, p.limit, p.waits, p.waited} {
		out <- d
	}
}

func (p *pool) Collect(out chan<- prometheus.Metric) {
	s := p.db.Stats()
	out <- prometheus.MustNewConstMetric(p.open, prometheus.GaugeValue, float64(s.InUse), "in_use")
	out <- prometheus.MustNewConstMetric(p.open, prometheus.GaugeValue, float64(s.Idle), "idle")
	out <- prometheus.MustNewConstMetric(p.limit, prometheus.GaugeValue, float64(s.MaxOpenConnections))
	out <- prometheus.MustNewConstMetric(p.waits, prometheus.CounterValue, float64(s.WaitCount))
	out <- prometheus.MustNewConstMetric(p.waited, prometheus.CounterValue, s.WaitDuration.Seconds())
}

// Package metrics counts what happens and serves it to Prometheus. It is the only importer of prometheus/client_golang.
package metrics

import (
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"
)

// Metrics of one process. All methods may be called at once, and do nothing on a nil *Metrics. A series appears with its
// first use, so a worker does not show what only schedulers know, and none has a label of a tenant, connection or run.
type Metrics struct {
	registry *prometheus.Registry

	step, page, run, startDelay            *prometheus.HistogramVec
	runs, waits, records, calls, leaseLost *prometheus.CounterVec

	queued, handedOut, deliveriesLost, removed, failedTicks *prometheus.CounterVec
	tick                                                    *prometheus.HistogramVec
	lastTick, allowance                                     *prometheus.GaugeVec
}

// New returns metrics with those of the process and of the Go runtime.
func New() *Metrics {
	m := &Metrics{registry: prometheus.NewRegistry()}
	m.registry.MustRegister(collectors.NewGoCollector(), collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}))

	m.step = m.histogram("step_duration_seconds", "How long steps of runs took. Longer than STEP and a page: an ERP answers slowly.",
		[]float64{0.1, 0.25, 0.5, 1, 2.5, 5, 10, 20, 30, 60, 90, 120, 180}, "erp")
	m.page = m.histogram("page_save_duration_seconds", "How long saving a page took. If it grows, look at Postgres.",
		[]float64{0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30}, "erp")
	m.run = m.histogram("run_duration_seconds", "How long runs took from their first claim to their end, waits included.",
		[]float64{1, 2, 5, 10, 30, 60, 120, 300, 600, 1800, 3600, 7200, 14400}, "erp", "mode", "outcome")
	m.startDelay = m.histogram("run_start_delay_seconds",
		"How long runs that were ready waited for a worker. If it grows, start more workers; manual ones are to begin within 5 s.",
		[]float64{0.1, 0.5, 1, 2, 5, 10, 30, 60, 300, 900, 3600}, "trigger")
	m.runs = m.counter("runs_total", "Runs that ended. For the failed ones, syncctl run list --status failed says why.",
		"erp", "mode", "trigger", "outcome", "kind")
	m.waits = m.counter("waits_total", "Steps that ended in a wait: throttled by the ERP, our own budget, a transient error.", "erp", "cause")
	m.records = m.counter("records_total", "What became of records read, and of customer contacts that were to go.", "erp", "outcome")
	m.calls = m.counter("erp_calls_total", "Data requests to ERPs, which some ERPs charge by.", "erp")
	m.leaseLost = m.counter("lease_losses_total",
		"Steps whose worker lost its run. A few after a crash are normal; if they go on, workers stall or LEASE is too short.", "erp")

	m.queued = m.counter("runs_queued_total", "Runs that the schedule queued.")
	m.handedOut = m.counter("deliveries_total", "Deliveries of runs to the queue.")
	m.deliveriesLost = m.counter("deliveries_lost_total",
		"Deliveries that were handed out again. If it goes on, Redis loses tasks or workers die.")
	m.removed = m.counter("removed_rows_total", "Old rows that were removed.", "what")
	m.tick = m.histogram("tick_duration_seconds", "How long the scheduler's ticks took. Longer than TICK: runs start late.",
		[]float64{0.01, 0.05, 0.1, 0.5, 1, 2, 5, 10, 30})
	m.failedTicks = m.counter("tick_failures_total", "Ticks that failed; the next one tries again. The scheduler's log says why.")
	m.lastTick = m.gauge("last_tick_timestamp_seconds", "When the scheduler's last tick succeeded. Long ago: nothing is queued any more.")
	m.allowance = m.gauge("metered_calls_month_allowance",
		"How many metered calls a month the ERP allows all connections together; compare contactsync_metered_calls_month.", "erp")
	return m
}

func (m *Metrics) counter(name, help string, labels ...string) *prometheus.CounterVec {
	c := prometheus.NewCounterVec(prometheus.CounterOpts{Namespace: "contactsync", Name: name, Help: help}, labels)
	m.registry.MustRegister(c)
	return c
}

func (m *Metrics) gauge(name, help string, labels ...string) *prometheus.GaugeVec {
	g := prometheus.NewGaugeVec(prometheus.GaugeOpts{Namespace: "contactsync", Name: name, Help: help}, labels)
	m.registry.MustRegister(g)
	return g
}

func (m *Metrics) histogram(name, help string, buckets []float64, labels ...string) *prometheus.HistogramVec {
	h := prometheus.NewHistogramVec(prometheus.HistogramOpts{Namespace: "contactsync", Name: name, Help: help, Buckets: buckets}, labels)
	m.registry.MustRegister(h)
	return h
}

// StepEnded tells the end of a step, whatever came of it.
func (m *Metrics) StepEnded(erp string, d time.Duration) {
	if m == nil {
		return
	}
	m.step.WithLabelValues(erp).Observe(d.Seconds())
	m.leaseLost.WithLabelValues(erp).Add(0) // a first loss is seen as a rise only if there was a 0 before it
}

// PageSaved tells how long the transaction of a page took.
func (m *Metrics) PageSaved(erp string, d time.Duration) {
	if m == nil {
		return
	}
	m.page.WithLabelValues(erp).Observe(d.Seconds())
}

// RunEnded tells the end of a run, d after it was started: its outcome is succeeded, failed or cancelled; kind is that of its
// error, or empty.
func (m *Metrics) RunEnded(erp, mode, trigger, outcome, kind string, d time.Duration) {
	if m == nil {
		return
	}
	m.runs.WithLabelValues(erp, mode, trigger, outcome, kind).Inc()
	m.run.WithLabelValues(erp, mode, outcome).Observe(d.Seconds())
}

// StartDelay tells how long a run that was ready waited for its first claim.
func (m *Metrics) StartDelay(trigger string, d time.Duration) {
	if m == nil {
		return
	}
	m.startDelay.WithLabelValues(trigger).Observe(d.Seconds())
}

// Waited tells that a step ended in a wait, because of throttled, budget or transient.
func (m *Metrics) Waited(erp, cause string) {
	if m == nil {
		return
	}
	m.waits.WithLabelValues(erp, cause).Inc()
}

// Records tells what became of n records (created, updated, unchanged, ignored, refused) or of n customer contacts that
// were to go (deactivated, held).
func (m *Metrics) Records(erp, outcome string, n int) {
	if m == nil {
		return
	}
	m.records.WithLabelValues(erp, outcome).Add(float64(n))
}

// Calls tells n data requests.
func (m *Metrics) Calls(erp string, n int) {
	if m == nil {
		return
	}
	m.calls.WithLabelValues(erp).Add(float64(n))
}

// LeaseLost tells that a step lost its run to another worker, or could not hold it.
func (m *Metrics) LeaseLost(erp string) {
	if m == nil {
		return
	}
	m.leaseLost.WithLabelValues(erp).Inc()
}

// Queued tells that the schedule queued n runs.
func (m *Metrics) Queued(n int) {
	if m == nil {
		return
	}
	m.queued.WithLabelValues().Add(float64(n))
}

// HandedOut tells n deliveries to the queue.
func (m *Metrics) HandedOut(n int) {
	if m == nil {
		return
	}
	m.handedOut.WithLabelValues().Add(float64(n))
}

// DeliveriesLost tells n deliveries that are handed out again.
func (m *Metrics) DeliveriesLost(n int) {
	if m == nil {
		return
	}
	m.deliveriesLost.WithLabelValues().Add(float64(n))
}

// Removed tells that n old rows of a kind were removed.
func (m *Metrics) Removed(what string, n int) {
	if m == nil {
		return
	}
	m.removed.WithLabelValues(what).Add(float64(n))
}

// TickEnded tells a tick of the scheduler.
func (m *Metrics) TickEnded(d time.Duration, err error) {
	if m == nil {
		return
	}
	m.tick.WithLabelValues().Observe(d.Seconds())
	for _, c := range []*prometheus.CounterVec{m.queued, m.handedOut, m.deliveriesLost, m.failedTicks} {
		c.WithLabelValues().Add(0)
	}
	if err != nil {
		m.failedTicks.WithLabelValues().Inc()
		return
	}
	m.lastTick.WithLabelValues().SetToCurrentTime()
}

// Allowance tells how many metered calls a month an ERP allows all connections together.
func (m *Metrics) Allowance(erp string, calls int64) {
	if m == nil {
		return
	}
	m.allowance.WithLabelValues(erp).Set(float64(calls))
}

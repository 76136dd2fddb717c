package metrics_test

import (
	"bytes"
	"context"
	"database/sql"
	"encoding/json"
	"errors"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/prometheus/client_golang/prometheus/testutil/promlint"
	dto "github.com/prometheus/client_model/go"
	"github.com/prometheus/common/expfmt"
	"github.com/prometheus/common/model"
	"go.uber.org/goleak"

	"github.com/centime/contactsync/internal/metrics"
	"github.com/centime/contactsync/internal/postgres"
	"github.com/centime/contactsync/internal/queue"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

type pool struct{}

func (pool) Stats() sql.DBStats {
	return sql.DBStats{MaxOpenConnections: 10, InUse: 3, Idle: 2, WaitCount: 7, WaitDuration: 1500 * time.Millisecond}
}

func ready(context.Context) error { return nil }

// full returns metrics into which everything was told.
func full() *metrics.Metrics {
	m := metrics.New()
	m.StepEnded("erp", 2*time.Second)
	m.PageSaved("erp", 20*time.Millisecond)
	m.RunEnded("erp", "full", "manual", "failed", "denied", time.Minute)
	m.StartDelay("manual", time.Second)
	m.Waited("erp", "throttled")
	m.Records("erp", "created", 5)
	m.Calls("erp", 4)
	m.LeaseLost("erp")
	m.Queued(3)
	m.HandedOut(2)
	m.DeliveriesLost(1)
	m.Removed("runs", 9)
	m.TickEnded(time.Second, nil)
	m.TickEnded(time.Second, errors.New("no"))
	m.Allowance("erp", 1000)
	left := 36 * time.Hour
	m.WatchFleet(func(context.Context) (postgres.Fleet, error) {
		return postgres.Fleet{{
			ERP: "erp", Active: 11, Paused: 12, NeedsAttention: 13, StaleLate: 14, StaleManual: 15, StalePaused: 16, StaleNeedsAttention: 17,
			LastFailed: 18, OldestSuccess: 19 * time.Second, Queued: 20, Running: 21, Waiting: 22, OldestUnclaimed: 23 * time.Second,
			Holds: 24, Held: 25, OldestHold: 26 * time.Second, Issues: 27, LoginsNoticed: 38, LoginsIn14Days: 28, LoginsIn3Days: 29, LoginLeft: &left,
			MeteredCalls: 30, PausedFor: 31 * time.Second, ReadNothing: 35, MissChanges: 36, IssuesGrowing: 37,
		}}, nil
	})
	m.WatchQueues(func(context.Context) (map[string]queue.Depth, error) {
		return map[string]queue.Depth{string(queue.Urgent): {Waiting: 32, Active: 33, Oldest: 34 * time.Second}}, nil
	})
	m.WatchDB("main", pool{})
	return m
}

// get asks a handler and returns the status and the body.
func get(t *testing.T, h http.Handler, path string) (int, string) {
	t.Helper()
	answer := httptest.NewRecorder()
	h.ServeHTTP(answer, httptest.NewRequestWithContext(t.Context(), http.MethodGet, path, nil))
	return answer.Code, answer.Body.String()
}

// scrape reads /metrics as Prometheus does.
func scrape(t *testing.T, m *metrics.Metrics) (families map[string]*dto.MetricFamily, text string) {
	t.Helper()
	status, text := get(t, m.Handler(ready), "/metrics")
	if status != http.StatusOK {
		t.Fatalf("%d: %s", status, text)
	}
	parser := expfmt.NewTextParser(model.UTF8Validation)
	families, err := parser.TextToMetricFamilies(strings.NewReader(text))
	if err != nil {
		t.Fatal(err)
	}
	return families, text
}

// TestEverythingIsShown guards that what is told can be scraped, each number under its own name and labels.
func TestEverythingIsShown(t *testing.T) {
	t.Parallel()
	families, text := scrape(t, full())
	for _, want := range []string{
		`step_duration_seconds_sum{erp="erp"} 2`,
		`step_duration_seconds_bucket{erp="erp",le="1"} 0`,
		`step_duration_seconds_bucket{erp="erp",le="2.5"} 1`,
		`page_save_duration_seconds_sum{erp="erp"} 0.02`,
		`runs_total{erp="erp",kind="denied",mode="full",outcome="failed",trigger="manual"} 1`,
		`run_duration_seconds_sum{erp="erp",mode="full",outcome="failed"} 60`,
		`run_start_delay_seconds_sum{trigger="manual"} 1`,
		`waits_total{cause="throttled",erp="erp"} 1`,
		`records_total{erp="erp",outcome="created"} 5`,
		`erp_calls_total{erp="erp"} 4`,
		`lease_losses_total{erp="erp"} 1`,
		`runs_queued_total 3`,
		`deliveries_total 2`,
		`deliveries_lost_total 1`,
		`removed_rows_total{what="runs"} 9`,
		`tick_duration_seconds_count 2`,
		`tick_failures_total 1`,
		`metered_calls_month_allowance{erp="erp"} 1000`,
		`fleet_up 1`,
		`connections{erp="erp",state="active"} 11`,
		`connections{erp="erp",state="paused"} 12`,
		`connections{erp="erp",state="needs_attention"} 13`,
		`connections_stale{erp="erp",why="late"} 14`,
		`connections_stale{erp="erp",why="manual"} 15`,
		`connections_stale{erp="erp",why="paused"} 16`,
		`connections_stale{erp="erp",why="needs_attention"} 17`,
		`connections_suspect{erp="erp",why="reads_nothing"} 35`,
		`connections_suspect{erp="erp",why="misses_changes"} 36`,
		`connections_suspect{erp="erp",why="issues_grow"} 37`,
		`connections_last_failed{erp="erp"} 18`,
		`oldest_success_age_seconds{erp="erp"} 19`,
		`runs_unfinished{erp="erp",status="queued"} 20`,
		`runs_unfinished{erp="erp",status="running"} 21`,
		`runs_unfinished{erp="erp",status="waiting"} 22`,
		`oldest_unclaimed_run_age_seconds{erp="erp"} 23`,
		`holds_open{erp="erp"} 24`,
		`held_customer_contacts{erp="erp"} 25`,
		`oldest_hold_age_seconds{erp="erp"} 26`,
		`issues_open{erp="erp"} 27`,
		`logins_ending{erp="erp",within="notice"} 38`,
		`logins_ending{erp="erp",within="14d"} 28`,
		`logins_ending{erp="erp",within="3d"} 29`,
		`login_left_seconds{erp="erp"} 129600`,
		`metered_calls_month{erp="erp"} 30`,
		`erp_pause_age_seconds{erp="erp"} 31`,
		`queues_up 1`,
		`queue_tasks{queue="urgent",state="waiting"} 32`,
		`queue_tasks{queue="urgent",state="active"} 33`,
		`queue_oldest_waiting_age_seconds{queue="urgent"} 34`,
		`db_connections{db="main",state="in_use"} 3`,
		`db_connections{db="main",state="idle"} 2`,
		`db_connections_max{db="main"} 10`,
		`db_connection_waits_total{db="main"} 7`,
		`db_connection_wait_seconds_total{db="main"} 1.5`,
	} {
		if !strings.Contains(text, "\ncontactsync_"+want+"\n") {
			t.Errorf("not shown: %s", want)
		}
	}
	ticked := families["contactsync_last_tick_timestamp_seconds"].GetMetric()[0].GetGauge().GetValue()
	if age := time.Since(time.Unix(int64(ticked), 0)); age < 0 || age > time.Minute {
		t.Errorf("the last tick that succeeded was %v ago", age)
	}
	problems, err := promlint.New(bytes.NewBufferString(text)).Lint()
	if err != nil {
		t.Fatal(err)
	}
	for _, p := range problems {
		if strings.HasPrefix(p.Metric, "contactsync_") {
			t.Errorf("%s: %s", p.Metric, p.Text)
		}
	}
}

// TestWorkersShowNoTick guards the alert on a missing scheduler: a worker is not taken for one, nor a scheduler that never
// ticked for one that ticked in 1970.
func TestWorkersShowNoTick(t *testing.T) {
	t.Parallel()
	m := metrics.New()
	m.StepEnded("erp", time.Second)
	families, text := scrape(t, m)
	if families["process_resident_memory_bytes"] == nil || families["go_gc_gomemlimit_bytes"] == nil {
		t.Error("the process's memory or its limit is not shown")
	}
	if !strings.Contains(text, "contactsync_lease_losses_total{erp=\"erp\"} 0\n") {
		t.Error("a first lost lease would not be seen as a rise")
	}
	for name := range families {
		if strings.Contains(name, "tick") || strings.Contains(name, "fleet") || strings.Contains(name, "deliveries") {
			t.Errorf("a worker shows %s", name)
		}
	}
	m.TickEnded(time.Second, errors.New("no"))
	families, _ = scrape(t, m)
	if families["contactsync_last_tick_timestamp_seconds"] != nil {
		t.Error("a tick that failed counts as the last one that succeeded")
	}
	if families["contactsync_deliveries_lost_total"] == nil {
		t.Error("a first lost delivery would not be seen as a rise")
	}
}

// TestNil guards that a program without metrics works: nothing panics, and it is alive and ready.
func TestNil(t *testing.T) {
	t.Parallel()
	var m *metrics.Metrics
	m.StepEnded("erp", 0)
	m.PageSaved("erp", 0)
	m.RunEnded("erp", "full", "manual", "failed", "denied", 0)
	m.StartDelay("manual", 0)
	m.Waited("erp", "throttled")
	m.Records("erp", "created", 5)
	m.Calls("erp", 4)
	m.LeaseLost("erp")
	m.Queued(3)
	m.HandedOut(2)
	m.DeliveriesLost(1)
	m.Removed("runs", 9)
	m.TickEnded(0, nil)
	m.Allowance("erp", 1000)
	m.WatchFleet(nil)
	m.WatchQueues(nil)
	m.WatchDB("main", nil)
	for path, want := range map[string]int{"/healthz": 200, "/readyz": 200, "/metrics": 404} {
		if got, _ := get(t, m.Handler(ready), path); got != want {
			t.Errorf("%s: %d, want %d", path, got, want)
		}
	}
}

// TestManyAtOnce guards, under the race detector, that workers may tell while others scrape.
func TestManyAtOnce(t *testing.T) {
	t.Parallel()
	m := full()
	h := m.Handler(ready)
	var all sync.WaitGroup
	for range 8 {
		all.Go(func() {
			for range 50 {
				m.StepEnded("erp", time.Second)
				m.Records("erp", "created", 1)
				m.TickEnded(time.Second, nil)
			}
			get(t, h, "/metrics")
			get(t, h, "/readyz")
		})
	}
	all.Wait()
	if _, text := scrape(t, m); !strings.Contains(text, `contactsync_records_total{erp="erp",outcome="created"} 405`+"\n") {
		t.Error("records were lost")
	}
}

// TestFleetIsReadAtMostEvery10s guards Postgres from scrapes: many at once and one after the other share a reading, a
// failed one included.
func TestFleetIsReadAtMostEvery10s(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		m, reads, broken := metrics.New(), atomic.Int64{}, atomic.Bool{}
		m.WatchFleet(func(context.Context) (postgres.Fleet, error) {
			time.Sleep(time.Second) // as Postgres may
			if broken.Load() {
				return nil, errors.New("no")
			}
			return postgres.Fleet{{ERP: "erp", Active: reads.Add(1)}}, nil
		})
		shows := func(want string) {
			t.Helper()
			if _, text := scrape(t, m); !strings.Contains(text, want+"\n") {
				t.Errorf("%s is not shown", want)
			}
		}
		var all sync.WaitGroup
		for range 5 {
			all.Go(func() { shows(`contactsync_connections{erp="erp",state="active"} 1`) })
		}
		all.Wait()
		time.Sleep(9 * time.Second)
		shows(`contactsync_connections{erp="erp",state="active"} 1`)
		time.Sleep(2 * time.Second)
		shows(`contactsync_connections{erp="erp",state="active"} 2`)

		broken.Store(true)
		time.Sleep(10 * time.Second)
		shows("contactsync_fleet_up 0")
		if _, text := scrape(t, m); strings.Contains(text, "contactsync_connections") {
			t.Error("old numbers are shown as if they were true now")
		}
		broken.Store(false)
		shows("contactsync_fleet_up 0")
		time.Sleep(10 * time.Second)
		shows("contactsync_fleet_up 1")
	})
}

// TestHangingReaders guards the scrape: it takes less than 5 s although Postgres, Redis and what /readyz asks hang and do not
// obey their contexts, shows all else, and asks no second time meanwhile.
func TestHangingReaders(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		m, asked, mended := metrics.New(), atomic.Int64{}, make(chan struct{})
		hang := func(ctx context.Context) {
			asked.Add(1)
			if _, bounded := ctx.Deadline(); !bounded {
				t.Error("a reader is not told when to end")
			}
			<-mended
		}
		m.WatchFleet(func(ctx context.Context) (postgres.Fleet, error) { hang(ctx); return nil, nil })
		m.WatchQueues(func(ctx context.Context) (map[string]queue.Depth, error) { hang(ctx); return nil, nil })
		m.Calls("erp", 7)
		h := m.Handler(func(ctx context.Context) error { hang(ctx); return nil })
		for range 3 {
			began := time.Now()
			status, text := get(t, h, "/metrics")
			if took := time.Since(began); took >= 5*time.Second {
				t.Errorf("a scrape took %v", took)
			}
			for _, want := range []string{"contactsync_fleet_up 0", "contactsync_queues_up 0", `contactsync_erp_calls_total{erp="erp"} 7`} {
				if status != http.StatusOK || !strings.Contains(text, want+"\n") {
					t.Errorf("%d: %s is not shown", status, want)
				}
			}
			if status, text := get(t, h, "/readyz"); status != http.StatusServiceUnavailable || text != "no answer within 4s\n" {
				t.Errorf("ready: %d %q", status, text)
			}
		}
		if n := asked.Load(); n != 3 {
			t.Errorf("asked %d times, want each of the three once", n)
		}
		close(mended)
		synctest.Wait()
		if _, text := get(t, h, "/metrics"); !strings.Contains(text, "contactsync_fleet_up 1\n") {
			t.Error("it does not recover")
		}
	})
}

// TestHealth guards what supervisors act on: a process that lives is not killed because Postgres is away, and is told apart
// from one that can work, with the reason on one line.
func TestHealth(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		var err error
		h := metrics.New().Handler(func(context.Context) error { return err })
		for _, c := range []struct {
			err    error
			status int
			line   string
		}{
			{nil, http.StatusOK, "ok\n"},
			{errors.New("redis cannot be reached:\n\tcheck REDIS_URL"), http.StatusServiceUnavailable, "redis cannot be reached: check REDIS_URL\n"},
			{nil, http.StatusOK, "ok\n"},
		} {
			err = c.err
			time.Sleep(time.Second) // an answer may be that old
			if status, line := get(t, h, "/readyz"); status != c.status || line != c.line {
				t.Errorf("ready, %v: %d %q", c.err, status, line)
			}
			if status, line := get(t, h, "/healthz"); status != http.StatusOK || line != "ok\n" {
				t.Errorf("alive, %v: %d %q", c.err, status, line)
			}
		}
		for _, path := range []string{"/", "/debug/pprof/", "/metrics/x"} {
			if status, _ := get(t, h, path); status != http.StatusNotFound {
				t.Errorf("%s: %d", path, status)
			}
		}
	})
}

// TestServe guards that a program which is told to stop can be watched until it ends, and that a port which is taken is told
// in one sentence at the start.
func TestServe(t *testing.T) {
	t.Parallel()
	var told bytes.Buffer
	ctx, cancel := context.WithCancel(t.Context())
	stop, err := metrics.Serve(ctx, "127.0.0.1:0", full().Handler(ready), slog.New(slog.NewJSONHandler(&told, nil)))
	if err != nil {
		t.Fatal(err)
	}
	var line struct{ Addr string }
	if err := json.Unmarshal(told.Bytes(), &line); err != nil {
		t.Fatalf("the log does not say where: %v", err)
	}
	addr := line.Addr
	if stop, err := metrics.Serve(t.Context(), addr, full().Handler(ready), slog.New(slog.DiscardHandler)); err == nil {
		stop()
		t.Error("two programs have one port")
	} else if !strings.Contains(err.Error(), "METRICS_ADDR="+addr+": another program has this port") || strings.Contains(err.Error(), "\n") {
		t.Errorf("the error is %q", err)
	}

	cancel()
	client := &http.Client{Transport: &http.Transport{DisableKeepAlives: true}, Timeout: 10 * time.Second}
	ask := func() (string, error) {
		request, err := http.NewRequestWithContext(t.Context(), http.MethodGet, "http://"+addr+"/metrics", nil)
		if err != nil {
			return "", err
		}
		answer, err := client.Do(request)
		if err != nil {
			return "", err
		}
		defer answer.Body.Close()
		body, err := io.ReadAll(answer.Body)
		return string(body), err
	}
	if body, err := ask(); err != nil || !strings.Contains(body, "contactsync_deliveries_total 2\n") {
		t.Errorf("not served while stopping: %v", err)
	}
	stop()
	if _, err := ask(); err == nil {
		t.Error("served after stop")
	}
}

package demo

import (
	"bufio"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/centime/contactsync/internal/erpsim"
	"github.com/centime/contactsync/internal/erpsim/qbo"
	"github.com/centime/contactsync/internal/postgres/pgtest"
)

// patience bounds each wait for the programs.
const patience = 60 * time.Second

// connect adds a company of the simulator and connects it; its first load is queued.
func (s *system) connect(realm string, customers int, args ...string) *qbo.Company {
	s.t.Helper()
	company := s.sim.AddCompany(realm, "Company "+realm)
	company.BulkLoad(customers, 11)
	s.connectAs("Kelp", realm, company, args...)
	return company
}

func (s *system) connectAs(tenant, realm string, company *qbo.Company, args ...string) {
	s.t.Helper()
	login, err := json.Marshal(company.Connect())
	if err != nil {
		s.t.Fatal(err)
	}
	s.ctl(login, 0, append([]string{
		"connection", "add", "--tenant", tenant, "--erp", "quickbooks-online", "--account", realm, "--credentials", "-",
		"--set", "api_url=" + s.url, "--set", "token_url=" + s.url + "/oauth2/v1/tokens/bearer",
	}, args...)...)
}

// becomes waits until a query gives a value.
func (s *system) becomes(want, query string) {
	s.t.Helper()
	deadline := time.After(patience)
	tick := time.NewTicker(50 * time.Millisecond)
	defer tick.Stop()
	for {
		got := pgtest.Value(s.t, s.dsn, query)
		if got == want {
			return
		}
		select {
		case <-deadline:
			s.t.Fatalf("%s: %s, want %s", query, got, want)
		case <-tick.C:
		}
	}
}

func (s *system) with(env ...string) { s.env = append(s.env, env...) }

// TestResyncStartsBesideFirstLoads: with a hundred first loads waiting, and every slot but the one kept for people hanging in
// an ERP that does not answer, an operator's resync starts within five seconds and ends.
func TestResyncStartsBesideFirstLoads(t *testing.T) {
	s := newSystem(t, 30)
	s.with("WORKER_CONCURRENCY=4")
	for i := range 100 {
		s.connect(fmt.Sprint(9130350000001000+i), 1)
	}
	hang, hanging := make(chan struct{}), make(chan struct{}, 1000)
	release := sync.OnceFunc(func() { close(hang) })
	t.Cleanup(release)
	s.sim.Before(func(r erpsim.Request) {
		if r.Op == qbo.Query && r.Company != realm {
			hanging <- struct{}{}
			<-hang
		}
	})
	for i := range 3 {
		s.connect(fmt.Sprint(9130350000002000+i), 1, "--paused")
	}
	s.launch("scheduler")
	s.launch("worker")
	for range 2 { // first loads: they get no more
		<-hanging
	}
	pgtest.Exec(t, s.dsn, `UPDATE contactsync.connections SET state = 'active', next_due_at = now() WHERE account LIKE '913035000000200%'`)
	<-hanging // one by the schedule
	s.ctl(nil, 0, "resync", "1", "--wait")
	if delay := pgtest.Value(t, s.dsn, `SELECT max(started_at - queued_at) < interval '5 seconds' FROM contactsync.runs WHERE connection_id = 1 AND trigger = 'manual'`); delay != "true" {
		t.Errorf("the resync started after more than five seconds")
	}
	if n := pgtest.Value(t, s.dsn, `SELECT count(*) FROM contactsync.runs WHERE trigger = 'first_load' AND status = 'running' AND connection_id > 1`); n != "2" {
		t.Errorf("%s first loads have a slot, want half of four", n)
	}
	release()
	s.becomes("0", `SELECT count(*) FROM contactsync.runs WHERE status <> 'succeeded'`)
	s.equal()
}

// TestStepGivesWay: a worker of one slot is in the middle of a large first load; a resync gets the slot after a page, and the
// load goes on afterwards without reading a page twice.
func TestStepGivesWay(t *testing.T) {
	s := newSystem(t, 30)
	s.with("WORKER_CONCURRENCY=1", "STEP=10m")
	s.launch("scheduler")
	s.launch("worker")
	s.ctl(nil, 0, "run", "watch", "1")

	const large = "9130350000000002"
	asked := make(chan struct{})
	var once sync.Once
	s.sim.Before(func(r erpsim.Request) {
		if r.Op != qbo.Query || r.Company != large {
			return
		}
		if r.N == 4 {
			once.Do(func() { close(asked) })
		}
		<-time.After(300 * time.Millisecond) // an ERP that takes its time: the load lasts longer than a resync may wait
	})
	s.connect(large, 30_000)
	<-asked
	s.ctl(nil, 0, "resync", "1", "--wait")
	if got := pgtest.Value(t, s.dsn, `SELECT l.status <> 'succeeded' AND l.pages BETWEEN 1 AND 29
		FROM contactsync.runs r, contactsync.runs l WHERE r.id = 3 AND l.id = 2`); got != "true" {
		t.Error("the resync waited for the load")
	}
	s.ctl(nil, 0, "run", "watch", "2")
	if n := s.sim.Log().Count(large, qbo.Query); n > 31+2 { // the COUNT, and a page that was fetched ahead when the step ended
		t.Errorf("%d requests for 30 pages", n)
	}
	s.equal()
}

// TestBudgetsAreKept: three workers, two tenants with the same two companies, and a QuickBooks that refuses the eleventh
// request of a second: it never has to. Another program uses up the company's budget then: the 429 slows all of them.
func TestBudgetsAreKept(t *testing.T) {
	s := newSystemOn(t, 12_000, qbo.Options{PerSecond: 10, PerMinute: 500})
	const second = "9130350000000002"
	s.ctl(nil, 0, "tenant", "add", "Harbor")
	s.connectAs("Harbor", realm, s.company)
	other := s.connect(second, 12_000)
	s.connectAs("Harbor", second, other)
	for range 3 {
		s.launch("worker")
	}
	s.launch("scheduler")
	for run := range 4 {
		s.ctl(nil, 0, "run", "watch", fmt.Sprint(run+1))
	}
	if n := refusals(s); n != 0 {
		t.Errorf("QuickBooks refused %d requests for being too fast", n)
	}
	s.equal()
	if v := s.sim.Violations(); len(v) != 0 {
		t.Errorf("requests that are no reads: %+v", v)
	}

	s.company.Fail(erpsim.Rule{}, qbo.Fault{Kind: qbo.ThrottleXML, RetryAfter: "7"})
	s.ctl(nil, 0, "resync", "1", "--full")
	s.becomes("waiting", `SELECT status FROM contactsync.runs WHERE connection_id = 1 ORDER BY id DESC LIMIT 1`)
	before := s.sim.Log().Count(realm, qbo.Query)
	s.ctl(nil, 0, "resync", "2", "--full") // the other tenant's connection to the same company
	s.becomes("waiting", `SELECT status FROM contactsync.runs WHERE connection_id = 2 ORDER BY id DESC LIMIT 1`)
	if n := s.sim.Log().Count(realm, qbo.Query); n != before {
		t.Errorf("%d requests went out while the company was to be left alone", n-before)
	}
	s.becomes("0", `SELECT count(*) FROM contactsync.runs WHERE status <> 'succeeded'`)
	s.equal()
}

func refusals(s *system) int {
	return len(s.sim.Log().Requests(func(r erpsim.Request) bool { return r.Status == http.StatusTooManyRequests }))
}

// lines collects what a program logs, besides the test's own output.
type lines struct {
	mu  sync.Mutex
	all []string
}

// follow prepares a program for it.
func (l *lines) follow(cmd *exec.Cmd) {
	r, w := io.Pipe()
	to := cmd.Stderr
	cmd.Stderr = w
	go func() {
		scan := bufio.NewScanner(r)
		for scan.Scan() {
			l.mu.Lock()
			l.all = append(l.all, scan.Text())
			l.mu.Unlock()
			_, _ = fmt.Fprintln(to, scan.Text())
		}
	}()
}

func (l *lines) count(text string) int {
	l.mu.Lock()
	defer l.mu.Unlock()
	n := 0
	for _, line := range l.all {
		if strings.Contains(line, text) {
			n++
		}
	}
	return n
}

// end stops a program as its supervisor does.
func (s *system) end(cmd *exec.Cmd) {
	s.t.Helper()
	if err := cmd.Process.Signal(syscall.SIGTERM); err != nil {
		s.t.Fatal(err)
	}
	if err := cmd.Wait(); err != nil {
		s.t.Errorf("%s: %v", filepath.Base(cmd.Path), err)
	}
}

// TestWrongAppSecretStopsTheSchedule: one alarm, no connection blamed, no request but trials; with the right secret one trial
// heals it, and everything is caught up with.
func TestWrongAppSecretStopsTheSchedule(t *testing.T) {
	s := newSystem(t, 30)
	for i := range 7 {
		s.connect(fmt.Sprint(9130350000001000+i), 20)
	}
	scheduler := s.launch("scheduler")
	first := s.launch("worker")
	s.becomes("8", `SELECT count(*) FROM contactsync.runs WHERE status = 'succeeded'`)
	s.end(first)
	s.end(scheduler)

	for _, c := range s.sim.Companies() {
		c.ExpireAccess()
	}
	pgtest.Exec(t, s.dsn, `UPDATE contactsync.connections SET next_due_at = now()`)
	right := s.env
	s.with("QUICKBOOKS_CLIENT_SECRET=wrong")
	var said lines
	scheduler = s.launch("scheduler", said.follow)
	wrong := s.launch("worker")
	s.becomes("8", `SELECT count(*) FROM contactsync.runs WHERE error_kind = 'misconfigured' AND reason NOT LIKE 'trial: %'`)
	s.becomes("1", `SELECT count(*) FROM contactsync.erp_pauses WHERE ended_at IS NULL`)
	s.becomes("1", `SELECT count(*) FROM contactsync.runs WHERE reason LIKE 'trial: %' AND status = 'failed'`)
	if got := pgtest.Value(t, s.dsn, `SELECT count(*) FROM contactsync.connections WHERE state = 'active'`); got != "8" {
		t.Errorf("%s of 8 connections are active", got)
	}
	if n := said.count(`"level":"ERROR"`); n != 1 {
		t.Errorf("%d alarms, want one", n)
	}
	if out := s.ctl(nil, 3, "status"); !strings.Contains(out, "quickbooks-online") || !strings.Contains(out, "misconfigured") {
		t.Errorf("status does not say it:\n%s", out)
	}
	pgtest.Exec(t, s.dsn, `UPDATE contactsync.connections SET next_due_at = now()`)

	s.end(wrong)
	s.env = right
	s.launch("worker")
	pgtest.Exec(t, s.dsn, `UPDATE contactsync.erp_pauses SET next_trial_at = now()`)
	s.becomes("0", `SELECT count(*) FROM contactsync.erp_pauses WHERE ended_at IS NULL`)
	s.becomes("8", `SELECT count(DISTINCT connection_id) FROM contactsync.runs WHERE status = 'succeeded' AND trigger = 'schedule'`)
	s.ctl(nil, 0, "status")
	s.equal()
	s.end(scheduler)
}

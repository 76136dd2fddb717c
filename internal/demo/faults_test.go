package demo

import (
	"bufio"
	"database/sql"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"net/url"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/centime/contactsync/internal/erpsim"
	"github.com/centime/contactsync/internal/erpsim/qbo"
	"github.com/centime/contactsync/internal/postgres"
	"github.com/centime/contactsync/internal/postgres/pgtest"
)

// What newSystem tells the programs, and how much longer things may take on a busy machine.
const (
	lease = 2 * time.Second
	tick  = 200 * time.Millisecond
	slack = 15 * time.Second
	// stopWithin is when a supervisor would lose its patience and send SIGKILL.
	stopWithin = 30 * time.Second
)

// hold keeps the request for page n, and all later ones, waiting until release.
func (s *system) hold(n int) (reached <-chan struct{}, release func()) {
	arrived, free := make(chan struct{}), make(chan struct{})
	arrive, release := sync.OnceFunc(func() { close(arrived) }), sync.OnceFunc(func() { close(free) })
	s.sim.Before(func(r erpsim.Request) {
		if r.Op == qbo.Query && r.N >= n {
			arrive()
			<-free
		}
	})
	s.t.Cleanup(release)
	return arrived, release
}

// asked is how many pages the simulator was asked for.
func (s *system) asked() int { return s.sim.Log().Count(realm, qbo.Query) }

func (s *system) slowPages(d time.Duration) {
	s.company.Fail(erpsim.Rule{Op: qbo.Query, Times: erpsim.Forever}, qbo.Fault{Kind: qbo.Slow, Delay: d})
}

// within waits for something, and says how long that took.
func within(t *testing.T, c <-chan struct{}, d time.Duration, what string) time.Duration {
	t.Helper()
	begun := time.Now()
	select {
	case <-c:
	case <-time.After(d):
		t.Fatalf("not within %v: %s", d, what)
	}
	return time.Since(begun)
}

// until asks again and again whether something is so.
func until(t *testing.T, d time.Duration, what string, so func() bool) {
	t.Helper()
	poll := time.NewTicker(20 * time.Millisecond)
	defer poll.Stop()
	for deadline := time.Now().Add(d); !so(); <-poll.C {
		if time.Now().After(deadline) {
			t.Fatalf("not within %v: %s", d, what)
		}
	}
}

// over waits for the end of a run, through restarts of Postgres.
func (s *system) over(run int64, d time.Duration) (r postgres.RunState) {
	s.t.Helper()
	until(s.t, d, fmt.Sprintf("the end of run %d", run), func() bool {
		var err error
		r, err = s.store.Run(s.t.Context(), run)
		return err == nil && r.Over()
	})
	return r
}

// loaded checks that a first load read every customer once, whatever happened meanwhile: a page that a worker saved after
// it had lost the run would be one too many and be counted twice.
func (s *system) loaded(run int64) {
	s.t.Helper()
	r, err := s.store.Run(s.t.Context(), run)
	if err != nil {
		s.t.Fatal(err)
	}
	if n := int64(s.company.Len()); r.Status != "succeeded" || r.Read != n || r.Created != n {
		s.t.Errorf("%s, read %d, created %d; want succeeded with %d of both", r.Status, r.Read, r.Created, n)
	}
	if got := pgtest.Value(s.t, s.dsn, `SELECT count(*) = r.pages FROM contactsync.runs r JOIN contactsync.run_pages p ON p.run_id = r.id
		WHERE r.id = $1 GROUP BY r.pages`, run); got != "true" {
		s.t.Error("the run's number of pages is not that of its pages")
	}
	if n := pgtest.Value(s.t, s.dsn, `SELECT count(*) - count(DISTINCT id) FROM contactsync.run_pages, unnest(customer_ids) AS id WHERE run_id = $1`,
		run); n != "0" {
		s.t.Errorf("%s customers are on two pages", n)
	}
	s.equal()
	if v := s.sim.Violations(); len(v) != 0 {
		s.t.Errorf("requests that are no reads: %+v", v)
	}
}

// stops sends SIGTERM, and wants an orderly end in time.
func (s *system) stops(cmd *exec.Cmd, d time.Duration) (took time.Duration) {
	s.t.Helper()
	begun := time.Now()
	if err := cmd.Process.Signal(syscall.SIGTERM); err != nil {
		s.t.Fatal(err)
	}
	late := time.AfterFunc(d, func() { _ = cmd.Process.Kill() })
	defer late.Stop()
	if err := cmd.Wait(); err != nil {
		s.t.Errorf("%s: %v after %v; want status 0 within %v", cmd.Path, err, time.Since(begun), d)
	}
	return time.Since(begun)
}

// freeze returns when every thread of a program stands still.
func (s *system) freeze(cmd *exec.Cmd) {
	s.t.Helper()
	if err := cmd.Process.Signal(syscall.SIGSTOP); err != nil {
		s.t.Fatal(err)
	}
	var status syscall.WaitStatus
	if _, err := syscall.Wait4(cmd.Process.Pid, &status, syscall.WUNTRACED, nil); err != nil || !status.Stopped() {
		s.t.Fatalf("freeze: it ended instead (%v)", err)
	}
}

func (s *system) thaw(cmd *exec.Cmd) {
	s.t.Helper()
	if err := cmd.Process.Signal(syscall.SIGCONT); err != nil {
		s.t.Fatal(err)
	}
}

// TestRedisAwayFor50Seconds guards rule 3: a Redis that was killed in the middle of a run, and that comes back empty after
// longer than asynq's own patience, makes work late and loses nothing; the programs go on by themselves.
func TestRedisAwayFor50Seconds(t *testing.T) {
	s := newSystem(t, 3500)
	outage(s, 50*time.Second, s.redis.Stop, s.redis.Start)
}

// TestRedisHangsFor20Seconds guards rule 3 where nobody is told of the failure: connections stay open and nothing answers.
func TestRedisHangsFor20Seconds(t *testing.T) {
	s := newSystem(t, 3500)
	outage(s, 20*time.Second, s.redis.Pause, s.redis.Resume)
}

// outage takes Redis away in the middle of a run that needs a second step, which nobody can queue meanwhile.
func outage(s *system, length time.Duration, begin, end func()) {
	s.t.Helper()
	s.slowPages(time.Second)
	reached, release := s.hold(2)
	programs := []*exec.Cmd{s.launch("scheduler"), s.launch("worker")}
	within(s.t, reached, patience, "the second page")
	begin()
	release()
	<-time.After(length) // the fault's own duration
	if r, err := s.store.Run(s.t.Context(), 1); err != nil || r.Over() {
		s.t.Errorf("the run is %s (%v): it was to be caught in the middle", r.Status, err)
	}
	for _, p := range programs {
		if err := p.Process.Signal(syscall.Signal(0)); err != nil {
			s.t.Fatalf("%s: %v", p.Path, err)
		}
	}
	end()
	s.over(1, 2*lease+20*time.Second)
	s.loaded(1)
	s.ctl(nil, 0, "resync", "1", "--full", "--wait")
	s.equal()
	for _, p := range programs {
		s.stops(p, stopWithin)
	}
}

// TestPostgresRestarted guards rule 4: a Postgres that crashes twice in the middle of a run, and once more between two runs,
// costs nothing, and worker and scheduler need nobody to start them again.
func TestPostgresRestarted(t *testing.T) {
	t.Parallel()
	server := pgtest.Own(t)
	s := newSystemIn(t, server.DSN, 6500, qbo.Options{})
	reached, release := s.hold(3)
	programs := []*exec.Cmd{s.launch("scheduler"), s.launch("worker")}
	for range 2 {
		within(t, reached, patience, "a page in the middle")
		server.Stop()
		let := release
		reached, release = s.hold(s.asked() + 2)
		let()
		server.Start()
	}
	release()
	s.over(1, patience)
	s.loaded(1)
	server.Stop()
	server.Start()
	s.ctl(nil, 0, "resync", "1", "--full", "--wait")
	s.equal()
	for _, p := range programs {
		s.stops(p, stopWithin)
	}
}

// replaced has a worker lose the world in the middle of a run, and another take the run over, which must begin within two
// leases. While the second is in the middle of it, the first finds the world again, and must notice.
//
// Between two pages the first holds nothing but its lease. Within one, its open transaction holds the run's row as well, and
// Postgres does not know that nobody will ever end it.
func (s *system) replaced(withinPage bool, prepare func(*exec.Cmd), lose, find func(*exec.Cmd)) (first, second *exec.Cmd) {
	s.t.Helper()
	s.with("STEP=1m") // no step ends by itself
	var said lines
	s.launch("scheduler")
	reached, release := s.hold(4)
	first = s.launch("worker", said.follow, prepare)
	within(s.t, reached, patience, "the fourth page")
	s.becomes("3", `SELECT pages FROM contactsync.runs WHERE id = 1`)
	if withinPage {
		unlock := s.lockPages()
		release()
		s.becomes("1", `SELECT count(*) FROM pg_locks WHERE relation = 'contactsync.run_pages'::regclass AND NOT granted`)
		lose(first)
		unlock()
	} else {
		lose(first)
		release()
	}
	_, release = s.hold(s.asked() + 1)
	begun := time.Now()
	second = s.launch("worker")
	until(s.t, 2*lease+tick+slack, "another worker goes on", func() bool {
		r, err := s.store.Run(s.t.Context(), 1)
		return err == nil && r.Claims == 2
	})
	s.t.Logf("another worker went on after %v", time.Since(begun))
	find(first)
	until(s.t, patience, "the first worker says that it lost the run", func() bool {
		return said.count("lease lost") > 0 || said.count(postgres.ErrLeaseLost.Error()) > 0
	})
	release()
	s.over(1, patience)
	s.loaded(1)
	return first, second
}

// lockPages keeps pages from being saved: their transactions get stuck after they have written customers and contacts.
func (s *system) lockPages() (unlock func()) {
	s.t.Helper()
	db, err := sql.Open("postgres", s.dsn)
	if err != nil {
		s.t.Fatal(err)
	}
	s.t.Cleanup(func() { _ = db.Close() })
	tx, err := db.BeginTx(s.t.Context(), nil)
	if err != nil {
		s.t.Fatal(err)
	}
	if _, err := tx.ExecContext(s.t.Context(), `LOCK TABLE contactsync.run_pages IN EXCLUSIVE MODE`); err != nil {
		s.t.Fatal(err)
	}
	return func() {
		if err := tx.Rollback(); err != nil {
			s.t.Error(err)
		}
	}
}

// TestFrozenWorkerWritesNothing guards rule 5: a worker that stood still past its lease, as a suspended machine does, is
// replaced; woken, it writes nothing of that run and works others.
func TestFrozenWorkerWritesNothing(t *testing.T) {
	t.Parallel()
	for name, withinPage := range map[string]bool{"BetweenTwoPages": false, "WithinAPage": true} {
		t.Run(name, func(t *testing.T) {
			s := newSystem(t, 6500)
			first, second := s.replaced(withinPage, func(*exec.Cmd) {}, s.freeze, s.thaw)
			s.stops(second, stopWithin)
			s.ctl(nil, 0, "resync", "1", "--full", "--wait")
			s.equal()
			s.stops(first, stopWithin)
		})
	}
}

// TestWorkerBehindADeadNetwork guards rule 5 where a worker lives and only Postgres is out of its reach, without a word from
// the network: it is replaced, and works on when the network is back.
func TestWorkerBehindADeadNetwork(t *testing.T) {
	t.Parallel()
	for name, withinPage := range map[string]bool{"BetweenTwoPages": false, "WithinAPage": true} {
		t.Run(name, func(t *testing.T) {
			s := newSystem(t, 6500)
			n := newNetwork(t, s.dsn)
			first, second := s.replaced(withinPage, s.on(n), func(*exec.Cmd) { n.Hole() }, func(*exec.Cmd) { n.Heal() })
			s.stops(second, stopWithin)
			s.ctl(nil, 0, "resync", "1", "--full", "--wait")
			n.Cut()
			s.ctl(nil, 0, "resync", "1", "--full", "--wait")
			n.Refuse()
			s.ctl(nil, 0, "resync", "1", "--full")
			<-time.After(2 * lease) // the fault's own duration
			n.Heal()
			s.over(4, patience)
			s.equal()
			s.stops(first, stopWithin)
		})
	}
}

// on has a worker reach Postgres over a network of the test's. It has one slot: with more it goes on taking tasks that it
// cannot claim, and each of them comes to another worker a lease later.
func (s *system) on(n *network) func(*exec.Cmd) {
	return func(cmd *exec.Cmd) {
		cmd.Env = append(slices.Clone(cmd.Env), "DATABASE_URL="+n.of(s.dsn), "WORKER_CONCURRENCY=1")
	}
}

// TestStopsWhilePostgresHangs: a worker that cannot even tell Postgres ends in time all the same; another, that can reach
// Postgres, goes on when the lease has run out, and need not wait for the end of the first.
func TestStopsWhilePostgresHangs(t *testing.T) {
	s := newSystem(t, 3500)
	s.with("STEP=1m")
	n := newNetwork(t, s.dsn)
	s.launch("scheduler")
	reached, release := s.hold(3)
	worker := s.launch("worker", s.on(n))
	within(t, reached, patience, "the third page")
	s.becomes("2", `SELECT pages FROM contactsync.runs WHERE id = 1`)
	n.Hole()
	release()
	s.launch("worker")
	t.Logf("took %v", s.stops(worker, stopWithin))
	s.over(1, slack)
	s.loaded(1)
}

// TestStopsWhileRedisHangs: the worker ends in time and gives up its lease, and another goes on when Redis is back.
func TestStopsWhileRedisHangs(t *testing.T) {
	s := newSystem(t, 3500)
	s.with("STEP=1m")
	s.launch("scheduler")
	reached, release := s.hold(3)
	worker := s.launch("worker")
	within(t, reached, patience, "the third page")
	s.redis.Pause()
	begun := time.Now()
	release()
	t.Logf("took %v", s.stops(worker, stopWithin))
	if got := pgtest.Value(t, s.dsn, `SELECT status FROM contactsync.runs WHERE id = 1 AND lease_until IS NULL`); got != "running" {
		t.Errorf("the lease was not given up: %q", got)
	}
	s.redis.Resume()
	s.launch("worker")
	s.over(1, time.Since(begun)+patience)
	s.loaded(1)
}

// TestStopsWhileTheERPHangs: the worker does not wait for an answer that may take two minutes; another asks again when the
// lease has run out.
func TestStopsWhileTheERPHangs(t *testing.T) {
	s := newSystem(t, 3500)
	s.with("STEP=1m")
	s.company.Fail(erpsim.Rule{Op: qbo.Query, Skip: 2}, qbo.Fault{Kind: qbo.Hang})
	s.launch("scheduler")
	worker := s.launch("worker")
	s.becomes("2", `SELECT pages FROM contactsync.runs WHERE id = 1`)
	until(t, patience, "the request that hangs", func() bool { return s.asked() == 3 })
	other := s.launch("worker")
	t.Logf("took %v", s.stops(worker, stopWithin))
	s.over(1, 2*lease+tick+slack)
	s.loaded(1)
	s.stops(other, stopWithin)
}

// TestStoppedWorkerHandsOn: after a SIGTERM a worker that is there already goes on at once, and not when a lease of a minute
// has run out.
func TestStoppedWorkerHandsOn(t *testing.T) {
	s := newSystem(t, 3500)
	s.with("LEASE=1m", "STEP=1m")
	s.launch("scheduler")
	reached, release := s.hold(2)
	worker := s.launch("worker")
	within(t, reached, patience, "the second page")
	var said lines
	s.launch("worker", said.follow)
	until(t, patience, "the other worker is ready", func() bool { return said.count("worker is ready") > 0 })
	begun := time.Now()
	if err := worker.Process.Signal(syscall.SIGTERM); err != nil {
		t.Fatal(err)
	}
	release()
	s.becomes("2", `SELECT fencing FROM contactsync.runs WHERE id = 1`)
	if took := time.Since(begun); took > slack {
		t.Errorf("another worker went on after %v", took)
	}
	if err := worker.Wait(); err != nil {
		t.Error(err)
	}
	s.over(1, patience)
	s.loaded(1)
}

// command sends Redis one command, past all that knows of queues, and returns the first line of the answer.
func (s *system) command(words ...string) (answer string) {
	s.t.Helper()
	u, err := url.Parse(s.redis.URL)
	if err != nil {
		s.t.Fatal(err)
	}
	c, err := new(net.Dialer).DialContext(s.t.Context(), "tcp", u.Host)
	if err != nil {
		s.t.Fatal(err)
	}
	defer c.Close()
	_ = c.SetDeadline(time.Now().Add(patience))
	answers := bufio.NewReader(c)
	password, _ := u.User.Password()
	for _, command := range [][]string{{"AUTH", password}, words} {
		text := fmt.Sprintf("*%d\r\n", len(command))
		for _, word := range command {
			text += fmt.Sprintf("$%d\r\n%s\r\n", len(word), word)
		}
		if _, err := io.WriteString(c, text); err != nil {
			s.t.Fatal(err)
		}
		if answer, err = answers.ReadString('\n'); err != nil || strings.HasPrefix(answer, "-") {
			s.t.Fatalf("redis: %s: %q (%v)", command[0], answer, err)
		}
	}
	return strings.TrimSpace(answer)
}

// TestDeadTasksAreReplaced guards rule 3 against what asynq can do to a task: one that was archived, and one that is left
// active without a lease, would stay for ever; their run is handed out again within two leases.
func TestDeadTasksAreReplaced(t *testing.T) {
	s := newSystem(t, 1500)
	s.launch("scheduler")
	const queue = "asynq:{first_load}:" // asynq's own keys
	for i, kill := range []func(task string){
		func(task string) {
			s.command("ZADD", queue+"archived", strconv.FormatInt(time.Now().Unix(), 10), task)
			s.command("HSET", queue+"t:"+task, "state", "archived")
		},
		func(task string) {
			s.command("LPUSH", queue+"active", task)
			s.command("HSET", queue+"t:"+task, "state", "active")
		},
	} {
		task := fmt.Sprintf("run:1:%d", i+1)
		until(t, patience, task+" in Redis", func() bool { return s.command("LREM", queue+"pending", "0", task) == ":1" })
		begun := time.Now()
		kill(task)
		s.becomes(strconv.Itoa(i+2), `SELECT delivery FROM contactsync.runs WHERE id = 1`)
		if took := time.Since(begun); took > 2*lease+tick+slack {
			t.Errorf("%s was replaced after %v", task, took)
		}
	}
	s.launch("worker")
	s.over(1, patience)
	s.loaded(1)
}

// TestManyAtOnce: three schedulers and three workers run each of forty connections exactly once per due time, also when one
// of each is killed at any moment.
func TestManyAtOnce(t *testing.T) {
	s := newSystem(t, 20)
	for i := range 39 {
		s.connect(fmt.Sprint(9130350000001000+i), 20, "--schedule", rarely)
	}
	var schedulers, workers []*exec.Cmd
	for range 3 {
		schedulers, workers = append(schedulers, s.launch("scheduler")), append(workers, s.launch("worker"))
	}
	s.becomes("40", `SELECT count(*) FROM contactsync.runs WHERE status = 'succeeded'`)
	for i, victims := range [][]*exec.Cmd{schedulers, workers} {
		for _, c := range s.sim.Companies() {
			c.Import(3)
		}
		pgtest.Exec(t, s.dsn, `UPDATE contactsync.connections SET next_due_at = now()`)
		moment := rand.N(time.Second)
		t.Logf("%s dies after %v", victims[0].Path, moment)
		<-time.After(moment)
		if err := victims[0].Process.Kill(); err != nil {
			t.Fatal(err)
		}
		s.becomes("0 "+strconv.Itoa(40*(i+1)), `SELECT count(*) FILTER (WHERE r.status <> 'succeeded')
			|| ' ' || count(*) FILTER (WHERE r.trigger = 'schedule') FROM contactsync.runs r`)
	}
	if n := pgtest.Value(t, s.dsn, `SELECT count(*) FROM (SELECT FROM contactsync.runs WHERE trigger = 'schedule' GROUP BY connection_id
		HAVING count(*) = 2) AS twice`); n != "40" {
		t.Errorf("%s of 40 connections ran exactly once per due time", n)
	}
	if n := pgtest.Value(t, s.dsn, `SELECT count(*) FROM contactsync.run_requests WHERE trigger = 'schedule'`); n != "80" {
		t.Errorf("the schedule asked %s times for 40 connections that were due twice", n)
	}
	for _, c := range s.sim.Companies() {
		s.equalTo(c)
	}
}

// expired is a system whose connection was read once, and whose access token has ended; the next renewal gives another
// refresh token, and the one before lives on for a while or dies at once. It is not known which of the two Intuit does.
func expired(t *testing.T, oldTokenLives time.Duration) (s *system, worker *exec.Cmd) {
	t.Helper()
	s = newSystemOn(t, 30, qbo.Options{RotateAfter: -1, OldTokenLives: oldTokenLives})
	s.launch("scheduler")
	worker = s.launch("worker")
	s.over(1, patience)
	s.company.ExpireAccess()
	return s, worker
}

// TestOneRenewalUnderFire guards rule 10: a run and eight commands find the same token expired at the same moment. One of them
// renews it, nobody is refused, and nobody sends a refresh token that was replaced.
func TestOneRenewalUnderFire(t *testing.T) {
	s, _ := expired(t, 0)
	s.launch("worker")
	s.launch("worker")
	before := s.company.Tokens()
	const checks = 8
	var arrived sync.WaitGroup
	arrived.Add(checks + 1)
	var first atomic.Int32
	s.sim.Before(func(r erpsim.Request) {
		if r.Op != qbo.Token && first.Add(1) <= checks+1 {
			arrived.Done()
			arrived.Wait() // all of them come with the token that has ended
		}
	})
	s.ctl(nil, 0, "resync", "1", "--full")
	var all sync.WaitGroup
	for range checks {
		all.Go(func() {
			cmd := exec.CommandContext(t.Context(), filepath.Join(s.bin, "syncctl"), "connection", "check", "1")
			cmd.Env = s.env
			if out, err := cmd.CombinedOutput(); err != nil {
				t.Errorf("check: %v\n%s", err, out)
			}
		})
	}
	all.Wait()
	s.over(2, patience)
	after := s.company.Tokens()
	if n := after.Refreshes - before.Refreshes; n != 1 || after.Refused != 0 || after.Spent != 0 {
		t.Errorf("%d renewals, %d refused, %d with a replaced token; want 1, 0 and 0", n, after.Refused, after.Spent)
	}
	s.equal()
}

// renewed ends a run that renewed its token, and says how the connection is then.
func (s *system) renewed(run int64) (r postgres.RunState, reason string) {
	s.t.Helper()
	r = s.over(run, 2*patience)
	return r, pgtest.Value(s.t, s.dsn, `SELECT state_reason FROM contactsync.connections WHERE id = 1`)
}

// TestLostReplyToARenewal guards rule 10: the ERP has replaced the refresh token and nobody got the new one, since the worker
// was killed or the connection cut. Where the old one still works nobody has to do anything; where it does not, the connection
// says what happened and what to do.
func TestLostReplyToARenewal(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		name   string
		killed bool
		lives  time.Duration
	}{
		{"KilledAndTheOldTokenLives", true, time.Hour},
		{"KilledAndTheOldTokenIsDead", true, 0},
		{"CutAndTheOldTokenLives", false, time.Hour},
		{"CutAndTheOldTokenIsDead", false, 0},
	} {
		t.Run(c.name, func(t *testing.T) {
			s, worker := expired(t, c.lives)
			fault := qbo.Fault{Kind: qbo.LoseReply}
			if c.killed {
				fault.Delay = patience // it is killed before
			}
			s.company.Fail(erpsim.Rule{Op: qbo.Token}, fault)
			before := s.company.Tokens()
			s.ctl(nil, 0, "resync", "1", "--full")
			until(t, patience, "a new refresh token", func() bool { return s.company.Tokens().Rotations > before.Rotations })
			if c.killed {
				if err := worker.Process.Kill(); err != nil {
					t.Fatal(err)
				}
				_ = worker.Wait() // it was killed
				s.launch("worker")
			}
			r, reason := s.renewed(2)
			if c.lives > 0 {
				if n := s.company.Tokens().Refused; r.Status != "succeeded" || r.State != "active" || n != 0 {
					t.Errorf("%s, connection %s (%s), %d refused", r.Status, r.State, reason, n)
				}
				s.equal()
				return
			}
			if r.State != "needs_attention" || !strings.Contains(reason, "was lost") ||
				!strings.Contains(reason, "syncctl connection credentials") {
				t.Errorf("%s, connection %s: %q does not say that a reply was lost and what to do", r.Status, r.State, reason)
			}
		})
	}
}

// TestTokenEndpointIsDown guards rule 10: neither a 5xx nor silence is taken for a refusal. The connection stays active and is
// read when Intuit is back.
func TestTokenEndpointIsDown(t *testing.T) {
	t.Parallel()
	for _, kind := range []qbo.FaultKind{qbo.HTML503, qbo.Hang} {
		t.Run(string(kind), func(t *testing.T) {
			s, _ := expired(t, 0)
			s.company.Fail(erpsim.Rule{Op: qbo.Token}, qbo.Fault{Kind: kind})
			s.ctl(nil, 0, "resync", "1", "--full")
			s.becomes("waiting active", `SELECT r.status || ' ' || n.state FROM contactsync.runs r JOIN contactsync.connections n
				ON n.id = r.connection_id WHERE r.id = 2`)
			r, reason := s.renewed(2)
			if n := s.company.Tokens().Refused; r.Status != "succeeded" || r.State != "active" || n != 0 {
				t.Errorf("%s, connection %s (%s), %d refused", r.Status, r.State, reason, n)
			}
			s.equal()
		})
	}
}

// Package redistest gives tests a real Redis: one for the test binary, or one of a test's own to stop, pause and empty.
package redistest

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	mrand "math/rand/v2"
	"os"
	"os/exec"
	"runtime"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/redis/go-redis/v9"
)

// patience bounds each wait for a Redis; it starts in some 20 ms on an idle machine.
const patience = 30 * time.Second

// databases is how many tests of one binary can use the shared Redis at the same time.
const databases = 256

// Server is a Redis on 127.0.0.1 which keeps nothing on disk and evicts nothing.
type Server struct {
	// URL is redis://default:PASSWORD@127.0.0.1:PORT/DATABASE.
	URL string
}

// New returns an empty database on the Redis that the tests of this binary share. It starts with the first test that
// asks and ends with the last one, or with the process.
//
// FLUSHALL, pub/sub and asynq's cancellations reach all databases of a Redis: a test that uses them takes Own.
func New(t testing.TB) *Server {
	t.Helper()
	url, release, err := shared.take(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := release(); err != nil {
			t.Error(err)
		}
	})
	return &Server{URL: url}
}

// Empty deletes all that is in this database, and nothing of other tests.
func (s *Server) Empty(t testing.TB) {
	t.Helper()
	if err := command(s.URL, "FLUSHDB"); err != nil {
		t.Fatal(err)
	}
}

// Private is a Redis of one test's own. Its methods fail the test if they cannot do what they say.
type Private struct {
	Server
	t      testing.TB
	conf   config
	p      *process
	paused bool
}

// Own starts a Redis for this test alone. It ends with the test, or with the process.
func Own(t testing.TB) *Private {
	t.Helper()
	conf, p, err := startAnywhere(t.Context(), t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	r := &Private{Server: Server{URL: conf.url(0)}, t: t, conf: conf, p: p}
	t.Cleanup(func() { r.p.kill() })
	return r
}

// Stop ends the Redis at once, and with it all it held. Connections are reset and new ones refused until Start.
func (r *Private) Stop() {
	r.t.Helper()
	r.p.kill()
	r.paused = false
}

// Start starts a stopped Redis again, empty, at the same URL.
func (r *Private) Start() {
	r.t.Helper()
	if !r.p.ended() {
		r.t.Fatal("redistest: start: it runs already")
	}
	p, err := start(r.conf)
	if err != nil {
		r.t.Fatal(err)
	}
	r.p = p
}

// Pause has the Redis stop answering, as a hung machine does: connections stay open, and the kernel accepts new ones.
// It returns when the Redis stands still.
func (r *Private) Pause() {
	r.t.Helper()
	if r.paused {
		return
	}
	if err := r.p.cmd.Process.Signal(syscall.SIGSTOP); err != nil {
		r.t.Fatalf("redistest: pause: %v", err)
	}
	var status syscall.WaitStatus
	if _, err := syscall.Wait4(r.p.cmd.Process.Pid, &status, syscall.WUNTRACED, nil); err != nil || !status.Stopped() {
		r.t.Fatalf("redistest: pause: it ended instead (%v)", err)
	}
	r.paused = true
}

// Resume ends a Pause. What clients sent meanwhile is worked now.
func (r *Private) Resume() {
	r.t.Helper()
	if err := r.p.cmd.Process.Signal(syscall.SIGCONT); err != nil {
		r.t.Fatalf("redistest: resume: %v", err)
	}
	r.paused = false
}

// Flush empties the Redis, all its databases.
func (r *Private) Flush() {
	r.t.Helper()
	if err := command(r.URL, "FLUSHALL"); err != nil {
		r.t.Fatal(err)
	}
}

// shared is the Redis of the test binary. It runs while a test uses it, so that a test of leaked goroutines after the
// last one finds none.
var shared pool

type pool struct {
	mu   sync.Mutex
	conf config
	p    *process
	used [databases]bool
	n    int // of used
}

// take returns the URL of an unused database, and what gives it back.
func (s *pool) take(ctx context.Context) (url string, release func() error, err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.n == databases {
		return "", nil, fmt.Errorf("redistest: %d tests use the shared Redis at once: take Own", databases)
	}
	if s.n == 0 {
		if s.conf, s.p, err = startAnywhere(ctx, os.TempDir()); err != nil {
			return "", nil, err
		}
	}
	free := 0
	for s.used[free] {
		free++
	}
	s.used[free] = true
	s.n++
	url = s.conf.url(free)
	return url, func() error { return s.release(free) }, nil
}

func (s *pool) release(database int) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.used[database] = false
	s.n--
	if s.n == 0 {
		s.p.kill()
		return nil
	}
	return command(s.conf.url(database), "FLUSHDB")
}

func command(url, name string) error {
	opts, err := redis.ParseURL(url)
	if err != nil {
		return fmt.Errorf("redistest: %w", err)
	}
	opts.ContextTimeoutEnabled = true
	c := redis.NewClient(opts)
	// A test's own context has ended when its cleanups run.
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	err = errors.Join(c.Do(ctx, name).Err(), c.Close())
	if err != nil {
		return fmt.Errorf("redistest: %s: %w", name, err)
	}
	return nil
}

type config struct {
	port     int
	password string // Redis without one would write files for any local user
	folder   string // where a test may have it write
}

func (c config) url(database int) string {
	return fmt.Sprintf("redis://default:%s@127.0.0.1:%d/%d", c.password, c.port, database)
}

func (c config) text() string {
	return fmt.Sprintf(`
bind 127.0.0.1
port %d
requirepass %s
databases %d
dir %q
appendonly no
save ""
maxmemory-policy noeviction
`, c.port, c.password, databases, c.folder)
}

var errPortTaken = errors.New("port is taken")

// startAnywhere starts a Redis on a free port below 32768, where the kernel's range for clients begins: a client that
// dials a stopped Redis again and again could be given that very port, connect to itself, and keep Redis from it.
func startAnywhere(ctx context.Context, folder string) (config, *process, error) {
	for {
		c := config{port: 20000 + mrand.IntN(12000), password: rand.Text(), folder: folder} //nolint:gosec // a port is no secret
		p, err := start(c)
		if !errors.Is(err, errPortTaken) || ctx.Err() != nil {
			return c, p, err
		}
	}
}

// process is a redis-server that was started.
type process struct {
	cmd  *exec.Cmd
	done chan struct{} // closed when it has ended and was reaped
}

// start returns when the Redis accepts connections.
func start(c config) (*process, error) {
	program, err := exec.LookPath("redis-server")
	if err != nil {
		return nil, errors.New(
			"redistest: no redis-server in PATH: run `make test`, or as root `scripts/install redis-server`")
	}
	out := &output{ready: make(chan struct{})}
	//nolint:gosec,noctx // the program was looked up by its name, and lives as long as its tests, not as one's context
	p := &process{cmd: exec.Command(program, "-"), done: make(chan struct{})}
	p.cmd.Stdin = strings.NewReader(c.text()) // neither a file nor an argument shows the password
	p.cmd.Stdout = out
	p.cmd.SysProcAttr = &syscall.SysProcAttr{
		Pdeathsig: syscall.SIGKILL, // a killed test binary leaves no Redis behind, not even a paused one
		Setpgid:   true,            // Ctrl-C is for the tests
	}

	started := make(chan error)
	go func() {
		// Pdeathsig means the thread that started it, not the process: this thread is kept until the Redis has ended
		// (https://github.com/golang/go/issues/27505).
		runtime.LockOSThread()
		defer runtime.UnlockOSThread()
		defer close(p.done)
		err := p.cmd.Start()
		started <- err
		if err == nil {
			_ = p.cmd.Wait() // killed, or out tells why it ended
		}
	}()
	if err := <-started; err != nil {
		return nil, fmt.Errorf("redistest: start: %w", err)
	}

	select {
	case <-out.ready:
		return p, nil
	case <-p.done:
		if strings.Contains(out.String(), "ddress already in use") {
			return nil, errPortTaken
		}
		return nil, fmt.Errorf("redistest: start: it ended and said:\n%s", out)
	case <-time.After(patience):
		p.kill()
		return nil, fmt.Errorf("redistest: start: not ready after %v; it said:\n%s", patience, out)
	}
}

// kill returns when the process has ended.
func (p *process) kill() {
	_ = p.cmd.Process.Kill() // fails if it has ended, which is as good
	<-p.done
}

func (p *process) ended() bool {
	select {
	case <-p.done:
		return true
	default:
		return false
	}
}

// output keeps what a Redis says until it is ready, in case it never is.
type output struct {
	ready chan struct{}

	mu   sync.Mutex
	text strings.Builder
	is   bool // ready
}

// Write takes in a part of the output.
func (o *output) Write(b []byte) (int, error) {
	o.mu.Lock()
	defer o.mu.Unlock()
	if o.is {
		return len(b), nil
	}
	o.text.Write(b)
	if strings.Contains(o.text.String(), "Ready to accept connections") {
		o.is = true
		close(o.ready)
	}
	return len(b), nil
}

// String is what the Redis has said.
func (o *output) String() string {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.text.String()
}

package torture

import (
	"encoding/json"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"
)

// wrongClocks says whether workers with a wrong clock take part. A standard library is compiled for them, a minute's work.
func wrongClocks() bool { return *clocksFlag || *runsFlag >= large || *minutesFlag >= 10 }

// programs are cmd/worker and cmd/scheduler, and a worker whose clock can be wrong.
type programs struct{ dir string }

var builtDir string // removed at the end

var build = sync.OnceValues(func() (*programs, error) {
	dir, err := os.MkdirTemp("", "contactsync-torture-")
	if err != nil {
		return nil, err
	}
	builtDir = dir
	p := &programs{dir}
	builds := [][]string{{"build", "-o", dir, "../../cmd/worker", "../../cmd/scheduler"}}
	if wrongClocks() {
		overlay, err := p.wrongClock()
		if err != nil {
			return nil, err
		}
		builds = append(builds, []string{"build", "-overlay", overlay, "-o", filepath.Join(dir, "worker-off"), "../../cmd/worker"})
	}
	for _, args := range builds {
		if out, err := exec.Command("go", args...).CombinedOutput(); err != nil {
			return nil, fmt.Errorf("go %s: %w\n%s", args[0], err, out)
		}
	}
	return p, nil
})

// wrongClock makes an overlay of the standard library whose time.Now is off by so many seconds as CLOCK_OFFSET says: Go asks
// the kernel past any library that could be put in between.
func (p *programs) wrongClock() (string, error) {
	source := filepath.Join(runtime.GOROOT(), "src", "time", "time.go") //nolint:staticcheck // of the toolchain that builds, as here
	text, err := os.ReadFile(source)
	if err != nil {
		return "", err
	}
	const now = "func Now() Time {\n\tsec, nsec, mono := runtimeNow()\n"
	changed := strings.Replace(string(text), now, now+"\tsec += clockOffset\n", 1)
	changed = strings.Replace(changed, "import (\n", "import (\n\t\"syscall\"\n", 1)
	if !strings.Contains(changed, "clockOffset") || !strings.Contains(changed, `"syscall"`) {
		return "", errors.New("time.Now of this Go is not the one expected: adapt wrongClock")
	}
	changed += `
var clockOffset = func() (off int64) {
	text, _ := syscall.Getenv("CLOCK_OFFSET")
	for _, c := range []byte(text) {
		if c != '-' {
			off = off*10 + int64(c-'0')
		}
	}
	if len(text) > 0 && text[0] == '-' {
		off = -off
	}
	return off
}()
`
	replacement, overlay := filepath.Join(p.dir, "time.go.txt"), filepath.Join(p.dir, "overlay.json")
	if err := os.WriteFile(replacement, []byte(changed), 0o600); err != nil {
		return "", err
	}
	doc, err := json.Marshal(map[string]map[string]string{"Replace": {source: replacement}})
	if err != nil {
		return "", err
	}
	return overlay, os.WriteFile(overlay, doc, 0o600)
}

func builtPrograms(t *testing.T) *programs {
	t.Helper()
	p, err := build()
	if err != nil {
		t.Fatal(err)
	}
	return p
}

func TestMain(m *testing.M) {
	status := m.Run()
	if builtDir != "" {
		_ = os.RemoveAll(builtDir)
	}
	os.Exit(status)
}

// program is a process of its own.
type program struct {
	name string
	cmd  *exec.Cmd
	dead atomic.Bool
}

func (p *program) Name() string { return p.name }
func (p *program) Alive() bool  { return !p.dead.Load() }

func (p *program) Kill() {
	p.dead.Store(true)
	_ = p.cmd.Process.Kill()
}

func (p *program) Drain() {
	p.dead.Store(true)
	_ = p.cmd.Process.Signal(syscall.SIGTERM)
}

// startProgram starts a worker or a scheduler. One worker in four has a clock that is an hour off.
func (w *world) startProgram(name, kind string) *program {
	binary, offset := kind, ""
	if kind == "worker" && wrongClocks() && w.started%4 == 3 {
		binary, offset = "worker-off", []string{"3600", "-3600"}[w.started/4%2]
		w.tally.fault("program whose clock is an hour off")
	}
	cmd := exec.Command(filepath.Join(w.real.dir, binary)) //nolint:noctx // ended by signal
	cmd.Env = append(os.Environ(), "DATABASE_URL="+withName(w.dsn, name), "REDIS_URL="+w.redisURL, "CREDENTIALS_KEY="+w.key,
		"QUICKBOOKS_CLIENT_ID=client", "QUICKBOOKS_CLIENT_SECRET="+clientSecret, "LEASE="+w.pace.lease.String(), "STEP="+w.pace.step.String(),
		"TICK="+w.pace.tick.String(), "WORKER_CONCURRENCY=4", "LOG_LEVEL=debug", "CLOCK_OFFSET="+offset)
	cmd.Stderr, cmd.Stdout = w.log, w.log
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	p := &program{name: name, cmd: cmd}
	started := make(chan error)
	w.running.Go(func() {
		runtime.LockOSThread() // Pdeathsig means the thread that started it
		defer runtime.UnlockOSThread()
		err := cmd.Start()
		started <- err
		if err == nil {
			_ = cmd.Wait()
		}
		p.dead.Store(true)
	})
	if err := <-started; err != nil {
		w.t.Fatal(err)
	}
	if args, err := os.ReadFile(fmt.Sprintf("/proc/%d/cmdline", cmd.Process.Pid)); err == nil {
		w.secrets.scan("arguments", string(args), nil)
	}
	return p
}

// programFault is one of real programs, or of what they talk to.
func (w *world) programFault(rng *rand.Rand) {
	all := append(w.alive(false), w.alive(true)...)
	if len(all) == 0 {
		return
	}
	p, _ := all[rng.IntN(len(all))].(*program)
	strike := func(what string, do func()) {
		hit := func() {
			if p.Alive() {
				w.tally.fault(what)
				do()
			}
		}
		if rng.IntN(3) == 0 {
			hit()
			return
		}
		w.sides[rng.IntN(len(w.sides))].company.AtRequest(1+rng.IntN(6), hit)
	}
	switch rng.IntN(8) {
	case 0, 1:
		strike("program killed", p.Kill)
	case 2:
		strike("program drained", p.Drain)
	case 3, 4:
		long := w.pace.lease + time.Duration(rng.Int64N(int64(2*time.Second)))
		strike("program frozen past the lease", func() {
			_ = p.cmd.Process.Signal(syscall.SIGSTOP)
			time.AfterFunc(long, func() { _ = p.cmd.Process.Signal(syscall.SIGCONT) })
		})
	case 5, 6:
		w.sides[rng.IntN(len(w.sides))].company.Fault(rng, w.tally.fault)
	default:
		w.serverFault(rng)
	}
}

package pgtest

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	mrand "math/rand/v2"
	"os"
	osexec "os/exec"
	"os/user"
	"path/filepath"
	"regexp"
	"runtime"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/centime/contactsync/internal/postgres"
)

// oldest is the first major version of Postgres that will do.
const oldest = 15

// Private is a Postgres server of one test's own. Its methods fail the test if they cannot do what they say.
type Private struct {
	// DSN is that of a migrated, empty database, as its superuser.
	DSN string

	t   testing.TB
	c   cluster
	run *running
}

// Own starts a Postgres for this test alone, on 127.0.0.1. It ends with the test, or with the process. It is skipped
// where no Postgres is installed to be started, DATABASE_URL or not.
func Own(t testing.TB) *Private {
	t.Helper()
	programs := programs(t.Context())
	if programs == "" {
		t.Skipf("pgtest: no Postgres %d or newer is installed here that a test could stop and start", oldest)
	}
	c, err := newCluster(t.Context(), programs)
	if err != nil {
		t.Fatal(err)
	}
	p := &Private{t: t, c: c}
	t.Cleanup(func() {
		if p.run != nil {
			p.run.stop()
		}
		if err := os.RemoveAll(c.dir); err != nil {
			t.Errorf("pgtest: %v", err)
		}
	})
	for {
		p.c.port = 20000 + mrand.IntN(12000) //nolint:gosec // a port is no secret; the kernel's for clients begin above
		p.run, err = p.c.start()
		if !errors.Is(err, errPortTaken) || t.Context().Err() != nil {
			break
		}
	}
	if err != nil {
		t.Fatal(err)
	}
	p.DSN = fmt.Sprintf("postgres://postgres:%s@127.0.0.1:%d/postgres?sslmode=disable", c.password, p.c.port)
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	if err := postgres.Migrate(ctx, p.DSN); err != nil {
		t.Fatal(err)
	}
	return p
}

// Stop ends the server as a crash does: connections are reset, what was not committed is gone, and new connections are
// refused until Start.
func (p *Private) Stop() {
	p.t.Helper()
	p.run.stop()
}

// Start starts a stopped server again, with what was committed, at the same DSN.
func (p *Private) Start() {
	p.t.Helper()
	run, err := p.c.start()
	if err != nil {
		p.t.Fatal(err)
	}
	p.run = run
}

// programs is the folder of the newest Postgres that is new enough: one of Debian's versions, or that in PATH. It is
// empty if there is none.
func programs(ctx context.Context) string {
	folders, _ := filepath.Glob("/usr/lib/postgresql/*/bin") // the pattern is right
	if found, err := osexec.LookPath("initdb"); err == nil {
		folders = append(folders, filepath.Dir(found))
	}
	newest, best := oldest-1, ""
	for _, folder := range folders {
		if _, err := osexec.LookPath(filepath.Join(folder, "initdb")); err != nil {
			continue
		}
		says, err := osexec.CommandContext(ctx, filepath.Join(folder, "postgres"), "--version").Output() //nolint:gosec // looked up
		if err != nil {
			continue
		}
		if v := major.FindSubmatch(says); v != nil {
			if version, _ := strconv.Atoi(string(v[1])); version > newest {
				newest, best = version, folder
			}
		}
	}
	return best
}

// major finds 15 in "postgres (PostgreSQL) 15.14 (Debian 15.14-0+deb12u1)".
var major = regexp.MustCompile(`\) ([0-9]+)`)

// cluster is the data of a server and how to start it.
type cluster struct {
	programs string
	dir      string // holds data/ and the password's file
	password string // without one, any local user could have the server run programs
	owner    *syscall.Credential
	port     int
}

func newCluster(ctx context.Context, programs string) (cluster, error) {
	c := cluster{programs: programs, password: rand.Text()}
	// Postgres refuses to run as root, and the user it runs as may be unable to enter root's TMPDIR.
	base, uid := os.TempDir(), uint32(os.Geteuid()) //nolint:gosec // a user id fits
	if uid == 0 {
		base = "/var/tmp"
		owner, err := account("postgres")
		if err != nil {
			return c, err
		}
		c.owner, uid = owner, owner.Uid
	}
	sweepClusters(base, uid)
	var err error
	if c.dir, err = os.MkdirTemp(base, clusters); err != nil {
		return c, fmt.Errorf("pgtest: %w", err)
	}
	if err := c.init(ctx); err != nil {
		return c, errors.Join(err, os.RemoveAll(c.dir))
	}
	return c, nil
}

func (c cluster) init(ctx context.Context) error {
	file := filepath.Join(c.dir, "password")
	if err := os.WriteFile(file, []byte(c.password), 0o600); err != nil {
		return fmt.Errorf("pgtest: %w", err)
	}
	if c.owner != nil {
		for _, name := range []string{c.dir, file} {
			if err := os.Chown(name, int(c.owner.Uid), int(c.owner.Gid)); err != nil {
				return fmt.Errorf("pgtest: %w", err)
			}
		}
	}
	initdb := c.command(ctx, "initdb", "-D", c.data(), "--username=postgres", "--pwfile="+file, "--auth=scram-sha-256",
		"--locale=C.UTF-8", "--encoding=UTF8", "--no-sync")
	if says, err := initdb.CombinedOutput(); err != nil {
		return fmt.Errorf("pgtest: initdb: %w, and it said:\n%s", err, says)
	}
	return nil
}

func (c cluster) data() string { return filepath.Join(c.dir, "data") }

func (c cluster) command(ctx context.Context, program string, args ...string) *osexec.Cmd {
	cmd := osexec.CommandContext(ctx, filepath.Join(c.programs, program), args...) //nolint:gosec // found by programs
	cmd.Dir = c.dir
	cmd.Env = []string{"PATH=" + os.Getenv("PATH"), "LC_ALL=C.UTF-8"} // PG… variables of the user's are not meant for it
	cmd.SysProcAttr = &syscall.SysProcAttr{
		Credential: c.owner,
		Pdeathsig:  syscall.SIGKILL, // a killed test binary leaves no server behind: the children of a dead one end by themselves
		Setpgid:    true,            // Ctrl-C is for the tests
	}
	return cmd
}

// account is a user of this machine, to start a program as.
func account(name string) (*syscall.Credential, error) {
	u, err := user.Lookup(name)
	if err != nil {
		return nil, fmt.Errorf("pgtest: Postgres does not run as root: %w", err)
	}
	uid, err := strconv.ParseUint(u.Uid, 10, 32)
	if err != nil {
		return nil, fmt.Errorf("pgtest: user %s: %w", name, err)
	}
	gid, err := strconv.ParseUint(u.Gid, 10, 32)
	if err != nil {
		return nil, fmt.Errorf("pgtest: user %s: %w", name, err)
	}
	return &syscall.Credential{Uid: uint32(uid), Gid: uint32(gid)}, nil
}

// clusters is how the folders of all clusters begin.
const clusters = "contactsync-pgtest-"

// sweepClusters removes what killed tests of the same owner left.
func sweepClusters(base string, owner uint32) {
	left, _ := filepath.Glob(filepath.Join(base, clusters+"*")) // the pattern is right
	for _, dir := range left {
		info, err := os.Lstat(dir)
		if err != nil || !info.IsDir() || time.Since(info.ModTime()) < stale {
			continue
		}
		if of, ok := info.Sys().(*syscall.Stat_t); ok && of.Uid == owner {
			_ = os.RemoveAll(dir) // another test may be doing the same
		}
	}
}

func (c cluster) start() (*running, error) {
	says := &output{ready: make(chan struct{})}
	cmd := c.command(context.Background(), "postgres", "-D", c.data(),
		"-c", "listen_addresses=127.0.0.1", "-c", "port="+strconv.Itoa(c.port), "-c", "unix_socket_directories=",
		"-c", "timezone=UTC", "-c", "log_timezone=UTC", "-c", "shared_buffers=32MB",
		// The machine does not crash. synchronous_commit stays on: without it a Stop would undo what was committed last.
		"-c", "fsync=off", "-c", "full_page_writes=off")
	cmd.Stderr = says
	r := &running{cmd: cmd, done: make(chan struct{})}
	started := make(chan error)
	go func() {
		// Pdeathsig means the thread that started it, not the process: this thread is kept until the server has ended
		// (https://github.com/golang/go/issues/27505).
		runtime.LockOSThread()
		defer runtime.UnlockOSThread()
		defer close(r.done)
		err := cmd.Start()
		started <- err
		if err == nil {
			_ = cmd.Wait() // until the last of its processes has let go of stderr; says tells why it ended
		}
	}()
	if err := <-started; err != nil {
		return nil, fmt.Errorf("pgtest: start: %w", err)
	}
	select {
	case <-says.ready:
		return r, nil
	case <-r.done:
		if strings.Contains(says.String(), "ddress already in use") {
			return nil, errPortTaken
		}
		return nil, fmt.Errorf("pgtest: start: it ended and said:\n%s", says)
	case <-time.After(patience):
		r.stop()
		return nil, fmt.Errorf("pgtest: start: not ready after %v; it said:\n%s", patience, says)
	}
}

var errPortTaken = errors.New("port is taken")

// running is a server that was started.
type running struct {
	cmd  *osexec.Cmd
	done chan struct{} // closed when all its processes have ended and it was reaped
}

// stop is Postgres' immediate shutdown, and returns when no process is left.
func (r *running) stop() {
	_ = r.cmd.Process.Signal(syscall.SIGQUIT) // fails if it has ended, which is as good
	<-r.done
}

// output keeps what a server says until it is ready, in case it never is.
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
	if strings.Contains(o.text.String(), "ready to accept connections") {
		o.is = true
		close(o.ready)
	}
	return len(b), nil
}

// String is what the server has said.
func (o *output) String() string {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.text.String()
}

package demo

import (
	"bytes"
	"database/sql"
	"encoding/json"
	"flag"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"

	_ "github.com/centime/contactsync/connectors" // what the programs are made of, so that a cached result ends with a change of them
	_ "github.com/centime/contactsync/internal/cli"
	"github.com/centime/contactsync/internal/credentials"
	_ "github.com/centime/contactsync/internal/dispatch"
	"github.com/centime/contactsync/internal/erpsim"
	"github.com/centime/contactsync/internal/erpsim/qbo"
	"github.com/centime/contactsync/internal/postgres"
	"github.com/centime/contactsync/internal/postgres/pgtest"
	_ "github.com/centime/contactsync/internal/program"
	"github.com/centime/contactsync/internal/queue/redistest"
	_ "github.com/centime/contactsync/internal/syncing"
)

// system is the real programs on a database and a Redis of their own, against a simulator in this process.
type system struct {
	t       *testing.T
	dsn     string
	bin     string
	env     []string
	sim     *qbo.Sim
	url     string // of the simulator
	company *qbo.Company
	redis   *redistest.Private
	store   *postgres.Store
}

var programs = sync.OnceValues(func() (string, error) {
	dir, err := os.MkdirTemp("", "contactsync-programs-")
	if err != nil {
		return "", err
	}
	out, err := exec.Command("go", "build", "-o", dir, "../../cmd/worker", "../../cmd/scheduler", "../../cmd/syncctl").CombinedOutput()
	if err != nil {
		return "", &exec.Error{Name: string(out), Err: err}
	}
	return dir, nil
})

// Most tests here wait half of the time, for faults to pass and leases to run out. So twice as many of them run at once as there
// are cores, unless -parallel says how many. With more, leases of two seconds run out for want of a processor.
func TestMain(m *testing.M) {
	flag.Parse()
	given := false
	flag.Visit(func(f *flag.Flag) { given = given || f.Name == "test.parallel" })
	if !given {
		_ = flag.Set("test.parallel", strconv.Itoa(2*runtime.GOMAXPROCS(0))) // it exists, and is a number
	}
	status := m.Run()
	if dir, err := programs(); err == nil {
		_ = os.RemoveAll(dir)
	}
	os.Exit(status)
}

const realm = "9130350000000001"

func newSystem(t *testing.T, customers int) *system {
	t.Helper()
	return newSystemOn(t, customers, qbo.Options{})
}

// newSystemOn is newSystem with a simulator of one's own choice.
func newSystemOn(t *testing.T, customers int, options qbo.Options) *system {
	t.Helper()
	t.Parallel()
	return newSystemIn(t, pgtest.New(t), customers, options)
}

// newSystemIn is newSystemOn with a database of one's own choice.
func newSystemIn(t *testing.T, dsn string, customers int, options qbo.Options) *system {
	t.Helper()
	bin, err := programs()
	if err != nil {
		t.Fatal(err)
	}
	s := &system{t: t, dsn: dsn, bin: bin, sim: qbo.New(options), redis: redistest.Own(t)}
	server := httptest.NewServer(s.sim)
	t.Cleanup(server.Close)
	s.url = server.URL
	s.company = s.sim.AddCompany(realm, "Northwind Kelp")
	s.company.BulkLoad(customers, 7)
	s.env = append(os.Environ(), "DATABASE_URL="+s.dsn, "REDIS_URL="+s.redis.URL, "CREDENTIALS_KEY="+credentials.NewKey(),
		"QUICKBOOKS_CLIENT_ID=client", "QUICKBOOKS_CLIENT_SECRET=secret", "LEASE=2s", "STEP=2s", "TICK=200ms", "MIGRATIONS_DATABASE_URL=")
	if s.store, err = postgres.Open(s.dsn, 2); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = s.store.Close() })
	login, err := json.Marshal(s.company.Connect())
	if err != nil {
		t.Fatal(err)
	}
	s.ctl(nil, 0, "tenant", "add", "Kelp")
	s.ctl(login, 0, "connection", "add", "--tenant", "Kelp", "--erp", "quickbooks-online", "--account", realm, "--set", "api_url="+server.URL,
		"--set", "token_url="+server.URL+"/oauth2/v1/tokens/bearer", "--credentials", "-", "--schedule", rarely)
	return s
}

// rarely is a schedule that asks for nothing while a test runs, unless the test makes the connection due.
const rarely = "@every 8760h"

// ctl runs syncctl and wants an exit status.
func (s *system) ctl(stdin []byte, status int, args ...string) string {
	s.t.Helper()
	cmd := exec.CommandContext(s.t.Context(), filepath.Join(s.bin, "syncctl"), args...)
	cmd.Env, cmd.Stdin = s.env, bytes.NewReader(stdin)
	out, err := cmd.CombinedOutput()
	if got := cmd.ProcessState.ExitCode(); got != status {
		s.t.Fatalf("syncctl %s: exit %d (%v), want %d\n%s", strings.Join(args, " "), got, err, status, out)
	}
	return string(out)
}

// launch starts a program; prepare changes how.
func (s *system) launch(name string, prepare ...func(*exec.Cmd)) *exec.Cmd {
	s.t.Helper()
	cmd := exec.Command(filepath.Join(s.bin, name)) //nolint:noctx // ended by signal
	cmd.Env, cmd.Stderr = s.env, s.t.Output()
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	for _, p := range prepare {
		p(cmd)
	}
	if err := cmd.Start(); err != nil {
		s.t.Fatal(err)
	}
	s.t.Cleanup(func() {
		if cmd.ProcessState == nil {
			_ = cmd.Process.Kill()
			_ = cmd.Wait()
		}
	})
	return cmd
}

// equal compares Postgres with the simulator's own state.
func (s *system) equal() {
	s.t.Helper()
	s.equalTo(s.company)
}

func (s *system) equalTo(company *qbo.Company) {
	s.t.Helper()
	text, err := json.Marshal(company.Customers())
	if err != nil {
		s.t.Fatal(err)
	}
	var erp []simulated
	if err := json.Unmarshal(text, &erp); err != nil {
		s.t.Fatal(err)
	}
	db, err := sql.Open("postgres", s.dsn)
	if err != nil {
		s.t.Fatal(err)
	}
	defer db.Close()
	// Without figures of tables that are seconds old, Postgres would compare every row with every other.
	if _, err := db.ExecContext(s.t.Context(), "ANALYZE"); err != nil {
		s.t.Fatal(err)
	}
	here, err := held(s.t.Context(), db, company.Realm)
	if err != nil {
		s.t.Fatal(err)
	}
	if fields, differences := compare(erp, here); len(differences) > 0 || fields < 10*len(erp) {
		s.t.Errorf("%d fields compared, differences: %v", fields, differences)
	}
}

// TestKilledWorkerGoesOnFromTheCheckpoint guards rule 4: SIGKILL in the middle of a pull loses nothing, skips nothing, and
// counts nothing twice.
func TestKilledWorkerGoesOnFromTheCheckpoint(t *testing.T) {
	s := newSystem(t, 6500)
	s.launch("scheduler")
	var once sync.Once
	var worker *exec.Cmd
	started := make(chan struct{})
	killed := make(chan struct{})
	s.sim.Before(func(r erpsim.Request) {
		if r.Op == qbo.Query && r.N == 4 {
			once.Do(func() {
				<-started
				_ = worker.Process.Kill()
				close(killed)
			})
		}
	})
	worker = s.launch("worker")
	close(started)
	<-killed
	_ = worker.Wait()
	s.launch("worker")
	s.ctl(nil, 0, "run", "watch", "1")
	r, err := s.store.Run(t.Context(), 1)
	if err != nil {
		t.Fatal(err)
	}
	if r.Read != 6500 || r.Created != 6500 || r.Claims < 2 {
		t.Errorf("read %d, created %d, claims %d; want 6500, 6500 and 2 or more", r.Read, r.Created, r.Claims)
	}
	if n := s.sim.Log().Count(realm, qbo.Query); n > 7+3 {
		t.Errorf("%d pages were asked for: more than a few were fetched again", n)
	}
	s.equal()
	if v := s.sim.Violations(); len(v) != 0 {
		t.Errorf("requests that are no reads: %+v", v)
	}
}

// TestProgramsStopCleanly: SIGTERM ends a worker at its next page with status 0, and the run goes on elsewhere.
func TestProgramsStopCleanly(t *testing.T) {
	s := newSystem(t, 6500)
	scheduler := s.launch("scheduler")
	reached := make(chan struct{})
	var once sync.Once
	s.sim.Before(func(r erpsim.Request) {
		if r.Op == qbo.Query && r.N == 3 {
			once.Do(func() { close(reached) })
		}
	})
	worker := s.launch("worker")
	<-reached
	for _, cmd := range []*exec.Cmd{worker, scheduler} {
		if err := cmd.Process.Signal(syscall.SIGTERM); err != nil {
			t.Fatal(err)
		}
		if err := cmd.Wait(); err != nil {
			t.Errorf("%s: %v", filepath.Base(cmd.Path), err)
		}
	}
	s.launch("scheduler")
	s.launch("worker")
	s.ctl(nil, 0, "run", "watch", "1")
	s.equal()
}

// TestRedisEmptiedLosesNothing guards rule 3.
func TestRedisEmptiedLosesNothing(t *testing.T) {
	s := newSystem(t, 3500)
	var once sync.Once
	s.sim.Before(func(r erpsim.Request) {
		if r.Op == qbo.Query && r.N == 2 {
			once.Do(s.redis.Flush)
		}
	})
	s.launch("scheduler")
	s.launch("worker")
	s.ctl(nil, 0, "run", "watch", "1")
	s.redis.Flush()
	s.ctl(nil, 0, "resync", "1", "--full", "--wait")
	s.equal()
}

// TestBadConfigurationIsOneSentence: what is wrong, what to do, and the exit status.
func TestBadConfigurationIsOneSentence(t *testing.T) {
	s := newSystem(t, 1)
	empty := pgtest.New(t)
	for _, c := range []struct {
		name   string
		env    string
		status int
		want   string
	}{
		{"worker", "DATABASE_URL=", 2, "DATABASE_URL is not set"},
		{"worker", "CREDENTIALS_KEY=short", 2, "CREDENTIALS_KEY"},
		{"scheduler", "LEASE=soon", 2, "LEASE"},
		{"worker", "REDIS_URL=redis://127.0.0.1:1", 1, "redis cannot be reached"},
		{"scheduler", "DATABASE_URL=postgres://nobody@127.0.0.1:1/x?sslmode=disable", 1, "cannot be reached"},
		{"worker", "DATABASE_URL=" + strings.Replace(empty, pgtest.Value(t, empty, "SELECT current_database()"), "postgres", 1), 1, "run `syncctl migrate`"},
		{"syncctl", "DATABASE_URL=", 2, "DATABASE_URL is not set"},
	} {
		cmd := exec.CommandContext(t.Context(), filepath.Join(s.bin, c.name))
		if c.name == "syncctl" {
			cmd.Args = append(cmd.Args, "tenant", "list")
		}
		cmd.Env = append(append([]string{}, s.env...), c.env)
		out, _ := cmd.CombinedOutput()
		if got := cmd.ProcessState.ExitCode(); got != c.status || !strings.Contains(string(out), c.want) {
			t.Errorf("%s with %s: exit %d, want %d with %q:\n%s", c.name, c.env, got, c.status, c.want, out)
		}
	}
	for _, c := range []struct {
		want string
		args []string
	}{
		{"there is no ERP", []string{"connection", "add", "--tenant", "Kelp", "--erp", "sap", "--account", "1", "--credentials", "-"}},
		{"refresh_token is missing", []string{"connection", "add", "--tenant", "Kelp", "--erp", "quickbooks-online", "--account", "1", "--credentials", "-"}},
		{"there is no setting", []string{"connection", "set", "1", "speed=9"}},
		{"unknown flag", []string{"tenant", "list", "--nope"}},
	} {
		if out := s.ctl([]byte(`{}`), 2, c.args...); !strings.Contains(out, c.want) {
			t.Errorf("syncctl %v: %s", c.args, out)
		}
	}
	if out := s.ctl(nil, 1, "connection", "set", "1", "schedule=sometimes"); !strings.Contains(out, "@every 1h") {
		t.Errorf("%s", out)
	}
	if out := s.ctl(nil, 1, "--json", "run", "show", "99"); !strings.Contains(out, `"kind": "not_found"`) {
		t.Errorf("%s", out)
	}
}

// TestRefusedLoginNeedsAttention: one call, a plain reason, exit status 3, and new credentials heal it.
func TestRefusedLoginNeedsAttention(t *testing.T) {
	s := newSystem(t, 10)
	s.launch("scheduler")
	s.launch("worker")
	s.ctl(nil, 0, "run", "watch", "1")
	s.company.Revoke()
	s.company.ExpireAccess()
	if out := s.ctl(nil, 3, "resync", "1", "--wait"); !strings.Contains(out, "connection credentials") {
		t.Errorf("no word of what to do:\n%s", out)
	}
	if out := s.ctl(nil, 0, "connection", "list", "--state", "needs_attention"); !strings.Contains(out, "Northwind Kelp") {
		t.Errorf("%s", out)
	}
	login, err := json.Marshal(s.company.Connect())
	if err != nil {
		t.Fatal(err)
	}
	s.ctl(login, 0, "connection", "credentials", "1", "-")
	s.ctl(nil, 0, "resync", "1", "--wait")
	if out := s.ctl(nil, 0, "connection", "list", "--state", "active"); !strings.Contains(out, "Northwind Kelp") {
		t.Errorf("%s", out)
	}
}

package bench

import (
	"bytes"
	"context"
	"database/sql"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"syscall"
	"time"

	"github.com/centime/contactsync/internal/credentials"
	"github.com/centime/contactsync/internal/queue"
)

const (
	database = "contactsync_bench"
	// perSecond raises the request budget far above QuickBooks' own, which would otherwise be all that is measured.
	perSecond = 1000
)

// system is the programs at work on a database of their own: a simulator, one worker, and a scheduler while something is
// measured.
type system struct {
	*Bench
	customers int
	records   int64 // that the ERP has, as the first load counted them

	server     *sql.DB // the database of DATABASE_URL, from where the other one is made and dropped
	url        url.URL // of the bench's database
	db         *sql.DB
	postmaster int  // Postgres' first process; 0: it runs elsewhere
	statements bool // pg_stat_statements can be read

	key          string // of the key ring
	env          []string
	api, control string // addresses of the simulator
	worker       int    // its process
	programs     []*exec.Cmd
}

func (s *system) start(ctx context.Context) error {
	if _, err := exec.LookPath("psql"); err != nil {
		return errors.New("psql is missing, which loads the yardstick: install Postgres' client programs")
	}
	if err := s.prepare(ctx); err != nil {
		return err
	}
	if err := s.startSimulator(ctx, s.ERP.simulator, fmt.Sprintf("%s=Northwind Kelp=%d", s.ERP.account, s.customers)); err != nil {
		return err
	}
	worker, err := s.launch(ctx, "worker")
	if err != nil {
		return err
	}
	s.worker = worker.Process.Pid
	return nil
}

// prepare makes an empty Redis and a database with our schema, and the environment of the programs.
func (s *system) prepare(ctx context.Context) error {
	if err := s.makeDatabase(ctx); err != nil {
		return err
	}
	redis, err := queue.Open(s.RedisURL)
	if err != nil {
		return err
	}
	defer redis.Close()
	if err := redis.Forget(ctx); err != nil {
		return err
	}
	s.key = credentials.NewKey()
	s.env = append(os.Environ(), "DATABASE_URL="+s.url.String(), "MIGRATIONS_DATABASE_URL=", "REDIS_URL="+s.RedisURL,
		"CREDENTIALS_KEY="+s.key, "QUICKBOOKS_CLIENT_ID=client", "QUICKBOOKS_CLIENT_SECRET=secret")
	s.env = append(s.env, s.Env...)
	if err := s.syncctl(ctx, nil, "migrate"); err != nil {
		return err
	}
	return s.findCounters(ctx)
}

// makeDatabase makes it anew, so that a series that was killed leaves nothing behind.
func (s *system) makeDatabase(ctx context.Context) error {
	u, err := url.Parse(s.DatabaseURL)
	if err != nil {
		return errors.New("DATABASE_URL cannot be read")
	}
	s.url = *u
	s.url.Path = "/" + database
	if s.server, err = sql.Open("postgres", s.DatabaseURL); err != nil {
		return fmt.Errorf("postgres: %w", err)
	}
	for _, statement := range []string{"DROP DATABASE IF EXISTS " + database + " WITH (FORCE)", "CREATE DATABASE " + database} {
		if _, err := s.server.ExecContext(ctx, statement); err != nil {
			return fmt.Errorf("make the database %s: %w", database, err)
		}
	}
	if s.db, err = sql.Open("postgres", s.url.String()); err != nil {
		return fmt.Errorf("postgres: %w", err)
	}
	return nil
}

func (s *system) startSimulator(ctx context.Context, args ...string) error {
	sim := s.command(ctx, "erpsim", append([]string{"-prerender"}, args...)...)
	out, err := sim.StdoutPipe()
	if err != nil {
		return fmt.Errorf("start erpsim: %w", err)
	}
	if err := s.begin(sim); err != nil {
		return err
	}
	var addresses struct{ Listen, Control string }
	if err := json.NewDecoder(out).Decode(&addresses); err != nil {
		return fmt.Errorf("erpsim did not start: see %s: %w", s.Logs, err)
	}
	s.api, s.control = addresses.Listen, addresses.Control
	return nil
}

// conditions prints what the figures depend on.
func (s *system) conditions(ctx context.Context) error {
	var postgres string
	if err := s.db.QueryRowContext(ctx, `
		SELECT 'Postgres ' || split_part(current_setting('server_version'), ' ', 1) || ': '
			|| string_agg(name || ' ' || current_setting(name), ', ' ORDER BY name)
		FROM unnest(ARRAY['fsync', 'synchronous_commit', 'full_page_writes', 'wal_level', 'shared_buffers', 'autovacuum']) AS s (name)`).
		Scan(&postgres); err != nil {
		return fmt.Errorf("read Postgres' settings: %w", err)
	}
	load, err := os.ReadFile("/proc/loadavg")
	if err != nil {
		return fmt.Errorf("read the machine's load: %w", err)
	}
	busy, _, _ := strings.Cut(string(load), " ")
	counted := "pg_stat_statements, those run as contactsync_sync"
	if !s.statements {
		counted = "not counted, the server does not preload pg_stat_statements"
	}
	fmt.Fprintf(s.Out, `%d processors, load %s before; %s
%s
One connection to a simulated %s, one worker, one scheduler, all on this machine.
%s
Before each measurement: VACUUM (ANALYZE), CHECKPOINT.
Yardstick: psql on this machine copies the final rows from files into temporary tables and merges each into an empty copy of
its table, with the same indexes and constraints and without triggers and policies, in one transaction per table; then the
same again, which finds nothing to write. Client CPU is the worker's, in the yardstick's rows psql's.
Statements: %s.
`, runtime.NumCPU(), busy, runtime.Version(), postgres, s.ERP.label, s.ERP.conditions, counted)
	return nil
}

func (s *system) program(name string) string { return filepath.Join(s.Bin, name) }

// command makes a program ready, in a process group of its own, so that Ctrl-C reaches the bench first, which ends the others in
// order.
func (s *system) command(ctx context.Context, name string, args ...string) *exec.Cmd {
	cmd := exec.CommandContext(context.WithoutCancel(ctx), s.program(name), args...) //nolint:gosec // our own program
	cmd.Env = s.env
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true, Pdeathsig: syscall.SIGTERM}
	return cmd
}

// begin starts a program whose log goes to a file.
func (s *system) begin(cmd *exec.Cmd) error {
	name := filepath.Base(cmd.Path)
	log, err := os.OpenFile(filepath.Join(s.Logs, name+".log"), os.O_CREATE|os.O_WRONLY|os.O_APPEND, 0o600) //nolint:gosec // our own program's
	if err != nil {
		return fmt.Errorf("log of %s: %w", name, err)
	}
	defer log.Close()
	cmd.Stderr = log
	if err := cmd.Start(); err != nil {
		return fmt.Errorf("start %s: %w", name, err)
	}
	s.programs = append(s.programs, cmd)
	return nil
}

func (s *system) launch(ctx context.Context, name string) (*exec.Cmd, error) {
	cmd := s.command(ctx, name)
	return cmd, s.begin(cmd)
}

// end asks a program to end, and kills it if it does not within 30 s.
func (s *system) end(cmd *exec.Cmd) error {
	s.programs = slices.DeleteFunc(s.programs, func(c *exec.Cmd) bool { return c == cmd })
	_ = cmd.Process.Signal(syscall.SIGTERM) // one that ended by itself says so below
	kill := time.AfterFunc(30*time.Second, func() { _ = cmd.Process.Kill() })
	defer kill.Stop()
	if err := cmd.Wait(); err != nil {
		return fmt.Errorf("%s: %w: see %s", filepath.Base(cmd.Path), err, s.Logs)
	}
	return nil
}

// stop ends the programs, the last started first, and drops the database.
func (s *system) stop(ctx context.Context) (err error) {
	for len(s.programs) > 0 {
		err = errors.Join(err, s.end(s.programs[len(s.programs)-1]))
	}
	if s.db != nil {
		_ = s.db.Close()
		if _, dropErr := s.server.ExecContext(ctx, "DROP DATABASE IF EXISTS "+database+" WITH (FORCE)"); dropErr != nil {
			err = errors.Join(err, fmt.Errorf("drop the database %s: %w", database, dropErr))
		}
	}
	if s.server != nil {
		_ = s.server.Close()
	}
	return err
}

func (s *system) syncctl(ctx context.Context, stdin []byte, args ...string) error {
	cmd := exec.CommandContext(ctx, s.program("syncctl"), args...) //nolint:gosec // our own program
	cmd.Env, cmd.Stdin = s.env, bytes.NewReader(stdin)
	if out, err := cmd.CombinedOutput(); err != nil {
		return fmt.Errorf("syncctl %s: %w: %s", args[0], err, bytes.TrimSpace(out))
	}
	return nil
}

// resync queues a run, which begins with the scheduler.
func (s *system) resync(flags ...string) func(context.Context) error {
	return func(ctx context.Context) error {
		return s.syncctl(ctx, nil, append([]string{"resync", "1"}, flags...)...)
	}
}

// dataRequests is what the simulator was asked since its log was emptied; token requests do not count.
func (s *system) dataRequests(ctx context.Context) (int64, error) {
	var counters struct {
		Requests int64            `json:"requests"`
		ByOp     map[string]int64 `json:"by_op"`
	}
	err := s.ask(ctx, http.MethodGet, "/counters", nil, &counters)
	return counters.Requests - counters.ByOp["token"], err
}

// ask uses the simulator's control port.
func (s *system) ask(ctx context.Context, method, path string, body, answer any) error {
	text := []byte{}
	if body != nil {
		var err error
		if text, err = json.Marshal(body); err != nil {
			return fmt.Errorf("control port: %w", err)
		}
	}
	req, err := http.NewRequestWithContext(ctx, method, s.control+s.ERP.control+path, bytes.NewReader(text))
	if err != nil {
		return fmt.Errorf("control port: %w", err)
	}
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		return fmt.Errorf("control port: %w", err)
	}
	defer resp.Body.Close()
	got, err := io.ReadAll(resp.Body)
	if err != nil {
		return fmt.Errorf("control port: %s %s: %w", method, path, err)
	}
	if resp.StatusCode != http.StatusOK {
		return fmt.Errorf("control port: %s %s: %s %s", method, path, resp.Status, got)
	}
	if answer == nil {
		return nil
	}
	if err := json.Unmarshal(got, answer); err != nil {
		return fmt.Errorf("control port: %s %s: %w", method, path, err)
	}
	return nil
}

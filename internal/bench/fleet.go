package bench

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"math/rand/v2"
	"net/http"
	"os"
	"os/exec"
	"slices"
	"strconv"
	"strings"
	"sync"
	"text/tabwriter"
	"time"

	"github.com/centime/contactsync/internal/connector"
	"github.com/centime/contactsync/internal/credentials"
	"github.com/centime/contactsync/internal/postgres"
	"github.com/centime/contactsync/internal/settings"
)

// Fleet is many connections on hourly schedules, most of them idle, measured without and with one huge first load beside them.
type Fleet struct {
	*Bench
	Connections int
	Customers   int           // of each
	Huge        int           // customers of the huge one
	Window      time.Duration // of each of the two measurements
}

const (
	hugeRealm = "9130359999999999"
	// busyShare of the connections change a customer now and then.
	busyShare = 0.05
	// changesPerSecond are made in the simulator, over all busy companies.
	changesPerSecond = 5
	// edge is left out at a window's end: a run that is due then may end after it.
	edge = 20 * time.Second
)

// Run measures, prints and returns the aims that were missed, a sentence each.
func (f *Fleet) Run(ctx context.Context) (missed []string, err error) {
	if err := os.RemoveAll(f.Logs); err != nil {
		return nil, fmt.Errorf("logs: %w", err)
	}
	if err := os.MkdirAll(f.Logs, 0o700); err != nil {
		return nil, fmt.Errorf("logs: %w", err)
	}
	s := &fleetSystem{system: &system{Bench: f.Bench}, fleet: f}
	defer func() { err = errors.Join(err, s.stop(context.WithoutCancel(ctx))) }()
	if err := s.prepare(ctx); err != nil {
		return nil, err
	}
	fmt.Fprintf(f.Progress, "rendering the pages of %s customers\n", thousands(int64(f.Huge)))
	if err := s.startSimulator(ctx, "-company", fmt.Sprintf("%s=Huge Kelp=%d", hugeRealm, f.Huge)); err != nil {
		return nil, err
	}
	if err := s.join(ctx); err != nil {
		return nil, err
	}
	for range 2 {
		for _, name := range []string{"scheduler", "worker"} {
			cmd, err := s.launch(ctx, name)
			if err != nil {
				return nil, err
			}
			if name == "worker" {
				s.workers = append(s.workers, cmd.Process.Pid)
			}
		}
	}
	if err := s.alone(ctx); err != nil {
		return nil, err
	}
	if err := s.loaded(ctx); err != nil {
		return nil, err
	}
	var windows []window
	for _, name := range []string{"without the huge one", "with its first load"} {
		w, err := s.measure(ctx, name, len(windows) == 1)
		if err != nil {
			return nil, fmt.Errorf("%s: %w", name, err)
		}
		windows = append(windows, w)
	}
	f.print(windows)
	return fleetVerdicts(windows), nil
}

type fleetSystem struct {
	*system
	fleet   *Fleet
	store   *postgres.Store
	tenant  int64
	realms  []string
	workers []int
	ticking float64 // statements a second of programs that have nothing to do
}

// join makes the companies in the simulator and connects them, as `syncctl connection add` would, in one process.
func (s *fleetSystem) join(ctx context.Context) (err error) {
	if s.store, err = postgres.Open(s.url.String(), 8); err != nil {
		return err
	}
	if s.tenant, err = s.store.AddTenant(ctx, "Northern Finance", "UTC", postgres.By{User: "ops"}); err != nil {
		return err
	}
	began, told := time.Now(), time.Now()
	numbers, failed := make(chan int), make(chan error, 8)
	var all sync.WaitGroup
	for range 8 {
		all.Go(func() {
			for i := range numbers {
				if err := s.add(ctx, realmOf(i), s.fleet.Customers, uint64(i)); err != nil { //nolint:gosec // a small number
					failed <- err
					return
				}
			}
		})
	}
	for i := range s.fleet.Connections {
		s.realms = append(s.realms, realmOf(i))
		select {
		case numbers <- i:
		case err := <-failed:
			close(numbers)
			return err
		}
		if time.Since(told) > 5*time.Second {
			told = time.Now()
			fmt.Fprintf(s.Progress, "  %s connections, %.0f/s\n", thousands(int64(i)), float64(i)/time.Since(began).Seconds())
		}
	}
	close(numbers)
	all.Wait()
	select {
	case err := <-failed:
		return err
	default:
	}
	return nil
}

// alone counts what the programs ask of Postgres while nothing is due, and then has all connections read.
func (s *fleetSystem) alone(ctx context.Context) error {
	const settled, counted = 5 * time.Second, 15 * time.Second
	if err := sleep(ctx, settled); err != nil {
		return err
	}
	before, err := s.fleetSample(ctx)
	if err != nil {
		return err
	}
	if err := sleep(ctx, counted); err != nil {
		return err
	}
	after, err := s.fleetSample(ctx)
	if err != nil {
		return err
	}
	s.ticking = float64(after.statements-before.statements) / counted.Seconds()
	_, err = s.db.ExecContext(ctx, `UPDATE contactsync.connections SET state = 'active', next_due_at = now()`)
	return err
}

func realmOf(i int) string { return strconv.Itoa(9130350000000000 + i) }

func (s *fleetSystem) add(ctx context.Context, realm string, customers int, seed uint64) error {
	if customers > 0 {
		if err := s.ask(ctx, http.MethodPost, "/companies", map[string]string{"realm": realm, "name": "Kelp " + realm}, nil); err != nil {
			return err
		}
		if err := s.ask(ctx, http.MethodPost, "/companies/"+realm+"/bulk", map[string]any{"count": customers, "seed": seed}, nil); err != nil {
			return err
		}
	}
	var login json.RawMessage
	if err := s.ask(ctx, http.MethodPost, "/companies/"+realm+"/credentials", nil, &login); err != nil {
		return err
	}
	var c connector.Credentials
	if err := json.Unmarshal(login, &c); err != nil {
		return fmt.Errorf("credentials of %s: %w", realm, err)
	}
	ring, err := credentials.ParseRing(s.key)
	if err != nil {
		return err
	}
	_, err = s.store.AddConnection(ctx, postgres.NewConnection{
		Tenant: s.tenant, ERP: "quickbooks-online", Account: realm, Name: "Kelp " + realm, Schedule: "@every 1h", Paused: customers > 0,
		Settings: settings.Map{"api_url": s.api, "token_url": s.api + "/oauth2/v1/tokens/bearer"},
		Seal: func(id int64) (credentials.Stored, error) {
			return ring.Pack(c, credentials.Place{Table: "credentials", Tenant: s.tenant, Connection: id})
		},
	}, postgres.By{User: "bench"})
	return err
}

// loaded waits until every connection was read once.
func (s *fleetSystem) loaded(ctx context.Context) error {
	began, told := time.Now(), time.Now()
	last, moved := int64(-1), time.Now()
	for {
		var n int64
		if err := s.db.QueryRowContext(ctx, `SELECT count(*) FROM contactsync.connections WHERE last_success_at IS NOT NULL`).Scan(&n); err != nil {
			return fmt.Errorf("follow the loads: %w", err)
		}
		if n == int64(s.fleet.Connections) {
			fmt.Fprintf(s.Progress, "  all %s connections were read once, in %.0f s\n", thousands(n), time.Since(began).Seconds())
			return nil
		}
		if n != last {
			last, moved = n, time.Now()
		}
		if time.Since(moved) > s.patience() {
			return fmt.Errorf("the loads stand still at %d of %d connections: see %s", n, s.fleet.Connections, s.Logs)
		}
		if time.Since(told) > 10*time.Second {
			told = time.Now()
			fmt.Fprintf(s.Progress, "  %s of %s connections were read once\n", thousands(n), thousands(int64(s.fleet.Connections)))
		}
		if err := sleep(ctx, 500*time.Millisecond); err != nil {
			return err
		}
	}
}

// A window is what was seen in one measurement.
type window struct {
	name       string
	delays     []time.Duration // from the due time to the first claim, of scheduled runs
	times      []time.Duration // from the first claim to the end
	idle       int             // runs that read nothing
	idleCalls  int64           // of those, all together
	unfinished int             // due in the window and not ended with it
	calls      int64
	statements float64 // per run, of all programs, without BEGIN and COMMIT and what they ask when nothing is due
	server     time.Duration
	redis      int64 // commands
	wal        int64
	peaks      []int64
	hugeRead   int64 // customers of the huge one that were read by the end
}

func (s *fleetSystem) measure(ctx context.Context, name string, huge bool) (window, error) {
	w := window{name: name}
	if err := s.settle(ctx); err != nil {
		return w, err
	}
	if huge {
		if err := s.add(ctx, hugeRealm, 0, 0); err != nil {
			return w, err
		}
	}
	for _, pid := range s.workers {
		if err := forgetPeak(pid); err != nil {
			return w, err
		}
	}
	// Due times are whole seconds, and ticks two seconds apart: by which part of a second the schedulers were started in, all delays are
	// short or long, and the same wait is much of them or little. So they are made due at any moment.
	if _, err := s.db.ExecContext(ctx, `UPDATE contactsync.connections SET next_due_at = next_due_at + random() * interval '2 s'
		WHERE account <> '`+hugeRealm+`' AND next_due_at > now() + interval '2 s'`); err != nil {
		return w, fmt.Errorf("spread what is due: %w", err)
	}
	if _, err := s.db.ExecContext(ctx, `DROP TABLE IF EXISTS due; CREATE TABLE due AS
		SELECT id, next_due_at AS at, now() AS began FROM contactsync.connections WHERE account <> '`+hugeRealm+`'`); err != nil {
		return w, fmt.Errorf("note what is due: %w", err)
	}
	before, err := s.fleetSample(ctx)
	if err != nil {
		return w, err
	}
	fmt.Fprintf(s.Progress, "%s: measuring for %v\n", name, s.fleet.Window)
	if err := s.live(ctx, s.fleet.Window); err != nil {
		return w, err
	}
	after, err := s.fleetSample(ctx)
	if err != nil {
		return w, err
	}
	if err := s.collect(ctx, &w, s.fleet.Window-edge); err != nil {
		return w, err
	}
	w.wal, w.redis, w.server = after.wal-before.wal, after.redis-before.redis, unknown
	if before.server != unknown {
		w.server = after.server - before.server
	}
	w.statements = unknown
	if runs := after.runs - before.runs; before.statements != unknown && runs > 0 {
		w.statements = (float64(after.statements-before.statements) - s.ticking*s.fleet.Window.Seconds()) / float64(runs)
	}
	for _, pid := range s.workers {
		n, err := peak(pid)
		if err != nil {
			return w, err
		}
		w.peaks = append(w.peaks, n)
	}
	err = s.db.QueryRowContext(ctx, `SELECT coalesce(sum(r.read), 0)::bigint FROM contactsync.runs r JOIN contactsync.connections n ON n.id = r.connection_id
		WHERE n.account = $1`, hugeRealm).Scan(&w.hugeRead)
	return w, err
}

// live lets time pass, while busy companies change customers.
func (s *fleetSystem) live(ctx context.Context, d time.Duration) error {
	busy := s.realms[:max(1, int(float64(len(s.realms))*busyShare))]
	tick := time.NewTicker(time.Second / changesPerSecond)
	defer tick.Stop()
	for end := time.Now().Add(d); time.Now().Before(end); {
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-tick.C:
		}
		realm, n := busy[rand.N(len(busy))], 1+rand.N(s.fleet.Customers) //nolint:gosec // not a secret
		path := fmt.Sprintf("/companies/%s/customers/%d", realm, n)
		if err := s.ask(ctx, http.MethodPatch, path, map[string]string{"email": fmt.Sprintf("a%d@bench.example", time.Now().UnixNano())}, nil); err != nil {
			return err
		}
	}
	return nil
}

// collect reads what became of what was due in the window.
func (s *fleetSystem) collect(ctx context.Context, w *window, length time.Duration) error {
	rows, err := s.db.QueryContext(ctx, `
		SELECT extract(epoch FROM r.started_at - d.at)::float8, extract(epoch FROM r.finished_at - r.started_at)::float8, r.erp_calls, r.read
		FROM due d LEFT JOIN contactsync.runs r ON r.connection_id = d.id AND r.queued_at >= d.at AND r.status = 'succeeded'
		WHERE d.at BETWEEN d.began AND d.began + $1 * interval '1 microsecond'`, length.Microseconds())
	if err != nil {
		return fmt.Errorf("read the runs: %w", err)
	}
	defer rows.Close()
	for rows.Next() {
		var delay, took *float64
		var calls, read *int64
		if err := rows.Scan(&delay, &took, &calls, &read); err != nil {
			return fmt.Errorf("read the runs: %w", err)
		}
		if delay == nil {
			w.unfinished++
			continue
		}
		w.delays, w.times = append(w.delays, inSeconds(*delay)), append(w.times, inSeconds(*took))
		w.calls += *calls
		if *read == 0 {
			w.idle++
			w.idleCalls += *calls
		}
	}
	slices.Sort(w.delays)
	slices.Sort(w.times)
	return rows.Err()
}

func inSeconds(s float64) time.Duration { return time.Duration(s * float64(time.Second)) }

type fleetSample struct {
	server                       time.Duration
	wal, redis, runs, statements int64
}

func (s *fleetSystem) fleetSample(ctx context.Context) (now fleetSample, err error) {
	now.server, now.statements = unknown, unknown
	if s.postmaster != 0 {
		if now.server, err = family(s.postmaster); err != nil {
			return now, err
		}
	}
	if s.system.statements {
		err = s.db.QueryRowContext(ctx, `
			SELECT coalesce(sum(calls), 0)::bigint FROM pg_stat_statements s JOIN pg_roles r ON r.oid = s.userid
			JOIN pg_database d ON d.oid = s.dbid
			WHERE (r.rolname LIKE 'contactsync%' OR s.query LIKE 'SELECT set_config(%') AND d.datname = current_database() AND s.query !~* '^(begin|commit|rollback)'`).Scan(&now.statements)
		if err != nil {
			return now, fmt.Errorf("count statements: %w", err)
		}
	}
	err = s.db.QueryRowContext(ctx, `
		SELECT pg_wal_lsn_diff(pg_current_wal_insert_lsn(), '0/0')::bigint,
			(SELECT count(*) FROM contactsync.runs WHERE status = 'succeeded')`).Scan(&now.wal, &now.runs)
	if err != nil {
		return now, fmt.Errorf("read Postgres' counters: %w", err)
	}
	now.redis, err = s.redisCommands(ctx)
	return now, err
}

// redisCommands is how many commands Redis has worked since it was started.
func (s *fleetSystem) redisCommands(ctx context.Context) (int64, error) {
	cmd := exec.CommandContext(ctx, "redis-cli", "-u", s.RedisURL, "--no-auth-warning", "INFO", "stats") //nolint:gosec // our own server
	out, err := cmd.Output()
	if err != nil {
		return 0, fmt.Errorf("redis-cli INFO: %w", err)
	}
	for line := range strings.Lines(string(out)) {
		if text, ok := strings.CutPrefix(strings.TrimSpace(line), "total_commands_processed:"); ok {
			return strconv.ParseInt(text, 10, 64)
		}
	}
	return 0, errors.New("redis-cli INFO does not say how many commands were worked")
}

// share is the value that the given share of sorted values does not exceed.
func share(sorted []time.Duration, of float64) time.Duration {
	if len(sorted) == 0 {
		return 0
	}
	return sorted[min(len(sorted)-1, int(float64(len(sorted))*of))]
}

func (f *Fleet) print(windows []window) {
	fmt.Fprintf(f.Out, "%s connections with %d customers each on hourly schedules, %.0f %% of them busy (%d changes a second in all);\n"+
		"the huge one has %s customers. Two workers, two schedulers, default settings, QuickBooks' own request budget. Windows of %v.\n\n",
		thousands(int64(f.Connections)), f.Customers, busyShare*100, changesPerSecond, thousands(int64(f.Huge)), f.Window)
	w := tabwriter.NewWriter(f.Out, 0, 0, 2, ' ', 0)
	line := func(name string, of func(window) string) {
		fmt.Fprint(w, name)
		for _, v := range windows {
			fmt.Fprintf(w, "\t%s", of(v))
		}
		fmt.Fprintln(w)
	}
	spread := func(d []time.Duration) string {
		return fmt.Sprintf("%s / %s / %s / %s", seconds(share(d, 0.5)), seconds(share(d, 0.9)), seconds(share(d, 0.99)), seconds(share(d, 1)))
	}
	line("", func(v window) string { return v.name })
	line("scheduled runs", func(v window) string { return thousands(int64(len(v.delays))) })
	line("due, and not ended in the window", func(v window) string { return thousands(int64(v.unfinished)) })
	line("start delay s, p50 / p90 / p99 / max", func(v window) string { return spread(v.delays) })
	line("run time s, p50 / p90 / p99 / max", func(v window) string { return spread(v.times) })
	line("idle runs, ERP calls each", func(v window) string {
		return fmt.Sprintf("%s, %.2f", thousands(int64(v.idle)), float64(v.idleCalls)/float64(max(1, v.idle)))
	})
	line("statements per run, ticks aside", func(v window) string { return strconv.FormatFloat(v.statements, 'f', 1, 64) })
	line("Postgres CPU s", func(v window) string { return seconds(v.server) })
	line("WAL MB", func(v window) string { return megabytes(v.wal) })
	line("Redis commands a second", func(v window) string { return thousands(v.redis / int64(f.Window.Seconds())) })
	line("peak MB of the workers", func(v window) string {
		var all []string
		for _, n := range v.peaks {
			all = append(all, megabytes(n))
		}
		return strings.Join(all, ", ")
	})
	line("customers of the huge one read", func(v window) string { return thousands(v.hugeRead) })
	_ = w.Flush() // to a terminal or a file that nobody can mend
}

// The aims of a fleet.
const (
	delayMax      = 5 * time.Second // of 99 in 100 runs
	influenceMax  = 0.10            // of the huge one on the others' start delay
	statementsMax = 10
)

func fleetVerdicts(windows []window) []string {
	var missed []string
	miss := func(format string, args ...any) { missed = append(missed, fmt.Sprintf(format, args...)) }
	for _, w := range windows {
		if p99 := share(w.delays, 0.99); p99 >= delayMax {
			miss("%s: 1 %% of the runs started %v or more after they were due; it must be under %v.", w.name, p99.Round(time.Millisecond), delayMax)
		}
		if w.unfinished > 0 {
			miss("%s: %d runs that were due did not end.", w.name, w.unfinished)
		}
		if int64(w.idle) != w.idleCalls {
			miss("%s: %d idle runs made %d ERP calls; one each is allowed.", w.name, w.idle, w.idleCalls)
		}
	}
	alone, beside := windows[0], windows[1]
	if alone.statements != unknown && alone.statements >= statementsMax {
		miss("%s: a run takes %.1f statements; it must be under %d.", alone.name, alone.statements, statementsMax)
	}
	a, b := share(alone.delays, 0.99), share(beside.delays, 0.99)
	if float64(b) > float64(a)*(1+influenceMax) {
		miss("The huge first load moves the others' start delay (p99) from %v to %v; at most a tenth is allowed.", a.Round(time.Millisecond), b.Round(time.Millisecond))
	}
	return missed
}

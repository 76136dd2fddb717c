// Package bench measures the real programs against a simulated ERP, and beside them a yardstick: psql loading the same rows into
// the same tables.
package bench

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"time"

	_ "github.com/centime/contactsync/internal/postgres" // brings the driver
)

// Bench is one series of measurements.
type Bench struct {
	ERP         ERP    // that is measured
	Bin         string // folder of the programs
	Logs        string // folder for their logs, made anew
	DatabaseURL string // of a superuser, on a server where databases can be made and which nobody else uses meanwhile
	RedisURL    string
	Env         []string  // more of the programs' environment
	Sizes       []int     // numbers of customers; each gets a database and programs of its own
	Out         io.Writer // for the figures
	Progress    io.Writer
}

// The scenarios, in the order in which they are measured. The idle run comes before the changes: a run reads again what
// changed in the last minutes.
const (
	firstLoad    = "first load"
	unchanged    = "unchanged full resync"
	idle         = "idle incremental"
	onePercent   = "1 % changed, incremental"
	psqlLoads    = "yardstick: load"
	psqlCompares = "yardstick: unchanged"
)

// Run measures all sizes and prints the figures. It returns the aims that were missed, a sentence each. Those of time are not
// among them: where one is missed, the figures say so.
func (b *Bench) Run(ctx context.Context) (missed []string, err error) {
	if err := os.RemoveAll(b.Logs); err != nil {
		return nil, fmt.Errorf("logs: %w", err)
	}
	if err := os.MkdirAll(b.Logs, 0o700); err != nil {
		return nil, fmt.Errorf("logs: %w", err)
	}
	var all []figures
	for i, n := range b.Sizes {
		if n < 100 {
			return nil, fmt.Errorf("%d customers: want 100 or more, one of which can change", n)
		}
		made, err := b.measure(ctx, n, i == 0)
		if err != nil {
			return nil, fmt.Errorf("%s customers: %w", thousands(int64(n)), err)
		}
		all = append(all, made...)
	}
	fmt.Fprintf(b.Out, "\n%s\n%s\n", table(all), ratios(all))
	for _, sentence := range verdicts(all) {
		missed = append(missed, b.ERP.label+": "+sentence)
	}
	return missed, nil
}

// measure takes the figures of one size. The first one also prints the conditions, which are the same for all.
func (b *Bench) measure(ctx context.Context, customers int, first bool) (all []figures, err error) {
	fmt.Fprintf(b.Progress, "%s, %s customers: making the company\n", b.ERP.label, thousands(int64(customers)))
	s := &system{Bench: b, customers: customers}
	defer func() { err = errors.Join(err, s.stop(context.WithoutCancel(ctx))) }()
	if err := s.start(ctx); err != nil {
		return nil, err
	}
	if first {
		if err := s.conditions(ctx); err != nil {
			return nil, err
		}
	}
	if err := s.connect(ctx); err != nil {
		return nil, err
	}
	must, err := b.ERP.expect(ctx, s)
	if err != nil {
		return nil, err
	}
	for _, step := range []struct {
		name    string
		prepare func(context.Context) error
		after   func(context.Context) ([]figures, error)
	}{
		{name: firstLoad, after: s.yardstick},
		{name: unchanged, prepare: s.resync("--full")},
		{name: idle, prepare: s.resync()},
		{name: onePercent, prepare: s.changeAndResync},
	} {
		if step.prepare != nil {
			if err := step.prepare(ctx); err != nil {
				return nil, err
			}
		}
		f, err := s.scenario(ctx, step.name, must[step.name])
		if err != nil {
			return nil, fmt.Errorf("%s: %w", step.name, err)
		}
		all = append(all, f)
		s.records = max(s.records, f.Records)
		if step.after != nil {
			more, err := step.after(ctx)
			if err != nil {
				return nil, err
			}
			all = append(all, more...)
		}
	}
	return all, nil
}

// scenario lets the run that is queued begin, and measures it to its end.
func (s *system) scenario(ctx context.Context, name string, must expected) (figures, error) {
	f := figures{Customers: s.customers, Scenario: name, FewestCalls: int64(must.calls)}
	if err := s.settle(ctx); err != nil {
		return f, err
	}
	rows, err := s.rowsWritten(ctx, "contactsync")
	if err != nil {
		return f, err
	}
	if err := s.ask(ctx, http.MethodDelete, "/requests", nil, nil); err != nil {
		return f, err
	}
	if err := forgetPeak(s.worker); err != nil {
		return f, err
	}
	before, err := s.sample(ctx)
	if err != nil {
		return f, err
	}
	scheduler, err := s.launch(ctx, "scheduler")
	if err != nil {
		return f, err
	}
	r, err := s.runEnds(ctx, name)
	if err != nil {
		return f, err
	}
	after, err := s.sample(ctx)
	if err != nil {
		return f, err
	}
	if f.Peak, err = peak(s.worker); err != nil {
		return f, err
	}
	if err := s.end(scheduler); err != nil {
		return f, err
	}
	if r.read != int64(must.read) || r.updated != int64(must.updated) {
		return f, fmt.Errorf("run %d read %d records and updated %d, not %d and %d", r.id, r.read, r.updated, must.read, must.updated)
	}
	f.difference(before, after)
	f.Seconds, f.Records, f.Calls, f.Steps = r.seconds, r.read, r.calls, r.steps
	if f.SimulatorCalls, err = s.dataRequests(ctx); err != nil {
		return f, err
	}
	fmt.Fprintf(s.Progress, "  %s: %.1f s; waiting for Postgres to publish its counters\n", name, f.Seconds)
	if err := sleep(ctx, published); err != nil {
		return f, err
	}
	written, err := s.rowsWritten(ctx, "contactsync")
	if err != nil {
		return f, err
	}
	f.countRows(rows, written)
	return f, nil
}

// settle does what autovacuum and the checkpointer would have done long before an hourly run: otherwise the first reader of
// new rows pays for them, and whether a page goes into the WAL as a whole depends on the moment.
func (s *system) settle(ctx context.Context) error {
	for _, statement := range []string{"VACUUM (ANALYZE)", "CHECKPOINT"} {
		if _, err := s.db.ExecContext(ctx, statement); err != nil {
			return fmt.Errorf("%s before measuring: %w", statement, err)
		}
	}
	return nil
}

type run struct {
	id                   int64
	status, error        string
	read, updated, calls int64
	held, steps          int64
	seconds              float64 // from the first claim to the outcome, by the database's clock
}

// patience is how long a run may stand still before the series is given up. The last step of a huge one is a single transaction.
func (s *system) patience() time.Duration {
	return 2*time.Minute + time.Duration(s.customers/100_000)*time.Minute
}

// runEnds waits until the newest run has ended.
func (s *system) runEnds(ctx context.Context, name string) (run, error) {
	var last run
	began := time.Now()
	moved, told := began, began
	for {
		var r run
		err := s.db.QueryRowContext(ctx, `
			SELECT id, status, coalesce(error, ''), read, updated, erp_calls, held, fencing,
				coalesce(extract(epoch FROM finished_at - started_at), 0)::float8
			FROM contactsync.runs ORDER BY id DESC LIMIT 1`).
			Scan(&r.id, &r.status, &r.error, &r.read, &r.updated, &r.calls, &r.held, &r.steps, &r.seconds)
		switch {
		case errors.Is(err, sql.ErrNoRows):
			return r, errors.New("no run can be seen: DATABASE_URL must be a superuser's")
		case err != nil:
			return r, fmt.Errorf("follow the run: %w", err)
		case r.status == "succeeded" && r.held == 0:
			return r, nil
		case r.status == "succeeded", r.status == "failed", r.status == "cancelled":
			return r, fmt.Errorf("run %d %s, %d held: %s", r.id, r.status, r.held, r.error)
		}
		if r != last {
			last, moved = r, time.Now()
		}
		if time.Since(moved) > s.patience() {
			return r, fmt.Errorf("run %d stands still, %s: see %s", r.id, r.status, s.Logs)
		}
		if time.Since(told) > 5*time.Second {
			told = time.Now()
			fmt.Fprintf(s.Progress, "  %s: %s read, %.0f s\n", name, thousands(r.read), time.Since(began).Seconds())
		}
		if err := sleep(ctx, 100*time.Millisecond); err != nil {
			return r, err
		}
	}
}

func sleep(ctx context.Context, d time.Duration) error {
	select {
	case <-ctx.Done():
		return ctx.Err()
	case <-time.After(d):
		return nil
	}
}

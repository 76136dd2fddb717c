package bench

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"
)

// published is how long Postgres may keep the counters of an idle backend to itself: 10 s, and one to be sure.
const published = 11 * time.Second

// A sample is what the counters said at one moment.
type sample struct {
	at           time.Time
	worker       time.Duration // processor time
	server       time.Duration // unknown if Postgres runs elsewhere
	wal          int64         // bytes
	transactions int64         // that wrote something
	statements   int64
}

// unknown stands for a figure that cannot be had here.
const unknown = -1

// findCounters looks which counters there are.
func (s *system) findCounters(ctx context.Context) error {
	if _, err := s.db.ExecContext(ctx, "CREATE EXTENSION pg_stat_statements"); err == nil {
		_, err = s.db.ExecContext(ctx, "SELECT FROM pg_stat_statements LIMIT 1")
		s.statements = err == nil
	}
	var backend int
	if err := s.db.QueryRowContext(ctx, "SELECT pg_backend_pid()").Scan(&backend); err != nil {
		return fmt.Errorf("find Postgres' processes: %w", err)
	}
	// A server in a container numbers its processes by itself: this one must be ours to be read.
	title, err := os.ReadFile(fmt.Sprintf("/proc/%d/cmdline", backend))
	if err != nil || !strings.HasPrefix(string(title), "postgres: ") || !strings.Contains(string(title), database) {
		return nil
	}
	stat, err := readStat(backend)
	s.postmaster = stat.parent
	return err
}

// sample reads the counters that are exact at any moment. It assigns no transaction id and runs no statement as the worker's
// role, so it does not count itself.
func (s *system) sample(ctx context.Context) (now sample, err error) {
	now = sample{at: time.Now(), server: unknown, statements: unknown}
	worker, err := readStat(s.worker)
	if err != nil {
		return now, err
	}
	now.worker = worker.own
	if s.postmaster != 0 {
		if now.server, err = family(s.postmaster); err != nil {
			return now, err
		}
	}
	if s.statements {
		if err := s.db.QueryRowContext(ctx, `
			SELECT coalesce(sum(calls), 0) FROM pg_stat_statements s JOIN pg_roles r ON r.oid = s.userid JOIN pg_database d ON d.oid = s.dbid
			WHERE r.rolname = 'contactsync_sync' AND d.datname = current_database()`).Scan(&now.statements); err != nil {
			return now, fmt.Errorf("read Postgres' counters: %w", err)
		}
	}
	err = s.db.QueryRowContext(ctx, `
		SELECT pg_wal_lsn_diff(pg_current_wal_insert_lsn(), '0/0')::bigint, pg_snapshot_xmax(pg_current_snapshot())::text::bigint`).
		Scan(&now.wal, &now.transactions)
	if err != nil {
		return now, fmt.Errorf("read Postgres' counters: %w", err)
	}
	return now, nil
}

// rowsWritten is how many rows of each table of a schema were inserted, updated and deleted since the database was made.
func (s *system) rowsWritten(ctx context.Context, schema string) (map[string]int64, error) {
	rows, err := s.db.QueryContext(ctx, `
		SELECT relname, n_tup_ins + n_tup_upd + n_tup_del FROM pg_stat_user_tables WHERE schemaname = $1`, schema)
	if err != nil {
		return nil, fmt.Errorf("read Postgres' counters: %w", err)
	}
	defer rows.Close()
	written := map[string]int64{}
	for rows.Next() {
		var name string
		var n int64
		if err := rows.Scan(&name, &n); err != nil {
			return nil, fmt.Errorf("read Postgres' counters: %w", err)
		}
		written[name] = n
	}
	if err := rows.Err(); err != nil {
		return nil, fmt.Errorf("read Postgres' counters: %w", err)
	}
	return written, nil
}

// A stat is what /proc/PID/stat says of a process.
type stat struct {
	parent int
	own    time.Duration // its processor time, user and system
	reaped time.Duration // that of its children which have ended
}

func readStat(pid int) (stat, error) {
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		return stat{}, fmt.Errorf("processor time of process %d: %w", pid, err)
	}
	return parseStat(string(text))
}

// tick is the unit of times in /proc, the same on every Linux.
const tick = time.Second / 100

// parseStat reads /proc/PID/stat. The name in it is the program's own and may hold blanks and brackets.
func parseStat(text string) (stat, error) {
	fields := strings.Fields(text[strings.LastIndexByte(text, ')')+1:])
	if len(fields) < 15 {
		return stat{}, errors.New("/proc/PID/stat is not as expected")
	}
	var numbers [5]int64
	for i, at := range []int{1, 11, 12, 13, 14} { // ppid, utime, stime, cutime, cstime; the state is 0
		var err error
		if numbers[i], err = strconv.ParseInt(fields[at], 10, 64); err != nil {
			return stat{}, fmt.Errorf("/proc/PID/stat is not as expected: %w", err)
		}
	}
	return stat{
		parent: int(numbers[0]),
		own:    time.Duration(numbers[1]+numbers[2]) * tick, reaped: time.Duration(numbers[3]+numbers[4]) * tick,
	}, nil
}

// family is the processor time of a process and its children, those which have ended included.
func family(parent int) (time.Duration, error) {
	for {
		before, err := readStat(parent)
		if err != nil {
			return 0, err
		}
		living, err := children(parent)
		if err != nil {
			return 0, err
		}
		after, err := readStat(parent)
		if err != nil {
			return 0, err
		}
		if before.reaped == after.reaped { // else a child that ended meanwhile was counted twice or not at all
			return after.own + after.reaped + living, nil
		}
	}
}

func children(parent int) (all time.Duration, err error) {
	found, err := filepath.Glob("/proc/[0-9]*/stat")
	if err != nil {
		return 0, fmt.Errorf("list processes: %w", err)
	}
	for _, name := range found {
		text, err := os.ReadFile(name) //nolint:gosec // a process's own
		if err != nil {
			continue // it has ended
		}
		child, err := parseStat(string(text))
		if err != nil {
			return 0, err
		}
		if child.parent == parent {
			all += child.own + child.reaped
		}
	}
	return all, nil
}

// forgetPeak has the kernel take a process's present memory for its highest.
func forgetPeak(pid int) error {
	if err := os.WriteFile(fmt.Sprintf("/proc/%d/clear_refs", pid), []byte("5"), 0); err != nil {
		return fmt.Errorf("forget the peak of the worker's memory: %w", err)
	}
	return nil
}

// peak is a process's highest resident memory, in bytes.
func peak(pid int) (int64, error) {
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", pid))
	if err != nil {
		return 0, fmt.Errorf("peak of the worker's memory: %w", err)
	}
	return parsePeak(string(text))
}

// parsePeak finds VmHWM, which is in kB of 1024, in /proc/PID/status.
func parsePeak(text string) (int64, error) {
	for line := range strings.Lines(text) {
		name, value, _ := strings.Cut(line, ":")
		if name != "VmHWM" {
			continue
		}
		n, err := strconv.ParseInt(strings.TrimSpace(strings.TrimSuffix(strings.TrimSpace(value), "kB")), 10, 64)
		if err != nil {
			return 0, fmt.Errorf("VmHWM is not as expected: %w", err)
		}
		return n * 1024, nil
	}
	return 0, errors.New("there is no VmHWM in /proc/PID/status")
}

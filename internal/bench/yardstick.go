package bench

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"time"
)

// A copied table has a copy of the same name in the schema yardstick. Names are quoted where they must be.
type copied struct {
	name    string
	filled  bool // it has rows
	columns []column
	foreign []foreign
}

// A column that Postgres computes by itself is not among them.
type column struct {
	name     string
	key      bool // part of the primary key
	identity bool // Postgres lets nobody update it
}

type foreign struct{ table, definition string }

// yardstick loads the final rows into empty copies of their tables, and once more into the filled ones.
func (s *system) yardstick(ctx context.Context) ([]figures, error) {
	dir, err := os.MkdirTemp("", "contactsync-bench-")
	if err != nil {
		return nil, fmt.Errorf("files of the yardstick: %w", err)
	}
	defer os.RemoveAll(dir)
	tables, err := s.tables(ctx)
	if err != nil {
		return nil, err
	}
	var dump, create, load strings.Builder
	create.WriteString("CREATE SCHEMA yardstick;\n")
	for _, t := range tables {
		create.WriteString(t.create())
		if t.filled {
			dump.WriteString(t.dump(dir))
			load.WriteString(t.load(dir))
		}
	}
	for _, script := range []string{dump.String(), create.String()} {
		if _, err := s.psql(ctx, script); err != nil {
			return nil, err
		}
	}
	var all []figures
	for _, name := range []string{psqlLoads, psqlCompares} {
		f, err := s.measurePsql(ctx, name, load.String())
		if err != nil {
			return nil, err
		}
		all = append(all, f)
	}
	_, err = s.psql(ctx, "DROP SCHEMA yardstick CASCADE;")
	return all, err
}

func (s *system) measurePsql(ctx context.Context, name, script string) (figures, error) {
	f := figures{Customers: s.customers, Scenario: name, Records: s.records, Peak: unknown, Calls: unknown, SimulatorCalls: unknown, FewestCalls: unknown}
	if err := s.settle(ctx); err != nil {
		return f, err
	}
	rows, err := s.rowsWritten(ctx, "yardstick")
	if err != nil {
		return f, err
	}
	before, err := s.sample(ctx)
	if err != nil {
		return f, err
	}
	spent, err := s.psql(ctx, script)
	if err != nil {
		return f, err
	}
	after, err := s.sample(ctx)
	if err != nil {
		return f, err
	}
	f.difference(before, after)
	f.Seconds, f.ClientCPU, f.Statements = after.at.Sub(before.at).Seconds(), spent, unknown
	fmt.Fprintf(s.Progress, "  %s: %.1f s\n", name, f.Seconds)
	if err := s.psqlGone(ctx); err != nil {
		return f, err
	}
	written, err := s.rowsWritten(ctx, "yardstick")
	if err != nil {
		return f, err
	}
	f.countRows(rows, written)
	return f, nil
}

// psqlGone waits until psql's backend has ended: it publishes its counters then.
func (s *system) psqlGone(ctx context.Context) error {
	for range 600 {
		var there bool
		if err := s.db.QueryRowContext(ctx, `
			SELECT EXISTS (SELECT FROM pg_stat_activity WHERE datname = current_database() AND application_name = 'yardstick')`).
			Scan(&there); err != nil {
			return fmt.Errorf("read Postgres' counters: %w", err)
		}
		if !there {
			return nil
		}
		if err := sleep(ctx, 50*time.Millisecond); err != nil {
			return err
		}
	}
	return errors.New("psql's backend does not end")
}

// psql runs a script, and returns the processor time it took itself. What it connects with is in its environment, since
// everybody can read its arguments.
func (s *system) psql(ctx context.Context, script string) (time.Duration, error) {
	cmd := exec.CommandContext(ctx, "psql", "--no-psqlrc", "--quiet", "--set=ON_ERROR_STOP=1", "--file=-")
	password, _ := s.url.User.Password()
	cmd.Env = append(os.Environ(), "PGHOST="+s.url.Hostname(), "PGPORT="+s.url.Port(), "PGUSER="+s.url.User.Username(), "PGPASSWORD="+password,
		"PGDATABASE="+strings.TrimPrefix(s.url.Path, "/"), "PGSSLMODE="+s.url.Query().Get("sslmode"), "PGAPPNAME=yardstick")
	cmd.Stdin = strings.NewReader(script)
	if out, err := cmd.CombinedOutput(); err != nil {
		return 0, fmt.Errorf("psql: %w: %s", err, bytes.TrimSpace(out))
	}
	return cmd.ProcessState.UserTime() + cmd.ProcessState.SystemTime(), nil
}

// tables finds all tables, each after those its foreign keys name. Credentials are left out: they stay in Postgres.
func (s *system) tables(ctx context.Context) ([]copied, error) {
	found, err := s.columns(ctx)
	if err != nil {
		return nil, err
	}
	found, err = s.foreignKeys(ctx, found)
	if err != nil {
		return nil, err
	}
	for i := range found {
		t := &found[i]
		query := "SELECT EXISTS (SELECT FROM contactsync." + t.name + ")"
		if err := s.db.QueryRowContext(ctx, query).Scan(&t.filled); err != nil {
			return nil, fmt.Errorf("look for rows: %w", err)
		}
	}
	return ordered(found)
}

func (s *system) columns(ctx context.Context) ([]copied, error) {
	rows, err := s.db.QueryContext(ctx, `
		SELECT quote_ident(c.relname), quote_ident(a.attname), coalesce(a.attnum = ANY (p.conkey), false), a.attidentity <> ''
		FROM pg_class c
		JOIN pg_attribute a ON a.attrelid = c.oid AND a.attnum > 0 AND NOT a.attisdropped AND a.attgenerated = ''
		LEFT JOIN pg_constraint p ON p.conrelid = c.oid AND p.contype = 'p'
		WHERE c.relnamespace = 'contactsync'::regnamespace AND c.relkind = 'r' AND c.relname <> 'credentials'
		ORDER BY c.relname, a.attnum`)
	if err != nil {
		return nil, fmt.Errorf("read the catalog: %w", err)
	}
	defer rows.Close()
	var found []copied
	for rows.Next() {
		var table string
		var c column
		if err := rows.Scan(&table, &c.name, &c.key, &c.identity); err != nil {
			return nil, fmt.Errorf("read the catalog: %w", err)
		}
		if len(found) == 0 || found[len(found)-1].name != table {
			found = append(found, copied{name: table})
		}
		last := &found[len(found)-1]
		last.columns = append(last.columns, c)
	}
	if err := rows.Err(); err != nil {
		return nil, fmt.Errorf("read the catalog: %w", err)
	}
	return found, nil
}

func (s *system) foreignKeys(ctx context.Context, of []copied) ([]copied, error) {
	rows, err := s.db.QueryContext(ctx, `
		SELECT quote_ident(c.relname), quote_ident(f.relname), pg_get_constraintdef(k.oid)
		FROM pg_constraint k JOIN pg_class c ON c.oid = k.conrelid JOIN pg_class f ON f.oid = k.confrelid
		WHERE k.contype = 'f' AND c.relnamespace = 'contactsync'::regnamespace ORDER BY k.oid`)
	if err != nil {
		return nil, fmt.Errorf("read the catalog: %w", err)
	}
	defer rows.Close()
	for rows.Next() {
		var table string
		var f foreign
		if err := rows.Scan(&table, &f.table, &f.definition); err != nil {
			return nil, fmt.Errorf("read the catalog: %w", err)
		}
		if at := slices.IndexFunc(of, func(t copied) bool { return t.name == table }); at >= 0 {
			of[at].foreign = append(of[at].foreign, f)
		}
	}
	if err := rows.Err(); err != nil {
		return nil, fmt.Errorf("read the catalog: %w", err)
	}
	return of, nil
}

// ordered puts each table after those its foreign keys name.
func ordered(tables []copied) ([]copied, error) {
	var done []copied
	placed := map[string]bool{}
	for len(tables) > 0 {
		at := slices.IndexFunc(tables, func(t copied) bool {
			return !slices.ContainsFunc(t.foreign, func(f foreign) bool { return f.table != t.name && !placed[f.table] })
		})
		if at < 0 {
			return nil, fmt.Errorf("no order of the tables suits their foreign keys: %s is among those left", tables[0].name)
		}
		done = append(done, tables[at])
		placed[tables[at].name] = true
		tables = slices.Delete(tables, at, at+1)
	}
	return done, nil
}

// create makes the empty copy.
func (t copied) create() string {
	script := "CREATE TABLE yardstick." + t.name + " (LIKE contactsync." + t.name + " INCLUDING ALL);\n"
	for _, f := range t.foreign {
		script += "ALTER TABLE yardstick." + t.name + " ADD " + strings.Replace(f.definition, "REFERENCES contactsync.", "REFERENCES yardstick.", 1) + ";\n"
	}
	return script
}

func (t copied) file(dir string) string {
	return "'" + strings.ReplaceAll(filepath.Join(dir, t.name), "'", "''") + "'"
}

func (t copied) dump(dir string) string {
	return "\\copy contactsync." + t.name + " (" + strings.Join(t.list(""), ", ") + ") TO " + t.file(dir) + "\n"
}

// list names the columns, each with what stands before it.
func (t copied) list(before string) []string {
	names := make([]string, len(t.columns))
	for i, c := range t.columns {
		names[i] = before + c.name
	}
	return names
}

// load copies the rows into a stage and merges them. It writes nothing where the table has them already.
func (t copied) load(dir string) string {
	var same, was, becomes, set []string
	for _, c := range t.columns {
		if c.key {
			same = append(same, "t."+c.name+" = s."+c.name)
		} else if !c.identity {
			was, becomes, set = append(was, "t."+c.name), append(becomes, "s."+c.name), append(set, c.name+" = s."+c.name)
		}
	}
	if len(same) == 0 { // no primary key: the whole row is its key
		for i := range was {
			same = append(same, was[i]+" IS NOT DISTINCT FROM "+becomes[i])
		}
		set = nil
	}
	columns := strings.Join(t.list(""), ", ")
	script := "BEGIN;\n" +
		"CREATE TEMPORARY TABLE stage ON COMMIT DROP AS SELECT " + columns + " FROM yardstick." + t.name + " WITH NO DATA;\n" +
		"\\copy stage FROM " + t.file(dir) + "\n" +
		"MERGE INTO yardstick." + t.name + " AS t USING stage AS s ON " + strings.Join(same, " AND ") + "\n"
	if len(set) > 0 {
		script += "WHEN MATCHED AND (" + strings.Join(was, ", ") + ") IS DISTINCT FROM (" + strings.Join(becomes, ", ") + ") " +
			"THEN UPDATE SET " + strings.Join(set, ", ") + "\n"
	}
	return script + "WHEN NOT MATCHED THEN INSERT (" + columns + ") OVERRIDING SYSTEM VALUE VALUES (" + strings.Join(t.list("s."), ", ") + ");\n" +
		"COMMIT;\n"
}

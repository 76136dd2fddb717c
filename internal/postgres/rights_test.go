package postgres_test

import (
	"context"
	"database/sql"
	"fmt"
	"regexp"
	"strings"
	"sync"
	"testing"

	"github.com/centime/contactsync/internal/postgres"
	"github.com/centime/contactsync/internal/postgres/pgtest"
)

var placeholder = regexp.MustCompile(`\bT\b`)

// furnish makes two tenants with a row in each table, written as the owner.
func furnish(t *testing.T, dsn string) {
	t.Helper()
	db := open(t, dsn)
	for tenant := 1; tenant <= 2; tenant++ {
		for _, statement := range strings.Split(placeholder.ReplaceAllString(`
			INSERT INTO tenants (name) VALUES ('T');
			INSERT INTO readers VALUES (T, 'reader_' || T);
			INSERT INTO connections (tenant_id, erp, account, name, schedule, stale_at) VALUES (T, 'memory', 'a', 'books', 'off', now());
			INSERT INTO credentials (tenant_id, connection_id, key_id, box) VALUES (T, T, 'k', 'secret');
			INSERT INTO runs (tenant_id, connection_id, mode, trigger) VALUES (T, T, 'full', 'manual');
			INSERT INTO call_counts (tenant_id, connection_id, month, calls) VALUES (T, T, '2026-11-01', 1);
			INSERT INTO run_requests (tenant_id, run_id, mode, trigger, requested_by, reason) VALUES (T, T, 'full', 'manual', 'x', '');
			INSERT INTO run_pages (tenant_id, run_id, page) VALUES (T, T, 1);
			INSERT INTO preview_pages (tenant_id, run_id, page, body) VALUES (T, T, 1, '');
			INSERT INTO previews (tenant_id, run_id, compared_at) VALUES (T, T, now());
			INSERT INTO preview_changes (tenant_id, run_id, place, entity, what) VALUES (T, T, 1, 'customer', 'created');
			INSERT INTO preview_mail VALUES (T, T, 1, true, 'invoice_presentment', '1', 'Customer', 'From ERP', 'a@t.example', false);
			INSERT INTO customers (tenant_id, connection_id, erp_id, name, kind, active) VALUES (T, T, '1', 'Customer', 'customer', true);
			INSERT INTO roles (tenant_id, name, communication_contact) VALUES (T, 'Loud', true);
			INSERT INTO role_mappings VALUES (T, T, 'company', 'Company Contact', T);
			INSERT INTO contacts (tenant_id, connection_id, origin, erp_id, name, active) VALUES (T, T, 'erp', 'customer:1', 'From ERP', true);
			INSERT INTO contacts (tenant_id, connection_id, origin, name, active) VALUES (T, T, 'centime', 'From Centime', true);
			INSERT INTO contact_points SELECT T, id, origin, 'mail', 1, 'email', 'a@t.example', 'a@t.example', true, true, true
				FROM contacts WHERE tenant_id = T;
			INSERT INTO customer_contacts (tenant_id, connection_id, customer_id, contact_id, origin, stated_by, record_role_key, active)
				SELECT T, T, T, id, origin, CASE origin WHEN 'erp' THEN '{customer:1}'::text[] ELSE '{}' END,
				CASE origin WHEN 'erp' THEN 'company' END, true FROM contacts WHERE tenant_id = T;
			INSERT INTO role_choices (tenant_id, customer_contact_id, role_id, chosen_by) SELECT T, id, T, 'somebody'
				FROM customer_contacts WHERE tenant_id = T;
			INSERT INTO issues (tenant_id, connection_id, record_kind, record_id, field, reason) VALUES (T, T, 'customer', '1', 'name', 'x');
			INSERT INTO holds (tenant_id, connection_id, cause, opened_by_run) VALUES (T, T, 'x', T);
			INSERT INTO hold_items (tenant_id, hold_id, kind, entity_id, reason, added_by_run) VALUES (T, T, 'customer', T, 'erp_absent', T);
			INSERT INTO left_bare VALUES (T, T, T, 'communication_contact');
			INSERT INTO erased (tenant_id, record) VALUES (T, 'x');
			INSERT INTO holds (tenant_id, id, connection_id, cause, opened_by_run, state) OVERRIDING SYSTEM VALUE VALUES (T, 100 + T, T, 'x', T, 'rejected');
			INSERT INTO hold_items (tenant_id, hold_id, kind, entity_id, reason, added_by_run) VALUES (T, 100 + T, 'customer', T, 'erp_absent', T);
			INSERT INTO history (tenant_id, entity, entity_id, field, run_id) VALUES (T, 'customer', T, 'name', T)`,
			fmt.Sprint(tenant)), ";") {
			if _, err := db.ExecContext(t.Context(), "SET search_path = contactsync, public;"+statement); err != nil {
				t.Fatalf("%s: %v", statement, err)
			}
		}
	}
}

func open(t *testing.T, dsn string) *sql.DB {
	t.Helper()
	db, err := sql.Open("postgres", dsn)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = db.Close() })
	return db
}

// as runs f in a transaction with a database role and, if not 0, a tenant.
func as(t *testing.T, db *sql.DB, role string, tenant int, f func(tx *sql.Tx)) {
	t.Helper()
	tx, err := db.BeginTx(t.Context(), nil)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = tx.Rollback() }()
	scope := ""
	if tenant != 0 {
		scope = fmt.Sprint(tenant)
	}
	if _, err := tx.ExecContext(t.Context(), `SELECT set_config('contactsync.tenant_id', $1, true), set_config('role', $2, true),
		set_config('search_path', 'contactsync, public', true)`, scope, role); err != nil {
		t.Fatal(err)
	}
	f(tx)
}

func strs(t *testing.T, q interface {
	QueryContext(ctx context.Context, query string, args ...any) (*sql.Rows, error)
}, query string,
) []string {
	t.Helper()
	rows, err := q.QueryContext(t.Context(), query)
	if err != nil {
		t.Fatalf("%s: %v", query, err)
	}
	defer rows.Close()
	var out []string
	for rows.Next() {
		var s string
		if err := rows.Scan(&s); err != nil {
			t.Fatal(err)
		}
		out = append(out, s)
	}
	if err := rows.Err(); err != nil {
		t.Fatal(err)
	}
	return out
}

// TestTenantsAreApart walks every table and view: whoever is bound to a tenant sees that tenant's rows only, and none
// without one. A table that comes without a policy fails here.
func TestTenantsAreApart(t *testing.T) {
	t.Parallel()
	dsn := pgtest.New(t)
	furnish(t, dsn)
	db := open(t, dsn)
	tables := strs(t, db, `SELECT c.oid::regclass::text FROM pg_class c WHERE c.relnamespace IN ('contactsync'::regnamespace, 'public'::regnamespace)
		AND c.relkind IN ('r', 'p', 'v', 'm') AND c.relname NOT IN ('contactsync_migrations', 'erp_pauses') ORDER BY 1`)
	if len(tables) < 20 {
		t.Fatalf("only %d tables and views were found", len(tables))
	}
	for _, bare := range strs(t, db, `SELECT c.oid::regclass::text FROM pg_class c WHERE c.relnamespace = 'contactsync'::regnamespace AND c.relkind = 'r'
		AND NOT (c.relrowsecurity AND c.relforcerowsecurity)`) {
		t.Errorf("%s is not under FORCE ROW LEVEL SECURITY: CALL contactsync.protect in its migration", bare)
	}
	for _, view := range strs(t, db, `SELECT c.oid::regclass::text FROM pg_class c WHERE c.relnamespace IN ('contactsync'::regnamespace, 'public'::regnamespace)
		AND c.relkind = 'v' AND NOT coalesce(c.reloptions @> '{security_invoker=true}', false)`) {
		t.Errorf("view %s is not security_invoker", view)
	}
	for _, k := range strs(t, db, `SELECT conname FROM pg_constraint WHERE contype = 'f' AND confdeltype <> 'a'`) {
		t.Errorf("foreign key %s cascades", k)
	}
	for _, table := range tables {
		whole := strs(t, db, "SELECT DISTINCT tenant_id::text FROM "+table+" ORDER BY 1")
		if strings.Join(whole, " ") != "1 2" {
			t.Errorf("%s: the walk needs rows of both tenants in it, it has %v: furnish it", table, whole)
		}
		for _, role := range []string{"contactsync_sync", "contactsync_app"} {
			for tenant, want := range []string{"", "1", "2"} {
				as(t, db, role, tenant, func(tx *sql.Tx) {
					if ok := strs(t, tx, fmt.Sprintf("SELECT has_table_privilege('%s', 'SELECT')::text", table)); ok[0] == "false" {
						return // not even readable
					}
					if got := strings.Join(strs(t, tx, "SELECT DISTINCT tenant_id::text FROM "+table), " "); got != want {
						t.Errorf("%s as %s with tenant %q: sees tenants %q", table, role, want, got)
					}
				})
			}
		}
	}
}

// TestSyncCannotTouchWhatIsNotTheERPs guards rule 2 in SQL: the policies hide rows silently, so rows are compared.
func TestSyncCannotTouchWhatIsNotTheERPs(t *testing.T) {
	t.Parallel()
	dsn := pgtest.New(t)
	furnish(t, dsn)
	db := open(t, dsn)
	for _, c := range []struct{ name, statement string }{
		{"rename", `UPDATE contacts SET name = 'stolen' WHERE origin = 'centime'`},
		{"rename all", `UPDATE contacts SET name = 'stolen'`},
		{"deactivate", `UPDATE contacts SET active = false, inactive_reason = 'erp_absent'`},
		{"detach", `UPDATE customer_contacts SET active = false, inactive_reason = 'detached'`},
		{"move point", `UPDATE contact_points SET value = 'thief@t.example'`},
		{"delete point", `DELETE FROM contact_points`},
		{"adopt", `UPDATE contacts SET origin = 'centime', erp_id = NULL`},
		{"turn into erp", `UPDATE contacts SET origin = 'erp', erp_id = 'x' WHERE origin = 'centime'`},
		{"delete contact", `DELETE FROM contacts`},
		{"delete customer", `DELETE FROM customers`},
		{"delete link", `DELETE FROM customer_contacts`},
		{"unchoose", `DELETE FROM role_choices`},
		{"choose", `UPDATE role_choices SET chosen_by = 'sync'`},
		{"read choices", `SELECT FROM role_choices`},
		{"start mail", `UPDATE roles SET invoice_presentment = true`},
		{"loud role", `INSERT INTO roles (tenant_id, name, invoice_presentment) VALUES (1, 'New', true)`},
		{"map away", `UPDATE role_mappings SET role_id = NULL`},
		{"map to mail", `INSERT INTO role_mappings VALUES (1, 1, '-99', 'Primary', 1)`},
		{"plant contact", `INSERT INTO contacts (tenant_id, connection_id, origin, name, active) VALUES (1, 1, 'centime', 'Planted', true)`},
		{"plant point", `INSERT INTO contact_points SELECT 1, id, 'erp', 'x', 9, 'email', 'a@b.example', 'a@b.example', true, true, true
			FROM contacts WHERE origin = 'centime'`},
		{"other tenant", `INSERT INTO customers (tenant_id, connection_id, erp_id, name, kind, active) VALUES (2, 2, '7', 'x', 'customer', true)`},
	} {
		t.Run(c.name, func(t *testing.T) {
			tx, err := db.BeginTx(t.Context(), nil)
			if err != nil {
				t.Fatal(err)
			}
			defer func() { _ = tx.Rollback() }()
			state := func() string {
				return strings.Join(strs(t, tx, `
					SELECT concat('contact ', contacts) FROM contactsync.contacts WHERE origin = 'centime'
					UNION ALL SELECT concat('point ', p) FROM contactsync.contact_points p WHERE origin = 'centime'
					UNION ALL SELECT concat('link ', l) FROM contactsync.customer_contacts l WHERE origin = 'centime'
					UNION ALL SELECT concat('choice ', c) FROM contactsync.role_choices c
					UNION ALL SELECT concat('role ', r) FROM contactsync.roles r
					UNION ALL SELECT concat('mapping ', m) FROM contactsync.role_mappings m
					UNION ALL SELECT concat('n ', (SELECT count(*) FROM contactsync.customers), (SELECT count(*) FROM contactsync.contacts),
						(SELECT count(*) FROM contactsync.customer_contacts)) ORDER BY 1`), "\n")
			}
			before := state()
			if _, err := tx.ExecContext(t.Context(), `SAVEPOINT s; SELECT set_config('contactsync.tenant_id', '1', true),
				set_config('search_path', 'contactsync, public', true), set_config('role', 'contactsync_sync', true)`); err != nil {
				t.Fatal(err)
			}
			_, refused := tx.ExecContext(t.Context(), c.statement)
			if refused != nil {
				return // loudly
			}
			if strings.HasPrefix(c.statement, "SELECT") {
				t.Errorf("the sync may %s", c.statement)
			}
			if _, err := tx.ExecContext(t.Context(), `RESET ROLE`); err != nil {
				t.Fatal(err)
			}
			if after := state(); after != before {
				t.Errorf("the sync changed what is not its own:\nbefore %s\nafter  %s", before, after)
			}
		})
	}
}

// TestOnlyOpsErases guards the narrow way to erase what is the ERP's: nobody takes the role that may, ops call its functions, those see
// one tenant and refuse a connection that was not removed; and a sync learns from the app's view ids of its own tenant only.
func TestOnlyOpsErases(t *testing.T) {
	t.Parallel()
	dsn := pgtest.New(t)
	furnish(t, dsn)
	db := open(t, dsn)
	try := func(role string, tenant int, statement string) error {
		var err error
		as(t, db, role, tenant, func(tx *sql.Tx) { _, err = tx.ExecContext(t.Context(), statement) })
		return err
	}
	const purge, erase = `SELECT * FROM purge(1, 10, 'x', '')`, `SELECT erase_contact((SELECT min(id) FROM contacts), 'x', '')`
	for _, role := range []string{"contactsync_sync", "contactsync_app"} {
		for _, statement := range []string{purge, erase} {
			if err := try(role, 1, statement); err == nil || !strings.Contains(err.Error(), "permission denied") {
				t.Errorf("%s: %s: %v", role, statement, err)
			}
		}
	}
	if err := try("contactsync_ops", 1, purge); err == nil || !strings.Contains(err.Error(), "only what was removed") {
		t.Errorf("an active connection: %v", err)
	}
	if err := try("contactsync_ops", 1, `UPDATE connections SET state = 'removed';`+purge); err != nil {
		t.Errorf("a removed connection: %v", err)
	}
	for _, tenant := range []int{0, 2} {
		if err := try("contactsync_ops", tenant, `UPDATE connections SET state = 'removed';`+purge); err == nil {
			t.Errorf("with tenant %d the connection of tenant 1 is purged", tenant)
		}
		if err := try("contactsync_ops", tenant, erase); err == nil {
			t.Errorf("with tenant %d a contact of tenant 1 is erased", tenant)
		}
	}
	for _, statement := range []string{`DELETE FROM customers`, `DELETE FROM hold_items`, `DELETE FROM erased`, `INSERT INTO erased VALUES (1, 'y')`} {
		if err := try("contactsync_ops", 1, statement); err == nil {
			t.Errorf("ops may %s", statement)
		}
	}
	as(t, db, "contactsync_sync", 1, func(tx *sql.Tx) {
		if got := strs(t, tx, `SELECT concat_ws(' ', customer_id, communication_type) FROM covered('{1,2}')`); strings.Join(got, ";") != "1 communication_contact" {
			t.Errorf("a sync of tenant 1 sees %q", got)
		}
	})
	if owner := strs(t, db, `SELECT string_agg(DISTINCT r.rolname || ' ' || r.rolcanlogin, ';') FROM pg_proc p JOIN pg_roles r ON r.oid = p.proowner
		WHERE p.pronamespace = 'contactsync'::regnamespace AND p.prosecdef`)[0]; owner != "contactsync_app false;contactsync_erase false" {
		t.Errorf("functions that act as their owner are owned by %s", owner)
	}
	for _, table := range strs(t, db, `SELECT c.oid::regclass::text FROM pg_class c JOIN pg_attribute a ON a.attrelid = c.oid AND a.attname = 'tenant_id'
		WHERE c.relnamespace = 'contactsync'::regnamespace AND c.relkind = 'r' AND NOT (has_table_privilege('contactsync_erase', c.oid, 'DELETE')
		AND EXISTS (SELECT FROM pg_policy p WHERE p.polrelid = c.oid AND p.polname = 'erase'))`) {
		t.Errorf("%s cannot be purged: CALL contactsync.protect in its migration", table)
	}
}

// TestReaderSeesItsTenantsViewsOnly guards the contract with finance systems' logins.
func TestReaderSeesItsTenantsViewsOnly(t *testing.T) {
	t.Parallel()
	dsn := pgtest.New(t)
	furnish(t, dsn)
	db := open(t, dsn)
	// The login's own name is what counts, so it is set as the session's user.
	for login, want := range map[string]string{"reader_1": "1", "reader_2": "2", "reader_none": "", "reader_every": "1 2"} {
		conn, err := db.Conn(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		group := "contactsync_reader"
		if login == "reader_every" {
			group = "contactsync_reader_all"
		}
		_, err = conn.ExecContext(t.Context(), fmt.Sprintf(`DO $$ BEGIN CREATE ROLE %s LOGIN IN ROLE %s; EXCEPTION WHEN duplicate_object OR unique_violation THEN NULL; END $$;
			SET SESSION AUTHORIZATION %[1]s`, login, group))
		if err != nil {
			t.Fatal(err)
		}
		for _, view := range []string{"customer_directory", "contact_directory", "recipients", "customers_without_recipient", "connection_status", "run_history"} {
			if got := strings.Join(strs(t, conn, "SELECT DISTINCT tenant_id::text FROM "+view+" ORDER BY 1"), " "); got != want {
				t.Errorf("%s sees tenants %q in %s, want %q", login, got, view, want)
			}
		}
		if _, err := conn.ExecContext(t.Context(), `SELECT set_config('contactsync.tenant_id', '2', false)`); err != nil {
			t.Fatal(err)
		}
		if got := strings.Join(strs(t, conn, "SELECT DISTINCT tenant_id::text FROM contact_directory ORDER BY 1"), " "); got != want {
			t.Errorf("%s sees tenants %q after setting another one", login, got)
		}
		for _, table := range []string{"contactsync.contacts", "contactsync.credentials", "contactsync.readers"} {
			if _, err := conn.ExecContext(t.Context(), "SELECT FROM "+table); err == nil {
				t.Errorf("%s may read %s", login, table)
			}
		}
		if _, err := conn.ExecContext(t.Context(), "RESET SESSION AUTHORIZATION"); err != nil {
			t.Fatal(err)
		}
		_ = conn.Close()
	}
}

// TestThirtyRoles guards the limit where it is counted, also between transactions at once.
func TestThirtyRoles(t *testing.T) {
	t.Parallel()
	dsn := pgtest.New(t)
	furnish(t, dsn)
	db := open(t, dsn)
	var wait sync.WaitGroup
	for i := range 40 {
		wait.Go(func() {
			_, _ = db.ExecContext(t.Context(), `INSERT INTO contactsync.roles (tenant_id, name) VALUES (1, $1)`, fmt.Sprint("role ", i))
		})
	}
	wait.Wait()
	if n := pgtest.Value(t, dsn, `SELECT count(*) FROM contactsync.roles WHERE tenant_id = 1`); n != "30" {
		t.Errorf("tenant 1 has %s roles, want 30", n)
	}
}

// TestDatabasesMigrateAtOnce guards the creation of roles, which belong to the server.
func TestDatabasesMigrateAtOnce(t *testing.T) {
	t.Parallel()
	dsn := pgtest.New(t)
	var wait sync.WaitGroup
	for i := range 4 {
		name := fmt.Sprintf("%s_m%d", pgtest.Value(t, dsn, "SELECT current_database()"), i)
		db := open(t, dsn)
		if _, err := db.ExecContext(t.Context(), "CREATE DATABASE "+name); err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() {
			_, _ = open(t, dsn).ExecContext(context.WithoutCancel(t.Context()), "DROP DATABASE "+name+" WITH (FORCE)")
		})
		for range 2 { // two processes each
			wait.Go(func() {
				if err := postgres.Migrate(t.Context(), strings.Replace(dsn, pgtest.Value(t, dsn, "SELECT current_database()"), name, 1)); err != nil {
					t.Error(err)
				}
			})
		}
	}
	wait.Wait()
}

func TestUnknownSchemaIsRefused(t *testing.T) {
	t.Parallel()
	dsn := pgtest.New(t)
	db := open(t, dsn)
	store, err := postgres.Open(dsn, 2)
	if err != nil {
		t.Fatal(err)
	}
	defer store.Close()
	if err := store.CheckSchema(t.Context()); err != nil {
		t.Fatal(err)
	}
	for statement, want := range map[string]string{
		"INSERT INTO contactsync_migrations (version_id, is_applied) VALUES (999, true)": "start the newer program",
		"DELETE FROM contactsync_migrations WHERE version_id > 1":                        "run `syncctl migrate`",
		"ALTER TABLE contactsync_migrations RENAME TO elsewhere":                         "run `syncctl migrate`",
	} {
		tx := statement
		if _, err := db.ExecContext(t.Context(), "DELETE FROM contactsync_migrations WHERE version_id = 999;"+tx); err != nil {
			t.Fatal(err)
		}
		if err := store.CheckSchema(t.Context()); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("after %s: %v", statement, err)
		}
		if strings.HasPrefix(statement, "ALTER") {
			_, _ = db.ExecContext(t.Context(), "ALTER TABLE elsewhere RENAME TO contactsync_migrations")
		}
	}
}

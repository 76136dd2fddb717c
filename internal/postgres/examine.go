package postgres

import (
	"context"
	"database/sql"
	"fmt"
	"time"

	"github.com/jmoiron/sqlx"

	"github.com/centime/contactsync/internal/credentials"
)

// Ailment is something wrong with an installation.
type Ailment struct {
	Check string // which of the checks found it
	Grave bool   `db:"grave"` // something does not work, or is not safe
	Text  string `db:"text"`
	Do    string `db:"cure"` // what to type or to change
}

// Examination is what a database says about itself.
type Examination struct {
	Version  string    `db:"version"`
	Now      time.Time `db:"now"`
	Login    string    `db:"login"`
	Locale   string    `db:"locale"`
	Sessions int       `db:"sessions"` // of all databases, now
	Most     int       `db:"most"`     // how many there may be
	Limit    int       `db:"lim"`      // how many there may be of the login here
	SeesAll  bool      `db:"sees_all"` // how long other logins' transactions last
	Migrated bool      `db:"migrated"` // the schema is there, of whatever version
	Ailments []Ailment
}

// examination is a check whose query has a row for each ailment. Bound is $1: how long a transaction may last.
type examination struct{ check, query string }

// The queries go by session_user, which is the login whatever role is taken. Names are quoted, since each cure is to be typed.
var examinations = []examination{
	{"postgres", `
		SELECT true AS grave, 'it is a standby, where nothing can be written' AS text, 'name the primary in DATABASE_URL' AS cure
		WHERE $1::interval IS NOT NULL AND pg_is_in_recovery()`},
	{"encoding", `
		SELECT true AS grave, 'the database is encoded in ' || pg_encoding_to_char(encoding) AS text,
			'dump it and restore it into CREATE DATABASE … ENCODING ''UTF8'' TEMPLATE template0' AS cure
		FROM pg_database WHERE $1::interval IS NOT NULL AND datname = current_database() AND pg_encoding_to_char(encoding) <> 'UTF8'
		UNION ALL
		SELECT false, 'its locale ' || datctype || ' knows no letters beyond A to Z, so names differ by case',
			'dump it and restore it into CREATE DATABASE … LOCALE ''C.UTF-8'' TEMPLATE template0'
		FROM pg_database WHERE datname = current_database() AND datlocprovider = 'c' AND datctype IN ('C', 'POSIX')
		UNION ALL
		SELECT true, 'the system''s sort order has changed since the database was made, so its indexes may not find what is there',
			format('REINDEX DATABASE %1$I; ALTER DATABASE %1$I REFRESH COLLATION VERSION', datname)
		FROM pg_database WHERE datname = current_database() AND datcollversion <> coalesce(pg_database_collation_actual_version(oid), '')`},
	{"login", `
		WITH me AS (SELECT * FROM pg_roles WHERE rolname = session_user)
		SELECT true AS grave, format('the programs'' login %I is %s, so it can pass by every right', rolname, what) AS text,
			'name another login in DATABASE_URL: CREATE ROLE contactsync_programs LOGIN PASSWORD ''…''' AS cure
		FROM me CROSS JOIN LATERAL (VALUES (rolsuper, 'a superuser'), (NOT rolsuper AND rolbypassrls, 'above row-level security'),
			(NOT rolsuper AND rolcreaterole, 'allowed to make roles'),
			(NOT rolsuper AND EXISTS (SELECT FROM pg_namespace n WHERE n.nspname = 'contactsync' AND pg_has_role(session_user, n.nspowner, 'MEMBER')),
				'the owner of the schema')) AS v (is_so, what)
		WHERE $1::interval IS NOT NULL AND is_so
		UNION ALL
		SELECT true, format('the programs'' login %I cannot work as %s', session_user, r.rolname), format('GRANT %I TO %I', r.rolname, session_user)
		FROM pg_roles r WHERE r.rolname IN ('contactsync_sync', 'contactsync_app', 'contactsync_ops') AND NOT pg_has_role(session_user, r.oid, 'MEMBER')`},
	{"roles", `
		WITH ours AS (SELECT 'contactsync_' || name AS wanted FROM unnest('{sync,app,ops,erase,reader,reader_all}'::text[]) AS name)
		SELECT true AS grave, 'there is no role ' || wanted AS text, format('CREATE ROLE %I NOLOGIN, then restore the rights from a dump', wanted) AS cure
		FROM ours WHERE $1::interval IS NOT NULL AND NOT EXISTS (SELECT FROM pg_roles WHERE rolname = wanted)
		UNION ALL
		SELECT true, format('the role %s is more than it may be', wanted),
			format('ALTER ROLE %I NOSUPERUSER NOBYPASSRLS NOCREATEROLE NOCREATEDB NOLOGIN', wanted)
		FROM ours JOIN pg_roles ON rolname = wanted WHERE rolsuper OR rolbypassrls OR rolcreaterole OR rolcreatedb OR rolcanlogin
		UNION ALL
		SELECT true, format('the role %s may work as %s', wanted, other.rolname), format('REVOKE %I FROM %I', other.rolname, wanted)
		FROM ours JOIN pg_roles member ON member.rolname = wanted JOIN pg_auth_members m ON m.member = member.oid JOIN pg_roles other ON other.oid = m.roleid
		WHERE (wanted, other.rolname) <> ('contactsync_reader_all', 'contactsync_reader')`},
	{"rights", `
		WITH ours AS (
			SELECT c.oid, c.relname, c.relkind, c.relowner, c.relrowsecurity AND c.relforcerowsecurity AS forced, c.reloptions,
				coalesce(c.relacl, acldefault('r', c.relowner)) AS acl
			FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
			WHERE n.nspname = 'contactsync' AND c.relkind IN ('r', 'p', 'v')
				OR n.nspname = 'public' AND c.relkind = 'v' AND c.relowner = (SELECT nspowner FROM pg_namespace WHERE nspname = 'contactsync')
		), given AS (
			SELECT o.oid, o.relowner, a.grantee FROM ours o, aclexplode(o.acl) a
			UNION SELECT o.oid, o.relowner, a.grantee FROM ours o JOIN pg_attribute t ON t.attrelid = o.oid, aclexplode(t.attacl) a
		), needful AS ( -- the most telling of the rights that 00002_rights.sql gives, and of those that it keeps back
			SELECT 'contactsync_' || name AS name, may, o.oid::regclass AS tab, wanted,
				CASE may WHEN 'DELETE' THEN has_table_privilege(r.oid, o.oid, may) ELSE has_any_column_privilege(r.oid, o.oid, may) END AS allowed
			FROM (VALUES
				('sync', 'role_choices', 'SELECT', false), ('sync', 'role_choices', 'INSERT', false), ('sync', 'role_choices', 'UPDATE', false),
				('sync', 'role_choices', 'DELETE', false), ('sync', 'customers', 'DELETE', false), ('sync', 'contacts', 'DELETE', false),
				('sync', 'customer_contacts', 'DELETE', false), ('sync', 'history', 'DELETE', false), ('app', 'credentials', 'SELECT', false),
				('reader', 'credentials', 'SELECT', false), ('reader_all', 'credentials', 'SELECT', false),
				('sync', 'runs', 'UPDATE', true), ('sync', 'run_pages', 'INSERT', true), ('sync', 'customers', 'INSERT', true),
				('sync', 'customers', 'UPDATE', true), ('sync', 'contacts', 'INSERT', true), ('sync', 'contacts', 'UPDATE', true),
				('sync', 'contact_points', 'INSERT', true), ('sync', 'contact_points', 'DELETE', true), ('sync', 'customer_contacts', 'INSERT', true),
				('sync', 'customer_contacts', 'UPDATE', true), ('sync', 'issues', 'INSERT', true), ('sync', 'history', 'INSERT', true),
				('sync', 'holds', 'INSERT', true), ('sync', 'credentials', 'UPDATE', true), ('app', 'role_choices', 'INSERT', true),
				('app', 'runs', 'INSERT', true), ('ops', 'connections', 'UPDATE', true), ('ops', 'runs', 'INSERT', true),
				('ops', 'credentials', 'INSERT', true), ('reader', 'customer_contacts', 'SELECT', true)
			) AS v (name, tab, may, wanted) JOIN ours o ON o.relname = v.tab JOIN pg_roles r ON r.rolname = 'contactsync_' || name AND NOT r.rolsuper
		)
		SELECT true AS grave, format('row-level security is not forced on %s', oid::regclass) AS text,
			format('ALTER TABLE %1$s ENABLE ROW LEVEL SECURITY; ALTER TABLE %1$s FORCE ROW LEVEL SECURITY', oid::regclass) AS cure
		FROM ours WHERE $1::interval IS NOT NULL AND relkind <> 'v' AND NOT forced
		UNION ALL
		SELECT true, format('the policy %s of %s holds for everybody', p.polname, p.polrelid::regclass),
			format('DROP POLICY %I ON %s', p.polname, p.polrelid::regclass)
		FROM pg_policy p JOIN ours o ON o.oid = p.polrelid WHERE 0 = ANY (p.polroles)
		UNION ALL
		SELECT true, format('the view %s shows every tenant''s rows to whoever may read it', oid::regclass),
			format('ALTER VIEW %s SET (security_invoker = true)', oid::regclass)
		FROM ours WHERE relkind = 'v' AND NOT coalesce(reloptions, '{}') && '{security_invoker=true,security_invoker=on}'
		UNION ALL
		SELECT true, format('%s has rights of its own on %s', g.name, g.tables), format('REVOKE ALL ON %s FROM %s', g.tables, g.name)
		FROM (
			SELECT CASE grantee WHEN 0 THEN 'PUBLIC' ELSE grantee::regrole::text END AS name,
				string_agg(oid::regclass::text, ', ' ORDER BY oid::regclass::text) AS tables
			FROM given WHERE grantee <> relowner AND grantee NOT IN (SELECT oid FROM pg_roles
				WHERE rolname IN ('contactsync_sync', 'contactsync_app', 'contactsync_ops', 'contactsync_erase', 'contactsync_reader',
					'contactsync_reader_all'))
			GROUP BY grantee
		) g
		UNION ALL
		SELECT true, format('%s can name our tables, and not only the views', s.name), format('REVOKE ALL ON SCHEMA contactsync FROM %s', s.name)
		FROM (
			SELECT DISTINCT CASE a.grantee WHEN 0 THEN 'PUBLIC' ELSE a.grantee::regrole::text END AS name
			FROM pg_namespace n, aclexplode(n.nspacl) a WHERE n.nspname = 'contactsync' AND a.grantee <> n.nspowner AND a.grantee NOT IN (
				SELECT oid FROM pg_roles WHERE rolname IN ('contactsync_sync', 'contactsync_app', 'contactsync_ops', 'contactsync_erase'))
		) s
		UNION ALL
		SELECT true, name || CASE WHEN allowed THEN ' may ' ELSE ' may not ' END || may || ' on ' || tab,
			format(CASE WHEN allowed THEN 'REVOKE %s ON %s FROM %s' ELSE 'GRANT %s ON %s TO %s' END, may, tab, name)
		FROM needful WHERE allowed <> wanted`},
	{"vacuum", `
		SELECT false AS grave, format('a transaction of %s has been open for %s, and keeps old rows from being removed',
				usename, date_trunc('second', clock_timestamp() - xact_start)) AS text,
			format('SELECT pg_terminate_backend(%s)', pid) AS cure
		FROM pg_stat_activity WHERE datname = current_database() AND backend_type = 'client backend' AND pid <> pg_backend_pid()
			AND xact_start < clock_timestamp() - $1::interval
		UNION ALL -- of another login, whose times are hidden
		SELECT false, format('a transaction of %s is older than a million others, and keeps old rows from being removed', usename),
			format('SELECT pg_terminate_backend(%s)', pid)
		FROM pg_stat_activity WHERE datname = current_database() AND xact_start IS NULL AND age(backend_xmin) > 1000000
		UNION ALL
		SELECT false, format('a prepared transaction of %s has waited since %s, and keeps its locks and old rows from being removed',
				owner, date_trunc('second', prepared)),
			format('ROLLBACK PREPARED %L', gid)
		FROM pg_prepared_xacts WHERE database = current_database() AND prepared < clock_timestamp() - $1::interval
		UNION ALL
		SELECT false, 'autovacuum is off, so tables grow', 'ALTER SYSTEM SET autovacuum = on; SELECT pg_reload_conf()'
		WHERE current_setting('autovacuum') = 'off'`},
}

// Examine asks a database about itself: what holds for the server, the login and the rights, without a row of ours. A transaction
// that is open for longer than patience is an ailment. It takes no role, since the login itself is what it looks at.
func (s *Store) Examine(ctx context.Context, patience time.Duration) (Examination, error) {
	tx, err := s.db.BeginTxx(ctx, &sql.TxOptions{ReadOnly: true})
	if err != nil {
		return Examination{}, fmt.Errorf("postgres: %w", reachable(err))
	}
	defer func() { _ = tx.Rollback() }() // it only reads
	if _, err := tx.ExecContext(ctx, fmt.Sprintf(`SELECT set_config('statement_timeout', '%d', true)`, statementPatience.Milliseconds())); err != nil {
		return Examination{}, fmt.Errorf("postgres: %w", reachable(err))
	}
	return examine(ctx, tx, patience)
}

func examine(ctx context.Context, tx *sqlx.Tx, patience time.Duration) (Examination, error) {
	var e Examination
	var major int
	if err := tx.GetContext(ctx, &major, `SELECT current_setting('server_version_num')::int / 10000`); err != nil {
		return e, fmt.Errorf("postgres: %w", reachable(err))
	}
	if major < oldestPostgres {
		return e, fmt.Errorf("postgres: version %d is too old: use %d or newer", major, oldestPostgres)
	}
	err := tx.GetContext(ctx, &e, `
		SELECT current_setting('server_version') AS version, clock_timestamp() AS now, session_user::text AS login,
			pg_encoding_to_char(d.encoding) || ', ' || d.datctype AS locale,
			(SELECT coalesce(sum(numbackends), 0) FROM pg_stat_database) AS sessions, m.most,
			least(m.most, nullif(r.rolconnlimit, -1), nullif(d.datconnlimit, -1)) AS lim,
			pg_has_role(session_user, 'pg_read_all_stats', 'MEMBER') AS sees_all,
			EXISTS (SELECT FROM pg_namespace WHERE nspname = 'contactsync') AS migrated
		FROM pg_database d, pg_roles r,
			(SELECT current_setting('max_connections')::int - current_setting('superuser_reserved_connections')::int AS most) m
		WHERE d.datname = current_database() AND r.rolname = session_user`)
	if err != nil {
		return e, fmt.Errorf("postgres: examine: %w", err)
	}
	for _, x := range examinations {
		var found []Ailment
		err := tx.SelectContext(ctx, &found, `SELECT * FROM (`+x.query+`) AS x ORDER BY grave DESC, text`, fmt.Sprintf("%d ms", patience.Milliseconds()))
		if err != nil {
			return e, fmt.Errorf("postgres: examine %s: %w", x.check, err)
		}
		for _, a := range found {
			a.Check = x.check
			e.Ailments = append(e.Ailments, a)
		}
	}
	return e, nil
}

// StuckRuns tells of unfinished runs that do not move: ready and not handed out, not taken over from a worker that died, begun or
// handed out again and again. One that waits in the queue for a free worker is not stuck.
func (s *Store) StuckRuns(ctx context.Context) ([]Ailment, error) {
	var found []struct {
		Run      int64  `db:"id"`
		Name     string `db:"name"`
		Attempts int    `db:"attempts"`
		Vain     int    `db:"vain"`
		Minutes  int    `db:"minutes"`
		Total    int    `db:"total"`
	}
	err := s.in(ctx, asOps, anyTenant, func(tx *sqlx.Tx) error {
		return tx.SelectContext(ctx, &found, `
			SELECT *, count(*) OVER () AS total FROM (
				SELECT r.id, n.name, r.attempts, r.delivery - r.fencing AS vain,
					CASE WHEN `+ready+` AND (r.lease_until IS NOT NULL OR r.handed_out_at IS NULL) THEN floor(extract(epoch FROM now() -
						greatest(r.queued_at, r.not_before, r.lease_until, r.handed_out_at, r.checkpoint_at, (SELECT o.finished_at FROM runs o
							WHERE o.connection_id = r.connection_id AND o.id < r.id ORDER BY o.id DESC LIMIT 1))) / 60)::int ELSE 0 END AS minutes
				FROM runs r JOIN connections n ON n.tenant_id = r.tenant_id AND n.id = r.connection_id
				WHERE r.status IN ('queued', 'running', 'waiting')
			) AS r WHERE attempts >= $1 OR vain >= $2 OR minutes >= $3
			ORDER BY minutes DESC, attempts DESC, vain DESC, id LIMIT $4`, triesTold, vainTold, int(backlogLasts.Minutes()), itemsOfAKind)
	})
	if err != nil {
		return nil, fmt.Errorf("find stuck runs: %w", err)
	}
	var out []Ailment
	for _, f := range found {
		a := Ailment{Check: "runs", Do: fmt.Sprintf("syncctl run show %d", f.Run)}
		switch {
		case f.Minutes >= int(backlogLasts.Minutes()):
			a.Grave = true
			a.Text = fmt.Sprintf("run %d of %s has been ready for %s, and nobody works it", f.Run, f.Name, lasting(time.Duration(f.Minutes)*time.Minute))
		case f.Attempts >= triesTold:
			a.Text = fmt.Sprintf("run %d of %s was begun %d times without a page saved", f.Run, f.Name, f.Attempts)
		default:
			a.Text = fmt.Sprintf("run %d of %s was handed out %d times in vain: Redis loses tasks, or workers use another database", f.Run, f.Name, f.Vain)
		}
		out = append(out, a)
	}
	if len(found) > 0 && found[0].Total > len(found) {
		out = append(out, Ailment{Check: "runs", Text: fmt.Sprintf("… and %d more", found[0].Total-len(found)), Do: "syncctl run list --status queued"})
	}
	return out, nil
}

const (
	triesTold = 5  // of the ten that a run has
	vainTold  = 10 // deliveries that no worker claimed
)

// Box is a connection's credentials, sealed.
type Box struct {
	SealedCredentials
	Stored credentials.Stored
}

// Boxes reads all credentials, to see whether they open.
func (s *Store) Boxes(ctx context.Context) ([]Box, error) {
	var rows []struct {
		SealedCredentials
		sealedRow
	}
	err := s.in(ctx, asOps, anyTenant, func(tx *sqlx.Tx) error {
		return tx.SelectContext(ctx, &rows, `
			SELECT tenant_id, connection_id, key_id, box, version, renewing_since FROM credentials ORDER BY connection_id`)
	})
	if err != nil {
		return nil, fmt.Errorf("read credentials: %w", err)
	}
	out := make([]Box, 0, len(rows))
	for _, r := range rows {
		out = append(out, Box{r.SealedCredentials, r.stored()})
	}
	return out, nil
}

package postgres_test

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/jmoiron/sqlx"

	"github.com/centime/contactsync/internal/postgres"
	"github.com/centime/contactsync/internal/postgres/pgtest"
)

// TestExamineFindsWhatIsBroken breaks each thing in a transaction that is rolled back, since roles belong to the server, and guards
// that it is found, that nothing is found without, and that the cure, typed as it stands, is one.
func TestExamineFindsWhatIsBroken(t *testing.T) {
	t.Parallel()
	dsn := pgtest.New(t)
	db, err := sqlx.Open("postgres", dsn)
	if err != nil {
		t.Fatal(err)
	}
	defer db.Close()
	tx, err := db.BeginTxx(t.Context(), nil)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = tx.Rollback() }()
	exec := func(statement string) {
		t.Helper()
		if _, err := tx.ExecContext(t.Context(), statement); err != nil {
			t.Fatalf("%s: %v", statement, err)
		}
	}
	found := func() (out []postgres.Ailment) {
		t.Helper()
		exec(`SET LOCAL SESSION AUTHORIZATION examined`)
		e, err := postgres.ExamineIn(t.Context(), tx, time.Minute)
		if err != nil {
			t.Fatal(err)
		}
		exec(`SET LOCAL SESSION AUTHORIZATION DEFAULT`)
		if e.Login != "examined" || e.Limit < 1 || e.Sessions < 1 || !e.Migrated || time.Since(e.Now).Abs() > time.Minute {
			t.Errorf("%+v", e)
		}
		return e.Ailments
	}
	exec(`CREATE ROLE examined LOGIN IN ROLE contactsync_sync, contactsync_app, contactsync_ops`)
	if a := found(); len(a) != 0 {
		t.Fatalf("as it should be: %+v", a)
	}
	for _, c := range []struct {
		broken string
		check  string
		text   string // part of it
		cured  string // what is typed; empty: the cure is no SQL, or concerns the whole database
	}{
		{`UPDATE pg_database SET encoding = pg_char_to_encoding('SQL_ASCII') WHERE datname = current_database()`, "encoding", "is encoded in SQL_ASCII", ""},
		{`UPDATE pg_database SET datctype = 'C' WHERE datname = current_database()`, "encoding", "its locale C knows no letters", ""},
		{`UPDATE pg_database SET datcollversion = '1' WHERE datname = current_database()`, "encoding", "its indexes may not find", ""},
		{`ALTER ROLE examined SUPERUSER`, "login", "examined is a superuser", ""},
		{`ALTER ROLE examined BYPASSRLS`, "login", "is above row-level security", ""},
		{`ALTER ROLE examined CREATEROLE`, "login", "is allowed to make roles", ""},
		{`ALTER SCHEMA contactsync OWNER TO examined`, "login", "is the owner of the schema", ""},
		{`REVOKE contactsync_ops FROM examined`, "login", "examined cannot work as contactsync_ops", "GRANT contactsync_ops TO examined"},
		{`ALTER ROLE contactsync_reader_all RENAME TO contactsync_lost`, "roles", "no role contactsync_reader_all", ""},
		{`ALTER ROLE contactsync_sync BYPASSRLS`, "roles", "contactsync_sync is more than", "ALTER ROLE contactsync_sync NOSUPERUSER NOBYPASSRLS"},
		{`ALTER ROLE contactsync_reader LOGIN`, "roles", "contactsync_reader is more than", "ALTER ROLE contactsync_reader NOSUPERUSER"},
		{
			`GRANT contactsync_app TO contactsync_sync`, "roles", "contactsync_sync may work as contactsync_app",
			"REVOKE contactsync_app FROM contactsync_sync",
		},
		{
			`ALTER TABLE contactsync.contacts NO FORCE ROW LEVEL SECURITY`, "rights", "not forced on contactsync.contacts",
			"ALTER TABLE contactsync.contacts ENABLE ROW LEVEL SECURITY; ALTER TABLE contactsync.contacts FORCE",
		},
		{`ALTER TABLE contactsync.issues DISABLE ROW LEVEL SECURITY`, "rights", "not forced on contactsync.issues", "ALTER TABLE contactsync.issues ENABLE"},
		{
			`CREATE POLICY debug ON contactsync.contacts USING (true)`, "rights", "debug of contactsync.contacts holds for everybody",
			"DROP POLICY debug ON contactsync.contacts",
		},
		{`ALTER VIEW recipients RESET (security_invoker)`, "rights", "the view recipients shows", "ALTER VIEW recipients SET (security_invoker = true)"},
		{
			`GRANT SELECT ON recipients, contactsync.contacts TO examined`, "rights", "examined has rights of its own on contactsync.contacts, recipients",
			"REVOKE ALL ON contactsync.contacts, recipients FROM examined",
		},
		{`GRANT SELECT (name) ON contactsync.customers TO PUBLIC`, "rights", "PUBLIC has rights of its own on contactsync.customers", ""},
		{
			`GRANT USAGE ON SCHEMA contactsync TO contactsync_reader`, "rights", "contactsync_reader can name our tables",
			"REVOKE ALL ON SCHEMA contactsync FROM contactsync_reader",
		},
		{
			`GRANT SELECT ON contactsync.role_choices TO contactsync_sync`, "rights", "contactsync_sync may SELECT on contactsync.role_choices",
			"REVOKE SELECT ON contactsync.role_choices FROM contactsync_sync",
		},
		{
			`GRANT SELECT (box) ON contactsync.credentials TO contactsync_reader`, "rights", "contactsync_reader may SELECT on contactsync.credentials", "",
		},
		{
			`REVOKE INSERT ON contactsync.history FROM contactsync_sync`, "rights", "contactsync_sync may not INSERT on contactsync.history",
			"GRANT INSERT ON contactsync.history TO contactsync_sync",
		},
	} {
		exec(`SAVEPOINT whole`)
		exec(c.broken)
		after := found()
		at := -1
		for i, a := range after {
			if a.Check == c.check && strings.Contains(a.Text, c.text) {
				at = i
			}
		}
		if at < 0 {
			t.Errorf("%s: not found: %+v", c.broken, after)
		} else if cure := after[at].Do; cure == "" || !strings.HasPrefix(cure, c.cured) {
			t.Errorf("%s: the cure is %q", c.broken, cure)
		} else if c.cured != "" {
			exec(cure)
			if left := found(); len(left) != 0 {
				t.Errorf("%s: the cure %q leaves %+v", c.broken, cure, left)
			}
		}
		exec(`ROLLBACK TO SAVEPOINT whole`)
	}
	if a := found(); len(a) != 0 {
		t.Errorf("mended: %+v", a)
	}
}

// TestStuckRuns guards which runs are told as stuck, worst first, and that those which move or wait for good reason are not.
func TestStuckRuns(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct{ given, want string }{
		"Works": {
			newRun + `status, fencing, delivery, attempts, queued_at, handed_out_at, lease_until)
				VALUES (1, 1, 'full', 'manual', 'running', 400, 401, 1, now() - interval '9 h', now() - interval '1 min', now() + interval '9 s')`, "",
		},
		"BetweenSteps": {
			newRun + `status, fencing, delivery, queued_at, handed_out_at)
				VALUES (1, 1, 'full', 'manual', 'running', 400, 401, now() - interval '9 h', now() - interval '1 s')`, "",
		},
		"WaitsForAFreeWorker": {
			newRun + `delivery, queued_at, handed_out_at) VALUES (1, 1, 'full', 'first_load', 1, now() - interval '9 h', now() - interval '9 h')`, "",
		},
		"LostJustNow": {
			newRun + `status, fencing, delivery, queued_at, checkpoint_at)
				VALUES (1, 1, 'full', 'manual', 'running', 400, 401, now() - interval '9 h', now() - interval '1 min')`, "",
		},
		"NotHandedOut": {
			newRun + `queued_at) VALUES (1, 1, 'full', 'manual', now() - interval '15 min')`,
			"run 1 of Kelp books has been ready for 15 min, and nobody works it true syncctl run show 1",
		},
		"Waits": {newRun + `status, queued_at, not_before) VALUES (1, 1, 'full', 'manual', 'waiting', now() - interval '9 h', now() + interval '1 h')`, ""},
		"PausedConnection": {
			`UPDATE connections SET state = 'paused';` + newRun + `queued_at) VALUES (1, 1, 'full', 'manual', now() - interval '9 h')`, "",
		},
		"LeaseEnded": {
			newRun + `status, fencing, delivery, queued_at, lease_until)
				VALUES (1, 1, 'full', 'manual', 'running', 1, 1, now() - interval '9 h', now() - interval '40 min')`,
			"run 1 of Kelp books has been ready for 40 min, and nobody works it true syncctl run show 1",
		},
		"WaitIsOver": {
			newRun + `status, queued_at, not_before) VALUES (1, 1, 'full', 'manual', 'waiting', now() - interval '9 h', now() - interval '3 h')`,
			"run 1 of Kelp books has been ready for 3 h, and nobody works it true syncctl run show 1",
		},
		"BegunInVain": {
			newRun + `status, fencing, delivery, attempts, not_before) VALUES (1, 1, 'full', 'manual', 'waiting', 5, 5, 5, now() + interval '1 h')`,
			"run 1 of Kelp books was begun 5 times without a page saved false syncctl run show 1",
		},
		"HandedOutInVain": {
			newRun + `status, fencing, delivery) VALUES (1, 1, 'full', 'manual', 'queued', 2, 12)`,
			"run 1 of Kelp books was handed out 10 times in vain: Redis loses tasks, or workers use another database false syncctl run show 1",
		},
		"Ended": {newRun + `status, fencing, delivery, attempts, finished_at) VALUES (1, 1, 'full', 'manual', 'failed', 10, 30, 10, now())`, ""},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			store, db := calm(t)
			statements(t, db, c.given)
			stuck, err := store.StuckRuns(t.Context())
			if err != nil {
				t.Fatal(err)
			}
			var got []string
			for _, a := range stuck {
				got = append(got, fmt.Sprint(a.Text, " ", a.Grave, " ", a.Do))
			}
			if strings.Join(got, "\n") != c.want {
				t.Errorf("got  %s\nwant %s", strings.Join(got, "\n"), c.want)
			}
		})
	}
}

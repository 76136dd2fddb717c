//go:build surroundings

package demo

import (
	"encoding/json"
	"errors"
	"fmt"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/centime/contactsync/internal/erpsim/qbo"
	"github.com/centime/contactsync/internal/postgres/pgtest"
)

// restored is a system of seven companies whose Postgres died, and was restored on another server from a backup that is older
// than three renewals of every refresh token. Redis outlived it, with deliveries of runs 8 to 14, which are not in the backup.
type restored struct {
	*system
	companies []*qbo.Company
	spent     []int // uses of replaced refresh tokens before
}

func restore(t *testing.T, options qbo.Options) *restored {
	t.Helper()
	t.Parallel()
	old := newPostgres(t, nil, "")
	owner, login := install(t, old)
	s := newSystemIn(t, old.dsn("contactsync"), 150, options)
	s.with("DATABASE_URL=" + login.String())
	r := &restored{system: s, companies: []*qbo.Company{s.company}}
	for i := range 6 {
		r.companies = append(r.companies, s.connect(fmt.Sprint(9130350000001000+i), 100, "--schedule", rarely))
	}
	scheduler, worker := s.launch("scheduler"), s.launch("worker")
	s.becomes("7", `SELECT count(*) FROM contactsync.runs WHERE status = 'succeeded'`)
	s.ctl(nil, 0, "role", "set", "--tenant", "Kelp", "Company Contact", "--invoice-presentment=true", "--yes")

	dir, programs := folder(t), postgresPrograms(t)
	backup, roles := filepath.Join(dir, "backup"), filepath.Join(dir, "roles.sql")
	as := func(dsn string, program string, args ...string) *exec.Cmd {
		return asServer(append([]string{filepath.Join(programs, program), "-d", dsn}, args...)...)
	}
	// Row-level security is forced for the owner too: its backup would be one without rows, and is refused.
	out, err := as(owner.String(), "pg_dump", "-f", "/dev/null").CombinedOutput()
	if err == nil || !strings.Contains(string(out), "row-level security") {
		t.Errorf("the owner's pg_dump: %v\n%s", err, out)
	}
	run(t, as(old.dsn("contactsync"), "pg_dump", "-Fc", "-f", backup))
	run(t, as(old.dsn("postgres"), "pg_dumpall", "--roles-only", "-f", roles))

	for i, c := range r.companies {
		for range 3 {
			c.ExpireAccess()
			s.ctl(nil, 0, "connection", "check", fmt.Sprint(i+1)) // renews the token, without a run
		}
		active := activeOf(c)
		if err := errors.Join(c.Edit(active[0], func(to *qbo.Customer) { to.Email = "moved@kelp.example" }), c.Deactivate(active[1])); err != nil {
			t.Fatal(err)
		}
		c.Import(3)
	}
	s.ctl(nil, 0, "role", "set", "--tenant", "Kelp", "Company Contact", "--invoice-presentment=false", "--yes")
	s.end(worker)
	s.ctl(nil, 0, "resync", "1", "2", "3")
	pgtest.Exec(t, s.dsn, `UPDATE contactsync.connections SET next_due_at = now() WHERE id > 3`)
	s.becomes("7", `SELECT count(*) FROM contactsync.runs WHERE status = 'queued' AND handed_out_at IS NOT NULL`)
	s.end(scheduler)

	old.kill()
	fresh := newPostgres(t, nil, "")
	run(t, as(fresh.dsn("postgres"), "psql", "-f", roles)) // its own superuser is there already, which psql mentions and goes on
	pgtest.Exec(t, fresh.dsn("postgres"), "CREATE DATABASE contactsync OWNER contactsync_owner ENCODING 'UTF8' TEMPLATE template0")
	run(t, as(fresh.dsn("contactsync"), "pg_restore", "--exit-on-error", backup))
	s.dsn, login.Host = fresh.dsn("contactsync"), fresh.address()
	s.with("DATABASE_URL=" + login.String())
	for _, c := range r.companies {
		c.ExpireAccess()
		r.spent = append(r.spent, c.Tokens().Spent)
	}
	pgtest.Exec(t, s.dsn, `UPDATE contactsync.connections SET next_due_at = now()`)
	return r
}

func activeOf(c *qbo.Company) (ids []string) {
	for _, customer := range c.Customers() {
		if !customer.Inactive {
			ids = append(ids, customer.ID)
		}
	}
	return ids
}

// reconnect gives a company's connection a new login, as ops do with what the customer sends.
func (r *restored) reconnect(i int) {
	r.t.Helper()
	login, err := json.Marshal(r.companies[i].Connect())
	if err != nil {
		r.t.Fatal(err)
	}
	r.ctl(login, 0, "connection", "credentials", fmt.Sprint(i+1), "-")
}

// rightAgain wants every company right after a full resync, decisions of people as old as the backup, and ids of the lost
// future used again without harm.
func (r *restored) rightAgain() {
	r.t.Helper()
	r.ctl(nil, 0, "resync", "--all", "--full", "--wait")
	for _, c := range r.companies {
		r.equalTo(c)
	}
	if got := pgtest.Value(r.t, r.dsn, `SELECT invoice_presentment::text FROM contactsync.roles WHERE name = 'Company Contact'`); got != "true" {
		r.t.Errorf("the role's setting is not the backup's: %s", got)
	}
	// One whose old delivery was just being taken when it was handed out is handed out again after a lease.
	if got := pgtest.Value(r.t, r.dsn, `SELECT count(*) FROM contactsync.runs WHERE id BETWEEN 8 AND 14 AND trigger = 'schedule'
		AND delivery <= 2 AND status IN ('succeeded', 'failed')`); got != "7" {
		r.t.Errorf("%s of the seven runs whose ids came again were worked", got)
	}
	if v := r.sim.Violations(); len(v) != 0 {
		r.t.Errorf("requests that are no reads: %+v", v)
	}
}

// TestRestoredBackup: every refresh token in the backup is dead. No company is asked more than a few times with one; after one has
// connected again the others say each for itself that they must, and how; and then all contacts are right.
func TestRestoredBackup(t *testing.T) {
	r := restore(t, qbo.Options{RotateAfter: -1})
	r.launch("scheduler")
	r.launch("worker")
	// As long as none works it could be the installation.
	r.becomes("1", `SELECT count(*) FROM contactsync.erp_pauses WHERE ended_at IS NULL`)
	r.becomes("1", `SELECT count(*) FROM contactsync.runs WHERE reason LIKE 'trial: %' AND status = 'failed'`)
	if out := r.ctl(nil, 3, "status"); !strings.Contains(out, "quickbooks-online") {
		t.Errorf("status does not say it:\n%s", out)
	}

	r.reconnect(0)
	r.becomes("0", `SELECT count(*) FROM contactsync.erp_pauses WHERE ended_at IS NULL`)
	r.equal() // an incremental run, from the backup's cursor
	r.becomes("6", `SELECT count(*) FROM contactsync.connections WHERE state = 'needs_attention' AND state_reason LIKE '%connect QuickBooks again%'
		AND state_reason LIKE '%syncctl connection credentials%' AND next_due_at > now() + interval '23 hours'`)
	ticked := time.Now()
	r.becomes("0", `SELECT count(*) FROM contactsync.runs WHERE status NOT IN ('succeeded', 'failed')`)
	eventually(t, "schedulers look at it again", func() bool { return time.Since(ticked) > 3*time.Second })
	if n := pgtest.Value(t, r.dsn, `SELECT count(*) FROM contactsync.erp_pauses`); n != "1" {
		t.Errorf("%s pauses: each company that connects again has the others tried again", n)
	}
	for i, c := range r.companies {
		if n := c.Tokens().Spent - r.spent[i]; n < 1 || n > 3 {
			t.Errorf("company %d was asked %d times with a dead token", i+1, n)
		}
	}
	for i := range r.companies[1:] {
		r.reconnect(i + 1)
	}
	r.becomes("0", `SELECT count(*) FROM contactsync.connections WHERE state <> 'active'`)
	r.rightAgain()
}

// TestRestoredWithinADay: where QuickBooks still takes a replaced token, as it says it does for a day, its answer brings the
// right one, and nobody has to do anything.
func TestRestoredWithinADay(t *testing.T) {
	r := restore(t, qbo.Options{RotateAfter: -1, OldTokenLives: 24 * time.Hour})
	r.launch("scheduler")
	r.launch("worker")
	r.becomes("7", `SELECT count(DISTINCT connection_id) FROM contactsync.runs WHERE trigger = 'schedule' AND status = 'succeeded'`)
	for _, c := range r.companies {
		c.ExpireAccess()
	}
	r.rightAgain()
	if n := pgtest.Value(t, r.dsn, `SELECT count(*) FROM contactsync.connections WHERE state <> 'active'`); n != "0" {
		t.Errorf("%s connections are not active", n)
	}
}

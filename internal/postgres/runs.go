package postgres

import (
	"context"
	"database/sql"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/jmoiron/sqlx"

	"github.com/centime/contactsync/internal/connector"
	"github.com/centime/contactsync/internal/credentials"
	"github.com/centime/contactsync/internal/schedule"
	"github.com/centime/contactsync/internal/settings"
)

// Mode of a run.
type Mode string

// The two modes. An incremental run of a connection that was never read becomes full.
const (
	Full        Mode = "full"
	Incremental Mode = "incremental"
)

// Trigger of a run.
type Trigger string

// Why a run was queued.
const (
	BySchedule Trigger = "schedule"
	Manual     Trigger = "manual"
	FirstLoad  Trigger = "first_load"
)

// Purpose of a run.
type Purpose string

// What runs are for.
const (
	Sync     Purpose = "sync"     // the whole connection
	Approval Purpose = "approval" // carry out an approved hold
	Customer Purpose = "customer" // refresh one customer
)

// Request asks for a run of a connection.
type Request struct {
	Tenant, Connection int64
	Mode               Mode
	Trigger            Trigger
	By, Reason         string
}

// QueueRun queues a run, or joins the one that is queued: then joined is true, and that run is full if either is.
func (s *Store) QueueRun(ctx context.Context, q Request) (run int64, joined bool, err error) {
	err = s.in(ctx, asOps, q.Tenant, func(tx *sqlx.Tx) (err error) {
		run, joined, err = queueRun(ctx, tx, q)
		return err
	})
	if err != nil {
		return 0, false, fmt.Errorf("queue run of connection %d: %w", q.Connection, err)
	}
	return run, joined, nil
}

func queueRun(ctx context.Context, tx *sqlx.Tx, q Request) (run int64, joined bool, err error) {
	if err := lockForQueue(ctx, tx, q); err != nil {
		return 0, false, err
	}
	err = tx.GetContext(ctx, &run, `
		UPDATE runs SET mode = CASE WHEN $3 = 'full' THEN 'full' ELSE mode END,
			trigger = CASE WHEN $4 = 'manual' THEN 'manual' ELSE trigger END,
			-- What a person asks for too is handed out anew: it may be far back in the queue of the scheduled ones.
			not_before = CASE WHEN $4 = 'manual' THEN NULL ELSE not_before END,
			handed_out_at = CASE WHEN $4 = 'manual' AND trigger <> 'manual' THEN NULL ELSE handed_out_at END
		WHERE tenant_id = $1 AND connection_id = $2 AND status = 'queued' AND NOT preview AND purpose = 'sync'
		RETURNING id`, q.Tenant, q.Connection, q.Mode, q.Trigger)
	joined = err == nil
	if errors.Is(err, sql.ErrNoRows) {
		err = tx.GetContext(ctx, &run, `
			INSERT INTO runs (tenant_id, connection_id, mode, trigger, requested_by, reason) VALUES ($1, $2, $3, $4, $5, $6) RETURNING id`,
			q.Tenant, q.Connection, q.Mode, q.Trigger, q.By, q.Reason)
	}
	if err != nil {
		return 0, false, err
	}
	return run, joined, keepRequest(ctx, tx, run, q)
}

// lockForQueue takes the connection's lock, which makes two requests at once see each other.
func lockForQueue(ctx context.Context, tx *sqlx.Tx, q Request) error {
	var state string
	err := tx.GetContext(ctx, &state, `SELECT state FROM connections WHERE tenant_id = $1 AND id = $2 FOR NO KEY UPDATE`, q.Tenant, q.Connection)
	if err == nil && state == "removed" {
		return fmt.Errorf("connection %d was removed: add it again first: %w", q.Connection, ErrNotFound)
	}
	return notFound(err, "connection")
}

func keepRequest(ctx context.Context, tx *sqlx.Tx, run int64, q Request) error {
	_, err := tx.ExecContext(ctx, `
		INSERT INTO run_requests (tenant_id, run_id, mode, trigger, requested_by, reason) VALUES ($1, $2, $3, $4, $5, $6)`,
		q.Tenant, run, q.Mode, q.Trigger, q.By, q.Reason)
	return err
}

// QueueDue queues a run for each connection whose time has come, at most limit of them, and sets its next time. Any number
// of schedulers may call it at once.
func (s *Store) QueueDue(ctx context.Context, limit int, save Savings) (int, error) {
	queued := 0
	err := s.in(ctx, asOps, anyTenant, func(tx *sqlx.Tx) error {
		queued = 0
		var due []struct {
			Tenant     int64        `db:"tenant_id"`
			ID         int64        `db:"id"`
			Schedule   string       `db:"schedule"`
			Settings   []byte       `db:"settings"`
			State      string       `db:"state"`
			LastFullAt sql.NullTime `db:"last_full_at"`
			Now        time.Time    `db:"now"`
			ERP        string       `db:"erp"`
			Due        time.Time    `db:"next_due_at"`
			Stuck      bool         `db:"stuck"`
		}
		err := tx.SelectContext(ctx, &due, `
			SELECT tenant_id, id, erp, schedule, settings, state, last_full_at, next_due_at, now() AS now, cursor <> '' AND $3 = (
				SELECT count(*) FILTER (WHERE mode = 'full' AND status = 'failed') FROM (SELECT mode, status FROM runs r
					WHERE r.connection_id = n.id AND NOT r.preview AND r.purpose = 'sync' ORDER BY r.id DESC LIMIT $3) AS last) AS stuck
			FROM connections n
			WHERE auto_sync AND state IN ('active', 'needs_attention') AND next_due_at <= now() AND NOT erp = ANY ($2)
				AND NOT EXISTS (SELECT FROM erp_pauses p WHERE p.erp = n.erp AND p.ended_at IS NULL)
			ORDER BY next_due_at LIMIT $1 FOR NO KEY UPDATE OF n SKIP LOCKED`, limit, append([]string{}, save.Stop...), fullInARow)
		if err != nil {
			return err
		}
		if len(due) == 0 {
			return nil
		}
		var tenants, ids []int64
		var modes []string
		var starts, next []*time.Time
		for _, d := range due {
			set, _ := readSettings(d.Settings) // a setting that cannot be read was refused when it was set; its default will do
			following := nextDue(d.Schedule, d.Now, d.ID, d.State)
			if following != nil && slices.Contains(save.Stretch, d.ERP) {
				following = nextDue(d.Schedule, *following, d.ID, d.State)
			}
			mode := Incremental
			if !d.LastFullAt.Valid || !d.Stuck && fullNow(d.LastFullAt.Time, set.FullEvery, d.Now, following) {
				mode = Full
			}
			tenants, ids, modes = append(tenants, d.Tenant), append(ids, d.ID), append(modes, string(mode))
			starts, next = append(starts, catchUp(d.Due, d.Now, d.ID)), append(next, following)
		}
		queued = len(due)
		// As queueRun, for all of them at once: their rows are locked.
		_, err = tx.ExecContext(ctx, `
			WITH due AS (
				SELECT * FROM unnest($1::bigint[], $2::bigint[], $3::text[], $4::timestamptz[], $5::timestamptz[])
					AS p (tenant_id, connection_id, mode, not_before, next)
			), joined AS (
				UPDATE runs r SET mode = CASE WHEN d.mode = 'full' THEN 'full' ELSE r.mode END FROM due d
				WHERE r.tenant_id = d.tenant_id AND r.connection_id = d.connection_id AND r.status = 'queued' AND NOT r.preview
					AND r.purpose = 'sync'
				RETURNING r.id, r.connection_id
			), made AS (
				INSERT INTO runs (tenant_id, connection_id, mode, trigger, requested_by, not_before)
				SELECT tenant_id, connection_id, mode, $6, 'schedule', not_before FROM due
				WHERE connection_id NOT IN (SELECT connection_id FROM joined)
				RETURNING id, connection_id
			), asked AS (
				INSERT INTO run_requests (tenant_id, run_id, mode, trigger, requested_by, reason)
				SELECT d.tenant_id, r.id, d.mode, $6, 'schedule', '' FROM (SELECT * FROM joined UNION ALL SELECT * FROM made) AS r
				JOIN due d USING (connection_id)
			)
			UPDATE connections c SET next_due_at = d.next FROM due d WHERE c.tenant_id = d.tenant_id AND c.id = d.connection_id`,
			tenants, ids, modes, starts, next, BySchedule)
		return err
	})
	if err != nil {
		return 0, fmt.Errorf("queue due connections: %w", err)
	}
	return queued, nil
}

// fullInARow is how many full runs may fail before one that only reads what has changed is due between them: what makes listing everything fail
// need not keep those who left in the mail.
const fullInARow = 3

// fullNow says whether a full run is due, or nearly is, and would be later at the due time that follows than it is early at this one. A run
// begins a little after it was due: counted from there, the same hour of the next day is always too early by that.
func fullNow(last time.Time, every time.Duration, now time.Time, following *time.Time) bool {
	early := every - now.Sub(last)
	return early <= 0 || early <= every/16 && (following == nil || early < following.Sub(last)-every)
}

// catchUp spreads what is late, after the schedulers were away or an ERP was paused, over as much time as it is late, ten
// minutes at most: otherwise thousands of connections would ask their ERPs in the same moment. Nil: on time.
func catchUp(due, now time.Time, id int64) *time.Time {
	const late, longest = time.Minute, 10 * time.Minute
	by := now.Sub(due)
	if by < late {
		return nil
	}
	start := now.Add(schedule.Spread(id, min(by, longest)))
	return &start
}

// nextDue is when a schedule asks for the next run; a connection that needs attention is tried once a day.
func nextDue(text string, now time.Time, id int64, state string) *time.Time {
	s, err := schedule.Parse(text)
	if err != nil {
		return nil // refused when it was set
	}
	next := s.Next(now, id)
	if next.IsZero() {
		return nil
	}
	if state == "needs_attention" && next.Before(now.Add(24*time.Hour)) {
		next = now.Add(24 * time.Hour)
	}
	return &next
}

func readSettings(text []byte) (settings.Settings, error) {
	var m settings.Map
	if err := json.Unmarshal(text, &m); err != nil {
		return settings.Settings{}, fmt.Errorf("settings: %w", err)
	}
	return settings.Read(m)
}

// HandOut is a delivery of a run to the queue.
type HandOut struct {
	Run      int64   `db:"id"`
	Delivery int     `db:"delivery"`
	Trigger  Trigger `db:"trigger"`
	GaveWay  bool    `db:"-"` // the step before it did, to something more urgent
}

// ready is when a run may be worked: its time has come, nobody works it, its connection is not stopped, and it is the
// connection's turn. A customer's refresh goes before everything else of the connection.
const ready = `r.status IN ('queued', 'running', 'waiting') AND coalesce(r.not_before, '-infinity') <= now()
	AND coalesce(r.lease_until, '-infinity') < now() AND n.state <> 'paused'
	AND NOT EXISTS (SELECT FROM runs o WHERE o.connection_id = r.connection_id AND o.id <> r.id AND o.lease_until > now())
	AND (r.status <> 'queued' OR r.purpose = 'customer' OR NOT EXISTS (SELECT FROM runs o
		WHERE o.connection_id = r.connection_id AND o.status IN ('running', 'waiting') AND o.purpose <> 'customer'))
	AND (r.purpose = 'customer' OR NOT EXISTS (SELECT FROM runs o WHERE o.connection_id = r.connection_id AND ` + refreshWaits + `))`

// refreshWaits is a customer's refresh whose time has come.
const refreshWaits = `o.purpose = 'customer' AND o.status IN ('queued', 'running', 'waiting') AND coalesce(o.not_before, '-infinity') <= now()`

// HandOutNew numbers and returns the deliveries of runs that are ready and not with the queue.
func (s *Store) HandOutNew(ctx context.Context, limit int) ([]HandOut, error) {
	var out []HandOut
	err := s.in(ctx, asOps, anyTenant, func(tx *sqlx.Tx) error {
		out = nil
		// A cancelled run whose worker died is nobody's to end, and would keep its connection's place.
		if _, err := tx.ExecContext(ctx, `
			WITH ended AS (
				SELECT tenant_id, id FROM runs
				WHERE cancel_requested AND status IN ('queued', 'running', 'waiting') AND coalesce(lease_until, '-infinity') < now()
				FOR UPDATE SKIP LOCKED
			)
			UPDATE runs r SET status = 'cancelled', finished_at = now(), lease_until = NULL FROM ended e
			WHERE r.tenant_id = e.tenant_id AND r.id = e.id`); err != nil {
			return err
		}
		return tx.SelectContext(ctx, &out, `
			WITH picked AS (
				SELECT r.tenant_id, r.id FROM runs r JOIN connections n ON n.tenant_id = r.tenant_id AND n.id = r.connection_id
				WHERE r.handed_out_at IS NULL AND `+ready+`
				ORDER BY r.trigger <> 'manual', r.id LIMIT $1 FOR UPDATE OF r SKIP LOCKED
			)
			UPDATE runs r SET delivery = delivery + 1, handed_out_at = now() FROM picked p WHERE r.tenant_id = p.tenant_id AND r.id = p.id
			RETURNING r.id, r.delivery, r.trigger`, limit)
	})
	if err != nil {
		return nil, fmt.Errorf("hand out runs: %w", err)
	}
	return out, nil
}

// HandedOutLongAgo lists the deliveries made more than age ago that nobody has claimed or whose worker's lease ran out: the
// queue may have lost them. They are of the runs after the one given, in their order.
func (s *Store) HandedOutLongAgo(ctx context.Context, age time.Duration, after int64, limit int) ([]HandOut, error) {
	var out []HandOut
	err := s.in(ctx, asOps, anyTenant, func(tx *sqlx.Tx) error {
		return tx.SelectContext(ctx, &out, `
			SELECT r.id, r.delivery, r.trigger FROM runs r JOIN connections n ON n.tenant_id = r.tenant_id AND n.id = r.connection_id
			WHERE r.handed_out_at < now() - $1 * interval '1 microsecond' AND r.id > $2 AND `+ready+`
			ORDER BY r.id LIMIT $3`, age.Microseconds(), after, limit)
	})
	if err != nil {
		return nil, fmt.Errorf("find lost deliveries: %w", err)
	}
	return out, nil
}

// HandOutAgain makes these runs ready for HandOutNew, if their delivery is still the one given. It waits for nobody: whom a worker or an
// erasure has just now is found again.
func (s *Store) HandOutAgain(ctx context.Context, lost []HandOut) error {
	var ids []int64
	var deliveries []int
	for _, h := range lost {
		ids, deliveries = append(ids, h.Run), append(deliveries, h.Delivery)
	}
	err := s.in(ctx, asOps, anyTenant, func(tx *sqlx.Tx) error {
		_, err := tx.ExecContext(ctx, `
			WITH lost AS (
				SELECT r.tenant_id, r.id FROM runs r JOIN unnest($1::bigint[], $2::int[]) AS p (id, delivery) ON r.id = p.id AND r.delivery = p.delivery
				WHERE coalesce(r.lease_until, '-infinity') < now() FOR UPDATE OF r SKIP LOCKED
			)
			UPDATE runs r SET handed_out_at = NULL FROM lost l WHERE r.tenant_id = l.tenant_id AND r.id = l.id`, ids, deliveries)
		return err
	})
	if err != nil {
		return fmt.Errorf("hand out again: %w", err)
	}
	return nil
}

// Claimed is a run that this worker works now.
type Claimed struct {
	Step
	ERP           string
	Account       string
	Settings      settings.Settings
	Mode          Mode
	Trigger       Trigger
	Purpose       Purpose
	Preview       bool
	CustomerID    string // of a Customer's refresh: the ERP's id
	Since, Resume connector.Cursor
	Pulled        bool // only the finish is left
	Attempts      int  // claims since the last saved page, this one included
	BeganAgain    int
	ThrottledFor  time.Duration // when it was claimed, by the database's clock; 0: not throttled since the last saved page
	// ERPPaused: the ERP refuses this installation, and this run is a trial or was asked for by a person: a refusal says
	// nothing about the connection.
	ERPPaused bool
	First     bool // claim of the run
	// Login is what the connection logs in with, as it was at the claim; nil: none, or one that was refused.
	Login *credentials.Stored
	seen  seen
	Delay time.Duration // since the run was ready, at its first claim
	Age   time.Duration // since the first claim
}

// seen is what the end of a quiet run needs to know of its connection; if it has changed since the claim, the run ends the long way.
type seen struct {
	schedule, state string
	autoSync        bool
	began           time.Time // of the listing, by the database's clock
}

// ErrNotYours says that a delivery is not the current one, or that its run may not be worked now: the task ends.
var ErrNotYours = errors.New("this delivery is not to be worked")

// Claim takes the lease of a run. A first claim begins the listing, from the checkpoint of a run of the same mode that
// failed before it if there is one.
func (s *Store) Claim(ctx context.Context, run int64, delivery int, lease time.Duration) (*Claimed, error) {
	var c *Claimed
	try := func() error {
		return s.in(ctx, asOps, anyTenant, func(tx *sqlx.Tx) (err error) {
			c, err = claim(ctx, tx, run, delivery, lease)
			return err
		})
	}
	err := try()
	if isUniqueViolation(err, "runs_one_lease") {
		// The lease of another run that has ended, whose worker died, is in the way, and that run may be waiting for this one.
		err = s.in(ctx, asOps, anyTenant, func(tx *sqlx.Tx) error {
			_, err := tx.ExecContext(ctx, `UPDATE runs o SET lease_until = NULL FROM runs r
				WHERE r.id = $1 AND o.connection_id = r.connection_id AND o.id <> r.id AND o.lease_until < clock_timestamp()`, run)
			return err
		})
		if err == nil {
			err = try()
		}
	}
	if isUniqueViolation(err, "runs_one_running") || isUniqueViolation(err, "runs_one_lease") {
		err = ErrNotYours // another run of the connection is on its way; the scheduler hands this one out after it
	}
	if err != nil {
		return nil, fmt.Errorf("claim run %d: %w", run, err)
	}
	return c, nil
}

func claim(ctx context.Context, tx *sqlx.Tx, run int64, delivery int, lease time.Duration) (*Claimed, error) {
	var r struct {
		Tenant       int64        `db:"tenant_id"`
		Connection   int64        `db:"connection_id"`
		Fencing      int64        `db:"fencing"`
		Mode         Mode         `db:"mode"`
		Trigger      Trigger      `db:"trigger"`
		Purpose      Purpose      `db:"purpose"`
		Preview      bool         `db:"preview"`
		CustomerID   string       `db:"customer_erp_id"`
		Since        string       `db:"since_cursor"`
		Checkpoint   string       `db:"checkpoint"`
		Pulled       bool         `db:"pulled"`
		Attempts     int          `db:"attempts"`
		BeganAgain   int          `db:"began_again"`
		ThrottledFor int64        `db:"throttled_for"` // µs
		AfterFailure sql.NullBool `db:"after_failure"`
		Old          bool         `db:"old"`
		Stale        bool         `db:"stale"`
		ERP          string       `db:"erp"`
		Account      string       `db:"account"`
		Settings     []byte       `db:"settings"`
		Cursor       string       `db:"cursor"`
		Schedule     string       `db:"schedule"`
		AutoSync     bool         `db:"auto_sync"`
		State        string       `db:"state"`
		Began        time.Time    `db:"listing_began_at"`
		KeyID        string       `db:"key_id"`
		Box          []byte       `db:"box"`
		Version      int64        `db:"version"`
		Given        int64        `db:"given"`
		LoginRefused bool         `db:"login_refused"`
		ERPPaused    bool         `db:"erp_paused"`
		Delay        int64        `db:"delay"`
		Age          int64        `db:"age"`
	}
	err := tx.GetContext(ctx, &r, `
		WITH ready AS (
			SELECT greatest(r.queued_at, r.not_before, (SELECT o.finished_at FROM runs o WHERE o.connection_id = r.connection_id AND o.id < r.id
				ORDER BY o.id DESC LIMIT 1)) AS at -- it may have waited for the run before it
			FROM runs r WHERE r.id = $1
		)
		UPDATE runs r SET status = 'running', fencing = r.fencing + 1, lease_until = clock_timestamp() + $3 * interval '1 microsecond',
			attempts = r.attempts + 1, started_at = coalesce(r.started_at, now()), not_before = NULL,
			-- A first claim begins the listing.
			listing_began_at = coalesce(r.listing_began_at, now()),
			mode = CASE WHEN r.listing_began_at IS NULL AND n.cursor = '' AND r.purpose = 'sync' THEN 'full' ELSE r.mode END,
			since_cursor = CASE WHEN r.listing_began_at IS NULL AND r.mode = 'incremental' THEN n.cursor ELSE r.since_cursor END
		FROM connections n LEFT JOIN credentials k ON k.tenant_id = n.tenant_id AND k.connection_id = n.id
		WHERE r.id = $1 AND r.delivery = $2 AND n.tenant_id = r.tenant_id AND n.id = r.connection_id AND r.status IN ('queued', 'running', 'waiting')
			AND coalesce(r.lease_until, '-infinity') < clock_timestamp() AND n.state IN ('active', 'needs_attention') AND NOT r.cancel_requested
			AND NOT EXISTS (SELECT FROM runs o WHERE o.connection_id = r.connection_id AND o.id <> r.id AND o.lease_until > clock_timestamp())
		RETURNING r.tenant_id, r.connection_id, r.fencing, r.mode, r.trigger, r.purpose, r.preview,
			coalesce(r.customer_erp_id, '') AS customer_erp_id, r.since_cursor, r.checkpoint, r.pulled, r.attempts, r.began_again,
			coalesce(extract(epoch FROM clock_timestamp() - r.throttled_since) * 1e6, 0)::bigint AS throttled_for,
			coalesce(r.checkpoint_at < now() - interval '24 hours', false) AS old,
			coalesce(r.checkpoint_at < now() - interval '1 hour', false) AS stale,
			r.fencing = 1 AND r.purpose = 'sync' AND NOT r.preview AND 'failed' = (SELECT o.status FROM runs o WHERE o.connection_id = r.connection_id
				AND o.id < r.id AND NOT o.preview AND o.purpose = 'sync' ORDER BY o.id DESC LIMIT 1) AS after_failure,
			n.erp, n.account, n.settings, n.cursor, n.schedule, n.auto_sync, n.state, r.listing_began_at,
			coalesce(k.key_id, '') AS key_id, coalesce(k.box, '') AS box, coalesce(k.version, 0) AS version,
			coalesce(k.given, 0) AS given, k.refused_at IS NOT NULL AS login_refused,
			EXISTS (SELECT FROM erp_pauses p WHERE p.erp = n.erp AND p.ended_at IS NULL) AS erp_paused,
			(extract(epoch FROM clock_timestamp() - (SELECT at FROM ready)) * 1e6)::bigint AS delay,
			(extract(epoch FROM clock_timestamp() - r.started_at) * 1e6)::bigint AS age`, run, delivery, lease.Microseconds())
	if errors.Is(err, sql.ErrNoRows) {
		return nil, ErrNotYours
	}
	if err != nil {
		return nil, err
	}
	// It may have waited for the run's row, and taken the connection for what it was before that.
	var stopped bool
	err = tx.GetContext(ctx, &stopped, `SELECT state NOT IN ('active', 'needs_attention') FROM connections WHERE tenant_id = $1 AND id = $2`,
		r.Tenant, r.Connection)
	if err != nil {
		return nil, err
	}
	if stopped {
		return nil, ErrNotYours
	}
	c := &Claimed{
		Step: Step{Tenant: r.Tenant, Run: run, Connection: r.Connection, Fencing: r.Fencing, Given: r.Given, Lease: lease, progress: &progress{checkpoint: r.Checkpoint, pulled: r.Pulled}},
		ERP:  r.ERP, Account: r.Account, Mode: r.Mode, Trigger: r.Trigger, Purpose: r.Purpose, Preview: r.Preview,
		CustomerID: r.CustomerID, Since: connector.Cursor(r.Since),
		Resume: connector.Cursor(r.Checkpoint), Pulled: r.Pulled, Attempts: r.Attempts, BeganAgain: r.BeganAgain,
		ThrottledFor: time.Duration(r.ThrottledFor) * time.Microsecond, ERPPaused: r.ERPPaused, First: r.Fencing == 1, Delay: time.Duration(r.Delay) * time.Microsecond,
		Age: time.Duration(r.Age) * time.Microsecond,
	}
	if c.Settings, err = readSettings(r.Settings); err != nil {
		return nil, err
	}
	if r.KeyID != "" && !r.LoginRefused {
		c.Login = &credentials.Stored{KeyID: r.KeyID, Box: r.Box, Version: r.Version}
	}
	c.progress.allNew = c.Purpose == Sync && !c.Preview && r.Cursor == "" // no run was ever carried out
	c.seen = seen{schedule: r.Schedule, autoSync: r.AutoSync, state: r.State, began: r.Began}
	switch {
	case r.AfterFailure.Bool:
		return c, takeOver(ctx, tx, c)
	case r.Old:
		return c, listAgain(ctx, tx, c, c.Mode, r.Cursor)
	case r.Stale:
		// Once where only look-ups are left: a run whose every step waits that long would ask the same for ever.
		_, err := tx.ExecContext(ctx, `UPDATE run_pages p SET old = true WHERE tenant_id = $1 AND run_id = $2 AND NOT old
			AND NOT ($3 AND EXISTS (SELECT FROM run_pages o WHERE o.tenant_id = $1 AND o.run_id = $2 AND o.old))`,
			c.Tenant, c.Run, c.Pulled || c.Purpose != Sync)
		return c, err
	}
	return c, nil
}

// takeOver goes on where the run before failed, if that had the same mode and beginning. By the word of its pages alone nobody goes (going).
func takeOver(ctx context.Context, tx *sqlx.Tx, c *Claimed) error {
	var earlier struct {
		ID         int64  `db:"id"`
		Checkpoint string `db:"checkpoint"`
		Pulled     bool   `db:"pulled"`
	}
	err := tx.GetContext(ctx, &earlier, `
		SELECT o.id, o.checkpoint, o.pulled FROM runs o
		WHERE o.tenant_id = $1 AND o.connection_id = $2 AND o.id = (SELECT max(id) FROM runs l WHERE l.connection_id = $2 AND l.id < $3 AND NOT l.preview
				AND l.purpose = 'sync')
			AND o.status = 'failed' AND o.mode = $4 AND o.since_cursor = $5 AND o.pages > 0 AND o.checkpoint <> ''
			AND o.checkpoint_at > now() - interval '24 hours'`, c.Tenant, c.Connection, c.Run, c.Mode, string(c.Since))
	switch {
	case errors.Is(err, sql.ErrNoRows):
		return nil
	case err != nil:
		return err
	}
	c.Resume, c.Pulled = connector.Cursor(earlier.Checkpoint), earlier.Pulled
	c.progress.checkpoint, c.progress.pulled = earlier.Checkpoint, earlier.Pulled
	_, err = tx.ExecContext(ctx, `
		WITH moved AS (UPDATE run_pages SET run_id = $2, old = true WHERE tenant_id = $1 AND run_id = $3), emptied AS (
			UPDATE runs SET pages = 0, checkpoint = '' WHERE tenant_id = $1 AND id = $3
		), met AS ( -- rows without an id are not read again, and count as met
			UPDATE issues SET met_by_run = $2
			WHERE tenant_id = $1 AND connection_id = $4 AND closed_at IS NULL AND record_id = '' AND met_by_run = $3
		)
		UPDATE runs r SET mode = o.mode, since_cursor = o.since_cursor, checkpoint = o.checkpoint, checkpoint_at = o.checkpoint_at,
			listing_began_at = o.listing_began_at, pages = o.pages, pulled = o.pulled, end_cursor = o.end_cursor, end_rights = o.end_rights,
			listed = o.listed
		FROM runs o WHERE r.tenant_id = $1 AND r.id = $2 AND o.tenant_id = $1 AND o.id = $3`, c.Tenant, c.Run, earlier.ID, c.Connection)
	return err
}

// listAgain begins the listing from its start: nothing read so far counts as seen.
func listAgain(ctx context.Context, tx *sqlx.Tx, c *Claimed, mode Mode, cursor string) error {
	c.Mode, c.Since, c.Resume, c.Pulled = mode, "", "", false
	*c.progress = progress{}
	if mode == Incremental {
		c.Since = connector.Cursor(cursor)
	}
	_, err := tx.ExecContext(ctx, `
		WITH gone AS (DELETE FROM run_pages WHERE tenant_id = $1 AND run_id = $2),
			kept AS (DELETE FROM preview_pages WHERE tenant_id = $1 AND run_id = $2)
		UPDATE runs SET mode = $3, since_cursor = $4, checkpoint = '', checkpoint_at = NULL, listing_began_at = now(), pages = 0, pulled = false,
			listed = '{}', created = 0, updated = 0, unchanged = 0, ignored = 0, refused = 0, with_issue = 0
		WHERE tenant_id = $1 AND id = $2`, c.Tenant, c.Run, mode, string(c.Since))
	return err
}

// ListAgain begins the listing anew in full, because its cursor has expired.
func (s *Store) ListAgain(ctx context.Context, c *Claimed) error {
	err := s.in(ctx, asSync, c.Tenant, func(tx *sqlx.Tx) error {
		if err := lockRun(ctx, tx, c.Step); err != nil {
			return err
		}
		if _, err := tx.ExecContext(ctx, `UPDATE runs SET began_again = began_again + 1 WHERE tenant_id = $1 AND id = $2`, c.Tenant, c.Run); err != nil {
			return err
		}
		return listAgain(ctx, tx, c, Full, "")
	})
	if err != nil {
		return fmt.Errorf("begin listing again: %w", err)
	}
	c.BeganAgain++
	return nil
}

// Errors of what would end a run, and may let people go: what somebody wants of it meanwhile is minded to the last.
var (
	ErrCancelled = errors.New("cancelled meanwhile")
	ErrPaused    = errors.New("the connection was paused meanwhile")
)

// goOn is lockRun for what ends a run, by all that the step saved before.
func goOn(ctx context.Context, tx *sqlx.Tx, step Step) error {
	w := pageWriter{tx: tx, step: step}
	if err := w.goOn(ctx); err != nil {
		return err
	}
	var wish Wish
	err := tx.GetContext(ctx, &wish, `
		SELECT r.cancel_requested, n.state IN ('paused', 'removed') AS paused
		FROM runs r JOIN connections n ON n.tenant_id = r.tenant_id AND n.id = r.connection_id WHERE r.tenant_id = $1 AND r.id = $2`, step.Tenant, step.Run)
	switch {
	case err != nil:
		return err
	case wish.Cancel:
		return ErrCancelled
	case wish.Pause:
		return ErrPaused
	}
	return nil
}

func lockRun(ctx context.Context, tx *sqlx.Tx, step Step) error {
	w := pageWriter{tx: tx, step: step}
	return w.lock(ctx)
}

// Wish is what people want of a run that is being worked.
type Wish struct {
	Cancel bool `db:"cancel_requested"`
	Pause  bool `db:"paused"`
}

// Renew prolongs the lease. ErrLeaseLost: another worker may have the run; nothing more can be written.
func (s *Store) Renew(ctx context.Context, step Step, lease time.Duration) (Wish, error) {
	var wish Wish
	err := s.in(ctx, asSync, step.Tenant, func(tx *sqlx.Tx) error {
		return tx.GetContext(ctx, &wish, `
			UPDATE runs r SET lease_until = clock_timestamp() + $4 * interval '1 microsecond' FROM connections n
			WHERE r.tenant_id = $1 AND r.id = $2 AND r.connection_id = $5 AND r.fencing = $3 AND r.status = 'running'
				AND r.lease_until > clock_timestamp() AND n.tenant_id = r.tenant_id AND n.id = r.connection_id
			RETURNING r.cancel_requested, n.state IN ('paused', 'removed') AS paused`,
			step.Tenant, step.Run, step.Fencing, lease.Microseconds(), step.Connection)
	})
	if errors.Is(err, sql.ErrNoRows) {
		err = ErrLeaseLost
	}
	if err != nil {
		return Wish{}, fmt.Errorf("renew lease: %w", err)
	}
	return wish, nil
}

// Yield gives the lease up with work left, and numbers the next delivery, which the caller hands to the queue.
func (s *Store) Yield(ctx context.Context, step Step, calls int) (HandOut, error) {
	var next HandOut
	err := s.in(ctx, asSync, step.Tenant, func(tx *sqlx.Tx) error {
		if err := lockRun(ctx, tx, step); err != nil {
			return err
		}
		return tx.GetContext(ctx, &next, `
			UPDATE runs SET lease_until = NULL, delivery = delivery + 1, handed_out_at = now(), attempts = greatest(attempts - 1, 0), erp_calls = erp_calls + $3
			WHERE tenant_id = $1 AND id = $2 RETURNING id, delivery, trigger`, step.Tenant, step.Run, calls)
	})
	if err != nil {
		return HandOut{}, fmt.Errorf("give up lease: %w", err)
	}
	return next, nil
}

// Wait gives the lease up until a moment from now; the scheduler hands the run out then. cause is shown meanwhile; it is
// nil where nothing failed.
func (s *Store) Wait(ctx context.Context, step Step, d time.Duration, cause error, calls int) error {
	kind, text, hint := describe(cause)
	err := s.in(ctx, asSync, step.Tenant, func(tx *sqlx.Tx) error {
		if err := lockRun(ctx, tx, step); err != nil {
			return err
		}
		_, err := tx.ExecContext(ctx, `
			UPDATE runs SET status = 'waiting', lease_until = NULL, handed_out_at = NULL, not_before = now() + $3 * interval '1 microsecond',
				erp_calls = erp_calls + $4, error_kind = nullif($5, ''), error = nullif($6, ''), hint = nullif($7, ''),
				attempts = greatest(attempts - CASE WHEN $5 IN ('throttled', '') THEN 1 ELSE 0 END, 0),
				throttled_since = CASE WHEN $5 = 'throttled' THEN coalesce(throttled_since, now()) END
			WHERE tenant_id = $1 AND id = $2`, step.Tenant, step.Run, d.Microseconds(), calls, kind, text, hint)
		return err
	})
	if err != nil {
		return fmt.Errorf("wait: %w", err)
	}
	return nil
}

// describe turns an error into what is stored of it.
func describe(err error) (kind connector.ErrorKind, text, hint string) {
	if err == nil {
		return "", "", ""
	}
	if e, ok := errors.AsType[*connector.Error](err); ok {
		hint = e.Hint
	}
	return connector.KindOf(err), err.Error(), hint
}

// Cancelled ends a run that somebody cancelled: what it saved stays, nobody is deactivated.
func (s *Store) Cancelled(ctx context.Context, step Step, calls int) error {
	return s.end(ctx, step, "cancelled", nil, calls)
}

// Fail ends a run. If the ERP denied the connection it needs attention, and is tried once a day, unless the ERP is known to
// refuse this installation, or another login was given since the step began. After a refused login that must not be tried again (NoTrial) it
// is not tried by itself.
func (s *Store) Fail(ctx context.Context, step Step, cause error, calls int) error {
	return s.end(ctx, step, "failed", cause, calls)
}

func (s *Store) end(ctx context.Context, step Step, status string, cause error, calls int) error {
	kind, text, hint := describe(cause)
	err := s.in(ctx, asSync, step.Tenant, func(tx *sqlx.Tx) error {
		if err := lockRun(ctx, tx, step); err != nil {
			return err
		}
		replaced, err := replacedLogin(ctx, tx, step, kind)
		if err != nil {
			return err
		}
		final := noTrial(cause) && !replaced
		_, err = tx.ExecContext(ctx, `
			WITH ended AS (
				UPDATE runs SET status = $3, lease_until = NULL, finished_at = now(), erp_calls = erp_calls + $4,
					error_kind = nullif($5, ''), error = nullif($6, ''), hint = nullif($7, '')
				WHERE tenant_id = $1 AND id = $2 RETURNING tenant_id, connection_id, started_at, purpose = 'customer' OR preview AS aside
			), judged AS (
				SELECT e.*, $5 = 'denied' AND NOT $9 AND ($8 OR NOT EXISTS (SELECT FROM erp_pauses p WHERE p.erp = n.erp AND p.ended_at IS NULL)) AS denied
				FROM ended e JOIN connections n ON n.tenant_id = e.tenant_id AND n.id = e.connection_id
			)
			UPDATE connections n SET last_attempt_at = CASE WHEN e.aside THEN n.last_attempt_at ELSE e.started_at END,
				last_attempt_outcome = CASE WHEN e.aside THEN n.last_attempt_outcome ELSE $3 END,
				state = CASE WHEN e.denied AND n.state = 'active' THEN 'needs_attention' ELSE n.state END,
				state_reason = CASE WHEN e.denied AND n.state IN ('active', 'needs_attention')
					THEN concat_ws('. ', $6, nullif($7, '')) ELSE n.state_reason END,
				next_due_at = CASE WHEN $8 THEN NULL
					WHEN e.denied AND n.next_due_at IS NOT NULL THEN greatest(n.next_due_at, now() + interval '1 day')
					ELSE n.next_due_at END
			FROM judged e WHERE n.tenant_id = e.tenant_id AND n.id = e.connection_id`,
			step.Tenant, step.Run, status, calls, kind, text, hint, final, replaced)
		if err != nil || !final {
			return err
		}
		return rememberRefusal(ctx, tx, step.Tenant, step.Connection, cause)
	})
	if err != nil {
		return fmt.Errorf("end run: %w", err)
	}
	return nil
}

// replacedLogin says whether a person gave another login since the step began: which of the two the ERP denied is not known, and the next
// run learns it. It locks the connection, as whoever stores a login does.
func replacedLogin(ctx context.Context, tx *sqlx.Tx, step Step, kind connector.ErrorKind) (replaced bool, err error) {
	if kind != connector.Denied || step.Given == 0 {
		return false, nil
	}
	if _, err := tx.ExecContext(ctx, `SELECT FROM connections WHERE tenant_id = $1 AND id = $2 FOR NO KEY UPDATE`, step.Tenant, step.Connection); err != nil {
		return false, err
	}
	err = tx.GetContext(ctx, &replaced, `SELECT EXISTS (SELECT FROM credentials WHERE tenant_id = $1 AND connection_id = $2 AND given <> $3)`,
		step.Tenant, step.Connection, step.Given)
	return replaced, err
}

// CancelledBy is who asked for a run to stop, and why; empty if nobody did.
func (s *Store) CancelledBy(ctx context.Context, run RunState) (by By, err error) {
	err = s.still(ctx, asOps, run.Tenant, func(tx *sqlx.Tx) error {
		err := tx.QueryRowxContext(ctx, `SELECT by_user, reason FROM history WHERE tenant_id = $1 AND entity = 'connection' AND entity_id = $2
			AND field = 'cancelled_run' AND became = $3::text ORDER BY id LIMIT 1`, run.Tenant, run.Connection, fmt.Sprint(run.ID)).Scan(&by.User, &by.Reason)
		if errors.Is(err, sql.ErrNoRows) {
			return nil
		}
		return err
	})
	if err != nil {
		return By{}, fmt.Errorf("who cancelled run %d: %w", run.ID, err)
	}
	return by, nil
}

// CancelRun asks for a run to stop. One that nobody works ends at once, else it ends at its next page. Who asked, and why, is in the history of
// its connection.
func (s *Store) CancelRun(ctx context.Context, run int64, by By) (status string, err error) {
	err = s.in(ctx, asOps, anyTenant, func(tx *sqlx.Tx) error {
		var of struct {
			Tenant     int64  `db:"tenant_id"`
			Connection int64  `db:"connection_id"`
			Status     string `db:"status"`
			Again      bool   `db:"again"`
		}
		err := tx.GetContext(ctx, &of, `
			UPDATE runs r SET cancel_requested = true,
				status = CASE WHEN coalesce(lease_until, '-infinity') < now() THEN 'cancelled' ELSE status END,
				finished_at = CASE WHEN coalesce(lease_until, '-infinity') < now() THEN now() END,
				lease_until = CASE WHEN lease_until >= now() THEN lease_until END
			FROM (SELECT id, cancel_requested FROM runs WHERE id = $1 FOR UPDATE) was
			WHERE r.id = was.id AND status IN ('queued', 'running', 'waiting')
			RETURNING tenant_id, connection_id, status, was.cancel_requested AS again`, run)
		if err != nil {
			return notFound(err, "unfinished run")
		}
		if status = of.Status; of.Again {
			return nil
		}
		asked := change{field: "cancelled_run", became: fmt.Sprint(run)}
		return tell(ctx, tx, of.Tenant, &of.Connection, "connection", of.Connection, []change{asked}, by)
	})
	if err != nil {
		return "", fmt.Errorf("cancel run %d: %w", run, err)
	}
	return status, nil
}

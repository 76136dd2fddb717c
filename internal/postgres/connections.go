package postgres

import (
	"cmp"
	"context"
	"database/sql"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"time"

	"github.com/jmoiron/sqlx"

	"github.com/centime/contactsync/internal/contact"
	"github.com/centime/contactsync/internal/credentials"
	"github.com/centime/contactsync/internal/schedule"
	"github.com/centime/contactsync/internal/settings"
)

// By says who changes something, and why.
type By struct{ User, Reason string }

// AddTenant makes a tenant. The time zone is an IANA name, and one that Postgres knows too: the views would fail by another, for every tenant
// that is read with this one.
func (s *Store) AddTenant(ctx context.Context, name, timeZone string, by By) (int64, error) {
	unknown := fmt.Errorf("time zone %q is not known: use a name such as America/New_York", timeZone)
	if _, err := time.LoadLocation(timeZone); err != nil {
		return 0, unknown
	}
	var id int64
	err := s.in(ctx, asOps, anyTenant, func(tx *sqlx.Tx) error {
		var known bool
		if err := tx.GetContext(ctx, &known, `SELECT EXISTS (SELECT FROM pg_timezone_names WHERE name = $1)`, timeZone); err != nil || !known {
			return cmp.Or(err, unknown)
		}
		if err := tx.GetContext(ctx, &id, `INSERT INTO tenants (name, time_zone) VALUES ($1, $2) RETURNING tenant_id`, name, timeZone); err != nil {
			return err
		}
		return tell(ctx, tx, id, nil, "tenant", id, []change{{fieldCreated, "", name}}, by)
	})
	if errors.Is(err, unknown) {
		return 0, unknown
	}
	if isUniqueViolation(err, "tenants_name_key") {
		return 0, fmt.Errorf("there is a tenant %q already", name)
	}
	if err != nil {
		return 0, fmt.Errorf("add tenant: %w", err)
	}
	return id, nil
}

// ErrAmbiguous says that a name fits more than one row: the id is needed.
var ErrAmbiguous = errors.New("more than one has this name: use the id")

// FindTenant takes an id or a name.
func (s *Store) FindTenant(ctx context.Context, idOrName string) (int64, error) {
	id, _ := strconv.ParseInt(idOrName, 10, 64)
	return s.findOne(ctx, fmt.Sprintf("tenant %q", idOrName), `SELECT tenant_id FROM tenants WHERE tenant_id = $1 OR name = $2
		ORDER BY tenant_id = $1 DESC LIMIT 2`, id, idOrName)
}

// findOne runs a query for at most two ids, the one that was named by its id first.
func (s *Store) findOne(ctx context.Context, what, query string, id int64, name string) (int64, error) {
	var found []int64
	err := s.in(ctx, asOps, anyTenant, func(tx *sqlx.Tx) error {
		found = nil
		return tx.SelectContext(ctx, &found, query, id, name)
	})
	switch {
	case err != nil:
		return 0, fmt.Errorf("find %s: %w", what, err)
	case len(found) == 0:
		return 0, fmt.Errorf("%s: %w", what, ErrNotFound)
	case len(found) > 1 && found[0] != id:
		return 0, fmt.Errorf("%s: %w", what, ErrAmbiguous)
	}
	return found[0], nil
}

// Connection is what a command needs to know of one.
type Connection struct {
	Tenant   int64        `db:"tenant_id"`
	ID       int64        `db:"id"`
	ERP      string       `db:"erp"`
	Account  string       `db:"account"`
	Name     string       `db:"name"`
	State    string       `db:"state"`
	Reason   string       `db:"state_reason"`
	Rights   string       `db:"rights"` // what the login could read when everything was last listed, as the connector put it
	AutoSync bool         `db:"auto_sync"`
	Schedule string       `db:"schedule"`
	Stored   settings.Map `db:"-"`
}

// Settings are the connection's, defaults filled in.
func (c Connection) Settings() (settings.Settings, error) { return settings.Read(c.Stored) }

// FindConnection takes an id or a name.
func (s *Store) FindConnection(ctx context.Context, idOrName string) (Connection, error) {
	id, _ := strconv.ParseInt(idOrName, 10, 64)
	found, err := s.findOne(ctx, fmt.Sprintf("connection %q", idOrName), `SELECT id FROM connections WHERE id = $1 OR name = $2
		ORDER BY id = $1 DESC LIMIT 2`, id, idOrName)
	if err != nil {
		return Connection{}, err
	}
	return s.connection(ctx, found)
}

func (s *Store) connection(ctx context.Context, id int64) (Connection, error) {
	var c struct {
		Connection
		Settings []byte `db:"settings"`
	}
	err := s.in(ctx, asOps, anyTenant, func(tx *sqlx.Tx) error {
		return tx.GetContext(ctx, &c, `SELECT tenant_id, id, erp, account, name, state, state_reason, coalesce(rights, '') AS rights, auto_sync, schedule, settings
			FROM connections WHERE id = $1`, id)
	})
	if err != nil {
		return Connection{}, fmt.Errorf("read connection %d: %w", id, notFound(err, "connection"))
	}
	if err := json.Unmarshal(c.Settings, &c.Stored); err != nil {
		return Connection{}, fmt.Errorf("read connection %d: settings: %w", id, err)
	}
	return c.Connection, nil
}

// ConnectionOf finds the connection of an ERP's account; 0 if it was never connected.
func (s *Store) ConnectionOf(ctx context.Context, tenant int64, erp, account string) (id int64, err error) {
	err = s.in(ctx, asOps, tenant, func(tx *sqlx.Tx) error {
		return tx.GetContext(ctx, &id, `SELECT id FROM connections WHERE tenant_id = $1 AND erp = $2 AND account = $3`, tenant, erp, account)
	})
	if err != nil && !errors.Is(err, sql.ErrNoRows) {
		return 0, fmt.Errorf("find connection: %w", err)
	}
	return id, nil
}

// NewConnection is what `syncctl connection add` stores.
type NewConnection struct {
	Tenant             int64
	ERP, Account, Name string
	Schedule           string
	Settings           settings.Map
	Paused             bool
	Unproven           bool // the ERP did not take the login
	// Seal gives the credentials for the connection's id, which they are bound to; nil: the account is connected, and its login stays.
	Seal func(connection int64) (credentials.Stored, error)
}

// Added says what became of a new connection.
type Added struct {
	Connection int64
	Known      bool  // the account was connected before: its contacts and choices are kept
	Run        int64 // the first full run; 0 if paused
	Joined     bool
}

// ErrLoginKept says that a login which the ERP did not take was not stored, since it would have taken the place of one that works.
var ErrLoginKept = errors.New("it keeps the login it has")

// loginWorks: as far as anybody knows. A connection that was added with one that was not taken is paused, and has never worked.
const loginWorks = `((n.state = 'active' OR n.state = 'paused' AND n.last_success_at IS NOT NULL) AND EXISTS (SELECT FROM credentials c
	WHERE c.tenant_id = n.tenant_id AND c.connection_id = n.id AND c.refused_at IS NULL))`

// AddConnection connects an account: roles for the default ERP roles, sealed credentials and the first full run with it.
// Connecting an account again finds its old connection.
func (s *Store) AddConnection(ctx context.Context, n NewConnection, by By) (Added, error) {
	parsed, err := schedule.Parse(n.Schedule)
	if err != nil {
		return Added{}, err
	}
	if _, err := settings.Read(n.Settings); err != nil {
		return Added{}, err
	}
	if n.Settings == nil {
		n.Settings = settings.Map{}
	}
	stored, err := json.Marshal(n.Settings)
	if err != nil {
		return Added{}, fmt.Errorf("settings: %w", err)
	}
	state := "active"
	if n.Paused {
		state = "paused"
	}
	var added Added
	err = s.in(ctx, asOps, n.Tenant, func(tx *sqlx.Tx) error {
		added = Added{}
		var was struct {
			ID       int64  `db:"id"`
			Name     string `db:"name"`
			Schedule string `db:"schedule"`
			Settings []byte `db:"settings"`
			AutoSync bool   `db:"auto_sync"`
			State    string `db:"state"`
			Works    bool   `db:"works"`
		}
		err := tx.GetContext(ctx, &was, `SELECT id, name, schedule, settings, auto_sync, state, `+loginWorks+` AS works
			FROM connections n WHERE tenant_id = $1 AND erp = $2 AND account = $3 FOR UPDATE`, n.Tenant, n.ERP, n.Account)
		added.Connection = was.ID
		switch {
		case err == nil && n.Unproven && was.Works:
			return fmt.Errorf("connection %d: %w", was.ID, ErrLoginKept)
		case n.Seal == nil && (errors.Is(err, sql.ErrNoRows) || err == nil && was.State == "removed"):
			return errRemoved
		case err == nil:
			added.Known = true
			var stated settings.Map
			if err := json.Unmarshal(was.Settings, &stated); err != nil {
				return fmt.Errorf("settings: %w", err)
			}
			changes := changed(change{"state", was.State, state}, change{"name", was.Name, n.Name}, change{"schedule", was.Schedule, parsed.String()},
				change{"auto_sync", strconv.FormatBool(was.AutoSync), strconv.FormatBool(was.AutoSync || was.State == "removed")})
			for _, name := range settings.Names() {
				changes = append(changes, changed(change{name, stated[name], n.Settings[name]})...)
			}
			if err := tell(ctx, tx, n.Tenant, &was.ID, "connection", was.ID, changes, by); err != nil {
				return err
			}
			_, err = tx.ExecContext(ctx, `UPDATE connections SET name = $3, schedule = $4, settings = $5, state = $6, state_reason = '', auto_sync = auto_sync OR state = 'removed'
				WHERE tenant_id = $1 AND id = $2`, n.Tenant, was.ID, n.Name, parsed.String(), string(stored), state)
		case errors.Is(err, sql.ErrNoRows):
			err = tx.GetContext(ctx, &added.Connection, `
				INSERT INTO connections (tenant_id, erp, account, name, schedule, settings, state, stale_at)
				VALUES ($1, $2, $3, $4, $5, $6, $7, now()) RETURNING id`,
				n.Tenant, n.ERP, n.Account, n.Name, parsed.String(), string(stored), state)
			if err == nil {
				err = tell(ctx, tx, n.Tenant, &added.Connection, "connection", added.Connection, []change{{fieldCreated, "", n.Name}}, by)
			}
		}
		if err != nil {
			return err
		}
		for _, key := range contact.DefaultRoleKeys(n.ERP) {
			if err := addDefaultRole(ctx, tx, n.Tenant, added.Connection, key, by); err != nil {
				return fmt.Errorf("default role: %w", err)
			}
		}
		if n.Seal != nil {
			sealed, err := n.Seal(added.Connection)
			if err != nil {
				return err
			}
			if err := putCredentials(ctx, tx, n.Tenant, added.Connection, sealed); err != nil {
				return fmt.Errorf("store credentials: %w", err)
			}
		}
		if err := setDue(ctx, tx, n.Tenant, added.Connection); err != nil { // after the credentials: a refused login is never due
			return err
		}
		if n.Paused {
			return nil
		}
		added.Run, added.Joined, err = queueRun(ctx, tx, Request{Tenant: n.Tenant, Connection: added.Connection, Mode: Full, Trigger: FirstLoad,
			By: by.User, Reason: by.Reason})
		return err
	})
	if err != nil {
		return Added{}, fmt.Errorf("add connection: %w", err)
	}
	return added, nil
}

// setDue works out the next due time and when the data is stale from the schedule as it is now.
func setDue(ctx context.Context, tx *sqlx.Tx, tenant, connection int64) error {
	var n struct {
		Schedule    string       `db:"schedule"`
		AutoSync    bool         `db:"auto_sync"`
		State       string       `db:"state"`
		LastSuccess sql.NullTime `db:"last_success_at"`
		Created     time.Time    `db:"created_at"`
		Now         time.Time    `db:"now"`
		Refused     bool         `db:"refused"`
	}
	err := tx.GetContext(ctx, &n, `SELECT schedule, auto_sync, state, last_success_at, created_at, now() AS now,
			`+loginRefused+` AS refused
		FROM connections n WHERE tenant_id = $1 AND id = $2`, tenant, connection)
	if err != nil {
		return err
	}
	read := n.Created
	if n.LastSuccess.Valid {
		read = n.LastSuccess.Time
	}
	var due *time.Time
	if n.AutoSync && n.State != "removed" && !n.Refused {
		due = nextDue(n.Schedule, n.Now, connection, n.State)
	}
	_, err = tx.ExecContext(ctx, `UPDATE connections SET next_due_at = $3, stale_at = $4 WHERE tenant_id = $1 AND id = $2`,
		tenant, connection, due, staleAt(n.Schedule, n.AutoSync, read, connection))
	return err
}

// addDefaultRole gives an ERP role key the role it stands for from the first day, unless it has a mapping. Where the tenant has no room for
// that role the key is left to the first run that meets it, which says so in an issue.
func addDefaultRole(ctx context.Context, tx *sqlx.Tx, tenant, connection int64, key string, by By) error {
	role, ok := contact.DefaultRole(key)
	if !ok {
		return nil
	}
	var known bool
	err := tx.GetContext(ctx, &known, `SELECT EXISTS (SELECT FROM role_mappings WHERE tenant_id = $1 AND connection_id = $2 AND erp_role_key = $3)`,
		tenant, connection, key)
	if known || err != nil {
		return err
	}
	if _, err := tx.ExecContext(ctx, `SELECT FROM tenants WHERE tenant_id = $1 FOR NO KEY UPDATE`, tenant); err != nil {
		return err
	}
	var id int64
	err = tx.GetContext(ctx, &id, `SELECT id FROM roles WHERE tenant_id = $1 AND lower(name) = lower($2)`, tenant, role.Name)
	if errors.Is(err, sql.ErrNoRows) {
		var full bool
		if err = tx.GetContext(ctx, &full, `SELECT role_count >= $2 FROM tenants WHERE tenant_id = $1`, tenant, contact.RoleMax); full || err != nil {
			return err
		}
		err = tx.GetContext(ctx, &id, `INSERT INTO roles (tenant_id, name, invoice_presentment, communication_contact) VALUES ($1, $2, $3, $4)
			RETURNING id`, tenant, role.Name, role.InvoicePresentment, role.CommunicationContact)
		if err == nil {
			err = tell(ctx, tx, tenant, nil, "role", id, []change{{fieldCreated, "", role.Name}}, by)
		}
	}
	if err != nil {
		return err
	}
	_, err = tx.ExecContext(ctx, `INSERT INTO role_mappings (tenant_id, connection_id, erp_role_key, erp_role_name, role_id)
		VALUES ($1, $2, $3, $4, $5)`, tenant, connection, key, role.Name, id)
	return err
}

// SetState pauses, resumes or removes a connection. Resuming one that needs attention tries it at once: its first run is
// queued by the caller. Removing ends access and mail and destroys the credentials; rows stay.
func (s *Store) SetState(ctx context.Context, c Connection, state string, by By) error {
	err := s.in(ctx, asOps, c.Tenant, func(tx *sqlx.Tx) error { return setState(ctx, tx, c, state, by) })
	if err != nil {
		return fmt.Errorf("connection %d: set state %s: %w", c.ID, state, err)
	}
	return nil
}

var errRemoved = errors.New("it was removed meanwhile, and nothing was changed: add it again with `syncctl connection add`")

func setState(ctx context.Context, tx *sqlx.Tx, c Connection, state string, by By) error {
	var was string
	err := tx.GetContext(ctx, &was, `SELECT state FROM connections WHERE tenant_id = $1 AND id = $2 FOR UPDATE`, c.Tenant, c.ID)
	if err != nil {
		return err
	}
	if was == "removed" && state != was {
		return errRemoved
	}
	if err := tell(ctx, tx, c.Tenant, &c.ID, "connection", c.ID, changed(change{"state", was, state}), by); err != nil {
		return err
	}
	_, err = tx.ExecContext(ctx, `
		UPDATE connections SET state = $3, state_reason = CASE WHEN $3 IN ('paused', 'removed') THEN $4 ELSE '' END WHERE tenant_id = $1 AND id = $2`,
		c.Tenant, c.ID, state, by.Reason)
	if err != nil {
		return err
	}
	switch state {
	case "active": // a refused login may be tried once more
		_, err = tx.ExecContext(ctx, `UPDATE credentials SET refused_at = NULL, refused = NULL, refused_hint = NULL
			WHERE tenant_id = $1 AND connection_id = $2 AND refused_at IS NOT NULL`, c.Tenant, c.ID)
	case "removed":
		_, err = tx.ExecContext(ctx, `
			WITH sealed AS (DELETE FROM credentials WHERE tenant_id = $1 AND connection_id = $2)
			UPDATE runs SET cancel_requested = true,
				status = CASE WHEN coalesce(lease_until, '-infinity') < now() THEN 'cancelled' ELSE status END,
				finished_at = CASE WHEN coalesce(lease_until, '-infinity') < now() THEN now() END,
				lease_until = CASE WHEN lease_until >= now() THEN lease_until END
			WHERE tenant_id = $1 AND connection_id = $2 AND status IN ('queued', 'running', 'waiting')`, c.Tenant, c.ID)
	}
	if err != nil {
		return err
	}
	return setDue(ctx, tx, c.Tenant, c.ID)
}

// Settable is what `syncctl connection set` changes.
type Settable struct {
	Name, Schedule *string
	AutoSync       *bool
	Settings       []string // words as settings.Map.Change takes them
}

// lockSettable reads what may be set as it is now, and keeps others from changing it.
func lockSettable(ctx context.Context, tx *sqlx.Tx, c Connection) (now struct {
	Name     string `db:"name"`
	Schedule string `db:"schedule"`
	AutoSync bool   `db:"auto_sync"`
	Stored   []byte `db:"settings"`
	stated   settings.Map
}, err error,
) {
	err = tx.GetContext(ctx, &now, `SELECT name, schedule, auto_sync, settings FROM connections WHERE tenant_id = $1 AND id = $2 FOR NO KEY UPDATE`, c.Tenant, c.ID)
	if err != nil {
		return now, err
	}
	if err := json.Unmarshal(now.Stored, &now.stated); err != nil {
		return now, fmt.Errorf("settings: %w", err)
	}
	return now, nil
}

// Set changes a connection; the schedule holds at once.
func (s *Store) Set(ctx context.Context, c Connection, to Settable, by By) error {
	var plan string
	if to.Schedule != nil {
		parsed, err := schedule.Parse(*to.Schedule)
		if err != nil {
			return err
		}
		plan = parsed.String()
	}
	err := s.in(ctx, asOps, c.Tenant, func(tx *sqlx.Tx) error {
		// As it is now: somebody else may have changed what this leaves alone.
		was, err := lockSettable(ctx, tx, c)
		if err != nil {
			return err
		}
		now := was
		if to.Name != nil {
			now.Name = *to.Name
		}
		if to.Schedule != nil {
			now.Schedule = plan
		}
		if to.AutoSync != nil {
			now.AutoSync = *to.AutoSync
		}
		if len(to.Settings) > 0 {
			if now.stated, err = was.stated.Change(to.Settings); err != nil {
				return err
			}
		}
		changes := changed(change{"name", was.Name, now.Name}, change{"schedule", was.Schedule, now.Schedule},
			change{"auto_sync", strconv.FormatBool(was.AutoSync), strconv.FormatBool(now.AutoSync)})
		for _, name := range settings.Names() {
			changes = append(changes, changed(change{name, was.stated[name], now.stated[name]})...)
		}
		if len(changes) == 0 {
			return nil
		}
		stored, err := json.Marshal(now.stated)
		if err != nil {
			return fmt.Errorf("settings: %w", err)
		}
		_, err = tx.ExecContext(ctx, `UPDATE connections SET name = $3, schedule = $4, auto_sync = $5, settings = $6 WHERE tenant_id = $1 AND id = $2`,
			c.Tenant, c.ID, now.Name, now.Schedule, now.AutoSync, string(stored))
		if err != nil {
			return err
		}
		if err := tell(ctx, tx, c.Tenant, &c.ID, "connection", c.ID, changes, by); err != nil {
			return err
		}
		return setDue(ctx, tx, c.Tenant, c.ID)
	})
	if err != nil {
		return fmt.Errorf("set connection %d: %w", c.ID, err)
	}
	return nil
}

// change is one fact a person changed.
type change struct{ field, was, became string }

// changed are those that are changes.
func changed(all ...change) []change {
	return slices.DeleteFunc(all, func(c change) bool { return c.was == c.became })
}

// tell writes what a person changed to the history.
func tell(ctx context.Context, tx *sqlx.Tx, tenant int64, connection *int64, entity string, id int64, changes []change, by By) error {
	for _, c := range changes {
		_, err := tx.ExecContext(ctx, `
			INSERT INTO history (tenant_id, connection_id, entity, entity_id, field, was, became, by_user, reason)
			VALUES ($1, $2, $3, $4, $5, nullif($6, ''), nullif($7, ''), $8, $9)`,
			tenant, connection, entity, id, c.field, c.was, c.became, by.User, by.Reason)
		if err != nil {
			return err
		}
	}
	return nil
}

// SetCredentials replaces what a connection logs in with, and says in which state it is then: one that needed attention is active again by a
// login that the ERP took, if it was proven.
func (s *Store) SetCredentials(ctx context.Context, c Connection, sealed credentials.Stored, proven bool, by By) (state string, err error) {
	err = s.in(ctx, asOps, c.Tenant, func(tx *sqlx.Tx) error {
		var now struct {
			State string `db:"state"`
			Works bool   `db:"works"`
		}
		err := tx.GetContext(ctx, &now, `SELECT state, `+loginWorks+` AS works FROM connections n WHERE tenant_id = $1 AND id = $2 FOR UPDATE`, c.Tenant, c.ID)
		switch {
		case err != nil:
			return err
		case now.State == "removed":
			return errRemoved
		case !proven && now.Works:
			return ErrLoginKept
		}
		if err := putCredentials(ctx, tx, c.Tenant, c.ID, sealed); err != nil {
			return err
		}
		if err := tell(ctx, tx, c.Tenant, &c.ID, "connection", c.ID, []change{{"credentials", "", "replaced"}}, by); err != nil {
			return err
		}
		if state = now.State; proven && state == "needs_attention" {
			state = "active"
			return setState(ctx, tx, c, state, by)
		}
		return setDue(ctx, tx, c.Tenant, c.ID) // a refused login was never due
	})
	if err != nil {
		return "", fmt.Errorf("connection %d: store credentials: %w", c.ID, err)
	}
	return state, nil
}

func putCredentials(ctx context.Context, tx *sqlx.Tx, tenant, connection int64, sealed credentials.Stored) error {
	_, err := tx.ExecContext(ctx, `
		INSERT INTO credentials (tenant_id, connection_id, key_id, box, ends_at, notice_days) VALUES ($1, $2, $3, $4, $5, $6)
		ON CONFLICT (tenant_id, connection_id) DO UPDATE SET key_id = excluded.key_id, box = excluded.box, ends_at = excluded.ends_at,
			notice_days = excluded.notice_days, version = credentials.version + 1, given = credentials.given + 1,
			renewing_since = NULL, unanswered_since = NULL, refused_at = NULL, refused = NULL, refused_hint = NULL, updated_at = now()`,
		tenant, connection, sealed.KeyID, sealed.Box, sealed.EndsAt, sealed.NoticeDays)
	return err
}

// SealedCredentials names credentials of a connection.
type SealedCredentials struct {
	Tenant     int64 `db:"tenant_id"`
	Connection int64 `db:"connection_id"`
}

// Sealed lists the credentials that another key than this one has sealed.
func (s *Store) Sealed(ctx context.Context, unlessKey string) ([]SealedCredentials, error) {
	var out []SealedCredentials
	err := s.in(ctx, asOps, anyTenant, func(tx *sqlx.Tx) error {
		return tx.SelectContext(ctx, &out, `SELECT tenant_id, connection_id FROM credentials WHERE key_id <> $1 ORDER BY connection_id`, unlessKey)
	})
	if err != nil {
		return nil, fmt.Errorf("list credentials: %w", err)
	}
	return out, nil
}

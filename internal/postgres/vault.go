package postgres

import (
	"bytes"
	"context"
	"database/sql"
	"errors"
	"fmt"
	"time"

	"github.com/jmoiron/sqlx"

	"github.com/centime/contactsync/internal/connector"
	"github.com/centime/contactsync/internal/credentials"
)

// Vault keeps the credentials of one connection; it is a credentials.Vault.
type Vault struct {
	store              *Store
	tenant, connection int64
}

var _ credentials.Vault = (*Vault)(nil)

// Vault of a connection.
func (s *Store) Vault(tenant, connection int64) *Vault {
	return &Vault{store: s, tenant: tenant, connection: connection}
}

// noteWithin bounds what is noted after a renewal that failed.
const noteWithin = 5 * time.Second

type sealedRow struct {
	KeyID     string       `db:"key_id"`
	Box       []byte       `db:"box"`
	Version   int64        `db:"version"`
	Since     sql.NullTime `db:"renewing_since"`
	For       int64        `db:"renewing_for"` // µs
	Open      sql.NullTime `db:"unanswered_since"`
	RefusedAt sql.NullTime `db:"refused_at"`
	Refused   string       `db:"refused"`
	Hint      string       `db:"refused_hint"`
}

func (r sealedRow) stored() credentials.Stored {
	s := credentials.Stored{KeyID: r.KeyID, Box: r.Box, Version: r.Version}
	if r.Since.Valid {
		s.RenewingSince, s.RenewingFor = &r.Since.Time, time.Duration(r.For)*time.Microsecond
	}
	if r.Open.Valid {
		s.UnansweredSince = &r.Open.Time
	}
	if r.RefusedAt.Valid {
		s.Refused = &credentials.Refusal{At: r.RefusedAt.Time, Text: r.Refused, Hint: r.Hint}
	}
	return s
}

// Read returns what is stored.
func (v *Vault) Read(ctx context.Context) (credentials.Stored, error) {
	var row sealedRow
	err := v.in(ctx, func(tx *sqlx.Tx) error { return v.get(ctx, tx, &row, "") })
	return row.stored(), err
}

func (v *Vault) in(ctx context.Context, f func(tx *sqlx.Tx) error) error {
	return v.store.in(ctx, asSync, v.tenant, f)
}

func (v *Vault) get(ctx context.Context, tx *sqlx.Tx, row *sealedRow, lock string) error {
	err := tx.GetContext(ctx, row, `SELECT key_id, box, version, renewing_since, unanswered_since, refused_at,
			coalesce(extract(epoch FROM clock_timestamp() - renewing_since) * 1e6, 0)::bigint AS renewing_for,
			coalesce(refused, '') AS refused, coalesce(refused_hint, '') AS refused_hint
		FROM credentials WHERE tenant_id = $1 AND connection_id = $2`+lock, v.tenant, v.connection)
	if errors.Is(err, sql.ErrNoRows) {
		return credentials.ErrNone
	}
	return err
}

// Renew notes that a renewal begins, in a transaction of its own, so that a crash in the middle is seen; then it renews
// under the row's lock, the one HTTP call within a transaction.
func (v *Vault) Renew(ctx context.Context, renew func(context.Context, credentials.Stored) (credentials.Stored, error)) (credentials.Stored, error) {
	for {
		noted, earlier, err := v.note(ctx)
		if err != nil {
			return credentials.Stored{}, fmt.Errorf("note renewal: %w", err)
		}
		renewed, again, err := v.renew(ctx, noted, earlier, renew)
		if !again {
			return renewed, err
		}
	}
}

// Reseal puts the same credentials into another box, under the row's lock. What is noted of renewals stays, since this is none, and so does the
// version: a refusal that was asked for meanwhile is of this login.
func (v *Vault) Reseal(ctx context.Context, reseal func(credentials.Stored) (credentials.Stored, error)) error {
	err := v.in(ctx, func(tx *sqlx.Tx) error {
		var row sealedRow
		if err := v.get(ctx, tx, &row, " FOR UPDATE"); err != nil {
			return err
		}
		sealed, err := reseal(row.stored())
		if err != nil {
			return err
		}
		_, err = tx.ExecContext(ctx, `UPDATE credentials SET key_id = $3, box = $4, updated_at = now()
			WHERE tenant_id = $1 AND connection_id = $2`, v.tenant, v.connection, sealed.KeyID, sealed.Box)
		return err
	})
	if err != nil {
		return fmt.Errorf("seal again: %w", err)
	}
	return nil
}

// note leaves the earliest note that stands, and says whether it is an earlier one.
func (v *Vault) note(ctx context.Context) (noted time.Time, earlier bool, err error) {
	var row struct {
		Since time.Time `db:"renewing_since"`
		Mine  bool      `db:"mine"`
	}
	err = v.in(ctx, func(tx *sqlx.Tx) error {
		err := tx.GetContext(ctx, &row, `
			WITH old AS (SELECT renewing_since FROM credentials WHERE tenant_id = $1 AND connection_id = $2 FOR UPDATE)
			UPDATE credentials c SET renewing_since = coalesce(old.renewing_since, clock_timestamp()) FROM old
			WHERE c.tenant_id = $1 AND c.connection_id = $2
			RETURNING c.renewing_since, old.renewing_since IS NULL AS mine`, v.tenant, v.connection)
		if errors.Is(err, sql.ErrNoRows) {
			return credentials.ErrNone
		}
		return err
	})
	return row.Since, !row.Mine, err
}

func (v *Vault) renew(ctx context.Context, noted time.Time, earlier bool,
	renew func(context.Context, credentials.Stored) (credentials.Stored, error),
) (renewed credentials.Stored, again bool, err error) {
	answered := false // the function ended, and nothing new is to be saved
	var refusal error // one that must be remembered before anybody else can try
	err = v.store.once(ctx, asSync, v.tenant, func(tx *sqlx.Tx) error {
		var row sealedRow
		if err := v.get(ctx, tx, &row, " FOR UPDATE"); err != nil {
			return err
		}
		// The ERP's answer is waited for with the row locked.
		if _, err := tx.ExecContext(ctx, fmt.Sprintf(`SET LOCAL idle_in_transaction_session_timeout = %d`, networkPatience.Milliseconds())); err != nil {
			return err
		}
		if !row.Since.Valid || !row.Since.Time.Equal(noted) {
			again = true // somebody else finished a renewal meanwhile, and took the note away
			return nil
		}
		before := row.stored()
		if !earlier {
			before.RenewingSince = nil
		}
		var err error
		if renewed, err = renew(ctx, before); err != nil {
			answered = true
			if !noTrial(err) {
				return err
			}
			refusal = err
			return rememberRefusal(ctx, tx, v.tenant, v.connection, err)
		}
		if bytes.Equal(renewed.Box, row.Box) {
			renewed = before
			_, err = tx.ExecContext(ctx, `UPDATE credentials SET renewing_since = NULL WHERE tenant_id = $1 AND connection_id = $2`, v.tenant, v.connection)
			return err
		}
		renewed.RenewingSince, renewed.UnansweredSince = nil, nil
		return tx.GetContext(ctx, &renewed.Version, `
			UPDATE credentials SET key_id = $3, box = $4, ends_at = $5, notice_days = $6, version = version + 1, renewing_since = NULL,
				unanswered_since = NULL, updated_at = now()
			WHERE tenant_id = $1 AND connection_id = $2 RETURNING version`,
			v.tenant, v.connection, renewed.KeyID, renewed.Box, renewed.EndsAt, renewed.NoticeDays)
	})
	if refusal != nil {
		err = errors.Join(refusal, err)
	}
	open := errors.Is(err, credentials.ErrUnanswered)
	if answered && (open || !earlier) {
		// The renewal was seen to end, if only without an answer. After a failed commit the note stays: a new token may be lost.
		last, cancel := context.WithTimeout(context.WithoutCancel(ctx), noteWithin)
		defer cancel()
		_ = v.in(last, func(tx *sqlx.Tx) error {
			_, err := tx.ExecContext(last, `
				UPDATE credentials SET renewing_since = CASE WHEN $4 THEN renewing_since END,
					unanswered_since = CASE WHEN $5 THEN coalesce(unanswered_since, $3) ELSE unanswered_since END
				WHERE tenant_id = $1 AND connection_id = $2 AND renewing_since = $3`, v.tenant, v.connection, noted, earlier, open)
			return err
		})
	}
	return renewed, again, err
}

// Refused notes a login that the ERP refused though it had given it a token, so that nobody logs in with it again. One that is of another version
// by now was replaced, or renewed by a run that learns it by itself. Another error is none of its business.
func (v *Vault) Refused(ctx context.Context, version int64, refusal error) error {
	if !noTrial(refusal) {
		return nil
	}
	return v.in(ctx, func(tx *sqlx.Tx) error {
		var now int64
		err := tx.GetContext(ctx, &now, `SELECT version FROM credentials WHERE tenant_id = $1 AND connection_id = $2 FOR UPDATE`, v.tenant, v.connection)
		if errors.Is(err, sql.ErrNoRows) || err == nil && now != version {
			return nil
		}
		if err != nil {
			return err
		}
		return rememberRefusal(ctx, tx, v.tenant, v.connection, refusal)
	})
}

// noTrial says whether an error keeps everybody from logging in again.
func noTrial(err error) bool {
	e, ok := errors.AsType[*connector.Error](err)
	return ok && e.NoTrial
}

// rememberRefusal keeps the first refusal of a login until there is another login or a person asks to try this one.
func rememberRefusal(ctx context.Context, tx *sqlx.Tx, tenant, connection int64, err error) error {
	e, _ := errors.AsType[*connector.Error](err)
	_, err = tx.ExecContext(ctx, `UPDATE credentials SET refused_at = now(), refused = $3, refused_hint = $4, renewing_since = NULL
		WHERE tenant_id = $1 AND connection_id = $2 AND refused_at IS NULL`, tenant, connection, e.Message, e.Hint)
	return err
}

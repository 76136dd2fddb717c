package postgres

import (
	"bytes"
	"context"
	"database/sql"
	"errors"
	"fmt"
	"time"

	"github.com/jmoiron/sqlx"

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

type sealedRow struct {
	KeyID   string       `db:"key_id"`
	Box     []byte       `db:"box"`
	Version int64        `db:"version"`
	Since   sql.NullTime `db:"renewing_since"`
}

func (r sealedRow) stored() credentials.Stored {
	s := credentials.Stored{KeyID: r.KeyID, Box: r.Box, Version: r.Version}
	if r.Since.Valid {
		s.RenewingSince = &r.Since.Time
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
	err := tx.GetContext(ctx, row, `SELECT key_id, box, version, renewing_since FROM credentials WHERE tenant_id = $1 AND connection_id = $2`+lock,
		v.tenant, v.connection)
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
	err = v.store.once(ctx, sql.LevelDefault, asSync, v.tenant, func(tx *sqlx.Tx) error {
		var row sealedRow
		if err := v.get(ctx, tx, &row, " FOR UPDATE"); err != nil {
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
			return err
		}
		if bytes.Equal(renewed.Box, row.Box) {
			renewed = before
			_, err = tx.ExecContext(ctx, `UPDATE credentials SET renewing_since = NULL WHERE tenant_id = $1 AND connection_id = $2`, v.tenant, v.connection)
			return err
		}
		renewed.RenewingSince = nil
		return tx.GetContext(ctx, &renewed.Version, `
			UPDATE credentials SET key_id = $3, box = $4, ends_at = $5, version = version + 1, renewing_since = NULL, updated_at = now()
			WHERE tenant_id = $1 AND connection_id = $2 RETURNING version`, v.tenant, v.connection, renewed.KeyID, renewed.Box, renewed.EndsAt)
	})
	if answered && !earlier {
		// The renewal was seen to end. After a failed commit the note stays: a new token may be lost.
		_ = v.in(context.WithoutCancel(ctx), func(tx *sqlx.Tx) error {
			_, err := tx.ExecContext(ctx, `UPDATE credentials SET renewing_since = NULL WHERE tenant_id = $1 AND connection_id = $2 AND renewing_since = $3`,
				v.tenant, v.connection, noted)
			return err
		})
	}
	return renewed, again, err
}

package postgres

import (
	"context"
	"crypto/sha256"
	"database/sql"
	"embed"
	"encoding/hex"
	"errors"
	"fmt"
	"io/fs"

	"github.com/pressly/goose/v3"
	"github.com/pressly/goose/v3/lock"
)

//go:embed migrations/*.sql
var embedded embed.FS

// versionTable lies in public, since the schema contactsync is made by the first migration.
const versionTable = "contactsync_migrations"

// oldestPostgres is the first major version that has security_invoker views.
const oldestPostgres = 15

// ErrSchema says that the database's schema is not the one this program was built for.
var ErrSchema = errors.New("unknown schema")

// Migrate brings the schema to the version this program was built for, waiting up to a minute for another process that
// does the same. dsn must be a direct connection of the schema's owner: the lock is of the session, which PgBouncer's
// transaction mode breaks.
func Migrate(ctx context.Context, dsn string) error {
	db, err := open(dsn, false)
	if err != nil {
		return err
	}
	defer db.Close()
	if err := checkServer(ctx, db); err != nil {
		return err
	}
	locker, err := lock.NewPostgresSessionLocker(lock.WithLockTimeout(1, 60))
	if err != nil {
		return fmt.Errorf("migrate: %w", err)
	}
	p, err := provider(db, goose.WithSessionLocker(locker))
	if err != nil {
		return err
	}
	if current, target, err := p.GetVersions(ctx); err == nil && current > target {
		return fmt.Errorf("migrate: %w: the database is at version %d and this program knows %d: use the newer program", ErrSchema, current, target)
	}
	if _, err := p.Up(ctx); err != nil {
		return fmt.Errorf("migrate: %w", err)
	}
	return nil
}

// MigrationsHash names the schema that Migrate makes: it changes with any migration.
func MigrationsHash() string {
	h := sha256.New()
	files, err := fs.Glob(embedded, "migrations/*.sql")
	if err != nil {
		panic(err) // the pattern is constant
	}
	for _, name := range files {
		text, err := embedded.ReadFile(name)
		if err != nil {
			panic(err) // it is in the binary
		}
		fmt.Fprintf(h, "%s %d\n%s", name, len(text), text)
	}
	return hex.EncodeToString(h.Sum(nil))[:16]
}

func provider(db *sql.DB, opts ...goose.ProviderOption) (*goose.Provider, error) {
	files, err := fs.Sub(embedded, "migrations")
	if err != nil {
		return nil, fmt.Errorf("migrate: %w", err)
	}
	p, err := goose.NewProvider(goose.DialectPostgres, db, files,
		append(opts, goose.WithTableName(versionTable), goose.WithDisableGlobalRegistry(true))...)
	if err != nil {
		return nil, fmt.Errorf("migrate: %w", err)
	}
	return p, nil
}

func checkServer(ctx context.Context, db *sql.DB) error {
	var version int
	if err := db.QueryRowContext(ctx, `SELECT current_setting('server_version_num')::int / 10000`).Scan(&version); err != nil {
		return fmt.Errorf("postgres: %w", reachable(err))
	}
	if version < oldestPostgres {
		return fmt.Errorf("postgres: version %d is too old: use %d or newer", version, oldestPostgres)
	}
	return nil
}

// CheckSchema refuses a schema this program does not know, and says which command to run.
func (s *Store) CheckSchema(ctx context.Context) error {
	if err := checkServer(ctx, s.db.DB); err != nil {
		return err
	}
	p, err := provider(s.db.DB)
	if err != nil {
		return err
	}
	target := int64(0)
	for _, source := range p.ListSources() {
		target = max(target, source.Version)
	}
	var current int64
	err = s.db.GetContext(ctx, &current, `SELECT coalesce(max(version_id), 0) FROM public.`+versionTable+` WHERE is_applied`)
	switch {
	case isUndefinedTable(err):
		return fmt.Errorf("%w: the database has no contactsync schema yet: run `syncctl migrate`", ErrSchema)
	case err != nil:
		return fmt.Errorf("read schema version: %w", reachable(err))
	case current < target:
		return fmt.Errorf("%w: the database is at version %d and this program needs %d: run `syncctl migrate`", ErrSchema, current, target)
	case current > target:
		return fmt.Errorf("%w: the database is at version %d and this program knows %d: start the newer program", ErrSchema, current, target)
	}
	return nil
}

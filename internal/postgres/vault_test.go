package postgres_test

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/centime/contactsync/internal/credentials"
	"github.com/centime/contactsync/internal/postgres"
	"github.com/centime/contactsync/internal/postgres/pgtest"
)

// TestOneRenewalAtATime guards rule 10: across processes one renews at a time, each sees what the one before stored, and the
// note of a renewal stays only if nobody saw its end.
func TestOneRenewalAtATime(t *testing.T) {
	t.Parallel()
	dsn := pgtest.New(t)
	furnish(t, dsn)
	var at, most atomic.Int64
	var wait sync.WaitGroup
	for range 4 {
		store, err := postgres.Open(dsn, 3)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { _ = store.Close() })
		for range 5 {
			wait.Go(func() {
				_, err := store.Vault(1, 1).Renew(t.Context(), func(_ context.Context, s credentials.Stored) (credentials.Stored, error) {
					most.Store(max(most.Load(), at.Add(1)))
					defer at.Add(-1)
					s.Box = append(s.Box, '+')
					return s, nil
				})
				if err != nil {
					t.Error(err)
				}
			})
		}
	}
	wait.Wait()
	if most.Load() != 1 {
		t.Errorf("%d renewals at once", most.Load())
	}
	box := pgtest.Value(t, dsn, `SELECT convert_from(box, 'UTF8') FROM contactsync.credentials WHERE tenant_id = 1`)
	if box != "secret++++++++++++++++++++" {
		t.Errorf("a renewal was lost: %q", box)
	}
	note := func() string {
		return pgtest.Value(t, dsn, `SELECT renewing_since FROM contactsync.credentials WHERE tenant_id = 1`)
	}
	if note() != "" {
		t.Error("a note is left although all ended")
	}
	store, err := postgres.Open(dsn, 3)
	if err != nil {
		t.Fatal(err)
	}
	defer store.Close()
	refused := errors.New("refused")
	if _, err := store.Vault(1, 1).Renew(t.Context(), func(_ context.Context, s credentials.Stored) (credentials.Stored, error) {
		return s, refused
	}); !errors.Is(err, refused) || note() != "" {
		t.Errorf("after a refusal: %v, note %q", err, note())
	}
	unanswered := func() string {
		return pgtest.Value(t, dsn, `SELECT unanswered_since FROM contactsync.credentials WHERE tenant_id = 1`)
	}
	for _, told := range []bool{false, true} {
		_, err := store.Vault(1, 1).Renew(t.Context(), func(_ context.Context, s credentials.Stored) (credentials.Stored, error) {
			if (s.UnansweredSince != nil) != told {
				t.Errorf("told of the reply that did not come: %v, want %v", s.UnansweredSince, told)
			}
			return s, fmt.Errorf("no answer: %w", credentials.ErrUnanswered)
		})
		if err == nil || note() != "" || unanswered() == "" {
			t.Errorf("without an answer: %v, notes %q and %q", err, note(), unanswered())
		}
	}
	ctx, cancel := context.WithCancel(t.Context())
	if _, err := store.Vault(1, 1).Renew(ctx, func(_ context.Context, s credentials.Stored) (credentials.Stored, error) {
		cancel() // as if the worker died before the commit
		s.Box = []byte("lost")
		return s, nil
	}); err == nil || note() == "" {
		t.Errorf("after a commit that failed: %v, note %q", err, note())
	}
	if _, err := store.Vault(1, 1).Renew(t.Context(), func(_ context.Context, s credentials.Stored) (credentials.Stored, error) {
		if s.RenewingSince == nil {
			t.Error("the one after is not told of the renewal whose end nobody saw")
		}
		s.Box = []byte("new")
		return s, nil
	}); err != nil || note() != "" || unanswered() != "" {
		t.Errorf("%v, notes %q and %q", err, note(), unanswered())
	}
}

// TestResealIsNoRenewal: another key around the same login leaves what is noted of renewals that nobody saw end, by which a worker that still
// tries to save one is waited for, and a login that died with one is told.
func TestResealIsNoRenewal(t *testing.T) {
	t.Parallel()
	dsn := pgtest.New(t)
	furnish(t, dsn)
	store, err := postgres.Open(dsn, 3)
	if err != nil {
		t.Fatal(err)
	}
	defer store.Close()
	pgtest.Exec(t, dsn, `UPDATE contactsync.credentials SET renewing_since = '2026-03-02 10:00Z', unanswered_since = '2026-03-02 09:00Z', version = 7`)
	row := func() string {
		return pgtest.Value(t, dsn, `SELECT concat_ws(' ', key_id, convert_from(box, 'UTF8'), version, renewing_since AT TIME ZONE 'UTC', unanswered_since AT TIME ZONE 'UTC')
			FROM contactsync.credentials WHERE tenant_id = 1`)
	}
	was, refused := row(), errors.New("no such key")
	err = store.Vault(1, 1).Reseal(t.Context(), func(credentials.Stored) (credentials.Stored, error) { return credentials.Stored{}, refused })
	if !errors.Is(err, refused) || row() != was {
		t.Errorf("got %v, and %q is stored", err, row())
	}
	err = store.Vault(1, 1).Reseal(t.Context(), func(s credentials.Stored) (credentials.Stored, error) {
		return credentials.Stored{KeyID: "new", Box: append(s.Box, '+')}, nil
	})
	if want := "new secret+ 7 2026-03-02 10:00:00 2026-03-02 09:00:00"; err != nil || row() != want {
		t.Errorf("sealed again, %q is stored, %v; want %q", row(), err, want)
	}
	pgtest.Exec(t, dsn, `DELETE FROM contactsync.credentials WHERE tenant_id = 1`)
	err = store.Vault(1, 1).Reseal(t.Context(), func(s credentials.Stored) (credentials.Stored, error) { return s, nil })
	if !errors.Is(err, credentials.ErrNone) {
		t.Errorf("of none: %v", err)
	}
}

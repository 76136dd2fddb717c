package torture

import (
	"context"
	"database/sql"
	"testing"
	"time"

	"github.com/centime/contactsync/internal/postgres/pgtest"
)

// TestTraps: the campaign would prove nothing with a network that is better, or worse, than it says.
func TestTraps(t *testing.T) {
	t.Parallel()
	dsn := pgtest.New(t)
	p, err := newProxy(postgres3, dsn, nil)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(p.close)
	through, err := sql.Open("postgres", p.of(dsn))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = through.Close() })
	exec := func(statement string) error { _, err := through.ExecContext(t.Context(), statement); return err }
	if err := exec("CREATE TABLE public.t (n int)"); err != nil {
		t.Fatal(err)
	}
	insert := func(n int) error {
		tx, err := through.BeginTx(t.Context(), nil)
		if err != nil {
			return err
		}
		if _, err := tx.ExecContext(t.Context(), "INSERT INTO public.t VALUES ($1)", n); err != nil {
			_ = tx.Rollback()
			return err
		}
		return tx.Commit()
	}
	there := func(n int) bool { return pgtest.Value(t, dsn, "SELECT count(*) FROM public.t WHERE n = $1", n) == "1" }

	if err := insert(1); err != nil || !there(1) {
		t.Fatalf("nothing wrong: %v, there %t", err, there(1))
	}
	p.set(&trap{n: 1, commit: true, spring: p.cut})
	if err := insert(2); err == nil || there(2) {
		t.Errorf("cut before the COMMIT: %v, there %t", err, there(2))
	}
	p.set(&trap{n: 1, commit: true, after: true, spring: p.cut})
	if err := insert(3); err == nil || !there(3) {
		t.Errorf("cut after the COMMIT: %v, there %t", err, there(3))
	}
	p.set(&trap{n: 2, spring: p.cut}) // BEGIN, INSERT, COMMIT
	if err := insert(4); err == nil || there(4) {
		t.Errorf("cut at the second statement: %v, there %t", err, there(4))
	}

	sprung := make(chan struct{})
	p.set(&trap{n: 1, commit: true, spring: func() { p.hole(); close(sprung) }})
	done := make(chan error, 1)
	go func() { done <- insert(5) }()
	<-sprung
	if there(5) {
		t.Error("a COMMIT passed the hole")
	}
	p.heal()
	if err := <-done; err != nil || !there(5) {
		t.Errorf("after the hole: %v, there %t", err, there(5))
	}
	p.die()
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
	defer cancel()
	if err := through.PingContext(ctx); err == nil || ctx.Err() != nil {
		t.Errorf("a dead proxy: %v", err)
	}
}

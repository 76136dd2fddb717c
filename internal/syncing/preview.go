package syncing

import (
	"context"
	"errors"
	"time"

	"github.com/centime/contactsync/internal/connector"
	"github.com/centime/contactsync/internal/postgres"
	"github.com/centime/contactsync/internal/reconcile"
	"github.com/centime/contactsync/internal/tracing"
)

// savePage saves a page; of a preview it is only kept.
func (s *step) savePage(ctx context.Context, said reconcile.Reading, calls int) (reconcile.Counts, error) {
	if s.c.Preview {
		return reconcile.Counts{}, s.w.Store.SavePreviewPage(ctx, s.c.Step, said.Page, calls)
	}
	return s.w.Store.SavePage(ctx, s.c.Step, said, calls)
}

// preview rehearses what was read until nothing is left to be looked up, and ends the run with its report. It does not mind how
// long a step should be: what a rehearsal has done is undone, so that one begun anew begins from its start.
func (s *step) preview(ctx context.Context, source connector.Source) error {
	lookups := true // until the ERP turns out to be one that cannot be asked
	for {
		began := time.Now()
		done, err := s.rehearse(ctx, lookups)
		if err != nil {
			return err
		}
		s.log.InfoContext(ctx, "rehearsed", "took", time.Since(began), "to_look_up", len(done.Missing), "deactivated", done.Deactivated, "held", done.Held)
		if len(done.Missing) == 0 {
			return nil
		}
		for _, chunk := range postgres.Chunks(done.Missing) {
			if s.ending() {
				return errStopped
			}
			keys := make([]connector.Key, 0, len(chunk))
			for _, m := range chunk {
				keys = append(keys, m.Key)
			}
			found, err := source.Lookup(ctx, keys)
			if errors.Is(err, errors.ErrUnsupported) {
				lookups = false
				break
			}
			if err != nil {
				return err
			}
			err = s.save(ctx, "keep look-up", func(ctx context.Context, calls int) error {
				return s.w.Store.SavePreviewLookup(ctx, s.c.Step, chunk, found, calls)
			})
			if err != nil {
				return err
			}
			s.c.Attempts = 0
		}
	}
}

// rehearse ends early when the step is told to.
func (s *step) rehearse(ctx context.Context, lookups bool) (postgres.End, error) {
	rehearsing, end := context.WithCancel(ctx)
	defer end()
	go func() {
		tick := time.NewTicker(time.Second)
		defer tick.Stop()
		for !s.ending() {
			select {
			case <-rehearsing.Done():
				return
			case <-s.w.Draining:
			case <-tick.C:
			}
		}
		end()
	}()
	traced, told := tracing.Span(rehearsing, "rehearse") // not write: the run's row stays free, and a lost lease ends it
	var done postgres.End
	err := s.counting(func(calls int) (err error) {
		done, err = s.w.Store.Rehearse(traced, s.c.Step, s.c.Settings, lookups, calls)
		return err
	})
	told(err)
	if err != nil && ctx.Err() == nil && s.ending() {
		return done, errStopped
	}
	return done, err
}

package syncing

import (
	"context"

	"github.com/centime/contactsync/internal/connector"
	"github.com/centime/contactsync/internal/postgres"
)

// approve carries out an approved hold: what can be asked for is looked up again, many to a call and each answer saved, so that
// another worker goes on where this one ends; then what is still so goes.
func (s *step) approve(ctx context.Context, source connector.Source) error {
	for able := true; able; {
		var unasked []postgres.Lookup
		err := s.write(ctx, "what to look up", func(ctx context.Context) (err error) {
			unasked, err = s.w.Store.Unasked(ctx, s.c.Step)
			return err
		})
		if err != nil {
			return err
		}
		if len(unasked) == 0 {
			break
		}
		if able, err = s.lookUp(ctx, source, unasked); err != nil {
			return err
		}
		if able && s.stop(ctx) {
			return errStopped
		}
	}
	var went postgres.Went
	err := s.save(ctx, "carry out", func(ctx context.Context, calls int) (err error) {
		went, err = s.w.Store.CarryOut(ctx, s.c.Step, calls)
		return err
	})
	if err == nil {
		s.w.Metrics.Records(s.c.ERP, "deactivated", went.Deactivated)
	}
	return err
}

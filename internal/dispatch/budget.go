package dispatch

import (
	"context"
	"fmt"

	"github.com/centime/contactsync/internal/postgres"
)

// watch looks at what concerns all connections of an ERP together.
func (s *Scheduler) watch(ctx context.Context) error {
	opened, ended, err := s.Store.WatchERPs(ctx, trialEvery)
	if err != nil {
		return err
	}
	for _, p := range opened {
		s.Log.ErrorContext(ctx, "ERP refuses this installation: its schedule waits until a trial succeeds, its connections stay as they are",
			"erp", p.ERP, "cause", p.Cause)
	}
	for _, p := range ended {
		s.Log.InfoContext(ctx, "ERP works again: its schedule goes on", "erp", p.ERP)
	}
	if len(s.Allowances) == 0 {
		return nil
	}
	calls, err := s.Store.MeteredCalls(ctx)
	if err != nil {
		return err
	}
	s.save = postgres.Savings{}
	for erp, allowance := range s.Allowances {
		s.spend(ctx, erp, calls[erp], allowance)
	}
	return nil
}

// spend decides what an ERP's share of its allowance means for the schedule, and tells each threshold once.
func (s *Scheduler) spend(ctx context.Context, erp string, calls, allowance int64) {
	if s.told == nil {
		s.told = map[string]int{}
	}
	passed := 0
	for _, threshold := range []int{postgres.AlarmAt, postgres.StretchAt, postgres.StopAt} {
		if calls*100 >= allowance*int64(threshold) {
			passed = threshold
		}
	}
	switch passed {
	case postgres.StretchAt:
		s.save.Stretch = append(s.save.Stretch, erp)
	case postgres.StopAt:
		s.save.Stop = append(s.save.Stop, erp)
	}
	if passed > s.told[erp] {
		s.Log.WarnContext(ctx, "metered calls of this month are nearly used up", "erp", erp, "calls", calls, "allowance", allowance,
			"used", fmt.Sprintf("%d %%", calls*100/allowance), "schedule", map[int]string{
				postgres.AlarmAt: "as usual", postgres.StretchAt: "every other due time", postgres.StopAt: "stopped until next month; what people ask for is worked",
			}[passed])
	}
	s.told[erp] = passed
}

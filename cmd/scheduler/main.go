// Command scheduler decides what is due and hands runs to the queue, until it is told to stop. Several may run at once. It
// never calls an ERP.
package main

import (
	"context"

	"github.com/centime/contactsync/connectors"
	"github.com/centime/contactsync/internal/config"
	"github.com/centime/contactsync/internal/dispatch"
	"github.com/centime/contactsync/internal/postgres"
	"github.com/centime/contactsync/internal/program"
)

const usage = `scheduler queues due connections and hands runs to the workers until SIGTERM or Ctrl-C.

  DATABASE_URL=postgres://… REDIS_URL=redis://… scheduler

Optional: TICK (2s), LEASE (30s, as the workers have it), QUICKBOOKS_MONTHLY_CALLS, KEEP_QUIET_RUNS (720h), KEEP_RUNS (9600h),
LOG_LEVEL (info), METRICS_ADDR. docs/operations.md has them all.
`

func main() {
	program.Main(program.Program{
		Name: "scheduler", Usage: usage, Config: config.ForScheduler, Work: work,
		Connections: func(config.Config) int { return postgres.SchedulerConnections },
	})
}

func work(ctx context.Context, p program.Parts) error {
	p.Log.InfoContext(ctx, "scheduler is ready", "tick", p.Config.Tick)
	allowances := connectors.Allowances(p.Config.QuickBooksMonthlyCalls)
	for erp, calls := range allowances {
		p.Metrics.Allowance(erp, calls)
	}
	p.Metrics.WatchFleet(p.Store.Fleet)
	p.Metrics.WatchQueues(p.Redis.Depths)
	scheduler := &dispatch.Scheduler{
		Store: p.Store, Queue: p.Redis, Log: p.Log, Tick: p.Config.Tick, Lease: p.Config.Lease, Allowances: allowances,
		Keep: postgres.Keep{Quiet: p.Config.KeepQuietRuns, Runs: p.Config.KeepRuns}, Metrics: p.Metrics,
	}
	scheduler.Run(ctx)
	p.Log.InfoContext(ctx, "scheduler has stopped")
	return nil
}

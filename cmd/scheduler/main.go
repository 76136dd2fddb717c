// Command scheduler decides what is due and hands runs to the queue, until it is told to stop. Several may run at once. It
// never calls an ERP.
package main

import (
	"context"

	"github.com/centime/contactsync/internal/config"
	"github.com/centime/contactsync/internal/dispatch"
	"github.com/centime/contactsync/internal/program"
)

const usage = `scheduler queues due connections and hands runs to the workers until SIGTERM or Ctrl-C.

  DATABASE_URL=postgres://… REDIS_URL=redis://… scheduler

Optional: TICK (2s), LEASE (30s, as the workers have it), LOG_LEVEL (info). docs/operations.md has them all.
`

func main() {
	program.Main(program.Program{
		Name: "scheduler", Usage: usage, Config: config.ForScheduler, Connections: func(config.Config) int { return 4 }, Work: work,
	})
}

func work(ctx context.Context, p program.Parts) error {
	p.Log.InfoContext(ctx, "scheduler is ready", "tick", p.Config.Tick)
	scheduler := &dispatch.Scheduler{Store: p.Store, Queue: p.Redis, Log: p.Log, Tick: p.Config.Tick, Lease: p.Config.Lease}
	scheduler.Run(ctx)
	p.Log.InfoContext(ctx, "scheduler has stopped")
	return nil
}

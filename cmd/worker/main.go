// Command worker works runs: it pulls contacts from ERPs and writes them to Postgres, until it is told to stop. As many as
// you like may run, on as many machines as you like.
package main

import (
	"context"
	"log/slog"
	"os"
	"runtime/debug"
	"time"

	"github.com/centime/contactsync/connectors"
	"github.com/centime/contactsync/connectors/quickbooks"
	"github.com/centime/contactsync/internal/config"
	"github.com/centime/contactsync/internal/dispatch"
	"github.com/centime/contactsync/internal/erphttp"
	"github.com/centime/contactsync/internal/pace"
	"github.com/centime/contactsync/internal/postgres"
	"github.com/centime/contactsync/internal/program"
	"github.com/centime/contactsync/internal/queue"
	"github.com/centime/contactsync/internal/syncing"
	"github.com/centime/contactsync/internal/tracing"
)

const usage = `worker works runs until SIGTERM or Ctrl-C; then its steps end at their next page and other workers go on.

  DATABASE_URL=postgres://… REDIS_URL=redis://… CREDENTIALS_KEY=… QUICKBOOKS_CLIENT_ID=… QUICKBOOKS_CLIENT_SECRET=… worker

Optional: WORKER_CONCURRENCY (8), LEASE (30s), STEP (1m), LOG_LEVEL (info), METRICS_ADDR. docs/operations.md has them all.
`

// patience is how long steps get to end after a signal; supervisors should allow a little more.
const patience = 25 * time.Second

func main() {
	// A page of a first load is garbage a moment later. Collecting it two thirds as often saves a twentieth of the time and costs 5 MB.
	if os.Getenv("GOGC") == "" {
		debug.SetGCPercent(150)
	}
	program.Main(program.Program{
		Name: "worker", Usage: usage, Config: config.ForWorker, Work: work,
		Connections: func(c config.Config) int { return postgres.WorkerConnections(c.WorkerConcurrency) },
	})
}

func work(ctx context.Context, p program.Parts) error {
	erps := connectors.All(connectors.Keys{QuickBooks: quickbooks.App{
		ClientID: p.Config.QuickBooksClientID, ClientSecret: quickbooks.Secret(p.Config.QuickBooksSecret),
	}})
	longest := time.Duration(0)
	for _, erp := range erps {
		longest = max(longest, erp.LongestRequest())
	}
	draining := make(chan struct{})
	worker := &syncing.Worker{
		Store: p.Store, Connectors: erps, Ring: p.Config.Ring, Log: p.Log, Lease: p.Config.Lease, Step: p.Config.Step, Draining: draining,
		Transport: tracing.Transport(erphttp.Transport()),
		Pace:      pace.New(p.Redis.Client()), Metrics: p.Metrics,
		GiveWay: func(ctx context.Context, t postgres.Trigger) bool { return p.Redis.GiveWay(ctx, dispatch.QueueOf(t)) },
	}
	step := func(ctx context.Context, t queue.Task) {
		ctx, end := tracing.Linked(ctx, "work delivery", t.Headers, slog.Int64("run_id", t.Run), slog.Int("delivery", t.Delivery))
		defer end(nil)
		next := worker.Work(ctx, t.Run, t.Delivery)
		if next == nil {
			return
		}
		if err := dispatch.HandOut(context.WithoutCancel(ctx), p.Redis, *next); err != nil {
			p.Log.WarnContext(ctx, "queue did not confirm the next step; the scheduler sees to it", "run_id", t.Run, "error", err)
		}
	}
	server, err := p.Redis.Serve(ctx, step, draining, p.Config.WorkerConcurrency, p.Config.Step+longest, p.Log)
	if err != nil {
		return err
	}
	p.Log.InfoContext(ctx, "worker is ready", "concurrency", p.Config.WorkerConcurrency)
	<-ctx.Done()
	p.Log.InfoContext(ctx, "worker is stopping: steps end at their next page")
	server.Shutdown(patience)
	p.Log.InfoContext(ctx, "worker has stopped")
	return nil
}

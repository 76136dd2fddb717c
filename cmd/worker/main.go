// Command worker works runs: it pulls contacts from ERPs and writes them to Postgres, until it is told to stop. As many as
// you like may run, on as many machines as you like.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"log/slog"
	"os"
	"os/signal"
	"syscall"
	"time"

	"github.com/centime/contactsync/connectors"
	"github.com/centime/contactsync/connectors/quickbooks"
	"github.com/centime/contactsync/internal/config"
	"github.com/centime/contactsync/internal/dispatch"
	"github.com/centime/contactsync/internal/postgres"
	"github.com/centime/contactsync/internal/queue"
	"github.com/centime/contactsync/internal/syncing"
)

const usage = `worker works runs until SIGTERM or Ctrl-C; then its steps end at their next page and other workers go on.

  DATABASE_URL=postgres://… REDIS_URL=redis://… CREDENTIALS_KEY=… QUICKBOOKS_CLIENT_ID=… QUICKBOOKS_CLIENT_SECRET=… worker

Optional: WORKER_CONCURRENCY (8), LEASE (30s), STEP (1m), LOG_LEVEL (info). docs/operations.md has them all.
`

// patience is how long steps get to end after a signal; supervisors should allow a little more.
const patience = 25 * time.Second

// errUsage is wrong usage: arguments or environment.
var errUsage = errors.New("wrong usage")

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	err := run(ctx, os.Args[1:], os.Environ(), os.Stderr)
	switch {
	case errors.Is(err, flag.ErrHelp):
	case errors.Is(err, errUsage):
		fmt.Fprintf(os.Stderr, "worker: %v\n", err)
		os.Exit(2)
	case err != nil:
		fmt.Fprintf(os.Stderr, "worker: %v\n", err)
		os.Exit(1)
	}
}

func run(ctx context.Context, args, environ []string, stderr io.Writer) error {
	flags := flag.NewFlagSet("worker", flag.ContinueOnError)
	flags.SetOutput(stderr)
	flags.Usage = func() { fmt.Fprint(stderr, usage) }
	if err := flags.Parse(args); err != nil {
		return err
	}
	c, err := config.ForWorker(environ)
	if err != nil {
		return fmt.Errorf("%w: %w", errUsage, err)
	}
	log := slog.New(slog.NewJSONHandler(stderr, &slog.HandlerOptions{Level: c.LogLevel}))
	store, err := postgres.Open(string(c.DatabaseURL), 2*c.WorkerConcurrency+2)
	if err != nil {
		return err
	}
	defer store.Close()
	if err := store.CheckSchema(ctx); err != nil {
		return err
	}
	redis, err := queue.Open(string(c.RedisURL))
	if err != nil {
		return err
	}
	defer redis.Close()
	if err := redis.Ping(ctx); err != nil {
		return err
	}

	erps := connectors.All(connectors.Keys{QuickBooks: quickbooks.App{
		ClientID: c.QuickBooksClientID, ClientSecret: quickbooks.Secret(c.QuickBooksSecret),
	}})
	longest := time.Duration(0)
	for _, erp := range erps {
		longest = max(longest, erp.LongestRequest())
	}
	draining := make(chan struct{})
	worker := &syncing.Worker{
		Store: store, Connectors: erps, Ring: c.Ring, Log: log, Lease: c.Lease, Step: c.Step, Draining: draining,
	}
	server, err := redis.Serve(func(ctx context.Context, run int64, delivery int) { //nolint:contextcheck // a step outlives the signal
		next := worker.Work(ctx, run, delivery)
		if next == nil {
			return
		}
		if err := redis.Enqueue(context.WithoutCancel(ctx), dispatch.Task(*next)); err != nil {
			log.WarnContext(ctx, "queue did not confirm the next step; the scheduler sees to it", "run_id", run, "error", err)
		}
	}, draining, c.WorkerConcurrency, c.Step+longest, log)
	if err != nil {
		return err
	}
	log.InfoContext(ctx, "worker is ready", "concurrency", c.WorkerConcurrency)
	<-ctx.Done()
	log.InfoContext(ctx, "worker is stopping: steps end at their next page")
	server.Shutdown(patience)
	log.InfoContext(ctx, "worker has stopped")
	return nil
}

// Command scheduler decides what is due and hands runs to the queue, until it is told to stop. Several may run at once. It
// never calls an ERP.
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

	"github.com/centime/contactsync/internal/config"
	"github.com/centime/contactsync/internal/dispatch"
	"github.com/centime/contactsync/internal/postgres"
	"github.com/centime/contactsync/internal/queue"
)

const usage = `scheduler queues due connections and hands runs to the workers until SIGTERM or Ctrl-C.

  DATABASE_URL=postgres://… REDIS_URL=redis://… scheduler

Optional: TICK (2s), LEASE (30s, as the workers have it), LOG_LEVEL (info). docs/operations.md has them all.
`

// errUsage is wrong usage: arguments or environment.
var errUsage = errors.New("wrong usage")

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	err := run(ctx, os.Args[1:], os.Environ(), os.Stderr)
	switch {
	case errors.Is(err, flag.ErrHelp):
	case errors.Is(err, errUsage):
		fmt.Fprintf(os.Stderr, "scheduler: %v\n", err)
		os.Exit(2)
	case err != nil:
		fmt.Fprintf(os.Stderr, "scheduler: %v\n", err)
		os.Exit(1)
	}
}

func run(ctx context.Context, args, environ []string, stderr io.Writer) error {
	flags := flag.NewFlagSet("scheduler", flag.ContinueOnError)
	flags.SetOutput(stderr)
	flags.Usage = func() { fmt.Fprint(stderr, usage) }
	if err := flags.Parse(args); err != nil {
		return err
	}
	c, err := config.ForScheduler(environ)
	if err != nil {
		return fmt.Errorf("%w: %w", errUsage, err)
	}
	log := slog.New(slog.NewJSONHandler(stderr, &slog.HandlerOptions{Level: c.LogLevel}))
	store, err := postgres.Open(string(c.DatabaseURL), 4)
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
	log.InfoContext(ctx, "scheduler is ready", "tick", c.Tick)
	scheduler := &dispatch.Scheduler{Store: store, Queue: redis, Log: log, Tick: c.Tick, Lease: c.Lease}
	scheduler.Run(ctx)
	log.InfoContext(ctx, "scheduler has stopped")
	return nil
}

// Package program is what the long-running programs share: they start from the environment, refuse what is not right in one
// sentence, stop at a signal, and say by their exit status what kind of end it was.
package program

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

	"github.com/centime/contactsync/internal/config"
	"github.com/centime/contactsync/internal/metrics"
	"github.com/centime/contactsync/internal/postgres"
	"github.com/centime/contactsync/internal/queue"
	"github.com/centime/contactsync/internal/tracing"
)

// farewell bounds what is done after the work: the last traces, and closing connections whose far side may hang.
const farewell = 2 * time.Second

// Exit statuses.
const (
	failed     = 1
	wrongUsage = 2 // arguments or environment
)

var errUsage = errors.New("wrong usage")

// Parts are what a program works with, open and checked.
type Parts struct {
	Config  config.Config
	Store   *postgres.Store
	Redis   *queue.Redis
	Metrics *metrics.Metrics
	Log     *slog.Logger
}

// Program is one of the long-running programs.
type Program struct {
	Name  string
	Usage string
	// Config reads what the program needs of an environment.
	Config func(environ []string) (config.Config, error)
	// Connections is how many connections to Postgres it may have.
	Connections func(c config.Config) int
	// Work runs until ctx ends.
	Work func(ctx context.Context, p Parts) error
}

// Main runs a program from the arguments and the environment, and ends the process.
func Main(p Program) {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	err := p.run(ctx, os.Args[1:], os.Environ(), os.Stderr)
	stop()
	switch {
	case err == nil, errors.Is(err, flag.ErrHelp):
	case errors.Is(err, errUsage):
		fmt.Fprintf(os.Stderr, "%s: %v\n", p.Name, err)
		os.Exit(wrongUsage)
	default:
		fmt.Fprintf(os.Stderr, "%s: %v\n", p.Name, err)
		os.Exit(failed)
	}
}

func (p Program) run(ctx context.Context, args, environ []string, stderr io.Writer) error {
	flags := flag.NewFlagSet(p.Name, flag.ContinueOnError)
	flags.SetOutput(stderr)
	flags.Usage = func() { fmt.Fprint(stderr, p.Usage) }
	if err := flags.Parse(args); err != nil {
		if errors.Is(err, flag.ErrHelp) {
			return err
		}
		return fmt.Errorf("%w: %w", errUsage, err)
	}
	if flags.NArg() > 0 {
		return fmt.Errorf("%w: unexpected argument %q; it takes none", errUsage, flags.Arg(0))
	}
	c, err := p.Config(environ)
	if err != nil {
		return fmt.Errorf("%w: %w", errUsage, err)
	}
	log := slog.New(slog.NewJSONHandler(stderr, &slog.HandlerOptions{Level: c.LogLevel}))
	stopTracing, err := tracing.Start(ctx, p.Name, environ, log)
	if err != nil {
		return err
	}
	defer within(ctx, farewell, stopTracing)
	store, err := postgres.Open(string(c.DatabaseURL), p.Connections(c))
	if err != nil {
		return err
	}
	defer within(ctx, farewell, func(context.Context) error { return store.Close() })
	if err := store.CheckSchema(ctx); err != nil {
		return err
	}
	redis, err := queue.Open(string(c.RedisURL))
	if err != nil {
		return err
	}
	defer within(ctx, farewell, func(context.Context) error { return redis.Close() })
	if err := redis.Ping(ctx); err != nil {
		return err
	}
	parts := Parts{Config: c, Store: store, Redis: redis, Metrics: metrics.New(), Log: log}
	parts.Metrics.WatchDB("contactsync", store)
	if c.MetricsAddr != "" {
		stop, err := metrics.Serve(ctx, c.MetricsAddr, parts.Metrics.Handler(parts.ready(ctx)), log)
		if err != nil {
			return err
		}
		defer stop()
	}
	return p.Work(ctx, parts)
}

// ready is what /readyz asks: whether the program could work now. running ends when it is told to stop.
func (p Parts) ready(running context.Context) func(context.Context) error {
	return func(ctx context.Context) error {
		if running.Err() != nil {
			return errors.New("stopping")
		}
		if err := p.Store.CheckSchema(ctx); err != nil {
			return err
		}
		return p.Redis.Ping(ctx)
	}
}

// within does something that may hang, and waits for it only so long: the process is about to end.
func within(ctx context.Context, d time.Duration, do func(context.Context) error) {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), d)
	defer cancel()
	done := make(chan struct{})
	go func() {
		_ = do(ctx) // what is left undone ends with the process
		close(done)
	}()
	select {
	case <-done:
	case <-ctx.Done():
	}
}

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

	"github.com/centime/contactsync/internal/config"
	"github.com/centime/contactsync/internal/postgres"
	"github.com/centime/contactsync/internal/queue"
)

// Exit statuses.
const (
	failed     = 1
	wrongUsage = 2 // arguments or environment
)

var errUsage = errors.New("wrong usage")

// Parts are what a program works with, open and checked.
type Parts struct {
	Config config.Config
	Store  *postgres.Store
	Redis  *queue.Redis
	Log    *slog.Logger
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
	c, err := p.Config(environ)
	if err != nil {
		return fmt.Errorf("%w: %w", errUsage, err)
	}
	store, err := postgres.Open(string(c.DatabaseURL), p.Connections(c))
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
	log := slog.New(slog.NewJSONHandler(stderr, &slog.HandlerOptions{Level: c.LogLevel}))
	return p.Work(ctx, Parts{Config: c, Store: store, Redis: redis, Log: log})
}

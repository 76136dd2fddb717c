// Command demo shows the whole system at work against simulated ERPs; `make demo` builds what it needs and runs it.
package main

import (
	"context"
	"fmt"
	"os"
	"os/signal"
	"path/filepath"
	"syscall"

	"github.com/centime/contactsync/internal/demo"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	err := run(ctx)
	stop()
	if err != nil {
		fmt.Fprintf(os.Stderr, "\ndemo: %v\n", err)
		os.Exit(1)
	}
}

func run(ctx context.Context) error {
	program, err := os.Executable()
	if err != nil {
		return fmt.Errorf("find the programs: %w", err)
	}
	bin := filepath.Dir(program)
	d := &demo.Demo{
		Bin: bin, Logs: filepath.Join(filepath.Dir(bin), ".local", "demo-logs"), DatabaseURL: os.Getenv("DATABASE_URL"), RedisURL: os.Getenv("REDIS_URL"),
		Once: os.Getenv("ONCE") == "1", Spoil: os.Getenv("SPOIL") == "1", Out: os.Stdout,
	}
	if d.DatabaseURL == "" || d.RedisURL == "" {
		return fmt.Errorf("DATABASE_URL and REDIS_URL are not set: run `make demo`, which starts private servers")
	}
	err = d.Run(ctx)
	if ctx.Err() != nil {
		return nil // Ctrl-C is how it ends
	}
	if err == nil {
		fmt.Fprintln(d.Out, "\nPostgres is what the ERPs are.")
	}
	return err
}

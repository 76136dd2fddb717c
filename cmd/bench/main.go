// Command bench measures the whole system against a simulated ERP; `make bench` builds what it needs and runs it.
package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/signal"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"

	"github.com/centime/contactsync/internal/bench"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	missed, err := run(ctx)
	stop()
	switch {
	case err != nil:
		fmt.Fprintf(os.Stderr, "\nbench: %v\n", err)
		os.Exit(1)
	case len(missed) > 0:
		fmt.Println("Missed:")
		for _, sentence := range missed {
			fmt.Println("- " + sentence)
		}
		os.Exit(1)
	}
	fmt.Println("All aims are met.")
}

func run(ctx context.Context) ([]string, error) {
	program, err := os.Executable()
	if err != nil {
		return nil, fmt.Errorf("find the programs: %w", err)
	}
	bin := filepath.Dir(program)
	b := &bench.Bench{
		Bin: bin, Logs: filepath.Join(filepath.Dir(bin), ".local", "bench-logs"), DatabaseURL: os.Getenv("DATABASE_URL"), RedisURL: os.Getenv("REDIS_URL"),
		Sizes: []int{20_000, 100_000, 200_000}, Out: os.Stdout, Progress: os.Stderr,
	}
	if b.DatabaseURL == "" || b.RedisURL == "" {
		return nil, errors.New("DATABASE_URL and REDIS_URL are not set: run `make bench`, which starts private servers")
	}
	if words := strings.Fields(os.Getenv("CUSTOMERS")); len(words) > 0 {
		b.Sizes = nil
		for _, word := range words {
			n, err := strconv.Atoi(word)
			if err != nil {
				return nil, fmt.Errorf("CUSTOMERS: %q is not a number: use one or several, such as CUSTOMERS='20000 100000'", word)
			}
			b.Sizes = append(b.Sizes, n)
		}
	}
	missed, err := b.Run(ctx)
	if ctx.Err() != nil {
		return nil, errors.New("interrupted")
	}
	return missed, err
}

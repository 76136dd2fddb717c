// Command bench measures the whole system against a simulated ERP; `make bench` and `make bench-fleet` build what it needs and
// run it.
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
	"time"

	"github.com/centime/contactsync/internal/bench"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	met, missed, err := run(ctx)
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
	fmt.Println(met)
}

// run measures, and returns what can be said if no aim was missed.
func run(ctx context.Context) (met string, missed []string, err error) {
	program, err := os.Executable()
	if err != nil {
		return "", nil, fmt.Errorf("find the programs: %w", err)
	}
	bin := filepath.Dir(program)
	b := &bench.Bench{
		Bin: bin, Logs: filepath.Join(filepath.Dir(bin), ".local", "bench-logs"), DatabaseURL: os.Getenv("DATABASE_URL"), RedisURL: os.Getenv("REDIS_URL"), Env: []string{"TICK=500ms"},
		Out: os.Stdout, Progress: os.Stderr,
	}
	if b.DatabaseURL == "" || b.RedisURL == "" {
		return "", nil, errors.New("DATABASE_URL and REDIS_URL are not set: run `make bench`, which starts private servers")
	}
	if words := strings.Fields(os.Getenv("CUSTOMERS")); len(words) > 0 {
		for _, word := range words {
			n, err := strconv.Atoi(word)
			if err != nil {
				return "", nil, fmt.Errorf("CUSTOMERS: %q is not a number: use one or several, such as CUSTOMERS='20000 100000'", word)
			}
			b.Sizes = append(b.Sizes, n)
		}
	}
	met = "Memory, rows, WAL and ERP calls are within their aims."
	measure := func(ctx context.Context) ([]string, error) { return each(ctx, b) }
	if len(os.Args) > 1 && os.Args[1] == "fleet" {
		b.Env = nil
		fleet := &bench.Fleet{Bench: b, Customers: 20}
		minutes := 0
		for _, n := range []struct {
			name      string
			into      *int
			byDefault int
		}{{"CONNECTIONS", &fleet.Connections, 10_000}, {"HUGE", &fleet.Huge, 1_000_000}, {"MINUTES", &minutes, 4}} {
			if *n.into, err = number(n.name, n.byDefault); err != nil {
				return "", nil, err
			}
		}
		fleet.Window = time.Duration(minutes) * time.Minute
		met, measure = "All aims are met.", fleet.Run
	}
	missed, err = measure(ctx)
	if ctx.Err() != nil {
		return "", nil, errors.New("interrupted")
	}
	return met, missed, err
}

// each measures the ERP that ERP names, or one after the other.
func each(ctx context.Context, b *bench.Bench) (missed []string, err error) {
	chosen, names, logs, sizes := os.Getenv("ERP"), []string{}, b.Logs, b.Sizes
	for _, erp := range bench.ERPs {
		names = append(names, erp.Name)
		if chosen != "" && chosen != erp.Name {
			continue
		}
		b.ERP, b.Logs, b.Sizes = erp, filepath.Join(logs, erp.Name), sizes
		if len(sizes) == 0 {
			b.Sizes = erp.Sizes
		}
		more, err := b.Run(ctx)
		if err != nil {
			return nil, err
		}
		missed = append(missed, more...)
	}
	if b.ERP.Name == "" {
		return nil, fmt.Errorf("ERP: %q cannot be measured: want one of %s", chosen, strings.Join(names, ", "))
	}
	return missed, nil
}

func number(variable string, byDefault int) (int, error) {
	text := os.Getenv(variable)
	if text == "" {
		return byDefault, nil
	}
	n, err := strconv.Atoi(text)
	if err != nil || n < 1 {
		return 0, fmt.Errorf("%s: %q is not a number from 1 on", variable, text)
	}
	return n, nil
}

// Package config turns the environment into one checked struct, and says of everything wrong with it what to set.
package config

import (
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/caarlos0/env/v11"

	"github.com/centime/contactsync/internal/credentials"
	"github.com/centime/contactsync/internal/queue/sentinel"
)

// Secret is a text that no print, log or JSON shows. string(s) is the text.
type Secret string

// Format hides the secret from every fmt verb, wrong ones too: without it %d shows a text.
func (Secret) Format(f fmt.State, _ rune) { _, _ = io.WriteString(f, "[secret]") }

// String hides the secret.
func (Secret) String() string { return "[secret]" }

// GoString hides the secret from %#v.
func (Secret) GoString() string { return "[secret]" }

// LogValue hides the secret from slog.
func (Secret) LogValue() slog.Value { return slog.StringValue("[secret]") }

// MarshalText hides the secret from encoders.
func (Secret) MarshalText() ([]byte, error) { return []byte("[secret]"), nil }

// Config is the environment. What a program does not need may be empty.
type Config struct {
	DatabaseURL        Secret        `env:"DATABASE_URL"`
	MigrationsURL      Secret        `env:"MIGRATIONS_DATABASE_URL"` // DatabaseURL where not set
	RedisURL           Secret        `env:"REDIS_URL"`
	CredentialsKey     Secret        `env:"CREDENTIALS_KEY"`
	QuickBooksClientID string        `env:"QUICKBOOKS_CLIENT_ID"`
	QuickBooksSecret   Secret        `env:"QUICKBOOKS_CLIENT_SECRET"`
	WorkerConcurrency  int           `env:"WORKER_CONCURRENCY" envDefault:"8"`
	Lease              time.Duration `env:"LEASE" envDefault:"30s"`
	Step               time.Duration `env:"STEP" envDefault:"1m"`
	Tick               time.Duration `env:"TICK" envDefault:"2s"`
	LogLevel           slog.Level    `env:"LOG_LEVEL" envDefault:"info"`
	MetricsAddr        string        `env:"METRICS_ADDR"`

	QuickBooksMonthlyCalls int64         `env:"QUICKBOOKS_MONTHLY_CALLS"` // metered calls of all companies together; 0: no limit
	KeepQuietRuns          time.Duration `env:"KEEP_QUIET_RUNS" envDefault:"720h"`
	KeepRuns               time.Duration `env:"KEEP_RUNS" envDefault:"9600h"`

	Ring *credentials.Ring `env:"-"` // of CredentialsKey; nil where that is empty
}

const (
	exampleDatabase = "set it to postgres://user:password@host:5432/contactsync?sslmode=verify-full" //nolint:gosec // an example
	exampleRedis    = "set it to redis://user:password@host:6379/0, or rediss:// for TLS, or " + sentinel.Example
	exampleKey      = "set it to what `syncctl key new` prints"
)

// ForWorker reads what cmd/worker needs from an environment such as os.Environ returns.
func ForWorker(environ []string) (Config, error) {
	return read(environ, "DATABASE_URL", "REDIS_URL", "CREDENTIALS_KEY")
}

// ForScheduler reads what cmd/scheduler needs.
func ForScheduler(environ []string) (Config, error) {
	return read(environ, "DATABASE_URL", "REDIS_URL")
}

// ForSyncctl reads what cmd/syncctl needs at least; a command asks for more with Need.
func ForSyncctl(environ []string) (Config, error) { return read(environ) }

// Need says which of these variables are missing, as read would.
func (c Config) Need(names ...string) error {
	var problems []string
	for _, name := range names {
		if c.empty(name) {
			problems = append(problems, missing(name))
		}
	}
	return report(problems)
}

func (c Config) empty(name string) bool {
	switch name {
	case "DATABASE_URL":
		return c.DatabaseURL == ""
	case "REDIS_URL":
		return c.RedisURL == ""
	case "CREDENTIALS_KEY":
		return c.CredentialsKey == ""
	}
	return false
}

func missing(name string) string {
	example := map[string]string{
		"DATABASE_URL": exampleDatabase, "REDIS_URL": exampleRedis, "CREDENTIALS_KEY": exampleKey,
	}[name]
	return fmt.Sprintf("%s is not set: %s", name, example)
}

// shapes say what a variable must be, by the field of Config that it fills.
var shapes = map[string]string{
	"WorkerConcurrency": "WORKER_CONCURRENCY is a number from 1 to 1000, such as 8",
	"Lease":             "LEASE is a duration of 2s or longer, such as 30s",
	"Step":              "STEP is a duration of 1s or longer, such as 1m",
	"Tick":              "TICK is a duration of 100ms or longer, such as 2s",
	"LogLevel":          "LOG_LEVEL is debug, info, warn or error",
	"MetricsAddr":       "METRICS_ADDR is host:port, such as 127.0.0.1:9464",

	"QuickBooksMonthlyCalls": "QUICKBOOKS_MONTHLY_CALLS is a whole number, such as 500000; 0 is no limit",
	"KeepQuietRuns":          "KEEP_QUIET_RUNS is a duration of 48h or longer, such as 720h",
	"KeepRuns":               "KEEP_RUNS is a duration not shorter than KEEP_QUIET_RUNS, such as 9600h",
}

func read(environ []string, needed ...string) (Config, error) {
	values := map[string]string{} // an empty variable is one that is not set
	for _, line := range environ {
		if name, value, ok := strings.Cut(line, "="); ok && value != "" {
			values[name] = value
		}
	}
	c, err := env.ParseAsWithOptions[Config](env.Options{Environment: values})
	problems := parseProblems(err)
	for _, name := range needed {
		if values[name] == "" {
			problems = append(problems, missing(name))
		}
	}
	for _, name := range []string{"DATABASE_URL", "MIGRATIONS_DATABASE_URL"} {
		if text := values[name]; text != "" {
			problems = append(problems, databaseProblems(name, text)...)
		}
	}
	if text := values["REDIS_URL"]; text != "" {
		problems = append(problems, redisProblems(text)...)
	}
	if text := values["CREDENTIALS_KEY"]; text != "" {
		ring, err := credentials.ParseRing(text)
		if err != nil {
			problems = append(problems, fmt.Sprintf("CREDENTIALS_KEY: %v: %s", err, exampleKey))
		}
		c.Ring = ring
	}
	if (values["QUICKBOOKS_CLIENT_ID"] == "") != (values["QUICKBOOKS_CLIENT_SECRET"] == "") {
		problems = append(problems, "QUICKBOOKS_CLIENT_ID and QUICKBOOKS_CLIENT_SECRET belong together: "+
			"set both, from the app's keys at developer.intuit.com, or none")
	}
	for field, wrong := range map[string]bool{
		"WorkerConcurrency": c.WorkerConcurrency < 1 || c.WorkerConcurrency > 1000,
		"Lease":             c.Lease < 2*time.Second,
		"Step":              c.Step < time.Second,
		"Tick":              c.Tick < 100*time.Millisecond,
		"MetricsAddr":       c.MetricsAddr != "" && !hostPort(c.MetricsAddr),

		"QuickBooksMonthlyCalls": c.QuickBooksMonthlyCalls < 0,
		"KeepQuietRuns":          c.KeepQuietRuns < 48*time.Hour,
		"KeepRuns":               c.KeepRuns < c.KeepQuietRuns,
	} {
		if wrong && !slices.Contains(problems, shapes[field]) {
			problems = append(problems, shapes[field])
		}
	}
	if c.MigrationsURL == "" {
		c.MigrationsURL = c.DatabaseURL
	}
	slices.Sort(problems)
	return c, report(problems)
}

// parseProblems takes the library's error apart, without the values it quotes.
func parseProblems(err error) []string {
	if err == nil {
		return nil
	}
	all := []error{err}
	if several, ok := errors.AsType[env.AggregateError](err); ok {
		all = several.Errors
	}
	var problems []string
	for _, e := range all {
		if p, ok := errors.AsType[env.ParseError](e); ok && shapes[p.Name] != "" {
			problems = append(problems, shapes[p.Name])
			continue
		}
		problems = append(problems, "the environment cannot be read")
	}
	return problems
}

func redisProblems(text string) []string {
	if sentinel.Named(text) {
		if _, err := sentinel.Parse(text); err != nil {
			return []string{fmt.Sprintf("REDIS_URL names Sentinels, but %v: use %s", err, sentinel.Example)}
		}
		return nil
	}
	u, err := url.Parse(text)
	if err == nil && u.Host != "" && (u.Scheme == "redis" || u.Scheme == "rediss") {
		database := strings.Trim(u.Path, "/")
		if _, err = strconv.ParseUint(database, 10, 16); database == "" || err == nil {
			return nil
		}
	}
	return []string{"REDIS_URL is not a Redis URL: " + exampleRedis}
}

func hostPort(text string) bool {
	_, port, err := net.SplitHostPort(text)
	if err != nil {
		return false
	}
	_, err = strconv.ParseUint(port, 10, 16)
	return err == nil
}

func databaseProblems(name, text string) []string {
	u, err := url.Parse(text)
	if err != nil || u.Host == "" || u.Scheme != "postgres" && u.Scheme != "postgresql" {
		return []string{name + " is not a Postgres URL: " + exampleDatabase}
	}
	// Without it the driver's default decides, which is about to change: CHANGELOG.md of https://github.com/lib/pq
	switch mode := u.Query().Get("sslmode"); mode {
	case "disable", "allow", "prefer", "require", "verify-ca", "verify-full":
		return nil
	case "":
		return []string{name + " does not say sslmode: add ?sslmode=verify-full (disable on a private network only)"}
	}
	return []string{name + " has an unknown sslmode: use sslmode=verify-full (disable on a private network only)"}
}

func report(problems []string) error {
	if len(problems) == 0 {
		return nil
	}
	return errors.New("the environment is not right:\n  " + strings.Join(problems, "\n  "))
}

// Package config turns the environment into one checked struct, and says of everything wrong with it what to set.
package config

import (
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/url"
	"strings"
	"time"

	"github.com/caarlos0/env/v11"

	"github.com/centime/contactsync/internal/credentials"
)

// Secret is a text that no print, log or JSON shows.
type Secret string

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

	Ring *credentials.Ring `env:"-"` // of CredentialsKey; nil where that is empty
}

const (
	exampleDatabase = "set it to postgres://user:password@host:5432/contactsync?sslmode=verify-full"
	exampleRedis    = "set it to redis://user:password@host:6379/0, or rediss:// for TLS"
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
	example := map[string]string{"DATABASE_URL": exampleDatabase, "REDIS_URL": exampleRedis, "CREDENTIALS_KEY": exampleKey}[name]
	return fmt.Sprintf("%s is not set: %s", name, example)
}

func read(environ []string, needed ...string) (Config, error) {
	values := map[string]string{}
	for _, line := range environ {
		if name, value, ok := strings.Cut(line, "="); ok && value != "" {
			values[name] = value
		}
	}
	var problems []string
	c, err := env.ParseAsWithOptions[Config](env.Options{Environment: values})
	if err != nil {
		problems = append(problems, parseProblems(err)...)
	}
	for _, name := range needed {
		if values[name] == "" {
			problems = append(problems, missing(name))
		}
	}
	check := func(name string, wrong bool, text string) {
		if wrong {
			problems = append(problems, name+" "+text)
		}
	}
	for _, name := range []string{"DATABASE_URL", "MIGRATIONS_DATABASE_URL"} {
		if text := values[name]; text != "" {
			problems = append(problems, databaseProblems(name, text)...)
		}
	}
	if text := values["REDIS_URL"]; text != "" {
		u, err := url.Parse(text)
		check("REDIS_URL", err != nil || u.Host == "" || u.Scheme != "redis" && u.Scheme != "rediss", "is not a Redis URL: "+exampleRedis)
	}
	if text := values["CREDENTIALS_KEY"]; text != "" {
		if c.Ring, err = credentials.ParseRing(text); err != nil {
			problems = append(problems, fmt.Sprintf("CREDENTIALS_KEY: %v: %s", err, exampleKey))
		}
	}
	check("QUICKBOOKS_CLIENT_ID and QUICKBOOKS_CLIENT_SECRET", (values["QUICKBOOKS_CLIENT_ID"] == "") != (values["QUICKBOOKS_CLIENT_SECRET"] == ""),
		"belong together: set both, from the app's keys at developer.intuit.com, or none")
	check("WORKER_CONCURRENCY", err == nil && (c.WorkerConcurrency < 1 || c.WorkerConcurrency > 1000), "is a number from 1 to 1000, such as 8")
	if len(problems) == 0 {
		check("LEASE", c.Lease < 2*time.Second, "is 2s or longer, such as 30s")
		check("STEP", c.Step < time.Second, "is 1s or longer, such as 1m")
		check("TICK", c.Tick < 100*time.Millisecond, "is 100ms or longer, such as 2s")
	}
	if c.MetricsAddr != "" {
		_, _, err := net.SplitHostPort(c.MetricsAddr)
		check("METRICS_ADDR", err != nil, "is host:port, such as 127.0.0.1:9464")
	}
	if c.MigrationsURL == "" {
		c.MigrationsURL = c.DatabaseURL
	}
	return c, report(problems)
}

// parseProblems takes the library's error apart without the values it quotes.
func parseProblems(err error) []string {
	hints := map[string]string{
		"WorkerConcurrency": "WORKER_CONCURRENCY is a number from 1 to 1000, such as 8", "Lease": "LEASE is a duration such as 30s",
		"Step": "STEP is a duration such as 1m", "Tick": "TICK is a duration such as 2s", "LogLevel": "LOG_LEVEL is debug, info, warn or error",
	}
	all := []error{err}
	if several, ok := errors.AsType[env.AggregateError](err); ok {
		all = several.Errors
	}
	var problems []string
	for _, e := range all {
		if p, ok := errors.AsType[env.ParseError](e); ok && hints[p.Name] != "" {
			problems = append(problems, hints[p.Name])
			continue
		}
		problems = append(problems, "the environment cannot be read")
	}
	return problems
}

func databaseProblems(name, text string) []string {
	u, err := url.Parse(text)
	if err != nil || u.Host == "" || u.Scheme != "postgres" && u.Scheme != "postgresql" {
		return []string{name + " is not a Postgres URL: " + exampleDatabase}
	}
	if u.Query().Get("sslmode") == "" {
		return []string{name + " does not say sslmode: add ?sslmode=verify-full (disable on a private network only)"}
	}
	return nil
}

func report(problems []string) error {
	if len(problems) == 0 {
		return nil
	}
	return errors.New("the environment is not right:\n  " + strings.Join(problems, "\n  "))
}

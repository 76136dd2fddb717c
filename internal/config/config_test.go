package config_test

import (
	"bytes"
	"encoding/json"
	"fmt"
	"log/slog"
	"strings"
	"testing"
	"time"

	"github.com/centime/contactsync/internal/config"
	"github.com/centime/contactsync/internal/credentials"
)

// good is an environment that suits every program.
func good(more ...string) []string {
	return append([]string{
		"HOME=/nowhere", "DATABASE_URL=postgres://u:hunter2@h/db?sslmode=disable", "REDIS_URL=redis://:hunter2@h:6379/3",
		"CREDENTIALS_KEY=" + credentials.NewKey(),
	}, more...)
}

// All problems come at once, a line each with what to set, and no secret is repeated.
func TestAllProblemsInOneMessage(t *testing.T) {
	t.Parallel()
	_, err := config.ForWorker([]string{
		"DATABASE_URL=postgres://u:hunter2@h/db", "REDIS_URL=http://:hunter2@x", "CREDENTIALS_KEY=k:c2hvcnQ=",
		"QUICKBOOKS_CLIENT_SECRET=hunter2", "WORKER_CONCURRENCY=many", "LEASE=soon", "STEP=0s", "TICK=1ms",
		"METRICS_ADDR=9464", "LOG_LEVEL=hunter2",
	})
	if err == nil {
		t.Fatal("taken")
	}
	lines := strings.Split(err.Error(), "\n")[1:]
	if len(lines) != 10 {
		t.Errorf("%d lines for 10 problems", len(lines))
	}
	for name, example := range map[string]string{
		"DATABASE_URL": "?sslmode=verify-full", "REDIS_URL": "redis://user:password@host:6379/0",
		"CREDENTIALS_KEY": "`syncctl key new`", "QUICKBOOKS_CLIENT_ID": "developer.intuit.com", "WORKER_CONCURRENCY": "8",
		"LEASE": "30s", "STEP": "1m", "TICK": "2s", "METRICS_ADDR": "127.0.0.1:9464", "LOG_LEVEL": "info",
	} {
		found := 0
		for _, line := range lines {
			if strings.HasPrefix(line, "  "+name+" ") || strings.HasPrefix(line, "  "+name+":") {
				found++
				if !strings.Contains(line, example) {
					t.Errorf("no example %q in %q", example, line)
				}
			}
		}
		if found != 1 {
			t.Errorf("%s has %d lines in:\n%v", name, found, err)
		}
	}
	if strings.Contains(err.Error(), "hunter2") || strings.Contains(err.Error(), "c2hvcnQ") {
		t.Errorf("a secret is repeated:\n%v", err)
	}
}

// Each program asks for what it needs and no more.
func TestWhatIsNeeded(t *testing.T) {
	t.Parallel()
	for name, program := range map[string]struct {
		read  func([]string) (config.Config, error)
		needs string
	}{
		"worker":    {config.ForWorker, "CREDENTIALS_KEY DATABASE_URL REDIS_URL"},
		"scheduler": {config.ForScheduler, "DATABASE_URL REDIS_URL"},
		"syncctl":   {config.ForSyncctl, ""},
	} {
		for _, variable := range []string{"DATABASE_URL", "REDIS_URL", "CREDENTIALS_KEY"} {
			// A variable that is empty is one that is not set.
			_, err := program.read([]string{"DATABASE_URL=", "REDIS_URL=", "CREDENTIALS_KEY="})
			said := err != nil && strings.Contains(err.Error(), variable+" is not set")
			if said != strings.Contains(program.needs, variable) {
				t.Errorf("%s without %s: %v", name, variable, err)
			}
		}
		if _, err := program.read(good()); err != nil {
			t.Errorf("%s: %v", name, err)
		}
	}

	c, err := config.ForSyncctl([]string{"DATABASE_URL=postgres://h/db?sslmode=disable"})
	if err != nil {
		t.Fatal(err)
	}
	if err := c.Need("DATABASE_URL"); err != nil {
		t.Error(err)
	}
	err = c.Need("DATABASE_URL", "REDIS_URL", "CREDENTIALS_KEY")
	if err == nil || strings.Contains(err.Error(), "DATABASE_URL is") ||
		!strings.Contains(err.Error(), "REDIS_URL is not set") ||
		!strings.Contains(err.Error(), "CREDENTIALS_KEY is not set: set it to what `syncctl key new` prints") {
		t.Errorf("%v", err)
	}
}

func TestDefaults(t *testing.T) {
	t.Parallel()
	c, err := config.ForWorker(good())
	if err != nil {
		t.Fatal(err)
	}
	if c.MigrationsURL != c.DatabaseURL || c.WorkerConcurrency != 8 || c.Ring == nil || c.Lease != 30*time.Second ||
		c.Step != time.Minute || c.LogLevel != slog.LevelInfo || c.MetricsAddr != "" {
		t.Errorf("%+v", c)
	}
	const owner = "postgresql://owner@h/db?sslmode=verify-full"
	c, err = config.ForWorker(good("MIGRATIONS_DATABASE_URL="+owner, "LOG_LEVEL=debug",
		"METRICS_ADDR=:9464", "LEASE=2s", "STEP=1s", "TICK=100ms", "QUICKBOOKS_CLIENT_ID=i", "QUICKBOOKS_CLIENT_SECRET=s"))
	if err != nil || string(c.MigrationsURL) != owner || c.LogLevel != slog.LevelDebug ||
		c.Lease != 2*time.Second || c.Tick != 100*time.Millisecond || c.QuickBooksClientID != "i" {
		t.Errorf("%+v, %v", c, err)
	}
}

func TestOneProblem(t *testing.T) {
	t.Parallel()
	for line, want := range map[string]string{
		"DATABASE_URL=mysql://h/db":                        "DATABASE_URL is not a Postgres URL",
		"DATABASE_URL=host=h dbname=db sslmode=disable":    "DATABASE_URL is not a Postgres URL",
		"DATABASE_URL=postgres://u:hunter2@h/db\x00":       "DATABASE_URL is not a Postgres URL",
		"DATABASE_URL=postgres://h/db?sslmode=off":         "DATABASE_URL has an unknown sslmode",
		"MIGRATIONS_DATABASE_URL=postgres://h/db":          "MIGRATIONS_DATABASE_URL does not say sslmode",
		"REDIS_URL=localhost:6379":                         "REDIS_URL is not a Redis URL",
		"REDIS_URL=redis://h/first":                        "REDIS_URL is not a Redis URL",
		"REDIS_URL=redis-sentinel://:hunter2@h,i/0":        "REDIS_URL names Sentinels, but it does not name the master",
		"CREDENTIALS_KEY=" + strings.Repeat("c2VjcmV0", 5): "CREDENTIALS_KEY: entry 1 is not",
		"QUICKBOOKS_CLIENT_ID=i":                           "belong together",
		"WORKER_CONCURRENCY=0":                             "WORKER_CONCURRENCY is a number from 1 to 1000",
		"WORKER_CONCURRENCY=1001":                          "WORKER_CONCURRENCY is a number from 1 to 1000",
		"LEASE=1999ms":                                     "LEASE is a duration of 2s or longer",
		"STEP=999ms":                                       "STEP is a duration of 1s or longer",
		"TICK=-1s":                                         "TICK is a duration of 100ms or longer",
		"TICK=5":                                           "TICK is a duration",
		"METRICS_ADDR=localhost:http":                      "METRICS_ADDR is host:port",
		"LOG_LEVEL=verbose":                                "LOG_LEVEL is debug, info, warn or error",
	} {
		_, err := config.ForWorker(good(line))
		if err == nil || !strings.Contains(err.Error(), "\n  "+want) && !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %v, want %q", line, err, want)
			continue
		}
		if n := strings.Count(err.Error(), "\n"); n != 1 {
			t.Errorf("%s: %d lines:\n%v", line, n, err)
		}
		if strings.Contains(err.Error(), "hunter2") || strings.Contains(err.Error(), "c2VjcmV0") {
			t.Errorf("a secret is repeated: %v", err)
		}
	}
}

// Secrets stay secret, however the configuration is printed.
func TestSecretsAreNotPrinted(t *testing.T) {
	t.Parallel()
	environ := good("QUICKBOOKS_CLIENT_ID=i", "QUICKBOOKS_CLIENT_SECRET=hunter2")
	c, err := config.ForWorker(environ)
	if err != nil {
		t.Fatal(err)
	}
	if string(c.QuickBooksSecret) != "hunter2" {
		t.Error("the secret cannot be read")
	}
	var out bytes.Buffer
	for _, verb := range []string{"%v", "%+v", "%#v", "%s", "%q", "%x", "%d", "%t", "%08.3f"} {
		fmt.Fprintf(&out, verb+" "+verb+"\n", c, &c)
	}
	for _, h := range []slog.Handler{slog.NewTextHandler(&out, nil), slog.NewJSONHandler(&out, nil)} {
		slog.New(h).Info("starting", "config", c, "secret", c.DatabaseURL)
	}
	if err := json.NewEncoder(&out).Encode(c); err != nil {
		t.Fatal(err)
	}
	key := environ[3][len(environ[3])-20:]
	for _, secret := range []string{"hunter2", fmt.Sprintf("%x", "hunter2"), key} {
		if strings.Contains(out.String(), secret) {
			t.Errorf("%q is printed:\n%s", secret, out.String())
		}
	}
}

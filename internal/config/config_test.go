package config_test

import (
	"encoding/json"
	"fmt"
	"strings"
	"testing"

	"github.com/centime/contactsync/internal/config"
	"github.com/centime/contactsync/internal/credentials"
)

func TestAllProblemsInOneMessage(t *testing.T) {
	t.Parallel()
	_, err := config.ForWorker([]string{
		"DATABASE_URL=postgres://u:hunter2@h/db", "REDIS_URL=http://x", "CREDENTIALS_KEY=k:c2hvcnQ=", "QUICKBOOKS_CLIENT_ID=x", "WORKER_CONCURRENCY=many",
		"LEASE=soon", "METRICS_ADDR=9464",
	})
	if err == nil {
		t.Fatal("taken")
	}
	for _, want := range []string{"sslmode", "REDIS_URL", "CREDENTIALS_KEY", "QUICKBOOKS_CLIENT_SECRET", "WORKER_CONCURRENCY", "LEASE", "METRICS_ADDR"} {
		if !strings.Contains(err.Error(), want) {
			t.Errorf("%s is not named in:\n%v", want, err)
		}
	}
	if strings.Contains(err.Error(), "hunter2") || strings.Contains(err.Error(), "c2hvcnQ") {
		t.Errorf("a secret is repeated:\n%v", err)
	}
	_, err = config.ForScheduler(nil)
	if err == nil || !strings.Contains(err.Error(), "DATABASE_URL is not set") || !strings.Contains(err.Error(), "REDIS_URL is not set") {
		t.Errorf("%v", err)
	}
}

func TestDefaultsAndSecrets(t *testing.T) {
	t.Parallel()
	key := credentials.NewKey()
	c, err := config.ForWorker([]string{"DATABASE_URL=postgres://u:hunter2@h/db?sslmode=disable", "REDIS_URL=redis://:hunter2@h", "CREDENTIALS_KEY=" + key})
	if err != nil {
		t.Fatal(err)
	}
	if c.MigrationsURL != c.DatabaseURL || c.WorkerConcurrency != 8 || c.Ring == nil {
		t.Errorf("%+v", c)
	}
	asJSON, err := json.Marshal(c)
	if err != nil {
		t.Fatal(err)
	}
	for _, s := range []string{fmt.Sprint(c), fmt.Sprintf("%+v %#v", c, c), string(asJSON)} {
		if strings.Contains(s, "hunter2") || strings.Contains(s, key[len(key)-20:]) {
			t.Errorf("a secret is printed: %s", s)
		}
	}
}

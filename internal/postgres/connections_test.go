package postgres_test

import (
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/centime/contactsync/internal/credentials"
	"github.com/centime/contactsync/internal/postgres"
	"github.com/centime/contactsync/internal/postgres/pgtest"
)

// TestManyConnectionsAtOnce: companies of one tenant that are connected at the same moment share its roles, and none of them
// is refused for waiting on another.
func TestManyConnectionsAtOnce(t *testing.T) {
	t.Parallel()
	dsn := pgtest.New(t)
	store, err := postgres.Open(dsn, 16)
	if err != nil {
		t.Fatal(err)
	}
	defer store.Close()
	tenant, err := store.AddTenant(t.Context(), "Kelp", "UTC")
	if err != nil {
		t.Fatal(err)
	}
	var all sync.WaitGroup
	for i := range 48 {
		all.Go(func() {
			_, err := store.AddConnection(t.Context(), postgres.NewConnection{
				Tenant: tenant, ERP: "quickbooks-online", Account: strconv.Itoa(i), Name: strconv.Itoa(i), Schedule: "@every 1h",
				Seal: func(int64) (credentials.Stored, error) {
					return credentials.Stored{KeyID: "k", Box: []byte("box")}, nil
				},
			}, postgres.By{User: "ops"})
			if err != nil {
				t.Error(err)
			}
		})
	}
	all.Wait()
	if got := pgtest.Value(t, dsn, `SELECT count(*) || ' ' || count(DISTINCT role_id) FROM contactsync.role_mappings`); got != "48 1" {
		t.Errorf("mappings and their roles: %s", got)
	}
}

// TestFullRunsKeepTheirHour: a run begins a little after it was due, and so does the full run of the next day: every day with a daily schedule,
// not every other; and no sooner than that with an hourly one.
func TestFullRunsKeepTheirHour(t *testing.T) {
	t.Parallel()
	began := time.Date(2026, 3, 2, 6, 0, 40, 0, time.UTC) // due at six
	at := func(d time.Duration) time.Time { return began.Add(d - 35*time.Second) }
	for name, c := range map[string]struct {
		every, passed, interval time.Duration
		want                    bool
	}{
		"Daily":       {24 * time.Hour, 24 * time.Hour, 24 * time.Hour, true},
		"HourBefore":  {24 * time.Hour, 23 * time.Hour, time.Hour, false},
		"Hourly":      {24 * time.Hour, 24 * time.Hour, time.Hour, true},
		"TwiceADay":   {24 * time.Hour, 12 * time.Hour, 12 * time.Hour, false},
		"EveryHour":   {time.Hour, time.Hour, time.Hour, true},
		"EverySeven":  {24 * time.Hour, 21 * time.Hour, 7 * time.Hour, false},
		"Overdue":     {24 * time.Hour, 28 * time.Hour, 7 * time.Hour, true},
		"EveryMinute": {time.Hour, 50 * time.Minute, time.Minute, false},
	} {
		now := at(c.passed)
		following := at(c.passed + c.interval)
		if got := postgres.FullNow(began, c.every, now, &following); got != c.want {
			t.Errorf("%s: full is %v, want %v", name, got, c.want)
		}
	}
}

// TestTimeZonesArePostgresToo: by a zone that only Go knows, the views would fail for every tenant that is read with this one.
func TestTimeZonesArePostgresToo(t *testing.T) {
	t.Parallel()
	dsn := pgtest.New(t)
	store, err := postgres.Open(dsn, 1)
	if err != nil {
		t.Fatal(err)
	}
	defer store.Close()
	for zone, known := range map[string]bool{"": false, "Local": false, "Moon/Base": false, "UTC": true, "America/New_York": true} {
		_, err := store.AddTenant(t.Context(), "tenant of "+zone, zone)
		if (err == nil) != known || err != nil && !strings.Contains(err.Error(), "use a name such as America/New_York") {
			t.Errorf("zone %q: %v", zone, err)
		}
	}
}

// TestRemovedStaysRemoved: who resumes a connection, or gives it a login, while somebody else removes it, is told so; its mail does not begin again.
func TestRemovedStaysRemoved(t *testing.T) {
	t.Parallel()
	dsn := pgtest.New(t)
	pgtest.Exec(t, dsn, benchConnection)
	store, err := postgres.Open(dsn, 1)
	if err != nil {
		t.Fatal(err)
	}
	defer store.Close()
	c, err := store.FindConnection(t.Context(), "Kelp")
	if err != nil {
		t.Fatal(err)
	}
	ops := postgres.By{User: "ops"}
	if err := store.SetState(t.Context(), c, "removed", ops); err != nil {
		t.Fatal(err)
	}
	_, err = store.SetCredentials(t.Context(), c, credentials.Stored{KeyID: "k", Box: []byte("box")}, true, ops)
	for what, err := range map[string]error{
		"active": store.SetState(t.Context(), c, "active", ops), "paused": store.SetState(t.Context(), c, "paused", ops), "credentials": err,
	} {
		if err == nil || !strings.Contains(err.Error(), "it was removed meanwhile") {
			t.Errorf("%s: %v", what, err)
		}
	}
	if got := pgtest.Value(t, dsn, `SELECT state || ' ' || (SELECT count(*) FROM contactsync.credentials) FROM contactsync.connections`); got != "removed 0" {
		t.Errorf("it is %s", got)
	}
}

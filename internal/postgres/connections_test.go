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
	tenant, err := store.AddTenant(t.Context(), "Kelp", "UTC", postgres.By{User: "ops"})
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
		_, err := store.AddTenant(t.Context(), "tenant of "+zone, zone, postgres.By{User: "ops"})
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

// TestSetLeavesWhatOthersSet: of two people who change different things of a connection at once, neither takes back what the other did.
func TestSetLeavesWhatOthersSet(t *testing.T) {
	t.Parallel()
	dsn := pgtest.New(t)
	pgtest.Exec(t, dsn, benchConnection)
	store, err := postgres.Open(dsn, 1)
	if err != nil {
		t.Fatal(err)
	}
	defer store.Close()
	seen, err := store.FindConnection(t.Context(), "Kelp")
	if err != nil {
		t.Fatal(err)
	}
	off := false
	for _, to := range []postgres.Settable{{AutoSync: &off}, {Settings: []string{"brake_percent=10"}}, {Settings: []string{"brake_min=7"}}} {
		if err := store.Set(t.Context(), seen, to, postgres.By{User: "ann"}); err != nil {
			t.Fatal(err)
		}
	}
	if got := pgtest.Value(t, dsn, `SELECT auto_sync || ' ' || (settings->>'brake_percent') || ' ' || (settings->>'brake_min') || ' ' || (next_due_at IS NULL)
		FROM contactsync.connections`); got != "false 10 7 true" {
		t.Errorf("it is %s", got)
	}
	if got := pgtest.Value(t, dsn, `SELECT string_agg(field, ' ' ORDER BY id) FROM contactsync.history`); got != "auto_sync brake_percent brake_min" {
		t.Errorf("the history tells %s", got)
	}
}

// TestConnectingWithoutRoomForRoles: a tenant that has all the roles it may have connects an ERP all the same, since its login was renewed by then;
// who made the connection and its roles, and why, is kept.
func TestConnectingWithoutRoomForRoles(t *testing.T) {
	t.Parallel()
	for roles, want := range map[int]string{30: "30 0 connection", 29: "30 1 connection role"} {
		t.Run(strconv.Itoa(roles), func(t *testing.T) {
			t.Parallel()
			dsn := pgtest.New(t)
			store, err := postgres.Open(dsn, 1)
			if err != nil {
				t.Fatal(err)
			}
			defer store.Close()
			tenant, err := store.AddTenant(t.Context(), "Kelp", "UTC", postgres.By{User: "ops"})
			if err != nil {
				t.Fatal(err)
			}
			pgtest.Exec(t, dsn, `INSERT INTO contactsync.roles (tenant_id, name) SELECT 1, 'role ' || n FROM generate_series(1, `+strconv.Itoa(roles)+`) n`)
			_, err = store.AddConnection(t.Context(), postgres.NewConnection{
				Tenant: tenant, ERP: "quickbooks-online", Account: "1", Name: "Books", Schedule: "@every 1h",
				Seal: func(int64) (credentials.Stored, error) {
					return credentials.Stored{KeyID: "k", Box: []byte("box")}, nil
				},
			}, postgres.By{User: "ann", Reason: "ticket 9"})
			if err != nil {
				t.Fatal(err)
			}
			if got := pgtest.Value(t, dsn, `SELECT (SELECT role_count FROM contactsync.tenants) || ' ' || (SELECT count(*) FROM contactsync.role_mappings)
				|| ' ' || (SELECT string_agg(entity, ' ' ORDER BY entity) FROM contactsync.history WHERE field = 'created' AND by_user = 'ann' AND reason = 'ticket 9')`); got != want {
				t.Errorf("roles, mappings and what was told: %s, want %s", got, want)
			}
		})
	}
}

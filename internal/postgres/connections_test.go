package postgres_test

import (
	"strconv"
	"sync"
	"testing"

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

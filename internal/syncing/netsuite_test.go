package syncing_test

import (
	"errors"
	"log/slog"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/centime/contactsync/connectors/netsuite"
	"github.com/centime/contactsync/internal/connector"
	"github.com/centime/contactsync/internal/credentials"
	"github.com/centime/contactsync/internal/erpsim"
	sim "github.com/centime/contactsync/internal/erpsim/netsuite"
	"github.com/centime/contactsync/internal/postgres"
	"github.com/centime/contactsync/internal/postgres/pgtest"
	"github.com/centime/contactsync/internal/settings"
	"github.com/centime/contactsync/internal/syncing"
)

// netSuiteWorld is a tenant connected to a simulated NetSuite.
type netSuiteWorld struct {
	*world
	sim     *sim.Sim
	account *sim.Account
	url     string
	role    string
}

func setupNetSuite(t *testing.T) *netSuiteWorld {
	t.Helper()
	t.Parallel()
	far := sim.New(sim.Options{})
	server := httptest.NewServer(far)
	t.Cleanup(server.Close)
	n := &netSuiteWorld{
		world: &world{t: t, ctx: t.Context(), dsn: pgtest.New(t)}, sim: far, account: far.AddAccount("1234567", "Kelp"), url: server.URL,
	}
	n.role = n.account.AddRole("Bookkeeping")
	var err error
	if n.store, err = postgres.Open(n.dsn, 8); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = n.store.Close() })
	ring, err := credentials.ParseRing(credentials.NewKey())
	if err != nil {
		t.Fatal(err)
	}
	n.worker = &syncing.Worker{
		Store: n.store, Connectors: map[string]connector.Connector{netsuite.Name: netsuite.New()}, Ring: ring,
		Log: slog.New(slog.NewTextHandler(t.Output(), nil)), Lease: 20 * time.Second, Step: time.Minute, Draining: make(chan struct{}),
		Backoff: func(int) time.Duration { return 0 },
	}
	if n.tenant, err = n.store.AddTenant(n.ctx, "Kelp", "UTC"); err != nil {
		t.Fatal(err)
	}
	added, err := n.store.AddConnection(n.ctx, postgres.NewConnection{
		Tenant: n.tenant, ERP: netsuite.Name, Account: "1234567", Name: "Kelp", Schedule: "@every 1h", Settings: settings.Map{"api_url": n.url},
		Seal: n.seal,
	}, ops)
	if err != nil {
		t.Fatal(err)
	}
	n.connection = added.Connection
	return n
}

func (n *netSuiteWorld) place(id int64) credentials.Place {
	return credentials.Place{Table: "credentials", Tenant: n.tenant, Connection: id}
}

// seal packs a login set up anew.
func (n *netSuiteWorld) seal(id int64) (credentials.Stored, error) {
	c := n.account.Connect()
	return n.worker.Ring.Pack(connector.Credentials{ClientID: c.ClientID, CertificateID: c.CertificateID, PrivateKey: c.PrivateKey}, n.place(id))
}

func (n *netSuiteWorld) must(err error) {
	n.t.Helper()
	if err != nil {
		n.t.Fatal(err)
	}
}

// failedLogins are refused assertions and refused tokens.
func (n *netSuiteWorld) failedLogins() int {
	refused := n.sim.Log().Requests(func(r erpsim.Request) bool { return r.Op != sim.Token && r.Status == 401 })
	return n.account.Logins().Failed + len(refused)
}

func (n *netSuiteWorld) value(query string) string {
	n.t.Helper()
	return pgtest.Value(n.t, n.dsn, query)
}

// TestRefusedLoginIsNotRepeated: five refused logins lock a NetSuite user, so after a refusal nobody logs in again: not the
// schedule, not a run that was queued or is asked for, not another worker. A person's `resume` tries once more, and new
// credentials heal the connection.
func TestRefusedLoginIsNotRepeated(t *testing.T) {
	t.Parallel()
	for name, refuse := range map[string]func(*netSuiteWorld){
		"Certificate": func(n *netSuiteWorld) { n.account.Revoke() },
		"Integration": func(n *netSuiteWorld) { n.account.Disable(true); n.account.ExpireAccess() },
		"Request": func(n *netSuiteWorld) {
			n.account.Fail(erpsim.Rule{Times: erpsim.Forever}, sim.Fault{Kind: sim.InvalidLogin})
		},
	} {
		t.Run(name, func(t *testing.T) {
			n := setupNetSuite(t)
			_, err := n.account.JoinCustomer(sim.Customer{CompanyName: "Kelp"})
			n.must(err)
			n.work()
			refuse(n)
			before, asked := n.failedLogins(), len(n.sim.Log().Requests(nil))
			for _, mode := range []postgres.Mode{postgres.Incremental, postgres.Full, postgres.Incremental, postgres.Full} {
				if r := n.sync(mode); r.Status != "failed" || *r.ErrorKind != "denied" {
					t.Fatalf("run %s", r.Status)
				}
			}
			if failed, sent := n.failedLogins()-before, len(n.sim.Log().Requests(nil))-asked; failed > 2 || sent > 4 {
				t.Errorf("%d failed logins and %d requests of four runs", failed, sent)
			}
			if got := n.value(`SELECT state || ' ' || coalesce(next_due_at::text, 'never') FROM contactsync.connections`); got != "needs_attention never" {
				t.Errorf("the connection is %s", got)
			}
			if reason := n.value(`SELECT state_reason FROM contactsync.connections`); !strings.Contains(reason, "refused at") {
				t.Errorf("the reason is %q", reason)
			}
			if _, err := n.store.QueueDue(n.ctx, 10, postgres.Savings{}); err != nil || n.value(`SELECT count(*) FROM contactsync.runs WHERE status = 'queued'`) != "0" {
				t.Error("the schedule tries again")
			}

			c, err := n.store.FindConnection(n.ctx, "Kelp")
			n.must(err)
			n.must(n.store.SetState(n.ctx, c, "active", ops))
			before = n.failedLogins()
			n.sync(postgres.Incremental)
			n.sync(postgres.Incremental)
			if failed := n.failedLogins() - before; failed == 0 || failed > 2 { // the token it had, and a new one
				t.Errorf("resumed, it makes %d failed logins", failed)
			}

			n.account.Disable(false)
			n.sim.ClearFaults("")
			sealed, err := n.seal(n.connection)
			n.must(err)
			n.must(n.store.SetCredentials(n.ctx, c, sealed, ops))
			n.mustSync(postgres.Incremental)
			if got := n.value(`SELECT state || ' ' || (next_due_at > now()) FROM contactsync.connections`); got != "active true" {
				t.Errorf("with new credentials the connection is %s", got)
			}
			if n.account.Logins().Locks > 0 {
				t.Error("the user was locked")
			}
		})
	}
}

// TestOneOfManyIsRefused: processes that want a token at once make one failed login together, since it is remembered before the
// lock of the credentials is given up.
func TestOneOfManyIsRefused(t *testing.T) {
	n := setupNetSuite(t)
	n.account.Revoke()
	account := connector.Account{ID: "1234567", APIURL: n.url}
	var wg sync.WaitGroup
	for range 8 {
		tokens := credentials.NewTokenSource(n.worker.Ring, n.store.Vault(n.tenant, n.connection), n.place(n.connection),
			netsuite.New(), account)
		wg.Go(func() {
			_, err := tokens.Token(n.ctx)
			if e, ok := errors.AsType[*connector.Error](err); !ok || !e.NoTrial {
				t.Errorf("%v", err)
			}
		})
	}
	wg.Wait()
	if n.failedLogins() != 1 {
		t.Errorf("%d failed logins", n.failedLogins())
	}

	// Connected again, it is due again.
	n.value(`UPDATE contactsync.connections SET next_due_at = NULL RETURNING id`)
	_, err := n.store.AddConnection(n.ctx, postgres.NewConnection{
		Tenant: n.tenant, ERP: netsuite.Name, Account: "1234567", Name: "Kelp", Schedule: "@every 1h", Settings: settings.Map{"api_url": n.url},
		Seal: n.seal,
	}, ops)
	n.must(err)
	if n.value(`SELECT next_due_at IS NOT NULL FROM contactsync.connections`) != "true" {
		t.Error("connected again, it is never due")
	}
}

// TestRefusalsOfCompaniesPauseNoERP: many companies whose logins are refused are their own affair. The other connections' schedule
// goes on, and none of the refused ones is made active and tried again.
func TestRefusalsOfCompaniesPauseNoERP(t *testing.T) {
	n := setupNetSuite(t)
	n.account.Revoke()
	n.sync(postgres.Incremental)
	n.value(`WITH more AS (
			INSERT INTO contactsync.connections (tenant_id, erp, account, name, schedule, settings, state, stale_at)
			SELECT tenant_id, erp, 'A' || i, 'C' || i, schedule, settings, 'needs_attention', now() FROM contactsync.connections, generate_series(1, 6) i
			RETURNING tenant_id, id), login AS (
			INSERT INTO contactsync.credentials (tenant_id, connection_id, key_id, box, refused_at)
			SELECT tenant_id, id, 'k', 'x', now() FROM more), failed AS (
			INSERT INTO contactsync.runs (tenant_id, connection_id, mode, trigger, requested_by, reason, status, started_at, finished_at, error_kind)
			SELECT tenant_id, id, 'full', 'schedule', 'schedule', '', 'failed', now(), now(), 'denied' FROM more)
		SELECT count(*) FROM more`)
	opened, _, err := n.store.WatchERPs(n.ctx, time.Minute)
	n.must(err)
	if len(opened) > 0 {
		t.Errorf("paused: %+v", opened)
	}
	if got := n.value(`SELECT count(*) FROM contactsync.connections WHERE state = 'needs_attention'`); got != "7" {
		t.Errorf("%s of 7 need attention", got)
	}
}

// TestNetSuiteRoles: the primary contact has its role from the first day, whatever it is called; a role of the account's own gets
// one that starts no mail; a disagreement is an issue while it lasts.
func TestNetSuiteRoles(t *testing.T) {
	n := setupNetSuite(t)
	n.must(n.account.EditRole(sim.Primary, func(r *sim.Role) { r.Name = "Hauptkontakt" }))
	kelp, err := n.account.JoinCustomer(sim.Customer{CompanyName: "Kelp", Email: "office@kelp.example"})
	n.must(err)
	var people []string
	for i, role := range []string{sim.Primary, n.role, sim.Primary} {
		id, err := n.account.JoinContact(sim.Contact{FirstName: "Ann", LastName: string(rune('A' + i)), Email: string(rune('a'+i)) + "@kelp.example"})
		n.must(err)
		n.must(n.account.Attach(kelp, id, role))
		people = append(people, id)
	}
	vendor := n.account.JoinOther("Rope & Co")
	for _, id := range people[:2] {
		n.must(n.account.Attach(vendor, id, sim.Primary)) // a disagreement at a vendor is none of ours
	}
	n.work()
	got := map[string]string{}
	for _, c := range n.list(postgres.Contacts) {
		got[c["contact_erp_id"]] = c["erp_role"] + ", " + c["role"] + ", " + c["invoice_presentment"] + ", " + c["communication_contact"]
	}
	for id, want := range map[string]string{
		people[0]:          "Hauptkontakt, Primary Contact, false, true",
		people[1]:          "Bookkeeping, Bookkeeping (NetSuite), false, false",
		people[2]:          "Hauptkontakt, Primary Contact, false, true",
		"customer:" + kelp: "Company Contact, Company Contact, false, true",
	} {
		if got[id] != want {
			t.Errorf("contact %s is %q, want %q", id, got[id], want)
		}
	}
	issues := func() string {
		return n.value(`SELECT coalesce(string_agg(record_id || ' ' || reason, ', '), '') FROM contactsync.issues WHERE closed_at IS NULL`)
	}
	if want := kelp + "/" + people[2] + " two_primary_contacts"; issues() != want {
		t.Errorf("issues are %q, want %q", issues(), want)
	}
	n.must(n.account.Attach(kelp, people[2], n.role))
	n.mustSync(postgres.Incremental)
	if issues() != "" {
		t.Errorf("issues are %q", issues())
	}
}

// TestNarrowedNetSuiteHolds: what the role does not see any more is not gone. A table stops the run; rows that are hidden without
// a word meet the brake, and a lost permission makes it hold whatever their number.
func TestNarrowedNetSuiteHolds(t *testing.T) {
	n := setupNetSuite(t)
	for i := range 40 {
		subsidiary := "1"
		if i < 3 {
			subsidiary = "2"
		}
		_, err := n.account.JoinCustomer(sim.Customer{CompanyName: "Kelp", Email: "o@kelp.example", Subsidiary: subsidiary})
		n.must(err)
	}
	n.work()
	active := func() string { return n.value(`SELECT count(*) FROM contactsync.customers WHERE active`) }
	n.account.Deny("contact")
	if r := n.sync(postgres.Full); r.Status != "failed" || *r.ErrorKind != "denied" || active() != "40" {
		t.Errorf("run %s, %s active", r.Status, active())
	}
	if reason := n.value(`SELECT state_reason FROM contactsync.connections`); !strings.Contains(reason, "permission Contacts (tab Lists, level View)") {
		t.Errorf("the reason is %q", reason)
	}
	if n.value(`SELECT next_due_at > now() FROM contactsync.connections`) != "true" {
		t.Error("a missing permission is not tried again the next day")
	}
	n.account.Allow("contact")
	n.mustSync(postgres.Full)

	n.account.Restrict("1")
	n.account.Deny("deletedrecord")
	if r := n.mustSync(postgres.Full); r.Held != 3 || active() != "40" {
		t.Errorf("%d held, %s active", r.Held, active())
	}
	n.account.Restrict()
	n.account.Allow("deletedrecord")
	if r := n.mustSync(postgres.Full); r.Held != 0 || r.Gone != 0 {
		t.Errorf("given back, %d held", r.Held)
	}
	n.account.Restrict("2")
	if r := n.mustSync(postgres.Full); r.Held != 37 || active() != "40" {
		t.Errorf("%d held, %s active", r.Held, active())
	}
}

// TestMaintenanceIsCaughtUp: hours of HTML leave the connection active, and the next run brings what happened meanwhile.
func TestMaintenanceIsCaughtUp(t *testing.T) {
	n := setupNetSuite(t)
	id, err := n.account.JoinCustomer(sim.Customer{CompanyName: "Kelp", Email: "before@kelp.example"})
	n.must(err)
	n.work()
	n.sim.Fail(erpsim.Rule{Times: erpsim.Forever}, sim.Fault{Kind: sim.HTML503})
	n.sim.Fail(erpsim.Rule{Op: sim.Token, Times: erpsim.Forever}, sim.Fault{Kind: sim.HTML503})
	n.must(n.account.EditCustomer(id, func(c *sim.Customer) { c.Email = "after@kelp.example" }))
	if r := n.sync(postgres.Incremental); r.Status != "failed" || *r.ErrorKind != "transient" {
		t.Errorf("run %s", r.Status)
	}
	if got := n.value(`SELECT state FROM contactsync.connections`); got != "active" {
		t.Errorf("the connection is %s", got)
	}
	n.sim.ClearFaults("")
	n.mustSync(postgres.Incremental)
	if got := n.value(`SELECT value FROM contactsync.contact_points`); got != "after@kelp.example" {
		t.Errorf("the address is %s", got)
	}
}

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
	if n.tenant, err = n.store.AddTenant(n.ctx, "Kelp", "UTC", ops); err != nil {
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
			_, err = n.store.SetCredentials(n.ctx, c, sealed, true, ops)
			n.must(err)
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

// moved is a NetSuite of 20 old customers, the first of which many people say by their own record that they are at, and another
// customer that it is merged into. The merge gives nobody a new date of change.
func (n *netSuiteWorld) moved(people int, rows, logged bool) (from, to string) {
	n.t.Helper()
	old := time.Now().Add(-72 * time.Hour)
	ids := make([]string, 20)
	for i := range ids {
		var err error
		ids[i], err = n.account.JoinCustomer(sim.Customer{CompanyName: "Kelp", CreatedAt: old, ModifiedAt: old})
		n.must(err)
	}
	from, to = ids[0], ids[1]
	for i := range people {
		at := from
		if i == 0 { // stays, so that the relations are never an empty listing
			at = ids[2]
		}
		id, err := n.account.JoinContact(sim.Contact{FirstName: "Ann", Company: at, CreatedAt: old, ModifiedAt: old})
		n.must(err)
		if rows || i == 0 {
			n.must(n.account.Attach(at, id, n.role))
		}
	}
	n.work()
	n.must(n.account.MergeCustomers(from, to, logged))
	return from, to
}

// detachAll takes away the rows of everybody's place at a customer.
func (n *netSuiteWorld) detachAll(customer string) {
	n.t.Helper()
	for _, l := range n.account.Links() {
		if l.Company == customer {
			n.must(n.account.Detach(customer, l.Contact))
		}
	}
}

// places are the active places of people at a customer.
func (n *netSuiteWorld) places(customer string) string {
	n.t.Helper()
	return n.value(`SELECT count(*) FROM contact_directory WHERE active AND contact_erp_id NOT LIKE 'customer:%' AND customer_erp_id = '` + customer + `'`)
}

// TestMergeMovesItsPeople: no invoice goes astray after two customers were merged. Who was at the one is at the other as soon as the
// one is found deleted, although nothing dates the change of their records (whether NetSuite does is unverified).
func TestMergeMovesItsPeople(t *testing.T) {
	n := setupNetSuite(t)
	from, to := n.moved(4, false, true)
	preview := n.preview(postgres.Incremental)
	if r := n.mustSync(postgres.Incremental); n.places(from) != "0" || n.places(to) != "3" {
		t.Errorf("run %d: %s places at the lost customer and %s at the survivor, want 0 and 3", r.ID, n.places(from), n.places(to))
	}
	if said := strings.Join(n.said(preview.ID), " "); strings.Count(said, "customer_contact,"+to) != 3 {
		t.Errorf("the preview says %s", said)
	}
}

// TestPlaceGoesOnlyIfItsContactAgrees: a place whose row is gone stays where the contact's record still states it, read or not.
func TestPlaceGoesOnlyIfItsContactAgrees(t *testing.T) {
	n := setupNetSuite(t)
	from, to := n.moved(2, true, false)
	n.mustSync(postgres.Incremental) // learns of the place at the survivor by its row
	n.detachAll(to)
	lookUps := func() int {
		return len(n.sim.Log().Requests(func(r erpsim.Request) bool { return strings.Contains(r.Statement, "k.id IN (") }))
	}
	before := lookUps()
	if n.mustSync(postgres.Incremental); n.places(from) != "0" || n.places(to) != "1" {
		t.Errorf("%s places at the lost customer and %s at the survivor, want 0 and 1", n.places(from), n.places(to))
	}
	if asked := lookUps() - before; asked != 1 {
		t.Errorf("%d look-ups, want 1", asked)
	}
}

// TestPlaceOfAnUnreadableContactStays: a place whose row is gone stays as long as the contact's record cannot be read, since it may
// state the place. Once it can be read, what it says holds.
func TestPlaceOfAnUnreadableContactStays(t *testing.T) {
	n := setupNetSuite(t)
	kelp, err := n.account.JoinCustomer(sim.Customer{CompanyName: "Kelp"})
	n.must(err)
	var people []string
	for range 2 { // one stays, so that the relations are never an empty listing
		id, err := n.account.JoinContact(sim.Contact{FirstName: "Ann"})
		n.must(err)
		n.must(n.account.Attach(kelp, id, n.role))
		people = append(people, id)
	}
	n.work()
	n.must(n.account.EditContact(people[0], func(c *sim.Contact) { c.Company = kelp }))
	n.must(n.account.Spoil("contact", people[0], "company", `"7x"`))
	n.must(n.account.Detach(kelp, people[0]))
	for _, mode := range []postgres.Mode{postgres.Incremental, postgres.Incremental, postgres.Full} {
		if r := n.mustSync(mode); n.places(kelp) != "2" || r.Gone != 0 {
			t.Errorf("%s run %d: %s places, %d gone", mode, r.ID, n.places(kelp), r.Gone)
		}
	}
	if r := n.refresh(kelp); n.places(kelp) != "2" || r.Gone != 0 {
		t.Errorf("refresh %d: %s places, %d gone", r.ID, n.places(kelp), r.Gone)
	}
	n.must(n.account.Heal("contact", people[0]))
	if n.mustSync(postgres.Incremental); n.places(kelp) != "2" {
		t.Errorf("read at last, %s places", n.places(kelp))
	}
	n.must(n.account.EditContact(people[0], func(c *sim.Contact) { c.Company = "" }))
	if r := n.mustSync(postgres.Incremental); n.places(kelp) != "1" || r.Gone != 1 {
		t.Errorf("%s places, %d gone", n.places(kelp), r.Gone)
	}
}

// annAtKelp is a customer with one contact, who has a role there by a row of its own, and read.
func (n *netSuiteWorld) annAtKelp() (kelp, ann string) {
	n.t.Helper()
	kelp, err := n.account.JoinCustomer(sim.Customer{CompanyName: "Kelp"})
	n.must(err)
	ann, err = n.account.JoinContact(sim.Contact{FirstName: "Ann"})
	n.must(err)
	n.must(n.account.Attach(kelp, ann, n.role))
	n.work()
	return kelp, ann
}

// TestRefreshWithANamelessRowLetsNobodyGo: a row at the customer whose ids cannot be read may be that of anybody who is there.
func TestRefreshWithANamelessRowLetsNobodyGo(t *testing.T) {
	n := setupNetSuite(t)
	kelp, ann := n.annAtKelp()
	n.must(n.account.Spoil("companycontactrelationship", connector.LinkID(kelp, ann), "contact", `"x"`))
	if r := n.refresh(kelp); n.places(kelp) != "1" || r.Gone != 0 {
		t.Errorf("%s places, %d gone", n.places(kelp), r.Gone)
	}
	n.must(n.account.Heal("companycontactrelationship", connector.LinkID(kelp, ann)))
	n.must(n.account.Detach(kelp, ann))
	if r := n.refresh(kelp); n.places(kelp) != "0" || r.Gone != 1 {
		t.Errorf("gone in the ERP, %s places, %d gone", n.places(kelp), r.Gone)
	}
}

// TestRefreshOfAnUnreadableCustomerLetsNobodyGo: with a customer whose record cannot be read no places come, and none of them went.
func TestRefreshOfAnUnreadableCustomerLetsNobodyGo(t *testing.T) {
	n := setupNetSuite(t)
	kelp, ann := n.annAtKelp()
	n.must(n.account.Spoil("customer", kelp, "isinactive", `"perhaps"`))
	if r := n.refresh(kelp); n.places(kelp) != "1" || r.Gone != 0 || r.Refused != 1 {
		t.Errorf("%s places, %+v", n.places(kelp), r)
	}
	n.must(n.account.Heal("customer", kelp))
	n.must(n.account.Detach(kelp, ann))
	if r := n.refresh(kelp); n.places(kelp) != "0" || r.Gone != 1 {
		t.Errorf("%s places, %+v", n.places(kelp), r)
	}
}

// TestApprovedPlaceGoesOnlyIfItsContactAgrees is the same of places that were held.
func TestApprovedPlaceGoesOnlyIfItsContactAgrees(t *testing.T) {
	n := setupNetSuite(t)
	_, to := n.moved(30, true, false)
	n.wantRun(postgres.Incremental, "29 lost their role where they were", 0, 29)
	n.detachAll(to)
	n.wantRun(postgres.Incremental, "29 detached as well", 0, 58)
	if r := n.approve(); r.Status != "succeeded" || r.Gone != 0 || n.places(to) != "29" {
		t.Errorf("the approval %s and deactivated %d, %s places left; want 29", r.Status, r.Gone, n.places(to))
	}
}

// TestApprovedMergeMovesItsPeople: a merge of so many that it was held moves them once it is approved.
func TestApprovedMergeMovesItsPeople(t *testing.T) {
	n := setupNetSuite(t)
	from, to := n.moved(30, false, true)
	n.wantRun(postgres.Incremental, "a customer of 29 missing", 0, 30)
	if r := n.approve(); r.Status != "succeeded" || n.places(from) != "0" || n.places(to) != "29" {
		t.Errorf("the approval %s: %s places at the lost customer and %s at the survivor, want 0 and 29", r.Status, n.places(from), n.places(to))
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

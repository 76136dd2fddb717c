package quickbooks_test

import (
	"bytes"
	"context"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"net/http/httptest"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/centime/contactsync/connectors/quickbooks"
	"github.com/centime/contactsync/internal/connector"
	"github.com/centime/contactsync/internal/contact"
	"github.com/centime/contactsync/internal/erpsim"
	"github.com/centime/contactsync/internal/erpsim/qbo"
)

const realm = "9130350000000001"

// far is a simulated company with a clock of its own, and what a Source of it needs.
type far struct {
	t       *testing.T
	sim     *qbo.Sim
	company *qbo.Company
	url     string
	tokens  *memoryTokens
}

// memoryTokens renews like the worker does, without a database.
type memoryTokens struct {
	erp connector.Connector
	url string

	mu      sync.Mutex
	login   connector.Credentials
	secrets []string
}

func (m *memoryTokens) Token(ctx context.Context) (string, error) {
	m.mu.Lock()
	token := m.login.AccessToken
	m.mu.Unlock()
	if token == "" {
		return m.Renewed(ctx, "")
	}
	return token, nil
}

func (m *memoryTokens) Renewed(ctx context.Context, _ string) (string, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.secrets = append(m.secrets, m.login.RefreshToken)
	renewed, err := m.erp.Renew(ctx, connector.Account{TokenURL: m.url}, m.login)
	if err != nil {
		return "", err
	}
	m.login = renewed
	m.secrets = append(m.secrets, renewed.RefreshToken, renewed.AccessToken)
	return renewed.AccessToken, nil
}

// given is every secret that was used.
func (m *memoryTokens) given() []string {
	m.mu.Lock()
	defer m.mu.Unlock()
	return slices.Clone(m.secrets)
}

func newFar(t *testing.T, o qbo.Options) *far {
	t.Helper()
	sim := qbo.New(o)
	server := httptest.NewServer(sim)
	t.Cleanup(server.Close)
	f := &far{t: t, sim: sim, company: sim.AddCompany(realm, "Northwind Kelp"), url: server.URL}
	f.tokens = &memoryTokens{
		erp: online("secret"), url: server.URL + "/oauth2/v1/tokens/bearer",
		login: connector.Credentials{RefreshToken: f.company.Connect().RefreshToken},
	}
	return f
}

func online(secret string) connector.Connector {
	return quickbooks.Online(quickbooks.App{ClientID: "client", ClientSecret: quickbooks.Secret(secret)})
}

func (f *far) source() connector.Source {
	return online("secret").Open(connector.Account{ID: realm, APIURL: f.url, Tokens: f.tokens})
}

// read pulls to the end, each page by a Source of its own as after a restart.
func (f *far) read(since connector.Cursor, between func(page int)) (
	seen map[string]connector.Customer, times map[string]int, end connector.End,
) {
	f.t.Helper()
	seen, times = map[string]connector.Customer{}, map[string]int{}
	resume := connector.Cursor("")
	for n := 1; n < 1000; n++ {
		for page, err := range f.source().Pull(f.t.Context(), connector.Pull{Since: since, Resume: resume}) {
			if err != nil {
				f.t.Fatal(err)
			}
			for _, c := range page.Customers {
				seen[c.ID] = c
				times[c.ID]++
			}
			if page.End != nil {
				return seen, times, *page.End
			}
			resume = page.Next
			break
		}
		if between != nil {
			between(n)
		}
	}
	f.t.Fatal("the pull never ends")
	return nil, nil, connector.End{}
}

// stir changes the company as people do: edits, renames, deactivations, merges, imports.
func (f *far) stir(r *rand.Rand, untouched map[string]bool) {
	f.t.Helper()
	all := f.company.Customers()
	for range 30 {
		c := all[r.IntN(len(all))]
		var err error
		switch r.IntN(6) {
		case 0:
			err = f.company.Rename(c.ID, fmt.Sprintf("A renamed %d", r.Uint64()))
		case 1:
			if !c.Inactive {
				err = f.company.Deactivate(c.ID)
			}
		case 2:
			err = f.company.BumpBalance(c.ID, 100)
		case 3:
			err = f.company.Edit(c.ID, func(c *qbo.Customer) { c.Email = "changed@kelp.example" })
		case 4:
			other := all[r.IntN(len(all))]
			if other.ID != c.ID && f.company.Merge(c.ID, other.ID, qbo.MergeAbsent) == nil {
				untouched[c.ID] = false
			}
		case 5:
			f.company.Import(5)
		}
		_ = err // a merged-away customer cannot be changed: nothing happened
	}
}

// TestNoRowIsSkippedWhateverChanges: a full pull that is resumed after each page, hours later in another process, while
// customers are edited, renamed, made inactive, merged and imported, names each customer that was there all the time.
func TestNoRowIsSkippedWhateverChanges(t *testing.T) {
	t.Parallel()
	for name, fill := range map[string]func(*qbo.Company){
		"SpreadOverTime": func(c *qbo.Company) { c.BulkLoad(2500, 1) },
		"OneSecond":      func(c *qbo.Company) { c.Import(2500) },
	} {
		for _, textIDs := range []bool{false, true} {
			t.Run(fmt.Sprint(name, textIDs), func(t *testing.T) {
				t.Parallel()
				f := newFar(t, qbo.Options{TextIDs: textIDs})
				fill(f.company)
				there := map[string]bool{}
				for _, c := range f.company.Customers() {
					there[c.ID] = true
				}
				r := rand.New(rand.NewPCG(1, 2))
				seen, times, _ := f.read("", func(page int) {
					if page <= 12 {
						f.stir(r, there)
					}
				})
				for id, stayed := range there {
					if _, ok := seen[id]; stayed && !ok {
						t.Errorf("customer %s was skipped", id)
					}
					if times[id] > 1 {
						t.Errorf("customer %s came %d times", id, times[id])
					}
				}
			})
		}
	}
}

func TestIncrementalSeesEachChange(t *testing.T) {
	t.Parallel()
	f := newFar(t, qbo.Options{})
	f.company.BulkLoad(2500, 3)
	_, _, end := f.read("", nil)
	if !slices.Equal(end.Listed, []connector.Kind{connector.Customers}) {
		t.Errorf("a full pull listed %v", end.Listed)
	}
	changed := map[string]bool{}
	for i, c := range f.company.Customers() {
		if i%2 == 0 && !c.Inactive {
			if err := f.company.Edit(c.ID, func(c *qbo.Customer) { c.Phone = "555" }); err != nil {
				t.Fatal(err)
			}
			changed[c.ID] = true
		}
	}
	seen, _, end := f.read(end.Cursor, func(page int) {
		if page > 1 {
			return
		}
		for id := range changed { // which moves them to the end of the pull's order
			if err := f.company.Edit(id, func(c *qbo.Customer) { c.Mobile = "556" }); err != nil {
				t.Fatal(err)
			}
		}
	})
	for id := range changed {
		if _, ok := seen[id]; !ok {
			t.Errorf("the change of %s was missed", id)
		}
	}
	if len(end.Listed) != 0 {
		t.Errorf("an incremental pull listed %v", end.Listed)
	}
}

func TestIdleIncrementalIsOneCall(t *testing.T) {
	t.Parallel()
	now := time.Date(2026, 11, 1, 8, 30, 0, 0, time.UTC) // the hour that Pacific time repeats
	f := newFar(t, qbo.Options{Now: func() time.Time { return now }})
	f.company.BulkLoad(100, 3)
	_, _, end := f.read("", nil)
	now = now.Add(time.Hour)
	f.sim.Log().Reset()
	f.tokens.login.AccessToken = ""
	seen, _, _ := f.read(end.Cursor, nil)
	data := f.sim.Log().Requests(func(r erpsim.Request) bool { return r.Op != qbo.Token })
	if len(data) != 1 || len(seen) != 0 {
		t.Errorf("%d data calls, %d customers; want 1 and 0", len(data), len(seen))
	}
}

func TestCountKeepsFromListingTooMuch(t *testing.T) {
	t.Parallel()
	f := newFar(t, qbo.Options{})
	f.company.BulkLoad(1500, 3)
	once := false
	f.sim.Before(func(r erpsim.Request) {
		if r.Op == qbo.Count && !once { // somebody joins after the last page and before the count
			once = true
			f.company.Import(1)
		}
	})
	if _, _, end := f.read("", nil); len(end.Listed) != 0 {
		t.Errorf("listed %v although a customer more was counted than read", end.Listed)
	}
}

// TestRowWithoutIDKeepsFromListing guards rule 6 where the count agrees by chance: a row without an id may be anybody.
func TestRowWithoutIDKeepsFromListing(t *testing.T) {
	t.Parallel()
	f := newFar(t, qbo.Options{})
	ids := f.company.Import(6)
	if err := f.company.Spoil(ids[0], qbo.MissingID); err != nil {
		t.Fatal(err)
	}
	f.sim.Before(func(r erpsim.Request) {
		if r.Op == qbo.Count { // one who was read is merged away before the count
			_ = f.company.Merge(ids[1], ids[2], qbo.MergeAbsent)
		}
	})
	if _, _, end := f.read("", nil); len(end.Listed) != 0 {
		t.Errorf("listed %v although nobody knows who one of them is", end.Listed)
	}
}

func TestRowsBecomeRecords(t *testing.T) {
	t.Parallel()
	f := newFar(t, qbo.Options{})
	parent, err := f.company.Join(qbo.Customer{
		DisplayName: "Northern Kelp Supply", Email: "a@kelp.example, b@kelp.example",
	})
	if err != nil {
		t.Fatal(err)
	}
	child, err := f.company.Join(qbo.Customer{
		DisplayName: "Lab & Research", Parent: parent, BillWithParent: true, GivenName: "Ingrid", FamilyName: "Solheim-O'Dea",
		Phone: "(218) 555-0142 x9", Mobile: "+1 218", Fax: "100", AlternatePhone: "188", Web: "http://kelp.example",
	})
	if err != nil {
		t.Fatal(err)
	}
	project, err := f.company.Join(qbo.Customer{DisplayName: "Dock", Parent: parent, Project: true})
	if err != nil {
		t.Fatal(err)
	}
	if err := f.company.Deactivate(child); err != nil {
		t.Fatal(err)
	}
	for page, err := range f.source().Pull(t.Context(), connector.Pull{}) {
		if err != nil {
			t.Fatal(err)
		}
		if page.End != nil { // holds no rows but the count
			break
		}
		if len(page.Customers) != 3 || len(page.Contacts) != 3 || len(page.Links) != 3 || len(page.Bad) != 0 {
			t.Fatalf("%+v", page)
		}
		at := map[string]connector.Customer{}
		people := map[string]connector.Contact{}
		for i, c := range page.Customers {
			at[c.ID] = c
			if page.Links[i].Roles[0] != connector.CompanyRole || page.Links[i].StatedBy.ID != page.Links[i].Customer {
				t.Errorf("link %+v", page.Links[i])
			}
		}
		for _, c := range page.Contacts {
			people[c.ID] = c
		}
		lab := at[child]
		if lab.Name != "Lab & Research" || lab.Active || lab.ParentID != parent || !lab.BillWithParent ||
			lab.Kind != contact.SubCustomer {
			t.Errorf("%+v", lab)
		}
		if at[project].Kind != contact.Project || at[parent].Kind != contact.Customer {
			t.Errorf("kinds %v %v", at[project].Kind, at[parent].Kind)
		}
		ingrid := people[contact.OwnID(child)]
		if ingrid.Name != "Ingrid Solheim-O'Dea" || len(ingrid.Channels) != 5 || ingrid.Active {
			t.Errorf("%+v", ingrid)
		}
		if own := people[contact.OwnID(project)]; own.Name != "Dock" || len(own.Channels) != 0 {
			t.Errorf("a customer without an address: %+v", own)
		}
		if ch := people[contact.OwnID(parent)].Channels[0]; !ch.Main || ch.Value != "a@kelp.example, b@kelp.example" {
			t.Errorf("%+v", ch)
		}
	}
}

func TestLookup(t *testing.T) {
	t.Parallel()
	f := newFar(t, qbo.Options{})
	ids := f.company.Import(600)
	if err := f.company.Deactivate(ids[1]); err != nil {
		t.Fatal(err)
	}
	if err := f.company.Merge(ids[2], ids[3], qbo.MergeAbsent); err != nil {
		t.Fatal(err)
	}
	var keys []connector.Key
	for _, id := range append(ids[:490:490], "99999999", "x'y") {
		keys = append(keys, connector.Key{Kind: connector.Customers, ID: id})
	}
	page, err := f.source().Lookup(t.Context(), keys)
	if err != nil || len(page.Customers) != 489 {
		t.Fatalf("%d customers, %v", len(page.Customers), err)
	}
	for _, c := range page.Customers {
		if c.ID == ids[2] || c.Active == (c.ID == ids[1]) {
			t.Errorf("%+v", c)
		}
	}
}

// TestFailuresSayWhatCanBeDone: whose fault it is decides who is asked to act.
func TestFailuresSayWhatCanBeDone(t *testing.T) {
	t.Parallel()
	t.Run("WrongSecret", func(t *testing.T) {
		t.Parallel()
		f := newFar(t, qbo.Options{})
		_, err := online("wrong").Renew(t.Context(), connector.Account{TokenURL: f.tokens.url}, f.tokens.login)
		if connector.KindOf(err) != connector.Misconfigured {
			t.Errorf("%v", err)
		}
	})
	t.Run("RevokedGrant", func(t *testing.T) {
		t.Parallel()
		f := newFar(t, qbo.Options{})
		f.company.Revoke()
		_, err := f.source().Check(t.Context())
		if connector.KindOf(err) != connector.Denied || strings.Contains(err.Error(), f.tokens.login.RefreshToken) {
			t.Errorf("%v", err)
		}
	})
	for _, xml := range []bool{false, true} {
		t.Run(fmt.Sprint("ExpiredAccessIsRenewedOnce", xml), func(t *testing.T) {
			t.Parallel()
			f := newFar(t, qbo.Options{AuthXML: xml})
			if _, err := f.source().Check(t.Context()); err != nil {
				t.Fatal(err)
			}
			f.company.ExpireAccess()
			check, err := f.source().Check(t.Context())
			if err != nil || check.Company != "Northwind Kelp" || check.Account != realm {
				t.Errorf("%+v %v", check, err)
			}
		})
	}
	t.Run("AnotherCompany", func(t *testing.T) {
		t.Parallel()
		f := newFar(t, qbo.Options{})
		f.sim.AddCompany("77", "Other")
		other := connector.Account{ID: "77", APIURL: f.url, Tokens: f.tokens}
		_, err := online("secret").Open(other).Check(t.Context())
		if connector.KindOf(err) != connector.Denied {
			t.Errorf("%v", err)
		}
	})
}

// TestSecretIsUnprintable guards rule 12 for the app's secret, however it gets into a log.
func TestSecretIsUnprintable(t *testing.T) {
	t.Parallel()
	app := quickbooks.App{ClientID: "client", ClientSecret: "hunter2"}
	var logged bytes.Buffer
	log := slog.New(slog.NewJSONHandler(&logged, nil))
	for name, v := range map[string]any{
		"secret": app.ClientSecret, "app": app, "pointer": &app, "list": []quickbooks.App{app},
		"connector": quickbooks.Online(app),
	} {
		for _, verb := range []string{"%v", "%+v", "%#v", "%s", "%q", "%d", "%x"} {
			if text := fmt.Sprintf(verb, v); strings.Contains(text, "hunter2") || strings.Contains(text, "68756e74657232") {
				t.Errorf("%s of the %s shows the secret", verb, name)
			}
		}
		log.Info("test", "value", v)
	}
	if strings.Contains(logged.String(), "hunter2") {
		t.Errorf("the log shows the secret")
	}
}

func TestValidate(t *testing.T) {
	t.Parallel()
	for account, login := range map[string]connector.Credentials{
		"":           {RefreshToken: "RT1-x"},
		"91303-x":    {RefreshToken: "RT1-x"},
		"../1":       {RefreshToken: "RT1-x"},
		"9130350001": {},
	} {
		err := online("secret").Validate(account, login)
		if err == nil || strings.Contains(err.Error(), "RT1") {
			t.Errorf("%q: %v", account, err)
		}
	}
	if err := online("secret").Validate(realm, connector.Credentials{RefreshToken: "RT1-x"}); err != nil {
		t.Error(err)
	}
}

package memory

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"testing"

	"github.com/centime/contactsync/internal/connector"
)

// The promises of a Source are tested by connectortest; here are those of the ERP to the tests that use it.

func customerKey(id string) connector.Key {
	return connector.Key{Kind: connector.Customers, ID: id}
}

func contactKey(id string) connector.Key {
	return connector.Key{Kind: connector.Contacts, ID: id}
}

// seeded is an ERP with n customers to pull in pages of two.
func seeded(style Style, n int) *ERP {
	e := New("company-1", style)
	e.SetPageSize(2)
	for i := range n {
		e.AddCustomer(connector.Customer{Name: fmt.Sprintf("Customer %d", i+1)}, Mail("ap@kelp.example"))
	}
	return e
}

// pull reads a pull to its end, which is nil if it was cut, or to its error.
func pull(e *ERP, p connector.Pull) (pages []connector.Page, end *connector.End, err error) {
	for page, err := range e.Source().Pull(context.Background(), p) {
		if err != nil {
			return pages, nil, err
		}
		pages, end = append(pages, page), page.End
	}
	return pages, end, nil
}

func mustPull(t *testing.T, e *ERP, p connector.Pull) ([]connector.Page, connector.End) {
	t.Helper()
	pages, end, err := pull(e, p)
	if err != nil || end == nil {
		t.Fatalf("pull: end %v, error %v", end, err)
	}
	return pages, *end
}

func ids(pages []connector.Page) (customers, contacts, links []string, deleted []connector.Key) {
	for _, p := range pages {
		for _, c := range p.Customers {
			customers = append(customers, c.ID)
		}
		for _, c := range p.Contacts {
			contacts = append(contacts, c.ID)
		}
		for _, l := range p.Links {
			links = append(links, connector.LinkID(l.Customer, l.Contact))
		}
		deleted = append(deleted, p.Deleted...)
	}
	return customers, contacts, links, deleted
}

func wantIDs(t *testing.T, what string, got []string, want ...string) {
	t.Helper()
	if !slices.Equal(got, want) {
		t.Errorf("%s are %q, want %q", what, got, want)
	}
}

func TestRecords(t *testing.T) {
	t.Parallel()
	e := seeded(NetSuite, 10)
	e.AddContact(connector.Contact{Name: "Ann", Channels: []connector.Channel{Mail("ann@kelp.example")}}, "2")
	e.Attach("9", "11", connector.ERPRole{Key: "-10", Name: "Primary Contact"})
	pages, end := mustPull(t, e, connector.Pull{})
	customers, _, links, _ := ids(pages)
	wantIDs(t, "customers", customers, "1", "2", "3", "4", "5", "6", "7", "8", "9", "10")
	wantIDs(t, "links of the contact", links[10:], "2/11", "9/11")
	if len(pages) != 6 {
		t.Errorf("12 records come on %d pages of two", len(pages))
	}

	e.SetCompany("11", "3")
	e.Attach("9", "11", connector.ERPRole{})
	pages, _ = mustPull(t, e, connector.Pull{Since: end.Cursor})
	customers, contacts, links, _ := ids(pages)
	wantIDs(t, "changed customers", customers)
	wantIDs(t, "changed contacts", contacts, "11")
	wantIDs(t, "changed links", links, "3/11", "9/11")
}

func TestGoing(t *testing.T) {
	t.Parallel()
	t.Run("a deletion is claimed in the NetSuite style only", func(t *testing.T) {
		t.Parallel()
		for style, claims := range map[Style]int{QuickBooks: 0, NetSuite: 1} {
			e := seeded(style, 3)
			_, end := mustPull(t, e, connector.Pull{})
			e.Delete(customerKey("2"))
			pages, _ := mustPull(t, e, connector.Pull{Since: end.Cursor})
			if _, _, _, deleted := ids(pages); len(deleted) != claims {
				t.Errorf("%s: deletions claimed are %v, want %d", style, deleted, claims)
			}
		}
	})
	t.Run("a merge hands the links over", func(t *testing.T) {
		t.Parallel()
		e := seeded(NetSuite, 2)
		ann := e.AddContact(connector.Contact{Name: "Ann"}, "1")
		bea := e.AddContact(connector.Contact{Name: "Bea"}, "")
		e.Attach("1", bea, connector.ERPRole{Key: "5", Name: "Bookkeeper"})
		_, end := mustPull(t, e, connector.Pull{})
		e.Merge(customerKey("1"), customerKey("2"))
		pages, _ := mustPull(t, e, connector.Pull{Since: end.Cursor})
		customers, contacts, links, deleted := ids(pages)
		wantIDs(t, "customers", customers, "2")
		wantIDs(t, "contacts", contacts, "customer:2", ann)
		wantIDs(t, "links", links, "2/customer:2", "2/"+ann, "2/"+bea)
		if !slices.Equal(deleted, []connector.Key{customerKey("1")}) {
			t.Errorf("deletions claimed are %v", deleted)
		}
	})
	t.Run("what is hidden is out of listings and lookups, and unchanged", func(t *testing.T) {
		t.Parallel()
		e := seeded(NetSuite, 3)
		_, end := mustPull(t, e, connector.Pull{})
		e.Hide(customerKey("2"))
		pages, hidden := mustPull(t, e, connector.Pull{})
		customers, _, _, _ := ids(pages)
		wantIDs(t, "customers", customers, "1", "3")
		if len(hidden.Listed) != 3 || hidden.Rights != end.Rights {
			t.Errorf("the pull lists %v with rights %q", hidden.Listed, hidden.Rights)
		}
		page, err := e.Source().Lookup(t.Context(), []connector.Key{customerKey("1"), customerKey("2")})
		if err != nil || len(page.Customers) != 1 {
			t.Errorf("lookup finds %d customers, error %v", len(page.Customers), err)
		}
		e.Show(customerKey("2"))
		e.Hide(connector.Key{Kind: connector.Customers})
		e.SetRights("contact link")
		pages, hidden = mustPull(t, e, connector.Pull{})
		customers, _, _, _ = ids(pages)
		wantIDs(t, "customers", customers)
		if hidden.Rights != "contact link" {
			t.Errorf("rights are %q", hidden.Rights)
		}
		check, err := e.Source().Check(t.Context())
		if err != nil || check.Rights[0].Readable || check.Rights[0].Fix == "" {
			t.Errorf("check answers %+v, error %v", check, err)
		}
	})
}

func TestFaults(t *testing.T) {
	t.Parallel()
	problem := errors.New("problem")
	t.Run("a page fails where it should, once", func(t *testing.T) {
		t.Parallel()
		e := seeded(QuickBooks, 5)
		e.FailPage(2, problem)
		if pages, _, err := pull(e, connector.Pull{}); len(pages) != 1 || !errors.Is(err, problem) {
			t.Errorf("the pull has %d pages and the error %v", len(pages), err)
		}
		mustPull(t, e, connector.Pull{})
	})
	t.Run("a cut pull has neither error nor End", func(t *testing.T) {
		t.Parallel()
		e := seeded(QuickBooks, 5)
		e.CutPage(3)
		if pages, end, err := pull(e, connector.Pull{}); len(pages) != 2 || end != nil || err != nil {
			t.Errorf("the pull has %d pages, the end %v and the error %v", len(pages), end, err)
		}
	})
	t.Run("requests fail in turn, then forever", func(t *testing.T) {
		t.Parallel()
		e := seeded(QuickBooks, 1)
		e.FailNext(problem)
		e.FailNext(problem)
		for i, want := range []error{problem, problem, nil} {
			if _, err := e.Source().Check(t.Context()); !errors.Is(err, want) {
				t.Errorf("request %d answers %v, want %v", i+1, err, want)
			}
		}
		e.Refuse(problem)
		for range 3 {
			if _, err := e.Source().Check(t.Context()); !errors.Is(err, problem) {
				t.Errorf("a refused request answers %v", err)
			}
		}
		e.Refuse(nil)
		mustPull(t, e, connector.Pull{})
	})
	t.Run("before sees each request and may change the ERP", func(t *testing.T) {
		t.Parallel()
		e := seeded(QuickBooks, 3)
		e.Before(func(_ context.Context, r Request) error {
			if r.Op == OpPage && r.Pull.Resume != "" {
				e.Before(nil)
				e.Delete(customerKey("3"))
			}
			return nil
		})
		pages, _ := mustPull(t, e, connector.Pull{})
		customers, _, _, _ := ids(pages)
		wantIDs(t, "customers", customers, "1", "2")
		if got := e.Requests(); len(got) != 2 || got[1].Pull.Resume != pages[0].Next {
			t.Errorf("the log holds %+v", got)
		}
	})
	t.Run("a spoilt record is whole again", func(t *testing.T) {
		t.Parallel()
		e := seeded(NetSuite, 1)
		e.AddContact(connector.Contact{Name: "Ann"}, "")
		for _, k := range []connector.Key{customerKey("1"), contactKey("2")} {
			e.Spoil(k, Unreadable)
			pages, end := mustPull(t, e, connector.Pull{})
			if bad := pages[len(pages)-1].Bad; len(bad) != 1 || bad[0].Key != k || len(end.Listed) != 3 {
				t.Errorf("%s is reported as %v, and %v are listed", k.Kind, bad, end.Listed)
			}
			e.Spoil(k, None)
		}
		pages, _ := mustPull(t, e, connector.Pull{})
		_, contacts, _, _ := ids(pages)
		wantIDs(t, "contacts", contacts, "customer:1", "2")
	})
	t.Run("cursors expire", func(t *testing.T) {
		t.Parallel()
		e := seeded(QuickBooks, 3)
		pages, end := mustPull(t, e, connector.Pull{})
		e.ExpireCursors()
		for _, p := range []connector.Pull{
			{Since: end.Cursor}, {Resume: pages[0].Next}, {Since: pages[0].Next}, {Resume: end.Cursor},
		} {
			if _, _, err := pull(e, p); connector.KindOf(err) != connector.Expired {
				t.Errorf("pull %v answers %v", p, err)
			}
		}
	})
}

// vault hands out what it renews, as package credentials does with a stored one.
type vault struct {
	conn  *Connector
	creds connector.Credentials
}

func (v *vault) Token(context.Context) (string, error) { return v.creds.AccessToken, nil }

func (v *vault) Renewed(ctx context.Context, _ string) (string, error) {
	creds, err := v.conn.Renew(ctx, connector.Account{}, v.creds)
	if err != nil {
		return "", err
	}
	v.creds = creds
	return creds.AccessToken, nil
}

func TestLogin(t *testing.T) {
	t.Parallel()
	e, other := seeded(QuickBooks, 1), New("company-2", QuickBooks)
	c := NewConnector("memory", other)
	c.Add(e)
	v := &vault{conn: c, creds: e.Credentials()}
	first := v.creds
	check := func(want connector.ErrorKind) {
		t.Helper()
		_, err := c.Open(connector.Account{ID: "company-1", Tokens: v}).Check(t.Context())
		if connector.KindOf(err) != want {
			t.Errorf("check answers %v, want the kind %q", err, want)
		}
	}
	check("")
	e.ExpireAccess()
	check("")
	e.RefuseRenewal(&connector.Error{Kind: connector.Misconfigured})
	check(connector.Misconfigured)
	e.RefuseRenewal(nil)
	check("")

	if _, err := c.Renew(t.Context(), connector.Account{}, first); connector.KindOf(err) != connector.Denied || e.SpentTwice() != 1 {
		t.Errorf("a spent refresh token answers %v; %d were spent twice", err, e.SpentTwice())
	}
	if _, err := c.Open(connector.Account{ID: "company-3"}).Check(t.Context()); connector.KindOf(err) != connector.Denied {
		t.Errorf("an unknown account answers %v", err)
	}
	if _, err := c.Open(connector.Account{ID: "company-2", Tokens: v}).Check(t.Context()); err == nil {
		t.Error("one company's login opens another's")
	}
	if c.Name() != "memory" || c.Label() != "memory" || c.LongestRequest() <= 0 {
		t.Errorf("the connector is %q, %q, %s", c.Name(), c.Label(), c.LongestRequest())
	}
	if c.Validate("company-1", first) != nil || c.Validate("", first) == nil ||
		c.Validate("company-1", connector.Credentials{}) == nil {
		t.Error("validate wants an account and a refresh token")
	}
}

// Pulls and changes may come from many goroutines; the race detector watches.
func TestConcurrentUse(t *testing.T) {
	t.Parallel()
	e := seeded(NetSuite, 20)
	var all sync.WaitGroup
	for n := range 4 {
		all.Go(func() {
			for range 20 {
				id := e.AddCustomer(connector.Customer{Name: fmt.Sprintf("Customer of %d", n)})
				e.EditCustomer(id, func(_ *connector.Customer, own *connector.Contact) {
					own.Channels = append(own.Channels, Phone("218 555 0100"))
				})
				e.Delete(customerKey(id))
			}
		})
		all.Go(func() {
			for range 5 {
				if _, _, err := pull(e, connector.Pull{}); err != nil {
					t.Errorf("pull: %v", err)
				}
			}
		})
	}
	all.Wait()
}

// Whatever a cursor is, a pull that begins with it ends, or answers that the cursor is expired.
func FuzzCursor(f *testing.F) {
	e := seeded(NetSuite, 5)
	pages, end, err := pull(e, connector.Pull{})
	if err != nil {
		f.Fatal(err)
	}
	for _, seed := range []string{
		"", "{}", "null", "7", `{"v":1}`, `{"v":1,"since":9}`, `{"v":1,"place":{}}`, `{"v":2}`, "\xff",
		`{"v":1,"place":{"began":1,"after":{"phase":-1,"kind":"","id":""}}}`, string(end.Cursor), string(pages[0].Next),
	} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, text string) {
		for _, p := range []connector.Pull{{Since: connector.Cursor(text)}, {Resume: connector.Cursor(text)}} {
			_, end, err := pull(e, p)
			if err != nil && connector.KindOf(err) != connector.Expired || err == nil && end == nil {
				t.Errorf("a pull from %q has the end %v and the error %v", text, end, err)
			}
		}
	})
}

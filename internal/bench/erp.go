package bench

import (
	"context"
	"encoding/json"
	"fmt"
	"net/http"

	"github.com/centime/contactsync/connectors/netsuite"
	"github.com/centime/contactsync/connectors/quickbooks"
)

// An ERP is a simulated one that is measured.
type ERP struct {
	Name  string // as `syncctl connection add` has it
	Sizes []int  // numbers of customers that are measured if none are chosen

	label      string
	account    string
	simulator  string // option of erpsim that makes the company
	control    string // where its control port begins
	company    string // the company there
	api, login string // addresses of the company, behind the simulator's
	budget     string // setting of the connection; empty: the ERP's own budget
	conditions string
	changed    []changed
	expect     func(context.Context, *system) (map[string]expected, error)
}

// changed are records that are given another address: their query, and where the control port has them.
type changed struct{ query, path string }

// The query, before and after the rows it chooses from.
const (
	oneInAHundred = "SELECT erp_id FROM (SELECT erp_id, row_number() OVER (ORDER BY id) AS n FROM "
	evenly        = ") AS numbered WHERE n % 100 = 0"
)

// expected is what the run of a scenario must count, else something else was measured.
type expected struct {
	read    int
	updated int
	calls   int // that the page size demands; unknown: not looked at
}

// ERPs are all that can be measured.
var ERPs = []ERP{quickBooksOnline, netSuite}

var quickBooksOnline = ERP{
	Name: quickbooks.OnlineName, label: "QuickBooks Online", Sizes: []int{20_000, 100_000, 200_000},
	account: "9130350000000001", simulator: "-company", company: "/companies/9130350000000001", login: "/oauth2/v1/tokens/bearer",
	budget: fmt.Sprintf("requests_per_second=%d", perSecond),
	conditions: fmt.Sprintf("The request budget is raised to %d a second (requests_per_second), and the simulator's pages are rendered beforehand.",
		perSecond),
	changed: []changed{{oneInAHundred + "contactsync.customers" + evenly, "/customers/"}},
	expect: func(_ context.Context, s *system) (map[string]expected, error) {
		few := s.customers / 100
		return map[string]expected{
			firstLoad: {s.customers, 0, unknown}, unchanged: {s.customers, 0, unknown}, idle: {0, 0, unknown}, onePercent: {few, few, unknown},
		}, nil
	},
}

// netSuite has no requests_per_second: that would take the place of NetSuite's own budget, which is one request at a time.
var netSuite = ERP{
	Name: netsuite.Name, label: "NetSuite", Sizes: []int{20_000, 100_000},
	account: "1234567_SB1", simulator: "-netsuite", control: "/netsuite", company: "/accounts/1234567_SB1",
	api: "/1234567-sb1", login: "/1234567-sb1/services/rest/auth/oauth2/v1/token",
	conditions: "The request budget is NetSuite's own: one request at a time. The simulator evaluates each statement and renders its rows then.",
	changed: []changed{
		{oneInAHundred + "contactsync.customers" + evenly, "/customers/"},
		{oneInAHundred + "contactsync.contacts WHERE erp_id NOT LIKE 'customer:%'" + evenly, "/contacts/"},
	},
	expect: func(ctx context.Context, s *system) (map[string]expected, error) {
		var accounts []suite
		if err := s.ask(ctx, http.MethodGet, "/accounts", nil, &accounts); err != nil {
			return nil, err
		}
		if len(accounts) != 1 {
			return nil, fmt.Errorf("the simulator has %d NetSuite accounts", len(accounts))
		}
		return accounts[0].expected(), nil
	},
}

// suite is how much a NetSuite account has.
type suite struct {
	Customers int `json:"customers"`
	Contacts  int `json:"contacts"`
	Private   int `json:"private"` // of the contacts, which no login sees
	Links     int `json:"links"`
}

// expected has the fewest calls there can be: one for the time; in a full listing one to probe each of the four tables, in an
// incremental one for deleted records; and the pages of the rows, the links' in any run.
func (s suite) expected() map[string]expected {
	visible := s.Contacts - s.Private
	all, links := s.Customers+visible+s.Links, pages(s.Links)
	full := expected{read: all, calls: 1 + 4 + pages(s.Customers) + pages(visible) + links}
	few := s.Customers/100 + visible/100
	return map[string]expected{
		firstLoad:  {full.read, 0, full.calls},
		unchanged:  full,
		idle:       {s.Links, 0, 1 + 1 + pages(0) + pages(0) + links},
		onePercent: {s.Links + few, few, 1 + 1 + pages(s.Customers/100) + pages(visible/100) + links},
	}
}

// pages is how many it takes to list so many rows, 1,000 to a page. That there are none takes one too.
func pages(rows int) int { return max(1, (rows+999)/1000) }

// connect adds the connection. Its first run is queued, and begins with the scheduler.
func (s *system) connect(ctx context.Context) error {
	if err := s.syncctl(ctx, nil, "tenant", "add", "Northern Finance"); err != nil {
		return err
	}
	var login json.RawMessage
	if err := s.ask(ctx, http.MethodPost, s.ERP.company+"/credentials", nil, &login); err != nil {
		return err
	}
	args := []string{
		"connection", "add", "--tenant", "Northern Finance", "--erp", s.ERP.Name, "--account", s.ERP.account, "--schedule", "off",
		"--set", "api_url=" + s.api + s.ERP.api, "--set", "token_url=" + s.api + s.ERP.login, "--credentials", "-",
	}
	if s.ERP.budget != "" {
		args = append(args, "--set", s.ERP.budget)
	}
	return s.syncctl(ctx, login, args...)
}

// changeAndResync gives one record in a hundred a new address in the ERP, evenly over all pages.
func (s *system) changeAndResync(ctx context.Context) error {
	for _, of := range s.ERP.changed {
		if err := s.change(ctx, of); err != nil {
			return err
		}
	}
	return s.resync()(ctx)
}

func (s *system) change(ctx context.Context, of changed) error {
	rows, err := s.db.QueryContext(ctx, of.query)
	if err != nil {
		return fmt.Errorf("choose records to change: %w", err)
	}
	defer rows.Close()
	n := 0
	for ; rows.Next(); n++ {
		var id string
		if err := rows.Scan(&id); err != nil {
			return fmt.Errorf("choose records to change: %w", err)
		}
		if err := s.ask(ctx, http.MethodPatch, s.ERP.company+of.path+id, map[string]string{"email": "changed" + id + "@bench.example"}, nil); err != nil {
			return err
		}
	}
	if err := rows.Err(); err != nil {
		return fmt.Errorf("choose records to change: %w", err)
	}
	fmt.Fprintf(s.Progress, "  changed %s records\n", thousands(int64(n)))
	return nil
}

package online

import (
	"cmp"
	"errors"
	"net/http"
	"os"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/centime/contactsync/internal/connector"
	"github.com/centime/contactsync/internal/contact"
	"github.com/centime/contactsync/internal/erphttp"
)

func recorded(t *testing.T, name string) []byte {
	t.Helper()
	body, err := os.ReadFile("testdata/" + name)
	if err != nil {
		t.Fatal(err)
	}
	return body
}

// TestFaults: each form a fault comes in says what can be done about it, and nothing of a record.
func TestFaults(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		file   string // empty: no body
		status int
		kind   connector.ErrorKind
		text   string
	}{
		{"fault_invalid_query.json", 400, connector.Rejected, "query: 400 Invalid query (4001) (trace 1-64886bfd)"},
		{"fault_unreadable_row.json", 400, connector.Rejected, "query: 400 Error processing query (4002): " +
			"one of the company's own records cannot be read by QuickBooks (trace 1-64886bfd)"},
		{"fault_message_quotes_address.json", 400, connector.Rejected, "query: 400 (6240) (trace 1-64886bfd)"},
		{"fault_subscription_ended.json", 400, connector.Denied, ""},
		{"fault_internal.json", 500, connector.Transient, ""},
		{"fault_internal.json", 200, connector.Transient, ""},
		{"fault_inside_query_response.json", 200, connector.Transient, ""},
		{"fault_invalid_query.json", 200, connector.Rejected, ""},
		{"gateway_token_malformed.json", 401, connector.Denied, ""},
		{"gateway_app_forbidden.json", 403, connector.Denied, ""},
		{"gateway_throttled.json", 429, connector.Throttled, ""},
		{"gateway_throttled.json", 403, connector.Throttled, ""},
		{"fault_authentication.xml", 401, connector.Denied, ""},
		{"fault_user_lost_access.xml", 401, connector.Denied, "query: 401 Authorization Failure (120) (trace 1-64886bfd)"},
		{"fault_throttled.xml", 429, connector.Throttled, ""},
		{"outage.html", 503, connector.Transient, "query: 503 (trace 1-64886bfd)"},
		{"outage.html", 200, connector.Transient, ""},
		{"outage.html", 404, connector.Rejected, ""},
		{"outage.html", 403, connector.Transient, "query: 403 (trace 1-64886bfd)"},
		{"", 403, connector.Transient, ""},
		{"outage.html", 401, connector.Denied, ""},
		{"", 502, connector.Transient, ""},
		{"", 429, connector.Throttled, ""},
		{"", 200, connector.Transient, ""},
		{"customers.json", 200, "", ""},
		{"customers_none.json", 200, "", ""},
		{"count.json", 200, "", ""},
		{"company_info.json", 200, "", ""},
	} {
		reply := erphttp.Reply{Status: c.status, Header: http.Header{"Intuit_tid": {"1-64886bfd"}}}
		if c.file != "" {
			reply.Body = recorded(t, c.file)
		}
		err := judge("query", reply)
		if connector.KindOf(err) != c.kind {
			t.Errorf("%s with %d is %q, want %q", c.file, c.status, connector.KindOf(err), c.kind)
		}
		if err == nil {
			continue
		}
		if strings.Contains(err.Error(), "thorne") || c.text != "" && err.Error() != c.text {
			t.Errorf("%s with %d says %q, want %q", c.file, c.status, err, c.text)
		}
		e, _ := errors.AsType[*connector.Error](err)
		if c.kind == connector.Denied && e.Hint == "" || c.kind == connector.Throttled && e.RetryAfter < time.Minute {
			t.Errorf("%s with %d: hint %q, wait %s", c.file, c.status, e.Hint, e.RetryAfter)
		}
	}
}

func page(t *testing.T, file string) connector.Page {
	t.Helper()
	a, err := parseAnswer(recorded(t, file))
	if err != nil {
		t.Fatal(err)
	}
	if want := time.Date(2026, 3, 2, 18, 5, 0, 412e6, time.UTC); !a.time.Equal(want) {
		t.Errorf("the server's time is %s, want %s", a.time, want)
	}
	var p connector.Page
	fill(&p, a.rows)
	return p
}

func TestCustomer(t *testing.T) {
	t.Parallel()
	p := page(t, "customers.json")
	if len(p.Customers) != 2 || len(p.Contacts) != 2 || len(p.Links) != 2 || len(p.Bad) != 0 {
		t.Fatalf("%+v", p)
	}
	if got, want := p.Customers[0], (connector.Customer{
		ID: "214", Name: "Lab & Research", ParentID: "207", Kind: contact.SubCustomer, Active: true,
		ModifiedAt: time.Date(2026, 3, 2, 18, 4, 11, 0, time.UTC), Edition: "in edit 3",
	}); got != want {
		t.Errorf("%+v, want %+v", got, want)
	}
	own := p.Contacts[0]
	if own.ID != "customer:214" || own.Name != "Ingrid A Solheim-O'Dea" || own.GivenName != "Ingrid" ||
		own.FamilyName != "Solheim-O'Dea" || own.JobTitle != "" || !own.Active {
		t.Errorf("%+v", own)
	}
	if want := []connector.Channel{
		{Kind: contact.Email, Field: "PrimaryEmailAddr", Value: "ingrid@kelp.example, lab@kelp.example", Main: true},
		{Kind: contact.Phone, Field: "PrimaryPhone", Value: "(218) 555-0142 x9"},
		{Kind: contact.Phone, Field: "AlternatePhone", Value: "218.555.0188"},
		{Kind: contact.Mobile, Field: "Mobile", Value: "+1 218 555 0177"},
		{Kind: contact.Fax, Field: "Fax", Value: "218-555-0100"},
		{Kind: contact.Web, Field: "WebAddr", Value: "http://kelp.example"},
	}; !slices.Equal(own.Channels, want) {
		t.Errorf("%+v", own.Channels)
	}
	if l := p.Links[0]; l.Customer != "214" || l.Contact != own.ID || l.StatedBy.ID != "214" ||
		!slices.Equal(l.Roles, []connector.ERPRole{connector.CompanyRole}) {
		t.Errorf("%+v", l)
	}
	inactive := p.Customers[1]
	if inactive.Name != "Harbor & Sons" || inactive.Active || inactive.Kind != contact.Customer {
		t.Errorf("%+v", inactive)
	}
	if own := p.Contacts[1]; own.Name != "Harbor & Sons" || own.Active || len(own.Channels) != 1 {
		t.Errorf("%+v", own)
	}
}

// TestOddRows guards that each record is accounted for: what can be read of a row is, and what cannot is reported.
func TestOddRows(t *testing.T) {
	t.Parallel()
	p := page(t, "customers_odd_rows.json")
	var names []string
	for _, c := range p.Customers {
		names = append(names, c.ID+" "+c.Name)
	}
	if want := []string{"4 Falls back", "5 half \xed\xa0\xbd"}; !slices.Equal(names, want) {
		t.Errorf("%q, want %q", names, want)
	}
	var bad []string
	for _, b := range p.Bad {
		bad = append(bad, b.Key.ID+" "+b.Field+" "+b.Reason)
	}
	slices.SortStableFunc(bad, func(a, b string) int { return cmp.Compare(a[:1], b[:1]) })
	if want := []string{
		" record not_an_object", " Id missing_id", " Id missing_id", "3 record nothing_readable",
		"4 DisplayName not_text", "4 MetaData.LastUpdatedTime not_a_time", "4 IsProject not_a_boolean",
		"4 PrimaryEmailAddr not_text", "4 PrimaryPhone not_text", "6 Active not_a_boolean", "979 record nothing_readable",
	}; !slices.Equal(bad, want) {
		t.Errorf("%q, want %q", bad, want)
	}
	if got := p.Contacts[1]; got.GivenName != "Nu\x00l" || len(got.Channels) != 0 {
		t.Errorf("%+v", got)
	}
}

// TestSameIDTwice: of two states of a customer the later one counts, also in the hour that Pacific time repeats.
func TestSameIDTwice(t *testing.T) {
	t.Parallel()
	if p := page(t, "customers_same_id_twice.json"); len(p.Customers) != 1 || p.Customers[0].Name != "new" {
		t.Errorf("%+v", p.Customers)
	}
}

// TestNotAnAnswer: what is no whole QueryResponse is an error, so that nobody is gone by it.
func TestNotAnAnswer(t *testing.T) {
	t.Parallel()
	whole := string(recorded(t, "customers.json"))
	for _, body := range []string{
		`{}`, `{"time":"2026-03-02T10:05:00.412-08:00"}`, `{"QueryResponse":null}`, `[]`, `{"QueryResponse":[]}`,
		`{"QueryResponse":{"Customer":"x"}}`, whole[:len(whole)/2],
	} {
		if a, err := parseAnswer([]byte(body)); err == nil {
			t.Errorf("%.40q is taken for an answer with %d rows", body, len(a.rows))
		}
	}
	if a, err := parseAnswer(recorded(t, "count.json")); err != nil || a.total == nil || *a.total != 1374 {
		t.Errorf("count: %v", err)
	}
}

package suiteql

import (
	"encoding/json"
	"fmt"
	"reflect"
	"strings"
	"testing"
	"time"

	"github.com/centime/contactsync/internal/connector"
	"github.com/centime/contactsync/internal/contact"
)

func rows(t testing.TB, items ...string) []row {
	t.Helper()
	a, err := parseAnswer("test", fmt.Appendf(nil, `{"items":[%s],"count":%d,"hasMore":false,"totalResults":%d}`,
		strings.Join(items, ","), len(items), len(items)))
	if err != nil {
		t.Fatal(err)
	}
	return a.rows
}

// TestCustomerRows: what a row says of a customer, and what it leaves open, in every form that a cell may come in.
func TestCustomerRows(t *testing.T) {
	t.Parallel()
	at := time.Date(2026, 3, 2, 17, 4, 5, 0, time.UTC)
	const tail = `,"isinactive":"F","modified_utc":"2026-03-02T17:04:05Z"`
	company := connector.Customer{ID: "7", Number: "C7", Name: "Kelp", Kind: contact.Customer, Active: true, ModifiedAt: at}
	with := func(change func(*connector.Customer)) connector.Customer {
		c := company
		change(&c)
		return c
	}
	for name, c := range map[string]struct {
		item string
		want connector.Customer
		own  connector.Contact // ID, Active and ModifiedAt are the customer's
	}{
		"Company": {`{"links":[],"id":"7","entityid":"C7","companyname":"Kelp","email":"o@kelp.example","altemail":"b@kelp.example","fax":"1"` + tail + `}`,
			company, connector.Contact{Name: "Kelp", Channels: []connector.Channel{
				{Kind: contact.Email, Field: "email", Value: "o@kelp.example", Main: true}, {Kind: contact.Email, Field: "altemail", Value: "b@kelp.example"},
				{Kind: contact.Fax, Field: "fax", Value: "1"}}}},
		"Bare":   {`{"id":7,"entityid":"C7","CompanyName":"Kelp","isinactive":false,"MODIFIED_UTC":"2026-03-02T17:04:05Z"}`, company, connector.Contact{Name: "Kelp"}},
		"NoCode": {`{"id":"7","entityid":"Kelp"` + tail + `}`, with(func(c *connector.Customer) { c.Number = "" }), connector.Contact{Name: "Kelp"}},
		"Person": {`{"id":"7","entityid":"C7","altname":"Odile Thorne","isperson":"T","firstname":"Odile","middlename":"M.","lastname":"Thorne","title":"CFO"` + tail + `}`,
			with(func(c *connector.Customer) { c.Name = "Odile M. Thorne" }),
			connector.Contact{Name: "Odile M. Thorne", GivenName: "Odile", FamilyName: "Thorne", JobTitle: "CFO"}},
		"PersonHidden": {`{"id":"7","entityid":"C7","firstname":"Odile","lastname":"Thorne"` + tail + `}`,
			with(func(c *connector.Customer) { c.Name = "Odile Thorne" }),
			connector.Contact{Name: "Odile Thorne", GivenName: "Odile", FamilyName: "Thorne"}},
		"Sub": {`{"id":"7","entityid":"C7","companyname":"Kelp","parent":"3","searchstage":"Kunde"` + tail + `}`,
			with(func(c *connector.Customer) { c.ParentID, c.Kind = "3", contact.SubCustomer }), connector.Contact{Name: "Kelp"}},
		"Own parent": {`{"id":"7","entityid":"C7","companyname":"Kelp","parent":"7","searchstage":"Customer"` + tail + `}`, company, connector.Contact{Name: "Kelp"}},
		"Lead": {`{"id":"7","entityid":"C7","companyname":"Kelp","searchstage":"LEAD"` + tail + `}`,
			with(func(c *connector.Customer) { c.Kind = contact.Lead }), connector.Contact{Name: "Kelp"}},
		"Prospect": {`{"id":"7","entityid":"C7","companyname":"Kelp","searchstage":"Prospect"` + tail + `}`,
			with(func(c *connector.Customer) { c.Kind = contact.Prospect }), connector.Contact{Name: "Kelp"}},
		"Inactive": {`{"id":"7","entityid":"C7","companyname":"Kelp","isinactive":"T","modified_utc":"2026-03-02T17:04:05Z"}`,
			with(func(c *connector.Customer) { c.Active = false }), connector.Contact{Name: "Kelp"}},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			var page connector.Page
			fillCustomers(&page, rows(t, c.item), lacks{})
			c.own.ID, c.own.Active, c.own.ModifiedAt = "customer:7", c.want.Active, at
			want := connector.Page{Customers: []connector.Customer{c.want}, Contacts: []connector.Contact{c.own}, Links: []connector.Link{{
				Customer: "7", Contact: "customer:7", StatedBy: connector.Key{Kind: connector.Customers, ID: "7"},
				Roles: []connector.ERPRole{connector.CompanyRole},
			}}}
			if !reflect.DeepEqual(page, want) {
				t.Errorf("got %+v\nwant %+v", page, want)
			}
		})
	}
}

// TestBadRows: what cannot be understood is told, and what would be dangerous to take for empty is not stored.
func TestBadRows(t *testing.T) {
	t.Parallel()
	const tail = `,"isinactive":"F","modified_utc":"2026-03-02T17:04:05Z"`
	for item, want := range map[string]string{
		`7`:                                     "contact//record/not_an_object",
		`null`:                                  "contact//record/not_an_object",
		`{"email":"a@b.example"` + tail + `}`:   "contact//id/missing_id",
		`{"id":"-4"` + tail + `}`:               "contact//id/missing_id",
		`{"id":"07"` + tail + `}`:               "contact//id/missing_id",
		`{"id":"7; DROP"` + tail + `}`:          "contact//id/missing_id",
		`{"id":{"x":1}` + tail + `}`:            "contact//id/missing_id",
		`{"id":"7"}`:                            "contact/7/isinactive/not_a_flag",
		`{"id":"7","isinactive":"yes"}`:         "contact/7/isinactive/not_a_flag",
		`{"id":"7","company":"x"` + tail + `}`:  "contact/7/company/not_an_id",
		`{"id":"7","company":[]` + tail + `}`:   "contact/7/company/not_an_id",
		`{"id":"7","email":[1]` + tail + `}`:    "contact/7/email/not_text stored",
		`{"id":"7","company":"-2"` + tail + `}`: " stored",
		`{"id":"7","isinactive":"F","modified_utc":"3/2/2026"}`: "contact/7/lastmodifieddate/not_a_time stored",
	} {
		var page connector.Page
		fillContacts(&page, rows(t, item), lacks{})
		var got string
		for _, b := range page.Bad {
			got += fmt.Sprintf("%s/%s/%s/%s", b.Key.Kind, b.Key.ID, b.Field, b.Reason)
		}
		if len(page.Contacts) > 0 {
			got += " stored"
		}
		if got != want {
			t.Errorf("%s: %s, want %s", item, got, want)
		}
		if len(page.Links) > 0 {
			t.Errorf("%s: a link", item)
		}
	}

	var page connector.Page
	fillRelations(&page, rows(t, `{"company":"3","contact":"4","role":"x"}`, `{"company":"3","role":"1"}`, `"x"`,
		`{"company":"3","contact":"9","role":5}`, `{"company":"0","contact":"9"}`, `{"company":"-2","contact":"9"}`), lacks{})
	if len(page.Links) != 2 || page.Links[1].Customer != "-2" || page.Links[0].Roles[0] != (connector.ERPRole{Key: "5", Name: "Contact role 5"}) || len(page.Bad) != 4 {
		t.Errorf("%+v", page)
	}
}

// TestRowsGoForward: rows that go back would be read for ever, and those between be missed. A deleted record may come once for
// each of its types.
func TestRowsGoForward(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		t     *table
		items string
		want  place // zero: an error
	}{
		{contactTable, `{"id":"10"}|{"id":"11"}`, place{Last: 11}},
		{contactTable, `{"email":"x"}|{"id":"12"}`, place{Last: 12}},
		{contactTable, `{"email":"x"}`, place{Last: 9, Company: 5}},
		{contactTable, `{"id":"3"}`, place{}},
		{contactTable, `{"id":"11"}|{"id":"10"}`, place{}},
		{contactTable, `{"id":"11"}|{"id":"11"}`, place{}},
		{deletedTable, `{"recordid":"10"}|{"recordid":"10"}|{"recordid":"12"}`, place{Last: 12}},
		{deletedTable, `{"recordid":"3"}`, place{}},
		{relationTable, `{"company":"6","contact":"9"}|{"company":"2","contact":"10"}|{"company":"3","contact":"10"}`, place{10, 3}},
		{relationTable, `{"company":"-2","contact":"10"}|{"company":"3","contact":"10"}`, place{10, 3}},
		{relationTable, `{"company":"5","contact":"9"}`, place{}},
		{relationTable, `{"company":"4","contact":"9"}`, place{}},
		{relationTable, `{"company":"99","contact":"8"}`, place{}},
	} {
		at := place{Last: 9, Company: 5}
		if c.t != relationTable && c.want.Last != 9 {
			at.Company = 0
		}
		if err := c.t.advance(&at, rows(t, strings.Split(c.items, "|")...)); (err == nil) != (c.want != place{}) || err == nil && at != c.want {
			t.Errorf("%s %s: %+v %v, want %+v", c.t.name, c.items, at, err, c.want)
		}
	}
}

// TestAnswersAreWhole: an answer that lacks rows, or says so, is none.
func TestAnswersAreWhole(t *testing.T) {
	t.Parallel()
	for body, whole := range map[string]bool{
		`{"items":[],"count":0,"hasMore":false,"totalResults":0}`:                     true,
		`{"items":[{"id":"1"}],"count":1,"hasMore":true,"totalResults":9}`:            true,
		`{"items":[{"id":"1"}],"count":1,"hasMore":false,"totalResults":1,"links":7}`: true,
		`{"items":[{"id":"1"}],"count":1,"hasMore":false,"totalResults":2}`:           false,
		`{"items":[{"id":"1"}],"count":2,"hasMore":false,"totalResults":2}`:           false,
		`{"count":0,"hasMore":false,"totalResults":0}`:                                false,
		`{"items":[],"count":0,"totalResults":0}`:                                     false,
		`{"items":[],"hasMore":false,"totalResults":0}`:                               false,
		`{"items":[],"count":0,"hasMore":false}`:                                      false,
		`{"items":null,"count":0,"hasMore":false,"totalResults":0}`:                   false,
		`{"items":[],"count":0,"hasMore":"false","totalResults":0}`:                   false,
		`{"items":[7],"count":1,"hasMore":false,"totalResults":1}`:                    true,
		`{"items":[7,{"id":"1"}],"count":2,"hasMore":false,"totalResults":2}`:         true,
		`{"items":{},"count":0,"hasMore":false,"totalResults":0}`:                     false,
		`{"items":"","count":0,"hasMore":false,"totalResults":0}`:                     false,
		`{"items":[7],"count":1,"hasMore":false,"totalResults":"5000"}`:               false,
		`{"count":1,"hasMore":false,"items":[[]],"totalResults":{}}`:                  false,
		`{"items":[7],"count":1,"hasMore":"true","totalResults":1}`:                   false,
		`{"items":[7],"count":"1","hasMore":false,"totalResults":1}`:                  false,
		`{}`:                  false,
		`{"items":[{"id":"1"`: false,
	} {
		if _, err := parseAnswer("test", []byte(body)); (err == nil) != whole || err != nil && connector.KindOf(err) != connector.Transient {
			t.Errorf("%s: %v", body, err)
		}
	}
}

// FuzzRows: no answer, however odd, panics, loses a row without a word, or puts a record on a page without an id.
func FuzzRows(f *testing.F) {
	for _, s := range []string{
		`{"id":"1","isinactive":"F"}`, `{"ID":1,"isinactive":true,"email":"a"}`, `{"id":"1","id":"2","isinactive":"T"}`, `[]`, `7`,
		`{"id":null}`, `{"id":"1","isinactive":"F","email":"\ud800","company":"2"}`, `{"company":"1","contact":"2","role":"-10"}`,
	} {
		f.Add([]byte(s))
	}
	f.Fuzz(func(t *testing.T, item []byte) {
		if !json.Valid(item) {
			return
		}
		a, err := parseAnswer("fuzz", fmt.Appendf(nil, `{"items":[%s],"count":1,"hasMore":false,"totalResults":1}`, item))
		if err != nil {
			return
		}
		for _, fill := range []func(*connector.Page, []row, lacks){
			fillCustomers, fillContacts, fillRelations,
		} {
			var page connector.Page
			fill(&page, a.rows, lacks{})
			if len(page.Contacts)+len(page.Links)+len(page.Bad) == 0 {
				t.Errorf("%s leaves no trace", item)
			}
			for _, c := range page.Contacts {
				if c.ID == "" {
					t.Errorf("%s has no id", item)
				}
			}
		}
	})
}

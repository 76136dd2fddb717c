package online

import (
	"cmp"
	"encoding/json"
	"errors"
	"strings"
	"time"

	"github.com/centime/contactsync/internal/connector"
	"github.com/centime/contactsync/internal/contact"
	"github.com/centime/contactsync/internal/erphttp"
)

// row is a Customer as the query returns it. Only attributes that have a value are there. Unknown ones are passed over.
type row struct {
	ID       erphttp.Text `json:"Id"`
	MetaData struct {
		CreateTime, LastUpdatedTime erphttp.Text
	}
	SyncToken                         erphttp.Text
	DisplayName, CompanyName          erphttp.Text
	GivenName, MiddleName, FamilyName erphttp.Text

	Active, Job, BillWithParent, IsProject erphttp.Flag
	ParentRef                              object

	PrimaryEmailAddr, PrimaryPhone, AlternatePhone, Mobile, Fax, WebAddr object

	odd bool // it is no object
}

// object is a member that holds one text under a name of its own.
type object struct {
	Text erphttp.Text
	Odd  bool // there, and no object
}

func (o *object) UnmarshalJSON(b []byte) error {
	*o = object{}
	if string(b) == "null" {
		return nil
	}
	if len(b) == 0 || b[0] != '{' {
		o.Odd = true
		return nil
	}
	var in struct {
		Address, FreeFormNumber, URI, Value *erphttp.Text
	}
	if err := json.Unmarshal(b, &in); err != nil {
		o.Odd = true
		return nil //nolint:nilerr // reported as a bad field
	}
	for _, t := range []*erphttp.Text{in.Address, in.FreeFormNumber, in.URI, in.Value} {
		if t != nil {
			o.Text = *t
		}
	}
	o.Odd = o.Text.Odd
	return nil
}

// answer is the reply to a query.
type answer struct {
	rows  []row // in the order and number of the answer
	total *int64
	time  time.Time // the server's clock when the request began; zero if unreadable
}

var errNoResponse = errors.New("no QueryResponse in it")

// parseAnswer reads a body that judge found to be no fault. Empty results have no Customer key; a reply without a
// QueryResponse is no answer, so that nothing absent is made of it.
func parseAnswer(body []byte) (answer, error) {
	var reply struct {
		QueryResponse *struct {
			Customer   []row
			TotalCount *int64 `json:"totalCount"`
		}
		Time erphttp.Text `json:"time"`
	}
	err := json.Unmarshal(body, &reply)
	var a answer
	if _, odd := errors.AsType[*json.UnmarshalTypeError](err); odd {
		return parseOdd(body)
	}
	if err != nil {
		return a, err
	}
	if reply.QueryResponse == nil {
		return a, errNoResponse
	}
	a.rows, a.total = reply.QueryResponse.Customer, reply.QueryResponse.TotalCount
	a.time, _ = parseTime(reply.Time.Value)
	return a, nil
}

// parseOdd reads a page of which some row has an unexpected shape, row by row.
func parseOdd(body []byte) (answer, error) {
	var reply struct {
		QueryResponse *struct {
			Customer []json.RawMessage
		}
		Time erphttp.Text `json:"time"`
	}
	var a answer
	if err := json.Unmarshal(body, &reply); err != nil {
		return a, err
	}
	if reply.QueryResponse == nil {
		return a, errNoResponse
	}
	for _, raw := range reply.QueryResponse.Customer {
		var r row
		if len(raw) == 0 || raw[0] != '{' {
			a.rows = append(a.rows, row{odd: true})
			continue
		}
		// Members of an odd shape are left out; the rest of the row is read.
		_ = json.Unmarshal(raw, &r)
		a.rows = append(a.rows, r)
	}
	a.time, _ = parseTime(reply.Time.Value)
	return a, nil
}

// parseTime reads a time with its offset. The service answers in US Pacific time for every company
// (https://github.com/intuit/QuickBooks-V3-Java-SDK/issues/26), whose local clock repeats an hour each autumn: only
// instants are compared.
func parseTime(s string) (time.Time, bool) {
	t, err := time.Parse(time.RFC3339Nano, s)
	if err != nil || t.Year() < 1990 || t.Year() > 2200 {
		return time.Time{}, false
	}
	return t.UTC(), true
}

// deletedSuffix is put behind the name of a customer that is made inactive
// (ruckus/quickbooks-ruby: spec/fixtures/deleted_customer.xml).
const deletedSuffix = " (deleted)"

// add puts a row on a page: the customer, the contact its own record is, and their link.
func (r *row) add(page *connector.Page) {
	id := r.ID.Value
	key := connector.Key{Kind: connector.Customers, ID: id}
	bad := func(field, reason string) {
		page.Bad = append(page.Bad, connector.Bad{Key: key, Field: field, Reason: reason})
	}
	switch {
	case r.odd:
		bad("record", "not_an_object")
		return
	case id == "":
		bad("Id", "missing_id")
		return
	case r.Active.Odd:
		bad("Active", "not_a_boolean") // taken for active, somebody who left would get mail again
		return
	case r.empty():
		bad("record", "nothing_readable") // stored, it would clear a name and addresses that may well be there
		return
	}
	text := func(field string, t erphttp.Text) string {
		if t.Odd {
			bad(field, "not_text")
		}
		return t.Value
	}
	flag := func(field string, f erphttp.Flag, byDefault bool) bool {
		if f.Odd {
			bad(field, "not_a_boolean")
		}
		if !f.Set {
			return byDefault
		}
		return f.Value
	}
	inner := func(field string, o object) string {
		if o.Odd {
			bad(field, "not_text")
		}
		return o.Text.Value
	}

	active := flag("Active", r.Active, true)
	given, family := text("GivenName", r.GivenName), text("FamilyName", r.FamilyName)
	person := words(given, text("MiddleName", r.MiddleName), family)
	name, company := text("DisplayName", r.DisplayName), text("CompanyName", r.CompanyName)
	if !active {
		name = strings.TrimSuffix(name, deletedSuffix)
	}
	for _, other := range []string{company, person} {
		if strings.TrimSpace(name) == "" {
			name = other
		}
	}
	modified, readable := parseTime(text("MetaData.LastUpdatedTime", r.MetaData.LastUpdatedTime))
	if !readable && !r.MetaData.LastUpdatedTime.Odd {
		bad("MetaData.LastUpdatedTime", "not_a_time")
	}
	// A payment moves the time, on the customer and on its parent, and not this.
	edition := ""
	if token := r.SyncToken.Value; token != "" {
		edition = "in edit " + short(token)
	}
	parent := inner("ParentRef", r.ParentRef)
	kind := contact.Customer
	switch {
	case flag("IsProject", r.IsProject, false):
		kind = contact.Project
	case parent != "" || flag("Job", r.Job, false):
		kind = contact.SubCustomer // or a job: QuickBooks Online does not tell them apart
	}
	page.Customers = append(page.Customers, connector.Customer{
		ID: id, Name: name, ParentID: parent, BillWithParent: flag("BillWithParent", r.BillWithParent, false),
		Kind: kind, Active: active, ModifiedAt: modified, Edition: edition,
	})
	own := connector.Contact{
		ID: contact.OwnID(id), Name: cmp.Or(person, name), GivenName: given, FamilyName: family,
		Active: active, ModifiedAt: modified, Edition: edition, // no JobTitle: Title is a salutation
	}
	for _, ch := range []struct {
		kind  contact.PointKind
		field string
		value object
	}{
		{contact.Email, "PrimaryEmailAddr", r.PrimaryEmailAddr}, {contact.Phone, "PrimaryPhone", r.PrimaryPhone},
		{contact.Phone, "AlternatePhone", r.AlternatePhone}, {contact.Mobile, "Mobile", r.Mobile},
		{contact.Fax, "Fax", r.Fax}, {contact.Web, "WebAddr", r.WebAddr},
	} {
		if value := inner(ch.field, ch.value); strings.TrimSpace(value) != "" {
			if own.Channels == nil {
				own.Channels = make([]connector.Channel, 0, 3) // most have no more
			}
			own.Channels = append(own.Channels, connector.Channel{
				Kind: ch.kind, Field: ch.field, Value: value, Main: ch.kind == contact.Email,
			})
		}
	}
	page.Contacts = append(page.Contacts, own)
	page.Links = append(page.Links, connector.Link{
		Customer: id, Contact: own.ID, StatedBy: key, Roles: []connector.ERPRole{connector.CompanyRole},
	})
}

// empty tells that no more than the id of a row can be read: a live one has a name and says whether it is active. The
// tombstones of change data capture look so, and say nothing of what they lack.
func (r *row) empty() bool {
	for _, t := range []erphttp.Text{
		r.DisplayName, r.CompanyName, r.GivenName, r.MiddleName, r.FamilyName, r.PrimaryEmailAddr.Text, r.PrimaryPhone.Text,
		r.AlternatePhone.Text, r.Mobile.Text, r.Fax.Text, r.WebAddr.Text, r.ParentRef.Text,
	} {
		if t.Set {
			return false
		}
	}
	return !r.Active.Set
}

func words(parts ...string) string {
	var out []string
	for _, p := range parts {
		if p = strings.TrimSpace(p); p != "" {
			out = append(out, p)
		}
	}
	return strings.Join(out, " ")
}

package suiteql

import (
	"encoding/json"
	"strconv"
	"strings"
	"time"

	"github.com/tidwall/gjson"

	"github.com/centime/contactsync/internal/connector"
	"github.com/centime/contactsync/internal/contact"
	"github.com/centime/contactsync/internal/erphttp"
)

// A cell is a value of a row. NetSuite sends all of them as strings; numbers and booleans are taken for the strings
// they would be.
type cell struct{ erphttp.Text }

func (c *cell) UnmarshalJSON(b []byte) error {
	switch {
	case len(b) == 0:
		*c = cell{}
	case string(b) == "true":
		*c = cell{erphttp.Text{Value: "T", Set: true}}
	case string(b) == "false":
		*c = cell{erphttp.Text{Value: "F", Set: true}}
	case b[0] == '-' || b[0] >= '0' && b[0] <= '9':
		*c = cell{erphttp.Text{Value: string(b), Set: true}}
	default:
		return c.Text.UnmarshalJSON(b)
	}
	return nil
}

// A row is an item of an answer. A column without a value is left out of it.
type row struct {
	cells []namedCell // so few that to look through them is faster than a map
	odd   bool        // it is no object
}

type namedCell struct {
	name string // lower-case: casing may change between releases (OH/section_156257796125)
	cell
}

// rowOf reads an item that is well-formed; of one that is no object there are no cells.
func rowOf(item []byte) row {
	object := gjson.ParseBytes(item)
	if !object.IsObject() {
		return row{odd: true}
	}
	r := row{cells: make([]namedCell, 0, 12)}
	object.ForEach(func(name, value gjson.Result) bool {
		c := namedCell{name: strings.ToLower(name.String())}
		_ = c.UnmarshalJSON([]byte(value.Raw)) // never fails
		r.cells = append(r.cells, c)
		return true
	})
	return r
}

// cell is the last of that name; the zero value if there is none.
func (r row) cell(name string) cell {
	for i := len(r.cells) - 1; i >= 0; i-- {
		if r.cells[i].name == name {
			return r.cells[i].cell
		}
	}
	return cell{}
}

// text is a cell's text; empty if there is none.
func (r row) text(name string) string { return r.cell(name).Value }

// An answer is a page of rows.
type answer struct {
	rows    []row
	hasMore bool
}

// parseAnswer reads a body that judge found to be one. A statement yields 100,000 rows at most, and the rest is cut
// without a word but for totalResults: https://github.com/salto-io/salto/pull/6061.
func parseAnswer(step string, body []byte) (answer, error) {
	var reply struct {
		Items   *[]json.RawMessage `json:"items"`
		HasMore *bool              `json:"hasMore"`
		Count   *int               `json:"count"`
		Offset  int                `json:"offset"`
		Total   *int               `json:"totalResults"`
	}
	if err := json.Unmarshal(body, &reply); err != nil || reply.Items == nil || reply.HasMore == nil || reply.Count == nil || reply.Total == nil ||
		*reply.Count != len(*reply.Items) {
		return answer{}, unreadable(step)
	}
	if !*reply.HasMore && *reply.Total > reply.Offset+*reply.Count {
		return answer{}, &connector.Error{
			Kind: connector.Transient, Step: step, Message: "the answer ends before its last row, as NetSuite itself says",
		}
	}
	rows := make([]row, 0, len(*reply.Items))
	for _, item := range *reply.Items {
		rows = append(rows, rowOf(item))
	}
	return answer{rows, *reply.HasMore}, nil
}

// parseID reads an internal id. System entities, below 0, have none that counts.
func parseID(text string) (int64, bool) {
	id, err := strconv.ParseInt(text, 10, 64)
	return id, err == nil && id > 0 && strconv.FormatInt(id, 10) == text
}

// record reads the cells of one row, and notes on the page what is bad in it.
type record struct {
	row
	key  connector.Key
	page *connector.Page
}

func (r *record) bad(field, reason string) {
	r.page.Bad = append(r.page.Bad, connector.Bad{Key: r.key, Field: field, Reason: reason})
}

// value is a cell's text; one that is no text is reported and read as empty.
func (r *record) value(name string) string {
	c := r.cell(name)
	if c.Odd {
		r.bad(name, "not_text")
	}
	return c.Value
}

// open begins to read a row of customers or contacts. The rest of one that cannot be understood is not looked at.
func open(page *connector.Page, kind connector.Kind, r row) (*record, bool) {
	rec := &record{row: r, key: connector.Key{Kind: kind}, page: page}
	id, ok := parseID(r.text("id"))
	switch {
	case r.odd:
		rec.bad("record", "not_an_object")
		return nil, false
	case !ok:
		rec.bad("id", "missing_id")
		return nil, false
	}
	rec.key.ID = strconv.FormatInt(id, 10)
	if active := r.text("isinactive"); active != "T" && active != "F" {
		rec.bad("isinactive", "not_a_flag") // taken for active, somebody who left would get mail again
		return nil, false
	}
	return rec, true
}

func (r *record) active() bool { return r.text("isinactive") == "F" }

// modifiedAt is the zero time where the account does not tell it in UTC: the session's own zone is not known.
func (r *record) modifiedAt(l lacks, table string) time.Time {
	text := r.value(utc)
	if l.has(table+"."+utc) || r.cell(utc).Odd {
		return time.Time{}
	}
	at, err := time.Parse(time.RFC3339, text)
	if err != nil || at.Year() < 1970 || at.Year() > 2200 {
		r.bad("lastmodifieddate", "not_a_time")
		return time.Time{}
	}
	return at.UTC()
}

// A field is a column that a contact can be reached by.
type field struct {
	kind contact.PointKind
	name string
}

var (
	customerFields = []field{
		{contact.Email, "email"}, {contact.Email, "altemail"}, {contact.Phone, "phone"}, {contact.Phone, "altphone"},
		{contact.Mobile, "mobilephone"}, {contact.Phone, "homephone"}, {contact.Fax, "fax"}, {contact.Web, "url"},
	}
	contactFields = []field{
		{contact.Email, "email"}, {contact.Email, "altemail"}, {contact.Phone, "phone"}, {contact.Phone, "officephone"},
		{contact.Mobile, "mobilephone"}, {contact.Phone, "homephone"}, {contact.Fax, "fax"},
	}
)

// channels are the fields that have a value. Mail goes to email alone; altemail is kept beside it.
func (r *record) channels(fields []field) []connector.Channel {
	var all []connector.Channel
	for _, f := range fields {
		if value := r.value(f.name); strings.TrimSpace(value) != "" {
			all = append(all, connector.Channel{Kind: f.kind, Field: f.name, Value: value, Main: f.name == "email"})
		}
	}
	return all
}

func fillCustomers(page *connector.Page, rows []row, l lacks) {
	for _, r := range rows {
		if rec, ok := open(page, connector.Customers, r); ok {
			rec.customer(l)
		}
	}
}

func fillContacts(page *connector.Page, rows []row, l lacks) {
	for _, r := range rows {
		if rec, ok := open(page, connector.Contacts, r); ok {
			rec.contact(l)
		}
	}
}

// customer puts a customer on the page, the contact that its own record is, and the link of the two. That contact is
// there without an address too.
func (r *record) customer(l lacks) {
	id := r.key.ID
	code, given, family := r.value("entityid"), r.value("firstname"), r.value("lastname")
	person := words(given, r.value("middlename"), family)
	company := r.value("companyname")
	isPerson := r.value("isperson") == "T" || !r.cell("isperson").Set && strings.TrimSpace(company) == "" && person != ""
	name := first(company, r.value("altname"), person, code)
	own := connector.Contact{ID: contact.OwnID(id), Name: name, Active: r.active()}
	title := r.value("title")
	if isPerson {
		name = first(person, r.value("altname"), company, code)
		own.Name, own.GivenName, own.FamilyName, own.JobTitle = name, given, family, title
	}
	own.Channels = r.channels(customerFields)
	parent := r.value("parent")
	if _, ok := parseID(parent); !ok || parent == id { // some accounts are said to name the record itself
		if parent != "" && parent != id && !strings.HasPrefix(parent, "-") {
			r.bad("parent", "not_an_id")
		}
		parent = ""
	}
	if strings.TrimSpace(code) == strings.TrimSpace(name) {
		code = "" // the company has no numbers
	}
	own.ModifiedAt = r.modifiedAt(l, "customer")
	r.page.Customers = append(r.page.Customers, connector.Customer{
		ID: id, Number: code, Name: name, ParentID: parent, Kind: stage(r.value("searchstage"), parent), Active: own.Active,
		ModifiedAt: own.ModifiedAt,
	})
	r.page.Contacts = append(r.page.Contacts, own)
	r.page.Links = append(r.page.Links, connector.Link{
		Customer: id, Contact: own.ID, StatedBy: r.key, Roles: []connector.ERPRole{connector.CompanyRole},
	})
}

// stage reads searchstage, which is text for people and may be translated: what is not known to be a lead or prospect
// is a customer. Nothing about mail hangs on it.
func stage(text, parent string) contact.CustomerKind {
	switch strings.ToLower(strings.TrimSpace(text)) {
	case "lead":
		return contact.Lead
	case "prospect":
		return contact.Prospect
	}
	if parent != "" {
		return contact.SubCustomer
	}
	return contact.Customer
}

// contact puts a contact on the page, and its place at its main company, without a role. If that is a vendor, nobody
// holds it.
func (r *record) contact(l lacks) {
	company := r.cell("company")
	main, ok := parseID(company.Value)
	if company.Odd || !ok && company.Value != "" && !strings.HasPrefix(company.Value, "-") {
		r.bad("company", "not_an_id") // read as none, the contact would leave its customer
		return
	}
	given, family := r.value("firstname"), r.value("lastname")
	c := connector.Contact{
		ID: r.key.ID, Name: first(words(given, r.value("middlename"), family), r.value("entityid")),
		GivenName: given, FamilyName: family, JobTitle: r.value("title"), Active: r.active(),
		Channels: r.channels(contactFields), ModifiedAt: r.modifiedAt(l, "contact"),
	}
	r.page.Contacts = append(r.page.Contacts, c)
	if ok {
		r.page.Links = append(r.page.Links, connector.Link{
			Customer: strconv.FormatInt(main, 10), Contact: c.ID, StatedBy: r.key,
		})
	}
}

// primaryRole is NetSuite's Primary Contact, whatever it is called: OH/article_0113084334.
const primaryRole = "-10"

// fillRelations puts rows of contacts' places at customers on the page. A contact has one role at a customer at most.
func fillRelations(page *connector.Page, rows []row, _ lacks) {
	for _, r := range rows {
		rec := &record{row: r, key: connector.Key{Kind: connector.Links}, page: page}
		switch _, ok := relationKey(r); {
		case r.odd:
			rec.bad("record", "not_an_object")
			continue
		case !ok:
			rec.bad("id", "missing_id")
			continue
		}
		link := connector.Link{Customer: r.text("company"), Contact: r.text("contact")}
		rec.key.ID = connector.LinkID(link.Customer, link.Contact)
		role := r.cell("role")
		if _, err := strconv.ParseInt(role.Value, 10, 64); role.Odd || err != nil && role.Value != "" {
			rec.bad("role", "not_an_id") // read as none, the contact would lose its mail
			continue
		}
		if role.Value != "" {
			link.Roles = []connector.ERPRole{{Key: role.Value, Name: roleLabel(role.Value, rec.value(roleName))}}
		}
		page.Links = append(page.Links, link)
		if role.Value != primaryRole {
			continue
		}
		if first := r.text(firstPrimary); first != "" && first != link.Contact {
			rec.bad("role", "two_primary_contacts")
		}
		if own := r.text(primaryContact); own != "" && own != link.Contact {
			rec.bad("role", "customer_names_another_primary_contact")
		}
	}
}

func roleLabel(key, name string) string {
	switch {
	case strings.TrimSpace(name) != "":
		return name
	case key == primaryRole:
		return "Primary Contact"
	}
	return "Contact role " + key
}

// fillDeleted puts the ERP's claims on the page: every type but a contact is a customer at some stage.
func fillDeleted(page *connector.Page, rows []row, _ lacks) {
	for _, r := range rows {
		id, ok := parseID(r.text("recordid"))
		if !ok {
			continue // a claim is a hint: the next full listing finds what it was about
		}
		kind := connector.Customers
		if strings.EqualFold(r.text("type"), "contact") {
			kind = connector.Contacts
		}
		page.Deleted = append(page.Deleted, connector.Key{Kind: kind, ID: strconv.FormatInt(id, 10)})
	}
}

// first is the first text that is not blank.
func first(texts ...string) string {
	for _, t := range texts {
		if strings.TrimSpace(t) != "" {
			return t
		}
	}
	return ""
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

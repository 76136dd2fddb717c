package demo

import (
	"context"
	"database/sql"
	"encoding/json"
	"fmt"
	"net/http"
	"strconv"
	"strings"
)

// account is the NetSuite account beside the QuickBooks companies.
var account = company{"1234567_SB1", "Fjord Glass", 400}

// netSuite is an account as the simulator's control port shows it: from its state, and through no connector.
type netSuite struct {
	Customers []struct {
		ID          string `json:"id"`
		EntityID    string `json:"entity_id"`
		AltName     string `json:"alt_name"`
		CompanyName string `json:"company_name"`
		Person      bool   `json:"person"`
		Title       string `json:"title"`
		Inactive    bool   `json:"inactive"`
		Parent      string `json:"parent"`
		Stage       string `json:"stage"`
		AltPhone    string `json:"alt_phone"`
		URL         string `json:"url"`
		person
	}
	Contacts []struct {
		ID          string `json:"id"`
		EntityID    string `json:"entity_id"`
		Title       string `json:"title"`
		Inactive    bool   `json:"inactive"`
		Private     bool   `json:"private"`
		Company     string `json:"company"`
		OfficePhone string `json:"office_phone"`
		person
	}
	Links []struct {
		Company string `json:"company"`
		Contact string `json:"contact"`
		Role    string `json:"role"`
	}
	Roles []struct {
		ID   string `json:"id"`
		Name string `json:"name"`
	}
}

// person is what customers and contacts have in common.
type person struct {
	FirstName   string `json:"first_name"`
	MiddleName  string `json:"middle_name"`
	LastName    string `json:"last_name"`
	Email       string `json:"email"`
	AltEmail    string `json:"alt_email"`
	Phone       string `json:"phone"`
	MobilePhone string `json:"mobile_phone"`
	HomePhone   string `json:"home_phone"`
	Fax         string `json:"fax"`
}

func (p person) name() string {
	return strings.Join(strings.Fields(p.FirstName+" "+p.MiddleName+" "+p.LastName), " ")
}

// points puts what a record can be reached by beside its other fields.
func (p person) points(fields map[string]string, more map[string]string) {
	for field, value := range map[string]string{"phone": p.Phone, "mobilephone": p.MobilePhone, "homephone": p.HomePhone, "fax": p.Fax} {
		more[field] = value
	}
	for field, value := range more {
		if value = strings.TrimSpace(value); value != "" {
			fields[field+" 1"] = value
		}
	}
	for field, value := range map[string]string{"email": p.Email, "altemail": p.AltEmail} {
		for i, address := range addresses(value) {
			fields[fmt.Sprintf("%s %d", field, i+1)] = address
		}
	}
}

// facts are fields by record; the records are of one kind.
type facts map[string]map[string]string

// suite is what is compared of a NetSuite account.
type suite struct{ customers, contacts, links facts }

// expected is what Postgres must hold of an account: what its login may see.
func (n netSuite) expected() suite {
	out := suite{facts{}, facts{}, facts{}}
	roles := map[string]string{"": ""}
	for _, r := range n.Roles {
		roles[r.ID] = r.Name
	}
	seen := map[string]bool{}
	link := func(customer, contact, role, name string) {
		out.links[customer+"/"+contact] = map[string]string{"active": "true", "erp_role_key": role, "erp_role": name}
	}
	for _, c := range n.Customers {
		name := first(c.CompanyName, c.AltName, c.person.name(), c.EntityID)
		own := map[string]string{"name": name, "given_name": "", "family_name": "", "job_title": "", "active": strconv.FormatBool(!c.Inactive)}
		if c.Person {
			name = first(c.person.name(), c.AltName, c.CompanyName, c.EntityID)
			own["name"], own["given_name"], own["family_name"], own["job_title"] = name, c.FirstName, c.LastName, c.Title
		}
		kind := map[string]string{"Lead": "lead", "Prospect": "prospect"}[c.Stage]
		if kind == "" && c.Parent != "" {
			kind = "sub_customer"
		}
		number := c.EntityID
		if number == name {
			number = ""
		}
		out.customers[c.ID] = map[string]string{
			"name": name, "number": number, "parent": c.Parent, "kind": first(kind, "customer"), "active": strconv.FormatBool(!c.Inactive),
		}
		c.points(own, map[string]string{"altphone": c.AltPhone, "url": c.URL})
		out.contacts["customer:"+c.ID] = own
		link(c.ID, "customer:"+c.ID, "company", "Company Contact")
	}
	for _, c := range n.Contacts {
		if c.Private {
			continue // nobody but its owner sees it
		}
		seen[c.ID] = true
		fields := map[string]string{
			"name": first(c.person.name(), c.EntityID), "given_name": c.FirstName, "family_name": c.LastName, "job_title": c.Title,
			"active": strconv.FormatBool(!c.Inactive),
		}
		c.points(fields, map[string]string{"officephone": c.OfficePhone})
		out.contacts[c.ID] = fields
		if out.customers[c.Company] != nil {
			link(c.Company, c.ID, "", "")
		}
	}
	for _, l := range n.Links {
		if out.customers[l.Company] != nil && seen[l.Contact] {
			link(l.Company, l.Contact, l.Role, roles[l.Role])
		}
	}
	return out
}

func first(texts ...string) string {
	for _, t := range texts {
		if t = strings.TrimSpace(t); t != "" {
			return t
		}
	}
	return ""
}

// gone are the reasons of a record that the ERP has no more; its places went with it.
const gone = `('erp_deleted', 'erp_merged', 'erp_absent')`

// heldSuite reads the same fields of one connection from Postgres.
func heldSuite(ctx context.Context, db *sql.DB, account string) (suite, error) {
	var out suite
	for _, part := range []struct {
		into  *facts
		query string
	}{
		{&out.customers, `SELECT cu.erp_id, json_build_object('name', cu.name, 'number', cu.number, 'parent', cu.parent_erp_id, 'kind', cu.kind,
				'active', cu.active::text), '{}'
			FROM contactsync.connections n JOIN contactsync.customers cu ON cu.tenant_id = n.tenant_id AND cu.connection_id = n.id
			WHERE n.account = $1`},
		{&out.contacts, `SELECT co.erp_id, json_build_object('name', co.name, 'given_name', co.given_name, 'family_name', co.family_name,
				'job_title', co.job_title, 'active', co.active::text),
				coalesce((SELECT json_object_agg(p.field || ' ' || p.place, p.value) FROM contactsync.contact_points p
					WHERE p.tenant_id = co.tenant_id AND p.contact_id = co.id), '{}')
			FROM contactsync.connections n JOIN contactsync.contacts co ON co.tenant_id = n.tenant_id AND co.connection_id = n.id
			WHERE n.account = $1 AND co.origin = 'erp'`},
		{&out.links, `SELECT cu.erp_id || '/' || co.erp_id, json_build_object('active',
				(cc.active AND coalesce(cu.inactive_reason, '') NOT IN ` + gone + ` AND coalesce(co.inactive_reason, '') NOT IN ` + gone + `)::text, 'erp_role_key', coalesce(cc.erp_role_key, ''),
				'erp_role', coalesce(m.erp_role_name, '')), '{}'
			FROM contactsync.connections n JOIN contactsync.customer_contacts cc ON cc.tenant_id = n.tenant_id AND cc.connection_id = n.id
			JOIN contactsync.customers cu ON cu.tenant_id = n.tenant_id AND cu.id = cc.customer_id
			JOIN contactsync.contacts co ON co.tenant_id = n.tenant_id AND co.id = cc.contact_id
			LEFT JOIN contactsync.role_mappings m ON m.tenant_id = n.tenant_id AND m.connection_id = n.id AND m.erp_role_key = cc.erp_role_key
			WHERE n.account = $1 AND cc.origin = 'erp'`},
	} {
		read, err := readFacts(ctx, db, part.query, account)
		if err != nil {
			return suite{}, err
		}
		*part.into = read
	}
	return out, nil
}

// differ says how many fields it compared of the three, and in which records and fields they differ.
func (want suite) differ(held suite) (fields int, differences []string) {
	for _, part := range []struct {
		what       string
		want, held facts
	}{{"customer", want.customers, held.customers}, {"contact", want.contacts, held.contacts}, {"link", want.links, held.links}} {
		n, more := differ(part.what, part.want, part.held)
		fields, differences = fields+n, append(differences, more...)
	}
	return fields, differences
}

// readSuite asks the simulator for the whole account.
func (d *Demo) readSuite(ctx context.Context) (n netSuite, err error) {
	for path, into := range map[string]any{"customers": &n.Customers, "contacts": &n.Contacts, "links": &n.Links, "roles": &n.Roles} {
		if err := d.ask(ctx, http.MethodGet, suitePath+path, nil, into); err != nil {
			return n, err
		}
	}
	return n, nil
}

const suitePath = "/netsuite/accounts/1234567_SB1/"

func (d *Demo) connectSuite(ctx context.Context, api string) error {
	var login json.RawMessage
	if err := d.ask(ctx, http.MethodPost, suitePath+"credentials", nil, &login); err != nil {
		return err
	}
	api += "/1234567-sb1"
	return d.syncctl(ctx, login, "connection", "add", "--tenant", "Northern Finance", "--erp", "netsuite", "--account", account.realm,
		"--set", "api_url="+api, "--set", "token_url="+api+"/services/rest/auth/oauth2/v1/token", "--credentials", "-")
}

// changeSuite lets people work in NetSuite. What they do to relations moves no record's date.
func (d *Demo) changeSuite(ctx context.Context) error {
	n, err := d.readSuite(ctx)
	if err != nil {
		return err
	}
	visible, ofCustomer := n.expected(), map[string]string{} // customers by a contact whose place there is a relation
	var people, firms []string
	for _, l := range n.Links {
		if visible.contacts[l.Contact]["active"] == "true" && visible.customers[l.Company]["active"] == "true" && ofCustomer[l.Contact] == "" {
			ofCustomer[l.Contact] = l.Company
			people = append(people, l.Contact)
		}
	}
	for id, c := range visible.customers {
		if c["active"] == "true" {
			firms = append(firms, id)
		}
	}
	if len(people) < 10 || len(firms) < 10 {
		return fmt.Errorf("%s has too few active contacts", account.name)
	}
	at := func(contact, role string) map[string]any {
		return map[string]any{"company": ofCustomer[contact], "contact": contact, "role": role}
	}
	var joined struct {
		ID string `json:"id"`
	}
	if err := d.ask(ctx, http.MethodPost, suitePath+"contacts", map[string]any{"first_name": "Ada", "last_name": "Newcomer",
		"email": "ada@glass.example", "company": firms[0]}, &joined); err != nil {
		return err
	}
	for _, s := range []struct {
		method, path string
		body         any
	}{
		{http.MethodPut, "links", map[string]any{"company": firms[0], "contact": joined.ID, "role": "-10"}},
		{http.MethodPut, "links", map[string]any{"company": firms[1], "contact": joined.ID, "role": "-20"}},
		{http.MethodPut, "links", at(people[0], "-30")},
		{http.MethodPut, "links", at(people[1], "")},
		{http.MethodDelete, "links/" + ofCustomer[people[2]] + "/" + people[2], nil},
		{http.MethodPatch, "contacts/" + people[3], map[string]any{"email": "moved@glass.example", "fax": ""}},
		{http.MethodPatch, "contacts/" + people[4], map[string]any{"inactive": true}},
		{http.MethodDelete, "contacts/" + people[5], nil},
		{http.MethodPatch, "customers/" + firms[2], map[string]any{"phone": "+1 312 555 0100"}},
		{http.MethodPatch, "roles/-10", map[string]any{"name": "Main Contact"}},
	} {
		if err := d.ask(ctx, s.method, suitePath+s.path, s.body, nil); err != nil {
			return err
		}
	}
	fmt.Fprintf(d.Out, "%s: one joined at two customers, two have another role, one was detached, one moved, one left, one was deleted, "+
		"a role was renamed.\n", account.name)
	return nil
}

func (d *Demo) checkSuite(ctx context.Context) (wrong int, err error) {
	n, err := d.readSuite(ctx)
	if err != nil {
		return 0, err
	}
	here, err := heldSuite(ctx, d.db, account.realm)
	if err != nil {
		return 0, err
	}
	want := n.expected()
	fields, differences := want.differ(here)
	several := map[string]int{}
	for at := range want.links {
		_, contact, _ := strings.Cut(at, "/")
		several[contact]++
	}
	for contact, places := range several {
		if places < 2 {
			delete(several, contact)
		}
	}
	fmt.Fprintf(d.Out, "%s: %d customers, %d contacts (%d at several customers), %d places of contacts, ", account.name, len(want.customers),
		len(want.contacts), len(several), len(want.links))
	d.print(fields, differences)
	return len(differences), nil
}

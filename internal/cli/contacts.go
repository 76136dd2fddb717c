package cli

import (
	"fmt"
	"slices"
	"strconv"
	"strings"

	"github.com/centime/contactsync/internal/contact"
	"github.com/centime/contactsync/internal/postgres"
)

type contactCmds struct {
	List       contactListCmd    `cmd:"" help:"List contacts at customers."`
	Show       contactShowCmd    `cmd:"" help:"Show a contact: its places, points and mail."`
	Explain    contactExplainCmd `cmd:"" help:"Why an address gets which mail, or none."`
	History    contactHistoryCmd `cmd:"" help:"What happened to a contact, by whom and why."`
	Create     contactCreateCmd  `cmd:"" help:"Make a contact in Centime; it never goes to an ERP."`
	Update     contactUpdateCmd  `cmd:"" help:"Change a contact that was made in Centime."`
	AssignRole contactAssignCmd  `cmd:"" help:"Give a contact a role that no sync changes, or give that back."`
	Delete     contactDeleteCmd  `cmd:"" help:"Delete a contact that was made in Centime."`
	Erase      contactEraseCmd   `cmd:"" help:"Erase one person for good; no sync brings them back."`
}

type contactListCmd struct {
	page
	Tenant     string `help:"Only of this tenant."`
	Connection string `help:"Only of this connection."`
	Customer   string `help:"Only of customers with this in their name."`
	Name       string `help:"Only with this in their name."`
	Email      string `help:"Only with this in their address."`
	Origin     string `help:"Only from the erp, or made in centime." enum:",erp,centime" default:""`
	Active     string `help:"Only active (true) or inactive (false)." enum:",true,false" default:""`
}

func (contactListCmd) Help() string {
	return "Example: syncctl contact list --tenant 'Northern Kelp' --email kelp.example --active true"
}

func (c contactListCmd) Run(a *app) error {
	filters, err := a.tenantFilter(c.Tenant)
	if err != nil {
		return err
	}
	of, err := a.connectionFilter(c.Connection)
	if err != nil {
		return err
	}
	filters = append(filters, of...)
	for column, text := range map[string]string{"customer_name": c.Customer, "name": c.Name, "email": c.Email} {
		if text != "" {
			filters = append(filters, postgres.Filter{Column: column, Value: text, Contains: true})
		}
	}
	if c.Origin != "" {
		filters = append(filters, postgres.Filter{Column: "origin", Value: c.Origin})
	}
	if c.Active != "" {
		filters = append(filters, postgres.Filter{Column: "active", Value: c.Active == "true"})
	}
	store, err := a.db()
	if err != nil {
		return err
	}
	rows, err := store.List(a.ctx, postgres.Contacts, c.Limit, c.Offset, filters...)
	if err != nil {
		return err
	}
	left, err := a.leftAmong(store, rows)
	if err != nil {
		return err
	}
	if a.out.json {
		var following any
		if next := c.next(rows); next != "" {
			following = next
		}
		a.out.document(map[string]any{"contacts": objects(rows), "next": following, "may_have_left": leftDocuments(left)})
		return nil
	}
	a.out.list("contacts", rows, c.next(rows),
		"contact_id", "customer_name", "name", "email", "phone", "role", "invoice_presentment", "communication_contact", "active", "inactive_reason", "held")
	a.warnOfLeft(left)
	return nil
}

type contactShowCmd struct {
	Contact string `arg:"" help:"Contact, by id or by an address it has."`
	Tenant  string `help:"Only of this tenant."`
}

func (contactShowCmd) Help() string {
	return "Example: syncctl contact show ingrid@kelp.example --tenant 'Northern Kelp'"
}

func (c contactShowCmd) Run(a *app) error {
	filters, err := a.tenantFilter(c.Tenant)
	if err != nil {
		return err
	}
	store, err := a.db()
	if err != nil {
		return err
	}
	id, numeric := strconv.ParseInt(c.Contact, 10, 64)
	ids := []int64{id}
	if numeric != nil {
		points, err := store.List(a.ctx, postgres.Points, 100, 0, append(filters, postgres.Filter{Column: "normalised", Value: c.Contact, Contains: true})...)
		if err != nil {
			return err
		}
		ids = nil
		seen := map[int64]bool{}
		for _, row := range points.Values {
			if found, ok := row[1].(int64); ok && !seen[found] {
				seen[found] = true
				ids = append(ids, found)
			}
		}
	}
	var shown []map[string]any
	var leftAll []postgres.Left
	for _, id := range ids {
		of := postgres.Filter{Column: "contact_id", Value: id}
		places, err := store.List(a.ctx, postgres.Contacts, 0, 0, append(filters, of)...)
		if err != nil {
			return err
		}
		points, err := store.List(a.ctx, postgres.Points, 0, 0, append(filters, of)...)
		if err != nil {
			return err
		}
		mail, err := store.List(a.ctx, postgres.Recipients, 0, 0, append(filters, of)...)
		if err != nil {
			return err
		}
		if len(places.Values) == 0 {
			continue
		}
		left, err := a.leftAmong(store, places)
		if err != nil {
			return err
		}
		leftAll = append(leftAll, left...)
		shown = append(shown, map[string]any{
			"contact_id": fmt.Sprint(id), "places": objects(places), "points": objects(points), "recipients": objects(mail),
		})
		if !a.out.json {
			for i := range places.Values {
				a.out.show(places, i)
				a.out.say(nil, "")
			}
			a.out.list("points", points, "", "kind", "field", "place", "value", "is_primary", "usable", "first_day", "last_day")
			a.out.say(nil, "")
			a.out.list("mail", mail, "", "customer_id", "communication_type", "email", "role", "stale")
		}
	}
	if len(shown) == 0 {
		return fmt.Errorf("contact %q: %w", c.Contact, postgres.ErrNotFound)
	}
	if a.out.json {
		a.out.document(map[string]any{"contacts": shown, "next": nil, "may_have_left": leftDocuments(leftAll)})
	}
	a.warnOfLeft(leftAll)
	return nil
}

// leftAmong are those of the listed contacts whose addresses the ERP has only in contacts that are not active any more.
func (a *app) leftAmong(store *postgres.Store, rows postgres.Rows) ([]postgres.Left, error) {
	tenant, contactID, origin := slices.Index(rows.Columns, "tenant_id"), slices.Index(rows.Columns, "contact_id"), slices.Index(rows.Columns, "origin")
	listed, asked := map[int64]bool{}, map[int64]bool{}
	var among []postgres.Left
	for _, row := range rows.Values {
		if row[origin] == string(contact.FromCentime) {
			id, _ := row[contactID].(int64)
			listed[id] = true
		}
	}
	for _, row := range rows.Values {
		of, _ := row[tenant].(int64)
		if asked[of] || row[origin] != string(contact.FromCentime) {
			continue
		}
		asked[of] = true
		found, err := store.LeftButMailed(a.ctx, of)
		if err != nil {
			return nil, err
		}
		for _, l := range found {
			if listed[l.Contact] {
				among = append(among, l)
			}
		}
	}
	return among, nil
}

// warnOfLeft warns people of addresses that may be of somebody who left.
func (a *app) warnOfLeft(left []postgres.Left) {
	if a.out.json {
		return
	}
	for _, l := range left {
		a.out.say(nil, "Warning: %s still gets mail by contact %d, which was made in Centime, but contact %d with the same address in the ERP "+
			"is not active any more (%s). Did this person leave?",
			printable(l.Email), l.Contact, l.ERPContact, l.Reason)
	}
}

func leftDocuments(left []postgres.Left) []map[string]any {
	out := []map[string]any{}
	for _, l := range left {
		out = append(out, map[string]any{
			"tenant_id": fmt.Sprint(l.Tenant), "contact_id": fmt.Sprint(l.Contact), "email": l.Email, "erp_contact_id": fmt.Sprint(l.ERPContact),
			"inactive_reason": l.Reason,
		})
	}
	return out
}

// points are flags for those of a contact of Centime's own; --drop, --days and --primary name a point by its value.
type points struct {
	Email, Phone, Mobile, Fax, Web, Social []string `sep:"none" help:"A point to add; may be repeated."`

	Primary []string `sep:"none" placeholder:"VALUE" help:"The point to show for its kind."`
	Days    []string `sep:"none" placeholder:"VALUE=FIRST..LAST" help:"First and last day of a point, both included; either may be missing."`
}

func (p points) edits() (contact.PointEdits, error) {
	e := contact.PointEdits{Primary: p.Primary}
	for kind, values := range [][]string{p.Email, p.Phone, p.Mobile, p.Fax, p.Web, p.Social} {
		for _, v := range values {
			e.Add = append(e.Add, contact.NewPoint{Kind: contact.PointKinds[kind], Value: v})
		}
	}
	for _, d := range p.Days {
		at := strings.LastIndex(d, "=")
		if at < 0 {
			return e, misuse("--days is VALUE=FIRST..LAST, such as ap@kelp.example=2026-12-01..2026-12-31")
		}
		days, err := contact.ParseDays(d[at+1:])
		if err != nil {
			return e, misuse("--days: %v", err)
		}
		e.Days = append(e.Days, contact.PointDays{Value: d[:at], Days: days})
	}
	return e, nil
}

type contactCreateCmd struct {
	ofTenant
	weighed
	points
	Name       string   `arg:"" help:"Its name."`
	Customer   []string `required:"" sep:"none" help:"Customer, by id, erp:ID or name; may be repeated."`
	Role       string   `help:"Role at these customers, by id or name; without one it gets no mail."`
	GivenName  string   `help:"Given name."`
	FamilyName string   `help:"Family name."`
	JobTitle   string   `help:"Job title."`
}

func (contactCreateCmd) Help() string {
	return "Example: syncctl contact create --tenant 'Northern Kelp' --customer 'Sound Shipping' 'Ingrid Solheim' --email ingrid@sound.example " +
		"--days ingrid@sound.example=2026-12-01.. --role Payer --reason 'asked by phone'\n\nIt shows whose mail starts and stops before it asks."
}

func (c contactCreateCmd) Run(a *app) error {
	edits, err := c.edits()
	if err != nil {
		return err
	}
	store, tenant, err := c.find(a)
	if err != nil {
		return err
	}
	n := postgres.NewContact{
		Person: contact.Person{Name: strings.TrimSpace(c.Name), GivenName: c.GivenName, FamilyName: c.FamilyName, JobTitle: c.JobTitle},
		Points: edits, Customers: c.Customer, Role: c.Role,
	}
	return a.own(c.weighed, "Create this contact?", "created", func(how postgres.Weigh, _ *postgres.ContactChange) (postgres.ContactChange, error) {
		return store.CreateContact(a.ctx, tenant, n, how, a.by)
	})
}

// own makes a change of a contact of Centime's own; shown is what the rehearsal found, nil without one.
func (a *app) own(w weighed, question, what string, change func(how postgres.Weigh, shown *postgres.ContactChange) (postgres.ContactChange, error)) error {
	var shown *postgres.ContactChange
	var c postgres.ContactChange
	d, made, err := a.decide(w, question, func(how postgres.Weigh) (postgres.MailDifference, error) {
		var err error
		if c, err = change(how, shown); err != nil {
			return postgres.MailDifference{}, err
		}
		if how.Rehearse {
			was := c
			shown = &was
			a.warnOfLeft(c.Left)
		}
		return c.Mail, nil
	})
	if err != nil {
		return err
	}
	if shown == nil {
		a.warnOfLeft(c.Left)
	}
	fields := map[string]any{"contact_id": nil, "changed": c.Changed, "may_have_left": leftDocuments(c.Left)}
	if c.Contact != 0 {
		fields["contact_id"] = fmt.Sprint(c.Contact)
	}
	text := fmt.Sprintf("Contact %d is %s.", c.Contact, what)
	if !c.Changed {
		text = fmt.Sprintf("Contact %d is as it was: there was nothing to change.", c.Contact)
	}
	a.report(made, d, fields, "%s", text)
	return nil
}

type contactUpdateCmd struct {
	ofTenant
	weighed
	points
	Contact    string   `arg:"" help:"Contact, by id or by an address that no other has."`
	Drop       []string `sep:"none" placeholder:"VALUE" help:"A point to remove; may be repeated."`
	Name       *string  `help:"Another name."`
	GivenName  *string  `help:"Given name."`
	FamilyName *string  `help:"Family name."`
	JobTitle   *string  `help:"Job title."`
	Join       []string `sep:"none" placeholder:"CUSTOMER" help:"Customer to add it to, by id, erp:ID or name."`
	Leave      []string `sep:"none" placeholder:"CUSTOMER" help:"Customer to take it away from."`
	Role       string   `help:"Role at the customers it joins; elsewhere see contact assign-role."`
}

func (contactUpdateCmd) Help() string {
	return "Example: syncctl contact update 812 --tenant 'Northern Kelp' --drop old@sound.example --email new@sound.example\n\n" +
		"What is not named stays. It shows whose mail starts and stops before it asks."
}

func (c contactUpdateCmd) Run(a *app) error {
	edits, err := c.edits()
	if err != nil {
		return err
	}
	edits.Drop = c.Drop
	if c.Role != "" && len(c.Join) == 0 {
		return misuse("--role is for the customers to --join; for the others: syncctl contact assign-role %s ROLE --tenant %q", c.Contact, c.Tenant)
	}
	store, tenant, err := c.find(a)
	if err != nil {
		return err
	}
	e := postgres.ContactEdit{
		Contact: c.Contact, Name: c.Name, GivenName: c.GivenName, FamilyName: c.FamilyName, JobTitle: c.JobTitle, Points: edits,
		Join: c.Join, Leave: c.Leave, Role: c.Role,
	}
	return a.own(c.weighed, "Change this contact?", "changed", func(how postgres.Weigh, shown *postgres.ContactChange) (postgres.ContactChange, error) {
		if shown != nil {
			e.Seen = shown.Seen
		}
		return store.UpdateContact(a.ctx, tenant, e, how, a.by)
	})
}

type contactDeleteCmd struct {
	ofTenant
	weighed
	Contact string `arg:"" help:"Contact, by id or by an address that no other has."`
}

func (contactDeleteCmd) Help() string {
	return "Example: syncctl contact delete 812 --tenant 'Northern Kelp' --reason 'left in May'\n\nIts history stays: syncctl contact history 812 --tenant 'Northern Kelp'"
}

func (c contactDeleteCmd) Run(a *app) error {
	store, tenant, err := c.find(a)
	if err != nil {
		return err
	}
	return a.own(c.weighed, "Delete this contact?", "deleted", func(how postgres.Weigh, _ *postgres.ContactChange) (postgres.ContactChange, error) {
		return store.DeleteContact(a.ctx, tenant, c.Contact, how, a.by)
	})
}

type contactAssignCmd struct {
	ofTenant
	weighed
	Contact      string `arg:"" help:"Contact, by id or by an address that no other has."`
	Role         string `arg:"" optional:"" help:"Role, by id or name."`
	Customer     string `help:"At this customer, by id, erp:ID or name; needed where it is at several."`
	AllCustomers bool   `help:"At all its customers."`
	FollowERP    bool   `name:"follow-erp" help:"Give the choice back: the ERP's role counts again."`
}

func (contactAssignCmd) Help() string {
	return "Example: syncctl contact assign-role ingrid@sound.example Payer --tenant 'Northern Kelp' --reason 'asked by phone'\n\n" +
		"No sync changes it. The ERP's own role is kept and shown beside it; --follow-erp goes back to it."
}

func (c contactAssignCmd) Run(a *app) error {
	switch {
	case (c.Role != "") == c.FollowERP:
		return misuse("name a role, or say --follow-erp: one of the two")
	case c.Customer != "" && c.AllCustomers:
		return misuse("--customer or --all-customers: one of the two")
	}
	store, tenant, err := c.find(a)
	if err != nil {
		return err
	}
	want := postgres.Assignment{Contact: c.Contact, Customer: c.Customer, AllCustomers: c.AllCustomers, Role: c.Role}
	question := "Give this contact the role " + c.Role + "?"
	if c.FollowERP {
		question = "Let this contact follow the ERP's role again?"
	}
	var places []postgres.Place
	d, made, err := a.decide(c.weighed, question, func(how postgres.Weigh) (d postgres.MailDifference, err error) {
		places, d, err = store.AssignRole(a.ctx, tenant, want, how, a.by)
		return d, err
	})
	if err != nil {
		return err
	}
	changed := []map[string]any{}
	var lines []string
	for _, p := range places {
		changed = append(changed, map[string]any{
			"customer_contact_id": fmt.Sprint(p.ID), "customer_id": fmt.Sprint(p.Customer), "customer_name": p.CustomerName,
			"was_chosen": p.Chosen, "erp_role": p.ERPRole, "mapped_role": p.Mapped,
		})
		lines = append(lines, assignment(p, c.Role))
	}
	if len(lines) == 0 {
		lines = []string{"It was so already: there was nothing to change."}
	}
	a.report(made, d, map[string]any{"tenant_id": fmt.Sprint(tenant), "role": c.Role, "places": changed}, "%s", strings.Join(lines, "\n"))
	return nil
}

// assignment says in one line what a place had, has now, and has in the ERP.
func assignment(p postgres.Place, role string) string {
	was := "followed the ERP"
	if p.Chosen != "" {
		was = p.Chosen
	}
	if p.ERPRole == "" {
		p.ERPRole = "none"
	}
	now := role
	if role == "" {
		now = "follows the ERP"
		if p.Mapped != "" {
			now += ", which makes it " + p.Mapped
		}
	}
	return fmt.Sprintf("At %s (%d) from now on: %s; before: %s. ERP role: %s.", printable(p.CustomerName), p.Customer, now, was, p.ERPRole)
}

package cli

import (
	"fmt"
	"os"
	"strconv"

	"golang.org/x/term"

	"github.com/centime/contactsync/internal/postgres"
)

// columns is the width of the terminal.
func (a *app) columns() int {
	if a.TerminalColumns > 0 {
		return a.TerminalColumns
	}
	if f, ok := a.Stdout.(*os.File); ok {
		if width, _, err := term.GetSize(int(f.Fd())); err == nil && width > 20 {
			return width - 1
		}
	}
	return 119
}

type issueCmds struct {
	List issueListCmd `cmd:"" help:"List open issues."`
}

type issueListCmd struct {
	page
	Connection string `help:"Only of this connection."`
}

func (issueListCmd) Help() string { return "Example: syncctl issue list --connection 'Northern Kelp'" }

func (c issueListCmd) Run(a *app) error {
	filters, err := a.connectionFilter(c.Connection)
	if err != nil {
		return err
	}
	return a.list("issues", postgres.Issues, c.page, filters,
		"issue_id", "connection_id", "record_kind", "record_erp_id", "field", "reason", "count", "opened_at", "opened_by_run_id")
}

type roleCmds struct {
	List roleListCmd `cmd:"" help:"List a tenant's roles."`
	Set  roleSetCmd  `cmd:"" help:"Choose which mail a role gets; it holds at once."`
}

type roleListCmd struct {
	page
	Tenant string `required:"" help:"Tenant, by id or name."`
}

func (roleListCmd) Help() string { return "Example: syncctl role list --tenant 'Northern Kelp'" }

func (c roleListCmd) Run(a *app) error {
	filters, err := a.tenantFilter(c.Tenant)
	if err != nil {
		return err
	}
	return a.list("roles", postgres.Roles, c.page, filters,
		"role_id", "role", "invoice_presentment", "communication_contact", "customer_contacts", "erp_roles")
}

type roleSetCmd struct {
	Tenant               string `required:"" help:"Tenant, by id or name."`
	Role                 string `arg:"" help:"Role, by id or name."`
	InvoicePresentment   *bool  `help:"Invoice delivery mail." negatable:""`
	CommunicationContact *bool  `help:"Reminders, workflow mail and statements." negatable:""`
}

func (roleSetCmd) Help() string {
	return "Example: syncctl role set --tenant 'Northern Kelp' 'Company Contact' --invoice-presentment=true"
}

func (c roleSetCmd) Run(a *app) error {
	if c.InvoicePresentment == nil && c.CommunicationContact == nil {
		return misuse("say --invoice-presentment=true|false, --communication-contact=true|false or both")
	}
	store, err := a.db()
	if err != nil {
		return err
	}
	tenant, err := store.FindTenant(a.ctx, c.Tenant)
	if err != nil {
		return err
	}
	if err := store.SetRole(a.ctx, tenant, c.Role, c.InvoicePresentment, c.CommunicationContact, a.by); err != nil {
		return err
	}
	a.out.say(map[string]any{"tenant_id": fmt.Sprint(tenant), "role": c.Role}, "Role %s is changed; it holds from now on.", c.Role)
	return nil
}

type contactCmds struct {
	List contactListCmd `cmd:"" help:"List contacts at customers."`
	Show contactShowCmd `cmd:"" help:"Show a contact: its places, points and mail."`

	Erase contactEraseCmd `cmd:"" help:"Erase one person for good; no sync brings them back."`
}

type contactListCmd struct {
	page
	Tenant     string `help:"Only of this tenant."`
	Connection string `help:"Only of this connection."`
	Customer   string `help:"Only of customers with this in their name."`
	Name       string `help:"Only with this in their name."`
	Email      string `help:"Only with this in their address."`
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
	if c.Active != "" {
		filters = append(filters, postgres.Filter{Column: "active", Value: c.Active == "true"})
	}
	return a.list("contacts", postgres.Contacts, c.page, filters,
		"contact_id", "customer_name", "name", "email", "phone", "role", "invoice_presentment", "communication_contact", "active", "inactive_reason", "held")
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
		a.out.document(map[string]any{"contacts": shown, "next": nil})
	}
	return nil
}

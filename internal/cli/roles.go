package cli

import (
	"fmt"

	"github.com/centime/contactsync/internal/contact"
	"github.com/centime/contactsync/internal/postgres"
)

type roleCmds struct {
	List   roleListCmd   `cmd:"" help:"List a tenant's roles."`
	Add    roleAddCmd    `cmd:"" help:"Make a role."`
	Rename roleRenameCmd `cmd:"" help:"Give a role another name."`
	Set    roleSetCmd    `cmd:"" help:"Choose which mail a role gets; it holds at once."`
	Map    roleMapCmd    `cmd:"" help:"Choose which role an ERP role stands for; it holds at once."`
	Delete roleDeleteCmd `cmd:"" help:"Delete a role; what uses it moves to another one."`
}

// ofTenant is the flag of commands about one tenant.
type ofTenant struct {
	Tenant string `required:"" help:"Tenant, by id or name."`
}

func (t ofTenant) find(a *app) (*postgres.Store, int64, error) {
	store, err := a.db()
	if err != nil {
		return nil, 0, err
	}
	id, err := store.FindTenant(a.ctx, t.Tenant)
	return store, id, err
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

type roleAddCmd struct {
	ofTenant
	Name                 string `arg:"" help:"Its name."`
	InvoicePresentment   bool   `help:"Invoice delivery mail."`
	CommunicationContact bool   `help:"Reminders, workflow mail and statements."`
}

func (roleAddCmd) Help() string {
	return fmt.Sprintf("Example: syncctl role add --tenant 'Northern Kelp' Payer --invoice-presentment\n\n"+
		"A tenant has at most %d roles, those of its ERPs included.", contact.RoleMax)
}

func (c roleAddCmd) Run(a *app) error {
	store, tenant, err := c.find(a)
	if err != nil {
		return err
	}
	role := contact.Role{Name: c.Name, InvoicePresentment: c.InvoicePresentment, CommunicationContact: c.CommunicationContact}
	id, err := store.AddRole(a.ctx, tenant, role, a.by)
	if err != nil {
		return err
	}
	a.out.say(map[string]any{"tenant_id": fmt.Sprint(tenant), "role_id": fmt.Sprint(id), "role": c.Name},
		"Role %d: %s. Nobody has it yet: syncctl contact assign-role, syncctl role map", id, c.Name)
	return nil
}

type roleRenameCmd struct {
	ofTenant
	Role string `arg:"" help:"Role, by id or name."`
	Name string `arg:"" help:"Its new name."`
}

func (roleRenameCmd) Help() string {
	return "Example: syncctl role rename --tenant 'Northern Kelp' 'Buyer (NetSuite)' Buyer\n\nNobody's mail changes."
}

func (c roleRenameCmd) Run(a *app) error {
	store, tenant, err := c.find(a)
	if err != nil {
		return err
	}
	if err := store.RenameRole(a.ctx, tenant, c.Role, c.Name, a.by); err != nil {
		return err
	}
	a.out.say(map[string]any{"tenant_id": fmt.Sprint(tenant), "role": c.Name}, "Role %s is now %s.", c.Role, c.Name)
	return nil
}

type roleSetCmd struct {
	ofTenant
	weighed
	Role                 string `arg:"" help:"Role, by id or name."`
	InvoicePresentment   *bool  `help:"Invoice delivery mail." negatable:""`
	CommunicationContact *bool  `help:"Reminders, workflow mail and statements." negatable:""`
}

func (roleSetCmd) Help() string {
	return "Example: syncctl role set --tenant 'Northern Kelp' 'Company Contact' --invoice-presentment=true --reason 'agreed with Ann, ticket 4711'\n\n" +
		"It shows whose mail starts and stops before it asks."
}

func (c roleSetCmd) Run(a *app) error {
	if c.InvoicePresentment == nil && c.CommunicationContact == nil {
		return misuse("say --invoice-presentment=true|false, --communication-contact=true|false or both")
	}
	store, tenant, err := c.find(a)
	if err != nil {
		return err
	}
	d, made, err := a.decide(c.weighed, "Change role "+c.Role+"?", func(how postgres.Weigh) (postgres.MailDifference, error) {
		return store.SetRole(a.ctx, tenant, c.Role, c.InvoicePresentment, c.CommunicationContact, how, a.by)
	})
	if err != nil {
		return err
	}
	a.report(made, d, map[string]any{"tenant_id": fmt.Sprint(tenant), "role": c.Role}, "Role %s is changed; it holds from now on.", c.Role)
	return nil
}

type roleMapCmd struct {
	ofTenant
	weighed
	Connection string `required:"" help:"Connection, by id or name."`
	ERPRole    string `arg:"" name:"erp-role" help:"Role in the ERP, by its key or name."`
	Role       string `arg:"" help:"Role, by id or name."`
}

func (roleMapCmd) Help() string {
	return "Example: syncctl role map --tenant 'Northern Kelp' --connection 'Kelp books' 'Accounts Payable' Payer\n\n" +
		"Everybody with that ERP role moves, but those for whom a person chose a role. It shows whose mail starts and stops before it asks."
}

func (c roleMapCmd) Run(a *app) error {
	store, tenant, err := c.find(a)
	if err != nil {
		return err
	}
	connection, err := store.FindConnection(a.ctx, c.Connection)
	if err != nil {
		return err
	}
	if connection.Tenant != tenant {
		return misuse("connection %d is of another tenant", connection.ID)
	}
	d, made, err := a.decide(c.weighed, fmt.Sprintf("Map ERP role %s to role %s?", c.ERPRole, c.Role),
		func(how postgres.Weigh) (postgres.MailDifference, error) {
			return store.MapRole(a.ctx, connection, c.ERPRole, c.Role, how, a.by)
		})
	if err != nil {
		return err
	}
	a.report(made, d, map[string]any{"tenant_id": fmt.Sprint(tenant), "connection_id": fmt.Sprint(connection.ID), "erp_role": c.ERPRole, "role": c.Role},
		"ERP role %s stands for role %s from now on.", c.ERPRole, c.Role)
	return nil
}

type roleDeleteCmd struct {
	ofTenant
	weighed
	Role   string `arg:"" help:"Role, by id or name."`
	MoveTo string `help:"Role that its contacts and ERP roles go to." placeholder:"ROLE"`
}

func (roleDeleteCmd) Help() string {
	return "Example: syncctl role delete --tenant 'Northern Kelp' 'Buyer (NetSuite)' --move-to Payer"
}

func (c roleDeleteCmd) Run(a *app) error {
	store, tenant, err := c.find(a)
	if err != nil {
		return err
	}
	var use postgres.RoleUse
	d, made, err := a.decide(c.weighed, "Delete role "+c.Role+"?", func(how postgres.Weigh) (d postgres.MailDifference, err error) {
		use, d, err = store.DeleteRole(a.ctx, tenant, c.Role, c.MoveTo, how, a.by)
		return d, err
	})
	if err != nil {
		return err
	}
	a.report(made, d, map[string]any{"tenant_id": fmt.Sprint(tenant), "role": c.Role, "moved_contacts": use.Choices, "moved_erp_roles": use.Mappings},
		"Role %s is deleted. Moved: %s that it was given to, %s.", c.Role,
		number(use.Choices, "contact", "contacts"), number(use.Mappings, "ERP role", "ERP roles"))
	return nil
}

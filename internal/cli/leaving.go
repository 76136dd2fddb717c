package cli

import (
	"errors"
	"fmt"
	"strings"

	"github.com/centime/contactsync/internal/postgres"
)

// stops says whose mail a removal stops: what a person should see before it is made.
func (a *app) stops(d postgres.MailDifference) {
	if a.out.json {
		return
	}
	const shown = 20
	for i, c := range d.Changes {
		if i == shown {
			fmt.Fprintf(a.Stderr, "  …\n")
			break
		}
		fmt.Fprintf(a.Stderr, "  %s stops getting %s of %s\n", printable(c.Email), spaced(c.CommunicationType), printable(c.CustomerName))
	}
}

func spaced(name string) string { return strings.ReplaceAll(name, "_", " ") }

// addresses says in words how much mail stops.
func addresses(d postgres.MailDifference) string {
	var parts []string
	for _, c := range d.Counts {
		if !c.Starts {
			parts = append(parts, fmt.Sprintf("%s: %d addresses at %d customers", spaced(c.CommunicationType), c.Addresses, c.Customers))
		}
	}
	if len(parts) == 0 {
		return "Nobody stops getting mail"
	}
	return "Mail stops for " + strings.Join(parts, ", ")
}

// stopped is the number of addresses, by kind of mail together.
func stopped(d postgres.MailDifference) (n int64) {
	for _, c := range d.Counts {
		if !c.Starts {
			n += c.Addresses
		}
	}
	return n
}

type connectionRemoveCmd struct {
	aConnection
	Yes   bool `help:"Do not ask."`
	Purge bool `help:"Erase all of its data too, history included. It cannot be undone."`
}

func (connectionRemoveCmd) Help() string {
	return "Example: syncctl connection remove 'Northern Kelp' --reason 'left Centime'\n\n" +
		"Without --purge its rows stay, and connecting the account again brings them back. A purge that was stopped goes on when it is asked for again."
}

func (c connectionRemoveCmd) Run(a *app) error {
	store, found, err := c.find(a)
	if err != nil {
		return err
	}
	return a.remove(store, removal{
		tenant: found.Tenant, connections: []postgres.Connection{found}, purge: c.Purge, yes: c.Yes, purged: found.ID,
		what: fmt.Sprintf("connection %d (%s)", found.ID, found.Name), fields: map[string]any{"connection_id": fmt.Sprint(found.ID)},
		back: "connecting the account again brings them back",
	})
}

type tenantRemoveCmd struct {
	Tenant string `arg:"" help:"Tenant, by id or name."`
	Yes    bool   `help:"Do not ask."`
	Purge  bool   `help:"Erase all of its data too, history included. It cannot be undone."`
}

func (tenantRemoveCmd) Help() string {
	return "Example: syncctl tenant remove 'Northern Kelp' --purge --reason 'contract ended'\n\n" +
		"Removes all of its connections. Without --purge its rows stay. A purge that was stopped goes on when it is asked for again."
}

func (c tenantRemoveCmd) Run(a *app) error {
	store, err := a.db()
	if err != nil {
		return err
	}
	tenant, err := store.FindTenant(a.ctx, c.Tenant)
	if err != nil {
		return err
	}
	connections, err := store.ConnectionsOf(a.ctx, tenant)
	if err != nil {
		return err
	}
	return a.remove(store, removal{
		tenant: tenant, connections: connections, purge: c.Purge, yes: c.Yes,
		what:   fmt.Sprintf("tenant %d (%s) with %d connections", tenant, c.Tenant, len(connections)),
		fields: map[string]any{"tenant_id": fmt.Sprint(tenant)}, back: "connecting its accounts again brings them back",
	})
}

// removal is what is to be removed, and how to speak of it.
type removal struct {
	tenant      int64
	connections []postgres.Connection
	purge, yes  bool
	purged      int64 // the connection to purge; 0: the tenant
	what, back  string
	fields      map[string]any
}

// remove shows who stops getting mail, asks, removes, and erases where that was asked for.
func (a *app) remove(store *postgres.Store, r removal) error {
	shown, err := store.RemoveConnections(a.ctx, r.tenant, r.connections, a.by, true)
	if err != nil {
		return err
	}
	a.stops(shown)
	question := fmt.Sprintf("Remove %s? %s, and its credentials are destroyed", r.what, addresses(shown))
	if r.purge {
		question += "; all of its data is erased for good, history included"
	}
	if err := a.confirm(question+".", r.yes); err != nil {
		return err
	}
	done, err := store.RemoveConnections(a.ctx, r.tenant, r.connections, a.by, false)
	if err != nil {
		return err
	}
	r.fields["state"], r.fields["stopped"] = "removed", stopped(done)
	if !r.purge {
		a.out.say(r.fields, "Removed %s. %s. Its rows are kept; %s.", r.what, addresses(done), r.back)
		return nil
	}
	erased := map[string]int64{}
	err = store.Purge(a.ctx, r.tenant, r.purged, a.by, func(what string, rows int64) {
		erased[what] += rows
		if !a.out.json && a.out.terminal {
			fmt.Fprintf(a.Stdout, "\r\x1b[K%s: %d rows erased", spaced(what), erased[what])
		}
	})
	if err != nil {
		return fmt.Errorf("removed %s, and its purge was stopped: ask for it again, it goes on: %w", r.what, err)
	}
	if !a.out.json && a.out.terminal {
		fmt.Fprint(a.Stdout, "\r\x1b[K")
	}
	var total int64
	for _, n := range erased {
		total += n
	}
	r.fields["state"], r.fields["erased"] = "purged", erased
	a.out.say(r.fields, "Removed %s. %s. Erased %d rows: nothing of its customers and contacts is left.", r.what, addresses(done), total)
	return nil
}

type contactEraseCmd struct {
	Contact string `arg:"" help:"Contact, by id or by an address that only it has."`
	Tenant  string `required:"" help:"Tenant, by id or name."`
	Yes     bool   `help:"Do not ask."`
}

func (contactEraseCmd) Help() string {
	return "Example: syncctl contact erase ingrid@kelp.example --tenant 'Northern Kelp' --reason 'request of 12 May'\n\n" +
		"Erases one person: name, addresses, and what issues, holds and history tell of them. Syncs pass over the ERP's record from then on. " +
		"The contact that a customer's own record is loses its name and addresses; the customer and its name stay, since it is invoiced. " +
		"It cannot be undone. Do not repeat name or address in the reason: it is kept."
}

func (c contactEraseCmd) Run(a *app) error {
	if strings.TrimSpace(a.by.Reason) == "" {
		return misuse("say why with --reason: it is all that is kept; do not repeat name or address in it")
	}
	store, err := a.db()
	if err != nil {
		return err
	}
	tenant, err := store.FindTenant(a.ctx, c.Tenant)
	if err != nil {
		return err
	}
	found, err := store.FindErasable(a.ctx, tenant, c.Contact)
	if err != nil {
		return err
	}
	shown, err := store.EraseContact(a.ctx, tenant, found.ID, a.by, true)
	if err != nil {
		return err
	}
	a.stops(shown)
	what := fmt.Sprintf("contact %d (%s)", found.ID, printable(found.Name))
	if found.Customers != "" {
		what += " of " + printable(shorten(found.Customers, 80))
	}
	if err := a.confirm(fmt.Sprintf("Erase %s for good? %s.", what, addresses(shown)), c.Yes); err != nil {
		return err
	}
	done, err := store.EraseContact(a.ctx, tenant, found.ID, a.by, false)
	if errors.Is(err, postgres.ErrNotFound) {
		return fmt.Errorf("contact %d was erased by somebody else just now: %w", found.ID, err)
	}
	if err != nil {
		return err
	}
	rest := "Syncs pass over its record in the ERP; have it erased there too."
	switch {
	case found.Origin == "centime":
		rest = "It was created in Centime, so nothing brings it back."
	case found.Own:
		rest = "The customer and its name stay, since it is invoiced; if that is the person's name, change it in the ERP. Syncs leave the contact empty."
	}
	a.out.say(map[string]any{"contact_id": fmt.Sprint(found.ID), "erased": true, "stopped": stopped(done), "customer_stays": found.Own},
		"Contact %d is erased. %s. %s", found.ID, addresses(done), rest)
	return nil
}

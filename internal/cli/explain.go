package cli

import (
	"fmt"
	"strings"

	"github.com/centime/contactsync/internal/postgres"
)

type contactExplainCmd struct {
	ofTenant
	Contact string `arg:"" help:"Address, or a contact's id."`
}

func (contactExplainCmd) Help() string {
	return "Example: syncctl contact explain ingrid@sound.example --tenant 'Northern Kelp'\n\n" +
		"From the ERP's record and field, by the role and where that comes from, to each kind of mail. Of an address that nobody has it says whose it was, " +
		"and how far the ERP was read."
}

func (c contactExplainCmd) Run(a *app) error {
	store, tenant, err := c.find(a)
	if err != nil {
		return err
	}
	e, err := store.Explain(a.ctx, tenant, c.Contact)
	if err != nil {
		return err
	}
	if a.out.json {
		a.out.document(e)
		return nil
	}
	for i, x := range e.Contacts {
		if i > 0 {
			a.out.say(nil, "")
		}
		a.explain(x)
	}
	for _, was := range e.Earlier {
		a.out.say(nil, "%s", earlier(tenant, was))
	}
	if len(e.Contacts) > 0 {
		return nil
	}
	if len(e.Earlier) == 0 {
		a.out.say(nil, "There is no record of it.")
	}
	for _, r := range e.Read {
		a.out.say(nil, "%s", reading(r))
	}
	return nil
}

func (a *app) explain(x postgres.Explained) {
	from := "made in Centime"
	if x.ERPID != "" {
		from = fmt.Sprintf("from %s, record %s", x.ERP, x.ERPID)
	}
	a.out.say(nil, "Contact %d: %s, %s, by connection %s (%d)", x.ID, printable(x.Name), from, printable(x.ConnectionName), x.Connection)
	for _, p := range x.Addresses {
		text := fmt.Sprintf("  Address %s in the field %s, place %d", printable(p.Value), p.Field, p.Place)
		if p.FirstDay+p.LastDay != "" {
			text += fmt.Sprintf(", days %s..%s (today is %s)", p.FirstDay, p.LastDay, p.Today)
		}
		a.out.say(nil, "%s", text)
	}
	for _, i := range x.Issues {
		a.out.say(nil, "  Open %s", printable(i))
	}
	if len(x.Places) == 0 {
		a.out.say(nil, "  At no customer, so it gets no mail")
	}
	for _, p := range x.Places {
		a.out.say(nil, "  At %s (%d, in the ERP %s)%s", printable(p.CustomerName), p.Customer, p.CustomerERPID, stated(p))
		a.out.say(nil, "    Role: %s", roleOf(x, p))
		if p.Hold != 0 {
			a.out.say(nil, "    It, or its role, would have gone, and hold %d keeps it until somebody decides: syncctl hold show %d", p.Hold, p.Hold)
		}
		for _, v := range p.Mail {
			gets := "no"
			if v.Gets {
				gets = "yes"
			}
			to := ""
			if len(x.Addresses) > 1 {
				to = " to " + printable(v.Email)
			}
			a.out.say(nil, "    %s%s: %s: %s", v.Type, to, gets, printable(strings.Join(v.Because, "; ")))
		}
	}
}

func stated(p postgres.ExplainedPlace) string {
	var by []string
	for _, s := range p.StatedBy {
		switch {
		case s == "link":
			by = append(by, "a link of its own")
		case strings.HasPrefix(s, "customer:"):
			by = append(by, "the customer's record")
		default:
			by = append(by, "the contact's record")
		}
	}
	if len(by) == 0 {
		return ""
	}
	return ", stated by " + strings.Join(by, " and ")
}

// roleOf tells where a place's role comes from; the ERP's own stands beside a chosen one.
func roleOf(x postgres.Explained, p postgres.ExplainedPlace) string {
	erp := "the ERP states none"
	if p.ERPRoleKey != "" {
		erp = fmt.Sprintf("ERP role %s (%s)", p.ERPRole, p.ERPRoleKey)
		if p.MappedID == 0 {
			erp += ", which has no role for want of room"
		} else {
			erp += fmt.Sprintf(", which stands for %s (%d)", p.Mapped, p.MappedID)
		}
	}
	if p.Source == "user" {
		text := fmt.Sprintf("%s (%d), chosen by %s", p.Role, p.RoleID, p.ChosenBy)
		if p.ChosenAt != nil {
			text += " on " + p.ChosenAt.UTC().Format("2006-01-02")
		}
		if p.ChosenWhy != "" {
			text += ": " + p.ChosenWhy
		}
		if x.ERPID != "" {
			text += "; " + erp
		}
		return printable(text)
	}
	if x.ERPID == "" {
		return "none, nobody chose one"
	}
	return printable(erp)
}

func earlier(tenant int64, e postgres.Earlier) string {
	which, how := fmt.Sprintf("contact %d", e.Contact), "replaced"
	if !e.Exists {
		which += ", which is deleted,"
	}
	if e.Became == "" {
		how = "removed"
	}
	by := fmt.Sprintf("in run %d", e.Run)
	if e.Run == 0 {
		by = "by " + e.By
	}
	if e.Why != "" {
		by += ": " + e.Why
	}
	return printable(fmt.Sprintf("It was an address of %s until %s, %s %s. syncctl contact history %d --tenant %d tells more",
		which, e.Until.UTC().Format("2006-01-02 15:04"), how, by, e.Contact, tenant))
}

func reading(r postgres.Reading) string {
	text := fmt.Sprintf("Connection %s (%d, %s, %s): ", r.Name, r.Connection, r.ERP, r.State)
	switch {
	case r.LastFull == nil:
		text += "never listed completely yet"
	default:
		text += "last full listing at " + r.LastFull.UTC().Format("2006-01-02 15:04Z")
	}
	if r.LastSuccess != nil {
		text += ", last read at " + r.LastSuccess.UTC().Format("2006-01-02 15:04Z")
	}
	if r.Issues > 0 {
		text += fmt.Sprintf("; a record that could not be stored may have it (%s: syncctl issue list --connection %d)",
			number(r.Issues, "open issue", "open issues"), r.Connection)
	}
	return printable(text)
}

type contactHistoryCmd struct {
	ofTenant
	Contact string `arg:"" help:"Contact, by id (also of a deleted one) or by an address that no other has."`
}

func (contactHistoryCmd) Help() string {
	return "Example: syncctl contact history ingrid@sound.example --tenant 'Northern Kelp'\n\n" +
		"Its own changes, those of its places, of the roles and mappings it had at the time, and of its customers' activity."
}

func (c contactHistoryCmd) Run(a *app) error {
	store, tenant, err := c.find(a)
	if err != nil {
		return err
	}
	events, err := store.History(a.ctx, tenant, c.Contact)
	if err != nil {
		return err
	}
	if a.out.json {
		a.out.document(map[string]any{"events": events, "next": nil})
		return nil
	}
	for _, e := range events {
		a.out.say(nil, "%s", event(e))
	}
	return nil
}

func event(e postgres.Event) string {
	what := strings.ReplaceAll(e.Entity, "_", " ")
	if e.Customer != "" && e.Entity == "customer_contact" {
		what = "at " + e.Customer
	} else if e.Customer != "" {
		what += " " + e.Customer
	} else if e.Entity == "role" || e.Entity == "connection" {
		what += fmt.Sprintf(" %d", e.EntityID)
	}
	change := e.Field
	switch {
	case e.Field == "created":
		change = "created: " + e.Became
	case e.Field == "deleted":
		change = "deleted: " + e.Was
	default:
		change += ": " + quoted(e.Was) + " → " + quoted(e.Became)
	}
	by := fmt.Sprintf("run %d", e.Run)
	if e.Run == 0 {
		by = e.By
	}
	if e.Why != "" {
		by += ": " + e.Why
	}
	return printable(fmt.Sprintf("%s  %s: %s  [%s]", e.At.UTC().Format("2006-01-02 15:04:05Z"), what, change, by))
}

func quoted(value string) string {
	if value == "" {
		return "nothing"
	}
	return value
}

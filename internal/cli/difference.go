package cli

import (
	"fmt"
	"text/tabwriter"

	"github.com/centime/contactsync/internal/postgres"
)

// weighed are the flags of a command that changes who gets mail.
type weighed struct {
	Preview bool `help:"Only show whose mail it would change."`
	Yes     bool `help:"Do not ask; needed without a terminal."`
}

// decide shows whose mail a change would change, asks, and makes it if it still does what was shown. made is false after a preview.
func (a *app) decide(
	w weighed, question string, change func(postgres.Weigh) (postgres.MailDifference, error),
) (d postgres.MailDifference, made bool, err error) {
	if w.Yes && !w.Preview {
		if d, err = change(postgres.Weigh{}); err == nil {
			a.difference(d)
		}
		return d, err == nil, err
	}
	if a.out.json && !w.Preview {
		return d, false, misuse("with --json nobody is asked: say --yes, or --preview to see whose mail it would change")
	}
	if d, err = change(postgres.Weigh{Rehearse: true}); err != nil {
		return d, false, err
	}
	a.difference(d)
	if w.Preview {
		return d, false, nil
	}
	if err := a.confirm(question, false); err != nil {
		return d, false, err
	}
	d, err = change(postgres.Weigh{Shown: &d})
	return d, err == nil, err
}

// report says what became of a decision, for a program with the whole difference.
func (a *app) report(made bool, d postgres.MailDifference, fields map[string]any, format string, args ...any) {
	fields["preview"], fields["mail"] = !made, mailDocument(d)
	if !made {
		format, args = "Nothing was changed: this was a preview.", nil
	}
	a.out.say(fields, format, args...)
}

const changesForPeople = 10

// difference prints whose mail starts and stops, for people: how much, the first ones, and who is left without a recipient.
func (a *app) difference(d postgres.MailDifference) {
	if a.out.json {
		return // it is part of the one document at the end
	}
	if len(d.Counts) == 0 {
		a.out.say(nil, "Nobody's mail changes.")
		return
	}
	for _, c := range d.Counts {
		a.out.say(nil, "%s %s: %s at %s", verb(c.Starts), c.CommunicationType,
			number(c.Addresses, "address", "addresses"), number(c.Customers, "customer", "customers"))
	}
	w := tabwriter.NewWriter(a.out.out, 0, 0, 2, ' ', 0)
	for i, c := range d.Changes {
		if i == changesForPeople {
			break
		}
		fmt.Fprintf(w, "  %s\t%s\t%s\t%s (%d)\n", verb(c.Starts), c.CommunicationType, printable(c.Email), shorten(printable(c.CustomerName), 44), c.CustomerID)
	}
	_ = w.Flush()
	var all int64
	for _, c := range d.Counts {
		all += c.Addresses
	}
	if all > changesForPeople {
		a.out.say(nil, "  … and %d more", all-min(changesForPeople, int64(len(d.Changes))))
	}
	for i, b := range d.Bare {
		if i == changesForPeople {
			a.out.say(nil, "  … and %d more customers are left without a recipient", len(d.Bare)-i)
			break
		}
		a.out.say(nil, "Left without a recipient of %s: %s (%d)", b.CommunicationType, printable(b.CustomerName), b.CustomerID)
	}
}

func verb(starts bool) string {
	if starts {
		return "starts"
	}
	return "stops"
}

func number(n int64, one, many string) string {
	if n == 1 {
		return "1 " + one
	}
	return fmt.Sprintf("%d %s", n, many)
}

func mailDocument(d postgres.MailDifference) map[string]any {
	counts, changes, bare := []map[string]any{}, []map[string]any{}, []map[string]any{}
	for _, c := range d.Counts {
		counts = append(counts, map[string]any{
			"starts": c.Starts, "communication_type": c.CommunicationType, "addresses": c.Addresses, "customers": c.Customers,
		})
	}
	for _, c := range d.Changes {
		change := map[string]any{
			"starts": c.Starts, "communication_type": c.CommunicationType, "customer_id": fmt.Sprint(c.CustomerID),
			"customer_name": c.CustomerName, "contact_id": nil, "email": c.Email,
		}
		if c.ContactID != 0 { // a previewed contact has no id yet
			change["contact_id"] = fmt.Sprint(c.ContactID)
		}
		changes = append(changes, change)
	}
	for _, b := range d.Bare {
		bare = append(bare, map[string]any{
			"communication_type": b.CommunicationType, "customer_id": fmt.Sprint(b.CustomerID), "customer_name": b.CustomerName,
		})
	}
	return map[string]any{"counts": counts, "changes": changes, "customers_left_without_recipient": bare}
}

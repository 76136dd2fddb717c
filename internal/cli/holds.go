package cli

import (
	"fmt"

	"github.com/centime/contactsync/internal/postgres"
)

type holdCmds struct {
	List    holdListCmd    `cmd:"" help:"List holds, those that wait for a decision first."`
	Show    holdShowCmd    `cmd:"" help:"Show what a hold keeps from going, why, and which mail that gets now."`
	Approve holdApproveCmd `cmd:"" help:"Let go what is still so: a run looks it up again first."`
	Reject  holdRejectCmd  `cmd:"" help:"Keep it, until there is new evidence. After an approval: bring back what that took."`
}

type holdListCmd struct {
	page
	Tenant     string `help:"Only of this tenant."`
	Connection string `help:"Only of this connection."`
	State      string `help:"Only in this state." enum:",open,approved,rejected,emptied" default:""`
}

func (holdListCmd) Help() string { return "Example: syncctl hold list --state open" }

func (c holdListCmd) Run(a *app) error {
	filters, err := a.tenantFilter(c.Tenant)
	if err != nil {
		return err
	}
	of, err := a.connectionFilter(c.Connection)
	if err != nil {
		return err
	}
	filters = append(filters, of...)
	if c.State != "" {
		filters = append(filters, postgres.Filter{Column: "state", Value: c.State})
	}
	return a.list("holds", postgres.Holds, c.page, filters,
		"hold_id", "connection", "state", "records", "opened_at", "opened_by_run_id", "cause", "decided_by", "decided_at", "approval_run_id")
}

// aHold is the argument of commands about one hold.
type aHold struct {
	Hold int64 `arg:"" name:"hold" help:"Hold, by id."`
}

func (c aHold) find(a *app) (*postgres.Store, postgres.Hold, error) {
	store, err := a.db()
	if err != nil {
		return nil, postgres.Hold{}, err
	}
	h, err := store.Hold(a.ctx, c.Hold)
	return store, h, err
}

type holdShowCmd struct {
	page
	aHold
}

func (holdShowCmd) Help() string {
	return "Example: syncctl hold show 3 --limit 20\n\nWhat has left the hold, because it was read active since, comes last."
}

func (c holdShowCmd) Run(a *app) error {
	store, h, err := c.find(a)
	if err != nil {
		return err
	}
	rows, err := store.List(a.ctx, postgres.Holds, 1, 0, postgres.Filter{Column: "hold_id", Value: h.ID})
	if err != nil {
		return err
	}
	counted, err := store.HoldCounts(a.ctx, h)
	if err != nil {
		return err
	}
	mail, err := store.HoldMail(a.ctx, h)
	if err != nil {
		return err
	}
	items, err := store.HoldItems(a.ctx, h, c.Limit, c.Offset)
	if err != nil {
		return err
	}
	bare := postgres.Rows{}
	if h.Run != 0 {
		if bare, err = store.List(a.ctx, postgres.LeftBare, c.Limit, 0, postgres.Filter{Column: "run_id", Value: h.Run}); err != nil {
			return err
		}
	}
	if h.State == "open" {
		a.outcome(attention)
	}
	next := c.next(items)
	if a.out.json {
		shown := objects(rows)[0]
		shown["counts"], shown["stopping"] = objects(counted), objects(mail)
		shown["items"], shown["left_without_recipient"] = objects(items), objects(bare)
		shown["as_of_run_id"] = fmt.Sprint(h.AsOf)
		shown["next"] = nil
		if next != "" {
			shown["next"] = next
		}
		a.out.document(shown)
		return nil
	}
	a.out.show(rows, 0)
	a.out.say(nil, "")
	a.out.list("records", counted, "", "now", "record_kind", "reason", "records")
	if len(mail.Values) > 0 {
		a.out.say(nil, "\nMail that stops if all of it goes:")
		a.out.list("mail", mail, "", "communication_type", "addresses", "customers", "left_without_recipient")
	}
	a.out.say(nil, "")
	a.out.list("contacts", items, next,
		"customer_erp_id", "customer_name", "contact_name", "now", "reason", "evidence", "added_at", "added_by_run_id", "mail")
	a.bare(bare)
	switch h.State {
	case "open":
		a.out.say(nil, "\nIf it is meant: syncctl hold approve %d --as-of %d. If not: syncctl hold reject %[1]d --as-of %[2]d", h.ID, h.AsOf)
	case "approved":
		if h.Run != 0 {
			a.out.say(nil, "\nTo bring back what it took: syncctl hold reject %d", h.ID)
		}
	}
	return nil
}

// bare lists customers that a run left without a recipient.
func (a *app) bare(rows postgres.Rows) {
	if len(rows.Values) > 0 {
		a.out.say(nil, "\nCustomers left without a recipient:")
		a.out.list("customers", rows, "", "customer_id", "customer_erp_id", "customer_name", "communication_type", "active", "why")
	}
}

// aDecision is about what a person was shown, if the command says what that was.
type aDecision struct {
	aHold
	AsOf *int64 `help:"Decide only if nothing was added to the hold since this run; hold show says which." placeholder:"RUN"`
}

func (c aDecision) find(a *app) (*postgres.Store, postgres.Hold, error) {
	store, h, err := c.aHold.find(a)
	if c.AsOf != nil {
		h.AsOf = *c.AsOf
	}
	return store, h, err
}

type holdApproveCmd struct {
	aDecision
	Wait bool `help:"Wait for its run to end, and show its progress."`
}

func (holdApproveCmd) Help() string {
	return "Example: syncctl hold approve 3 --as-of 812 --reason 'branch closed, ticket 4711' --wait\n\n" +
		"Without --wait the exit status is 0 once its run is queued; with it 1 if the run failed and 3 if the login was refused: " +
		"all of it is held again then."
}

func (c holdApproveCmd) Run(a *app) error {
	store, h, err := c.find(a)
	if err != nil {
		return err
	}
	run, err := store.ApproveHold(a.ctx, h, a.by)
	if err != nil {
		return err
	}
	if a.out.json && c.Wait {
		return a.watch(store, []int64{run})
	}
	how := fmt.Sprintf("syncctl run watch %d", run)
	if h.Connected == "paused" {
		how = fmt.Sprintf("the connection is paused, so it waits for `syncctl connection resume %d`", h.Connection)
	}
	a.out.say(map[string]any{"hold_id": fmt.Sprint(h.ID), "state": "approved", "run_id": fmt.Sprint(run), "customer_contacts": h.Contacts},
		"Hold %d of %s is approved. Run %d looks up %d customer contacts again and lets go what is still so: %s", h.ID, h.Name, run, h.Contacts, how)
	if !c.Wait {
		return nil
	}
	return a.watch(store, []int64{run})
}

type holdRejectCmd struct{ aDecision }

func (holdRejectCmd) Help() string {
	return "Example: syncctl hold reject 3 --as-of 812 --reason 'their administrator narrowed our role'"
}

func (c holdRejectCmd) Run(a *app) error {
	store, h, err := c.find(a)
	if err != nil {
		return err
	}
	done, err := store.RejectHold(a.ctx, h, a.by)
	if err != nil {
		return err
	}
	text := fmt.Sprintf("Hold %d of %s is rejected: %d records stay active, and only new evidence is held again.", h.ID, h.Name, done.Kept)
	if h.State == "approved" {
		text += fmt.Sprintf(" Brought back: %d.", done.Back)
		if done.Changed > 0 {
			text += fmt.Sprintf(" Left as they are, since something else has changed them since: %d.", done.Changed)
		}
	}
	a.out.say(map[string]any{
		"hold_id": fmt.Sprint(h.ID), "state": "rejected", "kept": done.Kept, "brought_back": done.Back, "changed_since": done.Changed,
	}, "%s", text)
	return nil
}

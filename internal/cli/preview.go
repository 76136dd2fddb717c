package cli

import (
	"fmt"

	"github.com/centime/contactsync/internal/postgres"
)

// previewReport prints what a preview that succeeded says: counts first, then the first rows, or with --json all of it.
func (a *app) previewReport(store *postgres.Store, r postgres.RunState, p reportPage) (map[string]any, error) {
	if !r.Preview || r.Status != "succeeded" {
		return nil, nil
	}
	if p.Limit == 0 && !a.out.json {
		p.Limit = 100
	}
	of := []postgres.Filter{{Column: "tenant_id", Value: r.Tenant}, {Column: "run_id", Value: r.ID}}
	var rows [5]postgres.Rows
	for i, l := range []postgres.Listing{
		postgres.Previews, postgres.PreviewCounts, postgres.PreviewMailCounts, postgres.PreviewChanges, postgres.PreviewMail,
	} {
		limit, offset := 0, 0
		if i > 2 {
			limit, offset = p.Limit, p.Offset
		}
		var err error
		if rows[i], err = store.List(a.ctx, l, limit, offset, of...); err != nil {
			return nil, err
		}
	}
	whole := objects(rows[0])
	if len(whole) == 0 {
		return nil, fmt.Errorf("the report of run %d: %w", r.ID, postgres.ErrNotFound)
	}
	document := whole[0]
	document["counts"], document["mail_counts"] = objects(rows[1]), objects(rows[2])
	document["changes"], document["mail"] = objects(rows[3]), objects(rows[4])
	document["nothing_would_change"] = len(rows[1].Values)+len(rows[2].Values) == 0
	if !a.out.json {
		a.printReport(r, document, rows, p)
	}
	return document, nil
}

func (a *app) printReport(r postgres.RunState, document map[string]any, rows [5]postgres.Rows, p reportPage) {
	a.out.say(nil, "\nWhat a run of %s would do, as of %s. Nothing was changed.", printable(r.Name), document["compared_at"])
	if r.WithIssue > 0 {
		a.out.say(nil, "Records with an issue: %d", r.WithIssue)
	}
	if document["nothing_would_change"] == true {
		a.out.say(nil, "Nothing would change.")
		return
	}
	if cause := document["hold_cause"]; cause != nil {
		a.out.say(nil, "Held, and still active afterwards: %d customer contacts, because %s.", r.Held, cause)
	}
	section := func(title, name string, of postgres.Rows, columns ...string) {
		if len(of.Values) == 0 {
			return
		}
		a.out.say(nil, "\n%s", title)
		a.out.list(name, of, "", columns...)
	}
	more := func(of postgres.Rows) { // the command is whole, since resync and run watch print it too
		if next := p.next(of); next != "" {
			a.out.say(nil, "There are more: syncctl run show %d --offset %s", r.ID, next)
		}
	}
	section("Counts:", "counts", rows[1], "what", "entity", "records", "customers")
	section("Mail:", "mail", rows[2], "starts", "communication_type", "addresses", "customers", "left_without")
	section("Changes:", "changes", rows[3], "what", "customer_erp_id", "customer_name", "contact_name", "field", "was", "became", "reason")
	more(rows[3])
	section("Who starts and stops getting mail:", "mail", rows[4], "starts", "communication_type", "customer_erp_id", "customer_name", "contact_name", "email", "last")
	more(rows[4])
}

// reportPage is page, but that a document is whole unless it is asked for in parts.
type reportPage struct {
	Limit  int `help:"How many rows of a preview's report at most; default: 100, with --json all."`
	Offset int `help:"How many of them to pass over."`
}

func (p reportPage) next(rows postgres.Rows) string { return page(p).next(rows) }

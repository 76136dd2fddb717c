package cli

import (
	"fmt"
	"strings"
	"text/tabwriter"
	"unicode/utf8"

	"github.com/centime/contactsync/internal/postgres"
)

type statusCmd struct{}

func (statusCmd) Help() string {
	return "Example: syncctl status\n\n" +
		"The worst comes first, each with the command to type. The exit status is 3 if a person must act, else 0. " +
		"Give it the scheduler's QUICKBOOKS_MONTHLY_CALLS: it says how much of them is used from 80 % on, and without it a schedule that " +
		"their end stopped looks like one without a scheduler."
}

func (statusCmd) Run(a *app) error {
	allowances, err := a.Allowances()
	if err != nil {
		return err
	}
	store, err := a.db()
	if err != nil {
		return err
	}
	found, err := store.Attention(a.ctx, allowances)
	if err != nil {
		return err
	}
	if found.Needed() {
		a.outcome(attention)
	}
	if a.out.json {
		a.out.document(map[string]any{"summary": summaryDocument(found.Summary), "items": itemDocuments(found.Items)})
		return nil
	}
	a.summarise(found.Summary)
	if !found.Needed() {
		a.out.say(nil, "All is well: nothing needs a person.")
	}
	if len(found.Items) > 0 {
		a.out.say(nil, "")
		a.items(found.Items)
	}
	return nil
}

// counts are named numbers in the given order; those that are 0 are left out.
func counts(of map[string]int64, names ...string) string {
	var parts []string
	for _, name := range names {
		if n := of[name]; n > 0 {
			parts = append(parts, fmt.Sprintf("%d %s", n, strings.ReplaceAll(name, "_", " ")))
		}
	}
	if len(parts) == 0 {
		return "none"
	}
	return strings.Join(parts, ", ")
}

func (a *app) summarise(s postgres.Summary) {
	w := tabwriter.NewWriter(a.out.out, 0, 0, 2, ' ', 0)
	fmt.Fprintf(w, "Tenants\t%d\n", s.Tenants)
	fmt.Fprintf(w, "Connections\t%s\n", counts(s.Connections, "active", "needs_attention", "paused", "removed"))
	fmt.Fprintf(w, "Runs now\t%s\n", counts(s.Unfinished, "running", "waiting", "queued"))
	fmt.Fprintf(w, "Runs of the last 24 h\t%s\n", counts(s.Ended, "succeeded", "failed", "cancelled"))
	fmt.Fprintf(w, "Records of the last 24 h\t%s\n", counts(s.Records, "read", "created", "updated", "deactivated", "held"))
	_ = w.Flush()
}

// items prints a table: how bad, what, and the command. A long text goes on in the lines below, so that none is cut.
func (a *app) items(items []postgres.Item) {
	const least = 40 // columns of the text, on however narrow a terminal
	commands := 0
	for _, i := range items {
		commands = max(commands, utf8.RuneCountInString(i.Command))
	}
	width := max(least, a.columns()-len(postgres.Critical)-commands-4)
	w := tabwriter.NewWriter(a.out.out, 0, 0, 2, ' ', 0)
	for _, i := range items {
		severity, command := string(i.Severity), i.Command
		for _, line := range wrap(printable(i.Text), width) {
			fmt.Fprintf(w, "%s\t%s\t%s\n", severity, line, command)
			severity, command = "", ""
		}
	}
	_ = w.Flush()
}

// wrap parts a text at spaces into lines of at most width characters; a longer word stays whole.
func wrap(text string, width int) []string {
	lines := []string{""}
	for _, word := range strings.Fields(text) {
		last := &lines[len(lines)-1]
		switch {
		case *last == "":
			*last = word
		case utf8.RuneCountInString(*last)+1+utf8.RuneCountInString(word) <= width:
			*last += " " + word
		default:
			lines = append(lines, word)
		}
	}
	return lines
}

func summaryDocument(s postgres.Summary) map[string]any {
	return map[string]any{
		"tenants": s.Tenants, "connections": s.Connections, "unfinished_runs": s.Unfinished, "ended_runs_24h": s.Ended, "records_24h": s.Records,
	}
}

func itemDocuments(items []postgres.Item) []map[string]any {
	id := func(n int64) any {
		if n == 0 {
			return nil
		}
		return fmt.Sprint(n)
	}
	out := make([]map[string]any, 0, len(items))
	for _, i := range items {
		out = append(out, map[string]any{
			"severity": i.Severity, "kind": i.Kind, "tenant_id": id(i.Tenant), "connection_id": id(i.Connection),
			"text": i.Text, "command": i.Command,
		})
	}
	return out
}

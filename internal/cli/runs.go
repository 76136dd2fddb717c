package cli

import (
	"cmp"
	"fmt"
	"strconv"
	"strings"
	"time"

	"github.com/centime/contactsync/internal/postgres"
)

// settable reads `connection set` words: what belongs to the connection itself, and its settings.
func settable(c postgres.Connection, words []string) (postgres.Settable, error) {
	var to postgres.Settable
	var rest []string
	for _, word := range words {
		name, value, _ := strings.Cut(word, "=")
		switch name {
		case "name":
			if value == "" {
				return to, fmt.Errorf("a connection needs a name")
			}
			to.Name = &value
		case "schedule":
			to.Schedule = &value
		case "auto_sync":
			on, err := strconv.ParseBool(value)
			if err != nil {
				return to, fmt.Errorf("auto_sync is true or false")
			}
			to.AutoSync = &on
		default:
			rest = append(rest, word)
		}
	}
	if len(rest) > 0 {
		if _, err := c.Stored.Change(rest); err != nil {
			return to, err
		}
	}
	to.Settings = rest
	return to, nil
}

type resyncCmd struct {
	Connections []string `arg:"" optional:"" help:"Connections, by id or name."`
	Tenant      string   `help:"All connections of this tenant."`
	All         bool     `help:"All connections."`
	Full        bool     `help:"Read everything, not only what changed."`
	Preview     bool     `help:"Change nothing: say what a run would do. Another run of the connection waits meanwhile."`
	Customer    string   `help:"Refresh one customer of one connection, by the ERP's id; it is done within seconds." placeholder:"ID"`
	Wait        bool     `help:"Wait for the runs to end, and show their progress."`
}

func (resyncCmd) Help() string {
	return "Example: syncctl resync 'Northern Kelp' --full --wait\nExample: syncctl resync 'Northern Kelp' --preview --wait\n" +
		"Example: syncctl resync 'Northern Kelp' --customer 1042 --wait\n\nA run that is queued already is joined, and becomes full if you ask for that. " +
		"Without --wait the exit status is 0 once the runs are queued; with it 1 if one failed, 3 if one holds something or needs attention."
}

func (c resyncCmd) Run(a *app) error {
	store, err := a.db()
	if err != nil {
		return err
	}
	targets, err := c.targets(a, store)
	if err != nil {
		return err
	}
	if c.Customer != "" && (c.Full || c.Preview || len(targets) != 1) {
		return misuse("--customer refreshes one customer of one connection, and nothing else")
	}
	var runs []int64
	var queued []map[string]any
	for _, t := range targets {
		run, joined, err := c.queue(a, store, t)
		if err != nil {
			return err
		}
		runs = append(runs, run)
		queued = append(queued, map[string]any{"run_id": fmt.Sprint(run), "connection_id": fmt.Sprint(t.ID), "joined": joined})
		how := "is queued"
		if joined {
			how = "was queued already: joined it"
		}
		if t.State == "paused" {
			how += "; the connection is paused, so it waits for `syncctl connection resume " + fmt.Sprint(t.ID) + "`"
		}
		if !a.out.json {
			a.out.say(nil, "Run %d of %s %s.", run, t.Name, how)
		}
	}
	if !c.Wait {
		if a.out.json {
			a.out.document(map[string]any{"runs": queued, "next": nil})
		}
		return nil
	}
	return a.watch(store, runs)
}

// queue queues what is asked for of one connection.
func (c resyncCmd) queue(a *app, store *postgres.Store, t postgres.Connection) (run int64, joined bool, err error) {
	q := postgres.Request{
		Tenant: t.Tenant, Connection: t.ID, Mode: postgres.Incremental, Trigger: postgres.Manual, By: a.by.User, Reason: a.by.Reason,
	}
	if c.Full {
		q.Mode = postgres.Full
	}
	switch {
	case c.Customer != "":
		return store.QueueCustomer(a.ctx, q, c.Customer)
	case c.Preview:
		run, err = store.QueuePreview(a.ctx, q)
		return run, false, err
	}
	return store.QueueRun(a.ctx, q)
}

func (c resyncCmd) targets(a *app, store *postgres.Store) ([]postgres.Connection, error) {
	named := 0
	for _, is := range []bool{len(c.Connections) > 0, c.Tenant != "", c.All} {
		if is {
			named++
		}
	}
	if named != 1 {
		return nil, misuse("name connections, or --tenant, or --all: one of the three")
	}
	words := c.Connections
	if len(words) == 0 {
		filters, err := a.tenantFilter(c.Tenant)
		if err != nil {
			return nil, err
		}
		rows, err := store.List(a.ctx, postgres.Connections, 0, 0, filters...)
		if err != nil {
			return nil, err
		}
		for _, o := range objects(rows) {
			if o["state"] != "removed" {
				words = append(words, fmt.Sprint(o["connection_id"]))
			}
		}
	}
	var targets []postgres.Connection
	for _, word := range words {
		t, err := store.FindConnection(a.ctx, word)
		if err != nil {
			return nil, err
		}
		targets = append(targets, t)
	}
	return targets, nil
}

type runCmds struct {
	List   runListCmd   `cmd:"" help:"List runs, the newest first."`
	Show   runShowCmd   `cmd:"" help:"Show one run, who asked for it, and what it holds."`
	Watch  runWatchCmd  `cmd:"" help:"Follow a run to its end."`
	Cancel runCancelCmd `cmd:"" help:"Stop a run at its next page; it deactivates nobody."`
}

var runColumns = []string{
	"run_id", "connection_id", "mode", "trigger", "status", "started_at", "finished_at", "read", "created", "updated", "unchanged", "with_issue",
	"deactivated", "held", "erp_calls", "error_kind",
}

type runListCmd struct {
	page
	Connection string `help:"Only of this connection."`
	Status     string `help:"Only with this status." enum:",queued,running,waiting,succeeded,failed,cancelled" default:""`
}

func (runListCmd) Help() string { return "Example: syncctl run list --status failed --limit 20" }

func (c runListCmd) Run(a *app) error {
	filters, err := a.connectionFilter(c.Connection)
	if err != nil {
		return err
	}
	if c.Status != "" {
		filters = append(filters, postgres.Filter{Column: "status", Value: c.Status})
	}
	return a.list("runs", postgres.Runs, c.page, filters, runColumns...)
}

func (a *app) connectionFilter(idOrName string) ([]postgres.Filter, error) {
	if idOrName == "" {
		return nil, nil
	}
	_, found, err := aConnection{idOrName}.find(a)
	if err != nil {
		return nil, err
	}
	return []postgres.Filter{{Column: "connection_id", Value: found.ID}}, nil
}

type aRun struct {
	Run int64 `arg:"" name:"run" help:"Run, by id."`
}

type runShowCmd struct {
	aRun
	reportPage
}

func (runShowCmd) Help() string {
	return "Example: syncctl run show 17\n\nOf a preview it shows what the run would do."
}

func (c runShowCmd) Run(a *app) error {
	store, err := a.db()
	if err != nil {
		return err
	}
	of := postgres.Filter{Column: "run_id", Value: c.aRun.Run}
	rows, err := store.List(a.ctx, postgres.Runs, 1, 0, of)
	if err != nil {
		return err
	}
	if len(rows.Values) == 0 {
		return fmt.Errorf("run %d: %w", c.aRun.Run, postgres.ErrNotFound)
	}
	state, err := store.Run(a.ctx, c.aRun.Run)
	if err != nil {
		return err
	}
	requests, err := store.List(a.ctx, postgres.Requests, 0, 0, of)
	if err != nil {
		return err
	}
	held := postgres.Rows{}
	if state.Holds && !state.Preview {
		if held, err = store.List(a.ctx, postgres.Held, 0, 0, postgres.Filter{Column: "connection_id", Value: state.Connection}); err != nil {
			return err
		}
	}
	bare, err := store.List(a.ctx, postgres.LeftBare, 0, 0, of)
	if err != nil {
		return err
	}
	cancelled, err := store.CancelledBy(a.ctx, state)
	if err != nil {
		return err
	}
	if a.out.json {
		shown := objects(rows)[0]
		shown["cancelled_by"], shown["cancel_reason"] = cancelled.User, cancelled.Reason
		shown["requests"] = objects(requests)
		shown["held_records"] = objects(held)
		shown["left_without_recipient"] = objects(bare)
		shown["hint"] = state.Hint
		if shown["report"], err = a.previewReport(store, state, c.reportPage); err != nil {
			return err
		}
		a.out.document(shown)
	} else {
		a.out.show(rows, 0)
		if state.Hint != nil {
			a.out.say(nil, "What to do: %s", *state.Hint)
		}
		if cancelled.User != "" {
			a.out.say(nil, "Cancelled by %s: %s", printable(cancelled.User), printable(cmp.Or(cancelled.Reason, "no reason was given")))
		}
		a.out.say(nil, "")
		a.out.list("requests", requests, "", "requested_at", "requested_by", "mode", "trigger", "reason")
		if len(held.Values) > 0 {
			a.out.say(nil, "\nHeld, and still active here: %s.", objects(held)[0]["cause"])
			a.out.list("held records", held, "", "kind", "record_erp_id", "name", "reason", "added_at")
			a.out.say(nil, "To decide: syncctl hold show %s", objects(held)[0]["hold_id"])
		}
		a.bare(bare)
		if _, err := a.previewReport(store, state, c.reportPage); err != nil {
			return err
		}
	}
	a.judge(state)
	return nil
}

// judge turns the end of a run into an exit status.
func (a *app) judge(r postgres.RunState) {
	switch {
	case r.Denied() || r.Holds:
		a.outcome(attention)
	case r.Status == "failed" || r.Status == "cancelled":
		a.outcome(failed)
	}
}

type runWatchCmd struct{ aRun }

func (runWatchCmd) Help() string { return "Example: syncctl run watch 17" }

func (c runWatchCmd) Run(a *app) error {
	store, err := a.db()
	if err != nil {
		return err
	}
	return a.watch(store, []int64{c.aRun.Run})
}

// watch follows runs to their end, one after the other, with counts and a rate.
func (a *app) watch(store *postgres.Store, runs []int64) error {
	polls, patience := a.PollsPerSecond, time.Duration(a.ClaimPatience)*time.Second
	if polls == 0 {
		polls = 4
	}
	if patience == 0 {
		patience = 10 * time.Second
	}
	tick := time.NewTicker(time.Second / time.Duration(polls))
	defer tick.Stop()
	var ended []map[string]any
	for _, id := range runs {
		begun, told, shown := time.Now(), false, time.Time{}
		for {
			r, err := store.Run(a.ctx, id)
			if err != nil {
				return err
			}
			if r.Over() {
				a.progress(r, true)
				a.judge(r)
				document := runDocument(r)
				if document["report"], err = a.previewReport(store, r, reportPage{}); err != nil {
					return err
				}
				ended = append(ended, document)
				break
			}
			if r.Claims == 0 && !told && time.Since(begun) > patience {
				fmt.Fprintf(a.Stderr, "No worker has claimed run %d yet: are a scheduler and a worker running? Nothing is lost; Ctrl-C leaves the run queued.\n", id)
				told = true
			}
			if every := 5 * time.Second; a.out.terminal || time.Since(shown) >= every {
				a.progress(r, false)
				shown = time.Now()
			}
			select {
			case <-a.ctx.Done():
				return fmt.Errorf("stopped waiting; run %d goes on", id)
			case <-tick.C:
			}
		}
	}
	if a.out.json {
		a.out.document(map[string]any{"runs": ended, "next": nil})
	}
	return nil
}

func (a *app) progress(r postgres.RunState, over bool) {
	if a.out.json {
		return
	}
	seconds := 0.0
	if r.StartedAt != nil {
		until := r.Now
		if r.FinishedAt != nil {
			until = *r.FinishedAt
		}
		seconds = until.Sub(*r.StartedAt).Seconds()
	}
	rate := 0.0
	if seconds > 0 {
		rate = float64(r.Read) / seconds
	}
	line := fmt.Sprintf("Run %d  %s  %-9s  %9d read  %7.0f/s  %d created, %d updated, %d unchanged, %d with issue, %d calls, %.1f s",
		r.ID, shorten(r.Name, 30), r.Status, r.Read, rate, r.Created, r.Updated, r.Unchanged, r.WithIssue, r.Calls, seconds)
	if r.Preview {
		line = fmt.Sprintf("Run %d  %s  %-9s  preview: %d pages read, %d calls, %.1f s", r.ID, shorten(r.Name, 30), r.Status, r.Pages, r.Calls, seconds)
	}
	if r.Status == "waiting" && r.Error != nil {
		line += ": " + *r.Error
	}
	switch {
	case a.out.terminal && over:
		fmt.Fprintf(a.Stdout, "\r\x1b[K%s\n", line)
	case a.out.terminal:
		fmt.Fprintf(a.Stdout, "\r\x1b[K%s", shorten(line, a.columns()))
	default:
		fmt.Fprintln(a.Stdout, line)
	}
	if !over {
		return
	}
	if r.Gone > 0 && !r.Preview {
		fmt.Fprintf(a.Stdout, "Deactivated: %d\n", r.Gone)
	}
	if r.Holds && !r.Preview {
		held := strconv.FormatInt(r.Held, 10)
		if r.Held == 0 {
			held = "contacts at no customer"
		}
		fmt.Fprintf(a.Stdout, "Held, and still active: %s. See what: syncctl hold list --connection %d\n", held, r.Connection)
	}
	if r.LeftBare > 0 && !r.Preview {
		fmt.Fprintf(a.Stdout, "Customers left without a recipient: %d. See which: syncctl run show %d\n", r.LeftBare, r.ID)
	}
	if r.Error != nil {
		fmt.Fprintf(a.Stdout, "%s (%s). Nothing was lost: what was saved stays, nobody was deactivated.\n", *r.Error, *r.ErrorKind)
	}
	if r.Hint != nil {
		fmt.Fprintf(a.Stdout, "What to do: %s\n", *r.Hint)
	}
}

func runDocument(r postgres.RunState) map[string]any {
	return map[string]any{
		"run_id": fmt.Sprint(r.ID), "connection_id": fmt.Sprint(r.Connection), "mode": r.Mode, "preview": r.Preview, "purpose": r.Purpose,
		"status": r.Status, "read": r.Read, "created": r.Created, "updated": r.Updated, "unchanged": r.Unchanged, "ignored": r.Ignored,
		"refused": r.Refused, "with_issue": r.WithIssue, "deactivated": r.Gone, "held": r.Held, "left_bare": r.LeftBare, "erp_calls": r.Calls,
		"error_kind": r.ErrorKind, "error": r.Error, "hint": r.Hint, "queued_at": r.QueuedAt.UTC(), "started_at": r.StartedAt,
		"finished_at": r.FinishedAt,
	}
}

type runCancelCmd struct{ aRun }

func (runCancelCmd) Help() string { return "Example: syncctl run cancel 17" }

func (c runCancelCmd) Run(a *app) error {
	store, err := a.db()
	if err != nil {
		return err
	}
	status, err := store.CancelRun(a.ctx, c.aRun.Run, a.by)
	if err != nil {
		return err
	}
	text := fmt.Sprintf("Run %d stops at its next page. What it saved stays; nobody is deactivated.", c.aRun.Run)
	if status == "cancelled" {
		text = fmt.Sprintf("Run %d is cancelled. What it saved stays; nobody was deactivated.", c.aRun.Run)
	}
	a.out.say(map[string]any{"run_id": fmt.Sprint(c.aRun.Run), "status": status}, "%s", text)
	return nil
}

package cli

import (
	"fmt"
	"strings"

	"github.com/centime/contactsync/internal/doctor"
	"github.com/centime/contactsync/internal/postgres"
	"github.com/centime/contactsync/internal/queue"
)

type doctorCmd struct{}

func (doctorCmd) Help() string {
	return "Example: syncctl doctor\n\n" +
		"It checks what contactsync stands on and changes nothing: Postgres, its login and rights, the schema, the key ring, the clocks, " +
		"Redis, workers, scheduler, stuck runs. Give it the environment of a worker: without REDIS_URL and CREDENTIALS_KEY those parts are not " +
		"checked, and it says so. Give it the scheduler's QUICKBOOKS_MONTHLY_CALLS too, else a schedule that their end stopped looks like " +
		"one without a scheduler. The exit status is 0 if all is well, 3 if something is to be done, 1 if Postgres cannot be asked at all."
}

func (doctorCmd) Run(a *app) error {
	url, err := a.DatabaseURL()
	if err != nil {
		return err
	}
	in := doctor.Installation{}
	if in.Allowances, err = a.Allowances(); err != nil {
		return err
	}
	// Not a.db, which refuses what is to be examined.
	if in.Store, err = postgres.Open(url, 2); err != nil {
		return err
	}
	a.store = in.Store
	if in.Ring, err = a.RingIfSet(); err != nil {
		return err
	}
	redis, err := a.RedisURLIfSet()
	if err != nil {
		return err
	}
	if redis != "" {
		if in.Redis, err = queue.Open(redis); err != nil {
			return misuse("%v", err)
		}
		defer in.Redis.Close()
	}
	findings, works := in.Examine(a.ctx)
	if worst := doctor.Worst(findings); worst == doctor.Warning || worst == doctor.Problem {
		a.outcome(attention)
	}
	if !works {
		a.outcome(failed)
	}
	if a.out.json {
		out := make([]map[string]any, 0, len(findings))
		for _, f := range findings {
			out = append(out, map[string]any{"check": f.Check, "level": f.Level, "text": f.Text, "do": f.Do})
		}
		a.out.document(map[string]any{"findings": out})
		return nil
	}
	a.diagnosis(findings)
	return nil
}

// diagnosis prints a line for each finding and, below it, what to do.
func (a *app) diagnosis(findings []doctor.Finding) {
	const margin = 23 // of level and check
	width := max(40, a.columns()-margin)
	for _, f := range findings {
		for i, line := range wrap(printable(f.Text), width) {
			if i == 0 {
				fmt.Fprintf(a.out.out, "%-9s  %-11s %s\n", f.Level, f.Check, line)
				continue
			}
			fmt.Fprintf(a.out.out, "%s%s\n", strings.Repeat(" ", margin), line)
		}
		if f.Do != "" { // whole, since it is to be copied
			fmt.Fprintf(a.out.out, "%s→ %s\n", strings.Repeat(" ", margin), printable(f.Do))
		}
	}
}

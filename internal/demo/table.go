package demo

import (
	"context"
	"database/sql"
	"fmt"
	"strings"
	"text/tabwriter"
)

// table prints the rows of a query, aligned.
func (d *Demo) table(ctx context.Context, query string) error {
	rows, err := d.db.QueryContext(ctx, query)
	if err != nil {
		return fmt.Errorf("read Postgres: %w", err)
	}
	defer rows.Close()
	columns, err := rows.Columns()
	if err != nil {
		return fmt.Errorf("read Postgres: %w", err)
	}
	w := tabwriter.NewWriter(d.Out, 2, 0, 2, ' ', 0)
	fmt.Fprintf(w, "  %s\t\n", strings.Join(columns, "\t"))
	cells, into := make([]sql.NullString, len(columns)), make([]any, len(columns))
	for i := range cells {
		into[i] = &cells[i]
	}
	for rows.Next() {
		if err := rows.Scan(into...); err != nil {
			return fmt.Errorf("read Postgres: %w", err)
		}
		line := "  "
		for _, c := range cells {
			text := []rune(c.String)
			if len(text) > 40 {
				text = append(text[:39], '…')
			}
			line += string(text) + "\t"
		}
		fmt.Fprintln(w, line)
	}
	if err := rows.Err(); err != nil {
		return fmt.Errorf("read Postgres: %w", err)
	}
	return w.Flush()
}

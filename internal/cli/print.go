package cli

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"slices"
	"strings"
	"text/tabwriter"
	"time"
	"unicode/utf8"

	"golang.org/x/term"

	"github.com/centime/contactsync/internal/connector"
	"github.com/centime/contactsync/internal/postgres"
)

// printer writes for a person or, with --json, for a program.
type printer struct {
	out, err io.Writer
	json     bool
	terminal bool // of out
}

func newPrinter(s Setup, asJSON bool) printer {
	f, ok := s.Stdout.(*os.File)
	return printer{out: s.Stdout, err: s.Stderr, json: asJSON, terminal: ok && term.IsTerminal(int(f.Fd()))}
}

// fail says what went wrong and what to do.
func (p printer) fail(err error) {
	kind, hint := "failed", ""
	switch e, ok := errors.AsType[*connector.Error](err); {
	case ok:
		kind, hint = string(e.Kind), e.Hint
	case errors.Is(err, postgres.ErrNotFound):
		kind = "not_found"
	}
	if _, bad := errors.AsType[*badUsage](err); bad {
		kind = "usage"
	}
	if p.json {
		p.document(map[string]any{"error": map[string]string{"kind": kind, "message": err.Error(), "hint": hint}})
		return
	}
	fmt.Fprintf(p.err, "syncctl: %v\n", err)
	if hint != "" {
		fmt.Fprintf(p.err, "What to do: %s\n", hint)
	}
}

func (p printer) document(v any) {
	enc := json.NewEncoder(p.out)
	enc.SetEscapeHTML(false)
	enc.SetIndent("", "  ")
	_ = enc.Encode(v) // standard output is closed: nobody listens
}

// say prints a line for a person, or fields for a program.
func (p printer) say(fields map[string]any, format string, args ...any) {
	if p.json {
		p.document(fields)
		return
	}
	fmt.Fprintf(p.out, format+"\n", args...)
}

// list prints rows: all columns as JSON under name, or those for people as an aligned table.
func (p printer) list(name string, rows postgres.Rows, next string, people ...string) {
	if p.json {
		var following any
		if next != "" {
			following = next
		}
		p.document(map[string]any{name: objects(rows), "next": following})
		return
	}
	if len(rows.Values) == 0 {
		fmt.Fprintf(p.out, "No %s.\n", name)
		return
	}
	w := tabwriter.NewWriter(p.out, 0, 0, 2, ' ', 0)
	var at []int
	for _, column := range people {
		if i := slices.Index(rows.Columns, column); i >= 0 {
			at = append(at, i)
			fmt.Fprintf(w, "%s\t", strings.ToUpper(strings.ReplaceAll(strings.TrimSuffix(column, "_id"), "_", " ")))
		}
	}
	fmt.Fprintln(w)
	for _, row := range rows.Values {
		for _, i := range at {
			fmt.Fprintf(w, "%s\t", shorten(cell(row[i]), 44))
		}
		fmt.Fprintln(w)
	}
	_ = w.Flush()
	if next != "" {
		fmt.Fprintf(p.out, "There are more: --offset %s\n", next)
	}
}

// show prints one row, a column a line.
func (p printer) show(rows postgres.Rows, row int) {
	w := tabwriter.NewWriter(p.out, 0, 0, 2, ' ', 0)
	for i, column := range rows.Columns {
		if v := cell(rows.Values[row][i]); v != "" {
			fmt.Fprintf(w, "%s\t%s\n", strings.ReplaceAll(column, "_", " "), v)
		}
	}
	_ = w.Flush()
}

// objects are rows as JSON: ids are strings, since a bigint does not fit a JSON number everywhere.
func objects(rows postgres.Rows) []map[string]any {
	out := make([]map[string]any, 0, len(rows.Values))
	for _, row := range rows.Values {
		o := map[string]any{}
		for i, column := range rows.Columns {
			o[column] = value(column, row[i])
		}
		out = append(out, o)
	}
	return out
}

func value(column string, v any) any {
	switch v := v.(type) {
	case int64:
		if strings.HasSuffix(column, "_id") {
			return fmt.Sprint(v)
		}
		return v
	case time.Time:
		return v.Format(time.RFC3339Nano)
	}
	return v
}

func cell(v any) string {
	switch v := v.(type) {
	case nil:
		return ""
	case bool:
		if v {
			return "yes"
		}
		return "no"
	case time.Time:
		return v.Format("2006-01-02 15:04:05Z")
	}
	return printable(fmt.Sprint(v))
}

// printable keeps a name in the ERP from moving the reader's cursor.
func printable(s string) string {
	return strings.Map(func(r rune) rune {
		if r < ' ' || r == 0x7f || r >= 0x80 && r < 0xa0 {
			return ' '
		}
		return r
	}, s)
}

func shorten(s string, width int) string {
	if utf8.RuneCountInString(s) <= width {
		return s
	}
	return string([]rune(s)[:width-1]) + "…"
}

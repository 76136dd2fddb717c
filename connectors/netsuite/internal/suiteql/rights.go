package suiteql

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/centime/contactsync/internal/connector"
)

// lacks are the tables, and the columns as table.column, that a login cannot read, sorted. NetSuite says the same of
// what is hidden, switched off and misspelt, so they are found by asking.
type lacks []string

func (l lacks) has(name string) bool {
	_, found := slices.BinarySearch(l, name)
	return found
}

func (l lacks) with(names ...string) lacks {
	all := append(slices.Clone(l), names...)
	slices.Sort(all)
	return slices.Compact(all)
}

// rightsVersion changes whenever a stored text would be misread.
const rightsVersion = 1

type storedRights struct {
	Version int   `json:"v"`
	Lacks   lacks `json:"lacks"`
}

// text is what connector.End.Rights has: what may be read, and not how.
func (l lacks) text() string {
	kept := lacks{}
	for _, name := range l {
		if !howNotWhat(name) {
			kept = append(kept, name)
		}
	}
	b, err := json.Marshal(storedRights{rightsVersion, kept})
	if err != nil {
		panic(err) // strings always marshal
	}
	return string(b)
}

// howNotWhat says whether a column is a way of asking, which not every account takes, and nothing that a login may read.
func howNotWhat(name string) bool {
	return name == customerTable.of(utc) || name == contactTable.of(utc) || name == relationTable.of(firstPrimary)
}

// Rights puts a stored text into words; nil if it cannot be read.
func Rights(stored string) []connector.Right {
	var r storedRights
	if json.Unmarshal([]byte(stored), &r) != nil || r.Version != rightsVersion {
		return nil
	}
	return r.Lacks.with().rights()
}

// rights names each table, and of the columns those that cannot be read.
func (l lacks) rights() []connector.Right {
	var all []connector.Right
	for _, t := range tables {
		all = append(all, connector.Right{Name: t.what, Readable: !l.has(t.name), Needed: t.needed, Fix: t.mend()})
		for _, c := range t.columns {
			field := t.of(c.name)
			if howNotWhat(field) || !l.has(field) {
				continue
			}
			if c.name == primaryContact {
				field = "customer.contact"
			}
			all = append(all, connector.Right{
				Name: "the field " + field,
				Fix: "Nothing, unless its values are missed: then show the field to the integration's role, or switch its " +
					"feature on.",
			})
		}
	}
	return all
}

// denied is the error of a login that may not read what is needed; nil if it may.
func (l lacks) denied() error {
	for _, t := range tables {
		if t.needed && l.has(t.name) {
			return &connector.Error{
				Kind: connector.Denied, Step: "probe permissions", Hint: t.mend(),
				Message: fmt.Sprintf("the role may not read %s (table %s), or not the fields of it that are needed", t.what, t.name),
			}
		}
	}
	return nil
}

// probing is where the search for what cannot be read is: one request at a time.
type probing struct {
	Table int `json:"table"`
	// Column: 0 asks for all columns, 1 for none of the optional ones, more for one of them.
	Column int `json:"column,omitempty"`
}

// probe sends the next request of a search, and a few more about a column that failed, and moves it on. now is NetSuite's time.
func (s *Source) probe(ctx context.Context, p *probing, l lacks, now time.Time) (lacks, error) {
	t := tables[p.Table]
	optional := t.optional()
	without := lacks{}
	switch {
	case p.Column == 1:
		without = without.with(optional...)
	case p.Column > 1:
		without = without.with(slices.Delete(slices.Clone(optional), p.Column-2, p.Column-1)...)
	}
	ask := s.try
	if p.Column > 1 || len(optional) == 0 {
		ask = s.tryAgain
	}
	err := ask(ctx, t, without, now)
	if p.Column > 1 && aboutStatement(err) {
		// A table that is taken away during the search fails with each column. One is hidden if it fails both before and
		// after a statement without any of them succeeds.
		bare := ask(ctx, t, lacks{}.with(optional...), now)
		switch {
		case aboutStatement(bare):
			p.Column = 0
			return slices.DeleteFunc(slices.Clone(l), func(name string) bool { return slices.Contains(optional, name) }), nil
		case bare != nil:
			return l, bare
		}
		err = ask(ctx, t, without, now)
	}
	forbidden := !t.needed && isForbidden(err)
	switch {
	case err != nil && !aboutStatement(err) && !forbidden:
		return l, err
	case err != nil && p.Column == 0 && len(optional) > 0:
		p.Column = 1
		return l, nil
	case p.Column == 1 && unexpected(err):
		return l, err // not one column's doing
	case p.Column <= 1 && err != nil:
		l = l.with(t.name)
	case p.Column == 1:
		p.Column = 2
		return l, nil
	case p.Column > 1:
		if err != nil {
			l = l.with(optional[p.Column-2])
		}
		if p.Column++; p.Column-2 < len(optional) {
			return l, nil
		}
	}
	p.Table, p.Column = p.Table+1, 0
	return l, nil
}

// try asks for one row, with the conditions that a pull has.
func (s *Source) try(ctx context.Context, t *table, without lacks, now time.Time) error {
	since := now.Add(-24 * time.Hour)
	_, err := s.query(ctx, "probe "+t.name, t.statement(without, t.next(without, place{}, &since)), 1)
	return err
}

// tryAgain is try where a failure decides: an accident of NetSuite's own does not happen twice.
func (s *Source) tryAgain(ctx context.Context, t *table, without lacks, now time.Time) error {
	err := s.try(ctx, t, without, now)
	if unexpected(err) {
		err = s.try(ctx, t, without, now)
	}
	return err
}

// probeAll searches to the end, past tables that cannot be read.
func (s *Source) probeAll(ctx context.Context, now time.Time) (lacks, error) {
	l := lacks{}
	for p := (probing{}); p.Table < len(tables); {
		var err error
		if l, err = s.probe(ctx, &p, l, now); err != nil {
			return l, err
		}
	}
	s.remember(l)
	return l, nil
}

// isForbidden: the login has no right to a table, as 403 says.
func isForbidden(err error) bool {
	f, ok := errors.AsType[*fault](err)
	return ok && f.forbidden()
}

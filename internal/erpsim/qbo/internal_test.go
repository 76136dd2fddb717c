package qbo

import (
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"pgregory.net/rapid"
)

// FuzzParse: no statement makes the parser panic, and each is either a query within the bounds or a fault 4000 or 4001.
func FuzzParse(f *testing.F) {
	for _, s := range []string{
		"", " ", "select * from Customer", "select count(*) from Customer where Active IN (true, false)",
		"select * from Customer where MetaData.LastUpdatedTime >= '2026-03-02T18:04:11Z' ORDERBY MetaData.LastUpdatedTime " +
			"STARTPOSITION 1 MAXRESULTS 1000",
		`SELECT * FROM Customer WHERE DisplayName LIKE 'O\'D%' AND Id IN ('1','2') ORDER BY Id DESC, DisplayName`,
		"select * from Customer where Balance >= -1.50 STARTPOSITION 99999999999999999999", "select '", "a\x00b", "'\\",
		"select * from Customer where DisplayName = '美咲 \xff 🌊'", "((((", "select * from Customer STARTPOSITION -1",
		"-", "1.",
	} {
		f.Add(s)
	}
	o := Options{}
	f.Fuzz(func(t *testing.T, statement string) {
		q, fault := parse(statement)
		if fault == nil {
			if q.start < 1 || q.max < 1 || q.entity == "" {
				t.Errorf("%q: %+v", statement, q)
			}
			_, fault = o.prepare(q)
		}
		if fault != nil && fault.code != "4000" && fault.code != "4001" {
			t.Errorf("%q: %v", statement, fault)
		}
	})
}

// However data changes, what the indexes find is what going through all rows finds.
func TestIndexesFindWhatAScanFinds(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(t *rapid.T) {
		at := time.Date(2026, 11, 1, 8, 0, 0, 0, time.UTC)
		o := Options{Now: func() time.Time { return at }, TextIDs: rapid.Bool().Draw(t, "text ids")}
		c := newCompany("1", "x", o, newTokens(o))
		anyID := func(t *rapid.T) string {
			return fmt.Sprint(rapid.Int64Range(1, max(c.last, 1)).Draw(t, "id"))
		}
		ignore := func(error) {} // an id that has merged away
		t.Repeat(map[string]func(*rapid.T){
			"wait":       func(t *rapid.T) { at = at.Add(time.Duration(rapid.IntRange(1, 900).Draw(t, "s")) * time.Second) },
			"import":     func(t *rapid.T) { c.Import(rapid.IntRange(1, 5).Draw(t, "n")) },
			"bulk":       func(t *rapid.T) { c.BulkLoad(rapid.IntRange(1, 30).Draw(t, "n"), rapid.Uint64().Draw(t, "seed")) },
			"rename":     func(t *rapid.T) { ignore(c.Rename(anyID(t), rapid.StringMatching("[a-cA-C]{1,3}").Draw(t, "name"))) },
			"deactivate": func(t *rapid.T) { ignore(c.Deactivate(anyID(t))) },
			"reactivate": func(t *rapid.T) { ignore(c.Reactivate(anyID(t))) },
			"bump":       func(t *rapid.T) { ignore(c.BumpBalance(anyID(t), 1)) },
			"merge":      func(t *rapid.T) { ignore(c.Merge(anyID(t), anyID(t), MergeAbsent)) },
			"": func(t *rapid.T) {
				for _, s := range []string{
					"select * from Customer",
					"select * from Customer where Active in (true,false) orderby Id startposition 3 maxresults 7",
					"select * from Customer orderby MetaData.LastUpdatedTime desc",
					"select * from Customer where Active in (true,false) and MetaData.LastUpdatedTime >= '2026-11-01T08:10:00Z' " +
						"orderby MetaData.LastUpdatedTime, Id",
					"select * from Customer where MetaData.CreateTime < '2026-11-01T08:10:00Z' orderby DisplayName, Id desc",
				} {
					q, f := parse(s)
					if f != nil {
						t.Fatal(f)
					}
					p, _ := o.prepare(q)
					page, _ := c.find(p)
					if got, want := ids(page), ids(scan(c, p)); got != want {
						t.Fatalf("%s:\n got %s\nwant %s", s, got, want)
					}
				}
			},
		})
	})
}

// scan runs a plan without any index.
func scan(c *Company, p plan) []*row {
	var found []*row
	for _, r := range c.byID {
		if !slices.ContainsFunc(p.tests, func(t test) bool { return !t.pass(c, r) }) {
			found = append(found, r)
		}
	}
	less := p.compare(c)
	if len(p.order) == 1 && p.order[0].desc { // an index read backwards has the ids falling where the rest is equal
		p.order = append(p.order, ordering{orderID, true})
		less = p.compare(c)
	}
	slices.SortFunc(found, less)
	found = found[min(p.start-1, len(found)):]
	return found[:min(p.max, len(found))]
}

func ids(rows []*row) string {
	var all []string
	for _, r := range rows {
		all = append(all, r.ID)
	}
	return strings.Join(all, " ")
}

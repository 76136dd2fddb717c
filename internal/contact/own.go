package contact

import (
	"cmp"
	"fmt"
	"slices"
	"strings"
	"time"
	"unicode"
	"unicode/utf8"
)

// What people may type into a contact that is created in Centime.

// PointKinds are all kinds of contact point, in the order they are shown in.
var PointKinds = []PointKind{Email, Phone, Mobile, Fax, Web, Social}

// textMax bounds what people type; an ERP's text may be longer.
const textMax = 500

// CheckName refuses what is no name of what.
func CheckName(what, name string) error {
	if name == "" {
		return fmt.Errorf("the %s needs a name", what)
	}
	return checkText("the name of the "+what, name)
}

func checkText(what, text string) error {
	if !utf8.ValidString(text) || strings.ContainsFunc(text, unicode.IsControl) || utf8.RuneCountInString(text) > textMax {
		return fmt.Errorf("%s may not be longer than %d characters, and may not hold line ends or other control characters", what, textMax)
	}
	return nil
}

// A Person is what a contact is called.
type Person struct {
	Name, GivenName, FamilyName, JobTitle string
}

// Check refuses what people may not type.
func (p Person) Check() error {
	if err := CheckName("contact", p.Name); err != nil {
		return err
	}
	for what, text := range map[string]string{"given name": p.GivenName, "family name": p.FamilyName, "job title": p.JobTitle} {
		if err := checkText("the "+what, text); err != nil {
			return err
		}
	}
	return nil
}

// An OwnPoint is a point of a contact that was created in Centime.
type OwnPoint struct {
	Point
	Days
}

// Days are the first and last day of a point, both included: whole days in the tenant's time zone, as 2026-12-31. Empty: no bound.
type Days struct{ First, Last string }

func (d Days) String() string {
	if d == (Days{}) {
		return ""
	}
	return d.First + ".." + d.Last
}

// ParseDays reads FIRST..LAST, either of which may be missing.
func ParseDays(text string) (Days, error) {
	first, last, ok := strings.Cut(text, "..")
	d := Days{strings.TrimSpace(first), strings.TrimSpace(last)}
	for _, day := range []string{d.First, d.Last} {
		if _, err := time.Parse(time.DateOnly, day); day != "" && err != nil {
			ok = false
		}
	}
	if text != "" && !ok {
		return Days{}, fmt.Errorf("days are FIRST..LAST, such as 2026-12-01..2026-12-31, where either may be missing")
	}
	if d.First != "" && d.Last != "" && d.First > d.Last {
		return Days{}, fmt.Errorf("the first day is after the last one")
	}
	return d, nil
}

// PointEdits change the points of a contact that was created in Centime; what they do not name stays. A point is named by its
// value.
type PointEdits struct {
	Add     []NewPoint
	Drop    []string
	Primary []string // the ones to show for their kinds
	Days    []PointDays
}

// NewPoint is a point to add.
type NewPoint struct {
	Kind  PointKind
	Value string
}

// PointDays sets the days of a point.
type PointDays struct {
	Value string
	Days  Days
}

// Apply is the points after the edits. Each kind is a field of its own, all of e-mail is the main field, and a point keeps its
// place for as long as it is there. One point of each kind is primary.
func (e PointEdits) Apply(points []OwnPoint) ([]OwnPoint, error) {
	points = slices.Clone(points)
	for i, value := range e.Drop {
		kept := slices.DeleteFunc(slices.Clone(points), func(p OwnPoint) bool { return p.has(value) })
		if len(kept) == len(points) {
			return nil, fmt.Errorf("the contact has no point with the value to drop (number %d)", i+1)
		}
		points = kept
	}
	given := map[PointKind]int{}
	for _, n := range e.Add {
		given[n.Kind]++
		p, err := n.point()
		if err != nil {
			return nil, fmt.Errorf("%s number %d: %w", n.Kind, given[n.Kind], err)
		}
		if slices.ContainsFunc(points, func(o OwnPoint) bool { return o.Kind == p.Kind && o.has(n.Value) }) {
			continue
		}
		for _, o := range points {
			if o.Field == p.Field {
				p.Place = max(p.Place, o.Place+1)
			}
		}
		points = append(points, OwnPoint{Point: p})
	}
	for i, d := range e.Days {
		if err := each(points, d.Value, func(p *OwnPoint) { p.Days = d.Days }); err != nil {
			return nil, fmt.Errorf("days number %d: %w", i+1, err)
		}
	}
	for i, value := range e.Primary {
		err := each(points, value, func(p *OwnPoint) {
			for j := range points {
				points[j].Primary = points[j].Primary && points[j].Kind != p.Kind
			}
			p.Primary = true
		})
		if err != nil {
			return nil, fmt.Errorf("primary number %d: %w", i+1, err)
		}
	}
	for i := range points {
		kind := points[i].Kind
		if !slices.ContainsFunc(points, func(p OwnPoint) bool { return p.Kind == kind && p.Primary }) {
			points[i].Primary = true
		}
	}
	slices.SortFunc(points, func(a, b OwnPoint) int { return cmp.Or(cmp.Compare(a.Field, b.Field), cmp.Compare(a.Place, b.Place)) })
	return points, nil
}

func (n NewPoint) point() (Point, error) {
	value := strings.TrimSpace(n.Value)
	p := Point{Kind: n.Kind, Field: string(n.Kind), Place: 1, Value: value, Normalised: value, Usable: true, Main: n.Kind == Email}
	switch {
	case !slices.Contains(PointKinds, n.Kind):
		return p, fmt.Errorf("there is no such kind of point")
	case value == "":
		return p, fmt.Errorf("it is empty")
	case n.Kind == Email:
		if p.Normalised, p.Usable = Address(value); !p.Usable {
			return p, fmt.Errorf("it is no address that mail can go to: one address each, such as ap@kelp.example")
		}
		return p, nil
	}
	return p, checkText("a point", value)
}

// has says whether a point is the one that a value names; addresses are compared without case.
func (p OwnPoint) has(value string) bool {
	value = strings.TrimSpace(value)
	if p.Value == value {
		return true
	}
	address, ok := Address(value)
	return ok && p.Kind == Email && strings.EqualFold(p.Normalised, address)
}

func each(points []OwnPoint, value string, change func(*OwnPoint)) error {
	found := false
	for i := range points {
		if points[i].has(value) {
			found = true
			change(&points[i])
		}
	}
	if !found {
		return fmt.Errorf("the contact has no point with this value")
	}
	return nil
}

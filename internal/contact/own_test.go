package contact_test

import (
	"fmt"
	"slices"
	"strings"
	"testing"

	"pgregory.net/rapid"

	"github.com/centime/contactsync/internal/contact"
)

// What people type is taken as it is meant, or refused with what to do; nothing they did not name changes.
func TestPointEdits(t *testing.T) {
	t.Parallel()
	held, err := contact.PointEdits{Add: []contact.NewPoint{
		{Kind: contact.Email, Value: " Ingrid <ingrid@kelp.example> "}, {Kind: contact.Email, Value: "ap@kelp.example"}, {Kind: contact.Phone, Value: "218 555 0142"},
	}}.Apply(nil)
	if err != nil {
		t.Fatal(err)
	}
	show := func(points []contact.OwnPoint) string {
		var out []string
		for _, p := range points {
			mark := ""
			if p.Primary {
				mark = "*"
			}
			out = append(out, fmt.Sprintf("%s%d %s%s %s", p.Field, p.Place, p.Normalised, mark, p.Days))
		}
		return strings.Join(out, "; ")
	}
	if got := show(held); got != "email1 ingrid@kelp.example* ; email2 ap@kelp.example ; phone1 218 555 0142* " {
		t.Errorf("held: %s", got)
	}
	for name, c := range map[string]struct {
		edits contact.PointEdits
		want  string
	}{
		"Nothing":  {contact.PointEdits{}, show(held)},
		"KnownAdd": {contact.PointEdits{Add: []contact.NewPoint{{Kind: contact.Email, Value: "AP@Kelp.example"}}}, show(held)},
		"Drop": {contact.PointEdits{Drop: []string{"INGRID@kelp.example"}, Add: []contact.NewPoint{{Kind: contact.Email, Value: "new@kelp.example"}}},
			"email2 ap@kelp.example* ; email3 new@kelp.example ; phone1 218 555 0142* "},
		"Primary": {contact.PointEdits{Primary: []string{"ap@kelp.example"}},
			"email1 ingrid@kelp.example ; email2 ap@kelp.example* ; phone1 218 555 0142* "},
		"Days": {contact.PointEdits{Days: []contact.PointDays{{Value: "ap@kelp.example", Days: contact.Days{Last: "2026-12-31"}}}},
			"email1 ingrid@kelp.example* ; email2 ap@kelp.example ..2026-12-31; phone1 218 555 0142* "},
	} {
		got, err := c.edits.Apply(held)
		if err != nil || show(got) != c.want {
			t.Errorf("%s: %s, %v; want %s", name, show(got), err, c.want)
		}
	}
	for want, edits := range map[string]contact.PointEdits{
		"email number 2": {Add: []contact.NewPoint{{Kind: contact.Email, Value: "a@kelp.example"}, {Kind: contact.Email, Value: "b@kelp, example"}}},
		"it is empty":    {Add: []contact.NewPoint{{Kind: contact.Phone, Value: " "}}},
		"control":        {Add: []contact.NewPoint{{Kind: contact.Web, Value: "kelp.example\nBcc: x"}}},
		"no such kind":   {Add: []contact.NewPoint{{Kind: "pager", Value: "1"}}},
		"to drop":        {Drop: []string{"nobody@kelp.example"}},
		"days number 1":  {Days: []contact.PointDays{{Value: "nobody@kelp.example"}}},
		"primary number": {Primary: []string{"nobody@kelp.example"}},
	} {
		if _, err := edits.Apply(held); err == nil || !strings.Contains(err.Error(), want) || strings.Contains(err.Error(), "kelp.example,") {
			t.Errorf("want an error about %q: %v", want, err)
		}
	}
}

func TestParseDays(t *testing.T) {
	t.Parallel()
	for text, want := range map[string]contact.Days{
		"": {}, "..": {}, "2026-12-01..": {First: "2026-12-01"}, "..2026-12-31": {Last: "2026-12-31"},
		"2026-12-01..2026-12-01": {First: "2026-12-01", Last: "2026-12-01"},
	} {
		if got, err := contact.ParseDays(text); err != nil || got != want {
			t.Errorf("%q: %v, %v", text, got, err)
		}
	}
	for _, text := range []string{"2026-12-01", "2026-13-01..", "1.12.2026..", "2026-12-02..2026-12-01", "2026-12-01...2026-12-02"} {
		if got, err := contact.ParseDays(text); err == nil {
			t.Errorf("%q is taken for %v", text, got)
		}
	}
}

// Whatever is edited: every address is one that mail can go to, no two points share a place, and one of each kind is shown.
func TestAnyEditsLeaveProperPoints(t *testing.T) {
	t.Parallel()
	value := rapid.SampledFrom([]string{"a@kelp.example", "A@kelp.example", "b@kelp.example", "218 555 0142", "https://kelp.example", "x", ""})
	edits := rapid.Custom(func(t *rapid.T) contact.PointEdits {
		var e contact.PointEdits
		for range rapid.IntRange(0, 3).Draw(t, "adds") {
			e.Add = append(e.Add, contact.NewPoint{Kind: rapid.SampledFrom(contact.PointKinds).Draw(t, "kind"), Value: value.Draw(t, "value")})
		}
		e.Drop = rapid.SliceOfN(value, 0, 1).Draw(t, "drop")
		e.Primary = rapid.SliceOfN(value, 0, 2).Draw(t, "primary")
		return e
	})
	rapid.Check(t, func(t *rapid.T) {
		var points []contact.OwnPoint
		for range 6 {
			before := slices.Clone(points)
			next, err := edits.Draw(t, "edits").Apply(points)
			if !slices.Equal(before, points) {
				t.Fatal("the points given have changed")
			}
			if err != nil {
				continue
			}
			points = next
			primary, at := map[contact.PointKind]int{}, map[string]bool{}
			for _, p := range points {
				primary[p.Kind] += 0
				if p.Primary {
					primary[p.Kind]++
				}
				place := fmt.Sprint(p.Field, p.Place)
				if at[place] || p.Place < 1 || !p.Usable || p.Main != (p.Kind == contact.Email) {
					t.Fatalf("%+v", points)
				}
				at[place] = true
			}
			for kind, n := range primary {
				if n != 1 {
					t.Fatalf("%d points of kind %s are shown: %+v", n, kind, points)
				}
			}
		}
	})
}

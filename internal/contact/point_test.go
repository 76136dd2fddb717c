package contact_test

import (
	"net/mail"
	"slices"
	"strings"
	"testing"
	"unicode"

	"pgregory.net/rapid"

	"github.com/centime/contactsync/internal/contact"
)

// An invoice goes to what a text names, or to nobody.
func TestAddress(t *testing.T) {
	t.Parallel()
	for text, want := range map[string]string{
		"ap@kelp.example":                               "ap@kelp.example",
		"AP@Kelp.EXAMPLE":                               "AP@kelp.example", // the local part is the receiver's own
		"o'dea+ap@kelp.example":                         "o'dea+ap@kelp.example",
		"<ap@kelp.example>":                             "ap@kelp.example",
		"Ingrid Solheim <ap@kelp.example>":              "ap@kelp.example",
		`"Solheim, Ingrid" < ap@kelp.example >`:         "ap@kelp.example",
		"ap@kelp.example <AP@kelp.example>":             "AP@kelp.example",
		"'ap@kelp.example' <ap@kelp.example>":           "ap@kelp.example",
		"ingrid@bücher.example":                         "ingrid@xn--bcher-kva.example",
		"søren@kelp.example":                            "søren@kelp.example",
		strings.Repeat("a", 64) + "@kelp.example":       strings.Repeat("a", 64) + "@kelp.example",
		strings.Repeat("a", 65) + "@kelp.example":       "",
		"a@" + strings.Repeat("b", 64) + ".example":     "",
		"a@" + strings.Repeat("long.", 60) + "example":  "",
		"a@" + strings.Repeat("long.", 300) + "example": "",
		"":                                    "",
		"see notes":                           "",
		"@kelp.example":                       "",
		"ap@":                                 "",
		"ap@kelp":                             "",
		"ap@kelp.example.":                    "",
		"ap@.example":                         "",
		"ap@-kelp.example":                    "",
		"ap@kelp_1.example":                   "",
		"ap@kelp.1":                           "",
		"ap@192.0.2.1":                        "",
		"ap@[192.0.2.1]":                      "",
		"ap@xn--a.example":                    "",
		".ap@kelp.example":                    "",
		"a..p@kelp.example":                   "",
		`"a p"@kelp.example`:                  "",
		"ap@kelp.example (office)":            "",
		"mailto:ap@kelp.example":              "",
		"ap@kelp.example>":                    "",
		"Ingrid <>":                           "",
		" ap@kelp.example":                    "",
		"a p@kelp.example":                    "",
		"a\u00a0p@kelp.example":               "", // a space that does not break
		"a\u2028p@kelp.example":               "", // a line end
		"a\u0085p@kelp.example":               "", // another
		"a\u200bp@kelp.example":               "", // no width
		"\ufeffap@kelp.example":               "", // a byte order mark
		"a\u202ep@kelp.example":               "", // text from right to left
		"a\x00p@kelp.example":                 "",
		"ap\xff@kelp.example":                 "",
		"a@kelp.example b@kelp.example":       "",
		"a@kelp.example\nb@kelp.example":      "",
		"a@kelp.example,b@kelp.example":       "",
		"a@kelp.example <b@kelp.example>":     "", // two addresses: no guess
		"Ann <a@kelp.example> <b@kelp.test>":  "",
		"Ann\r\nBcc: Bea <ap@kelp.example>":   "",
		"ap@kelp.example\r\nBcc: b@kelp.test": "",
	} {
		got, ok := contact.Address(text)
		if got != want || ok != (want != "") {
			t.Errorf("%q names the address %q, %t; want %q", text, got, ok, want)
		}
	}
}

// Each address in a field gets its mail, and what is no address is seen.
func TestPoints(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		raw    string
		values []string
		usable []bool
	}{
		{"", nil, nil},
		{"  ", nil, nil},
		{";, ;", nil, nil},
		{" ap@kelp.example ", []string{"ap@kelp.example"}, []bool{true}},
		{"a@kelp.example, b@kelp.example", []string{"a@kelp.example", "b@kelp.example"}, []bool{true, true}},
		{"a@kelp.example;b@kelp.example;", []string{"a@kelp.example", "b@kelp.example"}, []bool{true, true}},
		{"call first; a@kelp.example", []string{"call first", "a@kelp.example"}, []bool{false, true}},
		{`"Solheim, Ingrid" <i@kelp.example>; b@kelp.example`,
			[]string{`"Solheim, Ingrid" <i@kelp.example>`, "b@kelp.example"}, []bool{true, true}},
		{"<a,b@kelp.example>", []string{"<a,b@kelp.example>"}, []bool{false}},
		{`"a@kelp.example, b@kelp.example`, []string{`"a@kelp.example`, "b@kelp.example"}, []bool{false, true}},
		{"<a@kelp.example, b@kelp.example", []string{"<a@kelp.example", "b@kelp.example"}, []bool{false, true}},
	} {
		points := contact.Points(contact.Email, "email", c.raw, true)
		if len(points) != len(c.values) {
			t.Errorf("%q has %d points, want %d", c.raw, len(points), len(c.values))
			continue
		}
		for i, p := range points {
			if p.Value != c.values[i] || p.Usable != c.usable[i] || p.Place != i+1 || !p.Main ||
				p.Kind != contact.Email || p.Field != "email" || p.Primary {
				t.Errorf("point %d of %q is %+v", i+1, c.raw, p)
			}
		}
	}
	phone := contact.Points(contact.Phone, "phone", " 218 555 0142, ask for Ingrid ", false)
	if len(phone) != 1 || phone[0].Value != "218 555 0142, ask for Ingrid" || !phone[0].Usable || phone[0].Main {
		t.Errorf("a phone field is one point, as it was typed: %+v", phone)
	}
	if got := contact.Points(contact.Phone, "phone", " \t", false); len(got) != 0 {
		t.Errorf("a blank field has points: %+v", got)
	}
}

// The point shown is one that mail can go to, where there is one.
func TestMarkPrimary(t *testing.T) {
	t.Parallel()
	mailPoint := func(main, usable bool) contact.Point {
		return contact.Point{Kind: contact.Email, Main: main, Usable: usable}
	}
	for _, c := range []struct {
		name   string
		points []contact.Point
		want   int
	}{
		{"the only one", []contact.Point{mailPoint(false, false)}, 0},
		{"the first of equals", []contact.Point{mailPoint(true, true), mailPoint(true, true)}, 0},
		{"the main field before others", []contact.Point{mailPoint(false, true), mailPoint(true, true)}, 1},
		{"a usable one before the main field", []contact.Point{mailPoint(true, false), mailPoint(false, true)}, 1},
		{"the main field if none is usable", []contact.Point{mailPoint(false, false), mailPoint(true, false)}, 1},
	} {
		c.points = append(c.points, contact.Point{Kind: contact.Phone, Usable: true, Primary: true},
			contact.Point{Kind: contact.Phone, Usable: true, Primary: true})
		contact.MarkPrimary(c.points)
		var primary []int
		for i, p := range c.points {
			if p.Primary {
				primary = append(primary, i)
			}
		}
		if want := []int{c.want, len(c.points) - 2}; !slices.Equal(primary, want) {
			t.Errorf("%s: points %v are primary, want %v", c.name, primary, want)
		}
	}
	contact.MarkPrimary(nil)
}

// Of a contact's points, exactly one of each kind is shown.
func TestOnePrimaryOfEachKind(t *testing.T) {
	t.Parallel()
	point := rapid.Custom(func(t *rapid.T) contact.Point {
		return contact.Point{
			Kind:    rapid.SampledFrom([]contact.PointKind{contact.Email, contact.Phone, contact.Web}).Draw(t, "kind"),
			Main:    rapid.Bool().Draw(t, "main"),
			Usable:  rapid.Bool().Draw(t, "usable"),
			Primary: rapid.Bool().Draw(t, "primary"),
		}
	})
	rapid.Check(t, func(t *rapid.T) {
		points := rapid.SliceOf(point).Draw(t, "points")
		contact.MarkPrimary(points)
		shown, usable := map[contact.PointKind]int{}, map[contact.PointKind]bool{}
		for _, p := range points {
			shown[p.Kind] += 0
			usable[p.Kind] = usable[p.Kind] || p.Usable
		}
		for _, p := range points {
			if p.Primary {
				shown[p.Kind]++
				if usable[p.Kind] && !p.Usable {
					t.Fatalf("an unusable %s is shown, and there is a usable one", p.Kind)
				}
			}
		}
		for kind, n := range shown {
			if n != 1 {
				t.Fatalf("%d points of kind %s are shown", n, kind)
			}
		}
	})
}

// Nothing of what was typed is lost, and nothing typed reaches a mail header but an address.
func FuzzPoints(f *testing.F) {
	for _, seed := range []string{
		"", "a@kelp.example", "a@kelp.example, b@kelp.example; c@kelp.example", `"Solheim, I" <i@kelp.example>`,
		`"a\"b, c" <x@kelp.example>`, "<a@kelp.example,", `"`, "a\u0085@kelp.example", "a@x。com", "a@\u00adkelp.example",
		"a@kelp.example\r\nBcc: b@kelp.example", "Ann\r\nBcc: Bea <a@kelp.example>", "a\u200b@kelp.example",
		"\xff,\xed\xa0\xbd", "\xd2,\xa2",
		"a@ͅb.example", "a@xn--0.pt", "ａ@kelp.example", "A@KELP.EXAMPLE", "a@kelp.example\x00",
	} {
		f.Add(seed)
	}
	strip := func(s string) string {
		return strings.Map(func(r rune) rune {
			if r == ',' || r == ';' || unicode.IsSpace(r) {
				return -1
			}
			return r
		}, s)
	}
	f.Fuzz(func(t *testing.T, raw string) {
		var all strings.Builder
		for i, p := range contact.Points(contact.Email, "email", raw, true) {
			all.WriteString("," + p.Value)
			if p.Value == "" || p.Value != strings.TrimSpace(p.Value) || p.Place != i+1 {
				t.Errorf("point %d is %+v", i+1, p)
			}
			if p.Usable != (p.Normalised != "") {
				t.Errorf("%q is usable: %t, and its normalised form is %q", p.Value, p.Usable, p.Normalised)
			}
			if !p.Usable {
				continue
			}
			a, err := mail.ParseAddress(p.Normalised)
			if err != nil || a.Address != p.Normalised || a.Name != "" {
				t.Errorf("%q is said to be usable and does not parse: %v", p.Normalised, err)
			}
			if again, ok := contact.Address(p.Normalised); !ok || again != p.Normalised {
				t.Errorf("%q is normalised once more to %q", p.Normalised, again)
			}
			odd := func(r rune) bool { return unicode.IsSpace(r) || unicode.IsControl(r) || unicode.Is(unicode.Cf, r) }
			if strings.ContainsAny(p.Normalised, `,;<>"\()[]:`) || strings.ContainsFunc(p.Normalised, odd) {
				t.Errorf("%q could end a header or name another receiver", p.Normalised)
			}
			if strings.Count(p.Normalised, "@") != 1 || len(p.Normalised) > 254 {
				t.Errorf("%q is no single address", p.Normalised)
			}
		}
		if got, want := strip(all.String()), strip(raw); got != want {
			t.Errorf("of %q there is left %q", want, got)
		}
		for _, p := range contact.Points(contact.Phone, "phone", raw, false) {
			if p.Value != strings.TrimSpace(raw) {
				t.Errorf("a phone field %q became %q", raw, p.Value)
			}
		}
	})
}

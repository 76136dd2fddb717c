package contact

import (
	"net/mail"
	"slices"
	"strings"
	"unicode"
	"unicode/utf8"

	"golang.org/x/net/idna"
)

// PointKind is a way to reach a contact.
type PointKind string

// The kinds of contact point.
const (
	Email  PointKind = "email"
	Phone  PointKind = "phone"
	Mobile PointKind = "mobile"
	Fax    PointKind = "fax"
	Web    PointKind = "web"
	Social PointKind = "social"
)

// A Point is one way to reach a contact: one value in one place of one field.
type Point struct {
	Kind       PointKind `json:"kind"`
	Field      string    `json:"field"`      // the ERP's name of the field
	Place      int       `json:"place"`      // 1 is the first value in the field
	Value      string    `json:"value"`      // as it was given, trimmed
	Normalised string    `json:"normalised"` // what to send to; empty if unusable
	Main       bool      `json:"main"`       // in the field that mail goes to
	Primary    bool      `json:"primary"`    // the one shown for its kind
	Usable     bool      `json:"usable"`
}

// Points reads one field's raw text. A mail field may hold several addresses, parted by comma or semicolon: each is a
// point, in order. What is no address stays as an unusable point, so that it is seen and the address before it is gone.
func Points(kind PointKind, field, raw string, main bool) []Point {
	values := []string{strings.TrimSpace(raw)}
	if kind == Email {
		values = splitAddresses(raw)
	}
	var points []Point
	for _, v := range values {
		if v == "" {
			continue
		}
		p := Point{Kind: kind, Field: field, Place: len(points) + 1, Value: v, Main: main}
		if kind == Email {
			p.Normalised, p.Usable = Address(v)
		} else {
			p.Normalised, p.Usable = v, true
		}
		points = append(points, p)
	}
	return points
}

// MarkPrimary marks one point of each kind as the one to show: the first usable one, of the main field before others;
// if none is usable, the first.
func MarkPrimary(points []Point) {
	var best []int // points, one of each kind
	rank := func(p Point) int {
		switch {
		case p.Usable && p.Main:
			return 3
		case p.Usable:
			return 2
		case p.Main:
			return 1
		}
		return 0
	}
	for i, p := range points {
		points[i].Primary = false
		k := slices.IndexFunc(best, func(j int) bool { return points[j].Kind == p.Kind })
		if k < 0 {
			best = append(best, i)
		} else if rank(p) > rank(points[best[k]]) {
			best[k] = i
		}
	}
	for _, i := range best {
		points[i].Primary = true
	}
}

// splitAddresses parts a mail field at commas and semicolons that stand outside quotes and angle brackets.
func splitAddresses(raw string) []string {
	var out []string
	var quoted, angled bool
	start := 0
	for i, r := range raw {
		switch {
		case r == '"':
			quoted = !quoted
		case quoted:
		case r == '<':
			angled = true
		case r == '>':
			angled = false
		case (r == ',' || r == ';') && !angled:
			out = append(out, strings.TrimSpace(raw[start:i]))
			start = i + 1
		}
	}
	if quoted || angled { // unbalanced: the marks mean nothing, so every separator counts
		out = out[:0]
		for part := range strings.FieldsFuncSeq(raw, func(r rune) bool { return r == ',' || r == ';' }) {
			out = append(out, strings.TrimSpace(part))
		}
		return out
	}
	return append(out, strings.TrimSpace(raw[start:]))
}

// Address is the address to send to that a text names: alone, or as `Name <address>`. Its domain is in lower case and
// ASCII. net/mail alone accepts far too much, so the domain must have a dot and proper labels, and lengths are those of
// RFC 5321 (local part 64, all 254 bytes). An entry that names two addresses is none: which was meant is not guessed.
func Address(text string) (address string, ok bool) {
	if !utf8.ValidString(text) || len(text) > 1000 {
		return "", false
	}
	bare := text
	if open := strings.LastIndexByte(text, '<'); open >= 0 && strings.HasSuffix(text, ">") {
		bare = strings.TrimSpace(text[open+1 : len(text)-1])
		name := strings.Trim(text[:open], ` "'`)
		if strings.ContainsAny(name, "<>\r\n") || strings.Contains(name, "@") && !strings.EqualFold(name, bare) {
			return "", false
		}
	}
	at := strings.LastIndexByte(bare, '@')
	if at <= 0 {
		return "", false
	}
	local := bare[:at]
	domain, err := idna.Lookup.ToASCII(bare[at+1:])
	if err != nil || !properDomain(domain) || len(local) > 64 || len(local)+1+len(domain) > 254 {
		return "", false
	}
	address = local + "@" + domain
	if strings.ContainsAny(local, "\"\\ ()<>[]:") || strings.ContainsFunc(local, unseen) {
		return "", false
	}
	parsed, err := mail.ParseAddress(address)
	if err != nil || parsed.Name != "" || parsed.Address != address {
		return "", false
	}
	return address, true
}

// unseen is what nobody types into an address and net/mail lets through: spaces, line ends, control and invisible
// characters beyond ASCII.
func unseen(r rune) bool { return unicode.IsSpace(r) || !unicode.IsGraphic(r) }

// properDomain wants two labels or more of letters, digits and inner hyphens, the last one not a number.
func properDomain(domain string) bool {
	labels := strings.Split(domain, ".")
	if len(labels) < 2 || strings.Trim(labels[len(labels)-1], "0123456789") == "" {
		return false
	}
	return !slices.ContainsFunc(labels, func(l string) bool {
		return l == "" || len(l) > 63 || l[0] == '-' || l[len(l)-1] == '-' ||
			strings.Trim(l, "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789-") != ""
	})
}

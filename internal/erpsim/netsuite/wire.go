package netsuite

import (
	"fmt"
	"regexp"
	"strconv"
	"strings"
	"time"
	"unicode/utf8"
)

// envelope is a page of rows: OH/section_157909186990.
func envelope(href string, limit, offset, count int, more bool, total int, items []byte) []byte {
	link := func(rel string, offset int) string {
		return fmt.Sprintf(`{"rel":"%s","href":"%s?limit=%d&offset=%d"}`, rel, href, limit, offset)
	}
	var links []string
	if more {
		links = append(links, link("next", offset+count))
	}
	if offset > 0 {
		links = append(links, link("first", 0), link("previous", max(0, offset-limit)))
	}
	if total > 0 && limit > 0 {
		links = append(links, link("last", (total-1)/limit*limit))
	}
	links = append(links, link("self", offset))
	b := make([]byte, 0, len(items)+512)
	b = append(b, `{"links":[`...)
	b = append(b, strings.Join(links, ",")...)
	b = fmt.Appendf(b, `],"count":%d,"hasMore":%t,"items":[`, count, more)
	b = append(b, items...)
	return fmt.Appendf(b, `],"offset":%d,"totalResults":%d}`, offset, total)
}

// item is a row on the wire.
func (p *plan) item(b []byte, t tuple) []byte {
	b = append(b, `{"links":[]`...)
	for i := range p.outputs {
		o := &p.outputs[i]
		if cell, spoilt := p.spoilt(o, t); spoilt {
			if cell != "" {
				b = append(append(append(b, ','), o.prefix...), cell...)
			}
			continue
		}
		v := o.eval(t)
		if v.null && !p.a.o.EmptyNulls {
			continue
		}
		b = append(append(b, ','), o.prefix...)
		b = p.cell(b, o.kind, v)
	}
	return append(b, '}')
}

// spoilt is the JSON that Account.Spoil put in place of a cell.
func (p *plan) spoilt(o *output, t tuple) (cell string, spoilt bool) {
	if len(p.a.spoilt) == 0 || o.source < 0 || t[o.source] == nil {
		return "", false
	}
	cell, spoilt = p.a.spoilt[p.from[o.source].table+" "+t[o.source].id()][o.column]
	return cell, spoilt
}

func (p *plan) cell(b []byte, k kind, v value) []byte {
	switch {
	case v.null:
		return append(b, `""`...)
	case k == numberKind:
		return append(b, p.number(v.number)...)
	case k == flagKind && p.a.o.NativeCells:
		return strconv.AppendBool(b, v.text == "T")
	case k == momentKind, k == wallKind:
		at := time.Unix(v.number, 0).UTC()
		if k == momentKind {
			at = at.In(p.a.o.Zone)
		}
		v.text = at.Format(p.a.o.DateFormat)
	}
	return appendString(b, v.text)
}

func (p *plan) number(n int64) []byte {
	b := make([]byte, 0, 22)
	if p.a.o.NativeCells {
		return strconv.AppendInt(b, n, 10)
	}
	b = strconv.AppendInt(append(b, '"'), n, 10)
	return append(b, '"')
}

// appendString writes a string of JSON, in UTF-8 but for what must be escaped.
func appendString(b []byte, s string) []byte {
	if !utf8.ValidString(s) {
		s = strings.ToValidUTF8(s, "\uFFFD")
	}
	b = append(b, '"')
	from := 0
	for i := 0; i < len(s); i++ {
		if c := s[i]; c < 0x20 || c == '"' || c == '\\' {
			b = append(b, s[from:i]...)
			if from = i + 1; c < 0x20 {
				b = fmt.Appendf(b, `\u%04x`, c)
			} else {
				b = append(b, '\\', c)
			}
		}
	}
	return append(append(b, s[from:]...), '"')
}

var after = regexp.MustCompile(`>\s*-?\d+`)

// fromTheStart answers a statement as if the key its page begins after were the lowest there is.
func (a *Account) fromTheStart(c call) reply {
	c.Statement = after.ReplaceAllString(c.Statement, "> -999999999")
	body, f := a.suiteQL(c)
	if f != nil {
		return f.reply()
	}
	return ok(body)
}

package erphttp

import (
	"bytes"
	"strconv"
	"unicode/utf16"
	"unicode/utf8"
)

// Text is a JSON string as it was sent. encoding/json alone would hide a lone surrogate and an invalid byte as U+FFFD;
// here a lone surrogate becomes its three WTF-8 bytes and an invalid byte stays, so that who stores it sees both.
type Text struct {
	Value string
	Set   bool // there was a string, if only an empty one
	Odd   bool // there was a value and it was no string
}

// UnmarshalJSON never fails: a value that is no string is Odd, null is empty.
func (t *Text) UnmarshalJSON(b []byte) error {
	*t = Text{}
	switch {
	case bytes.Equal(b, []byte("null")):
	case len(b) < 2 || b[0] != '"':
		t.Odd = true
	case bytes.IndexByte(b, '\\') < 0:
		t.Value, t.Set = string(b[1:len(b)-1]), true
	default:
		t.Set = true
		t.Value = unescape(b[1 : len(b)-1])
	}
	return nil
}

// unescape reads the inside of a JSON string that encoding/json has found to be well-formed.
func unescape(b []byte) string {
	out := make([]byte, 0, len(b))
	for i := 0; i < len(b); {
		if b[i] != '\\' || i+1 == len(b) {
			out = append(out, b[i])
			i++
			continue
		}
		switch c := b[i+1]; c {
		case 'u':
			r := escaped(b[i:])
			i += 6
			if utf16.IsSurrogate(r) {
				if pair := utf16.DecodeRune(r, escaped(b[min(i, len(b)):])); pair != utf8.RuneError {
					out = utf8.AppendRune(out, pair)
					i += 6
					continue
				}
				//nolint:gosec // a surrogate has 16 bits
				out = append(out, 0xE0|byte(r>>12), 0x80|byte(r>>6)&0x3F, 0x80|byte(r)&0x3F)
				continue
			}
			out = utf8.AppendRune(out, r)
			continue
		case 'b':
			out = append(out, '\b')
		case 'f':
			out = append(out, '\f')
		case 'n':
			out = append(out, '\n')
		case 'r':
			out = append(out, '\r')
		case 't':
			out = append(out, '\t')
		default:
			out = append(out, c)
		}
		i += 2
	}
	return string(out)
}

// escaped is the code unit of a \uXXXX at the start of b, or -1.
func escaped(b []byte) rune {
	if len(b) < 6 || b[0] != '\\' || b[1] != 'u' {
		return -1
	}
	n, err := strconv.ParseUint(string(b[2:6]), 16, 16)
	if err != nil {
		return -1
	}
	return rune(n)
}

// Flag is a JSON boolean that may be missing or odd.
type Flag struct {
	Value bool
	Set   bool // there was a boolean
	Odd   bool // there was a value and it was no boolean
}

// UnmarshalJSON never fails.
func (f *Flag) UnmarshalJSON(b []byte) error {
	*f = Flag{Set: true}
	switch string(b) {
	case "true":
		f.Value = true
	case "false":
	case "null":
		f.Set = false
	default:
		f.Set, f.Odd = false, true
	}
	return nil
}

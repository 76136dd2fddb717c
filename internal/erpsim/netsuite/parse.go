package netsuite

import (
	"fmt"
	"strconv"
	"strings"
	"unicode"
	"unicode/utf8"
)

// A query is a statement, parsed:
//
//	SELECT expr [[AS] alias], … FROM table [alias], … [WHERE condition] [ORDER BY expr [ASC|DESC], …]
//
// An expression may be a statement in parentheses.
// Joins are equations in the condition, with Oracle's (+) at the side that may be missing.
type query struct {
	columns []selected
	from    []source
	where   *node // nil: all rows
	order   []ordering
	text    string // of one within another that has no parameters
}

type selected struct {
	expr  *node
	alias string // as written; empty: none
}

type source struct{ table, alias string }

type ordering struct {
	expr *node
	desc bool
}

// A node is an expression or a condition.
type node struct {
	op    string  // column, number, text, param, call, select; or and not null = <> < > <= >= in
	text  string  // a column's name, a literal's text, a function's name in lower case
	table string  // of a column, as written; empty: none
	outer bool    // of a column: (+)
	not   bool    // of null and in
	at    int     // of a param: which
	query *query  // of a select
	args  []*node // of everything else
}

// parseError is a 400 for what is no statement: https://github.com/hotgluexyz/tap-netsuite-rest has its words.
func parseError(statement, near string) *fault {
	return badSearch("Search error occurred: Failed to parse SQL [%s]: syntax error, state:1(10102) near: %s", statement, near)
}

// unsupported is a 400 for a statement that can be read and not be run.
func unsupported(why string) *fault {
	return badSearch("Search error occurred: Invalid or unsupported search: %s", why)
}

type token struct {
	kind string // word, number, text, EOF, or the sign itself
	text string
}

type parser struct {
	statement string
	tokens    []token
	params    int
	depth     int
	fault     *fault // the first; parsing goes on to no effect
}

// deepest bounds how far conditions and calls may be nested.
const deepest = 100

// parse reads a statement.
func parse(statement string) (query, *fault) {
	p := parser{statement: statement}
	if !p.lex() {
		return query{}, p.fault
	}
	q := p.query()
	if !p.is("EOF") {
		p.unexpected()
	}
	if p.fault != nil {
		return query{}, p.fault
	}
	return q, nil
}

func isLetter(r rune) bool { return r >= 'a' && r <= 'z' || r >= 'A' && r <= 'Z' || r == '_' }
func isDigit(r rune) bool  { return r >= '0' && r <= '9' }

// lex parts a statement into tokens, the last one EOF.
func (p *parser) lex() bool {
	s := p.statement
	add := func(kind, text string) { p.tokens = append(p.tokens, token{kind, text}) }
	for len(s) > 0 {
		r, size := utf8.DecodeRuneInString(s)
		n := size
		switch {
		case unicode.IsSpace(r):
		case r == '\'':
			text, length := quoted(s)
			if length == 0 {
				p.fault = parseError(p.statement, s)
				return false
			}
			add("text", text)
			n = length
		case isLetter(r):
			n = span(s, func(r rune) bool { return isLetter(r) || isDigit(r) })
			add("word", s[:n])
		case isDigit(r):
			n = span(s, isDigit)
			add("number", s[:n])
		case strings.HasPrefix(s, "(+)"):
			n = 3
			add("(+)", "(+)")
		case strings.HasPrefix(s, "<=") || strings.HasPrefix(s, ">=") || strings.HasPrefix(s, "<>") || strings.HasPrefix(s, "!="):
			n = 2
			add(strings.Replace(s[:2], "!=", "<>", 1), s[:2])
		case strings.ContainsRune("=<>(),*.?-", r):
			add(s[:1], s[:1])
		default:
			p.fault = parseError(p.statement, s)
			return false
		}
		s = s[n:]
	}
	add("EOF", "")
	return true
}

func span(s string, in func(rune) bool) int {
	if n := strings.IndexFunc(s, func(r rune) bool { return !in(r) }); n >= 0 {
		return n
	}
	return len(s)
}

// quoted reads a literal in single quotes, in which two stand for one. n is its length in the statement, 0 if it does
// not end.
func quoted(s string) (text string, n int) {
	var b strings.Builder
	for i := 1; i < len(s); i++ {
		switch {
		case s[i] != '\'':
			b.WriteByte(s[i])
		case i+1 < len(s) && s[i+1] == '\'':
			b.WriteByte('\'')
			i++
		default:
			return b.String(), i + 1
		}
	}
	return "", 0
}

func (p *parser) query() query {
	var q query
	p.want("select")
	for more := true; more && p.fault == nil; more = p.take(",") {
		q.columns = append(q.columns, p.selected())
	}
	p.want("from")
	for more := true; more && p.fault == nil; more = p.take(",") {
		s := source{table: strings.ToLower(p.name())}
		s.alias = s.table
		if p.is("word") && !p.isWord("where") && !p.isWord("order") {
			s.alias = strings.ToLower(p.name())
		}
		q.from = append(q.from, s)
	}
	if p.takeWord("where") {
		q.where = p.condition()
	}
	if p.takeWord("order") {
		p.want("by")
		for more := true; more && p.fault == nil; more = p.take(",") {
			o := ordering{expr: p.expr()}
			if p.takeWord("desc") {
				o.desc = true
			} else {
				p.takeWord("asc")
			}
			q.order = append(q.order, o)
		}
	}
	return q
}

func (p *parser) selected() selected {
	s := selected{expr: p.expr()}
	if p.takeWord("as") || p.is("word") && !p.isWord("from") {
		s.alias = p.name()
	}
	return s
}

func (p *parser) condition() *node { return p.several("or", p.conjunction) }

func (p *parser) conjunction() *node { return p.several("and", p.negation) }

// several reads parts joined by a word; one alone is itself.
func (p *parser) several(word string, part func() *node) *node {
	n := &node{op: word, args: []*node{part()}}
	for p.fault == nil && p.takeWord(word) {
		n.args = append(n.args, part())
	}
	if len(n.args) == 1 {
		return n.args[0]
	}
	return n
}

func (p *parser) negation() *node {
	p.depth++
	defer func() { p.depth-- }()
	if p.depth > deepest {
		p.unexpected()
		return &node{}
	}
	if p.takeWord("not") {
		return &node{op: "not", args: []*node{p.negation()}}
	}
	if p.take("(") {
		inner := p.condition()
		p.want(")")
		return inner
	}
	return p.comparison()
}

func (p *parser) comparison() *node {
	left := p.expr()
	if p.takeWord("is") {
		n := &node{op: "null", not: p.takeWord("not"), args: []*node{left}}
		p.want("null")
		return n
	}
	not := p.takeWord("not")
	if p.takeWord("in") {
		n := &node{op: "in", not: not, args: []*node{left}}
		p.want("(")
		for more := true; more && p.fault == nil; more = p.take(",") {
			n.args = append(n.args, p.expr())
		}
		p.want(")")
		return n
	}
	op := p.peek().kind
	if not || op != "=" && op != "<>" && op != "<" && op != ">" && op != "<=" && op != ">=" {
		p.unexpected()
		return &node{}
	}
	p.next()
	return &node{op: op, args: []*node{left, p.expr()}}
}

// functions are those that may be called, and with how many arguments.
var functions = map[string]int{
	"to_char": 2, "sys_extract_utc": 1, "to_date": 2, "to_timestamp": 2, "builtin.df": 1, "upper": 1, "lower": 1, "nvl": 2, "count": 1, "min": 1,
}

func (p *parser) expr() *node {
	p.depth++
	defer func() { p.depth-- }()
	t := p.peek()
	switch {
	case p.depth > deepest:
	case t.kind == "number":
		p.next()
		return &node{op: "number", text: t.text}
	case p.take("-"):
		if n := p.next(); n.kind == "number" {
			return &node{op: "number", text: "-" + n.text}
		}
	case p.take("("):
		if !p.isWord("select") {
			break
		}
		began, params := p.tokens, p.params
		q := p.query()
		if p.params == params {
			for _, t := range began[:len(began)-len(p.tokens)] {
				if t.kind == "word" {
					t.text = strings.ToLower(t.text)
				}
				q.text += fmt.Sprintf(" %s %q", t.kind, t.text)
			}
		}
		p.want(")")
		return &node{op: "select", query: &q}
	case p.take("?"):
		p.params++
		return &node{op: "param", at: p.params - 1}
	case t.kind == "text":
		p.next()
		return &node{op: "text", text: t.text}
	case t.kind == "word" && !reserved[strings.ToLower(t.text)]:
		return p.named()
	}
	p.unexpected()
	return &node{}
}

// reserved words are no names.
var reserved = map[string]bool{
	"select": true, "from": true, "where": true, "order": true, "by": true, "and": true, "or": true, "not": true, "in": true, "is": true,
	"null": true, "as": true, "asc": true, "desc": true,
}

// named reads a column or a call.
func (p *parser) named() *node {
	name, table := p.name(), ""
	if p.take(".") {
		table, name = name, p.name()
	}
	if !p.is("(") {
		return &node{op: "column", text: strings.ToLower(name), table: strings.ToLower(table), outer: p.take("(+)")}
	}
	if table != "" {
		name = table + "." + name
	}
	n := &node{op: "call", text: strings.ToLower(name)}
	want, known := functions[n.text]
	if !known {
		p.unexpected()
		return n
	}
	p.next()
	if n.text == "count" {
		p.want("*")
	} else {
		for more := true; more && p.fault == nil; more = p.take(",") {
			n.args = append(n.args, p.expr())
		}
		if len(n.args) != want {
			p.unexpected()
		}
	}
	p.want(")")
	return n
}

func (p *parser) name() string {
	if t := p.peek(); t.kind != "word" || reserved[strings.ToLower(t.text)] {
		p.unexpected()
	}
	return p.next().text
}

func (p *parser) peek() token { return p.tokens[0] }

func (p *parser) next() token {
	t := p.tokens[0]
	if t.kind != "EOF" {
		p.tokens = p.tokens[1:]
	}
	return t
}

func (p *parser) is(kind string) bool { return p.peek().kind == kind }

func (p *parser) isWord(word string) bool {
	return p.is("word") && strings.EqualFold(p.peek().text, word)
}

func (p *parser) take(kind string) bool {
	if p.is(kind) {
		p.next()
		return true
	}
	return false
}

func (p *parser) takeWord(word string) bool {
	if p.isWord(word) {
		p.next()
		return true
	}
	return false
}

// want takes a word or a sign that must be there.
func (p *parser) want(what string) {
	if !p.takeWord(what) && !p.take(what) {
		p.unexpected()
	}
}

func (p *parser) unexpected() {
	if p.fault != nil {
		return
	}
	near := make([]string, 0, len(p.tokens))
	for _, t := range p.tokens {
		near = append(near, t.text)
	}
	p.fault = parseError(p.statement, strings.Join(near, " "))
}

// key is what an unnamed column is called.
func (s selected) key(at int) string {
	switch {
	case s.alias != "":
		return s.alias
	case s.expr.op == "column":
		return s.expr.text
	}
	return fmt.Sprintf("expr%s", strconv.Itoa(at+1))
}

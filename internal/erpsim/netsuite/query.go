package netsuite

import (
	"cmp"
	"fmt"
	"math"
	"slices"
	"strconv"
	"strings"
	"time"
)

// A tuple is a record of each source of a statement; nil where an outer join found none.
type tuple []record

// A truth is that of a condition.
type truth int8

const (
	no truth = iota
	yes
	unknown // something is NULL
)

func truly(b bool) truth {
	if b {
		return yes
	}
	return no
}

// An expr is an expression made ready to run.
type expr struct {
	kind     kind
	constant bool
	eval     func(tuple) value
	source   int    // of the one column in it; -1: there is none, or several
	column   string // that column, for Account.Spoil
}

// A plan is a statement made ready to run. It is run while Account.mu is held.
type plan struct {
	a       *Account
	from    []source
	tables  []*rows
	outputs []output
	count   bool // COUNT(*) is all it selects
	tests   []test
	joins   []join
	reach   reach // of the first source's key
	order   []sorting
	ordered bool // rows come in the order asked for, or in none
}

// An output is one selected column.
type output struct {
	expr
	prefix []byte // its key and the colon
}

// A test is a condition that all rows pass.
type test struct {
	eval  func(tuple) truth
	reach reach
	first bool // looks at the first source only
}

// A join finds the records of a source by an equation with those before it.
type join struct {
	source int
	column string // of that source
	by     expr
	outer  bool
}

type sorting struct {
	expr
	desc bool
}

// A reach bounds the first key of rows: all that pass are from low to high, and all from sure on do pass.
type reach struct{ low, high, sure int64 }

var anywhere = reach{math.MinInt64, math.MaxInt64, math.MaxInt64}

// keys are the columns that a table is kept in the order of. The first of them, or both, are unique.
var keys = map[string][]string{
	customers: {"id"}, contacts: {"id"}, roles: {"id"}, relations: {"contact", "company"}, deletions: {"recordid", "deleteddate"},
}

// A compiler makes a parsed statement a plan.
type compiler struct {
	*plan
	params  []string
	joining bool   // what is looked at is a join, so (+) has a meaning
	fault   *fault // the first
}

// prepare checks a statement against what there is and what the role may read, with a.mu held.
func (a *Account) prepare(q query, params []string) (*plan, *fault) {
	c := &compiler{plan: &plan{a: a, from: q.from, reach: reach{math.MinInt64, math.MaxInt64, math.MinInt64}}, params: params}
	for _, s := range q.from {
		if schema[s.table] == nil || a.denied[s.table] {
			return nil, badSearch("Search error occurred: Record '%s' was not found.", s.table)
		}
		c.tables = append(c.tables, a.tables[s.table])
	}
	c.selectAll(q.columns)
	for _, part := range conjuncts(q.where) {
		c.conjunct(part)
	}
	if c.fault == nil {
		c.arrange()
	}
	for _, o := range q.order {
		c.order = append(c.order, sorting{c.expr(o.expr), o.desc})
	}
	if c.fault != nil {
		return nil, c.fault
	}
	c.ordered = c.inOrder()
	return c.plan, nil
}

func (c *compiler) refuse(f *fault) expr {
	if c.fault == nil {
		c.fault = f
	}
	return expr{source: -1, constant: true, eval: func(tuple) value { return null }}
}

func (c *compiler) selectAll(columns []selected) {
	for i, s := range columns {
		if s.expr.op == "call" && s.expr.text == "count" {
			c.count = true
			if len(columns) > 1 {
				c.refuse(unsupported("COUNT(*) beside other columns"))
			}
		}
		key := s.key(i)
		switch c.a.o.Casing {
		case UpperKeys:
			key = strings.ToUpper(key)
		case WrittenKeys:
		case LowerKeys:
			key = strings.ToLower(key)
		}
		o := output{prefix: append(encode(key), ':')}
		if !c.count {
			o.expr = c.expr(s.expr)
		}
		c.outputs = append(c.outputs, o)
	}
}

func conjuncts(n *node) []*node {
	if n == nil {
		return nil
	}
	if n.op != "and" {
		return []*node{n}
	}
	var all []*node
	for _, part := range n.args {
		all = append(all, conjuncts(part)...)
	}
	return all
}

// conjunct makes one part of the condition a join or a test.
func (c *compiler) conjunct(n *node) {
	if n.op == "=" && n.args[0].op == "column" && n.args[1].op == "column" {
		c.joining = true
		left, right := c.expr(n.args[0]), c.expr(n.args[1])
		c.joining = false
		if left.source == right.source || c.fault != nil {
			c.tests = append(c.tests, c.test(n))
			return
		}
		outer := n.args[0].outer || n.args[1].outer
		if n.args[0].outer && n.args[1].outer || n.args[0].outer && left.source < right.source || n.args[1].outer && right.source < left.source {
			c.refuse(unsupported("this outer join"))
			return
		}
		if left.source < right.source {
			left, right = right, left
		}
		c.joins = append(c.joins, join{left.source, left.column, right, outer})
		return
	}
	c.tests = append(c.tests, c.test(n))
}

// arrange checks that each source after the first is joined to one before it.
func (c *compiler) arrange() {
	slices.SortStableFunc(c.joins, func(a, b join) int { return cmp.Compare(a.source, b.source) })
	for i := 1; i < len(c.from); i++ {
		if !slices.ContainsFunc(c.joins, func(j join) bool { return j.source == i }) {
			c.refuse(unsupported("a source without a join"))
		}
	}
	for _, t := range c.tests {
		if t.first {
			c.reach = c.reach.and(t.reach)
		}
	}
}

// inOrder says whether the order asked for is that in which the first source is kept.
func (c *compiler) inOrder() bool {
	kept := keys[c.from[0].table]
	for i, o := range c.order {
		if i >= len(kept) || o.desc || o.source != 0 || o.column != kept[i] {
			return false
		}
	}
	return true
}

func (c *compiler) expr(n *node) expr {
	switch n.op {
	case "column":
		return c.columnOf(n)
	case "number":
		v, err := strconv.ParseInt(n.text, 10, 64)
		if err != nil {
			return c.refuse(unsupported("a number out of range"))
		}
		return expr{kind: numberKind, constant: true, source: -1, eval: func(tuple) value { return numeric(v) }}
	case "text":
		return constantText(n.text)
	case "param":
		if n.at >= len(c.params) {
			return c.refuse(unsupported("a parameter without a value"))
		}
		return constantText(c.params[n.at])
	case "call":
		return c.call(n)
	case "select":
		return c.smallest(n.query)
	}
	return c.refuse(unsupported("an expression"))
}

// smallest is a statement in place of a column, of one form: the smallest number in the rows of one table that have the same value
// in a column as the row outside has, and pass other conditions.
func (c *compiler) smallest(q *query) expr {
	if c.a.o.NoSubqueries {
		return c.refuse(unsupported("a statement within a statement"))
	}
	if len(q.from) != 1 || len(q.columns) != 1 || len(q.order) > 0 || q.columns[0].expr.op != "call" || q.columns[0].expr.text != "min" ||
		schema[q.from[0].table] == nil {
		return c.refuse(unsupported("this statement within a statement"))
	}
	table, alias := q.from[0].table, q.from[0].alias
	if c.a.denied[table] {
		return c.refuse(badSearch("Search error occurred: Record '%s' was not found.", table))
	}
	inside := &compiler{plan: &plan{a: c.a, from: q.from}, params: c.params}
	of := inside.expr(q.columns[0].expr.args[0])
	var outside expr
	var same string
	var tests []test
	for _, part := range conjuncts(q.where) {
		if part.op == "=" && part.args[0].op == "column" && part.args[1].op == "column" && part.args[0].table == alias && part.args[1].table != alias && same == "" {
			same, outside = inside.expr(part.args[0]).column, c.expr(part.args[1])
			continue
		}
		tests = append(tests, inside.test(part))
	}
	switch {
	case inside.fault != nil:
		return c.refuse(inside.fault)
	case c.fault != nil:
		return outside
	case same == "" || of.kind != numberKind:
		return c.refuse(unsupported("this statement within a statement"))
	}
	found := func() map[value][]record {
		least := map[value][]record{}
		for v, rows := range c.a.tables[table].having(same, schema[table][same]) {
			for _, r := range rows {
				row := tuple{r}
				n := of.eval(row)
				passes := !n.null && c.a.visible(r) && !slices.ContainsFunc(tests, func(t test) bool { return t.eval(row) != yes })
				if had := least[v]; passes && (had == nil || n.number < of.eval(tuple{had[0]}).number) {
					least[v] = []record{r}
				}
			}
		}
		return least
	}
	by := c.leasts(q, table, found)
	return expr{kind: numberKind, source: -1, eval: func(t tuple) value {
		if r := by[outside.eval(t)]; r != nil {
			return of.eval(tuple{r[0]})
		}
		return null
	}}
}

// leasts are kept for the next page, unless the role sees only some of the rows.
func (c *compiler) leasts(q *query, table string, find func() map[value][]record) map[value][]record {
	if c.a.hides(table) || q.text == "" {
		return find()
	}
	return c.a.tables[table].index(q.text, find)
}

func constantText(s string) expr {
	v := text(s)
	return expr{kind: textKind, constant: true, source: -1, eval: func(tuple) value { return v }}
}

// columnOf finds a column that the role may read.
func (c *compiler) columnOf(n *node) expr {
	at := -1
	for i, s := range c.from {
		_, known := schema[s.table][n.text]
		if n.table == s.alias || n.table == "" && (known || len(c.from) == 1) {
			if at >= 0 {
				return c.refuse(unsupported("column ambiguously defined: " + n.text))
			}
			at = i
		}
	}
	if at < 0 {
		name := n.text
		if n.table != "" {
			name = n.table + "." + n.text
		}
		return c.refuse(unknownIdentifier(name))
	}
	if n.outer && !c.joining {
		return c.refuse(unsupported("this outer join"))
	}
	table := c.from[at].table
	found, known := schema[table][n.text]
	if !known || c.a.denied[table+"."+n.text] {
		return c.refuse(c.a.columnFault(table, n.text))
	}
	return expr{kind: found.kind, source: at, column: n.text, eval: func(t tuple) value { return found.get(t[at]) }}
}

func unknownIdentifier(name string) *fault {
	return badSearch("Search error occurred: Unknown identifier '%s'.", name)
}

func (a *Account) columnFault(table, name string) *fault {
	switch a.o.ColumnFault {
	case UnknownIdentifier:
		return unknownIdentifier(name)
	case ColumnUnexpected:
		return unexpected()
	case FieldNotFound:
	}
	return badSearch("Search error occurred: Field '%s' for record '%s' was not found.", name, table)
}

func (c *compiler) call(n *node) expr {
	switch n.text {
	case "count", "min":
		return c.refuse(unsupported("an aggregate here"))
	case "builtin.df":
		return c.display(n)
	case "to_date", "to_timestamp":
		return c.literalTime(n)
	}
	e := c.expr(n.args[0])
	inner := e.eval
	switch n.text {
	case "upper", "lower":
		if e.kind != textKind && e.kind != flagKind {
			return c.refuse(unsupported("the case of something that is no text"))
		}
		change := strings.ToUpper
		if n.text == "lower" {
			change = strings.ToLower
		}
		e.kind, e.eval = textKind, func(t tuple) value {
			v := inner(t)
			v.text = change(v.text)
			return v
		}
	case "nvl":
		other := c.expr(n.args[1])
		if other.kind != e.kind && c.fault == nil {
			return c.refuse(unsupported("NVL of two kinds"))
		}
		if other.source != e.source && !other.constant {
			e.source = -1
		}
		e.constant = e.constant && other.constant
		e.eval = func(t tuple) value {
			if v := inner(t); !v.null {
				return v
			}
			return other.eval(t)
		}
	case "sys_extract_utc":
		if e.kind != momentKind && c.fault == nil {
			return c.refuse(unsupported("SYS_EXTRACT_UTC of something that is no time with a zone"))
		}
		name := ""
		if e.source >= 0 {
			name = "sys_extract_utc(" + c.from[e.source].table + "." + e.column + ")"
		}
		if c.a.o.NoUTC || c.a.denied["sys_extract_utc"] || c.a.denied[name] {
			return c.refuse(unsupported("Unknown function SYS_EXTRACT_UTC"))
		}
		e.kind = wallKind // a moment in Unix seconds is what a clock in UTC shows
	case "to_char":
		return c.toChar(e, n.args[1])
	}
	return e
}

// display is BUILTIN.DF.
func (c *compiler) display(n *node) expr {
	if n.args[0].op != "column" {
		return c.refuse(unsupported("BUILTIN.DF of something that is no column"))
	}
	e := c.expr(n.args[0])
	if c.fault != nil {
		return e
	}
	shown, at, a := schema[c.from[e.source].table][e.column].display, e.source, c.a
	if shown == nil {
		return c.refuse(unsupported("BUILTIN.DF of " + e.column))
	}
	return expr{kind: textKind, source: at, column: "builtin.df(" + e.column + ")", eval: func(t tuple) value {
		if t[at] == nil {
			return null
		}
		return text(shown(a, t[at]))
	}}
}

func (c *compiler) toChar(e expr, mask *node) expr {
	layout := c.mask(mask)
	if c.fault != nil {
		return e
	}
	inner, zone := e.eval, c.a.o.Zone
	switch e.kind {
	case momentKind:
		e.eval = func(t tuple) value { return layout.write(wallOf(inner(t), zone)) }
	case wallKind:
		e.eval = func(t tuple) value { return layout.write(inner(t)) }
	case textKind, numberKind, flagKind:
		return c.refuse(unsupported("TO_CHAR of something that is no time"))
	}
	e.kind = textKind
	return e
}

// wallOf is what a clock in a zone shows at a moment.
func wallOf(v value, zone *time.Location) value {
	if v.null {
		return v
	}
	_, offset := time.Unix(v.number, 0).In(zone).Zone()
	v.number += int64(offset)
	return v
}

func (c *compiler) literalTime(n *node) expr {
	e := c.expr(n.args[0])
	layout := c.mask(n.args[1])
	if c.fault != nil {
		return e
	}
	if !e.constant || e.kind != textKind {
		return c.refuse(unsupported("a date made of something that is no text"))
	}
	v := e.eval(nil)
	if !v.null {
		at, ok := layout.read(v.text)
		if !ok {
			return c.refuse(unsupported("a literal does not match format string"))
		}
		v = numeric(at)
	}
	return expr{kind: wallKind, constant: true, source: -1, eval: func(tuple) value { return v }}
}

// A mask is a date format of Oracle's database, of the elements below, punctuation and text in double quotes.
type mask []string

var elements = []string{"YYYY", "MM", "DD", "HH24", "MI", "SS"}

func (c *compiler) mask(n *node) mask {
	var m mask
	if n.op != "text" {
		c.refuse(unsupported("a date format that is no literal"))
		return nil
	}
	for s := n.text; s != ""; {
		upper := strings.ToUpper(s)
		at := slices.IndexFunc(elements, func(e string) bool { return strings.HasPrefix(upper, e) })
		switch end := strings.IndexByte(s[1:], '"'); {
		case at >= 0:
			m, s = append(m, elements[at]), s[len(elements[at]):]
		case s[0] == '"' && end >= 0:
			m, s = append(m, "\""+s[1:end+1]), s[end+2:]
		case strings.IndexByte("-/,.;: ", s[0]) >= 0:
			m, s = append(m, "\""+s[:1]), s[1:]
		default:
			c.refuse(unsupported("date format not recognized"))
			return nil
		}
	}
	return m
}

func (m mask) write(v value) value {
	if v.null {
		return v
	}
	t := time.Unix(v.number, 0).UTC()
	year, month, day := t.Date()
	hour, minute, sec := t.Clock()
	b := make([]byte, 0, 24)
	two := func(n int) { b = append(b, byte('0'+n/10%10), byte('0'+n%10)) }
	for _, part := range m {
		switch part {
		case "YYYY":
			two(year / 100)
			two(year)
		case "MM":
			two(int(month))
		case "DD":
			two(day)
		case "HH24":
			two(hour)
		case "MI":
			two(minute)
		case "SS":
			two(sec)
		default:
			b = append(b, part[1:]...)
		}
	}
	return value{text: string(b)}
}

func (m mask) read(s string) (wall int64, ok bool) {
	is := map[string]int{"YYYY": 1, "MM": 1, "DD": 1}
	for _, part := range m {
		if part[0] == '"' {
			if s, ok = strings.CutPrefix(s, part[1:]); !ok {
				return 0, false
			}
			continue
		}
		digits := 2
		if part == "YYYY" {
			digits = 4
		}
		if len(s) < digits || strings.Trim(s[:digits], "0123456789") != "" {
			return 0, false
		}
		is[part], _ = strconv.Atoi(s[:digits])
		s = s[digits:]
	}
	t := time.Date(is["YYYY"], time.Month(is["MM"]), is["DD"], is["HH24"], is["MI"], is["SS"], 0, time.UTC)
	whole := t.Day() == is["DD"] && int(t.Month()) == is["MM"] && t.Hour() == is["HH24"] && t.Minute() == is["MI"] && t.Second() == is["SS"]
	return t.Unix(), whole && s == ""
}

// test makes a condition ready to run.
func (c *compiler) test(n *node) test {
	switch n.op {
	case "and", "or":
		return c.several(n)
	case "not":
		inner := c.test(n.args[0])
		return test{reach: anywhere, first: inner.first, eval: func(t tuple) truth {
			switch inner.eval(t) {
			case yes:
				return no
			case no:
				return yes
			}
			return unknown
		}}
	case "null":
		e, not := c.expr(n.args[0]), n.not
		return test{reach: anywhere, first: e.source == 0, eval: func(t tuple) truth { return truly(e.eval(t).null != not) }}
	case "in":
		return c.in(n)
	}
	return c.comparison(n)
}

func (c *compiler) several(n *node) test {
	all := test{first: true}
	parts := make([]func(tuple) truth, 0, len(n.args))
	for i, arg := range n.args {
		part := c.test(arg)
		parts = append(parts, part.eval)
		all.first = all.first && part.first
		switch {
		case i == 0:
			all.reach = part.reach
		case n.op == "and":
			all.reach = all.reach.and(part.reach)
		default:
			all.reach = all.reach.or(part.reach)
		}
	}
	settles := yes // an OR
	if n.op == "and" {
		settles = no
	}
	all.eval = func(t tuple) truth {
		result := yes - settles
		for _, part := range parts {
			switch part(t) {
			case settles:
				return settles
			case unknown:
				result = unknown
			case yes - settles:
			}
		}
		return result
	}
	return all
}

func (r reach) and(o reach) reach {
	return reach{max(r.low, o.low), min(r.high, o.high), max(r.sure, o.sure)}
}

func (r reach) or(o reach) reach {
	return reach{min(r.low, o.low), max(r.high, o.high), min(r.sure, o.sure)}
}

// bounded is the reach of a comparison of the first source's key with a number.
func (c *compiler) bounded(e expr, op string, n int64) reach {
	r := anywhere
	if e.source != 0 || e.column != keys[c.from[0].table][0] || e.kind != numberKind {
		return r
	}
	switch {
	case op == ">" && n < math.MaxInt64:
		r.low, r.sure = n+1, n+1
	case op == ">=":
		r.low, r.sure = n, n
	case op == "<" && n > math.MinInt64:
		r.high = n - 1
	case op == "<=":
		r.high = n
	case op == "=":
		r.low, r.high = n, n
	}
	return r
}

func (c *compiler) comparison(n *node) test {
	left, right := c.expr(n.args[0]), c.expr(n.args[1])
	order := c.compare(&left, &right)
	if c.fault != nil {
		return test{}
	}
	op := n.op
	t := test{reach: anywhere, first: left.source == 0 && (right.source == 0 || right.constant)}
	if right.constant && right.kind == numberKind {
		if v := right.eval(nil); !v.null {
			t.reach = c.bounded(left, op, v.number)
		}
	}
	t.eval = func(row tuple) truth {
		a, b := left.eval(row), right.eval(row)
		if a.null || b.null {
			return unknown
		}
		return truly(compares(op, order(a, b)))
	}
	return t
}

// compare says how two expressions are compared, and makes them of one kind where NetSuite does.
func (c *compiler) compare(left, right *expr) func(a, b value) int {
	if left.kind == numberKind && right.kind == textKind && right.constant {
		c.asNumber(right)
	}
	if right.kind == numberKind && left.kind == textKind && left.constant {
		c.asNumber(left)
	}
	for _, e := range []*expr{left, right} {
		if e.kind == momentKind {
			inner, zone := e.eval, c.a.o.Zone
			e.kind, e.eval = wallKind, func(t tuple) value { return wallOf(inner(t), zone) }
		}
		if e.kind == flagKind {
			e.kind = textKind
		}
	}
	if left.kind != right.kind {
		c.refuse(unsupported("a comparison of two kinds"))
	}
	if left.kind == textKind {
		return func(a, b value) int { return strings.Compare(a.text, b.text) }
	}
	return func(a, b value) int { return cmp.Compare(a.number, b.number) }
}

func (c *compiler) asNumber(e *expr) {
	v := e.eval(nil)
	if !v.null {
		n, err := strconv.ParseInt(strings.TrimSpace(v.text), 10, 64)
		if err != nil {
			c.refuse(unsupported("invalid number"))
		}
		v = numeric(n)
	}
	e.kind, e.eval = numberKind, func(tuple) value { return v }
}

func compares(op string, order int) bool {
	switch op {
	case "<":
		return order < 0
	case ">":
		return order > 0
	case "<=":
		return order <= 0
	case ">=":
		return order >= 0
	case "<>":
		return order != 0
	}
	return order == 0
}

// mostListed is Oracle's bound of a list; that SuiteQL has it too is not known.
const mostListed = 1000

func (c *compiler) in(n *node) test {
	if len(n.args)-1 > mostListed {
		c.refuse(unsupported("maximum number of expressions in a list is 1000"))
		return test{}
	}
	left := c.expr(n.args[0])
	numbers, texts, sawNull := map[int64]bool{}, map[string]bool{}, false
	r := reach{math.MaxInt64, math.MinInt64, math.MaxInt64}
	for _, arg := range n.args[1:] {
		one, other := left, c.expr(arg)
		c.compare(&one, &other)
		if !other.constant {
			c.refuse(unsupported("IN with something that is no literal"))
		}
		if c.fault != nil {
			return test{}
		}
		v := other.eval(nil)
		switch {
		case v.null:
			sawNull = true
		case other.kind == textKind:
			texts[v.text] = true
		default:
			numbers[v.number] = true
		}
		r = r.or(c.bounded(left, "=", v.number))
	}
	if n.not {
		r = anywhere
	}
	one, other := left, left
	c.compare(&one, &other)
	isText, not := one.kind == textKind, n.not
	return test{reach: r, first: left.source == 0, eval: func(t tuple) truth {
		v := one.eval(t)
		found := isText && texts[v.text] || !isText && numbers[v.number]
		switch {
		case v.null || !found && sawNull:
			return unknown
		}
		return truly(found != not)
	}}
}

// passes says whether a tuple passes every test of the first source, or every one.
func (p *plan) passes(t tuple, first bool) bool {
	for _, test := range p.tests {
		if (!first || test.first) && test.eval(t) != yes {
			return false
		}
	}
	return true
}

// span is where the records of the first source can lie that pass what looks at no other; from sure on all do.
func (p *plan) span() (from, to, sure int) {
	from, _ = p.tables[0].search([2]int64{p.reach.low, math.MinInt64})
	to, _ = p.tables[0].search([2]int64{p.reach.high, math.MaxInt64})
	if sure = to; p.reach.sure < math.MaxInt64 {
		sure, _ = p.tables[0].search([2]int64{p.reach.sure, math.MinInt64})
	}
	return from, to, sure
}

// drive yields the records of the first source that pass what looks at no other, and where each lies.
func (p *plan) drive(yield func(int, record) bool) {
	from, to, sure := p.span()
	all, hides, t := p.tables[0].all, p.a.hides(p.from[0].table), make(tuple, len(p.from))
	for i := from; i < to; i++ {
		t[0] = all[i]
		if hides && !p.a.visible(all[i]) || i < sure && !p.passes(t, true) {
			continue
		}
		if !yield(i, all[i]) {
			return
		}
	}
}

// rest counts the records of the first source from the i-th to the last that can pass, if no look at them is needed.
func (p *plan) rest(i int) (n int, counted bool) {
	_, to, sure := p.span()
	table := p.from[0].table
	switch {
	case i < sure || i >= to || len(p.a.allowed) > 0 || table == relations && p.a.o.HideLinks:
		return 0, false
	case table != contacts:
		return to - i, true
	}
	all := p.tables[0].all
	first, _ := p.a.private.search(all[i].key())
	last, found := p.a.private.search(all[to-1].key())
	return to - i - (last + btoi(found) - first), true
}

// single says whether each record of the first source is one row: what is joined to it is outer and by a unique key.
func (p *plan) single() bool {
	for _, j := range p.joins {
		table := p.from[j.source].table
		if !j.outer || j.column != keys[table][0] || len(keys[table]) > 1 {
			return false
		}
	}
	return !slices.ContainsFunc(p.tests, func(t test) bool { return !t.first })
}

// find are the rows of a page, and how many there are in all.
func (p *plan) find(limit, offset int) (page []tuple, total int) {
	if p.ordered && p.single() {
		for i, r := range p.drive {
			if total >= offset && len(page) == limit {
				if n, counted := p.rest(i); counted {
					return page, total + n
				}
			} else if total >= offset {
				page = append(page, p.join([]tuple{p.first(r)})...)
			}
			total++
		}
		return page, total
	}
	var all []tuple
	for _, r := range p.drive {
		all = append(all, p.first(r))
	}
	all = slices.DeleteFunc(p.join(all), func(t tuple) bool { return !p.passes(t, false) })
	if !p.ordered {
		slices.SortStableFunc(all, p.compareRows)
	}
	return all[min(offset, len(all)):min(offset+limit, len(all))], len(all)
}

func (p *plan) first(r record) tuple {
	t := make(tuple, len(p.from))
	t[0] = r
	return t
}

// join adds the records of the other sources.
func (p *plan) join(rows []tuple) []tuple {
	for source := 1; source < len(p.from); source++ {
		var by []join
		for _, j := range p.joins {
			if j.source == source {
				by = append(by, j)
			}
		}
		lookup := p.lookup(by[0])
		var next []tuple
		for _, t := range rows {
			found := 0
			for _, r := range lookup(by[0].by.eval(t)) {
				joined := slices.Clone(t)
				joined[source] = r
				if p.a.visible(r) && p.joined(by[1:], joined) {
					next = append(next, joined)
					found++
				}
			}
			if found == 0 && by[0].outer {
				next = append(next, t)
			}
		}
		rows = next
	}
	return rows
}

func (p *plan) joined(by []join, t tuple) bool {
	for _, j := range by {
		have, want := schema[p.from[j.source].table][j.column].get(t[j.source]), j.by.eval(t)
		if have.null || want.null || have.number != want.number || have.text != want.text {
			return false
		}
	}
	return true
}

// lookup finds the records that a join finds for a value.
func (p *plan) lookup(j join) func(value) []record {
	table := p.tables[j.source]
	if name := p.from[j.source].table; j.column == keys[name][0] && len(keys[name]) == 1 {
		return func(v value) []record {
			if r := table.find(v.number, 0); r != nil && !v.null {
				return []record{r}
			}
			return nil
		}
	}
	by := table.having(j.column, schema[p.from[j.source].table][j.column])
	return func(v value) []record { return by[v] }
}

func (p *plan) compareRows(a, b tuple) int {
	for _, o := range p.order {
		x, y := o.eval(a), o.eval(b)
		n := cmp.Or(cmp.Compare(btoi(x.null), btoi(y.null)), cmp.Compare(x.number, y.number), strings.Compare(x.text, y.text))
		if n != 0 && o.desc {
			return -n
		}
		if n != 0 {
			return n
		}
	}
	return 0
}

func btoi(b bool) int {
	if b {
		return 1
	}
	return 0
}

// page answers the statement. Without an order, a page after the first begins a row early: pages of an order that is
// not unique repeat and miss rows, OH/section_158394344595.
func (p *plan) page(limit, offset int, href string) []byte {
	if p.count {
		_, n := p.find(0, 0)
		item := fmt.Appendf(nil, `{"links":[],%s%s}`, p.outputs[0].prefix, p.number(int64(n)))
		return envelope(href, limit, offset, 1, false, 1, item)
	}
	at := offset
	if len(p.order) == 0 && at > 0 {
		at--
	}
	if offset >= p.a.o.Ceiling {
		limit = 0
	}
	rows, total := p.find(min(limit, p.a.o.Ceiling-min(offset, p.a.o.Ceiling)), at)
	items := make([]byte, 0, 64+len(rows)*(40+24*len(p.outputs)))
	for i, t := range rows {
		if i > 0 {
			items = append(items, ',')
		}
		items = p.item(items, t)
	}
	more := offset+len(rows) < min(total, p.a.o.Ceiling)
	return envelope(href, limit, offset, len(rows), more, total, items)
}

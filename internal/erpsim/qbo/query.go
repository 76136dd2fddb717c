package qbo

import (
	"cmp"
	"fmt"
	"math"
	"slices"
	"strconv"
	"strings"
	"time"
	"unicode"
	"unicode/utf8"
)

// A query is a statement of the query endpoint, parsed:
//
//	SELECT * | COUNT(*) FROM Entity [WHERE cond [AND cond]…] [ORDERBY prop [ASC|DESC][, …]]
//		[STARTPOSITION n] [MAXRESULTS n]
//
// Documented at
// https://developer.intuit.com/app/developer/qbo/docs/learn/explore-the-quickbooks-online-api/data-queries.
type query struct {
	entity string // as written
	count  bool
	where  []condition
	order  []ordering
	start  int // 1 is the first row
	max    int
}

type condition struct {
	property string // as written
	op       string // = < > <= >= in like
	values   []literal
}

type ordering struct {
	property string // as written
	desc     bool
}

// A literal is a compared value: text in quotes, or a bare word or number.
type literal struct {
	text   string
	quoted bool
}

const (
	defaultRows = 100
	maxRows     = 1000
)

func parseError(format string, args ...any) *fault {
	detail := "QueryParserError: " + fmt.Sprintf(format, args...)
	return &fault{400, "ValidationFault", "4000", "Error parsing query", detail}
}

func invalidQuery(format string, args ...any) *fault {
	detail := "QueryValidationError: " + fmt.Sprintf(format, args...)
	return &fault{400, "ValidationFault", "4001", "Invalid query", detail}
}

// parse reads a statement. What is no statement is a fault 4000, a value out of its bounds 4001.
func parse(statement string) (query, *fault) {
	p := parser{}
	if f := p.lex(statement); f != nil {
		return query{}, f
	}
	if len(p.tokens) == 1 {
		return query{}, parseError("The query provided was empty")
	}
	q := p.query()
	if p.fault != nil {
		return query{}, p.fault
	}
	return q, nil
}

type token struct {
	kind   string // IDENTIFIER, STRING, NUMBER, EOF, or the sign itself
	text   string
	column int
}

type parser struct {
	tokens []token
	fault  *fault // the first; parsing goes on to no effect
}

// lex parts a statement into tokens, the last one EOF.
func (p *parser) lex(s string) *fault {
	add := func(kind, text string, at int) { p.tokens = append(p.tokens, token{kind, text, at + 1}) }
	for i := 0; i < len(s); {
		r, size := utf8.DecodeRuneInString(s[i:])
		rest := s[i:]
		switch {
		case unicode.IsSpace(r):
			i += size
		case r == '\'':
			text, n := quoted(rest)
			if n == 0 {
				return parseError("Lexical error at line 1, column %d.  Encountered: <EOF> after : %q", len(s)+1, rest)
			}
			if strings.ContainsRune(text, '\u2019') { // https://github.com/ruckus/quickbooks-ruby/issues/54
				return parseError(`Lexical error at line 1, column %d.  Encountered: "\u2019" (8217), after : ""`, i+1)
			}
			add("STRING", text, i)
			i += n
		case isLetter(r):
			n := strings.IndexFunc(rest, func(r rune) bool { return !isLetter(r) && !isDigit(r) && r != '.' && r != '_' })
			if n < 0 {
				n = len(rest)
			}
			add("IDENTIFIER", rest[:n], i)
			i += n
		case isDigit(r) || r == '-':
			n := 1 + strings.IndexFunc(rest[1:]+" ", func(r rune) bool { return !isDigit(r) && r != '.' })
			add("NUMBER", rest[:n], i)
			i += n
		case strings.HasPrefix(rest, "<=") || strings.HasPrefix(rest, ">="):
			add(rest[:2], rest[:2], i)
			i += 2
		case strings.ContainsRune("=<>(),*", r):
			add(rest[:1], rest[:1], i)
			i++
		default:
			return parseError(`Lexical error at line 1, column %d.  Encountered: %q (%d), after : ""`, i+1, string(r), r)
		}
	}
	add("EOF", "<EOF>", len(s))
	return nil
}

func isLetter(r rune) bool { return r >= 'a' && r <= 'z' || r >= 'A' && r <= 'Z' }
func isDigit(r rune) bool  { return r >= '0' && r <= '9' }

// quoted reads a literal in single quotes, in which a backslash stands before a quote or a backslash. n is its length
// in the statement, 0 if it does not end.
func quoted(s string) (text string, n int) {
	var b strings.Builder
	for i := 1; i < len(s); i++ {
		switch {
		case s[i] == '\'':
			return b.String(), i + 1
		case s[i] == '\\' && i+1 < len(s):
			i++
			b.WriteByte(s[i])
		default:
			b.WriteByte(s[i])
		}
	}
	return "", 0
}

func (p *parser) query() query {
	q := query{start: 1, max: defaultRows}
	p.want("select")
	if p.is("count") {
		p.next()
		p.want("(")
		p.want("*")
		p.want(")")
		q.count = true
	} else {
		p.want("*")
	}
	p.want("from")
	q.entity = p.identifier()
	if p.is("where") {
		p.next()
		q.where = append(q.where, p.condition())
		for p.fault == nil && p.is("and") {
			p.next()
			q.where = append(q.where, p.condition())
		}
	}
	if p.is("orderby") || p.is("order") {
		if t := p.next(); strings.EqualFold(t.text, "order") {
			p.want("by") // https://github.com/singer-io/tap-quickbooks tap_quickbooks/query_builder.py writes it so
		}
		q.order = append(q.order, p.ordering())
		for p.fault == nil && p.is(",") {
			p.next()
			q.order = append(q.order, p.ordering())
		}
	}
	if p.is("startposition") {
		p.next()
		q.start = p.positive()
	}
	if p.is("maxresults") {
		p.next()
		q.max = p.positive()
	}
	if p.peek().kind != "EOF" {
		p.unexpected()
	}
	return q
}

func (p *parser) condition() condition {
	c := condition{property: p.identifier()}
	op := p.peek()
	switch {
	case p.is("in"):
		p.next()
		p.want("(")
		c.values = append(c.values, p.literal())
		for p.fault == nil && p.is(",") {
			p.next()
			c.values = append(c.values, p.literal())
		}
		p.want(")")
	case p.is("like") || slices.Contains([]string{"=", "<", ">", "<=", ">="}, op.kind):
		p.next()
		c.values = []literal{p.literal()}
	default:
		p.unexpected()
	}
	c.op = strings.ToLower(op.text)
	return c
}

func (p *parser) ordering() ordering {
	o := ordering{property: p.identifier()}
	if p.is("asc") || p.is("desc") {
		o.desc = p.is("desc")
		p.next()
	}
	return o
}

func (p *parser) literal() literal {
	t := p.peek()
	if t.kind != "STRING" && t.kind != "NUMBER" && t.kind != "IDENTIFIER" {
		p.unexpected()
	}
	p.next()
	return literal{t.text, t.kind == "STRING"}
}

// positive reads a count or position. Its least value is in
// https://github.com/ruckus/quickbooks-ruby spec/fixtures/query_validation_error.xml.
func (p *parser) positive() int {
	t := p.peek()
	n, err := strconv.Atoi(t.text)
	if t.kind != "NUMBER" || err != nil && strings.Contains(t.text, ".") {
		p.unexpected()
	}
	p.next()
	if p.fault != nil {
		return 1
	}
	if err != nil {
		p.fault = invalidQuery("value %s is not a valid integer", t.text)
	} else if n < 1 {
		p.fault = invalidQuery("value %d is too small. Min allowed value is 1", n)
	}
	return n
}

func (p *parser) identifier() string {
	if p.peek().kind != "IDENTIFIER" {
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

func (p *parser) is(word string) bool {
	t := p.peek()
	return t.kind != "STRING" && strings.EqualFold(t.text, word)
}

func (p *parser) want(word string) {
	if !p.is(word) {
		p.unexpected()
		return
	}
	p.next()
}

func (p *parser) unexpected() {
	if t := p.peek(); p.fault == nil {
		p.fault = parseError(`Encountered " <%s> "%s "" at line 1, column %d.`, t.kind, t.text, t.column)
	}
}

// A property of Customer that statements may name. The kind is that of its values.
type property struct {
	kind     kind
	unsorted bool // may be compared but not sorted by
	text     func(*Company, *row) string
	time     func(*row) time.Time
}

type kind int

const (
	textKind kind = iota
	idKind        // text that only = and IN compare
	timeKind
	boolKind
	numberKind
)

func textOf(get func(*row) string) property {
	return property{text: func(_ *Company, r *row) string { return get(r) }}
}

// properties are those that can be compared, by name in lower case.
var properties = map[string]property{
	orderID:      {kind: idKind, text: func(_ *Company, r *row) string { return r.ID }},
	orderCreated: {kind: timeKind, time: func(r *row) time.Time { return r.CreatedAt }},
	orderUpdated: {kind: timeKind, time: func(r *row) time.Time { return r.UpdatedAt }},
	"active":     {kind: boolKind},
	"balance":    {kind: numberKind},

	"displayname": textOf(func(r *row) string { return r.DisplayName }),
	"companyname": textOf(func(r *row) string { return r.CompanyName }),
	"givenname":   textOf(func(r *row) string { return r.GivenName }),
	"middlename":  textOf(func(r *row) string { return r.MiddleName }),
	"familyname":  textOf(func(r *row) string { return r.FamilyName }),
	"printoncheckname": textOf(func(r *row) string {
		return cmp.Or(r.CheckName, r.DisplayName)
	}),
	"fullyqualifiedname": {text: func(c *Company, r *row) string {
		name, _ := c.qualified(r)
		return name
	}},
	"primaryemailaddr": {unsorted: true, text: func(_ *Company, r *row) string { return r.Email }},
	"primaryemailaddr.address": {unsorted: true, text: func(_ *Company, r *row) string {
		return r.Email
	}},
}

// unqueryable are properties that rows have and statements may not name.
var unqueryable = []string{
	"synctoken", "job", "parentref", "level", "billwithparent", "isproject", "notes", "billaddr", "shipaddr", "title",
	"suffix", "primaryphone", "alternatephone", "mobile", "fax", "webaddr", "taxable", "balancewithjobs", "currencyref",
	"preferreddeliverymethod",
}

func lookProperty(name string) (property, *fault) {
	p, known := properties[strings.ToLower(name)]
	switch {
	case known:
		return p, nil
	case slices.Contains(unqueryable, strings.ToLower(name)):
		return p, invalidQuery("property '%s' is not queryable", name)
	}
	return p, invalidQuery("Property %s not found for Entity Customer", name)
}

// A plan is a query on Customer made ready to run.
type plan struct {
	count      bool
	ids        []string // only these, if not nil
	tests      []test
	order      []ordering // properties in lower case
	start, max int
}

// A test is a condition on rows. One on a time is kept as bounds too, so that an index can serve it.
type test struct {
	property string
	pass     func(*Company, *row) bool
	from, to int64 // Unix seconds, both included; for times only
}

// prepare checks a query on Customer against the properties there are.
func (o Options) prepare(q query) (plan, *fault) {
	p := plan{count: q.count, start: q.start, max: q.max}
	if p.max > maxRows {
		if !o.ClampRows {
			return p, invalidQuery("value %d is too large. Max allowed value is %d", q.max, maxRows)
		}
		p.max = maxRows
	}
	anyActive := false
	for _, c := range q.where {
		prop, f := lookProperty(c.property)
		if f != nil {
			return p, f
		}
		t, f := o.test(prop, c)
		if f != nil {
			return p, f
		}
		t.property = strings.ToLower(c.property)
		switch {
		case prop.kind == idKind:
			p.ids = narrow(p.ids, c.values)
		case t.property == "active" && t.pass == nil:
			anyActive = true
		default:
			anyActive = anyActive || t.property == "active"
			p.tests = append(p.tests, t)
		}
	}
	if !anyActive {
		p.tests = append(p.tests, test{property: "active", pass: func(_ *Company, r *row) bool { return !r.Inactive }})
	}
	for _, by := range q.order {
		prop, f := lookProperty(by.property)
		if f == nil && prop.unsorted {
			f = invalidQuery("property '%s' is not sortable", by.property)
		}
		if f != nil {
			return p, f
		}
		p.order = append(p.order, ordering{strings.ToLower(by.property), by.desc})
	}
	return p, nil
}

// narrow keeps of the ids those that values name, too; nil ids are all.
func narrow(ids []string, values []literal) []string {
	named := []string{}
	for _, v := range values {
		if (ids == nil || slices.Contains(ids, v.text)) && !slices.Contains(named, v.text) {
			named = append(named, v.text)
		}
	}
	return named
}

// test makes a condition a test. Its pass is nil if it lets every row pass.
func (o Options) test(p property, c condition) (test, *fault) {
	wrong := func() (test, *fault) {
		return test{}, invalidQuery("operator '%s' is not supported for property '%s'", strings.ToUpper(c.op), c.property)
	}
	invalid := func(v literal) (test, *fault) {
		return test{}, invalidQuery("Invalid value '%s' for property '%s'", v.text, c.property)
	}
	switch p.kind {
	case idKind:
		if c.op != "=" && c.op != "in" {
			return wrong()
		}
		for _, v := range c.values {
			if !v.quoted {
				return invalid(v)
			}
		}
		return test{}, nil
	case boolKind:
		if c.op != "=" && c.op != "in" {
			return wrong()
		}
		var active, inactive bool
		for _, v := range c.values {
			b, err := strconv.ParseBool(strings.ToLower(v.text))
			if err != nil || v.quoted || len(v.text) < 4 {
				return invalid(v)
			}
			active, inactive = active || b, inactive || !b
		}
		if active && inactive {
			return test{}, nil
		}
		return test{pass: func(_ *Company, r *row) bool { return r.Inactive == inactive }}, nil
	case timeKind:
		if c.op == "in" || c.op == "like" {
			return wrong()
		}
		v := c.values[0]
		at, err := o.parseTime(v.text)
		if err != nil || !v.quoted {
			return invalid(v)
		}
		t := test{from: math.MinInt64, to: math.MaxInt64}
		t.bound(c.op, at)
		t.pass = func(_ *Company, r *row) bool {
			s := p.time(r).Unix()
			return s >= t.from && s <= t.to
		}
		return t, nil
	case numberKind:
		return numberTest(c, wrong, invalid)
	case textKind:
	}
	return textTest(p, c, invalid)
}

// bound narrows a test to the times that an operator lets pass. Rows have whole seconds, the literal may have more.
func (t *test) bound(op string, at time.Time) {
	floor, whole := at.Unix(), at.Nanosecond() == 0
	ceil := floor
	if !whole {
		ceil++
	}
	switch op {
	case "=":
		t.from, t.to = ceil, floor // none if the literal has a fraction
	case ">=":
		t.from = ceil
	case ">":
		t.from = floor + 1
	case "<=":
		t.to = floor
	case "<":
		t.to = ceil - 1
	}
}

// parseTime reads a datetime literal. How one without an offset is read is not known: Options.NaiveUTC.
func (o Options) parseTime(text string) (time.Time, error) {
	for _, layout := range []string{time.RFC3339, "2006-01-02T15:04:05Z0700"} {
		if t, err := time.Parse(layout, text); err == nil {
			return t, nil
		}
	}
	zone := pacific
	if o.NaiveUTC {
		zone = time.UTC
	}
	if t, err := time.ParseInLocation("2006-01-02T15:04:05", text, zone); err == nil {
		return t, nil
	}
	return time.ParseInLocation("2006-01-02", text, zone)
}

func numberTest(c condition, wrong func() (test, *fault), invalid func(literal) (test, *fault)) (test, *fault) {
	if c.op == "like" {
		return wrong()
	}
	var numbers []float64
	for _, v := range c.values {
		n, err := strconv.ParseFloat(v.text, 64)
		if err != nil {
			return invalid(v)
		}
		numbers = append(numbers, n)
	}
	return test{pass: func(_ *Company, r *row) bool {
		return slices.ContainsFunc(numbers, func(n float64) bool {
			return compares(c.op, cmp.Compare(float64(r.Balance)/100, n))
		})
	}}, nil
}

// textTest compares without case. A space in quotes stands for no value.
func textTest(p property, c condition, invalid func(literal) (test, *fault)) (test, *fault) {
	var texts []string
	for _, v := range c.values {
		if !v.quoted {
			return invalid(v)
		}
		if v.text == " " {
			v.text = ""
		}
		texts = append(texts, strings.ToLower(v.text))
	}
	if c.op == "like" {
		return test{pass: func(co *Company, r *row) bool { return like(strings.ToLower(p.text(co, r)), texts[0]) }}, nil
	}
	return test{pass: func(co *Company, r *row) bool {
		have := strings.ToLower(p.text(co, r))
		return slices.ContainsFunc(texts, func(text string) bool { return compares(c.op, strings.Compare(have, text)) })
	}}, nil
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
	}
	return order == 0
}

// like says whether text is what a pattern says, in which % stands for any text.
func like(text, pattern string) bool {
	parts := strings.Split(pattern, "%")
	if len(parts) == 1 {
		return text == pattern
	}
	text, found := strings.CutPrefix(text, parts[0])
	if !found {
		return false
	}
	last := len(parts) - 1
	for _, part := range parts[1:last] {
		i := strings.Index(text, part)
		if i < 0 {
			return false
		}
		text = text[i+len(part):]
	}
	return strings.HasSuffix(text, parts[last])
}

// find runs a plan, with c.mu held for reading: the rows of its page, and how many there are in all if it counts.
func (c *Company) find(p plan) (page []*row, count int) {
	rows, tests, desc, ordered := c.candidates(p)
	pass := func(r *row) bool {
		for _, t := range tests {
			if !t.pass(c, r) {
				return false
			}
		}
		return true
	}
	at := func(i int) *row {
		if desc {
			return rows[len(rows)-1-i]
		}
		return rows[i]
	}
	if p.count || !ordered {
		var found []*row
		for _, r := range rows {
			if pass(r) {
				found = append(found, r)
			}
		}
		if p.count {
			return nil, len(found)
		}
		slices.SortFunc(found, p.compare(c))
		rows, tests, desc = found, nil, false
	}
	skip := p.start - 1
	if len(tests) == 0 { // every row counts: no need to look at those before the page
		for i := skip; i < len(rows) && len(page) < p.max; i++ {
			page = append(page, at(i))
		}
		return page, 0
	}
	for i := 0; i < len(rows) && len(page) < p.max; i++ {
		switch r := at(i); {
		case !pass(r):
		case skip > 0:
			skip--
		default:
			page = append(page, r)
		}
	}
	return page, 0
}

// candidates are the rows a plan must look at, and the tests left for them. ordered says that they are in the plan's
// order, or against it if desc.
func (c *Company) candidates(p plan) (rows []*row, tests []test, desc, ordered bool) {
	if p.ids != nil {
		for _, id := range p.ids {
			if r := c.byID[id]; r != nil {
				rows = append(rows, r)
			}
		}
		return rows, p.tests, false, false
	}
	if len(p.order) == 0 {
		return c.byNames(), p.tests, false, true
	}
	by := p.order[0].property
	if x := c.indexes[by]; x != nil && p.served() {
		rows, tests = x.within(by, p.tests)
		return rows, tests, p.order[0].desc, true
	}
	rows, tests = c.indexes[orderUpdated].within(orderUpdated, p.tests)
	return rows, tests, false, false
}

// served says whether the index of the first property has the rows in the plan's order: within it they are by id.
func (p plan) served() bool {
	switch len(p.order) {
	case 1:
		return true
	case 2:
		return p.order[1].property == orderID && p.order[0].desc == p.order[1].desc
	}
	return false
}

// within are the rows of an index by time that tests on that time let pass, and the tests left.
func (x *index) within(by string, tests []test) (rows []*row, left []test) {
	rows = x.sorted()
	get := properties[by].time
	for _, t := range tests {
		if get == nil || t.property != by {
			left = append(left, t)
			continue
		}
		from, _ := slices.BinarySearchFunc(rows, t.from, func(r *row, s int64) int { return cmp.Compare(get(r).Unix(), s) })
		rows = rows[from:]
		to, _ := slices.BinarySearchFunc(rows, t.to, func(r *row, s int64) int {
			if get(r).Unix() <= s {
				return -1
			}
			return 1
		})
		rows = rows[:to]
	}
	return rows, left
}

// compare orders rows as the plan says, by qualified name if it says nothing, and by id where that leaves it open.
func (p plan) compare(c *Company) func(a, b *row) int {
	order := p.order
	if len(order) == 0 {
		order = []ordering{{property: "fullyqualifiedname"}}
	}
	return func(a, b *row) int {
		for _, by := range order {
			if n := c.compareBy(by.property, a, b); n != 0 {
				if by.desc {
					return -n
				}
				return n
			}
		}
		return c.compareID(a, b)
	}
}

func (c *Company) compareBy(name string, a, b *row) int {
	switch p := properties[name]; p.kind {
	case idKind:
		return c.compareID(a, b)
	case timeKind:
		return p.time(a).Compare(p.time(b))
	case boolKind:
		return cmp.Compare(btoi(!a.Inactive), btoi(!b.Inactive))
	case numberKind:
		return cmp.Compare(a.Balance, b.Balance)
	default:
		return strings.Compare(strings.ToLower(p.text(c, a)), strings.ToLower(p.text(c, b)))
	}
}

func btoi(b bool) int {
	if b {
		return 1
	}
	return 0
}

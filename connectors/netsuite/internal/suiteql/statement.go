package suiteql

import (
	"cmp"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/centime/contactsync/internal/connector"
)

// A table is one that is read, with single-table statements but for what relations need of others: ANSI joins can time out,
// and mixing them with Oracle's own is refused (OH/section_156257796125).
type table struct {
	name, alias string
	kind        connector.Kind
	needed      bool
	columns     []column
	key         []string // columns that make its rows' order, and by which its pages go on
	dated       bool     // it has lastmodifieddate
	what        string   // its records, for people
	fix         string   // what an administrator does who wants it to be read
	fill        func(page *connector.Page, rows []row, l lacks)
}

// A column is selected under a name. An optional one may be hidden, or its feature off.
type column struct {
	name     string
	sql      string // empty: alias.name
	optional bool
}

func needed(names ...string) []column   { return columns(false, names) }
func optional(names ...string) []column { return columns(true, names) }

func columns(optional bool, names []string) []column {
	all := make([]column, 0, len(names))
	for _, n := range names {
		all = append(all, column{name: n, optional: optional})
	}
	return all
}

const (
	// utc is the column that stands for SYS_EXTRACT_UTC: not every account takes it.
	utc = "modified_utc"
	// roleName, primaryContact and firstPrimary are columns of relations: the role in words, the customer's own field for
	// it, and the first of those with that role at the customer: rows come by contact, so they do not stand together.
	roleName       = "role_name"
	primaryContact = "primary_contact"
	firstPrimary   = "first_primary"
	// customerJoin brings the customer's field into the relations.
	customerJoin = "r.company = c.id(+)"
)

func modified(alias string) column {
	return column{name: utc, optional: true,
		sql: `TO_CHAR(SYS_EXTRACT_UTC(` + alias + `.lastmodifieddate), 'YYYY-MM-DD"T"HH24:MI:SS"Z"')`}
}

var (
	customerTable = &table{
		name: "customer", alias: "c", kind: connector.Customers, needed: true, key: []string{"c.id"}, dated: true,
		columns: slices.Concat(needed("id", "entityid", "email", "isinactive"), optional(
			"altname", "companyname", "isperson", "firstname", "middlename", "lastname", "title", "altemail", "phone",
			"altphone", "mobilephone", "homephone", "fax", "url", "parent", "searchstage"), []column{modified("c")}),
		what: "customers", fill: fillCustomers,
		fix: "In NetSuite, give the integration's role the permission Customers (tab Lists, level View). If it has " +
			"that, look whether it has SuiteAnalytics Workbook (tab Reports, level Edit) and whether that feature is on.",
	}
	contactTable = &table{
		name: "contact", alias: "k", kind: connector.Contacts, needed: true, key: []string{"k.id"}, dated: true,
		columns: slices.Concat(needed("id", "entityid", "email", "company", "isinactive"), optional(
			"firstname", "middlename", "lastname", "title", "altemail", "phone", "officephone", "mobilephone", "homephone",
			"fax"),
			[]column{modified("k")}),
		what: "contacts", fill: fillContacts,
		fix: "In NetSuite, give the integration's role the permission Contacts (tab Lists, level View).",
	}
	relationTable = &table{
		name: "companycontactrelationship", alias: "r", kind: connector.Links, needed: true,
		key: []string{"r.contact", "r.company"},
		columns: slices.Concat(needed("company", "contact", "role"), []column{
			{name: roleName, sql: "BUILTIN.DF(r.role)", optional: true},
			{name: primaryContact, sql: "c.contact", optional: true},
			{name: firstPrimary, optional: true, sql: "(SELECT MIN(p.contact) FROM companycontactrelationship p " +
				"WHERE p.company = r.company AND p.role = " + primaryRole + ")"},
		}),
		what: "the contacts' places at customers", fill: fillRelations,
		fix: "In NetSuite, give the integration's role the permissions Contacts and Customers (tab Lists, level View).",
	}
	deletedTable = &table{
		name: "deletedrecord", alias: "d", key: []string{"d.recordid"}, columns: needed("recordid", "type"),
		what: "deleted records", fill: fillDeleted,
		fix: "In NetSuite, give the integration's role the permission Deleted Records (tab Setup, level View). " +
			"Without it a deletion is found by the next full listing only.",
	}
	tables = []*table{customerTable, contactTable, relationTable, deletedTable}
)

// of names a column of the table in lacks.
func (t *table) of(column string) string { return t.name + "." + column }

// mend is what an administrator does: a hidden column that is needed is answered as a missing table is.
func (t *table) mend() string {
	if !t.needed {
		return t.fix
	}
	var names []string
	for _, c := range t.columns {
		if !c.optional {
			names = append(names, c.name)
		}
	}
	if t.dated {
		names = append(names, "lastmodifieddate")
	}
	return fmt.Sprintf("%s If it has them all, show it each of the fields %s of %s.", t.fix, strings.Join(names, ", "), t.name)
}

// optional names the columns that may be lacking.
func (t *table) optional() []string {
	var names []string
	for _, c := range t.columns {
		if c.optional {
			names = append(names, t.of(c.name))
		}
	}
	return names
}

// statement selects what can be read where the condition holds, in the order of the key.
func (t *table) statement(l lacks, where string) string {
	var list []string
	for _, c := range t.columns {
		switch {
		case c.optional && l.has(t.of(c.name)):
		case c.sql != "":
			list = append(list, c.sql+" AS "+c.name)
		default:
			list = append(list, t.alias+"."+c.name)
		}
	}
	from := t.name + " " + t.alias
	if t == relationTable && !l.has(t.of(primaryContact)) {
		from, where = from+", customer c", customerJoin+" AND "+where
	}
	return fmt.Sprintf("SELECT %s FROM %s WHERE %s ORDER BY %s",
		strings.Join(list, ", "), from, where, strings.Join(t.key, ", "))
}

// place is where a listing goes on: behind this key.
type place struct {
	Last    int64 `json:"last,omitempty"`    // of relations: the contact
	Company int64 `json:"company,omitempty"` // of relations
}

// compare is the order in which rows come.
func (p place) compare(o place) int {
	return cmp.Or(cmp.Compare(p.Last, o.Last), cmp.Compare(p.Company, o.Company))
}

// keyOf is the key of a row; false if it has none that can be read.
func (t *table) keyOf(r row) (place, bool) {
	if t == relationTable {
		return relationKey(r)
	}
	id, ok := parseID(cmp.Or(r.text("id"), r.text("recordid")))
	return place{Last: id}, ok
}

// idOf is the Key.ID of a row's record; false if it cannot be read.
func (t *table) idOf(r row) (string, bool) {
	_, ok := t.keyOf(r)
	if t == relationTable {
		return connector.LinkID(r.text("company"), r.text("contact")), ok
	}
	return r.text("id"), ok
}

// relationKey also reads a place at a system entity, such as -2, -No Company-: nobody holds that, so the place is ignored.
func relationKey(r row) (place, bool) {
	contact, ok := parseID(r.text("contact"))
	company, err := strconv.ParseInt(r.text("company"), 10, 64)
	return place{contact, company}, ok && err == nil && company != 0 && strconv.FormatInt(company, 10) == r.text("company")
}

// advance moves a place behind rows. A row without a readable key moves nothing; it comes again if no other row is behind
// it on its page.
func (t *table) advance(at *place, rows []row) error {
	for _, r := range rows {
		key, ok := t.keyOf(r)
		if !ok {
			continue
		}
		// A deleted record may be there once for each of its types.
		if order := key.compare(*at); order < 0 || order == 0 && t != deletedTable {
			return outOfOrder(t.what)
		}
		*at = key
	}
	return nil
}

func outOfOrder(what string) error {
	return &connector.Error{
		Kind: connector.Transient, Step: "list " + what, Message: "the rows are not in the order that was asked for",
	}
}

const (
	// overlap is read again by each pull: a row may be committed later than its stamp says.
	overlap = 30 * time.Minute
	// anyZone covers the distance of every session's time zone from UTC, both ways.
	anyZone = 26 * time.Hour

	stamp       = "2006-01-02 15:04:05"
	oracleStamp = "YYYY-MM-DD HH24:MI:SS"
)

func date(t time.Time) string {
	return fmt.Sprintf("TO_DATE('%s', '%s')", t.UTC().Format(stamp), oracleStamp)
}

// next is the condition of the page behind a place, of what changed since a moment or of everything.
func (t *table) next(l lacks, at place, since *time.Time) string {
	var where []string
	switch {
	case t == relationTable:
		return fmt.Sprintf("(r.contact > %d OR (r.contact = %d AND r.company > %d))", at.Last, at.Last, at.Company)
	case t == deletedTable:
		// Spelling and case of the type vary. The session's zone is not known.
		where = append(where, "UPPER(d.type) IN ('CONTACT', 'CUSTOMER', 'LEAD', 'PROSPECT')",
			"d.deleteddate >= "+date(since.Add(-anyZone)))
	case since == nil:
	case l.has(t.of(utc)):
		where = append(where, t.alias+".lastmodifieddate >= "+date(since.Add(-anyZone)))
	default:
		// The coarse condition lets NetSuite use an index.
		where = append(where, t.alias+".lastmodifieddate >= "+date(since.Add(-anyZone)),
			fmt.Sprintf("SYS_EXTRACT_UTC(%s.lastmodifieddate) >= TO_TIMESTAMP('%s', '%s')",
				t.alias, since.UTC().Format(stamp), oracleStamp))
	}
	// System entities have ids below 0, and are nobody's customers or contacts.
	return strings.Join(append(where, fmt.Sprintf("%s > %d", t.key[0], at.Last)), " AND ")
}

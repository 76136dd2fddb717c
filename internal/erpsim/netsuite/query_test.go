package netsuite_test

import (
	"bytes"
	"encoding/json"
	"fmt"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/centime/contactsync/internal/erpsim"
	"github.com/centime/contactsync/internal/erpsim/netsuite"
)

const (
	everyCustomer = `SELECT c.id, c.entityid, c.altname, c.companyname, c.isperson, c.salutation, c.firstname, c.middlename, c.lastname,
       c.title, c.email, c.altemail, c.phone, c.altphone, c.mobilephone, c.homephone, c.fax, c.url, c.isinactive,
       c.parent, c.contact, c.category, BUILTIN.DF(c.category) AS category_name, c.entitystatus,
       BUILTIN.DF(c.entitystatus) AS entitystatus_name, c.searchstage, c.externalid,
       TO_CHAR(SYS_EXTRACT_UTC(c.datecreated), 'YYYY-MM-DD"T"HH24:MI:SS"Z"') AS created_utc,
       TO_CHAR(SYS_EXTRACT_UTC(c.lastmodifieddate), 'YYYY-MM-DD"T"HH24:MI:SS"Z"') AS modified_utc
FROM customer c
WHERE c.id > %d
ORDER BY c.id`
	everyContact = `SELECT k.id, k.entityid, k.salutation, k.firstname, k.middlename, k.lastname, k.title, k.email, k.altemail, k.phone,
       k.officephone, k.mobilephone, k.homephone, k.fax, k.company, k.isinactive, k.isprivate, k.externalid,
       TO_CHAR(SYS_EXTRACT_UTC(k.lastmodifieddate), 'YYYY-MM-DD"T"HH24:MI:SS"Z"') AS modified_utc
FROM contact k
WHERE k.id > %d
ORDER BY k.id`
	everyLink = `SELECT r.company, r.contact, r.role, BUILTIN.DF(r.role) AS role_name
FROM companycontactrelationship r
WHERE (r.contact > %[1]d OR (r.contact = %[1]d AND r.company > %[2]d))
ORDER BY r.contact, r.company`
	primary = `(SELECT MIN(p.contact) FROM companycontactrelationship p WHERE p.company = r.company AND p.role = -10) AS first_primary`
)

// A statement that a connector is written around is answered as the wire has it: strings, no nulls, keys in lower case.
func TestStatementsOfASyncAreAnswered(t *testing.T) {
	t.Parallel()
	f := setup(t, netsuite.Options{})
	one := id(t)(f.account.JoinCustomer(netsuite.Customer{CompanyName: "Kelp \"+\" Sons\n", Email: "ap@kelp.example", Category: "2"}))
	two := id(t)(f.account.JoinContact(netsuite.Contact{FirstName: "Ann", LastName: "O'Dea", Company: one, Categories: []string{"1", "3"}}))
	must(t, f.account.Attach(one, two, netsuite.Primary))
	same(t, "customers", f.rows(fmt.Sprintf(everyCustomer, 0)), `{"altname":"Kelp \"+\" Sons\n","category":"2","category_name":"Wholesale",`+
		`"companyname":"Kelp \"+\" Sons\n","created_utc":"2026-03-02T18:05:00Z","email":"ap@kelp.example","entityid":"CUST101",`+
		`"entitystatus":"13","entitystatus_name":"CUSTOMER-Closed Won","id":"101","isinactive":"F","isperson":"F",`+
		`"modified_utc":"2026-03-02T18:05:00Z","searchstage":"Customer"}`)
	same(t, "contacts", f.rows(fmt.Sprintf(everyContact, 0)), `{"company":"101","entityid":"Ann O'Dea","firstname":"Ann","id":"102",`+
		`"isinactive":"F","isprivate":"F","lastname":"O'Dea","modified_utc":"2026-03-02T18:05:00Z"}`)
	same(t, "links", f.rows(fmt.Sprintf(everyLink, 0, 0)), `{"company":"101","contact":"102","role":"-10","role_name":"Primary Contact"}`)
	same(t, "after it", f.rows(fmt.Sprintf(everyLink, 102, 101)), "")
	same(t, "categories", f.rows("SELECT category, BUILTIN.DF(company) AS Company_Name FROM contact"),
		`{"category":"1, 3","company_name":"CUST101"}`)
	same(t, "roles", f.column("SELECT cr.id, cr.name, cr.isinactive FROM contactrole cr ORDER BY cr.id", "id"), "-40 -30 -20 -10")
	same(t, "server time", f.get("/services/rest/system/v1/serverTime").body, `{"serverTime":"2026-03-02T18:05:00.412Z"}`)
}

// A statement within the statement finds what else is at a row's company: the first primary contact that the role may see.
func TestStatementWithinAStatement(t *testing.T) {
	t.Parallel()
	f := setup(t, netsuite.Options{HideLinks: true})
	acme, bolt := id(t)(f.account.JoinCustomer(netsuite.Customer{CompanyName: "Acme"})), id(t)(f.account.JoinCustomer(netsuite.Customer{CompanyName: "Bolt"}))
	var people []string
	for _, private := range []bool{true, false, false} {
		people = append(people, id(t)(f.account.JoinContact(netsuite.Contact{FirstName: "Ann", Private: private})))
		must(t, f.account.Attach(acme, people[len(people)-1], netsuite.Primary))
	}
	must(t, f.account.Attach(bolt, people[1], ""))
	must(t, f.account.Attach(bolt, people[2], "-20"))
	ask := "SELECT r.company, r.contact, " + primary + " FROM companycontactrelationship r ORDER BY r.contact, r.company"
	const want = `{"company":"101","contact":"104","first_primary":"%[1]s"} {"company":"102","contact":"104"} ` +
		`{"company":"101","contact":"105","first_primary":"%[1]s"} {"company":"102","contact":"105"}`
	same(t, "first", f.rows(ask), fmt.Sprintf(want, "104"))
	must(t, f.account.Attach(acme, people[1], "-20"))
	same(t, "another", f.rows(ask), fmt.Sprintf(want, "105"))
	for name, statement := range map[string]string{
		"no condition": "SELECT (SELECT MIN(p.contact) FROM companycontactrelationship p) FROM contact k",
		"no minimum":   "SELECT (SELECT p.contact FROM companycontactrelationship p WHERE p.company = k.company) FROM contact k",
		"text":         "SELECT (SELECT MIN(c.email) FROM customer c WHERE c.id = k.company) FROM contact k",
		"no call":      "SELECT (SELECT min FROM contact) FROM contact",
		"no table":     "SELECT (SELECT MIN(x.id) FROM nowhere x WHERE x.id = k.id) FROM contact k",
		"a minimum":    "SELECT MIN(k.id) FROM contact k",
	} {
		if a := f.query(statement, ""); a.status != 400 {
			t.Errorf("%s: %d %s", name, a.status, a.body)
		}
	}
	f.account.Deny("companycontactrelationship.role")
	if a := f.query(ask, ""); a.status != 400 {
		t.Errorf("a hidden column within: %d %s", a.status, a.body)
	}
	f = setup(t, netsuite.Options{NoSubqueries: true})
	if a := f.query(ask, ""); a.status != 400 {
		t.Errorf("an account that takes none: %d %s", a.status, a.body)
	}
}

// The joins of a sync: contacts of a vendor fall out of an inner join, roles that are NULL stay in an outer one.
func TestJoins(t *testing.T) {
	t.Parallel()
	f := setup(t, netsuite.Options{})
	acme := id(t)(f.account.JoinCustomer(netsuite.Customer{CompanyName: "Acme"}))
	ann := id(t)(f.account.JoinContact(netsuite.Contact{FirstName: "Ann"}))
	bob := id(t)(f.account.JoinContact(netsuite.Contact{FirstName: "Bob"}))
	vendor := f.account.JoinOther("Vendor")
	must(t, f.account.Attach(acme, ann, ""))
	must(t, f.account.Attach(acme, bob, netsuite.Primary))
	must(t, f.account.Attach(vendor, bob, "-20"))
	must(t, f.account.EditCustomer(acme, func(c *netsuite.Customer) { c.Contact = bob }))
	same(t, "joined form", f.rows(`SELECT r.company AS customer_id, r.contact AS contact_id, r.role AS role_id, cr.name AS role_name, k.firstname
		FROM companycontactrelationship r, contact k, customer c, contactrole cr
		WHERE r.contact = k.id AND r.company = c.id AND r.role = cr.id(+) AND (r.company > 0 OR (r.company = 0 AND r.contact > 0))
		ORDER BY r.company, r.contact`), `{"contact_id":"102","customer_id":"101","firstname":"Ann"} `+
		`{"contact_id":"103","customer_id":"101","firstname":"Bob","role_id":"-10","role_name":"Primary Contact"}`)
	same(t, "outer", f.rows(`SELECT r.contact, r.company, c.contact AS main FROM companycontactrelationship r, customer c
		WHERE r.company = c.id(+) AND r.contact >= 103 ORDER BY r.company, r.contact`),
		`{"company":"101","contact":"103","main":"103"} {"company":"104","contact":"103"}`)
	same(t, "from the other side", f.column(`SELECT k.id, r.company FROM contact k, companycontactrelationship r WHERE r.contact = k.id
		ORDER BY r.company DESC, k.firstname`, "id"), "103 102 103")
}

// Conditions mean what they mean in SQL, NULL included.
func TestConditions(t *testing.T) {
	t.Parallel()
	f := setup(t, netsuite.Options{})
	for _, c := range []netsuite.Customer{
		{CompanyName: "a", Email: "a@x.example"}, {CompanyName: "b", Inactive: true}, {CompanyName: "O'Brien", Parent: "101"}, {ID: "-2", EntityID: "-No Company-"},
	} {
		id(t)(f.account.JoinCustomer(c))
	}
	for where, want := range map[string]string{
		"id > 0":                  "101 102 103",
		"id < 101 OR id >= 103":   "-2 103",
		"id IN (101, '103', 999)": "101 103",
		"id NOT IN (101, 103)":    "-2 102",
		"id = -2":                 "-2",
		"id = '102'":              "102",
		"id <> 101 AND id != 103": "-2 102",
		"isinactive = 'T'":        "102",
		"NOT isinactive = 'T' AND (id > 101 OR email IS NOT NULL)": "101 103",
		"parent = 101":                     "103",
		"NOT parent = 101":                 "",
		"parent IS NULL AND id > 101":      "102",
		"parent NOT IN (5)":                "103",
		"companyname = 'O''Brien'":         "103",
		"UPPER(companyname) = 'A'":         "101",
		"NVL(parent, 0) = 0 AND id > 0":    "101 102",
		"NVL(email, 'none') = 'none'":      "-2 102 103",
		"101 < id":                         "102 103",
		"id > 101 AND id < 103 AND id > 5": "102",
		"id >= 101 AND (id > 102 OR (id = 102 AND isinactive = 'F'))": "103",
	} {
		same(t, where, f.column("SELECT id FROM customer WHERE "+where+" ORDER BY id", "id"), want)
	}
	same(t, "count", f.rows("SELECT COUNT(*) AS n FROM customer WHERE id > 101"), `{"n":"2"}`)
	same(t, "unnamed", f.rows("SELECT COUNT(*) FROM customer"), `{"expr1":"4"}`)
	same(t, "backwards", f.column("SELECT id FROM customer ORDER BY isinactive DESC, id DESC", "id"), "102 103 101 -2")
}

// What a sync must not send is refused in the words that are known of NetSuite.
func TestStatementsThatAreRefused(t *testing.T) {
	t.Parallel()
	f := setup(t, netsuite.Options{})
	const search = "400 INVALID_PARAMETER Invalid search query. Detailed unprocessed description follows. Search error occurred: "
	for statement, want := range map[string]string{
		"SELECT id FROM contacts":                                                                 "Record 'contacts' was not found.",
		"SELECT k.name FROM contact k":                                                            "Field 'name' for record 'contact' was not found.",
		"SELECT x.id FROM contact k":                                                              "Unknown identifier 'x.id'.",
		"SELECT * FROM contact":                                                                   "Failed to parse SQL [SELECT * FROM contact]: syntax error, state:1(10102) near: * FROM contact ",
		"SELECT id FROM contact;":                                                                 "Failed to parse SQL [",
		"SELECT id FROM contact WHERE id > 'x":                                                    "Failed to parse SQL [",
		"SELECT id FROM contact WHERE id BETWEEN 1 AND 2":                                         "Failed to parse SQL [",
		"SELECT TOP 5 id FROM contact":                                                            "Failed to parse SQL [",
		"SELECT id FROM contact WHERE id > 'x'":                                                   "Invalid or unsupported search: invalid number",
		"SELECT id FROM contact WHERE lastmodifieddate > '2026-01-01'":                            "Invalid or unsupported search: a comparison of two kinds",
		"SELECT id AS n FROM contact ORDER BY n":                                                  "Field 'n' for record 'contact' was not found.",
		"SELECT k.id FROM contact k, customer c":                                                  "Invalid or unsupported search: a source without a join",
		"SELECT c.id FROM contact k, customer c WHERE k.company = c.id AND id > 3":                "Invalid or unsupported search: column ambiguously defined: id",
		"SELECT id FROM contact WHERE id > ?":                                                     "Invalid or unsupported search: a parameter without a value",
		"SELECT TO_CHAR(lastmodifieddate, 'Day') FROM contact":                                    "Invalid or unsupported search: date format not recognized",
		"SELECT id FROM contact WHERE id IN (" + strings.Repeat("1,", 1000) + "1)":                "Invalid or unsupported search: maximum number",
		"SELECT k.id FROM contact k, customer c WHERE k.company = c.id AND c.isinactive(+) = 'F'": "Invalid or unsupported search: this outer join",
	} {
		if got := f.refused(statement); !strings.HasPrefix(got, search+want) {
			t.Errorf("%s:\n got %s\nwant %s", statement, got, search+want)
		}
	}
	for what, a := range map[string]answer{
		"no Prefer":     f.query("SELECT id FROM contact", "", "Prefer", ""),
		"limit":         f.query("SELECT id FROM contact", "?limit=1001"),
		"no number":     f.query("SELECT id FROM contact", "?limit=x"),
		"offset":        f.query("SELECT id FROM contact", "?offset=-1"),
		"no statement":  f.send("{}", ""),
		"not even JSON": f.send("select", ""),
	} {
		if a.status != 400 || a.header.Get("Content-Type") != "application/vnd.oracle.resource+json; type=error" {
			t.Errorf("%s: %d %s", what, a.status, a.body)
		}
	}
}

// Bound values stand for literals, unless the account refuses them.
func TestParams(t *testing.T) {
	t.Parallel()
	for _, refused := range []bool{false, true} {
		f := setup(t, netsuite.Options{NoParams: refused})
		id(t)(f.account.JoinCustomer(netsuite.Customer{CompanyName: "Kelp"}))
		a := f.send(`{"q":"SELECT id FROM customer WHERE id > ? AND companyname = ?","params":["5","Kelp"]}`, "")
		if refused != (a.status == 400) || !refused && !strings.Contains(a.body, `"id":"101"`) {
			t.Errorf("refused %t: %d %s", refused, a.status, a.body)
		}
	}
}

// Bare dates and times without a zone are those of the session: a sync that reads them goes wrong, most of all in the
// hour that autumn repeats.
func TestTimesAreOfTheSession(t *testing.T) {
	t.Parallel()
	for format, want := range map[string]string{"": "11/1/2026", "02/01/2006": "01/11/2026", "2.1.2006": "1.11.2026", "2006-01-02": "2026-11-01"} {
		f := setup(t, netsuite.Options{DateFormat: format})
		before := time.Date(2026, 11, 1, 8, 30, 0, 0, time.UTC) // 01:30 in Los Angeles, for the first time
		for _, at := range []time.Time{before, before.Add(time.Hour)} {
			id(t)(f.account.JoinContact(netsuite.Contact{FirstName: "Ann", CreatedAt: at}))
		}
		same(t, "bare", f.column("SELECT lastmodifieddate FROM contact", "lastmodifieddate"), want+" "+want)
		same(t, "session", f.column("SELECT TO_CHAR(lastmodifieddate, 'YYYY-MM-DD HH24:MI:SS') AS at FROM contact", "at"),
			"2026-11-01 01:30:00 2026-11-01 01:30:00")
		same(t, "UTC", f.column(`SELECT TO_CHAR(SYS_EXTRACT_UTC(lastmodifieddate), 'YYYY-MM-DD"T"HH24:MI:SS"Z"') AS at FROM contact`, "at"),
			"2026-11-01T08:30:00Z 2026-11-01T09:30:00Z")
		const since = "SELECT id FROM contact WHERE SYS_EXTRACT_UTC(lastmodifieddate) >= TO_TIMESTAMP('2026-11-01 09:00:00', 'YYYY-MM-DD HH24:MI:SS')" +
			" AND lastmodifieddate >= TO_DATE('2026-10-31 09:00:00', 'YYYY-MM-DD HH24:MI:SS') AND id > 0 ORDER BY id"
		same(t, "since", f.column(since, "id"), "102")
		same(t, "since, session", f.column("SELECT id FROM contact WHERE lastmodifieddate > TO_DATE('2026-11-01 01:29:59', 'YYYY-MM-DD HH24:MI:SS')", "id"),
			"101 102")
	}
	f := setup(t, netsuite.Options{NoUTC: true})
	if got := f.refused("SELECT SYS_EXTRACT_UTC(lastmodifieddate) FROM contact"); !strings.Contains(got, "SYS_EXTRACT_UTC") {
		t.Error(got)
	}
	f = setup(t, netsuite.Options{})
	f.account.Deny("sys_extract_utc(deletedrecord.deleteddate)")
	f.rows("SELECT SYS_EXTRACT_UTC(lastmodifieddate) AS at FROM contact")
	if got := f.refused("SELECT SYS_EXTRACT_UTC(d.deleteddate) AS at FROM deletedrecord d"); !strings.Contains(got, "SYS_EXTRACT_UTC") {
		t.Error(got)
	}
}

// Where a wire rule is unsure, an option has the other reading.
func TestWireForms(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		o    netsuite.Options
		want string
	}{
		{netsuite.Options{}, `{"id":"101","inactive":"F"}`},
		{netsuite.Options{Casing: netsuite.UpperKeys}, `{"ID":"101","INACTIVE":"F"}`},
		{netsuite.Options{Casing: netsuite.WrittenKeys}, `{"Inactive":"F","id":"101"}`},
		{netsuite.Options{NativeCells: true}, `{"id":101,"inactive":false}`},
		{netsuite.Options{EmptyNulls: true}, `{"email":"","id":"101","inactive":"F"}`},
	} {
		f := setup(t, c.o)
		id(t)(f.account.JoinContact(netsuite.Contact{FirstName: "Ann"}))
		var got []map[string]any
		for _, item := range f.page("SELECT ID, email, isinactive AS Inactive FROM contact", "").Items {
			delete(item, "email") // null, so it is left out
			got = append(got, item)
		}
		if c.o.EmptyNulls {
			got[0]["email"] = ""
		}
		text, _ := json.Marshal(got[0])
		same(t, fmt.Sprintf("%+v", c.o), string(text), c.want)
	}
}

// The ceiling cuts without a word: only totalResults tells.
func TestRowsBeyondTheCeilingAreCutSilently(t *testing.T) {
	t.Parallel()
	f := setup(t, netsuite.Options{Ceiling: 5})
	f.account.BulkLoad(8, 0, 1)
	const statement = "SELECT id FROM customer ORDER BY id"
	first := f.page(statement, "?limit=3&offset=0")
	same(t, "first", fmt.Sprint(first.Count, first.HasMore, first.TotalResults, len(first.Items)), "3 true 8 3")
	same(t, "next", strings.TrimPrefix(first.Links[0].Href, f.url), "/services/rest/query/v1/suiteql?limit=3&offset=3")
	second := f.page(statement, "?limit=3&offset=3")
	same(t, "second", fmt.Sprint(second.Count, second.HasMore, second.TotalResults, second.Offset), "2 false 8 3")
	same(t, "beyond", f.page(statement, "?limit=3&offset=6").Count, 0)
	keyed := f.page("SELECT id FROM customer WHERE id > 104 ORDER BY id", "?limit=3")
	same(t, "by key", fmt.Sprint(keyed.Count, keyed.HasMore, keyed.TotalResults), "3 true 5")
}

// Pages of no order repeat rows.
func TestUnorderedPagesOverlap(t *testing.T) {
	t.Parallel()
	f := setup(t, netsuite.Options{})
	f.account.BulkLoad(5, 0, 1)
	same(t, "second page", f.page("SELECT id FROM customer", "?limit=2&offset=2").Items, "[map[id:103] map[id:104]]")
	same(t, "ordered", f.page("SELECT id FROM customer ORDER BY id", "?limit=2&offset=2").Items, "[map[id:104] map[id:105]]")
}

// Key paging over a made-up account names every record once and asks for no page more than it must.
func TestBulkIsReadByKeyCompletely(t *testing.T) {
	t.Parallel()
	f := setup(t, netsuite.Options{})
	f.account.BulkLoad(2500, 4200, 7)
	asked := 0
	read := func(statement func(last page) string) (rows []map[string]any) {
		for last := (page{HasMore: true}); last.HasMore; asked++ {
			last = f.page(statement(last), "?limit=1000")
			rows = append(rows, last.Items...)
		}
		return rows
	}
	key := func(p page, name string) (n int) {
		if len(p.Items) > 0 {
			_, _ = fmt.Sscan(p.Items[len(p.Items)-1][name].(string), &n)
		}
		return n
	}
	seen := map[string]bool{}
	for _, r := range read(func(p page) string { return fmt.Sprintf(everyCustomer, key(p, "id")) }) {
		seen["customer "+r["id"].(string)] = true
	}
	for _, r := range read(func(p page) string { return fmt.Sprintf(everyContact, key(p, "id")) }) {
		seen["contact "+r["id"].(string)] = true
	}
	for _, r := range read(func(p page) string { return fmt.Sprintf(everyLink, key(p, "contact"), key(p, "company")) }) {
		seen[fmt.Sprint("link ", r["company"], "/", r["contact"], "/", r["role"])] = true
	}
	want, roles := 0, map[string]int{}
	for _, c := range f.account.Customers() {
		want++
		if !seen["customer "+c.ID] {
			t.Errorf("customer %s was not read", c.ID)
		}
	}
	for _, c := range f.account.Contacts() {
		if !c.Private {
			want++
		}
		if seen["contact "+c.ID] == c.Private {
			t.Errorf("contact %s, private %t", c.ID, c.Private)
		}
	}
	for _, l := range f.account.Links() {
		want++
		roles[l.Role]++
		if l.Role == "" {
			l.Role = "<nil>"
		}
		if !seen["link "+l.Company+"/"+l.Contact+"/"+l.Role] {
			t.Errorf("link %v was not read", l)
		}
	}
	pages := (2500+999)/1000 + (4200+999)/1000 + (len(f.account.Links())+999)/1000
	same(t, "rows, pages", fmt.Sprint(len(seen), asked), fmt.Sprint(want, pages))
	if roles[""] == 0 || roles[netsuite.Primary] == 0 || roles["1"] == 0 {
		t.Errorf("the made-up roles lack variety: %v", roles)
	}
}

// The trap of paging by position: a row deleted between two pages has another never read. By key none is missed.
func TestPagingByPositionMissesARow(t *testing.T) {
	t.Parallel()
	f := setup(t, netsuite.Options{})
	f.account.BulkLoad(4, 0, 1)
	f.sim.Before(func(r erpsim.Request) {
		if r.Op == netsuite.Query && r.N%2 == 0 {
			must(t, f.account.DeleteCustomer(f.account.Customers()[0].ID))
		}
	})
	read := func(statement, parameters string) string {
		return fmt.Sprint(f.page(statement, parameters).Items)
	}
	const byPosition = "SELECT id FROM customer ORDER BY id"
	same(t, "by position", read(byPosition, "?limit=2")+read(byPosition, "?limit=2&offset=2"), "[map[id:102] map[id:103]][map[id:105]]")
	const byKey = "SELECT id FROM customer WHERE id > %d ORDER BY id"
	same(t, "by key", read(fmt.Sprintf(byKey, 0), "?limit=2")+read(fmt.Sprintf(byKey, 104), "?limit=2"), "[map[id:103] map[id:104]][map[id:105]]")
}

// FuzzStatement: no statement, however odd, breaks the simulator, and every refusal says so as NetSuite does.
func FuzzStatement(f *testing.F) {
	for _, s := range []string{
		fmt.Sprintf(everyCustomer, 1), fmt.Sprintf(everyContact, 2), fmt.Sprintf(everyLink, 3, 4),
		"SELECT COUNT(*) FROM contact WHERE NOT (id IN (1,-2) OR UPPER(email) = 'X''Y') AND company IS NOT NULL ORDER BY id DESC",
		"SELECT d.recordid, TO_CHAR(d.deleteddate, 'YYYY-MM-DD HH24:MI:SS') AS at FROM deletedrecord d WHERE UPPER(d.type) = 'CONTACT'" +
			" AND d.deleteddate >= TO_DATE('2026-01-02 03:04:05', 'YYYY-MM-DD HH24:MI:SS') AND d.recordid > ? ORDER BY d.recordid",
		"SELECT r.contact, " + primary + " FROM companycontactrelationship r", "SELECT (SELECT min FROM contact) FROM contact",
		"SELECT (SELECT MIN(id) FROM contact k WHERE k.id = c.id AND k.id = c.parent AND x) FROM customer c", "SELECT (SELECT MIN() FROM",
		"SELECT r.contact, c.contact, NVL(c.email,'x') FROM companycontactrelationship r, customer c WHERE r.company = c.id(+)",
		"SELECT ((((", "SELECT id FROM contact WHERE ((((((((((id=1))))))))))", "select '", "SELECT - FROM x", "\xff", "SELECT \"a\" FROM b",
	} {
		f.Add(s)
	}
	far := setup(f, netsuite.Options{})
	far.account.BulkLoad(20, 30, 3)
	f.Fuzz(func(t *testing.T, statement string) {
		body, _ := json.Marshal(map[string]any{"q": statement, "params": []string{"1", "x"}})
		r := httptest.NewRequestWithContext(t.Context(), "POST", "/services/rest/query/v1/suiteql?limit=7", bytes.NewReader(body))
		r.Header.Set("Authorization", "Bearer "+far.access)
		r.Header.Set("Prefer", "transient")
		a := httptest.NewRecorder()
		far.sim.ServeHTTP(a, r)
		if a.Code != 200 && a.Code != 400 || !json.Valid(a.Body.Bytes()) {
			t.Fatalf("%q: %d %s", statement, a.Code, a.Body)
		}
	})
}

func BenchmarkPage(b *testing.B) {
	f := setup(b, netsuite.Options{})
	f.account.BulkLoad(100_000, 200_000, 1)
	joined := strings.NewReplacer("r.role, B", "r.role, c.contact AS main, B", "relationship r\n", "relationship r, customer c\n",
		"WHERE (", "WHERE r.company = c.id(+) AND (").Replace(everyLink)
	for name, statement := range map[string]string{
		"customers": fmt.Sprintf(everyCustomer, 50_000), "contacts": fmt.Sprintf(everyContact, 200_000),
		"links": fmt.Sprintf(everyLink, 200_000, 0), "joined": fmt.Sprintf(joined, 200_000, 0),
		"first": strings.Replace(fmt.Sprintf(joined, 200_000, 0), "role_name\n", "role_name, "+primary+"\n", 1),
	} {
		b.Run(name, func(b *testing.B) {
			for b.Loop() {
				if a := f.query(statement, ""); a.status != 200 {
					b.Fatal(a)
				}
			}
		})
	}
}

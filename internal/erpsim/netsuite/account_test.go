package netsuite_test

import (
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/centime/contactsync/internal/erpsim"
	"github.com/centime/contactsync/internal/erpsim/netsuite"
)

// What a role may not read is refused in the words for something that is not there, or hidden without a word.
func TestPermissions(t *testing.T) {
	t.Parallel()
	f := setup(t, netsuite.Options{})
	acme := id(t)(f.account.JoinCustomer(netsuite.Customer{CompanyName: "Acme", Subsidiary: "1"}))
	ann := id(t)(f.account.JoinContact(netsuite.Contact{FirstName: "Ann", Subsidiary: "1"}))
	must(t, f.account.Attach(acme, ann, netsuite.Primary))
	f.account.Deny("contactrole", "contact.isprivate")
	const search = "400 INVALID_PARAMETER Invalid search query. Detailed unprocessed description follows. Search error occurred: "
	same(t, "table", f.refused("SELECT id FROM contactrole"), search+"Record 'contactrole' was not found.")
	same(t, "column", f.refused("SELECT id, isprivate FROM contact"), search+"Field 'isprivate' for record 'contact' was not found.")
	same(t, "the role's name", f.rows("SELECT BUILTIN.DF(role) AS name FROM companycontactrelationship"), `{"name":"Primary Contact"}`)
	same(t, "denied", f.account.Denied(), "[contact.isprivate contactrole]")
	f.account.Allow("contactrole", "contact.isprivate")
	f.rows("SELECT isprivate FROM contact")

	f.account.Restrict("2")
	same(t, "restricted", f.rows("SELECT id FROM contact")+f.rows("SELECT COUNT(*) AS n FROM customer"), `{"n":"0"}`)
	same(t, "links", f.rows("SELECT contact FROM companycontactrelationship"), `{"contact":"102"}`)
	f.account.Restrict()
	must(t, f.account.EditContact(ann, func(c *netsuite.Contact) { c.Private = true }))
	same(t, "private", f.rows("SELECT id FROM contact"), "")
	same(t, "private, counted", f.rows("SELECT COUNT(*) AS n FROM contact"), `{"n":"0"}`)
	must(t, f.account.EditContact(ann, func(c *netsuite.Contact) { c.Private = false }))
	same(t, "private no more", f.rows("SELECT COUNT(*) AS n FROM contact"), `{"n":"1"}`)

	f.account.Deny("rest")
	same(t, "the service", f.query("SELECT id FROM contact", "").status, 403)
	f.account.Allow("rest")
	same(t, "limits", f.get("/services/rest/system/v1/governanceLimits").status, 403)
	same(t, "records", f.get("/services/rest/record/v1/contact/102").status, 403)

	for fault, want := range map[netsuite.ColumnFault]string{
		netsuite.UnknownIdentifier: search + "Unknown identifier 'isprivate'.",
		netsuite.ColumnUnexpected:  "500 UNEXPECTED_ERROR An unexpected error occurred. Error ID: ",
	} {
		f := setup(t, netsuite.Options{ColumnFault: fault})
		f.account.Deny("contact.isprivate")
		if got := f.refused("SELECT isprivate FROM contact"); !strings.HasPrefix(got, want) {
			t.Error(got)
		}
	}
	f = setup(t, netsuite.Options{HideLinks: true})
	acme = id(t)(f.account.JoinCustomer(netsuite.Customer{CompanyName: "Acme"}))
	ann = id(t)(f.account.JoinContact(netsuite.Contact{FirstName: "Ann", Private: true}))
	must(t, f.account.Attach(acme, ann, ""))
	same(t, "links of hidden ones", f.rows("SELECT contact FROM companycontactrelationship"), "")
}

// What people do shows, and what they do to relations moves no date: a sync that looks at dates alone misses it.
func TestWhatPeopleDo(t *testing.T) {
	t.Parallel()
	f := setup(t, netsuite.Options{})
	a := f.account
	acme := id(t)(a.JoinCustomer(netsuite.Customer{CompanyName: "Acme"}))
	bolt := id(t)(a.JoinCustomer(netsuite.Customer{CompanyName: "Bolt", Stage: "Lead", Parent: acme}))
	ann := id(t)(a.JoinContact(netsuite.Contact{FirstName: "Ann", Company: acme}))
	bob := id(t)(a.JoinContact(netsuite.Contact{FirstName: "Bob", Company: acme}))
	links := func() string { return fmt.Sprint(a.Links()) }
	f.clock.forward(time.Hour)
	f.renew()
	role := a.AddRole("Collections")
	must(t, a.Attach(acme, ann, netsuite.Primary))
	must(t, a.Attach(bolt, ann, role))
	must(t, a.Attach(acme, bob, ""))
	must(t, a.Attach(acme, bob, netsuite.Primary)) // a second one: NetSuite does not promise that there is one
	must(t, a.Detach(bolt, ann))
	must(t, a.EditRole(netsuite.Primary, func(r *netsuite.Role) { r.Name = "Chief" }))
	const at = `SELECT TO_CHAR(SYS_EXTRACT_UTC(lastmodifieddate), 'HH24:MI:SS') AS at FROM `
	same(t, "dates", f.column(at+"contact", "at")+" "+f.column(at+"customer", "at"), "18:05:00 18:05:00 18:05:00 18:05:00")
	same(t, "role names", f.column("SELECT BUILTIN.DF(role) AS name FROM companycontactrelationship", "name"), "Chief Chief")

	must(t, a.EditContact(ann, func(c *netsuite.Contact) { c.Email = "new@x.example" }))
	same(t, "edited", f.column(at+"contact", "at"), "19:05:00 18:05:00")
	must(t, a.EditContact(bob, func(c *netsuite.Contact) { c.ModifiedAt = c.ModifiedAt.Add(time.Minute) }))
	same(t, "committed late", f.column(at+"contact", "at"), "19:05:00 18:06:00")

	must(t, a.MergeContacts(bob, ann, true))
	same(t, "merged", fmt.Sprint(links(), len(a.Contacts())), "[{101 103 -10 101 103}]1")
	must(t, a.MergeCustomers(acme, bolt, false))
	same(t, "merged", links()+f.rows("SELECT id, company FROM contact"), `[{102 103 -10 102 103}]{"company":"102","id":"103"}`)
	must(t, a.DeleteCustomer(bolt))
	must(t, a.VanishContact(ann))
	same(t, "deleted", f.rows("SELECT d.recordid, d.type, TO_CHAR(d.deleteddate, 'HH24:MI') AS at FROM deletedrecord d WHERE UPPER(d.type) IN "+
		"('CONTACT', 'LEAD') AND d.deleteddate >= TO_DATE('2026-03-02', 'YYYY-MM-DD') AND d.recordid > 0 ORDER BY d.recordid"),
		`{"at":"11:05","recordid":"102","type":"Lead"} {"at":"11:05","recordid":"104","type":"Contact"}`)
	same(t, "nothing left", links()+fmt.Sprint(a.Customers(), a.Contacts()), "[][] []")
	for what, err := range map[string]error{
		"edit": a.EditContact(ann, func(*netsuite.Contact) {}), "attach": a.Attach(acme, ann, ""), "detach": a.Detach(acme, ann),
		"delete": a.DeleteContact(ann), "merge": a.MergeContacts(ann, ann, true), "spoil": a.Spoil("contact", ann, "email", "7"),
	} {
		if !errors.Is(err, netsuite.ErrNoRecord) {
			t.Errorf("%s: %v", what, err)
		}
	}
}

// Whether a contact's main company is a relation too is not known.
func TestMainCompanyAsARelation(t *testing.T) {
	t.Parallel()
	f := setup(t, netsuite.Options{MainLinks: true})
	acme := id(t)(f.account.JoinCustomer(netsuite.Customer{CompanyName: "Acme"}))
	bolt := id(t)(f.account.JoinCustomer(netsuite.Customer{CompanyName: "Bolt"}))
	ann := id(t)(f.account.JoinContact(netsuite.Contact{FirstName: "Ann", Company: acme}))
	same(t, "joined", len(f.account.Links()), 1)
	must(t, f.account.EditContact(ann, func(c *netsuite.Contact) { c.Company = bolt }))
	same(t, "moved", f.column("SELECT company FROM companycontactrelationship", "company"), bolt)
}

// A row can be bad in any cell, and is read again when that begins and when it ends.
func TestSpoiltRows(t *testing.T) {
	t.Parallel()
	f := setup(t, netsuite.Options{})
	ann := id(t)(f.account.JoinContact(netsuite.Contact{FirstName: "Ann", Email: "ann@x.example"}))
	f.clock.forward(time.Minute)
	must(t, f.account.Spoil("contact", ann, "email", `{"a":7}`))
	must(t, f.account.Spoil("contact", ann, "firstname", `"\ud83d"`))
	must(t, f.account.Spoil("contact", ann, "id", ""))
	if a := f.query("SELECT id, email, firstname FROM contact", ""); !strings.Contains(a.body, `{"links":[],"email":{"a":7},"firstname":"\ud83d"}`) {
		t.Error(a.body)
	}
	must(t, f.account.Heal("contact", ann))
	same(t, "healed", f.rows("SELECT email, TO_CHAR(lastmodifieddate, 'MI') AS at FROM contact"), `{"at":"06","email":"ann@x.example"}`)
	if err := f.account.Spoil("contact", ann, "email", `{`); err == nil {
		t.Error("no JSON was taken")
	}
}

// Each way to fail is what the wire would show.
func TestFaults(t *testing.T) {
	t.Parallel()
	for kind, want := range map[netsuite.FaultKind]string{
		netsuite.Throttle:       `429 {"type":"https://www.w3.org/Protocols/rfc2616/rfc2616-sec10.html#sec10.4.1","title":"Too Many Requests","status":429,"o:errorDetails":[{"detail":"Concurrent request limit exceeded. Request blocked.","o:errorCode":"CONCURRENCY_LIMIT_EXCEEDED"}]}`,
		netsuite.ThrottleBroken: `429 {"type":"https://www.w3.org/`,
		netsuite.ThrottleEmpty:  "429 ",
		netsuite.Unexpected:     "500 {",
		netsuite.HTML503:        "503 <html>",
		netsuite.Empty502:       "502 ",
		netsuite.NotJSON:        "200 <html>",
		netsuite.Redirect:       "302 ",
		netsuite.InvalidLogin:   "401 {",
		netsuite.Forbidden:      "403 {",
		netsuite.BadHeader:      "400 ",
		netsuite.BadQuery:       "400 {",
		netsuite.SilentCut:      `200 {"links":`,
		netsuite.Repeat:         `200 {"links":`,
		netsuite.Custom:         "418 x",
		netsuite.Slow:           `200 {"links":`,
		netsuite.Truncated:      "200 {",
		netsuite.Drop:           "0 ",
		netsuite.LoseReply:      "0 ",
	} {
		f := setup(t, netsuite.Options{})
		f.account.BulkLoad(4, 0, 1)
		f.account.Fail(erpsim.Rule{Match: "from CUSTOMER"}, netsuite.Fault{Kind: kind, RetryAfter: "5", Status: 418, Body: "x", Delay: time.Millisecond})
		a := f.query("SELECT id FROM customer WHERE id > 103 ORDER BY id", "")
		if !strings.HasPrefix(fmt.Sprint(a.status, " ", a.body), want) || (a.err != nil) != (a.status == 0 || kind == netsuite.Truncated) {
			t.Errorf("%s: %d %s %v", kind, a.status, a.body, a.err)
		}
		if a.status == 429 && a.header.Get("Retry-After") != "5" {
			t.Errorf("%s: no Retry-After", kind)
		}
		requests := f.sim.Log().Requests(func(r erpsim.Request) bool { return r.Fault == string(kind) })
		same(t, string(kind)+" in the log", len(requests), 1)
		switch kind {
		case netsuite.SilentCut:
			if !strings.Contains(a.body, `"count":1,"hasMore":false`) || !strings.Contains(a.body, `"totalResults":2`) {
				t.Error(a.body)
			}
		case netsuite.Repeat:
			if !strings.Contains(a.body, `"id":"102"`) {
				t.Error(a.body)
			}
		}
		same(t, string(kind)+" is over", f.query("SELECT id FROM customer", "").status, 200)
	}
}

// More requests at once than the account has places for are refused.
func TestConcurrency(t *testing.T) {
	t.Parallel()
	f := setup(t, netsuite.Options{InFlight: 1})
	var meanwhile answer
	f.sim.Before(func(r erpsim.Request) {
		if r.N == 1 {
			meanwhile = f.query("SELECT id FROM customer", "")
		}
	})
	same(t, "the first", f.query("SELECT id FROM contact", "").status, 200)
	same(t, "the second", fmt.Sprint(meanwhile.status, strings.Contains(meanwhile.body, "CONCURRENCY_LIMIT_EXCEEDED")), "429 true")
	same(t, "most at once", f.sim.Peak(), 2)
	same(t, "the third", f.query("SELECT id FROM contact", "").status, 200)
}

// Whatever would write is a violation, and a read is none.
func TestViolations(t *testing.T) {
	t.Parallel()
	f := setup(t, netsuite.Options{})
	count := func(do func()) int {
		before := len(f.sim.Violations())
		do()
		return len(f.sim.Violations()) - before
	}
	for what, want := range map[string]int{
		"GET /services/rest/system/v1/serverTime": 0, "GET /services/rest/record/v1/contact/1": 0,
		"PATCH /services/rest/record/v1/contact/1": 1, "POST /services/rest/record/v1/contact": 1, "DELETE /services/rest/record/v1/contact/1": 1,
		"POST /services/rest/auth/oauth2/v1/clients/x/certificates": 1, "PUT /services/rest/query/v1/suiteql": 1, "POST /elsewhere": 1,
	} {
		method, path, _ := strings.Cut(what, " ")
		same(t, what, count(func() { f.do(method, path, "{}", "Authorization", "Bearer "+f.access) }), want)
	}
	same(t, "a read", count(func() { f.query(" select\tid FROM contact", "") }), 0)
	same(t, "no read", count(func() { f.query("DELETE FROM contact", "") }), 1)
}

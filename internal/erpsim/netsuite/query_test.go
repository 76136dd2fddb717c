package netsuite_test

import (
	"testing"

	"github.com/centime/contactsync/internal/erpsim/netsuite"
)

func TestHappyPath(t *testing.T) {
	t.Parallel()
	f := setup(t, netsuite.Options{})
	one := id(t)(f.account.JoinCustomer(netsuite.Customer{CompanyName: `Kelp "&" Sons`, Email: "ap@kelp.example"}))
	two := id(t)(f.account.JoinContact(netsuite.Contact{FirstName: "Ann", LastName: "O'Dea", Company: one}))
	must(t, f.account.Attach(one, two, netsuite.Primary))
	same(t, "customers", f.rows(`SELECT c.id, c.entityid, c.altname, c.companyname, c.isperson, c.salutation, c.firstname, c.middlename, c.lastname,
       c.title, c.email, c.altemail, c.phone, c.altphone, c.mobilephone, c.homephone, c.fax, c.url, c.isinactive,
       c.parent, c.contact, c.category, BUILTIN.DF(c.category) AS category_name, c.entitystatus,
       BUILTIN.DF(c.entitystatus) AS entitystatus_name, c.searchstage, c.externalid, c.lastmodifieddate,
       TO_CHAR(SYS_EXTRACT_UTC(c.datecreated), 'YYYY-MM-DD"T"HH24:MI:SS"Z"') AS created_utc,
       TO_CHAR(SYS_EXTRACT_UTC(c.lastmodifieddate), 'YYYY-MM-DD"T"HH24:MI:SS"Z"') AS modified_utc
FROM customer c
WHERE c.id > 0
ORDER BY c.id`), "x")
	same(t, "links", f.rows(`SELECT r.company, r.contact, r.role, BUILTIN.DF(r.role) AS role_name
FROM companycontactrelationship r
WHERE (r.company > 0 OR (r.company = 0 AND r.contact > 0))
ORDER BY r.company, r.contact`), "y")
}

package demo

import (
	"encoding/json"
	"fmt"
	"strings"
	"testing"

	"github.com/centime/contactsync/internal/erpsim/netsuite"
)

// TestSuiteComparisonSeesEveryDifference: a contact at two customers with two roles, one by its main company alone, a private
// one and one at a vendor; a wrong, missing or surplus field, record or place is told.
func TestSuiteComparisonSeesEveryDifference(t *testing.T) {
	t.Parallel()
	a := netsuite.New(netsuite.Options{}).AddAccount("1", "Fjord Glass")
	kelp, err := a.JoinCustomer(netsuite.Customer{CompanyName: "Kelp", Email: "a@kelp.example, b@kelp.example", Stage: "Lead"})
	if err != nil {
		t.Fatal(err)
	}
	lab, err := a.JoinCustomer(netsuite.Customer{FirstName: "Ann", LastName: "Lab", Person: true, Parent: kelp, Inactive: true})
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range []netsuite.Contact{
		{FirstName: "Ann", Email: "ann@kelp.example", Company: kelp}, {FirstName: "Bob", Phone: "555", Company: lab}, {FirstName: "Cid", Private: true, Company: kelp},
	} {
		if _, err := a.JoinContact(c); err != nil {
			t.Fatal(err)
		}
	}
	vendor := a.JoinOther("Vendor")
	for _, l := range []netsuite.Link{
		{Company: kelp, Contact: "103", Role: netsuite.Primary}, {Company: lab, Contact: "103", Role: "-20"}, {Company: vendor, Contact: "103"},
	} {
		if err := a.Attach(l.Company, l.Contact, l.Role); err != nil {
			t.Fatal(err)
		}
	}
	read := func() suite {
		var n netSuite
		for _, part := range [][2]any{{a.Customers(), &n.Customers}, {a.Contacts(), &n.Contacts}, {a.Links(), &n.Links}, {a.Roles(), &n.Roles}} {
			text, err := json.Marshal(part[0])
			if err != nil {
				t.Fatal(err)
			}
			if err := json.Unmarshal(text, part[1]); err != nil {
				t.Fatal(err)
			}
		}
		return n.expected()
	}
	want := read()
	var places []string
	for at, l := range want.links {
		if !strings.Contains(at, "customer:") {
			places = append(places, at+" "+l["erp_role"])
		}
	}
	if len(places) != 3 || want.links[kelp+"/103"]["erp_role"] != "Primary Contact" || want.links[lab+"/103"]["erp_role"] != "Alternate Contact" ||
		want.links[lab+"/104"] == nil {
		t.Errorf("places of contacts: %v", places)
	}
	if got := fmt.Sprint(want.customers[lab], want.contacts["customer:"+kelp]); !strings.Contains(got, "kind:sub_customer") ||
		!strings.Contains(got, "email 2:b@kelp.example") || len(want.contacts) != 4 {
		t.Errorf("customers and contacts: %s", got)
	}
	if fields, differences := want.differ(read()); len(differences) != 0 || fields < 40 {
		t.Fatalf("%d fields, %v", fields, differences)
	}
	parts := func(s suite) []facts { return []facts{s.customers, s.contacts, s.links} }
	for i, part := range parts(want) {
		for id, row := range part {
			for field := range row {
				changed := read()
				parts(changed)[i][id][field] += "x"
				if _, differences := want.differ(changed); len(differences) != 1 {
					t.Errorf("%s of %s: %v", field, id, differences)
				}
			}
			lost := read()
			delete(parts(lost)[i], id)
			if _, differences := want.differ(lost); len(differences) != 1 {
				t.Errorf("%s lost: %v", id, differences)
			}
		}
		more := read()
		parts(more)[i]["9"] = map[string]string{"active": "true"}
		if _, differences := want.differ(more); len(differences) != 1 {
			t.Errorf("one that is gone from the ERP: %v", differences)
		}
	}
}

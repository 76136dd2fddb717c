package netsuite_test

import (
	"encoding/json"
	"fmt"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"github.com/centime/contactsync/internal/erpsim/netsuite"
)

// Whatever the demo and people do through the control port happens in the account, and a slip is told.
func TestControl(t *testing.T) {
	t.Parallel()
	f := setup(t, netsuite.Options{})
	control := httptest.NewServer(f.sim.Control())
	t.Cleanup(control.Close)
	ask := func(request, body, want string) {
		t.Helper()
		method, path, _ := strings.Cut(request, " ")
		here := *f
		here.url = control.URL
		a := here.do(method, path, body)
		if !strings.Contains(fmt.Sprint(a.status, " ", a.body), want) {
			t.Errorf("%s %s: %d %s, want %s", request, body, a.status, a.body, want)
		}
	}
	const account = "/accounts/1234567_SB1"
	ask("POST /accounts", `{"account":"7654321","name":"Other"}`, `200 {"account":"7654321","name":"Other","customers":0`)
	ask("POST /accounts", `{}`, "400 ")
	ask("GET /accounts", "", `{"account":"1234567_SB1","name":"Northwind Kelp"`)
	ask("POST /accounts/nobody/revoke", "", "404 ")
	ask("POST "+account+"/customers", `{"company_name":"Kelp"}`, `{"id":"101"}`)
	ask("POST "+account+"/contacts", `{"first_name":"Ann","company":"101"}`, `{"id":"102"}`)
	ask("POST "+account+"/roles", `{"name":"Collections"}`, `"id":"1","name":"Collections"`)
	ask("PUT "+account+"/links", `{"company":"101","contact":"102","role":"1"}`, "200 ")
	ask("PUT "+account+"/links", `{"company":"101","contact":"9"}`, "404 ")
	ask("GET "+account+"/links", "", `[{"company":"101","contact":"102","role":"1"}]`)
	ask("PATCH "+account+"/contacts/102", `{"email":"ann@x.example"}`, `"email":"ann@x.example"`)
	ask("PATCH "+account+"/contacts/102", `{"nonsense":1}`, "400 ")
	ask("PATCH "+account+"/customers/101", `{"inactive":true}`, `"inactive":true`)
	ask("PATCH "+account+"/roles/-10", `{"name":"Chief"}`, `"name":"Chief"`)
	ask("GET "+account+"/roles", "", `"Chief"`)
	ask("POST "+account+"/spoil", `{"table":"contact","id":"102","column":"email","value":7}`, "200 ")
	ask("GET "+account+"/contacts", "", `"ann@x.example"`)
	if a := f.query("SELECT email FROM contact", ""); !strings.Contains(a.body, `"email":7`) {
		t.Error(a.body)
	}
	ask("POST "+account+"/permissions", `{"deny":["contactrole"],"subsidiaries":["2"]}`, `{"denied":["contactrole"]}`)
	ask("POST "+account+"/permissions", `{"allow":["contactrole"],"subsidiaries":[]}`, `{"denied":[]}`)
	ask("DELETE "+account+"/links/101/102", "", "200 ")
	ask("POST "+account+"/bulk", `{"customers":3,"contacts":4}`, `"customers":4,"contacts":5`)
	ask("POST "+account+"/bulk", `{"customers":-1}`, "400 ")
	ask("POST "+account+"/merge/contacts", `{"lost":"102","survivor":"107"}`, "200 ")
	ask("POST "+account+"/merge/roles", `{}`, "400 ")
	ask("DELETE "+account+"/customers/101?unlogged", "", "200 ")
	ask("GET "+account+"/customers", "", "200 ")
	if deletions := f.account.Deletions(); len(deletions) != 1 || deletions[0].RecordID != "102" {
		t.Errorf("deletions: %v", deletions)
	}
	ask("POST /faults", `{"account":"x"}`, "400 ")
	ask("POST /faults", `{"kind":"nonsense"}`, "400 ")
	ask("POST /faults", `{"op":"query","kind":"slow","delay":"1ms","times":-1}`, "200 ")
	ask("DELETE /faults", "", "200 ")
	ask("GET /requests?op=query", "", "SELECT email FROM contact")
	ask("GET /counters", "", `"logins":{"1234567_SB1":{"granted":1`)
	ask("DELETE /requests", "", "200 ")
	ask("GET /counters", "", `"requests":0`)
	for _, action := range []string{"expire", "end-certificates", "disable", "enable", "revoke"} {
		ask("POST "+account+"/"+action, "", "200 ")
	}
	if a := f.query("SELECT id FROM contact", ""); a.status != http.StatusUnauthorized {
		t.Errorf("revoked: %d", a.status)
	}
	here := *f
	here.url = control.URL
	var login netsuite.Credentials
	must(t, json.Unmarshal([]byte(here.do("POST", account+"/credentials", "").body), &login))
	f.login = login
	f.renew()
}

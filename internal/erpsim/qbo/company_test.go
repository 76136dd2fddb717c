package qbo_test

import (
	"encoding/json"
	"errors"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"
	"unicode/utf8"

	"github.com/centime/contactsync/internal/erpsim/qbo"
)

const every = "select * from Customer where Active IN (true, false) ORDERBY Id"

func TestLifeOfACustomer(t *testing.T) {
	t.Parallel()
	f := setup(t, qbo.Options{})
	f.join("Amber")
	created := f.rows(every)[0].MetaData.CreateTime
	same(t, "created", created, "2026-03-02T10:05:01-08:00")
	step := func(what string, change error, want wireRow) {
		t.Helper()
		must(t, change)
		want.ID, want.MetaData.CreateTime, want.FullyQualifiedName = "1", created, want.DisplayName
		want.MetaData.LastUpdatedTime = f.clock.now().In(time.FixedZone("", -8*3600)).Format("2006-01-02T15:04:05-07:00")
		same(t, what, f.rows(every), []wireRow{want})
		f.clock.forward(time.Minute)
	}
	f.clock.forward(time.Minute)
	step("edit", f.company.Edit("1", func(c *qbo.Customer) { c.Email = "a@amber.example" }),
		wireRow{SyncToken: "1", DisplayName: "Amber", Active: true})
	step("rename", f.company.Rename("1", "Amber & Co"), wireRow{SyncToken: "2", DisplayName: "Amber & Co", Active: true})
	step("balance", f.company.BumpBalance("1", 100), wireRow{SyncToken: "2", DisplayName: "Amber & Co", Active: true})
	step("deactivate", f.company.Deactivate("1"), wireRow{SyncToken: "3", DisplayName: "Amber & Co (deleted)"})
	step("reactivate", f.company.Reactivate("1"), wireRow{SyncToken: "4", DisplayName: "Amber & Co", Active: true})
	must(t, f.company.Edit("1", func(c *qbo.Customer) { c.Email = "" }))
	if body := f.get("/customer/1").body; strings.Contains(body, "PrimaryEmailAddr") {
		t.Errorf("a cleared field is there: %s", body)
	}
	if err := f.company.Deactivate("9"); !errors.Is(err, qbo.ErrNoCustomer) {
		t.Errorf("unknown id: %v", err)
	}
}

func TestNestedCustomers(t *testing.T) {
	t.Parallel()
	f := setup(t, qbo.Options{})
	f.join("Top")
	for _, c := range []qbo.Customer{
		{DisplayName: "Middle", Parent: "1"}, {DisplayName: "Low", Parent: "2", Project: true},
	} {
		_, err := f.company.Join(c)
		must(t, err)
	}
	f.company.Prerender()
	must(t, f.company.Rename("1", "New"))
	body := f.get("/customer/3").body
	for _, want := range []string{`"FullyQualifiedName":"New:Middle:Low"`, `"Job":true`, `"Level":2`, `"IsProject":true`,
		`"ParentRef":{"value":"2","name":"Middle"}`, `"SyncToken":"0"`} {
		if !strings.Contains(body, want) {
			t.Errorf("no %s in %s", want, body)
		}
	}
	f.clock.forward(time.Minute)
	must(t, f.company.BumpBalance("3", 5))
	same(t, "a balance moves the time of all above", f.ids("select * from Customer where MetaData.LastUpdatedTime >= '"+
		f.clock.now().Truncate(time.Second).Format(time.RFC3339)+"' ORDERBY Id"), "1 2 3")
}

func TestMerge(t *testing.T) {
	t.Parallel()
	for mode, want := range map[qbo.MergeMode]struct {
		all    string
		status int // of a single read of the lost one
	}{
		qbo.MergeAbsent:   {"1 3", 400},
		qbo.MergeInactive: {"1 2 3", 200},
	} {
		t.Run(string(mode), func(t *testing.T) {
			t.Parallel()
			f := setup(t, qbo.Options{})
			f.join("Survivor", "Lost")
			_, err := f.company.Join(qbo.Customer{DisplayName: "Child", Parent: "2"})
			must(t, err)
			must(t, f.company.Merge("2", "1", mode))
			same(t, "all", f.ids(every), want.all)
			same(t, "active", f.ids("select * from Customer ORDERBY Id"), "1 3")
			same(t, "the child", f.ids("select * from Customer where FullyQualifiedName = 'Survivor:Child'"), "3")
			a := f.get("/customer/2")
			same(t, "the lost one", a.status, want.status)
			if mode == qbo.MergeInactive && !strings.Contains(a.body, `"DisplayName":"Lost (deleted)"`) {
				t.Error(a.body)
			}
			if err := f.company.Merge("3", "3", mode); err == nil {
				t.Error("merged with itself")
			}
			if err := f.company.Merge("1", "3", mode); err == nil {
				t.Error("merged with one below it")
			}
		})
	}
}

// In autumn an hour comes twice on the Pacific clock, so that texts of times sort wrongly; in spring one is left out.
func TestTimesArePacificOverBothChangesOfTheClock(t *testing.T) {
	t.Parallel()
	f := setup(t, qbo.Options{})
	for _, at := range []string{
		"2026-11-01T08:30:00.9Z", "2026-11-01T09:30:00Z", "2026-03-08T09:59:59Z", "2026-03-08T10:00:00Z",
	} {
		created, err := time.Parse(time.RFC3339, at)
		must(t, err)
		_, err = f.company.Join(qbo.Customer{DisplayName: at, CreatedAt: created})
		must(t, err)
	}
	var got []string
	for _, r := range f.rows("select * from Customer ORDERBY MetaData.LastUpdatedTime") {
		got = append(got, r.MetaData.LastUpdatedTime)
	}
	same(t, "times", strings.Join(got, "\n"), "2026-03-08T01:59:59-08:00\n2026-03-08T03:00:00-07:00\n"+
		"2026-11-01T01:30:00-07:00\n2026-11-01T01:30:00-08:00")
	same(t, "the second of the two",
		f.ids("select * from Customer where MetaData.CreateTime > '2026-11-01T01:30:00-07:00'"), "2")
}

func TestImportSharesOneSecond(t *testing.T) {
	t.Parallel()
	f := setup(t, qbo.Options{})
	same(t, "ids", len(f.company.Import(1500)), 1500)
	same(t, "in the second", strings.Contains(f.query("select count(*) from Customer where MetaData.LastUpdatedTime = "+
		"'2026-03-02T18:05:00Z'").body, `"totalCount":1500`), true)
}

// A change may become visible after the second it says it was made in.
func TestEditMaySayItWasEarlier(t *testing.T) {
	t.Parallel()
	f := setup(t, qbo.Options{})
	f.join("Amber")
	early := f.clock.now().Add(30 * time.Second)
	f.clock.forward(time.Hour)
	must(t, f.company.Edit("1", func(c *qbo.Customer) { c.UpdatedAt = early }))
	c, err := f.company.Customer("1")
	must(t, err)
	same(t, "time", c.UpdatedAt, early.Truncate(time.Second))
}

func TestSpoiltRows(t *testing.T) {
	t.Parallel()
	for how, want := range map[qbo.Spoil]string{
		qbo.MissingID:     `"FullyQualifiedName"`,
		qbo.NumberID:      `"Id":4711`,
		qbo.NULName:       `"DisplayName":"Nul\u0000 Name"`,
		qbo.LoneSurrogate: `"DisplayName":"Half \ud83d of it"`,
		qbo.UnknownFields: `"FutureField":{"a":[1,{"b":null}]}`,
		qbo.NumberName:    `"DisplayName":12345`,
		qbo.ObjectEmail:   `"PrimaryEmailAddr":{"Address":{"value":"x"}}`,
		qbo.NullJob:       `"Job":null`,
		qbo.NullFields:    `"PrimaryEmailAddr":null`,
		qbo.AddressOnlyID: `"BillAddr":{"Id":"106"}`,
		qbo.BadTimes:      `"CreateTime":"yesterday"`,
		qbo.EmptyName:     `"Id":"1"`,
		qbo.OrphanParent:  `"ParentRef":{"value":"999999999"}`,
	} {
		t.Run(string(how), func(t *testing.T) {
			t.Parallel()
			f := setup(t, qbo.Options{})
			f.join("Amber & Sons")
			good := f.get("/customer/1").body
			f.clock.forward(time.Minute)
			must(t, f.company.Spoil("1", how))
			body := f.get("/customer/1").body
			if !strings.Contains(body, want) || !json.Valid([]byte(body)) {
				t.Errorf("no %s in %s", want, body)
			}
			same(t, "without an id", strings.Contains(body, `"Id":`), how != qbo.MissingID)
			must(t, f.company.Heal("1"))
			healed := f.get("/customer/1").body
			same(t, "healed", len(healed), len(good))
		})
	}
	f := setup(t, qbo.Options{})
	if err := f.company.SpoilField("1", "Id", "{"); err == nil {
		t.Error("took what is no JSON")
	}
}

func TestBulkLoadIsOfManyKindsAndRepeatable(t *testing.T) {
	t.Parallel()
	load := func(seed uint64) []qbo.Customer {
		f := setup(t, qbo.Options{})
		f.company.BulkLoad(20_000, seed)
		return f.company.Customers()
	}
	all := load(1)
	if dump := func(v any) string { b, _ := json.Marshal(v); return string(b) }; dump(all) != dump(load(1)) {
		t.Error("the same seed made other customers")
	} else if dump(all) == dump(load(2)) {
		t.Error("another seed made the same customers")
	}
	names, count := map[string]bool{}, map[string]int{}
	see := func(what string, seen bool) {
		if seen {
			count[what]++
		}
	}
	now := time.Date(2026, 3, 2, 18, 5, 0, 0, time.UTC)
	for _, c := range all {
		if names[strings.ToLower(c.DisplayName)] || strings.ContainsAny(c.DisplayName, ":\t\n") {
			t.Fatalf("name %q is taken or not allowed", c.DisplayName)
		}
		names[strings.ToLower(c.DisplayName)] = true
		if c.CreatedAt.After(c.UpdatedAt) || c.UpdatedAt.After(now) {
			t.Fatalf("times of %s: %v, %v", c.ID, c.CreatedAt, c.UpdatedAt)
		}
		for _, address := range strings.FieldsFunc(c.Email, func(r rune) bool { return r == ',' || r == ';' }) {
			if strings.Contains(address, "@") && !strings.HasSuffix(strings.ToLower(address), ".example") {
				t.Fatalf("address of a real domain: %s", address)
			}
		}
		see("persons", c.CompanyName == "" && c.FamilyName != "")
		see("companies", c.CompanyName != "")
		see("nested", c.Parent != "")
		see("projects", c.Project)
		see("inactive", c.Inactive && strings.HasSuffix(c.DisplayName, " (deleted)"))
		see("without mail", c.Email == "")
		see("several addresses", strings.ContainsAny(c.Email, ",;"))
		see("no address", c.Email == "see notes")
		see("names of 500", utf8.RuneCountInString(c.DisplayName) == 500)
		see("other scripts", len(c.DisplayName) > utf8.RuneCountInString(c.DisplayName))
		see("emoji", strings.ContainsAny(c.DisplayName, "🌊🚚🥐🌱"))
		see("balance only", c.SyncToken == 0 && c.UpdatedAt.After(c.CreatedAt))
	}
	for _, what := range []string{"persons", "companies", "nested", "projects", "inactive", "without mail",
		"several addresses", "no address", "names of 500", "other scripts", "emoji", "balance only"} {
		if count[what] < 3 {
			t.Errorf("%s: %d", what, count[what])
		}
	}
}

// control asks the control port and fails the test if the status is another.
func control(t *testing.T, sim *qbo.Sim, status int, method, path, body string) string {
	t.Helper()
	w := httptest.NewRecorder()
	r := httptest.NewRequestWithContext(t.Context(), method, path, strings.NewReader(body))
	sim.Control().ServeHTTP(w, r)
	if w.Code != status {
		t.Fatalf("%s %s: %d %s", method, path, w.Code, w.Body)
	}
	return strings.TrimSpace(w.Body.String())
}

func TestControlPortDoesWhatTheAPIDoes(t *testing.T) {
	t.Parallel()
	f := setup(t, qbo.Options{})
	do := func(method, path, body string) string { t.Helper(); return control(t, f.sim, 200, method, path, body) }
	const company = "/companies/" + realm
	do("POST", company+"/customers", `{"display_name":"Amber","email":"a@amber.example"}`)
	do("POST", company+"/customers", `{"display_name":"Blue","parent":"1"}`)
	do("POST", company+"/customers", `{"display_name":"Cedar"}`)
	do("PATCH", company+"/customers/1", `{"email":"","phone":"555-0100"}`)
	c, err := f.company.Customer("1")
	must(t, err)
	same(t, "edited", []any{c.Email, c.Phone, c.DisplayName, c.SyncToken}, []any{"", "555-0100", "Amber", 1})
	do("POST", company+"/customers/1/rename", `{"name":"Amber & Co"}`)
	do("POST", company+"/customers/1/deactivate", "")
	do("POST", company+"/customers/1/reactivate", "")
	do("POST", company+"/customers/1/bump", `{"cents":250}`)
	do("POST", company+"/customers/1/spoil", `{"how":"null_job"}`)
	do("POST", company+"/customers/1/heal", "")
	do("POST", company+"/merge", `{"lost":"3","survivor":"1"}`)
	do("POST", company+"/import", `{"count":2}`)
	do("POST", company+"/bulk", `{"count":5,"seed":9}`)
	do("POST", company+"/prerender", "")
	var dump []qbo.Customer
	must(t, json.Unmarshal([]byte(do("GET", company+"/customers", "")), &dump))
	same(t, "dump", len(dump), 9)
	same(t, "dump", dump[0], must2(f.company.Customer("1")))
	do("POST", "/companies", `{"realm":"77","name":"Second"}`)
	same(t, "companies", do("GET", "/companies", ""), `[{"realm":"77","name":"Second","customers":0},`+
		`{"realm":"`+realm+`","name":"Northwind Kelp LLC","customers":9}]`)

	var credentials qbo.Credentials
	must(t, json.Unmarshal([]byte(do("POST", company+"/credentials", "")), &credentials))
	status, _ := f.renew(credentials.RefreshToken)
	same(t, "credentials open the company", status, 200)
	do("POST", company+"/expire", "")
	same(t, "expired", f.get("/customer/1").status, 401)
	f.renew(credentials.RefreshToken)
	do("POST", "/faults", `{"company":"`+realm+`","op":"read","times":-1,"kind":"slow","delay":"1ms"}`)
	do("POST", "/faults", `{"op":"query","kind":"throttle_xml","retry_after":"5"}`)
	same(t, "fault", f.query("select * from Customer").header.Get("Retry-After"), "5")
	do("DELETE", "/faults", "")
	f.do("POST", "/v3/company/"+realm+"/customer", "{}")
	if got := do("GET", "/requests?violations", ""); strings.Count(got, `"id":`) != 1 {
		t.Error(got)
	}
	got := do("GET", "/counters", "")
	if !strings.Contains(got, `"violations":1`) || !strings.Contains(got, `"refreshes":3`) {
		t.Error(got)
	}
	do("DELETE", "/requests", "")
	same(t, "log", do("GET", "/requests?op=query", ""), "[]")
	do("POST", company+"/revoke", "")
	status, _ = f.renew(credentials.RefreshToken)
	same(t, "revoked", status, 400)
}

func must2[T any](v T, err error) T {
	if err != nil {
		panic(err)
	}
	return v
}

func TestControlPortSaysWhatIsWrong(t *testing.T) {
	t.Parallel()
	f := setup(t, qbo.Options{})
	for _, c := range []struct {
		method, path, body string
		status             int
		want               string
	}{
		{"GET", "/companies/1/customers", "", http.StatusNotFound, "no such company"},
		{"GET", "/companies/" + realm + "/customers/9", "", http.StatusNotFound, "customer 9: no such customer"},
		{"PATCH", "/companies/" + realm + "/customers/9", "{}", http.StatusNotFound, "no such customer"},
		{"POST", "/companies/" + realm + "/customers", `{"nmae":"x"}`, http.StatusBadRequest, "nmae"},
		{"POST", "/companies/" + realm + "/customers/9/melt", "", http.StatusBadRequest, "unknown change"},
		{"POST", "/companies/" + realm + "/bulk", `{"count":0}`, http.StatusBadRequest, "count: want 1 to 1000000"},
		{"POST", "/faults", `{"kind":"rain"}`, http.StatusBadRequest, "unknown kind"},
		{"POST", "/faults", `{"kind":"slow","delay":"long"}`, http.StatusBadRequest, "delay"},
		{"POST", "/companies", `{}`, http.StatusBadRequest, "realm is missing"},
	} {
		if got := control(t, f.sim, c.status, c.method, c.path, c.body); !strings.Contains(got, c.want) {
			t.Errorf("%s %s: %s", c.method, c.path, got)
		}
	}
}

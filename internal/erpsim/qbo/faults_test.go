package qbo_test

import (
	"context"
	"io"
	"net/http"
	"net/url"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/centime/contactsync/internal/erpsim"
	"github.com/centime/contactsync/internal/erpsim/qbo"
)

func TestFaultsLookAsTheSheetSays(t *testing.T) {
	t.Parallel()
	for kind, want := range map[qbo.FaultKind]struct {
		status int
		kind   string // of the content
		body   string // a part of it
	}{
		qbo.ThrottleXML: {429, "application/xml;charset=UTF-8", `<Fault type="SERVICE"><Error code="3001"><Message>` +
			`message=ThrottleExceeded; errorCode=003001; statusCode=429</Message>`},
		qbo.ThrottleJSON: {429, "application/json;charset=UTF-8", `{"Fault":{"Error":[{"Message":` +
			`"message=ThrottleExceeded; errorCode=003001; statusCode=429","Detail":` +
			`"The request limit was reached.  Try again later","code":"3001",` +
			`"element":""}],"type":"SERVICE"},"time":"2026-03-02T10:05:00.412-08:00"}`},
		qbo.ThrottleGateway: {429, "application/json;charset=UTF-8", `"code":"3001","element":null}],"type":"SERVICE"}`},
		qbo.RootFault:       {200, "application/json;charset=UTF-8", `{"Fault":{"Error":[{`},
		qbo.QueryFault:      {200, "application/json;charset=UTF-8", `{"QueryResponse":{"Fault":{"Error":[{`},
		qbo.XMLFault:        {500, "application/xml;charset=UTF-8", `<Error code="10000">`},
		qbo.InternalError:   {500, "application/json;charset=UTF-8", `"code":"10000"`},
		qbo.BadData:         {400, "application/json;charset=UTF-8", `"code":"4002"`},
		qbo.UnknownRequest:  {400, "application/json;charset=UTF-8", `"code":"500"`},
		qbo.HTML503:         {503, "text/html", `<h1>503`},
		qbo.Empty502:        {502, "", ``},
		qbo.NotJSON:         {200, "text/html", `<html>`},
		qbo.ExpiredToken:    {401, "application/json;charset=UTF-8", `"detail":"Token expired","code":"3200"`},
		qbo.ExpiredTokenXML: {401, "application/xml;charset=UTF-8", `<Error code="100">`},
		qbo.UserLost:        {401, "application/xml;charset=UTF-8", `-11014`},
		qbo.Forbidden:       {403, "application/json;charset=UTF-8", `errorCode=003100; statusCode=403`},
		qbo.Suspended:       {400, "application/json;charset=UTF-8", `"code":"6190"`},
		qbo.InvalidGrant:    {400, "application/json;charset=UTF-8", `{"error":"invalid_grant"}`},
		qbo.InvalidGrantMock: {400, "application/json;charset=UTF-8",
			`{"error_description":"Token invalid","error":"invalid_grant"}`},
		qbo.InvalidGrantLong: {400, "application/json;charset=UTF-8",
			`{"error_description":"Incorrect or invalid refresh token","error":"invalid_grant"}`},
		qbo.InvalidClient: {401, "application/json;charset=UTF-8", `{"error":"invalid_client"}`},
	} {
		t.Run(string(kind), func(t *testing.T) {
			t.Parallel()
			f := setup(t, qbo.Options{})
			f.company.Fail(erpsim.Rule{Op: qbo.Query}, qbo.Fault{Kind: kind, RetryAfter: "7"})
			a := f.query("select * from Customer")
			same(t, "status", a.status, want.status)
			same(t, "content", a.header.Get("Content-Type"), want.kind)
			same(t, "Retry-After", a.header.Get("Retry-After"), "7")
			if !strings.Contains(a.body, want.body) {
				t.Errorf("no %s in %s", want.body, a.body)
			}
			same(t, "the next one", f.query("select * from Customer").status, 200)
			same(t, "log", f.sim.Log().Requests(nil)[1].Fault, kind)
		})
	}
}

func TestFaultsMeetTheRequestsOfTheirRule(t *testing.T) {
	t.Parallel()
	statuses := func(f *far, n int) (got []int) {
		for range n {
			got = append(got, f.query("select * from Customer").status)
		}
		return got
	}
	t.Run("the next n", func(t *testing.T) {
		t.Parallel()
		f := setup(t, qbo.Options{})
		f.company.Fail(erpsim.Rule{Times: 2}, qbo.Fault{Kind: qbo.HTML503})
		same(t, "statuses", statuses(f, 3), []int{503, 503, 200})
	})
	t.Run("from the third on, until cleared", func(t *testing.T) {
		t.Parallel()
		f := setup(t, qbo.Options{})
		f.company.Fail(erpsim.Rule{Skip: 2, Times: erpsim.Forever}, qbo.Fault{Kind: qbo.Empty502})
		same(t, "statuses", statuses(f, 4), []int{200, 200, 502, 502})
		f.sim.ClearFaults(realm)
		same(t, "statuses", statuses(f, 1), []int{200})
	})
	t.Run("one kind and text, of one company", func(t *testing.T) {
		t.Parallel()
		f := setup(t, qbo.Options{})
		f.sim.Fail(erpsim.Rule{Op: qbo.Query, Match: "ORDERBY id"}, qbo.Fault{Kind: qbo.BadData})
		f.sim.Fail(erpsim.Rule{Company: "77"}, qbo.Fault{Kind: qbo.HTML503})
		same(t, "another kind", f.get("/companyinfo/"+realm).status, 200)
		same(t, "other text", statuses(f, 1), []int{200})
		same(t, "a match", f.query("select * from Customer OrderBy Id").status, 400)
	})
	t.Run("no token unless it says so", func(t *testing.T) {
		t.Parallel()
		f := setup(t, qbo.Options{})
		f.company.Fail(erpsim.Rule{}, qbo.Fault{Kind: qbo.HTML503})
		f.company.Fail(erpsim.Rule{Op: qbo.Token, Skip: 1}, qbo.Fault{Kind: qbo.InternalError})
		same(t, "refreshes", []int{f.renewRaw(f.refresh).status, f.renewRaw(f.refresh).status}, []int{200, 500})
	})
	t.Run("any answer there is", func(t *testing.T) {
		t.Parallel()
		f := setup(t, qbo.Options{})
		f.company.Fail(erpsim.Rule{}, qbo.Fault{Kind: qbo.Custom, Status: 418, ContentType: "text/plain", Body: "tea"})
		a := f.get("/customer/1")
		same(t, "answer", []any{a.status, a.header.Get("Content-Type"), a.body}, []any{418, "text/plain", "tea"})
	})
}

func TestCutAnswersAreNoWholeAnswers(t *testing.T) {
	t.Parallel()
	f := setup(t, qbo.Options{})
	f.company.Import(50)
	for _, kind := range []qbo.FaultKind{qbo.Truncated, qbo.Drop, qbo.LoseReply} {
		// Longer than the one retry of a client that found its idle connection closed.
		f.company.Fail(erpsim.Rule{Times: 3}, qbo.Fault{Kind: kind})
		if a := f.query("select * from Customer"); a.err == nil {
			t.Errorf("%s: %d, %d bytes", kind, a.status, len(a.body))
		}
		f.sim.ClearFaults("")
	}
}

func TestSlowAndHungAnswersEndWithTheClient(t *testing.T) {
	t.Parallel()
	f := setup(t, qbo.Options{})
	f.company.Fail(erpsim.Rule{}, qbo.Fault{Kind: qbo.Slow, Delay: time.Millisecond})
	same(t, "slow", f.get("/companyinfo/"+realm).status, 200)
	for _, fault := range []qbo.Fault{{Kind: qbo.Hang}, {Kind: qbo.HTML503, Delay: time.Hour}} {
		ctx, cancel := context.WithCancel(t.Context())
		f.sim.Before(func(erpsim.Request) { cancel() })
		f.company.Fail(erpsim.Rule{}, fault)
		r, _ := http.NewRequestWithContext(ctx, "GET", f.url+"/v3/company/"+realm+"/customer/1", nil)
		resp, err := http.DefaultClient.Do(r)
		if err == nil {
			_ = resp.Body.Close()
			t.Errorf("%s: answered %d", fault.Kind, resp.StatusCode)
		}
	}
}

func TestLimitsThrottle(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		o    qbo.Options
		step time.Duration // between requests
		want []int
		wait time.Duration // and it goes on
	}{
		"per second": {qbo.Options{PerSecond: 2}, 0, []int{200, 200, 429}, time.Second},
		"per minute": {qbo.Options{PerMinute: 2}, 10 * time.Second, []int{200, 200, 429}, 30 * time.Second},
		"per month":  {qbo.Options{PerMonth: 2}, time.Minute, []int{200, 200, 429, 429}, 30 * 24 * time.Hour},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			f := setup(t, c.o)
			var got []int
			for range c.want {
				got = append(got, f.get("/companyinfo/"+realm).status)
				f.clock.forward(c.step)
			}
			same(t, "statuses", got, c.want)
			f.clock.forward(c.wait)
			f.renew(f.refresh) // is not counted
			same(t, "later", f.get("/companyinfo/"+realm).status, 200)
		})
	}
}

func TestTenRequestsInFlightAreEnough(t *testing.T) {
	t.Parallel()
	f := setup(t, qbo.Options{})
	var arrived sync.WaitGroup
	arrived.Add(11)
	f.sim.Before(func(erpsim.Request) {
		arrived.Done()
		arrived.Wait()
	})
	// Those that are let in stay in.
	f.company.Fail(erpsim.Rule{Match: "customer/1", Times: 10}, qbo.Fault{Kind: qbo.Hang})
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	refused := make(chan int, 11)
	for range 11 {
		go func() {
			r, _ := http.NewRequestWithContext(ctx, "GET", f.url+"/v3/company/"+realm+"/customer/1", nil)
			r.Header.Set("Authorization", "Bearer "+f.access)
			resp, err := http.DefaultClient.Do(r)
			if err != nil {
				return
			}
			defer func() { _ = resp.Body.Close() }()
			_, _ = io.Copy(io.Discard, resp.Body)
			refused <- resp.StatusCode
		}()
	}
	same(t, "the eleventh", <-refused, 429)
	same(t, "peak", f.sim.Peak(), 11)
}

func TestNothingCanBeWritten(t *testing.T) {
	t.Parallel()
	f := setup(t, qbo.Options{})
	f.join("Amber")
	before := f.company.Customers()
	base := "/v3/company/" + realm
	for _, w := range []struct{ method, path string }{
		{"POST", base + "/customer"}, {"POST", base + "/customer?operation=update"}, {"PUT", base + "/customer/1"},
		{"DELETE", base + "/customer/1"}, {"POST", base + "/batch"}, {"PATCH", base + "/query"}, {"POST", "/v2/anything"},
	} {
		if a := f.do(w.method, w.path, `{"DisplayName":"Written"}`); a.status < 400 {
			t.Errorf("%s %s: %d", w.method, w.path, a.status)
		}
	}
	same(t, "violations", len(f.sim.Violations()), 7)
	same(t, "customers", f.company.Customers(), before)
	f.do("POST", base+"/query", "select * from Customer", "Content-Type", "application/text")
	same(t, "violations after a POST that reads", len(f.sim.Violations()), 7)
}

func TestLogTellsEachRequest(t *testing.T) {
	t.Parallel()
	f := setup(t, qbo.Options{})
	f.query("select * from Customer")
	f.query("select count(*) from Customer")
	f.get("/customer/5")
	f.get("/companyinfo/" + realm)
	f.get("/cdc?entities=Customer&changedSince=" + url.QueryEscape("2026-03-01T00:00:00Z"))
	var got []string
	for _, r := range f.sim.Log().Requests(nil) {
		got = append(got, strings.Join([]string{r.Op, r.Method, strings.TrimPrefix(r.Path, "/v3/company/"+realm), r.Statement,
			http.StatusText(r.Status), r.Company}, "|"))
	}
	same(t, "log", strings.Join(got, "\n"), strings.Join([]string{
		"token|POST|/oauth2/v1/tokens/bearer||OK|" + realm,
		"query|GET|/query|select * from Customer|OK|" + realm,
		"count|GET|/query|select count(*) from Customer|OK|" + realm,
		"read|GET|/customer/5||Bad Request|" + realm,
		"companyinfo|GET|/companyinfo/" + realm + "||OK|" + realm,
		"other|GET|/cdc||Bad Request|" + realm,
	}, "\n"))
	f.sim.Log().Reset()
	same(t, "after a reset", f.sim.Log().Count("", ""), 0)
}

package quickbooks_test

import (
	"context"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/centime/contactsync/internal/connector"
	"github.com/centime/contactsync/internal/erpsim"
	"github.com/centime/contactsync/internal/erpsim/qbo"
)

// TestEachFaultHasItsKind: what can be done about each failure, in each form it comes in.
func TestEachFaultHasItsKind(t *testing.T) {
	t.Parallel()
	for kind, want := range map[qbo.FaultKind]connector.ErrorKind{
		qbo.ThrottleXML: connector.Throttled, qbo.ThrottleJSON: connector.Throttled, qbo.ThrottleGateway: connector.Throttled,
		qbo.RootFault: connector.Transient, qbo.QueryFault: connector.Transient, qbo.XMLFault: connector.Transient,
		qbo.InternalError: connector.Transient, qbo.HTML503: connector.Transient, qbo.Empty502: connector.Transient,
		qbo.Truncated: connector.Transient, qbo.NotJSON: connector.Transient, qbo.Drop: connector.Transient,
		qbo.UnknownRequest: connector.Rejected, qbo.UserLost: connector.Denied, qbo.Forbidden: connector.Denied,
		qbo.Suspended: connector.Denied, qbo.ExpiredToken: connector.Denied, qbo.ExpiredTokenXML: connector.Denied,
	} {
		t.Run(string(kind), func(t *testing.T) {
			t.Parallel()
			f := newFar(t, qbo.Options{})
			f.company.BulkLoad(3, 1)
			f.sim.Fail(erpsim.Rule{Times: erpsim.Forever}, qbo.Fault{Kind: kind})
			for page, err := range f.source().Pull(t.Context(), connector.Pull{}) {
				if err == nil && len(page.Customers)+len(page.Bad) == 0 && page.End == nil {
					continue // tried again with fewer rows
				}
				if err == nil {
					t.Fatalf("a page: %+v", page)
				}
				if connector.KindOf(err) != want {
					t.Errorf("%s: %v", connector.KindOf(err), err)
				}
				if strings.Contains(err.Error(), "select") || strings.Contains(err.Error(), f.tokens.login.AccessToken) {
					t.Errorf("says too much: %v", err)
				}
			}
		})
	}
}

func TestThrottledSaysHowLong(t *testing.T) {
	t.Parallel()
	for header, want := range map[string]time.Duration{"7": 7 * time.Second, "": time.Minute} {
		f := newFar(t, qbo.Options{})
		f.sim.Fail(erpsim.Rule{}, qbo.Fault{Kind: qbo.ThrottleXML, RetryAfter: header})
		_, err := f.source().Check(t.Context())
		e, ok := err.(*connector.Error) //nolint:errorlint // the source returns it bare
		if !ok || e.RetryAfter < want || e.RetryAfter > want+10*time.Second {
			t.Errorf("%q: %v", header, err)
		}
	}
}

// TestRefreshOutcomes: a new token, the same token, refused, no answer.
func TestRefreshOutcomes(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		options qbo.Options
		fault   qbo.FaultKind
		rotated bool
		kind    connector.ErrorKind
	}{
		"New":       {options: qbo.Options{RotateAfter: -1}, rotated: true},
		"Same":      {},
		"Refused":   {fault: qbo.InvalidGrant, kind: connector.Denied},
		"RefusedB":  {fault: qbo.InvalidGrantMock, kind: connector.Denied},
		"RefusedC":  {fault: qbo.InvalidGrantLong, kind: connector.Denied},
		"Outage":    {fault: qbo.HTML503, kind: connector.Transient},
		"Empty":     {fault: qbo.Empty502, kind: connector.Transient},
		"Lost":      {fault: qbo.LoseReply, kind: connector.Transient},
		"Cut":       {fault: qbo.Truncated, kind: connector.Transient},
		"Garbage":   {fault: qbo.NotJSON, kind: connector.Transient},
		"Throttled": {fault: qbo.ThrottleXML, kind: connector.Throttled},
		"Client":    {fault: qbo.InvalidClient, kind: connector.Misconfigured},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			f := newFar(t, c.options)
			if c.fault != "" {
				f.sim.Fail(erpsim.Rule{Op: qbo.Token}, qbo.Fault{Kind: c.fault})
			}
			before := f.tokens.login
			after, err := online("secret").Renew(t.Context(), connector.Account{TokenURL: f.tokens.url}, before)
			if connector.KindOf(err) != c.kind {
				t.Fatalf("%s: %v", connector.KindOf(err), err)
			}
			if err != nil {
				if strings.Contains(err.Error(), before.RefreshToken) {
					t.Errorf("the token is in the error")
				}
				if n := f.sim.Log().Count("", qbo.Token); n != 1 {
					t.Errorf("%d token requests: a refused token must not be sent twice", n)
				}
				return
			}
			rotated := after.RefreshToken != before.RefreshToken
			if rotated != c.rotated || after.AccessToken == "" || after.ExpiresAt == nil ||
				after.RefreshExpiresAt == nil || after.RefreshEndsAt == nil {
				t.Errorf("rotated %v, ends %v %v", rotated, after.RefreshExpiresAt, after.RefreshEndsAt)
			}
		})
	}
}

// TestSpoiltRowsLoseNothing: whatever a row is like, the others arrive and it is accounted for.
func TestSpoiltRowsLoseNothing(t *testing.T) {
	t.Parallel()
	f := newFar(t, qbo.Options{})
	ids := f.company.Import(20)
	page := func() (all connector.Page) {
		t.Helper()
		for page, err := range f.source().Pull(t.Context(), connector.Pull{}) {
			if err != nil {
				t.Fatal(err)
			}
			all.Customers = append(all.Customers, page.Customers...)
			all.Bad = append(all.Bad, page.Bad...)
			all.End = page.End
		}
		return all
	}
	for field, value := range map[string]string{
		"DisplayName": `7`, "PrimaryEmailAddr": `"bare"`, "PrimaryPhone": `{"FreeFormNumber":[1]}`, "Active": `"yes"`,
		"MetaData": `[]`, "ParentRef": `null`, "Unknown": `{"deep":[1,{"x":null}]}`,
	} {
		if err := f.company.SpoilField(ids[0], field, value); err != nil {
			t.Fatal(err)
		}
		got := page()
		want := 20
		if field == "Active" {
			want = 19 // refused: nobody guesses who left
		}
		if len(got.Customers) != want {
			t.Errorf("%s = %s: %d customers", field, value, len(got.Customers))
		}
		if bad := len(got.Bad) > 0; bad == (field == "Unknown" || field == "ParentRef") {
			t.Errorf("%s = %s: %+v", field, value, got.Bad)
		}
		if err := f.company.Heal(ids[0]); err != nil {
			t.Fatal(err)
		}
	}
	if err := f.company.SpoilField(ids[1], "Id", `null`); err != nil {
		t.Fatal(err)
	}
	got := page()
	if len(got.Customers) != 19 || len(got.Bad) != 1 || got.Bad[0].Key.ID != "" || len(got.End.Listed) != 0 {
		t.Errorf("a missing id: %d customers, %+v, listed %v", len(got.Customers), got.Bad, got.End.Listed)
	}
}

// TestCursorsOfOthersExpire: a cursor of another version is answered by listing everything, not by a guess.
func TestCursorsOfOthersExpire(t *testing.T) {
	t.Parallel()
	f := newFar(t, qbo.Options{})
	for _, c := range []connector.Pull{{Since: "x"}, {Since: `{"v":99}`}, {Resume: `{"v":1}`}, {Since: `{"v":1}`}} {
		for _, err := range f.source().Pull(t.Context(), c) {
			if connector.KindOf(err) != connector.Expired {
				t.Errorf("%+v: %v", c, err)
			}
		}
	}
}

// TestNothingIsWritten guards rule 1 over everything a Source does.
func TestNothingIsWritten(t *testing.T) {
	t.Parallel()
	f := newFar(t, qbo.Options{})
	ids := f.company.Import(1200)
	_, _, end := f.read("", nil)
	f.read(end.Cursor, nil)
	if _, err := f.source().Lookup(t.Context(), []connector.Key{{Kind: connector.Customers, ID: ids[0]}}); err != nil {
		t.Fatal(err)
	}
	if _, err := f.source().Check(t.Context()); err != nil {
		t.Fatal(err)
	}
	if v := f.sim.Violations(); len(v) != 0 {
		t.Errorf("%+v", v)
	}
}

// TestRefreshTokenIsNotForwarded: a redirected token request is no answer, and the token goes nowhere else.
func TestRefreshTokenIsNotForwarded(t *testing.T) {
	t.Parallel()
	elsewhere := httptest.NewServer(http.HandlerFunc(func(http.ResponseWriter, *http.Request) {
		t.Error("the refresh token was sent elsewhere")
	}))
	t.Cleanup(elsewhere.Close)
	moved := httptest.NewServer(http.RedirectHandler(elsewhere.URL, http.StatusTemporaryRedirect))
	t.Cleanup(moved.Close)
	_, err := online("secret").Renew(t.Context(), connector.Account{TokenURL: moved.URL}, connector.Credentials{RefreshToken: "RT1-x"})
	if connector.KindOf(err) != connector.Transient {
		t.Errorf("%v", err)
	}
}

// TestTokensGoTheAccountsWay: what carries an account's data requests, with its deadlines and its traces, carries the renewals too.
func TestTokensGoTheAccountsWay(t *testing.T) {
	t.Parallel()
	f := newFar(t, qbo.Options{})
	carried := 0
	way := carrier(func(r *http.Request) (*http.Response, error) {
		carried++
		return http.DefaultTransport.RoundTrip(r)
	})
	_, err := online("secret").Renew(t.Context(), connector.Account{TokenURL: f.tokens.url, Transport: way}, f.tokens.login)
	if err != nil || carried != 1 {
		t.Errorf("%d requests were carried, %v", carried, err)
	}
}

type carrier func(*http.Request) (*http.Response, error)

func (c carrier) RoundTrip(r *http.Request) (*http.Response, error) { return c(r) }

// TestRenewalOfNothing: without a refresh token only a person can help, and a shutdown is nobody's fault.
func TestRenewalOfNothing(t *testing.T) {
	t.Parallel()
	_, err := online("secret").Renew(t.Context(), connector.Account{}, connector.Credentials{})
	if connector.KindOf(err) != connector.Denied {
		t.Errorf("%v", err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	f := newFar(t, qbo.Options{})
	if _, err := online("secret").Renew(ctx, connector.Account{TokenURL: f.tokens.url}, f.tokens.login); connector.KindOf(err) != "" {
		t.Errorf("%v", err)
	}
}

// TestRefusedPagesAreNarrowed guards that one bad record never fails a run: the service refuses each page that
// holds it, and all others arrive. Should it be had after all once it is alone, it arrives too.
func TestRefusedPagesAreNarrowed(t *testing.T) {
	t.Parallel()
	for _, kind := range []qbo.FaultKind{qbo.BadData, qbo.InternalError} {
		f := newFar(t, qbo.Options{})
		f.company.BulkLoad(2500, 4)
		// The simulator refuses requests, not rows: ten in a row are a page of 1000 narrowed down to its first row, and it is asked for twice.
		f.sim.Fail(erpsim.Rule{Op: qbo.Query, Match: "select * ", Skip: 1, Times: 11}, qbo.Fault{Kind: kind})
		seen, _, end := f.read("", nil)
		if len(seen) != 2500 || len(end.Listed) != 1 {
			t.Errorf("%s: %d customers of 2500, listed %v", kind, len(seen), end.Listed)
		}
	}
}

// pulled reads on from where the pull before ended, in at most so many pages.
func (f *far) pulled(resume connector.Cursor, since connector.Cursor, most int) (read int, next connector.Cursor, end *connector.End, err error) {
	f.t.Helper()
	next = resume
	pages := 0
	for page, err := range f.source().Pull(f.t.Context(), connector.Pull{Since: since, Resume: resume}) {
		if err != nil {
			return read, next, nil, err
		}
		read += len(page.Customers)
		if page.End != nil {
			return read, next, page.End, nil
		}
		if pages++; pages > most {
			f.t.Fatalf("more than %d pages", most)
		}
		next = page.Next
	}
	return read, next, nil, nil
}

// TestServiceThatRefusesEveryQueryHidesNobody: no query can be processed for a while. That is true of no record: nothing is passed over,
// no pull ends, and few of the metered calls are spent; when it is over, what was not read is read. First loads of a large and of a small
// company, and changes.
func TestServiceThatRefusesEveryQueryHidesNobody(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		name          string
		kind          qbo.FaultKind
		customers     int
		skip, changed int // queries before it; customers changed for a pull of changes, 0: everything
	}{
		{"AmidALargeCompany", qbo.BadData, 2500, 1, 0},
		{"FirstLoadOfASmallOne", qbo.BadData, 50, 0, 0},
		{"Changes", qbo.BadData, 50, 0, 20},
		{"InternalErrors", qbo.InternalError, 50, 0, 20},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			f := newFar(t, qbo.Options{})
			f.company.BulkLoad(c.customers, 4)
			want, since := c.customers, connector.Cursor("")
			if c.changed > 0 {
				_, _, end := f.read("", nil)
				since = end.Cursor
				for _, old := range f.company.Customers()[:c.changed] {
					if err := f.company.Edit(old.ID, func(c *qbo.Customer) { c.Phone = "218-555-0100" }); err != nil {
						t.Fatal(err)
					}
				}
				want = c.changed
			}
			f.sim.Fail(erpsim.Rule{Op: qbo.Query, Skip: c.skip, Times: erpsim.Forever}, qbo.Fault{Kind: c.kind})
			f.sim.Fail(erpsim.Rule{Op: qbo.Count, Times: erpsim.Forever}, qbo.Fault{Kind: c.kind})
			read, resume := 0, connector.Cursor("")
			for _, most := range []int{12, 1, 1} { // retries ask for one record, and whether any query is answered
				n, next, end, err := f.pulled(resume, since, most)
				if read += n; end != nil || connector.KindOf(err) != connector.Transient || !strings.Contains(err.Error(), "no query of this company") {
					t.Fatalf("a service that refuses every query: %+v, %v", end, err)
				}
				resume = next
			}
			f.sim.ClearFaults("")
			n, _, end, err := f.pulled(resume, since, 30)
			if err != nil || end == nil || c.changed == 0 && len(end.Listed) != 1 {
				t.Fatalf("once it is over: %+v, %v", end, err)
			}
			if read += n; read != want {
				t.Errorf("%d customers were read of %d", read, want)
			}
		})
	}
}

// TestLookupEndsWithAServiceThatRefusesEveryQuery: which of the customers are there cannot be told then, and asking for each would cost
// two metered calls each.
func TestLookupEndsWithAServiceThatRefusesEveryQuery(t *testing.T) {
	t.Parallel()
	f := newFar(t, qbo.Options{})
	f.company.BulkLoad(400, 4)
	var keys []connector.Key
	for _, c := range f.company.Customers() {
		keys = append(keys, connector.Key{Kind: connector.Customers, ID: c.ID})
	}
	f.sim.Fail(erpsim.Rule{Op: qbo.Query, Times: erpsim.Forever}, qbo.Fault{Kind: qbo.BadData})
	f.sim.Fail(erpsim.Rule{Op: qbo.Count, Times: erpsim.Forever}, qbo.Fault{Kind: qbo.BadData})
	page, err := f.source().Lookup(t.Context(), keys)
	if connector.KindOf(err) != connector.Transient || len(page.Bad) != 0 {
		t.Errorf("%+v, %v", page, err)
	}
	if n := f.sim.Log().Count("", qbo.Query) + f.sim.Log().Count("", qbo.Count); n > 12 {
		t.Errorf("it took %d calls", n)
	}
}

// TestRecordsThatCannotBeReadHaveABound: each costs calls that are metered for all companies. Once one can be had, all are asked for again.
func TestRecordsThatCannotBeReadHaveABound(t *testing.T) {
	t.Parallel()
	f := newFar(t, qbo.Options{})
	f.company.BulkLoad(2500, 4)
	f.sim.Fail(erpsim.Rule{Op: qbo.Query, Match: "select * ", Skip: 1, Times: erpsim.Forever}, qbo.Fault{Kind: qbo.BadData})
	read, resume := 0, connector.Cursor("")
	for _, most := range []int{130, 20} {
		n, next, _, err := f.pulled(resume, "", most)
		if connector.KindOf(err) != connector.Transient || !strings.Contains(err.Error(), "none of 100 records in a row") {
			t.Fatalf("%v", err)
		}
		read, resume = read+n, next
	}
	f.sim.ClearFaults("")
	n, _, end, err := f.pulled(resume, "", 30)
	if err != nil || end == nil || len(end.Listed) != 1 {
		t.Fatalf("once they can be read: %+v, %v", end, err)
	}
	if read += n; read != 2500 {
		t.Errorf("%d customers were read of 2500", read)
	}
}

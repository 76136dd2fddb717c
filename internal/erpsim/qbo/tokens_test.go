package qbo_test

import (
	"strings"
	"testing"
	"time"

	"github.com/centime/contactsync/internal/erpsim"
	"github.com/centime/contactsync/internal/erpsim/qbo"
)

func TestTokenReplyIsThatOfTheSheet(t *testing.T) {
	t.Parallel()
	f := setup(t, qbo.Options{})
	_, body := f.renew(f.refresh)
	if !strings.HasPrefix(body, `{"token_type":"bearer","expires_in":3600,"access_token":"eyJlbmMi`) ||
		!strings.HasSuffix(body, `","x_refresh_token_expires_in":8726400}`) {
		t.Error(body)
	}
	_, body = f.renew(f.refresh, "x-include-refresh-token-hard-expires-in", "true")
	if !strings.Contains(body, `,"x_refresh_token_hard_expires_in":157766400}`) { // five years, one of them a leap year
		t.Error(body)
	}
}

func TestRefreshTokenStaysForADayAndThenChanges(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		old     time.Duration
		status  int // of the replaced token, an hour after
		refused int
	}{
		"the old one dies at once":       {0, 400, 1},
		"the old one lives for 24 hours": {24 * time.Hour, 200, 0},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			f := setup(t, qbo.Options{OldTokenLives: c.old})
			first := f.refresh
			f.clock.forward(23 * time.Hour)
			f.renew(first)
			same(t, "inside 24 hours", f.refresh == first, true)
			f.clock.forward(2 * time.Hour)
			f.renew(first)
			second := f.refresh
			same(t, "after 24 hours", second == first, false)
			f.clock.forward(time.Hour)
			status, body := f.renew(first)
			same(t, "the old one: "+body, status, c.status)
			same(t, "what is handed out", f.refresh == second, true)
			status, _ = f.renew(second)
			same(t, "the new one", status, 200)
			f.clock.forward(24 * time.Hour)
			status, body = f.renew(first)
			same(t, "the old one, a day later", status, 400)
			same(t, "the old one, a day later", body, `{"error":"invalid_grant"}`)
			counts := f.company.Tokens()
			same(t, "rotations, spent, refused", []int{counts.Rotations, counts.Spent, counts.Refused},
				[]int{1, 2, 1 + c.refused})
		})
	}
}

func TestLostReplyLosesTheNewToken(t *testing.T) {
	t.Parallel()
	f := setup(t, qbo.Options{RotateAfter: -1})
	f.company.Fail(erpsim.Rule{Op: qbo.Token}, qbo.Fault{Kind: qbo.LoseReply})
	if a := f.renewRaw(f.refresh); a.err == nil {
		t.Errorf("answered %d %s", a.status, a.body)
	}
	same(t, "rotations", f.company.Tokens().Rotations, 2) // setup made the first
	status, _ := f.renew(f.refresh)
	same(t, "the only token the client has", status, 400)
}

func TestRefreshTokenEnds(t *testing.T) {
	t.Parallel()
	t.Run("101 days without use", func(t *testing.T) {
		t.Parallel()
		f := setup(t, qbo.Options{})
		f.clock.forward(102 * 24 * time.Hour)
		status, _ := f.renew(f.refresh)
		same(t, "status", status, 400)
	})
	t.Run("five years with use", func(t *testing.T) {
		t.Parallel()
		f := setup(t, qbo.Options{})
		months, status := 0, 200
		for ; status == 200 && months < 100; months++ {
			f.clock.forward(30 * 24 * time.Hour)
			status, _ = f.renew(f.refresh)
		}
		same(t, "months", months, 61)
	})
	t.Run("revoked", func(t *testing.T) {
		t.Parallel()
		f := setup(t, qbo.Options{})
		f.company.Revoke()
		status, _ := f.renew(f.refresh)
		same(t, "refresh", status, 400)
		same(t, "data", f.get("/customer/1").status, 401)
		status, _ = f.renew(f.company.Connect().RefreshToken)
		same(t, "after a reconnect", status, 200)
	})
}

func TestTokenEndpointRefuses(t *testing.T) {
	t.Parallel()
	f := setup(t, qbo.Options{})
	post := func(body, user string) answer {
		header := []string{"Content-Type", "application/x-www-form-urlencoded", "Authorization", user}
		return f.do("POST", "/oauth2/v1/tokens/bearer", body, header...)
	}
	const good, bad = "Basic Y2xpZW50OnNlY3JldA==", "Basic Y2xpZW50Ondyb25n"
	for name, c := range map[string]struct {
		body, user string
		status     int
		want       string
	}{
		"wrong client":        {"grant_type=refresh_token&refresh_token=x", bad, 401, `{"error":"invalid_client"}`},
		"no client":           {"grant_type=refresh_token&refresh_token=x", "", 401, `{"error":"invalid_client"}`},
		"unknown token":       {"grant_type=refresh_token&refresh_token=x", good, 400, `{"error":"invalid_grant"}`},
		"no token":            {"grant_type=refresh_token", good, 400, `{"error":"invalid_request"}`},
		"another grant":       {"grant_type=password", good, 400, `{"error":"unsupported_grant_type"}`},
		"unknown code":        {"grant_type=authorization_code&code=x", good, 400, `{"error":"invalid_grant"}`},
		"access as a refresh": {"grant_type=refresh_token&refresh_token=" + f.access, good, 400, `{"error":"invalid_grant"}`},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			a := post(c.body, c.user)
			same(t, "answer", []any{a.status, a.body}, []any{c.status, c.want})
		})
	}
	same(t, "client in the body", post("grant_type=refresh_token&client_id=client&client_secret=secret&refresh_token="+
		f.refresh, "").status, 200)
}

func TestAccessTokenIsRefused(t *testing.T) {
	t.Parallel()
	t.Run("expired, by the gateway", func(t *testing.T) {
		t.Parallel()
		f := setup(t, qbo.Options{})
		f.clock.forward(time.Hour)
		a := f.get("/customer/1")
		same(t, "status", a.status, 401)
		same(t, "body", a.body, `{"warnings":null,"intuitObject":null,"fault":{"error":[{"message":`+
			`"message=AuthenticationFailed; errorCode=003200; statusCode=401","detail":"Token expired","code":"3200",`+
			`"element":null}],"type":"AUTHENTICATION"},"report":null,"queryResponse":null,"batchItemResponse":[],`+
			`"attachableResponse":[],"syncErrorResponse":null,"requestId":null,"time":1772478300412,"status":null,`+
			`"cdcresponse":[]}`)
	})
	t.Run("expired, in XML", func(t *testing.T) {
		t.Parallel()
		f := setup(t, qbo.Options{AuthXML: true})
		f.company.ExpireAccess()
		a := f.get("/customer/1")
		same(t, "status", a.status, 401)
		same(t, "body", a.body, `<?xml version="1.0" encoding="UTF-8" standalone="yes"?><IntuitResponse `+
			`xmlns="http://schema.intuit.com/finance/v3" time="2026-03-02T10:05:00.412-08:00"><Fault type=`+
			`"AuthenticationFault"><Error code="100"><Message>General Authentication Error</Message><Detail>`+
			`AuthenticationErrorGeneral: SRV-110-Authentication Failure , statusCode: 401</Detail></Error></Fault>`+
			`</IntuitResponse>`)
	})
	t.Run("malformed", func(t *testing.T) {
		t.Parallel()
		f := setup(t, qbo.Options{})
		f.access = "x"
		if a := f.get("/customer/1"); a.status != 401 || !strings.Contains(a.body, "Malformed bearer token: too short or") {
			t.Errorf("%d %s", a.status, a.body)
		}
	})
	t.Run("of another company", func(t *testing.T) {
		t.Parallel()
		f := setup(t, qbo.Options{})
		f.sim.AddCompany("77", "Other")
		for _, other := range []string{"77", "78"} {
			a := f.do("GET", "/v3/company/"+other+"/customer/1", "")
			if a.status != 401 || !strings.Contains(a.body, `code="100"`) {
				t.Errorf("%s: %d %s", other, a.status, a.body)
			}
		}
	})
}

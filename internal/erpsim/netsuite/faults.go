package netsuite

import (
	"bytes"
	"cmp"
	"encoding/json"
	"fmt"
	"math/rand/v2"
	"net/http"
	"slices"
	"time"

	"github.com/centime/contactsync/internal/erpsim"
)

// A FaultKind is a way in which NetSuite, or what stands before it, fails.
type FaultKind string

// The ways to fail. Those of tokens belong to requests of Op Token, those of rows to Op Query; the rest can meet any.
const (
	Slow FaultKind = "slow" // the right answer, after Fault.Delay
	Hang FaultKind = "hang" // no answer until the client leaves; nothing is done
	Drop FaultKind = "drop" // the connection is closed without an answer; nothing is done

	Throttle       FaultKind = "throttle"        // 429 CONCURRENCY_LIMIT_EXCEEDED
	ThrottleBroken FaultKind = "throttle_broken" // the same as Oracle's sample has it, which is no JSON
	ThrottleEmpty  FaultKind = "throttle_empty"  // 429 without a body

	Unexpected FaultKind = "unexpected" // 500 with an Error ID
	HTML503    FaultKind = "html_503"   // a maintenance page
	Empty502   FaultKind = "empty_502"  // no body
	NotJSON    FaultKind = "not_json"   // 200 with a page
	Truncated  FaultKind = "truncated"  // the right answer, cut in the middle
	Redirect   FaultKind = "redirect"   // 302 to the login page

	InvalidLogin FaultKind = "invalid_login" // 401 for an access token
	Forbidden    FaultKind = "forbidden"     // 403 INSUFFICIENT_PERMISSION
	BadHeader    FaultKind = "bad_header"    // 400 with no more than a challenge
	BadQuery     FaultKind = "bad_query"     // 400: the statement is said to be wrong; Fault.Body is the detail

	SilentCut FaultKind = "silent_cut" // half the rows, hasMore false, totalResults as if nothing were missing
	Repeat    FaultKind = "repeat"     // the page as if the key it begins after were the lowest there is

	InvalidRequest     FaultKind = "invalid_request"
	InvalidClient      FaultKind = "invalid_client"
	InvalidGrant       FaultKind = "invalid_grant"
	InvalidScope       FaultKind = "invalid_scope"
	UnauthorizedClient FaultKind = "unauthorized_client"
	LoseReply          FaultKind = "lose_reply" // what was asked for is done, the answer is lost

	Custom FaultKind = "custom" // Status, ContentType and Body of the Fault
)

var faultKinds = []FaultKind{
	Slow, Hang, Drop, Throttle, ThrottleBroken, ThrottleEmpty, Unexpected, HTML503, Empty502, NotJSON, Truncated, Redirect,
	InvalidLogin, Forbidden, BadHeader, BadQuery, SilentCut, Repeat, InvalidRequest, InvalidClient, InvalidGrant, InvalidScope,
	UnauthorizedClient, LoseReply, Custom,
}

func (k FaultKind) known() bool { return slices.Contains(faultKinds, k) }

// A Fault is what some requests are to meet instead of the right answer.
type Fault struct {
	Kind        FaultKind     `json:"kind"`
	RetryAfter  string        `json:"retry_after,omitempty"` // the header, of throttles; empty: none
	Delay       time.Duration `json:"-"`                     // to wait before answering; of any kind
	Status      int           `json:"status,omitempty"`      // Custom only, as is the next
	ContentType string        `json:"content_type,omitempty"`
	Body        string        `json:"body,omitempty"`
}

const maintenancePage = "<html>\r\n<head><title>Scheduled Maintenance</title></head>\r\n<body>\r\n<h1>NetSuite is " +
	"unavailable</h1>\r\n<p>This service is undergoing scheduled maintenance.</p>\r\n</body>\r\n</html>\r\n"

// brokenThrottle is Oracle's sample, with its stray member and without its comma.
const brokenThrottle = `{"type":"https://www.w3.org/Protocols/rfc2616/rfc2616-sec10.html#sec10.4.1","title":"Bad Request",` +
	`"status":429,"o:errorCode":"USER_ERROR" "o:errorDetails":[{"detail":"Concurrent request limit exceeded. Request blocked.",` +
	`"o:errorCode":"CONCURRENCY_LIMIT_EXCEEDED"}]}`

// spoilt is the answer to a request that meets a fault. right gives the right answer, and does what is asked for.
func (f Fault) spoilt(c call, right func() reply) reply {
	r := f.instead(c, right)
	r.delay = f.Delay
	r.retryAfter = cmp.Or(f.RetryAfter, r.retryAfter)
	return r
}

func (f Fault) instead(c call, right func() reply) reply {
	account := c.account
	if account == nil {
		return right()
	}
	switch f.Kind {
	case Hang:
		return reply{hang: true}
	case Drop:
		return reply{drop: true}
	case LoseReply:
		right()
		return reply{drop: true}
	case Truncated:
		r := right()
		r.cut = true
		return r
	case Throttle:
		return tooMany.reply()
	case ThrottleBroken:
		return reply{status: http.StatusTooManyRequests, kind: errorType, body: []byte(brokenThrottle)}
	case ThrottleEmpty:
		return reply{status: http.StatusTooManyRequests}
	case Unexpected:
		return unexpected().reply()
	case HTML503:
		return reply{status: http.StatusServiceUnavailable, kind: htmlType, body: []byte(maintenancePage)}
	case Empty502:
		return reply{status: http.StatusBadGateway}
	case NotJSON:
		return reply{status: http.StatusOK, kind: htmlType, body: []byte(maintenancePage)}
	case Redirect:
		return reply{status: http.StatusFound, location: "https://system.netsuite.com/pages/customerlogin.jsp"}
	case InvalidLogin:
		return invalidLogin(account)
	case Forbidden:
		return insufficient("REST Web Services").reply()
	case BadHeader:
		return reply{status: http.StatusBadRequest,
			challenge: fmt.Sprintf(`Bearer realm="%s", error="invalid_request", error_description="Bad request."`, account.ID)}
	case BadQuery:
		return badSearch("%s", cmp.Or(f.Body, "Invalid or unsupported search")).reply()
	case SilentCut:
		return half(right())
	case Repeat:
		return account.fromTheStart(c)
	case InvalidRequest, InvalidClient, InvalidGrant, InvalidScope, UnauthorizedClient:
		return account.refuse(string(f.Kind))
	case Custom:
		return reply{status: cmp.Or(f.Status, http.StatusOK), kind: cmp.Or(f.ContentType, jsonType), body: []byte(f.Body)}
	case Slow:
	}
	return right()
}

// refuse is a scripted refusal at the token endpoint. It counts as a failed login, as a real one does.
func (a *Account) refuse(name string) reply {
	a.logins.mu.Lock()
	defer a.logins.mu.Unlock()
	a.logins.fail()
	return tokenError(a, name)
}

// half is an answer with half of its rows that says there are no more: https://github.com/salto-io/salto/pull/6061.
func half(r reply) reply {
	var page struct {
		Links        json.RawMessage   `json:"links"`
		Count        int               `json:"count"`
		HasMore      bool              `json:"hasMore"`
		Items        []json.RawMessage `json:"items"`
		Offset       int               `json:"offset"`
		TotalResults int               `json:"totalResults"`
	}
	if err := json.Unmarshal(r.body, &page); err != nil {
		return r // an error: nothing to cut
	}
	page.Items = page.Items[:len(page.Items)/2]
	page.Count, page.HasMore = len(page.Items), false
	r.body = encode(page)
	return r
}

// Fail lets requests that a rule names meet a fault. An unknown Kind answers as Slow does.
func (s *Sim) Fail(r erpsim.Rule, f Fault) { s.script.Add(r, f) }

// Fail lets requests for this account that a rule names meet a fault.
func (a *Account) Fail(r erpsim.Rule, f Fault) {
	r.Company = a.ID
	a.script.Add(r, f)
}

// ClearFaults forgets the faults to come that were scripted for one account, or for anybody if account is empty.
func (s *Sim) ClearFaults(account string) { s.script.Clear(account) }

// A fault is what NetSuite answers instead of what was asked for: OH/section_156570709583.
type fault struct {
	status int
	code   string
	detail string
	at     string // a further member of the detail, as JSON
}

func (f *fault) Error() string { return f.code + ": " + f.detail }

func (f *fault) reply() reply {
	at := ""
	if f.at != "" {
		at = "," + f.at
	}
	return reply{status: f.status, kind: errorType, body: fmt.Appendf(nil,
		`{"type":"https://www.w3.org/Protocols/rfc2616/rfc2616-sec10.html#sec10.4.1","title":%s,"status":%d,`+
			`"o:errorDetails":[{"detail":%s%s,"o:errorCode":"%s"}]}`,
		encode(http.StatusText(f.status)), f.status, encode(f.detail), at, f.code)}
}

// The faults with fixed words.
var (
	tooMany = &fault{status: http.StatusTooManyRequests, code: "CONCURRENCY_LIMIT_EXCEEDED",
		detail: "Concurrent request limit exceeded. Request blocked."}
	nothingHere = &fault{status: http.StatusNotFound, code: "NONEXISTENT_ID", detail: "Record does not exist."}
)

func insufficient(permission string) *fault {
	return &fault{status: http.StatusForbidden, code: "INSUFFICIENT_PERMISSION",
		detail: "Permission Violation: You need a higher level of the '" + permission + "' permission to access this page."}
}

// badSearch is a 400 for a statement. The text before the detail is that of https://github.com/PostHog/posthog's tests.
func badSearch(format string, args ...any) *fault {
	return &fault{status: http.StatusBadRequest, code: "INVALID_PARAMETER", at: `"o:errorQueryParam":"q"`,
		detail: "Invalid search query. Detailed unprocessed description follows. " + fmt.Sprintf(format, args...)}
}

// unexpected is a 500. Its id is 20 letters.
func unexpected() *fault {
	id := make([]byte, 20)
	for i := range id {
		id[i] = 'a' + byte(rand.IntN(26)) //nolint:gosec // no secret
	}
	return &fault{status: http.StatusInternalServerError, code: "UNEXPECTED_ERROR",
		detail: "An unexpected error occurred. Error ID: " + string(id)}
}

func invalidLogin(a *Account) reply {
	f := &fault{status: http.StatusUnauthorized, code: "INVALID_LOGIN", detail: "Invalid login attempt. For more details, see " +
		"the Login Audit Trail in the NetSuite UI at Setup > Users/Roles > User Management > View Login Audit Trail."}
	r := f.reply()
	r.challenge = fmt.Sprintf(`Bearer realm="%s", error="invalid_token", error_description="Invalid login attempt."`, a.ID)
	return r
}

// encode is v in JSON; "&" stands for itself.
func encode(v any) []byte {
	var b bytes.Buffer
	e := json.NewEncoder(&b)
	e.SetEscapeHTML(false)
	if err := e.Encode(v); err != nil {
		panic(fmt.Errorf("encode %T: %w", v, err)) // no value of ours can fail
	}
	return bytes.TrimSuffix(b.Bytes(), []byte("\n"))
}

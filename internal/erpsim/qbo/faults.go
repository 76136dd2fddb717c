package qbo

import (
	"cmp"
	"net/http"
	"slices"
	"sync"
	"time"

	"github.com/centime/contactsync/internal/erpsim"
)

// A FaultKind is a way in which QuickBooks Online, or what stands before it, fails.
type FaultKind string

// The ways to fail. Those of tokens belong to requests of Op Token, those inside a QueryResponse to Op Query; the rest
// can meet any.
const (
	Slow FaultKind = "slow" // the right answer, after Fault.Delay
	Hang FaultKind = "hang" // no answer until the client leaves; nothing is done
	Drop FaultKind = "drop" // the connection is closed without an answer; nothing is done

	ThrottleXML     FaultKind = "throttle_xml"     // 429, code 3001, in XML whatever was asked for
	ThrottleJSON    FaultKind = "throttle_json"    // the same in JSON, as the accounting service writes it
	ThrottleGateway FaultKind = "throttle_gateway" // the same in JSON, as the gateway writes it

	RootFault      FaultKind = "root_fault"      // 200 with a Fault, code 10000
	QueryFault     FaultKind = "query_fault"     // 200 with a Fault inside QueryResponse
	XMLFault       FaultKind = "xml_fault"       // 500, code 10000, in XML whatever was asked for
	InternalError  FaultKind = "internal_error"  // 500, code 10000
	BadData        FaultKind = "bad_data"        // 400, code 4002: a record of the company cannot be processed
	HTML503        FaultKind = "html_503"        // a load balancer's page
	Empty502       FaultKind = "empty_502"       // no body
	Truncated      FaultKind = "truncated"       // the right answer, cut in the middle
	NotJSON        FaultKind = "not_json"        // 200 with a page
	UnknownRequest FaultKind = "unknown_request" // 400, code 500: our request is wrong

	ExpiredToken    FaultKind = "expired_token"     // 401, code 3200, as the gateway writes it
	ExpiredTokenXML FaultKind = "expired_token_xml" // 401, code 100, in XML
	UserLost        FaultKind = "user_lost"         // 401, code 120: the user may not see this company any more
	Forbidden       FaultKind = "forbidden"         // 403, code 3100: the app may not, or is of the sandbox
	Suspended       FaultKind = "suspended"         // 400, code 6190: the subscription ended

	InvalidGrant     FaultKind = "invalid_grant"      // without a description
	InvalidGrantMock FaultKind = "invalid_grant_mock" // "Token invalid"
	InvalidGrantLong FaultKind = "invalid_grant_long" // "Incorrect or invalid refresh token"
	InvalidClient    FaultKind = "invalid_client"
	LoseReply        FaultKind = "lose_reply" // what was asked for is done, the answer is lost

	Custom FaultKind = "custom" // Status, ContentType and Body of the Fault
)

var faultKinds = []FaultKind{
	Slow, Hang, Drop, ThrottleXML, ThrottleJSON, ThrottleGateway, RootFault, QueryFault, XMLFault, InternalError, BadData,
	HTML503, Empty502, Truncated, NotJSON, UnknownRequest, ExpiredToken, ExpiredTokenXML, UserLost, Forbidden, Suspended,
	InvalidGrant, InvalidGrantMock, InvalidGrantLong, InvalidClient, LoseReply, Custom,
}

func (k FaultKind) known() bool { return slices.Contains(faultKinds, k) }

// A Fault is what some requests are to meet instead of the right answer.
type Fault struct {
	Kind        FaultKind     `json:"kind"`
	RetryAfter  string        `json:"retry_after,omitempty"` // the header, of throttles; empty: none
	Delay       time.Duration `json:"-"`                     // to wait before answering; of any kind
	Status      int           `json:"status,omitempty"`      // Custom only, as are the next two
	ContentType string        `json:"content_type,omitempty"`
	Body        string        `json:"body,omitempty"`
}

const maintenancePage = "<html>\r\n<head><title>503 Service Temporarily Unavailable</title></head>\r\n<body>\r\n" +
	"<center><h1>503 Service Temporarily Unavailable</h1></center>\r\n<hr><center>nginx</center>\r\n</body>\r\n</html>\r\n"

// spoilt is the answer to a request that meets a fault. right gives the right answer, and does what is asked for.
func (f Fault) spoilt(at time.Time, right func() reply) reply {
	r := f.instead(at, right)
	r.delay = f.Delay
	if f.RetryAfter != "" {
		r.retryAfter = f.RetryAfter
	}
	return r
}

func (f Fault) instead(at time.Time, right func() reply) reply {
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
	case ThrottleXML:
		return throttled.xml(at)
	case ThrottleJSON:
		return throttled.json(at)
	case ThrottleGateway:
		return throttled.gateway(at)
	case RootFault:
		return reply{status: http.StatusOK, kind: jsonType, body: internalError.formA(at)}
	case QueryFault:
		return reply{status: http.StatusOK, kind: jsonType, body: internalError.inside(at)}
	case XMLFault:
		return internalError.xml(at)
	case InternalError:
		return internalError.json(at)
	case BadData:
		return badData.json(at)
	case UnknownRequest:
		return unsupported.json(at)
	case HTML503:
		return reply{status: http.StatusServiceUnavailable, kind: htmlType, body: []byte(maintenancePage)}
	case Empty502:
		return reply{status: http.StatusBadGateway}
	case NotJSON:
		return reply{status: http.StatusOK, kind: htmlType, body: []byte("<html><body>Sign in</body></html>")}
	case ExpiredToken:
		return refusedToken("Token expired").gateway(at)
	case ExpiredTokenXML:
		return wrongAuth.xml(at)
	case UserLost:
		return userLost.xml(at)
	case Forbidden:
		return forbidden.gateway(at)
	case Suspended:
		return suspended.json(at)
	case InvalidGrant:
		return reply{status: http.StatusBadRequest, kind: jsonType, body: []byte(bareGrantError)}
	case InvalidGrantMock:
		return reply{status: http.StatusBadRequest, kind: jsonType, body: []byte(mockGrantError)}
	case InvalidGrantLong:
		return reply{status: http.StatusBadRequest, kind: jsonType, body: []byte(longGrantError)}
	case InvalidClient:
		return reply{status: http.StatusUnauthorized, kind: jsonType, body: []byte(clientError)}
	case Custom:
		return reply{status: cmp.Or(f.Status, http.StatusOK), kind: cmp.Or(f.ContentType, jsonType), body: []byte(f.Body)}
	case Slow:
	}
	return right()
}

// Fail lets requests that a rule names meet a fault. An unknown Kind answers as Slow does.
func (s *Sim) Fail(r erpsim.Rule, f Fault) { s.script.Add(r, f) }

// Fail lets requests for this company that a rule names meet a fault.
func (c *Company) Fail(r erpsim.Rule, f Fault) {
	r.Company = c.Realm
	c.script.Add(r, f)
}

// ClearFaults forgets the faults to come that were scripted for one company, or for anybody if realm is empty.
func (s *Sim) ClearFaults(realm string) { s.script.Clear(realm) }

// limits count requests for data against what Intuit allows:
// https://developer.intuit.com/app/developer/qbo/docs/learn/limits-and-throttles.
type limits struct {
	o        Options
	mu       sync.Mutex
	admitted map[string][]time.Time // by realm, those of the last minute
	inFlight map[string]int
	peak     int // the most in flight at one company
	month    time.Time
	metered  int // in that month, of all companies
}

// enter admits a request, or not. Each entered one leaves, admitted or not.
func (l *limits) enter(realm string, now time.Time) (admitted bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.inFlight[realm]++
	l.peak = max(l.peak, l.inFlight[realm])
	if most := cmp.Or(l.o.InFlight, 10); most > 0 && l.inFlight[realm] > most {
		return false
	}
	if l.o.PerSecond > 0 || l.o.PerMinute > 0 {
		recent := slices.DeleteFunc(l.admitted[realm], func(t time.Time) bool { return now.Sub(t) >= time.Minute })
		l.admitted[realm] = recent
		inSecond := 0
		for _, t := range recent {
			if now.Sub(t) < time.Second {
				inSecond++
			}
		}
		if l.o.PerSecond > 0 && inSecond >= l.o.PerSecond || l.o.PerMinute > 0 && len(recent) >= l.o.PerMinute {
			return false
		}
	}
	year, m, _ := now.UTC().Date()
	if month := time.Date(year, m, 1, 0, 0, 0, 0, time.UTC); !month.Equal(l.month) {
		l.month, l.metered = month, 0
	}
	if l.o.PerMonth > 0 && l.metered >= l.o.PerMonth {
		return false
	}
	l.metered++
	if l.o.PerSecond > 0 || l.o.PerMinute > 0 {
		l.admitted[realm] = append(l.admitted[realm], now)
	}
	return true
}

func (l *limits) leave(realm string) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.inFlight[realm]--
}

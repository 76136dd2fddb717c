package online

import (
	"bytes"
	"cmp"
	"encoding/json"
	"encoding/xml"
	"errors"
	"fmt"
	"math/rand/v2"
	"net/http"
	"strconv"
	"strings"
	"time"
	"unicode"

	"github.com/centime/contactsync/internal/connector"
	"github.com/centime/contactsync/internal/erphttp"
)

// throttled is Intuit's instruction; a Retry-After header is not documented, and honoured if there.
const throttled = 60 * time.Second

func throttleWait(r erphttp.Reply) time.Duration {
	if wait := r.RetryAfter(); wait > 0 {
		return wait
	}
	return throttled + rand.N(10*time.Second) //nolint:gosec // jitter
}

// fault is an error as the service, the gateway and the XML form give it. encoding/json matches keys without case, so
// one struct reads the first two. Its type says nothing that the codes do not.
type fault struct {
	Errors []faultError `json:"error" xml:"Error"`
}

type faultError struct {
	Code    code         `json:"code" xml:"code,attr"`
	Message erphttp.Text `json:"message" xml:"-"`
	Plain   string       `json:"-" xml:"Message"`
}

// code compares as a number: it comes with leading zeros, as a string and as a number.
type code string

func (c *code) UnmarshalJSON(b []byte) error {
	*c = code(strings.Trim(string(b), `"`))
	return nil
}

func (c code) number() int {
	n, err := strconv.Atoi(string(c))
	if err != nil {
		return 0
	}
	return n
}

// faultIn finds a fault in a body of any form; nil if there is none.
func faultIn(body []byte) *fault {
	body = bytes.TrimSpace(body)
	if bytes.HasPrefix(body, []byte("<")) {
		var x struct {
			Fault *fault `xml:"Fault"`
		}
		if xml.Unmarshal(body, &x) == nil {
			return x.Fault
		}
		return nil
	}
	if !bytes.Contains(body, []byte(`"Fault"`)) && !bytes.Contains(body, []byte(`"fault"`)) {
		return nil // spares a page of customers a second reading: in a value the quotes are escaped
	}
	var j struct {
		Fault         *fault
		QueryResponse struct{ Fault *fault }
	}
	// A field of an odd type leaves the others read, so the error is of no interest here.
	_ = json.Unmarshal(body, &j)
	if j.Fault != nil {
		return j.Fault
	}
	return j.QueryResponse.Fault
}

// first is the code and Message of a fault, which is Intuit's own wording. Detail can quote data and is never used;
// should a Message quote an address, neither is that.
func (f *fault) first() (number int, message string) {
	if f == nil || len(f.Errors) == 0 {
		return 0, ""
	}
	e := f.Errors[0]
	message = cmp.Or(e.Message.Value, e.Plain)
	if strings.Contains(message, "@") {
		message = ""
	}
	return e.Code.number(), short(message)
}

// short keeps the start of a text, what can be printed of it.
func short(s string) string {
	s = strings.Map(func(r rune) rune {
		if !unicode.IsPrint(r) {
			return -1
		}
		return r
	}, s)
	if len(s) > 80 {
		s = s[:80]
	}
	return strings.ToValidUTF8(strings.TrimSpace(s), "")
}

// errUnreadableRow is the cause of a fault 4002, and may be that of 10000, which a smaller page tells: the service could not render a
// row of its own.
var errUnreadableRow = errors.New("one of the company's own records cannot be read by QuickBooks")

// unreadableReason is the connector.Bad.Reason of such a row.
const unreadableReason = "unreadable_for_quickbooks"

// judge says what an answer means: nil if it may be read as data. Status comes first, then the body, since a fault can
// stand in a 200 and outages answer in HTML.
func judge(step string, r erphttp.Reply) error {
	f := faultIn(r.Body)
	if r.Status == http.StatusOK && f == nil {
		if b := bytes.TrimSpace(r.Body); len(b) == 0 || b[0] != '{' {
			return &connector.Error{Kind: connector.Transient, Step: step, Message: "200 without JSON", Trace: trace(r)}
		}
		return nil
	}
	number, message := f.first()
	e := &connector.Error{Step: step, Trace: trace(r), Message: strings.TrimSpace(fmt.Sprintf("%d %s", r.Status, message))}
	if number != 0 {
		e.Message += fmt.Sprintf(" (%d)", number)
	}
	e.Kind, e.Hint = meaning(r.Status, number)
	switch {
	case r.Status == http.StatusForbidden && f == nil:
		// QuickBooks' own 403 carries a fault (section 8 of the fact sheet): this is a proxy's or a firewall's page. Of a 401 the sheet says
		// to take any body.
		e.Kind, e.Hint = connector.Transient, ""
	case e.Kind == connector.Throttled:
		e.RetryAfter = throttleWait(r)
	case e.Kind == connector.Rejected && number == 4002, e.Kind == connector.Transient && number == 10000:
		e.Err = errUnreadableRow
	}
	return e
}

func trace(r erphttp.Reply) string { return short(r.Header.Get("intuit_tid")) }

const reconnect = "Have the customer connect QuickBooks again, then store the new token: " +
	"syncctl connection credentials."

// meaning of a status and a fault code:
// https://developer.intuit.com/app/developer/qbo/docs/develop/troubleshooting/error-codes
func meaning(status, number int) (connector.ErrorKind, string) {
	switch {
	case status == http.StatusTooManyRequests || number == 3001:
		return connector.Throttled, ""
	case number == 120:
		return connector.Denied, "The QuickBooks user who connected has lost access to this company. " + reconnect
	case number == 100:
		return connector.Denied, "QuickBooks does not take this login for this company: check the realm id, and that sandbox and production (api_url) " +
			"are not mixed. If they are right, the login has ended. " + reconnect
	case status == http.StatusUnauthorized || number == 3200:
		return connector.Denied, "QuickBooks does not take this connection's login any more. " + reconnect
	case status == http.StatusForbidden || number == 3100:
		return connector.Denied, "The app may not read this company: check the realm id, and that sandbox and production " +
			"are not mixed. " + reconnect
	case number == 6190:
		return connector.Denied, "The company's QuickBooks subscription has ended or is suspended: " +
			"the customer renews it with Intuit."
	case status >= http.StatusInternalServerError || number == 10000:
		return connector.Transient, ""
	case status == http.StatusOK && number == 0:
		return connector.Transient, ""
	case status == http.StatusRequestTimeout:
		return connector.Transient, ""
	}
	return connector.Rejected, "This is a fault of the program or of the setting api_url: report it with the trace."
}

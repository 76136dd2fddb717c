package suiteql

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"math/rand/v2"
	"net/http"
	"regexp"
	"slices"
	"strings"
	"time"

	"github.com/centime/contactsync/internal/connector"
	"github.com/centime/contactsync/internal/erphttp"
)

// throttled is how long to wait where NetSuite does not say: a place among the requests at once is soon free again.
const throttled = 20 * time.Second

func throttleWait(r erphttp.Reply) time.Duration {
	if wait := r.RetryAfter(); wait > 0 {
		return wait
	}
	return throttled + rand.N(10*time.Second) //nolint:gosec // jitter
}

// A fault is what NetSuite said instead of an answer: OH/section_156570709583. It prints nothing of the detail, which
// may quote a record.
type fault struct {
	status int
	code   string
	detail string
	json   bool // the body is an object
}

func (f *fault) Error() string { return f.code }

// faultIn reads an error's body; title and type vary and say nothing more.
func faultIn(r erphttp.Reply) *fault {
	f := &fault{status: r.Status}
	var body struct {
		Details []struct {
			Detail erphttp.Text `json:"detail"`
			Code   erphttp.Text `json:"o:errorCode"`
		} `json:"o:errorDetails"`
	}
	if json.Unmarshal(r.Body, &body) != nil {
		return f
	}
	f.json = true
	var details []string
	for _, d := range body.Details {
		details = append(details, d.Detail.Value)
		if f.code == "" && properCode.MatchString(d.Code.Value) {
			f.code = d.Code.Value
		}
	}
	f.detail = strings.Join(details, "\n")
	return f
}

var (
	properCode = regexp.MustCompile(`^[A-Z_]{1,60}$`)
	errorID    = regexp.MustCompile(`Error ID: ([A-Za-z0-9]{8,40})`)
	quoted     = regexp.MustCompile(`'([A-Za-z_.]+)'`)
)

// about is what of the detail may be shown: the table or column of ours that it names.
func (f *fault) about() string {
	for _, m := range quoted.FindAllStringSubmatch(f.detail, -1) {
		name := strings.ToLower(m[1])
		for _, t := range tables {
			if name == t.name {
				return name
			}
			for _, c := range t.columns {
				if name == c.name || name == t.alias+"."+c.name {
					return name
				}
			}
		}
	}
	return ""
}

// aboutStatement says whether an error may come of a table or column that this login cannot read.
func aboutStatement(err error) bool {
	f, ok := errors.AsType[*fault](err)
	if !ok {
		return false
	}
	if unexpected(err) {
		return true
	}
	if f.status != http.StatusBadRequest {
		return false
	}
	switch f.code {
	case "INVALID_PARAMETER", "USER_ERROR", "NONEXISTENT_FIELD":
		return true
	}
	// Which code these texts come with is not known for certain.
	return slices.ContainsFunc([]string{"Invalid search query", "Unknown identifier", "Invalid or unsupported search"}, func(text string) bool {
		return strings.Contains(f.detail, text)
	})
}

// unexpected is NetSuite's own failure, by which it also answers some columns it does not have.
func unexpected(err error) bool {
	f, ok := errors.AsType[*fault](err)
	return ok && f.status == http.StatusInternalServerError && f.code == "UNEXPECTED_ERROR"
}

// forbidden is NetSuite's own word that the role may not: an object, as all its errors are (section 8 of the fact sheet).
func (f *fault) forbidden() bool {
	return f.status == http.StatusForbidden && f.json
}

// judge says what an answer means: nil if it may be read as data. Status comes first, since maintenance answers in
// HTML.
func judge(step string, r erphttp.Reply) error {
	if r.Status == http.StatusOK {
		if b := bytes.TrimSpace(r.Body); len(b) == 0 || b[0] != '{' {
			return &connector.Error{Kind: connector.Transient, Step: step, Message: "200 without JSON"}
		}
		return nil
	}
	f := faultIn(r)
	e := &connector.Error{Step: step, Message: strings.TrimSpace(fmt.Sprintf("%d %s", r.Status, f.code))}
	if about := f.about(); about != "" {
		e.Message += fmt.Sprintf(" about %s", about)
	}
	if id := errorID.FindStringSubmatch(f.detail); id != nil {
		e.Trace = id[1]
	}
	switch {
	case r.Status == http.StatusTooManyRequests:
		e.Kind, e.RetryAfter = connector.Throttled, throttleWait(r)
	case r.Status == http.StatusUnauthorized:
		e.Kind, e.NoTrial = connector.Denied, true
		e.Hint = "NetSuite gives a token and does not take it. Look into Setup > Users/Roles > View Login Audit " +
			"Trail: mostly the user or the role is inactive, or the role lacks Log in using OAuth 2.0 Access Tokens or " +
			"REST Web Services (tab Setup, level Full)."
	case f.forbidden():
		e.Kind, e.Hint = connector.Denied, permissionHint(f.detail)
	case r.Status == http.StatusForbidden: // a proxy's or a firewall's page
		e.Kind = connector.Transient
	case r.Status == http.StatusNotFound:
		e.Kind, e.Hint = connector.Denied, checkAccount
	case r.Status >= http.StatusInternalServerError, r.Status == http.StatusRequestTimeout:
		e.Kind = connector.Transient
	case r.Status < http.StatusBadRequest:
		// A redirect leads to a login page, and is not followed.
		e.Kind = connector.Transient
	default:
		e.Kind = connector.Rejected
		e.Hint = "This is a fault of the program, of the setting api_url, or of what the role may read: `syncctl " +
			"connection check` tells the last; else report it with the time of the run."
	}
	return &judged{e, f}
}

// judged keeps the fault beside what is made of it, and reads as that.
type judged struct {
	told  *connector.Error
	fault *fault
}

func (j *judged) Error() string   { return j.told.Error() }
func (j *judged) Unwrap() []error { return []error{j.told, j.fault} }

const checkAccount = "Check the account id: it is part of the host's name, and stands in NetSuite under Setup > " +
	"Company > Company Information."

// permissionHint names the permission that a refusal names, if it is one of those that this connector needs.
func permissionHint(detail string) string {
	for _, p := range []struct{ name, tab, level string }{
		{"REST Web Services", "Setup", "Full"}, {"Log in using OAuth 2.0 Access Tokens", "Setup", "Full"},
		{"SuiteAnalytics Workbook", "Reports", "Edit"}, {"Deleted Records", "Setup", "View"}, {"Customers", "Lists", "View"},
		{"Contacts", "Lists", "View"},
	} {
		if strings.Contains(detail, p.name) {
			return fmt.Sprintf("In NetSuite, give the integration's role the permission %s (tab %s, level %s).",
				p.name, p.tab, p.level)
		}
	}
	return "In NetSuite, give the integration's role the permissions REST Web Services (tab Setup, level Full), " +
		"Log in using OAuth 2.0 Access Tokens (Setup, Full) and SuiteAnalytics Workbook (Reports, Edit)."
}

func unreadable(step string) error {
	return &connector.Error{
		Kind: connector.Transient, Step: step, Message: "200 with a body that is not whole or not the answer asked for",
	}
}

package suiteql

import (
	"errors"
	"fmt"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/centime/contactsync/internal/connector"
	"github.com/centime/contactsync/internal/erphttp"
)

// TestAnswersSayWhatCanBeDone: every answer has one meaning, in words that quote no record.
func TestAnswersSayWhatCanBeDone(t *testing.T) {
	t.Parallel()
	const person = "quoted.person@quoted.example"
	fault := func(status int, code, detail string) string {
		return fmt.Sprintf(`{"type":"https://www.rfc-editor.org/rfc/rfc9110.html#section-15.5.6","title":["%s"],"status":%d,`+
			`"o:errorDetails":[{"detail":%q,"o:errorCode":%q}]}`, person, status, detail, code)
	}
	search := "Invalid search query. Detailed unprocessed description follows. Search error occurred: "
	for name, c := range map[string]struct {
		status    int
		body      string
		kind      connector.ErrorKind
		noTrial   bool
		statement bool   // it may be about a table or column
		message   string // part of it
		hint      string // part of it
	}{
		"NoTable": {400, fault(400, "INVALID_PARAMETER", search+"Record 'contactrole' was not found. "+person), connector.Rejected, false, true,
			"400 INVALID_PARAMETER", "connection check"},
		"NoColumn": {400, fault(400, "INVALID_PARAMETER", search+"Field 'fax' for record 'customer' was not found."), connector.Rejected, false, true,
			"400 INVALID_PARAMETER about fax", "connection check"},
		"NoCode": {400, fault(400, "", search+"Record 'deletedrecord' was not found."), connector.Rejected, false, true, "400 about deletedrecord", "connection check"},
		"Second": {
			400, `{"o:errorDetails":[{"detail":"` + person + `"},{"detail":"Unknown identifier 'fax'","o:errorCode":"ODD_CODE"}]}`, connector.Rejected,
			false, true, "400 ODD_CODE about fax", "",
		},
		"NotOurs":  {400, fault(400, "NONEXISTENT_FIELD", "Unknown identifier 'thorne'"), connector.Rejected, false, true, "400 NONEXISTENT_FIELD", ""},
		"Syntax":   {400, fault(400, "USER_ERROR", "Failed to parse SQL ["+person+"]"), connector.Rejected, false, true, "400 USER_ERROR", ""},
		"Request":  {400, fault(400, "INVALID_REQUEST", person), connector.Rejected, false, false, "400 INVALID_REQUEST", "report it"},
		"Content":  {400, fault(400, "INVALID_CONTENT", person), connector.Rejected, false, false, "400 INVALID_CONTENT", "report it"},
		"Header":   {400, "", connector.Rejected, false, false, "400", "report it"},
		"OddCode":  {400, fault(400, person, person), connector.Rejected, false, false, "400", ""},
		"Login":    {401, fault(401, "INVALID_LOGIN", "Invalid login attempt."), connector.Denied, true, false, "401 INVALID_LOGIN", "Audit Trail"},
		"Named":    {403, fault(403, "INSUFFICIENT_PERMISSION", "the 'Deleted Records' permission"), connector.Denied, false, false, "403", "Deleted Records (tab Setup, level View)"},
		"Proxy":    {403, "<html>Access denied</html>", connector.Transient, false, false, "403", ""},
		"Terse":    {403, `{"title":"Forbidden","status":403}`, connector.Denied, false, false, "403", ""},
		"Bare":     {403, "", connector.Transient, false, false, "403", ""},
		"Unnamed":  {403, fault(403, "INSUFFICIENT_PERMISSION", person), connector.Denied, false, false, "403", "REST Web Services (tab Setup, level Full)"},
		"NotFound": {404, fault(404, "NONEXISTENT_ID", "Record does not exist."), connector.Denied, false, false, "404", "Check the account id"},
		"HTML404":  {404, "<html>" + person, connector.Denied, false, false, "404", "Check the account id"},
		"Method":   {405, fault(405, "INVALID_METHOD", person), connector.Rejected, false, false, "405 INVALID_METHOD", ""},
		"TooMany":  {429, fault(429, "CONCURRENCY_LIMIT_EXCEEDED", "Request blocked."), connector.Throttled, false, false, "429", ""},
		"Broken": {429, `{"o:errorCode":"USER_ERROR" "o:errorDetails":[{"detail":"` + person + `"}]}`, connector.Throttled, false, false,
			"429", ""},
		"Empty429":    {429, "", connector.Throttled, false, false, "429", ""},
		"Unexpected":  {500, fault(500, "UNEXPECTED_ERROR", "An unexpected error occurred. Error ID: abcdefghijklmnopqrst"), connector.Transient, false, true, "(trace abcdefghijklmnopqrst)", ""},
		"HTML500":     {500, "<html>" + person, connector.Transient, false, false, "500", ""},
		"Maintenance": {503, "<html>" + person, connector.Transient, false, false, "503", ""},
		"Empty":       {502, "", connector.Transient, false, false, "502", ""},
		"Redirect":    {302, "", connector.Transient, false, false, "302", ""},
		"Page":        {200, "<html>" + person, connector.Transient, false, false, "200 without JSON", ""},
		"Nothing":     {200, "", connector.Transient, false, false, "200 without JSON", ""},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			err := fmt.Errorf("pull: %w", judge("list customers", erphttp.Reply{Status: c.status, Body: []byte(c.body)}))
			e, ok := errors.AsType[*connector.Error](err)
			if !ok {
				t.Fatalf("%v is no connector.Error", err)
			}
			if e.Kind != c.kind || e.NoTrial != c.noTrial || aboutStatement(err) != c.statement {
				t.Errorf("kind %s, no trial %t, about the statement %t", e.Kind, e.NoTrial, aboutStatement(err))
			}
			if !strings.Contains(err.Error(), c.message) || !strings.Contains(e.Hint, c.hint) || e.Kind == connector.Denied && e.Hint == "" {
				t.Errorf("%v (%s), want %q (%q)", err, e.Hint, c.message, c.hint)
			}
			for _, secret := range []string{person, "thorne"} {
				if strings.Contains(err.Error()+e.Hint, secret) {
					t.Errorf("a record is quoted: %v", err)
				}
			}
			if e.Kind == connector.Throttled && e.RetryAfter < throttled {
				t.Errorf("waits %s", e.RetryAfter)
			}
		})
	}
	told := judge("", erphttp.Reply{Status: 429, Header: http.Header{"Retry-After": {"9"}}})
	if e, _ := errors.AsType[*connector.Error](told); e == nil || e.RetryAfter != 9*time.Second {
		t.Errorf("told to wait 9 s: %v", told)
	}
	if err := judge("", erphttp.Reply{Status: 200, Body: []byte(" {}")}); err != nil {
		t.Error(err)
	}
}

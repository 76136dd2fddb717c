package connector

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"
)

// ErrorKind says what can be done about an error, not what went wrong.
type ErrorKind string

// The kinds of error. What each does to a run is in package syncing.
const (
	Transient     ErrorKind = "transient"     // try again later; also every error of unknown origin
	Throttled     ErrorKind = "throttled"     // try again after RetryAfter
	Denied        ErrorKind = "denied"        // a person must act on this connection
	Rejected      ErrorKind = "rejected"      // our request is wrong: a retry cannot help
	Expired       ErrorKind = "expired"       // the cursor is too old or of another version: begin again in full
	Misconfigured ErrorKind = "misconfigured" // a person must act on this installation
)

// Error is a failure of an ERP. Message and Hint are shown to people and kept in the database, so they hold no personal
// data, no secret and no text of a record.
type Error struct {
	Kind       ErrorKind
	Step       string        // what was being done: "query customers"
	Message    string        // what the ERP answered, in a few words: "429 ThrottleExceeded (3001)"
	Hint       string        // what the reader does about it, a sentence; empty if nobody needs to act
	RetryAfter time.Duration // Throttled: how long to wait
	Trace      string        // the ERP's id of the request, for its support
	// NoTrial: a login was refused by an ERP that locks a user after a few of those. Nobody logs in again until a person has
	// given new credentials or asks for it.
	NoTrial bool
	Err     error
}

// Error reads as a path: step, message, trace, cause.
func (e *Error) Error() string {
	parts := make([]string, 0, 3)
	for _, p := range []string{e.Step, e.Message} {
		if p != "" {
			parts = append(parts, p)
		}
	}
	if e.Err != nil {
		parts = append(parts, e.Err.Error())
	}
	s := strings.Join(parts, ": ")
	if e.Trace != "" {
		s += fmt.Sprintf(" (trace %s)", e.Trace)
	}
	return s
}

// Unwrap returns the cause.
func (e *Error) Unwrap() error { return e.Err }

// KindOf is the kind of an error: Transient unless an Error in its chain says otherwise. It is empty for nil and for
// the caller's own cancelled context.
func KindOf(err error) ErrorKind {
	if err == nil || errors.Is(err, context.Canceled) {
		return ""
	}
	if e, ok := errors.AsType[*Error](err); ok && e.Kind != "" {
		return e.Kind
	}
	return Transient
}

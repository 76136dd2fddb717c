package connector_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"testing"
	"time"

	"github.com/centime/contactsync/internal/connector"
)

// What is done about an error depends on its kind alone, however often it was wrapped on its way.
func TestKindOf(t *testing.T) {
	t.Parallel()
	denied := &connector.Error{Kind: connector.Denied, Step: "query customers"}
	stopped, cancel := context.WithCancel(context.Background())
	cancel()
	late, release := context.WithDeadline(context.Background(), time.Unix(0, 0))
	defer release()
	for _, c := range []struct {
		name string
		err  error
		want connector.ErrorKind
	}{
		{"nil", nil, ""},
		{"an error of unknown origin", io.ErrUnexpectedEOF, connector.Transient},
		{"each kind", &connector.Error{Kind: connector.Throttled}, connector.Throttled},
		{"wrapped", fmt.Errorf("run 7: %w", fmt.Errorf("pull: %w", denied)), connector.Denied},
		{"joined", errors.Join(io.EOF, denied), connector.Denied},
		{"the outer of two", &connector.Error{Kind: connector.Expired, Err: denied}, connector.Expired},
		{"cancelled", fmt.Errorf("pull: %w", stopped.Err()), ""},
		{"cancelled inside", &connector.Error{Kind: connector.Transient, Err: context.Canceled}, ""},
		{"too late", fmt.Errorf("pull: %w", late.Err()), connector.Transient},
	} {
		if got := connector.KindOf(c.err); got != c.want {
			t.Errorf("%s: the kind is %q, want %q", c.name, got, c.want)
		}
	}
}

// An error reads as a path with what is known of it, and its cause can be asked for.
func TestErrorText(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		err  connector.Error
		want string
	}{
		{connector.Error{Step: "query customers"}, "query customers"},
		{connector.Error{Message: "503"}, "503"},
		{connector.Error{Step: "query customers", Message: "429 ThrottleExceeded (3001)", RetryAfter: time.Minute},
			"query customers: 429 ThrottleExceeded (3001)"},
		{connector.Error{Step: "query customers", Err: io.ErrUnexpectedEOF}, "query customers: unexpected EOF"},
		{connector.Error{Step: "query customers", Message: "500", Trace: "1-2f", Hint: "wait", Err: io.EOF},
			"query customers: 500: EOF (trace 1-2f)"},
	} {
		if got := c.err.Error(); got != c.want {
			t.Errorf("the error reads %q, want %q", got, c.want)
		}
		if !errors.Is(&c.err, c.err.Err) && c.err.Err != nil {
			t.Errorf("%q hides its cause", c.want)
		}
	}
}

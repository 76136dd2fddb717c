package cli_test

import (
	"bytes"
	"errors"
	"io"
	"strings"
	"testing"

	"github.com/centime/contactsync/internal/cli"
	"github.com/centime/contactsync/internal/connector"
)

// An ERP that is added among the connectors is offered, also where the environment is not right yet.
func TestHelpNamesTheERPs(t *testing.T) {
	t.Parallel()
	var out bytes.Buffer
	exit := cli.Run(t.Context(), cli.Setup{
		Connectors: func() (map[string]connector.Connector, error) {
			return map[string]connector.Connector{"books-two": nil, "books-one": nil}, errors.New("the environment is not right")
		},
		Stdout: &out, Stderr: io.Discard,
	}, []string{"connection", "add", "--help"})
	if exit != 0 || !strings.Contains(out.String(), "books-one or books-two.") {
		t.Errorf("exit status %d\n%s", exit, &out)
	}
}

package cli

import (
	"os"

	"golang.org/x/term"

	"github.com/centime/contactsync/internal/postgres"
)

// columns is the width of the terminal.
func (a *app) columns() int {
	if a.TerminalColumns > 0 {
		return a.TerminalColumns
	}
	if f, ok := a.Stdout.(*os.File); ok {
		if width, _, err := term.GetSize(int(f.Fd())); err == nil && width > 20 {
			return width - 1
		}
	}
	return 119
}

type issueCmds struct {
	List issueListCmd `cmd:"" help:"List open issues."`
}

type issueListCmd struct {
	page
	Connection string `help:"Only of this connection."`
}

func (issueListCmd) Help() string { return "Example: syncctl issue list --connection 'Northern Kelp'" }

func (c issueListCmd) Run(a *app) error {
	filters, err := a.connectionFilter(c.Connection)
	if err != nil {
		return err
	}
	return a.list("issues", postgres.Issues, c.page, filters,
		"issue_id", "connection_id", "record_kind", "record_erp_id", "field", "reason", "count", "opened_at", "opened_by_run_id")
}

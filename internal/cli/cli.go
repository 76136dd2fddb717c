// Package cli is syncctl, ops' command line: straight on Postgres, with the ERPs' connectors for checking credentials.
package cli

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"maps"
	"os"
	"os/user"
	"slices"
	"strings"

	"github.com/alecthomas/kong"
	"golang.org/x/term"

	"github.com/centime/contactsync/internal/connector"
	"github.com/centime/contactsync/internal/credentials"
	"github.com/centime/contactsync/internal/postgres"
)

// Exit statuses.
const (
	done      = 0
	failed    = 1
	usage     = 2
	attention = 3 // held, or a connection needs attention
)

// Setup is what syncctl runs on; cmd/syncctl fills it from the environment. Each part is asked for when a command needs it.
type Setup struct {
	DatabaseURL     func() (string, error)
	MigrationsURL   func() (string, error)
	Ring            func() (*credentials.Ring, error)
	RingIfSet       func() (*credentials.Ring, error) // nil without an error where there is none
	RedisURLIfSet   func() (string, error)
	Connectors      func() (map[string]connector.Connector, error) // all of them even with an error: --help names them
	Allowances      func() (map[string]int64, error)               // metered calls a month, by ERP
	Stdin           io.Reader
	Stdout, Stderr  io.Writer
	LoginName       string
	PollsPerSecond  int // how often --wait looks; 0: 4
	ClaimPatience   int // seconds until --wait says that no worker has claimed the run; 0: 10
	TerminalColumns int // 0: asks the terminal
}

type commands struct {
	JSON   bool   `help:"Print one JSON document."`
	As     string `help:"Who does this; default: your login name." placeholder:"NAME"`
	Reason string `help:"Why; kept with what is changed." placeholder:"TEXT"`

	Status     statusCmd     `cmd:"" help:"What needs a person, the worst first, each with the command to type."`
	Doctor     doctorCmd     `cmd:"" help:"What is wrong with the installation, each with what to do."`
	Migrate    migrateCmd    `cmd:"" help:"Bring the database's schema to this program's version."`
	Key        keyCmds       `cmd:"" help:"Keys that credentials are sealed with."`
	Tenant     tenantCmds    `cmd:"" help:"Companies that use Centime."`
	Connection connectionCmd `cmd:"" help:"Links of tenants to ERP companies."`
	Resync     resyncCmd     `cmd:"" help:"Queue runs now."`
	Run        runCmds       `cmd:"" help:"Executions of a sync."`
	Hold       holdCmds      `cmd:"" help:"What would go and stays until a person decides."`
	Issue      issueCmds     `cmd:"" help:"What is wrong with records, now."`
	Role       roleCmds      `cmd:"" help:"Roles and the mail they get."`
	Contact    contactCmds   `cmd:"" help:"Contacts at customers, and which mail they get."`
}

// app is one execution.
type app struct {
	Setup
	ctx   context.Context //nolint:containedctx // one command, one context
	out   printer
	by    postgres.By
	store *postgres.Store
	worst int
}

// Run executes one command line and returns its exit status.
func Run(ctx context.Context, setup Setup, args []string) int {
	var c commands
	exit := -1
	parser, err := kong.New(&c,
		kong.Name("syncctl"),
		kong.Description("Ops' command line of contactsync. It needs DATABASE_URL; `syncctl COMMAND --help` shows an example of each command."),
		kong.Writers(setup.Stdout, setup.Stderr),
		kong.Exit(func(code int) { exit = code }),
		kong.UsageOnError(),
		kong.Vars{"erps": strings.Join(setup.erps(), " or ")},
		kong.ConfigureHelp(kong.HelpOptions{Compact: true, WrapUpperBound: 110}),
	)
	if err != nil {
		fmt.Fprintf(setup.Stderr, "syncctl: %v\n", err)
		return failed
	}
	a := &app{Setup: setup, ctx: ctx, out: newPrinter(setup, wantsJSON(args))}
	parsed, err := parser.Parse(args)
	if exit >= 0 { // --help
		return exit
	}
	if err != nil {
		a.out.fail(&badUsage{err.Error() + "; see syncctl --help"})
		return usage
	}
	a.by = postgres.By{User: c.As, Reason: c.Reason}
	if a.by.User == "" {
		a.by.User = setup.LoginName
	}
	defer func() {
		if a.store != nil {
			_ = a.store.Close()
		}
	}()
	if err := parsed.Run(a); err != nil {
		a.out.fail(err)
		if _, bad := errors.AsType[*badUsage](err); bad {
			return usage
		}
		return failed
	}
	return a.worst
}

func wantsJSON(args []string) bool {
	for _, arg := range args {
		if arg == "--json" || arg == "--json=true" {
			return true
		}
	}
	return false
}

// LoginName is who runs this process.
func LoginName() string {
	if u, err := user.Current(); err == nil && u.Username != "" {
		return u.Username
	}
	return "unknown"
}

// badUsage is a command line that cannot be carried out as it stands.
type badUsage struct{ text string }

func (b *badUsage) Error() string { return b.text }

// Misuse marks an error as one of the environment or the arguments: exit status 2.
func Misuse(err error) error { return &badUsage{err.Error()} }

func misuse(format string, args ...any) error { return &badUsage{fmt.Sprintf(format, args...)} }

// outcome keeps the worst exit status: 1, then 3, then 0.
func (a *app) outcome(status int) {
	if a.worst == failed || status == done {
		return
	}
	a.worst = status
}

// db opens the store, and refuses a schema this program does not know.
func (a *app) db() (*postgres.Store, error) {
	if a.store != nil {
		return a.store, nil
	}
	url, err := a.DatabaseURL()
	if err != nil {
		return nil, err
	}
	store, err := postgres.Open(url, 4)
	if err != nil {
		return nil, err
	}
	if err := store.CheckSchema(a.ctx); err != nil {
		_ = store.Close()
		return nil, err
	}
	a.store = store
	return store, nil
}

// erps are the names of the ERPs there are.
func (s Setup) erps() []string {
	if s.Connectors == nil {
		return nil
	}
	all, _ := s.Connectors() // whatever is wrong with the environment, the command that needs it says so
	return slices.Sorted(maps.Keys(all))
}

// connector of an ERP.
func (a *app) connector(erp string) (connector.Connector, error) {
	all, err := a.Connectors()
	if err != nil {
		return nil, err
	}
	c, ok := all[erp]
	if !ok {
		return nil, misuse("there is no ERP %q: use one of %s", erp, strings.Join(a.erps(), ", "))
	}
	return c, nil
}

// confirm asks a question on a terminal; without one, --yes is needed.
func (a *app) confirm(question string, yes bool) error {
	if yes {
		return nil
	}
	in, ok := a.Stdin.(*os.File)
	if !ok || !term.IsTerminal(int(in.Fd())) {
		return misuse("%s: say --yes", question)
	}
	fmt.Fprintf(a.Stderr, "%s [y/N] ", question)
	answer, _ := bufio.NewReader(a.Stdin).ReadString('\n')
	if !strings.EqualFold(strings.TrimSpace(answer), "y") {
		return errors.New("not done: you did not say y")
	}
	return nil
}

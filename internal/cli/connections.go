package cli

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/centime/contactsync/internal/connector"
	"github.com/centime/contactsync/internal/credentials"
	"github.com/centime/contactsync/internal/postgres"
	"github.com/centime/contactsync/internal/schedule"
	"github.com/centime/contactsync/internal/settings"
)

type migrateCmd struct{}

func (migrateCmd) Help() string {
	return "Example: MIGRATIONS_DATABASE_URL=postgres://owner@db:5432/contactsync?sslmode=verify-full syncctl migrate"
}

func (migrateCmd) Run(a *app) error {
	url, err := a.MigrationsURL()
	if err != nil {
		return err
	}
	if err := postgres.Migrate(a.ctx, url); err != nil {
		return err
	}
	a.out.say(map[string]any{"migrated": true}, "The schema is up to date.")
	return nil
}

type keyCmds struct {
	New    keyNewCmd    `cmd:"" help:"Make a key for CREDENTIALS_KEY."`
	Reseal keyResealCmd `cmd:"" help:"Seal all credentials with the first key of CREDENTIALS_KEY."`
}

type keyNewCmd struct{}

func (keyNewCmd) Help() string {
	return "Put the new key behind the others: CREDENTIALS_KEY=\"$CREDENTIALS_KEY,$(syncctl key new)\", and restart all workers with it. " +
		"Once all know it, move it to the front, which seals, and restart them again; then `syncctl key reseal`. After that the old keys can go."
}

func (keyNewCmd) Run(a *app) error {
	key := credentials.NewKey()
	a.out.say(map[string]any{"key": key}, "%s", key)
	return nil
}

type keyResealCmd struct{}

func (keyResealCmd) Help() string { return "Example: syncctl key reseal" }

func (keyResealCmd) Run(a *app) error {
	store, err := a.db()
	if err != nil {
		return err
	}
	ring, err := a.Ring()
	if err != nil {
		return err
	}
	sealed, err := store.Sealed(a.ctx, ring.Primary())
	if err != nil {
		return err
	}
	for _, s := range sealed {
		about := place(s.Tenant, s.Connection)
		err := store.Vault(s.Tenant, s.Connection).Reseal(a.ctx, func(was credentials.Stored) (credentials.Stored, error) {
			open, err := ring.Unpack(was, about)
			if err != nil {
				return credentials.Stored{}, err
			}
			return ring.Pack(open, about)
		})
		if err != nil && !errors.Is(err, credentials.ErrNone) {
			return fmt.Errorf("connection %d: %w", s.Connection, err)
		}
	}
	a.out.say(map[string]any{"resealed": len(sealed)}, "Sealed %d credentials with key %s.", len(sealed), ring.Primary())
	return nil
}

func place(tenant, connection int64) credentials.Place {
	return credentials.Place{Table: "credentials", Tenant: tenant, Connection: connection}
}

type tenantCmds struct {
	Add  tenantAddCmd  `cmd:"" help:"Add a tenant."`
	List tenantListCmd `cmd:"" help:"List tenants."`

	Remove tenantRemoveCmd `cmd:"" help:"End access and mail of all its connections; with --purge erase all its data."`
}

type tenantAddCmd struct {
	Name     string `arg:"" help:"Its name."`
	TimeZone string `help:"IANA time zone of its days." default:"UTC"`
}

func (tenantAddCmd) Help() string {
	return "Example: syncctl tenant add 'Northern Kelp' --time-zone America/Chicago"
}

func (c tenantAddCmd) Run(a *app) error {
	store, err := a.db()
	if err != nil {
		return err
	}
	id, err := store.AddTenant(a.ctx, c.Name, c.TimeZone, a.by)
	if err != nil {
		return err
	}
	a.out.say(map[string]any{"tenant_id": fmt.Sprint(id)}, "Tenant %d: %s", id, c.Name)
	return nil
}

type page struct {
	Limit  int `help:"How many rows at most." default:"100"`
	Offset int `help:"How many rows to pass over."`
}

// next is the offset of the following page, if there may be one.
func (p page) next(rows postgres.Rows) string {
	if p.Limit > 0 && len(rows.Values) == p.Limit {
		return fmt.Sprint(p.Offset + p.Limit)
	}
	return ""
}

type tenantListCmd struct{ page }

func (tenantListCmd) Help() string { return "Example: syncctl tenant list --json" }

func (c tenantListCmd) Run(a *app) error {
	return a.list("tenants", postgres.Tenants, c.page, nil, "tenant_id", "name", "time_zone", "roles", "created_at")
}

// list reads a page of a listing and prints it.
func (a *app) list(name string, l postgres.Listing, p page, filters []postgres.Filter, people ...string) error {
	store, err := a.db()
	if err != nil {
		return err
	}
	rows, err := store.List(a.ctx, l, p.Limit, p.Offset, filters...)
	if err != nil {
		return err
	}
	a.out.list(name, rows, p.next(rows), people...)
	return nil
}

type connectionCmd struct {
	Add         connectionAddCmd         `cmd:"" help:"Connect an ERP company: checks the credentials and queues the first full run."`
	List        connectionListCmd        `cmd:"" help:"List connections and how they are."`
	Show        connectionShowCmd        `cmd:"" help:"Show one connection."`
	Check       connectionCheckCmd       `cmd:"" help:"Ask the ERP whose company the credentials open."`
	Pause       connectionPauseCmd       `cmd:"" help:"Stop all runs of a connection, at the next page; its contacts stay and get mail."`
	Resume      connectionResumeCmd      `cmd:"" help:"Go on after a pause, or try one that needs attention at once."`
	Set         connectionSetCmd         `cmd:"" help:"Change name, schedule, auto_sync or settings."`
	Credentials connectionCredentialsCmd `cmd:"" help:"Replace the credentials and try at once."`
	Remove      connectionRemoveCmd      `cmd:"" help:"End access and mail, destroy the credentials; with --purge erase all its data."`
}

type connectionAddCmd struct {
	Tenant      string   `required:"" help:"Tenant, by id or name."`
	ERP         string   `required:"" name:"erp" help:"${erps}."`
	Account     string   `required:"" help:"The ERP's own id of the company: the QuickBooks realm id, the NetSuite account id such as 1234567_SB1."`
	Name        string   `help:"Its name here; default: the company's name in the ERP."`
	Schedule    string   `help:"'@every 1h', 'off', or five cron fields with CRON_TZ=ZONE before them." default:"@every 1h"`
	Set         []string `help:"A setting, key=value; may be repeated." sep:"none"`
	Paused      bool     `help:"Do not run yet."`
	Credentials string   `required:"" help:"File with the credentials as JSON; - reads standard input."`
}

func (connectionAddCmd) Help() string {
	return "Example: syncctl connection add --tenant 'Northern Kelp' --erp quickbooks-online --account 9130350000000001 --credentials kelp.json\n\n" +
		"kelp.json holds {\"refresh_token\": \"…\"} for QuickBooks Online, and for NetSuite {\"client_id\": \"…\", \"certificate_id\": \"…\", " +
		"\"private_key\": \"-----BEGIN PRIVATE KEY-----\\n…\"}, where \"certificate\" (PEM) or \"certificate_expires_at\" lets people be told " +
		"60 days before the certificate ends."
}

func (c connectionAddCmd) Run(a *app) error {
	erp, err := a.connector(c.ERP)
	if err != nil {
		return err
	}
	stored, err := settings.Map{}.Change(c.Set)
	if err != nil {
		return misuse("%v", err)
	}
	set, err := settings.Read(stored)
	if err != nil {
		return misuse("%v", err)
	}
	if _, err := schedule.Parse(c.Schedule); err != nil {
		return misuse("%v", err)
	}
	login, err := readCredentials(a.Stdin, c.Credentials)
	if err != nil {
		return err
	}
	if err := erp.Validate(c.Account, login); err != nil {
		return misuse("%v", err)
	}
	store, err := a.db()
	if err != nil {
		return err
	}
	ring, err := a.Ring()
	if err != nil {
		return err
	}
	tenant, err := store.FindTenant(a.ctx, c.Tenant)
	if err != nil {
		return err
	}
	account := connector.Account{ID: c.Account, APIURL: set.APIURL, TokenURL: set.TokenURL}
	old, err := store.ConnectionOf(a.ctx, tenant, c.ERP, c.Account)
	if err != nil {
		return err
	}
	same, err := a.isStored(store, ring, tenant, old, login)
	if err != nil {
		return err
	}
	seal := func(id int64) (credentials.Stored, error) { return ring.Pack(login, place(tenant, id)) }
	var check connector.Check
	var renewed bool
	var checkErr error
	if same {
		seal = nil
		if check, err = a.ask(store, ring, erp, account, tenant, old); err == nil {
			err = lackingRights(check.Rights)
		}
		if err != nil {
			return fmt.Errorf("nothing was changed. This is the login that connection %d has already, and its check failed: %w", old, err)
		}
	} else {
		login, check, renewed, checkErr = a.prove(ring, erp, account, login, place(tenant, 0))
	}
	if checkErr != nil && !renewed {
		return fmt.Errorf("nothing was added: %w", checkErr)
	}
	name := c.Name
	if name == "" {
		name = check.Company
	}
	if name == "" {
		name = c.Account
	}
	storing, end := a.sure(renewed)
	defer end()
	added, err := store.AddConnection(storing, postgres.NewConnection{
		Tenant: tenant, ERP: c.ERP, Account: c.Account, Name: name, Schedule: c.Schedule, Settings: stored, Paused: c.Paused || checkErr != nil,
		Unproven: checkErr != nil, Seal: seal,
	}, a.by)
	if errors.Is(err, postgres.ErrLoginKept) {
		return loginKept(checkErr)
	}
	if err != nil {
		return err
	}
	if checkErr != nil {
		return fmt.Errorf("connection %d was added paused, since its token was renewed and must not be lost; its check failed: %w",
			added.Connection, checkErr)
	}
	fields := map[string]any{"connection_id": fmt.Sprint(added.Connection), "company": check.Company, "name": name, "known": added.Known}
	text := fmt.Sprintf("Connection %d: %s (%s)", added.Connection, name, erp.Label())
	if added.Known {
		text += ", known from before, with its contacts and choices"
	}
	if same {
		text += "\nThis is the login that is stored already; it stays as it is."
	}
	if added.Run != 0 {
		fields["run_id"] = fmt.Sprint(added.Run)
		text += fmt.Sprintf("\nFirst full run %d is queued: syncctl run watch %d", added.Run, added.Run)
	}
	a.out.say(fields, "%s", text)
	return nil
}

func loginKept(cause error) error {
	return fmt.Errorf("nothing was changed: the connection keeps the login it has. The token that was given was renewed by the try and is of no "+
		"more use: once this is mended, authorise again: %w", cause)
}

// sure is a context to store a login in: a token that was renewed is stored although Ctrl-C came meanwhile, and although a worker that
// renews the old one keeps its row for a while.
func (a *app) sure(renewed bool) (context.Context, context.CancelFunc) {
	if !renewed {
		return a.ctx, func() {}
	}
	return context.WithTimeout(context.WithoutCancel(a.ctx), 40*time.Second)
}

// isStored says whether a login is the one that a connection has: its token is then renewed through the vault alone, since a renewal beside it
// may end the stored token. A login that no key here opens is taken for another one.
func (a *app) isStored(store *postgres.Store, ring *credentials.Ring, tenant, connection int64, given connector.Credentials) (bool, error) {
	if connection == 0 || given.RefreshToken == "" {
		return false, nil
	}
	stored, err := store.Vault(tenant, connection).Read(a.ctx)
	if errors.Is(err, credentials.ErrNone) {
		return false, nil
	}
	if err != nil {
		return false, fmt.Errorf("read credentials: %w", err)
	}
	has, err := ring.Unpack(stored, place(tenant, connection))
	return err == nil && has.RefreshToken == given.RefreshToken, nil
}

// prove tries a login that is not stored yet. The check may spend the refresh token that it was given: what it leaves behind is to be stored, and
// must not be lost if the token was renewed. Renewed by the same token, as QuickBooks does for a day, it was not: its file is as good as before,
// and a connection that does not work is not to be a second holder of it.
func (a *app) prove(ring *credentials.Ring, erp connector.Connector, account connector.Account, given connector.Credentials, about credentials.Place) (
	login connector.Credentials, check connector.Check, renewed bool, err error,
) {
	vault := &passing{}
	if vault.stored, err = ring.Pack(given, about); err != nil {
		return given, check, false, err
	}
	account.Tokens = credentials.NewTokenSource(ring, vault, about, erp, account)
	check, err = erp.Open(account).Check(a.ctx)
	if err == nil {
		err = lackingRights(check.Rights)
	}
	login, unpackErr := ring.Unpack(vault.stored, about)
	return login, check, login.RefreshToken != "" && login.RefreshToken != given.RefreshToken, errors.Join(err, unpackErr)
}

// passing is a Vault in memory, for credentials that are not stored yet.
type passing struct {
	mu     sync.Mutex
	stored credentials.Stored
}

func (p *passing) Read(context.Context) (credentials.Stored, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.stored, nil
}

func (p *passing) Renew(ctx context.Context, renew func(context.Context, credentials.Stored) (credentials.Stored, error)) (credentials.Stored, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	renewed, err := renew(ctx, p.stored)
	if err != nil {
		return credentials.Stored{}, err
	}
	renewed.Version = p.stored.Version + 1
	p.stored = renewed
	return renewed, nil
}

// readCredentials reads a credentials file. Its content is never repeated in an error.
func readCredentials(stdin io.Reader, file string) (connector.Credentials, error) {
	var text []byte
	var err error
	if file == "-" {
		text, err = io.ReadAll(io.LimitReader(stdin, 1<<20))
	} else {
		text, err = os.ReadFile(file) //nolint:gosec // the operator names the file
	}
	if err != nil {
		return connector.Credentials{}, fmt.Errorf("read credentials: %w", err)
	}
	c, err := connector.ParseCredentials(text)
	if err != nil {
		return connector.Credentials{}, misuse("%v; nothing was changed", err)
	}
	return c, nil
}

var connectionColumns = []string{
	"connection_id", "tenant_id", "erp", "name", "state", "last_attempt_outcome", "last_success_at", "next_due_at", "stale", "active_contacts", "open_issues", "held",
}

type connectionListCmd struct {
	page
	Tenant string `help:"Only of this tenant."`
	State  string `help:"Only in this state." enum:",active,paused,needs_attention,removed" default:""`
}

func (connectionListCmd) Help() string {
	return "Example: syncctl connection list --state needs_attention"
}

func (c connectionListCmd) Run(a *app) error {
	filters, err := a.tenantFilter(c.Tenant)
	if err != nil {
		return err
	}
	if c.State != "" {
		filters = append(filters, postgres.Filter{Column: "state", Value: c.State})
	}
	return a.list("connections", postgres.Connections, c.page, filters, connectionColumns...)
}

func (a *app) tenantFilter(idOrName string) ([]postgres.Filter, error) {
	if idOrName == "" {
		return nil, nil
	}
	store, err := a.db()
	if err != nil {
		return nil, err
	}
	id, err := store.FindTenant(a.ctx, idOrName)
	if err != nil {
		return nil, err
	}
	return []postgres.Filter{{Column: "tenant_id", Value: id}}, nil
}

// aConnection is the argument of commands about one connection.
type aConnection struct {
	Connection string `arg:"" help:"Connection, by id or name."`
}

func (c aConnection) find(a *app) (*postgres.Store, postgres.Connection, error) {
	store, err := a.db()
	if err != nil {
		return nil, postgres.Connection{}, err
	}
	found, err := store.FindConnection(a.ctx, c.Connection)
	return store, found, err
}

// live is find for what only a connection that was not removed can do.
func (c aConnection) live(a *app) (*postgres.Store, postgres.Connection, error) {
	store, found, err := c.find(a)
	if err == nil && found.State == "removed" {
		err = fmt.Errorf("connection %d was removed: add it again with `syncctl connection add`", found.ID)
	}
	return store, found, err
}

type connectionShowCmd struct{ aConnection }

func (connectionShowCmd) Help() string { return "Example: syncctl connection show 'Northern Kelp'" }

func (c connectionShowCmd) Run(a *app) error {
	store, found, err := c.find(a)
	if err != nil {
		return err
	}
	of := postgres.Filter{Column: "connection_id", Value: found.ID}
	rows, err := store.List(a.ctx, postgres.Connections, 1, 0, of)
	if err != nil {
		return err
	}
	runs, err := store.List(a.ctx, postgres.Runs, 5, 0, of)
	if err != nil {
		return err
	}
	if a.out.json {
		shown := objects(rows)[0]
		shown["settings"] = found.Stored
		shown["rights"] = rightFields(a.storedRights(found))
		shown["runs"] = objects(runs)
		a.out.document(shown)
	} else {
		a.out.show(rows, 0)
		for _, name := range settings.Names() {
			if v, ok := found.Stored[name]; ok {
				a.out.say(nil, "%s = %s", name, v)
			}
		}
		if lines := rightLines(a.storedRights(found)); len(lines) > 0 {
			a.out.say(nil, "When everything was last listed:")
			for _, line := range lines {
				a.out.say(nil, "  %s", line)
			}
		}
		a.out.say(nil, "")
		a.out.list("runs", runs, "", runColumns...)
	}
	if found.State == "needs_attention" {
		a.outcome(attention)
	}
	return nil
}

// storedRights puts the rights of the last complete listing into words. A program without that ERP's connector shows none.
func (a *app) storedRights(c postgres.Connection) []connector.Right {
	if a.Connectors == nil {
		return nil
	}
	erp, err := a.connector(c.ERP)
	if err != nil {
		return nil
	}
	return erp.Rights(c.Rights)
}

type connectionCheckCmd struct{ aConnection }

func (connectionCheckCmd) Help() string {
	return "One call of QuickBooks, a few of NetSuite. Example: syncctl connection check 'Northern Kelp'"
}

func (c connectionCheckCmd) Run(a *app) error {
	store, found, err := c.find(a)
	if err != nil {
		return err
	}
	check, err := a.check(store, found)
	if err != nil {
		return err
	}
	a.checked(check, nil)
	return nil
}

// checked says what a check found, after and before more lines.
func (a *app) checked(check connector.Check, before []string, after ...string) {
	fields := map[string]any{"account": check.Account, "company": check.Company, "rights": rightFields(check.Rights), "notes": check.Notes}
	lines := append(before, fmt.Sprintf("The credentials open %s (account %s).", check.Company, check.Account))
	lines = slices.Concat(lines, rightLines(check.Rights), check.Notes, after)
	a.out.say(fields, "%s", strings.Join(lines, "\n"))
	if lackingRights(check.Rights) != nil {
		a.outcome(attention)
	}
}

// rightLines says in words what a login may and may not read.
func rightLines(rights []connector.Right) []string {
	var may, lines []string
	for _, r := range rights {
		switch {
		case r.Readable:
			may = append(may, r.Name)
		case r.Needed:
			lines = append(lines, fmt.Sprintf("It may not read %s, and nothing can be synced without: %s", r.Name, r.Fix))
		default:
			lines = append(lines, fmt.Sprintf("It may not read %s: %s", r.Name, r.Fix))
		}
	}
	if len(may) > 0 {
		lines = append([]string{"It may read " + strings.Join(may, ", ") + "."}, lines...)
	}
	return lines
}

func rightFields(rights []connector.Right) []map[string]any {
	fields := make([]map[string]any, 0, len(rights))
	for _, r := range rights {
		fields = append(fields, map[string]any{"name": r.Name, "readable": r.Readable, "needed": r.Needed, "fix": r.Fix})
	}
	return fields
}

// lackingRights is the error of a login that may not read what is needed.
func lackingRights(rights []connector.Right) error {
	for _, r := range rights {
		if r.Needed && !r.Readable {
			return &connector.Error{Kind: connector.Denied, Step: "check", Message: "the login may not read " + r.Name, Hint: r.Fix}
		}
	}
	return nil
}

// check asks the ERP with the stored credentials.
func (a *app) check(store *postgres.Store, found postgres.Connection) (connector.Check, error) {
	erp, err := a.connector(found.ERP)
	if err != nil {
		return connector.Check{}, err
	}
	ring, err := a.Ring()
	if err != nil {
		return connector.Check{}, err
	}
	set, err := found.Settings()
	if err != nil {
		return connector.Check{}, err
	}
	account := connector.Account{ID: found.Account, APIURL: set.APIURL, TokenURL: set.TokenURL}
	return a.ask(store, ring, erp, account, found.Tenant, found.ID)
}

// ask asks the ERP at an address with the credentials that a connection has; what it renews is stored.
func (a *app) ask(store *postgres.Store, ring *credentials.Ring, erp connector.Connector, account connector.Account, tenant, connection int64) (
	connector.Check, error,
) {
	vault := &witness{Vault: store.Vault(tenant, connection)}
	account.Tokens = credentials.NewTokenSource(ring, vault, place(tenant, connection), erp, account)
	check, err := erp.Open(account).Check(a.ctx)
	if err != nil {
		noting, end := a.sure(true)
		defer end()
		return connector.Check{}, errors.Join(fmt.Errorf("check connection %d: %w", connection, err), vault.Refused(noting, vault.version, err))
	}
	return check, nil
}

// witness is a vault that knows which version of a login it gave last.
type witness struct {
	*postgres.Vault
	version int64
}

func (w *witness) Read(ctx context.Context) (credentials.Stored, error) {
	stored, err := w.Vault.Read(ctx)
	w.version = stored.Version
	return stored, err
}

func (w *witness) Renew(ctx context.Context, renew func(context.Context, credentials.Stored) (credentials.Stored, error)) (credentials.Stored, error) {
	stored, err := w.Vault.Renew(ctx, renew)
	if err == nil {
		w.version = stored.Version
	}
	return stored, err
}

type connectionPauseCmd struct{ aConnection }

func (connectionPauseCmd) Help() string {
	return "Example: syncctl connection pause 'Northern Kelp' --reason 'audit until Friday'. The schedule alone: connection set C auto_sync=false"
}

func (c connectionPauseCmd) Run(a *app) error {
	store, found, err := c.live(a)
	if err != nil {
		return err
	}
	if err := store.SetState(a.ctx, found, "paused", a.by); err != nil {
		return err
	}
	a.out.say(map[string]any{"connection_id": fmt.Sprint(found.ID), "state": "paused"},
		"Connection %d is paused: a running run stops at its next page and goes on after `syncctl connection resume %d`.", found.ID, found.ID)
	return nil
}

type connectionResumeCmd struct{ aConnection }

func (connectionResumeCmd) Help() string { return "Example: syncctl connection resume 'Northern Kelp'" }

func (c connectionResumeCmd) Run(a *app) error {
	store, found, err := c.live(a)
	if err != nil {
		return err
	}
	if err := store.SetState(a.ctx, found, "active", a.by); err != nil {
		return err
	}
	return a.tryAtOnce(store, found, "resumed")
}

// tryAtOnce queues an incremental run and says so.
func (a *app) tryAtOnce(store *postgres.Store, c postgres.Connection, what string) error {
	run, _, err := store.QueueRun(a.ctx, postgres.Request{
		Tenant: c.Tenant, Connection: c.ID, Mode: postgres.Incremental, Trigger: postgres.Manual, By: a.by.User, Reason: a.by.Reason,
	})
	if err != nil {
		return err
	}
	a.out.say(map[string]any{"connection_id": fmt.Sprint(c.ID), "state": "active", "run_id": fmt.Sprint(run)},
		"Connection %d: %s. Run %d is queued: syncctl run watch %d", c.ID, what, run, run)
	return nil
}

type connectionSetCmd struct {
	aConnection
	Values []string `arg:"" help:"key=value; name, schedule, auto_sync or a setting; key= puts a setting back to its default."`
}

func (connectionSetCmd) Help() string {
	return "Example: syncctl connection set 'Northern Kelp' schedule='CRON_TZ=America/New_York 0 6 * * 1-5' brake_percent=10"
}

func (c connectionSetCmd) Run(a *app) error {
	store, found, err := c.find(a)
	if err != nil {
		return err
	}
	to, err := settable(found, c.Values)
	if err != nil {
		return misuse("%v; nothing was changed", err)
	}
	if err := store.Set(a.ctx, found, to, a.by); err != nil {
		return err
	}
	a.out.say(map[string]any{"connection_id": fmt.Sprint(found.ID)}, "Connection %d is changed; it holds from now on.", found.ID)
	return nil
}

type connectionCredentialsCmd struct {
	aConnection
	File string `arg:"" help:"File with the credentials as JSON; - reads standard input."`
}

func (connectionCredentialsCmd) Help() string {
	return "Example: syncctl connection credentials 'Northern Kelp' - <kelp.json"
}

func (c connectionCredentialsCmd) Run(a *app) error {
	store, found, err := c.live(a)
	if err != nil {
		return err
	}
	erp, err := a.connector(found.ERP)
	if err != nil {
		return err
	}
	ring, err := a.Ring()
	if err != nil {
		return err
	}
	login, err := readCredentials(a.Stdin, c.File)
	if err != nil {
		return err
	}
	if err := erp.Validate(found.Account, login); err != nil {
		return misuse("%v; nothing was changed", err)
	}
	set, err := found.Settings()
	if err != nil {
		return err
	}
	about := place(found.Tenant, found.ID)
	account := connector.Account{ID: found.Account, APIURL: set.APIURL, TokenURL: set.TokenURL}
	same, err := a.isStored(store, ring, found.Tenant, found.ID, login)
	if err != nil {
		return err
	}
	if same {
		return a.storedAlready(store, ring, erp, account, found)
	}
	login, check, renewed, checkErr := a.prove(ring, erp, account, login, about)
	if checkErr != nil && !renewed {
		return fmt.Errorf("nothing was changed: %w", checkErr)
	}
	sealed, err := ring.Pack(login, about)
	if err != nil {
		return err
	}
	storing, end := a.sure(renewed)
	defer end()
	state, err := store.SetCredentials(storing, found, sealed, checkErr == nil, a.by)
	switch {
	case errors.Is(err, postgres.ErrLoginKept):
		return loginKept(checkErr)
	case err != nil:
		return err
	case checkErr != nil:
		return fmt.Errorf("the credentials are stored, since their token was renewed and must not be lost, but the ERP did not take them: %w", checkErr)
	case state == "paused":
		a.out.say(map[string]any{"connection_id": fmt.Sprint(found.ID), "state": state},
			"The credentials open %s. Connection %d stays paused: syncctl connection resume %d", check.Company, found.ID, found.ID)
		return nil
	}
	return a.tryAtOnce(store, found, "the credentials open "+check.Company)
}

// storedAlready answers who gives the login that is stored: nothing is replaced, and it is checked as `connection check` does.
func (a *app) storedAlready(store *postgres.Store, ring *credentials.Ring, erp connector.Connector, account connector.Account, found postgres.Connection) error {
	const say = "This is the login that is stored already; nothing was changed."
	check, err := a.ask(store, ring, erp, account, found.Tenant, found.ID)
	if err != nil {
		return fmt.Errorf("%s %w", say, err)
	}
	var after []string
	if found.State != "active" && lackingRights(check.Rights) == nil {
		after = []string{fmt.Sprintf("The connection goes on by: syncctl connection resume %d", found.ID)}
	}
	a.checked(check, []string{say}, after...)
	return nil
}

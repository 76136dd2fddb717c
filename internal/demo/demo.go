// Package demo shows the whole system at work: a simulated QuickBooks Online with two companies and a simulated NetSuite with
// one account, the real scheduler, worker and syncctl, and at the end a comparison of Postgres with the simulators, field by
// field.
package demo

import (
	"bufio"
	"bytes"
	"context"
	"database/sql"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"time"

	_ "github.com/centime/contactsync/internal/postgres" // brings the driver
	"github.com/centime/contactsync/internal/queue"
)

// Demo is one showing.
type Demo struct {
	Bin         string // folder of the programs
	Logs        string // folder for their logs
	DatabaseURL string // of a server where databases can be made
	RedisURL    string
	Once        bool // end after the comparison
	Spoil       bool // change a row before the comparison, which must then fail
	Out         io.Writer

	db       *sql.DB
	env      []string
	control  string
	programs []*exec.Cmd
}

type company struct {
	realm, name string
	customers   int
}

var companies = []company{{"9130350000000001", "Northwind Kelp", 1500}, {"9130350000000002", "Harbor Optics", 400}}

// ErrDiffers says that Postgres is not what the ERP is.
var ErrDiffers = errors.New("Postgres differs from the ERP") //nolint:staticcheck // a name

// Run shows everything, and returns nil only if Postgres equals the simulator.
func (d *Demo) Run(ctx context.Context) (err error) {
	defer d.stop()
	for _, step := range []struct {
		title string
		do    func(context.Context) error
	}{
		{"A fresh database, a simulated QuickBooks Online with two companies and a NetSuite, one scheduler, one worker", d.start},
		{"Three companies connect", d.connect},
		{"The first full sync", d.firstLoad},
		{"The tenant turns invoice presentment on for one role", d.turnOn},
		{"In the ERPs people join, leave, and change addresses and roles", d.change},
		{"An incremental sync brings it over", d.incremental},
		{"What finance systems read", d.show},
		{"Is Postgres what the ERPs are?", d.check},
	} {
		fmt.Fprintf(d.Out, "\n== %s\n\n", step.title)
		if err := step.do(ctx); err != nil {
			return err
		}
	}
	if d.Once {
		return nil
	}
	fmt.Fprintf(d.Out, `
== It stays up until Ctrl-C. In another terminal:

  . %s
  syncctl connection list
  syncctl contact list --email kelp --limit 10
  syncctl resync 1 --full --wait
  syncctl issue list
  curl -X POST %s/companies/%s/import -d '{"count": 50}' && syncctl resync 1 --wait

Logs: %s
`, d.envFile(), d.control, companies[0].realm, d.Logs)
	<-ctx.Done()
	fmt.Fprintln(d.Out, "\nStopping.")
	return nil
}

func (d *Demo) envFile() string { return filepath.Join(d.Logs, "env") }

const database = "contactsync_demo"

// start makes the database anew, so that a demo that was killed leaves nothing behind.
func (d *Demo) start(ctx context.Context) error {
	if err := os.MkdirAll(d.Logs, 0o700); err != nil {
		return fmt.Errorf("logs: %w", err)
	}
	u, err := url.Parse(d.DatabaseURL)
	if err != nil {
		return errors.New("DATABASE_URL cannot be read")
	}
	server, err := sql.Open("postgres", d.DatabaseURL)
	if err != nil {
		return fmt.Errorf("postgres: %w", err)
	}
	defer server.Close()
	for _, statement := range []string{"DROP DATABASE IF EXISTS " + database + " WITH (FORCE)", "CREATE DATABASE " + database} {
		if _, err := server.ExecContext(ctx, statement); err != nil {
			return fmt.Errorf("make the demo's database: %w", err)
		}
	}
	u.Path = "/" + database
	if d.db, err = sql.Open("postgres", u.String()); err != nil {
		return fmt.Errorf("postgres: %w", err)
	}
	redis, err := queue.Open(d.RedisURL)
	if err != nil {
		return err
	}
	defer redis.Close()
	if err := redis.Forget(ctx); err != nil {
		return err
	}

	key, err := exec.CommandContext(ctx, d.program("syncctl"), "key", "new").Output() //nolint:gosec // our own program
	if err != nil {
		return fmt.Errorf("syncctl key new: %w", err)
	}
	settings := []string{
		"DATABASE_URL=" + u.String(), "REDIS_URL=" + d.RedisURL, "CREDENTIALS_KEY=" + strings.TrimSpace(string(key)),
		"QUICKBOOKS_CLIENT_ID=client", "QUICKBOOKS_CLIENT_SECRET=secret", "TICK=500ms",
	}
	d.env = append(os.Environ(), settings...)
	lines := "export PATH=" + quote(d.Bin) + ":$PATH\n"
	for _, s := range settings {
		name, value, _ := strings.Cut(s, "=")
		lines += "export " + name + "=" + quote(value) + "\n"
	}
	if err := os.WriteFile(d.envFile(), []byte(lines), 0o600); err != nil {
		return fmt.Errorf("write %s: %w", d.envFile(), err)
	}

	args := []string{}
	for _, c := range companies {
		args = append(args, "-company", fmt.Sprintf("%s=%s=%d", c.realm, c.name, c.customers))
	}
	args = append(args, "-netsuite", fmt.Sprintf("%s=%s=%d", account.realm, account.name, account.customers))
	ready, err := d.launch(ctx, "erpsim", args...)
	if err != nil {
		return err
	}
	var addresses struct{ Listen, Control string }
	if err := json.NewDecoder(ready).Decode(&addresses); err != nil {
		return fmt.Errorf("erpsim did not start: see %s: %w", d.Logs, err)
	}
	go func() { _, _ = io.Copy(io.Discard, ready) }()
	d.control = addresses.Control
	d.env = append(d.env, "DEMO_API="+addresses.Listen)
	if err := d.syncctl(ctx, nil, "migrate"); err != nil {
		return err
	}
	for _, name := range []string{"scheduler", "worker"} {
		if _, err := d.launch(ctx, name); err != nil {
			return err
		}
	}
	return nil
}

func quote(s string) string { return "'" + strings.ReplaceAll(s, "'", `'\''`) + "'" }

func (d *Demo) program(name string) string { return filepath.Join(d.Bin, name) }

// launch starts a program in a process group of its own, so that Ctrl-C reaches the demo first, which ends the others in order.
func (d *Demo) launch(ctx context.Context, name string, args ...string) (io.Reader, error) {
	log, err := os.Create(filepath.Join(d.Logs, name+".log")) //nolint:gosec // one of our own programs
	if err != nil {
		return nil, fmt.Errorf("log of %s: %w", name, err)
	}
	defer log.Close()
	cmd := exec.CommandContext(context.WithoutCancel(ctx), d.program(name), args...) //nolint:gosec // our own program
	cmd.Env, cmd.Stderr = d.env, log
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true, Pdeathsig: syscall.SIGTERM}
	out, err := cmd.StdoutPipe()
	if err != nil {
		return nil, fmt.Errorf("start %s: %w", name, err)
	}
	if err := cmd.Start(); err != nil {
		return nil, fmt.Errorf("start %s: %w", name, err)
	}
	d.programs = append(d.programs, cmd)
	return bufio.NewReader(out), nil
}

// stop ends the programs, the last started first.
func (d *Demo) stop() {
	for i := len(d.programs) - 1; i >= 0; i-- {
		cmd := d.programs[i]
		_ = cmd.Process.Signal(syscall.SIGTERM)
		ended := make(chan struct{})
		go func() { _ = cmd.Wait(); close(ended) }()
		select {
		case <-ended:
		case <-time.After(30 * time.Second):
			_ = cmd.Process.Kill()
		}
	}
	if d.db != nil {
		_ = d.db.Close()
	}
}

// syncctl runs a command as a person would, and shows it.
func (d *Demo) syncctl(ctx context.Context, stdin []byte, args ...string) error {
	shown := make([]string, len(args))
	for i, a := range args {
		if shown[i] = a; strings.ContainsAny(a, " '*") {
			shown[i] = quote(a)
		}
	}
	fmt.Fprintf(d.Out, "$ syncctl %s\n", strings.Join(shown, " "))
	cmd := exec.CommandContext(ctx, d.program("syncctl"), args...) //nolint:gosec // our own program
	cmd.Env, cmd.Stdout, cmd.Stderr, cmd.Stdin = d.env, d.Out, d.Out, bytes.NewReader(stdin)
	if err := cmd.Run(); err != nil {
		return fmt.Errorf("syncctl %s: %w", args[0], err)
	}
	fmt.Fprintln(d.Out)
	return nil
}

// ask uses the simulator's control port.
func (d *Demo) ask(ctx context.Context, method, path string, body, answer any) error {
	text, err := json.Marshal(body)
	if err != nil {
		return fmt.Errorf("control port: %w", err)
	}
	req, err := http.NewRequestWithContext(ctx, method, d.control+path, bytes.NewReader(text))
	if err != nil {
		return fmt.Errorf("control port: %w", err)
	}
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		return fmt.Errorf("control port: %w", err)
	}
	defer resp.Body.Close()
	got, err := io.ReadAll(resp.Body)
	if err != nil || resp.StatusCode != http.StatusOK {
		return fmt.Errorf("control port: %s %s: %s %s: %w", method, path, resp.Status, got, err)
	}
	if answer == nil {
		return nil
	}
	if err := json.Unmarshal(got, answer); err != nil {
		return fmt.Errorf("control port: %s %s: %w", method, path, err)
	}
	return nil
}

func (d *Demo) connect(ctx context.Context) error {
	if err := d.syncctl(ctx, nil, "tenant", "add", "Northern Finance", "--time-zone", "America/Chicago"); err != nil {
		return err
	}
	api := ""
	for _, e := range d.env {
		if v, ok := strings.CutPrefix(e, "DEMO_API="); ok {
			api = v
		}
	}
	for _, c := range companies {
		var login json.RawMessage
		if err := d.ask(ctx, http.MethodPost, "/companies/"+c.realm+"/credentials", nil, &login); err != nil {
			return err
		}
		if err := d.syncctl(ctx, login, "connection", "add", "--tenant", "Northern Finance", "--erp", "quickbooks-online", "--account", c.realm,
			"--set", "api_url="+api, "--set", "token_url="+api+"/oauth2/v1/tokens/bearer", "--credentials", "-"); err != nil {
			return err
		}
	}
	return d.connectSuite(ctx, api)
}

func (d *Demo) firstLoad(ctx context.Context) error {
	for _, run := range []string{"1", "2", "3"} {
		if err := d.syncctl(ctx, nil, "run", "watch", run); err != nil {
			return err
		}
	}
	return d.syncctl(ctx, nil, "connection", "list")
}

func (d *Demo) turnOn(ctx context.Context) error {
	if err := d.syncctl(ctx, nil, "role", "set", "--tenant", "Northern Finance", "Company Contact", "--invoice-presentment=true", "--yes",
		"--reason", "invoices go to the company's own address"); err != nil {
		return err
	}
	return d.syncctl(ctx, nil, "role", "list", "--tenant", "Northern Finance")
}

// change lets people work in the ERPs.
func (d *Demo) change(ctx context.Context) error {
	for _, c := range companies {
		path := "/companies/" + c.realm
		all, err := d.erp(ctx, c)
		if err != nil {
			return err
		}
		var active []simulated
		for _, s := range all {
			if !s.Inactive {
				active = append(active, s)
			}
		}
		if len(active) < 12 {
			return fmt.Errorf("%s has too few active customers", c.name)
		}
		steps := []struct {
			method, path string
			body         any
		}{
			{http.MethodPost, "/customers", map[string]any{"display_name": "Ada Newcomer", "given_name": "Ada", "family_name": "Newcomer", "email": "ada@newcomer.example"}},
			{http.MethodPatch, "/customers/" + active[0].ID, map[string]any{"email": "first@moved.example, second@moved.example"}},
			{http.MethodPatch, "/customers/" + active[1].ID, map[string]any{"email": ""}},
			{http.MethodPatch, "/customers/" + active[2].ID, map[string]any{"phone": "+1 312 555 0100", "mobile": ""}},
			{http.MethodPost, "/customers/" + active[3].ID + "/rename", map[string]any{"name": "Renamed & Sons"}},
			{http.MethodPost, "/customers/" + active[4].ID + "/deactivate", nil},
			{http.MethodPost, "/customers/" + active[5].ID + "/deactivate", nil},
			{http.MethodPost, "/customers/" + active[6].ID + "/bump", nil},
		}
		for _, s := range steps {
			if err := d.ask(ctx, s.method, path+s.path, s.body, nil); err != nil {
				return err
			}
		}
		fmt.Fprintf(d.Out, "%s: one joined, two left, three changed how they are reached, one was renamed, one only paid a bill.\n", c.name)
	}
	return d.changeSuite(ctx)
}

func (d *Demo) incremental(ctx context.Context) error {
	return d.syncctl(ctx, nil, "resync", "--tenant", "Northern Finance", "--wait")
}

func (d *Demo) show(ctx context.Context) error {
	for _, view := range []struct{ title, query string }{
		{"connection_status", `SELECT connection_id, name, state, last_attempt_outcome, stale, active_contacts, open_issues, held FROM connection_status ORDER BY 1`},
		{"contact_directory (who changed last)", `SELECT customer_name, name, email, role, invoice_presentment, active, inactive_reason
			FROM contact_directory ORDER BY updated_at DESC, customer_contact_id LIMIT 8`},
		{"recipients (of a customer that changed)", `SELECT communication_type, email, role, stale FROM recipients
			WHERE email LIKE '%@moved.example' OR email IN ('ada@newcomer.example', 'ada@glass.example') ORDER BY customer_id, communication_type, email LIMIT 12`},
	} {
		fmt.Fprintf(d.Out, "%s\n", view.title)
		if err := d.table(ctx, view.query); err != nil {
			return err
		}
		fmt.Fprintln(d.Out)
	}
	return nil
}

func (d *Demo) erp(ctx context.Context, c company) ([]simulated, error) {
	var all []simulated
	return all, d.ask(ctx, http.MethodGet, "/companies/"+c.realm+"/customers", nil, &all)
}

func (d *Demo) check(ctx context.Context) error {
	if d.Spoil {
		if _, err := d.db.ExecContext(ctx, `UPDATE contactsync.contact_points SET value = 'changed behind our back'
			WHERE (tenant_id, contact_id, field, place) = (SELECT tenant_id, contact_id, field, place FROM contactsync.contact_points
				ORDER BY contact_id, field, place LIMIT 1)`); err != nil {
			return fmt.Errorf("spoil a row: %w", err)
		}
		fmt.Fprintln(d.Out, "A row was changed on purpose (SPOIL=1).")
	}
	wrong := 0
	for _, c := range companies {
		all, err := d.erp(ctx, c)
		if err != nil {
			return err
		}
		here, err := held(ctx, d.db, c.realm)
		if err != nil {
			return err
		}
		fields, differences := compare(all, here)
		inactive := 0
		for _, s := range all {
			if s.Inactive {
				inactive++
			}
		}
		fmt.Fprintf(d.Out, "%s: %d customers (%d inactive), ", c.name, len(all), inactive)
		d.print(fields, differences)
		wrong += len(differences)
	}
	more, err := d.checkSuite(ctx)
	if err != nil {
		return err
	}
	if wrong+more > 0 {
		return ErrDiffers
	}
	return nil
}

// print ends a line with the outcome of a comparison, and lists what differs.
func (d *Demo) print(fields int, differences []string) {
	fmt.Fprintf(d.Out, "%d fields compared, %d differ\n", fields, len(differences))
	for i, line := range differences {
		if i == 10 {
			fmt.Fprintf(d.Out, "  … and %d more\n", len(differences)-i)
			break
		}
		fmt.Fprintf(d.Out, "  %s\n", line)
	}
}

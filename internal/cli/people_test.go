package cli_test

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"os"
	"strings"
	"syscall"
	"testing"
	"unsafe"

	"github.com/centime/contactsync/internal/cli"
	"github.com/centime/contactsync/internal/postgres/pgtest"
)

const kelp = `SET search_path = contactsync, public;
	INSERT INTO tenants (name) VALUES ('Kelp');
	INSERT INTO connections (tenant_id, erp, account, name, schedule, stale_at) VALUES (1, 'netsuite', 'a', 'Kelp books', 'off', now());
	INSERT INTO roles (tenant_id, name, communication_contact) VALUES (1, 'Company Contact', true), (1, 'Buyer (NetSuite)', false);
	INSERT INTO role_mappings VALUES (1, 1, 'company', 'Company Contact', 1), (1, 1, '7', 'Buyer', 2);
	INSERT INTO customers (tenant_id, connection_id, erp_id, name, kind, active)
		SELECT 1, 1, (100 + n)::text, 'Customer ' || n, 'customer', true FROM generate_series(1, 30) n;
	INSERT INTO contacts (tenant_id, connection_id, origin, erp_id, name, active)
		SELECT 1, 1, 'erp', 'customer:' || 100 + n, E'Customer\x1b[2J ' || n, true FROM generate_series(1, 30) n;
	INSERT INTO contact_points SELECT 1, id, origin, 'email', 1, 'email', 'c' || id || '@kelp.example', 'c' || id || '@kelp.example', true, true, true FROM contacts;
	INSERT INTO customer_contacts (tenant_id, connection_id, customer_id, contact_id, origin, stated_by, record_role_key, active)
		SELECT 1, 1, n, n, 'erp', ARRAY['customer:' || 100 + n], 'company', true FROM generate_series(1, 30) n`

// TestPeoplesCommands guards what ops type to choose who gets mail: each command shows whose mail changes, nothing is written
// without a yes, who and why are kept, and --json is one document.
func TestPeoplesCommands(t *testing.T) {
	t.Parallel()
	dsn := pgtest.New(t)
	pgtest.Exec(t, dsn, kelp)
	run := func(stdin io.Reader, args ...string) (out string, exit int) {
		t.Helper()
		var stdout, errs bytes.Buffer
		exit = cli.Run(t.Context(), cli.Setup{
			DatabaseURL: func() (string, error) { return dsn, nil }, Stdin: stdin, Stdout: &stdout, Stderr: &errs, LoginName: "tester",
		}, args)
		if errs.Len() > 0 && exit == 0 && stdin == nil {
			t.Fatalf("%v: %s", args, &errs)
		}
		if strings.Contains(stdout.String(), "\x1b") {
			t.Errorf("%v: a name moves the reader's cursor: %q", args, &stdout)
		}
		return stdout.String() + errs.String(), exit
	}
	want := func(exit int, parts []string, args ...string) {
		t.Helper()
		out, got := run(nil, args...)
		if got != exit {
			t.Errorf("%v: exit status %d, want %d\n%s", args, got, exit, out)
		}
		for _, p := range parts {
			if !strings.Contains(out, p) {
				t.Errorf("%v: no word of %q in\n%s", args, p, out)
			}
		}
	}
	mail := func() string {
		return pgtest.Value(t, dsn, `SELECT concat(count(*) FILTER (WHERE communication_type = 'invoice_presentment'), ' ',
			count(*) FILTER (WHERE communication_type <> 'invoice_presentment')) FROM recipients`)
	}
	in := func(args ...string) []string { return append(args, "--tenant", "Kelp") }

	// Without a terminal a yes must be said; until then it is shown and not done.
	set := in("role", "set", "Company Contact", "--invoice-presentment=true", "--as", "ann", "--reason", "ticket 4711")
	shown := []string{"starts invoice_presentment: 30 addresses at 30 customers", "c1@kelp.example", "… and 20 more"}
	want(2, append(shown, "say --yes"), set...)
	want(2, []string{`"kind": "usage"`}, append(set, "--json")...)
	want(0, append(shown, "Nothing was changed"), append(set, "--preview", "--yes")...)
	if mail() != "0 30" {
		t.Errorf("it was done all the same: %s", mail())
	}
	terminal(t, func(keyboard io.Writer, tty *os.File) {
		fmt.Fprintln(keyboard, "n")
		if out, exit := run(tty, set...); exit != 1 || mail() != "0 30" || !strings.Contains(out, "Change role Company Contact? [y/N]") {
			t.Errorf("no is no: exit status %d, %s\n%s", exit, mail(), out)
		}
		fmt.Fprintln(keyboard, "y")
		if out, exit := run(tty, set...); exit != 0 || mail() != "30 30" {
			t.Errorf("yes is yes: exit status %d, %s\n%s", exit, mail(), out)
		}
	})
	if who := pgtest.Value(t, dsn, `SELECT concat_ws(' ', by_user, reason) FROM contactsync.history`); who != "ann ticket 4711" {
		t.Errorf("history says %q", who)
	}
	want(0, []string{"stops invoice_presentment: 30 addresses", "Left without a recipient of invoice_presentment: Customer 1 (1)"},
		in("role", "set", "1", "--no-invoice-presentment", "--yes")...)

	var document struct {
		Preview bool
		Mail    struct {
			Counts  []map[string]any
			Changes []map[string]any
		}
	}
	out, exit := run(nil, append(set, "--json", "--yes")...)
	if err := json.Unmarshal([]byte(out), &document); err != nil || exit != 0 {
		t.Fatalf("exit status %d, %v: %s", exit, err, out)
	}
	if c := document.Mail.Counts; document.Preview || len(c) != 1 || c[0]["addresses"] != float64(30) || c[0]["starts"] != true ||
		len(document.Mail.Changes) != 30 || document.Mail.Changes[0]["customer_id"] != "1" {
		t.Errorf("%s", out)
	}

	want(0, []string{"Role 3: Payer"}, in("role", "add", "Payer", "--invoice-presentment")...)
	want(0, []string{"stops communication_contact: 30 addresses", "stands for role Payer"}, in("role", "map", "--connection", "Kelp books", "company", "Payer", "--yes")...)
	want(1, []string{"--move-to ROLE"}, in("role", "delete", "Payer", "--yes")...)
	want(0, []string{"Moved: 0 contacts that it was given to, 1 ERP role."}, in("role", "delete", "Payer", "--move-to", "1", "--yes")...)
	want(0, []string{"is now Buyer"}, in("role", "rename", "Buyer (NetSuite)", "Buyer")...)
	want(0, []string{"Buyer", "Company Contact"}, in("role", "list")...)

	want(0, []string{"starts communication_contact: 1 address at 1 customer", "Contact 31 is created"},
		in("contact", "create", "Ingrid", "--customer", "Customer 2", "--email", "ingrid@kelp.example", "--phone", "218 555 0142", "--role", "1", "--yes")...)
	want(2, []string{"--days"}, in("contact", "update", "31", "--days", "ingrid@kelp.example=tomorrow..")...)
	want(0, []string{"stops communication_contact", "Contact 31 is changed"}, in("contact", "update", "31", "--days", "ingrid@kelp.example=2999-01-01..", "--yes")...)
	want(0, []string{"Nobody's mail changes", "nothing to change"}, in("contact", "update", "31", "--name", "Ingrid", "--yes")...)
	want(0, []string{"made in Centime", "its first day is 2999-01-01", "Company Contact (1), chosen by tester"}, in("contact", "explain", "ingrid@kelp.example")...)
	want(0, []string{"At Customer 2 (2) from now on: Buyer; before: Company Contact."}, in("contact", "assign-role", "31", "Buyer", "--yes")...)
	want(1, []string{"no ERP role to follow"}, in("contact", "assign-role", "31", "--follow-erp", "--yes")...)
	want(0, []string{"ERP role: Company Contact."}, in("contact", "assign-role", "c2@kelp.example", "Buyer", "--yes")...)
	want(0, []string{"follows the ERP, which makes it Company Contact; before: Buyer."}, in("contact", "assign-role", "2", "--follow-erp", "--yes")...)
	want(2, []string{"one of the two"}, in("contact", "assign-role", "2", "Buyer", "--follow-erp")...)
	want(1, []string{"contact assign-role 2 ROLE"}, in("contact", "update", "2", "--name", "x", "--yes")...)
	want(0, []string{"point:email:1:days: nothing → 2999-01-01..", "role choice: Company Contact (1) → Buyer (2)", "[tester]"}, in("contact", "history", "31")...)
	want(0, []string{"There is no record of it.", "never listed completely"}, in("contact", "explain", "nobody@kelp.example")...)

	want(0, nil, in("contact", "create", "Left", "--customer", "3", "--email", "C9@kelp.example", "--role", "1", "--yes")...)
	pgtest.Exec(t, dsn, `UPDATE contactsync.contacts SET active = false, inactive_reason = 'erp_absent' WHERE id = 9`)
	for _, args := range [][]string{{"contact", "list", "--origin", "centime"}, {"contact", "show", "c9@kelp.example"}} {
		want(0, []string{"Warning: C9@kelp.example still gets mail", "Did this person leave?"}, in(args...)...)
		want(0, []string{`"may_have_left": [`, `"erp_contact_id": "9"`}, append(in(args...), "--json")...)
	}
	want(0, []string{"Contact 31 is deleted."}, in("contact", "delete", "31", "--yes", "--reason", "left")...)
	want(0, []string{"It was an address of contact 31, which is deleted, until", "removed by tester: left"}, in("contact", "explain", "ingrid@kelp.example")...)
	want(0, []string{"deleted: Ingrid  [tester: left]"}, in("contact", "history", "31")...)
}

// terminal opens a pseudo-terminal for f.
func terminal(t *testing.T, f func(keyboard io.Writer, tty *os.File)) {
	t.Helper()
	keyboard, err := os.OpenFile("/dev/ptmx", os.O_RDWR|syscall.O_NOCTTY, 0)
	if err != nil {
		t.Skipf("there are no pseudo-terminals here: %v", err)
	}
	defer keyboard.Close()
	var number, unlock uint32
	for request, at := range map[uintptr]*uint32{syscall.TIOCSPTLCK: &unlock, syscall.TIOCGPTN: &number} {
		if _, _, errno := syscall.Syscall(syscall.SYS_IOCTL, keyboard.Fd(), request, uintptr(unsafe.Pointer(at))); errno != 0 {
			t.Fatal(errno)
		}
	}
	tty, err := os.OpenFile(fmt.Sprintf("/dev/pts/%d", number), os.O_RDWR|syscall.O_NOCTTY, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer tty.Close()
	f(keyboard, tty)
}

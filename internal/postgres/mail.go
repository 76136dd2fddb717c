package postgres

import (
	"context"
	"errors"
	"fmt"
	"slices"

	"github.com/jmoiron/sqlx"
	"github.com/lib/pq"
)

// MailChange is an address that starts or stops getting one kind of mail for one customer.
type MailChange struct {
	Starts            bool   `db:"starts"`
	CommunicationType string `db:"communication_type"`
	CustomerID        int64  `db:"customer_id"`
	CustomerName      string `db:"customer_name"`
	ContactID         int64  `db:"contact_id"`
	Email             string `db:"email"`
}

// MailDifference is what a change does to who gets which mail. Counts are of all of it, Changes are the first ones only.
type MailDifference struct {
	Counts  []MailCount
	Changes []MailChange
	// Bare are the customers that had a recipient for a kind of mail and have none after the change.
	Bare []BareCustomer
}

// MailCount is how many addresses at how many customers start or stop getting one kind of mail.
type MailCount struct {
	Starts            bool   `db:"starts"`
	CommunicationType string `db:"communication_type"`
	Addresses         int64  `db:"addresses"`
	Customers         int64  `db:"customers"`
}

// BareCustomer is a customer that a change leaves without a recipient for one kind of mail.
type BareCustomer struct {
	CommunicationType string `db:"communication_type"`
	CustomerID        int64  `db:"customer_id"`
	CustomerName      string `db:"customer_name"`
}

// shownChanges bounds what a MailDifference lists; it counts all.
const shownChanges = 200

// errRehearsed undoes a change that was only to be looked at.
var errRehearsed = errors.New("only rehearsed")

// Weigh says how a change of who gets mail is made; the zero value makes it.
type Weigh struct {
	Rehearse bool // only say what it would do
	// Shown is what a rehearsal said to a person who agreed to that: if the change would do anything else by now, it is not
	// made (ErrMeanwhile).
	Shown *MailDifference
}

// ErrMeanwhile says that something changed between the rehearsal and the change.
var ErrMeanwhile = errors.New("something was changed meanwhile, so this would do something else than was shown: look again; nothing was changed")

// Same says whether two differences start and stop the same mail.
func (d MailDifference) Same(as MailDifference) bool {
	return slices.Equal(d.Counts, as.Counts) && slices.Equal(d.Bare, as.Bare) && slices.EqualFunc(d.Changes, as.Changes, func(a, b MailChange) bool {
		a.ContactID, b.ContactID = 0, 0 // a contact that is rehearsed has no id yet
		return a == b
	})
}

// weighed makes a change in a transaction of its own and says what it does to who gets which mail. A rehearsal is undone
// at the end: what it shows is what the change itself would do, by the same statements. It is for rows that syncs write all
// the time: what one commits while the mail is compared may show in the difference.
func (s *Store) weighed(ctx context.Context, as actor, tenant int64, rehearsal bool, change func(tx *sqlx.Tx) error) (MailDifference, error) {
	var d MailDifference
	err := s.in(ctx, as, tenant, func(tx *sqlx.Tx) (err error) {
		d, err = mailDifference(ctx, tx, tenant, func() error { return change(tx) })
		if err == nil && rehearsal {
			err = errRehearsed
		}
		return err
	})
	if errors.Is(err, errRehearsed) {
		err = nil
	}
	return d, err
}

// decided is weighed for what a person looked at before, on one view of the database: of rows that people write and syncs
// hardly ever, since it begins again when one was changed. at, if not nil, names the customers whose mail the change can
// concern: comparing theirs alone is quick however large the tenant is.
func (s *Store) decided(
	ctx context.Context, as actor, tenant int64, how Weigh, at func(tx *sqlx.Tx) ([]int64, error), change func(tx *sqlx.Tx) error,
) (MailDifference, error) {
	var d MailDifference
	err := s.still(ctx, as, tenant, func(tx *sqlx.Tx) (err error) {
		var customers []int64
		if at != nil {
			if customers, err = at(tx); err != nil {
				return err
			}
			customers = some(customers)
		}
		d, err = mailDifferenceAt(ctx, tx, tenant, customers, func() error { return change(tx) })
		switch {
		case err != nil:
			return err
		case how.Rehearse:
			return errRehearsed
		case how.Shown != nil && !how.Shown.Same(d):
			return ErrMeanwhile
		}
		return nil
	})
	if errors.Is(err, errRehearsed) {
		err = nil
	}
	return d, err
}

// mailSnapshot keeps the recipients of tenant $1, or some of them, as they are now.
func mailSnapshot(when, some string) string {
	return `CREATE TEMPORARY TABLE mail_` + when + ` ON COMMIT DROP AS
		SELECT customer_id, communication_type, lower(email) AS address, email, contact_id FROM recipients WHERE tenant_id = $1 ` + some
}

// compared is the difference between the snapshots before and after.
const compared = `WITH differs AS (
		SELECT a.customer_id IS NOT NULL AS starts, coalesce(a.communication_type, b.communication_type) AS communication_type,
			coalesce(a.customer_id, b.customer_id) AS customer_id, coalesce(a.contact_id, b.contact_id) AS contact_id,
			coalesce(a.email, b.email) AS email
		FROM mail_before b FULL JOIN mail_after a USING (customer_id, communication_type, address)
		WHERE a.customer_id IS NULL OR b.customer_id IS NULL
	) `

// mailDifference makes a change within the transaction and compares the recipients of the tenant before and after it, by
// customer, kind of mail and address without case.
func mailDifference(ctx context.Context, tx *sqlx.Tx, tenant int64, change func() error) (MailDifference, error) {
	return mailDifferenceAt(ctx, tx, tenant, nil, change)
}

// mailDifferenceAt is mailDifference at these customers only; nil: at all of the tenant's.
func mailDifferenceAt(ctx context.Context, tx *sqlx.Tx, tenant int64, customers []int64, change func() error) (MailDifference, error) {
	var d MailDifference
	const some = `AND ($2::bigint[] IS NULL OR customer_id = ANY ($2))`
	loops := func(set string) error {
		if customers != nil {
			return nil
		}
		return nestedLoops(ctx, tx, set)
	}
	if err := loops("off"); err != nil {
		return d, err
	}
	if _, err := tx.ExecContext(ctx, mailSnapshot("before", some), tenant, pq.Array(customers)); err != nil {
		return d, fmt.Errorf("recipients before: %w", err)
	}
	if err := loops("on"); err != nil {
		return d, err
	}
	if err := change(); err != nil {
		return d, err
	}
	if err := loops("off"); err != nil {
		return d, err
	}
	if _, err := tx.ExecContext(ctx, mailSnapshot("after", some), tenant, pq.Array(customers)); err != nil {
		return d, fmt.Errorf("recipients after: %w", err)
	}
	err := tx.SelectContext(ctx, &d.Counts, compared+`
		SELECT starts, communication_type, count(*) AS addresses, count(DISTINCT customer_id) AS customers FROM differs
		GROUP BY starts, communication_type ORDER BY starts, communication_type`)
	if err != nil {
		return d, fmt.Errorf("compare recipients: %w", err)
	}
	err = tx.SelectContext(ctx, &d.Changes, compared+`
		SELECT d.starts, d.communication_type, d.customer_id, coalesce(c.name, '') AS customer_name, d.contact_id, d.email
		FROM differs d LEFT JOIN customers c ON c.tenant_id = $1 AND c.id = d.customer_id
		ORDER BY d.starts, c.name, d.customer_id, d.communication_type, d.email LIMIT $2`, tenant, shownChanges)
	if err != nil {
		return d, fmt.Errorf("compare recipients: %w", err)
	}
	err = tx.SelectContext(ctx, &d.Bare, `
		SELECT g.communication_type, g.customer_id, coalesce(c.name, '') AS customer_name FROM (
			SELECT customer_id, communication_type FROM mail_before EXCEPT SELECT customer_id, communication_type FROM mail_after
		) g LEFT JOIN customers c ON c.tenant_id = $1 AND c.id = g.customer_id
		ORDER BY c.name, g.customer_id, g.communication_type`, tenant)
	if err != nil {
		return d, fmt.Errorf("customers left without recipient: %w", err)
	}
	return d, nil
}

// nestedLoops are turned off where all of a connection, or of a tenant, is joined: of rows that the transaction itself wrote, or
// that were loaded a moment ago, the planner has no statistics, takes them for a few, and would compare each with each.
func nestedLoops(ctx context.Context, tx *sqlx.Tx, set string) error {
	_, err := tx.ExecContext(ctx, `SELECT set_config('enable_nestloop', $1, true)`, set)
	return err
}

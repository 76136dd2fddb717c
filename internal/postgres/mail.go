package postgres

import (
	"context"
	"errors"
	"fmt"

	"github.com/jmoiron/sqlx"
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

// weighed makes a change in a transaction of its own and says what it does to who gets which mail. A rehearsal is undone
// at the end: what it shows is what the change itself would do, by the same statements.
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
	var d MailDifference
	if _, err := tx.ExecContext(ctx, mailSnapshot("before", ""), tenant); err != nil {
		return d, fmt.Errorf("recipients before: %w", err)
	}
	if err := change(); err != nil {
		return d, err
	}
	if _, err := tx.ExecContext(ctx, mailSnapshot("after", ""), tenant); err != nil {
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

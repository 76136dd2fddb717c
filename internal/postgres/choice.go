package postgres

import (
	"context"
	"fmt"
	"strconv"
	"strings"

	"github.com/jmoiron/sqlx"
	"github.com/lib/pq"

	"github.com/centime/contactsync/internal/contact"
)

// Fields of the history of what people do.
const (
	fieldCreated = "created" // people's creations are history (decision 14): the row they made may be deleted
	fieldDeleted = "deleted"
	fieldChoice  = "role choice"
	fieldPlace   = "place:" // of a contact, before the id of the customer contact
)

// Assignment gives a contact a role at customers, whatever its ERP role; no sync changes it.
type Assignment struct {
	Contact      string // id, or an address that no other contact has
	Customer     string // id, erp:ID or name; empty: its only customer
	AllCustomers bool
	Role         string // id or name; empty: the choice is given back, and the ERP role counts again
}

// A Place is a contact's place at a customer, and what role it has there.
type Place struct {
	ID           int64  `db:"id"` // of the customer contact
	Connection   int64  `db:"connection_id"`
	Customer     int64  `db:"customer_id"`
	CustomerName string `db:"customer_name"`
	Origin       string `db:"origin"`
	Active       bool   `db:"active"`
	ChosenID     int64  `db:"chosen_id"` // 0: nobody chose
	Chosen       string `db:"chosen"`
	ERPRole      string `db:"erp_role"` // as the ERP states it; a choice stands beside it
	Mapped       string `db:"mapped"`   // what the mapping makes of it
}

func (p Place) choice() contact.Role { return contact.Role{ID: p.ChosenID, Name: p.Chosen} }

const places = `
	SELECT cc.id, cc.connection_id, cc.customer_id, cu.name AS customer_name, cc.origin, cc.active,
		coalesce(ch.role_id, 0) AS chosen_id, coalesce(cr.name, '') AS chosen, coalesce(m.erp_role_name, '') AS erp_role, coalesce(mr.name, '') AS mapped
	FROM customer_contacts cc
	JOIN customers cu ON cu.tenant_id = cc.tenant_id AND cu.id = cc.customer_id
	LEFT JOIN role_choices ch ON ch.tenant_id = cc.tenant_id AND ch.customer_contact_id = cc.id
	LEFT JOIN roles cr ON cr.tenant_id = cc.tenant_id AND cr.id = ch.role_id
	LEFT JOIN role_mappings m ON m.tenant_id = cc.tenant_id AND m.connection_id = cc.connection_id AND m.erp_role_key = cc.erp_role_key
	LEFT JOIN roles mr ON mr.tenant_id = cc.tenant_id AND mr.id = m.role_id
	WHERE cc.tenant_id = $1 AND cc.contact_id = $2 ORDER BY cu.name, cc.id`

// AssignRole returns the places whose choice it changed, as they were before.
func (s *Store) AssignRole(ctx context.Context, tenant int64, a Assignment, how Weigh, by By) ([]Place, MailDifference, error) {
	var chosen, changed []Place
	d, err := s.decided(ctx, asApp, tenant, how, func(tx *sqlx.Tx) (customers []int64, err error) {
		if chosen, err = assigned(ctx, tx, tenant, a); err != nil {
			return nil, err
		}
		for _, p := range chosen {
			customers = append(customers, p.Customer)
		}
		return customers, nil
	}, func(tx *sqlx.Tx) (err error) {
		changed, err = choose(ctx, tx, tenant, chosen, a.Role, by)
		return err
	})
	if err != nil {
		return nil, d, fmt.Errorf("assign role: %w", err)
	}
	return changed, d, nil
}

// assigned are the places that an assignment means.
func assigned(ctx context.Context, tx *sqlx.Tx, tenant int64, a Assignment) ([]Place, error) {
	id, err := findContact(ctx, tx, tenant, a.Contact)
	if err != nil {
		return nil, err
	}
	var all, attached []Place
	if err := tx.SelectContext(ctx, &all, places, tenant, id); err != nil {
		return nil, err
	}
	for _, p := range all {
		if p.Active {
			attached = append(attached, p)
		}
	}
	switch {
	case len(all) == 0:
		return nil, fmt.Errorf("contact %d is at no customer", id)
	case a.AllCustomers:
		return all, nil
	case a.Customer != "":
		customer, err := findCustomer(ctx, tx, tenant, a.Customer)
		if err != nil {
			return nil, err
		}
		for _, p := range all {
			if p.Customer == customer.ID {
				return []Place{p}, nil
			}
		}
		return nil, fmt.Errorf("contact %d is not at customer %d: it is at %s", id, customer.ID, placeNames(all))
	case len(all) == 1:
		return all, nil
	case len(attached) == 1:
		return attached, nil
	}
	return nil, fmt.Errorf("contact %d is at %d customers: name one with --customer, or all with --all-customers; it is at %s", id, len(all), placeNames(all))
}

func placeNames(of []Place) string {
	var ids []string
	for _, p := range of {
		ids = append(ids, strconv.FormatInt(p.Customer, 10))
	}
	if len(ids) > 10 {
		ids = append(ids[:10], "…")
	}
	return "customer " + strings.Join(ids, ", ")
}

// choose gives places a role, or with an empty one gives the choice back, and returns those that had another.
func choose(ctx context.Context, tx *sqlx.Tx, tenant int64, chosen []Place, role string, by By) ([]Place, error) {
	var to contact.Role
	if role != "" {
		var err error
		if to, err = findRole(ctx, tx, tenant, role); err != nil {
			return nil, err
		}
	}
	var changed []Place
	var ids []int64
	for _, p := range chosen {
		if role == "" && p.Origin == string(contact.FromCentime) {
			return nil, fmt.Errorf("the contact was created in Centime, so there is no ERP role to follow: give it another role")
		}
		if p.ChosenID != to.ID {
			changed, ids = append(changed, p), append(ids, p.ID)
		}
	}
	if len(ids) == 0 {
		return nil, nil
	}
	var err error
	if role == "" {
		_, err = tx.ExecContext(ctx, `DELETE FROM role_choices WHERE tenant_id = $1 AND customer_contact_id = ANY ($2)`, tenant, pq.Array(ids))
	} else {
		_, err = tx.ExecContext(ctx, `
			INSERT INTO role_choices (tenant_id, customer_contact_id, role_id, chosen_by, reason)
			SELECT $1, id, $3, $4, $5 FROM unnest($2::bigint[]) AS id
			ON CONFLICT (tenant_id, customer_contact_id) DO UPDATE SET role_id = excluded.role_id, chosen_by = excluded.chosen_by,
				reason = excluded.reason, chosen_at = now()`, tenant, pq.Array(ids), to.ID, by.User, by.Reason)
	}
	if err != nil {
		return nil, err
	}
	for _, p := range changed {
		if err := tell(ctx, tx, tenant, &p.Connection, "customer_contact", p.ID, []change{{fieldChoice, nameOf(p.choice()), nameOf(to)}}, by); err != nil {
			return nil, err
		}
	}
	return changed, nil
}

// findContact takes an id, or an address that no other contact of the tenant has.
func findContact(ctx context.Context, tx *sqlx.Tx, tenant int64, idOrAddress string) (int64, error) {
	found, err := contactsNamed(ctx, tx, tenant, idOrAddress)
	switch {
	case err != nil:
		return 0, err
	case len(found) == 0:
		return 0, fmt.Errorf("contact: %w; `syncctl contact explain` says what became of an address", ErrNotFound)
	case len(found) > 1:
		var ids []string
		for _, id := range found {
			ids = append(ids, strconv.FormatInt(id, 10))
		}
		return 0, fmt.Errorf("several contacts have this address: use the id, one of %s", strings.Join(ids, ", "))
	}
	return found[0], nil
}

// contactsNamed are the contacts with an id, or with an address in any mail field, as it is sent to or as it was typed.
func contactsNamed(ctx context.Context, tx *sqlx.Tx, tenant int64, idOrAddress string) ([]int64, error) {
	var found []int64
	if id, err := strconv.ParseInt(idOrAddress, 10, 64); err == nil {
		err := tx.SelectContext(ctx, &found, `SELECT id FROM contacts WHERE tenant_id = $1 AND id = $2`, tenant, id)
		return found, err
	}
	address := strings.TrimSpace(idOrAddress)
	if a, ok := contact.Address(address); ok {
		address = a
	}
	err := tx.SelectContext(ctx, &found, `SELECT DISTINCT contact_id FROM contact_points
		WHERE tenant_id = $1 AND kind = 'email' AND (lower(normalised) = lower($2) OR lower(value) = lower($2)) ORDER BY contact_id`, tenant, address)
	return found, err
}

// A customerFound is a customer that people named.
type customerFound struct {
	ID         int64  `db:"id"`
	Connection int64  `db:"connection_id"`
	Name       string `db:"name"`
}

// findCustomer takes an id, a name where it is unique, or erp:ID with the ERP's id: a bare number is ours, since it may be
// another customer's in the ERP.
func findCustomer(ctx context.Context, tx *sqlx.Tx, tenant int64, word string) (customerFound, error) {
	var found []customerFound
	query, named := `lower(name) = lower($2) OR id::text = $2`, word
	if erpID, ok := strings.CutPrefix(word, "erp:"); ok {
		query, named = `erp_id = $2`, erpID
	}
	err := tx.SelectContext(ctx, &found, `SELECT id, connection_id, name FROM customers WHERE tenant_id = $1 AND (`+query+`)
		ORDER BY id::text = $2 DESC, id LIMIT 2`, tenant, named)
	switch {
	case err != nil:
		return customerFound{}, err
	case len(found) == 0:
		return customerFound{}, fmt.Errorf("customer %q: %w", word, ErrNotFound)
	case len(found) > 1 && (strconv.FormatInt(found[0].ID, 10) != word || query == `erp_id = $2`):
		return customerFound{}, fmt.Errorf("customer %q: %w", word, ErrAmbiguous)
	}
	return found[0], nil
}

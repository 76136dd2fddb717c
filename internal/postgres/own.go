package postgres

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"time"

	"github.com/jmoiron/sqlx"
	"github.com/lib/pq"

	"github.com/centime/contactsync/internal/contact"
)

// NewContact is a contact to create in Centime. It never goes to an ERP, and no sync changes it.
type NewContact struct {
	Person    contact.Person
	Points    contact.PointEdits
	Customers []string // each an id, erp:ID or a unique name; all of one connection
	Role      string   // at each of them, by id or name; empty: none, so no mail
}

// ContactEdit changes a contact that was created in Centime; what is nil or empty stays.
type ContactEdit struct {
	Contact                               string // id, or an address that no other contact has
	Name, GivenName, FamilyName, JobTitle *string
	Points                                contact.PointEdits
	Join, Leave                           []string // customers
	Role                                  string   // at the customers to join
	// Seen is when the contact was last changed as the person saw it; if it was changed since, nothing is (ErrMeanwhile). Zero:
	// whatever was changed, the edit is made.
	Seen time.Time
}

// ContactChange is what became of a contact of Centime's own.
type ContactChange struct {
	Contact int64 // 0: rehearsed, so it has no id yet
	Changed bool
	Seen    time.Time // for ContactEdit.Seen: the contact as this found it
	Mail    MailDifference
	Left    []Left // addresses to think about
}

// ownContact is a contact of Centime's own within a transaction, locked.
type ownContact struct {
	ID         int64     `db:"id"`
	Connection int64     `db:"connection_id"`
	Name       string    `db:"name"`
	GivenName  string    `db:"given_name"`
	FamilyName string    `db:"family_name"`
	JobTitle   string    `db:"job_title"`
	UpdatedAt  time.Time `db:"updated_at"`

	points []contact.OwnPoint
	places []Place
}

func (o ownContact) person() contact.Person {
	return contact.Person{Name: o.Name, GivenName: o.GivenName, FamilyName: o.FamilyName, JobTitle: o.JobTitle}
}

// ErrFromERP says that a contact belongs to the ERP.
var ErrFromERP = errors.New("the contact comes from the ERP")

// lockOwn reads a contact of Centime's own and keeps others from changing it. An ERP's is refused, with why.
func lockOwn(ctx context.Context, tx *sqlx.Tx, tenant int64, idOrAddress string) (ownContact, error) {
	var o ownContact
	id, err := findContact(ctx, tx, tenant, idOrAddress)
	if err != nil {
		return o, err
	}
	var of struct {
		Origin     string `db:"origin"`
		ERP        string `db:"erp"`
		Connection int64  `db:"connection_id"`
	}
	err = tx.GetContext(ctx, &of, `SELECT c.origin, n.erp, c.connection_id FROM contacts c
		JOIN connections n ON n.tenant_id = c.tenant_id AND n.id = c.connection_id WHERE c.tenant_id = $1 AND c.id = $2`, tenant, id)
	if err != nil {
		return o, notFound(err, "contact")
	}
	if of.Origin == string(contact.FromERP) {
		return o, fmt.Errorf("%w: contact %d is %s's (connection %d), which the next sync would follow again. Change it there; "+
			"in Centime it can only be given another role: syncctl contact assign-role %d ROLE --tenant %d", ErrFromERP, id, of.ERP, of.Connection, id, tenant)
	}
	err = tx.GetContext(ctx, &o, `SELECT id, connection_id, name, given_name, family_name, job_title, updated_at FROM contacts
		WHERE tenant_id = $1 AND id = $2 FOR UPDATE`, tenant, id)
	if err != nil {
		return o, notFound(err, "contact")
	}
	if o.points, err = ownPoints(ctx, tx, tenant, id); err != nil {
		return o, err
	}
	return o, tx.SelectContext(ctx, &o.places, places, tenant, id)
}

func ownPoints(ctx context.Context, tx *sqlx.Tx, tenant, id int64) ([]contact.OwnPoint, error) {
	rows, err := tx.QueryContext(ctx, `
		SELECT kind, field, place, value, normalised, main, is_primary, usable, coalesce(first_day::text, ''), coalesce(last_day::text, '')
		FROM contact_points WHERE tenant_id = $1 AND contact_id = $2 ORDER BY field, place`, tenant, id)
	if err != nil {
		return nil, err
	}
	defer rows.Close()
	var points []contact.OwnPoint
	for rows.Next() {
		var p contact.OwnPoint
		err := rows.Scan(&p.Kind, &p.Field, &p.Place, &p.Value, &p.Normalised, &p.Main, &p.Primary, &p.Usable, &p.First, &p.Last)
		if err != nil {
			return nil, err
		}
		points = append(points, p)
	}
	return points, rows.Err()
}

// CreateContact makes a contact of Centime's own at customers of one connection.
func (s *Store) CreateContact(ctx context.Context, tenant int64, n NewContact, how Weigh, by By) (ContactChange, error) {
	if err := n.Person.Check(); err != nil {
		return ContactChange{}, err
	}
	points, err := n.Points.Apply(nil)
	if err != nil {
		return ContactChange{}, err
	}
	if len(n.Customers) == 0 {
		return ContactChange{}, errors.New("a contact needs at least one customer")
	}
	var c ContactChange
	var at []customerFound
	c.Mail, err = s.decided(ctx, asApp, tenant, how, func(tx *sqlx.Tx) (ids []int64, err error) {
		at = nil
		if err := joinable(ctx, tx, tenant, 0, n.Customers, &at); err != nil {
			return nil, err
		}
		for _, cu := range at {
			ids = append(ids, cu.ID)
		}
		return ids, nil
	}, func(tx *sqlx.Tx) error {
		o := ownContact{Connection: at[0].Connection}
		err := tx.QueryRowxContext(ctx, `
			INSERT INTO contacts (tenant_id, connection_id, origin, name, given_name, family_name, job_title, active)
			VALUES ($1, $2, 'centime', $3, $4, $5, $6, true) RETURNING id, updated_at`,
			tenant, o.Connection, n.Person.Name, n.Person.GivenName, n.Person.FamilyName, n.Person.JobTitle).Scan(&o.ID, &o.UpdatedAt)
		if err != nil {
			return err
		}
		if err := tell(ctx, tx, tenant, &o.Connection, "contact", o.ID, []change{{fieldCreated, "", n.Person.Name}}, by); err != nil {
			return err
		}
		if _, err := o.putPoints(ctx, tx, tenant, points); err != nil {
			return fmt.Errorf("write points: %w", err)
		}
		if _, err := o.join(ctx, tx, tenant, at, n.Role, by); err != nil {
			return err
		}
		c.Contact, c.Changed, c.Seen = o.ID, true, o.UpdatedAt
		c.Left, err = left(ctx, tx, tenant, o.ID)
		return err
	})
	if err != nil {
		return ContactChange{}, fmt.Errorf("create contact: %w", err)
	}
	if how.Rehearse {
		for i := range c.Mail.Changes {
			if c.Mail.Changes[i].ContactID == c.Contact {
				c.Mail.Changes[i].ContactID = 0
			}
		}
		c.Contact = 0
	}
	return c, nil
}

// joinable finds customers that a contact can be added to: of one connection (0: whichever the first is of) that has not been
// removed.
func joinable(ctx context.Context, tx *sqlx.Tx, tenant, connection int64, words []string, into *[]customerFound) error {
	for _, word := range words {
		cu, err := findCustomer(ctx, tx, tenant, word)
		if err != nil {
			return err
		}
		if connection == 0 {
			connection = cu.Connection
		}
		if cu.Connection != connection {
			return fmt.Errorf("customer %d is of connection %d, and the contact of connection %d: create another contact there", cu.ID, cu.Connection, connection)
		}
		if !slices.Contains(*into, cu) {
			*into = append(*into, cu)
		}
	}
	if len(words) == 0 {
		return nil
	}
	var removed bool
	err := tx.GetContext(ctx, &removed, `SELECT state = 'removed' FROM connections WHERE tenant_id = $1 AND id = $2`, tenant, connection)
	if err == nil && removed {
		err = fmt.Errorf("connection %d was removed: its customers get no mail; add it again with `syncctl connection add`", connection)
	}
	return err
}

// join adds places at customers where the contact has none yet, and returns whether there were any.
func (o ownContact) join(ctx context.Context, tx *sqlx.Tx, tenant int64, at []customerFound, role string, by By) (bool, error) {
	var added []Place
	for _, cu := range at {
		if slices.ContainsFunc(o.places, func(p Place) bool { return p.Customer == cu.ID }) {
			continue
		}
		p := Place{Connection: o.Connection, Customer: cu.ID, CustomerName: cu.Name, Origin: string(contact.FromCentime), Active: true}
		err := tx.GetContext(ctx, &p.ID, `
			INSERT INTO customer_contacts (tenant_id, connection_id, customer_id, contact_id, origin, active) VALUES ($1, $2, $3, $4, 'centime', true)
			RETURNING id`, tenant, o.Connection, cu.ID, o.ID)
		if err != nil {
			return false, err
		}
		if err := tell(ctx, tx, tenant, &o.Connection, "contact", o.ID, []change{{p.field(), "", p.name()}}, by); err != nil {
			return false, err
		}
		added = append(added, p)
	}
	if role == "" {
		return len(added) > 0, nil
	}
	_, err := choose(ctx, tx, tenant, added, role, by)
	return len(added) > 0, err
}

// In the history a place is a fact of the contact, since its own row is deleted with it.
func (p Place) field() string { return fmt.Sprintf("%s%d", fieldPlace, p.ID) }
func (p Place) name() string  { return fmt.Sprintf("%s (%d)", p.CustomerName, p.Customer) }

// leave deletes places, choices included.
func (o ownContact) leave(ctx context.Context, tx *sqlx.Tx, tenant int64, gone []Place, by By) error {
	var ids []int64
	for _, p := range gone {
		ids = append(ids, p.ID)
		if p.ChosenID != 0 {
			if err := tell(ctx, tx, tenant, &o.Connection, "customer_contact", p.ID, []change{{fieldChoice, nameOf(p.choice()), ""}}, by); err != nil {
				return err
			}
		}
		if err := tell(ctx, tx, tenant, &o.Connection, "contact", o.ID, []change{{p.field(), p.name(), ""}}, by); err != nil {
			return err
		}
	}
	for _, statement := range []string{
		`DELETE FROM role_choices WHERE tenant_id = $1 AND customer_contact_id = ANY ($2)`,
		`DELETE FROM customer_contacts WHERE tenant_id = $1 AND id = ANY ($2)`,
	} {
		if _, err := tx.ExecContext(ctx, statement, tenant, pq.Array(ids)); err != nil {
			return err
		}
	}
	return nil
}

// putPoints makes the contact's points these, and returns what changed.
func (o ownContact) putPoints(ctx context.Context, tx *sqlx.Tx, tenant int64, points []contact.OwnPoint) ([]change, error) {
	type at struct {
		field string
		place int
	}
	was := map[at]contact.OwnPoint{}
	for _, p := range o.points {
		was[at{p.Field, p.Place}] = p
	}
	var changes []change
	note := func(p contact.OwnPoint, what, before, now string) {
		if before != now {
			changes = append(changes, change{fmt.Sprintf("point:%s:%d%s", p.Field, p.Place, what), before, now})
		}
	}
	var put pointColumns
	var first, last []string
	for _, p := range points {
		before, known := was[at{p.Field, p.Place}]
		delete(was, at{p.Field, p.Place})
		if known && before == p {
			continue
		}
		put.add(o.ID, p.Point)
		first, last = append(first, p.First), append(last, p.Last)
		note(p, "", before.Value, p.Value)
		note(p, ":days", before.Days.String(), p.Days.String())
		if known && before.Value == p.Value {
			note(p, ":primary", fmt.Sprint(before.Primary), fmt.Sprint(p.Primary))
		}
	}
	var drop pointColumns
	for _, p := range slices.SortedFunc(maps.Values(was), func(a, b contact.OwnPoint) int { return a.Place - b.Place }) {
		drop.add(o.ID, p.Point)
		note(p, "", p.Value, "")
	}
	if len(drop.contact) > 0 {
		_, err := tx.ExecContext(ctx, `
			DELETE FROM contact_points c USING unnest($2::bigint[], $3::text[], $4::smallint[]) AS p (contact_id, field, place)
			WHERE c.tenant_id = $1 AND c.contact_id = p.contact_id AND c.field = p.field AND c.place = p.place`,
			tenant, drop.contact, drop.field, drop.place)
		if err != nil {
			return nil, err
		}
	}
	if len(put.contact) == 0 {
		return changes, nil
	}
	_, err := tx.ExecContext(ctx, `
		INSERT INTO contact_points (tenant_id, origin, contact_id, field, place, kind, value, normalised, main, is_primary, usable, first_day, last_day)
		SELECT $1, 'centime', p.contact, p.field, p.place, p.kind, p.value, p.normalised, p.main, p.is_primary, p.usable,
			nullif(p.first, '')::date, nullif(p.last, '')::date
		FROM unnest($2::bigint[], $3::text[], $4::smallint[], $5::text[], $6::text[], $7::text[], $8::bool[], $9::bool[], $10::bool[], $11::text[], $12::text[])
			AS p (contact, field, place, kind, value, normalised, main, is_primary, usable, first, last)
		ON CONFLICT (tenant_id, contact_id, field, place) DO UPDATE SET kind = excluded.kind, value = excluded.value,
			normalised = excluded.normalised, main = excluded.main, is_primary = excluded.is_primary, usable = excluded.usable,
			first_day = excluded.first_day, last_day = excluded.last_day`,
		tenant, put.contact, put.field, put.place, put.kind, put.value, put.normalised, put.main, put.primary, put.usable, first, last)
	return changes, err
}

// UpdateContact edits a contact of Centime's own. Two edits at once are made one after the other, and neither is lost.
func (s *Store) UpdateContact(ctx context.Context, tenant int64, e ContactEdit, how Weigh, by By) (ContactChange, error) {
	var c ContactChange
	var o ownContact
	var joins []customerFound
	var leaves []Place
	var err error
	c.Mail, err = s.decided(ctx, asApp, tenant, how, func(tx *sqlx.Tx) (ids []int64, err error) {
		if o, err = lockOwn(ctx, tx, tenant, e.Contact); err != nil {
			return nil, err
		}
		if !e.Seen.IsZero() && !e.Seen.Equal(o.UpdatedAt) {
			return nil, ErrMeanwhile
		}
		joins, leaves = nil, nil
		if err := joinable(ctx, tx, tenant, o.Connection, e.Join, &joins); err != nil {
			return nil, err
		}
		for _, word := range e.Leave {
			cu, err := findCustomer(ctx, tx, tenant, word)
			if err != nil {
				return nil, err
			}
			i := slices.IndexFunc(o.places, func(p Place) bool { return p.Customer == cu.ID })
			if i < 0 {
				return nil, fmt.Errorf("contact %d is not at customer %d: it is at %s", o.ID, cu.ID, placeNames(o.places))
			}
			leaves = append(leaves, o.places[i])
		}
		if len(leaves) == len(o.places) && len(joins) == 0 {
			return nil, fmt.Errorf("contact %d would be at no customer any more: delete it with `syncctl contact delete`", o.ID)
		}
		for _, p := range o.places {
			ids = append(ids, p.Customer)
		}
		for _, cu := range joins {
			ids = append(ids, cu.ID)
		}
		return ids, nil
	}, func(tx *sqlx.Tx) (err error) {
		c.Contact, c.Seen = o.ID, o.UpdatedAt
		if c.Changed, err = o.edit(ctx, tx, tenant, e, joins, leaves, by); err != nil {
			return err
		}
		c.Left, err = left(ctx, tx, tenant, o.ID)
		return err
	})
	if err != nil {
		return ContactChange{}, fmt.Errorf("update contact: %w", err)
	}
	return c, nil
}

func (o ownContact) edit(ctx context.Context, tx *sqlx.Tx, tenant int64, e ContactEdit, joins []customerFound, leaves []Place, by By) (bool, error) {
	var changes []change
	set := func(field string, now, to *string) {
		if to != nil && *to != *now {
			changes = append(changes, change{field, *now, *to})
			*now = *to
		}
	}
	set("name", &o.Name, e.Name)
	set("given_name", &o.GivenName, e.GivenName)
	set("family_name", &o.FamilyName, e.FamilyName)
	set("job_title", &o.JobTitle, e.JobTitle)
	if err := o.person().Check(); err != nil {
		return false, err
	}
	points, err := e.Points.Apply(o.points)
	if err != nil {
		return false, err
	}
	changedPoints, err := o.putPoints(ctx, tx, tenant, points)
	if err != nil {
		return false, fmt.Errorf("write points: %w", err)
	}
	changes = append(changes, changedPoints...)
	if err := tell(ctx, tx, tenant, &o.Connection, "contact", o.ID, changes, by); err != nil {
		return false, err
	}
	if err := o.leave(ctx, tx, tenant, leaves, by); err != nil {
		return false, fmt.Errorf("leave customers: %w", err)
	}
	joined, err := o.join(ctx, tx, tenant, joins, e.Role, by)
	if err != nil {
		return false, err
	}
	if len(changes) == 0 && len(leaves) == 0 && !joined {
		return false, nil
	}
	_, err = tx.ExecContext(ctx, `UPDATE contacts SET name = $3, given_name = $4, family_name = $5, job_title = $6, updated_at = now()
		WHERE tenant_id = $1 AND id = $2`, tenant, o.ID, o.Name, o.GivenName, o.FamilyName, o.JobTitle)
	return true, err
}

// DeleteContact removes a contact of Centime's own with its points, places and choices. What it was stays in the history.
func (s *Store) DeleteContact(ctx context.Context, tenant int64, idOrAddress string, how Weigh, by By) (ContactChange, error) {
	var c ContactChange
	var o ownContact
	var err error
	c.Mail, err = s.decided(ctx, asApp, tenant, how, func(tx *sqlx.Tx) (ids []int64, err error) {
		if o, err = lockOwn(ctx, tx, tenant, idOrAddress); err != nil {
			return nil, err
		}
		for _, p := range o.places {
			ids = append(ids, p.Customer)
		}
		return ids, nil
	}, func(tx *sqlx.Tx) error {
		c.Contact, c.Changed, c.Seen = o.ID, true, o.UpdatedAt
		gone, err := o.putPoints(ctx, tx, tenant, nil)
		if err != nil {
			return fmt.Errorf("delete points: %w", err)
		}
		if err := o.leave(ctx, tx, tenant, o.places, by); err != nil {
			return fmt.Errorf("leave customers: %w", err)
		}
		if _, err := tx.ExecContext(ctx, `DELETE FROM contacts WHERE tenant_id = $1 AND id = $2`, tenant, o.ID); err != nil {
			return err
		}
		return tell(ctx, tx, tenant, &o.Connection, "contact", o.ID, append(gone, change{fieldDeleted, o.Name, ""}), by)
	})
	if err != nil {
		return ContactChange{}, fmt.Errorf("delete contact: %w", err)
	}
	return c, nil
}

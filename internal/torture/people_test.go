package torture

import (
	"cmp"
	"database/sql"
	"errors"
	"fmt"
	"maps"
	"math/rand/v2"
	"slices"
	"time"

	"github.com/centime/contactsync/internal/contact"
	"github.com/centime/contactsync/internal/postgres"
)

// tenant is a company that uses Centime, with what its people did there: the model that no sync may change.
type tenant struct {
	id     int64
	zone   *time.Location
	roles  map[int64]*role
	mapped map[mapping]int64           // role of those ERP roles that have one by default
	own    map[int64]*ownContact       // contacts created in Centime, by id
	chosen map[int64]int64             // role, by customer contact
	rows   map[string]map[int64]string // the rows themselves, as they were written
}

// mapping names an ERP role of a connection.
type mapping struct {
	connection int64
	key        string
}

type role struct {
	name                   string
	invoice, communication bool
}

type ownContact struct {
	customer, link int64
	address        string
	first, last    string // days; empty: none
}

// people lets people of a tenant work in Centime, by the store's commands. It says what they did.
func (w *world) people(t *tenant, rng *rand.Rand) string {
	by := postgres.By{User: fmt.Sprintf("person-%d", rng.IntN(5)), Reason: "torture"}
	switch rng.IntN(10) {
	case 0, 1, 2:
		return w.createContact(t, rng, by)
	case 3:
		return w.editContact(t, rng, by)
	case 4:
		return w.deleteContact(t, rng, by)
	case 5, 6:
		return w.chooseRole(t, rng, by)
	case 7:
		return w.addRole(t, rng, by)
	case 8:
		id := anyOf(rng, t.roles)
		invoice, communication := rng.IntN(2) == 0, rng.IntN(2) == 0
		_, err := w.ops.SetRole(w.ctx, t.id, fmt.Sprint(id), &invoice, &communication, postgres.Weigh{}, by)
		w.check(err)
		t.roles[id].invoice, t.roles[id].communication = invoice, communication
		return "role's mail set"
	}
	return w.mapRole(t, rng, by)
}

// anyOf is a random key of a map.
func anyOf[V any](rng *rand.Rand, m map[int64]V) int64 {
	ids := slices.Sorted(maps.Keys(m))
	return ids[rng.IntN(len(ids))]
}

// anyRow is a random id that a query finds; 0 if there is none.
func (w *world) anyRow(rng *rand.Rand, query string, args ...any) int64 {
	var ids []int64
	rows, err := w.db.QueryContext(w.ctx, query, args...)
	if err != nil {
		w.t.Fatalf("people: %v", err)
	}
	defer rows.Close()
	for rows.Next() {
		var id int64
		if err := rows.Scan(&id); err != nil {
			w.t.Fatalf("people: %v", err)
		}
		ids = append(ids, id)
	}
	if err := rows.Err(); err != nil {
		w.t.Fatalf("people: %v", err)
	}
	if len(ids) == 0 {
		return 0
	}
	return ids[rng.IntN(len(ids))]
}

func (w *world) createContact(t *tenant, rng *rand.Rand, by postgres.By) string {
	customer := w.anyRow(rng, `SELECT id FROM contactsync.customers WHERE tenant_id = $1 ORDER BY id`, t.id)
	if customer == 0 {
		return "nothing"
	}
	w.made++
	typed := fmt.Sprintf("Own.%d@Centime-Own.example", w.made)
	if rng.IntN(4) == 0 { // the address of a contact from the ERP, in capitals: one mail, not two
		_ = w.db.QueryRowContext(w.ctx, `SELECT upper(p.normalised) FROM contactsync.contact_points p JOIN contactsync.customer_contacts l
			ON l.tenant_id = p.tenant_id AND l.contact_id = p.contact_id WHERE l.tenant_id = $1 AND l.customer_id = $2 AND p.kind = 'email' AND p.usable
			ORDER BY p.contact_id, p.place LIMIT 1`, t.id, customer).Scan(&typed) // if it has one
	}
	c := &ownContact{customer: customer}
	c.address, _ = address(typed)
	switch today := time.Now().In(t.zone); rng.IntN(6) {
	case 0:
		c.last = today.AddDate(0, 0, -2).Format(time.DateOnly)
	case 1:
		c.first = today.AddDate(0, 0, 2).Format(time.DateOnly)
	case 2:
		c.first, c.last = today.AddDate(0, 0, -3).Format(time.DateOnly), today.AddDate(0, 0, 3).Format(time.DateOnly)
	}
	new := postgres.NewContact{
		Person: contact.Person{Name: fmt.Sprintf("Own Contact %d", w.made)}, Customers: []string{fmt.Sprint(customer)},
		Points: contact.PointEdits{Add: []contact.NewPoint{{Kind: contact.Email, Value: typed}}},
	}
	if c.first+c.last != "" {
		new.Points.Days = []contact.PointDays{{Value: typed, Days: contact.Days{First: c.first, Last: c.last}}}
	}
	role := int64(0)
	if rng.IntN(3) > 0 {
		role = anyOf(rng, t.roles)
		new.Role = fmt.Sprint(role)
	}
	made, err := w.ops.CreateContact(w.ctx, t.id, new, postgres.Weigh{}, by)
	w.check(err)
	c.link = one[int64](w, `SELECT id FROM contactsync.customer_contacts WHERE contact_id = $1`, made.Contact)
	t.own[made.Contact] = c
	if role != 0 {
		t.chosen[c.link] = role
	}
	w.remember(t, made.Contact, c.link)
	return "own contact created"
}

// remember keeps the rows of a contact as people left them; contact 0: of its choice only, since it is the ERP's.
func (w *world) remember(t *tenant, contact, link int64) {
	for _, part := range []struct {
		table, key string
		id         int64
	}{{"contacts", "id", contact}, {"customer_contacts", "id", link}, {"contact_points", "contact_id", contact}, {"role_choices", "customer_contact_id", link}} {
		if contact == 0 && part.table != "role_choices" {
			continue
		}
		if t.rows[part.table] == nil {
			t.rows[part.table] = map[int64]string{}
		}
		text := w.row(part.table, part.key, part.id)
		if text == "" {
			delete(t.rows[part.table], part.id)
		} else {
			t.rows[part.table][part.id] = text
		}
	}
}

// row is a row of a table as text, empty if there is none.
func (w *world) row(table, key string, id int64) string {
	var text string
	err := w.db.QueryRowContext(w.ctx, fmt.Sprintf(`SELECT to_json(t)::text FROM contactsync.%s t WHERE %s = $1`, table, key), id).Scan(&text)
	if err != nil && !errors.Is(err, sql.ErrNoRows) {
		w.t.Fatalf("read %s: %v", table, err)
	}
	return text
}

func (w *world) editContact(t *tenant, rng *rand.Rand, by postgres.By) string {
	if len(t.own) == 0 {
		return "nothing"
	}
	id := anyOf(rng, t.own)
	c := t.own[id]
	w.made++
	new := fmt.Sprintf("edited.%d@centime-own.example", w.made)
	was := one[string](w, `SELECT value FROM contactsync.contact_points WHERE contact_id = $1`, id)
	_, err := w.ops.UpdateContact(w.ctx, t.id, postgres.ContactEdit{Contact: fmt.Sprint(id), Points: contact.PointEdits{
		Drop: []string{was}, Add: []contact.NewPoint{{Kind: contact.Email, Value: new}},
	}}, postgres.Weigh{}, by)
	w.check(err)
	c.address, c.first, c.last = new, "", ""
	w.remember(t, id, c.link)
	return "own contact edited"
}

func (w *world) deleteContact(t *tenant, rng *rand.Rand, by postgres.By) string {
	if len(t.own) == 0 {
		return "nothing"
	}
	id := anyOf(rng, t.own)
	link := t.own[id].link
	_, err := w.ops.DeleteContact(w.ctx, t.id, fmt.Sprint(id), postgres.Weigh{}, by)
	w.check(err)
	delete(t.own, id)
	delete(t.chosen, link)
	w.remember(t, id, link)
	return "own contact deleted"
}

// chooseRole gives a contact another role than its ERP's, or another of its own.
func (w *world) chooseRole(t *tenant, rng *rand.Rand, by postgres.By) string {
	link := w.anyRow(rng, `SELECT id FROM contactsync.customer_contacts WHERE tenant_id = $1 ORDER BY id`, t.id)
	if link == 0 {
		return "nothing"
	}
	var person, customer int64
	w.check(w.db.QueryRowContext(w.ctx, `SELECT contact_id, customer_id FROM contactsync.customer_contacts WHERE id = $1`, link).Scan(&person, &customer))
	id := anyOf(rng, t.roles)
	_, _, err := w.ops.AssignRole(w.ctx, t.id, postgres.Assignment{
		Contact: fmt.Sprint(person), Customer: fmt.Sprint(customer), Role: fmt.Sprint(id),
	}, postgres.Weigh{}, by)
	w.check(err)
	t.chosen[link] = id
	w.remember(t, 0, link)
	return "role chosen"
}

func (w *world) addRole(t *tenant, rng *rand.Rand, by postgres.By) string {
	if len(t.roles) >= 8 {
		return "nothing"
	}
	r := &role{name: fmt.Sprintf("Role %d", len(t.roles)), invoice: rng.IntN(2) == 0, communication: rng.IntN(2) == 0}
	id, err := w.ops.AddRole(w.ctx, t.id, contact.Role{Name: r.name, InvoicePresentment: r.invoice, CommunicationContact: r.communication}, by)
	w.check(err)
	t.roles[id] = r
	return "role added"
}

// mapRole gives an ERP role another role of the tenant's.
func (w *world) mapRole(t *tenant, rng *rand.Rand, by postgres.By) string {
	all := slices.SortedFunc(maps.Keys(t.mapped), func(a, b mapping) int {
		return cmp.Or(cmp.Compare(a.connection, b.connection), cmp.Compare(a.key, b.key))
	})
	m, id := all[rng.IntN(len(all))], anyOf(rng, t.roles)
	c, err := w.ops.FindConnection(w.ctx, fmt.Sprint(m.connection))
	w.check(err)
	_, err = w.ops.MapRole(w.ctx, c, m.key, fmt.Sprint(id), postgres.Weigh{}, by)
	w.check(err)
	t.mapped[m] = id
	return "mapping changed"
}

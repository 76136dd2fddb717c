package postgres

import (
	"context"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/jmoiron/sqlx"
	"github.com/lib/pq"
)

// An Event is one change that concerns a contact: of itself, of its places, of the role it had then, or of its customer.
type Event struct {
	ID         int64     `db:"id" json:"history_id,string"`
	At         time.Time `db:"at" json:"at"`
	Entity     string    `db:"entity" json:"entity"`
	EntityID   int64     `db:"entity_id" json:"entity_id,string"`
	Connection int64     `db:"connection_id" json:"-"`
	Field      string    `db:"field" json:"field"`
	Was        string    `db:"was" json:"was"`
	Became     string    `db:"became" json:"became"`
	Run        int64     `db:"run_id" json:"run_id,string"` // 0: a person did it
	By         string    `db:"by_user" json:"by"`
	Why        string    `db:"reason" json:"reason"`
	Customer   string    `db:"-" json:"customer"` // of a place, or whose activity changed: name and id
}

// History tells what happened to a contact, the oldest first. It takes an id, also of a contact of Centime's that was deleted,
// or an address. What a role or mapping went through is told for the time in which the contact had it.
func (s *Store) History(ctx context.Context, tenant int64, idOrAddress string) ([]Event, error) {
	var events []Event
	err := s.still(ctx, asApp, tenant, func(tx *sqlx.Tx) error {
		id, err := strconv.ParseInt(idOrAddress, 10, 64)
		if err != nil {
			if id, err = findContact(ctx, tx, tenant, idOrAddress); err != nil {
				return err
			}
		}
		events, err = story(ctx, tx, tenant, id)
		return err
	})
	if err != nil {
		return nil, fmt.Errorf("history: %w", err)
	}
	return events, nil
}

// standing is what decides a place's role at one moment, while the story is read backwards.
type standing struct {
	ID         int64  `db:"id"`
	Connection int64  `db:"connection_id"`
	Customer   int64  `db:"customer_id"`
	Name       string `db:"customer_name"`
	Chosen     int64  `db:"chosen_id"`
	Key        string `db:"erp_role_key"`
}

// mappedKey names an ERP role.
type mappedKey struct {
	connection int64
	key        string
}

func story(ctx context.Context, tx *sqlx.Tx, tenant, id int64) ([]Event, error) {
	var places []standing
	err := tx.SelectContext(ctx, &places, `
		SELECT cc.id, cc.connection_id, cc.customer_id, cu.name AS customer_name, coalesce(ch.role_id, 0) AS chosen_id,
			coalesce(cc.erp_role_key, '') AS erp_role_key
		FROM customer_contacts cc JOIN customers cu ON cu.tenant_id = cc.tenant_id AND cu.id = cc.customer_id
		LEFT JOIN role_choices ch ON ch.tenant_id = cc.tenant_id AND ch.customer_contact_id = cc.id
		WHERE cc.tenant_id = $1 AND cc.contact_id = $2`, tenant, id)
	if err != nil {
		return nil, fmt.Errorf("places: %w", err)
	}
	left, err := leftPlaces(ctx, tx, tenant, id)
	if err != nil {
		return nil, fmt.Errorf("places left: %w", err)
	}
	places = append(places, left...)
	var ids, customers, connections []int64
	for _, p := range places {
		ids, customers, connections = append(ids, p.ID), append(customers, p.Customer), append(connections, p.Connection)
	}
	var all []Event
	err = tx.SelectContext(ctx, &all, `
		SELECT id, at, entity, entity_id, coalesce(connection_id, 0) AS connection_id, field, coalesce(was, '') AS was, coalesce(became, '') AS became,
			coalesce(run_id, 0) AS run_id, coalesce(by_user, '') AS by_user, reason
		FROM history WHERE tenant_id = $1 AND (
			entity = 'contact' AND entity_id = $2
			OR entity = 'customer_contact' AND entity_id = ANY ($3)
			OR entity = 'customer' AND entity_id = ANY ($4) AND field IN ('active', 'inactive_reason')
			OR entity = 'connection' AND entity_id = ANY ($5) AND field = 'state' AND 'removed' IN (was, became)
			OR entity = 'role' OR entity = 'role_mapping' AND connection_id = ANY ($5))
		ORDER BY at, id`, tenant, id, pq.Array(some(ids)), pq.Array(some(customers)), pq.Array(some(connections)))
	if err != nil {
		return nil, err
	}
	began, err := beginnings(ctx, tx, tenant, id)
	if err != nil {
		return nil, fmt.Errorf("creation: %w", err)
	}
	mapped, err := mappings(ctx, tx, tenant)
	if err != nil {
		return nil, fmt.Errorf("mappings: %w", err)
	}
	if i := slices.IndexFunc(all, func(e Event) bool { return e.Entity == "contact" && e.Field == "name" }); i >= 0 && len(began) > 0 {
		began[0].Became = all[i].Was // its name then
	}
	events := append(began, concerning(all, places, mapped)...)
	if len(events) == 0 {
		return nil, fmt.Errorf("contact %d: %w", id, ErrNotFound)
	}
	slices.SortStableFunc(events, func(a, b Event) int { return a.At.Compare(b.At) })
	return events, nil
}

// leftPlaces are places that a contact of Centime's had, as its history knows them.
func leftPlaces(ctx context.Context, tx *sqlx.Tx, tenant, id int64) ([]standing, error) {
	var rows []struct {
		Field      string `db:"field"`
		Was        string `db:"was"`
		Connection int64  `db:"connection_id"`
	}
	err := tx.SelectContext(ctx, &rows, `SELECT field, was, connection_id FROM history
		WHERE tenant_id = $1 AND entity = 'contact' AND entity_id = $2 AND starts_with(field, $3) AND became IS NULL`, tenant, id, fieldPlace)
	var out []standing
	for _, r := range rows {
		p := standing{Connection: r.Connection}
		p.ID, _ = strconv.ParseInt(strings.TrimPrefix(r.Field, fieldPlace), 10, 64)
		p.Name, p.Customer = nameAndID(r.Was)
		out = append(out, p)
	}
	return out, err
}

// nameAndID takes apart what nameOf put together; older rows have the id alone.
func nameAndID(text string) (string, int64) {
	open := strings.LastIndex(text, " (")
	if open < 0 {
		id, _ := strconv.ParseInt(text, 10, 64)
		return text, id
	}
	id, _ := strconv.ParseInt(strings.TrimSuffix(text[open+2:], ")"), 10, 64)
	return text[:open], id
}

// beginnings tell when an ERP's contact and its places came; people's creations are history rows.
func beginnings(ctx context.Context, tx *sqlx.Tx, tenant, id int64) ([]Event, error) {
	var out []Event
	err := tx.SelectContext(ctx, &out, `
		SELECT 0 AS id, created_at AS at, 'contact' AS entity, id AS entity_id, connection_id, $3 AS field, '' AS was, name AS became,
			coalesce(created_by_run, 0) AS run_id, '' AS by_user, '' AS reason
		FROM contacts WHERE tenant_id = $1 AND id = $2 AND origin = 'erp'
		UNION ALL
		SELECT 0, l.created_at, 'customer_contact', l.id, l.connection_id, $3, '', cu.name || ' (' || cu.id || ')', coalesce(l.created_by_run, 0), '', ''
		FROM customer_contacts l JOIN customers cu ON cu.tenant_id = l.tenant_id AND cu.id = l.customer_id
		WHERE l.tenant_id = $1 AND l.contact_id = $2 AND l.origin = 'erp' ORDER BY entity, at`, tenant, id, fieldCreated)
	return out, err
}

func mappings(ctx context.Context, tx *sqlx.Tx, tenant int64) (map[mappedKey]int64, error) {
	var rows []struct {
		Connection int64  `db:"connection_id"`
		Key        string `db:"erp_role_key"`
		Role       int64  `db:"role_id"`
	}
	err := tx.SelectContext(ctx, &rows, `SELECT connection_id, erp_role_key, coalesce(role_id, 0) AS role_id FROM role_mappings WHERE tenant_id = $1`, tenant)
	out := map[mappedKey]int64{}
	for _, r := range rows {
		out[mappedKey{r.Connection, r.Key}] = r.Role
	}
	return out, err
}

// concerning goes back from now, undoing each change of choice, ERP role and mapping, so that at each moment it knows which
// roles the places had: a role's or mapping's change concerns the contact if one of them had it then.
func concerning(all []Event, places []standing, mapped map[mappedKey]int64) []Event {
	var out []Event
	for _, e := range slices.Backward(all) {
		told := true
		switch e.Entity {
		case "customer_contact":
			for i := range places {
				if p := &places[i]; p.ID == e.EntityID {
					e.Customer = fmt.Sprintf("%s (%d)", p.Name, p.Customer)
					switch e.Field {
					case fieldChoice:
						_, p.Chosen = nameAndID(e.Was)
					case "erp_role":
						p.Key = e.Was
					}
				}
			}
		case "customer":
			for _, p := range places {
				if p.Customer == e.EntityID {
					e.Customer = fmt.Sprintf("%s (%d)", p.Name, p.Customer)
				}
			}
		case "role":
			told = slices.ContainsFunc(places, func(p standing) bool { return p.role(mapped) == e.EntityID })
		case "role_mapping":
			key := mappedKey{e.Connection, strings.TrimPrefix(strings.TrimPrefix(e.Field, fieldMapped), fieldERPName)}
			told = slices.ContainsFunc(places, func(p standing) bool { return mappedKey{p.Connection, p.Key} == key })
			if strings.HasPrefix(e.Field, fieldMapped) {
				_, mapped[key] = nameAndID(e.Was)
			}
		}
		if told {
			out = append(out, e)
		}
	}
	slices.Reverse(out)
	return out
}

func (p standing) role(mapped map[mappedKey]int64) int64 {
	if p.Chosen != 0 {
		return p.Chosen
	}
	if p.Key == "" {
		return 0
	}
	return mapped[mappedKey{p.Connection, p.Key}]
}

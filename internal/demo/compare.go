package demo

import (
	"context"
	"database/sql"
	"encoding/json"
	"fmt"
	"slices"
	"strconv"
	"strings"
)

// simulated is a customer as the simulator's control port shows it: from its state, and through no connector.
type simulated struct {
	ID             string `json:"id"`
	DisplayName    string `json:"display_name"`
	CompanyName    string `json:"company_name"`
	GivenName      string `json:"given_name"`
	MiddleName     string `json:"middle_name"`
	FamilyName     string `json:"family_name"`
	Email          string `json:"email"`
	Phone          string `json:"phone"`
	AlternatePhone string `json:"alternate_phone"`
	Mobile         string `json:"mobile"`
	Fax            string `json:"fax"`
	Web            string `json:"web"`
	Parent         string `json:"parent"`
	BillWithParent bool   `json:"bill_with_parent"`
	Project        bool   `json:"project"`
	Inactive       bool   `json:"inactive"`
}

// expected is what Postgres must hold of it, field by field.
func (s simulated) expected() map[string]string {
	name := strings.TrimSpace(s.DisplayName)
	if s.Inactive {
		name = strings.TrimSuffix(name, " (deleted)")
	}
	kind := "customer"
	if s.Parent != "" {
		kind = "sub_customer"
	}
	if s.Project {
		kind = "project"
	}
	person := strings.Join(strings.Fields(strings.Join([]string{s.GivenName, s.MiddleName, s.FamilyName}, " ")), " ")
	if person == "" {
		person = name
	}
	fields := map[string]string{
		"name": name, "parent": s.Parent, "bill_with_parent": strconv.FormatBool(s.BillWithParent), "kind": kind,
		"active": strconv.FormatBool(!s.Inactive), "contact": person, "contact_active": strconv.FormatBool(!s.Inactive),
		"given_name": strings.TrimSpace(s.GivenName), "family_name": strings.TrimSpace(s.FamilyName), "linked": "true", "erp_role": "Company Contact",
	}
	for field, value := range map[string]string{
		"PrimaryPhone": s.Phone, "AlternatePhone": s.AlternatePhone, "Mobile": s.Mobile, "Fax": s.Fax, "WebAddr": s.Web,
	} {
		if value = strings.TrimSpace(value); value != "" {
			fields[field+" 1"] = value
		}
	}
	for i, address := range addresses(s.Email) {
		fields[fmt.Sprintf("PrimaryEmailAddr %d", i+1)] = address
	}
	return fields
}

// addresses are those of a mail field.
func addresses(field string) (all []string) {
	for address := range strings.FieldsFuncSeq(field, func(r rune) bool { return r == ',' || r == ';' }) {
		if address = strings.TrimSpace(address); address != "" {
			all = append(all, address)
		}
	}
	return all
}

// held reads the same fields of one connection from Postgres.
func held(ctx context.Context, db *sql.DB, account string) (map[string]map[string]string, error) {
	return readFacts(ctx, db, `
		SELECT cu.erp_id, json_build_object('name', cu.name, 'parent', cu.parent_erp_id, 'bill_with_parent', cu.bill_with_parent::text, 'kind', cu.kind,
				'active', cu.active::text, 'contact', co.name, 'contact_active', co.active::text, 'given_name', co.given_name,
				'family_name', co.family_name, 'linked', coalesce(cc.active::text, 'no row'), 'erp_role', coalesce(m.erp_role_name, '')),
			coalesce((SELECT json_object_agg(p.field || ' ' || p.place, p.value) FROM contactsync.contact_points p
				WHERE p.tenant_id = co.tenant_id AND p.contact_id = co.id), '{}')
		FROM contactsync.connections n
		JOIN contactsync.customers cu ON cu.tenant_id = n.tenant_id AND cu.connection_id = n.id
		LEFT JOIN contactsync.contacts co ON co.tenant_id = n.tenant_id AND co.connection_id = n.id AND co.erp_id = 'customer:' || cu.erp_id
		LEFT JOIN contactsync.customer_contacts cc ON cc.tenant_id = n.tenant_id AND cc.customer_id = cu.id AND cc.contact_id = co.id
		LEFT JOIN contactsync.role_mappings m ON m.tenant_id = n.tenant_id AND m.connection_id = n.id AND m.erp_role_key = cc.erp_role_key
		WHERE n.account = $1`, account)
}

// readFacts reads records by id, each with its fields in two parts.
func readFacts(ctx context.Context, db *sql.DB, query, account string) (map[string]map[string]string, error) {
	rows, err := db.QueryContext(ctx, query, account)
	if err != nil {
		return nil, fmt.Errorf("read Postgres: %w", err)
	}
	defer rows.Close()
	out := map[string]map[string]string{}
	for rows.Next() {
		var id string
		var facts, points []byte
		if err := rows.Scan(&id, &facts, &points); err != nil {
			return nil, fmt.Errorf("read Postgres: %w", err)
		}
		fields := map[string]string{}
		for _, part := range [][]byte{facts, points} {
			if err := json.Unmarshal(part, &fields); err != nil {
				return nil, fmt.Errorf("read Postgres: %s: %w", id, err)
			}
		}
		out[id] = fields
	}
	return out, rows.Err()
}

// compare says how many fields it compared, and in which customers and fields the two differ.
func compare(erp []simulated, held map[string]map[string]string) (fields int, differences []string) {
	want := map[string]map[string]string{}
	for _, s := range erp {
		want[s.ID] = s.expected()
	}
	return differ("customer", want, held)
}

// differ compares records of one kind, by id and field. What is gone from the ERP must be inactive.
func differ(what string, want, held map[string]map[string]string) (fields int, differences []string) {
	for id, want := range want {
		got := held[id]
		if got == nil {
			differences = append(differences, fmt.Sprintf("%s %s is missing", what, id))
			continue
		}
		names := map[string]bool{}
		for name := range want {
			names[name] = true
		}
		for name := range got {
			names[name] = true
		}
		for name := range names {
			fields++
			if want[name] != got[name] {
				differences = append(differences, fmt.Sprintf("%s %s: %s differs", what, id, name))
			}
		}
	}
	for id, got := range held {
		if want[id] != nil {
			continue
		}
		fields++
		if got["active"] != "false" {
			differences = append(differences, fmt.Sprintf("%s %s is gone from the ERP and active here", what, id))
		}
	}
	slices.Sort(differences)
	return fields, differences
}

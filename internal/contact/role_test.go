package contact_test

import (
	"fmt"
	"slices"
	"strings"
	"testing"

	"pgregory.net/rapid"

	"github.com/centime/contactsync/internal/contact"
)

// No default starts invoice mail.
func TestDefaultRole(t *testing.T) {
	t.Parallel()
	for key, want := range map[string]string{"company": "Company Contact", "-10": "Primary Contact"} {
		r, ok := contact.DefaultRole(key)
		if !ok || r.Name != want || r.InvoicePresentment || !r.CommunicationContact || r.ID != 0 {
			t.Errorf("the default of %s is %+v, %t", key, r, ok)
		}
	}
	for _, key := range []string{"", "10", "-20", "Company", "Primary Contact"} {
		if r, ok := contact.DefaultRole(key); ok || r != (contact.Role{}) {
			t.Errorf("the key %q has the default %+v: only the two known ones have any", key, r)
		}
	}
}

func TestRoleForNewKey(t *testing.T) {
	t.Parallel()
	silent := contact.Role{ID: 1, Name: "Bookkeeper"}
	invoiced := contact.Role{ID: 2, Name: "Bookkeeper", InvoicePresentment: true}
	reminded := contact.Role{ID: 3, Name: "Bookkeeper", CommunicationContact: true}
	own := contact.Role{ID: 4, Name: "Bookkeeper (NetSuite)"}
	for _, c := range []struct {
		name   string
		roles  []contact.Role
		joins  int64
		create string
		full   bool
	}{
		{"Bookkeeper", nil, 0, "Bookkeeper (NetSuite)", false},
		{" Bookkeeper\t", []contact.Role{silent}, 1, "", false},
		{"BOOKKEEPER", []contact.Role{silent}, 1, "", false},
		{"Bookkeeper", []contact.Role{invoiced}, 0, "Bookkeeper (NetSuite)", false},
		{"Bookkeeper", []contact.Role{reminded}, 0, "Bookkeeper (NetSuite)", false},
		{"Bookkeeper", []contact.Role{reminded, own}, 0, "Bookkeeper (NetSuite 2)", false},
		{"Bookkeeper", []contact.Role{reminded, own, {Name: "bookkeeper (netsuite 2)"}}, 0, "Bookkeeper (NetSuite 3)", false},
		{"", nil, 0, "Unnamed role (NetSuite)", false},
		{"Bookkeeper", append(many(29), silent), 1, "", false},
		{"Bookkeeper", append(many(29), invoiced), 0, "", true},
		{"Bookkeeper", many(29), 0, "Bookkeeper (NetSuite)", false},
		{"Bookkeeper", many(30), 0, "", true},
		{"Bookkeeper", many(40), 0, "", true},
	} {
		join, create, full := contact.RoleForNewKey(c.name, "NetSuite", c.roles)
		var joins int64
		if join != nil {
			joins = join.ID
		}
		if joins != c.joins || create != c.create || full != c.full {
			t.Errorf("%q beside %d roles joins %d, creates %q, full %t; want %d, %q, %t",
				c.name, len(c.roles), joins, create, full, c.joins, c.create, c.full)
		}
	}
}

func many(n int) []contact.Role {
	roles := make([]contact.Role, n)
	for i := range roles {
		roles[i] = contact.Role{ID: int64(100 + i), Name: fmt.Sprintf("Role %d", i)}
	}
	return roles
}

// However many roles an ERP states, and whatever their names and the tenant's roles: none starts mail, and none is the
// tenant's 31st.
func TestNewKeysNeverStartMail(t *testing.T) {
	t.Parallel()
	name := rapid.SampledFrom([]string{
		"Bookkeeper", "bookkeeper", " BOOKKEEPER ", "Bookkeeper (NetSuite)", "Bookkeeper (NetSuite 2)", "Company Contact",
		"Primary Contact", "", "Unnamed role", "Ünïcode", "ünïcode",
	})
	role := rapid.Custom(func(t *rapid.T) contact.Role {
		return contact.Role{Name: strings.TrimSpace(name.Draw(t, "role")),
			InvoicePresentment: rapid.Bool().Draw(t, "invoices"), CommunicationContact: rapid.Bool().Draw(t, "reminders")}
	})
	rapid.Check(t, func(t *rapid.T) {
		roles := append(many(rapid.IntRange(0, contact.RoleMax).Draw(t, "others")),
			rapid.SliceOfN(role, 0, 6).Draw(t, "roles")...)
		before := max(len(roles), contact.RoleMax)
		for _, key := range rapid.SliceOfN(name, 1, 20).Draw(t, "keys") {
			had := slices.Clone(roles)
			join, create, full := contact.RoleForNewKey(key, "NetSuite", roles)
			if !slices.Equal(had, roles) {
				t.Fatalf("the tenant's roles changed")
			}
			outcomes := 0
			for _, o := range []bool{join != nil, create != "", full} {
				if o {
					outcomes++
				}
			}
			if outcomes != 1 {
				t.Fatalf("%q has %d outcomes", key, outcomes)
			}
			if join != nil && (join.InvoicePresentment || join.CommunicationContact) {
				t.Fatalf("%q joins a role with mail: %+v", key, *join)
			}
			if create != "" {
				if slices.ContainsFunc(roles, func(r contact.Role) bool { return strings.EqualFold(r.Name, create) }) {
					t.Fatalf("%q becomes %q, which is taken", key, create)
				}
				roles = append(roles, contact.Role{Name: create})
			}
			if len(roles) > before {
				t.Fatalf("the tenant has %d roles", len(roles))
			}
		}
	})
}

// A customer's own contact can be told from every other, whatever the ids.
func TestOwnID(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(t *rapid.T) {
		id := rapid.String().Draw(t, "id")
		if owner, ok := contact.OwnerOf(contact.OwnID(id)); !ok || owner != id {
			t.Fatalf("the own contact of %q is that of %q, %t", id, owner, ok)
		}
	})
	for _, id := range []string{"", "214", "Customer:214", "xcustomer:214"} {
		if owner, ok := contact.OwnerOf(id); ok || contact.OwnID("214") != "customer:214" {
			t.Errorf("contact %q is the own contact of %q", id, owner)
		}
	}
}

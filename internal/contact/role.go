package contact

import (
	"fmt"
	"strings"
)

// RoleMax is the number of roles a tenant may have, synced ones included. The database enforces it too.
const RoleMax = 30

// CompanyRoleKey is the ERP role key of a customer's own record, in every ERP.
const CompanyRoleKey = "company"

// primaryContactKey is NetSuite's Primary Contact: the id is fixed, its name is not.
const primaryContactKey = "-10"

// CommunicationType is a sort of mail.
type CommunicationType string

// Invoice delivery mail; and reminders, workflow mail and statements.
const (
	InvoicePresentment   CommunicationType = "invoice_presentment"
	CommunicationContact CommunicationType = "communication_contact"
)

// A Role is a tenant's named set of communication types.
type Role struct {
	ID                   int64
	Name                 string
	InvoicePresentment   bool
	CommunicationContact bool
}

// DefaultRole is the role an ERP role key stands for from the day a connection is made. Invoice presentment is never
// on by default: a tenant turns it on.
func DefaultRole(key string) (Role, bool) {
	switch key {
	case CompanyRoleKey:
		return Role{Name: "Company Contact", CommunicationContact: true}, true
	case primaryContactKey:
		return Role{Name: "Primary Contact", CommunicationContact: true}, true
	}
	return Role{}, false
}

// DefaultRoleKeys are the keys that a connection to this ERP has a default role for.
func DefaultRoleKeys(erp string) []string {
	if erp == "netsuite" {
		return []string{CompanyRoleKey, primaryContactKey}
	}
	return []string{CompanyRoleKey}
}

// RoleForNewKey decides what an ERP role met for the first time becomes, so that it never starts mail: it joins a role
// of the same name if that has no communication type, else it gets a role of its own, `NAME (ERP)`, without any.
// full: there is no room for another role.
func RoleForNewKey(name, erpLabel string, roles []Role) (join *Role, create string, full bool) {
	name = strings.TrimSpace(name)
	if name == "" {
		name = "Unnamed role"
	}
	taken := func(name string) *Role {
		for i := range roles {
			if strings.EqualFold(roles[i].Name, name) {
				return &roles[i]
			}
		}
		return nil
	}
	if r := taken(name); r != nil && !r.InvoicePresentment && !r.CommunicationContact {
		return r, "", false
	}
	if len(roles) >= RoleMax {
		return nil, "", true
	}
	create = fmt.Sprintf("%s (%s)", name, erpLabel)
	for n := 2; taken(create) != nil; n++ {
		create = fmt.Sprintf("%s (%s %d)", name, erpLabel, n)
	}
	return nil, create, false
}

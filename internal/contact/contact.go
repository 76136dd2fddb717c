// Package contact holds the words and rules of customer contacts: who is one, how one is reached, and who gets which
// mail. It imports nothing else of this module and does no I/O.
package contact

import "strings"

// Origin says where a contact was created. A contact of origin Centime never goes to an ERP, and no sync touches it.
type Origin string

// The two origins.
const (
	FromERP     Origin = "erp"
	FromCentime Origin = "centime"
)

// InactiveReason says why a customer, contact or customer contact is not active.
type InactiveReason string

// Every reason there is; CustomerInactive is derived, never stored.
const (
	ERPInactive      InactiveReason = "erp_inactive"
	ERPDeleted       InactiveReason = "erp_deleted"
	ERPMerged        InactiveReason = "erp_merged"
	ERPAbsent        InactiveReason = "erp_absent"
	Detached         InactiveReason = "detached"
	CustomerInactive InactiveReason = "customer_inactive"
)

// CustomerKind says what sort of customer record it is.
type CustomerKind string

// QuickBooks Online cannot tell a job from a sub-customer; NetSuite has leads and prospects.
const (
	Customer    CustomerKind = "customer"
	SubCustomer CustomerKind = "sub_customer"
	Project     CustomerKind = "project"
	Lead        CustomerKind = "lead"
	Prospect    CustomerKind = "prospect"
)

const ownPrefix = "customer:"

// OwnID is the ERP id of the contact that a customer's own record is.
func OwnID(customerID string) string { return ownPrefix + customerID }

// OwnerOf is the customer whose own record the contact is, if it is one.
func OwnerOf(contactID string) (customerID string, ok bool) {
	return strings.CutPrefix(contactID, ownPrefix)
}

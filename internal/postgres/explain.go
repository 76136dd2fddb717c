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

	"github.com/centime/contactsync/internal/contact"
)

// Explanation says of an address, or of a contact, who gets which mail and why, from the ERP's record to the mail. Of an address
// that nobody has it says what keeps it away.
type Explanation struct {
	Contacts []Explained `json:"contacts"`
	Earlier  []Earlier   `json:"earlier"`     // contacts that had the address
	Read     []Reading   `json:"connections"` // if no contact has the address: how far the tenant's connections were read
}

// Explained is a contact with its addresses and places.
type Explained struct {
	ID             int64              `db:"id" json:"contact_id,string"`
	Origin         string             `db:"origin" json:"origin"`
	ERPID          string             `db:"erp_id" json:"contact_erp_id"`
	Name           string             `db:"name" json:"name"`
	Active         bool               `db:"active" json:"active"`
	Reason         string             `db:"inactive_reason" json:"inactive_reason"`
	Connection     int64              `db:"connection_id" json:"connection_id,string"`
	ConnectionName string             `db:"connection_name" json:"connection_name"`
	ERP            string             `db:"erp" json:"erp"`
	State          string             `db:"state" json:"connection_state"`
	Addresses      []ExplainedAddress `db:"-" json:"addresses"`
	Places         []ExplainedPlace   `db:"-" json:"places"`
	Issues         []string           `db:"-" json:"issues"` // open ones of its records
}

// ExplainedAddress is an address of a contact, and where it stands.
type ExplainedAddress struct {
	Contact  int64  `db:"contact_id" json:"-"`
	Field    string `db:"field" json:"field"`
	Place    int    `db:"place" json:"place"`
	Value    string `db:"value" json:"value"`
	Email    string `db:"normalised" json:"email"`
	Main     bool   `db:"main" json:"main"`
	Usable   bool   `db:"usable" json:"usable"`
	FirstDay string `db:"first_day" json:"first_day"`
	LastDay  string `db:"last_day" json:"last_day"`
	Today    string `db:"today" json:"today"` // in the tenant's time zone
}

// ExplainedPlace is a contact's place at a customer, the role it has there, and which mail that makes.
type ExplainedPlace struct {
	ID             int64          `db:"id" json:"customer_contact_id,string"`
	Contact        int64          `db:"contact_id" json:"-"`
	Active         bool           `db:"active" json:"attached"`
	StatedBy       pq.StringArray `db:"stated_by" json:"stated_by"`
	Customer       int64          `db:"customer_id" json:"customer_id,string"`
	CustomerERPID  string         `db:"customer_erp_id" json:"customer_erp_id"`
	CustomerName   string         `db:"customer_name" json:"customer_name"`
	CustomerActive bool           `db:"customer_active" json:"customer_active"`
	CustomerReason string         `db:"customer_reason" json:"customer_inactive_reason"`
	ERPRoleKey     string         `db:"erp_role_key" json:"erp_role_key"`
	ERPRole        string         `db:"erp_role" json:"erp_role"`
	MappedID       int64          `db:"mapped_id" json:"mapped_role_id,string"` // 0: the ERP role has no role
	Mapped         string         `db:"mapped" json:"mapped_role"`
	RoleID         int64          `db:"role_id" json:"role_id,string"`
	Role           string         `db:"role" json:"role"`
	Source         string         `db:"role_source" json:"role_source"`
	ChosenBy       string         `db:"chosen_by" json:"chosen_by"`
	ChosenWhy      string         `db:"chosen_why" json:"chosen_because"`
	ChosenAt       *time.Time     `db:"chosen_at" json:"chosen_at"`
	Invoice        bool           `db:"invoice_presentment" json:"invoice_presentment"`
	Communication  bool           `db:"communication_contact" json:"communication_contact"`
	Hold           int64          `db:"hold_id" json:"hold_id,string"` // the open hold that keeps it from going; 0: none
	Mail           []Verdict      `db:"-" json:"mail"`
}

func (p ExplainedPlace) role() string { return nameOf(contact.Role{ID: p.RoleID, Name: p.Role}) }

// A Verdict says whether an address gets one kind of mail for one customer, and why.
type Verdict struct {
	Email   string   `json:"email"` // as given where it is no address; empty: the contact has none
	Type    string   `json:"communication_type"`
	Gets    bool     `json:"gets"`
	Because []string `json:"because"` // everything that keeps it away, or what brings it
	As      int64    `json:"as_contact_id,string"`
}

// Earlier says that a contact had the address.
type Earlier struct {
	Contact int64     `db:"entity_id" json:"contact_id,string"`
	Exists  bool      `db:"still" json:"contact_exists"`
	Was     string    `db:"was" json:"was"`
	Became  string    `db:"became" json:"became"`
	Until   time.Time `db:"at" json:"until"`
	Run     int64     `db:"run_id" json:"run_id,string"` // 0: a person did it
	By      string    `db:"by_user" json:"by"`
	Why     string    `db:"reason" json:"reason"`
}

// Reading says how far a connection was read.
type Reading struct {
	Connection  int64      `db:"id" json:"connection_id,string"`
	Name        string     `db:"name" json:"name"`
	ERP         string     `db:"erp" json:"erp"`
	State       string     `db:"state" json:"state"`
	LastFull    *time.Time `db:"last_full_at" json:"last_full_at"`
	LastSuccess *time.Time `db:"last_success_at" json:"last_success_at"`
	Issues      int64      `db:"issues" json:"open_issues"`
}

// Explain takes an address or the id of a contact.
func (s *Store) Explain(ctx context.Context, tenant int64, idOrAddress string) (Explanation, error) {
	var e Explanation
	err := s.still(ctx, asApp, tenant, func(tx *sqlx.Tx) error {
		e = Explanation{Contacts: []Explained{}, Earlier: []Earlier{}, Read: []Reading{}}
		ids, err := contactsNamed(ctx, tx, tenant, idOrAddress)
		if err != nil {
			return err
		}
		_, notID := strconv.ParseInt(idOrAddress, 10, 64)
		if notID == nil && len(ids) == 0 {
			return fmt.Errorf("contact %s: %w; `syncctl contact history` shows what became of a deleted one", idOrAddress, ErrNotFound)
		}
		only := ""
		if notID != nil {
			only = strings.TrimSpace(idOrAddress)
			if a, ok := contact.Address(only); ok {
				only = a
			}
			if e.Earlier, err = earlier(ctx, tx, tenant, only); err != nil {
				return fmt.Errorf("what it was: %w", err)
			}
		}
		if len(ids) == 0 {
			return tx.SelectContext(ctx, &e.Read, `
				SELECT n.id, n.name, n.erp, n.state, n.last_full_at, n.last_success_at,
					(SELECT count(*) FROM issues i WHERE i.tenant_id = n.tenant_id AND i.connection_id = n.id AND i.closed_at IS NULL) AS issues
				FROM connections n WHERE n.tenant_id = $1 ORDER BY n.id`, tenant)
		}
		e.Contacts, err = explained(ctx, tx, tenant, ids, only)
		return err
	})
	if err != nil {
		return Explanation{}, fmt.Errorf("explain: %w", err)
	}
	return e, nil
}

// explained reads what is known of contacts; only, if not empty, is the one address that is asked for.
func explained(ctx context.Context, tx *sqlx.Tx, tenant int64, ids []int64, only string) ([]Explained, error) {
	var contacts []Explained
	err := tx.SelectContext(ctx, &contacts, `
		SELECT c.id, c.origin, coalesce(c.erp_id, '') AS erp_id, c.name, c.active, coalesce(c.inactive_reason, '') AS inactive_reason,
			n.id AS connection_id, n.name AS connection_name, n.erp, n.state
		FROM contacts c JOIN connections n ON n.tenant_id = c.tenant_id AND n.id = c.connection_id
		WHERE c.tenant_id = $1 AND c.id = ANY ($2) ORDER BY c.id`, tenant, pq.Array(ids))
	if err != nil {
		return nil, err
	}
	var addresses []ExplainedAddress
	err = tx.SelectContext(ctx, &addresses, `
		SELECT p.contact_id, p.field, p.place, p.value, p.normalised, p.main, p.usable, coalesce(p.first_day::text, '') AS first_day,
			coalesce(p.last_day::text, '') AS last_day, ((now() AT TIME ZONE t.time_zone)::date)::text AS today
		FROM contact_points p JOIN tenants t ON t.tenant_id = p.tenant_id
		WHERE p.tenant_id = $1 AND p.contact_id = ANY ($2) AND p.kind = 'email'
			AND ($3 = '' OR lower(p.normalised) = lower($3) OR lower(p.value) = lower($3))
		ORDER BY p.contact_id, p.main DESC, p.field, p.place`, tenant, pq.Array(ids), only)
	if err != nil {
		return nil, fmt.Errorf("addresses: %w", err)
	}
	var at []ExplainedPlace
	err = tx.SelectContext(ctx, &at, `
		SELECT cc.id, cc.contact_id, cc.active, cc.stated_by, cc.customer_id, cu.erp_id AS customer_erp_id, cu.name AS customer_name,
			cu.active AS customer_active, coalesce(cu.inactive_reason, '') AS customer_reason, coalesce(cc.erp_role_key, '') AS erp_role_key,
			coalesce(e.erp_role, '') AS erp_role, coalesce(m.role_id, 0) AS mapped_id, coalesce(mr.name, '') AS mapped,
			coalesce(e.role_id, 0) AS role_id, coalesce(e.role, '') AS role, e.role_source, coalesce(ch.chosen_by, '') AS chosen_by,
			coalesce(ch.reason, '') AS chosen_why, ch.chosen_at, e.invoice_presentment, e.communication_contact,
			CASE WHEN EXISTS (SELECT FROM held_customer_contacts h WHERE h.tenant_id = cc.tenant_id AND h.customer_contact_id = cc.id)
				THEN (SELECT h.id FROM holds h WHERE h.tenant_id = cc.tenant_id AND h.connection_id = cc.connection_id AND h.state = 'open')
				ELSE 0 END AS hold_id
		FROM customer_contacts cc
		JOIN customers cu ON cu.tenant_id = cc.tenant_id AND cu.id = cc.customer_id
		JOIN effective_roles e ON e.tenant_id = cc.tenant_id AND e.customer_contact_id = cc.id
		LEFT JOIN role_choices ch ON ch.tenant_id = cc.tenant_id AND ch.customer_contact_id = cc.id
		LEFT JOIN role_mappings m ON m.tenant_id = cc.tenant_id AND m.connection_id = cc.connection_id AND m.erp_role_key = cc.erp_role_key
		LEFT JOIN roles mr ON mr.tenant_id = cc.tenant_id AND mr.id = m.role_id
		WHERE cc.tenant_id = $1 AND cc.contact_id = ANY ($2) ORDER BY cu.name, cc.id`, tenant, pq.Array(ids))
	if err != nil {
		return nil, fmt.Errorf("places: %w", err)
	}
	gets, err := named(ctx, tx, tenant, at)
	if err != nil {
		return nil, fmt.Errorf("recipients: %w", err)
	}
	for i := range contacts {
		c := &contacts[i]
		c.Addresses, c.Places = []ExplainedAddress{}, []ExplainedPlace{}
		for _, a := range addresses {
			if a.Contact == c.ID {
				c.Addresses = append(c.Addresses, a)
			}
		}
		for _, p := range at {
			if p.Contact == c.ID {
				p.Mail = verdicts(*c, p, gets)
				c.Places = append(c.Places, p)
			}
		}
		if c.Issues, err = issuesOf(ctx, tx, tenant, *c); err != nil {
			return nil, fmt.Errorf("issues: %w", err)
		}
	}
	return contacts, nil
}

// mailed is one kind of mail to one address for one customer.
type mailed struct {
	Customer int64  `db:"customer_id"`
	Type     string `db:"communication_type"`
	Address  string `db:"address"`
}

// named says in which contact's name each address gets mail at the customers of these places.
func named(ctx context.Context, tx *sqlx.Tx, tenant int64, at []ExplainedPlace) (map[mailed]int64, error) {
	var customers []int64
	for _, p := range at {
		customers = append(customers, p.Customer)
	}
	var rows []struct {
		mailed
		Contact int64 `db:"contact_id"`
	}
	err := tx.SelectContext(ctx, &rows, `SELECT customer_id, communication_type, lower(email) AS address, contact_id FROM recipients
		WHERE tenant_id = $1 AND customer_id = ANY ($2)`, tenant, pq.Array(some(customers)))
	out := make(map[mailed]int64, len(rows))
	for _, r := range rows {
		out[r.mailed] = r.Contact
	}
	return out, err
}

// issuesOf are the open issues of a contact's own records: itself, its customers and its links.
func issuesOf(ctx context.Context, tx *sqlx.Tx, tenant int64, c Explained) ([]string, error) {
	var customers, links []string
	for _, p := range c.Places {
		customers, links = append(customers, p.CustomerERPID), append(links, p.CustomerERPID+"/"+c.ERPID)
	}
	issues := []string{}
	err := tx.SelectContext(ctx, &issues, `
		SELECT 'issue ' || id || ': ' || record_kind || ' ' || record_id || ', ' || field || ': ' || reason FROM issues
		WHERE tenant_id = $1 AND connection_id = $2 AND closed_at IS NULL AND (record_kind = 'contact' AND record_id = $3
			OR record_kind = 'customer' AND record_id = ANY ($4) OR record_kind = 'link' AND record_id = ANY ($5))
		ORDER BY id`, tenant, c.Connection, c.ERPID, pq.Array(some(customers)), pq.Array(some(links)))
	return issues, err
}

// earlier finds contacts that had an address which they have no more, in the history.
func earlier(ctx context.Context, tx *sqlx.Tx, tenant int64, address string) ([]Earlier, error) {
	var rows []Earlier
	err := tx.SelectContext(ctx, &rows, `
		SELECT h.entity_id, c.id IS NOT NULL AS still, h.was, coalesce(h.became, '') AS became, h.at, coalesce(h.run_id, 0) AS run_id,
			coalesce(h.by_user, '') AS by_user, h.reason
		FROM history h LEFT JOIN contacts c ON c.tenant_id = h.tenant_id AND c.id = h.entity_id
		WHERE h.tenant_id = $1 AND h.entity = 'contact' AND h.field ~ '^point:.*:[0-9]+$' AND position(lower($2) IN lower(h.was)) > 0
		ORDER BY h.id DESC`, tenant, address)
	return slices.DeleteFunc(some(rows), func(e Earlier) bool {
		a, _ := contact.Address(e.Was)
		return !strings.EqualFold(a, address) && !strings.EqualFold(e.Was, address)
	}), err
}

// verdicts are what each address of a contact gets at one place.
func verdicts(c Explained, p ExplainedPlace, gets map[mailed]int64) []Verdict {
	var out []Verdict
	for _, t := range []struct {
		name contact.CommunicationType
		has  bool
	}{{contact.InvoicePresentment, p.Invoice}, {contact.CommunicationContact, p.Communication}} {
		against := slices.Concat(whyNotHere(c, p), whyNotRole(p, string(t.name), t.has))
		if len(c.Addresses) == 0 {
			out = append(out, Verdict{Type: string(t.name), Because: append(against, "the contact has no e-mail address")})
		}
		for _, a := range c.Addresses {
			v := Verdict{Email: a.Value, Type: string(t.name), Because: slices.Concat(against, whyNotAddress(a))}
			if a.Usable {
				v.Email = a.Email
				v.As = gets[mailed{p.Customer, string(t.name), strings.ToLower(a.Email)}]
			}
			switch own := len(v.Because) == 0; {
			case own:
				v.Gets = true
				v.Because = []string{fmt.Sprintf("the role %s gets it, and the address stands in the main mail field", p.role())}
				if v.As != 0 && v.As != c.ID {
					v.Because = append(v.Because, fmt.Sprintf("an address gets it once: contact %d, which has the same one, is named", v.As))
				}
			case v.As != 0:
				v.Gets = true
				v.Because = append(v.Because, fmt.Sprintf("but the same address gets it as contact %d", v.As))
			}
			out = append(out, v)
		}
	}
	return out
}

var reasonWords = map[contact.InactiveReason]string{
	contact.ERPInactive: "the ERP states it inactive",
	contact.ERPDeleted:  "it was deleted in the ERP",
	contact.ERPMerged:   "it was merged into another one in the ERP",
	contact.ERPAbsent:   "the ERP lists it no more",
}

func whyNotHere(c Explained, p ExplainedPlace) []string {
	var why []string
	if c.State == "removed" {
		why = append(why, "the connection was removed")
	}
	if !p.CustomerActive {
		why = append(why, "the customer is inactive: "+reasonWords[contact.InactiveReason(p.CustomerReason)])
	}
	if !c.Active {
		why = append(why, "the contact is inactive: "+reasonWords[contact.InactiveReason(c.Reason)])
	}
	if !p.Active {
		why = append(why, "detached: the ERP states it as this customer's contact no more")
	}
	return why
}

func whyNotRole(p ExplainedPlace, mail string, has bool) []string {
	switch {
	case has:
		return nil
	case p.RoleID != 0:
		return []string{fmt.Sprintf("the role %s does not get %s", p.role(), mail)}
	case p.ERPRoleKey != "":
		return []string{fmt.Sprintf("the ERP role %s (%s) has no role: the tenant had no room for another one", p.ERPRole, p.ERPRoleKey)}
	}
	return []string{"no role: the ERP states none, and nobody chose one"}
}

func whyNotAddress(a ExplainedAddress) []string {
	var why []string
	if !a.Main {
		why = append(why, fmt.Sprintf("it stands in the field %s, and mail goes to the main mail field only", a.Field))
	}
	if !a.Usable {
		why = append(why, "it is no address that mail can go to")
	}
	if a.FirstDay != "" && a.Today < a.FirstDay {
		why = append(why, "its first day is "+a.FirstDay)
	}
	if a.LastDay != "" && a.Today > a.LastDay {
		why = append(why, "its last day was "+a.LastDay)
	}
	return why
}

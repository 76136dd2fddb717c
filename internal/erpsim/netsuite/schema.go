package netsuite

import (
	"encoding/json"
	"strconv"
	"strings"
	"time"
	_ "time/tzdata" // zones on a machine without a time zone database
)

var losAngeles = func() *time.Location {
	zone, err := time.LoadLocation("America/Los_Angeles")
	if err != nil {
		panic(err) // the database is built in
	}
	return zone
}()

func jsonValid(text string) bool { return json.Valid([]byte(text)) }

// The tables that statements may read.
const (
	customers = "customer"
	contacts  = "contact"
	relations = "companycontactrelationship"
	roles     = "contactrole"
	deletions = "deletedrecord"
)

// A kind is that of a value.
type kind int

const (
	textKind   kind = iota
	numberKind      // an id; text and flags never are
	flagKind        // T or F
	momentKind      // a point in time, in Unix seconds
	wallKind        // what a clock shows, in seconds as if it showed UTC
)

// A value is one cell, or what an expression makes of cells.
type value struct {
	null   bool
	number int64 // of numbers, moments and walls
	text   string
}

var null = value{null: true}

// text is a value of text; as in Oracle's database, an empty one is NULL.
func text(s string) value { return value{null: s == "", text: s} }

func moment(t time.Time) value { return value{null: t.IsZero(), number: t.Unix()} }

func flag(set bool) value {
	if set {
		return value{text: "T"}
	}
	return value{text: "F"}
}

func numeric(n int64) value { return value{number: n} }

// reference is an id that may be missing.
func reference(id string) value {
	n, err := strconv.ParseInt(id, 10, 64)
	if err != nil {
		return null
	}
	return numeric(n)
}

// A column is one of a table.
type column struct {
	kind    kind
	get     func(record) value
	display func(*Account, record) string // what BUILTIN.DF makes of it, with Account.mu held; nil: it is refused
}

func customer(kind kind, get func(*Customer) value) column {
	return column{kind: kind, get: func(r record) value {
		c, ok := r.(*Customer)
		if !ok {
			return null
		}
		return get(c)
	}}
}

func customerText(get func(*Customer) string) column {
	return customer(textKind, func(c *Customer) value { return text(get(c)) })
}

func contact(kind kind, get func(*Contact) value) column {
	return column{kind: kind, get: func(r record) value {
		c, ok := r.(*Contact)
		if !ok {
			return null
		}
		return get(c)
	}}
}

func contactText(get func(*Contact) string) column {
	return contact(textKind, func(c *Contact) value { return text(get(c)) })
}

func relation(get func(*Link) value) column {
	return column{kind: numberKind, get: func(r record) value {
		l, ok := r.(*Link)
		if !ok {
			return null
		}
		return get(l)
	}}
}

func role(kind kind, get func(*Role) value) column {
	return column{kind: kind, get: func(r record) value {
		c, ok := r.(*Role)
		if !ok {
			return null
		}
		return get(c)
	}}
}

func deletion(kind kind, get func(*Deleted) value) column {
	return column{kind: kind, get: func(r record) value {
		d, ok := r.(*Deleted)
		if !ok {
			return null
		}
		return get(d)
	}}
}

func (c column) shown(display func(*Account, record) string) column {
	c.display = display
	return c
}

// categories and statuses are lists that an account keeps. Ids of statuses are those of fivetran/dbt_netsuite's seeds
// where they are there.
var (
	categories = map[string]string{"1": "Retail", "2": "Wholesale", "3": "Public sector"}
	statuses   = map[string][2]string{"Lead": {"6", "LEAD-Unqualified"}, "Prospect": {"8", "PROSPECT-In Discussion"}, "Customer": {"13", "CUSTOMER-Closed Won"}}
)

// entity is the name of an entity.
func (a *Account) entity(n int64) string {
	switch r := a.tables[customers].find(n, 0).(type) {
	case *Customer:
		return r.EntityID
	}
	if c, ok := a.tables[contacts].find(n, 0).(*Contact); ok {
		return c.EntityID
	}
	return a.others[n]
}

// roleName is what BUILTIN.DF makes of a role, whatever the table of roles itself may be read by.
func roleName(a *Account, r record) string {
	l, _ := r.(*Link)
	if l == nil {
		return ""
	}
	found, _ := a.tables[roles].find(reference(l.Role).number, 0).(*Role)
	if found == nil {
		return ""
	}
	return found.Name
}

// schema is the columns of each table. A name that is not here is unknown; subsidiary is not, where dbt_netsuite's seeds
// have none.
var schema = map[string]map[string]column{
	customers: {
		"id":          customer(numberKind, func(c *Customer) value { return numeric(c.number) }),
		"entityid":    customerText(func(c *Customer) string { return c.EntityID }),
		"altname":     customerText(func(c *Customer) string { return c.AltName }),
		"companyname": customerText(func(c *Customer) string { return c.CompanyName }),
		"isperson":    customer(flagKind, func(c *Customer) value { return flag(c.Person) }),
		"salutation":  customerText(func(c *Customer) string { return c.Salutation }),
		"firstname":   customerText(func(c *Customer) string { return c.FirstName }),
		"middlename":  customerText(func(c *Customer) string { return c.MiddleName }),
		"lastname":    customerText(func(c *Customer) string { return c.LastName }),
		"title":       customerText(func(c *Customer) string { return c.Title }),
		"email":       customerText(func(c *Customer) string { return c.Email }),
		"altemail":    customerText(func(c *Customer) string { return c.AltEmail }),
		"phone":       customerText(func(c *Customer) string { return c.Phone }),
		"altphone":    customerText(func(c *Customer) string { return c.AltPhone }),
		"mobilephone": customerText(func(c *Customer) string { return c.MobilePhone }),
		"homephone":   customerText(func(c *Customer) string { return c.HomePhone }),
		"fax":         customerText(func(c *Customer) string { return c.Fax }),
		"url":         customerText(func(c *Customer) string { return c.URL }),
		"isinactive":  customer(flagKind, func(c *Customer) value { return flag(c.Inactive) }),
		"parent": customer(numberKind, func(c *Customer) value {
			return value{null: c.parentNumber == 0, number: c.parentNumber}
		}).shown(func(a *Account, r record) string {
			c, ok := r.(*Customer)
			if !ok {
				return ""
			}
			return a.entity(c.parentNumber)
		}),
		"contact": customer(numberKind, func(c *Customer) value { return reference(c.Contact) }).shown(
			func(a *Account, r record) string {
				c, ok := r.(*Customer)
				if !ok {
					return ""
				}
				return a.entity(reference(c.Contact).number)
			}),
		"contactlist": customerText(func(*Customer) string { return "" }),
		"category": customer(numberKind, func(c *Customer) value { return reference(c.Category) }).shown(
			func(_ *Account, r record) string {
				c, ok := r.(*Customer)
				if !ok {
					return ""
				}
				return categories[c.Category]
			}),
		"entitystatus": customer(numberKind, func(c *Customer) value { return reference(statuses[c.Stage][0]) }).shown(
			func(_ *Account, r record) string {
				c, ok := r.(*Customer)
				if !ok {
					return ""
				}
				return statuses[c.Stage][1]
			}),
		"searchstage":      customerText(func(c *Customer) string { return c.Stage }),
		"externalid":       customerText(func(c *Customer) string { return c.ExternalID }),
		"accountnumber":    customerText(func(c *Customer) string { return c.Account }),
		"datecreated":      customer(momentKind, func(c *Customer) value { return moment(c.CreatedAt) }),
		"lastmodifieddate": customer(momentKind, func(c *Customer) value { return moment(c.ModifiedAt) }),
	},
	contacts: {
		"id":          contact(numberKind, func(c *Contact) value { return numeric(c.number) }),
		"entityid":    contactText(func(c *Contact) string { return c.EntityID }),
		"entitytitle": contactText(func(c *Contact) string { return c.EntityID }),
		"salutation":  contactText(func(c *Contact) string { return c.Salutation }),
		"firstname":   contactText(func(c *Contact) string { return c.FirstName }),
		"middlename":  contactText(func(c *Contact) string { return c.MiddleName }),
		"lastname":    contactText(func(c *Contact) string { return c.LastName }),
		"title":       contactText(func(c *Contact) string { return c.Title }),
		"email":       contactText(func(c *Contact) string { return c.Email }),
		"altemail":    contactText(func(c *Contact) string { return c.AltEmail }),
		"phone":       contactText(func(c *Contact) string { return c.Phone }),
		"officephone": contactText(func(c *Contact) string { return c.OfficePhone }),
		"mobilephone": contactText(func(c *Contact) string { return c.MobilePhone }),
		"homephone":   contactText(func(c *Contact) string { return c.HomePhone }),
		"fax":         contactText(func(c *Contact) string { return c.Fax }),
		"company": contact(numberKind, func(c *Contact) value {
			return value{null: c.companyNumber == 0, number: c.companyNumber}
		}).shown(func(a *Account, r record) string {
			c, ok := r.(*Contact)
			if !ok {
				return ""
			}
			return a.entity(c.companyNumber)
		}),
		"isinactive": contact(flagKind, func(c *Contact) value { return flag(c.Inactive) }),
		"isprivate":  contact(flagKind, func(c *Contact) value { return flag(c.Private) }),
		"category":   contactText(func(c *Contact) string { return strings.Join(c.Categories, ", ") }),
		"comments":   contactText(func(c *Contact) string { return c.Comments }),
		"externalid": contactText(func(c *Contact) string { return c.ExternalID }),
		"datecreated": contact(momentKind, func(c *Contact) value {
			return moment(c.CreatedAt)
		}),
		"lastmodifieddate": contact(momentKind, func(c *Contact) value { return moment(c.ModifiedAt) }),
	},
	relations: {
		"company": relation(func(l *Link) value { return numeric(l.company) }).shown(func(a *Account, r record) string {
			l, _ := r.(*Link)
			if l == nil {
				return ""
			}
			return a.entity(l.company)
		}),
		"contact": relation(func(l *Link) value { return numeric(l.contact) }).shown(func(a *Account, r record) string {
			l, _ := r.(*Link)
			if l == nil {
				return ""
			}
			return a.entity(l.contact)
		}),
		"role": relation(func(l *Link) value { return reference(l.Role) }).shown(roleName),
	},
	roles: {
		"id":               role(numberKind, func(r *Role) value { return numeric(r.number) }),
		"name":             role(textKind, func(r *Role) value { return text(r.Name) }),
		"description":      role(textKind, func(r *Role) value { return text(r.Description) }),
		"isinactive":       role(flagKind, func(r *Role) value { return flag(r.Inactive) }),
		"externalid":       role(textKind, func(*Role) value { return null }),
		"lastmodifieddate": role(momentKind, func(r *Role) value { return moment(r.ModifiedAt) }),
	},
	deletions: {
		"recordid":     deletion(numberKind, func(d *Deleted) value { return numeric(d.number) }),
		"type":         deletion(textKind, func(d *Deleted) value { return text(d.Type) }),
		"recordtypeid": deletion(numberKind, func(d *Deleted) value { return reference(recordTypes[d.Type]) }),
		"scriptid":     deletion(textKind, func(d *Deleted) value { return text(strings.ToUpper(d.Type)) }),
		"name":         deletion(textKind, func(d *Deleted) value { return text(d.Name) }),
		"deleteddate":  deletion(momentKind, func(d *Deleted) value { return moment(d.At) }),
		"deletedby": deletion(numberKind, func(*Deleted) value { return numeric(3) }).shown(
			func(*Account, record) string { return "Robin Admin" }),
		"context":             deletion(textKind, func(*Deleted) value { return text("UIF") }),
		"iscustomlist":        deletion(flagKind, func(*Deleted) value { return flag(false) }),
		"iscustomrecord":      deletion(flagKind, func(*Deleted) value { return flag(false) }),
		"iscustomtransaction": deletion(flagKind, func(*Deleted) value { return flag(false) }),
	},
}

// recordTypes are made up: no public source has the ids.
var recordTypes = map[string]string{"Contact": "-6", "Customer": "-2", "Lead": "-2", "Prospect": "-2"}

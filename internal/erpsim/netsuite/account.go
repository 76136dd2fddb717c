package netsuite

import (
	"cmp"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/centime/contactsync/internal/erpsim"
)

// ErrNoRecord is returned for an id that the account does not have, or not any more.
var ErrNoRecord = errors.New("no such record")

// Primary is the id of the role that NetSuite ships as "Primary Contact": OH/article_0113084334. It may be renamed.
const Primary = "-10"

// A Customer is a customer, lead or prospect as the simulator holds it. Its JSON is the simulator's own plain form, not
// that of the wire.
type Customer struct {
	ID           string    `json:"id"`
	EntityID     string    `json:"entity_id"`
	AltName      string    `json:"alt_name,omitempty"`
	CompanyName  string    `json:"company_name,omitempty"`
	Person       bool      `json:"person,omitempty"` // an individual
	Salutation   string    `json:"salutation,omitempty"`
	FirstName    string    `json:"first_name,omitempty"`
	MiddleName   string    `json:"middle_name,omitempty"`
	LastName     string    `json:"last_name,omitempty"`
	Title        string    `json:"title,omitempty"`
	Email        string    `json:"email,omitempty"`
	AltEmail     string    `json:"alt_email,omitempty"`
	Phone        string    `json:"phone,omitempty"`
	AltPhone     string    `json:"alt_phone,omitempty"`
	MobilePhone  string    `json:"mobile_phone,omitempty"`
	HomePhone    string    `json:"home_phone,omitempty"`
	Fax          string    `json:"fax,omitempty"`
	URL          string    `json:"url,omitempty"`
	Inactive     bool      `json:"inactive,omitempty"`
	Parent       string    `json:"parent,omitempty"`
	Contact      string    `json:"contact,omitempty"`  // what the form calls Primary Contact
	Category     string    `json:"category,omitempty"` // id
	Stage        string    `json:"stage,omitempty"`    // Lead, Prospect, Customer; empty: Customer
	ExternalID   string    `json:"external_id,omitempty"`
	Account      string    `json:"account_number,omitempty"`
	Subsidiary   string    `json:"subsidiary,omitempty"` // what a role may be restricted by
	CreatedAt    time.Time `json:"created_at"`           // whole seconds
	ModifiedAt   time.Time `json:"modified_at"`          // whole seconds
	number       int64
	parentNumber int64
}

// A Contact is a contact record.
type Contact struct {
	ID            string    `json:"id"`
	EntityID      string    `json:"entity_id"` // empty in a new one: made of its names
	Salutation    string    `json:"salutation,omitempty"`
	FirstName     string    `json:"first_name,omitempty"`
	MiddleName    string    `json:"middle_name,omitempty"`
	LastName      string    `json:"last_name,omitempty"`
	Title         string    `json:"title,omitempty"` // of the job
	Email         string    `json:"email,omitempty"`
	AltEmail      string    `json:"alt_email,omitempty"`
	Phone         string    `json:"phone,omitempty"`
	OfficePhone   string    `json:"office_phone,omitempty"`
	MobilePhone   string    `json:"mobile_phone,omitempty"`
	HomePhone     string    `json:"home_phone,omitempty"`
	Fax           string    `json:"fax,omitempty"`
	Company       string    `json:"company,omitempty"` // the main one: a customer, vendor or other entity
	Inactive      bool      `json:"inactive,omitempty"`
	Private       bool      `json:"private,omitempty"` // no role but its owner's sees it
	Categories    []string  `json:"categories,omitempty"`
	Comments      string    `json:"comments,omitempty"`
	ExternalID    string    `json:"external_id,omitempty"`
	Subsidiary    string    `json:"subsidiary,omitempty"`
	CreatedAt     time.Time `json:"created_at"`
	ModifiedAt    time.Time `json:"modified_at"`
	number        int64
	companyNumber int64
}

// A Role is a contact role.
type Role struct {
	ID          string    `json:"id"`
	Name        string    `json:"name"`
	Description string    `json:"description,omitempty"`
	Inactive    bool      `json:"inactive,omitempty"`
	ModifiedAt  time.Time `json:"modified_at"`
	number      int64
}

// A Link is a contact's place at a company, a row of companycontactrelationship.
type Link struct {
	Company string `json:"company"`
	Contact string `json:"contact"`
	Role    string `json:"role,omitempty"`
	company int64
	contact int64
}

// A Deleted is a row of deletedrecord.
type Deleted struct {
	RecordID string    `json:"record_id"`
	Type     string    `json:"type"`
	Name     string    `json:"name"`
	At       time.Time `json:"at"`
	number   int64
}

// An Account is one NetSuite account. Its methods are those of people at work in NetSuite: nothing of them can be
// reached over the wire. It is safe for concurrent use.
type Account struct {
	ID   string
	Name string

	o      Options
	logins *logins
	script *erpsim.Script[Fault]

	mu       sync.RWMutex
	last     int64                        // of the ids that all entities share
	lastRole int64                        // of custom roles
	tables   map[string]*rows             // by table
	others   map[int64]string             // names of entities that are neither customers nor contacts
	denied   map[string]bool              // tables, "table.column" and restService
	allowed  []string                     // subsidiaries that the role may see; empty: all
	private  rows                         // contacts that nobody sees
	spoilt   map[string]map[string]string // by table and id: cells on the wire replaced by this JSON
}

func newAccount(id, name string, o Options) *Account {
	a := &Account{
		ID: id, Name: name, o: o, logins: newLogins(o.Now), tables: map[string]*rows{}, last: 100,
		others: map[int64]string{}, denied: map[string]bool{}, spoilt: map[string]map[string]string{},
	}
	for table := range schema {
		a.tables[table] = &rows{}
	}
	// What NetSuite ships. The ids of the last three are not known for sure.
	for n, name := range map[int64]string{-10: "Primary Contact", -20: "Alternate Contact", -30: "Decision Maker", -40: "Consultant"} {
		a.tables[roles].put(&Role{ID: strconv.FormatInt(n, 10), Name: name, ModifiedAt: second(o.Now()), number: n})
	}
	return a
}

func second(t time.Time) time.Time { return t.UTC().Truncate(time.Second) }

// A record is a row of a table.
type record interface {
	key() [2]int64 // its place in the table, and its identity
	id() string
}

func (c *Customer) key() [2]int64 { return [2]int64{c.number, 0} }
func (c *Contact) key() [2]int64  { return [2]int64{c.number, 0} }
func (r *Role) key() [2]int64     { return [2]int64{r.number, 0} }
func (l *Link) key() [2]int64     { return [2]int64{l.contact, l.company} }
func (d *Deleted) key() [2]int64  { return [2]int64{d.number, d.At.Unix()} }

func (c *Customer) id() string { return c.ID }
func (c *Contact) id() string  { return c.ID }
func (r *Role) id() string     { return r.ID }
func (l *Link) id() string     { return l.Company + "/" + l.Contact }
func (d *Deleted) id() string  { return d.RecordID }

// rows are the records of a table in the order of their keys. A record in it is never changed, but replaced.
type rows struct {
	all []record

	mu sync.Mutex                    // of by: statements that only read build it
	by map[string]map[value][]record // indexes, by name
}

// index is what build makes, made once and again after each change.
func (r *rows) index(name string, build func() map[value][]record) map[value][]record {
	r.mu.Lock()
	found := r.by[name]
	r.mu.Unlock()
	if found != nil {
		return found
	}
	found = build()
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.by == nil {
		r.by = map[string]map[value][]record{}
	}
	r.by[name] = found
	return found
}

// having are the records by their value of a column; those without one are left out.
func (r *rows) having(name string, c column) map[value][]record {
	return r.index(name, func() map[value][]record {
		made := map[value][]record{}
		for _, x := range r.all {
			if v := c.get(x); !v.null {
				made[v] = append(made[v], x)
			}
		}
		return made
	})
}

// changed forgets what index made.
func (r *rows) changed() { r.by = nil }

// drop removes the records that a condition holds of.
func (r *rows) drop(gone func(record) bool) {
	r.changed()
	r.all = slices.DeleteFunc(r.all, gone)
}

func (r *rows) search(key [2]int64) (int, bool) {
	return slices.BinarySearchFunc(r.all, key, func(x record, key [2]int64) int { return compareKeys(x.key(), key) })
}

func compareKeys(a, b [2]int64) int { return cmp.Or(cmp.Compare(a[0], b[0]), cmp.Compare(a[1], b[1])) }

// find is the record of a key; nil if there is none.
func (r *rows) find(first, second int64) record {
	if i, found := r.search([2]int64{first, second}); found {
		return r.all[i]
	}
	return nil
}

func (r *rows) put(x record) {
	r.changed()
	if n := len(r.all); n == 0 || compareKeys(r.all[n-1].key(), x.key()) < 0 {
		r.all = append(r.all, x)
		return
	}
	i, found := r.search(x.key())
	if found {
		r.all[i] = x
		return
	}
	r.all = slices.Insert(r.all, i, x)
}

func (r *rows) remove(key [2]int64) {
	r.changed()
	if i, found := r.search(key); found {
		r.all = slices.Delete(r.all, i, i+1)
	}
}

func number(id string) (int64, error) {
	n, err := strconv.ParseInt(id, 10, 64)
	if err != nil || strconv.FormatInt(n, 10) != id {
		return 0, fmt.Errorf("record %s: an id is a whole number", id)
	}
	return n, nil
}

// refer numbers the ids that a record names, so that they need not be read for each row. One that is no number is none.
func (c *Customer) refer() { c.parentNumber, _ = number(c.Parent) }
func (c *Contact) refer()  { c.companyNumber, _ = number(c.Company) }

// begin gives a new entity its id and times, with a.mu held.
func (a *Account) begin(id *string, created, modified *time.Time) (int64, error) {
	if *id == "" {
		*id = strconv.FormatInt(a.last+1, 10)
	}
	n, err := number(*id)
	if err != nil {
		return 0, err
	}
	if a.tables[customers].find(n, 0) != nil || a.tables[contacts].find(n, 0) != nil || a.others[n] != "" {
		return 0, fmt.Errorf("join record %s: id is taken", *id)
	}
	a.last = max(a.last, n)
	if created.IsZero() {
		*created = a.o.Now()
	}
	if modified.IsZero() {
		*modified = *created
	}
	*created, *modified = second(*created), second(*modified)
	return n, nil
}

// JoinCustomer adds a customer and returns its id. An empty ID is given the next number, a zero CreatedAt or ModifiedAt
// the present second. System entities have negative ids.
func (a *Account) JoinCustomer(new Customer) (id string, err error) {
	a.mu.Lock()
	defer a.mu.Unlock()
	return a.joinCustomer(new)
}

func (a *Account) joinCustomer(new Customer) (id string, err error) {
	if new.number, err = a.begin(&new.ID, &new.CreatedAt, &new.ModifiedAt); err != nil {
		return "", err
	}
	new.Stage = cmp.Or(new.Stage, "Customer")
	new.EntityID = cmp.Or(new.EntityID, "CUST"+new.ID)
	new.AltName = cmp.Or(new.AltName, new.CompanyName, words(new.FirstName, new.MiddleName, new.LastName))
	new.refer()
	a.tables[customers].put(&new)
	return new.ID, nil
}

// JoinContact adds a contact and returns its id. With Options.MainLinks it is attached to its company.
func (a *Account) JoinContact(new Contact) (id string, err error) {
	a.mu.Lock()
	defer a.mu.Unlock()
	return a.joinContact(new)
}

func (a *Account) joinContact(new Contact) (id string, err error) {
	if new.number, err = a.begin(&new.ID, &new.CreatedAt, &new.ModifiedAt); err != nil {
		return "", err
	}
	new.EntityID = cmp.Or(new.EntityID, words(new.FirstName, new.MiddleName, new.LastName))
	new.Categories = slices.Clone(new.Categories)
	new.refer()
	a.tables[contacts].put(&new)
	if new.Private {
		a.private.put(&new)
	}
	if a.o.MainLinks && new.Company != "" {
		return new.ID, a.attach(new.Company, new.ID, "")
	}
	return new.ID, nil
}

func words(parts ...string) string {
	return strings.Join(strings.Fields(strings.Join(parts, " ")), " ")
}

// JoinOther adds an entity that is no customer, such as a vendor, and returns its id: contacts can be attached to it.
func (a *Account) JoinOther(name string) (id string) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.last++
	a.others[a.last] = name
	return strconv.FormatInt(a.last, 10)
}

// AddRole adds a custom role and returns its id.
func (a *Account) AddRole(name string) (id string) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.lastRole++
	r := &Role{ID: strconv.FormatInt(a.lastRole, 10), Name: name, ModifiedAt: second(a.o.Now()), number: a.lastRole}
	a.tables[roles].put(r)
	return r.ID
}

// get returns a copy of a record.
func get[R any, P interface {
	*R
	record
}](a *Account, table, id string) (copied R, err error) {
	a.mu.RLock()
	defer a.mu.RUnlock()
	n, err := number(id)
	if err != nil {
		return copied, err
	}
	found, ok := a.tables[table].find(n, 0).(P)
	if !ok {
		return copied, fmt.Errorf("%s %s: %w", table, id, ErrNoRecord)
	}
	return *found, nil
}

// list returns copies of all records of a table, in the order of their keys. It reads the state itself and nothing of
// what statements go through.
func list[R any, P interface {
	*R
	record
}](a *Account, table string) []R {
	a.mu.RLock()
	defer a.mu.RUnlock()
	all := make([]R, 0, len(a.tables[table].all))
	for _, r := range a.tables[table].all {
		all = append(all, *r.(P))
	}
	return all
}

// Customer returns one customer.
func (a *Account) Customer(id string) (Customer, error) { return get[Customer](a, customers, id) }

// Contact returns one contact.
func (a *Account) Contact(id string) (Contact, error) { return get[Contact](a, contacts, id) }

// Role returns one contact role.
func (a *Account) Role(id string) (Role, error) { return get[Role](a, roles, id) }

// Customers returns all customers, inactive ones and those that no role may see too.
func (a *Account) Customers() []Customer { return list[Customer](a, customers) }

// Contacts returns all contacts.
func (a *Account) Contacts() []Contact { return list[Contact](a, contacts) }

// Roles returns all contact roles.
func (a *Account) Roles() []Role { return list[Role](a, roles) }

// Links returns all relations of contacts to companies.
func (a *Account) Links() []Link { return list[Link](a, relations) }

// Deletions returns what is logged as deleted.
func (a *Account) Deletions() []Deleted { return list[Deleted](a, deletions) }

// EditCustomer changes a customer as a person does who saves its form: ModifiedAt is the present second. A change of
// ModifiedAt by edit itself stands, so that a change can become visible later than it says it was made. ID and CreatedAt
// stay as they are.
func (a *Account) EditCustomer(id string, edit func(*Customer)) error {
	return change(a, customers, id, func(c *Customer) {
		was := *c
		edit(c)
		c.ID, c.number, c.CreatedAt = was.ID, was.number, was.CreatedAt
		c.ModifiedAt = a.moved(was.ModifiedAt, c.ModifiedAt)
		c.refer()
	})
}

// EditContact does the same with a contact. A change of its company is no change of its relations, unless
// Options.MainLinks says so.
func (a *Account) EditContact(id string, edit func(*Contact)) error {
	var was, now Contact
	err := change(a, contacts, id, func(c *Contact) {
		was = *c
		c.Categories = slices.Clone(c.Categories)
		edit(c)
		c.ID, c.number, c.CreatedAt = was.ID, was.number, was.CreatedAt
		c.ModifiedAt = a.moved(was.ModifiedAt, c.ModifiedAt)
		c.refer()
		now = *c
		if a.private.remove(c.key()); c.Private {
			a.private.put(c)
		}
	})
	if err != nil || !a.o.MainLinks || was.Company == now.Company {
		return err
	}
	if was.Company != "" {
		_ = a.Detach(was.Company, id) // it may have been detached before
	}
	if now.Company != "" {
		return a.Attach(now.Company, id, "")
	}
	return nil
}

func (a *Account) moved(was, now time.Time) time.Time {
	if now.Equal(was) {
		return second(a.o.Now())
	}
	return second(now)
}

// EditRole renames, describes or inactivates a contact role. Nothing else moves.
func (a *Account) EditRole(id string, edit func(*Role)) error {
	return change(a, roles, id, func(r *Role) {
		was := *r
		edit(r)
		r.ID, r.number, r.ModifiedAt = was.ID, was.number, a.moved(was.ModifiedAt, r.ModifiedAt)
	})
}

// change replaces a record by a changed copy.
func change[R any, P interface {
	*R
	record
}](a *Account, table, id string, edit func(P)) error {
	a.mu.Lock()
	defer a.mu.Unlock()
	n, err := number(id)
	if err != nil {
		return err
	}
	found, ok := a.tables[table].find(n, 0).(P)
	if !ok {
		return fmt.Errorf("%s %s: %w", table, id, ErrNoRecord)
	}
	changed := *found
	edit(&changed)
	a.tables[table].put(P(&changed))
	return nil
}

// Attach gives a contact a place at a company, or another role there; an empty role is none. No date moves.
func (a *Account) Attach(company, contact, role string) error {
	a.mu.Lock()
	defer a.mu.Unlock()
	return a.attach(company, contact, role)
}

func (a *Account) attach(company, contact, role string) error {
	l := &Link{Company: company, Contact: contact, Role: role}
	var err, err2 error
	l.company, err = number(company)
	l.contact, err2 = number(contact)
	if err = cmp.Or(err, err2); err != nil {
		return err
	}
	if a.tables[contacts].find(l.contact, 0) == nil {
		return fmt.Errorf("attach contact %s: %w", contact, ErrNoRecord)
	}
	if a.tables[customers].find(l.company, 0) == nil && a.others[l.company] == "" {
		return fmt.Errorf("attach to company %s: %w", company, ErrNoRecord)
	}
	if role != "" {
		n, err := number(role)
		if err != nil || a.tables[roles].find(n, 0) == nil {
			return fmt.Errorf("attach with role %s: %w", role, ErrNoRecord)
		}
	}
	a.tables[relations].put(l)
	return nil
}

// Detach takes a contact's place at a company away. No date moves, and nothing is logged as deleted.
func (a *Account) Detach(company, contact string) error {
	a.mu.Lock()
	defer a.mu.Unlock()
	first, _ := number(company)
	other, _ := number(contact)
	if a.tables[relations].find(other, first) == nil {
		return fmt.Errorf("detach contact %s from company %s: %w", contact, company, ErrNoRecord)
	}
	a.tables[relations].remove([2]int64{other, first})
	return nil
}

// DeleteCustomer deletes a customer and its relations, and logs it as deleted.
func (a *Account) DeleteCustomer(id string) error { return a.delete(customers, id, true) }

// DeleteContact deletes a contact and its relations, and logs it as deleted.
func (a *Account) DeleteContact(id string) error { return a.delete(contacts, id, true) }

// VanishCustomer is DeleteCustomer without the log.
func (a *Account) VanishCustomer(id string) error { return a.delete(customers, id, false) }

// VanishContact is DeleteContact without the log.
func (a *Account) VanishContact(id string) error { return a.delete(contacts, id, false) }

func (a *Account) delete(table, id string, logged bool) error {
	a.mu.Lock()
	defer a.mu.Unlock()
	n, err := number(id)
	if err != nil {
		return err
	}
	gone := a.tables[table].find(n, 0)
	if gone == nil {
		return fmt.Errorf("%s %s: %w", table, id, ErrNoRecord)
	}
	a.tables[table].remove(gone.key())
	a.tables[relations].drop(func(r record) bool {
		l := r.(*Link)
		return l.company == n || l.contact == n
	})
	d := &Deleted{RecordID: id, At: second(a.o.Now()), number: n}
	switch r := gone.(type) {
	case *Customer:
		d.Type, d.Name = r.Stage, r.EntityID
	case *Contact:
		d.Type, d.Name = "Contact", r.EntityID
		a.private.remove(r.key())
	}
	if logged {
		a.tables[deletions].put(d)
	}
	return nil
}

// MergeCustomers joins lost into survivor: contacts, relations and sub-customers move, and lost is gone, logged as
// deleted or not. Only the survivor's date moves.
func (a *Account) MergeCustomers(lost, survivor string, logged bool) error {
	if err := a.EditCustomer(survivor, func(*Customer) {}); err != nil || lost == survivor {
		return cmp.Or(err, fmt.Errorf("merge customer %s: into itself", lost))
	}
	a.mu.Lock()
	to, _ := number(survivor)
	for _, r := range slices.Clone(a.tables[relations].all) {
		l := r.(*Link)
		if l.Company == lost && a.tables[relations].find(l.contact, to) == nil {
			a.tables[relations].put(&Link{Company: survivor, Contact: l.Contact, Role: l.Role, company: to, contact: l.contact})
		}
	}
	for _, r := range a.tables[contacts].all {
		if moved := *r.(*Contact); moved.Company == lost {
			moved.Company, moved.companyNumber = survivor, to
			a.tables[contacts].put(&moved)
		}
	}
	for _, r := range a.tables[customers].all {
		if moved := *r.(*Customer); moved.Parent == lost {
			moved.Parent, moved.parentNumber = survivor, to
			a.tables[customers].put(&moved)
		}
	}
	a.mu.Unlock()
	return a.delete(customers, lost, logged)
}

// MergeContacts joins lost into survivor: relations move, and lost is gone, logged as deleted or not. Only the
// survivor's date moves.
func (a *Account) MergeContacts(lost, survivor string, logged bool) error {
	if err := a.EditContact(survivor, func(*Contact) {}); err != nil || lost == survivor {
		return cmp.Or(err, fmt.Errorf("merge contact %s: into itself", lost))
	}
	a.mu.Lock()
	to, _ := number(survivor)
	for _, r := range slices.Clone(a.tables[relations].all) {
		l := r.(*Link)
		if l.Contact == lost && a.tables[relations].find(to, l.company) == nil {
			a.tables[relations].put(&Link{Company: l.Company, Contact: survivor, Role: l.Role, company: l.company, contact: to})
		}
	}
	for _, r := range a.tables[customers].all {
		if moved := *r.(*Customer); moved.Contact == lost {
			moved.Contact = survivor
			a.tables[customers].put(&moved)
		}
	}
	a.mu.Unlock()
	return a.delete(contacts, lost, logged)
}

// restService in Deny is the permission REST Web Services.
const restService = "rest"

// Deny takes tables and columns ("contact.isprivate") out of what the role may read; "rest" is the whole service.
func (a *Account) Deny(what ...string) {
	a.mu.Lock()
	defer a.mu.Unlock()
	for _, w := range what {
		a.denied[strings.ToLower(w)] = true
	}
}

// Allow gives back what Deny took.
func (a *Account) Allow(what ...string) {
	a.mu.Lock()
	defer a.mu.Unlock()
	for _, w := range what {
		delete(a.denied, strings.ToLower(w))
	}
}

// Denied is what the role may not read.
func (a *Account) Denied() []string {
	a.mu.RLock()
	defer a.mu.RUnlock()
	return slices.Sorted(maps.Keys(a.denied))
}

func (a *Account) mayNot(what string) bool {
	a.mu.RLock()
	defer a.mu.RUnlock()
	return a.denied[what]
}

// Restrict lets the role see records of these subsidiaries only, without a word about the others; none lifts that.
func (a *Account) Restrict(subsidiaries ...string) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.allowed = slices.Clone(subsidiaries)
}

// visible says whether the role sees a record, with a.mu held.
func (a *Account) visible(r record) bool {
	switch r := r.(type) {
	case *Customer:
		return len(a.allowed) == 0 || slices.Contains(a.allowed, r.Subsidiary)
	case *Contact:
		return !r.Private && (len(a.allowed) == 0 || slices.Contains(a.allowed, r.Subsidiary))
	case *Link:
		if !a.o.HideLinks {
			return true
		}
		contact := a.tables[contacts].find(r.contact, 0)
		customer := a.tables[customers].find(r.company, 0)
		return contact != nil && a.visible(contact) && (customer == nil || a.visible(customer))
	}
	return true
}

// hides says whether there may be records of a table that the role does not see, with a.mu held.
func (a *Account) hides(table string) bool {
	switch table {
	case customers:
		return len(a.allowed) > 0
	case contacts:
		return len(a.allowed) > 0 || len(a.private.all) > 0
	case relations:
		return a.o.HideLinks
	}
	return false
}

// Spoil replaces one cell of a record on the wire by this JSON from now on, or leaves it out if value is empty, and
// moves the record's ModifiedAt as an edit does, so that it is read. A relation's id is "company/contact".
func (a *Account) Spoil(table, id, column, value string) error {
	if value != "" && !jsonValid(value) {
		return fmt.Errorf("spoil %s %s: %s: no valid JSON", table, id, column)
	}
	if err := a.touch(table, id); err != nil {
		return err
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	cells := maps.Clone(a.spoilt[table+" "+id])
	if cells == nil {
		cells = map[string]string{}
	}
	cells[column] = value
	a.spoilt[table+" "+id] = cells
	return nil
}

// Heal takes back what Spoil did, as an edit.
func (a *Account) Heal(table, id string) error {
	a.mu.Lock()
	delete(a.spoilt, table+" "+id)
	a.mu.Unlock()
	return a.touch(table, id)
}

func (a *Account) touch(table, id string) error {
	switch table {
	case customers:
		return a.EditCustomer(id, func(*Customer) {})
	case contacts:
		return a.EditContact(id, func(*Contact) {})
	case roles:
		return a.EditRole(id, func(*Role) {})
	case relations:
		return nil
	}
	return fmt.Errorf("table %s: %w", table, ErrNoRecord)
}

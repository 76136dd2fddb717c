package qbo

import (
	"cmp"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/centime/contactsync/internal/erpsim"
)

// deleted is what QuickBooks adds to the name of a customer made inactive:
// https://github.com/ruckus/quickbooks-ruby spec/fixtures/deleted_customer.xml.
const deleted = " (deleted)"

// ErrNoCustomer is returned for an id that the company does not have, or not any more.
var ErrNoCustomer = errors.New("no such customer")

// A Customer is a customer of a company as the simulator holds it. Its JSON is the simulator's own plain form, not
// that of the wire.
type Customer struct {
	ID             string    `json:"id"`
	SyncToken      int       `json:"sync_token"`
	CreatedAt      time.Time `json:"created_at"` // whole seconds
	UpdatedAt      time.Time `json:"updated_at"` // whole seconds; a changed balance moves it too
	DisplayName    string    `json:"display_name"`
	CompanyName    string    `json:"company_name,omitempty"`
	Title          string    `json:"title,omitempty"`
	GivenName      string    `json:"given_name,omitempty"`
	MiddleName     string    `json:"middle_name,omitempty"`
	FamilyName     string    `json:"family_name,omitempty"`
	Suffix         string    `json:"suffix,omitempty"`
	CheckName      string    `json:"check_name,omitempty"` // PrintOnCheckName; empty: DisplayName
	Email          string    `json:"email,omitempty"`      // may hold several addresses
	Phone          string    `json:"phone,omitempty"`
	AlternatePhone string    `json:"alternate_phone,omitempty"`
	Mobile         string    `json:"mobile,omitempty"`
	Fax            string    `json:"fax,omitempty"`
	Web            string    `json:"web,omitempty"`
	Notes          string    `json:"notes,omitempty"`
	Delivery       string    `json:"delivery,omitempty"` // Print, Email or None
	Currency       string    `json:"currency,omitempty"` // ISO 4217; empty: USD
	BillAddr       *Address  `json:"bill_addr,omitempty"`
	ShipAddr       *Address  `json:"ship_addr,omitempty"`
	Parent         string    `json:"parent,omitempty"` // the id of the customer above it
	BillWithParent bool      `json:"bill_with_parent,omitempty"`
	Project        bool      `json:"project,omitempty"`
	Inactive       bool      `json:"inactive,omitempty"`
	Balance        int64     `json:"balance,omitempty"` // in cents, without those of its sub-customers
}

// An Address is a postal address; one with nothing but an id is real.
type Address struct {
	ID         string `json:"Id"`
	Line1      string `json:"Line1,omitempty"`
	Line2      string `json:"Line2,omitempty"`
	City       string `json:"City,omitempty"`
	Country    string `json:"Country,omitempty"`
	State      string `json:"CountrySubDivisionCode,omitempty"`
	PostalCode string `json:"PostalCode,omitempty"`
	Lat        string `json:"Lat,omitempty"`
	Long       string `json:"Long,omitempty"`
}

// A MergeMode is one of the ways in which a merged-away customer may look afterwards; which one QuickBooks has is not
// known.
type MergeMode string

// The ways of a merge.
const (
	MergeAbsent   MergeMode = "absent"   // in no query, and a single read answers 610
	MergeInactive MergeMode = "inactive" // inactive, with the name of a deactivated one
)

// A Company is one QuickBooks Online company. Its methods are those of a person at work in QuickBooks: nothing of them
// can be reached over the wire. It is safe for concurrent use.
type Company struct {
	Realm string
	Name  string

	now     func() time.Time
	textIDs bool
	tokens  *tokens
	script  *erpsim.Script[Fault]

	mu      sync.RWMutex
	byID    map[string]*row
	last    int64 // the id handed out last
	indexes map[string]*index

	nameMu sync.Mutex // orders are made while readers share mu
	names  []*row     // nil: to be made anew
}

// A row is a customer with what the server keeps beside it.
type row struct {
	Customer
	number int64             // of the id; 0 if it is no number
	spoilt map[string]string // wire fields replaced by this JSON, or left out where it is empty
	wire   []byte            // rendered beforehand; nil: rendered when read
}

func newCompany(realm, name string, o Options, t *tokens) *Company {
	c := &Company{Realm: realm, Name: name, now: o.Now, textIDs: o.TextIDs, tokens: t, byID: map[string]*row{}}
	c.indexes = map[string]*index{
		orderID:      {less: c.compareID},
		orderCreated: {less: func(a, b *row) int { return cmp.Or(a.CreatedAt.Compare(b.CreatedAt), c.compareID(a, b)) }},
		orderUpdated: {less: func(a, b *row) int { return cmp.Or(a.UpdatedAt.Compare(b.UpdatedAt), c.compareID(a, b)) }},
	}
	return c
}

func (c *Company) compareID(a, b *row) int {
	if c.textIDs {
		return strings.Compare(a.ID, b.ID)
	}
	return cmp.Or(cmp.Compare(a.number, b.number), strings.Compare(a.ID, b.ID))
}

// Join adds a customer and returns its id. An empty ID is given the next number, a zero CreatedAt or UpdatedAt the
// present second. Names need not be unique here, though they are in QuickBooks.
func (c *Company) Join(new Customer) (id string, err error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	r := c.prepare(new)
	if c.byID[r.ID] != nil {
		return "", fmt.Errorf("join customer %s: id is taken", r.ID)
	}
	c.add(r)
	return r.ID, nil
}

// Import adds n customers of the present second, as a bulk import does, and returns their ids.
func (c *Company) Import(n int) []string {
	c.mu.Lock()
	defer c.mu.Unlock()
	now, ids := c.now(), make([]string, 0, n)
	for range n {
		id := strconv.FormatInt(c.last+1, 10)
		c.add(c.prepare(Customer{
			ID: id, DisplayName: "Imported " + id, Email: "imported." + id + "@import.example", CreatedAt: now,
		}))
		ids = append(ids, id)
	}
	return ids
}

// prepare makes the row of a new customer, with c.mu held.
func (c *Company) prepare(new Customer) *row {
	if new.ID == "" {
		new.ID = strconv.FormatInt(c.last+1, 10)
	}
	if new.CreatedAt.IsZero() {
		new.CreatedAt = c.now()
	}
	if new.UpdatedAt.IsZero() {
		new.UpdatedAt = new.CreatedAt
	}
	r := &row{Customer: new}
	r.CreatedAt, r.UpdatedAt = second(r.CreatedAt), second(r.UpdatedAt)
	r.number, _ = strconv.ParseInt(r.ID, 10, 64)
	return r
}

func (c *Company) add(rows ...*row) {
	c.names = nil
	for _, r := range rows {
		c.last = max(c.last, r.number)
		c.byID[r.ID] = r
	}
	for _, x := range c.indexes {
		x.insert(rows)
	}
}

// Customer returns one customer.
func (c *Company) Customer(id string) (Customer, error) {
	c.mu.RLock()
	defer c.mu.RUnlock()
	r := c.byID[id]
	if r == nil {
		return Customer{}, fmt.Errorf("customer %s: %w", id, ErrNoCustomer)
	}
	return r.copy(), nil
}

// Customers returns all customers, inactive ones too, in the order of their ids. It reads the state itself and nothing
// of what queries go through.
func (c *Company) Customers() []Customer {
	c.mu.RLock()
	all := make([]Customer, 0, len(c.byID))
	for _, r := range c.byID {
		all = append(all, r.copy())
	}
	c.mu.RUnlock()
	slices.SortFunc(all, func(a, b Customer) int {
		return cmp.Or(cmp.Compare(len(a.ID), len(b.ID)), strings.Compare(a.ID, b.ID))
	})
	return all
}

// copy is the customer with addresses of its own, so that nobody changes the state past the indexes.
func (r *row) copy() Customer {
	c := r.Customer
	for _, a := range []**Address{&c.BillAddr, &c.ShipAddr} {
		if *a != nil {
			own := **a
			*a = &own
		}
	}
	return c
}

// Len is the number of customers, inactive ones included.
func (c *Company) Len() int {
	c.mu.RLock()
	defer c.mu.RUnlock()
	return len(c.byID)
}

// Edit changes a customer as a person does who saves its form: its SyncToken rises and UpdatedAt is the present second.
// A change of UpdatedAt by edit itself stands, so that a change can become visible later than it says it was made.
// ID, SyncToken and CreatedAt stay as they are.
func (c *Company) Edit(id string, edit func(*Customer)) error {
	return c.change(id, func(r *row) {
		was := r.Customer
		edit(&r.Customer)
		r.ID, r.CreatedAt, r.SyncToken = was.ID, was.CreatedAt, was.SyncToken+1
		if r.UpdatedAt.Equal(was.UpdatedAt) {
			r.UpdatedAt = c.now()
		}
	})
}

// Rename gives a customer another display name. The qualified names below it change with it; their times do not.
func (c *Company) Rename(id, name string) error {
	return c.Edit(id, func(r *Customer) { r.DisplayName = name })
}

// Deactivate is what QuickBooks calls delete: the customer becomes inactive and its name ends in " (deleted)".
func (c *Company) Deactivate(id string) error {
	return c.Edit(id, func(r *Customer) {
		if !r.Inactive {
			r.Inactive = true
			r.DisplayName += deleted
		}
	})
}

// Reactivate makes a customer active again, under the name it had.
func (c *Company) Reactivate(id string) error {
	return c.Edit(id, func(r *Customer) {
		r.Inactive = false
		r.DisplayName = strings.TrimSuffix(r.DisplayName, deleted)
	})
}

// Merge joins lost into survivor: balance and sub-customers move, and lost goes in the way of mode.
func (c *Company) Merge(lost, survivor string, mode MergeMode) error {
	gone, err := c.Customer(lost)
	if err != nil {
		return fmt.Errorf("merge: %w", err)
	}
	if lost == survivor {
		return fmt.Errorf("merge customer %s: into itself", lost)
	}
	if mode != MergeAbsent && mode != MergeInactive {
		return fmt.Errorf("merge customer %s: unknown mode %q", lost, mode)
	}
	if c.under(survivor, lost) {
		return fmt.Errorf("merge customer %s: into one below it", lost)
	}
	if err := c.Edit(survivor, func(r *Customer) { r.Balance += gone.Balance }); err != nil {
		return fmt.Errorf("merge: %w", err)
	}
	for _, child := range c.children(lost) {
		if err := c.Edit(child, func(r *Customer) { r.Parent = survivor }); err != nil {
			return fmt.Errorf("merge: %w", err)
		}
	}
	if mode == MergeInactive {
		if err := c.BumpBalance(lost, -gone.Balance); err != nil {
			return fmt.Errorf("merge: %w", err)
		}
		return c.Deactivate(lost)
	}
	c.remove(lost)
	return nil
}

func (c *Company) remove(id string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if r := c.byID[id]; r != nil {
		for _, x := range c.indexes {
			x.remove(r)
		}
		delete(c.byID, id)
		c.names = nil
	}
}

// BumpBalance changes a customer's balance by so many cents, as an invoice or payment does: UpdatedAt moves on it and
// on every customer above it, and no SyncToken does.
func (c *Company) BumpBalance(id string, cents int64) error {
	for level := 0; id != "" && level < 10; level++ {
		var parent string
		err := c.change(id, func(r *row) {
			if level == 0 {
				r.Balance += cents
			}
			r.UpdatedAt, parent = c.now(), r.Parent
		})
		if err != nil {
			return err
		}
		id = parent
	}
	return nil
}

// Prerender renders every customer beforehand, so that a page costs no more than copying it. A customer changed later
// is rendered when read again.
func (c *Company) Prerender() {
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, r := range c.byID {
		if r.wire == nil {
			r.wire = c.render(r)
		}
	}
}

// change lets one row be changed and keeps the indexes right.
func (c *Company) change(id string, change func(*row)) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	r := c.byID[id]
	if r == nil {
		return fmt.Errorf("customer %s: %w", id, ErrNoCustomer)
	}
	changed := &row{Customer: r.copy(), number: r.number, spoilt: r.spoilt}
	change(changed)
	changed.UpdatedAt = second(changed.UpdatedAt)
	c.names = nil
	for _, x := range c.indexes {
		x.remove(r)
	}
	c.byID[id] = changed
	for _, x := range c.indexes {
		x.insert([]*row{changed})
	}
	if changed.DisplayName != r.DisplayName || changed.Parent != r.Parent {
		c.renamed(id)
	}
	return nil
}

func second(t time.Time) time.Time { return t.UTC().Truncate(time.Second) }

// renamed drops what names below a customer went into, with c.mu held.
func (c *Company) renamed(id string) {
	for _, r := range c.byID {
		if r.Parent != "" && r.wire != nil && c.below(r, id) {
			r.wire = nil
		}
	}
}

// below says whether a row has the customer id above it, with c.mu held.
func (c *Company) below(r *row, id string) bool {
	for level := 0; r != nil && level < 10; level++ {
		if r.Parent == id {
			return true
		}
		r = c.byID[r.Parent]
	}
	return false
}

func (c *Company) under(id, above string) bool {
	c.mu.RLock()
	defer c.mu.RUnlock()
	return c.below(c.byID[id], above)
}

func (c *Company) children(id string) []string {
	c.mu.RLock()
	defer c.mu.RUnlock()
	var ids []string
	for _, r := range c.byID {
		if r.Parent == id {
			ids = append(ids, r.ID)
		}
	}
	slices.Sort(ids)
	return ids
}

// qualified is the FullyQualifiedName of a row and how deep it lies, with c.mu held.
func (c *Company) qualified(r *row) (name string, level int) {
	name = r.DisplayName
	for above := c.byID[r.Parent]; above != nil && level < 10; above = c.byID[above.Parent] {
		name = above.DisplayName + ":" + name
		level++
	}
	return name, level
}

// The orders that rows are kept in, by the property that a statement names.
const (
	orderID      = "id"
	orderCreated = "metadata.createtime"
	orderUpdated = "metadata.lastupdatedtime"
)

// An index holds all rows in one order. A few changes move rows in place; many make it sort itself when read next.
type index struct {
	less  func(a, b *row) int
	mu    sync.Mutex // sorting happens while readers share Company.mu
	rows  []*row
	stale bool // rows are not in order
}

// sorted is the rows in order. They stay so while Company.mu is held.
func (x *index) sorted() []*row {
	x.mu.Lock()
	defer x.mu.Unlock()
	if x.stale {
		slices.SortFunc(x.rows, x.less)
		x.stale = false
	}
	return x.rows
}

func (x *index) insert(rows []*row) {
	if len(rows) > 1 || x.stale {
		x.rows, x.stale = append(x.rows, rows...), true
		return
	}
	for _, r := range rows {
		i, _ := slices.BinarySearchFunc(x.rows, r, x.less)
		x.rows = slices.Insert(x.rows, i, r)
	}
}

func (x *index) remove(r *row) {
	rows := x.sorted()
	if i, found := slices.BinarySearchFunc(rows, r, x.less); found {
		x.rows = slices.Delete(rows, i, i+1)
	}
}

// byNames is the order that a query without ORDERBY has, with c.mu held for reading: by qualified name, as seen in
// https://github.com/NangoHQ/integration-templates integrations/quickbooks/tests. Any change has it made anew.
func (c *Company) byNames() []*row {
	c.nameMu.Lock()
	defer c.nameMu.Unlock()
	if c.names != nil {
		return c.names
	}
	type named struct {
		*row
		name string
	}
	all := make([]named, 0, len(c.byID))
	for _, r := range c.byID {
		name, _ := c.qualified(r)
		all = append(all, named{r, strings.ToLower(name)})
	}
	slices.SortFunc(all, func(a, b named) int {
		return cmp.Or(strings.Compare(a.name, b.name), c.compareID(a.row, b.row))
	})
	c.names = make([]*row, len(all))
	for i, n := range all {
		c.names[i] = n.row
	}
	return c.names
}

package syncing

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/centime/contactsync/internal/connector"
	"github.com/centime/contactsync/internal/postgres"
)

// asideEvery is how often a step looks whether a customer's refresh waits for it.
const asideEvery = 500 * time.Millisecond

// stepsAside says whether the step should end because a customer of its connection is to be refreshed. The page fetched ahead
// is dropped then and fetched anew afterwards, so that nothing older than the refresh is saved after it.
func (s *step) stepsAside(ctx context.Context) bool {
	if s.c.Purpose == postgres.Customer || time.Since(s.lookedAside) < asideEvery {
		return s.aside
	}
	waits, err := s.w.Store.RefreshWaits(ctx, s.c.Step)
	if err != nil {
		s.log.WarnContext(ctx, "it is unknown whether a customer's refresh waits", "error", err)
	}
	s.lookedAside, s.aside = time.Now(), waits
	return waits
}

// refresh reads one customer, saves it and ends the run. What we hold at it and the ERP's page does not name is looked up: a
// contact may have moved to another customer, or be gone.
func (s *step) refresh(ctx context.Context, source connector.Source) error {
	if !s.c.Pulled {
		page, err := s.customer(ctx, source)
		if err != nil {
			return err
		}
		err = s.save(ctx, "save customer", func(ctx context.Context, calls int) error {
			counts, err := s.w.Store.SaveCustomer(ctx, s.c.Step, s.c.CustomerID, page, calls)
			if err == nil {
				s.count(counts)
			}
			return err
		})
		if err != nil {
			return err
		}
		s.c.Pulled, s.c.Attempts = true, 0
	}
	return s.finish(ctx, source)
}

// customer is what the ERP says of the customer and of the contacts we hold at it.
func (s *step) customer(ctx context.Context, source connector.Source) (connector.Page, error) {
	key := connector.Key{Kind: connector.Customers, ID: s.c.CustomerID}
	page, err := source.Customer(ctx, key.ID)
	if errors.Is(err, errors.ErrUnsupported) {
		return page, &connector.Error{
			Kind: connector.Rejected, Step: "read customer", Message: s.erp.Label() + " cannot be asked for one customer",
			Hint: "Its changes come with the connection's next sync: syncctl resync " + fmt.Sprint(s.c.Connection),
		}
	}
	if err != nil {
		return page, err
	}
	held, err := s.w.Store.CustomerHeld(ctx, s.c.Step, key.ID)
	if err != nil {
		return page, err
	}
	named := map[connector.Key]bool{}
	for _, c := range page.Customers {
		named[connector.Key{Kind: connector.Customers, ID: c.ID}] = true
	}
	for _, c := range page.Contacts {
		named[connector.Key{Kind: connector.Contacts, ID: c.ID}] = true
	}
	for _, b := range page.Bad { // there, though unreadable
		named[b.Key] = true
	}
	switch {
	case named[key] || named[connector.Key{Kind: connector.Customers}]:
	case held.Known:
		page.Deleted = append(page.Deleted, key)
		return page, nil
	default:
		return page, &connector.Error{
			Kind: connector.Rejected, Step: "read customer", Message: "the ERP has no customer with this id, or hides it, and there never was one here",
			Hint: "Give the ERP's own id of the customer, as `syncctl contact list --json` shows it in customer_erp_id.",
		}
	}
	unnamed := slices.DeleteFunc(held.Contacts, func(k connector.Key) bool { return named[k] })
	for keys := range slices.Chunk(unnamed, connector.LookupMax) {
		found, err := source.Lookup(ctx, keys)
		if err != nil {
			return page, err
		}
		there := map[connector.Key]bool{}
		for _, c := range found.Contacts {
			there[connector.Key{Kind: connector.Contacts, ID: c.ID}] = true
		}
		for _, b := range found.Bad {
			there[b.Key] = true
		}
		page.Contacts, page.Links, page.Bad = append(page.Contacts, found.Contacts...), append(page.Links, found.Links...), append(page.Bad, found.Bad...)
		for _, k := range keys {
			if !there[k] {
				page.Deleted = append(page.Deleted, k)
			}
		}
	}
	return page, nil
}

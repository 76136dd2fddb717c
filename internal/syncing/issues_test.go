package syncing_test

import (
	"slices"
	"testing"

	"github.com/centime/contactsync/internal/connector"
	"github.com/centime/contactsync/internal/connector/memory"
	"github.com/centime/contactsync/internal/postgres"
)

// TestIssuesGoWithTheirRecord: an issue is a state of a record, so there is none of a record that is gone, be it that a person let it go;
// one that is only inactive is read still, and keeps its own.
func TestIssuesGoWithTheirRecord(t *testing.T) {
	w := setup(t, memory.NetSuite)
	all := w.customers(30)
	primary := connector.ERPRole{Key: "-10", Name: "Primary"}
	gone, inactive, apart, held := w.person("Ada", primary, all[0]), w.person("Ben", primary, all[0]), w.person("Cleo", primary, all[0]), w.person("Dan", primary, all[0])
	w.mustSync(postgres.Full)
	row := connector.Key{Kind: connector.Links, ID: connector.LinkID(all[0], apart)}
	for _, k := range []connector.Key{person(gone), person(inactive), person(held), customer(all[1]), customer(all[2])} {
		w.erp.Spoil(k, memory.NotText)
	}
	w.erp.Spoil(row, memory.Unreadable)
	wants := func(when string, want ...string) {
		t.Helper()
		var got []string
		for _, i := range w.list(postgres.Issues) {
			got = append(got, i["record_kind"]+" "+i["record_erp_id"])
		}
		slices.Sort(got)
		slices.Sort(want)
		if !slices.Equal(got, want) {
			t.Errorf("%s: open issues of %q, want %q", when, got, want)
		}
	}
	w.mustSync(postgres.Full)
	wants("all are there", "contact "+gone, "contact "+inactive, "contact "+held, "customer "+all[1], "customer "+all[2], "link "+row.ID)

	w.erp.Delete(person(gone))
	w.erp.Inactivate(person(inactive))
	w.erp.Detach(all[0], apart)
	w.erp.Delete(customer(all[1]))
	w.mustSync(postgres.Full)
	wants("four are gone or inactive", "contact "+inactive, "contact "+held, "customer "+all[2])

	w.erp.SetRights("others")
	w.erp.Delete(person(held))
	w.wantRun(postgres.Full, "held, for other rights", 0, 1)
	wants("one is held", "contact "+inactive, "contact "+held, "customer "+all[2])
	w.approve()
	w.erp.Delete(person(inactive))
	w.mustSync(postgres.Full)
	wants("one let go by a person, another was inactive", "customer "+all[2])
}

func person(id string) connector.Key { return connector.Key{Kind: connector.Contacts, ID: id} }

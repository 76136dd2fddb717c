package demo

import "testing"

// TestComparisonSeesEveryDifference: the demo's last word would be worth nothing if it could not say no.
func TestComparisonSeesEveryDifference(t *testing.T) {
	t.Parallel()
	erp := []simulated{
		{ID: "1", DisplayName: "Kelp (deleted)", Inactive: true, Email: "a@kelp.example, b@kelp.example"},
		{ID: "2", DisplayName: "Lab", Parent: "1", GivenName: "Ann", Phone: "555"},
	}
	equal := func() map[string]map[string]string {
		return map[string]map[string]string{"1": erp[0].expected(), "2": erp[1].expected()}
	}
	fields, differences := compare(erp, equal())
	if len(differences) != 0 || fields != 25 {
		t.Fatalf("%d fields, %v", fields, differences)
	}
	for id, row := range equal() {
		for field := range row {
			changed := equal()
			changed[id][field] += "x"
			if _, differences := compare(erp, changed); len(differences) != 1 {
				t.Errorf("%s of %s: %v", field, id, differences)
			}
			lost := equal()
			delete(lost[id], field)
			if _, differences := compare(erp, lost); len(differences) != 1 && row[field] != "" {
				t.Errorf("%s of %s lost: %v", field, id, differences)
			}
		}
	}
	more := equal()
	more["3"] = map[string]string{"active": "true"}
	if _, differences := compare(erp, more); len(differences) != 1 {
		t.Errorf("one that is gone from the ERP: %v", differences)
	}
	less := equal()
	delete(less, "2")
	if _, differences := compare(erp, less); len(differences) != 1 {
		t.Errorf("one that is missing: %v", differences)
	}
}

package connector_test

import (
	"testing"

	"github.com/centime/contactsync/internal/connector"
)

// Two links of different ends have different ids, with the ids that ERPs give.
func TestLinkID(t *testing.T) {
	t.Parallel()
	met := map[string]bool{}
	for _, l := range [][2]string{{"1", "23"}, {"12", "3"}, {"3", "12"}, {"214", "customer:214"}, {"-2", "3"}} {
		id := connector.LinkID(l[0], l[1])
		if met[id] {
			t.Errorf("the link of %v has the id %s of another", l, id)
		}
		met[id] = true
	}
}

package connectortest

import (
	"slices"
	"testing"

	"github.com/centime/contactsync/internal/connector"
)

// Run checks every promise of the contract that the far side's features let it check. newHarness is called once for
// each case; cases run in parallel.
func Run(t *testing.T, newHarness func(t *testing.T) Harness) {
	for _, c := range cases {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			c.run(t, newHarness(t))
		})
	}
}

type testCase struct {
	name  string
	why   string              // printed when it fails: the promise that is broken
	needs func(Features) bool // nil: nothing
	check func(*side)
}

func (c testCase) run(tb testing.TB, h Harness) {
	tb.Helper()
	s := newSide(tb, h)
	if c.needs != nil && !c.needs(s.features) {
		tb.Skip("this ERP or its simulation does not have what the case needs")
	}
	defer func() {
		for _, r := range h.Requests() {
			if r.Write {
				tb.Errorf("a request writes to the ERP: %s", r.What)
			}
		}
		if tb.Failed() {
			tb.Logf("the broken promise: %s", c.why)
		}
	}()
	c.check(s)
}

var cases = []testCase{
	{"Check", "a person who connects a company sees which one it is", calls, checks},
	{"Complete", "a full pull names each record once, inactive ones too, and says so", nil, complete},
	{"SameSecond", "records saved in one second are all pulled, however many pages they fill", nil, sameSecond},
	{"OwnContact", "every customer is a contact too, also without an address", nil, ownContact},
	{"Parent", "a sub-customer names its parent", func(f Features) bool { return f.Parents }, parent},
	{"Cleared", "a field cleared in the ERP is absent, so that its address gets no more mail", nil, cleared},
	{"SeveralAddresses", "a field with several addresses arrives as it was typed", nil, severalAddresses},
	{"RawText", "odd text is neither lost nor changed on the way to where it is reported",
		func(f Features) bool { return f.RawText }, rawText},

	{"Resume", "a worker killed between two pages loses no record", nil, resume},
	{"ResumeLater", "a pull resumed hours later loses no record, whatever changed meanwhile", nil, resumeLater},
	{"ResumeIncremental", "the same holds of an incremental pull", nil, resumeIncremental},
	{"DuringPull", "a change made during a pull is seen by it or by the next one", nil, duringPull},
	{"Incremental", "an incremental pull sees each change, also in the second of the pull before", nil, incremental},
	{"Idle", "where nothing changed, an incremental pull reads no record", nil, idle},
	{"Attached", "attaching, another role and detaching are seen, at each customer by itself", contacts, attached},

	{"Removed", "a record that is gone can be told from one that is not", removes, removed},
	{"Vanishing", "a record removed during a pull takes no other with it", removes, vanishing},
	{"Joining", "a record added during a pull takes no other with it", nil, joining},
	{"Inactive", "a record made inactive is seen as inactive, and is not gone", nil, inactive},
	{"BadField", "a field that cannot be understood is reported, its record still arrives", damage(NotText), badField},
	{"BadRecord", "a record that cannot be understood is reported and not gone", damage(Unreadable), badRecord},
	{"BadID", "a pull that could not read an id does not claim to have listed its kind", damage(NoID), badID},

	{"Lookup", "many records, and places that are rows of their own, are looked up at once: inactive ones are there, unknown ones missing", nil, lookup},
	{"OneCustomer", "who asks for one customer gets all that is at it, as it is now, and nothing else", nil, oneCustomer},
	{"ForeignCursor", "a cursor that is not understood begins the run again, and does not skip", nil, foreignCursor},

	{"Throttled", "the wait an ERP asks for reaches whoever waits", plays(Throttle), fails(Throttle, connector.Throttled)},
	{"Denied", "a withdrawn login ends all retries and asks for a person", plays(Revoke), fails(Revoke, connector.Denied)},
	{"Misconfigured", "a mistake in this installation is not blamed on a company's login",
		plays(Misconfigure), fails(Misconfigure, connector.Misconfigured)},
	{"Rejected", "a wrong request is not repeated, and its answer tells nothing of a record",
		plays(Reject), fails(Reject, connector.Rejected)},
	{"Broken", "the ERP's own failure is tried again", plays(Break), fails(Break, connector.Transient)},
	{"Cut", "an answer cut in its middle is an error, and never the end of a pull",
		plays(Cut), fails(Cut, connector.Transient)},

	{"Cancelled", "shutdown ends a pull at once, and is nobody's fault", nil, cancelled},
	{"CancelledInFlight", "shutdown does not wait for an ERP that does not answer", calls, cancelledInFlight},
	{"Left", "a pull asks for a page when it is wanted, and for nothing once its loop is left", calls, left},
	{"Called", "every request is counted before it is sent and said to be over, and a budget can refuse it", calls, called},
	{"ReadOnly", "nothing is ever written to an ERP", calls, readOnly},
}

func calls(f Features) bool    { return f.Calls }
func contacts(f Features) bool { return f.Contacts }
func removes(f Features) bool  { return f.Removes }

func plays(fault Fault) func(Features) bool {
	return func(f Features) bool { return slices.Contains(f.Faults, fault) }
}

func damage(d Damage) func(Features) bool {
	return func(f Features) bool { return slices.Contains(f.Damages, d) }
}

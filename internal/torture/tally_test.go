package torture

import (
	"fmt"
	"maps"
	"slices"
	"strings"
	"sync"
)

// tally counts what a campaign did: what nobody put to the test shows.
type tally struct {
	mu       sync.Mutex
	acts     map[string]int
	faults   map[string]int
	promises map[string]int
	kinds    map[runKind]int
}

func newTally() *tally {
	t := &tally{acts: map[string]int{}, faults: map[string]int{}, promises: map[string]int{}, kinds: map[runKind]int{}}
	for _, p := range promises {
		t.promises[p] = 0
	}
	for _, f := range faults {
		t.faults[f] = 0
	}
	return t
}

func (t *tally) did(what string)   { t.add(t.acts, what, 1) }
func (t *tally) fault(what string) { t.add(t.faults, what, 1) }

func (t *tally) promise(what string, times int) {
	if !slices.Contains(promises, what) {
		panic("unknown promise: " + what)
	}
	t.add(t.promises, what, times)
}

func (t *tally) ran(k runKind) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.kinds[k]++
}

func (t *tally) add(to map[string]int, what string, n int) {
	t.mu.Lock()
	defer t.mu.Unlock()
	to[what] += n
}

// never lists the promises and faults that a campaign of some size must have met, and this one did not.
func (t *tally) never() []string {
	t.mu.Lock()
	defer t.mu.Unlock()
	var never []string
	for _, m := range []map[string]int{t.promises, t.faults} {
		for what, n := range m {
			if n == 0 {
				never = append(never, what)
			}
		}
	}
	slices.Sort(never)
	return never
}

// String is what the campaign says that it did.
func (t *tally) String() string {
	t.mu.Lock()
	defer t.mu.Unlock()
	var b strings.Builder
	fmt.Fprintln(&b, "runs, by kind")
	for _, k := range slices.Sorted(maps.Keys(t.kinds)) {
		fmt.Fprintf(&b, "  %8d  %s\n", t.kinds[k], k)
	}
	for _, part := range []struct {
		title string
		of    map[string]int
	}{{"what happened", t.acts}, {"faults that struck", t.faults}, {"how often each promise was put to the test", t.promises}} {
		fmt.Fprintln(&b, part.title)
		for _, what := range slices.Sorted(maps.Keys(part.of)) {
			fmt.Fprintf(&b, "  %8d  %s\n", part.of[what], what)
		}
	}
	return b.String()
}

// The promises, by the numbers of the design's section 3.
const (
	onlyReads    = "1 read only: requests looked at"
	oneWay       = "2 one-way: rows of people's compared"
	choices      = "2 one-way: role choices compared"
	redisLost    = "3 Postgres is the truth: runs whose Redis was emptied, and that settled"
	checkpoints  = "4 page and checkpoint: pages of finished runs that are all there"
	resumed      = "4 page and checkpoint: runs that went on after their worker had died"
	oneWriter    = "5 one writer: writes whose lease was looked up"
	lateWriters  = "5 one writer: late writers turned away"
	absence      = "6 absence is not deletion: deactivations judged"
	cutPulls     = "6 absence is not deletion: runs that failed or were cancelled, and let nobody go"
	brakeOff     = "7 the brake: runs that let somebody go, within the brake"
	brakeOn      = "7 the brake: holds judged"
	approved     = "7 the brake: records of approved holds, gone or read active"
	kept         = "7 the brake: records that a rejected hold keeps"
	rolesGone    = "7 the brake: roles that went with their place's own row, within the brake"
	orphans      = "7 the brake: customers that vanished with people's contacts at them"
	counted      = "8 every record accounted for: runs whose counts were added up"
	compared     = "8 every record accounted for: fields compared with the ERP"
	issuesGone   = "8 every record accounted for: issues that went with their record"
	idempotent   = "9 idempotent: unchanged resyncs that wrote nothing"
	tokens       = "10 rotated token saved first: rotations survived"
	apart        = "11 tenants are apart: runs with two tenants compared"
	silent       = "12 secrets stay secret: kilobytes looked through"
	replayed     = "13 history: facts replayed to the present"
	everTrue     = "13 history: values that the ERP really had"
	recipients   = "14 who gets mail: recipients derived and compared"
	previewed    = "preview: runs that changed nothing"
	refreshed    = "one customer: refreshes that touched nothing else"
	withinBudget = "budgets: seconds looked at"
)

var promises = []string{
	onlyReads, oneWay, choices, redisLost, checkpoints, resumed, oneWriter, lateWriters, absence, cutPulls, brakeOff, brakeOn, approved, kept, rolesGone, orphans,
	counted, issuesGone, previewed, refreshed,
	compared, idempotent, tokens, apart, silent, replayed, everTrue, recipients, withinBudget,
}

// faults are those that a campaign of some size must have met. Those of the wire are named by the simulators.
var faults = []string{
	"worker killed at a statement", "worker killed after a statement", "worker killed before a COMMIT", "worker killed during a COMMIT",
	"worker killed at a request to the ERP", "worker drained", "worker frozen past the lease",
	"scheduler killed at a statement", "scheduler killed after a statement", "scheduler killed before a COMMIT", "scheduler killed during a COMMIT",
	"scheduler drained", "scheduler frozen past the lease",
	"Postgres cut before a COMMIT", "Postgres cut during a COMMIT, reply lost", "COMMIT held back in the network",
	"Postgres cut", "Postgres cut, reply lost", "Postgres slowed", "Postgres black-holed", "Postgres ended all connections", "Postgres restarted",
	"Redis cut", "Redis cut, reply lost", "Redis slowed", "Redis black-holed", "Redis emptied", "Redis hung", "Redis stopped and came back empty",
	"ERP cut", "ERP cut, reply lost", "ERP slowed", "ERP black-holed",
	"ERP: drop", "ERP: slow", "ERP: throttle_xml", "ERP: throttle_json", "ERP: throttle_gateway", "ERP: root_fault", "ERP: query_fault", "ERP: xml_fault",
	"ERP: internal_error", "ERP: html_503", "ERP: empty_502", "ERP: truncated", "ERP: not_json", "ERP: expired_token", "ERP: expired_token_xml",
	"ERP: user_lost", "ERP: forbidden", "ERP: suspended", "ERP: bad_data", "ERP: lose_reply", "ERP: custom", "ERP: invalid_grant", "ERP: invalid_client",
	"NetSuite: drop", "NetSuite: slow", "NetSuite: throttle", "NetSuite: throttle_broken", "NetSuite: throttle_empty", "NetSuite: html_503",
	"NetSuite: empty_502", "NetSuite: not_json", "NetSuite: truncated", "NetSuite: redirect", "NetSuite: invalid_login", "NetSuite: forbidden",
	"NetSuite: silent_cut", "NetSuite: repeat", "NetSuite: invalid_grant", "NetSuite: lose_reply", "NetSuite: custom",
	"program killed", "program drained", "program frozen past the lease", "program whose clock is an hour off",
}

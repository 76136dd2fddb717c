package bench

import (
	"fmt"
	"slices"
	"strconv"
	"strings"
	"text/tabwriter"
	"time"
)

// figures of one scenario at one size. What cannot be had is unknown.
type figures struct {
	Customers    int
	Scenario     string
	Seconds      float64
	Records      int64         // read from the ERP, or loaded by psql
	ClientCPU    time.Duration // of the worker, or of psql
	ServerCPU    time.Duration // of all of Postgres
	Peak         int64         // of the worker's resident memory, bytes
	WAL          int64         // bytes
	ContactRows  int64         // written to contactTables
	OtherRows    int64
	Transactions int64 // that wrote
	Statements   int64

	Calls          int64 // of the ERP, as the run counted them
	SimulatorCalls int64 // as the simulator counted them
	FewestCalls    int64 // that the page size demands
	Steps          int64 // of the run
}

// contactTables hold what an unchanged resync must not touch.
var contactTables = []string{"customers", "contacts", "contact_points", "customer_contacts", "history"}

// difference fills in what two samples tell.
func (f *figures) difference(before, after sample) {
	f.ClientCPU, f.WAL, f.Transactions = after.worker-before.worker, after.wal-before.wal, after.transactions-before.transactions
	f.ServerCPU, f.Statements = unknown, unknown
	if before.server != unknown {
		f.ServerCPU = after.server - before.server
	}
	if before.statements != unknown {
		f.Statements = after.statements - before.statements
	}
}

func (f *figures) countRows(before, after map[string]int64) {
	for table, n := range after {
		if n -= before[table]; slices.Contains(contactTables, table) {
			f.ContactRows += n
		} else {
			f.OtherRows += n
		}
	}
}

// table is the figures, aligned.
func table(all []figures) string {
	var text strings.Builder
	w := tabwriter.NewWriter(&text, 0, 0, 2, ' ', tabwriter.AlignRight)
	fmt.Fprintln(w, "customers\tscenario                \tseconds\trecords/s\tclient CPU s\tPostgres CPU s\tworker peak MB\tWAL MB\tcontact rows\tother rows\ttransactions\tstatements\tERP calls\t")
	for _, f := range all {
		rate := int64(unknown)
		if f.Records > 0 && f.Seconds > 0 {
			rate = int64(float64(f.Records) / f.Seconds)
		}
		fmt.Fprintf(w, "%s\t%-24s\t%.2f\t%s\t%s\t%s\t%s\t%s\t%s\t%s\t%s\t%s\t%s\t\n", thousands(int64(f.Customers)), f.Scenario, f.Seconds, thousands(rate),
			seconds(f.ClientCPU), seconds(f.ServerCPU), megabytes(f.Peak), megabytes(f.WAL), thousands(f.ContactRows), thousands(f.OtherRows),
			thousands(f.Transactions), thousands(f.Statements), thousands(f.Calls))
	}
	_ = w.Flush() // into memory
	return text.String()
}

func seconds(d time.Duration) string {
	if d == unknown {
		return "-"
	}
	return strconv.FormatFloat(d.Seconds(), 'f', 2, 64)
}

// megabytes are of a million bytes.
func megabytes(n int64) string {
	if n == unknown {
		return "-"
	}
	return strconv.FormatFloat(float64(n)/1e6, 'f', 1, 64)
}

// thousands writes 1234567 as 1,234,567.
func thousands(n int64) string {
	if n == unknown {
		return "-"
	}
	text := strconv.FormatInt(n, 10)
	for at := len(text) - 3; at > 0; at -= 3 {
		text = text[:at] + "," + text[at:]
	}
	return text
}

// ratios compares with the yardstick, two lines for each size, and says where time is not what is wanted.
func ratios(all []figures) string {
	var text strings.Builder
	for _, n := range sizes(all) {
		first, again := of(all, n, firstLoad), of(all, n, unchanged)
		toYardstick := first.Seconds / of(all, n, psqlLoads).Seconds
		fmt.Fprintf(&text, "%s customers, first load: %s%s\n", thousands(int64(n)), first.against(of(all, n, psqlLoads)),
			unless(toYardstick <= slowest, ": slower than wanted, %.1f times its time at most", slowest))
		asFast := first.Seconds / again.Seconds
		fmt.Fprintf(&text, "%s customers, unchanged full resync: %s, %.2f times as fast as the first load%s\n", thousands(int64(n)),
			again.against(of(all, n, psqlCompares)), asFast, unless(asFast >= fastest, ": slower than wanted, %.1f times as fast at least", fastest))
	}
	return text.String()
}

func (f figures) against(yardstick figures) string {
	text := fmt.Sprintf("%.2f times the yardstick's time", f.Seconds/yardstick.Seconds)
	if f.ServerCPU != unknown {
		text += fmt.Sprintf(", %.1f times its CPU", (f.ClientCPU+f.ServerCPU).Seconds()/(yardstick.ClientCPU+yardstick.ServerCPU).Seconds())
	}
	return text
}

func unless(met bool, format string, wanted float64) string {
	if met {
		return ""
	}
	return fmt.Sprintf(format, wanted)
}

func sizes(all []figures) []int {
	var found []int
	for _, f := range all {
		if !slices.Contains(found, f.Customers) {
			found = append(found, f.Customers)
		}
	}
	slices.Sort(found)
	return found
}

func of(all []figures, customers int, scenario string) figures {
	return all[slices.IndexFunc(all, func(f figures) bool { return f.Customers == customers && f.Scenario == scenario })]
}

// The aims of time. What else the machine does moves them, so they are told and miss nothing.
const (
	slowest = 1.5 // a first load, in times of the yardstick
	fastest = 2.0 // an unchanged resync, how many times as fast as the first load
)

// The other aims. Memory is the worker's highest in all scenarios of a size.
const (
	memoryMax = 64_000_000 // bytes
	growthMax = 0.10       // between the smallest and the largest size
	walMax    = 0.01       // of an unchanged resync, as a share of the first load's
	// aheadMax is the most calls for what is on no page yet: contacts, and thrice the contacts' places.
	aheadMax = 4
	// walFrom is the size from which on the pages that any run touches do not count.
	walFrom = 20_000
)

// verdicts says which aims were missed.
func verdicts(all []figures) []string {
	var missed []string
	peaks := map[int]int64{}
	for _, f := range all {
		peaks[f.Customers] = max(peaks[f.Customers], f.Peak)
		if f.Scenario == unchanged && f.ContactRows != 0 {
			missed = append(missed, fmt.Sprintf("The unchanged full resync of %s customers wrote %s rows of customers, contacts, points, links or history; it must write none.",
				thousands(int64(f.Customers)), thousands(f.ContactRows)))
		}
		if first := of(all, f.Customers, firstLoad); f.Scenario == unchanged && f.Customers >= walFrom && float64(f.WAL) >= walMax*float64(first.WAL) {
			missed = append(missed, fmt.Sprintf("The unchanged full resync of %s customers wrote %s MB of WAL, the first load %s MB; it must stay under %.0f %% of that.",
				thousands(int64(f.Customers)), megabytes(f.WAL), megabytes(first.WAL), 100*walMax))
		}
		// A step that ends leaves what was fetched ahead to the next one, which fetches it again.
		if again := f.Calls - f.FewestCalls; f.FewestCalls != unknown && (again < 0 || again > aheadMax*(f.Steps-1)) {
			missed = append(missed, fmt.Sprintf("The %s of %s customers took %d ERP calls in %d steps; its rows and the page size demand %d.",
				f.Scenario, thousands(int64(f.Customers)), f.Calls, f.Steps, f.FewestCalls))
		}
		if f.Calls != f.SimulatorCalls {
			missed = append(missed, fmt.Sprintf("In the %s of %s customers the run counted %d ERP calls and the ERP %d; they must agree.",
				f.Scenario, thousands(int64(f.Customers)), f.Calls, f.SimulatorCalls))
		}
	}
	measured := sizes(all)
	for _, n := range measured {
		if peaks[n] >= memoryMax {
			missed = append(missed, fmt.Sprintf("With %s customers the worker took %s MB; it must stay under %s MB.",
				thousands(int64(n)), megabytes(peaks[n]), megabytes(memoryMax)))
		}
	}
	small, large := measured[0], measured[len(measured)-1]
	if growth := float64(peaks[large])/float64(peaks[small]) - 1; growth > growthMax {
		missed = append(missed, fmt.Sprintf("From %s to %s customers the worker's memory grew by %.0f %%, from %s to %s MB; at most %.0f %% is allowed.",
			thousands(int64(small)), thousands(int64(large)), 100*growth, megabytes(peaks[small]), megabytes(peaks[large]), 100*growthMax))
	}
	return missed
}

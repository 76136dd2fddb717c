package torture

import (
	"context"
	"flag"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"
)

var (
	seedFlag    = flag.Uint64("seed", 0, "seed of the first run; 0: fixed seeds, then fresh ones")
	runsFlag    = flag.Int("runs", 0, "how many runs; 0: as many as fit into -minutes")
	minutesFlag = flag.Float64("minutes", 0, "how long to begin new runs; 0: as long as -runs takes")
	atOnceFlag  = flag.Int("at-once", 10*runtime.GOMAXPROCS(0), "how many runs at once: most of a run is waiting")
	clocksFlag  = flag.Bool("clocks", false, "workers whose clock is an hour off take part; a long campaign has them anyway")
	kindFlag    = flag.String("kind", "", "only runs of this kind")
)

const (
	// fewRuns is what an ordinary `go test` does.
	fewRuns = 6
	// fixed is how many seeds are the same each time.
	fixed = 40
	// large is the number of runs from which nothing may have been left untested.
	large = 1000
)

// TestCampaign guards everything that must always hold, under faults. It prints what it did.
func TestCampaign(t *testing.T) {
	runs, end := *runsFlag, time.Time{}
	if *minutesFlag > 0 {
		end = time.Now().Add(time.Duration(*minutesFlag * float64(time.Minute)))
	} else if runs == 0 {
		runs = fewRuns
	}
	began, sum := time.Now(), newTally()
	var next, failed atomic.Int64
	fresh := rand.Uint64N(1<<40) + 1000
	seed := func(n int) uint64 {
		switch {
		case *seedFlag != 0:
			return *seedFlag + uint64(n)
		case n < fixed:
			return uint64(n) + 1
		}
		return fresh + uint64(n)
	}
	var all sync.WaitGroup
	for range *atOnceFlag {
		all.Go(func() {
			for {
				n := int(next.Add(1)) - 1
				if runs > 0 && n >= runs || !end.IsZero() && time.Now().After(end) {
					next.Add(-1)
					return
				}
				s := seed(n)
				if !t.Run(fmt.Sprint(s), func(t *testing.T) { torture(t, s, sum) }) {
					failed.Add(1)
					clocks := ""
					if wrongClocks() {
						clocks = " CLOCKS=1"
					}
					t.Logf("seed %d failed; again: make torture SEED=%d RUNS=1%s", s, s, clocks)
				}
			}
		})
	}
	all.Wait()
	fmt.Printf("%d runs in %v, %d failed\n%s", next.Load(), time.Since(began).Round(time.Second), failed.Load(), sum)
	if next.Load() >= large {
		for _, what := range sum.never() {
			t.Errorf("never put to the test: %s", what)
		}
	}
}

// kindOf a run: most are the usual.
func kindOf(rng *rand.Rand) runKind {
	n := rng.IntN(60)
	switch {
	case *kindFlag != "":
		return runKind(*kindFlag)
	case n == 0:
		return restarting
	case n < 3:
		return stopping
	case n < 5:
		return programsKind
	}
	return usual
}

// torture is one run: a world, a storm, rest, and the judgement.
func torture(t *testing.T, seed uint64, sum *tally) {
	rng := rand.New(rand.NewPCG(seed, 0xc0ffee))
	kind := kindOf(rng)
	if kind == programsKind {
		builtPrograms(t)
	}
	w := newWorld(t, rng, sum, kind)
	defer func() {
		w.stop()
		if t.Failed() {
			w.keepLog(seed)
		}
	}()
	w.storm(rng)
	if rng.IntN(3) == 0 { // something to decide on
		w.tally.did("ERP: " + w.sides[rng.IntN(len(w.sides))].company.Accident(rng))
	}
	w.settle()
	if w.decideAll(rng) {
		w.round(rng)
		w.settle()
	}
	w.judge()
	sum.ran(kind)
}

// keepLog leaves behind for whoever looks into a failed run, at once and not at the campaign's end, what was wrong, what Postgres says of
// its runs, and their log.
func (w *world) keepLog(seed uint64) {
	told := w.faults
	rows, err := w.db.QueryContext(context.WithoutCancel(w.ctx), `
		SELECT concat_ws(' ', 'run', id, 'of', connection_id, mode, trigger, status, 'claims', fencing, 'pages', pages, 'listed', listed,
			'began', listing_began_at::time(3), 'ended', finished_at::time(3), 'read', read, 'created', created, 'updated', updated,
			'unchanged', unchanged, 'refused', refused, 'of', active_at_start, 'gone', deactivated, 'held', held, error)
		FROM contactsync.runs ORDER BY id DESC LIMIT 40`)
	if err == nil {
		defer rows.Close()
		for rows.Next() {
			var line string
			if rows.Scan(&line) == nil {
				w.t.Log(line)
				told = append(told, line)
			}
		}
		err = rows.Err()
	}
	if err != nil {
		w.t.Log(err)
	}
	dir := filepath.Join("..", "..", ".local", "torture")
	if err := os.MkdirAll(dir, 0o700); err != nil {
		w.t.Log(err)
		return
	}
	file := filepath.Join(dir, fmt.Sprintf("%d.log", seed))
	if err := os.WriteFile(file, []byte(strings.Join(told, "\n")+"\n\n"+w.log.String()), 0o600); err != nil {
		w.t.Log(err)
		return
	}
	w.t.Logf("its processes' log: .local/torture/%d.log", seed)
}

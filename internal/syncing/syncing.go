// Package syncing works a run, one bounded step at a time: it claims the run, pulls pages, has each saved with its
// checkpoint, and at the end lets go what goes or has it held.
package syncing

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"net/http"
	"runtime"
	"sync/atomic"
	"time"

	"github.com/centime/contactsync/internal/connector"
	"github.com/centime/contactsync/internal/credentials"
	"github.com/centime/contactsync/internal/metrics"
	"github.com/centime/contactsync/internal/pace"
	"github.com/centime/contactsync/internal/postgres"
	"github.com/centime/contactsync/internal/reconcile"
	"github.com/centime/contactsync/internal/tracing"
)

const (
	// maxAttempts is how often a run is claimed without saving a page before it fails; the waits between them add up to
	// a quarter to half an hour.
	maxAttempts = 10
	// maxThrottled is how long a run may be refused for being too fast before it fails and frees its place. It does not begin a wait that
	// would end later.
	maxThrottled = 15 * time.Minute
	// throttledWait is how long to wait where neither the ERP nor its connector says.
	throttledWait = time.Minute
	// maxBeganAgain is how often a run may find its cursor expired.
	maxBeganAgain = 2
	// lastWords bounds what is written after a step was told to stop.
	lastWords = 5 * time.Second
	// leastStep is how long a step works before it gives way: less, and a run that always gives way would only be claimed.
	leastStep = time.Second
)

// Worker works steps of runs. The fields from Pace on may be left out.
type Worker struct {
	Store      *postgres.Store
	Connectors map[string]connector.Connector // by Name
	Ring       *credentials.Ring
	Log        *slog.Logger
	Lease      time.Duration
	Step       time.Duration
	// Draining is closed when the process is to end: steps end at their next page and hand their runs on.
	Draining <-chan struct{}
	// Pace lets requests through as an account's limits allow; nil: at once.
	Pace *pace.Budgets
	// GiveWay says whether a run of this trigger should let something more urgent have its slot.
	GiveWay func(context.Context, postgres.Trigger) bool
	// Metrics are told what happens.
	Metrics *metrics.Metrics
	// Transport carries requests to ERPs; nil: erphttp.Transport().
	Transport http.RoundTripper
	// Backoff is the wait after the given number of attempts; nil: 5 s doubling up to 10 min, with jitter.
	Backoff func(attempts int) time.Duration
}

// Work does one step of a run. What became of it is in Postgres when it returns; next is the delivery that the caller hands
// to the queue, nil if there is nothing to hand on. A lost or repeated delivery does no harm: at most one claim succeeds.
func (w *Worker) Work(ctx context.Context, run int64, delivery int) (next *postgres.HandOut) {
	log := w.Log.With("run_id", run)
	claimed, err := w.Store.Claim(ctx, run, delivery, w.Lease)
	if errors.Is(err, postgres.ErrNotYours) {
		log.DebugContext(ctx, "delivery is not current", "delivery", delivery)
		return nil
	}
	if err != nil {
		log.ErrorContext(ctx, "claim failed; the scheduler hands the run out again", "error", err)
		return nil
	}
	log = log.With("connection_id", claimed.Connection, "tenant_id", claimed.Tenant, "erp", claimed.ERP)
	tracing.Annotate(ctx, slog.Int64("connection_id", claimed.Connection), slog.Int64("tenant_id", claimed.Tenant), slog.String("erp", claimed.ERP))
	log.InfoContext(ctx, "step begins", "mode", claimed.Mode, "attempt", claimed.Attempts)
	if claimed.First {
		w.Metrics.StartDelay(string(claimed.Trigger), claimed.Delay)
	}
	if claimed.Preview {
		ctx = context.WithoutCancel(ctx) // a rehearsal takes as long as it takes; its step is ended by Draining
	}
	s := &step{w: w, c: claimed, log: log, began: time.Now()}
	defer func() { w.Metrics.StepEnded(claimed.ERP, time.Since(s.began)) }()

	held, release := context.WithCancelCause(ctx)
	defer release(nil) // after a panic too: a heartbeat that goes on keeps the connection
	beats := make(chan struct{})
	go func() {
		defer close(beats)
		s.heartbeat(tracing.Aside(held), release)
	}()
	err = s.run(held)
	lost := errors.Is(context.Cause(held), postgres.ErrLeaseLost) || errors.Is(err, postgres.ErrLeaseLost)
	release(nil)
	<-beats
	if lost {
		log.WarnContext(ctx, "lease lost: another worker goes on")
		w.Metrics.LeaseLost(claimed.ERP)
		s.counted(s.calls.Load()) // the run counts no more of them than whoever has it now
		return nil
	}
	// From here on only the outcome is written, also when the step's context is over.
	last, cancel := context.WithTimeout(context.WithoutCancel(ctx), lastWords)
	defer cancel()
	next, err = s.conclude(last, err)
	if err != nil {
		log.ErrorContext(last, "the step's outcome could not be written; the scheduler hands the run out again", "error", err)
	}
	return next
}

// errStopped ends a step between two pages; its run goes on from its checkpoint.
var errStopped = errors.New("step stopped")

// errQuiet ends a pull whose run is over already: it found nothing.
var errQuiet = errors.New("nothing changed")

// step is one claim of a run.
type step struct {
	w     *Worker
	c     *postgres.Claimed
	log   *slog.Logger
	began time.Time
	calls atomic.Int64 // data requests that nothing saved counts yet
	erp   connector.Connector

	cancelled, paused atomic.Bool
	// aside: the step ended because a customer's refresh waits; it was last asked for at lookedAside.
	aside       bool
	lookedAside time.Time
	gaveWay     bool
	// writing: a transaction of the step holds the run's row, or is refused when it asks for it. A renewal waits for it, and
	// nobody else can claim meanwhile, so that waiting is no loss of the lease.
	writing atomic.Bool
}

// write does what writes under the run's row lock.
func (s *step) write(ctx context.Context, what string, f func(context.Context) error) error {
	s.writing.Store(true)
	defer s.writing.Store(false)
	ctx, end := tracing.Span(ctx, what)
	err := f(ctx)
	end(err)
	return err
}

// save is write of something that also saves the number of data requests since the last one. Those of a save that failed are the next one's.
func (s *step) save(ctx context.Context, what string, f func(ctx context.Context, calls int) error) error {
	return s.write(ctx, what, func(ctx context.Context) error {
		return s.counting(func(calls int) error { return f(ctx, calls) })
	})
}

func (s *step) counting(save func(calls int) error) error {
	calls := s.calls.Load()
	err := save(int(calls))
	if err == nil {
		s.counted(calls)
	}
	return err
}

func (s *step) counted(calls int64) {
	s.calls.Add(-calls)
	s.w.Metrics.Calls(s.c.ERP, int(calls))
}

// heartbeat renews the lease until ctx ends. It ends the step when the lease is lost, or could not be renewed in time.
func (s *step) heartbeat(ctx context.Context, lose context.CancelCauseFunc) {
	tick := time.NewTicker(s.w.Lease / 4)
	defer tick.Stop()
	until := time.Now().Add(s.w.Lease)
	for {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
		asked := time.Now()
		renewal, cancel := context.WithDeadline(ctx, until)
		wish, err := s.w.Store.Renew(renewal, s.c.Step, s.w.Lease)
		cancel()
		switch {
		case err == nil:
			until = asked.Add(s.w.Lease)
			s.cancelled.Store(wish.Cancel)
			s.paused.Store(wish.Pause)
		case ctx.Err() != nil:
			return
		case s.writing.Load():
			until = time.Now().Add(s.w.Lease)
		case errors.Is(err, postgres.ErrLeaseLost) || !time.Now().Before(until):
			lose(postgres.ErrLeaseLost)
			return
		default:
			s.log.WarnContext(ctx, "lease not renewed yet", "error", err)
		}
	}
}

// ending says whether the step must end, however little it has done.
func (s *step) ending() bool {
	select {
	case <-s.w.Draining:
		return true
	default:
		return s.cancelled.Load() || s.paused.Load()
	}
}

// stop says whether the step is to end between two pages.
func (s *step) stop(ctx context.Context) bool {
	worked := time.Since(s.began)
	if s.ending() || worked >= s.w.Step || s.stepsAside(ctx) {
		return true
	}
	s.gaveWay = worked >= leastStep && s.w.GiveWay != nil && s.w.GiveWay(ctx, s.c.Trigger)
	return s.gaveWay
}

// run pulls and finishes. A nil error means that the run is over.
func (s *step) run(ctx context.Context) error {
	source, err := s.open()
	if err != nil {
		return err
	}
	if s.c.Attempts > maxAttempts {
		return &connector.Error{
			Kind: connector.Transient, Step: "work run", Message: fmt.Sprintf("%d workers in a row ended without saving a page", s.c.Attempts-1),
			Hint: "Look at the workers' logs and memory: a page of this company may end them.",
		}
	}
	switch s.c.Purpose {
	case postgres.Approval:
		return s.approve(ctx, source)
	case postgres.Customer:
		return s.refresh(ctx, source)
	case postgres.Sync:
	}
	for {
		if !s.c.Pulled {
			err = s.pull(ctx, source)
		}
		if errors.Is(err, errQuiet) {
			return nil
		}
		if err == nil && s.c.Preview {
			return s.preview(ctx, source)
		}
		if err == nil {
			return s.finish(ctx, source)
		}
		if connector.KindOf(err) != connector.Expired || s.c.BeganAgain >= maxBeganAgain {
			return err
		}
		s.log.InfoContext(ctx, "cursor expired: listing everything", "error", err)
		if err := s.w.Store.ListAgain(ctx, s.c); err != nil {
			return err
		}
	}
}

func (s *step) open() (connector.Source, error) {
	erp, ok := s.w.Connectors[s.c.ERP]
	if !ok {
		return nil, &connector.Error{
			Kind: connector.Misconfigured, Step: "open connection", Message: fmt.Sprintf("this worker has no connector for %s", s.c.ERP),
			Hint: "Give the worker this ERP's settings, such as QUICKBOOKS_CLIENT_ID and QUICKBOOKS_CLIENT_SECRET, and start it again.",
		}
	}
	s.erp, s.c.ERPLabel = erp, erp.Label()
	place := credentials.Place{Table: "credentials", Tenant: s.c.Tenant, Connection: s.c.Connection}
	account := connector.Account{
		ID: s.c.Account, APIURL: s.c.Settings.APIURL, TokenURL: s.c.Settings.TokenURL, Transport: s.w.Transport, Called: s.called,
	}
	tokens := credentials.NewTokenSource(s.w.Ring, s.w.Store.Vault(s.c.Tenant, s.c.Connection), place, erp, account)
	if s.c.Login != nil {
		tokens.Saw(*s.c.Login)
	}
	account.Tokens = tokens
	return erp.Open(account), nil
}

// called lets a data request through when the account's limits allow it, and counts it.
func (s *step) called(ctx context.Context) (answered func(), err error) {
	answered = func() {}
	if s.w.Pace != nil {
		answered, err = s.w.Pace.Acquire(ctx, s.account(), s.limits(), s.w.Lease)
		if err != nil {
			return nil, err
		}
	}
	s.calls.Add(1)
	return answered, nil
}

func (s *step) account() pace.Account { return pace.Account{ERP: s.c.ERP, ID: s.c.Account} }

// limits are the ERP's, unless people set fewer requests a second. At an address of its own, which is no production host, a
// connection may be given more.
func (s *step) limits() connector.Limits {
	limits, wanted := s.erp.Limits(), s.c.Settings.RequestsPerSecond
	switch {
	case wanted == 0:
	case s.c.Settings.APIURL != "":
		limits = connector.Limits{PerSecond: wanted}
	case limits.PerSecond == 0 || wanted < limits.PerSecond:
		limits.PerSecond = wanted
	}
	return limits
}

// fetched is a page on its way from the ERP to Postgres.
type fetched struct {
	said reconcile.Reading
	err  error
}

// fetch pulls ahead by one page, so that fetching it and taking it apart overlap saving. It ends when ctx does.
func fetch(ctx context.Context, source connector.Source, p connector.Pull, to chan<- fetched) {
	defer close(to)
	send := func(f fetched) bool {
		select {
		case to <- f:
			return true
		case <-ctx.Done():
			return false
		}
	}
	defer func() {
		if r := recover(); r != nil {
			what := fmt.Sprintf("%T", r) // never the value: it may quote a record
			if e, ok := r.(runtime.Error); ok {
				what = e.Error()
			}
			send(fetched{err: fmt.Errorf("pull: panicked: %s", what)})
		}
	}()
	for page, err := range source.Pull(ctx, p) {
		if !send(fetched{reconcile.Read(page), err}) || err != nil || page.End != nil {
			return
		}
	}
}

// pull saves page after page until the end of the listing.
func (s *step) pull(ctx context.Context, source connector.Source) error {
	fetching, leave := context.WithCancel(ctx)
	pages := make(chan fetched)
	go fetch(fetching, source, connector.Pull{Since: s.c.Since, Resume: s.c.Resume}, pages)
	defer func() {
		leave()
		for range pages { // until the fetch has ended: nothing of it may outlive the step
		}
	}()
	for f := range pages {
		if f.err != nil {
			return f.err
		}
		if s.c.Quiet(f.said.Page) {
			calls, done := s.calls.Load(), false
			err := s.write(ctx, "finish", func(ctx context.Context) (err error) {
				done, err = s.w.Store.FinishQuiet(ctx, s.c, *f.said.Page.End, int(calls))
				return err
			})
			if err != nil {
				return err
			}
			if done {
				s.counted(calls)
				return errQuiet
			}
		}
		var counts reconcile.Counts
		began := time.Now()
		err := s.save(ctx, "save page", func(ctx context.Context, calls int) (err error) {
			counts, err = s.savePage(ctx, f.said, calls)
			return err
		})
		if err != nil {
			return err
		}
		s.w.Metrics.PageSaved(s.c.ERP, time.Since(began))
		s.count(counts)
		s.c.Attempts, s.c.ThrottledFor, s.c.Resume = 0, 0, f.said.Page.Next
		s.log.DebugContext(ctx, "page saved", "read", counts.Read(), "created", counts.Created, "updated", counts.Updated)
		if f.said.Page.End != nil {
			s.c.Pulled = true
			return nil
		}
		if s.stop(ctx) {
			return errStopped
		}
	}
	if err := ctx.Err(); err != nil {
		return err
	}
	return &connector.Error{Kind: connector.Transient, Step: "pull", Message: "the connector's pages stopped without an end"}
}

func (s *step) count(c reconcile.Counts) {
	for outcome, n := range map[string]int{
		"created": c.Created, "updated": c.Updated, "unchanged": c.Unchanged, "ignored": c.Ignored, "refused": c.Refused,
	} {
		s.w.Metrics.Records(s.c.ERP, outcome, n)
	}
}

// finish ends the run, once what would go for being missing is looked up, unless the brake holds it.
func (s *step) finish(ctx context.Context, source connector.Source) error {
	lookups := true // until the ERP turns out to be one that cannot be asked
	for {
		var end postgres.End
		err := s.save(ctx, "finish", func(ctx context.Context, calls int) (err error) {
			finish := s.w.Store.Finish
			if s.c.Purpose == postgres.Customer {
				finish = s.w.Store.FinishCustomer
			}
			end, err = finish(ctx, s.c.Step, s.c.Settings, lookups, calls)
			return err
		})
		if err != nil {
			return err
		}
		if len(end.Missing) == 0 {
			if end.Cause != "" {
				s.log.WarnContext(ctx, "held: what would go looks like an accident", "cause", end.Cause)
			}
			s.w.Metrics.Records(s.c.ERP, "deactivated", end.Deactivated)
			s.w.Metrics.Records(s.c.ERP, "held", end.Held)
			return nil
		}
		if lookups, err = s.lookUp(ctx, source, end.Missing); err != nil {
			return err
		}
		if lookups && s.stop(ctx) {
			return errStopped
		}
	}
}

// lookUp asks for records by their keys and saves the answers, until it is to stop between two. It is false for an ERP that cannot
// be asked.
func (s *step) lookUp(ctx context.Context, source connector.Source, wanted []postgres.Lookup) (able bool, err error) {
	for i, chunk := range postgres.Chunks(wanted) {
		if i > 0 && s.stop(ctx) { // each step gets on
			return true, errStopped
		}
		keys := make([]connector.Key, 0, len(chunk))
		for _, m := range chunk {
			keys = append(keys, m.Key)
		}
		found, err := source.Lookup(ctx, keys)
		if errors.Is(err, errors.ErrUnsupported) {
			return false, nil
		}
		if err != nil {
			return true, err
		}
		err = s.save(ctx, "save look-up", func(ctx context.Context, calls int) error {
			return s.w.Store.SaveLookup(ctx, s.c.Step, chunk, found, calls)
		})
		if err != nil {
			return true, err
		}
		s.c.Attempts, s.c.ThrottledFor = 0, 0
	}
	return true, nil
}

// conclude writes what became of the step.
func (s *step) conclude(ctx context.Context, err error) (*postgres.HandOut, error) {
	store, calls := s.w.Store, int(s.calls.Load())
	s.counted(int64(calls))
	kind := connector.KindOf(err)
	switch {
	case err == nil:
		s.log.InfoContext(ctx, "run succeeded")
		s.ended("succeeded", "")
		return nil, nil
	case s.cancelled.Load() || errors.Is(err, postgres.ErrCancelled):
		s.log.InfoContext(ctx, "run cancelled")
		s.ended("cancelled", "")
		return nil, store.Cancelled(ctx, s.c.Step, calls)
	case s.paused.Load() || errors.Is(err, postgres.ErrPaused):
		s.log.InfoContext(ctx, "connection paused, the run waits")
		return nil, store.Wait(ctx, s.c.Step, 0, nil, calls)
	case s.aside && errors.Is(err, errStopped):
		s.log.InfoContext(ctx, "a customer's refresh goes first, the run goes on after it")
		return nil, store.Wait(ctx, s.c.Step, 0, nil, calls)
	case errors.Is(err, errStopped) || kind == "" || errors.Is(err, context.DeadlineExceeded) && time.Since(s.began) > s.w.Step && s.c.Attempts == 0:
		s.log.InfoContext(ctx, "step ends, the run goes on")
		next, err := store.Yield(ctx, s.c.Step, calls)
		if err != nil {
			return nil, err
		}
		next.GaveWay = s.gaveWay
		return &next, nil
	}
	log := s.log.With("kind", kind, "error", err)
	switch {
	case kind == connector.Throttled:
		wait, cause := throttledWait, "budget"
		if e, ok := errors.AsType[*connector.Error](err); ok && e.RetryAfter > 0 {
			wait = e.RetryAfter
		}
		if !errors.Is(err, pace.ErrBudget) {
			cause = "throttled"
			s.slow(ctx, wait) // also where the run fails: the next one is then refused by the pace, and the ERP is not asked
		}
		if !s.patient(err) || s.throttledFor()+wait > maxThrottled {
			break
		}
		log.WarnContext(ctx, "waiting, since the account allows no more requests now", "wait", wait)
		s.w.Metrics.Waited(s.c.ERP, cause)
		return nil, store.Wait(ctx, s.c.Step, wait, err, calls)
	case kind == connector.Transient && s.c.Attempts < maxAttempts:
		wait := s.backoff()
		log.WarnContext(ctx, "trying again later", "wait", wait, "attempts", s.c.Attempts)
		s.w.Metrics.Waited(s.c.ERP, "transient")
		return nil, store.Wait(ctx, s.c.Step, wait, err, calls)
	}
	log.ErrorContext(ctx, "run failed")
	s.ended("failed", string(kind))
	return nil, store.Fail(ctx, s.c.Step, err, calls)
}

// patient says whether waiting is worth it: not for an ERP that is known to refuse this installation.
func (s *step) patient(err error) bool { return !s.c.ERPPaused || errors.Is(err, pace.ErrBudget) }

// throttledFor is how long the run has been refused for being too fast, until now.
func (s *step) throttledFor() time.Duration {
	if s.c.ThrottledFor == 0 {
		return 0
	}
	return s.c.ThrottledFor + time.Since(s.began)
}

// slow keeps every worker from asking the account for a while: the ERP's refusal of one request is meant for all.
func (s *step) slow(ctx context.Context, d time.Duration) {
	if s.w.Pace == nil {
		return
	}
	if err := s.w.Pace.Slow(ctx, s.account(), d); err != nil {
		s.log.WarnContext(ctx, "the other workers of this account could not be slowed down", "error", err)
	}
}

// ended tells the end of the run.
func (s *step) ended(outcome, kind string) {
	s.w.Metrics.RunEnded(s.c.ERP, string(s.c.Mode), string(s.c.Trigger), outcome, kind, s.c.Age+time.Since(s.began))
}

func (s *step) backoff() time.Duration {
	attempts := max(s.c.Attempts, 1)
	if s.w.Backoff != nil {
		return s.w.Backoff(attempts)
	}
	d := min(5*time.Second<<(attempts-1), 10*time.Minute)
	return d/2 + rand.N(d/2+1) //nolint:gosec // jitter needs no secrecy
}

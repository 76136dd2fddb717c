package torture

import (
	"database/sql"
	"errors"
	"math/rand/v2"
	"time"

	"github.com/centime/contactsync/internal/postgres"
)

// runKind is what a run of the campaign can do beyond the usual.
type runKind string

const (
	usual        runKind = "usual"
	stopping     runKind = "Redis of its own"    // which stops and starts
	restarting   runKind = "Postgres of its own" // which restarts
	programsKind runKind = "real programs"
)

// storm is what happens in a run while there are faults.
func (w *world) storm(rng *rand.Rand) {
	for range 1 + rng.IntN(2) {
		w.start(true)
	}
	for range 1 + rng.IntN(3) {
		w.start(false)
	}
	for range 3 + rng.IntN(4) {
		w.round(rng)
	}
}

// round is a while in which things change, people act, and something fails.
func (w *world) round(rng *rand.Rand) {
	for _, s := range w.sides {
		w.erp(s, rng)
	}
	for range rng.IntN(4) {
		w.fault(rng)
	}
	for range rng.IntN(3) {
		w.tally.did("people: " + w.people(w.tenants[rng.IntN(len(w.tenants))], rng))
	}
	for _, s := range w.sides {
		w.operate(s, rng)
	}
	w.until(time.Duration(400+rng.IntN(2600))*time.Millisecond, w.idle)
	if rng.IntN(5) == 0 {
		w.cancel(rng)
	}
	if len(w.alive(false)) == 0 || rng.IntN(4) == 0 && len(w.alive(false)) < 3 {
		w.start(false)
	}
	if len(w.alive(true)) == 0 {
		w.start(true)
	}
}

// erp lets things happen in a company: some now, some while it is being read.
func (w *world) erp(s *side, rng *rand.Rand) {
	s.company.Later([]time.Duration{0, time.Second, 7 * time.Minute, 31 * time.Minute, 25 * time.Hour}[rng.IntN(5)])
	change := func(rng *rand.Rand) {
		if rng.IntN(6) == 0 {
			w.tally.did("ERP: " + s.company.Accident(rng))
		}
		for range rng.IntN(8) {
			w.tally.did("ERP: " + s.company.Change(rng))
		}
	}
	change(rng)
	if rng.IntN(2) == 0 {
		of := rand.New(rand.NewPCG(rng.Uint64(), 1))
		s.company.AtRequest(1+rng.IntN(12), func() {
			w.tally.did("ERP: changed while it was read")
			change(of)
		})
	}
}

// operate lets operators act, or time pass until the schedule asks for a run.
func (w *world) operate(s *side, rng *rand.Rand) {
	request := postgres.Request{
		Tenant: s.tenant.id, Connection: s.connection.ID, Mode: postgres.Incremental, Trigger: postgres.Manual, By: operator.User, Reason: "torture",
	}
	switch n := rng.IntN(26); {
	case n < 7:
		w.resync(request)
	case n < 13:
		request.Mode = postgres.Full
		w.resync(request)
	case n < 17:
		_, err := w.db.ExecContext(w.ctx, `UPDATE contactsync.connections SET next_due_at = now() WHERE id = $1`, s.connection.ID)
		w.check(err)
		w.tally.did("operator: time passes until it is due")
	case n < 18:
		to := "paused"
		if s.paused {
			to = "active"
		}
		w.check(w.ops.SetState(w.ctx, s.connection, to, operator))
		s.paused = !s.paused
		w.tally.did("operator: " + map[bool]string{true: "pause", false: "resume"}[s.paused])
	case n < 19:
		w.resync(request)
		w.mend(s)
	case n < 21:
		request.Mode = []postgres.Mode{postgres.Incremental, postgres.Full}[rng.IntN(2)]
		_, err := w.ops.QueuePreview(w.ctx, request)
		w.check(err)
		w.tally.did("operator: preview, " + string(request.Mode))
	case n < 24:
		w.refresh(s, request, rng)
	}
	if rng.IntN(2) == 0 {
		w.decide(s, rng)
	}
}

// refresh asks for one customer: one that there is, or was, or never was.
func (w *world) refresh(s *side, request postgres.Request, rng *rand.Rand) {
	var ids []string
	w.each(`SELECT erp_id FROM contactsync.customers WHERE connection_id = $1 ORDER BY id`, func(rows *sql.Rows) error {
		var id string
		err := rows.Scan(&id)
		ids = append(ids, id)
		return err
	}, s.connection.ID)
	ids = append(append(ids, sorted(s.company.Truth().customers)...), "987654")
	_, _, err := w.ops.QueueCustomer(w.ctx, request, ids[rng.IntN(len(ids))])
	w.check(err)
	w.tally.did("operator: resync of one customer")
}

// decideAll has operators decide on what is held once all is quiet, most of the time, and says whether anything was.
func (w *world) decideAll(rng *rand.Rand) bool {
	before := w.decided
	for _, s := range w.sides {
		if rng.IntN(4) > 0 {
			w.decide(s, rng)
		}
	}
	return w.decided > before
}

// decide lets an operator approve or reject what is held, or take an approval back.
func (w *world) decide(s *side, rng *rand.Rand) {
	id := w.anyRow(rng, `SELECT id FROM contactsync.holds WHERE connection_id = $1 AND state = 'open'`, s.connection.ID)
	back := id == 0 && rng.IntN(3) == 0
	if back {
		id = w.anyRow(rng, `SELECT id FROM contactsync.holds WHERE connection_id = $1 AND state = 'approved' ORDER BY id`, s.connection.ID)
	}
	if id == 0 {
		return
	}
	hold, err := w.ops.Hold(w.ctx, id)
	w.check(err)
	what := "operator: hold approved"
	if back || rng.IntN(2) == 0 {
		what = map[bool]string{true: "operator: approval taken back", false: "operator: hold rejected"}[back]
		_, err = w.ops.RejectHold(w.ctx, hold, operator)
	} else {
		_, err = w.ops.ApproveHold(w.ctx, hold, operator)
	}
	if errors.Is(err, postgres.ErrDecided) || errors.Is(err, postgres.ErrMore) {
		return // emptied by a run meanwhile, or it is to be looked at again
	}
	w.check(err)
	w.decided++
	w.tally.did(what)
}

func (w *world) resync(r postgres.Request) {
	_, _, err := w.ops.QueueRun(w.ctx, r)
	w.check(err)
	w.tally.did("operator: resync, " + string(r.Mode))
}

func (w *world) cancel(rng *rand.Rand) {
	run := w.anyRow(rng, `SELECT id FROM contactsync.runs WHERE status IN ('queued', 'running', 'waiting') ORDER BY id`)
	if run == 0 {
		return
	}
	if _, err := w.ops.CancelRun(w.ctx, run, postgres.By{User: "ops"}); err == nil { // else it has just ended
		w.tally.did("operator: cancel")
	}
}

// fault lets something fail, now or soon.
func (w *world) fault(rng *rand.Rand) {
	if w.real != nil {
		w.programFault(rng)
		return
	}
	if (w.postgres != nil || w.ownRedis != nil) && rng.IntN(3) == 0 {
		w.serverFault(rng)
		return
	}
	if rng.IntN(3) == 0 {
		s := w.sides[rng.IntN(len(w.sides))]
		s.company.Fault(rng, w.tally.fault)
		return
	}
	b := w.victim(rng)
	if b == nil {
		return
	}
	kind := "worker"
	if b.scheds {
		kind = "scheduler"
	}
	hit := func(what string, do func()) func() {
		return func() {
			if !b.Alive() {
				return
			}
			w.tally.fault(what)
			do()
		}
	}
	type target struct {
		name string
		p    *proxy
		soon int // requests until something happens, at most
	}
	servers := []target{{"Postgres", b.pg, 60}, {"Redis", b.redis, 60}}
	if !b.scheds {
		for _, p := range b.erps {
			servers = append(servers, target{"ERP", p, 4})
		}
	}
	server := servers[rng.IntN(len(servers))]
	far := 1 + rng.IntN(120) // statements until it happens
	long := w.pace.lease/2 + time.Duration(rng.Int64N(int64(2*w.pace.lease)))
	healed := func(p *proxy) { time.AfterFunc(long, p.heal) }
	switch rng.IntN(17) {
	case 0, 1:
		b.pg.set(&trap{n: far, spring: hit(kind+" killed at a statement", b.Kill)})
	case 2:
		b.pg.set(&trap{n: far, after: true, spring: hit(kind+" killed after a statement", b.Kill)})
	case 3:
		b.pg.set(&trap{n: 1 + far/8, commit: true, spring: hit(kind+" killed before a COMMIT", b.Kill)})
	case 4:
		b.pg.set(&trap{n: 1 + far/8, commit: true, after: true, spring: hit(kind+" killed during a COMMIT", b.Kill)})
	case 5:
		b.pg.set(&trap{n: 1 + far/8, commit: true, spring: hit("Postgres cut before a COMMIT", b.pg.cut)})
	case 6, 7:
		b.pg.set(&trap{n: 1 + far/8, commit: true, after: true, spring: hit("Postgres cut during a COMMIT, reply lost", b.pg.cut)})
	case 8: // the COMMIT arrives when the lease has long ended
		b.pg.set(&trap{n: 1 + far/8, commit: true, spring: hit("COMMIT held back in the network", func() { b.pg.hole(); healed(b.pg) })})
	case 9:
		server.p.set(&trap{n: 1 + rng.IntN(server.soon), spring: hit(server.name+" cut", server.p.cut)})
	case 10:
		server.p.set(&trap{n: 1 + rng.IntN(server.soon), after: true, spring: hit(server.name+" cut, reply lost", server.p.cut)})
	case 11:
		delay := time.Duration(1+rng.IntN(40)) * time.Millisecond
		server.p.set(&trap{n: 1 + rng.IntN(server.soon), spring: hit(server.name+" slowed", func() { server.p.slow(delay); healed(server.p) })})
	case 12:
		server.p.set(&trap{n: 1 + rng.IntN(server.soon), spring: hit(server.name+" black-holed", func() { server.p.hole(); healed(server.p) })})
	case 13:
		all := b.proxies()
		b.pg.set(&trap{n: far, spring: hit(kind+" frozen past the lease", func() {
			for _, p := range all {
				p.hole()
			}
			time.AfterFunc(w.pace.lease+long, func() {
				for _, p := range all {
					p.heal()
				}
			})
		})})
	case 14:
		hit(kind+" drained", b.Drain)()
	case 15:
		s := w.sides[rng.IntN(len(w.sides))]
		s.company.AtRequest(1+rng.IntN(15), hit(kind+" killed at a request to the ERP", b.Kill))
	default:
		w.serverFault(rng)
	}
}

// victim is a process that lives.
func (w *world) victim(rng *rand.Rand) *bundle {
	all := append(w.alive(false), w.alive(true)...)
	if len(all) == 0 {
		return nil
	}
	b, _ := all[rng.IntN(len(all))].(*bundle)
	return b
}

// serverFault is one of Postgres or Redis for everybody.
func (w *world) serverFault(rng *rand.Rand) {
	switch {
	case w.postgres != nil:
		w.tally.fault("Postgres restarted")
		w.postgres.Stop()
		w.until(time.Duration(rng.IntN(1500))*time.Millisecond, func() bool { return false })
		w.postgres.Start()
		w.until(10*time.Second, func() bool { return w.db.PingContext(w.ctx) == nil && w.ops.Ping(w.ctx) == nil })
		for range 4 { // the pools still hold connections that are dead
			_, _ = w.ops.FindConnection(w.ctx, "1")
		}
	case w.ownRedis != nil && rng.IntN(2) == 0:
		w.tally.fault("Redis hung")
		w.ownRedis.Pause()
		w.until(time.Duration(1000+rng.IntN(4000))*time.Millisecond, func() bool { return false })
		w.ownRedis.Resume()
	case w.ownRedis != nil:
		w.tally.fault("Redis stopped and came back empty")
		w.ownRedis.Stop()
		w.until(time.Duration(rng.IntN(3000))*time.Millisecond, func() bool { return false })
		w.ownRedis.Start()
		w.emptied++
	case rng.IntN(2) == 0:
		w.tally.fault("Redis emptied")
		w.redis.Empty(w.t)
		w.emptied++
	default:
		w.tally.fault("Postgres ended all connections")
		_, err := w.db.ExecContext(w.ctx, `SELECT pg_terminate_backend(pid) FROM pg_stat_activity
			WHERE datname = current_database() AND pid <> pg_backend_pid() AND application_name <> $1`, observer)
		w.check(err)
	}
}

// Package doctor examines an installation: the servers it stands on, its rights, its keys, its clocks and what works for it. It
// changes nothing, and says of each thing that is not right what to do.
package doctor

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/centime/contactsync/internal/credentials"
	"github.com/centime/contactsync/internal/postgres"
	"github.com/centime/contactsync/internal/queue"
)

// Level of a Finding.
type Level string

// The levels. Unchecked says nothing about the installation: a part of the environment was not given, or could not be asked.
const (
	OK        Level = "ok"
	Unchecked Level = "unchecked"
	Warning   Level = "warning" // it works, and will not always
	Problem   Level = "problem" // something does not work, or is not safe
)

// Finding is what one check found. Do is what to type or to change; empty where nothing is to be done.
type Finding struct {
	Check string
	Level Level
	Text  string
	Do    string
}

// Installation is what is examined.
type Installation struct {
	Store *postgres.Store
	Redis *queue.Redis      // nil: not checked
	Ring  *credentials.Ring // nil: not checked
	// Allowances are the metered calls a month, by ERP: a schedule that waits for the next month does not miss a scheduler.
	Allowances map[string]int64
	// Now is this machine's clock; nil: time.Now.
	Now func() time.Time
	// LongTransaction is how long a transaction may be open; 0: ten minutes.
	LongTransaction time.Duration
}

const (
	clocksApart = 5 * time.Second
	oldestRedis = "6.2"
	fullFrom    = 0.8 // of what a server allows
)

// examination gathers the findings of one Examine.
type examination struct {
	Installation
	ctx      context.Context //nolint:containedctx // one examination, one context
	findings []Finding
	workers  []queue.Worker
}

// Examine makes all checks, in the order in which one thing stands on the other. Without works nothing of Postgres could be asked.
func (i Installation) Examine(ctx context.Context) (findings []Finding, works bool) {
	if i.Now == nil {
		i.Now = time.Now
	}
	if i.LongTransaction == 0 {
		i.LongTransaction = 10 * time.Minute
	}
	e := &examination{Installation: i, ctx: ctx}
	began := e.Now()
	db, err := e.Store.Examine(ctx, e.LongTransaction)
	apart := e.apart(began, db.Now)
	if err != nil {
		e.add("postgres", Problem, "set DATABASE_URL right, or mend the server; the rest of Postgres was not checked", "%v", err)
	} else {
		e.postgres(db)
		e.clock("postgres", apart)
	}
	e.redis()
	if err == nil {
		e.connections(db)
	}
	return e.findings, err == nil
}

// Worst is the worst level of all.
func Worst(findings []Finding) Level {
	order := []Level{OK, Unchecked, Warning, Problem}
	worst := 0
	for _, f := range findings {
		worst = max(worst, slices.Index(order, f.Level))
	}
	return order[worst]
}

func (e *examination) add(check string, level Level, do, text string, args ...any) {
	e.findings = append(e.findings, Finding{Check: check, Level: level, Text: fmt.Sprintf(text, args...), Do: do})
}

// ailments adds those of a check, or that all is well with it.
func (e *examination) ailments(check string, all []postgres.Ailment, well string, args ...any) {
	found := false
	for _, a := range all {
		if a.Check != check {
			continue
		}
		found = true
		level := Warning
		if a.Grave {
			level = Problem
		}
		e.add(check, level, a.Do, "%s", a.Text)
	}
	if !found {
		e.add(check, OK, "", well, args...)
	}
}

func (e *examination) postgres(db postgres.Examination) {
	e.ailments("postgres", db.Ailments, "version %s", db.Version)
	e.ailments("encoding", db.Ailments, "%s", db.Locale)
	schema := e.Store.CheckSchema(e.ctx)
	switch {
	case errors.Is(schema, postgres.ErrSchema):
		e.add("schema", Problem, "syncctl migrate, or the programs of the database's version", "%v", schema)
	case schema != nil:
		e.add("schema", Problem, "look at Postgres", "%v", schema)
	default:
		e.add("schema", OK, "", "the one of this program")
	}
	others := "of those of this login; `GRANT pg_read_all_stats TO " + db.Login + "` shows those of others"
	if db.SeesAll {
		others = "or prepared one"
	}
	long := strings.TrimSuffix(e.LongTransaction.String(), "0s")
	defer e.ailments("vacuum", db.Ailments, "no transaction has been open for more than %s, %s", long, others)
	if !db.Migrated {
		return // there is nothing yet to have rights on
	}
	e.ailments("login", db.Ailments, "%s has no right of its own, and may work as the programs' three roles", db.Login)
	e.ailments("roles", db.Ailments, "all six are there, and none may more than it should")
	e.ailments("rights", db.Ailments, "row-level security is forced on every table, and nobody reads what he should not")
	if schema != nil {
		e.add("keys", Unchecked, "", "the schema is not this program's, so neither they nor runs, scheduler and ERPs were looked at")
		return
	}
	e.keys()
	e.runs()
}

// keys opens every credential.
func (e *examination) keys() {
	boxes, err := e.Store.Boxes(e.ctx)
	if err != nil {
		e.add("keys", Problem, "see login and rights", "%v", err)
		return
	}
	if e.Ring == nil {
		e.add("keys", Unchecked, "", "CREDENTIALS_KEY is not set, so it is unknown whether they open; credentials: %d", len(boxes))
		return
	}
	type trouble struct {
		count int
		first int64
	}
	closed, older, used := map[string]trouble{}, 0, map[string]bool{}
	for _, b := range boxes {
		used[b.Stored.KeyID] = true
		_, err := e.Ring.Unpack(b.Stored, credentials.Place{Table: "credentials", Tenant: b.Tenant, Connection: b.Connection})
		switch {
		case err != nil:
			t := closed[err.Error()]
			if t.count++; t.count == 1 {
				t.first = b.Connection
			}
			closed[err.Error()] = t
		case b.Stored.KeyID != e.Ring.Primary():
			older++
		}
	}
	for _, cause := range sorted(closed) {
		t := closed[cause]
		do := fmt.Sprintf("put the key back into CREDENTIALS_KEY, behind the newest; if it is lost: syncctl connection credentials %d FILE", t.first)
		e.add("keys", Problem, do, "credentials that do not open: %d, the first of connection %d: %s", t.count, t.first, cause)
	}
	if older > 0 {
		e.add("keys", Warning, "syncctl key reseal", "credentials that an older key than %s has sealed: %d", e.Ring.Primary(), older)
	}
	if len(closed) == 0 && older == 0 {
		e.add("keys", OK, "", "every credential opens: %d, sealed with %s", len(boxes), or(strings.Join(sorted(used), ", "), "no key yet"))
	}
}

// runs are those that do not move, and what that says about the programs.
func (e *examination) runs() {
	stuck, err := e.Store.StuckRuns(e.ctx)
	if err != nil {
		e.add("runs", Problem, "see login and rights", "%v", err)
		return
	}
	e.ailments("runs", stuck, "none is stuck")
	known, err := e.Store.Attention(e.ctx, e.Allowances)
	if err != nil {
		e.add("scheduler", Problem, "see login and rights", "%v", err)
		return
	}
	checks := map[string]string{
		"connections_not_queued": "scheduler", "runs_not_handed_out": "scheduler", "runs_not_claimed": "workers", "erp_paused": "erps",
	}
	var ailments []postgres.Ailment
	for _, item := range known.Items {
		if check := checks[item.Kind]; check != "" && item.Severity != postgres.Info {
			ailments = append(ailments, postgres.Ailment{Check: check, Grave: item.Severity == postgres.Critical, Text: item.Text, Do: item.Command})
		}
	}
	e.ailments("scheduler", ailments, "nothing that is due or ready waits for one")
	e.ailments("workers", ailments, "nothing that was handed out waits for one")
	e.ailments("erps", ailments, "none refuses this installation")
}

func (e *examination) redis() {
	if e.Redis == nil {
		e.add("redis", Unchecked, "", "REDIS_URL is not set, so neither it nor who works was looked at")
		return
	}
	began := e.Now()
	r, err := e.Redis.Examine(e.ctx)
	if err != nil {
		e.add("redis", Problem, "mend it or start an empty one: nothing is lost, and nothing runs meanwhile", "%v", err)
		return
	}
	apart := e.apart(began, r.Now)
	if r.Replica {
		e.add("redis", Problem, "name the primary in REDIS_URL", "it is a replica, where nothing can be written; the rest of Redis was not checked")
		return
	}
	before := len(e.findings)
	if older(r.Version, oldestRedis) {
		e.add("redis", Problem, "use "+oldestRedis+" or newer", "version %s is too old", r.Version)
	}
	if r.Policy != "noeviction" {
		e.add("redis", Problem, "redis-cli CONFIG SET maxmemory-policy noeviction, and in its configuration file",
			"it throws tasks away when its memory is full (maxmemory-policy %s)", r.Policy)
	}
	if r.Limit > 0 && float64(r.Used) > fullFrom*float64(r.Limit) {
		e.add("redis", Warning, "raise maxmemory", "%d %% of its memory is used", r.Used*100/r.Limit)
	}
	if !r.AppendOnly {
		e.add("redis", Warning, "redis-cli CONFIG SET appendonly yes, and in its configuration file",
			"a restart loses what is queued (appendonly no); it is handed out again, late")
	}
	if len(e.findings) == before {
		e.add("redis", OK, "", "version %s, keeps what it is given", r.Version)
	}
	before = len(e.findings)
	const own = "give contactsync a Redis of its own: what empties or fills one of them stops both"
	if r.Strange > 0 {
		e.add("shared", Warning, own, "keys of other programs: %d of %d", r.Strange, r.Scanned)
	}
	if len(r.Databases) > 0 {
		e.add("shared", Warning, own, "other databases of it are used: %s", strings.Join(r.Databases, ", "))
	}
	if len(r.Queues) > 0 {
		e.add("shared", Warning, own, "queues of other programs: %s", strings.Join(r.Queues, ", "))
	}
	if len(e.findings) == before {
		e.add("shared", OK, "", "nobody else uses this Redis")
	}
	e.clock("redis", apart)
	e.working(r)
}

// working tells who takes tasks.
func (e *examination) working(r queue.Examination) {
	slots, busy, stopping := 0, 0, 0
	for _, w := range r.Workers {
		if w.Stopping {
			stopping++
			continue
		}
		e.workers = append(e.workers, w)
		slots, busy = slots+w.Slots, busy+w.Busy
	}
	before := len(e.findings)
	for _, name := range r.Paused {
		e.add("workers", Problem, "redis-cli DEL 'asynq:{"+name+"}:paused'", "somebody paused the queue %s, so nobody works it", name)
	}
	if len(e.workers) == 0 {
		e.add("workers", Problem, "start one with this REDIS_URL; if one runs, its log and its REDIS_URL say why it is not here",
			"no worker takes tasks from this Redis")
	}
	if len(e.findings) == before {
		e.add("workers", OK, "", "%d with %d slots, %d of them busy; stopping: %d", len(e.workers), slots, busy, stopping)
	}
}

// connections compares what the programs may open with what Postgres allows.
func (e *examination) connections(db postgres.Examination) {
	if float64(db.Sessions) > fullFrom*float64(db.Most) {
		e.add("connections", Warning, "raise max_connections, or put a pooler before Postgres", "%d of %d connections are in use", db.Sessions, db.Most)
		return
	}
	if len(e.workers) == 0 {
		e.add("connections", OK, "", "%d of %d are in use; what workers may open is known once they work", db.Sessions, db.Most)
		return
	}
	most := postgres.SchedulerConnections
	for _, w := range e.workers {
		most += postgres.WorkerConnections(w.Slots)
	}
	if most > db.Limit {
		e.add("connections", Warning, "raise max_connections, lower WORKER_CONCURRENCY, or put a pooler before Postgres; with one this does not count",
			"the workers and a scheduler may open %d connections, and Postgres allows %s %d", most, db.Login, db.Limit)
		return
	}
	e.add("connections", OK, "", "%d of %d are in use; the workers and a scheduler may open %d", db.Sessions, db.Most, most)
}

// apart is by how much a server's clock differs from this machine's, if it was asked after began: less the time that took.
func (e *examination) apart(began, server time.Time) time.Duration {
	ended := e.Now()
	switch {
	case server.Before(began):
		return server.Sub(began)
	case server.After(ended):
		return server.Sub(ended)
	}
	return 0
}

func (e *examination) clock(of string, apart time.Duration) {
	if apart.Abs() <= clocksApart {
		e.add("clocks", OK, "", "this machine's and that of %s agree within %v", of, clocksApart)
		return
	}
	side := "ahead of"
	if apart < 0 {
		side = "behind"
	}
	e.add("clocks", Problem, "have both machines keep time (timedatectl, chronyc tracking)",
		"that of %s is %v %s this machine's", of, apart.Abs().Round(time.Second), side)
}

// older compares versions by their first two numbers.
func older(version, least string) bool {
	number := func(text string) (n int) {
		parts := append(strings.Split(text, "."), "0")
		major, _ := strconv.Atoi(parts[0])
		minor, _ := strconv.Atoi(parts[1])
		return major*1000 + minor
	}
	return number(version) < number(least)
}

func sorted[V any](m map[string]V) []string {
	keys := make([]string, 0, len(m))
	for k := range m {
		keys = append(keys, k)
	}
	slices.Sort(keys)
	return keys
}

func or(text, otherwise string) string {
	if text == "" {
		return otherwise
	}
	return text
}

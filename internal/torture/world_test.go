package torture

import (
	"bytes"
	"context"
	"database/sql"
	"encoding/json"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"net/url"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/centime/contactsync/internal/connector"
	"github.com/centime/contactsync/internal/credentials"
	"github.com/centime/contactsync/internal/postgres"
	"github.com/centime/contactsync/internal/postgres/pgtest"
	"github.com/centime/contactsync/internal/queue/redistest"
	"github.com/centime/contactsync/internal/settings"
)

// world is all that one run of the campaign is about.
type world struct {
	t     *testing.T
	ctx   context.Context
	tally *tally

	dsn      string
	postgres *pgtest.Private // where Postgres itself is restarted; else nil
	db       *sql.DB         // as superuser, for the model and the checker
	redisURL string
	redis    *redistest.Server
	ownRedis *redistest.Private // where Redis itself is stopped; else nil
	ops      *postgres.Store    // as operators use it
	ring     *credentials.Ring
	key      string

	pace    pacing
	tenants []*tenant
	sides   []*side

	log       *capture
	secrets   *secrets
	running   sync.WaitGroup // bundles
	processes []process
	real      *programs // the processes are programs of their own; nil: bundles
	started   int
	made      int // contacts created in Centime
	emptied   int // how often Redis was
	decided   int // holds

	faults []string // what was wrong
}

// pacing is how fast a run goes.
type pacing struct {
	lease, step, tick time.Duration
	page              int
}

// side is one connection: a tenant's link to a company.
type side struct {
	tenant     *tenant
	company    company
	connection postgres.Connection
	settings   settings.Map
	perSecond  float64
	paused     bool
	last       int64 // the run that read it last, and found nothing changed
}

// observer is what Postgres calls the campaign's own connections.
const observer = "torture-observer"

func newWorld(t *testing.T, rng *rand.Rand, tally *tally, kind runKind) *world {
	ctx, cancel := context.WithTimeout(t.Context(), 15*time.Minute)
	t.Cleanup(cancel)
	w := &world{t: t, ctx: ctx, tally: tally, key: credentials.NewKey(), pace: pacing{
		lease: time.Duration(800+rng.IntN(1000)) * time.Millisecond, step: time.Duration(500+rng.IntN(2500)) * time.Millisecond,
		tick: 250 * time.Millisecond, page: 4 + rng.IntN(40),
	}}
	ring, err := credentials.ParseRing(w.key)
	w.check(err)
	w.ring = ring
	if kind == restarting {
		w.postgres = pgtest.Own(t)
		w.dsn = w.postgres.DSN
	} else {
		w.dsn = pgtest.New(t)
	}
	if kind == stopping || kind == programsKind {
		w.ownRedis = redistest.Own(t)
		w.redis = &w.ownRedis.Server
	} else {
		w.redis = redistest.New(t)
	}
	w.redisURL = w.redis.URL
	w.db, err = sql.Open("postgres", withName(w.dsn, observer))
	w.check(err)
	t.Cleanup(func() { _ = w.db.Close() })
	w.db.SetMaxOpenConns(4)
	w.ops, err = postgres.Open(withName(w.dsn, observer), 4)
	w.check(err)
	t.Cleanup(func() { _ = w.ops.Close() })
	_, err = w.db.ExecContext(ctx, audit)
	w.check(err)
	w.log = &capture{}
	w.secrets = newSecrets(w)
	if kind == programsKind {
		w.pace.lease, w.pace.step = 2*time.Second, time.Duration(1000+rng.IntN(2000))*time.Millisecond // the least that they take
		w.real = builtPrograms(t)
	}
	w.connect(rng, kind)
	return w
}

func (w *world) check(err error) {
	w.t.Helper()
	if err != nil {
		w.t.Fatal(err)
	}
}

// connect makes one or two companies, of one tenant or of two, and connects them.
func (w *world) connect(rng *rand.Rand, kind runKind) {
	sides := 1 + rng.IntN(2)
	for i := range sides {
		if i == 0 || rng.IntN(2) == 0 {
			w.addTenant(rng, i)
		}
		t := w.tenants[len(w.tenants)-1]
		n := []int{1 + rng.IntN(6), 20 + rng.IntN(60), 40 + rng.IntN(180)}[rng.IntN(3)]
		if kind == programsKind {
			n = 900 + rng.IntN(1800) // their pages hold 1000
		}
		var c company
		if rng.IntN(2) == 0 {
			c = newNetSuite(rng, fmt.Sprintf("77000%02d", i+1), 1+n/2)
		} else {
			c = newQuickBooks(rng, fmt.Sprintf("91303500000000%02d", i+1), n)
		}
		w.t.Cleanup(c.Close)
		s := &side{tenant: t, company: c, settings: c.Settings(), perSecond: []float64{200, 200, 200, 0, 8}[rng.IntN(5)]}
		if s.perSecond > 0 {
			s.settings["requests_per_second"] = fmt.Sprint(s.perSecond)
		}
		if rng.IntN(4) == 0 {
			s.settings["brake_percent"], s.settings["brake_inactive_percent"] = "100", "100"
		}
		login := c.Login()
		w.secrets.login(login)
		added, err := w.ops.AddConnection(w.ctx, postgres.NewConnection{
			Tenant: t.id, ERP: c.ERP(), Account: c.Account(), Name: fmt.Sprintf("Side %d", i), Schedule: "@every 8760h", Settings: s.settings,
			Seal: func(id int64) (credentials.Stored, error) { return w.ring.Pack(login, place(t.id, id)) },
		}, operator)
		w.check(err)
		s.connection, err = w.ops.FindConnection(w.ctx, fmt.Sprint(added.Connection))
		w.check(err)
		w.each(`SELECT erp_role_key, role_id FROM contactsync.role_mappings WHERE connection_id = $1`, func(rows *sql.Rows) error {
			m, id := mapping{connection: added.Connection}, int64(0)
			err := rows.Scan(&m.key, &id)
			t.roles[id] = &role{name: map[string]string{"company": "Company Contact", "-10": "Primary Contact"}[m.key], communication: true}
			t.mapped[m] = id
			return err
		}, added.Connection)
		w.sides = append(w.sides, s)
	}
}

func (w *world) addTenant(rng *rand.Rand, n int) {
	name := []string{"UTC", "America/Chicago", "Pacific/Auckland"}[rng.IntN(3)]
	zone, err := time.LoadLocation(name)
	w.check(err)
	id, err := w.ops.AddTenant(w.ctx, fmt.Sprintf("Tenant %d", n), name, operator)
	w.check(err)
	w.tenants = append(w.tenants, &tenant{
		id: id, zone: zone, roles: map[int64]*role{}, mapped: map[mapping]int64{}, own: map[int64]*ownContact{}, chosen: map[int64]int64{},
		rows: map[string]map[int64]string{},
	})
}

func place(tenant, connection int64) credentials.Place {
	return credentials.Place{Table: "credentials", Tenant: tenant, Connection: connection}
}

var operator = postgres.By{User: "operator", Reason: "torture"}

// start starts a worker or a scheduler.
func (w *world) start(scheduler bool) {
	kind := "worker"
	if scheduler {
		kind = "scheduler"
	}
	w.started++
	name := fmt.Sprintf("%s-%d", kind, w.started)
	if w.real != nil {
		w.processes = append(w.processes, w.startProgram(name, kind))
		return
	}
	w.processes = append(w.processes, w.startBundle(name, scheduler))
}

// audit lets Postgres itself say who wrote what of which run while who held its lease. It is the campaign's, not the
// product's.
const audit = `
CREATE SCHEMA torture;
CREATE TABLE torture.claims (run bigint, fencing bigint, who text, paused boolean, beside bigint, at timestamptz DEFAULT clock_timestamp(),
	PRIMARY KEY (run, fencing));
CREATE TABLE torture.writes (id bigint GENERATED ALWAYS AS IDENTITY, xid xid8, run bigint, fencing bigint, holder text, who text, what text);
CREATE FUNCTION torture.claimed() RETURNS trigger LANGUAGE plpgsql SECURITY DEFINER AS $$ BEGIN
	INSERT INTO torture.claims (run, fencing, who, paused, beside)
	SELECT NEW.id, NEW.fencing, current_setting('application_name'), n.state = 'paused', (SELECT count(*) FROM contactsync.runs o
		WHERE o.connection_id = n.id AND o.id <> NEW.id AND o.lease_until > clock_timestamp())
	FROM contactsync.connections n WHERE n.id = NEW.connection_id;
	RETURN NULL;
END $$;
CREATE TRIGGER claimed AFTER UPDATE OF fencing ON contactsync.runs FOR EACH ROW WHEN (NEW.fencing > OLD.fencing) EXECUTE FUNCTION torture.claimed();
CREATE FUNCTION torture.wrote() RETURNS trigger LANGUAGE plpgsql SECURITY DEFINER AS $$
DECLARE
	of bigint;
BEGIN
	IF current_setting('role') <> 'contactsync_sync' OR current_setting('application_name') = '` + observer + `' THEN
		RETURN NULL; -- an operator who takes a decision back acts as the sync
	END IF;
	of := CASE TG_TABLE_NAME WHEN 'runs' THEN (to_json(NEW)->>'id')::bigint ELSE (to_json(NEW)->>'run_id')::bigint END;
	INSERT INTO torture.writes (xid, run, fencing, holder, who, what)
	SELECT pg_current_xact_id(), r.id, r.fencing, c.who, current_setting('application_name'), TG_TABLE_NAME
	FROM contactsync.runs r LEFT JOIN torture.claims c ON c.run = r.id AND c.fencing = r.fencing WHERE r.id = of;
	RETURN NULL;
END $$;
CREATE TRIGGER wrote AFTER UPDATE ON contactsync.runs FOR EACH ROW WHEN (NEW.fencing = OLD.fencing) EXECUTE FUNCTION torture.wrote();
CREATE TRIGGER wrote AFTER INSERT ON contactsync.run_pages FOR EACH ROW EXECUTE FUNCTION torture.wrote();
CREATE FUNCTION torture.changed() RETURNS trigger LANGUAGE plpgsql SECURITY DEFINER AS $$ BEGIN
	IF current_setting('role') = 'contactsync_sync' AND current_setting('application_name') <> '` + observer + `' THEN
		INSERT INTO torture.writes (xid, who, what) VALUES (pg_current_xact_id(), current_setting('application_name'), TG_TABLE_NAME);
	END IF;
	RETURN NULL;
END $$;
-- By row: a statement that finds nothing to end writes none.
CREATE TRIGGER changed AFTER UPDATE OF cursor, rights, last_success_at ON contactsync.connections FOR EACH ROW EXECUTE FUNCTION torture.changed();
CREATE TRIGGER changed AFTER INSERT OR UPDATE ON contactsync.customers FOR EACH STATEMENT EXECUTE FUNCTION torture.changed();
CREATE TRIGGER changed AFTER INSERT OR UPDATE ON contactsync.contacts FOR EACH STATEMENT EXECUTE FUNCTION torture.changed();
CREATE TRIGGER changed AFTER INSERT OR UPDATE ON contactsync.customer_contacts FOR EACH STATEMENT EXECUTE FUNCTION torture.changed();
CREATE TRIGGER changed AFTER INSERT OR UPDATE OR DELETE ON contactsync.contact_points FOR EACH STATEMENT EXECUTE FUNCTION torture.changed();
`

// capture keeps what processes log.
type capture struct {
	mu   sync.Mutex
	text bytes.Buffer
}

func (c *capture) Write(b []byte) (int, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.text.Write(b)
}

func (c *capture) logger(name string) *slog.Logger {
	return slog.New(slog.NewJSONHandler(c, &slog.HandlerOptions{Level: slog.LevelDebug})).With("process", name)
}

// String is all that was logged.
func (c *capture) String() string {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.text.String()
}

// secrets finds what must stay secret where it must not be.
type secrets struct {
	mu      sync.Mutex
	words   []string
	found   []string
	scanned int
}

func newSecrets(w *world) *secrets {
	_, key, _ := strings.Cut(w.key, ":")
	s := &secrets{words: []string{
		"RT1-", "eyJlbmM", clientSecret, key, // refresh tokens, access tokens, the app's secret, the key of the ring
		".example", "555.01", "555-01", "555 01", // domains of addresses, phones
	}}
	if u, err := url.Parse(w.dsn); err == nil {
		if password, set := u.User.Password(); set {
			s.words = append(s.words, password)
		}
	}
	return s
}

// login notes what is secret in credentials.
func (s *secrets) login(c connector.Credentials) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if c.RefreshToken != "" {
		s.words = append(s.words, c.RefreshToken)
	}
	if lines := strings.Split(c.PrivateKey, "\n"); len(lines) > 2 {
		s.words = append(s.words, lines[1], lines[2])
	}
}

// queue hears what is sent to Redis.
func (s *secrets) queue(b []byte) { s.scan("sent to Redis", string(b), nil) }

func (s *secrets) scan(where, text string, names []string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.scanned += len(text)
	for _, word := range s.words {
		if i := strings.Index(text, word); i >= 0 {
			s.found = append(s.found, fmt.Sprintf("%s: …%s…", where, text[max(0, i-160):min(len(text), i+60)]))
		}
	}
	for _, name := range names {
		if i := strings.Index(text, name); i >= 0 {
			s.found = append(s.found, fmt.Sprintf("%s: a name: …%s…", where, text[max(0, i-160):min(len(text), i+60)]))
		}
	}
}

// one reads one value.
func one[T any](w *world, query string, args ...any) T {
	w.t.Helper()
	var v T
	if err := w.db.QueryRowContext(w.ctx, query, args...).Scan(&v); err != nil {
		w.t.Fatalf("%s: %v", strings.Fields(query)[:3], err)
	}
	return v
}

// until waits for something, and says whether it came in time.
func (w *world) until(d time.Duration, so func() bool) bool {
	poll := time.NewTicker(60 * time.Millisecond)
	defer poll.Stop()
	for deadline := time.Now().Add(d); !so(); {
		select {
		case <-poll.C:
		case <-w.ctx.Done():
			return false
		}
		if time.Now().After(deadline) {
			return false
		}
	}
	return true
}

// idle says whether no run is queued or under way.
func (w *world) idle() bool {
	var n int
	err := w.db.QueryRowContext(w.ctx, `SELECT count(*) FROM contactsync.runs WHERE status IN ('queued', 'running', 'waiting')`).Scan(&n)
	return err == nil && n == 0
}

func (w *world) alive(scheduler bool) []process {
	var alive []process
	for _, p := range w.processes {
		if p.Alive() && strings.HasPrefix(p.Name(), "scheduler") == scheduler {
			alive = append(alive, p)
		}
	}
	return alive
}

// settle ends all faults and lets the system come to rest: each connection is read in full once more, and then again, which
// must change nothing.
func (w *world) settle() {
	w.calm()
	const patience = 4 * time.Minute // of a machine with more to do than this
	// What operators asked for is done first: an approval may let go after the last reading.
	if !w.until(patience, func() bool {
		w.supervise()
		for _, s := range w.sides {
			w.mend(s)
		}
		w.impatient()
		return w.idle()
	}) {
		w.unsettled("it does not settle: runs asked for before are left")
	}
	calm := one[time.Time](w, `SELECT clock_timestamp()`)
	for _, s := range w.sides {
		well := 0
		for tries := 1; ; tries++ {
			w.mend(s)
			run, _, err := w.ops.QueueRun(w.ctx, postgres.Request{
				Tenant: s.tenant.id, Connection: s.connection.ID, Mode: postgres.Full, Trigger: postgres.Manual, By: operator.User, Reason: "settle",
			})
			w.check(err)
			var state postgres.RunState
			if !w.until(patience, func() bool {
				w.supervise()
				w.mend(s)
				w.impatient()
				got, err := w.ops.Run(w.ctx, run)
				state = got
				return err == nil && got.Over()
			}) {
				w.unsettled("it does not settle: run %d of connection %d is %s after %v (%s)", run, s.connection.ID, state.Status, patience, text(state.Error))
			}
			// One that took over what a failed run had read is as old as that: the next one reads what changed since. And where many
			// came back, the brake has another share to go by in the run after it.
			if state.Status == "succeeded" && state.Created+state.Updated+state.Gone == 0 &&
				one[bool](w, `SELECT mode = 'full' AND listing_began_at >= $2 FROM contactsync.runs WHERE id = $1`, run, calm) {
				break
			}
			if state.Status == "succeeded" {
				well++
			}
			if well == 5 {
				w.unsettled("connection %d does not come to rest: run %d still changes something", s.connection.ID, run)
			}
			// What was lost on the way may have its price: a login that is dead, a renewal that is waited out.
			if tries == 40 {
				w.unsettled("it does not settle: run %d of connection %d %s (%s)", run, s.connection.ID, state.Status, text(state.Error))
			}
		}
	}
	if !w.until(patience, func() bool {
		w.supervise()
		return w.idle()
	}) {
		w.unsettled("it does not settle: runs are left")
	}
}

// supervise starts what is not there. A trap that was sprung just before all faults ended may end its process a little later.
func (w *world) supervise() {
	for _, scheduler := range []bool{true, false} {
		if len(w.alive(scheduler)) == 0 {
			w.start(scheduler)
		}
	}
}

// mend is what an operator does who is told that a connection needs attention, or is paused.
func (w *world) mend(s *side) {
	var state string
	if err := w.db.QueryRowContext(w.ctx, `SELECT state FROM contactsync.connections WHERE id = $1`, s.connection.ID).Scan(&state); err != nil {
		return // asked again soon
	}
	if state == "needs_attention" {
		login := s.company.Login()
		w.secrets.login(login)
		sealed, err := w.ring.Pack(login, place(s.tenant.id, s.connection.ID))
		w.check(err)
		_, err = w.ops.SetCredentials(w.ctx, s.connection, sealed, true, operator)
		w.check(err)
		w.tally.did("operator: login given anew")
	}
	if state == "needs_attention" || state == "paused" {
		w.check(w.ops.SetState(w.ctx, s.connection, "active", operator))
		s.paused = false
	}
}

// impatient cancels runs that wait long, as an operator does who sees that their cause is gone: the real programs' waits double
// up to ten minutes.
func (w *world) impatient() {
	if w.real == nil {
		return
	}
	run := w.anyRow(rand.New(rand.NewPCG(1, 1)), `SELECT id FROM contactsync.runs WHERE status = 'waiting' AND not_before > now() + interval '3 seconds'`)
	if run != 0 {
		_, _ = w.ops.CancelRun(w.ctx, run, postgres.By{User: "ops"}) // or it has just gone on
		w.tally.did("operator: cancel of what waits long")
	}
}

// calm ends all faults.
func (w *world) calm() {
	for _, p := range w.processes {
		if b, ok := p.(*bundle); ok && b.Alive() {
			for _, x := range b.proxies() {
				x.disarm()
				x.heal()
			}
		}
	}
	for _, s := range w.sides {
		s.company.Calm()
	}
}

// stop ends what is left, as SIGTERM does, and waits for it.
func (w *world) stop() {
	for _, p := range w.processes {
		if p.Alive() {
			p.Drain()
		}
	}
	ended := make(chan struct{})
	go func() {
		w.running.Wait()
		close(ended)
	}()
	select {
	case <-ended:
	case <-time.After(40 * time.Second):
		w.t.Error("a process did not end within 40 s of SIGTERM")
	}
}

func text(s *string) string {
	if s == nil {
		return ""
	}
	return *s
}

// object reads a JSON object of texts.
func object(doc string) map[string]string {
	m := map[string]string{}
	must(json.Unmarshal([]byte(doc), &m))
	return m
}

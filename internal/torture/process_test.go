package torture

import (
	"context"
	"log/slog"
	"net"
	"net/http"
	"net/url"
	"sync"
	"sync/atomic"
	"time"

	"github.com/centime/contactsync/connectors"
	"github.com/centime/contactsync/connectors/netsuite"
	"github.com/centime/contactsync/connectors/quickbooks"
	"github.com/centime/contactsync/internal/dispatch"
	"github.com/centime/contactsync/internal/pace"
	"github.com/centime/contactsync/internal/postgres"
	"github.com/centime/contactsync/internal/queue"
	"github.com/centime/contactsync/internal/syncing"
)

// A process is a worker or a scheduler.
type process interface {
	// Name is what its connections to Postgres say they are.
	Name() string
	Alive() bool
	// Kill ends it at once, as SIGKILL does: nothing of it reaches a server any more.
	Kill()
	// Drain ends it as SIGTERM does.
	Drain()
}

// keep is what the scheduler keeps of old rows: everything, for as long as a run of the campaign lasts.
var keep = postgres.Keep{Quiet: 30 * 24 * time.Hour, Runs: 400 * 24 * time.Hour}

// A bundle is a process within this one: pools and clients of its own, and each of its connections goes through a proxy
// of its own. To kill it is to cut these for ever: whatever it still does reaches nobody.
type bundle struct {
	name     string
	scheds   bool
	pg       *proxy
	redis    *proxy
	erps     []*proxy // by side
	w        *world
	dead     atomic.Bool
	drain    chan struct{} // closed: end as at SIGTERM
	draining sync.Once
	ended    chan struct{}
}

func (b *bundle) Name() string { return b.name }
func (b *bundle) Alive() bool  { return !b.dead.Load() }

func (b *bundle) proxies() []*proxy { return append([]*proxy{b.pg, b.redis}, b.erps...) }

func (b *bundle) Kill() {
	b.dead.Store(true)
	for _, p := range b.proxies() {
		p.die()
	}
	b.draining.Do(func() { close(b.drain) })
}

func (b *bundle) Drain() {
	b.dead.Store(true)
	b.draining.Do(func() { close(b.drain) })
}

// startBundle starts a worker or a scheduler. It tries until its servers answer, as a supervisor does that starts it
// again and again.
func (w *world) startBundle(name string, scheduler bool) *bundle {
	b := &bundle{name: name, scheds: scheduler, w: w, drain: make(chan struct{}), ended: make(chan struct{})}
	var err error
	must := func(p *proxy, e error) *proxy {
		if e != nil {
			err = e
		}
		return p
	}
	b.pg = must(newProxy(postgres3, w.dsn, nil))
	b.redis = must(newProxy(plain, w.redisURL, w.secrets.queue))
	for _, s := range w.sides {
		b.erps = append(b.erps, must(newProxy(plain, s.company.URL(), nil)))
	}
	if err != nil {
		w.t.Fatal(err)
	}
	log := w.log.logger(name)
	w.running.Go(func() {
		defer close(b.ended)
		defer func() {
			for _, p := range b.proxies() {
				p.close()
			}
		}()
		ctx, cancel := context.WithCancel(context.Background())
		defer cancel()
		store, err := postgres.Open(withName(b.pg.of(w.dsn), name), 10)
		if err != nil {
			w.t.Error(err)
			return
		}
		defer func() { _ = store.Close() }()
		redis, err := queue.Open(b.redis.of(w.redisURL))
		if err != nil {
			w.t.Error(err)
			return
		}
		defer func() { _ = redis.Close() }()
		for store.CheckSchema(ctx) != nil || redis.Ping(ctx) != nil {
			select {
			case <-b.drain:
				return
			case <-time.After(20 * time.Millisecond):
			}
		}
		if scheduler {
			b.schedule(ctx, cancel, store, redis, log)
		} else {
			b.work(ctx, store, redis, log)
		}
	})
	return b
}

func (b *bundle) schedule(ctx context.Context, cancel context.CancelFunc, store *postgres.Store, redis *queue.Redis, log *slog.Logger) {
	go func() {
		<-b.drain
		cancel()
	}()
	(&dispatch.Scheduler{Store: store, Queue: redis, Log: log, Tick: b.w.pace.tick, Lease: b.w.pace.lease, Keep: keep}).Run(ctx)
}

// work is what cmd/worker does with its parts.
func (b *bundle) work(ctx context.Context, store *postgres.Store, redis *queue.Redis, log *slog.Logger) {
	draining := make(chan struct{})
	transport := &http.Transport{DialContext: b.dialERP, MaxIdleConnsPerHost: 16, IdleConnTimeout: 5 * time.Second}
	defer transport.CloseIdleConnections()
	erps := connectors.All(connectors.Keys{QuickBooks: quickbooks.App{ClientID: "client", ClientSecret: clientSecret, PageSize: b.w.pace.page}})
	erps[netsuite.Name] = netsuite.Paged(b.w.pace.page)
	worker := &syncing.Worker{
		Store: store, Ring: b.w.ring, Log: log, Lease: b.w.pace.lease, Step: b.w.pace.step, Draining: draining, Transport: transport,
		Connectors: erps,
		Pace:       pace.New(redis.Client()),
		GiveWay:    func(ctx context.Context, t postgres.Trigger) bool { return redis.GiveWay(ctx, dispatch.QueueOf(t)) },
		Backoff:    func(attempts int) time.Duration { return min(50*time.Millisecond<<attempts, 3*time.Second) },
	}
	server, err := redis.Serve(ctx, func(ctx context.Context, t queue.Task) {
		if next := worker.Work(ctx, t.Run, t.Delivery); next != nil {
			_ = dispatch.HandOut(context.WithoutCancel(ctx), redis, *next) // the scheduler sees to what is lost
		}
	}, draining, 4, time.Minute, log)
	if err != nil {
		return // its servers have gone away again
	}
	<-b.drain
	server.Shutdown(20 * time.Second)
}

// dialERP reaches each ERP through the bundle's proxy to it.
func (b *bundle) dialERP(ctx context.Context, network, address string) (net.Conn, error) {
	for _, p := range b.erps {
		if address == p.target {
			address = p.listener.Addr().String()
			break
		}
	}
	return new(net.Dialer).DialContext(ctx, network, address)
}

func withName(dsn, name string) string {
	u, err := url.Parse(dsn)
	if err != nil {
		panic(err) // it was read before
	}
	q := u.Query()
	q.Set("application_name", name)
	u.RawQuery = q.Encode()
	return u.String()
}

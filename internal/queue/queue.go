// Package queue carries deliveries of runs from the scheduler to the workers. It is the only importer of asynq, and a
// mere wake-up: what is due, done or lost is decided from Postgres, so a task that Redis loses, doubles or keeps does
// no harm.
package queue

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"runtime"
	"runtime/debug"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/hibiken/asynq"
	"github.com/redis/go-redis/v9"

	"github.com/centime/contactsync/internal/queue/sentinel"
)

// Name of a queue.
type Name string

// The queues, most urgent first: what people asked for, what the schedule asks for, first loads.
const (
	Urgent    Name = "urgent"
	Scheduled Name = "scheduled"
	FirstLoad Name = "first_load"
)

// weights let every queue move while the more urgent ones are served more often.
var weights = map[string]int{string(Urgent): 12, string(Scheduled): 5, string(FirstLoad): 1}

const (
	taskType = "run:step"
	// retries is never reached: the handler always succeeds, and crashes count as tries.
	retries = 1 << 20
	// overdue is when asynq gives up on a task. Steps are bounded well below, by Serve: a task that asynq ends is begun
	// again while its handler still runs.
	overdue = 24 * time.Hour
	// standBack is short for a first load, and longer than a free slot takes to find what waits. asynq cuts the moment to its
	// second, so half a second of it is sure.
	standBack = 1500 * time.Millisecond
	// notice is how long handlers wait for the news of a shutdown while Redis hangs.
	notice = time.Second
)

// Its pool writes lines of its own to standard error, between the log's JSON. Every error is returned as well.
func init() { redis.SetLogger(silent{}) }

type silent struct{}

func (silent) Printf(context.Context, string, ...any) {}

// A Task is a delivery of a run.
type Task struct {
	Run      int64
	Delivery int
	Queue    Name
	Headers  map[string]string // for who follows the run from process to process; may be nil
	// StandBack: the step before gave way, so the delivery waits for a moment. Else it would take the slot back, now and then,
	// before what it gave way to.
	StandBack bool
}

func (t Task) id() string { return fmt.Sprintf("run:%d:%d", t.Run, t.Delivery) }

// Redis is a connection to the server that holds the queues.
type Redis struct {
	client    *redis.Client
	inspector *asynq.Inspector
	servers   atomic.Int32 // that have not ended
	pressure  pressure
}

// Client is the connection, for whoever else shares this Redis.
func (r *Redis) Client() *redis.Client { return r.client }

// Open reads a redis:// or rediss:// URL, or one that names Sentinels. It connects when first used.
func Open(url string) (*Redis, error) {
	client, err := newClient(url)
	if err != nil {
		return nil, err
	}
	return &Redis{client: client, inspector: asynq.NewInspectorFromRedisClient(client)}, nil
}

const answerTime = 3 * time.Second // of one command

func newClient(url string) (*redis.Client, error) {
	if !sentinel.Named(url) {
		// Not asynq.ParseRedisURI, which drops the user name.
		o, err := redis.ParseURL(url)
		if err != nil {
			return nil, errors.New("REDIS_URL cannot be read: use redis://user:password@host:6379/0, or rediss:// for TLS, or " + sentinel.Example)
		}
		o.ContextTimeoutEnabled = true // otherwise a deadline is ignored while Redis hangs
		o.DialTimeout, o.ReadTimeout, o.WriteTimeout, o.MaxRetries = answerTime, answerTime, answerTime, 1
		o.DisableIdentity = true
		return redis.NewClient(o), nil
	}
	s, err := sentinel.Parse(url)
	if err != nil {
		return nil, fmt.Errorf("REDIS_URL names Sentinels, but %w: use %s", err, sentinel.Example)
	}
	o := &redis.FailoverOptions{
		MasterName: s.Master, SentinelAddrs: s.Addrs, SentinelUsername: s.SentinelUser, SentinelPassword: s.SentinelPassword,
		Username: s.User, Password: s.Password, DB: s.Database, ContextTimeoutEnabled: true, DisableIdentity: true,
		DialTimeout: answerTime, ReadTimeout: answerTime, WriteTimeout: answerTime, MaxRetries: 1,
	}
	if s.TLS {
		o.TLSConfig = &tls.Config{MinVersion: tls.VersionTLS12} // each server by the name or address that it is dialled by
	}
	return redis.NewFailoverClient(o), nil
}

// Close ends the connection, unless a Server uses it that Shutdown gave up on: asynq's subscriber panics when its
// connection is closed. The process is about to end then, and the connection with it.
func (r *Redis) Close() error {
	if r.servers.Load() > 0 {
		return nil
	}
	return r.client.Close()
}

// Ping says whether Redis answers.
func (r *Redis) Ping(ctx context.Context) error {
	if err := r.client.Ping(ctx).Err(); err != nil {
		return fmt.Errorf("redis cannot be reached (%w): %s", err, advice(err))
	}
	return nil
}

func advice(err error) string {
	if errors.Is(err, redis.Nil) {
		return "the Sentinels know no master of this name: check master= in REDIS_URL"
	}
	if _, ok := errors.AsType[x509.HostnameError](err); ok {
		return "use the host name in REDIS_URL that the server's certificate is for"
	}
	if _, ok := errors.AsType[x509.UnknownAuthorityError](err); ok {
		return "SSL_CERT_FILE must name the file of the authority that signed the server's certificate"
	}
	return "check REDIS_URL and that the server runs; TLS, with rediss://, has a port of its own"
}

// Forget empties our queues, whatever is in them: for a database that begins anew, whose run ids come again.
func (r *Redis) Forget(ctx context.Context) error {
	for name := range weights {
		keys := r.client.Scan(ctx, 0, "asynq:{"+name+"}:*", 1000).Iterator()
		for keys.Next(ctx) {
			if err := r.client.Del(ctx, keys.Val()).Err(); err != nil {
				return fmt.Errorf("empty queue %s: %w", name, err)
			}
		}
		if err := keys.Err(); err != nil {
			return fmt.Errorf("empty queue %s: %w", name, err)
		}
	}
	return nil
}

// Enqueue hands a task out. One that is there already is success; after another error it is unknown whether it is.
func (r *Redis) Enqueue(ctx context.Context, t Task) error {
	payload := strconv.FormatInt(t.Run, 10)
	// A client remembers which queues it has announced, and after Redis was emptied it does not announce them again: its
	// tasks would be worked, but the inspector would say that there is no such queue. So each task has a client.
	tasks := asynq.NewClientFromRedisClient(r.client)
	how := []asynq.Option{asynq.TaskID(t.id()), asynq.Queue(string(t.Queue)), asynq.MaxRetry(retries), asynq.Timeout(overdue)}
	if t.StandBack {
		how = append(how, asynq.ProcessIn(standBack))
	}
	_, err := tasks.EnqueueContext(ctx, asynq.NewTaskWithHeaders(taskType, []byte(payload), t.Headers), how...)
	if err != nil && !errors.Is(err, asynq.ErrTaskIDConflict) {
		return fmt.Errorf("enqueue run %d: %w", t.Run, err)
	}
	return nil
}

// Waiting says whether a task is in the queue and no worker has taken it. One that a worker took, that was archived,
// lost or never arrived is not.
func (r *Redis) Waiting(_ context.Context, t Task) (bool, error) {
	info, err := r.inspector.GetTaskInfo(string(t.Queue), t.id())
	switch {
	case errors.Is(err, asynq.ErrTaskNotFound), errors.Is(err, asynq.ErrQueueNotFound):
		return false, nil
	case err != nil:
		return false, fmt.Errorf("ask the queue for run %d: %w", t.Run, err)
	}
	switch info.State {
	case asynq.TaskStatePending, asynq.TaskStateScheduled, asynq.TaskStateRetry:
		return true, nil
	case asynq.TaskStateArchived, asynq.TaskStateCompleted:
		// It would block its id for up to 90 days, and nobody needs it.
		_ = r.inspector.DeleteTask(string(t.Queue), t.id())
	}
	return false, nil
}

// unleased removes a task that a worker took and that has no lease. asynq gives a task its lease with the taking, but may
// lose the lease alone, and then nothing of its own finds the task: https://github.com/hibiken/asynq/issues/1144
var unleased = redis.NewScript(`
	if redis.call("ZSCORE", KEYS[2], ARGV[1]) then return 0 end
	if redis.call("LREM", KEYS[1], 0, ARGV[1]) == 0 then return 0 end
	redis.call("DEL", KEYS[3])
	return 1`)

// Sweep deletes tasks that nobody will work: archived ones, and those stuck with a worker that is gone. Their runs were,
// or will be, handed out again under other ids. It returns how many there were.
func (r *Redis) Sweep(ctx context.Context) (int, error) {
	queues, err := r.inspector.Queues()
	if err != nil {
		return 0, fmt.Errorf("sweep queues: %w", err)
	}
	gone := 0
	for _, queue := range queues {
		if weights[queue] == 0 {
			continue // another program's
		}
		n, err := r.inspector.DeleteAllArchivedTasks(queue)
		if err != nil {
			return gone, fmt.Errorf("sweep queue %s: %w", queue, err)
		}
		gone += n
		prefix := "asynq:{" + queue + "}:" // asynq's own keys; they are part of its wire format
		ids, err := r.client.LRange(ctx, prefix+"active", 0, -1).Result()
		if err != nil {
			return gone, fmt.Errorf("sweep queue %s: %w", queue, err)
		}
		for _, id := range ids {
			keys := []string{prefix + "active", prefix + "lease", prefix + "t:" + id}
			n, err := unleased.Run(ctx, r.client, keys, id).Int()
			if err != nil {
				return gone, fmt.Errorf("sweep queue %s: %w", queue, err)
			}
			gone += n
		}
	}
	return gone, nil
}

// Handler works a task; what became of it is in Postgres when it returns.
type Handler func(ctx context.Context, t Task)

// Server takes tasks from the queues.
type Server struct {
	parts    []*asynq.Server // of the slots
	redis    *Redis
	draining chan struct{}
	ended    chan struct{}
	log      *slog.Logger
	// working is read-locked by each handler. Not a WaitGroup: the last task taken may begin while Shutdown waits.
	working sync.RWMutex
}

// Serve starts to work tasks, at most concurrency at a time, in slots that keep room for what is urgent. longest bounds one
// task: then its context ends. Shutdown closes draining, upon which handlers are to end soon.
func (r *Redis) Serve(
	ctx context.Context, handler Handler, draining chan struct{}, concurrency int, longest time.Duration, log *slog.Logger,
) (*Server, error) {
	sweeping, cancel := context.WithTimeout(ctx, 10*time.Second)
	defer cancel()
	if n, err := r.Sweep(sweeping); err != nil {
		log.WarnContext(ctx, "old tasks stay in the queue, which harms nothing", "error", err)
	} else if n > 0 {
		log.InfoContext(ctx, "swept tasks that nobody would work", "tasks", n)
	}

	s := &Server{redis: r, draining: draining, ended: make(chan struct{}), log: log}
	work := func(ctx context.Context, t *asynq.Task) error {
		s.working.RLock()
		defer s.working.RUnlock()
		id, _ := asynq.GetTaskID(ctx)
		run, delivery, ok := parseID(id)
		// The type is compared whole: asynq's own mux would match it by prefix.
		if t.Type() != taskType || !ok {
			log.ErrorContext(ctx, "task of another program in our queue: dropped", "type", t.Type())
			return nil
		}
		ctx, cancel := context.WithTimeout(ctx, longest)
		defer cancel()
		defer func() {
			if p := recover(); p != nil {
				log.ErrorContext(ctx, "step panicked; the scheduler hands the run out again",
					"run_id", run, "panic", panicText(p), "stack", string(debug.Stack()))
			}
		}()
		name, _ := asynq.GetQueueName(ctx)
		handler(ctx, Task{Run: run, Delivery: delivery, Queue: Name(name), Headers: t.Headers()})
		return nil
	}
	r.servers.Add(1)
	mixed, noFirstLoads, urgentOnly := slots(concurrency)
	for _, part := range []struct {
		slots  int
		queues []Name
	}{{mixed, urgency}, {noFirstLoads, []Name{Urgent, Scheduled}}, {urgentOnly, []Name{Urgent}}} {
		if part.slots == 0 {
			continue
		}
		queues := map[string]int{}
		for _, name := range part.queues {
			queues[string(name)] = weights[string(name)]
		}
		server := asynq.NewServerFromRedisClient(r.client, asynq.Config{
			Concurrency: part.slots, Queues: queues,
			TaskCheckInterval: 200 * time.Millisecond, DelayedTaskCheckInterval: time.Second,
			ShutdownTimeout: 5 * time.Second, Logger: logger{log}, LogLevel: asynq.DebugLevel,
			// Only crashes and a Redis that was away too long lead here; the redelivery is Postgres' business.
			RetryDelayFunc: func(int, error, *asynq.Task) time.Duration { return time.Second },
		})
		if err := server.Start(asynq.HandlerFunc(work)); err != nil {
			s.Shutdown(time.Second)
			return nil, fmt.Errorf("start queue server: %w", err)
		}
		s.parts = append(s.parts, server)
	}
	return s, nil
}

// each does something to all parts at once.
func (s *Server) each(do func(*asynq.Server)) {
	var all sync.WaitGroup
	for _, part := range s.parts {
		all.Go(func() { do(part) })
	}
	all.Wait()
}

// panicText repeats only what the runtime says: what other code panics with may quote a record.
func panicText(p any) string {
	if err, ok := p.(runtime.Error); ok {
		return err.Error()
	}
	return fmt.Sprintf("%T", p)
}

// parseID takes nothing but what Task.id makes.
func parseID(id string) (run int64, delivery int, ok bool) {
	parts := strings.Split(id, ":")
	if len(parts) != 3 {
		return 0, 0, false
	}
	run, _ = strconv.ParseInt(parts[1], 10, 64)
	delivery, _ = strconv.Atoi(parts[2])
	return run, delivery, Task{Run: run, Delivery: delivery}.id() == id
}

// Shutdown takes no more tasks, lets steps end at their next page, and returns within patience, also if Redis hangs.
// Whatever is unfinished then is found by its lease.
func (s *Server) Shutdown(patience time.Duration) {
	stopped := make(chan struct{})
	go func() {
		s.each((*asynq.Server).Stop) // waits for Redis
		close(stopped)
	}()
	go func() {
		select {
		case <-stopped:
		case <-time.After(notice):
		}
		close(s.draining)
		<-stopped
		s.working.Lock()   // when no handler works
		s.working.Unlock() //nolint:staticcheck // nothing is to be done in between
		s.each((*asynq.Server).Shutdown)
		s.redis.servers.Add(-1)
		close(s.ended)
	}()
	select {
	case <-s.ended:
	case <-time.After(patience):
		s.log.Warn("not everything ended in time; it is handed out again when its lease ends")
	}
}

// logger hands asynq's lines to slog.
type logger struct{ log *slog.Logger }

func (l logger) Debug(args ...any) { l.write(slog.LevelDebug, args) }
func (l logger) Info(args ...any)  { l.write(slog.LevelDebug, args) } // its start and stop are ours to tell
func (l logger) Warn(args ...any)  { l.write(slog.LevelWarn, args) }
func (l logger) Error(args ...any) { l.write(slog.LevelError, args) }
func (l logger) Fatal(args ...any) {
	l.write(slog.LevelError, args)
	os.Exit(1)
}

func (l logger) write(level slog.Level, args []any) {
	l.log.Log(context.Background(), level, "queue server", "says", fmt.Sprint(args...))
}

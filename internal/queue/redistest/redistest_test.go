package redistest_test

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/redis/go-redis/v9"
	"go.uber.org/goleak"

	"github.com/centime/contactsync/internal/queue/redistest"
)

// The shared Redis is gone when the last test that used it is.
func TestMain(m *testing.M) {
	if os.Getenv("REDISTEST_CHILD") != "" {
		os.Exit(m.Run())
	}
	goleak.VerifyTestMain(m)
}

func client(t *testing.T, url string) *redis.Client {
	t.Helper()
	opts, err := redis.ParseURL(url)
	if err != nil {
		t.Fatal(err)
	}
	opts.ContextTimeoutEnabled = true
	opts.MaxRetries, opts.DialerRetries = -1, 1
	c := redis.NewClient(opts)
	t.Cleanup(func() {
		if err := c.Close(); err != nil {
			t.Error(err)
		}
	})
	return c
}

func refused(t *testing.T, addr string) bool {
	t.Helper()
	c, err := new(net.Dialer).DialContext(t.Context(), "tcp", addr)
	if err == nil {
		err = c.Close()
	}
	return errors.Is(err, syscall.ECONNREFUSED)
}

// Tests that share the Redis do not see each other's keys, nor those of the test that had the database before.
func TestNewIsEmptyAndApart(t *testing.T) {
	t.Parallel()
	for range 3 {
		t.Run("", func(t *testing.T) {
			a, b := client(t, redistest.New(t).URL), client(t, redistest.New(t).URL)
			for _, c := range []*redis.Client{a, b} {
				if err := c.SetNX(t.Context(), "key", "mine", 0).Err(); err != nil {
					t.Fatal(err)
				}
				if n, err := c.DBSize(t.Context()).Result(); err != nil || n != 1 {
					t.Errorf("a new database holds %d keys beside its own (%v)", n-1, err)
				}
			}
		})
	}
}

// asynq loses tasks on a server that evicts keys, and a Redis that anybody may use could be made to write files.
func TestSettings(t *testing.T) {
	t.Parallel()
	s := redistest.New(t)
	c := client(t, s.URL)
	for name, want := range map[string]string{"maxmemory-policy": "noeviction", "appendonly": "no", "save": ""} {
		got, err := c.ConfigGet(t.Context(), name).Result()
		if err != nil || got[name] != want {
			t.Errorf("%s is %q, want %q (%v)", name, got[name], want, err)
		}
	}
	open, err := redis.ParseURL(s.URL)
	if err != nil {
		t.Fatal(err)
	}
	stranger := client(t, "redis://"+open.Addr)
	if err := stranger.Ping(t.Context()).Err(); err == nil || !strings.Contains(err.Error(), "NOAUTH") {
		t.Errorf("a stranger is answered: %v", err)
	}
}

// A stopped Redis refuses connections, and comes back empty at the same URL.
func TestStopAndStart(t *testing.T) {
	t.Parallel()
	r := redistest.Own(t)
	c := client(t, r.URL)
	if err := c.Set(t.Context(), "key", "value", 0).Err(); err != nil {
		t.Fatal(err)
	}
	for range 3 {
		r.Stop()
		if !refused(t, c.Options().Addr) {
			t.Fatal("a stopped Redis accepts connections")
		}
		r.Start()
		fresh := client(t, r.URL)
		if n, err := fresh.DBSize(t.Context()).Result(); err != nil || n != 0 {
			t.Fatalf("%d keys after a restart (%v), want 0", n, err)
		}
	}
}

// A paused Redis leaves its clients waiting until it is resumed, and loses nothing.
func TestPause(t *testing.T) {
	t.Parallel()
	r := redistest.Own(t)
	c := client(t, r.URL)
	if err := c.Set(t.Context(), "key", "value", 0).Err(); err != nil {
		t.Fatal(err)
	}
	r.Pause()
	r.Pause()
	ctx, cancel := context.WithTimeout(t.Context(), 200*time.Millisecond)
	defer cancel()
	err := c.Get(ctx, "key").Err()
	if hung, ok := errors.AsType[net.Error](err); !ok || !hung.Timeout() {
		t.Errorf("a paused Redis answered: %v", err)
	}
	r.Resume()
	if got, err := c.Get(t.Context(), "key").Result(); err != nil || got != "value" {
		t.Errorf("after the pause: %q (%v), want value", got, err)
	}
	r.Pause()
	r.Stop()
	r.Start()
	r.Pause() // and the end of the test must not wait for it
}

// Flush empties every database of the test's own Redis.
func TestFlush(t *testing.T) {
	t.Parallel()
	r := redistest.Own(t)
	other := client(t, strings.TrimSuffix(r.URL, "0")+"1")
	if err := other.Set(t.Context(), "key", "value", 0).Err(); err != nil {
		t.Fatal(err)
	}
	r.Flush()
	if n, err := other.DBSize(t.Context()).Result(); err != nil || n != 0 {
		t.Errorf("%d keys after Flush (%v), want 0", n, err)
	}
}

// A test binary that is killed takes its Redis servers with it, paused ones too.
func TestKilledTestBinary(t *testing.T) {
	t.Parallel()
	if os.Getenv("REDISTEST_CHILD") != "" {
		paused, shared := redistest.Own(t), redistest.New(t)
		_, _ = fmt.Printf("URL %s\nURL %s\n", shared.URL, paused.URL)
		paused.Pause()
		_, _ = fmt.Println("PAUSED")
		select {} // until killed
	}

	child := exec.CommandContext(t.Context(), os.Args[0], "-test.run=^TestKilledTestBinary$")
	child.Env = append(os.Environ(), "REDISTEST_CHILD=1")
	out, err := child.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := child.Start(); err != nil {
		t.Fatal(err)
	}
	var clients []*redis.Client
	for lines := bufio.NewScanner(out); lines.Scan() && lines.Text() != "PAUSED"; {
		if url, ok := strings.CutPrefix(lines.Text(), "URL "); ok {
			clients = append(clients, client(t, url))
		}
	}
	if len(clients) != 2 {
		t.Fatalf("the child named %d servers, want 2", len(clients))
	}
	if err := clients[0].Ping(t.Context()).Err(); err != nil {
		t.Fatalf("the child's shared Redis: %v", err)
	}

	if err := child.Process.Kill(); err != nil {
		t.Fatal(err)
	}
	_ = child.Wait() // it was killed
	for _, c := range clients {
		begin := time.Now()
		for !refused(t, c.Options().Addr) {
			if time.Since(begin) > 10*time.Second {
				t.Fatalf("the Redis at %s outlived the test binary", c.Options().Addr)
			}
		}
	}
}

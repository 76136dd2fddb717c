package metrics

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"strings"
	"syscall"
	"time"

	"github.com/prometheus/client_golang/prometheus/promhttp"
)

// readiness is how old an answer of /readyz may be.
const readiness = time.Second

// errSlow says that something took longer than patience.
var errSlow = fmt.Errorf("no answer within %s", patience)

// Handler serves /metrics; /healthz, which says that the process lives; and /readyz: 200 if ready returns nil, else 503 with
// the error, which holds no secret, as one line. A ready that does not return within 4 s is not ready.
func (m *Metrics) Handler(ready func(ctx context.Context) error) http.Handler {
	state := &reading[struct{}]{freshness: readiness, read: func(ctx context.Context) (struct{}, error) { return struct{}{}, ready(ctx) }}
	mux := http.NewServeMux()
	if m != nil {
		// What can be read is shown, also if a collector fails.
		mux.Handle("GET /metrics", promhttp.HandlerFor(m.registry, promhttp.HandlerOpts{ErrorHandling: promhttp.ContinueOnError}))
	}
	mux.HandleFunc("GET /healthz", func(w http.ResponseWriter, _ *http.Request) { answer(w, http.StatusOK, "ok") })
	mux.HandleFunc("GET /readyz", func(w http.ResponseWriter, _ *http.Request) {
		if _, err := state.get(); err != nil {
			answer(w, http.StatusServiceUnavailable, strings.Join(strings.Fields(err.Error()), " "))
			return
		}
		answer(w, http.StatusOK, "ok")
	})
	return mux
}

func answer(w http.ResponseWriter, status int, line string) {
	w.Header().Set("Content-Type", "text/plain; charset=utf-8")
	w.Header().Set("Cache-Control", "no-store")
	w.WriteHeader(status)
	_, _ = io.WriteString(w, line+"\n") // whoever asked may be gone
}

// Serve listens on addr (host:port) and serves h until stop is called, not until ctx ends: a program that is stopping
// still says so, and what it does last is counted. stop takes at most a second. An address that cannot be had is an
// error.
func Serve(ctx context.Context, addr string, h http.Handler, log *slog.Logger) (stop func(), err error) {
	listener, err := new(net.ListenConfig).Listen(ctx, "tcp", addr)
	if errors.Is(err, syscall.EADDRINUSE) {
		return nil, fmt.Errorf("METRICS_ADDR=%s: another program has this port: choose another, or end that program", addr)
	}
	if err != nil {
		return nil, fmt.Errorf("METRICS_ADDR=%s: %w", addr, err)
	}
	server := &http.Server{
		Handler: h, ReadTimeout: 5 * time.Second, WriteTimeout: 15 * time.Second, IdleTimeout: 2 * time.Minute,
		ErrorLog: slog.NewLogLogger(log.Handler(), slog.LevelDebug),
	}
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		if err := server.Serve(listener); !errors.Is(err, http.ErrServerClosed) {
			log.ErrorContext(ctx, "metrics are no longer served", "error", err)
		}
	}()
	log.InfoContext(ctx, "metrics are served", "addr", listener.Addr().String())
	return func() {
		patient, cancel := context.WithTimeout(context.WithoutCancel(ctx), time.Second)
		defer cancel()
		if err := server.Shutdown(patient); err != nil {
			_ = server.Close() // a scrape is cut; the next program answers the next one
		}
		<-ended
	}, nil
}

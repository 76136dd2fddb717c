package tracing

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/url"
	"strings"
	"sync"
	"time"

	"github.com/go-logr/logr"
	"go.opentelemetry.io/otel"
	"go.opentelemetry.io/otel/exporters/otlp/otlptrace/otlptracehttp"
	"go.opentelemetry.io/otel/sdk/resource"
	sdk "go.opentelemetry.io/otel/sdk/trace"
	semconv "go.opentelemetry.io/otel/semconv/v1.43.0"
)

const (
	// quiet is how long after a complaint of OpenTelemetry's the next one is only counted: while the collector is away
	// there is one for each batch.
	quiet = time.Minute
	// longestComplaint is in bytes; a collector's answer of any length may be in one.
	longestComplaint = 300
)

// Start turns tracing on, over OTLP/HTTP, if environ (as os.Environ returns it) has OTEL_EXPORTER_OTLP_ENDPOINT or
// OTEL_EXPORTER_OTLP_TRACES_ENDPOINT and OTEL_SDK_DISABLED is not true. The specification's other variables (headers,
// sampler, resource attributes, limits) OpenTelemetry itself reads from the process's own environment. An error names
// the variable that is wrong.
//
// Spans are sent in the background. At most 2048 wait to be sent, unless OTEL_BSP_MAX_QUEUE_SIZE says otherwise; while the
// collector is away more are dropped, and log is told at most once a minute. stop sends what waits and turns tracing off;
// it returns when ctx ends at the latest, whatever is unsent.
func Start(
	ctx context.Context, service string, environ []string, log *slog.Logger,
) (stop func(ctx context.Context) error, err error) {
	collector, err := endpoint(environ)
	if err != nil {
		return nil, err
	}
	if collector == "" {
		return func(context.Context) error { return nil }, nil
	}
	// OpenTelemetry has one place for both in a process, and writes to standard error by itself.
	otel.SetErrorHandler(&complaints{log: log})
	otel.SetLogger(logr.New(sink{log}))

	from, err := resource.New(ctx, resource.WithTelemetrySDK(), resource.WithHost(), resource.WithProcessPID(),
		resource.WithAttributes(semconv.ServiceName(service)), resource.WithFromEnv())
	if err != nil {
		return nil, errors.New("OTEL_RESOURCE_ATTRIBUTES or the host's name cannot be read: use key=value,key=value") // the cause repeats it
	}
	exporter, err := otlptracehttp.New(ctx, otlptracehttp.WithEndpointURL(collector))
	if err != nil {
		return nil, fmt.Errorf("start tracing: %w", err)
	}
	provider := newProvider(sdk.WithResource(from), sdk.WithBatcher(exporter))
	t := newTracer(provider)
	current.Store(t)
	return func(ctx context.Context) error {
		current.CompareAndSwap(t, nil)
		err := provider.Shutdown(ctx)
		// Once ctx is over the batcher would go on trying for as long as it has patience; this breaks its request off.
		if err := errors.Join(err, exporter.Shutdown(context.WithoutCancel(ctx))); err != nil {
			return fmt.Errorf("send last traces: %w", err)
		}
		return nil
	}, nil
}

// newProvider makes spans that leave out what a panic says, which may quote a record.
func newProvider(o ...sdk.TracerProviderOption) *sdk.TracerProvider {
	return sdk.NewTracerProvider(append(o, sdk.WithoutPanicRecording())...)
}

// endpoint is where to send spans; empty: nowhere.
func endpoint(environ []string) (string, error) {
	values := map[string]string{}
	for _, line := range environ {
		name, value, _ := strings.Cut(line, "=")
		values[name] = strings.TrimSpace(value)
	}
	name, path := "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", "" // is taken as it is
	if values[name] == "" {
		name, path = "OTEL_EXPORTER_OTLP_ENDPOINT", "/v1/traces" // is the collector's for all signals
	}
	if values[name] == "" || strings.EqualFold(values["OTEL_SDK_DISABLED"], "true") {
		return "", nil
	}
	u, err := url.Parse(values[name])
	if err != nil || u.Scheme != "http" && u.Scheme != "https" || u.Host == "" {
		return "", fmt.Errorf("%s cannot be read: use http://collector:4318, or https:// for TLS", name)
	}
	protocol := "OTEL_EXPORTER_OTLP_TRACES_PROTOCOL"
	if values[protocol] == "" {
		protocol = "OTEL_EXPORTER_OTLP_PROTOCOL"
	}
	if values[protocol] == "grpc" {
		return "", fmt.Errorf("%s is grpc, which is not spoken: use http/protobuf and the collector's port for it, mostly 4318", protocol)
	}
	u.Path = strings.TrimSuffix(u.Path, "/") + path
	return u.String(), nil
}

// complaints are OpenTelemetry's errors on their way to the log.
type complaints struct {
	log *slog.Logger

	mu     sync.Mutex
	told   time.Time
	untold int // since then
}

// Handle is called by OpenTelemetry.
func (c *complaints) Handle(err error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if !c.told.IsZero() && time.Since(c.told) < quiet {
		c.untold++
		return
	}
	text := err.Error()
	if len(text) > longestComplaint {
		text = strings.ToValidUTF8(text[:longestComplaint], "") + "…"
	}
	c.log.Warn("tracing does not work, which harms nothing else", "error", text, "untold_before", c.untold)
	c.told, c.untold = time.Now(), 0
}

// sink takes OpenTelemetry's own log, errors and warnings of it. It leaves out their details: they repeat environment
// variables, in which a collector's token may stand.
type sink struct{ log *slog.Logger }

// Init is not needed.
func (sink) Init(logr.RuntimeInfo) {}

// Enabled by OpenTelemetry's use of levels: 1 is a warning, 4 information.
func (sink) Enabled(level int) bool { return level <= 1 }

// Info writes a warning.
func (s sink) Info(_ int, msg string, _ ...any) { s.log.Warn("tracing", "says", msg) }

// Error writes a warning: nothing but tracing fails.
func (s sink) Error(_ error, msg string, _ ...any) { s.log.Warn("tracing", "says", msg) }

// WithValues leaves them out.
func (s sink) WithValues(...any) logr.LogSink { return s }

// WithName leaves it out.
func (s sink) WithName(string) logr.LogSink { return s }

// Package tracing follows a run from the schedule to the SQL with OpenTelemetry, of which it is the only importer; it is off
// unless configured, and costs next to nothing then.
package tracing

import (
	"context"
	"database/sql"
	"database/sql/driver"
	"log/slog"
	"net/http"
	"sync/atomic"

	"go.opentelemetry.io/otel/propagation"
	"go.opentelemetry.io/otel/trace"
)

// scope names this code as the maker of its spans.
const scope = "github.com/centime/contactsync/internal/tracing"

// current is nil while tracing is off. It belongs to the process because the packages that begin spans share nothing but a
// context, and a first span has none before it to find its tracer by.
var current atomic.Pointer[tracer]

// Span begins a span, as a child of the one in ctx if there is one. The returned function ends it and must be called; of an
// error it keeps the kind, and the text only of a *connector.Error, since any other may quote a record.
func Span(ctx context.Context, name string, attrs ...slog.Attr) (context.Context, func(err error)) {
	return current.Load().span(ctx, name, attrs)
}

// Annotate adds attributes to the span in ctx: ids, counts and words of ours. Of a value that is none of slog's own kinds
// only the type is kept.
func Annotate(ctx context.Context, attrs ...slog.Attr) { current.Load().annotate(ctx, attrs) }

// Headers says which span ctx is in, in a form that can travel with a task (traceparent). It is nil outside of spans.
func Headers(ctx context.Context) map[string]string { return current.Load().headers(ctx) }

// Linked begins the span of a task that another process queued. It is the first of a new trace and has a link to the span
// that headers name: a task may come twice or late, when the trace of its queuing is long over. Headers that cannot be
// read are passed over.
func Linked(
	ctx context.Context, name string, headers map[string]string, attrs ...slog.Attr,
) (context.Context, func(err error)) {
	return current.Load().linked(ctx, name, headers, attrs)
}

// Aside is ctx outside of every span: for what goes on beside the work and would fill its trace, such as a heartbeat.
func Aside(ctx context.Context) context.Context { return current.Load().aside(ctx) }

// DB opens a pool. If tracing is on, what it sends within a span becomes spans: a statement, the beginning and the end of a
// transaction, a new connection. Neither a query's text nor its arguments are kept. A pool opened before Start is not
// followed.
func DB(c driver.Connector) *sql.DB { return current.Load().db(c) }

// Transport makes each request that is sent within a span a span of its own, until its answer is read: method, host and
// status, not the path, which holds ids. No header is added to the request. If tracing is off, base is returned as it is,
// also nil; if it is on, a nil base is http.DefaultTransport, so whoever has another default passes that. A transport
// wrapped before Start is not followed.
func Transport(base http.RoundTripper) http.RoundTripper { return current.Load().transport(base) }

// tracer makes the spans of one provider. A nil one makes none.
type tracer struct {
	provider trace.TracerProvider
	spans    trace.Tracer
}

func newTracer(p trace.TracerProvider) *tracer { return &tracer{provider: p, spans: p.Tracer(scope)} }

// ignore ends the span that was never begun.
func ignore(error) {}

func (t *tracer) span(ctx context.Context, name string, attrs []slog.Attr) (context.Context, func(err error)) {
	if t == nil {
		return ctx, ignore
	}
	return t.begin(ctx, name, trace.WithAttributes(attributes(attrs)...))
}

func (t *tracer) begin(ctx context.Context, name string, o ...trace.SpanStartOption) (context.Context, func(err error)) {
	ctx, span := t.spans.Start(ctx, name, o...)
	return ctx, func(err error) {
		fail(span, err)
		span.End()
	}
}

func (t *tracer) annotate(ctx context.Context, attrs []slog.Attr) {
	if t == nil {
		return
	}
	trace.SpanFromContext(ctx).SetAttributes(attributes(attrs)...)
}

func (t *tracer) headers(ctx context.Context) map[string]string {
	if t == nil || !within(ctx) {
		return nil
	}
	headers := propagation.MapCarrier{}
	propagation.TraceContext{}.Inject(ctx, headers)
	return headers
}

func (t *tracer) linked(
	ctx context.Context, name string, headers map[string]string, attrs []slog.Attr,
) (context.Context, func(err error)) {
	if t == nil {
		return ctx, ignore
	}
	o := []trace.SpanStartOption{
		trace.WithNewRoot(), trace.WithSpanKind(trace.SpanKindConsumer), trace.WithAttributes(attributes(attrs)...),
	}
	queued := propagation.TraceContext{}.Extract(context.Background(), propagation.MapCarrier(headers))
	if within(queued) {
		o = append(o, trace.WithLinks(trace.LinkFromContext(queued)))
	}
	return t.begin(ctx, name, o...)
}

func (t *tracer) aside(ctx context.Context) context.Context {
	if t == nil {
		return ctx
	}
	return trace.ContextWithSpan(ctx, nil)
}

// within says whether ctx is in a span. Statements and requests outside of one are not followed: each heartbeat and each
// look of the scheduler would be a trace of its own.
func within(ctx context.Context) bool { return trace.SpanContextFromContext(ctx).IsValid() }

package tracing

import (
	"context"
	"database/sql"
	"database/sql/driver"
	"errors"
	"io"
	"net/http"
	"strconv"

	"github.com/XSAM/otelsql"
	"go.opentelemetry.io/otel/codes"
	"go.opentelemetry.io/otel/metric/noop"
	semconv "go.opentelemetry.io/otel/semconv/v1.43.0"
	"go.opentelemetry.io/otel/trace"
)

func (t *tracer) db(c driver.Connector) *sql.DB {
	if t == nil {
		return sql.OpenDB(c)
	}
	return otelsql.OpenDB(c,
		otelsql.WithTracerProvider(discreet{t.provider}),
		otelsql.WithMeterProvider(noop.NewMeterProvider()), // else it takes the process's
		otelsql.WithAttributes(semconv.DBSystemNamePostgreSQL),
		otelsql.WithSpanOptions(otelsql.SpanOptions{
			DisableQuery: true, DisableErrSkip: true, OmitConnResetSession: true, OmitConnPrepare: true, OmitRows: true,
			SpanFilter: func(ctx context.Context, _ otelsql.Method, _ string, _ []driver.NamedValue) bool { return within(ctx) },
		}),
	)
}

func (t *tracer) transport(base http.RoundTripper) http.RoundTripper {
	if t == nil {
		return base
	}
	if base == nil {
		base = http.DefaultTransport
	}
	return transport{t, base}
}

type transport struct {
	tracer *tracer
	base   http.RoundTripper
}

func (t transport) RoundTrip(req *http.Request) (*http.Response, error) {
	if !within(req.Context()) {
		return t.base.RoundTrip(req)
	}
	// The request goes on as it came: an ERP is told nothing of our traces.
	_, span := t.tracer.spans.Start(req.Context(), req.Method, trace.WithSpanKind(trace.SpanKindClient), trace.WithAttributes(
		semconv.HTTPRequestMethodKey.String(req.Method), semconv.ServerAddress(req.URL.Hostname()),
	))
	resp, err := t.base.RoundTrip(req)
	if err != nil {
		fail(span, err)
		span.End()
		return nil, err
	}
	span.SetAttributes(semconv.HTTPResponseStatusCode(resp.StatusCode))
	if resp.StatusCode >= http.StatusBadRequest {
		span.SetAttributes(semconv.ErrorTypeKey.String(strconv.Itoa(resp.StatusCode)))
		span.SetStatus(codes.Error, "")
	}
	resp.Body = body{resp.Body, span}
	return resp, nil
}

// body ends the span of its request when it is read or closed, whichever comes first; ending it again does nothing.
type body struct {
	io.ReadCloser
	span trace.Span
}

func (b body) Read(p []byte) (int, error) {
	n, err := b.ReadCloser.Read(p)
	if err != nil {
		if !errors.Is(err, io.EOF) {
			fail(b.span, err)
		}
		b.span.End()
	}
	return n, err
}

func (b body) Close() error {
	err := b.ReadCloser.Close()
	b.span.End()
	return err
}

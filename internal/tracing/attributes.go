package tracing

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"math"
	"strings"
	"time"

	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/codes"
	semconv "go.opentelemetry.io/otel/semconv/v1.43.0"
	"go.opentelemetry.io/otel/trace"

	"github.com/centime/contactsync/internal/connector"
)

// attributes are attrs in OpenTelemetry's kinds. A group's members get its key and a dot before theirs, durations are in
// seconds, times in RFC 3339 and UTC.
func attributes(attrs []slog.Attr) []attribute.KeyValue {
	out := make([]attribute.KeyValue, 0, len(attrs))
	for _, a := range attrs {
		out = appendAttribute(out, "", a)
	}
	return out
}

func appendAttribute(out []attribute.KeyValue, prefix string, a slog.Attr) []attribute.KeyValue {
	v := a.Value.Resolve() // a value that hides itself from slog is hidden here
	key := prefix + a.Key
	switch v.Kind() {
	case slog.KindGroup:
		if a.Key != "" {
			prefix = key + "."
		}
		for _, member := range v.Group() {
			out = appendAttribute(out, prefix, member)
		}
		return out
	case slog.KindBool:
		return append(out, attribute.Bool(key, v.Bool()))
	case slog.KindInt64:
		return append(out, attribute.Int64(key, v.Int64()))
	case slog.KindUint64:
		if v.Uint64() <= math.MaxInt64 {
			return append(out, attribute.Int64(key, int64(v.Uint64()))) //nolint:gosec // checked just now
		}
		return append(out, attribute.String(key, v.String()))
	case slog.KindFloat64:
		return append(out, attribute.Float64(key, v.Float64()))
	case slog.KindDuration:
		return append(out, attribute.Float64(key, v.Duration().Seconds()))
	case slog.KindTime:
		return append(out, attribute.String(key, v.Time().UTC().Format(time.RFC3339Nano)))
	case slog.KindString:
		return append(out, attribute.String(key, v.String()))
	}
	return append(out, attribute.String(key, fmt.Sprintf("%T", v.Any())))
}

// fail marks a span with what kind of error ended it. What was cancelled has not failed.
func fail(span trace.Span, err error) {
	if err == nil {
		return
	}
	span.SetAttributes(kind(err)...)
	if errors.Is(err, context.Canceled) {
		return
	}
	text := ""
	if e, ok := errors.AsType[*connector.Error](err); ok {
		text = e.Error() // by its contract without personal data, unlike what is wrapped around it
	}
	span.SetStatus(codes.Error, text)
}

// kind is what is known of an error without its text.
func kind(err error) []attribute.KeyValue {
	if errors.Is(err, context.Canceled) {
		return []attribute.KeyValue{semconv.ErrorTypeKey.String("context.Canceled")}
	}
	if _, ok := errors.AsType[*connector.Error](err); ok {
		return []attribute.KeyValue{semconv.ErrorTypeKey.String(string(connector.KindOf(err)))}
	}
	if errors.Is(err, context.DeadlineExceeded) {
		return []attribute.KeyValue{semconv.ErrorTypeKey.String("context.DeadlineExceeded")}
	}
	known := []attribute.KeyValue{semconv.ErrorTypeKey.String(typeOf(err))}
	var answer interface{ SQLState() string } // Postgres said it
	if errors.As(err, &answer) {
		known = append(known, semconv.DBResponseStatusCode(answer.SQLState()))
	}
	return known
}

// typeOf names the first type in the chain of an error that is not a mere wrapping of fmt's or errors'.
func typeOf(err error) string {
	for {
		name := fmt.Sprintf("%T", err)
		if !strings.HasPrefix(name, "*fmt.") && name != "*errors.joinError" {
			return name
		}
		var inner error
		switch e := err.(type) { //nolint:errorlint // this walks the chain itself
		case interface{ Unwrap() error }:
			inner = e.Unwrap()
		case interface{ Unwrap() []error }:
			inner = e.Unwrap()[0]
		}
		if inner == nil {
			return name
		}
		err = inner
	}
}

// discreet is a provider whose spans keep the kind of an error instead of its text, for the spans that other code makes:
// Postgres quotes values in some of its messages.
type discreet struct{ trace.TracerProvider }

// Tracer makes discreet spans.
func (d discreet) Tracer(name string, o ...trace.TracerOption) trace.Tracer {
	return discreetTracer{d.TracerProvider.Tracer(name, o...)}
}

type discreetTracer struct{ trace.Tracer }

func (d discreetTracer) Start(ctx context.Context, name string, o ...trace.SpanStartOption) (context.Context, trace.Span) {
	ctx, span := d.Tracer.Start(ctx, name, o...)
	return ctx, discreetSpan{span}
}

type discreetSpan struct{ trace.Span }

func (d discreetSpan) RecordError(err error, _ ...trace.EventOption) { d.SetAttributes(kind(err)...) }

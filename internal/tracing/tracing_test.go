package tracing

import (
	"bytes"
	"context"
	"database/sql/driver"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"go.opentelemetry.io/otel/codes"
	sdk "go.opentelemetry.io/otel/sdk/trace"
	"go.opentelemetry.io/otel/sdk/trace/tracetest"
	"go.opentelemetry.io/otel/trace"
	"go.uber.org/goleak"

	"github.com/centime/contactsync/internal/connector"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// private is what may never be in a span.
const private = "ada@example.com"

// record returns a tracer of the test's own and the spans it has ended.
func record(t *testing.T) (*tracer, func() tracetest.SpanStubs) {
	t.Helper()
	r := tracetest.NewSpanRecorder()
	return newTracer(newProvider(sdk.WithSpanProcessor(r))), func() tracetest.SpanStubs {
		return tracetest.SpanStubsFromReadOnlySpans(r.Ended())
	}
}

// one is the only span.
func one(t *testing.T, spans tracetest.SpanStubs) tracetest.SpanStub {
	t.Helper()
	if len(spans) != 1 {
		t.Fatalf("%d spans ended, want 1: %+v", len(spans), spans)
	}
	if all := fmt.Sprintf("%+v", spans); strings.Contains(all, private) {
		t.Errorf("personal data in a span: %s", all)
	}
	return spans[0]
}

// values are a span's attributes as they print.
func values(s tracetest.SpanStub) map[string]string {
	out := map[string]string{}
	for _, a := range s.Attributes {
		out[string(a.Key)] = a.Value.String()
	}
	return out
}

// lonely is a connector that nobody connects with.
type lonely struct{ driver.Connector }

func (lonely) Driver() driver.Driver { return lonelyDriver{} }

type lonelyDriver struct{ driver.Driver }

// Off is the normal case, and changes nothing: neither contexts, nor tasks, nor pools, nor transports. Tests that turn
// tracing on for the process are not parallel, so none of them runs beside this one.
func TestOffChangesNothing(t *testing.T) {
	t.Parallel()
	ctx := t.Context()
	stop, err := Start(ctx, "worker", []string{"PATH=/bin", "OTEL_EXPORTER_OTLP_ENDPOINT="}, slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	got, end := Span(ctx, "step", slog.Int("run_id", 1))
	end(errors.New("failed"))
	if got != ctx {
		t.Error("Span changed the context")
	}
	const traceparent = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"
	got, end = Linked(ctx, "step", map[string]string{"traceparent": traceparent})
	end(nil)
	if got != ctx {
		t.Error("Linked changed the context")
	}
	if Aside(ctx) != ctx {
		t.Error("Aside changed the context")
	}
	Annotate(ctx, slog.Int("run_id", 1))
	foreign := trace.ContextWithSpanContext(ctx, trace.NewSpanContext(trace.SpanContextConfig{
		TraceID: trace.TraceID{1}, SpanID: trace.SpanID{1},
	}))
	if h := Headers(foreign); h != nil {
		t.Errorf("Headers = %v, want none", h)
	}
	if rt := Transport(nil); rt != nil {
		t.Errorf("Transport(nil) = %v, want nil, so that the default of whoever gets it counts", rt)
	}
	if rt := Transport(http.DefaultTransport); rt != http.DefaultTransport {
		t.Errorf("Transport wrapped what it was given: %T", rt)
	}
	db := DB(lonely{})
	defer db.Close()
	if _, plain := db.Driver().(lonelyDriver); !plain {
		t.Errorf("the pool's driver is %T, want the connector's own", db.Driver())
	}
	if err := stop(ctx); err != nil {
		t.Error(err)
	}
}

func TestOffCostsNothing(t *testing.T) { // not parallel: counts allocations
	ctx := t.Context()
	allocations := testing.AllocsPerRun(100, func() {
		ctx, end := Span(ctx, "step", slog.Int64("run_id", 1<<40), slog.String("erp", "netsuite"))
		Annotate(ctx, slog.Int64("rows", 1<<40))
		end(nil)
	})
	if allocations > 0 {
		t.Errorf("%v allocations for a span while tracing is off, want none", allocations)
	}
}

// A span's error tells what kind it was. Text is kept only where a contract keeps personal data out of it.
func TestErrorsKeepTheirKind(t *testing.T) {
	t.Parallel()
	throttled := &connector.Error{Kind: connector.Throttled, Step: "query customers", Message: "429 ThrottleExceeded"}
	for name, tc := range map[string]struct {
		err  error
		kind string
		code codes.Code
		text string
	}{
		"None":      {err: nil, code: codes.Unset},
		"Connector": {throttled, "throttled", codes.Error, "query customers: 429 ThrottleExceeded"},
		"ConnectorWrapped": {
			fmt.Errorf("pull %s: %w", private, throttled), "throttled", codes.Error, "query customers: 429 ThrottleExceeded",
		},
		"Other":     {errors.New("no such contact: " + private), "*errors.errorString", codes.Error, ""},
		"Wrapped":   {fmt.Errorf("save %s: %w", private, &net.AddrError{Addr: private}), "*net.AddrError", codes.Error, ""},
		"Joined":    {errors.Join(&net.AddrError{Addr: private}, io.EOF), "*net.AddrError", codes.Error, ""},
		"Deadline":  {fmt.Errorf("pull: %w", context.DeadlineExceeded), "context.DeadlineExceeded", codes.Error, ""},
		"Cancelled": {fmt.Errorf("pull: %w", context.Canceled), "context.Canceled", codes.Unset, ""},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			tracer, ended := record(t)
			_, end := tracer.span(t.Context(), "step", nil)
			end(tc.err)
			span := one(t, ended())
			if got := values(span)["error.type"]; got != tc.kind {
				t.Errorf("error.type = %q, want %q", got, tc.kind)
			}
			if span.Status.Code != tc.code || span.Status.Description != tc.text {
				t.Errorf("status = %v %q, want %v %q", span.Status.Code, span.Status.Description, tc.code, tc.text)
			}
			if len(span.Events) > 0 {
				t.Errorf("events %v: an exception's event holds the error's text", span.Events)
			}
		})
	}
}

// hidden prints itself to nobody.
type hidden string

func (hidden) LogValue() slog.Value { return slog.StringValue("[secret]") }

func TestAttributesAreThoseOfTheLog(t *testing.T) {
	t.Parallel()
	tracer, ended := record(t)
	ctx, end := tracer.span(t.Context(), "step", []slog.Attr{slog.Int64("run_id", 7), slog.String("erp", "netsuite")})
	tracer.annotate(ctx, []slog.Attr{
		slog.Bool("preview", true), slog.Float64("rate", 0.5), slog.Uint64("calls", 3), slog.Uint64("most", 1<<63),
		slog.Duration("waited", 1500*time.Millisecond),
		slog.Time("since", time.Date(2026, 3, 1, 12, 0, 0, 0, time.FixedZone("CET", 3600))),
		slog.Group("counts", slog.Int("read", 5), slog.Group("", slog.Int("created", 2))),
		slog.Any("token", hidden(private)), slog.Any("contact", struct{ Email string }{private}), slog.Any("error", errors.New(private)),
	})
	end(nil)
	want := map[string]string{
		"run_id": "7", "erp": "netsuite", "preview": "true", "rate": "0.5", "calls": "3", "most": "9223372036854775808", "waited": "1.5",
		"since": "2026-03-01T11:00:00Z", "counts.read": "5", "counts.created": "2",
		"token": "[secret]", "contact": "struct { Email string }", "error": "*errors.errorString",
	}
	got := values(one(t, ended()))
	for key, value := range want {
		if got[key] != value {
			t.Errorf("%s = %q, want %q", key, got[key], value)
		}
	}
	if len(got) != len(want) {
		t.Errorf("attributes %v, want %v", got, want)
	}
}

// A task may be delivered twice, late, or with headers of nobody's: its span always begins a trace, and links only to a
// span that can be read.
func TestTasksBeginTracesOfTheirOwn(t *testing.T) {
	t.Parallel()
	const traceparent = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"
	for name, tc := range map[string]struct {
		headers map[string]string
		links   int
	}{
		"None":      {nil, 0},
		"Malformed": {map[string]string{"traceparent": "00-" + private}, 0},
		"Linked":    {map[string]string{"traceparent": traceparent, "another": "header"}, 1},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			tracer, ended := record(t)
			around, _ := tracer.span(t.Context(), "around", nil)
			_, end := tracer.linked(around, "step", tc.headers, nil)
			end(nil)
			span := one(t, ended())
			if span.Parent.IsValid() {
				t.Errorf("parent %v, want a new trace", span.Parent)
			}
			if span.SpanKind != trace.SpanKindConsumer {
				t.Errorf("kind = %v, want consumer", span.SpanKind)
			}
			if len(span.Links) != tc.links {
				t.Fatalf("%d links, want %d", len(span.Links), tc.links)
			}
			if tc.links > 0 && span.Links[0].SpanContext.SpanID().String() != "00f067aa0ba902b7" {
				t.Errorf("linked to %v", span.Links[0].SpanContext.SpanID())
			}
		})
	}
}

// get sends a request and reads all of the answer.
func get(ctx context.Context, rt http.RoundTripper, url string) error {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
	if err != nil {
		return err
	}
	resp, err := rt.RoundTrip(req)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	_, err = io.Copy(io.Discard, resp.Body)
	return err
}

// A request's path and query hold ids and, in a query, more. The ERP is not told about our traces.
func TestRequestsShowMethodHostAndStatus(t *testing.T) {
	t.Parallel()
	erp := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		for _, header := range []string{"Traceparent", "Tracestate", "Baggage"} {
			if r.Header.Get(header) != "" {
				t.Errorf("the ERP was sent %s", header)
			}
		}
		switch r.URL.Path {
		case "/" + private + "/throttled":
			w.WriteHeader(http.StatusTooManyRequests)
		case "/" + private + "/cut":
			w.Header().Set("Content-Length", "100")
			_, _ = io.WriteString(w, private)
		default:
			_, _ = io.WriteString(w, private)
		}
	}))
	t.Cleanup(erp.Close)
	for name, tc := range map[string]struct {
		url    string
		want   map[string]string
		status codes.Code
	}{
		"OK": {erp.URL + "/" + private + "/ok?query=" + private, map[string]string{"http.response.status_code": "200"}, codes.Unset},
		"Throttled": {
			erp.URL + "/" + private + "/throttled",
			map[string]string{"http.response.status_code": "429", "error.type": "429"}, codes.Error,
		},
		"Cut": {
			erp.URL + "/" + private + "/cut",
			map[string]string{"http.response.status_code": "200", "error.type": "*errors.errorString"}, codes.Error,
		},
		"Unreachable": {"http://127.0.0.1:1/" + private, map[string]string{"error.type": "*net.OpError"}, codes.Error},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			tracer, ended := record(t)
			base := &http.Transport{}
			defer base.CloseIdleConnections()
			ctx, _ := tracer.span(t.Context(), "page", nil)
			if err := get(ctx, tracer.transport(base), tc.url); (err != nil) != (name == "Cut" || name == "Unreachable") {
				t.Fatal(err)
			}
			span := one(t, ended())
			tc.want["http.request.method"], tc.want["server.address"] = "GET", "127.0.0.1"
			if got := values(span); fmt.Sprint(got) != fmt.Sprint(tc.want) {
				t.Errorf("attributes %v, want %v", got, tc.want)
			}
			if span.Name != "GET" || span.Status.Code != tc.status || span.SpanKind != trace.SpanKindClient {
				t.Errorf("%s %v %v, want GET %v client", span.Name, span.Status.Code, span.SpanKind, tc.status)
			}
			if span.Parent.SpanID() != trace.SpanContextFromContext(ctx).SpanID() {
				t.Error("the request is not a child of the page")
			}
		})
	}
}

// A request takes until its answer is read: most of a page's time may pass after its first byte.
func TestRequestsLastUntilTheirAnswerIsRead(t *testing.T) {
	t.Parallel()
	erp := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { _, _ = io.WriteString(w, "page") }))
	defer erp.Close()
	base := &http.Transport{}
	defer base.CloseIdleConnections()
	tracer, ended := record(t)
	ctx, _ := tracer.span(t.Context(), "page", nil)
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, erp.URL, nil)
	if err != nil {
		t.Fatal(err)
	}
	resp, err := tracer.transport(base).RoundTrip(req)
	if err != nil {
		t.Fatal(err)
	}
	if n := len(ended()); n != 0 {
		t.Errorf("%d spans ended before the answer was read", n)
	}
	resp.Body.Close()
	one(t, ended())
}

func TestRequestsOutsideOfSpansAreNotFollowed(t *testing.T) {
	t.Parallel()
	erp := httptest.NewServer(http.NotFoundHandler())
	defer erp.Close()
	base := &http.Transport{}
	defer base.CloseIdleConnections()
	tracer, ended := record(t)
	step, _ := tracer.span(t.Context(), "step", nil)
	for _, ctx := range []context.Context{t.Context(), tracer.aside(step)} {
		if err := get(ctx, tracer.transport(base), erp.URL); err != nil {
			t.Fatal(err)
		}
	}
	if spans := ended(); len(spans) > 0 {
		t.Errorf("spans %v, want none", spans)
	}
}

func TestEndpoint(t *testing.T) {
	t.Parallel()
	const base, traces = "OTEL_EXPORTER_OTLP_ENDPOINT=", "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT="
	for name, tc := range map[string]struct {
		environ []string
		want    string
		wrong   string // the variable that the error names
	}{
		"Off":          {[]string{"PATH=/bin", base}, "", ""},
		"Base":         {[]string{base + "http://collector:4318"}, "http://collector:4318/v1/traces", ""},
		"BaseWithPath": {[]string{base + "https://collector/otlp/"}, "https://collector/otlp/v1/traces", ""},
		"Traces":       {[]string{traces + " http://collector:4318/spans"}, "http://collector:4318/spans", ""},
		"TracesFirst":  {[]string{base + "http://other:1", traces + "http://collector:2/v1/traces"}, "http://collector:2/v1/traces", ""},
		"Disabled":     {[]string{base + "http://collector:4318", "OTEL_SDK_DISABLED=TRUE"}, "", ""},
		"NotDisabled":  {[]string{traces + "http://collector:4318/x", "OTEL_SDK_DISABLED=false"}, "http://collector:4318/x", ""},
		"NoScheme":     {[]string{base + "secret@collector:4318"}, "", "OTEL_EXPORTER_OTLP_ENDPOINT"},
		"NotAURL":      {[]string{traces + "http://secret@coll ector"}, "", "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT"},
		"GRPC":         {[]string{base + "http://c:4317", "OTEL_EXPORTER_OTLP_PROTOCOL=grpc"}, "", "OTEL_EXPORTER_OTLP_PROTOCOL"},
		"GRPCElsewhere": {
			[]string{base + "http://c", "OTEL_EXPORTER_OTLP_PROTOCOL=grpc", "OTEL_EXPORTER_OTLP_TRACES_PROTOCOL=http/json"},
			"http://c/v1/traces", "",
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			got, err := endpoint(tc.environ)
			if got != tc.want || (err != nil) != (tc.wrong != "") {
				t.Fatalf("endpoint = %q, %v; want %q", got, err, tc.want)
			}
			if err != nil && (!strings.HasPrefix(err.Error(), tc.wrong+" ") || strings.Contains(err.Error(), "secret")) {
				t.Errorf("error %q, want one that names %s and does not repeat it", err, tc.wrong)
			}
		})
	}
}

// A collector that takes requests and never answers holds up neither work nor the end of the program, and what waits for
// it is bounded.
func TestCollectorHangs(t *testing.T) { // not parallel: turns tracing on for the process
	asked := make(chan struct{}, 100)
	collector := httptest.NewServer(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
		_, _ = io.Copy(io.Discard, r.Body) // else the server does not see that the client is gone
		asked <- struct{}{}
		<-r.Context().Done()
	}))
	defer collector.Close()
	stop, err := Start(t.Context(), "worker", []string{"OTEL_EXPORTER_OTLP_ENDPOINT=" + collector.URL}, slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	began := time.Now()
	for range 10_000 { // five times what may wait
		_, end := Span(t.Context(), "step")
		end(nil)
	}
	select {
	case <-asked:
	case <-time.After(10 * time.Second):
		t.Fatal("nothing was sent")
	}
	ctx, cancel := context.WithTimeout(t.Context(), 100*time.Millisecond)
	defer cancel()
	if err := stop(ctx); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("stop = %v, want it to say that time ran out", err)
	}
	if took := time.Since(began); took > 5*time.Second {
		t.Errorf("10,000 spans and stop took %v", took)
	}
	if Headers(t.Context()) != nil || Transport(nil) != nil {
		t.Error("tracing is still on after stop")
	}
}

// Without a collector the log says so, in JSON and once, and nothing else happens.
func TestCollectorIsAway(t *testing.T) { // not parallel: turns tracing on for the process
	gone := httptest.NewServer(http.NotFoundHandler())
	gone.Close()
	var lines bytes.Buffer
	log := slog.New(slog.NewJSONHandler(&lines, nil))
	stop, err := Start(t.Context(), "worker", []string{"OTEL_EXPORTER_OTLP_ENDPOINT=" + gone.URL}, log)
	if err != nil {
		t.Fatal(err)
	}
	for range 2000 { // several batches
		_, end := Span(t.Context(), "step")
		end(nil)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
	defer cancel()
	if err := stop(ctx); err != nil {
		t.Errorf("stop = %v: what could not be sent is the log's business", err)
	}
	if n := strings.Count(lines.String(), "\n"); n != 1 || !strings.Contains(lines.String(), `"msg":"tracing does not work`) {
		t.Errorf("%d lines in the log, want one: %s", n, &lines)
	}
}

func TestComplaintsAreToldOnceAMinute(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		var lines bytes.Buffer
		c := &complaints{log: slog.New(slog.NewTextHandler(&lines, nil))}
		for range 12 {
			c.Handle(errors.New("refused " + strings.Repeat("é", 10_000)))
			time.Sleep(10 * time.Second)
		}
		if n := strings.Count(lines.String(), "\n"); n != 2 {
			t.Errorf("%d lines in two minutes, want 2", n)
		}
		if !strings.Contains(lines.String(), "untold_before=5") {
			t.Errorf("the second line does not say how many were left out: %s", &lines)
		}
		if lines.Len() > 3*longestComplaint {
			t.Errorf("%d bytes: a collector's answer fills the log", lines.Len())
		}
	})
}

// OpenTelemetry repeats in its own log what it cannot read of the environment, a collector's token included.
func TestEnvironmentIsNotRepeated(t *testing.T) { // not parallel: sets the environment
	t.Setenv("OTEL_EXPORTER_OTLP_HEADERS", "authorization "+private)
	var lines bytes.Buffer
	log := slog.New(slog.NewJSONHandler(&lines, nil))
	stop, err := Start(t.Context(), "worker", []string{"OTEL_EXPORTER_OTLP_ENDPOINT=http://127.0.0.1:1"}, log)
	if err != nil {
		t.Fatal(err)
	}
	if err := stop(t.Context()); err != nil {
		t.Error(err)
	}
	if !strings.Contains(lines.String(), "parse headers") || strings.Contains(lines.String(), private) {
		t.Errorf("log = %s, want the complaint without the header", &lines)
	}

	t.Setenv("OTEL_RESOURCE_ATTRIBUTES", private)
	_, err = Start(t.Context(), "worker", []string{"OTEL_EXPORTER_OTLP_ENDPOINT=http://127.0.0.1:1"}, slog.New(slog.DiscardHandler))
	if err == nil || strings.Contains(err.Error(), private) || !strings.Contains(err.Error(), "OTEL_RESOURCE_ATTRIBUTES") {
		t.Errorf("Start = %v, want an error that names the variable and does not repeat it", err)
	}
}

// What a panic says may quote a record, and other code ends its spans while panicking.
func TestPanicsAreNotRecorded(t *testing.T) {
	t.Parallel()
	tracer, ended := record(t)
	func() {
		defer func() { _ = recover() }()
		_, span := discreet{tracer.provider}.Tracer("driver").Start(t.Context(), "query")
		defer span.End()
		panic(private)
	}()
	if span := one(t, ended()); len(span.Events) > 0 {
		t.Errorf("events %v", span.Events)
	}
}

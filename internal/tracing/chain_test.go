package tracing_test

import (
	"bytes"
	"context"
	"database/sql"
	"database/sql/driver"
	"io"
	"log/slog"
	"maps"
	"net/http"
	"net/http/httptest"
	"sync"
	"testing"
	"time"

	collected "go.opentelemetry.io/proto/otlp/collector/trace/v1"
	wire "go.opentelemetry.io/proto/otlp/trace/v1"
	"google.golang.org/protobuf/proto"

	"github.com/centime/contactsync/internal/postgres/pgtest"
	"github.com/centime/contactsync/internal/tracing"
)

// collector keeps what it is sent.
type collector struct {
	*httptest.Server

	mu       sync.Mutex
	bodies   [][]byte
	services []string
	spans    map[string][]*wire.Span // by name
}

func newCollector(t *testing.T) *collector {
	t.Helper()
	c := &collector{spans: map[string][]*wire.Span{}}
	c.Server = httptest.NewServer(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
		text, err := io.ReadAll(r.Body)
		var sent collected.ExportTraceServiceRequest
		if err != nil || r.URL.Path != "/v1/traces" || proto.Unmarshal(text, &sent) != nil {
			t.Errorf("not a request with traces: %s %s, %v", r.Method, r.URL, err)
			return
		}
		c.mu.Lock()
		defer c.mu.Unlock()
		c.bodies = append(c.bodies, text)
		for _, from := range sent.ResourceSpans {
			for _, a := range from.Resource.Attributes {
				if a.Key == "service.name" {
					c.services = append(c.services, a.Value.GetStringValue())
				}
			}
			for _, s := range from.ScopeSpans {
				for _, span := range s.Spans {
					c.spans[span.Name] = append(c.spans[span.Name], span)
				}
			}
		}
	}))
	t.Cleanup(c.Close)
	return c
}

// one is the only span of a name.
func (c *collector) one(t *testing.T, name string) *wire.Span {
	t.Helper()
	if len(c.spans[name]) != 1 {
		t.Fatalf("%d spans are named %s, want 1; all: %v", len(c.spans[name]), name, c.names())
	}
	return c.spans[name][0]
}

func (c *collector) names() map[string]int {
	out := map[string]int{}
	for name, spans := range c.spans {
		out[name] = len(spans)
	}
	return out
}

// values are a span's attributes: texts and integers.
func values(s *wire.Span) map[string]any {
	out := map[string]any{}
	for _, a := range s.Attributes {
		out[a.Key] = a.Value.GetStringValue()
		if n := a.Value.GetIntValue(); n != 0 {
			out[a.Key] = n
		}
	}
	return out
}

// dsn connects to Postgres by the driver that package postgres brings.
type dsn struct {
	driver driver.Driver
	text   string
}

func newDSN(t *testing.T) dsn {
	t.Helper()
	text := pgtest.New(t)
	db, err := sql.Open("postgres", text)
	if err != nil {
		t.Fatal(err)
	}
	defer db.Close()
	return dsn{db.Driver(), text}
}

func (d dsn) Connect(context.Context) (driver.Conn, error) { return d.driver.Open(d.text) }
func (d dsn) Driver() driver.Driver                        { return d.driver }

// From the schedule over the queue to the ERP and the SQL: one link and one tree, in which nothing of a record stands.
func TestFromScheduleToSQL(t *testing.T) { // not parallel: turns tracing on for the process
	const person = "ada@example.com"
	database := newDSN(t)
	erp := httptest.NewServer(http.NotFoundHandler())
	t.Cleanup(erp.Close)
	c := newCollector(t)
	ctx := t.Context()
	stop, err := tracing.Start(ctx, "worker", []string{"OTEL_EXPORTER_OTLP_ENDPOINT=" + c.URL}, slog.Default())
	if err != nil {
		t.Fatal(err)
	}
	db := tracing.DB(database)
	t.Cleanup(func() { db.Close() })
	base := &http.Transport{}
	t.Cleanup(base.CloseIdleConnections)

	schedule, end := tracing.Span(ctx, "queue runs")
	headers := tracing.Headers(schedule)
	end(nil)

	step, end := tracing.Linked(ctx, "step", headers, slog.Int64("run_id", 7))
	tracing.Annotate(step, slog.String("erp", "netsuite"))
	page, endPage := tracing.Span(step, "save page")
	work(t, page, db, person)
	req, err := http.NewRequestWithContext(step, http.MethodGet, erp.URL+"/v3/company/4711/query?q="+person, nil)
	if err != nil {
		t.Fatal(err)
	}
	resp, err := tracing.Transport(base).RoundTrip(req)
	if err != nil {
		t.Fatal(err)
	}
	resp.Body.Close()
	// A statement that fails: Postgres quotes the value in its message.
	_, err = db.ExecContext(page, "SELECT $1::text::integer", person)
	if err == nil || !bytes.Contains([]byte(err.Error()), []byte(person)) {
		t.Fatalf("error %v, want one that quotes the value, for this test to mean something", err)
	}
	endPage(err)
	end(nil)
	// Neither the scheduler's looking nor a heartbeat makes a trace.
	work(t, ctx, db, person)
	work(t, tracing.Aside(step), db, person)

	stopping, cancel := context.WithTimeout(context.WithoutCancel(ctx), 10*time.Second)
	defer cancel()
	if err := stop(stopping); err != nil {
		t.Fatal(err)
	}

	scheduled, stepped, saved := c.one(t, "queue runs"), c.one(t, "step"), c.one(t, "save page")
	if len(stepped.ParentSpanId) > 0 || bytes.Equal(stepped.TraceId, scheduled.TraceId) {
		t.Error("the step goes on in the schedule's trace, want one of its own")
	}
	if len(stepped.Links) != 1 || !bytes.Equal(stepped.Links[0].SpanId, scheduled.SpanId) ||
		!bytes.Equal(stepped.Links[0].TraceId, scheduled.TraceId) {
		t.Errorf("the step's links are %v, want the span that queued it", stepped.Links)
	}
	if v := values(stepped); v["run_id"] != int64(7) || v["erp"] != "netsuite" {
		t.Errorf("the step's attributes are %v", v)
	}
	for _, child := range []struct {
		name   string
		parent *wire.Span
	}{
		{"save page", stepped}, {"GET", stepped}, {"sql.conn.begin_tx", saved}, {"sql.conn.query", saved}, {"sql.tx.commit", saved},
	} {
		span := c.one(t, child.name)
		if !bytes.Equal(span.ParentSpanId, child.parent.SpanId) || !bytes.Equal(span.TraceId, stepped.TraceId) {
			t.Errorf("%s is not a child of %s", child.name, child.parent.Name)
		}
	}
	if got, want := c.names(), map[string]int{
		"queue runs": 1, "step": 1, "save page": 1, "GET": 1,
		"sql.connector.connect": 1, "sql.conn.begin_tx": 1, "sql.conn.exec": 2, "sql.conn.query": 1, "sql.tx.commit": 1,
	}; !maps.Equal(got, want) {
		t.Fatalf("spans %v, want one for each statement and each end of a transaction: %v", got, want)
	}
	execs := c.spans["sql.conn.exec"]
	for _, span := range execs {
		if v := values(span); v["db.system.name"] != "postgresql" {
			t.Errorf("a statement's attributes are %v", v)
		}
	}
	failed := execs[1]
	if v := values(failed); v["error.type"] != "*pq.Error" || v["db.response.status_code"] != "22P02" ||
		failed.Status.GetCode() != wire.Status_STATUS_CODE_ERROR {
		t.Errorf("the failed statement has %v and status %v, want its SQLSTATE", v, failed.Status)
	}
	if saved.Status.GetCode() != wire.Status_STATUS_CODE_ERROR || saved.Status.GetMessage() != "" {
		t.Errorf("the failed page has status %v, want an error without text", saved.Status)
	}
	for _, name := range c.services {
		if name != "worker" {
			t.Errorf("service %q, want worker", name)
		}
	}
	for _, body := range c.bodies {
		for _, secret := range []string{person, "SELECT", "integer", "4711", "secret-of-ours"} {
			if bytes.Contains(body, []byte(secret)) {
				t.Errorf("%q was sent to the collector", secret)
			}
		}
	}
}

// work does a transaction of two statements.
func work(t *testing.T, ctx context.Context, db *sql.DB, person string) {
	t.Helper()
	tx, err := db.BeginTx(ctx, nil)
	if err != nil {
		t.Fatal(err)
	}
	defer tx.Rollback() //nolint:errcheck // nothing after the commit
	if _, err := tx.ExecContext(ctx, "SELECT set_config('app.person', $1, true)", person); err != nil {
		t.Fatal(err)
	}
	var got []byte
	if err := tx.QueryRowContext(ctx, "SELECT convert_to($1, 'UTF8') /* secret-of-ours */", person).Scan(&got); err != nil {
		t.Fatal(err)
	}
	if err := tx.Commit(); err != nil {
		t.Fatal(err)
	}
}

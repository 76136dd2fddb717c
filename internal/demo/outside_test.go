package demo

import (
	"encoding/json"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	collector "go.opentelemetry.io/proto/otlp/collector/trace/v1"
	trace "go.opentelemetry.io/proto/otlp/trace/v1"
	"google.golang.org/protobuf/proto"
)

// address is one that nobody listens on.
func address(t *testing.T) string {
	t.Helper()
	l, err := new(net.ListenConfig).Listen(t.Context(), "tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	return l.Addr().String()
}

// ask gets a page of a program, with its status; 0 while nobody listens.
func ask(t *testing.T, url string) (int, string) {
	t.Helper()
	req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, url, nil)
	if err != nil {
		t.Fatal(err)
	}
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		return 0, ""
	}
	defer resp.Body.Close()
	text, err := io.ReadAll(resp.Body)
	if err != nil {
		t.Fatal(err)
	}
	return resp.StatusCode, string(text)
}

func eventually(t *testing.T, what string, is func() bool) {
	t.Helper()
	deadline := time.After(patience)
	tick := time.NewTicker(50 * time.Millisecond)
	defer tick.Stop()
	for !is() {
		select {
		case <-deadline:
			t.Fatalf("%s did not happen", what)
		case <-tick.C:
		}
	}
}

// spans are those that the programs sent.
type spans struct {
	mu  sync.Mutex
	all []*trace.Span
}

func (s *spans) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	body, err := io.ReadAll(r.Body)
	var sent collector.ExportTraceServiceRequest
	if err != nil || proto.Unmarshal(body, &sent) != nil {
		w.WriteHeader(http.StatusBadRequest)
		return
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, resource := range sent.GetResourceSpans() {
		for _, scope := range resource.GetScopeSpans() {
			s.all = append(s.all, scope.GetSpans()...)
		}
	}
}

// named are the spans of a name.
func (s *spans) named(name string) (found []*trace.Span) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, span := range s.all {
		if span.GetName() == name {
			found = append(found, span)
		}
	}
	return found
}

// TestSeenFromOutside: what happens shows in metrics, health, logs and traces, with ids, and without anything about a person.
// It guards rule 12.
func TestSeenFromOutside(t *testing.T) {
	s := newSystem(t, 2500)
	var sent spans
	otlp := httptest.NewServer(&sent)
	t.Cleanup(otlp.Close)
	s.with("OTEL_EXPORTER_OTLP_ENDPOINT="+otlp.URL, "OTEL_BSP_SCHEDULE_DELAY=100", "LOG_LEVEL=debug")
	before := s.env
	of := map[string]string{}
	var said lines
	for _, name := range []string{"scheduler", "worker"} {
		of[name] = address(t)
		s.env = append(before[:len(before):len(before)], "METRICS_ADDR="+of[name])
		cmd := s.launch(name, said.follow)
		defer s.end(cmd)
	}
	s.env = before
	s.ctl(nil, 0, "run", "watch", "1")
	s.ctl(nil, 0, "resync", "1", "--wait")

	for name, address := range of {
		eventually(t, name+" is ready", func() bool { status, _ := ask(t, "http://"+address+"/readyz"); return status == http.StatusOK })
		if status, _ := ask(t, "http://"+address+"/healthz"); status != http.StatusOK {
			t.Errorf("%s: /healthz answers %d", name, status)
		}
	}
	metrics := func(of, line string) {
		t.Helper()
		var last string
		defer func() {
			if t.Failed() {
				t.Log(last)
			}
		}()
		eventually(t, line, func() bool {
			_, last = ask(t, "http://"+of+"/metrics")
			return strings.Contains(last, "\n"+line)
		})
	}
	metrics(of["worker"], `contactsync_runs_total{erp="quickbooks-online",kind="",mode="full",outcome="succeeded",trigger="first_load"} 1`)
	metrics(of["worker"], `contactsync_records_total{erp="quickbooks-online",outcome="created"} 2500`)
	metrics(of["worker"], `contactsync_run_start_delay_seconds_count{trigger="manual"} 1`)
	metrics(of["scheduler"], `contactsync_connections{erp="quickbooks-online",state="active"} 1`)
	metrics(of["scheduler"], `contactsync_deliveries_total `)
	metrics(of["scheduler"], `contactsync_fleet_up 1`)

	// One delivery, from the scheduler's hand through the queue to the ERP and the SQL.
	eventually(t, "a span of the finish", func() bool { return len(sent.named("finish")) > 0 })
	work := sent.named("work delivery")[0]
	if len(work.GetLinks()) != 1 || !slices.ContainsFunc(sent.named("hand out"), func(h *trace.Span) bool { return string(h.GetTraceId()) == string(work.GetLinks()[0].GetTraceId()) }) {
		t.Error("a delivery that is worked leads to none that was handed out")
	}
	for name, parent := range map[string]string{"save page": "work delivery", "sql.conn.query": "save page", "GET": "work delivery"} {
		if !slices.ContainsFunc(sent.named(name), func(child *trace.Span) bool {
			return slices.ContainsFunc(sent.named(parent), func(p *trace.Span) bool { return string(p.GetSpanId()) == string(child.GetParentSpanId()) })
		}) {
			t.Errorf("no span %q stands below one of %q", name, parent)
		}
	}

	if said.count(`"run_id":1,"connection_id":1,"tenant_id":1`) == 0 {
		t.Error("no line of the log carries the ids")
	}
	sent.mu.Lock()
	traces, err := json.Marshal(sent.all)
	sent.mu.Unlock()
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range s.company.Customers() {
		for _, private := range []string{c.Email, c.DisplayName, c.Phone} {
			if len(private) < 5 {
				continue
			}
			if said.count(private) > 0 || strings.Contains(string(traces), private) {
				t.Fatalf("the log or a trace names %q", private)
			}
		}
	}
	s.equal()
}

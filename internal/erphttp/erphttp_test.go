package erphttp_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"
	"unicode/utf8"

	"github.com/centime/contactsync/internal/connector"
	"github.com/centime/contactsync/internal/erphttp"
)

func client(t *testing.T, timeout time.Duration, handler http.HandlerFunc) (*erphttp.Client, string, *int) {
	t.Helper()
	server := httptest.NewServer(handler)
	t.Cleanup(server.Close)
	calls, over := 0, 0
	t.Cleanup(func() {
		if over != calls {
			t.Errorf("of %d requests %d were said to be over", calls, over)
		}
	})
	account := connector.Account{Called: func(context.Context) (func(), error) { calls++; return func() { over++ }, nil }}
	c := erphttp.New(account, timeout,
		erphttp.Read{Method: "GET", Path: func(p string) bool { return p == "/read" }},
		erphttp.Read{Method: "POST", Path: func(p string) bool { return p == "/query" },
			Body: func(b []byte) bool { return strings.HasPrefix(string(b), "select ") }})
	return c, server.URL, &calls
}

// TestOnlyReadsAreSent guards rule 1: nothing else reaches the ERP.
func TestOnlyReadsAreSent(t *testing.T) {
	t.Parallel()
	got := 0
	c, url, calls := client(t, time.Minute, func(http.ResponseWriter, *http.Request) { got++ })
	for _, r := range []struct {
		method, path, body string
		sent               bool
	}{
		{"GET", "/read", "", true}, {"POST", "/query", "select * from Customer", true},
		{"POST", "/read", "", false}, {"GET", "/read", "x", false}, {"DELETE", "/read", "", false},
		{"PUT", "/query", "select ", false}, {"GET", "/query", "select ", false}, {"HEAD", "/read", "", false},
		{"POST", "/query", "update Customer", false}, {"POST", "/query", "", false}, {"GET", "/readers", "", false},
	} {
		before := got
		_, err := c.Do(t.Context(), "step", r.method, url+r.path, "", []byte(r.body), "token")
		if sent := got > before; sent != r.sent || (err == nil) != r.sent {
			t.Errorf("%s %s %q: sent %v, error %v", r.method, r.path, r.body, sent, err)
		}
	}
	if *calls != got {
		t.Errorf("%d calls told, %d made", *calls, got)
	}
}

// TestHeaders: a read is sent with its own headers, and without a token there is no Authorization at all, which some token
// endpoints refuse.
func TestHeaders(t *testing.T) {
	t.Parallel()
	var got http.Header
	server := httptest.NewServer(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) { got = r.Header }))
	t.Cleanup(server.Close)
	c := erphttp.New(connector.Account{}, time.Minute, erphttp.Read{
		Method: "GET", Path: func(string) bool { return true }, Header: map[string]string{"Prefer": "transient"},
	})
	for token, want := range map[string]string{"": "", "s3cret": "Bearer s3cret"} {
		if _, err := c.Do(t.Context(), "step", "GET", server.URL, "", nil, token); err != nil {
			t.Fatal(err)
		}
		_, sent := got["Authorization"]
		if got.Get("Authorization") != want || sent != (want != "") || got.Get("Prefer") != "transient" {
			t.Errorf("token %q: %v", token, got)
		}
	}
}

// TestUnknownHost: a host that no name server knows can be told from one that does not answer.
func TestUnknownHost(t *testing.T) {
	t.Parallel()
	for cause, want := range map[error]bool{
		&net.DNSError{Err: "no such host", IsNotFound: true}: true, &net.DNSError{Err: "timeout", IsTimeout: true}: false,
		errors.New("refused"): false,
	} {
		transport := failing{&net.OpError{Op: "dial", Err: cause}}
		c := erphttp.New(connector.Account{Transport: transport}, time.Minute,
			erphttp.Read{Method: "GET", Path: func(string) bool { return true }})
		_, err := c.Do(t.Context(), "step", "GET", "https://nowhere.example", "", nil, "")
		if errors.Is(err, erphttp.ErrNoHost) != want || connector.KindOf(err) != connector.Transient {
			t.Errorf("%v: %v", cause, err)
		}
	}
}

type failing struct{ err error }

func (f failing) RoundTrip(*http.Request) (*http.Response, error) { return nil, f.err }

// TestRefusedByBudget: what Called says stops the request, so that a spent budget is never overdrawn.
func TestRefusedByBudget(t *testing.T) {
	t.Parallel()
	got := 0
	server := httptest.NewServer(http.HandlerFunc(func(http.ResponseWriter, *http.Request) { got++ }))
	t.Cleanup(server.Close)
	spent := errors.New("the budget is spent")
	c := erphttp.New(connector.Account{Called: func(context.Context) (func(), error) { return nil, spent }}, time.Second,
		erphttp.Read{Method: "GET", Path: func(string) bool { return true }})
	if _, err := c.Do(t.Context(), "query", "GET", server.URL, "", nil, "t"); !errors.Is(err, spent) || got != 0 {
		t.Errorf("%v, %d sent", err, got)
	}
}

// TestCancelledIsNobodysFault: a shutdown is no failure of the ERP.
func TestCancelledIsNobodysFault(t *testing.T) {
	t.Parallel()
	arrived := make(chan struct{})
	c, url, _ := client(t, time.Minute, func(_ http.ResponseWriter, r *http.Request) {
		close(arrived)
		<-r.Context().Done()
	})
	ctx, cancel := context.WithCancel(t.Context())
	go func() {
		<-arrived
		cancel()
	}()
	_, err := c.Do(ctx, "query", "GET", url+"/read", "", nil, "t")
	if !errors.Is(err, context.Canceled) || connector.KindOf(err) != "" {
		t.Errorf("%v", err)
	}
}

func TestRetryAfter(t *testing.T) {
	t.Parallel()
	for text, want := range map[string]time.Duration{
		"": 0, "7": 7 * time.Second, "-1": 0, "soon": 0, "99999999999": 24 * time.Hour, "9223372036854775807": 24 * time.Hour,
		"Mon, 01 Jan 2001 00:00:00 GMT": 0, "Fri, 31 Dec 9999 23:59:59 GMT": 24 * time.Hour,
	} {
		reply := erphttp.Reply{Header: http.Header{"Retry-After": {text}}}
		if got := reply.RetryAfter(); got != want {
			t.Errorf("%q: %s, want %s", text, got, want)
		}
	}
}

func TestFailuresAreTransientAndSayNothingPrivate(t *testing.T) {
	t.Parallel()
	for name, handler := range map[string]http.HandlerFunc{
		"cut": func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Content-Length", "100")
			_, _ = fmt.Fprint(w, "half")
		},
		"slow": func(_ http.ResponseWriter, r *http.Request) { <-r.Context().Done() },
		"reset": func(w http.ResponseWriter, _ *http.Request) {
			conn, _, err := w.(http.Hijacker).Hijack()
			if err == nil {
				_ = conn.Close()
			}
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			timeout := time.Minute
			if name == "slow" {
				timeout = 50 * time.Millisecond
			}
			c, url, _ := client(t, timeout, handler)
			_, err := c.Do(t.Context(), "query", "GET", url+"/read?email=secret@kelp.example", "", nil, "s3cret")
			text := fmt.Sprint(err)
			told := strings.Contains(text, "s3cret") || strings.Contains(text, "kelp")
			if connector.KindOf(err) != connector.Transient || told {
				t.Errorf("%v", err)
			}
			if _, ok := errors.AsType[*connector.Error](err); !ok {
				t.Errorf("%T", err)
			}
		})
	}
}

func TestRedirectsAreNotFollowed(t *testing.T) {
	t.Parallel()
	c, url, _ := client(t, time.Minute, func(w http.ResponseWriter, r *http.Request) {
		http.Redirect(w, r, "https://elsewhere.example/", http.StatusFound)
	})
	reply, err := c.Do(t.Context(), "query", "GET", url+"/read", "", nil, "t")
	if err != nil || reply.Status != http.StatusFound {
		t.Errorf("%v %v", reply.Status, err)
	}
}

func TestText(t *testing.T) {
	t.Parallel()
	text := func(s string) erphttp.Text { return erphttp.Text{Value: s, Set: true} }
	for in, want := range map[string]erphttp.Text{
		`"plain"`: text("plain"), `""`: text(""), `null`: {}, `7`: {Odd: true}, `{"a":1}`: {Odd: true}, `[]`: {Odd: true},
		`"a\u0000b"`: text("a\x00b"), `"\ud83d\ude00"`: text("😀"), `"x\ud800y"`: text("x\xed\xa0\x80y"),
		`"\udc00"`: text("\xed\xb0\x80"), `"\ud800\ud800"`: text("\xed\xa0\x80\xed\xa0\x80"),
		`"\n\"\\\/\t"`: text("\n\"\\/\t"), "\"\xff\"": text("\xff"),
	} {
		var got erphttp.Text
		if err := json.Unmarshal([]byte(in), &got); err != nil || got != want {
			t.Errorf("%s: %+q %v, want %+q", in, got.Value, err, want.Value)
		}
	}
}

func TestFlag(t *testing.T) {
	t.Parallel()
	for in, want := range map[string]erphttp.Flag{
		`true`: {Value: true, Set: true}, `false`: {Set: true}, `null`: {}, `"true"`: {Odd: true}, `1`: {Odd: true},
	} {
		var got erphttp.Flag
		if err := json.Unmarshal([]byte(in), &got); err != nil || got != want {
			t.Errorf("%s: %+v %v, want %+v", in, got, err, want)
		}
	}
}

// FuzzText: whatever is a JSON string without lone surrogates reads as encoding/json reads it.
func FuzzText(f *testing.F) {
	for _, s := range []string{`"a"`, `"\ud83d\ude00"`, `"\ud800"`, `"\u0000"`, `1`, `"\ud800\u0041"`, `"\\u0041"`} {
		f.Add([]byte(s))
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		var got erphttp.Text
		var want string
		if json.Unmarshal(b, &got) != nil || json.Unmarshal(b, &want) != nil || got.Odd {
			return
		}
		if utf8.ValidString(got.Value) && got.Value != want {
			t.Errorf("%q: %q, encoding/json %q", b, got.Value, want)
		}
	})
}

package erphttp_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"
	"unicode/utf8"

	"github.com/centime/contactsync/internal/connector"
	"github.com/centime/contactsync/internal/erphttp"
)

func client(t *testing.T, handler http.HandlerFunc) (*erphttp.Client, string, *int) {
	t.Helper()
	server := httptest.NewServer(handler)
	t.Cleanup(server.Close)
	calls := 0
	account := connector.Account{Called: func(context.Context) error { calls++; return nil }}
	c := erphttp.New(account, 200*time.Millisecond,
		erphttp.Read{Method: "GET", Path: func(p string) bool { return p == "/read" }},
		erphttp.Read{Method: "POST", Path: func(p string) bool { return p == "/query" },
			Body: func(b []byte) bool { return strings.HasPrefix(string(b), "select ") }})
	return c, server.URL, &calls
}

// TestOnlyReadsAreSent guards rule 1: nothing else reaches the ERP.
func TestOnlyReadsAreSent(t *testing.T) {
	t.Parallel()
	got := 0
	c, url, calls := client(t, func(http.ResponseWriter, *http.Request) { got++ })
	for _, r := range []struct {
		method, path, body string
		sent               bool
	}{
		{"GET", "/read", "", true}, {"POST", "/query", "select * from Customer", true},
		{"POST", "/read", "", false}, {"GET", "/read", "x", false}, {"DELETE", "/read", "", false}, {"PUT", "/query", "select ", false},
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

func TestFailuresAreTransientAndSayNothingPrivate(t *testing.T) {
	t.Parallel()
	for name, handler := range map[string]http.HandlerFunc{
		"cut": func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Content-Length", "100")
			fmt.Fprint(w, "half")
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
			c, url, _ := client(t, handler)
			_, err := c.Do(t.Context(), "query", "GET", url+"/read?email=secret@kelp.example", "", nil, "s3cret")
			if connector.KindOf(err) != connector.Transient || strings.Contains(err.Error(), "s3cret") || strings.Contains(err.Error(), "kelp") {
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
	c, url, _ := client(t, func(w http.ResponseWriter, r *http.Request) {
		http.Redirect(w, r, "https://elsewhere.example/", http.StatusFound)
	})
	reply, err := c.Do(t.Context(), "query", "GET", url+"/read", "", nil, "t")
	if err != nil || reply.Status != http.StatusFound {
		t.Errorf("%v %v", reply.Status, err)
	}
}

func TestText(t *testing.T) {
	t.Parallel()
	for in, want := range map[string]erphttp.Text{
		`"plain"`: {Value: "plain"}, `null`: {}, `7`: {Odd: true}, `{"a":1}`: {Odd: true}, `""`: {},
		`"a\u0000b"`: {Value: "a\x00b"}, `"\ud83d\ude00"`: {Value: "😀"}, `"x\ud800y"`: {Value: "x\xed\xa0\x80y"},
		`"\udc00"`: {Value: "\xed\xb0\x80"}, `"\ud800\ud800"`: {Value: "\xed\xa0\x80\xed\xa0\x80"}, `"\n\"\\\/\t"`: {Value: "\n\"\\/\t"},
		"\"\xff\"": {Value: "\xff"},
	} {
		var got erphttp.Text
		if err := json.Unmarshal([]byte(in), &got); err != nil || got != want {
			t.Errorf("%s: %+q %v, want %+q", in, got.Value, err, want.Value)
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

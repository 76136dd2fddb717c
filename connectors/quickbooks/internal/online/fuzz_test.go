package online

import (
	"fmt"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/centime/contactsync/internal/connector"
	"github.com/centime/contactsync/internal/erphttp"
)

// FuzzAnswer: no body makes the connector fail otherwise than with an error, and each row is accounted for.
func FuzzAnswer(f *testing.F) {
	files, err := filepath.Glob("testdata/*.*")
	if err != nil || len(files) == 0 {
		f.Fatalf("no seeds: %v", err)
	}
	for _, name := range files {
		body, err := os.ReadFile(name)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(body, 200)
		f.Add(body, 503)
	}
	for _, body := range []string{``, `[]`, `null`, `{"QueryResponse":null}`, `{"QueryResponse":{"Customer":{}}}`} {
		f.Add([]byte(body), 200)
	}
	f.Fuzz(func(t *testing.T, body []byte, status int) {
		if err := judge("step", erphttp.Reply{Status: status, Header: http.Header{}, Body: body}); err != nil {
			if connector.KindOf(err) == "" {
				t.Error("an error without a kind")
			}
			return
		}
		a, err := parseAnswer(body)
		if err != nil {
			return
		}
		var page connector.Page
		fill(&page, a.rows)
		named, bad, nameless := map[string]bool{}, map[string]bool{}, 0
		for _, c := range page.Customers {
			if c.ID == "" || named[c.ID] {
				t.Errorf("id %q is empty or twice on a page", c.ID)
			}
			named[c.ID] = true
		}
		for _, b := range page.Bad {
			bad[b.Key.ID] = true
			if b.Key.ID == "" {
				nameless++
			}
		}
		for i := range a.rows {
			switch id := a.rows[i].ID.Value; {
			case id == "":
				nameless--
			case !named[id] && !bad[id]:
				t.Errorf("row %q is not on the page", id)
			}
		}
		if nameless != 0 {
			t.Errorf("%d more rows are reported without an id than came", nameless)
		}
		if len(page.Customers) != len(page.Links) || len(page.Customers) != len(page.Contacts) {
			t.Error("a customer without its contact or link")
		}
	})
}

// FuzzCursor: a cursor that is taken continues where it says, and comes out of itself again.
func FuzzCursor(f *testing.F) {
	now := time.Date(2026, 3, 2, 18, 4, 11, 0, time.UTC)
	for _, c := range []cursor{
		{Version: 1, From: &now}, {Version: 1, Began: &now, Read: true}, {Version: 1, Size: 500}, {Version: 1, Read: true},
		{Version: 1, Began: &now, Bound: &now, Seen: []string{"1"}, Start: 1000, Last: "1", Restarts: 3},
	} {
		f.Add(string(c.text()))
	}
	f.Add("{}")
	f.Add("null")
	f.Fuzz(func(t *testing.T, text string) {
		for _, p := range []connector.Pull{{Resume: connector.Cursor(text)}, {Since: connector.Cursor(text)}} {
			c, err := begin(p)
			if err != nil {
				if connector.KindOf(err) != connector.Expired {
					t.Errorf("%v", err)
				}
				continue
			}
			if s := c.statement(pageSize); !strings.HasPrefix(s, "select * from Customer where Active IN (true, false)") {
				t.Errorf("%s", s)
			}
			if text == "" {
				continue
			}
			if again, err := parseCursor(c.text()); err != nil || again.text() != c.text() {
				t.Errorf("%s does not come out of itself: %v", c.text(), err)
			}
		}
	})
}

// FuzzTokenReply: no answer of the token endpoint yields credentials without both tokens, or an error that repeats the
// refresh token.
func FuzzTokenReply(f *testing.F) {
	const sent = "RT1-sent-before"
	for _, body := range []string{
		`{"token_type":"bearer","expires_in":3600,"access_token":"a","refresh_token":"r",` +
			`"x_refresh_token_expires_in":8726400,"x_refresh_token_hard_expires_in":156032154}`,
		`{"token_type":"bearer","access_token":"a"}`, `{"refresh_token":"r"}`, `{"access_token":"","refresh_token":"r"}`,
		`{"access_token":"a","expires_in":"soon","x_refresh_token_expires_in":-1}`, `{"access_token":7}`, `[]`, `<html>`, ``,
		`{"error":"invalid_grant"}`, `{"error_description":"Token invalid","error":"invalid_grant"}`,
		`{"error":"invalid_client"}`, `{"error":"` + sent + `"}`,
	} {
		for _, status := range []int{200, 400, 401, 429, 503} {
			f.Add(status, body)
		}
	}
	var mu sync.Mutex
	var status int
	var body string
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", "application/json;charset=UTF-8")
		w.WriteHeader(status)
		_, _ = fmt.Fprint(w, body)
	}))
	f.Cleanup(server.Close)
	f.Fuzz(func(t *testing.T, s int, b string) {
		if s < 200 || s > 599 || s == http.StatusNoContent || s == http.StatusNotModified {
			return
		}
		mu.Lock()
		defer mu.Unlock()
		status, body = s, b
		c, err := Renew(t.Context(), connector.Account{TokenURL: server.URL}, "client", "s3cret", connector.Credentials{RefreshToken: sent})
		switch {
		case err == nil && (c.AccessToken == "" || c.RefreshToken == ""):
			t.Errorf("a token is missing: %t %t", c.AccessToken == "", c.RefreshToken == "")
		case err != nil && (strings.Contains(err.Error(), sent) || strings.Contains(err.Error(), "s3cret")):
			t.Errorf("the error repeats a secret: %v", err)
		case err != nil && (s == 429) != (connector.KindOf(err) == connector.Throttled):
			t.Errorf("%d: %s", s, connector.KindOf(err))
		case err != nil && s >= 500 && connector.KindOf(err) != connector.Transient:
			t.Errorf("%d: %s", s, connector.KindOf(err))
		}
	})
}

// BenchmarkAnswer decodes a page of 1000 customers, 1.25 MB as the service sends it.
func BenchmarkAnswer(b *testing.B) {
	page, err := os.ReadFile("testdata/customers.json")
	if err != nil {
		b.Fatal(err)
	}
	before, rest, _ := strings.Cut(string(page), "[\n")
	row, after, ok := strings.Cut(rest, "\n]")
	if !ok {
		b.Fatal("customers.json is not as this expects: one row a line")
	}
	row, _, _ = strings.Cut(row, ",\n")
	body := []byte(before + "[" + strings.TrimSuffix(strings.Repeat(row+",", 1000), ",") + "]" + after)
	b.SetBytes(int64(len(body)))
	b.ReportAllocs()
	for b.Loop() {
		if err := judge("step", erphttp.Reply{Status: 200, Header: http.Header{}, Body: body}); err != nil {
			b.Fatal(err)
		}
		a, err := parseAnswer(body)
		if err != nil || len(a.rows) != 1000 {
			b.Fatal(len(a.rows), err)
		}
	}
}

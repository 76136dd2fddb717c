package online

import (
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/centime/contactsync/internal/connector"
	"github.com/centime/contactsync/internal/erphttp"
)

var bodies = []string{
	`{"QueryResponse":{"Customer":[{"Id":"1","DisplayName":"A","MetaData":{"CreateTime":"2026-03-02T10:04:11-08:00"}}],"startPosition":1,"maxResults":1},"time":"2026-03-02T10:05:00.412-08:00"}`,
	`{"QueryResponse":{},"time":"2026-03-02T10:05:00.412-08:00"}`, `{"QueryResponse":{"totalCount":1374}}`,
	`{"QueryResponse":{"Customer":[7,{"Id":"2","Active":"x","PrimaryEmailAddr":{"Address":"a\ud800b"}}]}}`,
	`{"Fault":{"Error":[{"Message":"Invalid query","Detail":"x","code":"4001","element":""}],"type":"ValidationFault"}}`,
	`{"fault":{"error":[{"message":"message=AuthenticationFailed","code":"3200","element":null}],"type":"AUTHENTICATION"},"time":1772474820001}`,
	`<?xml version="1.0"?><IntuitResponse xmlns="http://schema.intuit.com/finance/v3"><Fault type="AuthenticationFault"><Error code="003001"><Message>Throttle</Message></Error></Fault></IntuitResponse>`,
	`<html>`, ``, `[]`, `null`,
}

// FuzzAnswer: no body makes the connector fail otherwise than with an error, and each row is accounted for.
func FuzzAnswer(f *testing.F) {
	for _, b := range bodies {
		f.Add([]byte(b), 200)
		f.Add([]byte(b), 503)
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
		a.fill(&page)
		ids := map[string]bool{}
		for _, c := range page.Customers {
			if c.ID == "" || ids[c.ID] {
				t.Errorf("id %q is empty or twice on a page", c.ID)
			}
			ids[c.ID] = true
		}
		for _, r := range a.rows {
			if r.ID.Value != "" && !ids[r.ID.Value] {
				t.Errorf("row %q is not on the page", r.ID.Value)
			}
		}
		if len(page.Customers) != len(page.Links) || len(page.Customers) != len(page.Contacts) {
			t.Error("a customer without its contact or link")
		}
	})
}

// FuzzCursor: a cursor that is taken continues where it says.
func FuzzCursor(f *testing.F) {
	now := time.Now().UTC()
	f.Add(string(cursor{Version: 1, From: &now}.text()))
	f.Add(string(cursor{Version: 1, Began: &now, Bound: &now, Seen: []string{"1"}, Start: 1000, Last: "1"}.text()))
	f.Add("{}")
	f.Fuzz(func(t *testing.T, text string) {
		c, err := begin(connector.Pull{Resume: connector.Cursor(text)})
		if err != nil {
			if connector.KindOf(err) != connector.Expired {
				t.Errorf("%v", err)
			}
			return
		}
		if s := c.statement(); !strings.HasPrefix(s, "select * from Customer where Active IN (true, false)") {
			t.Errorf("%s", s)
		}
	})
}

func BenchmarkAnswer(b *testing.B) {
	row := `{"Id":"%","SyncToken":"0","DisplayName":"Northern Kelp Supply","PrimaryEmailAddr":{"Address":"a@kelp.example"},"PrimaryPhone":{"FreeFormNumber":"555"},"Active":true,"BillAddr":{"Id":"1","Line1":"48 Quarry Lane","City":"Duluth"},"MetaData":{"CreateTime":"2026-03-02T10:04:11-08:00","LastUpdatedTime":"2026-03-02T10:04:11-08:00"}}`
	body := []byte(`{"QueryResponse":{"Customer":[` + strings.TrimSuffix(strings.Repeat(row+",", 1000), ",") + `]},"time":"2026-03-02T10:05:00.412-08:00"}`)
	b.SetBytes(int64(len(body)))
	for b.Loop() {
		if err := judge("step", erphttp.Reply{Status: 200, Header: http.Header{}, Body: body}); err != nil {
			b.Fatal(err)
		}
		if _, err := parseAnswer(body); err != nil {
			b.Fatal(err)
		}
	}
}

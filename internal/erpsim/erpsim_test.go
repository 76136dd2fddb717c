package erpsim_test

import (
	"net/mail"
	"strings"
	"sync"
	"testing"

	"github.com/centime/contactsync/internal/erpsim"
)

func TestScriptMeetsRequestsInTheOrderItWasWritten(t *testing.T) {
	t.Parallel()
	var s erpsim.Script[string]
	s.Add(erpsim.Rule{Company: "a", Op: "read", Skip: 1, Times: 2}, "second and third read")
	s.Add(erpsim.Rule{Match: "NAME", Times: erpsim.Forever}, "name")
	s.Add(erpsim.Rule{}, "once")
	for i, c := range []struct {
		request erpsim.Request
		want    string
	}{
		{erpsim.Request{Company: "a", Op: "read"}, "once"},
		{erpsim.Request{Company: "a", Op: "read"}, "second and third read"},
		{erpsim.Request{Company: "b", Op: "query", Statement: "by name"}, "name"},
		{erpsim.Request{Company: "a", Op: "read"}, "second and third read"},
		{erpsim.Request{Company: "a", Op: "read"}, ""},
		{erpsim.Request{Company: "b", Op: "query", Path: "/names"}, "name"},
	} {
		if fault, met := s.Next(c.request, true); fault != c.want || met != (c.want != "") {
			t.Errorf("request %d met %q, want %q", i+1, fault, c.want)
		}
	}
	if _, met := s.Next(erpsim.Request{Op: "token", Path: "/names"}, false); met {
		t.Error("a rule without an op met a request that reads no data")
	}
	s.Clear("")
	if _, met := s.Next(erpsim.Request{Path: "/names"}, true); met {
		t.Error("met after Clear")
	}
}

func TestScriptClearsOneCompany(t *testing.T) {
	t.Parallel()
	var s erpsim.Script[int]
	s.Add(erpsim.Rule{Company: "a"}, 1)
	s.Add(erpsim.Rule{Company: "b"}, 2)
	s.Clear("a")
	if _, met := s.Next(erpsim.Request{Company: "a"}, true); met {
		t.Error("a is still there")
	}
	if fault, met := s.Next(erpsim.Request{Company: "b"}, true); !met || fault != 2 {
		t.Error("b is gone")
	}
}

func TestLogNumbersRequestsByCompanyAndOp(t *testing.T) {
	t.Parallel()
	var l erpsim.Log
	l.Begin(erpsim.Request{Company: "a", Op: "read"})
	l.Begin(erpsim.Request{Company: "b", Op: "read"})
	e := l.Begin(erpsim.Request{Company: "a", Op: "read"})
	e.Note(func(r *erpsim.Request) { r.Status = 200 })
	if r := e.Request(); r.ID != 3 || r.N != 2 || r.Status != 200 {
		t.Errorf("%+v", r)
	}
	if l.Count("a", "read") != 2 || l.Count("", "read") != 3 || l.Count("", "") != 3 || l.Count("c", "") != 0 {
		t.Error("counts differ")
	}
	if got := l.Requests(func(r erpsim.Request) bool { return r.Status == 200 }); len(got) != 1 || got[0].ID != 3 {
		t.Errorf("%+v", got)
	}
	l.Reset()
	if r := l.Begin(erpsim.Request{Company: "a", Op: "read"}).Request(); r.ID != 4 || r.N != 1 {
		t.Errorf("after a reset: %+v", r)
	}
}

// A simulator that runs for days keeps the last requests and all counts.
func TestLogIsBounded(t *testing.T) {
	t.Parallel()
	var l erpsim.Log
	var all sync.WaitGroup
	for range 4 {
		all.Go(func() {
			for range 30_000 {
				l.Begin(erpsim.Request{Op: "read"})
			}
		})
	}
	all.Wait()
	kept := l.Requests(nil)
	if len(kept) > 100_000 || len(kept) < 90_000 || kept[len(kept)-1].ID != 120_000 || l.Count("", "") != 120_000 {
		t.Errorf("%d kept, last %d, counted %d", len(kept), kept[len(kept)-1].ID, l.Count("", ""))
	}
}

// Made-up addresses and numbers must reach nobody.
func TestPeopleAreMadeUpAndRepeatable(t *testing.T) {
	t.Parallel()
	p, q := erpsim.NewPeople(7), erpsim.NewPeople(7)
	for n := range 2000 {
		address := p.Mailbox(n)
		if _, err := mail.ParseAddress(address); err != nil || !strings.HasSuffix(address, ".example") {
			t.Fatalf("%q: %v", address, err)
		}
		phone := p.Phone()
		if !strings.Contains(phone, "555") {
			t.Fatal(phone)
		}
		person, company, place := p.Person(), p.Company(), p.Place()
		if person.Given == "" || person.Family == "" || company == "" || place.City == "" {
			t.Fatalf("%+v %q %+v", person, company, place)
		}
		if strings.ContainsAny(company, ":\t\n") {
			t.Fatalf("a name QuickBooks does not allow: %q", company)
		}
		if address != q.Mailbox(n) || phone != q.Phone() || person != q.Person() ||
			company != q.Company() || place != q.Place() {
			t.Fatal("the same seed made other people")
		}
	}
	if name := p.LongName(500); len(name) != 500 {
		t.Errorf("%d letters", len(name))
	}
}

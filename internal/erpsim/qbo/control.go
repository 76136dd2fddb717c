package qbo

import (
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"time"

	"github.com/centime/contactsync/internal/erpsim"
)

// Control is the simulator's own door, for development and tests: JSON over HTTP, without a login, so it belongs on
// loopback only. README.md beside this file lists its requests. A refusal is {"error": "..."} with status 400 or 404.
func (s *Sim) Control() http.Handler {
	mux := http.NewServeMux()
	handle := func(pattern string, h func(*http.Request) (any, error)) {
		mux.HandleFunc(pattern, func(w http.ResponseWriter, r *http.Request) {
			r.Body = http.MaxBytesReader(w, r.Body, 1<<20)
			answer, err := h(r)
			writeControl(w, answer, err)
		})
	}
	of := func(h func(*Company, *http.Request) (any, error)) func(*http.Request) (any, error) {
		return func(r *http.Request) (any, error) {
			c := s.Company(r.PathValue("realm"))
			if c == nil {
				return nil, errNoCompany
			}
			return h(c, r)
		}
	}

	handle("GET /companies", func(*http.Request) (any, error) { return s.list(), nil })
	handle("POST /companies", s.controlAdd)
	handle("POST /companies/{realm}/credentials", of(func(c *Company, _ *http.Request) (any, error) {
		return c.Connect(), nil
	}))
	handle("POST /companies/{realm}/revoke", of(func(c *Company, _ *http.Request) (any, error) {
		c.Revoke()
		return done, nil
	}))
	handle("POST /companies/{realm}/expire", of(func(c *Company, _ *http.Request) (any, error) {
		c.ExpireAccess()
		return done, nil
	}))
	handle("GET /companies/{realm}/customers", of(func(c *Company, _ *http.Request) (any, error) {
		return c.Customers(), nil
	}))
	handle("GET /companies/{realm}/customers/{id}", of(func(c *Company, r *http.Request) (any, error) {
		return c.Customer(r.PathValue("id"))
	}))
	handle("POST /companies/{realm}/customers", of(controlJoin))
	handle("PATCH /companies/{realm}/customers/{id}", of(controlEdit))
	handle("POST /companies/{realm}/customers/{id}/{change}", of(controlChange))
	handle("POST /companies/{realm}/merge", of(controlMerge))
	handle("POST /companies/{realm}/import", of(controlImport))
	handle("POST /companies/{realm}/bulk", of(controlBulk))
	handle("POST /companies/{realm}/prerender", of(func(c *Company, _ *http.Request) (any, error) {
		c.Prerender()
		return done, nil
	}))

	handle("POST /faults", s.controlFail)
	handle("DELETE /faults", func(r *http.Request) (any, error) {
		s.ClearFaults(r.URL.Query().Get("company"))
		return done, nil
	})
	handle("GET /requests", func(r *http.Request) (any, error) {
		want := r.URL.Query()
		return s.log.Requests(func(q erpsim.Request) bool {
			return (!want.Has("company") || want.Get("company") == q.Company) &&
				(!want.Has("op") || want.Get("op") == q.Op) && (!want.Has("violations") || q.Violation != "")
		}), nil
	})
	handle("DELETE /requests", func(*http.Request) (any, error) {
		s.log.Reset()
		return done, nil
	})
	handle("GET /counters", func(*http.Request) (any, error) { return s.counters(), nil })
	return mux
}

var (
	errNoCompany = errors.New("no such company")
	done         = struct{}{}
)

func writeControl(w http.ResponseWriter, answer any, err error) {
	status := http.StatusOK
	if err != nil {
		answer, status = map[string]string{"error": err.Error()}, http.StatusBadRequest
		if errors.Is(err, errNoCompany) || errors.Is(err, ErrNoCustomer) {
			status = http.StatusNotFound
		}
	}
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(status)
	_ = json.NewEncoder(w).Encode(answer) // a client that left is none of our business
}

// read decodes the body of a request. An empty body leaves v as it is; an unknown key is an error.
func read(r *http.Request, v any) error {
	if r.ContentLength == 0 {
		return nil
	}
	d := json.NewDecoder(r.Body)
	d.DisallowUnknownFields()
	if err := d.Decode(v); err != nil {
		return fmt.Errorf("read request: %w", err)
	}
	return nil
}

type companyLine struct {
	Realm     string `json:"realm"`
	Name      string `json:"name"`
	Customers int    `json:"customers"`
}

func (s *Sim) list() []companyLine {
	lines := []companyLine{}
	for _, c := range s.Companies() {
		lines = append(lines, companyLine{c.Realm, c.Name, c.Len()})
	}
	return lines
}

func (s *Sim) controlAdd(r *http.Request) (any, error) {
	var in companyLine
	if err := read(r, &in); err != nil {
		return nil, err
	}
	if in.Realm == "" {
		return nil, errors.New("add company: realm is missing")
	}
	c := s.AddCompany(in.Realm, in.Name)
	return companyLine{c.Realm, c.Name, c.Len()}, nil
}

func controlJoin(c *Company, r *http.Request) (any, error) {
	var in Customer
	if err := read(r, &in); err != nil {
		return nil, err
	}
	id, err := c.Join(in)
	if err != nil {
		return nil, err
	}
	return c.Customer(id)
}

func controlEdit(c *Company, r *http.Request) (any, error) {
	id := r.PathValue("id")
	edited, err := c.Customer(id)
	if err != nil {
		return nil, err
	}
	was := edited.UpdatedAt
	if err := read(r, &edited); err != nil {
		return nil, err
	}
	err = c.Edit(id, func(now *Customer) {
		if edited.UpdatedAt.Equal(was) {
			edited.UpdatedAt = now.UpdatedAt
		}
		*now = edited
	})
	if err != nil {
		return nil, err
	}
	return c.Customer(id)
}

func controlChange(c *Company, r *http.Request) (any, error) {
	in := struct {
		Name  string `json:"name"`
		Cents *int64 `json:"cents"`
		How   Spoil  `json:"how"`
	}{}
	if err := read(r, &in); err != nil {
		return nil, err
	}
	id, err := r.PathValue("id"), error(nil)
	switch change := r.PathValue("change"); change {
	case "rename":
		err = c.Rename(id, in.Name)
	case "deactivate":
		err = c.Deactivate(id)
	case "reactivate":
		err = c.Reactivate(id)
	case "bump":
		cents := int64(100)
		if in.Cents != nil {
			cents = *in.Cents
		}
		err = c.BumpBalance(id, cents)
	case "spoil":
		err = c.Spoil(id, in.How)
	case "heal":
		err = c.Heal(id)
	default:
		err = fmt.Errorf("unknown change %q", change)
	}
	if err != nil {
		return nil, err
	}
	return c.Customer(id)
}

func controlMerge(c *Company, r *http.Request) (any, error) {
	in := struct {
		Lost     string    `json:"lost"`
		Survivor string    `json:"survivor"`
		Mode     MergeMode `json:"mode"`
	}{Mode: MergeAbsent}
	if err := read(r, &in); err != nil {
		return nil, err
	}
	if err := c.Merge(in.Lost, in.Survivor, in.Mode); err != nil {
		return nil, err
	}
	return c.Customer(in.Survivor)
}

// controlMax bounds what one request adds, so that a slip of a finger does not fill the memory.
const controlMax = 1_000_000

type amount struct {
	Count int    `json:"count"`
	Seed  uint64 `json:"seed"`
}

func readAmount(r *http.Request) (amount, error) {
	in := amount{Count: 100, Seed: 1}
	if err := read(r, &in); err != nil {
		return in, err
	}
	if in.Count < 1 || in.Count > controlMax {
		return in, fmt.Errorf("count: want 1 to %d", controlMax)
	}
	return in, nil
}

func controlImport(c *Company, r *http.Request) (any, error) {
	in, err := readAmount(r)
	if err != nil {
		return nil, err
	}
	return map[string][]string{"ids": c.Import(in.Count)}, nil
}

func controlBulk(c *Company, r *http.Request) (any, error) {
	in, err := readAmount(r)
	if err != nil {
		return nil, err
	}
	c.BulkLoad(in.Count, in.Seed)
	return companyLine{c.Realm, c.Name, c.Len()}, nil
}

func (s *Sim) controlFail(r *http.Request) (any, error) {
	in := struct {
		erpsim.Rule
		Fault
		Delay string `json:"delay"`
	}{}
	if err := read(r, &in); err != nil {
		return nil, err
	}
	if in.Delay != "" {
		d, err := time.ParseDuration(in.Delay)
		if err != nil {
			return nil, fmt.Errorf("delay: %w", err)
		}
		in.Fault.Delay = d
	}
	if !in.Kind.known() {
		return nil, fmt.Errorf("unknown kind %q", in.Kind)
	}
	s.Fail(in.Rule, in.Fault)
	return done, nil
}

// counters is what GET /counters answers.
type counters struct {
	Requests   int                    `json:"requests"` // since the log was reset
	ByOp       map[string]int         `json:"by_op"`    // since then
	Violations int                    `json:"violations"`
	Peak       int                    `json:"peak"` // most requests under way at one company at a time
	Tokens     map[string]TokenCounts `json:"tokens"`
}

func (s *Sim) counters() counters {
	c := counters{
		Requests: s.log.Count("", ""), ByOp: map[string]int{}, Violations: len(s.Violations()), Peak: s.Peak(),
		Tokens: map[string]TokenCounts{},
	}
	for _, op := range []string{Token, Query, Count, Read, CompanyInfo, Other} {
		c.ByOp[op] = s.log.Count("", op)
	}
	for _, company := range s.Companies() {
		c.Tokens[company.Realm] = company.Tokens()
	}
	return c
}

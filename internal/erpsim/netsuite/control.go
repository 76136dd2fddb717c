package netsuite

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
	of := func(pattern string, h func(*Account, *http.Request) (any, error)) {
		handle(pattern, func(r *http.Request) (any, error) {
			a := s.Account(r.PathValue("account"))
			if a == nil {
				return nil, errNoAccount
			}
			return h(a, r)
		})
	}
	handle("GET /accounts", func(*http.Request) (any, error) { return s.list(), nil })
	handle("POST /accounts", s.controlAdd)
	for action, do := range map[string]func(*Account){
		"revoke": (*Account).Revoke, "expire": (*Account).ExpireAccess, "end-certificates": (*Account).EndCertificates,
		"disable": func(a *Account) { a.Disable(true) }, "enable": func(a *Account) { a.Disable(false) },
	} {
		of("POST /accounts/{account}/"+action, func(a *Account, _ *http.Request) (any, error) {
			do(a)
			return done, nil
		})
	}
	of("POST /accounts/{account}/credentials", func(a *Account, _ *http.Request) (any, error) { return a.Connect(), nil })
	of("GET /accounts/{account}/customers", func(a *Account, _ *http.Request) (any, error) { return a.Customers(), nil })
	of("GET /accounts/{account}/contacts", func(a *Account, _ *http.Request) (any, error) { return a.Contacts(), nil })
	of("GET /accounts/{account}/links", func(a *Account, _ *http.Request) (any, error) { return a.Links(), nil })
	of("GET /accounts/{account}/roles", func(a *Account, _ *http.Request) (any, error) { return a.Roles(), nil })
	of("POST /accounts/{account}/customers", controlJoin((*Account).JoinCustomer))
	of("POST /accounts/{account}/contacts", controlJoin((*Account).JoinContact))
	of("PATCH /accounts/{account}/customers/{id}", controlEdit((*Account).Customer, (*Account).EditCustomer,
		func(c *Customer) *time.Time { return &c.ModifiedAt }))
	of("PATCH /accounts/{account}/contacts/{id}", controlEdit((*Account).Contact, (*Account).EditContact,
		func(c *Contact) *time.Time { return &c.ModifiedAt }))
	of("PATCH /accounts/{account}/roles/{id}", controlEdit((*Account).Role, (*Account).EditRole,
		func(r *Role) *time.Time { return &r.ModifiedAt }))
	of("DELETE /accounts/{account}/customers/{id}", controlDelete((*Account).DeleteCustomer, (*Account).VanishCustomer))
	of("DELETE /accounts/{account}/contacts/{id}", controlDelete((*Account).DeleteContact, (*Account).VanishContact))
	of("POST /accounts/{account}/merge/{table}", controlMerge)
	of("POST /accounts/{account}/roles", func(a *Account, r *http.Request) (any, error) {
		var in Role
		if err := read(r, &in); err != nil {
			return nil, err
		}
		return a.Role(a.AddRole(in.Name))
	})
	of("PUT /accounts/{account}/links", func(a *Account, r *http.Request) (any, error) {
		var in Link
		if err := read(r, &in); err != nil {
			return nil, err
		}
		return done, a.Attach(in.Company, in.Contact, in.Role)
	})
	of("DELETE /accounts/{account}/links/{company}/{contact}", func(a *Account, r *http.Request) (any, error) {
		return done, a.Detach(r.PathValue("company"), r.PathValue("contact"))
	})
	of("POST /accounts/{account}/permissions", controlPermissions)
	of("POST /accounts/{account}/spoil", controlSpoil)
	of("POST /accounts/{account}/bulk", controlBulk)

	handle("POST /faults", s.controlFail)
	handle("DELETE /faults", func(r *http.Request) (any, error) {
		s.ClearFaults(r.URL.Query().Get("account"))
		return done, nil
	})
	handle("GET /requests", func(r *http.Request) (any, error) {
		want := r.URL.Query()
		return s.log.Requests(func(q erpsim.Request) bool {
			return (!want.Has("account") || want.Get("account") == q.Company) &&
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
	errNoAccount = errors.New("no such account")
	done         = struct{}{}
)

func writeControl(w http.ResponseWriter, answer any, err error) {
	status := http.StatusOK
	if err != nil {
		answer, status = map[string]string{"error": err.Error()}, http.StatusBadRequest
		if errors.Is(err, errNoAccount) || errors.Is(err, ErrNoRecord) {
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

type accountLine struct {
	Account   string `json:"account"`
	Name      string `json:"name"`
	Customers int    `json:"customers"`
	Contacts  int    `json:"contacts"`
	Links     int    `json:"links"`
	Private   int    `json:"private"` // of the contacts
}

func (a *Account) line() accountLine {
	a.mu.RLock()
	defer a.mu.RUnlock()
	return accountLine{a.ID, a.Name, len(a.tables[customers].all), len(a.tables[contacts].all), len(a.tables[relations].all), len(a.private.all)}
}

func (s *Sim) list() []accountLine {
	lines := []accountLine{}
	for _, a := range s.Accounts() {
		lines = append(lines, a.line())
	}
	return lines
}

func (s *Sim) controlAdd(r *http.Request) (any, error) {
	var in accountLine
	if err := read(r, &in); err != nil {
		return nil, err
	}
	if in.Account == "" {
		return nil, errors.New("add account: account is missing")
	}
	return s.AddAccount(in.Account, in.Name).line(), nil
}

func controlJoin[R any](join func(*Account, R) (string, error)) func(*Account, *http.Request) (any, error) {
	return func(a *Account, r *http.Request) (any, error) {
		var in R
		if err := read(r, &in); err != nil {
			return nil, err
		}
		id, err := join(a, in)
		return map[string]string{"id": id}, err
	}
}

func controlEdit[R any](get func(*Account, string) (R, error), edit func(*Account, string, func(*R)) error, modified func(*R) *time.Time,
) func(*Account, *http.Request) (any, error) {
	return func(a *Account, r *http.Request) (any, error) {
		id := r.PathValue("id")
		edited, err := get(a, id)
		if err != nil {
			return nil, err
		}
		was := *modified(&edited)
		if err := read(r, &edited); err != nil {
			return nil, err
		}
		err = edit(a, id, func(now *R) {
			if modified(&edited).Equal(was) {
				*modified(&edited) = *modified(now)
			}
			*now = edited
		})
		if err != nil {
			return nil, err
		}
		return get(a, id)
	}
}

func controlDelete(logged, unlogged func(*Account, string) error) func(*Account, *http.Request) (any, error) {
	return func(a *Account, r *http.Request) (any, error) {
		if r.URL.Query().Has("unlogged") {
			return done, unlogged(a, r.PathValue("id"))
		}
		return done, logged(a, r.PathValue("id"))
	}
}

func controlMerge(a *Account, r *http.Request) (any, error) {
	in := struct {
		Lost     string `json:"lost"`
		Survivor string `json:"survivor"`
		Logged   bool   `json:"logged"`
	}{Logged: true}
	if err := read(r, &in); err != nil {
		return nil, err
	}
	switch r.PathValue("table") {
	case "customers":
		return done, a.MergeCustomers(in.Lost, in.Survivor, in.Logged)
	case "contacts":
		return done, a.MergeContacts(in.Lost, in.Survivor, in.Logged)
	}
	return nil, errors.New("merge: want customers or contacts")
}

func controlPermissions(a *Account, r *http.Request) (any, error) {
	var in struct {
		Deny         []string  `json:"deny"`
		Allow        []string  `json:"allow"`
		Subsidiaries *[]string `json:"subsidiaries"`
	}
	if err := read(r, &in); err != nil {
		return nil, err
	}
	a.Deny(in.Deny...)
	a.Allow(in.Allow...)
	if in.Subsidiaries != nil {
		a.Restrict(*in.Subsidiaries...)
	}
	return map[string][]string{"denied": append([]string{}, a.Denied()...)}, nil
}

func controlSpoil(a *Account, r *http.Request) (any, error) {
	var in struct {
		Table  string          `json:"table"`
		ID     string          `json:"id"`
		Column string          `json:"column"` // empty: heal
		Value  json.RawMessage `json:"value"`
	}
	if err := read(r, &in); err != nil {
		return nil, err
	}
	if in.Column == "" {
		return done, a.Heal(in.Table, in.ID)
	}
	return done, a.Spoil(in.Table, in.ID, in.Column, string(in.Value))
}

// controlMax bounds what one request adds, so that a slip of a finger does not fill the memory.
const controlMax = 1_000_000

func controlBulk(a *Account, r *http.Request) (any, error) {
	in := struct {
		Customers int    `json:"customers"`
		Contacts  int    `json:"contacts"`
		Seed      uint64 `json:"seed"`
	}{100, 200, 1}
	if err := read(r, &in); err != nil {
		return nil, err
	}
	if in.Customers < 0 || in.Contacts < 0 || in.Customers+in.Contacts > controlMax {
		return nil, fmt.Errorf("bulk: want up to %d records", controlMax)
	}
	a.BulkLoad(in.Customers, in.Contacts, in.Seed)
	return a.line(), nil
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
	Peak       int                    `json:"peak"` // most requests under way at one account at a time
	Logins     map[string]LoginCounts `json:"logins"`
}

func (s *Sim) counters() counters {
	c := counters{
		Requests: s.log.Count("", ""), ByOp: map[string]int{}, Violations: len(s.Violations()), Peak: s.Peak(),
		Logins: map[string]LoginCounts{},
	}
	for _, op := range []string{Token, Query, ServerTime, Governance, Record, Other} {
		c.ByOp[op] = s.log.Count("", op)
	}
	for _, a := range s.Accounts() {
		c.Logins[a.ID] = a.Logins()
	}
	return c
}

// Package online is the wire of QuickBooks Online: its queries, answers, faults and tokens.
package online

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"time"

	"github.com/centime/contactsync/internal/connector"
	"github.com/centime/contactsync/internal/erphttp"
)

// RequestTimeout is a little more than the 120 s after which the service itself cuts a request off.
const RequestTimeout = 130 * time.Second

const (
	apiURLProd   = "https://quickbooks.api.intuit.com"
	minorVersion = "75" // lower ones act as 75 since August 2025
	// pageSize is the most that a query returns; asking for more is rejected or cut.
	pageSize = 1000
	// longStatement is sent as a body, since URLs have limits.
	longStatement = 1500

	lookupStep = "look up customers"
)

// Source reads the customers of one QuickBooks Online company.
type Source struct {
	account  connector.Account
	base     string // up to the realm
	http     *erphttp.Client
	pageSize int // MAXRESULTS of a pull's pages
}

var _ connector.Source = (*Source)(nil)

// Open returns the Source of an account. It makes no request.
func Open(a connector.Account) *Source {
	api := strings.TrimRight(a.APIURL, "/")
	if api == "" {
		api = apiURLProd
	}
	realm := "/v3/company/" + url.PathEscape(a.ID)
	is := func(path string) func(string) bool {
		return func(p string) bool { return strings.HasSuffix(p, "/v3/company/"+a.ID+path) }
	}
	selects := func(body []byte) bool { return strings.HasPrefix(strings.ToLower(string(body)), "select ") }
	return &Source{account: a, base: api + realm, pageSize: pageSize, http: erphttp.New(a, RequestTimeout,
		erphttp.Read{Method: http.MethodGet, Path: is("/query")},
		erphttp.Read{Method: http.MethodPost, Path: is("/query"), Body: selects},
		erphttp.Read{Method: http.MethodGet, Path: is("/companyinfo/" + a.ID)},
	)}
}

// InPagesOf has pulls read n customers a page; 0 leaves it as it is.
func (s *Source) InPagesOf(n int) *Source {
	s.pageSize = cmp.Or(n, s.pageSize)
	return s
}

// Check names the company. CompanyInfo.Id is "1" and not the realm, which is in the path.
func (s *Source) Check(ctx context.Context) (connector.Check, error) {
	const step = "read company"
	address := s.base + "/companyinfo/" + url.PathEscape(s.account.ID) + "?minorversion=" + minorVersion
	reply, err := s.get(ctx, step, address, nil)
	if err != nil {
		return connector.Check{}, err
	}
	var info struct {
		CompanyInfo *struct{ CompanyName erphttp.Text }
	}
	if err := json.Unmarshal(reply.Body, &info); err != nil || info.CompanyInfo == nil {
		return connector.Check{}, unreadable(step, reply)
	}
	return connector.Check{Account: s.account.ID, Company: short(info.CompanyInfo.CompanyName.Value)}, nil
}

// Lookup reads customers by id, many to a call.
func (s *Source) Lookup(ctx context.Context, keys []connector.Key) (connector.Page, error) {
	if len(keys) > connector.LookupMax {
		return connector.Page{}, &connector.Error{
			Kind: connector.Rejected, Step: lookupStep, Message: fmt.Sprintf("%d keys are too many", len(keys)),
			Hint: "This is a fault of the program: report it.",
		}
	}
	var ids []string
	for _, k := range keys {
		// An id of QuickBooks is a number in a string; anything else cannot be one of its customers.
		if k.Kind == connector.Customers && k.ID != "" && strings.Trim(k.ID, "0123456789") == "" {
			ids = append(ids, k.ID)
		}
	}
	if len(ids) == 0 {
		return connector.Page{}, nil
	}
	return s.lookup(ctx, ids, new(int))
}

// Customer is a look-up of one: QuickBooks attaches nothing to a customer but its own record.
func (s *Source) Customer(ctx context.Context, id string) (connector.Page, error) {
	return s.Lookup(ctx, []connector.Key{{Kind: connector.Customers, ID: id}})
}

// lookup asks again in halves for ids of which a row cannot be had or has no id of its own: that customer is there, and
// must not be taken for gone. Passed counts the rows that could not be had, since one that could.
func (s *Source) lookup(ctx context.Context, ids []string, passed *int) (connector.Page, error) {
	var page connector.Page
	statement := fmt.Sprintf("select * from Customer where Id IN ('%s') and Active IN (true, false) MAXRESULTS %d",
		strings.Join(ids, "', '"), pageSize)
	a, err := s.query(ctx, lookupStep, statement)
	if len(ids) == 1 && *passed == 0 && errors.Is(err, errUnreadableRow) {
		if err = s.answers(ctx, lookupStep); err == nil {
			a, err = s.query(ctx, lookupStep, statement)
		}
	}
	switch {
	case err != nil && !errors.Is(err, errUnreadableRow):
		return page, err
	case err != nil && len(ids) == 1 && *passed >= maxPassed:
		return page, refused(lookupStep, fmt.Sprintf("QuickBooks can give none of %d records in a row", maxPassed), err)
	case err != nil && len(ids) == 1:
		*passed++
	case err == nil:
		*passed = 0
		fill(&page, a.rows)
		if !lacksID(page) {
			return page, nil
		}
	}
	if len(ids) == 1 {
		key := connector.Key{Kind: connector.Customers, ID: ids[0]}
		return connector.Page{Bad: []connector.Bad{{Key: key, Field: "record", Reason: unreadableReason}}}, nil
	}
	page = connector.Page{}
	for _, half := range [][]string{ids[:len(ids)/2], ids[len(ids)/2:]} {
		found, err := s.lookup(ctx, half, passed)
		if err != nil {
			return connector.Page{}, err
		}
		page.Customers = append(page.Customers, found.Customers...)
		page.Contacts = append(page.Contacts, found.Contacts...)
		page.Links = append(page.Links, found.Links...)
		page.Bad = append(page.Bad, found.Bad...)
	}
	return page, nil
}

func lacksID(page connector.Page) bool {
	return slices.ContainsFunc(page.Bad, func(b connector.Bad) bool { return b.Key.ID == "" })
}

// query sends a statement and reads the answer.
func (s *Source) query(ctx context.Context, step, statement string) (answer, error) {
	address := s.base + "/query?minorversion=" + minorVersion
	var body []byte
	if len(statement) > longStatement {
		body = []byte(statement)
	} else {
		address += "&query=" + url.QueryEscape(statement)
	}
	reply, err := s.get(ctx, step, address, body)
	if err != nil {
		return answer{}, err
	}
	a, err := parseAnswer(reply.Body)
	if err != nil {
		return answer{}, unreadable(step, reply)
	}
	return a, nil
}

func unreadable(step string, r erphttp.Reply) error {
	return &connector.Error{
		Kind: connector.Transient, Step: step, Trace: trace(r),
		Message: "200 with a body that is not whole or not the answer asked for",
	}
}

// get sends a request. After a 401 it is sent once more with another token, unless a new one cannot help.
func (s *Source) get(ctx context.Context, step, address string, body []byte) (erphttp.Reply, error) {
	token, err := s.account.Tokens.Token(ctx)
	if err != nil {
		return erphttp.Reply{}, err
	}
	method, contentType := http.MethodGet, ""
	if body != nil {
		method, contentType = http.MethodPost, "application/text"
	}
	for try := 1; ; try++ {
		reply, err := s.http.Do(ctx, step, method, address, contentType, body, token)
		if err != nil {
			return erphttp.Reply{}, err
		}
		err = judge(step, reply)
		if err == nil {
			return reply, nil
		}
		const userLostAccess = 120
		number, _ := faultIn(reply.Body).first()
		if try > 1 || reply.Status != http.StatusUnauthorized || number == userLostAccess {
			return erphttp.Reply{}, err
		}
		if token, err = s.account.Tokens.Renewed(ctx, token); err != nil {
			return erphttp.Reply{}, err
		}
	}
}

// fill puts rows on a page, each id once: of two rows the later one of the ERP's own clock counts.
func fill(page *connector.Page, rows []row) {
	page.Customers, page.Contacts = slices.Grow(page.Customers, len(rows)), slices.Grow(page.Contacts, len(rows))
	page.Links = slices.Grow(page.Links, len(rows))
	at := make(map[string]int, len(rows))
	for i := range rows {
		id := rows[i].ID.Value
		if before, met := at[id]; met && id != "" {
			was, _ := parseTime(rows[before].MetaData.LastUpdatedTime.Value)
			now, _ := parseTime(rows[i].MetaData.LastUpdatedTime.Value)
			if now.Before(was) {
				continue
			}
		}
		at[id] = i
	}
	for i := range rows {
		if id := rows[i].ID.Value; id == "" || at[id] == i {
			rows[i].add(page)
		}
	}
}

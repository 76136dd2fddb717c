package qbo

import (
	"bytes"
	"encoding/json"
	"encoding/xml"
	"fmt"
	"maps"
	"strconv"
	"strings"
	"time"
	_ "time/tzdata" // Pacific time on a machine without a time zone database
)

// pacific is the zone of every time that QuickBooks sends, wherever the company is:
// https://github.com/intuit/QuickBooks-V3-Java-SDK/issues/26.
var pacific = func() *time.Location {
	zone, err := time.LoadLocation("America/Los_Angeles")
	if err != nil {
		panic(err) // the zone is built in
	}
	return zone
}()

const (
	secondsLayout = "2006-01-02T15:04:05-07:00"
	millisLayout  = "2006-01-02T15:04:05.000-07:00"
)

func seconds(t time.Time) string { return t.In(pacific).Format(secondsLayout) }
func millis(t time.Time) string  { return t.In(pacific).Format(millisLayout) }

type ref struct {
	Value string `json:"value"`
	Name  string `json:"name,omitempty"`
}

type metaData struct {
	CreateTime      string
	LastUpdatedTime string
}

type number struct{ FreeFormNumber string }
type email struct{ Address string }
type web struct{ URI string }

// wireCustomer is a customer on the wire, its members in the order of QuickBooks. What has no value is left out.
type wireCustomer struct {
	Taxable                 bool
	BillAddr                *Address `json:",omitempty"`
	ShipAddr                *Address `json:",omitempty"`
	Notes                   string   `json:",omitempty"`
	Job                     bool
	BillWithParent          bool
	ParentRef               *ref `json:",omitempty"`
	Level                   int  `json:",omitempty"`
	Balance                 float64
	BalanceWithJobs         float64
	CurrencyRef             ref
	PreferredDeliveryMethod string `json:",omitempty"`
	IsProject               bool
	ClientEntityID          string `json:"ClientEntityId"`
	Domain                  string `json:"domain"`
	Sparse                  bool   `json:"sparse"`
	ID                      string `json:"Id"`
	SyncToken               string
	MetaData                metaData
	Title                   string `json:",omitempty"`
	GivenName               string `json:",omitempty"`
	MiddleName              string `json:",omitempty"`
	FamilyName              string `json:",omitempty"`
	Suffix                  string `json:",omitempty"`
	FullyQualifiedName      string
	CompanyName             string `json:",omitempty"`
	DisplayName             string
	PrintOnCheckName        string
	Active                  bool
	V4IDPseudonym           string
	PrimaryPhone            *number `json:",omitempty"`
	AlternatePhone          *number `json:",omitempty"`
	Mobile                  *number `json:",omitempty"`
	Fax                     *number `json:",omitempty"`
	PrimaryEmailAddr        *email  `json:",omitempty"`
	WebAddr                 *web    `json:",omitempty"`
}

var currencies = map[string]string{"USD": "United States Dollar", "CAD": "Canadian Dollar", "EUR": "Euro"}

// wire is a row as the wire has it, with c.mu held for reading.
func (c *Company) wire(r *row) []byte {
	if r.wire != nil {
		return r.wire
	}
	return c.render(r)
}

// render makes what wire returns.
func (c *Company) render(r *row) []byte {
	name, level := c.qualified(r)
	currency := r.Currency
	if currency == "" {
		currency = "USD"
	}
	checkName := r.CheckName
	if checkName == "" {
		checkName = r.DisplayName
	}
	balance := float64(r.Balance) / 100
	w := wireCustomer{
		Taxable: true, BillAddr: r.BillAddr, ShipAddr: r.ShipAddr, Notes: r.Notes,
		Job: r.Parent != "", BillWithParent: r.BillWithParent, Level: level,
		Balance: balance, BalanceWithJobs: balance, CurrencyRef: ref{currency, currencies[currency]},
		PreferredDeliveryMethod: r.Delivery, IsProject: r.Project, ClientEntityID: "0", Domain: "QBO",
		ID: r.ID, SyncToken: strconv.Itoa(r.SyncToken),
		MetaData: metaData{seconds(r.CreatedAt), seconds(r.UpdatedAt)},
		Title:    r.Title, GivenName: r.GivenName, MiddleName: r.MiddleName, FamilyName: r.FamilyName, Suffix: r.Suffix,
		FullyQualifiedName: name, CompanyName: r.CompanyName, DisplayName: r.DisplayName, PrintOnCheckName: checkName,
		Active: !r.Inactive, V4IDPseudonym: fmt.Sprintf("002098%032x", r.number),
		PrimaryPhone: phone(r.Phone), AlternatePhone: phone(r.AlternatePhone), Mobile: phone(r.Mobile), Fax: phone(r.Fax),
	}
	if r.Email != "" {
		w.PrimaryEmailAddr = &email{r.Email}
	}
	if r.Web != "" {
		w.WebAddr = &web{r.Web}
	}
	if above := c.byID[r.Parent]; above != nil {
		w.ParentRef = &ref{above.ID, above.DisplayName}
	} else if r.Parent != "" {
		w.ParentRef = &ref{Value: r.Parent}
	}
	return spoil(encode(w), r.spoilt)
}

func phone(text string) *number {
	if text == "" {
		return nil
	}
	return &number{text}
}

// encode is v in JSON as QuickBooks writes it: "&" stands for itself.
func encode(v any) []byte {
	var b bytes.Buffer
	e := json.NewEncoder(&b)
	e.SetEscapeHTML(false)
	if err := e.Encode(v); err != nil {
		panic(fmt.Errorf("encode %T: %w", v, err)) // no value of ours can fail
	}
	return bytes.TrimSuffix(b.Bytes(), []byte("\n"))
}

// A Spoil is a way in which a customer's row on the wire may be bad.
type Spoil string

// The ways of a bad row.
const (
	MissingID     Spoil = "missing_id"
	NumberID      Spoil = "number_id"      // the id is a number, not a string
	NULName       Spoil = "nul_name"       // the name holds the escape of NUL
	LoneSurrogate Spoil = "lone_surrogate" // the name holds the escape of half a character
	UnknownFields Spoil = "unknown_fields"
	NumberName    Spoil = "number_name"   // the name is a number, not a string
	ObjectEmail   Spoil = "object_email"  // the address itself is an object
	NullJob       Spoil = "null_job"      // harmless: seen in real rows
	NullFields    Spoil = "null_fields"   // null where nothing should be
	AddressOnlyID Spoil = "bare_address"  // harmless: seen in real rows
	BadTimes      Spoil = "bad_times"     // the times are no times
	EmptyName     Spoil = "empty_name"    // no display name at all
	OrphanParent  Spoil = "orphan_parent" // a parent that there is not
)

// spoils are the fields that replace those of the row; an empty one is left out of it.
var spoils = map[Spoil]map[string]string{
	MissingID:     {"Id": ""},
	NumberID:      {"Id": `4711`},
	NULName:       {"DisplayName": `"Nul\u0000 Name"`, "GivenName": `"Nu\u0000l"`},
	LoneSurrogate: {"DisplayName": `"Half \ud83d of it"`, "FamilyName": `"\udc00"`},
	UnknownFields: {"FutureField": `{"a":[1,{"b":null}]}`, "another": `"x"`},
	NumberName:    {"DisplayName": `12345`, "GivenName": `7`},
	ObjectEmail:   {"PrimaryEmailAddr": `{"Address":{"value":"x"}}`},
	NullJob:       {"Job": `null`},
	NullFields:    {"PrimaryEmailAddr": `null`, "PrimaryPhone": `null`, "GivenName": `null`, "ParentRef": `null`},
	AddressOnlyID: {"BillAddr": `{"Id":"106"}`, "ShipAddr": `{"Id":"107"}`},
	BadTimes:      {"MetaData": `{"CreateTime":"yesterday","LastUpdatedTime":""}`},
	EmptyName:     {"DisplayName": "", "FullyQualifiedName": ""},
	OrphanParent:  {"Job": `true`, "ParentRef": `{"value":"999999999"}`},
}

// Spoil makes a customer's row bad on the wire from now on, and moves its UpdatedAt as an edit does, so that it is
// read. Several add up.
func (c *Company) Spoil(id string, how Spoil) error {
	fields, known := spoils[how]
	if !known {
		return fmt.Errorf("spoil customer %s: unknown way %q", id, how)
	}
	for field, value := range fields {
		if err := c.SpoilField(id, field, value); err != nil {
			return err
		}
	}
	return nil
}

// SpoilField puts this JSON into one field of a customer's row on the wire, or leaves the field out if json is empty.
func (c *Company) SpoilField(id, field, value string) error {
	if value != "" && !json.Valid([]byte(value)) {
		return fmt.Errorf("spoil customer %s: %s: no valid JSON", id, field)
	}
	return c.change(id, func(r *row) {
		spoilt := map[string]string{field: value}
		for f, v := range r.spoilt {
			if f != field {
				spoilt[f] = v
			}
		}
		r.spoilt, r.UpdatedAt = spoilt, c.now()
		r.SyncToken++
	})
}

// Heal takes back what Spoil and SpoilField did, as an edit.
func (c *Company) Heal(id string) error {
	return c.change(id, func(r *row) {
		r.spoilt, r.UpdatedAt = nil, c.now()
		r.SyncToken++
	})
}

func spoil(row []byte, fields map[string]string) []byte {
	if len(fields) == 0 {
		return row
	}
	all := map[string]json.RawMessage{}
	if err := json.Unmarshal(row, &all); err != nil {
		panic(fmt.Errorf("spoil row: %w", err)) // encode made it
	}
	for field, value := range fields {
		all[field] = json.RawMessage(value)
	}
	maps.DeleteFunc(all, func(_ string, v json.RawMessage) bool { return len(v) == 0 })
	return encode(all)
}

// A fault is what QuickBooks answers instead of what was asked for.
type fault struct {
	status  int
	kind    string // Fault.type
	code    string
	message string
	detail  string
}

func (f *fault) Error() string { return f.code + " " + f.message + ": " + f.detail }

// formA is the fault as the accounting service writes it.
func (f *fault) formA(at time.Time) []byte {
	return fmt.Appendf(nil, `{"Fault":%s,"time":%s}`, f.object(), encode(millis(at)))
}

// inside is the fault where the rows of a query should be.
func (f *fault) inside(at time.Time) []byte {
	return fmt.Appendf(nil, `{"QueryResponse":{"Fault":%s},"time":%s}`, f.object(), encode(millis(at)))
}

func (f *fault) object() []byte {
	return encode(struct {
		Error []any
		Type  string `json:"type"`
	}{[]any{struct {
		Message, Detail string
		Code            string `json:"code"`
		Element         string `json:"element"`
	}{Message: f.message, Detail: f.detail, Code: f.code}}, f.kind})
}

// formB is the fault as the gateway writes it: https://github.com/routablehq/python-quickbooks/issues/250.
func (f *fault) formB(at time.Time) []byte {
	return fmt.Appendf(nil, `{"warnings":null,"intuitObject":null,"fault":{"error":[{"message":%s,"detail":%s,"code":%s,`+
		`"element":null}],"type":%s},"report":null,"queryResponse":null,"batchItemResponse":[],"attachableResponse":[],`+
		`"syncErrorResponse":null,"requestId":null,"time":%d,"status":null,"cdcresponse":[]}`,
		encode(f.message), encode(f.detail), encode(f.code), encode(f.kind), at.UnixMilli())
}

// formC is the fault in XML: https://github.com/intuit/oauth-jsclient/issues/91.
func (f *fault) formC(at time.Time) []byte {
	return fmt.Appendf(nil, `<?xml version="1.0" encoding="UTF-8" standalone="yes"?>`+
		`<IntuitResponse xmlns="http://schema.intuit.com/finance/v3" time="%s"><Fault type="%s"><Error code="%s">`+
		`<Message>%s</Message><Detail>%s</Detail></Error></Fault></IntuitResponse>`,
		millis(at), escapeXML(f.kind), escapeXML(f.code), escapeXML(f.message), escapeXML(f.detail))
}

func escapeXML(text string) string {
	var b strings.Builder
	_ = xml.EscapeText(&b, []byte(text)) // a Builder takes everything
	return b.String()
}

// The faults with fixed words. https://github.com/ruckus/quickbooks-ruby spec/fixtures/too_many_requests_error.xml has
// those of throttled.
var (
	throttled = &fault{429, "SERVICE", "3001", "message=ThrottleExceeded; errorCode=003001; statusCode=429",
		"The request limit was reached.  Try again later"}
	internalError = &fault{500, "SystemFault", "10000", "An application error has occurred while processing your request",
		"System Failure Error: An unexpected internal error occurred"}
	notFound = &fault{400, "ValidationFault", "610", "Object Not Found", "Object Not Found : Something you're trying to " +
		"use has been made inactive. Check the fields with accounts, customers, items, vendors or employees."}
	unsupported = &fault{400, "ValidationFault", "500", "Unsupported Operation", "Operation is not supported."}
	badData     = &fault{400, "ValidationFault", "4002", "Error processing query",
		"QueryProcessingError: To email address entered is invalid"}
	suspended = &fault{400, "ValidationFault", "6190", "Invalid Company Status",
		"Subscription period has ended or cancelled or there was a billing problem"}
	forbidden = &fault{403, "SERVICE", "3100",
		"message=ApplicationAuthorizationFailed; errorCode=003100; statusCode=403", ""}
	wrongAuth = &fault{401, "AuthenticationFault", "100", "General Authentication Error",
		"AuthenticationErrorGeneral: SRV-110-Authentication Failure , statusCode: 401"}
	userLost = &fault{401, "AuthorizationFault", "120", "Authorization Failure",
		"AuthorizationFailure: -11014 The user has no access to this company , statusCode: 401"}
)

// refusedToken is a 401 of the gateway.
func refusedToken(detail string) *fault {
	return &fault{401, "AUTHENTICATION", "3200", "message=AuthenticationFailed; errorCode=003200; statusCode=401", detail}
}

package netsuite_test

import (
	"context"
	"net/http/httptest"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/centime/contactsync/connectors/netsuite"
	"github.com/centime/contactsync/internal/connector"
	sim "github.com/centime/contactsync/internal/erpsim/netsuite"
)

const account = "1234567_SB1"

// far is a simulated account with a clock of its own, and what a Source of it needs.
type far struct {
	testing.TB
	sim     *sim.Sim
	account *sim.Account
	erp     connector.Connector
	url     string
	tokens  *memoryTokens

	mu  sync.Mutex
	now time.Time
}

func newFar(t testing.TB, o sim.Options, pageSize int) *far {
	t.Helper()
	f := &far{TB: t, now: time.Date(2026, 11, 1, 8, 30, 0, 0, time.UTC)} // the hour that Pacific time repeats
	if o.Now == nil {
		o.Now = f.clock
	}
	f.sim = sim.New(o)
	server := httptest.NewServer(f.sim)
	t.Cleanup(server.Close)
	f.account, f.url = f.sim.AddAccount(account, "Northwind Kelp"), server.URL+"/1234567-sb1"
	f.erp = netsuite.Open(f.clock, pageSize)
	given := f.account.Connect()
	f.tokens = &memoryTokens{erp: f.erp, account: connector.Account{ID: account, APIURL: f.url}, login: connector.Credentials{
		ClientID: given.ClientID, CertificateID: given.CertificateID, PrivateKey: given.PrivateKey, Certificate: given.Certificate,
	}}
	return f
}

func (f *far) clock() time.Time {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.now
}

func (f *far) Pass(d time.Duration) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.now = f.now.Add(d)
}

func (f *far) Open(called connector.Called) connector.Source {
	return f.erp.Open(connector.Account{ID: account, APIURL: f.url, Tokens: f.tokens, Called: called})
}

func (f *far) do(err error) {
	f.Helper()
	if err != nil {
		f.Fatal(err)
	}
}

// memoryTokens renews like the worker does, without a database.
type memoryTokens struct {
	erp     connector.Connector
	account connector.Account

	mu      sync.Mutex
	login   connector.Credentials
	secrets []string
}

func (m *memoryTokens) Token(ctx context.Context) (string, error) {
	m.mu.Lock()
	token := m.login.AccessToken
	m.mu.Unlock()
	if token == "" {
		return m.Renewed(ctx, "")
	}
	return token, nil
}

func (m *memoryTokens) Renewed(ctx context.Context, _ string) (string, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	renewed, err := m.erp.Renew(ctx, m.account, m.login)
	if err != nil {
		return "", err
	}
	m.login = renewed
	m.secrets = append(m.secrets, renewed.PrivateKey, renewed.AccessToken)
	return renewed.AccessToken, nil
}

func (m *memoryTokens) given() []string {
	m.mu.Lock()
	defer m.mu.Unlock()
	return slices.Clone(m.secrets)
}

// Package erphttp is HTTP for ERPs: it sends reads and nothing else, bounds what comes back, and says of a failure what
// can be done about it.
package erphttp

import (
	"bytes"
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"strconv"
	"sync/atomic"
	"time"

	"github.com/centime/contactsync/internal/connector"
)

const (
	// maxBody is more than any page of any ERP: QuickBooks' 1000 customers are a little over 1 MB.
	maxBody = 64 << 20
	// maxRoom is what is kept free for an answer before it comes.
	maxRoom = 4 << 20
	// maxWait keeps a mistaken Retry-After from putting a connection to sleep for good.
	maxWait = 24 * time.Hour
)

// A Read is a request that a connector may send.
type Read struct {
	Method string
	// Path says whether a path is meant.
	Path func(path string) bool
	// Body says whether a body reads; nil: there must be none.
	Body func(body []byte) bool
	// Header is sent with it.
	Header map[string]string
}

// Client sends the reads of one account.
type Client struct {
	account connector.Account
	reads   []Read
	http    *http.Client

	lastBody atomic.Int64 // its size
}

// New returns a client that refuses every request not among reads. timeout bounds a request with its whole answer.
func New(account connector.Account, timeout time.Duration, reads ...Read) *Client {
	transport := account.Transport
	if transport == nil {
		transport = shared
	}
	return &Client{account: account, reads: reads, http: &http.Client{
		Transport: transport, Timeout: timeout,
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
	}}
}

// Transport keeps connections to ERPs open between the runs of a process. It bounds each part of a request but the body.
func Transport() http.RoundTripper { return shared }

var shared = &http.Transport{
	Proxy:                 http.ProxyFromEnvironment,
	DialContext:           (&net.Dialer{Timeout: 10 * time.Second, KeepAlive: 30 * time.Second}).DialContext,
	TLSHandshakeTimeout:   10 * time.Second,
	ResponseHeaderTimeout: 125 * time.Second, // QuickBooks itself gives up after 120 s
	ForceAttemptHTTP2:     true,
	MaxIdleConnsPerHost:   16,
	IdleConnTimeout:       90 * time.Second,
}

// Reply is a whole answer, whatever its status.
type Reply struct {
	Status int
	Header http.Header
	Body   []byte
}

// RetryAfter is how long the answer asks to wait, a day at most; 0 if it does not say.
func (r Reply) RetryAfter() time.Duration {
	text := r.Header.Get("Retry-After")
	if seconds, err := strconv.Atoi(text); err == nil && seconds > 0 {
		return time.Duration(min(seconds, int(maxWait/time.Second))) * time.Second
	}
	if at, err := http.ParseTime(text); err == nil {
		return min(max(0, time.Until(at)), maxWait)
	}
	return 0
}

// ErrNoHost is the cause of the error when the host has no address: its name is wrong, or no name can be looked up.
var ErrNoHost = errors.New("its host has no address")

// Do sends a request with a bearer token; an empty token is left out. What is not a read is refused before anything is sent (Rejected). An answer
// that did not arrive whole is Transient. The error names step, and neither URL nor body.
func (c *Client) Do(
	ctx context.Context, step, method, url, contentType string, body []byte, token string,
) (Reply, error) {
	req, err := http.NewRequestWithContext(ctx, method, url, bytes.NewReader(body))
	if err != nil {
		return Reply{}, &connector.Error{
			Kind: connector.Rejected, Step: step, Message: "the request's address is wrong",
			Hint: "Check the connection's setting api_url.",
		}
	}
	read, allowed := c.allowed(req, body)
	if !allowed {
		return Reply{}, &connector.Error{
			Kind: connector.Rejected, Step: step,
			Message: method + " is not one of this connector's reads, and was not sent",
			Hint:    "This is a fault of the program: report it.",
		}
	}
	if token != "" {
		req.Header.Set("Authorization", "Bearer "+token)
	}
	req.Header.Set("Accept", "application/json")
	req.Header.Set("User-Agent", "centime-contactsync/1")
	if contentType != "" {
		req.Header.Set("Content-Type", contentType)
	}
	for name, value := range read.Header {
		req.Header.Set(name, value)
	}
	if c.account.Called != nil {
		answered, err := c.account.Called(ctx)
		if err != nil {
			return Reply{}, err
		}
		defer answered()
	}
	resp, err := c.http.Do(req)
	if err != nil {
		return Reply{}, failure(ctx, step, err)
	}
	defer resp.Body.Close()
	// Pages are of a size: room for one like the last saves most of what growing would throw away.
	got := bytes.NewBuffer(make([]byte, 0, min(c.lastBody.Load()*9/8, maxRoom)+bytes.MinRead))
	if _, err := got.ReadFrom(io.LimitReader(resp.Body, maxBody+1)); err != nil {
		return Reply{}, failure(ctx, step, err)
	}
	text := got.Bytes()
	c.lastBody.Store(int64(len(text)))
	if len(text) > maxBody {
		return Reply{}, &connector.Error{
			Kind: connector.Transient, Step: step, Message: fmt.Sprintf("the answer is larger than %d MB", maxBody>>20),
		}
	}
	return Reply{Status: resp.StatusCode, Header: resp.Header, Body: text}, nil
}

func (c *Client) allowed(req *http.Request, body []byte) (Read, bool) {
	for _, r := range c.reads {
		if r.Method != req.Method || !r.Path(req.URL.Path) {
			continue
		}
		if r.Body == nil && len(body) == 0 || r.Body != nil && r.Body(body) {
			return r, true
		}
	}
	return Read{}, false
}

// failure says what kept an answer from arriving, without the URL that net/http puts into its errors.
func failure(ctx context.Context, step string, err error) error {
	if ctx.Err() != nil {
		return fmt.Errorf("%s: %w", step, ctx.Err())
	}
	message := "the answer was cut off"
	var cause error
	dnsErr, isDNS := errors.AsType[*net.DNSError](err)
	netErr, isNet := errors.AsType[net.Error](err)
	opErr, isOp := errors.AsType[*net.OpError](err)
	_, isCertificate := errors.AsType[*tls.CertificateVerificationError](err)
	switch {
	case isCertificate:
		message = "the certificate of the ERP's host is not trusted"
	case isDNS && dnsErr.IsNotFound:
		message, cause = "the ERP cannot be reached", ErrNoHost
	case isNet && netErr.Timeout():
		message = "no answer in time"
	case isOp && opErr.Op == "dial":
		message = "the ERP cannot be reached"
	}
	return &connector.Error{Kind: connector.Transient, Step: step, Message: message, Err: cause}
}

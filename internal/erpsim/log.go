// Package erpsim holds what simulated ERPs share: the log of the requests they got, the script of the faults they are
// told to show, and made-up people. Each ERP is a package of its own below it.
package erpsim

import (
	"slices"
	"sync"
	"time"
)

// A Request is one request that a simulated ERP got.
type Request struct {
	ID        int       `json:"id"` // 1 is the first since the simulator started
	Time      time.Time `json:"time"`
	Company   string    `json:"company"` // the ERP's own identity of the company; empty if none was recognised
	Op        string    `json:"op"`      // what kind of request it is, in the words of the ERP's package
	N         int       `json:"n"`       // 1 is the first of its Op at its company since the log was reset
	Method    string    `json:"method"`
	Path      string    `json:"path"`
	Statement string    `json:"statement,omitempty"`
	Status    int       `json:"status"`              // 0: not answered, or answered by no status line
	Fault     string    `json:"fault,omitempty"`     // the scripted fault it met
	Violation string    `json:"violation,omitempty"` // what it did that no reader of this ERP may do
}

// logMax bounds the memory of a simulator that runs for days: older requests leave the log, the counts stay right.
const logMax = 100_000

// A Log records requests. The zero Log is empty and ready; it is safe for concurrent use.
type Log struct {
	mu       sync.Mutex
	last     int
	requests []*Request
	counts   map[[2]string]int // by company and op
}

// Begin records a request that has arrived. ID and N are given by the log.
func (l *Log) Begin(r Request) *Entry {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.counts == nil {
		l.counts = map[[2]string]int{}
	}
	l.last++
	l.counts[[2]string{r.Company, r.Op}]++
	r.ID, r.N = l.last, l.counts[[2]string{r.Company, r.Op}]
	if len(l.requests) >= logMax {
		l.requests = slices.Delete(l.requests, 0, logMax/10)
	}
	l.requests = append(l.requests, &r)
	return &Entry{log: l, request: &r}
}

// Requests returns the requests that keep says yes to, oldest first; a nil keep keeps all.
func (l *Log) Requests(keep func(Request) bool) []Request {
	l.mu.Lock()
	defer l.mu.Unlock()
	found := []Request{}
	for _, r := range l.requests {
		if keep == nil || keep(*r) {
			found = append(found, *r)
		}
	}
	return found
}

// Count is the number of requests of an op at a company since the log was reset, those that left the log included.
// An empty company or op stands for all of them.
func (l *Log) Count(company, op string) int {
	l.mu.Lock()
	defer l.mu.Unlock()
	n := 0
	for key, count := range l.counts {
		if (company == "" || company == key[0]) && (op == "" || op == key[1]) {
			n += count
		}
	}
	return n
}

// Reset forgets all requests and counts.
func (l *Log) Reset() {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.requests, l.counts = nil, nil
}

// An Entry is a request in the log that may still be under way.
type Entry struct {
	log     *Log
	request *Request
}

// Request is what is known of the request now.
func (e *Entry) Request() Request {
	e.log.mu.Lock()
	defer e.log.mu.Unlock()
	return *e.request
}

// Note changes what the log says about the request.
func (e *Entry) Note(change func(*Request)) {
	e.log.mu.Lock()
	defer e.log.mu.Unlock()
	change(e.request)
}

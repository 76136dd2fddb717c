package erpsim

import (
	"strings"
	"sync"
)

// Forever is the Rule.Times of a fault that stays until the script is cleared.
const Forever = -1

// A Rule says which requests meet a fault.
type Rule struct {
	Company string `json:"company,omitempty"` // empty: any
	Op      string `json:"op,omitempty"`      // empty: any that reads data, tokens not among them
	Match   string `json:"match,omitempty"`   // text that the path or statement holds, whatever its case; empty: any
	Skip    int    `json:"skip,omitempty"`    // matching requests that pass before
	Times   int    `json:"times,omitempty"`   // matching requests that meet it then; 0 means 1; Forever
}

// A Script is a list of faults to come. Of several that match, the one added first is met. The zero Script is empty
// and ready; it is safe for concurrent use.
type Script[F any] struct {
	mu    sync.Mutex
	lines []*line[F]
}

type line[F any] struct {
	rule  Rule
	fault F
}

// Add puts a fault at the end of the script.
func (s *Script[F]) Add(r Rule, fault F) {
	if r.Times == 0 {
		r.Times = 1
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.lines = append(s.lines, &line[F]{r, fault})
}

// Clear forgets the faults of one company, or of all if company is empty.
func (s *Script[F]) Clear(company string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	var kept []*line[F]
	for _, l := range s.lines {
		if company != "" && l.rule.Company != company {
			kept = append(kept, l)
		}
	}
	s.lines = kept
}

// Next is the fault that a request meets, if any, and counts it as met. data says whether the request reads data, which
// rules without an Op are about.
func (s *Script[F]) Next(r Request, data bool) (fault F, met bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for i, l := range s.lines {
		if !l.rule.matches(r, data) {
			continue
		}
		if l.rule.Skip > 0 {
			l.rule.Skip--
			continue
		}
		if l.rule.Times != Forever {
			l.rule.Times--
			if l.rule.Times == 0 {
				s.lines = append(s.lines[:i:i], s.lines[i+1:]...)
			}
		}
		return l.fault, true
	}
	return fault, false
}

func (r Rule) matches(q Request, data bool) bool {
	if r.Company != "" && r.Company != q.Company {
		return false
	}
	if r.Op != q.Op && (r.Op != "" || !data) {
		return false
	}
	match := strings.ToLower(r.Match)
	return strings.Contains(strings.ToLower(q.Path), match) || strings.Contains(strings.ToLower(q.Statement), match)
}

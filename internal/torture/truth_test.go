package torture

import (
	"fmt"
	"maps"
	"regexp"
	"slices"
	"strings"
	"sync"
	"time"
)

// What follows is the campaign's own reading of what Centime must hold of an ERP. It is written from the design, not from
// the engine, and shares nothing with it.

// customerFacts and contactFacts are what Centime must hold of one record, by the names that history uses.
type customerFacts struct {
	facts  map[string]string // name, number, parent, bill_with_parent, kind
	active bool
}

type contactFacts struct {
	facts  map[string]string // name, given_name, family_name, job_title
	points []point
	active bool
}

type point struct {
	kind, field       string
	place             int
	value, normalised string
	main, primary     bool
	usable            bool
}

func (p point) String() string {
	return fmt.Sprintf("%s %s %d %q %q main=%t primary=%t usable=%t", p.kind, p.field, p.place, p.value, p.normalised, p.main, p.primary, p.usable)
}

// truth is what an ERP company holds at a moment.
type truth struct {
	customers map[string]customerFacts
	contacts  map[string]contactFacts // by the ERP's id; customer:<id> is a customer's own record
	links     map[[2]string]string    // ERP role key, by customer and contact
	records   int                     // rows that a full listing reads
	ignored   int                     // and those that it passes over: places at vendors, or of contacts that it does not show
	bare      bool                    // it has no contact, or no relation to a customer: an empty listing is an accident by itself
}

// fieldOf is one field of a contact's record by which it can be reached, raw.
type fieldOf struct {
	kind, field, value string
	main               bool
}

// points parts fields into contact points: a mail field may hold several addresses.
func points(fields ...fieldOf) []point {
	var all []point
	for _, f := range fields {
		values := []string{f.value}
		if f.kind == "email" {
			values = strings.FieldsFunc(f.value, func(r rune) bool { return r == ',' || r == ';' })
		}
		place := 0
		for _, v := range values {
			if v = strings.TrimSpace(v); v == "" {
				continue
			}
			place++
			p := point{kind: f.kind, field: f.field, place: place, value: v, normalised: v, main: f.main, usable: true}
			if f.kind == "email" {
				p.normalised, p.usable = address(v)
			}
			all = append(all, p)
		}
	}
	// The primary one of a kind: usable before unusable, the main field before others, then the order of the record.
	for _, kind := range []string{"email", "phone", "mobile", "fax", "web", "social"} {
		best := -1
		for i, p := range all {
			if p.kind != kind {
				continue
			}
			if best < 0 || p.usable && !all[best].usable || p.usable == all[best].usable && p.main && !all[best].main {
				best = i
			}
		}
		if best >= 0 {
			all[best].primary = true
		}
	}
	return all
}

// plainAddress is the only form of address that the simulated companies have, beside text that is none.
var plainAddress = regexp.MustCompile(`^[A-Za-z0-9.]+@[A-Za-z0-9-]+(\.[A-Za-z0-9-]+)+$`)

func address(text string) (string, bool) {
	if !plainAddress.MatchString(text) {
		return "", false
	}
	local, domain, _ := strings.Cut(text, "@")
	return local + "@" + strings.ToLower(domain), true
}

// timeline is what a company ever held, and when: what a deactivation is judged by.
type timeline struct {
	mu sync.Mutex
	// active says since when a record is active or not, oldest first.
	active map[string][]since // by entity and ERP id: "customer 7", "contact customer:7"
	// values are those a field ever had.
	values map[string]map[string]bool // by entity, ERP id and field
}

type since struct {
	from   time.Time // not later than the change
	active bool
}

func newTimeline() *timeline {
	return &timeline{active: map[string][]since{}, values: map[string]map[string]bool{}}
}

// note records the state of a record after a change that began at from. Nil facts: it is gone.
func (l *timeline) note(from time.Time, entity, id string, active bool, facts map[string]string) {
	l.mu.Lock()
	defer l.mu.Unlock()
	key := entity + " " + id
	if past := l.active[key]; len(past) == 0 || past[len(past)-1].active != active {
		l.active[key] = append(past, since{from, active})
	}
	for field, value := range facts {
		at := key + " " + field
		if l.values[at] == nil {
			l.values[at] = map[string]bool{}
		}
		l.values[at][value] = true
	}
}

// unreadable, before a kind, is in the timeline while a record of it cannot be read: it stays as it was, whatever it is meant to be.
const unreadable = "unreadable "

// roleOf is in the timeline while a place has a role, which only its own row states.
const roleOf = "role of a place"

// inactiveBetween says whether a record was inactive or gone at some moment from one time to another.
func (l *timeline) inactiveBetween(entity, id string, from, to time.Time) bool {
	met, known := l.met(entity, id, false, from, to)
	return met || !known
}

// activeBetween says whether a record was there and active at some moment from one time to another.
func (l *timeline) activeBetween(entity, id string, from, to time.Time) bool {
	met, _ := l.met(entity, id, true, from, to)
	return met
}

func (l *timeline) met(entity, id string, active bool, from, to time.Time) (met, known bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	past := l.active[entity+" "+id]
	for i, s := range past {
		end := to
		if i+1 < len(past) {
			end = past[i+1].from.Add(settling) // the next state may have begun a little later than noted
		}
		if s.active == active && !s.from.After(to) && !end.Before(from) {
			return true, true
		}
	}
	return false, len(past) > 0
}

// settling is longer than any single change of a simulated company takes.
const settling = 2 * time.Second

// ever says whether a field of a record ever had a value.
func (l *timeline) ever(entity, id, field, value string) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.values[entity+" "+id+" "+field][value]
}

// flat is what history may say of a contact: its facts and the values of its points.
func (c contactFacts) flat() map[string]string {
	all := maps.Clone(c.facts)
	for _, p := range c.points {
		all[fmt.Sprintf("point:%s:%d", p.field, p.place)] = p.value
	}
	return all
}

func sorted[V any](m map[string]V) []string { return slices.Sorted(maps.Keys(m)) }

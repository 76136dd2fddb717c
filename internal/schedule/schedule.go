// Package schedule says when a connection is due: at an interval, at clock times, or never.
package schedule

import (
	"fmt"
	"hash/fnv"
	"strconv"
	"strings"
	"time"
	_ "time/tzdata" // zones must not depend on what is installed

	"github.com/robfig/cron/v3"
)

// Min is the shortest interval.
const Min = time.Minute

// withoutSchedule is how long data of a connection that is never due counts as fresh.
const withoutSchedule = 24 * time.Hour

const usage = "write `@every 1h` (1m or longer, in whole seconds), `off`, or five cron fields " +
	"(minute, hour, day of month, month, day of week 0-6) such as `30 6 * * 1-5`, " +
	"with `CRON_TZ=America/New_York ` before them where they do not mean UTC"

// A Schedule says when a connection is due. The zero value is off.
type Schedule struct {
	text  string
	every time.Duration
	cron  *cron.SpecSchedule // in UTC: it is asked about clock readings, not about instants
	zone  *time.Location
}

// Parse reads `@every 1h` (any Go duration of whole seconds from Min), `off`, or five cron fields with an optional
// `CRON_TZ=America/New_York ` before them. The error says in one sentence what is wrong and what is allowed.
func Parse(s string) (Schedule, error) {
	text := strings.Join(strings.Fields(s), " ")
	parsed, err := parse(text)
	if err != nil {
		return Schedule{}, fmt.Errorf("schedule %q: %w; %s", text, err, usage)
	}
	parsed.text = text
	return parsed, nil
}

func parse(text string) (Schedule, error) {
	if text == "off" {
		return Schedule{}, nil
	}
	if interval, ok := strings.CutPrefix(text, "@every "); ok {
		d, err := time.ParseDuration(interval)
		switch {
		case err != nil:
			return Schedule{}, fmt.Errorf("%q is no duration", interval)
		case d < Min:
			return Schedule{}, fmt.Errorf("%s is too short", d)
		case d%time.Second != 0:
			return Schedule{}, fmt.Errorf("%s is not whole seconds", d)
		}
		return Schedule{every: d}, nil
	}

	zone := time.UTC
	if rest, ok := strings.CutPrefix(text, "CRON_TZ="); ok {
		name, fields, _ := strings.Cut(rest, " ")
		loaded, err := time.LoadLocation(name)
		if err != nil || name == "" || name == "Local" { // Local would differ between two workers
			return Schedule{}, fmt.Errorf("%q is no time zone", name)
		}
		zone, text = loaded, fields
	}
	if n := len(strings.Fields(text)); n != 5 {
		return Schedule{}, fmt.Errorf("not five fields but %d", n)
	}
	// The parser's own zone prefix is kept out: without a space behind it the parser panics.
	if strings.Contains(text, "=") {
		return Schedule{}, fmt.Errorf("unexpected =")
	}
	parsed, err := cron.NewParser(cron.Minute | cron.Hour | cron.Dom | cron.Month | cron.Dow).Parse(text)
	if err != nil {
		return Schedule{}, err
	}
	spec, ok := parsed.(*cron.SpecSchedule)
	if !ok {
		return Schedule{}, fmt.Errorf("not cron fields")
	}
	spec.Location = time.UTC
	if spec.Next(time.Date(2001, 1, 1, 0, 0, 0, 0, time.UTC)).IsZero() { // within five years, a leap day among them
		return Schedule{}, fmt.Errorf("no such day ever comes")
	}
	return Schedule{cron: spec, zone: zone}, nil
}

// String is the schedule as Parse takes it.
func (s Schedule) String() string {
	if s.text == "" {
		return "off"
	}
	return s.text
}

// Off tells whether the schedule is never due.
func (s Schedule) Off() bool { return s.every == 0 && s.cron == nil }

// Next is the first due time after a time, in UTC and in whole seconds; the zero time if it is never due.
//
// Intervals are counted from the Unix epoch and shifted by a hash of the seed, the connection's id: connections of one
// interval are spread evenly over it, and neither a restart nor a late run moves a due time.
//
// Cron fields are clock times in their zone. A time that the clock skips when it is put forward is due at the moment of
// the change; one that it shows twice when it is put back is due the first time only.
func (s Schedule) Next(after time.Time, seed int64) time.Time {
	switch {
	case s.every > 0:
		interval := int64(s.every / time.Second)
		phase := shift(seed, interval)
		since := after.Unix() - phase
		steps := since / interval
		if since%interval < 0 {
			steps--
		}
		return time.Unix(phase+(steps+1)*interval, 0).UTC()
	case s.cron != nil:
		// instant never falls as its reading rises, so the first reading that lies late enough is the next due time.
		for r := s.cron.Next(reading(after.In(s.zone))); !r.IsZero(); r = s.cron.Next(r) {
			if t := instant(r, s.zone); t.After(after) {
				return t
			}
		}
	}
	return time.Time{}
}

// Stale is the time from which data read at lastSuccess is stale: the second due time after it, or a day later without
// a schedule.
func (s Schedule) Stale(lastSuccess time.Time, seed int64) time.Time {
	if s.Off() {
		return lastSuccess.Add(withoutSchedule).UTC()
	}
	return s.Next(s.Next(lastSuccess, seed), seed)
}

// Spread is a delay shorter than over, in whole milliseconds, that differs from seed to seed and not from call to call.
func Spread(seed int64, over time.Duration) time.Duration {
	if over < time.Millisecond {
		return 0
	}
	return time.Duration(shift(seed, over.Milliseconds())) * time.Millisecond
}

// shift spreads seeds over [0, interval).
func shift(seed, interval int64) int64 {
	h := fnv.New64a()
	_, _ = h.Write([]byte(strconv.FormatInt(seed, 10)))
	return int64(h.Sum64()>>1) % interval
}

// reading is what a clock shows at t, written as a UTC time.
func reading(t time.Time) time.Time {
	_, offset := t.Zone()
	return t.UTC().Add(time.Duration(offset) * time.Second)
}

// instant is the first moment at which a clock in the zone shows a reading or has passed it.
func instant(r time.Time, zone *time.Location) time.Time {
	t := r.Add(-24 * time.Hour).In(zone) // early enough: no zone is a day from UTC
	for {
		_, offset := t.Zone()
		shown := r.Add(-time.Duration(offset) * time.Second)
		if shown.Before(t) {
			shown = t // the change to this offset skipped the reading
		}
		_, end := t.ZoneBounds()
		if end.IsZero() || shown.Before(end) {
			return shown.UTC()
		}
		t = end
	}
}

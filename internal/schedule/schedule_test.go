package schedule

import (
	"strings"
	"testing"
	"time"

	"pgregory.net/rapid"
)

func must(t testing.TB, text string) Schedule {
	t.Helper()
	s, err := Parse(text)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func at(t testing.TB, text string) time.Time {
	t.Helper()
	parsed, err := time.Parse(time.RFC3339, text)
	if err != nil {
		t.Fatal(err)
	}
	return parsed
}

func TestParse(t *testing.T) {
	t.Parallel()
	for text, want := range map[string]string{
		"@every 1h":                             "@every 1h",
		" @every  90s ":                         "@every 90s",
		"@every 1m":                             "@every 1m",
		"off":                                   "off",
		"0 6 * * 1-5":                           "0 6 * * 1-5",
		"0\t6 * * MON":                          "0 6 * * MON",
		"CRON_TZ=America/New_York 30 2 * * *":   "CRON_TZ=America/New_York 30 2 * * *",
		"CRON_TZ=UTC   */15 8-18/2 1,15 jan ?":  "CRON_TZ=UTC */15 8-18/2 1,15 jan ?",
		"0 0 29 2 *":                            "0 0 29 2 *",
		"CRON_TZ=Pacific/Kiritimati 0 12 * * 0": "CRON_TZ=Pacific/Kiritimati 0 12 * * 0",
	} {
		if got := must(t, text).String(); got != want {
			t.Errorf("%q reads back as %q, want %q", text, got, want)
		}
	}
	if got := (Schedule{}).String(); got != "off" {
		t.Errorf("the zero schedule is %q, want off", got)
	}
}

// One sentence tells what is wrong and everything that is allowed.
func TestParseSaysWhatIsAllowed(t *testing.T) {
	t.Parallel()
	for text, why := range map[string]string{
		"":                                   "not five fields but 0",
		"hourly":                             "not five fields but 1",
		"@hourly":                            "not five fields but 1",
		"@every":                             "not five fields but 1",
		"@every soon":                        `"soon" is no duration`,
		"@every 59s":                         "59s is too short",
		"@every -1h":                         "too short",
		"@every 1m0.5s":                      "not whole seconds",
		"0 0 6 * * *":                        "not five fields but 6",
		"0 25 * * *":                         "above maximum (23)",
		"0 6 * * 7":                          "above maximum (6)",
		"0 0 30 2 *":                         "no such day ever comes",
		", 0 * * *":                          "no such day ever comes",
		"CRON_TZ=Mars/Olympus 0 6 * * *":     `"Mars/Olympus" is no time zone`,
		"CRON_TZ= 0 6 * * *":                 `"" is no time zone`,
		"CRON_TZ=Local 0 6 * * *":            `"Local" is no time zone`,
		"CRON_TZ=America/New_York":           "not five fields but 0",
		"CRON_TZ=UTC CRON_TZ=UTC 0 6 * * *":  "not five fields but 6",
		"TZ=UTC 0 6 * *":                     "unexpected =",
		"CRON_TZ=America/New_York @every 1h": "not five fields but 2",
	} {
		_, err := Parse(text)
		if err == nil {
			t.Errorf("%q was accepted", text)
			continue
		}
		for _, part := range []string{why, "`@every 1h`", "`off`", "five cron fields", "CRON_TZ=America/New_York"} {
			if !strings.Contains(err.Error(), part) {
				t.Errorf("%q: error %q lacks %q", text, err, part)
			}
		}
		if strings.Contains(err.Error(), "\n") {
			t.Errorf("%q: error %q has more than a line", text, err)
		}
	}
}

func TestOffIsNeverDue(t *testing.T) {
	t.Parallel()
	now := at(t, "2026-11-24T08:00:00Z")
	off := must(t, "off")
	if next := off.Next(now, 1); !next.IsZero() || !off.Off() {
		t.Errorf("off is due at %v", next)
	}
	if got, want := off.Stale(now, 1), now.Add(24*time.Hour); !got.Equal(want) {
		t.Errorf("stale at %v, want a day later, %v", got, want)
	}
}

// Cron fields are clock times, on the days of both changes too.
func TestCronFollowsTheClock(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		name, schedule, from string
		want                 []string
	}{
		{
			"UTC without a zone", "30 6 * * *", "2026-03-07T12:00:00+09:00",
			[]string{"2026-03-07T06:30:00Z", "2026-03-08T06:30:00Z"},
		},
		{
			"the same clock time over the change to summer", "CRON_TZ=America/New_York 0 6 * * *", "2026-03-07T00:00:00Z",
			[]string{"2026-03-07T11:00:00Z", "2026-03-08T10:00:00Z", "2026-03-09T10:00:00Z"},
		},
		{
			"a skipped time is due at the change", "CRON_TZ=America/New_York 30 2 * * *", "2026-03-07T00:00:00Z",
			[]string{"2026-03-07T07:30:00Z", "2026-03-08T07:00:00Z", "2026-03-09T06:30:00Z"},
		},
		{
			"skipped times are due once", "CRON_TZ=America/New_York */20 2 * * *", "2026-03-08T00:00:00Z",
			[]string{"2026-03-08T07:00:00Z", "2026-03-09T06:00:00Z", "2026-03-09T06:20:00Z"},
		},
		{
			"skipped hours of an hourly schedule fall together with the next", "CRON_TZ=America/New_York 0 * * * *",
			"2026-03-08T05:30:00Z", []string{"2026-03-08T06:00:00Z", "2026-03-08T07:00:00Z", "2026-03-08T08:00:00Z"},
		},
		{
			"a time that comes twice is due once", "CRON_TZ=America/New_York 30 1 * * *", "2026-10-31T12:00:00Z",
			[]string{"2026-11-01T05:30:00Z", "2026-11-02T06:30:00Z"},
		},
		{
			"asked between the two", "CRON_TZ=America/New_York 30 1 * * *", "2026-11-01T05:45:00Z",
			[]string{"2026-11-02T06:30:00Z"},
		},
		{
			"asked within the second", "CRON_TZ=America/New_York 30,50 1 * * *", "2026-11-01T06:40:00Z",
			[]string{"2026-11-02T06:30:00Z"},
		},
		{
			"a midnight that does not exist", "CRON_TZ=America/Santiago 0 0 * * *", "2026-09-05T12:00:00Z",
			[]string{"2026-09-06T04:00:00Z", "2026-09-07T03:00:00Z"},
		},
		{
			"half an hour's change", "CRON_TZ=Australia/Lord_Howe 15 2 * * *", "2026-10-02T20:00:00Z",
			[]string{"2026-10-03T15:30:00Z", "2026-10-04T15:15:00Z"},
		},
		{
			"a day that does not exist", "CRON_TZ=Pacific/Apia 0 12 * * *", "2011-12-29T00:00:00Z",
			[]string{"2011-12-29T22:00:00Z", "2011-12-30T10:00:00Z", "2011-12-30T22:00:00Z"},
		},
		{
			"the leap day", "0 0 29 2 *", "2026-03-01T00:00:00Z",
			[]string{"2028-02-29T00:00:00Z", "2032-02-29T00:00:00Z"},
		},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			s, now := must(t, c.schedule), at(t, c.from)
			for _, want := range c.want {
				next := s.Next(now, 7)
				if !next.Equal(at(t, want)) {
					t.Fatalf("after %s due at %s, want %s", now.Format(time.RFC3339), next.Format(time.RFC3339), want)
				}
				now = next
			}
		})
	}
}

// Every zone's day, changes of the clock included, is due exactly once on a daily schedule.
func TestDailyIsDueOnceADay(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(t *rapid.T) {
		zone := rapid.SampledFrom([]string{
			"America/New_York", "Europe/Berlin", "Australia/Lord_Howe", "America/Santiago", "Asia/Tehran", "UTC",
			"Africa/Casablanca", "America/St_Johns", "Antarctica/Troll", "Pacific/Chatham",
		}).Draw(t, "zone")
		loc, err := time.LoadLocation(zone)
		if err != nil {
			t.Fatal(err)
		}
		hour, minute := rapid.IntRange(0, 23).Draw(t, "hour"), rapid.IntRange(0, 59).Draw(t, "minute")
		s, err := Parse("CRON_TZ=" + zone + " " + time.Date(0, 1, 1, hour, minute, 0, 0, time.UTC).Format("4 15") + " * * *")
		if err != nil {
			t.Fatal(err)
		}
		day := time.Date(2015+rapid.IntRange(0, 20).Draw(t, "year"), 1, 1, 12, 0, 0, 0, time.UTC)
		now := s.Next(day, 0)
		for range 400 {
			next := s.Next(now, 0)
			// Noon of the day after the last due time is in the day that is due next.
			was, is := now.In(loc), next.In(loc)
			tomorrow := time.Date(was.Year(), was.Month(), was.Day()+1, 12, 0, 0, 0, loc)
			if is.YearDay() != tomorrow.YearDay() || is.Year() != tomorrow.Year() {
				t.Fatalf("due at %v and then at %v", was, is)
			}
			now = next
		}
	})
}

// A due time depends on the connection and the clock alone: not on when it is asked, nor in which zone.
func TestEvery(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(t *rapid.T) {
		interval := time.Duration(rapid.Int64Range(60, 40*24*3600).Draw(t, "seconds")) * time.Second
		s, err := Parse("@every " + interval.String())
		if err != nil {
			t.Fatal(err)
		}
		seed := rapid.Int64().Draw(t, "seed")
		after := time.Unix(rapid.Int64Range(-1<<33, 1<<33).Draw(t, "after"), rapid.Int64Range(0, 999_999_999).Draw(t, "ns"))
		next := s.Next(after, seed)
		if wait := next.Sub(after); wait <= 0 || wait > interval {
			t.Fatalf("due %v after, with an interval of %v", wait, interval)
		}
		between := after.Add(time.Duration(rapid.Int64Range(0, int64(next.Sub(after))-1).Draw(t, "later")))
		if again := s.Next(between.In(time.FixedZone("", 3600)), seed); !again.Equal(next) {
			t.Fatalf("asked at %v due at %v, asked at %v at %v", after, next, between, again)
		}
		if second := s.Next(next, seed); second.Sub(next) != interval {
			t.Fatalf("due %v after the due time before", second.Sub(next))
		}
		if stale := s.Stale(after, seed); stale.Sub(next) != interval {
			t.Fatalf("stale at %v, want the second due time %v", stale, next.Add(interval))
		}
	})
}

// A thousand hourly connections do not ask their ERP in the same minute.
func TestEverySpreadsConnections(t *testing.T) {
	t.Parallel()
	s, now := must(t, "@every 1h"), at(t, "2026-11-24T08:00:00Z")
	perMinute := map[int]int{}
	for id := range int64(6000) {
		perMinute[s.Next(now, id).Minute()]++
	}
	for minute := range 60 {
		if n := perMinute[minute]; n < 50 || n > 200 {
			t.Errorf("%d of 6000 connections are due in minute %d, want about 100", n, minute)
		}
	}
}

func TestStaleOfCron(t *testing.T) {
	t.Parallel()
	s := must(t, "0 6 * * 1-5")
	// A success on Friday afternoon is fresh until Tuesday.
	if got, want := s.Stale(at(t, "2026-11-20T15:00:00Z"), 1), at(t, "2026-11-24T06:00:00Z"); !got.Equal(want) {
		t.Errorf("stale at %v, want %v", got, want)
	}
}

// Whatever a person types, Parse answers, and what it accepts is due in the future and reads back the same.
func FuzzParse(f *testing.F) {
	for _, s := range []string{
		"@every 1h", "@every 1h30m", "@every 9223372036s", "off", "0 6 * * 1-5", "CRON_TZ=America/New_York 30 2 * * *",
		"TZ=A\t1\t2\t3\t4", "CRON_TZ=", "CRON_TZ=UTC\t* * * * *", "*/0 * * * *", "0/9223372036854775807 * * * *", "@daily",
		"0 0 31 4,6 *", ",,,,, 1 1 1 1", "CRON_TZ=../etc/passwd 1 1 1 1 1", "1-5-7 * * * *", "*-3/2/1 * * * *",
	} {
		f.Add(s, int64(42))
	}
	now := time.Date(2026, 11, 24, 8, 0, 0, 0, time.UTC)
	f.Fuzz(func(t *testing.T, text string, seed int64) {
		s, err := Parse(text)
		if err != nil {
			return
		}
		again, err := Parse(s.String())
		if err != nil || again.String() != s.String() {
			t.Fatalf("%q reads back as %q: %v", text, again, err)
		}
		next := s.Next(now, seed)
		if !s.Off() && !next.After(now) {
			t.Fatalf("%q is due at %v, not after %v", text, next, now)
		}
		if !again.Next(now, seed).Equal(next) {
			t.Fatalf("%q and %q are due at different times", s, again)
		}
	})
}

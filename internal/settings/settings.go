// Package settings holds the settings of a connection: their names, defaults and limits.
package settings

import (
	"errors"
	"fmt"
	"maps"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"time"
)

// Settings of one connection, checked. Those that were not set have their defaults.
type Settings struct {
	APIURL               string        // empty: the ERP's production host
	TokenURL             string        // empty: the ERP's production host
	FullEvery            time.Duration // a scheduled run is full when the last full one is older
	RequestsPerSecond    float64       // 0: what the ERP allows
	BrakeMin             int           // up to so many customer contacts may go whatever the share
	BrakePercent         float64       // more missing ones than this share of the active are held
	BrakeInactivePercent float64       // the same for those the ERP itself states inactive
}

// Map is what is stored: only the settings that were set, by name, as they were written.
type Map map[string]string

// definition of a setting: how its text is read into a Settings, and its default.
type definition struct {
	byDefault string
	read      func(s *Settings, text string) error
}

var definitions = map[string]definition{
	"api_url":   {"", func(s *Settings, text string) error { return readURL(&s.APIURL, text) }},
	"token_url": {"", func(s *Settings, text string) error { return readURL(&s.TokenURL, text) }},
	"full_every": {"24h", func(s *Settings, text string) (err error) {
		if s.FullEvery, err = time.ParseDuration(text); err != nil || s.FullEvery < time.Minute {
			return errors.New("is a duration of a minute or more, such as 24h")
		}
		return nil
	}},
	"requests_per_second": {"0", func(s *Settings, text string) error {
		return readNumber(&s.RequestsPerSecond, text, 0, 1000)
	}},
	"brake_min": {"5", func(s *Settings, text string) (err error) {
		if s.BrakeMin, err = strconv.Atoi(text); err != nil || s.BrakeMin < 0 {
			return errors.New("is a whole number from 0 on, such as 5")
		}
		return nil
	}},
	"brake_percent":          {"5", func(s *Settings, text string) error { return readNumber(&s.BrakePercent, text, 0, 100) }},
	"brake_inactive_percent": {"30", func(s *Settings, text string) error { return readNumber(&s.BrakeInactivePercent, text, 0, 100) }},
}

// Read checks a stored map and fills in the defaults.
func Read(m Map) (Settings, error) {
	var s Settings
	for name, d := range definitions {
		text, set := m[name]
		if !set {
			text = d.byDefault
		}
		if err := d.read(&s, text); err != nil {
			return Settings{}, fmt.Errorf("setting %s %w", name, err)
		}
	}
	for name := range m {
		if _, known := definitions[name]; !known {
			return Settings{}, fmt.Errorf("there is no setting %q: use one of %s", name, strings.Join(Names(), ", "))
		}
	}
	return s, nil
}

// Change applies words of the form key=value to a map and returns the new one, checked; `key=` goes back to the default.
func (m Map) Change(words []string) (Map, error) {
	changed := Map{}
	maps.Copy(changed, m)
	for _, word := range words {
		name, value, ok := strings.Cut(word, "=")
		if !ok {
			return nil, fmt.Errorf("%q is not of the form key=value", word)
		}
		if value == "" {
			delete(changed, name)
		} else {
			changed[name] = value
		}
	}
	_, err := Read(changed)
	return changed, err
}

// Names of all settings, sorted.
func Names() []string { return slices.Sorted(maps.Keys(definitions)) }

func readURL(to *string, text string) error {
	*to = text
	if text == "" {
		return nil
	}
	u, err := url.Parse(text)
	if err != nil || u.Host == "" || (u.Scheme != "https" && u.Scheme != "http") || u.User != nil {
		return errors.New("is an http or https URL without user and password")
	}
	return nil
}

func readNumber(to *float64, text string, low, high float64) (err error) {
	if *to, err = strconv.ParseFloat(text, 64); err != nil || !(*to >= low && *to <= high) {
		return fmt.Errorf("is a number from %g to %g", low, high)
	}
	return nil
}

package sentinel_test

import (
	"reflect"
	"strings"
	"testing"

	"github.com/centime/contactsync/internal/queue/sentinel"
)

// TestParse guards that each part of a URL arrives where it belongs, several hosts and escaped passwords too.
func TestParse(t *testing.T) {
	t.Parallel()
	for text, want := range map[string]sentinel.URL{
		"redis-sentinel://one/?master=m": {Addrs: []string{"one:26379"}, Master: "m"},
		"rediss-sentinel://:p%40s@one:1,two/3?master=m": {
			Addrs: []string{"one:1", "two:26379"}, Master: "m", TLS: true, Password: "p@s", Database: 3,
		},
		"redis-sentinel://u:p@[::1]:1,[::2]?master=m&sentinel_user=su&sentinel_password=s%26p": {
			Addrs: []string{"[::1]:1", "[::2]:26379"}, Master: "m", User: "u", Password: "p", SentinelUser: "su", SentinelPassword: "s&p",
		},
		sentinel.Example: {Addrs: []string{"host:26379", "host:26379"}, Master: "NAME", User: "user", Password: "password"},
	} {
		got, err := sentinel.Parse(text)
		if err != nil || !reflect.DeepEqual(got, want) || !sentinel.Named(text) {
			t.Errorf("%s: %+v, %v", text, got, err)
		}
	}
	if sentinel.Named("redis://h/0") {
		t.Error("a Redis is taken for a Sentinel")
	}
}

// TestParseSaysWhatIsWrong and repeats nothing, since a URL holds a password.
func TestParseSaysWhatIsWrong(t *testing.T) {
	t.Parallel()
	for text, want := range map[string]string{
		"redis-sentinel://u:hunter2@h":                    "add ?master=NAME",
		"redis-sentinel://u:hunter2@h/0?master=":          "add ?master=NAME",
		"redis-sentinel://u:hunter2@h,/0?master=m":        "host:port,host:port",
		"redis-sentinel://u:hunter2@?master=m":            "host:port,host:port",
		"redis-sentinel://u:hunter2@h:http/0?master=m":    "host:port,host:port",
		"redis-sentinel://u:hunter2@h/first?master=m":     "database",
		"redis-sentinel://u:hunter2@h/0?master=m&mster=m": "only master",
		"redis-sentinel://u:hunter2@h/0?master=m;x=%zz":   "question mark",
		"redis-sentinel://u:hunter2@h/0#mymaster":         "cannot be read",
		"redis-sentinel://u:hunter2%zz@h/0?master=m":      "cannot be read",
	} {
		_, err := sentinel.Parse(text)
		if err == nil || !strings.Contains(err.Error(), want) || strings.Contains(err.Error(), "hunter2") {
			t.Errorf("%s: %v, want %q", text, err, want)
		}
	}
}

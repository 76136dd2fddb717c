package connector_test

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/centime/contactsync/internal/connector"
)

// secrets is every text in a set of credentials that could log in.
var secrets = []string{"refresh-secret", "access-secret", "key-secret", "certificate-secret", "client-secret"}

func full() connector.Credentials {
	at := time.Date(2026, 3, 2, 10, 0, 0, 0, time.UTC)
	return connector.Credentials{
		RefreshToken: "refresh-secret", RefreshExpiresAt: &at, RefreshEndsAt: &at, ClientID: "client-secret",
		CertificateID: "certificate-secret", PrivateKey: "key-secret", AccessToken: "access-secret", ExpiresAt: &at,
	}
}

func quiet(t *testing.T, how, printed string) {
	t.Helper()
	if printed == "" {
		t.Errorf("%s prints nothing at all", how)
	}
	for _, s := range secrets {
		if strings.Contains(printed, s) {
			t.Errorf("%s prints %s", how, s)
			return
		}
	}
}

type holder struct {
	Value   connector.Credentials
	Pointer *connector.Credentials
}

// Credentials get into no output by accident: not by themselves, by pointer, nor inside of what is printed.
func TestCredentialsPrintNothing(t *testing.T) {
	t.Parallel()
	c := full()
	values := map[string]any{
		"value": c, "pointer": &c, "struct": holder{c, &c}, "pointer to struct": &holder{c, &c},
		"slice": []connector.Credentials{c}, "map": map[string]connector.Credentials{"a": c}, "any": []any{c, &c},
	}
	for name, v := range values {
		for _, verb := range []string{"%v", "%+v", "%#v", "%s", "%q", "%x", "%X"} {
			quiet(t, verb+" of a "+name, fmt.Sprintf(verb, v))
		}
		quiet(t, "the text log of a "+name, logged(textLog, v))
		quiet(t, "an error about a "+name, fmt.Errorf("open %v: %w", v, errors.ErrUnsupported).Error())
	}
	for _, name := range []string{"value", "pointer"} {
		quiet(t, "the JSON log of a "+name, logged(jsonLog, values[name]))
		quiet(t, "the JSON log of a group with a "+name, logged(jsonLog, slog.GroupValue(slog.Any("c", values[name]))))
	}
	quiet(t, "%v of an unexported pointer", fmt.Sprintf("%v %+v", struct{ c *connector.Credentials }{&c},
		struct{ c *connector.Credentials }{&c}))
	quiet(t, "Println", fmt.Sprintln(c, &c))
}

func TestCredentialsAreHiddenInsideOtherValues(t *testing.T) {
	t.Parallel()
	c := full()
	t.Run("the JSON log of a struct or slice", func(t *testing.T) {
		t.Parallel()
		quiet(t, "the JSON log of a struct", logged(jsonLog, holder{c, &c}))
		quiet(t, "the JSON log of a slice", logged(jsonLog, []connector.Credentials{c}))
	})
	t.Run("a verb for numbers", func(t *testing.T) {
		t.Parallel()
		for _, verb := range []string{"%d", "%t", "%c"} {
			quiet(t, verb, fmt.Sprintf(verb, c))
		}
	})
}

func textLog(b *bytes.Buffer) slog.Handler { return slog.NewTextHandler(b, nil) }
func jsonLog(b *bytes.Buffer) slog.Handler { return slog.NewJSONHandler(b, nil) }

func logged(handler func(*bytes.Buffer) slog.Handler, v any) string {
	var b bytes.Buffer
	slog.New(handler(&b)).With("before", v).WithGroup("group").Info("message", "credentials", v)
	return b.String()
}

// The document that is sealed holds everything, and reads back the same; what is not there stays out of it.
func TestCredentialsDocument(t *testing.T) {
	t.Parallel()
	type document connector.Credentials // as the sealer sees it
	c := full()
	b, err := json.Marshal(document(c))
	if err != nil {
		t.Fatal(err)
	}
	var got connector.Credentials
	if err := json.Unmarshal(b, &got); err != nil {
		t.Fatal(err)
	}
	again, err := json.Marshal(document(got))
	if err != nil || !bytes.Equal(again, b) {
		t.Errorf("the document changes when it is read, error %v", err)
	}
	for _, s := range secrets {
		if !strings.Contains(string(b), s) {
			t.Errorf("the document lacks %s", s)
		}
	}
	if b, err := json.Marshal(document{}); err != nil || string(b) != "{}" {
		t.Errorf("no credentials are the document %s, error %v", b, err)
	}
}

// TestParseCredentials: what no field has is named, so that a connector can say what is wrong, and an error repeats nothing.
func TestParseCredentials(t *testing.T) {
	t.Parallel()
	c, err := connector.ParseCredentials([]byte(`{"client_id":"a","token_id":"b","alg":"c"}`))
	if err != nil || c.ClientID != "a" || !slices.Equal(c.Unknown, []string{"alg", "token_id"}) {
		t.Errorf("%q %v", c.Unknown, err)
	}
	for _, bad := range []string{"", "null", "[]", `{"client_id":7}`, "key-secret"} {
		c, err := connector.ParseCredentials([]byte(bad))
		if bad != "null" && (err == nil || strings.Contains(err.Error(), "secret")) {
			t.Errorf("%q: %v %v", bad, c.Unknown, err)
		}
	}
}

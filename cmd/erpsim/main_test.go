package main

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"flag"
	"io"
	"net/http"
	"strings"
	"testing"
)

func TestServesUntilItIsStopped(t *testing.T) {
	t.Parallel()
	ctx, stop := context.WithCancel(t.Context())
	defer stop()
	out, in := io.Pipe()
	stopped := make(chan error, 1)
	go func() {
		args := []string{"-company", "77=Harbor = Sons=25", "-company", "78=Empty=0", "-prerender", "-netsuite", "1234567_SB1=Fjord=5"}
		stopped <- run(ctx, args, in, io.Discard)
	}()
	line, err := bufio.NewReader(out).ReadBytes('\n')
	if err != nil {
		t.Fatal(err)
	}
	var ready struct{ Listen, Control string }
	if err := json.Unmarshal(line, &ready); err != nil {
		t.Fatal(err)
	}
	get := func(url string) string {
		r, _ := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
		resp, err := http.DefaultClient.Do(r)
		if err != nil {
			t.Fatal(err)
		}
		defer func() { _ = resp.Body.Close() }()
		body, _ := io.ReadAll(resp.Body)
		return strings.TrimSpace(string(body))
	}
	const want = `[{"realm":"77","name":"Harbor = Sons","customers":25},{"realm":"78","name":"Empty","customers":0}]`
	if got := get(ready.Control + "/companies"); got != want {
		t.Errorf("companies: %s", got)
	}
	if got := get(ready.Listen + "/v3/company/77/companyinfo/77"); !strings.Contains(got, `"code":"3200"`) {
		t.Errorf("without a token: %s", got)
	}
	if got := get(ready.Control + "/netsuite/accounts"); !strings.Contains(got, `"account":"1234567_SB1","name":"Fjord","customers":5,"contacts":10`) {
		t.Errorf("accounts: %s", got)
	}
	if got := get(ready.Listen + "/1234567-sb1/services/rest/system/v1/serverTime"); !strings.Contains(got, "INVALID_LOGIN") {
		t.Errorf("NetSuite without a token: %s", got)
	}
	stop()
	if err := <-stopped; err != nil {
		t.Errorf("stopped with %v", err)
	}
}

func TestSaysWhatIsWrongWithItsArguments(t *testing.T) {
	t.Parallel()
	for _, c := range []struct{ args, want string }{
		{"-company 77", "want realm=name=count"},
		{"-netsuite 77", "want account=name=count"},
		{"-company 77=x=many", "count: want a number of customers"},
		{"-nope", "flag provided but not defined"},
		{"extra", `unexpected argument "extra"`},
		{"-help", `erpsim -listen 127.0.0.1:8089`},
	} {
		var said bytes.Buffer
		err := run(t.Context(), strings.Fields(c.args), io.Discard, &said)
		if !errors.Is(err, errUsage) && !errors.Is(err, flag.ErrHelp) || !strings.Contains(said.String(), c.want) {
			t.Errorf("%s: %v\n%s", c.args, err, said.String())
		}
	}
	if err := run(t.Context(), []string{"-listen", "127.0.0.1:-1"}, io.Discard, io.Discard); err == nil {
		t.Error("listened at no port")
	}
}

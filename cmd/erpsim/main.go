// Command erpsim serves simulated ERPs for development, the demo and tests.
package main

import (
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/signal"
	"strconv"
	"strings"
	"syscall"
	"time"

	"github.com/centime/contactsync/internal/erpsim/netsuite"
	"github.com/centime/contactsync/internal/erpsim/qbo"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	err := run(ctx, os.Args[1:], os.Stdout, os.Stderr)
	stop()
	switch {
	case errors.Is(err, flag.ErrHelp):
	case errors.Is(err, errUsage):
		os.Exit(2) // the flag package has said what is wrong
	case err != nil:
		fmt.Fprintf(os.Stderr, "erpsim: %v\n", err)
		os.Exit(1)
	}
}

var errUsage = errors.New("wrong usage")

const usage = `erpsim serves a simulated QuickBooks Online and a simulated NetSuite until it is interrupted. When ready it prints
one line of JSON with the address of the ERPs and that of the control port, which changes data, scripts faults and shows
the requests. Both ERPs are at the one address; NetSuite's control port is below /netsuite.

  erpsim -listen 127.0.0.1:8089 -control 127.0.0.1:8090 -company 9130350000000001="Northwind Kelp"=2000 \
    -netsuite 1234567_SB1="Fjord Glass"=1000
  curl -X POST http://127.0.0.1:8090/companies/9130350000000001/credentials > quickbooks.json
  curl -X POST http://127.0.0.1:8090/netsuite/accounts/1234567_SB1/credentials > netsuite.json

`

type settings struct {
	listen, control string
	companies       []company // of QuickBooks
	accounts        []company // of NetSuite
	seed            uint64
	prerender       bool
	online          qbo.Options
}

type company struct {
	id, name  string
	customers int
}

func parse(args []string, stderr io.Writer) (settings, error) {
	var s settings
	f := flag.NewFlagSet("erpsim", flag.ContinueOnError)
	f.SetOutput(stderr)
	f.Usage = func() {
		fmt.Fprint(stderr, usage)
		f.PrintDefaults()
	}
	f.StringVar(&s.listen, "listen", "127.0.0.1:0", "`address` of the ERP; port 0 is any free one")
	f.StringVar(&s.control, "control", "127.0.0.1:0", "`address` of the control port; keep it on loopback")
	f.Func("company", "a QuickBooks company, `realm=name=count` of made-up customers; may be repeated", func(text string) error {
		return add(&s.companies, text, "realm=name=count")
	})
	f.Func("netsuite", "a NetSuite account, `account=name=count` of made-up customers, with twice as many contacts; may be repeated",
		func(text string) error { return add(&s.accounts, text, "account=name=count") })
	f.Uint64Var(&s.seed, "seed", 1, "`number` that the made-up customers come from")
	f.StringVar(&s.online.ClientID, "client-id", "client", "client `id` of the app")
	f.StringVar(&s.online.ClientSecret, "client-secret", "secret", "client `secret` of the app")
	f.BoolVar(&s.online.Gzip, "gzip", false, "compress answers for clients that accept it")
	f.BoolVar(&s.prerender, "prerender", false, "render all rows beforehand, for benchmarks; takes about 1.5 kB each")
	switch err := f.Parse(args); {
	case errors.Is(err, flag.ErrHelp):
		return s, err
	case err != nil:
		return s, errUsage
	case f.NArg() > 0:
		fmt.Fprintf(stderr, "unexpected argument %q; see -help\n", f.Arg(0))
		return s, errUsage
	}
	return s, nil
}

func add(all *[]company, text, form string) error {
	id, rest, _ := strings.Cut(text, "=")
	at := strings.LastIndexByte(rest, '=')
	if id == "" || at < 0 {
		return errors.New("want " + form)
	}
	n, err := strconv.Atoi(rest[at+1:])
	if err != nil || n < 0 {
		return errors.New("count: want a number of customers")
	}
	*all = append(*all, company{id, rest[:at], n})
	return nil
}

func run(ctx context.Context, args []string, stdout, stderr io.Writer) error {
	s, err := parse(args, stderr)
	if err != nil {
		return err
	}
	sim := qbo.New(s.online)
	for i, c := range s.companies {
		made := sim.AddCompany(c.id, c.name)
		made.BulkLoad(c.customers, s.seed+uint64(i))
		if s.prerender {
			made.Prerender()
		}
	}
	suite := netsuite.New(netsuite.Options{})
	for i, c := range s.accounts {
		suite.AddAccount(c.id, c.name).BulkLoad(c.customers, 2*c.customers, s.seed+uint64(i))
	}
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	failed := make(chan error, 2)
	erp, err := serve(ctx, s.listen, erps(sim, suite), failed)
	if err != nil {
		return err
	}
	defer erp.close()
	doors := http.NewServeMux()
	doors.Handle("/", sim.Control())
	doors.Handle("/netsuite/", http.StripPrefix("/netsuite", suite.Control()))
	control, err := serve(ctx, s.control, doors, failed)
	if err != nil {
		return err
	}
	defer control.close()
	ready := struct {
		Listen  string `json:"listen"`
		Control string `json:"control"`
	}{erp.url, control.url}
	if err := json.NewEncoder(stdout).Encode(ready); err != nil {
		return fmt.Errorf("print addresses: %w", err)
	}
	select {
	case <-ctx.Done():
		return nil
	case err := <-failed:
		return err
	}
}

// erps serves both ERPs at one address.
func erps(online *qbo.Sim, suite *netsuite.Sim) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		if netsuite.Serves(r.URL.Path) {
			suite.ServeHTTP(w, r)
			return
		}
		online.ServeHTTP(w, r)
	}
}

type server struct {
	url  string
	http *http.Server
	done chan struct{}
}

func serve(ctx context.Context, address string, h http.Handler, failed chan<- error) (*server, error) {
	l, err := (&net.ListenConfig{}).Listen(ctx, "tcp", address)
	if err != nil {
		return nil, fmt.Errorf("listen: %w", err)
	}
	s := &server{"http://" + l.Addr().String(), &http.Server{
		Handler: h, ReadHeaderTimeout: 10 * time.Second,
		BaseContext: func(net.Listener) context.Context { return ctx },
	}, make(chan struct{})}
	go func() {
		defer close(s.done)
		if err := s.http.Serve(l); !errors.Is(err, http.ErrServerClosed) {
			failed <- fmt.Errorf("serve %s: %w", address, err)
		}
	}()
	return s, nil
}

// close breaks off what is under way: a client of an ERP must live with that too.
func (s *server) close() {
	_ = s.http.Close()
	<-s.done
}

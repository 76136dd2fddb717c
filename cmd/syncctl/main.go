// Command syncctl is ops' command line.
package main

import (
	"context"
	"os"
	"os/signal"
	"syscall"

	"github.com/centime/contactsync/connectors"
	"github.com/centime/contactsync/connectors/quickbooks"
	"github.com/centime/contactsync/internal/cli"
	"github.com/centime/contactsync/internal/config"
	"github.com/centime/contactsync/internal/connector"
	"github.com/centime/contactsync/internal/credentials"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	status := cli.Run(ctx, setup(os.Environ()), os.Args[1:])
	stop()
	os.Exit(status)
}

// setup reads the environment when a command needs a part of it, so that `key new` and --help need none.
func setup(environ []string) cli.Setup {
	read := func(needs ...string) (config.Config, error) {
		c, err := config.ForSyncctl(environ)
		if err == nil {
			err = c.Need(needs...)
		}
		if err != nil {
			err = cli.Misuse(err)
		}
		return c, err
	}
	return cli.Setup{
		DatabaseURL: func() (string, error) { c, err := read("DATABASE_URL"); return string(c.DatabaseURL), err },
		MigrationsURL: func() (string, error) {
			c, err := read()
			if err == nil && c.MigrationsURL == "" {
				_, err = read("DATABASE_URL")
			}
			return string(c.MigrationsURL), err
		},
		Ring:          func() (*credentials.Ring, error) { c, err := read("CREDENTIALS_KEY"); return c.Ring, err },
		RingIfSet:     func() (*credentials.Ring, error) { c, err := read(); return c.Ring, err },
		RedisURLIfSet: func() (string, error) { c, err := read(); return string(c.RedisURL), err },
		Connectors: func() (map[string]connector.Connector, error) {
			c, err := read()
			return connectors.All(connectors.Keys{QuickBooks: quickbooks.App{
				ClientID: c.QuickBooksClientID, ClientSecret: quickbooks.Secret(c.QuickBooksSecret),
			}}), err
		},
		Allowances: func() (map[string]int64, error) {
			c, err := read()
			return connectors.Allowances(c.QuickBooksMonthlyCalls), err
		},
		Stdin: os.Stdin, Stdout: os.Stdout, Stderr: os.Stderr, LoginName: cli.LoginName(),
	}
}

// Package sentinel reads a URL that names Redis Sentinels instead of a Redis. It connects to nothing, so that the environment
// can be checked without a client.
package sentinel

import (
	"errors"
	"net"
	"net/url"
	"strconv"
	"strings"
)

const (
	plain  = "redis-sentinel://"
	secure = "rediss-sentinel://"
	port   = "26379" // where a host names none
)

// Example of such a URL.
const Example = "redis-sentinel://user:password@host:26379,host:26379/0?master=NAME"

// A URL names the Sentinels that know which Redis is the master, and what to say to it.
type URL struct {
	Addrs          []string // of the Sentinels, host:port
	Master         string   // the name that they know it by
	TLS            bool     // to the Sentinels and to the Redis
	User, Password string   // of the Redis
	Database       int
	// SentinelUser and SentinelPassword are for Sentinels that ask for a password of their own.
	SentinelUser, SentinelPassword string
}

// Named says whether a URL is meant to be one of these.
func Named(text string) bool {
	return strings.HasPrefix(text, plain) || strings.HasPrefix(text, secure)
}

// Parse says of a URL that is none what is wrong with it, without repeating any of it.
func Parse(text string) (URL, error) {
	s := URL{TLS: strings.HasPrefix(text, secure)}
	_, rest, _ := strings.Cut(text, "://")
	// Taken out before the rest is read: net/url takes one host only.
	authority, tail := rest, ""
	if i := strings.IndexAny(rest, "/?#"); i >= 0 {
		authority, tail = rest[:i], rest[i:]
	}
	hosts := authority[strings.LastIndexByte(authority, '@')+1:]
	u, err := url.Parse("redis://" + strings.TrimSuffix(authority, hosts) + "sentinels" + tail)
	if err != nil || u.Fragment != "" {
		return s, errors.New("it cannot be read")
	}
	for host := range strings.SplitSeq(hosts, ",") {
		h, p, err := net.SplitHostPort(host)
		if err != nil {
			h, p = strings.Trim(host, "[]"), port
		}
		if _, err := strconv.ParseUint(p, 10, 16); err != nil || h == "" {
			return s, errors.New("its hosts are not host:port,host:port")
		}
		s.Addrs = append(s.Addrs, net.JoinHostPort(h, p))
	}
	if database := strings.Trim(u.Path, "/"); database != "" {
		n, err := strconv.ParseUint(database, 10, 16)
		if err != nil {
			return s, errors.New("its database is no number")
		}
		s.Database = int(n)
	}
	s.User = u.User.Username()
	s.Password, _ = u.User.Password()
	query, err := url.ParseQuery(u.RawQuery)
	if err != nil {
		return s, errors.New("what follows the question mark cannot be read")
	}
	for name := range query {
		switch value := query.Get(name); name {
		case "master":
			s.Master = value
		case "sentinel_user":
			s.SentinelUser = value
		case "sentinel_password":
			s.SentinelPassword = value
		default:
			return s, errors.New("after the question mark only master, sentinel_user and sentinel_password are known")
		}
	}
	if s.Master == "" {
		return s, errors.New("it does not name the master: add ?master=NAME, as the Sentinels' own settings call it")
	}
	return s, nil
}

//go:build surroundings

package demo

import (
	"fmt"
	"maps"
	"os/exec"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"

	"github.com/centime/contactsync/internal/erpsim"
	"github.com/centime/contactsync/internal/erpsim/qbo"
	"github.com/centime/contactsync/internal/postgres/pgtest"
)

const redisConf = `
bind 127.0.0.1
dir DIR
requirepass not-a-secret
masterauth not-a-secret
repl-diskless-sync-delay 0
save ""
`

// newRedis is a Redis that Sentinels may make a replica or a master.
func newRedis(t *testing.T, files map[string]string, more string) *server {
	t.Helper()
	files = maps.Clone(files)
	if files == nil {
		files = map[string]string{}
	}
	files["redis.conf"] = redisConf + more
	return newServer(t, files, "redis-server", "DIR/redis.conf")
}

// newSentinels are three that watch a master under the name kelp, and ask for a password of their own.
func newSentinels(t *testing.T, master *server, files map[string]string, more string) (addresses string, all []*server) {
	t.Helper()
	for range 3 {
		conf := maps.Clone(files)
		if conf == nil {
			conf = map[string]string{}
		}
		conf["sentinel.conf"] = fmt.Sprintf(`
bind 127.0.0.1
dir DIR
requirepass sentinels-own
sentinel sentinel-pass sentinels-own
sentinel monitor kelp 127.0.0.1 %d 2
sentinel auth-pass kelp not-a-secret
sentinel down-after-milliseconds kelp 2000
sentinel failover-timeout kelp 6000
`, master.port) + more
		s := newServer(t, conf, "redis-sentinel", "DIR/sentinel.conf")
		all, addresses = append(all, s), addresses+","+s.address()
	}
	return addresses[1:], all
}

// cli asks a Redis or Sentinel.
func cli(t *testing.T, s *server, password string, args ...string) string {
	t.Helper()
	cmd := exec.CommandContext(t.Context(), "redis-cli", append([]string{"-p", strconv.Itoa(s.port), "--no-auth-warning"}, args...)...)
	cmd.Env = append(cmd.Environ(), "REDISCLI_AUTH="+password)
	out, _ := cmd.CombinedOutput() // a server that is down answers nothing
	return string(out)
}

// TestSentinelFailover: the master dies in the middle of a first load, and the Sentinels make its replica the master. Worker and
// scheduler go on by themselves; the old master comes back as a replica, and a planned fail-over is not noticed either.
func TestSentinelFailover(t *testing.T) {
	s := newSystem(t, 9500)
	first := newRedis(t, nil, "port PORT")
	second := newRedis(t, nil, fmt.Sprintf("port PORT\nreplicaof 127.0.0.1 %d", first.port))
	addresses, sentinels := newSentinels(t, first, nil, "port PORT")
	eventually(t, "the Sentinels know each other and the replica", func() bool {
		for _, one := range sentinels {
			said := cli(t, one, "sentinels-own", "sentinel", "master", "kelp")
			if !strings.Contains(said, "num-slaves\n1") || !strings.Contains(said, "num-other-sentinels\n2") {
				return false
			}
		}
		return strings.Contains(cli(t, second, serverPassword, "info", "replication"), "master_link_status:up")
	})

	url := func(password, addresses, master string) string {
		return "REDIS_URL=redis-sentinel://:" + password + "@" + addresses + "/0?sentinel_password=sentinels-own&master=" + master
	}
	s.refuses("know no master of this name", url(serverPassword, addresses, "other"))
	s.refuses("redis cannot be reached", url(serverPassword, "127.0.0.1:1", "kelp"))
	s.refuses("redis cannot be reached", url("wrong", addresses, "kelp"))
	s.with(url(serverPassword, addresses, "kelp"))

	var once sync.Once
	died := make(chan struct{})
	s.sim.Before(func(r erpsim.Request) {
		if r.Op == qbo.Query && r.N == 3 {
			once.Do(func() {
				first.kill()
				close(died)
			})
		}
	})
	var said lines
	s.launch("scheduler", said.follow)
	s.launch("worker", said.follow)
	<-died
	// What is asked for while there is no master waits for the new one.
	const other = "9130350000000002"
	late := s.connect(other, 300)
	s.ctl(nil, 0, "run", "watch", "1")
	s.ctl(nil, 0, "run", "watch", "2")
	if role := cli(t, second, serverPassword, "role"); !strings.HasPrefix(role, "master") {
		t.Errorf("the replica was not promoted: %s", role)
	}
	s.equal()
	s.equalTo(late)

	first.start()
	eventually(t, "the old master is a replica", func() bool { return strings.HasPrefix(cli(t, first, serverPassword, "role"), "slave") })
	eventually(t, "it has caught up", func() bool {
		return strings.Contains(cli(t, first, serverPassword, "info", "replication"), "master_link_status:up")
	})
	// A Sentinel that has not heard of one fail-over takes the next one back, so each is asked, and the fail-over asked for again.
	eventually(t, "the Sentinels agree on the master", func() bool {
		return !slices.ContainsFunc(sentinels, func(one *server) bool {
			return !strings.Contains(cli(t, one, "sentinels-own", "sentinel", "get-master-addr-by-name", "kelp"), fmt.Sprint(second.port))
		})
	})
	failOver := func() bool {
		return strings.HasPrefix(cli(t, sentinels[0], "sentinels-own", "sentinel", "failover", "kelp"), "OK")
	}
	eventually(t, "a planned fail-over", failOver)
	s.ctl(nil, 0, "resync", "1", "2", "--full", "--wait")
	eventually(t, "the first is the master again", func() bool {
		if strings.HasPrefix(cli(t, first, serverPassword, "role"), "master") {
			return true
		}
		failOver() // refused while one is under way
		return false
	})
	s.ctl(nil, 0, "resync", "1", "2", "--wait")
	s.equal()
	if got := pgtest.Value(t, s.dsn, `SELECT count(*) FROM contactsync.runs WHERE status <> 'succeeded'`); got != "0" {
		t.Errorf("%s runs did not succeed", got)
	}
	if v := s.sim.Violations(); len(v) != 0 {
		t.Errorf("requests that are no reads: %+v", v)
	}
}

// TestRedisOverTLS: rediss:// with an authority of one's own, given in SSL_CERT_FILE; whoever else signed is refused, and so is
// a server under a name that is not its own. rediss-sentinel:// speaks TLS to Sentinels and Redis alike.
func TestRedisOverTLS(t *testing.T) {
	s := newSystem(t, 300)
	ours, theirs := newAuthority(t, "ours"), newAuthority(t, "theirs")
	const tls = `
port 0
tls-port PORT
tls-cert-file DIR/server.crt
tls-key-file DIR/server.key
tls-ca-cert-file DIR/authority.pem
tls-auth-clients no
tls-replication yes
`
	right := newRedis(t, ours.serves("127.0.0.1"), tls)
	named := newRedis(t, ours.serves("redis.kelp.example"), tls)
	plain := newRedis(t, nil, "port PORT")
	url := func(of *server) string { return "REDIS_URL=rediss://:" + serverPassword + "@" + of.address() + "/0" }
	trust := "SSL_CERT_FILE=" + ours.file()

	s.refuses("SSL_CERT_FILE must name", url(right))
	s.refuses("SSL_CERT_FILE must name", url(right), "SSL_CERT_FILE="+theirs.file())
	s.refuses("that the server's certificate is for", url(named), trust)
	s.refuses("TLS, with rediss://, has a port of its own", url(plain), trust)

	s.with(url(right), trust)
	scheduler, worker := s.launch("scheduler"), s.launch("worker")
	s.ctl(nil, 0, "run", "watch", "1")
	s.equal()
	s.end(scheduler)
	s.end(worker)

	addresses, _ := newSentinels(t, right, ours.serves("127.0.0.1"), tls)
	sentinels := "REDIS_URL=rediss-sentinel://:" + serverPassword + "@" + addresses + "/0?master=kelp&sentinel_password=sentinels-own"
	s.refuses("SSL_CERT_FILE must name", sentinels, "SSL_CERT_FILE="+theirs.file())
	s.with(sentinels)
	s.launch("scheduler")
	s.launch("worker")
	s.ctl(nil, 0, "resync", "1", "--full", "--wait")
	s.equal()
}

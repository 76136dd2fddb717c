//go:build surroundings

package demo

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"fmt"
	"math/big"
	mrand "math/rand/v2"
	"net"
	"os"
	"os/exec"
	"os/user"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"
)

// A server is one of those that the programs meet in production, started for a test.
type server struct {
	t    *testing.T
	dir  string
	port int
	args []string
	cmd  *exec.Cmd
}

// newServer starts a program in a folder of its own, with files in it, and waits until it accepts connections. PORT and DIR in
// the files and arguments are replaced.
func newServer(t *testing.T, files map[string]string, args ...string) *server {
	t.Helper()
	s := &server{t: t, dir: folder(t), port: freePort(t)}
	fill := strings.NewReplacer("PORT", strconv.Itoa(s.port), "DIR", s.dir)
	for name, text := range files {
		own(t, filepath.Join(s.dir, name), fill.Replace(text))
	}
	for _, a := range args {
		s.args = append(s.args, fill.Replace(a))
	}
	s.start()
	return s
}

func (s *server) start() {
	s.t.Helper()
	s.cmd = asServer(s.args...)
	s.cmd.Dir = s.dir
	log, err := os.OpenFile(filepath.Join(s.dir, "log"), os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	if err != nil {
		s.t.Fatal(err)
	}
	defer log.Close()
	s.cmd.Stdout, s.cmd.Stderr = log, log
	if err := s.cmd.Start(); err != nil {
		s.t.Fatal(err)
	}
	cmd := s.cmd
	s.t.Cleanup(func() {
		if cmd.ProcessState == nil {
			_ = cmd.Process.Kill()
			_ = cmd.Wait()
		}
		if said, _ := os.ReadFile(log.Name()); s.t.Failed() {
			s.t.Logf("%s said at last:\n%s", s.args[0], said[max(0, len(said)-3000):])
		}
	})
	eventually(s.t, s.args[0]+" accepts connections", func() bool {
		c, err := new(net.Dialer).DialContext(s.t.Context(), "tcp", s.address())
		if err == nil {
			_ = c.Close()
		}
		return err == nil
	})
}

// kill is what a machine does that dies.
func (s *server) kill() {
	_ = s.cmd.Process.Kill()
	_ = s.cmd.Wait()
}

func (s *server) address() string { return net.JoinHostPort("127.0.0.1", strconv.Itoa(s.port)) }

// asServer runs a program as the user whom Debian's servers run as: Postgres and PgBouncer refuse to be root.
func asServer(args ...string) *exec.Cmd {
	cmd := exec.Command(args[0], args[1:]...) //nolint:noctx // ended by signal
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL, Setpgid: true}
	if uid, gid, ok := serverUser(); ok {
		cmd.SysProcAttr.Credential = &syscall.Credential{Uid: uid, Gid: gid}
	}
	cmd.Env = []string{"PATH=" + os.Getenv("PATH"), "LC_ALL=C.UTF-8"}
	return cmd
}

func serverUser() (uid, gid uint32, ok bool) {
	if os.Geteuid() != 0 {
		return 0, 0, false
	}
	u, err := user.Lookup("postgres")
	if err != nil {
		return 0, 0, false
	}
	id, _ := strconv.Atoi(u.Uid) // a number
	group, _ := strconv.Atoi(u.Gid)
	return uint32(id), uint32(group), true
}

// folder is one that servers can enter, unlike the test's own, which are below folders of root.
func folder(t *testing.T) string {
	t.Helper()
	dir, err := os.MkdirTemp("/tmp", "contactsync-server-")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = os.RemoveAll(dir) })
	give(t, dir)
	return dir
}

func own(t *testing.T, path, text string) {
	t.Helper()
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	give(t, path)
}

func give(t *testing.T, path string) {
	t.Helper()
	if uid, gid, ok := serverUser(); ok {
		if err := os.Chown(path, int(uid), int(gid)); err != nil {
			t.Fatal(err)
		}
	}
}

// freePort is below the range that the kernel gives to clients: one that dials a stopped server again and again could be given
// its very port.
func freePort(t *testing.T) int {
	t.Helper()
	for {
		port := 20000 + mrand.IntN(12000)
		l, err := new(net.ListenConfig).Listen(t.Context(), "tcp", fmt.Sprintf("127.0.0.1:%d", port))
		if err == nil {
			_ = l.Close()
			return port
		}
	}
}

// postgresPrograms is the folder of initdb, of the newest version as Debian installs it, else of PATH.
func postgresPrograms(t *testing.T) string {
	t.Helper()
	found, _ := filepath.Glob("/usr/lib/postgresql/*/bin/initdb")
	if len(found) > 0 {
		slices.Sort(found)
		return filepath.Dir(found[len(found)-1])
	}
	initdb, err := exec.LookPath("initdb")
	if err != nil {
		t.Fatal(err)
	}
	return filepath.Dir(initdb)
}

const serverPassword = "not-a-secret"

// newPostgres is a cluster of the test's own, with lines for its settings. TLS lines name files among those given.
func newPostgres(t *testing.T, files map[string]string, settings string) *server {
	t.Helper()
	programs, data := postgresPrograms(t), filepath.Join(folder(t), "data")
	passwords := folder(t)
	own(t, filepath.Join(passwords, "password"), serverPassword)
	run(t, asServer(programs+"/initdb", "-D", data, "--username=postgres", "--pwfile="+passwords+"/password", "--auth=scram-sha-256",
		"--locale=C.UTF-8", "--encoding=UTF8", "--no-sync"))
	for name, text := range files {
		own(t, filepath.Join(data, name), text)
	}
	own(t, filepath.Join(data, "postgresql.auto.conf"), "listen_addresses = '127.0.0.1'\nunix_socket_directories = ''\nfsync = off\n"+settings)
	s := newServer(t, nil, programs+"/postgres", "-D", data, "-p", "PORT")
	eventually(t, "Postgres is ready", func() bool {
		return asServer(programs+"/pg_isready", "-q", "-h", "127.0.0.1", "-p", strconv.Itoa(s.port)).Run() == nil
	})
	return s
}

// dsn of a database of the server, for the superuser.
func (s *server) dsn(database string) string {
	return fmt.Sprintf("postgres://postgres:%s@%s/%s?sslmode=disable", serverPassword, s.address(), database)
}

func run(t *testing.T, cmd *exec.Cmd) {
	t.Helper()
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("%s: %v\n%s", filepath.Base(cmd.Path), err, out)
	}
}

// An authority signs certificates.
type authority struct {
	t    *testing.T
	cert *x509.Certificate
	key  *ecdsa.PrivateKey
	pem  string
}

func newAuthority(t *testing.T, name string) *authority {
	t.Helper()
	a := &authority{t: t}
	a.cert = &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: name}, NotAfter: time.Now().Add(24 * time.Hour),
		IsCA: true, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageCertSign,
	}
	a.key, a.pem = a.sign(a.cert, nil)
	return a
}

// sign makes the key of a certificate, and the certificate in PEM; without a key of the authority it signs itself.
func (a *authority) sign(cert *x509.Certificate, by *ecdsa.PrivateKey) (*ecdsa.PrivateKey, string) {
	a.t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		a.t.Fatal(err)
	}
	if by == nil {
		by = key
	}
	der, err := x509.CreateCertificate(rand.Reader, cert, a.cert, &key.PublicKey, by)
	if err != nil {
		a.t.Fatal(err)
	}
	return key, string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der}))
}

// file holds the authority's own certificate.
func (a *authority) file() string {
	a.t.Helper()
	path := filepath.Join(a.t.TempDir(), "authority.pem")
	if err := os.WriteFile(path, []byte(a.pem), 0o600); err != nil {
		a.t.Fatal(err)
	}
	return path
}

// serves are the files of a server whose certificate is for these names or addresses.
func (a *authority) serves(names ...string) map[string]string {
	a.t.Helper()
	cert := &x509.Certificate{SerialNumber: big.NewInt(2), Subject: pkix.Name{CommonName: "server"}, NotAfter: time.Now().Add(24 * time.Hour)}
	for _, name := range names {
		if ip := net.ParseIP(name); ip != nil {
			cert.IPAddresses = append(cert.IPAddresses, ip)
		} else {
			cert.DNSNames = append(cert.DNSNames, name)
		}
	}
	key, text := a.sign(cert, a.key)
	der, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		a.t.Fatal(err)
	}
	return map[string]string{
		"server.crt": text, "server.key": string(pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: der})), "authority.pem": a.pem,
	}
}

// refuses starts a program with some of the environment changed, and wants that it ends and says what to do.
func (s *system) refuses(want string, env ...string) {
	s.t.Helper()
	for _, name := range []string{"worker", "scheduler"} {
		ctx, cancel := context.WithTimeout(s.t.Context(), patience)
		cmd := exec.CommandContext(ctx, filepath.Join(s.bin, name))
		cmd.Env = append(slices.Clone(s.env), env...)
		out, _ := cmd.CombinedOutput()
		cancel()
		if got := cmd.ProcessState.ExitCode(); got != 1 || !strings.Contains(string(out), want) || strings.Contains(string(out), serverPassword) {
			s.t.Errorf("%s: exit %d, want 1 with %q:\n%s", name, got, want, out)
		}
	}
}

package demo

import (
	"context"
	"errors"
	"net"
	"net/url"
	"sync"
	"testing"
	"time"
)

// network carries TCP connections to a server, well or badly.
type network struct {
	listener net.Listener
	target   string

	mu      sync.Mutex
	through chan struct{} // closed while bytes may pass
	refuse  bool
	conns   map[*net.TCPConn]bool
	ended   bool
}

// newNetwork carries to the host and port of a URL, until the test ends.
func newNetwork(t *testing.T, to string) *network {
	t.Helper()
	u, err := url.Parse(to)
	if err != nil {
		t.Fatal(err)
	}
	listener, err := new(net.ListenConfig).Listen(t.Context(), "tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	n := &network{listener: listener, target: u.Host, through: make(chan struct{}), conns: map[*net.TCPConn]bool{}}
	close(n.through)
	var all sync.WaitGroup
	all.Go(func() {
		for {
			c, err := listener.Accept()
			if err != nil {
				return
			}
			all.Go(func() { n.carry(c.(*net.TCPConn)) })
		}
	})
	t.Cleanup(func() {
		_ = listener.Close()
		n.mu.Lock()
		n.ended = true
		n.mu.Unlock()
		n.Heal()
		n.Cut()
		all.Wait()
	})
	return n
}

// of is a URL of the same server, reached over this network.
func (n *network) of(to string) string {
	u, err := url.Parse(to)
	if err != nil {
		panic(err) // newNetwork has read it
	}
	u.Host = n.listener.Addr().String()
	return u.String()
}

// Cut resets all connections. New ones are as good as before.
func (n *network) Cut() {
	n.mu.Lock()
	defer n.mu.Unlock()
	for c := range n.conns {
		reset(c)
	}
}

// Hole has nothing arrive any more: connections stay open and new ones are accepted, but no byte and no end of a
// connection passes. What was sent meanwhile arrives when it heals, as TCP has it.
func (n *network) Hole() {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.through = make(chan struct{})
}

// Refuse resets all connections, and new ones at once.
func (n *network) Refuse() {
	n.mu.Lock()
	n.refuse = true
	n.mu.Unlock()
	n.Cut()
}

// Heal makes the network good again.
func (n *network) Heal() {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.refuse = false
	select {
	case <-n.through:
	default:
		close(n.through)
	}
}

func (n *network) passable() {
	n.mu.Lock()
	through := n.through
	n.mu.Unlock()
	<-through
}

// keep says whether a connection may be.
func (n *network) keep(c *net.TCPConn) bool {
	n.mu.Lock()
	defer n.mu.Unlock()
	if n.refuse || n.ended {
		reset(c)
		return false
	}
	n.conns[c] = true
	return true
}

func (n *network) forget(c *net.TCPConn) {
	n.mu.Lock()
	defer n.mu.Unlock()
	delete(n.conns, c)
	_ = c.Close()
}

func (n *network) carry(client *net.TCPConn) {
	if !n.keep(client) {
		return
	}
	defer n.forget(client)
	n.passable()
	dialed, err := new(net.Dialer).DialContext(context.Background(), "tcp", n.target)
	if err != nil {
		reset(client)
		return
	}
	server := dialed.(*net.TCPConn)
	if !n.keep(server) {
		return
	}
	defer n.forget(server)
	var both sync.WaitGroup
	both.Go(func() { n.copy(server, client) })
	both.Go(func() { n.copy(client, server) })
	both.Wait()
}

// copy ends both connections when one ends: nobody here uses half of one.
func (n *network) copy(to, from *net.TCPConn) {
	defer from.Close()
	defer to.Close()
	buf := make([]byte, 32<<10)
	for {
		read, err := from.Read(buf)
		n.passable()
		if _, failed := to.Write(buf[:read]); err != nil || failed != nil {
			return
		}
	}
}

func reset(c *net.TCPConn) {
	_ = c.SetLinger(0) // a reset, not an orderly end
	_ = c.Close()
}

// TestNetwork: the fault tests would prove nothing on a network that is better than it says.
func TestNetwork(t *testing.T) {
	t.Parallel()
	echo, err := new(net.ListenConfig).Listen(t.Context(), "tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = echo.Close() })
	go func() {
		for {
			c, err := echo.Accept()
			if err != nil {
				return
			}
			go func() { _, _ = c.(*net.TCPConn).ReadFrom(c); _ = c.Close() }()
		}
	}()
	n := newNetwork(t, "tcp://"+echo.Addr().String())
	dial := func() net.Conn {
		t.Helper()
		u, _ := url.Parse(n.of("tcp://x"))
		c, err := new(net.Dialer).DialContext(t.Context(), "tcp", u.Host)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { _ = c.Close() })
		return c
	}
	answers := func(c net.Conn, within time.Duration) error {
		_, err := c.Write([]byte("?"))
		if err == nil {
			_ = c.SetReadDeadline(time.Now().Add(within))
			_, err = c.Read(make([]byte, 1))
		}
		return err
	}
	const soon = 100 * time.Millisecond // for what never comes
	hung := func(err error) bool {
		e, ok := errors.AsType[net.Error](err)
		return ok && e.Timeout()
	}

	old := dial()
	if err := answers(old, time.Minute); err != nil {
		t.Fatalf("a good network: %v", err)
	}
	n.Hole()
	young := dial()
	for name, c := range map[string]net.Conn{"an old": old, "a new": young} {
		if err := answers(c, soon); !hung(err) {
			t.Errorf("%s connection into the hole: %v", name, err)
		}
	}
	n.Heal()
	for name, c := range map[string]net.Conn{"an old": old, "a new": young} {
		_ = c.SetReadDeadline(time.Now().Add(time.Minute))
		if _, err := c.Read(make([]byte, 1)); err != nil {
			t.Errorf("%s connection after the hole lost a byte: %v", name, err)
		}
	}
	n.Cut()
	if err := answers(old, time.Minute); err == nil || hung(err) {
		t.Errorf("a cut connection: %v", err)
	}
	if err := answers(dial(), time.Minute); err != nil {
		t.Errorf("a new connection after the cut: %v", err)
	}
	n.Refuse()
	if c, err := new(net.Dialer).DialContext(t.Context(), "tcp", n.listener.Addr().String()); err == nil { // else it was refused at once
		if err := answers(c, time.Minute); err == nil || hung(err) {
			t.Errorf("a refused connection: %v", err)
		}
		_ = c.Close()
	}
	n.Heal()
	if err := answers(dial(), time.Minute); err != nil {
		t.Errorf("healed: %v", err)
	}
}

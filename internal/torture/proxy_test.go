package torture

import (
	"bufio"
	"context"
	"encoding/binary"
	"io"
	"net"
	"net/url"
	"slices"
	"strings"
	"sync"
	"time"
)

// wire is which protocol a proxy carries, and so what it can count.
type wire int

const (
	plain     wire = iota // a request is whatever the client sends in one go
	postgres3             // a request is a statement, and COMMIT is known
)

// A proxy carries the connections of one process to one server, well or badly. It is where a process is cut off at its
// n-th statement, or while it commits.
type proxy struct {
	wire     wire
	listener net.Listener
	target   string
	// heard is told all that the client sends; nil: nobody listens.
	heard func([]byte)

	mu      sync.Mutex
	through chan struct{} // closed while bytes may pass
	refuse  bool
	delay   time.Duration
	conns   map[*net.TCPConn]bool
	traps   []*trap
	all     sync.WaitGroup
}

// A trap springs at the n-th request from now, or the n-th COMMIT.
type trap struct {
	n      int
	commit bool
	// after: the server gets the request and does it, and the answer is lost. Else it springs before the server gets it.
	after  bool
	spring func()
}

func newProxy(w wire, to string, heard func([]byte)) (*proxy, error) {
	u, err := url.Parse(to)
	if err != nil {
		return nil, err
	}
	listener, err := new(net.ListenConfig).Listen(context.Background(), "tcp", "127.0.0.1:0")
	if err != nil {
		return nil, err
	}
	p := &proxy{
		wire: w, listener: listener, target: u.Host, heard: heard, through: make(chan struct{}), conns: map[*net.TCPConn]bool{},
	}
	close(p.through)
	p.all.Go(func() {
		for {
			c, err := listener.Accept()
			if err != nil {
				return
			}
			p.all.Go(func() { p.carry(c.(*net.TCPConn)) })
		}
	})
	return p, nil
}

// of is a URL of the same server, reached through the proxy.
func (p *proxy) of(to string) string {
	u, err := url.Parse(to)
	if err != nil {
		panic(err) // newProxy has read it
	}
	u.Host = p.listener.Addr().String()
	return u.String()
}

// cut resets all connections. New ones are as good as before.
func (p *proxy) cut() {
	p.mu.Lock()
	defer p.mu.Unlock()
	for c := range p.conns {
		reset(c)
	}
}

// die resets all connections, and new ones at once, for good.
func (p *proxy) die() {
	p.mu.Lock()
	p.refuse, p.traps = true, nil
	p.mu.Unlock()
	p.heal()
	p.cut()
}

// hole has nothing arrive any more, until heal. What was sent meanwhile arrives then, as TCP has it.
func (p *proxy) hole() {
	p.mu.Lock()
	defer p.mu.Unlock()
	select {
	case <-p.through:
		p.through = make(chan struct{})
	default:
	}
}

// slow delays whatever passes, until heal.
func (p *proxy) slow(d time.Duration) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.delay = d
}

// heal makes the network good again. Traps stay.
func (p *proxy) heal() {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.delay = 0
	select {
	case <-p.through:
	default:
		close(p.through)
	}
}

func (p *proxy) set(t *trap) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.traps = append(p.traps, t)
}

func (p *proxy) disarm() {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.traps = nil
}

// close ends the proxy and returns when nothing of it is left.
func (p *proxy) close() {
	_ = p.listener.Close()
	p.die()
	p.all.Wait()
}

// passable waits until bytes may pass.
func (p *proxy) passable() {
	p.mu.Lock()
	through, delay := p.through, p.delay
	p.mu.Unlock()
	<-through
	if delay > 0 {
		<-time.After(delay)
	}
}

// met is the trap that springs at this request, if any.
func (p *proxy) met(commit bool) *trap {
	p.mu.Lock()
	defer p.mu.Unlock()
	for i, t := range p.traps {
		if t.commit && !commit {
			continue
		}
		if t.n--; t.n <= 0 {
			p.traps = slices.Delete(p.traps, i, i+1)
			return t
		}
	}
	return nil
}

func (p *proxy) keep(c *net.TCPConn) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.refuse {
		reset(c)
		return false
	}
	p.conns[c] = true
	return true
}

func (p *proxy) forget(c *net.TCPConn) {
	p.mu.Lock()
	defer p.mu.Unlock()
	delete(p.conns, c)
	_ = c.Close()
}

func (p *proxy) carry(client *net.TCPConn) {
	if !p.keep(client) {
		return
	}
	defer p.forget(client)
	p.passable()
	dialed, err := new(net.Dialer).DialContext(context.Background(), "tcp", p.target)
	if err != nil {
		reset(client)
		return
	}
	server := dialed.(*net.TCPConn)
	if !p.keep(server) {
		return
	}
	defer p.forget(server)
	c := &carried{p: p, client: client, server: server}
	var both sync.WaitGroup
	both.Go(func() { defer c.end(); c.up() })
	both.Go(func() { defer c.end(); c.down() })
	both.Wait()
}

// carried is one connection on its way through a proxy.
type carried struct {
	p              *proxy
	client, server *net.TCPConn

	mu   sync.Mutex
	lost *trap // the answer under way is lost, and then this springs
}

// end ends both sides: nobody here uses half of a connection.
func (c *carried) end() {
	_ = c.client.Close()
	_ = c.server.Close()
}

// up carries what the client sends.
func (c *carried) up() {
	if c.p.wire == plain {
		buf := make([]byte, 32<<10)
		for {
			n, err := c.client.Read(buf)
			if n > 0 && c.p.heard != nil {
				c.p.heard(buf[:n])
			}
			if n > 0 && !c.send(buf[:n], c.p.met(false)) || err != nil {
				return
			}
		}
	}
	in := bufio.NewReaderSize(c.client, 64<<10)
	first, err := message(in, 0)
	if err != nil || !c.send(first, nil) {
		return
	}
	for {
		m, err := message(in, 1)
		if err != nil {
			return
		}
		var t *trap
		if m[0] == 'Q' || m[0] == 'B' { // a query, or the execution of a prepared one
			t = c.p.met(m[0] == 'Q' && strings.HasPrefix(string(m[5:]), "COMMIT"))
		}
		if !c.send(m, t) {
			return
		}
	}
}

// message reads one message of Postgres' protocol: tag bytes, then a length that counts itself.
func message(in *bufio.Reader, tag int) ([]byte, error) {
	head := make([]byte, tag+4)
	if _, err := io.ReadFull(in, head); err != nil {
		return nil, err
	}
	length := int(binary.BigEndian.Uint32(head[tag:]))
	m := make([]byte, tag+max(length, 4))
	copy(m, head)
	_, err := io.ReadFull(in, m[len(head):])
	return m, err
}

func (c *carried) send(m []byte, t *trap) bool {
	switch {
	case t != nil && t.after:
		c.mu.Lock()
		c.lost = t
		c.mu.Unlock()
	case t != nil:
		t.spring()
	}
	c.p.passable()
	_, err := c.server.Write(m)
	return err == nil
}

// down carries what the server answers.
func (c *carried) down() {
	if c.p.wire == plain {
		buf := make([]byte, 32<<10)
		for {
			n, err := c.server.Read(buf)
			if n > 0 {
				if t := c.losing(); t != nil {
					t.spring()
					continue
				}
			}
			c.p.passable()
			if _, failed := c.client.Write(buf[:n]); err != nil || failed != nil {
				return
			}
		}
	}
	in, out := bufio.NewReaderSize(c.server, 64<<10), bufio.NewWriterSize(c.client, 64<<10)
	for {
		m, err := message(in, 1)
		if err != nil {
			return
		}
		c.mu.Lock()
		t := c.lost
		if t != nil && m[0] == 'Z' { // the server is done
			c.lost = nil
		}
		c.mu.Unlock()
		if t != nil {
			if m[0] == 'Z' {
				t.spring()
			}
			continue
		}
		if _, err := out.Write(m); err != nil {
			return
		}
		if in.Buffered() == 0 {
			c.p.passable()
			if out.Flush() != nil {
				return
			}
		}
	}
}

// losing takes the trap that the answer under way meets.
func (c *carried) losing() *trap {
	c.mu.Lock()
	defer c.mu.Unlock()
	t := c.lost
	c.lost = nil
	return t
}

func reset(c *net.TCPConn) {
	_ = c.SetLinger(0) // a reset, not an orderly end
	_ = c.Close()
}

package main

import (
	"bytes"
	"context"
	"crypto/tls"
	"errors"
	"io"
	"net"
	"net/http"
	"strings"
	"sync"
	"sync/atomic"
	"time"
)

// connect opens a tunnel: intercepted, or passed through where the configuration says so.
func (c *call) connect(w http.ResponseWriter, r *http.Request) {
	began := time.Now()
	host, port, err := net.SplitHostPort(r.Host)
	name, ok := canonicalHost(host)
	if err != nil || !ok {
		http.Error(w, "malformed CONNECT target", http.StatusBadRequest)
		return
	}
	target := net.JoinHostPort(name, port)
	if refusal := c.e.CheckURL(r.Context(), "https://"+target+"/"); refusal != nil && c.block(w, refusal) {
		return
	}
	intercept := c.e.ca != nil && !matchesAny(c.e.cfg.TLS.PassthroughDomains, name, matchBelow)
	var upstream net.Conn
	if !intercept {
		if upstream, err = c.e.Dial(r.Context(), "tcp", target); err != nil {
			c.problem("error", "upstream unreachable", "error", err.Error())
			http.Error(w, "upstream unreachable", http.StatusBadGateway)
			return
		}
		defer upstream.Close()
	}
	raw, buffered, err := http.NewResponseController(w).Hijack()
	if err != nil {
		http.Error(w, "cannot open a tunnel", http.StatusInternalServerError)
		return
	}
	conn := newTunnelConn(raw, buffered.Reader, c.e.cfg.ForwardProxy)
	defer conn.Close()
	if _, err := io.WriteString(conn, "HTTP/1.1 200 Connection Established\r\n\r\n"); err != nil {
		return
	}
	c.counts.tunnels.Add(1)
	c.counts.open.Add(1)
	c.audit.Event("tunnel_open", "tunnel established", append(c.about, "target", target, "intercepted", intercept)...)
	if intercept {
		c.intercept(conn, name, port)
	} else {
		c.splice(conn, upstream, name)
	}
	c.counts.open.Add(-1)
	c.audit.Event("tunnel_close", "tunnel closed", append(c.about, "target", target,
		"total_bytes", conn.bytes.Load(), "duration_ms", time.Since(began).Milliseconds())...)
}

// intercept speaks TLS to the client in the name that it asked for, and forwards each request inside.
func (c *call) intercept(conn net.Conn, name, port string) {
	secure := tls.Server(conn, &tls.Config{
		MinVersion: tls.VersionTLS12,
		NextProtos: []string{"http/1.1"},
		GetCertificate: func(hello *tls.ClientHelloInfo) (*tls.Certificate, error) {
			if refusal := checkSNI(hello.ServerName, name); refusal != nil {
				c.blocked(refusal)
				return nil, errors.New(refusal.Reason)
			}
			return c.e.ca.Leaf(name)
		},
	})
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
	err := secure.HandshakeContext(ctx)
	cancel()
	if err != nil {
		c.problem("error", "TLS handshake with the client failed", "error", err.Error())
		return
	}
	inner := http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		u := *r.URL
		u.Scheme, u.Host = "https", authority(name, port)
		request := c.newCall(c.e, r, u.String())
		if refusal := checkInnerHost(r, name, port); refusal != nil {
			request.block(w, refusal.always())
			return
		}
		request.forward(w, r, &u, c.e.cfg.TLS.MaxResponseBytes)
	})
	listener := newOneListener(secure)
	server := &http.Server{
		Handler:           inner,
		ReadHeaderTimeout: time.Duration(c.e.cfg.ForwardProxy.IdleTimeoutSeconds) * time.Second,
		ConnState: func(_ net.Conn, state http.ConnState) {
			if state == http.StateClosed {
				listener.Close()
			}
		},
	}
	server.Serve(listener)
}

func checkSNI(sni, name string) *Refusal {
	if isAddress := net.ParseIP(name) != nil; isAddress && sni == "" {
		return nil
	}
	if got, ok := canonicalHost(sni); ok && got == name {
		return nil
	}
	return refuse("sni_mismatch", "", "TLS server name %q is not the CONNECT host %q", sni, name)
}

// checkInnerHost wants the Host header, and an absolute URL if there is one, to name the very target of the tunnel.
func checkInnerHost(r *http.Request, name, port string) *Refusal {
	for _, given := range []string{r.Host, r.URL.Host} {
		if given == "" && r.Host != "" {
			continue // no absolute URL
		}
		host, givenPort, err := net.SplitHostPort(given)
		if err != nil {
			host, givenPort = strings.Trim(given, "[]"), "443"
		}
		if host, ok := canonicalHost(host); !ok || host != name || givenPort != port {
			return refuse("authority_mismatch", "", "host %q is not the CONNECT target", given)
		}
	}
	return nil
}

// authority is a name with its port, if that is not the usual one.
func authority(name, port string) string {
	if port == "443" {
		if strings.Contains(name, ":") {
			return "[" + name + "]"
		}
		return name
	}
	return net.JoinHostPort(name, port)
}

// splice copies bytes both ways, once the client's first message has shown that it asks for the right name. What does not
// begin with TLS passes.
func (c *call) splice(conn *tunnelConn, upstream net.Conn, name string) {
	var client io.Reader = conn
	if verify := c.e.cfg.ForwardProxy.SNIVerification; verify == nil || *verify {
		sni, seen, err := peekSNI(conn)
		client = io.MultiReader(bytes.NewReader(seen), conn)
		if err == nil {
			if refusal := checkSNI(sni, name); refusal != nil {
				c.blocked(refusal)
				return
			}
		}
	}
	var both sync.WaitGroup
	copyHalf := func(to net.Conn, from io.Reader) {
		defer both.Done()
		if _, err := io.Copy(to, from); err != nil { // also a timeout: then the other half has nothing to wait for
			conn.Close()
			upstream.Close()
		}
		if half, ok := to.(interface{ CloseWrite() error }); ok {
			half.CloseWrite()
		}
	}
	both.Add(2)
	go copyHalf(upstream, client)
	go copyHalf(conn, upstream)
	both.Wait()
}

// tunnelConn is a client's side of a tunnel: it ends after its longest life or after a time without a byte.
type tunnelConn struct {
	net.Conn
	reader io.Reader
	idle   time.Duration
	timer  *time.Timer
	life   *time.Timer
	bytes  atomic.Int64
}

func newTunnelConn(conn net.Conn, reader io.Reader, limits ForwardProxy) *tunnelConn {
	idle := time.Duration(limits.IdleTimeoutSeconds) * time.Second
	return &tunnelConn{
		Conn:   conn,
		reader: reader,
		idle:   idle,
		timer:  time.AfterFunc(idle, func() { conn.Close() }),
		life:   time.AfterFunc(time.Duration(limits.MaxTunnelSeconds)*time.Second, func() { conn.Close() }),
	}
}

func (c *tunnelConn) Read(b []byte) (int, error) {
	n, err := c.reader.Read(b)
	c.active(n)
	return n, err
}

func (c *tunnelConn) Write(b []byte) (int, error) {
	n, err := c.Conn.Write(b)
	c.active(n)
	return n, err
}

func (c *tunnelConn) active(n int) {
	c.bytes.Add(int64(n))
	if n > 0 {
		c.timer.Reset(c.idle)
	}
}

func (c *tunnelConn) Close() error {
	c.timer.Stop()
	c.life.Stop()
	return c.Conn.Close()
}

func (c *tunnelConn) CloseWrite() error {
	if half, ok := c.Conn.(*net.TCPConn); ok {
		return half.CloseWrite()
	}
	return c.Conn.Close()
}

// oneListener hands a server the one connection that it is for, and then waits until that is closed.
type oneListener struct {
	conn   chan net.Conn
	closed chan struct{}
	once   sync.Once
	addr   net.Addr
}

func newOneListener(conn net.Conn) *oneListener {
	l := &oneListener{conn: make(chan net.Conn, 1), closed: make(chan struct{}), addr: conn.LocalAddr()}
	l.conn <- conn
	return l
}

func (l *oneListener) Accept() (net.Conn, error) {
	select {
	case conn := <-l.conn:
		return conn, nil
	case <-l.closed:
		return nil, net.ErrClosed
	}
}

func (l *oneListener) Close() error {
	l.once.Do(func() { close(l.closed) })
	return nil
}

func (l *oneListener) Addr() net.Addr { return l.addr }

var errSeen = errors.New("seen enough")

// peekSNI reads a TLS client's first message, gives the name in it and all bytes that it took from the connection.
func peekSNI(conn net.Conn) (sni string, seen []byte, err error) {
	var taken bytes.Buffer
	found := false
	server := tls.Server(readOnly{Conn: conn, reader: io.TeeReader(conn, &taken)}, &tls.Config{
		GetConfigForClient: func(hello *tls.ClientHelloInfo) (*tls.Config, error) {
			sni, found = hello.ServerName, true
			return nil, errSeen
		},
	})
	conn.SetReadDeadline(time.Now().Add(10 * time.Second))
	err = server.Handshake()
	conn.SetReadDeadline(time.Time{})
	if found {
		err = nil
	}
	return sni, taken.Bytes(), err
}

// readOnly lets the TLS library read a hello and keeps it from answering.
type readOnly struct {
	net.Conn
	reader io.Reader
}

func (r readOnly) Read(b []byte) (int, error)  { return r.reader.Read(b) }
func (r readOnly) Write(b []byte) (int, error) { return len(b), nil }
func (r readOnly) Close() error                { return nil }

package main

import (
	"bytes"
	"crypto/tls"
	"errors"
	"io"
	"net"
	"sync"
	"time"
)

// tunnelConn is a client's side of a tunnel: it ends after its longest life or after a time without a byte.
type tunnelConn struct {
	net.Conn
	reader io.Reader
	idle   time.Duration
	timer  *time.Timer
	life   *time.Timer
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
	c.timer.Reset(c.idle)
	return n, err
}

func (c *tunnelConn) Write(b []byte) (int, error) {
	n, err := c.Conn.Write(b)
	c.timer.Reset(c.idle)
	return n, err
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

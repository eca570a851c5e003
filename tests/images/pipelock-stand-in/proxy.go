package main

import (
	"bufio"
	"bytes"
	"context"
	"crypto/tls"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"strings"
	"sync"
	"sync/atomic"
	"time"
)

// Engine is everything that follows from one configuration. A reload makes a new one; a connection keeps the one that it
// began with.
type Engine struct {
	*Scanner
	ca        *Authority
	transport *http.Transport
}

// NewEngine opens the certificate authority, when there is one, and makes the way out.
func NewEngine(cfg *Config) (*Engine, error) {
	e := &Engine{Scanner: newScanner(cfg)}
	if cfg.TLS.Enabled {
		ca, err := LoadAuthority(cfg.TLS.CACert, cfg.TLS.CAKey, cfg.TLS.ttl, cfg.TLS.CertCacheSize)
		if err != nil {
			return nil, err
		}
		e.ca = ca
	}
	e.transport = &http.Transport{
		Proxy:                 nil, // the last hop: whatever the environment says
		DialContext:           e.Dial,
		DisableCompression:    true,
		ForceAttemptHTTP2:     true,
		MaxIdleConnsPerHost:   8,
		IdleConnTimeout:       90 * time.Second,
		TLSHandshakeTimeout:   10 * time.Second,
		ExpectContinueTimeout: time.Second,
	}
	return e, nil
}

// Proxy serves clients with the engine of the moment.
type Proxy struct {
	engine  atomic.Pointer[Engine]
	audit   *Audit
	metrics Metrics
	started time.Time
}

// NewProxy serves with an engine until a reload brings another.
func NewProxy(engine *Engine, audit *Audit) *Proxy {
	p := &Proxy{audit: audit, started: time.Now()}
	p.engine.Store(engine)
	return p
}

// ListenAndServe serves until the context ends.
func (p *Proxy) ListenAndServe(ctx context.Context, addr string) error {
	listener, err := net.Listen("tcp", addr)
	if err != nil {
		return err
	}
	server := &http.Server{Handler: p, ReadHeaderTimeout: 10 * time.Second}
	context.AfterFunc(ctx, func() { server.Close() })
	p.audit.Event("startup", "listening", "listen", addr, "mode", p.engine.Load().cfg.Mode, "models", modelled)
	if err := server.Serve(listener); !errors.Is(err, http.ErrServerClosed) {
		return err
	}
	p.audit.Event("shutdown", "stopped")
	return nil
}

func (p *Proxy) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	e := p.engine.Load()
	switch {
	case r.Method == http.MethodConnect && e.cfg.ForwardProxy.Enabled:
		p.connect(e, w, r)
	case r.URL.IsAbs() && e.cfg.ForwardProxy.Enabled:
		ctx, cancel := context.WithTimeout(r.Context(), time.Duration(e.cfg.FetchProxy.TimeoutSeconds)*time.Second)
		defer cancel()
		p.forward(e, w, r.WithContext(ctx), r.URL, e.cfg.FetchProxy.MaxResponseMB<<20)
	case r.Method == http.MethodConnect || r.URL.IsAbs():
		http.Error(w, "forward proxy not enabled", http.StatusMethodNotAllowed)
	case r.URL.Path == "/health":
		p.health(e, w)
	case r.URL.Path == "/stats":
		p.stats(w)
	case r.URL.Path == "/metrics":
		p.metrics.WriteTo(w)
	default:
		http.NotFound(w, r)
	}
}

func (p *Proxy) health(e *Engine, w http.ResponseWriter) {
	w.Header().Set("Content-Type", "application/json")
	json.NewEncoder(w).Encode(map[string]any{
		"status": "healthy", "version": modelled, "stand_in": true, "mode": e.cfg.Mode,
		"uptime_seconds": time.Since(p.started).Seconds(), "forward_proxy_enabled": e.cfg.ForwardProxy.Enabled,
	})
}

func (p *Proxy) stats(w http.ResponseWriter) {
	w.Header().Set("Content-Type", "application/json")
	json.NewEncoder(w).Encode(map[string]any{
		"uptime_seconds": time.Since(p.started).Seconds(),
		"requests":       map[string]int64{"allowed": p.metrics.Allowed.Load(), "blocked": p.metrics.Blocked.Load()},
	})
}

// Metrics counts decisions.
type Metrics struct{ Allowed, Blocked atomic.Int64 }

// WriteTo writes the counts in Prometheus' text format.
func (m *Metrics) WriteTo(w io.Writer) (int64, error) {
	n, err := fmt.Fprintf(w, "# TYPE pipelock_requests_total counter\n"+
		"pipelock_requests_total{result=\"allowed\"} %d\npipelock_requests_total{result=\"blocked\"} %d\n",
		m.Allowed.Load(), m.Blocked.Load())
	return int64(n), err
}

// block answers 403 with the reason, or, where the configuration only watches, logs it and lets the request go on.
func (p *Proxy) block(e *Engine, w http.ResponseWriter, method, target string, refusal *Refusal) (done bool) {
	if !e.cfg.Enforce || e.cfg.Mode == "audit" {
		p.audit.Problem("anomaly", "would be blocked", "method", method, "url", redact(target),
			"scanner", refusal.Scanner, "reason", refusal.Reason)
		return false
	}
	p.metrics.Blocked.Add(1)
	if e.cfg.Logging.IncludeBlocked {
		p.audit.Problem("blocked", "request blocked", "method", method, "url", redact(target),
			"scanner", refusal.Scanner, "reason", refusal.Reason)
	}
	if e.cfg.ExplainBlocks && refusal.Hint != "" {
		w.Header().Set("X-Pipelock-Hint", refusal.Hint)
	}
	http.Error(w, "blocked: "+refusal.Reason, http.StatusForbidden)
	return true
}

func (p *Proxy) allowed(e *Engine, method, target string, pairs ...any) {
	p.metrics.Allowed.Add(1)
	if e.cfg.Logging.IncludeAllowed {
		p.audit.Event("allowed", "request allowed", append([]any{"method", method, "url", redact(target)}, pairs...)...)
	}
}

// redact drops what may hold a secret: the query and the fragment.
func redact(target string) string {
	target, _, _ = strings.Cut(target, "#")
	target, _, _ = strings.Cut(target, "?")
	return target
}

// connect opens a tunnel: intercepted, or passed through where the configuration says so.
func (p *Proxy) connect(e *Engine, w http.ResponseWriter, r *http.Request) {
	host, port, err := net.SplitHostPort(r.Host)
	name, ok := canonicalHost(host)
	if err != nil || !ok {
		http.Error(w, "malformed CONNECT target", http.StatusBadRequest)
		return
	}
	target := "https://" + net.JoinHostPort(name, port) + "/"
	if refusal := e.CheckURL(r.Context(), target); refusal != nil && p.block(e, w, r.Method, r.Host, refusal) {
		return
	}
	var upstream net.Conn
	intercept := e.ca != nil && !matchesAny(e.cfg.TLS.PassthroughDomains, name, matchBelow)
	if !intercept {
		if upstream, err = e.Dial(r.Context(), "tcp", net.JoinHostPort(name, port)); err != nil {
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
	if _, err := io.WriteString(raw, "HTTP/1.1 200 Connection Established\r\n\r\n"); err != nil {
		raw.Close()
		return
	}
	p.allowed(e, r.Method, r.Host, "intercepted", intercept)
	conn := newTunnelConn(raw, buffered.Reader, e.cfg.ForwardProxy)
	defer conn.Close()
	if intercept {
		p.intercept(e, conn, name, port)
	} else {
		p.splice(e, conn, upstream, name)
	}
}

// intercept speaks TLS to the client in the name that it asked for, and forwards each request inside.
func (p *Proxy) intercept(e *Engine, conn net.Conn, name, port string) {
	secure := tls.Server(conn, &tls.Config{
		MinVersion: tls.VersionTLS12,
		NextProtos: []string{"http/1.1"},
		GetCertificate: func(hello *tls.ClientHelloInfo) (*tls.Certificate, error) {
			if refusal := checkSNI(hello.ServerName, name); refusal != nil {
				return nil, errors.New(refusal.Reason)
			}
			return e.ca.Leaf(name)
		},
	})
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
	err := secure.HandshakeContext(ctx)
	cancel()
	if err != nil {
		p.audit.Problem("error", "TLS handshake with the client failed", "host", name, "error", err.Error())
		return
	}
	inner := http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if refusal := checkInnerHost(r, name, port); refusal != nil && p.block(e, w, r.Method, name, refusal) {
			return
		}
		u := *r.URL
		u.Scheme, u.Host = "https", authority(name, port)
		p.forward(e, w, r, &u, e.cfg.TLS.MaxResponseBytes)
	})
	listener := newOneListener(secure)
	server := &http.Server{
		Handler:           inner,
		ReadHeaderTimeout: time.Duration(e.cfg.ForwardProxy.IdleTimeoutSeconds) * time.Second,
		ConnState: func(_ net.Conn, state http.ConnState) {
			if state == http.StateClosed || state == http.StateHijacked {
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

func checkInnerHost(r *http.Request, name, port string) *Refusal {
	got, gotPort := r.Host, "443"
	if h, pt, err := net.SplitHostPort(r.Host); err == nil {
		got, gotPort = h, pt
	}
	host, ok := canonicalHost(strings.Trim(got, "[]"))
	samePort := gotPort == port || r.URL.Host == "" && !strings.Contains(r.Host, ":")
	if r.URL.Host != "" && r.URL.Host != r.Host || !ok || host != name || !samePort {
		return refuse("authority", "", "host %q is not the CONNECT target", r.Host)
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

// forward sends one request on and answers with what comes back, both looked at.
func (p *Proxy) forward(e *Engine, w http.ResponseWriter, r *http.Request, u *url.URL, maxResponse int) {
	target := u.String()
	if refusal := e.CheckURL(r.Context(), target); refusal != nil && p.block(e, w, r.Method, target, refusal) {
		return
	}
	out := r.Clone(r.Context())
	out.URL, out.Host, out.RequestURI = u, u.Host, ""
	out.Close = false
	dropHopByHop(out.Header)
	out.Header.Set("Accept-Encoding", "identity")

	if refusal := e.scanRequest(out, p); refusal != nil && p.block(e, w, r.Method, target, refusal) {
		return
	}
	answer, err := e.transport.RoundTrip(out)
	if err != nil {
		p.audit.Problem("error", "upstream request failed", "method", r.Method, "url", redact(target), "error", err.Error())
		http.Error(w, "upstream request failed", http.StatusBadGateway)
		return
	}
	defer answer.Body.Close()
	dropHopByHop(answer.Header)

	if isEventStream(answer.Header) && e.cfg.Response.SSEStreaming.Enabled {
		p.stream(e, w, r, answer, target)
		return
	}
	body, refusal := e.readResponse(answer, u.Hostname(), maxResponse, p)
	if refusal != nil && p.block(e, w, r.Method, target, refusal) {
		return
	}
	p.allowed(e, r.Method, target, "status_code", answer.StatusCode, "size_bytes", len(body))
	copyHeader(w.Header(), answer.Header)
	w.WriteHeader(answer.StatusCode)
	w.Write(body)
}

// scanRequest reads the body whole, so that what is sent is what was looked at.
func (e *Engine) scanRequest(out *http.Request, p *Proxy) *Refusal {
	scan := e.cfg.RequestBody
	if !scan.Enabled {
		return nil
	}
	verdict := func(refusal *Refusal) *Refusal {
		if refusal != nil && scan.Action == "warn" {
			p.audit.Problem("anomaly", "request looks like a leak", "method", out.Method, "url", redact(out.URL.String()),
				"scanner", refusal.Scanner, "reason", refusal.Reason)
			return nil
		}
		return refusal
	}
	if scan.ScanHeaders {
		if refusal := verdict(e.checkHeaders(out.Header)); refusal != nil {
			return refusal
		}
	}
	if out.Body == nil || out.Body == http.NoBody {
		return nil
	}
	if encoding := out.Header.Get("Content-Encoding"); encoding != "" && !strings.EqualFold(encoding, "identity") {
		return refuse("body_dlp", "", "compressed request body cannot be scanned: %s", encoding)
	}
	body, err := io.ReadAll(io.LimitReader(out.Body, int64(scan.MaxBodyBytes)+1))
	if err != nil {
		return refuse("body_dlp", "", "request body cannot be read")
	}
	if len(body) > scan.MaxBodyBytes {
		return refuse("body_dlp", "Raise request_body_scanning.max_body_bytes", "request body exceeds %d bytes", scan.MaxBodyBytes)
	}
	out.Body, out.ContentLength = io.NopCloser(bytes.NewReader(body)), int64(len(body))
	out.TransferEncoding = nil
	if name := e.findSecret(string(body)); name != "" {
		return verdict(refuse("body_dlp", "Add a suppress entry", "request body contains secret: %s", name))
	}
	return nil
}

// readResponse holds a response back until all of it was seen.
func (e *Engine) readResponse(answer *http.Response, host string, limit int, p *Proxy) ([]byte, *Refusal) {
	if encoding := answer.Header.Get("Content-Encoding"); encoding != "" && !strings.EqualFold(encoding, "identity") {
		return nil, refuse("response_scan", "Add to tls_interception.passthrough_domains",
			"compressed response cannot be scanned: %s", encoding)
	}
	body, err := io.ReadAll(io.LimitReader(answer.Body, int64(limit)+1))
	if err != nil {
		return nil, refuse("response_scan", "", "response cannot be read")
	}
	if len(body) > limit {
		return nil, refuse("response_size", "Raise tls_interception.max_response_bytes", "response exceeds %d bytes", limit)
	}
	scan := e.cfg.Response
	if !scan.Enabled || matchesAny(scan.ExemptDomains, host, matchWithApex) {
		return body, nil
	}
	name := findInjection(string(body))
	if name == "" {
		return body, nil
	}
	refusal := refuse("response_scan", "Add to response_scanning.exempt_domains", "response contains prompt injection: %s", name)
	if scan.Action == "warn" {
		p.audit.Problem("response_scan", refusal.Reason, "host", host, "action", scan.Action)
		return body, nil
	}
	return nil, refusal
}

func isEventStream(h http.Header) bool {
	kind, _, _ := strings.Cut(h.Get("Content-Type"), ";")
	return strings.EqualFold(strings.TrimSpace(kind), "text/event-stream")
}

// stream passes server-sent events on one by one.
func (p *Proxy) stream(e *Engine, w http.ResponseWriter, r *http.Request, answer *http.Response, target string) {
	if encoding := answer.Header.Get("Content-Encoding"); encoding != "" && !strings.EqualFold(encoding, "identity") {
		refusal := refuse("response_scan", "", "compressed event stream cannot be scanned: %s", encoding)
		if p.block(e, w, r.Method, target, refusal) {
			return
		}
	}
	p.allowed(e, r.Method, target, "status_code", answer.StatusCode, "stream", true)
	answer.Header.Del("Content-Length")
	copyHeader(w.Header(), answer.Header)
	w.WriteHeader(answer.StatusCode)
	flush := http.NewResponseController(w)
	flush.Flush()
	reader := bufio.NewReader(answer.Body)
	for {
		line, err := reader.ReadBytes('\n')
		if _, failed := w.Write(line); failed != nil {
			return
		}
		flush.Flush()
		if err != nil {
			return
		}
	}
}

var hopByHop = []string{
	"Connection", "Keep-Alive", "Proxy-Authenticate", "Proxy-Authorization", "Proxy-Connection", "Te", "Trailer",
	"Transfer-Encoding", "Upgrade",
}

// dropHopByHop drops what concerns one connection only. Without Upgrade and Connection a WebSocket handshake reaches the
// server as a plain request, which is how the real program behaves too.
func dropHopByHop(h http.Header) {
	for _, value := range h.Values("Connection") {
		for _, name := range strings.Split(value, ",") {
			h.Del(strings.TrimSpace(name))
		}
	}
	for _, name := range hopByHop {
		h.Del(name)
	}
}

func copyHeader(to, from http.Header) {
	for name, values := range from {
		to[name] = append([]string(nil), values...)
	}
}

// splice copies bytes both ways, once the client's first message has shown that it asks for the right name.
func (p *Proxy) splice(e *Engine, conn, upstream net.Conn, name string) {
	var client io.Reader = conn
	if verify := e.cfg.ForwardProxy.SNIVerification; verify == nil || *verify {
		sni, seen, err := peekSNI(conn)
		client = io.MultiReader(bytes.NewReader(seen), conn)
		if err == nil {
			if refusal := checkSNI(sni, name); refusal != nil {
				p.metrics.Blocked.Add(1)
				p.audit.Problem("blocked", "tunnel closed", "method", http.MethodConnect, "url", name,
					"scanner", refusal.Scanner, "reason", refusal.Reason)
				return
			}
		}
	}
	var both sync.WaitGroup
	both.Add(2)
	half := func(to net.Conn, from io.Reader) {
		defer both.Done()
		io.Copy(to, from)
		if closer, ok := to.(interface{ CloseWrite() error }); ok {
			closer.CloseWrite()
		}
	}
	go half(upstream, client)
	go half(conn, upstream)
	both.Wait()
}

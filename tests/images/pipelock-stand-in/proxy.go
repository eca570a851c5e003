package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
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
	started time.Time
	counts  struct{ allowed, blocked, tunnels, open, calls atomic.Int64 }
}

// NewProxy serves with an engine until a reload brings another.
func NewProxy(engine *Engine, audit *Audit) *Proxy {
	p := &Proxy{audit: audit, started: time.Now()}
	p.engine.Store(engine)
	return p
}

// ListenAndServe serves until the context ends.
func (p *Proxy) ListenAndServe(ctx context.Context, addr string) error {
	cfg := p.engine.Load().cfg
	serve := func(addr string, handler http.Handler) (*http.Server, net.Listener, error) {
		listener, err := net.Listen("tcp", addr)
		server := &http.Server{Handler: handler, ReadHeaderTimeout: 10 * time.Second}
		context.AfterFunc(ctx, func() { server.Close() })
		return server, listener, err
	}
	if cfg.MetricsListen != "" {
		server, listener, err := serve(cfg.MetricsListen, http.HandlerFunc(p.numbers))
		if err != nil {
			return err
		}
		go server.Serve(listener)
	}
	server, listener, err := serve(addr, p)
	if err != nil {
		return err
	}
	p.audit.Event("startup", "pipelock stand-in started", "listen", addr, "mode", cfg.Mode, "version", modelled)
	if err := server.Serve(listener); !errors.Is(err, http.ErrServerClosed) {
		return err
	}
	p.audit.Event("shutdown", "pipelock stand-in stopped")
	return nil
}

func (p *Proxy) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	e := p.engine.Load()
	tunnel, plain := r.Method == http.MethodConnect, r.URL.IsAbs()
	switch {
	case (tunnel || plain) && !e.cfg.ForwardProxy.Enabled:
		http.Error(w, "forward proxy not enabled", http.StatusMethodNotAllowed)
	case tunnel:
		p.newCall(e, r, r.Host).connect(w, r)
	case plain:
		ctx, cancel := context.WithTimeout(r.Context(), time.Duration(e.cfg.FetchProxy.TimeoutSeconds)*time.Second)
		defer cancel()
		p.newCall(e, r, r.URL.String()).forward(w, r.WithContext(ctx), r.URL, e.cfg.FetchProxy.MaxResponseMB<<20)
	case r.URL.Path == "/health":
		answer(w, map[string]any{
			"status": "healthy", "version": modelled, "stand_in": true, "mode": e.cfg.Mode,
			"uptime_seconds": time.Since(p.started).Seconds(), "forward_proxy_enabled": e.cfg.ForwardProxy.Enabled,
		})
	case e.cfg.MetricsListen == "":
		p.numbers(w, r)
	default:
		http.NotFound(w, r)
	}
}

// numbers serves the counts, as JSON and for Prometheus.
func (p *Proxy) numbers(w http.ResponseWriter, r *http.Request) {
	allowed, blocked := p.counts.allowed.Load(), p.counts.blocked.Load()
	tunnels, open := p.counts.tunnels.Load(), p.counts.open.Load()
	switch r.URL.Path {
	case "/stats":
		answer(w, map[string]any{
			"uptime_seconds": time.Since(p.started).Seconds(),
			"tunnels":        tunnels,
			"requests": map[string]any{
				"total": allowed + blocked, "allowed": allowed, "blocked": blocked,
				"block_rate": float64(blocked) / float64(max(1, allowed+blocked)),
			},
		})
	case "/metrics":
		fmt.Fprintf(w, "# TYPE pipelock_info gauge\npipelock_info{version=\"%s-stand-in\"} 1\n", modelled)
		fmt.Fprintf(w, "# TYPE pipelock_requests_total counter\npipelock_requests_total{result=\"allowed\"} %d\n"+
			"pipelock_requests_total{result=\"blocked\"} %d\n", allowed, blocked)
		fmt.Fprintf(w, "# TYPE pipelock_active_tunnels gauge\npipelock_active_tunnels %d\n", open)
	default:
		http.NotFound(w, r)
	}
}

func answer(w io.Writer, value any) {
	if header, ok := w.(http.ResponseWriter); ok {
		header.Header().Set("Content-Type", "application/json")
	}
	json.NewEncoder(w).Encode(value)
}

// call is one request on its way: a CONNECT, one inside a tunnel, or a plain one.
type call struct {
	*Proxy
	e     *Engine
	about []any // what every log line of this call says
}

func (p *Proxy) newCall(e *Engine, r *http.Request, target string) *call {
	client, _, _ := net.SplitHostPort(r.RemoteAddr)
	id := fmt.Sprintf("req-%d", p.counts.calls.Add(1))
	return &call{p, e, []any{"method", r.Method, "url", redact(target), "client_ip", client, "request_id", id}}
}

// redact drops what may hold a secret: the query and the fragment.
func redact(target string) string {
	target, _, _ = strings.Cut(target, "#")
	target, _, _ = strings.Cut(target, "?")
	return target
}

// block answers with the reason. Where the configuration only watches it logs and lets the request go on, unless the
// content could not be looked at.
func (c *call) block(w http.ResponseWriter, refusal *Refusal) (done bool) {
	if watching := !c.e.cfg.Enforce || c.e.cfg.Mode == "audit"; watching && !refusal.Always {
		c.warn(refusal)
		return false
	}
	c.blocked(refusal)
	if c.e.cfg.ExplainBlocks && refusal.Hint != "" {
		w.Header().Set("X-Pipelock-Hint", refusal.Hint)
	}
	http.Error(w, "blocked: "+refusal.Reason, refusal.Status())
	return true
}

func (c *call) blocked(refusal *Refusal) {
	c.counts.blocked.Add(1)
	if c.e.cfg.Logging.IncludeBlocked {
		c.problem("blocked", "request blocked", "scanner", refusal.Scanner, "reason", refusal.Reason)
	}
}

func (c *call) warn(refusal *Refusal) {
	c.problem("anomaly", "anomaly detected", "scanner", refusal.Scanner, "reason", refusal.Reason)
}

func (c *call) allowed(pairs ...any) {
	c.counts.allowed.Add(1)
	if c.e.cfg.Logging.IncludeAllowed {
		c.audit.Event("allowed", "request allowed", append(c.about[:len(c.about):len(c.about)], pairs...)...)
	}
}

func (c *call) problem(event, message string, pairs ...any) {
	c.audit.Problem(event, message, append(c.about[:len(c.about):len(c.about)], pairs...)...)
}

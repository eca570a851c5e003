package main

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/netip"
	"net/url"
	"os"
	"strings"
	"sync"
	"time"
)

// Refusal says which check turned a request away, why, and what would let it through.
type Refusal struct {
	Scanner string
	Reason  string
	Hint    string
	// Always is set where the content could not be looked at: such a refusal stands even where the configuration only warns.
	Always bool
}

func refuse(scanner, hint, format string, args ...any) *Refusal {
	return &Refusal{Scanner: scanner, Reason: fmt.Sprintf(format, args...), Hint: hint}
}

func (r *Refusal) always() *Refusal {
	r.Always = true
	return r
}

// Status is what a client sees.
func (r *Refusal) Status() int {
	if r.Scanner == "ratelimit" {
		return http.StatusTooManyRequests
	}
	return http.StatusForbidden
}

// Scanner holds what one configuration has to say of a destination.
type Scanner struct {
	cfg     *Config
	env     []string
	limiter *Limiter
	resolve func(context.Context, string) ([]netip.Addr, error)
}

func newScanner(cfg *Config) *Scanner {
	return &Scanner{
		cfg:     cfg,
		env:     guardedEnv(cfg.DLP, os.Environ()),
		limiter: NewLimiter(cfg.FetchProxy.Monitoring.MaxRequestsPerMinute, time.Now),
		resolve: func(ctx context.Context, host string) ([]netip.Addr, error) {
			return net.DefaultResolver.LookupNetIP(ctx, "ip", host)
		},
	}
}

// CheckURL is what the real program's pipeline says of a URL, in its order: what costs nothing first, and no name is
// resolved before it is known to be allowed.
func (s *Scanner) CheckURL(ctx context.Context, text string) *Refusal {
	if limit := s.cfg.FetchProxy.Monitoring.MaxURLLength; len(text) > limit {
		return refuse("length", "Raise fetch_proxy.monitoring.max_url_length", "URL length %d exceeds %d", len(text), limit)
	}
	u, err := url.Parse(text)
	if err != nil || u.Host == "" || u.User != nil {
		return refuse("parser", "", "malformed URL")
	}
	if u.Scheme != "http" && u.Scheme != "https" {
		return refuse("scheme", "", "scheme not allowed: %s", u.Scheme)
	}
	host, ok := canonicalHost(u.Hostname())
	if !ok {
		return refuse("parser", "", "malformed host name")
	}
	checks := []func() *Refusal{
		func() *Refusal { return s.checkName(host) },
		func() *Refusal { return s.checkSecrets(u) },
		func() *Refusal { return s.checkEntropy(host, u) },
		func() *Refusal { return s.checkAddress(ctx, host) },
		func() *Refusal { return s.checkRate(host) },
	}
	for _, check := range checks {
		if refusal := check(); refusal != nil {
			return refusal
		}
	}
	return nil
}

func (s *Scanner) checkName(host string) *Refusal {
	allowed := matchesAny(s.cfg.APIAllowlist, host, matchWithApex)
	if s.cfg.Mode == "strict" && !allowed {
		return refuse("allowlist", "Add to api_allowlist", "domain not in allowlist: %s", host)
	}
	blocked := matchesAny(s.cfg.FetchProxy.Monitoring.Blocklist, host, matchWithApex)
	if blocked && (s.cfg.Mode == "strict" || !allowed) {
		return refuse("blocklist", "Remove from fetch_proxy.monitoring.blocklist", "domain in blocklist: %s", host)
	}
	return nil
}

func (s *Scanner) checkRate(host string) *Refusal {
	if s.limiter.Take(registrable(host)) {
		return nil
	}
	return refuse("ratelimit", "Raise fetch_proxy.monitoring.max_requests_per_minute",
		"rate limit exceeded for %s", registrable(host))
}

func (s *Scanner) checkAddress(ctx context.Context, host string) *Refusal {
	_, refusal := s.addresses(ctx, host)
	return refusal
}

// addresses resolves a name and gives only addresses that may be dialled; one forbidden address forbids the name.
func (s *Scanner) addresses(ctx context.Context, host string) ([]netip.Addr, *Refusal) {
	var found []netip.Addr
	if literal, err := netip.ParseAddr(host); err == nil {
		found = []netip.Addr{literal}
	} else if found, err = s.resolve(ctx, host); err != nil || len(found) == 0 {
		return nil, refuse("ssrf", "", "SSRF check failed: cannot resolve %s", host)
	}
	trusted := matchesAny(s.cfg.Trusted, host, matchWithApex)
	for i, addr := range found {
		addr = addr.Unmap().WithZone("")
		found[i] = addr
		if !trusted && contains(s.cfg.SSRF.internal, addr) && !contains(s.cfg.SSRF.allowed, addr) {
			return nil, refuse("ssrf", "Add to ssrf.ip_allowlist or trusted_domains",
				"SSRF blocked: %s resolves to internal address %s", host, addr)
		}
	}
	return found, nil
}

func contains(networks []netip.Prefix, addr netip.Addr) bool {
	for _, network := range networks {
		if network.Contains(addr) {
			return true
		}
	}
	return false
}

// Dial resolves and checks a name once more and connects to an address of that very answer, so that a name that changes
// its mind between the check and the connection gains nothing.
func (s *Scanner) Dial(ctx context.Context, network, target string) (net.Conn, error) {
	host, port, err := net.SplitHostPort(target)
	if err != nil {
		return nil, err
	}
	found, refusal := s.addresses(ctx, host)
	if refusal != nil {
		return nil, errors.New(refusal.Reason)
	}
	dialer := net.Dialer{Timeout: 10 * time.Second}
	var failed error
	for _, addr := range found {
		conn, err := dialer.DialContext(ctx, network, net.JoinHostPort(addr.String(), port))
		if err == nil {
			return conn, nil
		}
		failed = errors.Join(failed, err)
	}
	return nil, failed
}

// canonicalHost is a name in lower case without the root's dot, or an address; anything else is no host.
func canonicalHost(host string) (string, bool) {
	if addr, err := netip.ParseAddr(host); err == nil {
		return addr.Unmap().WithZone("").String(), true
	}
	host = strings.ToLower(strings.TrimSuffix(host, "."))
	if host == "" || len(host) > 253 {
		return "", false
	}
	for _, label := range strings.Split(host, ".") {
		if label == "" || len(label) > 63 || strings.Trim(label, "abcdefghijklmnopqrstuvwxyz0123456789-_") != "" {
			return "", false
		}
	}
	return host, true
}

func matchesAny(patterns []string, host string, match func(pattern, host string) bool) bool {
	for _, pattern := range patterns {
		if match(strings.ToLower(pattern), host) {
			return true
		}
	}
	return false
}

// matchWithApex lets `*.x` match x itself and everything below it.
func matchWithApex(pattern, host string) bool {
	apex, wild := strings.CutPrefix(pattern, "*.")
	return host == apex || wild && strings.HasSuffix(host, "."+apex)
}

// matchBelow lets `*.x` match what is below x, and not x.
func matchBelow(pattern, host string) bool {
	apex, wild := strings.CutPrefix(pattern, "*.")
	if wild {
		return strings.HasSuffix(host, "."+apex)
	}
	return host == pattern
}

// registrable is the name that the rate limit counts by: the last two labels, which is right for the names that tests
// use and wrong for suffixes such as co.uk.
func registrable(host string) string {
	if _, err := netip.ParseAddr(host); err == nil {
		return host
	}
	labels := strings.Split(host, ".")
	return strings.Join(labels[max(0, len(labels)-2):], ".")
}

// Limiter allows a number of requests in each sliding minute, by name.
type Limiter struct {
	limit int
	now   func() time.Time
	mu    sync.Mutex
	seen  map[string][]time.Time
}

// NewLimiter allows limit requests a minute.
func NewLimiter(limit int, now func() time.Time) *Limiter {
	return &Limiter{limit: limit, now: now, seen: map[string][]time.Time{}}
}

// Take counts one request, unless the minute is used up.
func (l *Limiter) Take(name string) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	now := l.now()
	recent := l.seen[name]
	for len(recent) > 0 && now.Sub(recent[0]) >= time.Minute {
		recent = recent[1:]
	}
	if len(recent) >= l.limit {
		l.seen[name] = recent
		return false
	}
	l.seen[name] = append(recent, now)
	return true
}

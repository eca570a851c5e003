package main

import (
	"errors"
	"fmt"
	"io"
	"net/netip"
	"os"
	"slices"
	"strings"
	"time"

	"gopkg.in/yaml.v3"
)

// Config is the part of pipelock's configuration that the stand-in knows. A key outside it is an error, as it is for the
// real program when the key is unknown there; a key that is real but not modelled here is refused too, since a test that
// depends on it would prove nothing.
type Config struct {
	Version       int      `yaml:"version"`
	Mode          string   `yaml:"mode"`
	Enforce       bool     `yaml:"enforce"`
	ExplainBlocks bool     `yaml:"explain_blocks"`
	APIAllowlist  []string `yaml:"api_allowlist"`
	Trusted       []string `yaml:"trusted_domains"`
	MetricsListen string   `yaml:"metrics_listen"`

	FetchProxy     FetchProxy     `yaml:"fetch_proxy"`
	ForwardProxy   ForwardProxy   `yaml:"forward_proxy"`
	WebSocketProxy WebSocketProxy `yaml:"websocket_proxy"`
	TLS            TLS            `yaml:"tls_interception"`
	RequestBody    RequestBody    `yaml:"request_body_scanning"`
	Response       Response       `yaml:"response_scanning"`
	DLP            DLP            `yaml:"dlp"`
	SSRF           SSRF           `yaml:"ssrf"`
	Internal       []string       `yaml:"internal"`
	Logging        Logging        `yaml:"logging"`
}

type FetchProxy struct {
	Listen         string     `yaml:"listen"`
	TimeoutSeconds int        `yaml:"timeout_seconds"`
	MaxResponseMB  int        `yaml:"max_response_mb"`
	UserAgent      string     `yaml:"user_agent"`
	Monitoring     Monitoring `yaml:"monitoring"`
}

type Monitoring struct {
	MaxURLLength               int      `yaml:"max_url_length"`
	EntropyThreshold           float64  `yaml:"entropy_threshold"`
	SubdomainEntropyThreshold  float64  `yaml:"subdomain_entropy_threshold"`
	SubdomainEntropyExclusions []string `yaml:"subdomain_entropy_exclusions"`
	MaxRequestsPerMinute       int      `yaml:"max_requests_per_minute"`
	MaxDataPerMinute           int      `yaml:"max_data_per_minute"`
	Blocklist                  []string `yaml:"blocklist"`
}

type ForwardProxy struct {
	Enabled            bool  `yaml:"enabled"`
	MaxTunnelSeconds   int   `yaml:"max_tunnel_seconds"`
	IdleTimeoutSeconds int   `yaml:"idle_timeout_seconds"`
	SNIVerification    *bool `yaml:"sni_verification"`
}

type WebSocketProxy struct {
	Enabled bool `yaml:"enabled"`
}

type TLS struct {
	Enabled            bool     `yaml:"enabled"`
	CACert             string   `yaml:"ca_cert"`
	CAKey              string   `yaml:"ca_key"`
	CertTTL            string   `yaml:"cert_ttl"`
	CertCacheSize      int      `yaml:"cert_cache_size"`
	MaxResponseBytes   int      `yaml:"max_response_bytes"`
	PassthroughDomains []string `yaml:"passthrough_domains"`

	ttl time.Duration
}

type RequestBody struct {
	Enabled      bool   `yaml:"enabled"`
	Action       string `yaml:"action"`
	MaxBodyBytes int    `yaml:"max_body_bytes"`
	ScanHeaders  bool   `yaml:"scan_headers"`
	HeaderMode   string `yaml:"header_mode"`
}

type Response struct {
	Enabled       bool         `yaml:"enabled"`
	Action        string       `yaml:"action"`
	ExemptDomains []string     `yaml:"exempt_domains"`
	SSEStreaming  SSEStreaming `yaml:"sse_streaming"`
}

type SSEStreaming struct {
	Enabled       bool   `yaml:"enabled"`
	Action        string `yaml:"action"`
	MaxEventBytes int    `yaml:"max_event_bytes"`
}

type DLP struct {
	ScanEnv         bool `yaml:"scan_env"`
	IncludeDefaults bool `yaml:"include_defaults"`
}

type SSRF struct {
	IPAllowlist []string `yaml:"ip_allowlist"`

	prefixes []netip.Prefix
}

type Logging struct {
	Format         string `yaml:"format"`
	Output         string `yaml:"output"`
	File           string `yaml:"file"`
	IncludeAllowed bool   `yaml:"include_allowed"`
	IncludeBlocked bool   `yaml:"include_blocked"`
}

// LoadConfig reads, fills in and validates a file.
func LoadConfig(file string) (*Config, error) {
	in, err := os.Open(file)
	if err != nil {
		return nil, err
	}
	defer in.Close()
	cfg, err := ParseConfig(in)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", file, err)
	}
	return cfg, nil
}

// ParseConfig takes exactly one YAML document.
func ParseConfig(in io.Reader) (*Config, error) {
	cfg := defaults()
	decoder := yaml.NewDecoder(in)
	decoder.KnownFields(true)
	if err := decoder.Decode(cfg); err != nil && !errors.Is(err, io.EOF) {
		return nil, err
	}
	if err := decoder.Decode(new(yaml.Node)); !errors.Is(err, io.EOF) {
		return nil, errors.New("more than one YAML document")
	}
	return cfg, cfg.validate()
}

func defaults() *Config {
	return &Config{
		Version: 1,
		Mode:    "balanced",
		Enforce: true,
		FetchProxy: FetchProxy{
			Listen:         "127.0.0.1:8888",
			TimeoutSeconds: 30,
			MaxResponseMB:  10,
			Monitoring: Monitoring{
				MaxURLLength: 2048, EntropyThreshold: 4.5, SubdomainEntropyThreshold: 4.0, MaxRequestsPerMinute: 60,
			},
		},
		ForwardProxy: ForwardProxy{MaxTunnelSeconds: 300, IdleTimeoutSeconds: 120},
		TLS:          TLS{CertTTL: "24h", CertCacheSize: 10000, MaxResponseBytes: 5 << 20},
		RequestBody:  RequestBody{Action: "warn", MaxBodyBytes: 5 << 20, ScanHeaders: true, HeaderMode: "sensitive"},
		Response: Response{
			Enabled: true, Action: "warn",
			SSEStreaming: SSEStreaming{Enabled: true, Action: "block", MaxEventBytes: 64 << 10},
		},
		DLP:     DLP{ScanEnv: true, IncludeDefaults: true},
		Logging: Logging{Format: "json", Output: "stdout", IncludeAllowed: true, IncludeBlocked: true},
	}
}

func (c *Config) validate() error {
	var errs []error
	wrong := func(format string, args ...any) { errs = append(errs, fmt.Errorf(format, args...)) }
	oneOf := func(key, value string, accepted ...string) {
		if !slices.Contains(accepted, value) {
			wrong("%s: %q is not one of %s", key, value, strings.Join(accepted, ", "))
		}
	}
	if c.Version != 1 {
		wrong("version: %d is not 1", c.Version)
	}
	oneOf("mode", c.Mode, "strict", "balanced", "audit")
	oneOf("request_body_scanning.action", c.RequestBody.Action, "warn", "block")
	oneOf("request_body_scanning.header_mode", c.RequestBody.HeaderMode, "sensitive", "all")
	oneOf("response_scanning.action", c.Response.Action, "strip", "warn", "block", "ask")
	oneOf("response_scanning.sse_streaming.action", c.Response.SSEStreaming.Action, "warn", "block")
	oneOf("logging.format", c.Logging.Format, "json", "text")
	oneOf("logging.output", c.Logging.Output, "stdout", "file", "both")
	if c.Mode == "strict" && len(c.APIAllowlist) == 0 {
		wrong("api_allowlist: strict mode needs at least one entry")
	}
	for key, value := range map[string]int{
		"fetch_proxy.timeout_seconds":                     c.FetchProxy.TimeoutSeconds,
		"forward_proxy.max_tunnel_seconds":                c.ForwardProxy.MaxTunnelSeconds,
		"forward_proxy.idle_timeout_seconds":              c.ForwardProxy.IdleTimeoutSeconds,
		"fetch_proxy.monitoring.max_url_length":           c.FetchProxy.Monitoring.MaxURLLength,
		"tls_interception.cert_cache_size":                c.TLS.CertCacheSize,
		"tls_interception.max_response_bytes":             c.TLS.MaxResponseBytes,
		"request_body_scanning.max_body_bytes":            c.RequestBody.MaxBodyBytes,
		"response_scanning.sse_streaming.max_event_bytes": c.Response.SSEStreaming.MaxEventBytes,
	} {
		if value <= 0 {
			wrong("%s: must be greater than 0", key)
		}
	}
	if c.FetchProxy.Monitoring.MaxRequestsPerMinute == 0 {
		c.FetchProxy.Monitoring.MaxRequestsPerMinute = 60
	}
	ttl, err := time.ParseDuration(c.TLS.CertTTL)
	if err != nil || ttl <= 0 {
		wrong("tls_interception.cert_ttl: %q is not a positive duration", c.TLS.CertTTL)
	}
	c.TLS.ttl = ttl
	for _, text := range c.SSRF.IPAllowlist {
		prefix, err := netip.ParsePrefix(text)
		if err != nil || prefix.Bits() == 0 || prefix != prefix.Masked() {
			wrong("ssrf.ip_allowlist: %q is not a canonical network", text)
			continue
		}
		c.SSRF.prefixes = append(c.SSRF.prefixes, prefix)
	}
	return errors.Join(errs...)
}

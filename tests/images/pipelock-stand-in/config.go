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

// Config is the part of pipelock's configuration that the stand-in knows. A key that pipelock does not have is an error, as
// it is there. A key that pipelock has and the stand-in does not act on may only be switched off: a test that passed with
// it would prove nothing.
type Config struct {
	Version       int      `yaml:"version"`
	Mode          string   `yaml:"mode"`
	Enforce       bool     `yaml:"enforce"`
	ExplainBlocks bool     `yaml:"explain_blocks"`
	APIAllowlist  []string `yaml:"api_allowlist"`
	Trusted       []string `yaml:"trusted_domains"`
	MetricsListen string   `yaml:"metrics_listen"`
	Internal      []string `yaml:"internal"` // nil is the default list, empty is no guard at all

	FetchProxy     FetchProxy     `yaml:"fetch_proxy"`
	ForwardProxy   ForwardProxy   `yaml:"forward_proxy"`
	WebSocketProxy WebSocketProxy `yaml:"websocket_proxy"`
	TLS            TLS            `yaml:"tls_interception"`
	RequestBody    RequestBody    `yaml:"request_body_scanning"`
	Response       Response       `yaml:"response_scanning"`
	DLP            DLP            `yaml:"dlp"`
	SSRF           SSRF           `yaml:"ssrf"`
	MediaPolicy    MediaPolicy    `yaml:"media_policy"`
	Taint          Taint          `yaml:"taint"`
	Logging        Logging        `yaml:"logging"`

	A2AScanning        onlyOff `yaml:"a2a_scanning"`
	AdaptiveEnforce    onlyOff `yaml:"adaptive_enforcement"`
	AddressProtection  onlyOff `yaml:"address_protection"`
	Agents             onlyOff `yaml:"agents"`
	Airlock            onlyOff `yaml:"airlock"`
	BrowserShield      onlyOff `yaml:"browser_shield"`
	CanaryTokens       onlyOff `yaml:"canary_tokens"`
	CrossRequest       onlyOff `yaml:"cross_request_detection"`
	Emit               onlyOff `yaml:"emit"`
	FileSentry         onlyOff `yaml:"file_sentry"`
	FlightRecorder     onlyOff `yaml:"flight_recorder"`
	GitProtection      onlyOff `yaml:"git_protection"`
	KillSwitch         onlyOff `yaml:"kill_switch"`
	LicenseFile        onlyOff `yaml:"license_file"`
	LicenseKey         onlyOff `yaml:"license_key"`
	MCPBinaryIntegrity onlyOff `yaml:"mcp_binary_integrity"`
	MCPInputScanning   onlyOff `yaml:"mcp_input_scanning"`
	MCPSessionBinding  onlyOff `yaml:"mcp_session_binding"`
	MCPToolPolicy      onlyOff `yaml:"mcp_tool_policy"`
	MCPToolScanning    onlyOff `yaml:"mcp_tool_scanning"`
	MediationEnvelope  onlyOff `yaml:"mediation_envelope"`
	Redaction          onlyOff `yaml:"redaction"`
	ReverseProxy       onlyOff `yaml:"reverse_proxy"`
	Sandbox            onlyOff `yaml:"sandbox"`
	ScanAPI            onlyOff `yaml:"scan_api"`
	SeedPhrase         onlyOff `yaml:"seed_phrase_detection"`
	Sentry             onlyOff `yaml:"sentry"`
	SessionProfiling   onlyOff `yaml:"session_profiling"`
	Suppress           onlyOff `yaml:"suppress"`
	ToolChain          onlyOff `yaml:"tool_chain_detection"`
}

type FetchProxy struct {
	Listen         string     `yaml:"listen"`
	TimeoutSeconds int        `yaml:"timeout_seconds"`
	MaxResponseMB  int        `yaml:"max_response_mb"`
	UserAgent      string     `yaml:"user_agent"` // /fetch is not modelled
	Monitoring     Monitoring `yaml:"monitoring"`
}

type Monitoring struct {
	MaxURLLength               int      `yaml:"max_url_length"`
	EntropyThreshold           float64  `yaml:"entropy_threshold"`
	SubdomainEntropyThreshold  float64  `yaml:"subdomain_entropy_threshold"`
	SubdomainEntropyExclusions []string `yaml:"subdomain_entropy_exclusions"`
	MaxRequestsPerMinute       int      `yaml:"max_requests_per_minute"`
	MaxDataPerMinute           onlyOff  `yaml:"max_data_per_minute"`
	Blocklist                  []string `yaml:"blocklist"`
}

type ForwardProxy struct {
	Enabled            bool    `yaml:"enabled"`
	MaxTunnelSeconds   int     `yaml:"max_tunnel_seconds"`
	IdleTimeoutSeconds int     `yaml:"idle_timeout_seconds"`
	SNIVerification    *bool   `yaml:"sni_verification"`
	RedirectWebSocket  onlyOff `yaml:"redirect_websocket_hosts"`
}

// WebSocketProxy is the /ws endpoint, which the stand-in does not have.
type WebSocketProxy struct {
	Enabled onlyOff `yaml:"enabled"`
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
	Enabled          bool     `yaml:"enabled"`
	Action           string   `yaml:"action"`
	MaxBodyBytes     int      `yaml:"max_body_bytes"`
	ScanHeaders      bool     `yaml:"scan_headers"`
	HeaderMode       string   `yaml:"header_mode"`
	SensitiveHeaders []string `yaml:"sensitive_headers"`
	IgnoreHeaders    []string `yaml:"ignore_headers"`
}

type Response struct {
	Enabled           bool         `yaml:"enabled"`
	Action            string       `yaml:"action"`
	AskTimeoutSeconds int          `yaml:"ask_timeout_seconds"` // nobody to ask: ask is block
	IncludeDefaults   bool         `yaml:"include_defaults"`
	Patterns          onlyOff      `yaml:"patterns"`
	ExemptDomains     []string     `yaml:"exempt_domains"`
	SSEStreaming      SSEStreaming `yaml:"sse_streaming"`
}

type SSEStreaming struct {
	Enabled       bool   `yaml:"enabled"`
	Action        string `yaml:"action"`
	MaxEventBytes int    `yaml:"max_event_bytes"`
}

type DLP struct {
	ScanEnv            bool    `yaml:"scan_env"`
	MinEnvSecretLength int     `yaml:"min_env_secret_length"`
	IncludeDefaults    bool    `yaml:"include_defaults"`
	SecretsFile        onlyOff `yaml:"secrets_file"`
	Patterns           onlyOff `yaml:"patterns"`
}

type SSRF struct {
	IPAllowlist []string `yaml:"ip_allowlist"`

	allowed  []netip.Prefix
	internal []netip.Prefix
}

// MediaPolicy is modelled as far as it refuses; images are never rewritten here.
type MediaPolicy struct {
	Enabled            bool     `yaml:"enabled"`
	StripImages        bool     `yaml:"strip_images"`
	StripAudio         bool     `yaml:"strip_audio"`
	StripVideo         bool     `yaml:"strip_video"`
	AllowedImageTypes  []string `yaml:"allowed_image_types"`
	StripImageMetadata bool     `yaml:"strip_image_metadata"`
	MaxImageBytes      int      `yaml:"max_image_bytes"`
	LogMediaExposure   bool     `yaml:"log_media_exposure"`
}

// Taint is accepted where it cannot change a verdict.
type Taint struct {
	Enabled bool   `yaml:"enabled"`
	Policy  string `yaml:"policy"`
}

type Logging struct {
	Format         string  `yaml:"format"`
	Output         string  `yaml:"output"`
	File           onlyOff `yaml:"file"`
	IncludeAllowed bool    `yaml:"include_allowed"`
	IncludeBlocked bool    `yaml:"include_blocked"`
}

// onlyOff stands for what pipelock has and the stand-in does not model: it takes every way of saying no.
type onlyOff struct{}

func (onlyOff) UnmarshalYAML(node *yaml.Node) error {
	var value any
	if err := node.Decode(&value); err != nil {
		return err
	}
	switch value := value.(type) {
	case nil:
		return nil
	case bool:
		if !value {
			return nil
		}
	case int:
		if value == 0 {
			return nil
		}
	case string:
		if value == "" {
			return nil
		}
	case []any:
		if len(value) == 0 {
			return nil
		}
	case map[string]any:
		if on, named := value["enabled"]; len(value) == 0 || len(value) == 1 && named && on == false {
			return nil
		}
	}
	return fmt.Errorf("line %d: pipelock has this setting, but the stand-in models it only switched off", node.Line)
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

// defaults are pipelock's. What is omitted keeps them, but for scan_headers, which is false when it is not written.
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
				MaxURLLength:              2048,
				EntropyThreshold:          4.5,
				SubdomainEntropyThreshold: 4.0,
				MaxRequestsPerMinute:      60,
			},
		},
		ForwardProxy: ForwardProxy{MaxTunnelSeconds: 300, IdleTimeoutSeconds: 120},
		TLS:          TLS{CertTTL: "24h", CertCacheSize: 10000, MaxResponseBytes: 5 << 20},
		RequestBody: RequestBody{
			Action:           "warn",
			MaxBodyBytes:     5 << 20,
			HeaderMode:       "sensitive",
			SensitiveHeaders: []string{"Authorization", "Cookie", "X-Api-Key", "X-Token", "Proxy-Authorization", "X-Goog-Api-Key"},
		},
		Response: Response{
			Enabled:           true,
			Action:            "warn",
			AskTimeoutSeconds: 30,
			IncludeDefaults:   true,
			SSEStreaming:      SSEStreaming{Enabled: true, Action: "block", MaxEventBytes: 64 << 10},
		},
		DLP: DLP{ScanEnv: true, MinEnvSecretLength: 16, IncludeDefaults: true},
		MediaPolicy: MediaPolicy{
			Enabled: true, StripAudio: true, StripVideo: true, AllowedImageTypes: []string{"image/png", "image/jpeg"},
			StripImageMetadata: true, MaxImageBytes: 5 << 20, LogMediaExposure: true,
		},
		Taint:   Taint{Policy: "balanced"},
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
	positive := func(key string, value int) {
		if value <= 0 {
			wrong("%s: must be greater than 0", key)
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
	oneOf("logging.format", c.Logging.Format, "json")
	oneOf("logging.output", c.Logging.Output, "stdout")
	if c.Taint.Enabled {
		oneOf("taint.policy", c.Taint.Policy, "permissive")
	}
	if c.Mode == "strict" && len(c.APIAllowlist) == 0 {
		wrong("api_allowlist: strict mode needs at least one entry")
	}
	positive("fetch_proxy.timeout_seconds", c.FetchProxy.TimeoutSeconds)
	positive("fetch_proxy.max_response_mb", c.FetchProxy.MaxResponseMB)
	positive("fetch_proxy.monitoring.max_url_length", c.FetchProxy.Monitoring.MaxURLLength)
	positive("forward_proxy.max_tunnel_seconds", c.ForwardProxy.MaxTunnelSeconds)
	positive("forward_proxy.idle_timeout_seconds", c.ForwardProxy.IdleTimeoutSeconds)
	positive("tls_interception.cert_cache_size", c.TLS.CertCacheSize)
	positive("tls_interception.max_response_bytes", c.TLS.MaxResponseBytes)
	positive("request_body_scanning.max_body_bytes", c.RequestBody.MaxBodyBytes)
	positive("response_scanning.sse_streaming.max_event_bytes", c.Response.SSEStreaming.MaxEventBytes)
	if c.FetchProxy.Monitoring.EntropyThreshold <= 0 {
		wrong("fetch_proxy.monitoring.entropy_threshold: must be greater than 0")
	}
	if c.FetchProxy.Monitoring.MaxRequestsPerMinute == 0 {
		c.FetchProxy.Monitoring.MaxRequestsPerMinute = 60
	}
	ttl, err := time.ParseDuration(c.TLS.CertTTL)
	if err != nil || ttl <= 0 {
		wrong("tls_interception.cert_ttl: %q is not a positive duration", c.TLS.CertTTL)
	}
	c.TLS.ttl = ttl
	networks := func(key string, texts []string) []netip.Prefix {
		var all []netip.Prefix
		for _, text := range texts {
			prefix, err := netip.ParsePrefix(text)
			if err != nil || prefix.Bits() == 0 || prefix != prefix.Masked() {
				wrong("%s: %q is not a canonical network", key, text)
			}
			all = append(all, prefix)
		}
		return all
	}
	if c.Internal == nil {
		c.Internal = defaultInternal
	}
	c.SSRF.internal = networks("internal", c.Internal)
	c.SSRF.allowed = networks("ssrf.ip_allowlist", c.SSRF.IPAllowlist)
	return errors.Join(errs...)
}

var defaultInternal = []string{
	"0.0.0.0/8", "10.0.0.0/8", "100.64.0.0/10", "127.0.0.0/8", "169.254.0.0/16", "172.16.0.0/12", "192.168.0.0/16",
	"224.0.0.0/4", "::1/128", "fc00::/7", "fe80::/10", "ff00::/8",
}

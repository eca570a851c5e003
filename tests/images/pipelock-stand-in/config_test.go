package main

import (
	"strings"
	"testing"
)

const smallest = "version: 1\nmode: strict\napi_allowlist: [api.example.test]\n"

func parsed(t *testing.T, text string) *Config {
	t.Helper()
	cfg, err := ParseConfig(strings.NewReader(text))
	if err != nil {
		t.Fatal(err)
	}
	return cfg
}

func TestConfigIsStrict(t *testing.T) {
	for name, text := range map[string]string{
		"unknown key":           smallest + "colour: red\n",
		"unknown nested key":    smallest + "tls_interception: {enabled: false, colour: red}\n",
		"second document":       smallest + "---\nversion: 1\n",
		"empty second document": smallest + "---\n",
		"no allowlist":          "version: 1\nmode: strict\n",
		"unknown mode":          "version: 1\nmode: lax\n",
		"other version":         "version: 2\n",
		"wrong type":            smallest + "enforce: maybe\n",
		"host bits set":         smallest + "ssrf: {ip_allowlist: [10.0.0.1/8]}\n",
		"everything allowed":    smallest + "ssrf: {ip_allowlist: [0.0.0.0/0]}\n",
		"no entropy":            smallest + "fetch_proxy: {monitoring: {entropy_threshold: 0}}\n",
		"no duration":           smallest + "tls_interception: {cert_ttl: soon}\n",
		"body action strip":     smallest + "request_body_scanning: {action: strip}\n",
		"not modelled, on":      smallest + "redaction: {enabled: true}\n",
		"not modelled, filled":  smallest + "suppress: [{rule: x, path: y}]\n",
		"not modelled, nested":  smallest + "dlp: {patterns: [{name: x, regex: y}]}\n",
		"websocket endpoint on": smallest + "websocket_proxy: {enabled: true}\n",
		"taint that blocks":     smallest + "taint: {enabled: true}\n",
	} {
		t.Run(name, func(t *testing.T) {
			if cfg, err := ParseConfig(strings.NewReader(text)); err == nil {
				t.Fatalf("accepted: %+v", cfg)
			}
		})
	}
}

func TestConfigDefaults(t *testing.T) {
	cfg := parsed(t, smallest+"fetch_proxy: {monitoring: {max_requests_per_minute: 0}}\nrequest_body_scanning: {enabled: true}\n"+
		"redaction: {enabled: false}\nsuppress: []\nwebsocket_proxy: {enabled: false}\ntaint: {enabled: true, policy: permissive}\n")
	if cfg.FetchProxy.Monitoring.MaxRequestsPerMinute != 60 {
		t.Error("0 requests a minute means 60")
	}
	if cfg.RequestBody.ScanHeaders {
		t.Error("scan_headers is off unless it is written")
	}
	if !cfg.Enforce || !cfg.Response.Enabled || cfg.TLS.MaxResponseBytes != 5<<20 || len(cfg.SSRF.internal) == 0 {
		t.Errorf("defaults were lost: %+v", cfg)
	}
	if open := parsed(t, smallest+"internal: []\n"); len(open.SSRF.internal) != 0 {
		t.Error("an empty list of internal networks is no guard")
	}
}

func TestReloadKeepsStrictDoorsShut(t *testing.T) {
	old := parsed(t, smallest)
	for name, c := range map[string]struct {
		text    string
		allowed bool
	}{
		"host added":        {"version: 1\nmode: strict\napi_allowlist: [api.example.test, other.test]\n", true},
		"trusted added":     {smallest + "trusted_domains: [x.test]\n", false},
		"passthrough added": {smallest + "tls_interception: {passthrough_domains: [x.test]}\n", false},
		"network added":     {smallest + "ssrf: {ip_allowlist: [10.0.0.0/8]}\n", false},
		"mode left":         {"version: 1\nmode: balanced\n", false},
		"enforcement off":   {smallest + "enforce: false\n", false},
	} {
		if err := reloadAllowed(old, parsed(t, c.text)); (err == nil) != c.allowed {
			t.Errorf("%s: %v", name, err)
		}
	}
}

package main

import (
	"math"
	"net/http"
	"net/url"
	"regexp"
	"strings"
)

// secretPatterns are the shapes of well-known credentials, enough for a test to see that content is looked at.
var secretPatterns = []struct {
	name    string
	pattern *regexp.Regexp
}{
	{"Anthropic API Key", regexp.MustCompile(`sk-ant-[A-Za-z0-9_-]{10,}`)},
	{"OpenAI API Key", regexp.MustCompile(`sk-(proj|svcacct)-[A-Za-z0-9_-]{10,}`)},
	{"GitHub Token", regexp.MustCompile(`gh[pousr]_[A-Za-z0-9]{36,}|github_pat_[A-Za-z0-9_]{36,}`)},
	{"AWS Access ID", regexp.MustCompile(`(AKIA|ASIA)[A-Z0-9]{16}`)},
	{"Google API Key", regexp.MustCompile(`AIza[A-Za-z0-9_-]{35}`)},
	{"Slack Token", regexp.MustCompile(`xox[abpr]-[A-Za-z0-9-]{15,}`)},
	{"Private Key Header", regexp.MustCompile(`-----BEGIN ([A-Z]+ )?PRIVATE KEY-----`)},
}

// injectionPatterns are plain attempts to give a model orders from a page.
var injectionPatterns = []struct {
	name    string
	pattern *regexp.Regexp
}{
	{"Prompt Injection", regexp.MustCompile(`(?i)(ignore|disregard|forget)\s+(all\s+)?(the\s+)?(previous|prior|above)\s+instructions`)},
}

// findSecret names the first credential shape in a text, never the match itself.
func (s *Scanner) findSecret(text string) string {
	if !s.cfg.DLP.IncludeDefaults {
		return ""
	}
	for _, secret := range secretPatterns {
		if secret.pattern.MatchString(text) {
			return secret.name
		}
	}
	return ""
}

func findInjection(text string) string {
	for _, injection := range injectionPatterns {
		if injection.pattern.MatchString(text) {
			return injection.name
		}
	}
	return ""
}

func (s *Scanner) checkSecrets(u *url.URL) *Refusal {
	text := u.String()
	if decoded, err := url.QueryUnescape(text); err == nil {
		text += "\n" + decoded
	}
	if name := s.findSecret(text); name != "" {
		return refuse("dlp", "Add a suppress entry", "DLP match: %s", name)
	}
	return nil
}

// checkEntropy looks for long random strings in the name, the path and the query.
func (s *Scanner) checkEntropy(host string, u *url.URL) *Refusal {
	const tooShort = 20
	m := s.cfg.FetchProxy.Monitoring
	excluded := matchesAny(m.SubdomainEntropyExclusions, host, matchWithApex)
	if !excluded {
		for _, segment := range strings.Split(u.Path, "/") {
			if len(segment) >= tooShort && entropy(segment) > m.EntropyThreshold {
				return refuse("entropy", "Raise fetch_proxy.monitoring.entropy_threshold", "high entropy path segment")
			}
		}
		labels := strings.Split(host, ".")
		for _, label := range labels[:max(0, len(labels)-2)] {
			if len(label) >= 8 && entropy(label) > m.SubdomainEntropyThreshold {
				return refuse("subdomain_entropy", "Add to fetch_proxy.monitoring.subdomain_entropy_exclusions",
					"high entropy subdomain")
			}
		}
	}
	for _, values := range u.Query() {
		for _, value := range values {
			if len(value) >= tooShort && entropy(value) > m.EntropyThreshold {
				return refuse("entropy", "Raise fetch_proxy.monitoring.entropy_threshold", "high entropy query parameter")
			}
		}
	}
	return nil
}

// entropy is Shannon's, in bits a character.
func entropy(text string) float64 {
	count := map[rune]float64{}
	total := 0.0
	for _, r := range text {
		count[r]++
		total++
	}
	bits := 0.0
	for _, n := range count {
		bits -= n / total * math.Log2(n/total)
	}
	return bits
}

var sensitiveHeaders = []string{
	"Authorization", "Cookie", "X-Api-Key", "X-Token", "Proxy-Authorization", "X-Goog-Api-Key",
}

// checkHeaders looks for credentials in the headers that usually hold them, or in all of them.
func (s *Scanner) checkHeaders(h http.Header) *Refusal {
	names := sensitiveHeaders
	if s.cfg.RequestBody.HeaderMode == "all" {
		names = names[:0:0]
		for name := range h {
			names = append(names, name)
		}
	}
	for _, name := range names {
		for _, value := range h.Values(name) {
			if secret := s.findSecret(value); secret != "" {
				return refuse("header_dlp", "Add a suppress entry", "request header contains secret: %s", secret)
			}
		}
	}
	return nil
}

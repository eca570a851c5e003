package main

import (
	"bytes"
	"encoding/json"
	"math"
	"mime"
	"net/http"
	"net/url"
	"regexp"
	"slices"
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
	for _, value := range s.env {
		if strings.Contains(text, value) {
			return "Environment Variable Leak"
		}
	}
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

// guardedEnv is the proxy's own environment, as far as its values are long and random enough to be secrets.
func guardedEnv(cfg DLP, environ []string) []string {
	var values []string
	for _, pair := range environ {
		_, value, _ := strings.Cut(pair, "=")
		if cfg.ScanEnv && len(value) >= cfg.MinEnvSecretLength && entropy(value) > 3 {
			values = append(values, value)
		}
	}
	return values
}

// findInjection names the first attempt in a text. Every pattern ends in one and the same word, which is looked for first:
// an expression alone takes a third of a second for a megabyte.
func findInjection(text []byte) string {
	if !containsFold(text, []byte("instructions")) {
		return ""
	}
	for _, injection := range injectionPatterns {
		if injection.pattern.Match(text) {
			return injection.name
		}
	}
	return ""
}

// containsFold looks for a lower-case word in any case, a window at a time, so that a large text is not copied whole.
func containsFold(text, word []byte) bool {
	const window = 64 << 10
	for start := 0; start < len(text); start += window {
		end := min(len(text), start+window+len(word))
		if bytes.Contains(bytes.ToLower(text[start:end]), word) {
			return true
		}
	}
	return false
}

func stripInjection(text []byte) []byte {
	for _, injection := range injectionPatterns {
		text = injection.pattern.ReplaceAll(text, []byte("[REDACTED: "+injection.name+"]"))
	}
	return text
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

// checkHeaders looks for credentials in the headers that usually hold them, or in all but the ignored ones.
func (s *Scanner) checkHeaders(h http.Header) *Refusal {
	scan := s.cfg.RequestBody
	for name, values := range h {
		named := func(list []string) bool {
			return slices.ContainsFunc(list, func(entry string) bool { return strings.EqualFold(entry, name) })
		}
		if scan.HeaderMode == "sensitive" && !named(scan.SensitiveHeaders) || scan.HeaderMode == "all" && named(scan.IgnoreHeaders) {
			continue
		}
		for _, value := range values {
			if secret := s.findSecret(value); secret != "" {
				return refuse("header_dlp", "Add a suppress entry", "request header contains secret: %s", secret)
			}
		}
	}
	return nil
}

// checkBodyForm refuses what cannot be read as what it says it is.
func checkBodyForm(contentType string, body []byte) *Refusal {
	kind, params, err := mime.ParseMediaType(contentType)
	switch {
	case contentType == "":
		return nil
	case err != nil:
		return nil // an unknown type is looked at as plain text
	case (kind == "application/json" || strings.HasSuffix(kind, "+json")) && !json.Valid(body):
		return refuse("body_dlp", "", "request body is not valid JSON").always()
	case kind == "multipart/form-data" && params["boundary"] == "":
		return refuse("body_dlp", "", "multipart request body has no boundary").always()
	case kind == "application/x-www-form-urlencoded":
		if _, err := url.ParseQuery(string(body)); err != nil {
			return refuse("body_dlp", "", "request body is not a valid form").always()
		}
	}
	return nil
}

// checkMedia refuses sound, films, and pictures of other kinds or sizes than allowed.
func checkMedia(policy MediaPolicy, h http.Header, size int) *Refusal {
	kind, _, _ := mime.ParseMediaType(h.Get("Content-Type"))
	family, _, _ := strings.Cut(kind, "/")
	refused := false
	switch family {
	case "audio":
		refused = policy.StripAudio
	case "video":
		refused = policy.StripVideo
	case "image":
		refused = policy.StripImages || !slices.Contains(policy.AllowedImageTypes, kind) || size > policy.MaxImageBytes
	}
	if !policy.Enabled || !refused {
		return nil
	}
	return refuse("media_policy", "Change media_policy", "media type not allowed: %s", kind)
}

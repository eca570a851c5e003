package main

import (
	"bytes"
	"io"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"time"
)

// forward sends one request on and answers with what comes back, both looked at.
func (c *call) forward(w http.ResponseWriter, r *http.Request, u *url.URL, maxResponse int) {
	began := time.Now()
	if refusal := c.e.CheckURL(r.Context(), u.String()); refusal != nil && c.block(w, refusal) {
		return
	}
	out := r.Clone(r.Context())
	out.URL, out.Host, out.RequestURI, out.Close = u, u.Host, "", false
	dropHopByHop(out.Header)
	out.Header.Set("Accept-Encoding", "identity")
	if refusal := c.scanRequest(out); refusal != nil && c.block(w, refusal) {
		return
	}
	response, err := c.e.transport.RoundTrip(out)
	if err != nil {
		c.problem("error", "upstream request failed", "error", err.Error())
		http.Error(w, "upstream request failed", http.StatusBadGateway)
		return
	}
	defer response.Body.Close()
	dropHopByHop(response.Header)
	if encoding := compression(response.Header); encoding != "" {
		hint := "Add to tls_interception.passthrough_domains"
		c.block(w, refuse("response_scan", hint, "compressed response cannot be scanned: %s", encoding).always())
		return
	}
	if c.streams(response) {
		c.stream(w, response, u.Hostname())
		return
	}
	body, refusal := c.readResponse(response, u.Hostname(), maxResponse)
	if refusal != nil && c.block(w, refusal) {
		return
	}
	c.allowed("status_code", response.StatusCode, "size_bytes", len(body), "duration_ms", time.Since(began).Milliseconds())
	copyHeader(w.Header(), response.Header)
	w.WriteHeader(response.StatusCode)
	w.Write(body)
}

// scanRequest reads the body whole, so that what is sent is what was looked at.
func (c *call) scanRequest(out *http.Request) *Refusal {
	scan := c.e.cfg.RequestBody
	if !scan.Enabled {
		return nil
	}
	verdict := func(refusal *Refusal) *Refusal {
		if refusal == nil || refusal.Always || scan.Action == "block" {
			return refusal
		}
		c.warn(refusal)
		return nil
	}
	if scan.ScanHeaders {
		if refusal := verdict(c.e.checkHeaders(out.Header)); refusal != nil {
			return refusal
		}
	}
	if out.Body == nil || out.Body == http.NoBody {
		return nil
	}
	if encoding := compression(out.Header); encoding != "" {
		return refuse("body_dlp", "", "compressed request body cannot be scanned: %s", encoding).always()
	}
	body, err := io.ReadAll(io.LimitReader(out.Body, int64(scan.MaxBodyBytes)+1))
	if err != nil {
		return refuse("body_dlp", "", "request body cannot be read").always()
	}
	if len(body) > scan.MaxBodyBytes {
		hint := "Raise request_body_scanning.max_body_bytes"
		return refuse("body_dlp", hint, "request body exceeds %d bytes", scan.MaxBodyBytes).always()
	}
	out.Body, out.ContentLength, out.TransferEncoding = io.NopCloser(bytes.NewReader(body)), int64(len(body)), nil
	if refusal := checkBodyForm(out.Header.Get("Content-Type"), body); refusal != nil {
		return refusal
	}
	if name := c.e.findSecret(string(body)); name != "" {
		return verdict(refuse("body_dlp", "Add a suppress entry", "request body contains secret: %s", name))
	}
	return nil
}

// readResponse holds a response back until all of it was seen.
func (c *call) readResponse(response *http.Response, host string, limit int) ([]byte, *Refusal) {
	body, err := io.ReadAll(io.LimitReader(response.Body, int64(limit)+1))
	if err != nil {
		return nil, refuse("response_scan", "", "response cannot be read").always()
	}
	if len(body) > limit {
		hint := "Raise tls_interception.max_response_bytes"
		return nil, refuse("response_scan", hint, "response exceeds %d bytes", limit).always()
	}
	if refusal := checkMedia(c.e.cfg.MediaPolicy, response.Header, len(body)); refusal != nil {
		return body, refusal
	}
	scan := c.e.cfg.Response
	if !scan.Enabled || !scan.IncludeDefaults || matchesAny(scan.ExemptDomains, host, matchWithApex) {
		return body, nil
	}
	name := findInjection(body)
	if name == "" {
		return body, nil
	}
	switch scan.Action {
	case "warn", "strip":
		c.problem("response_scan", "prompt injection in response", "action", scan.Action, "patterns", []string{name})
		if scan.Action == "strip" {
			body = stripInjection(body)
			response.Header.Del("Content-Length")
		}
		return body, nil
	default:
		hint := "Add to response_scanning.exempt_domains"
		return body, refuse("response_scan", hint, "response contains prompt injection: %s", name)
	}
}

// compression is a content encoding that keeps the content from being looked at.
func compression(h http.Header) string {
	for _, encoding := range h.Values("Content-Encoding") {
		if encoding != "" && !strings.EqualFold(encoding, "identity") {
			return encoding
		}
	}
	return ""
}

var hopByHop = []string{
	"Connection", "Keep-Alive", "Proxy-Authenticate", "Proxy-Authorization", "Proxy-Connection", "Te", "Trailer",
	"Transfer-Encoding", "Upgrade",
}

// dropHopByHop drops what concerns one connection only. Without Upgrade and Connection a WebSocket handshake reaches the
// server as a plain request.
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
		to[name] = slices.Clone(values)
	}
}

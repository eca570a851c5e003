package main

import (
	"bufio"
	"bytes"
	"io"
	"mime"
	"net/http"
	"unicode/utf8"
)

// streams tells whether a response is passed on as it comes. With response scanning off, release 2.3.0 still held event
// streams back for the sake of its media policy.
func (c *call) streams(response *http.Response) bool {
	kind, _, _ := mime.ParseMediaType(response.Header.Get("Content-Type"))
	return kind == "text/event-stream" && (c.e.cfg.Response.Enabled || !c.e.cfg.MediaPolicy.Enabled)
}

// stream passes server-sent events on one by one, and ends where it finds one that may not pass.
func (c *call) stream(w http.ResponseWriter, response *http.Response, host string) {
	c.allowed("status_code", response.StatusCode, "stream", true)
	response.Header.Del("Content-Length")
	copyHeader(w.Header(), response.Header)
	w.WriteHeader(response.StatusCode)
	out := flushing{w, http.NewResponseController(w)}
	out.control.Flush()
	if !c.e.cfg.Response.Enabled || !c.e.cfg.Response.SSEStreaming.Enabled {
		io.Copy(out, response.Body)
		return
	}
	limit := c.e.cfg.Response.SSEStreaming.MaxEventBytes
	err := eachEvent(response.Body, limit, func(event, data []byte) *Refusal {
		if refusal := c.checkEvent(data, host); refusal != nil {
			return refusal
		}
		out.Write(event)
		return nil
	})
	if err != nil {
		c.blocked(err)
	}
}

func (c *call) checkEvent(data []byte, host string) *Refusal {
	var refusal *Refusal
	if name := c.e.findSecret(string(data)); name != "" {
		refusal = refuse("sse_stream", "", "event contains secret: %s", name)
	} else if name := findInjection(data); name != "" && !matchesAny(c.e.cfg.Response.ExemptDomains, host, matchWithApex) {
		refusal = refuse("sse_stream", "", "event contains prompt injection: %s", name)
	}
	if refusal != nil && c.e.cfg.Response.SSEStreaming.Action == "warn" {
		c.warn(refusal)
		return nil
	}
	return refusal
}

// eachEvent cuts a stream into events. Comments are not passed on. An event whose data is too long or no text ends the
// stream, whatever the configured action.
func eachEvent(in io.Reader, limit int, pass func(event, data []byte) *Refusal) *Refusal {
	reader := bufio.NewReader(in)
	var event, data []byte
	for {
		line, err := reader.ReadBytes('\n')
		text := bytes.TrimRight(line, "\r\n")
		switch value, isData := bytes.CutPrefix(text, []byte("data:")); {
		case len(text) == 0 && len(event) > 0 && err == nil:
			if refusal := pass(append(event, '\n'), data); refusal != nil {
				return refusal
			}
			event, data = nil, nil
		case len(text) == 0 || text[0] == ':':
		default:
			event = append(append(event, text...), '\n')
			if isData {
				data = append(data, value...)
			}
		}
		switch {
		case len(data) > limit:
			return refuse("sse_stream", "", "event exceeds %d bytes", limit)
		case !utf8.Valid(data):
			return refuse("sse_stream", "", "event is not UTF-8")
		case err != nil:
			return nil
		}
	}
}

// flushing sends on whatever is written at once.
type flushing struct {
	w       io.Writer
	control *http.ResponseController
}

func (f flushing) Write(b []byte) (int, error) {
	n, err := f.w.Write(b)
	f.control.Flush()
	return n, err
}

package main

import (
	"io"
	"log/slog"
	"time"
)

// Audit writes one JSON object a line: what was allowed, what was blocked and why, and the life of the process. It never
// writes a body, a header's value or a URL's query.
type Audit struct{ log *slog.Logger }

// NewAudit logs to out, with the field names of the real program.
func NewAudit(out io.Writer) *Audit {
	levels := map[slog.Level]string{slog.LevelInfo: "info", slog.LevelWarn: "warn"}
	rename := func(_ []string, a slog.Attr) slog.Attr {
		switch a.Key {
		case slog.TimeKey:
			return slog.String("time", a.Value.Time().UTC().Format(time.RFC3339Nano))
		case slog.LevelKey:
			return slog.String("level", levels[a.Value.Any().(slog.Level)])
		case slog.MessageKey:
			a.Key = "message"
		}
		return a
	}
	handler := slog.NewJSONHandler(out, &slog.HandlerOptions{ReplaceAttr: rename})
	return &Audit{log: slog.New(handler).With("component", "pipelock", "stand_in", true)}
}

// Event logs what is as it should be.
func (a *Audit) Event(event, message string, pairs ...any) {
	a.log.Info(message, append([]any{"event", event}, pairs...)...)
}

// Problem logs what an operator should look at.
func (a *Audit) Problem(event, message string, pairs ...any) {
	a.log.Warn(message, append([]any{"event", event}, pairs...)...)
}

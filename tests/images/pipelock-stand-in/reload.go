package main

import (
	"context"
	"errors"
	"os"
	"os/signal"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"time"
	"unsafe"
)

// settle is how long a burst of changes may last before the file is read.
const settle = 100 * time.Millisecond

// WatchConfig reloads on SIGHUP and when the directory of the file reports a change to it. A bind-mounted single file
// that is written from outside causes no such report; there SIGHUP is the way.
func (p *Proxy) WatchConfig(ctx context.Context, file string) {
	wake := make(chan os.Signal, 1)
	signal.Notify(wake, syscall.SIGHUP)
	defer signal.Stop(wake)
	changed := make(chan struct{}, 1)
	if err := watchFile(ctx, file, changed); err != nil {
		p.audit.Problem("error", "cannot watch the configuration's directory", "error", err.Error())
	}
	for {
		select {
		case <-ctx.Done():
			return
		case <-wake:
		case <-changed:
		}
		time.Sleep(settle)
		drain(wake)
		drain(changed)
		p.Reload(file)
	}
}

// drain forgets a report that came while the burst settled.
func drain[T any](c <-chan T) {
	select {
	case <-c:
	default:
	}
}

// Reload puts a new configuration in force for new connections, or keeps the old one and says why.
func (p *Proxy) Reload(file string) {
	old := p.engine.Load()
	cfg, err := LoadConfig(file)
	if err == nil {
		err = reloadAllowed(old.cfg, cfg)
	}
	var engine *Engine
	if err == nil {
		engine, err = NewEngine(cfg)
	}
	if err != nil {
		p.audit.Problem("config_reload", "configuration kept", "status", "failed", "detail", err.Error())
		return
	}
	p.engine.Store(engine)
	p.audit.Event("config_reload", "configuration reloaded", "status", "success", "detail", "mode="+cfg.Mode)
}

// reloadAllowed refuses, in strict mode, what would open a door while the proxy runs.
func reloadAllowed(old, new *Config) error {
	if old.Mode != "strict" {
		return nil
	}
	var errs []error
	if new.Mode != "strict" {
		errs = append(errs, errors.New("strict mode cannot be left by a reload"))
	}
	if old.Enforce && !new.Enforce {
		errs = append(errs, errors.New("enforcement cannot be turned off by a reload"))
	}
	for key, lists := range map[string][2][]string{
		"trusted_domains":                      {old.Trusted, new.Trusted},
		"tls_interception.passthrough_domains": {old.TLS.PassthroughDomains, new.TLS.PassthroughDomains},
		"ssrf.ip_allowlist":                    {old.SSRF.IPAllowlist, new.SSRF.IPAllowlist},
	} {
		for _, entry := range lists[1] {
			if !slices.Contains(lists[0], entry) {
				errs = append(errs, errors.New(key+": strict mode refuses to add "+entry+" by a reload"))
			}
		}
	}
	return errors.Join(errs...)
}

// watchFile reports changes to a file by watching its directory.
func watchFile(ctx context.Context, file string, changed chan<- struct{}) error {
	fd, err := syscall.InotifyInit1(syscall.IN_CLOEXEC | syscall.IN_NONBLOCK)
	if err != nil {
		return err
	}
	events := os.NewFile(uintptr(fd), "inotify")
	const mask = syscall.IN_CLOSE_WRITE | syscall.IN_MODIFY | syscall.IN_CREATE | syscall.IN_MOVED_TO
	if _, err := syscall.InotifyAddWatch(fd, filepath.Dir(file), mask); err != nil {
		return errors.Join(err, events.Close())
	}
	context.AfterFunc(ctx, func() { events.Close() })
	go func() {
		buffer := make([]byte, 4096)
		for {
			n, err := events.Read(buffer)
			if err != nil {
				return
			}
			if !mentions(buffer[:n], filepath.Base(file)) {
				continue
			}
			select {
			case changed <- struct{}{}:
			default:
			}
		}
	}()
	return nil
}

// mentions looks for a file's name in a batch of events.
func mentions(events []byte, name string) bool {
	for len(events) >= syscall.SizeofInotifyEvent {
		length := (*syscall.InotifyEvent)(unsafe.Pointer(&events[0])).Len
		end := syscall.SizeofInotifyEvent + int(length)
		if strings.TrimRight(string(events[syscall.SizeofInotifyEvent:end]), "\x00") == name {
			return true
		}
		events = events[end:]
	}
	return false
}

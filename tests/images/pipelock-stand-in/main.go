// pipelock-stand-in is a test double for the pipelock egress firewall. It takes the same command line and the same
// configuration file, and answers a client in the same way where the end-to-end tests of this project look. It is not a
// security product: it models only what those tests need, and where it models less it refuses rather than allows.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"net/http"
	"os"
	"os/signal"
	"strings"
	"syscall"
	"time"
)

// modelled is the release whose behaviour this program imitates.
const modelled = "2.3.0"

const usage = `pipelock-stand-in: a test double for pipelock ` + modelled + `

  run         --config/-c FILE --listen/-l ADDR   serve until SIGINT or SIGTERM
  check       --config/-c FILE [--url URL]        validate a configuration, and what it says of one URL
  healthcheck --addr HOST:PORT                    ask a running proxy whether it is well
  version
`

func main() { os.Exit(cli(os.Args[1:], os.Stdout, os.Stderr)) }

func cli(args []string, out, errs io.Writer) int {
	if len(args) == 0 {
		fmt.Fprint(errs, usage)
		return 1
	}
	commands := map[string]func([]string, io.Writer) error{
		"run": run, "check": check, "healthcheck": healthcheck, "version": version,
	}
	command, ok := commands[args[0]]
	if !ok {
		fmt.Fprintf(errs, "Error: unknown command %q\n%s", args[0], usage)
		return 1
	}
	if err := command(args[1:], out); err != nil {
		fmt.Fprintln(errs, "Error:", err)
		return 1
	}
	return 0
}

func run(args []string, out io.Writer) error {
	var file, listen string
	if err := parse("run", args, func(f *flag.FlagSet) {
		both(f, &file, "config", "c")
		both(f, &listen, "listen", "l")
	}); err != nil {
		return err
	}
	if file == "" {
		return errors.New("the stand-in needs --config")
	}
	cfg, err := LoadConfig(file)
	if err != nil {
		return err
	}
	if listen == "" {
		listen = cfg.FetchProxy.Listen
	}
	log := NewAudit(out)
	engine, err := NewEngine(cfg)
	if err != nil {
		return err
	}
	proxy := NewProxy(engine, log)

	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	go proxy.WatchConfig(ctx, file)
	return proxy.ListenAndServe(ctx, listen)
}

// check reads a configuration as run would, but like the real one does not open the certificate authority.
func check(args []string, out io.Writer) error {
	var file, url string
	if err := parse("check", args, func(f *flag.FlagSet) {
		both(f, &file, "config", "c")
		f.StringVar(&url, "url", "", "")
	}); err != nil {
		return err
	}
	if file == "" {
		return errors.New("the stand-in needs --config")
	}
	cfg, err := LoadConfig(file)
	if err != nil {
		return err
	}
	fmt.Fprintf(out, "Config OK: mode=%s\n", cfg.Mode)
	if url == "" {
		return nil
	}
	engine := newScanner(cfg)
	ctx, cancel := context.WithTimeout(context.Background(), 5*time.Second)
	defer cancel()
	if refusal := engine.CheckURL(ctx, url); refusal != nil {
		fmt.Fprintf(out, "BLOCKED: %s (%s)\n", refusal.Reason, refusal.Scanner)
		return errors.New("the URL is blocked")
	}
	fmt.Fprintln(out, "ALLOWED")
	return nil
}

func healthcheck(args []string, _ io.Writer) error {
	addr := "127.0.0.1:8888"
	if err := parse("healthcheck", args, func(f *flag.FlagSet) { f.StringVar(&addr, "addr", addr, "") }); err != nil {
		return err
	}
	// No proxy: the check is of this very container, whatever its environment says.
	client := http.Client{Timeout: 3 * time.Second, Transport: &http.Transport{DisableKeepAlives: true}}
	answer, err := client.Get("http://" + addr + "/health")
	if err != nil {
		return err
	}
	defer answer.Body.Close()
	if answer.StatusCode != http.StatusOK {
		return fmt.Errorf("health answered %s", answer.Status)
	}
	return nil
}

func version(_ []string, out io.Writer) error {
	fmt.Fprintf(out, "pipelock-stand-in: a test double that models pipelock %s; not pipelock\n", modelled)
	return nil
}

// both declares one flag under its long and its short name.
func both(f *flag.FlagSet, value *string, long, short string) {
	f.StringVar(value, long, "", "")
	f.StringVar(value, short, "", "")
}

// parse reads flags. The standard parser would also take -config, which the real program reads as -c onfig, so that is
// refused here.
func parse(name string, args []string, declare func(*flag.FlagSet)) error {
	for _, arg := range args {
		short, isShort := strings.CutPrefix(arg, "-")
		short, _, _ = strings.Cut(short, "=")
		if isShort && !strings.HasPrefix(short, "-") && len(short) > 1 {
			return fmt.Errorf("a long option takes two dashes: %s", arg)
		}
	}
	flags := flag.NewFlagSet(name, flag.ContinueOnError)
	flags.SetOutput(io.Discard)
	declare(flags)
	if err := flags.Parse(args); err != nil {
		return err
	}
	if flags.NArg() > 0 {
		return fmt.Errorf("unexpected argument %q", flags.Arg(0))
	}
	return nil
}

"""The world beyond the bottle, for tests: web, an API, git, name service, and ports on which nothing should arrive.

Everything that reaches this host is recorded (see events.py). All is set by the environment:

    OUTSIDE_NAMES       names and addresses that the certificate is for, separated by commas
                        (default: outside.test,api.anthropic.com,localhost)
    OUTSIDE_API_KEY     when set, /v1/ answers 401 to anyone who does not show it
    OUTSIDE_GIT_TOKEN   when set, git over HTTP(S) wants it, as the password of any user or as a bearer
    OUTSIDE_REPOS       the repositories to make, separated by commas (default: demo)
    OUTSIDE_DNS_ANSWER  the address that every name resolves to (default: this container's first)

Ports: 80 HTTP, 443 and 8443 HTTPS, 22 ssh (user git), 53/udp names, 53/tcp, 9000/tcp and 9001/udp listeners.

Mounts, all optional: /ca/ca.crt and /ca/ca.key, the authority that signs the certificate (else one is made);
/keys/authorized_keys, who may log in by ssh.

To read: /data/events.jsonl, /data/ca.crt, /data/known_hosts (lines for every name), /srv/git/<name>.git.
"""

import os
import pathlib
import signal
import socket
import subprocess
import threading
import time

import events
import git_host
import listeners
import tls
import web

DATA = pathlib.Path(events.DATA)


def main():
    DATA.mkdir(exist_ok=True)
    # Users other than root write events too: ssh runs its command as `git`.
    pathlib.Path(events.PATH).touch()
    os.chmod(events.PATH, 0o666)

    names = setting("OUTSIDE_NAMES", "outside.test,api.anthropic.com,localhost").split(",")
    own_address = socket.gethostbyname(socket.gethostname())
    context = tls.server_context(DATA, [*names, own_address])
    git_host.make_repositories(setting("OUTSIDE_REPOS", "demo").split(","))
    sshd = git_host.start_sshd(DATA, [*names, own_address])
    web.API_KEY = setting("OUTSIDE_API_KEY", "")
    git_host.TOKEN = setting("OUTSIDE_GIT_TOKEN", "")

    for serve in (
        lambda: web.serve(80),
        lambda: web.serve(443, context),
        lambda: web.serve(8443, context),
        lambda: listeners.names(53, setting("OUTSIDE_DNS_ANSWER", own_address)),
        lambda: listeners.tcp(53),
        lambda: listeners.tcp(9000),
        lambda: listeners.udp(9001),
    ):
        threading.Thread(target=serve, daemon=True).start()
    for port in (80, 443, 8443, 22, 53, 9000, 9001):
        wait_for(port)
    (DATA / "ready").touch()

    signal.sigwait({signal.SIGTERM, signal.SIGINT})
    sshd.terminate()


def setting(name, default):
    return os.environ.get(name) or default


def wait_for(port):
    """Waits until the port is open, without a connection that would be recorded."""
    for _ in range(250):
        for table in ("/proc/net/tcp", "/proc/net/udp"):
            with open(table) as lines:
                if any(f":{port:04X} 00000000:0000" in line for line in lines):
                    return
        time.sleep(0.02)
    raise SystemExit(f"port {port} did not open")


if __name__ == "__main__":
    signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTERM, signal.SIGINT})
    try:
        main()
    except subprocess.CalledProcessError as error:
        raise SystemExit(f"{error}: {error.stderr}") from error

"""The runner: mitmproxy's core with only the add-ons that this sidecar needs."""

import asyncio
import logging
import signal
from pathlib import Path

from . import lean  # noqa: F401  (must come before anything of mitmproxy)

# isort: split

from cryptography import x509
from mitmproxy import options, tls
from mitmproxy.addons.tlsconfig import TlsConfig
from mitmproxy.connection import Server
from mitmproxy.master import Master

from sidecar.credentials import Credentials

from . import audit
from .addon import Gate
from .budget import Budget, place
from .connections import Listener, handler_of
from .endings import Endings
from .layers import NextLayer
from .names import join_authority
from .proposer import Proposer
from .settings import Settings
from .status import Current

# Longer than a model takes until its first token. An idle connection costs a few kilobytes.
IDLE_SECONDS = 3600


async def serve(settings: Settings, current: Current, credentials: Credentials, confdir: Path, trust: Path) -> int:
    """Serves until SIGTERM or SIGINT, and reloads the routes on SIGHUP. Returns the exit status."""
    _quiet()
    host, port = settings.upstream
    # Without this directory from the start, mitmproxy would create an authority of its own.
    master = Master(options.Options(confdir=str(confdir)))
    listener = Listener(settings.max_inspected)
    budget = Budget(place(credentials.directory), lambda: current.table().limits)
    spent = current.table().single()
    gate = Gate(current.table, credentials, budget, Proposer(settings.supervise), spent)
    firewall = x509.load_pem_x509_certificate(settings.upstream_ca.read_bytes())
    master.addons.add(listener, NextLayer(), Tls(firewall.subject), gate)
    master.options.update(
        mode=[f"upstream:http://{join_authority(host, port, None)}"],
        listen_host="0.0.0.0",
        listen_port=settings.listen_port,
        ssl_verify_upstream_trusted_ca=str(trust),
        # Nothing is sent upstream before a request was judged: no early connection, no fetch of the real certificate.
        connection_strategy="lazy",
        upstream_cert=False,
        # The same protocol on both sides: a request is sent as it was judged, without a translation between versions.
        http2=False,
        http3=False,
        websocket=False,
        rawtcp=False,
        tcp_timeout=IDLE_SECONDS,
    )
    loop = asyncio.get_running_loop()
    loop.add_signal_handler(signal.SIGHUP, current.reload)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGHUP})
    for name in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(name, master.shutdown)
    running = asyncio.create_task(master.run())
    try:
        await listener.listen("0.0.0.0", settings.listen_port)
    except OSError:
        audit.emit("stopped", outcome="failed", reason=f"cannot listen on port {settings.listen_port}")
        return 1
    audit.emit("started", port=settings.listen_port, routes=len(current.table().routes))
    watching = asyncio.create_task(Endings(current.table, spent).watch())
    await running
    watching.cancel()
    return 0


class Tls(TlsConfig):
    """mitmproxy's TLS, without the revocation list that it would serve under a path of every host."""

    def __init__(self, firewall: x509.Name) -> None:
        self._firewall = firewall

    def request(self, flow: object) -> None:
        pass

    def tls_established_server(self, data: tls.TlsData) -> None:
        """Notes if pipelock's authority issued the certificate, which means that pipelock decrypts the host."""
        chain = data.conn.certificate_list
        issued_by_firewall = bool(chain) and chain[0].to_cryptography().issuer == self._firewall
        handler = handler_of(data.context.client)
        handler.intercepted = issued_by_firewall
        if isinstance(data.conn, Server) and data.conn.address is not None:
            handler.firewall.remember(data.conn.address, inspected=issued_by_firewall)


class _AsLines(logging.Handler):
    """Handler that writes the libraries' warnings as audit lines, without their text, because it quotes messages."""

    def emit(self, record: logging.LogRecord) -> None:
        kind = record.exc_info[0].__name__ if record.exc_info and record.exc_info[0] else None
        audit.emit("log", level=record.levelname, source=f"{record.name}:{record.lineno}", kind=kind)


def _quiet() -> None:
    root = logging.getLogger()
    root.handlers = [_AsLines(logging.WARNING)]
    root.setLevel(logging.WARNING)

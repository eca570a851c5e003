"""The runner: mitmproxy's core with the few add-ons that this sidecar needs, and no other."""

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

from . import audit
from .addon import Gate
from .connections import Listener, handler_of
from .layers import NextLayer
from .names import join_authority
from .settings import Settings
from .status import Current

# Longer than a model thinks before its first word. An idle connection costs a few kilobytes.
IDLE_SECONDS = 3600


async def serve(settings: Settings, current: Current, confdir: Path, trust: Path) -> int:
    """Run until SIGTERM or SIGINT; reload the routes on SIGHUP. Returns the exit status."""
    _quiet()
    host, port = settings.upstream
    # mitmproxy makes an authority of its own if it is not told at once where there is one.
    master = Master(options.Options(confdir=str(confdir)))
    listener = Listener(settings.max_inspected)
    firewall = x509.load_pem_x509_certificate(settings.upstream_ca.read_bytes())
    master.addons.add(listener, NextLayer(), Tls(firewall.subject), Gate(current.table))
    master.options.update(
        mode=[f"upstream:http://{join_authority(host, port, None)}"],
        listen_host="0.0.0.0",
        listen_port=settings.listen_port,
        ssl_verify_upstream_trusted_ca=str(trust),
        # Nothing is sent on before a request was judged: no early connection, no look at the real certificate.
        connection_strategy="lazy",
        upstream_cert=False,
        # One protocol on either side: what is judged is what is sent, without a translation between versions.
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
    await running
    return 0


class Tls(TlsConfig):
    """mitmproxy's TLS, less the revocation list that it would serve under a path of every host."""

    def __init__(self, firewall: x509.Name) -> None:
        self._firewall = firewall

    def request(self, flow: object) -> None:
        pass

    def tls_established_server(self, data: tls.TlsData) -> None:
        """Notes whether the far side is the host, or pipelock with a certificate of its own."""
        chain = data.conn.certificate_list
        issued_by_firewall = bool(chain) and chain[0].to_cryptography().issuer == self._firewall
        handler = handler_of(data.context.client)
        handler.intercepted = issued_by_firewall
        if isinstance(data.conn, Server) and data.conn.address is not None:
            handler.firewall.remember(data.conn.address, inspected=issued_by_firewall)


class _AsLines(logging.Handler):
    """Warnings of the libraries as lines of the audit: where and what kind, since their words quote messages."""

    def emit(self, record: logging.LogRecord) -> None:
        kind = record.exc_info[0].__name__ if record.exc_info and record.exc_info[0] else None
        audit.emit("log", level=record.levelname, source=f"{record.name}:{record.lineno}", kind=kind)


def _quiet() -> None:
    root = logging.getLogger()
    root.handlers = [_AsLines(logging.WARNING)]
    root.setLevel(logging.WARNING)

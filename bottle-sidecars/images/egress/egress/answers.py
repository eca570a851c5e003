"""What the agent is told when a request does not pass: short, the same shape each time, and nothing of the inside."""

import json
import re

from mitmproxy import http
from mitmproxy.net.http import http1, status_codes

from .policy import Refusal

# What stands for a failure on its way through mitmproxy, which carries them as text.
_CONNECT_REFUSED = re.compile(r"CONNECT refused: (\d{3}) (.*)", re.DOTALL)
TIMED_OUT = "timed out"
NOT_ADMITTED = "not admitted"

# RFC 9110, section 15.5.22, asks for the header; the client may go on with what it speaks already.
UPGRADE_IMPOSSIBLE = Refusal(
    426, "websocket", "WebSocket is not possible here, since the content for this host is inspected; use plain requests"
)


def headers(rule: str) -> dict[str, str]:
    return {"Content-Type": "application/json", "X-Egress-Refused": rule, "Cache-Control": "no-store"}


def body(refusal: Refusal) -> bytes:
    """JSON that the clients of the common model APIs show as it is, and a person can read."""
    error = {"type": "egress_refused", "rule": refusal.rule, "message": f"egress: {refusal.message}"}
    return json.dumps({"type": "error", "error": error}).encode() + b"\n"


def response(refusal: Refusal) -> http.Response:
    upgrade = {"Upgrade": "HTTP/1.1", "Connection": "Upgrade"} if refusal.status == 426 else {}
    return http.Response.make(refusal.status, body(refusal), headers(refusal.rule) | upgrade)


def closing_message(refusal: Refusal) -> bytes:
    """A whole response for a connection that ends with it."""
    answer = http.Response.make(refusal.status, body(refusal), headers(refusal.rule) | {"Connection": "close"})
    answer.reason = status_codes.RESPONSES.get(refusal.status, "Refused")
    return http1.assemble_response(answer)


def connect_refused(status: int, reason: bytes) -> str:
    """The text for a CONNECT that the firewall refused, which `failure` reads."""
    return f"CONNECT refused: {status} {reason.decode('latin-1')}"


def failure(status: int, message: str) -> Refusal:
    """What a failure inside the proxy is to the agent. Its own words name addresses and quote messages: they stay here."""
    if refused := _CONNECT_REFUSED.match(message):
        return _refused_by_firewall(int(refused[1]), refused[2])
    if status < 500:
        return Refusal(status, "malformed", "the request is malformed")
    if message == TIMED_OUT:
        return Refusal(504, "upstream-timeout", "the host did not accept a connection in time")
    if message == NOT_ADMITTED:
        return Refusal(503, "inspection-busy", "the firewall has as many requests to inspect as it may; try again later")
    if "certificate verify failed" in message.lower():
        return Refusal(502, "upstream-certificate", "the certificate of the other side is not trusted")
    return Refusal(502, "upstream", "no answer from the other side")


def _refused_by_firewall(status: int, reason: str) -> Refusal:
    """Tells apart what pipelock 2.3.0 tells apart. A failed look-up has its status 403, and is no decision about a host.

    A decision keeps its status, since clients try again after a 502 and should not after a 403.
    """
    if "DNS resolution error" in reason:
        return Refusal(502, "upstream-name", "the host's name could not be resolved")
    if "not in allowlist" in reason:
        return Refusal(403, "upstream-refused", "the firewall does not allow this host")
    if "resolves to internal IP" in reason:
        return Refusal(403, "upstream-address", "the firewall does not allow the address that this host's name has")
    if status == 429:
        return Refusal(429, "upstream-rate", "the firewall has seen too many requests to this host in the last minute")
    if "dial failed" in reason:
        # Refused, unreachable and too slow are one answer of pipelock's.
        return Refusal(502, "upstream-unreachable", "no connection could be made to this host and port")
    told = status if 400 <= status < 500 and status != 407 else 502
    return Refusal(told, "upstream-refused", f"the firewall refused this connection (status {status})")

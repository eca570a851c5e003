"""Answers to the agent for requests that do not pass. None contains an internal address."""

import json
import re

from mitmproxy import http
from mitmproxy.net.http import http1, status_codes

from .policy import Refusal

# mitmproxy hands failures on as text. These texts stand for them.
_CONNECT_REFUSED = re.compile(r"CONNECT refused: (\d{3}) (.*)", re.DOTALL)
TIMED_OUT = "timed out"
NOT_ADMITTED = "not admitted"

# Pipelock's own answers over plain HTTP: a short text, sent with Go's `http.Error`.
_OWN_TEXTS = ("blocked: ", "session ", "airlock: ", "forward proxy fetch failed", "too many ")
_MAX_OWN_BYTES = 4096

# RFC 9110, section 15.5.22, requires the header. The client may go on with HTTP/1.1.
UPGRADE_IMPOSSIBLE = Refusal(
    426, "websocket", "WebSocket is not possible here, since the content for this host is inspected; use plain requests"
)


def headers(rule: str) -> dict[str, str]:
    return {"Content-Type": "application/json", "X-Egress-Refused": rule, "Cache-Control": "no-store"}


def body(refusal: Refusal) -> bytes:
    """Returns JSON that clients of the common model APIs show unchanged."""
    error: dict[str, object] = {
        "type": "egress_refused",
        "rule": refusal.rule,
        "message": f"egress: {refusal.message}",
    }
    if refusal.ask:
        error["ask"] = refusal.ask
    return json.dumps({"type": "error", "error": error}).encode() + b"\n"


def response(refusal: Refusal) -> http.Response:
    upgrade = {"Upgrade": "HTTP/1.1", "Connection": "Upgrade"} if refusal.status == 426 else {}
    return http.Response.make(refusal.status, body(refusal), headers(refusal.rule) | upgrade)


def closing_message(refusal: Refusal) -> bytes:
    """Returns a complete response for a connection that is closed after it."""
    answer = http.Response.make(refusal.status, body(refusal), headers(refusal.rule) | {"Connection": "close"})
    answer.reason = status_codes.RESPONSES.get(refusal.status, "Refused")
    message: bytes = http1.assemble_response(answer)
    return message


def connect_refused(status: int, reason: bytes) -> str:
    """Returns the text for a CONNECT that the firewall refused. `failure` parses it."""
    return f"CONNECT refused: {status} {reason.decode('latin-1')}"


def failure(status: int, message: str) -> Refusal:
    """Returns the answer for a failure inside the proxy. Its own text can contain addresses and is not passed on."""
    if refused := _CONNECT_REFUSED.match(message):
        return _refused_by_firewall(int(refused[1]), refused[2])
    if status < 500:
        return Refusal(status, "malformed", "the request is malformed")
    if message == TIMED_OUT:
        return Refusal(504, "upstream-timeout", "the host did not accept a connection in time")
    if message == NOT_ADMITTED:
        return Refusal(
            503, "inspection-busy", "the firewall has as many requests to inspect as it may; try again later"
        )
    if "certificate verify failed" in message.lower():
        return Refusal(502, "upstream-certificate", "the certificate of the other side is not trusted")
    return Refusal(502, "upstream", "no answer from the other side")


def may_be_firewalls(response: http.Response) -> bool:
    """Returns true for the head of an answer over plain HTTP that may be pipelock's own and not the host's."""
    length = response.headers.get("content-length", "")
    return (
        response.status_code >= 400
        and response.headers.get("content-type", "").lower() == "text/plain; charset=utf-8"
        and response.headers.get("x-content-type-options", "").lower() == "nosniff"
        and length.isdigit()
        and int(length) <= _MAX_OWN_BYTES
    )


def of_firewall(response: http.Response) -> Refusal | None:
    """Returns the answer in the place of pipelock's own, whose text can contain addresses. None: it is the host's.

    A host could send the same text. It can send any answer to its own requests, so nothing is gained by it.
    """
    text = (response.raw_content or b"").decode("latin-1")
    if not text.startswith(_OWN_TEXTS):
        return None
    if text.startswith("forward proxy fetch failed"):
        return Refusal(502, "upstream-unreachable", "no connection could be made to this host and port")
    return _refused_by_firewall(response.status_code, text)


def _refused_by_firewall(status: int, reason: str) -> Refusal:
    """Returns the answer for a request that pipelock 2.3.0 refused.

    Pipelock answers 403 to a failed name lookup too, which is not a decision about the host, so that becomes 502. A
    decision keeps its status: clients retry after a 502 and should not retry after a 403.
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
        # Pipelock does not tell apart refused, unreachable and too slow.
        return Refusal(502, "upstream-unreachable", "no connection could be made to this host and port")
    told = status if 400 <= status < 500 and status != 407 else 502
    return Refusal(told, "upstream-refused", f"the firewall refused this request (status {status})")

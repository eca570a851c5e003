"""What the agent is told when a request does not pass: short, the same shape each time, and nothing of the inside."""

import json
import re

from mitmproxy import http
from mitmproxy.net.http import http1, status_codes

from .policy import Refusal

_UPSTREAM_REFUSED = re.compile(r"refused HTTP CONNECT request: (\d{3})")


def headers(rule: str) -> dict[str, str]:
    return {"Content-Type": "application/json", "X-Egress-Refused": rule, "Cache-Control": "no-store"}


def body(refusal: Refusal) -> bytes:
    """JSON that the clients of the common model APIs show as it is, and a person can read."""
    error = {"type": "egress_refused", "rule": refusal.rule, "message": f"egress: {refusal.message}"}
    return json.dumps({"type": "error", "error": error}).encode() + b"\n"


def response(refusal: Refusal) -> http.Response:
    return http.Response.make(refusal.status, body(refusal), headers(refusal.rule))


def closing_message(refusal: Refusal) -> bytes:
    """A whole response for a connection that ends with it."""
    answer = http.Response.make(refusal.status, body(refusal), headers(refusal.rule) | {"Connection": "close"})
    answer.reason = status_codes.RESPONSES.get(refusal.status, "Refused")
    return http1.assemble_response(answer)


def failure(status: int, message: str) -> Refusal:
    """What a failure inside the proxy is to the agent. Its own words name addresses and quote messages: they stay here.

    A refusal by the next proxy keeps its status, since clients try again after a 502 and should not after a 403.
    """
    if refused := _UPSTREAM_REFUSED.search(message):
        upstream = int(refused[1])
        told = upstream if 400 <= upstream < 500 and upstream != 407 else 502
        return Refusal(told, "upstream-refused", f"the firewall did not allow this host (status {upstream})")
    if status < 500:
        return Refusal(status, "malformed", "the request is malformed")
    if "certificate verify failed" in message.lower():
        return Refusal(502, "upstream-certificate", "the certificate of the other side is not trusted")
    return Refusal(502, "upstream", "no answer from the other side")

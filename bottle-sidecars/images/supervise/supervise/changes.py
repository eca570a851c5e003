"""Kinds of proposals: the tools' input schemas, and the form in which each change is queued."""

import unicodedata
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from itertools import islice
from typing import Any

from jsonschema import Draft202012Validator

from sidecar.grammar import GRAMMARS

MAX_REASON = 2000
MAX_PATCH_BYTES = 16 * 1024

# Control, format, private, surrogate and unassigned characters; separators of lines and paragraphs.
_INVISIBLE = {"Cc", "Cf", "Co", "Cs", "Cn", "Zl", "Zp"}


class Invalid(Exception):
    """Arguments that cannot become a proposal. The message never repeats an argument, which might be a secret."""


@dataclass(frozen=True)
class Kind:
    """One kind of change and the tool that proposes it."""

    tool: str
    kind: str
    title: str
    description: str
    properties: dict[str, Any]
    required: tuple[str, ...]
    normalise: Callable[[dict[str, Any]], dict[str, Any]]

    @cached_property
    def schema(self) -> dict[str, Any]:
        """The tool's input schema."""
        return object_schema({**self.properties, "reason": _REASON}, (*self.required, "reason"))

    def parse(self, arguments: dict[str, Any]) -> tuple[dict[str, Any], str]:
        """Return the change in the form in which it is queued, and the agent's reason."""
        check(self.schema, arguments)
        reason = _text("reason", arguments["reason"].strip())
        if not reason:
            raise Invalid("`reason` is empty; say what the change is for")
        return self.normalise({k: v for k, v in arguments.items() if k != "reason"}), reason


def object_schema(properties: dict[str, Any], required: tuple[str, ...] = ()) -> dict[str, Any]:
    """A schema of an object with these properties and no others."""
    return {"type": "object", "properties": properties, "required": list(required), "additionalProperties": False}


def check(schema: dict[str, Any], arguments: dict[str, Any]) -> None:
    """Raise `Invalid` with a description of each problem of the arguments."""
    errors = islice(Draft202012Validator(schema).iter_errors(arguments), 8)
    if problems := dict.fromkeys(_explain(error, schema) for error in errors):
        raise Invalid("; ".join(problems))


def _explain(error: Any, schema: dict[str, Any]) -> str:
    where = "".join(f"[{p}]" if isinstance(p, int) else f"`{p}`" for p in error.absolute_path)
    limit = error.validator_value
    match error.validator:
        case "required":
            return "missing: " + ", ".join(f"`{name}`" for name in limit if name not in error.instance)
        case "additionalProperties":
            return f"unknown argument; accepted are {', '.join(schema['properties'])}"
        case "type":
            return f"{where} must be a JSON {limit}"
        case "maxLength" | "maxItems" | "maximum":
            return f"{where} is over its limit of {limit}"
        case "minLength" | "minItems" | "minimum":
            return f"{where} is under its limit of {limit}"
        case "enum":
            return f"{where} must be one of {', '.join(limit)}"
        case _:
            return f"{where} is not accepted: {error.schema.get('description', 'see the schema')}"


def _text(field: str, text: str) -> str:
    # A person reads this in a terminal, so it must not move the cursor, hide text or change its direction.
    if any(unicodedata.category(c) in _INVISIBLE and c not in "\n\t" for c in text):
        raise Invalid(f"`{field}` has control or invisible characters")
    return text


def _value(kind: str, field: str, text: str) -> str:
    if not GRAMMARS[kind].accepts(text):
        raise Invalid(f"`{field}` is not accepted: {GRAMMARS[kind].accepted}")
    return text


def _values(kind: str, field: str, texts: list[str]) -> list[str]:
    return sorted({_value(kind, field, text) for text in texts})


def _allow_host(arguments: dict[str, Any]) -> dict[str, Any]:
    return {"host": _value("allowed_host", "host", arguments["host"])}


def _route(arguments: dict[str, Any]) -> dict[str, Any]:
    change: dict[str, Any] = {"host": _value("route_host", "host", arguments["host"])}
    if paths := arguments.get("paths"):
        change["paths"] = _values("path", "paths", paths)
    if methods := arguments.get("methods"):
        change["methods"] = _values("method", "methods", methods)
    if credential := arguments.get("credential"):
        change["credential"] = _value("credential", "credential", credential)
    return change


def _git_upstream(arguments: dict[str, Any]) -> dict[str, Any]:
    name, url = arguments["name"], arguments["url"]
    return {"name": _value("upstream", "name", name), "url": _value("git_url", "url", url)}


def _image_change(arguments: dict[str, Any]) -> dict[str, Any]:
    patch, packages = arguments.get("dockerfile_patch"), arguments.get("packages")
    if (patch is None) == (packages is None):
        raise Invalid("give either `dockerfile_patch` or `packages`")
    if patch is None:
        return {"packages": _values("package", "packages", arguments["packages"])}
    _text("dockerfile_patch", patch)
    if len(patch.encode()) > MAX_PATCH_BYTES:
        raise Invalid(f"`dockerfile_patch` is over its limit of {MAX_PATCH_BYTES} bytes")
    return {"dockerfile_patch": patch}


def _string(kind: str, description: str) -> dict[str, Any]:
    return {"type": "string", "minLength": 1, "maxLength": GRAMMARS[kind].max_length, "description": description}


_REASON = {
    "type": "string",
    "minLength": 1,
    "maxLength": MAX_REASON,
    "description": "Why the work needs this, in words that a person can judge.",
}
_HOST = _string("allowed_host", "The host: " + GRAMMARS["allowed_host"].accepted + ".")
_ROUTE_HOST = _string("route_host", "The host: " + GRAMMARS["route_host"].accepted + ".")
_PATHS = {
    "type": "array",
    "minItems": 1,
    "maxItems": 20,
    "items": _string("path", GRAMMARS["path"].accepted),
    "description": "Path prefixes such as /v1/, matched on whole segments. Every path when absent.",
}
_METHODS = {
    "type": "array",
    "minItems": 1,
    "maxItems": 20,
    "items": _string("method", GRAMMARS["method"].accepted),
    "description": "HTTP methods such as GET. Every method when absent.",
}
_CREDENTIAL = _string("credential", "The name of the credential to inject, such as EXAMPLE_TOKEN. Never its value.")
_UPSTREAM_NAME = _string("upstream", "A short name for the repository: " + GRAMMARS["upstream"].accepted + ".")
_UPSTREAM_URL = _string("git_url", GRAMMARS["git_url"].accepted + ".")
_PATCH = {
    "type": "string",
    "minLength": 1,
    "maxLength": MAX_PATCH_BYTES,
    "description": "Lines to add to the image's Dockerfile, or a unified diff of it.",
}
_PACKAGES = {
    "type": "array",
    "minItems": 1,
    "maxItems": 50,
    "items": _string("package", GRAMMARS["package"].accepted),
    "description": "Names of Debian packages to install.",
}

_DECISION = (
    " A person on the host decides. The call waits for the decision for up to a minute and otherwise returns `pending`"
    " with an id for proposal_status."
)

KINDS = (
    Kind(
        "propose_allow_host",
        "allow_host",
        "Propose a host",
        "Propose to allow HTTP and HTTPS requests to a host. The answer says when an approved host can be used,"
        " which is usually at once. Until the next launch its responses may be scanned, which takes about 2 s per MiB;"
        " large ones are then refused." + _DECISION,
        {"host": _HOST},
        ("host",),
        _allow_host,
    ),
    Kind(
        "propose_route",
        "route",
        "Propose a route",
        "Propose a route to a host: limited to paths and methods, and with a credential that the proxy injects."
        + _DECISION,
        {"host": _ROUTE_HOST, "paths": _PATHS, "methods": _METHODS, "credential": _CREDENTIAL},
        ("host",),
        _route,
    ),
    Kind(
        "propose_git_upstream",
        "git_upstream",
        "Propose a git upstream",
        "Propose a git repository to be served by git-gate. It takes effect at the next launch of the bottle."
        + _DECISION,
        {"name": _UPSTREAM_NAME, "url": _UPSTREAM_URL},
        ("name", "url"),
        _git_upstream,
    ),
    Kind(
        "propose_image_change",
        "image_change",
        "Propose an image change",
        "Propose Debian packages, or a change of the image's Dockerfile; give exactly one of the two. It takes"
        " effect at the next launch of the bottle." + _DECISION,
        {"dockerfile_patch": _PATCH, "packages": _PACKAGES},
        (),
        _image_change,
    ),
)

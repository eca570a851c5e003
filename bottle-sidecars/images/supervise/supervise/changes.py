"""What may be proposed: the tools' input schemas, and the one form in which each change is queued."""

import re
import unicodedata
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from itertools import islice
from typing import Any

from jsonschema import Draft202012Validator

MAX_REASON = 2000
MAX_PATCH_BYTES = 16 * 1024

_LABEL = r"[a-z0-9](?:[a-z0-9-]{0,61}[a-z0-9])?"
# The last label begins with a letter: what ends in a number is an address, and addresses are not proposed.
_NAME = rf"(?:{_LABEL}\.)+[a-z](?:[a-z0-9-]{{0,61}}[a-z0-9])?"
_PATH = r"/(?:[A-Za-z0-9._~!$&'()*+,;=:@-]+(?:/[A-Za-z0-9._~!$&'()*+,;=:@-]+)*/?)?"
_REPOSITORY = r"[A-Za-z0-9_~][A-Za-z0-9._~-]*(?:/[A-Za-z0-9_~][A-Za-z0-9._~-]*)*/?"
_USER = r"[a-z_][a-z0-9_-]{0,31}"
_GIT_URLS = (
    rf"https://(?P<host>{_NAME})(?::[0-9]{{1,5}})?/{_REPOSITORY}",
    rf"ssh://(?:{_USER}@)?(?P<host>{_NAME})(?::[0-9]{{1,5}})?/{_REPOSITORY}",
    rf"{_USER}@(?P<host>{_NAME}):/?{_REPOSITORY}",
)

# Control, format, private, surrogate and unassigned characters; separators of lines and paragraphs.
_INVISIBLE = {"Cc", "Cf", "Co", "Cs", "Cn", "Zl", "Zp"}


class Invalid(Exception):
    """Arguments that cannot become a proposal. The message never repeats what was sent: it might hold a secret."""


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
        """The change in its one form, and the agent's reason for it."""
        check(self.schema, arguments)
        reason = _text("reason", arguments["reason"].strip())
        if not reason:
            raise Invalid("`reason` is empty; say what the change is for")
        return self.normalise({k: v for k, v in arguments.items() if k != "reason"}), reason


def object_schema(properties: dict[str, Any], required: tuple[str, ...] = ()) -> dict[str, Any]:
    """A schema of an object with these properties and no others."""
    return {"type": "object", "properties": properties, "required": list(required), "additionalProperties": False}


def check(schema: dict[str, Any], arguments: dict[str, Any]) -> None:
    """Raise what is wrong with the arguments, in words."""
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
    # A person reads this in a terminal: nothing that moves its cursor, hides or turns the direction of text.
    if any(unicodedata.category(c) in _INVISIBLE and c not in "\n\t" for c in text):
        raise Invalid(f"`{field}` has control or invisible characters")
    return text


def _host(text: str, *, wildcard: bool) -> str:
    host = text.lower().removesuffix(".")
    name = host.removeprefix("*.") if wildcard else host
    # Lower case first can turn a character that is not ASCII into one that is.
    if not text.isascii() or len(host) > 253 or not re.fullmatch(_NAME, name):
        raise Invalid(f"`host` is not accepted: {_HOST['description']}")
    return host


def _allow_host(arguments: dict[str, Any]) -> dict[str, Any]:
    return {"host": _host(arguments["host"], wildcard=True)}


def _route(arguments: dict[str, Any]) -> dict[str, Any]:
    change: dict[str, Any] = {"host": _host(arguments["host"], wildcard=True)}
    if paths := arguments.get("paths"):
        if not all(_plain_path(path) for path in paths):
            raise Invalid(f"`paths` are not accepted: {_PATHS['description']}")
        change["paths"] = sorted(set(paths))
    if methods := arguments.get("methods"):
        change["methods"] = sorted(set(methods))
    if credential := arguments.get("credential"):
        if not re.fullmatch(r"[A-Z][A-Z0-9_]{0,63}", credential):
            raise Invalid(f"`credential` is not accepted: {_CREDENTIAL['description']}")
        change["credential"] = credential
    return change


def _plain_path(path: str) -> bool:
    return bool(re.fullmatch(_PATH, path)) and not {".", ".."} & set(path.split("/"))


def _git_upstream(arguments: dict[str, Any]) -> dict[str, Any]:
    name, url = arguments["name"], arguments["url"]
    if not re.fullmatch(r"[a-z0-9](?:[a-z0-9._-]{0,62}[a-z0-9])?", name) or ".." in name:
        raise Invalid(f"`name` is not accepted: {_UPSTREAM_NAME['description']}")
    match = next((m for p in _GIT_URLS if (m := re.fullmatch(p, url, re.ASCII))), None)
    if match is None or len(match["host"]) > 253:
        raise Invalid(f"`url` is not accepted: {_UPSTREAM_URL['description']}")
    return {"name": name, "url": url}


def _image_change(arguments: dict[str, Any]) -> dict[str, Any]:
    patch, packages = arguments.get("dockerfile_patch"), arguments.get("packages")
    if (patch is None) == (packages is None):
        raise Invalid("give either `dockerfile_patch` or `packages`")
    if packages is not None:
        if not all(re.fullmatch(r"[a-z0-9][a-z0-9+.-]{1,63}", package) for package in packages):
            raise Invalid(f"`packages` are not accepted: {_PACKAGES['description']}")
        return {"packages": sorted(set(packages))}
    _text("dockerfile_patch", patch)
    if len(patch.encode()) > MAX_PATCH_BYTES:
        raise Invalid(f"`dockerfile_patch` is over its limit of {MAX_PATCH_BYTES} bytes")
    return {"dockerfile_patch": patch}


_REASON = {
    "type": "string", "minLength": 1, "maxLength": MAX_REASON,
    "description": "Why the work needs this, in words that a person can judge.",
}
_HOST = {
    "type": "string", "minLength": 4, "maxLength": 254,
    "description": "A DNS name such as api.example.com, or *.example.com for every name one label below; no address,"
    " scheme, port or path.",
}
_PATHS = {
    "type": "array", "minItems": 1, "maxItems": 20,
    "items": {"type": "string", "minLength": 1, "maxLength": 200},
    "description": "Path prefixes such as /v1/, matched on whole segments; plain characters, no query, no escapes,"
    " no dot segments. Every path when absent.",
}
_METHODS = {
    "type": "array", "minItems": 1, "maxItems": 7,
    "items": {"type": "string", "enum": ["GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"]},
    "description": "HTTP methods. Every method when absent.",
}
_CREDENTIAL = {
    "type": "string", "minLength": 1, "maxLength": 64,
    "description": "The name of the credential to inject, in capitals, such as EXAMPLE_TOKEN. Never its value.",
}
_UPSTREAM_NAME = {
    "type": "string", "minLength": 1, "maxLength": 64,
    "description": "A short name for the repository: lower-case letters, digits, dots and dashes.",
}
_UPSTREAM_URL = {
    "type": "string", "minLength": 8, "maxLength": 400,
    "description": "https://host/path, ssh://user@host/path or user@host:path, without a password.",
}
_PATCH = {
    "type": "string", "minLength": 1, "maxLength": MAX_PATCH_BYTES,
    "description": "Lines to add to the image's Dockerfile, or a unified diff of it.",
}
_PACKAGES = {
    "type": "array", "minItems": 1, "maxItems": 50,
    "items": {"type": "string", "minLength": 2, "maxLength": 64},
    "description": "Debian package names to install.",
}

_DECISION = (
    " A person on the host decides. The call waits for the decision for under a minute and else returns `pending` with"
    " an id for proposal_status."
)

KINDS = (
    Kind(
        "propose_allow_host", "allow_host", "Ask for a host",
        "Ask that HTTP(S) requests to a host be let through." + _DECISION,
        {"host": _HOST}, ("host",), _allow_host,
    ),
    Kind(
        "propose_route", "route", "Ask for a route",
        "Ask for a route to a host: limited to paths and methods, with a credential injected on the way." + _DECISION,
        {"host": _HOST, "paths": _PATHS, "methods": _METHODS, "credential": _CREDENTIAL}, ("host",), _route,
    ),
    Kind(
        "propose_git_upstream", "git_upstream", "Ask for a git remote",
        "Ask for a git repository to be served through the git gate." + _DECISION,
        {"name": _UPSTREAM_NAME, "url": _UPSTREAM_URL}, ("name", "url"), _git_upstream,
    ),
    Kind(
        "propose_image_change", "image_change", "Ask for a change of the image",
        "Ask for Debian packages or a change of this machine's Dockerfile; give exactly one of the two. It takes"
        " effect when the bottle is next started." + _DECISION,
        {"dockerfile_patch": _PATCH, "packages": _PACKAGES}, (), _image_change,
    ),
)

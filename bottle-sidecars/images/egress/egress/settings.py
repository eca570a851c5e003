"""Settings of the container: the environment and the mounted files, checked before anything listens."""

import hashlib
import os
import re
from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from sidecar.credentials import DIRECTORY

from .names import split_authority
from .proposer import Supervise
from .routes import RoutesError, Table, parse

ROUTES = Path("/etc/egress/routes.yaml")
AUTHORITY = Path("/etc/egress/ca.pem")
SYSTEM_ROOTS = Path("/etc/ssl/certs/ca-certificates.crt")

# A table larger than this was not rendered from a plan.
_ROUTES_LIMIT = 1 << 20

_CERTIFICATE = re.compile(r"-----BEGIN CERTIFICATE-----\n.+?\n-----END CERTIFICATE-----\n?", re.DOTALL)
_KEY = re.compile(r"-----BEGIN (?:EC )?PRIVATE KEY-----\n.+?\n-----END (?:EC )?PRIVATE KEY-----\n?", re.DOTALL)


class SettingsError(ValueError):
    """Error that prevents the start. The message is one line and contains no secret."""


@dataclass(frozen=True, slots=True)
class Settings:
    listen_port: int
    upstream: tuple[str, int]
    upstream_ca: Path
    extra_ca: Path | None
    routes: Path
    authority: Path
    credentials: Path
    max_inspected: int
    supervise: Supervise | None

    @classmethod
    def read(cls, environment: Mapping[str, str]) -> "Settings":
        """Reads the settings. Four variables change the port and the paths of mounted files, for tests.

        Raises:
            SettingsError: a variable is missing or cannot be used.
        """
        proxy = environment.get("EGRESS_UPSTREAM_PROXY", "")
        place = split_authority(proxy.removeprefix("http://").rstrip("/"), None)
        if not proxy.startswith("http://") or place is None:
            raise SettingsError("EGRESS_UPSTREAM_PROXY: must be http://host:port")
        upstream_ca = environment.get("EGRESS_UPSTREAM_CA", "")
        if not upstream_ca:
            raise SettingsError("EGRESS_UPSTREAM_CA: must be the path of the next proxy's certificate")
        extra = environment.get("EGRESS_EXTRA_CA", "")
        port = environment.get("EGRESS_PORT", "9099")
        if not port.isdecimal() or not 0 < int(port) < 65536:
            raise SettingsError("EGRESS_PORT: must be a port")
        inspected = environment.get("EGRESS_MAX_INSPECTED", "48")
        if not re.fullmatch("[1-9][0-9]{0,4}", inspected):
            raise SettingsError("EGRESS_MAX_INSPECTED: must be a number from 1 to 99999")
        return cls(
            listen_port=int(port),
            upstream=place,
            upstream_ca=Path(upstream_ca),
            extra_ca=Path(extra) if extra else None,
            routes=Path(environment.get("EGRESS_ROUTES", ROUTES)),
            authority=Path(environment.get("EGRESS_CA", AUTHORITY)),
            credentials=Path(environment.get("EGRESS_CREDENTIALS", DIRECTORY)),
            max_inspected=int(inspected),
            supervise=_supervise(environment),
        )


def _supervise(environment: Mapping[str, str]) -> Supervise | None:
    named = environment.get("EGRESS_SUPERVISE", "")
    if not named:
        return None
    address = split_authority(named, None)
    on_denied = environment.get("EGRESS_ON_DENIED", "refuse")
    if address is None or on_denied not in ("refuse", "propose"):
        raise SettingsError("EGRESS_SUPERVISE, EGRESS_ON_DENIED: must be host:port, and refuse or propose")
    return Supervise(address, on_denied == "propose")


def read_routes(path: Path) -> tuple[str, Table | RoutesError]:
    """Returns the file's hash, and its table or the error in it.

    Raises:
        SettingsError: the file cannot be read.
    """
    raw = _read(path, "the routes", _ROUTES_LIMIT)
    digest = hashlib.sha256(raw).hexdigest()
    try:
        return digest, parse(raw.decode("utf-8"))
    except UnicodeDecodeError:
        return digest, RoutesError("not UTF-8")
    except RoutesError as error:
        return digest, error


def lay_out(settings: Settings, where: Path) -> tuple[Path, Path]:
    """Creates mitmproxy's directory, with the authority under mitmproxy's name for it, and the bundle of trusted roots.

    Only the owner can read the files.

    Raises:
        SettingsError: a file is missing or has other content.
    """
    authority = _read(settings.authority, "the certificate authority").decode("ascii", "replace")
    key, certificate = _KEY.search(authority), _CERTIFICATE.search(authority)
    if not key or not certificate:
        raise SettingsError(f"{settings.authority}: must hold a private key and its certificate")
    roots = [_certificates(settings.upstream_ca, "the next proxy's certificate")]
    if settings.extra_ca:
        roots.append(_certificates(settings.extra_ca, "the extra certificates"))
    if SYSTEM_ROOTS.exists():
        roots.append(_certificates(SYSTEM_ROOTS, "the system's certificates"))

    confdir = where / "mitmproxy"
    confdir.mkdir(mode=0o700, parents=True, exist_ok=True)
    trust = where / "trust.pem"
    _write(confdir / "mitmproxy-ca.pem", key[0] + "\n" + certificate[0])
    _write(trust, "\n".join(roots))
    return confdir, trust


def _certificates(path: Path, what: str) -> str:
    """Returns the certificates of a bundle, without its other text."""
    found = _CERTIFICATE.findall(_read(path, what).decode("ascii", "replace").replace("\r\n", "\n"))
    if not found:
        raise SettingsError(f"{path}: holds no certificate ({what})")
    return "\n".join(found)


def _read(path: Path, what: str, limit: int | None = None) -> bytes:
    try:
        raw = path.read_bytes()
    except OSError as error:
        raise SettingsError(f"{path}: cannot read {what}: {error.strerror}") from None
    if limit is not None and len(raw) > limit:
        raise SettingsError(f"{path}: {what} are larger than {limit} bytes")
    return raw


def _write(path: Path, text: str) -> None:
    path.unlink(missing_ok=True)
    with open(path, "x", opener=partial(os.open, mode=0o600)) as file:
        file.write(text)

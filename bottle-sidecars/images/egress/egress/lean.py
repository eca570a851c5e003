"""Import this before anything of mitmproxy: it keeps out what this sidecar does not use.

`mitmproxy.addons` imports every add-on that mitmproxy has, with their web and directory libraries. Two of its modules are
needed here, so the package is registered without running its `__init__`. HTTP/2, HTTP/3, QUIC and mitmproxy's native
part (WireGuard, redirecting) are never used here, but mitmproxy's core imports them by name: it gets empty modules.
Measured: the add-ons were half of the time to start and a third of the memory, the rest another sixth of each; two
dozen packages need not be installed beside the tokens.
"""

import sys
import types
from pathlib import Path

import mitmproxy

_UNUSED = (
    "aioquic",
    "aioquic.h3",
    "aioquic.h3.connection",
    "aioquic.tls",
    "mitmproxy.proxy.layers.http._http2",
    "mitmproxy.proxy.layers.http._http3",
    "mitmproxy.proxy.layers.quic",
    "mitmproxy_rs",
)


class _Unused(types.ModuleType):
    """A module that has every name: an empty class, of which nothing is an instance."""

    def __getattr__(self, name: str) -> type:
        if name.startswith("__"):
            raise AttributeError(name)
        value = type(name, (), {})
        setattr(self, name, value)
        return value


if "mitmproxy.addons" not in sys.modules:
    _package = types.ModuleType("mitmproxy.addons")
    _package.__path__ = [str(Path(mitmproxy.__file__).parent / "addons")]
    sys.modules["mitmproxy.addons"] = _package
    sys.modules |= {name: _Unused(name) for name in _UNUSED}

"""Replaces parts of mitmproxy that this sidecar does not use. Import it before anything of mitmproxy.

The package `mitmproxy.addons` imports every add-on, with web and directory libraries. Two of its modules are needed
here, so the package is registered without running its `__init__`. HTTP/2, HTTP/3, QUIC, the native part (WireGuard,
redirection), command lines, and WebSockets, for which `layers.WebSocket` is used, are not used here. Mitmproxy's core
imports them by name, so they are empty modules.

The add-ons took half of the start time and a third of the memory, the other parts a quarter of each. Without them, some
26 packages are not installed in the container that holds the tokens.
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
    "mitmproxy.command_lexer",
    "mitmproxy.proxy.layers.http._http2",
    "mitmproxy.proxy.layers.http._http3",
    "mitmproxy.proxy.layers.quic",
    "mitmproxy.proxy.layers.websocket",
    "mitmproxy.websocket",
    "mitmproxy_rs",
    "pyparsing",
    "wsproto",
    "wsproto.frame_protocol",
    "wsproto.handshake",
)


class _Unused(types.ModuleType):
    """Module in which every name is an empty class."""

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
    _unused = {name: _Unused(name) for name in _UNUSED}
    sys.modules |= _unused
    for _name, _module in _unused.items():
        _parent, _, _child = _name.rpartition(".")
        if _parent in _unused:
            setattr(_unused[_parent], _child, _module)

"""Import this before anything of mitmproxy: it keeps the add-ons of its interfaces from being loaded.

`mitmproxy.addons` imports every add-on that mitmproxy has, with their web and directory libraries. Two of its modules
are needed here, so the package is put in place without running its `__init__`. Measured: half of the time to start,
a third of the memory, and a dozen packages that need not be installed beside the tokens.
"""

import sys
import types
from pathlib import Path

import mitmproxy

if "mitmproxy.addons" not in sys.modules:
    _package = types.ModuleType("mitmproxy.addons")
    _package.__path__ = [str(Path(mitmproxy.__file__).parent / "addons")]
    sys.modules["mitmproxy.addons"] = _package

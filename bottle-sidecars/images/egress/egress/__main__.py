"""`python -m egress`: check everything, then listen; or say in one line why not."""

import asyncio
import os
import signal
import sys
from pathlib import Path

from . import audit
from .settings import Settings, SettingsError, lay_out
from .status import Current


def main() -> int:
    # A reload asked for during the start waits for its handler, instead of ending the process.
    signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGHUP})
    try:
        settings = Settings.read(os.environ)
        current = Current(settings.routes, os.environ)
        confdir, trust = lay_out(settings, Path("/tmp/egress"))
    except SettingsError as error:
        audit.emit("refused-to-start", outcome="failed", reason=str(error))
        return 2
    # Not before: it takes most of the time to start.
    from .proxy import serve

    return asyncio.run(serve(settings, current, confdir, trust))


sys.exit(main())

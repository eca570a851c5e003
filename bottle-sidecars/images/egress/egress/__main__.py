"""`python -m egress`: checks the settings, then listens, or prints one line with the reason and exits with status 2."""

import asyncio
import os
import signal
import sys
from pathlib import Path

from sidecar.credentials import CredentialError, Credentials

from . import audit
from .settings import Settings, SettingsError, lay_out
from .status import Current


def main() -> int:
    # A SIGHUP during the start waits for its handler instead of ending the process.
    signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGHUP})
    try:
        settings = Settings.read(os.environ)
        credentials = Credentials(settings.credentials)
        credentials.take_from(os.environ, [name for name in os.environ if name.startswith("EGRESS_TOKEN_")])
        current = Current(settings.routes, credentials)
        confdir, trust = lay_out(settings, Path("/tmp/egress"))
    except (SettingsError, CredentialError) as error:
        audit.emit("refused-to-start", outcome="failed", reason=str(error))
        return 2
    # Imported last, because it takes most of the start time.
    from .proxy import serve

    return asyncio.run(serve(settings, current, credentials, confdir, trust))


sys.exit(main())

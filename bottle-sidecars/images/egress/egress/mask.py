"""Keeps a credential out of what comes back. Some services echo what they were sent; an error message is enough."""

from collections.abc import Iterable


class Mask:
    """Overwrites the secrets in a stream of chunks by as many asterisks.

    A chunk's end is held back only where it could be the beginning of a secret, so that events pass at once.
    """

    def __init__(self, secrets: Iterable[bytes]) -> None:
        self._secrets = sorted(secrets, key=len, reverse=True)
        self._held = b""

    def whole(self, data: bytes) -> bytes:
        for secret in self._secrets:
            if secret in data:
                data = data.replace(secret, b"*" * len(secret))
        return data

    def feed(self, chunk: bytes) -> bytes:
        """What may be passed on now. An empty chunk is the end and gives what was held."""
        data = self.whole(self._held + chunk)
        keep = max((_overlap(data, secret) for secret in self._secrets), default=0) if chunk else 0
        self._held = data[len(data) - keep :]
        return data[: len(data) - keep]


def _overlap(data: bytes, secret: bytes) -> int:
    """How many bytes at the end of the data begin the secret."""
    at = max(len(data) - len(secret) + 1, 0)
    while (at := data.find(secret[:1], at)) >= 0:
        if secret.startswith(data[at:]):
            return len(data) - at
        at += 1
    return 0

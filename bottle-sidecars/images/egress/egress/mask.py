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
        """Return the bytes that may be passed on now. An empty chunk is the end, and returns what was held."""
        data = self.whole(self._held + chunk)
        keep = max((_overlap(data, secret) for secret in self._secrets), default=0) if chunk else 0
        self._held = data[len(data) - keep :]
        return data[: len(data) - keep]


class FrameMask:
    """A mask for what a WebSocket server sends: a frame is passed on whole as soon as its end is there.

    Frames from a server are sent as they are (RFC 6455, section 5.1), and asterisks take as much room as the secret, so
    that a frame's header stays true. A secret that is spread over two frames is not seen.
    """

    def __init__(self, secrets: Iterable[bytes]) -> None:
        self._mask = Mask(secrets)
        self._header = b""
        self._left = 0

    def feed(self, data: bytes) -> bytes:
        """Return the bytes that may be passed on now."""
        passed = []
        while data:
            if self._left == 0:
                header = self._header + data
                size = _frame_header(header)
                if size is None:
                    self._header = header
                    break
                end, self._left = size
                passed.append(header[:end])
                self._header, data = b"", header[end:]
                continue
            payload, data = data[: self._left], data[self._left :]
            self._left -= len(payload)
            passed.append(self._mask.feed(payload))
            if self._left == 0:
                passed.append(self._mask.feed(b""))
        return b"".join(passed)


def _frame_header(data: bytes) -> tuple[int, int] | None:
    """The lengths of a frame's header and of its payload (RFC 6455, section 5.2); None if the header is not whole."""
    if len(data) < 2:
        return None
    length, end = data[1] & 0x7F, 2
    if length >= 126:
        end = 4 if length == 126 else 10
        length = int.from_bytes(data[2:end], "big")
    if data[1] & 0x80:  # a server must not, but then its key is part of the header
        end += 4
    return (end, length) if len(data) >= end else None


def _overlap(data: bytes, secret: bytes) -> int:
    """Return the number of bytes at the end of the data with which the secret begins."""
    at = max(len(data) - len(secret) + 1, 0)
    while (at := data.find(secret[:1], at)) >= 0:
        if secret.startswith(data[at:]):
            return len(data) - at
        at += 1
    return 0

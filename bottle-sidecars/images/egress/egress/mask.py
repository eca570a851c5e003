"""Masks a credential in answers, because some services echo parts of a request, for example in an error message."""

from collections.abc import Iterable


class Mask:
    """Overwrites the secrets in a stream of chunks with asterisks, without a change of length.

    The end of a chunk is held back only if a secret could begin there, so that events pass at once.
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
        """Returns the bytes that may be passed on now. An empty chunk is the end, and returns what was held."""
        data = self.whole(self._held + chunk)
        keep = max((_overlap(data, secret) for secret in self._secrets), default=0) if chunk else 0
        self._held = data[len(data) - keep :]
        return data[: len(data) - keep]


class FrameMask:
    """A mask for the frames of a WebSocket server. A frame is passed on completely as soon as its end has arrived.

    A server does not encode its frames (RFC 6455, section 5.1), and a mask does not change the length, so that a
    frame's header stays valid. A secret that is split over two frames is not recognised.
    """

    def __init__(self, secrets: Iterable[bytes]) -> None:
        self._mask = Mask(secrets)
        self._header = b""
        self._left = 0

    def feed(self, data: bytes) -> bytes:
        """Returns the bytes that may be passed on now."""
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
    """Returns the lengths of a frame's header and payload (RFC 6455, section 5.2). None if the header is incomplete."""
    if len(data) < 2:
        return None
    length, end = data[1] & 0x7F, 2
    if length >= 126:
        end = 4 if length == 126 else 10
        length = int.from_bytes(data[2:end], "big")
    if data[1] & 0x80:  # a server must not set it, but then a key of four bytes follows
        end += 4
    return (end, length) if len(data) >= end else None


def _overlap(data: bytes, secret: bytes) -> int:
    """Returns the number of bytes at the end of the data with which the secret begins."""
    at = max(len(data) - len(secret) + 1, 0)
    while (at := data.find(secret[:1], at)) >= 0:
        if secret.startswith(data[at:]):
            return len(data) - at
        at += 1
    return 0

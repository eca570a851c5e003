"""The frames of one side of a WebSocket (RFC 6455, section 5.2), read as they arrive. Pure."""

from collections.abc import Iterator
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Piece:
    """A part of a frame. Every frame has at least one, which can be empty."""

    header: bytes
    """The header of the frame that begins here, else empty."""
    payload: bytes
    """As it was sent: a client masks it."""
    key: bytes
    """The four bytes of the mask from the payload's first byte on (section 5.3). Zeros: it is not masked."""
    is_last: bool

    def plain(self) -> bytes:
        """Returns the payload without its mask."""
        size = len(self.payload)
        repeated = (self.key * (size // 4 + 1))[:size]
        return (int.from_bytes(self.payload) ^ int.from_bytes(repeated)).to_bytes(size)


class Frames:
    """Splits a stream into frames. A header that is not complete waits for the rest."""

    def __init__(self) -> None:
        self._header = b""
        self._key = bytes(4)
        self._left = 0

    def feed(self, data: bytes) -> Iterator[Piece]:
        while data:
            header = b""
            if self._left == 0:
                data, self._header = self._header + data, b""
                if (size := _header(data)) is None:
                    self._header = data
                    return
                end, self._left = size
                header, data = data[:end], data[end:]
                self._key = header[-4:] if header[1] & 0x80 else bytes(4)
            payload, data = data[: self._left], data[self._left :]
            self._left -= len(payload)
            yield Piece(header, payload, self._key, self._left == 0)
            turn = len(payload) % 4
            self._key = self._key[turn:] + self._key[:turn]


def _header(data: bytes) -> tuple[int, int] | None:
    """Returns the lengths of a frame's header and payload. None if the header is incomplete."""
    if len(data) < 2:
        return None
    length, end = data[1] & 0x7F, 2
    if length >= 126:
        end = 4 if length == 126 else 10
        length = int.from_bytes(data[2:end], "big")
    if data[1] & 0x80:
        end += 4
    return (end, length) if len(data) >= end else None

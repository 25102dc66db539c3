"""Messages on the node's socket: four bytes of length (big endian), then so many bytes of MessagePack.

A request has a number that its reply repeats; replies come in any order. A connection that asks for events
gets replies with that number until it ends.
"""

from __future__ import annotations

import msgspec

from .wire import ErrorBody

REQUEST_BYTES_MAX = 1024 * 1024
REPLY_BYTES_MAX = 512 * 1024 * 1024
"""The longest log that can be asked for."""
LENGTH_BYTES = 4
NOTHING = msgspec.Raw(msgspec.msgpack.encode(None))


class Request(msgspec.Struct, array_like=True, frozen=True):
    """What is asked of the node."""

    number: int
    operation: str
    body: msgspec.Raw = NOTHING
    """The operation's argument, encoded."""


class Reply(msgspec.Struct, array_like=True, frozen=True):
    """The node's answer: an error, or else a result."""

    number: int
    body: msgspec.Raw = NOTHING
    error: ErrorBody | None = None


class FrameTooLong(Exception):
    """The other side announces a message longer than it may be: nothing after it can be understood."""


class FrameSplitter:
    """Cuts a stream into messages. Holds at most one message and what came with its end."""

    def __init__(self, bytes_max: int) -> None:
        self._bytes_max = bytes_max
        self._buffer = bytearray()

    def feed(self, data: bytes) -> list[bytes]:
        """The messages completed by `data`. Raise FrameTooLong."""
        self._buffer += data
        found: list[bytes] = []
        begin = 0
        while len(self._buffer) - begin >= LENGTH_BYTES:
            body = begin + LENGTH_BYTES
            end = body + length_of(self._buffer[begin:body], self._bytes_max)
            if len(self._buffer) < end:
                break
            found.append(bytes(self._buffer[body:end]))
            begin = end
        del self._buffer[:begin]
        return found


def length_of(head: bytes | bytearray, bytes_max: int) -> int:
    """The length that a message's first bytes announce. Raise FrameTooLong."""
    length = int.from_bytes(head, "big")
    if length > bytes_max:
        raise FrameTooLong(f"a message of {length} bytes was announced, {bytes_max} are allowed")
    return length


def encoded(value: object) -> msgspec.Raw:
    """A body."""
    return msgspec.Raw(_encode(value))


def framed(message: Request | Reply) -> bytes:
    """A whole message as it is sent."""
    body = _encode(message)
    return len(body).to_bytes(LENGTH_BYTES, "big") + body


_encode = msgspec.msgpack.Encoder().encode

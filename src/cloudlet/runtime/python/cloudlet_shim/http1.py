"""Reading HTTP/1.1 requests: values in, values out."""

from __future__ import annotations

HEAD_BYTES_MAX = 64 * 1024
_LENGTH_DIGITS_MAX = 12


class BadRequest(Exception):
    """The bytes are not a request that we take; the connection cannot be used any further."""


class Head:
    """The part of a request before its body."""

    __slots__ = ("chunked", "close", "content_length", "expects_continue", "platform")

    def __init__(self) -> None:
        self.content_length = 0
        self.chunked = False
        self.close = False
        self.expects_continue = False
        self.platform: list[tuple[str, str]] = []
        """Headers that start with ``x-``, names in lower case, in order."""


def parse_head(data: bytes) -> Head:
    """Parse everything before the empty line. Raise BadRequest."""
    lines = data.decode("latin-1").split("\r\n")
    parts = lines[0].split(" ")
    if len(parts) != 3 or not parts[0].isalpha() or parts[2] not in ("HTTP/1.1", "HTTP/1.0"):
        raise BadRequest("request line")
    head = Head()
    head.close = parts[2] == "HTTP/1.0"
    length: str | None = None
    for index in range(1, len(lines)):
        name, colon, value = lines[index].partition(":")
        if not colon or not name or name[-1] in " \t" or name[0] in " \t" or "\n" in value or "\r" in value:
            raise BadRequest("header line")
        name = name.lower()
        if name[:2] == "x-":
            head.platform.append((name, value.strip(" \t")))
        elif name == "content-length":
            value = value.strip(" \t")
            if length is not None and length != value:
                raise BadRequest("content-length")
            length = value
        elif name == "transfer-encoding":
            if value.strip(" \t").lower() != "chunked":
                raise BadRequest("transfer-encoding")
            head.chunked = True
        elif name == "connection":
            head.close = "close" in value.lower() or (head.close and "keep-alive" not in value.lower())
        elif name == "expect":
            head.expects_continue = value.strip(" \t").lower() == "100-continue"
    if length is not None:
        head.content_length = _content_length(length, head.chunked)
    return head


def _content_length(text: str, chunked: bool) -> int:
    if chunked or not text.isascii() or not text.isdigit() or len(text) > _LENGTH_DIGITS_MAX:
        raise BadRequest("content-length")
    return int(text)


class Body:
    """Collects a body; what is over the limit is counted and thrown away: the connection stays usable."""

    __slots__ = ("_chunked", "_in_chunk", "_limit", "_parts", "_pending", "_remaining", "size")

    def __init__(self, head: Head, limit: int) -> None:
        self.size = 0
        self._limit = limit
        self._parts: list[bytes] = []
        self._chunked = head.chunked
        self._in_chunk = False
        self._remaining = head.content_length
        self._pending = b""

    @property
    def value(self) -> bytes:
        """The body; empty when it was over the limit (see `size`)."""
        return self._parts[0] if len(self._parts) == 1 else b"".join(self._parts)

    def feed(self, data: bytes) -> bytes | None:
        """Take new bytes. Return what comes after the end of the body, or None when it has not ended. Raise
        BadRequest."""
        if self._chunked:
            return self._feed_chunks(self._pending + data)
        rest = self._take(data)
        return rest if self._remaining == 0 else None

    def _take(self, data: bytes) -> bytes:
        """Take up to `_remaining` bytes; return the rest."""
        part = data[: self._remaining]
        self._remaining -= len(part)
        self.size += len(part)
        if self.size > self._limit:
            self._parts = []
        elif part:
            self._parts.append(part)
        return data[len(part) :]

    def _feed_chunks(self, data: bytes) -> bytes | None:
        """A chunk is `SIZE CRLF data CRLF`; the last has size 0, then come trailers and an empty line."""
        while True:
            if self._remaining:
                data = self._take(data)
                if self._remaining:
                    self._keep(b"")
                    return None
            line, ended, rest = data.partition(b"\r\n")
            if not ended:
                self._keep(data)
                return None
            if self._in_chunk:
                if line:
                    raise BadRequest("chunk")
                self._in_chunk = False
                data = rest
                continue
            size = _chunk_size(line)
            if size == 0:
                return self._end(data)
            self._in_chunk = True
            self._remaining = size
            data = rest

    def _end(self, data: bytes) -> bytes | None:
        """`data` begins with the line of the last chunk."""
        _, _, trailers = data.partition(b"\r\n")
        if trailers.startswith(b"\r\n"):
            return trailers[2:]
        _, ended, rest = trailers.partition(b"\r\n\r\n")
        if ended:
            return rest
        self._keep(data)
        return None

    def _keep(self, data: bytes) -> None:
        """For the next `feed`: not enough has come to understand it."""
        if len(data) > HEAD_BYTES_MAX:
            raise BadRequest("chunk line or trailers too long")
        self._pending = data


def _chunk_size(line: bytes) -> int:
    digits = line.partition(b";")[0].strip()
    if not digits or len(digits) > 8 or digits.strip(b"0123456789abcdefABCDEF"):
        raise BadRequest("chunk size")
    return int(digits, 16)

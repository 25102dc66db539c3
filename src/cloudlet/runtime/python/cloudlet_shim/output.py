"""What the function prints, framed line by line (contract, section 6).

Every line is written at once: a function that then hangs or is killed has lost nothing. The descriptors are
blocking pipes that the node always empties.
"""

from __future__ import annotations

import codecs
import io
import logging
import os
import select
import sys
from collections.abc import Callable
from threading import get_ident

_LINE_CHARS_MAX = 32 * 1024
_STDOUT = 1
_STDERR = 2
_WAIT_MS = 100
"""How long a full pipe is waited for when a child process has made it non-blocking."""


class Output:
    """Frames and writes lines; `request_id` tells on whose behalf something is printed (empty = nobody's)."""

    def __init__(self, request_id: Callable[[], str]) -> None:
        self._request_id = request_id
        self._dropped = 0
        self._streams: list[FramedStream] = []

    def emit(self, level: str, text: str, request_id: str | None = None) -> None:
        """Print `text`, which may have several lines. `level`: debug, info, warn or error."""
        head = f"\x1e{self._request_id() if request_id is None else request_id}\x1f{level}\x1f"
        if len(text) <= _LINE_CHARS_MAX and "\n" not in text:
            framed = f"{head}{text}\n"
        else:
            framed = "".join(f"{head}{_cut(line)}\n" for line in text.split("\n"))
        if self._dropped:
            # The last write may have got half a line out: end it.
            framed = f"\n\x1e\x1fwarn\x1f{self._dropped} writes of this instance were lost\n{framed}"
        fd = _STDERR if level in ("error", "warn") else _STDOUT
        self._dropped = 0 if _write_fully(fd, framed.encode("utf-8", "replace")) else self._dropped + 1

    def install(self) -> None:
        """Replace ``sys.stdout`` and ``sys.stderr``, and give log records their level."""
        for name, level, fd in (("stdout", "info", _STDOUT), ("stderr", "error", _STDERR)):
            stream = FramedStream(self, level, fd)
            self._streams.append(stream)
            setattr(sys, name, stream)
            setattr(sys, f"__{name}__", stream)
        _frame_log_records(self)

    def flush(self) -> None:
        """Print what this thread began and did not end; called when an invocation ends."""
        for stream in self._streams:
            stream.flush_partial()


class FramedStream(io.TextIOBase):
    """A stand-in for ``sys.stdout``: takes text in any pieces and gives whole lines to the output."""

    def __init__(self, output: Output, level: str, fd: int) -> None:
        self._output = output
        self._level = level
        self._fd = fd
        self._partial: dict[int, str] = {}
        """What each thread has begun: threads that print at the same time do not mix within a line."""
        self._bytes = _ByteStream(self)

    @property
    def buffer(self) -> _ByteStream:
        return self._bytes

    @property
    def encoding(self) -> str:  # type: ignore[override]  # a constant here
        return "utf-8"

    @property
    def errors(self) -> str:  # type: ignore[override]  # a constant here
        return "replace"

    def writable(self) -> bool:
        return True

    def fileno(self) -> int:
        return self._fd

    def isatty(self) -> bool:
        return False

    def close(self) -> None:
        """Never closed: printing must work until the process ends."""

    def reconfigure(self, **_options: object) -> None:
        """Accepted, because programs set UTF-8 this way, which it is already."""

    def write(self, text: str) -> int:
        thread = get_ident()
        begun = self._partial.pop(thread, "") + text
        lines, ended, rest = begun.rpartition("\n")
        if ended:
            self._output.emit(self._level, lines)
        if rest:
            self._partial[thread] = rest[: _LINE_CHARS_MAX + 1]  # The end of a line that is cut anyway.
        return len(text)

    def flush_partial(self) -> None:
        rest = self._partial.pop(get_ident(), "")
        if rest:
            self._output.emit(self._level, rest)


class _ByteStream(io.RawIOBase):
    """``sys.stdout.buffer``."""

    def __init__(self, text: FramedStream) -> None:
        self._text = text
        self._decoder = codecs.getincrementaldecoder("utf-8")("replace")

    def writable(self) -> bool:
        return True

    def fileno(self) -> int:
        return self._text.fileno()

    def close(self) -> None:
        """Never closed, like the text stream."""

    def write(self, data: object) -> int:
        view = memoryview(data)  # type: ignore[arg-type]  # any object with a buffer, as the base class says
        self._text.write(self._decoder.decode(view.tobytes()))
        return view.nbytes


def _frame_log_records(output: Output) -> None:
    """Records that handlers would write to our streams keep their level; by the stream alone all of them were
    errors. Which records are handled, and their format, stays the function's own business."""
    plain_emit = logging.StreamHandler.emit

    def emit(self: logging.StreamHandler[io.TextIOBase], record: logging.LogRecord) -> None:
        if not isinstance(self.stream, FramedStream):
            plain_emit(self, record)
            return
        try:
            output.emit(_level_of(record.levelno), self.format(record))
        except Exception:
            self.handleError(record)

    logging.StreamHandler.emit = emit  # type: ignore[method-assign, assignment]  # one place for every handler


def _level_of(number: int) -> str:
    if number >= logging.ERROR:
        return "error"
    if number >= logging.WARNING:
        return "warn"
    return "info" if number >= logging.INFO else "debug"


def _cut(line: str) -> str:
    return line if len(line) <= _LINE_CHARS_MAX else line[:_LINE_CHARS_MAX] + "…"


def _write_fully(fd: int, data: bytes) -> bool:
    """Return whether everything was written."""
    while data:
        try:
            data = data[os.write(fd, data) :]
        except BlockingIOError:
            poll = select.poll()
            poll.register(fd, select.POLLOUT)
            if not poll.poll(_WAIT_MS):
                return False
        except OSError:
            return False  # The reader is gone: so is the node, and this process soon.
    return True

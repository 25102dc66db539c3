"""From the output pipes of one instance to the log, at a bounded price for the node.

Two bounds: how much is *read* (above it the pipe is left alone until the debt is paid; the printing instance
then waits in its own write, nobody else does), and how much of that is *kept* (the rest is dropped, counted
and reported as one line). Nothing here waits: reads are non-blocking and happen when the loop says that
there is something.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable, Iterable

from cloudlet.model.clock import Clock

from .framing import Line, LineSplitter, TokenBucket, parse_line
from .wire import LogRecord

READ_BYTES_PER_S = 4 * 1024 * 1024
READ_BYTES_BURST = 16 * 1024 * 1024
KEPT_BYTES_PER_S = 256 * 1024
KEPT_BYTES_BURST = 2 * 1024 * 1024
KEPT_LINES_PER_S = 1_000
KEPT_LINES_BURST = 10_000
_READ_BYTES = 64 * 1024
_FINISH_BYTES_MAX = 1024 * 1024
_HEAP_EXHAUSTED = b"JavaScript heap out of memory"
Sink = Callable[[list[LogRecord]], None]


class OutputPump:
    """Reads both pipes of one cell until `finish`.

    `write` is called with the records of one read. `heap_exhausted` turns true when V8 said why it ends the
    process.
    """

    def __init__(self, instance_id: str, outputs: tuple[int, int], clock: Clock, write: Sink) -> None:
        now = clock.monotonic()
        self.heap_exhausted = False
        self._instance_id = instance_id
        self._clock = clock
        self._write = write
        self._loop = asyncio.get_running_loop()
        self._lines = TokenBucket(KEPT_LINES_PER_S, KEPT_LINES_BURST, now)
        self._kept = TokenBucket(KEPT_BYTES_PER_S, KEPT_BYTES_BURST, now)
        self._dropped = 0
        self._pipes = [
            _Pipe(descriptor, level, TokenBucket(READ_BYTES_PER_S, READ_BYTES_BURST, now))
            for descriptor, level in zip(outputs, ("info", "error"), strict=True)
        ]
        for pipe in self._pipes:
            self._listen(pipe)

    def drain(self) -> None:
        """Read what is there now (a caller is about to look at the log)."""
        for pipe in self._pipes:
            if pipe.open and pipe.timer is None:
                self._read(pipe)

    def note(self, level: str, text: str) -> None:
        """Add a line that the node itself says about the instance."""
        self._write([LogRecord(self._clock.now(), self._instance_id, level, text)])

    def finish(self) -> None:
        """Read what is left, within bounds, and stop. Must be called before the cell is closed; repeating is
        fine."""
        for pipe in self._pipes:
            taken = 0
            while pipe.open and taken < _FINISH_BYTES_MAX:
                size = self._read(pipe)
                taken += size
                if not size:
                    break
            self._forget(pipe)
            self._keep(pipe, pipe.splitter.finish())
        self._report_dropped()

    def _listen(self, pipe: _Pipe) -> None:
        pipe.timer = None
        if pipe.open:
            self._loop.add_reader(pipe.descriptor, self._read, pipe)

    def _read(self, pipe: _Pipe) -> int:
        """Take one piece; return its size, 0 when there is none."""
        try:
            data = os.read(pipe.descriptor, _READ_BYTES)
        except BlockingIOError:
            return 0
        if not data:
            self._forget(pipe)
            return 0
        if _HEAP_EXHAUSTED in data:
            self.heap_exhausted = True
        self._keep(pipe, pipe.splitter.feed(data))
        pause_s = pipe.budget.spend(len(data), self._clock.monotonic())
        if pause_s and pipe.timer is None:
            self._loop.remove_reader(pipe.descriptor)
            pipe.timer = self._loop.call_later(pause_s, self._listen, pipe)
        return len(data)

    def _keep(self, pipe: _Pipe, lines: Iterable[bytes]) -> None:
        now, wall = self._clock.monotonic(), self._clock.now()
        records = []
        for raw in lines:
            if self._lines.take(1, now) and self._kept.take(len(raw), now):
                records.append(self._record(parse_line(raw, pipe.level), wall))
            else:
                self._dropped += 1
        if records:
            self._report_dropped()
            self._write(records)

    def _record(self, line: Line, wall: float) -> LogRecord:
        return LogRecord(wall, self._instance_id, line.level, line.text, line.request_id)

    def _report_dropped(self) -> None:
        dropped, self._dropped = self._dropped, 0
        if dropped:
            self.note("warn", f"{dropped} lines were dropped: the instance prints more than is kept")

    def _forget(self, pipe: _Pipe) -> None:
        if pipe.timer is not None:
            pipe.timer.cancel()
            pipe.timer = None
        elif pipe.open:
            self._loop.remove_reader(pipe.descriptor)
        pipe.open = False


class _Pipe:
    """One of the two, with its own partial line and reading budget."""

    __slots__ = ("budget", "descriptor", "level", "open", "splitter", "timer")

    def __init__(self, descriptor: int, level: str, budget: TokenBucket) -> None:
        self.descriptor = descriptor
        self.level = level
        self.budget = budget
        self.splitter = LineSplitter()
        self.timer: asyncio.TimerHandle | None = None
        self.open = True

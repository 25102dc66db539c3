"""From pipes to records, at a bounded price."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Iterator
from dataclasses import dataclass, field

import pytest

from cloudlet.node.pump import KEPT_LINES_BURST, READ_BYTES_BURST, OutputPump
from cloudlet.node.wire import LogRecord

pytestmark = pytest.mark.anyio


@dataclass
class Pipes:
    """Two pipes and what came out of them; also a clock that stands still."""

    reads: tuple[int, int]
    writes: tuple[int, int]
    records: list[LogRecord] = field(default_factory=list)

    def now(self) -> float:
        return 1000.0

    def monotonic(self) -> float:
        return 5.0

    def pump(self) -> OutputPump:
        return OutputPump("i1", self.reads, self, self.records.extend)


@pytest.fixture
def pipes() -> Iterator[Pipes]:
    (out_read, out_write), (err_read, err_write) = os.pipe(), os.pipe()
    for descriptor in (out_read, err_read, out_write, err_write):
        os.set_blocking(descriptor, False)
    yield Pipes((out_read, err_read), (out_write, err_write))
    for descriptor in (out_read, err_read, out_write, err_write):
        os.close(descriptor)


async def test_lines_become_records_with_their_request(pipes: Pipes) -> None:
    pump = pipes.pump()
    os.write(pipes.writes[0], b"\x1er-1\x1fdebug\x1fhello\nplain\n")
    os.write(pipes.writes[1], b"oh no\nunfinished")
    pump.drain()
    pump.finish()
    pump.finish()
    assert [(each.request_id, each.level, each.text) for each in pipes.records] == [
        ("r-1", "debug", "hello"),
        ("", "info", "plain"),
        ("", "error", "oh no"),
        ("", "error", "unfinished"),
    ]
    assert {(each.t, each.instance) for each in pipes.records} == {(1000.0, "i1")}


async def test_what_is_printed_is_read_without_being_asked_for(pipes: Pipes) -> None:
    arrived = asyncio.get_running_loop().create_future()
    pump = OutputPump("i1", pipes.reads, pipes, lambda records: arrived.set_result(records))
    os.write(pipes.writes[0], b"hello\n")
    async with asyncio.timeout(20):
        assert [each.text for each in await arrived] == ["hello"]
    pump.finish()


async def test_more_lines_than_are_kept_are_dropped_counted_and_reported(pipes: Pipes) -> None:
    pump = pipes.pump()
    for _ in range(KEPT_LINES_BURST // 1000 + 1):
        os.write(pipes.writes[0], b"x\n" * 1000)
        pump.drain()
    pump.finish()
    assert len(pipes.records) == KEPT_LINES_BURST + 1
    assert pipes.records[-1].text.startswith("1000 lines were dropped")
    assert pipes.records[-1].level == "warn"


async def test_a_flooding_instance_is_left_to_wait_in_its_own_write(pipes: Pipes) -> None:
    pump = pipes.pump()
    chunk = b"x" * 65536
    written = 0
    while True:
        try:
            written += os.write(pipes.writes[0], chunk)
        except BlockingIOError:
            break
        pump.drain()
    assert READ_BYTES_BURST <= written <= READ_BYTES_BURST + 4 * len(chunk)
    os.write(pipes.writes[1], b"the other pipe\n")
    pump.drain()
    assert pipes.records[-1].text == "the other pipe"
    pump.finish()


async def test_the_end_of_a_pipe_ends_its_reading(pipes: Pipes) -> None:
    pump = pipes.pump()
    null = os.open(os.devnull, os.O_WRONLY)
    os.dup2(null, pipes.writes[0])
    os.dup2(null, pipes.writes[1])
    os.close(null)
    pump.drain()
    pump.drain()
    pump.finish()
    assert pipes.records == []


async def test_v8_says_why_it_ends(pipes: Pipes) -> None:
    pump = pipes.pump()
    os.write(pipes.writes[1], b"FATAL ERROR: Reached heap limit - JavaScript heap out of memory\n")
    pump.finish()
    assert pump.heap_exhausted

"""The Python shim's decisions on calls, without threads, sockets or waiting."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator

import pytest

from cloudlet.runtime.python.cloudlet_shim import calls as module
from cloudlet.runtime.python.cloudlet_shim.calls import (
    LINGER_S,
    NEVER,
    Call,
    Calls,
    Ending,
    Invocation,
    Loaded,
)
from cloudlet.runtime.python.cloudlet_shim.environment import ExclusiveScope
from cloudlet.runtime.python.cloudlet_shim.identity import Caller
from cloudlet.runtime.python.cloudlet_shim.output import Output


class Page:
    """An activity page that remembers."""

    def __init__(self) -> None:
        self.started = 0
        self.deadlines: list[float] = []

    def publish(self, deadline_s: float) -> None:
        self.deadlines.append(deadline_s)


class Peer:
    """A connection that remembers its answer."""

    def __init__(self) -> None:
        self.gone = False
        self.closed = False
        self.answers: list[bytes] = []

    def answer(self, data: bytes, close: bool = False) -> None:
        self.answers.append(data)
        self.closed = close

    @property
    def status(self) -> int:
        (answer,) = self.answers
        return int(answer.split()[1])


class Bench:
    """Calls with a clock and a dispatcher that stand still until told."""

    def __init__(self, concurrency: int, timeout_ms: int) -> None:
        self.now = 1000.0
        self.dispatched: list[Invocation] = []
        self.woken = 0
        order = {
            "concurrency": concurrency,
            "timeout_ms": timeout_ms,
            "environment": {},
            "context": {"function_name": "f", "namespace": "e"},
        }
        loaded = Loaded(lambda event, context: None, order, 0.0)
        self.calls = Calls(loaded, ExclusiveScope(), Output(lambda: ""), self.dispatched.append, self.wake)

    def wake(self) -> None:
        self.woken += 1

    def arrive(self, *headers: tuple[str, str], body: bytes = b"") -> Peer:
        peer = Peer()
        self.calls.arrived(Call(peer, Caller(list(headers)), body, len(body), self.now))
        return peer

    def finish(self, index: int) -> None:
        invocation = self.dispatched[index]
        assert self.calls.begin(invocation) is not None
        self.calls.returned(invocation, "done")

    def tick_after(self, seconds: float) -> None:
        self.now += seconds
        self.calls.tick(self.now)


@pytest.fixture
def bench(monkeypatch: pytest.MonkeyPatch) -> Iterator[Bench]:
    yield from _bench(monkeypatch, 1)


@pytest.fixture
def wide_bench(monkeypatch: pytest.MonkeyPatch) -> Iterator[Bench]:
    yield from _bench(monkeypatch, 2)


def _bench(monkeypatch: pytest.MonkeyPatch, concurrency: int) -> Iterator[Bench]:
    monkeypatch.setattr(module, "ActivityPage", Page)
    made = Bench(concurrency, 3000)
    monkeypatch.setattr(module, "monotonic", lambda: made.now)
    yield made


def test_a_free_slot_is_taken_at_once_and_others_wait_in_order(bench: Bench) -> None:
    peers = [bench.arrive() for _ in range(3)]
    assert len(bench.dispatched) == 1
    bench.finish(0)
    bench.finish(1)
    bench.finish(2)
    assert [peer.status for peer in peers] == [200, 200, 200]


def test_who_waits_20_ms_is_refused(bench: Bench) -> None:
    first, second = bench.arrive(), bench.arrive()
    assert bench.calls.alarm_s == pytest.approx(bench.now + 0.02)
    bench.tick_after(0.019)
    assert second.answers == []
    bench.tick_after(0.0011)
    assert second.status == 503
    bench.finish(0)
    assert first.status == 200
    assert len(bench.dispatched) == 1, "a refused call has not started"


def test_a_slot_that_frees_too_late_starts_nobody_who_is_over_the_wait(bench: Bench) -> None:
    bench.arrive()
    second = bench.arrive()
    bench.now += 0.03
    bench.finish(0)
    assert second.status == 503
    assert len(bench.dispatched) == 1


def test_the_65th_who_waits_is_refused_at_once(bench: Bench) -> None:
    peers = [bench.arrive() for _ in range(66)]
    assert [len(peer.answers) for peer in peers] == [0] * 65 + [1]
    assert peers[65].status == 503


def test_who_left_while_waiting_is_not_started(bench: Bench) -> None:
    bench.arrive()
    gone, stayed = bench.arrive(), bench.arrive()
    gone.gone = True
    bench.finish(0)
    bench.finish(1)
    assert (gone.answers, stayed.status) == ([], 200)


def test_quiesced_and_resumed(bench: Bench) -> None:
    running, waiting = bench.arrive(), bench.arrive()
    bench.calls.quiesce()
    assert waiting.status == 503
    assert bench.arrive().status == 503
    bench.finish(0)
    assert running.status == 200
    bench.calls.resume()
    assert bench.arrive().answers == []


def test_over_its_time_is_answered_once_and_the_process_leaves(bench: Bench) -> None:
    peer = bench.arrive()
    assert bench.calls.begin(bench.dispatched[0]) is not None
    bench.tick_after(2.9)
    assert peer.answers == []
    assert bench.calls.alarm_s == pytest.approx(1003.0)
    bench.tick_after(0.2)
    assert peer.status == 504
    assert b"timed out after 3 seconds" in peer.answers[0]
    assert b"x-cloudlet-final: 1" in peer.answers[0]
    assert bench.calls.ending == Ending(1, bench.now + LINGER_S, orderly=False)
    assert bench.calls.idle
    assert bench.calls.alarm_s == NEVER
    bench.calls.returned(bench.dispatched[0], "too late")
    assert len(peer.answers) == 1
    refused = bench.arrive()
    assert (refused.status, refused.closed) == (503, True)


def test_others_may_finish_when_one_is_over_its_time(wide_bench: Bench) -> None:
    short = wide_bench.arrive(("x-cloudlet-timeout-ms", "100"))
    long = wide_bench.arrive()
    for invocation in wide_bench.dispatched:
        wide_bench.calls.begin(invocation)
    wide_bench.tick_after(0.2)
    assert (short.status, long.answers) == (504, [])
    assert not wide_bench.calls.idle
    wide_bench.calls.returned(wide_bench.dispatched[1], 1)
    assert long.status == 200
    assert wide_bench.calls.idle
    assert wide_bench.woken > 0


def test_a_call_that_is_over_its_time_before_its_thread_took_it_is_never_run(bench: Bench) -> None:
    peer = bench.arrive()
    bench.tick_after(3.1)
    assert peer.status == 504
    assert bench.calls.begin(bench.dispatched[0]) is None


def test_the_page_shows_the_earliest_deadline(wide_bench: Bench) -> None:
    page = wide_bench.calls._activity
    assert isinstance(page, Page)
    wide_bench.arrive()
    wide_bench.arrive(("x-cloudlet-timeout-ms", "500"))
    for invocation in wide_bench.dispatched:
        wide_bench.calls.begin(invocation)
    wide_bench.calls.returned(wide_bench.dispatched[1], 1)
    wide_bench.calls.returned(wide_bench.dispatched[0], 1)
    assert page.deadlines == [1003.0, 1000.5, 1003.0, 0.0]
    assert page.started == 2


def test_a_body_that_is_not_json_frees_its_slot_and_counts_as_not_started(bench: Bench) -> None:
    bad, next_ = bench.arrive(body=b"{"), bench.arrive()
    assert bench.calls.begin(bench.dispatched[0]) is None
    bench.finish(1)
    assert (bad.status, next_.status) == (400, 200)
    assert bench.calls._activity.started == 1


def test_the_answer_to_an_invalid_call_needs_no_slot(bench: Bench) -> None:
    bench.arrive()
    wrong = bench.arrive(("x-cloudlet-function", "other"), ("x-request-id", "r-1"))
    assert wrong.status == 400
    assert json.loads(wrong.answers[0].partition(b"\r\n\r\n")[2])["requestId"] == "r-1"


def test_output_that_nobody_reads_is_counted_as_lost(monkeypatch: pytest.MonkeyPatch) -> None:
    reader, writer = os.pipe()
    os.set_blocking(writer, False)
    monkeypatch.setattr("cloudlet.runtime.python.cloudlet_shim.output._STDOUT", writer)
    monkeypatch.setattr("cloudlet.runtime.python.cloudlet_shim.output._WAIT_MS", 0)
    output = Output(lambda: "r")
    for _ in range(10):
        output.emit("info", "x" * 20_000)
    while len(os.read(reader, 1 << 20)) == 1 << 20:
        pass
    output.emit("info", "after")
    lines = os.read(reader, 1 << 20).decode().split("\n")
    os.close(reader)
    os.close(writer)
    assert "writes of this instance were lost" in lines[1]
    assert lines[2] == "\x1er\x1finfo\x1fafter"

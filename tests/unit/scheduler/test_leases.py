"""Who gets which instance, without a node: the lease book alone."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field

import pytest

from cloudlet.model.errors import ConcurrencyExceeded, FunctionNotFound, Internal, ShuttingDown
from cloudlet.model.function import VersionKey
from cloudlet.model.sandbox import StartTiming
from cloudlet.scheduler.leases import ColdStart, LeaseCounts, Leases, Outcome
from tests.property.virtual_time import VirtualClock, run_virtual

KEY = VersionKey("default", "hello", "v1")


@dataclass
class Book:
    """A lease book that remembers whom it told what."""

    calls_max: int = 10
    needs: list[VersionKey] = field(default_factory=list)
    drained: list[str] = field(default_factory=list)
    broken: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.clock = VirtualClock()
        self.leases = Leases(
            self.clock, self.calls_max, self.needs.append, self.drained.append, self.broken.append
        )

    def serve(self, instance_id: str, concurrency: int = 1, cold: ColdStart | None = None) -> None:
        self.leases.serve(instance_id, KEY, f"/{instance_id}", concurrency, cold)

    def wait(self, patience_s: float = 60.0) -> asyncio.Task[str]:
        ticket = self.leases.ticket(self.clock.monotonic() + patience_s)

        async def wait() -> str:
            return (await self.leases.acquire(KEY, ticket)).instance_id

        return asyncio.create_task(wait())


def test_a_free_instance_is_given_at_once_and_the_last_used_one_first() -> None:
    async def story() -> None:
        book = Book()
        assert book.leases.try_acquire(KEY, book.leases.ticket(2000.0)) is None
        book.serve("a")
        book.serve("b")
        first = book.leases.try_acquire(KEY, book.leases.ticket(2000.0))
        second = book.leases.try_acquire(KEY, book.leases.ticket(2000.0))
        assert first is not None and second is not None
        assert {first.instance_id, second.instance_id} == {"a", "b"}
        assert book.leases.try_acquire(KEY, book.leases.ticket(2000.0)) is None
        second.finish(Outcome.DONE)
        first.finish(Outcome.DONE)
        again = book.leases.try_acquire(KEY, book.leases.ticket(2000.0))
        assert again is not None and again.instance_id == first.instance_id

    run_virtual(story)


def test_waiting_calls_are_served_in_order_of_arrival() -> None:
    async def story() -> None:
        book = Book()
        order: list[int] = []

        async def call(number: int) -> None:
            lease = await book.leases.acquire(KEY, book.leases.ticket(2000.0))
            order.append(number)
            lease.finish(Outcome.DONE)

        tasks = [asyncio.create_task(call(number)) for number in range(5)]
        await asyncio.sleep(0)
        assert book.needs == [KEY] * 5
        book.serve("a")
        await asyncio.gather(*tasks)
        assert order == [0, 1, 2, 3, 4]

    run_virtual(story)


def test_a_refused_call_goes_before_those_that_came_later() -> None:
    async def story() -> None:
        book = Book()
        book.serve("a")
        ticket = book.leases.ticket(2000.0)
        lease = book.leases.try_acquire(KEY, ticket)
        assert lease is not None
        later = book.wait()
        await asyncio.sleep(0)
        lease.finish(Outcome.REFUSED)
        assert book.leases.look(KEY).refusing == 1
        again = await book.leases.acquire(KEY, ticket, again=True)
        assert again.ticket is ticket
        assert book.clock.monotonic() == pytest.approx(1000.02)
        assert not later.done()

    run_virtual(story)


def test_a_suspended_instance_gets_nothing_and_says_when_it_is_drained() -> None:
    async def story() -> None:
        book = Book()
        book.serve("a", concurrency=2)
        lease = book.leases.try_acquire(KEY, book.leases.ticket(2000.0))
        assert lease is not None
        book.leases.suspend("a")
        assert book.leases.try_acquire(KEY, book.leases.ticket(2000.0)) is None
        waiting = book.wait(0.5)
        await asyncio.sleep(0.1)
        assert book.drained == []
        lease.finish(Outcome.DONE)
        assert book.drained == ["a"]
        with pytest.raises(ConcurrencyExceeded):
            await waiting

    run_virtual(story)


def test_a_broken_instance_gets_nothing_more() -> None:
    async def story() -> None:
        book = Book()
        book.serve("a")
        lease = book.leases.try_acquire(KEY, book.leases.ticket(2000.0))
        assert lease is not None
        lease.finish(Outcome.BROKEN)
        assert book.broken == ["a"]
        assert book.leases.broken("a")
        assert book.leases.try_acquire(KEY, book.leases.ticket(2000.0)) is None

    run_virtual(story)


def test_a_lease_ends_once_also_when_its_instance_is_gone() -> None:
    async def story() -> None:
        book = Book()
        book.serve("a")
        lease = book.leases.try_acquire(KEY, book.leases.ticket(2000.0))
        assert lease is not None
        book.leases.forget("a")
        lease.finish(Outcome.DONE)
        assert book.leases.look(KEY) == LeaseCounts(running_peak=1)
        with pytest.raises(Internal, match="twice"):
            lease.finish(Outcome.DONE)

    run_virtual(story)


def test_a_caller_that_gives_up_leaves_no_lease_behind() -> None:
    async def story() -> None:
        book = Book()
        waiting = book.wait()
        await asyncio.sleep(0)
        book.serve("a")  # grants the lease; the caller is cancelled before it can take it
        waiting.cancel()
        with pytest.raises(asyncio.CancelledError):
            await waiting
        assert book.leases.running("a") == 0
        assert book.leases.try_acquire(KEY, book.leases.ticket(2000.0)) is not None

    run_virtual(story)


def test_more_calls_than_allowed_are_refused_at_once() -> None:
    async def story() -> None:
        book = Book(calls_max=2)
        book.serve("a")
        assert book.leases.try_acquire(KEY, book.leases.ticket(2000.0)) is not None
        book.wait()
        await asyncio.sleep(0)
        with pytest.raises(ConcurrencyExceeded, match="limit"):
            book.leases.try_acquire(KEY, book.leases.ticket(2000.0))

    run_virtual(story)


def test_only_the_call_that_waited_for_a_start_learns_its_timing() -> None:
    async def story() -> None:
        book = Book()
        ticket = book.leases.ticket(2000.0)
        waiting = asyncio.create_task(book.leases.acquire(KEY, ticket))
        await asyncio.sleep(0)
        cold = ColdStart(1000.0, 1000.0, StartTiming(1.0, 2.0))
        book.serve("a", cold=cold)
        lease = await waiting
        assert lease.cold is cold
        lease.finish(Outcome.DONE)
        next_lease = book.leases.try_acquire(KEY, book.leases.ticket(2000.0))
        assert next_lease is not None and next_lease.cold is None

    run_virtual(story)


def test_everybody_who_waits_gets_the_error_of_their_version() -> None:
    async def story() -> None:
        book = Book()
        waiting = [book.wait(), book.wait()]
        await asyncio.sleep(0)
        book.leases.fail_waiting(KEY, FunctionNotFound())
        for task in waiting:
            with pytest.raises(FunctionNotFound):
                await task
        assert book.leases.drop(KEY)
        assert book.leases.versions() == set()

    run_virtual(story)


def test_after_closing_nobody_waits() -> None:
    async def story() -> None:
        book = Book()
        waiting = book.wait()
        await asyncio.sleep(0)
        book.leases.close(ShuttingDown())
        with pytest.raises(ShuttingDown):
            await waiting
        with pytest.raises(ShuttingDown):
            await book.leases.acquire(KEY, book.leases.ticket(2000.0))

    run_virtual(story)

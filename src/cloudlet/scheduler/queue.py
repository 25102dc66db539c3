"""One version's waiting calls: first in, first out, bounded by its owner, each with a deadline."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Generic, TypeVar

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Ticket:
    """A call's place in line. It keeps its place when an instance refuses the call."""

    sequence: int
    arrived_at: float
    deadline: float
    """Monotonic seconds; the call is answered by then, with an error if need be."""


@dataclass(eq=False, slots=True)
class Waiter(Generic[T]):
    """A waiting call; `future` gets what it waits for, or an error."""

    ticket: Ticket
    future: asyncio.Future[T]


class CallQueue(Generic[T]):
    """Waiting calls in order of arrival."""

    def __init__(self) -> None:
        self._waiters: deque[Waiter[T]] = deque()

    def __len__(self) -> int:
        return len(self._waiters)

    def __iter__(self) -> Iterator[Waiter[T]]:
        return iter(tuple(self._waiters))

    def add(self, waiter: Waiter[T]) -> None:
        """Put it in its place: new calls to the end, refused ones back among those that came with them."""
        at = len(self._waiters)
        if at and self._waiters[-1].ticket.sequence > waiter.ticket.sequence:
            at = next(
                place
                for place, other in enumerate(self._waiters)
                if other.ticket.sequence > waiter.ticket.sequence
            )
        self._waiters.insert(at, waiter)

    def discard(self, waiter: Waiter[T]) -> None:
        if waiter in self._waiters:
            self._waiters.remove(waiter)

    def pop_live(self, now: float) -> Waiter[T] | None:
        """The first call that still waits for an answer. Those that gave up or whose deadline has passed
        are dropped: their own timer answers them."""
        while self._waiters:
            waiter = self._waiters.popleft()
            if not waiter.future.done() and waiter.ticket.deadline > now:
                return waiter
        return None

    def oldest(self) -> float | None:
        """When the first waiting call arrived."""
        return self._waiters[0].ticket.arrived_at if self._waiters else None

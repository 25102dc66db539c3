"""Who may write which document next: a state machine without I/O. Time is handed in (seconds, monotonic)."""

from __future__ import annotations

from collections import OrderedDict, deque
from collections.abc import Callable
from dataclasses import dataclass, field

from cloudlet.docdb.limits import TransactionLimits
from cloudlet.docdb.transactions.base import Key


@dataclass(slots=True, eq=False)
class Owner:
    """Somebody who holds intents: a transaction, or a write that waits for one."""

    touched_at: float
    """When its last operation ended."""
    busy: int = 0
    """Operations that run now."""
    held: set[Key] = field(default_factory=set)
    ticket: Ticket | None = None
    """Its place in a line; it waits for one document at a time."""


@dataclass(frozen=True, slots=True, eq=False)
class Ticket:
    """A place in the line for a document. ``done`` is called once, with whether the intent was granted."""

    key: Key
    owner: Owner
    deadline: float
    done: Callable[[bool], None]


class Intents:
    """The intents of one environment.

    All methods belong to the event loop, but ``holder`` may be asked from any thread (what it answers may be
    outdated by then).
    """

    def __init__(self, limits: TransactionLimits) -> None:
        self._limits = limits
        self._holders: dict[Key, Owner] = {}
        self._lines: dict[Key, deque[Ticket]] = {}
        self._hot: OrderedDict[Key, float] = OrderedDict()
        self._waiting = 0

    @property
    def waiting(self) -> int:
        """How many wait in all lines."""
        return self._waiting

    @property
    def held(self) -> int:
        """How many documents have a holder."""
        return len(self._holders)

    def holder(self, key: Key) -> Owner | None:
        """Who holds the intent."""
        return self._holders.get(key)

    def take(self, owner: Owner, key: Key) -> bool:
        """Take the intent if nobody else holds it."""
        holder = self._holders.setdefault(key, owner)
        if holder is owner:
            owner.held.add(key)
        return holder is owner

    def join(self, owner: Owner, key: Key, deadline: float, done: Callable[[bool], None]) -> Ticket | None:
        """Stand in line for an intent that somebody else holds.

        None if that would never end (the holder waits, directly or through others, for what `owner` holds)
        or if too many wait already.
        """
        if self._waiting >= self._limits.waiting_max or self._in_circle(owner, key):
            return None
        ticket = Ticket(key, owner, deadline, done)
        owner.ticket = ticket
        self._lines.setdefault(key, deque()).append(ticket)
        self._waiting += 1
        return ticket

    def leave(self, ticket: Ticket) -> None:
        """Give a place in line up; nothing happens if it has been answered."""
        if ticket.owner.ticket is ticket:
            self._remove(ticket)

    def release(self, owner: Owner, now: float) -> None:
        """Let go of everything: the next in each line are granted what they wait for."""
        if owner.ticket is not None:
            ticket = owner.ticket
            self._remove(ticket)
            ticket.done(False)
        for key in sorted(owner.held):
            self._pass_on(key, now)

    def heat(self, key: Key, now: float) -> None:
        """A conflict was met: for a while the document is waited for in line."""
        self._hot[key] = now + self._limits.hot_s
        self._hot.move_to_end(key)
        if len(self._hot) > self._limits.hot_documents_max:
            self._hot.popitem(last=False)

    def is_hot(self, key: Key, now: float) -> bool:
        """Whether the document is to be waited for in line."""
        if key in self._lines:
            return True
        until = self._hot.get(key)
        if until is not None and until <= now:
            del self._hot[key]
            return False
        return until is not None

    def sweep(self, now: float) -> None:
        """Answer those who have waited too long, and pass on what silent holders keep from others."""
        for line in list(self._lines.values()):
            for ticket in [ticket for ticket in line if ticket.deadline <= now]:
                self._remove(ticket)
                ticket.done(False)
        for key in list(self._lines):
            holder = self._holders[key]
            if not holder.busy and holder.touched_at + self._limits.intent_idle_s <= now:
                self._pass_on(key, now)

    def _in_circle(self, owner: Owner, key: Key) -> bool:
        """Each waits for one document, so there is one chain to follow. A grant makes no new circle: whoever
        gets an intent does not wait at that moment."""
        holder = self._holders.get(key)
        while holder is not None and holder is not owner:
            holder = None if holder.ticket is None else self._holders.get(holder.ticket.key)
        return holder is owner

    def _pass_on(self, key: Key, now: float) -> None:
        self._holders.pop(key).held.discard(key)
        line = self._lines.get(key)
        if line:
            ticket = line[0]
            self._remove(ticket)
            self.take(ticket.owner, key)
            self.heat(key, now)
            ticket.done(True)

    def _remove(self, ticket: Ticket) -> None:
        line = self._lines[ticket.key]
        line.remove(ticket)
        if not line:
            del self._lines[ticket.key]
        ticket.owner.ticket = None
        self._waiting -= 1

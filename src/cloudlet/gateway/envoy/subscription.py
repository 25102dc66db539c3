"""One edge on the endpoint stream, as a state machine without I/O: what it asked for, was sent, acknowledged.

The protocol is the incremental ("delta") variant of xDS, aggregated, for endpoint assignments only.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field


@dataclass(frozen=True, slots=True)
class Assignment:
    """The instances of one cluster, at one revision."""

    revision: int
    sockets: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Push:
    """One answer on the stream."""

    nonce: str
    assignments: Mapping[str, Assignment]


@dataclass(slots=True, eq=False)
class Subscription:
    """At most one answer is on its way; what changes meanwhile goes into the next one, newest state only."""

    greeted: bool = False
    """True after the first request: then it is known what this edge has."""
    names: set[str] = field(default_factory=set)
    sent: dict[str, int] = field(default_factory=dict)
    acknowledged: dict[str, int] = field(default_factory=dict)
    rejected: dict[str, tuple[int, str]] = field(default_factory=dict)
    _pending: Push | None = None
    _count: int = 0

    def on_request(
        self,
        subscribe: Iterable[str],
        unsubscribe: Iterable[str],
        nonce: str = "",
        error: str = "",
    ) -> None:
        """The edge asked for clusters, left some, or answered to a push (with `error` = it refused)."""
        self.greeted = True
        for name in subscribe:
            self.names.add(name)
            # Asking again means that the edge has forgotten it.
            self.sent.pop(name, None)
            self.acknowledged.pop(name, None)
        for name in unsubscribe:
            self.names.discard(name)
            self.again([name])
        if self._pending is not None and nonce == self._pending.nonce:
            self._answered(self._pending, error)
            self._pending = None

    def again(self, names: Iterable[str]) -> None:
        """Send these once more even if they did not change: their cluster was replaced."""
        for name in names:
            self.sent.pop(name, None)
            self.acknowledged.pop(name, None)
            self.rejected.pop(name, None)

    def next_push(self, told: Mapping[str, Assignment]) -> Push | None:
        """What has to be sent now, if anything; nothing is said about clusters that are not in `told`."""
        if self._pending is not None:
            return None
        due = {
            name: told[name]
            for name in self.names
            if name in told and self.sent.get(name) != told[name].revision
        }
        if not due:
            return None
        self._count += 1
        self._pending = Push(str(self._count), due)
        self.sent.update({name: assignment.revision for name, assignment in due.items()})
        return self._pending

    def holds(self, name: str, revision: int) -> bool:
        """Whether the edge has said that this revision, or a later one, is in use."""
        return self.acknowledged.get(name, -1) >= revision

    def _answered(self, push: Push, error: str) -> None:
        for name, assignment in push.assignments.items():
            if self.sent.get(name) != assignment.revision:
                continue  # sent again or left meanwhile: this answer is about something else
            if error:
                self.rejected[name] = (assignment.revision, error)
            else:
                self.acknowledged[name] = assignment.revision
                self.rejected.pop(name, None)

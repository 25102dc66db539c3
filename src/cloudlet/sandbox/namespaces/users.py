"""User ids of the host, one for each cell of a node that is root."""

from __future__ import annotations

from cloudlet.model.errors import Unavailable


class UserIds:
    """Ids from `first` on. An id that was given back is used again as late as possible."""

    def __init__(self, first: int, count: int) -> None:
        self._first = first
        self._count = count
        self._next = 0
        self._taken: set[int] = set()

    def take(self) -> int:
        """Raise Unavailable when all are taken."""
        if len(self._taken) >= self._count:
            raise Unavailable(f"all {self._count} user ids of cells are taken: give them a larger range")
        while (user := self._first + self._next % self._count) in self._taken:
            self._next += 1
        self._next += 1
        self._taken.add(user)
        return user

    def give_back(self, user: int) -> None:
        """Repeating is fine."""
        self._taken.discard(user)

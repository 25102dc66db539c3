"""How many watches there are, of whom."""

from __future__ import annotations

from collections import Counter

from cloudlet.docdb.limits import WatchLimits
from cloudlet.docdb.permissions import owner_of
from cloudlet.docdb.watch.watch import Asked
from cloudlet.model.errors import LimitExceeded


class Seats:
    """The places for watches of one environment."""

    def __init__(self, limits: WatchLimits) -> None:
        self._limits = limits
        self._users: Counter[str] = Counter()
        self._connections: Counter[str] = Counter()
        self.taken = 0

    def take(self, asked: Asked) -> None:
        """Raises LimitExceeded that says which limit it is."""
        user, connection, limits = user_of(asked), asked.connection, self._limits
        if self.taken >= limits.open_max:
            raise LimitExceeded(f"the environment has {limits.open_max} watches; close some first")
        if user and self._users[user] >= limits.user_max:
            raise LimitExceeded(f"the user has {limits.user_max} watches; close some first")
        if connection and self._connections[connection] >= limits.connection_max:
            raise LimitExceeded(f"the connection has {limits.connection_max} watches; close some first")
        self.taken += 1
        self._users[user] += 1
        self._connections[connection] += 1

    def give(self, asked: Asked) -> None:
        """The reverse of ``take``."""
        self.taken -= 1
        for counter, name in ((self._users, user_of(asked)), (self._connections, asked.connection)):
            counter[name] -= 1
            if not counter[name]:
                del counter[name]


def user_of(asked: Asked) -> str:
    """Whose watch it is; empty for server-side callers and for those who are nobody."""
    return "" if asked.access.admin else owner_of(asked.access)

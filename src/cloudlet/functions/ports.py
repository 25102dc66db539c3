"""What a deploy needs from the rest of the platform: ``serve.py`` hands in the real ones, tests twins."""

from __future__ import annotations

from typing import Protocol

from cloudlet.docdb.base import CreateIndex
from cloudlet.model.function import Version


class ControlClient(Protocol):
    """The control process, as a deploy sees it. Both calls may be repeated."""

    async def prepare(self, version: Version) -> None:
        """The start check: return once an instance of `version` has loaded its handler.

        The instance may stay for the first call. Raise FunctionLoadFailed (message and stack of the
        user's error), or Unavailable when no instance could be started for a reason of ours.
        """
        ...

    async def publish(self, sequence: int) -> None:
        """Return once control and the edge work with control records of at least `sequence`.

        Raise EdgeUnavailable when the edge refused or did not answer; the records stay as they are then
        and control goes on trying.
        """
        ...


class Collections(Protocol):
    """The collections of an environment."""

    async def names(self, environment: str) -> frozenset[str]:
        """Every collection there is."""
        ...

    async def create(self, environment: str, name: str) -> None:
        """Raise AlreadyExists or InvalidName."""
        ...

    async def indexes(self, environment: str, collection: str) -> frozenset[str]:
        """Names of a collection's indexes. Raise CollectionNotFound."""
        ...

    async def create_index(self, environment: str, index: CreateIndex) -> None:
        """Return when it is filled. Raise AlreadyExists, LimitExceeded, InvalidParameter, or what a document
        in the way is called."""
        ...

"""What a stage that keeps documents may keep."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final

from cloudlet.docdb.values import Value
from cloudlet.model.errors import QueryTooCostly

HELD_BYTES_MAX: Final = 100 * 1024 * 1024
"""Memory that one stage may hold; the limit of the database we are compatible with."""
_NODE: Final = 56


class Held:
    """The memory one stage holds, as an estimate."""

    __slots__ = ("_bytes", "_bytes_max", "_stage")

    def __init__(self, stage: str, bytes_max: int | None = None) -> None:
        self._stage = stage
        # Looked up when it is needed, so that a test may lower it.
        self._bytes_max = HELD_BYTES_MAX if bytes_max is None else bytes_max
        self._bytes = 0

    def add(self, value: Value) -> None:
        """Count one more value. Raises QueryTooCostly that names the stage."""
        self._bytes += size_of(value)
        if self._bytes > self._bytes_max:
            raise QueryTooCostly(
                f"Exceeded memory limit for {self._stage}: it would hold more than {self._bytes_max} bytes; "
                "match, project or limit before it (code 292)"
            )

    def reset(self, values: Iterable[Value]) -> None:
        """Count again, after some were let go."""
        self._bytes = sum(map(size_of, values))


def size_of(value: Value) -> int:
    """About how many bytes a value takes in memory."""
    kind = type(value)
    if kind is str:
        return _NODE + len(value)
    if kind is dict:
        total = 2 * _NODE
        for item in value.values():
            total += _NODE + size_of(item)
        return total
    if kind is list:
        return _NODE + sum(8 + size_of(item) for item in value)
    return _NODE + len(value) if kind is bytes else _NODE

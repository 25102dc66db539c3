"""How an invocation sees ``os.environ`` (contract, section 3).

The variables of an invocation are never written into the process: ``os.environ`` is a view that shows those
of the invocation that looks. So nothing can be left over for the next one.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, MutableMapping
from contextvars import ContextVar
from typing import TYPE_CHECKING, Any, Protocol

from .identity import INVOCATION_VARIABLES

if TYPE_CHECKING:
    from .calls import Invocation


class Scope(Protocol):
    """Knows on whose behalf code runs."""

    def current(self) -> Invocation | None: ...

    def enter(self, invocation: Invocation) -> None: ...

    def leave(self, invocation: Invocation) -> None: ...


class ExclusiveScope:
    """One invocation at a time: the one that runs is the one that looks, from whatever thread."""

    def __init__(self) -> None:
        self._invocation: Invocation | None = None

    def current(self) -> Invocation | None:
        return self._invocation

    def enter(self, invocation: Invocation) -> None:
        self._invocation = invocation

    def leave(self, invocation: Invocation) -> None:
        if self._invocation is invocation:
            self._invocation = None


class SharedScope:
    """Several invocations at a time: followed through tasks and threads' own contexts."""

    def __init__(self) -> None:
        self._variable: ContextVar[Invocation | None] = ContextVar("cloudlet_invocation", default=None)

    def current(self) -> Invocation | None:
        return self._variable.get()

    def enter(self, invocation: Invocation) -> None:
        self._variable.set(invocation)

    def leave(self, invocation: Invocation) -> None:
        """A context ends with its task; a thread's is set anew for its next invocation."""


class EnvironmentView(MutableMapping[str, str]):
    """``os.environ`` with the current invocation's variables in it."""

    _own = frozenset(INVOCATION_VARIABLES)

    def __init__(
        self,
        process: MutableMapping[str, str],
        current: Callable[[], Invocation | None],
        outside: dict[str, str],
    ) -> None:
        """`outside`: which of an invocation's variables are seen outside every invocation."""
        self._process = process
        self._current = current
        self._outside = outside

    def _variables(self) -> dict[str, str]:
        """Those of the invocation that looks; writing to them outside of one has no effect."""
        invocation = self._current()
        return dict(self._outside) if invocation is None else invocation.variables

    def __getitem__(self, name: str) -> str:
        return self._variables()[name] if name in self._own else self._process[name]

    def __setitem__(self, name: str, value: str) -> None:
        if name not in self._own:
            self._process[name] = value
        elif not isinstance(value, str):
            raise TypeError(f"str expected, not {type(value).__name__}")
        else:
            self._variables()[name] = value

    def __delitem__(self, name: str) -> None:
        if name in self._own:
            del self._variables()[name]
        else:
            del self._process[name]

    def __iter__(self) -> Iterator[str]:
        yield from [name for name in self._process if name not in self._own]
        yield from list(self._variables())

    def __len__(self) -> int:
        return sum(1 for _ in self)

    def __repr__(self) -> str:
        return f"environ({dict(self)!r})"

    def copy(self) -> dict[str, str]:
        return dict(self)

    def __or__(self, other: Any) -> dict[str, str]:
        return dict(self) | dict(other)

    def __ror__(self, other: Any) -> dict[str, str]:
        return dict(other) | dict(self)

    def __ior__(self, other: Any) -> EnvironmentView:
        self.update(other)
        return self


def install_view(scope: Scope, outside: dict[str, str]) -> None:
    """Replace ``os.environ``; before the function's code runs, because code keeps references to it."""
    view = EnvironmentView(os.environ, scope.current, outside)
    setattr(os, "environ", view)  # noqa: B010 - to the type checker it is no os._Environ

"""PostgreSQL's errors as ours."""

from __future__ import annotations

from typing import Final

import asyncpg

from cloudlet.model.errors import Internal, PlatformError, QueryTooCostly, StoreUnavailable

_MENDABLE: Final = (
    "08",  # connection
    "25006",  # a read-only server
    "28",  # user, password
    "3D",  # no such database
    "40",  # serialization, deadlock
    "42501",  # privileges
    "53",  # disk, memory, connections
    "55P03",  # a lock that was not given in time
    "57P",  # the server stops or starts
    "58",  # input and output
    "F0",  # configuration
)
_LOST: Final = (asyncpg.InterfaceError, asyncpg.InternalClientError, OSError, EOFError, TimeoutError)


class CatalogChanged(Exception):
    """The statement was made for an older catalog; load it and try again."""


def is_lost(error: BaseException) -> bool:
    """Whether the connection is gone, so that the outcome of its last statement is not known."""
    if isinstance(error, asyncpg.PostgresError):
        return bool(error.sqlstate) and error.sqlstate.startswith(("08", "57P"))
    return isinstance(error, _LOST)


def translated(error: Exception) -> PlatformError:
    """Our error for one of PostgreSQL's or of the connection's: what an operator can mend is
    StoreUnavailable, a statement that took too long QueryTooCostly, the rest Internal.
    """
    if isinstance(error, PlatformError):
        return error
    if isinstance(error, asyncpg.QueryCanceledError):
        return QueryTooCostly("the database stopped a statement that took too long")
    if isinstance(error, asyncpg.PostgresError):
        if (error.sqlstate or "").startswith(_MENDABLE):
            return StoreUnavailable(f"the document database cannot work right now: {_words(error)}")
        return Internal(f"the document database refused a statement: {_words(error)}")
    if isinstance(error, _LOST):
        return StoreUnavailable(f"the document database cannot be reached: {_words(error)}")
    return Internal(f"the document database failed: {type(error).__name__}")


def _words(error: Exception) -> str:
    """The server's first line. Details may quote documents, and are left out."""
    text = str(error).strip() or type(error).__name__
    return text.splitlines()[0][:200]


ENGINE_ERRORS: Final = (asyncpg.PostgresError, *_LOST)
"""What a statement may raise besides errors of ours."""

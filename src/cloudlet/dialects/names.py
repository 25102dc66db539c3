"""Names in requests."""

from __future__ import annotations

from cloudlet.model.errors import FunctionNotFound, InvalidName
from cloudlet.model.ids import check_function_name


def known_name(name: str) -> str:
    """`name`, or FunctionNotFound: a name that no function can have is one that does not exist."""
    try:
        return check_function_name(name)
    except InvalidName as error:
        raise FunctionNotFound(f"function {name[:80]!r} does not exist") from error

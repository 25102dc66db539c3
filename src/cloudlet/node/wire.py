"""What travels on the control channel of a cell (``runtime/contract.md`` section 2) and on the node's own
socket."""

from __future__ import annotations

from typing import Literal

import msgspec

from cloudlet.model import errors
from cloudlet.model.sandbox import InstanceEnded, NodeReport


class LoadError(msgspec.Struct):
    """An error of the user's code while it was loaded."""

    errorMessage: str = ""
    stackTrace: str = ""


class CellEvent(msgspec.Struct):
    """What a shim says."""

    event: Literal["booted", "loaded", "load_failed", "quiesced", "resumed"]
    load_ms: float = 0.0
    error: LoadError | None = None


class NodeEvent(msgspec.Struct, omit_defaults=True):
    """One line of the node's event stream; exactly one field is set."""

    report: NodeReport | None = None
    ended: InstanceEnded | None = None


class LogRecord(msgspec.Struct, omit_defaults=True):
    """One line that an instance printed, or that the node says about it."""

    t: float
    """Seconds since the Unix epoch at which the node read the line."""
    instance: str
    level: str
    text: str
    request_id: str = ""


class RuntimeInfo(msgspec.Struct):
    """An interpreter that is there."""

    interpreter: str
    unpatched: bool
    """Its maintainers no longer publish security fixes for it."""


class ErrorBody(msgspec.Struct):
    """A refusal of the node."""

    code: str
    message: str


_cell_event = msgspec.json.Decoder(CellEvent)
OPS = {name: msgspec.json.encode({"op": name}) for name in ("quiesce", "resume", "end")}


def parse_cell_event(line: bytes) -> CellEvent | None:
    """What the cell said; None when it is not a line of the contract (function code can write to the
    channel)."""
    try:
        return _cell_event.decode(line)
    except (msgspec.DecodeError, UnicodeDecodeError):
        return None


def load_error_text(error: LoadError | None) -> str:
    """Message and stack as one text, the message once."""
    if error is None or not (error.errorMessage or error.stackTrace):
        return "the function could not be loaded"
    if error.errorMessage in error.stackTrace:
        return error.stackTrace
    return f"{error.errorMessage}\n{error.stackTrace}".strip()


def error_from_body(body: ErrorBody) -> errors.PlatformError:
    """The error of the tree with this code; Internal when there is none."""
    return _ERRORS.get(body.code, errors.Internal)(body.message)


def _subclasses(root: type[errors.PlatformError]) -> list[type[errors.PlatformError]]:
    return [root, *(leaf for child in root.__subclasses__() for leaf in _subclasses(child))]


_ERRORS = {cls.code: cls for cls in reversed(_subclasses(errors.PlatformError))}
_ERRORS["internal"] = errors.Internal

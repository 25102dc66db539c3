"""What travels between the command line and the admin interface during a deploy.

Request: one JSON object (``DeployRequest``), after each function's folder was uploaded as a tar. Reply: one
event a line, in the order in which things happen; the last line is ``done`` or ``error``.
"""

from __future__ import annotations

from typing import Any, Literal

import msgspec

from cloudlet.docdb.indexes.declared import declared_indexes
from cloudlet.model.errors import InvalidParameter, MalformedBody
from cloudlet.model.function import FunctionConfig
from cloudlet.model.ids import check_environment_name, check_function_name

from .limits import FUNCTIONS_MAX, TRIGGERS_MAX, check_config

NAMES_MAX = 1000
NOTE_CHARS_MAX = 1000


class Trigger(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Something that calls a function by itself, as the project declares it."""

    name: str
    type: str
    """``timer``, or a vendor's other kinds, kept as they are."""
    config: str = ""
    """For timers seven cron fields (facts: api-surface 5)."""


class FunctionUpload(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """One function of a deploy."""

    name: str
    upload: str
    """Id of the uploaded tar."""
    config: FunctionConfig
    install: bool = True
    """Whether dependencies are installed here (off: they are part of the upload)."""
    scripts: bool = False
    """Whether packages may run scripts while they are installed."""
    triggers: tuple[Trigger, ...] = ()
    permissions: tuple[str, ...] = ()
    """Vendor interfaces (``openapi``) the function asks for."""
    notes: tuple[str, ...] = ()


class DeployRequest(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A whole deploy."""

    functions: tuple[FunctionUpload, ...]
    env: str = ""
    """Environment or alias that the person named; empty: none was named."""
    project_env: str = ""
    """Environment id that the project's own settings name."""
    environment_ids: tuple[str, ...] = ()
    """Environment ids that the code names."""
    collections: tuple[str, ...] = ()
    """Collections that the code uses."""
    create_collections: bool = False
    database: dict[str, Any] = {}
    """The parts of ``cloudbaserc.json`` that declare indexes, as they are."""
    dry_run: bool = False
    """Tell what would happen; nothing is recorded, installed or started."""


class Notice(msgspec.Struct, frozen=True, tag_field="event", tag="notice"):
    """Something a person should know; nothing failed."""

    text: str
    function: str = ""


class Started(msgspec.Struct, frozen=True, tag_field="event", tag="started"):
    """The deploy is possible and begins."""

    env: str
    functions: tuple[str, ...]


class Progress(msgspec.Struct, frozen=True, tag_field="event", tag="progress"):
    """A function reached a step."""

    function: str
    step: Literal["waiting", "unpacking", "installing", "checking", "publishing"]


class FunctionDone(msgspec.Struct, frozen=True, tag_field="event", tag="function"):
    """A function is finished, well or not. After ``failed`` its former version goes on serving."""

    function: str
    status: Literal["deployed", "unchanged", "failed"]
    seconds: float
    digest: str = ""
    number: int = 0
    serving: str = ""
    """After a failure: digest of the version that goes on serving, empty when there is none."""
    code: str = ""
    message: str = ""
    log: str = ""
    """After a failure: the end of the build log, or the stack of the load error."""


class FunctionPlanned(msgspec.Struct, frozen=True, tag_field="event", tag="planned"):
    """In a dry run: what a deploy would do with a function, as far as it can be known without building."""

    function: str
    action: Literal["create", "update", "reuse", "unchanged", "failed"]
    """``reuse``: an earlier version is the same and would be served again."""
    digest: str = ""
    number: int = 0
    """Of the version that is there already (``reuse``, ``unchanged``)."""
    serving: int = 0
    """Number of the version that is served now; 0: none."""
    changes: tuple[str, ...] = ()
    """Against what is served now (`compare.changes`)."""
    code: str = ""
    message: str = ""


class Aborted(msgspec.Struct, frozen=True, tag_field="event", tag="error"):
    """The deploy as a whole ended early; functions already reported stay as reported."""

    code: str
    message: str


class Done(msgspec.Struct, frozen=True, tag_field="event", tag="done"):
    """The last line of a deploy that went to its end. In a dry run the counts are of what would be."""

    env: str
    deployed: int
    unchanged: int
    failed: int
    seconds: float


DeployEvent = Notice | Started | Progress | FunctionDone | FunctionPlanned | Aborted | Done

_request = msgspec.json.Decoder(DeployRequest)
_event: msgspec.json.Decoder[DeployEvent] = msgspec.json.Decoder(DeployEvent)
_encoder = msgspec.json.Encoder()


def decode_request(body: bytes) -> DeployRequest:
    """Raise MalformedBody, InvalidParameter, InvalidName or InvalidProject."""
    try:
        request = _request.decode(body)
    except msgspec.ValidationError as exc:
        raise InvalidParameter(f"deploy request: {exc}") from exc
    except (msgspec.DecodeError, RecursionError) as exc:
        raise MalformedBody(f"deploy request: {exc}") from exc
    _check(request)
    return request


def encode_request(request: DeployRequest) -> bytes:
    return _encoder.encode(request)


def encode_event(event: DeployEvent) -> bytes:
    """One line, without the line end."""
    return _encoder.encode(event)


def decode_event(line: bytes) -> DeployEvent:
    """Raise MalformedBody."""
    try:
        return _event.decode(line)
    except msgspec.DecodeError as exc:
        raise MalformedBody(f"the server sent an event that is not understood: {exc}") from exc


def _check(request: DeployRequest) -> None:
    declared_indexes(request.database)
    if not request.functions:
        raise InvalidParameter("the deploy names no function")
    if len(request.functions) > FUNCTIONS_MAX:
        raise InvalidParameter(f"the deploy has more than {FUNCTIONS_MAX} functions")
    if len(request.environment_ids) > NAMES_MAX or len(request.collections) > NAMES_MAX:
        raise InvalidParameter(f"the deploy names more than {NAMES_MAX} environments or collections")
    for name in filter(None, (request.env, request.project_env)):
        check_environment_name(name)
    seen: set[str] = set()
    for function in request.functions:
        check_function_name(function.name)
        if function.name in seen:
            raise InvalidParameter(f"the deploy names function {function.name!r} twice")
        seen.add(function.name)
        check_config(function.config, function.name)
        if len(function.triggers) > TRIGGERS_MAX or sum(map(len, function.notes)) > NOTE_CHARS_MAX * 10:
            raise InvalidParameter(f"function {function.name!r} has too many triggers or notes")

"""The envelope of dialect A: one JSON object with the action, its parameters and who speaks."""

from __future__ import annotations

import json
from typing import Any, TypeVar

import msgspec

from cloudlet.model.errors import InvalidParameter, MalformedBody

BODY_BYTES_MAX = 8 * 1024 * 1024
"""An event may have 6 MB; as JSON text inside JSON text it grows."""

Members = dict[str, msgspec.Raw]
T = TypeVar("T")


class Envelope(msgspec.Struct, frozen=True):
    """What every request carries beside the parameters of its action."""

    action: str
    envName: str | None = None
    wxCloudApiToken: str | None = None
    tcb_sessionToken: str | None = None


_members = msgspec.json.Decoder(Members)
_envelope = msgspec.json.Decoder(Envelope)


def members_of(body: bytes) -> Members:
    """The top-level members of the body, each as its raw text. Raise MalformedBody for what is not a JSON
    object, is nested too deeply, or says something twice."""
    try:
        members = _members.decode(body)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
        raise MalformedBody(f"the body is not a JSON object: {_reason(error)}") from error
    if not _is_compact(body, members):
        _refuse_duplicates(body)
    return members


def envelope_of(body: bytes) -> Envelope:
    """Raise InvalidParameter when the action is missing or a member has the wrong type."""
    return parameters(body, _envelope)


def parameters(body: bytes, decoder: msgspec.json.Decoder[T]) -> T:
    """The parameters of an action, by its decoder. Raise InvalidParameter, naming the parameter."""
    try:
        return decoder.decode(body)
    except msgspec.ValidationError as error:
        raise InvalidParameter(str(error)) from error
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
        raise MalformedBody(f"the body is not a JSON object: {_reason(error)}") from error


def _is_compact(body: bytes, members: Members) -> bool:
    """Whether the members are the whole body, character by character: then nothing was there twice. Bodies
    written by an SDK always are, and this costs less than a second look at every key."""
    size = 1 + sum(len(name.encode()) + len(bytes(raw)) + 4 for name, raw in members.items())
    return size == len(body)


def _refuse_duplicates(body: bytes) -> None:
    def check(pairs: list[tuple[str, Any]]) -> None:
        names = [name for name, _ in pairs]
        if len(set(names)) != len(names):
            twice = next(name for name in names if names.count(name) > 1)
            raise MalformedBody(f"the member {twice[:80]!r} is there twice")

    try:
        json.loads(body, object_pairs_hook=check)
    except (ValueError, RecursionError) as error:
        raise MalformedBody(f"the body is not a JSON object: {_reason(error)}") from error


def _reason(error: Exception) -> str:
    return "it is nested too deeply" if isinstance(error, RecursionError) else str(error)

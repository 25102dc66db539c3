"""What a client may be told while something dies: the whole list, and what each answer promises.

An answer that is not here is a fault: a bare 502, a text instead of the dialect's object, a code that says
"not found". Silence is one, too, unless the edge itself was hit: then connections break, as they must.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from typing import Any

from tests.acceptance.player import Answer


class Promise(StrEnum):
    """What an answer says about the write that was asked for."""

    DONE = "done"
    """It is there, for good."""
    NOT_STARTED = "not started"
    """It is not there and will not be: the call may be repeated."""
    UNKNOWN = "unknown"
    """It may be there: read before repeating it."""


class NotAllowed(AssertionError):
    """An answer that no client must ever see."""


@dataclass(frozen=True, slots=True)
class Rule:
    """One allowed error: status and code of the dialect, a piece of the message, and the promise."""

    status: int
    code: str
    text: str
    promise: Promise


UNSTARTED_TEXT = "nothing was "
"""Every message that promises NOT_STARTED says so: "nothing was started" or "nothing was changed"."""

FUNCTION_CALL = (
    Rule(400, "FUNCTIONS_EXECUTE_FAIL", "ended before it answered", Promise.UNKNOWN),
    Rule(504, "FUNCTIONS_TIME_LIMIT_EXCEEDED", "Invoking task timed out after", Promise.UNKNOWN),
    Rule(503, "SYS_ERR", UNSTARTED_TEXT, Promise.NOT_STARTED),
    Rule(500, "SYS_ERR", "may or may not have", Promise.UNKNOWN),
    Rule(429, "EXCEED_CONCURRENT_REQUEST_LIMIT", "", Promise.NOT_STARTED),
    Rule(504, "SERVER_TIMEOUT", "read before trying again", Promise.UNKNOWN),
)
"""Dialect D, ``/v1/functions/NAME``."""

SIGNED_CALL = (
    Rule(200, "SYS_ERR", UNSTARTED_TEXT, Promise.NOT_STARTED),
    Rule(200, "SYS_ERR", "may or may not have", Promise.UNKNOWN),
    Rule(200, "SERVER_TIMEOUT", "read before trying again", Promise.UNKNOWN),
)
"""Dialect A, ``/admin``, which always answers 200."""

CLOCK_SET = (Rule(200, "SIGN_PARAM_INVALID", "check the clock", Promise.NOT_STARTED),)
"""Beside these when the platform's clock was set while a request with the time of before was on its way."""

INSIDE = (*SIGNED_CALL, Rule(200, "CONNECTION", "", Promise.UNKNOWN))
"""What the function is told by its own calls: the connection to api may break under them."""


def of_function(answer: Answer) -> Promise:
    """What the answer to a call of a function of this project promises. Raise NotAllowed."""
    body = _object(answer)
    if answer.status == 200 and body.get("success") is True:
        return Promise.DONE
    if answer.status == 200 and body.get("success") is False:
        return _found(INSIDE, 200, body)
    return _checked(FUNCTION_CALL, answer, body)


def of_signed(answer: Answer, clock_set: bool = False) -> Promise:
    """What the answer to a signed request promises. Raise NotAllowed."""
    body = _object(answer)
    if answer.status == 200 and "code" not in body:
        return Promise.DONE
    return _checked((*SIGNED_CALL, *CLOCK_SET) if clock_set else SIGNED_CALL, answer, body)


def _checked(rules: tuple[Rule, ...], answer: Answer, body: dict[str, Any]) -> Promise:
    if not body.get("requestId"):
        raise NotAllowed(f"an error without a request id: {answer.status} {answer.body}")
    return _found(rules, answer.status, body)


def _found(rules: tuple[Rule, ...], status: int, body: dict[str, Any]) -> Promise:
    code, message = body.get("code"), str(body.get("message"))
    for rule in rules:
        if (rule.status, rule.code) == (status, code) and rule.text in message:
            return rule.promise
    shown = {name: value for name, value in body.items() if name != "requestId"}
    raise NotAllowed(f"not on the list: {status} {shown}")


def _object(answer: Answer) -> dict[str, Any]:
    if not isinstance(answer.body, dict):
        raise NotAllowed(f"no object of the dialect: {answer.status} {answer.body!r}")
    return answer.body

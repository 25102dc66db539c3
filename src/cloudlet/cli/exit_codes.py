"""What the exit code of a command says. ``docs/reference/cli.md`` shows the same table."""

from __future__ import annotations

from enum import IntEnum

from cloudlet.model.errors import (
    BuildFailed,
    Conflict,
    FunctionError,
    InvalidRequest,
    LimitExceeded,
    NotFound,
    PermissionDenied,
    PlatformError,
    Unauthenticated,
    Unavailable,
)


class ExitCode(IntEnum):
    """Codes are part of the interface: scripts rely on them."""

    OK = 0
    FAILED = 1
    USAGE = 2
    NOT_RUNNING = 3
    NOT_FOUND = 4
    REFUSED = 5
    UNAVAILABLE = 6
    INTERRUPTED = 130


MEANING = {
    ExitCode.OK: "done",
    ExitCode.FAILED: "it was tried and failed: a function threw an error, a build or part of a deploy failed",
    ExitCode.USAGE: "the command line is not understood",
    ExitCode.NOT_RUNNING: "cloudlet is not running for this data directory",
    ExitCode.NOT_FOUND: "the environment, function or file does not exist",
    ExitCode.REFUSED: "refused: not valid, not allowed, in conflict with what is there, or over a limit",
    ExitCode.UNAVAILABLE: "not possible right now; nothing was changed, try again",
    ExitCode.INTERRUPTED: "interrupted with Ctrl-C",
}

_BY_CLASS: tuple[tuple[type[PlatformError], ExitCode], ...] = (
    (NotFound, ExitCode.NOT_FOUND),
    (Unavailable, ExitCode.UNAVAILABLE),
    (FunctionError, ExitCode.FAILED),
    (BuildFailed, ExitCode.FAILED),
    (InvalidRequest, ExitCode.REFUSED),
    (Unauthenticated, ExitCode.REFUSED),
    (PermissionDenied, ExitCode.REFUSED),
    (Conflict, ExitCode.REFUSED),
    (LimitExceeded, ExitCode.REFUSED),
)


def exit_code_of(error: PlatformError) -> ExitCode:
    """The exit code for an error of the platform."""
    for kind, code in _BY_CLASS:
        if isinstance(error, kind):
            return code
    return ExitCode.FAILED

"""All checks in order, and the repairs that are safe."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace

from cloudlet.model.errors import PlatformError
from cloudlet.settings import Paths, Settings

from . import directories, edge, isolation, machine, runtimes
from .finding import Finding, Level, problem

_UNEXPECTED = "report this; the other checks do not depend on it"


def examine(settings: Settings, environ: Mapping[str, str], network: bool) -> list[Finding]:
    """Look at everything. Takes some seconds; changes nothing but a file of one page, which is removed.

    Works while the platform runs and while it does not. A check that fails is a finding, too.
    """
    paths = Paths(settings.data)
    clock = machine.ClockWatch()
    parts: tuple[tuple[str, Callable[[], list[Finding]]], ...] = (
        ("edge", lambda: [edge.check_program(), edge.check_configuration(settings, paths)]),
        ("places", lambda: directories.judge_places(directories.see_places(paths))),
        ("port", lambda: [_port(settings, paths)]),
        ("limits", lambda: machine.judge_limits(machine.see_limits())),
        ("disk", lambda: machine.judge_disk(machine.see_disk(paths.data))),
        (
            "isolation",
            lambda: isolation.judge_isolation(
                isolation.see_isolation(settings.rung, (paths.code, paths.cache, paths.runtimes))
            ),
        ),
        ("runtimes", lambda: runtimes.check_runtimes(paths)),
        ("packages", lambda: runtimes.check_packages(environ, network)),
        ("clock", lambda: machine.judge_clock(clock.see())),
    )
    return [finding for name, check in parts for finding in _checked(name, check)]


def repaired(findings: list[Finding]) -> list[Finding]:
    """Do every repair; return those findings whose repair failed, with the reason."""
    failed = []
    for finding in findings:
        if finding.repair is None or finding.level is Level.OK:
            continue
        try:
            finding.repair()
        except (OSError, PlatformError) as error:
            failed.append(replace(finding, text=f"{finding.text}; it could not be repaired: {error}"))
    return failed


def _checked(name: str, check: Callable[[], list[Finding]]) -> list[Finding]:
    try:
        return check()
    except Exception as error:
        return [problem(name, f"this could not be looked at: {error!r}", _UNEXPECTED)]


def _port(settings: Settings, paths: Paths) -> Finding:
    running = directories.holder(paths.lock) is not None
    ours = edge.port_in_use(settings, paths) if running else None
    return directories.judge_port(settings.host, settings.port, ours)

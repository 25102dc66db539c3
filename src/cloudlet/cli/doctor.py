"""``cloudlet doctor``."""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import TYPE_CHECKING

import click

from .exit_codes import ExitCode
from .session import Session, command_options

if TYPE_CHECKING:
    from cloudlet.serve.doctor.finding import Finding

_MARKS = {"ok": ("✓", "green"), "warning": ("!", "yellow"), "problem": ("✗", "red")}


@click.command()
@click.option("--fix", is_flag=True, help="Do the fixes that are safe: what a killed run left, file modes.")
@click.option("--network", is_flag=True, help="Also ask the package registries whether they answer.")
@command_options
def doctor(session: Session, fix: bool, network: bool) -> None:
    """Look for what is wrong with this machine and this installation.

    Works while cloudlet runs and while it does not. Every finding is one line, with what to do about it. The
    exit code is 1 when there is a problem; warnings alone leave it 0.

    \b
    Examples:
      cloudlet doctor
      cloudlet doctor --fix
      cloudlet doctor --network --json
    """
    from cloudlet.observe.logs import configure
    from cloudlet.serve.doctor.examine import examine, repaired

    configure("error", "doctor")
    settings = session.settings()
    settings = settings.model_copy(update={"data": settings.data.expanduser().resolve()})
    findings = examine(settings, os.environ, network)
    mended: list[str] = []
    if fix and (ill := {each.check: each for each in findings if each.repair is not None}):
        failed = {each.check: each for each in repaired(findings)}
        # Looked at again as a whole: one repair may uncover the next thing, or mend several.
        findings = [failed.get(each.check, each) for each in examine(settings, os.environ, network)]
        mended = [check for check in ill if check not in failed]
    _show(session, findings, mended)
    if any(each.level == "problem" for each in findings):
        raise click.exceptions.Exit(ExitCode.FAILED)


def _show(session: Session, findings: Sequence[Finding], mended: Sequence[str]) -> None:
    value = {
        "findings": [
            {
                "check": each.check,
                "level": each.level.value,
                "text": each.text,
                "fix": each.fix,
                "fixable": each.repair is not None,
            }
            for each in findings
        ],
        "fixed": list(mended),
        "problems": sum(each.level == "problem" for each in findings),
        "warnings": sum(each.level == "warning" for each in findings),
    }
    session.show(value, lambda: _text(findings, mended))


def _text(findings: Sequence[Finding], mended: Sequence[str]) -> str:
    width = max(len(each.check) for each in findings)
    lines = []
    for each in findings:
        mark, colour = _MARKS[each.level.value]
        lines.append(f"{click.style(mark, fg=colour)} {each.check.ljust(width)}  {each.text}")
        if each.fix:
            lines.append(f"  {' ' * width}  {click.style(f'fix: {each.fix}', dim=True)}")
    lines.append("")
    if mended:
        lines.append(f"fixed: {', '.join(mended)}")
    lines.append(_summary(findings))
    return "\n".join(lines)


def _summary(findings: Sequence[Finding]) -> str:
    problems, warnings, fixable = (
        sum(each.level == "problem" for each in findings),
        sum(each.level == "warning" for each in findings),
        any(each.repair is not None for each in findings),
    )
    parts = [f"{problems} problems" if problems != 1 else "1 problem"]
    parts.append(f"{warnings} warnings" if warnings != 1 else "1 warning")
    return ", ".join(parts) + ("; 'cloudlet doctor --fix' does some of the fixes" if fixable else "")

"""How well instances can be kept apart on this machine."""

from __future__ import annotations

import asyncio
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

from cloudlet.model.errors import Unavailable
from cloudlet.model.sandbox import Rung
from cloudlet.sandbox import linux, tmp
from cloudlet.sandbox.namespaces.driver import NamespacesDriver

from .finding import Finding, ok, problem, warning

_SYSCTLS = Path("/proc/sys")
_CHILD_S_MAX = 10.0


@dataclass(frozen=True, slots=True)
class Isolation:
    """What was tried, and the settings that may forbid it."""

    rung: Rung
    linux: bool
    private_tmp: bool
    namespaces_error: str
    """Why a child could not have a user and a mount namespace of its own; empty when it could."""
    namespaces_max: int | None
    """``user.max_user_namespaces``; None where there is no such setting."""
    unprivileged_clone: int | None
    """``kernel.unprivileged_userns_clone`` (Debian's kernels)."""
    apparmor_restricts: int | None
    """``kernel.apparmor_restrict_unprivileged_userns`` (Ubuntu's)."""
    cells_error: str = ""
    """Why no cell of the rung `namespaces` could be made ready for; empty when it could."""


def see_isolation(rung: Rung, shown: tuple[Path, ...]) -> Isolation:
    """Try it in short-lived children. `shown`: what a private /tmp must keep visible."""
    here = sys.platform == "linux"
    return Isolation(
        rung=rung,
        linux=here,
        private_tmp=tmp.detect(shown) is not None,
        namespaces_error=_namespaces_error() if here else "",
        namespaces_max=_setting("user/max_user_namespaces"),
        unprivileged_clone=_setting("kernel/unprivileged_userns_clone"),
        apparmor_restricts=_setting("kernel/apparmor_restrict_unprivileged_userns"),
        cells_error=asyncio.run(_cells_error()) if here else "this system has no namespaces",
    )


def judge_isolation(seen: Isolation) -> list[Finding]:
    return [_judge_rung(seen), _judge_namespaces(seen), _judge_cells(seen), _judge_tmp(seen)]


def _judge_rung(seen: Isolation) -> Finding:
    if seen.rung is not Rung.PROCESS:
        return ok("isolation", f"instances are isolated by {seen.rung.value}")
    text = "instances are plain processes: functions can read and change what this user can"
    return warning("isolation", text, "deploy only code you trust, and run cloudlet as a user of its own")


def _judge_namespaces(seen: Isolation) -> Finding:
    if not seen.linux:
        return warning("namespaces", "this system has no namespaces", "use Linux where isolation matters")
    if not seen.namespaces_error:
        return ok("namespaces", "user and mount namespaces can be made")
    text = f"user namespaces cannot be made ({seen.namespaces_error})"
    return warning("namespaces", text, namespaces_fix(seen))


def _judge_cells(seen: Isolation) -> Finding:
    if not seen.cells_error:
        return ok("rung-namespaces", "CLOUDLET_RUNG=namespaces works here")
    text = f"CLOUDLET_RUNG=namespaces does not work here: {seen.cells_error}"
    fix = namespaces_fix(seen) if seen.linux else "use Linux where isolation matters"
    if seen.rung is Rung.NAMESPACES:
        return problem("rung-namespaces", text, fix)
    return warning("rung-namespaces", text, fix)


def namespaces_fix(seen: Isolation) -> str:
    """The setting that forbids them, with the command that allows them."""
    if seen.namespaces_max == 0:
        return "sudo sysctl -w user.max_user_namespaces=15000"
    if seen.unprivileged_clone == 0:
        return "sudo sysctl -w kernel.unprivileged_userns_clone=1"
    if seen.apparmor_restricts == 1:
        return "sudo sysctl -w kernel.apparmor_restrict_unprivileged_userns=0"
    return (
        "no kernel setting forbids them, so a container or a security module does: "
        "docker run --security-opt seccomp=unconfined --security-opt apparmor=unconfined "
        "--security-opt systempaths=unconfined"
    )


def _judge_tmp(seen: Isolation) -> Finding:
    if seen.private_tmp:
        return ok("private-tmp", "each instance has its own /tmp")
    text = "instances share /tmp; only TMPDIR is their own"
    if seen.linux and seen.namespaces_error:
        return warning("private-tmp", text, namespaces_fix(seen))
    return warning("private-tmp", text, "have functions use TMPDIR")


async def _cells_error() -> str:
    driver = NamespacesDriver((), ())
    try:
        await driver.start()
    except Unavailable as error:
        return error.message
    finally:
        await driver.close()
    return ""


def _namespaces_error() -> str:
    def enter() -> None:
        linux.unshare(linux.CLONE_NEWUSER | linux.CLONE_NEWNS)
        linux.make_mounts_private()

    try:
        subprocess.run(("/bin/true",), preexec_fn=enter, check=True, timeout=_CHILD_S_MAX)
    except subprocess.SubprocessError as error:
        # What was raised before the program began is not told; the reason is one of the settings.
        return "not permitted" if "preexec_fn" in str(error) else str(error)
    except OSError as error:
        return error.strerror or str(error)
    return ""


def _setting(name: str) -> int | None:
    try:
        return int((_SYSCTLS / name).read_text())
    except (OSError, ValueError):
        return None

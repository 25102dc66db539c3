"""Programs that the benchmarks need and packages do not bring."""

from __future__ import annotations

import os
import shutil
import subprocess

from .errors import BenchmarkFailed

INSTALL_TIMEOUT_S = 300


def need_wrk() -> str:
    """Path of the load generator, installed with apt when it is missing and we may. Raise BenchmarkFailed
    with the command to run otherwise."""
    found = shutil.which("wrk")
    if found:
        return found
    advice = BenchmarkFailed("the load generator wrk is missing; run: sudo apt-get install -y wrk")
    root = _as_root()
    if root is None or shutil.which("apt-get") is None:
        raise advice
    print("Installing wrk with apt", flush=True)
    for arguments in (["update", "-q"], ["install", "-q", "-y", "--no-install-recommends", "wrk"]):
        try:
            subprocess.run(
                [*root, "env", "DEBIAN_FRONTEND=noninteractive", "apt-get", *arguments],
                check=True,
                timeout=INSTALL_TIMEOUT_S,
            )
        except subprocess.SubprocessError as exc:
            raise advice from exc
    found = shutil.which("wrk")
    if not found:
        raise advice
    return found


def _as_root() -> list[str] | None:
    """What to put before a command to run it as root; None when that is not possible without asking."""
    if os.getuid() == 0:
        return []
    if shutil.which("sudo") is None:
        return None
    allowed = subprocess.run(["sudo", "-n", "true"], capture_output=True, timeout=30, check=False)
    return ["sudo", "-n"] if allowed.returncode == 0 else None

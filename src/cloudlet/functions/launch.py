"""Starts one installer so that it cannot outlive the process that asked for it.

Run as ``python -I -S launch.py PARENT_PID FILE_BYTES_MAX PROGRAM ARGUMENT…``. Standard library only and
small, because it runs before every installer. A process of its own, because what it sets must be set
after the fork, where a threaded parent cannot safely run Python.
"""

from __future__ import annotations

import os
import resource
import signal
import sys

PR_SET_PDEATHSIG = 1
"""From <sys/prctl.h>."""


def main() -> None:
    parent = int(sys.argv[1])
    file_bytes_max = int(sys.argv[2])
    die_with_parent(parent)
    resource.setrlimit(resource.RLIMIT_FSIZE, (file_bytes_max, file_bytes_max))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    os.umask(0o022)
    os.execv(sys.argv[3], sys.argv[3:])  # noqa: S606 - the program and its arguments are the parent's


def die_with_parent(parent: int) -> None:
    """Ask the kernel for SIGKILL when the parent ends (Linux; elsewhere the parent's clean-up must do)."""
    if sys.platform != "linux":
        return
    import ctypes

    ctypes.CDLL(None, use_errno=True).prctl(PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
    if os.getppid() != parent:
        # It ended before the request took effect.
        os.kill(os.getpid(), signal.SIGKILL)


if __name__ == "__main__":
    main()

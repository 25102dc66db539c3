"""Runs a command as a user without any rights, for tests that run as root.

What Python needs may lie in root's home, where such a user cannot go. The command therefore gets a mount
namespace in which closed directories on the way are open and have nothing but that in them.
"""

from __future__ import annotations

import os
import shutil
import sys
import tempfile
from pathlib import Path

from cloudlet.sandbox.namespaces import kernel

NOBODY = 65534


def main() -> None:
    kernel.unshare(kernel.CLONE_NEWNS)
    kernel.set_propagation("/", kernel.MS_REC | kernel.MS_PRIVATE)
    needed = (Path(sys.base_prefix), Path(sys.prefix), Path(__file__).resolve().parents[4])
    for closed in sorted({found for path in needed if (found := closed_directory(path))}):
        open_up(closed, [path for path in needed if path.is_relative_to(closed)])
    os.setgroups([])
    os.setresgid(NOBODY, NOBODY, NOBODY)
    os.setresuid(NOBODY, NOBODY, NOBODY)
    os.chdir(needed[-1])
    environment = {"PATH": os.environ["PATH"], "HOME": "/tmp", "LANG": "C.UTF-8"}
    os.execve(sys.argv[1], sys.argv[1:], environment)


def closed_directory(path: Path) -> Path | None:
    """The first directory on the way that others may not pass."""
    return next((each for each in reversed((path, *path.parents)) if not each.stat().st_mode & 0o001), None)


def open_up(closed: Path, kept: list[Path]) -> None:
    """Show nothing of `closed` but `kept`, or all that is in it if it is one of these itself."""
    aside = Path(tempfile.mkdtemp(prefix="cl-kept-"))
    try:
        kernel.mount(str(closed), str(aside), "", kernel.MS_BIND | kernel.MS_REC)
        kernel.mount("open", str(closed), "tmpfs", 0, "mode=0755,size=1m")
        if closed in kept:
            kept = [closed / each.name for each in aside.iterdir() if not each.is_symlink()]
        for path in kept:
            source = aside / path.relative_to(closed)
            if source.is_dir():
                path.mkdir(parents=True, exist_ok=True)
            else:
                path.touch()
            kernel.mount(str(source), str(path), "", kernel.MS_BIND | kernel.MS_REC)
        kernel.detach(str(aside))
    finally:
        shutil.rmtree(aside, ignore_errors=False)


if __name__ == "__main__":
    main()

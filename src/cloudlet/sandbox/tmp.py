"""A ``/tmp`` of its own for a child process, and code that it cannot change, by a mount namespace made
between fork and exec (Linux)."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import structlog

from . import linux

TMP = Path("/tmp")  # noqa: S108 - the very directory that is to be hidden
log: structlog.stdlib.BoundLogger = structlog.get_logger()


@dataclass(frozen=True, slots=True)
class PrivateTmp:
    """How cells of this machine get their own ``/tmp`` and fixed directories."""

    shown: tuple[Path, ...]
    """Directories under ``/tmp`` that stay visible in the cell, none inside another."""
    user_namespace: bool
    """Whether a user namespace is needed for it (true unless root)."""
    fixed: tuple[Path, ...] = ()
    """Directories in which a cell can write nothing, whoever owns them: versions are immutable, and their
    dependencies are hard links that other versions share."""

    def shows(self, directory: Path) -> bool:
        """Whether the cell sees `directory` under its own name."""
        real = directory.resolve()
        return not real.is_relative_to(TMP) or any(real.is_relative_to(path) for path in self.shown)

    def prepare(self, directory: Path) -> Callable[[], None]:
        """The function to be run between fork and exec, after which `directory` is ``/tmp``. Makes the mount
        points in `directory`. Raise OSError; so does the function."""
        for path in self.shown:
            (directory / path.relative_to(TMP)).mkdir(parents=True, exist_ok=True)
        source = os.fsencode(directory)
        target = os.fsencode(TMP)
        kept = tuple(os.fsencode(path) for path in self.shown)
        ids = _id_maps() if self.user_namespace else ()
        read_only = tuple((os.fsencode(path), linux.kept_flags(path)) for path in self.fixed)

        def enter() -> None:
            linux.unshare(linux.CLONE_NEWNS | (linux.CLONE_NEWUSER if ids else 0))
            for name, text in ids:
                _write(name, text)
            linux.make_mounts_private()
            # Opened in the new namespace, because only its own mounts can be bound there, and before they
            # are hidden.
            opened = [os.open(path, os.O_PATH | os.O_CLOEXEC) for path in kept]
            linux.bind(source, target)
            for descriptor, path in zip(opened, kept, strict=True):
                linux.bind(b"/proc/self/fd/%d" % descriptor, path)
            for path, flags in read_only:
                linux.bind_read_only(path, flags)
            os.chdir(target)

        return enter


def detect(shown: Iterable[Path], fixed: Iterable[Path] = ()) -> PrivateTmp | None:
    """What works here, found by doing it once in a child; None when nothing does. `fixed` directories must
    be visible (not under ``/tmp``, or among `shown`); those that are not there are passed over."""
    if sys.platform != "linux" or TMP.is_symlink():
        return None
    bare = PrivateTmp(outermost(shown), user_namespace=os.geteuid() != 0)
    wanted = replace(bare, fixed=tuple(path.resolve() for path in fixed if path.is_dir()))
    reason = _attempt(wanted)
    if not reason:
        return wanted
    log.warning("code_not_read_only", reason=reason)
    reason = _attempt(bare)
    if reason:
        log.warning("tmp_not_private", reason=reason)
        return None
    return bare


def outermost(paths: Iterable[Path]) -> tuple[Path, ...]:
    """The existing directories of `paths` under ``/tmp``, resolved, without those inside another."""
    under = {path.resolve() for path in paths if path.is_dir() and path.resolve().is_relative_to(TMP)}
    kept: list[Path] = []
    for path in sorted(under, key=lambda each: len(each.parts)):
        if not any(path.is_relative_to(outer) for outer in kept):
            kept.append(path)
    return tuple(kept)


def _attempt(tmp: PrivateTmp) -> str:
    """Why it does not work, or nothing."""
    directory = Path(tempfile.mkdtemp(prefix="cloudlet-tmp-"))
    try:
        enter = tmp.prepare(directory)
        subprocess.run(("/bin/true",), preexec_fn=enter, check=True, timeout=10)
    except (OSError, subprocess.SubprocessError) as exc:
        return str(exc)
    finally:
        shutil.rmtree(directory, ignore_errors=True)
    return ""


def _id_maps() -> Sequence[tuple[bytes, bytes]]:
    """The user keeps its own ids in its namespace. Groups can only be mapped once they cannot be changed."""
    return (
        (b"/proc/self/setgroups", b"deny"),
        (b"/proc/self/uid_map", b"%d %d 1" % (os.geteuid(), os.geteuid())),
        (b"/proc/self/gid_map", b"%d %d 1" % (os.getegid(), os.getegid())),
    )


def _write(path: bytes, text: bytes) -> None:
    descriptor = os.open(path, os.O_WRONLY | os.O_CLOEXEC)
    os.write(descriptor, text)
    os.close(descriptor)

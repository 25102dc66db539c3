"""What was saved, and which functions that concerns.

Files are looked at again and again instead of listening for the kernel's events: those do not arrive for
folders of another system (WSL2, virtual machines, network), where many people keep their projects, and a
project is some hundred files. Nothing is read but names, times and sizes.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from cloudlet.functions.archive import DEPENDENCIES, is_skipped
from cloudlet.functions.configs import FunctionSettings
from cloudlet.functions.project import ALIPAY_FILE, CLOUDBASE_FILE, WECHAT_FILE, Project

FILES_MAX = 20_000
"""More are not looked at: what is packed has a limit, too."""
PROJECT_FILES = (WECHAT_FILE, ALIPAY_FILE, CLOUDBASE_FILE, ".env", ".env.local")

Stamp = tuple[int, int, int]
"""Time of the last change (ns), size, number of the file."""
Scan = Mapping[Path, Stamp]


@dataclass(frozen=True, slots=True)
class Fingerprint:
    """What a function was when it was looked at. Equal ones need no deploy."""

    settings: FunctionSettings
    files: frozenset[tuple[Path, Stamp]]


@dataclass(frozen=True, slots=True)
class Watched:
    """Where to look."""

    root: Path
    folders: tuple[Path, ...]
    excluded: tuple[Path, ...] = ()
    """Folders that change by themselves, such as the data directory."""

    @classmethod
    def of(cls, project: Project, *excluded: Path) -> Watched:
        return cls(project.root, project.function_folders, tuple(path.resolve() for path in excluded))

    def scan(self) -> Scan:
        """Every file that may be part of a deploy, as it is now; what vanishes meanwhile is left out."""
        found: dict[Path, Stamp] = {}
        for path in self._paths():
            if (stamp := _stamp(path)) is not None:
                found[path] = stamp
            if len(found) >= FILES_MAX:
                break
        return found

    def _paths(self) -> Iterator[Path]:
        yield from (self.root / name for name in PROJECT_FILES)
        for folder in self.folders:
            yield from self._files(folder)

    def _files(self, folder: Path) -> Iterator[Path]:
        try:
            entries = list(os.scandir(folder))
        except OSError:
            return  # removed while we look: the next look sees the same
        for entry in entries:
            path = Path(entry.path)
            if is_skipped(entry.name) or entry.name == DEPENDENCIES or path in self.excluded:
                continue
            if entry.is_dir(follow_symlinks=False):
                yield from self._files(path)
            else:
                yield path


class Settling:
    """Tells when files have changed and are still again: a save may be several writes. Pure."""

    def __init__(self, scan: Scan) -> None:
        self._handled = scan
        self._last = scan

    def settled(self, scan: Scan) -> bool:
        """True once for each change, at the first look that finds nothing new after it."""
        still = scan == self._last
        self._last = scan
        if not still or scan == self._handled:
            return False
        self._handled = scan
        return True


def fingerprints(project: Project, scan: Scan) -> dict[str, Fingerprint]:
    """By name of the function."""
    return {
        function.name: Fingerprint(
            function.settings,
            frozenset(
                (path, stamp) for path, stamp in scan.items() if path.is_relative_to(function.directory)
            ),
        )
        for function in project.functions
    }


def saved_at(prints: Mapping[str, Fingerprint], names: list[str]) -> float:
    """When the newest file of these functions was written (seconds since the Unix epoch); 0 without files."""
    times = [stamp[0] for name in names for _, stamp in prints[name].files]
    return max(times, default=0) / 1e9


def _stamp(path: Path) -> Stamp | None:
    try:
        info = path.stat()
    except OSError:
        return None
    return info.st_mtime_ns, info.st_size, info.st_ino

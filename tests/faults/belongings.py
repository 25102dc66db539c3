"""What an installation holds while nothing is asked of it: ports, sockets, files, descriptors, cgroups.

What is left of something that was killed shows here, whoever left it.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

_LISTENS = "0A"
"""State of a listening socket in ``/proc/net/tcp``."""
_ACCEPTS = "00010000"
"""Flag of a listening socket in ``/proc/net/unix``."""


DESCRIPTORS_SLACK = 40
"""Kept connections come and go with 64 clients; what leaks, leaks once a round."""


@dataclass(frozen=True, slots=True)
class Belongings:
    """Counts, because names and numbers change with every restart."""

    ports: int
    """TCP sockets that somebody of the family listens on."""
    sockets: Counter[str]
    """Unix sockets in the run directory that somebody listens on, by file; those of cells have one name."""
    files: Counter[str]
    """Entries of the run directory and its folders, in the same way."""


def belongings(family: Iterable[int], run: Path) -> Belongings:
    """Of the processes `family` and the run directory."""
    held = {inode for pid in family for inode in _inodes(pid)}
    return Belongings(
        ports=len(held & _listening_ports()),
        sockets=Counter(_plain(path, run) for path in _listening_paths() if path.is_relative_to(run)),
        files=Counter(_plain(path, run) for path in run.rglob("*") if len(path.relative_to(run).parts) <= 2),
    )


def check_descriptors(before: Mapping[str, int], now: Mapping[str, int]) -> None:
    """Raise AssertionError when a process that lives long holds many more descriptors than before."""
    grown = {
        name: (before[name], count) for name, count in now.items() if count > before[name] + DESCRIPTORS_SLACK
    }
    if grown:
        raise AssertionError(f"open descriptors, before and now: {grown}")


def own_cgroups(pid: int) -> set[Path]:
    """Directories of the control groups of a process that are not ours, too."""
    return _cgroups(f"/proc/{pid}/cgroup") - _cgroups("/proc/self/cgroup")


def left_cgroups(seen: Iterable[Path], family: Iterable[int]) -> set[Path]:
    """Those of `seen` that are still there although nobody of the family is in them."""
    used = {group for pid in family for group in own_cgroups(pid)}
    return {group for group in seen if group not in used and group.is_dir()}


def _inodes(pid: int) -> set[int]:
    """Numbers of the sockets that a process holds."""
    found = set()
    try:
        links = [str(path.readlink()) for path in Path(f"/proc/{pid}/fd").iterdir()]
    except OSError:
        return set()  # it has ended, or closed one just now: whoever waits looks again
    for link in links:
        if link.startswith("socket:["):
            found.add(int(link[8:-1]))
    return found


def _listening_ports() -> set[int]:
    lines = [
        line.split()
        for table in ("tcp", "tcp6")
        for line in Path(f"/proc/net/{table}").read_text().splitlines()[1:]
    ]
    return {int(fields[9]) for fields in lines if fields[3] == _LISTENS}


def _listening_paths() -> list[Path]:
    lines = [line.split() for line in Path("/proc/net/unix").read_text().splitlines()[1:]]
    return [Path(fields[7]) for fields in lines if len(fields) > 7 and fields[3] == _ACCEPTS]


def _plain(path: Path, run: Path) -> str:
    """Cells have names of their own."""
    inside = path.relative_to(run)
    return str(inside) if len(inside.parts) < 2 or inside.parts[0] == "edge" else f"a cell's {path.suffix}"


def _cgroups(file: str) -> set[Path]:
    """The directories of a process's cgroups: of the one hierarchy of version 2, and of each of version 1.
    The roots do not count: nobody made them, and a process that ends is in them."""
    try:
        lines = Path(file).read_text().splitlines()
    except OSError:
        return set()
    mounts = _cgroup_mounts()
    named = [line.replace(":name=", ":", 1).split(":", 2) for line in lines]
    return {mounts[names] / path.lstrip("/") for _, names, path in named if names in mounts and path != "/"}


def _cgroup_mounts() -> dict[str, Path]:
    """Where each hierarchy is mounted, by the names of its controllers ("" is version 2)."""
    found = {}
    for line in Path("/proc/self/mounts").read_text().splitlines():
        place, kind = line.split()[1:3]
        if kind == "cgroup2":
            found[""] = Path(place)
        elif kind == "cgroup":
            found[Path(place).name] = Path(place)
    return found

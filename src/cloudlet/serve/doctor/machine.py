"""Limits, disk and clock of the machine."""

from __future__ import annotations

import ctypes
import errno
import os
import resource
import shutil
import statistics
import sys
import tempfile
import time
import zoneinfo
from dataclasses import dataclass
from pathlib import Path

import cloudlet

from .finding import Finding, ok, problem, warning

FILES_NEEDED = 1024
"""Each client needs one at the edge, and mostly another one towards an instance."""
FILES_WANTED = 65_536
INOTIFY_WANTED = 128
FREE_MB_NEEDED, FREE_MB_WANTED = 200, 2000
SYNCS = 15
SYNC_MS_WANTED, SYNC_MS_BAD = 20.0, 200.0
STEP_S_MAX = 0.05
TIME_ZONE = "Asia/Shanghai"
"""Timers are written for it by default."""
REMOTE = frozenset({"nfs", "nfs4", "cifs", "smb3", "smbfs", "fuse.sshfs", "9p", "fuse.glusterfs"})
"""File systems on which SQLite's log does not work, because processes on them do not share memory."""
_TIME_ERROR = 5
_MB = 1024 * 1024


@dataclass(frozen=True, slots=True)
class Limits:
    """What this user may have open."""

    files_soft: int
    files_hard: int
    inotify_max: int | None
    """Instances for each user; None where there are none."""
    inotify_works: bool


@dataclass(frozen=True, slots=True)
class Disk:
    """Where the data is, or will be."""

    directory: Path
    file_system: str
    free_mb: int
    sync_ms: tuple[float, ...]
    """Of one page each; empty when nothing could be written."""


@dataclass(frozen=True, slots=True)
class Clock:
    """The clocks, looked at twice."""

    stepped_s: float
    """By how much the wall clock moved against the monotonic one meanwhile."""
    now: float
    installed_at: float
    """When cloudlet's files were written: it cannot be earlier now."""
    synchronised: bool | None
    """None when the system does not tell."""
    zone_known: bool


def see_limits() -> Limits:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    return Limits(soft, hard, _number(Path("/proc/sys/fs/inotify/max_user_instances")), _inotify_works())


def judge_limits(seen: Limits) -> list[Finding]:
    files = f"{seen.files_soft} open files are allowed"
    fix = f"ulimit -n {FILES_WANTED} before the start, or LimitNOFILE={FILES_WANTED} in the service's unit"
    if seen.files_soft < FILES_NEEDED:
        found = [problem("open-files", f"{files}: too few", fix)]
    elif seen.files_soft < FILES_WANTED:
        found = [
            warning("open-files", f"{files}: enough for about {seen.files_soft // 2:,} clients at once", fix)
        ]
    else:
        found = [ok("open-files", files)]
    if seen.inotify_max is None:
        return found
    text = f"{seen.inotify_max} inotify instances are allowed"
    fix = "sudo sysctl -w fs.inotify.max_user_instances=1024"
    if not seen.inotify_works:
        return [*found, problem("inotify", f"{text}, and all of them are used: Envoy cannot start", fix)]
    if seen.inotify_max < INOTIFY_WANTED:
        return [*found, warning("inotify", f"{text}: other programs may leave none to Envoy", fix)]
    return [*found, ok("inotify", text)]


def see_disk(data: Path) -> Disk:
    """Raise OSError when the disk cannot be looked at. Writes a file of one page and removes it."""
    directory = nearest(data)
    free = shutil.disk_usage(directory).free // _MB
    return Disk(directory, _file_system(directory), free, _sync_times(directory))


def judge_disk(seen: Disk) -> list[Finding]:
    text = f"{seen.free_mb:,} MB are free at {seen.directory}"
    fix = "make room, or choose another disk with --data"
    if seen.free_mb < FREE_MB_NEEDED:
        found = [problem("disk-space", f"{text}: writes will fail soon", fix)]
    elif seen.free_mb < FREE_MB_WANTED:
        found = [warning("disk-space", text, fix)]
    else:
        found = [ok("disk-space", text)]
    if seen.file_system in REMOTE:
        text = f"{seen.directory} is on a network file system ({seen.file_system}): databases break there"
        found.append(problem("file-system", text, "choose a local disk with --data"))
    else:
        found.append(ok("file-system", f"{seen.directory} is on {seen.file_system or 'a local disk'}"))
    return [*found, *_judge_sync(seen)]


def _judge_sync(seen: Disk) -> list[Finding]:
    if not seen.sync_ms:
        return []  # that it cannot be written is said by the check of the data directory
    median, slowest = statistics.median(seen.sync_ms), max(seen.sync_ms)
    text = f"the disk confirms a write after {median:.1f} ms (slowest of {SYNCS}: {slowest:.0f} ms)"
    fix = "put the data on an SSD with --data; every acknowledged write waits for this"
    if median > SYNC_MS_BAD:
        return [problem("disk-sync", text, fix)]
    if median > SYNC_MS_WANTED:
        return [warning("disk-sync", text, fix)]
    return [ok("disk-sync", text)]


class ClockWatch:
    """Looks at the clocks when it is made, and again when asked: a step in between shows."""

    def __init__(self) -> None:
        self._offset = time.time() - time.monotonic()

    def see(self) -> Clock:
        now = time.time()
        return Clock(
            stepped_s=now - time.monotonic() - self._offset,
            now=now,
            installed_at=Path(cloudlet.__file__).stat().st_mtime,
            synchronised=_synchronised(),
            zone_known=_zone_known(),
        )


def judge_clock(seen: Clock) -> list[Finding]:
    fix = "sudo timedatectl set-ntp true"
    if seen.now < seen.installed_at - 86_400:
        clock = problem("clock", "the clock is wrong: it shows a time before cloudlet was installed", fix)
    elif abs(seen.stepped_s) > STEP_S_MAX:
        text = f"the clock was set by {seen.stepped_s:+.2f} s while this ran: tokens live 15 minutes by it"
        clock = warning("clock", text, "let one time service slew it instead of setting it")
    elif seen.synchronised is False:
        clock = warning("clock", "the kernel does not know of a time service that keeps the clock right", fix)
    else:
        clock = ok("clock", "the clock runs evenly")
    if seen.zone_known:
        return [clock, ok("time-zones", f"time zones are known ({TIME_ZONE})")]
    text = f"the time zone {TIME_ZONE} is not known: timers need it"
    return [clock, problem("time-zones", text, "sudo apt-get install tzdata, or pip install tzdata")]


def nearest(path: Path) -> Path:
    """The directory itself, or the first one above it that exists."""
    return next(each for each in (path, *path.parents) if each.is_dir())


def file_system_of(directory: Path, mounts: str) -> str:
    """The kind of file system that holds `directory`, from the text of ``/proc/mounts``."""
    best, kind = "", ""
    for line in mounts.splitlines():
        fields = line.split(" ")
        if len(fields) < 3:
            continue
        point = fields[1].encode().decode("unicode_escape")
        if directory.is_relative_to(point) and len(point) >= len(best):
            best, kind = point, fields[2]
    return kind


def _file_system(directory: Path) -> str:
    try:
        return file_system_of(directory.resolve(), Path("/proc/mounts").read_text())
    except OSError:
        return ""


def _sync_times(directory: Path) -> tuple[float, ...]:
    times: list[float] = []
    try:
        with tempfile.NamedTemporaryFile(prefix=".cloudlet-doctor-", dir=directory) as file:
            for _ in range(SYNCS):
                began = time.perf_counter()
                os.pwrite(file.fileno(), bytes(4096), 0)
                os.fsync(file.fileno())
                times.append((time.perf_counter() - began) * 1000)
    except PermissionError:
        return ()
    except OSError as error:
        if error.errno in (errno.EROFS, errno.ENOSPC):
            return ()
        raise
    return tuple(times)


def _inotify_works() -> bool:
    """Whether this user can have one more."""
    if sys.platform != "linux":
        return True
    descriptor = ctypes.CDLL(None).inotify_init1(os.O_CLOEXEC)
    if descriptor < 0:
        return False
    os.close(descriptor)
    return True


def _synchronised() -> bool | None:
    """What the kernel was told by a time service."""
    if sys.platform != "linux":
        return None
    nothing_to_change = ctypes.create_string_buffer(512)
    state = ctypes.CDLL(None).adjtimex(nothing_to_change)
    return None if state < 0 else state != _TIME_ERROR


def _zone_known() -> bool:
    try:
        zoneinfo.ZoneInfo(TIME_ZONE)
    except zoneinfo.ZoneInfoNotFoundError:
        return False
    return True


def _number(path: Path) -> int | None:
    try:
        return int(path.read_text())
    except (OSError, ValueError):
        return None

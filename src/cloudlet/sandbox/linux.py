"""The few Linux system calls that Python has no function for.

The C library is opened when this module is imported, because the functions here run between fork and exec,
where importing or loading anything is no longer safe. Every function raises OSError.
"""

from __future__ import annotations

import ctypes
import os
import signal
import sys
from pathlib import Path

CLONE_NEWNS = 0x0002_0000
CLONE_NEWUSER = 0x1000_0000
MS_BIND = 0x1000
MS_RDONLY = 0x1
MS_REMOUNT = 0x20
MS_REC = 0x4000
MS_PRIVATE = 0x4_0000
_MOUNT_FLAGS = {0x2: 0x2, 0x4: 0x4, 0x8: 0x8, 0x400: 0x400, 0x800: 0x800, 0x1000: 0x20_0000}
"""nosuid, nodev, noexec, noatime, nodiratime, relatime: as statvfs reports them → as mount takes them."""
_PR_SET_PDEATHSIG = 1
_PR_SET_NO_NEW_PRIVS = 38

_libc = ctypes.CDLL(None, use_errno=True)
if sys.platform == "linux":
    _libc.prctl.argtypes = (ctypes.c_int, ctypes.c_ulong, ctypes.c_ulong, ctypes.c_ulong, ctypes.c_ulong)
    _libc.unshare.argtypes = (ctypes.c_int,)
    _libc.mount.argtypes = (
        ctypes.c_char_p,
        ctypes.c_char_p,
        ctypes.c_char_p,
        ctypes.c_ulong,
        ctypes.c_void_p,
    )


def die_with_parent(parent: int) -> None:
    """Have the kernel kill this process when the thread that forked it ends; exit at once when `parent` is
    gone.

    Must come after every change of credentials (they clear the setting). It survives exec, but not fork."""
    if sys.platform != "linux":
        return
    _prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != parent:
        os._exit(1)


def is_stopped(pid: int) -> bool:
    """Whether a signal has stopped this process (SIGSTOP), as `ps` shows with ``T``. A process under a
    debugger is not; False elsewhere than on Linux and for a process that has ended."""
    if sys.platform != "linux":
        return False
    try:
        stat = Path(f"/proc/{pid}/stat").read_bytes()
    except (FileNotFoundError, ProcessLookupError):
        return False
    # The name before the state is in parentheses and may hold anything, parentheses included.
    return stat.rpartition(b")")[2].split()[:1] == [b"T"]


def no_new_privileges() -> None:
    """Neither this process nor its descendants can gain rights through setuid programs."""
    if sys.platform == "linux":
        _prctl(_PR_SET_NO_NEW_PRIVS, 1)


def unshare(flags: int) -> None:
    """Leave the namespaces named by `flags` for new ones."""
    _check(_libc.unshare(flags), "unshare")


def make_mounts_private() -> None:
    """Nothing that is mounted here from now on is seen in the namespace this one was copied from."""
    _check(_libc.mount(b"none", b"/", None, MS_REC | MS_PRIVATE, None), "mount / private")


def bind(source: bytes, target: bytes) -> None:
    """Show the tree at `source` at `target`."""
    _check(_libc.mount(source, target, None, MS_BIND | MS_REC, None), "bind mount")


def kept_flags(path: Path) -> int:
    """The mount flags of `path` that a new mount of it keeps: a user namespace may not take them off."""
    found = os.statvfs(path).f_flag
    return sum(mount for statvfs, mount in _MOUNT_FLAGS.items() if found & statvfs)


def bind_read_only(path: bytes, flags: int) -> None:
    """Show the tree at `path` as it is, but let nothing be written there. `flags` are its `kept_flags`."""
    bind(path, path)
    remount = MS_REMOUNT | MS_BIND | MS_RDONLY | flags
    _check(_libc.mount(b"none", path, None, remount, None), "mount read-only")


def _prctl(option: int, value: int) -> None:
    _check(_libc.prctl(option, value, 0, 0, 0), "prctl")


def _check(result: int, what: str) -> None:
    if result != 0:
        number = ctypes.get_errno()
        raise OSError(number, f"{what}: {os.strerror(number)}")

"""System calls that Python has no function for. Standard library only; every function raises OSError that
names the call.

The C library is called without giving up the interpreter lock: who uses this has one thread, and a cloned
child must go on holding the lock.
"""

from __future__ import annotations

import ctypes
import os
import platform
import struct
import sys
from pathlib import Path

MS_RDONLY, MS_NOSUID, MS_NODEV, MS_NOEXEC = 0x1, 0x2, 0x4, 0x8
MS_BIND, MS_REC, MS_PRIVATE, MS_SHARED = 0x1000, 0x4000, 0x4_0000, 0x10_0000
MNT_DETACH = 2
CLONE_PARENT = 0x8000
CLONE_NEWNS = 0x0002_0000
CLONE_NEWUSER = 0x1000_0000
CELL_NAMESPACES = CLONE_NEWUSER | CLONE_NEWNS | 0x6E00_0000
"""User, mount, cgroup, uts, ipc, pid and net."""
ATTR_RDONLY, ATTR_NOSUID, ATTR_NODEV, ATTR_NOEXEC = 0x1, 0x2, 0x4, 0x8
SYS_LANDLOCK_CREATE_RULESET, SYS_LANDLOCK_ADD_RULE, SYS_LANDLOCK_RESTRICT_SELF = 444, 445, 446
PR_SET_PDEATHSIG, PR_SET_DUMPABLE, PR_SET_NAME, PR_SET_SECCOMP, PR_CAPBSET_DROP = 1, 4, 15, 22, 24
PR_SET_NO_NEW_PRIVS, PR_CAP_AMBIENT = 38, 47
_SYS_OPEN_TREE, _SYS_MOVE_MOUNT, _SYS_MOUNT_SETATTR = 428, 429, 442
_OPEN_TREE_CLONE, _MOVE_MOUNT_F_EMPTY_PATH, _ATTR_IDMAP = 1, 4, 0x10_0000
_SYS_PIVOT_ROOT = {"x86_64": 155, "aarch64": 41}
_SYS_CLONE = {"x86_64": 56, "aarch64": 220}
_SYS_CAPSET = {"x86_64": 126, "aarch64": 91}
_SIGCHLD = 17
_AT_FDCWD, _AT_EMPTY_PATH, _AT_RECURSIVE = -100, 0x1000, 0x8000
_CAP_VERSION_3 = 0x2008_0522
_CAP_AMBIENT_CLEAR_ALL = 4
_SIOCSIFFLAGS = 0x8914
_IFF_UP_RUNNING = 0x41

MACHINE = platform.machine()
_LAST_CAPABILITY = int(Path("/proc/sys/kernel/cap_last_cap").read_text()) if sys.platform == "linux" else 0
_libc = ctypes.PyDLL(None, use_errno=True)
_libc.syscall.restype = ctypes.c_long


def supported() -> bool:
    """Whether the numbers of this machine's system calls are known here."""
    return MACHINE in _SYS_CLONE


def call(name: str, number: int, *arguments: int | bytes | None) -> int:
    """A system call by its number."""
    result: int = _libc.syscall(ctypes.c_long(number), *map(_argument, arguments))
    if result < 0:
        code = ctypes.get_errno()
        raise OSError(code, f"{name}: {os.strerror(code)}")
    return result


def mount(source: str, target: str, kind: str, flags: int, data: str = "") -> None:
    words = (source.encode(), target.encode(), kind.encode(), ctypes.c_ulong(flags), data.encode() or None)
    _checked(f"mount {source} at {target}", _libc.mount(*words))


def bind(source: str, target: str, attributes: int) -> None:
    """Show the tree at `source` at `target`, with mount attributes on all of it."""
    mount(source, target, "", MS_BIND | MS_REC)
    set_attributes(target, attributes)


def set_attributes(target: str, attributes: int) -> None:
    """Add mount attributes to `target` and what is mounted below it (Linux 5.12)."""
    wanted = struct.pack("QQQQ", attributes, 0, 0, 0)
    call(
        f"mount_setattr {target}",
        _SYS_MOUNT_SETATTR,
        _AT_FDCWD,
        target.encode(),
        _AT_RECURSIVE,
        wanted,
        len(wanted),
    )


def bind_as(source: str, target: str, attributes: int, user_namespace: int) -> None:
    """Like `bind`, and what belongs to a user that `user_namespace` maps is seen as that user's counterpart.
    Raise OSError, also for a file system that cannot do this."""
    tree = call(
        f"open_tree {source}", _SYS_OPEN_TREE, _AT_FDCWD, source.encode(), _OPEN_TREE_CLONE | _AT_RECURSIVE
    )
    try:
        wanted = struct.pack("QQQQ", attributes | _ATTR_IDMAP, 0, 0, user_namespace)
        flags = _AT_EMPTY_PATH | _AT_RECURSIVE
        call(f"mount_setattr {source}", _SYS_MOUNT_SETATTR, tree, b"", flags, wanted, len(wanted))
        where = (_AT_FDCWD, target.encode())
        call(f"move_mount {target}", _SYS_MOVE_MOUNT, tree, b"", *where, _MOVE_MOUNT_F_EMPTY_PATH)
    finally:
        os.close(tree)


def set_propagation(target: str, flag: int) -> None:
    mount("none", target, "", flag)


def detach(target: str) -> None:
    _checked(f"umount {target}", _libc.umount2(target.encode(), MNT_DETACH))


def pivot_root(new: str, old: str) -> None:
    call(f"pivot_root {new}", _SYS_PIVOT_ROOT[MACHINE], new.encode(), old.encode())


def unshare(flags: int) -> None:
    _checked("unshare", _libc.unshare(flags))


def clone(flags: int) -> int:
    """Fork into new namespaces. 0 in the child; for a process with one thread only."""
    return call("clone", _SYS_CLONE[MACHINE], flags | _SIGCHLD, 0, 0, 0, 0)


def prctl(name: str, option: int, *arguments: int | bytes) -> None:
    padded = (*arguments, 0, 0, 0, 0)[:4]
    _checked(f"prctl {name}", _libc.prctl(option, *map(_argument, padded)))


def drop_capabilities() -> None:
    """Give up all of them, for this process and for what it executes."""
    prctl("ambient", PR_CAP_AMBIENT, _CAP_AMBIENT_CLEAR_ALL)
    for capability in range(_LAST_CAPABILITY + 1):
        prctl("drop bounding set", PR_CAPBSET_DROP, capability)
    header = struct.pack("Ii", _CAP_VERSION_3, 0)
    call("capset", _SYS_CAPSET[MACHINE], header, bytes(24))


def set_hostname(name: bytes) -> None:
    _checked("sethostname", _libc.sethostname(name, ctypes.c_size_t(len(name))))
    _checked("setdomainname", _libc.setdomainname(b"", ctypes.c_size_t(0)))


def bring_loopback_up(descriptor: int) -> None:
    """`descriptor`: any internet socket of the network namespace."""
    request = ctypes.create_string_buffer(struct.pack("16sH", b"lo", _IFF_UP_RUNNING), 40)
    _checked("loopback", _libc.ioctl(descriptor, ctypes.c_ulong(_SIOCSIFFLAGS), request))


def address_of(data: ctypes.Array[ctypes.c_char]) -> int:
    return ctypes.addressof(data)


def _argument(value: int | bytes | None) -> ctypes.c_long | bytes | None:
    return ctypes.c_long(value) if isinstance(value, int) else value


def _checked(name: str, result: int) -> None:
    if result != 0:
        code = ctypes.get_errno()
        raise OSError(code, f"{name}: {os.strerror(code)}")

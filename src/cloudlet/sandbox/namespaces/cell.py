"""What a cloned cell does until it is the runtime. Standard library only.

The clone is the first process of its namespaces. It makes its mounts and its network, forks the runtime's
process, gives up its rights and then only waits: for the runtime's end, which it reports, and for orphans.
(The runtime is not the first process itself, because the kernel does not deliver to that one the signals it
sends itself.) Whatever fails ends the cell, and the node is told which step it was.
"""

from __future__ import annotations

import fcntl
import os
import resource
import signal
import socket
import struct
from collections.abc import Mapping
from dataclasses import dataclass
from typing import NoReturn

from . import image, kernel, landlock, messages, seccomp
from .messages import CODE, FAILED, READY, USER_ID, CellRequest, Setting

BACKLOG = 128
_HIGH = 64
"""Descriptors wait up here, out of the way of the numbers they will get."""
_SETUP = 6
_LAST = 0xFFFF_FFFF
_MESSAGE_QUEUE_BYTES = 819_200
_SYS_CLOSE_RANGE = 436
_FLAGS = kernel.MS_NOSUID | kernel.MS_NODEV


@dataclass(frozen=True, slots=True)
class Layers:
    """What was found out and computed once for all cells."""

    landlock: int
    """The kernel's version of it."""
    filters: Mapping[str, bytes]
    """Runtime → system call filter."""


def layers() -> Layers:
    return Layers(landlock.abi(), {runtime: seccomp.program(runtime) for runtime in ("node", "python")})


def become(
    request: CellRequest, setting: Setting, layers: Layers, descriptors: dict[str, int], allowed: int
) -> NoReturn:
    """Run the cell in this process, a fresh clone; `allowed` is readable once its ids are mapped."""
    try:
        if os.read(allowed, 1) == b"g":
            _first_process(request, setting, layers, descriptors)
    except BaseException as error:
        _tell_failure(descriptors["setup"], error)
    os._exit(1)


def _first_process(
    request: CellRequest, setting: Setting, layers: Layers, descriptors: dict[str, int]
) -> None:
    os.setsid()
    _take_ids(request)
    # After every change of credentials, which clear the first and may undo the second.
    kernel.prctl("death signal", kernel.PR_SET_PDEATHSIG, signal.SIGKILL)
    kernel.prctl("dumpable", kernel.PR_SET_DUMPABLE, 0)
    kernel.prctl("name", kernel.PR_SET_NAME, b"cell\0")
    _change_root(request, setting)
    kernel.set_hostname(image.HOSTNAME.encode())
    door = _open_door()
    parts = (os.open("/proc", os.O_RDONLY | os.O_DIRECTORY), os.open("/tmp", os.O_PATH), door.fileno())  # noqa: S108
    # Nobody needs a right from here on.
    kernel.drop_capabilities()
    kernel.prctl("no_new_privs", kernel.PR_SET_NO_NEW_PRIVS, 1)
    runtime = os.fork()
    if runtime == 0:
        _runtime(request, layers, descriptors, parts)
    _wait(runtime, descriptors["status"])


def _take_ids(request: CellRequest) -> None:
    if request.user:
        os.setgroups([])
    os.setresgid(USER_ID, USER_ID, USER_ID)
    os.setresuid(USER_ID, USER_ID, USER_ID)


def _change_root(request: CellRequest, setting: Setting) -> None:
    # Bound to itself, because what came from the namespace before cannot be a root.
    kernel.mount("/image", "/image", "", kernel.MS_BIND | kernel.MS_REC)
    kernel.mount("proc", "/image/proc", "proc", _FLAGS | kernel.MS_NOEXEC, "hidepid=2")
    limits = f"size={setting.tmp_bytes},nr_inodes={setting.tmp_files}"
    owner = f"mode=0700,uid={USER_ID},gid={USER_ID}"
    kernel.mount("tmp", "/image/tmp", "tmpfs", _FLAGS, f"{limits},{owner}")
    for number, path in enumerate(image.below_tmp(setting)):
        image.show_again(f"/image{image.SHOWN}/{number}", f"/image{path}")
    kernel.mount(f"/stage/{request.cell}", f"/image{CODE}", "", kernel.MS_BIND)
    os.chdir("/image")
    kernel.pivot_root(".", ".")
    kernel.detach(".")
    os.chdir("/tmp")  # noqa: S108


def _open_door() -> socket.socket:
    """Bring up the loopback, and listen there for what the function says to the platform."""
    door = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
    kernel.bring_loopback_up(door.fileno())
    door.bind(("127.0.0.1", 0))
    door.listen(BACKLOG)
    return door


def _wait(runtime: int, status: int) -> None:
    """Reap until the runtime has ended, and tell how. The end of this process ends all others of the cell."""
    os.dup2(status, 0)
    kernel.call("close_range", _SYS_CLOSE_RANGE, 1, _LAST, 0)
    while True:
        pid, how = os.wait()
        if pid == runtime:
            os.write(0, struct.pack("i", how))
            os._exit(0)


def _runtime(
    request: CellRequest, layers: Layers, descriptors: dict[str, int], parts: tuple[int, ...]
) -> NoReturn:
    setup = descriptors["setup"]
    try:
        _arrange(descriptors, parts)
        setup = _SETUP
        _limit(request)
        os.setsid()
        os.umask(0o077)
        for number in (signal.SIGPIPE, signal.SIGXFSZ):
            signal.signal(number, signal.SIG_DFL)
        landlock.restrict(layers.landlock, ("/tmp",), [f"/dev/{name}" for name in image.DEVICES])  # noqa: S108
        seccomp.install(layers.filters[request.runtime])
        os.execve(request.command[0], tuple(request.command), request.environment)  # noqa: S606 - what a cell is
    except BaseException as error:
        _tell_failure(setup, error)
    os._exit(1)


def _arrange(descriptors: dict[str, int], parts: tuple[int, ...]) -> None:
    """Descriptors 0 to 5 as the contract has them, the setup socket until exec, nothing else."""
    names = ("stdout", "stderr", "listener", "control", "page")
    high = [fcntl.fcntl(descriptors[name], fcntl.F_DUPFD_CLOEXEC, _HIGH) for name in (*names, "setup")]
    high_parts = [fcntl.fcntl(part, fcntl.F_DUPFD_CLOEXEC, _HIGH) for part in parts]
    nothing = fcntl.fcntl(os.open("/dev/null", os.O_RDWR), fcntl.F_DUPFD_CLOEXEC, _HIGH)
    os.dup2(high[-1], _SETUP, inheritable=False)
    with socket.socket(fileno=os.dup(_SETUP)) as setup:
        messages.send(setup, READY, high_parts)
    for number, source in enumerate((nothing, *high[:-1])):
        os.dup2(source, number, inheritable=True)
    kernel.call("close_range", _SYS_CLOSE_RANGE, _SETUP + 1, _LAST, 0)


def _limit(request: CellRequest) -> None:
    bounds = (
        (resource.RLIMIT_CORE, 0),
        (resource.RLIMIT_NOFILE, request.files_max),
        (resource.RLIMIT_FSIZE, request.file_bytes_max),
        # The cell's first process counts, too.
        (resource.RLIMIT_NPROC, request.processes_max + 1),
        (resource.RLIMIT_MSGQUEUE, _MESSAGE_QUEUE_BYTES),
        (resource.RLIMIT_SIGPENDING, 4 * request.processes_max),
        (resource.RLIMIT_RTPRIO, 0),
    )
    for name, value in bounds:
        hard = resource.getrlimit(name)[1]
        at_most = value if hard == resource.RLIM_INFINITY else min(value, hard)
        resource.setrlimit(name, (at_most, at_most))


def _tell_failure(setup: int, error: BaseException) -> None:
    text = str(error.args[-1]) if isinstance(error, OSError) and not error.filename else str(error)
    os.write(setup, FAILED + text.encode(errors="replace")[:4000])

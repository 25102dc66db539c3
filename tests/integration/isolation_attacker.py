"""What a hostile function tries, as a stand-in for a runtime.

It gets its targets and the names of attacks as one line of JSON on the control channel and answers with one
line, attack → outcome. Outcomes are error numbers, 0 for success, or facts. Each attack has a process of its
own. Some would harm the host without a sandbox: they run only when named. Standard library only."""

# ruff: noqa: PTH108, PTH123, PTH208, SIM115
# An attack is a bare system call, without pathlib between.

import contextlib
import ctypes
import json
import os
import platform
import signal
import socket
import sys
import time
from collections.abc import Callable
from typing import Any

FORKS, FILES = 200, 5000
LIBC = ctypes.CDLL(None, use_errno=True)
LIBC.syscall.restype = ctypes.c_long
X86 = platform.machine() == "x86_64"
CALLS = {
    # name: number on x86_64, on aarch64, arguments that do no harm where the call is allowed
    "mount": (165, 40, (b"none", b"/tmp", b"tmpfs", 0, 0)),
    "umount": (166, 39, (b"/no/such/place", 0)),
    "pivot_root": (155, 41, (b".", b".")),
    "chroot": (161, 51, (b"/",)),
    "unshare": (272, 97, (0x1000_0000,)),
    "clone_newuser": (56, 220, (0x1000_0000 | 17, 0, 0, 0, 0)),
    "setns": (308, 268, (-1, 0)),
    "ptrace": (101, 117, (0, 0, 0, 0)),
    "process_vm_readv": (310, 270, (os.getpid(), 0, 0, 0, 0, 0)),
    "keyctl": (250, 219, (0, -3, 0)),
    "add_key": (248, 217, (b"user", b"a", b"b", 1, -2)),
    "bpf": (321, 280, (99, 0, 0)),
    "io_uring": (425, 425, (1, bytes(120))),
    "userfaultfd": (323, 282, (0,)),
    "perf_event_open": (298, 241, (bytes(128), 0, -1, -1, 0)),
    "open_by_handle_at": (304, 265, (-1, 0, 0)),
    "fsopen": (430, 430, (b"tmpfs", 0)),
    "clone3": (435, 435, (0, 0)),
    "personality": (135, 92, (0xFFFF_FFFF,)),
    "init_module": (175, 105, (0, 0, b"")),
}


def main() -> None:
    control = socket.socket(fileno=4)
    control.sendall(b'{"event":"booted"}\n')
    targets = json.loads(control.makefile("r").readline())
    if targets.get("daemon"):
        leave_a_child_behind()
        control.sendall(b"{}\n")
        time.sleep(3600)
    if targets.get("hoard"):
        with open(os.environ["TMPDIR"] + "/hoard", "wb") as file:
            file.write(bytes(targets["hoard"]))
        if os.fork() == 0:
            time.sleep(3600)
        control.sendall(b"{}\n")
        time.sleep(3600)
    attacks = {**{name: calling(*call) for name, call in CALLS.items()}, **attacks_on(targets)}
    outcomes = {name: alone(attacks[name]) for name in targets["attacks"]}
    control.sendall(json.dumps(outcomes).encode() + b"\n")
    time.sleep(3600)


def alone(attack: Callable[[], Any]) -> Any:
    """The outcome of an attack in a process of its own."""
    read, write = os.pipe()
    child = os.fork()
    if child == 0:
        try:
            outcome = attack()
        except OSError as error:
            outcome = error.errno
        except BaseException as error:
            outcome = repr(error)
        os.write(write, json.dumps(outcome).encode())
        os._exit(0)
    os.close(write)
    with open(read) as answer:
        text = answer.read()
    _, status = os.waitpid(child, 0)
    return json.loads(text) if text else f"ended with {os.waitstatus_to_exitcode(status)}"


def calling(x86: int, arm: int, arguments):  # type: ignore[no-untyped-def]
    def attack() -> int:
        words = [ctypes.c_long(each) if isinstance(each, int) else each for each in arguments]
        result = LIBC.syscall(ctypes.c_long(x86 if X86 else arm), *words)
        if result == 0 and arguments[0] == 0x1000_0000 | 17:
            os._exit(0)  # the clone
        return ctypes.get_errno() if result < 0 else 0

    return attack


def attacks_on(targets: dict[str, Any]) -> dict[str, Callable[[], Any]]:
    pid = targets["pid"]
    return {
        "signal another process": lambda: done(os.kill, pid, 0),
        "environment of another process": lambda: reading(f"/proc/{pid}/environ"),
        "memory of another process": lambda: opening(f"/proc/{pid}/mem"),
        "first process": lambda: reading("/proc/1/cmdline"),
        "processes seen": lambda: sorted(int(name) for name in os.listdir("/proc") if name.isdigit()),
        "code of another function": lambda: reading(targets["other_code"]),
        "file of the host": lambda: reading(targets["host_file"]),
        "admin socket": lambda: connecting(socket.AF_UNIX, targets["unix"]),
        "abstract socket": lambda: connecting(socket.AF_UNIX, "\0" + targets["abstract"]),
        "loopback of the host": lambda: connecting(socket.AF_INET, ("127.0.0.1", targets["port"])),
        "metadata address": lambda: connecting(socket.AF_INET, ("169.254.169.254", 80)),
        "raw socket": lambda: making(socket.AF_INET, socket.SOCK_RAW, 1),
        "packet socket": lambda: making(17, socket.SOCK_RAW, 0),
        "netfilter": lambda: making(socket.AF_NETLINK, socket.SOCK_RAW, 12),
        "kernel crypto": lambda: making(38, socket.SOCK_SEQPACKET, 0),
        "write code": lambda: writing(targets["code"] + "/index.py"),
        "add code": lambda: writing(targets["code"] + "/new.py"),
        "write a program": lambda: writing(sys.executable),
        "write to etc": lambda: writing("/etc/passwd"),
        "write to the root": lambda: writing("/new"),
        "kernel setting": lambda: writing("/proc/sys/kernel/core_pattern", ""),
        "device": lambda: done(os.mknod, os.environ["TMPDIR"] + "/d", 0o20600, os.makedev(1, 1)),
        "become root": lambda: done(os.setuid, 0),
        "interfaces": lambda: [name for _, name in socket.if_nameindex()],
        "fork bomb": fork_bomb,
        "full tmp": full_tmp,
        "many files": many_files,
        "many descriptors": many_descriptors,
        "descriptors": descriptors,
        "hostname": lambda: [socket.gethostname(), open("/etc/hostname").read().strip()],
        "environment": lambda: sorted(os.environ),
        "status": status,
        "user": lambda: [os.getuid(), os.getgid()],
        "devices": lambda: sorted(os.listdir("/dev")),
    }


def done(call: Callable[..., None], *arguments: object) -> int:
    call(*arguments)
    return 0


def reading(path: str) -> int:
    with open(path, "rb") as file:
        file.read(1)
    return 0


def opening(path: str) -> int:
    os.close(os.open(path, os.O_RDWR))
    return 0


def writing(path: str, text: str = "changed") -> int:
    with open(path, "a") as file:
        file.write(text)
    return 0


def connecting(family: int, address) -> int:  # type: ignore[no-untyped-def]
    with socket.socket(family) as client:
        client.settimeout(2)
        client.connect(address)
    return 0


def making(family: int, kind: int, protocol: int) -> int:
    socket.socket(family, kind, protocol).close()
    return 0


def fork_bomb():  # type: ignore[no-untyped-def]
    children = []
    error = 0
    try:
        for _ in range(FORKS):
            child = os.fork()
            if child == 0:
                time.sleep(3600)
                os._exit(0)
            children.append(child)
    except OSError as problem:
        error = problem.errno or -1
    for child in children:
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)
    return [error, len(children)]


def full_tmp():  # type: ignore[no-untyped-def]
    path, written = os.environ["TMPDIR"] + "/big", 0
    descriptor = os.open(path, os.O_CREAT | os.O_WRONLY)
    try:
        while written < 8 * 1024 * 1024:
            written += os.write(descriptor, bytes(65536))
        return [0, written]
    except OSError as problem:
        return [problem.errno, written]
    finally:
        os.unlink(path)


def many_files():  # type: ignore[no-untyped-def]
    made, error = 0, 0
    try:
        for made in range(FILES):
            os.close(os.open(f"{os.environ['TMPDIR']}/f{made}", os.O_CREAT | os.O_WRONLY))
    except OSError as problem:
        error = problem.errno or -1
    for number in range(made):
        os.unlink(f"{os.environ['TMPDIR']}/f{number}")
    return [error, made]


def many_descriptors():  # type: ignore[no-untyped-def]
    count = 0
    try:
        while count < 5000:
            os.open("/dev/null", os.O_RDONLY)
            count += 1
    except OSError as problem:
        return [problem.errno, count]
    return [0, count]


def descriptors():  # type: ignore[no-untyped-def]
    found = []
    for number in range(1024):
        with contextlib.suppress(OSError):
            os.fstat(number)
            found.append(number)
    return found[:6]


def status():  # type: ignore[no-untyped-def]
    wanted = ("CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb", "NoNewPrivs", "Seccomp", "Groups")
    rows = (line.partition(":") for line in open("/proc/self/status"))
    return {name: value.strip() for name, _, value in rows if name in wanted}


def leave_a_child_behind() -> None:
    """In a session of its own, deaf to what can be ignored, holding standard output."""
    if os.fork() == 0:
        os.setsid()
        for number in (signal.SIGHUP, signal.SIGTERM, signal.SIGINT):
            signal.signal(number, signal.SIG_IGN)
        if os.fork():
            os._exit(0)
        os.close(4)
        time.sleep(3600)


main()

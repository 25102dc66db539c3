"""The root that cells see, built once in the launcher's own mount namespace. Standard library only.

Afterwards the launcher sees nothing of the host but this::

    /image    the cells' root: read-only binds in a read-only file system
    /code/N   the code roots, read-only
    /stage    shared: what is mounted at /stage/CELL appears at /code of that cell
    /proc     the host's, through which the ids of a cell's user namespace are set
"""

from __future__ import annotations

import os
from collections.abc import Iterable
from pathlib import Path

from . import kernel
from .messages import CODE, USER_ID, Setting

HOSTNAME = "cell"
DEVICES = ("null", "zero", "full", "random", "urandom")
_BASE = "/tmp"  # noqa: S108 - any directory that is there: the new root is mounted over it for a moment
_OLD = "/old"
_LINKS = {
    "dev/fd": "/proc/self/fd",
    "dev/stdin": "/proc/self/fd/0",
    "dev/stdout": "/proc/self/fd/1",
    "dev/stderr": "/proc/self/fd/2",
    "dev/shm": "/tmp",  # noqa: S108 - the cell's own
    "var/tmp": "/tmp",  # noqa: S108
}
_SYSTEM = ("/usr/bin", "/usr/lib", "/usr/lib32", "/usr/lib64", "/usr/libx32", "/usr/share/zoneinfo")
"""Programs and shared libraries of the host, which a runtime and what it executes need."""
_TOP = ("/bin", "/sbin", "/lib", "/lib32", "/lib64", "/libx32")
"""Links into ``/usr`` on most systems, directories on others."""
_CONFIGURATION = (
    "/etc/ld.so.cache",
    "/etc/localtime",
    "/etc/alternatives",
    "/etc/ssl/certs",
    "/etc/ssl/openssl.cnf",
    "/etc/pki/tls/certs",
    "/etc/pki/ca-trust/extracted",
    "/usr/share/ca-certificates",
)
_FILES = {
    "etc/passwd": f"function:x:{USER_ID}:{USER_ID}::/tmp:/bin/sh\nnobody:x:65534:65534::/:/bin/false\n",
    "etc/group": f"function:x:{USER_ID}:\nnogroup:x:65534:\n",
    "etc/hosts": f"127.0.0.1 localhost {HOSTNAME}\n::1 localhost\n",
    "etc/hostname": f"{HOSTNAME}\n",
    "etc/resolv.conf": "",
    "etc/nsswitch.conf": "passwd: files\ngroup: files\nhosts: files dns\n",
}
READ_ONLY = kernel.ATTR_RDONLY | kernel.ATTR_NOSUID
SHOWN = "/shown"
"""Where what is visible below ``/tmp`` waits for the cell's own ``/tmp``."""


def enter(setting: Setting) -> None:
    """Build it and leave the host's root. The caller has a mount namespace of its own and, unless root, a
    user namespace. Raise OSError."""
    kernel.set_propagation("/", kernel.MS_REC | kernel.MS_PRIVATE)
    kernel.mount("base", _BASE, "tmpfs", kernel.MS_NOSUID | kernel.MS_NODEV, "mode=0755,size=1m")
    os.mkdir(f"{_BASE}{_OLD}")  # noqa: PTH102 - as few imports as can be run in the launcher
    kernel.pivot_root(_BASE, f"{_BASE}{_OLD}")
    os.chdir("/")
    for name in ("image", "code", "stage", "proc"):
        Path("/", name).mkdir(mode=0o755)
    _build(Path("/image"), setting)
    for number, root in enumerate(setting.code):
        _show(root, Path("/code", str(number)), READ_ONLY | kernel.ATTR_NODEV)
    kernel.mount("stage", "/stage", "tmpfs", kernel.MS_NOSUID | kernel.MS_NODEV, "mode=0755,size=1m")
    kernel.set_propagation("/stage", kernel.MS_SHARED)
    # A user namespace gets a /proc of its own only where one is seen already, whole.
    kernel.mount(f"{_OLD}/proc", "/proc", "", kernel.MS_BIND | kernel.MS_REC)
    kernel.detach(_OLD)
    Path(_OLD).rmdir()


def below_tmp(setting: Setting) -> list[str]:
    """What is visible below ``/tmp``, where each cell mounts its own."""
    return [path for path in outermost(setting.visible) if path.startswith("/tmp/")]  # noqa: S108


def show_again(source: str, target: str) -> None:
    """Bind what is in the image already, made read-only there. Raise OSError."""
    _place(source, Path(target))
    kernel.mount(source, target, "", kernel.MS_BIND | kernel.MS_REC)


def _build(image: Path, setting: Setting) -> None:
    # NODEV for what is made here; the binds of devices have flags of their own.
    kernel.mount("image", str(image), "tmpfs", kernel.MS_NOSUID | kernel.MS_NODEV, "mode=0755,size=4m")
    for name in ("proc", "tmp", CODE[1:], "dev", "etc", "var"):
        (image / name).mkdir(mode=0o755)
    for name, text in _FILES.items():
        (image / name).write_text(text)
    for device in DEVICES:
        _show(f"/dev/{device}", image / "dev" / device, kernel.ATTR_RDONLY | kernel.ATTR_NOSUID)
    for name, target in _LINKS.items():
        (image / name).symlink_to(target)
    for path in _TOP:
        _link_or_show(path, image)
    hidden = below_tmp(setting)
    for number, path in enumerate(hidden):
        _show(path, image / SHOWN[1:] / str(number), READ_ONLY | kernel.ATTR_NODEV)
    for path in outermost((*_SYSTEM, *_CONFIGURATION, *setting.visible)):
        if path not in hidden and os.path.exists(_OLD + path):  # noqa: PTH110
            _show(path, image / path[1:], READ_ONLY | kernel.ATTR_NODEV)
    kernel.set_attributes(str(image), kernel.ATTR_RDONLY | kernel.ATTR_NOSUID)


def outermost(paths: Iterable[str]) -> list[str]:
    """Without those that are inside another, the shortest first."""
    kept: list[str] = []
    for path in sorted(set(paths), key=len):
        if not any(path.startswith(f"{outer}/") for outer in kept):
            kept.append(path)
    return kept


def _link_or_show(path: str, image: Path) -> None:
    old = Path(_OLD + path)
    if old.is_symlink():
        (image / path[1:]).symlink_to(old.readlink())
    elif old.is_dir():
        _show(path, image / path[1:], READ_ONLY | kernel.ATTR_NODEV)


def _show(path: str, target: Path, attributes: int) -> None:
    """Bind what the host has at `path`, following links as the host's root has them."""
    source = _resolved(path)
    _place(source, target)
    kernel.bind(source, str(target), attributes)


def _place(source: str, target: Path) -> None:
    """Make what `source` can be bound to."""
    target.parent.mkdir(mode=0o755, parents=True, exist_ok=True)
    if Path(source).is_dir():
        target.mkdir(mode=0o755, exist_ok=True)
    else:
        target.touch()


def _resolved(path: str) -> str:
    """`path` below the old root. The links on the way are the host's, so they start from its root."""
    parts = [part for part in reversed(path.split("/")) if part]
    found, links = "", 0
    while parts:
        part = parts.pop()
        if part == "..":
            found = found.rpartition("/")[0]
            continue
        step = f"{found}/{part}"
        if not os.path.islink(_OLD + step):  # noqa: PTH114
            found = step
            continue
        links += 1
        if links > 40:
            raise OSError(40, f"too many links: {path}")
        to = os.readlink(_OLD + step)  # noqa: PTH115
        found = "" if to.startswith("/") else found
        parts += [each for each in reversed(to.split("/")) if each not in ("", ".")]
    return _OLD + found

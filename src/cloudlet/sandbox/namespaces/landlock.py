"""What a cell may do with files, as the kernel checks it beside mounts and modes (Landlock). Standard library
only.

Rules hold for files, for signals and for abstract sockets. The network has none: its namespace is the
boundary.
"""

from __future__ import annotations

import os
import struct
from collections.abc import Iterable

from . import kernel

ABI_MIN = 2
"""With the first, nothing could be renamed from one directory to another."""
_EXECUTE, _WRITE_FILE, _READ_FILE, _READ_DIR = 1 << 0, 1 << 1, 1 << 2, 1 << 3
_MAKE_CHAR, _MAKE_BLOCK = 1 << 6, 1 << 11
_IOCTL_DEV = 1 << 15
_RIGHTS = {2: (1 << 14) - 1, 3: (1 << 15) - 1, 4: (1 << 15) - 1, 5: (1 << 16) - 1}
"""All rights on files that an ABI knows; later ones know those of 5."""
_SCOPES = 0b11
"""Abstract sockets and signals (ABI 6)."""
_ABI_QUESTION = 1
_RULE_PATH_BENEATH = 1


def abi() -> int:
    """The kernel's version of Landlock; 0 when it has none or it is off."""
    try:
        return kernel.call("landlock", kernel.SYS_LANDLOCK_CREATE_RULESET, None, 0, _ABI_QUESTION)
    except OSError:
        return 0


def restrict(version: int, writable: Iterable[str], devices: Iterable[str]) -> None:
    """Let this process and its descendants read and execute everything they see, and change only what is
    below `writable`; read and write `devices`. Needs no_new_privs; does nothing below ABI_MIN. Raise
    OSError."""
    if version < ABI_MIN:
        return
    rights = _RIGHTS[min(version, max(_RIGHTS))]
    attributes = struct.pack("QQQ", rights, 0, _SCOPES if version >= 6 else 0)
    size = 24 if version >= 6 else 16 if version >= 4 else 8
    ruleset = kernel.call("landlock", kernel.SYS_LANDLOCK_CREATE_RULESET, attributes, size, 0)
    _allow(ruleset, "/", _EXECUTE | _READ_FILE | _READ_DIR)
    for path in writable:
        _allow(ruleset, path, rights & ~(_MAKE_CHAR | _MAKE_BLOCK | _IOCTL_DEV))
    for path in devices:
        _allow(ruleset, path, (_READ_FILE | _WRITE_FILE | _IOCTL_DEV) & rights)
    kernel.call("landlock_restrict_self", kernel.SYS_LANDLOCK_RESTRICT_SELF, ruleset, 0)
    os.close(ruleset)


def _allow(ruleset: int, path: str, rights: int) -> None:
    descriptor = os.open(path, os.O_PATH | os.O_CLOEXEC)
    rule = struct.pack("=Qi", rights, descriptor)
    kernel.call(
        f"landlock_add_rule {path}", kernel.SYS_LANDLOCK_ADD_RULE, ruleset, _RULE_PATH_BENEATH, rule, 0
    )
    os.close(descriptor)

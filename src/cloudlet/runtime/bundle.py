"""The shims as the node uses them: where they are, how they are started, what they are told to load.

Pure functions of values; nothing here starts a process or reads a setting.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from cloudlet.model.function import Runtime, Version

LATEST = "$LATEST"
REGION_DEFAULT = "ap-shanghai"
"""The vendors' SDKs want some region; they use it only for addresses that `TCB_CONTEXT_CNFG` replaces."""

_HERE = Path(__file__).resolve().parent
_SHIMS = {"node": _HERE / "node" / "shim.mjs", "python": _HERE / "python" / "shim.py"}

_NODE_BASE_MB = 48
"""What Node.js needs beside its heap: code, stacks, buffers (measured: about 45 MB for an empty function)."""
_NODE_HEAP_MB_MIN = 32

INVOCATION_VARIABLES = frozenset(
    {
        "TCB_CONTEXT_KEYS",
        "WX_CONTEXT_KEYS",
        "TCB_ENV",
        "TCB_SEQID",
        "TRIGGER_SRC",
        "TCB_SESSIONTOKEN",
        "TCB_SOURCE",
        "TCB_UUID",
        "TCB_ISANONYMOUS_USER",
        "TCB_SOURCE_IP",
        "LOGINTYPE",
        "WX_APPID",
        "WX_OPENID",
        "WX_UNIONID",
        "WX_API_TOKEN",
        "WX_CLIENTIP",
    }
)
"""Names that the shims set for each invocation (contract, section 3)."""

_NEVER_SET = frozenset({"KUBERNETES_SERVICE_HOST"})
"""The SDKs take a machine that has it for a container of the vendor's."""


@dataclass(frozen=True, slots=True)
class InstanceCredentials:
    """What the SDKs inside one instance sign with; worth nothing anywhere else."""

    secret_id: str
    secret_key: str
    session_token: str


def shim_path(runtime: Runtime) -> Path:
    """The file that the interpreter of `runtime` runs. Its directory must be readable inside the sandbox."""
    return _SHIMS[runtime.language]


def command(runtime: Runtime, interpreter: str, memory_mb: int) -> list[str]:
    """The command line of a cell for functions of up to `memory_mb`; 0 = not known yet.

    V8 cannot change its heap limit after the start, so a Node.js cell of a pool is made for one memory size.
    Whatever this says, the sandbox limits the memory of the whole process from outside.
    """
    if runtime.language == "python":
        # -I: nothing of the host's environment and home; -S: not the platform's own packages either (and a
        # faster start); -B: code directories are read-only.
        return [interpreter, "-I", "-S", "-B", str(shim_path(runtime))]
    flags = []
    if memory_mb:
        # V8 collects garbage before this limit instead of being killed at the sandbox's.
        flags.append(f"--max-old-space-size={max(_NODE_HEAP_MB_MIN, memory_mb - _NODE_BASE_MB)}")
    # Old SDKs use deprecated modules; their users could do nothing about the warning in each instance's log.
    flags.append("--no-deprecation")
    return [interpreter, *flags, str(shim_path(runtime))]


def environment(
    version: Version, credentials: InstanceCredentials, platform_url: str, region: str = REGION_DEFAULT
) -> dict[str, str]:
    """The `environment` of a `load`: the user's variables, then the platform's, which cannot be overridden.

    `platform_url` is the address of the platform as the instance reaches it, e.g. ``http://127.0.0.1:9000/admin``.
    Names: facts of the wire protocol, 1.4 and 5.2.
    """
    platform = {
        "TENCENTCLOUD_RUNENV": "SCF",
        "TENCENTCLOUD_REGION": region,
        "TENCENTCLOUD_SECRETID": credentials.secret_id,
        "TENCENTCLOUD_SECRETKEY": credentials.secret_key,
        "TENCENTCLOUD_SESSIONTOKEN": credentials.session_token,
        "SCF_NAMESPACE": version.environment,
        "_SCF_TCB_LOG": "1",
        "TCB_CONTEXT_CNFG": json.dumps({"URL": platform_url}, separators=(",", ":")),
        # Also set for each invocation. Code that runs while the module is loaded (`cloud.init`) wants it too.
        "TCB_ENV": version.environment,
    }
    users = {
        name: value
        for name, value in version.config.environment_variables.items()
        if name not in INVOCATION_VARIABLES and name not in _NEVER_SET and not name.startswith("CLOUDLET_")
    }
    return users | platform


def context(version: Version, region: str = REGION_DEFAULT) -> dict[str, str | int]:
    """The `context` of a `load`: the constant fields of a handler's second argument (wire protocol 5.1)."""
    return {
        "function_name": version.function,
        "function_version": LATEST,
        "namespace": version.environment,
        "memory_limit_in_mb": version.config.memory_mb,
        "tencentcloud_region": region,
        "tencentcloud_appid": "",
        "tencentcloud_uin": "",
    }


def load_operation(
    version: Version,
    credentials: InstanceCredentials,
    platform_url: str,
    code_dir: str | None = None,
    region: str = REGION_DEFAULT,
) -> Mapping[str, object]:
    """The whole `load` message of the control channel; `code_dir` is where the sandbox shows the code."""
    config = version.config
    return {
        "op": "load",
        "code": code_dir or version.code_dir,
        "handler": config.handler,
        "concurrency": config.concurrency,
        "timeout_ms": round(config.timeout_s * 1000),
        "memory_mb": config.memory_mb,
        "environment": environment(version, credentials, platform_url, region),
        "context": context(version, region),
    }

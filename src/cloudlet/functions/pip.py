"""``requirements.txt``: dependencies by pip, installed beside the function's own modules.

Only wheels are installed by default: to build a source package means to run its code. A function that
needs it says ``{"cloudlet": {"scripts": true}}``.
"""

from __future__ import annotations

import hashlib
import json
import re
from functools import partial
from pathlib import Path

from cloudlet.model.errors import BuildFailed, InvalidProject
from cloudlet.model.function import Runtime

from .archive import check_link
from .layers import Installed, LayerPlan
from .process import Command, CommandResult, CommandRunner
from .toolchain import Toolchain
from .tree import tree_digest

RECIPE = "pip-1"
REQUIREMENTS = "requirements.txt"
FILES_MAX = 20
TEMPORARY = ".cloudlet-tmp"
"""Inside the watched folder, so that what pip unpacks counts against the size limit."""
_INCLUDE = re.compile(r"(?:-r|-c|--requirement|--constraint)[\s=]*(\S+)")
_RUNS_CODE = re.compile(
    r"--no-binary\b|-e\b|--editable\b|(?:git|hg|svn|bzr)\+|--config-settings?\b|--global-option\b"
)
_LOCAL = re.compile(r"(?:-e\s*|--editable[\s=]*)?(?:[\w.-]+\s*@\s*)?(?:file:|\.{0,2}/|\.$)")
_SOURCE_ARCHIVE = re.compile(r"\S+://\S+|\S+\.(?:tar\.gz|zip|tgz|tar\.bz2)\b")


class Pip:
    """Plans and makes pip layers."""

    def __init__(self, toolchain: Toolchain, cache: Path, run: CommandRunner) -> None:
        self._tools = toolchain
        self._cache = cache
        self._run = run

    def plan(self, source: Path, runtime: Runtime, scripts: bool) -> LayerPlan | None:
        """What the function in `source` needs; None when it needs nothing.

        Raise InvalidProject for files that cannot be read, BuildFailed for lines that would run code.
        """
        files = _requirement_files(source)
        lines = [line for text in files.values() for line in _lines(text)]
        if not any(not line.startswith("-") or _LOCAL.match(line) for line in lines):
            return None
        if not scripts:
            _refuse_code(lines)
        whole = any(_LOCAL.match(line) for line in lines)
        parts = {
            "recipe": RECIPE,
            "runtime": f"{runtime.value}-{self._tools.python_version}",
            "platform": self._tools.platform,
            "scripts": scripts,
            "files": files,
            "source": tree_digest(source) if whole else "",
        }
        key = hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()[:32]
        inputs = () if whole else tuple(files)
        return LayerPlan(key, source, inputs, partial(self._install, scripts=scripts, inputs=inputs))

    async def _install(self, work: Path, *, scripts: bool, inputs: tuple[str, ...]) -> Installed:
        temporary = work / TEMPORARY
        temporary.mkdir()
        argv = (
            str(self._tools.python),
            # Isolated: a file named pip.py in the function's folder must not be run instead.
            *("-I", "-m", "pip", "install"),
            *("--target", str(work)),
            *("--cache-dir", str(self._cache)),
            *("--no-input", "--disable-pip-version-check", "--no-warn-script-location", "--no-compile"),
            *("--progress-bar", "off", "--root-user-action", "ignore"),
            *(() if scripts else ("--only-binary", ":all:")),
            *("-r", REQUIREMENTS),
        )
        # A machine's own pip settings may ask for what does not go with --target.
        own = {"PIP_USER": "0", "PIP_REQUIRE_VIRTUALENV": "0", "PYTHONUTF8": "1", "TMPDIR": str(temporary)}
        result = await self._run(Command(argv, work, {**self._tools.environ, **own}))
        if result.exit_code:
            raise BuildFailed(
                f"pip could not install the requirements: {_reason(result, scripts)}\n{result.log}"
            )
        return Installed(result.log, leftovers=(*inputs, TEMPORARY, "bin"))


def _requirement_files(source: Path) -> dict[str, str]:
    """requirements.txt and what it includes, by path. Raise InvalidProject."""
    found: dict[str, str] = {}
    waiting = [REQUIREMENTS] if (source / REQUIREMENTS).is_file() else []
    while waiting:
        name = waiting.pop()
        if name in found:
            continue
        if len(found) >= FILES_MAX:
            raise InvalidProject(f"{REQUIREMENTS} includes more than {FILES_MAX} files")
        try:
            found[name] = (source / name).read_bytes().decode("utf-8-sig")
        except (OSError, UnicodeDecodeError) as exc:
            raise InvalidProject(f"{name}: cannot be read as UTF-8 text: {exc}") from exc
        for line in _lines(found[name]):
            if (match := _INCLUDE.match(line)) and "://" not in match[1]:
                folder = Path(name).parent
                waiting.append(check_link(REQUIREMENTS, (folder / match[1]).as_posix()))
    return found


def _lines(text: str) -> list[str]:
    joined = text.replace("\\\n", " ")
    stripped = (re.sub(r"(^|\s)#.*$", "", line).strip() for line in joined.splitlines())
    return [line for line in stripped if line]


def _refuse_code(lines: list[str]) -> None:
    for line in lines:
        is_wheel = re.search(r"\.whl(?:[\s#;]|$)", line) is not None
        source = _SOURCE_ARCHIVE.search(line) if not line.startswith("-") else None
        if _RUNS_CODE.search(line) or ((_LOCAL.match(line) or source) and not is_wheel):
            raise BuildFailed(
                f"{REQUIREMENTS}: {line[:100]!r} would run code while it is installed: name a released "
                'package, or set {"cloudlet": {"scripts": true}} in the function\'s config.json'
            )


def _reason(result: CommandResult, scripts: bool) -> str:
    errors = [line.strip() for line in result.log.splitlines() if line.startswith("ERROR:")]
    if "No module named pip" in result.log:
        return "pip is missing in cloudlet's Python: run 'python -m ensurepip' with it"
    reason = errors[-1].removeprefix("ERROR: ")[:300] if errors else f"it ended with {result.exit_code}"
    if not scripts and "No matching distribution" in reason:
        reason += ' (only wheels are installed unless {"cloudlet": {"scripts": true}})'
    return reason

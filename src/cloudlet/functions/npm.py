"""``package.json``: dependencies by npm.

A lock file is honoured (``npm ci``); where it does not fit ``package.json`` any more, ``npm install`` takes
what still fits, as the vendors' own cloud installation does. Packages come from the registry the machine is
configured for, also where a lock file names another host: lock files of old projects name mirrors that are
gone, and the integrity sums stay checked.
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

RECIPE = "npm-1"
"""Part of every key: raise it when layers made before must not be used any more."""
LOCK_FILES = ("npm-shrinkwrap.json", "package-lock.json")
_DECIDING = ("dependencies", "optionalDependencies", "peerDependencies", "overrides", "bundleDependencies")
_DECIDING_SCRIPTS = ("scripts", "gypfile", "binary")
_OUT_OF_SYNC = ("EUSAGE", "can only install packages when your package.json")
_FLAGS = (
    "--omit=dev",
    "--no-audit",
    "--no-fund",
    "--no-progress",
    "--no-update-notifier",
    "--color=false",
    "--logs-max=0",
    "--replace-registry-host=always",
    # A project's .npmrc may not choose the program that npm runs as git.
    "--git=git",
)


class Npm:
    """Plans and makes npm layers."""

    def __init__(self, toolchain: Toolchain, cache: Path, run: CommandRunner) -> None:
        self._tools = toolchain
        self._cache = cache
        self._run = run

    def plan(self, source: Path, runtime: Runtime, scripts: bool) -> LayerPlan | None:
        """What the function in `source` needs; None when it depends on nothing.

        Raise InvalidProject for a package.json that is not valid, BuildFailed for local dependencies that
        were not uploaded.
        """
        manifest = _read_manifest(source)
        if not any(manifest.get(name) for name in ("dependencies", "optionalDependencies", "workspaces")):
            return None
        whole = _check_local(source, manifest) or scripts or bool(manifest.get("workspaces"))
        lock = next((name for name in LOCK_FILES if (source / name).is_file()), None)
        inputs = [name for name in ("package.json", lock, ".npmrc") if name and (source / name).is_file()]
        key = self._key(source, manifest, inputs, runtime, scripts, whole)
        install = partial(self._install, locked=lock is not None, scripts=scripts, inputs=tuple(inputs))
        return LayerPlan(key, source, () if whole else tuple(inputs), install)

    def _key(
        self,
        source: Path,
        manifest: dict[str, object],
        inputs: list[str],
        runtime: Runtime,
        scripts: bool,
        whole: bool,
    ) -> str:
        deciding = (*_DECIDING, *(_DECIDING_SCRIPTS if scripts else ()))
        parts: dict[str, object] = {
            "recipe": RECIPE,
            "runtime": runtime.value,
            "platform": self._tools.platform,
            "scripts": scripts,
            "manifest": {name: manifest[name] for name in deciding if name in manifest},
            "files": {n: _input_digest(source / n) for n in inputs if n != "package.json"},
            "source": tree_digest(source) if whole else "",
        }
        return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()[:32]

    async def _install(
        self, work: Path, *, locked: bool, scripts: bool, inputs: tuple[str, ...]
    ) -> Installed:
        result = await self._npm("ci" if locked else "install", work, scripts)
        notes: list[str] = []
        if locked and result.exit_code and any(text in result.log for text in _OUT_OF_SYNC):
            notes.append("the lock file does not fit package.json; npm install was used instead of npm ci")
            result = await self._npm("install", work, scripts)
        if result.exit_code:
            raise BuildFailed(f"npm could not install the dependencies: {_reason(result)}\n{result.log}")
        hints = () if scripts else _skipped_scripts(work)
        leftovers = {*inputs, "package-lock.json", "node_modules/.package-lock.json", "node_modules/.cache"}
        return Installed(result.log, tuple(notes), hints, tuple(sorted(leftovers)))

    async def _npm(self, verb: str, work: Path, scripts: bool) -> CommandResult:
        argv = (
            str(self._tools.node),
            str(self._tools.npm),
            verb,
            *_FLAGS,
            f"--ignore-scripts={'false' if scripts else 'true'}",
            f"--cache={self._cache}",
        )
        environ = {**self._tools.environ, "PATH": f"{self._tools.node.parent}:{self._tools.environ['PATH']}"}
        return await self._run(Command(argv, work, environ))


def _input_digest(path: Path) -> str:
    """Digest of what an input decides. A lock file names its own package, too, and that decides nothing:
    functions with the same dependencies share one layer."""
    if path.name not in LOCK_FILES:
        return _file_digest(path)
    try:
        lock = json.loads(path.read_bytes())
        own = [lock, *([lock["packages"][""]] if "" in lock.get("packages", {}) else [])]
        for described in own:
            described.pop("name", None)
            described.pop("version", None)
    except (ValueError, RecursionError, AttributeError, TypeError):
        return _file_digest(path)  # npm will say what is wrong with it
    return hashlib.sha256(json.dumps(lock, sort_keys=True).encode()).hexdigest()


def _read_manifest(source: Path) -> dict[str, object]:
    path = source / "package.json"
    if not path.is_file():
        return {}
    try:
        manifest = json.loads(path.read_text("utf-8-sig"))
    except json.JSONDecodeError as exc:
        raise InvalidProject(f"package.json line {exc.lineno}: not valid JSON: {exc.msg}") from exc
    except (ValueError, RecursionError) as exc:
        raise InvalidProject(f"package.json: not valid JSON: {exc}") from exc
    if not isinstance(manifest, dict):
        raise InvalidProject("package.json: the file must hold a JSON object")
    for name in ("dependencies", "optionalDependencies"):
        if not isinstance(manifest.get(name, {}), dict):
            raise InvalidProject(f"package.json: {name} must be an object of names and versions")
    return manifest


def _check_local(source: Path, manifest: dict[str, object]) -> bool:
    """Whether dependencies are folders or files of the function itself."""
    local = False
    for group in ("dependencies", "optionalDependencies"):
        wanted = manifest.get(group, {})
        for name, spec in wanted.items() if isinstance(wanted, dict) else ():
            path = _local_path(spec)
            if path is None:
                continue
            local = True
            try:
                check_link("package.json", "/" if path.startswith("~/") else path)
            except InvalidProject as exc:
                raise BuildFailed(
                    f"dependency {name} is {spec!r}, outside the function's folder: move it into the folder "
                    "or publish it, because only the folder is deployed"
                ) from exc
            if not (source / path).exists():
                raise BuildFailed(f"dependency {name} is {spec!r}, but the function's folder has no {path}")
    return local


def _local_path(spec: object) -> str | None:
    if not isinstance(spec, str):
        return None
    if spec.startswith(("file:", "link:")):
        return re.sub(r"^(file|link):(//)?", "", spec).removeprefix("./") or "."
    return spec.removeprefix("./") if spec.startswith(("./", "../", "/", "~/")) else None


def _skipped_scripts(work: Path) -> tuple[str, ...]:
    """Packages that wanted to run something while they were installed."""
    hidden = work / "node_modules" / ".package-lock.json"
    if not hidden.is_file():
        return ()
    packages = json.loads(hidden.read_text("utf-8")).get("packages", {})
    names = sorted(
        path.rpartition("node_modules/")[2]
        for path, package in packages.items()
        if package.get("hasInstallScript")
    )
    if not names:
        return ()
    hint = (
        f"install scripts of {', '.join(names[:10])} were not run; if the function needs them, set "
        '{"cloudlet": {"scripts": true}} in its config.json'
    )
    return (hint,)


def _reason(result: CommandResult) -> str:
    """The line of npm's output that says most."""
    lines = [
        line.removeprefix("npm error ").strip() for line in result.log.splitlines() if "npm error" in line
    ]
    telling = [line for line in lines if line and not line.startswith(("code ", "A complete log", "errno"))]
    return telling[0][:300] if telling else f"it ended with {result.exit_code}"


def _file_digest(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()

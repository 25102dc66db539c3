"""A project tree as it is, read into values.

Three kinds of project are known by their file, and a folder with functions in it is enough:

* ``project.config.json`` with ``cloudfunctionRoot`` (WeChat),
* ``mini.project.json`` with ``cloudbaseRoot``, functions in its ``functions/`` (Alipay),
* ``cloudbaserc.json`` with ``functionRoot`` and ``functions`` (CloudBase; may stand beside the others).

Nothing is written and nothing of the project is run. The process environment is handed in.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from cloudlet.docdb.indexes.declared import declared_indexes
from cloudlet.model.errors import InvalidName, InvalidProject
from cloudlet.model.function import TIMEOUT_S_DEFAULT
from cloudlet.model.ids import check_environment_name, check_function_name

from .configs import FunctionSettings, Source, read_settings
from .jsonfile import JsonObject, read_env_files, read_json_object
from .limits import FUNCTIONS_MAX
from .runtimes import NODE_SUFFIXES, check_entry
from .scan import SKIPPED_FOLDERS, Names, scan_folders

WECHAT_FILE = "project.config.json"
ALIPAY_FILE = "mini.project.json"
CLOUDBASE_FILE = "cloudbaserc.json"
FUNCTION_ROOTS = ("cloudfunctions", "functions", "cloud/functions")
"""Where functions usually are when no file says so."""
CLOUDBASE_TIMEOUT_S = 5.0
"""What CloudBase's tools deploy with when nothing is written (facts: wire-protocol 5.8)."""


@dataclass(frozen=True, slots=True)
class FunctionSource:
    """A function that can be deployed."""

    name: str
    directory: Path
    settings: FunctionSettings


@dataclass(frozen=True, slots=True)
class BrokenFunction:
    """A function that cannot be deployed as it is; the others can."""

    name: str
    error: InvalidProject


@dataclass(frozen=True, slots=True)
class Project:
    """What a project tree holds."""

    root: Path
    kind: str
    """``wechat``, ``alipay``, ``cloudbase`` or ``folder``."""
    functions: tuple[FunctionSource, ...]
    broken: tuple[BrokenFunction, ...] = ()
    environment: str = ""
    """The environment id that the project's own settings name."""
    names: Names = field(default_factory=Names)
    """Environment ids and collections that the code names."""
    warnings: tuple[str, ...] = ()
    database: Mapping[str, Any] = field(default_factory=dict)
    """What ``cloudbaserc.json`` says about collections and their indexes."""
    function_folders: tuple[Path, ...] = ()
    """Folders in which functions are or may appear, those of broken ones included."""


def read_project(path: Path, variables: Mapping[str, str]) -> Project:
    """Read the tree at `path`; `variables` (the process environment) win over ``.env`` files.

    Raise InvalidProject with the file and what to do when nothing can be deployed from here.
    """
    root = path.resolve()
    if not root.is_dir():
        raise InvalidProject(
            f"{path} is not a folder: give the folder that holds {WECHAT_FILE} or the functions"
        )
    reader = _Reader(root, variables)
    reader.read_files()
    candidates = reader.candidates()
    functions, broken = _read_functions(candidates, reader.warnings)
    if not functions and not broken:
        raise InvalidProject(_no_functions(path, reader))
    if len(functions) > FUNCTIONS_MAX:
        raise InvalidProject(f"{path} has {len(functions)} functions, the limit is {FUNCTIONS_MAX}")
    names = scan_folders([*reader.client_folders, *(function.directory for function in functions)])
    return Project(
        root=root,
        kind=reader.kind,
        functions=functions,
        broken=broken,
        environment=reader.environment,
        names=names,
        warnings=tuple(dict.fromkeys(reader.warnings)),
        database=reader.database,
        function_folders=_outermost([*reader.roots, *(candidate.directory for candidate in candidates)]),
    )


@dataclass(frozen=True, slots=True)
class _Candidate:
    """A folder that may be a function, with what the project's files say about it."""

    name: str
    directory: Path
    shown: str
    listed: bool
    """Named in a file, so that it is an error when the folder is not there."""
    defaults: tuple[Source, ...] = ()
    entry: Source | None = None
    """What cloudbaserc.json says about this function; wins over the function's config.json."""
    timeout_s: float = TIMEOUT_S_DEFAULT


class _Reader:
    """Collects what the project's files say."""

    def __init__(self, root: Path, variables: Mapping[str, str]) -> None:
        self.root = root
        self.kind = "folder"
        self.environment = ""
        self.warnings: list[str] = []
        self.database: dict[str, Any] = {}
        self.roots: list[Path] = []
        self.client_folders: list[Path] = []
        self._variables = variables
        self._defaults: list[Source] = []
        self._listed: list[Source] = []
        self._listed_root = root / "functions"
        self._guessed = False

    def read_files(self) -> None:
        if (self.root / CLOUDBASE_FILE).is_file():
            self._read_cloudbase()
        elif any(self.root.glob("cloudbaserc.[jy]*")):
            self.warnings.append(f"only {CLOUDBASE_FILE} is read: write its content as JSON")
        if (self.root / ALIPAY_FILE).is_file():
            self._read_alipay()
        if (self.root / WECHAT_FILE).is_file():
            self._read_wechat()
        if not self.roots and not self._listed:
            self._guess_roots()

    def candidates(self) -> list[_Candidate]:
        """Folders of the function roots, then what cloudbaserc lists; a listed name wins over a folder."""
        found: dict[str, _Candidate] = {}
        defaults = tuple(self._defaults)
        listed = {str(source.values["name"]): source for source in self._listed}
        for directory in self._function_folders():
            name = directory.name
            found[name] = _Candidate(
                name, directory, self._shown(directory), False, defaults, listed.get(name)
            )
        for name, source in listed.items():
            directory = self._listed_directory(name, source)
            former = found.get(name)
            if former and former.directory != directory and not directory.is_dir():
                continue
            if former and former.directory != directory:
                self.warnings.append(f"function {name}: {self._shown(directory)} is used, not {former.shown}")
            found[name] = _Candidate(
                name, directory, self._shown(directory), True, defaults, source, CLOUDBASE_TIMEOUT_S
            )
        return [found[name] for name in sorted(found)]

    def _read_wechat(self) -> None:
        self.kind = "wechat"
        values = read_json_object(self.root / WECHAT_FILE, WECHAT_FILE, self.warnings)
        folder = self._folder(values, "cloudfunctionRoot", WECHAT_FILE, "")
        if folder:
            self.roots.append(folder)
        elif not self.roots and not self._listed:
            self._guess_roots()
        self._add_client(values, WECHAT_FILE)

    def _read_alipay(self) -> None:
        self.kind = "alipay"
        values = read_json_object(self.root / ALIPAY_FILE, ALIPAY_FILE, self.warnings)
        base = self._folder(values, "cloudbaseRoot", ALIPAY_FILE, "cloud")
        if base and (base / "functions").is_dir():
            self.roots.append(base / "functions")
        elif base:
            self.warnings.append(f"{ALIPAY_FILE}: {self._shown(base)}/functions does not exist")
        cloud = values.get("cloud")
        if isinstance(cloud, dict):
            self._set_environment(cloud.get("env"), f"{ALIPAY_FILE} cloud.env")
        self._add_client(values, ALIPAY_FILE)

    def _read_cloudbase(self) -> None:
        self.kind = "cloudbase"
        variables = {**read_env_files(self.root), **self._variables}
        values = read_json_object(self.root / CLOUDBASE_FILE, CLOUDBASE_FILE, self.warnings, variables)
        self._set_environment(values.get("envId"), f"{CLOUDBASE_FILE} envId")
        self._listed_root = (
            self._folder(values, "functionRoot", CLOUDBASE_FILE, "functions") or self._listed_root
        )
        defaults = values.get("functionDefaultConfig")
        if isinstance(defaults, dict):
            self._defaults.append(Source(f"{CLOUDBASE_FILE} functionDefaultConfig", defaults))
        for index, entry in enumerate(_listed_functions(values)):
            where = f"{CLOUDBASE_FILE} functions[{index}]"
            if not isinstance(entry, dict) or not isinstance(entry.get("name"), str):
                raise InvalidProject(f"{where}: each function is an object with a name")
            self._listed.append(Source(f"{where} {entry['name']}", entry))
        if not self._listed and self._listed_root.is_dir():
            self.roots.append(self._listed_root)
        if declared_indexes(values):
            self.database = {key: values[key] for key in ("framework", "database") if key in values}
        for key in values:
            if key not in self.database and key not in {
                "envId", "version", "region", "functionRoot", "functionDefaultConfig", "functions", "$schema",
            }:  # fmt: skip
                self.warnings.append(f"{CLOUDBASE_FILE}: {key} has no effect here")

    def _listed_directory(self, name: str, source: Source) -> Path:
        """``dir`` is counted from the project's root (older tools: from functionRoot); both are tried."""
        given = source.values.get("dir")
        if not isinstance(given, str) or not given.strip():
            return self._inside(self._listed_root / name, source.where)
        from_root = self._inside(self.root / given, source.where)
        return from_root if from_root.is_dir() else self._inside(self._listed_root / given, source.where)

    def _folder(self, values: JsonObject, key: str, shown: str, default: str) -> Path | None:
        """A folder that a file names; None when it names none. Raise InvalidProject when it is not there."""
        given = values.get(key)
        if given is not None and not isinstance(given, str):
            raise InvalidProject(f"{shown}: {key} must be a text")
        if not given:
            path = self.root / default
            return path if default and path.is_dir() else None
        folder = self._inside(self.root / given.replace("\\", "/"), f"{shown} {key}")
        if not folder.is_dir():
            raise InvalidProject(
                f"{shown}: {key} names {given!r}, but there is no such folder: create it or correct it"
            )
        return folder

    def _inside(self, path: Path, where: str) -> Path:
        resolved = path.resolve()
        if not resolved.is_relative_to(self.root):
            raise InvalidProject(f"{where}: {path} is outside the project: move it into the project's folder")
        return resolved

    def _add_client(self, values: JsonObject, shown: str) -> None:
        """The mini program's own pages: their code names collections and environments too."""
        folder = values.get("miniprogramRoot")
        if isinstance(folder, str) and folder.strip("./"):
            path = self._inside(self.root / folder, f"{shown} miniprogramRoot")
            if path.is_dir():
                self.client_folders.append(path)

    def _set_environment(self, value: object, where: str) -> None:
        if value is None or value == "":
            return
        try:
            self.environment = check_environment_name(str(value))
        except InvalidName:
            self.warnings.append(f"{where}: {str(value)[:60]!r} is not an environment id and was ignored")

    def _guess_roots(self) -> None:
        """The usual folders; else this folder, of which only what has an entry file is a function."""
        self.roots.extend(p for name in FUNCTION_ROOTS if (p := self.root / name).is_dir())
        self._guessed = not self.roots
        if self._guessed:
            self.roots.append(self.root)

    def _function_folders(self) -> list[Path]:
        folders = [folder for root in self.roots for folder in _folders(root)]
        return [folder for folder in folders if _looks_like_function(folder) or not self._guessed]

    def _shown(self, path: Path) -> str:
        return path.relative_to(self.root).as_posix() if path.is_relative_to(self.root) else str(path)


def _outermost(folders: list[Path]) -> tuple[Path, ...]:
    """`folders` without those inside others of them."""
    return tuple(
        folder
        for folder in dict.fromkeys(folders)
        if not any(folder != other and folder.is_relative_to(other) for other in folders)
    )


def _listed_functions(values: JsonObject) -> list[object]:
    functions = values.get("functions", [])
    if not isinstance(functions, list):
        raise InvalidProject(f"{CLOUDBASE_FILE}: functions must be a list")
    return functions


def _folders(root: Path) -> list[Path]:
    """Folders in `root`; `root` itself when it is a single function."""
    if _looks_like_function(root) and not any(_looks_like_function(p) for p in root.iterdir() if p.is_dir()):
        return [root]
    return [
        p
        for p in sorted(root.iterdir())
        if p.is_dir() and p.name not in SKIPPED_FOLDERS and not p.name.startswith(".")
    ]


def _looks_like_function(directory: Path) -> bool:
    return any((directory / f"index{suffix}").is_file() for suffix in (*NODE_SUFFIXES, ".py"))


def _read_functions(
    candidates: list[_Candidate], warnings: list[str]
) -> tuple[tuple[FunctionSource, ...], tuple[BrokenFunction, ...]]:
    functions: list[FunctionSource] = []
    broken: list[BrokenFunction] = []
    for candidate in candidates:
        if not candidate.listed and not _has_code(candidate.directory):
            warnings.append(f"{candidate.shown}: no code in this folder, skipped")
            continue
        try:
            functions.append(_read_function(candidate, warnings))
        except InvalidProject as exc:
            broken.append(BrokenFunction(candidate.name, exc))
    return tuple(functions), tuple(broken)


def _read_function(candidate: _Candidate, warnings: list[str]) -> FunctionSource:
    try:
        check_function_name(candidate.name)
    except InvalidName as exc:
        raise InvalidProject(f"{candidate.shown}: {exc.message}: rename the folder") from exc
    if not candidate.directory.is_dir():
        raise InvalidProject(f"{candidate.shown}: no such folder (named in {CLOUDBASE_FILE})")
    sources = list(candidate.defaults)
    config_file = candidate.directory / "config.json"
    if config_file.is_file():
        shown = f"{candidate.shown}/config.json"
        sources.append(Source(shown, read_json_object(config_file, shown, warnings)))
    if candidate.entry:
        sources.append(candidate.entry)
    settings = read_settings(candidate.directory, sources, warnings, timeout_s=candidate.timeout_s)
    check_entry(candidate.directory, settings.config.runtime, settings.config.handler, candidate.shown)
    return FunctionSource(candidate.name, candidate.directory, settings)


def _has_code(directory: Path) -> bool:
    """Whether a folder is meant to be a function: an entry, a manifest or any source at its top."""
    if any((directory / name).is_file() for name in ("package.json", "config.json", "requirements.txt")):
        return True
    return any(p.suffix in {*NODE_SUFFIXES, ".py", ".ts"} for p in directory.iterdir() if p.is_file())


def _no_functions(path: Path, reader: _Reader) -> str:
    looked = ", ".join(str(root) for root in reader.roots) or str(path)
    return (
        f"no functions found in {looked}: a function is a folder with index.js or index.py; give the "
        f"folder that holds {WECHAT_FILE}, {ALIPAY_FILE} or {CLOUDBASE_FILE}, or the folder of the functions"
    )

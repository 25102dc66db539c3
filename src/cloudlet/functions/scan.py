"""What source code names: environment ids and collections.

A reading aid, not a parser: names that are computed are not seen, and the person decides what is done
with what is found.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

SOURCE_SUFFIXES = frozenset({".js", ".cjs", ".mjs", ".ts", ".py"})
FILE_BYTES_MAX = 1024 * 1024
FILES_MAX = 5000
NAMES_MAX = 200
SKIPPED_FOLDERS = frozenset(
    {"node_modules", "miniprogram_npm", "__pycache__", ".git", ".venv", "venv", "dist", "typings"}
)

_JS_PARTS = re.compile(
    r"""(?P<keep>"(?:\\.|[^"\\\n])*"|'(?:\\.|[^'\\\n])*'|`(?:\\.|[^`\\])*`)|//[^\n]*|/\*.*?\*/""", re.DOTALL
)
_PY_PARTS = re.compile(r"""(?P<keep>"(?:\\.|[^"\\\n])*"|'(?:\\.|[^'\\\n])*')|\#[^\n]*""")
_NAME = r"""['"`]([A-Za-z0-9_][A-Za-z0-9_.-]{0,63})['"`]"""
_COLLECTION = re.compile(r"\bcollection\(\s*" + _NAME + r"\s*\)")
_COLLECTION_BY_VARIABLE = re.compile(r"\bcollection\(\s*([A-Za-z_$][\w$]*)\s*\)")
_COLLECTION_FIELD = re.compile(r"""['"]?\bcollectionName['"]?\s*[:=]\s*""" + _NAME)
_CREATED = re.compile(r"\bcreateCollection\(\s*" + _NAME)
_ENV_OF_CALL = re.compile(
    r"""\b(?:init|database|createCloudContext|updateConfig)\(\s*\{[^{}]{0,400}?\benv\s*:\s*['"`]([A-Za-z0-9-]{1,63})['"`]"""
)
_ENV_OF_CONFIG = re.compile(r"""\bconfig\s*:\s*\{\s*env\s*:\s*['"`]([A-Za-z0-9-]{1,63})['"`]""")
_ENV_LIKE = re.compile(
    r"""\benv(?:Id)?\s*:\s*['"`]((?=[a-z0-9-]*\d)[a-z][a-z0-9]*(?:-[a-z0-9]+)*-[a-z0-9]{5,})['"`]"""
)


@dataclass(frozen=True, slots=True)
class Names:
    """What the code of a project names, sorted."""

    environment_ids: tuple[str, ...] = ()
    collections: tuple[str, ...] = ()


def scan_folders(folders: list[Path]) -> Names:
    """Read the sources below `folders`, at most FILES_MAX files of FILE_BYTES_MAX each."""
    environments: set[str] = set()
    used: set[str] = set()
    created: set[str] = set()
    for path in _sources(folders):
        code = without_comments(path.read_text("utf-8", errors="replace"), python=path.suffix == ".py")
        environments |= environment_ids(code)
        used |= collections(code)
        created |= set(_CREATED.findall(code))
    return Names(tuple(sorted(environments)[:NAMES_MAX]), tuple(sorted(used - created)[:NAMES_MAX]))


def environment_ids(code: str) -> set[str]:
    """Ids handed to init() and its like, and values of ``env``/``envId`` that look like an id of a cloud."""
    return {
        name
        for pattern in (_ENV_OF_CALL, _ENV_OF_CONFIG, _ENV_LIKE)
        for name in pattern.findall(code)
        if not name.startswith("-")
    }


def collections(code: str) -> set[str]:
    """Literal names, and names of constants of the same file."""
    found = set(_COLLECTION.findall(code)) | set(_COLLECTION_FIELD.findall(code))
    for variable in set(_COLLECTION_BY_VARIABLE.findall(code)):
        constant = re.search(rf"(?<![\w$.]){re.escape(variable)}\s*=\s*{_NAME}", code)
        if constant:
            found.add(constant.group(1))
    return found


def without_comments(code: str, *, python: bool) -> str:
    """Comments out, strings kept: project templates carry example ids in comments."""
    parts = _PY_PARTS if python else _JS_PARTS
    return parts.sub(lambda match: match.group("keep") or " ", code)


def _sources(folders: list[Path]) -> Iterator[Path]:
    count = 0
    seen: set[str] = set()
    for folder in folders:
        for parent, names, files in os.walk(folder):
            names[:] = sorted(name for name in names if name not in SKIPPED_FOLDERS)
            for file in sorted(files):
                path = Path(parent, file)
                if path.suffix not in SOURCE_SUFFIXES or file.endswith(".min.js") or str(path) in seen:
                    continue
                if not path.is_file() or path.stat().st_size > FILE_BYTES_MAX:
                    continue
                seen.add(str(path))
                count += 1
                if count > FILES_MAX:
                    return
                yield path

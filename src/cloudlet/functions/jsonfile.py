"""Project files as people write them: JSON with a byte order mark, comments or a comma too many."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from pathlib import Path

from cloudlet.model.errors import InvalidProject

JSON_BYTES_MAX = 1024 * 1024

JsonObject = dict[str, object]

_TEMPLATE = re.compile(r"\{\{\s*env\.([A-Za-z_][A-Za-z0-9_]*)\s*\}\}")
_COMMENT_OR_STRING = re.compile(r'"(?:\\.|[^"\\\n])*"|//[^\n]*|/\*.*?\*/', re.DOTALL)
_COMMA_OR_STRING = re.compile(r'"(?:\\.|[^"\\\n])*"|,(?=\s*[}\]])')
_ENV_LINE = re.compile(r"\s*(?:export\s+)?([A-Za-z_][A-Za-z0-9_]*)\s*=\s*(.*?)\s*\Z")


def read_json_object(
    path: Path, shown: str, warnings: list[str], variables: Mapping[str, str] | None = None
) -> JsonObject:
    """The object in `path`. `shown` is how messages name the file; `variables` fill ``{{env.X}}``.

    Comments and trailing commas are read with a warning. Raise InvalidProject with the line otherwise.
    """
    text = read_text(path, shown)
    if variables is not None:
        text = fill_template(text, variables, shown)
    try:
        value = json.loads(text)
    except (ValueError, RecursionError) as first:
        value = _read_tolerantly(text, shown, first)
        warnings.append(f"{shown}: comments or trailing commas are not JSON; they were skipped")
    if not isinstance(value, dict):
        raise InvalidProject(f"{shown}: the file must hold a JSON object ({{…}})")
    return value


def read_text(path: Path, shown: str) -> str:
    """UTF-8 text with or without byte order mark. Raise InvalidProject."""
    try:
        if path.stat().st_size > JSON_BYTES_MAX:
            raise InvalidProject(f"{shown}: the file is larger than {JSON_BYTES_MAX} bytes")
        return path.read_bytes().decode("utf-8-sig")
    except UnicodeDecodeError as exc:
        raise InvalidProject(f"{shown}: the file is not UTF-8 text: save it as UTF-8") from exc
    except OSError as exc:
        raise InvalidProject(f"{shown}: cannot be read: {exc.strerror}") from exc


def fill_template(text: str, variables: Mapping[str, str], shown: str) -> str:
    """Put values for ``{{env.X}}``, escaped so that they cannot end a JSON string.

    Raise InvalidProject naming what is missing.
    """
    missing: list[str] = []

    def value(match: re.Match[str]) -> str:
        name = match.group(1)
        if name not in variables:
            missing.append(name)
            return ""
        return json.dumps(variables[name], ensure_ascii=False)[1:-1]

    filled = _TEMPLATE.sub(value, text)
    if missing:
        names = ", ".join(dict.fromkeys(missing))
        raise InvalidProject(f"{shown}: {names} is used as {{{{env.X}}}} but set neither in .env nor outside")
    return filled


def read_env_files(root: Path) -> dict[str, str]:
    """Variables of ``.env`` and ``.env.local``, the second winning."""
    variables: dict[str, str] = {}
    for name in (".env", ".env.local"):
        path = root / name
        if path.is_file():
            variables.update(parse_env(read_text(path, name)))
    return variables


def parse_env(text: str) -> dict[str, str]:
    """``NAME=value`` lines; quotes around a value and `` # comments`` after an unquoted one are dropped."""
    variables: dict[str, str] = {}
    for line in text.splitlines():
        match = _ENV_LINE.match(line)
        if match and not line.lstrip().startswith("#"):
            variables[match.group(1)] = _unquoted(match.group(2))
    return variables


def _unquoted(value: str) -> str:
    if len(value) >= 2 and value[0] in "\"'" and value.endswith(value[0]):
        inner = value[1:-1]
        return inner.replace("\\n", "\n") if value[0] == '"' else inner
    return re.split(r"\s#", value, maxsplit=1)[0].rstrip()


def _read_tolerantly(text: str, shown: str, first: Exception) -> object:
    """Lines keep their numbers: what is skipped is replaced by blanks."""
    without_comments = _COMMENT_OR_STRING.sub(
        lambda m: m[0] if m[0].startswith('"') else re.sub(r"[^\n]", " ", m[0]), text
    )
    without_commas = _COMMA_OR_STRING.sub(lambda m: m[0] if m[0].startswith('"') else " ", without_comments)
    try:
        return json.loads(without_commas)
    except json.JSONDecodeError as exc:
        raise InvalidProject(f"{shown} line {exc.lineno}: not valid JSON: {exc.msg}") from first
    except (ValueError, RecursionError) as exc:
        raise InvalidProject(f"{shown}: not valid JSON: {exc}") from first

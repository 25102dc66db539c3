"""A function's settings, from the files in which projects keep them.

``config.json`` (WeChat) and the entries of ``cloudbaserc.json`` use the same words for the same things
(facts: wire-protocol 5.1 and 5.8), so one reader serves both. Later sources win over earlier ones;
environment variables are merged name by name. What only cloudlet knows is under the key ``cloudlet``::

    {"cloudlet": {"concurrency": 1, "instancesMin": 0, "instancesMax": 9, "keepAlive": 60, "scripts": false}}
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path

from cloudlet.model.errors import InvalidProject
from cloudlet.model.function import MEMORY_MB_DEFAULT, FunctionConfig, ScaleRule

from .jsonfile import JsonObject
from .limits import TRIGGERS_MAX, check_config
from .runtimes import RuntimeChoice, choose_runtime, default_handler, infer_runtime
from .wire import Trigger

_KNOWN = frozenset(
    {
        "name",
        "dir",
        "timeout",
        "memorySize",
        "envVariables",
        "runtime",
        "handler",
        "installDependency",
        "ignore",
    }
    | {
        "triggers",
        "permissions",
        "cloudlet",
        "type",
        "isHTTP",
        "isWaitInstall",
        "version",
        "description",
        "$schema",
    }
)
_WITHOUT_EFFECT = frozenset(
    {
        "vpc",
        "layers",
        "role",
        "imageConfig",
        "codeSecret",
        "publicNet",
        "eip",
        "aclRule",
        "params",
        "deployMode",
    }
    | {"protocolType"}
)
_CLOUDLET = frozenset({"concurrency", "instancesMin", "instancesMax", "keepAlive", "scripts"})


@dataclass(frozen=True, slots=True)
class Source:
    """One place that says something about a function, and its name in messages."""

    where: str
    values: JsonObject


@dataclass(frozen=True, slots=True)
class FunctionSettings:
    """Everything a project says about one function."""

    config: FunctionConfig
    triggers: tuple[Trigger, ...] = ()
    permissions: tuple[str, ...] = ()
    install: bool = True
    scripts: bool = False
    ignore: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()


def read_settings(
    directory: Path, sources: list[Source], warnings: list[str], *, timeout_s: float
) -> FunctionSettings:
    """Settings of the function in `directory`; `timeout_s` holds when no source names one.

    Raise InvalidProject naming the file, the key and what is allowed.
    """
    _refuse_http(sources)
    _warn_of_unknown(sources, warnings)
    values = _Values(sources)
    choice = _runtime(directory, values)
    own = _Values([Source(f"{s.where} cloudlet", _object(s, "cloudlet")) for s in sources])
    triggers = _triggers(values)
    scale = ScaleRule()
    config = FunctionConfig(
        runtime=choice.runtime,
        handler=values.text("handler") or default_handler(choice.runtime),
        timeout_s=values.number("timeout", timeout_s),
        memory_mb=values.whole("memorySize", MEMORY_MB_DEFAULT),
        concurrency=own.whole("concurrency", 1),
        environment_variables=_variables(sources),
        scale=ScaleRule(
            instances_min=own.whole("instancesMin", scale.instances_min),
            instances_max=own.whole("instancesMax", scale.instances_max),
            keep_alive_s=own.number("keepAlive", scale.keep_alive_s),
        ),
    )
    return FunctionSettings(
        config=check_config(config, values.where),
        triggers=triggers,
        permissions=_permissions(values),
        install=values.flag("installDependency", True),
        scripts=own.flag("scripts", False),
        ignore=values.texts("ignore"),
        notes=tuple(filter(None, (choice.note, _trigger_note(triggers)))),
    )


class _Values:
    """The last source that names a key decides; ``null`` counts as not named."""

    def __init__(self, sources: list[Source]) -> None:
        self._sources = sources
        self.where = sources[-1].where if sources else "function"

    def find(self, key: str) -> tuple[object, str]:
        """Value and place; None when nothing names the key."""
        for source in reversed(self._sources):
            if source.values.get(key) is not None:
                return source.values[key], source.where
        return None, self.where

    def number(self, key: str, default: float) -> float:
        value, where = self.find(key)
        if value is None:
            return default
        number = _as_number(value)
        if number is None:
            raise InvalidProject(f"{where}: {key} must be a number, not {_shown(value)}")
        return number

    def whole(self, key: str, default: int) -> int:
        number = self.number(key, default)
        if number != int(number):
            raise InvalidProject(f"{self.find(key)[1]}: {key} must be a whole number, not {number:g}")
        return int(number)

    def text(self, key: str) -> str:
        value, where = self.find(key)
        if value is None:
            return ""
        if not isinstance(value, str):
            raise InvalidProject(f"{where}: {key} must be a text, not {_shown(value)}")
        return value.strip()

    def texts(self, key: str) -> tuple[str, ...]:
        value, where = self.find(key)
        if value is None:
            return ()
        if isinstance(value, str):
            return (value,)
        if not isinstance(value, list) or not all(isinstance(item, str) for item in value):
            raise InvalidProject(f"{where}: {key} must be a list of texts, not {_shown(value)}")
        return tuple(value)

    def flag(self, key: str, default: bool) -> bool:
        value, where = self.find(key)
        if value is None:
            return default
        if not isinstance(value, bool):
            raise InvalidProject(f"{where}: {key} must be true or false, not {_shown(value)}")
        return value


def _runtime(directory: Path, values: _Values) -> RuntimeChoice:
    asked = values.text("runtime")
    if asked:
        return choose_runtime(asked, values.find("runtime")[1])
    return RuntimeChoice(infer_runtime(directory))


def _refuse_http(sources: list[Source]) -> None:
    for source in sources:
        if (
            str(source.values.get("type", "")).upper() in {"HTTP", "WEB"}
            or source.values.get("isHTTP") is True
        ):
            raise InvalidProject(
                f"{source.where}: HTTP functions are not supported yet: use an event function"
            )


def _warn_of_unknown(sources: list[Source], warnings: list[str]) -> None:
    for source in sources:
        for key in source.values:
            if key in _WITHOUT_EFFECT:
                warnings.append(f"{source.where}: {key} has no effect here")
            elif key not in _KNOWN:
                warnings.append(f"{source.where}: {key} is not known and was ignored")
        for key in _object(source, "cloudlet"):
            if key not in _CLOUDLET:
                warnings.append(f"{source.where}: cloudlet.{key} is not known and was ignored")


def _object(source: Source, key: str) -> JsonObject:
    value = source.values.get(key)
    if value is None:
        return {}
    if not isinstance(value, dict):
        raise InvalidProject(f"{source.where}: {key} must be an object, not {_shown(value)}")
    return value


def _variables(sources: list[Source]) -> dict[str, str]:
    merged: dict[str, str] = {}
    for source in sources:
        for name, value in _object(source, "envVariables").items():
            if isinstance(value, bool):
                merged[name] = "true" if value else "false"
            elif isinstance(value, str | int | float):
                merged[name] = str(value)
            else:
                raise InvalidProject(
                    f"{source.where}: environment variable {name} must be a text, not {_shown(value)}"
                )
    return merged


def _triggers(values: _Values) -> tuple[Trigger, ...]:
    value, where = values.find("triggers")
    if value is None:
        return ()
    if not isinstance(value, list) or len(value) > TRIGGERS_MAX:
        raise InvalidProject(f"{where}: triggers must be a list of at most {TRIGGERS_MAX}")
    return tuple(_trigger(item, where) for item in value)


def _trigger_note(triggers: tuple[Trigger, ...]) -> str:
    names = ", ".join(trigger.name for trigger in triggers)
    return f"triggers are kept with the version but do not run yet: {names}" if triggers else ""


def _trigger(item: object, where: str) -> Trigger:
    if (
        not isinstance(item, dict)
        or not isinstance(item.get("name"), str)
        or not isinstance(item.get("type"), str)
    ):
        raise InvalidProject(f"{where}: each trigger needs a name, a type and a config")
    config = item.get("config", "")
    if not isinstance(config, str):
        raise InvalidProject(f"{where}: trigger {item['name']}: config must be a text, not {_shown(config)}")
    if item["type"] == "timer" and len(config.split()) != 7:
        raise InvalidProject(
            f"{where}: trigger {item['name']}: a timer has 7 fields "
            f"(second minute hour day month weekday year), {config!r} has {len(config.split())}"
        )
    return Trigger(item["name"], item["type"], config)


def _permissions(values: _Values) -> tuple[str, ...]:
    value, where = values.find("permissions")
    if value is None:
        return ()
    names = value.get("openapi", []) if isinstance(value, dict) else None
    if not isinstance(names, list) or not all(isinstance(name, str) for name in names):
        raise InvalidProject(f'{where}: permissions must look like {{"openapi": ["name", …]}}')
    return tuple(names)


def _as_number(value: object) -> float | None:
    if isinstance(value, bool):
        return None
    if isinstance(value, str):
        try:
            value = float(value)
        except ValueError:
            return None
    return float(value) if isinstance(value, int | float) and math.isfinite(value) else None


def _shown(value: object) -> str:
    text = repr(value) if isinstance(value, str) else str(value)
    return text if len(text) <= 40 else text[:40] + "…"

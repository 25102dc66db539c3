"""Options and arguments that name things, and how a shell completes them."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import click

from cloudlet.model.ids import DEFAULT_ENVIRONMENT

from .session import Session

COMPLETION_S_MAX = 1.0
"""Somebody has pressed the tabulator key and waits."""


def _function_names(ctx: click.Context, param: click.Parameter, incomplete: str) -> list[str]:
    from .client import environment_path

    path = environment_path(str(ctx.params.get("env") or DEFAULT_ENVIRONMENT), "functions")
    return _names(ctx, path, "functions", incomplete)


def _environment_names(ctx: click.Context, param: click.Parameter, incomplete: str) -> list[str]:
    return _names(ctx, "/environments", "environments", incomplete)


def _names(ctx: click.Context, path: str, what: str, incomplete: str) -> list[str]:
    """Names from the running installation; none when it does not run, because a message would be in the way
    of what is being typed."""
    from cloudlet.model.errors import PlatformError

    data = ctx.params.get("data")
    session = Session(Path(str(data)) if data else None, as_json=True)
    try:
        found = session.client(COMPLETION_S_MAX).get(path)[what]
    except (PlatformError, click.ClickException, OSError):
        return []
    return [str(each["name"]) for each in found if str(each["name"]).startswith(incomplete)]


env_option: Callable[..., Any] = click.option(
    "--env",
    default=DEFAULT_ENVIRONMENT,
    show_default=True,
    help="Environment or alias.",
    shell_complete=_environment_names,
)
function_argument: Callable[..., Any] = click.argument("name", shell_complete=_function_names)


def completed_collections(ctx: click.Context, param: click.Parameter, incomplete: str) -> list[str]:
    """Names of collections that begin like this."""
    from .client import environment_path

    path = environment_path(str(ctx.params.get("env") or DEFAULT_ENVIRONMENT), "collections")
    return _names(ctx, path, "collections", incomplete)

"""Finding and evaluating a function's code (contract, sections 2 and 4)."""

from __future__ import annotations

import importlib
import os
import resource
import sys
from collections.abc import Callable
from typing import Any

_INTERPRETER_MB = 64
"""What Python needs beside the function: its own heap and the stacks of two threads."""


class LoadError(Exception):
    """The function cannot be loaded, for a reason its author can mend."""


def load_handler(code: str, handler: str) -> Callable[..., Any]:
    """Evaluate the module and return its handler (``FILE.NAME``, the file relative to `code`, no ``.py``).

    Raise LoadError or whatever the module raises."""
    file, name = parse_handler(handler)
    candidates = [f"{file}.py", f"{file}/__init__.py"]
    if not any(os.path.isfile(os.path.join(code, candidate)) for candidate in candidates):
        raise LoadError(f"handler file '{file}' was not found: looked for {', '.join(candidates)}")
    os.chdir(code)
    sys.path.insert(0, code)
    module = importlib.import_module(file.replace("/", "."))
    if not str(module.__file__).startswith(code + os.sep):
        raise LoadError(f"'{file}' is the name of a module of Python's own: rename the file and the handler")
    main = getattr(module, name, None)
    if main is None:
        raise LoadError(f"handler '{handler}': the module does not define '{name}'")
    if not callable(main):
        raise LoadError(f"handler '{handler}': '{name}' is not a function")
    return main  # type: ignore[no-any-return]  # a module's attribute; checked above


def parse_handler(handler: str) -> tuple[str, str]:
    """Split ``src/index.main_handler``. Raise LoadError."""
    file, _, name = handler.rpartition(".")
    if not file or not name.isidentifier() or file.startswith("/") or ".." in file.split("/") or "." in file:
        raise LoadError(f"handler '{handler}' is not allowed: use FILE.NAME such as index.main_handler")
    return file, name


def limit_memory(memory_mb: int) -> None:
    """Let a function that takes too much see a MemoryError before the sandbox ends it."""
    limit = (memory_mb + _INTERPRETER_MB) * 1024 * 1024
    _, hard = resource.getrlimit(resource.RLIMIT_DATA)
    if hard == resource.RLIM_INFINITY or limit < hard:
        resource.setrlimit(resource.RLIMIT_DATA, (limit, hard))

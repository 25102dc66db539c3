"""Which isolation this machine allows."""

from __future__ import annotations

import pytest

from cloudlet.model.errors import Unavailable
from cloudlet.sandbox.namespaces.driver import NamespacesDriver

_refused: list[str] = []
"""The reason, once it was looked for; empty text when nothing is refused."""


async def skip_without_namespaces() -> None:
    """Skip the test, with the step that failed, where cells cannot have namespaces."""
    if not _refused:
        _refused.append(await _refusal())
    if _refused[0]:
        pytest.skip(_refused[0])


async def _refusal() -> str:
    driver = NamespacesDriver((), ())
    try:
        await driver.start()
    except Unavailable as error:
        return error.message
    finally:
        await driver.close()
    return ""

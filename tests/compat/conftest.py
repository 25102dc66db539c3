"""One installation for all tests with the vendors' SDKs: fetching the packages takes most of their time."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.integration.platform import Platform, running

PROJECTS = Path(__file__).parent / "projects"


@pytest.fixture(scope="session")
def platform(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Platform]:
    """The functions of the project ``sdks``, each with a copy of the battery. The tests share one xdist
    group."""
    project = tmp_path_factory.mktemp("project") / "sdks"
    shutil.copytree(PROJECTS / "sdks", project)
    for function in (project / "cloudfunctions").iterdir():
        shutil.copy(PROJECTS / "battery.js", function)
    with running(tmp_path_factory.mktemp("sdks"), project) as platform:
        yield platform

"""A function that prints without end: its own lines are lost, its own time is used up, and nothing else."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

import pytest

from cloudlet.node.logs import FILE_BYTES_MAX
from cloudlet.settings import Paths
from tests.acceptance.installation import Installation
from tests.integration.platform import Platform
from tests.integration.up_support import until, write_project

pytestmark = pytest.mark.xdist_group("flood")
FLOODERS, NEIGHBOURS, CALLS = 4, 8, 40
FLOOD = "exports.main = () => { for (;;) console.log('flood '.repeat(200)) }\n"
SAYS = "exports.main = async ({ say }) => { console.log(say); return say }\n"
CONFIG = '{ "timeout": 1, "cloudlet": { "instancesMax": 4 } }'


@pytest.fixture
def platform(tmp_path: Path) -> Iterator[Platform]:
    installation = Installation(tmp_path / "data")
    platform = Platform(installation)
    functions = {"flood": FLOOD, "says": SAYS}
    try:
        installation.start()
        installation.deploy(write_project(tmp_path, functions, {"flood": {"config.json": CONFIG}}))
        yield platform
    finally:
        platform.close()
        left = installation.stop()
    assert left == []


def test_a_flood_of_lines_costs_only_who_prints_them(platform: Platform) -> None:
    with flooded(platform), ThreadPoolExecutor(NEIGHBOURS) as pool:
        said = [f"line {number}" for number in range(NEIGHBOURS * CALLS)]
        answers = list(pool.map(lambda text: platform.call("says", {"say": text}), said))
    assert [answer.body for answer in answers] == said
    assert sorted(texts(platform, "says")) == sorted(said)
    assert any("dropped" in text for text in texts(platform, "flood"))
    logs = Paths(platform.installation.data).logs
    sizes = [path.stat().st_size for path in (logs / "default").glob("flood.jsonl*")]
    assert 0 < sum(sizes) <= 2 * FILE_BYTES_MAX + 1024 * 1024


@contextmanager
def flooded(platform: Platform) -> Iterator[None]:
    """While the block runs, so many callers flood; each ends at its timeout, and another one begins."""
    stop = threading.Event()
    codes: set[str] = set()

    def flood() -> None:
        while not stop.is_set():
            codes.add(platform.call("flood", {}).body["code"])

    platform.player()  # signs in
    with ThreadPoolExecutor(FLOODERS) as pool:
        floods = [pool.submit(flood) for _ in range(FLOODERS)]
        try:
            until(lambda: codes, "the first flood has ended")
            yield
        finally:
            stop.set()
        for each in floods:
            each.result()
    assert codes == {"FUNCTIONS_TIME_LIMIT_EXCEEDED"}


def texts(platform: Platform, function: str) -> list[str]:
    """Every line of its log."""
    lines = platform.installation.command("fn", "logs", function, "--limit", "10000", "--json").splitlines()
    return [json.loads(line)["text"] for line in lines]

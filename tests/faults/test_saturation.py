"""More calls than instances, through the real edge with real instances: who waits, who is refused, and that
nobody waits for ever.

How long things take is asserted in the long tests only; the same stories are told in virtual time, to the
millisecond, in ``tests/contract/test_saturation.py``.
"""

from __future__ import annotations

import asyncio
import random
import re
import signal
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from itertools import pairwise
from pathlib import Path
from typing import Any

import aiohttp
import pytest

from cloudlet.settings import Paths
from tests.acceptance.installation import Installation
from tests.acceptance.player import Answer
from tests.faults.rig import send_signal
from tests.faults.traffic import SignedClient
from tests.integration.platform import Platform, running
from tests.integration.up_support import WAIT_S_MAX, until

pytestmark = pytest.mark.xdist_group("saturation")
PROJECT = Path(__file__).parent / "projects" / "saturation"
EXECUTIONS_MAX = 1000
"""Calls of one function that may run or wait (design 6); the 1,001st is refused."""
DEPTH_MAX = 8
SPAN_MS_MAX = 1200
FAST_P95_MS_MAX = 60
TRIES = 3
"""The best of so many counts: a busy machine makes all of them slower, a wrong decision each of them."""


@pytest.fixture(scope="module")
def platform(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Platform]:
    with running(tmp_path_factory.mktemp("saturation") / "data", PROJECT) as platform:
        yield platform


def at_once(platform: Platform, function: str, events: list[dict[str, Any]]) -> list[Answer]:
    """One caller for each event, all at the same moment."""
    player = platform.player()
    with ThreadPoolExecutor(len(events)) as pool:
        return list(pool.map(lambda event: player.call(function, event), events))


def make_fast_history(platform: Platform, function: str) -> None:
    """Until the version has earned early binding: then the activator sees its calls no more."""

    def bound() -> bool:
        answers = [platform.call(function, {}) for _ in range(10)]
        return all(answer.status == 200 and "queue" not in answer.stages for answer in answers)

    until(bound, f"{function} is early-bound")


def check_turns(answers: list[Answer], instances_max: int) -> float:
    """Every call ran, alone in its instance. Return the milliseconds from the first beginning to the last
    end."""
    assert [answer.status for answer in answers] == [200] * len(answers), [each.body for each in answers]
    spans = sorted((each.body["instance"], each.body["began"], each.body["ended"]) for each in answers)
    for (instance, _, ended), (other, began, _) in pairwise(spans):
        assert instance != other or ended <= began, f"two calls at once in one instance: {spans}"
    assert len({instance for instance, _, _ in spans}) <= instances_max
    return float(max(span[2] for span in spans) - min(span[1] for span in spans))


@pytest.mark.parametrize("how", ["wait", "spin"])
@pytest.mark.parametrize("history", ["cold", "fast"])
def test_five_calls_over_three_instances(platform: Platform, history: str, how: str) -> None:
    if history == "fast":
        make_fast_history(platform, "hold")
    check_turns(at_once(platform, "hold", [{how: 500}] * 5), instances_max=3)


@pytest.mark.long
@pytest.mark.parametrize("history", ["cold", "fast"])
def test_five_calls_that_wait_take_hardly_longer_than_two(tmp_path: Path, history: str) -> None:
    took = []
    for attempt in range(TRIES):
        with running(tmp_path / str(attempt), PROJECT) as platform:
            platform.player()  # signs in
            if history == "fast":
                make_fast_history(platform, "hold")
            began = time.monotonic()
            check_turns(at_once(platform, "hold", [{"wait": 500}] * 5), instances_max=3)
            took.append((time.monotonic() - began) * 1000)
    assert min(took) < SPAN_MS_MAX, took


@pytest.mark.long
def test_the_fast_calls_of_a_function_that_is_sometimes_slow_stay_fast(platform: Platform) -> None:
    """Nine of ten calls take 2 ms, the tenth 500 ms; eight callers without pause."""
    chance = random.Random(9)
    make_fast_history(platform, "mixed")
    p95s = [_fast_p95_ms(platform, chance) for _ in range(TRIES)]
    assert min(p95s) < FAST_P95_MS_MAX, p95s


def _fast_p95_ms(platform: Platform, chance: random.Random) -> float:
    events = [{"wait": 500 if chance.random() < 0.1 else 2} for _ in range(800)]
    player = platform.player()
    with ThreadPoolExecutor(8) as pool:
        answers = list(pool.map(lambda event: player.call("mixed", event), events))
    assert {answer.status for answer in answers} == {200}
    pairs = zip(events, answers, strict=True)
    fast = sorted(answer.elapsed_ms for event, answer in pairs if event["wait"] == 2)
    return fast[int(len(fast) * 0.95)]


@pytest.mark.anyio
async def test_the_1001st_call_is_refused_in_the_words_of_its_dialect(platform: Platform) -> None:
    """One instance, so that one call runs and all others wait."""
    installation = platform.installation
    given = installation.json("env", "credentials", "default")
    signed = SignedClient(installation.url, given["secretId"], given["secretKey"])
    headers = {"authorization": f"Bearer {installation.token('user-a')}"}
    url = f"{installation.url}/v1/functions/full"
    connector = aiohttp.TCPConnector(limit=0)
    async with aiohttp.ClientSession(connector=connector, headers=headers) as session:

        async def hold() -> None:
            async with session.post(url, json={"wait": 50_000}) as response:
                raise AssertionError(f"answered too early: {response.status} {await response.text()}")

        calls = [asyncio.create_task(hold()) for _ in range(EXECUTIONS_MAX)]
        try:
            await _until_present(installation, "full", EXECUTIONS_MAX, calls)
            by_gateway = await asyncio.to_thread(platform.call, "full", {})
            by_server = await asyncio.to_thread(
                partial(signed.send, "functions.invokeFunction", function_name="full", request_data="{}")
            )
            assert not any(call.done() for call in calls)
        finally:
            for call in calls:
                call.cancel()
            await asyncio.gather(*calls, return_exceptions=True)
            signed.close()
            for pid in installation.instances("full"):
                send_signal(pid, signal.SIGKILL)  # its call goes on although nobody waits for it any more
    assert (by_gateway.status, by_server.status) == (429, 200)
    for answer in (by_gateway, by_server):
        assert answer.body["code"] == "EXCEED_CONCURRENT_REQUEST_LIMIT"
        assert f"{EXECUTIONS_MAX} calls" in answer.body["message"]
        assert answer.body["requestId"]


async def _until_present(
    installation: Installation, function: str, count: int, calls: list[asyncio.Task[None]]
) -> None:
    """Until so many calls of the function run or wait; raise what a call ended with before."""
    path = str(Paths(installation.data).admin_socket)
    sample = re.compile(
        rf'^cloudlet_scheduler_version_(?:running|waiting)_calls{{.*function="{function}".*}} (\S+)$', re.M
    )
    async with (
        aiohttp.ClientSession(connector=aiohttp.UnixConnector(path)) as session,
        asyncio.timeout(WAIT_S_MAX),
    ):
        while True:
            for call in calls:
                if call.done():
                    call.result()
            async with session.get("http://cloudlet/metrics") as response:
                if sum(map(float, sample.findall(await response.text()))) == count:
                    return


def test_a_function_that_calls_itself_reaches_the_limit_of_depth(platform: Platform) -> None:
    """One call at a time in each instance: every level needs an instance of its own, and gets it."""
    assert platform.call("nest", {"levels": DEPTH_MAX}).body == {"levels": DEPTH_MAX}
    over = platform.call("nest", {"levels": DEPTH_MAX + 1})
    assert over.status == 200
    assert (over.body["levels"], over.body["code"]) == (DEPTH_MAX, "FUNCTIONS_EXECUTE_FAIL")
    assert f"more than {DEPTH_MAX} deep" in over.body["message"]


def test_a_call_that_waits_for_itself_ends_with_its_time(platform: Platform) -> None:
    """With one instance at most the inner call can never start. Both end, and the function serves on."""
    answer = platform.call("alone", {"levels": 1})
    assert (answer.status, answer.body["code"]) == (504, "FUNCTIONS_TIME_LIMIT_EXCEEDED")
    until(lambda: platform.call("alone", {"levels": 0}).status == 200, "the function serves on")

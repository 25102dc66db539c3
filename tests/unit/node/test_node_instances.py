"""Instances over fake cells: how starts fail, what is told, what is left."""

from __future__ import annotations

import asyncio
import signal
import tempfile
from collections.abc import AsyncIterator, Callable
from contextlib import aclosing
from pathlib import Path

import pytest

from cloudlet.model.clock import SystemClock
from cloudlet.model.errors import (
    FunctionLoadFailed,
    InstanceNotFound,
    PlatformError,
    ShuttingDown,
    Unavailable,
)
from cloudlet.model.function import FunctionConfig, Runtime, Version
from cloudlet.model.sandbox import EndReason, InstanceEnded, InstanceState, StartRequest
from cloudlet.node.cells import CellMaker
from cloudlet.node.instance import WORDS_BURST
from cloudlet.node.instances import Instances, NodeLimits
from cloudlet.node.lifecycle import after, end_reason
from cloudlet.node.logs import LogQuery, LogStore
from cloudlet.node.platform import PlatformServer
from cloudlet.node.pools import Pools
from cloudlet.node.runtimes import Runtimes
from cloudlet.sandbox.base import CellExit
from cloudlet.sandbox.fake import Failure, FakeCell, FakeDriver

pytestmark = pytest.mark.anyio


class Scene:
    """Instances without a node around them."""

    def __init__(self, root: Path) -> None:
        self.failure = Failure.NONE
        self.driver = FakeDriver()
        self.sockets = root / "i"
        self.sockets.mkdir()
        self.code = root / "code"
        self.code.mkdir()
        self.logs = LogStore(root / "logs")
        self.platform = PlatformServer(root / "platform.sock")
        clock = SystemClock()
        maker = CellMaker(self.driver, Runtimes(root), self._command, self.sockets, clock)
        self.instances = Instances(
            Pools(maker),
            self.platform,
            self.logs,
            self.sockets,
            self.driver.rung,
            NodeLimits(instances_max=2),
            clock,
        )

    def request(self, instance_id: str = "a1", **config: object) -> StartRequest:
        settings = FunctionConfig(runtime=Runtime.PYTHON3, **config)  # type: ignore[arg-type]  # few fields
        return StartRequest(instance_id, Version("env", "fn", "d1", 1, settings, str(self.code), 0.0))

    @property
    def cell(self) -> FakeCell:
        return self.driver.cells[-1]

    async def until(self, condition: Callable[[], bool]) -> None:
        async with asyncio.timeout(20):
            while True:
                if condition():
                    return
                await asyncio.sleep(0)

    async def failing_start(self, failure: Failure) -> PlatformError:
        """The error of a start, and the check that nothing is left of it."""
        self.failure = failure
        with pytest.raises(PlatformError) as caught:
            await self.instances.start(self.request())
        assert self.instances.report().instances == ()
        assert list(self.sockets.iterdir()) == []
        return caught.value

    def _command(self, runtime: Runtime, interpreter: str, memory_mb: int) -> tuple[str, ...]:
        return (interpreter, self.failure)


@pytest.fixture
async def it() -> AsyncIterator[Scene]:
    with tempfile.TemporaryDirectory(prefix="cl-", dir="/tmp") as name:
        scene = Scene(Path(name))
        yield scene
        await scene.instances.close(0.0)
        scene.platform.close()
        scene.logs.close()
        assert list(scene.sockets.iterdir()) == []


async def test_a_start_loads_the_version_with_credentials_and_a_door_of_its_own(it: Scene) -> None:
    status = await it.instances.start(it.request(memory_mb=512, timeout_s=0.5, handler="app.run"))
    assert status.state is InstanceState.READY
    assert status.socket_path == str(it.sockets / "a1.sock")
    assert Path(status.socket_path).is_socket()
    load = it.cell.received[0]
    assert (load["op"], load["handler"], load["timeout_ms"], load["memory_mb"]) == (
        "load",
        "app.run",
        500,
        512,
    )
    assert load["environment"]["CLOUDLET_INSTANCE"] == "a1"
    assert load["environment"]["TENCENTCLOUD_SECRETID"]
    assert "http://127.0.0.1:" in load["environment"]["TCB_CONTEXT_CNFG"]
    other = await it.instances.start(it.request("a2"))
    assert other.socket_path != status.socket_path
    assert it.cell.received[0]["environment"]["TCB_CONTEXT_CNFG"] != load["environment"]["TCB_CONTEXT_CNFG"]
    assert it.cell.received[0]["environment"]["TENCENTCLOUD_SECRETKEY"] not in str(load)


async def test_code_that_cannot_be_loaded_is_the_functions_fault(it: Scene) -> None:
    error = await it.failing_start(Failure.LOAD_FAILS)
    assert isinstance(error, FunctionLoadFailed)
    assert error.message == "Error: boom\n    at index.js:1:7"
    logged = await it.instances.logs(LogQuery("env", "fn"))
    assert [(each.level, each.text) for each in logged] == [("error", error.message)]


@pytest.mark.parametrize("failure", [Failure.CANNOT_START, Failure.DIES_AT_START])
async def test_a_cell_that_cannot_be_made_is_not(it: Scene, failure: Failure) -> None:
    assert isinstance(await it.failing_start(failure), Unavailable)


async def test_a_version_whose_code_is_missing_is_unavailable(it: Scene) -> None:
    it.code.rmdir()
    assert isinstance(await it.failing_start(Failure.NONE), Unavailable)


async def test_a_process_that_ends_while_it_loads_is_a_failed_load(it: Scene) -> None:
    it.failure = Failure.NEVER_READY
    starting = asyncio.create_task(it.instances.start(it.request()))
    await it.until(lambda: bool(it.driver.cells) and bool(it.cell.received))
    it.cell.ends(CellExit(7))
    with pytest.raises(FunctionLoadFailed, match="exited with code 7"):
        await starting


async def test_a_process_that_somebody_kills_or_stops_while_it_loads_is_not_the_functions_fault(
    it: Scene,
) -> None:
    it.failure = Failure.NEVER_READY
    starting = asyncio.create_task(it.instances.start(it.request("a1")))
    await it.until(lambda: bool(it.driver.cells) and bool(it.cell.received))
    it.cell.ends(CellExit(-1, signal.SIGKILL))
    with pytest.raises(Unavailable, match="nothing was started"):
        await starting
    starting = asyncio.create_task(it.instances.start(it.request("a2")))
    await it.until(lambda: len(it.driver.cells) > 1 and bool(it.cell.received))
    (watched,) = it.instances.watched()
    watched.was_stopped = True
    watched.kill(EndReason.EXITED, "was stopped by a signal and not continued")
    with pytest.raises(Unavailable, match="nothing was started"):
        await starting


async def test_memory_that_runs_out_while_it_loads_is_the_functions_fault(it: Scene) -> None:
    it.failure = Failure.NEVER_READY
    starting = asyncio.create_task(it.instances.start(it.request()))
    await it.until(lambda: bool(it.driver.cells) and bool(it.cell.received))
    next(iter(it.instances.watched())).kill(EndReason.OUT_OF_MEMORY, "used 300 MB of memory")
    with pytest.raises(FunctionLoadFailed, match="300 MB"):
        await starting


async def test_an_end_is_told_once_with_its_reason(it: Scene) -> None:
    async with aclosing(it.instances.events()) as events:  # type: ignore[type-var]  # an async generator
        await anext(events)
        await it.instances.start(it.request())
        it.cell.ends(CellExit(3))
        ended = await anext(events)
        assert isinstance(ended, InstanceEnded)
        assert (ended.reason, ended.detail) == (EndReason.EXITED, "exited with code 3")
        await it.instances.stop("a1", 0.0)
        await it.instances.start(it.request("a2"))
        watched = next(iter(it.instances.watched()))
        watched.kill(EndReason.TIMEOUT, "ran past its timeout")
        watched.kill(EndReason.OUT_OF_MEMORY, "came second")
        ended = await anext(events)
        assert isinstance(ended, InstanceEnded)
        assert (ended.instance_id, ended.reason) == ("a2", EndReason.TIMEOUT)
    logged = await it.instances.logs(LogQuery("env", "fn"))
    assert logged[-1].text == "the instance was ended: it ran past its timeout"


async def test_a_stop_asks_first_and_kills_when_the_grace_is_over(it: Scene) -> None:
    await it.instances.start(it.request())
    polite = it.cell
    await it.instances.stop("a1", 60.0)
    assert polite.received[-1] == {"op": "end"}
    assert await polite.wait() == CellExit(0)
    await it.instances.start(it.request("a2"))
    deaf = it.cell
    deaf.deaf = True
    await it.instances.stop("a2", 0.01)
    assert await deaf.wait() == CellExit(-1, signal.SIGKILL)


async def test_quiescing_an_instance_that_dies_meanwhile_says_so(it: Scene) -> None:
    await it.instances.start(it.request())
    it.cell.deaf = True
    quiescing = asyncio.create_task(it.instances.quiesce("a1"))
    await it.until(lambda: it.cell.received[-1] == {"op": "quiesce"})
    it.cell.ends(CellExit(1))
    with pytest.raises(InstanceNotFound):
        await quiescing


async def test_what_function_code_writes_to_the_channel_changes_nothing_but_its_own_state(it: Scene) -> None:
    await it.instances.start(it.request())
    for line in (b"not json", b'{"event":"booted"}', b'{"event":"dance"}', b"[]", b'"x"', b"\xff"):
        it.cell.says(line)
    await it.instances.quiesce("a1")
    assert it.instances.report().instances[0].state is InstanceState.QUIESCED


async def test_flooding_the_control_channel_ends_the_instance(it: Scene) -> None:
    await it.instances.start(it.request())
    for _ in range(WORDS_BURST // 50):
        for _ in range(50):
            it.cell.says(b'{"event":"quiesced"}')
        await asyncio.sleep(0)
    assert await it.cell.wait() == CellExit(-1, signal.SIGKILL)
    await it.until(lambda: it.instances.report().instances == ())


async def test_a_caller_that_gives_up_leaves_the_start_to_go_on(it: Scene) -> None:
    it.failure = Failure.SLOW
    starting = asyncio.create_task(it.instances.start(it.request()))
    await it.until(lambda: bool(it.driver.cells))
    starting.cancel()
    with pytest.raises(asyncio.CancelledError):
        await starting
    it.cell.proceed()
    assert (await it.instances.start(it.request())).state is InstanceState.READY
    assert len(it.driver.cells) == 1


async def test_a_closing_node_starts_nothing(it: Scene) -> None:
    await it.instances.start(it.request())
    await it.instances.close(1.0)
    with pytest.raises(ShuttingDown):
        await it.instances.start(it.request("a2"))


def test_the_states_of_an_instance() -> None:
    assert after(InstanceState.STARTING, "loaded") is InstanceState.READY
    assert after(InstanceState.STARTING, "quiesced") is InstanceState.STARTING
    assert after(InstanceState.READY, "quiesced") is InstanceState.QUIESCED
    assert after(InstanceState.QUIESCED, "resumed") is InstanceState.READY
    for event in ("loaded", "quiesced", "resumed"):
        assert after(InstanceState.ENDED, event) is InstanceState.ENDED


def test_the_reason_of_an_end() -> None:
    aborted = CellExit(-1, signal.SIGABRT)
    assert end_reason(EndReason.STOPPED, CellExit(0), False) is EndReason.STOPPED
    assert end_reason(None, aborted, True) is EndReason.OUT_OF_MEMORY
    assert end_reason(None, aborted, False) is EndReason.EXITED
    assert end_reason(None, CellExit(0), True) is EndReason.EXITED

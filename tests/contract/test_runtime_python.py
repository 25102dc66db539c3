"""The instance contract: what only Python has."""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Iterator

import pytest

from cloudlet.model.function import Runtime
from tests.contract.runtime_cell import Cell, Order, cell


@pytest.fixture
def shim() -> Iterator[Cell]:
    with cell(Runtime.PYTHON3, sys.executable) as started:
        yield started


def load(shim: Cell, source: str, order: Order | None = None) -> None:
    shim.write_file("index.py", source)
    event = shim.load(order or Order())
    assert event["event"] == "loaded", event


class TestHandlers:
    def test_user_code_runs_on_the_main_thread(self, shim: Cell) -> None:
        load(
            shim,
            """
import signal, threading
signal.signal(signal.SIGALRM, lambda *_: None)
loaded_on = threading.current_thread() is threading.main_thread()
def main_handler(event, context):
    return [loaded_on, threading.current_thread() is threading.main_thread()]
""",
        )
        assert shim.call().json == [True, True]

    def test_an_async_handler_keeps_its_loop(self, shim: Cell) -> None:
        load(
            shim,
            """
import asyncio
kept = []
async def main_handler(event, context):
    loop = asyncio.get_running_loop()
    if not kept:
        kept.append((loop, asyncio.Queue()))
        await kept[0][1].put("from before")
        return None
    assert loop is kept[0][0]
    return await kept[0][1].get()
""",
        )
        assert shim.call().json is None
        assert shim.call().json == "from before"

    def test_callables_of_other_kinds(self, shim: Cell) -> None:
        shim.write_file(
            "index.py",
            """
import functools
class Handler:
    async def __call__(self, event, context): return "object"
async def partial(kind, event, context): return kind
def plain(event, context): return partial("awaitable", event, context)
handlers = [Handler(), functools.partial(partial, "partial"), plain]
def main_handler(event, context): return handlers[event](event, context)
""",
        )
        assert shim.load()["event"] == "loaded"
        assert [shim.call(n).json for n in range(3)] == ["object", "partial", "awaitable"]

    def test_only_the_standard_library_and_the_functions_own_code(self, shim: Cell) -> None:
        shim.write_file("calls.py", "name = 'mine'")
        load(
            shim,
            """
import calls
def main_handler(event, context):
    found = []
    for name in ("cloudlet", "msgspec", "structlog"):
        try:
            __import__(name)
            found.append(name)
        except ImportError:
            pass
    return [calls.name, found]
""",
        )
        assert shim.call().json == ["mine", []]

    def test_a_module_named_like_one_of_pythons_is_told(self, shim: Cell) -> None:
        shim.write_file("json.py", "def main(event, context): pass")
        assert "rename the file" in shim.load(Order(handler="json.main"))["error"]["errorMessage"]


class TestFailures:
    def test_results_that_are_not_json(self, shim: Cell) -> None:
        load(
            shim,
            """
import datetime
results = {
    "datetime": datetime.datetime(2026, 1, 1), "bytes": b"x", "nan": float("nan"), "set": {1},
    "deep": {"a": [{"b": {1}}]}, "key": {(1, 2): 3}, "infinity": [float("inf")],
}
def main_handler(event, context): return results[event]
""",
        )
        for name in ("datetime", "bytes", "nan", "set", "deep", "key", "infinity"):
            reply = shim.call(name)
            assert reply.headers["x-cloudlet-error"] == "function_failed", name
            assert reply.error["errorMessage"].startswith("function result is not JSON: "), name
        assert "datetime is not JSON serializable" in shim.call("datetime").error["errorMessage"]

    def test_every_kind_of_exception_is_an_answer(self, shim: Cell) -> None:
        load(
            shim,
            """
import asyncio
cancelled = asyncio.CancelledError
kinds = [KeyboardInterrupt, cancelled, GeneratorExit, StopIteration, RecursionError, BaseException]
def main_handler(event, context): raise kinds[event]("kind")
""",
        )
        for number in range(6):
            assert shim.call(number).headers["x-cloudlet-error"] == "function_failed"

    def test_too_much_memory_is_an_error_of_the_call(self, shim: Cell) -> None:
        load(
            shim,
            "def main_handler(event, context): return len(bytearray(event['mb'] << 20))",
            Order(memory_mb=128),
        )
        assert "MemoryError" in shim.call({"mb": 512}).error["errorMessage"]
        assert shim.call({"mb": 16}).json == 16 << 20

    def test_leaving_from_an_async_handler(self, shim: Cell) -> None:
        load(shim, "import sys\nasync def main_handler(event, context): sys.exit('good bye')")
        assert shim.call().error["errorMessage"] == "function exited with code 1 before it answered"
        assert shim.exit_code() == 1
        assert any(line.text == "good bye" for line in shim.logs(1))

    @pytest.mark.parametrize("style", ["def", "async def"])
    def test_leaving_answers_all_who_run(self, shim: Cell, style: str) -> None:
        wait = "time.sleep(60)" if style == "def" else "await asyncio.sleep(60)"
        load(
            shim,
            f"""
import asyncio, sys, time
{style} main_handler(event, context):
    if "leave" in event: sys.exit(4)
    {wait}
""",
            Order(concurrency=3, timeout_ms=60_000),
        )
        with contextlib.ExitStack() as stack:
            connections = [stack.enter_context(contextlib.closing(shim.connect())) for _ in range(3)]
            connections[0].send()
            connections[1].send()
            shim.wait_until_started(2)
            connections[2].send({"leave": 1})
            for connection in connections:
                assert connection.reply().headers["x-cloudlet-error"] == "function_exited"
        assert shim.exit_code() == 4

    def test_the_stack_starts_in_the_functions_own_code(self, shim: Cell) -> None:
        load(shim, "def main_handler(event, context): return helper()\ndef helper(): raise OSError('why')")
        lines = shim.call().error["stackTrace"].splitlines()
        assert lines[0] == "Traceback (most recent call last):"
        assert "index.py" in lines[1]
        assert lines[-1] == "OSError: why"


class TestThreads:
    def test_a_computing_handler_does_not_keep_others_from_being_refused(self, shim: Cell) -> None:
        load(
            shim,
            "import os\ndef main_handler(event, context):\n"
            " while not os.path.exists(event['until']): sum(range(1000))\n",
            Order(timeout_ms=60_000),
        )
        gate = shim.directory / "gate"
        with contextlib.closing(shim.connect()) as running, contextlib.closing(shim.connect()) as other:
            running.send({"until": str(gate)})
            shim.wait_until_running()
            assert other.call({}).headers["x-cloudlet-busy"] == "1"
            shim.send(op="quiesce")
            assert shim.event() == {"event": "quiesced"}
            gate.touch()
            assert running.reply().status == 200

    def test_with_concurrency_plain_functions_run_in_threads_of_their_own(self, shim: Cell) -> None:
        load(
            shim,
            """
import os, threading, time
barrier = threading.Barrier(5)
def main_handler(event, context):
    seen = [os.environ["WX_OPENID"]]
    barrier.wait(10)
    print("meeting")
    seen.append(os.environ["WX_OPENID"])
    return seen
""",
            Order(concurrency=5, timeout_ms=20_000),
        )
        callers = [f"o{number}" for number in range(5)]
        with contextlib.ExitStack() as stack:
            connections = [stack.enter_context(contextlib.closing(shim.connect())) for _ in callers]
            for openid, connection in zip(callers, connections, strict=True):
                connection.send({}, openid=openid, request_id=openid)
            for openid, connection in zip(callers, connections, strict=True):
                assert connection.reply().json == [openid, openid]
        assert {line.request_id for line in shim.logs(5)} == set(callers)

    def test_a_normal_end_runs_what_was_registered_for_it(self, shim: Cell) -> None:
        load(shim, "import atexit\natexit.register(print, 'ended')\ndef main_handler(event, context): pass")
        shim.send(op="end")
        assert shim.exit_code() == 0
        assert shim.logs(1)[0].text == "ended"


class TestEnvironment:
    def test_it_looks_like_the_real_one(self, shim: Cell) -> None:
        load(
            shim,
            """
import os
def main_handler(event, context):
    os.environ["NEW"] = "5"
    merged = os.environ | {"MORE": "1"}
    try:
        os.environ["WX_OPENID"] = 5
    except TypeError:
        refused = True
    return [
        "WX_OPENID" in os.environ, "WX_UNIONID" in os.environ, os.environ.get("WX_UNIONID", "default"),
        sorted(name for name in os.environ if name.startswith("WX_")), os.environ.pop("NEW"),
        "NEW" in os.environ, merged["MORE"], merged["WX_OPENID"], os.environ.copy()["WX_OPENID"], refused,
        os.path.expandvars("$WX_OPENID"), len(os.environ) == len(dict(os.environ)),
    ]
""",
        )
        names = ["WX_API_TOKEN", "WX_CONTEXT_KEYS", "WX_OPENID"]
        assert shim.call(openid="o1").json == [
            *(True, False, "default", names, "5", False, "1", "o1", "o1", True, "o1", True),
        ]


class TestOutput:
    def test_log_records_keep_their_level(self, shim: Cell) -> None:
        load(
            shim,
            """
import logging
logging.basicConfig(level=logging.DEBUG, format="%(name)s: %(message)s")
log = logging.getLogger("mine")
def main_handler(event, context):
    log.debug("d"); log.info("i"); log.warning("w"); log.error("e")
    try:
        1 / 0
    except ZeroDivisionError:
        log.exception("x")
""",
        )
        shim.call(request_id="r-1")
        lines = shim.logs(9)
        seen = {(line.level, line.text) for line in lines}
        assert {("debug", "mine: d"), ("info", "mine: i"), ("warn", "mine: w"), ("error", "mine: e")} <= seen
        assert ("error", "ZeroDivisionError: division by zero") in seen
        assert {line.request_id for line in lines} == {"r-1"}

    def test_a_log_without_settings_shows_warnings(self, shim: Cell) -> None:
        load(
            shim, "import logging\ndef main_handler(event, context):\n logging.getLogger('a').warning('seen')"
        )
        shim.call()
        (line,) = shim.logs(1)
        assert (line.level, line.text) == ("warn", "seen")

"""The wiring: boot, the node's operations, and the main thread."""

from __future__ import annotations

import os
import signal
import sys
from _queue import Empty, SimpleQueue
from time import monotonic
from typing import Any

from .calls import Calls, Loaded
from .environment import ExclusiveScope, Scope, SharedScope, install_view
from .execute import Executor, executor_for, exit_code_of
from .identity import INVOCATION_VARIABLES
from .load import limit_memory, load_handler
from .output import Output
from .replies import Description, describe_error
from .server import Server

_SWITCH_INTERVAL_S = 0.001
"""How long a computing handler may keep the network thread waiting, each time it needs the interpreter."""
_REHEARSAL_AFTER_S = 0.025


def main() -> None:
    """Be a cell until the process ends."""
    # An interrupt typed at the terminal reaches every process there; ending instances is the node's business.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    sys.setswitchinterval(_SWITCH_INTERVAL_S)
    Cell().run()


class Cell:
    """One shim process."""

    def __init__(self) -> None:
        self._scope: Scope = ExclusiveScope()
        self._output = Output(self._request_id)
        self._orders: SimpleQueue[dict[str, Any]] = SimpleQueue()
        self._server = Server(self._obey, self._end)
        self._calls: Calls | None = None
        self._executor: Executor | None = None

    def run(self) -> None:
        self._output.install()
        self._server.start()
        self._server.send({"event": "booted"})
        order = self._wait_for_order()
        executor, calls = self._load(order)
        executor.run(calls)
        self._output.flush()
        sys.exit(0 if calls.ending is None else calls.ending.code)

    # --- the network thread

    def _obey(self, message: dict[str, Any]) -> None:
        """Do what the node says."""
        match message.get("op"):
            case "load":
                self._orders.put(message)
            case "quiesce":
                if self._calls is not None:
                    self._calls.quiesce()
                self._server.send({"event": "quiesced"})
            case "resume":
                if self._calls is not None:
                    self._calls.resume()
                self._server.send({"event": "resumed"})
            case "end":
                if self._calls is None:
                    os._exit(0)
                self._calls.leave()
            case unknown:
                self._output.emit("warn", f"unknown operation on the control channel: {unknown}")

    def _end(self) -> None:
        if self._executor is not None:
            self._executor.stop()

    # --- the main thread

    def _wait_for_order(self) -> dict[str, Any]:
        """A cell that nobody needs at once is a cell of the pool: it has the time to import what is slow to
        import and what many functions need."""
        try:
            return self._orders.get(timeout=_REHEARSAL_AFTER_S)
        except Empty:
            __import__("asyncio")
            return self._orders.get()

    def _load(self, order: dict[str, Any]) -> tuple[Executor, Calls]:
        """Evaluate the function's code; the process ends when that fails."""
        started = monotonic()
        try:
            self._prepare(order)
            handler = load_handler(order["code"], order["handler"])
            executor = executor_for(handler, int(order["concurrency"]))
        except SystemExit as ending:
            text = f"function exited with code {exit_code_of(ending)} while it was loaded"
            self._load_failed({"errorCode": 1, "errorMessage": text, "stackTrace": ""})
        except BaseException as error:
            self._load_failed(describe_error(error))
        load_ms = (monotonic() - started) * 1000
        loaded = Loaded(handler, order, load_ms)
        calls = Calls(loaded, self._scope, self._output, executor.dispatch, self._server.wake)
        self._calls, self._executor = calls, executor
        self._output.flush()
        self._server.serve(calls)
        self._server.send({"event": "loaded", "load_ms": round(load_ms, 3)})
        return executor, calls

    def _prepare(self, order: dict[str, Any]) -> None:
        """The variables and limits of the instance, before any code of the function runs."""
        for name in INVOCATION_VARIABLES:
            os.environ.pop(name, None)
        os.environ.update(order["environment"])
        if order["concurrency"] > 1:
            self._scope = SharedScope()
        install_view(self._scope, {"TCB_ENV": str(order["context"]["namespace"])})
        limit_memory(int(order["memory_mb"]))

    def _load_failed(self, described: Description) -> None:
        self._output.emit("error", str(described["stackTrace"] or described["errorMessage"]))
        self._output.flush()
        self._server.send({"event": "load_failed", "error": described})
        os._exit(1)

    def _request_id(self) -> str:
        invocation = self._scope.current()
        return "" if invocation is None else invocation.call.caller.request_id

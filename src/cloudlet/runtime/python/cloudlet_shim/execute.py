"""Running handlers: one at a time on the main thread, or several in tasks or threads."""

from __future__ import annotations

import sys
from _queue import SimpleQueue
from collections.abc import Callable
from contextvars import copy_context
from threading import Thread
from typing import TYPE_CHECKING, Any, Protocol

from .calls import Calls, Invocation

if TYPE_CHECKING:
    import asyncio

_CO_COROUTINE = 0x80
"""Flag of a code object that belongs to an ``async def`` (inspect.CO_COROUTINE)."""


class Executor(Protocol):
    """Takes invocations from the network thread and runs them."""

    def dispatch(self, invocation: Invocation) -> None:
        """Hand over an invocation; returns at once, may be called from any thread."""
        ...

    def run(self, calls: Calls) -> None:
        """Run what is dispatched, on the main thread, until `stop`."""
        ...

    def stop(self) -> None:
        """Let `run` return; may be called from any thread."""
        ...


def executor_for(main: Callable[..., Any], concurrency: int) -> Executor:
    """The way in which this handler is run."""
    if is_coroutine_function(main):
        return TaskExecutor(main) if concurrency > 1 else ThreadExecutor(main, 1, _new_loop())
    return ThreadExecutor(main, concurrency, None)


def is_coroutine_function(main: Any) -> bool:
    """Whether calling `main` gives a coroutine, as far as can be told without calling it."""
    while hasattr(main, "func"):
        main = main.func  # functools.partial
    code = getattr(main, "__code__", None) or getattr(type(main).__call__, "__code__", None)
    return code is not None and bool(code.co_flags & _CO_COROUTINE)


class ThreadExecutor:
    """Handlers run in threads of which the main one is the first. An ``async def`` runs in one event loop for
    the whole life of the instance, so that what it keeps open stays usable."""

    def __init__(
        self, main: Callable[..., Any], threads: int, loop: asyncio.AbstractEventLoop | None
    ) -> None:
        self._main = main
        self._threads = threads
        self._loop = loop
        self._queue: SimpleQueue[Invocation | None] = SimpleQueue()

    def dispatch(self, invocation: Invocation) -> None:
        self._queue.put(invocation)

    def stop(self) -> None:
        for _ in range(self._threads):
            self._queue.put(None)

    def run(self, calls: Calls) -> None:
        for _ in range(self._threads - 1):
            Thread(target=self._work, args=(calls, None), daemon=True).start()
        self._work(calls, self._loop)

    def _work(self, calls: Calls, loop: asyncio.AbstractEventLoop | None) -> None:
        while (invocation := self._queue.get()) is not None:
            arguments = calls.begin(invocation)
            if arguments is None:
                continue
            try:
                result = self._main(*arguments)
                if hasattr(result, "__await__"):
                    loop = loop or _new_loop()
                    result = loop.run_until_complete(_finish(result))
            except SystemExit as ending:
                calls.exit_all(exit_code_of(ending))
            except BaseException as error:
                calls.failed(invocation, error)
            else:
                calls.returned(invocation, result)


class TaskExecutor:
    """Several ``async def`` handlers at a time: tasks of one event loop on the main thread."""

    def __init__(self, main: Callable[..., Any]) -> None:
        self._main = main
        self._loop = _new_loop()
        self._tasks: set[asyncio.Task[None]] = set()
        """The loop itself holds tasks only weakly."""
        self._calls: Calls | None = None

    def dispatch(self, invocation: Invocation) -> None:
        self._loop.call_soon_threadsafe(self._start, invocation)

    def stop(self) -> None:
        self._loop.call_soon_threadsafe(self._loop.stop)

    def run(self, calls: Calls) -> None:
        self._calls = calls
        self._loop.run_forever()

    def _start(self, invocation: Invocation) -> None:
        task = self._loop.create_task(self._work(invocation), context=copy_context())
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _work(self, invocation: Invocation) -> None:
        calls = self._calls
        assert calls is not None, "invocations are dispatched after run()"
        arguments = calls.begin(invocation)
        if arguments is None:
            return
        try:
            result = await self._main(*arguments)
        except SystemExit as ending:
            calls.exit_all(exit_code_of(ending))
        except BaseException as error:
            calls.failed(invocation, error)
        else:
            calls.returned(invocation, result)


def exit_code_of(ending: SystemExit) -> int:
    """The code that the process would end with."""
    if ending.code is None:
        return 0
    if isinstance(ending.code, int):
        return ending.code
    print(ending.code, file=sys.stderr)
    return 1


def _new_loop() -> asyncio.AbstractEventLoop:
    """asyncio is imported for those who need it only: it costs more than the rest of the start."""
    import asyncio

    loop = asyncio.new_event_loop()
    asyncio.set_event_loop(loop)
    return loop


async def _finish(awaitable: Any) -> Any:
    return await awaitable

"""How the processes of one installation are started and stopped: the entry point of control and api.

The node starts ``python -m cloudlet.serve.process NAME --settings JSON --listen NAME=FD …`` and stops it with
SIGTERM. Settings travel as one value, so that nothing below the node reads the environment again.
"""

from __future__ import annotations

import argparse
import asyncio
import signal
import socket
import sys
from collections.abc import Awaitable, Callable, Mapping, Sequence

import structlog
import uvloop

from cloudlet.model.errors import PlatformError
from cloudlet.observe.logs import PROCESS_FAILED, configure
from cloudlet.settings import Settings

Listeners = Mapping[str, socket.socket]
Main = Callable[[Settings, Listeners, asyncio.Event], Awaitable[None]]
"""A process: runs until the event is set, then ends in order and returns."""


def command(name: str, settings: Settings, listeners: Mapping[str, int]) -> list[str]:
    """The command line of process `name`, which inherits these descriptors."""
    words = [sys.executable, "-m", "cloudlet.serve.process", name, "--settings", settings.model_dump_json()]
    for listener, descriptor in listeners.items():
        words += ["--listen", f"{listener}={descriptor}"]
    return words


async def stopped_by_signal() -> asyncio.Event:
    """An event that SIGTERM and SIGINT set."""
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)
    return stop


async def ended(task: asyncio.Task[None]) -> None:
    """Cancel a task that runs beside the rest, and return when it is gone."""
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)


def main(arguments: Sequence[str]) -> None:
    """Run one process until it is told to stop."""
    parser = argparse.ArgumentParser(prog="cloudlet.serve.process")
    parser.add_argument("name", choices=["control", "api"])
    parser.add_argument("--settings", required=True, type=Settings.handed_over)
    parser.add_argument("--listen", action="append", default=[], type=_listener)
    given = parser.parse_args(arguments)
    configure(given.settings.log_level, given.name)
    try:
        uvloop.run(_run(_main_of(given.name), given.settings, dict(given.listen)))
    except PlatformError as error:
        # The node reads this line and tells it to whoever started the platform.
        structlog.get_logger(__name__).error(PROCESS_FAILED, code=error.code, message=error.message)
        sys.exit(1)


def _main_of(name: str) -> Main:
    # Imported late: each process loads only what it runs.
    if name == "control":
        from cloudlet.serve.control import run_control

        return run_control
    from cloudlet.serve.api import run_api

    return run_api


async def _run(process: Main, settings: Settings, listeners: Listeners) -> None:
    await process(settings, listeners, await stopped_by_signal())


def _listener(word: str) -> tuple[str, socket.socket]:
    name, descriptor = word.split("=")
    return name, socket.socket(fileno=int(descriptor))


if __name__ == "__main__":
    main(sys.argv[1:])

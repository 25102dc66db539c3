"""``cloudlet up``: the node process, parent of everything on this machine."""

from __future__ import annotations

import asyncio
import contextlib
import os
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from pathlib import Path
from socket import socket

import aiohttp
import structlog

from cloudlet.gateway.envoy.admin import AdminClient
from cloudlet.gateway.envoy.command import argv, check_packages
from cloudlet.gateway.envoy.options import EdgeOptions
from cloudlet.model.clock import SystemClock
from cloudlet.model.errors import EdgeUnavailable, InvalidParameter, Unavailable
from cloudlet.model.function import Runtime
from cloudlet.model.sandbox import Rung
from cloudlet.node.instances import NodeLimits
from cloudlet.node.node import Node, NodeParts, shown_directories
from cloudlet.node.runtimes import Runtimes
from cloudlet.node.supervisor import ProcessSpec, Supervisor
from cloudlet.observe.logs import configure
from cloudlet.sandbox.base import Driver
from cloudlet.sandbox.namespaces.driver import NamespacesDriver, Options
from cloudlet.sandbox.process import ProcessDriver
from cloudlet.serve import process
from cloudlet.serve.control_link import ControlLink
from cloudlet.serve.installation import claim_port, listen_unix, lock_data, prepare_data, run_directory
from cloudlet.settings import Paths, Settings

log = structlog.get_logger(__name__)

DRAIN_S = 15.0
"""How long calls in flight may go on when the platform stops."""
PUBLISHED_S_MAX = 15.0
POLL_S = 0.02


@dataclass(frozen=True, slots=True)
class Ready:
    """What is told to whoever started the platform."""

    url: str
    data: Path
    rung: Rung
    private_tmp: bool
    took_s: float


def run_node(settings: Settings, tell: Callable[[Ready], None]) -> None:
    """Run the platform until SIGINT or SIGTERM, then end it in order; `tell` is called when it is ready.

    Raise DataDirectoryInUse, PortTaken, StoreUnavailable, InvalidRequest or Unavailable; nothing is left
    behind then.
    """
    started = time.monotonic()
    settings = settings.model_copy(update={"data": settings.data.expanduser().resolve()})
    paths = Paths(settings.data)
    configure(settings.log_level, "node")
    check_packages()
    prepare_data(paths)
    with lock_data(paths), run_directory(paths):
        settings = settings.model_copy(update={"port": claim_port(settings.host, settings.port)})
        asyncio.run(_run(settings, paths, started, tell))


async def _run(settings: Settings, paths: Paths, started: float, tell: Callable[[Ready], None]) -> None:
    stop = await process.stopped_by_signal()
    clock = SystemClock()
    async with contextlib.AsyncExitStack() as stack:
        driver = _driver(settings, paths)
        stack.push_async_callback(driver.close)
        if isinstance(driver, NamespacesDriver):
            await driver.start()  # nothing runs where the isolation that was asked for cannot be had
        supervisor = Supervisor(paths.logs / "_platform", clock)
        parts = NodeParts(driver, clock, processes=supervisor.status)
        node = Node(paths, parts, NodeLimits(instances_max=settings.instances_max))
        await node.start()
        stack.push_async_callback(node.close)
        stack.push_async_callback(supervisor.stop)
        edge = AdminClient(EdgeOptions.of(settings, paths, ()).files.admin_socket)
        stack.push_async_callback(edge.close)
        platform = _Platform(settings, paths, supervisor, edge, stack)
        starting = asyncio.create_task(platform.start())
        stopping = asyncio.create_task(stop.wait())
        stack.push_async_callback(_cancel, stopping)
        await asyncio.wait({starting, stopping}, return_when=asyncio.FIRST_COMPLETED)
        if not starting.done():
            await _cancel(starting)
            return
        starting.result()
        tell(
            Ready(
                settings.service_url, paths.data, driver.rung, driver.private_tmp, time.monotonic() - started
            )
        )
        await stopping
        await platform.drain()


class _Platform:
    """The processes beside the node: api, control and the edge."""

    def __init__(
        self,
        settings: Settings,
        paths: Paths,
        supervisor: Supervisor,
        edge: AdminClient,
        stack: contextlib.AsyncExitStack,
    ) -> None:
        self._settings = settings
        self._paths = paths
        self._supervisor = supervisor
        self._edge = edge
        self._stack = stack
        self._control = ControlLink(paths.control_socket)
        stack.push_async_callback(self._control.close)

    async def start(self) -> None:
        """Return when calls are answered. Raise Unavailable with the last words of what did not start."""
        listeners = {
            name: self._listen(path)
            for name, path in (
                ("api", self._paths.api_socket),
                ("admin", self._paths.admin_socket),
                ("activator", self._paths.activator_socket),
                ("control", self._paths.control_socket),
            )
        }
        await asyncio.gather(
            self._supervisor.start(self._python("api", ("api", "admin"), listeners, self._api_answers)),
            self._supervisor.start(
                self._python("control", ("activator", "control"), listeners, self._control_answers)
            ),
        )
        # Only now: the edge reads files that control has written.
        await self._supervisor.start(self._envoy())
        await self._until_published()

    async def drain(self) -> None:
        """Take no new calls and let those in flight end."""
        try:
            if not await self._edge.drain(DRAIN_S):
                log.warning("calls_cut", after_s=DRAIN_S)
        except EdgeUnavailable as error:
            log.warning("edge_not_drained", error=error.message)

    def _listen(self, path: Path) -> socket:
        listener = listen_unix(path)
        self._stack.callback(listener.close)
        return listener

    def _python(
        self,
        name: str,
        names: tuple[str, ...],
        listeners: dict[str, socket],
        probe: Callable[[], Awaitable[bool]],
    ) -> ProcessSpec:
        numbers = {listener: 3 + position for position, listener in enumerate(names)}
        return ProcessSpec(
            name=name,
            argv=tuple(process.command(name, self._settings, numbers)),
            env=_environment() | (self._settings.secrets() if name == "api" else {}),
            pass_fds={number: listeners[listener].fileno() for listener, number in numbers.items()},
            ready_probe=probe,
            alive_probe=probe,
            grace_s=20.0,
        )

    def _envoy(self) -> ProcessSpec:
        options = EdgeOptions.of(self._settings, self._paths, ())
        return ProcessSpec(
            name="envoy",
            argv=tuple(argv(options)),
            env=_environment(),
            ready_probe=self._edge.ready,
            alive_probe=self._edge.alive,
            grace_s=3.0,
        )

    async def _api_answers(self) -> bool:
        return await _answers(self._paths.api_socket, "/health")

    async def _control_answers(self) -> bool:
        with contextlib.suppress(Unavailable):
            await self._control.status()
            return True
        return False

    async def _until_published(self) -> None:
        deadline = time.monotonic() + PUBLISHED_S_MAX
        while (await self._control.status())["published"] < 0:
            if time.monotonic() > deadline:
                log_file = self._paths.logs / "_platform" / "control.log"
                raise EdgeUnavailable(f"the edge did not take its configuration: see {log_file}")
            await asyncio.sleep(POLL_S)


def _driver(settings: Settings, paths: Paths) -> Driver:
    if settings.rung is Rung.PROCESS:
        for directory in shown_directories(paths):
            directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        return ProcessDriver(shown_directories(paths))
    if settings.rung is Rung.NAMESPACES:
        visible = (*shown_directories(paths), *_interpreters(paths))
        paths.runtimes.chmod(0o755)  # instances have users of their own; the data directory is closed anyway
        options = Options(user_first=settings.cell_user_first, user_count=settings.cell_user_count)
        return NamespacesDriver((paths.code,), tuple(set(visible) - {paths.code, paths.cache}), options)
    raise InvalidParameter(
        f"the isolation {settings.rung.value!r} is not there yet: use CLOUDLET_RUNG=namespaces"
    )


def _interpreters(paths: Paths) -> tuple[Path, ...]:
    """Where the interpreters are that came with the installation; Python's own the driver knows."""
    node = Runtimes(paths.runtimes).interpreter(Runtime.NODE24)
    return () if node is None else (node.resolve().parent,)


def _environment() -> dict[str, str]:
    """What the platform's own processes see: the machine's settings. They get ours as one value."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith("CLOUDLET_")}
    # control starts no processes; without this gRPC prints a line whenever a library asks for the platform.
    return kept | {"GRPC_ENABLE_FORK_SUPPORT": "0"}


async def _answers(path: Path, target: str) -> bool:
    try:
        async with (
            aiohttp.ClientSession(
                connector=aiohttp.UnixConnector(str(path)), timeout=aiohttp.ClientTimeout(total=5)
            ) as session,
            session.get(f"http://local{target}") as reply,
        ):
            return reply.status == 200
    except (aiohttp.ClientError, TimeoutError):
        return False


async def _cancel(task: asyncio.Task[object] | asyncio.Task[None]) -> None:
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)

"""``cloudlet dev``."""

from __future__ import annotations

import os
import signal
import threading
from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING, Any

import click

from ..exit_codes import ExitCode
from ..session import CommandFailed, Session, command_options, isolation

if TYPE_CHECKING:
    from .cycle import Cycle
    from .follow import Follow
    from .platform import DevPlatform
    from .screen import Screen

NODE_EVENTS_MAX = 100
LOOK_S = 0.1
"""How often the logs are looked at."""
NO_VERIFY = (
    "WeChat tools: Details > Local settings > do not verify the domain and TLS "
    "(详情 → 本地设置 → 不校验合法域名、web-view（业务域名）、TLS 版本以及 HTTPS 证书)"
)


@click.command()
@click.argument("path", type=click.Path(exists=True, file_okay=False, path_type=Path), default=".")
@click.option(
    "--port", type=click.IntRange(0, 65535), help="Port of the edge; 0 takes a free one.  [default: 8787]"
)
@click.option("--host", help="Address of the edge.  [default: 127.0.0.1]")
@click.option("--lan", is_flag=True, help="Listen on this machine's address in its network, for phones.")
@click.option("--qr/--no-qr", default=True, show_default=True, help="Print a QR code of the network address.")
@click.option("--env", default="", help="Environment or alias to deploy to.  [default: the project's own]")
@command_options
def dev(
    session: Session, path: Path, port: int | None, host: str | None, lan: bool, qr: bool, env: str
) -> None:
    """Run a project while you write it: cloudlet, a deploy of each save, and the logs of all functions.

    A saved file is live in about a second; one that does not load is shown with its error, and the version
    before goes on serving. Collections are created when they are used for the first time. Data is kept.

    \b
    Examples:
      cloudlet dev
      cloudlet dev examples/order-food --lan
    """
    from cloudlet.functions.project import read_project
    from cloudlet.settings import Paths

    from .cycle import Cycle
    from .follow import Follow
    from .lan import lan_address
    from .platform import DevPlatform
    from .screen import Screen

    if lan and host:
        raise click.UsageError("--lan chooses the address: leave --host away")
    project = read_project(path, os.environ)
    address = lan_address()
    if lan and address is None:
        raise CommandFailed(
            "this machine has no network address: leave --lan away", ExitCode.REFUSED, "usage"
        )
    data = session.settings(port=port, host=host).data.expanduser().absolute()
    given = {"--port": port, "--host": address if lan else host}
    options = {name: str(value) for name, value in given.items() if value is not None}
    screen = Screen(session.as_json)
    node: deque[dict[str, Any]] = deque(maxlen=NODE_EVENTS_MAX)
    stop = threading.Event()
    with DevPlatform(data, options, node.append) as platform, _ended_by_signals(stop, platform):
        try:
            ready = platform.start()
        except CommandFailed:
            if stop.is_set():
                return
            raise
        if stop.is_set():
            return
        _banner(screen, ready, address, lan, qr)
        paths = Paths(Path(ready["data"]))
        cycle = Cycle(session.client(), project, env, paths.data, screen, stop)
        follow = Follow(paths, cycle.folders, screen)
        _work(cycle, follow, node, platform, stop)
        screen.say("stopped", "stopped")


def _work(
    cycle: Cycle, follow: Follow, node: deque[dict[str, Any]], platform: DevPlatform, stop: threading.Event
) -> None:
    """Follow the logs here, watch and deploy on a thread, until one of them or the platform ends."""
    thread = threading.Thread(target=cycle.run, name="deploys", daemon=True)
    thread.start()
    while not stop.wait(LOOK_S):
        follow.look()
        while node:
            follow.event(node.popleft())
        if not platform.running and not stop.is_set():
            raise platform.failed()
        if not thread.is_alive() and not stop.is_set():
            raise cycle.failure or CommandFailed("watching ended", ExitCode.FAILED, "internal")
    platform.stop()
    # Its connection is gone with the platform, whatever it was waiting for.
    thread.join(5.0)
    follow.look()
    follow.look()


@contextmanager
def _ended_by_signals(stop: threading.Event, platform: DevPlatform) -> Iterator[None]:
    """Ctrl-C, SIGTERM and a closed terminal end everything in order; a second Ctrl-C is of no use."""

    def end(number: int, frame: FrameType | None) -> None:
        stop.set()
        platform.terminate()

    former = {number: signal.signal(number, end) for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)}
    try:
        yield
    finally:
        for number, handler in former.items():
            signal.signal(number, handler)


def _banner(screen: Screen, ready: dict[str, Any], address: str | None, lan: bool, qr: bool) -> None:
    from .lan import qr_code

    port = ready["url"].rsplit(":", 1)[-1]
    network = f"http://{address}:{port}" if address else None
    where = network or "this machine has no network address"
    lines = [
        f"cloudlet is ready after {ready['took_s']:.1f} s",
        f"  URL        {ready['url']}",
        f"  Network    {where}" + ("" if lan or not network else " (closed: open it with --lan)"),
        f"  Data       {ready['data']} (kept)",
        f"  Isolation  {isolation(ready['rung'])}",
        f"  {NO_VERIFY}",
    ]
    if qr:
        lines += ["", qr_code(network or ready["url"])]
    screen.say("ready", "\n".join(lines), **ready, network_url=network, network_open=lan)

"""What ten thousand registered functions cost one installation: routes, one more publish, memory, start.

``calls_per_s`` compares calls of one function beside an installation with ten functions, in interleaved
rounds; both have as many instances of it, so that only the way to them differs. ``publish_ms`` is the last
step of a deploy: from "publishing" until the edge has confirmed. ``control_pause_ms`` is the longest that
control's event loop let a small question wait during a deploy, ``control_pause_idle_ms`` the same while
nothing happened: what the machine itself adds. ``publish_cpu_ms`` is the processor time of control and Envoy
for a whole deploy, which a busy machine changes least.
"""

from __future__ import annotations

import argparse
import asyncio
import http.client
import json
import os
import socket
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from bench.harness.errors import BenchmarkFailed
from bench.harness.http import EVENT, checked_call
from bench.harness.platform import BenchInstallation, Copies, ended, installation
from bench.harness.quiet import Quiet
from bench.harness.results import Row
from bench.harness.run import Progress, benchmark, time_limit
from bench.harness.stats import median, paired_ratio
from bench.harness.tools import need_wrk
from bench.harness.wrk import Target, load
from bench.idle import pss_mb, role
from cloudlet.cli.client import AdminClient
from cloudlet.functions import wire
from cloudlet.functions.archive import pack
from cloudlet.functions.project import read_project
from cloudlet.model.function import VersionKey
from cloudlet.model.ids import DEFAULT_ENVIRONMENT, LATEST
from cloudlet.settings import Paths
from cloudlet.state.sqlite import SqliteRecords

SIZES = (2000, 10_000)
FEW = 10
"""Functions of the installation that the large ones are compared with."""
CONNECTIONS = 64
ASK_EVERY_S = 0.002
WAIT_S_MAX = 60.0
SETTLE_S = 2.0
"""After the start, before memory is looked at: lazily loaded parts are in."""
TOGETHER_S_MAX = 900
CALLED = "called"
"""The function that is called: the code of ``add-node``, with INSTANCES instances at most."""
INSTANCES = 2
CODE = "exports.main = async () => ({ number: %d })\n"


@dataclass(slots=True)
class Measured:
    """One size; a value per round."""

    few: list[float] = field(default_factory=list)
    calls: list[float] = field(default_factory=list)
    p99_ms: list[float] = field(default_factory=list)
    publish_ms: list[float] = field(default_factory=list)
    publish_cpu_ms: list[float] = field(default_factory=list)
    pause_ms: list[float] = field(default_factory=list)
    idle_pause_ms: list[float] = field(default_factory=list)
    ready_s: list[float] = field(default_factory=list)
    memory_mb: dict[str, float] = field(default_factory=dict)
    errors: int = 0

    def rows(self, case: str) -> list[Row]:
        """Medians of the rounds; of pauses the longest of all."""
        ratio = round(paired_ratio(self.calls, self.few), 3)
        return [
            Row(case, "calls_per_s", round(median(self.calls), 1), "calls/s"),
            Row(case, "calls_per_s", round(median(self.few), 1), "calls/s", f"{FEW} functions", ratio),
            Row(case, "p99_ms", round(median(self.p99_ms), 3), "ms"),
            Row(case, "publish_ms", round(median(self.publish_ms), 1), "ms"),
            Row(case, "publish_max_ms", round(max(self.publish_ms), 1), "ms"),
            Row(case, "publish_cpu_ms", round(median(self.publish_cpu_ms), 1), "ms"),
            Row(case, "control_pause_ms", round(median(self.pause_ms), 1), "ms"),
            Row(case, "control_pause_max_ms", round(max(self.pause_ms), 1), "ms"),
            Row(case, "control_pause_idle_ms", round(median(self.idle_pause_ms), 1), "ms"),
            Row(case, "ready_s", round(median(self.ready_s), 3), "s"),
            Row(case, "memory_mb", round(sum(self.memory_mb.values()), 1), "MB"),
            *(Row(case, f"memory_mb_{name}", round(mb, 1), "MB") for name, mb in self.memory_mb.items()),
            Row(case, "errors", float(self.errors), "calls"),
        ]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0] if __doc__ else None)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seconds", type=int, default=2, help="of each run of wrk")
    parser.add_argument("--sizes", type=int, nargs="+", default=SIZES, help="functions registered")
    options = parser.parse_args()
    benchmark("scale", lambda: measure(options.sizes, options.rounds, options.seconds))


def measure(sizes: Sequence[int], rounds: int, seconds: int) -> Sequence[Row]:
    wrk, progress, quiet = need_wrk(), Progress(), Quiet()
    found: list[Row] = []
    with time_limit(TOGETHER_S_MAX), _registered(FEW) as few:
        for size in sizes:
            case = f"functions-{size}"
            measured = Measured()
            with _registered(size) as many:
                progress(f"{case}: registered")
                _start(many, measured, rounds)
                progress(f"{case}: ready after {median(measured.ready_s):.2f} s")
                _publish(many, measured, rounds, quiet)
                progress(
                    f"{case}: published in {median(measured.publish_ms):.0f} ms, "
                    f"control paused {max(measured.pause_ms):.0f} ms"
                )
                _call(wrk, few, many, measured, rounds, seconds, quiet)
                progress(f"{case}: {median(measured.calls):,.0f} calls/s")
            found += measured.rows(case)
    return [*found, *quiet.rows()]


@contextmanager
def _registered(size: int) -> Iterator[BenchInstallation]:
    with installation([Copies("add-node", size)], only=("add-node",)) as running:
        ended(running)
        asyncio.run(_add_called(Paths(running.data).control_db))
        running.start()
        yield running


async def _add_called(control_db: Path) -> None:
    records = SqliteRecords(control_db)
    try:
        found = records.find_function(DEFAULT_ENVIRONMENT, "add-node")
        if found is None:
            raise BenchmarkFailed("add-node was not deployed")
        config = replace(found.config, scale=replace(found.config.scale, instances_max=INSTANCES))
        key = VersionKey(DEFAULT_ENVIRONMENT, CALLED, found.digest)
        await records.add_version(key, config, found.code_dir, time.time())
        await records.point_alias(key, LATEST, time.time())
    finally:
        records.close()


def _start(many: BenchInstallation, measured: Measured, rounds: int) -> None:
    """Stop and start; memory is that of the last start, with the default pools. Ready is when the edge has
    confirmed that it knows all functions."""
    for _ in range(rounds):
        ended(many)
        began = time.perf_counter()
        many.start()
        _until(lambda: _asked(many)["published"] >= 0, "the edge knew the functions")
        measured.ready_s.append(time.perf_counter() - began)
    many.quiet({"node24": 1, "python3": 1})
    time.sleep(SETTLE_S)
    for pid in many.processes():
        name = role(Path(f"/proc/{pid}/cmdline").read_bytes().decode(errors="replace").split("\0"))
        mb = pss_mb(Path(f"/proc/{pid}/smaps_rollup").read_text())
        measured.memory_mb[name] = measured.memory_mb.get(name, 0.0) + mb


def _publish(many: BenchInstallation, measured: Measured, rounds: int, quiet: Quiet) -> None:
    control = Paths(many.data).control_socket
    for number in range(rounds):
        quiet.wait()
        before = _processor_s(many)
        with _asking(control) as pauses:
            measured.publish_ms.append(_deploy_one(many, number))
        measured.publish_cpu_ms.append((_processor_s(many) - before) * 1000)
        measured.pause_ms.append(max(pauses))
        with _asking(control) as pauses:
            time.sleep(measured.publish_ms[-1] / 1000)
        measured.idle_pause_ms.append(max(pauses))


def _processor_s(running: BenchInstallation) -> float:
    """Processor time that control and Envoy have used so far."""
    used = 0.0
    for process in running.status()["processes"]:
        if process["name"] in {"control", "envoy"}:
            fields = Path(f"/proc/{process['pid']}/stat").read_text().rpartition(")")[2].split()
            used += (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")
    return used


def _asked(running: BenchInstallation) -> dict[str, Any]:
    """What control says about itself."""
    connection = _connected(Paths(running.data).control_socket)
    try:
        answer: dict[str, Any] = json.loads(_ask(connection))
        return answer
    finally:
        connection.close()


def _connected(control: Path) -> http.client.HTTPConnection:
    connection = http.client.HTTPConnection("control", timeout=30)
    connection.sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    connection.sock.connect(str(control))
    return connection


def _ask(connection: http.client.HTTPConnection) -> bytes:
    connection.request("POST", "/status", b"{}", {"content-type": "application/json"})
    return connection.getresponse().read()


def _until(condition: Callable[[], bool], what: str) -> None:
    """Raise BenchmarkFailed when it takes longer than WAIT_S_MAX."""
    deadline = time.monotonic() + WAIT_S_MAX
    while not condition():
        if time.monotonic() > deadline:
            raise BenchmarkFailed(f"waited {WAIT_S_MAX:.0f} s until {what}")
        time.sleep(ASK_EVERY_S)


def _deploy_one(many: BenchInstallation, number: int) -> float:
    """Deploy a function that is new; return the milliseconds of its publication. Raise BenchmarkFailed."""
    name = f"one-more-{number}"
    admin = AdminClient(Paths(many.data).admin_socket, "cloudlet is not running")
    with tempfile.TemporaryDirectory(prefix="cloudlet-bench-") as folder:
        directory = Path(folder) / "cloudfunctions" / name
        directory.mkdir(parents=True)
        (Path(folder) / "project.config.json").write_text('{"cloudfunctionRoot": "cloudfunctions/"}')
        (directory / "index.js").write_text(CODE % number)
        source = read_project(Path(folder), {}).functions[0]
        with tempfile.TemporaryFile() as packed:
            pack(directory, packed)
            size = packed.tell()
            packed.seek(0)
            upload = wire.FunctionUpload(name, admin.upload(packed, size), source.settings.config)
    began = 0.0
    for line in admin.deploy(wire.encode_request(wire.DeployRequest((upload,), env="default"))):
        event, now = wire.decode_event(line), time.perf_counter()
        if isinstance(event, wire.Progress) and event.step == "publishing":
            began = now
        elif isinstance(event, wire.FunctionDone):
            if event.status != "deployed" or not began:
                raise BenchmarkFailed(f"{name} was not deployed: {event.message}")
            return (now - began) * 1000
    raise BenchmarkFailed(f"the deploy of {name} ended without a word")


@contextmanager
def _asking(control: Path) -> Iterator[list[float]]:
    """Ask control something small again and again, as long as the block lasts. Yield the milliseconds of the
    answers, at least one."""
    stop, took = threading.Event(), list[float]()

    def ask() -> None:
        connection = _connected(control)
        while not (took and stop.is_set()):
            began = time.perf_counter()
            _ask(connection)
            took.append((time.perf_counter() - began) * 1000)
            time.sleep(ASK_EVERY_S)
        connection.close()

    thread = threading.Thread(target=ask)
    thread.start()
    try:
        yield took
    finally:
        stop.set()
        thread.join()


def _call(
    wrk: str,
    few: BenchInstallation,
    many: BenchInstallation,
    measured: Measured,
    rounds: int,
    seconds: int,
    quiet: Quiet,
) -> None:
    """Few and many in turn, the first of a round alternating."""
    targets = [each.target(CALLED, each.token("oBench")) for each in (few, many)]
    for installed, target in zip((few, many), targets, strict=True):
        checked_call(target)

        def settled(installed: BenchInstallation = installed, target: Target = target) -> bool:
            load(wrk, target, EVENT, CONNECTIONS, seconds)
            return any(version["early"] for version in _asked(installed)["versions"])

        _until(settled, f"{target.name} was bound early")
        load(wrk, target, EVENT, CONNECTIONS, seconds)
    for number in range(rounds):
        quiet.wait()
        order = targets if number % 2 else targets[::-1]
        loads = {id(target): load(wrk, target, EVENT, CONNECTIONS, seconds) for target in order}
        few_load, many_load = (loads[id(target)] for target in targets)
        measured.few.append(few_load.calls_per_s)
        measured.calls.append(many_load.calls_per_s)
        measured.p99_ms.append(many_load.p99_ms)
        measured.errors += few_load.errors + many_load.errors


if __name__ == "__main__":
    main()

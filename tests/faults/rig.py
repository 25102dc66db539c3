"""An installation under fire: its processes by name, how to hit them, and what must hold afterwards."""

from __future__ import annotations

import asyncio
import os
import signal
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from cloudlet.cli.client import AdminClient
from cloudlet.model.errors import PlatformError
from cloudlet.model.function import VersionKey
from cloudlet.model.ids import DEFAULT_ENVIRONMENT, LATEST
from cloudlet.settings import Paths
from cloudlet.state.sqlite import SqliteRecords
from tests.acceptance.installation import Installation, descendants, identity
from tests.acceptance.player import Player
from tests.faults.answers import NotAllowed
from tests.faults.belongings import Belongings, belongings, check_descriptors, left_cgroups, own_cgroups
from tests.faults.traffic import Ledger, SignedClient, Traffic
from tests.integration.up_support import until

PROJECT = Path(__file__).parent / "projects" / "faults"
PLATFORM = ("api", "control", "envoy")
CELL = "cell"
"""Instances and the cells that wait to become one."""
USERS = ("user-a", "user-b")


class Target:
    """One running installation with the project deployed."""

    def __init__(self, installation: Installation, wall: Callable[[], float] = time.time) -> None:
        """`wall` is the clock of the installation."""
        self._wall = wall
        self.installation = installation
        self.paths = Paths(installation.data)
        self._ledgers: list[Ledger] = []
        self._admin = AdminClient(self.paths.admin_socket, "not running")
        self._seen: dict[int, tuple[str, str]] = {}
        self._cgroups: set[Path] = set()
        self._rest: Belongings | None = None
        self._connect()
        created = self._signed.send("database.addCollection", collectionName="notes")
        assert "code" not in created.body, created

    def _connect(self) -> None:
        installation = self.installation
        self._users = [Player(installation.url, installation.token(openid), openid) for openid in USERS]
        given = installation.json("env", "credentials", "default")
        self._signed = SignedClient(installation.url, given["secretId"], given["secretKey"], self._wall)

    def kill_everything(self, traffic: Traffic) -> None:
        """SIGKILL to ``cloudlet up`` under the clients: everything else must go by itself. Then it is started
        again; its address is another, so the clients end."""
        traffic.edge_hit = True
        family = self._remember()
        self.installation.kill()
        until(lambda: all(identity(pid) != known for pid, known in family.items()), "everything has ended")
        traffic.stop()
        self.close()
        self.installation.start()
        self._connect()

    def close(self) -> None:
        """Hang up; the next call connects again."""
        for user in self._users:
            user.close()
        self._signed.close()

    @contextmanager
    def traffic(self, clients: int) -> Iterator[Traffic]:
        """Clients that play until the end of the block. Once they have stopped, no answer may have been one
        that is not on the list, and what they were promised must hold."""
        self.close()  # a connection may have been broken by what was hit before
        ledger = Ledger(f"r{len(self._ledgers)}-")
        self._ledgers.append(ledger)
        traffic = Traffic(self._users, self._signed, ledger)
        self.served(traffic)
        traffic.start(clients)
        try:
            until(lambda: traffic.warm() or not clients, "the clients play")
            yield traffic
        finally:
            traffic.stop()
        self.check(ledger)

    def check(self, *ledgers: Ledger) -> None:
        """Raise AssertionError unless every answer was on the list and what was promised holds: of all runs
        so far when none are named."""
        wrong: Counter[str] = Counter()
        for ledger in ledgers or self._ledgers:
            wrong.update(ledger.faults)
            wrong.update(ledger.compare(self._signed.ids("notes", ledger.run)))
        if wrong:
            shown = "\n".join(f"{count} x {text}" for text, count in wrong.most_common(8))
            raise AssertionError(f"{wrong.total()} faults; {dict(self.counts())}\n{shown}")

    def documents(self, traffic: Traffic) -> set[str]:
        """The ids of the documents of this run that are there now."""
        return self._signed.ids("notes", traffic.ledger.run)

    def counts(self) -> Counter[str]:
        """Answers of all runs by what they promised."""
        return sum((ledger.counts for ledger in self._ledgers), Counter())

    def processes(self) -> dict[str, list[int]]:
        """The children of ``cloudlet up`` by name, asked of the kernel: it answers while others do not."""
        found: dict[str, list[int]] = {name: [] for name in (*PLATFORM, CELL)}
        up = self.installation.pid
        children = Path(f"/proc/{up}/task/{up}/children").read_text().split()
        for pid in map(int, children):
            name = _name(pid)
            if name and identity(pid) is not None:
                found[name].append(pid)
        return found

    def hit(self, number: signal.Signals, *names: str) -> list[int]:
        """Send a signal to the named processes, all at once; of cells, to the youngest."""
        processes = self.processes()
        victims = [processes[name][-1] for name in names if processes[name]]
        self._remember()
        for pid in victims:
            send_signal(pid, number)
        return victims

    def recover(self, traffic: Traffic, victims: list[int]) -> float:
        """Return the seconds until the victims were gone and everybody was served again."""
        began = time.monotonic()
        before = {pid: self._seen[pid] for pid in victims if pid in self._seen}
        until(lambda: all(identity(pid) != known for pid, known in before.items()), "the victims are gone")
        until(lambda: all(self.processes()[name] for name in PLATFORM), "all processes run again")
        self.served(traffic)
        return time.monotonic() - began

    def served(self, traffic: Traffic) -> None:
        """Wait until a call and a write of each kind succeed."""
        self.wait(traffic, traffic.probe, "everybody is served")

    def wait(self, traffic: Traffic, condition: Callable[[], bool], what: str) -> None:
        """Wait for something while the clients play; at the first fault there is nothing to wait for."""
        ledger = traffic.ledger
        try:
            until(lambda: ledger.faults or condition(), what)
        except AssertionError as exc:
            raise AssertionError(f"{exc}: {dict(ledger.counts)}") from exc

    def instances(self) -> list[dict[str, Any]]:
        """Instances that take calls, as the node reports them."""
        return [dict(each) for each in self._status()["running"] if each["state"] == "ready"]

    def starting(self, function: str) -> int:
        """Process id of the instance of `function` that is being loaded, 0 when there is none."""
        found = [
            each["pid"]
            for each in self._status()["running"]
            if (each["function"], each["state"]) == (function, "starting")
        ]
        return int(found[0]) if found else 0

    def user(self) -> Player:
        """One who is signed in."""
        return self._users[0]

    def settle(self) -> None:
        """Wait for the end of idle instances; then nothing may be left of what was hit, and the installation
        holds what it held the first time."""
        until(self._at_rest, "idle instances have ended and the pools are full")
        now = self._remember()
        until(lambda: not self._orphans(now), f"orphans are gone: {self._orphans(now)}")
        left = left_cgroups(self._cgroups, now)
        until(lambda: not left_cgroups(left, now), f"cgroups are gone: {left}")
        self._rest = self._rest or self._belongings()
        until(lambda: self._belongings() == self._rest, f"only this is held: {self._rest}")

    @contextmanager
    def leaving_nothing(self, clients: int) -> Iterator[None]:
        """Whatever is hit in the block under so many clients, nothing more is held after it than before."""
        with self.traffic(clients):
            pass  # their connections are kept, and those that their calls go on over
        self.settle()
        before = self.descriptors()
        yield
        self.settle()
        check_descriptors(before, self.descriptors())

    def descriptors(self) -> dict[str, int]:
        """Open descriptors of the processes that live long."""
        pids = {"node": self.installation.pid} | {name: self.processes()[name][0] for name in PLATFORM}
        return {name: len([*Path(f"/proc/{pid}/fd").iterdir()]) for name, pid in pids.items()}

    def _belongings(self) -> Belongings:
        up = self.installation.pid
        return belongings([up, *descendants(up)], self.paths.run)

    def _remember(self) -> dict[int, tuple[str, str]]:
        """The processes that are there now, and their cgroups: of each something may be left later."""
        family = descendants(self.installation.pid)
        self._seen |= family
        for pid in family:
            self._cgroups |= own_cgroups(pid)
        return family

    def _orphans(self, now: dict[int, tuple[str, str]]) -> list[str]:
        """Processes that were ours, live on, and are nobody's child any more."""
        return [
            f"{pid} {known[1]}"
            for pid, known in self._seen.items()
            if pid not in now and identity(pid) == known
        ]

    def _at_rest(self) -> bool:
        """No instance runs, and the directory of cells holds exactly one socket and one directory for each
        cell that waits."""
        try:
            status = self._status()
        except (PlatformError, NotAllowed):
            return False
        waiting = sum(status["pools"].values())
        names = [path.suffix for path in self.paths.instances.iterdir()]
        cells = len(self.processes()[CELL])
        full = waiting > 0 and not status["running"]
        return full and cells == waiting == names.count(".sock") == names.count("")

    def _status(self) -> dict[str, Any]:
        status = self._admin.get("/status")
        if not status["node"]:
            raise NotAllowed("the node does not answer")
        return status


def send_signal(pid: int, number: signal.Signals) -> None:
    """To one process: 0 and negative numbers would mean many, ourselves among them."""
    if pid <= 1:
        raise ValueError(f"{pid} is no process of ours")
    os.kill(pid, number)


@contextmanager
def under_fire(data: Path, wall: Callable[[], float] = time.time, functions: int = 0) -> Iterator[Target]:
    """A running installation with the project deployed; at the end it stops and leaves nothing behind. So
    many more `functions` are registered, which nobody calls."""
    installation = Installation(data)
    target: Target | None = None
    try:
        installation.start()
        installation.deploy(PROJECT)
        if functions:
            assert installation.stop() == []
            asyncio.run(_register(Paths(data).control_db, functions))
            installation.start()
        target = Target(installation, wall)
        yield target
    finally:
        if target is not None:
            target.close()
        left = installation.stop()
    assert left == []


async def _register(control_db: Path, functions: int) -> None:
    """Copies of one that was deployed, written as a deploy does."""
    records = SqliteRecords(control_db)
    try:
        found = records.find_function(DEFAULT_ENVIRONMENT, "echo")
        assert found is not None
        for number in range(functions):
            key = VersionKey(DEFAULT_ENVIRONMENT, f"copy-{number:04}", found.digest)
            await records.add_version(key, found.config, found.code_dir, time.time())
            await records.point_alias(key, LATEST, time.time())
    finally:
        records.close()


def _name(pid: int) -> str:
    try:
        command = Path(f"/proc/{pid}/cmdline").read_bytes().split(b"\0")
    except OSError:
        return ""
    if b"cloudlet.serve.process" in command:
        return command[command.index(b"cloudlet.serve.process") + 1].decode()
    if command[0].endswith(b"/envoy"):
        return "envoy"
    return CELL if any(b"shim" in word for word in command) else ""

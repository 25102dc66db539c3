"""Processes are killed while clients call and write: nothing acknowledged is lost, all are answered."""

from __future__ import annotations

import signal
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from tests.faults.answers import Promise, of_function
from tests.faults.rig import CELL, Target, send_signal, under_fire
from tests.integration.up_support import until

pytestmark = pytest.mark.xdist_group("faults")
CLIENTS = 64


@pytest.fixture(scope="module")
def target(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Target]:
    with under_fire(tmp_path_factory.mktemp("faults") / "data") as target, target.leaving_nothing(CLIENTS):
        yield target


@pytest.mark.parametrize(
    "names",
    [(CELL,), ("control",), ("api",), ("envoy",), ("control", "api"), ("envoy", "control"), ("api", CELL)],
    ids="+".join,
)
def test_killed(target: Target, names: tuple[str, ...]) -> None:
    with target.traffic(CLIENTS) as traffic:
        traffic.edge_hit = "envoy" in names
        victims = target.hit(signal.SIGKILL, *names)
        assert len(victims) == len(names)
        target.recover(traffic, victims)


def test_the_edge_is_killed_while_control_is_down(target: Target) -> None:
    """Envoy finds on disk what control published last, and control what the node reports."""
    with target.traffic(CLIENTS) as traffic:
        traffic.edge_hit = True
        victims = target.hit(signal.SIGSTOP, "control")
        victims += target.hit(signal.SIGKILL, "envoy")
        target.recover(traffic, victims)


def test_the_node_is_killed_and_everything_with_it(target: Target) -> None:
    with target.traffic(CLIENTS) as traffic:
        target.kill_everything(traffic)


def test_every_instance_is_killed_while_it_runs_calls(target: Target) -> None:
    with target.traffic(CLIENTS) as traffic:
        running = until(target.instances, "instances run")
        for each in running:
            send_signal(each["pid"], signal.SIGKILL)
        target.recover(traffic, [each["pid"] for each in running])


def test_an_idle_instance_that_was_killed_costs_no_call(target: Target) -> None:
    with target.traffic(0) as traffic:
        idle = [each["pid"] for each in target.instances()]
        assert idle
        for pid in idle:
            send_signal(pid, signal.SIGKILL)
        # Until the node has reaped them: before, the first thread may have ended, while others still hold the
        # socket and a call may be cut off with them.
        until(lambda: not any(Path(f"/proc/{pid}").exists() for pid in idle), "the instances are gone")
        assert traffic.probe(), dict(traffic.ledger.counts)


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGSTOP])
def test_an_instance_that_is_hit_while_it_loads_costs_no_call(target: Target, number: signal.Signals) -> None:
    """Its function has done nothing wrong: the call that waits for it gets another one."""
    with ThreadPoolExecutor(1) as pool:
        call = pool.submit(target.user().call, "slow", {"n": number})
        send_signal(until(lambda: target.starting("slow"), "an instance is being loaded"), number)
        answer = call.result()
    assert of_function(answer) is Promise.DONE, answer
    until(lambda: not target.installation.instances("slow"), "it has ended")

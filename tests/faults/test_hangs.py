"""Processes that are stopped by a signal while clients call and write: they are noticed and replaced."""

from __future__ import annotations

import signal
from collections.abc import Iterator

import pytest

from tests.acceptance.installation import identity
from tests.faults.rig import CELL, Target, send_signal, under_fire
from tests.integration.up_support import until

pytestmark = pytest.mark.xdist_group("faults")
CLIENTS = 64


@pytest.fixture(scope="module")
def target(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Target]:
    with under_fire(tmp_path_factory.mktemp("hangs") / "data") as target, target.leaving_nothing(CLIENTS):
        yield target


@pytest.mark.parametrize("name", ["api", "control", "envoy", CELL])
def test_stopped(target: Target, name: str) -> None:
    with target.traffic(CLIENTS) as traffic:
        traffic.edge_hit = name == "envoy"
        victims = target.hit(signal.SIGSTOP, name)
        target.recover(traffic, victims)


def test_the_node_itself_may_be_stopped_for_a_while(target: Target) -> None:
    """Nobody watches the node (its parent is the user's or the system's): once continued it goes on, and has
    killed nobody for the time it slept."""
    with target.traffic(CLIENTS) as traffic:
        before = {name: pids for name, pids in target.processes().items() if name != CELL}
        pid = target.installation.pid
        send_signal(pid, signal.SIGSTOP)
        try:
            calls = traffic.ledger.counts["call done"]
            until(lambda: traffic.ledger.counts["call done"] > calls + 50, "calls go on without the node")
        finally:
            send_signal(pid, signal.SIGCONT)
        target.served(traffic)
        assert identity(pid) is not None
        assert {name: pids for name, pids in target.processes().items() if name != CELL} == before


def test_functions_go_on_and_documents_wait_while_api_is_away(target: Target) -> None:
    """The node is stopped first, so that api stays away until it is continued."""
    with target.traffic(CLIENTS) as traffic:
        counts = traffic.ledger.counts
        pid = target.installation.pid
        send_signal(pid, signal.SIGSTOP)
        try:
            victims = target.hit(signal.SIGKILL, "api")
            until(lambda: all(identity(victim) is None for victim in victims), "api has ended")
            calls = counts["call done"]
            target.wait(traffic, lambda: counts["call done"] > calls + CLIENTS, "functions answer")
        finally:
            send_signal(pid, signal.SIGCONT)
        target.recover(traffic, victims)

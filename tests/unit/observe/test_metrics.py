"""What the metrics of every process share."""

from __future__ import annotations

import asyncio
import os
import subprocess

import pytest
from prometheus_client import CollectorRegistry, Counter

from cloudlet.observe.metrics import LoopPauses, Reader, counter, exposition, gauge, resident_bytes

pytestmark = pytest.mark.anyio


def test_the_page_has_no_times_of_creation() -> None:
    registry = CollectorRegistry()
    Counter("cloudlet_test_calls_total", "Calls", registry=registry).inc()
    assert exposition(registry).decode() == (
        "# HELP cloudlet_test_calls_total Calls\n"
        "# TYPE cloudlet_test_calls_total counter\n"
        "cloudlet_test_calls_total 1.0\n"
    )


def test_a_reader_is_asked_at_every_scrape() -> None:
    registry, values = CollectorRegistry(), [1.0]
    registry.register(
        Reader(
            lambda: (
                gauge("cloudlet_test_size", "Size", [(("a",), values[-1])], ("kind",)),
                counter("cloudlet_test_ends_total", "Ends", [((), values[-1])]),
            )
        )
    )
    assert registry.get_sample_value("cloudlet_test_size", {"kind": "a"}) == 1
    values.append(2.0)
    assert registry.get_sample_value("cloudlet_test_size", {"kind": "a"}) == 2
    assert registry.get_sample_value("cloudlet_test_ends_total") == 2


def test_a_loop_that_is_held_up_is_noticed() -> None:
    registry = CollectorRegistry()
    pauses = LoopPauses("test", registry)
    pauses.came(due=10.0, now=10.3)
    pauses.came(due=20.0, now=19.9999)
    name = "cloudlet_test_loop_pause_seconds"
    assert registry.get_sample_value(f"{name}_count") == 2
    assert registry.get_sample_value(f"{name}_bucket", {"le": "0.25"}) == 1
    assert registry.get_sample_value(f"{name}_bucket", {"le": "0.5"}) == 2


async def test_the_loop_is_looked_at_until_cancelled() -> None:
    task = asyncio.create_task(LoopPauses("test", CollectorRegistry()).run())
    await asyncio.sleep(0)
    assert not task.done()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task


def test_memory_of_a_process_that_runs_and_of_one_that_is_gone() -> None:
    assert resident_bytes(os.getpid()) > 1024 * 1024
    child = subprocess.Popen(["/bin/true"])
    child.wait()
    assert resident_bytes(child.pid) == 0

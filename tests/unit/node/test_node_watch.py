"""When an instance is killed."""

from __future__ import annotations

from dataclasses import dataclass, field

from cloudlet.model.sandbox import EndReason
from cloudlet.node.watch import (
    DEADLINE_GRACE_NS,
    MEMORY_EVERY,
    STATE_EVERY,
    Bounds,
    Sighting,
    Watch,
    Watched,
    bounds_of,
    is_overdue,
    sighted,
)
from cloudlet.sandbox.base import Activity
from cloudlet.sandbox.fake import FakeMeter

SECOND = 1_000_000_000
BOUNDS = Bounds(timeout_ns=3 * SECOND, memory_bytes=100)


def test_nothing_that_runs_is_never_overdue() -> None:
    assert not is_overdue(Sighting(Activity(0, 7), 0), BOUNDS, 10**18)


def test_an_invocation_is_overdue_after_its_deadline_and_the_grace() -> None:
    sighting = Sighting(Activity(2 * SECOND, 1), SECOND)
    assert not is_overdue(sighting, BOUNDS, 2 * SECOND + DEADLINE_GRACE_NS)
    assert is_overdue(sighting, BOUNDS, 2 * SECOND + DEADLINE_GRACE_NS + 1)


def test_a_deadline_beyond_the_timeout_of_the_version_is_not_believed() -> None:
    forged = Sighting(Activity(10**18, 1), SECOND)
    assert not is_overdue(forged, BOUNDS, 4 * SECOND + DEADLINE_GRACE_NS)
    assert is_overdue(forged, BOUNDS, 4 * SECOND + DEADLINE_GRACE_NS + 1)


def test_a_sighting_keeps_the_time_at_which_the_page_first_looked_so() -> None:
    first = sighted(Sighting(), Activity(5, 1), 100)
    assert first.since_ns == 100
    assert sighted(first, Activity(5, 1), 200) is first
    assert sighted(first, Activity(6, 2), 200).since_ns == 200


def test_memory_is_that_of_the_function_and_of_its_runtime() -> None:
    assert bounds_of("node", 3.0, 256) == Bounds(3 * SECOND, (256 + 120) * 1024 * 1024)
    assert bounds_of("python", 0.5, 64) == Bounds(SECOND // 2, (64 + 48) * 1024 * 1024)


@dataclass
class Scene:
    at: float = 0.0
    killed: list[EndReason] = field(default_factory=list)
    meter: FakeMeter = field(default_factory=FakeMeter)

    def __post_init__(self) -> None:
        watched = Watched(self.meter, BOUNDS, lambda reason, _: self.killed.append(reason))
        self.watch = Watch(self, lambda: [watched])

    def now(self) -> float:
        return self.at

    def monotonic(self) -> float:
        return self.at

    def look(self, at: float) -> None:
        self.at = at
        self.watch.look()


def test_the_watch_kills_what_is_overdue_once_its_time_has_come() -> None:
    scene = Scene()
    scene.meter.current = Activity(SECOND, 1)
    scene.look(0.5)
    scene.look(1.1)
    assert scene.killed == []
    scene.look(1.2)
    assert scene.killed == [EndReason.TIMEOUT]


def test_the_watch_sees_a_busy_instance_grow_at_once_and_an_idle_one_soon() -> None:
    busy, idle = Scene(), Scene()
    for scene in (busy, idle):
        scene.meter.bytes_used = 101
    busy.meter.current = Activity(10 * SECOND, 1)
    busy.look(1.0)
    assert busy.killed == [EndReason.OUT_OF_MEMORY]
    for _ in range(MEMORY_EVERY):
        idle.look(1.0)
    assert idle.killed == [EndReason.OUT_OF_MEMORY]


def test_the_watch_ends_an_instance_that_stays_stopped() -> None:
    scene = Scene()
    for stopped in (True, False, True):
        scene.meter.is_stopped = stopped
        for _ in range(STATE_EVERY):
            scene.look(1.0)
        assert scene.killed == []
    for _ in range(STATE_EVERY):
        scene.look(1.0)
    assert scene.killed == [EndReason.EXITED]

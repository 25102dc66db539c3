"""A short kill loop; the long one is ``make soak``."""

from __future__ import annotations

from itertools import islice
from pathlib import Path

import pytest

from tests.faults.belongings import check_descriptors
from tests.faults.rig import under_fire
from tests.faults.soak import Blow, blows, play, summary

pytestmark = pytest.mark.xdist_group("faults")


def test_ten_rounds_hold(tmp_path: Path) -> None:
    with under_fire(tmp_path / "data") as target:
        done = play(target, blows(seed=20), rounds=10, limit_s=300, tell=print)
        print(summary(done, target))
    assert len(done) == 10


def test_the_seed_decides_what_is_hit() -> None:
    first, again, other = (list(islice(blows(seed), 50)) for seed in (1, 1, 2))
    assert first == again != other
    assert {blow.stop for blow in first} == {True, False}
    assert Blow(("node",)) in islice(blows(1), 500)


def test_descriptors_that_grow_are_a_leak() -> None:
    check_descriptors({"api": 10}, {"api": 20})
    with pytest.raises(AssertionError, match="api"):
        check_descriptors({"api": 10}, {"api": 80})

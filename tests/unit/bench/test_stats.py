"""Statistics of the benchmarks."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bench.harness.stats import median, paired_ratio, percentile, share_above

VALUES = st.lists(st.floats(0.001, 1e6), min_size=1, max_size=50)


@pytest.mark.parametrize(
    ("share", "expected"), [(0.01, 1), (0.1, 1), (0.11, 2), (0.5, 5), (0.95, 10), (0.99, 10), (1.0, 10)]
)
def test_a_percentile_is_a_value_that_was_measured(share: float, expected: int) -> None:
    assert percentile([10, 9, 8, 7, 6, 5, 4, 3, 2, 1], share) == expected


@given(VALUES, st.floats(0.01, 1.0))
def test_no_smaller_value_covers_the_share(values: list[float], share: float) -> None:
    found = percentile(values, share)
    assert sum(value <= found for value in values) >= share * len(values) - 1e-9
    assert sum(value < found for value in values) < share * len(values)


@pytest.mark.parametrize(("values", "share"), [([], 0.5), ([1.0], 0.0), ([1.0], 1.01)])
def test_a_percentile_of_nothing_is_refused(values: list[float], share: float) -> None:
    with pytest.raises(ValueError, match="percentile"):
        percentile(values, share)


def test_the_median_of_an_even_number_lies_between_the_middle_two() -> None:
    assert median([4, 1, 3, 2]) == 2.5
    with pytest.raises(ValueError, match="no values"):
        median([])


def test_ratios_are_taken_round_by_round() -> None:
    # The second round ran on a busy machine: it slowed both sides down and leaves the ratio as it is.
    assert paired_ratio([200, 20, 200], [100, 10, 100]) == 2
    assert paired_ratio([100, 300, 10], [100, 100, 100]) == 1


@pytest.mark.parametrize(("ours", "theirs"), [([1.0, 2.0], [1.0]), ([1.0], [0.0]), ([], [])])
def test_ratios_need_pairs(ours: list[float], theirs: list[float]) -> None:
    with pytest.raises(ValueError, match=r"round|no values"):
        paired_ratio(ours, theirs)


def test_the_share_above_a_limit_leaves_the_limit_out() -> None:
    assert share_above([99, 100, 101, 102], 100) == 0.5
    with pytest.raises(ValueError, match="no values"):
        share_above([], 100)

"""The few statistics that the tables need."""

from __future__ import annotations

import math
import statistics
from collections.abc import Sequence


def median(values: Sequence[float]) -> float:
    """Raise ValueError when there are none."""
    if not values:
        raise ValueError("no values were measured")
    return statistics.median(values)


def percentile(values: Sequence[float], share: float) -> float:
    """The smallest measured value that at least `share` (0 to 1) of the values do not exceed.

    A value that was measured, never one in between: with few samples p99 is the largest. Raise ValueError
    without values or for another share.
    """
    if not values or not 0 < share <= 1:
        raise ValueError("a percentile needs values and a share above 0 and up to 1")
    return sorted(values)[math.ceil(share * len(values)) - 1]


def paired_ratio(ours: Sequence[float], theirs: Sequence[float]) -> float:
    """Median of ours ÷ theirs, round by round: what disturbed a whole round disturbs both sides of it.

    Raise ValueError when the rounds do not pair or the peer measured nothing.
    """
    if len(ours) != len(theirs) or any(value <= 0 for value in theirs):
        raise ValueError("every round needs a value of ours and one above 0 of the peer")
    return median([mine / other for mine, other in zip(ours, theirs, strict=True)])


def share_above(values: Sequence[float], limit: float) -> float:
    """The share (0 to 1) of `values` above `limit`. Raise ValueError when there are none."""
    if not values:
        raise ValueError("no values were measured")
    return sum(value > limit for value in values) / len(values)

"""The activity page: shows the node when an invocation is over its time (contract, section 5)."""

from __future__ import annotations

import os
from struct import Struct

_PAGE = 5
_encode = Struct("<QQ").pack


class ActivityPage:
    """Publishes the earliest deadline and the number of invocations started."""

    def __init__(self) -> None:
        self.started = 0

    def publish(self, deadline_s: float) -> None:
        """`deadline_s`: CLOCK_MONOTONIC, of the earliest running invocation; 0 = nothing runs."""
        os.pwrite(_PAGE, _encode(round(deadline_s * 1e9), self.started), 0)

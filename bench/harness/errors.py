"""Why a benchmark has no result."""

from __future__ import annotations


class BenchmarkFailed(Exception):
    """Something the measurement needs is missing or answered wrongly; the message says what to do."""

"""Printed bytes become bounded lines."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from cloudlet.node.framing import LINE_BYTES_MAX, Line, LineSplitter, TokenBucket, parse_line


def test_a_framed_line_has_its_request_and_level() -> None:
    assert parse_line(b"\x1er-1\x1fwarn\x1fa\x1fb", "info") == Line("a\x1fb", "warn", "r-1")
    assert parse_line(b"\x1e\x1finfo\x1foutside of a call", "error") == Line("outside of a call", "info", "")


def test_what_is_no_frame_is_text() -> None:
    assert parse_line(b"plain\r", "info") == Line("plain", "info", "")
    assert parse_line(b"\x1er\x1fshout\x1fx", "error") == Line("\x1er\x1fshout\x1fx", "error", "")
    assert parse_line(b"\x1e" + b"r" * 65 + b"\x1finfo\x1fx", "info").request_id == ""
    assert parse_line(b"\xff\xfe", "info").text == "\ufffd\ufffd"


def test_a_line_that_is_too_long_loses_its_rest_and_nothing_else() -> None:
    splitter = LineSplitter()
    assert splitter.feed(b"a" * LINE_BYTES_MAX) == []
    assert splitter.feed(b"b" * 10 + b"\nnext\nlast") == [b"a" * LINE_BYTES_MAX, b"next"]
    assert splitter.finish() == [b"last"]
    assert splitter.finish() == []


@given(st.lists(st.binary(max_size=20)))
def test_how_a_stream_is_cut_into_reads_does_not_matter(pieces: list[bytes]) -> None:
    splitter = LineSplitter()
    lines = [line for piece in pieces for line in splitter.feed(piece)] + splitter.finish()
    whole = b"".join(pieces).split(b"\n")
    assert lines == (whole if whole[-1] else whole[:-1])


def test_a_bucket_gives_its_burst_and_then_its_rate() -> None:
    bucket = TokenBucket(rate=10, burst=2, now=0.0)
    assert [bucket.take(1, 0.0) for _ in range(3)] == [True, True, False]
    assert bucket.take(1, 0.1)
    assert not bucket.take(1, 0.1)
    assert bucket.take(2, 100.0)


def test_debt_says_how_long_to_wait() -> None:
    bucket = TokenBucket(rate=10, burst=10, now=0.0)
    assert bucket.spend(10, 0.0) == 0.0
    assert bucket.spend(5, 0.0) == 0.5
    assert bucket.spend(0, 0.5) == 0.0

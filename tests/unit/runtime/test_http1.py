"""The Python shim's reading of HTTP/1.1."""

from __future__ import annotations

import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cloudlet.runtime.python.cloudlet_shim.http1 import BadRequest, Body, Head, parse_head


def head(*lines: str) -> Head:
    return parse_head("\r\n".join(lines).encode("latin-1"))


def test_a_request() -> None:
    parsed = head("POST /a?b HTTP/1.1", "Host: c", "X-Request-Id:  r ", "x-a:", "Content-Length: 12")
    assert parsed.content_length == 12
    assert parsed.platform == [("x-request-id", "r"), ("x-a", "")]
    assert not (parsed.chunked or parsed.close or parsed.expects_continue)


@pytest.mark.parametrize(
    ("lines", "close"),
    [
        (["GET / HTTP/1.1"], False),
        (["GET / HTTP/1.1", "Connection: Close"], True),
        (["GET / HTTP/1.0"], True),
        (["GET / HTTP/1.0", "Connection: keep-alive"], False),
    ],
)
def test_whether_the_connection_stays(lines: list[str], close: bool) -> None:
    assert head(*lines).close is close


@pytest.mark.parametrize(
    "lines",
    [
        ["GET /"],
        ["GET  / HTTP/1.1"],
        ["GET / HTTP/2.0"],
        ["G=T / HTTP/1.1"],
        ["GET / HTTP/1.1", "no colon"],
        ["GET / HTTP/1.1", "space : x"],
        ["GET / HTTP/1.1", "a: b", " folded"],
        ["GET / HTTP/1.1", ": nameless"],
        ["GET / HTTP/1.1", "a: b\nc: d"],
        ["GET / HTTP/1.1", "content-length: 1", "content-length: 2"],
        ["GET / HTTP/1.1", "content-length: -1"],
        ["GET / HTTP/1.1", "content-length: +1"],
        ["GET / HTTP/1.1", "content-length: 1_0"],
        ["GET / HTTP/1.1", "content-length: ²"],
        ["GET / HTTP/1.1", "content-length: 9999999999999"],
        ["GET / HTTP/1.1", "content-length: 1", "transfer-encoding: chunked"],
        ["GET / HTTP/1.1", "transfer-encoding: gzip, chunked"],
    ],
)
def test_what_can_be_understood_in_two_ways_is_not_taken(lines: list[str]) -> None:
    with pytest.raises(BadRequest):
        head(*lines)


@st.composite
def pieces(draw: st.DrawFn, data: bytes) -> list[bytes]:
    """`data`, cut anywhere."""
    cuts = sorted(draw(st.lists(st.integers(0, len(data)), max_size=8)))
    edges = [0, *cuts, len(data)]
    return [data[start:end] for start, end in itertools.pairwise(edges)]


def read(body: Body, parts: list[bytes]) -> bytes:
    """Feed parts until the body ends; return what comes after it."""
    for index, part in enumerate(parts):
        rest = body.feed(part)
        if rest is not None:
            return rest + b"".join(parts[index + 1 :])
    raise AssertionError("the body did not end")


@given(st.data(), st.lists(st.binary(min_size=1, max_size=40), max_size=5), st.binary(max_size=20))
def test_a_chunked_body_in_any_pieces(data: st.DataObject, chunks: list[bytes], after: bytes) -> None:
    trailers = data.draw(st.sampled_from([b"", b"a: b\r\n", b"a: b\r\nc: d\r\n"]))
    encoded = b"".join(b"%x;ext=1\r\n%s\r\n" % (len(chunk), chunk) for chunk in chunks)
    parts = data.draw(pieces(encoded + b"0\r\n" + trailers + b"\r\n" + after))
    body = Body(head("POST / HTTP/1.1", "transfer-encoding: chunked"), 10_000)
    assert read(body, parts) == after
    assert body.value == b"".join(chunks)
    assert body.size == len(body.value)


@given(st.data(), st.binary(max_size=60), st.binary(max_size=20))
def test_a_body_of_known_length_in_any_pieces(data: st.DataObject, value: bytes, after: bytes) -> None:
    body = Body(head("POST / HTTP/1.1", f"content-length: {len(value)}"), 10_000)
    assert read(body, data.draw(pieces(value + after))) == after
    assert body.value == value


def test_what_is_over_the_limit_is_counted_and_thrown_away() -> None:
    body = Body(head("POST / HTTP/1.1", "content-length: 30"), 20)
    assert body.feed(b"x" * 15) is None
    assert body.feed(b"x" * 15 + b"next") == b"next"
    assert (body.size, body.value) == (30, b"")


@pytest.mark.parametrize(
    "data", [b"zz\r\n", b"\r\n", b"-1\r\n", b"fffffffff\r\n", b"1\r\nab\r\n", b"1" * 70_000]
)
def test_chunks_that_cannot_be_understood(data: bytes) -> None:
    body = Body(head("POST / HTTP/1.1", "transfer-encoding: chunked"), 10_000)
    with pytest.raises(BadRequest):
        body.feed(data)

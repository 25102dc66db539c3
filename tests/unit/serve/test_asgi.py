"""Answers leave the process whole."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from cloudlet.serve.asgi import WholeAnswers

pytestmark = pytest.mark.anyio
HEAD = b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\n"


class Recorder(asyncio.Transport):
    """A transport that remembers what it was given to send at once."""

    def __init__(self) -> None:
        super().__init__()
        self.sent: list[bytes] = []
        self.closed = False

    def write(self, data: bytes | bytearray | memoryview[Any]) -> None:
        self.sent.append(bytes(data))

    def close(self) -> None:
        self.closed = True


async def test_head_and_body_are_sent_at_once() -> None:
    recorder = Recorder()
    transport = WholeAnswers(recorder)
    for body in (b"ok", b""):
        transport.write(HEAD)
        transport.write(body)
    assert recorder.sent == [HEAD + b"ok", HEAD]


async def test_a_head_without_a_body_yet_leaves_in_the_next_turn() -> None:
    recorder = Recorder()
    transport = WholeAnswers(recorder)
    transport.write(HEAD)
    assert recorder.sent == []
    await asyncio.sleep(0)
    assert recorder.sent == [HEAD]
    transport.write(b"first piece")
    transport.write(b"second")
    assert recorder.sent == [HEAD, b"first piece", b"second"]


async def test_closing_sends_what_was_held_back() -> None:
    recorder = Recorder()
    transport = WholeAnswers(recorder)
    transport.write(HEAD)
    transport.close()
    await asyncio.sleep(0)
    assert recorder.sent == [HEAD]
    assert recorder.closed

"""The tools of the acceptance checks: what they would overlook, nobody would notice."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from tests.acceptance.installation import descendants, identity
from tests.acceptance.order_food import CheckFailed, outcome, same, together
from tests.acceptance.player import Answer, NoAnswer, Player


@contextmanager
def server(*replies: bytes) -> Iterator[str]:
    """Answers the first requests on each of several connections with `replies`, then hangs up."""
    listener = socket.create_server(("127.0.0.1", 0))

    def serve() -> None:
        with listener:
            connection, _ = listener.accept()
            with connection, connection.makefile("rb") as requests:
                for reply in replies:
                    length = 0
                    while (line := requests.readline()).strip():
                        if line.lower().startswith(b"content-length:"):
                            length = int(line.split(b":")[1])
                    requests.read(length)
                    connection.sendall(reply)

    thread = threading.Thread(target=serve)
    thread.start()
    try:
        yield f"http://127.0.0.1:{listener.getsockname()[1]}"
    finally:
        thread.join()


def reply(status: str, body: bytes, *headers: bytes) -> bytes:
    lines = [b"HTTP/1.1 " + status.encode(), b"content-length: %d" % len(body), *headers, b"", body]
    return b"\r\n".join(lines)


def test_reads_the_result_the_stages_and_the_request_id() -> None:
    timing = b"server-timing: queue;dur=0.5, load;desc=modules;dur=12, handler;dur=3.25"
    with server(reply("200 OK", b'{"success": true}', timing, b"x-request-id: r-1")) as url:
        with Player(url, "token") as player:
            answer = player.call("login", {})
    assert answer.ok and answer.word == "ok" and answer.request_id == "r-1"
    assert answer.stages == {"queue": 0.5, "load": 12.0, "handler": 3.25}


@pytest.mark.parametrize(
    ("status", "body", "word"),
    [
        ("200 OK", b'{"success": false, "reason": "sold_out"}', "sold_out"),
        ("404 Not Found", b'{"code": "FUNCTION_NOT_FOUND", "message": ""}', "FUNCTION_NOT_FOUND"),
        ("502 Bad Gateway", b"upstream connect error", "status 502"),
        ("500 Internal Server Error", b'{"success": true}', "status 500"),
        ("200 OK", b"null", "status 200"),
    ],
)
def test_says_in_one_word_what_came_back(status: str, body: bytes, word: str) -> None:
    with server(reply(status, body)) as url, Player(url) as player:
        assert player.call("order", {}).word == word


def test_a_broken_connection_is_no_answer_and_the_next_call_connects_again() -> None:
    with server() as url, Player(url) as player:
        with pytest.raises(NoAnswer):
            player.call("order", {})
        with pytest.raises(NoAnswer):  # nobody listens any more
            player.call("order", {})


def test_calls_made_together_keep_their_order_and_lose_no_failure() -> None:
    ok = reply("200 OK", b'{"success": true}')
    done: list[int] = []
    with server(ok) as url, Player(url) as player:
        answers = together([(player, "order", {})] * 3, workers=1, after_each=done.append)
    assert [outcome(answer) for answer in answers] == ["ok", "no answer", "no answer"]
    assert isinstance(answers[0], Answer) and done == [1, 2, 3]


def test_a_check_that_does_not_hold_says_both_values() -> None:
    with pytest.raises(CheckFailed, match="stock left: found 1, wanted 0"):
        same(1, 0, "stock left")


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
def test_finds_every_process_below_one_and_notices_its_end() -> None:
    child = subprocess.Popen(["sh", "-c", "sleep 60 & echo started; wait"], stdout=subprocess.PIPE)
    assert child.stdout is not None
    below: dict[int, tuple[str, str]] = {}
    try:
        assert child.stdout.readline() == b"started\n"
        below = descendants(child.pid)
        assert child.pid in descendants(os.getpid())
    finally:
        child.kill()
        for pid in below:
            os.kill(pid, 9)
        child.stdout.close()
        child.wait()
    assert len(below) == 1
    assert identity(child.pid) is None

"""The instance contract (``runtime/contract.md``), held by every shim: what is the same in every language."""

from __future__ import annotations

import base64
import contextlib
import itertools
import json
import os
import signal
import socket
import time
from collections.abc import Iterator
from typing import ClassVar, TypedDict

import pytest

from tests.contract.runtime_cell import RUNTIMES, Cell, Order, Reply, RuntimeUnderTest, cell

BUSY = {"x-cloudlet-busy": "1", "content-length": "0"}


@pytest.fixture(params=RUNTIMES, ids=lambda runtime: runtime.name)
def runtime(request: pytest.FixtureRequest) -> RuntimeUnderTest:
    under_test: RuntimeUnderTest = request.param
    if not under_test.interpreter:
        pytest.skip(f"{under_test.name} is not installed on this machine")
    return under_test


@pytest.fixture
def shim(runtime: RuntimeUnderTest) -> Iterator[Cell]:
    with cell(runtime.runtime, runtime.interpreter) as started:
        yield started


class Sources(TypedDict):
    """One function in both languages."""

    node: str
    python: str


def load(shim: Cell, node: str, python: str, order: Order | None = None) -> None:
    """Write the function and load it; `node` and `python` are the whole source of its only file."""
    shim.write_main(node=node, python=python)
    event = shim.load(order or Order())
    assert event["event"] == "loaded", event


ECHO: Sources = {
    "node": "exports.main = async (event) => event",
    "python": "def main_handler(event, context): return event",
}
BLOCKER: Sources = {
    # Runs until the file named by the event exists: the test decides when, not a clock.
    "node": """
const fs = require('fs');
exports.main = async (event) => {
  if (event.until) while (!fs.existsSync(event.until)) await new Promise((done) => setTimeout(done, 1));
  return event.name ?? null;
};""",
    "python": """
import os, time
def main_handler(event, context):
    while "until" in event and not os.path.exists(event["until"]):
        time.sleep(0.001)
    return event.get("name")
""",
}


def assert_busy(reply: Reply) -> None:
    assert (reply.status, reply.body) == (503, b"")
    assert {name: reply.headers[name] for name in BUSY} == BUSY


def assert_leaving(shim: Cell) -> None:
    """Calls that are on their way are refused, and their connections closed, until the process is gone."""
    try:
        reply = shim.call()
    except ConnectionError:  # This machine was too busy for us to ask in time.
        assert time.monotonic_ns() >= shim.activity[0], "gone before the time that it told"
        return
    assert_busy(reply)
    assert reply.headers["connection"] == "close"


class TestLoading:
    def test_says_loaded_and_how_long_it_took(self, shim: Cell) -> None:
        shim.write_main(**ECHO)
        event = shim.load()
        assert event["event"] == "loaded"
        assert event["load_ms"] > 0

    def test_calls_wait_until_the_version_is_loaded(self, shim: Cell) -> None:
        with contextlib.closing(shim.connect()) as early:
            early.send({"n": 1})
            load(shim, **ECHO)
            assert early.reply().json == {"n": 1}

    def test_an_error_in_the_module_is_told_with_its_stack(self, shim: Cell) -> None:
        shim.write_main(
            node="const a = 1;\nthrow new TypeError('broken ' + a);",
            python="a = 1\nraise TypeError(f'broken {a}')",
        )
        event = shim.load()
        assert event["event"] == "load_failed"
        assert "broken 1" in event["error"]["errorMessage"]
        assert event["error"]["errorCode"] == 1
        assert shim.main_file in event["error"]["stackTrace"]
        assert shim.exit_code() == 1

    def test_a_syntax_error_names_file_and_line(self, shim: Cell) -> None:
        shim.write_main(node="let x = 1;\nlet y = ;\n", python="x = 1\ny = =\n")
        error = shim.load()["error"]
        assert shim.main_file in error["stackTrace"]
        assert "2" in error["stackTrace"]
        assert "SyntaxError" in error["stackTrace"]

    def test_a_missing_file_is_told(self, shim: Cell) -> None:
        error = shim.load()["error"]
        assert "'index' was not found" in error["errorMessage"]

    def test_a_missing_export_is_told(self, shim: Cell) -> None:
        shim.write_main(node="exports.other = 1", python="other = 1")
        error = shim.load()["error"]
        assert "main" in error["errorMessage"]

    def test_an_export_that_is_no_function_is_told(self, shim: Cell) -> None:
        shim.write_main(node="exports.main = 5", python="main_handler = 5")
        assert "function" in shim.load()["error"]["errorMessage"]

    @pytest.mark.parametrize("handler", ["main", "../index.main"])
    def test_a_handler_that_cannot_be_is_told(self, shim: Cell, handler: str) -> None:
        shim.write_main(**ECHO)
        error = shim.load(Order(handler=handler))["error"]
        assert "is not allowed" in error["errorMessage"]

    def test_leaving_the_process_while_loading_is_told(self, shim: Cell) -> None:
        shim.write_main(node="process.exit(7)", python="import sys; sys.exit(7)")
        error = shim.load()["error"]
        assert error["errorMessage"] == "function exited with code 7 while it was loaded"

    def test_a_handler_may_be_in_a_directory(self, shim: Cell) -> None:
        shim.write_file("src/app.js", "exports.run = () => 'from src'")
        shim.write_file("src/app.py", "def run(event, context): return 'from src'")
        assert shim.load(Order(handler="src/app.run"))["event"] == "loaded"
        assert shim.call().json == "from src"

    def test_the_working_directory_is_the_code(self, shim: Cell) -> None:
        load(
            shim,
            node="const cwd = process.cwd(); exports.main = () => cwd",
            python="import os\ncwd = os.getcwd()\ndef main_handler(event, context): return cwd",
        )
        assert shim.call().json == str(shim.code)

    def test_the_instance_variables_are_there_while_loading(self, shim: Cell) -> None:
        load(
            shim,
            node="const {MINE, TCB_ENV, SCF_NAMESPACE} = process.env;"
            "exports.main = () => [MINE, TCB_ENV, SCF_NAMESPACE]",
            python="import os\nseen = [os.environ[n] for n in ('MINE', 'TCB_ENV', 'SCF_NAMESPACE')]\n"
            "def main_handler(event, context): return seen",
            order=Order(environment={"MINE": "yes", "TCB_ENV": "env-1"}),
        )
        assert shim.call().json == ["yes", "env-1", "env-1"]


class TestCalls:
    def test_event_and_result_are_json(self, shim: Cell) -> None:
        load(shim, **ECHO)
        values: list[object] = [{"a": [1, "zwölf 十二", "\ud800", None, True]}, [], "text", 5, 1.5, None, {}]
        for value in values:
            reply = shim.call(json.dumps(value).encode())
            assert reply.status == 200
            assert reply.headers["content-type"] == "application/json"
            assert reply.json == value

    def test_an_empty_body_is_an_empty_event(self, shim: Cell) -> None:
        load(shim, **ECHO)
        assert shim.call().json == {}

    def test_no_result_is_null(self, shim: Cell) -> None:
        load(shim, node="exports.main = () => {}", python="def main_handler(event, context): pass")
        assert shim.call().body == b"null"

    def test_the_timing_is_told_and_the_load_once(self, shim: Cell) -> None:
        load(shim, **ECHO)
        with contextlib.closing(shim.connect()) as connection:
            first, second = connection.call(), connection.call()
        assert first.headers["server-timing"].startswith("load;dur=")
        assert "handler;dur=" in first.headers["server-timing"]
        assert second.headers["server-timing"].startswith("handler;dur=")

    def test_a_chunked_body_is_read(self, shim: Cell) -> None:
        load(shim, **ECHO)
        with contextlib.closing(shim.connect()) as connection:
            connection.send_raw(
                b"POST / HTTP/1.1\r\nhost: c\r\ntransfer-encoding: chunked\r\n\r\n"
                b'5\r\n{"a":\r\n2;x=y\r\n1}\r\n0\r\n\r\n'
            )
            assert connection.raw_reply().json == {"a": 1}
            assert connection.call({"b": 2}).json == {"b": 2}

    def test_a_request_in_many_pieces_is_read(self, shim: Cell) -> None:
        load(shim, **ECHO)
        with contextlib.closing(shim.connect()) as connection:
            for byte in b'POST / HTTP/1.1\r\nHost: c\r\nContent-Length: 7\r\n\r\n{"a":1}':
                connection.send_raw(bytes([byte]))
            assert connection.raw_reply().json == {"a": 1}

    def test_pipelined_requests_are_answered_in_order(self, shim: Cell) -> None:
        load(shim, **ECHO)
        with contextlib.closing(shim.connect()) as connection:
            request = b"POST / HTTP/1.1\r\nhost: c\r\ncontent-length: 1\r\n\r\n"
            connection.send_raw(request + b"1" + request + b"2" + request + b"3")
            answers = connection.raw_replies(3)
        assert [answer.json for answer in answers] == [1, 2, 3]

    def test_trailers_are_ignored(self, shim: Cell) -> None:
        load(shim, **ECHO)
        with contextlib.closing(shim.connect()) as connection:
            head = b"POST / HTTP/1.1\r\nhost: c\r\ntransfer-encoding: chunked\r\n\r\n"
            connection.send_raw(head + b"1\r\n7\r\n0\r\nx-sum: 7\r\nother: 1\r\n\r\n")
            assert connection.raw_reply().json == 7
            assert connection.call(8).json == 8

    def test_who_waits_for_leave_to_send_the_body_gets_it(self, shim: Cell) -> None:
        load(shim, **ECHO)
        with contextlib.closing(shim.connect()) as connection:
            connection.send_raw(
                b"POST / HTTP/1.1\r\nhost: c\r\nexpect: 100-continue\r\ncontent-length: 1\r\n\r\n"
            )
            expected = b"HTTP/1.1 100 Continue\r\n\r\n"
            assert connection.raw.recv(len(expected), socket.MSG_WAITALL) == expected
            connection.send_raw(b"7")
            assert connection.raw_reply().json == 7

    def test_a_connection_is_closed_when_the_caller_says_so(self, shim: Cell) -> None:
        load(shim, **ECHO)
        for request in (b"GET / HTTP/1.0\r\n\r\n", b"GET / HTTP/1.1\r\nhost: c\r\nconnection: Close\r\n\r\n"):
            with contextlib.closing(shim.connect()) as connection:
                connection.send_raw(request)
                assert connection.raw_reply().json == {}
                assert connection.raw.recv(1) == b""

    @pytest.mark.parametrize(
        "request_text",
        [
            "nonsense",
            "GET /",
            "GET / HTTP/2.0",
            "GET / HTTP/1.1\r\nx-no-colon",
            "GET / HTTP/1.1\r\ncontent-length: 1\r\ncontent-length: 2",
            "GET / HTTP/1.1\r\ncontent-length: -1",
            "GET / HTTP/1.1\r\ncontent-length: 1\r\ntransfer-encoding: chunked",
            "GET / HTTP/1.1\r\ntransfer-encoding: gzip, chunked",
            "POST / HTTP/1.1\r\ntransfer-encoding: chunked\r\n\r\nnone",
            "POST / HTTP/1.1\r\ntransfer-encoding: chunked\r\n\r\n1\r\n123",
            "GET / HTTP/1.1\r\nx-long: " + "x" * 70_000,
        ],
    )
    def test_what_is_not_http_is_refused_and_the_others_are_served(
        self, shim: Cell, request_text: str
    ) -> None:
        load(shim, **ECHO)
        with contextlib.closing(shim.connect()) as connection:
            connection.send_raw(request_text.encode() + b"\r\n\r\n")
            assert connection.raw_reply().status == 400
            with contextlib.suppress(ConnectionResetError):  # what was not read yet is thrown away with it
                assert connection.raw.recv(1) == b""
        assert shim.call(1).json == 1
        assert shim.settled()[1] == 1

    def test_a_thousand_calls_over_one_connection(self, shim: Cell) -> None:
        load(shim, **ECHO)
        with contextlib.closing(shim.connect()) as connection:
            assert [connection.call(n).json for n in range(1000)] == list(range(1000))
        assert shim.settled() == (0, 1000)

    def test_a_caller_that_leaves_does_no_harm(self, shim: Cell) -> None:
        load(shim, **BLOCKER)
        gate = shim.directory / "gate"
        leaving = shim.connect()
        leaving.send({"until": str(gate)})
        shim.wait_until_running()
        leaving.close()
        gate.touch()
        shim.wait_until_idle()
        assert shim.call({"name": "next"}).json == "next"


class TestFailures:
    def test_a_thrown_error_is_told_to_the_caller_and_logged(self, shim: Cell) -> None:
        load(
            shim,
            node="exports.main = () => { throw new RangeError('too far') }",
            python="def main_handler(event, context): raise ValueError('too far')",
        )
        reply = shim.call(request_id="r-1")
        assert (reply.status, reply.headers["x-cloudlet-error"]) == (400, "function_failed")
        assert (reply.json["code"], reply.json["requestId"]) == ("FUNCTIONS_EXECUTE_FAIL", "r-1")
        assert reply.error["errorCode"] == 1
        assert "too far" in reply.error["errorMessage"]
        assert shim.main_file in reply.error["stackTrace"]
        assert "shim" not in reply.error["stackTrace"]
        logged = shim.logs(2)
        assert {(line.request_id, line.level) for line in logged} == {("r-1", "error")}
        assert any("too far" in line.text for line in logged)

    def test_the_instance_goes_on_after_a_failure(self, shim: Cell) -> None:
        load(
            shim,
            node="exports.main = async (e) => { if (e.bad) throw 'text'; return 'fine' }",
            python="async def main_handler(e, c):\n if 'bad' in e: raise KeyError('text')\n return 'fine'",
        )
        assert "text" in shim.call({"bad": 1}).error["errorMessage"]
        assert shim.call().json == "fine"

    def test_an_error_that_fights_back_is_answered(self, shim: Cell) -> None:
        load(
            shim,
            node="exports.main = () => { throw { get stack() { throw 1 }, get message() { throw 2 } } }",
            python="class Bad(Exception):\n def __str__(self): raise RuntimeError\n"
            "def main_handler(event, context): raise Bad()",
        )
        assert shim.call().headers["x-cloudlet-error"] == "function_failed"

    def test_leaving_the_process_answers_first(self, shim: Cell) -> None:
        load(
            shim,
            node="exports.main = () => process.exit(3)",
            python="import sys\ndef main_handler(event, context): sys.exit(3)",
        )
        reply = shim.call(request_id="r-1")
        assert (reply.status, reply.headers["x-cloudlet-error"]) == (400, "function_exited")
        assert reply.error["errorMessage"] == "function exited with code 3 before it answered"
        assert reply.headers["x-cloudlet-final"] == "1"
        assert_leaving(shim)
        assert shim.exit_code() == 3

    def test_a_circular_result_is_a_failure(self, shim: Cell) -> None:
        load(
            shim,
            node="exports.main = () => { const a = {}; a.a = a; return a }",
            python="def main_handler(event, context):\n a = {}\n a['a'] = a\n return a",
        )
        reply = shim.call()
        assert reply.headers["x-cloudlet-error"] == "function_failed"
        assert reply.error["errorMessage"].startswith("function result is not JSON: ")
        assert "ircular" in reply.error["errorMessage"]

    def test_a_result_nested_too_deeply_is_a_failure(self, shim: Cell) -> None:
        load(
            shim,
            node="exports.main = () => { let a = []; for (let i = 0; i < 1e6; i++) a = [a]; return a }",
            python="def main_handler(event, context):\n a = []\n for _ in range(100_000): a = [a]\n return a",
        )
        assert shim.call().headers["x-cloudlet-error"] == "function_failed"
        shim.wait_until_idle()

    def test_results_up_to_the_limit_are_sent(self, shim: Cell) -> None:
        load(
            shim,
            node="exports.main = (n) => 'x'.repeat(n)",
            python="def main_handler(n, context): return 'x' * n",
        )
        largest = 1024 * 1024 - 2
        with contextlib.closing(shim.connect()) as connection:
            assert len(connection.call(largest).body) == 1024 * 1024
            reply = connection.call(largest + 1, request_id="r-9")
            assert connection.call(3).json == "xxx"
        assert (reply.status, reply.headers["x-cloudlet-error"]) == (400, "result_too_large")
        assert reply.json == {
            "code": "FUNCTIONS_RESULT_TOO_LARGE",
            "message": "function result is 1048577 bytes, the limit is 1048576",
            "requestId": "r-9",
        }

    def test_the_limit_of_a_result_counts_bytes(self, shim: Cell) -> None:
        load(
            shim,
            node="exports.main = (n) => '十'.repeat(n)",
            python="def main_handler(n, context): return '十' * n",
        )
        assert shim.call(349_000).status == 200
        assert shim.call(350_000).headers["x-cloudlet-error"] == "result_too_large"


class TestBadRequests:
    NOT_JSON = (
        b"{",
        b"undefined",
        b"{'a':1}",
        b"[1,]",
        b"NaN",
        b'"\xff\xfe"',
        b"{} {}",
        b"\xef\xbb\xbf{}",
        b" ",
    )

    def test_a_body_that_is_not_json(self, shim: Cell) -> None:
        load(shim, **ECHO)
        for body in self.NOT_JSON:
            reply = shim.call(body, request_id="r-1")
            assert (reply.status, reply.headers["x-cloudlet-error"]) == (400, "malformed_body")
            assert (reply.json["code"], reply.json["requestId"]) == ("INVALID_PARAM", "r-1")
            assert "not valid JSON" in reply.json["message"]
        assert shim.settled() == (0, 0)
        assert shim.call({"still": "here"}).json == {"still": "here"}

    def test_a_deeply_nested_body_ends_nothing(self, shim: Cell) -> None:
        load(
            shim,
            node="exports.main = () => 'read'",
            python="def main_handler(event, context): return 'read'",
        )
        reply = shim.call(b"[" * 1_000_000 + b"]" * 1_000_000)
        assert reply.status == 200 or reply.headers["x-cloudlet-error"] == "malformed_body"
        assert shim.call().json == "read"

    def test_duplicate_keys_do_not_reach_prototypes(self, shim: Cell) -> None:
        load(shim, **ECHO)
        assert shim.call(b'{"a":1,"a":2,"__proto__":{"x":1}}').json["a"] == 2

    def test_a_body_over_the_limit_is_refused_and_the_connection_kept(self, shim: Cell) -> None:
        load(shim, **ECHO)
        limit = 6 * 1024 * 1024
        with contextlib.closing(shim.connect()) as connection:
            reply = connection.call(b'"' + b"x" * (limit - 1) + b'"')
            assert (reply.status, reply.headers["x-cloudlet-error"]) == (413, "body_too_large")
            assert reply.json["message"] == f"the event is {limit + 1} bytes, the limit is {limit}"
            assert connection.call(1).json == 1

    def test_a_body_of_the_limit_is_read(self, shim: Cell) -> None:
        load(
            shim,
            node="exports.main = (event) => event.length",
            python="def main_handler(event, context): return len(event)",
        )
        limit = 6 * 1024 * 1024
        assert shim.call(b'"' + b"x" * (limit - 2) + b'"').json == limit - 2

    def test_a_repeated_identity_header_is_refused(self, shim: Cell) -> None:
        load(shim, **ECHO)
        headers = (b"openid", b"uid", b"appid", b"unionid", b"sid", b"login-type", b"source", b"client-ip")
        for header, second in itertools.product(headers, (b"b", b"a", b"")):
            name = b"x-cloudlet-" + header
            with contextlib.closing(shim.connect()) as connection:
                connection.send_raw(
                    b"POST / HTTP/1.1\r\nhost: c\r\n%s: a\r\n%s: %s\r\ncontent-length: 0\r\n\r\n"
                    % (name, name.title(), second)
                )
                reply = connection.raw_reply()
            assert (reply.status, reply.headers["x-cloudlet-error"]) == (400, "invalid_request")
        assert shim.settled() == (0, 0)

    def test_a_call_for_another_function_is_refused(self, shim: Cell) -> None:
        load(shim, **ECHO)
        assert shim.call(function="hello").status == 200
        reply = shim.call(function="other")
        assert (reply.status, reply.headers["x-cloudlet-error"]) == (400, "invalid_request")

    def test_a_timeout_that_is_no_number_is_refused(self, shim: Cell) -> None:
        load(shim, **ECHO)
        for value in ("-1", "1.5", "soon", "0x10", "99999999999"):
            assert shim.call(timeout_ms=value).headers["x-cloudlet-error"] == "invalid_request"


class TestIdentity:
    SHOW: ClassVar[Sources] = {
        "node": "exports.main = (event) =>"
        " Object.fromEntries(event.names.map((n) => [n, process.env[n] ?? null]))",
        "python": "import os\ndef main_handler(event, context):"
        " return {n: os.environ.get(n) for n in event['names']}",
    }

    def test_the_variables_of_a_call(self, shim: Cell) -> None:
        load(shim, **self.SHOW)
        names = ["WX_OPENID", "WX_APPID", "WX_UNIONID", "WX_CLIENTIP", "LOGINTYPE", "TCB_UUID", "TCB_SEQID"]
        names += ["TCB_SOURCE", "TCB_SOURCE_IP", "TCB_ISANONYMOUS_USER", "TCB_ENV", "TRIGGER_SRC"]
        reply = shim.call(
            {"names": names},
            request_id="r-1",
            openid="o1",
            appid="wx1",
            unionid="un1",
            client_ip="10.0.0.9",
            login_type="WECHAT",
            uid="u1",
            source="wx_client,scf",
        )
        assert reply.json == {
            "WX_OPENID": "o1",
            "WX_APPID": "wx1",
            "WX_UNIONID": "un1",
            "WX_CLIENTIP": "10.0.0.9",
            "LOGINTYPE": "WECHAT",
            "TCB_UUID": "u1",
            "TCB_SEQID": "r-1",
            "TCB_SOURCE": "wx_client,scf",
            "TCB_SOURCE_IP": "10.0.0.9",
            "TCB_ISANONYMOUS_USER": "false",
            "TCB_ENV": "env-1",
            "TRIGGER_SRC": "tcb",
        }

    def test_the_key_lists_name_what_is_known(self, shim: Cell) -> None:
        load(shim, **self.SHOW)
        names = ["WX_CONTEXT_KEYS", "TCB_CONTEXT_KEYS"]
        known = shim.call(
            {"names": names}, openid="o1", uid="u1", login_type="ANONYMOUS", request_id="r"
        ).json
        unknown = shim.call({"names": names}, request_id="r").json
        assert set(known["WX_CONTEXT_KEYS"].split(",")) == {"WX_OPENID", "WX_API_TOKEN"}
        assert set(known["TCB_CONTEXT_KEYS"].split(",")) == {
            "TCB_ENV",
            "TCB_SEQID",
            "TCB_SESSIONTOKEN",
            "TCB_UUID",
            "TCB_ISANONYMOUS_USER",
        }
        assert unknown["WX_CONTEXT_KEYS"] == "WX_API_TOKEN"
        assert set(unknown["TCB_CONTEXT_KEYS"].split(",")) == {"TCB_ENV", "TCB_SEQID", "TCB_SESSIONTOKEN"}

    def test_nothing_of_a_caller_is_left_for_the_next(self, shim: Cell) -> None:
        load(
            shim,
            node="exports.main = () => ({ env: { ...process.env }, text: JSON.stringify(process.env) })",
            python="import os\ndef main_handler(event, context):"
            " return {'env': dict(os.environ), 'text': repr(os.environ)}",
        )
        everything = {
            "openid": "o-alice",
            "appid": "wx-alice",
            "unionid": "un-alice",
            "uid": "u-alice",
            "sid": "s-alice",
            "login_type": "T-alice",
            "client_ip": "ip-alice",
            "source": "src-alice",
        }
        with contextlib.closing(shim.connect()) as connection:
            alice = connection.call(request_id="r-alice", **everything)
            nobody = connection.call(request_id="r-2")
            bob = connection.call(openid="o-bob", request_id="r-3")
        assert alice.json["env"]["WX_OPENID"] == "o-alice"
        assert b"alice" not in nobody.body
        assert "WX_OPENID" not in nobody.json["env"]
        assert bob.json["env"]["WX_OPENID"] == "o-bob"
        assert b"alice" not in bob.body

    def test_what_a_call_writes_over_its_identity_is_gone_with_it(self, shim: Cell) -> None:
        load(
            shim,
            node="exports.main = (e) => { const had = process.env.WX_OPENID ?? null;"
            " if (e.set) process.env.WX_OPENID = e.set; else delete process.env.WX_OPENID; return had }",
            python="import os\ndef main_handler(e, context):\n had = os.environ.get('WX_OPENID')\n"
            " if 'set' in e: os.environ['WX_OPENID'] = e['set']\n else: os.environ.pop('WX_OPENID', None)\n"
            " return had",
        )
        assert shim.call({"set": "forged"}, openid="o1").json == "o1"
        assert shim.call({}).json is None
        assert shim.call({}, openid="o2").json == "o2"
        assert shim.call({}, openid="o2").json == "o2"

    APART: ClassVar[Sources] = {
        "node": """exports.main = async () => {
  const seen = [];
  for (let turn = 0; turn < 5; turn++) {
    seen.push(process.env.WX_OPENID);
    await new Promise((done) => setTimeout(done, 1));
    seen.push(await Promise.resolve().then(() => process.env.WX_OPENID));
  }
  console.log(process.env.WX_OPENID);
  return seen;
};""",
        "python": """
import asyncio, os
async def main_handler(event, context):
    seen = []
    for turn in range(5):
        seen.append(os.environ["WX_OPENID"])
        await asyncio.sleep(0.001)
        seen.append(os.getenv("WX_OPENID"))
    print(os.environ["WX_OPENID"])
    return seen
""",
    }

    def test_with_concurrency_everybody_sees_their_own(self, shim: Cell) -> None:
        load(shim, **self.APART, order=Order(concurrency=30))
        callers = [f"o{number}" for number in range(30)]
        with contextlib.ExitStack() as stack:
            connections = [stack.enter_context(contextlib.closing(shim.connect())) for _ in callers]
            for openid, connection in zip(callers, connections, strict=True):
                connection.send({}, openid=openid, request_id=f"r-{openid}")
            for openid, connection in zip(callers, connections, strict=True):
                assert connection.reply().json == [openid] * 10
        assert {(line.request_id, line.text) for line in shim.logs(30)} == {(f"r-{o}", o) for o in callers}

    def test_other_variables_are_the_instances_own(self, shim: Cell) -> None:
        load(
            shim,
            node="exports.main = () => process.env.COUNT = String(Number(process.env.COUNT) + 1)",
            python="import os\ndef main_handler(event, context):\n"
            " os.environ['COUNT'] = str(int(os.environ['COUNT']) + 1)\n return os.environ['COUNT']",
            order=Order(environment={"COUNT": "5"}),
        )
        assert [shim.call().json, shim.call().json] == ["6", "7"]

    def test_the_event_gets_user_info_when_the_caller_has_an_openid(self, shim: Cell) -> None:
        load(shim, **ECHO)
        info = {"appId": "wx1", "openId": "o1"}
        assert shim.call({"a": 1}, openid="o1", appid="wx1").json == {"a": 1, "userInfo": info}
        forged = {"userInfo": {"openId": "forged"}}
        assert shim.call(forged, openid="o1", appid="wx1").json == {"userInfo": info}
        assert shim.call({"a": 1}, uid="u1").json == {"a": 1}
        assert shim.call([1], openid="o1").json == [1]

    def test_the_tokens_carry_the_caller(self, shim: Cell) -> None:
        load(shim, **self.SHOW)
        reply = shim.call(
            {"names": ["WX_API_TOKEN", "TCB_SESSIONTOKEN"]},
            request_id="r-1",
            uid="u1",
            openid="o1",
            appid="wx1",
            unionid="n1",
            login_type="WECHAT",
            sid="s1",
            source="wx_client",
            depth="2",
            client_ip="10.0.0.9",
        ).json
        assert reply["WX_API_TOKEN"] == reply["TCB_SESSIONTOKEN"]
        token = reply["WX_API_TOKEN"]
        assert not set("=+/") & set(token)
        claims = json.loads(base64.urlsafe_b64decode(token + "=" * (-len(token) % 4)))
        assert claims == {
            "r": "r-1",
            "u": "u1",
            "o": "o1",
            "a": "wx1",
            "n": "n1",
            "l": "WECHAT",
            "s": "s1",
            "c": "wx_client",
            "d": 2,
            "i": "10.0.0.9",
        }

    def test_names_beyond_ascii_arrive_as_they_are(self, shim: Cell) -> None:
        load(shim, **self.SHOW)
        with contextlib.closing(shim.connect()) as connection:
            body = b'{"names":["TCB_UUID"]}'
            connection.send_raw(
                "POST / HTTP/1.1\r\nhost: c\r\nx-cloudlet-uid: 用户\r\ncontent-length: 22\r\n\r\n".encode()
                + body
            )
            assert connection.raw_reply().json == {"TCB_UUID": "用户"}

    def test_the_context(self, shim: Cell) -> None:
        load(
            shim,
            node="exports.main = (event, context) => ({ ...context })",
            python="def main_handler(event, context): return context",
            order=Order(timeout_ms=2500, memory_mb=512, environment={"SECRET": "mine"}),
        )
        context = shim.call(request_id="r-1", openid="o1").json
        expected = {
            "callbackWaitsForEmptyEventLoop": True,
            "request_id": "r-1",
            "requestId": "r-1",
            "memory_limit_in_mb": 512,
            "time_limit_in_ms": 2500,
            "function_name": "hello",
            "function_version": "$LATEST",
            "namespace": "env-1",
            "tencentcloud_region": "local",
            "tencentcloud_appid": "",
            "tencentcloud_uin": "",
        }
        assert {name: context[name] for name in expected} == expected
        shown = json.loads(context["environment"])
        assert (shown["WX_OPENID"], shown["SCF_NAMESPACE"]) == ("o1", "env-1")
        assert "WX_OPENID=o1" in context["environ"].split(";")
        assert "mine" not in json.dumps(context)


class TestBusy:
    def test_a_second_call_is_refused_and_its_connection_kept(self, shim: Cell) -> None:
        load(shim, **BLOCKER)
        gate = shim.directory / "gate"
        with contextlib.closing(shim.connect()) as first, contextlib.closing(shim.connect()) as second:
            first.send({"until": str(gate), "name": "first"})
            shim.wait_until_running()
            assert_busy(second.call({"name": "second"}))
            assert_busy(second.call({"name": "second"}))
            gate.touch()
            assert first.reply().json == "first"
            assert second.call({"name": "third"}).json == "third"
        assert shim.settled() == (0, 2), "a refused call has not started"

    def test_the_rest_of_a_large_body_is_read_before_refusing(self, shim: Cell) -> None:
        load(shim, **BLOCKER)
        gate = shim.directory / "gate"
        with contextlib.closing(shim.connect()) as first, contextlib.closing(shim.connect()) as second:
            first.send({"until": str(gate)})
            shim.wait_until_running()
            assert_busy(second.call(b'"' + b"x" * 5_000_000 + b'"'))
            gate.touch()
            assert first.reply().status == 200
            assert second.call({"name": "after"}).json == "after"

    def test_a_call_whose_slot_frees_in_time_is_run(self, shim: Cell) -> None:
        load(shim, **ECHO)
        connections = [shim.connect() for _ in range(8)]
        with contextlib.ExitStack() as stack:
            for connection in connections:
                stack.callback(connection.close)
            for number, connection in enumerate(connections):
                connection.send(number)
            replies = [connection.reply() for connection in connections]
        for number, reply in enumerate(replies):
            if reply.status == 503:
                assert_busy(reply)
            else:
                assert reply.json == number
        assert shim.settled()[1] == sum(reply.status == 200 for reply in replies)

    def test_the_queue_is_bounded(self, shim: Cell) -> None:
        load(shim, **BLOCKER)
        gate = shim.directory / "gate"
        with contextlib.ExitStack() as stack:
            connections = [stack.enter_context(contextlib.closing(shim.connect())) for _ in range(100)]
            connections[0].send({"until": str(gate)})
            shim.wait_until_running()
            for connection in connections[1:]:
                connection.send({})
            for connection in connections[1:]:
                assert_busy(connection.reply())
            gate.touch()
            assert connections[0].reply().status == 200
        assert shim.settled() == (0, 1)

    def test_with_concurrency_calls_run_side_by_side(self, shim: Cell) -> None:
        load(shim, **BLOCKER, order=Order(concurrency=3))
        gate = shim.directory / "gate"
        with contextlib.ExitStack() as stack:
            connections = [stack.enter_context(contextlib.closing(shim.connect())) for _ in range(3)]
            for number, connection in enumerate(connections):
                connection.send({"until": str(gate), "name": number})
            shim.wait_until_started(3)
            assert_busy(shim.call())
            gate.touch()
            assert [connection.reply().json for connection in connections] == [0, 1, 2]
        assert shim.settled() == (0, 3)


class TestControl:
    def test_a_quiesced_instance_refuses_and_finishes(self, shim: Cell) -> None:
        load(shim, **BLOCKER)
        gate = shim.directory / "gate"
        with contextlib.closing(shim.connect()) as running, contextlib.closing(shim.connect()) as other:
            running.send({"until": str(gate), "name": "finished"})
            shim.wait_until_running()
            shim.send(op="quiesce")
            assert shim.event() == {"event": "quiesced"}
            assert_busy(other.call())
            gate.touch()
            assert running.reply().json == "finished"
            assert_busy(other.call())
            shim.send(op="resume")
            assert shim.event() == {"event": "resumed"}
            assert other.call({"name": "again"}).json == "again"

    def test_end_finishes_what_runs_then_exits(self, shim: Cell) -> None:
        load(shim, **BLOCKER)
        gate = shim.directory / "gate"
        with contextlib.closing(shim.connect()) as running, contextlib.closing(shim.connect()) as other:
            running.send({"until": str(gate), "name": "finished"})
            shim.wait_until_running()
            shim.send(op="end")
            shim.send(op="quiesce")
            assert shim.event() == {"event": "quiesced"}
            assert_busy(other.call())
            gate.touch()
            assert running.reply().json == "finished"
        assert shim.exit_code() == 0

    def test_end_sends_a_large_answer_completely(self, shim: Cell) -> None:
        load(
            shim,
            node="exports.main = () => 'x'.repeat(1000000)",
            python="def main_handler(event, context): return 'x' * 1000000",
        )
        with contextlib.closing(shim.connect()) as connection:
            connection.send()
            shim.wait_until_started(1)
            shim.send(op="end")
            assert len(connection.reply().body) == 1_000_002
        assert shim.exit_code() == 0

    def test_an_idle_instance_ends_with_0(self, shim: Cell) -> None:
        load(shim, **ECHO)
        shim.send(op="end")
        assert shim.exit_code() == 0

    def test_a_cell_that_never_loaded_ends_with_0(self, shim: Cell) -> None:
        shim.send(op="end")
        assert shim.exit_code() == 0

    @pytest.mark.parametrize("loaded", [True, False])
    def test_without_its_node_the_process_is_gone_at_once(self, shim: Cell, loaded: bool) -> None:
        if loaded:
            load(shim, **BLOCKER)
            with contextlib.closing(shim.connect()) as connection:
                connection.send({"until": "/never"})
                shim.wait_until_running()
                shim.hang_up()
                assert shim.exit_code() == 1
        else:
            shim.hang_up()
            assert shim.exit_code() == 1

    def test_an_interrupt_from_the_terminal_does_not_end_it(self, shim: Cell) -> None:
        load(shim, **ECHO)
        os.kill(shim.process.pid, signal.SIGINT)
        assert shim.call(1).json == 1


class TestTime:
    HANG: ClassVar[Sources] = {
        "node": "exports.main = (event) => event.hang ? new Promise(() => {}) : 'quick'",
        "python": "import threading\ndef main_handler(event, context):\n"
        " if 'hang' in event: threading.Event().wait()\n return 'quick'",
    }

    def test_the_deadline_is_on_the_activity_page(self, shim: Cell) -> None:
        load(shim, **self.HANG, order=Order(timeout_ms=60_000))
        assert shim.settled() == (0, 0)
        with contextlib.closing(shim.connect()) as connection:
            before = time.monotonic_ns()
            connection.send({"hang": 1})
            deadline = shim.wait_until_running()
            after = time.monotonic_ns()
            assert before + 60_000_000_000 <= deadline <= after + 60_000_000_000
            assert shim.activity[1] == 1

    def test_the_header_bounds_one_call(self, shim: Cell) -> None:
        load(shim, **self.HANG, order=Order(timeout_ms=60_000))
        with contextlib.closing(shim.connect()) as connection:
            before = time.monotonic_ns()
            connection.send({"hang": 1}, timeout_ms="30000")
            deadline = shim.wait_until_running()
            assert before + 30_000_000_000 <= deadline <= time.monotonic_ns() + 30_000_000_000

    @pytest.mark.parametrize(("timeout_ms", "text"), [(50, "0.05"), (100, "0.1")])
    def test_a_call_over_its_time_is_answered_and_the_process_leaves(
        self, shim: Cell, timeout_ms: int, text: str
    ) -> None:
        load(shim, **self.HANG, order=Order(timeout_ms=timeout_ms))
        assert shim.call(timeout_ms="60000").json == "quick"
        reply = shim.call({"hang": 1}, request_id="r-1")
        assert (reply.status, reply.headers["x-cloudlet-error"]) == (504, "function_timeout")
        assert reply.json == {
            "code": "FUNCTIONS_TIME_LIMIT_EXCEEDED",
            "message": f"Invoking task timed out after {text} seconds",
            "requestId": "r-1",
        }
        assert reply.headers["x-cloudlet-final"] == "1"
        assert_leaving(shim)
        assert shim.exit_code() == 1

    def test_what_goes_on_after_the_last_reply_shows_from_outside(self, shim: Cell) -> None:
        """The node can kill a process that should be gone and is not."""
        load(shim, **self.HANG, order=Order(timeout_ms=30))
        before = time.monotonic_ns()
        shim.call({"hang": 1})
        deadline, _ = shim.activity
        assert before < deadline <= time.monotonic_ns() + 300_000_000

    def test_the_text_names_the_time_of_the_version(self, shim: Cell) -> None:
        load(shim, **self.HANG, order=Order(timeout_ms=3000))
        reply = shim.call({"hang": 1}, timeout_ms="20")
        assert reply.json["message"] == "Invoking task timed out after 3 seconds"

    def test_who_waits_is_refused_when_the_process_must_leave(self, shim: Cell) -> None:
        load(shim, **self.HANG, order=Order(timeout_ms=500))
        with contextlib.closing(shim.connect()) as hanging, contextlib.closing(shim.connect()) as waiting:
            hanging.send({"hang": 1})
            shim.wait_until_running()
            assert_busy(waiting.call())
            assert hanging.reply().status == 504
        assert shim.exit_code() == 1

    @pytest.mark.parametrize("after_await", [False, True])
    def test_an_endless_loop_shows_from_outside(self, shim: Cell, after_await: bool) -> None:
        load(
            shim,
            node="exports.main = async () => { "
            + ("await new Promise(setImmediate); " if after_await else "")
            + "while (true) {} }",
            python="import asyncio\nasync def main_handler(event, context):\n"
            + (" await asyncio.sleep(0)\n" if after_await else "")
            + " while True: pass",
            order=Order(timeout_ms=30),
        )
        with contextlib.closing(shim.connect()) as connection:
            connection.send()
            deadline = shim.wait_until_running()
            while time.monotonic_ns() < deadline and shim.process.poll() is None:
                os.sched_yield()
            if shim.process.poll() is None and shim.runtime.language == "node":
                assert shim.activity == (deadline, 1), "nothing but the node can end this one"
            else:
                assert connection.reply().json["message"] == "Invoking task timed out after 0.03 seconds"


class TestOutput:
    PRINT: ClassVar[Sources] = {
        "node": "exports.main = (e) => { console.log('one'); console.error('two\\nthree'); return null }",
        "python": "import sys\ndef main_handler(event, context):\n print('one')\n"
        " print('two\\nthree', file=sys.stderr)",
    }

    def test_each_line_carries_the_request_and_its_level(self, shim: Cell) -> None:
        load(shim, **self.PRINT)
        shim.call(request_id="r-1")
        seen = {(line.request_id, line.level, line.text) for line in shim.logs(3)}
        assert seen == {("r-1", "info", "one"), ("r-1", "error", "two"), ("r-1", "error", "three")}

    def test_what_is_printed_while_loading_belongs_to_no_request(self, shim: Cell) -> None:
        load(
            shim,
            node="console.log('loading'); exports.main = () => null",
            python="print('loading')\ndef main_handler(event, context): pass",
        )
        (line,) = shim.logs(1)
        assert (line.request_id, line.level, line.text) == ("", "info", "loading")

    def test_a_line_without_an_end_is_printed_with_its_call(self, shim: Cell) -> None:
        load(
            shim,
            node="const out = process.stdout;"
            "exports.main = (e) => { out.write('be'); out.write(Buffer.from('gun 中')) }",
            python="import sys\ndef main_handler(event, context):\n sys.stdout.write('be')\n"
            " sys.stdout.buffer.write('gun 中'.encode())",
        )
        shim.call(request_id="r-1")
        (line,) = shim.logs(1)
        assert (line.request_id, line.level, line.text) == ("r-1", "info", "begun 中")

    def test_a_forged_frame_stays_within_its_line(self, shim: Cell) -> None:
        load(
            shim,
            node="exports.main = () => console.log('\\x1eother\\x1ferror\\x1fforged')",
            python="def main_handler(event, context): print('\\x1eother\\x1ferror\\x1fforged')",
        )
        shim.call(request_id="r-1")
        (line,) = shim.logs(1)
        assert (line.request_id, line.level) == ("r-1", "info")

    def test_the_output_of_a_child_process_has_no_frame(self, shim: Cell) -> None:
        load(
            shim,
            node="exports.main = () => { require('child_process').spawnSync('echo', ['child'],"
            " { stdio: 'inherit' }) }",
            python="import subprocess\ndef main_handler(event, context): subprocess.run(['echo', 'child'])",
        )
        assert shim.call(request_id="r-1").status == 200
        (line,) = shim.logs(1)
        assert (line.request_id, line.level, line.text) == ("", "", "child")

    def test_a_very_long_line_is_cut(self, shim: Cell) -> None:
        load(
            shim,
            node="exports.main = () => console.log('x'.repeat(1e6))",
            python="def main_handler(event, context): print('x' * 1_000_000)",
        )
        shim.call()
        (line,) = shim.logs(1)
        assert len(line.text) == 32 * 1024 + 1

    def test_a_timeout_is_logged_with_its_request(self, shim: Cell) -> None:
        load(shim, **TestTime.HANG, order=Order(timeout_ms=30))
        shim.call({"hang": 1}, request_id="r-1")
        (line,) = shim.logs(1)
        assert (line.request_id, line.level) == ("r-1", "error")
        assert line.text == "Invoking task timed out after 0.03 seconds"

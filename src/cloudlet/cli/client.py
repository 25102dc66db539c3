"""The admin interface over its unix socket, blocking. The routes are listed in ``api/routes.py``."""

from __future__ import annotations

import http.client
import json
import socket
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import IO, Any
from urllib.parse import quote, urlencode

from cloudlet.model.errors import OutcomeUnknown, Unavailable, error_class
from cloudlet.model.ids import check_environment_name, check_function_name

from .exit_codes import ExitCode
from .session import CommandFailed

TIMEOUT_S = 60.0
"""Between two bytes of an answer."""
DEPLOY_TIMEOUT_S = 900.0
"""Between two events of a deploy: an installer may be silent for long."""
ROLLBACK_TIMEOUT_S = 150.0
"""A start check and its publication, each with its own limit."""
CALL_TIMEOUT_S = 960.0
"""A function may run for 900 seconds."""
LONG_TIMEOUT_S = 600.0
"""Before the first piece of an export the environment is copied; after an upload its file is synced."""
LINE_TIMEOUT_S = 60.0
"""Between two lines of something long, which come every ten seconds at least."""
PIECE_BYTES = 256 * 1024
ANSWER_BYTES_MAX = 64 * 1024 * 1024

JsonObject = dict[str, Any]


class AdminClient:
    """One request a connection; nothing is retried."""

    def __init__(self, socket_path: Path, not_running: str, timeout_s: float = TIMEOUT_S) -> None:
        """`not_running` is what to say when nobody listens."""
        self._socket_path = socket_path
        self._not_running = not_running
        self._timeout_s = timeout_s

    def get(self, path: str, query: Mapping[str, object] | None = None) -> JsonObject:
        given = {name: value for name, value in (query or {}).items() if value is not None}
        return self._call("GET", f"{path}?{urlencode(given)}" if given else path, None, self._timeout_s)

    def text(self, path: str) -> str:
        """What is at `path`, when it is not JSON."""
        return self._answer("GET", path, None, self._timeout_s, {}).decode()

    def post(self, path: str, body: JsonObject, timeout_s: float = TIMEOUT_S) -> JsonObject:
        return self._call("POST", path, json.dumps(body, ensure_ascii=False).encode(), timeout_s)

    def put(self, path: str, body: JsonObject | None = None) -> JsonObject:
        raw = b"" if body is None else json.dumps(body, ensure_ascii=False).encode()
        return self._call("PUT", path, raw, TIMEOUT_S)

    def delete(self, path: str) -> JsonObject:
        return self._call("DELETE", path, None, TIMEOUT_S)

    def upload(self, file: IO[bytes], size: int) -> str:
        """Send a tar; return the id of the upload."""
        headers = {"content-type": "application/x-tar", "content-length": str(size)}
        answer = self._call("PUT", "/uploads", file, TIMEOUT_S, headers)
        return str(answer["upload"])

    def send(self, path: str, query: Mapping[str, str], pieces: Iterable[bytes]) -> JsonObject:
        """Send a file of unknown size, piece by piece."""
        headers = {"content-type": "application/octet-stream"}
        return self._call("POST", f"{path}?{urlencode(query)}", pieces, LONG_TIMEOUT_S, headers)

    def download(self, path: str, query: Mapping[str, str], write: Callable[[bytes], object]) -> None:
        """Hand what is at `path` to `write`, piece by piece. Raise Unavailable if it breaks off."""
        connection = _Connection(self._socket_path, LONG_TIMEOUT_S)
        try:
            response = self._send(connection, "GET", f"{path}?{urlencode(query)}", None, {})
            try:
                while piece := response.read(PIECE_BYTES):
                    write(piece)
            except (TimeoutError, ConnectionError, http.client.HTTPException) as exc:
                raise Unavailable("the connection broke: what was received is not complete") from exc
        finally:
            connection.close()

    def lines(self, path: str, body: JsonObject) -> Iterator[JsonObject]:
        """Start something long; yield what is told, one object a line, until the connection ends."""
        connection = _Connection(self._socket_path, LINE_TIMEOUT_S)
        raw = json.dumps(body, ensure_ascii=False).encode()
        try:
            response = self._send(connection, "POST", path, raw, {})
            try:
                while line := response.readline(ANSWER_BYTES_MAX):
                    if line.strip():
                        yield _json_object(line)
            except (OSError, http.client.HTTPException) as exc:
                raise OutcomeUnknown("the connection broke: see what there is now, then try again") from exc
        finally:
            connection.close()

    def deploy(self, body: bytes) -> Iterator[bytes]:
        """Start a deploy; yield its events, one line each."""
        connection = _Connection(self._socket_path, DEPLOY_TIMEOUT_S)
        try:
            response = self._send(connection, "POST", "/deploy", body, {})
            try:
                while line := response.readline(ANSWER_BYTES_MAX):
                    if line.strip():
                        yield line
            except (OSError, http.client.HTTPException) as exc:
                raise OutcomeUnknown(
                    "the connection broke during the deploy: see 'cloudlet fn list' for what is deployed"
                ) from exc
        finally:
            connection.close()

    def _call(
        self,
        method: str,
        path: str,
        body: bytes | IO[bytes] | Iterable[bytes] | None,
        timeout_s: float,
        headers: Mapping[str, str] | None = None,
    ) -> JsonObject:
        return _json_object(self._answer(method, path, body, timeout_s, headers or {}))

    def _answer(
        self,
        method: str,
        path: str,
        body: bytes | IO[bytes] | Iterable[bytes] | None,
        timeout_s: float,
        headers: Mapping[str, str],
    ) -> bytes:
        connection = _Connection(self._socket_path, timeout_s)
        try:
            return self._send(connection, method, path, body, headers).read(ANSWER_BYTES_MAX)
        except (TimeoutError, ConnectionError, http.client.HTTPException) as exc:
            raise OutcomeUnknown(
                f"cloudlet did not answer ({exc or type(exc).__name__}): look at its output and try again"
            ) from exc
        finally:
            connection.close()

    def _send(
        self,
        connection: http.client.HTTPConnection,
        method: str,
        path: str,
        body: bytes | IO[bytes] | Iterable[bytes] | None,
        headers: Mapping[str, str],
    ) -> http.client.HTTPResponse:
        """Raise the error of the platform that the answer stands for."""
        try:
            connection.connect()
        except (FileNotFoundError, ConnectionRefusedError) as exc:
            raise CommandFailed(self._not_running, ExitCode.NOT_RUNNING, "not_running") from exc
        except PermissionError as exc:
            raise CommandFailed(
                f"{self._socket_path} belongs to another user: use the account that runs cloudlet",
                ExitCode.REFUSED,
                "permission_denied",
            ) from exc
        content = {"content-type": "application/json"} if isinstance(body, bytes) else {}
        try:
            connection.request(method, path, body, {**content, **headers})
        except (BrokenPipeError, ConnectionResetError):
            # Refused before all was sent; the answer says why.
            if isinstance(body, bytes) or body is None:
                raise
        response = connection.getresponse()
        if response.status >= 400:
            raise _error(response.status, response.read(ANSWER_BYTES_MAX))
        return response


def environment_path(environment: str, *parts: str) -> str:
    """Path of something in an environment. Raise InvalidName: dots and slashes would lead elsewhere."""
    check_environment_name(environment)
    return "/".join(("/environments", *(quote(part, safe="") for part in (environment, *parts))))


def function_path(environment: str, function: str) -> str:
    """Path of a function. Raise InvalidName."""
    return environment_path(environment, "functions", check_function_name(function))


def _error(status: int, body: bytes) -> Exception:
    try:
        answer = _json_object(body)
    except Unavailable:
        answer = {}
    message = str(answer.get("message") or f"cloudlet answered with status {status}")
    return error_class(str(answer.get("code", "")))(message)


def _json_object(body: bytes) -> JsonObject:
    try:
        answer = json.loads(body)
    except ValueError as exc:
        raise Unavailable("cloudlet answered with something that is not JSON") from exc
    if not isinstance(answer, dict):
        raise Unavailable("cloudlet answered with something that is not a JSON object")
    return answer


class _Connection(http.client.HTTPConnection):
    """HTTP over a unix socket."""

    def __init__(self, path: Path, timeout_s: float) -> None:
        super().__init__("cloudlet", timeout=timeout_s)
        self._path = path
        self._timeout_s = timeout_s

    def connect(self) -> None:
        self.sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self.sock.settimeout(self._timeout_s)
        try:
            self.sock.connect(str(self._path))
        except OSError:
            self.sock.close()
            raise

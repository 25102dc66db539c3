"""The network thread: connections of the platform, the control channel, and the clock."""

from __future__ import annotations

import contextlib
import json
import os
import select
import socket
import sys
from collections import deque
from collections.abc import Callable
from threading import Lock, Thread
from time import monotonic
from typing import Any

from .calls import EVENT_BYTES_MAX, NEVER, Call, Calls, Ending
from .http1 import HEAD_BYTES_MAX, BadRequest, Body, Head, parse_head
from .identity import Caller
from .replies import CONTINUE, UNREADABLE

_LISTENER = 3
_CONTROL = 4
_READ_BYTES = 256 * 1024
_CONTROL_LINE_BYTES_MAX = 4 * 1024 * 1024
_EXIT_GRACE_S = 2.0
_IN = 1
_OUT = 4
"""POLLIN and POLLOUT, which are EPOLLIN and EPOLLOUT as well."""


class Server(Thread):
    """Owns the descriptors 3 and 4. Ends the process when the node is gone or when `Calls` says so."""

    def __init__(self, on_operation: Callable[[dict[str, Any]], None], on_end: Callable[[], None]) -> None:
        """`on_operation` gets each message of the node; `on_end` is called when it may end with 0."""
        super().__init__(name="cloudlet", daemon=True)
        self._on_operation = on_operation
        self._on_end = on_end
        self._poller = _Poller()
        self._handlers: dict[int, Callable[[int], None]] = {}
        self._control = socket.socket(fileno=_CONTROL)
        self._control_rest = b""
        self._control_lock = Lock()
        self._calls: Calls | None = None
        self._listener: socket.socket | None = None
        self._wake_out, self._wake_in = os.pipe()
        os.set_blocking(self._wake_in, False)
        self._touched: deque[Connection] = deque()
        """Connections that another thread left something to do on."""
        self.unflushed: set[Connection] = set()
        """Connections whose answer the kernel has not taken completely."""
        self._exit_at_s = NEVER
        """When to look again whether the process can end."""
        self._quiet_since_s = 0.0
        """Since when nothing runs in a process that is to end."""
        self._asked_at_s = 0.0
        """When the main thread was asked to end the process."""
        self._watch(_CONTROL, _IN, self._on_control)
        self._watch(self._wake_out, _IN, self._on_wake)

    def serve(self, calls: Calls) -> None:
        """Take calls from now on; the ones that wait in the backlog first."""
        self._calls = calls
        self._listener = socket.socket(fileno=_LISTENER)
        self._listener.setblocking(False)
        self._watch(_LISTENER, _IN, self._on_connect)

    def send(self, event: dict[str, Any]) -> None:
        """Tell the node. A node that is gone is noticed on the reading side."""
        with self._control_lock:
            try:
                self._control.sendall(json.dumps(event).encode() + b"\n")
            except OSError:
                os._exit(1)

    def wake(self) -> None:
        """Make the network thread look around. A full pipe means that it will."""
        with contextlib.suppress(BlockingIOError):
            os.write(self._wake_in, b"x")

    def touch(self, connection: Connection) -> None:
        """Let the network thread look at `connection`."""
        self._touched.append(connection)
        self.wake()

    def run(self) -> None:
        try:
            while True:
                self._turn()
        except BaseException:
            import traceback

            os.write(2, traceback.format_exc().encode())
            os._exit(1)

    def _turn(self) -> None:
        calls = self._calls
        alarm_s = min(NEVER if calls is None else calls.alarm_s, self._exit_at_s)
        timeout_s = None if alarm_s == NEVER else max(0.0, alarm_s - monotonic())
        for fd, mask in self._poller.wait(timeout_s):
            handler = self._handlers.get(fd)
            if handler is not None:
                handler(mask)
        if calls is None:
            return
        if calls.alarm_s != NEVER and calls.alarm_s <= monotonic():
            calls.tick(monotonic())
        if calls.ending is not None:
            self._maybe_exit(calls, calls.ending)

    def _maybe_exit(self, calls: Calls, ending: Ending) -> None:
        """End the process once nothing runs, everything is answered and its time has come."""
        now = monotonic()
        self._exit_at_s = NEVER
        if not calls.idle:
            return
        self._quiet_since_s = self._quiet_since_s or now
        patience_s = max(ending.not_before_s, self._asked_at_s or self._quiet_since_s) + _EXIT_GRACE_S
        flushed = not self.unflushed and not self._touched
        if now < ending.not_before_s:
            self._exit_at_s = ending.not_before_s
        elif not flushed and now < patience_s:
            self._exit_at_s = patience_s
        elif not ending.orderly:
            os._exit(ending.code)
        elif not self._asked_at_s:
            self._asked_at_s = now
            self._exit_at_s = now + _EXIT_GRACE_S
            self._on_end()
        elif now >= patience_s:
            os._exit(ending.code)
        else:
            self._exit_at_s = patience_s

    def _watch(self, fd: int, mask: int, handler: Callable[[int], None]) -> None:
        self._handlers[fd] = handler
        self._poller.register(fd, mask)

    def _on_control(self, _mask: int) -> None:
        data = self._control.recv(_READ_BYTES)
        if not data:
            os._exit(1)  # The node is gone.
        *lines, self._control_rest = (self._control_rest + data).split(b"\n")
        if len(self._control_rest) > _CONTROL_LINE_BYTES_MAX:
            os._exit(1)
        for line in lines:
            if line:
                self._on_operation(json.loads(line))

    def _on_wake(self, _mask: int) -> None:
        os.read(self._wake_out, 4096)
        while self._touched:
            self._touched.popleft().look()

    def _on_connect(self, _mask: int) -> None:
        assert self._listener is not None and self._calls is not None
        while True:
            try:
                sock, _ = self._listener.accept()
            except BlockingIOError:
                return
            except OSError:
                return  # The caller was gone before it was accepted, or descriptors ran out for a moment.
            Connection(self, self._calls, sock)

    def register(self, connection: Connection, fd: int, mask: int) -> None:
        self._watch(fd, mask, connection.ready)

    def change(self, fd: int, mask: int) -> None:
        self._poller.modify(fd, mask)

    def unregister(self, fd: int) -> None:
        del self._handlers[fd]
        self._poller.unregister(fd)


class Connection:
    """One keep-alive connection: read a request, have it answered, read the next one.

    Read by the network thread only; answered by any thread. What comes while a request is being answered is
    kept for later.
    """

    def __init__(self, server: Server, calls: Calls, sock: socket.socket) -> None:
        self._server = server
        self._calls = calls
        self._socket = sock
        self._fd = sock.fileno()
        self._buffer = b""
        self._head: Head | None = None
        self._body: Body | None = None
        self._head_at_s = 0.0
        self._answering = False
        self._out = memoryview(b"")
        self._mask = _IN
        self._close_after = False
        self.gone = False
        sock.setblocking(False)
        server.register(self, self._fd, _IN)

    def answer(self, data: bytes, close: bool = False) -> None:
        """Send the only answer to the request that was read last."""
        self._close_after |= close
        try:
            sent = self._socket.send(data)
        except BlockingIOError:
            sent = 0
        except OSError:
            self._answering = False
            self.gone = True
            self._server.touch(self)
            return
        if sent < len(data):
            self._out = memoryview(data)[sent:]
            self._server.touch(self)
            return
        self._answering = False
        if self._buffer or self._close_after or self.gone:
            self._server.touch(self)

    def ready(self, mask: int) -> None:
        """The socket can be read or written, or has ended."""
        if mask & _OUT:
            self._flush()
        if mask & ~_OUT:
            self._read()

    def look(self) -> None:
        """Another thread has answered and left something to do."""
        if self._fd < 0:
            return
        if self._out:
            self._flush()
        elif not self._answering:
            self._next()

    def _next(self) -> None:
        """The answer is out: close, or go on with what came meanwhile."""
        if self._close_after or self.gone:
            self._close()
            return
        self._set_mask(_IN)
        if self._buffer:
            data, self._buffer = self._buffer, b""
            self._feed(data)

    def _read(self) -> None:
        try:
            data = self._socket.recv(_READ_BYTES)
        except BlockingIOError:
            return
        except OSError:
            data = b""
        if not data:
            self.gone = True
            if self._answering:
                self._set_mask(0)
            else:
                self._close()
        elif self._answering:
            self._buffer += data
            if len(self._buffer) > HEAD_BYTES_MAX:
                self._set_mask(self._mask & ~_IN)
            if not self._answering and not self._out:
                self._next()  # It was answered by another thread in this very moment.
        else:
            self._feed(data)

    def _feed(self, data: bytes) -> None:
        try:
            self._parse(data)
        except BadRequest:
            self._close_after = True
            self._answering = True
            self.answer(UNREADABLE)

    def _parse(self, data: bytes) -> None:
        if self._head is None:
            head, end, data = (self._buffer + data).partition(b"\r\n\r\n")
            if len(head) > HEAD_BYTES_MAX:
                raise BadRequest("head too long")
            if not end:
                self._buffer = head
                return
            self._buffer = b""
            self._head = parse_head(head)
            self._head_at_s = monotonic()
            self._body = Body(self._head, EVENT_BYTES_MAX)
            if self._head.expects_continue:
                self._socket.send(CONTINUE)
        assert self._body is not None
        rest = self._body.feed(data)
        if rest is None:
            return
        head_, body = self._head, self._body
        self._head = self._body = None
        self._buffer = rest
        self._close_after = head_.close
        self._answering = True
        self._calls.arrived(Call(self, Caller(head_.platform), body.value, body.size, self._head_at_s))

    def _flush(self) -> None:
        if not self._out:
            return
        self._server.unflushed.add(self)
        try:
            self._out = self._out[self._socket.send(self._out) :]
        except BlockingIOError:
            pass
        except OSError:
            self._out = memoryview(b"")
            self.gone = True
        if self._out:
            self._set_mask(self._mask | _OUT)
            return
        self._server.unflushed.discard(self)
        self._answering = False
        self._next()

    def _set_mask(self, mask: int) -> None:
        """0 = not watched at all: any other mask reports the end of a connection again and again."""
        if mask == self._mask:
            return
        if self._mask == 0:
            self._server.register(self, self._fd, mask)
        elif mask == 0:
            self._server.unregister(self._fd)
        else:
            self._server.change(self._fd, mask)
        self._mask = mask

    def _close(self) -> None:
        if self._fd >= 0:
            self._set_mask(0)
            self._fd = -1
            self._socket.close()


class _Poller:
    """epoll where there is one, poll elsewhere: the same numbers for the same events, other units of time."""

    def __init__(self) -> None:
        if sys.platform == "linux":
            epoll = select.epoll()
            self.register, self.modify, self.unregister = epoll.register, epoll.modify, epoll.unregister
            self.wait: Callable[[float | None], list[tuple[int, int]]] = epoll.poll
        else:
            poll = select.poll()
            self.register, self.modify, self.unregister = poll.register, poll.modify, poll.unregister
            self.wait = lambda timeout_s: poll.poll(None if timeout_s is None else timeout_s * 1000)

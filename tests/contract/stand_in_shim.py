"""A shim without functions, for the suites of the sandbox and the node: it speaks the control channel of
``runtime/contract.md`` and does what the ``handler`` of a load request says. Standard library only."""

import contextlib
import json
import os
import pathlib
import signal
import socket
import subprocess
import sys
import time

BOOM = {"errorCode": 1, "errorMessage": "boom", "stackTrace": "Error: boom at 1"}


def main() -> None:
    control = socket.socket(fileno=4)
    lines = control.makefile("r")

    def say(**message: object) -> None:
        control.sendall(json.dumps(message).encode() + b"\n")

    say(event="booted")
    for line in lines:
        message = json.loads(line)
        if message["op"] == "load":
            load(message, say)
        elif message["op"] == "quiesce":
            say(event="quiesced")
        elif message["op"] == "resume":
            say(event="resumed")
        elif message["op"] == "end":
            sys.exit(0)


def load(message, say) -> None:  # type: ignore[no-untyped-def]
    os.chdir(message["code"])
    handler = message["handler"]
    if handler == "fail":
        say(
            event="load_failed",
            error={"errorCode": 1, "errorMessage": "boom", "stackTrace": "Error: boom at 1"},
        )
        return
    if handler == "exit":
        sys.exit(7)
    if handler == "hang":
        time.sleep(3600)
    report = {
        "pid": os.getpid(),
        "entries": names("."),
        "environment": dict(os.environ),
        "inspect": inspect(),
    }
    if handler == "child":
        report["child"] = subprocess.Popen(("/bin/sleep", "3600")).pid
    if handler == "write":
        report["write"] = [write(name) for name in ("index.py", "new.txt", os.environ["TMPDIR"] + "/new.txt")]
    say(event="loaded", load_ms=1.5, report=report)
    if handler == "die":
        os.kill(os.getpid(), signal.SIGSEGV)
    if handler == "busy":
        os.pwrite(5, (time.monotonic_ns() + 10_000_000).to_bytes(8, "little") + (1).to_bytes(8, "little"), 0)
        while True:
            pass
    if handler == "eat":
        hoard = bytearray(400 * 1024 * 1024)
        hoard[::4096] = b"x" * len(hoard[::4096])
        time.sleep(3600)
    if handler == "print":
        os.write(1, b"\x1er-1\x1finfo\x1fhello\nplain line\n")
    if handler == "flood":
        with contextlib.suppress(OSError):
            while True:
                os.write(1, b"x" * 60 + b"\n")


def inspect() -> dict:  # type: ignore[type-arg]
    """What the process sees of itself."""
    descriptors = []
    for number in range(256):
        with contextlib.suppress(OSError):
            os.fstat(number)
            descriptors.append(number)
    return {
        "descriptors": descriptors,
        "session": os.getsid(0),
        "listening": socket.socket(fileno=os.dup(3)).getsockopt(socket.SOL_SOCKET, socket.SO_ACCEPTCONN),
        "tmp": names("/tmp"),
        "page_bytes": os.fstat(5).st_size,
    }


def write(name: str) -> int:
    """The error number of writing a file, 0 when it could be written."""
    try:
        pathlib.Path(name).write_text("changed")
    except OSError as error:
        return error.errno or -1
    return 0


def names(directory: str) -> list[str]:
    return sorted(path.name for path in pathlib.Path(directory).iterdir())


main()

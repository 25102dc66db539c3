"""``cloudlet dev`` as a child whose events are read."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import threading
from pathlib import Path
from typing import Any, Self

from tests.acceptance.installation import Installation, cloudlet, descendants, identity
from tests.integration.platform import Platform
from tests.integration.up_support import until

END_S_MAX = 60.0
Event = dict[str, Any]

USES_DOCUMENTS = """
import json, os, time, urllib.request

def call(action, **parameters):
    body = dict(parameters, action=action, envName=os.environ["SCF_NAMESPACE"])
    credential = os.environ["TENCENTCLOUD_SECRETID"] + "/2026-01-01/tcb/tc3_request"
    head = "TC3-HMAC-SHA256 Credential=" + credential + ", SignedHeaders=content-type;host, Signature=0"
    url = json.loads(os.environ["TCB_CONTEXT_CNFG"])["URL"]
    now = str(int(time.time()))
    headers = {"content-type": "application/json", "authorization": head, "x-timestamp": now}
    request = urllib.request.Request(url, json.dumps(body).encode(), headers)
    with urllib.request.urlopen(request, timeout=20) as response:
        return json.load(response)

def main_handler(event, context):
    if event.get("add"):
        return call("database.insertDocument", collectionName="notes", data=[json.dumps({"n": event["add"]})])
    query = json.dumps(event.get("query", {}))
    return call("database.getDocument", collectionName="notes", queryType="WHERE", query=query)
"""


class Dev:
    """One run of ``cloudlet dev --json``; use it as a context manager. `installation` asks the platform that
    it started, `platform` plays its users."""

    def __init__(self, project: Path, data: Path, *options: str) -> None:
        self.project = project
        self.installation = Installation(data)
        self.platform = Platform(self.installation)
        self.events: list[Event] = []
        self.words = ""
        self._options = options
        self._family: dict[int, tuple[str, str]] = {}

    def __enter__(self) -> Self:
        kept = {name: value for name, value in os.environ.items() if not name.startswith("CLOUDLET_")}
        # A process group of its own, as a terminal gives it.
        self._process = subprocess.Popen(
            [cloudlet(), "dev", self.project, "--port", "0", "--json", *self._options],
            env=kept | {"CLOUDLET_DATA": str(self.installation.data)},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            start_new_session=True,
        )
        self._reader = threading.Thread(target=self._read)
        self._reader.start()
        self.installation.url = self.event("ready")["url"]
        return self

    def __exit__(self, *_: object) -> None:
        if self._process.poll() is None:
            self.kill()
        self._close()

    def event(self, kind: str, /, **fields: object) -> Event:
        """The first event of this kind with these fields, waited for."""

        def found() -> Event | None:
            for event in list(self.events):
                if event["event"] == kind and all(event.get(name) == value for name, value in fields.items()):
                    return event
            if self._process.poll() is not None and not self._reader.is_alive():
                raise AssertionError(f"cloudlet dev ended with {self._process.returncode}: {self.words}")
            return None

        event: Event = until(found, f"{kind} {fields} is told; told was {self.events[-20:]}")
        return event

    def forget(self) -> None:
        """Only what comes from now on is looked at by `event`."""
        self.events.clear()

    def interrupt(self) -> int:
        """Ctrl-C: a signal for the whole group. Return the exit code; nothing may be left behind."""
        family = descendants(self._process.pid)
        os.killpg(self._process.pid, signal.SIGINT)
        code = self._process.wait(END_S_MAX)
        self._close()
        assert [name for pid, (born, name) in family.items() if identity(pid) == (born, name)] == []
        return code

    def kill(self) -> None:
        """SIGKILL for ``cloudlet dev`` alone; return when everything it had started has ended, too."""
        family = descendants(self._process.pid)
        self._process.kill()
        self._process.wait()
        until(
            lambda: not [1 for pid, (born, name) in family.items() if identity(pid) == (born, name)],
            "everything has ended",
        )

    def _read(self) -> None:
        assert self._process.stdout is not None
        for line in self._process.stdout:
            self.events.append(json.loads(line))

    def _close(self) -> None:
        self.platform.close()
        self._reader.join()
        for stream in (self._process.stdout, self._process.stderr):
            if stream is not None and not stream.closed:
                self.words += stream.read() if stream is self._process.stderr else ""
                stream.close()

"""One cloudlet installation, handled from outside as people handle it: by its command line and signals."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

REPOSITORY = Path(__file__).resolve().parents[2]
READY_S_MAX = 30.0
STOP_S_MAX = 20.0
COMMAND_S_MAX = 600.0
"""A first deploy fetches packages."""


class InstallationFailed(Exception):
    """The platform or one of its commands did not do what it should; the message has its words."""


class Installation:
    """Starts, asks, kills and stops ``cloudlet up`` for one data directory. Not for several threads."""

    def __init__(self, data: Path) -> None:
        self.data = data
        self.log = data / "up.log"
        self.url = ""
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def pid(self) -> int:
        """Process id of ``cloudlet up``."""
        return self._running().pid

    def start(self) -> float:
        """Return the seconds until ``cloudlet status`` said that it is ready."""
        self.data.mkdir(parents=True, exist_ok=True)
        if self._status() is not None:
            raise InstallationFailed(f"another cloudlet is running for {self.data}: stop it first")
        started = time.monotonic()
        with self.log.open("ab") as log:
            # A session of its own: Ctrl-C reaches only this program, which then stops it in order.
            self._process = subprocess.Popen(
                [cloudlet(), "up", "--data", self.data, "--port", "0"],
                cwd=REPOSITORY,
                env=self._environment(),
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
        while True:
            status = self._status()
            if (code := self._process.poll()) is not None:
                self._process = None
                raise InstallationFailed(f"cloudlet up ended with {code}:\n{self.log_tail()}")
            if status is not None:
                self.url = str(status["url"]).rstrip("/")
                return time.monotonic() - started
            if time.monotonic() - started > READY_S_MAX:
                self.kill()
                raise InstallationFailed(f"not ready after {READY_S_MAX:.0f} s:\n{self.log_tail()}")

    def status(self) -> dict[str, Any]:
        """What ``cloudlet status --json`` says."""
        return self.json("status")

    def instances(self, function: str) -> list[int]:
        """Process ids of the instances of `function` that can take calls."""
        running = self.status()["running"]
        return [each["pid"] for each in running if each["function"] == function and each["state"] == "ready"]

    def token(self, openid: str) -> str:
        """An access token for the user `openid`."""
        return str(self.json("token", "--openid", openid)["access_token"])

    def deploy(self, project: Path, *options: str) -> dict[str, Any]:
        """Deploy and return the summary. Raise InstallationFailed when a function could not be deployed."""
        done = self._run("deploy", str(project), *options, "--json")
        what = f"cloudlet deploy {project} ended with {done.returncode}"
        if not done.stdout:
            raise InstallationFailed(f"{what}: {done.stderr}")
        summary: dict[str, Any] = json.loads(done.stdout)
        failed = [each for each in summary["functions"] if each["status"] == "failed"]
        if failed or done.returncode != 0:
            raise InstallationFailed(
                what + "".join(f"\n{each['function']}: {each['message']}" for each in failed)
            )
        return summary

    def invoke(self, function: str, event: object) -> Any:
        """Call `function` as the operator, on nobody's behalf, and return its result."""
        return self.json("fn", "invoke", function, "-d", json.dumps(event))["result"]

    def json(self, *arguments: str) -> dict[str, Any]:
        """The JSON object that a command prints with ``--json``."""
        value = json.loads(self.command(*arguments, "--json"))
        if not isinstance(value, dict):
            raise InstallationFailed(f"cloudlet {' '.join(arguments)} --json printed no object")
        return value

    def command(self, *arguments: str) -> str:
        """Standard output of one command. Raise InstallationFailed when it fails."""
        done = self._run(*arguments)
        if done.returncode != 0:
            words = f"{done.stderr}{done.stdout}".strip()
            raise InstallationFailed(f"cloudlet {' '.join(arguments)} ended with {done.returncode}: {words}")
        return done.stdout

    def kill(self) -> None:
        """SIGKILL to ``cloudlet up`` alone: everything else must go by itself."""
        process = self._running()
        if process.poll() is not None:
            raise InstallationFailed(f"cloudlet up had ended with {process.returncode}:\n{self.log_tail()}")
        process.kill()
        process.wait()
        self._process = None

    def stop(self) -> list[str]:
        """SIGTERM, then wait; return the processes it left behind (there should be none)."""
        if self._process is None:
            return []
        process, family = self._process, descendants(self._process.pid)
        process.send_signal(signal.SIGTERM)
        try:
            code = process.wait(STOP_S_MAX)
        except subprocess.TimeoutExpired:
            self.kill()
            raise InstallationFailed(
                f"still running {STOP_S_MAX:.0f} s after SIGTERM:\n{self.log_tail()}"
            ) from None
        self._process = None
        if code != 0:
            raise InstallationFailed(f"cloudlet up ended with {code} after SIGTERM:\n{self.log_tail()}")
        return [f"{pid} {name}" for pid, (born, name) in family.items() if identity(pid) == (born, name)]

    def log_tail(self) -> str:
        """The last lines that ``cloudlet up`` printed."""
        return "\n".join(self.log.read_text(errors="replace").splitlines()[-20:])

    def _running(self) -> subprocess.Popen[bytes]:
        if self._process is None:
            raise InstallationFailed("cloudlet up is not running")
        return self._process

    def _status(self) -> dict[str, Any] | None:
        """None while it cannot be asked, or while its node does not answer."""
        done = self._run("status", "--json")
        if done.returncode != 0:
            return None
        status: dict[str, Any] = json.loads(done.stdout)
        return status if status.get("url") and status.get("node") else None

    def _run(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [cloudlet(), *arguments],
            cwd=REPOSITORY,
            env=self._environment(),
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=COMMAND_S_MAX,
            check=False,
        )

    def _environment(self) -> dict[str, str]:
        """The machine's own (package mirrors, certificates), without settings of another installation."""
        kept = {name: value for name, value in os.environ.items() if not name.startswith("CLOUDLET_")}
        return kept | {"CLOUDLET_DATA": str(self.data)}


def cloudlet() -> str:
    """The command of the environment that runs this program."""
    return str(Path(sys.executable).parent / "cloudlet")


def descendants(pid: int) -> dict[int, tuple[str, str]]:
    """Start time and name of every process below `pid` (Linux; empty elsewhere)."""
    found: dict[int, tuple[str, str]] = {}
    for tasks in Path(f"/proc/{pid}/task").glob("*/children"):
        try:
            children = [int(child) for child in tasks.read_text().split()]
        except OSError:
            continue
        for child in children:
            if (known := identity(child)) is not None:
                found[child] = known
            found |= descendants(child)
    return found


def identity(pid: int) -> tuple[str, str] | None:
    """What tells a process from a later one with the same id; None when it is gone or waits to be reaped."""
    try:
        stat = Path(f"/proc/{pid}/stat").read_text()
    except OSError:
        return None
    name, fields = stat[stat.index("(") + 1 : stat.rindex(")")], stat[stat.rindex(")") + 2 :].split()
    return None if fields[0] == "Z" else (fields[19], name)

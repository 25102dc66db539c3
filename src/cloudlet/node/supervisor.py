"""Starts, watches and restarts the platform's other processes (edge, control, api).

A process is restarted when it ends, and killed for that when it hangs: when somebody has stopped it, or when
it has not answered for a long time.
"""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
from collections import deque
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path

import msgspec
import structlog

from cloudlet.model.clock import Clock
from cloudlet.model.errors import PlatformError, Unavailable, error_class
from cloudlet.model.sandbox import ProcessStatus
from cloudlet.observe.logs import PROCESS_FAILED
from cloudlet.sandbox import linux
from cloudlet.sandbox.base import CellExit
from cloudlet.sandbox.child import Child, ChildSpec, spawn

from .logs import RotatingFile

HEALTHY_S = 2.0
"""A process that ran this long starts its back-off anew when it ends."""
BACK_OFF_FIRST_S = 0.25
BACK_OFF_S_MAX = 2.0
"""Others wait for what these processes do, so one that ends again and again is tried as often as a small
machine can bear."""
PROBE_PERIOD_S = 0.02
ALIVE_PERIOD_S = 0.4
"""How often a running process is looked at."""
ALIVE_REPLY_S = 2.0
SILENT_MAX = 5
"""Unanswered questions in a row after which a process counts as hung: ten seconds and more, because a machine
that is overloaded or waits for its disk must not lose its processes on top."""
STOPPED_MAX = 2
"""Looks in a row that find the process stopped by a signal: that is certain, so a second will do."""
_READ_BYTES = 64 * 1024
_TAIL_BYTES = 2000
log: structlog.stdlib.BoundLogger = structlog.get_logger()


@dataclass(frozen=True, slots=True)
class ProcessSpec:
    """One process of the platform."""

    name: str
    argv: tuple[str, ...]
    env: Mapping[str, str]
    """The whole environment."""
    pass_fds: Mapping[int, int] = field(default_factory=dict)
    """Number in the process (from 3) → our descriptor, which stays ours and open as long as the process is
    wanted."""
    ready_probe: Callable[[], Awaitable[bool]] | None = None
    """Asked until it says yes (an exception is a no); without one the process counts as ready at once."""
    ready_timeout_s: float = 15.0
    alive_probe: Callable[[], Awaitable[bool]] | None = None
    """Asked from time to time while the process runs (an exception or silence is a no); it must be cheap and
    say yes as long as the process does anything at all. Without one only a stopped process is noticed."""
    stop_signal: int = signal.SIGTERM
    grace_s: float = 5.0
    """Time between the stop signal and SIGKILL."""


@dataclass(frozen=True, slots=True)
class Pulse:
    """How often in a row a running process was found stopped, and how often it did not answer."""

    stopped: int = 0
    silent: int = 0

    def after(self, stopped: bool, answered: bool) -> Pulse:
        """The pulse after one more look; a stopped process is not asked."""
        if stopped:
            return Pulse(self.stopped + 1, self.silent)
        return Pulse(0, 0 if answered else self.silent + 1)

    @property
    def ailment(self) -> str:
        """Why the process has to be killed; empty when it need not be."""
        if self.stopped >= STOPPED_MAX:
            return "stopped by a signal"
        if self.silent >= SILENT_MAX:
            return f"no answer to {self.silent} questions"
        return ""


def next_restart(failures: int, ran_s: float) -> tuple[int, float]:
    """After a process ended that ran for `ran_s` seconds, with `failures` short runs in a row before: the
    short runs in a row now, and the seconds to wait. The first restart comes at once, then the wait doubles
    up to a bound."""
    if ran_s >= HEALTHY_S:
        failures = 0
    delay_s = 0.0 if failures == 0 else min(BACK_OFF_FIRST_S * 2.0 ** min(failures - 1, 16), BACK_OFF_S_MAX)
    return failures + 1, delay_s


class Supervisor:
    """The platform's processes. What they print goes to ``<logs>/<name>.log``, bounded in size.

    They die with this process (Linux), also when it is killed."""

    def __init__(self, logs: Path, clock: Clock) -> None:
        self._logs = logs
        self._clock = clock
        self._managed: dict[str, _Managed] = {}

    async def start(self, spec: ProcessSpec) -> None:
        """Return when the process is ready; from then on it is restarted whenever it ends. When it ends or is
        not ready in time, raise the error that it named at its end, else Unavailable with its last words: it
        is not kept then. Names are used once."""
        managed = _Managed(spec, RotatingFile(self._logs / f"{spec.name}.log"))
        self._managed[spec.name] = managed
        try:
            await self._bring_up(managed)
        except BaseException:
            self._managed.pop(spec.name, None)  # `stop` may have been faster
            await self._bring_down(managed)
            raise
        managed.keeper = asyncio.create_task(self._keep(managed))

    def status(self) -> tuple[ProcessStatus, ...]:
        """All processes, in order of their start."""
        return tuple(each.status() for each in self._managed.values())

    async def stop(self) -> None:
        """End all processes, the last started first, each with its grace. May be repeated."""
        while self._managed:
            name = next(reversed(self._managed))
            managed = self._managed[name]
            if managed.keeper is not None:
                managed.keeper.cancel()
                await asyncio.wait((managed.keeper,))
            await self._bring_down(managed)
            self._managed.pop(name, None)

    async def _keep(self, managed: _Managed) -> None:
        """Restart it whenever it ends, until cancelled."""
        failures = 0
        while True:
            began = self._clock.monotonic()
            child = managed.child
            if child is not None:
                exit_ = await _ended(managed.spec, child)
                log.warning("process_ended", process=managed.spec.name, exit=str(exit_))
            failures, delay_s = next_restart(failures, self._clock.monotonic() - began)
            await self._bring_down(managed, keep_log=True)
            await asyncio.sleep(delay_s)
            managed.restarts += 1
            try:
                await self._bring_up(managed)
            except PlatformError as exc:
                log.error("process_not_restarted", process=managed.spec.name, reason=exc.message)
                await self._bring_down(managed, keep_log=True)

    async def _bring_up(self, managed: _Managed) -> None:
        spec = managed.spec
        began = self._clock.monotonic()
        try:
            managed.start(partial(linux.die_with_parent, os.getpid()))
        except (OSError, subprocess.SubprocessError) as exc:
            raise Unavailable(f"{spec.name} cannot be started: {exc}") from exc
        if spec.ready_probe is not None:
            await _ready(managed, spec.ready_probe)
        managed.ready = True
        took_ms = round((self._clock.monotonic() - began) * 1000, 1)
        log.info("process_ready", process=spec.name, pid=managed.status().pid, ready_ms=took_ms)

    async def _bring_down(self, managed: _Managed, keep_log: bool = False) -> None:
        child = managed.child
        managed.ready = False
        if child is not None and child.running:
            child.signal(managed.spec.stop_signal)
            child.signal(signal.SIGCONT)  # one that somebody stopped would not hear it
            try:
                async with asyncio.timeout(managed.spec.grace_s):
                    await child.wait()
            except TimeoutError:
                log.warning("process_killed", process=managed.spec.name, grace_s=managed.spec.grace_s)
            finally:
                child.signal_group(signal.SIGKILL)
            await child.wait()
        managed.forget(keep_log)


class _Managed:
    """One process with its output."""

    def __init__(self, spec: ProcessSpec, output: RotatingFile) -> None:
        self.spec = spec
        self.child: Child | None = None
        self.ready = False
        self.restarts = 0
        self.keeper: asyncio.Task[None] | None = None
        self._output = output
        self._tail = b""
        self._pipe = -1

    def start(self, prepare: Callable[[], None]) -> None:
        """Raise OSError or subprocess.SubprocessError."""
        spec = self.spec
        read, write = os.pipe()
        try:
            os.set_blocking(read, False)
            self.child = spawn(
                ChildSpec(spec.argv, spec.env, Path("/"), write, write, spec.pass_fds, prepare)
            )
        except BaseException:
            os.close(read)
            raise
        finally:
            os.close(write)
        self._pipe, self._tail = read, b""
        asyncio.get_running_loop().add_reader(read, self._read)

    def status(self) -> ProcessStatus:
        running = self.child is not None and self.child.running
        pid = self.child.pid if self.child is not None and running else 0
        return ProcessStatus(self.spec.name, pid, running and self.ready, self.restarts)

    def last_words(self) -> str:
        if self._pipe >= 0:
            self._read()
        return self._tail.decode(errors="replace").strip()

    def forget(self, keep_log: bool) -> None:
        """Give back what the last run used."""
        if self._pipe >= 0:
            self._read()
        self._close_pipe()
        self.child = None
        if not keep_log:
            self._output.close()

    def _read(self) -> None:
        try:
            data = os.read(self._pipe, _READ_BYTES)
        except BlockingIOError:
            return
        if data:
            self._tail = (self._tail + data)[-_TAIL_BYTES:]
            self._output.append(data)
        else:
            self._close_pipe()

    def _close_pipe(self) -> None:
        pipe, self._pipe = self._pipe, -1
        if pipe >= 0:
            asyncio.get_running_loop().remove_reader(pipe)
            os.close(pipe)


async def _ended(spec: ProcessSpec, child: Child) -> CellExit:
    """Return when the process has ended; one that hangs is killed."""
    watch = asyncio.create_task(_ailing(spec, child))
    end = asyncio.create_task(child.wait())
    try:
        await asyncio.wait((watch, end), return_when=asyncio.FIRST_COMPLETED)
        if not end.done():
            log.error("process_hangs", process=spec.name, pid=child.pid, reason=watch.result())
            child.signal_group(signal.SIGKILL)
        return await end
    finally:
        watch.cancel()
        end.cancel()
        await asyncio.wait((watch, end))


async def _ailing(spec: ProcessSpec, child: Child) -> str:
    """Return what is wrong once the process hangs."""
    pulse = Pulse()
    while not pulse.ailment:
        await asyncio.sleep(ALIVE_PERIOD_S)
        stopped = linux.is_stopped(child.pid)
        answered = True if stopped or spec.alive_probe is None else await _answers(spec.alive_probe)
        pulse = pulse.after(stopped, answered)
    return pulse.ailment


async def _answers(probe: Callable[[], Awaitable[bool]]) -> bool:
    try:
        async with asyncio.timeout(ALIVE_REPLY_S):
            return await probe()
    except Exception as exc:
        log.debug("probe_failed", reason=repr(exc))  # a probe may fail in any way
        return False


async def _ready(managed: _Managed, probe: Callable[[], Awaitable[bool]]) -> None:
    """Ask until the process is ready; one that hangs meanwhile is killed. Raise what `start` raises."""
    spec, child = managed.spec, managed.child
    if child is None:
        raise Unavailable(f"{spec.name} was stopped while it was started")
    refusals: deque[str] = deque(maxlen=1)
    asked = asyncio.create_task(_says_yes(probe, refusals))
    # It cannot answer yet, but it can have been stopped.
    end = asyncio.create_task(_ended(replace(spec, alive_probe=None), child))
    try:
        await asyncio.wait((asked, end), timeout=spec.ready_timeout_s, return_when=asyncio.FIRST_COMPLETED)
        if asked.done():
            return
        if end.done():
            raise _failure(spec.name, managed.last_words())
        child.signal_group(signal.SIGKILL)
        words = " ".join((*refusals, managed.last_words()))
        raise Unavailable(f"{spec.name} was not ready within {spec.ready_timeout_s:g} s: {words}")
    finally:
        asked.cancel()
        end.cancel()
        await asyncio.wait((asked, end))


async def _says_yes(probe: Callable[[], Awaitable[bool]], refusals: deque[str]) -> None:
    """Return once the probe does; `refusals` gets why it could not."""
    while True:
        try:
            if await probe():
                return
        except Exception as exc:
            refusals.append(repr(exc))  # a probe may fail in any way while there is nobody to ask
        await asyncio.sleep(PROBE_PERIOD_S)


def _failure(name: str, last_words: str) -> PlatformError:
    """What the process said about its end, if it said so in the form of the platform's log."""
    try:
        said = msgspec.json.decode(last_words.rpartition("\n")[2], type=_LastWord)
    except (msgspec.DecodeError, msgspec.ValidationError):
        said = None
    if said is not None and said.event == PROCESS_FAILED:
        return error_class(said.code)(said.message)
    return Unavailable(f"{name} ended while it was started: {last_words}")


class _LastWord(msgspec.Struct):
    event: str
    code: str
    message: str

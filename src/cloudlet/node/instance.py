"""One instance: a cell that got a version, from its load to its end."""

from __future__ import annotations

import asyncio
from pathlib import Path
from signal import SIGKILL

import msgspec
import structlog

from cloudlet.model.clock import Clock
from cloudlet.model.errors import FunctionLoadFailed, InstanceNotFound, PlatformError, Unavailable
from cloudlet.model.function import Version
from cloudlet.model.sandbox import EndReason, InstanceEnded, InstanceState, InstanceStatus, Rung, StartTiming
from cloudlet.runtime.bundle import load_operation
from cloudlet.sandbox.base import Cell, CellExit

from .cells import Blank
from .framing import TokenBucket
from .lifecycle import after, end_reason
from .logs import LogStore
from .platform import PlatformDoor
from .pump import OutputPump
from .watch import Watched, bounds_of
from .wire import OPS, CellEvent, LogRecord, load_error_text, parse_cell_event

LOAD_TIMEOUT_S = 30.0
"""Evaluating a function's modules may take this long."""
ANSWER_MARGIN_S = 5.0
"""An instance whose event loop is blocked answers a quiesce only after its invocation was killed or has
ended."""
EXIT_DELAY_S = 1.0
"""A process whose control channel is closed has ended or is about to."""
WORDS_PER_S = 50
WORDS_BURST = 500
log: structlog.stdlib.BoundLogger = structlog.get_logger()


class Instance:
    """In this order, by its owner: `attach` → `load` → `show` → `until_loaded` → `serve` (until the cell has
    ended) → `finish` → `release`; the rest may be called at any time. Until a cell is attached it holds
    nothing."""

    def __init__(self, instance_id: str, version: Version, rung: Rung, clock: Clock, logs: LogStore) -> None:
        self.instance_id = instance_id
        self.version = version
        self.state = InstanceState.STARTING
        self.door: PlatformDoor | None = None
        self.pump: OutputPump | None = None
        self.watched: Watched | None = None
        self._rung = rung
        self._clock = clock
        self._logs = logs
        self._blank: Blank | None = None
        self._socket_path: Path | None = None
        self._timing = StartTiming()
        self._started_at = clock.now()
        self._condemned: tuple[EndReason, str] | None = None
        self._answers: dict[str, asyncio.Future[None]] = {}
        self._talking = asyncio.Lock()
        self._words = TokenBucket(WORDS_PER_S, WORDS_BURST, clock.monotonic())

    def status(self) -> InstanceStatus:
        config = self.version.config
        return InstanceStatus(
            instance_id=self.instance_id,
            version=self.version.key,
            state=self.state,
            socket_path=str(self._socket_path or ""),
            rung=self._rung,
            pid=self._blank.cell.pid if self._blank else 0,
            started_at=self._started_at,
            timing=self._timing,
            concurrency=config.concurrency,
            timeout_s=config.timeout_s,
            memory_mb=round(self.watched.memory_bytes / 1024**2, 1) if self.watched else 0.0,
        )

    def attach(self, blank: Blank, pooled: bool) -> None:
        """Take over a cell."""
        config = self.version.config
        self._blank = blank
        self._timing = StartTiming(0.0 if pooled else blank.boot_ms, 0.0, pooled)
        bounds = bounds_of(config.runtime.language, config.timeout_s, config.memory_mb)
        self.watched = Watched(blank.cell.meter, bounds, self.condemn)

    async def load(self, door: PlatformDoor) -> None:
        """Tell the cell to load the version. Raise Unavailable."""
        cell = self._cell
        self.door = door
        code = cell.mount_code(Path(self.version.code_dir))
        message = dict(load_operation(self.version, door.credentials, door.url, code))
        names = {**msgspec.convert(message["environment"], dict[str, str])}
        message["environment"] = {**names, "CLOUDLET_INSTANCE": self.instance_id}
        await cell.send(msgspec.json.encode(message))

    def show(self, socket_path: Path) -> None:
        """Give the cell's socket the instance's name, and read what the cell prints. Raise OSError."""
        outputs = self._cell.outputs
        if self._blank is not None:
            self._blank.socket_path.rename(socket_path)
        self._socket_path = socket_path
        self.pump = OutputPump(self.instance_id, outputs, self._clock, self._write_log)

    async def until_loaded(self) -> None:
        """Return when the cell has loaded the version. Raise FunctionLoadFailed or Unavailable."""
        try:
            async with asyncio.timeout(LOAD_TIMEOUT_S):
                event = await self._loaded()
        except TimeoutError:
            raise self._load_failed(f"loading took longer than {LOAD_TIMEOUT_S:.0f} seconds") from None
        self._timing = StartTiming(self._timing.sandbox_ms, event.load_ms, self._timing.pooled)
        self.state = after(self.state, "loaded")

    async def serve(self) -> CellExit:
        """Hear what the cell says until it has ended."""
        while (event := await self._hear()) is not None:
            self.state = after(self.state, event.event)
            answer = self._answers.pop(event.event, None)
            if answer is not None and not answer.done():
                answer.set_result(None)
        try:
            async with asyncio.timeout(EXIT_DELAY_S):
                return await self._cell.wait()
        except TimeoutError:
            self._cell.kill()  # it has closed its channel, so nobody could quiesce it any more
            return await self._cell.wait()

    async def talk(self, op: str, answer: str, until: InstanceState) -> None:
        """Send `op` and wait for its answer, unless the instance is in state `until` already. Raise
        InstanceNotFound when it ends instead, Unavailable when it does not answer."""
        async with self._talking:
            if self.state is until:
                return
            self._check_alive()
            waiting = self._answers[answer] = asyncio.get_running_loop().create_future()
            try:
                await self._cell.send(OPS[op])
                async with asyncio.timeout(self.version.config.timeout_s + ANSWER_MARGIN_S):
                    await waiting
            except TimeoutError:
                raise Unavailable(f"instance {self.instance_id} does not answer {op}") from None
            except Unavailable:
                raise InstanceNotFound(f"instance {self.instance_id} has ended") from None
            finally:
                self._answers.pop(answer, None)

    async def ask_to_end(self) -> None:
        """Let it finish what runs and exit. One that has ended or cannot hear is fine."""
        if self._blank is None or self.state is InstanceState.ENDED:
            return
        self.condemn(EndReason.STOPPED, "", kill=False)
        self._cell.set_frozen(False)
        try:
            await self._cell.send(OPS["end"])
        except Unavailable:
            self._cell.kill()

    def kill(self) -> None:
        """End it at once."""
        if self._blank is not None:
            self._blank.cell.kill()

    def condemn(self, reason: EndReason, detail: str, kill: bool = True) -> None:
        """Note why it ends; the first reason counts. The user reads about the node's own decisions in the
        log."""
        if self._condemned is None:
            self._condemned = (reason, detail)
            if self.pump is not None and reason in (EndReason.TIMEOUT, EndReason.OUT_OF_MEMORY):
                self.pump.note("error", f"the instance was ended: it {detail}")
                log.info("instance_condemned", instance=self.instance_id, reason=reason, detail=detail)
        if kill:
            self.kill()

    async def finish(self) -> InstanceEnded:
        """End the cell and keep its last words; its socket refuses connections then. Return the event to
        publish."""
        self.state = InstanceState.ENDED
        exit_ = CellExit(0)
        exhausted = False
        if self._blank is not None:
            self._blank.cell.kill()
            exit_ = await self._blank.cell.wait()
        if self.pump is not None:
            self.pump.finish()
            exhausted = self.pump.heap_exhausted
        self._release_waiters()
        if self._socket_path is not None:
            self._socket_path.unlink(missing_ok=True)
        reason = end_reason(self._condemned[0] if self._condemned else None, exit_, exhausted)
        detail = (self._condemned[1] if self._condemned else "") or str(exit_)
        return InstanceEnded(self.instance_id, self.version.key, reason, detail)

    async def release(self) -> None:
        """Give back what the cell used. Must follow `finish`."""
        if self._blank is not None:
            await self._blank.discard()

    @property
    def _cell(self) -> Cell:
        if self._blank is None:
            raise Unavailable(f"instance {self.instance_id} has no cell yet")
        return self._blank.cell

    async def _loaded(self) -> CellEvent:
        while (event := await self._hear()) is not None:
            if event.event == "loaded":
                return event
            if event.event == "load_failed":
                raise self._load_failed(load_error_text(event.error))
        exit_ = await self._cell.wait()
        if self._condemned is not None and self._condemned[0] is EndReason.STOPPED:
            raise Unavailable("the instance was stopped while it was started; nothing was started, try again")
        if self._hit_from_outside(exit_):
            raise Unavailable("the instance was killed while it was started; nothing was started, try again")
        reason = self._condemned[1] if self._condemned else str(exit_)
        raise self._load_failed(f"the process ended while the function was loaded: it {reason}")

    def _hit_from_outside(self, exit_: CellExit) -> bool:
        """Whether somebody has stopped or killed the process: that is not the function's fault, and another
        instance will do better. What the node itself decides has been noted before."""
        if self.watched is not None and self.watched.was_stopped:
            return True
        return self._condemned is None and exit_.signal == SIGKILL

    async def _hear(self) -> CellEvent | None:
        """The next word of the contract, None at the end of the channel. Function code can write to the
        channel too, so what is no word of the contract is passed over, and a flood ends the instance."""
        while line := await self._cell.receive():
            if not self._words.take(1, self._clock.monotonic()):
                self.condemn(EndReason.EXITED, "flooded its control channel")
                return None
            event = parse_cell_event(line)
            if event is not None:
                return event
        return None

    def _load_failed(self, text: str) -> FunctionLoadFailed:
        self.condemn(EndReason.LOAD_FAILED, text.partition("\n")[0])
        if self.pump is not None:
            self.pump.note("error", text)
        return FunctionLoadFailed(text)

    def _check_alive(self) -> None:
        if self.state in (InstanceState.STARTING, InstanceState.ENDED):
            raise InstanceNotFound(f"instance {self.instance_id} is not running")

    def _release_waiters(self) -> None:
        gone: PlatformError = InstanceNotFound(f"instance {self.instance_id} has ended")
        for answer in self._answers.values():
            if not answer.done():
                answer.set_exception(gone)

    def _write_log(self, records: list[LogRecord]) -> None:
        self._logs.write(self.version.environment, self.version.function, records)

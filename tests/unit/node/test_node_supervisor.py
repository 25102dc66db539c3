"""The platform's processes, with real ones."""

from __future__ import annotations

import asyncio
import os
import signal
import socket
import subprocess
import sys
from collections.abc import AsyncIterator, Callable
from pathlib import Path

import pytest

from cloudlet.model.clock import SystemClock
from cloudlet.model.errors import InvalidRequest, Unavailable
from cloudlet.node.supervisor import (
    BACK_OFF_FIRST_S,
    BACK_OFF_S_MAX,
    HEALTHY_S,
    SILENT_MAX,
    STOPPED_MAX,
    ProcessSpec,
    Pulse,
    Supervisor,
    next_restart,
)

pytestmark = pytest.mark.anyio
SLEEP = ("/bin/sleep", "3600")


@pytest.fixture
async def supervisor(tmp_path: Path) -> AsyncIterator[Supervisor]:
    supervisor = Supervisor(tmp_path / "logs", SystemClock())
    yield supervisor
    pids = [each.pid for each in supervisor.status()]
    await supervisor.stop()
    await supervisor.stop()
    assert not any(alive(pid) for pid in pids if pid)


def alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return True


def spec(name: str = "one", argv: tuple[str, ...] = SLEEP, **more: object) -> ProcessSpec:
    return ProcessSpec(name, argv, {"PATH": "/usr/bin:/bin"}, **more)  # type: ignore[arg-type]  # few fields


def python(text: str) -> tuple[str, ...]:
    return (sys.executable, "-I", "-S", "-c", text)


async def until(condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(20):
        while True:
            if condition():
                return
            await asyncio.sleep(0.005)


async def until_restarted(supervisor: Supervisor, pid: int) -> int:
    def restarted() -> bool:
        status = supervisor.status()[0]
        return status.ready and status.pid not in (0, pid)

    await until(restarted)
    return supervisor.status()[0].pid


async def test_a_process_that_ends_is_restarted_at_once(supervisor: Supervisor) -> None:
    await supervisor.start(spec())
    pid = supervisor.status()[0].pid
    os.kill(pid, signal.SIGKILL)
    assert await until_restarted(supervisor, pid) != pid
    assert supervisor.status()[0].restarts == 1


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
async def test_a_process_that_was_stopped_is_killed_and_restarted(supervisor: Supervisor) -> None:
    await supervisor.start(spec())
    pid = supervisor.status()[0].pid
    os.kill(pid, signal.SIGSTOP)
    await until_restarted(supervisor, pid)
    assert not alive(pid)


async def test_a_process_that_answers_nothing_any_more_is_killed_and_restarted(
    supervisor: Supervisor, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("cloudlet.node.supervisor.ALIVE_PERIOD_S", 0.01)
    monkeypatch.setattr("cloudlet.node.supervisor.ALIVE_REPLY_S", 0.01)
    deaf: set[int] = set()
    asked: list[int] = []

    async def probe() -> bool:
        pid = supervisor.status()[0].pid
        asked.append(pid)
        if pid in deaf:
            await asyncio.Event().wait()
        return True

    await supervisor.start(spec(alive_probe=probe))
    pid = supervisor.status()[0].pid
    await until(lambda: asked.count(pid) > SILENT_MAX)
    assert supervisor.status()[0].pid == pid
    deaf.add(pid)
    new = await until_restarted(supervisor, pid)
    assert not alive(pid)
    await until(lambda: new in asked)


def test_one_answer_makes_up_for_all_silence_before_it() -> None:
    pulse = Pulse()
    for _ in range(SILENT_MAX - 1):
        pulse = pulse.after(stopped=False, answered=False)
    assert not pulse.ailment
    assert pulse.after(stopped=False, answered=False).ailment
    assert pulse.after(stopped=False, answered=True) == Pulse()


def test_a_process_that_was_continued_in_time_lives_on() -> None:
    pulse = Pulse()
    for _ in range(STOPPED_MAX - 1):
        pulse = pulse.after(stopped=True, answered=True)
    assert not pulse.ailment
    assert pulse.after(stopped=True, answered=True).ailment
    assert pulse.after(stopped=False, answered=True) == Pulse()


async def test_a_process_gets_its_descriptors_by_number(supervisor: Supervisor, tmp_path: Path) -> None:
    text = (
        "import os, socket; os.write(1, socket.socket(fileno=4).getsockname()[:1] + os.read(3, 9)); input()"
    )
    read, write = os.pipe()
    os.write(write, b"hello")
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind("\0" + os.urandom(8).hex())
        await supervisor.start(spec(argv=python(text), pass_fds={3: read, 4: listener.fileno()}))
        log = tmp_path / "logs" / "one.log"
        await until(lambda: log.exists() and b"\0hello" in log.read_bytes())
    os.close(read)
    os.close(write)


async def test_start_waits_until_the_process_is_ready(supervisor: Supervisor) -> None:
    answers = iter((False, False, True))

    async def probe() -> bool:
        return next(answers)

    await supervisor.start(spec(ready_probe=probe))
    assert supervisor.status()[0].ready


async def test_a_process_that_ends_or_hangs_at_its_start_is_not_kept(supervisor: Supervisor) -> None:
    async def never() -> bool:
        raise ConnectionRefusedError

    dying = python("import sys; print('port taken'); sys.exit(3)")
    with pytest.raises(Unavailable, match="port taken"):
        await supervisor.start(spec(argv=dying, ready_probe=never))
    with pytest.raises(Unavailable, match=r"not ready within 0\.05 s: ConnectionRefusedError"):
        await supervisor.start(spec(ready_probe=never, ready_timeout_s=0.05))
    with pytest.raises(Unavailable, match="/no/such/program"):
        await supervisor.start(spec(argv=("/no/such/program",)))
    assert supervisor.status() == ()


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
async def test_a_process_that_is_stopped_while_it_is_restarted_is_killed_and_tried_again(
    supervisor: Supervisor,
) -> None:
    """Nobody waits until its time to become ready is over, and not for an orderly end, either."""
    ready = True

    async def probe() -> bool:
        return ready

    await supervisor.start(spec(ready_probe=probe, ready_timeout_s=3600.0, grace_s=3600.0))
    first = supervisor.status()[0].pid
    ready = False
    os.kill(first, signal.SIGKILL)
    await until(lambda: supervisor.status()[0].pid not in (0, first))
    second = supervisor.status()[0].pid
    os.kill(second, signal.SIGSTOP)
    await until(lambda: supervisor.status()[0].pid not in (0, first, second))
    ready = True
    await until_restarted(supervisor, second)
    assert not alive(second)


async def test_a_stopped_process_hears_that_it_should_end(supervisor: Supervisor) -> None:
    await supervisor.start(spec(grace_s=3600.0))
    os.kill(supervisor.status()[0].pid, signal.SIGSTOP)
    async with asyncio.timeout(20):
        await supervisor.stop()
    assert supervisor.status() == ()


async def test_a_process_that_names_the_error_that_ended_it_is_believed(supervisor: Supervisor) -> None:
    line = '{"event": "process_failed", "code": "invalid_request", "message": "upgrade first"}'
    dying = python(f"import sys; print('words', flush=True); print({line!r}, file=sys.stderr); sys.exit(1)")

    async def never() -> bool:
        return False

    with pytest.raises(InvalidRequest, match=r"^upgrade first$"):
        await supervisor.start(spec(argv=dying, ready_probe=never))
    assert supervisor.status() == ()


async def test_stopping_asks_first_then_kills_the_last_started_first(
    supervisor: Supervisor, tmp_path: Path
) -> None:
    marks = tmp_path / "marks"
    ready = tmp_path / "ready"

    def program(name: str, deaf: bool) -> tuple[str, ...]:
        handler = "pass" if deaf else f"(open({str(marks)!r}, 'a').write({name!r}), sys.exit(0))"
        return python(
            "import signal, sys, time\n"
            f"def end(*_): {handler}\n"
            "signal.signal(signal.SIGTERM, end)\n"
            f"open({str(ready)!r}, 'a').write({name!r})\n"
            "while True: time.sleep(3600)\n"
        )

    async def started(name: str) -> bool:
        return ready.exists() and name in ready.read_text()

    for name, deaf in (("a", False), ("b", True), ("c", False)):
        await supervisor.start(
            spec(name, program(name, deaf), ready_probe=lambda name=name: started(name), grace_s=0.2)
        )
    pids = [each.pid for each in supervisor.status()]
    await supervisor.stop()
    assert marks.read_text() == "ca"
    assert not any(alive(pid) for pid in pids)


async def test_a_process_that_cannot_come_back_is_tried_again(supervisor: Supervisor, tmp_path: Path) -> None:
    flag = tmp_path / "flag"
    flag.write_text("")
    text = f"import os, time; os.path.exists({str(flag)!r}) or os._exit(1); time.sleep(3600)"

    async def probe() -> bool:
        return True

    await supervisor.start(spec(argv=python(text), ready_probe=probe))
    pid = supervisor.status()[0].pid
    flag.unlink()
    os.kill(pid, signal.SIGKILL)
    await until(lambda: supervisor.status()[0].restarts >= 2)
    flag.write_text("")
    await until_restarted(supervisor, pid)


def test_the_first_restart_comes_at_once_and_the_wait_is_bounded() -> None:
    failures, delays = 0, []
    for _ in range(12):
        failures, delay_s = next_restart(failures, ran_s=0.1)
        delays.append(delay_s)
    assert delays[:4] == [0.0, BACK_OFF_FIRST_S, BACK_OFF_FIRST_S * 2, BACK_OFF_FIRST_S * 4]
    assert delays[-1] == BACK_OFF_S_MAX
    assert next_restart(10_000, ran_s=0.0)[1] == BACK_OFF_S_MAX
    assert next_restart(failures, ran_s=HEALTHY_S) == (1, 0.0)


PARENT = """
import asyncio, pathlib, sys
from cloudlet.model.clock import SystemClock
from cloudlet.node.supervisor import ProcessSpec, Supervisor
async def main():
    supervisor = Supervisor(pathlib.Path(sys.argv[1]), SystemClock())
    await supervisor.start(ProcessSpec("one", ("/bin/sleep", "3600"), {}))
    print("pid", supervisor.status()[0].pid, flush=True)
    await asyncio.sleep(3600)
asyncio.run(main())
"""


@pytest.mark.skipif(sys.platform != "linux", reason="the death signal is Linux's")
async def test_processes_die_with_a_node_that_is_killed(tmp_path: Path) -> None:
    pid = child_of_killed_parent(tmp_path)
    await until(lambda: not alive(pid))


def child_of_killed_parent(logs: Path) -> int:
    """Start a supervisor with a process and kill it; return the pid of the process."""
    parent = subprocess.Popen((sys.executable, "-c", PARENT, str(logs)), stdout=subprocess.PIPE, text=True)
    try:
        assert parent.stdout is not None
        with parent.stdout:
            while not (line := parent.stdout.readline()).startswith("pid"):
                assert line
        pid = int(line.split()[1])
        assert alive(pid)
        return pid
    finally:
        os.kill(parent.pid, signal.SIGKILL)
        parent.wait()

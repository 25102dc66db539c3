"""The parts of the rung `namespaces` that can be looked at without a cell."""

from __future__ import annotations

import re
import struct
import sys
from pathlib import Path

import pytest

from cloudlet.model.errors import Unavailable
from cloudlet.sandbox.namespaces import image, seccomp
from cloudlet.sandbox.namespaces.users import UserIds

ALLOW, EPERM, ENOSYS, AFNOSUPPORT, KILL = 0x7FFF_0000, 0x5_0001, 0x5_0026, 0x5_0061, 0x8000_0000
ARCHITECTURES = {"x86_64": 0xC000_003E, "aarch64": 0xC000_00B7}
HEADER = Path("/usr/include/x86_64-linux-gnu/asm/unistd_64.h")


def verdict(program: bytes, architecture: int, number: int, *arguments: int) -> int:
    """Run a filter as the kernel does."""
    padded = (*arguments, 0, 0, 0, 0, 0, 0)[:6]
    data = struct.pack("=iIQ6Q", number, architecture, 0, *padded)
    steps = list(struct.iter_unpack("HBBI", program))
    at, value = 0, 0
    while True:
        code, then, otherwise, operand = steps[at]
        at += 1
        if code == 0x20:
            value = struct.unpack_from("=I", data, operand)[0]
        elif code == 0x06:
            return int(operand)
        else:
            truth = {0x15: value == operand, 0x35: value >= operand, 0x45: bool(value & operand)}[code]
            at += then if truth else otherwise


@pytest.mark.parametrize("machine", ARCHITECTURES)
@pytest.mark.parametrize("runtime", ["node", "python"])
def test_the_filter_answers_as_its_tables_say(machine: str, runtime: str) -> None:
    program, architecture = seccomp.program(runtime, machine), ARCHITECTURES[machine]
    assert len(program) // 8 <= 4096
    allowed = {**seccomp.numbers(seccomp._ALLOWED, machine)}
    if runtime == "node":
        allowed |= seccomp.numbers(seccomp._NODE, machine)
    refused = seccomp.numbers(seccomp._FORBIDDEN, machine)
    assert not set(allowed.values()) & set(refused.values())
    for name in ("clone", "socket"):
        del allowed[name]
    for number in range(-1, 600):
        expected = ALLOW if number in allowed.values() else EPERM if number in refused.values() else ENOSYS
        if number not in seccomp.numbers("clone:56:220 socket:41:198", machine).values():
            found = verdict(program, architecture, number)
            assert found == (KILL if number < 0 and machine == "x86_64" else expected), number


@pytest.mark.parametrize("machine", ARCHITECTURES)
def test_what_depends_on_arguments(machine: str) -> None:
    program, architecture = seccomp.program("python", machine), ARCHITECTURES[machine]
    calls = seccomp.numbers("clone:56:220 socket:41:198 clone3:435:435 read:0:63", machine)
    assert verdict(program, architecture, calls["clone"], 0x003D_0F00) == ALLOW  # a thread
    for bit in (0x2_0000, 0x200_0000, 0x400_0000, 0x800_0000, 0x1000_0000, 0x2000_0000, 0x4000_0000):
        assert verdict(program, architecture, calls["clone"], bit | 17) == EPERM
    assert verdict(program, architecture, calls["clone3"]) == ENOSYS
    families = {family: verdict(program, architecture, calls["socket"], family, 3, 0) for family in range(46)}
    assert {family for family, answer in families.items() if answer == ALLOW} == {1, 2, 10, 16}
    assert set(families.values()) == {ALLOW, AFNOSUPPORT}
    assert verdict(program, architecture, calls["socket"], 16, 3, 12) == AFNOSUPPORT
    assert verdict(program, 0x4000_0003, calls["read"]) == KILL  # 32-bit calls
    if machine == "x86_64":
        assert verdict(program, architecture, 0x4000_0000 | calls["read"]) == KILL  # x32


@pytest.mark.skipif(not HEADER.exists(), reason="no kernel headers of this architecture")
def test_the_numbers_are_those_of_the_kernel() -> None:
    known = {name: int(number) for name, number in re.findall(r"__NR_(\w+) (\d+)", HEADER.read_text())}
    for table in (seccomp._ALLOWED, seccomp._NODE, seccomp._FORBIDDEN):
        ours = seccomp.numbers(table, "x86_64")
        assert {name: known[name] for name in ours if name in known} == {
            name: number for name, number in ours.items() if name in known
        }


def test_user_ids_are_used_again_as_late_as_possible() -> None:
    users = UserIds(5000, 3)
    assert [users.take() for _ in range(2)] == [5000, 5001]
    users.give_back(5000)
    users.give_back(5000)
    assert [users.take() for _ in range(2)] == [5002, 5000]
    with pytest.raises(Unavailable, match="all 3 user ids"):
        users.take()
    users.give_back(5001)
    assert users.take() == 5001


def test_what_lies_inside_something_visible_is_not_shown_twice() -> None:
    paths = ("/usr/lib", "/usr/lib/node/bin", "/usr/libexec", "/opt/a", "/opt/a")
    assert sorted(image.outermost(paths)) == ["/opt/a", "/usr/lib", "/usr/libexec"]


def test_what_runs_inside_needs_nothing_but_the_standard_library() -> None:
    """The launcher's interpreter has no packages."""
    inside = Path(image.__file__).parent
    for name in ("kernel", "messages", "image", "landlock", "seccomp", "cell", "launcher"):
        modules = re.findall(r"^(?:import|from) (\w+)", (inside / f"{name}.py").read_text(), re.MULTILINE)
        assert set(modules) <= sys.stdlib_module_names, name

"""The filter's verdicts, by interpreting its program: so those for a foreign architecture are checked as well."""

from __future__ import annotations

import struct

import pytest

from daemon import seccomp

PID = 4711
MACHINES = list(seccomp.ARCHITECTURES)


def verdict(
    machine: str, number: int, *arguments: int, architecture: int | None = None, files_governed: bool = True
) -> int:
    """What the kernel would do: runs the program over a `struct seccomp_data`."""
    arguments += (0,) * (6 - len(arguments))
    data = struct.pack("<iIQ6Q", number, architecture or seccomp.ARCHITECTURES[machine], 0, *arguments)
    code = seccomp.program(machine, PID, files_governed=files_governed)
    accumulator = position = 0
    while True:
        operation, if_true, if_false, operand = code[position]
        position += 1
        if operation == seccomp.RETURN:
            return operand
        if operation == seccomp.LOAD:
            (accumulator,) = struct.unpack_from("<I", data, operand)
        elif operation == seccomp.AND:
            accumulator &= operand
        else:
            holds = {
                seccomp.EQUAL: accumulator == operand,
                seccomp.AT_LEAST: accumulator >= operand,
                seccomp.ANY_BIT: bool(accumulator & operand),
            }[operation]
            position += if_true if holds else if_false


ALLOW, DENY, MISSING, KILL = (step[3] for step in (seccomp.ALLOW, seccomp.DENY, seccomp.MISSING, seccomp.KILL))


def number(machine: str, name: str) -> int:
    found = {**seccomp.DENIED, **seccomp.CONDITIONAL}[name][MACHINES.index(machine)]
    assert found is not None
    return found


@pytest.mark.parametrize("machine", MACHINES)
def test_every_listed_call_is_denied(machine: str) -> None:
    column = MACHINES.index(machine)
    denied = [numbers[column] for numbers in seccomp.DENIED.values()]
    assert {verdict(machine, each) for each in denied if each is not None} == {DENY}


@pytest.mark.parametrize("machine", MACHINES)
@pytest.mark.parametrize(
    ("name", "arguments", "expected"),
    [
        ("clone", (seccomp.CLONE_THREAD | 0x100,), ALLOW),
        ("clone", (0x4111,), DENY),  # vfork by another name
        ("clone3", (), MISSING),
        ("kill", (PID, 9), ALLOW),
        ("kill", (PID + 1, 9), DENY),
        ("kill", (0, 9), DENY),
        ("kill", (0xFFFFFFFF, 9), DENY),
        ("tgkill", (PID, PID + 3, 6), ALLOW),
        ("tgkill", (1, 1, 6), DENY),
        ("prlimit64", (0, 9, 0, 0x1234), ALLOW),
        ("prlimit64", (0, 9, 0x1234, 0), DENY),
        ("prlimit64", (0, 9, 0x1234_0000_0000, 0), DENY),
        ("prlimit64", (1, 9, 0, 0x1234), DENY),
        ("socketpair", (1, 0x80001, 0), ALLOW),
        ("socketpair", (1, 2, 0), DENY),
        ("socketpair", (2, 1, 0), DENY),
        ("setpriority", (0, 0, 5), ALLOW),
        ("setpriority", (2, 0, 5), DENY),
        ("setpriority", (0, 1, 5), DENY),
        ("sched_setaffinity", (0,), ALLOW),
        ("sched_setaffinity", (1,), DENY),
        ("ioctl", (2, 0x5401), ALLOW),
        ("ioctl", (2, 0x5412), DENY),  # TIOCSTI: types into a terminal
        ("fcntl", (3, 1), ALLOW),
        ("fcntl", (3, seccomp.F_SETOWN), DENY),
        ("fcntl", (3, seccomp.F_SETFL, 0o4000), ALLOW),  # not to block
        ("fcntl", (3, seccomp.F_SETFL, 0o40000), DENY),
        ("fcntl", (3, seccomp.F_SETLK), DENY),
        ("sendto", (3, 0, 0, 0x4000), ALLOW),
        ("sendto", (3, 0, 0, 0x4000 | seccomp.MSG_OOB), DENY),
        ("recvfrom", (3, 0, 0, seccomp.MSG_OOB), DENY),
        ("recvmsg", (3, 0, seccomp.MSG_OOB), DENY),
        ("prctl", (15,), ALLOW),
        ("prctl", (seccomp.PR_SET_PDEATHSIG, 0), DENY),
    ],
)
def test_calls_that_depend_on_their_arguments(
    machine: str, name: str, arguments: tuple[int, ...], expected: int
) -> None:
    assert verdict(machine, number(machine, name), *arguments) == expected


@pytest.mark.parametrize("machine", MACHINES)
def test_files_are_the_filters_business_only_where_they_are_nobody_elses(machine: str) -> None:
    column = MACHINES.index(machine)
    openat, openat2 = seccomp.OPENING["openat"][column], seccomp.OPENING["openat2"][column]
    assert openat and openat2
    changing = [each for numbers in seccomp.CHANGING_FILES.values() if (each := numbers[column]) is not None]
    assert {verdict(machine, each) for each in (*changing, openat2)} == {ALLOW}
    assert {verdict(machine, each, files_governed=False) for each in changing} == {DENY}
    assert verdict(machine, openat2, files_governed=False) == MISSING
    for flags, expected in ((0o2000000, ALLOW), (1, DENY), (2, DENY), (0o100, DENY), (0o1000, DENY)):
        assert verdict(machine, openat, 0, 0, flags, files_governed=False) == expected
        assert verdict(machine, openat, 0, 0, flags) == ALLOW


@pytest.mark.parametrize("machine", MACHINES)
def test_other_numbers(machine: str) -> None:
    read = {"x86_64": 0, "aarch64": 63}[machine]
    assert verdict(machine, read) == ALLOW
    assert verdict(machine, read | seccomp.X32_BIT) == DENY
    assert verdict(machine, seccomp.FIRST_UNKNOWN) == MISSING
    assert verdict(machine, read, architecture=0x40000003) == KILL

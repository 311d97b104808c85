"""What is measured of the host, and of the engines that compute there."""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from nodeagent.gpus.host import PsutilHost, engine_memory, read_disks
from nodeagent.model import Occupant

MIB = 1024**2
# A child of its own holds as much again. Both say that they do, and wait until their input is closed.
HOLDER = """
import subprocess, sys
kept = bytearray(b"x") * (int(sys.argv[1]) * 1024 * 1024)
inner = None
if len(sys.argv) > 2:
    inner = subprocess.Popen([sys.executable, "-c", sys.argv[2], sys.argv[1]], stdin=-1, stdout=-1)
    inner.stdout.readline()
print("held", flush=True)
sys.stdin.read()
if inner is not None:
    inner.communicate()
"""


@pytest.fixture
def engine_pid() -> Iterator[int]:
    """The pid of a process that leads a session, holds 40 MiB, and has a child that holds as much."""
    command = [sys.executable, "-c", HOLDER, "40", HOLDER]
    pipe = subprocess.PIPE
    with subprocess.Popen(command, stdin=pipe, stdout=pipe, start_new_session=True) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == b"held\n"
        yield process.pid
        process.communicate()


def test_memory_of_an_engine_is_that_of_its_whole_session_without_what_files_back(engine_pid: int) -> None:
    engines = [Occupant("r", (), 0, pid=engine_pid), Occupant("none", (), 0), Occupant("gone", (), 0, pid=5_000_000)]
    measured = engine_memory(engines)
    assert set(measured) == {"r"}
    assert 80 * MIB <= measured["r"] <= 160 * MIB  # two interpreters, besides


def test_the_host_is_read_with_the_engines_on_it(engine_pid: int) -> None:
    reading = PsutilHost().read([Occupant("r", (), 0, pid=engine_pid)])
    assert reading.cpu_count == len(os.sched_getaffinity(0))
    assert 0 <= reading.cpu_fraction <= 1
    assert 0 < reading.available_bytes < reading.total_bytes
    assert reading.measured_bytes["r"] >= 80 * MIB


def test_a_file_system_is_named_once_and_by_what_is_there_of_a_directory(tmp_path: Path) -> None:
    there = os.statvfs(tmp_path)
    [disk] = read_disks([tmp_path / "not" / "yet", tmp_path])
    assert disk.path == str(tmp_path / "not" / "yet")
    assert disk.total_bytes == there.f_blocks * there.f_frsize
    assert 0 <= disk.available_bytes <= disk.total_bytes


def test_file_systems_of_their_own_are_told_apart() -> None:
    assert [each.path for each in read_disks([Path("/proc"), Path("/sys"), Path("/proc/self")])] == ["/proc", "/sys"]


async def test_disks_are_read_beside_and_nobody_waits_for_them(tmp_path: Path) -> None:
    host = PsutilHost([tmp_path])
    assert host.read(()).disks == ()
    assert host.read(()).disks == (), "no answer yet, and no second question"
    [looking] = [each for each in asyncio.all_tasks() if each.get_name() == "disks"]
    await looking
    assert [each.path for each in host.read(()).disks] == [str(tmp_path)]

"""Processes of ours and of agents before us, with real signals."""

from __future__ import annotations

import asyncio
import contextlib
import os
import platform
import signal
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from nodeagent.model import Exit, ProcessId
from nodeagent.process import Process, adopt, end_session, find, identify, is_alive, session, session_end, spawn

PATIENCE_S = 20.0
# Says that its handlers are set up by making the file `up`; it is waited for by opening it, a FIFO.
RENAMED = """
import pathlib, signal, sys
pathlib.Path("/proc/self/comm").write_bytes(") 模型服务器".encode())
open(sys.argv[1], "w").write("x")
signal.pause()
"""
DEAF_FAMILY = """
import os, signal, sys, time
signal.signal(signal.SIGTERM, signal.SIG_IGN)
os.fork()
os.write(os.open(sys.argv[1], os.O_WRONLY), b"x")
while True: signal.pause()
"""


@pytest.fixture
def started(tmp_path: Path) -> Iterator[list[ProcessId]]:
    """Processes to be ended with the test, whatever became of it."""
    found: list[ProcessId] = []
    yield found
    for each in found:
        for pid in session(each):
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        with contextlib.suppress(ChildProcessError):
            os.waitpid(each.pid, 0)


def run(started: list[ProcessId], folder: Path, *command: str) -> Process:
    process = spawn(command, env={"LETTER": "x"}, stdout=folder / "out", stderr=folder / "err")
    started.append(process.identity)
    return process


def orphan(*command: str) -> ProcessId:
    """Starts a session leader whose parent ends at once."""
    start = "subprocess.Popen(sys.argv[1:], start_new_session=True, stdout=subprocess.DEVNULL)"
    script = f"import subprocess, sys; print({start}.pid)"
    ended = subprocess.run([sys.executable, "-c", script, *command], stdout=subprocess.PIPE, check=True, text=True)
    identity = identify(int(ended.stdout))
    assert identity is not None
    return identity


def name_of(process: Process) -> bytes:
    return Path(f"/proc/{process.identity.pid}/comm").read_bytes()


async def up(folder: Path, count: int) -> None:
    """Waits until `count` processes have written to the FIFO."""
    with (folder / "up").open("rb") as fifo:
        assert len(await asyncio.to_thread(fifo.read, count)) == count


async def test_a_process_runs_detached_with_its_output_in_files(started: list[ProcessId], tmp_path: Path) -> None:
    process = run(started, tmp_path, "sh", "-c", "echo $LETTER$HOME; echo oops >&2; read line || echo no input")
    assert await process.wait() == Exit(code=0)
    assert (tmp_path / "out").read_text() == "x\nno input\n"
    assert (tmp_path / "err").read_text() == "oops\n"
    assert os.getsid(0) != process.identity.pid


@pytest.mark.parametrize(
    ("command", "expected"),
    [("exit 37", Exit(code=37)), ("kill -9 $$", Exit(signal=9)), ("true", Exit(code=0))],
    ids=["a status", "a signal", "success"],
)
async def test_how_a_child_ended_is_learned(
    started: list[ProcessId], tmp_path: Path, command: str, expected: Exit
) -> None:
    assert await run(started, tmp_path, "sh", "-c", command).wait() == expected


async def test_a_command_that_does_not_exist_is_an_error_and_no_process(tmp_path: Path) -> None:
    with pytest.raises(OSError, match="no-such-command"):
        spawn(["no-such-command"], env={}, stdout=tmp_path / "out", stderr=tmp_path / "err")


async def test_how_the_child_of_another_ended_is_learned(started: list[ProcessId], tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "up")
    identity = orphan("sh", "-c", f"read line < {tmp_path / 'up'}; exit 37")
    started.append(identity)
    process = adopt(identity)
    assert process is not None
    (tmp_path / "up").write_text("go\n")
    async with asyncio.timeout(PATIENCE_S):
        assert await process.wait() == Exit(code=37)


async def test_how_a_process_that_was_reaped_by_another_ended_is_learned_from_the_kernel(
    started: list[ProcessId], tmp_path: Path
) -> None:
    process = run(started, tmp_path, "sh", "-c", "exit 37")
    await asyncio.to_thread(os.waitpid, process.identity.pid, 0)
    release = tuple(map(int, platform.release().split(".")[:2]))
    assert await process.wait() == (Exit(code=37) if release >= (6, 15) else Exit())


async def test_a_process_that_is_let_go_runs_on_and_can_be_adopted(started: list[ProcessId], tmp_path: Path) -> None:
    first = run(started, tmp_path, "sleep", "1000")
    first.release()
    again = adopt(first.identity)
    assert again is not None
    assert again.identity == first.identity
    os.kill(again.identity.pid, signal.SIGTERM)
    assert await again.wait() == Exit(signal=signal.SIGTERM)


async def test_another_process_with_the_same_pid_is_not_taken_for_ours(
    started: list[ProcessId], tmp_path: Path
) -> None:
    process = run(started, tmp_path, "sleep", "1000")
    process.release()
    for other in (
        replace(process.identity, start_ticks=process.identity.start_ticks - 1),
        replace(process.identity, boot_id="another boot"),
    ):
        assert adopt(other) is None
        assert not is_alive(other)
        assert session(other) == []
        await end_session(other, grace_s=0)
    assert is_alive(process.identity)


async def test_a_process_that_has_ended_is_not_alive_though_nobody_has_reaped_it(
    started: list[ProcessId], tmp_path: Path
) -> None:
    process = run(started, tmp_path, "true")
    await session_end(process.identity)
    assert identify(process.identity.pid) == process.identity
    assert not is_alive(process.identity)
    assert await process.wait() == Exit(code=0)


async def test_a_process_whose_name_is_cut_off_within_a_character_disturbs_nobody(
    started: list[ProcessId], tmp_path: Path
) -> None:
    os.mkfifo(tmp_path / "up")
    process = run(started, tmp_path, sys.executable, "-c", RENAMED, str(tmp_path / "up"))
    await up(tmp_path, 1)
    with pytest.raises(UnicodeDecodeError):
        name_of(process).decode()
    assert identify(process.identity.pid) == process.identity
    assert session(process.identity) == [process.identity.pid]
    async with asyncio.timeout(PATIENCE_S):
        await end_session(process.identity, grace_s=1000)
    assert await process.wait() == Exit(signal=signal.SIGTERM)


async def test_a_session_that_obeys_ends_by_sigterm(started: list[ProcessId], tmp_path: Path) -> None:
    process = run(started, tmp_path, "sleep", "1000")
    async with asyncio.timeout(PATIENCE_S):
        await end_session(process.identity, grace_s=1000)
    assert await process.wait() == Exit(signal=signal.SIGTERM)


async def test_a_session_that_ignores_sigterm_is_killed_with_all_its_members(
    started: list[ProcessId], tmp_path: Path
) -> None:
    os.mkfifo(tmp_path / "up")
    process = run(started, tmp_path, sys.executable, "-c", DEAF_FAMILY, str(tmp_path / "up"))
    await up(tmp_path, 2)
    assert len(session(process.identity)) == 2
    async with asyncio.timeout(PATIENCE_S):
        await end_session(process.identity, grace_s=0.1)
    assert session(process.identity) == []
    assert await process.wait() == Exit(signal=signal.SIGKILL)


async def test_descendants_are_ended_though_their_leader_is_gone(started: list[ProcessId], tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "up")
    process = run(started, tmp_path, sys.executable, "-c", DEAF_FAMILY, str(tmp_path / "up"))
    await up(tmp_path, 2)
    os.kill(process.identity.pid, signal.SIGKILL)
    assert await process.wait() == Exit(signal=signal.SIGKILL)
    assert len(session(process.identity)) == 1
    async with asyncio.timeout(PATIENCE_S):
        await end_session(process.identity, grace_s=0)
    assert session(process.identity) == []


@pytest.mark.parametrize("name", ["engine", os.fsdecode(b"\xff")], ids=["plain", "no text"])
async def test_a_process_is_found_by_its_last_arguments(started: list[ProcessId], tmp_path: Path, name: str) -> None:
    os.mkfifo(tmp_path / "up")
    arguments = ("--bundle", str(tmp_path / name))
    process = run(started, tmp_path, "sh", "-c", 'echo > "${1%/*}/up"; sleep 1000; true', *arguments)
    await up(tmp_path, 1)  # until a program has begun to run, its command line is empty
    assert find(arguments) == process.identity
    assert find(("--bundle", str(tmp_path / "other"))) is None
    await end_session(process.identity, grace_s=0)
    assert find(arguments) is None
    process.release()

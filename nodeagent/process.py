"""Processes that outlive the agent: started detached, named beyond doubt, waited for, ended with all that they started.

Not asyncio's own subprocesses: their transport kills a child that still runs when the event loop closes, and engines
must survive the agent.
"""

from __future__ import annotations

import asyncio
import contextlib
import fcntl
import os
import signal
import struct
import subprocess
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from nodeagent.model import Exit, ProcessId

_PROC = Path("/proc")
_BOOT_ID = _PROC / "sys/kernel/random/boot_id"
_LEARN_EXIT_S = 1.0  # a process that is not our child tells how it ended once it is reaped, which is up to its parent
_LEARN_STEP_S = 0.02
# struct pidfd_info of linux/pidfd.h in its first version: mask, cgroup id, eleven ids, wait status.
_PIDFD_INFO = struct.Struct("<QQ11Ii")
_PIDFD_INFO_EXIT = 1 << 3
_PIDFD_GET_INFO = 3 << 30 | _PIDFD_INFO.size << 16 | 0xFF << 8 | 11


class Process:
    """A process that leads its session, our child or not."""

    def __init__(self, identity: ProcessId, pidfd: int) -> None:
        self.identity = identity
        self._pidfd = pidfd
        self._exited = asyncio.Event()
        self._loop = asyncio.get_running_loop()
        self._loop.add_reader(pidfd, self._on_exit)

    async def wait(self) -> Exit:
        """Waits until it has ended and returns how; descendants may still run. Once only, and not after `release`."""
        await self._exited.wait()
        loop = asyncio.get_running_loop()
        end_s = loop.time() + _LEARN_EXIT_S
        status = _wait_status(self.identity.pid, self._pidfd)
        while status is None and loop.time() < end_s:
            await asyncio.sleep(_LEARN_STEP_S)
            status = _wait_status(self.identity.pid, self._pidfd)
        self.release()
        return Exit() if status is None else _exit_of(status)

    def release(self) -> None:
        """Lets go of it; it runs on."""
        if self._pidfd >= 0:
            self._loop.remove_reader(self._pidfd)
            os.close(self._pidfd)
            self._pidfd = -1

    def _on_exit(self) -> None:
        self._loop.remove_reader(self._pidfd)
        self._exited.set()


def spawn(
    command: Sequence[str],
    *,
    env: Mapping[str, str],
    stdout: Path,
    stderr: Path,
    descriptors: Sequence[int] = (),
) -> Process:
    """Starts a process as leader of a session of its own, with its output appended to files; may raise OSError.

    descriptors: what it has open beside that, under the same numbers.
    """
    with stdout.open("ab") as out, stderr.open("ab") as err:
        child = subprocess.Popen(
            command,
            env=dict(env),
            stdin=subprocess.DEVNULL,
            stdout=out,
            stderr=err,
            start_new_session=True,
            pass_fds=descriptors,
        )
    # Popen has done its part. Marked as ended, it neither reaps the child behind our back nor warns that it still runs.
    child.returncode = 0
    process = adopt(identify(child.pid))
    if process is None:
        raise OSError(f"process {child.pid} cannot be seen in {_PROC}")
    return process


def adopt(identity: ProcessId | None) -> Process | None:
    """Returns the process of this identity if it lives, or is a child of ours that nobody has waited for yet."""
    if identity is None:
        return None
    try:
        pidfd = os.pidfd_open(identity.pid)
    except OSError:
        return None
    # Looked at behind the opening: from here on the descriptor means whoever this is, whatever becomes of the number.
    if identify(identity.pid) != identity:
        os.close(pidfd)
        return None
    return Process(identity, pidfd)


def is_alive(identity: ProcessId) -> bool:
    """Tells whether exactly this process runs; one that has ended and waits for its parent does not."""
    stat = _stat(identity.pid)
    return stat is not None and not stat.is_zombie and identify(identity.pid) == identity


def session(identity: ProcessId) -> list[int]:
    """Returns the pids of all living processes of the session that this process leads or led."""
    leader = identify(identity.pid)
    if identity.boot_id != boot_id() or (leader is not None and leader != identity):
        return []  # the number has another owner now, so nothing of ours has held on to it
    found = [(pid, _stat(pid)) for pid in _pids()]
    return [pid for pid, stat in found if stat is not None and stat.session == identity.pid and not stat.is_zombie]


async def end_session(identity: ProcessId, grace_s: float) -> None:
    """Sends SIGTERM to a session, SIGKILL after `grace_s` seconds, and returns when nothing of it is left."""
    _signal(identity, signal.SIGTERM)
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(grace_s):
            await session_end(identity)
    while members := session(identity):
        _signal(identity, signal.SIGKILL)  # again with each round: one may have forked while we looked
        await _end_of(members[0], identity.pid)


async def session_end(identity: ProcessId) -> None:
    """Returns when nothing of the session of a process is left."""
    while members := session(identity):
        await _end_of(members[0], identity.pid)


def identify(pid: int) -> ProcessId | None:
    """Returns the identity of the process that has this pid now, zombie or not; None if there is none."""
    stat = _stat(pid)
    return None if stat is None else ProcessId(pid, stat.start_ticks, boot_id())


def find(arguments: Sequence[str]) -> ProcessId | None:
    """Returns the session leader of ours whose command line ends with these arguments; None if there is none."""
    tail = [os.fsencode(each) for each in arguments]
    return next((process for process, command in leaders() if command[-len(tail) :] == tail), None)


def leaders() -> Iterator[tuple[ProcessId, Sequence[bytes]]]:
    """Yields every process that leads its session, with its command line."""
    for pid in _pids():
        with contextlib.suppress(OSError):
            command = (_PROC / str(pid) / "cmdline").read_bytes().split(b"\0")[:-1]
            if command and os.getsid(pid) == pid and (identity := identify(pid)) is not None:
                yield identity, command


def boot_id() -> str:
    """Returns the id of this boot of the machine."""
    return _BOOT_ID.read_text().strip()


@dataclass(frozen=True, slots=True)
class _Stat:
    is_zombie: bool
    session: int
    start_ticks: int
    wait_status: int


def _stat(pid: int) -> _Stat | None:
    try:
        line = (_PROC / str(pid) / "stat").read_bytes()
    except OSError:
        return None
    # Field 2 is the name in parentheses, and a name may hold any byte: the kernel cuts it off in the middle of a
    # character, and it may hold parentheses of its own. Fields are counted from the last one.
    fields = line.rpartition(b")")[2].split()
    return _Stat(fields[0] in (b"Z", b"X"), int(fields[3]), int(fields[19]), int(fields[49]))


def _pids() -> list[int]:
    return [int(each) for each in os.listdir(_PROC) if each.isdecimal()]  # noqa: PTH208 - the names, no paths


def _signal(identity: ProcessId, number: int) -> None:
    for pid in session(identity):
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, number)


async def _end_of(pid: int, leader: int) -> None:
    try:
        pidfd = os.pidfd_open(pid)
    except ProcessLookupError:
        return
    loop, ended = asyncio.get_running_loop(), asyncio.Event()
    loop.add_reader(pidfd, ended.set)
    try:
        with contextlib.suppress(ProcessLookupError):
            if os.getsid(pid) == leader:
                await ended.wait()
    finally:
        loop.remove_reader(pidfd)
        os.close(pidfd)


def _wait_status(pid: int, pidfd: int) -> int | None:
    """Returns the wait status of a process that has ended; None if it cannot be learned (yet)."""
    with contextlib.suppress(ChildProcessError):
        ended = os.waitid(os.P_PIDFD, pidfd, os.WEXITED | os.WNOHANG)
        if ended is not None:
            return ended.si_status << 8 if ended.si_code == os.CLD_EXITED else ended.si_status
    # Not our child. Until its parent reaps it, its last line in /proc has the status; from then on, and on Linux 6.15
    # or newer, the descriptor has.
    stat = _stat(pid)
    if stat is not None and stat.is_zombie:
        return stat.wait_status
    filled = bytearray(_PIDFD_INFO.pack(_PIDFD_INFO_EXIT, *[0] * 13))
    try:
        fcntl.ioctl(pidfd, _PIDFD_GET_INFO, filled)
    except OSError:
        return None
    mask, *_, status = _PIDFD_INFO.unpack(filled)
    return int(status) if mask & _PIDFD_INFO_EXIT else None


def _exit_of(status: int) -> Exit:
    if os.WIFSIGNALED(status):
        return Exit(signal=os.WTERMSIG(status))
    return Exit(code=os.WEXITSTATUS(status))

"""Processes that `up` keeps running."""

import asyncio
import os
import signal
from pathlib import Path

import pytest

from roundhouse.cli.up.child import Child, kept
from roundhouse.kit.errors import Usage

PATIENCE_S = 30.0


def _address(log: Path) -> str | None:
    lines = log.read_text().split("\n") if log.exists() else []
    return lines[-2] if len(lines) > 1 else None


async def test_a_child_that_is_killed_is_started_again_and_told_of(tmp_path: Path) -> None:
    log, deaths = tmp_path / "child.log", asyncio.Queue[str]()
    child = Child("cluster", ["tests.support.scripted_cluster"], log, deaths.put_nowait)
    async with kept(child, grace_s=5.0) as keep:
        first = await child.until(lambda: _address(log), PATIENCE_S)
        keep()
        pid = child.pid
        os.kill(pid, signal.SIGKILL)
        assert await deaths.get() == "the cluster was ended by signal 9; it is started again"
        async with asyncio.timeout(PATIENCE_S):
            while _address(log) == first:  # noqa: ASYNC110 - of a file there is no event
                await asyncio.sleep(0.02)
        second = child.pid
        assert second not in (0, pid)
    with pytest.raises(ProcessLookupError):
        os.kill(second, 0)
    assert child.pid == 0


async def test_a_child_that_refuses_to_start_is_quoted(tmp_path: Path) -> None:
    (tmp_path / "child.log").write_text("an earlier life\n")
    child = Child("agent", ["nodeagent", "--control-plane", "nonsense"], tmp_path / "child.log", print)
    with pytest.raises(Usage, match=r'^"nonsense" is no address'):
        async with kept(child, grace_s=1.0):
            await child.until(lambda: None, PATIENCE_S)


async def test_a_child_that_dies_while_it_starts_is_quoted_with_its_log(tmp_path: Path) -> None:
    child = Child("thing", ["no_such_module_here"], tmp_path / "child.log", print)
    with pytest.raises(
        Usage, match=r"the thing ended with exit status 1: .*No module named no_such_module_here.*child\.log"
    ):
        async with kept(child, grace_s=1.0):
            await child.until(lambda: None, PATIENCE_S)


async def test_a_child_that_is_never_ready_is_ended(tmp_path: Path) -> None:
    child = Child("cluster", ["tests.support.scripted_cluster"], tmp_path / "child.log", print)
    pids = []

    async def wait_in_vain() -> None:
        async with kept(child, grace_s=5.0):
            pids.append(child.pid)
            await child.until(lambda: None, 0.1)

    with pytest.raises(Usage, match=r"the cluster is not ready after 0\.1 s"):
        await wait_in_vain()
    with pytest.raises(ProcessLookupError):
        os.kill(pids[0], 0)


async def test_a_child_that_cannot_end_in_order_is_told_of(tmp_path: Path) -> None:
    log, told = tmp_path / "child.log", list[str]()
    child = Child("cluster", ["tests.support.scripted_cluster"], log, told.append)

    def kill(pid: int) -> bool:
        os.kill(pid, signal.SIGKILL)  # the second time as well
        return True

    async with kept(child, grace_s=5.0, is_up=kill) as keep:
        await child.until(lambda: _address(log), PATIENCE_S)
        keep()
        os.kill(child.pid, signal.SIGSTOP)  # no SIGTERM ends it
    assert told == ["the cluster did not end in order, nor another time: what it has started may go on"]


async def test_a_cancel_during_the_end_of_a_child_waits_for_that_end(tmp_path: Path) -> None:
    child = Child("cluster", ["tests.support.scripted_cluster"], tmp_path / "child.log", print)
    is_leaving, pids = asyncio.Event(), []

    async def live() -> None:
        async with kept(child, grace_s=5.0):
            await child.until(lambda: _address(tmp_path / "child.log"), PATIENCE_S)
            pids.append(child.pid)
            os.kill(child.pid, signal.SIGSTOP)  # it will not end before its grace is over
            is_leaving.set()

    living = asyncio.create_task(live())
    await is_leaving.wait()
    for _ in range(3):
        await asyncio.sleep(0)  # into the end
        living.cancel()
    with pytest.raises(asyncio.CancelledError):
        await living
    with pytest.raises(ProcessLookupError):
        os.kill(pids[0], 0)

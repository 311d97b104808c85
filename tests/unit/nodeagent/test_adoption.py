"""Engines outlive their agent, and the next one takes them over."""

from __future__ import annotations

import asyncio
import os
import signal
from dataclasses import replace

from nodeagent.bundle import Record
from nodeagent.model import ProcessId
from nodeagent.process import identify, is_alive, session
from tests.support.supervision import (
    FAILED,
    READY,
    STOPPED,
    Node,
    wanted,
)


async def test_an_engine_survives_its_supervisor_and_is_adopted_as_it_is(idle: Node) -> None:
    async with idle.supervised():
        await idle.assign(wanted())
        before = await idle.until(lambda report: report.fingerprint)
    async with idle.supervised():
        after = idle.report()  # at once: the first report of the new agent must not take the replica out of service
        assert after is not None
        assert (after.state, after.pid, after.address) == (READY, before.pid, before.address)
        assert (after.engine_uuid, after.engine_key) == (before.engine_uuid, before.engine_key)
        assert (after.restart_count, after.state_time) == (0, before.state_time)
        assert idle.supervisor.applied is not None
        await idle.assign(wanted(stop_grace_s=0.0))
        await idle.until_state(STOPPED)


async def test_an_engine_that_died_while_no_agent_looked_is_started_again(idle: Node) -> None:
    async with idle.supervised():
        await idle.assign(wanted())
        before = await idle.until_state(READY)
    os.kill(before.pid, signal.SIGKILL)
    await asyncio.to_thread(os.waitpid, before.pid, 0)
    async with idle.supervised():
        after = await idle.until_state(READY)
        assert (after.restart_count, after.message) == (1, "serving")
        assert after.pid != before.pid
        assert not after.last_exit.HasField("exit_code")


async def test_what_a_dead_engine_left_is_ended_by_the_next_agent_and_its_death_counts_once(idle: Node) -> None:
    async with idle.supervised():
        await idle.assign(wanted(script="parent"))
        before = await idle.until_state(READY)
        process = identify(before.pid)
        assert process is not None
        os.kill(before.pid, signal.SIGKILL)
        await idle.until_state(FAILED)  # the supervisor goes while the child still ignores its SIGTERM
    assert session(process) != []
    async with idle.supervised():
        after = await idle.until_state(READY)
        assert session(process) == []
        assert (after.restart_count, after.last_exit.signal) == (1, signal.SIGKILL)


async def test_an_engine_whose_agent_died_before_it_could_write_down_the_pid_is_found(idle: Node) -> None:
    async with idle.supervised():
        await idle.assign(wanted())
        before = await idle.until_state(READY)
    bundle = idle.bundle()
    bundle.remember(Record())
    async with idle.supervised():
        assert (await idle.until_state(READY)).pid == before.pid


async def test_an_agent_that_finds_no_control_plane_obeys_the_last_assignment(idle: Node) -> None:
    async with idle.supervised():
        await idle.assign(wanted())
        before = await idle.until_state(READY)
        os.kill(before.pid, signal.SIGKILL)
        await idle.until_state(FAILED)
    async with idle.supervised():
        assert (await idle.until_state(READY)).restart_count == 1


async def test_an_agent_hears_the_control_plane_before_it_starts_what_was_wanted_long_ago(
    idle: Node,
) -> None:
    async with idle.supervised():
        await idle.assign(wanted(), wanted("r-2"))
        for uid in ("r-1", "r-2"):
            os.kill((await idle.until_state(READY, uid)).pid, signal.SIGKILL)
            await idle.until_state(FAILED, uid)
    idle.timing = replace(idle.timing, ask_first_s=600.0)
    async with idle.supervised():
        await idle.assign(wanted("r-2"))  # the other one was moved, or is not wanted any more
        assert (await idle.until_state(READY, "r-2")).restart_count == 1
        await idle.until_true(lambda: idle.report("r-1") is None)
        assert not idle.bundle("r-1").path.exists()


async def test_a_restart_of_the_machine_is_no_death_of_the_engine(idle: Node) -> None:
    async with idle.supervised():
        await idle.assign(wanted())
        before = await idle.until_state(READY)
        await idle.assign(wanted(stop_grace_s=0.0))
        await idle.until_state(STOPPED)
    idle.bundle().remember(Record(process=ProcessId(before.pid, 1, "another boot")))
    async with idle.supervised():
        await idle.assign(wanted())
        after = await idle.until_state(READY)
        assert (after.restart_count, after.HasField("last_exit")) == (0, False)


async def test_an_engine_whose_directory_cannot_be_read_is_ended_and_replaced(idle: Node) -> None:
    async with idle.supervised():
        await idle.assign(wanted())
        before = await idle.until_state(READY)
    process = identify(before.pid)
    assert process is not None
    (idle.bundle().path / "spec.json").write_text("{")
    async with idle.supervised():
        after = await idle.until_state(READY)
        assert after.engine_uuid != before.engine_uuid
        assert not is_alive(process)


async def test_all_engines_can_be_stopped_with_the_agent_and_come_back_with_the_next(idle: Node) -> None:
    async with idle.supervised() as supervisor:
        await idle.assign(wanted("r-1"), wanted("r-2", "busy"), wanted("r-3", "exit=1"))
        for uid in ("r-1", "r-2"):
            await idle.until_state(READY, uid)
        await idle.until_state(FAILED, "r-3")
        idle.rest()
        await supervisor.stop_all(0.1)
        assert {each.state for each in supervisor.reports()} == {STOPPED}
    async with idle.supervised():
        for uid in ("r-1", "r-2"):
            await idle.until_state(READY, uid)

"""Engines that do not answer, though their processes live: real processes that are stopped and go on."""

from __future__ import annotations

import os
import re
import signal
from dataclasses import replace

from nodeagent.model import Reading
from roundhouse.kit.times import from_timestamp
from tests.support.supervision import (
    FAILED,
    READY,
    STARTING,
    Node,
    Report,
    wanted,
)


def silence_s(report: Report) -> int:
    """Returns how long an engine is said to be silent; 0 if it is not."""
    said = re.fullmatch(r"the engine does not answer: it has been silent for (\d+) s", report.message)
    return 0 if said is None else int(said[1])


async def test_an_engine_that_says_nothing_by_itself_is_asked_and_stays_ready(node: Node) -> None:
    await node.assign(wanted(script="hangup"))
    ready = await node.until_state(READY)
    asked = await node.until(lambda report: report.message == "serving, when asked")
    assert (asked.state, asked.pid, asked.load.running_count) == (READY, ready.pid, 3)


async def test_an_engine_that_is_silent_is_not_ready_until_it_answers_again(idle: Node) -> None:
    idle.timing = replace(idle.timing, silence_s=2.0)
    async with idle.supervised():
        await idle.gpus(Reading("g", 0, "", is_simulated=True, total_bytes=2000))
        await idle.assign(wanted(gpu_uuids=["g"]))
        before = await idle.until(lambda report: report.fingerprint)
        os.kill(before.pid, signal.SIGSTOP)
        silent = await idle.until(silence_s)
        assert (silent.state, silent.pid, silent.HasField("load")) == (STARTING, before.pid, False)
        assert (silent.address, silent.fingerprint) == (before.address, "scripted")
        [occupant] = idle.occupants.get()
        assert occupant.is_loaded, "what it holds is still its own"
        os.kill(before.pid, signal.SIGCONT)
        after = await idle.until_state(READY)
        assert (after.message, after.pid, after.load.running_count) == ("serving", before.pid, 3)
        assert from_timestamp(after.state_time) > from_timestamp(silent.state_time)


async def test_an_engine_that_is_silent_for_too_long_is_ended_and_started_again(idle: Node) -> None:
    idle.timing = replace(idle.timing, silence_s=1.0, hung_s=3.0)
    async with idle.supervised():
        await idle.assign(wanted())
        before = await idle.until_state(READY)
        os.kill(before.pid, signal.SIGSTOP)
        failed = await idle.until_state(FAILED)
        assert re.fullmatch(r"the engine was ended: it had been silent for \d+ s", failed.message)
        assert failed.last_exit.signal == signal.SIGKILL
        again = await idle.until_state(READY)
        assert (again.restart_count, again.pid != before.pid) == (1, True)


async def test_an_engine_that_is_silent_while_it_loads_is_let_be(idle: Node) -> None:
    idle.timing = replace(idle.timing, silence_s=0.2, hung_s=0.2)
    async with idle.supervised():
        await idle.assign(wanted(script="loading"))
        before = await idle.until(lambda report: report.message == "loading")
        os.kill(before.pid, signal.SIGSTOP)
        await idle.until(lambda report: silence_s(report) >= 2)
        os.kill(before.pid, signal.SIGCONT)
        loading = await idle.until(lambda report: report.message == "loading")
        assert (loading.state, loading.pid) == (STARTING, before.pid)


async def test_an_engine_that_fell_silent_while_no_agent_looked_is_ended_and_started_again(idle: Node) -> None:
    async with idle.supervised():
        await idle.assign(wanted())
        before = await idle.until_state(READY)
    os.kill(before.pid, signal.SIGSTOP)
    idle.timing = replace(idle.timing, hung_s=3.0)
    async with idle.supervised():
        failed = await idle.until_state(FAILED)
        assert failed.message == "the engine did not answer within 3 s"
        assert (await idle.until_state(READY)).pid != before.pid

"""An engine that has lost its directory is kept for as long as an orphan, then ended; no other is."""

from __future__ import annotations

import shutil
from collections.abc import Collection

from nodeagent.model import ProcessId
from nodeagent.plan import ORPHAN_GRACE_S
from nodeagent.process import identify, is_alive
from nodeagent.strays import Strays
from tests.support.clock import FakeClock
from tests.support.supervision import READY, Node, wanted


async def running(node: Node, uid: str) -> ProcessId:
    """Starts an engine that outlives its supervisor."""
    report = await node.until_state(READY, uid)
    process = identify(report.pid)
    assert process is not None
    return process


def strays_of(node: Node, clock: FakeClock, known: Collection[str] = ()) -> Strays:
    return Strays(node.how, node.folder / "engines", lambda: known, clock)


async def test_an_engine_without_a_directory_is_ended_after_the_grace_of_an_orphan(idle: Node) -> None:
    async with idle.supervised():
        await idle.assign(wanted("r-1"), wanted("r-2"))
        lost, kept = await running(idle, "r-1"), await running(idle, "r-2")
    away = idle.folder / "away"
    shutil.move(idle.bundle("r-1").path, away)
    clock = FakeClock()
    strays = strays_of(idle, clock)
    try:
        await strays.look()
        clock.advance(ORPHAN_GRACE_S - 1)
        await strays.look()
        assert is_alive(lost)
        clock.advance(1)
        await strays.look()
        assert (is_alive(lost), is_alive(kept)) == (False, True)
    finally:
        shutil.move(away, idle.bundle("r-1").path)


async def test_a_directory_that_comes_back_in_time_saves_its_engine(idle: Node) -> None:
    async with idle.supervised():
        await idle.assign(wanted())
        engine = await running(idle, "r-1")
    away, clock = idle.folder / "away", FakeClock()
    strays = strays_of(idle, clock)
    shutil.move(idle.bundle().path, away)
    await strays.look()
    shutil.move(away, idle.bundle().path)
    clock.advance(ORPHAN_GRACE_S)
    await strays.look()
    assert is_alive(engine)
    async with idle.supervised():
        assert (await idle.until_state(READY)).pid == engine.pid


async def test_an_engine_that_is_looked_after_needs_no_directory(idle: Node) -> None:
    async with idle.supervised():
        await idle.assign(wanted())
        engine = await running(idle, "r-1")
        away, clock = idle.folder / "away", FakeClock()
        shutil.move(idle.bundle().path, away)
        strays = strays_of(idle, clock, known=["r-1"])
        try:
            for _ in range(2):
                await strays.look()
                clock.advance(ORPHAN_GRACE_S)
            assert is_alive(engine)
        finally:
            shutil.move(away, idle.bundle().path)

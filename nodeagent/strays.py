"""Finds engines of this node that have lost their directory, and ends them after a grace.

Without it nobody has the key to call them, and no agent can take them over; their memory is as good as somebody else's.
A disk that is not mounted yet must not cost a running engine, so they have as long as an orphan has.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable, Collection, Mapping
from pathlib import Path

import structlog

from nodeagent.aside import aside
from nodeagent.launch import Launch
from nodeagent.model import TERM_GRACE_S, ProcessId
from nodeagent.plan import ORPHAN_GRACE_S
from nodeagent.process import end_session, is_alive, leaders
from roundhouse.kit.clock import Clock

log = structlog.get_logger()

LOOK_PERIOD_S = 60.0


class Strays:
    """Looks for them from time to time. `known` returns the uids of the replicas that the supervisor looks after."""

    def __init__(self, how: Launch, root: Path, known: Callable[[], Collection[str]], clock: Clock) -> None:
        self._how, self._root, self._known, self._clock = how, root, known, clock
        self._since_s: dict[ProcessId, float] = {}

    async def run(self) -> None:
        """Looks until cancelled."""
        while True:
            try:
                await self.look()
            except Exception as error:
                log.error("engines without a directory cannot be looked for", exc_info=error)
            await asyncio.sleep(LOOK_PERIOD_S)

    async def look(self) -> None:
        """Reports those that are new, and ends those whose grace is over."""
        found, known = await aside(self._find, "stray engines"), self._known()
        strays = {process: uid for process, uid in found.items() if uid not in known}
        now_s = self._clock.monotonic()
        self._since_s = {each: self._since_s.get(each, now_s) for each in strays}
        for process, since_s in list(self._since_s.items()):
            if since_s == now_s:
                log.warning(
                    "an engine has lost its directory",
                    replica_uid=strays[process],
                    pid=process.pid,
                    grace_s=ORPHAN_GRACE_S,
                )
            elif since_s + ORPHAN_GRACE_S <= now_s:
                await end_session(process, TERM_GRACE_S)
                del self._since_s[process]
                log.warning("an engine without a directory was ended", replica_uid=strays[process], pid=process.pid)

    def _find(self) -> Mapping[ProcessId, str]:
        """Returns the engines of this user that were started from below the root and are not there, with their uids."""
        option, root = self._how.option, os.fsencode(self._root)
        found = {}
        for process, command in leaders():
            if len(command) < 2 or command[-2] != option.encode():
                continue
            parent, uid = os.path.split(command[-1])
            # In a container of its own an agent may call its directories as this one does.
            if parent == root and not (self._root / os.fsdecode(uid)).exists() and _sees_the_same(process.pid):
                found[process] = os.fsdecode(uid)
        return {process: uid for process, uid in found.items() if is_alive(process)}


def _sees_the_same(pid: int) -> bool:
    """Tells whether a process is of our user and has our view of the file system."""
    place = Path("/proc") / str(pid)
    try:
        return (
            place.stat().st_uid == os.geteuid()
            and (place / "ns/mnt").readlink() == Path("/proc/self/ns/mnt").readlink()
        )
    except OSError:
        return False

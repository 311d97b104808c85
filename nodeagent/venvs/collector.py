"""Deletes environments that nobody uses any more."""

from __future__ import annotations

import asyncio
import contextlib
import functools
import shutil
import time
import uuid
from collections.abc import Callable, Collection, Mapping, Sequence
from pathlib import Path

import structlog

from nodeagent.aside import aside
from nodeagent.venvs.folder import Folder, folders
from nodeagent.venvs.recipe import recipe_of
from roundhouse.v1.deployment_pb2 import VirtualEnv

log = structlog.get_logger()

LOOK_PERIOD_S = 60.0
GRACE_S = 3600.0  # a deployment that is launched again within it finds its environment
MOST_UNUSED = 8  # that are kept for so long; of more, those go that were used last the longest ago


def expired(used_s: Mapping[str, float], now_s: float) -> Sequence[str]:
    """Returns which environments go, of those that nobody uses; `used_s` says when each was last in use. Pure."""
    newest_first = sorted(used_s, key=lambda key: (-used_s[key], key))
    return [key for number, key in enumerate(newest_first) if number >= MOST_UNUSED or used_s[key] + GRACE_S <= now_s]


class Collector:
    """Looks at the environments below a directory from time to time. `wanted` returns those of assigned replicas.

    In use is what one of them has, what is being built, and what an engine runs from, of whichever agent.
    """

    def __init__(self, root: Path, environ: Mapping[str, str], wanted: Callable[[], Sequence[VirtualEnv]]) -> None:
        self._root, self._environ, self._wanted = root, environ, wanted

    async def run(self) -> None:
        """Deletes until cancelled."""
        while True:
            try:
                await self.look(time.time())
            except Exception as error:
                log.error("environments cannot be looked through", path=str(self._root), exc_info=error)
            await asyncio.sleep(LOOK_PERIOD_S)

    async def look(self, now_s: float) -> None:
        """Deletes what is to go at this time since 1970."""
        await aside(functools.partial(self._look, self._wanted(), now_s), "environments")

    def _look(self, wanted: Sequence[VirtualEnv], now_s: float) -> None:
        if not self._root.is_dir():
            return
        for gone in self._root.glob(".gone-*"):  # of a collector that was killed
            shutil.rmtree(gone, ignore_errors=True)
        kept = set()
        for each in wanted:
            with contextlib.suppress(ValueError):  # it cannot be built either
                kept.add(recipe_of(each, self._environ).key())
        for key in expired(self._unused(kept), now_s):
            self._delete(key)

    def _unused(self, kept: Collection[str]) -> Mapping[str, float]:
        """Returns the environments that nobody uses, and since when; notes of the others that they are used."""
        found = {}
        for folder in folders(self._root):
            with folder.alone() as is_free:
                if is_free:
                    folder.sweep()
                if is_free and folder.path.name not in kept:
                    found[folder.path.name] = folder.used_s()
                else:
                    folder.touch()
        return found

    def _delete(self, key: str) -> None:
        folder = Folder(self._root / key)
        with folder.alone() as is_free:
            if is_free:
                gone = self._root / f".gone-{uuid.uuid4().hex}"
                folder.path.rename(gone)
                shutil.rmtree(gone, ignore_errors=True)
                log.info("environment deleted", environment=key)

"""Asks the Hugging Face hub about models and fetches them, each in a process of its own that can be ended."""

from __future__ import annotations

import asyncio
import json
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from nodeagent.aside import aside
from nodeagent.child import child
from nodeagent.models.cache import HubCache, NotCached
from nodeagent.shared import Shared

LOOK_S = 12.0  # of the hub's answers about one model; a client waits for it
CLIENT_COMMAND = (sys.executable, "-m", "nodeagent.models.hub_client")
_TRUE = ("1", "ON", "YES", "TRUE")
_MAX_SAID = 500  # characters of what a process that failed has said
Progress = Callable[[int, int], None]  # bytes that have come, and all
_Key = tuple[str, str]  # repository and commit


@dataclass(frozen=True, slots=True)
class Listed:
    """What the hub has."""

    commit: str
    fetch_bytes: int


class Hub:
    """The hub, as an environment (HF_ENDPOINT, HF_TOKEN, HF_HUB_OFFLINE …) means it, and a cache to fetch into."""

    def __init__(self, environ: Mapping[str, str], cache: HubCache, *, command: Sequence[str] = CLIENT_COMMAND) -> None:
        self._environ, self._cache, self._command = environ, cache, command
        self._fetches: Shared[_Key, [int, int]] = Shared("model fetch")
        self._unwanted: set[_Key] = set()  # of these nothing is to be left, if their fetch is given up

    async def look(self, repository: str, revision: str, directory: Path) -> Listed:
        """Puts into a directory what tells of a model; raises NotCached, with why not."""
        self._require_online(repository)
        try:
            async with asyncio.timeout(LOOK_S):
                answer = await self._run(["look", repository, revision, str(directory)], _nobody)
        except TimeoutError:
            raise NotCached(
                f"the hub has not said within {LOOK_S:g} s what {repository} is: check the network of the node"
            ) from None
        return Listed(str(answer["commit"]), int(answer["fetch_bytes"]))

    async def fetch(self, repository: str, commit: str, tell: Progress) -> None:
        """Returns once a snapshot is in the cache; raises NotCached, with why not. Files that came whole stay.

        All who want the same wait for one fetch; cancelling the last of them ends it.
        """
        self._require_online(repository)
        key = (repository, commit)
        await self._fetches.do(key, lambda say: self._fetch(key, say), tell)

    def leave_nothing(self, repository: str, commit: str) -> None:
        """Says that a fetch that is about to be cancelled is not gone on with later: what has come of it is deleted.

        Not if there was something before it began, or if somebody else fetches the same.
        """
        if (repository, commit) in self._fetches:
            self._unwanted.add((repository, commit))

    async def _fetch(self, key: _Key, say: Progress) -> None:
        repository, commit = key
        self._unwanted.discard(key)
        was_there = await aside(lambda: self._cache.has(repository, commit), "model cache")
        try:
            await self._run(["fetch", repository, commit, str(self._cache.root)], say)
        except asyncio.CancelledError:
            if key in self._unwanted and not was_there:
                await aside(lambda: self._cache.give_up(repository, commit), "model cache")
            raise
        finally:
            self._unwanted.discard(key)

    @property
    def is_online(self) -> bool:
        """Tells whether it may be asked."""
        return self._environ.get("HF_HUB_OFFLINE", "").upper() not in _TRUE

    def _require_online(self, repository: str) -> None:
        if not self.is_online:
            raise NotCached(
                f"the hub is not asked about {repository}, since HF_HUB_OFFLINE is set for the node agent: unset it"
            )

    async def _run(self, arguments: Sequence[str], say: Progress) -> Mapping[str, Any]:
        """Returns what the process answers; it does not outlive the call."""
        answer: Mapping[str, Any] = {}
        environ = {**self._environ, "HF_HUB_DISABLE_TELEMETRY": "1"}
        async with child([*self._command, *arguments], environ) as process:
            async for line in process.lines():
                answer = _read(line)
                if "total" in answer:
                    say(int(answer["done"]), int(answer["total"]))
        if "error" in answer:
            raise NotCached(str(answer["error"]))
        if process.exit_code:
            raise NotCached(f"the process that asks the hub ended with {process.exit_code}: see if it can run there")
        return answer


def _nobody(done: int, total: int) -> None:
    pass


def _read(line: bytes) -> Mapping[str, Any]:
    try:
        answer = json.loads(line)
    except ValueError:
        answer = None
    if not isinstance(answer, dict):
        return {"error": f"the process that asks the hub said {line[:_MAX_SAID]!r}: see what prints there"}
    return answer

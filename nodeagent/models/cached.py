"""Reports what is in the cache of this node, and deletes what is to go, unless an engine runs from it."""

from __future__ import annotations

import asyncio
import contextlib
import functools
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import structlog

from nodeagent.aside import aside
from nodeagent.models.cache import Cached, HubCache, Kept, NotCached
from roundhouse.internal.v1 import agent_service_pb2 as wire
from roundhouse.kit.times import to_timestamp
from roundhouse.v1.deployment_pb2 import ModelSource

log = structlog.get_logger()

LOOK_PERIOD_S = 30.0  # somebody may fetch or delete a model by hand; a thousand of them take a tenth of a second
_MAX_MESSAGE = 1000  # characters; a path may have more
_Key = tuple[str, str]  # repository and commit


class CachedModels:
    """What is cached, as of the last look. `in_use` returns the models of the engines of this node."""

    def __init__(
        self, cache: HubCache, in_use: Callable[[], Sequence[ModelSource]], *, on_change: Callable[[], None]
    ) -> None:
        self._cache, self._in_use, self._on_change = cache, in_use, on_change
        self._facts: Sequence[wire.CachedModelFacts] = ()
        self._wishes: Sequence[_Key] = ()
        self._hint = asyncio.Event()

    def facts(self) -> Sequence[wire.CachedModelFacts]:
        """Returns what is there, and why what should go is still there."""
        return self._facts

    def delete(self, keys: Sequence[wire.CachedModelKey]) -> None:
        """Deletes these from now on, and no others."""
        wishes = [(each.repository, each.commit) for each in keys]
        if wishes != self._wishes:
            self._wishes = wishes
            self._hint.set()

    async def run(self) -> None:
        """Looks, and deletes, until cancelled."""
        while True:
            self._hint.clear()  # before the look, so that no wish falls between
            wishes, used = self._wishes, self._in_use()
            try:
                facts = await aside(functools.partial(self._look, wishes, used), "model cache")
            except OSError as error:
                log.error("the cache of models cannot be read", path=str(self._cache.root), error=str(error))
                facts = self._facts
            if facts != self._facts or wishes:
                self._facts = facts
                self._on_change()
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(LOOK_PERIOD_S):
                    await self._hint.wait()

    def _look(self, wishes: Sequence[_Key], used: Sequence[ModelSource]) -> Sequence[wire.CachedModelFacts]:
        kept = {key: why[:_MAX_MESSAGE] for key in wishes if (why := self._delete(key, used))}
        return [_facts(each, kept) for each in self._cache.list()]

    def _delete(self, key: _Key, used: Sequence[ModelSource]) -> str:
        """Deletes files; returns why not."""
        repository, commit = key
        try:
            if any(self._is_of(each, repository, commit) for each in used):
                return "an engine runs from it: terminate its deployment first"
            self._cache.delete(repository, commit)
        except (Kept, NotCached) as error:
            return str(error)
        except OSError as error:
            return f"{error.filename or self._cache.root} cannot be deleted: {error.strerror}"
        log.info("cached model deleted", repository=repository, commit=commit)
        return ""

    def _is_of(self, source: ModelSource, repository: str, commit: str) -> bool:
        if source.WhichOneof("source") == "repository":
            return (source.repository.id, source.repository.revision) == (repository, commit)
        return source.WhichOneof("source") == "path" and self._cache.holds(Path(source.path), repository, commit)


def _facts(cached: Cached, kept: Mapping[_Key, str]) -> wire.CachedModelFacts:
    return wire.CachedModelFacts(
        key=wire.CachedModelKey(repository=cached.repository, commit=cached.commit),
        references=cached.references,
        size_bytes=cached.size_bytes,
        file_count=cached.file_count,
        last_used_time=to_timestamp(cached.last_used_time_s),
        deletion_message=kept.get((cached.repository, cached.commit), ""),
    )

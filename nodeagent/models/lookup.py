"""Answers the control plane's questions about models, and again whenever their files change."""

from __future__ import annotations

import asyncio
import importlib.util
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Self

import structlog

from nodeagent.aside import aside
from nodeagent.models.cache import HubCache, NotCached
from nodeagent.models.directory import files_of, read_model
from nodeagent.models.hub import Hub
from nodeagent.models.place import NotWhole, find_model
from nodeagent.models.safetensors import Broken
from roundhouse.internal.v1 import agent_service_pb2 as wire
from roundhouse.v1 import deployment_pb2

log = structlog.get_logger()

LOOK_PERIOD_S = 1.0  # who mends a directory and tries again gets the new answer
ANSWER_S = 2.0  # a client waits for it; by then a file system that hangs is answer enough
_MAX_MISSING = 32
_Stamp = tuple[object, ...]
_Key = tuple[bytes, bool]  # a source, and whether the hub is asked too


class Models:
    """What is known of the models that were asked about last. A context manager: leaving it ends the looking."""

    def __init__(
        self, builtin: Callable[[str], Path | None], cache: HubCache, hub: Hub, *, on_change: Callable[[], None]
    ) -> None:
        self._builtin, self._cache, self._hub, self._on_change = builtin, cache, hub, on_change
        self._looking: dict[_Key, asyncio.Task[None]] = {}
        self._facts: dict[_Key, wire.ModelFacts] = {}

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        looking = list(self._looking.values())
        self.probe([])
        await asyncio.gather(*looking, return_exceptions=True)

    def probe(
        self, sources: Sequence[deployment_pb2.ModelSource], at_hub: Sequence[deployment_pb2.ModelSource] = ()
    ) -> None:
        """Looks after these models from now on, and after no others; those `at_hub` at the hub too, if it must be."""
        wanted = {(each.SerializeToString(deterministic=True), False): each for each in sources}
        wanted |= {(each.SerializeToString(deterministic=True), True): each for each in at_hub}
        for key in self._looking.keys() - wanted.keys():
            self._looking.pop(key).cancel()
            self._facts.pop(key, None)
        for key in wanted.keys() - self._looking.keys():
            self._looking[key] = asyncio.create_task(self._look_after(key, wanted[key]), name="model lookup")

    def facts(self) -> Sequence[wire.ModelFacts]:
        """Returns the answers that there are so far."""
        return list(self._facts.values())

    async def _look_after(self, key: _Key, source: deployment_pb2.ModelSource) -> None:
        look = _Look(source, self._builtin, self._cache)
        _, asks_hub = key
        at_hub: wire.ModelFacts | None = None
        while True:
            looking = asyncio.ensure_future(aside(look.again, "model lookup"))
            await asyncio.wait({looking}, timeout=ANSWER_S)
            if not looking.done():
                self._tell(key, look.broken(f"{look.place} has not answered for {ANSWER_S:g} s"))
            facts = await looking
            if asks_hub and _is_lack(facts):
                if at_hub is None:
                    at_hub = await self._at_hub(source, facts)
                facts = at_hub
            if asks_hub:
                said = wire.ModelFacts(is_from_hub=True)
                said.MergeFrom(facts)
                facts = said
            self._tell(key, facts)
            await asyncio.sleep(LOOK_PERIOD_S)

    async def _at_hub(self, source: deployment_pb2.ModelSource, here: wire.ModelFacts) -> wire.ModelFacts:
        try:
            return await look_at_hub(self._hub, source, here)
        except Exception as error:
            # Of this question alone, and it is answered.
            log.error("asking the hub failed", repository=source.repository.id, exc_info=error)
            return _lacking_still(here, f"the hub cannot be asked: {error}")

    def _tell(self, key: _Key, facts: wire.ModelFacts) -> None:
        if self._facts.get(key) != facts:
            self._facts[key] = facts
            self._on_change()


class _Look:
    """One model, and what its files said when they last changed."""

    def __init__(
        self, source: deployment_pb2.ModelSource, builtin: Callable[[str], Path | None], cache: HubCache
    ) -> None:
        self._source, self._builtin, self._cache = source, builtin, cache
        self._stamp: _Stamp | None = None
        self._facts = wire.ModelFacts()

    @property
    def place(self) -> str:
        """Where is looked, in words."""
        if self._source.WhichOneof("source") == "repository":
            return f"the cache {self._cache.root}"
        return str(self._builtin(self._source.builtin) if self._source.builtin else self._source.path)

    def again(self) -> wire.ModelFacts:
        """Returns what is there now. Blocks."""
        try:
            directory = self._directory()
            stamp = (directory, *_stamp(directory))
            if stamp != self._stamp:
                self._facts = read_facts(self._source, directory, str(directory))
                self._facts.path = str(directory) if self._facts.state == wire.MODEL_STATE_OK else ""
                self._stamp = stamp
        except NotWhole as error:
            facts = self.broken(str(error))
            facts.missing_files.extend(error.missing[:_MAX_MISSING])
            return facts
        except NotCached as error:
            return wire.ModelFacts(source=self._source, state=wire.MODEL_STATE_NOT_FOUND, message=str(error))
        except OSError as error:
            return self.broken(f"{self.place} cannot be read: {error.strerror}")
        return self._facts

    def _directory(self) -> Path:
        """Returns where the files are; raises NotCached if there is no such place."""
        if self._source.WhichOneof("source") != "builtin":
            return find_model(self._source, self._cache)
        directory = self._builtin(self._source.builtin)
        if directory is None:
            raise NotCached(f"no builtin model is called {self._source.builtin}: demo is the only one")
        if not directory.is_dir():
            raise NotCached(f"there is no directory {directory}")
        return directory

    def broken(self, message: str) -> wire.ModelFacts:
        """Returns that the model cannot be served, and why."""
        return wire.ModelFacts(source=self._source, state=wire.MODEL_STATE_BROKEN, message=message)


async def look_at_hub(hub: Hub, source: deployment_pb2.ModelSource, here: wire.ModelFacts) -> wire.ModelFacts:
    """Returns what the hub has of a repository, of which `here` says what this node lacks."""
    asked = source.repository
    with tempfile.TemporaryDirectory(prefix="roundhouse-hub-", ignore_cleanup_errors=True) as folder:
        try:
            listed = await hub.look(asked.id, asked.revision, Path(folder))
        except NotCached as error:
            return _lacking_still(here, str(error))
        facts = await aside(
            lambda: read_facts(source, Path(folder), f"the hub's {asked.id}, {listed.commit}"), "model lookup"
        )
    if facts.state == wire.MODEL_STATE_OK:
        facts.state, facts.commit, facts.fetch_bytes = wire.MODEL_STATE_AT_HUB, listed.commit, listed.fetch_bytes
        facts.message = here.message
    return facts


def _lacking_still(here: wire.ModelFacts, why: str) -> wire.ModelFacts:
    facts = wire.ModelFacts()
    facts.CopyFrom(here)
    facts.message = f"{here.message}; {why}"
    return facts


def read_facts(source: deployment_pb2.ModelSource, directory: Path, place: str) -> wire.ModelFacts:
    """Returns what the files in a directory tell; `place` is what messages call it."""
    try:
        model = read_model(directory)
        # In here too: a file can say numbers that no field of the answer holds.
        return wire.ModelFacts(
            source=source,
            state=wire.MODEL_STATE_OK,
            model_type=model.model_type,
            weight_bytes=model.weights.byte_count,
            parameter_count=model.weights.parameter_count,
            dtype=model.weights.dtype,
            context_tokens=model.context_tokens,
            kv_elements_per_token=model.kv_elements_per_token,
            weight_bytes_by_dtype=model.weights.bytes_by_dtype,
            **asdict(model.sizes),
        )
    except Broken as broken:
        return wire.ModelFacts(source=source, state=wire.MODEL_STATE_BROKEN, message=f"{place}: {broken}")
    except Exception as error:
        log.error("model cannot be understood", place=place, exc_info=error)
        message = f"{place} cannot be understood: {error!r}"
        return wire.ModelFacts(source=source, state=wire.MODEL_STATE_BROKEN, message=message)


def builtin_directory(name: str) -> Path | None:
    """Returns where the files of a builtin model lie; None if there is no such model.

    They ship inside the package of the engines, which is found by its name and not imported: components are strangers,
    and what they share here is a folder of files.
    """
    package = importlib.util.find_spec("engines")
    if name != "demo" or package is None or not package.submodule_search_locations:
        return None
    return Path(package.submodule_search_locations[0]) / "demo_model/files"


def _stamp(directory: Path) -> _Stamp:
    stats = [(path.name, path.stat()) for path in files_of(directory)]
    return tuple(sorted((name, stat.st_mtime_ns, stat.st_size) for name, stat in stats))


def _is_lack(facts: wire.ModelFacts) -> bool:
    """Tells whether files of a repository are not here, and none is broken."""
    if facts.source.WhichOneof("source") != "repository":
        return False
    return facts.state == wire.MODEL_STATE_NOT_FOUND or bool(facts.missing_files)

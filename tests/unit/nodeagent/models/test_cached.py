"""A node reports its cache, and deletes from it what is asked for and not in use."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable
from pathlib import Path

import pytest

from nodeagent.models.cache import HubCache
from nodeagent.models.cached import CachedModels
from roundhouse.internal.v1.agent_service_pb2 import CachedModelFacts, CachedModelKey
from roundhouse.v1.deployment_pb2 import HubRepository, ModelSource
from tests.support.hub_cache import COMMIT, cache_model

PATIENCE_S = 20.0
KEY = CachedModelKey(repository="acme/tiny", commit=COMMIT)


class Node:
    """The cache of a node, and the models of its engines."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.used: list[ModelSource] = []
        self._changed = asyncio.Event()
        self.models = CachedModels(HubCache(root), lambda: self.used, on_change=self._changed.set)

    async def until(self, holds: Callable[[list[CachedModelFacts]], bool]) -> list[CachedModelFacts]:
        async with asyncio.timeout(PATIENCE_S):
            while not holds(facts := list(self.models.facts())):
                self._changed.clear()
                await self._changed.wait()
        return facts


@pytest.fixture
async def node(tmp_path: Path) -> AsyncIterator[Node]:
    files = tmp_path / "files"
    files.mkdir()
    (files / "config.json").write_text("{}")
    cache_model(tmp_path / "hub", KEY.repository, files)
    it = Node(tmp_path / "hub")
    looking = asyncio.create_task(it.models.run())
    yield it
    looking.cancel()
    with contextlib.suppress(asyncio.CancelledError):
        await looking


async def test_what_is_cached_is_reported(node: Node) -> None:
    [facts] = await node.until(lambda facts: len(facts) == 1)
    assert (facts.key, list(facts.references), facts.size_bytes, facts.file_count) == (KEY, ["main"], 2, 1)
    assert facts.deletion_message == ""


async def test_what_is_to_go_is_deleted_and_reported_no_more(node: Node) -> None:
    await node.until(lambda facts: len(facts) == 1)
    node.models.delete([KEY])
    await node.until(lambda facts: not facts)
    assert list(node.root.iterdir()) == []


@pytest.mark.parametrize("kind", ["repository", "path", "path through a link"])
async def test_what_an_engine_runs_from_stays_until_it_has_ended(node: Node, tmp_path: Path, kind: str) -> None:
    snapshot = node.root / "models--acme--tiny/snapshots" / COMMIT
    (tmp_path / "link").symlink_to(snapshot)
    node.used = [
        {
            "repository": ModelSource(repository=HubRepository(id=KEY.repository, revision=COMMIT)),
            "path": ModelSource(path=str(snapshot)),
            "path through a link": ModelSource(path=str(tmp_path / "link")),
        }[kind]
    ]
    node.models.delete([KEY])
    [facts] = await node.until(lambda facts: any(each.deletion_message for each in facts))
    assert facts.deletion_message == "an engine runs from it: terminate its deployment first"
    node.models.delete([])
    await node.until(lambda facts: not any(each.deletion_message for each in facts))
    node.used = []
    node.models.delete([KEY])
    await node.until(lambda facts: not facts)


async def test_a_wish_that_climbs_out_of_the_cache_deletes_nothing(node: Node, tmp_path: Path) -> None:
    await node.until(lambda facts: len(facts) == 1)
    node.models.delete([CachedModelKey(repository="../files", commit=COMMIT), KEY])
    await node.until(lambda facts: not facts)
    assert (tmp_path / "files/config.json").exists()

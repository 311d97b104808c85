"""Answers about models arrive, change with the files, and do not wait for one another."""

from __future__ import annotations

import asyncio
import json
import os
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from engines.demo_model import MODEL_DIR
from nodeagent.models.cache import HubCache
from nodeagent.models.hub import Hub
from nodeagent.models.lookup import Models, builtin_directory
from roundhouse.internal.v1 import agent_service_pb2 as wire
from roundhouse.v1.deployment_pb2 import HubRepository, ModelSource
from tests.support.hub_cache import cache_model
from tests.support.model_files import CONFIG, write_weights

PATIENCE_S = 20.0


class Asked:
    """Models that are asked about, and what is said of them."""

    def __init__(self, folder: Path) -> None:
        self._changed = asyncio.Event()
        cache = HubCache(folder / "hub")
        self.models = Models({"demo": folder}.get, cache, Hub(os.environ, cache), on_change=self._changed.set)

    async def answer(self, source: ModelSource, state: wire.ModelState) -> wire.ModelFacts:
        async with asyncio.timeout(PATIENCE_S):
            while True:
                self._changed.clear()
                for each in self.models.facts():
                    if each.source == source and each.state == state:
                        return each
                await self._changed.wait()


@pytest.fixture
async def asked(tmp_path: Path) -> AsyncIterator[Asked]:
    """A node whose builtin model is an empty folder."""
    asked = Asked(tmp_path)
    async with asked.models:
        yield asked


def fill(directory: Path) -> None:
    write_weights(directory / "model.safetensors", "a")
    (directory / "tokenizer.json").write_text('{"model": {}}')
    (directory / "config.json").write_text(str(CONFIG).replace("'", '"'))


async def test_a_directory_is_answered_with_its_facts(asked: Asked, tmp_path: Path) -> None:
    fill(tmp_path)
    source = ModelSource(path=str(tmp_path))
    asked.models.probe([source])
    facts = await asked.answer(source, wire.MODEL_STATE_OK)
    expected = {
        "path": str(tmp_path),
        "model_type": "qwen3",
        "weight_bytes": 12,
        "parameter_count": 6,
        "dtype": "bfloat16",
        "context_tokens": 2048,
        "kv_elements_per_token": 512,
    }  # and sizes, see test_sizes.py
    assert {name: getattr(facts, name) for name in expected} == expected


async def test_who_mends_a_directory_gets_another_answer(asked: Asked, tmp_path: Path) -> None:
    source = ModelSource(builtin="demo")
    asked.models.probe([source])
    facts = await asked.answer(source, wire.MODEL_STATE_BROKEN)
    assert facts.message == f"{tmp_path}: config.json is missing"
    fill(tmp_path)
    await asked.answer(source, wire.MODEL_STATE_OK)


@pytest.mark.parametrize(
    ("source", "said"),
    [
        (ModelSource(path="/no/such/directory"), "there is no directory /no/such/directory"),
        (ModelSource(path="models/chat"), "not absolute"),
        (ModelSource(path="/dev/null"), "there is no directory /dev/null"),
        (ModelSource(builtin="large"), "no builtin model is called large"),
        (ModelSource(), "not absolute"),
    ],
    ids=["no directory", "a relative path", "a file", "an unknown builtin", "nothing"],
)
async def test_what_is_not_there_is_not_found(asked: Asked, source: ModelSource, said: str) -> None:
    asked.models.probe([source])
    assert said in (await asked.answer(source, wire.MODEL_STATE_NOT_FOUND)).message


async def test_a_repository_is_looked_for_in_the_cache_until_it_is_whole(asked: Asked, tmp_path: Path) -> None:
    source = ModelSource(repository=HubRepository(id="acme/tiny"))
    asked.models.probe([source])
    missing = await asked.answer(source, wire.MODEL_STATE_NOT_FOUND)
    assert missing.message == f"the cache {tmp_path / 'hub'} has no models--acme--tiny"
    files = tmp_path / "files"
    files.mkdir()
    fill(files)
    snapshot = cache_model(tmp_path / "hub", "acme/tiny", files)
    whole = await asked.answer(source, wire.MODEL_STATE_OK)
    assert (whole.path, whole.model_type) == (str(snapshot), "qwen3")
    (snapshot / "model.safetensors").resolve().unlink()
    broken = await asked.answer(source, wire.MODEL_STATE_BROKEN)
    assert broken.message == f"{snapshot} is not whole: it lacks model.safetensors"
    assert broken.missing_files == ["model.safetensors"]


async def test_a_model_with_numbers_that_no_message_holds_is_broken(asked: Asked, tmp_path: Path) -> None:
    fill(tmp_path)
    (tmp_path / "config.json").write_text(json.dumps({**CONFIG, "max_position_embeddings": 10**12}))
    source = ModelSource(path=str(tmp_path))
    asked.models.probe([source])
    facts = await asked.answer(source, wire.MODEL_STATE_BROKEN)
    assert facts.message.startswith(f"{tmp_path} cannot be understood")


async def test_what_is_not_asked_about_any_more_is_not_answered(asked: Asked, tmp_path: Path) -> None:
    first, second = ModelSource(path=str(tmp_path)), ModelSource(builtin="demo")
    asked.models.probe([first])
    await asked.answer(first, wire.MODEL_STATE_BROKEN)
    asked.models.probe([second])
    await asked.answer(second, wire.MODEL_STATE_BROKEN)
    assert [each.source for each in asked.models.facts()] == [second]


async def test_a_directory_that_hangs_is_called_broken_and_delays_no_other(asked: Asked, tmp_path: Path) -> None:
    # Reading a FIFO that nobody writes to hangs as a file server does that went away.
    hanging = tmp_path / "hanging"
    hanging.mkdir()
    os.mkfifo(hanging / "config.json")
    sources = [ModelSource(path=str(hanging)), ModelSource(builtin="demo")]
    asked.models.probe(sources)
    await asked.answer(sources[1], wire.MODEL_STATE_BROKEN)
    facts = await asked.answer(sources[0], wire.MODEL_STATE_BROKEN)
    assert facts.message == f"{hanging} has not answered for 2 s"
    (hanging / "config.json").open("w").close()  # lets the thread go


def test_the_demo_model_is_found_without_importing_engines() -> None:
    assert builtin_directory("demo") == Path(MODEL_DIR)
    assert builtin_directory("large") is None

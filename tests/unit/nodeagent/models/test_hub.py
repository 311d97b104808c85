"""Models are fetched from the hub: just what an engine needs, and once for all who want it.

Nothing is left of a fetch that is given up.
"""

from __future__ import annotations

import asyncio
import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from nodeagent.models.cache import HubCache, NotCached, missing_files
from nodeagent.models.hub import CLIENT_COMMAND, Hub
from nodeagent.models.hub_files import small_files, weight_files
from tests.support.cluster import eventually
from tests.support.hub_server import COMMIT, FakeHub, serving_hub
from tests.support.model_files import write_weights
from tests.support.tiny_models import write_tiny_model

pytestmark = pytest.mark.slow  # processes of their own

NAME = "acme/tiny"
PATIENCE_S = 30.0


@pytest.fixture
def at() -> Iterator[FakeHub]:
    """A hub with one model of which the weights take more than one piece."""
    with serving_hub() as hub:
        yield hub


@pytest.fixture
def hub(at: FakeHub, tmp_path: Path) -> Hub:
    at.add(NAME, write_tiny_model(tmp_path / "files", "qwen3"))
    return Hub(environ(at), HubCache(tmp_path / "cache"))


def environ(at: FakeHub, **more: str) -> dict[str, str]:
    return {**os.environ, "HF_ENDPOINT": at.address, "HF_HUB_OFFLINE": "0", **more}


def ignore(done: int, total: int) -> None:
    pass


class Seen:
    """Progress, and an event that it has come at all."""

    def __init__(self) -> None:
        self.begun = asyncio.Event()
        self.said: list[tuple[int, int]] = []

    def __call__(self, done: int, total: int) -> None:
        self.said.append((done, total))
        self.begun.set()


def left(cache: Path) -> list[str]:
    """Returns the files of models in a cache, but for what its library notes about itself."""
    found = [each.relative_to(cache) for each in cache.rglob("*") if each.is_file()]
    return [str(each) for each in found if each.parts[0].startswith("models--")]


async def test_only_what_an_engine_needs_is_fetched(hub: Hub, at: FakeHub, tmp_path: Path) -> None:
    others = [
        "pytorch_model.bin",
        "original/model.safetensors",
        "onnx/model.onnx",
        "README.md",
        "model.fp32.safetensors",
    ]
    for each in others:
        at.repositories[NAME][each] = b"not needed"
    await hub.fetch(NAME, COMMIT, ignore)
    snapshot = tmp_path / "cache" / "models--acme--tiny" / "snapshots" / COMMIT
    assert missing_files(snapshot) == []
    assert not set(others) & set(at.fetched(NAME))


async def test_of_a_model_in_several_files_those_are_fetched_that_the_index_names(at: FakeHub, tmp_path: Path) -> None:
    files = tmp_path / "files"
    files.mkdir()
    for name, tensor in (("model-1.safetensors", "a"), ("model-2.safetensors", "b"), ("consolidated.safetensors", "c")):
        write_weights(files / name, tensor)
    (files / "model.safetensors.index.json").write_text(
        '{"weight_map": {"a": "model-1.safetensors", "b": "model-2.safetensors"}}'
    )
    (files / "tokenizer.json").write_text('{"model": {}}')
    (files / "config.json").write_text('{"model_type": "qwen3"}')
    at.add(NAME, files)
    hub = Hub(environ(at), HubCache(tmp_path / "cache"))
    await hub.fetch(NAME, COMMIT, ignore)
    assert sorted(each for each in at.fetched(NAME) if each.endswith(".safetensors")) == [
        "model-1.safetensors",
        "model-2.safetensors",
    ]


async def test_all_who_want_a_model_wait_for_one_fetch(hub: Hub, at: FakeHub) -> None:
    at.flows.clear()
    first, second = Seen(), Seen()
    async with asyncio.timeout(PATIENCE_S), asyncio.TaskGroup() as group:
        group.create_task(hub.fetch(NAME, COMMIT, first))
        await first.begun.wait()
        group.create_task(hub.fetch(NAME, COMMIT, second))
        await second.begun.wait()
        at.flows.set()
    assert at.fetched(NAME).count("model.safetensors") == 1
    assert first.said[-1][1] == second.said[-1][1] > 0


async def test_who_gives_up_takes_a_model_from_nobody_else(hub: Hub, at: FakeHub, tmp_path: Path) -> None:
    at.flows.clear()
    seen = Seen()
    async with asyncio.timeout(PATIENCE_S):
        stays = asyncio.create_task(hub.fetch(NAME, COMMIT, seen))
        await seen.begun.wait()
        joined = Seen()
        leaves = asyncio.create_task(hub.fetch(NAME, COMMIT, joined))
        await joined.begun.wait()
        hub.leave_nothing(NAME, COMMIT)
        leaves.cancel()
        await asyncio.gather(leaves, return_exceptions=True)
        at.flows.set()
        await stays
    assert missing_files(tmp_path / "cache" / "models--acme--tiny" / "snapshots" / COMMIT) == []


async def test_nothing_is_left_of_a_fetch_that_is_given_up(hub: Hub, at: FakeHub, tmp_path: Path) -> None:
    at.flows.clear()
    seen = Seen()
    async with asyncio.timeout(PATIENCE_S):
        fetching = asyncio.create_task(hub.fetch(NAME, COMMIT, seen))
        while "config.json" not in " ".join(left(tmp_path / "cache")):
            seen.begun.clear()
            await seen.begun.wait()
        hub.leave_nothing(NAME, COMMIT)
        fetching.cancel()
        with pytest.raises(asyncio.CancelledError):
            await fetching
    assert left(tmp_path / "cache") == []


async def test_what_has_come_whole_stays_for_the_next_agent_when_this_one_ends(
    hub: Hub, at: FakeHub, tmp_path: Path
) -> None:
    at.flows.clear()
    seen = Seen()
    async with asyncio.timeout(PATIENCE_S):
        fetching = asyncio.create_task(hub.fetch(NAME, COMMIT, seen))
        while "config.json" not in " ".join(left(tmp_path / "cache")):
            seen.begun.clear()
            await seen.begun.wait()
        fetching.cancel()
        await asyncio.gather(fetching, return_exceptions=True)
    names = left(tmp_path / "cache")
    assert any(each.endswith("config.json") for each in names)
    assert not [each for each in names if each.endswith(".incomplete")]


async def test_nothing_is_left_of_a_look_whose_agent_is_killed(hub: Hub, at: FakeHub, tmp_path: Path) -> None:
    at.answers.clear()
    looked = tmp_path / "looked"
    looked.mkdir()
    asking = await asyncio.create_subprocess_exec(
        *CLIENT_COMMAND, "look", NAME, "main", str(looked), env=environ(at), stdin=subprocess.PIPE
    )
    await eventually(lambda: at.asked, "the hub is asked")
    async with asyncio.timeout(PATIENCE_S):
        assert asking.stdin is not None
        asking.stdin.close()  # as the kernel does then
        assert await asking.wait() == 1
    assert not looked.exists()


async def test_nothing_is_left_when_all_give_up_at_once_and_who_comes_then_begins_anew(
    hub: Hub, at: FakeHub, tmp_path: Path
) -> None:
    at.flows.clear()
    seen = [Seen(), Seen()]
    async with asyncio.timeout(PATIENCE_S):
        fetching = []
        for each in seen:
            fetching.append(asyncio.create_task(hub.fetch(NAME, COMMIT, each)))
            await each.begun.wait()
        for task in fetching:
            hub.leave_nothing(NAME, COMMIT)
            task.cancel()
        again = asyncio.create_task(hub.fetch(NAME, COMMIT, ignore))
        await asyncio.gather(*fetching, return_exceptions=True)
        assert left(tmp_path / "cache") == []
        at.flows.set()
        await again
    assert missing_files(tmp_path / "cache" / "models--acme--tiny" / "snapshots" / COMMIT) == []


async def test_files_that_were_there_before_stay_when_a_fetch_is_given_up(
    hub: Hub, at: FakeHub, tmp_path: Path
) -> None:
    snapshot = tmp_path / "cache" / "models--acme--tiny" / "snapshots" / COMMIT
    snapshot.mkdir(parents=True)
    (snapshot / "notes.txt").write_text("mine")
    at.flows.clear()
    seen = Seen()
    async with asyncio.timeout(PATIENCE_S):
        fetching = asyncio.create_task(hub.fetch(NAME, COMMIT, seen))
        await seen.begun.wait()
        hub.leave_nothing(NAME, COMMIT)
        fetching.cancel()
        await asyncio.gather(fetching, return_exceptions=True)
    assert (snapshot / "notes.txt").exists()


async def test_a_fetch_that_does_not_fit_the_disk_is_refused_with_the_numbers(hub: Hub, at: FakeHub) -> None:
    at.claims["model.safetensors"] = 1 << 60
    with pytest.raises(NotCached, match=r"takes 1048576\.0 TiB, and the disk of .* has .* left: free some"):
        await hub.fetch(NAME, COMMIT, ignore)
    assert "model.safetensors" not in at.fetched(NAME)


@pytest.mark.parametrize(
    ("spoil", "said"),
    [
        (lambda at: at.gated.add(NAME), "lets only those fetch acme/tiny who may: set HF_TOKEN"),
        (lambda at: at.repositories[NAME].pop("config.json"), "has no config.json"),
        (lambda at: at.repositories[NAME].pop("model.safetensors"), r"has no \*\.safetensors files"),
        (lambda at: at.repositories[NAME].update({"model.safetensors": b"x" * 99}), "cannot be understood"),
        (lambda at: setattr(at, "is_broken", True), "cannot be asked about acme/tiny .*: check the network"),
    ],
    ids=["gated", "no model", "no safetensors", "damaged weights", "a hub that fails"],
)
async def test_what_the_hub_does_not_give_is_said_with_the_cure(
    hub: Hub, at: FakeHub, tmp_path: Path, spoil: object, said: str
) -> None:
    spoil(at)  # type: ignore[operator]
    with pytest.raises(NotCached, match=said):
        await hub.look(NAME, "", tmp_path)


async def test_a_password_in_the_address_of_the_hub_is_not_shown(at: FakeHub, tmp_path: Path) -> None:
    address = at.address.replace("http://", "http://user:hunter2@")
    hub = Hub(environ(at, HF_ENDPOINT=address), HubCache(tmp_path / "cache"))
    with pytest.raises(NotCached) as refused:
        await hub.look(NAME, "", tmp_path)
    assert "hunter2" not in str(refused.value)
    assert "***@127.0.0.1" in str(refused.value)


async def test_a_hub_out_of_reach_is_named(tmp_path: Path) -> None:
    hub = Hub({**os.environ, "HF_HUB_OFFLINE": "0", "HF_ENDPOINT": "http://127.0.0.1:9"}, HubCache(tmp_path / "cache"))
    with pytest.raises(NotCached, match=r"http://127\.0\.0\.1:9 cannot be asked about acme/tiny"):
        await hub.look(NAME, "", tmp_path)


async def test_a_node_that_is_to_stay_offline_asks_nobody(at: FakeHub, tmp_path: Path) -> None:
    hub = Hub(environ(at, HF_HUB_OFFLINE="1"), HubCache(tmp_path / "cache"))
    assert not hub.is_online
    for asking in (hub.look(NAME, "", tmp_path), hub.fetch(NAME, COMMIT, ignore)):
        with pytest.raises(NotCached, match="HF_HUB_OFFLINE is set for the node agent: unset it"):
            await asking
    assert at.asked == []


@pytest.mark.parametrize(
    ("names", "indexed", "wanted"),
    [
        (["model.safetensors", "consolidated.safetensors"], [], ["model.safetensors"]),
        (["b.safetensors", "a.safetensors", "sub/c.safetensors"], [], ["a.safetensors", "b.safetensors"]),
        (["x-1.safetensors", "x-2.safetensors", "model.safetensors"], ["x-2.safetensors", "x-1.safetensors"],
         ["x-1.safetensors", "x-2.safetensors"]),
        (["model.bin"], [], []),
    ],
)  # fmt: skip
def test_weights_are_those_that_libraries_load(names: list[str], indexed: list[str], wanted: list[str]) -> None:
    assert weight_files(names, indexed) == wanted


def test_files_beside_the_weights_are_configurations_tokenizers_and_templates() -> None:
    wanted = ["chat_template.jinja", "config.json", "merges.txt", "tokenizer.json", "tokenizer.model"]
    others = [".gitattributes", "README.md", "model.safetensors", "onnx/config.json", "run.py", "logo.png"]
    sizes = [(each, 10) for each in (*others, *wanted)]
    assert small_files([*sizes, ("large.json", 1 << 40), ("pytorch_model.bin.index.json", 1)]) == wanted

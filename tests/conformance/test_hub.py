"""What a node asks of the Hugging Face hub: the same of the hub that stands in for it in tests, and of the real one.

ROUNDHOUSE_TEST_HUB=1 asks the real one, where it can be reached.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import pytest

from nodeagent.models.cache import HubCache, NotCached, missing_files
from nodeagent.models.hub import Hub
from nodeagent.models.lookup import look_at_hub, read_facts
from roundhouse.internal.v1 import agent_service_pb2 as wire
from roundhouse.v1.deployment_pb2 import HubRepository, ModelSource
from tests.support.hub_server import serving_hub
from tests.support.tiny_models import write_tiny_model

pytestmark = pytest.mark.slow  # processes of their own


@dataclass(frozen=True)
class AtHub:
    """A hub, and a small model that it has."""

    environ: Mapping[str, str]
    repository: str


@pytest.fixture(params=["stand-in", "real"])
def at(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[AtHub]:
    """Each hub."""
    base = {name: value for name, value in os.environ.items() if not name.startswith("HF_")}
    if request.param == "real":
        if not os.environ.get("ROUNDHOUSE_TEST_HUB"):
            pytest.skip("ROUNDHOUSE_TEST_HUB is not set: the real hub is not asked")
        yield AtHub(base, "hf-internal-testing/tiny-random-LlamaForCausalLM")
        return
    with serving_hub() as hub:
        hub.add("acme/tiny", write_tiny_model(tmp_path / "files", "qwen3"))
        yield AtHub({**base, "HF_ENDPOINT": hub.address}, "acme/tiny")


async def test_a_model_is_known_before_it_is_fetched_as_well_as_after(at: AtHub, tmp_path: Path) -> None:
    cache = HubCache(tmp_path / "hub")
    hub = Hub(at.environ, cache)
    source = ModelSource(repository=HubRepository(id=at.repository))
    here = wire.ModelFacts(source=source, state=wire.MODEL_STATE_NOT_FOUND, message="not here")
    before = await look_at_hub(hub, source, here)
    assert (before.state, before.message) == (wire.MODEL_STATE_AT_HUB, "not here")
    assert before.fetch_bytes > before.weight_bytes > 0
    assert not cache.root.exists(), "looking leaves nothing behind"
    told: list[tuple[int, int]] = []
    await hub.fetch(at.repository, before.commit, lambda done, total: told.append((done, total)))
    snapshot = cache.find(at.repository, before.commit).path
    assert cache.find(at.repository, "main").path == snapshot
    assert missing_files(snapshot) == []
    assert told
    after = read_facts(source, snapshot, "")
    for facts in (before, after):
        for name in ("state", "message", "commit", "fetch_bytes"):
            facts.ClearField(name)
    assert before == after


@pytest.mark.parametrize(
    ("repository", "revision", "said"),
    [
        ("roundhouse-no-such-owner/nothing", "", "has no roundhouse-no-such-owner/nothing"),
        (None, "no-such-branch", "has no revision at no-such-branch"),
    ],
    ids=["no such repository", "no such revision"],
)
async def test_what_the_hub_lacks_is_named(
    at: AtHub, tmp_path: Path, repository: str | None, revision: str, said: str
) -> None:
    hub = Hub(at.environ, HubCache(tmp_path / "hub"))
    with pytest.raises(NotCached, match=said):
        await hub.look(repository or at.repository, revision, tmp_path)

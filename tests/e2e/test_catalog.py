"""Models by name: from a file that registers a family, over the caches of nodes, to tokens; and files that go again."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from nodeagent.models.cache import HubCache
from roundhouse.client import deployment
from roundhouse.kit.errors import NotFound, NotReady
from roundhouse.kit.status import reason_name
from tests.support.cluster import PATIENCE_S, Cluster, cluster, eventually
from tests.support.hub_cache import COMMIT, cache_model
from tests.support.hub_server import COMMIT as HUB_COMMIT
from tests.support.hub_server import serving_hub
from tests.support.tiny_models import write_tiny_model

pytestmark = [pytest.mark.slow, pytest.mark.timeout(300)]

REPOSITORY = "acme/tiny-qwen3"
TEMPLATE = "the quick brown fox"  # whatever the messages say, so that it shows which template wrote the prompt
FAMILY = {
    "name": "tiny1.5-chat",
    "model_type": "qwen3",
    "chat_template": TEMPLATE,
    "variants": [
        {"size_in_billions": "0.1", "locations": [{"repository": {"id": REPOSITORY}}]},
        {"size_in_billions": "0.1", "format": "gptq", "quantization": "Int4", "locations": [{"path": "/nowhere"}]},
    ],
}


def roundhouse(it: Cluster, *arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "roundhouse.cli", "--address", it.address, *arguments],
        capture_output=True,
        text=True,
        timeout=PATIENCE_S,
        check=False,
    )


async def test_a_family_is_registered_resolved_served_and_deleted(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    hub = tmp_path / "hub"
    monkeypatch.setenv("HF_HUB_CACHE", str(hub))
    (tmp_path / "family.json").write_text(json.dumps(FAMILY))
    async with cluster(tmp_path / "cluster") as (it, client):
        registered = roundhouse(it, "catalog", "register", str(tmp_path / "family.json"))
        assert (registered.returncode, registered.stdout) == (0, "tiny1.5-chat is registered with 2 variants\n")
        wanted = deployment("tiny", family="tiny1.5-chat", size_in_billions="0_1", max_model_len=128)

        with pytest.raises(NotFound) as refused:
            await client.deployments.create(wanted)
        assert reason_name(refused.value.own_reason) == "MODEL_NOT_CACHED"
        assert f"the cache {hub} has no models--acme--tiny-qwen3" in refused.value.message

        snapshot = cache_model(hub, REPOSITORY, write_tiny_model(tmp_path / "files", "qwen3"))
        resolved = roundhouse(it, "catalog", "resolve", "tiny1.5-chat", "-s", "0.1")
        assert str(snapshot) in resolved.stdout
        created = await client.deployments.create(wanted)
        assert created.resolved_repository.id == REPOSITORY
        assert created.resolved_repository.revision == COMMIT
        await client.deployments.wait_ready("tiny", timeout_s=PATIENCE_S)
        plain = client.generate("tiny", TEMPLATE, temperature=0, max_tokens=4)
        chat = client.chat("tiny", "hello?", temperature=0, max_tokens=4)
        assert await plain.text() == await chat.text()
        assert plain.usage is not None
        assert chat.usage is not None
        assert plain.usage.prompt_token_count == chat.usage.prompt_token_count
        assert chat.usage.output_token_count == 4

        # A change of the count leaves the engine as it is, though it was told a path, and not a repository.
        [before] = (await client.replicas.list("tiny")).replicas
        changed = await client.deployments.scale("tiny", 2)
        after = (await client.deployments.wait_ready("tiny", timeout_s=PATIENCE_S, wanted=changed)).replicas
        assert before.engine_uuid in {each.engine_uuid for each in after}

        # A node looks into its cache every 30 s.
        await eventually(lambda: REPOSITORY in roundhouse(it, "cache", "list").stdout, "the node has seen the files")
        assert "tiny-0 tiny-1" in roundhouse(it, "cache", "list").stdout
        [cached] = (await client.cached_models.list()).cached_models
        with pytest.raises(NotReady) as in_use:
            await client.cached_models.delete(cached.name)
        assert reason_name(in_use.value.own_reason) == "CACHED_MODEL_IN_USE"
        await client.deployments.delete("tiny", drain_grace_s=0)
        await client.deployments.wait_gone("tiny", PATIENCE_S)
        node = cached.name.split("/")[1]
        deleted = roundhouse(it, "cache", "delete", node, REPOSITORY)
        assert deleted.returncode == 0, deleted.stderr
        assert list(hub.iterdir()) == []
        assert roundhouse(it, "cache", "list").stdout == "no node keeps files of a model\n"


async def test_replicas_run_on_the_nodes_that_have_the_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_HUB_CACHE", str(tmp_path / "empty"))
    async with cluster(tmp_path / "cluster") as (it, client):
        hub = tmp_path / "hub"
        cache_model(hub, REPOSITORY, write_tiny_model(tmp_path / "files", "qwen3"))
        monkeypatch.setenv("HF_HUB_CACHE", str(hub))
        it.start_agent("--simulate-gpus", "1x24GiB", node="stocked")
        await eventually(lambda: roundhouse(it, "nodes").stdout.count(" ready ") == 2, "both nodes are ready")
        wanted = deployment("tiny", repository=REPOSITORY, replica_count=2, strategy="spread", max_model_len=128)
        created = await client.deployments.create(wanted)
        ready = await client.deployments.wait_ready("tiny", timeout_s=PATIENCE_S, wanted=created)
        assert [each.node for each in ready.replicas] == ["nodes/stocked", "nodes/stocked"]


async def test_a_model_at_the_hub_is_planned_fetched_and_served_and_a_launch_is_given_up_meanwhile(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with serving_hub() as hub:
        hub.add(REPOSITORY, write_tiny_model(tmp_path / "files", "qwen3"))
        for name, value in {"HF_HUB_CACHE": str(tmp_path / "hub"), "HF_ENDPOINT": hub.address}.items():
            monkeypatch.setenv(name, value)
        monkeypatch.setenv("HF_HUB_OFFLINE", "0")
        (tmp_path / "family.json").write_text(json.dumps(FAMILY))
        async with cluster(tmp_path / "cluster") as (it, client):
            roundhouse(it, "catalog", "register", str(tmp_path / "family.json"))
            resolved = roundhouse(it, "catalog", "resolve", "tiny1.5-chat", "-s", "0.1")
            assert "are fetched from the hub before it starts" in resolved.stdout
            wanted = deployment("tiny", family="tiny1.5-chat", size_in_billions="0.1", max_model_len=128)
            planned = await client.deployments.plan(wanted)
            assert planned.fits
            assert hub.fetched(REPOSITORY).count("model.safetensors") == 0, "a plan fetches no weights"

            hub.flows.clear()
            await client.deployments.create(wanted)
            await eventually(lambda: "fetching" in roundhouse(it, "replicas", "tiny").stdout, "it is seen fetching")
            fetching = await client.replicas.list("tiny")
            assert fetching.replicas[0].message == f"fetching {REPOSITORY} from the hub"
            await client.deployments.delete("tiny", drain_grace_s=0)
            await client.deployments.wait_gone("tiny", PATIENCE_S)
            assert not list((tmp_path / "hub").glob("models--*"))

            # An agent that dies takes what it fetches with it, and the next one begins again.
            created = await client.deployments.create(wanted)
            assert created.resolved_repository.revision == HUB_COMMIT
            await eventually(lambda: hub.fetched(REPOSITORY).count("model.safetensors") == 2, "it is fetched again")
            it.kill("nodeagent")
            hub.flows.set()
            it.start_agent()
            await client.deployments.wait_ready("tiny", timeout_s=PATIENCE_S)
            assert await client.generate("tiny", "hello", temperature=0, max_tokens=4).text()
            assert HubCache(tmp_path / "hub").find(REPOSITORY, "main").commit == HUB_COMMIT
            assert not list((tmp_path / "hub").rglob("*.incomplete"))

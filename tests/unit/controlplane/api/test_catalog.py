"""The catalog through its service: what is registered stays, what is wrong is refused, and names come to files."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from controlplane.api.reports import check_report
from roundhouse.internal.v1 import agent_service_pb2 as agent_pb
from roundhouse.kit.errors import InvalidArgument
from roundhouse.v1 import catalog_service_pb2 as pb
from roundhouse.v1 import deployment_service_pb2, errors_pb2
from roundhouse.v1.catalog_pb2 import ModelFamily, ModelLocation, ModelVariant
from roundhouse.v1.deployment_pb2 import EngineOptions, FamilyModel, HubRepository, ModelSource, Speculation
from tests.support.plane import Plane, plane_on, reason_of, refused
from tests.support.scripted_agent import ScriptedAgent, demo_facts

COMMIT = "c" * 40
TINY = ModelSource(repository=HubRepository(id="acme/tiny-4B"))


def family(name: str = "tiny1.5-chat", **fields: Any) -> ModelFamily:
    locations = [ModelLocation(repository=TINY.repository), ModelLocation(path="/models/tiny")]
    fields.setdefault("variants", [ModelVariant(size_in_billions="4", locations=locations)])
    return ModelFamily(name=f"families/{name}", **fields)


def facts(source: ModelSource, **fields: Any) -> agent_pb.ModelFacts:
    it = demo_facts()
    it.source.CopyFrom(source)
    for name, value in fields.items():
        setattr(it, name, value)
    return it


def cached(repository: str = "acme/tiny-4B", commit: str = COMMIT) -> agent_pb.CachedModelFacts:
    key = agent_pb.CachedModelKey(repository=repository, commit=commit)
    return agent_pb.CachedModelFacts(key=key, references=["main"], size_bytes=8_000_000, file_count=3)


async def register(plane: Plane, it: ModelFamily, **options: bool) -> ModelFamily:
    response = await plane.catalog.RegisterFamily(pb.RegisterFamilyRequest(family=it, **options))
    return ModelFamily.FromString(response.family.SerializeToString())


def wants(**fields: str) -> ModelSource:
    return ModelSource(family=FamilyModel(family="tiny1.5-chat", **fields))


@pytest.fixture
def agent() -> ScriptedAgent:
    """A node that has the tiny model in its cache."""
    agent = ScriptedAgent("a")
    agent.knows(facts(TINY, path=f"/hub/models--acme--tiny-4B/snapshots/{COMMIT}"))
    pinned = ModelSource(repository=HubRepository(id="acme/tiny-4B", revision=COMMIT))
    agent.knows(facts(pinned, path=f"/hub/models--acme--tiny-4B/snapshots/{COMMIT}"))
    agent.cached = [cached()]
    return agent


@pytest.fixture
async def joined(plane: Plane, agent: ScriptedAgent) -> AsyncIterator[ScriptedAgent]:
    async with agent.joined(plane.address):
        yield agent


async def test_a_registered_family_outlives_the_control_plane(tmp_path: Path) -> None:
    async with plane_on(tmp_path / "state") as plane:
        stored = await register(plane, family())
        assert stored.HasField("create_time")
        assert not stored.is_builtin
    async with plane_on(tmp_path / "state") as plane:
        response = await plane.catalog.GetFamily(pb.GetFamilyRequest(name=stored.name))
        assert response.family == stored
        await plane.catalog.DeleteFamily(pb.DeleteFamilyRequest(name=stored.name))
    async with plane_on(tmp_path / "state") as plane:
        error = await refused(plane.catalog.GetFamily(pb.GetFamilyRequest(name=stored.name)))
        assert reason_of(error) == "FAMILY_NOT_FOUND"


async def test_the_same_body_again_changes_nothing_and_another_needs_leave(plane: Plane) -> None:
    stored = await register(plane, family())
    assert await register(plane, family(), allow_replace=True) == stored
    other = family(description="another")
    error = await refused(plane.catalog.RegisterFamily(pb.RegisterFamilyRequest(family=other)))
    assert reason_of(error) == "FAMILY_EXISTS"
    assert (await register(plane, other, allow_replace=True)).description == "another"


async def test_what_is_only_checked_is_not_stored(plane: Plane) -> None:
    await register(plane, family(), validate_only=True)
    error = await refused(plane.catalog.GetFamily(pb.GetFamilyRequest(name="families/tiny1.5-chat")))
    assert reason_of(error) == "FAMILY_NOT_FOUND"
    await register(plane, family())
    await plane.catalog.DeleteFamily(pb.DeleteFamilyRequest(name="families/tiny1.5-chat", validate_only=True))
    await plane.catalog.GetFamily(pb.GetFamilyRequest(name="families/tiny1.5-chat"))


async def test_what_ships_can_be_neither_replaced_nor_deleted(plane: Plane) -> None:
    request = pb.RegisterFamilyRequest(family=family("qwen3"), allow_replace=True)
    assert reason_of(await refused(plane.catalog.RegisterFamily(request))) == "FAMILY_BUILTIN"
    deletion = pb.DeleteFamilyRequest(name="families/qwen3")
    assert reason_of(await refused(plane.catalog.DeleteFamily(deletion))) == "FAMILY_BUILTIN"


async def test_a_list_has_what_ships_and_what_was_registered_by_name_and_in_pages(plane: Plane) -> None:
    await register(plane, family("qwen3.9"))
    names: list[str] = []
    token = ""
    while True:
        page = await plane.catalog.ListFamilies(pb.ListFamiliesRequest(page_size=7, page_token=token))
        names += [each.name for each in page.families]
        token = page.next_page_token
        if not token:
            break
    assert names == sorted(names)
    assert {"families/qwen3", "families/qwen3.9", "families/gpt-oss"} <= set(names)


@pytest.mark.parametrize(
    ("it", "field"),
    [
        (family("Tiny"), "family.name"),
        (family(variants=[]), "family.variants"),
        (family(variants=[ModelVariant(size_in_billions="4")]), "family.variants[0].locations"),
        (family(variants=family().variants[:] * 2), "family.variants[1]"),
        (family(context_tokens=-1), "family.context_tokens"),
        (family(abilities=[99]), "family.abilities[0]"),
        (family(chat_template="x" * 70_000), "family.chat_template"),
        (
            family(variants=[ModelVariant(size_in_billions="4B", locations=[ModelLocation(path="models")])]),
            "family.variants[0].size_in_billions",
        ),
        (
            family(
                variants=[
                    ModelVariant(
                        size_in_billions="4",
                        locations=[ModelLocation(repository=HubRepository(id="a/b", revision="../../x"))],
                    )
                ]
            ),
            "family.variants[0].locations[0].repository.revision",
        ),
    ],
    ids=[
        "a name",
        "no variant",
        "no location",
        "twice",
        "context",
        "an ability",
        "a long template",
        "a size",
        "climbs",
    ],
)
async def test_a_malformed_family_is_refused_by_field(plane: Plane, it: ModelFamily, field: str) -> None:
    error = await refused(plane.catalog.RegisterFamily(pb.RegisterFamilyRequest(family=it)))
    assert reason_of(error) == "FIELD_INVALID"
    assert field in [each.field for each in error.fields]


async def test_patterns_of_files_are_not_served_yet(plane: Plane) -> None:
    it = family()
    it.variants[0].files.append("*.gguf")
    error = await refused(plane.catalog.RegisterFamily(pb.RegisterFamilyRequest(family=it)))
    assert reason_of(error) == "NOT_SERVED"
    assert [each.field for each in error.fields] == ["family.variants[0].files"]


async def test_a_family_comes_to_a_repository_at_a_commit(plane: Plane, joined: ScriptedAgent) -> None:
    await register(plane, family(chat_template="{{ messages }}", context_tokens=1024))
    created = await plane.create(model=wants(size_in_billions="4"))
    assert created.resolved_repository == HubRepository(id="acme/tiny-4B", revision=COMMIT)
    assert created.model == wants(size_in_billions="4")  # what was asked for stays readable
    [engine] = (await joined.assigned(lambda each: len(each.engines) == 1)).engines
    assert engine.spec.model.repository == created.resolved_repository
    assert engine.spec.chat_template == "{{ messages }}"
    assert engine.spec.computed.max_model_len == 1024


async def test_a_deployment_keeps_the_files_it_came_to(plane: Plane, joined: ScriptedAgent) -> None:
    await register(plane, family())
    created = await plane.create(model=wants())
    await plane.catalog.DeleteFamily(pb.DeleteFamilyRequest(name="families/tiny1.5-chat"))
    request = deployment_service_pb2.ScaleDeploymentRequest(name=created.name, replica_count=2)
    scaled = (await plane.deployments.ScaleDeployment(request)).deployment
    assert scaled.resolved_repository == created.resolved_repository
    engines = (await joined.assigned(lambda each: len(each.engines) == 2)).engines
    assert {each.spec.model.repository.revision for each in engines} == {COMMIT}


async def test_a_repository_is_served_without_a_family(plane: Plane, joined: ScriptedAgent) -> None:
    created = await plane.create(model=TINY)
    assert not created.HasField("resolved_repository")
    [engine] = (await joined.assigned(lambda each: len(each.engines) == 1)).engines
    assert engine.spec.model.repository.revision == COMMIT


async def test_a_draft_model_may_be_named_by_the_catalog(plane: Plane, joined: ScriptedAgent) -> None:
    await register(plane, family())
    speculation = Speculation(method="SPECULATION_METHOD_DRAFT_MODEL", draft_model=wants())
    await plane.create(engine_options=EngineOptions(speculation=speculation))
    [engine] = (await joined.assigned(lambda each: len(each.engines) == 1)).engines
    assert engine.spec.model == ModelSource(builtin="demo")
    assert engine.spec.options.speculation.draft_model.repository.revision == COMMIT


async def test_the_next_location_is_taken_where_the_first_has_nothing(plane: Plane) -> None:
    await register(plane, family())
    agent = ScriptedAgent("a")
    agent.knows(facts(ModelSource(path="/models/tiny"), path="/models/tiny"))
    async with agent.joined(plane.address):
        created = await plane.create(model=wants())
        assert not created.HasField("resolved_repository")
        [engine] = (await agent.assigned(lambda each: len(each.engines) == 1)).engines
        assert engine.spec.model == ModelSource(path="/models/tiny")


async def test_what_no_node_has_is_said_node_by_node_and_with_the_cure(plane: Plane) -> None:
    agents = [ScriptedAgent("a"), ScriptedAgent("b")]
    agents[0].knows(
        facts(TINY, state=agent_pb.MODEL_STATE_NOT_FOUND, message="the cache /hub has no models--acme--tiny")
    )
    broken = facts(TINY, state=agent_pb.MODEL_STATE_BROKEN, message="/hub is not whole: it lacks config.json")
    broken.missing_files.append("config.json")
    agents[1].knows(broken)
    async with agents[0].joined(plane.address), agents[1].joined(plane.address):
        error = await refused(plane.create(model=TINY))
    assert reason_of(error) == "MODEL_NOT_CACHED"
    assert 'node "a": the cache /hub has no models--acme--tiny' in error.message
    assert 'node "b": /hub is not whole: it lacks config.json' in error.message
    assert error.message.endswith("let a node reach the hub, or fetch it there with `hf download acme/tiny-4B`")


async def test_every_place_of_a_variant_is_said(plane: Plane) -> None:
    await register(plane, family())
    agent = ScriptedAgent("a")
    agent.knows(facts(TINY, state=agent_pb.MODEL_STATE_NOT_FOUND, message="the cache /hub has no models--acme--tiny"))
    path = ModelSource(path="/models/tiny")
    agent.knows(facts(path, state=agent_pb.MODEL_STATE_NOT_FOUND, message="there is no directory /models/tiny"))
    async with agent.joined(plane.address):
        error = await refused(plane.create(model=wants()))
    assert reason_of(error) == "MODEL_NOT_CACHED"
    assert "the cache /hub has no models--acme--tiny" in error.message
    assert "there is no directory /models/tiny" in error.message


async def test_files_of_another_type_than_the_catalog_says_are_broken(plane: Plane, joined: ScriptedAgent) -> None:
    await register(plane, family(model_type="llama"))
    error = await refused(plane.create(model=wants()))
    assert reason_of(error) == "MODEL_BROKEN"
    assert 'are of the type "qwen3"' in error.message


@pytest.mark.parametrize(
    ("model", "reason", "said"),
    [
        (FamilyModel(family="qwen4", size_in_billions="4"), "FAMILY_NOT_FOUND", "did you mean qwen3"),
        (FamilyModel(family="qwen3", size_in_billions="5"), "VARIANT_NOT_FOUND", "use one of 0.6, 1.7, 4"),
        (FamilyModel(family="qwen3", size_in_billions="4", format="awq", quantization="int4"), "NOT_SERVED", "vLLM"),
        (FamilyModel(family="families/QWEN3", size_in_billions="4"), "NO_NODE", "no node is connected"),
        (FamilyModel(family="a b"), "FIELD_INVALID", "is no name of a family"),
    ],
    ids=["no such family", "no such size", "a format for another engine", "a good one", "no name at all"],
)
async def test_without_any_node_the_catalog_is_consulted_first(
    plane: Plane, model: FamilyModel, reason: str, said: str
) -> None:
    error = await refused(plane.create(model=ModelSource(family=model)))
    assert (reason_of(error), said in error.message) == (reason, True)


async def test_what_waits_for_a_node_is_resolved_when_one_joins(plane: Plane, agent: ScriptedAgent) -> None:
    await register(plane, family())
    created = await plane.create(model=wants(), allow_pending=True)
    assert not created.HasField("resolved_repository")
    async with agent.joined(plane.address):
        seen = await plane.until(lambda each: each["deployments/chat"].HasField("resolved_repository"))
    assert seen["deployments/chat"].resolved_repository.revision == COMMIT


async def test_resolving_says_what_each_node_has(plane: Plane, joined: ScriptedAgent) -> None:
    await register(plane, family())
    other = ScriptedAgent("b")
    other.knows(facts(TINY, state=agent_pb.MODEL_STATE_NOT_FOUND, message="the cache /hub is empty"))
    path = ModelSource(path="/models/tiny")
    other.knows(facts(path, state=agent_pb.MODEL_STATE_NOT_FOUND, message="there is no directory /models/tiny"))
    async with other.joined(plane.address):
        request = pb.ResolveModelRequest(model=FamilyModel(family="tiny1.5-chat"))
        response = await plane.catalog.ResolveModel(request)
    assert response.variant.size_in_billions == "4"
    assert [(each.node, each.path, each.message) for each in response.nodes] == [
        ("nodes/a", f"/hub/models--acme--tiny-4B/snapshots/{COMMIT}", ""),
        ("nodes/b", "", "the cache /hub is empty; there is no directory /models/tiny"),
    ]
    assert response.nodes[0].weight_bytes == demo_facts().weight_bytes
    assert list(response.unreachable) == []


async def test_cached_models_are_listed_with_the_replicas_that_run_from_them(
    plane: Plane, joined: ScriptedAgent
) -> None:
    await plane.create(model=TINY)
    await joined.assigned(lambda each: len(each.engines) == 1)
    response = await plane.catalog.ListCachedModels(pb.ListCachedModelsRequest(parent="nodes/-"))
    [model] = response.cached_models
    assert model.name == f"nodes/a/cachedModels/acme--tiny-4B--{COMMIT}"
    assert model.repository == HubRepository(id="acme/tiny-4B", revision=COMMIT)
    assert list(model.replicas) == ["deployments/chat/replicas/0"]
    assert (model.size_bytes, model.file_count, list(model.references)) == (8_000_000, 3, ["main"])


async def test_pages_of_cached_models_go_over_all_nodes(plane: Plane) -> None:
    agents = [ScriptedAgent("a"), ScriptedAgent("a-b", machine="m2")]
    for each in agents:
        each.cached = [cached("acme/one"), cached("acme/two")]
    names: list[str] = []
    async with agents[0].joined(plane.address), agents[1].joined(plane.address):
        token = ""
        while True:
            request = pb.ListCachedModelsRequest(parent="nodes/-", page_size=1, page_token=token)
            page = await plane.catalog.ListCachedModels(request)
            names += [each.name for each in page.cached_models]
            token = page.next_page_token
            if not token:
                break
    assert len(names) == len(set(names)) == 4


async def test_what_is_used_by_a_replica_is_not_deleted(plane: Plane, joined: ScriptedAgent) -> None:
    await plane.create(model=TINY)
    await joined.assigned(lambda each: len(each.engines) == 1)
    request = pb.DeleteCachedModelRequest(name=f"nodes/a/cachedModels/acme--tiny-4B--{COMMIT}")
    error = await refused(plane.catalog.DeleteCachedModel(request))
    assert reason_of(error) == "CACHED_MODEL_IN_USE"
    assert "deployments/chat/replicas/0" in error.message
    assert joined.cached == [cached()]


async def test_a_deletion_is_answered_when_the_node_has_done_it(plane: Plane, joined: ScriptedAgent) -> None:
    request = pb.DeleteCachedModelRequest(name=f"nodes/a/cachedModels/acme--tiny-4B--{COMMIT}")
    await plane.catalog.DeleteCachedModel(request)
    assert joined.cached == []
    await joined.assigned(lambda each: not each.cached_model_deletions)  # the wish ends with the call
    error = await refused(plane.catalog.DeleteCachedModel(request))
    assert reason_of(error) == "CACHED_MODEL_NOT_FOUND"


async def test_what_a_node_keeps_although_it_should_go_is_said(plane: Plane, joined: ScriptedAgent) -> None:
    joined.is_keen = False
    joined.cached[0].deletion_message = "an engine runs from it: terminate its deployment first"
    request = pb.DeleteCachedModelRequest(name=f"nodes/a/cachedModels/acme--tiny-4B--{COMMIT}")
    error = await refused(plane.catalog.DeleteCachedModel(request))
    assert reason_of(error) == "CACHED_MODEL_IN_USE"
    assert "an engine runs from it" in error.message


async def test_a_node_that_is_not_known_has_no_cache(plane: Plane) -> None:
    error = await refused(plane.catalog.ListCachedModels(pb.ListCachedModelsRequest(parent="nodes/x")))
    assert error.own_reason == errors_pb2.ERROR_REASON_NODE_NOT_FOUND


@pytest.mark.parametrize(
    "wrong",
    [
        cached(repository="../.."),
        cached(repository="a/b/c"),
        cached(commit="main"),
        agent_pb.CachedModelFacts(key=cached().key, size_bytes=-1),
        agent_pb.CachedModelFacts(key=cached().key, references=["x"] * 17),
        agent_pb.CachedModelFacts(key=cached().key, deletion_message="x" * 1001),
    ],
    ids=["climbs", "three parts", "no commit", "a negative size", "references", "a long message"],
)
def test_a_report_of_a_cache_that_cannot_be_is_refused(wrong: agent_pb.CachedModelFacts) -> None:
    agent = ScriptedAgent("a")
    agent.cached = [cached()]
    check_report(agent.message())
    agent.cached.append(wrong)
    with pytest.raises(InvalidArgument, match=r"cached_models\[1\]"):
        check_report(agent.message())

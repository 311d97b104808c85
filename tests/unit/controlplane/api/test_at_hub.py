"""What no node has, a few nodes look up at the hub; what is there is served, and fetched where it is placed."""

from __future__ import annotations

import contextlib
from collections.abc import Sequence
from typing import Any

import pytest

from controlplane.api.reports import check_report
from roundhouse.internal.v1 import agent_service_pb2 as agent_pb
from roundhouse.kit.errors import InvalidArgument
from roundhouse.v1 import catalog_service_pb2 as pb
from roundhouse.v1.catalog_pb2 import ModelFamily, ModelLocation, ModelVariant
from roundhouse.v1.deployment_pb2 import FamilyModel, HubRepository, ModelSource
from tests.support.plane import Plane, reason_of, refused
from tests.support.scripted_agent import ScriptedAgent, demo_facts

COMMIT = "c" * 40
TINY = ModelSource(repository=HubRepository(id="acme/tiny-4B"))
NOT_HERE = "the cache /hub has no models--acme--tiny-4B"


def facts(source: ModelSource = TINY, **fields: Any) -> agent_pb.ModelFacts:
    it = demo_facts()
    it.source.CopyFrom(source)
    for name, value in fields.items():
        setattr(it, name, value)
    return it


def at_hub() -> agent_pb.ModelFacts:
    return facts(state=agent_pb.MODEL_STATE_AT_HUB, commit=COMMIT, fetch_bytes=9_000_000, message=NOT_HERE)


def not_here(source: ModelSource = TINY, message: str = NOT_HERE) -> agent_pb.ModelFacts:
    return agent_pb.ModelFacts(source=source, state=agent_pb.MODEL_STATE_NOT_FOUND, message=message)


def able(name: str, found: agent_pb.ModelFacts) -> ScriptedAgent:
    agent = ScriptedAgent(name)
    agent.knows(not_here())
    agent.finds_at_hub(found)
    return agent


@contextlib.asynccontextmanager
async def joined(plane: Plane, agents: Sequence[ScriptedAgent]) -> Any:
    async with contextlib.AsyncExitStack() as stack:
        for each in agents:
            await stack.enter_async_context(each.joined(plane.address))
        yield


async def register(plane: Plane, *locations: ModelSource) -> None:
    places = [
        ModelLocation(repository=each.repository) if each.HasField("repository") else ModelLocation(path=each.path)
        for each in locations
    ]
    variants = [ModelVariant(size_in_billions="4", locations=places)]
    await plane.catalog.RegisterFamily(
        pb.RegisterFamilyRequest(family=ModelFamily(name="families/tiny", variants=variants))
    )


async def test_a_repository_at_the_hub_is_served_at_the_commit_that_it_has_now(plane: Plane) -> None:
    agent = able("a", at_hub())
    async with joined(plane, [agent]):
        created = await plane.create(model=TINY)
        [engine] = (await agent.assigned(lambda each: len(each.engines) == 1)).engines
        assert engine.spec.model.repository == HubRepository(id="acme/tiny-4B", revision=COMMIT)
        assert created.memory_need.weight_bytes == 4 * 2_800_000, "it is placed by what the hub says of it"
        assert not (await agent.assigned(lambda each: not each.hub_probes)).hub_probes


async def test_at_most_three_nodes_ask_the_hub_however_many_there_are(plane: Plane) -> None:
    agents = [able(f"n{number}", not_here(message="there is no network")) for number in range(6)]
    async with joined(plane, agents):
        error = await refused(plane.create(model=TINY))
    assert reason_of(error) == "MODEL_NOT_CACHED"
    assert [len(each.hub_probed) > 0 for each in agents].count(True) == 3


async def test_the_hub_is_not_asked_for_what_a_node_has(plane: Plane) -> None:
    stocked = ScriptedAgent("stocked")
    stocked.knows(facts(path=f"/hub/models--acme--tiny-4B/snapshots/{COMMIT}"))
    other = able("other", at_hub())
    async with joined(plane, [other, stocked]):
        await plane.create(model=TINY)
    assert other.hub_probed == []


async def test_an_agent_that_does_not_say_that_it_can_is_not_asked(plane: Plane) -> None:
    agent = ScriptedAgent("a")
    agent.knows(not_here())
    async with joined(plane, [agent]):
        assert reason_of(await refused(plane.create(model=TINY))) == "MODEL_NOT_CACHED"
    assert agent.hub_probed == []


async def test_what_the_hub_says_is_part_of_the_refusal(plane: Plane) -> None:
    said = f"{NOT_HERE}; https://hub has no acme/tiny-4B, or shows it to some only: set HF_TOKEN of the node agent"
    async with joined(plane, [able("a", not_here(message=said))]):
        error = await refused(plane.create(model=TINY))
    assert f'node "a": {said}' in error.message


async def test_a_broken_model_at_the_hub_is_called_broken(plane: Plane) -> None:
    broken = facts(state=agent_pb.MODEL_STATE_BROKEN, message="the hub's acme/tiny-4B: there is no tokenizer")
    async with joined(plane, [able("a", broken)]):
        error = await refused(plane.create(model=TINY))
    assert (reason_of(error), "there is no tokenizer" in error.message) == ("MODEL_BROKEN", True)


@pytest.mark.parametrize("order", [1, -1])
async def test_a_location_that_a_node_has_comes_before_one_at_the_hub(plane: Plane, order: int) -> None:
    path = ModelSource(path="/models/tiny")
    await register(plane, *[TINY, path][::order])
    agent = able("a", at_hub())
    agent.knows(facts(path, path="/models/tiny"))
    async with joined(plane, [agent]):
        created = await plane.create(model=ModelSource(family=FamilyModel(family="tiny")))
        assert not created.HasField("resolved_repository")
    assert agent.hub_probed == []


async def test_a_family_is_fetched_from_the_hub_where_no_location_has_it(plane: Plane) -> None:
    path = ModelSource(path="/models/tiny")
    await register(plane, path, TINY)
    agent = able("a", at_hub())
    agent.knows(not_here(path, "there is no directory /models/tiny"))
    async with joined(plane, [agent]):
        created = await plane.create(model=ModelSource(family=FamilyModel(family="tiny")))
    assert created.resolved_repository.revision == COMMIT


async def test_resolving_says_how_much_would_be_fetched(plane: Plane) -> None:
    await register(plane, TINY)
    other = ScriptedAgent("b")
    other.knows(not_here())
    async with joined(plane, [able("a", at_hub()), other]):
        response = await plane.catalog.ResolveModel(pb.ResolveModelRequest(model=FamilyModel(family="tiny")))
    assert [(each.node, each.path, each.message, each.fetch_bytes) for each in response.nodes] == [
        ("nodes/a", "", NOT_HERE, 9_000_000),
        ("nodes/b", "", NOT_HERE, 0),
    ]


@pytest.mark.parametrize(
    ("fields", "field"),
    [({"fetch_bytes": -1}, "models[0].fetch_bytes"), ({"commit": "../.."}, "models[0].commit")],
)
def test_a_report_that_says_nonsense_of_the_hub_is_refused(fields: dict[str, Any], field: str) -> None:
    report = ScriptedAgent("a").message()
    report.models.append(facts(state=agent_pb.MODEL_STATE_AT_HUB, **{"commit": COMMIT, **fields}))
    with pytest.raises(InvalidArgument) as malformed:
        check_report(report)
    assert [each.field for each in malformed.value.fields] == [field]

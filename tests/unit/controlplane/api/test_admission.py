"""What is acknowledged is placed: admission and the reconciler decide alike on the same facts."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

import pytest
from hypothesis import example, given, settings

from controlplane import wire
from controlplane.api.admission import MAX_SPECS_BYTES
from roundhouse.internal.v1.store_pb2 import DeploymentRecord
from roundhouse.kit.errors import NoCapacity
from roundhouse.v1.deployment_pb2 import EngineOptions, ModelSource
from tests.support.frozen import CALLS, FLEETS, Call, Cluster
from tests.support.plane import wanted
from tests.support.records import deployment_record


@example([[(24, 0.0), (10, 0.3)]], [("zoo", 1, 20, None, True), ("ant", 1, 5, None, True)])
@example(
    [[(8, 0.0)], [(8, 0.0), (3, 0.9)]],
    [("ant", 2, 5, None, False), ("zoo", 2, 1, None, True), ("ant", 1, 5, None, False)],
)
@settings(max_examples=300, deadline=None)
@given(FLEETS, CALLS)
def test_whatever_is_acknowledged_is_placed(gpus: Sequence[Sequence[tuple[int, float]]], calls: Sequence[Call]) -> None:
    async def play() -> None:
        cluster = Cluster(gpus)
        await cluster.play(calls)
        _, found = await cluster.planned()
        assert [each.reason for each in found.unplaced] == []

    asyncio.run(play())


async def test_what_was_acknowledged_first_keeps_its_place_whatever_the_names() -> None:
    cluster = Cluster([[(24, 0.0), (10, 0.3)]])
    assert await cluster.ask("zoo", 1, 20, None, shares=True)
    assert await cluster.ask("ant", 1, 5, None, shares=True)
    _, found = await cluster.planned()
    assert {each.deployment: each.gpus for each in found.placements} == {"zoo": ("SIM-a-0",), "ant": ("SIM-a-1",)}


async def test_growth_that_would_cost_another_its_place_before_it_is_placed_is_refused() -> None:
    cluster = Cluster([[(24, 0.0), (10, 0.3)]])
    assert await cluster.ask("zoo", 1, 4, None, shares=True)
    assert await cluster.ask("ant", 1, 20, None, shares=True)
    # zoo was made first, so a second one of it is placed before ant, on the idle GPU.
    with pytest.raises(NoCapacity, match='"ant-0" waits to be placed, and would have no place'):
        await cluster.require("zoo", 2)
    await cluster.reconcile()
    await cluster.require("zoo", 2)


async def test_placed_replicas_stand_in_the_way_of_no_change() -> None:
    cluster = Cluster([[(24, 0.0), (10, 0.3)]])
    assert await cluster.ask("zoo", 1, 20, None, shares=True)
    assert await cluster.ask("ant", 1, 5, None, shares=True)
    await cluster.reconcile()
    assert await cluster.ask("zoo", 0, 20, None, shares=True)
    assert await cluster.ask("ant", 0, 5, None, shares=True)


async def test_specs_are_refused_by_what_all_of_them_take() -> None:
    cluster = Cluster([[(24, 0.0)]])
    large = deployment_record("large")
    large.deployment.model.CopyFrom(ModelSource(path="/" + "p" * (MAX_SPECS_BYTES - 300)))
    cluster.store.put(wire.deployment_key("large"), large.SerializeToString())
    admission = await cluster.admission()
    admission.require_specs(DeploymentRecord(deployment=wanted("a")))
    options = EngineOptions(dtype="d" * 300)
    with pytest.raises(NoCapacity, match="704 KiB"):
        admission.require_specs(DeploymentRecord(deployment=wanted("a", engine_options=options)))

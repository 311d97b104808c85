"""Answers to mutations are remembered for ten minutes and no longer."""

from __future__ import annotations

from pathlib import Path

import pytest

from controlplane import wire
from controlplane.api.mutations import REMEMBER_S, Mutations, Write
from controlplane.fleet.intent import Intent
from controlplane.store.protocol import Compare
from controlplane.store.sqlite import SqliteStore, open_sqlite
from roundhouse.kit.errors import AlreadyExists, Conflict
from roundhouse.v1.deployment_service_pb2 import ScaleDeploymentRequest, ScaleDeploymentResponse
from tests.support.clock import FakeClock

REQUEST = ScaleDeploymentRequest(name="deployments/chat", replica_count=1, request_id="r")
ANSWER = ScaleDeploymentResponse()
parse = ScaleDeploymentResponse.FromString


async def run(store: SqliteStore, mutations: Mutations, request: ScaleDeploymentRequest = REQUEST) -> int:
    """Runs a mutation; returns how often it was decided upon."""
    count = 0

    async def decide() -> Write[ScaleDeploymentResponse]:
        nonlocal count
        count += 1
        return Write(ANSWER)

    await mutations.run(request, "Scale", parse, decide)
    return count


async def test_an_answer_is_remembered_for_ten_minutes_then_forgotten(tmp_path: Path) -> None:
    clock = FakeClock()
    async with open_sqlite(tmp_path / "store") as store:
        mutations = Mutations(store, Intent(store), clock, lambda: None)
        assert await run(store, mutations) == 1
        clock.advance(REMEMBER_S)
        assert await run(store, mutations) == 0
        await mutations.prune()
        assert await store.get(wire.mutation_key("r")) is not None
        clock.advance(1)
        assert await run(store, mutations) == 1  # it is made anew, in place of the old one
        clock.advance(REMEMBER_S + 1)
        await mutations.prune()
        assert await store.get(wire.mutation_key("r")) is None


async def test_a_clock_that_was_set_back_keeps_nothing_for_ever(tmp_path: Path) -> None:
    clock = FakeClock()
    async with open_sqlite(tmp_path / "store") as store:
        mutations = Mutations(store, Intent(store), clock, lambda: None)
        await run(store, mutations)
        clock.advance(-10 * REMEMBER_S)
        await mutations.prune()
        assert await store.get(wire.mutation_key("r")) is None


async def test_the_same_id_for_another_method_or_body_is_refused(tmp_path: Path) -> None:
    async with open_sqlite(tmp_path / "store") as store:
        mutations = Mutations(store, Intent(store), FakeClock(), lambda: None)
        await run(store, mutations)
        with pytest.raises(AlreadyExists):
            await mutations.replay(REQUEST, "Delete", parse)
        other = ScaleDeploymentRequest(name="deployments/chat", replica_count=2, request_id="r")
        with pytest.raises(AlreadyExists):
            await mutations.replay(other, "Scale", parse)


async def test_a_mutation_that_was_overtaken_is_decided_again_and_then_gives_up(tmp_path: Path) -> None:
    async with open_sqlite(tmp_path / "store") as store:
        await store.commit([], {"x": b"1"})
        intent = Intent(store)
        mutations = Mutations(store, intent, FakeClock(), lambda: None)
        revisions = [0, 1]

        async def decide() -> Write[ScaleDeploymentResponse]:
            return Write(ANSWER, [Compare("x", revisions.pop(0) if revisions else 0)], {"deployments/y": b""})

        async with intent.kept():
            request = ScaleDeploymentRequest(name="deployments/chat", replica_count=1)
            await mutations.run(request, "Scale", parse, decide)
            assert revisions == []
            assert (await store.get("deployments/y")) is not None
            with pytest.raises(Conflict):
                await mutations.run(request, "Scale", parse, decide)


async def test_a_repeated_call_that_its_own_first_write_refutes_gets_the_first_answer(tmp_path: Path) -> None:
    async with open_sqlite(tmp_path / "store") as store:

        async def decide() -> Write[ScaleDeploymentResponse]:
            await run(store, Mutations(store, Intent(store), FakeClock(), lambda: None))  # given up, it is written now
            raise Conflict("the etag has changed")

        mutations = Mutations(store, Intent(store), FakeClock(), lambda: None)
        assert await mutations.run(REQUEST, "Scale", parse, decide) == ANSWER
        nameless = ScaleDeploymentRequest(name="deployments/chat", replica_count=1)
        with pytest.raises(Conflict):
            await mutations.run(nameless, "Scale", parse, decide)

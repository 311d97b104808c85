"""Gateways in processes of their own: with the control plane killed, requests go on through them as if nothing was."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import time
import uuid
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from roundhouse.client import Client, deployment
from roundhouse.client.generation import Generation
from roundhouse.kit.errors import Unreachable
from roundhouse.kit.latest import Latest
from roundhouse.v1 import deployment_pb2, generation_pb2, receipt_pb2
from tests.support.cluster import Cluster, cluster, engine_pids

pytestmark = [pytest.mark.slow, pytest.mark.timeout(700)]

AWAY_S = 60.0
BUSY = 3  # streams at any time
LONG = 1500  # tokens of a stream; seconds
PATIENCE_S = 180.0  # two cores, and engines that import torch beside those that compute
READY = deployment_pb2.REPLICA_STATE_READY
Replicas = dict[str, deployment_pb2.Replica]


@contextlib.asynccontextmanager
async def through_a_gateway(folder: Path, *, replica_count: int) -> AsyncIterator[tuple[Cluster, Client, Client]]:
    """Runs a cluster that serves the demo model, and a gateway; gives a client of each, that of the gateway last."""
    async with cluster(folder) as (it, direct):
        address = await it.start_gateway()
        async with Client(address) as client:
            await client.deployments.create(deployment("demo", builtin="demo", replica_count=replica_count))
            await client.deployments.wait_ready("demo", timeout_s=PATIENCE_S)
            yield it, direct, client


async def until_ready(client: Client, count: int, *, but: frozenset[int] = frozenset()) -> Replicas:
    """Watches until so many replicas are READY, none in a process of `but` and no other is there; returns them."""
    async with asyncio.timeout(PATIENCE_S):
        while True:
            seen: Replicas = {}
            with contextlib.suppress(Unreachable):  # the control plane was killed and is on its way back
                async with client.replicas.watch("demo") as events:
                    async for event in events:
                        if event.WhichOneof("event") == "changed":
                            seen[event.changed.name] = event.changed
                        seen.pop(event.deleted, None)
                        if [each.state for each in seen.values()] == [READY] * count and not but & set(pids(seen)):
                            return seen


def pids(replicas: Replicas) -> list[int]:
    return [each.engine_pid for _, each in sorted(replicas.items())]


class Users:
    """Those who stream all the time. Every token of every stream must come, in order; what is not so is `wrong`."""

    def __init__(self, client: Client) -> None:
        self._client = client
        self.wrong: list[str] = []
        self._finished = Latest(0)

    @property
    def finished(self) -> int:
        """How many streams came to their end."""
        return self._finished.get()

    async def until_finished(self, count: int) -> None:
        """Waits until so many have."""
        async with asyncio.timeout(PATIENCE_S):
            async for finished in self._finished.watch():
                if finished >= count:
                    return

    async def stream(self) -> None:
        """Sends one request after the other until cancelled."""
        while True:
            tokens, generation = 0, self._client.generate("demo", "Once upon", max_tokens=LONG, ignore_eos=True)
            try:
                async with generation:
                    async for delta in generation:
                        if delta.first_position != tokens:
                            self.wrong.append(f"position {delta.first_position} came behind {tokens} tokens")
                        tokens += len(delta.token_ids)
            except Exception as error:  # noqa: BLE001 - whatever ends a stream is what this looks for
                self.wrong.append(f"{type(error).__name__} after {tokens} tokens: {error}")
                await asyncio.sleep(0.5)
                continue
            if tokens != LONG:
                self.wrong.append(f"a stream ended after {tokens} tokens")
            self._finished.set(self.finished + 1)


@contextlib.asynccontextmanager
async def begun(client: Client, request_id: str) -> AsyncIterator[tuple[Generation, AsyncIterator[Any]]]:
    """Gives a request that runs for long, and what is still to come of it, behind its first token."""
    generation = client.generate("demo", "Once upon", max_tokens=LONG, ignore_eos=True, request_id=request_id)
    async with generation:
        deltas = aiter(generation)
        await anext(deltas)
        yield generation, deltas


async def read_all(deltas: AsyncIterator[Any]) -> None:
    async for _ in deltas:
        pass


async def test_streams_and_cancels_go_on_through_a_gateway_while_the_control_plane_is_dead(tmp_path: Path) -> None:
    async with through_a_gateway(tmp_path, replica_count=2) as (it, direct, client):
        before = await until_ready(client, 2)
        users = Users(client)
        async with asyncio.TaskGroup() as group:
            streaming = [group.create_task(users.stream()) for _ in range(BUSY)]
            try:
                it.kill("controlplane")
                dead_s = time.monotonic()
                with pytest.raises(Unreachable, match="start it again"):
                    await client.deployments.get("demo")
                finished_before = users.finished
                while time.monotonic() < dead_s + AWAY_S:
                    await cancel_in_mid_stream(client)
                    await asyncio.sleep(1.0)
                assert users.finished > finished_before
                assert sorted(engine_pids(tmp_path)) == sorted(pids(before))

                await it.start_control_plane()
                after = await until_ready(direct, 2)
                assert pids(after) == pids(before)
                assert [each.restart_count for each in after.values()] == [0, 0]
                finished_before = users.finished
                await users.until_finished(finished_before + BUSY + 1)
            finally:
                for each in streaming:
                    each.cancel()
        assert users.wrong == []

        # What is asked of the new life is known at the gateway: a third replica gets its share.
        await scaled(client, 3)
        await until_ready(client, 3)
        served: set[str] = set()
        async with asyncio.timeout(PATIENCE_S):
            while len(served) < 3:
                generation = client.generate("demo", "Once upon", max_tokens=1, ignore_eos=True)
                await generation.text()
                assert generation.started is not None
                served.add(generation.started.replica)


async def scaled(client: Client, count: int) -> None:
    """Scales through the gateway, which finds the control plane again within seconds of its start."""
    async with asyncio.timeout(30):
        while True:
            try:
                await client.deployments.scale("demo", count)
            except Unreachable:
                await asyncio.sleep(0.2)
            else:
                return


async def cancel_in_mid_stream(client: Client) -> None:
    """Begins a request and cancels it by its id; checks the receipt and the end of the stream."""
    request_id = uuid.uuid4().hex
    async with begun(client, request_id) as (generation, deltas):
        receipt = await client.cancel("demo", request_id)
        await read_all(deltas)
    assert receipt.outcome == receipt_pb2.CANCEL_OUTCOME_CANCELLED
    assert receipt.level == receipt_pb2.CANCEL_LEVEL_FREED
    assert receipt.freed_block_count > 0
    assert generation.finished is not None
    assert generation.finished.reason == generation_pb2.FINISH_REASON_CANCELLED
    assert await client.cancel("demo", request_id) == receipt


async def test_an_engine_that_dies_while_the_control_plane_is_dead_costs_its_own_streams_alone(tmp_path: Path) -> None:
    async with through_a_gateway(tmp_path, replica_count=3) as (it, direct, client):
        before = await until_ready(client, 3)
        it.kill("controlplane")
        victim = before["deployments/demo/replicas/0"].engine_pid
        os.kill(victim, signal.SIGKILL)
        texts = [await client.generate("demo", "Once upon", max_tokens=8, ignore_eos=True).text() for _ in range(12)]
        assert all(texts)
        receipt = await client.cancel("demo", "never-came")
        assert receipt.outcome == receipt_pb2.CANCEL_OUTCOME_UNPROVEN
        assert "controlplane" in receipt.unreachable

        await it.start_control_plane()
        after = await until_ready(direct, 3, but=frozenset({victim}))
        assert pids(after)[1:] == pids(before)[1:]


async def test_a_request_is_cancelled_through_any_gateway_also_if_its_own_is_dead(tmp_path: Path) -> None:
    async with through_a_gateway(tmp_path, replica_count=2) as (it, direct, client):
        address = await it.start_gateway("gateway-2")
        async with Client(address) as other:
            for owner, canceller in ((client, other), (other, direct), (direct, client)):
                async with begun(owner, uuid.uuid4().hex) as (generation, deltas):
                    receipt = await canceller.cancel("demo", generation.request_id)
                    await read_all(deltas)
                assert receipt.outcome == receipt_pb2.CANCEL_OUTCOME_CANCELLED
            async with begun(other, "orphan") as (_, deltas):
                it.kill("gateway-2")
                receipt = await client.cancel("demo", "orphan")
                assert receipt.outcome == receipt_pb2.CANCEL_OUTCOME_CANCELLED
                with pytest.raises(Unreachable):
                    await read_all(deltas)

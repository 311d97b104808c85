"""What dies comes back, and takes nobody along: kill -9 of each process in turn, while streams run."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
from collections import Counter
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from roundhouse.client import Client, deployment
from roundhouse.client.generation import Generation
from roundhouse.kit.errors import RoundhouseError
from roundhouse.v1 import deployment_pb2, generation_pb2
from tests.support.cluster import cluster, engine_pids, eventually

pytestmark = pytest.mark.timeout(300)

LONG = 1800


def endless(client: Client) -> Generation:
    """Returns a request that runs for seconds."""
    return client.generate("demo", "Once upon a time", max_tokens=LONG, ignore_eos=True, detach_s=60)


async def replicas_of(client: Client) -> list[deployment_pb2.Replica]:
    return list((await client.replicas.list("demo")).replicas)


async def until_ready(client: Client, *, but: frozenset[int] = frozenset()) -> list[deployment_pb2.Replica]:
    """Watches until all three replicas are READY and run in none of the processes `but`; returns them."""
    async with asyncio.timeout(120):
        while True:
            with contextlib.suppress(RoundhouseError):  # the watch of a control plane that was killed
                async with client.replicas.watch("demo") as events:
                    replicas: dict[str, deployment_pb2.Replica] = {}
                    async for event in events:
                        replicas[event.changed.name] = event.changed
                        replicas.pop("", None)  # deletions and bookmarks change nothing here
                        states = [each.state == deployment_pb2.REPLICA_STATE_READY for each in replicas.values()]
                        if states == [True] * 3 and not but & {each.engine_pid for each in replicas.values()}:
                            return sorted(replicas.values(), key=lambda each: each.name)


def placement(replicas: list[deployment_pb2.Replica]) -> Counter[str]:
    return Counter(gpu.uuid for each in replicas for gpu in each.gpus)


def pids(replicas: list[deployment_pb2.Replica]) -> dict[str, int]:
    return {each.name: each.engine_pid for each in replicas}


async def test_kill_9_of_each_process_in_turn_loses_no_deployment_and_no_stream(tmp_path: Path) -> None:
    async with cluster(tmp_path) as (it, client):
        await client.deployments.create(deployment("demo", builtin="demo", replica_count=3, gpu_count=2))
        before = await until_ready(client)

        # The control plane. The gateway lives in it; engines do not notice, and streams go on when it is back.
        stream = endless(client)
        first = stream.__aiter__()
        await anext(first)
        it.kill("controlplane")
        assert sorted(engine_pids(tmp_path)) == sorted(pids(before).values())
        await it.start_control_plane()
        assert await drain(first) == (LONG, None)
        assert not stream.resumes
        after = await until_ready(client)
        assert pids(after) == pids(before)
        assert placement(after) == placement(before)

        # The agent. Streams go on to their end, and the next agent takes the engines over.
        async with endless(client) as kept:
            deltas = kept.__aiter__()
            await anext(deltas)
            it.kill("nodeagent")
            it.start_agent()
            tokens = 0
            async for delta in deltas:
                tokens = delta.first_position + len(delta.token_ids)
            assert tokens == LONG
        after = await until_ready(client)
        assert pids(after) == pids(before)
        assert placement(after) == placement(before)

        # One engine. Its streams go on at another one; those of the others do not notice.
        streams = [endless(client) for _ in range(6)]
        readers = [each.__aiter__() for each in streams]
        for each in readers:
            await anext(each)
        by_name = pids(after)
        victim = next(each.started.replica for each in streams if each.started is not None)
        os.kill(by_name[victim], signal.SIGKILL)
        results = await asyncio.gather(*(drain(each) for each in readers))
        for stream_of_six, (tokens, error) in zip(streams, results, strict=True):
            assert stream_of_six.started is not None
            assert (tokens, error) == (LONG, None)
            assert bool(stream_of_six.resumes) == (stream_of_six.started.replica == victim)
        assert {each.started.replica == victim for each in streams if each.started is not None} == {True, False}
        after = await until_ready(client, but=frozenset({by_name[victim]}))
        assert placement(after) == placement(before)
        assert {name for name, pid in pids(after).items() if pid != by_name[name]} == {victim}
        restarted = next(each for each in after if each.name == victim)
        assert restarted.restart_count == 1
        assert restarted.last_exit.signal in (0, signal.SIGKILL)  # an adopted process's end may not be learnable

        # And in the end nothing is left of a deployment that is deleted.
        await client.deployments.delete("demo", drain_grace_s=0)
        await eventually(lambda: not engine_pids(tmp_path), "the engines are gone")


async def drain(reader: AsyncIterator[generation_pb2.Delta]) -> tuple[int, RoundhouseError | None]:
    """Reads to the end; returns the tokens and what ended it."""
    tokens = 0
    try:
        async for delta in reader:
            tokens = delta.first_position + len(delta.token_ids)
    except RoundhouseError as error:
        return tokens, error
    return tokens, None


async def test_a_replica_that_dies_is_shown_as_such_to_those_who_watch(tmp_path: Path) -> None:
    async with cluster(tmp_path) as (_, client):
        await client.deployments.create(deployment("demo", builtin="demo", replica_count=1))
        await client.deployments.wait_ready("demo", timeout_s=120)
        [replica] = await replicas_of(client)
        async with client.replicas.watch("demo") as events, asyncio.timeout(60):
            reader = events.__aiter__()
            async for event in reader:
                if event.WhichOneof("event") == "bookmark":
                    break
            os.kill(replica.engine_pid, signal.SIGKILL)
            async for event in reader:
                if event.changed.state != deployment_pb2.REPLICA_STATE_READY and event.WhichOneof("event") == "changed":
                    assert event.changed.restart_count == 1 or event.changed.last_exit.signal == signal.SIGKILL
                    break

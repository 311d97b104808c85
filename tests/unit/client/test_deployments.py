"""What is asked about deployments, replicas and nodes."""

import asyncio

import pytest

from roundhouse.client import Client, EngineFailed, NotConnected, Progress, deployment
from roundhouse.kit.errors import AlreadyExists, DeadlineExceeded, InvalidArgument, NoCapacity, NotFound, Unreachable
from roundhouse.v1 import deployment_pb2, errors_pb2
from tests.support.scripted_cluster import scripted_cluster
from tests.support.scripted_nodes import GIB
from tests.unit.client.conftest import World


async def test_a_list_turns_every_page_and_keeps_what_the_first_one_says(world: World) -> None:
    await world.client.deployments.create(deployment("chat", builtin="demo"))
    listing = await world.client.deployments.list()
    assert [each.name for each in listing.deployments] == ["deployments/chat", "deployments/demo"]
    assert (list(listing.unreachable), listing.cursor, listing.next_page_token) == (["nodes/two"], "here", "")


async def test_ids_and_names_mean_the_same(world: World) -> None:
    by_id, by_name = await world.client.deployments.get("demo"), await world.client.deployments.get("deployments/demo")
    assert by_id == by_name
    assert (await world.client.nodes.get("one")) == (await world.client.nodes.list()).nodes[0]
    assert len((await world.client.replicas.list("demo")).replicas) == 3


async def test_waiting_for_ready_shows_every_replica_on_its_way(world: World) -> None:
    await world.client.deployments.create(deployment("chat", builtin="demo", replica_count=2))
    seen: list[Progress] = []
    ready = await world.client.deployments.wait_ready("chat", 30, seen.append)
    assert ready.deployment.ready_replica_count == 2
    assert [each.name[-1] for each in ready.replicas] == ["0", "1"]
    assert {replica.state for progress in seen for replica in progress.replicas} >= {
        deployment_pb2.REPLICA_STATE_STARTING,
        deployment_pb2.REPLICA_STATE_READY,
    }


async def test_waiting_after_scaling_down_lasts_until_the_surplus_is_gone(world: World) -> None:
    await world.client.deployments.scale("demo", 1)
    ready = await world.client.deployments.wait_ready("demo", 30)
    assert [each.name for each in ready.replicas] == ["deployments/demo/replicas/0"]


async def test_waiting_ends_when_an_engine_dies_again_and_again(world: World) -> None:
    await world.client.deployments.create(deployment("bad", builtin="demo", labels={"script": "crash"}))
    with pytest.raises(EngineFailed, match=r'"bad-0" .* exit code 3: model.safetensors is cut off') as caught:
        await world.client.deployments.wait_ready("bad", 30)
    assert caught.value.replica.restart_count == 2


async def test_waiting_that_takes_too_long_says_what_is_missing(world: World) -> None:
    await world.client.deployments.create(
        deployment("slow", builtin="demo", replica_count=2, labels={"script": "stuck"})
    )
    with pytest.raises(DeadlineExceeded, match=r'0 of 2 .* "slow-0" is STARTING \(loading weights\)'):
        await world.client.deployments.wait_ready("slow", 0.3)


async def test_waiting_ends_when_the_deployment_is_deleted_meanwhile(world: World) -> None:
    await world.client.deployments.create(deployment("brief", builtin="demo", labels={"script": "vanish"}))
    with pytest.raises(NotFound, match="brief"):
        await world.client.deployments.wait_ready("brief", 30)


async def test_waiting_until_it_is_gone_lasts_as_long_as_the_deletion(world: World) -> None:
    seen: list[Progress] = []
    await world.client.deployments.delete("demo", drain_grace_s=1)
    await world.client.deployments.wait_gone("demo", 30, seen.append)
    assert seen
    assert world.cluster.deployments == {}
    await world.client.deployments.wait_gone("demo", 30)


async def test_waiting_survives_a_restart_of_the_control_plane() -> None:
    async with scripted_cluster() as (serving, _, _), Client(serving.address) as client:
        await client.deployments.create(deployment("slow", builtin="demo", labels={"script": "stuck"}))
        was_seen = asyncio.Event()
        waiting_client = await Client(serving.address).__aenter__()
        waiting = asyncio.create_task(waiting_client.deployments.wait_ready("slow", 60, lambda _: was_seen.set()))
        await was_seen.wait()
    async with scripted_cluster(serving.port) as (_, cluster, _):
        cluster.add(deployment("slow", builtin="demo"))
        ready = await waiting
    assert ready.deployment.name == "deployments/slow"
    await waiting_client.__aexit__(None, None, None)


async def test_a_first_connection_that_fails_is_not_waited_for() -> None:
    async with Client("127.0.0.1:1") as client:
        with pytest.raises(NotConnected):
            await client.deployments.wait_ready("slow", 60)


async def test_refusals_keep_their_details(world: World) -> None:
    with pytest.raises(AlreadyExists):
        await world.client.deployments.create(deployment("demo", builtin="demo"))
    with pytest.raises(NoCapacity) as lack:
        await world.client.deployments.create(deployment("big", builtin="demo", memory_bytes=30 * GIB))
    assert [each.subject for each in lack.value.quota] == ["nodes/one/gpus/0", "nodes/one/gpus/1"]
    with pytest.raises(NotFound) as missing:
        await world.client.deployments.create(deployment("lost", path="/missing"))
    assert missing.value.own_reason == errors_pb2.ERROR_REASON_MODEL_NOT_FOUND
    with pytest.raises(InvalidArgument) as bad:
        await world.client.deployments.create(deployment("less", builtin="demo", replica_count=-1))
    assert [each.field for each in bad.value.fields] == ["deployment.replica_count"]


async def test_a_specification_carries_what_is_set_and_nothing_else() -> None:
    wanted = deployment("chat", path="/m", gpu_count=2, batch_interval_s=0.5, env={"A": "1"}, labels={"team": "x"})
    assert wanted.name == "deployments/chat"
    assert wanted.model.path == "/m"
    assert wanted.placement.gpu_count == 2
    assert not wanted.placement.HasField("memory_bytes")
    assert not wanted.HasField("replica_count")
    assert wanted.engine_options.batch_interval.ToMilliseconds() == 500
    assert [(each.name, each.value) for each in wanted.env] == [("A", "1")]
    with pytest.raises(InvalidArgument, match="two models"):
        deployment("chat", path="/m", builtin="demo")


async def test_an_address_where_nobody_listens_is_named_with_the_cause(world: World) -> None:
    async with Client("127.0.0.1:1") as client:
        with pytest.raises(NotConnected, match=r"127\.0\.0\.1:1 does not answer \(.*refused.*\)"):
            await client.nodes.list()
    async with Client("127.0.0.1:1") as client:
        with pytest.raises(Unreachable):
            await client.chat("demo", "x").text()


async def test_watches_show_all_then_a_bookmark_then_changes(world: World) -> None:
    kinds: list[str | None] = []
    async with world.client.replicas.watch("demo") as watch:
        async for event in watch:
            kinds.append(event.WhichOneof("event"))
            if kinds[-1] == "bookmark":
                await world.client.deployments.scale("demo", 1)
            if kinds[-1] == "deleted":
                break
    assert kinds[:4] == ["changed", "changed", "changed", "bookmark"]

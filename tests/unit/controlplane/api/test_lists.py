"""Lists: pages, their tokens, and what is said of nodes that do not report."""

from __future__ import annotations

from pathlib import Path

import pytest

from roundhouse.kit.errors import InvalidArgument, TooLong
from roundhouse.v1 import deployment_service_pb2 as pb
from roundhouse.v1 import node_service_pb2
from tests.support.plane import Plane, plane_on, reason_of, refused
from tests.support.scripted_agent import ScriptedAgent


async def test_pages_of_deployments_are_whole_and_in_order(plane: Plane) -> None:
    names = ["a", "a-b", "a0", "b", "z"]
    for name in names:
        await plane.create(name, allow_pending=True)
    shown, token = [], ""
    while True:
        request = pb.ListDeploymentsRequest(page_size=2, page_token=token)
        answer = await plane.deployments.ListDeployments(request)
        shown += [each.name.removeprefix("deployments/") for each in answer.deployments]
        assert len(answer.deployments) <= 2
        token = answer.next_page_token
        if not token:
            break
    assert shown == names


async def test_a_watch_from_the_cursor_of_any_page_tells_what_was_deleted_between_them(plane: Plane) -> None:
    for name in "abc":
        await plane.create(name, allow_pending=True)
    first = await plane.deployments.ListDeployments(pb.ListDeploymentsRequest(page_size=1))
    await plane.deployments.DeleteDeployment(pb.DeleteDeploymentRequest(name="deployments/a"))
    await plane.until(lambda all_: "deployments/a" not in all_)
    request = pb.ListDeploymentsRequest(page_size=1, page_token=first.next_page_token)
    second = await plane.deployments.ListDeployments(request)
    assert second.cursor == first.cursor
    assert (await plane.deployments.ListDeployments(pb.ListDeploymentsRequest())).cursor != first.cursor
    call = plane.deployments.WatchDeployments(pb.WatchDeploymentsRequest(cursor=second.cursor))
    async with plane.watching(call) as events:
        assert (await anext(events)).deleted == "deployments/a"


async def test_pages_of_replicas_go_by_deployment_and_index(plane: Plane) -> None:
    await plane.create("a", replica_count=11, allow_pending=True)
    await plane.create("a-b", replica_count=2, allow_pending=True)
    shown, token = [], ""
    while True:
        request = pb.ListReplicasRequest(parent="deployments/-", page_size=4, page_token=token)
        answer = await plane.deployments.ListReplicas(request)
        shown += [each.name for each in answer.replicas]
        token = answer.next_page_token
        if not token:
            break
    expected = [f"deployments/a/replicas/{index}" for index in range(11)]
    assert shown == [*expected, "deployments/a-b/replicas/0", "deployments/a-b/replicas/1"]


async def test_a_page_size_below_zero_is_refused(plane: Plane) -> None:
    for call in (
        plane.deployments.ListDeployments(pb.ListDeploymentsRequest(page_size=-1)),
        plane.deployments.ListReplicas(pb.ListReplicasRequest(parent="deployments/-", page_size=-1)),
        plane.nodes.ListNodes(node_service_pb2.ListNodesRequest(page_size=-1)),
    ):
        error = await refused(call)
        assert isinstance(error, InvalidArgument)
        assert [each.field for each in error.fields] == ["page_size"]


@pytest.mark.parametrize("parent", ["", "chat", "deployments/", "deployments/A", "deployments/a/replicas/0"])
async def test_a_malformed_parent_is_refused(plane: Plane, parent: str) -> None:
    error = await refused(plane.deployments.ListReplicas(pb.ListReplicasRequest(parent=parent)))
    assert isinstance(error, InvalidArgument)
    assert [each.field for each in error.fields] == ["parent"]


async def test_a_token_of_another_list_is_refused(plane: Plane) -> None:
    await plane.create("a", replica_count=2, allow_pending=True)
    await plane.create("b", allow_pending=True)
    token = (await plane.deployments.ListDeployments(pb.ListDeploymentsRequest(page_size=1))).next_page_token
    for call in (
        plane.deployments.ListReplicas(pb.ListReplicasRequest(parent="deployments/a", page_token=token)),
        plane.deployments.ListDeployments(pb.ListDeploymentsRequest(page_token="nonsense")),
        plane.nodes.ListNodes(node_service_pb2.ListNodesRequest(page_token=token)),
    ):
        error = await refused(call)
        assert isinstance(error, TooLong)
        assert reason_of(error) == "RELIST"


async def test_nodes_that_do_not_report_are_named(tmp_path: Path) -> None:
    async with plane_on(tmp_path / "state") as plane, ScriptedAgent("one").joined(plane.address):
        await plane.create()
        await plane.until_replicas(lambda all_: any(each.node for each in all_.values()))
        assert not (await plane.deployments.ListDeployments(pb.ListDeploymentsRequest())).unreachable
    async with plane_on(tmp_path / "state") as plane:
        deployments = await plane.deployments.ListDeployments(pb.ListDeploymentsRequest())
        replicas = await plane.deployments.ListReplicas(pb.ListReplicasRequest(parent="deployments/chat"))
        nodes = await plane.nodes.ListNodes(node_service_pb2.ListNodesRequest())
        for answer in (deployments, replicas, nodes):
            assert list(answer.unreachable) == ["nodes/one"]
        [replica] = replicas.replicas
        assert "does not report" in replica.message

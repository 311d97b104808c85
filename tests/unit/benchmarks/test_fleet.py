"""What a simulated fleet reports is what agents report, and changes as theirs does."""

from __future__ import annotations

import os

from benchmarks.support.fleet_child import on_cores
from benchmarks.support.fleet_reports import SimulatedNode
from controlplane.api.reports import check_report, check_same
from roundhouse.internal.v1 import agent_service_pb2 as pb
from roundhouse.v1.deployment_pb2 import REPLICA_STATE_READY, REPLICA_STATE_STOPPED, ModelSource


def engine(uid: str = "r-1", state: pb.DesiredState = pb.DESIRED_STATE_RUNNING) -> pb.EngineAssignment:
    name = f"deployments/fleet/replicas/{uid[2:]}"
    return pb.EngineAssignment(replica=name, replica_uid=uid, desired_state=state, gpu_uuids=["GPU-1"])


def assignment(generation: int, *engines: pb.EngineAssignment) -> pb.JoinResponse:
    return pb.JoinResponse(order=pb.Order(cluster_id="c", term=1, generation=generation), engines=engines)


def reported(
    node: SimulatedNode, number: int = 0, *, time_s: float = 1e9, are_engines_busy: bool = False
) -> pb.JoinRequest:
    return pb.JoinRequest.FromString(node.report(time_s, number, are_engines_busy=are_engines_busy))


def test_the_control_plane_accepts_what_a_simulated_node_reports() -> None:
    node = SimulatedNode(7, gpu_count=8)
    first = reported(node)
    node.take(assignment(1, engine("r-1"), engine("r-2")))
    second = reported(node, 1)
    for each in (first, second):
        check_report(each)
    check_same(first, second)
    assert len({gpu.uuid for gpu in second.node.gpus}) == 8
    assert all(len(gpu.links) == 7 for gpu in second.node.gpus)


def test_two_nodes_share_neither_an_identity_nor_a_gpu() -> None:
    one, other = reported(SimulatedNode(1, gpu_count=2)), reported(SimulatedNode(2, gpu_count=2))
    for field in ("node_id", "node_uid", "agent_uid", "machine_id"):
        assert getattr(one, field) != getattr(other, field)
    assert {gpu.uuid for gpu in one.node.gpus}.isdisjoint(gpu.uuid for gpu in other.node.gpus)


def test_each_report_has_other_numbers_and_its_own_time() -> None:
    node = SimulatedNode(1, gpu_count=1)
    one, other = reported(node, 0, time_s=10.5), reported(node, 1, time_s=11.5)
    assert one.node.gpus[0].utilization_fraction != other.node.gpus[0].utilization_fraction
    assert [each.node.gpus[0].sample_time.seconds for each in (one, other)] == [10, 11]
    assert other.node.sample_time.nanos == 500_000_000


def test_a_node_runs_what_it_is_told_at_once() -> None:
    node = SimulatedNode(1, gpu_count=1)
    assert node.take(assignment(5, engine("r-1"), engine("r-2")))
    assert node.running_count == 2
    report = reported(node)
    assert [(each.replica_uid, each.state) for each in report.engines] == [
        ("r-1", REPLICA_STATE_READY),
        ("r-2", REPLICA_STATE_READY),
    ]
    assert report.applied_order.generation == 5


def test_only_an_assignment_that_says_something_new_is_worth_a_report() -> None:
    node = SimulatedNode(1, gpu_count=1)
    node.take(assignment(1, engine()))
    assert not node.take(assignment(1, engine()))
    assert node.take(assignment(2, engine()))


def test_an_engine_that_is_to_stop_is_gone_at_once_and_forgotten_with_the_next_assignment() -> None:
    node = SimulatedNode(1, gpu_count=1)
    node.take(assignment(1, engine()))
    node.take(assignment(2, engine(state=pb.DESIRED_STATE_STOPPED)))
    assert node.running_count == 0
    assert [each.state for each in reported(node).engines] == [REPLICA_STATE_STOPPED]
    node.take(assignment(3))
    assert not reported(node).engines


def test_a_question_about_a_model_is_answered_while_it_stands() -> None:
    node = SimulatedNode(1, gpu_count=1)
    asked = assignment(1)
    asked.model_probes.append(ModelSource(builtin="demo"))
    assert node.take(asked)
    assert [(each.source.builtin, each.state) for each in reported(node).models] == [("demo", pb.MODEL_STATE_OK)]
    node.take(assignment(1))
    assert not reported(node).models


def test_the_load_of_engines_changes_only_if_they_are_busy() -> None:
    node = SimulatedNode(1, gpu_count=1)
    node.take(assignment(1, engine()))
    idle = [reported(node, number).engines[0].load for number in (1, 2)]
    busy = [reported(node, number, are_engines_busy=True).engines[0].load for number in (3, 4)]
    assert idle[0] == idle[1]
    assert busy[0] != busy[1]


def test_a_program_has_all_its_cores_again_after_it_has_started_others_on_one() -> None:
    cores = os.sched_getaffinity(0)
    with on_cores({min(cores)}):
        assert os.sched_getaffinity(0) == {min(cores)}
    assert os.sched_getaffinity(0) == cores

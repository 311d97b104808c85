"""What a node is told to run."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from controlplane import wire
from controlplane.api.admission import MAX_SPECS_BYTES
from controlplane.model import GpuUuid, Placement, ReplicaUid
from controlplane.placement.fit import MAX_NODE_REPLICAS
from controlplane.reconcile.assign import assignment_of
from controlplane.store.protocol import MAX_VALUE_BYTES
from roundhouse.internal.v1.agent_service_pb2 import DESIRED_STATE_RUNNING, DESIRED_STATE_STOPPED, EngineAssignment
from roundhouse.internal.v1.store_pb2 import AssignmentRecord, DeploymentRecord
from tests.support.fleets import GIB, placement
from tests.support.records import deployment_record


def assign(
    placements: list[Placement], record: DeploymentRecord | None, before: Sequence[EngineAssignment] = ()
) -> list[EngineAssignment]:
    return assignment_of(placements, {} if record is None else {record.deployment.uid: record}, before)


def test_a_replica_that_is_placed_is_to_run_with_everything_it_needs() -> None:
    record = deployment_record(generation=7)
    (engine,) = assign([placement("chat-0", "a-1", epoch=3)], record)
    assert engine.replica == "deployments/chat/replicas/0"
    assert (engine.replica_uid, engine.placement_epoch, engine.deployment_generation) == ("chat-0/3", 3, 7)
    assert engine.desired_state == DESIRED_STATE_RUNNING
    assert engine.spec == record.engine_spec
    assert (list(engine.gpu_uuids), engine.reserved_memory_bytes) == (["a-1"], 5 * GIB)


def test_a_replica_that_is_stopping_is_to_stop_within_its_grace() -> None:
    (engine,) = assign([placement("chat-0", "a-0", is_stopping=True)], deployment_record())
    assert (engine.desired_state, engine.drain_grace.seconds) == (DESIRED_STATE_STOPPED, 30)


def test_a_replica_that_is_stopping_hands_over_what_it_runs_if_its_deployment_goes_on() -> None:
    running, stopping = placement("chat-0", "a-0"), placement("chat-0", "a-0", is_stopping=True)
    deleting = deployment_record()
    deleting.deployment.delete_time.GetCurrentTime()
    told = [
        assign([running], deployment_record()),
        assign([stopping], deployment_record()),
        assign([stopping], deleting),
        assign([stopping], None, assign([running], deployment_record())),
    ]
    assert [engine.hands_over for (engine,) in told] == [False, True, False, False]


def test_the_order_of_the_placements_makes_no_difference() -> None:
    placements = [placement(f"chat-{index}", "a-0", gib=1) for index in (10, 2, 1)]
    first, second = assign(placements, deployment_record()), assign(placements[::-1], deployment_record())
    assert first == second
    assert [each.replica.rpartition("/")[2] for each in first] == ["1", "2", "10"]


def test_a_replica_keeps_the_generation_it_was_started_with_while_its_spec_is_the_same() -> None:
    one, two = placement("chat-0", "a-0"), placement("chat-1", "a-0")
    before = assign([one], deployment_record(generation=1))
    after = assign([one, two], deployment_record(replica_count=2, generation=2), before)
    assert [each.deployment_generation for each in after] == [1, 2]
    assert after[0] == before[0]


def test_a_replica_takes_the_generation_that_changes_its_spec() -> None:
    one = placement("chat-0", "a-0")
    changed = deployment_record(generation=2)
    changed.engine_spec.options.batch_size = 8
    (engine,) = assign([one], changed, assign([one], deployment_record(generation=1)))
    assert (engine.deployment_generation, engine.spec.options.batch_size) == (2, 8)


def test_a_replica_whose_deployment_is_gone_stops_with_what_it_was_started_with() -> None:
    one = placement("chat-0", "a-0")
    before = assign([one], deployment_record(generation=4))
    (engine,) = assign([replace(one, is_stopping=True)], None, before)
    assert engine.desired_state == DESIRED_STATE_STOPPED
    assert (engine.spec, engine.deployment_generation) == (before[0].spec, 4)


def test_a_node_without_placements_runs_nothing() -> None:
    assert assign([], None, assign([placement("chat-0", "a-0")], deployment_record())) == []


def test_all_specs_and_as_many_replicas_as_a_node_is_told_of_are_one_value_of_the_store() -> None:
    longest = "n" * 63
    record = deployment_record("d" * 63, generation=2**31, uid="uid")
    here = [
        replace(
            placement(f"{'d' * 63}-{index}", f"n-{index}", uid="uid", gib=2**17, is_stopping=True),
            replica_uid=ReplicaUid(f"{index:036}"),
            epoch=2**31,
            gpus=tuple(GpuUuid(f"SIM-{longest}-{(index + part) % 1024:04}") for part in range(1008, 1024)),
            drain_grace_s=3599.999999,
        )
        for index in range(MAX_NODE_REPLICAS)
    ]
    stored = wire.assignment_record(assign(here, record))
    of_spec = AssignmentRecord(specs=stored.specs).ByteSize()
    assert len(stored.gpu_uuids) > 1000
    assert stored.ByteSize() - of_spec + MAX_SPECS_BYTES < MAX_VALUE_BYTES


def test_a_record_holds_every_gpu_once_and_gives_every_replica_its_own_back_in_order() -> None:
    here = [
        replace(placement(f"chat-{index}", "a-0", gib=1), gpus=tuple(map(GpuUuid, gpus)))
        for index, gpus in enumerate([("a-1", "a-0"), ("a-0", "a-1"), (), ("a-7",)])
    ]
    engines = assign(here, deployment_record())
    stored = wire.assignment_record(engines)
    assert list(stored.gpu_uuids) == ["a-1", "a-0", "a-7"]
    assert wire.assigned_engines(stored) == engines


def test_a_record_that_was_written_before_there_was_a_table_of_gpus_is_read_as_it_was_meant() -> None:
    engines = assign([placement("chat-0", "a-1")], deployment_record())
    stored = wire.assignment_record(engines)
    stored.engines[0].gpu_uuids[:] = stored.gpu_uuids
    stored.ClearField("gpu_uuids")
    stored.ClearField("gpu_indexes")
    assert wire.assigned_engines(stored) == engines


def test_a_record_holds_the_spec_of_many_replicas_once_and_gives_every_replica_its_own_back() -> None:
    here = [placement(f"chat-{index}", "a-0", gib=1) for index in range(50)]
    record = deployment_record()
    record.engine_spec.env.add(name="LONG", value="x" * 10_000)
    engines = assign(here, record)
    stored = wire.assignment_record(engines)
    assert stored.ByteSize() < 20_000
    assert wire.assigned_engines(stored) == engines

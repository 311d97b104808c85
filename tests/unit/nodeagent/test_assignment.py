"""Assignments, from the wire to the disk and back."""

from __future__ import annotations

from pathlib import Path

import pytest
import structlog

from nodeagent.assignment import AssignmentFile, from_wire
from nodeagent.model import Desired, Order
from roundhouse.internal.v1 import agent_service_pb2 as wire
from roundhouse.internal.v1 import engine_spec_pb2
from roundhouse.v1 import deployment_pb2


def message(*uids: str, cluster_id: str = "cluster") -> wire.JoinResponse:
    spec = engine_spec_pb2.EngineSpec(
        deployment="chat", engine="torch", env=[deployment_pb2.EnvVar(name="A", value="b")]
    )
    engines = [
        wire.EngineAssignment(
            replica="deployments/chat/replicas/0",
            replica_uid=uid,
            desired_state=wire.DESIRED_STATE_RUNNING,
            spec=spec,
            gpu_uuids=["g"],
            reserved_memory_bytes=5,
        )
        for uid in uids
    ]
    return wire.JoinResponse(order=wire.Order(cluster_id=cluster_id, term=2, generation=7), engines=engines)


def test_an_assignment_keeps_its_order_and_its_replicas() -> None:
    assignment = from_wire(message("a", "b"))
    assert assignment.order == Order("cluster", 2, 7)
    assert [each.replica_uid for each in assignment.replicas] == ["a", "b"]
    assert engine_spec_pb2.EngineSpec.FromString(assignment.replicas[0].spec).env[0].value == "b"


@pytest.mark.parametrize(
    ("state", "desired"),
    [
        (wire.DESIRED_STATE_STOPPED, Desired.STOPPED),
        (wire.DESIRED_STATE_RUNNING, Desired.RUNNING),
        (99, Desired.RUNNING),
    ],
    ids=["stopped", "running", "a state that this version does not know"],
)
def test_only_stopped_means_stopped(state: wire.DesiredState, desired: Desired) -> None:
    asked = message("a")
    asked.engines[0].desired_state = state
    assert from_wire(asked).replicas[0].desired is desired


def test_what_is_stopped_hands_over_if_the_control_plane_says_so() -> None:
    asked = message("a", "b")
    asked.engines[1].hands_over = True
    assert [each.hands_over for each in from_wire(asked).replicas] == [False, True]


BROKEN = {
    "no cluster": message("a", cluster_id=""),
    "a replica twice": message("a", "a"),
    "a uid that leaves its directory": message("../a"),
    "an empty uid": message(""),
    "a hidden uid": message(".a"),
}


@pytest.mark.parametrize("broken", BROKEN.values(), ids=BROKEN)
def test_a_malformed_assignment_is_refused_as_a_whole(broken: wire.JoinResponse) -> None:
    with pytest.raises(ValueError, match=r"cluster|twice|uid"):
        from_wire(broken)


def test_what_was_kept_comes_back_and_only_its_owner_can_read_it(tmp_path: Path) -> None:
    file = AssignmentFile(tmp_path / "assignment.json")
    assert file.load() is None
    file.save(message("a"))
    assert file.load() == from_wire(message("a"))
    assert (tmp_path / "assignment.json").stat().st_mode & 0o777 == 0o600


async def test_an_assignment_that_finds_no_room_is_kept_once_there_is_some(tmp_path: Path) -> None:
    directory = tmp_path / "state"
    file = AssignmentFile(directory / "assignment.json")
    with structlog.testing.capture_logs() as logs:
        await file.keep(message("a"))
        await file.keep(message("a", "b"))
    assert [each["event"] for each in logs] == ["the assignment cannot be kept for the next agent"]
    assert file.load() is None
    directory.mkdir()
    await file.keep()
    assert file.load() == from_wire(message("a", "b"))


def test_a_broken_file_is_told_from_none(tmp_path: Path) -> None:
    (tmp_path / "assignment.json").write_text("{")
    with pytest.raises(ValueError, match=r"assignment\.json"):
        AssignmentFile(tmp_path / "assignment.json").load()

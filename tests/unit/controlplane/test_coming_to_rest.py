"""Whatever happens to a fleet, planning again and again brings it to rest, and never gives out more than there is."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import count
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from controlplane.model import Engine, GpuUuid, Node, NodeId, Placement, ReplicaUid, Unplaced, Wanted
from controlplane.placement.strategies import STRATEGIES
from controlplane.plan import Action, Forget, plan
from controlplane.reconcile.refused import Refused
from tests.support.fleets import GIB, gpu, node, wanted

MOST_ROUNDS = 40
NAMES = ["chat", "code", "solo"]
TERM = 1


@dataclass
class SimulatedNode:
    """A node that obeys when it gets to it, and starts nothing on a GPU that it refuses."""

    facts: Node
    refuses: frozenset[GpuUuid | None]
    revision: int = 0  # of the assignment, as it stands in the store
    assigned: tuple[Placement, ...] = ()
    received: tuple[int, tuple[Placement, ...]] = (0, ())  # what reached the node; it may be old by the time it obeys
    applied: int = 0
    engines: dict[ReplicaUid, Engine] = field(default_factory=dict)
    refused: dict[ReplicaUid, str] = field(default_factory=dict)
    is_present: bool = True

    def do(self, event: str) -> None:
        """Does what one event says."""
        match event:
            case "receive":
                self.receive()
            case "take over":
                self.take_over()
            case "obey":
                self.receive()
                self.take_over()
            case "stop":
                self.stop_engines()
            case "come" | "go":
                self.is_present = event == "come"

    def receive(self) -> None:
        """Gets the newest assignment."""
        self.received = (self.revision, self.assigned)

    def take_over(self) -> None:
        """Starts what it was told to, and forgets what is stopped and mentioned no more."""
        self.applied, told = self.received
        mentioned = {each.replica_uid for each in told}
        self.engines = {uid: each for uid, each in self.engines.items() if uid in mentioned or not each.is_gone}
        self.refused = {}
        for each in told:
            if each.is_stopping or each.replica_uid in self.engines:
                continue
            if self.refuses & set(each.gpus or (None,)):
                self.refused[each.replica_uid] = "no"
            else:
                self.engines[each.replica_uid] = Engine(each.replica_uid, each.gpus, each.reserved_bytes, 0, False)

    def stop_engines(self) -> None:
        """Ends what it was told to end, and has taken over."""
        revision, told = self.received
        for each in told if revision == self.applied else ():
            if each.is_stopping and each.replica_uid in self.engines:
                self.engines[each.replica_uid] = replace(self.engines[each.replica_uid], is_gone=True)

    def report(self) -> Node:
        """Returns what the control plane learns."""
        engines = tuple(self.engines.values())
        return replace(
            self.facts,
            engines=engines,
            applied=(TERM, self.applied),
            refused=dict(self.refused),
            is_ready=self.is_present,
        )


class Cluster:
    """The control plane's side: what is wanted and placed, and one round after the other."""

    def __init__(self, nodes: Sequence[SimulatedNode]) -> None:
        self.nodes = {each.facts.id: each for each in nodes}
        self.wanted: dict[str, Wanted] = {}
        self.placements: tuple[Placement, ...] = ()
        self.unplaced: tuple[Unplaced, ...] = ()
        self._refused = Refused()
        self._uids, self._revisions, self._generations = count(1), count(1), count(1)

    def want(self, name: str, replica_count: int, gpu_count: int | None) -> None:
        """Creates a deployment, or scales it; one that is being deleted stays so."""
        before = self.wanted.get(name)
        if before is None:
            uid = f"{name}-{next(self._generations)}"
            allows_sharing = name != "solo"
            self.wanted[name] = wanted(
                name,
                replica_count,
                need_gib=3,
                gpu_count=gpu_count,
                allows_sharing=allows_sharing,
                uid=uid,
                create_revision=next(self._revisions),
            )
        elif not before.is_deleting:
            self.wanted[name] = replace(before, replica_count=replica_count)

    def delete(self, name: str) -> None:
        """Marks a deployment as to be deleted."""
        if name in self.wanted:
            self.wanted[name] = replace(self.wanted[name], is_deleting=True)

    def round(self) -> tuple[Action, ...]:
        """Plans once, carries it out, and checks that no device is given more than it has."""
        facts: Mapping[NodeId, Node] = {name: each.report() for name, each in self.nodes.items()}
        self._refused.note(self.placements, facts, now_s=0.0)
        planned = plan(
            list(self.wanted.values()),
            self.placements,
            facts,
            orders={name: (TERM, each.revision) for name, each in self.nodes.items()},
            refused=self._refused.spots,
            new_uid=lambda: ReplicaUid(f"uid-{next(self._uids)}"),
            strategies=STRATEGIES,
        )
        for action in planned.actions:
            if isinstance(action, Forget):
                assert self.wanted.pop(action.deployment).uid == action.uid
        self.placements = planned.placements
        for name, each in self.nodes.items():
            assigned = tuple(placement for placement in self.placements if placement.node == name)
            if assigned != each.assigned:
                each.assigned, each.revision = assigned, next(self._revisions)
        self.unplaced = planned.unplaced
        self._check()
        return planned.actions

    def _check(self) -> None:
        for simulated in self.nodes.values():
            facts = simulated.facts
            totals = {one.uuid: one.total_bytes for one in facts.gpus} if facts.gpus else {None: facts.host_total_bytes}
            held = Counter[GpuUuid | None]()
            for each in simulated.assigned:
                for device in each.gpus or (None,):
                    held[device] += each.reserved_bytes
            assert all(held[device] <= total for device, total in totals.items())

    def come_to_rest(self) -> None:
        """Lets everybody report and obey until nothing is left to do."""
        for _ in range(MOST_ROUNDS):
            for each in self.nodes.values():
                each.is_present = True
                each.receive()
                each.take_over()
                each.stop_engines()
            if not self.round() and all(each.applied == each.revision for each in self.nodes.values()):
                return
        raise AssertionError("the fleet does not come to rest")

    def running(self) -> Counter[str]:
        """Returns how many engines run, by deployment, and checks that each is one that is wanted."""
        live = {uid for each in self.nodes.values() for uid, engine in each.engines.items() if not engine.is_gone}
        standing = {each.replica_uid: each for each in self.placements if not each.is_stopping}
        assert live <= standing.keys()
        return Counter(standing[uid].deployment for uid in live)


@st.composite
def fleets(draw: st.DrawFn, can_refuse: bool) -> list[SimulatedNode]:
    fleet = []
    for name in "abc"[: draw(st.integers(1, 3))]:
        gpus = [gpu(name, index, total_gib=draw(st.integers(1, 16))) for index in range(draw(st.integers(0, 2)))]
        facts = node(name, gpus, host_gib=draw(st.integers(1, 32)))
        devices: list[GpuUuid | None] = [each.uuid for each in gpus] or [None]
        refuses = draw(st.frozensets(st.sampled_from(devices))) if can_refuse else frozenset()
        fleet.append(SimulatedNode(facts, refuses))
    return fleet


EVENTS = st.lists(
    st.one_of(
        st.tuples(st.just("want"), st.sampled_from(NAMES), st.integers(0, 3), st.none() | st.integers(1, 3)),
        st.tuples(st.just("delete"), st.sampled_from(NAMES)),
        st.tuples(st.sampled_from(["come", "go"]), st.sampled_from("abc")),
        st.tuples(st.sampled_from(["receive", "take over", "stop"]), st.sampled_from(["abc", "abc", "a"])),
        st.tuples(st.just("obey"), st.just("abc")),
        st.tuples(st.just("round")),
        st.tuples(st.just("round")),
    ),
    min_size=10,
    max_size=60,
)


def play(cluster: Cluster, events: Sequence[tuple[Any, ...]]) -> None:
    for event, *details in events:
        match event:
            case "want":
                cluster.want(*details)
            case "delete":
                cluster.delete(*details)
            case "round":
                cluster.round()
            case _:
                for simulated in cluster.nodes.values():
                    if simulated.facts.id in details[0]:
                        simulated.do(event)


@settings(max_examples=150, deadline=None)
@given(fleets(can_refuse=False), EVENTS)
def test_any_history_ends_with_just_what_is_wanted(
    fleet: list[SimulatedNode], events: Sequence[tuple[Any, ...]]
) -> None:
    cluster = Cluster(fleet)
    play(cluster, events)
    cluster.come_to_rest()
    running = cluster.running()
    waiting = Counter(each.deployment for each in cluster.unplaced)
    assert not any(each.is_deleting for each in cluster.wanted.values())
    assert not any(each.is_stopping for each in cluster.placements)
    expected = {name: each.replica_count for name, each in cluster.wanted.items() if each.replica_count}
    assert running + waiting == expected


@settings(max_examples=100, deadline=None)
@given(fleets(can_refuse=True), EVENTS)
def test_a_fleet_that_refuses_comes_to_rest_with_what_it_takes(
    fleet: list[SimulatedNode], events: Sequence[tuple[Any, ...]]
) -> None:
    cluster = Cluster(fleet)
    play(cluster, events)
    cluster.come_to_rest()
    running = cluster.running()
    told = {(each.deployment, each.index) for each in cluster.unplaced}
    for name, each in cluster.wanted.items():
        waiting = sum(deployment == name for deployment, _ in told)
        assert running[name] + waiting == each.replica_count


@settings(max_examples=50, deadline=None)
@given(st.integers(1, 6), st.none() | st.integers(1, 2), EVENTS)
def test_where_there_is_room_everything_that_is_wanted_runs(
    replica_count: int, gpu_count: int | None, events: Sequence[tuple[Any, ...]]
) -> None:
    ample = [gpu("a", index, total_gib=4000) for index in range(2)]
    cluster = Cluster([SimulatedNode(node("a", ample), frozenset())])
    play(cluster, [event for event in events if event[0] != "want" or event[1] == "chat"])
    cluster.delete("chat")
    cluster.come_to_rest()
    cluster.want("chat", replica_count, min(gpu_count, replica_count) if gpu_count else None)
    cluster.come_to_rest()
    assert cluster.running() == {"chat": replica_count}
    assert GIB * 3 * replica_count == sum(each.reserved_bytes for each in cluster.placements)

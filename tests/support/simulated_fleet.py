"""A fleet in memory that obeys when it gets to it, and one round of planning after the other."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import count
from typing import Any

from hypothesis import strategies as st

from controlplane.model import (
    Attendance,
    Drain,
    Engine,
    GpuUuid,
    Node,
    NodeId,
    NodeWish,
    Placement,
    ReplicaUid,
    Unplaced,
    Wanted,
)
from controlplane.placement.evictions import departures
from controlplane.placement.strategies import STRATEGIES
from controlplane.plan import Action, Forget, Place, plan
from controlplane.reconcile.refused import Refused
from tests.support.fleets import gpu, node, wanted

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
    lost_time_s: float = 0.0

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
            case "serve":
                self.serve()
            case "die":
                self.engines = {uid: replace(each, is_serving=False) for uid, each in self.engines.items()}
            case "come":
                self.is_present = True

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

    def serve(self) -> None:
        """Has all engines READY that are not to stop."""
        _, told = self.received
        ends = {each.replica_uid for each in told if each.is_stopping}
        for uid, each in self.engines.items():
            self.engines[uid] = replace(each, is_serving=not each.is_gone and uid not in ends)

    def stop_engines(self) -> None:
        """Ends what it was told to end, and has taken over."""
        revision, told = self.received
        for each in told if revision == self.applied else ():
            if each.is_stopping and each.replica_uid in self.engines:
                self.engines[each.replica_uid] = replace(self.engines[each.replica_uid], is_gone=True, is_serving=False)

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
        self.wishes: dict[NodeId, NodeWish] = {}
        self.held: Collection[NodeId] = ()  # nodes that vanished with too many others
        self.now_s = 0.0
        self._refused = Refused()
        self._uids, self._revisions, self._generations, self._specs = count(1), count(1), count(1), count(1)

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

    def update(self, name: str, max_surge: int = 1, max_unavailable: int = 0) -> None:
        """Wants its replicas to run something else."""
        if name in self.wanted and not self.wanted[name].is_deleting:
            self.wanted[name] = replace(
                self.wanted[name],
                spec_generation=next(self._specs),
                max_surge=max_surge,
                max_unavailable=max_unavailable,
            )

    def take_back(self, name: str) -> None:
        """Wants its replicas to run what they ran before the last update."""
        before = self.wanted.get(name)
        if before is not None and before.spec_generation and not before.is_deleting:
            self.wanted[name] = replace(before, spec_generation=before.spec_generation - 1)

    def outdated(self) -> set[tuple[str, int]]:
        """Returns the replicas of which something stands that does not run what is wanted."""
        return {
            (each.deployment, each.index)
            for each in self.placements
            if not each.is_stopping and each.spec_generation != self.wanted[each.deployment].spec_generation
        }

    def delete(self, name: str) -> None:
        """Marks a deployment as to be deleted."""
        if name in self.wanted:
            self.wanted[name] = replace(self.wanted[name], is_deleting=True)

    def wish(self, what: str, name: str) -> None:
        """Cordons a node, drains it (if need be by force), or takes that back."""
        node = NodeId(name)
        if what == "uncordon":
            self.wishes.pop(node, None)
        elif what == "cordon":
            self.wishes.setdefault(node, NodeWish())
        else:
            self.wishes[node] = NodeWish(Drain(5.0, allows_unserved=what == "force"))

    def lose(self, names: str) -> None:
        """Lets nodes fall silent together, long after all that was before."""
        self.now_s += 1000
        for each in self.nodes.values():
            if each.facts.id in names and each.is_present:
                each.is_present, each.lost_time_s = False, self.now_s

    def round(self) -> tuple[Action, ...]:
        """Plans once, carries it out, and checks that nothing is placed where it may not be."""
        self.now_s += 10
        reported = {name: each.report() for name, each in self.nodes.items()}
        silent_s = {name: self.now_s - each.lost_time_s for name, each in self.nodes.items() if not each.is_present}
        attendance = Attendance(7.0, silent_s, running_s=self.now_s, watched_s=self.now_s)
        now = departures(reported, attendance, self.wishes, {each.node for each in self.placements})
        facts: Mapping[NodeId, Node] = now.nodes
        self.held = now.held.keys()
        self._refused.note(self.placements, facts, now_s=0.0)
        planned = plan(
            list(self.wanted.values()),
            self.placements,
            facts,
            orders={name: (TERM, each.revision) for name, each in self.nodes.items()},
            refused=self._refused.spots,
            new_uid=lambda: ReplicaUid(f"uid-{next(self._uids)}"),
            strategies=STRATEGIES,
            leaving=now.leaving,
            forgotten=now.forgotten,
        )
        for action in planned.actions:
            if isinstance(action, Forget):
                assert self.wanted.pop(action.deployment).uid == action.uid
            if isinstance(action, Place):
                assert facts[action.placement.node].is_ready
                assert action.placement.node not in self.wishes
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

    def come_to_rest(self, absent: Collection[str] = ()) -> None:
        """Lets everybody but the absent report and obey until nothing is left to do."""
        here = [each for name, each in self.nodes.items() if name not in absent]
        for _ in range(MOST_ROUNDS):
            for each in here:
                each.is_present = True
                each.receive()
                each.take_over()
                each.stop_engines()
                each.serve()
            if not self.round() and all(each.applied == each.revision for each in here):
                return
        raise AssertionError("the fleet does not come to rest")

    def serving(self) -> Counter[tuple[str, int]]:
        """Returns how many engines of each replica the gateway could pick, if there were no others."""
        found = Counter[tuple[str, int]]()
        for each in self.placements:
            host = self.nodes[each.node]
            engine = host.engines.get(each.replica_uid)
            if host.is_present and engine is not None and engine.is_serving and not each.is_stopping:
                found[each.deployment, each.index] += 1
        return found

    def running(self) -> Counter[str]:
        """Returns how many engines run, by deployment, and checks that each is one that is wanted."""
        here = [each for each in self.nodes.values() if each.is_present]
        live = {uid for each in here for uid, engine in each.engines.items() if not engine.is_gone}
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
        st.tuples(st.just("update"), st.sampled_from(NAMES), st.integers(1, 2), st.integers(0, 2)),
        st.tuples(st.just("update"), st.sampled_from(NAMES), st.just(0), st.just(1)),
        st.tuples(st.just("take back"), st.sampled_from(NAMES)),
        st.tuples(st.sampled_from(["come", "go", "die"]), st.sampled_from(["a", "b", "c", "ab"])),
        st.tuples(st.sampled_from(["cordon", "drain", "force", "uncordon"]), st.sampled_from("abc")),
        st.tuples(st.sampled_from(["receive", "take over", "stop", "serve"]), st.sampled_from(["abc", "abc", "a"])),
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
            case "update":
                cluster.update(*details)
            case "take back":
                cluster.take_back(*details)
            case "round":
                cluster.round()
            case "go":
                cluster.lose(*details)
            case "cordon" | "drain" | "force" | "uncordon":
                cluster.wish(event, *details)
            case _:
                for simulated in cluster.nodes.values():
                    if simulated.facts.id in details[0]:
                        simulated.do(event)

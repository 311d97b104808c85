"""Shows nodes to clients: what was reported last, and what the ledger knows of their memory."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from operator import attrgetter

from google.protobuf.timestamp_pb2 import Timestamp

from controlplane import wire
from controlplane.api.node_conditions import Wishes, conditions, show_wishes
from controlplane.api.statuses import Nothing, Outcome
from controlplane.fleet.changes import Changes
from controlplane.fleet.intent import Intent
from controlplane.fleet.registry import Known, Registry
from controlplane.model import GpuUuid, NodeId, Placement
from controlplane.placement.fit import Device, devices_of
from roundhouse.kit.clock import Clock
from roundhouse.kit.encoded import holding
from roundhouse.kit.times import to_timestamp
from roundhouse.v1 import condition_pb2, node_pb2
from roundhouse.v1.condition_pb2 import Condition
from roundhouse.v1.node_pb2 import Node
from roundhouse.v1.node_service_pb2 import NodeEvent

_BY_INDEX: Callable[[node_pb2.Gpu], int] = attrgetter("index")
_BY_NAME: Callable[[Placement], tuple[str, int]] = attrgetter("deployment", "index")


@dataclass(frozen=True, slots=True)
class _Lasting:
    """What of a node seldom changes from report to report, encoded, and of what it was made."""

    basis: tuple[object, ...]
    part: bytes


@dataclass(frozen=True, slots=True)
class _View:
    """A node as it is shown, and what it was made of."""

    known: Known | None
    placements: Sequence[Placement]
    wishes: Wishes
    drained_time: Timestamp | None  # when the last replica had gone, if it is to be drained
    lasting: _Lasting | None  # None: it has not reported
    event: bytes  # a `NodeEvent` that tells it


class NodeViews:
    """Every node that has joined since the start, and those on which something is placed or that are cordoned.

    A view is made once for each report, or change of what is placed, however many look at it, and encoded at once: to
    copy messages takes several times as long.
    """

    def __init__(self, registry: Registry, intent: Intent, *, clock: Clock) -> None:
        self._registry, self._intent, self._clock = registry, intent, clock
        self._start_time_s = clock.now()
        self._outcome: Outcome = Nothing({}, {})
        self._views: dict[str, _View] = {}
        self.changes: Changes[str] = Changes()  # nodes of which the reconciler has found something else

    def ids(self) -> Sequence[str]:
        """Returns the ids of all nodes, in order."""
        return sorted({*self._registry.known, *self._intent.placed_nodes(), *self._intent.nodes.rows})

    async def run(self, outcomes: Callable[[], AsyncIterator[Outcome]]) -> None:
        """Takes over what the reconciler comes to, until cancelled."""
        async for outcome in outcomes():
            before, self._outcome = self._outcome, outcome
            changed = {node for node, _ in before.held.items() ^ outcome.held.items()}
            if before.unplaced != outcome.unplaced:
                changed |= {known.node.id for known in self._registry.known.values() if known.is_lost}
                changed |= {NodeId(node) for node in self._intent.nodes.rows}
            for node in sorted(changed):
                self.changes.tell(node)

    def get(self, node: str) -> Node | None:
        """Returns a node as it is now; None if it is not known at all."""
        view = self._look(node)
        return None if view is None else NodeEvent.FromString(view.event).changed

    def event(self, node: str) -> bytes | None:
        """Returns the same in an encoded `NodeEvent`."""
        view = self._look(node)
        return None if view is None else view.event

    def _look(self, node: str) -> _View | None:
        known, placements = self._registry.known.get(node), self._intent.placements_on(node)
        wishes, view = self._wishes(node, known, placements), self._views.get(node)
        if view is not None and view.known is known and (view.placements, view.wishes) == (placements, wishes):
            return view
        since = None if view is None else view.drained_time
        drained_time = (since or to_timestamp(self._clock.now())) if wishes.is_drained else None
        lasting = None
        if known is not None:
            lasting = self._lasting(known, placements, wishes, drained_time, None if view is None else view.lasting)
            shown = lasting.part + _fresh(known, placements)
        elif placements or wishes.record is not None:
            shown = _unknown(node, placements, self._start_time_s, wishes, drained_time).SerializeToString()
        else:
            self._views.pop(node, None)
            return None
        event = holding(NodeEvent.CHANGED_FIELD_NUMBER, [shown])
        view = self._views[node] = _View(known, placements, wishes, drained_time, lasting, event)
        return view

    def _wishes(self, node: str, known: Known | None, placements: Sequence[Placement]) -> Wishes:
        row = self._intent.nodes.rows.get(node)
        record = None if row is None else row.value
        if record is None and known is not None and not known.is_lost:
            return _NONE
        unplaced = self._outcome.unplaced
        found = (unplaced.get((each.deployment, each.index)) for each in placements if not each.is_stopping)
        return Wishes(
            record,
            self._outcome.held.get(NodeId(node)),
            tuple(f"{each.deployment}-{each.index}" for each in placements),
            tuple(f"{each.deployment}-{each.index} stays: {each.reason}" for each in found if each is not None),
        )

    def _lasting(
        self,
        known: Known,
        placements: Sequence[Placement],
        wishes: Wishes,
        drained_time: Timestamp | None,
        before: _Lasting | None,
    ) -> _Lasting:
        basis = _basis(known, placements, wishes, drained_time)
        if before is not None and before.basis == basis:
            return before
        node = _described(known, placements, self._assignable(known), wishes, drained_time)
        return _Lasting(basis, node.SerializeToString())

    def _assignable(self, known: Known) -> Condition:
        since = to_timestamp(known.state_time_s)
        if not known.is_foreign:
            return Condition(type="Assignable", status=condition_pb2.CONDITION_STATUS_TRUE, transition_time=since)
        return Condition(
            type="Assignable",
            status=condition_pb2.CONDITION_STATUS_FALSE,
            reason="OtherCluster" if known.other_cluster else "LaterTerm",
            message=f"it {self._registry.why_foreign(known)}",
            transition_time=since,
        )


_NONE = Wishes(None, None, (), ())


def _basis(
    known: Known, placements: Sequence[Placement], wishes: Wishes, drained_time: Timestamp | None
) -> tuple[object, ...]:
    """Returns all that `_described` looks at."""
    facts, gpus = known.report.node, known.node.gpus
    is_well = all(gpu.is_healthy for gpu in gpus)
    return (
        (
            known.state,
            known.state_time_s,
            known.gpus_time_s,
            known.other_cluster,
            known.later_term,
            known.report.node_uid,
        ),
        (facts.hostname, facts.agent_version, facts.driver_version, dict(facts.labels)),
        [(each.key, each.value) for each in facts.taints],
        () if is_well else [(each.index, each.state, each.state_message) for each in facts.gpus],
        (placements, wishes, drained_time),
    )


def _described(
    known: Known,
    placements: Sequence[Placement],
    assignable: Condition,
    wishes: Wishes,
    drained_time: Timestamp | None,
) -> Node:
    """Returns of a node what lasts."""
    facts = known.report.node
    node = Node(
        name=wire.NODE.format(known.node.id),
        uid=known.report.node_uid,
        state=known.state,
        state_time=to_timestamp(known.state_time_s),
        hostname=facts.hostname,
        agent_version=facts.agent_version,
        labels=facts.labels,
        driver_version=facts.driver_version,
        replicas=_names(placements),
        conditions=[_reporting(known), assignable, _gpus_healthy(known)],
    )
    show_wishes(node, wishes.record)
    node.conditions.extend(conditions(wishes, known.state, to_timestamp(known.state_time_s), drained_time))
    node.taints.extend(sorted(facts.taints, key=lambda taint: (taint.key, taint.value)))
    return node


def _fresh(known: Known, placements: Sequence[Placement]) -> bytes:
    """Returns of a node, encoded, what each report says anew."""
    facts = known.report.node
    node = Node(report_time=to_timestamp(known.report_time_s), host=facts.host)
    devices = {each.gpu: each for each in devices_of([known.node], placements)}
    host = devices[None]
    node.host.reserved_memory_bytes = sum(each.reserved_bytes for each in _on_host(facts.gpus, placements))
    node.host.foreign_memory_bytes = host.foreign_bytes
    node.host.placeable_memory_bytes = host.available_bytes
    replicas = _by_gpu(placements)
    gpus = [
        _entered(gpu, devices[GpuUuid(gpu.uuid)], replicas.get(gpu.uuid, ()))
        for gpu in sorted(facts.gpus, key=_BY_INDEX)
    ]
    return node.SerializeToString() + holding(Node.GPUS_FIELD_NUMBER, gpus)


def _on_host(gpus: Iterable[node_pb2.Gpu], placements: Sequence[Placement]) -> Sequence[Placement]:
    """Returns the placements that take memory of the host: simulated GPUs have none of their own."""
    simulated = {gpu.uuid for gpu in gpus if gpu.is_simulated} if placements else ()
    return [each for each in placements if all(gpu in simulated for gpu in each.gpus)]


def _by_gpu(placements: Iterable[Placement]) -> Mapping[str, Collection[str]]:
    """Returns the names of the replicas on each GPU that has some."""
    found: dict[str, dict[str, None]] = {}
    for each in sorted(placements, key=_BY_NAME):
        for gpu in each.gpus:
            found.setdefault(gpu, {})[wire.REPLICA.format(each.deployment, each.index)] = None
    return found


def _entered(gpu: node_pb2.Gpu, device: Device, replicas: Collection[str]) -> bytes:
    """Returns a GPU with what the agent cannot know, which is written into the report: whatever stood there is void."""
    gpu.reserved_memory_bytes = device.reserved_bytes if device.occupants else 0
    gpu.foreign_memory_bytes = device.foreign_bytes
    gpu.available_memory_bytes = device.available_bytes
    gpu.ClearField("replicas")
    if replicas:
        gpu.replicas.extend(replicas)
    return gpu.SerializeToString()


def _unknown(
    node: str,
    placements: Sequence[Placement],
    start_time_s: float,
    wishes: Wishes,
    drained_time: Timestamp | None,
) -> Node:
    since = to_timestamp(start_time_s)
    silent = Condition(
        type="Reporting",
        status=condition_pb2.CONDITION_STATUS_UNKNOWN,
        reason="NotHeardOf",
        message="it has not reported since the control plane started: check its agent",
        transition_time=since,
    )
    state = node_pb2.NODE_STATE_UNKNOWN
    shown = Node(
        name=wire.NODE.format(node),
        state=state,
        state_time=since,
        replicas=_names(placements),
        conditions=[silent, *conditions(wishes, state, since, drained_time)],
    )
    show_wishes(shown, wishes.record)
    return shown


def _reporting(known: Known) -> Condition:
    since = to_timestamp(known.state_time_s)
    if not known.is_lost:
        return Condition(type="Reporting", status=condition_pb2.CONDITION_STATUS_TRUE, transition_time=since)
    return Condition(
        type="Reporting",
        status=condition_pb2.CONDITION_STATUS_FALSE,
        reason="LeaseExpired",
        message="no report has arrived within the lease: check its agent and the network",
        transition_time=since,
    )


def _gpus_healthy(known: Known) -> Condition:
    since = to_timestamp(known.gpus_time_s)
    failed = [gpu for gpu in known.report.node.gpus if gpu.state != node_pb2.GPU_STATE_OK]
    if not failed:
        return Condition(type="GpusHealthy", status=condition_pb2.CONDITION_STATUS_TRUE, transition_time=since)
    return Condition(
        type="GpusHealthy",
        status=condition_pb2.CONDITION_STATUS_FALSE,
        reason="GpuFailed",
        message="; ".join(f"GPU {gpu.index} has failed: {gpu.state_message}" for gpu in failed),
        transition_time=since,
    )


def _names(placements: Iterable[Placement]) -> Sequence[str]:
    ordered = sorted(placements, key=_BY_NAME)
    return list(dict.fromkeys(wire.REPLICA.format(each.deployment, each.index) for each in ordered))

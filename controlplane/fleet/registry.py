"""The one holder of what nodes report: whole reports in, views out. A node that falls silent for a lease is LOST."""

from __future__ import annotations

import asyncio
import contextlib
import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace

import structlog

from controlplane import wire
from controlplane.fleet.changes import Changes
from controlplane.model import Attendance, Node, NodeId, Placement
from roundhouse.internal.v1.agent_service_pb2 import EngineReport, JoinRequest
from roundhouse.kit.clock import Clock
from roundhouse.kit.errors import AlreadyExists, NotReady, Resource
from roundhouse.v1 import errors_pb2, node_pb2

log = structlog.get_logger()

LEASE_S = 7.0  # reports come every second, and after a cut an agent is back within 4 s
FORGET_S = 24 * 3600.0  # a node that is gone for good is shown for a day
_TICK_S = 0.25  # how late a node may be found lost


@dataclass(frozen=True, slots=True)
class Known:
    """A node that has joined, as its newest report shows it."""

    report: JoinRequest
    report_time_s: float  # when the report arrived, in seconds since 1970
    heard_s: float  # the same, monotonic
    number: int  # counts the reports of all nodes
    state_time_s: float  # when it became READY, LOST or FOREIGN, in seconds since 1970
    gpus_time_s: float  # when all its GPUs became healthy, or ceased to be
    node: Node  # the same facts, as decisions want them
    engines: Mapping[str, EngineReport]  # by replica uid
    refusals: Mapping[str, str]  # what it will not start, and why, by replica uid
    gpu_indexes: Mapping[str, int]  # by UUID
    news: tuple[object, ...]  # what there may be something to do about if it changes
    other_cluster: str = ""  # the cluster whose assignments it obeys, if that is not this one
    later_term: int = 0  # the term of this cluster that it obeys, if ours is an earlier one
    is_lost: bool = False  # its reports do not arrive any more

    @property
    def is_ready(self) -> bool:
        """Whether its reports arrive, and it does what they are answered with."""
        return self.node.is_ready

    @property
    def is_foreign(self) -> bool:
        """Whether it obeys somebody else."""
        return bool(self.other_cluster or self.later_term)

    @property
    def state(self) -> node_pb2.NodeState:
        """The same, with what keeps it from being ready."""
        if self.is_lost:
            return node_pb2.NODE_STATE_LOST
        return node_pb2.NODE_STATE_FOREIGN if self.is_foreign else node_pb2.NODE_STATE_READY


@dataclass(frozen=True, slots=True)
class NodeChange:
    """A node that reported, was lost or was forgotten. None: not known then, or now."""

    node: str
    before: Known | None
    after: Known | None

    def touches(self, placement: Placement) -> bool:
        """Tells whether something else is known of a placement on this node now."""
        return self.transforms(placement) or self.moves(placement)

    def moves(self, placement: Placement) -> bool:
        """Tells whether its engine says anything else, be it a number."""
        before, after, uid = self.before, self.after, placement.replica_uid
        return before is None or after is None or before.engines.get(uid) != after.engines.get(uid)

    def transforms(self, placement: Placement) -> bool:
        """Tells whether that is more than what its engine says of its load, its memory or its progress."""
        before, after = self.before, self.after
        if before is None or after is None or before.state != after.state:
            return True
        uid = placement.replica_uid
        if _traits(before.engines.get(uid)) != _traits(after.engines.get(uid)):
            return True
        return (before.refusals.get(uid), before.gpu_indexes) != (after.refusals.get(uid), after.gpu_indexes)


class Session:
    """One call of an agent. Only the newest one of a node counts."""

    def __init__(self, registry: Registry, node: str) -> None:
        self._registry = registry
        self.node = node
        self.replaced = asyncio.Event()

    def record(self, report: JoinRequest) -> bool:
        """Takes over a report, and the message with it; returns whether there may be something to do about it.

        That is so if the state of an engine has changed, or what is refused, or which order is applied.
        """
        return self._registry._record(self, report)


class Registry:
    """What is known of every node. One writer: the event loop's thread."""

    def __init__(self, clock: Clock, cluster_id: str, lease_s: float = LEASE_S, *, term: int = sys.maxsize) -> None:
        self._clock, self._cluster_id, self._lease_s, self._term = clock, cluster_id, lease_s, term
        self._known: dict[str, Known] = {}
        self._sessions: dict[str, tuple[Session, JoinRequest]] = {}
        self.report_count = 0
        self._start_s = self._watched_from_s = self._looked_s = clock.monotonic()
        self.changes: Changes[NodeChange] = Changes()

    @property
    def known(self) -> Mapping[str, Known]:
        """Every node that has joined since the start, by id."""
        return self._known

    def nodes(self) -> Mapping[NodeId, Node]:
        """Returns the same, as decisions want it; a node that obeys somebody else is none of ours."""
        return {known.node.id: known.node for known in self._known.values() if not known.is_foreign}

    def attendance(self) -> Attendance:
        """Returns which of them are silent: those of which no report came for half a lease."""
        now_s = self._clock.monotonic()
        return Attendance(
            lease_s=self._lease_s,
            silent_s={
                known.node.id: now_s - known.heard_s
                for known in self._known.values()
                if now_s - known.heard_s > self._lease_s / 2 and not known.is_foreign
            },
            running_s=now_s - self._start_s,
            # Who asks before the next look has stood still as well.
            watched_s=0.0 if self._is_stalled(now_s) else now_s - self._watched_from_s,
        )

    def no_node(self) -> NotReady:
        """Returns the error of a request that needs a READY node where there is none."""
        foreign = next((known for known in self._known.values() if known.state == node_pb2.NODE_STATE_FOREIGN), None)
        if foreign is None:
            return NotReady("no node is connected: start a node agent, or allow_pending")
        why = f'node "{foreign.node.id}" {self.why_foreign(foreign)}'
        return NotReady(f"no node that obeys this control plane is connected; {why}")

    def why_foreign(self, known: Known) -> str:
        """Returns whom a node obeys that obeys somebody else, and what can be done about it."""
        if known.later_term:
            return (
                f"obeys term {known.later_term} of this cluster, and this control plane is of term {self._term}: stop "
                "it if another one serves, else its store is an old one: restore that with `roundhouse store restore`"
            )
        return (
            f"belongs to cluster {known.other_cluster}, not to this one, {self._cluster_id}: start its agent with "
            "another --state-dir, or the control plane with that of the other cluster or a backup of it"
        )

    @contextlib.contextmanager
    def session(self, first: JoinRequest) -> Iterator[Session]:
        """Holds the session of an agent for the block, in place of an older one of that agent; records nothing yet.

        Raises AlreadyExists if the node id is connected, and not LOST, from another machine or another state directory.
        """
        node = first.node_id
        session = Session(self, node)
        if node in self._sessions:
            older, its_first = self._sessions[node]
            known = self._known.get(node)
            if _is_other(first, its_first) and known is not None and not known.is_lost:
                raise _connected(first, its_first)
            older.replaced.set()
        self._sessions[node] = (session, first)
        try:
            yield session
        finally:
            if self._is_newest(session):
                del self._sessions[node]

    def expire(self) -> None:
        """Marks nodes LOST whose lease is over, and forgets those that have been lost for long."""
        self._expire(self._clock.monotonic())

    def renew(self) -> None:
        """Gives every node that is not LOST a whole lease from now, in which nothing is moved off any."""
        self._renew(self._clock.monotonic())

    def look(self) -> None:
        """Finds lost nodes. If nobody has looked for more than half a lease, all leases are renewed instead."""
        # One reading of the clock for both, so that this process cannot be stopped in between.
        now_s, looked_s = self._clock.monotonic(), self._looked_s
        if self._is_stalled(now_s):
            # It was this process that stood still; reports wait to be read, and nobody is lost.
            log.warning("event loop stalled", duration_s=round(now_s - looked_s, 3))
            self._renew(now_s)
        else:
            self._expire(now_s)
        self._looked_s = now_s

    async def keep_leases(self) -> None:
        """Finds lost nodes until cancelled."""
        self.renew()
        self._looked_s = self._clock.monotonic()
        while True:
            await asyncio.sleep(_TICK_S)
            self.look()

    def _is_stalled(self, now_s: float) -> bool:
        return now_s - self._looked_s > self._lease_s / 2 + _TICK_S

    def _renew(self, now_s: float) -> None:
        self._watched_from_s = now_s
        for node, known in self._known.items():
            if not known.is_lost:
                self._known[node] = replace(known, heard_s=now_s)

    def _expire(self, now_s: float) -> None:
        for node, known in list(self._known.items()):
            silent_s = now_s - known.heard_s
            if not known.is_lost and silent_s > self._lease_s:
                lost = replace(known.node, is_ready=False)
                log.warning("node lost", node=node, silent_s=round(silent_s, 3))
                self._put(node, replace(known, node=lost, is_lost=True, state_time_s=self._clock.now()))
            elif silent_s > FORGET_S:
                self._put(node, None)

    def _record(self, session: Session, report: JoinRequest) -> bool:
        if not self._is_newest(session):
            return False
        wire.settle_states(report)  # here, where it enters, so that status, routes and clients see the same
        node, before = session.node, self._known.get(session.node)
        now_s = self._clock.now()
        self.report_count += 1
        returns = before is None or before.is_lost
        applied = report.applied_order.cluster_id
        other_cluster = "" if applied == self._cluster_id else applied
        engines = {each.replica_uid: each for each in report.engines}
        later_term = report.applied_order.term
        if other_cluster or later_term <= self._term:
            later_term = 0
        obeys = (other_cluster, later_term)
        fresh = wire.node(report, is_ready=not (other_cluster or later_term), cluster_id=self._cluster_id)
        after = Known(
            report=report,
            report_time_s=now_s,
            heard_s=self._clock.monotonic(),
            number=self.report_count,
            state_time_s=before.state_time_s
            if before is not None and not returns and (before.other_cluster, before.later_term) == obeys
            else now_s,
            gpus_time_s=now_s
            if before is None or _is_healthy(before.node) != _is_healthy(fresh)
            else before.gpus_time_s,
            node=fresh,
            engines=engines,
            refusals={each.replica_uid: each.message for each in report.refusals},
            gpu_indexes={each.uuid: each.index for each in fresh.gpus},
            news=_news(report),
            other_cluster=other_cluster,
            later_term=later_term,
        )
        if returns:
            log.info("node joined", node=node, gpus=len(report.node.gpus), engines=len(engines))
        if after.is_foreign and (before is None or (before.other_cluster, before.later_term) != obeys):
            log.warning("node obeys somebody else", node=node, reason=f"it {self.why_foreign(after)}")
        self._put(node, after)
        return before is None or returns or before.news != after.news

    def _put(self, node: str, after: Known | None) -> None:
        before = self._known.get(node)
        if after is None:
            del self._known[node]
        else:
            self._known[node] = after
        self.changes.tell(NodeChange(node, before, after))

    def _is_newest(self, session: Session) -> bool:
        return self._sessions.get(session.node, (None,))[0] is session


def _news(report: JoinRequest) -> tuple[object, ...]:
    states = {each.replica_uid: each.state for each in report.engines}
    order = report.applied_order
    return states, {each.replica_uid for each in report.refusals}, (order.cluster_id, order.term, order.generation)


def _traits(engine: EngineReport | None) -> object:
    if engine is None:
        return None
    return engine.state, engine.is_crash_loop, engine.restart_count, engine.engine_uuid, engine.address


def _is_healthy(node: Node) -> bool:
    return all(gpu.is_healthy for gpu in node.gpus)


def _is_other(one: JoinRequest, other: JoinRequest) -> bool:
    return (one.machine_id, one.node_uid) != (other.machine_id, other.node_uid)


def _connected(refused: JoinRequest, holder: JoinRequest) -> AlreadyExists:
    where = "another state directory" if refused.machine_id == holder.machine_id else "another machine"
    return AlreadyExists(
        f'node "{refused.node_id}" is connected from {where} (host "{holder.node.hostname}"): '
        "stop that agent, or give this one another --node-id",
        reason=errors_pb2.ERROR_REASON_NODE_CONNECTED,
        resource=Resource("roundhouse.v1.Node", f"nodes/{refused.node_id}"),
    )

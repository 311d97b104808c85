"""Decides what to do next for the replicas of a node. Pure: no clock, no I/O, no logging."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from nodeagent.model import Assigned, Assignment, Desired, Known, Order, Reading, State
from roundhouse.kit.backoff import Backoff
from roundhouse.kit.units import format_bytes

ORPHAN_GRACE_S = 600.0  # a control plane that lost its store must not cost a running engine before somebody could look
DRAIN_S = 30.0  # what running requests get where no assignment says it
REFUSAL_S = 5.0  # a refused replica is tried again this often; the control plane may place it elsewhere in the meantime
EARLY_DEATH_S = 10.0  # who dies within this time after READY would only die again if started at once
CRASH_LOOP_COUNT = 3  # early deaths in a row that make it a crash loop
RESTART = Backoff(first_s=1.0, cap_s=300.0)


@dataclass(frozen=True, slots=True)
class Start:
    """Start an engine for the replica."""

    assigned: Assigned


@dataclass(frozen=True, slots=True)
class Stop:
    """Drain the engine, end it, and keep what is known of it until nobody mentions it any more."""

    replica_uid: str
    grace_s: float
    hands_over: bool = False  # what runs beyond the grace goes on at other engines


@dataclass(frozen=True, slots=True)
class MarkOrphan:
    """Note that the assignment does not mention the replica."""

    replica_uid: str


@dataclass(frozen=True, slots=True)
class Keep:
    """The assignment mentions an orphan again: it is none."""

    replica_uid: str


@dataclass(frozen=True, slots=True)
class Forget:
    """Remove the traces of a replica that nobody mentions and of which nothing runs."""

    replica_uid: str


@dataclass(frozen=True, slots=True)
class Refuse:
    """Do not start the replica, and say why."""

    assigned: Assigned
    message: str
    available_bytes: int
    not_before_s: float
    is_node_wide: bool = False  # no other GPU of this node would do either


@dataclass(frozen=True, slots=True)
class Wait:
    """Look again at this time, if nothing happens before."""

    until_s: float


Action = Start | Stop | MarkOrphan | Keep | Forget | Refuse | Wait


def refusal(applied: Order | None, offered: Order) -> str | None:
    """Returns why an assignment must not be applied after `applied`; None if it may. An equal order says it again."""
    if applied is None:
        return None
    if offered.cluster_id != applied.cluster_id:
        return (
            f"it is of cluster {offered.cluster_id or '(none)'}, this node belongs to {applied.cluster_id}: "
            "start the agent with a state directory of its own for another cluster"
        )
    if (offered.term, offered.generation) < (applied.term, applied.generation):
        return (
            f"its order (term {offered.term}, generation {offered.generation}) is lower than the one applied "
            f"({applied.term}, {applied.generation}): a control plane that was replaced is still sending"
        )
    return None


def plan(
    assignment: Assignment | None,
    known: Sequence[Known],
    gpus: Sequence[Reading],
    refused: Mapping[str, float],
    now_s: float,
) -> list[Action]:
    """Returns what moves the node towards its assignment; nothing but waits once it is there.

    refused: replicas, by uid, that were refused, and the time before which they are not tried again.
    Without an assignment nothing is started, stopped or called an orphan.
    """
    if assignment is None:
        return []
    actions: list[Action] = []
    found = {each.replica_uid: each for each in known}
    for assigned in assignment.replicas:
        mine = found.pop(assigned.replica_uid, None)
        if assigned.desired is Desired.STOPPED:
            actions += _stopped(assigned, mine)
        else:
            room = _Room(gpus, [each for each in known if each.replica_uid != assigned.replica_uid], actions)
            actions += _running(assigned, mine, room, refused.get(assigned.replica_uid, 0.0), now_s)
    for orphan in found.values():
        actions += _unmentioned(orphan, now_s)
    return actions


def restart_delay_s(early_deaths: int) -> float:
    """Returns how long to wait before the next start, after so many early deaths in a row."""
    return RESTART.delay_s(early_deaths - 1) if early_deaths else 0.0


def early_deaths_after(early_deaths: int, ready_for_s: float | None) -> int:
    """Returns the count of early deaths in a row after one more death; `ready_for_s` is None if it was never READY."""
    is_late = ready_for_s is not None and ready_for_s >= EARLY_DEATH_S
    return 0 if is_late else early_deaths + 1


def is_crash_loop(early_deaths: int, ready_for_s: float | None) -> bool:
    """Tells whether an engine dies again and again; one that has been READY for long enough has recovered."""
    has_recovered = ready_for_s is not None and ready_for_s >= EARLY_DEATH_S
    return early_deaths >= CRASH_LOOP_COUNT and not has_recovered


def _stopped(assigned: Assigned, mine: Known | None) -> Sequence[Action]:
    asked = (assigned.drain_grace_s, assigned.hands_over)
    if mine is None or mine.state is State.STOPPED or (mine.stop_grace_s, mine.hands_over) == asked:
        return ()
    return (Stop(assigned.replica_uid, *asked),)


def _running(
    assigned: Assigned, mine: Known | None, room: _Room, refused_until_s: float, now_s: float
) -> Sequence[Action]:
    keep = () if mine is None or mine.orphan_since_s is None else (Keep(assigned.replica_uid),)
    if mine is not None and mine.state is State.DRAINING and mine.stop_grace_s is None:
        # Its stop was begun by an agent that died, or by somebody else. It will not serve again in this life.
        return (*keep, Stop(assigned.replica_uid, DRAIN_S))
    if mine is not None and not _is_down(mine):
        return keep  # one that is being stopped ends first; it is started once it is STOPPED
    not_before_s = max(refused_until_s, (mine and mine.next_start_s) or 0.0)
    if not_before_s > now_s:
        return (*keep, Wait(not_before_s))
    lack = room.lack(assigned)
    if lack is None:
        return (*keep, Start(assigned))
    message, available_bytes = lack
    later_s = now_s + REFUSAL_S
    return (*keep, Refuse(assigned, message, available_bytes, later_s), Wait(later_s))


def lacking(assigned: Assigned, message: str, now_s: float) -> Refuse:
    """Returns that files of the model are not on this node, as `message` says: whoever places it takes another one."""
    return Refuse(assigned, message, 0, now_s + REFUSAL_S, is_node_wide=True)


def _unmentioned(orphan: Known, now_s: float) -> Sequence[Action]:
    if _is_down(orphan):
        return (Forget(orphan.replica_uid),)
    if orphan.stop_grace_s is not None:
        return ()
    if orphan.orphan_since_s is None:
        return (MarkOrphan(orphan.replica_uid), Wait(now_s + ORPHAN_GRACE_S))
    end_s = orphan.orphan_since_s + ORPHAN_GRACE_S
    return (Stop(orphan.replica_uid, DRAIN_S),) if end_s <= now_s else (Wait(end_s),)


def _is_down(known: Known) -> bool:
    return known.state in (State.STOPPED, State.FAILED) and not known.has_remains


class _Room:
    """What the GPUs have left for one replica, beside all others: those known and those this very plan starts."""

    def __init__(self, gpus: Sequence[Reading], others: Sequence[Known], actions: Sequence[Action]) -> None:
        self._gpus: Mapping[str, Reading] = {each.uuid: each for each in gpus}
        known = {each.replica_uid for each in others}
        starting = [each.assigned for each in actions if isinstance(each, Start)]
        self._others: list[Known | Assigned] = [
            *(each for each in others if each.state is not State.STOPPED),
            *(each for each in starting if each.replica_uid not in known),
        ]

    def lack(self, assigned: Assigned) -> tuple[str, int] | None:
        """Returns why the replica cannot have its GPUs, and the bytes that are available there; None if it can.

        The memory of the host is not looked at: what is available there changes with every cached page.
        """
        for uuid in assigned.gpu_uuids:
            gpu = self._gpus.get(uuid)
            if gpu is None:
                return f"this node has no GPU {uuid}: place the replica again", 0
            if gpu.failure:
                return f"GPU {uuid} cannot be used: {gpu.failure}", 0
            available = self._available_bytes(gpu)
            if available < assigned.reserved_bytes:
                return (
                    f"GPU {uuid} has {format_bytes(available)} available, {assigned.replica} needs "
                    f"{format_bytes(assigned.reserved_bytes)}: end what else uses the GPU, or place the replica again",
                    available,
                )
        return None

    def _available_bytes(self, gpu: Reading) -> int:
        taken = sum(
            max(each.reserved_bytes, gpu.measured_bytes.get(each.replica_uid, 0))
            for each in self._others
            if gpu.uuid in each.gpu_uuids
        )
        return max(0, gpu.total_bytes - gpu.foreign_bytes - taken)

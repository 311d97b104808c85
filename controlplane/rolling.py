"""How far a change of what the replicas of a deployment run is, from what is placed and reported. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from operator import attrgetter
from typing import Protocol

from controlplane.model import Placement
from roundhouse.internal.v1.agent_service_pb2 import EngineReport
from roundhouse.v1 import deployment_pb2
from roundhouse.v1.deployment_pb2 import ReplicaState


class Reported(Protocol):
    """What has to be known of a node."""

    @property
    def is_ready(self) -> bool:
        """Whether its reports arrive."""

    @property
    def engines(self) -> Mapping[str, EngineReport]:
        """Its engines, by replica uid."""

    @property
    def refusals(self) -> Mapping[str, str]:
        """What it will not start, and why, by replica uid."""


@dataclass(frozen=True, slots=True)
class Part:
    """A placement of the deployment, and what its node says of it now."""

    placement: Placement
    engine: EngineReport | None = None  # None: nothing, or its node does not report
    refusal: str = ""  # why its node will not start it
    is_heard: bool = True  # its node reports

    @property
    def is_ready(self) -> bool:
        """Whether it serves."""
        return self.engine is not None and self.engine.state == deployment_pb2.REPLICA_STATE_READY


@dataclass(frozen=True, slots=True)
class Progress:
    """How far it is."""

    updated_count: int  # replicas that are READY and run what is wanted
    is_done: bool  # all do, and nothing else is left of them but what stops, or waits on a silent node for its end
    outdated: frozenset[int] = frozenset()  # indexes of those that run something else
    trouble: str = ""  # what the first that is there and not READY yet says of itself
    failure: str = ""  # why it will come to nothing


def progress(replica_count: int, spec_generation: int, parts: Iterable[Part]) -> Progress:
    """Returns how far the replicas of a deployment are."""
    standing = [each for each in parts if not each.placement.is_stopping]
    fresh = [each for each in standing if each.placement.spec_generation == spec_generation]
    ready = {each.placement.index for each in fresh if each.is_ready}
    there = {each.placement.index for each in fresh}
    others = [
        each.placement.index
        for each in standing
        if each.placement.spec_generation != spec_generation and (each.is_heard or each.placement.index not in there)
    ]
    waiting = [each for each in fresh if not each.is_ready and (each.engine is not None or each.refusal)]
    looping = [each for each in waiting if each.engine is not None and each.engine.is_crash_loop]
    return Progress(
        updated_count=len(ready),
        is_done=not others and len(ready) >= replica_count,
        outdated=frozenset(others),
        trouble=_said(waiting[0]) if waiting else "",
        failure=_said(looping[0]) if looping else "",
    )


def parts(placements: Sequence[Placement], known: Mapping[str, Reported]) -> list[Part]:
    """Returns the placements of a deployment with what is reported of them, by index. known: nodes by their ids."""
    return [_part(each, known.get(each.node)) for each in sorted(placements, key=attrgetter("index", "epoch"))]


def _part(placement: Placement, node: Reported | None) -> Part:
    if node is None or not node.is_ready:
        return Part(placement, is_heard=False)
    uid = placement.replica_uid
    return Part(placement, node.engines.get(uid), node.refusals.get(uid, ""))


def _said(part: Part) -> str:
    placement, engine = part.placement, part.engine
    where = f'replica "{placement.deployment}-{placement.index}" on node {placement.node}'
    if part.refusal:
        return f"{where} is refused: {part.refusal}"
    if engine is None:
        return f"{where} is not reported"
    state = ReplicaState.Name(engine.state).removeprefix("REPLICA_STATE_")
    said = f"{where} is {state}"
    if engine.message:
        said += f": {engine.message}"
    if engine.is_crash_loop and engine.HasField("last_exit"):
        lines = [line for line in engine.last_exit.stderr_lines if line.strip()]
        said += f"; its last words: {lines[-1].strip()}" if lines else ""
    return said

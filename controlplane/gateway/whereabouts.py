"""Which engines may have a request, the likeliest first. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from controlplane.model import Route, Routes
from roundhouse.internal.v1 import hop_pb2

CONTROL_PLANE = "controlplane"  # among those that could not be asked


@dataclass(frozen=True, slots=True)
class Whereabouts:
    """Engines to ask, and who cannot be asked though it might know."""

    first: Sequence[Route]  # where it is, as far as is known
    rest: Sequence[Route]
    unreachable: Sequence[str]


def whereabouts(deployment: str, known: Route | None, said: hop_pb2.Location, routes: Routes) -> Whereabouts:
    """Returns where to look for a request.

    known: where this gateway relays it, or did when its engine was lost. said: what the caller says, if anything.
    """
    present = routes.replicas.get(deployment, ())
    # Where this gateway relays it, the request is, even if that engine is not among the routes just now.
    first = [known] if known is not None else [each for each in present if each.engine_uuid == said.engine_uuid]
    asked = {each.engine_uuid for each in first}
    unreachable = [name(deployment, each) for each in routes.silent.get(deployment, {}).values()]
    if not routes.is_current:
        unreachable.append(CONTROL_PLANE)  # which alone can tell whether there are other replicas by now
    return Whereabouts(first, [each for each in present if each.engine_uuid not in asked], unreachable)


def gone(known: Route | None, said: hop_pb2.Location, present: Sequence[Route], *, is_live: bool) -> str | None:
    """Returns the name of the replica whose engine ran the request and is no more; None unless that is certain.

    is_live: whether this gateway relays the request.
    """
    lives = {each.engine_uuid for each in present}
    if known is not None:
        return None if is_live or known.engine_uuid in lives else name(known.deployment, known.index)
    if not said.engine_uuid or said.engine_uuid in lives:
        return None
    # Another life of the same replica is there, so that one is over.
    same = next((each for each in present if each.replica_uid == said.replica_uid), None)
    return None if same is None else name(same.deployment, same.index)


def name(deployment: str, index: int) -> str:
    """Returns the name of a replica."""
    return f"deployments/{deployment}/replicas/{index}"

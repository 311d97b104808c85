"""How much a gateway lets into a deployment's engines at a time. Pure."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass

from controlplane.model import Route

UNTOLD_BATCH = 32  # of an engine that does not say how many sequences it runs at a time


@dataclass(frozen=True, slots=True)
class Facts:
    """What is known of the ready engines of a deployment, all together."""

    batch: int  # sequences that run at a time
    spare: int  # sequences beside these, so that an engine has the next one at hand
    express: int  # and beside these, for tenants that have less than their share
    token_count: int | None = None  # that fit in their caches; None: not known
    reported_count: int | None = None  # sequences that they have, whoever sent them; None: not known
    gateway_count: int = 1  # that may send to them


@dataclass(frozen=True, slots=True)
class Room:
    """The most that a gateway has there. Nothing is held up where there is no ready engine: that is said elsewhere."""

    sequences: float = math.inf
    express_sequences: float = math.inf  # with those of tenants that have less than their share
    tokens: float = math.inf


def facts_of(routes: Iterable[Route], gateway_count: int) -> Facts | None:
    """Returns what is known of the engines that are ready; None if none is."""
    ready = [each for each in routes if each.is_ready]
    if not ready:
        return None
    batches = [each.max_running_count or UNTOLD_BATCH for each in ready]
    return Facts(
        batch=sum(batches),
        spare=sum(1 + batch // 32 for batch in batches),
        express=sum(1 + batch // 8 for batch in batches),
        token_count=sum(each.kv_token_count for each in ready) if all(each.kv_token_count for each in ready) else None,
        reported_count=(
            None
            if any(each.is_stale for each in ready)
            else sum(each.running_count + each.waiting_count for each in ready)
        ),
        gateway_count=max(1, gateway_count),
    )


def room_of(facts: Facts | None, own_count: int) -> Room:
    """Returns what a gateway may have at engines, where it has `own_count` sequences while these are the facts.

    An equal part for each gateway, so that none waits for another; and beyond it what the others do not use, as far as
    reports tell. One that takes its part back finds the engines busier than they should be for as long as a request
    takes, no longer: the others see it in the next report.
    """
    if facts is None:
        return Room()
    fraction = 1 / facts.gateway_count
    if facts.gateway_count > 1 and facts.reported_count is not None:
        others = max(0, facts.reported_count - own_count)
        fraction = max(fraction, (facts.batch - others) / facts.batch)
    most = math.ceil(fraction * (facts.batch + facts.spare))
    return Room(
        most,
        most + math.ceil(fraction * facts.express),
        math.inf if facts.token_count is None else fraction * facts.token_count,
    )

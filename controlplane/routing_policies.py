"""The names of the ways in which replicas are picked for requests. What they mean, gateways know."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal, get_args

RoutingPolicy = Literal["power_of_two", "least_loaded", "round_robin"]
ROUTING_POLICIES: Sequence[RoutingPolicy] = get_args(RoutingPolicy)
DEFAULT_ROUTING_POLICY: RoutingPolicy = "power_of_two"


def canonical_routing_policy(name: str) -> RoutingPolicy | None:
    """Returns the one that is meant, in whatever case and with whatever between its words; None if there is none."""
    plain = name.lower().replace("-", "").replace("_", "")
    return next((each for each in ROUTING_POLICIES if each.replace("_", "") == plain), None)

"""How places on which a replica fits are ranked. Pure."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from controlplane.placement.fit import Device

BAND = 0.05  # differences in utilization below this are noise
# An engine says nothing of its load before it runs: until then it counts as this much, so that equal GPUs take turns.
UNREPORTED_LOAD = 0.2

Rank = tuple[float | str, ...]
Strategy = Callable[[Device, int], Rank]  # (device, replicas on its node) -> the smaller, the better


def idle_first(device: Device, node_replica_count: int) -> Rank:
    """Ranks the least utilized first; then by reserved memory, replicas on the device, replicas on its node."""
    unreported = sum(not each.is_reported for each in device.occupants)
    load = device.utilization_fraction + UNREPORTED_LOAD * unreported
    return (
        int(load / BAND + 1e-9),  # 0.15 / 0.05 is a little less than 3
        device.held_bytes / max(1, device.total_bytes),
        len(device.occupants),
        node_replica_count,
        device.node,
        device.index,
    )


STRATEGIES: Mapping[str, Strategy] = {"idle_first": idle_first}
DEFAULT_STRATEGY = "idle_first"


def canonical_strategy(name: str) -> str | None:
    """Returns the name in `STRATEGIES` that is meant, in Xinference's spellings too; None if there is none."""
    plain = name.lower().replace("-", "_").removesuffix("_launch_strategy").replace("_", "")
    return next((known for known in STRATEGIES if known.replace("_", "") == plain), None)

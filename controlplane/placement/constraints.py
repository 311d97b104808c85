"""What a deployment says about where its replicas may be, whatever they need. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

from controlplane.model import NodeGpus, Taint, Wanted
from controlplane.placement.fit import Device, Obstacle

Scope = Literal["node", "gpu"]


def barred(wanted: Wanted, device: Device) -> Obstacle | None:
    """Returns what the deployment itself says against a device; None if nothing."""
    if wanted.node_labels and missing_labels(wanted, device):
        return Obstacle.LABELS
    if device.taints and untolerated(wanted, device) is not None:
        return Obstacle.TAINT
    if wanted.allowed_gpus and not any(_means(each, device) for each in wanted.allowed_gpus):
        return Obstacle.NOT_ALLOWED
    return None


def missing_labels(wanted: Wanted, device: Device) -> Sequence[tuple[str, str]]:
    """Returns the labels that the node of a device would need, by key."""
    return sorted((key, value) for key, value in wanted.node_labels if device.labels.get(key) != value)


def untolerated(wanted: Wanted, device: Device) -> Taint | None:
    """Returns the first taint of the node of a device that keeps replicas of the deployment off."""
    return next((taint for taint in device.taints if not _is_tolerated(wanted, taint)), None)


def apart(one: Wanted, other: Wanted) -> Scope | None:
    """Returns what replicas of two deployments, or of one, may not share, whichever of them says so; None: anything."""
    scopes = {*_keeps_from(one, other), *_keeps_from(other, one)}
    return "node" if "node" in scopes else "gpu" if scopes else None


def _is_tolerated(wanted: Wanted, taint: Taint) -> bool:
    return any(
        each.key in ("*", taint.key) and (each.value is None or each.value == taint.value)
        for each in wanted.tolerations
    )


def _means(allowed: NodeGpus, device: Device) -> bool:
    if allowed.node is not None and allowed.node != device.node:
        return False
    if device.gpu is None or not (allowed.indexes or allowed.uuids):
        return True  # the memory of a host is allowed where any entry means its node
    return device.index in allowed.indexes or device.gpu in allowed.uuids


def _keeps_from(one: Wanted, other: Wanted) -> list[Scope]:
    is_same = one.uid == other.uid
    return [
        "gpu" if each.on_gpu else "node"
        for each in one.anti_affinity
        if (is_same and not each.labels) or (not is_same and each.labels and each.labels <= other.labels)
    ]

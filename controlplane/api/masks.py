"""Which fields of a deployment a caller changes, and to what. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

from google.protobuf.field_mask_pb2 import FieldMask
from google.protobuf.message import Message

from roundhouse.kit.fields import FieldCheck
from roundhouse.v1.deployment_pb2 import Deployment

# What can be changed, or fields within these.
CHANGEABLE = (
    "labels",
    "annotations",
    "model",
    "replica_count",
    "engine_options",
    "env",
    "virtual_env",
    "rollout",
    "routing_policy",
    "placement.memory_bytes",
    "placement.memory_fraction",
)
# What engines run, or are given.
OF_ENGINES = ("model", "engine_options", "env", "virtual_env", "placement.memory_bytes", "placement.memory_fraction")
_MOST = 64
_KIND: Any = Deployment.DESCRIPTOR
_CHOICES = ", ".join(CHANGEABLE)


def changed_paths(check: FieldCheck, paths: Sequence[str], given: Deployment) -> Sequence[str]:
    """Returns the fields to change: those that are named, else all that can be changed and are set in `given`.

    Notes those that do not exist or cannot be changed.
    """
    if not check.require(len(paths) <= _MOST, "update_mask", f"{len(paths)} paths are too many: use at most {_MOST}"):
        return ()
    if list(paths) == ["*"]:
        return CHANGEABLE
    if not paths:
        return [each for each in CHANGEABLE if _is_set(given, each)]
    for path in paths:
        if not FieldMask(paths=[path]).IsValidForDescriptor(_KIND):
            check.require(False, "update_mask", f'"{path[:100]}" is no field of a deployment: use {_CHOICES}')
        elif not any(path == each or path.startswith(f"{each}.") for each in CHANGEABLE):
            cure = "create another deployment" if path.partition(".")[0] in ("engine", "placement") else "leave it out"
            check.require(False, "update_mask", f'"{path[:100]}" cannot be changed: {cure}')
    return paths


def merge(given: Deployment, target: Deployment, paths: Iterable[str]) -> None:
    """Takes over the fields that `paths` name; one that is unset in `given` is cleared."""
    for path in paths:
        *parents, name = path.split(".")
        source: Message | None = given
        place: Message = target
        for parent in parents:
            source = getattr(source, parent) if source is not None and source.HasField(parent) else None
            place = getattr(place, parent)
        place.ClearField(name)
        if source is not None:
            alone = type(source)()
            alone.CopyFrom(source)
            for field, _ in alone.ListFields():
                if field.name != name:
                    alone.ClearField(field.name)
            place.MergeFrom(alone)


def same(a: Deployment, b: Deployment, paths: Iterable[str]) -> bool:
    """Tells whether two deployments agree in the fields that `paths` name."""
    pieces = [Deployment(), Deployment()]
    for whole, piece in zip((a, b), pieces, strict=True):
        merge(whole, piece, paths)
    return pieces[0] == pieces[1]


def _is_set(message: Message, path: str) -> bool:
    name, _, rest = path.partition(".")
    if not any(field.name == name for field, _ in message.ListFields()):
        return False
    return not rest or _is_set(getattr(message, name), rest)

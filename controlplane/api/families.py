"""All families of the catalog: those that ship, and those that users registered, durably."""

from __future__ import annotations

from collections.abc import Sequence

from controlplane import wire
from controlplane.catalog.builtin import builtin_families
from controlplane.catalog.variants import family_not_found
from controlplane.store.protocol import Compare, Entry, Store
from roundhouse.internal.v1.store_pb2 import FamilyRecord
from roundhouse.kit.clock import Clock
from roundhouse.kit.errors import (
    AlreadyExists,
    Conflict,
    FieldViolation,
    NoCapacity,
    NotReady,
    QuotaViolation,
    Resource,
)
from roundhouse.kit.times import to_timestamp
from roundhouse.v1 import errors_pb2
from roundhouse.v1.catalog_pb2 import ModelFamily

MAX_FAMILIES = 1000  # that users register
_ATTEMPTS = 3  # somebody else may register under the same name in between


class Families:
    """Reads and writes families. What is written is read at once."""

    def __init__(self, store: Store, clock: Clock) -> None:
        self._store, self._clock = store, clock

    async def get(self, family: str) -> ModelFamily:
        """Returns a family by its bare id; raises NotFound (FAMILY_NOT_FOUND), with the nearest names."""
        if family in builtin_families():
            return builtin_families()[family]
        entry = await self._store.get(wire.family_key(family))
        if entry is None:
            raise family_not_found(family, [each.name.removeprefix("families/") for each in await self.list()])
        return _family(entry)

    async def list(self) -> Sequence[ModelFamily]:
        """Returns every family, by name."""
        listing = await self._store.list(wire.FAMILIES)
        registered = [_family(each) for each in listing.entries]
        return sorted([*builtin_families().values(), *registered], key=lambda each: each.name)

    async def register(self, asked: ModelFamily, *, allow_replace: bool, validate_only: bool) -> ModelFamily:
        """Stores a family that was checked, and returns it as stored. The same body again changes nothing.

        Raises NotReady (FAMILY_BUILTIN), AlreadyExists (FAMILY_EXISTS) and NoCapacity.
        """
        (family,) = wire.FAMILY.match(asked.name) or ("",)
        _require_own(family)
        for attempt in range(_ATTEMPTS):
            entry = await self._store.get(wire.family_key(family))
            fresh = _wanted(asked)
            fresh.create_time.CopyFrom(to_timestamp(self._clock.now()))
            if entry is None:
                await self._require_room()
            elif (there := _family(entry)) and _wanted(there) == _wanted(asked):
                return there
            elif not allow_replace:
                raise _exists(family)
            if validate_only:
                return fresh
            compare = Compare(wire.family_key(family), 0 if entry is None else entry.revision)
            try:
                await self._store.commit([compare], {compare.key: FamilyRecord(family=fresh).SerializeToString()})
            except Conflict:
                if attempt == _ATTEMPTS - 1:
                    raise
                continue
            return fresh
        raise AssertionError("the last attempt returns or raises")

    async def delete(self, family: str, *, validate_only: bool) -> None:
        """Deletes a registered family; raises NotFound and NotReady (FAMILY_BUILTIN)."""
        _require_own(family)
        await self.get(family)
        if not validate_only:
            await self._store.commit([], {}, [wire.family_key(family)])

    async def _require_room(self) -> None:
        count = len((await self._store.list(wire.FAMILIES)).entries)
        if count >= MAX_FAMILIES:
            message = f"{count} families are registered, and there is room for no more: delete one"
            raise NoCapacity(message, quota=[QuotaViolation("families", message)])


def _family(entry: Entry) -> ModelFamily:
    return FamilyRecord.FromString(entry.value).family


def _wanted(family: ModelFamily) -> ModelFamily:
    """Returns a family without what is output only, and without what this version does not know."""
    bare = ModelFamily()
    bare.CopyFrom(family)
    bare.DiscardUnknownFields()
    bare.ClearField("is_builtin")
    bare.ClearField("create_time")
    return bare


def _require_own(family: str) -> None:
    if family in builtin_families():
        message = f'family "{family}" ships with Roundhouse and stays as it is: choose another name'
        raise NotReady(
            message,
            reason=errors_pb2.ERROR_REASON_FAMILY_BUILTIN,
            fields=[FieldViolation("name", message)],
            resource=_resource(family),
        )


def _exists(family: str) -> AlreadyExists:
    return AlreadyExists(
        f'family "{family}" is registered with another body: choose another name, or allow_replace',
        reason=errors_pb2.ERROR_REASON_FAMILY_EXISTS,
        resource=_resource(family),
    )


def _resource(family: str) -> Resource:
    return Resource("roundhouse.v1.ModelFamily", wire.FAMILY.format(family))

"""Writes what happened into a bounded number of places: again is counted, new goes where the oldest was. Pure."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace

from controlplane import wire
from controlplane.events.happenings import Happening
from roundhouse.kit.times import from_timestamp, to_timestamp
from roundhouse.v1.event_pb2 import EVENT_TYPE_NORMAL, EVENT_TYPE_WARNING, Event

PLACES = 1000
PLACES_EACH = 100  # of a deployment with its replicas, and of a node: one that crashes drives out no other's events
WINDOW_S = 600.0
MOST_CHARACTERS = 1000  # of a message
_Key = tuple[str, str, str]


@dataclass(frozen=True, slots=True)
class Kept:
    """An event that is kept, and the revision at which it was written; 0: in the batch that is being made."""

    event: Event
    revision: int


@dataclass(frozen=True, slots=True)
class Noted:
    """A happening that is not written yet. Times are since 1970."""

    happening: Happening
    first_s: float
    last_s: float

    def again(self, happening: Happening, now_s: float) -> Noted:
        """Returns the same, having happened once more."""
        return Noted(replace(happening, count=self.happening.count + happening.count), self.first_s, now_s)


@dataclass(frozen=True, slots=True)
class Batch:
    """What is to be written: events by place, the number of the next, the newest revision that is overwritten."""

    events: Mapping[str, Event]
    next_number: int
    dropped_revision: int


def key_of(object_: str, reason: str, message: str) -> _Key:
    """Returns what makes two events the same."""
    return object_, reason, message[:MOST_CHARACTERS]


def write(kept: Mapping[str, Kept], noted: Iterable[Noted], next_number: int, dropped_revision: int) -> Batch:
    """Returns what to write, given what is kept by place."""
    places = _Places(kept)
    events: dict[str, Event] = {}
    for each in noted:
        happening = each.happening
        place = places.find(key_of(happening.object, happening.reason, happening.message))
        if place is not None and each.first_s - from_timestamp(places.event(place).last_time) <= WINDOW_S:
            events[place] = _again(places.event(place), each)
        else:
            place, overwritten = places.free(group_of(happening.object))
            dropped_revision = max(dropped_revision, overwritten)
            events[place] = _new(each, next_number)
            next_number += 1
        places.put(place, events[place])
    return Batch(events, next_number, dropped_revision)


class _Places:
    """Where events are, while a batch is made."""

    def __init__(self, kept: Mapping[str, Kept]) -> None:
        self._kept: dict[str, Kept] = {}
        self._ages: dict[str, tuple[float, str]] = {}
        self._newest: dict[_Key, str] = {}
        self._groups: defaultdict[str, set[str]] = defaultdict(set)
        for place, each in sorted(kept.items(), key=lambda item: _age(item[1].event)):
            self.put(place, each.event, each.revision)

    def event(self, place: str) -> Event:
        return self._kept[place].event

    def find(self, key: _Key) -> str | None:
        return self._newest.get(key)

    def put(self, place: str, event: Event, revision: int | None = None) -> None:
        before = self._kept.get(place)
        if before is not None and before.event.name != event.name:
            self._groups[group_of(before.event.object)].discard(place)
            if self._newest.get(_key(before.event)) == place:
                del self._newest[_key(before.event)]
        stands = 0 if before is None or before.event.name != event.name else before.revision
        self._kept[place] = Kept(event, stands if revision is None else revision)
        self._ages[place] = _age(event)
        self._newest[_key(event)] = place
        self._groups[group_of(event.object)].add(place)

    def free(self, group: str) -> tuple[str, int]:
        """Returns where a new event goes, and the revision of what is overwritten there."""
        own = self._groups[group]
        if len(own) < PLACES_EACH and len(self._kept) < PLACES:
            return f"{len(self._kept):04d}", 0  # they fill up in order, and none is ever empty again
        place = min(own if len(own) >= PLACES_EACH else self._kept, key=self._ages.__getitem__)
        return place, self._kept[place].revision


def group_of(object_: str) -> str:
    """Returns the deployment, or the node, that an object belongs to."""
    return "/".join(object_.split("/")[:2])


def _age(event: Event) -> tuple[float, str]:
    return from_timestamp(event.last_time), event.name


def _key(event: Event) -> _Key:
    return event.object, event.reason, event.message


def _again(event: Event, noted: Noted) -> Event:
    fresh = Event()
    fresh.CopyFrom(event)
    fresh.count += noted.happening.count
    fresh.last_time.CopyFrom(to_timestamp(noted.last_s))
    return fresh


def _new(noted: Noted, number: int) -> Event:
    happening = noted.happening
    return Event(
        name=wire.EVENT.format(f"{number:016d}"),
        object=happening.object,
        reason=happening.reason,
        message=happening.message[:MOST_CHARACTERS],
        type=EVENT_TYPE_WARNING if happening.is_warning else EVENT_TYPE_NORMAL,
        count=happening.count,
        first_time=to_timestamp(noted.first_s),
        last_time=to_timestamp(noted.last_s),
    )

"""What a store promises, whichever keeps it. The conformance suite says the same in tests."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Collection, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Protocol

MAX_VALUE_BYTES = 1024 * 1024  # a value is smaller: etcd refuses requests over 1.5 MiB
MAX_KEY_BYTES = 1024


@dataclass(frozen=True, slots=True)
class Entry:
    """A key and its value, last written at `revision`. Once deleted and made again it has a new `create_revision`."""

    key: str
    value: bytes = field(repr=False)  # may hold what belongs in no log
    create_revision: int
    revision: int


@dataclass(frozen=True, slots=True)
class Listing:
    """Entries by key, as they were at one revision; `has_more` if the limit cut them off."""

    entries: tuple[Entry, ...]
    revision: int
    has_more: bool = False


@dataclass(frozen=True, slots=True)
class Change:
    """The newest state of a key that changed: its entry, or None if it is deleted, and the revision of that change."""

    key: str
    entry: Entry | None
    revision: int


@dataclass(frozen=True, slots=True)
class Batch:
    """What changed up to `revision`, from where a watch may be taken up again; by revision. Empty, it is a bookmark."""

    changes: tuple[Change, ...]
    revision: int


@dataclass(frozen=True, slots=True)
class Compare:
    """A condition of a commit: the key was last written at this revision, or does not exist if that is 0."""

    key: str
    revision: int


class Store(Protocol):
    """Keys with values, ordered by one revision that counts the commits. All methods are for one event loop.

    Any method raises Unreachable (STORE_UNKNOWN) if the store does not answer in time.
    """

    @property
    def epoch(self) -> str:
        """Returns the UUID of this store's history. Revisions of another history mean nothing here."""

    async def get(self, key: str) -> Entry | None:
        """Returns the entry of a key, None if there is none."""

    async def list(self, prefix: str, *, after: str | None = None, limit: int | None = None) -> Listing:
        """Returns at most `limit` entries whose keys begin with `prefix`, by key, those behind the key `after` only."""

    async def commit(
        self, compares: Sequence[Compare], puts: Mapping[str, bytes], deletes: Collection[str] = ()
    ) -> int:
        """Writes all or nothing, durably before it returns; returns the revision at which the writes stand.

        A delete of a key that does not exist is passed over. What changes nothing takes no revision and returns the
        present one. Cancelling leaves the writes done or undone, never a part of them.
        Raises Conflict if a compare does not hold, InvalidArgument for a key or value over its limit, and Unreachable
        (STORE_UNKNOWN) if it cannot be told whether the writes were made, or there was no room for them: read, then
        decide.
        """

    def watch(self, prefix: str, after_revision: int) -> AsyncGenerator[Batch, None]:
        """Yields what changed behind a revision under a prefix, then what changes; never ends by itself.

        A reader that is behind gets the newest state of each key and no backlog, so states in between may be left out;
        a deletion is told unless the key exists again. A bookmark comes as soon as everything up to the present has
        been told, and every 30 s while nothing changes.
        Raises TooLong (RELIST) if the revision is compacted or was never reached: list, and watch from there.
        """

    async def compact(self, revision: int) -> None:
        """Forgets what was deleted up to a revision, or up to the present: no watch can begin before it any more."""

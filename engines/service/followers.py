"""The calls that follow a run, and what becomes of it when the last of them leaves. Belongs to the event loop."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass

from engines.model import Cause

ORPHAN_S = 10.0  # whoever takes up a dead gateway's requests has come by then


@dataclass(eq=False, slots=True)
class Follower:
    """One call."""

    name: str
    keeper: str  # the gateway that makes it; empty if it is the client's own


class Followers:
    """Ends a run that nobody follows: at once if its last client has left, or when its time alone is over.

    The end of a gateway's call says nothing of its client; a run that such a one leaves is an orphan, and whoever takes
    the gateway's place may take it up. A young run that goes on behind another one is an orphan as well, even if its
    client has left: those of other gateways may be on their way to it. A run that detaches goes on alone for as long as
    it was asked to.
    """

    def __init__(
        self, cancel: Callable[[Cause], None], *, orphan_s: float, ttl_s: float | None, goes_on: bool = False
    ) -> None:
        """ttl_s: how long the run goes on alone; None if it does not. goes_on: whether it is behind another one."""
        self._cancel = cancel
        self._orphan_s = orphan_s
        self._ttl_s = ttl_s
        self._young_until_s = asyncio.get_running_loop().time() + orphan_s if goes_on else 0.0
        self._present: list[Follower] = []
        self._timer: asyncio.TimerHandle | None = None
        self._last_keeper = ""

    @property
    def count(self) -> int:
        """Those that follow now."""
        return len(self._present)

    @property
    def has_keeper(self) -> bool:
        """Tells whether a gateway keeps the run, or did and may be replaced by another one."""
        return any(each.keeper for each in self._present) if self._present else bool(self._last_keeper)

    def join(self, name: str, keeper: str) -> Follower:
        """Takes one in."""
        self.close()
        follower = Follower(name, keeper)
        self._present.append(follower)
        return follower

    def leave(self, follower: Follower, *, is_overdue: bool, in_vain: bool = False) -> None:
        """Says that a call has ended.

        is_overdue: because its deadline was over. in_vain: it could not be told anything, and changes nothing.
        """
        if follower not in self._present:
            return
        before = self._last_keeper
        self._remove(follower)
        if in_vain:
            self._last_keeper = before
        if not self._present:
            self._left_alone(follower, is_overdue=is_overdue, in_vain=in_vain)

    def dismiss(self, name: str) -> bool:
        """Says that the client of a gateway's call has left; returns whether the run is to end for that."""
        for each in [each for each in self._present if each.name == name]:
            self._remove(each)
        if self._present:
            return False
        if self._ttl_s is not None:
            self._cancel_in(self._ttl_s, Cause.DISCONNECT)
            return False
        if asyncio.get_running_loop().time() < self._young_until_s:
            self._cancel_in(self._orphan_s, Cause.ORPHANED)
            return False
        return True

    def close(self) -> None:
        """Stops the clock of a run that is alone."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _remove(self, follower: Follower) -> None:
        self._present.remove(follower)
        self._last_keeper = follower.keeper

    def _left_alone(self, last: Follower, *, is_overdue: bool, in_vain: bool) -> None:
        if self._ttl_s is not None:
            self._cancel_in(self._ttl_s, Cause.DISCONNECT)
        elif last.keeper or in_vain:
            self._cancel_in(self._orphan_s, Cause.ORPHANED)
        else:
            self._cancel(Cause.DEADLINE if is_overdue else Cause.DISCONNECT)

    def _cancel_in(self, delay_s: float, cause: Cause) -> None:
        self.close()
        self._timer = asyncio.get_running_loop().call_later(delay_s, self._cancel, cause)

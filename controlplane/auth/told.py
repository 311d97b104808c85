"""Who may call a gateway, as the control plane tells it: the same gate as there, for as long as the gateway lives."""

from __future__ import annotations

import asyncio
import contextlib
import sys
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable

import structlog

from controlplane.auth.caller import Caller
from controlplane.auth.gate import Guard
from controlplane.auth.keys import hash_of
from controlplane.auth.known import Known, find, told_callers
from controlplane.auth.methods import RIGHTS, Other
from controlplane.fleet.changes import Changes
from roundhouse.internal.v1 import fleet_service_pb2 as pb
from roundhouse.kit.clock import Clock
from roundhouse.kit.errors import Unreachable
from roundhouse.kit.service import Context

RETRY_AFTER_S = 1.0

log = structlog.get_logger()


class ToldCallers:
    """Keeps whom the control plane knows. `ended` tells, by name, the tokens that were taken away.

    is_heard: whether the control plane is heard now, so that nothing is missing of what it told.
    """

    def __init__(self, clock: Clock, is_heard: Callable[[], bool]) -> None:
        self._clock, self._is_heard = clock, is_heard
        self._known: Known | None = None
        self.are_asked: bool | None = None  # None: that was not told yet
        self.ended: Changes[str] = Changes()
        self.refusal = asyncio.Event()  # set once the control plane has refused this gateway

    def take(self, told: pb.Callers) -> None:
        """Takes in whom the control plane knows now. Once callers are asked, they are asked for ever."""
        known = told_callers(told)
        if known is not None:
            self._replace(known)
        elif self.are_asked:
            log.warning(
                "the control plane asks callers for tokens no more; this gateway goes on to, until it is started again"
            )
        else:
            self.are_asked = False

    def refused(self) -> None:
        """Notes that the control plane asked who this gateway is, and did not like the answer: so callers are asked."""
        self.refusal.set()
        if not self.are_asked:
            self._replace({})

    def find(self, secret: str) -> Caller | None:
        """Returns who presents a secret; None if nobody has it, or its time is over.

        Raises Unreachable for one that is not known while the control plane is away, which may have made it meanwhile.
        """
        known = self._known or {}
        found = find(known, secret, self._clock.now())
        if found is None and not self._is_heard() and hash_of(secret) not in known:
            raise _untold("the token of this call is not known here")
        return found

    def _replace(self, known: Known) -> None:
        before, self._known, self.are_asked = self._known or {}, known, True
        for hashed, caller in before.items():
            if known.get(hashed) != caller:
                self.ended.tell(caller.hold)


class ToldGate:
    """The gate of a gateway: asks callers if the control plane does, and serves nobody before that was told.

    passed_on: full names of services that the control plane serves, and where it asks the callers itself. first_told:
    returns when the gateway has been told all that there is for the first time, or that has taken too long.
    """

    def __init__(
        self,
        callers: ToldCallers,
        clock: Clock,
        passed_on: Iterable[str],
        first_told: Callable[[], Awaitable[None]],
    ) -> None:
        self._callers, self._passed_on, self._first_told = callers, frozenset(passed_on), first_told
        self._guard = Guard(callers, _NoNodes(), clock)

    @contextlib.asynccontextmanager
    async def ending(self) -> AsyncIterator[None]:
        """Ends calls with tokens that are taken away, for the block."""
        with self._callers.ended.to(self._guard.end):
            yield

    @contextlib.asynccontextmanager
    async def admitted(self, method: str, context: Context) -> AsyncIterator[None]:
        """Serves a call in the block, for as long as its caller has the right to it.

        Raises Unauthenticated, Forbidden and Unreachable.
        """
        is_open = method.rpartition(".")[0] in self._passed_on or RIGHTS.get(method) is Other.EVERYBODY
        if not is_open:
            await self._first_told()
        if is_open or self._callers.are_asked is False:
            yield
            return
        if self._callers.are_asked is None:
            raise _untold("whether callers are asked who they are is not known here")
        async with self._guard.admitted(method, context):
            yield


class _NoNodes:
    """Knows no certificate that counts: nodes call the control plane."""

    def of(self, _: str) -> int:
        """Returns an epoch that no certificate has."""
        return sys.maxsize


def _untold(what: str) -> Unreachable:
    return Unreachable(
        f"{what}, and the control plane does not answer this gateway: wait until it does, or check --control-plane "
        "and the token of the gateway",
        retry_after_s=RETRY_AFTER_S,
    )

"""Takes in what agents report, some reports at a time."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass, field

import structlog

from controlplane.api.reports import check_report, check_same
from controlplane.fleet.registry import Session
from roundhouse.internal.v1.agent_service_pb2 import JoinRequest
from roundhouse.kit.errors import RoundhouseError

log = structlog.get_logger()

# How long reports gather. With a thousand agents, one by one takes about twice as long: what each needs of the
# processor's caches is gone when the next one arrives.
GATHER_S = 0.04
_MOST = 50  # at a time; other calls have their turn in between


@dataclass(eq=False)
class Inbox:
    """The newest report of a session, until it is taken in."""

    session: Session
    first: JoinRequest
    report: JoinRequest | None = None
    refused: asyncio.Future[None] = field(default_factory=lambda: asyncio.get_running_loop().create_future())


class Intake:
    """Checks and records reports. Of two that wait in one inbox the newer alone counts: every report is whole."""

    def __init__(self, hint: Callable[[], None]) -> None:
        self._hint = hint
        self._waiting: dict[Inbox, None] = {}

    def put(self, inbox: Inbox, report: JoinRequest) -> None:
        """Lets a report wait its turn. If it is malformed, `inbox.refused` gets the error."""
        inbox.report = report
        if not self._waiting:
            asyncio.get_running_loop().call_later(GATHER_S, self._take_some)
        self._waiting[inbox] = None

    def take(self, inbox: Inbox) -> None:
        """Takes in at once what waits in an inbox, if anything."""
        self._waiting.pop(inbox, None)
        report, inbox.report = inbox.report, None
        if report is None or inbox.refused.done():
            return
        try:
            check_same(inbox.first, report)
            check_report(report)
            is_news = inbox.session.record(report)
        except RoundhouseError as error:
            inbox.refused.set_exception(error)
        except Exception as error:
            # Of this call alone; the reports of others are taken in.
            log.error("report failed", node=inbox.session.node, error=str(error), exc_info=error)
            inbox.refused.set_exception(error)
        else:
            if is_news:
                self._hint()

    def _take_some(self) -> None:
        for inbox in list(self._waiting)[:_MOST]:
            self.take(inbox)
        if self._waiting:
            asyncio.get_running_loop().call_soon(self._take_some)

"""Leaves the receipts of requests that ended while they waited here with an engine, since every gateway asks those."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable, Sequence

import structlog

from controlplane.gateway.engines import Engines, Party
from controlplane.gateway.live import RequestKey
from controlplane.gateway.polling import ask
from controlplane.model import Routes
from roundhouse.internal.unserved import may_come_again, rank
from roundhouse.kit.tasks import Background
from roundhouse.v1 import receipt_pb2

log = structlog.get_logger()

Receipt = receipt_pb2.CancelReceipt
MOST_UNDER_WAY = 64  # of a line that is left by thousands at once, engines have more to do than to hear
ENGINE_COUNT = 2  # that are tried
ANSWER_S = 0.5  # of each: both are tried within what whoever cancels waits for
WAIT_S = 1.0


class Depositing:
    """Tells one engine of the deployment that is ready, whichever, and one more if that does not answer.

    At most 64 receipts are under way at a time. What ends meanwhile is not deposited, nor is what neither engine took,
    or where none is ready: then only this gateway knows the receipt.
    """

    def __init__(
        self, routes: Callable[[], Routes], engines: Engines, background: Background, random: Callable[[], float]
    ) -> None:
        self._routes, self._engines, self._background, self._random = routes, engines, background, random
        self._under_way: dict[RequestKey, asyncio.Event] = {}
        self._is_ending = False

    def end(self) -> None:
        """Says that this gateway is about to end: who leaves it from now on need not be a client that has left."""
        self._is_ending = True

    def start(self, key: RequestKey, receipt: Receipt) -> None:
        """Begins to deposit a receipt."""
        is_doubtful = self._is_ending and receipt.cause == receipt_pb2.CANCEL_CAUSE_DISCONNECT
        if is_doubtful or len(self._under_way) >= MOST_UNDER_WAY:
            return
        done = self._under_way[key] = asyncio.Event()
        self._background.start(self._deposit(key, receipt, done), name=f"deposit {key.request_id}")

    async def wait(self, key: RequestKey, most_s: float) -> None:
        """Waits until a receipt is deposited that is under way, or is not going to be; a second at the most."""
        done = self._under_way.get(key)
        if done is not None:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(min(most_s, WAIT_S)):
                    await done.wait()

    async def _deposit(self, key: RequestKey, receipt: Receipt, done: asyncio.Event) -> None:
        try:
            if not await self._is_taken(key, receipt):
                log.info("receipt known here alone", deployment=key.deployment, request_id=key.request_id)
        finally:
            done.set()
            if self._under_way.get(key) is done:  # else the id has come, and ended, once more
                del self._under_way[key]

    async def _is_taken(self, key: RequestKey, receipt: Receipt) -> bool:
        ready = [each for each in self._routes().replicas.get(key.deployment, ()) if each.is_ready]
        party = Party(key.principal)
        for _ in range(min(ENGINE_COUNT, len(ready))):
            route = ready.pop(int(self._random() * len(ready)))
            answers, _ = await ask(
                [route], lambda each: self._engines.deposit(each, receipt, party, timeout_s=ANSWER_S)
            )
            if answers:
                return True
        return False


def best_of(own: Receipt | None, deposited: Sequence[Receipt], *, all_answered: bool) -> Receipt | None:
    """Returns the receipt of a request that no engine has, or is known to have had; None if there is none.

    own: what this gateway says. Of what others have deposited, only that of a cancel counts unless all engines have
    answered: another request may have come again, and run at one that is silent.
    """
    found = [each for each in deposited if all_answered or not may_come_again(each)]
    return max([*found, *([] if own is None else [own])], key=rank, default=None)

"""The real step loop and the real registry of an engine, which tell a test what has reached them."""

from __future__ import annotations

import asyncio
import threading
from collections import defaultdict
from collections.abc import Sequence
from typing import Any

from engines.loop import StepLoop
from engines.model import Cause, Progress, Sink, Work
from engines.service.requests import Requests
from roundhouse.v1 import receipt_pb2
from tests.support.scripted_model import PATIENCE_S


class HeardSteps:
    """The real step loop, and a way to wait for a cancel to reach it."""

    def __init__(self, steps: StepLoop) -> None:
        self._steps = steps
        self._changed = threading.Condition()
        self._cancelled: dict[str, Cause] = {}

    def submit(self, works: Sequence[Work], sink: Sink) -> None:
        self._steps.submit(works, sink)

    def cancel(self, key: str, cause: Cause) -> None:
        self._steps.cancel(key, cause)
        with self._changed:
            self._cancelled[key] = cause
            self._changed.notify_all()

    def has_joined(self, key: str) -> bool:
        return self._steps.has_joined(key)

    def progress(self) -> Progress:
        return self._steps.progress()

    def wait_cancelled(self, key: str) -> None:
        """Blocks until a cancel for `key` has come."""
        with self._changed:
            assert self._changed.wait_for(lambda: key in self._cancelled, timeout=PATIENCE_S)


class HeardRequests(Requests):
    """The real registry, and a way to wait for a CancelRequest to reach it."""

    def __init__(self, *arguments: Any, **named: Any) -> None:
        super().__init__(*arguments, **named)
        self._asked: defaultdict[str, asyncio.Event] = defaultdict(asyncio.Event)

    async def cancel(
        self, principal: str, request_id: str, cause: Cause = Cause.CLIENT, follower: str = ""
    ) -> receipt_pb2.CancelReceipt:
        self._asked[request_id].set()  # whoever waits for it runs only after the first pause of what follows
        return await super().cancel(principal, request_id, cause, follower)

    async def asked(self, request_id: str) -> None:
        """Waits until a CancelRequest has been taken in; that it waits for its receipt goes without saying."""
        await asyncio.wait_for(self._asked[request_id].wait(), PATIENCE_S)

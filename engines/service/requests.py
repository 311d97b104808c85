"""The requests of an engine: that run, that ended lately, and that were cancelled before they came."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass

import structlog

from engines.model import Cause, FinishReason
from engines.service import receipts
from engines.service.expiring import Expiring
from engines.service.identity import Identity
from engines.service.outcome import Outcome
from engines.service.run import Run
from engines.service.wakeups import Wakeups
from roundhouse.kit.clock import Clock
from roundhouse.kit.errors import AlreadyExists, Conflict, NoCapacity
from roundhouse.v1 import errors_pb2, receipt_pb2

log = structlog.get_logger()

RETRY_AFTER_S = 1.0  # a guess: how long the queue takes depends on outputs that nobody knows yet


@dataclass(frozen=True, slots=True)
class Memory:
    """How long what is over is remembered, and how much of it: each entry takes about a kilobyte."""

    receipt_ttl_s: float = 600.0
    receipt_limit: int = 10_000
    tombstone_ttl_s: float = 60.0
    tombstone_limit: int = 10_000
    receipt_wait_s: float = 10.0  # a step that takes longer hangs; a caller learns that rather than wait with it


class Requests:
    """Knows every request by (principal, request id). Belongs to the event loop."""

    def __init__(
        self,
        identity: Identity,
        wakeups: Wakeups,
        clock: Clock,
        *,
        live_limit: int,
        memory: Memory | None = None,
    ) -> None:
        """`live_limit`: while so many sequences live, also of prompts that are being tokenized, no request is taken.

        One request brings all its choices, so there may be a few more.
        """
        self._identity = identity
        self._live_limit = live_limit
        self._wakeups = wakeups
        self._clock = clock
        self._memory = memory = memory or Memory()
        self._live: dict[str, Run] = {}
        self._live_sequence_count = 0
        self._receipts: Expiring[receipt_pb2.CancelReceipt] = Expiring(
            clock, ttl_s=memory.receipt_ttl_s, limit=memory.receipt_limit
        )
        self._tombstones: Expiring[receipt_pb2.CancelReceipt] = Expiring(
            clock, ttl_s=memory.tombstone_ttl_s, limit=memory.tombstone_limit
        )

    @property
    def live(self) -> Sequence[Run]:
        """The runs that have not ended."""
        return tuple(self._live.values())

    def admit(self, principal: str, request_id: str, attempt: int, choice_count: int = 1) -> Run:
        """Takes a request in, so that from now on it can be cancelled. The caller starts or refuses the run.

        Raises AlreadyExists if the id is in use or remembered, Conflict if the request was cancelled before it came,
        NoCapacity if there are as many as may be.
        """
        key = _key(principal, request_id)
        if key in self._live or self._receipts.get(key) is not None:
            message = f'request "{request_id}" exists: choose another request_id, or none'
            raise AlreadyExists(message, reason=errors_pb2.ERROR_REASON_REQUEST_EXISTS)
        if self._tombstones.get(key) is not None:
            message = (
                f'request "{request_id}" was cancelled before it arrived: choose another request_id to run it anyway'
            )
            raise Conflict(message, reason=errors_pb2.ERROR_REASON_REQUEST_TOMBSTONED)
        if self._live_sequence_count >= self._live_limit:
            raise queue_full(self._live_sequence_count)
        run = Run(key, request_id, attempt, self._wakeups, self._close, choice_count=choice_count)
        self._live[key] = run
        self._live_sequence_count += choice_count
        return run

    async def cancel(self, principal: str, request_id: str, cause: Cause = Cause.CLIENT) -> receipt_pb2.CancelReceipt:
        """Ends a request, waits until its blocks are free, and returns the receipt: the same one at every call."""
        key = _key(principal, request_id)
        run = self._live.get(key)
        if run is not None:
            run.cancel(cause)
            await asyncio.wait([run.ended], timeout=self._memory.receipt_wait_s)
            if not run.ended.done():
                return receipts.unproven(self._identity, run, self._clock.now())
        receipt = self._receipts.get(key)
        if receipt is None:
            # A request that was refused has left nothing behind, so it counts as one that never came.
            receipt = self._tombstones.get(key) or receipts.not_arrived(self._identity, request_id, self._clock.now())
            self._tombstones.put(key, receipt)
        return receipt

    def _close(self, run: Run, outcome: Outcome | None) -> None:
        del self._live[run.key]
        self._live_sequence_count -= run.choice_count
        if outcome is None:
            return
        self._receipts.put(run.key, receipts.ended(self._identity, run, outcome, self._clock.now()))
        if outcome.reason is FinishReason.FAILED and not run.has_reader:  # a reader's call logs it
            log.error("request failed", request_id=run.request_id, exc_info=outcome.error)
        log.debug(
            "request ended",
            request_id=run.request_id,
            reason=outcome.reason.name,
            cause=None if outcome.cause is None else outcome.cause.name,
            tokens=outcome.output_token_count,
            duration_s=round(run.age_s(), 6),
        )


def queue_full(count: int) -> NoCapacity:
    """Returns the error of a request that comes when so many wait or run that it cannot even wait."""
    return NoCapacity(
        f"the engine's queue is full with {count} sequences: wait, or add replicas",
        reason=errors_pb2.ERROR_REASON_QUEUE_FULL,
        retry_after_s=RETRY_AFTER_S,
    )


def _key(principal: str, request_id: str) -> str:
    return f"{principal}/{request_id}"  # an id has no slash, so no two pairs give the same key

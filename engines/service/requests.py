"""The requests of an engine: that run, that ended lately, here or before they came, and that are not to come."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import chain

import structlog

from engines.model import Cause, FinishReason
from engines.service import log as event_log
from engines.service import receipts, views
from engines.service.archive import Archive
from engines.service.arrival import Arrival, Request, key_of
from engines.service.followers import ORPHAN_S
from engines.service.identity import Identity
from engines.service.outcome import Outcome
from engines.service.run import Run
from engines.service.wakeups import Wakeups
from roundhouse.internal import unserved
from roundhouse.kit.clock import Clock
from roundhouse.kit.errors import AlreadyExists, Conflict, NoCapacity, NotFound, Resource, RoundhouseError, Unreachable
from roundhouse.kit.expiring import Expiring
from roundhouse.v1 import errors_pb2, receipt_pb2, request_pb2

log = structlog.get_logger()

# Whoever kept a request that ended so may go on with it.
_GOES_ON = (receipt_pb2.CANCEL_CAUSE_HANDOVER, receipt_pb2.CANCEL_CAUSE_ORPHANED)

RETRY_AFTER_S = 1.0  # a guess: how long the queue takes depends on outputs that nobody knows yet


@dataclass(frozen=True, slots=True)
class Memory:
    """How long what is over is remembered, and how much of it: each entry takes about two kilobytes, without its log.

    A told token of a log takes some 100 bytes.
    """

    receipt_ttl_s: float = 600.0
    receipt_limit: int = 10_000
    tombstone_ttl_s: float = 60.0
    tombstone_limit: int = 10_000
    receipt_wait_s: float = 10.0  # a step that takes longer hangs; a caller learns that rather than wait with it
    log_ttl_s: float = 60.0  # of requests that do not say it themselves
    log_limit: int = 1 << 19  # told tokens in the logs of all that have ended: a minute at 8,700 tokens a second
    run_log_limit: int = event_log.LIMIT  # told tokens in the log of one that runs


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
        orphan_s: float = ORPHAN_S,
    ) -> None:
        """`live_limit`: while so many sequences live, also of prompts that are being tokenized, no request is taken.

        One request brings all its choices, so there may be a few more.
        """
        self.memory = memory = memory or Memory()
        self._identity = identity
        self._live_limit = live_limit
        self._wakeups = wakeups
        self._clock = clock
        self._orphan_s = orphan_s
        self._live: dict[str, Run] = {}
        self._live_sequence_count = 0
        self._ended: Expiring[str, request_pb2.InferenceRequest] = Expiring(
            clock, ttl_s=memory.receipt_ttl_s, limit=memory.receipt_limit
        )
        # Beside them, since a line that is left by thousands must not displace what ran.
        self._unserved: Expiring[str, request_pb2.InferenceRequest] = Expiring(
            clock, ttl_s=memory.receipt_ttl_s, limit=memory.receipt_limit
        )
        self._logs: Archive[Run] = Archive(clock, limit=memory.log_limit)
        self._tombstones: Expiring[str, receipt_pb2.CancelReceipt] = Expiring(
            clock, ttl_s=memory.tombstone_ttl_s, limit=memory.tombstone_limit
        )
        self._departed: Expiring[str, bool] = Expiring(  # calls whose clients had left when they had not come yet
            clock, ttl_s=memory.tombstone_ttl_s, limit=memory.tombstone_limit
        )

    @property
    def live(self) -> Sequence[Run]:
        """The runs that have not ended."""
        return tuple(self._live.values())

    def now(self) -> float:
        """Returns the time since 1970."""
        return self._clock.now()

    def find(self, principal: str, request_id: str) -> Run:
        """Returns a run that can be followed; raises NotFound if there is none, or not any more."""
        key = key_of(principal, request_id)
        run = self._live.get(key) or self._logs.get(key)
        if run is None:
            raise _not_found(request_id)
        return run

    def repeated(self, principal: str, request: Request, attempt: int, words: bytes) -> Run | None:
        """Returns the run that a call asks for once more; None if it asks for a new one.

        Raises AlreadyExists if it has the id of another request.
        """
        key = key_of(principal, request.request_id)
        run = self._live.get(key) or self._logs.get(key)
        if run is None or attempt > run.arrival.attempt:
            return None
        if not run.arrival.repeats(request, words):
            raise _exists(request.request_id)
        return run

    def require_client(self, principal: str, request_id: str, follower: str) -> None:
        """Raises Conflict if a call comes whose client had left before."""
        if follower and self._departed.get(_of_follower(key_of(principal, request_id), follower)):
            message = f'the client of this call for request "{request_id}" has left before the call arrived'
            raise Conflict(message, reason=errors_pb2.ERROR_REASON_REQUEST_TOMBSTONED)

    async def supersede(self, principal: str, request_id: str, attempt: int) -> bool:
        """Ends a lower attempt at a request that runs here, so that a higher one may; returns whether there was one.

        Raises Unreachable if its step does not come to an end.
        """
        run = self._live.get(key_of(principal, request_id))
        if run is None or run.arrival.attempt >= attempt:
            return False
        run.cancel(Cause.HANDOVER)
        await asyncio.wait([run.ended], timeout=self.memory.receipt_wait_s)
        if not run.ended.done():
            raise Unreachable(
                f'request "{request_id}" still runs here, and its step does not end: pick another replica'
            )
        return True

    def admit(self, arrival: Arrival) -> Run:
        """Takes a request in, so that from now on it can be cancelled. The caller prepares the run.

        Raises AlreadyExists if the id is in use or remembered, unless by a lower attempt that has ended; Conflict if
        the request was cancelled before it came; NoCapacity if there are as many as may be.
        """
        key, request_id = arrival.key, arrival.request_id
        before = self._over(key)
        if key in self._live or (before is not None and before.attempt >= arrival.attempt):
            raise _exists(request_id)
        if (before is not None and _was_cancelled(before.receipt)) or self._tombstones.get(key) is not None:
            message = (
                f'request "{request_id}" was cancelled before it arrived: choose another request_id to run it anyway'
            )
            raise Conflict(message, reason=errors_pb2.ERROR_REASON_REQUEST_TOMBSTONED)
        if self._live_sequence_count >= self._live_limit:
            raise queue_full(self._live_sequence_count)
        run = Run(arrival, self._wakeups, self._close, orphan_s=self._orphan_s)
        self._live[key] = run
        self._live_sequence_count += run.choice_count
        return run

    async def cancel(
        self, principal: str, request_id: str, cause: Cause = Cause.CLIENT, follower: str = ""
    ) -> receipt_pb2.CancelReceipt:
        """Ends a request, waits until its blocks are free, and returns the receipt: the same one at every call.

        With DISCONNECT, says that the client of that follower has left; the receipt of a run that goes on is UNPROVEN.
        Where none is there, only calls of that follower are refused from now on: others may want it.
        """
        key = key_of(principal, request_id)
        run = self._live.get(key)
        if run is not None:
            if cause is Cause.DISCONNECT and not run.followers.dismiss(follower):
                return receipts.unproven(self._identity, run, self._clock.now(), is_told=False)
            run.cancel(cause)
            await asyncio.wait([run.ended], timeout=self.memory.receipt_wait_s)
            if not run.ended.done():
                return receipts.unproven(self._identity, run, self._clock.now(), is_told=True)
        elif cause is Cause.DISCONNECT and follower:
            self._departed.put(_of_follower(key, follower), True)
        ended = self._over(key)
        if ended is not None:
            if cause is Cause.CLIENT and (ended.receipt.cause in _GOES_ON or unserved.may_come_again(ended.receipt)):
                self._refuse_later(key, request_id)
            return ended.receipt
        # A request that was refused has left nothing behind, so it counts as one that never came.
        return self._refuse_later(key, request_id) if cause is Cause.CLIENT else self._not_arrived(key, request_id)

    def keep(self, principal: str, request_id: str, receipt: receipt_pb2.CancelReceipt) -> receipt_pb2.CancelReceipt:
        """Keeps the receipt of a request that ended while it waited at a gateway, unless it runs here or has run here.

        Returns the receipt that there is then; of one that runs it is UNPROVEN.
        """
        key = key_of(principal, request_id)
        run = self._live.get(key)
        if run is not None:
            return receipts.unproven(self._identity, run, self._clock.now(), is_told=False)
        before = self._over(key)
        if before is not None and (before.attempt or unserved.rank(before.receipt) >= unserved.rank(receipt)):
            return before.receipt
        self._unserved.put(key, unserved.view(receipt))
        return receipt

    def view(self, principal: str, request_id: str) -> request_pb2.InferenceRequest:
        """Returns what is known of a request; raises NotFound if nothing is."""
        key = key_of(principal, request_id)
        run = self._live.get(key)
        if run is not None:
            return views.living(self._identity, run)
        ended = self._over(key)
        if ended is not None:
            return ended
        tombstone = self._tombstones.get(key)
        if tombstone is None:
            raise _not_found(request_id)
        return views.never_came(tombstone)

    def views(self, principal: str) -> Iterator[request_pb2.InferenceRequest]:
        """Yields what is known of the requests of a principal that run or ended lately; each once, in any order."""
        prefix = key_of(principal, "")
        for key, run in self._live.items():
            if key.startswith(prefix):
                yield views.living(self._identity, run)
        for key, ended in chain(self._ended.items(), self._unserved.items()):
            if key.startswith(prefix) and key not in self._live:
                yield ended

    def _over(self, key: str) -> request_pb2.InferenceRequest | None:
        """Returns a request that ran, or else ended before it came; not both are kept."""
        return self._ended.get(key) or self._unserved.get(key)

    def _refuse_later(self, key: str, request_id: str) -> receipt_pb2.CancelReceipt:
        """Has all runs of a request that come from now on refused; returns what to say if none ever came."""
        receipt = self._not_arrived(key, request_id)
        self._tombstones.put(key, receipt)
        return receipt

    def _not_arrived(self, key: str, request_id: str) -> receipt_pb2.CancelReceipt:
        return self._tombstones.get(key) or receipts.not_arrived(self._identity, request_id, self._clock.now())

    def _close(self, run: Run, outcome: Outcome | None) -> None:
        del self._live[run.key]
        self._live_sequence_count -= run.choice_count
        # Here, since a higher attempt that waits for this end may be the first to learn of it. What has ended by the
        # cancel is refused for as long as its receipt is kept.
        if run.is_unwanted and (outcome is None or outcome.cause is not Cause.CLIENT):
            self._refuse_later(run.key, run.arrival.request_id)
        if outcome is None:
            if run.refusal is not None and not isinstance(run.refusal, RoundhouseError) and not run.followers.count:
                log.error("request failed", request_id=run.arrival.request_id, exc_info=run.refusal)
            return
        receipt = receipts.ended(self._identity, run, outcome, self._clock.now())
        self._ended.put(run.key, views.ended(self._identity, run, receipt))
        self._unserved.forget(run.key)
        if run.log is not None:
            ttl_s = run.arrival.ttl_s if run.arrival.detaches else self.memory.log_ttl_s
            self._logs.put(run.key, run, size=run.log.told_count, ttl_s=ttl_s)
        if outcome.reason is FinishReason.FAILED and not run.followers.count:  # a follower's call logs it
            log.error("request failed", request_id=run.arrival.request_id, exc_info=outcome.error)
        log.debug(
            "request ended",
            request_id=run.arrival.request_id,
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


def _was_cancelled(receipt: receipt_pb2.CancelReceipt) -> bool:
    is_cancelled: bool = receipt.outcome == receipt_pb2.CANCEL_OUTCOME_CANCELLED
    return is_cancelled and not unserved.may_come_again(receipt)


def _of_follower(key: str, follower: str) -> str:
    return f"{follower}/{key}"  # nor has the name of a follower a slash


def _exists(request_id: str) -> AlreadyExists:
    message = f'request "{request_id}" exists: choose another request_id, or none'
    return AlreadyExists(message, reason=errors_pb2.ERROR_REASON_REQUEST_EXISTS)


def _not_found(request_id: str) -> NotFound:
    return NotFound(
        f'there is no request "{request_id}" here, or not any more: check the id',
        reason=errors_pb2.ERROR_REASON_REQUEST_NOT_FOUND,
        resource=Resource("roundhouse.v1.InferenceRequest", request_id),
    )

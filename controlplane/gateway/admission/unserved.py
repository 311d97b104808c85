"""The receipts of requests that ended while they waited: nothing was computed, so the gateway itself can say so."""

from __future__ import annotations

from controlplane.gateway.live import RequestKey
from roundhouse.kit.clock import Clock
from roundhouse.kit.expiring import Expiring
from roundhouse.kit.times import to_timestamp
from roundhouse.v1 import receipt_pb2
from roundhouse.v1.receipt_pb2 import CancelReceipt

KEPT_S = 600.0  # as long as engines keep theirs, and as many
KEPT_COUNT = 10_000
_BY_CLIENT = (receipt_pb2.CANCEL_CAUSE_CLIENT, receipt_pb2.CANCEL_CAUSE_DISCONNECT)


class Unserved:
    """At most the newest 10,000 receipts, 10 minutes each."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._receipts: Expiring[RequestKey, CancelReceipt] = Expiring(clock, ttl_s=KEPT_S, limit=KEPT_COUNT)

    def put(self, key: RequestKey, cause: receipt_pb2.CancelCause, sequences: int) -> CancelReceipt:
        """Makes and keeps the receipt of a request that has just ended."""
        outcome = (
            receipt_pb2.CANCEL_OUTCOME_CANCELLED if cause in _BY_CLIENT else receipt_pb2.CANCEL_OUTCOME_ALREADY_FINISHED
        )
        receipt = CancelReceipt(
            deployment=key.deployment,
            request_id=key.request_id,
            outcome=outcome,
            level=receipt_pb2.CANCEL_LEVEL_STOPPED,  # it held no blocks, and no cache has counted that
            cause=cause,
            positions=[receipt_pb2.ChoicePosition(choice=choice) for choice in range(sequences)],
            output_token_count=0,
            receipt_time=to_timestamp(self._clock.now()),
        )
        self._receipts.put(key, receipt)
        return receipt

    def keep(self, key: RequestKey, receipt: CancelReceipt) -> None:
        """Keeps a receipt that was made elsewhere."""
        self._receipts.put(key, receipt)

    def get(self, key: RequestKey) -> CancelReceipt | None:
        """Returns the receipt of a request; None if it did not end that way, or long ago."""
        return self._receipts.get(key)

    def forget(self, key: RequestKey) -> None:
        """Drops a receipt: the id names another request from now on."""
        self._receipts.forget(key)

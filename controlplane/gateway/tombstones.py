"""Requests that were cancelled before they came: whichever replica they would go to, they are refused for a while."""

from __future__ import annotations

from controlplane.gateway.live import RequestKey
from roundhouse.kit.clock import Clock
from roundhouse.kit.errors import Conflict
from roundhouse.kit.expiring import Expiring
from roundhouse.v1 import errors_pb2, receipt_pb2

KEPT_S = 60.0
KEPT_COUNT = 10_000
Receipt = receipt_pb2.CancelReceipt


class Tombstones:
    """Engines keep tombstones too, but a replica that comes later has none. At most the newest 10,000, 60 s each."""

    def __init__(self, clock: Clock) -> None:
        self._receipts: Expiring[RequestKey, Receipt] = Expiring(clock, ttl_s=KEPT_S, limit=KEPT_COUNT)

    def put(self, key: RequestKey, receipt: Receipt) -> Receipt:
        """Refuses the request from now on; returns the receipt of the first time, if it was refused already."""
        receipt = self.receipt(key) or receipt
        self._receipts.put(key, receipt)
        return receipt

    def check(self, key: RequestKey) -> None:
        """Raises Conflict if the request was cancelled before it came."""
        if self.receipt(key) is not None:
            raise Conflict(
                f'request "{key.request_id}" was cancelled before it arrived: choose another request_id to run it '
                "anyway",
                reason=errors_pb2.ERROR_REASON_REQUEST_TOMBSTONED,
            )

    def receipt(self, key: RequestKey) -> Receipt | None:
        """Returns the receipt of a request that is refused; None if it is not."""
        return self._receipts.get(key)

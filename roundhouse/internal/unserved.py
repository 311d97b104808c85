"""Requests that ended while they waited for their turn at a gateway. No engine ran them: their attempt is 0.

Alike for engines, which keep such receipts, and gateways, which find several for one id. Pure.
"""

from __future__ import annotations

from roundhouse.v1 import receipt_pb2, request_pb2


def may_come_again(receipt: receipt_pb2.CancelReceipt) -> bool:
    """Tells whether the id may be sent again: who was cancelled is not to run, who waited in vain may try once more."""
    return not receipt.attempt and receipt.cause != receipt_pb2.CANCEL_CAUSE_CLIENT


def rank(receipt: receipt_pb2.CancelReceipt) -> tuple[bool, int]:
    """Of several receipts for one id, that of a cancel goes first, for it is final, then the newest; highest first."""
    return not may_come_again(receipt), receipt.receipt_time.ToNanoseconds()


def view(receipt: receipt_pb2.CancelReceipt) -> request_pb2.InferenceRequest:
    """Returns such a request, or one that ended between two engines, as whoever made its receipt knows it.

    Its end stands for its arrival, which the receipt does not tell.
    """
    return request_pb2.InferenceRequest(
        deployment=receipt.deployment,
        request_id=receipt.request_id,
        replica=receipt.replica,
        attempt=receipt.attempt,
        state=request_pb2.REQUEST_STATE_ENDED,
        positions=receipt.positions,
        arrival_time=receipt.receipt_time,
        receipt=receipt,
    )

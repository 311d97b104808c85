"""How much each tenant may use in a time. Pure: times come in."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from controlplane.model import Quota

BURST_S = 1.0  # of requests at once
_MINUTE_S = 60.0  # of tokens at once


@dataclass(frozen=True, slots=True)
class Exceeded:
    """Why a tenant has to wait, and for how long."""

    what: str  # for people
    retry_s: float


class _Bucket:
    """What is left of an allowance that fills up again."""

    def __init__(self, per_s: float, most: float, now_s: float) -> None:
        self._per_s, self._most = per_s, most
        self._left, self._at_s = most, now_s

    def wait_s(self, needed: float, now_s: float) -> float:
        """Returns how long it takes until so much is left; 0 if it is."""
        self._left = min(self._most, self._left + self._per_s * max(0.0, now_s - self._at_s))
        self._at_s = max(self._at_s, now_s)
        return max(0.0, needed - self._left) / self._per_s

    def take(self, amount: float) -> None:
        """Takes so much, also if less is left; gives back if it is below 0."""
        self._left = min(self._most, self._left - amount)


class Quotas:
    """The allowances of tenants that have a quota; access tokens name them, so there are as many as of these at most.

    Of tokens, a tenant that has any left may begin a request, and pays back what that takes beyond them before the next
    one: how many it takes is known only when it has ended.
    """

    def __init__(self, quota_of: Callable[[str], Quota | None]) -> None:
        self._quota_of = quota_of
        self._requests: dict[str, _Bucket] = {}
        self._tokens: dict[str, _Bucket] = {}

    def begin(self, tenant: str, now_s: float) -> Exceeded | None:
        """Takes one request from what is left, or says why not."""
        quota = self._quota_of(tenant)
        if quota is None:
            return None
        requests, minute = self._of(tenant, quota, now_s)
        if requests is not None and (wait_s := requests.wait_s(1.0, now_s)) > 0:
            return Exceeded(f"{quota.requests_per_s:g} requests a second", wait_s)
        if minute is not None and (wait_s := minute.wait_s(1.0, now_s)) > 0:
            return Exceeded(f"{quota.tokens_per_min:g} tokens a minute", wait_s)
        if requests is not None:
            requests.take(1.0)
        return None

    def use(self, tenant: str, tokens: int) -> None:
        """Takes so many tokens for a request that has begun; gives back if that is below 0."""
        if (bucket := self._tokens.get(tenant)) is not None:
            bucket.take(tokens)

    def _of(self, tenant: str, quota: Quota, now_s: float) -> tuple[_Bucket | None, _Bucket | None]:
        if quota.requests_per_s is not None and tenant not in self._requests:
            per_s = quota.requests_per_s
            self._requests[tenant] = _Bucket(per_s, max(1.0, per_s * BURST_S), now_s)
        if quota.tokens_per_min is not None and tenant not in self._tokens:
            per_min = quota.tokens_per_min
            self._tokens[tenant] = _Bucket(per_min / _MINUTE_S, max(1.0, per_min), now_s)
        return self._requests.get(tenant), self._tokens.get(tenant)

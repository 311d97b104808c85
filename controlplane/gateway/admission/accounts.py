"""What each tenant was given, so that the one that had the least for its weight goes next. Pure.

Source: the virtual token counters of Sheng et al. 2024, arXiv:2401.00588.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable

from controlplane.gateway.admission.requests import Request

IDLE_COUNT = 256  # accounts of tenants without requests that are kept at the most
FIRST_MEAN = 256.0  # output tokens of a sequence, as long as nothing is known
_NEWEST = 0.1  # share of the newest in a mean


class Account:
    """One tenant at one deployment."""

    __slots__ = (
        "going_sequences",
        "level",
        "output_mean",
        "queue",
        "tenant",
        "waiting_cost",
        "waiting_tokens",
        "weight",
    )

    def __init__(self, tenant: str, weight: float, output_mean: float) -> None:
        self.tenant, self.weight, self.output_mean = tenant, weight, output_mean
        self.level = 0.0  # weighted tokens for each unit of its weight
        self.queue: list[Request] = []  # those that wait, the next one first
        self.waiting_cost = 0.0  # of these, weighted
        self.waiting_tokens = 0
        self.going_sequences = 0

    @property
    def is_idle(self) -> bool:
        """Tells whether it has no requests."""
        return not self.queue and not self.going_sequences


class Accounts:
    """The accounts of one deployment.

    A tenant is active while it waits. One that becomes active is lifted to the least of those that are, or if there is
    none to where the last one stood that was let in: neither an idle time nor one in which it had less than its share
    because it did not ask for more is ever made up for.
    """

    def __init__(self, weight_of: Callable[[str], float]) -> None:
        self._weight_of = weight_of
        self._accounts: dict[str, Account] = {}  # those that are idle in the order in which they became it
        self._active: dict[str, Account] = {}
        self._last_level = 0.0
        self._mean = FIRST_MEAN
        self._weight = 0.0  # of all that are not idle

    def __len__(self) -> int:
        return len(self._accounts)

    @property
    def active(self) -> Iterable[Account]:
        """Those that wait."""
        return self._active.values()

    def of(self, tenant: str) -> Account:
        """Returns the account of a tenant, which is about to get a request."""
        account = self._accounts.get(tenant)
        if account is None:
            account = self._accounts[tenant] = Account(tenant, self._weight_of(tenant), self._mean)
        if account.is_idle:
            self._weight += account.weight
        return account

    def wait(self, account: Account) -> None:
        """Notes that an account is about to wait, if it does not yet."""
        if account.tenant not in self._active:
            floor = min((each.level for each in self._active.values()), default=self._last_level)
            account.level = max(account.level, floor)
            self._active[account.tenant] = account

    def settle(self, account: Account) -> None:
        """Notes that a request of an account has left its queue, or has ended."""
        if not account.queue:
            self._active.pop(account.tenant, None)
        if account.is_idle:
            self._weight -= account.weight
            self._accounts[account.tenant] = self._accounts.pop(account.tenant)
            if len(self._accounts) > IDLE_COUNT:
                self._forget()

    def next(self) -> Account | None:
        """Returns the account whose request goes next; None if nobody waits.

        Of equals, as they are when one begins to wait, the one that has least at engines: it need not wait for those
        that came before it of a tenant that has much there.
        """

        def order(account: Account) -> tuple[float, float, float]:
            return account.level, account.going_sequences / account.weight, account.queue[0].arrived_s

        return min(self._active.values(), key=order, default=None)

    def begin(self, account: Account) -> None:
        """Notes that a request of an account is let in, before that is charged."""
        self._last_level = account.level

    def charge(self, account: Account, cost: float) -> None:
        """Charges an account; gives back if that is below 0."""
        account.level += cost / account.weight

    def learn(self, account: Account, output_tokens: float) -> None:
        """Notes how much output a sequence had."""
        account.output_mean += _NEWEST * (output_tokens - account.output_mean)
        self._mean += _NEWEST * (output_tokens - self._mean)

    def share(self, account: Account) -> float:
        """Returns the share of an account among all that are not idle, in (0, 1]."""
        return min(1.0, account.weight / max(self._weight, account.weight))

    def _forget(self) -> None:
        """Drops the account that has been idle for longest, if one is."""
        for tenant, account in self._accounts.items():
            if account.is_idle:
                del self._accounts[tenant]
                return

"""Those that wait for one deployment: in whose turn, how many at the most, and who has to leave. Pure."""

from __future__ import annotations

import bisect
from collections.abc import Callable
from operator import attrgetter

from controlplane.gateway.admission.accounts import Account, Accounts
from controlplane.gateway.admission.requests import OUTPUT_WEIGHT, PROMPT_WEIGHT, Request

AGEING_S = 5.0  # as engines have it: for each that it has waited, a request counts as one priority higher
MOST_PRIORITY = 100
_PLACE = attrgetter("place")


class Waiting:
    """A queue for each tenant.

    Between tenants the accounts decide. Within one, a request goes before those that came up to `AGEING_S` for each
    unit of priority before it; so none is passed by for ever, and nobody gets before other tenants by what he says of
    himself.
    """

    def __init__(self, accounts: Accounts, *, max_requests: int, max_tokens: int) -> None:
        self._accounts, self._max_requests, self._max_tokens = accounts, max_requests, max_tokens
        self._arrivals = 0
        self.count = 0
        self.tokens = 0
        self.cost = 0.0  # weighted

    def add(self, request: Request, account: Account) -> None:
        """Puts a request into its place."""
        self._arrivals += 1
        priority = max(-MOST_PRIORITY, min(request.priority, MOST_PRIORITY))
        request.account = account
        request.place = (request.arrived_s - priority * AGEING_S, self._arrivals)
        output_tokens = request.cost.output_tokens(account.output_mean)
        request.prompt_tokens = request.cost.prompt_tokens
        request.tokens = request.prompt_tokens + output_tokens
        request.charge = PROMPT_WEIGHT * request.prompt_tokens + OUTPUT_WEIGHT * output_tokens
        self._accounts.wait(account)
        bisect.insort(account.queue, request, key=_PLACE)
        self._count(request, +1)

    def remove(self, request: Request) -> None:
        """Takes a request out, wherever it is. Its account is to be settled."""
        queue = request.account.queue
        index = bisect.bisect_left(queue, request.place, key=_PLACE)
        assert queue[index] is request
        del queue[index]
        self._count(request, -1)

    def first(self) -> Request | None:
        """Returns whose turn it is."""
        account = self._accounts.next()
        return None if account is None else account.queue[0]

    def surplus(self) -> Request | None:
        """Returns who has to leave because there are too many: the last one of the tenant that has most for its weight.

        Most of what there is too much of: requests, or tokens.
        """
        if self.count > self._max_requests:
            return self._last_of_most(lambda each: len(each.queue))
        if self.tokens > self._max_tokens:
            return self._last_of_most(lambda each: each.waiting_tokens)
        return None

    def cost_before(self, request: Request) -> float:
        """Returns the cost of what goes before a request that waits: by its place, and by the share of its tenant."""
        queue = request.account.queue
        if queue[-1] is request:
            own = request.account.waiting_cost - request.charge
        else:
            own = sum(each.charge for each in queue[: bisect.bisect_left(queue, request.place, key=_PLACE)])
        return min(own / self._accounts.share(request.account), self.cost - request.charge)

    def _last_of_most(self, measure: Callable[[Account], float]) -> Request:
        most = max(self._accounts.active, key=lambda each: (measure(each) / each.weight, each.queue[-1].place[1]))
        return most.queue[-1]

    def _count(self, request: Request, change: int) -> None:
        self.count += change
        self.tokens += change * request.tokens
        self.cost += change * request.charge
        request.account.waiting_tokens += change * request.tokens
        request.account.waiting_cost += change * request.charge

"""Lets requests into the engines of their deployments in turn. Owned by the gateway's event loop."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable, Sequence
from types import TracebackType
from typing import Self

from controlplane.gateway.admission import refusals
from controlplane.gateway.admission.line import Line
from controlplane.gateway.admission.quotas import Quotas
from controlplane.gateway.admission.requests import Cost, Request, Stage
from controlplane.gateway.admission.room import Facts, facts_of
from controlplane.gateway.admission.unserved import Unserved
from controlplane.gateway.live import RequestKey
from controlplane.model import AdmissionSettings, Routes
from roundhouse.kit.clock import Clock
from roundhouse.kit.errors import RoundhouseError
from roundhouse.v1 import receipt_pb2
from roundhouse.v1.receipt_pb2 import CancelReceipt

# The call may be ended by its deadline a moment before the clock says so.
DEADLINE_TOLERANCE_S = 0.05
_DEADLINE = receipt_pb2.CANCEL_CAUSE_DEADLINE
_CAUSES = {Stage.LATE: _DEADLINE, Stage.PUT_OUT: receipt_pb2.CANCEL_CAUSE_EVICTED}


class Withdrawn(Exception):
    """A request was cancelled while it waited, by somebody other than its caller. `receipt` says so."""

    def __init__(self, receipt: CancelReceipt) -> None:
        super().__init__(receipt.request_id)
        self.receipt = receipt


class Admission:
    """The lines of all deployments: none holds up another."""

    def __init__(
        self,
        settings: AdmissionSettings,
        routes: Callable[[], Routes],
        clock: Clock,
        *,
        deposit: Callable[[RequestKey, CancelReceipt], None] = lambda _key, _receipt: None,
    ) -> None:
        """deposit: is given the receipt of each request that ends while it waits, for others to find."""
        self._settings, self._routes, self._clock, self._deposit = settings, routes, clock, deposit
        self._quotas = Quotas(settings.quota_of)
        self._lines: dict[str, Line] = {}
        self._waiting: dict[RequestKey, Ticket] = {}
        self._tickets: dict[Request, Ticket] = {}  # the same
        self._unserved = Unserved(clock)

    def admitted(
        self, key: RequestKey, cost: Cost, *, tenant: str = "", priority: int = 0, deadline_s: float | None = None
    ) -> Ticket:
        """Returns a block that is entered when it is the turn of the request, and gives up its place at its end.

        deadline_s: after how long the request has to have ended. Where there is room, the block is entered at once,
        without a switch of tasks. Entering it raises NoCapacity if its turn cannot come (QUEUE_FULL, DEADLINE_TOO_NEAR,
        QUOTA_EXCEEDED), DeadlineExceeded if it did not in time, and Withdrawn if the request was cancelled before.
        """
        now_s = self._clock.monotonic()
        due_s = None if deadline_s is None else now_s + deadline_s
        return Ticket(self, key, tenant, Request(cost, now_s, priority, due_s), self._clock.now())

    def cancel(self, key: RequestKey) -> CancelReceipt | None:
        """Ends a request that waits; returns its receipt, or None if it does not."""
        ticket = self._waiting.get(key)
        if ticket is None:
            return None
        receipt = self._withdraw(ticket, receipt_pb2.CANCEL_CAUSE_CLIENT)
        ticket.wake(Withdrawn(receipt))
        return receipt

    def is_waiting(self, key: RequestKey) -> bool:
        """Tells whether a request waits for its turn."""
        return key in self._waiting

    def arrival_time_s(self, key: RequestKey) -> float:
        """Returns when a request that waits came here, since 1970."""
        return self._waiting[key].arrival_time_s

    def receipt(self, key: RequestKey) -> CancelReceipt | None:
        """Returns the receipt of a request that ended while it was at no engine; None if it did not, or long ago."""
        return self._unserved.get(key)

    def keep(self, key: RequestKey, receipt: CancelReceipt) -> None:
        """Keeps the receipt of a request that ended between two engines, until the id comes once more."""
        self._unserved.keep(key, receipt)

    def waiting(self, deployment: str) -> Sequence[RequestKey]:
        """Returns the requests that wait for a deployment."""
        return [key for key in self._waiting if key.deployment == deployment]

    def look(self, routes: Routes) -> None:
        """Takes in what is known of engines now."""
        for deployment, line in list(self._lines.items()):
            if line.is_idle and deployment not in routes.replicas:
                del self._lines[deployment]
            else:
                self._tell(line.look(_facts(routes, deployment), self._clock.monotonic()))

    # What tickets ask for.

    def arrive(self, ticket: Ticket) -> None:
        """Lets a request in or lets it wait; raises NoCapacity if it can have neither."""
        request, now_s = ticket.request, self._clock.monotonic()
        exceeded = self._quotas.begin(ticket.tenant, now_s)
        if exceeded is not None:
            raise refusals.quota_exceeded(ticket.tenant, exceeded)
        self._unserved.forget(ticket.key)
        changed = self._line(ticket.key.deployment).arrive(request, ticket.tenant, now_s)
        if request.stage is Stage.WAITING:
            self._waiting[ticket.key] = self._tickets[request] = ticket
        self._tell(each for each in changed if each is not request)
        if request.stage not in (Stage.WAITING, Stage.GOING):
            raise self._refusal(ticket)
        self._quotas.use(ticket.tenant, request.tokens)

    def give_up(self, ticket: Ticket) -> None:
        """Ends the waiting of a request whose caller has left, or whose deadline has passed."""
        request = ticket.request
        if request.stage is Stage.WAITING:
            self._withdraw(ticket, _DEADLINE if self._is_late(request) else receipt_pb2.CANCEL_CAUSE_DISCONNECT)
        elif request.stage is Stage.GOING:  # it was let in just now, and is not on its way yet
            self.used(ticket, 0, 0)
            self.leave(ticket)

    def expire(self, ticket: Ticket) -> None:
        """Ends the waiting of a request at its deadline."""
        if ticket.request.stage is Stage.WAITING:
            self._withdraw(ticket, _DEADLINE)
            ticket.wake(refusals.too_late(ticket.key.deployment, self._clock.monotonic() - ticket.request.arrived_s))

    def used(self, ticket: Ticket, output_tokens: int, prompt_tokens: int | None = None) -> None:
        """Notes what a request has taken so far."""
        self._lines[ticket.key.deployment].used(ticket.request, output_tokens, prompt_tokens)

    def leave(self, ticket: Ticket) -> None:
        """Takes a request out, and lets in who is next."""
        self._tell(self._lines[ticket.key.deployment].leave(ticket.request, self._clock.monotonic()))
        self._settle(ticket)

    # Within.

    def _withdraw(self, ticket: Ticket, cause: receipt_pb2.CancelCause) -> CancelReceipt:
        del self._tickets[ticket.request]
        if self._waiting.get(ticket.key) is ticket:
            del self._waiting[ticket.key]
        receipt = self._ended(ticket, cause)
        self.leave(ticket)
        return receipt

    def _ended(self, ticket: Ticket, cause: receipt_pb2.CancelCause) -> CancelReceipt:
        receipt = self._unserved.put(ticket.key, cause, ticket.request.cost.sequences)
        self._deposit(ticket.key, receipt)
        return receipt

    def _tell(self, changed: Iterable[Request]) -> None:
        """Wakes those who wait no more."""
        for request in changed:
            ticket = self._tickets.pop(request)
            if self._waiting.get(ticket.key) is ticket:
                del self._waiting[ticket.key]
            if request.stage is Stage.GOING:
                ticket.wake(None)
            else:
                self._ended(ticket, _CAUSES[request.stage])
                self._settle(ticket)
                ticket.wake(self._refusal(ticket))

    def _settle(self, ticket: Ticket) -> None:
        self._quotas.use(ticket.tenant, ticket.request.used_tokens - ticket.request.tokens)

    def _refusal(self, ticket: Ticket) -> RoundhouseError:
        request, deployment = ticket.request, ticket.key.deployment
        if request.stage is Stage.TOO_NEAR:
            assert request.due_s is not None
            return refusals.deadline_too_near(deployment, request.due_s - request.arrived_s, request.retry_s)
        if request.stage is Stage.LATE:
            return refusals.too_late(deployment, self._clock.monotonic() - request.arrived_s)
        return refusals.queue_full(
            deployment, self._settings.queue_requests, self._settings.queue_tokens, request.retry_s
        )

    def _is_late(self, request: Request) -> bool:
        return request.due_s is not None and self._clock.monotonic() >= request.due_s - DEADLINE_TOLERANCE_S

    def _line(self, deployment: str) -> Line:
        line = self._lines.get(deployment)
        if line is None:
            line = self._lines[deployment] = Line(
                max_requests=self._settings.queue_requests,
                max_tokens=self._settings.queue_tokens,
                weight_of=self._settings.weight_of,
            )
            line.look(_facts(self._routes(), deployment), self._clock.monotonic())
        return line


class Ticket:
    """A place in a line, and then at an engine. A block, entered once."""

    def __init__(
        self, admission: Admission, key: RequestKey, tenant: str, request: Request, arrival_time_s: float
    ) -> None:
        self._admission = admission
        self.arrival_time_s = arrival_time_s
        self.key, self.tenant, self.request = key, tenant, request
        self.waited_s = 0.0  # for its turn
        self._woken: asyncio.Future[None] | None = None

    async def __aenter__(self) -> Self:
        self._admission.arrive(self)
        if self.request.stage is Stage.WAITING:
            await self._turn()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._admission.leave(self)

    def spent(self, output_tokens: int, prompt_tokens: int | None = None) -> None:
        """Says what the request has taken so far: output tokens over all its choices, and the prompt's once known.

        Cheap. If it is never said, what was expected is taken for it.
        """
        self._admission.used(self, output_tokens, prompt_tokens)

    def wake(self, error: Exception | None) -> None:
        """Ends the waiting: with an error, or because it is its turn."""
        assert self._woken is not None
        if self._woken.done():  # its caller has left at the same moment
            return
        if error is None:
            self._woken.set_result(None)
        else:
            self._woken.set_exception(error)

    async def _turn(self) -> None:
        loop = asyncio.get_running_loop()
        self._woken, begin_s = loop.create_future(), loop.time()
        due_s, arrived_s = self.request.due_s, self.request.arrived_s
        timer = None if due_s is None else loop.call_later(due_s - arrived_s, self._admission.expire, self)
        try:
            await self._woken
        except asyncio.CancelledError:
            self._admission.give_up(self)
            raise
        finally:
            self.waited_s = loop.time() - begin_s
            if timer is not None:
                timer.cancel()


def _facts(routes: Routes, deployment: str) -> Facts | None:
    """Returns what is known of the engines of a deployment that takes requests; None if it takes none."""
    if deployment in routes.deleting:
        return None
    return facts_of(routes.replicas.get(deployment, ()), routes.gateway_count)

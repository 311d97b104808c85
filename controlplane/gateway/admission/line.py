"""The line in front of one deployment: who is let in, who waits, who is refused. Pure: times come in."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from controlplane.gateway.admission.accounts import Accounts
from controlplane.gateway.admission.drain import Drain
from controlplane.gateway.admission.requests import OUTPUT_WEIGHT, PROMPT_WEIGHT, Request, Stage
from controlplane.gateway.admission.room import Facts, Room, room_of
from controlplane.gateway.admission.waiting import Waiting


class Line:
    """Requests of one deployment. Nobody waits while there is room.

    What changes anything returns the requests whose stage that changed; how each ended stands in it.
    """

    def __init__(
        self, *, max_requests: int, max_tokens: int, weight_of: Callable[[str], float] = lambda _: 1.0
    ) -> None:
        self._accounts = Accounts(weight_of)
        self._waiting = Waiting(self._accounts, max_requests=max_requests, max_tokens=max_tokens)
        self._drain = Drain()
        self._room = Room()
        self.going_sequences = 0
        self.going_tokens = 0

    @property
    def waiting_count(self) -> int:
        """Requests that wait."""
        return self._waiting.count

    @property
    def waiting_tokens(self) -> int:
        """What they are expected to take."""
        return self._waiting.tokens

    @property
    def is_idle(self) -> bool:
        """Tells whether nobody is here."""
        return not self._waiting.count and not self.going_sequences

    def look(self, facts: Facts | None, now_s: float) -> Sequence[Request]:
        """Takes in what is known of the engines now; None: none is ready."""
        self._room = room_of(facts, self.going_sequences)
        return self._advance(now_s)

    def arrive(self, request: Request, tenant: str, now_s: float) -> Sequence[Request]:
        """Lets a request in, lets it wait, or refuses it, which may be at the expense of another that waits."""
        self._waiting.add(request, self._accounts.of(tenant))
        changed = self._advance(now_s)
        if request.stage is not Stage.WAITING:
            return changed
        wait_s = self._drain.wait_s(self._waiting.cost_before(request))
        if wait_s is not None and request.due_s is not None and now_s + wait_s >= request.due_s:
            request.retry_s = now_s + wait_s - request.due_s
            self._end(request, Stage.TOO_NEAR)
            return [*changed, request]
        put_out = []
        while (last := self._waiting.surplus()) is not None:
            last.retry_s = self._drain.wait_s(self._waiting.cost_before(last))
            self._end(last, Stage.PUT_OUT)
            put_out.append(last)
        self._drain.tick(now_s, is_waiting=self._waiting.count > 0)
        return [*changed, *put_out]

    def leave(self, request: Request, now_s: float) -> Sequence[Request]:
        """Takes out a request that waits, or ends one that was let in; what it has not used is given back."""
        account = request.account
        if request.stage is Stage.WAITING:
            self._end(request, Stage.GONE)
        elif request.stage is Stage.GOING:
            request.stage = Stage.GONE
            if request.output_tokens is not None:
                used = _weighted(request.prompt_tokens, request.output_tokens)
                self._accounts.charge(account, used - request.charge)
                if request.output_tokens:  # else it says nothing of those that run
                    self._accounts.learn(account, request.output_tokens / request.cost.sequences)
                request.charge = used
                request.used_tokens = request.prompt_tokens + request.output_tokens
            self._drain.add(request.charge - request.measured)
            self.going_sequences -= request.cost.sequences
            self.going_tokens -= request.tokens
            account.going_sequences -= request.cost.sequences
            self._accounts.settle(account)
        return self._advance(now_s)

    def used(self, request: Request, output_tokens: int, prompt_tokens: int | None = None) -> None:
        """Notes what a request that was let in has taken so far, over all its sequences."""
        if request.stage is not Stage.GOING:
            return
        request.output_tokens = output_tokens
        if prompt_tokens is not None:
            request.prompt_tokens = prompt_tokens
        used = _weighted(request.prompt_tokens, output_tokens)
        self._drain.add(used - request.measured)
        request.measured = used
        if used > request.charge:  # it takes more than was expected: whoever waits shall not pay for that
            self._accounts.charge(request.account, used - request.charge)
            request.charge = used

    def _advance(self, now_s: float) -> list[Request]:
        self._drain.tick(now_s, is_waiting=self._waiting.count > 0)
        changed = []
        while (request := self._waiting.first()) is not None:
            if request.due_s is not None and request.due_s <= now_s:
                self._end(request, Stage.LATE)
            elif self._has_room(request):
                self._begin(request)
            else:
                break
            changed.append(request)
        if changed:
            self._drain.tick(now_s, is_waiting=self._waiting.count > 0)
        return changed

    def _has_room(self, request: Request) -> bool:
        """Tells whether one more is let in; how large it is does not matter, or large ones would wait for ever."""
        if self.going_tokens >= self._room.tokens:
            return False
        if self.going_sequences < self._room.sequences:
            return True
        own = request.account.going_sequences
        part = self._accounts.share(request.account) * self._room.sequences
        return self.going_sequences < self._room.express_sequences and own < part

    def _begin(self, request: Request) -> None:
        account = request.account
        self._waiting.remove(request)
        request.stage = Stage.GOING
        request.used_tokens = request.tokens
        self._accounts.begin(account)
        self._accounts.charge(account, request.charge)
        self.going_sequences += request.cost.sequences
        self.going_tokens += request.tokens
        account.going_sequences += request.cost.sequences
        self._accounts.settle(account)

    def _end(self, request: Request, stage: Stage) -> None:
        self._waiting.remove(request)
        request.stage = stage
        self._accounts.settle(request.account)


def _weighted(prompt_tokens: int, output_tokens: int) -> float:
    return PROMPT_WEIGHT * prompt_tokens + OUTPUT_WEIGHT * output_tokens

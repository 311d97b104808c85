"""The line in front of a deployment, after any history of arrivals, ends, looks and times."""

from __future__ import annotations

from collections.abc import Sequence

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from controlplane.gateway.admission.line import Line
from controlplane.gateway.admission.requests import Cost, Request, Stage
from controlplane.gateway.admission.room import Facts

MAX_REQUESTS, MAX_TOKENS = 6, 4000
TENANTS = st.sampled_from(["ada", "bob", "cy"])
WEIGHTS = {"ada": 1.0, "bob": 2.5, "cy": 0.1}
COSTS = st.builds(
    Cost,
    prompt_tokens=st.integers(1, 1000),
    max_tokens=st.none() | st.integers(1, 1000),
    sequences=st.integers(1, 4),
)
FACTS = st.none() | st.builds(
    Facts,
    batch=st.integers(1, 4),
    spare=st.integers(0, 2),
    express=st.integers(0, 2),
    token_count=st.none() | st.integers(500, 5000),
    reported_count=st.none() | st.integers(0, 8),
    gateway_count=st.integers(1, 3),
)


class AnyHistory(RuleBasedStateMachine):
    """Whatever happens, nobody is lost, bounds hold, and nobody waits while there is room."""

    def __init__(self) -> None:
        super().__init__()
        self.line = Line(max_requests=MAX_REQUESTS, max_tokens=MAX_TOKENS, weight_of=WEIGHTS.__getitem__)
        self.facts: Facts | None = None
        self.now_s = 0.0
        self.all: list[Request] = []
        self.refused = 0

    def those(self, stage: Stage) -> list[Request]:
        return [each for each in self.all if each.stage is stage]

    def check(self, changed: Sequence[Request], before: dict[int, Stage]) -> None:
        """Exactly those are told of whose stage has changed, once each."""
        assert len({id(each) for each in changed}) == len(changed)
        assert {id(each) for each in changed} == {
            id(each) for each in self.all if each.stage is not before.get(id(each), Stage.WAITING)
        }

    def stages(self) -> dict[int, Stage]:
        return {id(each): each.stage for each in self.all}

    @rule(facts=FACTS)
    def look(self, facts: Facts | None) -> None:
        before, self.facts = self.stages(), facts
        self.check(self.line.look(facts, self.now_s), before)

    @rule(tenant=TENANTS, cost=COSTS, priority=st.integers(-3, 3), left_s=st.none() | st.floats(0, 20))
    def arrive(self, tenant: str, cost: Cost, priority: int, left_s: float | None) -> None:
        due_s = None if left_s is None else self.now_s + left_s
        request = Request(cost, self.now_s, priority, due_s)
        before = self.stages()
        self.all.append(request)
        self.check(self.line.arrive(request, tenant, self.now_s), before)
        if request.stage is Stage.TOO_NEAR:
            assert request.retry_s is not None
            assert request.retry_s >= 0

    @precondition(lambda self: self.those(Stage.WAITING))
    @rule(data=st.data())
    def stop_waiting(self, data: st.DataObject) -> None:
        self.leave(data.draw(st.sampled_from(self.those(Stage.WAITING))))

    @precondition(lambda self: self.those(Stage.GOING))
    @rule(data=st.data(), told=st.none() | st.integers(0, 3000))
    def end(self, data: st.DataObject, told: int | None) -> None:
        request = data.draw(st.sampled_from(self.those(Stage.GOING)))
        if told is not None:
            self.line.used(request, told, 7)
        self.leave(request)

    @rule(seconds=st.floats(0, 15))
    def pass_time(self, seconds: float) -> None:
        self.now_s += seconds

    def leave(self, request: Request) -> None:
        before = self.stages()
        changed = self.line.leave(request, self.now_s)
        assert request.stage is Stage.GONE
        self.check([*changed, request], before)

    @invariant()
    def bounds_hold(self) -> None:
        assert self.line.waiting_count <= MAX_REQUESTS
        assert self.line.waiting_tokens <= MAX_TOKENS

    @invariant()
    def everybody_is_counted(self) -> None:
        going = self.those(Stage.GOING)
        assert self.line.going_sequences == sum(each.cost.sequences for each in going)
        assert self.line.going_tokens == sum(each.tokens for each in going)
        assert self.line.waiting_count == len(self.those(Stage.WAITING))
        assert self.line.waiting_tokens == sum(each.tokens for each in self.those(Stage.WAITING))
        assert self.line.is_idle == (not going and not self.those(Stage.WAITING))

    @invariant()
    def nobody_waits_while_an_engine_has_room_in_its_batch(self) -> None:
        if not self.those(Stage.WAITING):
            return
        assert self.facts is not None
        share = 1 / self.facts.gateway_count
        room = self.facts.token_count
        is_busy = self.line.going_sequences >= share * self.facts.batch
        assert is_busy or (room is not None and self.line.going_tokens >= share * room)

    def teardown(self) -> None:
        for request in self.those(Stage.WAITING):  # in any case before those that go, whose end would let them in
            if request.stage is Stage.WAITING:
                self.leave(request)
        for request in self.those(Stage.GOING):
            self.leave(request)
        assert self.line.is_idle
        self.everybody_is_counted()


TestAnyHistory = AnyHistory.TestCase
TestAnyHistory.settings = settings(max_examples=60, stateful_step_count=40, deadline=None)


def line(batch: int = 1, *, max_requests: int = 100, weights: dict[str, float] | None = None) -> Line:
    it = Line(max_requests=max_requests, max_tokens=10**9, weight_of=lambda tenant: (weights or {}).get(tenant, 1.0))
    it.look(Facts(batch, 0, 0), 0.0)
    return it


def come(
    it: Line,
    tenant: str = "ada",
    *,
    at_s: float = 0.0,
    tokens: int = 100,
    priority: int = 0,
    due_s: float | None = None,
) -> Request:
    request = Request(Cost(1, tokens), at_s, priority, due_s)
    it.arrive(request, tenant, at_s)
    return request


def order(it: Line, first: Request, waiting: Sequence[Request], at_s: float = 0.0) -> list[int]:
    """Ends one after the other, and tells in which order those that waited were let in."""
    seen: list[int] = []
    going = first
    while True:
        let_in = [each for each in it.leave(going, at_s) if each.stage is Stage.GOING]
        if not let_in:
            return seen
        [going] = let_in
        seen.append(waiting.index(going))


def test_of_one_tenant_the_higher_priority_goes_first_and_of_equals_the_first_to_come() -> None:
    it = line()
    first = come(it)
    waiting = [come(it, priority=priority) for priority in (0, 2, 1, 2, 0)]
    assert order(it, first, waiting) == [1, 3, 2, 0, 4]


def test_one_that_waits_rises_so_that_no_priority_passes_it_by_for_ever() -> None:
    it = line()
    first = come(it)
    waiting = [come(it, priority=-1), come(it, at_s=4.9, priority=0), come(it, at_s=5.1, priority=0)]
    assert order(it, first, waiting, 6.0) == [1, 0, 2]


def test_priority_gets_nobody_before_another_tenant() -> None:
    it = line()
    first = come(it)
    loud = [come(it, "ada", priority=100) for _ in range(4)]
    quiet = [come(it, "bob", priority=-100) for _ in range(4)]
    assert [each >= 4 for each in order(it, first, [*loud, *quiet])].count(True) == 4
    it = line()
    first = come(it)
    mixed = [come(it, tenant, priority=p) for tenant, p in [("ada", 100), ("ada", 100), ("bob", -100), ("bob", -100)]]
    assert order(it, first, mixed)[:2] != [0, 1]


def test_who_was_idle_is_owed_nothing() -> None:
    it = line()
    going = come(it, "ada")
    others = [come(it, "ada") for _ in range(20)]
    for _ in range(10):
        [going] = [each for each in it.leave(going, 0.0) if each.stage is Stage.GOING]
    late = [come(it, "bob") for _ in range(10)]
    seen = order(it, going, [*others, *late])
    assert [each >= 20 for each in seen[:8]].count(True) == 4


def test_who_used_what_nobody_else_wanted_owes_nothing_for_it() -> None:
    it = line()
    for _ in range(50):  # ada alone
        it.leave(come(it, "ada"), 0.0)
    going = come(it, "ada")
    waiting = [come(it, tenant) for _ in range(6) for tenant in ("bob", "ada")]
    seen = order(it, going, waiting)
    assert [waiting[each].account.tenant for each in seen[:8]].count("ada") >= 3


def test_who_asked_for_less_than_its_share_for_long_is_owed_nothing_either() -> None:
    it = line(4)
    come(it, "bob")  # one of four places, always
    going = [come(it, "ada") for _ in range(3)]
    waiting = [come(it, "ada") for _ in range(60)]
    for _ in range(40):
        going += [each for each in it.leave(going.pop(0), 0.0) if each.stage is Stage.GOING]
    burst = [come(it, "bob") for _ in range(20)]
    seen = []
    for _ in range(8):
        let_in = [each for each in it.leave(going.pop(0), 0.0) if each.stage is Stage.GOING]
        going += let_in
        seen += [each.account.tenant for each in let_in]
    assert seen.count("bob") == 4
    assert waiting[-1].stage is burst[-1].stage is Stage.WAITING


def test_what_was_not_used_is_given_back() -> None:
    it = line()
    going = come(it, "ada", tokens=200)
    waiting = [come(it, tenant, tokens=200) for tenant in ("ada", "bob", "ada", "bob")]
    it.used(going, 0, 0)
    first = [each for each in it.leave(going, 0.0) if each.stage is Stage.GOING]
    assert [each.account.tenant for each in first] == ["ada"]
    it.used(first[0], 0, 0)
    assert [each.account.tenant for each in it.leave(first[0], 0.0) if each.stage is Stage.GOING] == ["ada"]
    assert waiting


def test_who_takes_more_than_was_expected_is_charged_while_it_does() -> None:
    it = line()
    first = come(it, "cy")
    waiting = [come(it, tenant, tokens=10_000) for tenant in ("ada", "bob", "ada", "bob")]
    [ada] = [each for each in it.leave(first, 0.0) if each.stage is Stage.GOING]
    assert ada.account.tenant == "ada"
    it.look(Facts(2, 0, 0), 0.0)  # bob's first as well
    it.used(ada, 9000)
    it.look(Facts(4, 0, 0), 0.0)
    assert [each.stage for each in waiting] == [Stage.GOING] * 4
    more = [come(it, tenant, tokens=100) for tenant in ("bob", "ada")]
    it.look(Facts(5, 0, 0), 0.0)
    assert [each.stage for each in more] == [Stage.GOING, Stage.WAITING]


def test_a_full_queue_makes_room_at_the_cost_of_the_tenant_that_has_most_in_it() -> None:
    it = line(max_requests=4)
    come(it, "ada")
    burst = [come(it, "ada") for _ in range(6)]
    assert [each.stage for each in burst] == [Stage.WAITING] * 4 + [Stage.PUT_OUT] * 2
    other = [come(it, "bob") for _ in range(3)]
    assert [each.stage for each in other] == [Stage.WAITING] * 2 + [Stage.PUT_OUT]
    assert [each.stage for each in burst] == [Stage.WAITING] * 2 + [Stage.PUT_OUT] * 4


def test_a_request_whose_turn_comes_after_its_deadline_is_refused_at_once_by_what_was_measured() -> None:
    it = line()
    going = come(it, at_s=0.0)
    waiting = [come(it, at_s=0.0) for _ in range(20)]
    for second in range(1, 11):  # one a second
        it.used(going, 100, 1)
        [going] = [each for each in it.leave(going, float(second)) if each.stage is Stage.GOING]
    assert come(it, at_s=10.0, due_s=15.0).stage is Stage.TOO_NEAR
    refused = come(it, at_s=10.0, due_s=12.0)
    assert refused.retry_s is not None
    assert 6 < refused.retry_s < 10  # ten before it
    assert come(it, at_s=10.0, due_s=25.0).stage is Stage.WAITING
    assert come(it, "bob", at_s=10.0, due_s=11.0).stage is Stage.WAITING  # another tenant's turn comes sooner
    assert waiting[-1].stage is Stage.WAITING


def test_one_whose_deadline_passed_while_it_waited_is_dropped_in_its_turn() -> None:
    it = line()
    first = come(it)
    late, next_ = come(it, due_s=5.0), come(it)
    assert {each.stage for each in it.leave(first, 6.0)} == {Stage.LATE, Stage.GOING}
    assert (late.stage, next_.stage) == (Stage.LATE, Stage.GOING)


def test_the_last_places_are_for_those_that_have_less_than_their_share() -> None:
    it = Line(max_requests=100, max_tokens=10**9)
    it.look(Facts(batch=4, spare=0, express=2), 0.0)
    burst = [come(it, "ada") for _ in range(10)]
    assert [each.stage for each in burst].count(Stage.GOING) == 4
    quiet = [come(it, "bob") for _ in range(2)]
    assert [each.stage for each in quiet] == [Stage.GOING, Stage.WAITING]  # had it both, it would be ahead of its turn


def test_where_nobody_is_ready_nobody_waits() -> None:
    it = line()
    come(it)
    waiting = come(it)
    assert list(it.look(None, 0.0)) == [waiting]
    assert waiting.stage is Stage.GOING

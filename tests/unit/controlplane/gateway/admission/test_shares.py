"""Shares of tenants at saturation, whatever they send, over engines that give each sequence a token a step."""

from __future__ import annotations

import itertools
import random
from collections.abc import Iterator
from dataclasses import dataclass, field

import pytest
from hypothesis import Phase, given, settings
from hypothesis import strategies as st

from controlplane.gateway.admission.line import Line
from controlplane.gateway.admission.requests import OUTPUT_WEIGHT, PROMPT_WEIGHT, Cost, Request, Stage
from controlplane.gateway.admission.room import Facts

BATCH = 16
STEPS = 4000
SETTLED = 1000  # steps, after which what tenants are is known
STEP_S = 0.02


@dataclass
class Tenant:
    """Sends more than it can get, of sizes that it repeats."""

    name: str
    weight: float
    sizes: list[tuple[int, int]]  # (prompt, output)
    says_how_much: bool  # in `max_tokens`
    served: float = 0.0  # weighted, of what engines have done
    depth: int = 2 * BATCH  # requests that wait all the time, so that a step does not use them up
    coming: Iterator[tuple[int, int]] = field(init=False)

    def __post_init__(self) -> None:
        self.coming = itertools.cycle(self.sizes)


class Engines:
    """A batch in which each sequence that was let in gets a token in each step, its prompt before in one."""

    def __init__(self, tenants: list[Tenant], *, tells: bool) -> None:
        self.tenants, self.tells = {each.name: each for each in tenants}, tells
        self.line = Line(max_requests=10_000, max_tokens=10**9, weight_of=lambda name: self.tenants[name].weight)
        self.line.look(Facts(BATCH, 1, 3), 0.0)
        self.left: dict[Request, list[int]] = {}  # (prompt, output so far, output in all)
        self.size: dict[Request, tuple[int, int]] = {}
        self.waiting = dict.fromkeys(self.tenants, 0)
        self.now_s = 0.0

    def run(self, steps: int) -> None:
        for _ in range(steps):
            self.now_s += STEP_S
            for each in self.tenants.values():
                while self.waiting[each.name] < each.depth:
                    self.send(each)
            self.step()

    def send(self, tenant: Tenant) -> None:
        prompt, output = next(tenant.coming)
        request = Request(Cost(prompt, output if tenant.says_how_much else None), self.now_s)
        self.size[request] = (prompt, output)
        self.waiting[tenant.name] += 1
        for each in self.line.arrive(request, tenant.name, self.now_s):
            self.begin(each)

    def begin(self, request: Request) -> None:
        assert request.stage is Stage.GOING
        prompt, output = self.size.pop(request)
        self.left[request] = [prompt, 0, output]
        self.waiting[request.account.tenant] -= 1

    def step(self) -> None:
        for request, state in itertools.islice(list(self.left.items()), BATCH):
            tenant = self.tenants[request.account.tenant]
            tenant.served += OUTPUT_WEIGHT if state[1] else OUTPUT_WEIGHT + PROMPT_WEIGHT * state[0]
            state[1] += 1
            is_over = state[1] == state[2]
            if self.tells or is_over:
                self.line.used(request, state[1], state[0])
            if is_over:
                del self.left[request]
                for each in self.line.leave(request, self.now_s):
                    self.begin(each)


def shares(tenants: list[Tenant], *, tells: bool) -> dict[str, float]:
    """Returns what each tenant got for its weight, by what was the mean of all."""
    engines = Engines(tenants, tells=tells)
    engines.run(SETTLED)
    before = {each.name: each.served for each in tenants}
    engines.run(STEPS)
    got = {each.name: (each.served - before[each.name]) / each.weight for each in tenants}
    mean = sum(got.values()) / len(got)
    return {name: each / mean for name, each in got.items()}


SIZES = st.lists(st.tuples(st.integers(1, 200), st.integers(1, 60)), min_size=1, max_size=4)


@settings(max_examples=12, deadline=None, phases=[Phase.explicit, Phase.reuse, Phase.generate])  # an example takes 1 s
@given(
    sizes=st.lists(SIZES, min_size=2, max_size=3),
    says_how_much=st.lists(st.booleans(), min_size=3, max_size=3),
    tells=st.booleans(),
)
def test_tenants_of_equal_weight_get_equal_shares_whatever_the_sizes(
    sizes: list[list[tuple[int, int]]], says_how_much: list[bool], tells: bool
) -> None:
    tenants = [Tenant(f"t{i}", 1.0, each, says_how_much[i]) for i, each in enumerate(sizes)]
    got = shares(tenants, tells=tells)
    assert all(abs(each - 1) < 0.05 for each in got.values()), got


@pytest.mark.parametrize("tells", [True, False], ids=["told as it goes", "told at the end"])
def test_shares_are_as_the_weights_are(tells: bool) -> None:
    tenants = [Tenant("a", 3.0, [(50, 20)], True), Tenant("b", 1.0, [(10, 50), (200, 1)], True)]
    got = shares(tenants, tells=tells)
    assert all(abs(each - 1) < 0.05 for each in got.values()), got


def test_one_that_says_the_most_and_takes_little_is_not_the_worse_for_it() -> None:
    draws = random.Random(1)
    careful = Tenant("careful", 1.0, [(20, 20)], True)
    careless = Tenant("careless", 1.0, [(20, draws.randint(10, 30)) for _ in range(50)], False)
    got = shares([careful, careless], tells=False)
    assert all(abs(each - 1) < 0.05 for each in got.values()), got


def test_a_tenant_alone_gets_everything_and_one_that_comes_gets_its_share_at_once() -> None:
    first, second = Tenant("a", 1.0, [(10, 20)], True), Tenant("b", 1.0, [(10, 20)], True)
    engines = Engines([first, second], tells=True)
    second.depth = 0
    engines.run(1000)
    assert engines.line.going_sequences >= BATCH
    before = (first.served, second.served)
    assert before[1] == 0
    second.depth = 2 * BATCH
    engines.run(200)
    gained = (first.served - before[0], second.served - before[1])
    assert gained[1] / sum(gained) > 0.42  # that of the first 20 steps was the other's
    assert gained[1] / sum(gained) < 0.52

from collections import Counter

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from engines.backends.torch_lm.sampling.history import Histories
from engines.backends.torch_lm.sampling.leading import leading
from tests.support.draws import draw

IDS = st.lists(st.integers(0, 9), max_size=60)


def counted(
    histories: Histories, ids: list[int], prompt_count: int, seed: int = 0
) -> tuple[Counter[int], Counter[int]]:
    """Returns how often each id was counted, in all and in the output."""
    counts = histories.counts(draw(ids=ids, prompt_count=prompt_count, seed=seed))
    assert len(set(counts.ids.tolist())) == len(counts.ids)
    pairs = [zip(counts.ids.tolist(), each.tolist(), strict=True) for each in (counts.total, counts.output)]
    total, output = ({token: times for token, times in each if times} for each in pairs)
    return Counter(total), Counter(output)


class AnyHistory(RuleBasedStateMachine):
    """Sequences that go on, take guesses back, begin again, and share a seed with others."""

    def __init__(self) -> None:
        super().__init__()
        self.histories = Histories(most_ids=100)
        self.sequences = [[0, 1, 2], [5], [0, 1, 2, 3]]
        self.prompt_counts = [3, 1, 3]

    @rule(which=st.integers(0, 2), more=st.lists(st.integers(0, 9), max_size=5))
    def go_on(self, which: int, more: list[int]) -> None:
        for token in more:
            self.sequences[which].append(token)
            self.check(which, self.sequences[which])

    @rule(which=st.integers(0, 2), guesses=st.lists(st.integers(0, 9), max_size=8))
    def guess(self, which: int, guesses: list[int]) -> None:
        for count in range(len(guesses) + 1):
            self.check(which, [*self.sequences[which], *guesses[:count]])

    @rule(which=st.integers(0, 2), ids=IDS)
    def begin_again(self, which: int, ids: list[int]) -> None:
        self.sequences[which] = ids
        self.prompt_counts[which] = len(ids) // 2

    @invariant()
    def counts_are_right(self) -> None:
        for which, ids in enumerate(self.sequences):
            self.check(which, ids)

    def check(self, which: int, ids: list[int]) -> None:
        prompt_count = self.prompt_counts[which]
        found = counted(self.histories, ids, prompt_count, seed=which // 2)
        assert found == (Counter(ids), Counter(ids[prompt_count:]))


TestAnyHistory = AnyHistory.TestCase
TestAnyHistory.settings = settings(deadline=None, max_examples=60, stateful_step_count=15)


def test_ids_may_come_in_any_kind_of_sequence() -> None:
    histories = Histories()
    for ids in ((1, 2, 2), [1, 2, 2, 3], (1, 2, 2, 3, 3)):
        counts = histories.counts(draw(ids=ids, prompt_count=1))
        assert dict(zip(counts.ids.tolist(), counts.total.tolist(), strict=True)) == Counter(ids)


def test_the_callers_list_is_not_kept() -> None:
    histories, ids = Histories(), [1, 2]
    assert counted(histories, ids, 1)[0] == {1: 1, 2: 1}
    ids[1] = 7
    assert counted(histories, ids, 1)[0] == {1: 1, 7: 1}


@settings(deadline=None)
@given(values=st.lists(st.integers(-5, 5), min_size=1, max_size=40), count=st.integers(0, 45))
def test_the_largest_are_found_and_of_equals_the_first(values: list[int], count: int) -> None:
    order = sorted(range(len(values)), key=lambda place: (-values[place], place))
    assert leading(np.array(values, dtype=np.float32), count).tolist() == sorted(order[:count])


def test_the_largest_of_very_many_are_found_and_of_equals_the_first() -> None:
    values = np.round(np.random.default_rng(0).standard_normal(50_000) * 50).astype(np.float32)
    order = np.argsort(-values, kind="stable")
    for count in (1, 5, 20, 300, 5_000, 30_000, 49_999, 50_000):
        assert leading(values, count).tolist() == sorted(order[:count].tolist())
    assert leading(np.zeros(50_000, dtype=np.float32), 7).tolist() == list(range(7))

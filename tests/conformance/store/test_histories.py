"""Whatever is committed at the same time, a store is what a dictionary would be after the same commits one by one."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from controlplane.store.protocol import Compare, Entry, Store
from roundhouse.kit.errors import Conflict
from tests.conformance.store.conftest import STORES, Open

KEYS = st.sampled_from(["a", "b", "c", "d"])
Model = Mapping[str, Entry]


@dataclass(frozen=True)
class Attempt:
    """One commit; `looked` says of each compared key whether its writer had looked since it was last written."""

    looked: Mapping[str, bool]
    puts: Mapping[str, bytes]
    deletes: frozenset[str]


@st.composite
def attempts(draw: st.DrawFn) -> Attempt:
    puts = draw(st.dictionaries(KEYS, st.binary(max_size=2), max_size=2))
    deletes = draw(st.frozensets(KEYS, max_size=2)) - puts.keys()
    return Attempt(draw(st.dictionaries(KEYS, st.sampled_from([True, True, False]), max_size=2)), puts, deletes)


def revision_of(model: Model, key: str) -> int:
    return model[key].revision if key in model else 0


def compares_of(attempt: Attempt, model: Model, before: Model) -> list[Compare]:
    return [Compare(key, revision_of(model if fresh else before, key)) for key, fresh in attempt.looked.items()]


def holds(model: Model, compares: Sequence[Compare]) -> bool:
    return all(revision_of(model, each.key) == each.revision for each in compares)


def apply(model: Model, attempt: Attempt, revision: int) -> Model:
    left = {key: entry for key, entry in model.items() if key not in attempt.deletes}
    made = {key: left[key].create_revision if key in left else revision for key in attempt.puts}
    return {**left, **{key: Entry(key, value, made[key], revision) for key, value in attempt.puts.items()}}


def explain(model: Model, revision: int, done: Sequence[tuple[Attempt, Sequence[Compare]]]) -> Model:
    """Returns the model after commits answered with one revision: one of them wrote it, the others changed nothing."""
    for writer in done:
        attempt, compares = writer
        if holds(model, compares) and (attempt.puts or attempt.deletes & model.keys()):
            after = apply(model, attempt, revision)
            if all(is_quiet(after, *other) for other in done if other is not writer):
                return after
    assert all(is_quiet(model, *each) for each in done)
    return model


def is_quiet(model: Model, attempt: Attempt, compares: Sequence[Compare]) -> bool:
    return holds(model, compares) and not attempt.puts and not attempt.deletes & model.keys()


async def run_round(store: Store, model: Model, before: Model, together: Sequence[Attempt]) -> Model:
    """Makes the attempts at the same time, and checks that some order of them explains what came of each."""
    compares = [compares_of(each, model, before) for each in together]
    work = [store.commit(compare, each.puts, each.deletes) for compare, each in zip(compares, together, strict=True)]
    results = await asyncio.gather(*work, return_exceptions=True)
    tried = list(zip(together, compares, results, strict=True))
    states = [model]
    for revision in sorted({result for result in results if isinstance(result, int)}):
        states.append(explain(states[-1], revision, [(a, c) for a, c, result in tried if result == revision]))
    for _, compare, result in tried:
        if not isinstance(result, int):
            assert isinstance(result, Conflict)
            assert not all(holds(state, compare) for state in states)
    return states[-1]


async def run(store: Store, rounds: Sequence[Sequence[Attempt]]) -> None:
    model: Model = {}
    before: Model = {}
    watched: dict[str, Entry] = {}
    seen = 0
    for together in rounds:
        model, before = await run_round(store, model, before, together), model
        listing = await store.list("")
        assert listing.entries == tuple(model[key] for key in sorted(model))
        async for batch in store.watch("", seen):
            for change in batch.changes:
                watched.pop(change.key, None)
                if change.entry is not None:
                    watched[change.key] = change.entry
            seen = batch.revision
            if seen == listing.revision:
                break
        assert watched == model


@pytest.mark.parametrize("open_store", STORES.values(), ids=STORES.keys())
@settings(max_examples=40, deadline=None)
@given(rounds=st.lists(st.lists(attempts(), min_size=1, max_size=4), max_size=6))
def test_concurrent_commits_are_as_if_one_by_one(open_store: Open, rounds: Sequence[Sequence[Attempt]]) -> None:
    async def scenario(directory: Path) -> None:
        async with open_store(directory, 30.0) as store:
            await run(store, rounds)

    with TemporaryDirectory() as directory:
        asyncio.run(scenario(Path(directory)))

"""Questions about models: who is asked, which answer counts, and that none outlives its asker."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Iterator

import pytest

from controlplane.fleet.models import Models, Survey
from controlplane.fleet.registry import Registry, Session
from roundhouse.internal.v1 import agent_service_pb2 as pb
from roundhouse.kit.errors import DeadlineExceeded, NotReady
from roundhouse.v1.deployment_pb2 import ModelSource
from tests.support.clock import FakeClock
from tests.support.scripted_agent import ScriptedAgent

SOURCE = ModelSource(path="/model")
OK, NOT_FOUND, BROKEN = pb.MODEL_STATE_OK, pb.MODEL_STATE_NOT_FOUND, pb.MODEL_STATE_BROKEN


@pytest.fixture
def registry() -> Registry:
    return Registry(FakeClock(), "cluster")


@pytest.fixture
def models(registry: Registry) -> Models:
    return Models(registry)


@contextlib.contextmanager
def joined(registry: Registry, node: str) -> Iterator[Session]:
    first = ScriptedAgent(node).message()
    with registry.session(first) as session:
        session.record(first)
        yield session


def answer(session: Session, state: pb.ModelState | None, message: str = "") -> None:
    report = ScriptedAgent(session.node).message()
    if state is not None:
        report.models.add(source=SOURCE, state=state, message=message)
    session.record(report)


def best(survey: Survey) -> pb.ModelFacts:
    assert survey.best is not None
    return survey.best


@contextlib.asynccontextmanager
async def asking(models: Models, timeout_s: float = 20.0) -> AsyncIterator[asyncio.Task[Survey]]:
    task = asyncio.create_task(models.find(SOURCE, timeout_s))
    asked = asyncio.Event()
    with models.changes.to(lambda _: asked.set()):
        await asked.wait()
        assert list(models.probes) == [SOURCE]
    yield task
    assert list(models.probes) == []


async def test_the_first_whole_model_is_enough(registry: Registry, models: Models) -> None:
    with joined(registry, "one") as one, joined(registry, "two"):
        async with asking(models) as facts:
            answer(one, OK)
            assert best(await facts).state == OK


async def test_all_nodes_are_heard_before_a_model_is_given_up(registry: Registry, models: Models) -> None:
    with joined(registry, "one") as one, joined(registry, "two") as two:
        async with asking(models) as facts:
            answer(one, NOT_FOUND)
            answer(two, None)
            answer(two, BROKEN, "config.json is missing")
            assert best(await facts).message == "config.json is missing"  # it says more than that another has none


async def test_an_answer_from_before_the_question_does_not_count(registry: Registry, models: Models) -> None:
    with joined(registry, "one") as one:
        answer(one, BROKEN)
        async with asking(models) as facts:
            answer(one, OK)
            assert best(await facts).state == OK


async def test_silence_is_a_deadline_and_names_the_node(registry: Registry, models: Models) -> None:
    with joined(registry, "one"), pytest.raises(DeadlineExceeded, match='"one"'):
        await models.find(SOURCE, 0.01)
    assert list(models.probes) == []


async def test_who_answered_in_time_counts_though_another_did_not(registry: Registry, models: Models) -> None:
    with joined(registry, "one") as one, joined(registry, "two"):
        async with asking(models, timeout_s=0.2) as facts:
            answer(one, NOT_FOUND)
            assert best(await facts).state == NOT_FOUND


async def test_without_a_node_nobody_can_be_asked(models: Models) -> None:
    with pytest.raises(NotReady):
        await models.find(SOURCE, 1.0)


async def test_two_who_ask_the_same_share_a_question(registry: Registry, models: Models) -> None:
    with joined(registry, "one") as one:
        async with asking(models) as first:
            second = asyncio.create_task(models.find(SOURCE, 20.0))
            await asyncio.sleep(0)
            assert list(models.probes) == [SOURCE]
            answer(one, OK)
            assert best(await first).state == best(await second).state == OK


async def test_who_gives_up_withdraws_the_question(registry: Registry, models: Models) -> None:
    with joined(registry, "one"):
        async with asking(models) as facts:
            facts.cancel()
            await asyncio.wait([facts])

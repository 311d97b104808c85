"""Finds out about models by asking the nodes: every assignment lists the questions, and reports bring the answers."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass

from controlplane.fleet.changes import Changes, Marks
from controlplane.fleet.registry import Known, Registry
from roundhouse.internal.v1.agent_service_pb2 import (
    MODEL_STATE_AT_HUB,
    MODEL_STATE_NOT_FOUND,
    MODEL_STATE_OK,
    ModelFacts,
)
from roundhouse.kit.errors import DeadlineExceeded
from roundhouse.v1.deployment_pb2 import ModelSource

HUB_NODES = 3  # of a fleet of a thousand; they may reach it over different networks, and it counts who asks


@dataclass(frozen=True, slots=True)
class Survey:
    """What READY nodes found of a model, by id, and the ids of those that did not answer."""

    answers: Mapping[str, ModelFacts]
    silent: Sequence[str]

    @property
    def whole(self) -> ModelFacts | None:
        """What the first node found that has the model whole; else the first that found it whole at the hub."""
        found = {each.state: each for each in reversed(list(self.answers.values()))}
        return found.get(MODEL_STATE_OK) or found.get(MODEL_STATE_AT_HUB)

    @property
    def best(self) -> ModelFacts | None:
        """The same, else what the first of the others lacks; None if nobody has answered."""
        # A broken one says more than that another node has none.
        return self.whole or min(
            self.answers.values(), key=lambda each: each.state == MODEL_STATE_NOT_FOUND, default=None
        )

    @property
    def is_complete(self) -> bool:
        """All that were asked have answered."""
        return not self.silent


class Models:
    """Asks nodes about models. A question stands only while somebody waits for it, so the answer is a fresh one."""

    def __init__(self, registry: Registry) -> None:
        self._registry = registry
        self._asked: dict[bytes, tuple[ModelSource, int]] = {}  # with how many wait for it
        self._asked_of_hub: dict[object, tuple[ModelSource, Collection[str]]] = {}  # with the nodes that are to ask
        self.changes: Changes[None] = Changes()  # of `probes` and `hub_probes`

    @property
    def probes(self) -> Sequence[ModelSource]:
        """What every node is asked now."""
        return [source for source, _ in self._asked.values()]

    def hub_probes(self, node: str) -> Sequence[ModelSource]:
        """Returns what a node is asked to ask the hub now."""
        asked = [source for source, nodes in self._asked_of_hub.values() if node in nodes]
        return list({each.SerializeToString(deterministic=True): each for each in asked}.values())

    async def find(self, source: ModelSource, timeout_s: float) -> Survey:
        """Returns what READY nodes found, at least one, as soon as one has the model whole or all have answered.

        Raises NotReady (NO_NODE) if no node is READY, DeadlineExceeded if none answers within `timeout_s` seconds.
        """
        survey = await self.survey(source, timeout_s, until_whole=True)
        if not survey.answers:
            names = ", ".join(f'"{each}"' for each in survey.silent)
            raise DeadlineExceeded(
                f"no answer about the model from node {names} within {timeout_s:g} s: check its agent, try again"
            )
        return survey

    async def survey(self, source: ModelSource, timeout_s: float, *, until_whole: bool = False) -> Survey:
        """Returns what READY nodes found within `timeout_s` seconds, sooner if all have answered.

        until_whole: one that has the model whole is enough. Raises NotReady (NO_NODE) if no node is READY.
        """
        with self._question(source):
            return await self._answers(source, timeout_s, until_whole=until_whole)

    async def ask_hub(self, source: ModelSource, timeout_s: float) -> Survey:
        """Returns what at most HUB_NODES nodes found of a repository at the hub, as soon as one has found it whole.

        Nobody answers if no node that is READY can ask it.
        """
        able = [node for node, known in self._registry.known.items() if known.is_ready and _can_ask_hub(known)]
        nodes = frozenset(able[:HUB_NODES])
        if not nodes:
            return Survey({}, ())
        key = object()
        self._asked_of_hub[key] = (source, nodes)
        self.changes.tell(None)
        try:
            return await self._answers(source, timeout_s, until_whole=True, hub_nodes=nodes)
        finally:
            del self._asked_of_hub[key]
            self.changes.tell(None)

    async def _answers(
        self, source: ModelSource, timeout_s: float, *, until_whole: bool, hub_nodes: Collection[str] | None = None
    ) -> Survey:
        asked_at = self._registry.report_count
        marks: Marks[str] = Marks()
        with self._registry.changes.to(lambda change: marks.mark(change.node)), contextlib.suppress(TimeoutError):
            async with asyncio.timeout(timeout_s):
                while True:
                    now = self._heard(source, asked_at, hub_nodes)
                    if now.is_complete or (until_whole and now.whole):
                        return now
                    await marks.take()
        return self._heard(source, asked_at, hub_nodes)

    def _heard(self, source: ModelSource, asked_at: int, hub_nodes: Collection[str] | None) -> Survey:
        """Returns what READY nodes, or some of them about the hub, found after report number `asked_at`."""
        answers: dict[str, ModelFacts] = {}
        silent: list[str] = []
        for node, known in self._registry.known.items():
            if known.is_ready and (hub_nodes is None or node in hub_nodes):
                said = known.report.models if known.number > asked_at else ()
                of_hub = hub_nodes is not None
                found = next((each for each in said if each.source == source and each.is_from_hub == of_hub), None)
                if found is None:
                    silent.append(node)
                else:
                    answers[node] = found
        if hub_nodes is None and not answers and not silent:
            raise self._registry.no_node()
        return Survey(answers, silent)

    @contextlib.contextmanager
    def _question(self, source: ModelSource) -> Iterator[None]:
        key = source.SerializeToString(deterministic=True)
        self._count(key, source, +1)
        try:
            yield
        finally:
            self._count(key, source, -1)

    def _count(self, key: bytes, source: ModelSource, change: int) -> None:
        count = self._asked.get(key, (source, 0))[1] + change
        was_asked = key in self._asked
        if count:
            self._asked[key] = (source, count)
        else:
            del self._asked[key]
        if was_asked != (count > 0):
            self.changes.tell(None)


def _can_ask_hub(known: Known) -> bool:
    return "hub" in known.report.capabilities

"""Finds out about models by asking the nodes: every assignment lists the questions, and reports bring the answers."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Iterator, Sequence

from controlplane.fleet.changes import Changes, Marks
from controlplane.fleet.registry import Registry
from roundhouse.internal.v1.agent_service_pb2 import MODEL_STATE_NOT_FOUND, MODEL_STATE_OK, ModelFacts
from roundhouse.kit.errors import DeadlineExceeded
from roundhouse.v1.deployment_pb2 import ModelSource


class Models:
    """Asks nodes about models. A question stands only while somebody waits for it, so the answer is a fresh one."""

    def __init__(self, registry: Registry) -> None:
        self._registry = registry
        self._asked: dict[bytes, tuple[ModelSource, int]] = {}  # with how many wait for it
        self.changes: Changes[None] = Changes()  # of `probes`

    @property
    def probes(self) -> Sequence[ModelSource]:
        """What is asked now."""
        return [source for source, _ in self._asked.values()]

    async def facts(self, source: ModelSource, timeout_s: float) -> ModelFacts:
        """Returns what a READY node found: the first that has the model whole, else what all of them lack.

        Raises NotReady (NO_NODE) if no node is READY, DeadlineExceeded if none answers within `timeout_s` seconds.
        """
        asked_at = self._registry.report_count
        marks: Marks[str] = Marks()
        with self._registry.changes.to(lambda change: marks.mark(change.node)), self._question(source):
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(timeout_s):
                    while True:
                        answers, silent = self._answers(source, asked_at)
                        if found := _whole(answers):
                            return found
                        if answers and not silent:
                            break
                        await marks.take()
            answers, silent = self._answers(source, asked_at)
        if answers:
            return min(answers, key=lambda each: each.state == MODEL_STATE_NOT_FOUND)  # a broken one says more
        names = ", ".join(f'"{each}"' for each in silent)
        raise DeadlineExceeded(
            f"no answer about the model from node {names} within {timeout_s:g} s: check its agent, try again"
        )

    def _answers(self, source: ModelSource, asked_at: int) -> tuple[list[ModelFacts], list[str]]:
        """Returns what READY nodes found after report number `asked_at`, and the ids of those that still look."""
        answers, silent = [], []
        for node, known in self._registry.known.items():
            if known.is_ready:
                found = (
                    [each for each in known.report.models if each.source == source] if known.number > asked_at else []
                )
                answers += found
                silent += [] if found else [node]
        if not answers and not silent:
            raise self._registry.no_node()
        return answers, silent

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


def _whole(answers: Sequence[ModelFacts]) -> ModelFacts | None:
    return next((each for each in answers if each.state == MODEL_STATE_OK), None)

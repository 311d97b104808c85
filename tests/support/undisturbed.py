"""Requests of every kind that must come out the same whatever happens to their engine, and what came out."""

from __future__ import annotations

import time
from collections.abc import AsyncIterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from roundhouse.client.generation import Generation
from roundhouse.client.requests import GenerationOptions
from roundhouse.kit.chain import EMPTY, chain
from roundhouse.v1 import generation_pb2

TOKENS = 240
PROMPT = "Once upon a time there was a small house near the river, and in it"
_LIST = {"type": "array", "items": {"type": "integer", "minimum": 0, "maximum": 99}, "minItems": 60, "maxItems": 400}
_LONG: Mapping[str, Any] = {"max_tokens": TOKENS, "ignore_eos": True}

# What each asks for besides its seed.
KINDS: Mapping[str, Mapping[str, Any]] = {
    "greedy": {**_LONG, "temperature": 0.0},
    "sampled": {**_LONG, "temperature": 1.0, "top_p": 0.95, "top_k": 50},
    "penalties": {
        **_LONG,
        "temperature": 0.8,
        "repetition_penalty": 1.1,
        "presence_penalty": 0.4,
        "frequency_penalty": 0.3,
    },
    "stop text": {**_LONG, "temperature": 1.0, "stop": ["qzx", "zzzz"], "min_tokens": 20},
    "JSON": {"max_tokens": TOKENS, "temperature": 1.0, "json_schema": _LIST},
    "two choices": {**_LONG, "temperature": 1.0, "n": 2},
    "logprobs": {**_LONG, "temperature": 1.0, "logprobs": 2},
}


def options(kind: str, seed: int) -> GenerationOptions:
    """Returns what a request of this kind asks for."""
    made: GenerationOptions = {**KINDS[kind], "seed": seed}  # type: ignore[typeddict-item]
    return made


@dataclass
class Came:
    """What came of a request, as its client saw it."""

    ids: dict[int, list[int]] = field(default_factory=dict)
    texts: dict[int, str] = field(default_factory=dict)
    logprobs: dict[int, list[tuple[int, float]]] = field(default_factory=dict)
    hashes: dict[int, bytes] = field(default_factory=dict)
    reasons: dict[int, int] = field(default_factory=dict)
    exactness: set[int] = field(default_factory=set)
    resumed: list[generation_pb2.Resumed] = field(default_factory=list)
    gaps_s: list[float] = field(default_factory=list)  # around each `resumed`, between two tokens
    usage: generation_pb2.Usage | None = None

    @property
    def told_count(self) -> int:
        """Tokens so far, over all choices."""
        return sum(map(len, self.ids.values()))

    @property
    def output(self) -> tuple[object, ...]:
        """All by which two runs are the same."""
        return self.ids, self.texts, self.logprobs, self.hashes, self.reasons

    def take(self, event: generation_pb2.GenerationEvent) -> None:
        """Takes an event; every position of every choice has to come once, in order, without a gap."""
        match event.WhichOneof("event"):
            case "delta":
                delta = event.delta
                ids = self.ids.setdefault(delta.choice, [])
                assert delta.first_position == len(ids), (delta.first_position, len(ids))
                ids.extend(delta.token_ids)
                self.texts[delta.choice] = self.texts.get(delta.choice, "") + delta.text
                told = [(each.chosen.token_id, round(each.chosen.logprob, 4)) for each in delta.logprobs]
                self.logprobs.setdefault(delta.choice, []).extend(told)
            case "finished":
                end = event.finished
                assert end.choice not in self.hashes, "told twice"
                self.hashes[end.choice] = end.token_hash
                self.reasons[end.choice] = end.reason
                self.exactness.add(end.exactness)
                assert end.token_hash == chain(EMPTY, self.ids.get(end.choice, []))
                assert end.output_token_count == len(self.ids.get(end.choice, []))
            case "resumed":
                self.resumed.append(event.resumed)
            case "usage":
                assert self.usage is None, "told twice"
                self.usage = event.usage


async def read(generation: Generation, came: Came | None = None) -> Came:
    """Reads a request to its end."""
    came = Came() if came is None else came
    async for _ in reading(generation, came):
        pass
    return came


async def reading(generation: Generation, came: Came) -> AsyncIterator[Came]:
    """Reads a request, and yields what came of it so far after each event."""
    last_s = time.monotonic()
    resumed_count = 0
    async with generation:
        async for event in generation.events():
            came.take(event)
            if event.WhichOneof("event") == "delta":
                now_s = time.monotonic()
                if len(came.resumed) > resumed_count:
                    resumed_count = len(came.resumed)
                    came.gaps_s.append(now_s - last_s)
                last_s = now_s
            yield came

"""Arrivals of requests: drawn from a seed, or read from a file that somebody has. Pure, but for the files.

A trace is one JSON object a line, in order of time:

    {"at_s": 1.25, "prompt_token_count": 200, "output_token_count": 80, "blocks": [7, 8, 42], "session_key": "ann"}

`blocks` names the blocks of 64 tokens with which the prompt begins, whole ones only: two prompts that begin alike have
the same first names, wherever they come from. `session_key` may be absent.
"""

from __future__ import annotations

import heapq
import itertools
import json
import math
import random
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

BLOCK = 64  # tokens


@dataclass(frozen=True, slots=True)
class Arrival:
    """One request, as a client sends it."""

    at_s: float
    prompt_token_count: int
    output_token_count: int
    blocks: tuple[int, ...]
    session_key: str = ""


def read(path: Path) -> Sequence[Arrival]:
    """Returns the trace in a file; raises ValueError, naming the line, for what is none."""
    found: list[Arrival] = []
    for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), 1):
        try:
            given = json.loads(line)
            given["blocks"] = tuple(given.get("blocks", ()))
            found.append(Arrival(**given))
        except (TypeError, ValueError, AttributeError) as error:
            raise ValueError(f"{path}, line {number}: {error}: see benchmarks/README.md") from error
    return sorted(found, key=lambda each: each.at_s)


def write(trace: Sequence[Arrival], path: Path) -> None:
    """Writes a trace to a file."""
    path.write_text("".join(json.dumps(asdict(each)) + "\n" for each in trace), encoding="utf-8")


def prefixes(length_s: float, seed: int) -> Sequence[Arrival]:
    """Independent requests of 256 applications, some of them used much, each with a long prompt of its own in front."""
    draw = random.Random(seed)
    names = itertools.count()
    fronts = [_blocks(names, draw.randrange(8, 64)) for _ in range(256)]
    weights = [1 / rank**1.1 for rank in range(1, 257)]

    def request(at_s: float) -> Arrival:
        [front] = draw.choices(fronts, weights)
        return _arrival(names, at_s, front, _length(draw, 120, 0.8), _length(draw, 100, 0.7))

    return [request(at_s) for at_s in _poisson(draw, 120.0, length_s)]


def sessions(length_s: float, seed: int) -> Sequence[Arrival]:
    """Conversations: each turn has all turns before it in front, and comes when the answer was read."""
    draw = random.Random(seed)
    names = itertools.count()
    front = _blocks(names, 8)
    turns: list[tuple[float, int, Arrival]] = []
    for number, begin_s in enumerate(_poisson(draw, 20.0, length_s)):
        at_s, before = begin_s, front
        for _ in range(draw.randrange(2, 13)):
            said = _length(draw, 250, 0.9)
            turn = _arrival(names, at_s, before, said, _length(draw, 120, 0.6), f"session-{number}")
            heapq.heappush(turns, (at_s, len(turns), turn))
            before = (*turn.blocks, *_blocks(names, turn.output_token_count // BLOCK))
            at_s += 2.0 + turn.output_token_count * 0.02 + draw.expovariate(1 / 6.0)
    return [turn for at_s, _, turn in sorted(turns) if at_s < length_s]


def bursts(length_s: float, seed: int) -> Sequence[Arrival]:
    """Requests that have nothing in common, of very unequal lengths, and every ten seconds 160 at a time."""
    draw = random.Random(seed)
    names = itertools.count()

    def request(at_s: float) -> Arrival:
        return _arrival(names, at_s, (), _length(draw, 600, 1.2), _length(draw, 120, 1.0))

    times = [*_poisson(draw, 75.0, length_s)]
    for begin_s in range(5, int(length_s), 10):
        times += [begin_s + draw.random() * 0.25 for _ in range(160)]
    return [request(at_s) for at_s in sorted(times)]


TRACES: Mapping[str, Callable[[float, int], Sequence[Arrival]]] = {
    "prefixes": prefixes,
    "sessions": sessions,
    "bursts": bursts,
}


def _arrival(
    names: Iterator[int],
    at_s: float,
    front: tuple[int, ...],
    own_token_count: int,
    output_token_count: int,
    session_key: str = "",
) -> Arrival:
    blocks = (*front, *_blocks(names, own_token_count // BLOCK))
    prompt = len(front) * BLOCK + own_token_count
    return Arrival(round(at_s, 4), prompt, output_token_count, blocks, session_key)


def _blocks(names: Iterator[int], count: int) -> tuple[int, ...]:
    return tuple(itertools.islice(names, count))


def _poisson(draw: random.Random, rate: float, length_s: float) -> Iterator[float]:
    at_s = draw.expovariate(rate)
    while at_s < length_s:
        yield at_s
        at_s += draw.expovariate(rate)


def _length(draw: random.Random, mean: float, sigma: float) -> int:
    """Draws a lognormal length with this mean, of at most 8,192."""
    return max(1, min(8192, int(draw.lognormvariate(math.log(mean) - sigma**2 / 2, sigma))))

"""What is asked of every engine: the requests of each load, the same for all of them. Needs nothing but Python."""

from __future__ import annotations

import math
import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from benchmarks.support.wire import Request

# A quarter of what people asked ChatGPT and of what it said, as in the paper on paged attention: runs stay short.
PROMPT_MEAN, OUTPUT_MEAN = 161 / 4, 338 / 4
SIGMA = 1.0  # of the logarithm of a length
LONGEST = 1024


@dataclass(frozen=True, slots=True)
class Closed:
    """So many requests of one shape, all at once."""

    name: str
    count: int
    prompt_count: int
    output_count: int
    shared_count: int = 0  # tokens at the beginning of the prompts that are the same in all of them


@dataclass(frozen=True, slots=True)
class Open:
    """Requests of all lengths that come when they come, at a rate that is a share of the capacity."""

    name: str
    capacity_fraction: float


Load = Closed | Open

DECODE = tuple(Closed(f"decode-{count}", count, 64, 128) for count in (1, 8, 32, 64))
_ALL: Sequence[Load] = (
    *DECODE,
    Closed("prefill", 8, 1024, 16),
    Closed("shared-prefix", 16, 576, 64, shared_count=512),
    *(Open(f"open-{percent}", percent / 100) for percent in (50, 80, 110)),
)
LOADS: Mapping[str, Load] = {load.name: load for load in _ALL}


def closed_requests(load: Closed, vocabulary: int, seed: str) -> Sequence[Request]:
    """Returns the requests of a load. Another seed gives other ids, so that no cache knows them from an earlier run."""
    source = random.Random(f"{load.name} {seed}")
    shared = _ids(source, vocabulary, load.shared_count)
    own_count = load.prompt_count - load.shared_count
    return [Request(shared + _ids(source, vocabulary, own_count), load.output_count) for _ in range(load.count)]


def mixed_requests(count: int, vocabulary: int, seed: str) -> Sequence[Request]:
    """Returns requests of all lengths, all at once: what an engine makes of them is its capacity."""
    source = random.Random(f"mixed {seed}")
    return [_mixed(source, vocabulary, 0.0) for _ in range(count)]


def open_requests(rate: float, duration_s: float, vocabulary: int, seed: str) -> Sequence[Request]:
    """Returns the requests that come within `duration_s`, `rate` a second on average, independently of each other."""
    source = random.Random(f"open {rate:.6g} {seed}")
    requests, at_s = [], source.expovariate(rate)
    while at_s < duration_s:
        requests.append(_mixed(source, vocabulary, at_s))
        at_s += source.expovariate(rate)
    return requests or [_mixed(source, vocabulary, 0.0)]


def output_token_count(requests: Sequence[Request]) -> int:
    """Returns how many tokens are to come out of all of them."""
    return sum(request.output_count for request in requests)


def _mixed(source: random.Random, vocabulary: int, at_s: float) -> Request:
    prompt = _ids(source, vocabulary, _length(source, PROMPT_MEAN))
    return Request(prompt, _length(source, OUTPUT_MEAN), at_s)


def _length(source: random.Random, mean: float) -> int:
    """Draws a length with this mean, but for those that are cut to the longest."""
    drawn = source.lognormvariate(math.log(mean) - SIGMA**2 / 2, SIGMA)
    return min(LONGEST, max(2, round(drawn)))


def _ids(source: random.Random, vocabulary: int, count: int) -> tuple[int, ...]:
    return tuple(source.randrange(vocabulary) for _ in range(count))

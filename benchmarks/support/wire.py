"""What the driver and the process of a peer say to each other: one JSON object a line. Needs nothing but Python."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any


@dataclass(frozen=True, slots=True)
class Setup:
    """What a peer is started with. Every peer gets the same, but for `options`, which choose among its own modes."""

    model: str  # directory
    dtype: str
    threads: int
    cores: Sequence[int]
    kv_cache_bytes: int
    batch_size: int
    max_model_len: int
    options: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Request:
    """One prompt, and how many tokens are to come out."""

    prompt: tuple[int, ...]
    output_count: int
    at_s: float = 0.0  # when it comes, from the beginning of the run


@dataclass(frozen=True, slots=True)
class Outcome:
    """What came of a run."""

    wall_s: float
    cpu_s: float  # of all threads of all processes of the peer
    token_times_s: Sequence[Sequence[float]]  # of each request, from the beginning of the run
    error: str = ""  # why the run is not whole


@dataclass(frozen=True, slots=True)
class Hello:
    """What a peer says once its model is loaded."""

    versions: Mapping[str, str]
    threads: int  # that it really uses
    load_s: float
    notes: str = ""


def request_from(content: Mapping[str, Any]) -> Request:
    """Reads a request as `asdict` writes it."""
    return Request(tuple(content["prompt"]), content["output_count"], content["at_s"])


def requests_to_json(requests: Sequence[Request]) -> list[Mapping[str, Any]]:
    """Writes requests as `request_from` reads them."""
    return [asdict(request) for request in requests]

"""Who is measured, and in which of their own modes. What a family does best counts, load by load."""

from __future__ import annotations

import ctypes.util
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

_PEERS = "benchmarks.support.peers"
_BATCHING = f"{_PEERS}.transformers_batching"

Variables = Callable[[Path], Mapping[str, str]]  # of the environment's Python


def _no_variables(_: Path) -> Mapping[str, str]:
    return {}


def _vllm_variables(python: Path) -> Mapping[str, str]:
    """Returns what vLLM's guide for CPUs asks for: Intel's OpenMP, and tcmalloc where the machine has it."""
    libraries = [str(python.parents[1] / "lib" / "libiomp5.so"), ctypes.util.find_library("tcmalloc_minimal")]
    return {"LD_PRELOAD": ":".join(library for library in libraries if library)}


@dataclass(frozen=True, slots=True)
class Entrant:
    """One engine in one mode."""

    name: str
    family: str
    module: str
    environment: str = ""  # ours if empty
    options: Mapping[str, str] = field(default_factory=dict)  # of its own modes
    variables: Variables = _no_variables
    is_main: bool = False  # serves every load; the others serve shorter open ones, and of the rest what is quick enough
    only: frozenset[str] = frozenset()  # loads; empty: all


OURS, VLLM, TRANSFORMERS, XINFERENCE, GENERATE = "roundhouse", "vllm", "transformers", "xinference", "generate"
FAMILIES: Mapping[str, str] = {
    OURS: "Roundhouse",
    VLLM: "vLLM",
    TRANSFORMERS: "transformers' batching",
    XINFERENCE: "Xinference",
    GENERATE: "`generate`",
}

_FEW = frozenset({"decode-1", "decode-8", "decode-32", "prefill"})
_ALL = (
    Entrant(OURS, OURS, f"{_PEERS}.roundhouse_loop", is_main=True),
    Entrant("vllm-compiled", VLLM, f"{_PEERS}.vllm", "vllm", variables=_vllm_variables, is_main=True),
    Entrant("roundhouse-grpc", "", f"{_PEERS}.roundhouse_grpc", only=frozenset({"decode-8", "decode-32"})),
    Entrant("vllm-eager", VLLM, f"{_PEERS}.vllm", "vllm", {"eager": "1"}, _vllm_variables),
    # As its server runs: processes of its own, and a core that its threads leave free.
    Entrant("vllm-processes", VLLM, f"{_PEERS}.vllm", "vllm", {"processes": "1"}, _vllm_variables, only=_FEW),
    Entrant("transformers-eager", TRANSFORMERS, _BATCHING, "transformers", {"attention": "paged|eager"}),
    Entrant("transformers-sdpa", TRANSFORMERS, _BATCHING, "transformers", {"attention": "sdpa"}, only=_FEW),
    Entrant(XINFERENCE, XINFERENCE, f"{_PEERS}.xinference", "xinference"),
    Entrant(GENERATE, GENERATE, f"{_PEERS}.generate", "transformers"),
)
ENTRANTS: Mapping[str, Entrant] = {entrant.name: entrant for entrant in _ALL}


def chosen(names: str) -> list[Entrant]:
    """Returns the entrants of a comma-separated list of names and families; all if it is empty. Raises KeyError."""
    if not names:
        return list(ENTRANTS.values())
    found: dict[str, Entrant] = {}
    for name in names.split(","):
        modes = {each.name: each for each in ENTRANTS.values() if each.family == name}
        found |= modes or {name: ENTRANTS[name]}
    return list(found.values())

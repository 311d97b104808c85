"""A peer of the benchmarks that computes nothing: each token comes a millisecond after the one before it."""

from __future__ import annotations

import os
from collections.abc import Sequence

from benchmarks.support.child import Clock, serve
from benchmarks.support.wire import Request, Setup

BREAKS, DIES = 3, 4  # tokens of a prompt for which it raises, or ends


class StandIn:
    notes = "a stand-in"

    def __init__(self, setup: Setup) -> None:
        print("what libraries print is no answer")
        self.token_s = float(setup.options["token_s"])

    def run(self, requests: Sequence[Request], clock: Clock) -> Sequence[Sequence[float]]:
        longest = max(len(request.prompt) for request in requests)
        if longest == BREAKS:
            raise ValueError("no such prompts")
        if longest == DIES:
            os._exit(3)
        return [[each.at_s + self.token_s * (n + 1) for n in range(each.output_count)] for each in requests]


if __name__ == "__main__":
    serve(StandIn, threads=lambda: 1)

"""Remembers which engines have computed which beginnings of prompts, so that the same go where they are cached."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Mapping

from controlplane.gateway.routing.asked import Asked

MOST_PREFIXES = 65_536  # of a deployment; about 15 MB
MOST_HOLDERS = 8  # of a prefix: a prompt that all begin with is everywhere soon


class Prefixes:
    """What is remembered of one deployment: the prefixes that were used last, and the newest engines of each."""

    def __init__(self, most: int = MOST_PREFIXES) -> None:
        self._most = most
        self._holders: OrderedDict[int, tuple[str, ...]] = OrderedDict()  # engine uuids, the newest last

    def __len__(self) -> int:
        return len(self._holders)

    def note(self, asked: Asked, engine: str) -> None:
        """Remembers that an engine computes a prompt."""
        for prefix in reversed(asked.prefixes):  # so that the longest are forgotten first: they are of no use alone
            held = self._holders.get(prefix, ())
            if not held or held[-1] != engine:
                self._holders[prefix] = (*(each for each in held if each != engine), engine)[-MOST_HOLDERS:]
            self._holders.move_to_end(prefix)
        while len(self._holders) > self._most:
            self._holders.popitem(last=False)

    def cached(self, asked: Asked) -> Mapping[str, int]:
        """Returns how many tokens of a prompt engines have, by engine uuid; those with none are left out."""
        found: dict[str, int] = {}
        # A prefix holds all that are shorter, so nothing lies behind the first that is unknown.
        for prefix, token_count in zip(asked.prefixes, asked.prefix_token_counts, strict=True):
            held = self._holders.get(prefix)
            if held is None:
                break
            for engine in held:
                found[engine] = token_count
        return found

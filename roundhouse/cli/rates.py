"""How fast engines write, from counters that begin anew with every engine. Pure."""

from __future__ import annotations

from collections import deque
from collections.abc import Collection

from roundhouse.v1 import deployment_pb2

WINDOW_S = 5.0  # reports come every second; over fewer of them a rate jumps


class Rates:
    """Output tokens in a second of each replica, over the last seconds in which it was seen."""

    def __init__(self) -> None:
        self._seen: dict[str, tuple[str, deque[tuple[float, int]]]] = {}

    def note(self, replica: deployment_pb2.Replica, now_s: float) -> None:
        """Takes in what a replica has written by now."""
        engine, points = self._seen.get(replica.name, ("", deque()))
        if not replica.HasField("load"):
            self._seen.pop(replica.name, None)
            return
        if engine != replica.engine_uuid:
            points = deque()
        points.append((now_s, replica.load.output_token_count))
        # One from before the window stays, for a difference to be taken to it.
        while len(points) > 2 and points[1][0] <= now_s - WINDOW_S:
            points.popleft()
        self._seen[replica.name] = (replica.engine_uuid, points)

    def keep(self, names: Collection[str]) -> None:
        """Forgets all others."""
        for name in self._seen.keys() - set(names):
            del self._seen[name]

    def of(self, name: str) -> float | None:
        """Returns tokens per second; None until it was seen twice."""
        _, points = self._seen.get(name, ("", deque()))
        if len(points) < 2 or points[-1][0] <= points[0][0]:
            return None
        (first_s, first), (last_s, last) = points[0], points[-1]
        return max(0, last - first) / (last_s - first_s)

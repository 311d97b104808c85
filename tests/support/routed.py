"""Replicas to be routed to."""

from __future__ import annotations

from typing import Any

from controlplane.model import NodeId, ReplicaUid, Route, Routes


def a_route(index: int, **fields: Any) -> Route:
    """Returns a replica of `chat` that is ready and has nothing to do, unless `fields` say otherwise."""
    given: dict[str, Any] = {
        "deployment": "chat",
        "index": index,
        "replica_uid": ReplicaUid(f"r{index}"),
        "epoch": 1,
        "node": NodeId("a"),
        "address": f"127.0.0.1:{9000 + index}",
        "engine_uuid": f"e{index}",
        "engine_key": b"k",
        "is_ready": True,
        "running_count": 0,
        "waiting_count": 0,
    }
    return Route(**{**given, **fields})


def some_routes(count: int, policy: Any = "power_of_two", **fields: Any) -> Routes:
    """Returns as many of them, in the one deployment that there is."""
    found = tuple(a_route(index, **fields) for index in range(count))
    return Routes({"chat": found}, policies={"chat": policy})

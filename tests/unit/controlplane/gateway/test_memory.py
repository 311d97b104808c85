"""What a gateway goes on with when the control plane is away, or has just come back."""

from __future__ import annotations

import pytest

from controlplane.gateway.memory import aged, joined
from controlplane.model import NodeId, ReplicaUid, Route, Routes


def route(
    uid: str, deployment: str = "chat", *, index: int = 0, is_ready: bool = True, is_stale: bool = False
) -> Route:
    address = f"10.0.0.1:{index}"
    return Route(
        deployment, index, ReplicaUid(uid), 1, NodeId("a"), address, f"e-{uid}", b"key", is_ready, 1, 2, is_stale
    )


BEFORE = Routes({"chat": (route("r"), route("s", index=1, is_ready=False))}, is_current=False)


def silent(**indexes: int) -> dict[ReplicaUid, int]:
    return {ReplicaUid(uid): index for uid, index in indexes.items()}


def test_what_ages_keeps_all_but_how_busy_engines_are_and_is_not_current() -> None:
    was = Routes({"chat": (route("r"),)}, frozenset({"old"}), {"other": silent(t=0)})
    now = aged(was)
    assert now.replicas == {"chat": (route("r", is_stale=True),)}
    assert (now.deleting, now.silent, now.is_current) == (was.deleting, was.silent, False)
    assert aged(now) == now


@pytest.mark.parametrize(
    ("now", "want"),
    [
        pytest.param(
            Routes({"chat": ()}, silent={"chat": silent(r=0, s=1)}),
            Routes({"chat": (route("r", is_stale=True), route("s", index=1, is_ready=False, is_stale=True))}),
            id="of silent replicas what was known is kept",
        ),
        pytest.param(
            Routes({"chat": (route("r"),)}, silent={"chat": silent(s=1, t=2)}),
            Routes(
                {"chat": (route("r"), route("s", index=1, is_ready=False, is_stale=True))}, silent={"chat": silent(t=2)}
            ),
            id="what is told goes before, and what was not known stays silent",
        ),
        pytest.param(
            Routes({"chat": (route("q"),)}, silent={"chat": silent(r=0)}),
            Routes({"chat": (route("q"), route("r", is_ready=False, is_stale=True))}),
            id="an older engine of a replica that serves elsewhere by now is not picked",
        ),
        pytest.param(
            Routes({"chat": (route("q"),)}),
            Routes({"chat": (route("q"),)}),
            id="a replica that is neither told nor silent is gone",
        ),
        pytest.param(
            Routes({"chat": (), "more": ()}, frozenset({"more"}), {"more": silent(z=0)}),
            Routes({"chat": (), "more": ()}, frozenset({"more"}), {"more": silent(z=0)}),
            id="a replica of a node that is heard of and has no engine is gone",
        ),
        pytest.param(Routes({}), Routes({}), id="a deployment that exists no more is gone"),
    ],
)
def test_what_is_told_is_joined_with_what_was_known(now: Routes, want: Routes) -> None:
    assert joined(now, BEFORE) == want

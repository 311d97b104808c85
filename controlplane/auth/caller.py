"""Who makes the call that runs now, as found at the gate."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from contextvars import ContextVar
from dataclasses import dataclass

from controlplane.auth.methods import Role


@dataclass(frozen=True, slots=True)
class Caller:
    """Who calls.

    hold: what their right hangs on, by name: an access token or a node; empty if on nothing that can be taken away.
    node: the bare id of the node whose certificate was shown; None if there was none.
    """

    principal: str
    role: Role | None = None
    tenant: str = ""
    hold: str = ""
    expire_s: float | None = None  # since 1970; None: never
    node: str | None = None


LOCAL = Caller("local", Role.OPERATOR)  # everybody, where no token is needed
NOBODY = Caller("")  # where nobody needs a right

_present: ContextVar[Caller] = ContextVar("caller", default=LOCAL)


def caller() -> Caller:
    """Returns who makes the call that runs now; somebody on this machine if nobody asked."""
    return _present.get()


@contextlib.contextmanager
def called_by(who: Caller) -> Iterator[None]:
    """Says for the block, and for the tasks that are started in it, who calls."""
    token = _present.set(who)
    try:
        yield
    finally:
        _present.reset(token)

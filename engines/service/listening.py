"""Binds a port of the engine's range, and keeps health in step with what the engine does."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator, Sequence

from engines.service.lifecycle import Lifecycle, State
from roundhouse.kit.errors import Usage
from roundhouse.kit.server import Listen, Serving, serve
from roundhouse.kit.service import Service
from roundhouse.kit.tasks import Background

STOP_GRACE_S = 0.5  # by then the requests have ended; what is left are watchers of health


@contextlib.asynccontextmanager
async def listening(
    host: str, ports: Sequence[int], services: Sequence[Service], lifecycle: Lifecycle
) -> AsyncIterator[Serving]:
    """Serves on the first free port for the block; health is SERVING in that state alone.

    Raises Usage if no port is free.
    """
    names = ["", *(each.descriptor.full_name for each in services)]
    async with contextlib.AsyncExitStack() as stack:
        serving = await _bind(stack, host, ports, services)
        await _tell_health(serving, names, lifecycle)
        background = await stack.enter_async_context(Background())
        background.start(_follow_health(serving, names, lifecycle), "health")
        try:
            yield serving
        finally:
            lifecycle.stop()  # its watchers go by themselves: gRPC writes a traceback for each that it has to cancel


async def _bind(
    stack: contextlib.AsyncExitStack, host: str, ports: Sequence[int], services: Sequence[Service]
) -> Serving:
    for port in ports:
        # The agent, which chose the host, has asked whether others may reach it; every call shows the engine's key.
        listen = Listen(host, port, insecure=True)
        with contextlib.suppress(Usage):
            return await stack.enter_async_context(serve(listen, services, grace_s=STOP_GRACE_S, is_healthy=False))
    raise Usage(f"no port of {ports[0]}-{ports[-1]} on {host} is free: widen the node agent's --engine-ports")


async def _follow_health(serving: Serving, names: Sequence[str], lifecycle: Lifecycle) -> None:
    while True:
        stage = lifecycle.stage
        await _tell_health(serving, names, lifecycle)
        await lifecycle.change_from(stage)


async def _tell_health(serving: Serving, names: Sequence[str], lifecycle: Lifecycle) -> None:
    for name in names:
        await serving.set_healthy(lifecycle.stage.state is State.SERVING, name)

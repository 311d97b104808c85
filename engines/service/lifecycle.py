"""What an engine is doing: it loads, serves, drains. It never goes back."""

from __future__ import annotations

import asyncio
import enum
from dataclasses import dataclass

from engines.loading import Loading
from engines.service.served import Served
from roundhouse.kit.errors import Unreachable
from roundhouse.v1 import errors_pb2


class State(enum.Enum):
    """What an engine is doing."""

    LOADING = enum.auto()
    SERVING = enum.auto()
    DRAINING = enum.auto()


@dataclass(frozen=True, slots=True)
class Stage:
    """A state, one line for people, how far the load is if that is known, and whether the process is about to end."""

    state: State
    message: str
    is_last: bool = False
    loading: Loading | None = None


class Lifecycle:
    """The engine's stage, and its model once there is one. Belongs to the event loop."""

    def __init__(self) -> None:
        self._stage = Stage(State.LOADING, "starting")
        self._changed = asyncio.Event()
        self._served: Served | None = None

    @property
    def stage(self) -> Stage:
        """The present stage."""
        return self._stage

    @property
    def served(self) -> Served | None:
        """The model; None until it is loaded."""
        return self._served

    def require_serving(self) -> Served:
        """Returns the model; raises Unreachable unless requests are taken."""
        if self._stage.state is State.DRAINING:
            message = "the engine is draining and takes no new requests: pick another replica"
            raise Unreachable(message, reason=errors_pb2.ERROR_REASON_DRAINING)
        if self._served is None:
            message = "the engine is loading its model: try again when it is ready"
            raise Unreachable(message, reason=errors_pb2.ERROR_REASON_ENGINE_LOADING, retry_after_s=1.0)
        return self._served

    def load(self, message: str, loading: Loading | None = None) -> None:
        """Says how far loading has come; without a stage, the one before goes on."""
        if self._stage.state is State.LOADING and not self._stage.is_last:
            self._enter(Stage(State.LOADING, message, loading=self._stage.loading if loading is None else loading))

    def serve(self, served: Served) -> None:
        """Takes requests from now on, unless the engine drains already."""
        self._served = served
        if self._stage.state is State.LOADING and not self._stage.is_last:
            self._enter(Stage(State.SERVING, "serving"))

    def drain(self) -> None:
        """Takes no more requests."""
        if self._stage.state is not State.DRAINING:
            self._enter(Stage(State.DRAINING, "draining"))

    def stop(self) -> None:
        """Takes no more requests, and lets watchers go.

        One that cannot be loaded, or is ended before it is, does not drain: whoever heard that would take its end for
        one that was asked for.
        """
        if self._stage.state is State.LOADING:
            self._enter(Stage(State.LOADING, "stopping", loading=self._stage.loading, is_last=True))
        else:
            self._enter(Stage(State.DRAINING, "stopping", is_last=True))

    async def change_from(self, stage: Stage) -> Stage:
        """Waits until the stage is another than `stage`, and returns it."""
        while self._stage is stage:
            await self._changed.wait()
        return self._stage

    def _enter(self, stage: Stage) -> None:
        self._stage = stage
        changed, self._changed = self._changed, asyncio.Event()
        changed.set()

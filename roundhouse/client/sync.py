"""The client for programs without an event loop: the same names, blocking.

Every method is the asynchronous one, run on a loop in a thread of its own; what is said there holds here too.
"""

from __future__ import annotations

import contextlib
import functools
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from types import TracebackType
from typing import Concatenate, ParamSpec, Self, TypeVar

from roundhouse.client.access import Access
from roundhouse.client.blocking import Blocking, LoopThread, blocking
from roundhouse.client.catalog import CachedModels, Catalog
from roundhouse.client.client import DEFAULT_ADDRESS, UNARY_TIMEOUT_S, Client
from roundhouse.client.connection import NotOpen
from roundhouse.client.deployments import Deployments
from roundhouse.client.events import Events
from roundhouse.client.generation import Generation
from roundhouse.client.nodes import Nodes
from roundhouse.client.replicas import Replicas
from roundhouse.client.stream import Watch
from roundhouse.v1 import generation_pb2, receipt_pb2

P = ParamSpec("P")
Inner = TypeVar("Inner")
Event = TypeVar("Event")


class SyncWatch(Blocking[Watch[Event]]):
    """What a watch sees, event by event. Leaving the block or the loop ends it."""

    def cancel(self) -> None:
        """Ends the watch; from any thread."""
        self._loop.call(self._inner.cancel)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.cancel()

    def __iter__(self) -> Iterator[Event]:
        return self._loop.iterate(aiter(self._inner), self._inner.cancel)


class SyncGeneration(Blocking[Generation]):
    """An answer that is being generated; see `Generation`. Leaving the block or the loop before the end cancels it."""

    @property
    def request_id(self) -> str:
        """The id of the request."""
        return self._inner.request_id

    @property
    def location(self) -> str:
        """Where the request runs; empty until it has started."""
        return self._inner.location

    @property
    def started(self) -> generation_pb2.Started | None:
        """The first event, once it has come."""
        return self._inner.started

    @property
    def finished(self) -> generation_pb2.Finished | None:
        """How the first choice ended, once it has."""
        return self._inner.finished

    @property
    def finishes(self) -> dict[int, generation_pb2.Finished]:
        """How the choices ended that have, by number."""
        return self._inner.finishes

    @property
    def usage(self) -> generation_pb2.Usage | None:
        """What it cost, once it has ended."""
        return self._inner.usage

    @property
    def resumes(self) -> list[generation_pb2.Resumed]:
        """The times that another engine went on, so far."""
        return self._inner.resumes

    @property
    def positions(self) -> dict[int, int]:
        """How many tokens of each choice were told, as `SyncClient.attach` takes it."""
        return self._inner.positions

    def cancel(self) -> None:
        """Ends the request; from any thread."""
        self._loop.call(self._inner.cancel)

    def detach(self) -> None:
        """Leaves the request to go on by itself, see `Generation.detach`; from any thread."""
        self._loop.call(self._inner.detach)

    def leave(self) -> None:
        """Does what leaving the block does; from any thread."""
        self._loop.call(self._inner.leave)

    def left(self) -> receipt_pb2.CancelReceipt | None:
        """Returns the receipt of the cancel that leaving has sent, once there is one; None if there will be none."""
        return self._loop.run(self._inner.left())

    def events(self) -> Iterator[generation_pb2.GenerationEvent]:
        """Yields every event as the contract has it; `resumed` among them if another engine went on."""
        return self._loop.iterate(self._inner.events(), self._inner.leave)

    def text(self) -> str:
        """Reads to the end and returns the text of what had not been read before; of several choices, of the first."""
        return self._loop.run(self._inner.text())

    def texts(self) -> dict[int, str]:
        """Reads to the end and returns the text of each choice, of what had not been read before."""
        return self._loop.run(self._inner.texts())

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.leave()

    def __iter__(self) -> Iterator[generation_pb2.Delta]:
        return self._loop.iterate(aiter(self._inner), self._inner.leave)


def _watching(
    method: Callable[Concatenate[Inner, P], Watch[Event]],
) -> Callable[Concatenate[Blocking[Inner], P], SyncWatch[Event]]:
    """Returns the blocking twin of a method that watches."""

    @functools.wraps(method)
    def twin(self: Blocking[Inner], /, *args: P.args, **kwargs: P.kwargs) -> SyncWatch[Event]:
        return SyncWatch(method(self._inner, *args, **kwargs), self._loop)

    return twin


def _generating(
    method: Callable[Concatenate[Client, P], Generation],
) -> Callable[Concatenate[Blocking[Client], P], SyncGeneration]:
    """Returns the blocking twin of a method that generates."""

    @functools.wraps(method)
    def twin(self: Blocking[Client], /, *args: P.args, **kwargs: P.kwargs) -> SyncGeneration:
        return SyncGeneration(method(self._inner, *args, **kwargs), self._loop)

    return twin


class SyncDeployments(Blocking[Deployments]):
    """What is wanted to be served; see `Deployments`.

    `on_event` is called on the client's own thread. There streams can be cancelled, but no calls be made.
    """

    create = blocking(Deployments.create)
    get = blocking(Deployments.get)
    list = blocking(Deployments.list)
    update = blocking(Deployments.update)
    scale = blocking(Deployments.scale)
    delete = blocking(Deployments.delete)
    plan = blocking(Deployments.plan)
    watch = _watching(Deployments.watch)
    wait_ready = blocking(Deployments.wait_ready)
    wait_gone = blocking(Deployments.wait_gone)


class SyncReplicas(Blocking[Replicas]):
    """The replicas of one deployment, or of all; see `Replicas`."""

    list = blocking(Replicas.list)
    watch = _watching(Replicas.watch)
    logs = _watching(Replicas.logs)


class SyncNodes(Blocking[Nodes]):
    """The machines of the fleet; see `Nodes`."""

    get = blocking(Nodes.get)
    list = blocking(Nodes.list)
    watch = _watching(Nodes.watch)
    cordon = blocking(Nodes.cordon)
    uncordon = blocking(Nodes.uncordon)
    drain = blocking(Nodes.drain)
    wait_drained = blocking(Nodes.wait_drained)


class SyncEvents(Blocking[Events]):
    """What happened; see `Events`."""

    list = blocking(Events.list)
    watch = _watching(Events.watch)


class SyncCatalog(Blocking[Catalog]):
    """Families of models; see `Catalog`."""

    register = blocking(Catalog.register)
    get = blocking(Catalog.get)
    list = blocking(Catalog.list)
    delete = blocking(Catalog.delete)
    resolve = blocking(Catalog.resolve)


class SyncCachedModels(Blocking[CachedModels]):
    """Files of models that nodes keep; see `CachedModels`."""

    list = blocking(CachedModels.list)
    delete = blocking(CachedModels.delete)


class SyncAccess(Blocking[Access]):
    """Tokens of people, programs and agents; see `Access`."""

    create = blocking(Access.create)
    list = blocking(Access.list)
    delete = blocking(Access.delete)
    create_join_token = blocking(Access.create_join_token)
    revoke_node = blocking(Access.revoke_node)
    caller = blocking(Access.caller)


class SyncClient(Blocking[Client]):
    """Talks to the control plane at `HOST:PORT`; see `Client`.

    with SyncClient() as client:
        for delta in client.chat("demo", "What is 12 + 7?"):
            print(delta.text, end="")
    """

    def __init__(
        self,
        address: str | Sequence[str] = DEFAULT_ADDRESS,
        *,
        ca: str | Path | None = None,
        token: str | None = None,
        timeout_s: float = UNARY_TIMEOUT_S,
    ) -> None:
        super().__init__(Client(address, ca=ca, token=token, timeout_s=timeout_s), LoopThread())
        self.deployments = SyncDeployments(self._inner.deployments, self._loop)
        self.replicas = SyncReplicas(self._inner.replicas, self._loop)
        self.nodes = SyncNodes(self._inner.nodes, self._loop)
        self.events = SyncEvents(self._inner.events, self._loop)
        self.catalog = SyncCatalog(self._inner.catalog, self._loop)
        self.cached_models = SyncCachedModels(self._inner.cached_models, self._loop)
        self.access = SyncAccess(self._inner.access, self._loop)

    generate = _generating(Client.generate)
    chat = _generating(Client.chat)
    attach = _generating(Client.attach)
    cancel = blocking(Client.cancel)
    request = blocking(Client.request)
    requests = blocking(Client.requests)

    @property
    def address(self) -> str:
        """The address in use."""
        return self._inner.address

    def __enter__(self) -> Self:
        self._loop.run(self._inner.__aenter__())
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Ends every call and the thread; a closed client stays closed, and closing it again does nothing."""
        with contextlib.suppress(NotOpen):  # closed before, perhaps by another thread just now
            self._loop.run(self._inner.__aexit__(None, None, None))
        self._loop.stop()

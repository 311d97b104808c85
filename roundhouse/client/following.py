"""Follows one request over as many calls as it takes: what breaks is taken up again, and nobody notices."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator
from typing import Any

import grpc

from roundhouse.client.connection import Connection
from roundhouse.client.retrying import Patience, Step, is_broken, is_not_up, next_step
from roundhouse.client.seen import Event, Seen
from roundhouse.client.stream import was_left
from roundhouse.client.submission import Submission
from roundhouse.kit.channel import cancelling
from roundhouse.kit.errors import DeadlineExceeded, RoundhouseError, Unreachable
from roundhouse.kit.latest import first_of
from roundhouse.v1 import errors_pb2, inference_service_pb2
from roundhouse.v1.inference_service_pb2_grpc import InferenceServiceStub

# Who attaches and is told so knows that the request runs nowhere.
_ENDS = (
    errors_pb2.ERROR_REASON_ENGINE_LOST,
    errors_pb2.ERROR_REASON_DRAINING,
    errors_pb2.ERROR_REASON_REQUEST_NOT_FOUND,
    errors_pb2.ERROR_REASON_REQUEST_LOST,
)


class Following:
    """The events of one request. A call is under way from `begin`, or the first event that is asked for, to the end."""

    def __init__(
        self,
        connection: Connection,
        target: inference_service_pb2.AttachRequest,
        seen: Seen,
        *,
        submission: Submission | None = None,
        timeout_s: float | None = None,
    ) -> None:
        """target: the request. submission: what it is sent as; one that runs already if None."""
        self._connection, self._target, self._seen, self._submission = connection, target, seen, submission
        self._patience = Patience(timeout_s)
        self._step = Step.ATTACH if submission is None else Step.SEND
        self._call: Any = None
        self.place = 0  # of the address that was called last
        self._is_first = True
        self._called: set[int] = set()  # places
        self._is_reached = False  # somebody was, so that the request may have arrived
        self._left = asyncio.Event()
        self.has_ended = False  # the request itself, as far as one can know

    @property
    def has_begun(self) -> bool:
        """Tells whether a call was made."""
        return self._call is not None

    @property
    def is_over(self) -> bool:
        """Tells whether nothing more comes."""
        return self.has_ended or self._left.is_set()

    def leave(self) -> None:
        """Ends the call; whoever reads then sees nothing more."""
        self._left.set()
        if self._call is not None:
            self._call.cancel()

    async def begin(self) -> None:
        """Makes the first call."""
        if not self.has_begun:
            self._patience.begin()
            await self._make_call()

    async def events(self) -> AsyncGenerator[Event]:
        """Yields what is new until all was told. Raises what ends the request, and what came between for too long."""
        await self.begin()
        while not self.is_over:
            error: RoundhouseError
            try:
                async with cancelling(self._call) as call:
                    async for response in call:
                        self._is_reached = True
                        self._patience.answered()
                        for event in response.events:
                            new = self._seen.new(event)
                            if new is not None:
                                self._patience.progress()
                                self.has_ended = self._seen.is_complete
                                yield new
                error = Unreachable("the answer broke off: try again")
            except grpc.RpcError as failure:
                error = self._connection.error_of(failure, self.place)
                error.__cause__ = failure
            except asyncio.CancelledError:
                if not was_left(self._left.is_set()):
                    raise
                return
            if not self.is_over:
                await self._recover(error)

    async def _make_call(self) -> None:
        left_s = self._patience.left_s
        place = await self._connection.settle(left_s())
        self._is_reached = self._is_reached or place is not None
        if self._left.is_set():  # since then
            return
        self.place = self._connection.in_use if place is None else place
        self._called.add(self.place)
        with self._connection.at(self.place):
            self._start()

    def _start(self) -> None:
        left_s = self._patience.left_s
        stub = self._connection.stub(InferenceServiceStub)
        if self._step is not Step.ATTACH and self._submission is not None:
            elapsed_s = 0.0 if self._step is Step.SEND else self._patience.elapsed_s
            self._call = self._submission.start(stub, self._seen, elapsed_s=elapsed_s, timeout_s=left_s())
        else:
            del self._target.after[:]
            self._target.after.extend(self._seen.after())
            self._target.location = self._seen.location or self._target.location
            self._call = stub.Attach(self._target, timeout=left_s())

    async def _recover(self, error: RoundhouseError) -> None:
        """Waits and calls again; raises what ends the stream."""
        try:
            self._step = self._next(error)
            self._is_first = self._is_first and is_not_up(error)
            await first_of([self._left], most_s=self._patience.pause_s(error))
        except RoundhouseError as last:
            self.has_ended = not self._may_go_on(last)
            raise
        if not self._left.is_set():
            self._connection.move_on(self.place)
            await self._make_call()

    def _may_go_on(self, last: RoundhouseError) -> bool:
        """Tells whether the request may run though an error has ended its stream; what was attached to is others'."""
        submission = self._submission
        if submission is None or not submission.is_detached:
            return False
        if isinstance(last, DeadlineExceeded):
            return submission.outlives(self._patience.timeout_s)
        is_there = self._step is Step.ATTACH and self._seen.started is not None
        return is_there and last.own_reason not in _ENDS

    def _next(self, error: RoundhouseError) -> Step:
        submission, has_started = self._submission, self._seen.started is not None
        if submission is not None and not submission.is_detached and is_broken(error):
            raise error  # which ended it
        return next_step(
            self._step,
            error,
            is_first=self._is_first,
            has_others=len(self._called) < len(self._connection.addresses),
            is_reached=self._is_reached,
            has_started=has_started,
            may_send=submission is not None and (submission.may_resume or not has_started),
        )

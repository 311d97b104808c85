"""Tells a call what a run gives, for as long as the call follows it."""

from __future__ import annotations

from collections.abc import Mapping

from engines.model import Cause, FinishReason, NothingAllowed
from engines.service.call import Call
from engines.service.kept import kept
from engines.service.log import ends_with_error
from engines.service.outcome import Outcome
from engines.service.reader import Reader
from engines.service.run import Run
from roundhouse.internal.hops import LOCATION_KEY, REQUEST_ID_KEY
from roundhouse.kit.errors import DeadlineExceeded, RoundhouseError, Unreachable
from roundhouse.kit.fields import invalid
from roundhouse.v1 import errors_pb2, generation_pb2


async def follow(call: Call, run: Run, after: Mapping[int, int] | None = None, *, repeats: bool = False) -> None:
    """Streams a run to its end. after, repeats: see `Run.open`."""
    follower = run.followers.join(call.hop.follower, call.hop.keeper)
    reader: Reader | None = None
    in_vain = False
    try:
        reader = await run.open(after, repeats=repeats)
        await _stream(call, run, reader)
    except RoundhouseError:
        in_vain = reader is None
        raise
    finally:
        run.leave(follower, is_overdue=call.is_overdue(), in_vain=in_vain)
        if reader is not None:
            run.close(reader)


async def _stream(call: Call, run: Run, reader: Reader) -> None:
    started = run.started
    await call.context.send_initial_metadata(((REQUEST_ID_KEY, started.request_id), (LOCATION_KEY, started.location)))
    first = [generation_pb2.GenerationEvent(started=started)]
    if call.hop.wants_kept:
        await run.reach(reader)  # what lies before it is to be kept, and must be there
        await call.write(first, kept(run, reader))
    else:
        await call.write(first)
    while events := await run.read(reader):
        await call.write(events)
    outcome = run.ended.result()
    assert outcome is not None
    if ends_with_error(outcome):
        raise _error_of(outcome)


def _error_of(outcome: Outcome) -> Exception:
    """Returns the error that ends the stream."""
    if outcome.cause is Cause.HANDOVER:
        message = "the engine has given the request up, and another one may go on: attach there"
        return Unreachable(message, reason=errors_pb2.ERROR_REASON_HANDED_OVER)
    if outcome.reason is not FinishReason.FAILED:
        count = outcome.output_token_count
        return DeadlineExceeded(f"the deadline passed after {count} output tokens: allow more time")
    if isinstance(outcome.error, NothingAllowed):
        return invalid("sampling", f"{outcome.error}: forbid less")
    failure = RuntimeError("the request failed")
    failure.__cause__ = outcome.error
    return failure

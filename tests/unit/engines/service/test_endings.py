"""Ten ways in which a request ends, each beside others that run: it is freed within a step, and its receipt says so."""

from __future__ import annotations

import asyncio
import contextlib
import threading
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import grpc
import pytest

from roundhouse.kit.channel import open_channel
from roundhouse.v1 import inference_service_pb2, inference_service_pb2_grpc, receipt_pb2
from tests.support.scripted_engine import TOTAL_BLOCKS, ScriptedEngine, hop, scripted_engine, text_of
from tests.support.scripted_model import PATIENCE_S, alphabet
from tests.support.tcp_proxy import TcpProxy

KEY = "local/mine"
NEIGHBOURS = "bcdefghi"
LENGTH = 300  # tokens of each neighbour: they outlast what they stand beside
SOON_S = 0.1
STOP = "uvw"
_PACE = threading.Event()  # never set


def paced(prompt: Sequence[int], position: int) -> int | Exception:
    _PACE.wait(0.0002)  # so that what happens happens while they all run
    return alphabet(prompt, position)


Trigger = Callable[[ScriptedEngine, Any], Awaitable[Any]]


async def nothing(engine: ScriptedEngine, call: Any) -> None:
    """It ends by itself, or its time is over."""


async def cancel(engine: ScriptedEngine, call: Any) -> None:
    await engine.cancel("mine")


async def leave(engine: ScriptedEngine, call: Any) -> None:
    call.cancel()


async def delete(engine: ScriptedEngine, call: Any) -> None:
    await engine.drain(0.0)


async def hand_over(engine: ScriptedEngine, call: Any) -> None:
    await engine.drain(0.0, hands_over=True)


@dataclass(frozen=True)
class Way:
    cause: receipt_pb2.CancelCause
    trigger: Trigger = nothing
    keeper: str = ""
    timeout_s: float = PATIENCE_S
    fields: dict[str, Any] = field(default_factory=dict)
    ends_others: bool = False
    breaks_connection: bool = False


def options(**fields: Any) -> dict[str, Any]:
    return {"options": fields}


DETACH = {"policy": "DISCONNECT_POLICY_DETACH", "ttl": {"nanos": round(SOON_S * 1e9)}}
WAYS = {
    "CancelRequest": Way(receipt_pb2.CANCEL_CAUSE_CLIENT, cancel),
    "the call is cancelled": Way(receipt_pb2.CANCEL_CAUSE_DISCONNECT, leave),
    "the connection is lost": Way(receipt_pb2.CANCEL_CAUSE_DISCONNECT, breaks_connection=True),
    "the deadline of the call": Way(receipt_pb2.CANCEL_CAUSE_DEADLINE, timeout_s=5 * SOON_S),
    "max_duration": Way(receipt_pb2.CANCEL_CAUSE_DEADLINE, fields=options(max_duration={"nanos": 400_000_000})),
    "the engine is drained": Way(receipt_pb2.CANCEL_CAUSE_DELETED, delete, ends_others=True),
    "it is handed over": Way(receipt_pb2.CANCEL_CAUSE_HANDOVER, hand_over, keeper="gateway-1", ends_others=True),
    "its gateway dies": Way(receipt_pb2.CANCEL_CAUSE_ORPHANED, leave, keeper="gateway-1"),
    "its time alone is over": Way(receipt_pb2.CANCEL_CAUSE_DISCONNECT, leave, fields=options(on_disconnect=DETACH)),
    "a stop text": Way(receipt_pb2.CANCEL_CAUSE_UNSPECIFIED, fields={"sampling": {"stop": [STOP]}}),
}
BY_CLIENT = (receipt_pb2.CANCEL_CAUSE_CLIENT, receipt_pb2.CANCEL_CAUSE_DISCONNECT)


@contextlib.asynccontextmanager
async def through_a_proxy(engine: ScriptedEngine) -> AsyncIterator[tuple[TcpProxy, Any]]:
    async with TcpProxy(engine.address).serving() as proxy, open_channel(proxy.address) as channel:
        yield proxy, inference_service_pb2_grpc.InferenceServiceStub(channel)


@pytest.mark.parametrize("way", WAYS.values(), ids=WAYS)
async def test_whatever_ends_a_request_frees_it_within_a_step_and_touches_no_other(way: Way) -> None:
    async with scripted_engine(paced, orphan_s=SOON_S) as engine, through_a_proxy(engine) as (proxy, stub):
        others = [engine.generate(each, sampling={"max_tokens": LENGTH, "stop": ["never"]}) for each in NEIGHBOURS]
        reading = [asyncio.ensure_future(text_of(each)) for each in others]
        request = inference_service_pb2.GenerateRequest(
            deployment="chat", request_id="mine", prompt=[{"text": "a"}], **way.fields
        )
        call = stub.Generate(request, metadata=hop(keeper=way.keeper), timeout=way.timeout_s)
        with contextlib.suppress(grpc.aio.AioRpcError):  # its time may be over by then
            for _ in range(3):
                await call.read()
        if way.breaks_connection:
            proxy.cut()
        await way.trigger(engine, call)
        run = engine.requests.find("local", "mine")
        await asyncio.wait([run.ended], timeout=PATIENCE_S)
        assert engine.pool.free_count + engine.pool.used_count == engine.pool.total == TOTAL_BLOCKS
        assert way.ends_others or not any(each.done() for each in reading)
        receipt = await engine.cancel("mine")
        was_cancelled = way.cause in BY_CLIENT
        assert receipt.outcome == (
            receipt_pb2.CANCEL_OUTCOME_CANCELLED if was_cancelled else receipt_pb2.CANCEL_OUTCOME_ALREADY_FINISHED
        )
        assert (receipt.cause, receipt.level) == (way.cause, receipt_pb2.CANCEL_LEVEL_FREED)
        assert receipt.steps_after <= 1
        assert receipt.freed_block_count == receipt.free_block_count - receipt.free_block_count_before >= 1
        assert receipt.total_block_count == TOTAL_BLOCKS
        assert (await engine.get("mine")).receipt == receipt
        for letter, text in zip(NEIGHBOURS, await asyncio.gather(*reading), strict=True):
            whole = "".join(chr(int(alphabet([ord(letter)], position))) for position in range(LENGTH))  # type: ignore[arg-type]
            assert whole.startswith(text) if way.ends_others else text == whole
        with contextlib.suppress(grpc.aio.AioRpcError, asyncio.CancelledError):
            await call.read()
        await engine.all_ended()

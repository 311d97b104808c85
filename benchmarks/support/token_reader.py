"""The clients of a relay, in a process of their own: they read bytes, and look at them when all have come."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import json
import os
import sys
import time
from collections.abc import AsyncIterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import grpc

from benchmarks.support import machine
from benchmarks.support.fleet_child import Answer, answer
from benchmarks.support.metrics import percentile
from benchmarks.support.token_source import DEPLOYMENT, RATE, RUN, STREAM_COUNT
from benchmarks.support.token_steps import LEAST_STEP_S
from roundhouse.kit.channel import cancelling, open_channel
from roundhouse.v1 import generation_pb2, inference_service_pb2

METHOD = "/roundhouse.v1.InferenceService/Generate"
PROMPT_COUNT = 64
STREAMS_OF_A_CONNECTION = 100
START_S = 30.0
LATE_S = 10.0  # how far behind a run may be at its end; what is further is given up
_numbers = itertools.count()


@dataclass(slots=True)
class Stream:
    """What one stream has told: its messages, and when each of them came."""

    messages: list[bytes] = field(default_factory=list)
    times_s: list[float] = field(default_factory=list)


def request(run: str, stream_count: int, rate: float, token_count: int) -> bytes:
    """Returns a request of a run."""
    return inference_service_pb2.GenerateRequest(
        deployment=DEPLOYMENT,
        request_id=f"{run}.{next(_numbers)}",
        prompt=[generation_pb2.ContentPart(token_ids={"ids": range(1000, 1000 + PROMPT_COUNT)})],
        sampling=generation_pb2.SamplingParams(max_tokens=token_count, seed=1),
        options=generation_pb2.RequestOptions(
            labels={RUN: run, STREAM_COUNT: str(stream_count), RATE: str(rate)},
        ),
    ).SerializeToString()


@contextlib.asynccontextmanager
async def _calls(address: str, stream_count: int) -> AsyncIterator[Sequence[Any]]:
    """Gives what makes a call, for each stream, over connections that are open."""
    async with contextlib.AsyncExitStack() as stack:
        made = []
        for _ in range(-(-stream_count // STREAMS_OF_A_CONNECTION)):
            channel = open_channel(address, options=[("grpc.use_local_subchannel_pool", 1)])
            await stack.enter_async_context(channel)
            await asyncio.wait_for(channel.channel_ready(), START_S)
            call: Any = channel.unary_stream(METHOD)
            made += [call] * STREAMS_OF_A_CONNECTION
        yield made[:stream_count]


async def first_tokens(address: str, count: int) -> Answer:
    """Returns how long each of many requests, one after the other, took to its first token."""
    found = []
    async with _calls(address, 1) as [call]:
        for number in range(count + count // 10):
            run = f"first-{os.getpid()}-{next(_numbers)}"
            begin_s = time.perf_counter()
            async with cancelling(call(request(run, 1, 1.0, 1))) as stream:
                while not _has_token(await stream.read()):  # `started` may come before it or with it
                    pass
                took_s = time.perf_counter() - begin_s
                while await stream.read() is not grpc.aio.EOF:
                    pass
            if number >= count // 10:  # those before found all there is to be found out
                found.append(took_s)
    return {"first_token_s": found}


async def stream(
    address: str, stream_count: int, rate: float, warm_s: float, window_s: float, pids: Mapping[str, int]
) -> Answer:
    """Reads streams of so many tokens a second each, all at once, and measures for `window_s` at their end.

    pids: the processes, by name, whose processor time is told, beside that of these clients and of everybody else.
    """
    run, token_count = f"run-{os.getpid()}-{next(_numbers)}", round(rate * (warm_s + window_s))
    streams = [Stream() for _ in range(stream_count)]
    begun: asyncio.Future[float] = asyncio.get_running_loop().create_future()
    processes = {"readers": os.getpid(), **pids}
    async with _calls(address, stream_count) as calls:
        reading = [
            asyncio.create_task(_read(call(request(run, stream_count, rate, token_count)), each, begun))
            for call, each in zip(calls, streams, strict=True)
        ]
        try:
            begin_s = await asyncio.wait_for(asyncio.shield(begun), START_S)
            await asyncio.sleep(begin_s + warm_s - time.monotonic())
            before, from_s = _spent_s(processes), time.monotonic()
            await asyncio.sleep(begin_s + warm_s + window_s - time.monotonic())
            after, until_s = _spent_s(processes), time.monotonic()
            await asyncio.wait(reading, timeout=LATE_S)
        finally:
            for task in reading:
                task.cancel()
            ends = await asyncio.gather(*reading, return_exceptions=True)
    cpu_s = {f"{name}_cpu_s": after[name] - before[name] for name in before}
    cpu_s["others_cpu_s"] = cpu_s.pop("all_cpu_s") - sum(cpu_s.values())
    return {
        **figures(streams, rate, token_count, (begin_s, from_s, until_s)),
        **cpu_s,
        "whole_count": sum(each is None for each in ends),
        "error": next((str(each)[:300] for each in ends if isinstance(each, Exception)), ""),
    }


def _has_token(message: bytes) -> bool:
    return any(each.HasField("delta") for each in inference_service_pb2.GenerateResponse.FromString(message).events)


async def _read(call: Any, into: Stream, begun: asyncio.Future[float]) -> None:
    messages, times_s = into.messages, into.times_s
    async with cancelling(call):
        while (message := await call.read()) is not grpc.aio.EOF:
            times_s.append(time.monotonic())
            messages.append(message)
            if not begun.done():  # the first token says when; it may come with `started`
                for event in inference_service_pb2.GenerateResponse.FromString(message).events:
                    if event.HasField("delta") and event.delta.first_position == 0 and not begun.done():
                        begun.set_result(float(event.delta.text))


def figures(
    streams: Sequence[Stream], rate: float, token_count: int, times_s: tuple[float, float, float]
) -> dict[str, Any]:
    """Returns what streams say. Raises ValueError if a token is missing, doubled or misplaced.

    times_s: when the first token was due, and from when until when is measured.

    A token is late by the time since its step; of those that come together, all count as the first of them.
    """
    begin_s, from_s, until_s = times_s
    late: list[tuple[float, int]] = []
    message_count = byte_count = got = 0
    step_s = max(LEAST_STEP_S, 1 / rate)
    per_step = rate * step_s
    for each in streams:
        position = 0
        for at_s, message in zip(each.times_s, each.messages, strict=True):
            events = inference_service_pb2.GenerateResponse.FromString(message).events
            first = position
            for event in events:
                if event.HasField("delta"):
                    if event.delta.first_position != position:
                        raise ValueError(f"position {event.delta.first_position} came behind {position} tokens")
                    position += len(event.delta.token_ids)
            if from_s <= at_s < until_s:
                message_count += 1
                byte_count += len(message)
                got += position - first
                if position > first:
                    late.append((at_s - begin_s - int(first / per_step) * step_s, position - first))
        if position > token_count:
            raise ValueError(f"{position} tokens came of {token_count}")
    window_s = until_s - from_s
    return {
        "window_s": window_s,
        "tokens_per_s": got / window_s,
        "messages_per_s": message_count / window_s,
        "bytes_per_s": byte_count / window_s,
        "late_p50_s": _weighted(late, 50),
        "late_p99_s": _weighted(late, 99),
    }


def _weighted(values: Sequence[tuple[float, int]], percent: float) -> float:
    """Returns the value that so many percent of the tokens are not above."""
    total, passed = sum(count for _, count in values), 0
    for value, count in sorted(values):
        passed += count
        if passed >= total * percent / 100:
            return value
    return percentile([], percent)


def _spent_s(processes: Mapping[str, int]) -> dict[str, float]:
    """Returns the processor time of each until now, and that of all there are."""
    told = {name: _cpu_s(pid) for name, pid in processes.items()}
    return {**told, "all": machine.busy_s(range(os.cpu_count() or 1))}


def _cpu_s(pid: int) -> float:
    """Returns the processor time of all threads that live, which is told in nanoseconds; that of a process is not."""
    threads = Path(f"/proc/{pid}/task").iterdir()
    return sum(int((each / "schedstat").read_text(encoding="ascii").split()[0]) for each in threads) / 1e9


async def _main() -> None:
    await answer({"first_tokens": first_tokens, "stream": stream})


if __name__ == "__main__":
    json.loads(sys.argv[1])
    asyncio.run(_main())

"""Cancels requests of a whole cluster at random, looks at each receipt, and at what is left behind.

`python -m benchmarks.receipts`. A control plane, a node agent, an engine and two gateways are processes, as users have
them; the engine has the last core and one thread, all else the first. Clients send requests of random prompts, lengths
and numbers of choices, more than fit in a batch, and cancel each at some time through any gateway: 65 % by id, 10 %
twice, 15 % by leaving the call, 5 % before it is sent and 5 % after its end. Each receipt has to add up. Aims: nothing
is left behind; from the call to the receipt in one step and 5 ms (p99).
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import os
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from benchmarks.support import machine
from benchmarks.support.cancellers import TIMEOUT_S, WAYS, Cancel, Cancellers
from benchmarks.support.metrics import percentile
from benchmarks.support.models import MODELS, made
from benchmarks.support.paths import MODELS_DIRECTORY, RESULTS_DIRECTORY, ROOT, result_path
from benchmarks.support.records import Records
from benchmarks.support.whole import whole
from engines.demo_model import MODEL_DIR
from roundhouse.client import Client, deployment
from roundhouse.kit.channel import open_channel
from roundhouse.v1 import deployment_pb2, deployment_service_pb2, request_pb2
from roundhouse.v1.deployment_service_pb2_grpc import DeploymentServiceStub

CANCELS, QUICK_CANCELS = 10_000, 300
USER_COUNT, BATCH_SIZE = 16, 32
KV_CACHE_BYTES = 256 << 20
VOCABULARY = 1_000
DEPLOYMENT = "cancelled"
SETTLE_S = 20.0  # an engine's load is told every second
_LIVE = (request_pb2.REQUEST_STATE_WAITING, request_pb2.REQUEST_STATE_RUNNING)


async def _load(plane: Any) -> deployment_pb2.EngineLoad:
    request = deployment_service_pb2.ListReplicasRequest(parent=f"deployments/{DEPLOYMENT}")
    [replica] = (await plane.ListReplicas(request, timeout=TIMEOUT_S)).replicas
    load: deployment_pb2.EngineLoad = replica.load
    return load


async def _left_behind(plane: Any, clients: Sequence[Client]) -> list[str]:
    """Returns what is still there a while after the last request ended; nothing, if all is well."""
    end_s = time.monotonic() + SETTLE_S
    while True:
        load = await _load(plane)
        left = []
        if load.running_count or load.waiting_count:
            left.append(f"{load.running_count} sequences run and {load.waiting_count} wait")
        if load.free_block_count != load.total_block_count:
            left.append(f"{load.total_block_count - load.free_block_count} blocks of {load.total_block_count} are held")
        for client in clients:
            requests = (await client.requests(DEPLOYMENT, states=_LIVE)).requests
            left += [f"request {each.request_id} is there" for each in requests[:5]]
        if not left or time.monotonic() > end_s:
            return left
        await asyncio.sleep(0.5)


def _figures(cancels: Sequence[Cancel]) -> Mapping[str, Mapping[str, float]]:
    each = {
        "from call to receipt": [one.took_s for one in cancels],
        "in the engine": [one.engine_s for one in cancels],
        "on the way": [one.took_s - one.engine_s for one in cancels],
        "longest step meanwhile": [one.step_s for one in cancels],
        "beyond that step": [one.took_s - one.step_s for one in cancels],
    }
    return {
        name: {f"p{percent}": percentile(sorted(values), percent) for percent in (50, 99, 100)}
        for name, values in each.items()
    }


async def _run(model: str, cancels: int, seed: int, records: Records, folder: Path) -> bool:
    cores = sorted(os.sched_getaffinity(0))
    front, engine = cores[:1], cores[-1:]
    directory = made(MODELS[model], MODELS_DIRECTORY, MODEL_DIR)
    wanted = deployment(
        DEPLOYMENT,
        path=str(directory),
        dtype=MODELS[model].dtype,
        batch_size=BATCH_SIZE,
        kv_cache_memory_bytes=KV_CACHE_BYTES,
    )
    async with contextlib.AsyncExitStack() as stack:
        there = whole(wanted, folder, gateway_count=2, front=front, engine=engine)
        addresses = await stack.enter_async_context(there)
        os.sched_setaffinity(0, front)
        clients = [await stack.enter_async_context(Client(each)) for each in addresses[1:]]
        own, *channels = [await stack.enter_async_context(open_channel(each)) for each in addresses]
        plane = DeploymentServiceStub(own)
        users = Cancellers(channels, DEPLOYMENT, VOCABULARY, seed)
        before, begin_s, ended = await _load(plane), time.monotonic(), asyncio.Event()
        marking = asyncio.create_task(users.mark_steps(ended))
        counts = [cancels // USER_COUNT + (number < cancels % USER_COUNT) for number in range(USER_COUNT)]
        await asyncio.gather(*(users.run(number, count) for number, count in enumerate(counts)))
        passed_s = time.monotonic() - begin_s
        ended.set()
        await marking
        left = await _left_behind(plane, clients)
        steps = (await _load(plane)).step_count - before.step_count
    timed = users.cancels()
    found = _figures(timed)
    records.add(
        "receipts",
        model=model,
        seconds=found,
        step_count=steps,
        passed_s=passed_s,
        ways=dict(users.ways),
        outcomes=dict(users.outcomes),
        steps_after={str(key): value for key, value in users.steps_after.items()},
        freed_block_count=users.freed_blocks,
        left_behind=left,
        error_count=users.error_count,
        errors=users.errors,
        cancels_s=[(each.took_s, each.engine_s, each.step_s) for each in timed],
    )
    print(f"{users.ways.total()} requests in {passed_s:.0f} s, {steps} steps: {dict(users.ways)}")
    print(f"receipts: {dict(users.outcomes)}; steps after the cancel: {dict(users.steps_after)}")
    for name, figures in found.items():
        print(f"  {name}: " + ", ".join(f"{key} {value * 1e3:.2f} ms" for key, value in figures.items()))
    print(f"left behind: {'; '.join(left) or 'nothing'}; {users.error_count} errors")
    for each in users.errors:
        print(f"  {each}")
    return not left and not users.error_count


def main(arguments: list[str] | None = None) -> None:
    """Runs what the command line asks for; the exit status is 1 if something is left, or does not add up."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.receipts", description=__doc__)
    parser.add_argument("--model", default="llama-25m-bfloat16", help=f"{', '.join(MODELS)}; default: %(default)s")
    parser.add_argument("--quick", action="store_true", help=f"{QUICK_CANCELS} cancels")
    parser.add_argument("--cancels", type=int, default=0, help=f"{CANCELS} if 0")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--results", type=Path, default=RESULTS_DIRECTORY, help="directory of the results")
    asked = parser.parse_args(arguments)
    records = Records(result_path(asked.results, "receipts"))
    run = {"seed": asked.seed, "users": USER_COUNT, "batch_size": BATCH_SIZE, "ways": dict(WAYS)}
    records.add("run", **machine.described(ROOT, sorted(os.sched_getaffinity(0))), **run)
    cancels = asked.cancels or (QUICK_CANCELS if asked.quick else CANCELS)
    with tempfile.TemporaryDirectory(prefix="roundhouse-receipts-") as folder:
        is_well = asyncio.run(_run(asked.model, cancels, asked.seed, records, Path(folder)))
    print(f"raw results: {records.path}")
    sys.exit(0 if is_well else 1)


if __name__ == "__main__":
    main()

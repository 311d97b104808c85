"""`python -m engines --bundle DIR`: one engine process. Wires, and decides nothing else.

Exit status: 0 after SIGTERM; 1 for a fault of ours, with a traceback in the log; 2 for a bundle, an environment or a
port that cannot be used; 3 for a model that cannot be loaded. The last line on stderr says what was wrong.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import os
import sys
from collections.abc import Callable, Sequence
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING

import structlog

from engines.batching.blocks import BlockPool
from engines.batching.scheduler import Scheduler
from engines.config import READY_FILE, Config, Options, read_config
from engines.demo_model import MODEL_DIR
from engines.loop import StepLoop
from engines.service.drain import Drain
from engines.service.identity import Identity, identified
from engines.service.inference import Inference
from engines.service.lifecycle import Lifecycle
from engines.service.listening import listening
from engines.service.ready import write_ready
from engines.service.requests import Requests
from engines.service.served import Description, Served
from engines.service.status import Status
from engines.service.threads import in_daemon_thread
from engines.service.wakeups import Wakeups
from roundhouse.internal.v1 import engine_service_pb2
from roundhouse.kit import logs, process
from roundhouse.kit.clock import SystemClock
from roundhouse.kit.errors import NotFound, RoundhouseError
from roundhouse.kit.service import Service
from roundhouse.v1 import errors_pb2, inference_service_pb2

if TYPE_CHECKING:
    from engines.backends.torch_lm.load import Loaded

NAME = "engine"
MODEL_STATUS = 3
BUILTINS = {"demo": MODEL_DIR}
PACKAGES = ("grpcio", "protobuf", "roundhouse-serve", "tokenizers", "torch", "transformers")
# A step on a CPU may take this long; what has not ended by then ends with the process.
STOP_S = 2.0

log = structlog.get_logger()


class Unloadable(Exception):
    """The model cannot be loaded; the message says why."""


def main() -> None:
    """Runs the engine and ends the process."""
    parser = argparse.ArgumentParser(prog="python -m engines", description="Runs one engine, as its bundle says.")
    parser.add_argument("--bundle", type=Path, required=True, help="directory with spec.json and key")
    parser.add_argument("--log-level", choices=logs.LEVELS, default="info")
    arguments = parser.parse_args()
    logs.configure(arguments.log_level, style="json")
    status = process.run(lambda stop: _run(arguments.bundle, stop), NAME)
    # A load or a step that goes on in its thread would crash in the middle of an interpreter that is taken down.
    sys.stderr.flush()
    os._exit(status)


async def _run(bundle: Path, stop: asyncio.Event) -> int:
    config = read_config(bundle, os.environ)
    lifecycle = Lifecycle()
    identity = Identity(
        config.engine_uuid,
        config.engine_key,
        config.deployment,
        config.replica,
        config.replica_uid,
        config.deployment_generation,
    )
    requests = Requests(
        identity,
        Wakeups(asyncio.get_running_loop().call_soon_threadsafe),
        SystemClock(),
        live_limit=config.options.batch_size + config.options.max_waiting,
    )
    drain = Drain(lifecycle, requests)
    services = _services(identity, lifecycle, requests, drain)
    async with listening(config.listen_host, config.ports, services, lifecycle) as serving:
        write_ready(bundle / READY_FILE, serving.address, config.engine_uuid)
        log.info("engine listens", replica=config.replica, engine=config.engine_uuid, address=serving.address)
        try:
            loaded = await _load(config, lifecycle, stop)
        except Unloadable as error:
            sys.stderr.write(f"{NAME}: cannot load the model: {error}\n")
            return MODEL_STATUS
        return 0 if loaded is None else await _serve(config, loaded, lifecycle, drain, stop)


def _services(identity: Identity, lifecycle: Lifecycle, requests: Requests, drain: Drain) -> Sequence[Service]:
    inference = inference_service_pb2.DESCRIPTOR.services_by_name["InferenceService"]
    engine = engine_service_pb2.DESCRIPTOR.services_by_name["EngineService"]
    versions = {name: version for name in PACKAGES if (version := _version(name))}
    return (
        identified(inference, Inference(identity, lifecycle, requests), identity),
        identified(engine, Status(identity, lifecycle, drain, versions), identity),
    )


async def _load(config: Config, lifecycle: Lifecycle, stop: asyncio.Event) -> Loaded | None:
    """Returns the model; None if the engine is to stop before it is loaded. Raises Unloadable."""
    loop = asyncio.get_running_loop()

    def tell(stage: str) -> None:
        loop.call_soon_threadsafe(lifecycle.load, stage)

    loading = asyncio.create_task(in_daemon_thread(lambda: _load_model(config, tell), "load"), name="load")
    await _first(loading, asyncio.create_task(stop.wait(), name="stop"))
    if loading.cancelled():
        return None
    try:
        return loading.result()
    except RoundhouseError as error:
        raise Unloadable(str(error)) from error
    except Exception as error:
        log.error("model cannot be loaded", replica=config.replica, exc_info=error)
        raise Unloadable(f"{type(error).__name__}: the traceback is in the log above") from error


def _load_model(config: Config, tell: Callable[[str], None]) -> Loaded:
    if isinstance(config.model, Path):
        directory = config.model
    elif config.model.name in BUILTINS:
        directory = BUILTINS[config.model.name]
    else:
        known = ", ".join(BUILTINS)
        message = f'no model "{config.model.name}" ships with this version: use one of {known}, or a path'
        raise NotFound(message, reason=errors_pb2.ERROR_REASON_MODEL_NOT_FOUND)
    tell("importing torch")
    from engines.backends.torch_lm.load import load_model  # takes seconds, in which the engine already answers

    return load_model(
        directory,
        device=config.device,
        dtype=config.options.dtype,
        block_size=config.options.block_size,
        kv_cache_bytes=config.options.kv_cache_bytes,
        max_model_len=config.options.max_model_len,
        on_stage=tell,
    )


async def _serve(config: Config, loaded: Loaded, lifecycle: Lifecycle, drain: Drain, stop: asyncio.Event) -> int:
    """Serves until SIGTERM or a fault; returns the exit status."""
    loop, faulted = asyncio.get_running_loop(), asyncio.Event()

    def report(error: BaseException) -> None:
        log.error("step loop failed", replica=config.replica, exc_info=error)
        if steps.fault is not None:
            faulted.set()

    def tell(error: BaseException) -> None:
        loop.call_soon_threadsafe(report, error)

    steps = _steps(config.options, loaded, tell)
    steps.start()
    lifecycle.serve(Served(steps, loaded.tokenizer, _description(loaded), loaded.fingerprint))
    log.info("engine serves", replica=config.replica, engine=config.engine_uuid)
    await _first(asyncio.create_task(stop.wait(), name="stop"), asyncio.create_task(faulted.wait(), name="fault"))
    lifecycle.stop()
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(STOP_S):
            await drain.drain(0.0)
    log.info("engine stops", replica=config.replica, engine=config.engine_uuid)
    return 1 if faulted.is_set() else 0


def _steps(options: Options, loaded: Loaded, on_fault: Callable[[BaseException], None]) -> StepLoop:
    scheduler = Scheduler(
        BlockPool(loaded.total_blocks, loaded.block_size),
        batch_size=options.batch_size,
        max_batched_tokens=options.max_batched_tokens,
    )
    return StepLoop(
        loaded.runner,
        scheduler,
        loaded.tokenizer.transcript,
        batch_interval_s=options.batch_interval_s,
        max_waiting=options.max_waiting,
        on_fault=on_fault,
    )


def _description(loaded: Loaded) -> Description:
    defaults = loaded.defaults
    return Description(
        model_type=loaded.model_type,
        parameter_count=loaded.parameter_count,
        dtype=loaded.dtype,
        device=loaded.device,
        max_model_len=loaded.max_model_len,
        vocabulary_size=loaded.vocabulary_size,
        block_size=loaded.block_size,
        end_token_ids=loaded.tokenizer.end_ids,
        default_temperature=1.0 if defaults.temperature is None else defaults.temperature,
        default_top_p=1.0 if defaults.top_p is None else defaults.top_p,
        default_top_k=0 if defaults.top_k is None else defaults.top_k,
    )


async def _first(*tasks: asyncio.Task[object]) -> None:
    """Waits for the first of the tasks, and cancels the others."""
    await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)


def _version(package: str) -> str:
    with contextlib.suppress(metadata.PackageNotFoundError):
        return metadata.version(package)
    return ""


if __name__ == "__main__":
    main()

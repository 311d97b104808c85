"""`python -m engines --bundle DIR`: one engine process. Wires, and decides nothing else.

Exit status: 0 after SIGTERM; 1 for a fault of ours, with a traceback in the log; 2 for a bundle, an environment or a
port that cannot be used; 3 for a model that cannot be loaded. The last line on stderr says what was wrong.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import gc
import logging
import os
import platform
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING

import structlog

from engines.batching.blocks import BlockPool
from engines.batching.scheduler import Scheduler
from engines.config import READY_FILE, Builtin, Config, Options, read_config
from engines.demo_model import MODEL_DIR
from engines.heap import frugal_heap
from engines.loading import Count, Loading, LoadStage, OnStage
from engines.loop import Proposer, StepLoop
from engines.service.drain import Drain
from engines.service.identity import Identity, identified
from engines.service.inference import Inference
from engines.service.lifecycle import Lifecycle
from engines.service.listening import listening
from engines.service.ready import write_ready
from engines.service.requests import Requests
from engines.service.served import Description, Grammars, Served
from engines.service.status import Status
from engines.service.threads import in_daemon_thread
from engines.service.wakeups import Wakeups
from roundhouse.internal.v1 import engine_service_pb2
from roundhouse.kit import logs, process
from roundhouse.kit.clock import SystemClock
from roundhouse.kit.errors import NotFound, NotServed, RoundhouseError
from roundhouse.kit.service import Service
from roundhouse.v1 import errors_pb2, inference_service_pb2

if TYPE_CHECKING:
    from engines.backends.torch_lm.load import Loaded

NAME = "engine"
MODEL_STATUS = 3
BUILTINS = {"demo": MODEL_DIR}
PACKAGES = ("grpcio", "protobuf", "roundhouse-serve", "tokenizers", "torch", "transformers")
# They warn at their import of what is no matter here: extensions for other machines, and one another's ways.
NOISY = ("torchao", "torch.utils._pytree")
# A step on a CPU may take this long; what has not ended by then ends with the process.
STOP_S = 2.0

log = structlog.get_logger()


class Unloadable(Exception):
    """The model cannot be loaded; the message says why."""


@dataclass(frozen=True, slots=True)
class Model:
    """A model, and what guesses tokens ahead of it."""

    loaded: Loaded
    proposer: Proposer | None
    grammars: Grammars | None  # None where none can be compiled


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
    services = _services(identity, lifecycle, requests, drain, _versions(config.packages))
    async with listening(config.listen_host, config.ports, services, lifecycle) as serving:
        write_ready(bundle / READY_FILE, serving.address, config.engine_uuid)
        log.info("engine listens", replica=config.replica, engine=config.engine_uuid, address=serving.address)
        try:
            model = await _load(config, lifecycle, stop)
        except Unloadable as error:
            sys.stderr.write(f"{NAME}: cannot load the model: {error}\n")
            return MODEL_STATUS
        return 0 if model is None else await _serve(config, model, lifecycle, drain, stop)


def _services(
    identity: Identity, lifecycle: Lifecycle, requests: Requests, drain: Drain, versions: Mapping[str, str]
) -> Sequence[Service]:
    inference = inference_service_pb2.DESCRIPTOR.services_by_name["InferenceService"]
    engine = engine_service_pb2.DESCRIPTOR.services_by_name["EngineService"]
    return (
        identified(inference, Inference(identity, lifecycle, requests), identity),
        identified(engine, Status(identity, lifecycle, drain, versions), identity),
    )


async def _load(config: Config, lifecycle: Lifecycle, stop: asyncio.Event) -> Model | None:
    """Returns the model; None if the engine is to stop before it is loaded. Raises Unloadable."""
    loop = asyncio.get_running_loop()

    def tell(message: str, stage: LoadStage | None = None, count: Count | None = None, /) -> None:
        loading = None if stage is None else Loading(stage, time.time(), count)
        loop.call_soon_threadsafe(lifecycle.load, message, loading)

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


def _load_model(config: Config, tell: OnStage) -> Model:
    options, directory = config.options, _directory(config.model)
    guesses = None if options.speculation is None else options.speculation.draft_model
    draft_directory = None if guesses is None else _directory(guesses)
    tell("importing torch")
    for name in NOISY:
        logging.getLogger(name).setLevel(logging.ERROR)
    # Takes seconds, in which the engine already answers.
    from engines.backends.torch_lm.load import load_model
    from engines.backends.torch_lm.speculation import make_proposer

    with frugal_heap():
        loaded = load_model(
            directory,
            device=config.device,
            dtype=options.dtype,
            quantization="" if options.quantization == "none" else options.quantization,
            attention=options.attention,
            is_compiled=options.is_compiled,
            block_size=options.block_size,
            kv_cache_bytes=options.kv_cache_bytes,
            max_model_len=options.max_model_len,
            batch_size=options.batch_size,
            max_batched_tokens=options.max_batched_tokens,
            template_variables=_template_variables(options),
            chat_template=config.chat_template,
            on_stage=tell,
        )
        proposer = make_proposer(options, draft_directory, loaded, tell)
    tell("reading the vocabulary", LoadStage.WARMING_UP)
    grammars = _grammars(loaded)
    gc.collect()
    gc.freeze()  # else every full collection would go through all of that, and be one long step
    return Model(loaded, proposer, grammars)


def _template_variables(options: Options) -> dict[str, object]:
    """Returns what the chat template is told; of what nobody has set it hears nothing, so that it can decide."""
    return {} if options.enable_thinking is None else {"enable_thinking": options.enable_thinking}


def _grammars(loaded: Loaded) -> Grammars | None:
    try:
        from engines.text.grammar import Grammars as Compiled

        return Compiled(loaded.tokenizer, loaded.vocabulary_size)
    except (ImportError, NotServed) as error:
        log.warning("constraints are not served", reason=str(error))
        return None


def _directory(model: Path | Builtin) -> Path:
    if isinstance(model, Path):
        return model
    if model.name in BUILTINS:
        return BUILTINS[model.name]
    known = ", ".join(BUILTINS)
    message = f'no model "{model.name}" ships with this version: use one of {known}, or a path'
    raise NotFound(message, reason=errors_pb2.ERROR_REASON_MODEL_NOT_FOUND)


async def _serve(config: Config, model: Model, lifecycle: Lifecycle, drain: Drain, stop: asyncio.Event) -> int:
    """Serves until SIGTERM or a fault; returns the exit status."""
    loop, faulted = asyncio.get_running_loop(), asyncio.Event()

    def report(error: BaseException) -> None:
        log.error("step loop failed", replica=config.replica, exc_info=error)
        if steps.fault is not None:
            faulted.set()

    def tell(error: BaseException) -> None:
        loop.call_soon_threadsafe(report, error)

    steps = _steps(config.options, model, tell)
    steps.start()
    loaded = model.loaded
    description = _description(config.options, loaded)
    lifecycle.serve(
        Served(
            steps,
            loaded.tokenizer,
            description,
            loaded.fingerprint,
            model.grammars,
            tokenizer_fingerprint=loaded.tokenizer_fingerprint,
            is_batch_invariant=loaded.is_batch_invariant,
        )
    )
    log.info("engine serves", replica=config.replica, engine=config.engine_uuid)
    await _first(asyncio.create_task(stop.wait(), name="stop"), asyncio.create_task(faulted.wait(), name="fault"))
    lifecycle.stop()
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(STOP_S):
            await drain.drain(0.0)
    log.info("engine stops", replica=config.replica, engine=config.engine_uuid)
    return 1 if faulted.is_set() else 0


def _steps(options: Options, model: Model, on_fault: Callable[[BaseException], None]) -> StepLoop:
    loaded = model.loaded
    scheduler = Scheduler(
        BlockPool(loaded.total_blocks, loaded.block_size),
        batch_size=options.batch_size,
        max_batched_tokens=options.max_batched_tokens,
        shares_prefixes=options.shares_prefixes,
        prefix_key=os.urandom(16),
    )
    return StepLoop(
        loaded.runner,
        scheduler,
        loaded.tokenizer.transcript,
        batch_interval_s=options.batch_interval_s,
        max_waiting=options.max_waiting,
        proposer=model.proposer,
        draft_count=0 if options.speculation is None else options.speculation.most,
        on_fault=on_fault,
    )


def _description(options: Options, loaded: Loaded) -> Description:
    defaults, speculation = loaded.defaults, options.speculation
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
        default_min_p=0.0 if defaults.min_p is None else defaults.min_p,
        default_typical_p=1.0 if defaults.typical_p is None else defaults.typical_p,
        default_repetition_penalty=1.0 if defaults.repetition_penalty is None else defaults.repetition_penalty,
        numerics=loaded.numerics,
        quantization=options.quantization,
        is_compiled=options.is_compiled,
        shares_prefixes=options.shares_prefixes,
        speculation="off" if speculation is None else "draft_model" if speculation.draft_model else "ngram",
    )


async def _first(*tasks: asyncio.Task[object]) -> None:
    """Waits for the first of the tasks, and cancels the others."""
    await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)


def _versions(asked: Sequence[str]) -> Mapping[str, str]:
    found = {name: version for name in (*PACKAGES, *asked) if (version := _version(name))}
    return {"python": platform.python_version(), **found}


def _version(package: str) -> str:
    with contextlib.suppress(metadata.PackageNotFoundError):
        return metadata.version(package)
    return ""


if __name__ == "__main__":
    main()

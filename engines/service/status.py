"""Serves `EngineService`: who the engine is, what it does, its drain. Waits for no step, so one that hangs is seen."""

from __future__ import annotations

import asyncio
import contextlib
import os
from collections.abc import Mapping

from engines.loading import Loading
from engines.model import Progress
from engines.service.drain import Drain
from engines.service.identity import Identity
from engines.service.lifecycle import Lifecycle, State
from engines.service.served import Served
from roundhouse.internal.v1 import engine_service_pb2, hop_pb2
from roundhouse.kit.fields import invalid
from roundhouse.kit.service import Context
from roundhouse.kit.times import from_duration, to_duration, to_timestamp
from roundhouse.options.engine_options import METHODS
from roundhouse.v1 import deployment_pb2

DEFAULT_PERIOD_S = 1.0
MIN_PERIOD_S, MAX_PERIOD_S = 0.05, 60.0
DEFAULT_GRACE_S = 30.0

_STATES: Mapping[State, engine_service_pb2.EngineState] = {
    State.LOADING: engine_service_pb2.ENGINE_STATE_LOADING,
    State.SERVING: engine_service_pb2.ENGINE_STATE_SERVING,
    State.DRAINING: engine_service_pb2.ENGINE_STATE_DRAINING,
}


class Status:
    """Methods as in `engine_service.proto`."""

    def __init__(
        self, identity: Identity, lifecycle: Lifecycle, drain: Drain, package_versions: Mapping[str, str]
    ) -> None:
        self._identity = identity
        self._lifecycle = lifecycle
        self._drain = drain
        self._package_versions = package_versions

    async def Describe(
        self, _request: engine_service_pb2.DescribeRequest, _context: Context, _hop: hop_pb2.Hop
    ) -> engine_service_pb2.DescribeResponse:
        """Says who the engine is and what it serves."""
        served = self._lifecycle.served
        return engine_service_pb2.DescribeResponse(
            engine_uuid=self._identity.engine_uuid,
            replica=self._identity.replica,
            replica_uid=self._identity.replica_uid,
            pid=os.getpid(),
            deployment_generation=self._identity.deployment_generation,
            status=self._status(),
            fingerprint="" if served is None else served.fingerprint,
            model=None if served is None else _description(served),
            package_versions=self._package_versions,
        )

    async def Watch(self, request: engine_service_pb2.WatchRequest, context: Context, _hop: hop_pb2.Hop) -> None:
        """Streams the status at once, at every change of stage, and every period."""
        period_s = from_duration(request.period) if request.HasField("period") else DEFAULT_PERIOD_S
        if not MIN_PERIOD_S <= period_s <= MAX_PERIOD_S:
            raise invalid("period", f"{period_s:g} s is out of range: use {MIN_PERIOD_S:g} s to {MAX_PERIOD_S:g} s")
        while True:
            stage = self._lifecycle.stage
            await context.write(engine_service_pb2.WatchResponse(statuses=[self._status()]))
            if stage.is_last:
                return
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(period_s):
                    await self._lifecycle.change_from(stage)

    async def Drain(
        self, request: engine_service_pb2.DrainRequest, _context: Context, _hop: hop_pb2.Hop
    ) -> engine_service_pb2.DrainResponse:
        """Drains, and answers when every request has ended."""
        grace_s = from_duration(request.grace) if request.HasField("grace") else DEFAULT_GRACE_S
        if grace_s < 0:
            raise invalid("grace", f"{grace_s:g} s is below 0: use 0 s or more")
        drained = await self._drain.drain(grace_s, hands_over=request.hands_over)
        return engine_service_pb2.DrainResponse(
            finished_count=drained.finished_count,
            cancelled_count=drained.cancelled_count,
            handed_over_count=drained.handed_over_count,
        )

    def _status(self) -> engine_service_pb2.EngineStatus:
        stage, served = self._lifecycle.stage, self._lifecycle.served
        return engine_service_pb2.EngineStatus(
            state=_STATES[stage.state],
            message=stage.message,
            load=None if served is None else _load(served.steps.progress(), served.description.block_size),
            progress=None if stage.loading is None else _progress(stage.loading),
        )


def _progress(loading: Loading) -> deployment_pb2.LaunchProgress:
    progress = deployment_pb2.LaunchProgress(
        stage=f"LAUNCH_STAGE_{loading.stage.name}", stage_start_time=to_timestamp(loading.start_time_s)
    )
    count = loading.count
    if count is not None and count.total_bytes:
        total = count.total_bytes
        done = min(count.done_bytes, total)
        progress.done_bytes, progress.total_bytes, progress.fraction = done, total, done / total
    return progress


def _load(progress: Progress, block_size: int) -> deployment_pb2.EngineLoad:
    age_s = progress.last_step_age_s
    return deployment_pb2.EngineLoad(
        running_count=progress.running_count,
        waiting_count=progress.waiting_count,
        free_block_count=progress.free_blocks,
        total_block_count=progress.total_blocks,
        step_count=progress.step_count,
        last_step_age=None if age_s is None else to_duration(age_s),
        busy_fraction=progress.busy_fraction,
        output_token_count=progress.output_token_count,
        preemption_count=progress.preemption_count,
        out_of_memory_count=progress.out_of_memory_count,
        prompt_token_count=progress.prompt_token_count,
        cached_prompt_token_count=progress.cached_token_count,
        drafted_token_count=progress.drafted_token_count,
        accepted_token_count=progress.accepted_token_count,
        max_running_count=progress.max_running_count,
        kv_token_count=progress.total_blocks * block_size,
    )


def _description(served: Served) -> engine_service_pb2.ModelDescription:
    facts = served.description
    return engine_service_pb2.ModelDescription(
        model_type=facts.model_type,
        parameter_count=facts.parameter_count,
        dtype=facts.dtype,
        device=facts.device,
        max_model_len=facts.max_model_len,
        vocabulary_size=facts.vocabulary_size,
        block_size=facts.block_size,
        total_block_count=served.steps.progress().total_blocks,
        has_chat_template=served.tokenizer.has_chat_template,
        numerics=facts.numerics,
        quantization=facts.quantization,
        is_compiled=facts.is_compiled,
        has_prefix_caching=facts.shares_prefixes,
        speculation_method=METHODS[facts.speculation],
        has_constraints=served.grammars is not None,
    )

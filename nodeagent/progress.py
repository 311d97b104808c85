"""Writes how far a replica is on its way to READY, as the contract has it. Pure."""

from __future__ import annotations

from roundhouse.kit.times import to_timestamp
from roundhouse.v1.deployment_pb2 import LaunchProgress, LaunchStage


def in_stage(stage: LaunchStage, before: LaunchProgress | None, now_s: float) -> LaunchProgress:
    """Returns that a stage goes on since it was first told, that is now unless it stands in `before`."""
    progress = LaunchProgress(stage=stage, stage_start_time=to_timestamp(now_s))
    if before is not None and before.stage == stage:
        progress.stage_start_time.CopyFrom(before.stage_start_time)
    return progress


def with_bytes(progress: LaunchProgress, done_bytes: int, total_bytes: int) -> LaunchProgress:
    """Returns the same with numbers; of nothing there is no share."""
    counted = LaunchProgress(done_bytes=done_bytes, total_bytes=total_bytes)
    if total_bytes:
        counted.fraction = done_bytes / total_bytes
    counted.MergeFrom(progress)
    return counted

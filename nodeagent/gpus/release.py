"""Waits until the GPUs have given back what an engine held."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

from nodeagent.model import Sample
from roundhouse.kit.latest import Latest

RELEASE_WITHIN_S = 30.0  # a driver takes seconds to give the memory of a large engine back


async def memory_released(
    samples: Latest[Sample | None],
    replica_uid: str,
    gpu_uuids: Sequence[str],
    *,
    since_s: float,
    within_s: float = RELEASE_WITHIN_S,
) -> bool:
    """Returns True once a sample taken after `since_s` shows nothing of the replica there, False if none does."""
    if not gpu_uuids:
        return True
    try:
        async with asyncio.timeout(within_s):
            async for sample in samples.watch():
                if sample is None or sample.gpu_time_s <= since_s:
                    continue
                here = [each for each in sample.gpus if each.uuid in gpu_uuids]
                if not any(each.measured_bytes.get(replica_uid) for each in here):
                    return True
    except TimeoutError:
        pass
    return False

"""What was fitted to the memory that there was, in words."""

from __future__ import annotations

from roundhouse.kit.units import format_bytes
from roundhouse.v1.deployment_pb2 import Deployment


def fitted_line(deployment: Deployment) -> str:
    """Returns what each replica has got of memory."""
    options, need = deployment.computed_options, deployment.memory_need
    return (
        f"fitted to the memory that is free: a context of {options.max_model_len:,} tokens, "
        f"a KV cache of {format_bytes(need.kv_cache_bytes)}, {format_bytes(need.total_bytes)} in all"
    )

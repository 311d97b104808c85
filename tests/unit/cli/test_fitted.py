"""What `roundhouse launch` says of memory that was fitted."""

from __future__ import annotations

from roundhouse.cli.fitted import fitted_line
from roundhouse.v1.deployment_pb2 import Deployment, EngineOptions, MemoryNeed


def test_what_each_replica_has_got_is_told_with_its_numbers() -> None:
    need = MemoryNeed(total_bytes=3 << 30, kv_cache_bytes=1 << 30, is_fitted=True)
    line = fitted_line(Deployment(memory_need=need, computed_options=EngineOptions(max_model_len=16384)))
    assert "16,384 tokens" in line
    assert "KV cache of 1 GiB, 3 GiB in all" in line

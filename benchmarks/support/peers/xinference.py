"""Xinference's transformers engine: its own `PytorchModel` with its own `BatchScheduler`, without its servers.

A token came when its chunk did: the engine hands them out behind every sixteenth decode.
"""

from __future__ import annotations

import asyncio
import importlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from benchmarks.support.child import Clock, serve
from benchmarks.support.models import word_of
from benchmarks.support.wire import Request, Setup

_CHUNK = 16  # tokens; the engine decodes as many without a look at anything else, so that more chunks only cost


class Xinference:
    """Gives the model one task for each request."""

    def __init__(self, setup: Setup) -> None:
        families: Any = importlib.import_module("xinference.model.llm.llm_family")
        core: Any = importlib.import_module("xinference.model.llm.transformers.core")
        specification = families.PytorchLLMSpecV2(
            model_format="pytorch",
            model_size_in_billions=1,
            quantization="none",
            model_id=None,
            model_uri=None,
            model_revision=None,
            draft_model_id=None,
            draft_quantizations=None,
            draft_model_revision=None,
        )
        family = families.LLMFamilyV2(
            version=2,
            context_length=setup.max_model_len,
            model_name=Path(setup.model).name,
            model_lang=["en"],
            model_ability=["generate"],
            model_specs=[specification],
        )
        family.model_specs = [specification]
        configuration = {"max_num_seqs": setup.batch_size, "torch_dtype": setup.dtype, "device": "cpu"}
        self._model: Any = core.PytorchModel("measured", family, setup.model, configuration)
        self._model.load()

    def run(self, requests: Sequence[Request], clock: Clock) -> Sequence[Sequence[float]]:
        """See `Peer`."""
        return asyncio.run(self._run(requests, clock))

    async def _run(self, requests: Sequence[Request], clock: Clock) -> Sequence[Sequence[float]]:
        try:
            return await asyncio.gather(*(self._serve(request, clock) for request in requests))
        finally:
            await self._model.stop_scheduler()  # belongs to this event loop

    async def _serve(self, request: Request, clock: Clock) -> Sequence[float]:
        await asyncio.sleep(max(0.0, request.at_s - clock.now_s()))
        wishes = {"max_tokens": request.output_count, "temperature": 0, "stream": True, "stream_interval": _CHUNK}
        chunks = await self._model.generate(" ".join(map(word_of, request.prompt)), wishes)
        times: list[float] = []
        async for chunk in chunks:
            count = (chunk.get("usage") or {}).get("completion_tokens", 0)
            times.extend([clock.now_s()] * (count - len(times)))
        return times


def _threads() -> int:
    torch: Any = importlib.import_module("torch")
    return int(torch.get_num_threads())


if __name__ == "__main__":
    serve(Xinference, threads=_threads)

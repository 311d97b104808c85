"""transformers' `generate`: static batches, padded to the longest prompt, each run until its longest output is done.

What has come when a batch begins makes up the next one. Option `cache` chooses its `cache_implementation`.
"""

from __future__ import annotations

import importlib
import threading
from collections.abc import Sequence
from typing import Any

from benchmarks.support.child import Clock, serve
from benchmarks.support.wire import Request, Setup


class Generate:
    """Calls `generate` for one batch after the other."""

    def __init__(self, setup: Setup) -> None:
        transformers: Any = importlib.import_module("transformers")
        self._torch: Any = importlib.import_module("torch")
        self._batch_size = setup.batch_size
        self._cache = setup.options.get("cache")
        factory = transformers.AutoModelForCausalLM
        self._model: Any = factory.from_pretrained(setup.model, dtype=getattr(self._torch, setup.dtype)).eval()

    def run(self, requests: Sequence[Request], clock: Clock) -> Sequence[Sequence[float]]:
        """See `Peer`."""
        coming = sorted(range(len(requests)), key=lambda number: requests[number].at_s)
        times: list[Sequence[float]] = [()] * len(requests)
        while coming:
            now_s = clock.now_s()
            batch = [number for number in coming if requests[number].at_s <= now_s][: self._batch_size]
            if not batch:
                threading.Event().wait(requests[coming[0]].at_s - now_s)
                continue
            coming = [number for number in coming if number not in batch]
            came = self._generate([requests[number] for number in batch], clock)
            for number in batch:
                times[number] = came[: requests[number].output_count]
        return times

    def _generate(self, batch: Sequence[Request], clock: Clock) -> Sequence[float]:
        """Returns when each token of the whole batch came."""
        longest = max(len(request.prompt) for request in batch)
        pads = [longest - len(request.prompt) for request in batch]
        ids = [[0] * pad + list(request.prompt) for pad, request in zip(pads, batch, strict=True)]
        mask = [[0] * pad + [1] * (longest - pad) for pad in pads]
        times = _Times(clock)
        with self._torch.inference_mode():
            self._model.generate(
                input_ids=self._torch.tensor(ids),
                attention_mask=self._torch.tensor(mask),
                max_new_tokens=max(request.output_count for request in batch),
                do_sample=False,
                eos_token_id=None,
                pad_token_id=0,
                cache_implementation=self._cache,
                stopping_criteria=[times.note],
            )
        return times.found_s


class _Times:
    """Notes when each token came; stops nothing."""

    def __init__(self, clock: Clock) -> None:
        self.found_s: list[float] = []
        self._clock = clock

    def note(self, ids: Any, _: Any, **__: Any) -> Any:
        """Is called by `generate` after each token."""
        self.found_s.append(self._clock.now_s())
        return ids.new_zeros(ids.shape[0], dtype=importlib.import_module("torch").bool)


def _threads() -> int:
    torch: Any = importlib.import_module("torch")
    return int(torch.get_num_threads())


if __name__ == "__main__":
    serve(Generate, threads=_threads)

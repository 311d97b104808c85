"""transformers' own continuous batching, through its `ContinuousBatchingManager`.

Options: `attention` (`sdpa` or `paged|eager`), `page` (tokens of a page), `budget` (tokens of a step), `compile` (its
`default_compile_level`).
"""

from __future__ import annotations

import importlib
import threading
from collections.abc import Sequence
from typing import Any

from benchmarks.support.child import Clock, serve
from benchmarks.support.wire import Request, Setup

LONGEST_S = 600.0  # without any result


class TransformersBatching:
    """Hands requests to the manager, which steps on a thread of its own, and asks it afterwards when tokens came."""

    def __init__(self, setup: Setup) -> None:
        transformers: Any = importlib.import_module("transformers")
        torch: Any = importlib.import_module("torch")
        options = setup.options
        model = transformers.AutoModelForCausalLM.from_pretrained(
            setup.model, dtype=getattr(torch, setup.dtype), attn_implementation=options.get("attention", "sdpa")
        ).eval()
        page = int(options.get("page", "32"))
        configuration = transformers.ContinuousBatchingConfig(
            page_size=page,
            num_blocks=setup.kv_cache_bytes // (page * _token_bytes(model)),
            max_batch_tokens=int(options.get("budget", "512")),
            max_requests_per_batch=setup.batch_size,
            default_compile_level=int(options.get("compile", "0")),
            use_async_batching=False,
            use_cuda_graph=False,
        )
        greedy = transformers.GenerationConfig(do_sample=False, eos_token_id=-1, pad_token_id=0)
        self._manager: Any = model.init_continuous_batching(greedy, configuration)
        self._manager.start()

    def run(self, requests: Sequence[Request], clock: Clock) -> Sequence[Sequence[float]]:
        """See `Peer`."""
        for number, request in sorted(enumerate(requests), key=lambda each: each[1].at_s):
            if (early_s := request.at_s - clock.now_s()) > 0:
                threading.Event().wait(early_s)
            self._manager.add_request(
                list(request.prompt),
                request_id=str(number),
                max_new_tokens=request.output_count,
                record_timestamps=True,
            )
        times: dict[int, list[float]] = {}
        while len(times) < len(requests):
            result = self._manager.get_result(timeout=LONGEST_S)
            if result is None or result.error:
                raise RuntimeError(result.error if result else "the manager has stopped")
            times[int(result.request_id)] = [clock.at_s(each) for each in result.timestamps]
        return [times[number] for number in range(len(requests))]


def _token_bytes(model: Any) -> int:
    """Returns the bytes that the keys and values of one token take in all layers."""
    config = model.config
    return int(2 * config.num_hidden_layers * config.num_key_value_heads * config.head_dim * model.dtype.itemsize)


def _threads() -> int:
    torch: Any = importlib.import_module("torch")
    return int(torch.get_num_threads())


if __name__ == "__main__":
    serve(TransformersBatching, threads=_threads)

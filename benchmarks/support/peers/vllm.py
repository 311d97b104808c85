"""vLLM for CPUs, through its own `LLMEngine`.

Options: `eager` runs the model without compiling it; `processes` keeps engine and computation in processes of their
own, with vLLM's own choice of cores, as its server does. Without, the steps run in this process on all threads.
"""

from __future__ import annotations

import importlib
import os
import threading
from collections.abc import Sequence
from typing import Any

from benchmarks.support.child import Clock, serve
from benchmarks.support.wire import Request, Setup


class Vllm:
    """Steps the engine until all is done."""

    def __init__(self, setup: Setup) -> None:
        has_processes = bool(setup.options.get("processes"))
        os.environ["VLLM_ENABLE_V1_MULTIPROCESSING"] = "1" if has_processes else "0"
        os.environ.setdefault("VLLM_LOGGING_LEVEL", "WARNING")
        os.environ.setdefault("VLLM_NO_USAGE_STATS", "1")
        self._vllm: Any = importlib.import_module("vllm")
        outputs: Any = importlib.import_module("vllm.sampling_params")
        self._delta = outputs.RequestOutputKind.DELTA
        limits = {"max_num_batched_tokens": int(budget)} if (budget := setup.options.get("budget")) else {}
        sizes = {"block_size": int(size)} if (size := setup.options.get("block")) else {}
        arguments = self._vllm.EngineArgs(
            model=setup.model,
            dtype=setup.dtype,
            max_model_len=setup.max_model_len,
            max_num_seqs=setup.batch_size,
            kv_cache_memory_bytes=setup.kv_cache_bytes,
            enforce_eager=bool(setup.options.get("eager")),
            enable_prefix_caching=True,
            skip_tokenizer_init=True,
            disable_log_stats=True,
            **limits,
            **sizes,
        )
        self._engine: Any = self._vllm.LLMEngine.from_engine_args(arguments)
        self._run_count = 0

    def run(self, requests: Sequence[Request], clock: Clock) -> Sequence[Sequence[float]]:
        """See `Peer`."""
        self._run_count += 1
        coming = sorted(enumerate(requests), key=lambda each: -each[1].at_s)
        times: list[list[float]] = [[] for _ in requests]
        while coming or self._engine.has_unfinished_requests():
            while coming and coming[-1][1].at_s <= clock.now_s():
                number, request = coming.pop()
                self._add(f"{self._run_count}-{number}", request)
            if not self._engine.has_unfinished_requests():
                threading.Event().wait(coming[-1][1].at_s - clock.now_s())
                continue
            outputs = self._engine.step()
            now_s = clock.now_s()
            for output in outputs:
                number = int(output.request_id.partition("-")[2])
                times[number].extend([now_s] * len(output.outputs[0].token_ids))
        return times

    def _add(self, name: str, request: Request) -> None:
        sampling = self._vllm.SamplingParams(
            temperature=0.0,
            max_tokens=request.output_count,
            ignore_eos=True,
            detokenize=False,
            output_kind=self._delta,
        )
        self._engine.add_request(name, {"prompt_token_ids": list(request.prompt)}, sampling)


def _threads() -> int:
    torch: Any = importlib.import_module("torch")
    return int(torch.get_num_threads())


if __name__ == "__main__":
    serve(Vllm, threads=_threads, children_count=True)

"""A model that torch compiles gives what transformers gives."""

from collections.abc import Callable
from pathlib import Path

import pytest

from engines.backends.torch_lm.load import load_model
from tests.support import stock
from tests.support.model_bench import bench_of
from tests.support.outputs import work
from tests.unit.engines.torch_lm.conftest import KV_CACHE_BYTES

PROMPTS = [[5, 6, 7], [300, 8, 9, 10, 11] * 7]
MAX_TOKENS = 16


@pytest.mark.slow
@pytest.mark.timeout(900)
@pytest.mark.filterwarnings("default")  # the compiler's own
def test_a_compiled_model_gives_what_transformers_gives(model_directory: Callable[[str], Path]) -> None:
    directory = model_directory("llama")
    model = load_model(directory, device="cpu", is_compiled=True, block_size=8, kv_cache_bytes=KV_CACHE_BYTES)
    assert model.numerics.startswith("compiled")
    expected = [stock.generated(directory, prompt, MAX_TOKENS) for prompt in PROMPTS]
    with bench_of(model) as it:
        outputs = [it.submit(work(str(index), prompt, MAX_TOKENS)) for index, prompt in enumerate(PROMPTS)]
        ends = [output.end() for output in outputs]
    assert [end.error for end in ends] == [None, None]
    assert [output.ids for output in outputs] == expected

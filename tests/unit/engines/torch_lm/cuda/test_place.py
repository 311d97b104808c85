"""A model gets the fastest way that gives what it should, and what was asked for or nothing."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from engines.backends.torch_lm.cache import LayerShape
from engines.backends.torch_lm.cuda.check import Expected, Tolerance, fault_of
from engines.backends.torch_lm.cuda.choose import uses_triton
from engines.backends.torch_lm.place import Wishes
from roundhouse.kit.errors import InvalidArgument
from tests.support.tiny_models import write_tiny_model
from tests.unit.engines.torch_lm.cuda.models import Load, model_of, place_of
from tests.unit.engines.torch_lm.cuda.scenes import IS_INTERPRETED

HOPPER = (9, 0)
USUAL = {0: LayerShape(8, 128, 128)}
HAS_TRITON = pytest.mark.skipif(not IS_INTERPRETED, reason="a CPU has Triton only under its interpreter")
WAYS = {
    "qwen3": "fused",
    "llama": "fused",
    "mistral": "fused",
    "gemma2": "fused",
    "gemma3_text": "fused",
    "phi3": "fused",
    "qwen3_moe": "fused",
    "mixtral": "fused",
    "gpt2": "stock",
    "gpt_oss": "stock",
}


@pytest.mark.parametrize("attention", ["auto", "triton"])
def test_triton_attends_where_it_can(attention: str) -> None:
    pytest.importorskip("triton", reason="Triton is not installed here")
    assert uses_triton(attention, USUAL, HOPPER)


def test_plain_torch_attends_if_asked() -> None:
    assert not uses_triton("torch", USUAL, HOPPER)


@pytest.mark.parametrize(
    ("shape", "capability", "why"),
    [(LayerShape(8, 128, 128), (7, 5), "compute capability 7.5"), (LayerShape(1, 576, 512), HOPPER, "heads of 256")],
    ids=["an old GPU", "wide heads"],
)
def test_what_triton_cannot_do_is_done_by_torch_or_refused(
    shape: LayerShape, capability: tuple[int, int], why: str
) -> None:
    pytest.importorskip("triton", reason="Triton is not installed here")
    assert not uses_triton("auto", {0: shape}, capability)
    with pytest.raises(InvalidArgument, match=why):
        uses_triton("triton", {0: shape}, capability)


def test_an_attention_of_another_device_is_refused() -> None:
    with pytest.raises(InvalidArgument, match="use auto, triton or torch"):
        uses_triton("c", USUAL, HOPPER)


def test_a_runner_that_gives_something_else_is_found_out(load: Load) -> None:
    model = load("llama")
    ids = [list(range(1, 21)), list(range(30, 42))]
    logits = [model.stock(torch.tensor([each], device=model.stock.device)).logits[0] for each in ids]
    long, short = (Expected(*pair) for pair in zip(ids, logits, strict=True))
    tolerance = Tolerance(1e-3, 0.0)
    assert fault_of(model.runner, 3, long, short, tolerance) is None
    assert fault_of(model.runner, 4, long, short, tolerance) == "3 of 4 layers attend"
    logits[1][7] = logits[1][6]
    assert fault_of(model.runner, 3, long, short, tolerance) == "1 of 32 tokens differ"
    assert fault_of(model.runner, 3, long, short, Tolerance(1e-3, 0.05)) is None
    logits[1][7] = torch.nan
    assert fault_of(model.runner, 3, long, short, tolerance) == "1 of 32 tokens differ"


@pytest.mark.parametrize("family", WAYS)
def test_the_first_way_works(family: str, load: Load) -> None:
    model = load(family)
    if not IS_INTERPRETED and model.stock.device.type == "cpu":
        assert model.way == "stock, attention by torch"
        return
    assert model.way == f"{WAYS[family]}, attention by triton"
    assert not [stage for stage in model.stages if "going on in another way" in stage]


def test_the_smallest_engine_is_checked_as_well(tmp_path: Path, device: str) -> None:
    directory = write_tiny_model(tmp_path / "model", "llama")
    placed = place_of(directory, device, Wishes(8, kv_cache_bytes=1, context=16, batch_size=1, max_batched_tokens=1))
    assert placed.total_blocks == 0


@HAS_TRITON
def test_kernels_that_give_something_else_are_not_used(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from engines.backends.torch_lm.cuda import attend

    def nothing(*arguments: object) -> None:
        output = arguments[-1]
        assert isinstance(output, torch.Tensor)
        output.zero_()

    monkeypatch.setattr(attend, "decode", nothing)
    model = model_of(write_tiny_model(tmp_path / "model", "llama"), "cpu")
    assert model.way == "stock, attention by torch"
    assert len([stage for stage in model.stages if "tokens differ" in stage]) == 2

"""What only a GPU can show: graphs that are captured, work that the host does not wait for, and memory that ends."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
import torch

from engines.backends.torch_lm.cuda.runner import CudaRunner
from engines.batching.batch import PENDING, Batch, Draw, Row, Score
from engines.batching.sequence import Sequence
from engines.loop.interfaces import OutOfMemory
from engines.model import Sampled, Sampling, Work
from tests.support.outputs import GREEDY
from tests.support.tiny_models import write_tiny_model
from tests.unit.engines.torch_lm.cuda.models import ROWS, Model, model_of

pytestmark = pytest.mark.gpu
HOT = Sampling(temperature=0.8, top_p=0.9, top_k=40, seed=1, repetition_penalty=1.1)


@pytest.fixture(scope="module", params=[torch.float32, torch.bfloat16], ids=["float32", "bfloat16"])
def model(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Model:
    directory: Path = write_tiny_model(tmp_path_factory.mktemp("qwen3"), "qwen3")
    return model_of(directory, "cuda", dtype=request.param)


def prompts(count: int) -> Batch:
    works = [Work(str(index), (5, 7 + index, 9), max_tokens=8, sampling=GREEDY) for index in range(count)]
    return Batch(tuple(Row(Sequence(work), work.prompt, 0, [index], 2) for index, work in enumerate(works)))


def after(batch: Batch, *ids: int) -> Batch:
    """Returns the step behind a batch; without ids, with the tokens that it draws."""
    given = ids or (PENDING,) * len(batch.rows)
    pairs = zip(batch.rows, given, strict=True)
    return Batch(tuple(Row(row.sequence, (token,), 3, row.blocks, 0) for row, token in pairs))


@contextmanager
def nothing_waits() -> Iterator[None]:
    torch.cuda.set_sync_debug_mode("error")
    try:
        yield
    finally:
        torch.cuda.set_sync_debug_mode("default")


@pytest.mark.parametrize("count", range(1, ROWS + 1))
def test_a_graph_gives_what_it_was_captured_from(model: Model, count: int) -> None:
    runner, batch = model.runner, prompts(count)
    runner.forward(batch)
    step = after(batch, *range(20, 20 + count))
    recorded = runner.forward(step).values[:count].clone()
    with runs_unrecorded(runner):
        direct = runner.forward(step).values[:count]
    apart = (recorded.float() - direct.float()).abs().max() / direct.float().abs().max()
    assert apart <= (1e-5 if direct.dtype == torch.float32 else 2e-2)


@contextmanager
def runs_unrecorded(runner: CudaRunner) -> Iterator[None]:
    sizes, runner._decoding._sizes = runner._decoding._sizes, []
    try:
        yield
    finally:
        runner._decoding._sizes = sizes


@pytest.mark.parametrize("sampling", [GREEDY, HOT], ids=["greedy", "by chance"])
def test_the_host_waits_for_nothing_but_answers(model: Model, sampling: Sampling) -> None:
    runner, batch = model.runner, prompts(3)
    draws = [Draw(sampling, 0, ids=row.ids, prompt_count=3, top=2) for row in batch.rows]
    runner.sample(runner.forward(batch), draws).wait()  # what is made once may wait
    with nothing_waits():
        first = runner.sample(runner.forward(batch), draws)
        logits = runner.forward(after(batch))
        runner.pick(logits, [1])
        second = runner.sample(logits, [*draws[:2], Score(3, 2)])
    assert all(isinstance(answer, Sampled) for answer in first.wait())
    assert len(second.wait()) == 3


def test_a_token_that_the_host_does_not_know_yet_is_the_one_that_was_drawn(model: Model) -> None:
    runner, batch = model.runner, prompts(4)
    draws = [Draw(GREEDY, 0, ids=row.ids, prompt_count=3) for row in batch.rows]
    answers = runner.sample(runner.forward(batch), draws)
    ahead = runner.forward(after(batch)).values[:4].clone()
    tokens = [answer.token for answer in answers.wait() if isinstance(answer, Sampled)]
    known = runner.forward(after(batch, *tokens)).values[:4]
    assert torch.equal(ahead, known)


def test_a_runner_works_after_memory_has_ended(model: Model, monkeypatch: pytest.MonkeyPatch) -> None:
    runner, batch = model.runner, prompts(2)
    expected = runner.forward(batch).values.clone()

    def greedy(*_: object) -> torch.Tensor:
        return torch.empty(1 << 48, dtype=torch.uint8, device="cuda")

    with monkeypatch.context() as patch:
        patch.setattr(runner, "_compute", greedy)
        with pytest.raises(OutOfMemory):
            runner.forward(batch)
    assert torch.equal(runner.forward(batch).values, expected)

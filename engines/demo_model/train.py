"""Trains the demo model from nothing on the generated corpus: `python -m engines.demo_model.train`.

Takes a fixed time instead of a fixed number of steps, and leaves a usable model directory every few minutes.
"""

import argparse
import csv
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from random import Random

import torch
from tokenizers import Tokenizer
from torch import Tensor
from torch.nn import functional
from transformers import Qwen3ForCausalLM

from engines.demo_model.corpus import conversations
from engines.demo_model.corpus.turns import Conversation
from engines.demo_model.loss_curve import draw_loss_curve
from engines.demo_model.model_directory import new_model, write_model_directory
from engines.demo_model.muon import Muon
from engines.demo_model.packing import pack_row
from engines.demo_model.rendering import END_OF_TEXT, THINK_END, THINK_START, TURN_END, TURN_START, segments
from engines.demo_model.tokenizer import train_tokenizer

_TOKENIZER_CONVERSATIONS = 30_000
_SAVE_EVERY_S = 180.0  # as much as one is ready to lose
_LOG_EVERY_STEPS = 20
_MATRIX_LR, _OTHER_LR = 0.02, 6e-3
_WARMUP_STEPS = 30
_CONSTANT_FRACTION = 0.3  # of the time; then the rate falls linearly to _LAST_RATE
_LAST_RATE = 0.02

# (rows, row length, share of the steps): mostly short, some long enough to learn distances up to the whole context.
_SHAPES = ((24, 256, 0.84), (6, 1024, 0.12), (3, 2048, 0.04))


@dataclass(slots=True)
class Progress:
    """Where a training run stands; saved with its state so that it can go on."""

    step: int = 0
    tokens: int = 0
    elapsed_s: float = 0.0


def main() -> None:
    """Parses the command line and trains."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--minutes", type=float, default=45.0, help="wall time to train for")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--out", type=Path, required=True, help="model directory to write")
    parser.add_argument("--log", type=Path, help="loss log to write, CSV; default OUT/loss.csv")
    parser.add_argument("--resume", action="store_true", help="go on from OUT.state.pt, left by an interrupted run")
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    torch.manual_seed(arguments.seed)
    run = Run(Random(arguments.seed), arguments.out, arguments.log or arguments.out / "loss.csv")
    if arguments.resume:
        run.restore()
    run.train(arguments.minutes * 60)


class Run:
    """One training run: model, optimizers, corpus position and where they are saved."""

    def __init__(self, random: Random, directory: Path, log_path: Path) -> None:
        self._random = random
        self._directory = directory
        self._state_path = directory.with_suffix(".state.pt")
        self._log_path = log_path
        self._tokenizer = _tokenizer(random)
        self._model = new_model(self._tokenizer)
        named = list(self._model.named_parameters())
        matrices = [parameter for name, parameter in named if parameter.ndim == 2 and "embed" not in name]
        others = [parameter for name, parameter in named if parameter.ndim != 2 or "embed" in name]
        self._optimizers: tuple[torch.optim.Optimizer, ...] = (
            Muon(matrices, lr=_MATRIX_LR),
            torch.optim.AdamW(others, lr=_OTHER_LR, betas=(0.9, 0.95), weight_decay=0.0, fused=True),
        )
        self._progress = Progress()

    def train(self, duration_s: float) -> None:
        """Trains until the run has taken so long altogether, then saves it."""
        self._directory.mkdir(parents=True, exist_ok=True)
        loss_of = _compiled_loss(self._model)
        started, saved = time.monotonic() - self._progress.elapsed_s, time.monotonic()
        while self._progress.elapsed_s < duration_s:
            rate = _rate(self._progress.step, self._progress.elapsed_s / duration_s)
            loss = self._step(loss_of, rate)
            self._progress.elapsed_s = time.monotonic() - started
            if self._progress.step % _LOG_EVERY_STEPS == 0:
                self._log(loss, rate)
            if time.monotonic() - saved > _SAVE_EVERY_S:
                self._save()
                saved = time.monotonic()
        self._save()
        draw_loss_curve(self._log_path, self._log_path.with_suffix(".svg"))

    def restore(self) -> None:
        """Takes up the run that the state file describes."""
        state = torch.load(self._state_path, weights_only=False)
        self._model.load_state_dict(state["model"])
        for optimizer, saved in zip(self._optimizers, state["optimizers"], strict=True):
            optimizer.load_state_dict(saved)
        self._random.setstate(state["random"])
        self._progress = state["progress"]

    def _step(self, loss_of: Callable[[Tensor, Tensor], Tensor], rate: float) -> float:
        ids, weights = self._batch()
        with torch.autocast("cpu", dtype=torch.bfloat16):
            loss = loss_of(ids, weights)
        torch.autograd.backward(loss)
        torch.nn.utils.clip_grad_norm_(self._model.parameters(), 1.0)
        for optimizer, base in zip(self._optimizers, (_MATRIX_LR, _OTHER_LR), strict=True):
            for group in optimizer.param_groups:
                group["lr"] = base * rate
            optimizer.step()
            optimizer.zero_grad(set_to_none=True)
        self._progress.step += 1
        self._progress.tokens += ids.numel()
        return loss.item()

    def _batch(self) -> tuple[Tensor, Tensor]:
        (shape,) = self._random.choices(_SHAPES, weights=[share for _, _, share in _SHAPES])
        rows = [pack_row(self._random, self._tokenizer, shape[1] + 1) for _ in range(shape[0])]
        return torch.tensor([ids for ids, _ in rows]), torch.tensor([weights for _, weights in rows])

    def _log(self, loss: float, rate: float) -> None:
        is_new = self._progress.step == _LOG_EVERY_STEPS
        with self._log_path.open("w" if is_new else "a", newline="", encoding="utf-8") as file:
            writer = csv.writer(file)
            if is_new:
                writer.writerow(["step", "elapsed_s", "tokens", "loss", "rate"])
            progress = self._progress
            writer.writerow(
                [progress.step, round(progress.elapsed_s, 1), progress.tokens, round(loss, 4), round(rate, 4)]
            )

    def _save(self) -> None:
        write_model_directory(self._directory, self._model, self._tokenizer)
        state = {
            "model": self._model.state_dict(),
            "optimizers": [optimizer.state_dict() for optimizer in self._optimizers],
            "random": self._random.getstate(),
            "progress": self._progress,
        }
        unfinished = self._state_path.with_suffix(".unfinished")
        torch.save(state, unfinished)
        unfinished.replace(self._state_path)


def _tokenizer(random: Random) -> Tokenizer:
    return train_tokenizer(_plain_text(conversations.conversation(random)) for _ in range(_TOKENIZER_CONVERSATIONS))


def _plain_text(conversation: Conversation) -> str:
    text = "".join(segment.text for segment in segments(conversation))
    for token in (END_OF_TEXT, TURN_START, TURN_END, THINK_START, THINK_END):
        text = text.replace(token, "")
    return text


def _compiled_loss(model: Qwen3ForCausalLM) -> Callable[[Tensor, Tensor], Tensor]:
    def loss_of(ids: Tensor, weights: Tensor) -> Tensor:
        hidden = model.model(input_ids=ids[:, :-1], use_cache=False).last_hidden_state
        logits = model.lm_head(hidden).float()
        losses = functional.cross_entropy(logits.flatten(0, 1), ids[:, 1:].flatten(), reduction="none")
        wanted = weights[:, 1:].flatten()
        return (losses * wanted).sum() / wanted.sum()

    return torch.compile(loss_of, dynamic=False)


def _rate(step: int, fraction: float) -> float:
    warmup = min(1.0, (step + 1) / _WARMUP_STEPS)
    decay = 1.0 if fraction < _CONSTANT_FRACTION else max(_LAST_RATE, (1 - fraction) / (1 - _CONSTANT_FRACTION))
    return warmup * decay


if __name__ == "__main__":
    main()

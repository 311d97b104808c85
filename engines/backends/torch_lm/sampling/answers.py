"""What was asked of logits, packed so that it comes to the host in one copy, and unpacked there."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import Any

import torch
from torch import Tensor

from engines.backends.torch_lm.sampling.edits import is_edited
from engines.batching.batch import Ask, Draw
from engines.model import Logprobs, NothingAllowed, Sampled, TokenLogprob

Answer = Sampled | Logprobs | Exception


@dataclass(frozen=True, slots=True)
class Part:
    """Answers to some asks that follow one another."""

    asks: Sequence[Ask | None]
    tokens: Tensor  # [asks], int64: drawn, or those whose likelihood is asked
    best: Tensor  # [asks]: the largest score, of which anything but a finite number is an error
    scored: Sequence[int]  # the asks that want likelihoods
    likelihoods: Tensor | None  # [scored, 3 + 2 * top]: log of all weights, score, rank, likeliest ids, their scores
    errors: Mapping[int, Exception]  # found before anything was computed


class Underway:
    """The step loop's `Answers`. What is on a device is copied behind the work that gives it."""

    def __init__(self, parts: Sequence[Part], device: torch.device) -> None:
        self._parts = parts
        self._copied: Any = None
        # [asks], int64, where the logits are: what a step that does not wait for these answers goes on with.
        self.tokens = torch.cat([torch.empty(0, dtype=torch.int64, device=device), *(part.tokens for part in parts)])
        tensors = [each for part in parts for each in (part.tokens, part.best, part.likelihoods) if each is not None]
        packed = torch.cat([torch.empty(0, device=device), *(each.flatten().double() for each in tensors)])
        self._packed = packed
        if packed.is_cuda:
            event: Any = torch.cuda.Event
            self._packed = torch.empty_like(packed, device="cpu", pin_memory=True).copy_(packed, non_blocking=True)
            self._copied = event()
            self._copied.record()

    def wait(self) -> list[Answer]:
        """Returns, in order, what was asked, or what went wrong with it. See `Answers.wait`."""
        if self._copied is not None:
            self._copied.synchronize()
        numbers = iter(self._packed.tolist())
        return [answer for part in self._parts for answer in _unpacked(part, numbers)]


def _unpacked(part: Part, numbers: Iterator[float]) -> Iterator[Answer]:
    tokens = list(islice(numbers, len(part.asks)))
    best = list(islice(numbers, len(part.asks)))
    width = 0 if part.likelihoods is None else part.likelihoods.shape[1]
    likelihoods = {row: list(islice(numbers, width)) for row in part.scored}
    for row, ask in enumerate(part.asks):
        if ask is not None:
            yield part.errors.get(row) or _answer(ask, int(tokens[row]), best[row], likelihoods.get(row))


def _answer(ask: Ask, token: int, best: float, likelihood: Sequence[float] | None) -> Answer:
    if best == -math.inf and isinstance(ask, Draw) and is_edited(ask):
        return NothingAllowed(f"every token that could come at position {ask.position} is forbidden")
    if not math.isfinite(best if likelihood is None else best + likelihood[0]):
        return ValueError("the logits are not finite numbers")
    if likelihood is None or ask.top is None:
        return Sampled(token)
    logprobs = _logprobs(token, ask.top, likelihood)
    return Sampled(token, logprobs) if isinstance(ask, Draw) else logprobs


def _logprobs(token: int, top: int, likelihood: Sequence[float]) -> Logprobs:
    log_total, score, rank, *likeliest = likelihood
    ids, scores = likeliest[: len(likeliest) // 2], likeliest[len(likeliest) // 2 :]
    pairs = zip(ids[:top], scores[:top], strict=True)
    return Logprobs(
        TokenLogprob(token, score - log_total, int(rank)),
        tuple(TokenLogprob(int(each), value - log_total, place) for place, (each, value) in enumerate(pairs, 1)),
    )

"""What a sampler has to do, in plain Python: one token at a time, in float64, without a thought of speed."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

from engines.backends.torch_lm.sampling.uniform import uniform
from engines.batching.batch import Draw


@dataclass(frozen=True)
class Distribution:
    """How likely each id is."""

    shares: list[float]
    margin: float  # how far from its edge the closest decision was: within rounding, either side is right

    def token(self, number: float) -> tuple[int, float]:
        """Returns the first id up to which more than `number` lies, and how close to an edge the number is."""
        reached, edges = 0.0, []
        for share in self.shares:
            reached += share
            edges.append(reached)
        found = next((each for each, edge in enumerate(edges) if edge > number), len(edges) - 1)
        return found, min(abs(edge - number) for edge in edges[:-1]) if len(edges) > 1 else 1.0


def slow_token(logits: Sequence[float], draw: Draw) -> tuple[int, float]:
    """Returns the token that a draw gives, and by how much it could have been another."""
    found = distribution(logits, draw)
    token, margin = found.token(uniform(draw.sampling.seed, draw.choice, draw.position))
    return token, min(margin, found.margin)


def distribution(logits: Sequence[float], draw: Draw) -> Distribution:
    """Returns how likely each id is to be drawn. Raises ValueError if none may be."""
    scores = edited(logits, draw)
    sampling = draw.sampling
    best = max(scores)
    if best == -math.inf:
        raise ValueError("everything is forbidden")
    if sampling.temperature == 0:
        token = scores.index(best)
        others = [best - score for score in scores if score != best]
        return Distribution([float(each == token) for each in range(len(scores))], min(others, default=1.0))
    weights = [math.exp((score - best) / sampling.temperature) for score in scores]
    margin = 1.0
    if sampling.top_k:
        likeliest = sorted(range(len(weights)), key=lambda each: (-weights[each], each))
        weights = _only(weights, likeliest[: sampling.top_k])
    if sampling.top_p < 1:
        likeliest = sorted(range(len(weights)), key=lambda each: (-weights[each], each))
        weights, margin = _until(weights, likeliest, sampling.top_p, margin)
    if sampling.typical_p < 1:
        shares = _shares(weights)
        entropy = -sum(share * math.log(share) for share in shares if share)
        alive = [each for each, share in enumerate(shares) if share]
        distance = {each: abs(-math.log(shares[each]) - entropy) for each in alive}
        nearest = sorted(alive, key=lambda each: (distance[each], each))
        close = [
            abs(distance[one] - distance[other]) for one in alive for other in alive if weights[one] != weights[other]
        ]
        weights, margin = _until(weights, nearest, sampling.typical_p, min([margin, *close]))
    if sampling.min_p:
        least = sampling.min_p * max(weights)
        margin = min([margin, *(abs(weight - least) for weight in weights if weight and weight != max(weights))])
        weights = [weight if weight >= least else 0.0 for weight in weights]
    return Distribution(_shares(weights), margin)


def edited(logits: Sequence[float], draw: Draw) -> list[float]:
    """Returns the scores after biases, penalties and what is forbidden."""
    sampling = draw.sampling
    biases = dict(sampling.logit_bias)
    scores = [score + biases.get(token, 0.0) for token, score in enumerate(logits)]
    for token in set(draw.ids):
        penalty = sampling.repetition_penalty
        scores[token] = scores[token] / penalty if scores[token] > 0 else scores[token] * penalty
    output = list(draw.ids[draw.prompt_count :])
    for token, times in Counter(output).items():
        scores[token] -= sampling.frequency_penalty * times + sampling.presence_penalty
    forbidden = {token for token, bias in sampling.logit_bias if bias == -100}
    forbidden |= {run[-1] for run in sampling.bad_words if output[len(output) - len(run) + 1 :] == list(run[:-1])}
    if draw.position < sampling.min_tokens:
        forbidden |= draw.end_ids
    if draw.mask is not None:
        forbidden |= {token for token in range(len(scores)) if not draw.mask[token // 8] >> token % 8 & 1}
    return [-math.inf if token in forbidden else score for token, score in enumerate(scores)]


def _until(weights: list[float], order: list[int], reach: float, margin: float) -> tuple[list[float], float]:
    """Keeps the first ids until their share is at least `reach`."""
    shares, reached, kept = _shares(weights), 0.0, []
    for each in order:
        kept.append(each)
        reached += shares[each]
        margin = min(margin, abs(reached - reach))
        if reached >= reach:
            break
    return _only(weights, kept), margin


def _only(weights: list[float], kept: Sequence[int]) -> list[float]:
    return [weight if each in set(kept) else 0.0 for each, weight in enumerate(weights)]


def _shares(weights: list[float]) -> list[float]:
    return [weight / sum(weights) for weight in weights]

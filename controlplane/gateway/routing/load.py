"""How busy a replica is, in tokens: what this gateway has there, and what others seem to have. Pure."""

from __future__ import annotations

from dataclasses import dataclass, replace

from controlplane.gateway.routing.asked import Asked
from controlplane.model import Route

OUTPUT_WEIGHT = 4  # as engines count for their fair shares: a prompt's tokens come many to a step, an output's one
# What a request gives when nothing is known of its deployment yet.
FIRST_PROMPT_TOKENS, FIRST_OUTPUT_TOKENS = 256.0, 128.0
LEARNED_FRACTION = 1 / 32  # of the newest request
REPEATED_FRACTION = 0.1  # below it, prompts have nothing in common that would be worth looking for
LEAST_LEFT = 16  # output tokens that a request is taken to have before it, however many it has given
LEAST_FREE_FRACTION = 1 / 16  # of KV blocks, in eighths: a full one is busy, and not infinitely so
SETTLE_S = 2.5  # within which a report holds what was sent or ended: it is made and told every second


@dataclass(frozen=True, slots=True)
class Typical:
    """What requests of a deployment are like."""

    prompt_tokens: float = FIRST_PROMPT_TOKENS  # of one sequence
    output_tokens: float = FIRST_OUTPUT_TOKENS
    repeat_fraction: float = 0.0  # of long prompts, whose front was known here

    def with_prompt(self, token_count: int) -> Typical:
        """Returns what they are like, one more prompt considered."""
        return replace(self, prompt_tokens=_moved(self.prompt_tokens, token_count))

    def with_output(self, token_count: float) -> Typical:
        """Returns what they are like, one more output considered."""
        return replace(self, output_tokens=_moved(self.output_tokens, token_count))

    def with_front(self, *, is_known: bool) -> Typical:
        """Returns what they are like, the front of one more long prompt considered."""
        return replace(self, repeat_fraction=_moved(self.repeat_fraction, is_known))

    @property
    def fronts_repeat(self) -> bool:
        """Whether long prompts tend to begin alike."""
        return self.repeat_fraction > REPEATED_FRACTION

    def output_of(self, asked: Asked) -> float:
        """Returns how many tokens each choice of a request is expected to give."""
        return self.output_tokens if asked.max_tokens is None else min(self.output_tokens, asked.max_tokens)

    def cost_of(self, asked: Asked, cached_token_count: int = 0) -> float:
        """Returns what a request adds to the load of an engine that has so many tokens of its prompt."""
        prompt = max(0, asked.token_count - cached_token_count)
        return prompt + OUTPUT_WEIGHT * asked.choice_count * self.output_of(asked)


@dataclass(frozen=True, slots=True)
class Peak:
    """The most that a count has been within the last `SETTLE_S`, or up to three times as long."""

    value: int = 0
    before: int = 0  # the most within the span before this one
    begin_s: float = float("-inf")

    def at(self, count: int, now_s: float) -> Peak:
        """Returns the peak after a change. count: the greater of what was and what is."""
        age_s = now_s - self.begin_s
        if age_s < SETTLE_S:
            return self if count <= self.value else Peak(count, self.before, self.begin_s)
        return Peak(count, self.value if age_s < 2 * SETTLE_S else 0, now_s)

    def most(self, count: int, now_s: float) -> int:
        """Returns it. count: what it is now, and has been since the last change."""
        age_s = now_s - self.begin_s
        if age_s < SETTLE_S:
            return max(count, self.value, self.before)
        return max(count, self.value) if age_s < 2 * SETTLE_S else count


@dataclass(slots=True)
class Own:
    """What this gateway itself has at an engine: exact, and of this moment. Nothing changes it."""

    tokens: float = 0.0  # weighted: prompts that were not computed yet, and outputs to come
    recent_sequence_count: int = 0  # the most that it was since what the newest report can be about


def tokens_at(route: Route, own: Own, typical: Typical) -> float:
    """Returns the load of an engine: weighted tokens that it has before it, for us and as far as is known for others.

    A report is up to two seconds old. What of it may be our own requests is left out, for those are known exactly: so
    what was just sent counts at once, and what has ended counts no more. The rest is somebody else's, each like a
    request that is typical; of those that run, half the output is still to come. A load that is not known is none here.
    """
    if route.is_stale:
        return own.tokens
    running = max(0, route.running_count - own.recent_sequence_count)
    waiting = max(0, route.waiting_count - max(0, own.recent_sequence_count - route.running_count))
    output = OUTPUT_WEIGHT * typical.output_tokens
    return own.tokens + running * output / 2 + waiting * (typical.prompt_tokens + output)


def free_fraction(route: Route) -> float:
    """Returns which share of its KV blocks no request holds, in (0, 1]; 1 if that is not known."""
    return 1.0 if route.is_stale else max(LEAST_FREE_FRACTION, 1 - route.used_block_eighths / 8)


def _moved(mean: float, value: float) -> float:
    return mean + (value - mean) * LEARNED_FRACTION

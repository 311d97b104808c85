"""Makes the sequences of a request: checks that they fit, and fills in defaults. Pure but for a seed that is drawn."""

from __future__ import annotations

import secrets
from collections.abc import Sequence
from dataclasses import dataclass, replace

from engines.model import Sampling, Work
from engines.service.served import Description
from roundhouse.kit.errors import TooLong
from roundhouse.kit.fields import invalid
from roundhouse.v1 import generation_pb2

# A penalty below this would make a logit infinite; with this one, what was there already wins over all else as well.
LEAST_PENALTY = 1e-30
MAX_TOLD = 1 << 20  # tokens that logprobs tell of in one request; what a slow reader leaves here is some 100 MB at most


@dataclass(frozen=True, slots=True)
class Given:
    """What is known of a request besides its own words."""

    key: str
    prompt: tuple[int, ...]
    prompt_field: str  # where the prompt stood in the request
    bad_runs: tuple[tuple[int, ...], ...] = ()
    tenant: str = ""
    deadline_s: float | None = None


def choice_count(sampling: generation_pb2.SamplingParams) -> int:
    """Returns how many sequences a request has."""
    return max(sent_count(sampling), sampling.best_of)


def sent_count(sampling: generation_pb2.SamplingParams) -> int:
    """Returns how many of them are told."""
    return sampling.n if sampling.HasField("n") else 1


def resumed(options: generation_pb2.RequestOptions, count: int) -> list[tuple[int, ...]]:
    """Returns the ids that each of so many choices has already."""
    outputs: list[tuple[int, ...]] = [()] * count
    for each in options.resume.choices:
        outputs[each.choice] = tuple(each.output_token_ids.ids)
    return outputs


def works(
    given: Given,
    sampling: generation_pb2.SamplingParams,
    options: generation_pb2.RequestOptions,
    description: Description,
) -> list[Work]:
    """Returns what is to be generated.

    Raises TooLong if it does not fit the context, InvalidArgument if the prompt is empty or holds an id that the model
    lacks, and for what can be told only now that the prompt is known.
    """
    count = choice_count(sampling)
    outputs = resumed(options, count)
    max_tokens = _max_tokens(given, sampling, description)
    _check(given, sampling, description, max_tokens, outputs)
    ends = frozenset() if sampling.ignore_eos else description.end_token_ids
    one = Work(
        key=given.key,
        prompt=given.prompt,
        max_tokens=max_tokens,
        sampling=_sampling(given, sampling, options, description),
        stop=tuple(sampling.stop),
        stop_token_ids=ends | frozenset(sampling.stop_token_ids),
        include_stop=sampling.include_stop,
        logprobs=_logprobs(sampling, description),
        priority=options.priority,
        tenant=given.tenant,
        deadline_s=given.deadline_s,
    )
    all_ = [replace(one, choice=choice, output=output) for choice, output in enumerate(outputs)]
    if sampling.HasField("prompt_logprobs"):  # once is enough: with the first that is sure to be computed at all
        scorer = min(all_, key=lambda work: (_has_ended(work), len(work.output))).choice
        top = min(sampling.prompt_logprobs, description.vocabulary_size)
        all_[scorer] = replace(all_[scorer], prompt_logprobs=top)
    return all_


def _has_ended(work: Work) -> bool:
    """Tells whether the ids that a choice has end it; a stop text may, too, which is known only when it is read."""
    return len(work.output) >= work.max_tokens or (bool(work.output) and work.output[-1] in work.stop_token_ids)


def _max_tokens(given: Given, sampling: generation_pb2.SamplingParams, description: Description) -> int:
    prompt_count, context = len(given.prompt), description.max_model_len
    rest = context - prompt_count
    max_tokens = sampling.max_tokens if sampling.HasField("max_tokens") else max(rest, 1)
    if max_tokens <= rest:
        return max_tokens
    # Fewer tokens than were asked for, in silence, would look like an answer.
    cure = "shorten the prompt" if rest <= 0 else f"ask for {rest} at most"
    raise TooLong(
        f"the prompt has {prompt_count} tokens and at least {max_tokens} are to follow, but the context holds "
        f"{context}: {cure}",
        metadata={
            "prompt_tokens": str(prompt_count),
            "max_tokens": str(max_tokens),
            "context_tokens": str(context),
        },
    )


def _check(
    given: Given,
    sampling: generation_pb2.SamplingParams,
    description: Description,
    max_tokens: int,
    outputs: Sequence[Sequence[int]],
) -> None:
    if not given.prompt:
        raise invalid(given.prompt_field, "gives no tokens: give at least one")
    # A tokenizer may know more than its model: tokens were added to it, and the model was not made larger.
    highest = max(given.prompt)
    if highest >= description.vocabulary_size:
        raise invalid(
            given.prompt_field,
            f"has text that the tokenizer turns into id {highest}, and the model has only ids in "
            f"[0, {description.vocabulary_size}): leave out the text of that token",
        )
    if sampling.min_tokens > max_tokens:
        what = f"{sampling.min_tokens} is more than the {max_tokens} that the context leaves"
        raise invalid("sampling.min_tokens", f"{what}: use at most that")
    if (longest := max(map(len, outputs))) > max_tokens:
        what = f"{longest} output ids are more than the {max_tokens} that the context leaves"
        raise invalid("options.resume.choices", f"{what}: give what one run can have given")
    _check_told("logprobs", sampling, len(outputs) * max_tokens, "lower it or max_tokens")
    _check_told("prompt_logprobs", sampling, len(given.prompt), "lower it")


def _check_told(name: str, sampling: generation_pb2.SamplingParams, tokens: int, cure: str) -> None:
    told = (1 + getattr(sampling, name)) * tokens
    if sampling.HasField(name) and told > MAX_TOLD:
        raise invalid(f"sampling.{name}", f"{told} tokens to tell of are too many, the most is {MAX_TOLD}: {cure}")


def _logprobs(sampling: generation_pb2.SamplingParams, description: Description) -> int | None:
    if sampling.HasField("logprobs"):
        return min(sampling.logprobs, description.vocabulary_size)
    return 0 if choice_count(sampling) > sent_count(sampling) else None  # without them nobody knows which is best


def _sampling(
    given: Given,
    asked: generation_pb2.SamplingParams,
    options: generation_pb2.RequestOptions,
    description: Description,
) -> Sampling:
    def own(name: str, default: float) -> float:
        value: float = getattr(asked, name) if asked.HasField(name) else default
        return value

    if options.HasField("resume"):
        seed = options.resume.seed
    else:
        seed = asked.seed if asked.HasField("seed") else secrets.randbits(63)
    return Sampling(
        temperature=own("temperature", description.default_temperature),
        top_p=own("top_p", description.default_top_p),
        top_k=asked.top_k if asked.HasField("top_k") else description.default_top_k,
        seed=seed,
        min_p=own("min_p", description.default_min_p),
        typical_p=own("typical_p", description.default_typical_p),
        repetition_penalty=max(own("repetition_penalty", description.default_repetition_penalty), LEAST_PENALTY),
        presence_penalty=asked.presence_penalty,
        frequency_penalty=asked.frequency_penalty,
        logit_bias=tuple(sorted(asked.logit_bias.items())),
        bad_words=given.bad_runs,
        min_tokens=asked.min_tokens,
    )

"""Whether output that exists already fits the request that is to go on behind it. Pure."""

from __future__ import annotations

from engines.service.sampling_checks import check_ids
from roundhouse.kit.fields import FieldCheck
from roundhouse.v1 import generation_pb2

_AT = "options.resume"


def check_resume(
    check: FieldCheck, resume: generation_pb2.Resume, sampling: generation_pb2.SamplingParams, vocabulary_size: int
) -> None:
    """Notes all that does not fit, as far as it can be told without the prompt."""
    if resume.HasField("prompt_token_ids"):
        ids = resume.prompt_token_ids.ids
        check.require(len(ids) > 0, f"{_AT}.prompt_token_ids", "is empty: give at least one id, or leave it out")
        check_ids(check, f"{_AT}.prompt_token_ids", ids, vocabulary_size)
    agrees = not sampling.HasField("seed") or sampling.seed == resume.seed
    check.require(agrees, f"{_AT}.seed", "is not the seed of sampling: give the same one, or leave that out")
    count = sampling.n if sampling.HasField("n") else 1
    is_ranked = sampling.HasField("best_of") and sampling.best_of > count
    has_output = any(each.output_token_ids.ids for each in resume.choices)
    check.require(
        not (is_ranked and has_output),
        "sampling.best_of",
        "has nothing to go on behind, as nothing was sent: leave one out",
    )
    # The same number cannot be there so often without being there twice.
    holds = len(resume.choices) <= max(count, 1)
    if not check.require(holds, f"{_AT}.choices", f"{len(resume.choices)} entries are more than n, {count}: use fewer"):
        return
    seen: set[int] = set()
    for number, choice in enumerate(resume.choices):
        field = f"{_AT}.choices[{number}]"
        holds = 0 <= choice.choice < count
        check.require(holds, f"{field}.choice", f"{choice.choice} is out of range: use 0 to {count - 1}, by n")
        check.require(choice.choice not in seen, f"{field}.choice", f"{choice.choice} is there twice: name each once")
        seen.add(choice.choice)
        check_ids(check, f"{field}.output_token_ids", choice.output_token_ids.ids, vocabulary_size)
        fits = not sampling.HasField("max_tokens") or len(choice.output_token_ids.ids) <= sampling.max_tokens
        what = f"{len(choice.output_token_ids.ids)} ids are more than max_tokens: raise that"
        check.require(fits, f"{field}.output_token_ids", what)

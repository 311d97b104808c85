"""Makes of a request what is to be computed and what is told of it: tokenizes, checks what fits, compiles."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import replace

from engines.model import Work
from engines.service import forms, prompts
from engines.service.call import Submission
from engines.service.exactness import Lineage
from engines.service.log import Asked
from engines.service.run import Run
from engines.service.served import Served
from engines.service.works import Given, resumed, sent_count, works

Encode = Callable[[], Awaitable[tuple[int, ...]]]


async def prepared(
    submission: Submission, run: Run, served: Served, encode: Encode, lineage: Lineage
) -> tuple[list[Work], Asked]:
    """Returns the sequences of a run that was admitted, and what is told of them. `encode` gives the ids of the prompt.

    Raises what the caller is to be told, and no other error.
    """
    sampling, options, hop = submission.request.sampling, submission.request.options, submission.call.hop
    has_own_prompt = options.resume.HasField("prompt_token_ids")
    prompt = tuple(options.resume.prompt_token_ids.ids) if has_own_prompt else await encode()
    outputs = resumed(options, run.choice_count)
    given = Given(
        key=run.key,
        prompt=prompt,
        prompt_field="options.resume.prompt_token_ids" if has_own_prompt else submission.prompt_field,
        bad_runs=await prompts.bad_runs(served.tokenizer, sampling),
        tenant=hop.tenant,
        deadline_s=None if run.bound_s is None else run.arrival_s + run.bound_s,
    )
    made = works(given, sampling, options, served.description)
    if sampling.HasField("constraint"):  # last, because it takes longest
        ends = made[0].stop_token_ids
        key = (hop.tenant, hop.principal)
        compiled = forms.constraints(served.grammars, sampling.constraint, outputs, ends, key)
        constraints = await run.unless_cancelled(compiled)
        if constraints is not None:  # else the run has ended, and nothing of it is computed
            made = [replace(work, constraint=each) for work, each in zip(made, constraints, strict=True)]
    asked = Asked(
        prompt=prompt,
        choice_count=run.choice_count,
        sent_count=sent_count(sampling),
        echo=await prompts.decode(served.tokenizer, prompt) if submission.wants_echo else None,
        logprobs=made[0].logprobs if sampling.HasField("logprobs") else None,
        scorer=next((work.choice for work in made if work.prompt_logprobs is not None), None),
        resumed=outputs,
        exactness=lineage.exactness,
    )
    return made, asked

"""Makes what guesses tokens ahead of a model, as an engine is set to."""

from __future__ import annotations

from pathlib import Path

from engines.backends.torch_lm.context import context_tokens
from engines.backends.torch_lm.drafting import DraftModel
from engines.backends.torch_lm.load import Loaded, load_model
from engines.backends.torch_lm.weights import read_config
from engines.batching.blocks import BlockPool
from engines.config import Options
from engines.loading import Count, LoadStage, OnStage
from engines.loop import Proposer
from engines.loop.ngram import NGrams
from roundhouse.kit.errors import InvalidArgument, NotServed

_SHARE = 4  # of the memory of the other cache, if nobody has computed what this one needs


def make_proposer(options: Options, draft_model: Path | None, loaded: Loaded, on_stage: OnStage) -> Proposer | None:
    """Returns what guesses for a model that was loaded; None if nothing is to.

    draft_model: the directory of the model that guesses, if one is to. Raises what `load_model` raises, NotServed where
    nothing can guess, and InvalidArgument if the two models have other tokens.
    """
    if options.speculation is None:
        return None
    if loaded.runner.depth:
        raise NotServed(f"speculation is not served on {loaded.device} yet: leave it off")
    if draft_model is None:
        return NGrams()

    def tell(message: str, stage: LoadStage | None = None, count: Count | None = None, /) -> None:
        on_stage(f"draft model: {message}", stage, count)

    tell("reading the configuration", LoadStage.WARMING_UP)
    draft = load_model(
        draft_model,
        device=loaded.device,
        dtype=options.dtype,
        attention=options.attention,
        block_size=options.block_size,
        kv_cache_bytes=options.speculation.draft_cache_bytes or options.kv_cache_bytes // _SHARE,
        max_model_len=min(loaded.max_model_len, context_tokens(read_config(draft_model), None)),
        batch_size=options.batch_size,
        max_batched_tokens=options.max_batched_tokens,
        on_stage=tell,
    )
    if draft.vocabulary_size != loaded.vocabulary_size:
        raise InvalidArgument(
            f'the draft model "{draft_model}" has {draft.vocabulary_size} tokens and the model has '
            f"{loaded.vocabulary_size}: use one with the same tokenizer"
        )
    return DraftModel(
        draft.runner,
        BlockPool(draft.total_blocks, draft.block_size),
        max_model_len=draft.max_model_len,
        max_batched_tokens=options.max_batched_tokens,
    )

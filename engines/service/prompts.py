"""Makes a sequence of a request: tokenizes its prompt, checks that it fits, fills in defaults."""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from itertools import groupby

from engines.model import Sampling, Work
from engines.service.served import Description, Tokenizer
from roundhouse.kit.errors import NotReady, TooLong
from roundhouse.kit.fields import invalid
from roundhouse.v1 import errors_pb2, generation_pb2

THREAD_SIZE = 4096  # characters or ids, about a millisecond of work; what takes longer must not hold up other streams
TURN_SIZE = 32  # what a template and its marks add to each message
# Threads of our own: an event loop that ends waits for those of `asyncio.to_thread`, half a minute for a long prompt.
_encoders = ThreadPoolExecutor(thread_name_prefix="encode")

_ROLES: Mapping[int, str] = {
    generation_pb2.ROLE_SYSTEM: "system",
    generation_pb2.ROLE_USER: "user",
    generation_pb2.ROLE_ASSISTANT: "assistant",
}


async def encode_parts(tokenizer: Tokenizer, parts: Sequence[generation_pb2.ContentPart]) -> tuple[int, ...]:
    """Returns the ids of a prompt. Texts side by side are one text; special tokens are added to the first part only."""
    size = sum(len(part.text) + len(part.token_ids.ids) for part in parts)
    return await _off_loop(lambda: _encode_parts(tokenizer, parts), size)


async def encode_messages(tokenizer: Tokenizer, messages: Sequence[generation_pb2.Message]) -> tuple[int, ...]:
    """Returns the ids of a conversation.

    Raises NotReady if the model has no chat template, InvalidArgument if the template refuses it.
    """
    if not tokenizer.has_chat_template:
        message = "the model has no chat template: use Generate"
        raise NotReady(message, reason=errors_pb2.ERROR_REASON_CHAT_TEMPLATE_MISSING)
    turns = [(_ROLES[message.role], "".join(part.text for part in message.content)) for message in messages]
    return await _off_loop(lambda: tuple(tokenizer.render_chat(turns)), sum(TURN_SIZE + len(text) for _, text in turns))


def sequence(
    key: str,
    prompt: tuple[int, ...],
    sampling: generation_pb2.SamplingParams,
    description: Description,
    *,
    field: str = "prompt",
) -> Work:
    """Returns what is to be generated. `field` is where the prompt stood in the request.

    Raises TooLong if it does not fit the context, InvalidArgument if it is empty or holds an id that the model lacks.
    """
    rest = description.max_model_len - len(prompt)
    max_tokens = sampling.max_tokens if sampling.HasField("max_tokens") else max(rest, 1)
    if max_tokens > rest:
        raise _too_long(len(prompt), max_tokens, description.max_model_len)
    if not prompt:
        raise invalid(field, "gives no tokens: give at least one")
    # A tokenizer may know more than its model: tokens were added to it, and the model was not made larger.
    highest = max(prompt)
    if highest >= description.vocabulary_size:
        raise invalid(
            field,
            f"has text that the tokenizer turns into id {highest}, and the model has only ids in "
            f"[0, {description.vocabulary_size}): leave out the text of that token",
        )
    ends = frozenset() if sampling.ignore_eos else description.end_token_ids
    return Work(
        key=key,
        prompt=prompt,
        max_tokens=max_tokens,
        sampling=_sampling(sampling, description),
        stop=tuple(sampling.stop),
        stop_token_ids=ends | frozenset(sampling.stop_token_ids),
    )


def _sampling(asked: generation_pb2.SamplingParams, description: Description) -> Sampling:
    return Sampling(
        temperature=asked.temperature if asked.HasField("temperature") else description.default_temperature,
        top_p=asked.top_p if asked.HasField("top_p") else description.default_top_p,
        top_k=asked.top_k if asked.HasField("top_k") else description.default_top_k,
        seed=asked.seed if asked.HasField("seed") else secrets.randbits(63),
    )


def _too_long(prompt_tokens: int, max_tokens: int, context_tokens: int) -> TooLong:
    # Fewer tokens than were asked for, in silence, would look like an answer.
    cure = (
        "shorten the prompt" if prompt_tokens >= context_tokens else f"ask for {context_tokens - prompt_tokens} at most"
    )
    return TooLong(
        f"the prompt has {prompt_tokens} tokens and at least {max_tokens} are to follow, but the context holds "
        f"{context_tokens}: {cure}",
        metadata={
            "prompt_tokens": str(prompt_tokens),
            "max_tokens": str(max_tokens),
            "context_tokens": str(context_tokens),
        },
    )


async def _off_loop(encode: Callable[[], tuple[int, ...]], size: int) -> tuple[int, ...]:
    if size <= THREAD_SIZE:
        return encode()
    return await asyncio.get_running_loop().run_in_executor(_encoders, encode)


def _encode_parts(tokenizer: Tokenizer, parts: Sequence[generation_pb2.ContentPart]) -> tuple[int, ...]:
    ids: list[int] = []
    for kind, group in groupby(parts, key=lambda part: part.WhichOneof("part")):
        if kind == "text":
            text = "".join(part.text for part in group)
            ids += tokenizer.encode(text, add_special_tokens=not ids)
        else:
            ids += [token for part in group for token in part.token_ids.ids]
    return tuple(ids)
